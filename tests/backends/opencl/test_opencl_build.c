/* Sections, units and their disk cache: what is built together, what fails alone, who builds, and what a cache folder
   may do to a process: nothing. Counts builds in the device of the plugin. Needs an OpenCL device with a compiler. */
#include "opencl_host.h"

#include "build.h"
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *program; /* this file, to run it again */

/* ---- devices of their own ---- */

typedef struct saved {
  tern_drv *drv;
  tern_dev *dev;
  tern_queue *q;
} saved;

static struct { unsigned built, loaded; /* by the device's opening */ } base;

/* A fresh driver and device, so that nothing is in memory. */
static saved device_push(void) {
  const tern_backend *api = host_state.api;
  const saved old = {host_state.drv, host_state.dev, host_state.q};
  CU_ASSERT_FATAL(!api->init(&fake_host, &host_state.drv) && !api->device_open(host_state.drv, 0, &host_state.dev) &&
                  !api->queue_open(host_state.dev, 0, &host_state.q));
  base.built = atomic_load(&host_state.dev->build->built);
  base.loaded = atomic_load(&host_state.dev->build->loaded);
  return old;
}

static void device_pop(saved old) {
  host_close();
  host_state.drv = old.drv, host_state.dev = old.dev, host_state.q = old.q;
}

static unsigned built(void) { return atomic_load(&host_state.dev->build->built) - base.built; }
static unsigned loaded(void) { return atomic_load(&host_state.dev->build->loaded) - base.loaded; }

/* ---- sums of every rank and type: each a section ---- */

enum { SUMS = 50, SIDE = 3 };
typedef struct sums {
  one_node node[SUMS];
  tern_kernel *k[SUMS];
} sums;

static bool sum_make(sums *s, int i) {
  static const uint32_t ops[] = {TERN_OP_ADD, TERN_OP_SUB, TERN_OP_MUL, TERN_OP_MAXIMUM, TERN_OP_MINIMUM};
  operand a = {.dtype = i / 25 ? TERN_I32 : TERN_F32, .rank = (uint32_t)(i / 5 % 5 + 1)};
  for (uint32_t d = 0; d < a.rank; d++) a.shape[d] = SIDE + d;
  dense(&a);
  for (uint32_t d = 0; d < a.rank; d++) a.stride[d] *= 2; /* not dense, so that ranks stay apart */
  operand b = a, c = a;
  b.stride[0]++, c.stride[0] += 2;
  const operand *list[] = {&a, &b, &c};
  const tern_region *r = region_of(&s->node[i], ops[i % 5], 0, 0, TERN_R_IDX32, 3, list);
  info_block info = {0};
  info.kernel.struct_size = sizeof info.kernel;
  return !host_state.api->compile(host_state.dev, r, &s->k[i], &info.kernel);
}

/* One launch over memory of zeros, then of threes; true if the first element is right. */
static bool sum_run(sums *s, int i) {
  const bool integer = i / 25;
  const float three_f = 3;
  const int32_t three_i = 3;
  static const float right[] = {6, 0, 9, 3, 3};
  tern_arg args[3] = {0};
  bool ok = true;
  for (int j = 0; j < 3 && ok; j++) {
    args[j].mem = mem_new(1 << 20);
    ok = args[j].mem && !host_state.api->fill(host_state.dev, host_state.q, args[j].mem, 0, 1 << 20,
                                              integer ? (const void *)&three_i : (const void *)&three_f, 4);
  }
  const tern_launch l = {
      .args = args, .words = s->node[i].words, .n_args = 3, .n_words = s->node[i].block.region.n_words};
  union {
    float f;
    int32_t i;
  } got = {0};
  ok = ok && !host_state.api->launch(host_state.dev, host_state.q, s->k[i], &l) && !get(args[2].mem, 0, &got, 4);
  for (int j = 0; j < 3; j++)
    if (args[j].mem) host_state.api->mem_free(host_state.dev, args[j].mem);
  return ok && (integer ? (float)got.i : got.f) == right[i % 5];
}

