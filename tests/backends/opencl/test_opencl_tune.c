/* Products of the OpenCL plugin by every form that there is, each against plain loops; and which form is chosen: what
   is measured is remembered by the next driver, a file that is damaged or another device's is not believed. Linked with
   the plugin's objects, whose inside it calls. Needs an OpenCL device; exits with 77 when there is none. */
#include "dot.h"
#include "opencl_host.h"
#include "tune.h"

#include <dirent.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

static struct { char dir[64], file[400]; } test;

/* The plugin that is linked in; its first device with a compiler. */
static bool start(void) {
  host_state.api = tern_plugin_query(TERN_ABI);
  if (!host_state.api || host_state.api->init(&fake_host, &host_state.drv)) {
    printf("the plugin does not start: %s\n", host_state.error);
    exit(1);
  }
  info_block b;
  if (device_describe(0, &b) == TERN_E_END) return false;
  return host_state.api->device_open(host_state.drv, 0, &host_state.dev) == TERN_OK &&
         host_state.api->queue_open(host_state.dev, 0, &host_state.q) == TERN_OK;
}

static void restart(const char *tune) {
  host_close();
  host_state.tune = tune;
  CU_ASSERT_FATAL(start());
}

/* ---- a product ---- */

typedef struct product {
  uint32_t in, out;
  int64_t batch, m, n, k;
  bool at, bt, one_b; /* transposed in memory; the second operand has one matrix for all */
  bool extreme;       /* the largest values, else small ones */
} product;

typedef struct made {
  operand a, b, c;
  one_node node;
  dot_kernel *kernel;
  tern_arg args[3];
  tern_launch launch;
  tern_mem *workspace;
} made;

static int64_t value(const operand *o, int64_t i) {
  switch (o->dtype) {
  case TERN_I8: return ((int8_t *)o->data)[i];
  case TERN_U8: return ((uint8_t *)o->data)[i];
  case TERN_I32: return ((int32_t *)o->data)[i];
  case TERN_F32: return (int64_t)((float *)o->data)[i];
  default: return (int64_t)((double *)o->data)[i];
  }
}

static void operand_of(operand *o, const product *p, uint32_t dtype, int64_t rows, int64_t cols, bool transposed,
                       bool one) {
  uint32_t seed = (uint32_t)(rows * 131 + cols);
  *o = (operand){.dtype = dtype, .rank = 3, .shape = {one ? 1 : p->batch, rows, cols}};
  dense(o);
  if (transposed) o->stride[1] = 1, o->stride[2] = rows;
  if (o->shape[0] == 1) o->stride[0] = 0;
  o->data = calloc((size_t)o->n, size_of(dtype));
  for (int64_t i = 0; i < o->n; i++) {
    int v = (int)(random_u32(&seed) % 13) - (dtype == TERN_U8 ? 0 : 6);
    if (p->extreme) v = dtype == TERN_U8 ? 255 - v % 2 : i % 3 ? -128 : 127;
    switch (dtype) {
    case TERN_I8: ((int8_t *)o->data)[i] = (int8_t)v; break;
    case TERN_U8: ((uint8_t *)o->data)[i] = (uint8_t)v; break;
    case TERN_I32: ((int32_t *)o->data)[i] = v; break;
    case TERN_F32: ((float *)o->data)[i] = (float)v; break;
    default: ((double *)o->data)[i] = v; break;
    }
  }
}

static bool make(made *t, const product *p) {
  memset(t, 0, sizeof *t);
  operand_of(&t->a, p, p->in, p->m, p->k, p->at, false);
  operand_of(&t->b, p, p->in, p->k, p->n, p->bt, p->one_b);
  operand_of(&t->c, p, p->out, p->m, p->n, false, false);
  const operand *list[] = {&t->a, &t->b, &t->c};
  region_of(&t->node, TERN_OP_DOT, 0, 0, 0, 3, list);
  info_block info = {0};
  info.kernel.struct_size = sizeof info.kernel;
  tern_kernel *k = NULL;
  if (host_state.api->compile(host_state.dev, &t->node.block.region, &k, &info.kernel)) return false;
  t->kernel = (dot_kernel *)k;
  for (int i = 0; i < 3; i++) {
    const uint64_t size = (uint64_t)list[i]->n * size_of(list[i]->dtype);
    t->args[i] = (tern_arg){mem_new(size), 0};
    if (!t->args[i].mem || put(t->args[i].mem, 0, list[i]->data, size)) return false;
  }
  t->launch =
      (tern_launch){.args = t->args, .words = t->node.words, .n_args = 3, .n_words = t->node.block.region.n_words};
  return true;
}

