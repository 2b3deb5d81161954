/* From an op with numbers to a region, in the form in which the core sends it: dims of 1 dropped, neighbours merged
   where every operand allows it, sizes as launch words 0.., innermost strides 0 and 1 compiled in, other strides and
   PARAMs as words in the operands' order. */
#include "check.h"
#include <string.h>

/* ---- canonical form ---- */

static bool scalar(const operand *a) { return a->kind == TERN_V_PARAM || a->kind == TERN_V_CONST; }
static bool has(const operand *a, int d) { return a->dim[d] != ONE; }

static bool mergeable(const problem *p, int a, int b) {
  if (p->role[a] != p->role[b] || p->role[a] == ROLE_FIXED) return false;
  for (int i = 0; i < p->n_in + p->n_out; i++) {
    const operand *o = &p->arg[i];
    if (scalar(o)) continue;
    if (has(o, a) != has(o, b) || (has(o, a) && o->stride[a] != o->stride[b] * p->size[b])) return false;
  }
  return true;
}

static void move_dim(problem *p, int to, int from, int number) {
  for (int i = 0; i < p->n_in + p->n_out; i++) {
    operand *o = &p->arg[i];
    if (scalar(o)) continue;
    o->dim[to] = o->dim[from] == ONE ? ONE : (uint8_t)(o->dim[from] - from + number);
    o->stride[to] = o->stride[from];
  }
}

/* One more dim of size 1 at the end of a space that has no fixed sizes behind it. reduced: outputs broadcast along it
   */
static void append_one(problem *p, uint8_t role) {
  const int at = p->n_space++;
  p->size[at] = 1;
  p->role[at] = role;
  p->n_sizes++;
  for (int i = 0; i < p->n_in + p->n_out; i++) {
    operand *o = &p->arg[i];
    if (scalar(o)) continue;
    const bool one = role == ROLE_REDUCED && i >= p->n_in;
    o->dim[at] = one ? ONE : (uint8_t)at;
    o->stride[at] = !one;
    o->rank++;
  }
}

/* The same input twice is one argument. */
static void mark_duplicates(problem *p) {
  for (int i = 0; i < p->n_in + p->n_out; i++)
    if (p->arg[i].same_as == ONE) p->arg[i].same_as = (uint8_t)i;
}

void canonicalise(problem *p) {
  bool reduced = false, kept_reduced = false;
  int kept = 0;
  for (int d = 0; d < p->n_space; d++) {
    reduced |= p->role[d] == ROLE_REDUCED;
    if (p->size[d] == 1 && p->role[d] != ROLE_FIXED) continue;
    kept_reduced |= p->role[d] == ROLE_REDUCED;
    if (kept && mergeable(p, kept - 1, d)) {
      p->size[kept - 1] *= p->size[d];
      for (int i = 0; i < p->n_in + p->n_out; i++) p->arg[i].stride[kept - 1] = p->arg[i].stride[d];
      continue;
    }
    p->size[kept] = p->size[d];
    p->role[kept] = p->role[d];
    move_dim(p, kept, d, kept);
    kept++;
  }
  const int gone = p->n_space - kept;
  for (int d = p->n_space; d < p->n_sizes; d++) { /* sizes behind the space */
    p->size[d - gone] = p->size[d];
    p->role[d - gone] = p->role[d];
  }
  for (int i = 0; i < p->n_in + p->n_out; i++) {
    operand *o = &p->arg[i];
    if (scalar(o)) continue;
    for (int d = p->n_space; d < o->rank; d++) {
      o->dim[d - gone] = o->dim[d] == ONE ? ONE : (uint8_t)(o->dim[d] - gone);
      o->stride[d - gone] = o->stride[d];
    }
    o->rank = (uint8_t)(o->rank - gone);
    for (int d = 0; d < o->rank; d++)
      if (o->dim[d] == ONE) o->stride[d] = 0;
  }
  p->n_sizes = (uint8_t)(p->n_sizes - gone);
  p->n_space = (uint8_t)kept;
  if (reduced && !kept_reduced)
    append_one(p, ROLE_REDUCED);
  else if (p->n_sizes == 0)
    append_one(p, ROLE_MAP);
  mark_duplicates(p);
}

