/* Graph mode: the switch, graphs by name and as text, placeholders, what a session runs and what it refuses,
   assignments and training. */
#include "support/values.h"
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <tern/tern.h>
#include <unistd.h>

static double at(tern_tensor *t, int i) {
  double *v = test_values(t);
  const double x = v ? v[i] : NAN;
  free(v);
  return x;
}
static void near(const char *what, double got, double expected) {
  CHECK(fabs(got - expected) <= 1e-5 * (1 + fabs(expected)), "%s: got %.9g, expected %.9g", what, got, expected);
}
static tern_tensor *fetch(tern_session *s, const tern_feed *feeds, int n, tern_tensor *what) {
  tern_tensor *out = NULL;
  const tern_rc rc = tern_session_run(s, feeds, n, &what, 1, &out);
  CHECK((rc == TERN_OK) == (out != NULL), "rc %d, out %p", (int)rc, (void *)out);
  return out;
}
static uint64_t launches(void) {
  tern_counters c = {0};
  tern_counters_get(NULL, &c);
  return c.launches;
}
static tern_tensor *variable(tern_tensor *initial, const char *name) {
  return tern_variable(initial, &(tern_variable_opts){.name = name});
}

/* What f prints. */
static void printed(void (*f)(tern_tensor *t), tern_tensor *t, char *text, size_t size) {
  fflush(stdout);
  const int before = dup(1);
  FILE *file = tmpfile();
  dup2(fileno(file), 1);
  f(t);
  fflush(stdout);
  dup2(before, 1);
  close(before);
  rewind(file);
  text[fread(text, 1, size - 1, file)] = 0;
  fclose(file);
}

/* ---- the switch ---- */

static void switching(void) {
  TERN_SCOPE;
  CHECK(tern_executing_eagerly(), "not eager at the start");
  tern_tensor *a = tern_f32(TERN_SHAPE(2), 1, 2), *kept[3];
  tern_session *s = tern_session_new(NULL);
  for (int i = 0; i < 3; i++) {
    tern_disable_eager_execution();
    tern_disable_eager_execution(); /* again: nothing */
    CHECK(!tern_executing_eagerly(), "still eager");
    kept[i] = tern_mul(a, tern_f32(TERN_SHAPE(2), i, 10));
    CHECK(tern_is_symbolic(kept[i]) && !tern_is_symbolic(a), "what is symbolic");
    tern_enable_eager_execution();
    CHECK(tern_executing_eagerly(), "not eager");
    CHECK_LIST(tern_add(a, a), TERN_SHAPE(2), TERN_F32, 2, 4);
    CHECK(!tern_add(a, kept[i]), "a symbolic operand in eager mode");
    CHECK_ERROR(TERN_E_ARG, "ops run eagerly here");
    CHECK_LIST(fetch(s, NULL, 0, kept[i]), TERN_SHAPE(2), TERN_F32, i, 20); /* sessions run in both modes */
  }
  tern_disable_eager_execution();
  tern_tensor *sum = tern_add(tern_add(kept[0], kept[1]), kept[2]);
  tern_tensor *eager = fetch(s, NULL, 0, sum);
  CHECK(!tern_is_symbolic(eager), "a result is symbolic");
  CHECK_LIST(eager, TERN_SHAPE(2), TERN_F32, 3, 60);
  CHECK_LIST(fetch(s, NULL, 0, tern_sub(sum, eager)), TERN_SHAPE(2), TERN_F32, 0, 0); /* a result as a constant */
  tern_enable_eager_execution();
  tern_session_release(s);
  CHECK_NO_ERROR();
}

static void graphs_nest(void) {
  TERN_SCOPE;
  tern_graph *g = tern_graph_new("g"), *h = tern_graph_new("h");
  tern_tensor *a, *b, *c;
  {
    tern_with_graph(g);
    CHECK(!tern_executing_eagerly(), "eager inside");
    a = tern_add(tern_ones(TERN_SHAPE(2), TERN_F32), tern_f32(TERN_SHAPE(2), 1, 2));
    {
      tern_with_graph(h);
      b = tern_mul(tern_f32(TERN_SHAPE(1), 3), tern_f32(TERN_SHAPE(1), 4));
      CHECK(!tern_add(a, b), "operands of two graphs");
      CHECK_ERROR(TERN_E_ARG, "belongs to another graph");
      tern_enable_eager_execution();
      CHECK_LIST(tern_add(tern_f32(TERN_SHAPE(1), 3), tern_f32(TERN_SHAPE(1), 4)), TERN_SHAPE(1), TERN_F32, 7);
      tern_disable_eager_execution(); /* h again */
      b = tern_add(b, b);
      tern_graph_release(g);
      CHECK_ERROR(TERN_E_ARG, "still go into the graph");
      tern_graph_release(h);
      CHECK_ERROR(TERN_E_ARG, "still go into the graph");
    }
    c = tern_add(a, a);
  }
  CHECK(tern_executing_eagerly(), "not eager behind the block");
  tern_session *s = tern_session_new(g), *t = tern_session_new(h);
  CHECK_LIST(fetch(s, NULL, 0, c), TERN_SHAPE(2), TERN_F32, 4, 6);
  CHECK_LIST(fetch(t, NULL, 0, b), TERN_SHAPE(1), TERN_F32, 24);
  CHECK(!fetch(s, NULL, 0, b), "a fetch of another graph");
  CHECK_ERROR(TERN_E_ARG, "fetch 1 is of graph \"h\", but the session runs graph \"g\"");
  CHECK(!fetch(s, &(tern_feed){b, tern_f32(TERN_SHAPE(1), 1)}, 1, a), "a feed of another graph");
  CHECK_ERROR(TERN_E_ARG, "feed 1 replaces a value of graph \"h\"");
  tern_graph_release(g); /* before its tensors and its session */
  CHECK(!fetch(s, NULL, 0, c), "a session of a released graph");
  CHECK_ERROR(TERN_E_ARG, "was released");
  CHECK(!fetch(t, NULL, 0, c), "a fetch of a released graph");
  CHECK_ERROR(TERN_E_ARG, "was released");
  CHECK(!tern_named(c, "c"), "named");
  CHECK_ERROR(TERN_E_ARG, "was released");
  CHECK(!tern_add(c, c), "an op");
  CHECK_ERROR(TERN_E_ARG, "outlived its graph");
  tern_session_release(s);
  tern_session_release(t);
  tern_graph_release(h);
  CHECK_NO_ERROR();
}

