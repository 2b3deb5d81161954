/* Packed layouts in the CPU backend: what compile asks for, the copies into and out of such layouts, and products on
   packed arrays, against the reference evaluator on the same arrays as they lie in the region. */
#include "../../../backends/cpu/dot_static.h"
#include "../../../backends/common/eval.h"
#include "../../../backends/cpu/dot_fuse.h"
#include "../common/regions.h"
#include <CUnit/Basic.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char message[512];
tern_rc cpu_error(tern_rc code, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(message, sizeof message, fmt, ap);
  va_end(ap);
  return code;
}

static uint32_t add_product(region_builder *b, uint32_t op, uint32_t x, uint32_t y, uint32_t rank, const int64_t *shape,
                            const int64_t *attr, uint32_t n_attr) {
  tern_node *const n = &b->nodes[b->region.n_nodes++];
  *n = (tern_node){.op = op, .n_in = 2, .n_out = 1, .in = b->n_edges, .out = b->n_edges + 2, .attr = b->n_attrs};
  n->n_attr = n_attr;
  for (uint32_t i = 0; i < n_attr; i++) b->attrs[b->n_attrs++].i = attr[i];
  const uint32_t v = b->region.n_values++;
  b->edges[b->n_edges++] = x;
  b->edges[b->n_edges++] = y;
  b->edges[b->n_edges++] = v;
  b->values[v] = (tern_value){.kind = TERN_V_TEMP, .dtype = TERN_F32, .rank = (uint16_t)rank, .alias = -1};
  memcpy(b->values[v].shape, shape, rank * sizeof *shape);
  return v;
}

/* Static regions have literal strides */
static void make_literal(region_builder *b) {
  for (uint32_t v = 0; v < b->region.n_values; v++)
    for (uint32_t d = 0; d < b->values[v].rank; d++)
      b->values[v].stride[d] = TERN_LIT(b->values[v].stride[d], b->words);
}

/* ---- copies ---- */

static tern_kernel *compile_copy(const tern_value *like, uint64_t from, uint64_t to, tern_kernel_info *info) {
  static const uint32_t edges[2] = {0, 1};
  const tern_node node = {.op = TERN_OP_COPY, .n_in = 1, .n_out = 1, .in = 0, .out = 1};
  tern_value v[2] = {*like, *like};
  for (uint32_t i = 0; i < 2; i++) {
    v[i].kind = i ? TERN_V_OUT : TERN_V_IN, v[i].slot = i, v[i].alias = -1, v[i].layout = i ? to : from;
    if (!i) continue;
    int64_t next = 1; /* back into dense rows */
    for (uint32_t d = v[i].rank; d-- > 0; next *= v[i].shape[d]) v[i].stride[d] = v[i].shape[d] == 1 ? 0 : next;
  }
  const tern_region r = {
      .struct_size = sizeof r, .n_nodes = 1, .n_values = 2, .n_args = 2, .nodes = &node, .values = v, .edges = edges};
  tern_kernel *k = NULL;
  memset(info, 0, sizeof *info);
  CU_ASSERT_EQUAL_FATAL(cpu_static_supports(&r), TERN_OK);
  CU_ASSERT_EQUAL_FATAL(cpu_static_compile(&r, &k, info), TERN_OK);
  return k;
}

static void launch(const tern_kernel *k, const tern_kernel_info *info, void *const *at, uint32_t n,
                   const tern_word *words) {
  tern_arg args[RB_MAX_ARGS];
  for (uint32_t i = 0; i < n; i++) args[i] = (tern_arg){(tern_mem *)at[i], 0};
  const uint64_t bytes = info->workspace == UINT64_MAX ? k->workspace(k, words) : info->workspace;
  void *const ws = bytes ? aligned_alloc(64, (bytes + 63) & ~(uint64_t)63) : NULL;
  const tern_launch l = {.args = args, .words = words, .n_args = n, .workspace = {ws, 0}};
  CU_ASSERT_EQUAL(k->run(k, &l), TERN_OK);
  free(ws);
}

static void copy(const tern_value *like, uint64_t from, uint64_t to, void *src, void *dst) {
  tern_kernel_info info;
  tern_kernel *const k = compile_copy(like, from, to, &info);
  void *const at[2] = {src, dst};
  launch(k, &info, at, 2, NULL);
  k->destroy(k);
}

/* ---- a region, packed as the backend asks ---- */

static void *room(uint64_t bytes) {
  void *const p = aligned_alloc(64, (bytes + 63) & ~(uint64_t)63);
  CU_ASSERT_PTR_NOT_NULL_FATAL(p);
  memset(p, 0x5a, (bytes + 63) & ~(uint64_t)63);
  return p;
}

