/* What depends on what, and what is run beside what (replay.h). Segments alternate: all launches that may be side by
   side and wait for nothing else, then all others that are ready, and so on. Which launches may is decided by how much
   slower they are on one thread: several limits are tried and the schedule of each is worked out. */
#include "replay.h"
#include <stdlib.h>
#include <string.h>

enum {
  FORK_NS = 2500,    /* threads start and end together: 1.1 us where they wait hot, more where they have gone idle */
  CLAIM_NS = 200,    /* a launch is handed out */
  LEAST_GAIN = 5000, /* ns that a run must gain for anybody to care */
  GAIN_PERCENT = 8,  /* of a run, by the plan */
  MOST_THREADS = 128
};

/* ---- dependences ---- */

static bool bit(const uint64_t *row, uint32_t i) { return row[i / 64] >> (i % 64) & 1; }
static void set_bit(uint64_t *row, uint32_t i) { row[i / 64] |= UINT64_C(1) << (i % 64); }

bool replay_conflict(const replay_node *a, const replay_node *b) {
  for (uint32_t i = 0; i < a->n_spans; i++)
    for (uint32_t k = 0; k < b->n_spans; k++)
      if (touch_conflict(&a->span[i], &b->span[k])) return true;
  return false;
}

/* From the nearest earlier launch on: what is reached through it need not be compared. pair[]: later, earlier */
static bool find_edges(tern_program *p, uint32_t **pair, uint32_t *n) {
  uint32_t room = 0;
  for (uint32_t j = 0; j < p->n; j++) {
    uint64_t *const row = p->reach + (size_t)j * p->words;
    for (uint32_t i = j; i-- > 0;) {
      if (bit(row, i) || !replay_conflict(&p->node[i], &p->node[j])) continue;
      const uint64_t *const through = p->reach + (size_t)i * p->words;
      for (uint32_t w = 0; w < p->words; w++) row[w] |= through[w];
      set_bit(row, i);
      if (*n == room) {
        room = room ? 2 * room : 256;
        uint32_t *const more = realloc(*pair, 2 * room * sizeof **pair);
        if (!more) return false;
        *pair = more;
      }
      (*pair)[2 * *n] = j;
      (*pair)[2 * *n + 1] = i;
      ++*n;
    }
  }
  return true;
}

static bool lay_edges(tern_program *p, const uint32_t *pair, uint32_t n) {
  p->edge = malloc((2 * (size_t)n + 1) * sizeof *p->edge);
  if (!p->edge) return false;
  for (uint32_t e = 0; e < n; e++) {
    p->node[pair[2 * e]].n_before++;
    p->node[pair[2 * e + 1]].n_next++;
  }
  uint32_t at = 0;
  for (uint32_t i = 0; i < p->n; i++) {
    replay_node *const x = &p->node[i];
    x->next = at;
    x->before = at += x->n_next;
    at += x->n_before;
    x->n_next = x->n_before = 0;
  }
  for (uint32_t e = 0; e < n; e++) {
    replay_node *const later = &p->node[pair[2 * e]], *const earlier = &p->node[pair[2 * e + 1]];
    p->edge[later->before + later->n_before++] = pair[2 * e + 1];
    p->edge[earlier->next + earlier->n_next++] = pair[2 * e];
  }
  return true;
}

bool replay_depend(tern_program *p) {
  uint32_t *pair = NULL, n = 0;
  p->words = (p->n + 63) / 64;
  p->reach = calloc((size_t)p->n * p->words, sizeof *p->reach);
  p->risky = calloc((size_t)p->n * p->words, sizeof *p->risky);
  p->order = calloc(p->n, sizeof *p->order);
  p->segment = calloc(p->n, sizeof *p->segment);
  p->pending = calloc(p->n, sizeof *p->pending);
  p->dirty = calloc(p->n, sizeof *p->dirty);
  bool ok = p->reach && p->risky && p->order && p->segment && p->pending && p->dirty && find_edges(p, &pair, &n) &&
            lay_edges(p, pair, n);
  free(pair);
  uint32_t chain = 1; /* launches that come after their predecessor: all of them are one chain */
  for (uint32_t j = 1; ok && j < p->n; j++) chain += bit(p->reach + (size_t)j * p->words, j - 1);
  return ok && chain < p->n;
}

/* ---- times ---- */

static uint64_t sum_alone(const tern_program *p) {
  uint64_t sum = 0;
  for (uint32_t i = 0; i < p->n; i++) sum += p->node[i].alone;
  return sum;
}

bool replay_could_pay(const tern_program *p, int threads) {
  uint64_t *const end = malloc(p->n * sizeof *end), sum = sum_alone(p);
  if (!end) return false;
  uint64_t most = 0;
  for (uint32_t i = 0; i < p->n; i++) {
    end[i] = 0;
    for (uint32_t k = 0; k < p->node[i].n_before; k++) {
      const uint64_t t = end[p->edge[p->node[i].before + k]];
      end[i] = t > end[i] ? t : end[i];
    }
    end[i] += p->node[i].alone;
    most = end[i] > most ? end[i] : most;
  }
  free(end);
  const uint64_t least = most > sum / (uint64_t)threads ? most : sum / (uint64_t)threads;
  return sum > least + LEAST_GAIN && (sum - least) * 100 > sum * GAIN_PERCENT;
}

/* The schedule of a wave, worked out: at each moment idle threads take the first launches that are ready. finish:
   scratch, one entry a launch of the program. *used: threads that got any */
