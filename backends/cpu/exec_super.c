/* Finding superinstructions in the items of a pass: the largest pattern of the table that fits at each item, from the
   last to the first. A value inside a pattern must have no other reader. */
#include "exec_super.h"
#include <string.h>

typedef struct finder {
  const tern_region *r;
  const nest *n;
  x_list *l;
  int32_t item_of[X_MOST_VALS];
  uint8_t uses[X_MOST_VALS];
  /* of the pattern being tried */
  const char *at;
  int32_t leaf[X_LEAVES], inner[X_LEAVES + 3];
  uint32_t n_leaf, n_inner;
} finder;

static uint32_t op_of(const finder *f, const x_item *it) { return f->r->nodes[f->n->val[it->val].node].op; }

/* A float32 MAP of full level */
static bool is_plain(const x_item *it) {
  return it->kind == X_MAP && !it->row && it->dtype == TERN_F32 && it->in_dtype == TERN_F32 && it->n_in <= 2;
}

static char letter_of(const finder *f, const x_item *it) {
  switch (op_of(f, it)) {
  case TERN_OP_ADD: return '+';
  case TERN_OP_SUB: return '-';
  case TERN_OP_MUL: return '*';
  case TERN_OP_DIV: return '/';
  case TERN_OP_NEG: return 'N';
  case TERN_OP_EXP: return 'E';
  case TERN_OP_TANH: return 'T';
  case TERN_OP_ERF: return 'R';
  case TERN_OP_SQRT: return 'S';
  default: return 0;
  }
}

/* The comparison of float32 that this float32 WHERE alone chooses by, or X_NONE */
static int32_t condition_of(const finder *f, const x_item *it) {
  if (it->kind != X_MAP || it->row || it->dtype != TERN_F32 || it->in_dtype != TERN_F32 || it->n_in != 3 ||
      op_of(f, it) != TERN_OP_WHERE || f->uses[it->in[0]] != 1)
    return X_NONE;
  const int32_t i = f->item_of[it->in[0]];
  if (i < 0) return X_NONE;
  const x_item *const c = &f->l->item[i];
  return c->kind == X_MAP && !c->row && c->n_in == 2 && c->in_dtype == TERN_F32 ? i : X_NONE;
}

static char comparison_of(const finder *f, const x_item *it) {
  switch (op_of(f, it)) {
  case TERN_OP_LT: return '<';
  case TERN_OP_LE: return 'L';
  case TERN_OP_EQ: return '=';
  default: return 0;
  }
}

static bool match_item(finder *f, int32_t i);

/* The pattern from f->at on against value v, which a parent reads `reads` times */
static bool match_value(finder *f, int32_t v, uint32_t reads) {
  if (*f->at == '.') {
    f->at++;
    if (f->n_leaf == X_LEAVES) return false;
    f->leaf[f->n_leaf++] = v;
    return true;
  }
  const int32_t i = f->item_of[v];
  if (i < 0 || f->uses[v] != reads || f->n_inner == X_LEAVES + 3) return false;
  f->inner[f->n_inner++] = i;
  return match_item(f, i);
}

static bool match_two(finder *f, int32_t a, int32_t b) { return match_value(f, a, 1) && match_value(f, b, 1); }

static bool match_choice(finder *f, const x_item *it, int32_t condition) {
  const x_item *const c = &f->l->item[condition];
  if (*f->at++ != comparison_of(f, c) || f->n_inner == X_LEAVES + 3) return false;
  f->inner[f->n_inner++] = condition;
  return match_two(f, c->in[0], c->in[1]) && match_two(f, it->in[1], it->in[2]);
}

static bool match_item(finder *f, int32_t i) {
  const x_item *const it = &f->l->item[i];
  const int32_t condition = condition_of(f, it);
  if (condition != X_NONE) return match_choice(f, it, condition);
  if (!is_plain(it)) return false;
  const char want = *f->at++, is = letter_of(f, it);
  if (want == 'Q') return is == '*' && it->in[0] == it->in[1] && match_value(f, it->in[0], 2);
  if (want != is) return false;
  if (it->n_in == 1) return match_value(f, it->in[0], 1);
  const char *const at = f->at;
  const uint32_t n_leaf = f->n_leaf, n_inner = f->n_inner;
  if (match_two(f, it->in[0], it->in[1])) return true;
  if (is != '+' && is != '*') return false;
  f->at = at;
  f->n_leaf = n_leaf;
  f->n_inner = n_inner;
  return match_two(f, it->in[1], it->in[0]);
}

static bool try_at(finder *f, int32_t i, const x_super *s) {
  f->at = s->pattern;
  f->n_leaf = f->n_inner = 0;
  return match_item(f, i) && *f->at == 0;
}

/* The root becomes the superinstruction; what it swallows is marked X_GONE */
static void fuse_at(finder *f, int32_t i) {
  const x_super *best = NULL;
  uint32_t most = 0;
  for (uint32_t k = 0; k < x_super_count; k++)
    if (try_at(f, i, &x_super_table[k]) && f->n_inner > most) {
      most = f->n_inner;
      best = &x_super_table[k];
    }
  if (!best || !try_at(f, i, best)) return;
  x_item *const it = &f->l->item[i];
  it->kind = X_SUPER;
  it->super = best->fn;
  it->n_in = (uint8_t)f->n_leaf;
  memcpy(it->in, f->leaf, f->n_leaf * sizeof *it->in);
  for (uint32_t k = 0; k < f->n_inner; k++) f->l->item[f->inner[k]].kind = X_GONE;
}

void x_super_fuse(const tern_region *r, const nest *n, x_list *l) {
  finder f = {.r = r, .n = n, .l = l};
  if (n->n_val > X_MOST_VALS) return;
  for (uint32_t v = 0; v < n->n_val; v++) f.item_of[v] = X_NONE;
  for (uint32_t i = 0; i < l->n; i++) {
    const x_item *const it = &l->item[i];
    if (it->kind == X_MAP) f.item_of[it->val] = (int32_t)i;
    for (uint32_t k = 0; k < it->n_in; k++) f.uses[it->in[k]] += f.uses[it->in[k]] < UINT8_MAX;
  }
  for (uint32_t i = l->n; i-- > 0;)
    if (is_plain(&l->item[i]) || condition_of(&f, &l->item[i]) != X_NONE) fuse_at(&f, (int32_t)i);
  uint32_t kept = 0;
  for (uint32_t i = 0; i < l->n; i++)
    if (l->item[i].kind != X_GONE) l->item[kept++] = l->item[i];
  l->n = kept;
}
