/* tern_checkpoint_call in traces: what is computed again stays apart from what was computed first, so that less memory
   is needed; values, random numbers and variables are those of then. */
#include "base/alloc.h"
#include "graph/both.h"
#include "graph/ir/ir.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <tern/graph.h>
#include <tern/tern.h>

#define BODY(name) static tern_rc name(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out)

enum { BLOCKS = 4, LAYERS = 4, SIZE = 24 };

typedef struct net {
  tern_tensor *weights[BLOCKS][LAYERS]; /* variables [SIZE, SIZE] */
  bool checkpoints, drops, nested;
  uint64_t budget; /* bytes; 0: none */
} net;
typedef struct block {
  const net *net;
  int number, first, last; /* layers [first, last) */
} block;

static tern_rc one(tern_tensor *y, tern_tensor **out) {
  *out = y;
  return y ? TERN_OK : tern_error_code();
}

BODY(runs_block);
static tern_rc half(const block *b, int first, int last, tern_tensor **x) {
  block *part = malloc(sizeof *part);
  if (!part) return TERN_E_OOM;
  *part = (block){b->net, b->number, first, last};
  return tern_checkpoint_call(runs_block, part, free, x, 1, x, 1);
}

BODY(runs_block) {
  const block *b = self;
  tern_tensor *x = in[0];
  (void)n_in, (void)n_out;
  if (b->net->nested && b->last - b->first == LAYERS) {
    if (half(b, 0, LAYERS / 2, &x) || half(b, LAYERS / 2, LAYERS, &x)) return tern_error_code();
    return one(x, out);
  }
  for (int l = b->first; l < b->last; l++) {
    x = tern_tanh(tern_matmul(x, b->net->weights[b->number][l]));
    if (b->net->drops) x = tern_dropout(x, 0.25, NULL);
  }
  return one(x, out);
}

/* Loss, then gradients of the operand and of all weights. */
BODY(trains) {
  const net *n = self;
  tern_tape *tape = tern_tape_begin(NULL);
  tern_tensor *x = in[0], *sources[1 + BLOCKS * LAYERS];
  int k = 0;
  (void)n_in;
  if (!tape || tern_tape_watch(tape, x)) return tern_error_code();
  sources[k++] = x;
  for (int b = 0; b < BLOCKS; b++) {
    block *now = malloc(sizeof *now);
    if (!now) return TERN_E_OOM;
    *now = (block){n, b, 0, LAYERS};
    const tern_rc rc =
        n->checkpoints ? tern_checkpoint_call(runs_block, now, free, &x, 1, &x, 1) : runs_block(now, &x, 1, &x, 1);
    if (!n->checkpoints) free(now);
    if (rc) return rc;
    for (int l = 0; l < LAYERS; l++) sources[k++] = n->weights[b][l];
  }
  out[0] = tern_sum(tern_square(x), NULL);
  return out[0] ? tern_tape_gradient(tape, out[0], sources, n_out - 1, out + 1) : tern_error_code();
}

static void make_weights(net *n) {
  uint64_t seed = 5;
  for (int b = 0; b < BLOCKS; b++)
    for (int l = 0; l < LAYERS; l++) {
      TERN_SCOPE;
      double w[SIZE * SIZE];
      for (int i = 0; i < SIZE * SIZE; i++) w[i] = test_uniform(&seed, -0.2, 0.2);
      n->weights[b][l] = tern_variable(test_tensor(TERN_SHAPE(SIZE, SIZE), TERN_F32, w), NULL);
    }
}

static void free_weights(net *n) {
  for (int b = 0; b < BLOCKS; b++)
    for (int l = 0; l < LAYERS; l++) tern_release(n->weights[b][l]);
}

/* Calls the function; its results must be those of the eager body, run with the same seed. Returns the arena's
   bytes. */
