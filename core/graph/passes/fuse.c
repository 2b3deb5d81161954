/* Which ops share a kernel. First each DOT or CONV takes the maps that follow it, element by element; then, from the
   last op to the first, maps and reductions take the producers that fit into their loop nest. A group has one
   component: an index space of up to eight positions, into which every member's dimensions are mapped; an operand is
   bound to its producer when both see each element at the same index. At most one set of positions is reduced. Last,
   updates of one kind (a whole optimiser step) become siblings: several components, one launch. */
#include "base/alloc.h"
#include "device/device.h"
#include "graph/passes/fuse.h"
#include "tensor/dtype.h"
#include <stdlib.h>

enum { NONE = 255, MAX_PRIMS = 200, MAX_OPS = 96, MAX_ARGS = 48, CACHED = 512 << 10 /* bytes */ };

typedef tern__fuser fuser;

/* ---- dependence ---- */

static void push_deps(fuser *f, uint32_t x, uint32_t *top) {
  const tern__lop *op = &f->u->op[x];
  for (uint32_t d = 0; d < op->n_deps; d++) {
    if (f->mark[op->dep[d]] == f->stamp) continue;
    f->mark[op->dep[d]] = f->stamp;
    f->stack[(*top)++] = op->dep[d];
  }
}

bool tern__fuse_needs(fuser *f, uint32_t y, uint32_t target, uint32_t group) {
  tern__unit *u = f->u;
  uint32_t top = 0;
  if (f->mark[y] == f->stamp) return false;
  f->mark[y] = f->stamp;
  f->stack[top++] = y;
  while (top) {
    const uint32_t now = f->stack[--top];
    if (now == target) return true;
    uint32_t k = u->op[now].group;
    if (k == TERN__NO) {
      push_deps(f, now, &top);
      continue;
    }
    for (k = u->group[k].head; k != TERN__NO; k = u->group[k].sibling) { /* one launch: all of it waits for all */
      if (k == group) return true;
      for (uint32_t i = 0; i < u->group[k].n_ops; i++) {
        const uint32_t op = u->group[k].op[i];
        if (op == target) return true;
        f->mark[op] = f->stamp;
        push_deps(f, op, &top);
      }
    }
  }
  return false;
}

/* Whether what is launched with group a needs anything that is launched with group b. */
static bool needs_group(fuser *f, uint32_t a, uint32_t b) {
  tern__unit *u = f->u;
  b = u->group[b].head;
  for (uint32_t k = u->group[a].head; k != TERN__NO; k = u->group[k].sibling)
    for (uint32_t i = 0; i < u->group[k].n_ops; i++) {
      const tern__lop *op = &u->op[u->group[k].op[i]];
      for (uint32_t d = 0; d < op->n_deps; d++) {
        const uint32_t of = u->op[op->dep[d]].group;
        if (of != TERN__NO && u->group[of].head == u->group[a].head) continue;
        if (tern__fuse_needs(f, op->dep[d], TERN__NO, b)) return true;
      }
    }
  return false;
}

/* Whether some op outside of the group stands between producer x and the group. */
static bool between_back(fuser *f, uint32_t group, uint32_t x) {
  const tern__unit *u = f->u;
  const tern__lgroup *g = &u->group[group];
  f->stamp++;
  for (uint32_t i = 0; i < g->n_ops; i++)
    for (uint32_t d = 0; d < u->op[g->op[i]].n_deps; d++) {
      const uint32_t y = u->op[g->op[i]].dep[d];
      if (y == x || u->op[y].group == group) continue;
      if (tern__fuse_needs(f, y, x, TERN__NO)) return true;
    }
  return false;
}

/* Whether some op outside of the group stands between it and consumer x. */
static bool between_forward(fuser *f, uint32_t group, uint32_t x) {
  const tern__unit *u = f->u;
  f->stamp++;
  for (uint32_t d = 0; d < u->op[x].n_deps; d++) {
    const uint32_t y = u->op[x].dep[d];
    if (u->op[y].group != group && tern__fuse_needs(f, y, TERN__NO, group)) return true;
  }
  return false;
}

