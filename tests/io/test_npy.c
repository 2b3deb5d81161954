/* .npy and .npz files: what NumPy wrote is read and written again byte by byte (stored members: zip headers apart),
   every way in which a file can be wrong is refused, a failed write leaves nothing behind. tests/interop/npy.py has
   more. */
#include "base/alloc.h"
#include "io/npy.h"
#include "io/files.h"
#include "support/values.h"
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/tern-npy-XXXXXX";
static char path[sizeof folder + 32];

/* ---- files of NumPy ---- */

static const struct {
  const char *name;
  tern_dtype dtype;
  tern_shape shape;
} all[] = {
    {"bool", TERN_BOOL, {2, {2, 3}}},   {"int8", TERN_I8, {2, {2, 3}}},     {"int16", TERN_I16, {2, {2, 3}}},
    {"int32", TERN_I32, {2, {2, 3}}},   {"int64", TERN_I64, {2, {2, 3}}},   {"uint8", TERN_U8, {2, {2, 3}}},
    {"uint16", TERN_U16, {2, {2, 3}}},  {"uint32", TERN_U32, {2, {2, 3}}},  {"uint64", TERN_U64, {2, {2, 3}}},
    {"float16", TERN_F16, {2, {2, 3}}}, {"float32", TERN_F32, {2, {2, 3}}}, {"float64", TERN_F64, {2, {2, 3}}},
    {"scalar", TERN_F32, {0, {0}}},     {"empty", TERN_F32, {2, {0, 4}}},   {"n\303\244me/x", TERN_U8, {1, {5}}}};
enum { N_ALL = sizeof all / sizeof *all };

/* The bytes that make_npy.py gives an array. */
static void fill(tern_dtype dtype, unsigned char *bytes, size_t size) {
  for (size_t k = 0; k < size; k++) bytes[k] = (unsigned char)(dtype == TERN_BOOL ? k % 2 : 37 * k + 11);
}

static void check_all(const char *name) {
  TERN_SCOPE;
  tern_npz *file = tern_npz_open(name);
  CHECK(file && tern_npz_count(file) == N_ALL, "%d arrays: %s", tern_npz_count(file), tern_error());
  for (int i = 0; i < N_ALL; i++) {
    unsigned char got[64], expected[64];
    CHECK(tern_npz_name(file, i) && !strcmp(tern_npz_name(file, i), all[i].name), "name %d", i);
    tern_tensor *t = tern_npz_get(file, all[i].name);
    const size_t size = (size_t)test_numel(all[i].shape) * tern_dtype_size(all[i].dtype);
    const tern_shape shape = tern_shape_get(t);
    fill(all[i].dtype, expected, size);
    CHECK(t && tern_dtype_get(t) == all[i].dtype && shape.rank == all[i].shape.rank &&
              !memcmp(shape.dim, all[i].shape.dim, sizeof *shape.dim * (size_t)shape.rank),
          "%s: dtype or shape; %s", all[i].name, tern_error());
    CHECK(tern_to_host(t, got, size) == TERN_OK && !memcmp(got, expected, size), "%s: other bytes", all[i].name);
  }
  CHECK(!tern_npz_name(file, N_ALL) && !tern_npz_name(file, -1), "names past the ends");
  CHECK(!tern_npz_get(file, "float128"), "a name that is not there");
  CHECK_ERROR(TERN_E_ARG, "it has \"bool\", \"int8\"");
  tern_npz_close(file);
}

static void test_numpys(void) {
  TERN_SCOPE;
  check_all(TERN_FIXTURES "/npy/stored.npz");
  check_all(TERN_FIXTURES "/npy/deflated.npz");
  double expected[24];
  for (int i = 0; i < 24; i++) expected[i] = 100 * (i / 12) + 10 * (i / 4 % 3) + i % 4;
  CHECK_VALUES(tern_npy_read(TERN_FIXTURES "/npy/turned.npy"), TERN_SHAPE(2, 3, 4), TERN_I16, expected, 0, 0, "turned");
  CHECK_NO_ERROR();
}

