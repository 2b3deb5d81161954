/* Einstein sums. Every operand becomes a tensor whose axes carry different labels (diagonals for a repeated letter,
   axes of size 1 dropped, since they broadcast); then pairs are contracted from left to right by one matrix product
   each, over views wherever strides allow. */
#include "base/alloc.h"
#include "dispatch/dispatch.h"
#include "ops/table.h"
#include "tensor/dtype.h"
#include <stdio.h>
#include <stdlib.h>
#include <tern/ops.h>

static tern_tensor *sample_einsum(const tern__sample *s) {
  tern_tensor *const in[] = {s->x, s->y};
  return tern_einsum("ij,kj->ik", in, 2);
}

const tern__op tern__op_einsum = {.name = "einsum",
                                  .family = "einsum",
                                  .operands = "subscripts, xs",
                                  .doc = "sums of products by index letters, NumPy's notation",
                                  .number = TERN__N_einsum,
                                  .sample = sample_einsum,
                                  .dtypes = TERN_D_ANY};

/* Labels in the order of NumPy's implicit output: 'A' .. 'Z', 'a' .. 'z', and before them in results the axes of "...",
   numbered from the right end, so that those of all operands are aligned at their last. */
enum { N_LETTERS = 52, N_LABELS = N_LETTERS + TERN_MAX_RANK };

typedef struct term {
  tern_tensor *t;
  int rank;
  uint8_t label[TERN_MAX_RANK]; /* of each axis */
} term;

typedef struct sum {
  const char *text;        /* the whole string, for errors */
  int64_t size[N_LABELS];  /* 1 until an axis says otherwise */
  uint64_t seen;           /* labels of any operand */
  uint8_t owner[N_LABELS]; /* the operand (from 1, at most 255) that gave the size */
  int count[N_LABELS];
  int n_dots; /* most axes that a "..." stands for */
} sum;

static int letter_label(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  return c >= 'a' && c <= 'z' ? c - 'a' + 26 : -1;
}

static const char *label_text(int label, char text[16]) {
  if (label < N_LETTERS)
    snprintf(text, 16, "'%c'", label < 26 ? 'A' + label : 'a' + label - 26);
  else
    snprintf(text, 16, "\"...\"");
  return text;
}

static uint64_t mask_of(const term *t) {
  uint64_t mask = 0;
  for (int d = 0; d < t->rank; d++) mask |= UINT64_C(1) << t->label[d];
  return mask;
}

/* ---- reading the string ---- */

/* The labels of text[0, length), its "..." standing for `dots` axes (-1: for what is left of rank). what: for
   errors. */
static bool read_term(const sum *s, const char *text, int length, int rank, int dots, const char *what, term *out) {
  int letters = 0, n_ellipses = 0;
  for (int i = 0; i < length; i++) {
    if (text[i] == ' ') continue;
    if (text[i] == '.') {
      if (i + 2 >= length || text[i + 1] != '.' || text[i + 2] != '.' || n_ellipses++) {
        tern__fail(TERN_E_ARG, "einsum: a dot in \"%s\" is no part of the one \"...\" that %s may have", s->text, what);
        return false;
      }
      i += 2;
    } else if (letter_label(text[i]) < 0) {
      tern__fail(TERN_E_ARG,
                 "einsum: '%c' in \"%s\" means nothing; subscripts are letters, commas, \"...\" and one \"->\"",
                 text[i], s->text);
      return false;
    } else {
      letters++;
    }
  }
  if (dots < 0) dots = rank - letters;
  if (rank >= 0 ? dots < 0 || (dots && !n_ellipses) : false) {
    tern__fail(TERN_E_ARG, "einsum: %s has rank %d, but \"%s\" names %d axes of it%s", what, rank, s->text, letters,
               dots > 0 ? "; \"...\" stands for the others" : "");
    return false;
  }
  if (!n_ellipses) dots = 0;
  if (letters + dots > TERN_MAX_RANK) {
    tern__fail(TERN_E_ARG, "einsum: %s of \"%s\" has %d axes; the most there are is %d", what, s->text, letters + dots,
               TERN_MAX_RANK);
    return false;
  }
  out->rank = 0;
  for (int i = 0; i < length; i++) {
    if (text[i] == ' ') continue;
    if (text[i] != '.') {
      out->label[out->rank++] = (uint8_t)letter_label(text[i]);
      continue;
    }
    for (int k = dots; k > 0; k--) out->label[out->rank++] = (uint8_t)(N_LABELS - k);
    i += 2;
  }
  return true;
}

