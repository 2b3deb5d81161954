/* Errors: the first is kept, reading and clearing, NULL and TERN_NONE and dead handles as arguments, and what
   tern_finish says and returns, in children of this program. */
#include "support/values.h"
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* Something that fails, naming the size. */
static void fail_with(int64_t size) {
  CHECK(tern_zeros(TERN_SHAPE(size), TERN_F32) == NULL, "a size of %lld", (long long)size);
}

static void test_first(void) {
  TERN_SCOPE;
  CHECK(tern_error_code() == TERN_OK && !strcmp(tern_error(), ""), "no error at the start");
  fail_with(-11);
  fail_with(-22);
  CHECK(strstr(tern_error(), "-11") != NULL, "the first error is kept: %s", tern_error());
  CHECK(tern_error_code() == TERN_E_ARG && strstr(tern_error(), "-11"), "reading does not forget: %s", tern_error());
  fail_with(-33); /* the old one was read: a new one takes its place */
  CHECK(strstr(tern_error(), "-33") != NULL, "the next error after a read one: %s", tern_error());
  tern_error_clear();
  CHECK(tern_error_code() == TERN_OK && !*tern_error(), "cleared");
  tern_error_clear();
  /* a success leaves an error alone */
  fail_with(-44);
  CHECK(tern_ones(TERN_SHAPE(2), TERN_F32) != NULL, "ops work beside an error");
  CHECK_ERROR(TERN_E_ARG, "-44");
}

static void test_codes(void) {
  static const char *const names[] = {"TERN_OK",        "TERN_E_UNSUPPORTED", "TERN_E_OOM", "TERN_E_ARG", "TERN_E_LOST",
                                      "TERN_E_TIMEOUT", "TERN_E_INTERNAL",    "TERN_E_END", "TERN_E_IO"};
  for (int i = 0; i < 9; i++) CHECK(!strcmp(tern_rc_name(-i), names[i]), "%d is %s", -i, tern_rc_name(-i));
  CHECK(!strcmp(tern_rc_name(-100), "TERN_E_INTERNAL") && !strcmp(tern_rc_name(5), "TERN_E_INTERNAL"),
        "unknown codes count as INTERNAL");
  CHECK(!strcmp(tern_version(), "0.1.0"), "version %s", tern_version());
}

static void test_null(void) {
  TERN_SCOPE;
  tern_tensor *t = tern_ones(TERN_SHAPE(2), TERN_F32);
  fail_with(-5);
  /* NULL in, NULL out: the first failure stays the error */
  tern_tensor *bad = tern_matmul(tern_add(t, NULL), tern_neg(NULL));
  CHECK(bad == NULL && tern_sum(bad, NULL) == NULL && tern_reshape(bad, TERN_SHAPE(2)) == NULL &&
            tern_escape(bad) == NULL && tern_keep(bad) == NULL,
        "NULL in, NULL out");
  CHECK(tern_concat((tern_tensor *[]){t, bad}, 2, 0) == NULL && tern_where(bad, t, t) == NULL &&
            tern_to(bad, "cpu") == NULL,
        "NULL in, NULL out");
  tern_release(NULL);
  CHECK_ERROR(TERN_E_ARG, "-5");
  /* with nothing pending, NULL itself is the mistake, named by argument */
  CHECK(tern_add(t, NULL) == NULL, "add of NULL");
  CHECK_ERROR(TERN_E_ARG, "add: argument 2 is NULL");
  CHECK(tern_add(NULL, t) == NULL, "add of NULL");
  CHECK_ERROR(TERN_E_ARG, "add: argument 1 is NULL");
  CHECK(tern_exp(NULL) == NULL, "exp of NULL");
  CHECK_ERROR(TERN_E_ARG, "exp: argument 1 is NULL");
  CHECK(tern_clip(t, NULL, TERN_NONE) == NULL, "clip by NULL");
  CHECK_ERROR(TERN_E_ARG, "clip: argument 2 is NULL");
  CHECK(tern_layer_norm(t, TERN_NONE, NULL, NULL) == NULL, "layer_norm by NULL");
  CHECK_ERROR(TERN_E_ARG, "layer_norm: argument 3 is NULL");
}

