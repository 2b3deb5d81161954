/* Recorded launches of the OpenCL plugin: the same bits as launch by launch, in every mode; updates; tickets; index
   errors; runs that overlap; programs that are freed while they run; memory that comes back at the same address; and
   what is refused. Needs an OpenCL device; says so and exits with 77 when there is none. */
#include "opencl_host.h"

#include <pthread.h>

enum { SIDE = 8, ALL = SIDE * SIDE, BYTES = ALL * 4, STEPS = 8, RUNS = 20 };
enum { A, B, C, D, E, F, G, H, INDEX, BUFFERS };

typedef struct step {
  tern_kernel *k;
  one_node node;
  tern_arg args[3], workspace;
  uint32_t n;
} step;

/* Eight launches that hang on each other: one kernel three times with other buffers, kernels of several calls, one that
   reports bad indices. */
typedef struct chain {
  tern_mem *mem[BUFFERS], *room[STEPS];
  step step[STEPS];
} chain;

static const tern_backend *api(void) { return host_state.api; }

static tern_rc launch(const step *s) {
  const tern_launch l = {.args = s->args,
                         .words = s->node.words,
                         .n_args = s->n,
                         .n_words = s->node.block.region.n_words,
                         .workspace = s->workspace};
  return api()->launch(host_state.dev, host_state.q, s->k, &l);
}

static void add_step(chain *c, int i, uint32_t op, int64_t attr, uint32_t n, const operand *const *list,
                     const int *mem) {
  step *s = &c->step[i];
  s->n = n;
  const tern_region *r = region_of(&s->node, op, attr, 0, TERN_R_IDX32, n, list);
  info_block b = {0};
  b.kernel.struct_size = sizeof b.kernel;
  CU_ASSERT_EQUAL_FATAL(api()->compile(host_state.dev, r, &s->k, &b.kernel), TERN_OK);
  uint64_t room = b.kernel.workspace;
  if (room == UINT64_MAX) CU_ASSERT_EQUAL(api()->workspace(host_state.dev, s->k, s->node.words, &room), TERN_OK);
  c->room[i] = room ? mem_new(room) : NULL;
  s->workspace.mem = c->room[i];
  for (uint32_t a = 0; a < n; a++) s->args[a].mem = c->mem[mem[a]];
}

static void chain_open(chain *c) {
  memset(c, 0, sizeof *c);
  for (int i = 0; i < BUFFERS; i++) CU_ASSERT_PTR_NOT_NULL_FATAL(c->mem[i] = mem_new(BYTES));
  operand x = {.dtype = TERN_F32, .rank = 2, .shape = {SIDE, SIDE}}, cube = {.dtype = TERN_F32, .rank = 3};
  operand at = {.dtype = TERN_I32, .rank = 1, .shape = {SIDE}};
  cube.shape[0] = 1, cube.shape[1] = cube.shape[2] = SIDE;
  dense(&x), dense(&cube), dense(&at);
  const operand *const two[] = {&x, &x, &x}, *const gather[] = {&cube, &at, &cube};
  add_step(c, 0, TERN_OP_ADD, 0, 3, two, (const int[]){A, C, B});
  add_step(c, 1, TERN_OP_DOT, 0, 3, two, (const int[]){B, C, D});
  add_step(c, 2, TERN_OP_ADD, 0, 3, two, (const int[]){D, A, E});
  add_step(c, 3, TERN_OP_CUMSUM, 1, 2, two, (const int[]){E, F});
  add_step(c, 4, TERN_OP_SORT, 0, 2, two, (const int[]){F, E});
  add_step(c, 5, TERN_OP_GATHER, 0, 3, gather, (const int[]){E, INDEX, G});
  add_step(c, 6, TERN_OP_DOT, 0, 3, two, (const int[]){G, C, D});
  add_step(c, 7, TERN_OP_ADD, 0, 3, two, (const int[]){D, G, H});
  api()->kernel_free(host_state.dev, c->step[2].k);
  c->step[2].k = c->step[7].k; /* one kernel, several launches */
}

static void chain_close(chain *c) {
  for (int i = 0; i < STEPS; i++)
    if (i != 2) api()->kernel_free(host_state.dev, c->step[i].k);
  for (int i = 0; i < BUFFERS; i++) api()->mem_free(host_state.dev, c->mem[i]);
  for (int i = 0; i < STEPS; i++)
    if (c->room[i]) api()->mem_free(host_state.dev, c->room[i]);
}

