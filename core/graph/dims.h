/* Sizes that vary, while a function is traced for them: each is stood for by a large prime (its mark) that no real size
   comes near, so that inference, which computes with numbers, computes with variables. What comes out is read back as
   a polynomial in the marks: q * mark + r, q * mark * mark' + r, small q and r. */
#ifndef TERN_GRAPH_DIMS_H_
#define TERN_GRAPH_DIMS_H_
#include <stdbool.h>
#include <stdint.h>

enum { TERN__MAX_DIMS = 6 };
typedef struct tern__dims {
  int n;
  int64_t size[TERN__MAX_DIMS]; /* what they are in this run */
} tern__dims;

/* The number that stands for variable size i. */
int64_t tern__dims_mark(int i);
/* What v is for these sizes; used: bits of the variables in it (0: v is a plain number and stays). May be NULL. */
int64_t tern__dims_eval(const tern__dims *d, int64_t v, uint32_t *used);
/* The same for a host scalar: numbers made of sizes, and their reciprocals (1 / count, 2 / (count - 1)). */
double tern__dims_eval_scalar(const tern__dims *d, double v);
/* The variables that are in v, as bits; 0: a plain number. */
uint32_t tern__dims_used(int64_t v);
enum { TERN__DIMS_TEXT = 96 }; /* bytes that hold any of the texts */
/* As text: "s0", "28 s1 + 1", "784". Returns buffer. */
const char *tern__dims_text(char *buffer, int64_t v);
/* The same for a host scalar or float attribute, where tern__dims_eval_scalar would change it and the text says just
   that number: "s0", "1/s0", "2/s0 + -1" (the sum below the line). NULL: a plain number. */
const char *tern__dims_scalar_text(char *buffer, double v);
#endif