static void sums_free(sums *s) {
  for (int i = 0; i < SUMS; i++) {
    if (s->k[i]) host_state.api->kernel_free(host_state.dev, s->k[i]);
    s->k[i] = NULL;
  }
}

/* Compiles n, launches all: true if all are right. */
static bool sums_work(int n) {
  sums *s = calloc(1, sizeof *s);
  bool ok = s != NULL;
  for (int i = 0; i < n && ok; i++) ok = sum_make(s, i);
  for (int i = 0; i < n && ok; i++) ok = sum_run(s, i);
  if (s) sums_free(s);
  free(s);
  return ok;
}

/* ---- folders ---- */

typedef struct folder { /* a cache folder: path, in root */
  char root[64], path[512];
} folder;

static void remove_all(const char *path) {
  DIR *d = opendir(path);
  for (struct dirent *e; d && (e = readdir(d));) {
    char inner[1024];
    if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
    snprintf(inner, sizeof inner, "%.500s/%.255s", path, e->d_name);
    struct stat st;
    if (!lstat(inner, &st) && S_ISDIR(st.st_mode))
      remove_all(inner);
    else
      unlink(inner);
  }
  if (d) closedir(d);
  rmdir(path);
}

static void folder_free(const folder *f) {
  host_state.cache_dir = NULL;
  remove_all(f->root);
}

/* The device's folder in the cache, and the entries in it whose name has `part`; the last one's path. */
static int units(const char *part, char path[1024]) {
  char dir[800] = "";
  DIR *d = opendir(host_state.cache_dir);
  for (struct dirent *e; d && (e = readdir(d));)
    if (!strncmp(e->d_name, "opencl-", 7) && strlen(e->d_name) == 7 + 32)
      snprintf(dir, sizeof dir, "%.500s/%.200s", host_state.cache_dir, e->d_name);
  if (d) closedir(d);
  int n = 0;
  d = *dir ? opendir(dir) : NULL;
  for (struct dirent *e; d && (e = readdir(d));)
    if (e->d_name[0] != '.' && strstr(e->d_name, part)) {
      if (path) snprintf(path, 1024, "%.750s/%.255s", dir, e->d_name);
      n++;
    }
  if (d) closedir(d);
  return n;
}

static void folder_new(folder *f) {
  *f = (folder){.root = "/tmp/tern-opencl-build-XXXXXX"};
  CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(f->root));
  snprintf(f->path, sizeof f->path, "%s/deeper/still", f->root); /* made when it is needed */
  host_state.cache_dir = f->path;
  char path[1024];
  device_pop(device_push()); /* what only a device's first opening does: its self-test */
  while (units(".unit", path)) CU_ASSERT_EQUAL_FATAL(unlink(path), 0);
}

/* ---- tests ---- */

static void test_one_unit(void) {
  const saved old = device_push();
  sums *s = calloc(1, sizeof *s);
  CU_ASSERT_PTR_NOT_NULL_FATAL(s);
  for (int i = 0; i < SUMS; i++) CU_ASSERT_FATAL(sum_make(s, i));
  const unsigned before = built();
  CU_ASSERT(before <= 1); /* the builder thread may have been quicker */
  for (int i = 0; i < SUMS; i++) CU_ASSERT(sum_run(s, i));
  CU_ASSERT(built() <= 1 + before);
  CU_ASSERT(s->k[0]->section != s->k[1]->section);
  sums_free(s);
  for (int i = 0; i < 2; i++) CU_ASSERT_FATAL(sum_make(s, 0) && sum_run(s, 0) && (sums_free(s), true)); /* once more */
  free(s);
  device_pop(old);
}

static ocl_section *section(const char *text, const char *what) {
  ocl_section *s = NULL;
  CU_ASSERT_EQUAL_FATAL(ocl_section_get(host_state.dev, text, what, &s), TERN_OK);
  return s;
}

