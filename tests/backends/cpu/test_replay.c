/* Recorded programs of the CPU backend: launches drawn at random over one block of memory, so that they depend on each
   other in every way, side by side and one after the other: the same bits everywhere. Then addresses that change,
   launches that fail, programs that are refused or given up, and recording beside other threads' launches. The plugin
   is driven through its table. */
#include "../../../backends/cpu/replay.h"
#include "support/test.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { FLOATS = 1 << 17, CROWD = 1 << 15, PLACE = 3072, MOST = 40, ROWS = 24, INNER = 80, COLUMNS = 32, INDICES = 64 };

static const tern_backend *api;
static tern_dev *device;
static struct {
  char text[256];
  int reported;
  pthread_t thread;
} host_error;

static tern_rc take_error(void *ctx, tern_rc rc, const char *text) {
  (void)ctx;
  snprintf(host_error.text, sizeof host_error.text, "%s", text);
  host_error.reported++;
  host_error.thread = pthread_self();
  return rc;
}
static const char *no_option(void *ctx, const char *key) {
  (void)ctx, (void)key;
  return NULL;
}

static uint64_t state = 88172645463325252u;
static uint32_t below(uint32_t n) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (uint32_t)(state >> 20) % n;
}

/* ---- kernels ---- */

enum { ADD, ADD_IN_PLACE, TANH, SUM, DOT, DOT_HALF, GATHER, COLUMN, KINDS };
typedef struct kernel {
  tern_kernel *code;
  uint32_t n_args, written; /* the argument that is the result, the last */
  uint32_t floats[3];       /* from the argument on, in units of 4 bytes */
  uint64_t workspace;
} kernel;
static kernel kernels[KINDS];

static tern_value dense(uint8_t kind, uint32_t slot, uint16_t dtype, uint16_t rank, int64_t rows, int64_t columns) {
  tern_value v = {.kind = kind, .slot = slot, .dtype = dtype, .rank = rank, .alias = -1};
  v.shape[0] = rows;
  v.stride[0] = rank > 1 ? columns : 1;
  v.shape[1] = columns;
  v.stride[1] = 1;
  return v;
}

static void make(int kind, uint32_t op, tern_value *value, uint32_t n, const tern_word *attr, uint32_t n_attr) {
  const uint32_t edges[] = {0, 1, 2};
  const tern_node node = {.op = op, .n_in = n - 1, .n_out = 1, .n_attr = n_attr, .out = n - 1};
  tern_region r = {.struct_size = sizeof r,
                   .flags = TERN_R_IDX32,
                   .n_nodes = 1,
                   .n_values = n,
                   .n_args = n,
                   .nodes = &node,
                   .values = value,
                   .edges = edges,
                   .attrs = attr};
  tern_kernel_info info = {.struct_size = sizeof info};
  kernel *k = &kernels[kind];
  if (api->compile(device, &r, &k->code, &info)) {
    printf("kernel %d: %s\n", kind, host_error.text);
    exit(1);
  }
  k->n_args = n;
  k->written = n - 1;
  k->workspace = info.workspace;
  if (info.workspace == UINT64_MAX) api->workspace(device, k->code, NULL, &k->workspace);
  for (uint32_t i = 0; i < n; i++) {
    const tern_value *v = &value[i];
    int64_t count = 1;
    for (int d = 0; d < v->rank; d++) count += (v->shape[d] - 1) * v->stride[d];
    k->floats[i] = (uint32_t)(((uint64_t)count * cpu_item_size(v->dtype) + 3) / 4);
  }
}

