/* safetensors files: what the reference implementation wrote is read and written again byte by byte; every way in
   which a file can be wrong is refused; a failed write leaves nothing behind. Checkpoints: all variables change or
   none. */
#include "io/files.h"
#include "support/values.h"
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define QUOTED "n\303\244me/\346\274\242 \"q\" \\ \t"

static char folder[] = "/tmp/tern-safetensors-XXXXXX";
static char path[sizeof folder + 32];

/* A file of this header and that many bytes 0, 1, 2, .. of data. */
static void make(const char *json, size_t data) {
  static unsigned char bytes[1 << 16];
  const uint64_t length = strlen(json);
  memcpy(bytes, &length, 8);
  memcpy(bytes + 8, json, length);
  for (size_t i = 0; i < data; i++) bytes[8 + length + i] = (unsigned char)i;
  files_write(path, bytes, 8 + length + data);
}

static void refused(const char *json, size_t data, const char *part) {
  make(json, data);
  tern_safetensors *file = tern_safetensors_open(path);
  CHECK(file == NULL, "accepted: %s", json);
  CHECK_ERROR(TERN_E_IO, part);
  tern_safetensors_close(file);
}

/* ---- files of the reference implementation ---- */

static const struct {
  const char *name;
  tern_dtype dtype;
  tern_shape shape;
} all[] = {{"bool", TERN_BOOL, {2, {2, 3}}},     {"uint8", TERN_U8, {2, {2, 3}}},    {"int8", TERN_I8, {2, {2, 3}}},
           {"int16", TERN_I16, {2, {2, 3}}},     {"uint16", TERN_U16, {2, {2, 3}}},  {"float16", TERN_F16, {2, {2, 3}}},
           {"bfloat16", TERN_BF16, {2, {2, 3}}}, {"int32", TERN_I32, {2, {2, 3}}},   {"uint32", TERN_U32, {2, {2, 3}}},
           {"float32", TERN_F32, {2, {2, 3}}},   {"float64", TERN_F64, {2, {2, 3}}}, {"int64", TERN_I64, {2, {2, 3}}},
           {"uint64", TERN_U64, {2, {2, 3}}},    {"scalar", TERN_F32, {0, {0}}},     {"empty", TERN_F32, {2, {0, 4}}},
           {"none", TERN_BOOL, {2, {3, 0}}},     {QUOTED, TERN_U8, {1, {5}}}};
enum { N_ALL = sizeof all / sizeof *all };
static const char *const made_by[][2] = {{"made_by", "the reference implementation"}};

/* The bytes that make_safetensors.py gives a tensor. */
static void fill(tern_dtype dtype, unsigned char *bytes, size_t size) {
  for (size_t k = 0; k < size; k++) bytes[k] = (unsigned char)(dtype == TERN_BOOL ? k % 2 : 37 * k + 11);
}

static void test_reference(void) {
  TERN_SCOPE;
  tern_safetensors *file = tern_safetensors_open(TERN_FIXTURES "/safetensors/all.safetensors");
  CHECK(file && tern_safetensors_count(file) == N_ALL, "%d tensors: %s", tern_safetensors_count(file), tern_error());
  CHECK(!strcmp(tern_safetensors_name(file, 0), "uint64") && !tern_safetensors_name(file, N_ALL) &&
            !tern_safetensors_name(file, -1),
        "names in the order of the data");
  const char *made = tern_safetensors_metadata(file, "made_by");
  CHECK(made && !strcmp(made, made_by[0][1]) && !tern_safetensors_metadata(file, "other"), "metadata");
  for (int i = 0; i < N_ALL; i++) {
    unsigned char got[64], expected[64];
    tern_tensor *t = tern_safetensors_get(file, all[i].name);
    const size_t size = (size_t)test_numel(all[i].shape) * tern_dtype_size(all[i].dtype);
    const tern_shape shape = tern_shape_get(t);
    fill(all[i].dtype, expected, size);
    CHECK(t && tern_dtype_get(t) == all[i].dtype && shape.rank == all[i].shape.rank &&
              !memcmp(shape.dim, all[i].shape.dim, sizeof *shape.dim * (size_t)shape.rank),
          "%s: dtype or shape; %s", all[i].name, tern_error());
    CHECK(tern_to_host(t, got, size) == TERN_OK && !memcmp(got, expected, size), "%s: other bytes", all[i].name);
  }
  CHECK(!tern_safetensors_get(file, "float128"), "a name that is not there");
  CHECK_ERROR(TERN_E_ARG, "\"bfloat16\"");
  tern_safetensors_close(file);
  file = tern_safetensors_open(TERN_FIXTURES "/safetensors/nothing.safetensors");
  CHECK(file && tern_safetensors_count(file) == 0 && !tern_safetensors_name(file, 0), "a file of nothing: %s",
        tern_error());
  CHECK(!tern_safetensors_get(file, "a"), "a tensor of nothing");
  CHECK_ERROR(TERN_E_ARG, "no tensors");
  tern_safetensors_close(file);
}

