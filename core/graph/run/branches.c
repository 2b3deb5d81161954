/* See branches.h. */
#include "graph/run/branches.h"
#include "device/device.h"

enum {
  MOST_STEPS = 1024,      /* a longer program is not looked at */
  LEAST_BYTES = 16 << 10, /* that a launch touches to count as work */
  MOST_SPREAD = 16 << 20, /* bytes of a device's arena in which nothing shares memory */
  SHARE_PERCENT = 150     /* all work, of that on the longest path */
};

bool tern__branches_possible(const tern__unit *u) {
  if (u->n_steps < 2 || u->n_steps > MOST_STEPS) return false;
  const tern__device *d = u->step[0].device;
  const tern_backend *api = d->api;
  if (d->queue || !api->program_begin || !api->program_end || !api->program_run || !api->program_free) return false;
  for (uint32_t s = 0; s < u->n_steps; s++)
    if (u->step[s].device != d || u->step[s].kind > TERN__L_OPAQUE || u->step[s].slow) return false;
  return true;
}

/* Arguments of two launches keep them in order. Parts of one buffer that begin at different places do not meet. */
static bool args_meet(const tern__unit *u, const tern__larg *a, const tern__larg *b) {
  if (!a->written && !b->written) return false;
  const uint32_t x = tern__root(u, a->buffer), y = tern__root(u, b->buffer);
  return x == y && !(a->written && b->written && u->buffer[x].written_part && a->offset != b->offset);
}

static bool values_meet(const tern__unit *u, const tern__lstep *a, const tern__lstep *b) {
  for (uint32_t i = 0; i < a->n_args; i++)
    for (uint32_t k = 0; k < b->n_args; k++)
      if (args_meet(u, &a->arg[i], &b->arg[k])) return true;
  return false;
}

/* ---- memory for branches ---- */

static uint64_t bytes_touched(const tern__unit *u, const tern__lstep *s) {
  uint64_t sum = 0;
  for (uint32_t k = 0; k < s->n_args; k++) sum += u->buffer[s->arg[k].buffer].bytes;
  return sum < LEAST_BYTES ? 0 : sum;
}

static uint64_t bytes_apart(const tern__unit *u) {
  uint64_t sum = 0;
  for (uint32_t b = 0; b < u->n_buffers; b++)
    if (u->buffer[b].place == TERN__PLACE_ARENA && u->buffer[b].same == TERN__NO) sum += u->buffer[b].bytes;
  for (uint32_t s = 0; s < u->n_steps; s++) sum += u->step[s].workspace;
  return sum;
}

/* What must be done before a buffer is read, or written: the level after it, and the bytes on the longest path to
   it. */
typedef struct until {
  uint32_t level[2]; /* of those that wrote; that read */
  uint64_t path[2];
} until;

/* Levels of the steps: one more than the highest of the steps that come before. True: the work is in branches. */
static bool find_levels(tern__unit *u, uint32_t *level) {
  until *until_of = tern__unit_alloc(u, u->n_buffers, sizeof *until_of);
  if (!until_of) return false;
  uint64_t all = 0, longest = 0;
  for (uint32_t s = 0; s < u->n_steps; s++) {
    const tern__lstep *x = &u->step[s];
    uint64_t path = 0;
    level[s] = 0;
    for (uint32_t k = 0; k < x->n_args; k++) {
      const uint32_t root = tern__root(u, x->arg[k].buffer);
      for (int kind = u->buffer[root].written_part && x->arg[k].written; kind <= x->arg[k].written; kind++) {
        const until *b = &until_of[root];
        if (b->level[kind] > level[s]) level[s] = b->level[kind];
        if (b->path[kind] > path) path = b->path[kind];
      }
    }
    const uint64_t own = bytes_touched(u, x);
    path += own;
    all += own;
    longest = path > longest ? path : longest;
    for (uint32_t k = 0; k < x->n_args; k++) {
      until *b = &until_of[tern__root(u, x->arg[k].buffer)];
      const int kind = !x->arg[k].written;
      if (b->level[kind] <= level[s]) b->level[kind] = level[s] + 1;
      if (b->path[kind] < path) b->path[kind] = path;
    }
  }
  return all && all * 100 >= longest * SHARE_PERCENT;
}

