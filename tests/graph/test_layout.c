/* Packed arrays: functions of dense layers and convolutions whose weights are constants, against the same ops run
   eagerly; constants are packed once, whoever uses them, and replays launch nothing else. On devices that ask for no
   layout the same must hold. */
#include "support/values.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <tern/graph.h>
#include <tern/tern.h>
#include <tern/train.h>

enum { MOST = 12 };

/* A network: layers in turn, drawn at random. */
typedef struct net {
  int n, kind[MOST], stride[MOST];
  tern_layout layout;
  bool variables;
  tern_tensor *w[MOST], *b[MOST];
} net;
enum { DENSE, CONV, RESIDUAL, POOL, MAPS, N_KINDS };

static tern_tensor *uniform(uint64_t *state, tern_shape shape, double scale) {
  const size_t n = (size_t)test_numel(shape);
  float *data = malloc(n * sizeof *data);
  for (size_t i = 0; i < n; i++) data[i] = (float)(test_uniform(state, -1, 1) * scale);
  tern_tensor *t = tern_keep(tern_constant(shape, TERN_F32, data, n));
  free(data);
  return t;
}

static tern_tensor *layer(const net *m, int i, tern_tensor *x) {
  const tern_conv_opts conv = {.layout = m->layout, .padding = TERN_PAD_SAME, .strides = {m->stride[i], m->stride[i]}};
  const tern_pool_opts pool = {.layout = m->layout};
  switch (m->kind[i]) {
  case DENSE: return tern_relu(tern_add(tern_matmul(x, m->w[i]), m->b[i]));
  case CONV: return tern_relu(tern_add(tern_conv(x, m->w[i], &conv), m->b[i]));
  case RESIDUAL: return tern_relu(tern_add(x, tern_add(tern_conv(x, m->w[i], &conv), m->b[i])));
  case POOL: return tern_max_pool(x, &pool);
  default: return tern_mul(tern_tanh(x), tern_scalar(1.5));
  }
}

static tern_rc forward(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const net *m = self;
  (void)n_in, (void)n_out;
  tern_tensor *x = in[0];
  for (int i = 0; i < m->n && x; i++) x = layer(m, i, x);
  out[0] = x;
  return tern_error_code();
}

static tern_tensor *held(const net *m, tern_tensor *t) {
  if (!m->variables) return t;
  tern_tensor *v = tern_variable(t, NULL);
  tern_release(t);
  return v;
}

static void net_conv(net *m, uint64_t *state, int i, int64_t from, int64_t to) {
  const bool first = m->layout == TERN_NCHW;
  m->w[i] = held(m, uniform(state, first ? TERN_SHAPE(to, from, 3, 3) : TERN_SHAPE(3, 3, from, to),
                            sqrt(1.0 / (double)(9 * from))));
  m->b[i] = held(m, uniform(state, first ? TERN_SHAPE(to, 1, 1) : TERN_SHAPE(to), 0.5));
}

static void net_free(net *m) {
  for (int i = 0; i < m->n; i++) {
    if (m->w[i]) tern_release(m->w[i]);
    if (m->b[i]) tern_release(m->b[i]);
  }
}

static bool close_to(tern_tensor *got, tern_tensor *expected, const char *what) {
  const int64_t n = tern_size(expected);
  double *a = got ? test_values(got) : NULL, *b = expected ? test_values(expected) : NULL, most = 0, worst = 0;
  bool same = a && b && tern_size(got) == n;
  for (int64_t i = 0; i < n && same; i++) most = fabs(b[i]) > most ? fabs(b[i]) : most;
  for (int64_t i = 0; i < n && same; i++) worst = fabs(a[i] - b[i]) > worst ? fabs(a[i] - b[i]) : worst;
  same = same && worst <= 2e-5 * (most + 1e-3);
  CHECK(same, "%s: differs by %g of %g", what, worst, most);
  free(a);
  free(b);
  return same;
}

static uint64_t launches(void) {
  tern_counters c = {0};
  tern_counters_get(NULL, &c);
  return c.launches;
}

/* Eager and compiled agree, and replays launch the same number of kernels. Returns that number, and in *first what the
   first call took. */
static uint64_t compare(net *m, tern_tensor *x, const char *what, uint64_t *first) {
  TERN_SCOPE;
  tern_tensor *expected = NULL;
  CHECK(!forward(m, &x, 1, &expected, 1), "%s: %s", what, tern_error());
  tern_function *f = tern_function_new(forward, m, 1, 1, NULL);
  uint64_t count[3] = {0};
  for (int call = 0; call < 3; call++) {
    const uint64_t before = launches();
    tern_tensor *y = tern_call(f, x);
    count[call] = launches() - before;
    if (!close_to(y, expected, what)) {
      char *why = tern_explain(f);
      printf("%s\n%s\n", what, why ? why : "");
      free(why);
      break;
    }
  }
  CHECK(count[1] == count[2], "%s: %llu launches, then %llu", what, (unsigned long long)count[1],
        (unsigned long long)count[2]);
  CHECK_NO_ERROR();
  if (first) *first = count[0];
  tern_function_release(f);
  return count[1];
}

