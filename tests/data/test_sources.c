/* Where elements come from: tensors, ranges, array files, text files, generators; what goes wrong with each. */
#include "data/collect.h"
#include <stdlib.h>
#include <string.h>
#include <tern/tern.h>
#include <unistd.h>

static void test_tensors(void) {
  TERN_SCOPE;
  tern_tensor *const two[] = {tern_f32(TERN_SHAPE(3, 2), 1, 2, 3, 4, 5, 6), tern_u8(TERN_SHAPE(3), 7, 8, 9)};
  tern_dataset *d = tern_dataset_tensors(two, 2);
  CHECK(tern_dataset_size(d) == 3, "size %lld", (long long)tern_dataset_size(d));
  collected c = collect(d);
  CHECK(c.elements == 3 && c.components == 2 && c.n_shapes == 9 && c.shapes[0] == 1 && c.shapes[1] == 2 &&
            c.shapes[2] == 0,
        "%d elements of %d components", c.elements, c.components);
  collected_free(&c);
  CHECK_SEQUENCE(tern_dataset_batch(d, 2, NULL), 1, 2, 3, 4, 7, 8, 5, 6, 9);

  /* views, variables, whatever memory they have */
  tern_tensor *x = tern_transpose(two[0]), *v = tern_variable(two[1], NULL);
  tern_tensor *const odd[] = {tern_slice(x, (const tern_range[]){TERN_ALL, {2, -4, -1}}, 2),
                              tern_slice(v, (const tern_range[]){{1, 3, 1}}, 1)};
  d = tern_dataset_tensors(odd, 2);
  tern_assign(v, tern_u8(TERN_SHAPE(3), 0, 0, 0));
  CHECK_SEQUENCE(d, 5, 3, 1, 8, 6, 4, 2, 9);
  d = tern_dataset_tensors(&v, 1);
  tern_assign(v, tern_u8(TERN_SHAPE(3), 1, 1, 1));
  CHECK_SEQUENCE(d, 0, 0, 0);
  tern_release(v);

  /* nothing */
  tern_tensor *empty = tern_zeros(TERN_SHAPE(0, 3), TERN_F32), *thin = tern_zeros(TERN_SHAPE(2, 0), TERN_F32);
  CHECK(tern_dataset_size(d = tern_dataset_tensors(&empty, 1)) == 0, "size");
  CHECK_SEQUENCE(tern_dataset_batch(tern_dataset_shuffle(d, 0, NULL), 2, NULL), );
  c = collect_all(tern_dataset_batch(tern_dataset_tensors(&thin, 1), 3, NULL));
  CHECK(c.elements == 1 && c.n_shapes == 3 && c.shapes[1] == 2 && c.shapes[2] == 0, "%d elements", c.elements);
  collected_free(&c);

  tern_tensor *const uneven[] = {two[0], tern_slice(two[1], (const tern_range[]){{0, 2, 1}}, 1)};
  CHECK(!tern_dataset_tensors(uneven, 2), "accepted");
  CHECK_ERROR(TERN_E_ARG, "tensor 2 has 2 rows, but the first has 3");
  tern_tensor *scalar = tern_f32(TERN_SHAPE(), 1);
  CHECK(!tern_dataset_tensors(&scalar, 1), "accepted");
  CHECK_ERROR(TERN_E_ARG, "rank 0");
  CHECK(!tern_dataset_tensors(two, 0), "accepted");
  CHECK_ERROR(TERN_E_ARG, "1 to 8");
  CHECK(!tern_dataset_tensors((tern_tensor *const[]){NULL}, 1), "accepted");
  CHECK_ERROR(TERN_E_ARG, "NULL");
}

