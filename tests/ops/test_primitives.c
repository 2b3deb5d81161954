/* Every primitive in every dtype on TERN_DEVICE, against values that numpy, fractions and mpmath gave
   (tests/fixtures/make_ops.py). Requests are built by hand, so that a primitive is asked for in just that dtype;
   TERN_FALLBACK=error makes a device that does not compute one fail. */
#include "dispatch/dispatch.h"
#include "fixtures/fixtures.h"
#include "support/test.h"
#include "tensor/dtype.h"
#include <math.h>
#include <stdlib.h>
#include <tern/tern.h>

static const tern__prim *prim_named(const char *name) {
  for (int i = 0; tern__prim_at(i); i++)
    if (!strcmp(tern__prim_at(i)->name, name)) return tern__prim_at(i);
  return NULL;
}

/* Tolerance in ulp: the column of the op that is this primitive. */
static double tolerance(const tern__prim *p) {
  for (int i = 1; tern__op_at(i); i++)
    if (tern__op_at(i)->prim == p->number) return tern__op_at(i)->ulp;
  return 0;
}

static tern_tensor *upload(const fixture_array *a) {
  return tern_constant(tern_shape_of(a->rank, a->shape), a->dtype, a->data, a->count);
}

/* Operand i with the sizes named by dims; 1 for TERN__ONE. */
static void operand(tern__request *q, int i, int kind, tern_tensor *t, const uint8_t *dims) {
  tern__operand *a = &q->arg[i];
  memset(a, 0, sizeof *a);
  a->kind = (uint8_t)kind;
  a->dtype = t->dtype;
  a->rank = t->rank;
  a->storage = t->storage;
  a->offset = t->offset;
  for (int d = 0; d < t->rank; d++) {
    a->dim[d] = dims[d];
    a->stride[d] = dims[d] == TERN__ONE ? 0 : t->stride[d];
  }
}

static void map_like(tern__request *q, const fixture *f, const tern__prim *p, tern_tensor **in, tern_tensor *out) {
  const fixture_array *wide = p->kind == TERN_K_REDUCE ? &f->in[0] : &f->out[0];
  q->n_space = q->n_sizes = (uint8_t)wide->rank;
  for (int d = 0; d < wide->rank; d++) {
    q->size[d] = wide->shape[d];
    q->role[d] = p->kind == TERN_K_MAP && p->number != TERN_OP_IOTA ? TERN__ROLE_MAP : TERN__ROLE_FIXED;
    if (p->kind == TERN_K_REDUCE) q->role[d] = f->attr_value[0] >> d & 1 ? TERN__ROLE_REDUCED : TERN__ROLE_MAP;
  }
  if (p->kind != TERN_K_REDUCE) {
    q->n_attrs = (uint8_t)f->n_attrs;
    for (int i = 0; i < f->n_attrs; i++) q->attr[i].i = f->attr_value[i];
  }
  for (int i = 0; i < f->n_in; i++) {
    uint8_t dims[TERN_MAX_RANK];
    if (p->number == TERN_OP_RNG) {
      q->arg[i] =
          (tern__operand){.kind = TERN_V_PARAM, .dtype = TERN_U64, .value = tern__load(TERN_U64, f->in[i].data)};
      continue;
    }
    for (int d = 0; d < wide->rank; d++) dims[d] = (uint8_t)d;
    operand(q, i, TERN_V_IN, in[i], dims);
  }
  uint8_t dims[TERN_MAX_RANK];
  for (int d = 0; d < wide->rank; d++) dims[d] = q->role[d] == TERN__ROLE_REDUCED ? TERN__ONE : (uint8_t)d;
  operand(q, f->n_in, TERN_V_OUT, out, dims);
}

static void dot_like(tern__request *q, const fixture *f, tern_tensor **in, tern_tensor *out) {
  const int nb = f->out[0].rank - 2;
  q->n_sizes = (uint8_t)(nb + 3);
  for (int d = 0; d < nb; d++) q->size[d] = f->out[0].shape[d];
  q->size[nb] = f->in[0].shape[f->in[0].rank - 2];
  q->size[nb + 1] = f->in[0].shape[f->in[0].rank - 1];
  q->size[nb + 2] = f->in[1].shape[f->in[1].rank - 1];
  for (int d = 0; d < q->n_sizes; d++) q->role[d] = TERN__ROLE_FIXED;
  for (int i = 0; i < 3; i++) {
    const fixture_array *a = i < 2 ? &f->in[i] : &f->out[0];
    uint8_t dims[TERN_MAX_RANK];
    for (int d = 0; d < nb; d++) dims[d] = a->shape[d] == 1 ? TERN__ONE : (uint8_t)d;
    dims[nb] = (uint8_t)(i == 1 ? nb + 1 : nb);
    dims[nb + 1] = (uint8_t)(i == 0 ? nb + 1 : nb + 2);
    operand(q, i, i < 2 ? TERN_V_IN : TERN_V_OUT, i < 2 ? in[i] : out, dims);
  }
}

static void gather_like(tern__request *q, const fixture *f, tern_tensor **in, tern_tensor *out) {
  static const uint8_t data[] = {0, 1, 2}, index[] = {3}, result[] = {0, 3, 2};
  q->n_sizes = 4;
  for (int d = 0; d < 3; d++) q->size[d] = f->in[0].shape[d];
  q->size[3] = f->in[1].shape[0];
  for (int d = 0; d < 4; d++) q->role[d] = TERN__ROLE_FIXED;
  operand(q, 0, TERN_V_IN, in[0], data);
  operand(q, 1, TERN_V_IN, in[1], index);
  operand(q, 2, TERN_V_OUT, out, result);
}