static tern_rc switches(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  tern_graph *g = tern_default_graph();
  tern_disable_eager_execution();
  CHECK_ERROR(TERN_E_ARG, "disable_eager_execution: \"switches\" is being traced");
  tern_enable_eager_execution();
  CHECK_ERROR(TERN_E_ARG, "enable_eager_execution: \"switches\" is being traced");
  tern_graph_mark mark = tern_graph_begin(g);
  CHECK_ERROR(TERN_E_ARG, "graph_begin");
  tern_graph_end(&mark);
  CHECK(!tern_placeholder(TERN_SHAPE(1), TERN_F32, "p"), "a placeholder");
  CHECK_ERROR(TERN_E_ARG, "placeholder");
  out[0] = tern_add(in[0], in[0]);
  return TERN_OK;
}

static tern_rc doubles(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  out[0] = tern_add(in[0], in[0]);
  return TERN_OK;
}

static void inside_functions(void) {
  TERN_SCOPE;
  tern_function *f = tern_function_new(switches, NULL, 1, 1, &(tern_function_opts){.name = "switches"});
  CHECK_LIST(tern_call(f, tern_f32(TERN_SHAPE(2), 1, 2)), TERN_SHAPE(2), TERN_F32, 2, 4);
  tern_function_release(f);
  /* a function called in graph mode becomes part of the graph */
  f = tern_function_new(doubles, NULL, 1, 1, NULL);
  tern_graph *g = tern_graph_new(NULL);
  tern_tensor *x, *y;
  {
    tern_with_graph(g);
    x = tern_placeholder(TERN_SHAPE(-1), TERN_F32, "x");
    y = tern_call(f, x);
  }
  tern_session *s = tern_session_new(g);
  CHECK_LIST(fetch(s, &(tern_feed){x, tern_f32(TERN_SHAPE(2), 1, 2)}, 1, y), TERN_SHAPE(2), TERN_F32, 2, 4);
  CHECK(tern_is_symbolic(y), "not symbolic");
  tern_session_release(s);
  tern_graph_release(g);
  tern_function_release(f);
  CHECK_NO_ERROR();
}

/* ---- placeholders ---- */

static void sizes(void) {
  TERN_SCOPE;
  tern_graph *g = tern_graph_new("sizes");
  tern_session *s = tern_session_new(g);
  tern_tensor *x, *y, *mean, *outer, *flat, *own;
  {
    tern_with_graph(g);
    x = tern_placeholder(TERN_SHAPE(-1, 2), TERN_F32, "x");
    y = tern_placeholder(TERN_SHAPE(-1, 1), TERN_F32, "y");
    CHECK(tern_dim(x, 0) == -1 && tern_dim(x, 1) == 2 && tern_size(x) == -1 && tern_shape_get(x).dim[0] == -1, "sizes");
    mean = tern_mean(tern_mul(x, y), TERN_AXES(0));
    outer = tern_matmul(x, tern_permute(x, (const int[]){1, 0}, 2));
    flat = tern_reshape(x, TERN_SHAPE(tern_dim(x, 0)));
    CHECK(tern_dim(outer, 1) == -1 && tern_dim(flat, 0) == -1, "sizes that follow");
    own = tern_placeholder(TERN_SHAPE(-2), TERN_F32, "own");
  }
  for (int n = 1; n <= 5; n += 2) {
    tern_tensor *const what[] = {mean, outer, flat}, *out[3];
    const tern_feed feeds[] = {{y, tern_ones(TERN_SHAPE(n, 1), TERN_F32)},
                               {x, tern_reshape(tern_arange(0, 2 * n, 1, TERN_F32), TERN_SHAPE(n, 2))}};
    CHECK(!tern_session_run(s, feeds, 2, what, 3, (tern_tensor **)out), "%s", tern_error());
    CHECK_LIST(out[0], TERN_SHAPE(2), TERN_F32, n - 1, n);
    CHECK(tern_dim(out[1], 0) == n && tern_dim(out[1], 1) == n && tern_dim(out[2], 0) == 2 * n, "sizes of a run");
    near("last of outer", at(out[1], n * n - 1), (2 * n - 2) * (2 * n - 2) + (2 * n - 1) * (2 * n - 1));
  }
  tern_tensor *const three = tern_ones(TERN_SHAPE(3, 1), TERN_F32), *const two = tern_ones(TERN_SHAPE(2, 2), TERN_F32);
  const tern_feed uneven[] = {{x, two}, {y, three}};
  CHECK(!fetch(s, uneven, 2, mean), "sizes that differ");
  CHECK_ERROR(TERN_E_ARG, "\"y\" is fed with shape (3, 1) and \"x\" with (2, 2)");
  CHECK(fetch(s, uneven, 2, outer) != NULL, "y is not used: %s", tern_error());
  const tern_feed free_sizes[] = {{x, two}, {own, tern_f32(TERN_SHAPE(3), 1, 2, 3)}};
  tern_tensor *const both[] = {x, own}, *out[2];
  CHECK(!tern_session_run(s, free_sizes, 2, both, 2, (tern_tensor **)out), "%s", tern_error());
  CHECK_LIST(out[1], TERN_SHAPE(3), TERN_F32, 1, 2, 3);
  tern_session_release(s);
  tern_graph_release(g);
  CHECK(!tern_placeholder(TERN_SHAPE(1), TERN_F32, "p"), "a placeholder in eager mode");
  CHECK_ERROR(TERN_E_ARG, "ops run eagerly here");
  CHECK_NO_ERROR();
}

