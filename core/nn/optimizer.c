/* The optimiser object: options, a record of slots for each variable, the step count; checking and applying
   gradients. A step allocates nothing: records are found by pointer in the order of the last step, and updates run in
   place. */
#include "nn/optimizer.h"
#include "base/alloc.h"
#include "device/device.h"
#include "dispatch/dispatch.h"
#include "ops/variable.h"
#include "tensor/dtype.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct record {
  tern_tensor *variable;              /* one reference */
  tern_tensor *slot[TERN__MAX_SLOTS]; /* variables, owned */
} record;

enum { CLIP_NONE, CLIP_VALUE, CLIP_NORM, CLIP_GLOBAL };

struct tern_optimizer {
  const tern__rule *rule;
  uint32_t bits;
  uint8_t n_slots, clip, scheduled;
  double learning_rate, weight_decay, limit, initial; /* initial: what slots begin with */
  double hyper[TERN__MAX_HYPER];
  const char *slot_name[TERN__MAX_SLOTS];
  char *name; /* what the names of its state begin with */
  tern_schedule schedule;
  tern_tensor *guard; /* of the step that is being made, or NULL */
  tern_tensor *steps; /* a variable, rank-0 int64 in host memory: whoever assigns to it sets the count */
  record *records;
  int n, capacity, next; /* next: where the next variable is likely to be */
};

void tern__optimizer_plan_of(const tern_optimizer *o, tern__optimizer_plan *plan) {
  const uint32_t by_opts = TERN__UPDATE_DECAY | TERN__UPDATE_LIMIT | TERN__UPDATE_SCALE; /* these come back by opts */
  *plan = (tern__optimizer_plan){.rule = o->rule, .bits = o->bits & ~by_opts, .initial = o->initial};
  plan->opts = (tern__optimizer_opts){.learning_rate = o->learning_rate > 0 ? o->learning_rate : -0.0,
                                      .schedule = o->scheduled ? &o->schedule : NULL,
                                      .weight_decay = o->weight_decay > 0 ? o->weight_decay : -0.0,
                                      .clip_value = o->clip == CLIP_VALUE ? o->limit : 0,
                                      .clip_norm = o->clip == CLIP_NORM ? o->limit : 0,
                                      .global_clip_norm = o->clip == CLIP_GLOBAL ? o->limit : 0,
                                      .name = o->name};
  memcpy(plan->hyper, o->hyper, sizeof plan->hyper);
}

/* ---- the step count ---- */

static bool shared(const tern_tensor *v) { return atomic_load_explicit(&v->storage->refs, memory_order_acquire) != 1; }

/* The variable takes over the storage of `fresh`, which ends. */
static void take(tern_tensor *v, tern_tensor *fresh) {
  tern__variable_take(v, fresh);
  tern__unref(fresh);
}

static int64_t *count_of(const tern_tensor *steps) { return (int64_t *)(void *)(steps->storage->host) + steps->offset; }

static tern_rc set_steps(tern_tensor *steps, int64_t count) {
  if (TERN__UNLIKELY(shared(steps))) {
    tern_tensor *fresh = tern__new(steps->device, TERN_I64, 0, NULL, "optimizer");
    if (!fresh) return tern__recorded();
    take(steps, fresh);
  }
  *count_of(steps) = count;
  return TERN_OK;
}

static tern_tensor *make_steps(const char *name) {
  tern__thread *t = tern__thread_get();
  tern__device *host = t ? tern__device_host() : NULL, *before = t ? t->device : NULL;
  if (!host) return NULL;
  const size_t size = strlen(name) + sizeof "/steps";
  char *full = tern__calloc(1, size);
  if (!full) {
    tern__fail(TERN_E_OOM, "%s: out of host memory", name);
    return NULL;
  }
  snprintf(full, size, "%s/steps", name);
  tern_scope_mark mark = tern_scope_begin();
  t->device = host;
  tern_tensor *zero = tern_zeros((tern_shape){0, {0}}, TERN_I64);
  tern_tensor *steps = zero ? tern_variable(zero, &(tern_variable_opts){.name = full, .frozen = 1}) : NULL;
  free(full);
  t->device = before;
  tern_scope_end(&mark);
  return steps;
}

/* ---- life ---- */

double tern__option_or(double value, double otherwise) {
  return value != 0 || signbit(value) ? value + 0.0 : otherwise;
}

