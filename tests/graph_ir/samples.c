/* See samples.h. */
#include "graph_ir/samples.h"
#include "device/device.h"
#include "ops/table.h"
#include "ops/write.h"
#include "support/values.h"
#include <stdlib.h>
#include <string.h>

static tern__device *here(void) { return tern__device_here(tern__thread_get()); }

void set_type(tern__graph *g, uint32_t value, tern_dtype dtype, int rank, const int64_t *shape) {
  tern__ir_value *v = &g->value[value];
  v->dtype = (uint8_t)dtype;
  v->rank = (uint8_t)rank;
  v->device = here();
  for (int d = 0; d < rank; d++) v->shape[d] = shape[d];
}

void set_name(tern__graph *g, uint32_t value, const char *name) {
  free(g->value[value].name);
  g->value[value].name = strdup(name);
}

uint32_t add_input(tern__graph *g, tern_dtype dtype, int rank, const int64_t *shape) {
  const uint32_t at = tern__graph_add(g, TERN__IR_INPUT, NULL, NULL, 0, &(tern_word){.u = g->n_inputs}, 1, 1);
  const uint32_t v = g->node[at].first_out;
  set_type(g, v, dtype, rank, shape);
  g->node[at].device = here();
  tern__graph_add_input(g, v);
  return v;
}

static uint32_t add_tensor(tern__graph *g, tern__ir_kind kind, tern_tensor *t) {
  const uint32_t at = tern__graph_add(g, kind, NULL, NULL, 0, NULL, 0, 1);
  set_type(g, g->node[at].first_out, (tern_dtype)t->dtype, t->rank, t->shape);
  g->node[at].tensor = tern__ref(t);
  g->node[at].device = here();
  if (kind == TERN__IR_VARIABLE) tern__graph_add_variable(g, t, at);
  return g->node[at].first_out;
}

uint32_t add_const(tern__graph *g, tern_tensor *t) { return add_tensor(g, TERN__IR_CONST, t); }
uint32_t add_variable(tern__graph *g, tern_tensor *v) { return add_tensor(g, TERN__IR_VARIABLE, v); }

static uint32_t add_word(tern__graph *g, tern_dtype dtype, tern_word w) {
  const uint32_t at = tern__graph_add(g, TERN__IR_SCALAR, NULL, NULL, 0, &w, 1, 1), v = g->node[at].first_out;
  g->value[v].dtype = (uint8_t)dtype;
  g->value[v].weak = true;
  return v;
}

uint32_t add_scalar(tern__graph *g, double value) { return add_word(g, TERN_F64, (tern_word){.f = value}); }
uint32_t add_scalar_int(tern__graph *g, int64_t value) { return add_word(g, TERN_I64, (tern_word){.i = value}); }

uint32_t add_op(tern__graph *g, const char *op, const uint32_t *in, uint32_t n_in, const tern_word *attr,
                uint32_t n_attr, tern_dtype dtype, int rank, const int64_t *shape) {
  const uint32_t at = tern__graph_add(g, TERN__IR_OP, tern__op_find(op), in, n_in, attr, n_attr, 1);
  set_type(g, g->node[at].first_out, dtype, rank, shape);
  g->node[at].device = here();
  return g->node[at].first_out;
}

uint32_t add_inferred(tern__graph *g, const char *op, const uint32_t *in, uint32_t n_in, const tern_word *attr,
                      uint32_t n_attr) {
  static char zeros[64];
  tern__storage storage = {.refs = 1, .host = zeros, .bytes = sizeof zeros};
  tern_tensor header[8];
  tern_tensor *operand[8];
  memset(header, 0, sizeof header);
  for (uint32_t i = 0; i < n_in; i++) {
    const tern__ir_value *v = &g->value[in[i]];
    header[i].live = TERN__LIVE;
    header[i].dtype = v->dtype;
    header[i].rank = v->rank;
    header[i].device = v->device;
    if (v->weak)
      header[i].flags = TERN__WEAK;
    else
      header[i].storage = &storage;
    memcpy(header[i].shape, v->shape, sizeof v->shape);
    if (!v->weak) tern__set_dense(&header[i]);
    operand[i] = &header[i];
  }
  tern__request q = {.op = tern__op_find(op), .device = here(), .n_in = (uint8_t)n_in, .n_out = 1};
  tern__result r = {.rank = 0};
  const tern__call c = {.op = q.op, .in = operand, .n_in = (int)n_in, .attr = attr, .n_attr = (int)n_attr};
  if (q.op->infer(&c, &q, &r)) {
    tern_error_clear();
    return TERN__IR_NONE;
  }
  return add_op(g, op, in, n_in, attr, n_attr, r.dtype, r.rank, r.shape);
}

