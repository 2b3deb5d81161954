/* What infer functions take for granted because the public functions have checked it: how many operands and attributes
   a call has, their ranks, and that attributes are axes, sizes and dtypes where they should be. A graph may come from a
   file, so its calls are checked before infer sees them. */
#include "graph/ir/text.h"
#include "ops/table.h"
#include "ops/update.h"
#include "ops/write.h"
#include "tensor/dtype.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <tern/ops.h>

enum { WHY = 256 };

/* Attributes, a letter each: a an axis of operand 0, x a mask of its axes, d a dtype, z a dtype or 0, e a float dtype,
   n a size, p at least 1, l a layout (0 or 1), f a finite float, S a rank and that many sizes (d and e behind it as
   usual), w any word; behind '?' they may be left out. */
typedef struct form {
  const char *op;
  int8_t low, high;   /* operands */
  int8_t least, most; /* rank of operand 0 */
  const char *attr;
} form;

static const form forms[] = {
    {"cast", 1, 1, 0, 8, "d"},
    {"gelu", 1, 1, 0, 8, "?w"},
    {"gelu_grad", 2, 2, 0, 8, "?w"},
    {"softmax", 1, 1, 1, 8, "a"},
    {"log_softmax", 1, 1, 1, 8, "a"},
    {"softmax_grad", 2, 2, 1, 8, "a"},
    {"log_softmax_grad", 2, 2, 1, 8, "a"},
    {"layer_norm", 1, 5, 0, 8, "xww"},
    {"rms_norm", 1, 5, 0, 8, "xww"},
    {"group_norm", 1, 5, 0, 8, "xww"},
    {"batch_norm", 1, 5, 0, 8, "xww"},
    {"norm_grad", 3, 3, 0, 8, "xww"},
    {"attention_weights", 2, 2, 2, 8, "aww"},
    {"dropout", 2, 2, 0, 8, "w"},
    {"cross_entropy", 2, 2, 1, 8, "awwwww"},
    {"cross_entropy_grad", 3, 3, 1, 8, "awwwww"},
    {"sum", 1, 1, 0, 8, "xwzw"},
    {"prod", 1, 1, 0, 8, "xwzw"},
    {"mean", 1, 1, 0, 8, "xwzw"},
    {"max", 1, 1, 0, 8, "xwzw"},
    {"min", 1, 1, 0, 8, "xwzw"},
    {"any", 1, 1, 0, 8, "xwzw"},
    {"all", 1, 1, 0, 8, "xwzw"},
    {"var", 1, 1, 0, 8, "xwzw"},
    {"std", 1, 1, 0, 8, "xwzw"},
    {"logsumexp", 1, 1, 0, 8, "xwzw"},
    {"argmax", 1, 1, 0, 8, "xwzw"},
    {"argmin", 1, 1, 0, 8, "xwzw"},
    {"cumsum", 1, 1, 1, 8, "aw"},
    {"cumprod", 1, 1, 1, 8, "aw"},
    {"cummax", 1, 1, 1, 8, "aw"},
    {"cummin", 1, 1, 1, 8, "aw"},
    {"matmul", 2, 2, 2, 8, ""},
    {"norm", 1, 1, 0, 8, "xwww"},
    {"triu", 1, 1, 2, 8, "w"},
    {"tril", 1, 1, 2, 8, "w"},
    {"take_along_axis", 1, 1, 3, 3, "www"},
    {"searchsorted", 1, 3, 0, 8, "www"},
    {"conv", 2, 2, 3, 4, "lpppnppnnn"},
    {"conv_dx", 2, 2, 3, 4, "lpppnppnnn"},
    {"conv_dw", 2, 2, 3, 4, "lpppnppnnn"},
    {"take", 2, 2, 3, 3, ""},
    {"one_hot", 1, 1, 1, 8, "nd"},
    {"sort", 1, 1, 1, 8, "w"},
    {"argsort", 1, 1, 1, 8, "w"},
    {"scatter", 3, 3, 0, 8, "ww"},
    {"scatter_add", 3, 3, 0, 8, "ww"},
    {"max_pool", 1, 1, 3, 4, "lwpppppp"},
    {"max_pool_index", 1, 1, 3, 4, "lwpppppp"},
    {"avg_pool", 1, 1, 3, 4, "lwpppppp"},
    {"full", 0, 0, 0, 8, "Sdw"},
    {"arange", 0, 0, 0, 8, "Sdww"},
    {"eye", 0, 0, 0, 8, "Sdw"},
    {"random_uniform", 0, 2, 0, 8, "Swweff"},
    {"random_normal", 0, 2, 0, 8, "Swweff"},
    {"random_integers", 0, 2, 0, 8, "Swwdww"},
    {"random_bernoulli", 0, 2, 0, 8, "Swwdww"},
    {"random_bits", 0, 2, 0, 8, "Swwdww"},
    {"empty", 0, 0, 0, 8, "dS"},
};

