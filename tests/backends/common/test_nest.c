/* The loop-nest analysis: regions interpreted through their nests, element by element with rows in a shuffled order,
   must give the same bits as the reference evaluator. Well-known composites first, then thousands of random regions. */
#include <CUnit/Basic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../../backends/common/eval.h"
#include "../../../backends/common/nest.h"
#include "regions.h"

/* ---- a plain interpreter of a plan ---- */

typedef struct machine {
  const nest_plan *plan;
  const nest *t;
  const tern_word *words;
  void **args;
  unsigned char *ws;
  uint64_t *ws_offset;
  tern_word *cell;     /* by value */
  tern_word **scratch; /* by slot */
  struct acc {
    long double f;
    tern_word w;
    int64_t at;
    bool any;
  } * acc; /* by node */
  int64_t index[TERN_MAX_RANK], red_index;
} machine;

static int64_t size_of(const machine *m, uint32_t d) { return TERN_LIT(m->t->size[d], m->words); }

static void *place(const machine *m, uint32_t value, uint32_t to, uint32_t mem, int64_t *element) {
  nest_addr a;
  nest_layout(m->plan, value, to, m->words, &a);
  *element = a.offset;
  for (uint32_t d = 0; d < m->plan->region->values[value].rank; d++) *element += a.stride[d] * m->index[d];
  return to == NEST_ARG ? m->args[mem] : m->ws + m->ws_offset[mem];
}

static nest_store store_of_out(const machine *m, uint32_t out) {
  for (uint32_t p = 0; p < m->t->n_pass; p++)
    for (uint32_t k = 0; k < m->t->pass[p].n_store; k++)
      if (m->t->pass[p].store[k].value == out) return m->t->pass[p].store[k];
  CU_FAIL("a holder that is never stored");
  return (nest_store){0};
}

static tern_word operand(machine *m, uint32_t v, uint32_t pass) {
  const nest_val *n = nest_find(m->t, v);
  const uint32_t dtype = m->plan->region->values[v].dtype;
  int64_t at;
  if (n->src == NEST_IMM) {
    const tern_value *val = &m->plan->region->values[v];
    const tern_word w = nest_imm(m->plan->region, v, m->words);
    return val->kind == TERN_V_SIZE && val->dtype < TERN_F16 ? eval_cast(TERN_I64, dtype, w) : eval_fit(dtype, w);
  }
  if (n->src != NEST_NODE) {
    const void *base = place(m, v, n->src, n->mem, &at);
    return eval_load(base, at, dtype);
  }
  if (n->level != NEST_FULL || n->keep == NEST_KEEP_NO || pass <= n->kept_at) return m->cell[v];
  if (n->keep == NEST_KEEP_SCRATCH) return m->scratch[n->holder][m->red_index];
  const nest_store s = store_of_out(m, n->holder);
  const void *base = place(m, n->holder, s.to, s.mem, &at);
  return eval_load(base, at, dtype);
}

static void fold(machine *m, uint32_t node, tern_word x, uint32_t dtype) {
  struct acc *a = &m->acc[node];
  const uint32_t op = m->plan->region->nodes[node].op;
  const bool real = dtype >= TERN_F16, min = op == TERN_OP_AMIN || op == TERN_OP_ARGMIN;
  if (op == TERN_OP_SUM) {
    if (real)
      a->f += x.f;
    else
      a->w.u += x.u;
  } else if (op == TERN_OP_ANY)
    a->w.u |= x.u;
  else if (op == TERN_OP_ALL)
    a->w.u = a->any ? a->w.u & x.u : x.u;
  else {
    const bool was_nan = a->any && real && a->w.f != a->w.f, is_nan = real && x.f != x.f;
    const bool better =
        a->any && eval_map(TERN_OP_LT, dtype, TERN_BOOL, min ? (tern_word[]){x, a->w} : (tern_word[]){a->w, x}).u;
    if (!a->any || (!was_nan && (is_nan || better))) {
      a->w = x;
      a->at = m->red_index;
    }
  }
  a->any = true;
}