static void test_none(void) {
  TERN_SCOPE;
  tern_tensor *t = tern_ones(TERN_SHAPE(2), TERN_F32);
  CHECK(tern_add(t, TERN_NONE) == NULL, "add of TERN_NONE");
  CHECK_ERROR(TERN_E_ARG, "add: argument 2 is TERN_NONE, but it is not optional");
  CHECK(tern_neg(TERN_NONE) == NULL, "neg of TERN_NONE");
  CHECK_ERROR(TERN_E_ARG, "neg: argument 1 is TERN_NONE");
  CHECK(tern_matmul(TERN_NONE, t) == NULL, "matmul of TERN_NONE");
  CHECK_ERROR(TERN_E_ARG, "matmul: argument 1 is TERN_NONE");
  CHECK(tern_clip(TERN_NONE, t, t) == NULL, "clip of TERN_NONE");
  CHECK_ERROR(TERN_E_ARG, "clip: argument 1 is TERN_NONE");
  CHECK(tern_where(TERN_NONE, t, t) == NULL, "where of TERN_NONE");
  CHECK_ERROR(TERN_E_ARG, "where: argument 1 is TERN_NONE");
  CHECK(tern_where(tern_bool(TERN_SHAPE(2), 1, 0), t, TERN_NONE) == NULL, "where of TERN_NONE");
  CHECK_ERROR(TERN_E_ARG, "where: argument 3 is TERN_NONE");
  CHECK(tern_reshape(TERN_NONE, TERN_SHAPE(1)) == NULL, "reshape of TERN_NONE");
  CHECK_ERROR(TERN_E_ARG, "reshape: argument 1 is TERN_NONE");
  CHECK(tern_concat((tern_tensor *[]){t, TERN_NONE}, 2, 0) == NULL, "concat of TERN_NONE");
  CHECK_ERROR(TERN_E_ARG, "concat: argument 2 is TERN_NONE");
  CHECK(tern_rank(TERN_NONE) == -1, "rank of TERN_NONE");
  CHECK_ERROR(TERN_E_ARG, "TERN_NONE");
  CHECK(tern_keep(TERN_NONE) == NULL && tern_escape(TERN_NONE) == NULL, "TERN_NONE cannot be kept");
  tern_release(TERN_NONE);
  tern_error_clear();
}

static tern_tensor *forgets(void) {
  TERN_SCOPE;
  return tern_ones(TERN_SHAPE(2), TERN_F32); /* ends with the scope */
}

static void test_dead(void) {
  TERN_SCOPE;
  tern_tensor *dead = forgets();
  CHECK(tern_neg(dead) == NULL, "op on a dead handle");
  CHECK_ERROR(TERN_E_ARG, "argument 1 was freed when its scope ended; tern_escape it");
  dead = forgets();
  CHECK(tern_keep(dead) == NULL, "keep of a dead handle");
  CHECK_ERROR(TERN_E_ARG, "tern_keep");
  dead = forgets();
  CHECK(tern_rank(dead) == -1, "rank of a dead handle");
  CHECK_ERROR(TERN_E_ARG, "rank: argument 1 was freed");
  dead = forgets();
  CHECK(tern_to_string(dead) == NULL, "text of a dead handle");
  CHECK_ERROR(TERN_E_ARG, "freed");
  dead = forgets();
  tern_release(dead);
  CHECK_ERROR(TERN_E_ARG, "tern_release");
}

static void *thread_errors(void *unused) {
  (void)unused;
  const bool clean = tern_error_code() == TERN_OK; /* the other thread's error is not ours */
  const bool failed = tern_zeros(TERN_SHAPE(-77), TERN_F32) == NULL && strstr(tern_error(), "-77");
  tern_error_clear();
  return (void *)(intptr_t)(clean && failed);
}

static void test_threads(void) {
  TERN_SCOPE;
  fail_with(-66);
  pthread_t thread;
  void *fine = NULL;
  CHECK(!pthread_create(&thread, NULL, thread_errors, NULL) && !pthread_join(thread, &fine) && fine,
        "a thread has its own error");
  CHECK_ERROR(TERN_E_ARG, "-66");
}