static void test_written(void) {
  TERN_SCOPE;
  const char *names[N_ALL];
  tern_tensor *tensors[N_ALL];
  for (int i = 0; i < N_ALL; i++) {
    unsigned char bytes[64];
    const size_t n = (size_t)test_numel(all[i].shape);
    fill(all[i].dtype, bytes, n * tern_dtype_size(all[i].dtype));
    names[i] = all[i].name;
    tensors[i] = tern_constant(all[i].shape, all[i].dtype, bytes, n);
  }
  size_t sizes[2] = {0};
  for (int compressed = 0; compressed < 2; compressed++) {
    const tern_npz_opts opts = {.compressed = compressed};
    CHECK(tern_npz_write(path, names, tensors, N_ALL, &opts) == TERN_OK, "write: %s", tern_error());
    check_all(path);
    free(files_read(path, &sizes[compressed]));
  }
  CHECK(sizes[1] < sizes[0], "deflated: %zu bytes, stored: %zu", sizes[1], sizes[0]);
  CHECK(tern_npz_write(path, NULL, NULL, 0, NULL) == TERN_OK, "nothing: %s", tern_error());
  tern_npz *file = tern_npz_open(path);
  CHECK(file && tern_npz_count(file) == 0 && !tern_npz_name(file, 0), "nothing: %s", tern_error());
  CHECK(!tern_npz_get(file, "a"), "an array of nothing");
  CHECK_ERROR(TERN_E_ARG, "no arrays");
  tern_npz_close(file);
  CHECK(files_left_over(folder) == 0, "temporary files are left");
}

/* Views, scalars, variables, large tensors; the header as numpy.save writes it. */
static void test_round_trip(void) {
  TERN_SCOPE;
  static const char expected[] = "\x93NUMPY\1\0v\0{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }";
  tern_tensor *matrix = tern_f32(TERN_SHAPE(2, 3), 1, 2, 3, 4, 5, 6);
  size_t size;
  CHECK(tern_npy_write(path, tern_transpose(matrix)) == TERN_OK, "write: %s", tern_error());
  CHECK_LIST(tern_npy_read(path), TERN_SHAPE(3, 2), TERN_F32, 1, 4, 2, 5, 3, 6);
  unsigned char *bytes = files_read(path, &size);
  CHECK(bytes && size == 128 + 24 && !memcmp(bytes, expected, sizeof expected - 1) && bytes[127] == '\n' &&
            bytes[126] == ' ',
        "%zu bytes", size);
  free(bytes);
  CHECK(tern_npy_write(path, tern_scalar_int(-7)) == TERN_OK, "%s", tern_error());
  CHECK_LIST(tern_npy_read(path), TERN_SHAPE(), TERN_I64, -7);
  CHECK(tern_npy_write(path, tern_scalar(0.5)) == TERN_OK, "%s", tern_error());
  CHECK_LIST(tern_npy_read(path), TERN_SHAPE(), TERN_F32, 0.5);
  tern_tensor *v = tern_variable(matrix, NULL), *large = tern_arange(0, 4.5e6, 1, TERN_I32);
  CHECK(tern_npy_write(path, v) == TERN_OK, "%s", tern_error());
  CHECK_LIST(tern_npy_read(path), TERN_SHAPE(2, 3), TERN_F32, 1, 2, 3, 4, 5, 6);
  tern_release(v);
  const char *const names[] = {"large", "turned"};
  tern_tensor *const both[] = {large, tern_transpose(tern_reshape(large, TERN_SHAPE(1500, 3000)))};
  CHECK(tern_npz_write(path, names, both, 2, &(tern_npz_opts){.compressed = 1}) == TERN_OK, "%s", tern_error());
  tern_npz *file = tern_npz_open(path);
  tern_tensor *a = tern_npz_get(file, "large"), *b = tern_npz_get(file, "turned");
  tern_npz_close(file);
  CHECK(tern_equal_all(a, both[0]) == 1 && tern_equal_all(b, both[1]) == 1, "large: %s", tern_error());
  CHECK_NO_ERROR();
}

