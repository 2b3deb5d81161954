/* The peer of the replay cases: a graph of dependent adds of 4 floats, planned once and computed again and again by
   ggml on the CPU. It answers names on stdin with seconds a node, "check CASE" with its check (README.md), "version"
   with its version; --threads N says how many compute a graph. Without --serve it measures every case once. */
#include <ggml-cpu.h>
#include <ggml.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SAMPLES = 5 /* as BENCH_SERVED of bench.h */, FLOATS = 4, CASES = 2 };
static const double SECONDS = 0.03; /* as BENCH_SECONDS */

typedef struct replay {
  const char *name;
  int nodes;
  struct ggml_cgraph *graph;
  struct ggml_tensor *result;
  struct ggml_cplan plan;
  long reps;
} replay;

/* The values of README.md with that seed and scale 1. */
static void fill(float *out, uint32_t seed) {
  for (uint32_t i = 0; i < FLOATS; i++) {
    uint32_t h = i * 0x9E3779B1u + seed * 0x85EBCA77u;
    h = (h ^ h >> 16) * 0x7FEB352Du;
    h = (h ^ h >> 15) * 0x846CA68Bu;
    h ^= h >> 16;
    out[i] = (float)(h >> 8) * 0x1p-23f - 1;
  }
}

/* 0 when memory ran out. The tensors live in the context. */
static int prepare(replay *r, struct ggml_context *context, int threads) {
  struct ggml_tensor *a = ggml_new_tensor_1d(context, GGML_TYPE_F32, FLOATS);
  struct ggml_tensor *b = ggml_new_tensor_1d(context, GGML_TYPE_F32, FLOATS);
  fill(ggml_get_data_f32(a), 6);
  fill(ggml_get_data_f32(b), 7);
  r->result = a;
  for (int i = 0; i < r->nodes; i++) r->result = ggml_add(context, r->result, b);
  r->graph = ggml_new_graph_custom(context, (size_t)r->nodes + 8, false);
  ggml_build_forward_expand(r->graph, r->result);
  r->plan = ggml_graph_plan(r->graph, threads, NULL);
  if (r->plan.work_size) r->plan.work_data = malloc(r->plan.work_size);
  return !r->plan.work_size || r->plan.work_data;
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Seconds a replay; negative after an error. */
static double run(replay *r, long reps) {
  const double begin = now();
  for (long i = 0; i < reps; i++)
    if (ggml_graph_compute(r->graph, &r->plan) != GGML_STATUS_SUCCESS) return -1;
  return (now() - begin) / (double)reps;
}

static int compare(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Seconds a node; negative after an error. */
static double measure(replay *r) {
  double sample[SAMPLES];
  if (run(r, 1) < 0) return -1;
  if (!r->reps) { /* as bench_reps of bench.h: the first count that is long enough three times in a row */
    r->reps = 1;
    for (int enough = 0; enough < 3;) {
      const int is_long = run(r, r->reps) * (double)r->reps >= SECONDS / SAMPLES / 2;
      enough = is_long ? enough + 1 : 0;
      if (!is_long) r->reps *= 2;
    }
  }
  for (int i = 0; i < SAMPLES; i++) sample[i] = run(r, r->reps);
  qsort(sample, SAMPLES, sizeof *sample, compare);
  return sample[SAMPLES / 2] / r->nodes;
}

/* The check of README.md; negative after an error, as no check of these cases is. */
static double check(replay *r) {
  if (run(r, 1) < 0) return -1;
  const float *y = ggml_get_data_f32(r->result);
  double sum = 0;
  for (int i = 0; i < FLOATS; i++) sum += (1 + i % 7) * ((double)y[i] + (double)y[i] * (double)y[i]);
  return sum / FLOATS;
}

static void answer(replay *cases, const char *line) {
  const int checks = !strncmp(line, "check ", 6);
  const char *name = checks ? line + 6 : line;
  int i = 0;
  while (i < CASES && strcmp(cases[i].name, name)) i++;
  const double value = i == CASES ? 0 : checks ? check(&cases[i]) : measure(&cases[i]);
  if (!strcmp(line, "version"))
    printf("%s\n", ggml_version());
  else if (i == CASES)
    printf("error no such case\n");
  else if (value < 0)
    printf("error ggml_graph_compute failed\n");
  else
    printf("%.9g\n", value);
  fflush(stdout);
}

static void serve(replay *cases) {
  char line[128];
  while (fgets(line, sizeof line, stdin)) {
    line[strcspn(line, "\r\n")] = 0;
    answer(cases, line);
  }
}

int main(int argc, char **argv) {
  int serves = 0, threads = 1, wrong = 0;
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--serve"))
      serves = 1;
    else if (!strcmp(argv[i], "--threads") && i + 1 < argc)
      threads = atoi(argv[++i]);
    else
      wrong = 1;
  }
  if (wrong || threads < 1) {
    printf("usage: %s [--threads N] [--serve]   replays of ggml graphs, seconds a node\n", argv[0]);
    return argc == 2 && !strcmp(argv[1], "--help") ? 0 : 2;
  }
  replay cases[CASES] = {{.name = "replay/adds1000", .nodes = 1000}, {.name = "replay/add1", .nodes = 1}};
  struct ggml_context *context = ggml_init((struct ggml_init_params){.mem_size = 16 << 20});
  int ready = context != NULL;
  for (int i = 0; i < CASES && ready; i++) ready = prepare(&cases[i], context, threads);
  if (!ready) fprintf(stderr, "ggml: out of memory\n");
  if (ready && serves) serve(cases);
  for (int i = 0; i < CASES && ready && !serves; i++)
    printf("{\"case\": \"%s\", \"check\": %.9g, \"seconds\": %.9g}\n", cases[i].name, check(&cases[i]),
           measure(&cases[i]));
  for (int i = 0; i < CASES; i++) free(cases[i].plan.work_data);
  ggml_free(context);
  return !ready;
}
