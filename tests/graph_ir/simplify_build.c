/* Types come from inference over headers without memory. */
#include "graph_ir/simplify_build.h"
#include "device/device.h"
#include "graph_ir/interpret.h"
#include "tensor/dtype.h"
#include <math.h>
#include <stdlib.h>
#include <tern/tern.h>

static void type(tern__graph *g, uint32_t node, tern_dtype d, int rank, const int64_t *shape, bool weak) {
  tern__ir_value *v = &g->value[g->node[node].first_out];
  v->dtype = (uint8_t)d;
  v->rank = (uint8_t)rank;
  for (int k = 0; k < rank; k++) v->shape[k] = shape[k];
  v->weak = weak;
  v->device = weak ? NULL : tern__device_default();
  if (g->node[node].kind == TERN__IR_OP || g->node[node].kind == TERN__IR_CONST) g->node[node].device = v->device;
}

uint32_t b_input(tern__graph *g, tern_dtype d, tern_shape shape) {
  const tern_word number = {.u = g->n_inputs};
  const uint32_t n = tern__graph_add(g, TERN__IR_INPUT, NULL, NULL, 0, &number, 1, 1);
  type(g, n, d, shape.rank, shape.dim, false);
  tern__graph_add_input(g, g->node[n].first_out);
  return g->node[n].first_out;
}

uint32_t b_const(tern__graph *g, tern_tensor *t) {
  const uint32_t n = tern__graph_add(g, TERN__IR_CONST, NULL, NULL, 0, NULL, 0, 1);
  type(g, n, (tern_dtype)t->dtype, t->rank, t->shape, false);
  g->node[n].tensor = tern__ref(t);
  return g->node[n].first_out;
}

static uint32_t scalar(tern__graph *g, tern_dtype d, tern_word w) {
  const uint32_t n = tern__graph_add(g, TERN__IR_SCALAR, NULL, NULL, 0, &w, 1, 1);
  type(g, n, d, 0, NULL, true);
  return g->node[n].first_out;
}
uint32_t b_scalar(tern__graph *g, double x) { return scalar(g, TERN_F64, (tern_word){.f = x}); }
uint32_t b_integer(tern__graph *g, int64_t x) { return scalar(g, TERN_I64, (tern_word){.i = x}); }

uint32_t b_op(tern__graph *g, const tern__op *op, const uint32_t *in, uint32_t n_in, const tern_word *attr,
              uint32_t n_attr) {
  tern_tensor t[8];
  tern_tensor *operand[8];
  memset(t, 0, sizeof t);
  for (uint32_t k = 0; k < n_in; k++) {
    if (in[k] == TERN__IR_NONE) return TERN__IR_NONE;
    const tern__ir_value *v = &g->value[in[k]];
    operand[k] = &t[k];
    t[k].live = TERN__LIVE;
    t[k].dtype = v->dtype;
    t[k].rank = v->rank;
    t[k].flags = v->weak ? TERN__WEAK : 0;
    t[k].device = tern__device_default();
    memcpy(t[k].shape, v->shape, sizeof v->shape);
    tern__set_dense(&t[k]);
    t[k].flags |= v->weak ? TERN__WEAK : 0;
    t[k].imm.f = 1;
  }
  tern__request q;
  memset(&q, 0, sizeof q);
  q.op = op;
  q.n_in = (uint8_t)n_in;
  q.n_out = 1;
  q.device = tern__device_default();
  tern__result r;
  const tern__call c = {.op = op, .in = operand, .n_in = (int)n_in, .attr = attr, .n_attr = (int)n_attr};
  if (op->infer(&c, &q, &r)) {
    tern_error_clear();
    return TERN__IR_NONE;
  }
  const uint32_t n = tern__graph_add(g, TERN__IR_OP, op, in, n_in, attr, n_attr, 1);
  type(g, n, r.dtype, r.rank, r.shape, false);
  return g->node[n].first_out;
}