static void test_range(void) {
  CHECK_SEQUENCE(tern_dataset_range(0, 10, 3), 0, 3, 6, 9);
  CHECK_SEQUENCE(tern_dataset_range(5, -1, -2), 5, 3, 1);
  CHECK_SEQUENCE(tern_dataset_range(5, 5, 1), );
  CHECK_SEQUENCE(tern_dataset_range(5, 9, -1), );
  tern_dataset *d = tern_dataset_range(INT64_MIN, INT64_MAX, INT64_MAX);
  CHECK(tern_dataset_size(d) == 3, "size %lld", (long long)tern_dataset_size(d));
  tern_dataset_release(d);
  CHECK(!tern_dataset_range(0, 1, 0), "accepted");
  CHECK_ERROR(TERN_E_ARG, "the step is 0");
  CHECK(!tern_dataset_range(INT64_MIN, INT64_MAX, 1), "accepted");
  CHECK_ERROR(TERN_E_ARG, "2^63");
}

/* An idx file of uint8 [n, 2]: 0, 1, 2, .. from `first` on. */
static const char *idx_file(const char *name, int n, int first) {
  unsigned char bytes[64] = {0, 0, 8, 2, 0, 0, 0, (unsigned char)n, 0, 0, 0, 2};
  for (int i = 0; i < 2 * n; i++) bytes[12 + i] = (unsigned char)(first + i);
  return test_file(name, bytes, 12 + 2 * (size_t)n);
}

static void test_idx(void) {
  const char *const paths[] = {idx_file("a.idx", 3, 0), idx_file("b.idx", 3, 50)};
  tern_dataset *d = tern_dataset_idx(paths, 2);
  CHECK(tern_dataset_size(d) == -2, "known before it was read");
  collected c = collect(d);
  CHECK(c.elements == 3 && c.n_values == 12 && c.values[0] == 0 && c.values[3] == 51 && c.values[4] == 2, "values");
  CHECK(tern_dataset_size(d) == 3, "size %lld", (long long)tern_dataset_size(d));
  collected_free(&c);
  tern_iterator *old = tern_dataset_begin(d);
  idx_file("a.idx", 4, 7);
  CHECK(!tern_dataset_begin(d), "files of different lengths");
  CHECK_ERROR(TERN_E_ARG, "b.idx has 3 rows");
  idx_file("b.idx", 4, 9);
  c = collect(d);
  CHECK(c.elements == 4 && c.values[0] == 7, "not read again: %d elements", c.elements);
  collected_free(&c);
  c = collect_from(old, "cpu");
  CHECK(c.elements == 3 && c.values[0] == 0, "an open iterator changed");
  collected_free(&c);
  tern_iterator_end(old);
  unlink(paths[0]);
  CHECK(!tern_dataset_begin(d), "a missing file");
  CHECK_ERROR(TERN_E_IO, "a.idx cannot be read");
  tern_dataset_release(d);
  test_file("a.idx", "rubbish", 7);
  d = tern_dataset_idx(paths, 1);
  CHECK(!tern_dataset_begin(d), "a bad file");
  CHECK_ERROR(TERN_E_IO, "a.idx");
  tern_dataset_release(d);
  CHECK(!tern_dataset_idx((const char *const[]){NULL}, 1), "accepted");
  CHECK_ERROR(TERN_E_ARG, "is NULL");
  CHECK(!tern_dataset_idx(paths, 9), "accepted");
  CHECK_ERROR(TERN_E_ARG, "9 paths");
}

