/* Constant folding: a node whose operands are all known runs once, as an eager call of the same op on the same operands
   on the same device, and is a constant from then on. `full` is left as it is (a literal in a kernel), but counts as
   known; so does what is written into `empty` piece by piece, of which the last whole becomes a constant. */
#include "base/alloc.h"
#include "device/device.h"
#include "dispatch/dispatch.h"
#include "graph/passes/simplify_parts.h"
#include <stdlib.h>
#include <tern/device.h>
#include <tern/ops.h>

enum { UNKNOWN = 0, KNOWN, WRITTEN /* empty, and writes of what is known over it */ };

typedef struct folder {
  tern__graph *g;
  uint64_t most;  /* bytes */
  uint8_t *known; /* of each value */
  bool *read;     /* WRITTEN values that something else than a write reads */
} folder;

static bool small(const folder *f, const tern__ir_value *v) {
  const int64_t n = tern__numel(v->rank, v->shape);
  return n >= 0 && (uint64_t)n * tern__dtype_size[v->dtype] <= f->most;
}

static bool plain_words(const tern__ir_node *n) {
  for (uint32_t k = 0; k < n->n_attr; k++)
    if (tern__varies(n->attr[k].i)) return false;
  return n->op != &tern__op_full ||
         !tern__varies_word(n->attr[n->attr[0].i + 2], (tern_dtype)n->attr[n->attr[0].i + 1].i);
}

/* What node n, of one output, gives. */
static uint8_t knowledge(const folder *f, const tern__ir_node *n) {
  if (n->kind == TERN__IR_CONST) return KNOWN;
  if (n->kind == TERN__IR_SCALAR)
    return tern__varies_word(n->attr[0], (tern_dtype)f->g->value[n->first_out].dtype) ? UNKNOWN : KNOWN;
  const tern__ir_value *out = &f->g->value[n->first_out];
  if (n->kind != TERN__IR_OP || n->op->draws || !n->device || out->weak || !small(f, out) || !plain_words(n))
    return UNKNOWN;
  if (n->op == &tern__op_empty) return WRITTEN;
  if (!n->op->infer && !tern__ir_is_view(n) && n->op != &tern__op_to) return UNKNOWN;
  const uint32_t first = n->op == &tern__op_write;
  for (uint32_t k = first; k < n->n_in; k++)
    if (n->in[k] != TERN__IR_NONE && f->known[n->in[k]] != KNOWN) return UNKNOWN;
  return first ? f->known[n->in[0]] == UNKNOWN ? UNKNOWN : WRITTEN : KNOWN;
}

/* ---- one node, eagerly. Results are borrowed from the scope; NULL: it failed ---- */

static tern_tensor *operand(const folder *f, uint32_t v) {
  if (v == TERN__IR_NONE) return TERN_NONE;
  const tern__ir_node *n = tern__maker(f->g, v);
  if (n->kind == TERN__IR_CONST) return n->tensor;
  if (n->kind == TERN__IR_SCALAR)
    return f->g->value[v].dtype == TERN_F64 ? tern_scalar(n->attr[0].f) : tern_scalar_int(n->attr[0].i);
  return tern__run_on(n->device, n->op, NULL, 0, n->attr, n->n_attr); /* full */
}

static tern_tensor *sliced(tern_tensor *x, const tern_word *attr, const tern__ir_value *out) {
  const int dropped = (int)attr[0].i, rank = x->rank;
  tern_range range[TERN_MAX_RANK];
  for (int d = 0, k = 0; d < rank; d++) {
    const int64_t first = attr[1 + 2 * d].i, step = attr[2 + 2 * d].i, n = d == dropped ? 1 : out->shape[k++];
    const int64_t stop = n ? first + (n - 1) * step + (step > 0 ? 1 : -1) : first;
    range[d] = TERN_RANGE(first, stop < 0 ? TERN_OPEN : stop, step);
  }
  x = tern_slice(x, range, rank);
  return x && dropped >= 0 ? tern_index(x, dropped, 0) : x;
}

static tern_tensor *view(const tern__ir_node *n, tern_tensor *x, const tern__ir_value *out) {
  if (n->op == &tern__op_slice) return sliced(x, n->attr, out);
  if (n->op == &tern__op_reshape) return tern_reshape(x, tern_shape_of(out->rank, out->shape));
  if (n->op == &tern__op_expand) return tern_expand(x, tern_shape_of(out->rank, out->shape));
  int order[TERN_MAX_RANK];
  for (int d = 0; d < n->n_attr; d++) order[d] = (int)n->attr[d].i;
  return tern_permute(x, order, n->n_attr);
}

static tern_rc write_part(tern_tensor *whole, const tern__ir_node *n, tern_tensor *source) {
  tern_tensor *part = tern__view_header(whole);
  if (!part) return TERN_E_OOM;
  part->rank = (uint8_t)n->attr[1].i;
  part->offset = whole->offset + n->attr[0].i;
  for (int d = 0; d < part->rank; d++) {
    part->shape[d] = n->attr[2 + d].i;
    part->stride[d] = n->attr[2 + part->rank + d].i;
  }
  tern__set_contig_flag(part);
  const tern_rc rc = tern__write(part, source);
  tern__unref(part);
  return rc;
}