/* ---- by hand ---- */

static tern__graph *body_of(const char *name, const char *op) {
  tern__graph *b = tern__graph_new(name);
  const uint32_t x = add_input(b, TERN_F32, 1, (int64_t[]){2}), y = add_input(b, TERN_F32, 1, (int64_t[]){2});
  tern__graph_add_output(b, add_op(b, op, (uint32_t[]){x, y}, 2, NULL, 0, TERN_F32, 1, (int64_t[]){2}));
  return b;
}

static uint32_t add_control(tern__graph *g, tern__ir_kind kind, const uint32_t *in, uint32_t n_in,
                            const tern_word *attr, uint32_t n_attr, tern__graph *a, tern__graph *b) {
  const uint32_t at = tern__graph_add(g, kind, NULL, in, n_in, attr, n_attr, 1);
  set_type(g, g->node[at].first_out, TERN_F32, 1, (int64_t[]){2});
  g->node[at].device = here();
  g->node[at].body[0] = a;
  g->node[at].body[1] = b;
  return g->node[at].first_out;
}

static tern_rc next_number(void *self, int64_t elements, tern_word *out, int n_out) {
  (void)self;
  (void)elements;
  for (int o = 0; o < n_out; o++) out[o].f = 0.25;
  return TERN_OK;
}

static uint32_t add_source(tern__graph *g) {
  const uint32_t at = tern__graph_add(g, TERN__IR_SOURCE, NULL, NULL, 0, &(tern_word){.i = 1}, 1, 1);
  tern__ir_source *s = tern__graph_alloc(g, 1, sizeof *s);
  *s = (tern__ir_source){.next = next_number, .name = "rate"};
  g->node[at].source = s;
  tern__ir_value *v = &g->value[g->node[at].first_out];
  v->dtype = TERN_F64;
  v->weak = true;
  return g->node[at].first_out;
}

static void add_views(tern__graph *g, uint32_t x) { /* x: f32[2, 3] */
  const uint32_t r = add_op(g, "reshape", &x, 1, NULL, 0, TERN_F32, 1, (int64_t[]){6});
  const uint32_t t = add_op(g, "permute", &x, 1, (tern_word[]){{.i = 1}, {.i = 0}}, 2, TERN_F32, 2, (int64_t[]){3, 2});
  const uint32_t s = add_op(g, "slice", &t, 1, (tern_word[]){{.i = 1}, {.i = 2}, {.i = -2}, {.i = 1}, {.i = 1}}, 5,
                            TERN_F32, 1, (int64_t[]){2});
  const uint32_t e = add_op(g, "expand", &s, 1, NULL, 0, TERN_F32, 2, (int64_t[]){4, 2});
  tern__graph_add_output(g, r);
  tern__graph_add_output(g, e);
}

