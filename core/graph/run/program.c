/* One run: sources, patches, steps, results. A program of launches on one device is one loop. */
#include "graph/run/program.h"
#include "device/device.h"
#include "device/trace.h"
#include "tensor/dtype.h"
#include <stdio.h>
#include <stdlib.h>

/* ---- before ---- */

static inline void mark_stale(tern__frame *f, uint32_t step) {
  f->n_stale += !f->stale[step];
  f->stale[step] = 1;
}

static inline void set_buffer(const tern__program *p, tern__frame *f, uint32_t b, const tern__storage *from,
                              uint64_t offset) {
  const tern__pbuffer *x = &p->buffer[b];
  tern__storage *s = &f->storage[b];
  const uint64_t at = from->mem_offset + offset;
  if (s->mem == from->mem && s->mem_offset == at && s->device) return;
  s->device = from->device;
  s->mem = from->mem;
  s->mem_offset = at;
  s->host = from->host ? from->host + offset : NULL;
  s->bytes = x->bytes;
  atomic_store_explicit(&s->refs, 1 << 30, memory_order_relaxed);
  const tern__ppatch *patch = &p->patch[x->first_patch];
  for (uint32_t k = 0; k < x->n_patches; k++) f->arg[patch[k].arg] = (tern_arg){s->mem, at + patch[k].offset};
  if (TERN__UNLIKELY(f->replay != NULL))
    for (uint32_t k = 0; k < x->n_patches; k++) mark_stale(f, p->step_of[patch[k].arg]);
}

/* A variable whose memory others hold gets its own before it is written in place. */
static tern_rc own_memory(tern__thread *t, tern_tensor *v) {
  const uint64_t bytes = (uint64_t)v->numel * tern__dtype_size[v->dtype];
  tern__storage *fresh = tern__storage_new(t, v->device, bytes);
  if (!fresh) return TERN_E_OOM;
  const tern_rc rc = tern__copy_bytes(fresh, 0, v->storage, (uint64_t)v->offset * tern__dtype_size[v->dtype], bytes);
  if (rc) {
    tern__storage_unref(fresh);
    return rc;
  }
  tern__storage_unref(v->storage);
  v->storage = fresh;
  v->offset = 0;
  return TERN_OK;
}

static tern_rc bind(tern__program *p, tern__frame *f, tern__thread *t, tern_tensor *const *in,
                    tern__storage *const *given) {
  for (uint32_t k = 0; k < p->n_external; k++) {
    const uint32_t b = p->external[k];
    const tern__pbuffer *x = &p->buffer[b];
    if (x->place == TERN__PLACE_INPUT) {
      const tern_tensor *operand = in[x->index];
      set_buffer(p, f, b, operand->storage, (uint64_t)operand->offset * tern__dtype_size[operand->dtype]);
    } else if (x->place == TERN__PLACE_VARIABLE) {
      tern_tensor *v = p->variable[x->index];
      const uint32_t next = p->next[x->index];
      if (next != TERN__NO && p->buffer[next].root == b &&
          TERN__UNLIKELY(atomic_load_explicit(&v->storage->refs, memory_order_acquire) != 1) && own_memory(t, v))
        return tern__recorded();
      set_buffer(p, f, b, v->storage, (uint64_t)v->offset * tern__dtype_size[v->dtype]);
    } else {
      tern__storage *fresh = given && x->place == TERN__PLACE_RESULT ? given[x->index] : NULL;
      if (fresh)
        tern__storage_ref(fresh);
      else if (!(fresh = tern__storage_new(t, x->device, x->bytes)))
        return tern__recorded();
      f->fresh[b] = fresh;
      set_buffer(p, f, b, fresh, 0);
    }
  }
  return TERN_OK;
}

static tern_word drawn_word(const tern__program *p, const tern__frame *f, const tern__pdynamic *d) {
  return tern__convert(f->drawn[p->source[d->source].first + d->out], (tern_dtype)d->from, (tern_dtype)d->dtype);
}

static tern_rc draw(tern__program *p, tern__frame *f) {
  for (uint32_t i = 0; i < p->n_sources; i++) {
    const tern__psource *s = &p->source[i];
    const tern_rc rc = s->source.next(s->source.self, s->elements, f->drawn + s->first, (int)s->n);
    if (rc) return rc;
  }
  for (uint32_t i = 0; i < p->n_dynamic; i++) {
    const tern__pdynamic *d = &p->dynamic[i];
    const tern_word w = drawn_word(p, f, d);
    if (d->word >> 31) continue; /* of a slow step: its request takes it */
    if (f->word[d->word].u == w.u) continue;
    f->word[d->word] = w;
    if (f->replay) mark_stale(f, d->step);
  }
  return TERN_OK;
}