/* ---- index spaces ---- */

static const tern__operand *made_operand(const tern__unit *u, const tern__lop *p, uint32_t buffer) {
  for (uint32_t o = 0; o < p->n_out; o++)
    if (p->out[o] == buffer) return &p->q->arg[p->q->n_in + o];
  (void)u;
  return NULL;
}

/* How c's operand i sees what p makes: to[d] = c's dimension for p's dimension d (NONE: size 1, or not in the result).
   False when the elements do not lie on each other one to one. */
static bool aligned(const tern__unit *u, const tern__lop *p, const tern__lop *c, int i, uint8_t *to) {
  const tern__operand *made = made_operand(u, p, c->in[i]), *read = &c->q->arg[i];
  if (!made || read->offset || read->dtype != made->dtype) return false;
  memset(to, NONE, TERN__MAX_SIZES);
  int matched = 0, wanted = 0;
  for (int e = 0; e < read->rank; e++) wanted += read->dim[e] != TERN__ONE && c->q->size[read->dim[e]] > 1;
  for (int d = 0; d < made->rank; d++) {
    if (made->dim[d] == TERN__ONE || p->q->size[made->dim[d]] == 1) continue;
    int found = -1;
    for (int e = 0; e < read->rank && found < 0; e++)
      if (read->dim[e] != TERN__ONE && read->stride[e] == made->stride[d] &&
          c->q->size[read->dim[e]] == p->q->size[made->dim[d]])
        found = e;
    if (found < 0 || read->dim[found] >= c->q->n_space) return false;
    to[made->dim[d]] = read->dim[found];
    matched++;
  }
  return matched == wanted;
}

static uint32_t reduced_of(const tern__lop *op, const uint8_t *position) {
  uint32_t mask = 0;
  for (int d = 0; d < op->q->n_space; d++)
    if (op->q->role[d] == TERN__ROLE_REDUCED && position[d] != NONE) mask |= 1u << position[d];
  return mask;
}

/* Can take part in a nest: its reduced and its fixed dimensions have more than one element. */
static bool nestable(const tern__lop *op) {
  if (op->kind != TERN__L_MAP && op->kind != TERN__L_ROW) return false;
  bool reduced = false, real = false;
  for (int d = 0; d < op->q->n_space; d++) {
    if (op->q->role[d] == TERN__ROLE_FIXED && op->q->size[d] == 1) return false;
    if (op->q->role[d] != TERN__ROLE_REDUCED) continue;
    reduced = true;
    real |= op->q->size[d] > 1;
  }
  return op->q->n_sizes == op->q->n_space && (!reduced || real);
}

/* ---- groups ---- */

static uint32_t new_group(tern__unit *u, uint32_t first) {
  if (u->n_groups == u->group_capacity) {
    const uint32_t capacity = u->group_capacity ? 2 * u->group_capacity : 64;
    tern__lgroup *group = tern__realloc(u->group, capacity * sizeof *group);
    if (!group) return TERN__NO;
    u->group = group;
    u->group_capacity = capacity;
  }
  tern__lop *op = &u->op[first];
  tern__lgroup *g = &u->group[u->n_groups];
  *g = (tern__lgroup){
      .kind = op->kind, .sibling = TERN__NO, .head = u->n_groups, .device = op->device, .prims = op->prims};
  g->op = tern__calloc(4, sizeof *g->op);
  if (!g->op) return TERN__NO;
  g->capacity = 4;
  g->op[g->n_ops++] = first;
  op->group = u->n_groups;
  return u->n_groups++;
}

static bool append_op(tern__unit *u, uint32_t group, uint32_t x) {
  tern__lgroup *g = &u->group[group];
  if (g->n_ops == g->capacity) {
    uint32_t *op = tern__realloc(g->op, 2 * g->capacity * sizeof *op);
    if (!op) return false;
    g->op = op;
    g->capacity *= 2;
  }
  g->op[g->n_ops++] = x;
  g->prims += u->op[x].prims;
  u->op[x].group = group;
  if (u->op[x].kind == TERN__L_ROW && g->kind == TERN__L_MAP) g->kind = TERN__L_ROW;
  return true;
}

