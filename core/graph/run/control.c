/* COND and WHILE steps: bodies are programs of their own. The states of a loop go from trip to trip without copies; a
   body that writes into a state in place gets one that nothing else has. */
#include "base/alloc.h"
#include "device/device.h"
#include "graph/passes/sweep.h"
#include "graph/run/program.h"
#include "tensor/dtype.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FEW = 32 };

/* What a body gave goes to where the graph wants result o, or to its part-th part of x's size. */
static tern_rc place_result(const tern__program *p, tern__frame *f, const tern__pstep *s, uint32_t o, int64_t part,
                            tern_tensor *x) {
  tern__storage *to = &f->storage[p->args[s->first_arg + p->graph->node[s->node].n_in + o].buffer];
  if (x->numel == 0) return TERN_OK;
  const tern_tensor *dense = x->flags & TERN__CONTIG ? x : tern_contiguous(x);
  if (!dense) return tern__recorded();
  const uint64_t item = tern__dtype_size[x->dtype];
  const uint64_t bytes = (uint64_t)x->numel * item;
  return tern__copy_bytes(to, (uint64_t)part * bytes, dense->storage, (uint64_t)dense->offset * item, bytes);
}

static tern_rc place_results(const tern__program *p, tern__frame *f, const tern__pstep *s, uint32_t n,
                             tern_tensor *const *from) {
  tern_rc rc = TERN_OK;
  for (uint32_t o = 0; o < n && !rc; o++) rc = place_result(p, f, s, o, 0, from[o]);
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
  if (!rc) rc = place_results(p, f, s, n->n_out, out);
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
  if (!rc) rc = place_results(p, f, s, n->n_out, in);
  drop(state, n->n_out);
  return rc;
}

/* ---- loops over slices (passes/sweep.h) ---- */

/* One part's run of such a loop (passes/rows.h), and where its slices are, by operand. */
typedef struct slices {
  const tern__program *p;
  tern__frame *f;
  const tern__pstep *s;
  const tern__ir_node *n;
  int64_t part;
  tern_tensor **begin, **in, **out, **state; /* begin: headers that end here; in: they, then states */
  bool *written;
  tern__storage **stack; /* of a state that is a stack: all of it; else NULL */
  tern__storage *slot;   /* two a state: the slice of this trip, that of the last one */
  tern__storage **given; /* by fresh buffer of the body: where it is to be */
  uint32_t *fresh;       /* of a stack: the buffer that is its slice; TERN__NO: the slice is copied there */
} slices;

static tern__sweep_way way_of(const slices *x, uint32_t k) { return tern__sweep_way_of(x->n, k); }

/* Which of how many parts of operand or result k this part has. */
static int64_t parts_of(const slices *x, uint32_t k) {
  return x->n->attr[TERN__SWEEP_WAY + k].i & TERN__SWEEP_ROWS ? x->n->attr[TERN__SWEEP_PARTS].i : 1;
}
static int64_t part_of(const slices *x, uint32_t k) { return parts_of(x, k) > 1 ? x->part : 0; }

static int64_t place_of(const slices *x, uint32_t k, int64_t trip) {
  const tern__sweep_way way = way_of(x, k);
  return way == TERN__SWEEP_BACK || way == TERN__SWEEP_STACK_BACK ? x->n->attr[TERN__SWEEP_TRIPS].i - 1 - trip : trip;
}

/* The buffer in which the body makes stack k's slice; none where the slice is part of something else, or in two
   stacks. */
static uint32_t fresh_of(const slices *x, uint32_t k) {
  const uint32_t fresh = tern__program_fresh(x->s->body[1], k);
  for (uint32_t o = 0; o < k; o++)
    if (x->fresh[o] == fresh) return TERN__NO;
  return fresh;
}

/* Operands become those of the first trip, of this part. */
static void slices_begin(slices *x) {
  for (uint32_t k = 0; k < x->n->n_in; k++) {
    const tern__sweep_way way = way_of(x, k);
    tern_tensor *in = x->in[k];
    if (way == TERN__SWEEP_SLICE || way == TERN__SWEEP_BACK) {
      in->rank--;
      memmove(in->shape, in->shape + 1, in->rank * sizeof *in->shape);
    }
    if (way < TERN__SWEEP_STACK && in->rank > 0) in->shape[0] /= parts_of(x, k);
    tern__set_dense(in);
    if (way == TERN__SWEEP_WHOLE) in->offset = part_of(x, k) * in->numel;
    if (k >= x->n->n_out) continue;
    x->fresh[k] = TERN__NO;
    x->written[k] = false;
    if (way >= TERN__SWEEP_STACK) {
      x->stack[k] = &x->f->storage[x->p->args[x->s->first_arg + x->n->n_in + k].buffer];
      if (x->part == 0 || parts_of(x, k) > 1) x->fresh[k] = fresh_of(x, k);
    } else {
      x->written[k] = overwrites(x->s->body[1], k);
    }
  }
}

