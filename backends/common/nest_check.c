/* What the table of primitives says: names, kinds, dtypes; and the check of one node of a region against it. */
#include "nest_internal.h"

#include <stdarg.h>
#include <stdio.h>

static const nest_prim prims[] = {
#define ROW(name, num, n, kind, dtypes) {#name, num, n, TERN_K_##kind, TERN_D_##dtypes},
    TERN_PRIMS(ROW)
#undef ROW
};

const nest_prim *nest_prim_of(uint32_t op) {
  size_t lo = 0, hi = sizeof prims / sizeof *prims; /* the table is in ascending order of number */
  while (lo < hi) {
    const size_t mid = (lo + hi) / 2;
    if (prims[mid].op == op) return &prims[mid];
    if (prims[mid].op < op)
      lo = mid + 1;
    else
      hi = mid;
  }
  return NULL;
}

size_t nest_item_size(uint32_t dtype) {
  static const uint8_t size[TERN_DTYPE_END] = {0, 1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 2, 4, 8};
  return dtype < TERN_DTYPE_END ? size[dtype] : 0;
}

const char *nest_dtype_name(uint32_t dtype) {
  static const char *const name[TERN_DTYPE_END] = {"none",    "bool",     "int8",    "int16",  "int32",
                                                   "int64",   "uint8",    "uint16",  "uint32", "uint64",
                                                   "float16", "bfloat16", "float32", "float64"};
  return dtype < TERN_DTYPE_END ? name[dtype] : "unknown dtype";
}

tern_rc nest__fail(char *message, size_t size, tern_rc rc, const char *format, ...) {
  if (!message || !size) return rc;
  va_list ap;
  va_start(ap, format);
  vsnprintf(message, size, format, ap);
  va_end(ap);
  return rc;
}

static bool is_rank0_kind(const tern_value *v) {
  return v->kind == TERN_V_CONST || v->kind == TERN_V_PARAM || v->kind == TERN_V_SIZE;
}

tern_rc nest__check_value(const tern_region *r, uint32_t i, char *message, size_t size) {
  const tern_value *v = &r->values[i];
  if (!nest_item_size(v->dtype))
    return nest__fail(message, size, TERN_E_UNSUPPORTED, "value %u has dtype %u, which is unknown here", i, v->dtype);
  if (v->rank > TERN_MAX_RANK)
    return nest__fail(message, size, TERN_E_ARG, "value %u has rank %u (at most 8)", i, v->rank);
  if (v->layout) return nest__fail(message, size, TERN_E_UNSUPPORTED, "value %u has a packed layout", i);
  for (uint32_t d = 0; d < v->rank; d++) {
    if (TERN_IS_SYM(v->shape[d]) ? TERN_SYM_ID(v->shape[d]) >= r->n_words : v->shape[d] < 1)
      return nest__fail(message, size, TERN_E_ARG, "value %u: bad size in dim %u", i, d);
    if (TERN_IS_SYM(v->stride[d]) && TERN_SYM_ID(v->stride[d]) >= r->n_words)
      return nest__fail(message, size, TERN_E_ARG, "value %u: stride of dim %u names a word that does not exist", i, d);
  }
  if (is_rank0_kind(v) && v->rank)
    return nest__fail(message, size, TERN_E_ARG, "value %u: a scalar kind with rank %u", i, v->rank);
  switch (v->kind) {
  case TERN_V_IN:
  case TERN_V_OUT:
    return v->slot < r->n_args ? TERN_OK
                               : nest__fail(message, size, TERN_E_ARG, "value %u: no argument %u", i, v->slot);
  case TERN_V_TEMP:
  case TERN_V_CONST: return TERN_OK;
  case TERN_V_PARAM:
    return v->slot < r->n_words ? TERN_OK
                                : nest__fail(message, size, TERN_E_ARG, "value %u: no launch word %u", i, v->slot);
  case TERN_V_SIZE:
    if (v->slot >= r->n_values || v->imm.u >> r->values[v->slot].rank)
      return nest__fail(message, size, TERN_E_ARG, "value %u: a size of dims that do not exist", i);
    return TERN_OK;
  case TERN_V_VIEW:
    if (v->slot >= r->n_values || (TERN_IS_SYM(v->offset) && TERN_SYM_ID(v->offset) >= r->n_words))
      return nest__fail(message, size, TERN_E_ARG, "value %u: a view of a value or by a word that does not exist", i);
    if (r->values[v->slot].kind == TERN_V_VIEW || is_rank0_kind(&r->values[v->slot]))
      return nest__fail(message, size, TERN_E_UNSUPPORTED, "value %u: a view of a view or of a scalar", i);
    if (r->values[v->slot].dtype != v->dtype)
      return nest__fail(message, size, TERN_E_ARG, "value %u: a view changes the dtype", i);
    return TERN_OK;
  default: return nest__fail(message, size, TERN_E_UNSUPPORTED, "value %u: unknown kind %u", i, v->kind);
  }
}

static uint32_t map_out_dtype(const nest_prim *p, uint32_t in, uint32_t out) {
  switch (p->op) {
  case TERN_OP_CAST:
  case TERN_OP_IOTA: return out;
  case TERN_OP_RNG: return TERN_U32;
  case TERN_OP_ISNAN:
  case TERN_OP_ISINF:
  case TERN_OP_ISFINITE:
  case TERN_OP_SIGNBIT: return TERN_BOOL;
  case TERN_OP_ARGMAX:
  case TERN_OP_ARGMIN:
  case TERN_OP_ARGSORT: return TERN_I64;
  default: return p->op >= TERN_OP_EQ && p->op <= TERN_OP_GE ? TERN_BOOL : in;
  }
}

