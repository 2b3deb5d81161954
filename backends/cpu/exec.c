/* Compiling and launching MAP and REDUCE regions. A kernel holds its region's plan twice where values are kept in
   scratch: with them, and without for rows that are too long. A launch resolves the nests wave by wave and spreads
   their units over the threads. */
#include "exec.h"
#include "exec_small.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { GRAIN_WORK = 64 << 10, GRAIN_LEAST = 2048, GRAIN_MOST = 32 << 10, MOST_SHARED = 16 };

typedef struct region_kernel {
  tern_kernel base;
  x_plan plan[2]; /* [1]: without scratch; empty when the first keeps nothing there */
  uint32_t n_plans;
  size_t launch_bytes; /* scratch of the launching thread, workspace offsets included */
  x_small *small;      /* programs for few elements */
} region_kernel;

typedef struct launch_job {
  const r_nest *r;
  atomic_bool oom;
  /* SPLIT only: each unit's rows, then each piece's accumulators */
  uint32_t pass;
  char *shared;
  size_t unit_bytes;
} launch_job;

/* ---- units over threads ---- */

static void run_units(void *ctx, int64_t lo, int64_t hi) {
  launch_job *const j = ctx;
  char *const mem = cpu_scratch(CPU_SCRATCH_PIECE, x_work_bytes(j->r));
  if (!mem) {
    atomic_store(&j->oom, true);
    return;
  }
  work w;
  x_work_init(&w, j->r, mem);
  for (int64_t u = lo; u < hi; u++) x_run_unit(&w, u);
  if (j->r->streams) x_stream_end();
}

static int64_t unit_grain(const r_nest *r) {
  int64_t work_elems = GRAIN_WORK / (r->x->n_items ? r->x->n_items : 1);
  if (work_elems < GRAIN_LEAST) work_elems = GRAIN_LEAST;
  if (work_elems > GRAIN_MOST) work_elems = GRAIN_MOST;
  const int64_t lanes = r->mapping == M_ROW ? 1 : r->chunk, rows = r->n_tiled ? X_TILE : 1,
                each = r->x->nest->red ? r->row_elems * lanes : lanes * rows;
  return each >= work_elems ? 1 : work_elems / each;
}

/* ---- few long rows ---- */

static size_t split_row_bytes(const r_nest *r) { return (r->row_bytes + 63) & ~(size_t)63; }
static size_t split_at_bytes(const r_nest *r) { return (r->n_at * sizeof(char *) + 63) & ~(size_t)63; }
static size_t split_unit_bytes(const r_nest *r) {
  return split_at_bytes(r) + split_row_bytes(r) * (size_t)(1 + r->split);
}

static void run_piece(void *ctx, int64_t lo, int64_t hi) {
  launch_job *const j = ctx;
  const r_nest *const r = j->r;
  char *const mem = cpu_scratch(CPU_SCRATCH_PIECE, x_work_bytes(r));
  if (!mem) {
    atomic_store(&j->oom, true);
    return;
  }
  work w;
  x_work_init(&w, r, mem);
  for (int64_t k = lo; k < hi; k++) {
    const int64_t unit = k / r->split, piece = k % r->split;
    char *const own = j->shared + (size_t)unit * j->unit_bytes;
    memcpy(w.at, own, r->n_at * sizeof(char *));
    x_acc_place(&w, own + split_at_bytes(r) + split_row_bytes(r) * (size_t)(1 + piece));
    x_unit_place(&w, unit);
    x_acc_start(&w, j->pass);
    x_run_pass(&w, j->pass, piece);
  }
}

/* The launching thread's view of a unit: its own pointers and row area */
static void open_unit(work *w, const launch_job *j, int64_t unit) {
  char *const own = j->shared + (size_t)unit * j->unit_bytes;
  w->at = (char **)(void *)own;
  x_acc_place(w, own + split_at_bytes(j->r));
  x_unit_place(w, unit);
}