static void sizes_only(void) {
  TERN_SCOPE;
  tern_graph *g = tern_graph_new("sizes");
  tern_session *s = tern_session_new(g);
  tern_tensor *x, *zeros, *sum;
  {
    tern_with_graph(g);
    x = tern_placeholder(TERN_SHAPE(-1, 2), TERN_F32, "x");
    zeros = tern_full(TERN_SHAPE(TERN_LIKE(x, 0), 3), TERN_F32, 2);
    sum = tern_concat((tern_tensor *const[]){x, x}, 2, 0);
  }
  CHECK(!fetch(s, NULL, 0, zeros), "nobody knows the size");
  CHECK_ERROR(TERN_E_ARG, "placeholder \"x\" ((?, 2), float32) is not fed, but fetch 1 (\"full\") needs its size");
  tern_tensor *const rows = tern_ones(TERN_SHAPE(4, 2), TERN_F32);
  tern_tensor *const z = fetch(s, &(tern_feed){x, rows}, 1, zeros);
  CHECK(z && tern_dim(z, 0) == 4, "size from a feed: %s", tern_error());
  /* a computed value tells the size as well: 2 n = 6 */
  const tern_feed computed = {sum, tern_ones(TERN_SHAPE(6, 2), TERN_F32)};
  tern_tensor *const what[] = {zeros, sum}, *out[2];
  CHECK(!tern_session_run(s, &computed, 1, what, 2, (tern_tensor **)out), "%s", tern_error());
  CHECK(out[0] && tern_dim(out[0], 0) == 3, "size from a computed value");
  tern_session_release(s);
  tern_graph_release(g);
  CHECK_NO_ERROR();
}

static void bad_feeds(void) {
  TERN_SCOPE;
  tern_graph *g = tern_graph_new("feeds");
  tern_session *s = tern_session_new(g);
  tern_tensor *x, *y, *loss, *double_y, *weak;
  tern_tensor *w = variable(tern_ones(TERN_SHAPE(1), TERN_F32), "w"), *eager = tern_ones(TERN_SHAPE(1), TERN_F32);
  {
    tern_with_graph(g);
    x = tern_placeholder(TERN_SHAPE(-1, 2), TERN_F32, "x");
    y = tern_placeholder(TERN_SHAPE(1), TERN_I32, NULL);
    weak = tern_placeholder(TERN_SHAPE(), TERN_F32, "rate");
    loss = tern_named(tern_add(tern_sum(x, NULL), w), "loss");
    double_y = tern_add(y, y);
  }
  tern_tensor *const good = tern_ones(TERN_SHAPE(3, 2), TERN_F32);
  CHECK(!fetch(s, NULL, 0, loss), "not fed");
  CHECK_ERROR(TERN_E_ARG, "placeholder \"x\" ((?, 2), float32) is not fed, but fetch 1 (\"loss\") needs it");
  tern_tensor *const two[] = {double_y, loss}, *out[2];
  CHECK(tern_session_run(s, &(tern_feed){y, tern_i32(TERN_SHAPE(1), 1)}, 1, two, 2, (tern_tensor **)out), "not fed");
  CHECK_ERROR(TERN_E_ARG, "but fetch 2 (\"loss\") needs it");
  CHECK(!out[0] && !out[1], "results of a failed run");
  CHECK(!fetch(s, NULL, 0, double_y), "not fed");
  CHECK_ERROR(TERN_E_ARG, "placeholder \"input_1\"");
  CHECK(!fetch(s, &(tern_feed){x, tern_ones(TERN_SHAPE(3, 3), TERN_F32)}, 1, loss), "shape");
  CHECK_ERROR(TERN_E_ARG, "\"x\" is a placeholder of float32 of shape (?, 2)");
  CHECK(!fetch(s, &(tern_feed){x, tern_ones(TERN_SHAPE(2), TERN_F32)}, 1, loss), "rank");
  CHECK_ERROR(TERN_E_ARG, "fed with float32 of shape (2,)");
  CHECK(!fetch(s, &(tern_feed){x, tern_ones(TERN_SHAPE(3, 2), TERN_I32)}, 1, loss), "dtype");
  CHECK_ERROR(TERN_E_ARG, "fed with int32 of shape (3, 2)");
  const tern_feed twice[] = {{x, good}, {x, good}};
  CHECK(!fetch(s, twice, 2, loss), "twice");
  CHECK_ERROR(TERN_E_ARG, "\"x\" is fed twice, by feeds 1 and 2");
  CHECK(!fetch(s, &(tern_feed){x, x}, 1, loss), "symbolic");
  CHECK_ERROR(TERN_E_ARG, "feed 1 is symbolic");
  CHECK(!fetch(s, &(tern_feed){w, good}, 1, loss), "a variable");
  CHECK_ERROR(TERN_E_ARG, "replaces variable \"w\"; tern_assign it instead");
  CHECK(!fetch(s, &(tern_feed){eager, good}, 1, loss), "eager");
  CHECK_ERROR(TERN_E_ARG, "replaces an eager tensor");
  CHECK(!fetch(s, &(tern_feed){x, NULL}, 1, loss), "NULL");
  CHECK_ERROR(TERN_E_ARG, "argument 2 is NULL");
  CHECK(!fetch(s, &(tern_feed){NULL, good}, 1, loss), "NULL");
  CHECK_ERROR(TERN_E_ARG, "argument 1 is NULL");
  CHECK(!fetch(s, &(tern_feed){x, TERN_NONE}, 1, loss), "TERN_NONE");
  CHECK_ERROR(TERN_E_ARG, "TERN_NONE");
  CHECK(!fetch(s, &(tern_feed){x, good}, 1, NULL), "NULL fetched");
  CHECK_ERROR(TERN_E_ARG, "argument 1 is NULL");
  CHECK(tern_session_run(NULL, NULL, 0, NULL, 0, NULL), "no session");
  CHECK_ERROR(TERN_E_ARG, "the session is NULL");
  CHECK(tern_session_run(s, NULL, 1, NULL, 0, NULL), "no feeds");
  CHECK_ERROR(TERN_E_ARG, "must not be NULL");
  CHECK(!tern_session_run(s, NULL, 0, NULL, 0, NULL), "nothing to do: %s", tern_error());
  near("good", tern_item(tern_reshape(fetch(s, &(tern_feed){x, good}, 1, loss), TERN_SHAPE())), 7);
  near("a host scalar", tern_item(fetch(s, &(tern_feed){weak, tern_scalar(0.5)}, 1, weak)), 0.5);
  tern_tensor *const strided = tern_permute(tern_ones(TERN_SHAPE(2, 5), TERN_F32), (const int[]){1, 0}, 2);
  near("a strided value", at(fetch(s, &(tern_feed){x, strided}, 1, loss), 0), 11);
  tern_tensor *v = variable(tern_ones(TERN_SHAPE(1, 2), TERN_F32), "v");
  near("a variable's value", at(fetch(s, &(tern_feed){x, v}, 1, loss), 0), 3);
  tern_release(v);
  tern_release(w);
  tern_session_release(s);
  tern_graph_release(g);
  CHECK_NO_ERROR();
}

