/* tern_eval: every value of the region as an array of words, in its own row-major order; nodes in turn; outputs written
   last. */
#include "eval.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval_internal.h"
#include "nest_internal.h"

typedef tern_word word;

typedef struct evaluation {
  const tern_region *r;
  const tern_word *words;
  void *const *args;
  word **data; /* by value: [count], NULL until computed */
  char *message;
  size_t message_size;
} evaluation;

typedef struct shape {
  uint32_t rank;
  int64_t size[TERN_MAX_RANK], count;
} shape;

static shape shape_of(const evaluation *e, uint32_t v) {
  const tern_value *val = &e->r->values[v];
  shape s = {.rank = val->rank, .count = 1};
  for (uint32_t d = 0; d < val->rank; d++) s.count *= s.size[d] = TERN_LIT(val->shape[d], e->words);
  return s;
}

static void index_of(const shape *s, int64_t linear, int64_t *index) {
  for (uint32_t d = s->rank; d-- > 0; linear /= s->size[d]) index[d] = linear % s->size[d];
}

/* Row-major number of `index` in a value of shape s, which broadcasts along its sizes of 1 (and wholly when of rank
   0) */
static int64_t linear_in(const shape *s, const int64_t *index) {
  int64_t l = 0;
  for (uint32_t d = 0; d < s->rank; d++) l = l * s->size[d] + (s->size[d] == 1 ? 0 : index[d]);
  return l;
}

static int64_t place_of(const evaluation *e, uint32_t v, const int64_t *index) {
  const tern_value *val = &e->r->values[v];
  int64_t p = val->kind == TERN_V_VIEW ? TERN_LIT(val->offset, e->words) : 0;
  for (uint32_t d = 0; d < val->rank; d++)
    p += index[d] * (val->shape[d] == 1 ? 0 : TERN_LIT(val->stride[d], e->words));
  return p;
}

/* A view of a computed value: lay the base out as its memory would be (an OUT by its strides, a TEMP dense), then read
   that */
static tern_rc view_of_computed(evaluation *e, uint32_t v, word *to, const shape *s) {
  const uint32_t base = e->r->values[v].slot;
  const shape bs = shape_of(e, base);
  int64_t index[TERN_MAX_RANK], lo = INT64_MAX, hi = INT64_MIN;
  const bool dense = e->r->values[base].kind == TERN_V_TEMP;
  for (int64_t i = 0; i < bs.count; i++) {
    index_of(&bs, i, index);
    const int64_t p = dense ? i : place_of(e, base, index);
    lo = p < lo ? p : lo;
    hi = p > hi ? p : hi;
  }
  word *memory = calloc((size_t)(hi - lo + 1), sizeof *memory);
  if (!memory) return TERN_E_OOM;
  for (int64_t i = 0; i < bs.count; i++) {
    index_of(&bs, i, index);
    memory[(dense ? i : place_of(e, base, index)) - lo] = e->data[base][i];
  }
  tern_rc rc = TERN_OK;
  for (int64_t i = 0; i < s->count && !rc; i++) {
    index_of(s, i, index);
    const int64_t p = place_of(e, v, index);
    if (p < lo || p > hi)
      rc = nest__fail(e->message, e->message_size, TERN_E_ARG, "view %u reaches outside value %u", v, base);
    else
      to[i] = memory[p - lo];
  }
  free(memory);
  return rc;
}

/* A SIZE, as its dtype holds it */
static word size_word(const evaluation *e, uint32_t v) {
  const tern_value *val = &e->r->values[v];
  word n = {.i = 1};
  for (uint32_t d = 0; d < e->r->values[val->slot].rank; d++)
    if (val->imm.u >> d & 1) n.i *= TERN_LIT(e->r->values[val->slot].shape[d], e->words);
  return eval_cast(TERN_I64, val->dtype, n);
}