uint32_t b1(tern__graph *g, const tern__op *op, uint32_t a) { return b_op(g, op, &a, 1, NULL, 0); }
uint32_t b2(tern__graph *g, const tern__op *op, uint32_t a, uint32_t b) {
  return b_op(g, op, (const uint32_t[]){a, b}, 2, NULL, 0);
}
uint32_t b3(tern__graph *g, const tern__op *op, uint32_t a, uint32_t b, uint32_t c) {
  return b_op(g, op, (const uint32_t[]){a, b, c}, 3, NULL, 0);
}
uint32_t b_cast(tern__graph *g, uint32_t a, tern_dtype d) {
  return b_op(g, &tern__op_cast, &a, 1, &(tern_word){.i = d}, 1);
}
uint32_t b_reduce(tern__graph *g, const tern__op *op, uint32_t a, unsigned axes, bool keepdims) {
  const tern_word attr[4] = {{.u = axes}, {.u = keepdims}, {.u = 0}, {.f = 0}};
  return b_op(g, op, &a, 1, attr, 4);
}

uint32_t b_full(tern__graph *g, tern_shape shape, tern_dtype d, double x) {
  tern_word attr[TERN_MAX_RANK + 3] = {{.i = shape.rank}};
  for (int k = 0; k < shape.rank; k++) attr[k + 1].i = shape.dim[k];
  attr[shape.rank + 1].i = d;
  attr[shape.rank + 2] = tern__convert((tern_word){.f = x}, TERN_F64, d);
  return b_op(g, &tern__op_full, NULL, 0, attr, (uint32_t)shape.rank + 3);
}

uint32_t b_empty(tern__graph *g, tern_shape shape, tern_dtype d) {
  tern_word attr[TERN_MAX_RANK + 2] = {{.i = d}, {.i = shape.rank}};
  for (int k = 0; k < shape.rank; k++) attr[k + 2].i = shape.dim[k];
  return b_op(g, &tern__op_empty, NULL, 0, attr, (uint32_t)shape.rank + 2);
}

static uint32_t view(tern__graph *g, const tern__op *op, uint32_t a, const tern_word *attr, uint32_t n_attr,
                     tern_shape shape) {
  if (a == TERN__IR_NONE) return a;
  const uint32_t n = tern__graph_add(g, TERN__IR_OP, op, &a, 1, attr, n_attr, 1);
  type(g, n, (tern_dtype)g->value[a].dtype, shape.rank, shape.dim, false);
  return g->node[n].first_out;
}

uint32_t b_reshape(tern__graph *g, uint32_t a, tern_shape shape) {
  return view(g, &tern__op_reshape, a, NULL, 0, shape);
}
uint32_t b_expand(tern__graph *g, uint32_t a, tern_shape shape) { return view(g, &tern__op_expand, a, NULL, 0, shape); }

uint32_t b_permute(tern__graph *g, uint32_t a, const int *order) {
  tern_word attr[TERN_MAX_RANK];
  tern_shape shape = {.rank = g->value[a].rank};
  for (int d = 0; d < shape.rank; d++) {
    attr[d].i = order[d];
    shape.dim[d] = g->value[a].shape[order[d]];
  }
  return view(g, &tern__op_permute, a, attr, (uint32_t)shape.rank, shape);
}

uint32_t b_slice(tern__graph *g, uint32_t a, int dropped, const int64_t *part) {
  tern_word attr[1 + 2 * TERN_MAX_RANK] = {{.i = dropped}};
  tern_shape shape = {0};
  const int rank = g->value[a].rank;
  for (int d = 0; d < rank; d++) {
    attr[1 + 2 * d].i = part[3 * d];
    attr[2 + 2 * d].i = part[3 * d + 1];
    if (d != dropped) shape.dim[shape.rank++] = part[3 * d + 2];
  }
  return view(g, &tern__op_slice, a, attr, 1 + 2 * (uint32_t)rank, shape);
}

