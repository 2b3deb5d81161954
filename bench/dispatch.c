/* What an eager op costs before any arithmetic: tiny ops beside libtorch's and TensorFlow's (peers/, through --serve),
   two threads beside one, and a count of compilations, which new shapes must not cause. */
#include "bench.h"

#include <pthread.h>

enum { SHAPES = 2000, CHAIN = 10, CHAIN_SIZE = 1000 };

/* Operands of the loops; made once, kept by the scope of main. */
typedef struct operands {
  tern_tensor *a, *b, *square, *x, *scale, *offset;
} operands;
static operands all;

static void add3(void *context, long reps) {
  (void)context;
  for (long i = 0; i < reps; i++) {
    TERN_SCOPE;
    tern_add(all.a, all.b);
  }
}

static void view(void *context, long reps) {
  (void)context;
  for (long i = 0; i < reps; i++) {
    TERN_SCOPE;
    tern_reshape(all.square, TERN_SHAPE(4));
  }
}

static void matmul2x2(void *context, long reps) {
  (void)context;
  for (long i = 0; i < reps; i++) {
    TERN_SCOPE;
    tern_matmul(all.square, all.square);
  }
}

static void chain(void *context, long reps) {
  (void)context;
  for (long i = 0; i < reps; i++) {
    TERN_SCOPE;
    tern_tensor *x = all.x;
    for (int k = 0; k < CHAIN; k++)
      x = k % 3 == 0 ? tern_mul(x, all.scale) : k % 3 == 1 ? tern_add(x, all.offset) : tern_relu(x);
  }
}

/* ---- two threads ---- */

static void *own_adds(void *reps) {
  TERN_SCOPE;
  tern_tensor *a = tern_f32(TERN_SHAPE(3), 1, 2, 3), *b = tern_f32(TERN_SHAPE(3), 4, 5, 6);
  for (long i = 0; i < *(const long *)reps; i++) {
    TERN_SCOPE;
    tern_add(a, b);
  }
  return tern_error_code() ? (void *)"failed" : NULL;
}

/* context: the number of threads (1 or 2), each of which does reps adds. */
static void adds_in_threads(void *context, long reps) {
  const int threads = *(const int *)context;
  pthread_t id[2];
  void *failed;
  int started = 0;
  while (started < threads && !pthread_create(&id[started], NULL, own_adds, &reps)) started++;
  if (started < threads) fprintf(stderr, "dispatch/threads: only %d of %d threads started\n", started, threads);
  for (int i = 0; i < started; i++) {
    pthread_join(id[i], &failed);
    if (failed) fprintf(stderr, "dispatch/threads: an add failed\n");
  }
}

static int threads_case(const char *name) {
  int one = 1, two = 2;
  const bench_pair p = bench_pairs(adds_in_threads, &two, adds_in_threads, &one, BENCH_SECONDS);
  const bench_row row = {name,          "cpu",       "Mops/s", "tern on 1 thread", true, 2e-6 / p.tern,
                         1e-6 / p.peer, 2 * p.ratio, 1.7};
  bench_print(&row);
  return bench_errors(name);
}

/* ---- new shapes ---- */

static uint32_t next_random(uint64_t *state) {
  *state = *state * 6364136223846793005u + 1442695040888963407u; /* Knuth, MMIX */
  return (uint32_t)(*state >> 33);
}

/* One add or mul of two operands of that rank. Digit d of `pattern`, base 3, says how dimension d broadcasts: not,
   in a, in b. */
static int binary(int rank, int pattern, const int64_t *size, bool product) {
  TERN_SCOPE;
  int64_t a[4], b[4];
  for (int d = 0; d < rank; d++, pattern /= 3) {
    a[d] = pattern % 3 == 1 ? 1 : size[d];
    b[d] = pattern % 3 == 2 ? 1 : size[d];
  }
  tern_tensor *x = tern_full(tern_shape_of(rank, a), TERN_F32, 3), *y = tern_full(tern_shape_of(rank, b), TERN_F32, 4);
  tern_tensor *z = product ? tern_mul(x, y) : tern_add(x, y);
  if (!z) return 1;
  float value[64];
  const size_t n = (size_t)tern_size(z);
  if (n > 64) return 0;
  if (tern_to_host(z, value, 4 * n)) return 1;
  for (size_t i = 0; i < n; i++)
    if (value[i] != (product ? 12 : 7)) return 1;
  return 0;
}

static int power3(int rank) { return rank ? 3 * power3(rank - 1) : 1; }

static int shapes_case(const char *name) {
  uint64_t state = 1;
  tern_counters before, after;
  for (int rank = 1; rank <= 4; rank++)
    for (int i = 0; i < 2 * power3(rank); i++)
      if (binary(rank, i / 2, (const int64_t[]){5, 2, 4, 3}, i % 2))
        return bench_errors(name) + bench_fail("%s: failed", name);
  if (binary(1, 0, (const int64_t[]){1}, false) || binary(1, 0, (const int64_t[]){1}, true)) return bench_errors(name);
  tern_counters_get(NULL, &before);
  for (int i = 0; i < SHAPES; i++) {
    const int rank = 1 + (int)(next_random(&state) % 4), pattern = (int)(next_random(&state) % (uint32_t)power3(rank));
    int64_t size[4];
    for (int d = 0; d < rank; d++) size[d] = 1 + next_random(&state) % (rank == 1 ? 5000 : 17);
    if (binary(rank, pattern, size, next_random(&state) % 2))
      return bench_errors(name) + bench_fail("%s: failed", name);
  }
  tern_counters_get(NULL, &after);
  const bench_row row = {
      name, bench_device(), "compiles", NULL, false, (double)(after.compiles - before.compiles), NAN, NAN, 0};
  bench_print(&row);
  return bench_errors(name);
}

int main(int argc, char **argv) {
  const bench_case cases[] = {{.name = "dispatch/add3", .loop = add3, .ops = 1},
                              {.name = "dispatch/view", .loop = view, .ops = 1},
                              {.name = "dispatch/matmul2x2", .loop = matmul2x2, .ops = 1},
                              {.name = "dispatch/chain", .loop = chain, .ops = CHAIN},
                              {.name = "dispatch/threads", .measure = threads_case},
                              {.name = "dispatch/shapes", .measure = shapes_case}};
  TERN_SCOPE;
  all = (operands){tern_f32(TERN_SHAPE(3), 1, 2, 3),
                   tern_f32(TERN_SHAPE(3), 4, 5, 6),
                   tern_f32(TERN_SHAPE(2, 2), 1, 2, 3, 4),
                   tern_ones(TERN_SHAPE(CHAIN_SIZE), TERN_F32),
                   tern_full(TERN_SHAPE(CHAIN_SIZE), TERN_F32, 0.5),
                   tern_full(TERN_SHAPE(CHAIN_SIZE), TERN_F32, 0.25)};
  if (bench_errors("dispatch")) return 1;
  const int rc = bench_main(argc, argv, "Cost of small eager ops.", cases, sizeof cases / sizeof *cases);
  return tern_finish() || rc == 1 ? 1 : rc;
}