/* Layouts of arguments in `which` are set as asked for; returns how many (an IN of the OUT's shape gets its layout) */
static int apply(region_builder *b, const uint64_t *layout, const uint64_t *bytes, uint32_t which, uint64_t *size) {
  int n = 0;
  uint64_t out = 0, out_bytes = 0;
  const tern_value *y = NULL;
  for (uint32_t v = 0; v < b->region.n_values; v++) {
    tern_value *const x = &b->values[v];
    if ((x->kind != TERN_V_IN && x->kind != TERN_V_OUT) || !(which >> x->slot & 1) || !layout[x->slot]) continue;
    x->layout = layout[x->slot];
    size[x->slot] = bytes[x->slot];
    n++;
    if (x->kind == TERN_V_OUT) y = x, out = x->layout, out_bytes = bytes[x->slot];
  }
  for (uint32_t v = 0; out && v < b->region.n_values; v++) {
    tern_value *const x = &b->values[v];
    if (x->kind != TERN_V_IN || x->rank != y->rank || memcmp(x->shape, y->shape, y->rank * 8) || x->layout) continue;
    x->layout = out;
    size[x->slot] = out_bytes;
  }
  return n;
}

/* Runs the region with the arguments in `which` packed; -1: nothing was asked for, or this mixture is not supported;
   else the number of wrong elements of the OUT */
static int64_t check(region_builder *b, uint32_t which, double tol) {
  static unsigned char *want[RB_MAX_ARGS];
  void *want_at[RB_MAX_ARGS], *packed[RB_MAX_ARGS] = {NULL}, *at[RB_MAX_ARGS];
  uint64_t layout[RB_MAX_ARGS] = {0}, bytes[RB_MAX_ARGS] = {0}, size[RB_MAX_ARGS] = {0};
  tern_region *const r = &b->region;
  tern_kernel_info info = {.struct_size = sizeof info, .layout = layout, .layout_bytes = bytes};
  make_literal(b);
  cpu_static_ask(r, &info);
  if (!apply(b, layout, bytes, which, size)) return -1;
  const bool supported = cpu_fuse_supports(r) == TERN_OK || cpu_static_supports(r) == TERN_OK;
  if (!supported) return -1;
  CU_ASSERT_FATAL(rb_copy_args(b, want, want_at));
  uint32_t out = 0;
  for (uint32_t v = 0; v < r->n_values; v++) {
    tern_value *const x = &b->values[v];
    if (x->kind != TERN_V_IN && x->kind != TERN_V_OUT) continue;
    at[x->slot] = want_at[x->slot];
    if (x->kind == TERN_V_OUT) out = v;
    if (!x->layout) continue;
    at[x->slot] = packed[x->slot] = room(size[x->slot]);
    if (x->kind == TERN_V_IN) copy(x, 0, x->layout, want_at[x->slot], packed[x->slot]);
  }
  const tern_value *const y = &b->values[out];
  const int64_t n = rb_count(b, out);
  float *const got = room((uint64_t)n * 4);
  if (!y->layout) at[y->slot] = got;
  tern_kernel *k = NULL;
  tern_kernel_info info2 = {.struct_size = sizeof info2};
  CU_ASSERT_EQUAL_FATAL(r->n_nodes > 1 ? cpu_fuse_compile(r, &k, &info2) : cpu_static_compile(r, &k, &info2), TERN_OK);
  launch(k, &info2, at, r->n_args, b->words);
  launch(k, &info2, at, r->n_args, b->words);
  k->destroy(k);
  if (y->layout) copy(y, y->layout, 0, at[y->slot], got);
  for (uint32_t v = 0; v < r->n_values; v++) b->values[v].layout = 0;
  char why[256] = "";
  CU_ASSERT_EQUAL_FATAL(tern_eval(r, want_at, b->words, why, sizeof why), TERN_OK);
  int64_t bad = 0;
  const float *const expected = want_at[y->slot];
  for (int64_t i = 0; i < n; i++) bad += !(fabsf(got[i] - expected[i]) <= tol * (1 + fabsf(expected[i])));
  for (uint32_t i = 0; i < r->n_args; i++) free(want[i]), free(packed[i]);
  free(got);
  return bad;
}

/* ---- DOT ---- */

static void dot(region_builder *b, int64_t m, int64_t k, int64_t n, int batch, int steps) {
  rb_init(b, "dot", (uint64_t)(m + 7 * k + 31 * n));
  b->exact = true;
  const uint32_t rank = batch ? 3 : 2;
  const int64_t a[3] = {batch, m, k}, w[3] = {1, k, n}, o[3] = {batch, m, n}, bias[3] = {1, 1, n};
  const uint32_t s = 3 - rank;
  const uint32_t va = rb_in(b, TERN_F32, rank, a + s, RB_DENSE);
  const uint32_t vw = rb_in(b, TERN_F32, rank, w + s, steps & 4 ? RB_PERMUTED : RB_DENSE);
  uint32_t y = add_product(b, TERN_OP_DOT, va, vw, rank, o + s, NULL, 0);
  if (steps & 1) y = rb_map(b, TERN_OP_ADD, y, rb_in(b, TERN_F32, rank, bias + s, RB_DENSE), RB_NONE);
  if (steps & 2) y = rb_map(b, TERN_OP_MAXIMUM, y, rb_const(b, TERN_F32, 0), RB_NONE);
  rb_out(b, y);
}