static void give(const chain *c, uint32_t seed, int32_t odd_index) {
  float x[ALL];
  int32_t at[SIDE];
  for (int m = A; m <= C; m += C) {
    for (int i = 0; i < ALL; i++) x[i] = (float)(random_u32(&seed) % 64) / 16 - 2;
    CU_ASSERT_EQUAL(put(c->mem[m], 0, x, sizeof x), TERN_OK);
  }
  for (int i = 0; i < SIDE; i++) at[i] = (int32_t)(random_u32(&seed) % SIDE);
  if (odd_index) at[3] = odd_index;
  CU_ASSERT_EQUAL(put(c->mem[INDEX], 0, at, sizeof at), TERN_OK);
}

static void clear(tern_mem *m) {
  CU_ASSERT_EQUAL(api()->fill(host_state.dev, host_state.q, m, 0, BYTES, "\xff\xff\xff\xff", 4), TERN_OK);
}

static tern_rc launch_all(const chain *c) {
  tern_rc rc = TERN_OK;
  for (int i = 0; i < STEPS && !rc; i++) rc = launch(&c->step[i]);
  return rc;
}

static tern_program *record(const chain *c) {
  tern_program *p = NULL;
  CU_ASSERT_EQUAL_FATAL(api()->program_begin(host_state.dev, host_state.q), TERN_OK);
  CU_ASSERT_EQUAL(launch_all(c), TERN_OK);
  CU_ASSERT_EQUAL_FATAL(api()->program_end(host_state.dev, host_state.q, &p), TERN_OK);
  return p;
}

static tern_rc run(const tern_program *p) { return api()->program_run(host_state.dev, host_state.q, p); }

static tern_rc update(tern_program *p, const chain *c, uint32_t i) {
  const step *s = &c->step[i];
  const tern_launch l = {.args = s->args,
                         .words = s->node.words,
                         .n_args = s->n,
                         .n_words = s->node.block.region.n_words,
                         .workspace = s->workspace};
  return api()->program_update(host_state.dev, p, i, &l);
}

/* Launch by launch, then by the program, from the same operands. */
static void compare(const chain *c, const tern_program *p, const char *what, int number) {
  float expected[ALL], got[ALL];
  tern_mem *to = c->step[7].args[2].mem;
  give(c, (uint32_t)number + 1, 0);
  CU_ASSERT_EQUAL(launch_all(c), TERN_OK);
  CU_ASSERT_EQUAL(get(to, 0, expected, sizeof expected), TERN_OK);
  for (int m = B; m < INDEX; m++)
    if (m != C) clear(c->mem[m]);
  clear(to);
  CU_ASSERT_EQUAL(run(p), TERN_OK);
  CU_ASSERT_EQUAL(get(to, 0, got, sizeof got), TERN_OK);
  if (memcmp(expected, got, sizeof got)) printf("\n    %s, run %d: %g, expected %g", what, number, got[0], expected[0]);
  CU_ASSERT(!memcmp(expected, got, sizeof got));
}

/* Another device handle, whose launches are replayed in this mode. */
static void open_mode(const char *replay, const char *gemm) {
  host_state.replay = replay;
  host_state.gemm = gemm;
  CU_ASSERT_EQUAL_FATAL(api()->device_open(host_state.drv, 0, &host_state.dev), TERN_OK);
  CU_ASSERT_EQUAL_FATAL(api()->queue_open(host_state.dev, 0, &host_state.q), TERN_OK);
}
static void close_mode(void) {
  api()->queue_close(host_state.dev, host_state.q);
  api()->device_close(host_state.dev);
  host_state.dev = NULL;
  host_state.q = NULL;
}

static void check_replays(const char *what) {
  chain c;
  chain_open(&c);
  tern_program *fresh = record(&c); /* before any of its kernels ever ran */
  for (int i = 0; i < 3; i++) compare(&c, fresh, what, i);
  tern_program *p = record(&c);
  for (int i = 0; i < RUNS; i++) compare(&c, p, what, i);
  tern_mem *other = mem_new(BYTES); /* another result, and back, and another operand in the middle */
  for (int i = 0; i < RUNS; i++) {
    c.step[7].args[2].mem = i & 1 ? other : c.mem[H];
    c.step[2].args[0].mem = i & 2 ? c.mem[B] : c.mem[D];
    CU_ASSERT_EQUAL(update(p, &c, 7), TERN_OK);
    if (i % 2 == 0) CU_ASSERT_EQUAL(update(p, &c, 2), TERN_OK);
    for (int k = 0; k < 3; k++) compare(&c, p, what, i * 3 + k);
  }
  api()->program_free(host_state.dev, fresh);
  api()->program_free(host_state.dev, p);
  api()->mem_free(host_state.dev, other);
  chain_close(&c);
}

