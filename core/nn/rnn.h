/* Recurrent layers inside. A cell is one step, forwards and backwards (rnn_cell.c); the recurrence runs any cell over
   all steps (rnn_loop.c); the layers are what Keras makes of that (rnn.c). */
#ifndef TERN_NN_RNN_H_
#define TERN_NN_RNN_H_
#include "nn/layer.h"

enum { TERN__RNN_STATES = 2, TERN__RNN_KEPT = 5, TERN__RNN_SLOPES = 5 };

typedef struct tern__rnn { /* parameters of the three kinds */
  int64_t units;
  tern_rnn_opts opts;
} tern__rnn;

/* What is the same in all steps. */
typedef struct tern__step {
  int64_t units;
  const char *activation, *recurrent_activation; /* never NULL */
  bool usual;                                    /* they are tanh and sigmoid, and the way back holds */
  tern_tensor *recurrent;                        /* kernel [units, gates * units] */
  tern_tensor *bias;                             /* of the recurrent product, or TERN_NONE */
  tern_tensor *drop; /* what states are multiplied by before the product [batch, units], or TERN_NONE */
} tern__step;

/* A kind of cell. All functions compute by public ops, and give false with the error set. The way back has two halves:
   what does not depend on the gradients is worked out for all steps at once, so that little is left in the loop. */
typedef struct tern__cell {
  int gates, states;
  int kept, slopes; /* tensors of a step that forward keeps; that backward reads */
  bool split;       /* the gradients of zx and of the recurrent product differ: backward gives `more`, for finish */
  /* A step. zx [batch, gates * units]: what the input gives to the gates, biased. next[0] is the output. */
  bool (*forward)(const tern__step *s, tern_tensor *zx, tern_tensor *const *state, tern_tensor **next,
                  tern_tensor **kept);
  /* All steps [time, batch, ..]. before: state[0]; y: next[0]. NULL: a tape goes back through forward. */
  bool (*slopes_of)(const tern__step *s, tern_tensor *before, tern_tensor *y, tern_tensor *const *kept,
                    tern_tensor **slope);
  /* A step. dnext[]: the gradients of next[]. dz: that of the recurrent product [batch, gates * units]; dstate[]: those
     of state[] but for what flows through the product, NULL where that is all. */
  bool (*backward)(const tern__step *s, tern_tensor *const *slope, tern_tensor *const *dnext, tern_tensor **dz,
                   tern_tensor **more, tern_tensor **dstate);
  /* All steps: the gradient of zx from those of the products. */
  bool (*finish)(const tern__step *s, tern_tensor *const *slope, tern_tensor *dz, tern_tensor *more, tern_tensor **dzx);
} tern__cell;
extern const tern__cell tern__cell_simple, tern__cell_lstm, tern__cell_gru, tern__cell_gru_before;

/* The recurrence. zx [time, batch, gates * units]; mask [time, batch, 1] or TERN_NONE: in a
   masked step the states stay. */
typedef struct tern__recurrence {
  const tern__cell *cell;
  tern__step step;
  tern_tensor *zx, *mask, *state[TERN__RNN_STATES];
  bool sequence; /* all outputs are wanted, not only the last */
} tern__recurrence;
/* last[]: the states behind the last step; *all: the outputs [time, batch, units], NULL where not wanted. */
tern_rc tern__recur(const tern__recurrence *r, tern_tensor **last, tern_tensor **all);

/* The parameters, where l is a recurrent layer; else NULL. */
tern__rnn *tern__rnn_of(const tern_layer *l);
extern const tern__layer_kind tern__kind_bidirectional;
#endif