/* The same tensors written by us, in another order: the same file. */
static void test_same_bytes(void) {
  TERN_SCOPE;
  const char *names[N_ALL];
  tern_tensor *tensors[N_ALL];
  for (int i = 0; i < N_ALL; i++) {
    unsigned char bytes[64];
    const size_t n = (size_t)test_numel(all[i].shape);
    fill(all[i].dtype, bytes, n * tern_dtype_size(all[i].dtype));
    names[N_ALL - 1 - i] = all[i].name;
    tensors[N_ALL - 1 - i] = tern_constant(all[i].shape, all[i].dtype, bytes, n);
  }
  CHECK(tern_safetensors_write(path, names, tensors, N_ALL, made_by, 1) == TERN_OK, "write: %s", tern_error());
  size_t size, expected_size;
  char *got = files_read(path, &size),
       *expected = files_read(TERN_FIXTURES "/safetensors/all.safetensors", &expected_size);
  CHECK(got && expected && size == expected_size && !memcmp(got, expected, size), "all: another file of %zu bytes",
        size);
  free(got);
  free(expected);
  CHECK(tern_safetensors_write(path, NULL, NULL, 0, NULL, 0) == TERN_OK, "nothing: %s", tern_error());
  got = files_read(path, &size);
  CHECK(got && size == 16 && !memcmp(got, "\10\0\0\0\0\0\0\0{}      ", 16), "nothing: %zu bytes", size);
  free(got);
  CHECK(files_left_over(folder) == 0, "temporary files are left");
  CHECK_NO_ERROR();
}

/* Views, scalars and large tensors. */
static void test_round_trip(void) {
  TERN_SCOPE;
  tern_tensor *matrix = tern_f32(TERN_SHAPE(2, 3), 1, 2, 3, 4, 5, 6), *large = tern_arange(0, 9e6, 1, TERN_I32);
  const char *const names[] = {"turned", "half", "number", "large", "weak", ""};
  tern_tensor *tensors[] = {tern_transpose(matrix), tern_slice(matrix, &TERN_RANGE(1, 2, 1), 1),
                            tern_scalar_int(-7),    large,
                            tern_scalar(0.5),       tern_expand(tern_f32(TERN_SHAPE(1), 3), TERN_SHAPE(2, 2))};
  const char *const metadata[][2] = {{"a", "1\n\"2\""}, {"", ""}, {"b", "\302\265"}};
  CHECK(tern_safetensors_write(path, names, tensors, 6, metadata, 3) == TERN_OK, "write: %s", tern_error());
  tern_safetensors *file = tern_safetensors_open(path);
  CHECK(file != NULL, "open: %s", tern_error());
  CHECK_LIST(tern_safetensors_get(file, "turned"), TERN_SHAPE(3, 2), TERN_F32, 1, 4, 2, 5, 3, 6);
  CHECK_LIST(tern_safetensors_get(file, "half"), TERN_SHAPE(1, 3), TERN_F32, 4, 5, 6);
  CHECK_LIST(tern_safetensors_get(file, "number"), TERN_SHAPE(), TERN_I64, -7);
  CHECK_LIST(tern_safetensors_get(file, "weak"), TERN_SHAPE(), TERN_F32, 0.5);
  CHECK_LIST(tern_safetensors_get(file, ""), TERN_SHAPE(2, 2), TERN_F32, 3, 3, 3, 3);
  tern_tensor *kept = tern_safetensors_get(file, "large");
  CHECK(!strcmp(tern_safetensors_metadata(file, "a"), metadata[0][1]) &&
            !strcmp(tern_safetensors_metadata(file, ""), "") &&
            !strcmp(tern_safetensors_metadata(file, "b"), metadata[2][1]),
        "metadata");
  tern_safetensors_close(file);
  CHECK(tern_equal_all(kept, large) == 1, "large");
  CHECK_NO_ERROR();
}