static void make_all(void) {
  const uint16_t f = TERN_F32, h = TERN_F16;
  tern_value add[] = {dense(TERN_V_IN, 0, f, 1, 1500, 0), dense(TERN_V_IN, 1, f, 1, 1500, 0),
                      dense(TERN_V_OUT, 2, f, 1, 1500, 0)};
  make(ADD, TERN_OP_ADD, add, 3, NULL, 0);
  add[2].alias = 0;
  make(ADD_IN_PLACE, TERN_OP_ADD, add, 3, NULL, 0);
  tern_value tanh[] = {dense(TERN_V_IN, 0, f, 1, 3000, 0), dense(TERN_V_OUT, 1, f, 1, 3000, 0)};
  make(TANH, TERN_OP_TANH, tanh, 2, NULL, 0);
  tern_value sum[] = {dense(TERN_V_IN, 0, f, 2, 64, 100), dense(TERN_V_OUT, 1, f, 2, 64, 1)};
  sum[1].stride[1] = 0;
  const tern_word last = {.u = 2};
  make(SUM, TERN_OP_SUM, sum, 2, &last, 1);
  tern_value dot[] = {dense(TERN_V_IN, 0, f, 2, ROWS, INNER), dense(TERN_V_IN, 1, f, 2, INNER, COLUMNS),
                      dense(TERN_V_OUT, 2, f, 2, ROWS, COLUMNS)};
  make(DOT, TERN_OP_DOT, dot, 3, NULL, 0);
  for (int i = 0; i < 3; i++) dot[i].dtype = h;
  make(DOT_HALF, TERN_OP_DOT, dot, 3, NULL, 0);
  tern_value gather[] = {dense(TERN_V_IN, 0, f, 3, 1, 8), dense(TERN_V_IN, 1, TERN_I32, 1, INDICES, 0),
                         dense(TERN_V_OUT, 2, f, 3, 1, INDICES)};
  for (int i = 0; i < 3; i += 2) gather[i].shape[2] = 16, gather[i].stride[1] = 16, gather[i].stride[2] = 1;
  gather[0].stride[0] = 8 * 16, gather[2].stride[0] = INDICES * 16;
  make(GATHER, TERN_OP_GATHER, gather, 3, NULL, 0);
  tern_value column[] = {dense(TERN_V_IN, 0, f, 2, 40, 16), dense(TERN_V_OUT, 1, f, 2, 40, 16)}; /* of 64 columns */
  column[1].stride[0] = 64;
  make(COLUMN, TERN_OP_EXP, column, 2, NULL, 0);
}

/* ---- random programs ---- */

typedef struct call {
  int kind;
  uint32_t at[3], workspace; /* floats from the block's beginning */
} call;

static bool overlap(uint32_t a, uint32_t na, uint32_t b, uint32_t nb) { return a < b + nb && b < a + na; }

/* The index of GATHER lies behind the block, where nothing else is written */
static uint32_t place(const call *c, uint32_t i) {
  if (c->kind == GATHER && i == 1) return FLOATS;
  return below((CROWD - kernels[c->kind].floats[i]) / 16) * 16;
}

/* Until the result, and the workspace, are memory of their own within the launch; few places, so that launches meet */
static void draw_call(call *c, int kind, bool apart, uint32_t number) {
  c->kind = kind;
  const kernel *k = &kernels[kind];
  const uint32_t ws = (uint32_t)(k->workspace / 4);
  for (bool good = false; !good;) {
    for (uint32_t i = 0; i < k->n_args; i++) c->at[i] = place(c, i);
    if (apart) c->at[k->written] = number * PLACE;
    if (kind == ADD_IN_PLACE) c->at[2] = c->at[0];
    c->workspace = ws ? below((CROWD - ws) / 16) * 16 : 0;
    good = true;
    const uint32_t out = c->at[k->written], n_out = k->floats[k->written];
    for (uint32_t i = 0; i < k->written && good; i++) {
      if (kind == ADD_IN_PLACE && i == 0) continue;
      good =
          !overlap(out, n_out, c->at[i], k->floats[i]) && (!ws || !overlap(c->workspace, ws, c->at[i], k->floats[i]));
    }
    if (ws && overlap(c->workspace, ws, out, n_out)) good = false;
  }
}

static tern_rc start(const call *c, float *block, tern_program *update, uint32_t number) {
  const kernel *k = &kernels[c->kind];
  tern_arg arg[3];
  for (uint32_t i = 0; i < k->n_args; i++) arg[i] = (tern_arg){(tern_mem *)(void *)block, (uint64_t)c->at[i] * 4};
  tern_launch l = {.args = arg, .n_args = k->n_args};
  if (k->workspace) l.workspace = (tern_arg){(tern_mem *)(void *)block, (uint64_t)c->workspace * 4};
  return update ? api->program_update(device, update, number, &l) : api->launch(device, NULL, k->code, &l);
}