/* ---- files that are wrong ---- */

/* A file of this dict and that many bytes of elements 0, 1, 2, .. */
static void make(const char *dict, size_t data) {
  static unsigned char bytes[1 << 12] = "\x93NUMPY\1\0";
  const size_t length = strlen(dict);
  bytes[8] = (unsigned char)length;
  bytes[9] = (unsigned char)(length >> 8);
  memcpy(bytes + 10, dict, length);
  for (size_t i = 0; i < data; i++) bytes[10 + length + i] = (unsigned char)i;
  files_write(path, bytes, 10 + length + data);
}

static void refused(const char *dict, size_t data, const char *part) {
  make(dict, data);
  CHECK(!tern_npy_read(path), "accepted: %s", dict);
  CHECK_ERROR(TERN_E_IO, part);
  CHECK_NO_ERROR();
}

#define DICT(descr, order, shape) "{'descr': " descr ", 'fortran_order': " order ", 'shape': " shape "}"
#define U1(shape) DICT("'|u1'", "False", shape)

static void test_other_writers(void) { /* any order of keys, any spaces, "", no comma, no byte order, Python 2's L */
  TERN_SCOPE;
  make("{\"shape\":(2L,1,),'fortran_order' :True , \"descr\" : 'u2'}\n", 4);
  CHECK_LIST(tern_npy_read(path), TERN_SHAPE(2, 1), TERN_U16, 0x0100, 0x0302);
  make(DICT("'>u2'", "False", "( 2 , )") "      ", 4);
  CHECK_LIST(tern_npy_read(path), TERN_SHAPE(2), TERN_U16, 0x0001, 0x0203);
  make(DICT("'=i4'", "False", "()"), 4);
  CHECK_LIST(tern_npy_read(path), TERN_SHAPE(), TERN_I32, 0x03020100);
  make(DICT("'|b1'", "False", "(2,)"), 2);
  CHECK_LIST(tern_npy_read(path), TERN_SHAPE(2), TERN_BOOL, 0, 1);
  refused(DICT("'|b1'", "False", "(3,)"), 3, "a bool of 2");
}

static void test_wrong_text(void) {
  TERN_SCOPE;
  refused("", 0, "{ expected");
  refused("[]", 0, "{ expected");
  refused("{", 0, "a string in quotes");
  refused("{}", 0, "no key 'descr'");
  refused("{} x", 0, "no key 'descr'");
  refused(U1("(2,)") "x", 2, "nothing but spaces");
  refused(U1("(2,)") "}", 2, "nothing but spaces");
  refused("{'descr': '|u1', 'shape': (2,)}", 2, "no key 'fortran_order'");
  refused("{'descr': '|u1', 'descr': '|u1'}", 2, "two keys 'descr'");
  refused("{'descr': '|u1', 'more': 1}", 2, "a key 'more'");
  refused("{'descr' '|u1'}", 2, "a colon");
  refused("{'descr': '|u1' 'shape': (2,)}", 2, "a comma or }");
  refused("{'descr: '|u1'}", 2, "a key 'descr: '");
  refused("{'descr", 2, "the end of the string");
  refused("{'de\\x73cr': '|u1'}", 2, "plain characters");
  refused("{descr: '|u1'}", 2, "a string in quotes");
  refused(DICT("'|u1'", "0", "(2,)"), 2, "True or False");
  refused(DICT("'|u1'", "Fals", "(2,)"), 2, "True or False");
  refused(U1("2"), 2, "round brackets");
  refused(U1("[2]"), 2, "round brackets");
  refused(U1("(2)"), 2, "makes one size a shape");
  refused(U1("(,)"), 2, "a size expected");
  refused(U1("(2,,1)"), 2, "a size expected");
  refused(U1("(2 1)"), 2, "a comma or the end");
  refused(U1("(-2,)"), 2, "a size expected");
  refused(U1("(2.0,)"), 2, "a comma or the end");
  refused(U1("(0x2,)"), 2, "a comma or the end");
  refused(U1("(2"), 2, "a comma or the end");
  refused(U1("(9223372036854775808,)"), 2, "at most 2^63 - 1");
  refused(U1("(1,1,1,1,1,1,1,1,2)"), 2, "more than 8 dimensions");
}

