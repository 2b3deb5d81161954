/* Random numbers from the RNG primitive (Philox4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
   SC 2011). Attributes of a call: shape (rank, sizes), key, counter, then the op's own. The process's generator hands
   out counters in program order; a call that draws n elements advances it by ceil(n / 4). */
#include "device/device.h"
#include "dispatch/dispatch.h"
#include "ops/random.h"
#include "ops/table.h"
#include "tensor/dtype.h"
#include <math.h>
#include <tern/ops.h>

static struct {
  pthread_mutex_t lock;
  uint64_t seed, counter;
} generator = {.lock = PTHREAD_MUTEX_INITIALIZER};
static _Thread_local tern__random_state *own_state __attribute__((tls_model("initial-exec"))); /* tern__random_own */

tern__random_state *tern__random_own(tern__random_state *own) {
  tern__random_state *before = own_state;
  own_state = own;
  return before;
}

void tern_set_seed(uint64_t seed) {
  pthread_mutex_lock(&generator.lock);
  generator.seed = seed;
  generator.counter = 0;
  pthread_mutex_unlock(&generator.lock);
}

tern__random_state tern__random_get(void) {
  if (own_state) return *own_state;
  pthread_mutex_lock(&generator.lock);
  const tern__random_state state = {generator.seed, generator.counter};
  pthread_mutex_unlock(&generator.lock);
  return state;
}

void tern__random_set(tern__random_state state) {
  if (own_state) {
    *own_state = state;
    return;
  }
  pthread_mutex_lock(&generator.lock);
  generator.seed = state.seed;
  generator.counter = state.counter;
  pthread_mutex_unlock(&generator.lock);
}

enum { KEY, COUNTER, DTYPE, A, B, N_WORDS }; /* behind the shape */

/* The key and counter for that many elements: the next ones of the process's generator, or the thread's own. */
static tern_rc next_draw(void *self, int64_t elements, tern_word *out, int n_out) {
  (void)self;
  (void)n_out;
  if (own_state) {
    out[0].u = own_state->seed;
    out[1].u = own_state->counter;
    own_state->counter += ((uint64_t)elements + 3) / 4;
    return TERN_OK;
  }
  pthread_mutex_lock(&generator.lock);
  out[0].u = generator.seed;
  out[1].u = generator.counter;
  generator.counter += ((uint64_t)elements + 3) / 4;
  pthread_mutex_unlock(&generator.lock);
  return TERN_OK;
}

uint64_t tern__random_seed(void) {
  tern_word drawn[2];
  next_draw(NULL, 1, drawn, 2);
  uint64_t z = drawn[0].u * UINT64_C(0x9e3779b97f4a7c15) + drawn[1].u; /* splitmix64's finaliser */
  z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
  z ^= z >> 31;
  return z ? z : 1;
}

typedef struct traced_draw {
  const tern__op *op;
  const tern_word *attr;
  int n_attr;
  int64_t elements;
} traced_draw;

static tern_tensor *draw_in_graph(void *self) {
  const traced_draw *d = self;
  tern_tensor *in[2];
  if (tern__graph_listener.source(tern__tls, "random", next_draw, NULL, TERN_U64, d->elements, in, 2)) return NULL;
  return tern__run(d->op, in, 2, d->attr, d->n_attr);
}

static tern_tensor *draw(const tern__op *op, tern_shape shape, tern_dtype dtype, const tern_random_opts *opts,
                         tern_word a, tern_word b) {
  if (!tern__shape_ok(op->name, shape, dtype)) return NULL;
  tern_word w[TERN_MAX_RANK + 1 + N_WORDS];
  w[0].i = shape.rank;
  for (int d = 0; d < shape.rank; d++) w[d + 1].i = shape.dim[d];
  tern_word *own = w + shape.rank + 1;
  own[DTYPE].i = dtype;
  own[A] = a;
  own[B] = b;
  if (opts && opts->seed) {
    own[KEY].u = opts->seed;
    own[COUNTER].u = 0;
  } else if (tern__tracing_ops()) { /* each run of the graph draws anew */
    own[KEY].u = own[COUNTER].u = 0;
    traced_draw d = {op, w, shape.rank + 1 + N_WORDS, tern__numel(shape.rank, shape.dim)};
    return tern__graph_listener.draw(tern__tls, draw_in_graph, &d);
  } else {
    tern_word state[2];
    next_draw(NULL, tern__numel(shape.rank, shape.dim), state, 2);
    own[KEY] = state[0];
    own[COUNTER] = state[1];
  }
  return tern__run(op, NULL, 0, w, shape.rank + 1 + N_WORDS);
}

