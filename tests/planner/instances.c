/* See instances.h. Everything follows from the seed. */
#include "planner/instances.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void instance_free(instance *i) {
  free(i->buffers);
  *i = (instance){0};
}

uint64_t instance_random(uint64_t *state) { /* splitmix64 */
  uint64_t x = *state += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

static uint64_t below(uint64_t *state, uint64_t n) { return n ? instance_random(state) % n : 0; }

static size_t add(instance *i, int64_t lower, int64_t upper, uint64_t size) {
  if (i->count == i->room) {
    i->room = i->room * 2 + 64;
    tern__buffer *more = realloc(i->buffers, i->room * sizeof *more);
    if (!more) {
      perror("instance");
      exit(2);
    }
    i->buffers = more;
  }
  i->buffers[i->count] = (tern__buffer){lower, upper, size, 1, 0};
  return i->count++;
}

/* ---- cut rectangles; a piece's place is kept in offset until the end ---- */

/* Cuts piece p in two. */
static void cut_straight(instance *i, size_t p, bool time, uint64_t *seed) {
  tern__buffer b = i->buffers[p];
  if (time) {
    const int64_t at = b.lower + 1 + (int64_t)below(seed, (uint64_t)(b.upper - b.lower) - 1);
    i->buffers[p].upper = at;
    b.lower = at;
  } else {
    const uint64_t size = 1 + below(seed, b.size - 1);
    i->buffers[p].size = size;
    b.offset += size;
    b.size -= size;
  }
  const size_t q = add(i, b.lower, b.upper, b.size);
  i->buffers[q].offset = b.offset;
}

/* Cuts piece p into four arms around a middle. */
static void cut_pinwheel(instance *i, size_t p, uint64_t *seed) {
  const tern__buffer b = i->buffers[p];
  const int64_t w = b.upper - b.lower, x1 = b.lower + 1 + (int64_t)below(seed, (uint64_t)w / 2 - 1),
                x2 = b.upper - 1 - (int64_t)below(seed, (uint64_t)w / 2 - 1);
  const uint64_t y1 = 1 + below(seed, b.size / 2 - 1), y2 = b.size - 1 - below(seed, b.size / 2 - 1);
  const struct {
    int64_t l, u;
    uint64_t bottom, top;
  } piece[] = {{b.lower, x2, 0, y1},
               {x2, b.upper, 0, y2},
               {x1, b.upper, y2, b.size},
               {b.lower, x1, y1, b.size},
               {x1, x2, y1, y2}};
  for (int k = 0; k < 5; k++) {
    const size_t q = k ? add(i, 0, 0, 0) : p;
    i->buffers[q] =
        (tern__buffer){piece[k].l, piece[k].u, piece[k].top - piece[k].bottom, 1, b.offset + piece[k].bottom};
  }
}

instance instance_cut(size_t pieces, int64_t width, uint64_t height, int gone, uint64_t seed) {
  instance i = {0};
  add(&i, 0, width, height);
  for (size_t tries = 0; i.count < pieces && tries < pieces * 50; tries++) {
    /* the larger of some, so that there is no piece much larger than the others */
    size_t p = below(&seed, i.count);
    for (int k = 0; k < 3; k++) {
      const size_t q = below(&seed, i.count);
      if ((double)i.buffers[q].size * (double)(i.buffers[q].upper - i.buffers[q].lower) >
          (double)i.buffers[p].size * (double)(i.buffers[p].upper - i.buffers[p].lower))
        p = q;
    }
    const tern__buffer b = i.buffers[p];
    const bool wide = b.upper - b.lower > 4, high = b.size > 4;
    if (wide && high && below(&seed, 4) == 0)
      cut_pinwheel(&i, p, &seed);
    else if (wide && (!high || below(&seed, 2)))
      cut_straight(&i, p, true, &seed);
    else if (high)
      cut_straight(&i, p, false, &seed);
  }
  for (size_t k = i.count; k--;) { /* in an order that says nothing of the places */
    const size_t q = below(&seed, k + 1);
    const tern__buffer b = i.buffers[k];
    i.buffers[k] = i.buffers[q];
    i.buffers[q] = b;
    i.buffers[q].offset = 0;
  }
  size_t kept = 0;
  for (size_t k = 0; k < i.count; k++)
    if (below(&seed, 1000) >= (uint64_t)gone) i.buffers[kept++] = i.buffers[k];
  i.count = kept;
  for (size_t k = 0; k < kept; k++) i.buffers[k].offset = 0;
  return i;
}

/* ---- networks: an op makes one buffer, which lives until its last use ---- */

static size_t op(instance *i, uint64_t size) {
  const size_t b = add(i, i->now, i->now + 1, size);
  i->now++;
  return b;
}

/* The op that comes next reads b. */
static void use(instance *i, size_t b) {
  if (i->buffers[b].upper < i->now + 1) i->buffers[b].upper = i->now + 1;
}

static size_t unary(instance *i, size_t a, uint64_t size) {
  use(i, a);
  return op(i, size);
}

static size_t binary(instance *i, size_t a, size_t b, uint64_t size) {
  use(i, a);
  use(i, b);
  return op(i, size);
}

static void residual(instance *i, size_t ops, uint64_t *seed) {
  uint64_t size = 64 * 56 * 56 * 4;
  size_t x = op(i, size);
  while (i->count < ops) {
    const size_t skip = x;
    const uint64_t inner = size * (1 + below(seed, 4)) / (1 + below(seed, 3)) / 64 * 64;
    for (size_t k = 1 + below(seed, 4); k--;) x = unary(i, unary(i, x, inner), inner);
    x = binary(i, unary(i, x, size), skip, size);
    if (below(seed, 12) == 0 && size > 4096) size = size * 3 / 4 / 64 * 64, x = unary(i, x, size);
  }
  unary(i, x, 4000);
}

static void transformer(instance *i, size_t ops, uint64_t *seed) {
  enum { SAVED = 9 };
  const size_t layers = ops / 31 + 1;
  size_t *saved = malloc(layers * SAVED * sizeof *saved);
  if (!saved) return;
  const uint64_t width = 256 + 64 * below(seed, 8), tokens = 128 + below(seed, 512), x_size = width * tokens * 4,
                 scores = tokens * tokens * 8 * 4;
  size_t x = op(i, x_size);
  for (size_t l = 0; l < layers; l++) {
    size_t *s = saved + l * SAVED;
    s[0] = x;
    const size_t norm = s[1] = unary(i, x, x_size);
    s[2] = unary(i, norm, x_size);
    s[3] = unary(i, norm, x_size);
    s[4] = unary(i, norm, x_size);
    s[5] = unary(i, binary(i, s[2], s[3], scores), scores);
    s[6] = binary(i, s[5], s[4], x_size);
    const size_t y = binary(i, unary(i, s[6], x_size), x, x_size);
    s[7] = unary(i, unary(i, y, x_size), 4 * x_size);
    s[8] = unary(i, s[7], 4 * x_size);
    x = binary(i, unary(i, s[8], x_size), y, x_size);
  }
  size_t d = unary(i, x, x_size);
  for (size_t l = layers; l--;) {
    const size_t *s = saved + l * SAVED;
    binary(i, d, s[8], 16 * width * width);
    size_t e = binary(i, unary(i, d, 4 * x_size), s[7], 4 * x_size);
    d = binary(i, unary(i, e, x_size), d, x_size);
    binary(i, d, s[6], 4 * width * width);
    e = unary(i, d, x_size);
    const size_t weights = binary(i, e, s[4], scores), dv = binary(i, s[5], e, x_size);
    const size_t ds = binary(i, weights, s[5], scores);
    const size_t dq = binary(i, ds, s[3], x_size), dk = binary(i, ds, s[2], x_size);
    binary(i, dq, s[1], 4 * width * width);
    binary(i, dk, s[1], 4 * width * width);
    binary(i, dv, s[1], 4 * width * width);
    e = binary(i, binary(i, dq, dk, x_size), dv, x_size);
    d = binary(i, binary(i, e, s[0], x_size), d, x_size);
  }
  free(saved);
}

static void branches(instance *i, size_t ops, uint64_t *seed) {
  enum { MOST = 8 };
  uint64_t size = 192 * 35 * 35 * 4;
  size_t x = op(i, size), before = x;
  while (i->count < ops) {
    size_t out[MOST], tip[MOST], left[MOST], n = 2 + below(seed, MOST - 2), busy = n;
    for (size_t k = 0; k < n; k++) tip[k] = below(seed, 3) ? x : before, left[k] = 1 + below(seed, 5);
    while (busy) { /* branches are interleaved, as a scheduler leaves them */
      const size_t k = below(seed, n);
      if (!left[k]) continue;
      tip[k] = unary(i, tip[k], size * (1 + below(seed, 8)) / 8 / 64 * 64 + 64);
      if (!--left[k]) out[k] = tip[k], busy--;
    }
    before = x;
    for (size_t k = 0; k < n; k++) use(i, out[k]);
    x = op(i, size);
    if (below(seed, 10) == 0 && size > 8192) size = size * 2 / 3 / 64 * 64;
  }
}

static void recurrent(instance *i, size_t ops, uint64_t *seed) {
  const size_t steps = ops / 14 + 1;
  size_t *kept = malloc(steps * 3 * sizeof *kept);
  if (!kept) return;
  const uint64_t hidden = (64 + 32 * below(seed, 8)) * 32 * 4;
  const size_t sequence = op(i, steps * hidden / 2), outputs = op(i, steps * hidden);
  size_t h = op(i, hidden), c = op(i, hidden);
  for (size_t t = 0; t < steps; t++) {
    const size_t gates = kept[3 * t] = binary(i, sequence, h, 4 * hidden);
    const size_t act = kept[3 * t + 1] = unary(i, gates, 4 * hidden);
    kept[3 * t + 2] = c;
    c = binary(i, act, c, hidden);
    h = binary(i, act, unary(i, c, hidden), hidden);
    use(i, outputs);
  }
  size_t dh = unary(i, outputs, hidden), dc = op(i, hidden);
  const size_t dw = op(i, 16 * hidden);
  for (size_t t = steps; t--;) {
    use(i, dw);
    use(i, kept[3 * t + 2]);
    const size_t inner = binary(i, dh, kept[3 * t + 1], hidden);
    dc = binary(i, dc, inner, hidden);
    const size_t dg = binary(i, dc, kept[3 * t], 4 * hidden);
    dh = binary(i, dg, sequence, hidden);
  }
  free(kept);
}

instance instance_network(instance_net net, size_t ops, uint64_t seed) {
  static void (*const build[NET_COUNT])(instance *, size_t, uint64_t *) = {residual, transformer, branches, recurrent};
  instance i = {0};
  build[net](&i, ops, &seed);
  return i;
}

const char *instance_net_name(instance_net net) {
  static const char *const names[] = {"residual", "transformer", "branches", "recurrent"};
  return names[net];
}

/* ---- checking: a sweep over time, with the live buffers in an array sorted by offset ---- */

static int by_lower(const void *a, const void *b) {
  const tern__buffer *x = *(tern__buffer *const *)a, *y = *(tern__buffer *const *)b;
  if (x->lower != y->lower) return x->lower < y->lower ? -1 : 1;
  return (x > y) - (x < y);
}

static bool no_overlap(const tern__buffer *buffers, size_t count) {
  const tern__buffer **order = malloc((count + 1) * sizeof *order), **live = malloc((count + 1) * sizeof *live);
  size_t n = 0;
  bool good = order && live;
  for (size_t i = 0; good && i < count; i++) order[i] = &buffers[i];
  if (good) qsort(order, count, sizeof *order, by_lower);
  for (size_t i = 0; good && i < count; i++) {
    const tern__buffer *b = order[i];
    size_t kept = 0;
    if (!b->size) continue;
    for (size_t k = 0; k < n; k++) {
      const tern__buffer *w = live[k];
      if (w->upper <= b->lower) continue;
      live[kept++] = w;
      if (w->offset < b->offset + b->size && b->offset < w->offset + w->size) good = false;
    }
    n = kept;
    live[n++] = b;
  }
  free(order);
  free(live);
  return good;
}

const char *instance_wrong(const tern__buffer *buffers, size_t count, const tern__plan_opts *opts,
                           const tern__plan_report *report) {
  uint64_t height = 0;
  for (size_t i = 0; i < count; i++) {
    const tern__buffer *b = &buffers[i];
    if (b->align && b->offset % b->align) return "a buffer is not aligned to its own alignment";
    if (opts && opts->align && b->offset % opts->align) return "a buffer is not aligned to the common alignment";
    if (b->size && b->offset + b->size > height) height = b->offset + b->size;
  }
  if (height != report->height) return "the height is not the report's";
  if (height < report->lower_bound) return "the height is below the lower bound";
  if (height == report->lower_bound && !report->proved) return "the bound is met, but not said to be the least";
  if (opts && opts->capacity && report->fits != (height <= opts->capacity)) return "fits is wrong";
  return no_overlap(buffers, count) ? NULL : "two buffers overlap";
}
