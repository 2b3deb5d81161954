/* One round: lower, fuse and order a copy of the graph to see what is alive when; find the fullest moment; of the
   values that only wait through it, take the one whose bytes cost least to make again; copy its nodes in front of its
   first later user. */
#include "graph/passes/remat.h"
#include "base/alloc.h"
#include "base/log.h"
#include "graph/passes/simplify_parts.h"
#include <stdio.h>
#include <stdlib.h>

enum { ROUNDS = 1000, PATIENCE = 24, DEPTH = 16, GROWTH = 3 }; /* the graph may become three times as large */

typedef struct remat {
  tern__graph *g;
  tern__unit u;
  int64_t *first, *last; /* of each buffer: turns between which it is alive */
  uint32_t full;         /* the fullest turn */
  uint64_t peak;
  uint32_t *copy, *before; /* of each value: its copy in this round; of each new node: what it goes before */
  uint32_t n_new;
} remat;

static bool planned(const tern__unit *u, uint32_t b) {
  const tern__lbuffer *x = &u->buffer[b];
  return x->place == TERN__PLACE_ARENA && (x->maker == TERN__NO || tern__needs_memory(u, b, u->op[x->maker].group));
}

static tern_rc look(remat *r, const tern__compile_opts *opts) {
  tern__unit *u = &r->u;
  u->opts = opts;
  u->g = tern__graph_clone(r->g, NULL, NULL);
  tern_rc rc = u->g ? tern__unit_lower(u) : tern__recorded();
  if (!rc) rc = tern__unit_fuse(u);
  if (!rc) rc = tern__unit_order(u);
  if (rc) return rc;
  r->first = tern__unit_alloc(u, u->n_buffers + 1, sizeof *r->first);
  r->last = tern__unit_alloc(u, u->n_buffers + 1, sizeof *r->last);
  int64_t *change = tern__unit_alloc(u, u->n_order + 2, sizeof *change);
  if (!r->first || !r->last || !change) return tern__recorded();
  for (uint32_t b = 0; b < u->n_buffers; b++) {
    r->first[b] = INT64_MAX;
    r->last[b] = -1;
    if (u->buffer[b].place != TERN__PLACE_ARENA) continue;
    u->buffer[b].same = TERN__NO; /* memory taken over hides when the first owner's value is last read */
    u->buffer[b].taken = false;
  }
  for (uint32_t i = 0; i < u->n_ops; i++) {
    const tern__lop *op = &u->op[i];
    const int64_t turn = u->turn[op->group];
    for (uint32_t k = 0; k < op->n_in + op->n_out; k++) {
      const uint32_t b = k < op->n_in ? op->in[k] : op->out[k - op->n_in];
      if (b == TERN__NO) continue;
      const uint32_t root = tern__root(u, b);
      if (turn < r->first[root]) r->first[root] = turn;
      if (turn > r->last[root]) r->last[root] = turn;
    }
  }
  for (uint32_t b = 0; b < u->n_buffers; b++) {
    if (tern__root(u, b) != b || !planned(u, b) || r->last[b] < 0) continue;
    change[r->first[b]] += (int64_t)u->buffer[b].bytes;
    change[r->last[b] + 1] -= (int64_t)u->buffer[b].bytes;
  }
  int64_t now = 0;
  r->peak = 0;
  for (uint32_t t = 0; t < u->n_order; t++) {
    now += change[t];
    if ((uint64_t)now > r->peak) {
      r->peak = (uint64_t)now;
      r->full = t;
    }
  }
  return TERN_OK;
}

/* ---- what making a value again takes ---- */

static bool may_repeat(const tern__ir_node *n) {
  return n->kind == TERN__IR_OP && n->op && !n->op->draws && n->op != &tern__op_write && n->op != &tern__op_empty &&
         n->op != &tern__op_to && n->n_out == 1;
}

static double work_of(const remat *r, const tern__ir_node *n) {
  if (tern__ir_is_view(n)) return 0;
  double work = 0;
  for (uint32_t k = 0; k < n->n_in; k++)
    if (n->in[k] != TERN__IR_NONE) work += (double)tern__numel(r->g->value[n->in[k]].rank, r->g->value[n->in[k]].shape);
  const tern__ir_value *out = &r->g->value[n->first_out];
  const double made = (double)tern__numel(out->rank, out->shape);
  const tern__prim *p = n->op->prim ? tern__prim_of(n->op->prim) : NULL;
  if (p && (p->kind == TERN_K_DOT || p->kind == TERN_K_CONV)) { /* each element of the result reads a row */
    const tern__ir_value *a = &r->g->value[n->in[0]];
    return made * (a->rank ? (double)a->shape[a->rank - 1] : 1);
  }
  return work + made;
}

/* Whether the value is there at that turn anyway: a leaf, or alive then. */
static bool at_hand(const remat *r, uint32_t value, int64_t turn) {
  const tern__unit *u = &r->u;
  const uint32_t b = u->buffer_of[value];
  if (b == TERN__NO) return true; /* a host scalar */
  const uint32_t root = tern__root(u, b);
  if (u->buffer[root].place != TERN__PLACE_ARENA) return u->buffer[root].place != TERN__PLACE_NEXT;
  return planned(u, root) && r->last[root] >= turn;
}