/* Where in stack k this part of the trip's slice lies, in bytes; *bytes: its size. */
static uint64_t place_in(const slices *x, uint32_t k, int64_t trip, uint64_t *bytes) {
  const uint64_t slice = x->stack[k]->bytes / (uint64_t)x->n->attr[TERN__SWEEP_TRIPS].i;
  *bytes = slice / (uint64_t)parts_of(x, k);
  return (uint64_t)place_of(x, k, trip) * slice + (uint64_t)part_of(x, k) * *bytes;
}

/* Slices of this trip, of operands and of stacks. */
static void slices_move(const slices *x, int64_t trip) {
  for (uint32_t k = 0; k < x->n->n_in; k++) {
    const tern__sweep_way way = way_of(x, k);
    if (way == TERN__SWEEP_SLICE || way == TERN__SWEEP_BACK)
      x->in[k]->offset = (place_of(x, k, trip) * parts_of(x, k) + part_of(x, k)) * x->in[k]->numel;
    if (k >= x->n->n_out || x->fresh[k] == TERN__NO) continue;
    tern__storage *slot = &x->slot[2 * k + (trip & 1)];
    uint64_t bytes;
    const uint64_t at = place_in(x, k, trip, &bytes);
    *slot = *x->stack[k];
    slot->mem_offset += at;
    slot->host = slot->host ? slot->host + at : NULL;
    slot->bytes = bytes;
    x->given[x->fresh[k]] = slot;
  }
}

/* Results become the next states; slices that were made elsewhere go to where they belong. */
static tern_rc slices_end(const slices *x, int64_t trip) {
  tern_tensor **in = x->in, **out = x->out, **state = x->state;
  tern_rc rc = TERN_OK;
  for (uint32_t o = 0; o < x->n->n_out && !rc; o++) {
    if (!x->stack[o] || x->fresh[o] != TERN__NO || out[o]->numel == 0 || (x->part > 0 && parts_of(x, o) == 1)) continue;
    const uint64_t item = tern__dtype_size[out[o]->dtype];
    uint64_t bytes;
    const uint64_t at = place_in(x, o, trip, &bytes);
    tern_tensor *dense = out[o]->flags & TERN__CONTIG ? out[o] : tern_contiguous(out[o]);
    rc = dense ? tern__copy_bytes(x->stack[o], at, dense->storage, (uint64_t)dense->offset * item, bytes)
               : tern__recorded();
  }
  for (uint32_t o = 0; o < x->n->n_out && !rc; o++) {
    if (x->stack[o] || out[o] == TERN_NONE) continue;
    if (state[o]) tern__unref(state[o]);
    state[o] = in[o] = out[o];
    out[o] = NULL;
  }
  drop(out, x->n->n_out);
  return rc;
}

static tern_rc run_slices(slices *x) {
  const tern__pstep *s = x->s;
  tern_rc rc = TERN_OK;
  slices_begin(x);
  for (int64_t trip = 0; trip < x->n->attr[TERN__SWEEP_TRIPS].i && !rc; trip++) {
    tern_scope_mark mark = tern_scope_begin();
    slices_move(x, trip);
    rc = prepare(x->written, x->in, x->state, x->n->n_out);
    if (!rc) rc = tern__program_run_into(s->body[1], x->in, x->out, x->given);
    if (!rc) rc = slices_end(x, trip);
    tern_scope_end(&mark);
  }
  drop(x->out, x->n->n_out);
  for (uint32_t o = 0; o < x->n->n_out && !rc; o++)
    if (!x->stack[o] && (x->part == 0 || parts_of(x, o) > 1))
      rc = place_result(x->p, x->f, s, o, part_of(x, o), x->in[o]);
  drop(x->state, x->n->n_out);
  return rc;
}