/* Runs `kernel` of a section, whose argument is one int*, and returns what it wrote. */
static int run_int(const ocl_section *s, const char *kernel) {
  tern_mem *m = mem_new(64);
  cl_kernel k = NULL;
  int out = -1;
  const size_t one = 1;
  if (!ocl_kernel_new(host_state.dev, s, kernel, &k) && m && !clSetKernelArg(k, 0, sizeof m->buffer, &m->buffer) &&
      !clEnqueueNDRangeKernel(host_state.q->q, k, 1, NULL, &one, &one, 0, NULL, NULL) && !clFinish(host_state.q->q))
    get(m, 0, &out, sizeof out);
  if (k) clReleaseKernel(k);
  if (m) host_state.api->mem_free(host_state.dev, m);
  return out;
}

static void test_same_names(void) {
  host_state.build = "launch";
  const saved old = device_push();
  ocl_section *s[4];
  for (int i = 0; i < 4; i++) {
    char text[1500];
    snprintf(text, sizeof text,
             "/* void not_this(int x) { */\n#define VALUE %d\n#define TWICE(x) \\\n  ((x) * 2)\n"
             "typedef %s T; typedef struct pair { int first, second; } pair;\n"
             "struct other { T t; };\n__constant int table[] = {VALUE, 1};\n"
             "T helper(T);\n"
             "T helper(T x) { pair p = {1, VALUE}; struct other o; o.t = x; return (T)(o.t + p.first * p.second); }\n"
             "__kernel __attribute__((reqd_work_group_size(1, 1, 1)))\nvoid run(__global int *out) {\n"
             "  T T2 = 0; { if (VALUE > 100) T2 = 1; }\n"
             "  *out = TWICE((int)helper((T)(%d))) + table[0] + (int)T2;\n}\n"
             "__kernel void another(__global int *out) { *out = VALUE; }",
             i, i % 2 ? "int" : "long", i * 10);
    s[i] = section(text, "a test");
  }
  for (int i = 0; i < 4; i++) CU_ASSERT_EQUAL(ocl_section_ready(host_state.dev, s[i]), TERN_OK);
  CU_ASSERT_EQUAL(built(), 1);
  for (int i = 0; i < 4; i++) {
    CU_ASSERT_EQUAL(run_int(s[i], "run"), 2 * (i * 10 + i) + i);
    CU_ASSERT_EQUAL(run_int(s[i], "another"), i);
    CU_ASSERT(ocl_section_known(host_state.dev, s[i]->key));
  }
  cl_kernel none = NULL;
  CU_ASSERT_NOT_EQUAL(ocl_kernel_new(host_state.dev, s[0], "absent", &none), TERN_OK);
  for (int i = 0; i < 4; i++) ocl_section_put(host_state.dev, s[i]);
  device_pop(old);
  host_state.build = NULL;
}

static const char good_text[] = "#define N %d\n__kernel void run(__global int *out) { *out = N; }\n";

static ocl_section *good(int i) {
  char text[200];
  snprintf(text, sizeof text, good_text, i);
  return section(text, "a good one");
}

static void test_fails_alone(void) {
  host_state.build = "launch";
  const saved old = device_push();
  ocl_section *s[11];
  for (int i = 0; i < 11; i++)
    s[i] = i == 7 ? section("__kernel void run(__global int *out) { *out = nonsense; }", "WIDGET") : good(i);
  for (int i = 0; i < 11; i++) {
    const tern_rc rc = ocl_section_ready(host_state.dev, s[i]);
    if (i != 7) {
      CU_ASSERT_EQUAL(rc, TERN_OK);
      CU_ASSERT_EQUAL(run_int(s[i], "run"), i);
      continue;
    }
    CU_ASSERT_NOT_EQUAL(rc, TERN_OK);
    CU_ASSERT_PTR_NOT_NULL(strstr(host_state.error, "WIDGET"));
    CU_ASSERT_PTR_NOT_NULL(strstr(host_state.error, "CL_BUILD_PROGRAM_FAILURE"));
  }
  const unsigned n = built();
  CU_ASSERT(n > 1 && n < 12); /* halves, not one by one */
  CU_ASSERT_NOT_EQUAL(ocl_section_ready(host_state.dev, s[7]), TERN_OK);
  CU_ASSERT_EQUAL(built(), n); /* it is not tried again */
  for (int i = 0; i < 11; i++) ocl_section_put(host_state.dev, s[i]);
  device_pop(old);
  host_state.build = NULL;
}

