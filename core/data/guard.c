/* What calls of the program's functions and threads run in, and how errors get from one thread to another. */
#include "base/alloc.h"
#include "data/data.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

enum { OFF = TERN__HOOK_TAPE | TERN__HOOK_GRAPH };

tern_rc tern__enter(tern__guard *g) {
  tern__thread *t = g->thread = tern__thread_get();
  if (!t) return TERN_E_OOM;
  tern__device *host = tern__device_host();
  if (!host) return tern__recorded();
  g->error_state = t->error_state;
  if (g->error_state != TERN__ERROR_NONE) {
    g->error_code = t->error_code;
    memcpy(g->error_text, t->error_text, sizeof g->error_text);
    t->error_state = TERN__ERROR_NONE;
  }
  g->scope = tern_scope_begin();
  g->device = t->device;
  t->device = host;
  g->hooks = t->hooks & OFF;
  t->hooks &= ~(uint32_t)OFF;
  return TERN_OK;
}

int tern__leave(tern__guard *g, int rc) {
  tern__thread *t = g->thread;
  char text[sizeof t->error_text] = "";
  if (rc < 0 && t->error_state == TERN__ERROR_UNREAD) memcpy(text, t->error_text, sizeof text);
  t->error_state = TERN__ERROR_NONE; /* the end of an outermost scope would give it to the process */
  tern_scope_end(&g->scope);
  t->device = g->device;
  t->hooks |= g->hooks;
  if (rc >= 0 || g->error_state == TERN__ERROR_UNREAD) {
    if (g->error_state == TERN__ERROR_NONE) return rc;
    t->error_state = g->error_state;
    t->error_code = g->error_code;
    memcpy(t->error_text, g->error_text, sizeof g->error_text);
    return rc;
  }
  return tern__fail(rc, "%s", *text ? text : tern_rc_name(rc));
}

/* ---- outcomes ---- */

void tern__outcome_failed(tern__outcome *o, int rc) {
  *o = (tern__outcome){.rc = rc, .error = tern__strdup(tern__pending())};
  tern_error_clear();
}

int tern__outcome_take(tern__outcome *o, tern__element *out) {
  const int rc = o->rc;
  if (rc > 0)
    *out = o->element;
  else if (rc < 0)
    tern__fail(rc, "%s", o->error && *o->error ? o->error : tern_rc_name(rc));
  free(o->error);
  *o = (tern__outcome){0};
  return rc;
}

void tern__outcome_drop(tern__outcome *o) {
  if (o->rc > 0) tern__element_drop(&o->element);
  free(o->error);
  *o = (tern__outcome){0};
}

int tern__fail_element(int rc, const char *op, int64_t number) {
  const tern__thread *t = tern__tls;
  const bool told = t->error_state == TERN__ERROR_UNREAD || (t->error_state == TERN__ERROR_READ && t->error_code == rc);
  char text[sizeof t->error_text];
  snprintf(text, sizeof text, "%s", told ? t->error_text : "");
  tern_error_clear();
  if (*text) return tern__fail(rc, "%s: element %lld: %s", op, (long long)number, text);
  return tern__fail(rc, "%s: element %lld: the program's function returned %s (%d)", op, (long long)number,
                    tern_rc_name(rc), rc);
}

tern_rc tern__start_thread(pthread_t *thread, void *(*run)(void *), void *self, const char *op) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const int failed = pthread_create(thread, NULL, run, self);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return failed ? tern__fail(TERN_E_OOM, "%s: no thread could be started: %s", op, strerror(failed)) : TERN_OK;
}