/* ---- files that are wrong ---- */

#define A "{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}"

static void test_other_writers(void) { /* unpadded, unaligned, in any order, with members that we do not know */
  TERN_SCOPE;
  make("{}", 0);
  tern_safetensors *file = tern_safetensors_open(path);
  CHECK(file != NULL, "{}: %s", tern_error());
  tern_safetensors_close(file);
  make("{\"b\\u00e9\" : {\"data_offsets\":[1,5], \"note\":\"x\", \"dtype\":\"I32\",\"shape\":[1]}\n, "
       "\"a\":{\"shape\":[],\"dtype\":\"U8\","
       "\"data_offsets\":[0,1]},\"e\":{\"dtype\":\"F64\",\"shape\":[9007199254740991,0],\"data_offsets\":[1,1]},\"__"
       "metadata__\":{}}\t ",
       5);
  file = tern_safetensors_open(path);
  CHECK(file && tern_safetensors_count(file) == 3 && !strcmp(tern_safetensors_name(file, 0), "a") &&
            !strcmp(tern_safetensors_name(file, 1), "e") && !tern_safetensors_metadata(file, "a"),
        "%s", tern_error());
  CHECK_LIST(tern_safetensors_get(file, "b\303\251"), TERN_SHAPE(1), TERN_I32, 0x04030201);
  CHECK_LIST(tern_safetensors_get(file, "a"), TERN_SHAPE(), TERN_U8, 0);
  tern_safetensors_close(file);
  make("{\"t\":{\"dtype\":\"BOOL\",\"shape\":[3],\"data_offsets\":[0,3]}}", 3);
  file = tern_safetensors_open(path);
  CHECK(file && !tern_safetensors_get(file, "t"), "a bool of 2");
  CHECK_ERROR(TERN_E_IO, "holds a byte 2");
  tern_safetensors_close(file);
}

static void test_wrong_text(void) {
  refused("", 0, "does not begin with {");
  refused(" {}", 0, "does not begin with {");
  refused("[]", 0, "does not begin with {");
  refused("{", 0, "no JSON");
  refused("{}x", 0, "belongs in no header");
  refused("{}{}", 0, "text follows");
  refused("{} 1", 0, "text follows");
  refused("{}}", 0, "closes nothing");
  refused("{]", 0, "closes nothing");
  refused("{\"a\":" A ",}", 2, "no JSON");
  refused("{\"a\" " A "}", 2, "no JSON");
  refused("{\"a", 0, "the end within");
  refused("{\"a\\", 0, "the end within");
  refused("{\"a\\q\":" A "}", 2, "no JSON");
  refused("{\"a\\ud800\":" A "}", 2, "no JSON");
  refused("{\"a\\u0000\":" A "}", 2, "NUL");
  refused("{\"a\n\":" A "}", 2, "control character");
  refused("{\"a\200\":" A "}", 2, "not UTF-8");
  refused("{\"a\300\200\":" A "}", 2, "not UTF-8");
  refused("{\"a\355\240\200\":" A "}", 2, "not UTF-8");
  refused("{\"a\364\220\200\200\":" A "}", 2, "not UTF-8");
  refused("{\"a\342\202\":" A "}", 2, "not UTF-8");
  refused("{\"a\":null}", 0, "belongs in no header");
  refused("{\"a\":{\"b\":{\"c\":{}}}}", 0, "three levels");
  refused("{\"a\":[0,0,0,0,0,0,0,0,0]}", 0, "list of more than 8");
  refused("{\"a\":[0,[],0]}", 0, "something opens");
}

