/* The backward pass: from the record's last entry to where the tape began, each entry's rule turns the gradients of its
   results into those of its operands. What an entry held is released as soon as it is done, unless another tape needs
   it. */
#include "tape/tape.h"
#include "base/alloc.h"
#include "device/device.h"
#include "dispatch/dispatch.h"
#include "ops/table.h"
#include "tensor/dtype.h"
#include <stdio.h>
#include <stdlib.h>
#include <tern/ops.h>

/* One backward pass. */
typedef struct pass {
  tern__recorder *r;
  tern_tape *tape;
  tern_tensor **grad; /* by value number: owned references, or NULL */
  uint8_t *state;     /* by value number: SOURCE, NEEDED */
  uint32_t n_values;  /* when the pass began */
  bool free_as_it_goes;
} pass;
enum { SOURCE = 1, NEEDED = 2 };

/* A header without data, of the form of t; on the stack. */
static void stand_in(tern_tensor *s, const tern_tensor *t) {
  *s = *t;
  atomic_store_explicit(&s->refs, 1u << 30, memory_order_relaxed);
  s->storage = NULL;
  s->grad_id = 0;
  s->flags = t->flags & TERN__CONTIG;
}

/* A host scalar everywhere, of like's form. */
static tern_tensor *full_of(const tern_tensor *like, const tern_tensor *scalar) {
  tern_tensor form;
  stand_in(&form, like);
  return tern_full_like(&form, tern__word_double(scalar->imm, (tern_dtype)scalar->dtype));
}

tern_tensor *tern__fit(tern_tensor *g, const tern_tensor *like) {
  if (!g) return NULL;
  if (TERN__UNLIKELY(g->flags & TERN__WEAK)) return full_of(like, g);
  const int extra = g->rank - like->rank;
  tern_shape shape = tern_shape_of(like->rank, like->shape);
  bool same = extra == 0, narrow = extra > 0;
  int axes[TERN_MAX_RANK], n = 0;
  for (int d = 0; d < g->rank; d++) {
    const int64_t want = d < extra ? 1 : like->shape[d - extra];
    if (d >= extra && want == g->shape[d]) continue;
    same = false;
    if (want == 1 || d < extra) {
      axes[n++] = d;
      narrow = true;
    }
  }
  if (TERN__UNLIKELY(!same)) {
    if (narrow && n) g = tern_sum(g, &(tern_reduce_opts){.axes = axes, .n_axes = n, .keepdims = 1});
    if (g && extra > 0) { /* leading axes are 1 now */
      tern_shape inner = {.rank = like->rank};
      for (int d = 0; d < like->rank; d++) inner.dim[d] = g->shape[d + extra];
      g = tern_reshape(g, inner);
    }
    if (g && memcmp(g->shape, like->shape, (size_t)like->rank * sizeof *like->shape))
      g = tern_expand(g, shape);
    else if (g && g->rank != like->rank)
      g = tern_expand(g, shape);
  }
  if (g && g->dtype != like->dtype) g = tern_cast(g, (tern_dtype)like->dtype);
  return g;
}

/* grad[value] += g. g is borrowed. */
static bool accumulate(pass *p, int32_t value, tern_tensor *g) {
  tern_tensor *before = p->grad[value];
  tern_tensor *sum = before ? tern_add(before, g) : g;
  if (!sum) return false;
  tern__ref(sum);
  if (before) tern__unref(before);
  p->grad[value] = sum;
  return true;
}

/* Which values lead to a source: forwards through the tape's part of the record. */
static void mark_needed(pass *p) {
  const tern__chunk *c = p->r->first_chunk;
  const tern__entry *start = p->tape->start;
  uint32_t at = 0;
  if (start) {
    while ((const char *)start < c->data || (const char *)start >= c->data + c->capacity) c = c->next;
    at = (uint32_t)((const char *)start - c->data) + start->bytes;
  }
  for (; c; c = c->next, at = 0) {
    while (at < c->used) {
      tern__entry *e = (tern__entry *)(uintptr_t)(c->data + at);
      at += e->bytes;
      if (!(e->mask & p->tape->bit)) continue;
      bool needed = false;
      for (int i = 0; i < e->n_in && !needed; i++) {
        const int32_t v = tern__entry_values(e)[i];
        needed = v >= 0 && p->state[v] & NEEDED;
      }
      for (int o = 0; o < e->n_out && needed; o++) p->state[e->first_out + o] |= NEEDED;
    }
    if (c == p->r->chunk) break;
  }
}