static void test_wrong_meaning(void) {
  TERN_SCOPE;
  refused(DICT("'<f16'", "False", "(1,)"), 16, "a size that tern has not");
  refused(DICT("'<c8'", "False", "(1,)"), 8, "complex");
  refused(DICT("'<U3'", "False", "(1,)"), 12, "text");
  refused(DICT("'|S3'", "False", "(1,)"), 3, "text");
  refused(DICT("'|O'", "False", "(1,)"), 8, "Python objects");
  refused(DICT("'<M8[s]'", "False", "(1,)"), 8, "times");
  refused(DICT("'<V2'", "False", "(1,)"), 2, "bfloat16");
  refused(DICT("''", "False", "(1,)"), 2, "a type that tern has not");
  refused(DICT("'<'", "False", "(1,)"), 2, "a type that tern has not");
  refused(DICT("'<<u2'", "False", "(1,)"), 2, "a type that tern has not");
  refused(DICT("'i3'", "False", "(1,)"), 3, "a type that tern has not");
  refused(DICT("[('a', '<f4')]", "False", "(1,)"), 4, "records of several fields");
  refused(U1("(3,)"), 2, "truncated");
  refused(U1("(3,)"), 4, "something follows");
  refused(U1("()"), 0, "truncated");
  refused(U1("(4611686018427387904,)"), 2, "too many elements");
  refused(U1("(4294967296,4294967296,4294967296)"), 2, "too many elements");
  refused(U1("(4294967296,0,4294967296)"), 0, "too many elements");
  refused(U1("(1000000000000,)"), 2, "truncated");
}

static void test_wrong_files(void) {
  TERN_SCOPE;
  unsigned char bytes[128] = "\x93NUMPY\1\0\377\377{";
  files_write(path, bytes, 128);
  CHECK(!tern_npy_read(path), "a header that is not there");
  CHECK_ERROR(TERN_E_IO, "claims a header of 65535 bytes, but only 118 follow");
  bytes[6] = 2;
  bytes[10] = bytes[11] = 255;
  files_write(path, bytes, 128);
  CHECK(!tern_npy_read(path), "a header of 4 GiB");
  CHECK_ERROR(TERN_E_IO, "4294967295");
  bytes[6] = 4;
  files_write(path, bytes, 128);
  CHECK(!tern_npy_read(path), "version 4");
  CHECK_ERROR(TERN_E_IO, "version 4.0");
  bytes[0] = 'x';
  files_write(path, bytes, 128);
  CHECK(!tern_npy_read(path), "no magic");
  CHECK_ERROR(TERN_E_IO, "does not begin like");
  files_write(path, bytes, 0);
  CHECK(!tern_npy_read(path), "an empty file");
  CHECK_ERROR(TERN_E_IO, "holds 0 bytes");
  CHECK(!tern_npz_open(path), "an empty file");
  CHECK_ERROR(TERN_E_IO, "holds 0 bytes");
  static const char *const other[][2] = {
      {folder, "not a regular file"}, {"/dev/zero", "not a regular file"}, {"/nowhere/at/all", "No such file"}};
  for (int i = 0; i < 3; i++) {
    CHECK(!tern_npy_read(other[i][0]), "%s", other[i][0]);
    CHECK_ERROR(TERN_E_IO, other[i][1]);
    CHECK(!tern_npz_open(other[i][0]), "%s", other[i][0]);
    CHECK_ERROR(TERN_E_IO, other[i][1]);
  }
  CHECK(!tern_npy_read(NULL), "NULL");
  CHECK_ERROR(TERN_E_ARG, "NULL");
  CHECK(!tern_npz_open(NULL), "NULL");
  CHECK_ERROR(TERN_E_ARG, "NULL");
  CHECK(!tern_npz_get(NULL, "a"), "NULL");
  CHECK_ERROR(TERN_E_ARG, "NULL");
  tern_npz_close(NULL);
  CHECK(tern_npz_count(NULL) == 0 && !tern_npz_name(NULL, 0), "NULL");
}

