/* Graphs with branches, which the CPU backend runs side by side: always here, whether that is faster or not
   (TERN_CPU_BRANCHES). Replays give the same bits as first runs, which go launch by launch: with operands that move,
   variables, gradients, loops, failures, and calls from many threads; and replays allocate nothing. */
#include "base/alloc.h"
#include "support/values.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <tern/graph.h>
#include <tern/tern.h>

enum { CHAINS = 6, DEPTH = 3, ROWS = 48, WIDTH = 96, RESULTS = 3 };

typedef struct net {
  tern_tensor *w[CHAINS][DEPTH];
} net;

#define BODY(name) static tern_rc name(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out)

static tern_tensor *uniform(uint64_t *state, tern_shape shape, double scale) {
  const size_t n = (size_t)test_numel(shape);
  double *x = malloc(n * sizeof *x);
  for (size_t i = 0; i < n; i++) x[i] = test_uniform(state, -scale, scale);
  tern_tensor *t = test_tensor(shape, TERN_F32, x);
  free(x);
  return t;
}

static void net_new(net *m, bool variables, uint64_t seed) {
  TERN_SCOPE;
  for (int c = 0; c < CHAINS; c++)
    for (int d = 0; d < DEPTH; d++) {
      tern_tensor *w = uniform(&seed, TERN_SHAPE(WIDTH, WIDTH), 0.15);
      m->w[c][d] = variables ? tern_variable(w, NULL) : tern_keep(w);
    }
}
static void net_free(net *m) {
  for (int c = 0; c < CHAINS; c++)
    for (int d = 0; d < DEPTH; d++) tern_release(m->w[c][d]);
}

/* ---- bodies: one operand of ROWS x WIDTH, RESULTS results ---- */

static tern_tensor *joined(tern_tensor **h) {
  tern_tensor *y = h[0];
  for (int c = 1; c < CHAINS; c++) y = tern_add(y, h[c]);
  return y;
}

BODY(products) {
  (void)n_in, (void)n_out;
  const net *m = self;
  tern_tensor *h[CHAINS];
  for (int c = 0; c < CHAINS; c++) {
    h[c] = in[0];
    for (int d = 0; d < DEPTH; d++) h[c] = tern_tanh(tern_matmul(h[c], m->w[c][d]));
  }
  out[0] = joined(h);
  out[1] = tern_concat(h, CHAINS, 1); /* columns of one array, by each branch its own */
  out[2] = h[2];
  return tern_error_code();
}

BODY(rows) {
  (void)self, (void)n_in, (void)n_out;
  tern_tensor *x = in[0], *h[CHAINS];
  h[0] = tern_softmax(tern_sin(x), -1);
  h[1] = tern_cumsum(tern_exp(x), 1, NULL);
  h[2] = tern_sort(tern_cos(x), 1, NULL);
  h[3] = tern_sub(x, tern_mean(x, TERN_AXES_KEEP(1)));
  h[4] = tern_matmul(x, tern_matmul(tern_transpose(x), tern_softmax(x, 0)));
  h[5] = tern_mul(x, tern_sum(tern_square(x), TERN_AXES_KEEP(0)));
  out[0] = joined(h);
  out[1] = tern_argmax(h[0], TERN_AXES(1));
  out[2] = tern_sum(h[1], TERN_AXES(0));
  return tern_error_code();
}

/* A step of training, whose updates are in place */
BODY(training) {
  (void)n_in, (void)n_out;
  const net *m = self;
  tern_tensor *d[CHAINS * DEPTH], *w[CHAINS * DEPTH];
  for (int k = 0; k < CHAINS * DEPTH; k++) w[k] = m->w[k / DEPTH][k % DEPTH];
  tern_tape *tape = tern_tape_begin(NULL);
  if (!tape) return tern_error_code();
  const tern_rc rc = products(self, in, 1, out, RESULTS);
  out[1] = tern_mean(tern_square(out[0]), NULL);
  if (rc || tern_tape_gradient(tape, out[1], w, CHAINS * DEPTH, d)) return tern_error_code();
  for (int k = 0; k < CHAINS * DEPTH; k++)
    if (tern_assign_sub(w[k], tern_mul(d[k], tern_scalar(0.5)))) break;
  return tern_error_code();
}

