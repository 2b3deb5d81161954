/* The reference evaluator where the nest tests do not come: scans and sorts, also of inputs that broadcast by a literal
   1. */
#include "../../../backends/common/eval.h"
#include "regions.h"
#include "support/test.h"
#include <string.h>
#include <tern/backend.h>

enum { ROWS = 2, COLUMNS = 3 };

/* A region of one node over one input of that shape (rank 2, or 0: a parameter), evaluated over `data`; the result has
   ROWS x COLUMNS elements of 8 bytes. */
static tern_rc evaluate(uint32_t op, int rank, int64_t rows, int64_t columns, const tern_word *attr, uint32_t n_attr,
                        const float *data, void *out, char *why, size_t size) {
  region_builder b;
  rb_init(&b, "lines", 1);
  const int64_t shape[] = {rows, columns}, full[] = {ROWS, COLUMNS};
  const uint32_t x = rank ? rb_in(&b, TERN_F32, 2, shape, RB_DENSE) : rb_param(&b, TERN_F32, data[0]);
  const uint32_t like = rb_in(&b, TERN_F32, 2, full, RB_DENSE), y = rb_map(&b, TERN_OP_NEG, like, RB_NONE, RB_NONE);
  rb_out(&b, y);
  tern_node *n = &b.nodes[0]; /* becomes the scan or sort of x */
  n->op = op;
  n->n_attr = n_attr;
  b.edges[n->in] = x;
  n->attr = b.n_attrs;
  memcpy(&b.attrs[b.n_attrs], attr, n_attr * sizeof *attr);
  if (op == TERN_OP_ARGSORT) b.values[y].dtype = TERN_I64;
  void *args[RB_MAX_ARGS] = {0};
  for (uint32_t i = 0; i < b.region.n_args; i++) args[i] = b.args[i].data;
  if (rank) memcpy(b.args[b.values[x].slot].data, data, (size_t)(rows * columns) * sizeof *data);
  args[b.values[y].slot] = out;
  const tern_rc rc = tern_eval(&b.region, args, b.words, why, size);
  rb_free(&b);
  return rc;
}

static void check_f32(const char *what, uint32_t op, int rank, int64_t rows, int64_t columns, tern_word a, tern_word b,
                      const float *data, const float *expected) {
  char why[200] = "";
  float out[2 * ROWS * COLUMNS] = {0};
  const tern_word attr[] = {a, b};
  const tern_rc rc = evaluate(op, rank, rows, columns, attr, op == TERN_OP_SORT ? 1 : 2, data, out, why, sizeof why);
  CHECK(rc == TERN_OK, "%s: %s", what, why);
  for (int k = 0; k < ROWS * COLUMNS; k++)
    CHECK(out[k] == expected[k], "%s: element %d is %g instead of %g", what, k, (double)out[k], (double)expected[k]);
}

static void scans(void) {
  static const float row[] = {1, 2, 4}, column[] = {3, 5};
  const tern_word along_0 = {.i = 0}, along_1 = {.i = 1}, plain = {.u = 0}, exclusive = {.u = 1}, reverse = {.u = 2};
  check_f32("down rows of one row", TERN_OP_CUMSUM, 2, 1, 3, along_0, plain, row, (float[]){1, 2, 4, 2, 4, 8});
  check_f32("up rows of one row", TERN_OP_CUMSUM, 2, 1, 3, along_0, reverse, row, (float[]){2, 4, 8, 1, 2, 4});
  check_f32("along the one row", TERN_OP_CUMSUM, 2, 1, 3, along_1, plain, row, (float[]){1, 3, 7, 1, 3, 7});
  check_f32("along one column", TERN_OP_CUMPROD, 2, 2, 1, along_1, plain, column, (float[]){3, 9, 27, 5, 25, 125});
  check_f32("exclusive", TERN_OP_CUMSUM, 2, 2, 1, along_1, exclusive, column, (float[]){0, 3, 6, 0, 5, 10});
  check_f32("one element", TERN_OP_CUMSUM, 2, 1, 1, along_1, plain, row, (float[]){1, 2, 3, 1, 2, 3});
  check_f32("a parameter", TERN_OP_CUMSUM, 0, 0, 0, along_1, plain, column, (float[]){3, 6, 9, 3, 6, 9});
  check_f32("all of them", TERN_OP_CUMSUM, 2, 2, 3, along_1, plain, (float[]){1, 2, 3, 4, 5, 6},
            (float[]){1, 3, 6, 4, 9, 15});
}

static void sorts(void) {
  static const float row[] = {4, 1, 2}, column[] = {5, 3};
  const tern_word up = {.u = 0}, down = {.u = 1};
  check_f32("one row", TERN_OP_SORT, 2, 1, 3, up, up, row, (float[]){1, 2, 4, 1, 2, 4});
  check_f32("one row, down", TERN_OP_SORT, 2, 1, 3, down, up, row, (float[]){4, 2, 1, 4, 2, 1});
  check_f32("one column", TERN_OP_SORT, 2, 2, 1, up, up, column, (float[]){5, 5, 5, 3, 3, 3});
  int64_t order[ROWS * COLUMNS];
  char why[200] = "";
  CHECK(!evaluate(TERN_OP_ARGSORT, 2, 1, 3, &down, 1, row, order, why, sizeof why), "%s", why);
  CHECK(!memcmp(order, (int64_t[]){0, 2, 1, 0, 2, 1}, sizeof order), "%d %d %d", (int)order[0], (int)order[1],
        (int)order[2]);
  CHECK(!evaluate(TERN_OP_ARGSORT, 2, 2, 1, &down, 1, column, order, why, sizeof why), "%s", why);
  CHECK(!memcmp(order, (int64_t[]){0, 1, 2, 0, 1, 2}, sizeof order), "equal elements do not keep their order");
}

static void refused(void) {
  static const float data[] = {1, 2, 3, 4, 5, 6};
  const tern_word attr[] = {{.i = 1}, {.u = 0}};
  float out[2 * ROWS * COLUMNS];
  char why[200] = "";
  CHECK(evaluate(TERN_OP_CUMSUM, 2, 2, 2, attr, 2, data, out, why, sizeof why) == TERN_E_ARG, "2 columns for 3");
  CHECK(strstr(why, "shape") != NULL, "%s", why);
  CHECK(evaluate(TERN_OP_SORT, 2, 3, 3, attr, 1, (float[9]){0}, out, why, sizeof why) == TERN_E_ARG, "3 rows for 2");
}

static const test_case cases[] = {{"scans", scans}, {"sorts", sorts}, {"refused", refused}};
TEST_MAIN("eval", cases)
