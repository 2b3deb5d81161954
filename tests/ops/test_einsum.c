/* tern_einsum against numpy.einsum (fixtures/ops/einsum.bin: the subscripts stand in each record's name), and what it
   must refuse. */
#include "fixtures/fixtures.h"
#include "ops/check_gradient.h"
#include "support/values.h"
#include <stdlib.h>
#include <string.h>

static tern_tensor *upload(const fixture_array *a) {
  return tern_constant(tern_shape_of(a->rank, a->shape), a->dtype, a->data, a->count);
}

/* The inputs are small integers, so that every order of summation gives the same bits (but for int32 with float64). */
static void test_against_numpy(void) {
  fixtures reader;
  fixture f;
  const bool opened = fixtures_open(&reader, TERN_FIXTURES "/ops/einsum.bin");
  if (!CHECK(opened, "einsum.bin: %s", reader.error)) return;
  while (fixtures_next(&reader, &f)) {
    TERN_SCOPE;
    const char *text = f.op + strlen("einsum ");
    const fixture_array *e = &f.out[0];
    tern_tensor *in[FIXTURE_MAX_ARRAYS];
    for (int i = 0; i < f.n_in; i++) in[i] = upload(&f.in[i]);
    tern_tensor *got = tern_einsum(text, in, f.n_in);
    double *values = test_values(upload(e));
    char what[100];
    snprintf(what, sizeof what, "\"%s\" (%s)", text, tern_dtype_name(e->dtype));
    if (!got) CHECK(0, "%s: %s", what, tern_error());
    if (CHECK(values != NULL, "%s: no values", what))
      CHECK_VALUES(got, tern_shape_of(e->rank, e->shape), e->dtype, values, e->dtype == TERN_F64 ? 16 : 0, 0, what);
    tern_error_clear();
    free(values);
  }
  CHECK(!reader.error && reader.record > 150, "einsum.bin: %s after %d records",
        reader.error ? reader.error : "too few", reader.record);
  fixtures_close(&reader);
}

/* Views stay views: a transpose and a diagonal share the operand's memory, which a later assignment in place would
   show. */
static void test_views(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_reshape(tern_arange(0, 9, 1, TERN_F32), TERN_SHAPE(3, 3));
  tern_tensor *turned = tern_transpose(x), *rows = tern_slice(x, &TERN_RANGE(TERN_OPEN, TERN_OPEN, -1), 1);
  CHECK_LIST(tern_einsum("ii->i", TERN_TENSORS(rows)), TERN_SHAPE(3), TERN_F32, 6, 4, 2);
  CHECK_LIST(tern_einsum("ij,jk->ik", TERN_TENSORS(turned, rows)), TERN_SHAPE(3, 3), TERN_F32, 9, 18, 27, 18, 30, 42,
             27, 42, 57);
  CHECK_LIST(tern_einsum("ij,", TERN_TENSORS(turned, tern_scalar(2))), TERN_SHAPE(3, 3), TERN_F32, 0, 6, 12, 2, 8, 14,
             4, 10, 16);
  CHECK_LIST(tern_einsum("ij,i,", TERN_TENSORS(x, tern_i32(TERN_SHAPE(3), 1, 0, 1), tern_scalar_int(3))), TERN_SHAPE(3),
             TERN_F32, 18, 24, 30);
  CHECK_LIST(tern_einsum(",", TERN_TENSORS(tern_scalar(2), tern_scalar_int(3))), TERN_SHAPE(), TERN_F32, 6);
  CHECK_LIST(tern_einsum(",", TERN_TENSORS(tern_scalar_int(2), tern_scalar_int(3))), TERN_SHAPE(), TERN_I64, 6);
  CHECK(tern_equal_all(tern_einsum("ij->ij", TERN_TENSORS(x)), x) == 1, "the identity changes x");
  CHECK_NO_ERROR();
}

