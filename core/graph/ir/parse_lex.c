/* The reader of the text form: tokens and errors. */
#include "graph/ir/parse.h"
#include "base/alloc.h"
#include "base/thread.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static void skip_blank(tern__parser *p) {
  while (p->at < p->end) {
    if (*p->at == '\n') {
      p->line++;
      p->line_begin = ++p->at;
    } else if (*p->at == ' ' || *p->at == '\t' || *p->at == '\r') {
      p->at++;
    } else if (*p->at == '/' && p->end - p->at > 1 && p->at[1] == '/') {
      while (p->at < p->end && *p->at != '\n') p->at++;
    } else {
      return;
    }
  }
}

/* From p->at on: letters, digits and the characters in `others`. */
static size_t run_of(const tern__parser *p, const char *others) {
  const char *c = p->at;
  while (c < p->end && *c && (is_letter(*c) || is_digit(*c) || strchr(others, *c))) c++;
  return (size_t)(c - p->at);
}

/* At the opening quote. */
static void lex_string(tern__parser *p, tern__token *t) {
  const char *c = p->at + 1;
  while (c < p->end && *c != '"' && *c != '\n') c += *c == '\\' && p->end - c > 1 && c[1] != '\n' ? 2 : 1;
  t->kind = c < p->end && *c == '"' ? t->kind : TERN__TOK_BAD;
  t->text = p->at + 1;
  t->n = (size_t)(c - t->text);
  p->at = c < p->end ? c + (*c == '"') : c;
}

/* % @ or # and what follows. */
static void lex_marked(tern__parser *p, tern__token *t) {
  const char mark = *p->at++;
  t->kind = mark == '%' ? TERN__TOK_LABEL : mark == '@' ? TERN__TOK_DEVICE : TERN__TOK_INDEX;
  if (mark == '@' && p->at < p->end && *p->at == '"') {
    lex_string(p, t);
    return;
  }
  t->text = p->at;
  t->n = run_of(p, mark == '@' ? ".:-" : ".");
  p->at += t->n;
  if (!t->n) t->kind = TERN__TOK_BAD;
}

void tern__lex(tern__parser *p) {
  skip_blank(p);
  tern__token *t = &p->tok;
  *t = (tern__token){.text = p->at, .line = p->line, .column = (uint32_t)(p->at - p->line_begin) + 1};
  if (p->at == p->end) return;
  const char c = *p->at;
  if (c == '%' || c == '@' || c == '#') {
    lex_marked(p, t);
  } else if (c == '"') {
    t->kind = TERN__TOK_STRING;
    lex_string(p, t);
  } else if (is_letter(c) || is_digit(c) || c == '-') {
    t->kind = is_letter(c) ? TERN__TOK_WORD : TERN__TOK_NUMBER;
    t->n = run_of(p, is_letter(c) ? "." : ".+-");
    p->at += t->n;
  } else {
    t->kind = c && strchr(",:={}[]+/", c) ? TERN__TOK_MARK : TERN__TOK_BAD;
    t->n = 1;
    p->at++;
  }
}

bool tern__tok_is(const tern__parser *p, char mark) { return p->tok.kind == TERN__TOK_MARK && *p->tok.text == mark; }

bool tern__tok_word(const tern__parser *p, const char *word) {
  return p->tok.kind == TERN__TOK_WORD && p->tok.n == strlen(word) && !memcmp(p->tok.text, word, p->tok.n);
}

bool tern__take_mark(tern__parser *p, char mark) {
  const bool there = tern__tok_is(p, mark);
  if (there) tern__lex(p);
  return there;
}

bool tern__take_word(tern__parser *p, const char *word) {
  const bool there = tern__tok_word(p, word);
  if (there) tern__lex(p);
  return there;
}

bool tern__expect(tern__parser *p, char mark, const char *where) {
  if (tern__take_mark(p, mark)) return true;
  char what[96];
  snprintf(what, sizeof what, "'%c' %s", mark, where);
  return tern__expected(p, what);
}

bool tern__parse_fail(const tern__parser *p, const tern__token *at, const char *format, ...) {
  char text[512], inner[512] = "";
  va_list list;
  va_start(list, format);
  vsnprintf(text, sizeof text, format, list);
  va_end(list);
  tern__thread *t = tern__thread_get();
  tern_rc rc = TERN_E_ARG;
  if (t && !p->pending && *tern__pending()) { /* the place is put in front of a callee's error */
    snprintf(inner, sizeof inner, ": %.500s", tern__pending());
    rc = t->error_code;
    t->error_state = TERN__ERROR_NONE;
  }
  tern__fail(rc, "graph text, line %u, column %u: %s%s", at->line, at->column, text, inner);
  return false;
}

bool tern__expected(const tern__parser *p, const char *what) {
  const tern__token *t = &p->tok;
  static const char *const kinds[] = {
      "the end", "", "", "value %", "device @", "number #", "string ", "", "what cannot be read: "};
  if (t->kind == TERN__TOK_END) return tern__parse_fail(p, t, "expected %s, found the end of the text", what);
  char shown[40];
  size_t n = 0;
  for (size_t i = 0; i < t->n && n < sizeof shown - 1; i++)
    shown[n++] = t->text[i] >= ' ' && t->text[i] != 127 ? t->text[i] : '?';
  shown[n] = 0;
  return tern__parse_fail(p, t, "expected %s, found %s%s", what, kinds[t->kind], shown);
}

static int hex_digit(char c) { return is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }

char *tern__unquoted(const tern__parser *p, const tern__token *t) {
  char *out = tern__calloc(1, t->n + 1);
  if (!out) {
    tern__fail(TERN_E_OOM, "graph: out of host memory");
    return NULL;
  }
  size_t n = 0;
  for (size_t i = 0; i < t->n; i++) {
    char c = t->text[i];
    bool ok = c != 0;
    if (c == '\\') {
      c = ++i < t->n ? t->text[i] : 0;
      ok = c == '"' || c == '\\';
      if (c == 'x' && i + 2 < t->n) {
        const int high = hex_digit(t->text[i + 1]), low = hex_digit(t->text[i + 2]);
        ok = high >= 0 && low >= 0 && high + low > 0;
        c = ok ? (char)(high * 16 + low) : c;
        i += 2;
      }
    }
    if (!ok) {
      free(out);
      tern__parse_fail(p, t, "expected \\\", \\\\ or \\x and two digits behind a backslash in a string");
      return NULL;
    }
    out[n++] = c;
  }
  return out;
}

void *tern__list_more(tern__list *list, size_t size) {
  if (list->n == list->capacity) {
    const size_t capacity = list->capacity ? 2 * list->capacity : 16;
    void *it = tern__realloc(list->it, capacity * size);
    if (!it) {
      tern__fail(TERN_E_OOM, "graph: out of host memory");
      return NULL;
    }
    list->it = it;
    list->capacity = capacity;
  }
  void *p = (char *)list->it + list->n++ * size;
  memset(p, 0, size);
  return p;
}