/* Bring v into e->data[v] */
static tern_rc fetch(evaluation *e, uint32_t v) {
  if (e->data[v]) return TERN_OK;
  const tern_value *val = &e->r->values[v];
  const shape s = shape_of(e, v);
  if (val->kind == TERN_V_OUT || val->kind == TERN_V_TEMP)
    return nest__fail(e->message, e->message_size, TERN_E_ARG, "value %u is read before it is computed", v);
  word *to = e->data[v] = malloc((size_t)s.count * sizeof *to);
  if (!to) return TERN_E_OOM;
  int64_t index[TERN_MAX_RANK] = {0};
  switch (val->kind) {
  case TERN_V_CONST: *to = eval_fit(val->dtype, val->imm); return TERN_OK;
  case TERN_V_PARAM: *to = eval_fit(val->dtype, e->words[val->slot]); return TERN_OK;
  case TERN_V_SIZE: *to = size_word(e, v); return TERN_OK;
  default: break;
  }
  const uint32_t base = val->kind == TERN_V_VIEW ? val->slot : v;
  if (e->r->values[base].kind != TERN_V_IN) {
    const tern_rc rc = fetch(e, base);
    return rc ? rc : view_of_computed(e, v, to, &s);
  }
  for (int64_t i = 0; i < s.count; i++) {
    index_of(&s, i, index);
    to[i] = eval_load(e->args[e->r->values[base].slot], place_of(e, v, index), val->dtype);
  }
  return TERN_OK;
}

static void do_map(evaluation *e, uint32_t n, word *to, const shape *s) {
  const tern_node *node = &e->r->nodes[n];
  const uint32_t out = nest_out(e->r, n);
  const uint32_t in_dtype = node->n_in ? e->r->values[nest_in(e->r, n, node->op == TERN_OP_WHERE)].dtype : 0;
  shape is[3];
  for (uint32_t k = 0; k < node->n_in; k++) is[k] = shape_of(e, nest_in(e->r, n, k));
  for (int64_t i = 0; i < s->count; i++) {
    int64_t index[TERN_MAX_RANK];
    word x[3];
    index_of(s, i, index);
    for (uint32_t k = 0; k < node->n_in; k++) x[k] = e->data[nest_in(e->r, n, k)][linear_in(&is[k], index)];
    if (node->op == TERN_OP_RNG)
      to[i].u = eval_rng(x[0].u, x[1].u, (uint32_t)nest_attr(e->r, n, 0), (uint64_t)i);
    else if (node->op == TERN_OP_IOTA)
      to[i] = eval_cast(TERN_I64, e->r->values[out].dtype, (word){.i = index[nest_attr(e->r, n, 0)]});
    else
      to[i] = eval_map(node->op, in_dtype, e->r->values[out].dtype, x);
  }
}

static bool real(uint32_t dtype) { return dtype >= TERN_F16; }
static bool is_nan(uint32_t dtype, word w) { return real(dtype) && isnan(w.f); }

static bool less(uint32_t dtype, word a, word b) {
  return eval_map(TERN_OP_LT, dtype, TERN_BOOL, (word[]){a, b}).u != 0;
}

/* One reduction in progress */
typedef struct fold {
  long double f;
  word w;
  int64_t at;
  bool any;
} fold;

static void fold_in(fold *a, uint32_t op, uint32_t dtype, word x, int64_t at) {
  const bool min = op == TERN_OP_AMIN || op == TERN_OP_ARGMIN;
  switch (op) {
  case TERN_OP_SUM:
    a->f += real(dtype) ? x.f : 0;
    a->w.u += real(dtype) ? 0 : x.u;
    return;
  case TERN_OP_PROD:
    a->f = real(dtype) ? (a->any ? a->f * x.f : x.f) : 0;
    a->w.u = a->any ? a->w.u * x.u : x.u;
    break;
  case TERN_OP_ANY: a->w.u |= x.u; return;
  case TERN_OP_ALL: a->w.u = a->any ? a->w.u & x.u : x.u; break;
  default:
    if (a->any && (is_nan(dtype, a->w) || !(is_nan(dtype, x) || (min ? less(dtype, x, a->w) : less(dtype, a->w, x)))))
      return;
    a->w = x;
    a->at = at;
  }
  a->any = true;
}

