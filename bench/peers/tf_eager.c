/* The peer of dispatch.c's add: AddV2 of two float[3] through TensorFlow's eager C API. It answers names on stdin with
   seconds an operation (bench/run alternates the two); "version" with its version. Without --serve it measures once.
   */
#include <tensorflow/c/c_api.h>
#include <tensorflow/c/eager/c_api.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SAMPLES = 5 /* as BENCH_SERVED of bench.h */ };
static const double SECONDS = 0.03; /* as BENCH_SECONDS */

typedef struct session {
  TF_Status *status;
  TFE_Context *context;
  TFE_TensorHandle *a, *b;
} session;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static TFE_TensorHandle *three_floats(session *s, const float *value) {
  const int64_t dim = 3;
  TF_Tensor *t = TF_AllocateTensor(TF_FLOAT, &dim, 1, 12);
  if (!t) return NULL;
  memcpy(TF_TensorData(t), value, 12);
  TFE_TensorHandle *handle = TFE_NewTensorHandle(t, s->status);
  TF_DeleteTensor(t);
  return handle;
}

/* 0 after an error, which s->status holds. */
static int start(session *s) {
  s->status = TF_NewStatus();
  TFE_ContextOptions *options = TFE_NewContextOptions();
  s->context = TFE_NewContext(options, s->status);
  TFE_DeleteContextOptions(options);
  if (TF_GetCode(s->status)) return 0;
  s->a = three_floats(s, (const float[]){1, 2, 3});
  if (!TF_GetCode(s->status)) s->b = three_floats(s, (const float[]){4, 5, 6});
  return s->a && s->b;
}

static void finish(session *s) {
  if (s->a) TFE_DeleteTensorHandle(s->a);
  if (s->b) TFE_DeleteTensorHandle(s->b);
  if (s->context) TFE_DeleteContext(s->context);
  TF_DeleteStatus(s->status);
}

/* As a C program uses it: an op object made, run and deleted for every add. */
static double adds(session *s, long reps) {
  const double begin = now();
  for (long i = 0; i < reps && !TF_GetCode(s->status); i++) {
    TFE_TensorHandle *result = NULL;
    int n = 1;
    TFE_Op *op = TFE_NewOp(s->context, "AddV2", s->status);
    TFE_OpAddInput(op, s->a, s->status);
    TFE_OpAddInput(op, s->b, s->status);
    TFE_OpSetAttrType(op, "T", TF_FLOAT);
    TFE_Execute(op, &result, &n, s->status);
    if (result) TFE_DeleteTensorHandle(result);
    TFE_DeleteOp(op);
  }
  return (now() - begin) / (double)reps;
}

static int compare(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double measure(session *s, long *reps) {
  double sample[SAMPLES];
  if (!*reps) { /* as bench_reps of bench.h: warm up, then the first count that is long enough three times in a row */
    adds(s, 1);
    *reps = 1;
    for (int enough = 0; enough < 3 && !TF_GetCode(s->status);) {
      const int is_long = adds(s, *reps) * (double)*reps >= SECONDS / SAMPLES / 2;
      enough = is_long ? enough + 1 : 0;
      if (!is_long) *reps *= 2;
    }
  }
  for (int i = 0; i < SAMPLES; i++) sample[i] = adds(s, *reps);
  qsort(sample, SAMPLES, sizeof *sample, compare);
  return sample[SAMPLES / 2];
}

static void answer(session *s, const char *name, long *reps) {
  const int ours = !strcmp(name, "dispatch/add3");
  const double seconds = ours ? measure(s, reps) : 0;
  if (!strcmp(name, "version"))
    printf("%s\n", TF_Version());
  else if (!ours)
    printf("error no such case\n");
  else if (TF_GetCode(s->status))
    printf("error %s\n", TF_Message(s->status));
  else
    printf("%.9g\n", seconds);
  fflush(stdout);
}

int main(int argc, char **argv) {
  const int serve = argc == 2 && !strcmp(argv[1], "--serve");
  if (argc > 1 && !serve) {
    printf("usage: %s [--serve]   TFE_Execute of AddV2, seconds an operation\n", argv[0]);
    return strcmp(argv[1], "--help") ? 2 : 0;
  }
  session s = {0};
  long reps = 0;
  char line[128];
  if (!start(&s)) {
    fprintf(stderr, "tf_eager: %s\n", TF_Message(s.status));
    return 1;
  }
  if (!serve) answer(&s, "dispatch/add3", &reps);
  while (serve && fgets(line, sizeof line, stdin)) {
    line[strcspn(line, "\r\n")] = 0;
    answer(&s, line, &reps);
  }
  finish(&s);
  return 0;
}
