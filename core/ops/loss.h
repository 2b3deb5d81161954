/* What the loss files share. */
#ifndef TERN_OPS_LOSS_H_
#define TERN_OPS_LOSS_H_
#include <stdbool.h>
#include <tern/ops.h>

/* Cross-entropy of logits along axis (0 .. rank - 1), one value an example. labels: integers with size 1 at axis
   (sparse), or targets of logits' shape. ignore: as in tern_loss_opts, NULL: no class is ignored. */
tern_tensor *tern__entropy(const char *op, tern_tensor *logits, tern_tensor *labels, int axis, bool sparse,
                           const tern_loss_opts *opts);
/* max(x, 0) - x target + log(1 + exp(-|x|)): binary cross-entropy of logits, elementwise. */
tern_tensor *tern__binary_entropy(tern_tensor *x, tern_tensor *target);
/* values (one an example) weighted and reduced as opts say. valid: bool, where an example counts; NULL: all do (an
   example that does not has the value 0). */
tern_tensor *tern__loss_reduce(const char *op, tern_tensor *values, tern_tensor *valid, const tern_loss_opts *opts);
/* Where the host can read the labels now: whether each lies in [0, classes) or is *ignored (NULL: none is). Else the
   error names op, the first that is neither, and the function whose operand they are (NULL: none). */
bool tern__labels_in_range(const char *op, const tern_tensor *labels, int64_t classes, const int64_t *ignored,
                           const char *function);
/* Whether opts' reduction and label_smoothing can be; else the error is set. */
bool tern__loss_opts_ok(const char *op, const tern_loss_opts *opts);
#endif