/* Reads everything in the file; whether all of it was sound. */
static bool sound(void) {
  TERN_SCOPE;
  tern_npz *file = tern_npz_open(path);
  bool ok = file != NULL;
  for (int i = 0; i < tern_npz_count(file) && ok; i++) ok = tern_npz_get(file, tern_npz_name(file, i)) != NULL;
  tern_npz_close(file);
  return ok;
}

/* Cut off after each byte, and each byte changed: refused or read, never a crash; what is read has the right sum. */
static void test_damage(void) {
  TERN_SCOPE;
  for (int k = 0; k < 2; k++) {
    size_t size;
    unsigned char *bytes = files_read(k ? TERN_FIXTURES "/npy/stored.npz" : TERN_FIXTURES "/npy/deflated.npz", &size);
    CHECK(bytes != NULL, "no fixture");
    int survived = 0;
    for (size_t cut = 0; cut < size; cut += 5) {
      files_write(path, bytes, cut);
      CHECK(!sound(), "cut off after %zu bytes", cut);
      CHECK_ERROR(TERN_E_IO, path);
    }
    for (size_t at = k; at < size; at += k ? 7 : 3) {
      bytes[at] ^= (unsigned char)(1 << at % 8);
      files_write(path, bytes, size);
      if (sound())
        survived++; /* dates, versions, attributes */
      else
        CHECK_ERROR(TERN_E_IO, path);
      bytes[at] ^= (unsigned char)(1 << at % 8);
    }
    CHECK(survived < (int)size / 8, "%d of %zu damaged files were taken for sound", survived, size);
    free(bytes);
  }
}

static void put(unsigned char *p, unsigned long v, int n) {
  for (int i = 0; i < n; i++) p[i] = (unsigned char)(v >> 8 * i);
}

/* One bytewise change to a file of one array "a" of 12 bytes, stored: local header 0, directory, end. */
static void changed(size_t at, unsigned long value, int n, const char *part) {
  size_t size;
  unsigned char *bytes = files_read(path, &size);
  unsigned char old[8];
  CHECK(bytes && at + (size_t)n <= size, "no file");
  memcpy(old, bytes + at, (size_t)n);
  put(bytes + at, value, n);
  files_write(path, bytes, size);
  CHECK(!sound(), "accepted: %s", part);
  CHECK_ERROR(TERN_E_IO, part);
  memcpy(bytes + at, old, (size_t)n);
  files_write(path, bytes, size);
  free(bytes);
}

