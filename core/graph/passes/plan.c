/* The planner. Time is cut into sections and, where nothing is live across, into parts that are planned alone (their
   arenas are the same bytes). Every part gets the best of several quick plans. Where that is higher than the lower
   bound, the largest live sum, the exact search is asked for a plan of exactly that height, from several starts with a
   node budget each, and after that for heights between the bound and the best plan, with growing budgets: how hard a
   height is to decide does not grow evenly with it. */
#include "graph/passes/plan.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/thread.h"
#include "graph/passes/plan_parts.h"

enum { NODES = 1500, FIRST_EFFORT = 12, LEAST_EFFORT = 3, REPAIR_ROUNDS = 24 };

double tern__plan_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

uint64_t tern__part_height(const tern__part *p, const uint64_t *offset) {
  uint64_t height = 0;
  for (uint32_t v = 0; v < p->count; v++) {
    const uint64_t top = offset[v] + (p->size[v] - p->trim[v]);
    if (top > height) height = top;
  }
  return height;
}

/* ---- the instance ---- */

/* All buffers of a size above 0, in order of first section, and the parts, which are runs of them. */
typedef struct instance {
  tern__buffer *buffers;
  size_t *origin;   /* [count]: index in buffers */
  tern__part whole; /* every buffer; its arrays are one block and the parts point into them */
  tern__part *parts;
  uint32_t n_parts;
  uint64_t naive, bound, nodes;
  double deadline;
} instance;

typedef struct event {
  int64_t time;
  size_t buffer; /* with the top bit: it begins */
} event;

#define BEGINS ((size_t)1 << (sizeof(size_t) * 8 - 1))

static int by_time(const void *a, const void *b) {
  const event *x = a, *y = b;
  if (x->time != y->time) return x->time < y->time ? -1 : 1;
  return (x->buffer > y->buffer) - (x->buffer < y->buffer); /* ends before beginnings */
}

static uint64_t gcd(uint64_t a, uint64_t b) {
  while (b) {
    const uint64_t r = a % b;
    a = b;
    b = r;
  }
  return a;
}

/* The least common multiple, 0 above 2^63 - 1. */
static uint64_t lcm(uint64_t a, uint64_t b) {
  uint64_t product;
  if (__builtin_mul_overflow(a / gcd(a, b), b, &product) || product > INT64_MAX) return 0;
  return product;
}

/* Checks the buffers; sets naive, whole.count, unit; *align receives every buffer's alignment. */
static tern_rc check(instance *in, size_t n, uint64_t common, uint64_t *align) {
  uint64_t worst = 0; /* stacking everything in the worst order */
  for (size_t i = 0; i < n; i++) {
    const tern__buffer *b = &in->buffers[i];
    align[i] = lcm(b->align ? b->align : 1, common);
    if (b->lower >= b->upper)
      return tern__fail(TERN_E_ARG, "plan: buffer %zu lives in [%lld, %lld), which is empty; its upper must be greater",
                        i, (long long)b->lower, (long long)b->upper);
    if (!align[i]) return tern__fail(TERN_E_ARG, "plan: the alignment of buffer %zu is above 2^63 - 1", i);
    if (!b->size) continue;
    if (__builtin_add_overflow(worst, b->size, &worst) || __builtin_add_overflow(worst, align[i] - 1, &worst) ||
        worst > INT64_MAX)
      return tern__fail(TERN_E_ARG, "plan: the sizes add up to more than 2^63 - 1 bytes (at buffer %zu)", i);
    in->naive += tern__plan_up(b->size, align[i]);
    in->whole.unit = gcd(align[i], in->whole.unit);
    in->whole.count++;
  }
  if (in->whole.count > UINT32_MAX / 4) return tern__fail(TERN_E_ARG, "plan: more than 2^30 buffers");
  return TERN_OK;
}

/* Numbers the sections: one ends wherever a buffer ends after another began. Fills first, last and the order. */
static void cut(instance *in, const event *events, size_t n, uint32_t *first, uint32_t *number) {
  tern__part *p = &in->whole;
  uint32_t section = 0, next = 0;
  bool open = false;
  for (size_t i = 0; i < n; i++) {
    const size_t b = events[i].buffer & ~BEGINS;
    if (events[i].buffer & BEGINS) {
      number[b] = next;
      in->origin[next] = b;
      first[next++] = section;
      open = true;
      continue;
    }
    section += open;
    open = false;
    p->last[number[b]] = section;
  }
  p->sections = section;
}

/* A part's own figures. */
static void measure(tern__part *p, const uint64_t *live, const uint64_t *trim) {
  bool same = true;
  for (uint32_t v = 0; v < p->count; v++) {
    p->total += p->size[v];
    p->grain = gcd(p->size[v], p->grain);
    same = same && p->align[v] == p->align[0];
  }
  if (!same) p->grain = p->unit;
  for (uint32_t t = 0; t < p->sections; t++)
    if (live[t] - trim[t] > p->bound) p->bound = live[t] - trim[t];
}