static bool mismatch(const tern__entry *e, int i, const tern_tensor *g, const tern_tensor *like) {
  char a[200], b[200];
  tern__fail(TERN_E_ARG,
             "gradient of %s: its rule gave operand %d a gradient of shape %s, but the operand has shape %s",
             e->op->name, i + 1, tern__shape_text(a, g->rank, g->shape), tern__shape_text(b, like->rank, like->shape));
  return false;
}

/* Whether g can be summed or expanded to like's shape. */
static bool can_fit(const tern_tensor *g, const tern_tensor *like) {
  const int extra = g->rank - like->rank;
  for (int d = 0; d < like->rank; d++) {
    const int at = d + extra;
    if (at >= 0 && g->shape[at] != like->shape[d] && g->shape[at] != 1 && like->shape[d] != 1) return false;
  }
  return true;
}

static bool run_rule(pass *p, tern__entry *e, uint32_t wanted, tern_tensor *const *dout, tern_tensor *form) {
  enum { FEW = 16 };
  tern_tensor *few[2 * FEW];
  const int n = e->n_in;
  tern_tensor **in = n <= FEW ? few : tern__calloc((size_t)n * 2, sizeof *in), **din = in ? in + n : NULL;
  if (!in) return tern__fail(TERN_E_OOM, "tape_gradient: out of host memory"), false;
  for (int i = 0; i < n; i++) {
    in[i] = tern__entry_in(e)[i];
    if (!in[i]) in[i] = form; /* the form of output 0 */
    din[i] = TERN_NONE;
  }
  const tern__grad g = {.op = e->op,
                        .in = in,
                        .out = tern__entry_out(e),
                        .dout = dout,
                        .attr = tern__entry_attr(e),
                        .n_in = n,
                        .n_out = e->n_out,
                        .n_attr = e->n_attr,
                        .wanted = wanted};
  e->op->grad(&g, din);
  bool ok = true;
  for (int i = 0; i < n && ok; i++) {
    const int32_t v = tern__entry_values(e)[i];
    if (v < 0 || !(p->state[v] & NEEDED) || din[i] == TERN_NONE) continue;
    if (!din[i]) {
      ok = false;
    } else if (!can_fit(din[i], in[i])) {
      ok = mismatch(e, i, din[i], in[i]);
    } else {
      tern_tensor *fit = tern__fit(din[i], in[i]);
      ok = fit && accumulate(p, v, fit);
    }
  }
  if (in != few) free(in);
  return ok;
}

/* Adds the op's name to what went wrong inside of its rule. */
static void name_rule(const tern__op *op) {
  tern__thread *t = tern__tls;
  if (t->error_state != TERN__ERROR_UNREAD || !strncmp(t->error_text, "gradient of ", 12)) return;
  char why[900];
  snprintf(why, sizeof why, "%.890s", t->error_text);
  t->error_state = TERN__ERROR_NONE;
  tern__fail(t->error_code, "gradient of %s: %s", op->name, why);
}