static bool options_ok(const char *name, const tern__optimizer_opts *opts) {
  const struct {
    const char *name;
    double value;
  } option[] = {{"learning_rate", opts->learning_rate},
                {"weight_decay", opts->weight_decay},
                {"clip_value", opts->clip_value},
                {"clip_norm", opts->clip_norm},
                {"global_clip_norm", opts->global_clip_norm}};
  for (size_t i = 0; i < sizeof option / sizeof *option; i++)
    if (!(option[i].value >= 0) || isinf(option[i].value)) {
      tern__fail(TERN_E_ARG, "%s: %s is %g; it must be 0 or more", name, option[i].name, option[i].value);
      return false;
    }
  if ((opts->clip_value > 0) + (opts->clip_norm > 0) + (opts->global_clip_norm > 0) > 1) {
    tern__fail(TERN_E_ARG, "%s: give at most one of clip_value, clip_norm and global_clip_norm", name);
    return false;
  }
  return !opts->schedule || !tern__schedule_check(name, opts->schedule);
}

tern_optimizer *tern__optimizer_new(const tern__rule *rule, const tern__optimizer_opts *opts, uint32_t bits,
                                    const double *hyper, double initial) {
  if (!options_ok(rule->name, opts)) return NULL;
  tern_optimizer *o = tern__calloc(1, sizeof *o);
  if (!o) {
    tern__fail(TERN_E_OOM, "%s: out of host memory", rule->name);
    return NULL;
  }
  o->rule = rule;
  o->learning_rate = tern__option_or(opts->learning_rate, rule->learning_rate);
  o->weight_decay = tern__option_or(opts->weight_decay, rule->weight_decay);
  o->initial = initial;
  if (opts->schedule) {
    o->scheduled = 1;
    o->schedule = *opts->schedule;
  }
  if (opts->clip_value > 0) o->clip = CLIP_VALUE;
  if (opts->clip_norm > 0) o->clip = CLIP_NORM;
  if (opts->global_clip_norm > 0) o->clip = CLIP_GLOBAL;
  o->limit = opts->clip_value + opts->clip_norm + opts->global_clip_norm;
  o->bits = bits | (o->weight_decay > 0 ? TERN__UPDATE_DECAY : 0) | (o->clip == CLIP_VALUE ? TERN__UPDATE_LIMIT : 0) |
            (o->clip >= CLIP_NORM ? TERN__UPDATE_SCALE : 0);
  memcpy(o->hyper, hyper, (size_t)rule->n_hyper * sizeof *hyper);
  for (int i = 0; i < TERN__MAX_SLOTS; i++)
    if (rule->slot[i].name && (rule->slot[i].needs & bits) == rule->slot[i].needs)
      o->slot_name[o->n_slots++] = rule->slot[i].name;
  o->name = tern__strdup(opts->name && *opts->name ? opts->name : rule->name);
  if (!o->name) tern__fail(TERN_E_OOM, "%s: out of host memory", rule->name);
  o->steps = o->name ? make_steps(o->name) : NULL;
  if (o->steps) return o;
  free(o->name);
  free(o);
  return NULL;
}

static void end_record(const record *r) {
  for (int k = 0; k < TERN__MAX_SLOTS; k++)
    if (r->slot[k]) tern__unref(r->slot[k]);
  if (r->variable) tern__unref(r->variable);
}

void tern_optimizer_release(tern_optimizer *o) {
  if (!o) return;
  for (int i = 0; i < o->n; i++) end_record(&o->records[i]);
  free(o->records);
  free(o->name);
  tern__unref(o->steps);
  free(o);
}

/* ---- records ---- */

static record *find(tern_optimizer *o, const tern_tensor *v) {
  int i = o->next;
  if (TERN__UNLIKELY(i >= o->n || o->records[i].variable != v))
    for (i = 0; i < o->n && o->records[i].variable != v;) i++;
  if (i == o->n) return NULL;
  o->next = i + 1 < o->n ? i + 1 : 0;
  return &o->records[i];
}

/* The name in messages and files: the variable's own, or variable_i for the i-th that this optimiser saw. */
static const char *name_of(const tern_tensor *v, int i, char *buffer, size_t size) {
  if (*v->variable->name) return v->variable->name;
  snprintf(buffer, size, "variable_%d", i);
  return buffer;
}