static word fold_out(const fold *a, uint32_t op, uint32_t dtype) {
  if (op == TERN_OP_ARGMAX || op == TERN_OP_ARGMIN) return (word){.i = a->at};
  if ((op == TERN_OP_SUM || op == TERN_OP_PROD) && real(dtype)) return eval_fit(dtype, (word){.f = (double)a->f});
  return eval_fit(dtype, a->w);
}

static tern_rc do_reduce(evaluation *e, uint32_t n, word *to, const shape *s) {
  const uint32_t in = nest_in(e->r, n, 0), op = e->r->nodes[n].op, dtype = e->r->values[in].dtype;
  const uint64_t mask = (uint64_t)nest_attr(e->r, n, 0);
  const shape is = shape_of(e, in);
  fold *f = calloc((size_t)s->count, sizeof *f);
  if (!f) return TERN_E_OOM;
  for (int64_t i = 0; i < is.count; i++) {
    int64_t index[TERN_MAX_RANK], at = 0;
    index_of(&is, i, index);
    for (uint32_t d = 0; d < is.rank; d++)
      if (mask >> d & 1) at = at * is.size[d] + index[d];
    fold_in(&f[linear_in(s, index)], op, dtype, e->data[in][i], at);
  }
  for (int64_t i = 0; i < s->count; i++) to[i] = fold_out(&f[i], op, dtype);
  free(f);
  return TERN_OK;
}

/* Lines along dim d: element k of line (o, i) is at (o * size + k) * inner + i */
static tern_rc do_scan(evaluation *e, uint32_t n, const word *from, word *to, const shape *s) {
  const uint32_t in = nest_in(e->r, n, 0), dtype = e->r->values[in].dtype;
  const int64_t dim = nest_attr(e->r, n, 0), flags = nest_attr(e->r, n, 1);
  if (dim < 0 || dim >= s->rank)
    return nest__fail(e->message, e->message_size, TERN_E_ARG, "scan along dim %lld", (long long)dim);
  static const uint32_t as[] = {TERN_OP_SUM, TERN_OP_PROD, TERN_OP_AMAX, TERN_OP_AMIN};
  const uint32_t op = as[e->r->nodes[n].op - TERN_OP_CUMSUM];
  int64_t inner = 1;
  for (uint32_t d = (uint32_t)dim + 1; d < s->rank; d++) inner *= s->size[d];
  const int64_t size = s->size[dim];
  const word first = op == TERN_OP_PROD ? eval_cast(TERN_I64, dtype, (word){.i = 1}) : (word){.u = 0};
  for (int64_t line = 0; line < s->count / size; line++) {
    fold f = {0};
    const int64_t base = line / inner * size * inner + line % inner;
    for (int64_t k = 0; k < size; k++) {
      const int64_t at = base + (flags & 2 ? size - 1 - k : k) * inner;
      if (flags & 1) to[at] = k ? fold_out(&f, op, dtype) : first;
      fold_in(&f, op, dtype, from[at], k);
      if (!(flags & 1)) to[at] = fold_out(&f, op, dtype);
    }
  }
  return TERN_OK;
}