static void test_npy(void) {
  TERN_SCOPE;
  tern_tensor *const arrays[] = {tern_f32(TERN_SHAPE(3, 1), 1.5, 2.5, 3.5), tern_i32(TERN_SHAPE(3), 4, 5, 6)};
  const char *const paths[] = {test_file("x.npy", NULL, 0), test_file("y.npy", NULL, 0), test_file("z.npz", NULL, 0)};
  tern_npy_write(paths[0], arrays[0]);
  tern_npy_write(paths[1], arrays[1]);
  const char *const names[] = {"x", "y"}, *const missing[] = {"x", "z"};
  tern_npz_write(paths[2], names, arrays, 2, &(tern_npz_opts){.compressed = 1});
  CHECK_NO_ERROR();
  CHECK_SEQUENCE(tern_dataset_npy(paths, 2), 1.5, 4, 2.5, 5, 3.5, 6);
  CHECK_SEQUENCE(tern_dataset_npz(paths[2], names, 2), 1.5, 4, 2.5, 5, 3.5, 6);
  CHECK_SEQUENCE(tern_dataset_batch(tern_dataset_npz(paths[2], names + 1, 1), 2, NULL), 4, 5, 6);
  tern_dataset *d = tern_dataset_npz(paths[2], missing, 2);
  CHECK(!tern_dataset_begin(d), "an array that is not there");
  CHECK_ERROR(TERN_E_ARG, "\"z\"");
  tern_dataset_release(d);
  CHECK(!tern_dataset_npz(NULL, names, 1) && !tern_dataset_npz(paths[2], NULL, 1), "accepted");
  CHECK_ERROR(TERN_E_ARG, "is NULL");
  tern_npy_write(paths[0], tern_f32(TERN_SHAPE(), 1));
  d = tern_dataset_npy(paths, 1);
  CHECK(!tern_dataset_begin(d), "rank 0");
  CHECK_ERROR(TERN_E_ARG, "x.npy holds a single number");
  tern_dataset_release(d);
}

static void check_lines(tern_dataset *d, const char *const *lines, int n) {
  collected c = collect_all(d);
  CHECK(c.elements == n && c.errors == 0, "%d lines, %d errors %s", c.elements, c.errors, c.error[0]);
  size_t at = 0;
  for (int i = 0; i < c.elements && i < n; i++) {
    const size_t size = (size_t)c.shapes[2 * i + 1];
    bool same = c.shapes[2 * i] == 1 && size == strlen(lines[i]);
    for (size_t k = 0; same && k < size; k++) same = c.values[at + k] == (double)(unsigned char)lines[i][k];
    CHECK(same, "line %d", i);
    at += size;
  }
  collected_free(&c);
}

static void test_text(void) {
  const char *const paths[] = {test_text_file("a.txt", "one\n\n\xff\xfe two\r\nthree", false),
                               test_text_file("b.txt.gz", "four\n", true), test_text_file("c.txt", "", false)};
  check_lines(tern_dataset_text(paths, 3), (const char *const[]){"one", "", "\xff\xfe two", "three", "four"}, 5);
  /* longer than any buffer */
  const size_t size = 300000;
  char *big = malloc(size + 1);
  if (!big) return;
  memset(big, 'x', size);
  big[size] = 0;
  big[131072] = '\n';
  const char *path = test_text_file("big.txt.gz", big, true);
  big[131072] = 0;
  check_lines(tern_dataset_text(&path, 1), (const char *const[]){big, big + 131073}, 2);
  free(big);

  const char *const gap[] = {paths[0], test_file("no.txt", NULL, 0), paths[1]};
  collected c = collect_all(tern_dataset_text(gap, 3));
  CHECK(c.elements == 5 && c.errors == 1 && c.error_at[0] == 4 && strstr(c.error[0], "no.txt cannot be opened"),
        "%d lines, %d errors, %s", c.elements, c.errors, c.error[0]);
  collected_free(&c);
  tern_dataset *d = tern_dataset_text(gap + 1, 1);
  CHECK(!tern_dataset_begin(d), "a missing file");
  CHECK_ERROR(TERN_E_IO, "no.txt cannot be opened");
  tern_dataset_release(d);
  /* a gzip file that is cut off */
  char bytes[64];
  FILE *f = fopen(paths[1], "rb");
  const size_t whole = f ? fread(bytes, 1, sizeof bytes, f) : 0;
  if (f) fclose(f);
  const char *cut = test_file("cut.gz", bytes, whole - 9);
  c = collect_all(tern_dataset_text(&cut, 1));
  CHECK(c.errors == 1 && strstr(c.error[0], "cut.gz cannot be read to its end"), "%d errors, %s", c.errors, c.error[0]);
  collected_free(&c);
  CHECK(!tern_dataset_text(NULL, 1) && !tern_dataset_text(paths, 0), "accepted");
  CHECK_ERROR(TERN_E_ARG, "at NULL");
}

/* ---- generators ---- */

typedef struct made {
  int begun, ended, released, fail_begin;
} made;