/* The first member spans the component. Anchors keep all of their result's dimensions. */
static void open_space(tern__unit *u, uint32_t group) {
  tern__lgroup *g = &u->group[group];
  tern__lop *op = &u->op[g->op[0]];
  memset(op->position, NONE, sizeof op->position);
  if (g->anchored) {
    const tern__operand *out = &op->q->arg[op->q->n_in];
    g->rank = out->rank;
    for (int d = 0; d < out->rank; d++) {
      if (out->dim[d] == TERN__ONE) {
        g->size[d] = 1;
        continue;
      }
      op->position[out->dim[d]] = (uint8_t)d;
      g->size[d] = op->q->size[out->dim[d]];
    }
    return;
  }
  for (int d = 0; d < op->q->n_space; d++) {
    if (op->q->size[d] == 1) continue;
    op->position[d] = g->rank;
    g->size[g->rank++] = op->q->size[d];
  }
  g->reduced = reduced_of(op, op->position);
}

static void insert_position(tern__unit *u, tern__lgroup *g, int at, int64_t size, uint8_t *also) {
  for (int p = g->rank; p > at; p--) g->size[p] = g->size[p - 1];
  g->size[at] = size;
  g->rank++;
  for (uint32_t i = 0; i < g->n_ops; i++)
    for (int d = 0; d < TERN__MAX_SIZES; d++) {
      uint8_t *p = &u->op[g->op[i]].position[d];
      if (*p != NONE && *p >= at) ++*p;
    }
  for (int d = 0; d < TERN__MAX_SIZES; d++)
    if (also[d] != NONE && also[d] >= at) also[d]++;
  const uint32_t low = g->reduced & ((1u << at) - 1);
  g->reduced = low | (g->reduced & ~((1u << at) - 1)) << 1;
}

/* How many arguments the group has with x in it: an estimate from above. */
static uint32_t arguments(const tern__unit *u, const tern__lgroup *g, const tern__lop *x) {
  uint32_t n = x->n_in + x->n_out;
  for (uint32_t i = 0; i < g->n_ops; i++) {
    const tern__lop *op = &u->op[g->op[i]];
    for (uint32_t k = 0; k < op->n_in; k++)
      n += op->in[k] != TERN__NO &&
           (u->buffer[op->in[k]].maker == TERN__NO || u->op[u->buffer[op->in[k]].maker].group != op->group);
    n += op->n_out;
  }
  return n;
}

static bool room(const tern__unit *u, const tern__lgroup *g, const tern__lop *x) {
  const uint32_t max_args = g->device->info.max_args, max_nodes = g->device->info.max_nodes;
  const uint32_t args = max_args && max_args < MAX_ARGS ? max_args : MAX_ARGS;
  const uint32_t prims = max_nodes && max_nodes < MAX_PRIMS ? max_nodes : MAX_PRIMS;
  return g->n_ops < MAX_OPS && g->prims + x->prims <= prims && arguments(u, g, x) <= args;
}

/* Arrays of `numel` elements that an op of group reads from outside of it, and those that it is known to write: they
   are results, or share memory with something else. */
static uint32_t large_arrays(const tern__unit *u, uint32_t group, const tern__lop *op, int64_t numel) {
  uint32_t n = 0;
  for (uint32_t k = 0; k < op->n_in; k++) {
    const tern__lbuffer *b = op->in[k] == TERN__NO ? NULL : &u->buffer[op->in[k]];
    n += b && b->numel == numel && (b->maker == TERN__NO || u->op[b->maker].group != group);
  }
  for (uint32_t k = 0; k < op->n_out; k++) {
    const tern__lbuffer *b = &u->buffer[op->out[k]];
    n += b->numel == numel && (b->wanted || b->same != TERN__NO);
  }
  return n;
}

