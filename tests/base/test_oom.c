/* Every allocation of the core made to fail once. A piece of work runs in a fresh child with its n-th allocation
   failing, n = 1, 2, ..., until it completes untouched. Each child must complete or fail with TERN_E_OOM, leave
   nothing alive, and be able to do all the work afterwards. The children are forks: allocations of the very first
   start are tested too. Run under AddressSanitizer this finds leaks on the failing paths. */
#include "base/alloc.h"
#include "support/values.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { COMPLETED = 0, REFUSED = 3, WRONG = 4 };

/* What a step of the work says when it was given NULL: the error must be the one that was provoked. */
static int refused(const char *what) {
  const tern_rc code = tern_error_code();
  if (code == TERN_E_OOM) {
    tern_error_clear();
    return REFUSED;
  }
  fprintf(stderr, "%s failed with %s \"%s\"\n", what, tern_rc_name(code), tern_error());
  tern_error_clear();
  return WRONG;
}

static int differs(const char *what) {
  fprintf(stderr, "%s: wrong values\n", what);
  return WRONG;
}

/* ---- the pieces; each opens its own scope ---- */

static int work_create(void) {
  TERN_SCOPE;
  tern_tensor *t[] = {tern_f32(TERN_SHAPE(2, 2), 1, 2, 3, 4),
                      tern_zeros(TERN_SHAPE(3), TERN_I32),
                      tern_arange(0, 5, 1, TERN_F64),
                      tern_eye(2, 2, 0, TERN_F32),
                      tern_scalar(2),
                      tern_linspace(0, 1, 3, TERN_F32),
                      tern_empty(TERN_SHAPE(100000), TERN_F32),
                      tern_i32(TERN_SHAPE(4), 9)};
  for (size_t i = 0; i < sizeof t / sizeof *t; i++)
    if (!t[i]) return refused("create");
  float data[4];
  if (tern_to_host(t[0], data, sizeof data)) return refused("to_host");
  return data[3] == 4 ? COMPLETED : differs("create");
}

static int released;
static void release(void *data, void *context) { (void)data, (void)context, released++; }

static int work_borrow(void) {
  static float data[16] = {1, 2, 3};
  released = 0;
  int how = COMPLETED;
  bool made;
  {
    TERN_SCOPE;
    tern_tensor *t = tern_from_host(TERN_SHAPE(16), TERN_F32, data, release, NULL);
    made = t != NULL;
    tern_tensor *sum = tern_sum(t, NULL);
    if (!sum)
      how = refused("from_host");
    else if (tern_item(sum) != 6)
      how = differs("from_host");
  }
  if (released != made) return differs("release called");
  return how;
}

static int work_ops(void) {
  TERN_SCOPE;
  tern_tensor *a = tern_f32(TERN_SHAPE(2, 2), 1, 2, 3, 4), *b = tern_f32(TERN_SHAPE(2), 10, 20);
  tern_tensor *c = tern_add(tern_mul(a, b), tern_scalar(1)), *d = tern_matmul(a, tern_transpose(c)),
              *e = tern_where(tern_less(a, b), a, c);
  tern_tensor *f = tern_cast(tern_div(tern_arange(1, 4, 1, TERN_I32), tern_scalar_int(2)), TERN_F32);
  tern_tensor *sum =
      tern_sum(tern_concat((tern_tensor *[]){tern_flatten(c), tern_flatten(d), tern_flatten(e), f}, 4, 0), NULL);
  if (!sum) return refused("ops");
  return tern_item(sum) == 164 + 900 + 10 + 3 ? COMPLETED : differs("ops");
}

static int work_views(void) {
  TERN_SCOPE;
  tern_tensor *t = tern_reshape(tern_arange(0, 24, 1, TERN_F32), TERN_SHAPE(2, 3, 4));
  tern_tensor *v = tern_index(
      tern_slice(tern_permute(t, (int[]){2, 0, 1}, 3), (tern_range[]){TERN_RANGE(TERN_OPEN, TERN_OPEN, -2)}, 1), 1, 1);
  tern_tensor *w = tern_reshape(tern_transpose(tern_expand(tern_expand_dims(v, 0), TERN_SHAPE(2, 2, 3))),
                                TERN_SHAPE(-1)); /* has to copy */
  if (!w) return refused("views");
  float data[12];
  if (tern_to_host(w, data, sizeof data)) return refused("to_host of a view");
  return data[0] == 15 && data[1] == 13 ? COMPLETED : differs("views");
}