static uint32_t attrs_of(const nest_prim *p) {
  if (p->kind == TERN_K_SCAN) return 2;
  if (p->kind == TERN_K_CONV) return 5; /* 8 with two spatial dims */
  return p->kind == TERN_K_REDUCE || p->op == TERN_OP_RNG || p->op == TERN_OP_IOTA || p->kind == TERN_K_SORT ||
                 p->kind == TERN_K_SCATTER
             ? 1
             : 0;
}

static tern_rc check_dtypes(const tern_region *r, uint32_t n, const nest_prim *p, char *message, size_t size) {
  const uint32_t out = r->values[nest_out(r, n)].dtype, first = p->op == TERN_OP_WHERE ? 1 : 0;
  uint32_t in = p->n_in ? r->values[nest_in(r, n, first)].dtype : out;
  if (p->op == TERN_OP_WHERE && r->values[nest_in(r, n, 0)].dtype != TERN_BOOL)
    return nest__fail(message, size, TERN_E_ARG, "WHERE (node %u): the condition is not bool", n);
  const bool indexed = p->kind == TERN_K_GATHER || p->kind == TERN_K_SCATTER; /* input 1 has a dtype of its own */
  for (uint32_t i = first; i < p->n_in; i++)
    if (r->values[nest_in(r, n, i)].dtype != in && !(indexed && i == 1))
      return nest__fail(message, size, TERN_E_ARG, "%s (node %u): inputs of two dtypes, %s and %s", p->name, n,
                        nest_dtype_name(in), nest_dtype_name(r->values[nest_in(r, n, i)].dtype));
  const bool added_bools = p->op == TERN_OP_SCATTER && in == TERN_BOOL && nest_attr(r, n, 0) == 0;
  if (in >= TERN_DTYPE_END || out >= TERN_DTYPE_END || !(p->dtypes >> in & 1) || added_bools)
    return nest__fail(message, size, TERN_E_UNSUPPORTED, "%s (node %u) has no meaning for %s", p->name, n,
                      nest_dtype_name(in));
  const bool dot32 = p->op == TERN_OP_DOT && (in == TERN_I8 || in == TERN_U8) && out == TERN_I32;
  if (out != map_out_dtype(p, in, out) && !dot32)
    return nest__fail(message, size, TERN_E_ARG, "%s (node %u): output %s from %s", p->name, n, nest_dtype_name(out),
                      nest_dtype_name(in));
  return TERN_OK;
}

static tern_rc check_shapes(const tern_region *r, uint32_t n, const nest_prim *p, char *message, size_t size) {
  const tern_value *out = &r->values[nest_out(r, n)];
  const uint64_t red = p->kind == TERN_K_REDUCE ? (uint64_t)nest_attr(r, n, 0) : 0;
  if (p->kind == TERN_K_REDUCE && (!red || red >> out->rank))
    return nest__fail(message, size, TERN_E_ARG, "%s (node %u) reduces no dim, or one that does not exist", p->name, n);
  for (uint32_t i = 0; i < p->n_in; i++) {
    const tern_value *in = &r->values[nest_in(r, n, i)];
    if (in->rank != out->rank && !(in->rank == 0 && p->kind == TERN_K_MAP))
      return nest__fail(message, size, TERN_E_ARG, "%s (node %u): input %u has rank %u, the output %u", p->name, n, i,
                        in->rank, out->rank);
    for (uint32_t d = 0; d < in->rank; d++) {
      const bool reduced = red >> d & 1;
      if (reduced ? out->shape[d] != 1 : in->shape[d] != out->shape[d] && (red || in->shape[d] != 1))
        return nest__fail(message, size, TERN_E_ARG, "%s (node %u): input %u does not fit the output in dim %u",
                          p->name, n, i, d);
    }
  }
  if (p->op == TERN_OP_RNG && (r->values[nest_in(r, n, 0)].rank || r->values[nest_in(r, n, 1)].rank))
    return nest__fail(message, size, TERN_E_ARG, "RNG (node %u): key and counter are of rank 0", n);
  if (p->op == TERN_OP_IOTA && (nest_attr(r, n, 0) < 0 || nest_attr(r, n, 0) >= out->rank))
    return nest__fail(message, size, TERN_E_ARG, "IOTA (node %u): no dim %lld", n, (long long)nest_attr(r, n, 0));
  return TERN_OK;
}

tern_rc nest_check_node(const tern_region *r, uint32_t n, char *message, size_t size) {
  const tern_node *node = &r->nodes[n];
  const nest_prim *p = nest_prim_of(node->op);
  if (!p) return nest__fail(message, size, TERN_E_UNSUPPORTED, "node %u: unknown primitive %u", n, node->op);
  if (node->n_in != p->n_in || node->n_out != 1 || node->n_attr < attrs_of(p))
    return nest__fail(message, size, TERN_E_ARG, "%s (node %u) has %u inputs, %u outputs, %u attributes", p->name, n,
                      node->n_in, node->n_out, node->n_attr);
  const tern_rc rc = check_dtypes(r, n, p, message, size);
  if (rc || (p->kind != TERN_K_MAP && p->kind != TERN_K_REDUCE)) return rc;
  return check_shapes(r, n, p, message, size);
}