/* ---- what runs ---- */

static void only_what_is_needed(void) {
  TERN_SCOPE;
  tern_graph *g = tern_graph_new("parts");
  tern_session *s = tern_session_new(g);
  tern_tensor *x, *chain[8], *side, *joined;
  {
    tern_with_graph(g);
    x = tern_placeholder(TERN_SHAPE(4, 4), TERN_F32, "x");
    chain[0] = x;
    for (int i = 1; i < 8; i++) chain[i] = tern_matmul(chain[i - 1], x);
    side = tern_cumsum(x, 0, NULL);
    joined = tern_add(tern_sum(chain[7], NULL), tern_sum(side, NULL));
  }
  tern_tensor *eye = tern_eye(4, 4, 0, TERN_F32), *wide[8];
  const tern_feed feed = {x, eye};
  uint64_t n[3];
  for (int i = 0; i < 3; i++) {
    tern_tensor *const what[] = {chain[2], chain[7], joined};
    const uint64_t before = launches();
    near("part", at(fetch(s, &feed, 1, what[i]), 0), i == 2 ? 14 : 1);
    n[i] = launches() - before;
  }
  CHECK(n[0] >= 1 && n[0] < n[1] && n[1] < n[2], "launches %llu, %llu, %llu", (unsigned long long)n[0],
        (unsigned long long)n[1], (unsigned long long)n[2]);
  uint64_t before = launches();
  CHECK(!tern_session_run(s, &feed, 1, (tern_tensor *const[]){x, eye, x}, 3, wide), "%s", tern_error());
  CHECK(launches() == before, "%d launches for what is fed", (int)(launches() - before));
  near("the fed value", at(wide[2], 5), 1);
  CHECK(tern_equal_all(wide[1], eye) == 1, "an eager fetch");
  /* a computed value that is fed: what is behind it does not run, nor must it be fed */
  before = launches();
  const tern_feed middle[] = {{chain[7], tern_ones(TERN_SHAPE(4, 4), TERN_F32)}, {side, eye}};
  const uint64_t made = launches() - before;
  near("from the middle", at(fetch(s, middle, 2, joined), 0), 20);
  CHECK(launches() - before - made < n[2], "launches %d", (int)(launches() - before - made));
  /* many fetches, some of them twice, and what is left out */
  tern_tensor *const many[] = {chain[3], joined, chain[3], TERN_NONE, side, chain[1]};
  CHECK(!tern_session_run(s, &feed, 1, many, 6, wide), "%s", tern_error());
  CHECK(wide[3] == TERN_NONE && tern_equal_all(wide[0], wide[2]) == 1 && tern_equal_all(wide[5], eye) == 1, "many");
  near("many", at(wide[1], 0), 14);
  tern_session_release(s);
  tern_graph_release(g);
  CHECK_NO_ERROR();
}

