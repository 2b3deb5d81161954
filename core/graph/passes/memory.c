/* The order of the groups, what may be done in place, lifetimes, and the plan of each device's arena. */
#include "base/alloc.h"
#include "device/device.h"
#include "graph/passes/low.h"
#include "graph/passes/order.h"
#include "graph/passes/plan.h"
#include "graph/run/branches.h"
#include "tensor/dtype.h"
#include <stdlib.h>

/* ---- order ---- */

static uint32_t *heads_of(tern__unit *u) {
  uint32_t *head = tern__unit_alloc(u, u->n_groups + 1, sizeof *head);
  for (uint32_t k = 0; head && k < u->n_groups; k++)
    for (uint32_t s = u->group[k].dead ? TERN__NO : k; s != TERN__NO; s = u->group[s].sibling) head[s] = k;
  return head;
}

/* Groups in the order of their last op, each after what it needs. */
static tern_rc order(tern__unit *u, const uint32_t *head) {
  uint32_t *last = tern__unit_alloc(u, u->n_groups + 1, sizeof *last);
  uint32_t *stack = tern__unit_alloc(u, 2 * u->n_ops + u->n_groups + 2, sizeof *stack), top;
  uint8_t *state = tern__unit_alloc(u, u->n_groups + 1, 1); /* 1: on the stack, 2: done */
  u->order = tern__unit_alloc(u, u->n_groups + 1, sizeof *u->order);
  u->turn = tern__unit_alloc(u, u->n_groups + 1, sizeof *u->turn);
  if (!last || !stack || !state || !u->order || !u->turn) return TERN_E_OOM;
  for (uint32_t i = 0; i < u->n_ops; i++) last[head[u->op[i].group]] = i;
  for (uint32_t i = 0; i < u->n_ops; i++) {
    const uint32_t k = head[u->op[i].group];
    if (last[k] != i || state[k] == 2) continue;
    top = 0;
    stack[top++] = k;
    while (top) {
      const uint32_t now = stack[top - 1];
      if (state[now] == 2) {
        top--;
        continue;
      }
      const bool first = state[now] == 0;
      state[now] = 1;
      uint32_t pushed = 0;
      for (uint32_t s = now; s != TERN__NO; s = u->group[s].sibling)
        for (uint32_t m = 0; m < u->group[s].n_ops && first; m++)
          for (uint32_t d = 0; d < u->op[u->group[s].op[m]].n_deps; d++) {
            const uint32_t need = head[u->op[u->op[u->group[s].op[m]].dep[d]].group];
            if (need == now || state[need] == 2) continue;
            if (state[need] == 1)
              return tern__fail(TERN_E_INTERNAL, "graph: fusion made a cycle in \"%s\"", u->g->name);
            bool waiting = false; /* twice on the stack would look like a cycle */
            for (uint32_t w = top - pushed; w < top && !waiting; w++) waiting = stack[w] == need;
            if (!waiting) {
              stack[top++] = need;
              pushed++;
            }
          }
      if (pushed) continue;
      state[now] = 2;
      for (uint32_t s = now; s != TERN__NO; s = u->group[s].sibling) u->turn[s] = u->n_order;
      u->order[u->n_order++] = now;
      top--;
    }
  }
  return TERN_OK;
}

static bool ready(const tern__unit *u, uint32_t head, const uint32_t *heads, const uint8_t *done) {
  for (uint32_t s = head; s != TERN__NO; s = u->group[s].sibling)
    for (uint32_t m = 0; m < u->group[s].n_ops; m++) {
      const tern__lop *op = &u->op[u->group[s].op[m]];
      for (uint32_t d = 0; d < op->n_deps; d++) {
        const uint32_t need = heads[u->op[op->dep[d]].group];
        if (need != head && !done[need]) return false;
      }
    }
  return true;
}

static bool is_eager(const tern__unit *u, uint32_t head) {
  const tern__lop *op = &u->op[u->group[head].op[0]];
  const bool control = op->kind == TERN__L_COND || op->kind == TERN__L_WHILE; /* stay in turn: they may draw */
  if (op->again) return false; /* early, what is computed again would lie in memory all the while */
  return op->kind == TERN__L_MOVE || (op->device && op->device->queue && !control);
}

static bool several_devices(const tern__unit *u) {
  for (uint32_t i = 1; i < u->n_ops; i++)
    if (u->op[i].device != u->op[0].device) return true;
  return false;
}

/* With several devices, what runs beside the host (launches on queues, moves) is begun as soon as what it needs is
   there, so that it goes on while the host works. */