static void merge_pieces(work *w, uint32_t pass, char *pieces) {
  const r_nest *const r = w->r;
  x_acc_start(w, pass);
  for (int64_t k = 0; k < r->split; k++)
    for (uint32_t i = 0; i < r->x->n_red; i++) {
      const x_red *const red = &r->x->red[i];
      if (red->pass != pass) continue;
      char *const row = pieces + (size_t)k * split_row_bytes(r);
      const cpu_acc from = {row + red->acc_v * r->row_slot, (int64_t *)(void *)(row + red->acc_i * r->row_slot)};
      red->r.merge(w->acc[i], from, r->mapping == M_COL ? w->n : 1);
    }
  x_acc_finish(w, pass);
}

/* The pieces that this thread runs itself lay out the same scratch memory in the same way; nothing in it outlives a
   phase */
static bool run_split(launch_job *j) {
  const r_nest *const r = j->r;
  char *const mem = cpu_scratch(CPU_SCRATCH_PIECE, x_work_bytes(r));
  if (!mem) return false;
  work w;
  x_work_init(&w, r, mem);
  for (int64_t u = 0; u < r->units; u++) memcpy(j->shared + (size_t)u * j->unit_bytes, r->at, r->n_at * sizeof(char *));
  const uint32_t n_pass = r->x->nest->n_pass;
  for (uint32_t p = 0; p <= n_pass; p++) {
    for (int64_t u = 0; u < r->units; u++) {
      open_unit(&w, j, u);
      if (p > 0)
        merge_pieces(&w, p - 1, j->shared + (size_t)u * j->unit_bytes + split_at_bytes(r) + split_row_bytes(r));
      x_run_phase(&w, p);
    }
    if (p == n_pass) break;
    j->pass = p;
    cpu_parallel(r->units * r->split, 1, run_piece, j);
    if (atomic_load(&j->oom)) return false;
  }
  return true;
}

/* ---- launch ---- */

static const x_plan *pick_plan(const region_kernel *k, const tern_word *words) {
  for (uint32_t i = 0; k->n_plans > 1 && i < k->plan[0].plan->n_nests; i++)
    if (k->plan[0].nest[i].nest->n_scratch && !x_scratch_fits(&k->plan[0].nest[i], words)) return &k->plan[1];
  return &k->plan[0];
}

/* Nests [first, end) are of one wave, so independent: they are resolved together and share the threads */
static uint32_t batch_end(const nest_plan *plan, uint32_t first) {
  uint32_t end = first + 1;
  while (end < plan->n_nests && end - first < MOST_SHARED && plan->nests[end].wave == plan->nests[first].wave) end++;
  return end;
}

typedef struct batch {
  launch_job job[MOST_SHARED];
  int64_t grain[MOST_SHARED], end[MOST_SHARED]; /* units a piece; number of pieces up to the end of this nest */
  uint32_t n;
} batch;

static void run_shared(void *ctx, int64_t lo, int64_t hi) {
  batch *const b = ctx;
  for (int64_t piece = lo; piece < hi; piece++) {
    uint32_t i = 0;
    while (piece >= b->end[i]) i++;
    const int64_t from = (piece - (i ? b->end[i - 1] : 0)) * b->grain[i], units = b->job[i].r->units;
    run_units(&b->job[i], from, from + b->grain[i] < units ? from + b->grain[i] : units);
  }
}

/* A nest with a way of its own over the threads. False: it is to share them */
static bool run_alone(const r_nest *r, bool *ok) {
  *ok = true;
  if (x_try_transpose(r) || x_try_window(r)) return true;
  bool oom = false;
  if (x_try_rows(r, &oom)) {
    *ok = !oom;
    return true;
  }
  if (!r->split) return false;
  launch_job j = {.r = r, .unit_bytes = split_unit_bytes(r)};
  j.shared = cpu_scratch(CPU_SCRATCH_SPLIT, j.unit_bytes * (size_t)r->units);
  *ok = j.shared && run_split(&j);
  return true;
}