static void compute(machine *m, uint32_t node, uint32_t pass) {
  const tern_region *r = m->plan->region;
  const tern_node *n = &r->nodes[node];
  const uint32_t out = nest_out(r, node);
  tern_word x[3];
  for (uint32_t k = 0; k < n->n_in; k++) x[k] = operand(m, nest_in(r, node, k), pass);
  const uint32_t dtype = n->n_in ? r->values[nest_in(r, node, n->op == TERN_OP_WHERE)].dtype : 0;
  if (nest_prim_of(n->op)->kind == TERN_K_REDUCE) {
    fold(m, node, x[0], dtype);
    return;
  }
  int64_t l = 0;
  for (uint32_t d = 0; d < r->values[out].rank; d++) {
    const int64_t size = TERN_LIT(r->values[out].shape[d], m->words);
    l = l * size + (size == 1 ? 0 : m->index[d]);
  }
  if (n->op == TERN_OP_RNG)
    m->cell[out].u = eval_rng(x[0].u, x[1].u, (uint32_t)nest_attr(r, node, 0), (uint64_t)l);
  else if (n->op == TERN_OP_IOTA) {
    const int64_t d = nest_attr(r, node, 0);
    m->cell[out] =
        eval_cast(TERN_I64, r->values[out].dtype, (tern_word){.i = r->values[out].shape[d] == 1 ? 0 : m->index[d]});
  } else
    m->cell[out] = eval_map(n->op, dtype, r->values[out].dtype, x);
}

static void store(machine *m, const nest_store *s) {
  int64_t at;
  void *base = place(m, s->value, s->to, s->mem, &at);
  const nest_val *n = nest_find(m->t, s->value);
  const tern_word w = n->src == NEST_NODE ? m->cell[s->value] : operand(m, s->value, 0);
  eval_store(base, at, m->plan->region->values[s->value].dtype, w);
}

static void keep(machine *m, uint32_t v) {
  const nest_val *n = nest_find(m->t, v);
  if (n->keep == NEST_KEEP_SCRATCH) {
    m->scratch[n->holder][m->red_index] = m->cell[v];
    return;
  }
  int64_t at;
  const nest_store s = store_of_out(m, n->holder);
  void *base = place(m, n->holder, s.to, s.mem, &at);
  eval_store(base, at, m->plan->region->values[v].dtype, m->cell[v]);
}

static void run_phase(machine *m, uint32_t p) {
  const nest_phase *ph = &m->t->phase[p];
  for (uint32_t k = 0; k < ph->n_node; k++) compute(m, ph->node[k], p);
  for (uint32_t k = 0; k < ph->n_store; k++) store(m, &ph->store[k]);
}

static void end_pass(machine *m, uint32_t p) {
  const tern_region *r = m->plan->region;
  for (uint32_t k = 0; k < m->t->pass[p].n_step; k++) {
    const uint32_t node = m->t->pass[p].step[k], op = r->nodes[node].op;
    if (nest_prim_of(op)->kind != TERN_K_REDUCE) continue;
    const struct acc *a = &m->acc[node];
    const uint32_t dtype = r->values[nest_out(r, node)].dtype;
    tern_word w = a->w;
    if (op == TERN_OP_ARGMAX || op == TERN_OP_ARGMIN)
      w.i = a->at;
    else if (op == TERN_OP_SUM && dtype >= TERN_F16)
      w.f = (double)a->f;
    m->cell[nest_out(r, node)] = eval_fit(dtype, w);
  }
}

static void run_row(machine *m, int64_t n_red) {
  memset(m->acc, 0, m->plan->region->n_nodes * sizeof *m->acc);
  for (uint32_t d = 0; d < m->t->rank; d++)
    if (m->t->red >> d & 1) m->index[d] = 0;
  for (uint32_t p = 0; p < m->t->n_pass; p++) {
    run_phase(m, p);
    for (m->red_index = 0; m->red_index < n_red; m->red_index++) {
      int64_t l = m->red_index;
      for (uint32_t d = m->t->rank; d-- > 0;)
        if (m->t->red >> d & 1) {
          m->index[d] = l % size_of(m, d);
          l /= size_of(m, d);
        }
      for (uint32_t k = 0; k < m->t->pass[p].n_step; k++) compute(m, m->t->pass[p].step[k], p);
      for (uint32_t k = 0; k < m->t->pass[p].n_keep; k++) keep(m, m->t->pass[p].keep[k]);
      for (uint32_t k = 0; k < m->t->pass[p].n_store; k++) store(m, &m->t->pass[p].store[k]);
    }
    for (uint32_t d = 0; d < m->t->rank; d++)
      if (m->t->red >> d & 1) m->index[d] = 0;
    m->red_index = 0;
    end_pass(m, p);
  }
  run_phase(m, m->t->n_pass);
}

static void run_nest(machine *m) {
  int64_t n_red = 1, rows = 1;
  for (uint32_t d = 0; d < m->t->rank; d++) *(m->t->red >> d & 1 ? &n_red : &rows) *= size_of(m, d);
  m->scratch = calloc(m->t->n_scratch + 1u, sizeof *m->scratch);
  for (uint32_t k = 0; k < m->t->n_scratch; k++) m->scratch[k] = calloc((size_t)n_red, sizeof **m->scratch);
  for (uint32_t k = 0; k < m->t->n_scalar; k++) compute(m, m->t->scalar[k], 0);
  const int64_t step = rows > 2 && rows % 7 ? 7 : 1; /* rows in an unusual order */
  for (int64_t i = 0; i < rows; i++) {
    int64_t l = rows - 1 - i * step % rows;
    for (uint32_t d = m->t->rank; d-- > 0;)
      if (!(m->t->red >> d & 1)) {
        m->index[d] = l % size_of(m, d);
        l /= size_of(m, d);
      }
    run_row(m, n_red);
  }
  for (uint32_t k = 0; k < m->t->n_scratch; k++) free(m->scratch[k]);
  free(m->scratch);
}