static void drop(made *t) {
  for (int i = 0; i < 3; i++)
    if (t->args[i].mem) host_state.api->mem_free(host_state.dev, t->args[i].mem);
  if (t->workspace) host_state.api->mem_free(host_state.dev, t->workspace);
  host_state.api->kernel_free(host_state.dev, t->kernel ? &t->kernel->head : NULL);
  free(t->a.data), free(t->b.data), free(t->c.data);
}

static void room(made *t, uint64_t bytes) {
  if (t->workspace) host_state.api->mem_free(host_state.dev, t->workspace);
  t->workspace = bytes ? mem_new(bytes) : NULL;
  t->launch.workspace = (tern_arg){t->workspace, 0};
}

static int64_t wrong(const made *t, const product *p) {
  int64_t bad = 0;
  for (int64_t g = 0; g < p->batch; g++)
    for (int64_t i = 0; i < p->m; i++)
      for (int64_t j = 0; j < p->n; j++) {
        int64_t sum = 0;
        for (int64_t k = 0; k < p->k; k++)
          sum += value(&t->a, g * t->a.stride[0] + i * t->a.stride[1] + k * t->a.stride[2]) *
                 value(&t->b, g * t->b.stride[0] + k * t->b.stride[1] + j * t->b.stride[2]);
        if (p->out == TERN_I8) sum = (int8_t)sum;
        if (p->out == TERN_U8) sum = (uint8_t)sum;
        bad += value(&t->c, g * t->c.stride[0] + i * t->c.stride[1] + j) != sum;
      }
  return bad;
}

/* The sizes as dot.c takes them from a launch. */
static dot_sizes sizes_of(const made *t, const product *p) {
  const operand *o[] = {&t->a, &t->b, &t->c};
  dot_sizes s = {.m = p->m, .n = p->n, .k = p->k, .batches = p->batch, .bsize = {p->batch}};
  s.ars = o[0]->stride[1], s.acs = o[0]->stride[2], s.brs = o[1]->stride[1], s.bcs = o[1]->stride[2];
  s.crs = o[2]->stride[1], s.ccs = o[2]->stride[2];
  for (int i = 0; i < 3; i++) s.stride[i][0] = o[i]->stride[0];
  return s;
}

/* A kernel that keeps the sections of its dtype alive, so that each is built once. */
static struct {
  made it;
  uint32_t in, out;
} kept;

static void let_go(void) {
  if (kept.in) drop(&kept.it);
  kept.in = 0;
}

/* By every form that can serve it; returns how many did. */
static int all_forms(const product *p, bool clblast) {
  made t;
  int served = 0;
  CU_ASSERT_FATAL(make(&t, p));
  const dot_sizes s = sizes_of(&t, p);
  for (uint32_t f = 0; f < DOT_FORMS; f++) {
    dot_plan plan;
    if (f == DOT_CLBLAST && !clblast) continue;
    if (!dot_plan_form(host_state.dev, t.kernel, &s, (dot_form)f, &plan)) continue;
    const size_t bytes = (size_t)t.c.n * size_of(p->out);
    memset(t.c.data, 0x55, bytes);
    CU_ASSERT_EQUAL_FATAL(put(t.args[2].mem, 0, t.c.data, bytes), TERN_OK);
    room(&t, plan.bytes);
    pthread_mutex_lock(&t.kernel->head.lock);
    tern_rc rc = ocl_queue_enter(host_state.q);
    if (!rc) rc = ocl_kernel_ready(host_state.dev, &t.kernel->head);
    if (!rc) rc = dot_run(host_state.dev, host_state.q, t.kernel, &t.launch, &s, &plan);
    pthread_mutex_unlock(&t.kernel->head.lock);
    CU_ASSERT_EQUAL_FATAL(rc, TERN_OK);
    CU_ASSERT_EQUAL_FATAL(get(t.args[2].mem, 0, t.c.data, bytes), TERN_OK);
    const int64_t bad = wrong(&t, p);
    if (bad)
      printf("form %u, dtype %u, %lld x %lld x %lld, batch %lld, transposed %d %d: %lld wrong\n", f, p->in,
             (long long)p->m, (long long)p->n, (long long)p->k, (long long)p->batch, p->at, p->bt, (long long)bad);
    CU_ASSERT_EQUAL(bad, 0);
    served++;
  }
  if (kept.in == p->in && kept.out == p->out) {
    drop(&t);
  } else {
    let_go();
    kept.it = t, kept.in = p->in, kept.out = p->out;
  }
  return served;
}