/* Pieces come from sizes alone, so results do not depend on the threads. What is one piece's work together is done
   here and now */
static void share(batch *b) {
  double work_pieces = 0;
  int64_t pieces = 0;
  for (uint32_t i = 0; i < b->n; i++) {
    const int64_t units = b->job[i].r->units;
    b->grain[i] = unit_grain(b->job[i].r);
    work_pieces += (double)units / (double)b->grain[i];
    b->end[i] = pieces += (units + b->grain[i] - 1) / b->grain[i];
  }
  if (work_pieces <= 1)
    run_shared(b, 0, pieces);
  else
    cpu_parallel(pieces, 1, run_shared, b);
}

static tern_rc run_batch(const x_plan *plan, uint32_t first, uint32_t end, const tern_launch *l, const uint64_t *ws_off,
                         char *mem) {
  r_nest nests[MOST_SHARED];
  batch b;
  b.n = 0;
  for (uint32_t i = first; i < end; i++) {
    r_nest *const r = &nests[b.n];
    bool ok;
    x_resolve(plan, &plan->nest[i], l, ws_off, mem, r);
    if (run_alone(r, &ok)) {
      if (!ok)
        return cpu_error(TERN_E_OOM, "cpu: no memory for a thread's %zu bytes of registers", x_work_bytes(r));
      continue;
    }
    x_stream_plan(r);
    mem += x_resolve_bytes(&plan->nest[i]);
    b.job[b.n].r = r;
    b.job[b.n].shared = NULL;
    atomic_init(&b.job[b.n].oom, false);
    b.n++;
  }
  if (b.n) share(&b);
  for (uint32_t i = 0; i < b.n; i++)
    if (atomic_load(&b.job[i].oom))
      return cpu_error(TERN_E_OOM, "cpu: no memory for a thread's %zu bytes of registers", x_work_bytes(&nests[i]));
  return TERN_OK;
}

static tern_rc region_run(const tern_kernel *kernel, const tern_launch *l) {
  const region_kernel *const k = (const region_kernel *)kernel;
  if (x_small_launch(k->small, l)) return TERN_OK;
  const x_plan *const plan = pick_plan(k, l->words);
  char *const mem = cpu_scratch(CPU_SCRATCH_LAUNCH, k->launch_bytes);
  if (!mem) return cpu_error(TERN_E_OOM, "cpu: no memory for %zu bytes of launch data", k->launch_bytes);
  uint64_t *const ws_off = (uint64_t *)(void *)mem;
  const uint32_t n_ws = plan->plan->n_ws;
  if (n_ws) nest_workspace(plan->plan, l->words, ws_off);
  for (uint32_t i = 0, end; i < plan->plan->n_nests; i = end) {
    end = batch_end(plan->plan, i);
    const tern_rc rc = run_batch(plan, i, end, l, ws_off, mem + ((n_ws * sizeof *ws_off + 63) & ~(size_t)63));
    if (rc != TERN_OK) return rc;
  }
  return TERN_OK;
}

static uint64_t region_workspace(const tern_kernel *kernel, const tern_word *words) {
  return nest_workspace(pick_plan((const region_kernel *)kernel, words)->plan, words, NULL);
}

/* ---- compile ---- */

static void region_destroy(tern_kernel *kernel) {
  region_kernel *const k = (region_kernel *)kernel;
  x_small_free(k->small);
  for (uint32_t i = 0; i < k->n_plans; i++) x_plan_free(&k->plan[i]);
  free(k);
}

static size_t launch_bytes(const x_plan *p) {
  size_t most = 0;
  for (uint32_t i = 0, end; i < p->plan->n_nests; i = end) {
    size_t bytes = 0;
    for (end = batch_end(p->plan, i); i < end; i++) bytes += x_resolve_bytes(&p->nest[i]);
    if (bytes > most) most = bytes;
  }
  return most + ((p->plan->n_ws * sizeof(uint64_t) + 63) & ~(size_t)63);
}