static tern_tensor *make_slot(const tern_optimizer *o, tern_tensor *v, int k) {
  char number[32];
  const char *name = name_of(v, o->n, number, sizeof number);
  const size_t size = strlen(o->name) + strlen(name) + strlen(o->slot_name[k]) + 3;
  char *full = tern__calloc(1, size);
  if (!full) {
    tern__fail(TERN_E_OOM, "%s: out of host memory for the state of variable %s", o->rule->name, name);
    return NULL;
  }
  snprintf(full, size, "%s/%s/%s", o->name, name, o->slot_name[k]);
  tern_tensor *first = tern_full(tern_shape_of(v->rank, v->shape), (tern_dtype)v->dtype, o->initial);
  tern_tensor *slot = first ? tern_variable(first, &(tern_variable_opts){.name = full, .frozen = 1}) : NULL;
  free(full);
  return slot;
}

static tern_rc add_record(tern_optimizer *o, tern_tensor *v) {
  if (o->n == o->capacity) {
    const int capacity = o->capacity ? 2 * o->capacity : 16;
    record *records = tern__realloc(o->records, (size_t)capacity * sizeof *records);
    if (!records) return tern__fail(TERN_E_OOM, "%s: out of host memory for %d variables", o->rule->name, capacity);
    o->records = records;
    o->capacity = capacity;
  }
  record r = {0};
  tern__thread *t = tern__tls;
  tern__device *before = t->device;
  tern_scope_mark mark = tern_scope_begin();
  t->device = v->device;
  int k = 0;
  while (k < o->n_slots && (r.slot[k] = make_slot(o, v, k))) k++;
  t->device = before;
  tern_scope_end(&mark);
  if (k < o->n_slots) {
    end_record(&r);
    return tern__recorded();
  }
  r.variable = tern__ref(v);
  o->records[o->n++] = r;
  return TERN_OK;
}

static tern_rc check_variable(const tern_optimizer *o, const tern_tensor *v, int i) {
  if (!v || v == TERN_NONE || v->live != TERN__LIVE) {
    if (!v && tern__tls->error_state != TERN__ERROR_NONE) return tern__recorded();
    return tern__fail(TERN_E_ARG, "%s: variable %d is %s", o->rule->name, i,
                      !v               ? "NULL"
                      : v == TERN_NONE ? "TERN_NONE"
                                       : "not alive: it was released");
  }
  if (!(v->flags & TERN__VARIABLE))
    return tern__fail(TERN_E_ARG, "%s: variable %d is a tensor, which cannot be changed; make one with tern_variable",
                      o->rule->name, i);
  if (tern__is_float((tern_dtype)v->dtype)) return TERN_OK;
  char number[32];
  return tern__fail(TERN_E_ARG, "%s: variable %s is of dtype %s; only floats can be trained", o->rule->name,
                    name_of(v, i, number, sizeof number), tern_dtype_name((tern_dtype)v->dtype));
}

static tern_rc build(tern_optimizer *o, tern_tensor *const *variables, int n) {
  tern_rc rc = TERN_OK;
  for (int i = 0; i < n && !rc; i++)
    if (!find(o, variables[i])) rc = add_record(o, variables[i]);
  return rc;
}

tern_rc tern_optimizer_build(tern_optimizer *o, tern_tensor *const *variables, int n) {
  tern__thread *t = tern__thread_get();
  if (!t) return TERN_E_OOM;
  if (!o || n < 0 || (n && !variables))
    return tern__fail(TERN_E_ARG, "optimizer_build: the optimiser or the array of %d variables is NULL", n);
  tern_rc rc = TERN_OK;
  for (int i = 0; i < n && !rc; i++) rc = check_variable(o, variables[i], i);
  if (rc) return rc;
  const uint32_t tape = t->hooks & TERN__HOOK_TAPE;
  t->hooks &= ~(uint32_t)TERN__HOOK_TAPE;
  rc = build(o, variables, n);
  t->hooks |= tape;
  return rc;
}

int tern_optimizer_state(tern_optimizer *o, tern_tensor **state, int max) {
  if (!o) {
    tern__fail(TERN_E_ARG, "optimizer_state: the optimiser is NULL");
    return 0;
  }
  if (!state) max = 0;
  if (!o->n) { /* restoring "nothing" would look like success */
    if (max > 0)
      tern__fail(TERN_E_ARG, "optimizer_state: %s has no state yet; make it with tern_optimizer_build first", o->name);
    return 0;
  }
  int n = 0;
  for (int i = 0; i < o->n; i++)
    for (int k = 0; k < o->n_slots; k++, n++)
      if (n < max) state[n] = o->records[i].slot[k];
  if (n < max) state[n] = o->steps;
  return n + 1;
}