/* ---- cases ---- */

static net dense_net(uint64_t *state, bool variables) {
  static const int64_t size[] = {320, 256, 256, 96};
  net m = {.n = 3, .variables = variables};
  for (int i = 0; i < m.n; i++) {
    m.kind[i] = DENSE;
    m.w[i] = held(&m, uniform(state, TERN_SHAPE(size[i], size[i + 1]), sqrt(1.0 / (double)size[i])));
    m.b[i] = held(&m, uniform(state, TERN_SHAPE(size[i + 1]), 0.5));
  }
  return m;
}

static void dense_layers(void) {
  uint64_t state = 1;
  for (int variables = 0; variables < 2; variables++) {
    net m = dense_net(&state, variables);
    for (int64_t rows = 1; rows <= 100; rows = rows * 3 + 1) {
      tern_tensor *x = uniform(&state, TERN_SHAPE(rows, 320), 1);
      const uint64_t n = compare(&m, x, variables ? "dense layers of variables" : "dense layers", NULL);
      CHECK(n <= 6, "dense layers: %llu launches", (unsigned long long)n);
      tern_release(x);
    }
    net_free(&m);
  }
}

/* Transposed weights, a part of a larger constant, and one constant seen in two ways. */
static tern_rc views(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const net *m = self;
  (void)n_in, (void)n_out;
  tern_tensor *w = tern_slice(m->w[0], (const tern_range[]){{64, 320, 1}, TERN_ALL}, 2);
  tern_tensor *y = tern_matmul(tern_matmul(in[0], w), tern_transpose(w));
  out[0] = tern_add(tern_matmul(y, tern_transpose(w)), tern_scalar(1));
  return tern_error_code();
}

static void views_of_constants(void) {
  TERN_SCOPE;
  uint64_t state = 2;
  net m = dense_net(&state, false);
  tern_tensor *x = uniform(&state, TERN_SHAPE(40, 256), 1), *expected = NULL;
  CHECK(!views(&m, &x, 1, &expected, 1), "%s", tern_error());
  tern_function *f = tern_function_new(views, &m, 1, 1, NULL);
  for (int call = 0; call < 2; call++) close_to(tern_call(f, x), expected, "views of constants");
  CHECK_NO_ERROR();
  tern_function_release(f);
  tern_release(x);
  net_free(&m);
}

/* While one program of a constant lives, another packs nothing; and when all are gone it is packed anew. */
static void packed_once(void) {
  uint64_t state = 3, first = 0, second = 0;
  net m = dense_net(&state, false);
  TERN_SCOPE;
  tern_tensor *x = uniform(&state, TERN_SHAPE(64, 320), 1);
  tern_function *f = tern_function_new(forward, &m, 1, 1, NULL);
  CHECK(tern_call(f, x) != NULL, "%s", tern_error());
  char *why = tern_explain(f);
  const bool packs = why && strstr(why, "packed");
  free(why);
  const uint64_t n = compare(&m, x, "shared", &second);
  CHECK(second == n, "a second function of the same constants: %llu launches, then %llu", (unsigned long long)second,
        (unsigned long long)n);
  tern_function_release(f);
  compare(&m, x, "alone", &first);
  CHECK(!packs || first == n + 3, "alone: %llu launches, then %llu", (unsigned long long)first, (unsigned long long)n);
  tern_release(x);
  net_free(&m);
}

/* The packed constant belongs to the program: the tensor it came from may go. */
static void constants_outlive(void) {
  uint64_t state = 4;
  TERN_SCOPE;
  net m = dense_net(&state, false);
  tern_tensor *x = uniform(&state, TERN_SHAPE(16, 320), 1), *expected = NULL;
  CHECK(!forward(&m, &x, 1, &expected, 1), "%s", tern_error());
  tern_function *f = tern_function_new(forward, &m, 1, 1, NULL);
  close_to(tern_call(f, x), expected, "with its tensors");
  net_free(&m);
  tern_tensor *others[8];
  for (int i = 0; i < 8; i++) others[i] = uniform(&state, TERN_SHAPE(256, 256), 3);
  close_to(tern_call(f, x), expected, "without its tensors");
  for (int i = 0; i < 8; i++) tern_release(others[i]);
  tern_function_release(f);
  tern_release(x);
}