static void run_plan(const nest_plan *plan, const tern_word *words, void **args) {
  machine m = {.plan = plan, .words = words, .args = args};
  m.ws_offset = calloc(plan->n_ws + 1u, sizeof *m.ws_offset);
  const uint64_t bytes = nest_workspace(plan, words, m.ws_offset);
  m.ws = malloc(bytes + 1);
  memset(m.ws, 0x5a, bytes + 1);
  m.cell = calloc(plan->region->n_values, sizeof *m.cell);
  m.acc = calloc(plan->region->n_nodes, sizeof *m.acc);
  for (uint32_t wave = 0; wave < plan->n_waves; wave++)
    for (uint32_t j = plan->n_nests; j-- > 0;) { /* within a wave, the last first */
      if (plan->nests[j].wave != wave) continue;
      for (uint32_t k = 0; k < plan->nests[j].n_dep; k++) CU_ASSERT(plan->nests[plan->nests[j].dep[k]].wave < wave);
      m.t = &plan->nests[j];
      run_nest(&m);
    }
  free(m.acc);
  free(m.cell);
  free(m.ws);
  free(m.ws_offset);
}

/* ---- the comparison ---- */

static unsigned long total_nests, total_deferred, total_kept, total_scratch, total_passes;

static void count(const nest_plan *plan) {
  total_nests += plan->n_nests;
  total_deferred += plan->n_deferred;
  for (uint32_t j = 0; j < plan->n_nests; j++) {
    total_passes += plan->nests[j].n_pass;
    for (uint32_t k = 0; k < plan->nests[j].n_val; k++) {
      total_kept += plan->nests[j].val[k].keep == NEST_KEEP_OUT;
      total_scratch += plan->nests[j].val[k].keep == NEST_KEEP_SCRATCH;
    }
  }
}

static bool same_memory(const region_builder *b, unsigned char **got, unsigned char **want) {
  for (uint32_t i = 0; i < b->region.n_args; i++) {
    const size_t item = nest_item_size(b->args[i].dtype);
    if (!got[i]) continue;
    if (!memcmp(got[i], want[i], (size_t)b->args[i].count * item)) continue;
    size_t k = 0;
    while (!memcmp(got[i] + k * item, want[i] + k * item, item)) k++;
    const tern_word g = eval_load(got[i], (int64_t)k, b->args[i].dtype),
                    w = eval_load(want[i], (int64_t)k, b->args[i].dtype);
    const bool real = b->args[i].dtype >= TERN_F16;
    fprintf(stderr, "%s: argument %u differs at element %zu of %lld: %g, wanted %g\n", b->name, i, k,
            (long long)b->args[i].count, real ? g.f : (double)g.i, real ? w.f : (double)w.i);
    return false;
  }
  return true;
}

static bool check(const region_builder *b, uint32_t flags) {
  unsigned char *got[RB_MAX_ARGS] = {0}, *want[RB_MAX_ARGS] = {0};
  void *got_args[RB_MAX_ARGS], *want_args[RB_MAX_ARGS];
  char message[256];
  bool ok = rb_copy_args(b, got, got_args) && rb_copy_args(b, want, want_args);
  nest_plan *plan = NULL;
  if (ok && tern_eval(&b->region, want_args, b->words, message, sizeof message)) {
    fprintf(stderr, "%s: evaluator: %s\n", b->name, message);
    ok = false;
  }
  if (ok) {
    const tern_rc rc = nest_build(&b->region, flags, &plan, message, sizeof message);
    if (rc) {
      fprintf(stderr, "%s: %s\n", b->name, message);
      ok = false;
    }
  }
  if (ok) {
    count(plan);
    run_plan(plan, b->words, got_args);
    ok = same_memory(b, got, want);
  }
  nest_free(plan);
  for (uint32_t i = 0; i < RB_MAX_ARGS; i++) {
    free(got[i]);
    free(want[i]);
  }
  return ok;
}

