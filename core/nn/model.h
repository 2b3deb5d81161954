/* Models inside: a chain of layers, how it is trained, what training gave. model.c: its life and weights; step.c: the
   functions that are compiled; fit.c: loops over batches; save.c: files; summary.c, progress.c: for people. */
#ifndef TERN_NN_MODEL_H_
#define TERN_NN_MODEL_H_
#include "nn/layer.h"

typedef struct tern__log { /* what the epochs gave */
  char *name;
  double *value;
  int n, capacity;
} tern__log;

struct tern_model {
  tern_layer *root; /* a chain */
  tern_shape input; /* without the batch; rank 0: not known yet */
  tern_dtype dtype;
  bool shaped;        /* input is known, every layer fits the one before and has its weights */
  tern_shape *output; /* of each layer, with the batch (-1), once shaped */

  bool compiled, eager;
  tern_optimizer *optimizer; /* owned */
  tern_loss_function loss;   /* NULL: predictions only */
  char *loss_name;           /* NULL: a function of the program's own */
  tern_loss_opts loss_opts;
  tern_metric *tracker; /* of the loss */
  tern_metric **metric; /* owned, n_metrics of them */
  char **metric_name;   /* as compile had them: for files */
  int n_metrics;

  tern_function *train[2], *test[2], *predict; /* [1]: with sample weights. Made when first needed */
  tern_tensor **variable;                      /* the trained ones, borrowed; found when `train` is made */
  int n_variables;
  tern_tensor *class_weights; /* [classes], or NULL */
  tern_shape fits[2];         /* of the last x and y that tern__model_check found to fit; rank 0: none */
  tern_dtype fits_dtype[2];
  int64_t *boundaries; /* of a schedule that came from a file, and */
  double *rates;       /* its values */
  tern__log *history;
  int n_history;
};

/* step.c. y: TERN_NONE for predictions; weights: TERN_NONE for none. Each gives the loss, or the predictions, borrowed
   from the scope; NULL with the error set. */
tern_tensor *tern__model_train(tern_model *m, tern_tensor *x, tern_tensor *y, tern_tensor *weights);
tern_tensor *tern__model_test(tern_model *m, tern_tensor *x, tern_tensor *y, tern_tensor *weights);
tern_tensor *tern__model_predict(tern_model *m, tern_tensor *x);
/* What was compiled for the model as it was is of no use any more. */
void tern__model_drop_functions(tern_model *m);
/* The loss and the metrics since the last reset: 1 + n_metrics of them. NULL with the error set: false. */
bool tern__model_figures(tern_model *m, double *out);
tern_rc tern__model_reset_figures(tern_model *m);
/* Loss and metrics of a batch of these shapes, as far as shapes tell: an error says what does not fit. */
tern_rc tern__model_check(tern_model *m, tern_tensor *x, tern_tensor *y);
/* The first layer whose result for x is not finite; NULL when all are. */
const tern_layer *tern__model_find_bad(tern_model *m, tern_tensor *x);

/* model.c */
tern_rc tern__model_need(const tern_model *m, const char *op, bool compiled);
/* Weights made for inputs like x (with the batch), if that was not done; an x of another shape is an error. */
tern_rc tern__model_for(tern_model *m, const char *op, tern_tensor *x);
tern_rc tern__model_log(tern_model *m, const char *name, double value);
tern_rc tern__model_history_set(tern_model *m, const char *name, const double *values, int n);

/* save.c: extra: JSON that is kept in the file beside, or NULL. */
tern_rc tern__model_save_with(tern_model *m, const char *path, const char *extra);
/* The extra JSON of a file: free(). NULL without an error when there is no file or nothing extra in it. */
char *tern__model_saved_extra(const char *path);
/* Weights and the optimiser's state into a model that is built and compiled. All or nothing. */
tern_rc tern__model_restore(tern_model *m, const char *path);

/* summary.c: "(None, 3)" of a shape with its batch; buffer of 200 bytes. Returns it. */
const char *tern__model_shape(tern_shape s, char *buffer);

/* progress.c */
typedef struct tern__bar {
  tern_progress kind; /* never AUTO */
  int epoch, epochs;  /* epochs 0: not an epoch, but `what` */
  const char *what;
  int64_t steps; /* -1: not known */
  double began, shown;
} tern__bar;
tern_progress tern__progress_kind(tern_progress asked);
void tern__bar_begin(tern__bar *b);
/* Whether it is time to show something new: so that figures are read only then. */
bool tern__bar_due(const tern__bar *b, int64_t step);
/* step of steps are done; the figures so far. last: the line is finished. */
void tern__bar_show(tern__bar *b, int64_t step, const char *const *names, const double *values, int n, bool last);
/* Leaves the terminal as it was when training ends early. */
void tern__bar_end(tern__bar *b);
#endif
