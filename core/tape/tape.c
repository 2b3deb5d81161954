/* Tapes: beginning, ending, watching, pausing. */
#include "tape/tape.h"
#include "base/alloc.h"
#include "device/device.h"
#include "ops/table.h"
#include "tensor/dtype.h"
#include <pthread.h>
#include <stdlib.h>

static bool on_view(tern__thread *t, tern__view_kind kind, tern_tensor *from, const tern_word *attr, int n_attr,
                    tern_tensor *view) {
  static const tern__op *const ops[] = {&tern__op_reshape, &tern__op_permute, &tern__op_slice, &tern__op_expand};
  return tern__record_op(t, ops[kind], &from, 1, attr, n_attr, &view, 1);
}

/* Where the newest open or finished tape of the thread began: scopes above it hold no tape. */
static void update_depth(tern__thread *t) {
  const tern__recorder *r = t->recorder;
  t->tape_depth = 0;
  for (const tern_tape *tape = r->tapes; tape; tape = tape->outer)
    if (tape->depth > t->tape_depth) t->tape_depth = tape->depth;
  for (const tern_tape *tape = r->finished; tape; tape = tape->outer)
    if (tape->depth > t->tape_depth) t->tape_depth = tape->depth;
}

/* The tape stops; its handle stays known as finished until its scope ends. */
void tern__tape_finish(tern__recorder *r, tern_tape *tape) {
  tern_tape **at = &r->tapes;
  while (*at != tape) at = &(*at)->outer;
  *at = tape->outer;
  r->active &= ~tape->bit;
  r->automatic &= ~tape->bit;
  r->open &= ~tape->bit;
  if (r->open)
    tern__forget(r, tape->bit, tape->start, tape->first_value);
  else
    tern__record_clear(r);
  tern_tape **list = tape->depth ? &r->finished : &r->free_tapes; /* outside of scopes none will end it */
  tape->recorder = NULL;
  tape->outer = *list;
  *list = tape;
}

static void on_scope_end(tern__thread *t, uint32_t depth) {
  tern__recorder *r = t->recorder;
  while (r->tapes && r->tapes->depth > depth) tern__tape_finish(r, r->tapes);
  for (tern_tape **at = &r->finished; *at;) {
    tern_tape *tape = *at;
    if (tape->depth <= depth) {
      at = &tape->outer;
      continue;
    }
    *at = tape->outer;
    tape->outer = r->free_tapes;
    r->free_tapes = tape;
  }
  update_depth(t);
  tern__hook_update(t);
}

static void on_thread_end(tern__thread *t) {
  tern__recorder *r = t->recorder;
  t->recorder = NULL;
  t->hooks &= ~(uint32_t)TERN__HOOK_TAPE;
  tern__recorder_free(r);
}

static pthread_once_t listen_once = PTHREAD_ONCE_INIT;
static void listen(void) {
  tern__tape_listener =
      (tern__listener){.op = tern__record_op, .view = on_view, .scope_end = on_scope_end, .thread_end = on_thread_end};
}

tern_tape *tern_tape_begin(const tern_tape_opts *opts) {
  tern__thread *t = tern__thread_get();
  pthread_once(&listen_once, listen);
  tern__recorder *r = t ? tern__recorder_of(t) : NULL;
  if (!r) return NULL;
  if (r->open == UINT32_MAX) {
    tern__fail(TERN_E_ARG,
               "tape_begin: %d tapes are open on this thread, the most there may be; end some with tern_tape_end",
               TERN__MAX_TAPES);
    return NULL;
  }
  tern_tape *tape = r->free_tapes;
  if (tape)
    r->free_tapes = tape->outer;
  else
    tape = tern__calloc(1, sizeof *tape);
  if (!tape) {
    tern__fail(TERN_E_OOM, "tape_begin: out of host memory");
    return NULL;
  }
  *tape = (tern_tape){.outer = r->tapes,
                      .recorder = r,
                      .start = r->last,
                      .first_value = r->n_values,
                      .bit = ~r->open & (r->open + 1),
                      .depth = t->depth,
                      .persistent = opts && opts->persistent,
                      .automatic = !(opts && opts->watch_nothing)};
  r->tapes = tape;
  r->open |= tape->bit;
  r->active |= tape->bit;
  if (tape->automatic) r->automatic |= tape->bit;
  if (tape->depth > t->tape_depth) t->tape_depth = tape->depth;
  tern__hook_update(t);
  return tape;
}