static bool literal(const problem *p, const operand *o, int d) {
  if (o->dim[d] == ONE) return true;
  if (d == o->rank - 1) return o->stride[d] == 0 || o->stride[d] == 1;
  return p->op == TERN_OP_DOT && d == o->rank - 2 && o->stride[d] == 1 && o->stride[d + 1] != 1;
}

/* Words and arguments of operands before `n`. */
static void numbers_before(const problem *p, int n, uint32_t *word, uint32_t *slot) {
  *word = p->n_sizes;
  *slot = 0;
  for (int i = 0; i < n; i++) {
    const operand *o = &p->arg[i];
    if (o->kind == TERN_V_PARAM) ++*word;
    if (scalar(o) || o->same_as != i) continue;
    ++*slot;
    for (int d = 0; d < o->rank; d++) *word += !literal(p, o, d);
  }
}

uint32_t words_of(const problem *p, tern_word *words) {
  uint32_t n = 0;
  for (int d = 0; d < p->n_sizes; d++) words[n++].i = p->size[d];
  for (int i = 0; i < p->n_in + p->n_out; i++) {
    const operand *o = &p->arg[i];
    if (o->kind == TERN_V_PARAM) words[n++] = o->value;
    if (scalar(o) || o->same_as != i) continue;
    for (int d = 0; d < o->rank; d++)
      if (!literal(p, o, d)) words[n++].i = o->stride[d];
  }
  return n;
}

uint32_t args_of(const problem *p, uint64_t *at) {
  uint32_t n = 0;
  for (int i = 0; i < p->n_in + p->n_out; i++)
    if (!scalar(&p->arg[i]) && p->arg[i].same_as == i) at[n++] = p->arg[i].at;
  return n;
}

bool place(problem *p, uint64_t *used) {
  uint64_t next = 64;
  for (int i = 0; i < p->n_in + p->n_out; i++) {
    operand *o = &p->arg[i];
    if (scalar(o)) continue;
    const operand *donor = o->alias >= 0 ? &p->arg[o->alias] : o->same_as != i ? &p->arg[o->same_as] : NULL;
    int64_t low = 0, high = 0;
    for (int d = 0; d < o->rank; d++) {
      const int64_t reach = o->dim[d] == ONE ? 0 : (p->size[o->dim[d]] - 1) * o->stride[d];
      if (reach < 0)
        low += reach;
      else
        high += reach;
    }
    o->low = low;
    o->count = high - low + 1;
    const uint64_t item = nest_item_size(o->dtype);
    if (donor)
      o->at = donor->at;
    else {
      o->at = next + (uint64_t)(o->shift - low) * item;
      next +=
          ((uint64_t)(o->count + o->shift) * item + 64 + 63) & ~(uint64_t)63; /* at least 64 bytes between operands */
    }
  }
  *used = next;
  return next <= IMAGE_BYTES;
}

/* ---- the region ---- */

static uint32_t new_value(builder *b, uint8_t kind, uint32_t dtype) {
  if (b->region.n_values == MAX_VALUES) {
    b->failed = true;
    return 0;
  }
  tern_value *v = &b->value[b->region.n_values];
  v->kind = kind;
  v->dtype = (uint16_t)dtype;
  v->alias = -1;
  return b->region.n_values++;
}

static uint32_t operand_value(builder *b, int i) {
  const problem *p = b->p;
  const operand *o = &p->arg[i];
  uint32_t word, slot;
  numbers_before(p, i, &word, &slot);
  const uint32_t id = new_value(b, o->kind, o->dtype);
  tern_value *v = &b->value[id];
  if (o->kind == TERN_V_CONST) v->imm = o->value;
  if (o->kind == TERN_V_PARAM) v->slot = word;
  if (scalar(o)) return id;
  v->slot = slot;
  v->rank = o->rank;
  if (o->alias >= 0) {
    uint32_t ignored, donor;
    numbers_before(p, o->alias, &ignored, &donor);
    v->alias = (int32_t)donor;
  }
  for (int d = 0; d < o->rank; d++) {
    v->shape[d] = o->dim[d] == ONE ? 1 : TERN_SYM(o->dim[d]);
    v->stride[d] = o->dim[d] == ONE ? 0 : literal(p, o, d) ? o->stride[d] : TERN_SYM(word++);
  }
  return id;
}