static void test_wrong_meaning(void) {
  refused("{\"a\":1}", 0, "not described by an object");
  refused("{\"a\":{}}", 0, "no dtype");
  refused("{\"a\":{\"dtype\":\"U8\"}}", 0, "no shape");
  refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[0]}}", 0, "no data_offsets");
  refused("{\"a\":{\"dtype\":7,\"shape\":[0],\"data_offsets\":[0,0]}}", 0, "no dtype");
  refused("{\"a\":{\"dtype\":\"F8_E4M3\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0, "known are BOOL");
  refused("{\"a\":{\"dtype\":\"u8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0, "known are BOOL");
  refused("{\"a\":{\"dtype\":\"U8\",\"shape\":2,\"data_offsets\":[0,2]}}", 2, "no shape");
  refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[\"2\"],\"data_offsets\":[0,2]}}", 2, "no whole number");
  refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[-2],\"data_offsets\":[0,2]}}", 2, "not negative");
  refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[2.0],\"data_offsets\":[0,2]}}", 2, "whole");
  refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[02],\"data_offsets\":[0,2]}}", 2, "leading zero");
  refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[2e0],\"data_offsets\":[0,2]}}", 2, "whole");
  refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[9007199254740992,0],\"data_offsets\":[0,0]}}", 0, "below 2^53");
  refused("{\"a\":{\"dtype\":\"F64\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0,
          "too many elements");
  refused("{\"a\":{\"dtype\":\"F64\",\"shape\":[4294967296,0,4294967296],\"data_offsets\":[0,0]}}", 0,
          "too many elements");
  refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0]}}", 2, "no data_offsets");
  refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2,2]}}", 2, "no data_offsets");
  refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[2,0]}}", 2, "claims bytes 2 to 0");
  refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,3]}}", 3, "expected 2");
  refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2, "expected 8");
  refused("{\"a\":" A "}", 1, "claims bytes 0 to 2 of 1");
  refused("{\"a\":" A "}", 3, "holds 3 bytes of data, expected 2");
  refused("{}", 1, "holds 1 bytes of data, expected 0");
  refused("{\"a\":" A ",\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[2,4]}}", 4, "two tensors \"a\"");
  refused("{\"a\":" A ",\"\\u0061\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[2,4]}}", 4, "two tensors \"a\"");
  refused("{\"a\":" A ",\"b\":" A "}", 2, "overlaps");
  refused("{\"a\":" A ",\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}", 3, "overlaps");
  refused("{\"a\":" A ",\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[3,5]}}", 5, "nothing owns");
  refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[1,1]}}", 1, "nothing owns");
  refused("{\"a\":{\"dtype\":\"U8\",\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2, "two members dtype");
  refused("{\"__metadata__\":[]}", 0, "is no object");
  refused("{\"__metadata__\":{},\"__metadata__\":{}}", 0, "two members __metadata__");
  refused("{\"__metadata__\":{\"k\":1}}", 0, "is no string");
  refused("{\"__metadata__\":{\"k\":\"\",\"l\":\"\",\"k\":\"\"}}", 0, "two metadata of key \"k\"");
}

static void test_wrong_files(void) {
  unsigned char bytes[32] = {255, 255, 255, 255, 255, 255, 255, 255, '{', '}'};
  files_write(path, bytes, 10);
  CHECK(!tern_safetensors_open(path), "a header of 2^64 - 1 bytes");
  CHECK_ERROR(TERN_E_IO, "at most 100000000");
  const uint64_t length = 100000000;
  memcpy(bytes, &length, 8);
  files_write(path, bytes, 10);
  CHECK(!tern_safetensors_open(path), "a header that is not there");
  CHECK_ERROR(TERN_E_IO, "truncated");
  files_write(path, bytes, 0);
  CHECK(!tern_safetensors_open(path), "an empty file");
  CHECK_ERROR(TERN_E_IO, "holds 0 bytes");
  CHECK(!tern_safetensors_open(folder), "a folder");
  CHECK_ERROR(TERN_E_IO, "not a regular file");
  CHECK(!tern_safetensors_open("/dev/zero"), "a device");
  CHECK_ERROR(TERN_E_IO, "not a regular file");
  CHECK(!tern_safetensors_open("/nowhere/at/all"), "no file");
  CHECK_ERROR(TERN_E_IO, "/nowhere/at/all: cannot be opened: No such file");
  CHECK(!tern_safetensors_open(NULL), "NULL");
  CHECK_ERROR(TERN_E_ARG, "NULL");
  tern_safetensors_close(NULL);
  CHECK(tern_safetensors_count(NULL) == 0 && !tern_safetensors_name(NULL, 0) && !tern_safetensors_metadata(NULL, "a"),
        "NULL");
  CHECK(!tern_safetensors_get(NULL, "a"), "NULL");
  CHECK_ERROR(TERN_E_ARG, "NULL");
}