/* Takes in the sizes of operand `number` (from 1). */
static bool read_sizes(sum *s, const term *t, int number) {
  char name[16];
  uint64_t own = 0;
  int64_t own_size[N_LABELS];
  int dots = 0;
  for (int d = 0; d < t->rank; d++) {
    const int l = t->label[d];
    const int64_t size = t->t->shape[d];
    const uint64_t bit = UINT64_C(1) << l;
    if (own & bit && own_size[l] != size) {
      tern__fail(TERN_E_ARG,
                 "einsum: %s in operand %d of \"%s\" is an axis of size %lld and one of size %lld; a diagonal needs "
                 "equal ones",
                 label_text(l, name), number, s->text, (long long)own_size[l], (long long)size);
      return false;
    }
    own |= bit;
    own_size[l] = size;
    s->count[l]++;
    dots += l >= N_LETTERS;
    if (size != 1 && s->size[l] == 1) {
      s->size[l] = size;
      s->owner[l] = (uint8_t)(number < 255 ? number : 255);
    } else if (size != 1 && s->size[l] != size) {
      tern__fail(TERN_E_ARG,
                 "einsum: %s is %lld in operand %d and %lld in operand %d of \"%s\"; sizes must be equal, or 1",
                 label_text(l, name), (long long)s->size[l], s->owner[l], (long long)size, number, s->text);
      return false;
    }
  }
  s->seen |= own;
  if (dots > s->n_dots) s->n_dots = dots;
  return true;
}

/* The axes of "...", then in the alphabet's order the letters that occur once. */
static bool implicit_output(const sum *s, term *out) {
  int n = s->n_dots;
  for (int l = 0; l < N_LETTERS; l++) n += s->count[l] == 1;
  if (n > TERN_MAX_RANK) {
    tern__fail(TERN_E_ARG, "einsum: the result of \"%s\" would have rank %d; the most there is is %d", s->text, n,
               TERN_MAX_RANK);
    return false;
  }
  out->rank = 0;
  for (int k = s->n_dots; k > 0; k--) out->label[out->rank++] = (uint8_t)(N_LABELS - k);
  for (int l = 0; l < N_LETTERS; l++)
    if (s->count[l] == 1) out->label[out->rank++] = (uint8_t)l;
  return true;
}

static bool read_output(const sum *s, const char *text, term *out) {
  if (!read_term(s, text, (int)strlen(text), -1, s->n_dots, "the output", out)) return false;
  uint64_t mask = 0;
  int dots = 0;
  for (int d = 0; d < out->rank; d++) {
    const int l = out->label[d];
    char name[16];
    if (mask >> l & 1 || !(s->seen >> l & 1)) {
      tern__fail(TERN_E_ARG, "einsum: %s is in the output of \"%s\" %s", label_text(l, name), s->text,
                 mask >> l & 1 ? "more than once" : "but in no operand");
      return false;
    }
    mask |= UINT64_C(1) << l;
    dots += l >= N_LETTERS;
  }
  if (dots == s->n_dots) return true;
  tern__fail(TERN_E_ARG, "einsum: \"...\" stands for %d axes in \"%s\", so the output must have one too", s->n_dots,
             s->text);
  return false;
}

