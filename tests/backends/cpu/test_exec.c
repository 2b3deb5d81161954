/* The CPU region executor against the reference evaluator: random regions on whole numbers, where every operation is
   exact, so that results must agree bit for bit; then softmax, layer_norm and long sums with tolerances. Links the
   backend's objects. */
#include "../../../backends/common/eval.h"
#include "../../../backends/common/nest.h"
#include "../../../backends/cpu/cpu.h"
#include "../../../backends/cpu/exec_small.h"
#include <CUnit/Basic.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The plugin's host services, which these tests stand in for */
tern_rc cpu_error(tern_rc code, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  vprintf(fmt, ap);
  va_end(ap);
  printf("\n");
  return code;
}

enum { MAX_VALUES = 64, MAX_NODES = 40, MAX_ARGS = 24, MAX_WORDS = 256 };

typedef struct gen {
  uint64_t seed;
  bool special; /* NaNs and infinities among the data */
  uint32_t rank, n_values, n_nodes, n_edges, n_attrs, n_args, n_words;
  int64_t size[TERN_MAX_RANK]; /* of the space */
  bool literal[TERN_MAX_RANK];
  tern_value value[MAX_VALUES];
  uint32_t dims[MAX_VALUES]; /* bit d: the value has dim d, else a literal 1 */
  double bound[MAX_VALUES];  /* largest magnitude */
  tern_node node[MAX_NODES];
  uint32_t edge[6 * MAX_NODES];
  tern_word attr[2 * MAX_NODES], word[MAX_WORDS];
  size_t arg_bytes[MAX_ARGS], arg_offset[MAX_ARGS]; /* offset: of element 0, in bytes */
  uint32_t arg_value[MAX_ARGS];
  int32_t arg_alias[MAX_ARGS];
} gen;

static uint32_t rnd(gen *g, uint32_t n) {
  g->seed = g->seed * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(g->seed >> 33) % n;
}

static int64_t word(gen *g, int64_t x) {
  g->word[g->n_words].i = x;
  return TERN_SYM(g->n_words++);
}

static bool is_float(uint32_t dtype) { return TERN_D_FLOAT >> dtype & 1; }

/* Largest whole number up to which dtype is exact; integers wrap, which is exact too */
static double exact(uint32_t dtype) {
  switch (dtype) {
  case TERN_F16: return 2048;
  case TERN_BF16: return 256;
  case TERN_F32: return 1 << 24;
  default: return 1e15;
  }
}

static bool short_runs; /* which spaces choose_space takes */

/* Large, with an innermost dim of few elements, and small dims before it that may be reduced: a pooling's gradient */
static void choose_runs(gen *g) {
  static const int64_t last[] = {2, 3, 5, 7, 16, 17, 31, 32, 33, 48, 64, 65, 100, 130, 255, 256, 300};
  static const int64_t before[] = {2, 3, 14, 7, 2, 5, 1, 15, 4};
  int64_t total = last[rnd(g, sizeof last / sizeof *last)], from_back[TERN_MAX_RANK] = {total};
  for (g->rank = 1; g->rank < 6 && total < 6000; g->rank++)
    total *= from_back[g->rank] = before[rnd(g, sizeof before / sizeof *before)];
  from_back[g->rank++] = 20000 / total + 1 + rnd(g, 9);
  for (uint32_t d = 0; d < g->rank; d++) {
    g->size[d] = from_back[g->rank - 1 - d];
    g->literal[d] = rnd(g, 4) == 0;
  }
}

static void choose_space(gen *g) {
  static const int64_t big[][3] = {{3, 5000, 1},   {5000, 3, 1},   {200, 300, 1},  {40, 2, 130},
                                   {2, 200000, 1}, {150000, 2, 1}, {130000, 1, 1}, {7, 300, 10},
                                   {257, 65, 1},   {2, 70000, 2},  {70, 33, 40}};
  const uint32_t kind = rnd(g, 8);
  g->rank = kind == 0 ? 5 + rnd(g, 4) : kind < 5 ? 1 + rnd(g, 4) : 3;
  const int64_t *const b = big[rnd(g, sizeof big / sizeof *big)];
  for (uint32_t d = 0; d < g->rank; d++) {
    g->size[d] = kind == 0 ? 1 + rnd(g, 4) : kind < 5 ? 1 + rnd(g, d & 1 ? 70 : 12) : b[d];
    g->literal[d] = rnd(g, 4) == 0;
  }
  if (short_runs) choose_runs(g);
  for (uint32_t d = 0; d < TERN_MAX_RANK; d++) g->word[d].i = d < g->rank ? g->size[d] : 1;
  g->n_words = TERN_MAX_RANK;
}