/* Cut off after each byte, and each byte changed: refused or read, never a crash. */
static void test_damage(void) {
  size_t size;
  char *bytes = files_read(TERN_FIXTURES "/safetensors/all.safetensors", &size);
  CHECK(bytes != NULL, "no fixture");
  for (size_t cut = 0; cut < size; cut++) {
    files_write(path, bytes, cut);
    CHECK(!tern_safetensors_open(path), "cut off after %zu bytes", cut);
    CHECK_ERROR(TERN_E_IO, path);
  }
  bytes[size] = 0;
  files_write(path, bytes, size + 1);
  CHECK(!tern_safetensors_open(path), "one byte more");
  CHECK_ERROR(TERN_E_IO, "bytes of data, expected");
  const uint64_t length = *(uint64_t *)(void *)bytes;
  int survived = 0;
  for (size_t at = 0; at < 8 + length; at++) {
    static const char flips[] = {1, 2, 16, 32, 64, (char)128};
    for (size_t k = 0; k < sizeof flips; k++) {
      bytes[at] ^= flips[k];
      files_write(path, bytes, size);
      tern_safetensors *file = tern_safetensors_open(path);
      if (!file) CHECK_ERROR(TERN_E_IO, path);
      survived += file != NULL; /* another name, or another dtype of that size */
      tern_safetensors_close(file);
      bytes[at] ^= flips[k];
    }
  }
  CHECK(survived < (int)length, "%d of %d damaged headers were taken for sound", survived, 6 * (int)(8 + length));
  free(bytes);
}

/* A file that shrinks after it was opened. */
static void test_shrinks(void) {
  TERN_SCOPE;
  make("{\"a\":" A "}", 2);
  tern_safetensors *file = tern_safetensors_open(path);
  CHECK(file && truncate(path, 20) == 0, "cannot truncate");
  CHECK(!tern_safetensors_get(file, "a"), "read what is gone");
  CHECK_ERROR(TERN_E_IO, "shorter");
  tern_safetensors_close(file);
}

/* ---- writing that fails ---- */

