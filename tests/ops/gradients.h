/* Records of values with first and second derivatives (fixtures/make_nn.py and make_losses.py describe them), run on
   TERN_DEVICE. */
#ifndef TERN_TESTS_OPS_GRADIENTS_H_
#define TERN_TESTS_OPS_GRADIENTS_H_
#include "fixtures/fixtures.h"
#include "support/values.h"

/* The op of a record, on its operands. */
typedef tern_tensor *(*record_call)(const fixture *f, tern_tensor *const *in);
/* An attribute that is a double; `otherwise` when the record lacks it. */
double record_double(const fixture *f, const char *name, double otherwise);
/* Compare the result of `call` and all its derivatives with the record's. */
void check_record(const fixture *f, int record, record_call call);
/* All records of fixtures/ops/FILE whose op `choose` knows (it returns NULL for others); at least `least` of them. */
void check_records(const char *file, record_call (*choose)(const char *op), int least);
#endif
