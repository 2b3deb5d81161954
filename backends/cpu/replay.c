/* Recording, and the life of a recorded program (replay.h): its first runs go one launch after the other and are timed;
   then those that give the same bits are timed on one thread each; a plan is made from both and compared with the plain
   order in alternating runs. What is not clearly faster is given up: the run that finds it so answers UNSUPPORTED,
   having run nothing, and the caller launches step by step from then on. */
#include "replay.h"
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
  MOST_LAUNCHES = 1024, /* of a program: pairs are compared, and there is a bit for each */
  TIMED_RUNS = 5,       /* of each kind, whose shortest times count */
  PAIRS = 8,            /* of the comparison */
  WORTH_PERCENT = 95    /* of the plain time, at most */
};
enum { OFF, MEASURED, ALWAYS };

typedef struct recording {
  replay_node *node;
  uint32_t n, room;
  bool refused; /* too long, or out of memory */
} recording;

int replay_quiet = 1;
static atomic_int mode = MEASURED;
static _Thread_local recording *mine;

void replay_set(int m) { atomic_store(&mode, m); }
bool replay_allowed(void) { return atomic_load(&mode) != OFF; }
bool replay_recording(void) { return mine != NULL; }

static void nodes_free(replay_node *node, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) free((void *)(uintptr_t)node[i].launch.args); /* the block's first part */
  free(node);
}

/* ---- recording ---- */

tern_rc replay_begin(tern_dev *dev, tern_queue *queue) {
  (void)dev, (void)queue;
  const int how = atomic_load(&mode);
  if (mine) return cpu_error(TERN_E_ARG, "cpu: this thread is recording a program already");
  if (how == OFF || (how == MEASURED && cpu_threads() < 2)) return TERN_E_UNSUPPORTED;
  mine = calloc(1, sizeof *mine);
  if (!mine) return cpu_error(TERN_E_OOM, "cpu: no memory to record a program");
  __atomic_fetch_sub(&replay_quiet, 1, __ATOMIC_SEQ_CST);
  return TERN_OK;
}

static bool keep(replay_node *x, const tern_kernel *k, const tern_launch *l) {
  if (!k->touch || k->touch->n_args > l->n_args) return false;
  const size_t args = (l->n_args + 1) * sizeof *l->args, words = l->n_words * sizeof *l->words,
               spans = (k->touch->n_args + 1) * sizeof *x->span;
  char *const block = malloc(args + words + spans);
  if (!block) return false;
  *x = (replay_node){.kernel = k, .launch = *l, .n_spans = k->touch->n_args + 1};
  if (l->n_args) memcpy(block, l->args, l->n_args * sizeof *l->args);
  if (words) memcpy(block + args, l->words, words);
  x->launch.args = (const tern_arg *)(void *)block;
  x->launch.words = (const tern_word *)(void *)(block + args);
  x->span = (touch_span *)(void *)(block + args + words);
  touch_spans(k, &x->launch, x->span);
  return true;
}

tern_rc replay_record(const tern_kernel *k, const tern_launch *l) {
  recording *const r = mine;
  if (r->refused) return TERN_OK;
  if (r->n == r->room && r->n < MOST_LAUNCHES) {
    const uint32_t room = r->room ? 2 * r->room : 32;
    replay_node *const more = realloc(r->node, room * sizeof *more);
    if (more) {
      r->node = more;
      r->room = room;
    }
  }
  if (r->n < r->room && keep(&r->node[r->n], k, l))
    r->n++;
  else
    r->refused = true;
  return TERN_OK;
}

static void find_twins(tern_program *p) {
  for (uint32_t i = 0; i < p->n; i++) {
    const replay_node *const x = &p->node[i];
    const size_t bytes = x->launch.n_words * sizeof *x->launch.words;
    uint32_t k = 0;
    while (k < i && (p->node[k].kernel != x->kernel || p->node[k].launch.n_words != x->launch.n_words ||
                     (bytes && memcmp(p->node[k].launch.words, x->launch.words, bytes) != 0)))
      k++;
    p->node[i].twin = k;
  }
}

static void probe_all(tern_program *p) {
  for (uint32_t i = 0; i < p->n; i++) {
    replay_node *const x = &p->node[i];
    x->steady = x->twin < i ? p->node[x->twin].steady : replay_steady(x);
  }
}