static void test_dots(void) {
  static const int64_t sizes[][3] = {{128, 784, 512}, {128, 512, 512}, {17, 130, 70}, {64, 64, 64}, {5, 100, 333}};
  region_builder *const b = malloc(sizeof *b);
  int ran = 0;
  for (int t = 0; t < 40; t++) {
    const int64_t *const z = sizes[t % 5];
    dot(b, z[0], z[1], z[2], t >= 32 ? 3 : 0, t / 5 % 8);
    const int64_t bad = check(b, ~0u, 1e-6);
    CU_ASSERT(bad <= 0);
    ran += bad >= 0;
    rb_free(b);
  }
  printf(" %d of 40 packed ", ran);
  free(b);
}

/* ---- CONV ---- */

struct conv {
  int64_t n, c, o, in, taps, stride, pad, groups;
};

static void conv(region_builder *b, const struct conv *z, uint32_t op, int steps) {
  const int64_t out = (z->in + 2 * z->pad - z->taps) / z->stride + 1;
  int64_t x[4] = {z->n, z->c, z->in, z->in}, w[4] = {z->o, z->c / z->groups, z->taps, z->taps},
          y[4] = {z->n, z->o, out, out};
  const int64_t attr[8] = {2, z->groups, z->stride, 1, z->pad, z->stride, 1, z->pad};
  int64_t *const from[3][2] = {{x, w}, {y, w}, {x, y}}, *const to[3] = {y, x, w};
  const uint32_t i = op - TERN_OP_CONV;
  rb_init(b, "conv", (uint64_t)(z->n + 7 * z->c + 31 * z->o + steps));
  b->exact = true;
  const uint32_t p = rb_in(b, TERN_F32, 4, from[i][0], RB_DENSE), q = rb_in(b, TERN_F32, 4, from[i][1], RB_DENSE);
  uint32_t v = add_product(b, op, p, q, 4, to[i], attr, 8);
  const int64_t bias[4] = {1, to[i][1], 1, 1};
  if (steps & 1) v = rb_map(b, TERN_OP_ADD, rb_in(b, TERN_F32, 4, bias, RB_DENSE), v, RB_NONE);
  if (steps & 2) v = rb_map(b, TERN_OP_MAXIMUM, v, rb_const(b, TERN_F32, 0), RB_NONE);
  if (steps & 4) v = rb_map(b, TERN_OP_ADD, v, rb_in(b, TERN_F32, 4, to[i], RB_DENSE), RB_NONE);
  if (steps & 8) v = rb_map(b, TERN_OP_MUL, v, rb_param(b, TERN_F32, 3), RB_NONE);
  rb_out(b, v);
}

static void test_convs(void) {
  static const struct conv sizes[] = {{4, 32, 64, 13, 3, 1, 0, 1}, {3, 1, 32, 14, 3, 1, 1, 1},
                                      {2, 16, 16, 9, 3, 2, 1, 1},  {2, 64, 32, 8, 1, 1, 0, 1},
                                      {2, 32, 32, 10, 3, 1, 1, 2}, {2, 5, 7, 9, 3, 1, 1, 1}};
  region_builder *const b = malloc(sizeof *b);
  int ran = 0, all = 0;
  for (int t = 0; t < 6; t++)
    for (uint32_t op = TERN_OP_CONV; op <= TERN_OP_CONV_DW; op++)
      for (int steps = 0; steps < 16; steps++) {
        if (op != TERN_OP_CONV && (steps & 1)) continue;
        conv(b, &sizes[t], op, steps);
        const int64_t bad = check(b, steps % 3 ? ~0u : 2, 1e-5); /* all that is asked for, or input 1 alone */
        if (bad > 0) printf("\n  conv %d op %u steps %d: %lld wrong", t, op, steps, (long long)bad);
        CU_ASSERT(bad <= 0);
        ran += bad >= 0, all++;
        rb_free(b);
      }
  printf(" %d of %d packed ", ran, all);
#if TERN_CPU_ONEDNN
  CU_ASSERT(ran > 0);
#else
  printf("(skipped: this build has no oneDNN, which packs) ");
#endif
  free(b);
}

/* ---- tokens ---- */