static tern_rc do_dot(evaluation *e, uint32_t n, word *to, const shape *s) {
  const uint32_t a = nest_in(e->r, n, 0), b = nest_in(e->r, n, 1), dtype = e->r->values[a].dtype, r = s->rank;
  const shape as = shape_of(e, a), bs = shape_of(e, b);
  bool fits = r >= 2 && as.rank == r && bs.rank == r && as.size[r - 1] == bs.size[r - 2] &&
              as.size[r - 2] == s->size[r - 2] && bs.size[r - 1] == s->size[r - 1];
  for (uint32_t d = 0; fits && d + 2 < r; d++)
    fits = (as.size[d] == 1 || as.size[d] == s->size[d]) && (bs.size[d] == 1 || bs.size[d] == s->size[d]);
  if (!fits) return nest__fail(e->message, e->message_size, TERN_E_ARG, "DOT (node %u): shapes do not fit", n);
  for (int64_t i = 0; i < s->count; i++) {
    int64_t ia[TERN_MAX_RANK], ib[TERN_MAX_RANK];
    index_of(s, i, ia);
    memcpy(ib, ia, sizeof ib);
    long double f = 0;
    uint64_t u = 0;
    for (int64_t k = 0; k < as.size[r - 1]; k++) {
      ia[r - 1] = ib[r - 2] = k;
      const word x = e->data[a][linear_in(&as, ia)], y = e->data[b][linear_in(&bs, ib)];
      if (real(dtype))
        f += (long double)x.f * y.f;
      else
        u += x.u * y.u;
    }
    to[i] = eval_fit(e->r->values[nest_out(e->r, n)].dtype, real(dtype) ? (word){.f = (double)f} : (word){.u = u});
  }
  return TERN_OK;
}

static tern_rc do_gather(evaluation *e, uint32_t n, word *to, const shape *s) {
  const uint32_t data = nest_in(e->r, n, 0), index = nest_in(e->r, n, 1);
  const shape ds = shape_of(e, data), is = shape_of(e, index);
  if (ds.rank != 3 || s->rank != 3 || is.rank != 1 || s->size[1] != is.size[0] || s->size[0] != ds.size[0] ||
      s->size[2] != ds.size[2] || e->r->values[data].dtype != e->r->values[nest_out(e->r, n)].dtype ||
      (e->r->values[index].dtype != TERN_I32 && e->r->values[index].dtype != TERN_I64))
    return nest__fail(e->message, e->message_size, TERN_E_ARG, "GATHER (node %u): shapes or dtypes do not fit", n);
  for (int64_t i = 0; i < s->count; i++) {
    int64_t at[TERN_MAX_RANK];
    index_of(s, i, at);
    const int64_t k = e->data[index][at[1]].i, row = k < 0 ? k + ds.size[1] : k;
    if (row < 0 || row >= ds.size[1])
      return nest__fail(e->message, e->message_size, TERN_E_ARG, "GATHER (node %u): index %lld, the dim has %lld", n,
                        (long long)k, (long long)ds.size[1]);
    at[1] = row;
    to[i] = e->data[data][linear_in(&ds, at)];
  }
  return TERN_OK;
}

/* Base, then the updates one after the other: what an index that occurs twice does depends on their order */
static tern_rc do_scatter(evaluation *e, uint32_t n, word *to, const shape *s) {
  static const uint32_t ops[] = {TERN_OP_ADD, TERN_OP_COPY, TERN_OP_MAXIMUM, TERN_OP_MINIMUM};
  const uint32_t base = nest_in(e->r, n, 0), index = nest_in(e->r, n, 1), src = nest_in(e->r, n, 2);
  const uint32_t dtype = e->r->values[src].dtype, index_dtype = e->r->values[index].dtype;
  const int64_t mode = nest_attr(e->r, n, 0);
  const shape bs = shape_of(e, base), is = shape_of(e, index), us = shape_of(e, src);
  if ((bs.rank && (bs.rank != 3 || memcmp(bs.size, s->size, 3 * sizeof *s->size))) || s->rank != 3 || us.rank != 3 ||
      is.rank != 1 || us.size[0] != s->size[0] || us.size[1] != is.size[0] || us.size[2] != s->size[2] || mode < 0 ||
      mode > 3 || (index_dtype != TERN_I32 && index_dtype != TERN_I64))
    return nest__fail(e->message, e->message_size, TERN_E_ARG, "SCATTER (node %u): shapes or dtypes do not fit", n);
  for (int64_t i = 0; i < s->count; i++) to[i] = e->data[base][bs.rank ? i : 0];
  const int64_t inner = s->size[2];
  for (int64_t j = 0; j < is.size[0]; j++) {
    const int64_t k = e->data[index][j].i, row = k < 0 ? k + s->size[1] : k;
    if (row < 0 || row >= s->size[1])
      return nest__fail(e->message, e->message_size, TERN_E_ARG, "SCATTER (node %u): index %lld, the dim has %lld", n,
                        (long long)k, (long long)s->size[1]);
    for (int64_t o = 0; o < s->size[0]; o++)
      for (int64_t i = 0; i < inner; i++) {
        word *at = &to[(o * s->size[1] + row) * inner + i];
        const word come = e->data[src][(o * us.size[1] + j) * inner + i];
        *at = eval_map(ops[mode], dtype, dtype, mode == 1 ? (word[]){come} : (word[]){*at, come});
      }
  }
  return TERN_OK;
}

