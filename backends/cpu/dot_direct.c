/* The smallest products with an epilogue: one tile by our own loops, then each MAP node as one call over the tile (or
   one a row, where an operand is a row, a column or has gaps between its rows). Nothing is allocated or resolved. */
#include "../common/nest.h"
#include "dot.h"
#include "dot_fuse.h"

#include <stdlib.h>
#include <string.h>

enum { STEPS = 24, REGS = 8, CELLS = 16, BYTES = 16 << 10, MACS = 16 << 10 };
enum { AT_NONE, AT_REG, AT_MEM, AT_CELL };
enum { WHOLE, ROW /* [1, N] */, COLUMN /* [M, 1] */, ONE /* [1, 1], rank 0 */ };

struct ref {
  uint8_t at, form, item;
  uint32_t index;
};
struct step {
  cpu_map_fn fn;
  uint8_t n_in;
  bool by_rows;
  struct ref in[3], out;
};
struct mem {
  int32_t slot;
  uint32_t item;
  int64_t offset, row;
};
struct fuse_direct {
  uint32_t dtype, n_steps, n_regs, n_mem, n_cells;
  int64_t m, n, k; /* literals or words */
  struct mem a, b; /* row: their row strides */
  int64_t a_col;
  struct ref result;
  struct step step[STEPS];
  struct mem mem[FUSE_ARGS];
  struct {
    int32_t word; /* PARAM; CONST: negative */
    uint32_t dtype;
    uint64_t bits;
  } cell[CELLS];
};

/* ---- compiling ---- */

struct maker {
  struct fuse_direct *d;
  const struct fuse_split *s;
  const tern_region *r; /* the epilogue */
  int reg[REGS];        /* the value in each register, negative: free */
};

static int last_use(const tern_region *r, uint32_t v) {
  int last = -1;
  for (uint32_t i = 0; i < r->n_nodes; i++)
    for (uint32_t k = 0; k < r->nodes[i].n_in; k++)
      if (nest_in(r, i, k) == v) last = (int)i;
  return last;
}

static bool take_reg(struct maker *m, uint32_t v, struct ref *to) {
  for (uint32_t i = 0; i < REGS; i++)
    if (m->reg[i] < 0) {
      m->reg[i] = (int)v;
      if (i >= m->d->n_regs) m->d->n_regs = i + 1;
      to->at = AT_REG, to->form = WHOLE, to->index = i;
      return true;
    }
  return false;
}

static bool read_mem(struct maker *m, const tern_value *v, struct ref *to) {
  const struct fuse_mem *const from = &m->s->map.mem[v->slot];
  if (from->slot == FUSE_NONE) return false;
  const bool one_row = v->shape[0] == 1, one_col = v->shape[1] == 1;
  if (!one_col && v->stride[1] != 1) return false;
  to->at = AT_MEM;
  to->form = one_row ? one_col ? ONE : ROW : one_col ? COLUMN : WHOLE;
  to->index = v->slot;
  m->d->mem[v->slot] = (struct mem){from->slot, from->item, from->offset, one_row ? 0 : v->stride[0]};
  return true;
}

static bool read_cell(struct maker *m, const tern_value *v, struct ref *to) {
  if (m->d->n_cells == CELLS) return false;
  to->at = AT_CELL, to->form = ONE, to->index = m->d->n_cells++;
  m->d->cell[to->index].word = v->kind == TERN_V_PARAM ? (int32_t)v->slot : -1;
  m->d->cell[to->index].dtype = v->dtype;
  m->d->cell[to->index].bits = 0;
  if (v->kind == TERN_V_CONST) cpu_word_store(&m->d->cell[to->index].bits, v->dtype, v->imm);
  return true;
}

static bool read_operand(struct maker *m, uint32_t v, struct ref *to) {
  const tern_value *const x = &m->r->values[v];
  to->item = (uint8_t)cpu_item_size(x->dtype);
  for (uint32_t i = 0; i < REGS; i++)
    if (m->reg[i] == (int)v) {
      to->at = AT_REG, to->form = WHOLE, to->index = i;
      return true;
    }
  if (x->kind == TERN_V_CONST || x->kind == TERN_V_PARAM) return read_cell(m, x, to);
  return (x->kind == TERN_V_IN || x->kind == TERN_V_OUT) && x->rank == 2 && read_mem(m, x, to);
}

