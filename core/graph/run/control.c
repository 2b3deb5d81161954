/* COND and WHILE steps: bodies are programs of their own. The states of a loop go from trip to trip without copies; a
   body that writes into a state in place gets one that nothing else has. */
#include "base/alloc.h"
#include "device/device.h"
#include "graph/run/program.h"
#include "tensor/dtype.h"
#include <stdlib.h>

enum { FEW = 32 };

/* What a body gave goes to where the graph wants it. */
static tern_rc place_results(const tern__program *p, tern__frame *f, const tern__pstep *s, uint32_t n_in, uint32_t n,
                             tern_tensor *const *from) {
  tern_rc rc = TERN_OK;
  for (uint32_t o = 0; o < n && !rc; o++) {
    tern__storage *to = &f->storage[p->args[s->first_arg + n_in + o].buffer];
    tern_tensor *x = from[o];
    if (x->numel == 0) continue;
    tern_tensor *dense = x->flags & TERN__CONTIG ? x : tern_contiguous(x);
    rc = dense ? tern__copy_bytes(to, 0, dense->storage, (uint64_t)dense->offset * tern__dtype_size[dense->dtype],
                                  (uint64_t)x->numel * tern__dtype_size[x->dtype])
               : tern__recorded();
  }
  return rc;
}

static tern_rc truth_of(tern_tensor *t, bool *truth) {
  uint8_t byte = 0;
  const tern_rc rc = tern_to_host(t, &byte, 1);
  *truth = byte != 0;
  return rc;
}

static void drop(tern_tensor **list, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    if (list[i] && list[i] != TERN_NONE) tern__unref(list[i]);
    list[i] = NULL;
  }
}

static tern_rc run_cond(const tern__program *p, tern__frame *f, const tern__pstep *s, tern_tensor **in,
                        tern_tensor **out) {
  const tern__ir_node *n = &p->graph->node[s->node];
  bool truth = false;
  tern_rc rc = truth_of(in[0], &truth);
  if (!rc) rc = tern__program_run(s->body[truth ? 0 : 1], in + 1, out);
  if (!rc) rc = place_results(p, f, s, n->n_in, n->n_out, out);
  drop(out, n->n_out);
  return rc;
}

/* ---- loops ---- */

/* Whether the body writes into the memory of its input k. */
static bool overwrites(const tern__program *body, uint32_t k) {
  for (uint32_t b = 0; b < body->n_buffers; b++) {
    const tern__pbuffer *root = &body->buffer[body->buffer[b].root];
    if (body->buffer[b].root != b && root->place == TERN__PLACE_INPUT && root->index == k) return true;
  }
  return false;
}

/* A copy with memory of its own, one reference; NULL with the error set. */
static tern_tensor *own(const tern_tensor *x) {
  tern_tensor *y = tern__new(x->device, (tern_dtype)x->dtype, x->rank, x->shape, "while");
  if (!y || x->numel == 0) return y;
  const uint64_t item = tern__dtype_size[x->dtype];
  if (!tern__copy_bytes(y->storage, 0, x->storage, (uint64_t)x->offset * item, (uint64_t)x->numel * item)) return y;
  tern__unref(y);
  return NULL;
}

static bool is_own(const tern_tensor *x) {
  return atomic_load_explicit(&x->refs, memory_order_acquire) == 1 && x->offset == 0 && x->flags & TERN__CONTIG &&
         atomic_load_explicit(&x->storage->refs, memory_order_acquire) == 1;
}

/* Dense states, and for what is written in place memory that nobody else has. state[k]: NULL in the first trip. */
static tern_rc prepare(const bool *written, tern_tensor **in, tern_tensor **state, uint32_t n) {
  for (uint32_t k = 0; k < n; k++) {
    tern_tensor *x = in[k];
    if (written[k] ? state[k] && is_own(x) : (x->flags & TERN__CONTIG) != 0) continue;
    tern_tensor *dense = x->flags & TERN__CONTIG ? x : tern_contiguous(x), *mine = dense;
    if (dense && (written[k] || dense == x)) mine = own(dense);
    if (!mine) return tern__recorded();
    if (mine == dense) tern__ref(mine);
    if (state[k]) tern__unref(state[k]);
    state[k] = in[k] = mine;
  }
  return TERN_OK;
}

static tern_rc goes_on(const tern__pstep *s, tern_tensor **in, bool *truth) {
  tern_tensor *go = NULL;
  tern_rc rc = tern__program_run(s->body[0], in, &go);
  if (!rc) rc = truth_of(go, truth);
  drop(&go, 1);
  return rc;
}

static tern_rc run_while(const tern__program *p, tern__frame *f, const tern__pstep *s, tern_tensor **in,
                         tern_tensor **out, tern_tensor **state, bool *written) {
  const tern__ir_node *n = &p->graph->node[s->node];
  const int64_t limit = n->attr[0].i;
  tern_rc rc = TERN_OK;
  for (uint32_t k = 0; k < n->n_out; k++) written[k] = overwrites(s->body[1], k);
  for (int64_t trip = 0; !rc; trip++) {
    tern_scope_mark mark = tern_scope_begin();
    bool more = false;
    rc = goes_on(s, in, &more);
    if (!rc && more && limit > 0 && trip >= limit)
      rc = tern__fail(TERN_E_ARG, "while: the loop in \"%s\" would run more often than its limit, max_trips = %lld",
                      p->name, (long long)limit);
    if (!rc && more) rc = prepare(written, in, state, n->n_out);
    if (!rc && more) rc = tern__program_run(s->body[1], in, out);
    for (uint32_t o = 0; o < n->n_out && !rc && more; o++) {
      if (state[o]) tern__unref(state[o]);
      state[o] = in[o] = out[o];
      out[o] = NULL;
    }
    tern_scope_end(&mark);
    if (!more) break;
  }
  drop(out, n->n_out);
  if (!rc) rc = place_results(p, f, s, n->n_in, n->n_out, in);
  drop(state, n->n_out);
  return rc;
}

/* in[]: headers that end here; a loop puts its states there meanwhile. */
static tern_rc with_lists(const tern__program *p, tern__frame *f, const tern__pstep *s, tern_tensor **list) {
  const tern__ir_node *n = &p->graph->node[s->node];
  tern_tensor **begin = list, **in = begin + n->n_in, **out = in + n->n_in, **state = out + n->n_out;
  bool *written = (bool *)(state + n->n_out);
  tern_rc rc = TERN_OK;
  for (uint32_t i = 0; i < n->n_in && !rc; i++)
    if (!(in[i] = begin[i] = tern__program_header(p, f, s, i, n->in[i]))) rc = TERN_E_OOM;
  if (!rc) rc = s->kind == TERN__L_COND ? run_cond(p, f, s, in, out) : run_while(p, f, s, in, out, state, written);
  drop(begin, n->n_in);
  return rc;
}

tern_rc tern__run_control(const tern__program *p, tern__frame *f, const tern__pstep *s) {
  const tern__ir_node *n = &p->graph->node[s->node];
  const size_t pointers = 2 * (size_t)n->n_in + 3 * (size_t)n->n_out + 1;
  tern_tensor *few[5 * FEW] = {0};
  tern_tensor **list = pointers <= 5 * FEW ? few : tern__calloc(pointers, sizeof *list);
  if (!list) return tern__fail(TERN_E_OOM, "graph: out of host memory for control flow");
  tern_scope_mark mark = tern_scope_begin();
  const tern_rc rc = with_lists(p, f, s, list);
  tern_scope_end(&mark);
  if (list != few) free(list);
  return rc;
}
