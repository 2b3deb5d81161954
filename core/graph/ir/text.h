/* What the text form's writer (text.c, number.c, dot.c) and reader (parse*.c) share: names, numbers that read back to
   the bit, limits. docs/formats.md describes the form. */
#ifndef TERN_GRAPH_IR_TEXT_H_
#define TERN_GRAPH_IR_TEXT_H_
#include "base/string.h"
#include "graph/ir/ir.h"

enum {
  TERN__TEXT_VERSION = 1,
  TERN__TEXT_DEPTH = 64, /* bodies within bodies */
  TERN__TEXT_SMALL = 16, /* constants of at most that many elements are always in full */
  TERN__TEXT_NUMBER = 40 /* more bytes than a number's text takes, its NUL included */
};

/* Text that grows; after a failed append `bad` is set and nothing more is added. */
typedef struct tern__writer {
  tern__string s;
  bool bad;
} tern__writer;
void tern__put(tern__writer *w, const char *text);
void tern__putf(tern__writer *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* "text" with quotes, backslashes and control characters escaped. */
void tern__put_quoted(tern__writer *w, const char *text);
/* f32[2, s0]: sizes that vary by their names (graph/dims.h) */
void tern__put_shape(tern__writer *w, tern_dtype dtype, int rank, const int64_t *shape);
/* The text, owned by the caller, or NULL with the error set. */
char *tern__writer_end(tern__writer *w);

/* "f32"; "?" for a number that is no dtype. Static. */
const char *tern__short_dtype(int dtype);
/* The dtype of that name; TERN_NO_DTYPE when there is none. */
tern_dtype tern__short_dtype_named(const char *name, size_t length);
/* (2, s0) for messages; at least 512 bytes. Returns buffer. */
const char *tern__sizes_text(char *buffer, int rank, const int64_t *shape);
/* Whether the text can stand behind % and be told from a number. */
bool tern__is_label(const char *text);
/* The graph node's name: the op's, or the kind's. Static. */
const char *tern__node_word(const tern__ir_node *n);

/* Where a node runs when the text does not say: where its first output lies, of a print its operand. */
struct tern__device *tern__usual_place(const tern__graph *g, const tern__ir_node *n);

/* number.c. An attribute: a whole number, a float with point or exponent, or 0x and the word's bits. */
void tern__word_text(tern_word w, char *text);
/* An element of dtype at p: a whole number, the shortest float that reads back to it, or 0x and its bits. */
void tern__element_text(tern_dtype dtype, const void *p, char *text);
/* A word of dtype (a host scalar), as its element. */
void tern__scalar_text(tern_dtype dtype, tern_word w, char *text);
/* The reverse: false when text[0, n) is no such number. */
bool tern__word_of_text(const char *text, size_t n, tern_word *w);
bool tern__element_of_text(tern_dtype dtype, const char *text, size_t n, void *p);
bool tern__scalar_of_text(tern_dtype dtype, const char *text, size_t n, tern_word *w);

/* All elements in row-major order into a block owned by the caller; nothing is recorded by tapes or traces. NULL with
   the error set. */
void *tern__elements_of(const tern_tensor *t);

/* verify_ops.c: whether infer may be asked about this call (it trusts its caller): number and ranks of operands,
   attributes. `why` (256 bytes) says what is wrong. space: the dtypes, shapes of the operands are sound. */
bool tern__call_is_sound(const tern__call *c, int n_out, char *why);
/* The result of a view op, worked out from operand and attributes; `shape` is what the node says it is. */
bool tern__view_is_sound(const tern__call *c, int rank, const int64_t *shape, char *why);
/* Whether two shapes have the same number of elements, which need not fit 64 bits. */
bool tern__same_count(int rank_a, const int64_t *a, int rank_b, const int64_t *b);
#endif