static void test_list(void) {
  open_mode("list", NULL);
  check_replays("list");
  close_mode();
}
static void test_auto(void) {
  open_mode(NULL, NULL);
  check_replays("auto");
  close_mode();
}
static void test_buffer(void) {
  open_mode("buffer", NULL);
  check_replays("buffer");
  close_mode();
}
static void test_clblast(void) { /* its calls cannot be part of a command buffer */
  open_mode("list", "clblast");
  check_replays("list with CLBlast");
  close_mode();
  open_mode("buffer", "clblast");
  check_replays("buffer with CLBlast");
  close_mode();
}
static void test_tiled(void) { /* ranges of three dimensions */
  open_mode("list", "tiled");
  check_replays("tiled");
  close_mode();
}

static void test_off(void) {
  open_mode("off", NULL);
  CU_ASSERT_EQUAL(api()->program_begin(host_state.dev, host_state.q), TERN_E_UNSUPPORTED);
  chain c;
  chain_open(&c);
  give(&c, 1, 0);
  CU_ASSERT_EQUAL(launch_all(&c), TERN_OK);
  CU_ASSERT_EQUAL(finish(), TERN_OK);
  chain_close(&c);
  close_mode();
}

static void index_errors(const char *mode) {
  open_mode(mode, NULL);
  chain c;
  chain_open(&c);
  tern_program *p = record(&c);
  CU_ASSERT_EQUAL(finish(), TERN_OK); /* recording alone reports nothing */
  for (int i = 0; i < 4; i++) {
    give(&c, 5, 100 + i);
    CU_ASSERT_EQUAL(run(p), TERN_OK);
    CU_ASSERT_EQUAL(finish(), TERN_E_ARG);
    char part[64];
    snprintf(part, sizeof part, "index %d is out of range for an axis of size 8", 100 + i);
    CU_ASSERT(strstr(host_state.error, part) != NULL);
    CU_ASSERT_EQUAL(finish(), TERN_OK); /* once */
    compare(&c, p, "after an index error", i);
  }
  tern_queue *q2 = NULL, *q = host_state.q;
  CU_ASSERT_EQUAL_FATAL(api()->queue_open(host_state.dev, 0, &q2), TERN_OK);
  host_state.q = q2;
  CU_ASSERT_EQUAL(run(p), TERN_E_UNSUPPORTED); /* the error would go to the other queue */
  host_state.q = q;
  api()->queue_close(host_state.dev, q2);
  api()->program_free(host_state.dev, p);
  chain_close(&c);
  close_mode();
}
static void test_index_errors(void) {
  index_errors("list");
  index_errors("buffer");
}