/* Shapes "23,34" stand for (2, 3) and (3, 4). All of these numpy.einsum refuses too. */
static void test_bad_input(void) {
  static const struct {
    const char *text, *shapes, *part;
  } bad[] = {
      {"ii", "13", "'i'"},
      {"ii->i", "31", "'i'"},
      {"...->", "23", "..."},
      {"...i->i", "23", "..."},
      {"ij->ii", "22", "'i'"},
      {"ij->ik", "22", "'k'"},
      {"i", "23", "rank 2"},
      {"ij", "3", "rank 1"},
      {". . .i", "3", "dot"},
      {"i...j...", "23", "dot"},
      {"..i", "3", "dot"},
      {"....i", "3", "dot"},
      {"i- >i", "3", "'-'"},
      {"i->->i", "3", "'-'"},
      {"i,j", "3", "2 operands"},
      {"i", "3,3", "1 operand"},
      {"i1", "32", "'1'"},
      {"i>i", "3", "'>'"},
      {"", "2", "rank 1"},
      {"ij,jk", "23,44", "'j' is 3"},
      {"ij,jk->ik", "23,43", "4"},
      {"...i,...i", "23,33", "..."},
      {"i->,", "3", "','"},
      {"ij,", "23,1", "rank 1"},
      {"i,j->ij...k", "2,3", "'k'"},
      {"ij,kl,mn->ijklmn", "23", "3 operands"},
      {"\xc3\xa4", "3", "means nothing"},
      {"i->i.", "3", "dot"},
  };
  for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
    TERN_SCOPE;
    tern_tensor *in[4];
    int n = 0;
    tern_shape shape = {.rank = 0};
    for (const char *p = bad[k].shapes;; p++) {
      if (*p && *p != ',') {
        shape.dim[shape.rank++] = *p - '0';
        continue;
      }
      in[n++] = tern_ones(shape, TERN_F32);
      shape.rank = 0;
      if (!*p) break;
    }
    CHECK(tern_einsum(bad[k].text, in, n) == NULL, "\"%s\" of %s must be refused", bad[k].text, bad[k].shapes);
    CHECK_ERROR(TERN_E_ARG, bad[k].part);
  }
  TERN_SCOPE;
  tern_tensor *x = tern_ones(TERN_SHAPE(2, 2, 2, 2, 2), TERN_F32);
  CHECK(!tern_einsum("abcde,fghij->abcdefghij", TERN_TENSORS(x, x)), "a result of rank 10");
  CHECK_ERROR(TERN_E_ARG, "axes");
  CHECK(!tern_einsum("abcde,fghij", TERN_TENSORS(x, x)), "a result of rank 10");
  CHECK_ERROR(TERN_E_ARG, "rank 10");
  tern_tensor *deep = tern_ones(TERN_SHAPE(2, 2, 2, 2, 2, 2, 2, 2), TERN_F32);
  CHECK(!tern_einsum("abcdefgh,abcdijkl,efghijkl->aei", TERN_TENSORS(deep, deep, deep)), "products of rank 9");
  CHECK_ERROR(TERN_E_ARG, "more than 8 axes");
  CHECK(!tern_einsum(NULL, TERN_TENSORS(x)), "no subscripts");
  CHECK_ERROR(TERN_E_ARG, "einsum");
  CHECK(!tern_einsum("i", NULL, 1), "no operands");
  CHECK_ERROR(TERN_E_ARG, "einsum");
  CHECK(!tern_einsum("i,i", TERN_TENSORS(x, NULL)), "an operand NULL");
  CHECK_ERROR(TERN_E_ARG, "argument 2");
}

#define BODY(name, text) \
  static tern_tensor *name(tern_tensor *const *x, int n) { return tern_einsum(text, x, n); }
BODY(matrices, "ij,jk->ki")
BODY(traced, "ii,i->")
BODY(diagonals, "iij->ji")
BODY(batches, "bij,jk,bk->bi")
BODY(dots, "...i,...i->...")
BODY(products, "i,j->ji")

static void test_gradients(void) {
  static const gradient_case list[] = {{"ij,jk->ki", matrices, 2, {{2, {2, 3}}, {2, {3, 2}}}, 0},
                                       {"ii,i->", traced, 2, {{2, {3, 3}}, {1, {3}}}, 0},
                                       {"iij->ji", diagonals, 1, {{3, {2, 2, 2}}}, 0},
                                       {"bij,jk,bk->bi", batches, 3, {{3, {2, 2, 3}}, {2, {3, 2}}, {2, {2, 2}}}, 0},
                                       {"...i,...i->...", dots, 2, {{2, {2, 3}}, {2, {1, 3}}}, 0},
                                       {"i,j->ji", products, 2, {{1, {2}}, {1, {3}}}, 0}};
  for (size_t i = 0; i < sizeof list / sizeof *list; i++) check_gradient(&list[i]);
}

static const test_case cases[] = {{"results of numpy", test_against_numpy},
                                  {"views", test_views},
                                  {"bad input", test_bad_input},
                                  {"gradients", test_gradients}};
TEST_MAIN("einsum", cases)