/* Operands: key, counter, and two PARAMs of dtype `param`. */
static const tern_word *infer_space(const tern__call *c, tern__request *q, tern__result *r, tern_dtype out,
                                    tern_dtype param) {
  q->n_space = q->n_sizes = (uint8_t)c->attr[0].i;
  for (int d = 0; d < q->n_space; d++) {
    q->size[d] = c->attr[d + 1].i;
    q->role[d] = TERN__ROLE_MAP;
  }
  const tern_word *own = c->attr + q->n_space + 1;
  q->n_in = 4;
  q->dtype = (uint8_t)param;
  for (int i = 0; i < 2; i++) {
    if (c->n_in)
      tern__operand_of(q, i, c->in[i], TERN_U64);
    else
      tern__operand_param(q, i, TERN_U64, own[i == 0 ? KEY : COUNTER]);
  }
  tern__operand_param(q, 2, param, own[A]);
  tern__operand_param(q, 3, param, own[B]);
  tern__result_space(q, r, out);
  tern__operand_out(q, 0, out, 0);
  return own;
}

static tern_dtype asked(const tern__call *c) { return (tern_dtype)c->attr[c->attr[0].i + 1 + DTYPE].i; }
static tern_dtype wide(tern_dtype d) { return d == TERN_F64 ? TERN_F64 : TERN_F32; }

static tern_rc infer_float(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_dtype d = asked(c), w = wide(d);
  infer_space(c, q, r, d, w);
  for (int i = 2; i < 4; i++) q->arg[i].value = tern__convert(q->arg[i].value, TERN_F64, w);
  return TERN_OK;
}

static int bits(tern__builder *b, uint32_t stream) {
  return tern__b_rng(b, tern__b_in(b, 0), tern__b_in(b, 1), stream);
}
static int shift(tern__builder *b, int x, int by) {
  return tern__b_map2(b, TERN_OP_SHR, x, tern__b_const_int(b, tern__b_dtype(b, x), by));
}
static int scaled(tern__builder *b, int x, double by) {
  return tern__b_map2(b, TERN_OP_MUL, x, tern__b_const(b, tern__b_dtype(b, x), by));
}

/* Multiples of 2^-n in [0, 1) with as many bits as the output dtype has: 24, 53, 11 or 8. */
static int unit(tern__builder *b, tern_dtype out, uint32_t stream) {
  if (out == TERN_F64) {
    const int high = scaled(b, tern__b_cast(b, shift(b, bits(b, stream), 5), TERN_F64), 67108864.0);
    const int low = tern__b_cast(b, shift(b, bits(b, stream + 1), 6), TERN_F64);
    return scaled(b, tern__b_map2(b, TERN_OP_ADD, high, low), 0x1p-53);
  }
  const int keep = out == TERN_F16 ? 11 : out == TERN_BF16 ? 8 : 24;
  return scaled(b, tern__b_cast(b, shift(b, bits(b, stream), 32 - keep), TERN_F32), ldexp(1, -keep));
}

/* The largest number of dtype d below high (which need not be one). */
static double below(tern_dtype d, double high) {
  double x = high, step = fabs(high) * 0x1p-60 + 0x1p-1074;
  for (;;) {
    const double rounded = tern__convert((tern_word){.f = x}, TERN_F64, d).f;
    if (rounded < high) return rounded;
    x = high - step;
    step *= 2;
  }
}

/* As infer_float, with the largest result as a third PARAM. */
static tern_rc infer_uniform(const tern__call *c, tern__request *q, tern__result *r) {
  infer_float(c, q, r);
  q->arg[5] = q->arg[4];
  q->n_in = 5;
  tern__operand_param(q, 4, wide(r->dtype), (tern_word){.f = below(r->dtype, c->attr[c->attr[0].i + 1 + B].f)});
  return TERN_OK;
}

/* low + u * (high - low), kept below high */
static void lower_uniform(tern__builder *b) {
  const tern__request *q = tern__b_request(b);
  const int low = tern__b_in(b, 2), high = tern__b_in(b, 3);
  const int x = tern__b_map2(b, TERN_OP_MUL, unit(b, (tern_dtype)q->arg[q->n_in].dtype, 0),
                             tern__b_map2(b, TERN_OP_SUB, high, low));
  tern__b_out(b, 0, tern__b_map2(b, TERN_OP_MINIMUM, tern__b_map2(b, TERN_OP_ADD, x, low), tern__b_in(b, 4)));
}

