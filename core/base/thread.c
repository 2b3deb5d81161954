/* The thread block, errors and scopes. */
#include "base/thread.h"
#include "base/alloc.h"
#include "base/log.h"
#include "base/options.h"
#include "device/memory.h"
#include "tensor/tensor.h"
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Thread_local tern__thread *tern__tls __attribute__((tls_model("initial-exec")));

static struct {
  pthread_once_t once;
  pthread_key_t key;
  pthread_mutex_t lock;
  tern_rc first_code; /* the first error of the process that nobody read */
  char first_text[1024];
} process = {.once = PTHREAD_ONCE_INIT, .lock = PTHREAD_MUTEX_INITIALIZER};

tern__listener tern__tape_listener;
tern__graph_hooks tern__graph_listener;

static void close_scopes(tern__thread *t, uint32_t depth, uint32_t outer) {
  if (t->tape_depth > depth) tern__tape_listener.scope_end(t, depth);
  while (t->top > t->base) tern__unref(t->stack[--t->top]);
  t->base = outer;
  t->depth = depth;
}

static void thread_end(void *block) {
  tern__thread *t = block;
  tern__tls = t; /* other destructors may have cleared it; frees below need it */
  t->base = 0;
  close_scopes(t, 0, 0);
  if (t->recorder) tern__tape_listener.thread_end(t);
  if (t->graph_mode) tern__graph_listener.thread_end(t);
  tern__error_flush(t);
  tern__headers_give_back(t);
  tern__pool_thread_end(t);
  tern__tls = NULL;
  for (int i = 0; t->memo && i < TERN__MEMO_SLOTS; i++) free(t->memo[i]);
  free(t->memo);
  free(t->stack);
  free(t);
}

static void make_key(void) { pthread_key_create(&process.key, thread_end); }

tern__thread *tern__thread_make(void) {
  pthread_once(&process.once, make_key);
  tern__thread *t = tern__calloc64(sizeof *t);
  if (!t) return NULL;
  t->capacity = 1024;
  t->stack = tern__calloc(t->capacity, sizeof *t->stack);
  if (!t->stack || pthread_setspecific(process.key, t)) {
    free(t->stack);
    free(t);
    return NULL;
  }
  const tern__options *options = tern__opt();
  if (*options->shadow) t->hooks |= TERN__HOOK_SHADOW;
  if (*options->trace) t->hooks |= TERN__HOOK_TRACE;
  if (!strcmp(options->sync, "1")) t->hooks |= TERN__HOOK_SYNC;
  if (!strcmp(options->check_numerics, "1")) t->hooks |= TERN__HOOK_NUMERICS;
  tern__tls = t;
  return t;
}

/* ---- errors ---- */

tern_rc tern__fail(tern_rc rc, const char *format, ...) {
  tern__thread *t = tern__thread_get();
  if (!t || t->error_state == TERN__ERROR_UNREAD) return rc;
  char text[sizeof t->error_text];
  va_list list;
  va_start(list, format);
  vsnprintf(text, sizeof text, format, list); /* an argument may be the old text */
  va_end(list);
  memcpy(t->error_text, text, sizeof text);
  t->error_code = rc;
  t->error_state = TERN__ERROR_UNREAD;
  if (!strcmp(tern__opt()->on_error, "abort")) {
    fprintf(stderr, "tern: %s\n", text);
    abort(); /* asked for by TERN_ON_ERROR=abort */
  }
  return rc;
}

void tern__error_prefix(const char *text) {
  tern__thread *t = tern__tls;
  if (!t || t->error_state != TERN__ERROR_UNREAD || !strncmp(t->error_text, text, strlen(text))) return;
  char all[sizeof t->error_text];
  const size_t n = strlen(text) < sizeof all ? strlen(text) : sizeof all - 1, old = strlen(t->error_text);
  const size_t rest = old < sizeof all - n ? old : sizeof all - n - 1;
  memcpy(all, text, n);
  memcpy(all + n, t->error_text, rest);
  all[n + rest] = 0;
  memcpy(t->error_text, all, n + rest + 1);
}

const char *tern__pending(void) {
  return tern__tls && tern__tls->error_state == TERN__ERROR_UNREAD ? tern__tls->error_text : "";
}

void tern__error_flush(tern__thread *t) {
  if (t->error_state != TERN__ERROR_UNREAD) return;
  pthread_mutex_lock(&process.lock);
  if (!process.first_code) {
    process.first_code = t->error_code;
    memcpy(process.first_text, t->error_text, sizeof process.first_text);
  }
  pthread_mutex_unlock(&process.lock);
  tern__log(TERN__LOG_ERROR, "error", "%s", t->error_text);
  t->error_state = TERN__ERROR_NONE;
}

tern_rc tern_error_code(void) {
  tern__thread *t = tern__tls;
  if (!t || t->error_state == TERN__ERROR_NONE) return TERN_OK;
  t->error_state = TERN__ERROR_READ;
  return t->error_code;
}

const char *tern_error(void) { return tern_error_code() ? tern__tls->error_text : ""; }