static void test_write_arguments(void) {
  TERN_SCOPE;
  tern_tensor *t[] = {tern_scalar(1), tern_scalar(2)};
  const char *const same[] = {"a", "a"}, *const reserved[] = {"__metadata__"}, *const none[] = {NULL},
                    *const raw[] = {"\377"}, *const good[] = {"a", "b"};
  const char *const pairs[][2] = {{"k", "1"}, {"k", "2"}}, *const null_value[][2] = {{"k", NULL}},
                    *const null_key[][2] = {{NULL, ""}};
  tern_tensor *absent[] = {NULL}, *left_out[] = {TERN_NONE};
  (void)unlink(path);
  CHECK(tern_safetensors_write(NULL, good, t, 2, NULL, 0) == TERN_E_ARG, "no path");
  CHECK_ERROR(TERN_E_ARG, "path is NULL");
  CHECK(tern_safetensors_write(path, same, t, 2, NULL, 0) == TERN_E_ARG, "a name twice");
  CHECK_ERROR(TERN_E_ARG, "two of the names are \"a\"");
  CHECK(tern_safetensors_write(path, reserved, t, 1, NULL, 0) == TERN_E_ARG, "reserved");
  CHECK_ERROR(TERN_E_ARG, "__metadata__");
  CHECK(tern_safetensors_write(path, none, t, 1, NULL, 0) == TERN_E_ARG, "no name");
  CHECK_ERROR(TERN_E_ARG, "name 0 is NULL");
  CHECK(tern_safetensors_write(path, raw, t, 1, NULL, 0) == TERN_E_ARG, "not UTF-8");
  CHECK_ERROR(TERN_E_ARG, "not UTF-8");
  CHECK(tern_safetensors_write(path, good, absent, 1, NULL, 0) == TERN_E_ARG, "no tensor");
  CHECK_ERROR(TERN_E_ARG, "NULL");
  CHECK(tern_safetensors_write(path, good, left_out, 1, NULL, 0) == TERN_E_ARG, "TERN_NONE");
  CHECK_ERROR(TERN_E_ARG, "TERN_NONE");
  CHECK(tern_safetensors_write(path, good, NULL, 1, NULL, 0) == TERN_E_ARG, "no tensors");
  CHECK_ERROR(TERN_E_ARG, "NULL");
  CHECK(tern_safetensors_write(path, good, t, -1, NULL, 0) == TERN_E_ARG, "-1 tensors");
  CHECK_ERROR(TERN_E_ARG, "-1");
  CHECK(tern_safetensors_write(path, good, t, 2, pairs, 2) == TERN_E_ARG, "a key twice");
  CHECK_ERROR(TERN_E_ARG, "\"k\"");
  CHECK(tern_safetensors_write(path, good, t, 2, null_value, 1) == TERN_E_ARG, "no value");
  CHECK_ERROR(TERN_E_ARG, "NULL");
  CHECK(tern_safetensors_write(path, good, t, 2, null_key, 1) == TERN_E_ARG, "no key");
  CHECK_ERROR(TERN_E_ARG, "NULL");
  CHECK(access(path, F_OK) != 0 && files_left_over(folder) == 0, "something was written");
}

static void test_write_fails(void) {
  TERN_SCOPE;
  const char *const name[] = {"a"};
  tern_tensor *const t[] = {tern_zeros(TERN_SHAPE(100000), TERN_F32)};
  char under[sizeof path + 8], link_path[sizeof path + 8];
  CHECK(tern_safetensors_write(path, name, t, 1, NULL, 0) == TERN_OK, "write: %s", tern_error());
  snprintf(under, sizeof under, "%s/x", path);
  CHECK(tern_safetensors_write(under, name, t, 1, NULL, 0) == TERN_E_IO, "under a file");
  CHECK_ERROR(TERN_E_IO, "Not a directory");
  CHECK(tern_safetensors_write("/tmp/tern-no-such-folder/x", name, t, 1, NULL, 0) == TERN_E_IO, "no folder");
  CHECK_ERROR(TERN_E_IO, "/tmp/tern-no-such-folder/x");
  CHECK(tern_safetensors_write("", name, t, 1, NULL, 0) != TERN_OK, "an empty path");
  tern_error_clear();
  CHECK(tern_safetensors_write(folder, name, t, 1, NULL, 0) == TERN_E_IO, "over a folder");
  CHECK_ERROR(TERN_E_IO, "not a regular file");
  CHECK(tern_safetensors_write("/dev/full", name, t, 1, NULL, 0) == TERN_E_IO, "over a device");
  CHECK_ERROR(TERN_E_IO, "not a regular file");
  struct stat info;
  CHECK(stat("/dev/full", &info) == 0 && S_ISCHR(info.st_mode), "/dev/full is gone");
  /* through a link to the file, which keeps its permissions */
  snprintf(link_path, sizeof link_path, "%s/link", folder);
  CHECK(symlink(path, link_path) == 0 && chmod(path, 0640) == 0, "cannot make a link");
  CHECK(tern_safetensors_write(link_path, name, t, 1, NULL, 0) == TERN_OK, "through a link: %s", tern_error());
  CHECK(lstat(link_path, &info) == 0 && S_ISLNK(info.st_mode), "the link was replaced");
  CHECK(stat(path, &info) == 0 && (info.st_mode & 0777) == 0640, "permissions %o", info.st_mode & 0777);
  (void)unlink(link_path);
  /* a disk that is full, as a limit on the size of files */
  size_t size, size_after;
  char *before = files_read(path, &size);
  struct rlimit limit, old;
  getrlimit(RLIMIT_FSIZE, &old);
  limit = old;
  limit.rlim_cur = 100000;
  void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &limit);
  const tern_rc rc =
      tern_safetensors_write(path, name, (tern_tensor *const[]){tern_ones(TERN_SHAPE(100000), TERN_F32)}, 1, NULL, 0);
  setrlimit(RLIMIT_FSIZE, &old);
  signal(SIGXFSZ, handler);
  CHECK(rc == TERN_E_IO, "a full disk");
  CHECK_ERROR(TERN_E_IO, "File too large");
  char *after = files_read(path, &size_after);
  CHECK(before && after && size == size_after && !memcmp(before, after, size), "the old file was changed");
  CHECK(files_left_over(folder) == 0, "temporary files are left");
  free(before);
  free(after);
}

