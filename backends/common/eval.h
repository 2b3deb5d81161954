/* Reference evaluator: any region, every primitive and dtype, one node at a time, one element at a time, as backend.h
   says. Slow and plain: it is what other implementations are compared with. Arithmetic: + - * / sqrt are correctly
   rounded, other functions come from libm in long double, sums and products accumulate in long double, each node's
   result is rounded once. */
#ifndef TERN_EVAL_H_
#define TERN_EVAL_H_
#include <stdbool.h>
#include <tern/backend.h>

/* args[slot]: host address of element 0 of each argument. An OUT may share memory with any IN: all are written at the
   end. message (may be NULL) gets a sentence on failure: E_ARG, UNSUPPORTED, E_OOM. */
tern_rc tern_eval(const tern_region *, void *const *args, const tern_word *words, char *message, size_t message_size);

/* One element, in the widest form of its class: f for floats, i for signed integers, u for unsigned and bool */
tern_word eval_load(const void *base, int64_t index, uint32_t dtype);
void eval_store(void *base, int64_t index, uint32_t dtype, tern_word);
/* The value as dtype holds it: floats rounded (from double), integers wrapped */
tern_word eval_fit(uint32_t dtype, tern_word);
tern_word eval_cast(uint32_t from, uint32_t to, tern_word);
/* A MAP primitive of 1 to 3 inputs on elements; in_dtype: of the data inputs (inputs 1, 2 of WHERE) */
tern_word eval_map(uint32_t op, uint32_t in_dtype, uint32_t out_dtype, const tern_word *in);
/* Philox4x32-10: word `i` of the RNG primitive */
uint32_t eval_rng(uint64_t key, uint64_t counter, uint32_t stream, uint64_t i);
#endif