static tern_rc do_conv(evaluation *e, uint32_t n, word *to, const shape *s) {
  const tern_node *node = &e->r->nodes[n];
  const uint32_t a = nest_in(e->r, n, 0), b = nest_in(e->r, n, 1);
  const shape as = shape_of(e, a), bs = shape_of(e, b);
  const eval_array x = {as.rank, as.size, e->data[a]}, y = {bs.rank, bs.size, e->data[b]}, o = {s->rank, s->size, to};
  const char *problem =
      eval__conv(node->op, e->r->attrs + node->attr, node->n_attr, &x, &y, &o, e->r->values[nest_out(e->r, n)].dtype);
  return problem ? nest__fail(e->message, e->message_size, TERN_E_ARG, "%s (node %u): %s", nest_prim_of(node->op)->name,
                              n, problem)
                 : TERN_OK;
}

typedef struct sortable {
  word w;
  int64_t at;
  uint32_t dtype;
  bool down;
} sortable;

static int sort_order(const void *pa, const void *pb) {
  const sortable *a = pa, *b = pb;
  const bool na = is_nan(a->dtype, a->w), nb = is_nan(b->dtype, b->w);
  const bool before = na ? false : nb || less(a->dtype, a->w, b->w),
             after = nb ? false : na || less(a->dtype, b->w, a->w);
  if (before != after) return before != a->down ? -1 : 1;
  return (a->at > b->at) - (a->at < b->at);
}

static tern_rc do_sort(const evaluation *e, uint32_t n, const word *from, word *to, const shape *s) {
  const uint32_t in = nest_in(e->r, n, 0);
  const int64_t size = s->rank ? s->size[s->rank - 1] : 1;
  sortable *line = malloc((size_t)size * sizeof *line);
  if (!line) return TERN_E_OOM;
  for (int64_t base = 0; base < s->count; base += size) {
    for (int64_t k = 0; k < size; k++)
      line[k] = (sortable){from[base + k], k, e->r->values[in].dtype, (nest_attr(e->r, n, 0) & 1) != 0};
    qsort(line, (size_t)size, sizeof *line, sort_order);
    for (int64_t k = 0; k < size; k++)
      to[base + k] = e->r->nodes[n].op == TERN_OP_SORT ? line[k].w : (word){.i = line[k].at};
  }
  free(line);
  return TERN_OK;
}

/* SCAN and SORT. What they work on has the shape of the output; an input that broadcasts along a literal 1 is laid out
   so. */
