/* Element types: sizes, names, conversion of single elements, promotion. */
#ifndef TERN_TENSOR_DTYPE_H_
#define TERN_TENSOR_DTYPE_H_
#include <stdbool.h>
#include <tern/tensor.h>

static inline bool tern__is_float(tern_dtype d) { return (TERN_D_FLOAT >> d) & 1; }
static inline bool tern__is_int(tern_dtype d) { return (TERN_D_INT >> d) & 1; }
static inline bool tern__is_unsigned(tern_dtype d) { return (TERN_D_UINT >> d) & 1; }

/* The dtype in which two arrays meet: the Array API table, with mixed kinds as docs/guide.md says. Never fails. */
tern_dtype tern__promote(tern_dtype a, tern_dtype b);
/* The dtype of an array of dtype a with a weak scalar: a's, or the default float when the scalar is a float and a is
   not. */
tern_dtype tern__promote_weak(tern_dtype a, bool scalar_is_float);
/* Float dtype in which maths on d is done: floats stay, 64-bit integers give float64, others float32. */
tern_dtype tern__float_of(tern_dtype d);
/* One element as a launch word of its dtype (f for floats, i for signed, u for unsigned and bool). */
tern_word tern__load(tern_dtype d, const void *element);
/* The reverse. */
void tern__store(tern_dtype d, void *element, tern_word w);
/* A word of one dtype as a word of another, by the rules of CAST. */
tern_word tern__convert(tern_word w, tern_dtype from, tern_dtype to);
/* The word's value as a double. */
double tern__word_double(tern_word w, tern_dtype d);
#endif