/* Whether the maps behind an anchor, with x, touch no more than the device likes in one launch. */
static bool light(const tern__unit *u, uint32_t group, const tern__lop *x) {
  const tern__lgroup *g = &u->group[group];
  if (!g->device->info.max_epilogue) return true;
  const int64_t numel = u->buffer[u->op[g->op[0]].out[0]].numel;
  uint32_t n = large_arrays(u, group, x, numel);
  for (uint32_t i = 1; i < g->n_ops; i++) n += large_arrays(u, group, &u->op[g->op[i]], numel);
  return n <= g->device->info.max_epilogue;
}

static bool writes_part(const tern__unit *u, const tern__lop *op) {
  for (uint32_t o = 0; o < op->n_out; o++)
    if (u->buffer[op->out[o]].written_part) return true;
  return false;
}

/* Where the producer's dimensions go; false when some member sees its result another way. */
static bool positions_of(const tern__unit *u, const tern__lgroup *g, const tern__lop *p, uint8_t *position) {
  bool bound = false;
  memset(position, NONE, TERN__MAX_SIZES);
  for (uint32_t m = 0; m < g->n_ops; m++) {
    const tern__lop *c = &u->op[g->op[m]];
    for (uint32_t i = 0; i < c->n_in; i++) {
      if (c->in[i] == TERN__NO || !made_operand(u, p, c->in[i])) continue;
      uint8_t to[TERN__MAX_SIZES];
      if (!aligned(u, p, c, (int)i, to)) return false;
      for (int d = 0; d < TERN__MAX_SIZES; d++) {
        if (to[d] == NONE) continue;
        const uint8_t at = c->position[to[d]];
        if (at == NONE || (position[d] != NONE && position[d] != at)) return false;
        position[d] = at;
      }
      bound = true;
    }
  }
  uint32_t taken = 0;
  for (int d = 0; d < TERN__MAX_SIZES; d++) {
    if (position[d] == NONE) continue;
    if (taken >> position[d] & 1) return false;
    taken |= 1u << position[d];
  }
  return bound;
}

/* Dimensions that the producer reduces: positions of that size that it does not use, else new ones. */
static bool place_reduced(tern__unit *u, tern__lgroup *g, const tern__lop *p, uint8_t *position) {
  for (int d = 0; d < p->q->n_space; d++) {
    if (position[d] != NONE || p->q->size[d] == 1) continue;
    if (p->q->role[d] != TERN__ROLE_REDUCED) return false;
    uint32_t taken = 0;
    int at = -1, after = 0;
    for (int k = 0; k < TERN__MAX_SIZES; k++)
      if (position[k] != NONE) taken |= 1u << position[k];
    for (int k = 0; k < d; k++)
      if (position[k] != NONE && position[k] + 1 > after) after = position[k] + 1;
    for (int s = g->rank - 1; s >= 0 && at < 0; s--)
      if (!(taken >> s & 1) && g->size[s] == p->q->size[d] && (!g->reduced || g->reduced >> s & 1)) at = s;
    if (at < 0) {
      if (g->rank == TERN_MAX_RANK) return false;
      insert_position(u, g, at = after, p->q->size[d], position);
    }
    position[d] = (uint8_t)at;
  }
  return true;
}

/* A fill of more than one element reads nothing: its value in a region is a constant, which a reduction would count
   once. */
static bool reads_nothing(const tern__lop *op) {
  bool more = false;
  for (int d = 0; d < op->q->n_space; d++) more = more || op->q->size[d] > 1;
  if (!more) return false;
  for (int i = 0; i < op->q->n_in; i++)
    if (op->q->arg[i].kind == TERN_V_IN) return false;
  return op->q->op->prim == TERN_OP_COPY;
}

