/* The reader of the text form: types, devices, attributes, and the tensors of constants and variables. */
#include "graph/ir/parse.h"
#include "base/alloc.h"
#include "device/device.h"
#include "graph/dims.h"
#include "tensor/tensor.h"
#include <stdio.h>
#include <stdlib.h>

#define MAX_ZEROS (UINT64_C(1) << 30) /* bytes of all variables of a text that come without values */

bool tern__parse_device(tern__parser *p, tern__device **device) {
  const tern__token t = p->tok;
  char name[sizeof(*device)->name];
  if (t.n == 4 && !memcmp(t.text, "none", 4)) {
    *device = NULL;
    tern__lex(p);
    return true;
  }
  if (!p->device || t.n != p->device_token.n || memcmp(t.text, p->device_token.text, t.n)) {
    if (t.n >= sizeof name) return tern__parse_fail(p, &t, "no device has so long a name");
    memcpy(name, t.text, t.n);
    name[t.n] = 0;
    tern__device *d = tern__device_named(name);
    if (!d) return tern__parse_fail(p, &t, "no such device");
    p->device = d;
    p->device_token = t;
  }
  *device = p->device;
  tern__lex(p);
  return true;
}

/* ---- sizes that vary: s0, 28 s1 + -1, s0 s2; in numbers also 1/s0 ---- */

/* s0, .. as the token; -1: none. */
static int size_name(const tern__token *t) {
  if (t->kind != TERN__TOK_WORD || t->n != 2 || t->text[0] != 's') return -1;
  const int i = t->text[1] - '0';
  return i >= 0 && i < TERN__MAX_DIMS ? i : -1;
}

static bool whole_number(const tern__token *t, bool sign, int64_t *v) {
  tern_word w;
  bool digits = t->kind == TERN__TOK_NUMBER && t->n < 21;
  for (size_t i = sign && t->text[0] == '-'; i < t->n && digits; i++) digits = t->text[i] >= '0' && t->text[i] <= '9';
  if (!digits || !tern__word_of_text(t->text, t->n, &w)) return false;
  *v = w.i;
  return true;
}

/* Whether what is next is made of them: a name, or a number and a name or a line to divide by. */
static bool varies(const tern__parser *p) {
  tern__parser q = *p; /* reads ahead; changes no list */
  if (q.tok.kind == TERN__TOK_NUMBER) tern__lex(&q);
  return size_name(&q.tok) >= 0 || (p->tok.kind == TERN__TOK_NUMBER && tern__tok_is(&q, '/'));
}

/* NUMBER, NAME, NUMBER NAME, NAME NAME or NUMBER NAME NAME; used: their bits. */
static bool parse_term(tern__parser *p, int64_t *term, uint32_t *used) {
  static const char what[] = "a number, a size that varies (s0 to s5), or products of them";
  const tern__token first = p->tok;
  *term = 1;
  const bool number = whole_number(&p->tok, true, term);
  if (number) tern__lex(p);
  int k, names = 0;
  for (; (k = size_name(&p->tok)) >= 0; names++, tern__lex(p)) {
    *used |= 1u << k;
    if (names == 2 || __builtin_mul_overflow(*term, tern__dims_mark(k), term))
      return tern__parse_fail(p, &first, "too large a product of sizes that vary; it has at most two");
  }
  return number || names || tern__expected(p, what);
}

static bool parse_varying(tern__parser *p, int64_t *v) {
  const tern__token first = p->tok;
  uint32_t used = 0;
  *v = 0;
  do {
    int64_t term;
    if (!parse_term(p, &term, &used)) return false;
    if (__builtin_add_overflow(*v, term, v)) return tern__parse_fail(p, &first, "too large a size");
  } while (tern__take_mark(p, '+'));
  return tern__dims_used(*v) == used ||
         tern__parse_fail(p, &first,
                          "sizes that vary cannot be told apart in this sum; it has at most two products, "
                          "with small factors, and a small number");
}