void tern_error_clear(void) {
  if (tern__tls) tern__tls->error_state = TERN__ERROR_NONE;
}

const char *tern_rc_name(tern_rc rc) {
  static const char *const names[] = {"TERN_OK",        "TERN_E_UNSUPPORTED", "TERN_E_OOM", "TERN_E_ARG", "TERN_E_LOST",
                                      "TERN_E_TIMEOUT", "TERN_E_INTERNAL",    "TERN_E_END", "TERN_E_IO"};
  return rc <= 0 && rc >= TERN_E_IO ? names[-rc] : "TERN_E_INTERNAL";
}

const char *tern_version(void) { return "0.1.0"; }

int tern__finish_errors(void) {
  if (tern__tls) tern__error_flush(tern__tls);
  pthread_mutex_lock(&process.lock);
  const int failed = process.first_code != TERN_OK;
  if (failed) fprintf(stderr, "tern: this program had an error that nobody read: %s\n", process.first_text);
  process.first_code = TERN_OK;
  pthread_mutex_unlock(&process.lock);
  return failed;
}

void tern__finish_scopes(void) {
  tern__thread *t = tern__tls;
  if (!t) return;
  t->base = 0;
  close_scopes(t, t->depth, 0); /* marks of open scopes stay valid: they find an empty stack */
}

/* ---- scopes ---- */

tern_scope_mark tern_scope_begin(void) {
  tern__thread *t = tern__thread_get();
  if (!t) return (tern_scope_mark){0, UINT32_MAX};
  const tern_scope_mark mark = {t->base, t->depth};
  t->base = t->top;
  t->depth++;
  return mark;
}

static __attribute__((noinline)) void end_with_inner_scopes(tern__thread *t, const tern_scope_mark *mark) {
  if (mark->depth >= t->depth) return; /* already closed with an outer one */
  const uint32_t outer = mark->outer < t->top ? mark->outer : t->top;
  if (t->depth > mark->depth + 1) /* what they and this one hold then dies with the next outer scope */
    tern__log(TERN__LOG_WARN, "scope", "%u inner scopes were left open", t->depth - mark->depth - 1);
  close_scopes(t, mark->depth, outer);
  if (t->depth == 0) tern__error_flush(t);
}

void tern_scope_end(tern_scope_mark *mark) {
  tern__thread *t = tern__tls;
  if (TERN__UNLIKELY(!t || !mark)) return;
  if (TERN__UNLIKELY(t->depth != mark->depth + 1 || mark->outer > t->top)) {
    end_with_inner_scopes(t, mark);
    return;
  }
  if (TERN__UNLIKELY(t->tape_depth > mark->depth)) tern__tape_listener.scope_end(t, mark->depth);
  uint32_t top = t->top;
  const uint32_t base = t->base;
  while (top > base) {
    tern_tensor *tensor = t->stack[--top];
    t->top = top;
    tern__unref(tensor);
  }
  t->base = mark->outer;
  t->depth = mark->depth;
  if (TERN__UNLIKELY(mark->depth == 0)) tern__error_flush(t);
}

static tern_tensor *push_slow(tern__thread *t, tern_tensor *tensor) {
  const uint32_t capacity = t->capacity * 2;
  tern_tensor **stack = tern__realloc(t->stack, capacity * sizeof *stack);
  if (!stack) {
    tern__unref(tensor);
    tern__fail(TERN_E_OOM, "out of host memory for the scope's handles");
    return NULL;
  }
  t->stack = stack;
  t->capacity = capacity;
  if (t->top - t->base > 10000 && !t->warned_big_scope) {
    t->warned_big_scope = true;
    tern__log(TERN__LOG_WARN, "scope",
              "one scope holds more than 10,000 tensors; put TERN_SCOPE; into the loop that makes them");
  }
  return tern__push(tensor);
}

tern_tensor *tern__push(tern_tensor *tensor) {
  if (!tensor) return NULL;
  tern__thread *t = tern__thread_get();
  if (!t) {
    tern__unref(tensor);
    return NULL;
  }
  if (TERN__UNLIKELY(t->top == t->capacity)) return push_slow(t, tensor);
  tensor->slot = t->top;
  t->stack[t->top++] = tensor;
  return tensor;
}

tern_tensor *tern_escape(tern_tensor *tensor) {
  tern__thread *t = tern__tls;
  if (!t || !tern__usable(tensor, "tern_escape", 1)) return NULL;
  if (t->depth == 0) return tensor;
  uint32_t at = tensor->slot;
  if (at >= t->top || t->stack[at] != tensor) { /* several handles to one tensor: look */
    for (at = t->top; at > t->base && t->stack[at - 1] != tensor;) at--;
    at--;
  }
  if (at < t->base || at >= t->top) return tensor; /* an outer scope's already, or kept */
  tern_tensor *other = t->stack[t->base];
  t->stack[at] = other;
  other->slot = at;
  t->stack[t->base] = tensor;
  tensor->slot = t->base++;
  return tensor;
}