static tern_rc build_plans(region_kernel *k, const tern_region *r) {
  tern_rc rc = x_plan_build(r, 0, &k->plan[0]);
  if (rc != TERN_OK) return rc;
  k->n_plans = 1;
  k->launch_bytes = launch_bytes(&k->plan[0]);
  bool scratch = false;
  for (uint32_t i = 0; i < k->plan[0].plan->n_nests; i++) scratch |= k->plan[0].plan->nests[i].n_scratch > 0;
  if (!scratch) return TERN_OK;
  rc = x_plan_build(r, NEST_NO_SCRATCH, &k->plan[1]);
  if (rc != TERN_OK) return rc;
  k->n_plans = 2;
  const size_t bytes = launch_bytes(&k->plan[1]);
  if (bytes > k->launch_bytes) k->launch_bytes = bytes;
  return TERN_OK;
}

tern_rc cpu_nest_compile(const tern_region *r, tern_kernel **out, tern_kernel_info *info) {
  const tern_rc fast = x_fast_compile(r, out);
  if (fast != TERN_E_UNSUPPORTED) return fast;
  region_kernel *const k = calloc(1, sizeof *k);
  if (!k) return cpu_error(TERN_E_OOM, "cpu: no memory for a kernel");
  k->base.run = region_run;
  k->base.destroy = region_destroy;
  k->base.workspace = region_workspace;
  tern_rc rc = build_plans(k, r);
  if (rc == TERN_OK && (rc = x_small_new(&k->plan[0], k->launch_bytes, &k->small)) != TERN_OK)
    rc = cpu_error(rc, "cpu: no memory for a kernel of %u nodes", r->n_nodes);
  if (rc != TERN_OK) {
    region_destroy(&k->base);
    return rc;
  }
  bool any = false;
  for (uint32_t i = 0; i < k->n_plans; i++) any |= k->plan[i].plan->n_ws > 0;
  info->workspace = any ? UINT64_MAX : 0;
  *out = &k->base;
  return TERN_OK;
}

void x_region_mode(tern_kernel *k, int mode) {
  if (k->run == region_run) x_small_mode(((region_kernel *)k)->small, mode);
}

/* Every instruction of the region exists here, and the analysis takes it */
static bool nodes_known(const tern_region *r) {
  for (uint32_t i = 0; i < r->n_nodes; i++) {
    const nest_prim *const p = nest_prim_of(r->nodes[i].op);
    if (!p || (p->kind != TERN_K_MAP && p->kind != TERN_K_REDUCE)) return false;
    if (r->nodes[i].op == TERN_OP_IOTA || r->nodes[i].op == TERN_OP_RNG) continue;
    const uint32_t in = r->values[nest_in(r, i, r->nodes[i].op == TERN_OP_WHERE)].dtype;
    const uint32_t out = r->values[nest_out(r, i)].dtype;
    cpu_reduce red;
    if (p->kind == TERN_K_REDUCE ? cpu_reduce_find(r->nodes[i].op, in, &red) != TERN_OK
                                 : !cpu_map(r->nodes[i].op, in, out, 0))
      return false;
  }
  return true;
}

tern_rc cpu_nest_supports(const tern_region *r) {
  if (r->n_nodes == 0 || r->n_nodes > X_MAX_NODES) return TERN_E_UNSUPPORTED;
  for (uint32_t i = 0; i < r->n_nodes; i++)
    if (nest_check_node(r, i, NULL, 0) != TERN_OK) return TERN_E_UNSUPPORTED;
  if (!nodes_known(r)) return TERN_E_UNSUPPORTED;
  if (r->n_nodes == 1) return TERN_OK;
  nest_plan *plan = NULL; /* what the analysis refuses, it refuses here */
  if (nest_build(r, 0, &plan, NULL, 0) != TERN_OK) return TERN_E_UNSUPPORTED;
  nest_free(plan);
  return TERN_OK;
}