/* A value that is computed again late must not take along an early op that others read: it would come early too. */
static bool draws_forward(const fuser *f, const tern__lgroup *g, const tern__lop *p) {
  const tern__unit *u = f->u;
  bool again = false;
  for (uint32_t i = 0; i < g->n_ops; i++) again |= u->op[g->op[i]].again;
  if (!again || p->again) return false;
  for (uint32_t o = 0; o < p->n_out; o++) {
    const uint32_t b = p->out[o];
    if (u->buffer[b].wanted) return true;
    for (uint32_t k = f->first_reader[b]; k < f->first_reader[b + 1]; k++)
      if (u->op[f->readers[k]].group != u->op[g->op[0]].group) return true;
  }
  return false;
}

static bool is_update(const tern__lop *op) { return op->q && op->q->op->number >= 900 && op->q->op->number < 910; }

/* A reduction of an array that fills a cache comes right behind what makes the array: drawn into an update, which is
   launched with those of other variables, it would hold the array for long, and find it in memory. */
static bool waits_long(const tern__unit *u, const tern__lgroup *g, const tern__lop *p) {
  if (p->kind != TERN__L_ROW) return false;
  uint64_t bytes = 0;
  for (uint32_t k = 0; k < p->n_in; k++)
    if (p->in[k] != TERN__NO && u->buffer[p->in[k]].bytes > bytes) bytes = u->buffer[p->in[k]].bytes;
  bool update = false;
  for (uint32_t i = 0; bytes > CACHED && i < g->n_ops && !update; i++) update = is_update(&u->op[g->op[i]]);
  return update;
}

/* Producer x joins the nest. */
static bool join_back(fuser *f, uint32_t group, uint32_t x) {
  tern__unit *u = f->u;
  tern__lgroup *g = &u->group[group];
  tern__lop *p = &u->op[x];
  if (p->group != TERN__NO || p->device != g->device || p->pin != u->op[g->op[0]].pin || !nestable(p) ||
      writes_part(u, p) || reads_nothing(p) || !room(u, g, p) || waits_long(u, g, p))
    return false;
  uint8_t position[TERN__MAX_SIZES];
  if (!positions_of(u, g, p, position)) return false;
  if (p->kind == TERN__L_ROW && g->reduced) { /* must reduce just what the group reduces */
    uint32_t outer = 0;
    for (int d = 0; d < p->q->n_space; d++)
      if (position[d] != NONE) outer |= 1u << position[d];
    if (outer & g->reduced) return false;
  }
  if (draws_forward(f, g, p) || between_back(f, group, x)) return false;
  const tern__lgroup before = *g;
  uint8_t saved[MAX_OPS][TERN__MAX_SIZES];
  for (uint32_t i = 0; i < g->n_ops; i++) memcpy(saved[i], u->op[g->op[i]].position, sizeof saved[i]);
  if (place_reduced(u, g, p, position)) {
    const uint32_t mask = reduced_of(p, position);
    if (!g->reduced || !mask || mask == g->reduced) {
      memcpy(p->position, position, sizeof position);
      g->reduced |= mask;
      return append_op(u, group, x);
    }
  }
  *g = before;
  for (uint32_t i = 0; i < g->n_ops; i++) memcpy(u->op[g->op[i]].position, saved[i], sizeof saved[i]);
  return false;
}

/* Where the dimensions of consumer c go, by what it reads of the group; the rest, of size 1, go to free positions of
   size 1. False when they are not just the anchor's. A CONV's result may have its channels last: then they are
   permuted. */
