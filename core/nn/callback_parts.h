/* What the built-in callbacks share. */
#ifndef TERN_NN_CALLBACK_PARTS_H_
#define TERN_NN_CALLBACK_PARTS_H_
#include "nn/callback.h"

/* A callback whose self is a copy of these bytes (body.release ends it). NULL with an error that begins with `what`. */
tern_callback *tern__callback_make(const char *what, const tern_callback_body *body, const void *self, size_t size);
/* The error for a log that is not there; it lists those that are. */
tern_rc tern__no_log(const char *what, const char *name, const tern_moment *moment);

/* A log and the best of it so far, as Keras's MonitorCallback. */
typedef struct tern__monitor {
  char *name; /* owned */
  bool larger, has_best;
  double min_delta, best;
} tern__monitor;
/* name: NULL is "val_loss". TERN_OK or an error. */
tern_rc tern__monitor_new(tern__monitor *m, const char *what, const char *name, int larger_is_better, double min_delta);
/* Whether value is better than that by more than min_delta. NaN never is. */
bool tern__monitor_better(const tern__monitor *m, double value, double than);
/* Whether it is better than the best so far, which it then is. The first number always is. */
bool tern__monitor_improves(tern__monitor *m, double value);

enum { TERN__NUMBER_TEXT = 64 };
/* The shortest text that reads back as value ("0.25", "3.0", "nan"). Returns text. */
const char *tern__number_text(double value, char *text);
/* The locale's decimal point in what printf wrote becomes ".". */
void tern__point(char *text);

/* A path with places for the epoch and logs. TERN_OK, or an error that says what is wrong with it. */
tern_rc tern__path_check(const char *what, const char *path, bool *has_places);
/* The path after that epoch: malloc'ed. NULL with the error set. */
char *tern__path_fill(const char *what, const char *path, const tern_moment *moment);
#endif
