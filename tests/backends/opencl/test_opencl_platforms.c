/* Devices of several OpenCL platforms in one process: tensors copied between every pair, threads that use two at once,
   graphs whose work is on two (by the program, and by automatic placement), and work on one that waits for nothing on
   another. Results are compared with the CPU's. Exits with 77, and a reason, when there are fewer than two
   platforms. */
#include <CUnit/Basic.h>
#include <CUnit/CUnit.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <tern/tern.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 8, SIZE = 5000 };
static struct {
  char name[MOST][80], alias[MOST][80];
  int n; /* one device of each platform */
} devices;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void find_devices(void) {
  tern_device_desc d = {0};
  for (int i = 0; !tern_device_at(i, &d) && devices.n < MOST; i++) {
    bool known = strncmp(d.name, "opencl:", 7) != 0 || d.hidden;
    for (int k = 0; k < devices.n; k++) known |= !strcmp(devices.alias[k], d.alias);
    if (known) continue;
    snprintf(devices.name[devices.n], sizeof devices.name[0], "%s", d.name);
    snprintf(devices.alias[devices.n++], sizeof devices.alias[0], "%s", d.alias);
  }
  tern_error_clear();
}

/* 0.5 x^2 - y, a few times, and a sum of each row: float32, exact enough to compare. */
static tern_tensor *compute(tern_tensor *x, tern_tensor *y) {
  for (int i = 0; i < 6; i++) x = tern_sub(tern_tanh(tern_mul(x, x)), tern_mul(y, tern_scalar(0.5)));
  return x;
}

static bool near(const float *a, const float *b, int n) {
  int bad = 0;
  for (int i = 0; i < n; i++) bad += !(fabsf(a[i] - b[i]) <= 2e-5f * (1 + fabsf(b[i])));
  if (bad) printf(" (%d of %d differ) ", bad, n);
  return !bad;
}

static tern_tensor *numbers(const char *device, float first) {
  tern_with_device(device);
  return tern_mul(tern_arange((double)first, (double)first + SIZE, 1, TERN_F32), tern_scalar(1.0 / SIZE));
}

static void expected(float *out) {
  TERN_SCOPE;
  tern_with_device("cpu");
  tern_to_host(compute(numbers("cpu", 0), numbers("cpu", 7)), out, SIZE * sizeof *out);
}

/* ---- every pair ---- */

static void test_copies(void) {
  static float right[SIZE], got[SIZE];
  expected(right);
  for (int from = 0; from < devices.n; from++)
    for (int to = 0; to < devices.n; to++) {
      TERN_SCOPE;
      tern_tensor *a = numbers(devices.name[from], 0), *b = numbers(devices.name[from], 7);
      tern_tensor *there = tern_to(compute(a, b), devices.name[to]);
      tern_tensor *again = tern_to(tern_to(b, devices.name[to]), devices.name[from]); /* and back */
      CU_ASSERT_EQUAL(tern_to_host(there, got, sizeof got), TERN_OK);
      CU_ASSERT_TRUE(near(got, right, SIZE));
      static float first[SIZE];
      CU_ASSERT_EQUAL(tern_to_host(again, got, sizeof got), TERN_OK);
      CU_ASSERT_EQUAL(tern_to_host(b, first, sizeof first), TERN_OK);
      CU_ASSERT_EQUAL(memcmp(first, got, sizeof got), 0);
      tern_tensor *large = tern_to(tern_full(TERN_SHAPE(3, 1000, 1001), TERN_F32, 0.5), devices.name[from]);
      tern_tensor *moved = tern_to(large, devices.name[to]);
      CU_ASSERT_EQUAL(tern_item(tern_sum(moved, NULL)), 0.5 * 3 * 1000 * 1001);
      if (tern_error_code()) printf(" (%s to %s: %s) ", devices.name[from], devices.name[to], tern_error());
      CU_ASSERT_EQUAL(tern_error_code(), TERN_OK);
      tern_error_clear();
    }
}

/* ---- threads ---- */

typedef struct worker {
  const char *device;
  const float *right;
  int bad;
} worker;