static void test_forms(void) {
  static const int64_t sizes[][3] = {{65, 70, 129}, {1, 1, 1},   {1, 70, 9},    {2, 130, 40},
                                     {13, 5, 3},    {31, 33, 2}, {25, 200, 800}};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    for (int t = 0; t < 4; t++) {
      const product p = {TERN_F32, TERN_F32, 1, sizes[i][0], sizes[i][1], sizes[i][2], t & 1, t >> 1, false, false};
      CU_ASSERT(all_forms(&p, false) > 1);
    }
  let_go();
}

static void test_batches(void) {
  for (int t = 0; t < 8; t++) {
    const product p = {TERN_F32, TERN_F32, 3, 19, 67, 21, t & 1, t >> 1 & 1, t >> 2, false};
    CU_ASSERT(all_forms(&p, false) > 1);
  }
  let_go();
}

static void test_dtypes(void) {
  static const uint32_t pairs[][2] = {{TERN_I8, TERN_I32}, {TERN_U8, TERN_I32},  {TERN_I8, TERN_I8},
                                      {TERN_U8, TERN_U8},  {TERN_I32, TERN_I32}, {TERN_F64, TERN_F64}};
  info_block b;
  device_describe(0, &b);
  for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
    if (!(b.info.dtypes >> pairs[i][0] & 1)) continue;
    const product small = {pairs[i][0], pairs[i][1], 2, 9, 66, 17, i & 1, i >> 1 & 1, false, false};
    CU_ASSERT(all_forms(&small, false) > 1);
    if (i >= 4) continue; /* the sums of bytes are exact for any length */
    const product large = {pairs[i][0], pairs[i][1], 1, 7, 65, 1100, false, false, false, true};
    CU_ASSERT(all_forms(&large, false) > 1);
  }
  let_go();
}

static void test_clblast(void) { /* also batched, by one call where the steps are equal */
  const product p[] = {{TERN_F32, TERN_F32, 1, 33, 17, 100, false, true, false, false},
                       {TERN_F32, TERN_F32, 4, 33, 47, 20, true, false, false, false},
                       {TERN_F32, TERN_F32, 3, 20, 40, 8, false, false, true, false}};
  if (ocl_clblast_ready(host_state.dev, TERN_F32)) {
    printf("(CLBlast cannot be used here) ");
    return;
  }
  for (size_t i = 0; i < sizeof p / sizeof *p; i++) all_forms(&p[i], true);
  let_go();
}

/* ---- the choice ---- */

static const product chosen = {TERN_F32, TERN_F32, 1, 40, 70, 33, false, false, false, false};

/* Runs it as a program would; the form, and whether it is known. */
static dot_form run_chosen(bool *known) {
  made t;
  CU_ASSERT_FATAL(make(&t, &chosen));
  uint64_t bytes = 0;
  const tern_kernel *k = &t.kernel->head;
  CU_ASSERT_EQUAL_FATAL(host_state.api->workspace(host_state.dev, k, t.node.words, &bytes), TERN_OK);
  room(&t, bytes);
  CU_ASSERT_EQUAL_FATAL(host_state.api->launch(host_state.dev, host_state.q, k, &t.launch), TERN_OK);
  CU_ASSERT_EQUAL_FATAL(get(t.args[2].mem, 0, t.c.data, (uint64_t)t.c.n * 4), TERN_OK);
  CU_ASSERT_EQUAL(wrong(&t, &chosen), 0);
  const dot_sizes s = sizes_of(&t, &chosen);
  const dot_form f = dot_tuned(host_state.dev, t.kernel, &s);
  *known = f != DOT_GUESS;
  drop(&t);
  return f;
}

/* The tuning file in the cache folder, or "". */
static const char *tuning_file(void) {
  DIR *d = opendir(test.dir);
  test.file[0] = 0;
  for (struct dirent *e; d && (e = readdir(d));)
    if (!strncmp(e->d_name, "opencl-tune-", 12)) snprintf(test.file, sizeof test.file, "%s/%s", test.dir, e->d_name);
  if (d) closedir(d);
  return test.file;
}

static void test_remembered(void) {
  bool known;
  restart("auto");
  CU_ASSERT_EQUAL(run_chosen(&known), DOT_GUESS); /* nothing is measured unasked */
  CU_ASSERT_STRING_EQUAL(tuning_file(), "");
  restart("1");
  const dot_form measured = run_chosen(&known);
  CU_ASSERT(known);
  CU_ASSERT(*tuning_file());
  restart("auto");
  CU_ASSERT_EQUAL(run_chosen(&known), measured);
  restart("off");
  CU_ASSERT_EQUAL(run_chosen(&known), DOT_GUESS);
}