static tern_program *record(const call *c, uint32_t n, float *block) {
  tern_program *p = NULL;
  if (api->program_begin(device, NULL)) return NULL;
  for (uint32_t i = 0; i < n; i++) CHECK(!start(&c[i], block, NULL, 0), "launch %u is not recorded", i);
  return api->program_end(device, NULL, &p) ? NULL : p;
}

static float *new_block(void) {
  float *b = aligned_alloc(64, (FLOATS + INDICES) * sizeof *b);
  for (int i = 0; i < FLOATS; i++) b[i] = (float)below(1 << 20) * 0x1p-20f - 0.5f;
  int32_t *index = (int32_t *)(void *)(b + FLOATS);
  for (int i = 0; i < INDICES; i++) index[i] = (int32_t)below(16) - 8;
  return b;
}

static bool one_program(uint32_t n, bool apart, int runs, uint64_t *recorded) {
  call c[MOST];
  for (uint32_t i = 0; i < n; i++) draw_call(&c[i], (int)below(KINDS), apart, i);
  float *expected = new_block(), *got = aligned_alloc(64, (FLOATS + INDICES) * sizeof *got);
  memcpy(got, expected, (FLOATS + INDICES) * sizeof *got);
  tern_program *p = record(c, n, got);
  bool same = !memcmp(got, expected, FLOATS * sizeof *got); /* nothing ran */
  *recorded += p != NULL;
  for (int run = 0; p && run < runs && same; run++) {
    for (uint32_t i = 0; i < n; i++) start(&c[i], expected, NULL, 0);
    same = !api->program_run(device, NULL, p) && !memcmp(got, expected, FLOATS * sizeof *got);
    const uint32_t moved = below(3);
    for (uint32_t m = 0; m < moved; m++) {
      const uint32_t i = below(n);
      draw_call(&c[i], c[i].kind, false, i);
      same = same && !start(&c[i], got, p, i);
    }
  }
  api->program_free(device, p);
  free(got);
  free(expected);
  return same;
}

static void random_programs(void) {
  uint64_t recorded = 0;
  replay_set(2);
  for (int k = 0; k < 240; k++) {
    const uint32_t n = 2 + below(MOST - 2);
    if (!CHECK(one_program(n, k % 2, 6, &recorded), "program %d of %u launches differs", k, n)) break;
  }
  CHECK(recorded > 200, "only %llu were recorded", (unsigned long long)recorded);
  printf("(%llu side by side) ", (unsigned long long)recorded);
}

/* Through all that is measured, whatever comes out of it */
static void measured(void) {
  replay_set(1);
  int ended = 0, kept = 0;
  for (int k = 0; k < 12; k++) {
    call c[MOST];
    for (uint32_t i = 0; i < MOST; i++) draw_call(&c[i], i % 2 ? TANH : DOT, true, i);
    float *expected = new_block(), *got = aligned_alloc(64, (FLOATS + INDICES) * sizeof *got);
    memcpy(got, expected, (FLOATS + INDICES) * sizeof *got);
    tern_program *p = record(c, MOST, got);
    tern_rc rc = p ? TERN_OK : TERN_E_UNSUPPORTED;
    int runs = 0;
    for (; runs < 60 && !rc; runs++) {
      rc = api->program_run(device, NULL, p);
      if (!rc)
        for (uint32_t i = 0; i < MOST; i++) start(&c[i], expected, NULL, 0);
      if (!CHECK(!memcmp(got, expected, FLOATS * sizeof *got), "run %d of program %d differs", runs, k)) break;
    }
    CHECK(!rc || rc == TERN_E_UNSUPPORTED, "run %d gave %d", runs, rc);
    ended += rc == TERN_E_UNSUPPORTED;
    kept += runs == 60;
    api->program_free(device, p);
    free(got);
    free(expected);
  }
  CHECK(ended + kept == 12, "%d given up, %d kept", ended, kept);
  printf("(%d given up, %d kept) ", ended, kept);
}

/* ---- refused ---- */