static tern_rc do_lines(evaluation *e, uint32_t n, word *to, const shape *s) {
  const uint32_t in = nest_in(e->r, n, 0);
  const tern_value *val = &e->r->values[in];
  const shape is = shape_of(e, in);
  bool fits = is.rank == s->rank || is.rank == 0;
  for (uint32_t d = 0; d < is.rank && fits; d++) fits = is.size[d] == s->size[d] || val->shape[d] == 1;
  if (!fits)
    return nest__fail(e->message, e->message_size, TERN_E_ARG, "node %u: the output has not the shape of the input", n);
  word *spread = is.count == s->count ? NULL : malloc((size_t)s->count * sizeof *spread);
  if (!spread && is.count != s->count) return TERN_E_OOM;
  for (int64_t i = 0; spread && i < s->count; i++) {
    int64_t index[TERN_MAX_RANK];
    index_of(s, i, index);
    spread[i] = e->data[in][linear_in(&is, index)];
  }
  const word *from = spread ? spread : e->data[in];
  const bool scan = nest_prim_of(e->r->nodes[n].op)->kind == TERN_K_SCAN;
  const tern_rc rc = scan ? do_scan(e, n, from, to, s) : do_sort(e, n, from, to, s);
  free(spread);
  return rc;
}

static tern_rc do_node(evaluation *e, uint32_t n) {
  tern_rc rc = nest_check_node(e->r, n, e->message, e->message_size);
  for (uint32_t k = 0; !rc && k < e->r->nodes[n].n_in; k++) rc = fetch(e, nest_in(e->r, n, k));
  if (rc) return rc;
  const uint32_t out = nest_out(e->r, n);
  const shape s = shape_of(e, out);
  if (e->data[out]) return nest__fail(e->message, e->message_size, TERN_E_ARG, "value %u is computed twice", out);
  word *to = e->data[out] = malloc((size_t)s.count * sizeof *to);
  if (!to) return TERN_E_OOM;
  const uint32_t kind = nest_prim_of(e->r->nodes[n].op)->kind;
  if (kind == TERN_K_SCAN || kind == TERN_K_SORT) return do_lines(e, n, to, &s);
  switch (kind) {
  case TERN_K_MAP: do_map(e, n, to, &s); return TERN_OK;
  case TERN_K_REDUCE: return do_reduce(e, n, to, &s);
  case TERN_K_DOT: return do_dot(e, n, to, &s);
  case TERN_K_GATHER: return do_gather(e, n, to, &s);
  case TERN_K_CONV: return do_conv(e, n, to, &s);
  case TERN_K_SCATTER: return do_scatter(e, n, to, &s);
  default: return nest__fail(e->message, e->message_size, TERN_E_UNSUPPORTED, "node %u: unknown kind", n);
  }
}

static tern_rc store_outputs(const evaluation *e) {
  for (uint32_t v = 0; v < e->r->n_values; v++) {
    const tern_value *val = &e->r->values[v];
    if (val->kind != TERN_V_OUT) continue;
    if (!e->data[v]) return nest__fail(e->message, e->message_size, TERN_E_ARG, "output value %u is never computed", v);
    const shape s = shape_of(e, v);
    for (int64_t i = 0; i < s.count; i++) {
      int64_t index[TERN_MAX_RANK];
      index_of(&s, i, index);
      eval_store(e->args[val->slot], place_of(e, v, index), val->dtype, e->data[v][i]);
    }
  }
  return TERN_OK;
}

tern_rc tern_eval(const tern_region *region, void *const *args, const tern_word *words, char *message,
                  size_t message_size) {
  evaluation e = {.r = region, .words = words, .args = args, .message = message, .message_size = message_size};
  tern_rc rc = TERN_OK;
  if (message && message_size) *message = 0;
  e.data = calloc((size_t)region->n_values + 1, sizeof *e.data);
  if (!e.data) rc = TERN_E_OOM;
  for (uint32_t v = 0; !rc && v < region->n_values; v++) rc = nest__check_value(region, v, message, message_size);
  for (uint32_t n = 0; !rc && n < region->n_nodes; n++) rc = do_node(&e, n);
  if (!rc) rc = store_outputs(&e);
  for (uint32_t v = 0; e.data && v < region->n_values; v++) free(e.data[v]);
  free(e.data);
  if (rc == TERN_E_OOM) nest__fail(message, message_size, rc, "out of host memory in the reference evaluator");
  return rc;
}