tern_tape *tern__tape_usable(tern_tape *tape, const char *what) {
  const tern__thread *t = tern__tls;
  if (!tape) {
    if (!t || t->error_state == TERN__ERROR_NONE) tern__fail(TERN_E_ARG, "%s: the tape is NULL", what);
    return NULL;
  }
  if (!tape->recorder) {
    tern__fail(TERN_E_ARG,
               "%s: the tape has ended: it gave its one gradient, or tern_tape_end or the end of its scope came first; "
               "begin it with "
               ".persistent = 1 to take several gradients",
               what);
    return NULL;
  }
  if (tape->walking) {
    tern__fail(TERN_E_ARG, "%s: a gradient of this tape is being taken; use another tape inside of a gradient function",
               what);
    return NULL;
  }
  if (!t || tape->recorder != t->recorder) {
    tern__fail(TERN_E_ARG, "%s: the tape was begun on another thread; use it there", what);
    return NULL;
  }
  return tape;
}

void tern_tape_end(tern_tape *tape) {
  tern__thread *t = tern__tls;
  if (!tape || !tape->recorder) return; /* ended already */
  if (!tern__tape_usable(tape, "tape_end")) return;
  tern__tape_finish(t->recorder, tape);
  tern__hook_update(t);
}

tern_rc tern_tape_watch(tern_tape *tape, tern_tensor *x) {
  if (!tern__tape_usable(tape, "tape_watch") || !tern__usable(x, "tape_watch", 2)) return tern__recorded();
  if (!tern__is_float((tern_dtype)x->dtype) || x->flags & TERN__WEAK)
    return tern__fail(TERN_E_ARG,
                      "tape_watch: argument 2 is %s%s; only float tensors have gradients: tern_cast it first",
                      x->flags & TERN__WEAK ? "a host scalar of " : "", tern_dtype_name((tern_dtype)x->dtype));
  return tern__watch(tape->recorder, x, tape->bit) ? TERN_OK : tern__recorded();
}

tern_rc tern_tape_reset(tern_tape *tape) {
  if (!tern__tape_usable(tape, "tape_reset")) return tern__recorded();
  tern__recorder *r = tape->recorder;
  if (r->open == tape->bit)
    tern__record_clear(r);
  else
    tern__forget(r, tape->bit, tape->start, tape->first_value);
  tape->start = r->last;
  tape->first_value = r->n_values;
  return TERN_OK;
}

tern_no_gradient_mark tern_no_gradient_begin(void) {
  tern__thread *t = tern__thread_get();
  pthread_once(&listen_once, listen);
  tern__recorder *r = t ? tern__recorder_of(t) : NULL;
  if (!r) return (tern_no_gradient_mark){0};
  r->paused++;
  tern__hook_update(t);
  return (tern_no_gradient_mark){1};
}

void tern_no_gradient_end(tern_no_gradient_mark *mark) {
  tern__thread *t = tern__tls;
  if (!t || !t->recorder || !mark || !mark->paused) return;
  mark->paused = 0;
  if (t->recorder->paused) t->recorder->paused--;
  tern__hook_update(t);
}

int tern_recording(void) {
  const tern__thread *t = tern__tls;
  return t && t->recorder && !t->recorder->paused && t->recorder->active;
}

tern_tensor *tern_stop_gradient(tern_tensor *x) {
  if (!tern__usable(x, "stop_gradient", 1)) return NULL;
  if (x->flags & TERN__WEAK) return tern__push(tern__ref(x));
  return tern__push(tern__alias(x, 0));
}