/* In the current folder, with a name as long as can be. */
static void test_long_name(void) {
  TERN_SCOPE;
  char name[256], old[4096];
  const char *const names[] = {"a"};
  tern_tensor *const t[] = {tern_f32(TERN_SHAPE(2), 1, 2)};
  memset(name, 'n', 255);
  name[255] = '\0';
  CHECK(getcwd(old, sizeof old) && chdir(folder) == 0, "chdir");
  CHECK(tern_safetensors_write(name, names, t, 1, NULL, 0) == TERN_OK, "%s", tern_error());
  tern_safetensors *file = tern_safetensors_open(name);
  CHECK_LIST(tern_safetensors_get(file, "a"), TERN_SHAPE(2), TERN_F32, 1, 2);
  tern_safetensors_close(file);
  CHECK(unlink(name) == 0 && files_left_over(folder) == 0 && chdir(old) == 0, "cleaning up");
  CHECK_NO_ERROR();
}

/* ---- checkpoints ---- */

static tern_tensor *named(const char *name, tern_tensor *initial) {
  return tern_variable(initial, &(tern_variable_opts){.name = name});
}

static void test_checkpoint(void) {
  TERN_SCOPE;
  tern_tensor *w = named("w", tern_f32(TERN_SHAPE(2, 2), 1, 2, 3, 4)), *steps = named("steps", tern_scalar_int(7));
  tern_tensor *other = named("other", tern_f32(TERN_SHAPE(1), 5)), *wide = named("w", tern_f32(TERN_SHAPE(3), 1));
  tern_tensor *half = named("w", tern_cast(w, TERN_F64)), *anonymous = tern_variable(w, NULL);
  tern_tensor *const both[] = {w, steps}, *const more[] = {w, other}, *const twice[] = {w, half};
  CHECK(tern_checkpoint_save(path, both, 2) == TERN_OK, "save: %s", tern_error());
  tern_tensor *before = tern_transpose(w);
  tern_assign(w, tern_scalar(0));
  tern_assign(steps, tern_scalar(0));
  CHECK(tern_checkpoint_restore(path, more, 2) == TERN_E_ARG, "a variable that the file lacks");
  CHECK_ERROR(TERN_E_ARG, "\"other\"; it has \"steps\", \"w\"");
  CHECK_LIST(w, TERN_SHAPE(2, 2), TERN_F32, 0, 0, 0, 0);
  CHECK(tern_checkpoint_restore(path, (tern_tensor *const[]){steps, wide}, 2) == TERN_E_ARG, "another shape");
  CHECK_ERROR(TERN_E_ARG, "\"w\" has shape (3,)");
  CHECK(tern_checkpoint_restore(path, (tern_tensor *const[]){steps, half}, 2) == TERN_E_ARG, "another dtype");
  CHECK_ERROR(TERN_E_ARG, "of dtype float64");
  CHECK_LIST(steps, TERN_SHAPE(), TERN_I64, 0);
  tern_tensor *zeros = tern_flatten(w);
  CHECK(tern_checkpoint_restore(path, both, 2) == TERN_OK, "restore: %s", tern_error());
  CHECK_LIST(w, TERN_SHAPE(2, 2), TERN_F32, 1, 2, 3, 4);
  CHECK_LIST(steps, TERN_SHAPE(), TERN_I64, 7);
  CHECK_LIST(zeros, TERN_SHAPE(4), TERN_F32, 0, 0, 0, 0);
  CHECK_LIST(before, TERN_SHAPE(2, 2), TERN_F32, 1, 3, 2, 4);
  CHECK(tern_checkpoint_restore(path, both, 1) == TERN_OK, "the file may hold more: %s", tern_error());
  CHECK(tern_assign_add(w, tern_scalar(1)) == TERN_OK, "assign_add: %s", tern_error());
  CHECK_LIST(w, TERN_SHAPE(2, 2), TERN_F32, 2, 3, 4, 5);
  CHECK(tern_checkpoint_save(path, twice, 2) == TERN_E_ARG, "two of one name");
  CHECK_ERROR(TERN_E_ARG, "\"w\"");
  CHECK(tern_checkpoint_save(path, &anonymous, 1) == TERN_E_ARG, "no name");
  CHECK_ERROR(TERN_E_ARG, "has no name");
  CHECK(tern_checkpoint_save(path, &before, 1) == TERN_E_ARG, "no variable");
  CHECK_ERROR(TERN_E_ARG, "not a variable");
  CHECK(tern_checkpoint_save(NULL, both, 2) == TERN_E_ARG, "no path");
  CHECK_ERROR(TERN_E_ARG, "NULL");
  CHECK(tern_checkpoint_restore(path, NULL, 2) == TERN_E_ARG, "no variables");
  CHECK_ERROR(TERN_E_ARG, "NULL");
  CHECK(tern_checkpoint_restore("/nowhere/at/all", both, 2) == TERN_E_IO, "no file");
  CHECK_ERROR(TERN_E_IO, "/nowhere/at/all");
  CHECK(tern_checkpoint_save(path, NULL, 0) == TERN_OK && tern_checkpoint_restore(path, NULL, 0) == TERN_OK,
        "nothing: %s", tern_error());
  make("{\"__metadata__\":{\"tern_checkpoint\":\"2\"}}", 0);
  CHECK(tern_checkpoint_restore(path, NULL, 0) == TERN_E_IO, "a later version");
  CHECK_ERROR(TERN_E_IO, "version 2");
  tern_tensor *const owned[] = {w, steps, other, wide, half, anonymous};
  for (int i = 0; i < 6; i++) tern_release(owned[i]);
}