static bool anchor_positions(const tern__unit *u, uint32_t group, const tern__lop *c, uint8_t *position) {
  const tern__lgroup *g = &u->group[group];
  uint32_t taken = 0;
  memset(position, NONE, TERN__MAX_SIZES);
  for (uint32_t i = 0; i < c->n_in; i++) {
    if (c->in[i] == TERN__NO || u->buffer[c->in[i]].maker == TERN__NO) continue;
    const tern__lop *p = &u->op[u->buffer[c->in[i]].maker];
    if (p->group != group) continue;
    uint8_t to[TERN__MAX_SIZES];
    if (!aligned(u, p, c, (int)i, to)) return false;
    for (int d = 0; d < TERN__MAX_SIZES; d++) {
      if (to[d] == NONE) continue;
      const uint8_t at = p->position[d];
      if (at == NONE || (position[to[d]] != NONE && position[to[d]] != at)) return false;
      if (position[to[d]] == NONE && taken >> at & 1) return false;
      position[to[d]] = at;
      taken |= 1u << at;
    }
  }
  for (int d = 0; d < g->rank; d++) {
    if (position[d] == NONE && !(taken >> d & 1) && g->size[d] == 1) position[d] = (uint8_t)d;
    for (int p = 0; p < g->rank && position[d] == NONE; p++)
      if (!(taken >> p & 1) && g->size[p] == 1) position[d] = (uint8_t)p;
    if (position[d] == NONE || c->q->size[d] != g->size[position[d]]) return false;
    taken |= 1u << position[d];
  }
  return true;
}

/* Consumer x, a map over just the anchor's result, joins it. */
static bool join_anchor(fuser *f, uint32_t group, uint32_t x) {
  tern__unit *u = f->u;
  tern__lgroup *g = &u->group[group];
  tern__lop *c = &u->op[x];
  uint8_t position[TERN__MAX_SIZES];
  if (c->group != TERN__NO || c->device != g->device || c->pin != u->op[g->op[0]].pin || c->kind != TERN__L_MAP ||
      c->fixed || writes_part(u, c) || c->q->n_sizes != c->q->n_space || c->q->n_space != g->rank || !room(u, g, c) ||
      (c->again && !u->op[g->op[0]].again) || !light(u, group, c) || !anchor_positions(u, group, c, position) ||
      between_forward(f, group, x))
    return false;
  memcpy(c->position, position, sizeof position);
  return append_op(u, group, x);
}

/* Where the dimensions of c go that reads, as its operand k, the same elements as member m's operand i; false when they
   are not just the group's. */
static bool beside_positions(const tern__lgroup *g, const tern__lop *m, uint32_t i, const tern__lop *c, uint32_t k,
                             uint8_t *position) {
  const tern__operand *a = &m->q->arg[i], *b = &c->q->arg[k];
  uint32_t taken = 0;
  memset(position, NONE, TERN__MAX_SIZES);
  if (a->offset != b->offset || a->dtype != b->dtype) return false;
  for (int e = 0; e < b->rank; e++) {
    if (b->dim[e] == TERN__ONE || c->q->size[b->dim[e]] == 1) continue;
    uint8_t at = NONE;
    for (int d = 0; d < a->rank && at == NONE; d++)
      if (a->dim[d] != TERN__ONE && a->stride[d] == b->stride[e] && m->q->size[a->dim[d]] == c->q->size[b->dim[e]])
        at = m->position[a->dim[d]];
    if (at == NONE || taken >> at & 1) return false;
    position[b->dim[e]] = at;
    taken |= 1u << at;
  }
  for (int d = 0; d < g->rank; d++) {
    for (int p = 0; p < g->rank && position[d] == NONE; p++)
      if (!(taken >> p & 1) && g->size[p] == 1) position[d] = (uint8_t)p;
    if (position[d] == NONE || c->q->size[d] != g->size[position[d]]) return false;
    taken |= 1u << position[d];
  }
  return true;
}

/* Map x, which computes something again out of an operand of member m, joins m's group: the operand is at hand there.
   Only where m is the operand's last reader of those that do not compute again, so that it comes late enough. */
static bool join_beside(fuser *f, uint32_t group, uint32_t m, uint32_t i, uint32_t x) {
  tern__unit *u = f->u;
  tern__lgroup *g = &u->group[group];
  tern__lop *c = &u->op[x];
  const uint32_t b = u->op[m].in[i];
  uint8_t position[TERN__MAX_SIZES];
  if (!c->again || u->op[m].again || c->group != TERN__NO || c->device != g->device || c->pin != u->op[g->op[0]].pin ||
      c->kind != TERN__L_MAP || c->fixed || x < g->op[0] || writes_part(u, c) || c->q->n_sizes != c->q->n_space ||
      c->q->n_space != g->rank || !room(u, g, c) || !light(u, group, c))
    return false;
  for (uint32_t k = f->first_reader[b]; k < f->first_reader[b + 1]; k++)
    if (f->readers[k] > m && !u->op[f->readers[k]].again) return false;
  uint32_t k = 0;
  while (c->in[k] != b) k++;
  if (!beside_positions(g, &u->op[m], i, c, k, position) || between_forward(f, group, x) || between_back(f, group, x))
    return false;
  memcpy(c->position, position, sizeof position);
  return append_op(u, group, x);
}