/* Fed values come first in what is compiled; everything else keeps its place behind them. */
static void feeds_among_others(void) {
  TERN_SCOPE;
  tern_graph *g = tern_graph_new("others");
  tern_session *s = tern_session_new(g);
  tern_tensor *w = variable(tern_f32(TERN_SHAPE(3), 10, 20, 30), "w"), *x, *y, *z, *half;
  {
    tern_with_graph(g);
    tern_tensor *first = tern_add(tern_f32(TERN_SHAPE(2, 1), 100, 200), tern_f32(TERN_SHAPE(1, 3), 1, 2, 3));
    tern_tensor *scaled = tern_mul(w, tern_scalar(2));
    x = tern_placeholder(TERN_SHAPE(-1, 3), TERN_F32, "x");
    y = tern_placeholder(TERN_SHAPE(), TERN_I32, "y");
    half = tern_div(x, tern_scalar(2));
    z = tern_add(tern_add(tern_mul(half, y), scaled), tern_sum(first, NULL));
    tern_assign(w, tern_add(scaled, tern_mean(z, TERN_AXES(0))));
  }
  const tern_feed feeds[] = {{y, tern_i32(TERN_SHAPE(), 4)}, {x, tern_f32(TERN_SHAPE(1, 3), 1, 2, 3)}};
  CHECK_LIST(fetch(s, feeds, 2, z), TERN_SHAPE(1, 3), TERN_F32, 934, 956, 978);
  const tern_feed other[] = {{half, tern_f32(TERN_SHAPE(2, 3), 1, 2, 3, 3, 2, 1)}, feeds[0]};
  tern_tensor *const what[] = {w, z}, *out[2];
  CHECK(!tern_session_run(s, other, 2, what, 2, (tern_tensor **)out), "%s", tern_error());
  CHECK_LIST(out[1], TERN_SHAPE(2, 3), TERN_F32, 936, 960, 984, 944, 960, 976);
  CHECK_LIST(out[0], TERN_SHAPE(3), TERN_F32, 960, 1000, 1040);
  CHECK_LIST(w, TERN_SHAPE(3), TERN_F32, 960, 1000, 1040);
  tern_release(w);
  tern_session_release(s);
  tern_graph_release(g);
  CHECK_NO_ERROR();
}

/* The same fetches and forms compile nothing; the graph may grow in between. */
static void programs_are_kept(void) {
  TERN_SCOPE;
  tern_graph *g = tern_graph_new("kept");
  tern_session *s = tern_session_new(g);
  tern_tensor *x, *y;
  {
    tern_with_graph(g);
    x = tern_placeholder(TERN_SHAPE(-1), TERN_F32, "x");
    y = tern_exp(tern_mul(x, tern_scalar(2)));
  }
  for (int i = 0; i < 100; i++) {
    TERN_SCOPE;
    tern_tensor *v = tern_full(TERN_SHAPE(1 + i % 80), TERN_F32, 0.25);
    near("exp", at(fetch(s, &(tern_feed){x, v}, 1, y), i % 80), 1.6487212707);
    tern_with_graph(g);
    tern_add(y, y);
  }
  tern_session_release(s);
  tern_graph_release(g);
  CHECK_NO_ERROR();
}

static void random_draws_anew(void) {
  TERN_SCOPE;
  tern_graph *g = tern_graph_new("random");
  tern_session *s = tern_session_new(g);
  tern_tensor *r;
  {
    tern_with_graph(g);
    r = tern_random_uniform(TERN_SHAPE(4), NULL);
  }
  tern_set_seed(5);
  tern_tensor *a = fetch(s, NULL, 0, r), *b = fetch(s, NULL, 0, r);
  tern_set_seed(5);
  tern_tensor *c = fetch(s, NULL, 0, r);
  CHECK(tern_equal_all(a, b) == 0 && tern_equal_all(a, c) == 1, "draws");
  CHECK(tern_equal_all((tern_set_seed(5), tern_random_uniform(TERN_SHAPE(4), NULL)), a) == 1, "not as eagerly");
  tern_session_release(s);
  tern_graph_release(g);
  CHECK_NO_ERROR();
}

/* ---- assignments ---- */

static void assignments(void) {
  TERN_SCOPE;
  tern_graph *g = tern_graph_new("assign");
  tern_session *s = tern_session_new(g);
  tern_tensor *v = variable(tern_f32(TERN_SHAPE(1), 10), "v"), *u = variable(tern_f32(TERN_SHAPE(1), 1), "u");
  tern_tensor *alone = variable(tern_f32(TERN_SHAPE(1), 3), "alone");
  tern_tensor *before, *product, *after, *later;
  {
    tern_with_graph(g);
    before = tern_mul(v, tern_scalar(2));
    product = tern_mul(before, u);
    tern_assign(v, product);
    after = tern_add(v, tern_scalar(1));
    tern_assign_add(v, tern_scalar(100));
    later = tern_add(v, tern_scalar(1));
    tern_assign_sub(u, tern_scalar(-1));
  }
  near("read before", at(fetch(s, NULL, 0, before), 0), 20);
  near("computed before", at(fetch(s, NULL, 0, product), 0), 20);
  near("nothing was assigned", tern_item(v), 10);
  near("after the first", at(fetch(s, NULL, 0, after), 0), 21);
  near("only the first was", tern_item(v), 20);
  near("after both", at(fetch(s, NULL, 0, later), 0), 141);
  near("both were", tern_item(v), 140);
  near("u was not", tern_item(u), 1);
  near("the variable", at(fetch(s, NULL, 0, v), 0), 380);
  near("is assigned", tern_item(v), 380);
  tern_tensor *const what[] = {before, u, v, after}, *out[4];
  CHECK(!tern_session_run(s, NULL, 0, what, 4, (tern_tensor **)out), "%s", tern_error());
  near("old value beside the new", at(out[0], 0), 760);
  near("u", at(out[1], 0), 2);
  near("v", at(out[2], 0), 860);
  near("between", at(out[3], 0), 761);
  near("u now", tern_item(u), 2);
  near("v now", tern_item(v), 860);
  tern_assign(v, tern_f32(TERN_SHAPE(1), 0)); /* eagerly: what a run found stays */
  near("kept", at(out[2], 0), 860);
  near("from 0", at(fetch(s, NULL, 0, v), 0), 100);
  near("not in the graph", at(fetch(s, NULL, 0, alone), 0), 3);
  tern_release(v);
  tern_release(u);
  tern_release(alone);
  tern_session_release(s);
  tern_graph_release(g);
  CHECK_NO_ERROR();
}