/* ---- asking ---- */

int64_t tern_optimizer_steps(const tern_optimizer *o) { return o ? *count_of(o->steps) : 0; }

static double rate_of(const tern_optimizer *o) {
  return o->scheduled ? tern_schedule_at(&o->schedule, *count_of(o->steps)) : o->learning_rate;
}

double tern_optimizer_learning_rate(const tern_optimizer *o) {
  if (o) return rate_of(o);
  tern__fail(TERN_E_ARG, "optimizer_learning_rate: the optimiser is NULL");
  return NAN;
}

tern_rc tern_optimizer_set_learning_rate(tern_optimizer *o, double rate) {
  if (!o) return tern__fail(TERN_E_ARG, "optimizer_set_learning_rate: the optimiser is NULL");
  if (!(rate >= 0) || isinf(rate))
    return tern__fail(TERN_E_ARG, "%s: a learning rate of %g; it must be 0 or more", o->rule->name, rate);
  o->scheduled = 0;
  o->learning_rate = rate;
  return TERN_OK;
}

/* ---- a step ---- */

static tern_rc bad_gradient(const tern_optimizer *o, const tern_tensor *g, const tern_tensor *v, int i) {
  char number[32], a[200], b[200];
  const char *op = o->rule->name, *name = name_of(v, i, number, sizeof number);
  if (!g) {
    if (tern__tls->error_state != TERN__ERROR_NONE) return tern__recorded();
    return tern__fail(TERN_E_ARG, "%s: the gradient of variable %s is NULL; TERN_NONE leaves a variable alone", op,
                      name);
  }
  if (g->live != TERN__LIVE && !tern__usable(g, op, 1))
    return tern__fail(TERN_E_ARG, "%s: the gradient of variable %s was freed when its scope ended; tern_escape it", op,
                      name);
  if (g->rank != v->rank || memcmp(g->shape, v->shape, v->rank * sizeof *v->shape))
    return tern__fail(TERN_E_ARG, "%s: the gradient of variable %s has shape %s, the variable %s; they must be equal",
                      op, name, tern__shape_text(a, g->rank, g->shape), tern__shape_text(b, v->rank, v->shape));
  if (g->flags & TERN__WEAK) return TERN_OK;
  if (g->dtype != v->dtype)
    return tern__fail(TERN_E_ARG, "%s: the gradient of variable %s is %s, the variable %s; tern_cast the gradient", op,
                      name, tern_dtype_name((tern_dtype)g->dtype), tern_dtype_name((tern_dtype)v->dtype));
  return tern__fail(TERN_E_ARG,
                    "%s: the gradient of variable %s is on %s, the variable on %s; move it: tern_to(g, \"%s\")", op,
                    name, g->device->name, v->device->name, v->device->name);
}

static inline bool fits(const tern_tensor *g, const tern_tensor *v) {
  if (!g || (g->live != TERN__LIVE && g->live != TERN__SYMBOLIC) || g->dtype != v->dtype || g->device != v->device ||
      g->rank != v->rank)
    return false;
  for (int d = 0; d < v->rank; d++)
    if (g->shape[d] != v->shape[d]) return false;
  return true;
}

/* odd: set when a gradient is a host scalar or a variable, which need a tensor of their own first. */
static tern_rc check(const tern_optimizer *o, tern_tensor *const *gradients, tern_tensor *const *variables, int n,
                     bool *odd) {
  for (int i = 0; i < n; i++) {
    const tern_tensor *v = variables[i], *g = gradients[i];
    if (TERN__UNLIKELY(!v || v->live != TERN__LIVE || !(v->flags & TERN__VARIABLE) ||
                       !tern__is_float((tern_dtype)v->dtype))) {
      const tern_rc rc = check_variable(o, v, i);
      if (rc) return rc;
    }
    if (g == TERN_NONE) continue;
    if (TERN__UNLIKELY(!fits(g, v))) {
      const tern_rc rc = bad_gradient(o, g, v, i);
      if (rc) return rc;
    }
    *odd |= (g->flags & (TERN__WEAK | TERN__VARIABLE)) != 0;
  }
  return TERN_OK;
}