static void test_large(void) {
  host_state.build = "launch";
  const saved old = device_push();
  ocl_section *s[OCL_UNIT_SECTIONS + 6];
  const int n = sizeof s / sizeof s[0];
  for (int i = 0; i < n; i++) s[i] = good(1000 + i);
  CU_ASSERT_EQUAL(ocl_section_ready(host_state.dev, s[n - 1]), TERN_OK); /* with 63 others */
  CU_ASSERT_EQUAL(built(), 1);
  for (int i = 0; i < n; i++) CU_ASSERT_EQUAL(ocl_section_ready(host_state.dev, s[i]), TERN_OK);
  CU_ASSERT_EQUAL(built(), 2);
  for (int i = 0; i < n; i++) ocl_section_put(host_state.dev, s[i]);
  CU_ASSERT_PTR_NULL(host_state.dev->build->units);
  device_pop(old);
  host_state.build = NULL;
}

static void *need(void *arg) {
  ocl_section *const *s = arg;
  return (void *)(intptr_t)(ocl_section_ready(host_state.dev, s[0]) || ocl_section_ready(host_state.dev, s[1]));
}

static void test_threads(void) {
  for (int round = 0; round < 3; round++) {
    host_state.build = round % 2 ? "background" : "launch";
    const saved old = device_push();
    ocl_section *s[9];
    pthread_t t[8];
    for (int i = 0; i < 9; i++) s[i] = good(100 * round + i);
    for (int i = 0; i < 8; i++) CU_ASSERT_EQUAL_FATAL(pthread_create(&t[i], NULL, need, &s[i]), 0);
    for (int i = 0; i < 8; i++) {
      void *failed = NULL;
      pthread_join(t[i], &failed);
      CU_ASSERT_PTR_NULL(failed);
    }
    CU_ASSERT_EQUAL(built(), 1);
    for (int i = 0; i < 9; i++) CU_ASSERT_EQUAL(run_int(s[i], "run"), 100 * round + i);
    for (int i = 0; i < 9; i++) ocl_section_put(host_state.dev, s[i]);
    device_pop(old);
  }
  host_state.build = NULL;
}

static bool becomes_ready(const ocl_section *s, int ms) {
  for (; ms > 0 && atomic_load(&s->state) != OCL_READY; ms--) usleep(1000);
  return atomic_load(&s->state) == OCL_READY;
}

static void test_background(void) {
  const char *const modes[] = {"background", "launch"};
  for (int i = 0; i < 2; i++) {
    host_state.build = modes[i];
    const saved old = device_push();
    ocl_section *s = good(500 + i), *t;
    CU_ASSERT_EQUAL(becomes_ready(s, i ? 100 : 20000), i == 0);
    CU_ASSERT_EQUAL(ocl_section_ready(host_state.dev, s), TERN_OK);
    t = good(600 + i);
    CU_ASSERT_EQUAL(finish(), TERN_OK); /* a sync keeps the builder still .. */
    if (atomic_load(&t->state) != OCL_READY) CU_ASSERT(!becomes_ready(t, 100));
    ocl_section *u = good(700 + i);
    CU_ASSERT_EQUAL(becomes_ready(t, i ? 50 : 20000), i == 0); /* .. until another section comes */
    ocl_section_put(host_state.dev, t);                        /* perhaps while it is being built */
    ocl_section_put(host_state.dev, u);
    ocl_section_put(host_state.dev, s);
    device_pop(old);
  }
  host_state.build = NULL;
}