BODY(few) {
  (void)self, (void)n_in;
  *out = n_out ? tern_less(in[0], tern_scalar(4)) : NULL;
  return tern_error_code();
}
BODY(round_of) {
  (void)n_in, (void)n_out;
  tern_tensor *h[RESULTS];
  if (products(self, in + 1, 1, h, RESULTS)) return tern_error_code();
  out[0] = tern_add(in[0], tern_scalar(1));
  out[1] = tern_mul(h[0], tern_scalar(0.25));
  return tern_error_code();
}
BODY(loop) {
  (void)n_in, (void)n_out;
  tern_tensor *end[2];
  if (tern_while(few, round_of, self, (tern_tensor *[]){tern_scalar(0), in[0]}, 2, end, NULL)) return tern_error_code();
  out[0] = end[1];
  out[1] = tern_tanh(end[1]);
  out[2] = end[0];
  return tern_error_code();
}

static const struct {
  const char *name;
  tern_function_body body;
} bodies[] = {{"products", products}, {"rows", rows}, {"training", training}, {"loop", loop}};

/* ---- the same bits ---- */

static bool same_bits(tern_tensor *a, tern_tensor *b) {
  if (!a || !b || tern_size(a) != tern_size(b)) return false;
  double *x = test_values(a), *y = test_values(b);
  const bool same = x && y && !memcmp(x, y, (size_t)tern_size(a) * sizeof *x);
  free(x);
  free(y);
  return same;
}

/* A function called again and again, beside fresh ones that are called once; each with weights of its own */
static void compare(const char *name, tern_function_body body) {
  TERN_SCOPE;
  net mine, other;
  uint64_t state = 5;
  tern_tensor *held[RESULTS] = {NULL};
  net_new(&mine, body == training, 1);
  net_new(&other, body == training, 1);
  tern_function *f = tern_function_new(body, &mine, 1, RESULTS, NULL);
  for (int call = 0; call < 6; call++) {
    TERN_SCOPE;
    tern_tensor *x = uniform(&state, TERN_SHAPE(ROWS, WIDTH), 1), *got[RESULTS], *expected[RESULTS];
    tern_function *once = tern_function_new(body, &other, 1, RESULTS, NULL);
    if (!CHECK(!tern_function_run(f, &x, 1, got, RESULTS), "%s: %s", name, tern_error()) ||
        !CHECK(!tern_function_run(once, &x, 1, expected, RESULTS), "%s: %s", name, tern_error()))
      break;
    for (int r = 0; r < RESULTS; r++)
      CHECK(same_bits(got[r], expected[r]), "%s: result %d of call %d differs", name, r, call);
    if (call % 2) { /* results that are held make the next ones lie elsewhere */
      for (int r = 0; r < RESULTS; r++) {
        if (held[r]) tern_release(held[r]);
        held[r] = tern_keep(got[r]);
      }
    }
    for (int k = 0; k < CHAINS * DEPTH && body == training; k++)
      CHECK(same_bits(mine.w[k / DEPTH][k % DEPTH], other.w[k / DEPTH][k % DEPTH]), "variable %d after call %d", k,
            call);
    tern_function_release(once);
  }
  for (int r = 0; r < RESULTS; r++)
    if (held[r]) tern_release(held[r]);
  tern_function_release(f);
  net_free(&mine);
  net_free(&other);
  CHECK_NO_ERROR();
}

static void bits(void) {
  for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) compare(bodies[i].name, bodies[i].body);
}

/* ---- failures ---- */

BODY(looked_up) {
  (void)self, (void)n_in, (void)n_out;
  tern_tensor *h[CHAINS];
  for (int c = 0; c < CHAINS; c++) {
    h[c] = tern_cumsum(tern_mul(in[0], tern_scalar(c)), 0, NULL);
    if (c % 2) h[c] = tern_take(h[c], in[1], 0);
  }
  out[0] = tern_sum(tern_concat(h, CHAINS, 0), TERN_AXES(0));
  return tern_error_code();
}