static int work_composites(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_f32(TERN_SHAPE(2, 3), 1, 2, 3, 4, 5, 6), *y = tern_softmax(x, 1),
              *z = tern_layer_norm(x, TERN_NONE, TERN_NONE, NULL);
  tern_tensor *g = tern_gelu(x, NULL), *m = tern_std(x, TERN_AXES(0)),
              *s = tern_sort(tern_random_normal(TERN_SHAPE(7), NULL), 0, NULL);
  tern_tensor *p = tern_random_permutation(5, NULL),
              *h = tern_one_hot(tern_take(p, tern_argmax(x, TERN_AXES(0)), 0), 5, TERN_F32),
              *cs = tern_cumsum(x, 1, NULL);
  if (!y || !z || !g || !m || !s || !h || !cs) return refused("composites");
  const int close = tern_allclose(tern_sum(y, TERN_AXES(1)), tern_f32(TERN_SHAPE(2), 1), 1e-5, 1e-5);
  if (close < 0) return refused("allclose");
  return close ? COMPLETED : differs("softmax");
}

static int work_print(void) {
  TERN_SCOPE;
  char *text = tern_to_string(tern_f32(TERN_SHAPE(2, 2), 1, 2, 3, 4));
  if (!text) return refused("to_string");
  const bool fine = !strcmp(text, "tern.Tensor(\n[[1. 2.]\n [3. 4.]], shape=(2, 2), dtype=float32)");
  free(text);
  return fine ? COMPLETED : differs("to_string");
}

static int work_variables(void) {
  TERN_SCOPE;
  tern_tensor *v = tern_variable(tern_f32(TERN_SHAPE(2), 1, 2), &(tern_variable_opts){.name = "weights"});
  if (!v) return refused("variable");
  int how = COMPLETED;
  tern_tensor *before = tern_neg(v);
  if (!before || tern_assign(v, tern_f32(TERN_SHAPE(2), 5, 6))) how = refused("assign");
  double *values = test_values(v);
  if (!values)
    how = refused("values of a variable");
  else if (values[0] != (how == COMPLETED ? 5 : 1) && values[0] != 5)
    how = differs("a failed assign left something else");
  free(values);
  tern_release(v);
  return how;
}

static int work_scopes(void) { /* the handle stack grows beyond its first size, several times */
  TERN_SCOPE;
  tern_tensor *t = tern_ones(TERN_SHAPE(1), TERN_F32);
  if (!t) return refused("ones");
  for (int i = 0; i < 5000; i++)
    if (!tern_reshape(t, TERN_SHAPE())) return refused("a scope of many handles");
  return COMPLETED;
}

static void *thread_work(void *unused) {
  (void)unused;
  TERN_SCOPE;
  tern_tensor *t = tern_add(tern_ones(TERN_SHAPE(3), TERN_F32), tern_ones(TERN_SHAPE(3), TERN_F32));
  tern_tensor *sum = t ? tern_sum(t, NULL) : NULL;
  if (sum) return (void *)(intptr_t)(tern_item(sum) == 6 ? COMPLETED : differs("a new thread"));
  /* a thread that could not even have its block has nowhere to keep the error; the next call must find a way */
  if (tern_error_code() == TERN_E_OOM)
    tern_error_clear();
  else if (tern_error_code() != TERN_OK)
    return (void *)(intptr_t)refused("an op in a new thread");
  t = tern_ones(TERN_SHAPE(3), TERN_F32);
  return (void *)(intptr_t)(t ? REFUSED : refused("an op in a new thread, again"));
}

static int work_thread(void) {
  pthread_t thread;
  void *how = NULL;
  if (pthread_create(&thread, NULL, thread_work, NULL) || pthread_join(thread, &how)) return WRONG;
  return (int)(intptr_t)how;
}