/* Fills the operands' terms and the output's. */
static bool read_all(sum *s, term *terms, int n, term *out) {
  const char *arrow = strstr(s->text, "->"), *at = s->text, *end = arrow ? arrow : s->text + strlen(s->text);
  int commas = 0;
  for (const char *p = at; p < end; p++) commas += *p == ',';
  if (commas + 1 != n) {
    tern__fail(TERN_E_ARG, "einsum: \"%s\" is for %d operand%s, but %d %s given", s->text, commas + 1,
               commas ? "s" : "", n, n == 1 ? "was" : "were");
    return false;
  }
  for (int l = 0; l < N_LABELS; l++) s->size[l] = 1;
  for (int i = 0; i < n; i++) {
    const char *stop = at;
    char what[32];
    while (stop < end && *stop != ',') stop++;
    snprintf(what, sizeof what, "operand %d", i + 1);
    if (!read_term(s, at, (int)(stop - at), terms[i].t->rank, -1, what, &terms[i]) || !read_sizes(s, &terms[i], i + 1))
      return false;
    at = stop + 1;
  }
  return arrow ? read_output(s, arrow + 2, out) : implicit_output(s, out);
}

/* ---- operands ---- */

/* The axes of t in the order of labels, n of them, all that it has. */
static tern_tensor *ordered(const term *t, const uint8_t *labels, int n) {
  int order[TERN_MAX_RANK];
  bool same = true;
  for (int i = 0; i < n; i++) {
    order[i] = 0;
    while (order[i] < t->rank - 1 && t->label[order[i]] != labels[i]) order[i]++;
    same = same && order[i] == i;
  }
  return same ? t->t : tern_permute(t->t, order, n);
}

static tern_tensor *shaped(tern_tensor *t, tern_shape shape) {
  if (!t || (t->rank == shape.rank && !memcmp(t->shape, shape.dim, (size_t)t->rank * sizeof *t->shape))) return t;
  return tern_reshape(t, shape);
}

/* A repeated label becomes one axis, the last: the diagonal. False with the error set. */
static bool take_diagonals(term *t) {
  for (int i = 0; i < t->rank; i++)
    for (int k = i + 1; k < t->rank; k++) {
      if (t->label[i] != t->label[k]) continue;
      int order[TERN_MAX_RANK], n = 0;
      uint8_t label[TERN_MAX_RANK];
      for (int d = 0; d < t->rank; d++)
        if (d != i && d != k) {
          label[n] = t->label[d];
          order[n++] = d;
        }
      label[n] = t->label[i];
      order[n] = i;
      order[n + 1] = k;
      tern_tensor *last = tern_permute(t->t, order, t->rank);
      t->t = last ? tern_diag(last, 0) : NULL;
      if (!t->t) return false;
      t->rank--;
      memcpy(t->label, label, sizeof label);
      i = -1; /* from the start */
      break;
    }
  return true;
}

/* Axes of size 1 broadcast: without them nothing need be said about that. */
static bool drop_ones(term *t) {
  int n = 0;
  for (int d = 0; d < t->rank; d++)
    if (t->t->shape[d] != 1) t->label[n++] = t->label[d];
  if (n == t->rank) return true;
  t->rank = n;
  t->t = tern_squeeze(t->t, TERN_ALL_AXES);
  return t->t != NULL;
}

/* Sums out the axes whose label is not in keep, in t's own dtype. */
static bool sum_out(term *t, uint64_t keep) {
  int axes[TERN_MAX_RANK], n = 0, left = 0;
  for (int d = 0; d < t->rank; d++) {
    if (keep >> t->label[d] & 1)
      t->label[left++] = t->label[d];
    else
      axes[n++] = d;
  }
  if (n == 0) return true;
  t->rank = left;
  t->t = tern_sum(t->t, &(tern_reduce_opts){.axes = axes, .n_axes = n, .dtype = (tern_dtype)t->t->dtype});
  return t->t != NULL;
}

/* ---- a pair ---- */

typedef struct labels {
  int n;
  uint8_t label[TERN_MAX_RANK];
  int64_t size[TERN_MAX_RANK], numel;
} labels;

/* The labels of t that are in the mask, in its order. */
static labels chosen(const term *t, uint64_t mask) {
  labels out = {.numel = 1};
  for (int d = 0; d < t->rank; d++) {
    if (!(mask >> t->label[d] & 1)) continue;
    out.label[out.n] = t->label[d];
    out.size[out.n++] = t->t->shape[d];
    out.numel *= t->t->shape[d];
  }
  return out;
}

static void append(tern_shape *shape, const labels *l) {
  for (int i = 0; i < l->n; i++) shape->dim[shape->rank++] = l->size[i];
}