static uint32_t new_value(gen *g, uint32_t kind, uint32_t dtype, uint32_t dims) {
  const uint32_t v = g->n_values++;
  tern_value *const x = &g->value[v];
  memset(x, 0, sizeof *x);
  x->kind = (uint8_t)kind;
  x->dtype = (uint16_t)dtype;
  x->alias = -1;
  x->rank = (uint16_t)g->rank;
  g->dims[v] = dims;
  int64_t step = 1;
  for (uint32_t d = g->rank; d-- > 0;) {
    const bool has = dims >> d & 1;
    x->shape[d] = !has ? 1 : g->literal[d] ? g->size[d] : TERN_SYM(d);
    x->stride[d] = has && g->size[d] > 1 ? step : 0;
    step *= has ? g->size[d] : 1;
  }
  return v;
}

/* Memory for value v: dims in random order, padded, some of them backwards; or plain row-major */
static void lay_out(gen *g, uint32_t v, bool plain) {
  tern_value *const x = &g->value[v];
  uint32_t order[TERN_MAX_RANK];
  int64_t step = 1, first = 0;
  for (uint32_t d = 0; d < g->rank; d++) order[d] = g->rank - 1 - d;
  for (uint32_t d = g->rank; !plain && d > 1; d--) {
    const uint32_t k = rnd(g, d), t = order[k];
    order[k] = order[d - 1];
    order[d - 1] = t;
  }
  if (!plain && rnd(g, 3) == 0) step = 2;
  for (uint32_t i = 0; i < g->rank; i++) {
    const uint32_t d = order[i];
    const int64_t size = g->dims[v] >> d & 1 ? g->size[d] : 1;
    int64_t stride = x->shape[d] == 1 ? 0 : step;
    if (!plain && rnd(g, 5) == 0) {
      first += (size - 1) * stride;
      stride = -stride;
    }
    step = step * size + (!plain && rnd(g, 3) == 0 ? (int64_t)rnd(g, 3) : 0);
    const bool inner = d == g->rank - 1 && (stride == 0 || stride == 1);
    x->stride[d] = inner || x->shape[d] == 1 || rnd(g, 3) == 0 ? stride : word(g, stride);
  }
  const uint32_t a = x->slot = g->n_args++;
  g->arg_value[a] = v;
  g->arg_alias[a] = -1;
  g->arg_offset[a] = (size_t)first * cpu_item_size(x->dtype);
  g->arg_bytes[a] = (size_t)(step + 1) * cpu_item_size(x->dtype);
}

static uint32_t add_node(gen *g, uint32_t op, uint32_t out, uint32_t n_in, const uint32_t *in, uint32_t n_attr,
                         int64_t attr) {
  tern_node *const n = &g->node[g->n_nodes++];
  *n = (tern_node){.op = op,
                   .n_in = n_in,
                   .n_out = 1,
                   .n_attr = n_attr,
                   .in = g->n_edges,
                   .out = g->n_edges + n_in,
                   .attr = g->n_attrs};
  for (uint32_t i = 0; i < n_in; i++) g->edge[g->n_edges++] = in[i];
  g->edge[g->n_edges++] = out;
  if (n_attr) g->attr[g->n_attrs++].i = attr;
  return out;
}

static uint32_t input(gen *g, uint32_t dtype) {
  const uint32_t dims = rnd(g, 3) ? (1u << g->rank) - 1 : rnd(g, 1u << g->rank);
  const uint32_t v = new_value(g, TERN_V_IN, dtype, dims);
  g->bound[v] = dtype == TERN_BOOL ? 1 : 8;
  lay_out(g, v, rnd(g, 2));
  return v;
}

/* A view of the same space over IN v with some dims backwards */
static uint32_t view(gen *g, uint32_t v) {
  const uint32_t w = new_value(g, TERN_V_VIEW, g->value[v].dtype, g->dims[v]);
  tern_value *const x = &g->value[w];
  const tern_value *const base = &g->value[v];
  x->slot = v;
  for (uint32_t d = 0; d < g->rank; d++) {
    int64_t stride = TERN_LIT(base->stride[d], g->word);
    if (x->shape[d] != 1 && rnd(g, 2)) {
      x->offset += (g->size[d] - 1) * stride;
      stride = -stride;
    }
    const bool inner = d == g->rank - 1 && (stride == 0 || stride == 1);
    x->stride[d] = inner || x->shape[d] == 1 ? stride : word(g, stride);
  }
  g->bound[w] = g->bound[v];
  return w;
}

