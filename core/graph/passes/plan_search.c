/* Exact search: is there a plan of at most a given height? Plans are built from below. Every section (plan_parts.h) has
   a floor, the lowest offset at which anything may still start in it, and every buffer not yet placed a least offset,
   the highest floor that it spans. A pit is a run of sections of one floor between higher ones; in one section of a pit
   the lowest of its remaining buffers is chosen (or none starts at the floor, which then rises): the section with the
   fewest choices is asked first. A branch ends when some section cannot hold its remaining buffers, taken as jobs of
   one machine with the least offsets as release times, or when the same set was refuted before over floors not higher.
   What no buffer joins any more is searched as separate components; when one has no plan, the search goes back to the
   decision that made it, past its neighbours'. Sections, floors and least offsets are those of Moffitt's MiniMalloc
   (ASPLOS 2023). All stacks are explicit. */
#include "graph/passes/plan_parts.h"
#include "graph/passes/plan_memo.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

enum { NIL = -1, CHECK_CLOCK = 1 << 17, MAX_MEMBERS = 1 << 22 };

typedef enum change_kind { FLOOR, LEAST, PLACED } change_kind;
typedef struct change {
  uint32_t index, kind;
  uint64_t old;
} change;

/* A component still to be planned; a list. */
typedef struct component {
  uint32_t begin, end; /* sections */
  int32_t parent;      /* the frame whose choice made it */
  int32_t next;
} component;

typedef struct frame {
  component part;
  uint64_t hash;  /* of the component's set of buffers */
  uint64_t raise; /* the floor that the section gets when none of the choices starts there; 0: must */
  size_t changes; /* length of the undo log when the frame was opened */
  uint32_t section;
  int32_t components;                 /* used entries of s->components */
  uint32_t choices, tried, n_choices; /* a run of s->choices */
} frame;

struct tern__search {
  tern__part *part;
  uint64_t capacity, padded; /* padded: rounded up to the unit */
  uint64_t nodes, work;      /* decisions; buffers looked at */
  int order;
  /* by section */
  uint32_t *start, *count;  /* members[start ..]: its buffers; the first `count` are not placed */
  uint32_t *cross;          /* unplaced buffers that also live in the next section */
  uint64_t *floor, *rest;   /* rest: sum of the unplaced */
  uint64_t *before, *after; /* see look_beside */
  uint64_t *set;            /* xor of the keys of the unplaced whose first section it is */
  uint8_t *queued, *touched;
  uint32_t *queue, *stale, *check; /* floors that rose; see touch */
  uint32_t n_queue, n_stale, n_check;
  uint32_t *members;
  /* by buffer */
  uint64_t *least, *offset, *key;
  double *score;
  /* stacks */
  change *changes;
  size_t n_changes, room_changes;
  frame *frames;
  size_t n_frames, room_frames;
  component *components;
  size_t n_components, room_components;
  uint32_t *choices;
  size_t n_choices, room_choices;
  tern__memo memo;
  bool no_memory;
};

/* ---- memory ---- */

/* Room for `extra` more items of a stack. */
static bool reserve(tern__search *s, void **items, size_t *room, size_t used, size_t extra, size_t size) {
  if (used + extra <= *room) return true;
  const size_t want = (used + extra) * 2 + 256;
  void *more = tern__realloc(*items, want * size);
  if (!more) {
    s->no_memory = true;
    return false;
  }
  *items = more;
  *room = want;
  return true;
}

static bool log_change(tern__search *s, change_kind kind, uint32_t index, uint64_t old) {
  if (s->n_changes == s->room_changes &&
      !reserve(s, (void **)&s->changes, &s->room_changes, s->n_changes, 1, sizeof *s->changes))
    return false;
  s->changes[s->n_changes++] = (change){index, kind, old};
  return true;
}