/* Whether a fresh device works, and how it came by its unit. */
static void check_start(unsigned want_built, unsigned want_loaded) {
  const saved old = device_push();
  CU_ASSERT(sums_work(3));
  CU_ASSERT_EQUAL(built(), want_built);
  CU_ASSERT_EQUAL(loaded(), want_loaded);
  device_pop(old);
}

static void damage(const char *path, int how) {
  struct stat st;
  CU_ASSERT_EQUAL_FATAL(stat(path, &st), 0);
  static const long cuts[] = {0, 7, 40, 79, 80, 100, -1};
  static const char foreign[] =
      "#!/bin/sh\necho this is not a unit, but it is longer than a header would be, is it not\n";
  if (how < 7) {
    CU_ASSERT_EQUAL(truncate(path, cuts[how] < 0 ? st.st_size - 1 : cuts[how]), 0);
  } else if (how < 19) { /* flipped bits: header, keys, payload */
    const int fd = open(path, O_RDWR);
    const long at = how < 15 ? (how - 7) * 16 + 3 : (st.st_size - 1) / (how - 14);
    unsigned char c = 0;
    CU_ASSERT(pread(fd, &c, 1, at) == 1);
    c ^= 0x10;
    CU_ASSERT(pwrite(fd, &c, 1, at) == 1);
    close(fd);
  } else if (how == 19) { /* somebody else's */
    const int fd = open(path, O_WRONLY | O_TRUNC);
    CU_ASSERT(write(fd, foreign, sizeof foreign) == (ssize_t)sizeof foreign);
    close(fd);
  } else if (how == 20) { /* longer than it says */
    const int fd = open(path, O_WRONLY | O_APPEND);
    CU_ASSERT(write(fd, foreign, sizeof foreign) == (ssize_t)sizeof foreign);
    close(fd);
  } else {
    unlink(path);
    CU_ASSERT(!(how == 21 ? mkfifo(path, 0666) : mkdir(path, 0777)));
  }
}

static void test_disk(const char *cache) {
  host_state.build = "launch";
  host_state.cache = cache;
  folder f;
  folder_new(&f);
  char path[1024];
  check_start(1, 0);
  CU_ASSERT_EQUAL_FATAL(units(".unit", path), 1);
  check_start(0, 1);
  const int warned = host_state.warnings;
  for (int how = 0; how < 22; how++) { /* not believed, taken away and written anew */
    damage(path, how);
    check_start(1, 0);
    check_start(0, 1);
    CU_ASSERT_EQUAL(units("", NULL), 1);
  }
  CU_ASSERT_EQUAL(host_state.warnings, warned);
  damage(path, 22); /* a directory: not taken away, and in the way */
  check_start(1, 0);
  CU_ASSERT_EQUAL(host_state.warnings, warned + 1);
  folder_free(&f);
  host_state.cache_dir = "/proc/nowhere/at/all"; /* cannot be written: one warning, and on */
  check_start(1, 0);
  CU_ASSERT_EQUAL(host_state.warnings, warned + 2);
  host_state.cache_dir = host_state.cache = host_state.build = NULL;
}

static void test_disk_auto(void) { test_disk(NULL); }
static void test_disk_binary(void) { test_disk("binary"); }

static void test_disk_more(void) { /* what was built apart is put together from disk, and added to */
  host_state.build = "launch";
  folder f;
  folder_new(&f);
  check_start(1, 0);
  saved old = device_push();
  CU_ASSERT(sums_work(20));
  CU_ASSERT(built() == 1 && loaded() == 1);
  device_pop(old);
  CU_ASSERT_EQUAL(units(".unit", NULL), 2);
  old = device_push();
  CU_ASSERT(sums_work(20));
  CU_ASSERT(built() == 0 && loaded() == 2);
  device_pop(old);
  host_state.cache = "off";
  check_start(1, 0);
  folder_free(&f);
  host_state.cache = host_state.build = NULL;
}