uint32_t b_write(tern__graph *g, uint32_t whole, uint32_t source, const int64_t *first, tern_shape sizes) {
  if (whole == TERN__IR_NONE) return whole;
  const tern__ir_value v = g->value[whole];
  tern_word attr[TERN__WRITE_ATTRS] = {{.i = 0}, {.i = v.rank}};
  int64_t step = 1;
  for (int d = v.rank; d-- > 0; step *= v.shape[d]) {
    attr[0].i += first[d] * step;
    attr[2 + d].i = sizes.dim[d];
    attr[2 + v.rank + d].i = step;
  }
  return b_op(g, &tern__op_write, (const uint32_t[]){whole, source}, 2, attr, 2 + 2 * (uint32_t)v.rank);
}

tern_tensor *b_special(tern_shape shape, tern_dtype d, uint64_t *seed) {
  static const double odd[] = {0.0, -0.0, NAN, -NAN, INFINITY, -INFINITY, 1e-42, -3e-41,
                               1,   -1,   2,   0.5,  1e-7,     -65504,    3e38};
  const int64_t n = test_numel(shape);
  double *x = malloc((size_t)(n ? n : 1) * sizeof *x);
  for (int64_t i = 0; i < n; i++)
    x[i] = test_below(seed, 3) ? (double)(test_below(seed, 2001) - 1000) / 64 : odd[test_below(seed, 15)];
  tern_tensor *t = test_tensor(shape, d, x);
  free(x);
  return t;
}

/* The same bits; or close. */
static bool same(tern_tensor *a, tern_tensor *b, bool close) {
  if (!a || !b || a->dtype != b->dtype || a->rank != b->rank || memcmp(a->shape, b->shape, a->rank * sizeof *a->shape))
    return false;
  const size_t bytes = (size_t)a->numel * tern__dtype_size[a->dtype];
  char *x = malloc(bytes + 1), *y = malloc(bytes + 1);
  bool equal = !tern_to_host(a, x, bytes) && !tern_to_host(b, y, bytes) && !memcmp(x, y, bytes);
  free(x);
  free(y);
  return equal || (close && tern_allclose(a, b, 1e-5, 1e-5));
}

/* Operands come before their users, and the numbers of nodes and values agree. */
static bool ordered(const tern__graph *g) {
  uint32_t next = 0;
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    const tern__ir_node *n = &g->node[i];
    if (n->kind == TERN__IR_DEAD || n->first_out != next) return false;
    for (uint32_t o = 0; o < n->n_out; o++, next++)
      if (g->value[next].node != i || g->value[next].out != o) return false;
    for (uint32_t k = 0; k < n->n_in; k++)
      if (n->in[k] != TERN__IR_NONE && n->in[k] >= n->first_out) return false;
    for (int b = 0; b < 2; b++)
      if (n->body[b] && !ordered(n->body[b])) return false;
  }
  return next == g->n_values;
}

b_result b_try(tern__graph *g, bool fast_math) {
  b_result result = {0};
  {
    TERN_SCOPE;
    tern_tensor *in[32], *before[64], *after[64];
    uint64_t seed = 1;
    for (uint32_t k = 0; k < g->n_inputs; k++) {
      const tern__ir_value *v = &g->value[g->input[k]];
      in[k] = b_special(tern_shape_of(v->rank, v->shape), (tern_dtype)v->dtype, &seed);
    }
    const tern_rc first = interpret(g, in, before);
    CHECK(first == TERN_OK, "the graph does not run: %s", tern_error());
    const tern_rc rc = tern__simplify(g, &(tern__simplify_opts){.fast_math = fast_math});
    CHECK(rc == TERN_OK, "simplify: %s", tern_error());
    CHECK(ordered(g), "the order of the nodes is broken");
    const tern_rc again = interpret(g, in, after);
    CHECK(again == TERN_OK, "the simplified graph does not run: %s", tern_error());
    result.same = !first && !rc && !again;
    for (uint32_t o = 0; o < g->n_outputs && result.same; o++) result.same = same(before[o], after[o], fast_math);
    CHECK_NO_ERROR();
  }
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    const uint8_t kind = g->node[i].kind;
    result.nodes += kind == TERN__IR_OP || kind >= TERN__IR_PRINT;
  }
  result.all = g->n_nodes;
  const tern__ir_node *n = &g->node[g->value[g->output[0]].node];
  result.kind = n->kind;
  result.op = n->op;
  tern__graph_free(g);
  return result;
}
