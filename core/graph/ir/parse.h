/* The reader of the text form. Private to parse*.c. */
#ifndef TERN_GRAPH_IR_PARSE_H_
#define TERN_GRAPH_IR_PARSE_H_
#include "graph/ir/text.h"

typedef enum tern__token_kind {
  TERN__TOK_END = 0,
  TERN__TOK_WORD,   /* matmul, f32, inf */
  TERN__TOK_NUMBER, /* 12, -0.5e3, 0x7f */
  TERN__TOK_LABEL,  /* %7; the text is without the % */
  TERN__TOK_DEVICE, /* @cpu:0; without the @ */
  TERN__TOK_INDEX,  /* #3; without the # */
  TERN__TOK_STRING, /* the text is what stands between the quotes, as written */
  TERN__TOK_MARK,   /* one of , : = { } [ ] */
  TERN__TOK_BAD
} tern__token_kind;

typedef struct tern__token {
  tern__token_kind kind;
  const char *text;
  size_t n;
  uint32_t line, column; /* from 1 */
} tern__token;

/* A type as written. */
typedef struct tern__text_type {
  uint8_t dtype, rank;
  bool weak;
  struct tern__device *device;
  int64_t shape[TERN_MAX_RANK];
} tern__text_type;

typedef struct tern__list {
  void *it;
  size_t n, capacity; /* elements */
} tern__list;
/* Room for one more element of that size, zeroed; NULL with the error set. */
void *tern__list_more(tern__list *list, size_t size);

typedef struct tern__parser {
  const char *at, *end, *line_begin;
  uint32_t line;
  int depth;                                        /* of the block being read */
  bool pending;                                     /* an unread error stood before the text was read */
  tern__token tok;                                  /* the next token */
  tern__list labels, operands, words, types, bytes; /* of the statement being read */
  uint64_t zeros;                                   /* bytes of variables without values */
  tern__token device_token;                         /* of the last device looked up */
  struct tern__device *device;
} tern__parser;

/* parse_lex.c */
void tern__lex(tern__parser *p); /* the next token into p->tok */
bool tern__tok_is(const tern__parser *p, char mark);
bool tern__tok_word(const tern__parser *p, const char *word);
/* Consume it if it is next. */
bool tern__take_mark(tern__parser *p, char mark);
bool tern__take_word(tern__parser *p, const char *word);
bool tern__expect(tern__parser *p, char mark, const char *where);
/* Records the error at the token and what a callee recorded; returns false. */
bool tern__parse_fail(const tern__parser *p, const tern__token *at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* "expected WHAT, found TOKEN" at the next token; returns false. */
bool tern__expected(const tern__parser *p, const char *what);
/* A string token without its escapes; malloc'ed. NULL with the error set. */
char *tern__unquoted(const tern__parser *p, const tern__token *t);

/* parse_value.c */
/* weak f64, f32[2, 3]@cpu:0 */
bool tern__parse_type(tern__parser *p, tern__text_type *type);
/* @cpu:0, or @none; the next token is a device. */
bool tern__parse_device(tern__parser *p, struct tern__device **device);
/* {1, 2} into p->words; nothing when no brace is next. */
bool tern__parse_words(tern__parser *p);
/* A host scalar made of sizes that vary, if one is next (*taken): s0, 2 s1 + 1, 1/s0. False: an error. */
bool tern__parse_varying_scalar(tern__parser *p, tern_dtype dtype, tern_word *w, bool *taken);
/* The tensor of a constant or variable: the values if a brace is next, else zeros if `optional`. */
tern_tensor *tern__parse_tensor(tern__parser *p, const tern__text_type *type, const tern__token *at, bool optional);
#endif