static bool no(char *why, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool no(char *why, const char *format, ...) {
  va_list list;
  va_start(list, format);
  vsnprintf(why, WHY, format, list);
  va_end(list);
  return false;
}

static const form *form_of(const tern__op *op) {
  for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
    if (!strcmp(forms[i].op, op->name)) return &forms[i];
  return NULL;
}

/* "a, b?, c" names three. */
static int operands_named(const tern__op *op) {
  int n = op->operands && *op->operands;
  for (const char *c = op->operands; c && *c; c++) n += *c == ',';
  return n;
}

static bool attribute_is(char letter, tern_word w, int rank) {
  switch (letter) {
  case 'a': return w.i >= 0 && w.i < rank;
  case 'x': return w.u >> rank == 0;
  case 'd': return w.i > TERN_NO_DTYPE && w.i < TERN_DTYPE_END;
  case 'z': return w.i >= TERN_NO_DTYPE && w.i < TERN_DTYPE_END;
  case 'e': return w.i > TERN_NO_DTYPE && w.i < TERN_DTYPE_END && tern__is_float((tern_dtype)w.i);
  case 'n': return w.i >= 0;
  case 'p': return w.i >= 1;
  case 'l': return w.i == TERN_NCHW || w.i == TERN_NHWC;
  case 'f': return isfinite(w.f);
  default: return true;
  }
}

static bool attributes_are(const tern__call *c, const char *letters, char *why) {
  static const char kinds[] = "axdzenplf";
  static const char *const names[] = {"an axis of the operand",
                                      "a mask of the operand's axes",
                                      "a dtype",
                                      "a dtype or 0",
                                      "a float dtype",
                                      "at least 0",
                                      "at least 1",
                                      "a layout",
                                      "a finite float"};
  int rank = c->n_in && c->in[0] != TERN_NONE ? c->in[0]->rank : 0, at = 0;
  for (const char *l = letters; *l; l++) {
    if (*l == '?') {
      if (at == c->n_attr) return true;
      continue;
    }
    if (at >= c->n_attr) return no(why, "it has %d attributes, which are too few", c->n_attr);
    const tern_word w = c->attr[at++];
    if (*l == 'S') {
      if (w.i < 0 || w.i > TERN_MAX_RANK || w.i > c->n_attr - at)
        return no(why, "attribute %d is %lld; expected a rank and that many sizes", at - 1, (long long)w.i);
      for (int64_t d = 0; d < w.i; d++)
        if (c->attr[at++].i < 0) return no(why, "attribute %d is negative; expected a size", at - 1);
      continue;
    }
    const char *kind = strchr(kinds, *l);
    if (!attribute_is(*l, w, rank))
      return no(why, "attribute %d is %lld; expected %s", at - 1, (long long)w.i,
                kind ? names[kind - kinds] : "another");
  }
  return at == c->n_attr || no(why, "it has %d attributes; expected %d", c->n_attr, at);
}

/* Variable, gradient, slots tensors of one shape and dtype; perhaps a scale and a guard, of rank 0; then host
   scalars. */
static bool update_is(const tern__call *c, int n_out, char *why) {
  int n = 0;
  while (n < c->n_in && !(c->in[n]->flags & TERN__WEAK)) n++;
  if (c->n_attr < 1 || c->n_attr > TERN__MAX_ATTRS) return no(why, "it has %d attributes; expected 1 to 8", c->n_attr);
  const int behind = !!(c->attr[0].u & TERN__UPDATE_SCALE) + !!(c->attr[0].u & TERN__UPDATE_GUARD);
  const int results = n - 1 - behind;
  for (int i = n; i < c->n_in; i++)
    if (!(c->in[i]->flags & TERN__WEAK)) return no(why, "operand %d is a tensor behind host scalars", i + 1);
  for (int i = 1; i < n - behind; i++)
    if (c->in[i]->dtype != c->in[0]->dtype || c->in[i]->rank != c->in[0]->rank ||
        memcmp(c->in[i]->shape, c->in[0]->shape, c->in[0]->rank * sizeof *c->in[0]->shape))
      return no(why, "operand %d has not the variable's shape and dtype", i + 1);
  if (results < 1 || !tern__is_float((tern_dtype)c->in[0]->dtype))
    return no(why, "expected a variable of floats, its gradient and slots");
  return results == n_out || no(why, "it has %d results; with these operands expected %d", n_out, results);
}

/* The part lies within the whole, and the source broadcasts to it. Attributes: offset, rank, sizes, strides. */
static bool write_is(const tern__call *c, char *why) {
  const tern_tensor *whole = c->in[0], *from = c->in[1];
  const int64_t rank = c->n_attr >= 2 ? c->attr[1].i : -1;
  if (whole->flags & TERN__WEAK || rank < 0 || rank > TERN_MAX_RANK || c->n_attr != 2 + 2 * rank)
    return no(why, "expected a whole, and attributes: offset, rank, sizes, strides");
  const __int128 limit = (__int128)1 << 62;
  __int128 low = c->attr[0].i, high = low, count = 1;
  for (int64_t d = 0; d < rank; d++) {
    const int64_t size = c->attr[2 + d].i, stride = c->attr[2 + rank + d].i;
    if (size < 0) return no(why, "attribute %lld is negative; expected a size", (long long)(2 + d));
    if (size == 0) return true; /* writes nothing */
    const __int128 reach = (__int128)(size - 1) * stride;
    low += reach < 0 ? reach : 0;
    high += reach > 0 ? reach : 0;
  }
  for (int d = 0; d < whole->rank && (count < limit || !whole->shape[d]); d++) count *= whole->shape[d];
  if (low < 0 || (high >= count && count < limit)) /* beyond it, sizes that vary have made offsets wrap */
    return no(why, "the part lies outside of the whole");
  if (from->rank > rank) return no(why, "the source does not broadcast to the part");
  for (int d = 0; d < from->rank; d++)
    if (from->shape[d] != 1 && from->shape[d] != c->attr[2 + d + rank - from->rank].i)
      return no(why, "the source does not broadcast to the part");
  return true;
}

/* Windows that fit, in memory that can be counted. */
static bool pool_is(const tern__call *c, char *why) {
  const tern_tensor *x = c->in[0];
  const int n = x->rank - 2, first = c->attr[0].i == TERN_NCHW ? 2 : 1;
  for (int s = 0; s < n; s++) {
    const __int128 reach = (__int128)(c->attr[2 + s].i - 1) * c->attr[6 + s].i + 1;
    if (reach > x->shape[first + s]) return no(why, "the window is longer than axis %d", first + s);
  }
  return true;
}

static bool ranks_are(const tern__call *c, const char *name, char *why) {
  const tern_tensor *x = c->n_in > 0 ? c->in[0] : TERN_NONE, *y = c->n_in > 1 ? c->in[1] : TERN_NONE;
  if (!strcmp(name, "matmul") && y->rank < 2) return no(why, "operand 2 has rank %d; expected at least 2", y->rank);
  if (!strcmp(name, "take") && (y->rank != 1 || !tern__is_int((tern_dtype)y->dtype)))
    return no(why, "operand 2 is no vector of integers");
  if (!strcmp(name, "one_hot") && x->shape[x->rank - 1] != 1) return no(why, "the operand's last axis is not 1");
  if (!strcmp(name, "arange") && c->attr[0].i != 1) return no(why, "its shape has not rank 1");
  if (!strcmp(name, "eye") && c->attr[0].i != 2) return no(why, "its shape has not rank 2");
  if (!strcmp(name, "searchsorted") && c->n_in == 2) return no(why, "it has 2 operands; expected 1 or 3");
  if (!strncmp(name, "random_", 7) && c->n_in == 1) return no(why, "it has 1 operand; expected none or 2");
  if (strstr(name, "_norm") && c->n_in == 4) return no(why, "it has 4 operands; expected 5 or at most 3");
  if (!strncmp(name, "scatter", 7)) {
    const tern_tensor *z = c->in[2];
    if ((x->rank != 3 && !(x->flags & TERN__WEAK)) || y->rank != 1 || z->rank != 3)
      return no(why, "expected operands of ranks 3, 1 and 3");
    return tern__is_int((tern_dtype)y->dtype) || no(why, "operand 2 is not of integers");
  }
  return true;
}

/* With one spatial axis the words of the second are not used. */
static const char *attributes_of(const tern__call *c, const form *f) {
  const bool line = f && f->least == 3 && c->in[0]->rank == 3;
  if (line && !strncmp(f->op, "conv", 4)) return "lpppnwwwnw";
  if (line && strstr(f->op, "_pool")) return "lwpwpwpw";
  return f ? f->attr : "";
}

bool tern__call_is_sound(const tern__call *c, int n_out, char *why) {
  const tern__op *op = c->op;
  const bool update = op->family && !strcmp(op->family, "optimizer") && strstr(op->name, "_update");
  const form *f = form_of(op);
  const int named = operands_named(op), low = update ? 2 : f ? f->low : named, high = update ? 11 : f ? f->high : named;
  const bool write = op == &tern__op_write;
  if (c->n_in + n_out > TERN__MAX_ARGS || (write ? c->n_in != 2 : c->n_in < low || c->n_in > high))
    return no(why, "it has %d operands; expected %d%s", c->n_in, write ? 2 : low,
              write || low == high ? "" : " or more");
  for (int i = 0; i < c->n_in; i++)
    if (c->in[i] == TERN_NONE && !(op->optional >> i & 1))
      return no(why, "operand %d is left out, which the op does not allow", i + 1);
  if (update) return update_is(c, n_out, why);
  if (n_out != 1) return no(why, "it has %d results; expected 1", n_out);
  if (write) return write_is(c, why);
  if (f && c->n_in && c->in[0] != TERN_NONE && (c->in[0]->rank < f->least || c->in[0]->rank > f->most) &&
      !(strstr(op->name, "scatter") && c->in[0]->flags & TERN__WEAK))
    return no(why, "operand 1 has rank %d; expected %d to %d", c->in[0]->rank, f->least, f->most);
  if (!attributes_are(c, attributes_of(c, f), why)) return false;
  if (f && strstr(op->name, "_pool")) return pool_is(c, why);
  return ranks_are(c, op->name, why);
}

/* ---- views ---- */

/* Powers of two apart from the rest, so that the rest never becomes 0 where it does not fit. */
static void count_of(int rank, const int64_t *shape, unsigned __int128 *odd, int *twos, bool *empty) {
  *odd = 1;
  *twos = 0;
  *empty = false;
  for (int d = 0; d < rank; d++) {
    if (shape[d] == 0) {
      *empty = true;
      continue;
    }
    const int zeros = __builtin_ctzll((uint64_t)shape[d]);
    *twos += zeros;
    *odd *= (unsigned __int128)((uint64_t)shape[d] >> zeros);
  }
}

bool tern__same_count(int rank_a, const int64_t *a, int rank_b, const int64_t *b) {
  unsigned __int128 odd_a, odd_b;
  int twos_a, twos_b;
  bool empty_a, empty_b;
  count_of(rank_a, a, &odd_a, &twos_a, &empty_a);
  count_of(rank_b, b, &odd_b, &twos_b, &empty_b);
  return empty_a || empty_b ? empty_a == empty_b : odd_a == odd_b && twos_a == twos_b;
}

static bool permute_is(const tern__call *c, int rank, const int64_t *shape, char *why) {
  const tern_tensor *x = c->in[0];
  unsigned seen = 0;
  if (c->n_attr != x->rank || rank != x->rank) return no(why, "it has %d axes for rank %d", c->n_attr, x->rank);
  for (int d = 0; d < rank; d++) {
    const int64_t from = c->attr[d].i;
    if (from < 0 || from >= rank || seen >> from & 1)
      return no(why, "axis %lld is named twice or does not exist", (long long)from);
    seen |= 1u << from;
    if (shape[d] != x->shape[from]) return no(why, "axis %d has not the size of the operand's axis %d", d, (int)from);
  }
  return true;
}

/* Attributes: the axis that is dropped or -1, then first element and step of each axis. */
static bool slice_is(const tern__call *c, int rank, const int64_t *shape, char *why) {
  const tern_tensor *x = c->in[0];
  const int64_t dropped = c->n_attr ? c->attr[0].i : -2;
  if (c->n_attr != 1 + 2 * x->rank || dropped < -1 || dropped >= x->rank || rank != x->rank - (dropped >= 0))
    return no(why, "expected the dropped axis or -1, then first element and step for each of %d axes", x->rank);
  for (int d = 0, o = 0; d < x->rank; d++) {
    const int64_t size = d == dropped ? 1 : shape[o++], first = c->attr[1 + 2 * d].i, step = c->attr[2 + 2 * d].i;
    if (size == 0) continue;
    const __int128 last = first + (__int128)(size - 1) * step;
    if (!step || first < 0 || first >= x->shape[d] || last < 0 || last >= x->shape[d])
      return no(why, "%lld elements from %lld by %lld lie outside of axis %d of size %lld", (long long)size,
                (long long)first, (long long)step, d, (long long)x->shape[d]);
  }
  return true;
}

static bool expand_is(const tern__call *c, int rank, const int64_t *shape, char *why) {
  const tern_tensor *x = c->in[0];
  bool ok = rank >= x->rank;
  for (int d = 0; d < x->rank && ok; d++) ok = x->shape[d] == 1 || x->shape[d] == shape[d + rank - x->rank];
  return ok || no(why, "the operand does not broadcast to the result");
}

bool tern__view_is_sound(const tern__call *c, int rank, const int64_t *shape, char *why) {
  const tern_tensor *x = c->n_in == 1 ? c->in[0] : TERN_NONE;
  if (x == TERN_NONE || x->flags & TERN__WEAK) return no(why, "a view has one operand, a tensor with memory");
  if (c->op == &tern__op_permute) return permute_is(c, rank, shape, why);
  if (c->op == &tern__op_slice) return slice_is(c, rank, shape, why);
  if (c->n_attr) return no(why, "it has %d attributes; expected 0", c->n_attr);
  if (c->op == &tern__op_expand) return expand_is(c, rank, shape, why);
  return tern__same_count(x->rank, x->shape, rank, shape) || no(why, "operand and result differ in number of elements");
}