static uint32_t scalar(gen *g, uint32_t dtype) {
  const bool param = rnd(g, 2);
  const uint32_t v = new_value(g, param ? TERN_V_PARAM : TERN_V_CONST, dtype, 0);
  tern_value *const x = &g->value[v];
  tern_word w = {.i = dtype == TERN_BOOL ? 1 : 3};
  if (is_float(dtype)) w.f = 3;
  x->rank = 0;
  x->imm = w;
  if (param) {
    x->slot = g->n_words;
    g->word[g->n_words++] = w;
  }
  g->bound[v] = 3;
  return v;
}

/* A value of dtype (and not above bound), old or new */
static uint32_t pick(gen *g, uint32_t dtype, double bound) {
  for (int tries = 0; tries < 12; tries++) {
    const uint32_t v = rnd(g, g->n_values);
    if (g->value[v].dtype == dtype && g->bound[v] <= bound) return v;
  }
  const uint32_t kind = rnd(g, 8);
  if (kind == 0 || g->n_args > MAX_ARGS - 8) return scalar(g, dtype);
  const uint32_t v = input(g, dtype);
  return kind == 1 && bound >= 8 ? view(g, v) : v;
}

static bool add_reduce(gen *g, uint32_t dtype) {
  static const uint32_t ops[] = {TERN_OP_SUM,    TERN_OP_SUM,    TERN_OP_AMAX, TERN_OP_AMIN,
                                 TERN_OP_ARGMAX, TERN_OP_ARGMIN, TERN_OP_PROD};
  uint32_t op = ops[rnd(g, 7)];
  const uint32_t x = pick(g, dtype, exact(dtype));
  if (g->value[x].rank == 0) return false;
  if (dtype == TERN_BOOL) op = rnd(g, 2) ? TERN_OP_ANY : TERN_OP_ALL;
  const uint32_t mask = rnd(g, 1u << g->rank) & g->dims[x];
  double n = 1;
  for (uint32_t d = 0; d < g->rank; d++) n *= mask >> d & 1 ? (double)g->size[d] : 1;
  if (mask == 0) return false;
  if (is_float(dtype) && op == TERN_OP_SUM && n * g->bound[x] > exact(dtype)) op = TERN_OP_AMAX;
  if (is_float(dtype) && op == TERN_OP_PROD && (g->bound[x] > 8 || n > 4)) op = TERN_OP_AMIN;
  if (is_float(dtype) && op == TERN_OP_PROD && pow(g->bound[x], n) > exact(dtype)) op = TERN_OP_AMIN;
  const bool arg = op == TERN_OP_ARGMAX || op == TERN_OP_ARGMIN;
  const uint32_t out = new_value(g, TERN_V_TEMP, arg ? TERN_I64 : dtype, g->dims[x] & ~mask);
  g->bound[out] = arg                  ? n
                  : op == TERN_OP_SUM  ? n * g->bound[x]
                  : op == TERN_OP_PROD ? pow(g->bound[x], n)
                                       : g->bound[x];
  add_node(g, op, out, 1, &x, 1, mask);
  return true;
}

static void add_map(gen *g, uint32_t dtype) {
  const double top = exact(dtype);
  uint32_t in[3], op, n_in = 2, out_dtype = dtype;
  in[0] = pick(g, dtype, top / 4);
  in[1] = pick(g, dtype, top / 4);
  double bound = fmax(g->bound[in[0]], g->bound[in[1]]);
  const uint32_t what = rnd(g, 10);
  if (dtype == TERN_BOOL) {
    op = what < 4 ? TERN_OP_AND : what < 7 ? TERN_OP_OR : TERN_OP_XOR;
  } else if (what < 3) {
    op = rnd(g, 2) ? TERN_OP_ADD : TERN_OP_SUB;
    bound = g->bound[in[0]] + g->bound[in[1]];
  } else if (what == 3 && g->bound[in[0]] * g->bound[in[1]] <= top) {
    op = TERN_OP_MUL;
    bound = g->bound[in[0]] * g->bound[in[1]];
  } else if (what < 6) {
    op = rnd(g, 2) ? TERN_OP_MAXIMUM : TERN_OP_MINIMUM;
  } else if (what == 6) {
    op = rnd(g, 2) ? TERN_OP_LT : TERN_OP_EQ;
    out_dtype = TERN_BOOL;
    bound = 1;
  } else if (what == 7) {
    in[2] = in[1], in[1] = in[0], in[0] = pick(g, TERN_BOOL, 1);
    op = TERN_OP_WHERE;
    n_in = 3;
  } else {
    op = what == 8 ? TERN_OP_ABS : TERN_OP_NEG;
    n_in = 1;
    bound = g->bound[in[0]];
  }
  uint32_t dims = 0;
  bool any = false;
  for (uint32_t i = 0; i < n_in; i++) {
    any |= g->value[in[i]].rank > 0;
    dims |= g->dims[in[i]];
  }
  const uint32_t out = new_value(g, TERN_V_TEMP, out_dtype, dims);
  if (!any) g->value[out].rank = 0;
  g->bound[out] = bound;
  add_node(g, op, out, n_in, in, 0, 0);
}