static long size_of_file(const char *path) {
  struct stat st;
  return stat(path, &st) ? -1 : (long)st.st_size;
}

/* Every byte of the file, changed: never believed, never harmful; and measured again, which mends it. */
static void test_damaged(void) {
  bool known;
  restart("1");
  run_chosen(&known);
  const char *path = tuning_file();
  const long size = size_of_file(path);
  CU_ASSERT_FATAL(size > 40);
  char *whole = malloc((size_t)size);
  FILE *f = fopen(path, "r+");
  CU_ASSERT_FATAL(whole && f && fread(whole, 1, (size_t)size, f) == (size_t)size);
  fclose(f);
  for (long at = 0; at < size; at += at + 19 < size ? 19 : 1) {
    f = fopen(path, "w");
    whole[at] ^= 1;
    CU_ASSERT_FATAL(f && fwrite(whole, 1, (size_t)size, f) == (size_t)size);
    fclose(f);
    whole[at] ^= 1;
    restart("auto");
    CU_ASSERT_EQUAL(run_chosen(&known), DOT_GUESS);
  }
  for (long cut = 0; cut < size; cut += 37) {
    CU_ASSERT_EQUAL_FATAL(truncate(path, cut), 0);
    restart("auto");
    CU_ASSERT_EQUAL(run_chosen(&known), DOT_GUESS);
  }
  restart("1");
  run_chosen(&known);
  CU_ASSERT(known);
  restart("auto");
  run_chosen(&known);
  CU_ASSERT(known);
  free(whole);
}

/* A file under this device's name that was written for another. */
static void test_foreign(void) {
  bool known;
  const char *path = tuning_file();
  FILE *f = fopen(path, "r+");
  CU_ASSERT_FATAL(f && !fseek(f, strlen("tern-opencl-tune 1 "), SEEK_SET) && fwrite("0123", 1, 4, f) == 4);
  fclose(f);
  restart("auto");
  CU_ASSERT_EQUAL(run_chosen(&known), DOT_GUESS);
  CU_ASSERT_EQUAL_FATAL(unlink(path) || mkfifo(path, 0666), 0); /* nobody writes to it: no reason to wait */
  restart("auto");
  CU_ASSERT_EQUAL(run_chosen(&known), DOT_GUESS);
  CU_ASSERT_EQUAL(unlink(path), 0);
}

/* Many classes: the table fills up and everything goes on. */
static void test_full(void) {
  bool known;
  restart("off");
  for (uint64_t i = 1; i < 20000; i++) {
    const int64_t sizes[] = {(int64_t)1 << i % 30, (int64_t)1 << i / 30 % 30, (int64_t)1 << i / 900};
    const uint64_t class = ocl_tune_class(TERN_OP_DOT << 16, sizes, 3);
    CU_ASSERT_EQUAL_FATAL(ocl_tune_pin(host_state.dev, class), OCL_TUNE_GUESS);
    CU_ASSERT_EQUAL_FATAL(ocl_tune_find(host_state.dev, class, &known), OCL_TUNE_GUESS);
  }
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at) {
  (void)st, (void)kind, (void)at;
  return remove(path);
}

static void clean(void) { nftw(test.dir, remove_one, 8, FTW_DEPTH | FTW_PHYS); }

int main(void) {
  snprintf(test.dir, sizeof test.dir, "/tmp/tern-tune-test-XXXXXX");
  if (!mkdtemp(test.dir)) return 1;
  host_state.cache_dir = test.dir;
  if (!start()) {
    printf("skipped: there is no OpenCL device on this machine\n");
    return 77;
  }
  CU_initialize_registry();
  CU_pSuite s = CU_add_suite("products on an OpenCL device, and who multiplies", NULL, NULL);
  CU_add_test(s, "every form", test_forms);
  CU_add_test(s, "batches", test_batches);
  CU_add_test(s, "dtypes", test_dtypes);
  CU_add_test(s, "CLBlast", test_clblast);
  CU_add_test(s, "measured and remembered", test_remembered);
  CU_add_test(s, "damaged file", test_damaged);
  CU_add_test(s, "another device's file", test_foreign);
  CU_add_test(s, "full table", test_full);
  CU_basic_set_mode(CU_BRM_VERBOSE);
  CU_basic_run_tests();
  const unsigned failed = CU_get_number_of_failures();
  CU_cleanup_registry();
  host_close();
  clean();
  return failed ? 1 : 0;
}