static void test_wrong_zip(void) {
  TERN_SCOPE;
  const char *const name[] = {"a"};
  tern_tensor *const t[] = {tern_f32(TERN_SHAPE(3), 1, 2, 3)};
  CHECK(tern_npz_write(path, name, t, 1, NULL) == TERN_OK && sound(), "%s", tern_error());
  enum { DATA = 30 + 5, DIRECTORY = DATA + 140, END = DIRECTORY + 46 + 5 };
  changed(DATA + 130, 77, 1, "checksum");
  changed(DIRECTORY + 8, 1, 2, "encrypted");
  changed(DIRECTORY + 10, 99, 2, "method 99");
  changed(DIRECTORY + 10, 8, 2, "another one");
  changed(DIRECTORY + 16, 1, 4, "checksum");
  changed(DIRECTORY + 20, 139, 4, "stored in 139 bytes");
  changed(DIRECTORY + 20, 10000, 4, "truncated or damaged");
  changed(DIRECTORY + 24, 0xffffffff, 4, "a 64-bit field is missing");
  changed(DIRECTORY + 42, 1, 4, "no header of its own");
  changed(28, 1000, 2, "reaches into the directory");
  changed(DIRECTORY + 42, 100000, 4, "truncated or damaged");
  changed(DIRECTORY + 46, '/', 1, "from the root");
  changed(DIRECTORY + 46, '\\', 1, "backslash");
  changed(DIRECTORY + 46, 0, 1, "control character");
  changed(DIRECTORY + 46, 0xff, 1, "not UTF-8");
  changed(DIRECTORY + 46, 'b', 1, "another name");
  changed(DIRECTORY + 47, 'x', 1, "does not end in .npy");
  changed(DIRECTORY + 28, 6, 2, "cut off");
  changed(DIRECTORY, 0, 4, "damaged after 0 members");
  changed(0, 0, 4, "no header of its own");
  changed(END, 0, 4, "no directory at its end");
  changed(END + 4, 1, 2, "several parts");
  changed(END + 10, 2, 2, "several parts");
  changed(END + 10, 0xffff, 2, "64-bit record is missing");
  changed(END + 12, 46, 4, "cut off");
  changed(END + 16, 1, 4, "damaged");
  changed(END + 16, 0xfffffffe, 4, "damaged");
}

/* ---- writing that fails ---- */

static void test_write_arguments(void) {
  TERN_SCOPE;
  tern_tensor *t[] = {tern_f32(TERN_SHAPE(1), 1), tern_f32(TERN_SHAPE(1), 2)}, *absent[] = {NULL};
  tern_tensor *brain[] = {tern_zeros(TERN_SHAPE(2), TERN_BF16)};
  const char *const same[] = {"a", "a"}, *const good[] = {"a", "b"};
  static const char *const bad[][2] = {{"", "is empty"},  {"/a", "from the root"}, {"../a", ".."},
                                       {"a/../b", ".."},  {"a\\b", "backslash"},   {"a\nb", "control"},
                                       {"\377", "UTF-8"}, {NULL, "NULL"}};
  (void)unlink(path);
  CHECK(tern_npy_write(NULL, t[0]) == TERN_E_ARG, "no path");
  CHECK_ERROR(TERN_E_ARG, "path is NULL");
  CHECK(tern_npy_write(path, NULL) == TERN_E_ARG, "no tensor");
  CHECK_ERROR(TERN_E_ARG, "NULL");
  CHECK(tern_npy_write(path, brain[0]) == TERN_E_ARG, "bfloat16");
  CHECK_ERROR(TERN_E_ARG, "NumPy has no bfloat16; tern_cast it to float32");
  CHECK(tern_npz_write(path, good, brain, 1, NULL) == TERN_E_ARG, "bfloat16");
  CHECK_ERROR(TERN_E_ARG, "NumPy has no bfloat16");
  CHECK(tern_npz_write(NULL, good, t, 2, NULL) == TERN_E_ARG, "no path");
  CHECK_ERROR(TERN_E_ARG, "path is NULL");
  CHECK(tern_npz_write(path, same, t, 2, NULL) == TERN_E_ARG, "a name twice");
  CHECK_ERROR(TERN_E_ARG, "two of the names are \"a\"");
  CHECK(tern_npz_write(path, good, absent, 1, NULL) == TERN_E_ARG, "no tensor");
  CHECK_ERROR(TERN_E_ARG, "NULL");
  CHECK(tern_npz_write(path, good, NULL, 1, NULL) == TERN_E_ARG, "no tensors");
  CHECK_ERROR(TERN_E_ARG, "NULL");
  CHECK(tern_npz_write(path, good, t, -1, NULL) == TERN_E_ARG, "-1 tensors");
  CHECK_ERROR(TERN_E_ARG, "-1");
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    CHECK(tern_npz_write(path, &bad[i][0], t, 1, NULL) == TERN_E_ARG, "name %zu", i);
    CHECK_ERROR(TERN_E_ARG, bad[i][1]);
  }
  CHECK(tern_npz_write(path, (const char *const[]){"a..b", "..."}, t, 2, NULL) == TERN_OK, "%s", tern_error());
  (void)unlink(path);
  CHECK(access(path, F_OK) != 0 && files_left_over(folder) == 0, "something was written");
}