/* The memory that chain of writes ends with: from its beginning on, copied or fresh. */
static tern_tensor *written(const folder *f, const tern__ir_node *n) {
  const tern__ir_value *out = &f->g->value[n->first_out];
  if (n->kind != TERN__IR_OP || n->op == &tern__op_full) {
    tern_tensor *base = operand(f, n->first_out);
    return base ? tern_clone(base) : NULL;
  }
  if (n->op == &tern__op_empty) {
    tern_word attr[TERN_MAX_RANK + 3] = {{.i = out->rank}};
    for (int d = 0; d < out->rank; d++) attr[1 + d].i = out->shape[d];
    attr[out->rank + 1].i = out->dtype; /* zeros */
    return tern__run_on(n->device, &tern__op_full, NULL, 0, attr, out->rank + 3);
  }
  const tern__ir_node *below = tern__maker(f->g, n->in[0]);
  tern_tensor *whole = written(f, below), *source = whole ? operand(f, n->in[1]) : NULL;
  return source && !write_part(whole, n, source) ? whole : NULL;
}

static tern_tensor *run(const folder *f, const tern__ir_node *n) {
  tern_tensor *in[TERN__MAX_ARGS];
  const tern__ir_value *out = &f->g->value[n->first_out];
  if (n->op == &tern__op_write) return written(f, n);
  if (n->n_in > TERN__MAX_ARGS) return NULL;
  for (uint32_t k = 0; k < n->n_in; k++)
    if (!(in[k] = operand(f, n->in[k]))) return NULL;
  if (tern__ir_is_view(n)) return view(n, in[0], out);
  if (n->op == &tern__op_to) return tern_to(in[0], n->device->name);
  return tern__run_on(n->device, n->op, in, (int)n->n_in, n->attr, n->n_attr);
}

/* ---- the pass ---- */

/* The tensor is what the value says. */
static bool fits(const tern__ir_value *v, const tern_tensor *t) {
  return t->dtype == v->dtype && t->rank == v->rank && t->device == v->device && !(t->flags & TERN__WEAK) &&
         !memcmp(t->shape, v->shape, v->rank * sizeof *v->shape);
}

/* Whether it became a constant. What fails is left for the run to report. */
static bool fold(folder *f, tern__thread *t, tern__ir_node *n) {
  const bool clean = t->error_state != TERN__ERROR_UNREAD;
  tern_scope_mark mark = tern_scope_begin();
  tern_tensor *made = run(f, n);
  if (made && !(made->flags & (TERN__WEAK | TERN__CONTIG))) made = tern_contiguous(made); /* constants are row-major */
  if (made && made->storage && made->storage->bytes > 2 * f->most && !(made->flags & TERN__WEAK))
    made = tern_clone(made); /* a view must not keep much larger memory alive */
  const bool ok = made && fits(&f->g->value[n->first_out], made);
  if (ok) {
    n->tensor = tern__ref(made);
    n->kind = TERN__IR_CONST;
    n->op = NULL;
    n->n_in = 0;
    n->n_attr = 0;
  }
  tern_scope_end(&mark);
  if (clean && t->error_state == TERN__ERROR_UNREAD) t->error_state = TERN__ERROR_NONE;
  return ok;
}

static bool worthwhile(const folder *f, const tern__ir_node *n) {
  if (n->kind != TERN__IR_OP || n->n_out != 1 || n->op == &tern__op_full || n->op == &tern__op_empty) return false;
  const uint8_t known = f->known[n->first_out];
  return known == KNOWN || (known == WRITTEN && f->read[n->first_out]);
}

static void mark_reads(folder *f) {
  const tern__graph *g = f->g;
  for (uint32_t i = 0; i < g->n_nodes; i++)
    for (uint32_t k = 0; g->node[i].kind != TERN__IR_DEAD && k < g->node[i].n_in; k++) {
      const tern__ir_node *n = &g->node[i];
      if (n->in[k] == TERN__IR_NONE) continue;
      const bool writes = n->kind == TERN__IR_OP && n->op == &tern__op_write && k == 0;
      if (!writes || f->known[n->first_out] != WRITTEN) f->read[n->in[k]] = true;
    }
  for (uint32_t i = 0; i < g->n_outputs; i++)
    if (g->output[i] != TERN__IR_NONE) f->read[g->output[i]] = true;
  for (uint32_t i = 0; i < g->n_variables; i++) f->read[g->variable[i].value] = true;
}

/* First what is known, then, in order, what of it is made constant: a write whose whole was folded is KNOWN after. */
static void fold_all(folder *f, tern__thread *t, bool *changed) {
  tern__graph *g = f->g;
  for (uint32_t i = 0; i < g->n_nodes; i++)
    if (g->node[i].n_out == 1) f->known[g->node[i].first_out] = knowledge(f, &g->node[i]);
  mark_reads(f);
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    tern__ir_node *n = &g->node[i];
    if (n->n_out != 1) continue;
    if (f->known[n->first_out] == KNOWN) f->known[n->first_out] = knowledge(f, n);
    if (!worthwhile(f, n)) continue;
    const bool done = fold(f, t, n);
    f->known[n->first_out] = done ? KNOWN : UNKNOWN;
    *changed |= done;
  }
}

tern_rc tern__simplify_fold(tern__graph *g, const tern__simplify_opts *opts, bool *changed) {
  tern__thread *t = tern__thread_get();
  folder f = {.g = g, .most = opts && opts->fold_bytes ? opts->fold_bytes : UINT64_C(64) << 10};
  f.known = tern__calloc(g->n_values + 1u, sizeof *f.known);
  f.read = tern__calloc(g->n_values + 1u, sizeof *f.read);
  const bool ok = t && f.known && f.read;
  if (ok) {
    const uint32_t hooks = t->hooks;
    t->hooks = 0; /* not a part of what is traced or recorded */
    fold_all(&f, t, changed);
    t->hooks = hooks;
  }
  free(f.known);
  free(f.read);
  return ok ? TERN_OK : tern__fail(TERN_E_OOM, "fold: out of host memory");
}