static void add_cast(gen *g, uint32_t to) {
  const uint32_t v = rnd(g, g->n_values), from = g->value[v].dtype;
  if (from == TERN_NO_DTYPE || from == to) return;
  if (is_float(to) && (is_float(from)                       ? g->bound[v]
                       : from == TERN_I8 || from == TERN_U8 ? 256
                                                            : g->bound[v]) > exact(to))
    return;
  if (is_float(to) && !is_float(from) && from != TERN_BOOL && g->value[v].kind == TERN_V_TEMP)
    return; /* may have wrapped */
  if (!is_float(to) && is_float(from) && to != TERN_I32 && to != TERN_I64) return;
  const uint32_t out = new_value(g, TERN_V_TEMP, to, g->dims[v]);
  g->value[out].rank = g->value[v].rank;
  g->bound[out] = g->bound[v];
  add_node(g, TERN_OP_CAST, out, 1, &v, 0, 0);
}

static void add_generator(gen *g, uint32_t dtype) {
  const uint32_t dims = rnd(g, 1u << g->rank);
  if (rnd(g, 2)) {
    const uint32_t d = rnd(g, g->rank), out = new_value(g, TERN_V_TEMP, dtype == TERN_BOOL ? TERN_I32 : dtype, dims);
    g->bound[out] = dims >> d & 1 ? (double)g->size[d] : 1;
    if (g->bound[out] > exact(dtype) || (TERN_D_INT >> dtype & 1 && cpu_item_size(dtype) == 1)) {
      g->n_values--;
      return;
    }
    add_node(g, TERN_OP_IOTA, out, 0, NULL, 1, d);
    return;
  }
  uint32_t in[2];
  for (int i = 0; i < 2; i++) {
    in[i] = new_value(g, TERN_V_PARAM, TERN_U64, 0);
    g->value[in[i]].rank = 0;
    g->value[in[i]].slot = g->n_words;
    g->word[g->n_words++].u = 0x123456789abcdefu * (uint64_t)(i + 1);
    g->bound[in[i]] = 1e300;
  }
  const uint32_t out = new_value(g, TERN_V_TEMP, TERN_U32, dims);
  g->bound[out] = 1e300;
  add_node(g, TERN_OP_RNG, out, 2, in, 1, 7);
}

/* A few of the values nobody else reads, and some others, become results; some in the place of an input */
static void choose_outputs(gen *g) {
  bool read[MAX_VALUES] = {false}, taken[MAX_ARGS] = {false};
  for (uint32_t i = 0; i < g->n_nodes; i++)
    for (uint32_t k = 0; k < g->node[i].n_in; k++) read[g->edge[g->node[i].in + k]] = true;
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    const uint32_t v = g->edge[g->node[i].out];
    tern_value *const x = &g->value[v];
    if (x->rank == 0 || (read[v] && rnd(g, 4)) || g->n_args == MAX_ARGS) continue;
    x->kind = TERN_V_OUT;
    for (uint32_t u = 0; u < g->n_values && rnd(g, 2) == 0; u++) {
      const tern_value *const donor = &g->value[u];
      if (donor->kind != TERN_V_IN || donor->dtype != x->dtype || g->dims[u] != g->dims[v] || taken[donor->slot])
        continue;
      memcpy(x->stride, donor->stride, sizeof x->stride);
      x->alias = (int32_t)donor->slot;
      taken[donor->slot] = true;
      const uint32_t a = x->slot = g->n_args++;
      g->arg_value[a] = v;
      g->arg_alias[a] = x->alias;
      break;
    }
    if (x->alias < 0) lay_out(g, v, rnd(g, 3) > 0);
  }
  bool any = false;
  for (uint32_t v = 0; v < g->n_values; v++) any |= g->value[v].kind == TERN_V_OUT;
  if (any || g->n_args == MAX_ARGS) return;
  for (uint32_t i = g->n_nodes; i-- > 0;) {
    const uint32_t v = g->edge[g->node[i].out];
    if (g->value[v].rank == 0) continue;
    g->value[v].kind = TERN_V_OUT;
    lay_out(g, v, true);
    return;
  }
}