static void test_write_fails(void) {
  TERN_SCOPE;
  const char *const name[] = {"a"};
  tern_tensor *const t[] = {tern_zeros(TERN_SHAPE(100000), TERN_F32)};
  struct rlimit limit, old;
  size_t size, size_after;
  CHECK(tern_npy_write(path, t[0]) == TERN_OK, "write: %s", tern_error());
  CHECK(tern_npy_write("/dev/full", t[0]) == TERN_E_IO, "over a device");
  CHECK_ERROR(TERN_E_IO, "not a regular file");
  unsigned char *before = files_read(path, &size);
  getrlimit(RLIMIT_FSIZE, &old);
  limit = old;
  limit.rlim_cur = 100000; /* a disk that is full */
  void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &limit);
  const tern_rc one = tern_npy_write(path, t[0]);
  setrlimit(RLIMIT_FSIZE, &old);
  CHECK(one == TERN_E_IO, "a full disk");
  CHECK_ERROR(TERN_E_IO, "File too large");
  setrlimit(RLIMIT_FSIZE, &limit);
  const tern_rc many = tern_npz_write(path, name, t, 1, NULL);
  setrlimit(RLIMIT_FSIZE, &old);
  signal(SIGXFSZ, handler);
  CHECK(many == TERN_E_IO, "a full disk");
  CHECK_ERROR(TERN_E_IO, "File too large");
  unsigned char *after = files_read(path, &size_after);
  CHECK(before && after && size == size_after && !memcmp(before, after, size), "the old file was changed");
  CHECK(files_left_over(folder) == 0, "temporary files are left");
  free(before);
  free(after);
}

/* Each allocation fails once: an error, or success, and no leak. */
static void test_no_memory(void) {
  TERN_SCOPE;
  const char *const name[] = {"a", "b"};
  tern_tensor *const t[] = {tern_f32(TERN_SHAPE(3), 1, 2, 3), tern_transpose(tern_zeros(TERN_SHAPE(2, 3), TERN_I8))};
  for (int what = 0; what < 3; what++) {
    long n = 1;
    for (bool failed = true; failed && n < 200; n++) {
      tern__alloc_fail_at(n);
      if (what == 0) failed = tern_npz_write(path, name, t, 2, NULL) != TERN_OK;
      if (what == 1) failed = !sound();
      if (what == 2) failed = tern_npy_write(path, t[1]) != TERN_OK || !tern_npy_read(path);
      tern__alloc_fail_at(0);
      if (failed) CHECK_ERROR(TERN_E_OOM, "memory");
    }
    CHECK(n > 2 && n < 200, "%d: %ld allocations", what, n);
  }
  CHECK(files_left_over(folder) == 0, "temporary files are left");
}

static const test_case cases[] = {{"numpys", test_numpys},           {"written", test_written},
                                  {"round_trip", test_round_trip},   {"other_writers", test_other_writers},
                                  {"wrong_text", test_wrong_text},   {"wrong_meaning", test_wrong_meaning},
                                  {"wrong_files", test_wrong_files}, {"wrong_zip", test_wrong_zip},
                                  {"damage", test_damage},           {"write_arguments", test_write_arguments},
                                  {"write_fails", test_write_fails}, {"no_memory", test_no_memory}};

int main(int argc, char **argv) {
  if (!mkdtemp(folder)) return 1;
  snprintf(path, sizeof path, "%s/file", folder);
  const int status = test_main(argc, argv, "io.npy", cases, (int)(sizeof cases / sizeof *cases));
  (void)unlink(path);
  if (rmdir(folder)) printf("%s is not empty\n", folder);
  return status;
}