struct net {
  tern_tensor *w1, *b1, *w2, *b2;
  tern_optimizer *optimizer;
};

static struct net net_new(void) {
  tern_tensor *w1 = tern_random_normal(TERN_SHAPE(2, 8), &(tern_random_opts){.seed = 3});
  tern_tensor *w2 = tern_random_normal(TERN_SHAPE(8, 1), &(tern_random_opts){.seed = 4});
  return (struct net){variable(w1, "w1"), variable(tern_zeros(TERN_SHAPE(8), TERN_F32), "b1"), variable(w2, "w2"),
                      variable(tern_zeros(TERN_SHAPE(1), TERN_F32), "b2"),
                      tern_adam(&(tern_adam_opts){.learning_rate = 0.05, .global_clip_norm = 5})};
}

static void net_end(struct net *n) {
  tern_release(n->w1);
  tern_release(n->b1);
  tern_release(n->w2);
  tern_release(n->b2);
  tern_optimizer_release(n->optimizer);
}

static tern_tensor *train(struct net *n, tern_tensor *x, tern_tensor *y) {
  tern_tensor *const variables[] = {n->w1, n->b1, n->w2, n->b2}, *gradients[4];
  tern_tape *tape = tern_tape_begin(NULL);
  tern_tensor *hidden = tern_tanh(tern_add(tern_matmul(x, n->w1), n->b1));
  tern_tensor *loss = tern_mean(tern_square(tern_sub(tern_add(tern_matmul(hidden, n->w2), n->b2), y)), NULL);
  tern_tape_gradient(tape, loss, variables, 4, (tern_tensor **)gradients);
  tern_optimizer_apply(n->optimizer, gradients, variables, 4);
  return loss;
}

static void training(void) {
  TERN_SCOPE;
  struct net eager = net_new(), in_graph = net_new();
  tern_graph *g = tern_graph_new("training");
  tern_session *s = tern_session_new(g);
  tern_tensor *x, *y, *loss;
  {
    tern_with_graph(g);
    x = tern_placeholder(TERN_SHAPE(-1, 2), TERN_F32, "x");
    y = tern_placeholder(TERN_SHAPE(-1, 1), TERN_F32, "y");
    loss = train(&in_graph, x, y);
  }
  double first = 0, last = 0;
  for (int step = 0; step < 60; step++) {
    TERN_SCOPE;
    const int n = step % 20 == 19 ? 5 : 8; /* a short last batch */
    tern_tensor *bx = tern_random_normal(TERN_SHAPE(n, 2), &(tern_random_opts){.seed = (uint64_t)(100 + step)});
    tern_tensor *by = tern_sum(tern_square(bx), TERN_AXES(1));
    by = tern_reshape(by, TERN_SHAPE(n, 1));
    const double expected = tern_item(train(&eager, bx, by));
    const tern_feed feeds[] = {{x, bx}, {y, by}};
    /* one of the variables is enough: an optimiser's step is whole */
    tern_tensor *const what[] = {loss, in_graph.w1}, *out[2] = {0};
    CHECK(!tern_session_run(s, feeds, 2, what, 2, (tern_tensor **)out), "%s", tern_error());
    const double got = tern_item(out[0]);
    CHECK(fabs(got - expected) <= 2e-4 * (1 + expected), "step %d: loss %.9g, eagerly %.9g", step, got, expected);
    CHECK(tern_allclose(out[1], eager.w1, 2e-3, 2e-4) == 1, "step %d: w1", step);
    if (step == 0) first = got;
    last = got;
    if (step % 10 == 0) { /* looking does not train */
      const double b2 = tern_item(in_graph.b2);
      CHECK(fetch(s, feeds, 2, loss) != NULL, "%s", tern_error());
      CHECK(tern_item(in_graph.b2) == b2, "fetching the loss alone trained");
    }
  }
  CHECK(last < first, "loss %g to %g", first, last);
  CHECK(tern_allclose(in_graph.b2, eager.b2, 2e-3, 2e-4) == 1 && tern_allclose(in_graph.w2, eager.w2, 2e-3, 2e-4) == 1,
        "variables that were not fetched");
  tern_session_release(s);
  tern_graph_release(g);
  net_end(&eager);
  net_end(&in_graph);
  CHECK_NO_ERROR();
}

/* ---- names, text, printing ---- */