/* Frees the registers of values that nobody reads after this node; item: only those of this item size, 0: all. The
   node's own result is not read before it exists */
static void free_regs(struct maker *m, uint32_t node, size_t item) {
  for (uint32_t i = 0; i < REGS; i++) {
    if (m->reg[i] < 0) continue;
    const uint32_t v = (uint32_t)m->reg[i];
    if (v == nest_out(m->r, node) || last_use(m->r, v) > (int)node) continue;
    if (item == 0 || cpu_item_size(m->r->values[v].dtype) == item) m->reg[i] = -1;
  }
}

/* A result that is the tile's shape; a register if it is a TEMP */
static bool aim(struct maker *m, uint32_t v, struct ref *to) {
  const tern_value *const x = &m->r->values[v];
  to->item = (uint8_t)cpu_item_size(x->dtype);
  if (x->rank != 2) return false;
  for (uint32_t d = 0; d < 2; d++)
    if (x->shape[d] == 1 && m->s->size[d] != 1) return false;
  return x->kind == TERN_V_OUT ? read_mem(m, x, to) : take_reg(m, v, to);
}

/* In place is for this way only if nobody reads the donor after it was overwritten */
static bool donors_safe(const struct maker *m) {
  const tern_region *const r = m->r;
  for (uint32_t i = 0; i < r->n_nodes; i++) {
    const tern_value *const o = &r->values[nest_out(r, i)];
    if (o->kind != TERN_V_OUT || o->alias < 0 || o->alias == m->s->home) continue;
    for (uint32_t v = 0; v < r->n_values; v++) {
      const tern_value *const x = &r->values[v];
      if (x->kind == TERN_V_VIEW ||
          (x->kind == TERN_V_IN && x->slot == (uint32_t)o->alias && (last_use(r, v) > (int)i || x->dtype != o->dtype)))
        return false;
    }
  }
  return true;
}

static bool make_step(struct maker *m, uint32_t node) {
  const tern_region *const r = m->r;
  const tern_node *const n = &r->nodes[node];
  struct step *const st = &m->d->step[m->d->n_steps];
  uint32_t splat = 0;
  if (n->op == TERN_OP_IOTA || n->op == TERN_OP_RNG || n->n_in == 0 || m->d->n_steps == STEPS) return false;
  st->n_in = (uint8_t)n->n_in;
  for (uint32_t i = 0; i < n->n_in; i++) {
    if (!read_operand(m, nest_in(r, node, i), &st->in[i])) return false;
    splat |= (uint32_t)(st->in[i].form == ONE || st->in[i].form == COLUMN) << i;
    st->by_rows |= st->in[i].form == ROW || st->in[i].form == COLUMN;
  }
  for (uint32_t i = n->n_in; i < 3; i++) st->in[i] = st->in[0];
  const size_t item = cpu_item_size(r->values[nest_out(r, node)].dtype);
  free_regs(m, node, item); /* operands that end here: their registers may take the result, element for element */
  if (!aim(m, nest_out(r, node), &st->out)) return false;
  free_regs(m, node, 0);
  const uint32_t in_dtype = r->values[nest_in(r, node, n->op == TERN_OP_WHERE)].dtype;
  st->fn = cpu_map(n->op, in_dtype, r->values[nest_out(r, node)].dtype, splat);
  m->d->n_steps++;
  return st->fn && splat + 1 != 1u << n->n_in;
}

static bool make(struct maker *m) {
  const struct fuse_split *const s = m->s;
  const tern_region *const main = &s->main.region;
  const tern_value *const a = &main->values[0], *const b = &main->values[1];
  const struct fuse_mem *const am = &s->main.mem[0], *const bm = &s->main.mem[1];
  struct fuse_direct *const d = m->d;
  if (s->op != TERN_OP_DOT || s->rank != 2 || s->dtype != a->dtype || (s->dtype != TERN_F32 && s->dtype != TERN_F64))
    return false;
  if (b->stride[1] != 1 && b->shape[1] != 1) return false;
  d->dtype = s->dtype;
  d->m = s->size[0], d->n = s->size[1], d->k = a->shape[1];
  d->a = (struct mem){am->slot, am->item, am->offset, a->stride[0]};
  d->a_col = a->stride[1];
  d->b = (struct mem){bm->slot, bm->item, bm->offset, b->stride[0]};
  const uint32_t result = s->renamed[s->result];
  if (s->result_is_out ? !read_mem(m, &m->r->values[result], &d->result) : !take_reg(m, result, &d->result))
    return false;
  d->result.item = (uint8_t)cpu_item_size(s->dtype);
  for (uint32_t i = 0; i < m->r->n_nodes; i++)
    if (!make_step(m, i)) return false;
  d->n_mem = s->map.region.n_args;
  return donors_safe(m);
}

