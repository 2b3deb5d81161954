/* Variables that are assigned inside of traced bodies: what they end with there is a further result of the node, which
   the trace around assigns; a loop has them as further states. */
#include "base/alloc.h"
#include "graph/control.h"
#include <stdlib.h>

static struct tern__body_assigned *find(const tern__body *b, const tern_tensor *variable) {
  for (uint32_t i = 0; i < b->n_assigned; i++)
    if (b->assigned[i].variable == variable) return &b->assigned[i];
  return NULL;
}

static tern_rc collect(tern__assigned *v, const tern__body *b) {
  for (uint32_t i = 0; i < b->n_assigned; i++) {
    int k = 0;
    while (k < v->n && v->variable[k] != b->assigned[i].variable) k++;
    if (k < v->n) continue;
    if (v->n == TERN__CONTROL_MOST)
      return tern__fail(TERN_E_UNSUPPORTED, "graph: more than %d variables are assigned in a body", TERN__CONTROL_MOST);
    v->variable[v->n] = tern__ref(b->assigned[i].variable);
    v->before[v->n++] = tern__ref(b->assigned[i].before);
  }
  return TERN_OK;
}

tern_rc tern__assigned_list(tern__assigned *v, const tern__body *b) {
  v->n = 0;
  return collect(v, b);
}

/* The value from outside is a declared input from now on. */
static tern_rc declare(tern__body *b, tern_tensor *outer, uint32_t *value) {
  *value = tern__body_value_of(b, outer);
  if (*value == TERN__IR_NONE) return tern__recorded();
  uint32_t *rest = tern__calloc((size_t)b->n_outer + 1, sizeof *rest), n = 0;
  if (!rest || b->n_inputs == sizeof b->input / sizeof *b->input) {
    free(rest);
    return tern__fail(TERN_E_OOM, "graph: no room for the variables that a body assigns");
  }
  for (uint32_t i = 0; i < b->n_outer; i++) {
    if (b->outer[i] == outer) continue;
    rest[n] = b->g->input[b->n_inputs + i];
    b->outer[n++] = b->outer[i];
  }
  b->n_outer = n;
  tern__unref(outer); /* the list's */
  b->input[b->n_inputs++] = *value;
  tern__body_number(b, rest);
  free(rest);
  return TERN_OK;
}

static tern_rc add_result(tern__body *b, const tern_tensor *variable, tern_tensor *before, bool loop, bool results) {
  const struct tern__body_assigned *a = find(b, variable);
  uint32_t value = TERN__IR_NONE;
  if (loop) {
    const tern_rc rc = declare(b, before, &value);
    if (rc || !results) return rc;
  } else if (!a && (value = tern__body_value_of(b, before)) == TERN__IR_NONE) {
    return tern__recorded();
  }
  return tern__graph_add_output(b->g, a ? a->value : value);
}

tern_rc tern__assigned_begin(tern__assigned *v, tern__body *a, tern__body *b, bool loop) {
  v->n = 0;
  tern_rc rc = loop ? TERN_OK : collect(v, a);
  if (loop && a->n_assigned)
    rc = tern__fail(TERN_E_UNSUPPORTED,
                    "while: variable \"%s\" is assigned in the condition of a traced loop; assign it in the body",
                    a->assigned[0].variable->variable->name);
  if (!rc) rc = collect(v, b);
  for (int k = 0; k < v->n && !rc; k++) {
    rc = add_result(a, v->variable[k], v->before[k], loop, !loop);
    if (!rc) rc = add_result(b, v->variable[k], v->before[k], loop, true);
  }
  return rc;
}

tern_rc tern__assigned_end(tern__thread *t, tern__assigned *v, tern_tensor *const *out, tern_rc rc) {
  for (int k = 0; k < v->n && !rc; k++) rc = tern__graph_listener.assign(t, v->variable[k], out[k]);
  tern__assigned_drop(v);
  return rc;
}

void tern__assigned_drop(tern__assigned *v) {
  tern__control_drop(v->variable, v->n);
  tern__control_drop(v->before, v->n);
  v->n = 0;
}

tern_rc tern__assigned_refuse(const tern__assigned *v, const char *what) {
  return tern__fail(TERN_E_UNSUPPORTED,
                    "%s: variable \"%s\" is assigned inside while several tapes record the %s in a graph: a second "
                    "derivative would have to go through what it was in each trip; call it under TERN_NO_GRADIENT, or "
                    "make the variable a state of the %s and assign it behind",
                    what, v->variable[0]->variable->name, what, what);
}