static void names(void) {
  TERN_SCOPE;
  tern_graph *g = tern_graph_new("named");
  tern_tensor *w = variable(tern_ones(TERN_SHAPE(2), TERN_F32), "w"), *x, *again, *sum, *other;
  char text[400];
  {
    tern_with_graph(g);
    x = tern_placeholder(TERN_SHAPE(-1, 2), TERN_F32, "x");
    again = tern_placeholder(TERN_SHAPE(), TERN_I64, "x");
    sum = tern_add(x, w);
    other = tern_named(tern_add(sum, w), "logits");
    printed(tern_print, x, text, sizeof text);
    CHECK(!strcmp(text, "tern.Tensor(\"x:0\", shape=(?, 2), dtype=float32)\n"), "%s", text);
    printed(tern_print, again, text, sizeof text);
    CHECK(!strcmp(text, "tern.Tensor(\"x_1:0\", shape=(), dtype=int64)\n"), "%s", text);
    printed(tern_print, sum, text, sizeof text);
    CHECK(!strcmp(text, "tern.Tensor(\"add:0\", shape=(?, 2), dtype=float32)\n"), "%s", text);
    printed(tern_print_values, other, text, sizeof text);
    CHECK(!strcmp(text, "tern.Tensor(\"logits:0\", shape=(?, 2), dtype=float32)\n"), "%s", text);
    printed(tern_print, w, text, sizeof text);
    CHECK(!strcmp(text, "tern.Variable(\"w\", shape=(2,), dtype=float32)\n"), "%s", text);
    printed(tern_print, tern_permute(tern_f32(TERN_SHAPE(1, 2), 1, 2), (const int[]){1, 0}, 2), text, sizeof text);
    CHECK(!strcmp(text, "tern.Tensor(\n[[1.]\n [2.]], shape=(2, 1), dtype=float32)\n"), "%s", text);
    CHECK(isnan(tern_item(sum)), "a symbolic value was read");
    CHECK_ERROR(TERN_E_ARG, "has shape");
    CHECK(isnan(tern_item(tern_sum(sum, NULL))), "a symbolic value was read");
    CHECK_ERROR(TERN_E_ARG, "\"sum\", shape (), is symbolic and has no value; fetch it with tern_session_run");
    CHECK(tern_to_host(w, (float[2]){0}, 8), "a variable was read");
    CHECK_ERROR(TERN_E_ARG, "variable \"w\" of shape (2,) is read in graph mode");
  }
  CHECK(tern_graph_tensor(g, "x") == tern_graph_tensor(g, "x:0"), "x");
  CHECK(tern_graph_tensor(g, "w") == w, "a variable");
  CHECK(tern_dtype_get(w) == TERN_F32 && tern_is_symbolic(tern_graph_tensor(g, "add:0")), "add");
  tern_session *s = tern_session_new(g);
  const tern_feed feed = {tern_graph_tensor(g, "x"), tern_f32(TERN_SHAPE(1, 2), 1, 2)};
  CHECK_LIST(fetch(s, &feed, 1, tern_graph_tensor(g, "logits")), TERN_SHAPE(1, 2), TERN_F32, 3, 4);
  CHECK_LIST(fetch(s, &feed, 1, tern_graph_tensor(g, "add")), TERN_SHAPE(1, 2), TERN_F32, 2, 3);
  CHECK(!tern_graph_tensor(g, "nobody"), "nobody");
  CHECK_ERROR(TERN_E_ARG, "graph \"named\" has no value named \"nobody\"; it has x, x_1, logits");
  CHECK(!tern_graph_tensor(g, "add:1") && !tern_graph_tensor(NULL, "x"), "bad names");
  CHECK_ERROR(TERN_E_ARG, "add:1");
  CHECK(!tern_named(x, ""), "no name");
  CHECK_ERROR(TERN_E_ARG, "empty");
  CHECK(tern_named(w, "eager") == w, "an eager tensor");
  tern_session_release(s);
  tern_graph_release(g);
  tern_release(w);
  CHECK_NO_ERROR();
}

static void as_text(void) {
  TERN_SCOPE;
  tern_graph *g = tern_graph_new("texts");
  tern_tensor *w = variable(tern_f32(TERN_SHAPE(2, 1), 2, 3), "w");
  {
    tern_with_graph(g);
    tern_tensor *x = tern_placeholder(TERN_SHAPE(-1, 2), TERN_F32, "x");
    tern_named(tern_add(tern_matmul(x, w), tern_f32(TERN_SHAPE(1), 0.5)), "y");
    tern_assign_add(w, tern_ones(TERN_SHAPE(2, 1), TERN_F32));
  }
  char *text = tern_graph_to_string(g, TERN_GRAPH_TEXT), *dot = tern_graph_to_string(g, TERN_GRAPH_DOT);
  CHECK(text && dot && strstr(text, "%x = input") && strstr(dot, "digraph"), "%s", tern_error());
  tern_graph *back = tern_graph_from_string(text, strlen(text));
  CHECK(back != NULL, "%s", tern_error());
  char *same = tern_graph_to_string(back, TERN_GRAPH_TEXT);
  CHECK(same && !strcmp(text, same), "%s\n--\n%s", text, same ? same : tern_error());
  tern_session *s = tern_session_new(back);
  const tern_feed feed = {tern_graph_tensor(back, "x"), tern_f32(TERN_SHAPE(2, 2), 1, 0, 0, 1)};
  CHECK_LIST(fetch(s, &feed, 1, tern_graph_tensor(back, "y")), TERN_SHAPE(2, 1), TERN_F32, 2.5, 3.5);
  CHECK_LIST(fetch(s, NULL, 0, tern_graph_tensor(back, "w")), TERN_SHAPE(2, 1), TERN_F32, 3, 4);
  CHECK_LIST(fetch(s, &feed, 1, tern_graph_tensor(back, "y")), TERN_SHAPE(2, 1), TERN_F32, 3.5, 4.5);
  near("w itself stays", at(w, 0), 2);
  free(text);
  free(dot);
  free(same);
  tern_session_release(s);
  tern_graph_release(back);
  CHECK(!tern_graph_from_string("tern.graph 1 {\n  %0 = nonsense %1\n}", 34), "nonsense");
  CHECK_ERROR(TERN_E_ARG, "line 2");
  CHECK(!tern_graph_to_string(g, (tern_graph_format)7), "format");
  CHECK_ERROR(TERN_E_ARG, "7 is no format");
  const char *printing = "tern.graph 1 \"p\" {\n  %x = input f32[1] #0\n  %y = add %x, %x : f32[1]\n  print %y {1}\n"
                         "  %z = sub %x, %x : f32[1]\n  return %z\n}";
  back = tern_graph_from_string(printing, strlen(printing));
  CHECK(back != NULL, "%s", tern_error());
  s = tern_session_new(back);
  const tern_feed one = {tern_graph_tensor(back, "x"), tern_f32(TERN_SHAPE(1), 4)};
  CHECK_LIST(fetch(s, &one, 1, tern_graph_tensor(back, "return:0")), TERN_SHAPE(1), TERN_F32, 0); /* prints nothing */
  CHECK_LIST(fetch(s, &one, 1, tern_graph_tensor(back, "y")), TERN_SHAPE(1), TERN_F32, 8);
  tern_session_release(s);
  tern_graph_release(back);
  tern_graph_release(g);
  tern_release(w);
  CHECK_NO_ERROR();
}