/* Splits the whole where no buffer is live across; live and trim (the largest of a section) by section. */
static void divide(instance *in, const uint64_t *live, const uint64_t *trim) {
  const tern__part *w = &in->whole;
  for (uint32_t v = 0; v < w->count;) {
    const uint32_t begin = v, from = w->first[v];
    uint32_t to = w->last[v];
    for (; v < w->count && w->first[v] < to; v++)
      if (w->last[v] > to) to = w->last[v];
    tern__part *p = &in->parts[in->n_parts++];
    *p = (tern__part){.count = v - begin, .sections = to - from, .unit = w->unit};
    p->first = w->first + begin, p->last = w->last + begin, p->size = w->size + begin;
    p->trim = w->trim + begin, p->align = w->align + begin, p->offset = w->offset + begin;
    for (uint32_t k = begin; k < v; k++) w->first[k] -= from, w->last[k] -= from;
    measure(p, live + from, trim + from);
    if (p->bound > in->bound) in->bound = p->bound;
  }
}

/* Sums sizes over sections (differences first), and the largest trim of each: a buffer's top is not rounded up, so
   one live set's height is its padded sum less at most the largest trim. */
static void sum_live(const tern__part *w, uint64_t *live, uint64_t *trim) {
  for (uint32_t v = 0; v < w->count; v++) {
    live[w->first[v]] += w->size[v];
    live[w->last[v]] -= w->size[v];
  }
  for (uint32_t t = 1; t < w->sections; t++) live[t] += live[t - 1];
  for (uint32_t v = 0; v < w->count && w->unit > 1; v++)
    for (uint32_t t = w->first[v]; t < w->last[v]; t++)
      if (w->trim[v] > trim[t]) trim[t] = w->trim[v];
}

static tern_rc build(instance *in, size_t n, const uint64_t *align) {
  tern__part *w = &in->whole;
  const size_t m = w->count;
  event *events = tern__calloc(2 * m, sizeof *events);
  uint32_t *number = tern__calloc(n, sizeof *number);
  uint64_t *sums = tern__calloc(2 * (m + 1), sizeof *sums);
  in->origin = tern__calloc(m, sizeof *in->origin);
  in->parts = tern__calloc(m, sizeof *in->parts);
  w->size = tern__calloc(m * 5, sizeof *w->size); /* and trim, align, offset; first and last, of half the size */
  const bool ok = events && number && sums && in->origin && in->parts && w->size;
  if (ok) {
    w->trim = w->size + m, w->align = w->trim + m, w->offset = w->align + m;
    w->first = (uint32_t *)(w->offset + m), w->last = w->first + m;
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
      if (!in->buffers[i].size) continue;
      events[k++] = (event){in->buffers[i].lower, i | BEGINS};
      events[k++] = (event){in->buffers[i].upper, i};
    }
    qsort(events, 2 * m, sizeof *events, by_time);
    cut(in, events, 2 * m, w->first, number);
    for (size_t v = 0; v < m; v++) {
      const tern__buffer *b = &in->buffers[in->origin[v]];
      w->size[v] = tern__plan_up(b->size, w->unit);
      w->trim[v] = w->size[v] - b->size;
      w->align[v] = align[in->origin[v]];
    }
    sum_live(w, sums, sums + m + 1);
    divide(in, sums, sums + m + 1);
  }
  free(events);
  free(number);
  free(sums);
  return ok ? TERN_OK : tern__fail(TERN_E_OOM, "plan: no memory for %zu buffers", m);
}

static void drop(instance *in) {
  free(in->origin);
  free(in->parts);
  free(in->whole.size);
}

/* ---- improving one part ---- */

typedef struct attempt {
  tern__part *part;
  tern__search *search;
  uint64_t refuted; /* no plan of this height or less */
  int order;        /* of the next start */
  double deadline;
} attempt;

/* Luby's sequence 1 1 2 1 1 2 4 ...: how long a start lasts when nobody knows how long it should. */
static uint64_t luby(uint64_t i) {
  for (i++;;) {
    uint64_t top = 1;
    while (top * 2 - 1 < i) top *= 2;
    if (top * 2 - 1 == i) return top;
    i -= top - 1;
  }
}

/* Several starts at one height. */
static tern__found try_height(attempt *a, uint64_t height, uint64_t starts) {
  for (uint64_t i = 0; i < starts; i++) {
    if (tern__plan_now() >= a->deadline) return TERN__TIME_OUT;
    const uint64_t nodes = luby(i) * NODES + 2 * (uint64_t)a->part->count; /* enough for one way straight to the end */
    const tern__found found = tern__search_run(a->search, height, a->order++, nodes, a->deadline);
    if (found == TERN__NONE) a->refuted = height;
    if (found != TERN__GAVE_UP) return found;
  }
  return TERN__GAVE_UP;
}

/* Bisects between goal and the best plan as if no height below one that was given up were possible, over and over with
   twice the effort. */