struct fuse_direct *fuse_direct_new(const struct fuse_split *s) {
  struct maker m = {.s = s, .r = &s->map.region};
  for (int i = 0; i < REGS; i++) m.reg[i] = -1;
  m.d = calloc(1, sizeof *m.d);
  if (m.d && !make(&m)) {
    free(m.d);
    return NULL;
  }
  return m.d;
}

void fuse_direct_free(struct fuse_direct *d) { free(d); }

/* ---- running ---- */

struct place { /* of an operand: its address and the bytes from row to row */
  char *p;
  int64_t row;
};

struct frame {
  const struct fuse_direct *d;
  const tern_launch *l;
  int64_t m, n;
  char *regs;
  const uint64_t *cells;
};

static inline char *address(const struct mem *x, const tern_launch *l) {
  return cpu_arg(l, (uint32_t)x->slot) + TERN_LIT(x->offset, l->words) * x->item;
}

static inline struct place find(const struct frame *f, const struct ref *r) {
  if (r->at == AT_REG) return (struct place){f->regs + (int64_t)r->index * f->m * f->n * 8, f->n * r->item};
  if (r->at == AT_CELL) return (struct place){(char *)(uintptr_t)&f->cells[r->index], 0};
  const struct mem *const x = &f->d->mem[r->index];
  return (struct place){address(x, f->l), TERN_LIT(x->row, f->l->words) * x->item};
}

static inline void run_step(const struct frame *f, const struct step *s) {
  const struct place o = find(f, &s->out), a = find(f, &s->in[0]);
  const struct place b = s->n_in > 1 ? find(f, &s->in[1]) : a, c = s->n_in > 2 ? find(f, &s->in[2]) : a;
  bool by_rows = s->by_rows || o.row != f->n * s->out.item;
  by_rows |= s->in[0].form == WHOLE && a.row != f->n * s->in[0].item;
  by_rows |= s->in[1].form == WHOLE && b.row != f->n * s->in[1].item;
  by_rows |= s->in[2].form == WHOLE && c.row != f->n * s->in[2].item;
  if (!by_rows || f->m == 1) {
    s->fn(o.p, a.p, b.p, c.p, f->m * f->n);
    return;
  }
  for (int64_t i = 0; i < f->m; i++) s->fn(o.p + i * o.row, a.p + i * a.row, b.p + i * b.row, c.p + i * c.row, f->n);
}

bool fuse_direct_run(const struct fuse_direct *d, const tern_launch *l) {
  const tern_word *const w = l->words;
  const int64_t m = TERN_LIT(d->m, w), n = TERN_LIT(d->n, w), k = TERN_LIT(d->k, w);
  if (m > 64 || n > 256 || k > 256 || m * n * k > MACS || m * n * 8 * d->n_regs > BYTES) return false;
  _Alignas(64) char regs[BYTES];
  uint64_t cells[CELLS];
  for (uint32_t i = 0; i < d->n_cells; i++)
    if (d->cell[i].word < 0)
      cells[i] = d->cell[i].bits;
    else
      cpu_word_store(&cells[i], d->cell[i].dtype, w[d->cell[i].word]);
  const struct frame f = {d, l, m, n, regs, cells};
  const struct place o = find(&f, &d->result);
  const char *const a = address(&d->a, l), *const b = address(&d->b, l);
  const int64_t am = TERN_LIT(d->a.row, w), ak = TERN_LIT(d->a_col, w), bk = TERN_LIT(d->b.row, w);
  if (d->dtype == TERN_F32)
    dot_block_f32(m, n, k, (const float *)(const void *)a, am, ak, (const float *)(const void *)b, bk,
                  (float *)(void *)o.p, o.row / 4, false);
  else
    dot_block_f64(m, n, k, (const double *)(const void *)a, am, ak, (const double *)(const void *)b, bk,
                  (double *)(void *)o.p, o.row / 8, false);
  for (uint32_t i = 0; i < d->n_steps; i++) run_step(&f, &d->step[i]);
  return true;
}