static void test_tokens(void) {
  region_builder *const b = malloc(sizeof *b);
  uint64_t layout[2][RB_MAX_ARGS] = {{0}}, bytes[RB_MAX_ARGS] = {0};
  const struct conv z = {4, 32, 64, 13, 3, 1, 0, 1};
  for (int i = 0; i < 2; i++) {
    conv(b, &z, TERN_OP_CONV, 3);
    make_literal(b);
    tern_kernel_info info = {.struct_size = sizeof info, .layout = layout[i], .layout_bytes = bytes};
    cpu_static_ask(&b->region, &info);
    rb_free(b);
  }
  CU_ASSERT_EQUAL(memcmp(layout[0], layout[1], sizeof layout[0]), 0); /* one array, one token */
  conv(b, &z, TERN_OP_CONV, 0);
  make_literal(b);
  for (uint64_t bad = 1; bad < 4; bad++) { /* unknown ones, and one of another shape */
    b->values[1].layout = bad == 3 ? layout[0][0] : bad;
    if (!b->values[1].layout) continue;
    CU_ASSERT_EQUAL(cpu_static_supports(&b->region), TERN_E_UNSUPPORTED);
  }
  CU_ASSERT_EQUAL(cpu_static_elements(12345), 0);
  rb_free(b);
  free(b);
}

/* One kernel in more threads than it has contexts */
struct shared {
  const tern_kernel *k;
  const tern_launch *l;
  float *out;
  int64_t n, bad;
};
static void *many(void *p) {
  struct shared *const s = p;
  tern_arg args[8];
  for (uint32_t i = 0; i < s->l->n_args; i++) args[i] = s->l->args[i];
  float *const own = room((uint64_t)s->n * 4), *const ws = room(1 << 22);
  args[2] = (tern_arg){(tern_mem *)own, 0};
  tern_launch l = *s->l;
  l.args = args;
  l.workspace = (tern_arg){(tern_mem *)ws, 0};
  for (int t = 0; t < 20; t++) {
    s->bad += s->k->run(s->k, &l) != TERN_OK;
    for (int64_t i = 0; i < s->n; i++) s->bad += own[i] != s->out[i];
  }
  free(own), free(ws);
  return NULL;
}

static void test_threads(void) {
  region_builder *const b = malloc(sizeof *b);
  uint64_t layout[RB_MAX_ARGS] = {0}, bytes[RB_MAX_ARGS] = {0};
  static unsigned char *st[RB_MAX_ARGS];
  void *at[RB_MAX_ARGS];
  dot(b, 32, 128, 96, 0, 0);
  make_literal(b);
  tern_kernel_info info = {.struct_size = sizeof info, .layout = layout, .layout_bytes = bytes};
  cpu_static_ask(&b->region, &info);
  if (layout[1]) {
    CU_ASSERT_FATAL(rb_copy_args(b, st, at));
    void *const w = room(bytes[1]);
    copy(&b->values[1], 0, layout[1], at[1], w);
    b->values[1].layout = layout[1];
    tern_kernel *k = NULL;
    CU_ASSERT_EQUAL_FATAL(cpu_static_compile(&b->region, &k, &info), TERN_OK);
    CU_ASSERT_FATAL(info.workspace <= 1 << 22);
    void *const ws = room(1 << 22);
    const tern_arg args[3] = {{at[0], 0}, {w, 0}, {at[2], 0}};
    const tern_launch l = {.args = args, .n_args = 3, .words = b->words, .workspace = {ws, 0}};
    CU_ASSERT_EQUAL(k->run(k, &l), TERN_OK);
    pthread_t thread[8];
    struct shared s[8];
    for (int t = 0; t < 8; t++) {
      s[t] = (struct shared){k, &l, at[2], 32 * 96, 0};
      CU_ASSERT_EQUAL_FATAL(pthread_create(&thread[t], NULL, many, &s[t]), 0);
    }
    for (int t = 0; t < 8; t++) {
      pthread_join(thread[t], NULL);
      CU_ASSERT_EQUAL(s[t].bad, 0);
    }
    k->destroy(k);
    free(w), free(ws);
    for (uint32_t i = 0; i < 3; i++) free(st[i]);
  }
  rb_free(b);
  free(b);
}

int main(void) {
  if (CU_initialize_registry() != CUE_SUCCESS) return 1;
  CU_pSuite s = CU_add_suite("cpu packed layouts", NULL, NULL);
  CU_add_test(s, "DOT with packed weights", test_dots);
  CU_add_test(s, "CONV, CONV_DX, CONV_DW", test_convs);
  CU_add_test(s, "tokens", test_tokens);
  CU_add_test(s, "one kernel in many threads", test_threads);
  CU_basic_set_mode(CU_BRM_VERBOSE);
  CU_basic_run_tests();
  const unsigned failed = CU_get_number_of_failures();
  CU_cleanup_registry();
  return failed != 0;
}