static void test_full_disk(void) {
  folder f;
  folder_new(&f);
  const saved old = device_push();
  ocl_cache *c = ocl_cache_open(host_state.dev);
  CU_ASSERT_PTR_NOT_NULL_FATAL(c);
  static unsigned char data[100000];
  uint64_t keys[2][2] = {{1, 2}, {3, 4}};
  const ocl_stored unit = {.kind = OCL_SOURCE, .n = 2, .keys = keys, .data = data, .size = sizeof data};
  struct rlimit before, little = {0};
  getrlimit(RLIMIT_FSIZE, &before);
  little = before;
  little.rlim_cur = 5000;
  const int warned = host_state.warnings;
  setrlimit(RLIMIT_FSIZE, &little);
  for (int i = 0; i < 3; i++) ocl_cache_store(c, &unit); /* SIGXFSZ would end the test */
  setrlimit(RLIMIT_FSIZE, &before);
  CU_ASSERT_EQUAL(host_state.warnings, warned + 1);
  CU_ASSERT_EQUAL(units("", NULL), 0); /* nothing is left behind */
  ocl_stored got;
  CU_ASSERT_FALSE(ocl_cache_load(c, (const uint64_t(*)[2])keys, 1, &got));
  ocl_cache_close(c);
  device_pop(old);
  folder_free(&f);
}

static void test_cap(void) {
  folder f;
  folder_new(&f);
  const saved old = device_push();
  ocl_cache *c = ocl_cache_open(host_state.dev);
  CU_ASSERT_PTR_NOT_NULL_FATAL(c);
  unsigned char data[] = "text";
  uint64_t keys[1][2] = {{0, 7}};
  const ocl_stored unit = {.kind = OCL_SOURCE, .n = 1, .keys = keys, .data = data, .size = 4};
  for (int i = 0; i < 1100; i++) {
    keys[0][0] = (uint64_t)i;
    ocl_cache_store(c, &unit);
  }
  const int n = units(".unit", NULL);
  CU_ASSERT(n > 500 && n <= 1024);
  ocl_stored got;
  CU_ASSERT_FATAL(ocl_cache_load(c, (const uint64_t(*)[2])keys, 1, &got)); /* the last is there */
  CU_ASSERT(got.size == 4 && !memcmp(got.data, data, 5));
  ocl_stored_free(&got);
  ocl_cache_close(c);
  c = ocl_cache_open(host_state.dev);
  CU_ASSERT_PTR_NOT_NULL_FATAL(c);
  CU_ASSERT_FATAL(ocl_cache_load(c, (const uint64_t(*)[2])keys, 1, &got));
  ocl_cache_drop(c, &got);
  ocl_stored_free(&got);
  CU_ASSERT_FALSE(ocl_cache_load(c, (const uint64_t(*)[2])keys, 1, &got));
  ocl_cache_close(c);
  device_pop(old);
  folder_free(&f);
}

static void test_renamed(void) { /* a unit under another's name, which the runtime refuses: not looked at for ever */
  host_state.build = "launch";
  folder f;
  folder_new(&f);
  const saved old = device_push();
  ocl_section *s = good(77);
  uint64_t keys[1][2] = {{s->key[0], s->key[1]}};
  unsigned char data[] = "this is no OpenCL C";
  const ocl_stored unit = {.kind = OCL_SOURCE, .n = 1, .keys = keys, .data = data, .size = sizeof data - 1};
  ocl_cache *c = ocl_cache_open(host_state.dev);
  CU_ASSERT_PTR_NOT_NULL_FATAL(c);
  ocl_cache_store(c, &unit);
  ocl_cache_close(c);
  char path[1024], other[1024];
  CU_ASSERT_EQUAL_FATAL(units(".unit", path), 1);
  snprintf(other, sizeof other, "%.*s%032d.unit", (int)(strlen(path) - strlen(".unit") - 32), path, 5);
  CU_ASSERT_EQUAL_FATAL(rename(path, other), 0);
  CU_ASSERT_EQUAL(ocl_section_ready(host_state.dev, s), TERN_OK);
  CU_ASSERT(built() == 1 && loaded() == 0);
  CU_ASSERT_EQUAL(run_int(s, "run"), 77);
  CU_ASSERT_NOT_EQUAL(access(other, F_OK), 0); /* it is gone, */
  CU_ASSERT_EQUAL(access(path, F_OK), 0);      /* and there is a right one */
  ocl_section_put(host_state.dev, s);
  device_pop(old);
  folder_free(&f);
  host_state.build = NULL;
}