/* Room for one part, zeroed. NULL: no memory. */
static slices *slices_new(const tern__program *p, tern__frame *f, const tern__pstep *s) {
  const tern__ir_node *n = &p->graph->node[s->node];
  const size_t out = n->n_out + 1, pointers = 2 * (size_t)n->n_in + 4 * out;
  slices *x = tern__calloc(1, sizeof *x + 2 * out * sizeof *x->slot + pointers * sizeof(void *) +
                                  out * (sizeof *x->fresh + sizeof *x->written));
  if (!x) return NULL;
  x->p = p;
  x->f = f;
  x->s = s;
  x->n = n;
  x->slot = (tern__storage *)(void *)(x + 1);
  x->begin = (tern_tensor **)(void *)(x->slot + 2 * out);
  x->in = x->begin + n->n_in;
  x->out = x->in + n->n_in;
  x->state = x->out + out;
  x->stack = (tern__storage **)(void *)(x->state + out);
  x->given = x->stack + out;
  x->fresh = (uint32_t *)(void *)(x->given + out);
  x->written = (bool *)(x->fresh + out);
  for (uint32_t i = 0; i < n->n_in; i++)
    if (!(x->in[i] = x->begin[i] = tern__program_header(p, f, s, i, n->in[i]))) {
      drop(x->begin, i);
      free(x);
      return NULL;
    }
  return x;
}

typedef struct crew {
  slices **part;
  pthread_mutex_t lock;
  tern_rc rc; /* the first part's that failed, with its message */
  char why[512];
} crew;

static void crew_member(void *context, uint32_t i) {
  crew *c = context;
  tern_scope_mark mark = tern_scope_begin();
  c->part[i]->part = i;
  const tern_rc rc = tern__thread_get() ? run_slices(c->part[i]) : TERN_E_OOM;
  tern_scope_end(&mark);
  if (!rc) return;
  pthread_mutex_lock(&c->lock);
  if (!c->rc) snprintf(c->why, sizeof c->why, "%s", tern__pending());
  c->rc = c->rc ? c->rc : rc;
  pthread_mutex_unlock(&c->lock);
  tern_error_clear();
}

static tern_rc run_parts_here(crew *c, uint32_t parts) {
  for (uint32_t i = 0; i < parts && !c->rc; i++) crew_member(c, i);
  return c->rc;
}

/* All parts: on the device's threads, or, where they are busy, here one after the other. */
static tern_rc run_sweep(const tern__program *p, tern__frame *f, const tern__pstep *s) {
  const tern__ir_node *n = &p->graph->node[s->node];
  const uint32_t parts = (uint32_t)n->attr[TERN__SWEEP_PARTS].i;
  slices *one, **part = parts == 1 ? &one : tern__calloc(parts, sizeof(slices *));
  crew c = {.part = part, .lock = PTHREAD_MUTEX_INITIALIZER};
  uint32_t made = 0;
  while (part && made < parts && (part[made] = slices_new(p, f, s))) made++;
  tern_rc rc = TERN_OK;
  if (!part || made < parts)
    rc = tern__fail(TERN_E_OOM, "graph: out of host memory for a loop");
  else if (parts == 1)
    rc = run_slices(one);
  else if ((rc = n->device->api->team(n->device->dev, parts, crew_member, &c)) == TERN_E_UNSUPPORTED)
    rc = run_parts_here(&c, parts);
  else if (rc)
    rc = tern__device_failed(n->device, rc, "running a loop's parts");
  if (c.rc) rc = tern__fail(c.rc, "%s", c.why);
  for (uint32_t i = 0; i < made; i++) {
    drop(part[i]->begin, n->n_in);
    free(part[i]);
  }
  if (parts > 1) free(part);
  pthread_mutex_destroy(&c.lock);
  return rc;
}

/* in[]: headers that end here; a loop puts its states there meanwhile. */
static tern_rc with_lists(const tern__program *p, tern__frame *f, const tern__pstep *s, tern_tensor **list) {
  const tern__ir_node *n = &p->graph->node[s->node];
  tern_tensor **begin = list, **in = begin + n->n_in, **out = in + n->n_in, **state = out + n->n_out;
  bool *written = (bool *)(state + n->n_out);
  if (s->kind != TERN__L_COND && tern__sweeps(n)) return run_sweep(p, f, s);
  tern_rc rc = TERN_OK;
  for (uint32_t i = 0; i < n->n_in && !rc; i++)
    if (!(in[i] = begin[i] = tern__program_header(p, f, s, i, n->in[i]))) rc = TERN_E_OOM;
  if (!rc && s->kind == TERN__L_COND)
    rc = run_cond(p, f, s, in, out);
  else if (!rc)
    rc = run_while(p, f, s, in, out, state, written);
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