/* A buffer lives from the first to the last step of all levels between its first and its last. */
static void widen(tern__unit *u, const uint32_t *level, const uint32_t *first, const uint32_t *last) {
  for (uint32_t b = 0; b < u->n_buffers; b++) {
    tern__lbuffer *x = &u->buffer[b];
    if (x->place != TERN__PLACE_ARENA || x->same != TERN__NO || x->last < 0) continue;
    uint32_t low = TERN__NO, high = 0;
    for (uint32_t s = (uint32_t)x->first; s <= (uint32_t)x->last; s++)
      for (uint32_t k = 0; k < u->step[s].n_args; k++) {
        if (tern__root(u, u->step[s].arg[k].buffer) != b) continue;
        low = level[s] < low ? level[s] : low;
        high = level[s] > high ? level[s] : high;
      }
    for (uint32_t l = low; l <= high; l++) {
      x->first = (int32_t)first[l] < x->first ? (int32_t)first[l] : x->first;
      x->last = (int32_t)last[l] > x->last ? (int32_t)last[l] : x->last;
    }
  }
}

bool tern__branches_spread(tern__unit *u, uint32_t *from, uint32_t *to) {
  if (u->opts->memory_budget || !tern__branches_possible(u) || bytes_apart(u) > MOST_SPREAD) return false;
  const uint32_t n = u->n_steps;
  uint32_t *level = tern__unit_alloc(u, 3 * (size_t)n, sizeof *level), *first = level + n, *last = first + n;
  if (!level || !find_levels(u, level)) return false;
  for (uint32_t l = 0; l < n; l++) first[l] = TERN__NO;
  for (uint32_t s = 0; s < n; s++) {
    if (first[level[s]] == TERN__NO) first[level[s]] = s;
    last[level[s]] = s;
  }
  for (uint32_t s = 0; s < n; s++) {
    from[s] = first[level[s]];
    to[s] = last[level[s]];
  }
  widen(u, level, first, last);
  return true;
}

/* ---- afterwards ---- */

typedef struct range {
  uint64_t lo, hi;
  uint32_t root; /* TERN__NO: a workspace */
  bool written;
} range;

/* All that lies in the arena, the workspace last */
static uint32_t arena_ranges(const tern__unit *u, const tern__lstep *s, range *to, uint32_t most) {
  uint32_t n = 0;
  for (uint32_t k = 0; k < s->n_args && n < most; k++) {
    const uint32_t root = tern__root(u, s->arg[k].buffer);
    const tern__lbuffer *b = &u->buffer[root];
    if (b->place == TERN__PLACE_ARENA) to[n++] = (range){b->offset, b->offset + b->bytes, root, s->arg[k].written};
  }
  if (s->workspace && n < most)
    to[n++] = (range){s->workspace_offset, s->workspace_offset + s->workspace, TERN__NO, true};
  return n;
}

/* Different values, or workspaces, in the same memory */
static bool ranges_meet(const range *a, const range *b) {
  return (a->written || b->written) && (a->root != b->root || a->root == TERN__NO) && a->lo < b->hi && b->lo < a->hi;
}

static bool steps_meet(const tern__unit *u, const tern__lstep *a, const tern__lstep *b) {
  enum { MOST = 64 };
  range x[MOST], y[MOST];
  if (values_meet(u, a, b)) return true;
  const uint32_t n = arena_ranges(u, a, x, MOST), m = arena_ranges(u, b, y, MOST);
  if (n == MOST || m == MOST) return true;
  for (uint32_t i = 0; i < n; i++)
    for (uint32_t k = 0; k < m; k++)
      if (ranges_meet(&x[i], &y[k])) return true;
  return false;
}

/* Where each step needs the one before it, all are one chain. */
bool tern__branches_any(const tern__unit *u) {
  if (!tern__branches_possible(u)) return false;
  for (uint32_t s = 1; s < u->n_steps; s++)
    if (!steps_meet(u, &u->step[s - 1], &u->step[s])) return true;
  return false;
}