tern__graph *sample_all_kinds(void) {
  TERN_SCOPE;
  const int64_t two[] = {2}, matrix[] = {2, 3};
  tern__graph *g = tern__graph_new("all kinds");
  const uint32_t x = add_input(g, TERN_F32, 2, matrix), y = add_input(g, TERN_F32, 1, two);
  const uint32_t c = add_const(g, tern_f32(TERN_SHAPE(2), 1, 0.1f));
  tern_tensor *w = tern_variable(tern_f32(TERN_SHAPE(2), 3, -4), &(tern_variable_opts){.name = "a \"w\"\n"});
  tern_tensor *fixed = tern_variable(tern_i32(TERN_SHAPE(), 7), &(tern_variable_opts){.name = "n", .frozen = 1});
  const uint32_t v = add_variable(g, w), n = add_variable(g, fixed);
  tern_release(w);
  tern_release(fixed);
  const uint32_t half = add_scalar(g, 0.5), three = add_scalar_int(g, 3), rate = add_source(g);
  set_name(g, x, "x");
  set_name(g, y, "same");
  set_name(g, c, "same");
  set_name(g, n, "not a label");
  add_views(g, x);
  const uint32_t scaled = add_op(g, "mul", (uint32_t[]){v, half}, 2, NULL, 0, TERN_F32, 1, two);
  const uint32_t next = add_op(g, "add", (uint32_t[]){scaled, rate}, 2, NULL, 0, TERN_F32, 1, two);
  const uint32_t clipped = add_op(g, "clip", (uint32_t[]){next, TERN__IR_NONE, three}, 3, NULL, 0, TERN_F32, 1, two);
  const uint32_t more = add_op(g, "greater", (uint32_t[]){clipped, three}, 2, NULL, 0, TERN_BOOL, 1, two);
  const tern_word axes[] = {{.u = 1}, {.u = 0}, {.u = 0}, {.f = 0.1}};
  const uint32_t any = add_op(g, "any", &more, 1, axes, 4, TERN_BOOL, 0, NULL);
  g->node[g->value[any].node].pinned = true;
  const uint32_t either = add_control(g, TERN__IR_COND, (uint32_t[]){any, c, y}, 3, NULL, 0, body_of("sum", "add"),
                                      body_of("product", "mul"));
  tern__graph *go_on = body_of("go on", "add");
  const uint32_t less = add_op(go_on, "less", (uint32_t[]){0, 1}, 2, NULL, 0, TERN_BOOL, 1, two);
  go_on->output[0] = add_op(go_on, "all", &less, 1, axes, 4, TERN_BOOL, 0, NULL);
  const uint32_t last = add_control(g, TERN__IR_WHILE, (uint32_t[]){either, y}, 2, &(tern_word){.i = 100}, 1, go_on,
                                    body_of("step", "maximum"));
  tern__graph_add(g, TERN__IR_PRINT, NULL, &last, 1, &(tern_word){.u = 1}, 1, 0);
  g->node[g->n_nodes - 1].device = here();
  g->variable[0].value = last;
  tern__graph_add_output(g, TERN__IR_NONE);
  tern__graph_add_output(g, clipped);
  (void)n;
  return g;
}

/* ---- random ---- */

static uint32_t random_value(const tern__graph *g, uint64_t *state) {
  for (;;) { /* later ones more often; the first is no scalar */
    const uint32_t back = (uint32_t)test_below(state, test_below(state, g->n_values) + 1);
    const uint32_t v = g->n_values - 1 - back;
    if (!g->value[v].weak) return v;
  }
}

static uint32_t random_view(tern__graph *g, uint32_t x, uint64_t *state) {
  const tern__ir_value v = g->value[x];
  tern_word attr[1 + 2 * TERN_MAX_RANK] = {{.i = -1}};
  int64_t shape[TERN_MAX_RANK] = {0}, n = 1;
  switch (test_below(state, 4)) {
  case 0:
    for (int d = 0; d < v.rank; d++) n *= v.shape[d];
    return add_op(g, "reshape", &x, 1, NULL, 0, (tern_dtype)v.dtype, 1, &n);
  case 1:
    for (int d = 0; d < v.rank; d++) {
      attr[d].i = (d + 1) % v.rank;
      shape[d] = v.shape[attr[d].i];
    }
    return add_op(g, "permute", &x, 1, attr, v.rank, (tern_dtype)v.dtype, v.rank, shape);
  case 2:
    for (int d = 0; d < v.rank; d++) {
      const bool down = test_below(state, 2) && v.shape[d];
      attr[1 + 2 * d].i = down ? v.shape[d] - 1 : 0;
      attr[2 + 2 * d].i = down ? -1 : 1;
      shape[d] = v.shape[d] - (v.shape[d] > 1 ? test_below(state, 2) : 0);
    }
    return add_op(g, "slice", &x, 1, attr, 1 + 2u * v.rank, (tern_dtype)v.dtype, v.rank, shape);
  default:
    if (v.rank == TERN_MAX_RANK) return x;
    shape[0] = 1 + test_below(state, 3);
    memcpy(shape + 1, v.shape, v.rank * sizeof *shape);
    return add_op(g, "expand", &x, 1, NULL, 0, (tern_dtype)v.dtype, v.rank + 1, shape);
  }
}