/* Box and Muller (1958): sqrt(-2 log(1 - u)) cos(2 pi v) */
static void lower_normal(tern__builder *b) {
  const tern_dtype d = (tern_dtype)tern__b_request(b)->dtype;
  const int u = tern__b_map2(b, TERN_OP_SUB, tern__b_const(b, d, 1), unit(b, d, 0)), v = unit(b, d, 2);
  const int radius = tern__b_map1(b, TERN_OP_SQRT, scaled(b, tern__b_map1(b, TERN_OP_LOG, u), -2));
  const int z = tern__b_map2(b, TERN_OP_MUL, radius, tern__b_map1(b, TERN_OP_COSPI, scaled(b, v, 2)));
  tern__b_out(b, 0, tern__b_map2(b, TERN_OP_ADD, tern__b_in(b, 2), tern__b_map2(b, TERN_OP_MUL, z, tern__b_in(b, 3))));
}

static tern_rc infer_integers(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_word *own = infer_space(c, q, r, asked(c), TERN_U64);
  q->n_attrs = 1; /* 1: the range has more than 32 bits */
  q->attr[0].u = own[B].u > UINT64_C(1) << 32;
  return TERN_OK;
}

/* 64 random bits as U64. */
static int bits64(tern__builder *b) {
  const int high = tern__b_cast(b, bits(b, 0), TERN_U64), low = tern__b_cast(b, bits(b, 1), TERN_U64);
  return tern__b_map2(b, TERN_OP_OR, tern__b_map2(b, TERN_OP_SHL, high, tern__b_const_int(b, TERN_U64, 32)), low);
}

/* low + floor(bits / 2^64 * range) by parts for ranges to 2^32, else the remainder */
static void lower_integers(tern__builder *b) {
  const int low = tern__b_in(b, 2), range = tern__b_in(b, 3);
  int x;
  if (tern__b_request(b)->attr[0].u) {
    x = tern__b_map2(b, TERN_OP_MOD, bits64(b), range);
  } else {
    const int high = tern__b_map2(b, TERN_OP_MUL, tern__b_cast(b, bits(b, 0), TERN_U64), range);
    const int carry = shift(b, tern__b_map2(b, TERN_OP_MUL, tern__b_cast(b, bits(b, 1), TERN_U64), range), 32);
    x = shift(b, tern__b_map2(b, TERN_OP_ADD, high, carry), 32);
  }
  tern__b_out(b, 0, tern__b_cast(b, tern__b_map2(b, TERN_OP_ADD, x, low), TERN_I64));
}

static tern_rc infer_bernoulli(const tern__call *c, tern__request *q, tern__result *r) {
  infer_space(c, q, r, asked(c), TERN_F32);
  return TERN_OK;
}

static void lower_bernoulli(tern__builder *b) {
  tern__b_out(b, 0, tern__b_map2(b, TERN_OP_LT, unit(b, TERN_F32, 0), tern__b_in(b, 2)));
}

static tern_rc infer_bits(const tern__call *c, tern__request *q, tern__result *r) {
  infer_space(c, q, r, TERN_U64, TERN_U64);
  return TERN_OK;
}

static void lower_bits(tern__builder *b) { tern__b_out(b, 0, bits64(b)); }

static tern_tensor *sample_random_uniform(const tern__sample *s) {
  const tern_random_opts opts = {.dtype = s->d, .seed = 1};
  return tern_random_uniform((tern_shape){2, {2, 3}}, &opts);
}

static tern_tensor *sample_random_normal(const tern__sample *s) {
  const tern_random_opts opts = {.dtype = s->d, .seed = 1};
  return tern_random_normal((tern_shape){2, {2, 3}}, &opts);
}

static tern_tensor *sample_random_integers(const tern__sample *s) {
  const tern_random_opts opts = {.dtype = s->d, .seed = 1};
  return tern_random_integers((tern_shape){2, {2, 3}}, 0, 4, &opts);
}

static tern_tensor *sample_random_bernoulli(const tern__sample *s) {
  const tern_random_opts opts = {.dtype = s->d, .seed = 1};
  return tern_random_bernoulli((tern_shape){2, {2, 3}}, 0.5, &opts);
}

static tern_tensor *sample_random_bits(const tern__sample *s) {
  const tern_random_opts opts = {.dtype = s->d, .seed = 1};
  return tern_random_permutation(4, &opts);
}