static void random_nets(void) {
  uint64_t state = 5;
  for (int round = 0; round < 40; round++) {
    net m = {.layout = test_below(&state, 2) ? TERN_NCHW : TERN_NHWC, .variables = test_below(&state, 5) == 0};
    int64_t channels = test_below(&state, 3) ? 16 : 1 + test_below(&state, 20), size = 8 + test_below(&state, 10);
    const int64_t batch = 1 + test_below(&state, 4), begin = channels;
    tern_tensor *x = uniform(
        &state, m.layout == TERN_NCHW ? TERN_SHAPE(batch, begin, size, size) : TERN_SHAPE(batch, size, size, begin), 1);
    m.n = 2 + (int)test_below(&state, MOST - 2);
    char what[200];
    int at = snprintf(what, sizeof what, "round %d, %s, [%lld] %lld of %lld:", round,
                      m.layout == TERN_NCHW ? "NCHW" : "NHWC", (long long)batch, (long long)begin, (long long)size);
    for (int i = 0; i < m.n; i++) {
      m.kind[i] = CONV + (int)test_below(&state, N_KINDS - CONV);
      if (m.kind[i] == POOL && size < 4) m.kind[i] = CONV;
      m.stride[i] = m.kind[i] == CONV && size > 6 && test_below(&state, 4) == 0 ? 2 : 1;
      const int64_t to = m.kind[i] == RESIDUAL ? channels : test_below(&state, 4) ? 32 : 1 + test_below(&state, 40);
      if (m.kind[i] == CONV || m.kind[i] == RESIDUAL) net_conv(&m, &state, i, channels, to);
      if (m.kind[i] == CONV) channels = to;
      size = m.kind[i] == POOL ? size / 2 : m.stride[i] == 2 ? (size + 1) / 2 : size;
      at += snprintf(what + at, sizeof what - (size_t)at, " %d/%lld", m.kind[i], (long long)channels);
    }
    compare(&m, x, what, NULL);
    tern_release(x);
    net_free(&m);
  }
}

/* max_pool(relu(x + b)): the same values whatever is in x and b, infinities and NaN too. */
static tern_rc pooled(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const net *m = self;
  (void)n_in, (void)n_out;
  const tern_pool_opts pool = {.layout = m->layout, .window = {3, 2}, .strides = {2, 1}};
  out[0] = tern_max_pool(tern_relu(tern_add(in[0], m->b[0])), &pool);
  return tern_error_code();
}

static void pooled_maps(void) {
  static const float odd[] = {NAN, INFINITY, -INFINITY, 0.0f, -0.0f, 3e38f, -3e38f, 1e-42f};
  uint64_t state = 6;
  for (int round = 0; round < 24; round++) {
    TERN_SCOPE;
    net m = {.n = 1, .layout = round & 1 ? TERN_NCHW : TERN_NHWC};
    const int64_t channels = 1 + test_below(&state, 40), size = round < 20 ? 9 : 40;
    const tern_shape shape =
        m.layout == TERN_NCHW ? TERN_SHAPE(3, channels, size, size) : TERN_SHAPE(3, size, size, channels);
    const size_t n = (size_t)test_numel(shape);
    float *data = malloc(n * sizeof *data), bias[40];
    for (size_t i = 0; i < n; i++)
      data[i] = test_below(&state, 6) ? (float)test_uniform(&state, -2, 2) : odd[test_below(&state, 8)];
    for (int i = 0; i < 40; i++)
      bias[i] = round % 3 || test_below(&state, 4) ? (float)test_uniform(&state, -2, 2) : odd[test_below(&state, 8)];
    tern_tensor *x = tern_constant(shape, TERN_F32, data, n), *expected = NULL;
    m.b[0] = tern_keep(tern_constant(m.layout == TERN_NCHW ? TERN_SHAPE(channels, 1, 1) : TERN_SHAPE(channels),
                                     TERN_F32, bias, (size_t)channels));
    CHECK(!pooled(&m, &x, 1, &expected, 1), "%s", tern_error());
    tern_function *f = tern_function_new(pooled, &m, 1, 1, NULL);
    tern_tensor *got = tern_call(f, x);
    double *a = test_values(got), *b = test_values(expected);
    int64_t wrong = -1;
    for (int64_t i = 0; a && b && i < tern_size(expected) && wrong < 0; i++)
      if (a[i] != b[i] && !(isnan(a[i]) && isnan(b[i]))) wrong = i;
    CHECK(a && b && wrong < 0, "round %d: element %lld is %g, not %g", round, (long long)wrong,
          wrong < 0 ? 0 : a[wrong], wrong < 0 ? 0 : b[wrong]);
    CHECK_NO_ERROR();
    free(a);
    free(b);
    free(data);
    tern_function_release(f);
    net_free(&m);
  }
}

int main(int argc, char **argv) {
  static const test_case cases[] = {{"dense_layers", dense_layers}, {"views_of_constants", views_of_constants},
                                    {"packed_once", packed_once},   {"constants_outlive", constants_outlive},
                                    {"random_nets", random_nets},   {"pooled_maps", pooled_maps}};
  const int failed = test_main(argc, argv, "layout", cases, (int)(sizeof cases / sizeof *cases));
  return tern_finish() || failed;
}
