/* A pooling behind a convolution. Its nest sees the convolution's result through sliding windows, so the two have no
   index space in common and cannot be one component; but nobody else needs that result. They become two components of
   one launch, the second reading a view of what the first keeps inside: a device may then compute a part of the first
   and pool it while it is in the cache. A device that refuses such a region gets two launches (emit.c). */
#include "device/device.h"
#include "graph/passes/fuse.h"

enum { NONE = 255 };

typedef struct axis {
  int64_t size, memory, dense; /* elements; strides where it is stored and in the region */
  int64_t reach;               /* the furthest index that is read */
} axis;

/* The axes of the result, longest memory stride first; returns how many. */
static int axes_of(const tern__unit *u, const tern__lop *p, const tern__operand *made, axis *to) {
  const tern__lgroup *g = &u->group[p->group];
  int n = 0;
  for (int d = 0; d < made->rank; d++) {
    if (made->dim[d] == TERN__ONE || p->q->size[made->dim[d]] == 1) continue;
    const uint8_t at = p->position[made->dim[d]];
    if (at == NONE || at >= g->rank) return -1;
    axis x = {.size = p->q->size[made->dim[d]], .memory = made->stride[d], .dense = 1};
    for (int k = at + 1; k < g->rank; k++) x.dense *= g->size[k];
    int i = n++;
    for (; i > 0 && to[i - 1].memory < x.memory; i--) to[i] = to[i - 1];
    to[i] = x;
  }
  return n;
}

bool tern__window_of(const tern__unit *u, uint32_t maker, uint32_t buffer, const tern__request *q,
                     const tern__operand *read, int64_t *stride, int64_t *offset) {
  const tern__lop *p = &u->op[maker];
  const tern__operand *made = NULL;
  for (uint32_t o = 0; o < p->n_out; o++)
    if (p->out[o] == buffer) made = &p->q->arg[p->q->n_in + o];
  axis x[TERN_MAX_RANK];
  const int n = made && made->dtype == read->dtype && !made->offset ? axes_of(u, p, made, x) : -1;
  if (n < 0 || read->offset < 0) return false;
  int64_t rest = read->offset;
  *offset = 0;
  for (int i = 0; i < n; i++) {
    x[i].reach = rest / x[i].memory;
    *offset += x[i].reach * x[i].dense;
    rest -= x[i].reach * x[i].memory;
  }
  if (rest) return false;
  for (int e = 0; e < read->rank; e++) {
    stride[e] = 0;
    if (read->dim[e] == TERN__ONE || q->size[read->dim[e]] == 1 || read->stride[e] == 0) continue;
    int i = 0;
    while (i < n && (x[i].memory > read->stride[e] || read->stride[e] % x[i].memory)) i++;
    if (i == n) return false;
    const int64_t steps = read->stride[e] / x[i].memory;
    stride[e] = steps * x[i].dense;
    x[i].reach += steps * (q->size[read->dim[e]] - 1);
  }
  for (int i = 0; i < n; i++)
    if (x[i].reach >= x[i].size) return false;
  return true;
}

/* The one buffer that the anchored group hands on; NO: none or several, or somebody else wants it too. */
static uint32_t handed_on(const tern__fuser *f, uint32_t group, uint32_t *maker) {
  const tern__unit *u = f->u;
  uint32_t found = TERN__NO;
  for (uint32_t i = 0; i < u->group[group].n_ops; i++) {
    const tern__lop *op = &u->op[u->group[group].op[i]];
    for (uint32_t o = 0; o < op->n_out; o++) {
      const uint32_t b = op->out[o];
      uint32_t outside = 0;
      for (uint32_t k = f->first_reader[b]; k < f->first_reader[b + 1]; k++)
        outside += u->op[f->readers[k]].group != group;
      if (u->buffer[b].wanted || u->buffer[b].written_part || (outside && found != TERN__NO)) return TERN__NO;
      if (!outside) continue;
      found = b;
      *maker = u->group[group].op[i];
    }
  }
  return found;
}

/* The nest that alone reads the buffer, through windows; NO: there is none. */
static uint32_t pooling(const tern__fuser *f, uint32_t group, uint32_t maker, uint32_t buffer) {
  const tern__unit *u = f->u;
  uint32_t nest = TERN__NO;
  for (uint32_t k = f->first_reader[buffer]; k < f->first_reader[buffer + 1]; k++) {
    const tern__lop *op = &u->op[f->readers[k]];
    if (op->group == group) continue;
    if ((nest != TERN__NO && op->group != nest) || op->kind != TERN__L_ROW) return TERN__NO;
    nest = op->group;
    for (uint32_t i = 0; i < op->n_in; i++) {
      int64_t stride[TERN_MAX_RANK], offset;
      if (op->in[i] == buffer && !tern__window_of(u, maker, buffer, op->q, &op->q->arg[i], stride, &offset))
        return TERN__NO;
    }
  }
  return nest;
}

static bool may_follow(tern__fuser *f, uint32_t group, uint32_t nest) {
  const tern__unit *u = f->u;
  const tern__lgroup *a = &u->group[group], *b = &u->group[nest];
  if (b->anchored || b->dead || b->sibling != TERN__NO || b->device != a->device || !b->rank ||
      u->op[a->op[0]].pin != u->op[b->op[0]].pin || u->op[b->op[0]].again != u->op[a->op[0]].again)
    return false;
  f->stamp++;
  for (uint32_t i = 0; i < b->n_ops; i++)
    for (uint32_t d = 0; d < u->op[b->op[i]].n_deps; d++) {
      const uint32_t y = u->op[b->op[i]].dep[d];
      if (u->op[y].group != nest && u->op[y].group != group && tern__fuse_needs(f, y, TERN__NO, group)) return false;
    }
  return true;
}

void tern__fuse_windows(tern__fuser *f) {
  tern__unit *u = f->u;
  for (uint32_t a = 0; a < u->n_groups; a++) {
    tern__lgroup *g = &u->group[a];
    if (!g->anchored || g->sibling != TERN__NO || u->op[g->op[0]].q->op->prim != TERN_OP_CONV) continue;
    uint32_t maker = TERN__NO;
    const uint32_t buffer = handed_on(f, a, &maker);
    const uint32_t nest = buffer == TERN__NO ? TERN__NO : pooling(f, a, maker, buffer);
    if (nest == TERN__NO || !may_follow(f, a, nest)) continue;
    g->sibling = nest;
    u->group[nest].windowed = u->group[nest].dead = true;
    u->group[nest].head = a;
  }
}