/* ---- threads, and errors on the way ---- */

static void *thread_main(void *argument) {
  const int number = *(const int *)argument;
  TERN_SCOPE;
  CHECK(tern_executing_eagerly(), "graph mode of another thread");
  tern_disable_eager_execution();
  tern_session *s = tern_session_new(NULL);
  tern_tensor *x = tern_placeholder(TERN_SHAPE(-1), TERN_F32, "x"), *y = x;
  for (int i = 0; i < number; i++) y = tern_add(y, x);
  tern_enable_eager_execution();
  for (int i = 1; i < 20; i++) {
    TERN_SCOPE;
    near("a thread's own", at(fetch(s, &(tern_feed){x, tern_full(TERN_SHAPE(i), TERN_F32, i)}, 1, y), i - 1),
         i * (number + 1));
  }
  tern_session_release(s);
  CHECK_NO_ERROR();
  tern_disable_eager_execution();
  return tern_default_graph(); /* only compared; it ends with the thread, which leaves graph mode on */
}

static void threads(void) {
  TERN_SCOPE;
  pthread_t thread[4];
  int number[4];
  tern_disable_eager_execution();
  for (int i = 0; i < 4; i++) {
    number[i] = i + 1;
    pthread_create(&thread[i], NULL, thread_main, &number[i]);
  }
  for (int i = 0; i < 4; i++) {
    void *graph;
    pthread_join(thread[i], &graph);
    CHECK(graph != (void *)tern_default_graph(), "two threads, one default graph");
  }
  tern_enable_eager_execution();
  CHECK_NO_ERROR();
}

static void errors_on_the_way(void) {
  TERN_SCOPE;
  tern_graph *g = tern_graph_new("errors");
  tern_session *s = tern_session_new(g);
  tern_tensor *x, *bad, *fine;
  {
    tern_with_graph(g);
    x = tern_placeholder(TERN_SHAPE(2, 3), TERN_F32, "x");
    bad = tern_matmul(x, x);
    CHECK(!bad, "a product of (2, 3) and (2, 3)");
    CHECK_ERROR(TERN_E_ARG, "matmul");
    CHECK(!tern_variable(tern_add(x, x), NULL), "a variable from what has no value");
    CHECK_ERROR(TERN_E_ARG, "is symbolic and has no value");
    CHECK(!tern_placeholder(TERN_SHAPE(-1, -1, -1), TERN_F32, "big"), "three unknown sizes");
    CHECK_ERROR(TERN_E_UNSUPPORTED, "too many");
    CHECK(!tern_placeholder(TERN_SHAPE(2), (tern_dtype)99, "dtype"), "a dtype");
    CHECK_ERROR(TERN_E_ARG, "99");
    fine = tern_relu(tern_add(x, tern_scalar(1)));
  }
  near("the graph is whole", at(fetch(s, &(tern_feed){x, tern_zeros(TERN_SHAPE(2, 3), TERN_F32)}, 1, fine), 5), 1);
  tern_session_release(s);
  tern_graph_release(g);
  tern_graph_release(NULL);
  tern_session_release(NULL);
  tern_graph_mark none = tern_graph_begin(NULL);
  CHECK_ERROR(TERN_E_ARG, "graph_begin");
  tern_graph_end(&none);
  /* the default graph may be given back, as long as nobody is in it */
  tern_disable_eager_execution();
  tern_tensor *old = tern_add(tern_ones(TERN_SHAPE(1), TERN_F32), tern_scalar(1));
  tern_graph_release(tern_default_graph());
  CHECK_ERROR(TERN_E_ARG, "still go into the graph");
  tern_enable_eager_execution();
  tern_graph_release(tern_default_graph());
  s = tern_session_new(NULL);
  CHECK(!fetch(s, NULL, 0, old), "of the old default graph");
  CHECK_ERROR(TERN_E_ARG, "was released");
  tern_session_release(s);
  CHECK_NO_ERROR();
}

static const test_case cases[] = {
    {"switching", switching},
    {"graphs nest", graphs_nest},
    {"inside functions", inside_functions},
    {"sizes", sizes},
    {"sizes only", sizes_only},
    {"bad feeds", bad_feeds},
    {"only what is needed", only_what_is_needed},
    {"feeds among others", feeds_among_others},
    {"programs are kept", programs_are_kept},
    {"random draws anew", random_draws_anew},
    {"assignments", assignments},
    {"training", training},
    {"names", names},
    {"as text", as_text},
    {"threads", threads},
    {"errors on the way", errors_on_the_way},
};
TEST_MAIN("graph.session", cases)