static uint64_t arena_of(net *n, const char *what, int n_out) {
  TERN_SCOPE;
  tern_tensor *x = tern_reshape(tern_cast(tern_arange(0, SIZE * SIZE, 1, TERN_F32), TERN_F32), TERN_SHAPE(SIZE, SIZE));
  x = tern_sin(x);
  tern_tensor *expected[1 + BLOCKS * LAYERS] = {0}, *out[1 + BLOCKS * LAYERS] = {0};
  tern_function *f = tern_function_new(trains, n, 1, n_out, &(tern_function_opts){.memory_budget = n->budget});
  tern_function_info info = {0};
  for (int call = 0; call < 3; call++) {
    tern_set_seed(7 + (uint64_t)call);
    CHECK(!trains(n, &x, 1, expected, n_out), "%s: %s", what, tern_error());
    tern_tensor *drawn = tern_random_uniform(TERN_SHAPE(1), NULL), *then;
    tern_set_seed(7 + (uint64_t)call);
    CHECK(!tern_function_run(f, &x, 1, out, n_out), "%s: %s", what, tern_error());
    then = tern_random_uniform(TERN_SHAPE(1), NULL);
    CHECK(tern_equal_all(drawn, then), "%s: the function draws more or less than the body", what);
    for (int o = 0; o < n_out; o++) both_same(what, o, out[o], expected[o], 0, 1e-4);
  }
  tern_function_get_info(f, &info);
  CHECK(info.traces == 1, "%d traces", info.traces);
  CHECK_NO_ERROR();
  tern_function_release(f);
  return info.arena_bytes;
}

static void memory(void) {
  const uint64_t value = SIZE * SIZE * 4;
  net n = {.checkpoints = false};
  make_weights(&n);
  /* the gradient of the operand alone: those of the weights are results and as many as the values kept */
  const uint64_t kept = arena_of(&n, "without checkpoints", 2);
  n.checkpoints = true;
  const uint64_t again = arena_of(&n, "checkpoints", 2);
  n.nested = true;
  const uint64_t nested = arena_of(&n, "nested checkpoints", 2);
  printf("(%.1f, %.1f and %.1f values) ", (double)kept / (double)value, (double)again / (double)value,
         (double)nested / (double)value);
  CHECK(kept >= (BLOCKS * LAYERS - 1) * value, "all values are not kept: %llu bytes", (unsigned long long)kept);
  CHECK(again <= (BLOCKS + LAYERS + 3) * value, "%llu bytes, without checkpoints %llu", (unsigned long long)again,
        (unsigned long long)kept);
  CHECK(nested <= again, "%llu bytes, not nested %llu", (unsigned long long)nested, (unsigned long long)again);
  n.budget = 6 * value; /* what was computed again may be computed once more */
  CHECK(arena_of(&n, "nested checkpoints and a budget", 2) <= nested, "a budget takes more");
  n.nested = false;
  CHECK(arena_of(&n, "checkpoints and a budget", 2) <= again, "a budget takes more");
  free_weights(&n);
}

static void all_gradients(void) {
  net n = {.checkpoints = false};
  make_weights(&n);
  for (int kind = 0; kind < 8; kind++) {
    n.checkpoints = kind & 1;
    n.drops = kind & 2;
    n.nested = kind & 4;
    char what[60];
    snprintf(what, sizeof what, "%scheckpoints%s%s", kind & 1 ? "" : "no ", kind & 2 ? ", dropout" : "",
             kind & 4 ? ", nested" : "");
    arena_of(&n, what, 1 + BLOCKS * LAYERS);
  }
  free_weights(&n);
}

/* ---- the gradient from outside of the function ---- */

BODY(dropped) {
  (void)self, (void)n_in, (void)n_out;
  return one(tern_dropout(tern_square(in[0]), 0.5, NULL), out);
}
BODY(checkpointed) {
  (void)n_out;
  if (tern_checkpoint_call(dropped, self, NULL, in, n_in, out, 1)) return tern_error_code();
  return one(tern_square(out[0]), out);
}

/* y = (2 x^2)^2 or 0: dy/dx = 4 y / x, with the y of this call */
static void through(void) {
  TERN_SCOPE;
  tern_function *f = tern_function_new(checkpointed, NULL, 1, 1, NULL);
  tern_tensor *x = tern_add(tern_arange(0, 64, 1, TERN_F32), tern_scalar(1));
  for (int call = 0; call < 6; call++) {
    tern_tensor *y, *d = NULL;
    tern_tape *tape = tern_tape_begin(NULL);
    CHECK(!tern_tape_watch(tape, x), "%s", tern_error());
    const tern_rc rc = call ? tern_function_run(f, &x, 1, &y, 1) : checkpointed(NULL, &x, 1, &y, 1);
    CHECK(!rc && !tern_tape_gradient(tape, y, &x, 1, &d), "%s", tern_error());
    CHECK(d && tern_allclose(d, tern_div(tern_mul(y, tern_scalar(4)), x), 1e-6, 0), "call %d: other numbers", call);
    CHECK(d && tern_item(tern_sum(tern_cast(tern_equal(y, tern_scalar(0)), TERN_F32), NULL)) > 5, "nothing dropped");
  }
  CHECK_NO_ERROR();
  tern_function_release(f);
}