/* ---- steps ---- */

static tern_rc launch_failed(const tern__program *p, const tern__pstep *s, tern_rc rc) {
  char what[160];
  snprintf(what, sizeof what, "launching %s in \"%s\"", s->name, p->name);
  return tern__device_failed(s->device, rc, what);
}

/* ---- recorded by the device ---- */

enum { RECORD_FROM = 2 }; /* a frame's run that is worth recording */

static void drop_replay(const tern__program *p, tern__frame *f) {
  p->device->api->program_free(p->device->dev, f->replay);
  f->replay = NULL;
}

/* The launches of the frame as the device's own program. Caller holds the queue, if there is one. */
static tern_rc record_replay(const tern__program *p, tern__frame *f) {
  tern__device *d = p->device;
  tern_rc rc = d->api->program_begin(d->dev, d->queue);
  if (rc) return rc;
  for (uint32_t i = 0; i < p->n_steps && !rc; i++)
    rc = p->step[i].launch(d->dev, d->queue, p->step[i].code, &f->launch[i]);
  tern_program *made = NULL;
  const tern_rc ended = d->api->program_end(d->dev, d->queue, &made);
  if (rc || ended) {
    if (made) d->api->program_free(d->dev, made);
    return rc ? rc : ended;
  }
  f->replay = made;
  f->n_stale = 0;
  memset(f->stale, 0, p->n_steps);
  return TERN_OK;
}

/* Brings the recorded program up to date; without it (NULL) afterwards, the device cannot. */
static void update_replay(const tern__program *p, tern__frame *f) {
  tern__device *d = p->device;
  tern_rc rc = d->api->program_update ? TERN_OK : TERN_E_UNSUPPORTED;
  for (uint32_t i = 0; i < p->n_steps && f->n_stale && !rc; i++) {
    if (!f->stale[i]) continue;
    rc = d->api->program_update(d->dev, f->replay, i, &f->launch[i]);
    if (rc) break;
    f->stale[i] = 0;
    f->n_stale--;
  }
  if (!rc) return;
  drop_replay(p, f);
  if (record_replay(p, f)) f->replay = NULL;
}

/* True: done, with its status in *rc. False: launch step by step. A device without a queue records in many threads at
   once, and may find later that it is no faster so: then it answers UNSUPPORTED, having run nothing. */
static bool run_replay(tern__program *p, tern__frame *f, tern__thread *t, tern_rc *rc) {
  tern__device *d = p->device;
  if (f->runs < RECORD_FROM) {
    f->runs++;
    return false;
  }
  tern__plugin_error_clear();
  tern__queue_lock(d);
  if (!f->replay) {
    if (record_replay(p, f)) atomic_store_explicit(&p->replays, false, memory_order_relaxed);
  } else if (f->n_stale) {
    update_replay(p, f);
  }
  bool have = f->replay != NULL;
  if (have) *rc = d->api->program_run(d->dev, d->queue, f->replay);
  if (have && *rc == TERN_E_UNSUPPORTED && !d->queue) {
    atomic_store_explicit(&p->replays, false, memory_order_relaxed);
    drop_replay(p, f);
    *rc = TERN_OK;
    have = false;
  }
  tern__queue_unlock(d);
  if (!have) return false;
  tern__count_launches(t, d, p->n_steps);
  if (*rc) {
    char what[120];
    snprintf(what, sizeof what, "replaying \"%.80s\"", p->name);
    tern__device_failed(d, *rc, what);
  }
  return true;
}

/* All steps are launches on one device. */
static tern_rc run_plain(tern__program *p, tern__frame *f, tern__thread *t) {
  tern__device *d = p->device;
  const uint32_t n = p->n_steps;
  tern_rc rc = TERN_OK;
  if (TERN__UNLIKELY(atomic_load_explicit(&p->replays, memory_order_relaxed)) && run_replay(p, f, t, &rc)) return rc;
  uint32_t i = 0;
  tern__queue_lock(d);
  for (; i < n; i++) {
    const tern__pstep *s = &p->step[i];
    rc = s->launch(d->dev, d->queue, s->code, &f->launch[i]);
    if (TERN__UNLIKELY(rc)) break;
  }
  tern__queue_unlock(d);
  tern__count_launches(t, d, i + (rc != TERN_OK));
  return rc ? launch_failed(p, &p->step[i], rc) : TERN_OK;
}

static tern__storage *of_arg(const tern__program *p, tern__frame *f, const tern__pstep *s, uint32_t k) {
  return &f->storage[p->args[s->first_arg + k].buffer];
}