static tern_rc hoist(tern__unit *u, const uint32_t *heads) {
  uint32_t *now = tern__unit_alloc(u, u->n_order + 1, sizeof *now), n = 0;
  uint8_t *done = tern__unit_alloc(u, u->n_groups + 1, 1);
  if (!now || !done) return TERN_E_OOM;
  for (uint32_t i = 0; i < u->n_order; i++) {
    bool more = true;
    while (more) { /* eager ones first, in order */
      more = false;
      for (uint32_t k = i; k < u->n_order; k++) {
        const uint32_t head = u->order[k];
        if (done[head] || !is_eager(u, head) || !ready(u, head, heads, done)) continue;
        done[head] = 1;
        now[n++] = head;
        more = true;
      }
    }
    if (done[u->order[i]]) continue;
    done[u->order[i]] = 1;
    now[n++] = u->order[i];
  }
  memcpy(u->order, now, n * sizeof *now);
  for (uint32_t i = 0; i < n; i++)
    for (uint32_t s = now[i]; s != TERN__NO; s = u->group[s].sibling) u->turn[s] = i;
  return TERN_OK;
}

/* ---- in place ---- */

/* Operands with the same element at the same place of the group's space. */
static bool same_layout(const tern__lop *a, const tern__operand *x, const tern__lop *b, const tern__operand *y) {
  if (x->dtype != y->dtype || x->offset != y->offset) return false;
  int64_t sx[TERN_MAX_RANK] = {0}, sy[TERN_MAX_RANK] = {0};
  for (int d = 0; d < x->rank; d++)
    if (x->dim[d] != TERN__ONE && a->q->size[x->dim[d]] > 1) sx[a->position[x->dim[d]] & 7] = x->stride[d];
  for (int d = 0; d < y->rank; d++)
    if (y->dim[d] != TERN__ONE && b->q->size[y->dim[d]] > 1) sy[b->position[y->dim[d]] & 7] = y->stride[d];
  return !memcmp(sx, sy, sizeof sx);
}

/* All that read `donor` are done before the op's group runs, or read it there just where the result goes. */
static bool free_for(const tern__unit *u, const tern__lop *op, const tern__operand *out, uint32_t donor,
                     const uint32_t *first_reader, const uint32_t *readers) {
  for (uint32_t k = first_reader[donor]; k < first_reader[donor + 1]; k++) {
    const tern__lop *r = &u->op[readers[k]];
    if (r->group != op->group) {
      if (u->turn[r->group] >= u->turn[op->group]) return false;
      continue;
    }
    if (!r->q || r > op) return false; /* it would read what the op has stored already */
    for (uint32_t i = 0; i < r->n_in; i++)
      if (r->in[i] == donor && !same_layout(r, &r->q->arg[i], op, out)) return false;
  }
  return true;
}

static bool only_maps(const tern__unit *u, uint32_t group) {
  for (uint32_t i = 0; i < u->group[group].n_ops; i++)
    if (u->op[u->group[group].op[i]].kind != TERN__L_MAP) return false;
  return true;
}

/* Positions of single ops, which no group gave: their own dimensions. */
static void own_positions(tern__unit *u) {
  for (uint32_t k = 0; k < u->n_groups; k++) {
    tern__lop *op = &u->op[u->group[k].op[0]];
    if (u->group[k].n_ops > 1 || u->group[k].rank || !op->q || op->kind != TERN__L_MAP) continue;
    for (int d = 0; d < TERN_MAX_RANK; d++) op->position[d] = (uint8_t)d;
  }
}

static void in_place(tern__unit *u, const uint32_t *first_reader, const uint32_t *readers) {
  own_positions(u);
  for (uint32_t i = 0; i < u->n_order; i++)
    for (uint32_t s = u->order[i]; s != TERN__NO; s = u->group[s].sibling) {
      if (!only_maps(u, s)) continue;
      for (uint32_t m = 0; m < u->group[s].n_ops; m++) {
        const tern__lop *op = &u->op[u->group[s].op[m]];
        for (uint32_t o = 0; op->q && o < op->n_out; o++) {
          tern__lbuffer *b = &u->buffer[op->out[o]];
          const tern__operand *out = &op->q->arg[op->q->n_in + o];
          if (b->same != TERN__NO || b->written_part || !tern__needs_memory(u, op->out[o], s)) continue;
          if (b->place != TERN__PLACE_ARENA && b->place != TERN__PLACE_NEXT) continue;
          for (uint32_t x = 0; x < u->group[s].n_ops && b->same == TERN__NO; x++) {
            const tern__lop *reader = &u->op[u->group[s].op[x]];
            for (uint32_t k = 0; k < reader->n_in && b->same == TERN__NO; k++) {
              const uint32_t donor = reader->in[k];
              if (donor == TERN__NO || donor == op->out[o]) continue;
              const tern__lbuffer *d = &u->buffer[donor];
              const bool variable =
                  b->place == TERN__PLACE_NEXT && d->place == TERN__PLACE_VARIABLE && d->index == b->index;
              const bool arena = b->place == TERN__PLACE_ARENA && d->place == TERN__PLACE_ARENA;
              if ((!variable && !arena) || d->wanted || d->taken || d->same != TERN__NO || d->written_part ||
                  d->bytes != b->bytes || d->device != b->device ||
                  (d->maker != TERN__NO && u->op[d->maker].group == s) ||
                  !free_for(u, op, out, donor, first_reader, readers))
                continue;
              b->same = donor;
              u->buffer[donor].taken = true;
            }
          }
        }
      }
    }
}