static tern__found descend(attempt *a, uint64_t goal) {
  const uint64_t grain = a->part->grain;
  uint64_t effort = LEAST_EFFORT, low = goal;
  while (a->part->height > goal && a->refuted < a->part->height - 1) {
    if (a->refuted >= goal) goal = a->refuted + 1;
    if (low < goal) low = goal;
    const uint64_t room = (a->part->height - 1 - low) / grain;
    const uint64_t height = room < 2 ? a->part->height - 1 : low + room / 2 * grain;
    const tern__found found = try_height(a, height, effort);
    if (found == TERN__TIME_OUT || found == TERN__NO_MEMORY) return found;
    if (found != TERN__FOUND) low = height + 1;
    if (low >= a->part->height) {
      low = goal;
      effort *= 2;
    }
  }
  return TERN__FOUND;
}

static tern_rc improve(instance *in, tern__part *part, uint64_t goal, bool fixed, double deadline) {
  const double start = tern__plan_now();
  if (goal < part->bound) goal = part->bound;
  tern_rc rc = tern__plan_repair(part, goal, REPAIR_ROUNDS, start + (deadline - start) * 0.1);
  if (rc || part->height <= goal || tern__plan_now() >= deadline) return rc;
  attempt a = {part, tern__search_new(part), part->bound - 1, 0, start + (deadline - start) * (fixed ? 0.6 : 0.3)};
  tern__found found = TERN__NO_MEMORY;
  if (a.search) {
    const uint64_t effort = fixed ? UINT64_MAX : (uint64_t)FIRST_EFFORT * 32;
    try_height(&a, goal, effort);
    a.deadline = deadline;
    found = descend(&a, goal);
    in->nodes += tern__search_nodes(a.search);
    if (a.refuted > part->bound - 1) part->bound = a.refuted + 1;
    tern__search_free(a.search);
  }
  return found == TERN__NO_MEMORY ? tern__plan_repair(part, goal, UINT32_MAX, deadline) : TERN_OK;
}

/* ---- all of it ---- */

/* Only the highest part counts: it is improved, for half of the time that is left, until it cannot be or another is the
   highest. */
static tern_rc solve(instance *in, uint64_t capacity) {
  const double start = tern__plan_now();
  const uint64_t goal = in->bound > capacity ? in->bound : capacity;
  tern_rc rc = TERN_OK;
  for (uint32_t i = 0; i < in->n_parts && !rc; i++)
    rc = tern__plan_greedy(&in->parts[i], goal, start + (in->deadline - start) * 0.3);
  if (rc) return tern__fail(rc, "plan: no memory for the quick plan");
  for (double now; (now = tern__plan_now()) < in->deadline;) {
    tern__part *highest = in->parts;
    uint32_t above = 0;
    for (uint32_t i = 0; i < in->n_parts; i++) {
      if (in->parts[i].height > highest->height) highest = &in->parts[i];
      above += in->parts[i].height > goal;
    }
    if (highest->height <= goal || highest->height <= highest->bound) break;
    const double left = in->deadline - now;
    rc = improve(in, highest, goal, capacity >= in->bound, above == 1 || left < 0.01 ? in->deadline : now + left / 2);
    if (rc == TERN_E_OOM) break; /* without memory for more the plan stays as it is */
    if (rc) return rc;
  }
  return TERN_OK;
}

static void finish(instance *in, uint64_t capacity, tern__plan_report *r) {
  const tern__part *w = &in->whole;
  uint64_t height = 0, bound = in->bound;
  for (uint32_t v = 0; v < w->count; v++) {
    tern__buffer *b = &in->buffers[in->origin[v]];
    b->offset = w->offset[v];
    if (b->offset + b->size > height) height = b->offset + b->size;
  }
  for (uint32_t i = 0; i < in->n_parts; i++)
    if (in->parts[i].bound > bound) bound = in->parts[i].bound;
  r->lower_bound = in->bound;
  r->height = height;
  r->naive = in->naive;
  r->proved = height <= bound;
  r->fits = !capacity || height <= capacity;
  r->refuted = capacity && bound > capacity;
  r->nodes = in->nodes;
}

tern_rc tern__plan(tern__buffer *buffers, size_t n, const tern__plan_opts *opts, tern__plan_report *report) {
  const double start = tern__plan_now();
  const tern__plan_opts o = opts ? *opts : (tern__plan_opts){0};
  instance in = {.buffers = buffers, .deadline = start + (o.seconds > 0 ? o.seconds : TERN__PLAN_SECONDS)};
  tern__plan_report ignored;
  tern__plan_report *r = report ? report : &ignored;
  *r = (tern__plan_report){.fits = true, .proved = true};
  for (size_t i = 0; i < n; i++) buffers[i].offset = 0;
  if (!n) return TERN_OK;
  uint64_t *align = tern__calloc(n, sizeof *align);
  if (!align) return tern__fail(TERN_E_OOM, "plan: no memory for %zu buffers", n);
  tern_rc rc = check(&in, n, o.align ? o.align : 1, align);
  if (!rc && in.whole.count) {
    rc = build(&in, n, align);
    if (!rc) rc = solve(&in, o.capacity);
    if (!rc) finish(&in, o.capacity, r);
    drop(&in);
  }
  free(align);
  r->seconds = tern__plan_now() - start;
  return rc;
}