static void refused(void) {
  float *block = new_block();
  call c[MOST];
  tern_program *p = NULL;
  replay_set(0);
  CHECK(api->program_begin(device, NULL) == TERN_E_UNSUPPORTED, "off, and yet recorded");
  replay_set(2);
  for (uint32_t i = 0; i < 5; i++) { /* a chain */
    draw_call(&c[i], TANH, true, 0);
    c[i].at[0] = i * PLACE, c[i].at[1] = (i + 1) * PLACE;
  }
  CHECK(!record(c, 5, block), "a chain is recorded");
  CHECK(!record(c, 1, block), "one launch is recorded");
  CHECK(api->program_end(device, NULL, &p) == TERN_E_ARG, "an end without a beginning");
  CHECK(!api->program_begin(device, NULL), "recording does not begin");
  CHECK(api->program_begin(device, NULL) == TERN_E_ARG, "recording begins twice");
  const tern_copy copy = {.struct_size = sizeof copy, .dst = (tern_mem *)(void *)block, .host_src = c, .size = 4};
  CHECK(api->copy(device, NULL, &copy) == TERN_E_UNSUPPORTED, "a copy is recorded");
  CHECK(api->fill(device, NULL, copy.dst, 0, 4, c, 4) == TERN_E_UNSUPPORTED, "a fill is recorded");
  CHECK(api->program_end(device, NULL, &p) == TERN_E_UNSUPPORTED, "an empty program is recorded");
  CHECK(!start(&c[0], block, NULL, 0), "a launch afterwards fails");
  c[1].at[0] = 20000, c[1].at[1] = 26000;
  p = record(c, 2, block);
  CHECK(p != NULL, "two independent launches are not recorded");
  if (p) {
    CHECK(start(&c[0], block, p, 2) == TERN_E_ARG, "there is no launch 2");
    CHECK(api->program_update(device, p, 0, &(tern_launch){.n_args = 1}) == TERN_E_UNSUPPORTED, "other arguments");
  }
  api->program_free(device, p);
  free(block);
}

/* ---- failures ---- */

/* The first in the program's order is reported, on the thread that asked; all before it are done */
static void failures(void) {
  replay_set(2);
  for (int round = 0; round < 60; round++) {
    call c[12];
    float *got = new_block(), *expected = aligned_alloc(64, (FLOATS + INDICES) * sizeof *expected);
    for (uint32_t i = 0; i < 12; i++) {
      draw_call(&c[i], i % 3 == 1 ? GATHER : TANH, false, i);
      const kernel *k = &kernels[c[i].kind];
      c[i].at[0] = 0;
      c[i].at[k->written] = PLACE * (1 + i);
    }
    int32_t *index = (int32_t *)(void *)(got + FLOATS);
    tern_program *p = record(c, 12, got);
    if (!CHECK(p != NULL, "not recorded")) break;
    index[5] = 100 + round;
    memcpy(expected, got, (FLOATS + INDICES) * sizeof *got);
    start(&c[0], expected, NULL, 0);
    host_error.reported = 0;
    host_error.text[0] = 0;
    const tern_rc rc = api->program_run(device, NULL, p);
    char number[16];
    snprintf(number, sizeof number, "%d", 100 + round);
    CHECK(rc && strstr(host_error.text, number), "status %d, \"%s\"", rc, host_error.text);
    CHECK(host_error.reported && pthread_equal(host_error.thread, pthread_self()), "reported on another thread");
    CHECK(!memcmp(got + c[0].at[1], expected + c[0].at[1], 3000 * sizeof *got), "a launch before was left out");
    index[5] = 1;
    CHECK(!api->program_run(device, NULL, p), "it fails still: %s", host_error.text);
    api->program_free(device, p);
    free(got);
    free(expected);
  }
}

/* ---- many threads ---- */

static _Atomic int wrong;

static void *launches(void *arg) {
  float *block = arg;
  call c = {.kind = TANH, .at = {0, 8192}};
  for (int i = 0; i < 600; i++) {
    block[8192] = 7;
    if (start(&c, block, NULL, 0) || block[8192] == 7) wrong++; /* it was not recorded by somebody else */
  }
  return NULL;
}

static void *records(void *arg) {
  float *block = arg;
  call c[6];
  for (uint32_t i = 0; i < 6; i++) c[i] = (call){.kind = TANH, .at = {0, 4096 + i * 4096}};
  for (int i = 0; i < 60; i++) {
    tern_program *p = record(c, 6, block);
    if (!p || api->program_run(device, NULL, p)) wrong++;
    for (uint32_t k = 1; k < 6; k++) wrong += memcmp(block + 4096, block + 4096 + k * 4096, 3000 * sizeof *block) != 0;
    api->program_free(device, p);
  }
  return NULL;
}

