/* Elementwise functions over 64 K floats in cache, where arithmetic is the cost. The peer is libtorch, in a process of
   its own with as many threads (peers/libtorch.cpp), so this program is a server of bench/run. */
#include "bench.h"

enum { SIZE = 1 << 16 };

static tern_tensor *x; /* from -4 to 4, kept by the scope of main */

static void exp_loop(void *context, long reps) {
  (void)context;
  for (long i = 0; i < reps; i++) {
    TERN_SCOPE;
    tern_exp(x);
  }
}

static void tanh_loop(void *context, long reps) {
  (void)context;
  for (long i = 0; i < reps; i++) {
    TERN_SCOPE;
    tern_tanh(x);
  }
}

static void erf_loop(void *context, long reps) {
  (void)context;
  for (long i = 0; i < reps; i++) {
    TERN_SCOPE;
    tern_erf(x);
  }
}

int main(int argc, char **argv) {
  const bench_case cases[] = {{.name = "math/exp", .loop = exp_loop, .ops = 1},
                              {.name = "math/tanh", .loop = tanh_loop, .ops = 1},
                              {.name = "math/erf", .loop = erf_loop, .ops = 1}};
  TERN_SCOPE;
  x = tern_linspace(-4, 4, SIZE, TERN_F32);
  if (bench_errors("math")) return 1;
  const int rc = bench_main(argc, argv, "Elementwise functions over 64 K floats.", cases, sizeof cases / sizeof *cases);
  return tern_finish() || rc == 1 ? 1 : rc;
}