static bool step(pass *p, tern__entry *e) {
  enum { FEW = 16 };
  tern_tensor *few[FEW], form;
  tern_tensor **dout = e->n_out <= FEW ? few : tern__calloc(e->n_out, sizeof *dout);
  if (!dout) return tern__fail(TERN_E_OOM, "tape_gradient: out of host memory"), false;
  bool any = false;
  for (int o = 0; o < e->n_out; o++) {
    dout[o] = p->grad[e->first_out + o];
    any |= dout[o] != NULL;
    if (!dout[o]) dout[o] = TERN_NONE;
  }
  bool ok = true;
  if (any) {
    uint32_t wanted = 0;
    bool leads = false;
    for (int i = 0; i < e->n_in; i++) {
      const int32_t v = tern__entry_values(e)[i];
      const bool want = v >= 0 && p->state[v] & NEEDED && p->r->values[v].mask & p->tape->bit;
      leads |= want;
      if (want && i < 32) wanted |= 1u << i;
    }
    if (leads) {
      tern_scope_mark mark = tern_scope_begin();
      stand_in(&form, dout[0]); /* ops with several results hold all of their operands */
      ok = run_rule(p, e, wanted, dout, &form);
      if (!ok) name_rule(e->op);
      tern_scope_end(&mark);
    }
  }
  for (int o = 0; o < e->n_out; o++) {
    tern_tensor **g = &p->grad[e->first_out + o];
    if (!*g || p->state[e->first_out + o] & SOURCE) continue;
    tern__unref(*g);
    *g = NULL;
  }
  if (dout != few) free(dout);
  if (p->free_as_it_goes && e->mask == p->tape->bit) tern__entry_release(p->r, e);
  return ok;
}

static bool seed(pass *p, tern_tensor *target, int32_t value, tern_tensor *given) {
  tern_tensor *g = given;
  if (given == TERN_NONE) {
    g = tern_ones_like(target);
  } else if (given->flags & TERN__WEAK && target->rank == 0) {
    g = full_of(target, given);
  } else if (given->rank != target->rank ||
             memcmp(given->shape, target->shape, (size_t)target->rank * sizeof *target->shape)) {
    char a[200], b[200];
    tern__fail(TERN_E_ARG,
               "tape_gradient: the gradient that comes in has shape %s, the target %s; they must be the same",
               tern__shape_text(a, given->rank, given->shape), tern__shape_text(b, target->rank, target->shape));
    return false;
  } else if (given->device != target->device && !(given->flags & TERN__WEAK)) {
    tern__fail(TERN_E_ARG,
               "tape_gradient: the gradient that comes in is on %s, the target on %s; move it: tern_to(g, \"%s\")",
               given->device->name, target->device->name, target->device->name);
    return false;
  }
  if (g && g->dtype != target->dtype) g = tern_cast(g, (tern_dtype)target->dtype);
  return g && accumulate(p, value, g);
}

typedef struct ask {
  tern_tensor *const *targets, *const *seeds;
  int n_targets;
  tern_tensor *const *sources;
  int n;
  bool zeros;
} ask;

static bool check_float(const char *what, int i, const tern_tensor *t) {
  if (tern__is_float((tern_dtype)t->dtype)) return true;
  tern__fail(TERN_E_ARG,
             "tape_gradient: %s %d is %s; only float tensors have gradients: tern_cast before the computation", what,
             i + 1, tern_dtype_name((tern_dtype)t->dtype));
  return false;
}

/* Values of targets and sources; false with the error. */
static bool resolve(pass *p, const ask *a, int32_t *targets, int32_t *sources) {
  for (int i = 0; i < a->n_targets; i++) {
    if (!tern__usable(a->targets[i], "tape_gradient", 2) || !check_float("target", i, a->targets[i])) return false;
    if (a->seeds && a->seeds[i] != TERN_NONE && !tern__usable(a->seeds[i], "tape_gradient", 3)) return false;
    targets[i] = tern__value_of(p->r, a->targets[i]);
    if (targets[i] >= 0 && !(p->r->values[targets[i]].mask & p->tape->bit)) targets[i] = -1;
    if (targets[i] >= 0 || a->zeros) continue;
    tern__fail(TERN_E_ARG,
               "tape_gradient: the tape never saw target %d: nothing that it was computed from is a trainable variable "
               "or was watched "
               "(tern_tape_watch) after the tape began, or an op without a gradient lies between",
               i + 1);
    return false;
  }
  for (int i = 0; i < a->n; i++) {
    if (!tern__usable(a->sources[i], "tape_gradient", 3) || !check_float("source", i, a->sources[i])) return false;
    sources[i] = tern__value_of(p->r, a->sources[i]);
    if (sources[i] >= 0 && !(p->r->values[sources[i]].mask & p->tape->bit)) sources[i] = -1;
    if (sources[i] >= 0 || a->zeros || a->sources[i]->flags & TERN__VARIABLE) continue;
    tern__fail(TERN_E_ARG,
               "tape_gradient: source %d was not watched: call tern_tape_watch(tape, x) before it is used, or make it "
               "a variable",
               i + 1);
    return false;
  }
  return true;
}