static void tell(const tern_program *p, const char *what) {
  uint32_t steady = 0, waves = 0;
  for (uint32_t i = 0; i < p->n; i++) steady += p->node[i].steady;
  for (uint32_t s = 0; s < p->n_segments; s++) waves += p->segment[s].threads > 0;
  cpu_debug(
      "cpu: a program of %u launches, %u the same on one thread, %u of %u segments side by side: %.1f us, in order "
      "%.1f: %s",
      p->n, steady, waves, p->n_segments, (double)p->best[1] / 1e3, (double)p->best[0] / 1e3, what);
}

tern_rc replay_end(tern_dev *dev, tern_queue *queue, tern_program **out) {
  recording *const r = mine;
  (void)queue;
  if (!r) return cpu_error(TERN_E_ARG, "cpu: this thread records no program");
  mine = NULL;
  __atomic_fetch_add(&replay_quiet, 1, __ATOMIC_SEQ_CST);
  tern_program *const p = calloc(1, sizeof *p);
  const bool refused = r->refused || r->n < 2 || !p;
  if (!refused) {
    p->node = r->node;
    p->n = r->n;
    p->always = atomic_load(&mode) == ALWAYS;
  } else {
    nodes_free(r->node, r->n);
    free(p);
  }
  free(r);
  if (refused) return TERN_E_UNSUPPORTED;
  bool pays = replay_depend(p);
  if (pays) find_twins(p);
  if (pays && p->always) {
    probe_all(p);
    pays = replay_plan(p, cpu_threads());
    p->state = REPLAY_KEPT;
    tell(p, "always");
  }
  if (!pays) {
    replay_free(dev, p);
    return TERN_E_UNSUPPORTED;
  }
  *out = p;
  return TERN_OK;
}

void replay_free(tern_dev *dev, tern_program *p) {
  (void)dev;
  if (!p) return;
  nodes_free(p->node, p->n);
  void *const parts[] = {p->edge, p->reach, p->risky, p->order, p->segment, p->pending, p->dirty};
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) free(parts[i]);
  free(p);
}

/* ---- new addresses and words ---- */

tern_rc replay_update(tern_dev *dev, tern_program *p, uint32_t nth, const tern_launch *l) {
  (void)dev;
  if (nth >= p->n) return cpu_error(TERN_E_ARG, "cpu: the program has %u launches, none of number %u", p->n, nth);
  replay_node *const x = &p->node[nth];
  if (l->n_args != x->launch.n_args || l->n_words != x->launch.n_words) return TERN_E_UNSUPPORTED;
  const size_t bytes = l->n_words * sizeof *l->words;
  const bool words = bytes && memcmp(x->launch.words, l->words, bytes) != 0;
  if (words && x->kernel->touch->library) return TERN_E_UNSUPPORTED; /* whether it is steady is to be found anew */
  tern_arg *const arg = (tern_arg *)(uintptr_t)x->launch.args;
  const bool moved = l->workspace.mem != x->launch.workspace.mem || l->workspace.offset != x->launch.workspace.offset;
  for (uint32_t i = 0; i < l->n_args; i++) {
    if (arg[i].mem == l->args[i].mem && arg[i].offset == l->args[i].offset) continue;
    if (i + 1 < x->n_spans) touch_move(&x->span[i], &arg[i], &l->args[i]);
    arg[i] = l->args[i];
  }
  if (words) memcpy((void *)(uintptr_t)x->launch.words, l->words, bytes);
  x->launch.workspace = l->workspace;
  if (words || moved) touch_spans(x->kernel, &x->launch, x->span);
  if (x->dirty) return TERN_OK;
  x->dirty = true;
  p->dirty[p->n_dirty++] = nth;
  return TERN_OK;
}

/* Whether the dependences that the plan rests on still hold. Launches whose memory meets now stay dirty */
static bool is_safe(tern_program *p) {
  for (uint32_t d = 0; d < p->n_dirty; d++) {
    const replay_node *const x = &p->node[p->dirty[d]];
    const uint64_t *const row = p->risky + (size_t)p->dirty[d] * p->words;
    for (uint32_t w = 0; w < p->words; w++)
      for (uint64_t bits = row[w]; bits; bits &= bits - 1)
        if (replay_conflict(x, &p->node[w * 64 + (uint32_t)__builtin_ctzll(bits)])) return false;
  }
  for (uint32_t d = 0; d < p->n_dirty; d++) p->node[p->dirty[d]].dirty = false;
  p->n_dirty = 0;
  return true;
}

/* ---- running ---- */

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static tern_rc run_plain(const tern_program *p) {
  tern_rc rc = TERN_OK;
  for (uint32_t i = 0; i < p->n && rc == TERN_OK; i++)
    rc = p->node[i].kernel->run(p->node[i].kernel, &p->node[i].launch);
  return rc;
}