static uint32_t random_node(tern__graph *g, uint64_t *state) {
  static const char *const unary[] = {"neg", "exp", "square", "abs", "tanh", "isnan", "relu", "logical_not"};
  static const char *const binary[] = {"add", "mul", "maximum", "less", "equal", "sub"};
  static const char *const reduce[] = {"sum", "max", "mean", "argmax", "any", "var"};
  const uint32_t x = random_value(g, state), y = random_value(g, state);
  const int rank = g->value[x].rank;
  switch (test_below(state, 6)) {
  case 0: return add_inferred(g, unary[test_below(state, 8)], &x, 1, NULL, 0);
  case 1: return add_inferred(g, binary[test_below(state, 6)], (uint32_t[]){x, y}, 2, NULL, 0);
  case 2: {
    const uint32_t s = test_below(state, 2) ? add_scalar(g, test_uniform(state, -9, 9) * 1e-3)
                                            : add_scalar_int(g, test_below(state, 100) - 50);
    return add_inferred(g, binary[test_below(state, 6)], (uint32_t[]){x, s}, 2, NULL, 0);
  }
  case 3: {
    const tern_word attr[] = {
        {.u = (uint64_t)test_below(state, 1 << rank)}, {.u = (uint64_t)test_below(state, 2)}, {.u = 0}, {.f = 0}};
    return add_inferred(g, reduce[test_below(state, 6)], &x, 1, attr, 4);
  }
  case 4:
    return rank < 2 || g->value[y].rank < 2 ? TERN__IR_NONE : add_inferred(g, "matmul", (uint32_t[]){x, y}, 2, NULL, 0);
  default: return random_view(g, x, state);
  }
}

tern__graph *sample_random(uint64_t seed, int n) {
  static const tern_dtype dtypes[] = {TERN_F32, TERN_F64, TERN_F16, TERN_BF16, TERN_I32, TERN_U8, TERN_BOOL, TERN_I64};
  TERN_SCOPE;
  uint64_t state = seed;
  tern__graph *g = tern__graph_new("random");
  for (int i = 0; i < 4; i++) {
    const int rank = i ? (int)test_below(&state, 4) : 2;
    int64_t shape[4];
    for (int d = 0; d < rank; d++) shape[d] = 1 + test_below(&state, 3);
    const tern_dtype dtype = dtypes[test_below(&state, 8)];
    if (i % 2) {
      double values[64];
      for (int k = 0; k < 64; k++) values[k] = test_uniform(&state, 0, 2) * (k % 5 ? 1 : 1e-9);
      add_const(g, test_tensor(tern_shape_of(rank, shape), dtype, values));
    } else {
      add_input(g, dtype, rank, shape);
    }
  }
  for (int i = 0; i < n; i++) {
    const uint32_t v = random_node(g, &state);
    if (v != TERN__IR_NONE && test_below(&state, 8) == 0)
      set_name(g, v, i % 3 ? "same" : (char[]){'v', (char)('a' + i % 26), 0});
  }
  char *used = calloc(g->n_values, 1);
  for (uint32_t i = 0; i < g->n_nodes; i++)
    for (uint32_t k = 0; k < g->node[i].n_in; k++) used[g->node[i].in[k]] = 1;
  for (uint32_t v = 0; v < g->n_values; v++)
    if (!used[v]) tern__graph_add_output(g, v);
  free(used);
  return g;
}

char *text_of(const tern__graph *g, int constants) {
  char *text = tern__graph_text(g, constants);
  CHECK(text, "no text: %s", tern_error());
  return text ? text : strdup("");
}

tern__graph *parse(const char *text) { return tern__graph_parse(text, strlen(text)); }