#define RANDOM(id, args, types, inference, lowering, tolerance, text) \
  const tern__op tern__op_##id = {.name = #id,                        \
                                  .family = "random",                 \
                                  .draws = 1,                         \
                                  .operands = args,                   \
                                  .doc = text,                        \
                                  .number = TERN__N_##id,             \
                                  .sample = sample_##id,              \
                                  .dtypes = TERN_D_##types,           \
                                  .infer = inference,                 \
                                  .lower = lowering,                  \
                                  .absolute = tolerance,              \
                                  .relative = tolerance,              \
                                  .ulp = (tolerance) / 1.2e-7};
RANDOM(random_uniform, "shape", FLOAT, infer_uniform, lower_uniform, 0, "uniform in [low, high)")
RANDOM(random_normal, "shape", FLOAT, infer_float, lower_normal, 4.8e-7, "normal")
RANDOM(random_integers, "shape, low, high", INT, infer_integers, lower_integers, 0, "integers in [low, high)")
RANDOM(random_bernoulli, "shape, p", ANY, infer_bernoulli, lower_bernoulli, 0, "true with probability p")
RANDOM(random_bits, "shape", INT, infer_bits, lower_bits, 0, "64 random bits (behind random_permutation)")

static bool float_dtype(const char *op, tern_dtype d) {
  if (tern__is_float(d)) return true;
  tern__fail(TERN_E_ARG, "%s: dtype %s is not a float", op, tern_dtype_name(d));
  return false;
}

tern_tensor *tern_random_uniform(tern_shape shape, const tern_random_opts *opts) {
  const tern_dtype d = opts && opts->dtype ? opts->dtype : TERN_F32;
  const double low = opts ? opts->low : 0, high = opts && (opts->low != 0 || opts->high != 0) ? opts->high : 1;
  if (!float_dtype("random_uniform", d)) return NULL;
  if (!(low < high) || !isfinite(low) || !isfinite(high)) {
    tern__fail(TERN_E_ARG, "random_uniform: low %g must be below high %g, both finite", low, high);
    return NULL;
  }
  return draw(&tern__op_random_uniform, shape, d, opts, (tern_word){.f = low}, (tern_word){.f = high});
}

tern_tensor *tern_random_normal(tern_shape shape, const tern_random_opts *opts) {
  const tern_dtype d = opts && opts->dtype ? opts->dtype : TERN_F32;
  const double deviation = opts && (opts->stddev != 0 || signbit(opts->stddev)) ? opts->stddev : 1;
  if (!float_dtype("random_normal", d)) return NULL;
  if (!(deviation >= 0)) {
    tern__fail(TERN_E_ARG, "random_normal: stddev %g must not be negative", deviation);
    return NULL;
  }
  return draw(&tern__op_random_normal, shape, d, opts, (tern_word){.f = opts ? opts->mean : 0},
              (tern_word){.f = deviation});
}

tern_tensor *tern_random_integers(tern_shape shape, int64_t low, int64_t high, const tern_random_opts *opts) {
  const tern_dtype d = opts && opts->dtype ? opts->dtype : TERN_I64;
  if (low >= high || !tern__is_int(d)) {
    tern__fail(TERN_E_ARG, "random_integers: low %lld must be below high %lld, and dtype %s an integer", (long long)low,
               (long long)high, tern_dtype_name(d));
    return NULL;
  }
  return draw(&tern__op_random_integers, shape, d, opts, (tern_word){.i = low},
              (tern_word){.u = (uint64_t)high - (uint64_t)low});
}

tern_tensor *tern_random_permutation(int64_t n, const tern_random_opts *opts) {
  const tern_shape shape = {1, {n}};
  return tern_argsort(draw(&tern__op_random_bits, shape, TERN_U64, opts, (tern_word){.u = 0}, (tern_word){.u = 0}), 0,
                      NULL);
}

tern_tensor *tern_random_bernoulli(tern_shape shape, double p, const tern_random_opts *opts) {
  if (!(p >= 0 && p <= 1)) {
    tern__fail(TERN_E_ARG, "random_bernoulli: p is %g; a probability lies in [0, 1]", p);
    return NULL;
  }
  const tern_word word = {.f = (double)(float)p};
  return draw(&tern__op_random_bernoulli, shape, opts && opts->dtype ? opts->dtype : TERN_BOOL, opts, word, word);
}