static void compare(const fixture *f, const tern__prim *p, int record, const void *got) {
  const fixture_array *e = &f->out[0];
  const size_t item = fixture_item_size(e->dtype);
  const bool sums = p->number == TERN_OP_SUM || p->number == TERN_OP_CUMSUM || p->number == TERN_OP_DOT;
  double scale = 0, allowed = tern__is_float(e->dtype) ? tolerance(p) : 0;
  if (allowed > 0 && allowed < 1) allowed = 1;
  if (sums) allowed = allowed < 4 ? 4 : allowed;
  for (int i = 0; sums && i < f->n_in && tern__is_float(e->dtype); i++)
    for (size_t k = 0; k < f->in[i].count; k++)
      scale = fmax(scale, fabs(tern__word_double(tern__load(f->in[i].dtype, (const char *)f->in[i].data + k * item),
                                                 f->in[i].dtype)));
  for (size_t k = 0; k < e->count; k++) {
    const void *g = (const char *)got + k * item, *x = (const char *)e->data + k * item;
    if (!tern__is_float(e->dtype)) {
      if (memcmp(g, x, item)) {
        CHECK(0, "%s, record %d, %s, element %zu: %.17g, expected %.17g", f->op, record, tern_dtype_name(e->dtype), k,
              tern__word_double(tern__load(e->dtype, g), e->dtype),
              tern__word_double(tern__load(e->dtype, x), e->dtype));
        return;
      }
      continue;
    }
    const double a = tern__load(e->dtype, g).f, b = tern__load(e->dtype, x).f;
    const double at = sums && isfinite(b) && fabs(b) < scale * scale ? copysign(scale * scale, b) : b;
    const double distance = test_ulps(a, b, e->dtype) == 0 ? 0
                            : sums && isfinite(a)          ? test_ulps(at + (a - b), at, e->dtype)
                                                           : test_ulps(a, b, e->dtype);
    if (!(distance <= allowed)) {
      char operands[200] = "";
      int n = 0;
      for (int i = 0; i < f->n_in && p->kind == TERN_K_MAP && i < 3; i++)
        n += snprintf(operands + n, sizeof operands - (size_t)n, " %.9g",
                      tern__word_double(tern__load(f->in[i].dtype,
                                                   (const char *)f->in[i].data + k * fixture_item_size(f->in[i].dtype)),
                                        f->in[i].dtype));
      CHECK(0, "%s, record %d, %s, element %zu of%s: %.17g, expected %.17g: %g ulp, %g allowed", f->op, record,
            tern_dtype_name(e->dtype), k, operands, a, b, distance, allowed);
      return;
    }
  }
  CHECK(1, " ");
}

static void run(const fixture *f, int record) {
  TERN_SCOPE;
  const tern__prim *p = prim_named(f->op);
  if (!CHECK(p != NULL && f->n_out == 1, "record %d: no primitive %s", record, f->op)) return;
  tern_tensor *in[FIXTURE_MAX_ARRAYS];
  for (int i = 0; i < f->n_in; i++) in[i] = upload(&f->in[i]);
  tern_tensor *out = tern_empty(tern_shape_of(f->out[0].rank, f->out[0].shape), f->out[0].dtype);
  tern__request q;
  memset(&q, 0, sizeof q);
  q.op = tern__op_of_prim(p->number);
  q.device = out ? out->device : NULL;
  q.n_in = (uint8_t)f->n_in;
  q.n_out = 1;
  q.dtype = (uint8_t)(f->n_in ? f->in[f->n_in - 1].dtype : f->out[0].dtype);
  if (!out || !q.device) {
    CHECK_NO_ERROR();
    return;
  }
  if (p->kind == TERN_K_DOT)
    dot_like(&q, f, in, out);
  else if (p->kind == TERN_K_GATHER)
    gather_like(&q, f, in, out);
  else
    map_like(&q, f, p, in, out);
  tern__canonicalise(&q);
  void *got = malloc(f->out[0].size + 1);
  if (CHECK(got && !tern__launch(&q) && !tern_to_host(out, got, f->out[0].size), "%s, record %d, %s: %s", f->op, record,
            tern_dtype_name(f->n_in ? f->in[f->n_in - 1].dtype : f->out[0].dtype), tern_error()))
    compare(f, p, record, got);
  tern_error_clear();
  free(got);
}

static void all_of(const char *name) {
  char path[1024];
  fixtures reader;
  fixture record;
  snprintf(path, sizeof path, "%s/ops/%s.bin", TERN_FIXTURES, name);
  if (!CHECK(fixtures_open(&reader, path), "%s: %s", path, reader.error ? reader.error : "?")) return;
  while (fixtures_next(&reader, &record))
    if (test_chosen()) run(&record, reader.record);
  CHECK(!reader.error && reader.record > 10, "%s: %s after %d records", path, reader.error ? reader.error : "too few",
        reader.record);
  fixtures_close(&reader);
}

static void test_unary(void) { all_of("map_unary"); }
static void test_binary(void) { all_of("map_binary"); }
static void test_cast(void) { all_of("cast"); }
static void test_reduce(void) { all_of("reduce"); }
static void test_scan(void) { all_of("scan"); }
static void test_dot(void) { all_of("dot"); }
static void test_move(void) { all_of("move"); }

static const test_case cases[] = {{"maps of one operand", test_unary},
                                  {"maps of two and three", test_binary},
                                  {"casts", test_cast},
                                  {"reductions", test_reduce},
                                  {"scans", test_scan},
                                  {"dot", test_dot},
                                  {"gather, sort, iota, rng", test_move}};
TEST_MAIN("primitives", cases)
