/* TERN_SHADOW, TERN_TRACE and TERN_SYNC, each seen from outside in a child of this program. */
#include "support/values.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A bit of everything; its values go to stdout. */
static int work(void) {
  {
    TERN_SCOPE;
    tern_set_seed(3);
    tern_tensor *x = tern_random_normal(TERN_SHAPE(4, 6), NULL), *w = tern_random_uniform(TERN_SHAPE(6, 3), NULL);
    tern_tensor *y = tern_softmax(tern_add(tern_matmul(x, w), tern_ones(TERN_SHAPE(3), TERN_F32)), 1);
    tern_print(tern_sum(y, NULL));
    tern_print(tern_argmax(tern_i32(TERN_SHAPE(4), 3, 9, 1, 9), NULL));
    tern_print(tern_sort(tern_i64(TERN_SHAPE(3), 3, 1, 2), 0, NULL));
    tern_print(tern_concat((tern_tensor *[]){tern_u8(TERN_SHAPE(1), 1), tern_u8(TERN_SHAPE(2), 2, 3)}, 2, 0));
    tern_print(tern_cast(
        tern_layer_norm(tern_reshape(tern_arange(0, 6, 1, TERN_F32), TERN_SHAPE(2, 3)), TERN_NONE, TERN_NONE, NULL),
        TERN_I32));
    tern_print(tern_clip(tern_std(x, TERN_AXES(0)), tern_scalar(0), tern_scalar(0)));
    tern_print(tern_take(tern_f32(TERN_SHAPE(3), 1, 2, 3), tern_i64(TERN_SHAPE(2), 2, -3), 0));
    tern_print(tern_gelu(tern_f64(TERN_SHAPE(1), 0), NULL));
  }
  return tern_finish();
}

static int child(const char *name) {
  if (!strcmp(name, "work")) return work();
  if (!strcmp(name, "fails")) { /* an error of an op is the same with hooks on */
    TERN_SCOPE;
    tern_add(tern_ones(TERN_SHAPE(2), TERN_F32), tern_ones(TERN_SHAPE(3), TERN_F32));
    printf("%s\n", tern_error());
    return tern_finish();
  }
  return 99;
}

static char text[65536], plain[65536];

/* What stdout must be, from a plain run; lines of stderr that drivers write are left out. */
static const char *results(char *from) {
  char *start = strstr(from, "tern.Tensor(");
  return start ? start : from;
}

static void test_plain(void) {
  CHECK(test_child("work", NULL, plain, sizeof plain) == 0, "plain: %s", plain);
  CHECK(strstr(plain, "tern.Tensor(1, shape=(), dtype=int64)") &&
            strstr(plain, "tern.Tensor([1 2 3], shape=(3,), dtype=int64)"),
        "plain: %s", plain);
}

/* A device whose results are wrong (plugins/faulty) beside one whose are right: the first op that differs is named. */
static void test_shadow_catches(void) {
  const char *const wrong[] = {"TERN_PLUGIN_PATH=" TERN_TEST_PLUGINS ":" TERN_PLUGINS, "TERN_DEVICE=faulty",
                               "TERN_FAULTY_FAIL=wrong", "TERN_SHADOW=cpu", NULL};
  test_child("work", wrong, text, sizeof text);
  CHECK(strstr(text, "shadow: ") && strstr(text, " on faulty:0 but ") && strstr(text, " on cpu:0 at element "),
        "a wrong device in shadow of cpu: %s", text);
  const char *const right[] = {wrong[0], wrong[1], "TERN_SHADOW=cpu", NULL};
  test_child("work", right, text, sizeof text);
  CHECK(!strstr(text, "shadow: "), "a right device in shadow of cpu: %s", text);
}

static void test_shadow(void) {
  const int status = test_child("work", (const char *const[]){"TERN_SHADOW=cpu", NULL}, text, sizeof text);
  CHECK(status == 0 && !strcmp(results(text), results(plain)), "TERN_SHADOW=cpu: %d: %s", status, text);
  CHECK(test_child("work", (const char *const[]){"TERN_SHADOW=no-such", NULL}, text, sizeof text) != 99 &&
            strstr(text, "no-such"),
        "a shadow that does not exist: %s", text);
  CHECK(test_child("fails", (const char *const[]){"TERN_SHADOW=cpu", NULL}, text, sizeof text) == 0 &&
            strstr(text, "do not broadcast"),
        "an error: %s", text);
}