/* Runs that overlap, with updates in between; every run appends to what the one before left. */
static void overlapping(const char *mode) {
  open_mode(mode, NULL);
  chain c;
  chain_open(&c);
  const float one = 1;
  tern_mem *step_mem[2] = {c.mem[A], c.mem[B]};
  float x[ALL];
  for (int i = 0; i < ALL; i++) x[i] = one;
  CU_ASSERT_EQUAL(put(c.mem[C], 0, x, sizeof x), TERN_OK);
  for (int i = 0; i < ALL; i++) x[i] = 0;
  CU_ASSERT_EQUAL(put(c.mem[A], 0, x, sizeof x), TERN_OK);
  step *s = &c.step[0]; /* A + C to B, B + C to A */
  tern_program *p = NULL;
  CU_ASSERT_EQUAL_FATAL(api()->program_begin(host_state.dev, host_state.q), TERN_OK);
  for (int i = 0; i < 50; i++) {
    s->args[0].mem = step_mem[i & 1], s->args[2].mem = step_mem[!(i & 1)];
    CU_ASSERT_EQUAL(launch(s), TERN_OK);
  }
  CU_ASSERT_EQUAL_FATAL(api()->program_end(host_state.dev, host_state.q, &p), TERN_OK);
  for (int i = 0; i < 40; i++) CU_ASSERT_EQUAL(run(p), TERN_OK);
  uint64_t ticket = 0;
  CU_ASSERT_EQUAL(api()->queue_signal(host_state.dev, host_state.q, &ticket), TERN_OK);
  tern_queue *q2 = NULL, *q = host_state.q; /* a ticket covers what was replayed before it */
  CU_ASSERT_EQUAL_FATAL(api()->queue_open(host_state.dev, 0, &q2), TERN_OK);
  CU_ASSERT_EQUAL(api()->queue_wait(host_state.dev, q2, q, ticket), TERN_OK);
  host_state.q = q2;
  CU_ASSERT_EQUAL(get(c.mem[A], 0, x, sizeof x), TERN_OK);
  CU_ASSERT_EQUAL(x[0], 2000);
  CU_ASSERT_EQUAL(run(p), TERN_OK); /* on another queue, after this wait */
  host_state.q = q2;
  CU_ASSERT_EQUAL(finish(), TERN_OK);
  host_state.q = q;
  CU_ASSERT_EQUAL(api()->queue_sync(host_state.dev, q, ticket, UINT64_MAX), TERN_OK);
  for (int i = 0; i < 30; i++) { /* launch 49 goes elsewhere in the second half */
    s->args[0].mem = c.mem[B], s->args[2].mem = i < 15 ? c.mem[A] : c.mem[D];
    const tern_launch l = {
        .args = s->args, .words = s->node.words, .n_args = 3, .n_words = s->node.block.region.n_words};
    if (i % 5 == 0) CU_ASSERT_EQUAL(api()->program_update(host_state.dev, p, 49, &l), TERN_OK);
    CU_ASSERT_EQUAL(run(p), TERN_OK);
  }
  api()->program_free(host_state.dev, p); /* while it runs */
  CU_ASSERT_EQUAL(get(c.mem[A], 0, x, sizeof x), TERN_OK);
  CU_ASSERT_EQUAL(x[0], 2050 + 15 * 50 + 15 * 48);
  CU_ASSERT_EQUAL(get(c.mem[D], 0, x, sizeof x), TERN_OK);
  CU_ASSERT_EQUAL(x[ALL - 1], 2050 + 15 * 50 + 14 * 48 + 50);
  api()->queue_close(host_state.dev, q2);
  chain_close(&c);
  close_mode();
}
static void test_overlap(void) {
  overlapping("list");
  overlapping("buffer");
}

static void moves(const char *mode) { /* copies and fills are recorded too; not those of the host */
  open_mode(mode, NULL);
  chain c;
  chain_open(&c);
  give(&c, 3, 0);
  tern_program *p = NULL;
  info_block b = {0};
  CU_ASSERT_EQUAL_FATAL(api()->program_begin(host_state.dev, host_state.q), TERN_OK);
  CU_ASSERT_EQUAL(launch(&c.step[0]), TERN_OK);
  b.copy = (tern_copy){.struct_size = sizeof b.copy, .src = c.mem[B], .dst = c.mem[D], .size = BYTES / 2};
  CU_ASSERT_EQUAL(api()->copy(host_state.dev, host_state.q, &b.copy), TERN_OK);
  CU_ASSERT_EQUAL(api()->fill(host_state.dev, host_state.q, c.mem[D], BYTES / 2, BYTES / 2, "\0\0\x80\x3f", 4),
                  TERN_OK);
  CU_ASSERT_EQUAL_FATAL(api()->program_end(host_state.dev, host_state.q, &p), TERN_OK);
  for (uint32_t i = 0; i < 3; i++) {
    float sum[ALL], got[ALL];
    give(&c, 7 + i, 0);
    CU_ASSERT_EQUAL(launch(&c.step[0]), TERN_OK);
    CU_ASSERT_EQUAL(get(c.mem[B], 0, sum, sizeof sum), TERN_OK);
    clear(c.mem[D]);
    clear(c.mem[B]);
    CU_ASSERT_EQUAL(run(p), TERN_OK);
    CU_ASSERT_EQUAL(get(c.mem[D], 0, got, sizeof got), TERN_OK);
    CU_ASSERT(!memcmp(sum, got, BYTES / 2) && got[ALL / 2] == 1 && got[ALL - 1] == 1);
  }
  api()->program_free(host_state.dev, p);
  CU_ASSERT_EQUAL_FATAL(api()->program_begin(host_state.dev, host_state.q), TERN_OK);
  CU_ASSERT_EQUAL(put(c.mem[A], 0, "abcd", 4), TERN_E_UNSUPPORTED);
  CU_ASSERT_EQUAL(launch(&c.step[0]), TERN_E_UNSUPPORTED);
  CU_ASSERT_EQUAL(api()->program_end(host_state.dev, host_state.q, &p), TERN_E_UNSUPPORTED);
  CU_ASSERT_PTR_NULL(p);
  compare(&c, p = record(&c), "after a recording that failed", 1); /* and the queue goes on */
  api()->program_free(host_state.dev, p);
  chain_close(&c);
  close_mode();
}
static void test_moves(void) {
  moves("list");
  moves("buffer");
}