static uint64_t wave_time(const tern_program *p, const replay_segment *s, int threads, uint64_t *finish, int *used) {
  uint64_t idle_at[MOST_THREADS] = {0}, now = 0, end = 0;
  uint32_t left = s->n, low = 0;
  *used = 0;
  for (uint32_t i = 0; i < s->n; i++) finish[p->order[s->first + i]] = UINT64_MAX;
  while (left) {
    for (int t = 0; t < threads; t++) {
      if (idle_at[t] > now) continue;
      uint32_t found = s->n;
      for (uint32_t i = low; i < s->n && found == s->n; i++) {
        const replay_node *const x = &p->node[p->order[s->first + i]];
        bool ready = finish[p->order[s->first + i]] == UINT64_MAX;
        for (uint32_t k = 0; ready && k < x->n_before; k++) {
          const uint32_t b = p->edge[x->before + k];
          ready = p->node[b].segment != x->segment || finish[b] <= now;
        }
        if (ready) found = i;
      }
      if (found == s->n) break;
      const uint32_t i = p->order[s->first + found];
      idle_at[t] = finish[i] = now + p->node[i].single + CLAIM_NS;
      end = finish[i] > end ? finish[i] : end;
      if (t + 1 > *used) *used = t + 1;
      left--;
      while (low < s->n && finish[p->order[s->first + low]] != UINT64_MAX) low++;
    }
    uint64_t next = UINT64_MAX;
    for (int t = 0; t < threads; t++)
      if (idle_at[t] > now && idle_at[t] < next) next = idle_at[t];
    now = next;
  }
  return end + FORK_NS;
}

/* ---- segments ---- */

/* limit: percent of the time alone that a launch may take on one thread */
static bool may_join(const tern_program *p, const replay_node *x, uint32_t limit) {
  return x->steady && (p->always || x->single * 100 <= x->alone * limit);
}

static bool is_ready(const tern_program *p, const replay_node *x, uint32_t segment) {
  for (uint32_t k = 0; k < x->n_before; k++)
    if (p->node[p->edge[x->before + k]].segment > segment) return false; /* UINT32_MAX: in none yet */
  return true;
}

static void divide(tern_program *p, uint32_t limit) {
  uint32_t placed = 0;
  p->n_segments = 0;
  for (uint32_t i = 0; i < p->n; i++) p->node[i].segment = UINT32_MAX;
  for (bool wave = true; placed < p->n; wave = !wave) {
    replay_segment *const s = &p->segment[p->n_segments];
    *s = (replay_segment){.first = placed, .threads = wave};
    for (uint32_t i = 0; i < p->n; i++) {
      replay_node *const x = &p->node[i];
      if (x->segment != UINT32_MAX || may_join(p, x, limit) != wave || !is_ready(p, x, p->n_segments)) continue;
      x->segment = p->n_segments;
      p->order[placed++] = i;
      s->n++;
    }
    p->n_segments += s->n > 0;
  }
}

/* Decides for each segment; the time of all */
static uint64_t weigh(tern_program *p, int threads, uint64_t *finish) {
  uint64_t all = 0;
  for (uint32_t s = 0; s < p->n_segments; s++) {
    replay_segment *const x = &p->segment[s];
    uint64_t serial = 0;
    int used = 0;
    for (uint32_t i = 0; i < x->n; i++) serial += p->node[p->order[x->first + i]].alone;
    const uint64_t wave = x->threads && x->n > 1 ? wave_time(p, x, threads, finish, &used) : UINT64_MAX;
    const bool better = p->always ? wave != UINT64_MAX : wave < serial && used > 1;
    x->threads = !better ? 0 : p->always ? threads : used;
    all += better ? wave : serial;
  }
  return all;
}

/* Pairs that nothing but their memory keeps apart: of one wave, or run in another order than the program's */
static void find_risks(tern_program *p) {
  memset(p->risky, 0, (size_t)p->n * p->words * sizeof *p->risky);
  for (uint32_t j = 0; j < p->n; j++)
    for (uint32_t i = 0; i < j; i++) {
      const uint32_t si = p->node[i].segment, sj = p->node[j].segment;
      if (bit(p->reach + (size_t)j * p->words, i) || si < sj || (si == sj && !p->segment[si].threads)) continue;
      set_bit(p->risky + (size_t)j * p->words, i);
      set_bit(p->risky + (size_t)i * p->words, j);
    }
}

bool replay_plan(tern_program *p, int threads) {
  static const uint32_t limits[] = {105, 125, 150, 200, 300, 10000};
  enum { N = sizeof limits / sizeof *limits };
  if (threads > MOST_THREADS) threads = MOST_THREADS;
  uint64_t *const finish = malloc(p->n * sizeof *finish), sum = sum_alone(p), best = UINT64_MAX;
  if (!finish) return false;
  int which = N - 1;
  for (int k = 0; k < N && !p->always; k++) {
    divide(p, limits[k]);
    const uint64_t t = weigh(p, threads, finish);
    if (t >= best) continue;
    best = t;
    which = k;
  }
  divide(p, limits[which]);
  weigh(p, threads, finish);
  free(finish);
  bool any = false;
  for (uint32_t s = 0; s < p->n_segments; s++) any |= p->segment[s].threads > 0;
  if (!any) return false;
  find_risks(p);
  return p->always || (best + LEAST_GAIN < sum && best * 100 < sum * (100 - GAIN_PERCENT));
}