/* ---- a variable that is assigned between ---- */

BODY(times_variable) {
  (void)n_in, (void)n_out;
  return one(tern_mul(tern_square(in[0]), tern_square((tern_tensor *)self)), out);
}
/* out: loss, its gradients by in[0] and by the variable */
BODY(assigns_between) {
  tern_tensor *v = self, *y;
  tern_tape *tape = tern_tape_begin(NULL);
  (void)n_in, (void)n_out;
  if (!tape || tern_tape_watch(tape, in[0])) return tern_error_code();
  if (tern_checkpoint_call(times_variable, v, NULL, in, 1, &y, 1) || tern_assign(v, in[1])) return tern_error_code();
  out[0] = tern_sum(tern_mul(y, v), NULL);
  return out[0] ? tern_tape_gradient(tape, out[0], (tern_tensor *[]){in[0], v}, 2, out + 1) : tern_error_code();
}
BODY(assigns_before) {
  tern_tensor *v = self, *y;
  tern_tape *tape = tern_tape_begin(NULL);
  (void)n_in, (void)n_out;
  if (!tape || tern_tape_watch(tape, in[0]) || tern_assign(v, in[1])) return tern_error_code();
  if (tern_checkpoint_call(times_variable, v, NULL, in, 1, &y, 1)) return tern_error_code();
  out[0] = tern_sum(y, NULL);
  if (!out[0] || tern_tape_gradient(tape, out[0], (tern_tensor *[]){in[0], v}, 2, out + 1)) return tern_error_code();
  return tern_assign(v, tern_add(v, tern_scalar(1)));
}

/* The variable as an operand of the checkpoint. */
BODY(product_of_two) {
  (void)self, (void)n_in, (void)n_out;
  return one(tern_mul(tern_square(in[0]), tern_square(in[1])), out);
}
BODY(gives_variable) {
  tern_tensor *v = self, *y;
  tern_tape *tape = tern_tape_begin(NULL);
  (void)n_in, (void)n_out;
  if (!tape || tern_tape_watch(tape, in[0])) return tern_error_code();
  if (tern_checkpoint_call(product_of_two, NULL, NULL, (tern_tensor *[]){in[0], v}, 2, &y, 1) || tern_assign(v, in[1]))
    return tern_error_code();
  out[0] = tern_sum(tern_mul(y, v), NULL);
  return out[0] ? tern_tape_gradient(tape, out[0], (tern_tensor *[]){in[0], v}, 2, out + 1) : tern_error_code();
}

static void variables(void) {
  TERN_SCOPE;
  tern_tensor *v = tern_variable(tern_f32(TERN_SHAPE(2), 2, 3), NULL);
  tern_tensor *in[] = {tern_f32(TERN_SHAPE(2), 5, -1), tern_f32(TERN_SHAPE(2), 10, 100)};
  tern_function *f = tern_function_new(assigns_between, v, 2, 3, NULL);
  tern_function *g = tern_function_new(assigns_before, v, 2, 3, NULL);
  tern_function *h = tern_function_new(gives_variable, v, 2, 3, NULL);
  for (int call = 0; call < 8; call++) {
    tern_tensor *out[3] = {0};
    const tern_function_body body = call & 1 ? gives_variable : assigns_between;
    tern_assign(v, tern_f32(TERN_SHAPE(2), 2, 3));
    CHECK(!(call > 1 ? tern_function_run(call & 1 ? h : f, in, 2, out, 3) : body(v, in, 2, out, 3)), "%s",
          tern_error());
    /* x^2 v^2 w with v = 2, 3 then and w = 10, 100 now, which count as one source */
    CHECK_LIST(out[0], TERN_SHAPE(), TERN_F32, 25 * 4 * 10 + 1 * 9 * 100);
    CHECK_LIST(out[1], TERN_SHAPE(2), TERN_F32, 2 * 5 * 4 * 10, 2 * -1 * 9 * 100);
    CHECK_LIST(out[2], TERN_SHAPE(2), TERN_F32, 2 * 2 * 25 * 10 + 25 * 4, 2 * 3 * 1 * 100 + 9);
    CHECK_LIST(v, TERN_SHAPE(2), TERN_F32, 10, 100);
    tern_assign(v, tern_f32(TERN_SHAPE(2), 2, 3));
    CHECK(!(call ? tern_function_run(g, in, 2, out, 3) : assigns_before(v, in, 2, out, 3)), "%s", tern_error());
    CHECK_LIST(out[0], TERN_SHAPE(), TERN_F32, 25 * 100 + 1 * 10000);
    CHECK_LIST(out[1], TERN_SHAPE(2), TERN_F32, 2 * 5 * 100, 2 * -1 * 10000);
    CHECK_LIST(out[2], TERN_SHAPE(2), TERN_F32, 2 * 10 * 25, 2 * 100);
    CHECK_LIST(v, TERN_SHAPE(2), TERN_F32, 11, 101);
  }
  CHECK_NO_ERROR();
  tern_function_release(f);
  tern_function_release(g);
  tern_function_release(h);
  tern_release(v);
}