/* t's axes as first, second, third, each group in that order. */
static tern_tensor *grouped(const term *t, const labels *first, const labels *second, const labels *third) {
  uint8_t order[3 * TERN_MAX_RANK];
  memcpy(order, first->label, (size_t)first->n);
  memcpy(order + first->n, second->label, (size_t)second->n);
  memcpy(order + first->n + second->n, third->label, (size_t)third->n);
  return ordered(t, order, t->rank);
}

/* Nothing to sum: a product that broadcasts. Shapes [batch.., left.., 1..] and [batch.., 1.., right..]. */
static tern_tensor *multiply(const term *a, const term *b, const labels *batch, const labels *left,
                             const labels *right) {
  const labels none = {.numel = 1};
  tern_shape x = {.rank = 0}, y = {.rank = 0};
  append(&x, batch);
  append(&y, batch);
  append(&x, left);
  for (int i = 0; i < left->n; i++) y.dim[y.rank++] = 1;
  for (int i = 0; i < right->n; i++) x.dim[x.rank++] = 1;
  append(&y, right);
  tern_tensor *p = shaped(grouped(a, batch, left, &none), x), *q = shaped(grouped(b, batch, right, &none), y);
  return p && q ? tern_mul(p, q) : NULL;
}

/* One matrix product [batch.., left, inner] x [batch.., inner, right], back in the shape [batch.., left.., right..]. */
static tern_tensor *product(const term *a, const term *b, const labels *batch, const labels *left, const labels *inner,
                            const labels *right) {
  tern_shape x = {.rank = 0}, y = {.rank = 0}, out = {.rank = 0};
  append(&out, batch);
  append(&out, left);
  append(&out, right);
  if (batch->n + 2 > TERN_MAX_RANK)
    x.dim[x.rank++] = batch->numel;
  else
    append(&x, batch);
  y = x;
  x.dim[x.rank++] = left->numel;
  x.dim[x.rank++] = inner->numel;
  y.dim[y.rank++] = inner->numel;
  y.dim[y.rank++] = right->numel;
  tern_tensor *p = shaped(grouped(a, batch, left, inner), x), *q = shaped(grouped(b, batch, inner, right), y);
  tern_tensor *product_ = p && q ? tern_matmul(p, q) : NULL;
  return shaped(product_, out);
}

/* a becomes the product of a and b with the labels in `needed` kept. False with the error set. */
static bool contract(term *a, term *b, uint64_t needed) {
  const uint64_t of_a = mask_of(a), of_b = mask_of(b), both = of_a & of_b;
  if (!sum_out(a, of_b | needed) || !sum_out(b, of_a | needed)) return false;
  const labels batch = chosen(a, both & needed), left = chosen(a, ~both), right = chosen(b, ~both);
  const labels inner = chosen(a->t->numel >= b->t->numel ? a : b, both & ~needed);
  tern_tensor *t = inner.n ? product(a, b, &batch, &left, &inner, &right) : multiply(a, b, &batch, &left, &right);
  if (!t) return false;
  a->t = t;
  a->rank = 0;
  const labels *const groups[] = {&batch, &left, &right};
  for (int g = 0; g < 3; g++)
    for (int i = 0; i < groups[g]->n; i++) a->label[a->rank++] = groups[g]->label[i];
  return true;
}

/* The labels of the output and of all terms but i and k. */
static uint64_t needed_without(const term *terms, int n, int i, int k, uint64_t kept) {
  for (int j = 0; j < n; j++)
    if (j != i && j != k) kept |= mask_of(&terms[j]);
  return kept;
}

/* The first pair, from the left, whose product has no more axes than a tensor can: as a rule terms 0 and 1. False when
   there is none. */
static bool first_pair(const term *terms, int n, uint64_t kept, int *i, int *k) {
  for (*i = 0; *i < n; ++*i)
    for (*k = *i + 1; *k < n; ++*k) {
      const uint64_t labels_left = (mask_of(&terms[*i]) | mask_of(&terms[*k])) & needed_without(terms, n, *i, *k, kept);
      if (__builtin_popcountll(labels_left) <= TERN_MAX_RANK) return true;
    }
  return false;
}