static int work_devices(void) {
  TERN_SCOPE;
  tern_plugin_info p;
  if (tern_plugin_at(0, &p)) return refused("plugins");
  tern_with_device("cpu");
  if (tern_error_code()) return refused("tern_with_device");
  if (tern_set_device("cpu") || !tern_default_device()) return refused("set_device");
  tern_tensor *t = tern_ones(TERN_SHAPE(2), TERN_F32);
  if (!t) return refused("ones");
  return !strcmp(tern_device_get(t), "cpu:0") ? COMPLETED : differs("devices");
}

typedef struct piece {
  const char *name;
  int (*run)(void);
  bool warm;
} piece;
static const piece pieces[] = {{"the very first start", work_create, false},
                               {"first devices", work_devices, false},
                               {"first thread", work_thread, false},
                               {"create", work_create, true},
                               {"borrow", work_borrow, true},
                               {"ops", work_ops, true},
                               {"views", work_views, true},
                               {"composites", work_composites, true},
                               {"print", work_print, true},
                               {"variables", work_variables, true},
                               {"scopes", work_scopes, true},
                               {"thread", work_thread, true}};
enum { N_PIECES = sizeof pieces / sizeof *pieces };

/* In the child. COMPLETED: the allocation did not come; REFUSED: it did, and all is well; WRONG otherwise. */
static int attempt(const piece *p, long n) {
  tern_memory before = {0}, after = {0};
  if (p->warm) { /* the device is there, the kernels are not */
    TERN_SCOPE;
    if (!tern_empty(TERN_SHAPE(1), TERN_F32) || tern_memory_info(NULL, &before)) return WRONG;
  }
  if (p->warm) tern_memory_info(NULL, &before);
  tern__alloc_fail_at(n);
  const int how = p->run();
  const long count = tern__alloc_count();
  tern__alloc_fail_at(0);
  if (how == WRONG) return WRONG;
  const bool blown = count >= n;
  if (p->warm && (tern_memory_info(NULL, &after) || after.live != before.live)) {
    fprintf(stderr, "%lld bytes are still alive\n", (long long)(after.live - before.live));
    return WRONG;
  }
  for (int i = 0; i < N_PIECES; i++) /* everything works now */
    if (pieces[i].run() != COMPLETED) {
      fprintf(stderr, "%s does not work afterwards: %s\n", pieces[i].name, tern_error());
      return WRONG;
    }
  if (tern_finish()) return WRONG;
  return blown ? REFUSED : COMPLETED; /* a failed cache or log line may well be survived */
}

static int status_of(const piece *p, long n) {
  fflush(NULL);
  const pid_t child = fork();
  if (child == 0) exit(attempt(p, n));
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void fail_each(const piece *p) {
  long n = 1;
  int bad = 0;
  for (int status = REFUSED; n < 2000 && bad < 5; n++) {
    status = status_of(p, n);
    if (status == COMPLETED) break;
    bad += status != REFUSED;
    CHECK(status == REFUSED, "%s, allocation %ld failing: %s %d", p->name, n, status < 0 ? "ended by signal" : "status",
          abs(status));
  }
  CHECK(n > 1 || p->warm, "%s: no allocation was seen", p->name);
  CHECK(n < 2000, "%s does not complete", p->name);
  printf("%s: %ld ", p->name, n - 1);
}

static void test_start(void) {
  for (int i = 0; i < N_PIECES; i++)
    if (!pieces[i].warm) fail_each(&pieces[i]);
}

static void test_warm(void) {
  { /* the children inherit an open device; no op has run, so that no pool of threads was started */
    TERN_SCOPE;
    if (!CHECK(tern_empty(TERN_SHAPE(1), TERN_F32) != NULL, "%s", tern_error())) return;
  }
  for (int i = 0; i < N_PIECES; i++)
    if (pieces[i].warm) fail_each(&pieces[i]);
}

static const test_case cases[] = {{"a new process", test_start}, {"an open device", test_warm}};
TEST_MAIN("every allocation failing once", cases)