static void *work(void *context) {
  worker *w = context;
  float got[SIZE];
  tern_with_device(w->device);
  for (int i = 0; i < 30; i++) {
    TERN_SCOPE;
    tern_tensor *r = compute(numbers(w->device, 0), numbers(w->device, 7));
    w->bad += tern_to_host(r, got, sizeof got) != TERN_OK || !near(got, w->right, SIZE);
  }
  w->bad += tern_error_code() != TERN_OK;
  return NULL;
}

static void test_threads(void) {
  static float right[SIZE];
  expected(right);
  for (int a = 0; a < devices.n; a++) {
    pthread_t thread[3];
    worker w[3];
    for (int i = 0; i < 3; i++) {
      w[i] = (worker){.device = devices.name[(a + i % 2) % devices.n], .right = right};
      CU_ASSERT_EQUAL_FATAL(pthread_create(&thread[i], NULL, work, &w[i]), 0);
    }
    for (int i = 0; i < 3; i++) {
      pthread_join(thread[i], NULL);
      CU_ASSERT_EQUAL(w[i].bad, 0);
    }
  }
}

/* ---- graphs ---- */

/* The first half on one device, the second on another. self: their names. */
static tern_rc split_body(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const char *const *name = self;
  (void)n_in, (void)n_out;
  tern_tensor *a = tern_to(in[0], name[0]), *b = tern_to(in[1], name[0]), *x, *y;
  {
    tern_with_device(name[0]);
    x = compute(a, b);
  }
  {
    tern_with_device(name[1]);
    y = compute(tern_to(x, name[1]), tern_to(in[1], name[1]));
  }
  out[0] = tern_to(y, "cpu");
  return TERN_OK;
}

static void test_split(void) {
  static float right[SIZE], got[SIZE];
  TERN_SCOPE;
  tern_with_device("cpu");
  tern_tensor *x = numbers("cpu", 0), *y = numbers("cpu", 7);
  CU_ASSERT_EQUAL(tern_to_host(compute(compute(x, y), y), right, sizeof right), TERN_OK);
  for (int a = 0; a < devices.n; a++) {
    const char *name[] = {devices.name[a], devices.name[(a + 1) % devices.n]};
    tern_function *f = tern_function_new(split_body, name, 2, 1, NULL);
    for (int run = 0; run < 4; run++) {
      tern_tensor *r = tern_call(f, x, y);
      CU_ASSERT_PTR_NOT_NULL_FATAL(r);
      CU_ASSERT_EQUAL(tern_to_host(r, got, sizeof got), TERN_OK);
      CU_ASSERT_TRUE(near(got, right, SIZE));
    }
    char *text = tern_explain(f);
    CU_ASSERT_TRUE(text && strstr(text, name[0]) && strstr(text, name[1]));
    free(text);
    tern_function_release(f);
  }
  if (tern_error_code()) printf(" (%s) ", tern_error());
  CU_ASSERT_EQUAL(tern_error_code(), TERN_OK);
}

/* ---- placement: its settings are read once, so in a process of its own, before OpenCL has started ---- */

static tern_rc free_body(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  out[0] = tern_matmul(compute(in[0], in[1]), tern_exp(tern_neg(in[1])));
  return TERN_OK;
}

/* 0: equal to the CPU's own; 77: fewer than two platforms. */
static int placed(void) {
  static float right[400 * 400], got[400 * 400];
  find_devices();
  if (devices.n < 2) return 77;
  TERN_SCOPE;
  tern_with_device("cpu");
  tern_tensor *x = tern_mul(tern_arange(0, 160000, 1, TERN_F32), tern_scalar(1e-5));
  tern_tensor *m = tern_reshape(x, TERN_SHAPE(400, 400)), *r = NULL;
  tern_tensor *out[1];
  if (free_body(NULL, (tern_tensor *[]){m, m}, 2, out, 1) || tern_to_host(out[0], right, sizeof right)) return 2;
  tern_function *f = tern_function_new(free_body, NULL, 2, 1, NULL);
  bool same = true;
  for (int run = 0; run < 4; run++) {
    r = tern_call(f, m, m);
    same &= r && !tern_to_host(r, got, sizeof got) && near(got, right, 400 * 400);
  }
  tern_function_release(f);
  if (tern_error_code()) printf("placement: %s\n", tern_error());
  return same && !tern_error_code() ? 0 : 3;
}

static int placed_status;