/* ---- children ---- */

static void *leave_error(void *unused) {
  (void)unused;
  tern_zeros(TERN_SHAPE(-9), TERN_F32);
  return NULL;
}

static int child(const char *name) {
  if (!strcmp(name, "fine")) {
    tern_print(tern_add(tern_ones(TERN_SHAPE(2), TERN_F32), tern_scalar(1)));
    return tern_finish();
  }
  if (!strcmp(name, "unread")) {
    tern_zeros(TERN_SHAPE(-8), TERN_F32);
    return tern_finish();
  }
  if (!strcmp(name, "scope")) { /* an unread error at the end of the outermost scope is logged there */
    {
      TERN_SCOPE;
      tern_zeros(TERN_SHAPE(-8), TERN_F32);
    }
    if (tern_error_code()) return 50;
    fprintf(stderr, "between\n");
    return tern_finish();
  }
  if (!strcmp(name, "read")) {
    TERN_SCOPE;
    tern_zeros(TERN_SHAPE(-8), TERN_F32);
    return tern_error_code() == TERN_E_ARG ? tern_finish() : 50;
  }
  if (!strcmp(name, "printed")) { /* tern_print of NULL shows the error, which counts as reading it */
    tern_print(tern_zeros(TERN_SHAPE(-8), TERN_F32));
    return tern_finish();
  }
  if (!strcmp(name, "thread")) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, leave_error, NULL) || pthread_join(thread, NULL)) return 51;
    return tern_finish();
  }
  if (!strcmp(name, "again")) {
    TERN_SCOPE;
    tern_zeros(TERN_SHAPE(-8), TERN_F32);
    if (tern_finish() != 1) return 52;
    if (tern_finish() != 0) return 53; /* reported once */
    tern_tensor *t = tern_ones(TERN_SHAPE(3), TERN_F32);
    if (tern_item(tern_sum(t, NULL)) != 3) return 54;
    return tern_finish();
  }
  return 99;
}

static char text[16384];

static void test_finish(void) {
  CHECK(test_child("fine", NULL, text, sizeof text) == 0 &&
            strstr(text, "tern.Tensor([2. 2.], shape=(2,), dtype=float32)"),
        "fine: %s", text);
  CHECK(!strstr(text, "error"), "a clean end says nothing: %s", text);
  CHECK(test_child("unread", NULL, text, sizeof text) == 1 && strstr(text, "an error that nobody read") &&
            strstr(text, "-8"),
        "unread: %s", text);
  CHECK(test_child("scope", NULL, text, sizeof text) == 1, "an error in a scope that ended: %s", text);
  char *between = strstr(text, "between"), *logged = strstr(text, "-8");
  CHECK(between && logged && logged < between && strstr(between, "-8"),
        "logged at the scope's end, then again by tern_finish: %s", text);
  CHECK(test_child("read", NULL, text, sizeof text) == 0 && !strstr(text, "-8"), "read: %s", text);
  CHECK(test_child("printed", NULL, text, sizeof text) == 0 && strstr(text, "tern.Tensor(error:") && strstr(text, "-8"),
        "printed: %s", text);
  CHECK(test_child("thread", NULL, text, sizeof text) == 1 && strstr(text, "-9"), "an error of a thread that ended: %s",
        text);
  CHECK(test_child("again", NULL, text, sizeof text) == 0, "after tern_finish: %s", text);
  CHECK(test_child("unread", (const char *const[]){"TERN_ON_ERROR=abort", NULL}, text, sizeof text) == -SIGABRT &&
            strstr(text, "-8"),
        "TERN_ON_ERROR=abort: %s", text);
}

static const test_case cases[] = {
    {"the first error", test_first}, {"codes", test_codes},     {"NULL", test_null},         {"TERN_NONE", test_none},
    {"dead handles", test_dead},     {"threads", test_threads}, {"tern_finish", test_finish}};
TEST_MAIN_CHILD("errors", cases, child)