/* A checkpoint of which one tensor cannot be read: no variable changes. */
static void test_restore_fails(void) {
  TERN_SCOPE;
  tern_tensor *a = named("a", tern_u8(TERN_SHAPE(2), 9)), *b = named("b", tern_bool(TERN_SHAPE(2), 1));
  make("{\"a\":" A ",\"b\":{\"dtype\":\"BOOL\",\"shape\":[2],\"data_offsets\":[2,4]}}", 4);
  CHECK(tern_checkpoint_restore(path, (tern_tensor *const[]){a, b}, 2) == TERN_E_IO, "bools of 2 and 3");
  CHECK_ERROR(TERN_E_IO, "holds a byte 2");
  CHECK_LIST(a, TERN_SHAPE(2), TERN_U8, 9, 9);
  CHECK_LIST(b, TERN_SHAPE(2), TERN_BOOL, 1, 1);
  tern_release(a);
  tern_release(b);
}

static const test_case cases[] = {{"reference", test_reference},     {"same_bytes", test_same_bytes},
                                  {"round_trip", test_round_trip},   {"other_writers", test_other_writers},
                                  {"wrong_text", test_wrong_text},   {"wrong_meaning", test_wrong_meaning},
                                  {"wrong_files", test_wrong_files}, {"damage", test_damage},
                                  {"shrinks", test_shrinks},         {"write_arguments", test_write_arguments},
                                  {"write_fails", test_write_fails}, {"long_name", test_long_name},
                                  {"checkpoint", test_checkpoint},   {"restore_fails", test_restore_fails}};

int main(int argc, char **argv) {
  if (!mkdtemp(folder)) return 1;
  snprintf(path, sizeof path, "%s/file.safetensors", folder);
  const int failed = test_main(argc, argv, "safetensors", cases, (int)(sizeof cases / sizeof *cases));
  (void)unlink(path);
  return rmdir(folder) || failed;
}