static void generate(gen *g, uint64_t seed) {
  static const uint32_t kinds[] = {TERN_F32, TERN_F32,  TERN_F32, TERN_F64, TERN_I32, TERN_I64, TERN_U8, TERN_BOOL,
                                   TERN_F16, TERN_BF16, TERN_I8,  TERN_I16, TERN_U16, TERN_U32, TERN_U64};
  memset(g, 0, sizeof *g);
  g->seed = seed * 0x9e3779b97f4a7c15u + 12345;
  rnd(g, 2);
  g->special = rnd(g, 4) == 0;
  choose_space(g);
  const uint32_t main_dtype = kinds[rnd(g, sizeof kinds / sizeof *kinds)], nodes = 1 + rnd(g, rnd(g, 3) ? 6 : 16);
  input(g, main_dtype);
  for (int tries = 0; g->n_nodes < nodes && tries < 200 && g->n_values < MAX_VALUES - 8 && g->n_words < MAX_WORDS - 40;
       tries++) {
    const uint32_t dtype = rnd(g, 5) ? main_dtype : kinds[rnd(g, sizeof kinds / sizeof *kinds)], what = rnd(g, 12);
    if (what < 4)
      add_reduce(g, dtype);
    else if (what < 10)
      add_map(g, dtype);
    else if (what == 10)
      add_cast(g, dtype);
    else
      add_generator(g, dtype);
  }
  choose_outputs(g);
}

/* ---- running one ---- */

static void fill_arg(gen *g, uint32_t a, char *mem) {
  const uint32_t dtype = g->value[g->arg_value[a]].dtype;
  const size_t n = g->arg_bytes[a] / cpu_item_size(dtype);
  for (size_t i = 0; i < n; i++) {
    tern_word w = {.i = (int64_t)rnd(g, 17) - 8};
    if (dtype == TERN_BOOL) w.u = rnd(g, 2);
    if (is_float(dtype)) w.f = (double)w.i;
    if (is_float(dtype) && g->special && rnd(g, 40) == 0) w.f = rnd(g, 2) ? NAN : rnd(g, 2) ? INFINITY : -INFINITY;
    eval_store(mem, (int64_t)i, dtype, w);
  }
}

static int small = X_SMALL_NEVER; /* how run_region takes small launches */

/* Compile and run on the executor with `mem`; TERN_OK or the failure. */
static tern_rc run_region(const tern_region *r, char *const *mem, const size_t *offset, const tern_word *words) {
  union {
    tern_kernel_info info;
    char room[1024];
  } u;
  memset(&u, 0, sizeof u);
  u.info.struct_size = sizeof u.info;
  tern_kernel *k = NULL;
  tern_rc rc = cpu_nest_supports(r);
  if (rc == TERN_OK) rc = cpu_nest_compile(r, &k, &u.info);
  if (rc != TERN_OK) return rc;
  x_region_mode(k, small);
  tern_arg args[MAX_ARGS];
  for (uint32_t a = 0; a < r->n_args; a++) args[a] = (tern_arg){(tern_mem *)(void *)mem[a], offset[a]};
  const uint64_t ws = u.info.workspace == UINT64_MAX ? k->workspace(k, words) : u.info.workspace;
  void *const space = ws ? aligned_alloc(64, (ws + 63) & ~(uint64_t)63) : NULL;
  const tern_launch l = {
      .args = args, .words = words, .n_args = r->n_args, .n_words = r->n_words, .workspace = {space, 0}};
  rc = k->run(k, &l);
  free(space);
  if (k->destroy)
    k->destroy(k);
  else
    free(k);
  return rc;
}

static void region_of(const gen *g, tern_region *r) {
  memset(r, 0, sizeof *r);
  *r = (tern_region){.struct_size = sizeof *r,
                     .n_nodes = g->n_nodes,
                     .n_values = g->n_values,
                     .n_args = g->n_args,
                     .n_words = g->n_words,
                     .nodes = g->node,
                     .values = g->value,
                     .edges = g->edge,
                     .attrs = g->attr};
}