static void test_known(void) {
  static const uint32_t dtypes[] = {TERN_F32, TERN_F64, TERN_F16, TERN_BF16};
  region_builder *b = malloc(sizeof *b);
  for (unsigned k = 0; k < 4; k++)
    for (unsigned i = 0; rb_known(b, i, dtypes[k], false); i++) {
      CU_ASSERT(check(b, 0));
      CU_ASSERT(check(b, NEST_NO_KEEP));
      rb_free(b);
      rb_known(b, i, dtypes[k], true);
      CU_ASSERT(check(b, 0));
      CU_ASSERT(check(b, NEST_NO_SCRATCH));
      rb_free(b);
    }
  free(b);
}

static void test_shapes_of_plans(void) {
  static const struct {
    unsigned known;
    uint32_t nests, passes;
  } want[] = {{0, 1, 3}, {1, 1, 3}, {4, 1, 3}, {5, 1, 3}, {8, 1, 1}, {9, 1, 2}, {10, 2, 1}, {11, 2, 2}};
  region_builder *b = malloc(sizeof *b);
  for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
    rb_known(b, want[i].known, TERN_F32, true);
    nest_plan *plan = NULL;
    CU_ASSERT_FATAL(nest_build(&b->region, 0, &plan, NULL, 0) == TERN_OK);
    CU_ASSERT_EQUAL(plan->n_nests, want[i].nests);
    CU_ASSERT_EQUAL(plan->nests[0].n_pass, want[i].passes);
    CU_ASSERT_EQUAL(plan->n_deferred, 0);
    nest_free(plan);
    rb_free(b);
  }
  free(b);
}

static void test_random(void) {
  region_builder *b = malloc(sizeof *b);
  unsigned wrong = 0;
  const char *n = getenv("TERN_TEST_REGIONS"), *first = getenv("TERN_TEST_FIRST");
  const unsigned from = first ? (unsigned)atoi(first) : 1, many = n ? (unsigned)atoi(n) : 6000;
  for (unsigned seed = from; seed < from + many; seed++) {
    rb_random_region(b, seed, false);
    const bool ok = check(b, seed % 3 == 0 ? NEST_NO_SCRATCH : seed % 7 == 0 ? NEST_NO_KEEP : 0);
    wrong += !ok;
    rb_free(b);
    if (wrong > 10) break;
  }
  CU_ASSERT_EQUAL(wrong, 0);
  printf(" %u random regions; all: %lu nests, %lu passes, %lu values kept in outputs, %lu in scratch, %lu outputs "
         "deferred;",
         many, total_nests, total_passes, total_kept, total_scratch, total_deferred);
  free(b);
}

static void test_refusals(void) {
  region_builder *b = malloc(sizeof *b);
  char message[256];
  nest_plan *plan = NULL;
  rb_init(b, "bad", 1);
  const int64_t shape[2] = {3, 4};
  const uint32_t x = rb_in(b, TERN_F32, 2, shape, RB_DENSE), y = rb_map(b, TERN_OP_EXP, x, RB_NONE, RB_NONE);
  rb_out(b, y);
  memcpy(b->values[y].stride, b->values[x].stride, sizeof b->values[y].stride);
  CU_ASSERT(nest_can_alias(&b->region, y, b->values[x].slot));
  b->nodes[0].op = TERN_OP_ADD;
  CU_ASSERT_EQUAL(nest_build(&b->region, 0, &plan, message, sizeof message), TERN_E_ARG);
  CU_ASSERT_PTR_NOT_NULL(strstr(message, "ADD"));
  b->nodes[0].op = TERN_OP_CUMSUM;
  CU_ASSERT(nest_build(&b->region, 0, &plan, message, sizeof message) != TERN_OK);
  b->nodes[0].op = 9999;
  CU_ASSERT_EQUAL(nest_build(&b->region, 0, &plan, message, sizeof message), TERN_E_UNSUPPORTED);
  b->nodes[0].op = TERN_OP_AND;
  CU_ASSERT(nest_build(&b->region, 0, &plan, message, sizeof message) != TERN_OK);
  b->nodes[0].op = TERN_OP_EXP;
  b->values[y].shape[1] = 5;
  CU_ASSERT_EQUAL(nest_build(&b->region, 0, &plan, message, sizeof message), TERN_E_ARG);
  CU_ASSERT_PTR_NULL(plan);
  rb_free(b);
  free(b);
}

int main(void) {
  if (CU_initialize_registry()) return 1;
  CU_pSuite s = CU_add_suite("nest", NULL, NULL);
  CU_add_test(s, "known composites", test_known);
  CU_add_test(s, "shapes of plans", test_shapes_of_plans);
  CU_add_test(s, "refusals", test_refusals);
  CU_add_test(s, "random regions", test_random);
  CU_basic_set_mode(CU_BRM_NORMAL);
  CU_basic_run_tests();
  const unsigned failed = CU_get_number_of_failures();
  CU_cleanup_registry();
  return failed != 0;
}