/* With the tape no longer recording: fills gradients. */
static bool walk(pass *p, const ask *a, tern_tensor **gradients, bool *begun) {
  int32_t few[32], *targets = few;
  if (a->n_targets + a->n > 32) targets = tern__calloc((size_t)(a->n_targets + a->n), sizeof *targets);
  if (!targets) return tern__fail(TERN_E_OOM, "tape_gradient: out of host memory"), false;
  int32_t *sources = targets + a->n_targets;
  bool ok = resolve(p, a, targets, sources);
  if (ok) {
    *begun = true;
    for (int i = 0; i < a->n; i++)
      if (sources[i] >= 0) p->state[sources[i]] = SOURCE | NEEDED;
    mark_needed(p);
    for (int i = 0; i < a->n_targets && ok; i++)
      if (targets[i] >= 0) ok = seed(p, a->targets[i], targets[i], a->seeds ? a->seeds[i] : TERN_NONE);
    tern__entry *stop = p->tape->start;
    for (tern__entry *e = p->r->last, *prev; e && e != stop && ok; e = prev) {
      prev = e->prev;
      if (e->mask & p->tape->bit && (uint32_t)e->first_out < p->n_values) ok = step(p, e);
    }
  }
  for (int i = 0; i < a->n && ok; i++) {
    tern_tensor *g = sources[i] >= 0 ? p->grad[sources[i]] : NULL;
    if (g)
      gradients[i] = tern__push(tern__ref(g));
    else
      gradients[i] = a->zeros ? tern_zeros_like(a->sources[i]) : TERN_NONE;
    ok = gradients[i] != NULL;
  }
  /* what is left belongs to sources and targets, unless the pass was cut short */
  for (int i = 0; i < a->n_targets + a->n && ok; i++)
    if (targets[i] >= 0 && p->grad[targets[i]]) {
      tern__unref(p->grad[targets[i]]);
      p->grad[targets[i]] = NULL;
    }
  for (uint32_t i = 0; i < p->n_values && !ok; i++)
    if (p->grad[i]) tern__unref(p->grad[i]);
  if (targets != few) free(targets);
  return ok;
}

static bool backward(tern_tape *tape, const ask *a, tern_tensor **gradients, bool keep) {
  tern__thread *t = tern__tls;
  tern__recorder *r = tape->recorder;
  for (int i = 0; i < a->n; i++) gradients[i] = NULL;
  const uint32_t was_active = r->active & tape->bit;
  r->active &= ~tape->bit;
  tern__hook_update(t);
  pass p = {.r = r, .tape = tape, .n_values = r->n_values, .free_as_it_goes = !keep};
  /* values that the outer tapes' recording of this pass adds are not touched by it */
  p.grad = tern__calloc((size_t)p.n_values + 1, sizeof *p.grad);
  p.state = tern__calloc((size_t)p.n_values + 1, 1);
  bool ok = p.grad && p.state;
  if (!ok) tern__fail(TERN_E_OOM, "tape_gradient: out of host memory");
  bool begun = false;
  tape->walking = true;
  ok = ok && walk(&p, a, gradients, &begun);
  tape->walking = false;
  free(p.grad);
  free(p.state);
  for (int i = 0; i < a->n && !ok; i++) gradients[i] = NULL;
  if (keep || !begun) /* a wrong argument leaves the tape as it was */
    r->active |= was_active;
  else
    tern__tape_finish(r, tape);
  tern__hook_update(t);
  return ok;
}