uint32_t b_in(builder *b, int i) {
  const int own = b->p->arg[i].same_as;
  uint32_t word, slot;
  numbers_before(b->p, own, &word, &slot);
  for (uint32_t v = 0; v < b->region.n_values; v++) /* made already? */
    if ((b->value[v].kind == TERN_V_IN && !scalar(&b->p->arg[own]) && b->value[v].slot == slot) ||
        (b->value[v].kind == TERN_V_PARAM && b->p->arg[own].kind == TERN_V_PARAM && b->value[v].slot == word))
      return v;
  return operand_value(b, own);
}

uint32_t b_const(builder *b, uint32_t dtype, double x) {
  const uint32_t id = new_value(b, TERN_V_CONST, dtype);
  b->value[id].imm = eval_cast(TERN_F64, dtype, (tern_word){.f = x});
  return id;
}

static uint32_t add_node(builder *b, uint32_t op, int n, const uint32_t *in, uint32_t out, int n_attrs,
                         const tern_word *attrs) {
  if (b->region.n_nodes == MAX_NODES || b->n_edges + (uint32_t)n + 1 > MAX_EDGES ||
      b->n_attrs + (uint32_t)n_attrs > MAX_NODES) {
    b->failed = true;
    return out;
  }
  tern_node *node = &b->node[b->region.n_nodes++];
  *node = (tern_node){
      .op = op, .n_in = (uint32_t)n, .n_out = 1, .n_attr = (uint32_t)n_attrs, .in = b->n_edges, .attr = b->n_attrs};
  for (int i = 0; i < n; i++) b->edge[b->n_edges++] = in[i];
  node->out = b->n_edges;
  b->edge[b->n_edges++] = out;
  for (int i = 0; i < n_attrs; i++) b->attr[b->n_attrs++] = attrs[i];
  return out;
}

uint32_t b_map(builder *b, uint32_t op, uint32_t dtype, int n, const uint32_t *in) {
  const uint32_t out = new_value(b, TERN_V_TEMP, dtype);
  tern_value *o = &b->value[out];
  for (int i = 0; i < n; i++) {
    const tern_value *v = &b->value[in[i]];
    for (int d = 0; d < v->rank; d++) {
      if (d >= o->rank) o->shape[d] = 1;
      if (o->shape[d] == 1) o->shape[d] = v->shape[d];
    }
    if (v->rank > o->rank) o->rank = v->rank;
  }
  return add_node(b, op, n, in, out, 0, NULL);
}

static tern_word reduced_mask(const problem *p) {
  tern_word mask = {.u = 0};
  for (int d = 0; d < p->n_space; d++) mask.u |= (uint64_t)(p->role[d] == ROLE_REDUCED) << d;
  return mask;
}

uint32_t b_reduce(builder *b, uint32_t op, uint32_t x) {
  const tern_word mask = reduced_mask(b->p);
  const bool index = op == TERN_OP_ARGMAX || op == TERN_OP_ARGMIN;
  const uint32_t out = new_value(b, TERN_V_TEMP, index ? TERN_I64 : b->value[x].dtype);
  tern_value *v = &b->value[out];
  v->rank = b->value[x].rank;
  for (int d = 0; d < v->rank; d++) v->shape[d] = mask.u >> d & 1 ? 1 : b->value[x].shape[d];
  return add_node(b, op, 1, &x, out, 1, &mask);
}

uint32_t b_count(builder *b, uint32_t x, uint32_t dtype) {
  const uint32_t id = new_value(b, TERN_V_SIZE, dtype);
  b->value[id].slot = x;
  b->value[id].imm = reduced_mask(b->p);
  return id;
}

uint32_t b_iota(builder *b, int dim, uint32_t dtype) {
  const uint32_t out = new_value(b, TERN_V_TEMP, dtype);
  tern_value *v = &b->value[out];
  v->rank = b->p->n_space;
  for (int d = 0; d < v->rank; d++) v->shape[d] = d == dim ? TERN_SYM(d) : 1;
  return add_node(b, TERN_OP_IOTA, 0, NULL, out, 1, &(tern_word){.i = dim});
}

