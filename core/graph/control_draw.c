/* Random draws in traces. A run of a program asks for the numbers of its sources when it begins, so the program of a
   body draws when the body runs; what is drawn behind a loop or branch that draws waits for it in a branch of its own.
   For gradients a body gives what it drew along with its results, and its repetition takes it from there. */
#include "device/device.h"
#include "graph/control.h"
#include <tern/ops.h>

void tern__draws_begin(tern__draws *d, const tern__thread *t, bool record) {
  d->outer = t->trace->draws;
  d->around = t->trace;
  d->record = record;
  d->replay = d->outer && d->outer->replay;
  d->refuse = d->outer && d->outer->refuse;
  d->in_turn = false;
  d->trip = NULL;
  d->saved = NULL;
  d->n_saved = d->at = d->n = 0;
}

bool tern__draws_matter(const tern__thread *t) {
  const tern__draws *d = t->trace->draws;
  return d && (d->record || d->replay || d->refuse);
}

static tern__draws *root_of(const tern__thread *t) {
  tern__draws *d = t->trace->draws;
  while (d && d->replay && d->outer) d = d->outer;
  return d;
}

int tern__draws_place(const tern__thread *t) {
  const tern__draws *d = root_of(t);
  return d ? d->at : 0;
}

void tern__draws_go(const tern__thread *t, int place) {
  tern__draws *d = root_of(t);
  if (d) d->at = place;
}

tern_rc tern__draws_note(tern__thread *t, tern_tensor *x) {
  tern__draws *d = t->trace->draws;
  if (!d || !d->record) return TERN_OK;
  if (d->n == TERN__CONTROL_MOST)
    return tern__fail(TERN_E_UNSUPPORTED,
                      "random: more than %d draws in the body of a traced loop or branch that a tape records; draw "
                      "outside and pass the result in",
                      TERN__CONTROL_MOST);
  d->value[d->n] = tern__tracer_value(t->trace, x);
  return d->value[d->n++] == TERN__IR_NONE ? tern__recorded() : TERN_OK;
}

/* What the run that is repeated drew here. */
static tern_tensor *again(tern__thread *t, tern__draws *d) {
  tern_tensor *x = NULL;
  if (d->outer) {
    const tern__tracer_mark before = tern__tracer_enter(t, d->around, false);
    x = again(t, d->outer);
    tern__tracer_leave(t, before);
  } else if (d->at < d->n_saved) {
    x = d->saved[d->at++];
  } else {
    tern__fail(TERN_E_ARG,
               "random: the body of a loop or branch in \"%s\" draws more numbers when it is traced again for its "
               "gradient; it must do the same each time",
               t->trace->name);
  }
  return x && d->trip ? tern_take(x, d->trip, 0) : x;
}

/* As a branch that is always taken: its program runs when those before it have. */
static tern_tensor *draw_in_turn(tern__thread *t, tern_tensor *(*make)(void *self), void *self) {
  tern__body b[2] = {0};
  const tern__device *host = tern__device_host(); /* the predicate is read by the host in each run */
  if (!host) return NULL;
  tern_device_mark device = tern_device_begin(host->name);
  tern_tensor *yes = tern_full((tern_shape){0, {0}}, TERN_BOOL, 1), *out = NULL;
  tern_device_end(&device);
  tern_rc rc = yes ? TERN_OK : tern__recorded();
  for (int k = 0; k < 2 && !rc; k++) {
    rc = tern__body_open(t, &b[k], NULL);
    if (rc) break;
    t->trace->drew = t->trace->fresh = true;
    tern_tensor *x = make(self);
    rc = tern__body_close(t, &b[k], x ? tern__body_output(&b[k], x) : tern__recorded());
  }
  if (!rc) rc = tern__body_unite(&b[0], &b[1]);
  if (!rc) rc = tern__control_node(t, yes, NULL, 0, &b[0], &b[1], 0, &out, 1);
  for (int k = 0; k < 2; k++) tern__body_free(&b[k]);
  return rc ? NULL : out;
}

tern_rc tern__draws_repeated(void) {
  return tern__fail(TERN_E_UNSUPPORTED,
                    "random: what was drawn in the body of a traced loop or branch, or behind one, cannot be drawn "
                    "again by tern_checkpoint_call; draw outside and pass the result in, or give the draw a seed");
}

/* By a checkpoint: the source must be that of the first time. */
static tern_tensor *draw_again(const tern__graph *g, tern_tensor *(*make)(void *self), void *self) {
  const uint32_t first = g->n_nodes;
  tern_tensor *x = make(self);
  for (uint32_t i = first; i < g->n_nodes && x; i++)
    if (g->node[i].kind == TERN__IR_SOURCE && tern__draws_repeated()) return NULL;
  return x;
}

tern_tensor *tern__draw(tern__thread *t, tern_tensor *(*make)(void *self), void *self) {
  tern__tracer *trace = t->trace;
  tern__draws *d = trace->draws;
  tern_tensor *x = NULL;
  if (d && d->refuse) {
    tern__fail(TERN_E_UNSUPPORTED,
               "random: a draw in the condition of a loop inside of a loop or branch whose gradient is taken in a "
               "graph; draw in the body, or outside");
    return NULL;
  }
  trace->drew = true;
  if (d && d->replay) {
    x = again(t, d);
  } else {
    trace->fresh = true;
    x = trace->repeat.source ? draw_again(trace->g, make, self)
        : trace->in_turn     ? draw_in_turn(t, make, self)
                             : make(self);
  }
  return x && !tern__draws_note(t, x) ? x : NULL;
}