static void out_of_memory(void) {
  TERN_SCOPE;
  tern_tensor *v = tern_variable(tern_f32(TERN_SHAPE(2), 2, 3), NULL);
  tern_tensor *in[] = {tern_f32(TERN_SHAPE(2), 5, -1), tern_f32(TERN_SHAPE(2), 10, 100)};
  long failures = 0, at = 1;
  for (bool done = false; !done && at < 20000; at++) {
    TERN_SCOPE;
    tern_tensor *out[3];
    tern_assign(v, tern_f32(TERN_SHAPE(2), 2, 3));
    tern_function *f = tern_function_new(assigns_between, v, 2, 3, NULL);
    tern__alloc_fail_at(at);
    const tern_rc rc = tern_function_run(f, in, 2, out, 3);
    done = tern__alloc_count() < at;
    tern__alloc_fail_at(0);
    failures += rc != TERN_OK;
    CHECK(!rc || tern_error_code() == TERN_E_OOM, "allocation %ld: %s", at, tern_error());
    tern_error_clear();
    if (!rc) CHECK_LIST(out[2], TERN_SHAPE(2), TERN_F32, 2 * 2 * 25 * 10 + 25 * 4, 2 * 3 * 1 * 100 + 9);
    tern_function_release(f);
  }
  CHECK(failures > 20, "only %ld failures", failures);
  CHECK_NO_ERROR();
  tern_release(v);
}

/* ---- written and read ---- */

static void text(void) {
  static const char source[] = "tern.graph 1 \"again\" {\n"
                               "  %x = input f32[3]@cpu:0 #0\n"
                               "  %y = exp %x : f32[3]@cpu:0\n"
                               "  %z = exp %x : f32[3]@cpu:0 pinned again 7\n"
                               "  %w = add %y, %z : f32[3]@cpu:0 again 65535\n"
                               "  return %w\n"
                               "}\n";
  tern__graph *g = tern__graph_parse(source, strlen(source));
  CHECK(g && !tern__graph_verify(g, "parsing"), "%s", tern_error());
  char *written = g ? tern__graph_text(g, 1) : NULL;
  CHECK(written && !strcmp(written, source), "%s", written ? written : tern_error());
  CHECK(g && g->node[1].again == 0 && g->node[2].again == 7 && g->node[2].pinned && g->node[3].again == 65535, "again");
  free(written);
  if (g) {
    g->node[0].again = 1;
    CHECK(tern__graph_verify(g, "a pass") != TERN_OK, "an input that is computed again");
    tern_error_clear();
  }
  tern__graph_free(g);
  static const char *const wrong[] = {"again", "again 0", "again 65536", "again -1", "again 1.5", "again 7 pinned"};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    char line[200];
    snprintf(line, sizeof line,
             "tern.graph 1 { %%x = input f32[3]@cpu:0 #0 %%y = exp %%x : f32[3]@cpu:0 %s return %%y }", wrong[i]);
    g = tern__graph_parse(line, strlen(line));
    CHECK(!g, "%s is taken", wrong[i]);
    tern_error_clear();
    tern__graph_free(g);
  }
}

static const test_case cases[] = {{"less memory", memory},
                                  {"all gradients", all_gradients},
                                  {"gradients from outside", through},
                                  {"variables assigned between", variables},
                                  {"out of memory", out_of_memory},
                                  {"the text form", text}};
TEST_MAIN("checkpoints", cases)