/* A buffer is freed, and its header may come back with another buffer: nobody tells the program. */
static void memory_comes_back(const char *mode) {
  open_mode(mode, NULL);
  chain c;
  chain_open(&c);
  tern_program *p = record(&c);
  int same = 0;
  for (int i = 0; i < RUNS; i++) {
    compare(&c, p, "memory that comes back", i);
    const tern_mem *before = c.mem[B];
    CU_ASSERT_EQUAL(finish(), TERN_OK);
    api()->mem_free(host_state.dev, c.mem[B]);
    tern_mem *filler = i & 1 ? mem_new(BYTES * 3) : NULL;
    c.mem[B] = mem_new(BYTES);
    same += c.mem[B] == before;
    c.step[0].args[2].mem = c.step[1].args[0].mem = c.mem[B];
    if (c.mem[B] != before) {
      CU_ASSERT_EQUAL(update(p, &c, 0), TERN_OK);
      CU_ASSERT_EQUAL(update(p, &c, 1), TERN_OK);
    }
    if (filler) api()->mem_free(host_state.dev, filler);
  }
  printf("(%d of %d at the same address) ", same, RUNS);
  api()->program_free(host_state.dev, p);
  chain_close(&c);
  close_mode();
}
static void test_memory(void) {
  memory_comes_back("list");
  memory_comes_back("buffer");
}

static void test_refusals(void) {
  open_mode("list", NULL);
  chain c;
  chain_open(&c);
  tern_program *p = NULL, *empty = NULL;
  CU_ASSERT_EQUAL(api()->program_end(host_state.dev, host_state.q, &p), TERN_E_ARG);
  CU_ASSERT_EQUAL(api()->program_begin(host_state.dev, host_state.q), TERN_OK);
  CU_ASSERT_EQUAL(api()->program_begin(host_state.dev, host_state.q), TERN_E_ARG);
  CU_ASSERT_EQUAL(api()->program_end(host_state.dev, host_state.q, &empty), TERN_OK);
  CU_ASSERT_EQUAL(run(empty), TERN_OK);
  CU_ASSERT_EQUAL(update(empty, &c, 0), TERN_E_ARG);
  p = record(&c);
  step bad = c.step[0];
  c.step[0].n = 2;
  CU_ASSERT_EQUAL(update(p, &c, 0), TERN_E_ARG); /* of another form */
  c.step[0] = bad;
  compare(&c, p, "after an update that was refused", 2);
  c.step[0].args[1].mem = NULL;
  CU_ASSERT_EQUAL(update(p, &c, 0), TERN_E_ARG);
  CU_ASSERT_EQUAL(run(p), TERN_E_ARG); /* not half of it */
  c.step[0] = bad;
  CU_ASSERT_EQUAL(update(p, &c, 0), TERN_OK);
  compare(&c, p, "after an update that was put right", 3);
  CU_ASSERT_EQUAL(api()->program_begin(host_state.dev, host_state.q), TERN_OK);
  CU_ASSERT_EQUAL(run(empty), TERN_E_UNSUPPORTED);
  c.step[0].args[1].mem = NULL;
  CU_ASSERT_EQUAL(launch(&c.step[0]), TERN_E_ARG);
  c.step[0] = bad;
  tern_program *none = empty;
  CU_ASSERT_EQUAL(api()->program_end(host_state.dev, host_state.q, &none), TERN_E_ARG);
  CU_ASSERT_PTR_NULL(none);
  api()->program_free(host_state.dev, p);
  api()->program_free(host_state.dev, empty);
  CU_ASSERT_EQUAL(api()->program_begin(host_state.dev, host_state.q), TERN_OK); /* left open: the queue's end ends it */
  CU_ASSERT_EQUAL(launch(&c.step[0]), TERN_OK);
  chain_close(&c);
  close_mode();
}

/* ---- two threads, each with a queue and a program, of the same kernels ---- */