/* All terms become the first. False with the error set. */
static bool contract_all(const sum *s, term *terms, int n, uint64_t kept) {
  int i, k;
  for (; n > 1; n--) {
    if (!first_pair(terms, n, kept, &i, &k)) {
      tern__fail(TERN_E_ARG,
                 "einsum: every product of two operands of \"%s\" would have more than %d axes; split the sum", s->text,
                 TERN_MAX_RANK);
      return false;
    }
    if (!contract(&terms[i], &terms[k], needed_without(terms, n, i, k, kept))) return false;
    memmove(&terms[k], &terms[k + 1], (size_t)(n - k - 1) * sizeof *terms);
  }
  return true;
}

/* The result in the output's order, with its axes of size 1 again. */
static tern_tensor *as_output(const sum *s, term *t, const term *out) {
  uint8_t order[TERN_MAX_RANK];
  tern_shape shape = {.rank = out->rank};
  int n = 0;
  if (!sum_out(t, mask_of(out))) return NULL;
  const uint64_t have = mask_of(t);
  for (int d = 0; d < out->rank; d++) {
    shape.dim[d] = s->size[out->label[d]];
    if (have >> out->label[d] & 1) order[n++] = out->label[d];
  }
  return shaped(ordered(t, order, n), shape);
}

/* ---- dtypes ---- */

/* Where the operands meet, as in a product of them; bool is computed in int64 and turned back. */
static bool same_dtype(term *terms, int n, bool *of_bool) {
  tern_dtype d = TERN_NO_DTYPE;
  bool weak_float = false, weak_int = false;
  for (int i = 0; i < n; i++) {
    const tern_tensor *t = terms[i].t;
    const tern_dtype own = (tern_dtype)t->dtype;
    if (t->flags & TERN__WEAK) {
      weak_float = weak_float || own == TERN_F64;
      weak_int = weak_int || own != TERN_F64;
    } else {
      d = d == TERN_NO_DTYPE ? own : tern__promote(d, own);
    }
  }
  if (d == TERN_NO_DTYPE)
    d = weak_float ? TERN_F32 : TERN_I64;
  else if (weak_float || weak_int)
    d = tern__promote_weak(d, weak_float);
  *of_bool = d == TERN_BOOL;
  if (*of_bool) d = TERN_I64;
  for (int i = 0; i < n; i++) {
    terms[i].t = tern__solid(terms[i].t, d);
    if (terms[i].t && terms[i].t->dtype != d) terms[i].t = tern_cast(terms[i].t, d);
    if (!terms[i].t) return false;
  }
  return true;
}

static tern_tensor *compute(sum *s, term *terms, int n) {
  term out = {.t = NULL};
  bool of_bool;
  if (!same_dtype(terms, n, &of_bool) || !read_all(s, terms, n, &out)) return NULL;
  for (int i = 0; i < n; i++)
    if (!take_diagonals(&terms[i]) || !drop_ones(&terms[i])) return NULL;
  if (!contract_all(s, terms, n, mask_of(&out))) return NULL;
  tern_tensor *t = as_output(s, &terms[0], &out);
  return t && of_bool ? tern_cast(t, TERN_BOOL) : t;
}

tern_tensor *tern_einsum(const char *subscripts, tern_tensor *const *operands, int n) {
  if (!subscripts || n <= 0 || !operands) {
    tern__fail(TERN_E_ARG, "einsum: %s", subscripts ? "no operands were given" : "the subscripts are NULL");
    return NULL;
  }
  for (int i = 0; i < n; i++)
    if (!tern__usable(operands[i], "einsum", i + 1)) return NULL;
  term *terms = tern__calloc((size_t)n, sizeof *terms);
  if (!terms) {
    tern__fail(TERN_E_OOM, "einsum: out of host memory for %d operands", n);
    return NULL;
  }
  for (int i = 0; i < n; i++) terms[i].t = operands[i];
  sum s = {.text = subscripts};
  tern_tensor *out = compute(&s, terms, n);
  free(terms);
  for (int i = 0; i < n && out; i++)
    if (out == operands[i]) return tern__itself(out);
  return out;
}