static void test_sync(void) {
  const int status = test_child("work", (const char *const[]){"TERN_SYNC=1", NULL}, text, sizeof text);
  CHECK(status == 0 && !strcmp(results(text), results(plain)), "TERN_SYNC=1: %d: %s", status, text);
}

/* ---- JSON (RFC 8259), just enough to say whether a text is it ---- */

static const char *value(const char *c);
static const char *blank(const char *c) {
  while (*c == ' ' || *c == '\n' || *c == '\r' || *c == '\t') c++;
  return c;
}

static const char *string(const char *c) {
  if (*c++ != '"') return NULL;
  for (; *c != '"'; c++) {
    if ((unsigned char)*c < 0x20) return NULL;
    if (*c == '\\' && !*++c) return NULL;
  }
  return c + 1;
}

/* Elements between open and close; objects have names before them. */
static const char *list(const char *c, char end, bool names) {
  c = blank(c + 1);
  if (*c == end) return c + 1;
  for (;;) {
    if (names) {
      c = string(blank(c));
      if (!c || *(c = blank(c)) != ':') return NULL;
      c++;
    }
    c = value(blank(c));
    if (!c) return NULL;
    c = blank(c);
    if (*c == end) return c + 1;
    if (*c++ != ',') return NULL;
  }
}

static const char *value(const char *c) {
  if (*c == '{') return list(c, '}', true);
  if (*c == '[') return list(c, ']', false);
  if (*c == '"') return string(c);
  for (int i = 0; i < 3; i++) {
    static const char *const words[] = {"true", "false", "null"};
    if (!strncmp(c, words[i], strlen(words[i]))) return c + strlen(words[i]);
  }
  if (*c != '-' && !isdigit((unsigned char)*c)) return NULL;
  char *end;
  strtod(c, &end);
  return end > c ? end : NULL;
}

static int count(const char *in, const char *part) {
  int n = 0;
  for (const char *at = in; (at = strstr(at, part)); at += strlen(part)) n++;
  return n;
}

static void test_trace(void) {
  char path[] = "/tmp/tern-trace-XXXXXX", setting[64];
  const int file = mkstemp(path);
  if (!CHECK(file >= 0, "no temporary file")) return;
  close(file);
  snprintf(setting, sizeof setting, "TERN_TRACE=%s", path);
  const int status = test_child("work", (const char *const[]){setting, NULL}, text, sizeof text);
  CHECK(status == 0 && !strcmp(results(text), results(plain)), "TERN_TRACE: %d: %s", status, text);
  FILE *f = fopen(path, "r");
  const size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
  text[n] = 0;
  if (f) fclose(f);
  unlink(path);
  const char *end = value(blank(text));
  CHECK(end && !*blank(end), "the trace is not JSON, from: %.60s", end ? end : text);
  CHECK(strstr(text, "\"traceEvents\""), "no traceEvents");
  static const char *const ops[] = {"random_normal", "matmul", "softmax", "argmax", "sort",
                                    "layer_norm",    "take",   "gelu",    "cast"};
  for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
    char name[60];
    snprintf(name, sizeof name, "\"name\":\"%s\"", ops[i]);
    CHECK(count(text, name) >= 1, "%s is not in the trace", ops[i]);
  }
  CHECK(count(text, "\"ph\":\"X\"") >= 15, "%d events", count(text, "\"ph\":\"X\""));
  CHECK(strstr(text, tern_default_device()) != NULL, "the device has no name");
  CHECK(test_child("work", (const char *const[]){"TERN_TRACE=/no/such/folder/trace", NULL}, text, sizeof text) == 0 &&
            strstr(text, "/no/such/folder/trace"),
        "a trace that cannot be written: %s", text);
}

static const test_case cases[] = {{"plain", test_plain},
                                  {"TERN_SHADOW", test_shadow},
                                  {"shadow of a wrong device", test_shadow_catches},
                                  {"TERN_SYNC", test_sync},
                                  {"TERN_TRACE", test_trace}};
TEST_MAIN_CHILD("hooks", cases, child)