/* POLYNOMIAL, or 1/POLYNOMIAL and 2/POLYNOMIAL, which are floats. */
static bool parse_varying_number(tern__parser *p, bool *whole, int64_t *v, double *real) {
  tern__parser q = *p;
  tern__lex(&q);
  *whole = !tern__tok_is(&q, '/');
  if (*whole) return parse_varying(p, v);
  const tern__token first = p->tok;
  int64_t numerator = 0;
  if (!whole_number(&first, false, &numerator) || numerator < 1 || numerator > 2)
    return tern__expected(p, "1/ or 2/ and a size that varies");
  tern__lex(p);
  tern__lex(p);
  if (!parse_varying(p, v)) return false;
  *real = *v ? (double)numerator / (double)*v : 0;
  return *v || tern__parse_fail(p, &first, "a number divided by 0");
}

bool tern__parse_varying_scalar(tern__parser *p, tern_dtype dtype, tern_word *w, bool *taken) {
  bool whole;
  int64_t v;
  double real = 0;
  const tern__token first = p->tok;
  *taken = (dtype == TERN_F64 || dtype == TERN_I64 || dtype == TERN_U64) && varies(p);
  if (!*taken) return true;
  if (!parse_varying_number(p, &whole, &v, &real)) return false;
  if (!whole && dtype != TERN_F64) return tern__parse_fail(p, &first, "a fraction where an integer is wanted");
  if (dtype == TERN_F64)
    w->f = whole ? (double)v : real;
  else
    w->i = v;
  return true;
}

static bool parse_size(tern__parser *p, int64_t *size) {
  const tern__token first = p->tok;
  if (varies(p)) {
    if (!parse_varying(p, size)) return false;
    return *size >= 0 || tern__parse_fail(p, &first, "a negative size");
  }
  if (!whole_number(&first, false, size) || first.n >= 20)
    return tern__expected(p, "a size (a whole number from 0 to 9223372036854775807, or s0 to s5 for one that varies)");
  tern__lex(p);
  return true;
}

static bool parse_sizes(tern__parser *p, tern__text_type *type) {
  if (tern__take_mark(p, ']')) return true;
  do {
    if (type->rank == TERN_MAX_RANK)
      return tern__parse_fail(p, &p->tok, "a shape of more than %d dimensions", TERN_MAX_RANK);
    if (!parse_size(p, &type->shape[type->rank])) return false;
    type->rank++;
  } while (tern__take_mark(p, ','));
  return tern__expect(p, ']', "or ',' behind a size");
}

bool tern__parse_type(tern__parser *p, tern__text_type *type) {
  *type = (tern__text_type){.weak = tern__take_word(p, "weak")};
  if (p->tok.kind == TERN__TOK_WORD) type->dtype = (uint8_t)tern__short_dtype_named(p->tok.text, p->tok.n);
  if (!type->dtype)
    return tern__expected(p,
                          "a dtype (bool, i8 i16 i32 i64, u8 u16 u32 u64, f16 bf16 f32 f64; before it perhaps weak)");
  tern__lex(p);
  if (tern__take_mark(p, '[')) {
    if (!parse_sizes(p, type)) return false;
  } else if (!type->weak) {
    return tern__expected(p, "'[' and the sizes behind a dtype");
  }
  if (p->tok.kind == TERN__TOK_DEVICE) return tern__parse_device(p, &type->device);
  if (type->weak) return true;
  tern__thread *t = tern__thread_get();
  type->device = t ? tern__device_here(t) : NULL;
  return type->device || tern__parse_fail(p, &p->tok, "a type without a device stands for the default device");
}

bool tern__parse_words(tern__parser *p) {
  p->words.n = 0;
  if (!tern__take_mark(p, '{')) return true;
  do {
    tern_word *w = tern__list_more(&p->words, sizeof *w);
    if (!w) return false;
    if (p->words.n > UINT16_MAX) return tern__parse_fail(p, &p->tok, "more than %d attributes", UINT16_MAX);
    if (varies(p)) {
      bool whole;
      int64_t v;
      double real = 0;
      if (!parse_varying_number(p, &whole, &v, &real)) return false;
      if (whole)
        w->i = v;
      else
        w->f = real;
      continue;
    }
    if ((p->tok.kind != TERN__TOK_NUMBER && p->tok.kind != TERN__TOK_WORD) ||
        !tern__word_of_text(p->tok.text, p->tok.n, w))
      return tern__expected(p, "an attribute (a whole number of 64 bits, a float, or 0x and 16 digits)");
    tern__lex(p);
  } while (tern__take_mark(p, ','));
  return tern__expect(p, '}', "or ',' behind an attribute");
}