static void grow_beside(fuser *f, uint32_t group) {
  tern__unit *u = f->u;
  for (uint32_t at = 1; at < u->group[group].n_ops; at++) {
    const uint32_t m = u->group[group].op[at];
    for (uint32_t i = 0; i < u->op[m].n_in; i++) {
      const uint32_t b = u->op[m].in[i];
      if (b == TERN__NO || u->buffer[b].maker == TERN__NO || u->op[u->buffer[b].maker].group == group) continue;
      for (uint32_t k = f->first_reader[b]; k < f->first_reader[b + 1]; k++) join_beside(f, group, m, i, f->readers[k]);
    }
  }
}

static void grow_anchor(fuser *f, uint32_t group) {
  tern__unit *u = f->u;
  for (uint32_t m = 0; m < u->group[group].n_ops; m++) {
    const tern__lop *op = &u->op[u->group[group].op[m]];
    for (uint32_t o = 0; o < op->n_out; o++) {
      const uint32_t b = op->out[o];
      for (uint32_t k = f->first_reader[b]; k < f->first_reader[b + 1]; k++)
        if (join_anchor(f, group, f->readers[k])) m = (uint32_t)-1; /* from the start: operands may have come */
      if (m == (uint32_t)-1) break;
    }
  }
}

static void grow_nest(fuser *f, uint32_t group) {
  tern__unit *u = f->u;
  bool grown = true;
  while (grown) {
    grown = false;
    for (uint32_t m = 0; m < u->group[group].n_ops; m++) {
      const tern__lop *c = &u->op[u->group[group].op[m]];
      for (uint32_t i = 0; i < c->n_in; i++) {
        const uint32_t maker = c->in[i] == TERN__NO ? TERN__NO : u->buffer[c->in[i]].maker;
        if (maker != TERN__NO && u->op[maker].group == TERN__NO) grown |= join_back(f, group, maker);
        c = &u->op[u->group[group].op[m]];
      }
    }
  }
}

/* ---- siblings ---- */

/* The update of an optimiser in a nest; NULL: there is none. */
static const tern__request *update_in(const tern__unit *u, const tern__lgroup *g) {
  for (uint32_t i = 0; i < g->n_ops && !g->dead && !g->anchored; i++)
    if (is_update(&u->op[g->op[i]])) return u->op[g->op[i]].q;
  return NULL;
}

static bool same_update(const tern__unit *u, const tern__lgroup *a, const tern__lgroup *b) {
  const tern__request *p = update_in(u, a), *q = update_in(u, b);
  return p && q && p->op == q->op && p->dtype == q->dtype && a->device == b->device &&
         u->op[a->op[0]].pin == u->op[b->op[0]].pin;
}

static uint32_t operands_of(const tern__unit *u, const tern__lgroup *g) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < g->n_ops; i++) n += u->op[g->op[i]].n_in + u->op[g->op[i]].n_out;
  return n;
}

/* Whether group b neither needs nor is needed by any sibling of `head`. */
static bool apart(fuser *f, uint32_t head, uint32_t b) {
  f->stamp++;
  if (needs_group(f, b, head)) return false;
  f->stamp++;
  return !needs_group(f, head, b);
}

