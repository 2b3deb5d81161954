/* See order.h. The launches are taken in their order; behind each, those that it may have made ready, or the last
   reader of something, are looked at. */
#include "graph/passes/order.h"
#include <string.h>

enum {
  LEAST_FREED = 4096, /* bytes; less is not worth another order */
  FEW = 4             /* readers left of a buffer: one of them may be the last soon */
};

typedef struct early {
  tern__unit *u;
  const uint32_t *head, *first_reader, *readers;
  uint32_t *left;     /* of each buffer: operands that are still to read it */
  uint32_t *here;     /* of each buffer: those of the launch in question */
  uint32_t *variable; /* of each variable: the buffer of its value, TERN__NO */
  uint32_t *stack, top;
  uint32_t *now, n; /* the new order */
  uint8_t *done, *waiting;
} early;

static void look_at(early *e, uint32_t head) {
  if (e->done[head] || e->waiting[head]) return;
  e->waiting[head] = 1;
  e->stack[e->top++] = head;
}

static void look_at_readers(early *e, uint32_t b) {
  for (uint32_t k = e->first_reader[b]; k < e->first_reader[b + 1]; k++)
    look_at(e, e->head[e->u->op[e->readers[k]].group]);
}

static void place(early *e, uint32_t head) {
  const tern__unit *u = e->u;
  e->done[head] = 1;
  e->now[e->n++] = head;
  for (uint32_t s = head; s != TERN__NO; s = u->group[s].sibling)
    for (uint32_t m = 0; m < u->group[s].n_ops; m++) {
      const tern__lop *op = &u->op[u->group[s].op[m]];
      for (uint32_t k = 0; k < op->n_in; k++)
        if (op->in[k] != TERN__NO) e->left[op->in[k]]--;
    }
  for (uint32_t s = head; s != TERN__NO; s = u->group[s].sibling)
    for (uint32_t m = 0; m < u->group[s].n_ops; m++) {
      const tern__lop *op = &u->op[u->group[s].op[m]];
      for (uint32_t k = 0; k < op->n_in; k++)
        if (op->in[k] != TERN__NO && e->left[op->in[k]] && e->left[op->in[k]] <= FEW) look_at_readers(e, op->in[k]);
      for (uint32_t o = 0; o < op->n_out; o++)
        if (op->out[o] != TERN__NO) look_at_readers(e, op->out[o]);
    }
}

/* A plain launch, with all that it needs done. */
static bool can_run(const early *e, uint32_t head) {
  const tern__unit *u = e->u;
  for (uint32_t s = head; s != TERN__NO; s = u->group[s].sibling)
    for (uint32_t m = 0; m < u->group[s].n_ops; m++) {
      const tern__lop *op = &u->op[u->group[s].op[m]];
      if (op->kind > TERN__L_OPAQUE) return false;
      for (uint32_t d = 0; d < op->n_deps; d++) {
        const uint32_t need = e->head[u->op[op->dep[d]].group];
        if (need != head && !e->done[need]) return false;
      }
    }
  return true;
}

/* Bytes that the launch takes, less those that nobody reads after it. A variable that others still read would have to
   be copied: never early. */
static int64_t growth(early *e, uint32_t head) {
  const tern__unit *u = e->u;
  int64_t bytes = 0;
  bool may = true;
  for (int pass = 0; pass < 2; pass++) /* count the readers; judge */
    for (uint32_t s = head; s != TERN__NO; s = u->group[s].sibling)
      for (uint32_t m = 0; m < u->group[s].n_ops; m++) {
        const tern__lop *op = &u->op[u->group[s].op[m]];
        for (uint32_t k = 0; k < op->n_in; k++) {
          const uint32_t in = op->in[k];
          if (in == TERN__NO) continue;
          const tern__lbuffer *b = &u->buffer[in];
          if (!pass) {
            e->here[in]++;
            continue;
          }
          const bool inside = b->maker != TERN__NO && e->head[u->op[b->maker].group] == head;
          if (b->place == TERN__PLACE_ARENA && !inside && b->same == TERN__NO && e->here[in] == e->left[in]) {
            bytes -= (int64_t)b->bytes;
            e->here[in] = TERN__NO; /* once */
          }
        }
        for (uint32_t o = 0; pass && o < op->n_out; o++) {
          const tern__lbuffer *b = &u->buffer[op->out[o]];
          if (b->written_part) may = false;
          if (b->place == TERN__PLACE_ARENA && tern__needs_memory(u, op->out[o], s)) bytes += (int64_t)b->bytes;
          const uint32_t old = b->place == TERN__PLACE_NEXT ? e->variable[b->index] : TERN__NO;
          if (old != TERN__NO && e->left[old] != e->here[old] && e->here[old] != TERN__NO) may = false;
        }
      }
  for (uint32_t s = head; s != TERN__NO; s = u->group[s].sibling)
    for (uint32_t m = 0; m < u->group[s].n_ops; m++) {
      const tern__lop *op = &u->op[u->group[s].op[m]];
      for (uint32_t k = 0; k < op->n_in; k++)
        if (op->in[k] != TERN__NO) e->here[op->in[k]] = 0;
    }
  return may ? bytes : 0;
}

static bool prepare(early *e) {
  tern__unit *u = e->u;
  e->left = tern__unit_alloc(u, u->n_buffers + 1, sizeof *e->left);
  e->here = tern__unit_alloc(u, u->n_buffers + 1, sizeof *e->here);
  e->variable = tern__unit_alloc(u, u->g->n_variables + 1, sizeof *e->variable);
  e->stack = tern__unit_alloc(u, u->n_groups + 1, sizeof *e->stack);
  e->now = tern__unit_alloc(u, u->n_groups + 1, sizeof *e->now);
  e->done = tern__unit_alloc(u, u->n_groups + 1, 1);
  e->waiting = tern__unit_alloc(u, u->n_groups + 1, 1);
  if (!e->left || !e->here || !e->variable || !e->stack || !e->now || !e->done || !e->waiting) return false;
  for (uint32_t v = 0; v < u->g->n_variables; v++) e->variable[v] = TERN__NO;
  for (uint32_t b = 0; b < u->n_buffers; b++) {
    e->left[b] = e->first_reader[b + 1] - e->first_reader[b];
    if (u->buffer[b].place == TERN__PLACE_VARIABLE) e->variable[u->buffer[b].index] = b;
  }
  return true;
}

tern_rc tern__order_early(tern__unit *u, const uint32_t *head, const uint32_t *first_reader, const uint32_t *readers) {
  early e = {.u = u, .head = head, .first_reader = first_reader, .readers = readers};
  if (!prepare(&e)) return TERN_E_OOM;
  for (uint32_t i = 0; i < u->n_order; i++) {
    if (!e.done[u->order[i]]) place(&e, u->order[i]);
    while (e.top) {
      const uint32_t h = e.stack[--e.top];
      e.waiting[h] = 0;
      if (!e.done[h] && can_run(&e, h) && growth(&e, h) <= -LEAST_FREED) place(&e, h);
    }
  }
  memcpy(u->order, e.now, e.n * sizeof *e.now);
  for (uint32_t i = 0; i < e.n; i++)
    for (uint32_t s = e.now[i]; s != TERN__NO; s = u->group[s].sibling) u->turn[s] = i;
  return TERN_OK;
}