static void threads(void) {
  pthread_t thread[6];
  float *block[6];
  replay_set(2);
  for (int i = 0; i < 6; i++) block[i] = new_block();
  for (int i = 0; i < 6; i++) pthread_create(&thread[i], NULL, i % 2 ? records : launches, block[i]);
  for (int i = 0; i < 6; i++) {
    pthread_join(thread[i], NULL);
    free(block[i]);
  }
  CHECK(!wrong, "%d wrong launches", wrong);
}

/* ---- teams ---- */

enum { PARTS = 7 };
typedef struct parts {
  _Atomic int called[PARTS], failed;
  float *block;
} parts;

/* Launches of its own, and no team in a team */
static void part(void *context, uint32_t i) {
  parts *p = context;
  p->called[i]++;
  const call c = {.kind = TANH, .at = {0, 4096 + i * 4096}};
  p->failed += start(&c, p->block, NULL, 0) != TERN_OK;
  p->failed += api->team(device, 2, part, NULL) != TERN_E_UNSUPPORTED;
}

static void *teams(void *arg) {
  for (int i = 0; i < 100; i++) {
    parts p = {.block = arg};
    const tern_rc rc = api->team(device, PARTS, part, &p);
    if (rc && rc != TERN_E_UNSUPPORTED) wrong++; /* another thread's team is on */
    for (int k = 0; k < PARTS; k++) wrong += p.called[k] != (rc ? 0 : 1);
    wrong += p.failed;
    for (uint32_t k = 1; k < PARTS && !rc; k++)
      wrong += memcmp(p.block + 4096, p.block + 4096 + k * 4096, 3000 * sizeof(float)) != 0;
  }
  return NULL;
}

static void team(void) {
  pthread_t thread[3];
  float *block[3];
  wrong = 0;
  for (int i = 0; i < 3; i++) block[i] = new_block();
  teams(block[0]);
  for (int i = 0; i < 3; i++) pthread_create(&thread[i], NULL, teams, block[i]);
  for (int i = 0; i < 3; i++) {
    pthread_join(thread[i], NULL);
    free(block[i]);
  }
  CHECK(!wrong, "%d wrong calls", wrong);
}

/* ---- spans ---- */

static void spans(void) {
  const touch_span left = {.lo = 1000, .hi = 1000 + 640, .period = 64, .width = 16, .written = true};
  touch_span right = left;
  CHECK(touch_conflict(&left, &right), "the same columns");
  right.lo += 16, right.hi += 16;
  CHECK(!touch_conflict(&left, &right) && !touch_conflict(&right, &left), "the columns beside");
  right.lo += 40, right.hi += 40;
  CHECK(touch_conflict(&left, &right) && touch_conflict(&right, &left), "columns that end in the next row");
  right = left;
  right.lo += 16, right.hi += 16, right.period = 128;
  CHECK(touch_conflict(&left, &right), "rows of another length");
  right = (touch_span){.lo = 1640, .hi = 1700, .written = true};
  CHECK(!touch_conflict(&left, &right), "behind it");
  right = (touch_span){.lo = 500, .hi = 1001};
  CHECK(touch_conflict(&left, &right), "one byte is read");
  touch_span reads = left;
  reads.written = false;
  CHECK(!touch_conflict(&reads, &right), "both read");
}

static const test_case cases[] = {{"random programs", random_programs},
                                  {"measured", measured},
                                  {"refused", refused},
                                  {"failures", failures},
                                  {"threads", threads},
                                  {"team", team},
                                  {"spans", spans}};

int main(int argc, char **argv) {
  static const tern_host host = {.struct_size = sizeof host, .abi = TERN_ABI, .error = take_error, .option = no_option};
  tern_drv *drv = NULL;
  api = tern_plugin_query(TERN_ABI);
  if (!api || api->init(&host, &drv) || api->device_open(drv, 0, &device)) return 1;
  cpu_threads_init(4); /* more than there may be: they are interrupted in every place */
  make_all();
  const int rc = test_main(argc, argv, "recorded programs", cases, (int)(sizeof cases / sizeof *cases));
  for (int i = 0; i < KINDS; i++) api->kernel_free(device, kernels[i].code);
  api->fini(drv);
  return rc;
}