/* A scatter into memory that ends there, or into a state of a loop, which the caller gave up. */
static void scatter_in_place(tern__unit *u, const uint32_t *first_reader, const uint32_t *readers) {
  for (uint32_t i = 0; i < u->n_ops; i++) {
    const tern__lop *op = &u->op[i];
    if (!op->q || op->q->op->prim != TERN_OP_SCATTER || op->q->arg[0].kind != TERN_V_IN) continue;
    if (u->group[op->group].n_ops > 1) continue;
    const uint32_t donor = op->in[0], b = op->out[0];
    tern__lbuffer *to = &u->buffer[b], *from = &u->buffer[donor];
    const tern__operand *x = &op->q->arg[0], *out = &op->q->arg[op->q->n_in];
    const bool state = from->place == TERN__PLACE_INPUT && from->index < u->opts->n_states &&
                       (to->place == TERN__PLACE_ARENA || to->place == TERN__PLACE_RESULT);
    const bool arena = from->place == TERN__PLACE_ARENA && to->place == TERN__PLACE_ARENA;
    if ((!state && !arena) || to->same != TERN__NO || to->written_part || from->wanted || from->taken ||
        from->same != TERN__NO || from->written_part || from->bytes != to->bytes || from->device != to->device ||
        donor == op->in[1] || donor == op->in[2] || x->offset != out->offset || x->dtype != out->dtype ||
        x->rank != out->rank || memcmp(x->stride, out->stride, x->rank * sizeof *x->stride) ||
        !free_for(u, op, out, donor, first_reader, readers))
      continue;
    to->same = donor;
    from->taken = true;
  }
}

/* Readers of each buffer, an entry an operand, and how many of them its maker's launch has. */
static bool list_readers(tern__unit *u, uint32_t **first, uint32_t **list) {
  uint32_t *first_reader = tern__unit_alloc(u, u->n_buffers + 2, sizeof *first_reader), total = 0;
  for (uint32_t i = 0; i < u->n_ops; i++) total += u->op[i].n_in;
  uint32_t *readers = tern__unit_alloc(u, total + 1, sizeof *readers);
  if (!first_reader || !readers) return false;
  for (uint32_t i = 0; i < u->n_ops; i++) {
    const tern__lop *op = &u->op[i];
    for (uint32_t k = 0; k < op->n_in; k++) {
      if (op->in[k] == TERN__NO) continue;
      tern__lbuffer *b = &u->buffer[op->in[k]];
      first_reader[op->in[k] + 2]++;
      if (b->maker == TERN__NO) continue;
      const uint32_t maker = u->op[b->maker].group;
      b->n_grouped += maker == op->group || (u->group[op->group].windowed && u->group[op->group].head == maker);
    }
  }
  for (uint32_t b = 0; b < u->n_buffers; b++) first_reader[b + 2] += first_reader[b + 1];
  for (uint32_t i = 0; i < u->n_ops; i++)
    for (uint32_t k = 0; k < u->op[i].n_in; k++)
      if (u->op[i].in[k] != TERN__NO) readers[first_reader[u->op[i].in[k] + 1]++] = i;
  *first = first_reader;
  *list = readers;
  return true;
}

tern_rc tern__unit_order(tern__unit *u) {
  uint32_t *first_reader = NULL, *readers = NULL;
  const bool several = several_devices(u);
  uint32_t *heads = heads_of(u);
  if (!heads || !list_readers(u, &first_reader, &readers)) return TERN_E_OOM;
  tern_rc rc = order(u, heads);
  if (!rc && several) rc = hoist(u, heads);
  if (!rc && !several && !u->opts->no_fuse) rc = tern__order_early(u, heads, first_reader, readers);
  if (rc) return rc;
  if (!u->opts->no_fuse) in_place(u, first_reader, readers);
  if (!u->opts->no_fuse || u->opts->n_states) scatter_in_place(u, first_reader, readers);
  return TERN_OK;
}