/* What all variables of a step share. */
typedef struct step {
  tern_tensor scalar[TERN__MAX_SCALARS]; /* host scalars, in no scope: nothing that runs an update keeps them */
  tern_tensor *traced[2];                /* in a graph: the first n_traced scalars, which each run gives anew */
  int n_traced;
  tern_tensor *scale;                    /* of a global norm, or NULL */
  tern_tensor *guard;                    /* or NULL */
  tern_word attr[1 + TERN__MAX_SCALARS]; /* of the update */
  int n_scalars, n_params, n_attr;       /* scalars; those that are operands, the others are attributes */
} step;

static void add_scalar(step *s, double value) {
  tern_tensor *t = &s->scalar[s->n_scalars++];
  t->refs = 1;
  t->live = TERN__LIVE;
  t->dtype = TERN_F64;
  t->rank = 0;
  t->flags = TERN__WEAK;
  t->device = NULL;
  t->storage = NULL;
  t->numel = 1;
  t->offset = 0;
  t->grad_id = 0;
  t->imm.f = value;
}

/* What changes from step to step: the rate, as the rule puts it, and the share that variables lose. */
static void rates_of(const tern_optimizer *o, tern_word *out) {
  const double rate = rate_of(o);
  out[0].f = o->rule->rate ? o->rule->rate(o->hyper, rate, *count_of(o->steps) + 1) : rate;
  out[1].f = o->weight_decay * rate;
}

/* A step of a graph begins: its rates. */
static tern_rc next_step(void *self, int64_t elements, tern_word *out, int n_out) {
  tern_optimizer *o = self;
  (void)elements;
  (void)n_out;
  rates_of(o, out);
  return set_steps(o->steps, *count_of(o->steps) + 1);
}

static tern_rc begin_step(tern_optimizer *o, step *s) {
  tern_word rate[2];
  s->scale = NULL;
  s->n_scalars = s->n_traced = 0;
  rates_of(o, rate);
  add_scalar(s, rate[0].f);
  if (o->bits & TERN__UPDATE_DECAY) add_scalar(s, rate[1].f);
  if (tern__tracing_ops()) {
    if (tern__graph_listener.source(tern__tls, o->rule->name, next_step, o, TERN_F64, 0, s->traced, 2))
      return tern__recorded();
    s->n_traced = s->n_scalars;
  }
  for (int i = 0; i < o->rule->n_hyper; i++) add_scalar(s, o->hyper[i]);
  if (o->bits & TERN__UPDATE_LIMIT) add_scalar(s, o->limit);
  s->guard = o->guard;
  const int behind = !!(o->bits & TERN__UPDATE_SCALE) + !!s->guard;
  const int room = TERN__MAX_ARGS - (2 + o->n_slots + behind) - (1 + o->n_slots);
  s->n_params = s->n_scalars < room ? s->n_scalars : room;
  s->attr[0].u = o->bits | (s->guard ? TERN__UPDATE_GUARD : 0);
  s->n_attr = 1;
  for (int i = s->n_params; i < s->n_scalars; i++) s->attr[s->n_attr++].f = s->scalar[i].imm.f;
  return TERN_OK;
}

/* Where the next value of v is written: v itself when nobody else holds its storage, else a fresh tensor. */
static inline tern_tensor *target_of(const tern_optimizer *o, tern_tensor *v) {
  return TERN__LIKELY(!shared(v)) || tern__tracing_ops()
             ? v
             : tern__new(v->device, (tern_dtype)v->dtype, v->rank, v->shape, o->rule->name);
}

static tern_rc update(tern_optimizer *o, step *s, const record *r, tern_tensor *gradient) {
  const int n = 1 + o->n_slots;
  tern_tensor *in[TERN__MAX_ARGS], *old[TERN__MAX_SLOTS + 1], *out[TERN__MAX_SLOTS + 1];
  int n_in = 2, made = 0;
  in[0] = r->variable;
  in[1] = gradient;
  old[0] = r->variable;
  for (int k = 0; k < o->n_slots; k++) in[n_in++] = old[k + 1] = r->slot[k];
  if (o->bits & TERN__UPDATE_SCALE) {
    tern_tensor *scale = s->scale ? s->scale : tern__clip_scale(o->rule->name, &gradient, 1, o->limit, NULL);
    if (scale && scale->device != gradient->device) scale = tern_to(scale, gradient->device->name);
    if (!scale) return tern__recorded();
    in[n_in++] = scale;
  }
  if (s->guard) {
    in[n_in++] = s->guard->device == gradient->device ? s->guard : tern_to(s->guard, gradient->device->name);
    if (!in[n_in - 1]) return tern__recorded();
  }
  for (int i = 0; i < s->n_params; i++) in[n_in++] = i < s->n_traced ? s->traced[i] : &s->scalar[i];
  while (made < n && (out[made] = target_of(o, old[made]))) made++;
  tern_rc rc = made == n ? TERN_OK : tern__recorded();
  if (!rc) rc = tern__run_into(o->rule->op, in, n_in, s->attr, s->n_attr, out, n);
  for (int i = 0; i < made; i++) {
    if (out[i] == old[i]) continue;
    if (rc)
      tern__unref(out[i]);
    else
      take(old[i], out[i]);
  }
  return rc;
}