static tern_rc run_slow(const tern__program *p, tern__frame *f, const tern__pstep *s) {
  tern__request q = *s->request;
  uint32_t k = 0;
  for (int i = 0; i < q.n_in + q.n_out; i++)
    if (q.arg[i].kind != TERN_V_PARAM) q.arg[i].storage = of_arg(p, f, s, k++);
  for (uint32_t i = 0; i < p->n_dynamic; i++) {
    const tern__pdynamic *d = &p->dynamic[i];
    if (d->step == (uint32_t)(s - p->step)) q.arg[d->word & 0xff].value = drawn_word(p, f, d);
  }
  return tern__launch_class(&q, (tern__kernel_class *)(uintptr_t)s->kernel);
}

/* A list of moves has arrived. */
static tern_rc await(const tern__program *p, tern__frame *f, uint32_t move) {
  tern_rc rc = TERN_OK;
  for (; move; move = p->step[move - 1].next_wait) {
    const uint64_t ticket = f->ticket[move - 1];
    if (!ticket) continue;
    const tern_rc now = tern__queue_wait_ticket(of_arg(p, f, &p->step[move - 1], 0)->device, ticket);
    f->ticket[move - 1] = 0;
    if (!rc) rc = now;
  }
  return rc;
}

/* After a failure too, before the frame's memory is used again. */
static tern_rc await_all(const tern__program *p, tern__frame *f) {
  tern_rc rc = TERN_OK;
  for (uint32_t i = 0; i < p->n_steps; i++)
    if (f->ticket[i]) {
      const tern_rc now = tern__queue_wait_ticket(of_arg(p, f, &p->step[i], 0)->device, f->ticket[i]);
      f->ticket[i] = 0;
      if (!rc) rc = now;
    }
  return rc;
}

static tern_rc run_move(const tern__program *p, tern__frame *f, const tern__pstep *s) {
  tern__storage *from = of_arg(p, f, s, 0), *to = of_arg(p, f, s, 1);
  if (s->async && to->host && to->bytes)
    return tern__download_begin(to->host, from, 0, to->bytes, &f->ticket[s - p->step]);
  return tern__copy_bytes(to, 0, from, 0, to->bytes);
}

tern_tensor *tern__program_header(const tern__program *p, const tern__frame *f, const tern__pstep *s, uint32_t k,
                                  uint32_t value) {
  const tern__ir_value *v = &p->graph->value[value];
  tern_tensor *t = tern__header(tern__tls);
  if (!t) return NULL;
  t->dtype = v->dtype;
  t->rank = v->rank;
  t->flags = 0;
  t->slot = UINT32_MAX;
  t->device = v->device;
  t->offset = 0;
  t->grad_id = 0;
  t->storage = (tern__storage *)(uintptr_t)&f->storage[p->args[s->first_arg + k].buffer];
  tern__storage_ref(t->storage);
  memcpy(t->shape, v->shape, v->rank * sizeof *v->shape);
  tern__set_dense(t);
  return t;
}

static tern_rc run_print(const tern__program *p, const tern__frame *f, const tern__pstep *s) {
  const tern__ir_node *n = &p->graph->node[s->node];
  tern_tensor *t = tern__program_header(p, f, s, 0, n->in[0]);
  if (!t) return TERN_E_OOM;
  if (n->attr[0].u)
    tern_print_values(t);
  else
    tern_print(t);
  tern__unref(t);
  return TERN_OK;
}

static tern_rc run_step(const tern__program *p, tern__frame *f, tern__thread *t, uint32_t i) {
  const tern__pstep *s = &p->step[i];
  if (s->wait) {
    const tern_rc rc = await(p, f, s->wait);
    if (rc) return rc;
  }
  switch (s->kind) {
  case TERN__L_MOVE: return run_move(p, f, s);
  case TERN__L_PRINT: return run_print(p, f, s);
  case TERN__L_COND:
  case TERN__L_WHILE: return tern__run_control(p, f, s);
  default: break;
  }
  if (s->slow) return run_slow(p, f, s);
  tern__device *d = s->device;
  if (atomic_load_explicit(&d->lost, memory_order_relaxed))
    return tern__fail(TERN_E_LOST, "%s: %s is lost; use another device", p->name, d->name);
  const uint64_t began = tern__tracing() ? tern__now_ns() : 0;
  tern__queue_lock(d);
  const tern_rc rc = s->launch(d->dev, d->queue, s->code, &f->launch[i]);
  tern__queue_unlock(d);
  tern__count_launch(t, d);
  if (began) tern__trace("launch", s->name, d, 0, began, "");
  return rc ? launch_failed(p, s, rc) : TERN_OK;
}