static void run_placed(void) {
  fflush(NULL);
  const pid_t child = fork();
  if (!child) {
    setenv("TERN_PLACEMENT", "auto", 1);
    setenv("TERN_PLACEMENT_DEVICES", "cpu,opencl:0,opencl:1", 1);
    const int rc = placed();
    fflush(NULL);
    _exit(rc);
  }
  int status = 0;
  placed_status =
      child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -status - 1;
}

static void test_placed(void) { CU_ASSERT_EQUAL(placed_status, 0); }

/* ---- at the same time ---- */

typedef struct long_run {
  const char *device;
  tern_tensor *x;
  double submitted, done; /* s: how long it took to submit; when it was complete */
} long_run;

static tern_tensor *slow(tern_tensor *x, int times) {
  for (int i = 0; i < times; i++) x = tern_tanh(x);
  return x;
}

static void submit(long_run *r, int times) {
  const double start = now();
  tern_with_device(r->device);
  slow(r->x, times);
  r->submitted = now() - start;
}

static void *wait_for(void *context) {
  long_run *r = context;
  tern_sync(r->device);
  r->done = now();
  return NULL;
}

/* Work on b is submitted and complete while a is still busy. Others may use the processors: the best of some tries. */
static bool overlaps(const char *a, const char *b) {
  TERN_SCOPE;
  tern_tensor *small = tern_to(tern_ones(TERN_SHAPE(1000), TERN_F32), b);
  long_run first = {.device = a, .x = tern_to(tern_ones(TERN_SHAPE(1000000), TERN_F32), a)};
  submit(&first, 2); /* compiles */
  slow(small, 1);
  if (tern_sync(NULL)) return false;
  int times = 20;
  bool good = false;
  for (int i = 0; i < 8 && !good; i++) {
    pthread_t thread;
    const double start = now();
    submit(&first, times);
    const bool waits = !pthread_create(&thread, NULL, wait_for, &first);
    {
      tern_with_device(b);
      for (int k = 0; k < 3; k++) {
        slow(small, 1);
        tern_sync(b);
      }
    }
    const double small_done = now();
    if (!waits) return false;
    pthread_join(thread, NULL);
    const double whole = first.done - start;
    good = first.submitted < whole / 2 && small_done < first.done;
    if (good)
      printf("\n    %s busy %.0f ms, submitted in %.2f ms; %s done after %.1f ms", a, 1e3 * whole,
             1e3 * first.submitted, b, 1e3 * (small_done - start));
    else if (whole < 0.5)
      times *= 2;
  }
  return good;
}

static void test_overlap(void) {
  for (int a = 0; a < devices.n; a++) {
    tern_device_desc d = {0};
    for (int i = 0; !tern_device_at(i, &d) && strcmp(d.name, devices.name[a]);) i++;
    if (d.alias && strstr(d.alias, "rusticl")) { /* its launches wait: see ocl_run */
      printf("\n    %s is rusticl, where a launch waits for its end: not tried as the busy one", devices.name[a]);
      continue;
    }
    CU_ASSERT_TRUE(overlaps(devices.name[a], devices.name[(a + 1) % devices.n]));
  }
  if (tern_error_code()) printf(" (%s) ", tern_error());
  CU_ASSERT_EQUAL(tern_error_code(), TERN_OK);
}

int main(void) {
  setenv("TERN_OPENCL_EMULATORS", "1", 0);
  run_placed();
  find_devices();
  if (devices.n < 2) {
    printf("skipped: %d OpenCL platforms with a device are here, two are needed (tools/opencl-icds run all)\n",
           devices.n);
    return 77;
  }
  for (int i = 0; i < devices.n; i++) printf("%s (%s)\n", devices.name[i], devices.alias[i]);
  CU_initialize_registry();
  CU_pSuite s = CU_add_suite("opencl platforms", NULL, NULL);
  CU_add_test(s, "copies", test_copies);
  CU_add_test(s, "threads", test_threads);
  CU_add_test(s, "a graph on two devices", test_split);
  CU_add_test(s, "placement", test_placed);
  CU_add_test(s, "at the same time", test_overlap);
  CU_basic_set_mode(CU_BRM_VERBOSE);
  CU_basic_run_tests();
  const bool failed = CU_get_number_of_failures() != 0;
  CU_cleanup_registry();
  return failed;
}