static tern_rc step_all(tern_optimizer *o, tern_tensor *const *gradients, tern_tensor *const *variables, int n) {
  const uint32_t graph = tern__eager_begin(tern__tls); /* its state is made now, whoever traces */
  tern_rc rc = build(o, variables, n);
  tern__eager_end(tern__tls, graph);
  if (rc) return rc;
  step s;
  if ((rc = begin_step(o, &s))) return rc;
  if (TERN__UNLIKELY(o->clip == CLIP_GLOBAL)) {
    s.scale = tern__clip_scale(o->rule->name, gradients, n, o->limit, NULL);
    if (!s.scale) return tern__recorded();
  }
  for (int i = 0; i < n && !rc; i++) {
    const record *r = find(o, variables[i]);
    if (gradients[i] != TERN_NONE && variables[i]->numel) rc = update(o, &s, r, gradients[i]);
  }
  return rc || s.n_traced ? rc : set_steps(o->steps, *count_of(o->steps) + 1);
}

/* The step with a snapshot of each gradient that is a variable, since that may change on the way, and a tensor for
   each host scalar. */
static tern_rc step_odd(tern_optimizer *o, tern_tensor *const *gradients, tern_tensor *const *variables, int n) {
  tern_tensor **solid = tern__calloc((size_t)n, sizeof *solid);
  if (!solid) return tern__fail(TERN_E_OOM, "%s: out of host memory for %d gradients", o->rule->name, n);
  tern__device *before = tern__tls->device;
  tern_rc rc = TERN_OK;
  for (int i = 0; i < n && !rc; i++) {
    tern_tensor *g = gradients[i];
    tern__tls->device = variables[i]->device;
    if (g != TERN_NONE) g = g->flags & TERN__WEAK ? tern__solid(g, (tern_dtype)variables[i]->dtype) : tern__itself(g);
    if (!(solid[i] = g)) rc = tern__recorded();
  }
  tern__tls->device = before;
  if (!rc) rc = step_all(o, solid, variables, n);
  free(solid);
  return rc;
}

tern_rc tern__optimizer_apply_guarded(tern_optimizer *o, tern_tensor *const *gradients, tern_tensor *const *variables,
                                      int n, tern_tensor *guard) {
  if (!o || !guard || guard->rank || !tern__is_float((tern_dtype)guard->dtype) || guard->flags & TERN__WEAK)
    return tern__fail(TERN_E_ARG, "optimizer_apply: the guard must be a float tensor of rank 0");
  tern_scope_mark mark = tern_scope_begin();
  o->guard = guard;
  const tern_rc rc = tern_optimizer_apply(o, gradients, variables, n);
  o->guard = NULL;
  tern_scope_end(&mark);
  return rc;
}

tern_rc tern_optimizer_apply(tern_optimizer *o, tern_tensor *const *gradients, tern_tensor *const *variables, int n) {
  tern__thread *t = tern__thread_get();
  if (!t) return TERN_E_OOM;
  if (!o || n < 0 || (n && (!gradients || !variables)))
    return tern__fail(TERN_E_ARG, "optimizer_apply: the optimiser, or the array of %d gradients or variables, is NULL",
                      n);
  bool odd = false;
  tern_rc rc = check(o, gradients, variables, n, &odd);
  if (rc) return rc;
  const uint32_t tape = t->hooks & TERN__HOOK_TAPE;
  t->hooks &= ~(uint32_t)TERN__HOOK_TAPE; /* no tape records an update */
  if (TERN__LIKELY(!odd && !(o->bits & TERN__UPDATE_SCALE))) {
    rc = step_all(o, gradients, variables, n);
  } else {
    tern_scope_mark mark = tern_scope_begin();
    rc = odd ? step_odd(o, gradients, variables, n) : step_all(o, gradients, variables, n);
    tern_scope_end(&mark);
  }
  t->hooks |= tape;
  return rc;
}