static tern_rc run_steps(tern__program *p, tern__frame *f, tern__thread *t) {
  if (TERN__LIKELY(p->plain && !tern__tracing() && p->n_steps)) {
    if (TERN__UNLIKELY(atomic_load_explicit(&p->device->lost, memory_order_relaxed)))
      return tern__fail(TERN_E_LOST, "%s: %s is lost; use another device", p->name, p->device->name);
    return run_plain(p, f, t);
  }
  tern_rc rc = TERN_OK;
  for (uint32_t i = 0; i < p->n_steps && !rc; i++) rc = run_step(p, f, t, i);
  const tern_rc arrived = rc || p->last_wait ? await_all(p, f) : TERN_OK;
  return rc ? rc : arrived;
}

/* Step by step, waiting for each launch, whose time is remembered. */
static tern_rc run_timed(tern__program *p, tern__frame *f, tern__thread *t) {
  tern_rc rc = TERN_OK;
  for (uint32_t i = 0; i < p->n_steps && !rc; i++) {
    if (!tern__watch_wants(p->watch, i)) {
      rc = run_step(p, f, t, i);
      continue;
    }
    rc = tern__device_sync(p->step[i].device);
    const uint64_t began = tern__now_ns();
    if (!rc) rc = run_step(p, f, t, i);
    if (!rc) rc = tern__device_sync(p->step[i].device);
    if (!rc) tern__watch_tell(p->watch, i, tern__now_ns() - began);
  }
  const tern_rc arrived = await_all(p, f);
  return rc ? rc : arrived;
}

/* ---- after ---- */

/* Variables take their next values, where those are not in place already. */
static void swap_variables(tern__program *p, tern__frame *f) {
  for (uint32_t i = 0; i < p->n_variables; i++) {
    const uint32_t b = p->next[i];
    if (b == TERN__NO || !f->fresh[b]) continue;
    tern_tensor *v = p->variable[i];
    tern__storage *old = v->storage;
    tern__storage_ref(f->fresh[b]);
    v->storage = f->fresh[b];
    v->offset = 0;
    tern__storage_unref(old);
  }
}

/* The storage behind a result, and where in it the buffer begins (elements). */
static tern__storage *storage_of(const tern__program *p, const tern__frame *f, uint32_t buffer, tern_tensor *const *in,
                                 int64_t *first) {
  const tern__pbuffer *b = &p->buffer[p->buffer[buffer].root];
  const tern_tensor *t = b->place == TERN__PLACE_INPUT      ? in[b->index]
                         : b->place == TERN__PLACE_VARIABLE ? p->variable[b->index]
                         : b->place == TERN__PLACE_CONST    ? b->tensor
                                                            : NULL;
  *first = t ? t->offset : 0;
  return t ? t->storage : f->fresh[p->buffer[buffer].root];
}

static inline tern_tensor *result_header(tern__thread *t, const tern__presult *r) {
  tern_tensor *x = tern__header(t);
  if (TERN__UNLIKELY(!x)) return NULL;
  x->dtype = r->form.dtype;
  x->rank = r->form.rank;
  x->flags = r->form.flags & TERN__CONTIG;
  x->slot = UINT32_MAX;
  x->device = r->form.device;
  x->numel = r->form.numel;
  x->offset = r->form.offset;
  x->grad_id = 0;
  if (TERN__LIKELY(r->form.rank <= 2)) { /* a loop would become two calls of memcpy */
    memcpy(x->shape, r->form.shape, 2 * sizeof *x->shape);
    memcpy(x->stride, r->form.stride, 2 * sizeof *x->stride);
  } else {
    memcpy(x->shape, r->form.shape, sizeof x->shape);
    memcpy(x->stride, r->form.stride, sizeof x->stride);
  }
  return x;
}

/* *made: how many of out[] there are now, all unless it failed. */
static inline tern_rc make_results(const tern__program *p, const tern__frame *f, tern__thread *t,
                                   tern_tensor *const *in, tern_tensor **out, uint32_t *made) {
  for (uint32_t i = 0; i < p->n_results; i++) {
    const tern__presult *r = &p->result[i];
    out[i] = TERN_NONE;
    if (r->buffer == TERN__NO) continue;
    tern_tensor *x = result_header(t, r);
    if (TERN__UNLIKELY(!x)) {
      *made = i;
      return TERN_E_OOM;
    }
    int64_t first;
    if (TERN__LIKELY(r->owner)) { /* the only one that has it */
      x->storage = f->fresh[r->buffer];
      f->fresh[r->buffer] = NULL;
    } else {
      x->storage = storage_of(p, f, r->buffer, in, &first);
      x->offset = first + r->form.offset;
      tern__storage_ref(x->storage);
    }
    out[i] = x;
  }
  *made = p->n_results;
  return TERN_OK;
}