/* How many bytes differ where they should not; -0 equals 0 */
static size_t differences(const gen *g, uint32_t a, const char *x, const char *y) {
  const uint32_t dtype = g->value[g->arg_value[a]].dtype;
  const size_t item = cpu_item_size(dtype), n = g->arg_bytes[a] / item;
  size_t bad = 0;
  if (memcmp(x, y, n * item) == 0) return 0;
  for (size_t i = 0; i < n; i++) {
    if (memcmp(x + i * item, y + i * item, item) == 0) continue;
    const tern_word p = eval_load(x, (int64_t)i, dtype), q = eval_load(y, (int64_t)i, dtype);
    if (is_float(dtype) && (p.f == q.f || (isnan(p.f) && isnan(q.f)))) continue;
    if (bad == 0 && is_float(dtype)) printf("  arg %u element %zu: %g, should be %g\n", a, i, p.f, q.f);
    if (bad == 0 && !is_float(dtype))
      printf("  arg %u element %zu: %lld, should be %lld\n", a, i, (long long)p.i, (long long)q.i);
    bad++;
  }
  return bad;
}

static void describe(const gen *g) {
  printf("  rank %u:", g->rank);
  for (uint32_t d = 0; d < g->rank; d++) printf(" %lld", (long long)g->size[d]);
  printf("\n");
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    const tern_node *const n = &g->node[i];
    const uint32_t out = g->edge[n->out];
    const nest_prim *const p = nest_prim_of(n->op);
    printf("  v%u(%s dims %x kind %u alias %d) = %s", out, nest_dtype_name(g->value[out].dtype), g->dims[out],
           g->value[out].kind, g->value[out].alias, p ? p->name : "?");
    for (uint32_t k = 0; k < n->n_in; k++) {
      const uint32_t v = g->edge[n->in + k];
      printf(" v%u(%s dims %x kind %u)", v, nest_dtype_name(g->value[v].dtype), g->dims[v], g->value[v].kind);
    }
    if (n->n_attr) printf(" [%lld]", (long long)g->attr[n->attr].i);
    printf("\n");
  }
}

/* One random region: false when it went wrong, having said how */
static bool try_seed(uint64_t seed) {
  static gen g;
  tern_region r;
  char *mine[MAX_ARGS] = {NULL}, *ref[MAX_ARGS] = {NULL};
  void *ref_first[MAX_ARGS];
  char why[256] = "";
  bool good = true;
  generate(&g, seed);
  region_of(&g, &r);
  for (uint32_t a = 0; a < g.n_args; a++) {
    if (g.arg_alias[a] >= 0) {
      const uint32_t donor = (uint32_t)g.arg_alias[a];
      g.arg_bytes[a] = g.arg_bytes[donor], g.arg_offset[a] = g.arg_offset[donor];
      mine[a] = mine[donor], ref[a] = ref[donor];
    } else {
      mine[a] = malloc(g.arg_bytes[a]), ref[a] = malloc(g.arg_bytes[a]);
      fill_arg(&g, a, mine[a]);
      memcpy(ref[a], mine[a], g.arg_bytes[a]);
    }
    ref_first[a] = ref[a] + g.arg_offset[a];
  }
  const tern_rc want = tern_eval(&r, ref_first, g.word, why, sizeof why),
                got = run_region(&r, mine, g.arg_offset, g.word);
  if (want != TERN_OK || got != TERN_OK) {
    printf("seed %llu: reference %d (%s), executor %d\n", (unsigned long long)seed, want, why, got);
    good = false;
  }
  for (uint32_t a = 0; a < g.n_args && good; a++) {
    const size_t bad = differences(&g, a, mine[a], ref[a]);
    if (bad)
      printf("seed %llu: %zu elements of arg %u (value %u) differ\n", (unsigned long long)seed, bad, a, g.arg_value[a]);
    good &= bad == 0;
  }
  if (!good) describe(&g);
  for (uint32_t a = 0; a < g.n_args; a++)
    if (g.arg_alias[a] < 0) free(mine[a]), free(ref[a]);
  return good;
}

static uint64_t first_seed = 1, n_seeds = 600;

static void test_random(void) {
  uint32_t bad = 0;
  small = X_SMALL_NEVER;
  for (uint64_t s = first_seed; s < first_seed + n_seeds && bad < 3; s++) bad += !try_seed(s);
  CU_ASSERT_EQUAL(bad, 0);
}

static void test_random_small(void) {
  uint32_t bad = 0;
  small = X_SMALL_AT_ONCE;
  for (uint64_t s = first_seed; s < first_seed + 2 * n_seeds && bad < 3; s++) bad += !try_seed(s);
  CU_ASSERT_EQUAL(bad, 0);
}