/* {1, 2, 3} into p->bytes: `count` elements of dtype. */
static bool parse_elements(tern__parser *p, tern_dtype dtype, int64_t count) {
  const tern__token open = p->tok;
  char what[64];
  int64_t n = 0;
  p->bytes.n = 0; /* elements; each takes 8 bytes until they are packed, or moves of the list would tear them */
  tern__lex(p);
  if (!tern__tok_is(p, '}')) do {
      uint64_t *element = tern__list_more(&p->bytes, sizeof *element);
      if (!element) return false;
      if (n++ == count) return tern__parse_fail(p, &p->tok, "more values than the shape's %lld", (long long)count);
      if ((p->tok.kind == TERN__TOK_NUMBER || p->tok.kind == TERN__TOK_WORD) &&
          tern__element_of_text(dtype, p->tok.text, p->tok.n, element)) {
        tern__lex(p);
        continue;
      }
      snprintf(what, sizeof what, "a number that %s holds", tern__short_dtype((int)dtype));
      return tern__expected(p, what);
    } while (tern__take_mark(p, ','));
  if (!tern__expect(p, '}', "or ',' behind a value")) return false;
  if (n != count)
    return tern__parse_fail(p, &open, "%lld values for a shape of %lld elements", (long long)n, (long long)count);
  const size_t item = tern__dtype_size[dtype];
  char *bytes = p->bytes.it;
  for (int64_t i = 1; i < n; i++) memmove(bytes + (size_t)i * item, bytes + (size_t)i * 8, item);
  return true;
}

static tern_rc upload_zeros(tern_tensor *t, uint64_t bytes) {
  static const char zeros[4096];
  tern_rc rc = TERN_OK;
  if (t->storage->host) {
    memset(t->storage->host, 0, bytes);
    return rc;
  }
  for (uint64_t at = 0; at < bytes && !rc; at += sizeof zeros)
    rc = tern__upload(t->storage, at, zeros, bytes - at < sizeof zeros ? bytes - at : sizeof zeros);
  return rc;
}

tern_tensor *tern__parse_tensor(tern__parser *p, const tern__text_type *type, const tern__token *at, bool optional) {
  const tern_dtype dtype = (tern_dtype)type->dtype;
  const int64_t count = tern__numel(type->rank, type->shape);
  const uint64_t bytes = count < 0 ? 0 : (uint64_t)count * tern__dtype_size[dtype];
  const bool values = tern__tok_is(p, '{');
  if (count < 0 || type->weak || !type->device) {
    tern__parse_fail(p, at, "a constant or variable has a shape that memory can hold, a device, and is not weak");
    return NULL;
  }
  if (!values && !optional) {
    tern__expected(p, tern__tok_word(p, "hash")
                          ? "'{' and the values (this text was written without those of large constants)"
                          : "'{' and the values of the constant");
    return NULL;
  }
  if (values && !parse_elements(p, dtype, count)) return NULL;
  if (!values && (p->zeros += bytes) > MAX_ZEROS) {
    tern__parse_fail(p, at, "variables without values take more than %llu MiB", (unsigned long long)(MAX_ZEROS >> 20));
    return NULL;
  }
  tern__thread *t = tern__thread_get();
  if (!t) return NULL;
  const uint32_t graph = tern__eager_begin(t);
  tern_tensor *x = tern__new(type->device, dtype, type->rank, type->shape, "graph");
  if (x && (values ? tern__upload(x->storage, (uint64_t)x->offset * tern__dtype_size[dtype], p->bytes.it, bytes)
                   : upload_zeros(x, bytes))) {
    tern__unref(x);
    x = NULL;
  }
  tern__eager_end(t, graph);
  if (!x) tern__parse_fail(p, at, "no memory for the values");
  return x;
}