typedef struct worker {
  tern_queue *q;
  tern_program *p;
  tern_mem *mem[3];
  const step *s;
  int bad;
} worker;

static tern_launch launch_of(const worker *w, tern_arg args[3], int i) {
  args[0] = (tern_arg){w->mem[i & 1], 0}, args[1] = (tern_arg){w->mem[2], 0}, args[2] = (tern_arg){w->mem[!(i & 1)], 0};
  return (tern_launch){
      .args = args, .words = w->s->node.words, .n_args = 3, .n_words = w->s->node.block.region.n_words};
}

static void *work(void *arg) {
  worker *w = arg;
  tern_dev *dev = host_state.dev;
  tern_arg args[3];
  for (int round = 0; round < 10; round++) {
    w->bad += api()->program_begin(dev, w->q) != TERN_OK;
    for (int i = 0; i < 20; i++) {
      const tern_launch l = launch_of(w, args, i);
      w->bad += api()->launch(dev, w->q, w->s->k, &l) != TERN_OK;
    }
    w->bad += api()->program_end(dev, w->q, &w->p) != TERN_OK;
    for (int i = 0; i < 20; i++) {
      if (i % 4 == 3) {
        const tern_launch l = launch_of(w, args, i);
        w->bad += api()->program_update(dev, w->p, (uint32_t)i, &l) != TERN_OK;
      }
      w->bad += api()->program_run(dev, w->q, w->p) != TERN_OK;
    }
    api()->program_free(dev, w->p);
  }
  uint64_t t = 0;
  w->bad += api()->queue_signal(dev, w->q, &t) || api()->queue_sync(dev, w->q, t, UINT64_MAX);
  return NULL;
}

static void threads(const char *mode) {
  open_mode(mode, NULL);
  chain c;
  chain_open(&c);
  worker w[2] = {{0}};
  pthread_t t[2];
  float x[ALL];
  for (int i = 0; i < 2; i++) {
    w[i].s = &c.step[0];
    CU_ASSERT_EQUAL_FATAL(api()->queue_open(host_state.dev, 0, &w[i].q), TERN_OK);
    for (int m = 0; m < 3; m++) {
      for (int e = 0; e < ALL; e++) x[e] = m == 2 ? (float)(1 + i) : 0;
      w[i].mem[m] = mem_new(BYTES);
      CU_ASSERT_EQUAL(put(w[i].mem[m], 0, x, sizeof x), TERN_OK);
    }
  }
  CU_ASSERT_EQUAL(finish(), TERN_OK);
  for (int i = 0; i < 2; i++) CU_ASSERT_EQUAL(pthread_create(&t[i], NULL, work, &w[i]), 0);
  for (int i = 0; i < 2; i++) {
    pthread_join(t[i], NULL);
    CU_ASSERT_EQUAL(w[i].bad, 0);
    CU_ASSERT_EQUAL(get(w[i].mem[0], 0, x, sizeof x), TERN_OK);
    CU_ASSERT_EQUAL(x[0], (float)(4000 * (1 + i)));
    for (int m = 0; m < 3; m++) api()->mem_free(host_state.dev, w[i].mem[m]);
    api()->queue_close(host_state.dev, w[i].q);
  }
  chain_close(&c);
  close_mode();
}
static void test_threads(void) {
  threads("list");
  threads("buffer");
}

int main(int argc, char **argv) {
  if (!host_open(argc, argv)) return 77;
  close_mode();
  CU_initialize_registry();
  CU_pSuite s = CU_add_suite("opencl replay", NULL, NULL);
  CU_add_test(s, "list", test_list);
  CU_add_test(s, "auto", test_auto);
  CU_add_test(s, "command buffer", test_buffer);
  CU_add_test(s, "CLBlast", test_clblast);
  CU_add_test(s, "tiled", test_tiled);
  CU_add_test(s, "off", test_off);
  CU_add_test(s, "index errors", test_index_errors);
  CU_add_test(s, "overlapping runs", test_overlap);
  CU_add_test(s, "copies and fills", test_moves);
  CU_add_test(s, "memory that comes back", test_memory);
  CU_add_test(s, "refusals", test_refusals);
  CU_add_test(s, "threads", test_threads);
  CU_basic_set_mode(CU_BRM_VERBOSE);
  CU_basic_run_tests();
  const unsigned failed = CU_get_number_of_failures();
  CU_cleanup_registry();
  api()->fini(host_state.drv);
  return failed != 0;
}