static bool arguments(const ask *a, tern_tensor **gradients) {
  if (a->n_targets >= 0 && a->n >= 0 && (!a->n_targets || a->targets) && (!a->n || (a->sources && gradients)))
    return true;
  tern__fail(TERN_E_ARG, "tape_gradient: %d targets and %d sources were given, or an array is NULL", a->n_targets,
             a->n);
  return false;
}

tern_rc tern_tape_gradients(tern_tape *tape, tern_tensor *const *targets, tern_tensor *const *seeds, int n_targets,
                            tern_tensor *const *sources, int n, tern_tensor **gradients,
                            const tern_gradient_opts *opts) {
  const ask a = {targets, seeds, n_targets, sources, n, opts && opts->unconnected_zeros};
  if (!arguments(&a, gradients)) return TERN_E_ARG;
  for (int i = 0; i < n; i++) gradients[i] = NULL;
  if (!tern__tape_usable(tape, "tape_gradient")) return tern__recorded();
  if (backward(tape, &a, gradients, tape->persistent)) return TERN_OK;
  return tern__recorded() ? tern__recorded() : TERN_E_INTERNAL;
}

tern_rc tern_tape_gradient(tern_tape *tape, tern_tensor *target, tern_tensor *const *sources, int n,
                           tern_tensor **gradients) {
  return tern_tape_gradients(tape, &target, NULL, 1, sources, n, gradients, NULL);
}

/* Of a shape without elements. */
static tern_tensor *none_on(tern__device *device, tern_shape shape, uint8_t dtype) {
  return tern__push(tern__new(device, (tern_dtype)dtype, shape.rank, shape.dim, "tape_jacobian"));
}

/* Row i: the gradient of element i of target. */
static tern_tensor *jacobian(tern_tape *tape, tern_tensor *target, tern_tensor *source) {
  const int64_t n = target->numel;
  tern_tensor **rows = tern__calloc((size_t)(n ? n : 1), sizeof *rows);
  tern_tensor *all = NULL, *eye = NULL;
  if (!rows) tern__fail(TERN_E_OOM, "tape_jacobian: out of host memory");
  tern_shape shape = {.rank = target->rank + source->rank};
  if (shape.rank > TERN_MAX_RANK) {
    tern__fail(TERN_E_ARG, "tape_jacobian: the result would have rank %d; the most there is is %d", shape.rank,
               TERN_MAX_RANK);
    free(rows);
    return NULL;
  }
  for (int d = 0; d < shape.rank; d++)
    shape.dim[d] = d < target->rank ? target->shape[d] : source->shape[d - target->rank];
  if (rows && n) {
    TERN_NO_GRADIENT;
    tern_device_mark device = tern_device_begin(target->device->name);
    eye = tern_eye(n, n, 0, (tern_dtype)target->dtype);
    tern_device_end(&device);
  }
  bool ok = rows && (eye || !n), unconnected = false;
  for (int64_t i = 0; i < n && ok && !unconnected; i++) {
    tern_tensor *one = tern_reshape(tern_index(eye, 0, i), tern_shape_of(target->rank, target->shape));
    const ask a = {&target, &one, 1, &source, 1, false};
    ok = one && backward(tape, &a, &rows[i], true);
    unconnected = ok && rows[i] == TERN_NONE;
  }
  if (ok && unconnected)
    all = TERN_NONE;
  else if (ok)
    all = n ? tern_reshape(tern_stack(rows, (int)n, 0), shape) : none_on(source->device, shape, source->dtype);
  free(rows);
  return all;
}

tern_tensor *tern_tape_jacobian(tern_tape *tape, tern_tensor *target, tern_tensor *source) {
  if (!tern__tape_usable(tape, "tape_jacobian") || !tern__usable(target, "tape_jacobian", 2) ||
      !tern__usable(source, "tape_jacobian", 3))
    return NULL;
  tern_tensor *j = jacobian(tape, target, source);
  if (!tape->persistent && tape->recorder) {
    tern__tape_finish(tape->recorder, tape);
    tern__hook_update(tern__tls);
  }
  return j;
}