/* As if in the program's order: when a launch fails, all before it still run, and the first that fails is reported */
static tern_rc run_segments(tern_program *p) {
  tern_rc rc = TERN_OK;
  uint32_t last = UINT32_MAX;
  for (uint32_t s = 0; s < p->n_segments; s++) {
    const replay_segment *const x = &p->segment[s];
    if (x->threads) {
      replay_wave(p, x, &last, &rc);
      continue;
    }
    for (uint32_t i = 0; i < x->n; i++) {
      const uint32_t node = p->order[x->first + i];
      if (node > last) continue;
      const tern_rc now = p->node[node].kernel->run(p->node[node].kernel, &p->node[node].launch);
      if (now == TERN_OK) continue;
      rc = now;
      last = node;
    }
  }
  return rc;
}

/* Others' work disturbs some launches of every run: what one of several twins took counts for all */
static void share_times(tern_program *p, bool single) {
  for (int pass = 0; pass < 2; pass++)
    for (uint32_t i = 0; i < p->n; i++) {
      replay_node *const x = &p->node[i], *const first = &p->node[x->twin];
      replay_node *const to = pass ? x : first;
      const replay_node *const from = pass ? first : x;
      if (single && from->single < to->single) to->single = from->single;
      if (!single && from->alone < to->alone) to->alone = from->alone;
    }
}

static tern_rc run_timed(tern_program *p) {
  for (uint32_t i = 0; i < p->n; i++) {
    replay_node *const x = &p->node[i];
    const bool single = p->state == REPLAY_SINGLE, token = single && x->steady && cpu_pool_try();
    uint64_t *const best = single ? &x->single : &x->alone;
    const uint64_t from = now_ns();
    const tern_rc rc = x->kernel->run(x->kernel, &x->launch);
    const uint64_t took = now_ns() - from;
    if (token) cpu_pool_done();
    if (rc != TERN_OK) return rc;
    if ((!single || token) && (!p->runs || took < *best)) *best = took;
  }
  if (++p->runs < TIMED_RUNS) return TERN_OK;
  p->runs = 0;
  share_times(p, p->state == REPLAY_SINGLE);
  const int threads = cpu_threads();
  if (p->state == REPLAY_ALONE) {
    p->state = replay_could_pay(p, threads) ? REPLAY_SINGLE : REPLAY_GIVEN_UP;
    if (p->state == REPLAY_SINGLE)
      probe_all(p);
    else
      tell(p, "too little in branches");
    for (uint32_t i = 0; i < p->n; i++) p->node[i].single = UINT64_MAX / 1000; /* until a run had the pool */
  } else {
    p->state = replay_plan(p, threads) ? REPLAY_COMPARE : REPLAY_GIVEN_UP;
    if (p->state == REPLAY_GIVEN_UP) tell(p, "not tried");
  }
  return TERN_OK;
}

static tern_rc run_compared(tern_program *p) {
  const uint32_t way = p->runs % 2;
  const uint64_t from = now_ns();
  const tern_rc rc = way ? run_segments(p) : run_plain(p);
  const uint64_t took = now_ns() - from;
  if (rc != TERN_OK) return rc;
  if (p->runs < 2 || took < p->best[way]) p->best[way] = took;
  if (++p->runs < 2 * PAIRS) return TERN_OK;
  p->state = p->best[1] * 100 < p->best[0] * WORTH_PERCENT ? REPLAY_KEPT : REPLAY_GIVEN_UP;
  tell(p, p->state == REPLAY_KEPT ? "kept" : "given up");
  return TERN_OK;
}

tern_rc replay_run(tern_dev *dev, tern_queue *queue, const tern_program *program) {
  tern_program *const p = (tern_program *)(uintptr_t)program; /* one run at a time */
  (void)dev, (void)queue;
  if (p->state == REPLAY_GIVEN_UP) return TERN_E_UNSUPPORTED;
  tern_rc rc;
  if (p->state == REPLAY_ALONE || p->state == REPLAY_SINGLE)
    rc = run_timed(p);
  else if (!is_safe(p))
    rc = run_plain(p);
  else
    rc = p->state == REPLAY_COMPARE ? run_compared(p) : run_segments(p);
  return rc == TERN_E_UNSUPPORTED ? TERN_E_INTERNAL : rc; /* UNSUPPORTED says that nothing ran */
}