static void failures(void) {
  TERN_SCOPE;
  uint64_t state = 3;
  tern_tensor *x = uniform(&state, TERN_SHAPE(ROWS, WIDTH), 1), *first = NULL;
  tern_function *f = tern_function_new(looked_up, NULL, 2, 1, NULL);
  for (int call = 0; call < 9; call++) {
    TERN_SCOPE;
    const bool bad = call == 5 || call == 7;
    tern_tensor *y = tern_call(f, x, tern_i32(TERN_SHAPE(3), 0, bad ? 1000 + call : 2, -1));
    if (bad) {
      char index[8];
      snprintf(index, sizeof index, "%d", 1000 + call);
      if (y) tern_to_host(y, &(float[WIDTH]){0}, WIDTH * sizeof(float)); /* a device with a queue says it later */
      CHECK(tern_error_code() && strstr(tern_error(), index), "call %d: \"%s\"", call, tern_error());
      tern_error_clear();
      if (strncmp(tern_default_device(), "cpu", 3) != 0) break; /* a queue that failed stays so */
      continue;
    }
    if (!first) first = y ? tern_keep(y) : NULL;
    CHECK(same_bits(y, first), "call %d: %s", call, tern_error());
  }
  if (first) tern_release(first);
  tern_function_release(f);
}

/* ---- threads ---- */

typedef struct shared {
  tern_function *f;
  tern_tensor *x, *y;
} shared;

static void *caller(void *context) {
  const shared *s = context;
  for (int k = 0; k < 60; k++) {
    TERN_SCOPE;
    tern_tensor *out[RESULTS];
    if (tern_function_run(s->f, &s->x, 1, out, RESULTS) || !same_bits(out[0], s->y)) return context;
  }
  return NULL;
}

static void threads(void) {
  TERN_SCOPE;
  enum { THREADS = 4 };
  net m;
  uint64_t state = 9;
  net_new(&m, false, 2);
  tern_tensor *out[RESULTS];
  shared s = {.f = tern_function_new(products, &m, 1, RESULTS, NULL), .x = uniform(&state, TERN_SHAPE(ROWS, WIDTH), 1)};
  CHECK(!tern_function_run(s.f, &s.x, 1, out, RESULTS), "%s", tern_error());
  s.y = out[0];
  pthread_t thread[THREADS];
  void *failed = NULL;
  for (int i = 0; i < THREADS; i++) pthread_create(&thread[i], NULL, caller, &s);
  for (int i = 0; i < THREADS; i++) {
    void *result;
    pthread_join(thread[i], &result);
    if (result) failed = result;
  }
  CHECK(!failed, "a thread got other bits");
  tern_function_release(s.f);
  net_free(&m);
}

/* ---- memory ---- */

static void allocations(void) {
  TERN_SCOPE;
  net m;
  uint64_t state = 9;
  net_new(&m, false, 2);
  tern_function *f = tern_function_new(products, &m, 1, RESULTS, NULL);
  tern_tensor *x[2] = {uniform(&state, TERN_SHAPE(ROWS, WIDTH), 1), uniform(&state, TERN_SHAPE(ROWS, WIDTH), 1)};
  long before = 0;
  for (int k = 0; k < 200; k++) {
    TERN_SCOPE;
    tern_tensor *out[RESULTS];
    if (k == 10) {
      tern__alloc_fail_at(0);
      before = tern__alloc_count();
    }
    if (!CHECK(!tern_function_run(f, &x[k % 2], 1, out, RESULTS), "%s", tern_error())) break;
  }
  CHECK(tern__alloc_count() == before, "replays allocated %ld times", tern__alloc_count() - before);
  tern_function_release(f);
  net_free(&m);
}

static const test_case cases[] = {
    {"the same bits", bits}, {"failures", failures}, {"threads", threads}, {"allocations", allocations}};

int main(int argc, char **argv) {
  setenv("TERN_CPU_BRANCHES", "always", 1); /* read when the library is first used */
  return test_main(argc, argv, "branches", cases, (int)(sizeof cases / sizeof *cases));
}