static void test_random_runs(void) {
  uint32_t bad = 0;
  small = X_SMALL_NEVER;
  short_runs = true;
  for (uint64_t s = first_seed; s < first_seed + n_seeds / 6 && bad < 3; s++) bad += !try_seed(s);
  short_runs = false;
  CU_ASSERT_EQUAL(bad, 0);
}

/* ---- float composites, built by hand over [rows, cols] ---- */

typedef struct build {
  gen g;
  uint32_t row, full; /* dims masks */
} build;

static void begin(build *b, int64_t rows, int64_t cols) {
  memset(b, 0, sizeof *b);
  b->g.rank = 2;
  b->g.size[0] = b->g.word[0].i = rows;
  b->g.size[1] = b->g.word[1].i = cols;
  b->g.n_words = TERN_MAX_RANK;
  b->row = 1;
  b->full = 3;
}

static uint32_t arg(build *b, uint32_t kind, uint32_t dims) {
  const uint32_t v = new_value(&b->g, kind, TERN_F32, dims);
  lay_out(&b->g, v, true);
  return v;
}

static uint32_t map(build *b, uint32_t op, uint32_t dims, uint32_t x, uint32_t y) {
  const uint32_t out = new_value(&b->g, TERN_V_TEMP, TERN_F32, dims), in[2] = {x, y};
  return add_node(&b->g, op, out, y == UINT32_MAX ? 1 : 2, in, 0, 0);
}

static uint32_t reduce(build *b, uint32_t op, uint32_t x, uint32_t mask) {
  const uint32_t out = new_value(&b->g, TERN_V_TEMP, TERN_F32, b->g.dims[x] & ~mask);
  return add_node(&b->g, op, out, 1, &x, 1, mask);
}

static void into(build *b, uint32_t v) {
  b->g.value[v].kind = TERN_V_OUT;
  lay_out(&b->g, v, true);
}

/* Largest error of the executor, relative to the largest result; the data are normal-ish floats */
static double error_of(build *b) {
  tern_region r;
  char *mine[MAX_ARGS], *ref[MAX_ARGS], why[256] = "";
  void *first[MAX_ARGS];
  double worst = 0, top = 1e-30;
  region_of(&b->g, &r);
  for (uint32_t a = 0; a < r.n_args; a++) {
    const size_t n = b->g.arg_bytes[a] / 4;
    mine[a] = malloc(n * 4), ref[a] = malloc(n * 4);
    for (size_t i = 0; i < n; i++) ((float *)(void *)mine[a])[i] = (float)rnd(&b->g, 1 << 20) / (1 << 18) - 2;
    memcpy(ref[a], mine[a], n * 4);
    first[a] = ref[a];
  }
  CU_ASSERT_EQUAL(tern_eval(&r, first, b->g.word, why, sizeof why), TERN_OK);
  CU_ASSERT_EQUAL(run_region(&r, mine, b->g.arg_offset, b->g.word), TERN_OK);
  for (uint32_t a = 0; a < r.n_args; a++)
    for (size_t i = 0; i < b->g.arg_bytes[a] / 4; i++) {
      const double x = ((float *)(void *)mine[a])[i], y = ((float *)(void *)ref[a])[i];
      worst = fmax(worst, fabs(x - y));
      top = fmax(top, fabs(y));
      if (isnan(x) != isnan(y)) worst = INFINITY;
    }
  for (uint32_t a = 0; a < r.n_args; a++) free(mine[a]), free(ref[a]);
  return worst / top;
}

static double softmax_error(int64_t rows, int64_t cols, uint32_t mask) {
  build b;
  begin(&b, rows, cols);
  const uint32_t x = arg(&b, TERN_V_IN, b.full);
  const uint32_t top = reduce(&b, TERN_OP_AMAX, x, mask), y = map(&b, TERN_OP_SUB, b.full, x, top);
  const uint32_t e = map(&b, TERN_OP_EXP, b.full, y, UINT32_MAX), s = reduce(&b, TERN_OP_SUM, e, mask);
  into(&b, map(&b, TERN_OP_DIV, b.full, e, s));
  return error_of(&b);
}