/* ---- other processes ---- */

static pid_t start(const char *mode) {
  const pid_t pid = fork();
  if (pid) return pid;
  if (host_state.cache_dir) setenv("TEST_CACHE", host_state.cache_dir, 1);
  execl("/proc/self/exe", program, mode, (char *)NULL);
  _exit(127);
}

static bool ends_well(pid_t pid) {
  int status = -1;
  return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && !WEXITSTATUS(status);
}

static void test_processes(void) {
  host_state.build = "launch";
  folder f;
  folder_new(&f);
  pid_t pid[3];
  for (int i = 0; i < 3; i++) pid[i] = start("--fill");
  for (int i = 0; i < 3; i++) CU_ASSERT(ends_well(pid[i]));
  CU_ASSERT_EQUAL(units("", NULL), 1);
  check_start(0, 1);
  folder_free(&f);
  host_state.build = NULL;
}

static void test_exit(void) { /* while the builder thread is about to begin, or is at work */
  for (int i = 0; i < 6; i++) CU_ASSERT(ends_well(start(i % 2 ? "--exit-now" : "--exit")));
}

static int child(const char *mode) {
  char *none[] = {NULL};
  host_state.cache_dir = getenv("TEST_CACHE");
  if (!strcmp(mode, "--fill")) host_state.build = "launch";
  if (!host_open(0, none)) return 1;
  if (!strcmp(mode, "--fill")) {
    const bool ok = sums_work(3);
    host_close();
    return !ok;
  }
  static sums left; /* a program that ends as it is */
  for (int i = 0; i < 10; i++)
    if (!sum_make(&left, i)) return 1;
  if (!strcmp(mode, "--exit")) usleep(6000);
  return finish() != TERN_OK; /* as the core does at exit */
}

int main(int argc, char **argv) {
  program = argv[0];
  if (argc == 2 && !strncmp(argv[1], "--", 2)) return child(argv[1]);
  host_state.cache_dir = NULL;
  if (!host_open(argc, argv)) return 77;
  if (!host_state.dev->id->compiler) {
    printf("skipped: this device has no compiler\n");
    return 77;
  }
  CU_initialize_registry();
  CU_pSuite s = CU_add_suite("opencl build", NULL, NULL);
  CU_add_test(s, "fifty regions, one unit", test_one_unit);
  CU_add_test(s, "the same names in many sections", test_same_names);
  CU_add_test(s, "a section that does not compile fails alone", test_fails_alone);
  CU_add_test(s, "more than a unit holds", test_large);
  CU_add_test(s, "threads that need the same", test_threads);
  CU_add_test(s, "background", test_background);
  CU_add_test(s, "disk", test_disk_auto);
  CU_add_test(s, "disk, binaries", test_disk_binary);
  CU_add_test(s, "disk, several units", test_disk_more);
  CU_add_test(s, "disk, full", test_full_disk);
  CU_add_test(s, "disk, too many files", test_cap);
  CU_add_test(s, "disk, a file under another's name", test_renamed);
  CU_add_test(s, "disk, processes at once", test_processes);
  CU_add_test(s, "end of a process", test_exit);
  CU_basic_set_mode(CU_BRM_VERBOSE);
  CU_basic_run_tests();
  const unsigned failed = CU_get_number_of_failures();
  CU_cleanup_registry();
  host_close();
  return failed ? 1 : 0;
}