static tern_rc made_begin(void *self, void **state) {
  made *m = self;
  if (m->fail_begin) return TERN_E_IO;
  m->begun++;
  *state = calloc(1, sizeof(int));
  return TERN_OK;
}
static void made_end(void *self, void *state) {
  ((made *)self)->ended++;
  free(state);
}
static void made_release(void *self) { ((made *)self)->released++; }
/* 0, 1, an error without text, one with, NULL, a host number, the end. */
static int made_next(void *self, void *state, tern_tensor **out) {
  (void)self;
  const int i = (*(int *)state)++;
  out[0] = tern_i32(TERN_SHAPE(), i);
  out[1] = tern_add(out[0], tern_scalar(0.5));
  if (i == 2) return TERN_E_TIMEOUT;
  if (i == 3) out[0] = tern_matmul(out[0], out[0]);
  if (i == 4) return 9;
  if (i == 5) out[0] = NULL;
  if (i == 6) out[0] = tern_scalar_int(6), out[1] = tern_scalar(6.5);
  return i == 7 ? 0 : 2;
}

static void test_generator(void) {
  made m = {0};
  const tern_generator g = {made_next, made_begin, made_end, made_release};
  tern_dataset *d = tern_dataset_generator(&g, &m);
  CHECK(tern_dataset_size(d) == -2, "size");
  collected c = collect(d);
  const double expected[] = {0, 0.5, 1, 1.5, 6, 6.5};
  CHECK(c.elements == 3 && c.n_values == 6 && !memcmp(c.values, expected, sizeof expected), "%d elements", c.elements);
  CHECK(c.errors == 4 && strstr(c.error[0], "element 2") && strstr(c.error[0], "TERN_E_TIMEOUT"), "%s", c.error[0]);
  CHECK(strstr(c.error[1], "element 3: matmul") != NULL, "%s", c.error[1]);
  CHECK(strstr(c.error[2], "9 tensors") != NULL, "%s", c.error[2]);
  CHECK(strstr(c.error[3], "is NULL") != NULL, "%s", c.error[3]);
  collected_free(&c);
  d = tern_dataset_prefetch(d, 1, NULL);
  tern_iterator *it = tern_dataset_begin(d);
  m.fail_begin = 1;
  tern_iterator_end(it);
  CHECK(m.begun == 2 && m.ended == 2 && m.released == 0, "%d begun, %d ended", m.begun, m.ended);
  tern_dataset_release(d);
  CHECK(m.released == 1, "%d times released", m.released);
}

static void test_generator_end(void) {
  made m = {.fail_begin = 1};
  const tern_generator g = {made_next, made_begin, made_end, made_release};
  tern_dataset *d = tern_dataset_batch(tern_dataset_generator(&g, &m), 2, NULL);
  CHECK(!tern_dataset_begin(d), "begun");
  CHECK_ERROR(TERN_E_IO, "the program's begin");
  m.fail_begin = 0;
  tern_iterator *it = tern_dataset_begin(d);
  tern_dataset_release(d);
  CHECK(m.released == 0, "released while an iterator is open");
  {
    TERN_SCOPE;
    tern_tensor *out[TERN_MAX_COMPONENTS];
    CHECK(tern_iterator_next(it, out) == 2, "next");
    CHECK_LIST(out[1], TERN_SHAPE(2), TERN_F32, 0.5, 1.5);
  }
  tern_iterator_end(it);
  CHECK(m.begun == 1 && m.ended == 1 && m.released == 1, "%d, %d, %d", m.begun, m.ended, m.released);
  CHECK(!tern_dataset_generator(NULL, &m), "accepted");
  CHECK_ERROR(TERN_E_ARG, "NULL");
}

static const test_case cases[] = {{"tensors", test_tensors},
                                  {"range", test_range},
                                  {"idx", test_idx},
                                  {"npy, npz", test_npy},
                                  {"text", test_text},
                                  {"generator", test_generator},
                                  {"generator's end", test_generator_end}};
TEST_MAIN("data sources", cases)
