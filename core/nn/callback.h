/* Callbacks inside: what fit calls. The built-in ones are bodies like a program's own, but for resuming. */
#ifndef TERN_NN_CALLBACK_H_
#define TERN_NN_CALLBACK_H_
#include <stdbool.h>
#include <tern/nn.h>

struct tern_callback {
  tern_callback_body body;
  void *self;
  /* Before `begin`, with the model built: puts the model, its optimiser and its history where an earlier fit was, and
     says with which epoch to go on (*epoch stays when there is nothing). NULL: no such thing. */
  tern_rc (*resume)(void *self, const tern_moment *moment, int *epoch);
};

/* The value of a log; NaN with found = false when there is none of that name. */
double tern__log_of(const tern_moment *moment, const char *name, bool *found);
/* Whether more is better of what is monitored: larger_is_better as the options have it. */
bool tern__larger_is_better(int larger_is_better, const char *monitor);
#endif