static void make_siblings(fuser *f) {
  enum { FIRST_SIZES = 8, MOST_SIZES = 500, MOST_ARGS = 512, MOST_NODES = 480 };
  tern__unit *u = f->u;
  for (uint32_t a = 0; a < u->n_groups; a++) {
    const tern__lgroup *head = &u->group[a];
    if (!update_in(u, head)) continue;
    const uint32_t max_args = head->device->info.max_args ? head->device->info.max_args : MOST_ARGS;
    const uint32_t max_nodes = head->device->info.max_nodes ? head->device->info.max_nodes : MOST_NODES;
    uint32_t args = operands_of(u, head), prims = head->prims, last = a, sizes = FIRST_SIZES;
    for (uint32_t b = a + 1; b < u->n_groups; b++) {
      tern__lgroup *g = &u->group[b];
      if (!same_update(u, head, g)) continue;
      const uint32_t more = operands_of(u, g);
      if (args + more > max_args || prims + g->prims > max_nodes || sizes + FIRST_SIZES > MOST_SIZES) break;
      if (!apart(f, a, b)) continue;
      args += more;
      prims += g->prims;
      sizes += FIRST_SIZES;
      u->group[last].sibling = b;
      g->dead = true;
      g->head = a;
      last = b;
    }
  }
}

/* ---- the pass ---- */

static int ascending(const void *a, const void *b) {
  const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

static bool prepare(fuser *f) {
  tern__unit *u = f->u;
  uint32_t total = 0;
  for (uint32_t i = 0; i < u->n_ops; i++) total += u->op[i].n_in;
  f->first_reader = tern__unit_alloc(u, u->n_buffers + 2, sizeof *f->first_reader);
  f->readers = tern__unit_alloc(u, total + 1, sizeof *f->readers);
  f->mark = tern__unit_alloc(u, u->n_ops + 1, sizeof *f->mark);
  f->stack = tern__unit_alloc(u, u->n_ops + 1, sizeof *f->stack);
  if (!f->first_reader || !f->readers || !f->mark || !f->stack) return false;
  for (uint32_t i = 0; i < u->n_ops; i++)
    for (uint32_t k = 0; k < u->op[i].n_in; k++)
      if (u->op[i].in[k] != TERN__NO) f->first_reader[u->op[i].in[k] + 2]++;
  for (uint32_t b = 0; b < u->n_buffers; b++) f->first_reader[b + 2] += f->first_reader[b + 1];
  for (uint32_t i = 0; i < u->n_ops; i++)
    for (uint32_t k = 0; k < u->op[i].n_in; k++)
      if (u->op[i].in[k] != TERN__NO) f->readers[f->first_reader[u->op[i].in[k] + 1]++] = i;
  return true;
}

tern_rc tern__unit_fuse(tern__unit *u) {
  fuser f = {.u = u};
  const bool on = !u->opts->no_fuse;
  if (!prepare(&f)) return tern__recorded();
  for (uint32_t i = 0; i < u->n_ops && on; i++) {
    if (u->op[i].q && u->op[i].q->op->prim == TERN_OP_CONV) u->op[i].kind = TERN__L_ANCHOR;
    if (u->op[i].kind != TERN__L_ANCHOR) continue;
    const uint32_t group = new_group(u, i);
    if (group == TERN__NO) return tern__fail(TERN_E_OOM, "graph: out of host memory to fuse");
    u->group[group].anchored = true;
    open_space(u, group);
    grow_anchor(&f, group);
    grow_beside(&f, group);
  }
  for (uint32_t i = u->n_ops; i-- > 0;) {
    if (u->op[i].group != TERN__NO) continue;
    const uint32_t group = new_group(u, i);
    if (group == TERN__NO) return tern__fail(TERN_E_OOM, "graph: out of host memory to fuse");
    if (!on || !nestable(&u->op[i])) continue;
    open_space(u, group);
    if (u->group[group].rank <= TERN_MAX_RANK) grow_nest(&f, group);
  }
  for (uint32_t k = 0; k < u->n_groups; k++) qsort(u->group[k].op, u->group[k].n_ops, sizeof(uint32_t), ascending);
  if (on) make_siblings(&f);
  if (on) tern__fuse_windows(&f);
  return TERN_OK;
}