void b_out(builder *b, int o, uint32_t x) {
  const uint32_t id = operand_value(b, b->p->n_in + o);
  const tern_value out = b->value[id];
  tern_value *v = &b->value[x];
  if (v->kind != TERN_V_TEMP || v->rank != out.rank || memcmp(v->shape, out.shape, out.rank * sizeof *out.shape)) {
    add_node(b, TERN_OP_COPY, 1, &x, id, 0, NULL);
    return;
  }
  memset(&b->value[--b->region.n_values], 0, sizeof *v); /* the producer writes the output itself */
  *v = out;
}

/* One node of a primitive, its output's shape that of the operand. */
static void lower_primitive(builder *b) {
  const problem *p = b->p;
  const nest_prim *prim = nest_prim_of(p->op);
  uint32_t in[MAX_OPERANDS] = {0};
  for (int i = 0; i < p->n_in; i++) in[i] = b_in(b, i);
  const uint32_t id = operand_value(b, p->n_in);
  tern_word attr[8];
  memcpy(attr, p->attr, sizeof attr);
  int n_attrs = p->n_attrs;
  if (prim->kind == TERN_K_REDUCE) {
    attr[0] = reduced_mask(p);
    n_attrs = 1;
  }
  if (prim->kind == TERN_K_SCAN || p->op == TERN_OP_IOTA) /* the dim may have moved */
    for (int d = 0; d < p->n_space; d++)
      if (p->role[d] == ROLE_FIXED) attr[0].i = d;
  add_node(b, p->op, p->n_in, in, id, n_attrs, attr);
}

static uint64_t mix(uint64_t h, const void *data, size_t n) { /* FNV-1a, 64 bits */
  for (const unsigned char *c = data; n--; c++) h = (h ^ *c) * 0x100000001b3u;
  return h;
}

static void finish(builder *b) {
  tern_region *r = &b->region;
  r->struct_size = sizeof *r;
  r->nodes = b->node;
  r->values = b->value;
  r->edges = b->edge;
  r->attrs = b->attr;
  for (int k = 0; k < 2; k++) {
    uint64_t h = k ? 0x9e3779b97f4a7c15u : 0xcbf29ce484222325u;
    const uint32_t head[] = {r->flags, r->n_nodes, r->n_values, r->n_args, r->n_words};
    h = mix(h, head, sizeof head);
    h = mix(h, b->value, r->n_values * sizeof *b->value);
    h = mix(h, b->node, r->n_nodes * sizeof *b->node);
    h = mix(h, b->edge, b->n_edges * sizeof *b->edge);
    r->key[k] = mix(h, b->attr, b->n_attrs * sizeof *b->attr);
  }
}

bool build(builder *b, const problem *p) {
  memset(b, 0, sizeof *b);
  b->p = p;
  if (p->op)
    lower_primitive(b);
  else if (!p->lower(b))
    return false;
  numbers_before(p, p->n_in + p->n_out, &b->region.n_words, &b->region.n_args);
  b->region.flags = TERN_R_DETERMINISTIC | (p->wide ? 0 : TERN_R_IDX32);
  finish(b);
  return !b->failed;
}

void make_static(builder *b, const tern_word *words) {
  for (uint32_t i = 0; i < b->region.n_values; i++)
    for (int d = 0; d < b->value[i].rank; d++) {
      b->value[i].shape[d] = TERN_LIT(b->value[i].shape[d], words);
      b->value[i].stride[d] = b->value[i].shape[d] == 1 ? 0 : TERN_LIT(b->value[i].stride[d], words);
    }
  finish(b);
}

bool same_region(const builder *a, const builder *b) {
  return a->region.flags == b->region.flags && a->region.n_words == b->region.n_words &&
         a->region.n_args == b->region.n_args && a->n_edges == b->n_edges && a->n_attrs == b->n_attrs &&
         !memcmp(a->value, b->value, sizeof a->value) && !memcmp(a->node, b->node, sizeof a->node) &&
         !memcmp(a->edge, b->edge, sizeof a->edge) && !memcmp(a->attr, b->attr, sizeof a->attr);
}