/* Work to have the value at the turn; negative: it cannot be had. */
static double price(const remat *r, uint32_t value, int64_t turn, int depth) {
  const tern__ir_node *n = &r->g->node[r->g->value[value].node];
  if (!may_repeat(n) || depth == 0) return -1;
  double sum = work_of(r, n);
  for (uint32_t k = 0; k < n->n_in; k++) {
    if (n->in[k] == TERN__IR_NONE || at_hand(r, n->in[k], turn)) continue;
    const double more = price(r, n->in[k], turn, depth - 1);
    if (more < 0) return -1;
    sum += more;
  }
  return sum;
}

/* ---- the round ---- */

typedef struct choice {
  uint32_t value, buffer;
  int64_t turn; /* of the first user behind the fullest moment */
  double score;
} choice;

/* A buffer that waits through the fullest turn: made before, read behind, not read in it. */
static bool waits(const remat *r, uint32_t b, int64_t *next) {
  const tern__unit *u = &r->u;
  *next = INT64_MAX;
  if (!planned(u, b) || tern__root(u, b) != b || u->buffer[b].taken || u->buffer[b].written_part ||
      u->buffer[b].maker == TERN__NO || r->first[b] >= r->full || r->last[b] <= r->full)
    return false;
  for (uint32_t i = 0; i < u->n_ops; i++)
    for (uint32_t k = 0; k < u->op[i].n_in; k++) {
      if (u->op[i].in[k] != b) continue;
      const int64_t turn = u->turn[u->op[i].group];
      if (turn == r->full) return false;
      if (turn > r->full && turn < *next) *next = turn;
    }
  return *next != INT64_MAX;
}

static choice choose(const remat *r) {
  const tern__unit *u = &r->u;
  choice best = {.score = -1};
  for (uint32_t v = 0; v < r->g->n_values; v++) {
    const tern__ir_node *n = &r->g->node[r->g->value[v].node];
    const uint32_t b = u->buffer_of[v];
    int64_t turn;
    if (!may_repeat(n) || tern__ir_is_view(n) || b == TERN__NO || u->base[v] != v || !waits(r, b, &turn)) continue;
    const double work = price(r, v, turn, DEPTH);
    if (work < 0) continue;
    const double score = (double)u->buffer[b].bytes / (1 + work);
    if (score > best.score) best = (choice){v, b, turn, score};
  }
  return best;
}

/* The value made again before node `before`. TERN__IR_NONE with the error set. */
static uint32_t make_again(remat *r, uint32_t value, int64_t turn, uint32_t before) {
  tern__graph *g = r->g;
  if (r->copy[value]) return r->copy[value];
  const tern__ir_node from = g->node[g->value[value].node];
  uint32_t in[64];
  if (from.n_in > 64) return tern__fail(TERN_E_INTERNAL, "rematerialisation: too many operands"), TERN__IR_NONE;
  for (uint32_t k = 0; k < from.n_in; k++) {
    in[k] = from.in[k];
    if (in[k] == TERN__IR_NONE || at_hand(r, in[k], turn)) continue;
    if ((in[k] = make_again(r, in[k], turn, before)) == TERN__IR_NONE) return TERN__IR_NONE;
  }
  const uint32_t out = tern__graph_repeat(g, value, in);
  if (out == TERN__IR_NONE) return out;
  if (!from.again) g->node[g->value[out].node].again = 1;
  r->before[r->n_new++] = before;
  return r->copy[value] = out;
}

/* Views of the value go with it: those that later users read are made again too. */
static tern_rc split(remat *r, const choice *c) {
  tern__graph *g = r->g;
  const tern__unit *u = &r->u;
  const uint32_t n_nodes = g->n_nodes, n_values = g->n_values;
  r->copy = tern__unit_alloc(&r->u, n_values + 1, sizeof *r->copy);
  r->before = tern__unit_alloc(&r->u, 2 * n_nodes + 64, sizeof *r->before);
  bool *late = tern__unit_alloc(&r->u, n_nodes + 1, sizeof *late);
  if (!r->copy || !r->before || !late) return tern__recorded();
  r->n_new = 0;
  uint32_t before = n_nodes;
  for (uint32_t i = 0; i < u->n_ops; i++)
    if (u->turn[u->op[i].group] > r->full) {
      late[u->op[i].node] = true;
      bool reads = false;
      for (uint32_t k = 0; k < u->op[i].n_in; k++) reads |= u->op[i].in[k] == c->buffer;
      if (reads && u->op[i].node < before) before = u->op[i].node;
    }
  if (make_again(r, c->value, c->turn, before) == TERN__IR_NONE) return tern__recorded();
  for (uint32_t i = before; i < n_nodes; i++) {
    if (!late[i] || tern__ir_is_view(&g->node[i])) continue;
    for (uint32_t k = 0; k < g->node[i].n_in; k++) {
      const uint32_t v = g->node[i].in[k];
      if (v == TERN__IR_NONE || u->buffer_of[v] != c->buffer) continue;
      uint32_t chain[16], n = 0, base = v; /* through the views between */
      while (base != c->value && n < 16 && tern__ir_is_view(&g->node[g->value[base].node])) {
        chain[n++] = base;
        base = g->node[g->value[base].node].in[0];
      }
      if (base != c->value) continue;
      uint32_t now = r->copy[c->value];
      while (n--) {
        const uint32_t view = chain[n];
        if (!r->copy[view]) {
          const uint32_t out = tern__graph_repeat(g, view, &now);
          if (out == TERN__IR_NONE) return tern__recorded();
          r->before[r->n_new++] = i < before ? i : before;
          r->copy[view] = out;
        }
        now = r->copy[view];
      }
      g->node[i].in[k] = now;
    }
  }
  return tern__graph_settle(g, n_nodes, r->before);
}