/* The whole program is one launch. */
static inline tern_rc run_direct(const tern__program *p, tern__thread *t, tern_tensor *const *in, tern_tensor **out) {
  tern__device *d = p->device;
  const tern__pstep *s = &p->step[0];
  tern_arg arg[TERN__MAX_DIRECT];
  tern_tensor *x = result_header(t, &p->result[0]);
  if (TERN__UNLIKELY(!x)) return TERN_E_OOM;
  x->storage = tern__storage_new(t, d, p->buffer[p->result[0].buffer].bytes);
  if (TERN__UNLIKELY(!x->storage)) {
    tern__free_tensor(x);
    return tern__recorded();
  }
  for (uint32_t a = 0; a < p->n_direct; a++) {
    const tern__pdirect *from = &p->direct[a];
    if (from->place == TERN__PLACE_INPUT) {
      const tern_tensor *operand = in[from->index];
      arg[a].mem = operand->storage->mem;
      arg[a].offset = operand->storage->mem_offset + (uint64_t)operand->offset * from->item + from->offset;
    } else if (from->place == TERN__PLACE_RESULT) {
      arg[a].mem = x->storage->mem;
      arg[a].offset = x->storage->mem_offset + from->offset;
    } else {
      arg[a] = (tern_arg){from->mem, from->offset};
    }
  }
  const tern_launch l = {.args = arg, .words = p->words, .n_args = p->n_direct, .n_words = s->n_words};
  tern__kernel_ready(d, s->kernel);
  tern__queue_lock(d);
  const tern_rc rc = s->launch(d->dev, d->queue, s->code, &l);
  tern__queue_unlock(d);
  tern__count_launch(t, d);
  if (TERN__LIKELY(!rc)) {
    out[0] = x;
    return TERN_OK;
  }
  tern__unref(x);
  out[0] = NULL;
  return launch_failed(p, s, rc);
}

uint32_t tern__program_fresh(const tern__program *p, uint32_t i) {
  const tern__presult *r = &p->result[i];
  if (r->buffer == TERN__NO) return TERN__NO;
  const tern__pbuffer *b = &p->buffer[p->buffer[r->buffer].root];
  const bool all = r->form.flags & TERN__CONTIG && r->form.offset == 0 &&
                   (uint64_t)r->form.numel * tern__dtype_size[b->dtype] == b->bytes;
  return b->place == TERN__PLACE_RESULT && all ? b->index : TERN__NO;
}

tern_rc tern__program_run(tern__program *p, tern_tensor *const *in, tern_tensor **out) {
  return tern__program_run_into(p, in, out, NULL);
}

tern_rc tern__program_run_into(tern__program *p, tern_tensor *const *in, tern_tensor **out,
                               tern__storage *const *given) {
  tern__thread *t = tern__thread_get();
  if (!t) return TERN_E_OOM;
  const bool timed = TERN__UNLIKELY(p->watch != NULL) && tern__watch_takes(p->watch);
  if (p->n_direct && !timed && !given &&
      TERN__LIKELY(!tern__tracing() && !atomic_load_explicit(&p->device->lost, memory_order_relaxed)))
    return run_direct(p, t, in, out);
  tern__frame *f = tern__frame_take(p, t);
  if (!f) return tern__recorded();
  uint32_t made = 0;
  tern_rc rc = bind(p, f, t, in, given);
  if (!rc && p->n_sources) rc = draw(p, f);
  if (!rc) rc = TERN__UNLIKELY(timed) ? run_timed(p, f, t) : run_steps(p, f, t);
  if (!rc) rc = make_results(p, f, t, in, out, &made); /* before variables change: a result may be an old value */
  if (!rc) swap_variables(p, f);
  for (uint32_t k = 0; k < p->n_external; k++) {
    tern__storage *fresh = f->fresh[p->external[k]];
    if (!fresh) continue;
    f->fresh[p->external[k]] = NULL;
    tern__storage_unref(fresh);
  }
  if (TERN__UNLIKELY(rc))
    for (uint32_t i = 0; i < p->n_results; i++) {
      if (i < made && out[i] != TERN_NONE) tern__unref(out[i]);
      out[i] = NULL;
    }
  tern__frame_give(p, f);
  return rc;
}

const tern__program_stats *tern__program_statistics(const tern__program *p) { return &p->stats; }