static uint64_t mix(uint64_t x) { /* splitmix64 */
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

tern__search *tern__search_new(tern__part *part) {
  const size_t n = part->count, m = part->sections;
  size_t members = 0;
  for (size_t v = 0; v < n; v++) members += part->last[v] - part->first[v];
  if (members > MAX_MEMBERS) return NULL;
  tern__search *s = tern__calloc(1, sizeof *s);
  /* one block for all arrays of fixed size: 8-byte ones first */
  const size_t bytes = 8 * (5 * m + 3 * n) + sizeof(double) * n + 4 * (6 * m + members + 1) + 2 * m;
  char *at = s ? tern__calloc(1, bytes) : NULL;
  if (!at) {
    free(s);
    return NULL;
  }
  s->part = part;
  s->floor = (uint64_t *)at, s->rest = s->floor + m, s->set = s->rest + m;
  s->before = s->set + m, s->after = s->before + m;
  s->least = s->after + m, s->offset = s->least + n, s->key = s->offset + n;
  s->score = (double *)(s->key + n);
  s->start = (uint32_t *)(s->score + n), s->count = s->start + m + 1, s->cross = s->count + m;
  s->queue = s->cross + m, s->stale = s->queue + m, s->check = s->stale + m;
  s->members = s->check + m;
  s->queued = (uint8_t *)(s->members + members), s->touched = s->queued + m;
  for (size_t v = 0; v < n; v++) s->key[v] = mix(v + 1);
  return s;
}

void tern__search_free(tern__search *s) {
  if (!s) return;
  tern__memo_free(&s->memo);
  free(s->floor);
  free(s->changes);
  free(s->frames);
  free(s->components);
  free(s->choices);
  free(s);
}

uint64_t tern__search_nodes(const tern__search *s) { return s->nodes; }

/* Nothing placed, all floors 0. */
static void reset(tern__search *s) {
  const tern__part *p = s->part;
  const uint32_t n = p->count, m = p->sections;
  memset(s->floor, 0, 3 * m * sizeof *s->floor); /* rest and set too */
  memset(s->cross, 0, m * sizeof *s->cross);
  memset(s->count, 0, m * sizeof *s->count);
  memset(s->least, 0, n * sizeof *s->least);
  for (uint32_t v = 0; v < n; v++) {
    s->set[p->first[v]] ^= s->key[v];
    for (uint32_t t = p->first[v]; t < p->last[v]; t++) {
      s->count[t]++;
      s->rest[t] += p->size[v];
      s->cross[t] += t + 1 < p->last[v];
    }
  }
  s->start[0] = 0;
  for (uint32_t t = 0; t < m; t++) s->start[t + 1] = s->start[t] + s->count[t], s->count[t] = 0;
  for (uint32_t v = 0; v < n; v++)
    for (uint32_t t = p->first[v]; t < p->last[v]; t++) s->members[s->start[t] + s->count[t]++] = v;
  s->n_changes = s->n_frames = s->n_components = s->n_choices = 0;
}

/* ---- consequences ---- */

enum { STALE = 1, CHECK = 2 }; /* bits of s->touched: the floor may rise, the buffers may not fit any more */

static void touch(tern__search *s, uint32_t t) {
  if (!(s->touched[t] & STALE)) s->stale[s->n_stale++] = t;
  if (!(s->touched[t] & CHECK)) s->check[s->n_check++] = t;
  s->touched[t] = STALE | CHECK;
}

static bool raise_floor(tern__search *s, uint32_t t, uint64_t floor) {
  if (!log_change(s, FLOOR, t, s->floor[t])) return false;
  s->floor[t] = floor;
  if (!s->queued[t]) s->queued[t] = 1, s->queue[s->n_queue++] = t;
  return true;
}

/* The floors of queued sections lift the least offsets of their buffers. */
static bool lift_buffers(tern__search *s) {
  const tern__part *p = s->part;
  while (s->n_queue) {
    const uint32_t t = s->queue[--s->n_queue];
    const uint64_t floor = s->floor[t];
    const uint32_t *member = s->members + s->start[t];
    s->work += s->count[t];
    s->queued[t] = 0;
    touch(s, t);
    for (uint32_t i = 0; i < s->count[t]; i++) {
      const uint32_t v = member[i];
      if (s->least[v] >= floor) continue;
      if (!log_change(s, LEAST, v, s->least[v])) return false;
      s->least[v] = tern__plan_up(floor, p->align[v]);
      if (s->least[v] + (p->size[v] - p->trim[v]) > s->capacity) return false;
      for (uint32_t k = p->first[v]; k < p->last[v]; k++) touch(s, k);
    }
  }
  return true;
}

/* Whether the section's remaining buffers fit over it, each not lower than its least offset. The buffers are put into
   the order of least offsets, which is nearly theirs already. */
static bool section_holds(tern__search *s, uint32_t t) {
  const tern__part *p = s->part;
  uint32_t *member = s->members + s->start[t];
  const uint32_t n = s->count[t];
  if (!n) return true;
  uint64_t most = s->floor[t];
  for (uint32_t i = 0; i < n; i++)
    if (s->least[member[i]] > most) most = s->least[member[i]];
  if (most + s->rest[t] <= s->padded) return true;
  if (s->floor[t] + s->rest[t] > s->padded) return false;
  for (uint32_t i = 1; i < n; i++) {
    const uint32_t v = member[i];
    uint32_t k = i;
    for (; k && s->least[member[k - 1]] > s->least[v]; k--) member[k] = member[k - 1];
    member[k] = v;
  }
  uint64_t level = 0;
  for (uint32_t i = 0; i < n; i++) {
    const uint64_t least = s->least[member[i]];
    level = (least > level ? least : level) + p->size[member[i]];
  }
  return level <= s->padded;
}

/* No floor is lower than every least offset over it. */
static bool lift_floors(tern__search *s) {
  while (s->n_stale) {
    const uint32_t t = s->stale[--s->n_stale];
    const uint32_t *member = s->members + s->start[t];
    uint64_t least = UINT64_MAX;
    s->work += s->count[t];
    s->touched[t] &= (uint8_t)~STALE;
    for (uint32_t i = 0; i < s->count[t]; i++)
      if (s->least[member[i]] < least) least = s->least[member[i]];
    if (!s->count[t] || least <= s->floor[t]) continue;
    if (least + s->rest[t] > s->padded || !raise_floor(s, t, least)) return false;
  }
  return true;
}

/* Draws all consequences of queued floors; false: no plan from here (or no memory). */
static bool propagate(tern__search *s) {
  bool ok = true;
  while (ok && (s->n_queue || s->n_stale)) ok = lift_buffers(s) && lift_floors(s);
  for (uint32_t i = 0; ok && i < s->n_check; i++) ok = section_holds(s, s->check[i]);
  for (uint32_t i = 0; i < s->n_check; i++) s->touched[s->check[i]] = 0;
  for (uint32_t i = 0; i < s->n_stale; i++) s->touched[s->stale[i]] = 0;
  for (uint32_t i = 0; i < s->n_queue; i++) s->queued[s->queue[i]] = 0;
  s->n_check = s->n_stale = s->n_queue = 0;
  return ok;
}

static bool place(tern__search *s, uint32_t v) {
  const tern__part *p = s->part;
  const uint64_t top = s->least[v] + p->size[v];
  if (!log_change(s, PLACED, v, 0)) return false;
  s->offset[v] = s->least[v];
  s->set[p->first[v]] ^= s->key[v];
  for (uint32_t t = p->first[v]; t < p->last[v]; t++) {
    uint32_t *member = s->members + s->start[t];
    uint32_t i = 0;
    while (member[i] != v) i++;
    member[i] = member[--s->count[t]];
    member[s->count[t]] = v;
    s->rest[t] -= p->size[v];
    s->cross[t] -= t + 1 < p->last[v];
  }
  for (uint32_t t = p->first[v]; t < p->last[v]; t++)
    if (!raise_floor(s, t, top)) return false;
  return propagate(s);
}

static void undo(tern__search *s, size_t until) {
  const tern__part *p = s->part;
  while (s->n_changes > until) {
    const change c = s->changes[--s->n_changes];
    if (c.kind == FLOOR) s->floor[c.index] = c.old;
    if (c.kind == LEAST) s->least[c.index] = c.old;
    if (c.kind != PLACED) continue;
    s->set[p->first[c.index]] ^= s->key[c.index];
    for (uint32_t t = p->first[c.index]; t < p->last[c.index]; t++) {
      s->count[t]++;
      s->rest[t] += p->size[c.index];
      s->cross[t] += t + 1 < p->last[c.index];
    }
  }
}

/* ---- choosing ---- */

/* A pit: sections [begin, end) of one floor. before[t] and after[t] become the least top that a buffer of the pit has
   when it ends at or before section t, or begins after it: what can hold up another in section t from beside. */
static void look_beside(tern__search *s, uint32_t begin, uint32_t end) {
  const tern__part *p = s->part;
  for (uint32_t t = begin; t < end; t++) s->before[t] = s->after[t] = UINT64_MAX;
  for (uint32_t t = begin; t < end; t++) {
    const uint32_t *member = s->members + s->start[t];
    s->work += s->count[t] * 2; /* ask, too */
    for (uint32_t i = 0; i < s->count[t]; i++) {
      const uint32_t v = member[i];
      const uint64_t top = s->least[v] + p->size[v];
      if (p->last[v] == t + 1 && t + 1 < end && top < s->before[t + 1]) s->before[t + 1] = top;
      if (p->first[v] == t && t > begin && top < s->after[t - 1]) s->after[t - 1] = top;
    }
  }
  for (uint32_t t = begin + 1; t < end; t++)
    if (s->before[t - 1] < s->before[t]) s->before[t] = s->before[t - 1];
  for (uint32_t t = end - 1; t > begin; t--)
    if (s->after[t] < s->after[t - 1]) s->after[t - 1] = s->after[t];
}

typedef struct question {
  uint32_t section, n; /* n: how many can start at the section's floor */
  uint64_t raise;      /* the floor if none does; 0: one must, the section has no room to waste */
} question;

static question ask(const tern__search *s, uint32_t t) {
  const uint64_t floor = s->floor[t], slack = s->padded - floor - s->rest[t];
  const uint32_t *member = s->members + s->start[t];
  question q = {t, 0, 0};
  uint64_t next = UINT64_MAX;
  for (uint32_t i = 0; i < s->count[t]; i++) {
    const uint64_t least = s->least[member[i]];
    if (least == floor)
      q.n++;
    else if (least < next)
      next = least;
  }
  /* one that could start here rests on a buffer beside the section instead */
  if (s->before[t] < next) next = s->before[t];
  if (s->after[t] < next) next = s->after[t];
  if (next != UINT64_MAX && next - floor <= slack) q.raise = next;
  return q;
}

/* The section of the component's pits with the fewest answers; of equals in the lowest pit, then the leftmost. */
static question choose(tern__search *s, const component *c) {
  question best = {0, UINT32_MAX, 0};
  uint32_t least = UINT32_MAX;
  for (uint32_t begin = c->begin, end; begin < c->end; begin = end) {
    const uint64_t floor = s->floor[begin];
    for (end = begin + 1; end < c->end && s->floor[end] == floor;) end++;
    if ((begin > c->begin && s->floor[begin - 1] < floor) || (end < c->end && s->floor[end] < floor)) continue;
    look_beside(s, begin, end);
    for (uint32_t t = begin; t < end; t++) {
      const question q = ask(s, t);
      const uint32_t answers = q.n + (q.raise != 0);
      if (answers > least || (answers == least && floor >= s->floor[best.section])) continue;
      best = q;
      least = answers;
      if (least <= 1) return best;
    }
  }
  return best;
}

/* A buffer that differs from an earlier choice in nothing. */
static bool twin(const tern__part *p, const uint32_t *choice, uint32_t n, uint32_t v) {
  for (uint32_t i = 0; i < n; i++) {
    const uint32_t w = choice[i];
    if (p->first[v] == p->first[w] && p->last[v] == p->last[w] && p->size[v] == p->size[w] &&
        p->align[v] == p->align[w] && p->trim[v] == p->trim[w])
      return true;
  }
  return false;
}

/* The choices of a frame, best score first. */
static bool list_choices(tern__search *s, frame *f, const question *q) {
  const tern__part *p = s->part;
  const uint32_t *member = s->members + s->start[q->section];
  if (!reserve(s, (void **)&s->choices, &s->room_choices, s->n_choices, q->n, sizeof *s->choices)) return false;
  uint32_t *choice = s->choices + s->n_choices, n = 0;
  for (uint32_t i = 0; i < s->count[q->section]; i++) {
    const uint32_t v = member[i];
    if (s->least[v] != s->floor[q->section] || twin(p, choice, n, v)) continue;
    uint32_t k = n++;
    for (; k; k--) {
      const uint32_t w = choice[k - 1];
      if (s->score[w] > s->score[v] || (s->score[w] == s->score[v] && w < v)) break;
      choice[k] = w;
    }
    choice[k] = v;
  }
  f->choices = (uint32_t)s->n_choices;
  f->n_choices = n;
  s->n_choices += n;
  return true;
}

/* Scores by which choices are tried, highest first. */
static void set_order(tern__search *s, int order) {
  const tern__part *p = s->part;
  s->order = order;
  for (uint32_t v = 0; v < p->count; v++) {
    const double size = (double)p->size[v], width = p->last[v] - p->first[v];
    const double noise = (double)(mix(s->key[v] + (uint64_t)order) >> 11) * 0x1p-53;
    double score = size * width;
    if (order % TERN__SEARCH_ORDERS == 1) score = width * 1e6 + size / (double)p->total;
    if (order % TERN__SEARCH_ORDERS == 2) score = size;
    if (order % TERN__SEARCH_ORDERS == 3) score = size * width * width;
    if (order % TERN__SEARCH_ORDERS == 4) score = size * size * width;
    if (order % TERN__SEARCH_ORDERS == 5) score = -size * width;
    if (order >= TERN__SEARCH_ORDERS) score *= 0.7 + 0.6 * noise;
    s->score[v] = score;
  }
}

/* ---- the search ---- */

/* Puts the components that remain of sections [begin, end) before the list `next`, smallest first. */
static bool split(tern__search *s, uint32_t begin, uint32_t end, int32_t parent, int32_t *next) {
  int32_t head = *next;
  const int32_t tail = head;
  for (uint32_t t = begin; t < end;) {
    if (!s->count[t]) {
      t++;
      continue;
    }
    uint32_t stop = t;
    while (s->cross[stop]) stop++;
    stop++;
    if (!reserve(s, (void **)&s->components, &s->room_components, s->n_components, 1, sizeof *s->components))
      return false;
    int32_t *link = &head;
    while (*link != tail && s->components[*link].end - s->components[*link].begin < stop - t)
      link = &s->components[*link].next;
    const int32_t self = (int32_t)s->n_components++;
    s->components[self] = (component){t, stop, parent, *link};
    *link = self;
    t = stop;
  }
  *next = head;
  return true;
}

/* Opens a frame for a component; false: it has no plan. */
static bool open_frame(tern__search *s, const component *c) {
  if (s->n_frames == s->room_frames &&
      !reserve(s, (void **)&s->frames, &s->room_frames, s->n_frames, 1, sizeof *s->frames))
    return false;
  frame *f = &s->frames[s->n_frames];
  *f = (frame){.part = *c, .changes = s->n_changes, .components = (int32_t)s->n_components};
  for (uint32_t t = c->begin; t < c->end; t++) f->hash ^= s->set[t];
  if (tern__memo_refuted(&s->memo, f->hash, c->begin, c->end, s->floor)) return false;
  const question q = choose(s, c);
  if (q.n == 0 && !q.raise) return false;
  if (!list_choices(s, f, &q)) return false;
  f->section = q.section;
  f->raise = q.raise;
  s->n_frames++;
  return true;
}

/* Makes the frame's next choice; false when there is none left. */
static bool advance(tern__search *s, frame *f) {
  while (!s->no_memory) {
    undo(s, f->changes);
    s->n_components = (size_t)f->components;
    const uint32_t i = f->tried++;
    if (i > f->n_choices || (i == f->n_choices && !f->raise)) return false;
    s->nodes++;
    if (i < f->n_choices ? place(s, s->choices[f->choices + i]) : raise_floor(s, f->section, f->raise) && propagate(s))
      return true;
  }
  return false;
}

/* The component of the last frame has no plan: to the frame that made it, whose next choice is made; NIL: none. */
static int32_t retreat(tern__search *s, int32_t at) {
  while (at != NIL && !s->no_memory) {
    frame *f = &s->frames[at];
    s->n_frames = (size_t)at + 1;
    s->n_choices = f->choices + f->n_choices;
    if (advance(s, f)) return at;
    if (s->no_memory) break;
    tern__memo_add(&s->memo, f->hash, f->part.begin, f->part.end, s->floor);
    s->n_choices = f->choices;
    at = f->part.parent;
  }
  return NIL;
}

static void take_plan(tern__search *s) {
  memcpy(s->part->offset, s->offset, s->part->count * sizeof *s->offset);
  s->part->height = tern__part_height(s->part, s->offset);
}

tern__found tern__search_run(tern__search *s, uint64_t capacity, int order, uint64_t nodes, double deadline) {
  const uint64_t until = s->nodes + nodes;
  uint64_t clock = s->work + CHECK_CLOCK;
  if (capacity > s->capacity) tern__memo_clear(&s->memo); /* what is refuted is so for lower capacities too */
  s->capacity = capacity;
  s->padded = tern__plan_up(capacity, s->part->unit) / s->part->grain * s->part->grain;
  if (!tern__memo_init(&s->memo, s->padded)) return TERN__NO_MEMORY;
  set_order(s, order);
  reset(s);
  for (uint32_t t = 0; t < s->part->sections; t++) touch(s, t);
  int32_t pending = NIL;
  if (!propagate(s)) return s->no_memory ? TERN__NO_MEMORY : TERN__NONE;
  if (!split(s, 0, s->part->sections, NIL, &pending)) return TERN__NO_MEMORY;
  while (pending != NIL) {
    const component c = s->components[pending];
    int32_t at = c.parent;
    if (open_frame(s, &c)) at = (int32_t)s->n_frames - 1;
    if (s->no_memory) return TERN__NO_MEMORY;
    at = retreat(s, at);
    if (s->no_memory) return TERN__NO_MEMORY;
    if (at == NIL) return TERN__NONE;
    pending = s->frames[at].part.next;
    if (!split(s, s->frames[at].part.begin, s->frames[at].part.end, at, &pending)) return TERN__NO_MEMORY;
    if (s->nodes >= until) return TERN__GAVE_UP;
    if (s->work >= clock) {
      if (tern__plan_now() >= deadline) return TERN__TIME_OUT;
      clock = s->work + CHECK_CLOCK;
    }
  }
  take_plan(s);
  return TERN__FOUND;
}