static double layer_norm_error(int64_t rows, int64_t cols) {
  build b;
  begin(&b, rows, cols);
  const uint32_t x = arg(&b, TERN_V_IN, b.full), gamma = arg(&b, TERN_V_IN, 2), beta = arg(&b, TERN_V_IN, 2);
  const uint32_t n = new_value(&b.g, TERN_V_SIZE, TERN_F32, 0);
  b.g.value[n].rank = 0;
  b.g.value[n].slot = x;
  b.g.value[n].imm.u = 2;
  const uint32_t mean = map(&b, TERN_OP_DIV, b.row, reduce(&b, TERN_OP_SUM, x, 2), n);
  const uint32_t c = map(&b, TERN_OP_SUB, b.full, x, mean), sq = map(&b, TERN_OP_MUL, b.full, c, c);
  const uint32_t var = map(&b, TERN_OP_DIV, b.row, reduce(&b, TERN_OP_SUM, sq, 2), n);
  const uint32_t eps = new_value(&b.g, TERN_V_CONST, TERN_F32, 0);
  b.g.value[eps].rank = 0;
  b.g.value[eps].imm.f = 1e-5;
  const uint32_t inv = map(&b, TERN_OP_RSQRT, b.row, map(&b, TERN_OP_ADD, b.row, var, eps), UINT32_MAX);
  const uint32_t scaled = map(&b, TERN_OP_MUL, b.full, map(&b, TERN_OP_MUL, b.full, c, inv), gamma);
  into(&b, map(&b, TERN_OP_ADD, b.full, scaled, beta));
  return error_of(&b);
}

static void test_composites(void) {
  static const int64_t size[][2] = {{1, 1},     {3, 5},     {17, 768},   {300, 10},  {10, 300},
                                    {64, 1023}, {2, 40000}, {1, 300000}, {300000, 1}};
  for (size_t i = 0; i < sizeof size / sizeof *size; i++) {
    const int64_t rows = size[i][0], cols = size[i][1];
    CU_ASSERT(softmax_error(rows, cols, 2) < 2e-6);
    CU_ASSERT(softmax_error(rows, cols, 1) < 2e-6);
    CU_ASSERT(softmax_error(rows, cols, 3) < 2e-6);
    CU_ASSERT(layer_norm_error(rows, cols) < 4e-6);
  }
}

/* Sums of 1e6 floats: accurate, and the same bits with one thread as with two */
static void test_sums(void) {
  for (uint32_t mask = 1; mask < 4; mask++) {
    float *const x = malloc(4 * 1000 * 1003), out[2][1003];
    double exact_sum[1003] = {0};
    for (size_t i = 0; i < 1000 * 1003; i++) x[i] = (float)sin((double)i) + 1;
    for (size_t i = 0; i < 1000 * 1003; i++) exact_sum[mask == 3 ? 0 : mask == 1 ? i % 1003 : i / 1003] += x[i];
    for (int t = 0; t < 2; t++) {
      build b;
      begin(&b, 1000, 1003);
      const uint32_t v = arg(&b, TERN_V_IN, 3);
      into(&b, reduce(&b, TERN_OP_SUM, v, mask));
      tern_region r;
      region_of(&b.g, &r);
      char *const mem[2] = {(char *)x, (char *)out[t]};
      cpu_threads_init(t + 1);
      CU_ASSERT_EQUAL(run_region(&r, mem, b.g.arg_offset, b.g.word), TERN_OK);
    }
    const size_t n = mask == 3 ? 1 : mask == 1 ? 1003 : 1000;
    CU_ASSERT(memcmp(out[0], out[1], 4 * n) == 0);
    double worst = 0;
    for (size_t i = 0; i < n; i++) worst = fmax(worst, fabs(out[0][i] / exact_sum[i] - 1));
    CU_ASSERT(worst < 1.2e-7);
    free(x);
  }
}

int main(int argc, char **argv) {
  if (argc > 1) first_seed = strtoull(argv[1], NULL, 10);
  if (argc > 2) n_seeds = strtoull(argv[2], NULL, 10);
  if (CU_initialize_registry() != CUE_SUCCESS) return 1;
  CU_pSuite s = CU_add_suite("cpu_exec", NULL, NULL);
  CU_add_test(s, "random regions agree with the reference bit for bit", test_random);
  CU_add_test(s, "the same with small launches taken as programs", test_random_small);
  CU_add_test(s, "large regions whose innermost dim is short", test_random_runs);
  CU_add_test(s, "softmax and layer_norm", test_composites);
  CU_add_test(s, "sums are accurate and do not depend on the thread count", test_sums);
  CU_basic_set_mode(CU_BRM_VERBOSE);
  CU_basic_run_tests();
  const unsigned failed = CU_get_number_of_failures();
  CU_cleanup_registry();
  return failed != 0;
}