/* ---- lifetimes and plan ---- */

/* from, to: of each step, the first and the last that its workspace is not shared with */
static tern_rc plan_device(tern__unit *u, tern__device *d, const uint32_t *from, const uint32_t *to) {
  tern__buffer *list = tern__unit_alloc(u, u->n_buffers + u->n_steps + 1, sizeof *list);
  uint32_t *of = tern__unit_alloc(u, u->n_buffers + 1, sizeof *of), n = 0, n_values;
  uint64_t *workspace = tern__unit_alloc(u, u->n_steps + 1, sizeof *workspace);
  if (!list || !of || !workspace) return TERN_E_OOM;
  const uint64_t align = d->info.mem_align > 64 ? d->info.mem_align : 64;
  for (uint32_t b = 0; b < u->n_buffers; b++) {
    const tern__lbuffer *x = &u->buffer[b];
    if (x->place != TERN__PLACE_ARENA || x->same != TERN__NO || x->device != d || x->last < 0) continue;
    of[n] = b;
    list[n++] = (tern__buffer){
        .lower = x->first, .upper = x->last + 1, .size = (x->bytes + align - 1) / align * align, .align = align};
    u->stats.naive_bytes += x->bytes;
  }
  n_values = n;
  for (uint32_t s = 0; s < u->n_steps; s++) {
    if (u->step[s].device != d || !u->step[s].workspace) continue;
    list[n] = (tern__buffer){.lower = from[s],
                             .upper = (int64_t)to[s] + 1,
                             .size = (u->step[s].workspace + align - 1) / align * align,
                             .align = align};
    u->step[s].workspace_buffer = n++;
    u->stats.naive_bytes += u->step[s].workspace;
  }
  if (!n) return TERN_OK;
  tern__plan_report report = {0};
  const tern__plan_opts opts = {.seconds = u->opts->plan_seconds > 0 ? u->opts->plan_seconds : 0.005};
  const tern_rc rc = tern__plan(list, n, &opts, &report);
  if (rc) return rc;
  for (uint32_t i = 0; i < n_values; i++) u->buffer[of[i]].offset = list[i].offset;
  for (uint32_t s = 0; s < u->n_steps; s++)
    if (u->step[s].device == d && u->step[s].workspace)
      u->step[s].workspace_offset = list[u->step[s].workspace_buffer].offset;
  u->arena[u->n_arenas].device = d;
  u->arena[u->n_arenas++].bytes = report.height;
  u->stats.arena_bytes += report.height;
  u->stats.arena_bound += report.lower_bound;
  return TERN_OK;
}

tern_rc tern__unit_memory(tern__unit *u) {
  for (uint32_t b = 0; b < u->n_buffers; b++) u->buffer[b].first = u->buffer[b].last = -1;
  for (uint32_t s = 0; s < u->n_steps; s++)
    for (uint32_t k = 0; k < u->step[s].n_args; k++) {
      tern__lbuffer *b = &u->buffer[u->step[s].arg[k].buffer];
      if (b->first < 0) b->first = (int32_t)s;
      b->last = (int32_t)s;
    }
  for (uint32_t b = 0; b < u->n_buffers; b++)
    if (u->buffer[b].place == TERN__PLACE_CONST && u->buffer[b].last >= 0)
      u->stats.constant_bytes += u->buffer[b].bytes;
  u->arena = tern__unit_alloc(u, TERN__MAX_DEVICES, sizeof *u->arena);
  uint32_t *from = tern__unit_alloc(u, u->n_steps + 1, sizeof *from);
  uint32_t *to = tern__unit_alloc(u, u->n_steps + 1, sizeof *to);
  if (!u->arena || !from || !to) return TERN_E_OOM;
  if (!tern__branches_spread(u, from, to))
    for (uint32_t s = 0; s < u->n_steps; s++) from[s] = to[s] = s;
  tern_rc rc = TERN_OK;
  for (uint32_t s = 0; s < u->n_steps && !rc; s++) {
    bool known = false;
    for (uint32_t k = 0; k < s && !known; k++) known = u->step[k].device == u->step[s].device;
    if (!known) rc = plan_device(u, u->step[s].device, from, to);
  }
  return rc;
}