/* ---- order ---- */

typedef struct place_of {
  uint32_t turn, node;
} place_of;

static int by_turn(const void *a, const void *b) {
  const place_of *x = a, *y = b;
  if (x->turn != y->turn) return x->turn < y->turn ? -1 : 1;
  return (x->node > y->node) - (x->node < y->node);
}

/* Puts the nodes into the order in which their groups run: a node that fusion draws to a late launch would otherwise
   hold an early place, and what is made again in front of it would come early too. */
static tern_rc reorder(const remat *r) {
  tern__graph *g = r->g;
  const tern__unit *u = &r->u;
  const uint32_t n = g->n_nodes;
  place_of *at = tern__calloc(n + 1u, sizeof *at);
  uint32_t *number = tern__calloc(n + 1u, sizeof *number);
  const bool ok = at && number;
  for (uint32_t i = 0; ok && i < u->n_ops; i++) {
    const uint32_t node = u->op[i].node, turn = u->turn[u->op[i].group] + 1;
    if (turn > at[node].turn) at[node].turn = turn;
  }
  for (uint32_t i = 0; ok && i < n; i++) {
    at[i].node = i;
    for (uint32_t k = 0; k < g->node[i].n_in; k++) { /* views follow what they show */
      const uint32_t v = g->node[i].in[k], turn = v == TERN__IR_NONE ? 0 : at[g->value[v].node].turn;
      if (turn > at[i].turn) at[i].turn = turn;
    }
  }
  if (ok) qsort(at, n, sizeof *at, by_turn);
  for (uint32_t i = 0; ok && i < n; i++) number[at[i].node] = i;
  const tern_rc rc =
      ok ? tern__graph_permute(g, number) : tern__fail(TERN_E_OOM, "rematerialisation: out of host memory");
  free(at);
  free(number);
  return rc;
}

/* g becomes `other`, which ends. */
static void exchange(tern__graph *g, tern__graph *other) {
  const tern__graph mine = *g;
  *g = *other;
  *other = mine;
  tern__graph_free(other);
}

tern_rc tern__graph_remat(tern__graph *g, const tern__compile_opts *opts, uint64_t budget, char **report) {
  const uint32_t most = GROWTH * g->n_nodes + 64;
  uint64_t before = 0, least = UINT64_MAX;
  tern__graph *best = NULL; /* g as it was when it needed least; NULL: as it is */
  tern_rc rc = TERN_OK;
  *report = NULL;
  for (int round = 0, idle = 0; round < ROUNDS && !rc; round++) {
    remat r = {.g = g};
    choice c = {.score = -1};
    rc = look(&r, opts);
    if (!round) before = r.peak;
    if (!rc && r.peak < least) {
      least = r.peak;
      idle = 0;
      tern__graph_free(best);
      best = r.peak > budget ? tern__graph_clone(g, NULL, NULL) : NULL;
      if (!best && r.peak > budget) rc = tern__recorded();
    } else {
      idle++;
    }
    if (!rc && r.peak > budget && (!round || idle)) {
      rc = reorder(&r);
      tern__unit_free(&r.u);
      r = (remat){.g = g};
      if (!rc) rc = look(&r, opts);
    }
    if (!rc && r.peak > budget && idle < PATIENCE && g->n_nodes < most) c = choose(&r);
    if (!rc && c.score >= 0) rc = split(&r, &c);
    tern__unit_free(&r.u);
    if (c.score < 0) break;
  }
  if (best && !rc) exchange(g, best);
  if (best && rc) tern__graph_free(best);
  char text[200];
  snprintf(text, sizeof text, "memory budget %llu bytes: %llu needed, %llu with what is computed again\n",
           (unsigned long long)budget, (unsigned long long)before, (unsigned long long)least);
  if (!rc && least > budget)
    tern__log(TERN__LOG_WARN, "graph", "%s: memory budget %llu bytes cannot be met: %llu are needed", g->name,
              (unsigned long long)budget, (unsigned long long)least);
  if (!rc) *report = tern__strdup(text);
  return rc;
}
