/* Attention, dropout, embedding. Attention is two matrix products round one region: scale, masks and softmax of the
   scores. */
#include "device/device.h"
#include "dispatch/dispatch.h"
#include "ops/composite.h"
#include "ops/nn_grad.h"
#include <math.h>
#include <stdio.h>
#include <tern/ops.h>

static bool wants(const tern__grad *g, int i) { return g->wanted >> i & 1; }

static bool floats_only(const char *op, const char *what, const tern_tensor *t) {
  if (tern__is_float((tern_dtype)t->dtype)) return true;
  tern__fail(TERN_E_ARG, "%s: %s is %s; it must be a float tensor: tern_cast it", op, what,
             tern_dtype_name((tern_dtype)t->dtype));
  return false;
}

/* ---- attention weights: softmax(scores * scale + mask) along the last axis; attributes: axis (the last), scale,
   causal ---- */

enum { AXIS, SCALE, CAUSAL, N_ATTRS };
enum { IS_CAUSAL = 1, FLOAT_MASK = 2, BOOL_MASK = 4 };

static tern_rc infer_weights(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_dtype d = tern__float_of(tern__meet(c, 0, 1));
  const tern_rc rc = tern__space(c, q);
  if (rc) return rc;
  const bool mask = c->in[1] != TERN_NONE, booleans = mask && c->in[1]->dtype == TERN_BOOL;
  q->role[q->n_space - 1] = TERN__ROLE_REDUCED;
  if (c->attr[CAUSAL].u) q->role[q->n_space - 2] = TERN__ROLE_FIXED; /* its index is needed */
  q->dtype = (uint8_t)d;
  q->n_attrs = 1;
  q->attr[0].u = (c->attr[CAUSAL].u ? IS_CAUSAL : 0) | (booleans ? BOOL_MASK : mask ? FLOAT_MASK : 0);
  tern__c_operand(q, 0, c->in[0], d);
  tern__c_param(q, 1, tern__wide(d), c->attr[SCALE].f);
  if (mask) tern__c_operand(q, 2, c->in[1], booleans ? TERN_BOOL : d);
  q->n_in = mask ? 3 : 2;
  tern__result_space(q, r, d);
  tern__operand_out(q, 0, d, 0);
  return TERN_OK;
}

static void lower_weights(tern__builder *b) {
  const tern__request *q = tern__b_request(b);
  const uint64_t form = q->attr[0].u;
  int x = tern__c_mul(b, tern__c_in(b, 0), tern__b_in(b, 1));
  const int never = tern__c_const(b, x, -INFINITY);
  if (form & FLOAT_MASK) x = tern__c_add(b, x, tern__c_in(b, 2));
  if (form & BOOL_MASK) x = tern__b_where(b, tern__b_in(b, 2), x, never);
  if (form & IS_CAUSAL) {
    const int row = tern__b_iota(b, q->n_space - 2, TERN_I32), key = tern__b_iota(b, q->n_space - 1, TERN_I32);
    x = tern__b_where(b, tern__b_map2(b, TERN_OP_GE, row, key), x, never);
  }
  if (!(form & (FLOAT_MASK | BOOL_MASK))) { /* every row sees something */
    const int e = tern__c_exp(b, tern__c_sub(b, x, tern__c_max(b, x)));
    tern__b_out(b, 0, tern__c_div(b, e, tern__c_sum(b, e)));
    return;
  }
  /* a row that may see nothing has weights 0: neither -inf - -inf nor 0 / 0 */
  const int top = tern__c_max(b, x), zero = tern__c_const(b, x, 0);
  const int shift = tern__b_where(b, tern__b_map2(b, TERN_OP_EQ, top, never), zero, top);
  const int e = tern__c_exp(b, tern__c_sub(b, x, shift)), sum = tern__c_sum(b, e);
  const int divisor = tern__b_where(b, tern__b_map2(b, TERN_OP_EQ, sum, zero), tern__c_const(b, x, 1), sum);
  tern__b_out(b, 0, tern__c_div(b, e, divisor));
}

/* Where a mask hides a key its weight is 0, and so is the gradient. */
static void grad_weights(const tern__grad *g, tern_tensor **din) {
  tern_tensor *back = tern__softmax_grad(g->out[0], g->dout[0], (int)g->attr[AXIS].i);
  if (wants(g, 0)) din[0] = tern_mul(back, tern_scalar(g->attr[SCALE].f));
  if (wants(g, 1) && g->in[1] != TERN_NONE && g->in[1]->dtype != TERN_BOOL) din[1] = back;
}

static tern_tensor *sample_weights(const tern__sample *s) {
  tern_tensor *const in[] = {s->x, TERN_NONE};
  const tern_word attr[N_ATTRS] = {{.i = 1}, {.f = 1}, {.u = 0}};
  return tern__run(s->op, in, 2, attr, N_ATTRS);
}

const tern__op tern__op_attention_weights = {.name = "attention_weights",
                                             .family = "attention",
                                             .operands = "scores, mask?",
                                             .optional = 2,
                                             .doc =
                                                 "softmax(scores * scale + mask) (behind scaled_dot_product_attention)",
                                             .number = TERN__N_attention_weights,
                                             .sample = sample_weights,
                                             .dtypes = TERN_D_FLOAT,
                                             .infer = infer_weights,
                                             .lower = lower_weights,
                                             .grad = grad_weights,
                                             .keeps = TERN__KEEP_OUT,
                                             .absolute = 2e-6,
                                             .relative = 2e-6,
                                             .ulp = 2e-6 / 1.2e-7};

static tern_tensor *sample_attention(const tern__sample *s) {
  return tern_scaled_dot_product_attention(s->x, s->y, s->y, NULL);
}

static tern_tensor *sample_embedding(const tern__sample *s) {
  return tern_embedding(s->x, tern_zeros((tern_shape){1, {2}}, TERN_I64));
}

/* For the table: no inference or lowering of their own, since each is made of other ops. */
const tern__op tern__op_scaled_dot_product_attention = {.name = "scaled_dot_product_attention",
                                                        .family = "attention",
                                                        .operands = "q, k, v, mask?",
                                                        .doc = "softmax(q k^T scale + mask) v",
                                                        .number = TERN__N_scaled_dot_product_attention,
                                                        .sample = sample_attention,
                                                        .dtypes = TERN_D_FLOAT,
                                                        .absolute = 1e-5,
                                                        .relative = 1e-5,
                                                        .ulp = 1e-5 / 1.2e-7};
const tern__op tern__op_embedding = {.name = "embedding",
                                     .family = "attention",
                                     .operands = "table, ids",
                                     .doc = "rows of table at the integer ids",
                                     .number = TERN__N_embedding,
                                     .sample = sample_embedding,
                                     .dtypes = TERN_D_ANY};

static bool attention_operands(const char *op, tern_tensor *q, tern_tensor *k, tern_tensor *v) {
  if (!tern__usable(q, op, 1) || !tern__usable(k, op, 2) || !tern__usable(v, op, 3)) return false;
  if (!floats_only(op, "q", q) || !floats_only(op, "k", k) || !floats_only(op, "v", v)) return false;
  char a[200], b[200], c[200];
  if (q->rank >= 2 && k->rank >= 2 && v->rank >= 2 && q->shape[q->rank - 1] == k->shape[k->rank - 1] &&
      k->shape[k->rank - 2] == v->shape[v->rank - 2])
    return true;
  tern__fail(TERN_E_ARG,
             "%s: q of shape %s, k of %s and v of %s do not fit; they must be [.., L, E], [.., S, E] and [.., S, V] "
             "with the same E and S",
             op, tern__shape_text(a, q->rank, q->shape), tern__shape_text(b, k->rank, k->shape),
             tern__shape_text(c, v->rank, v->shape));
  return false;
}

/* Whether the mask is bool or float and broadcasts to the scores. */
static bool mask_fits(const char *op, tern_tensor *mask, const tern_tensor *scores) {
  if (!tern__usable(mask, op, 4)) return false;
  if (mask->dtype != TERN_BOOL && !floats_only(op, "the mask (true = take part, or numbers to be added)", mask))
    return false;
  bool fits = mask->rank <= scores->rank;
  for (int d = 1; d <= mask->rank && fits; d++)
    fits = mask->shape[mask->rank - d] == 1 || mask->shape[mask->rank - d] == scores->shape[scores->rank - d];
  char a[200], b[200];
  if (!fits)
    tern__fail(TERN_E_ARG, "%s: a mask of shape %s does not broadcast to the scores, of shape %s", op,
               tern__shape_text(a, mask->rank, mask->shape), tern__shape_text(b, scores->rank, scores->shape));
  return fits;
}

tern_tensor *tern_scaled_dot_product_attention(tern_tensor *q, tern_tensor *k, tern_tensor *v,
                                               const tern_attention_opts *opts) {
  const char *const op = "scaled_dot_product_attention";
  if (!attention_operands(op, q, k, v)) return NULL;
  const int64_t size = q->shape[q->rank - 1];
  const double standard = size ? 1 / sqrt((double)size) : 1;
  const double scale = opts && (opts->scale != 0 || signbit(opts->scale)) ? opts->scale : standard;
  tern_tensor *mask = opts ? tern__optional(opts->mask) : TERN_NONE;
  if (!mask) return NULL;
  tern_tensor *scores = tern_matmul(q, tern_transpose(k));
  if (!scores || (mask != TERN_NONE && !mask_fits(op, mask, scores))) return NULL;
  tern_tensor *const in[] = {scores, mask};
  const tern_word attr[] = {{.i = scores->rank - 1}, {.f = scale}, {.u = opts && opts->causal}};
  tern_tensor *weights = tern__run(&tern__op_attention_weights, in, 2, attr, N_ATTRS);
  if (weights && opts && opts->dropout != 0)
    weights = tern_dropout(weights, opts->dropout, &(tern_dropout_opts){.seed = opts->seed});
  return tern_matmul(weights, v);
}

/* ---- dropout: operands x, mask; attribute: the factor of what stays ---- */

static tern_rc infer_dropout(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_dtype d = (tern_dtype)c->in[0]->dtype;
  const tern_rc rc = tern__space(c, q);
  if (rc) return rc;
  q->dtype = (uint8_t)d;
  tern__c_operand(q, 0, c->in[0], d);
  tern__c_operand(q, 1, c->in[1], TERN_BOOL);
  tern__c_param(q, 2, tern__wide(d), c->attr[0].f);
  q->n_in = 3;
  tern__result_space(q, r, d);
  tern__operand_out(q, 0, d, 0);
  return TERN_OK;
}

static void lower_dropout(tern__builder *b) {
  const int x = tern__c_mul(b, tern__c_in(b, 0), tern__b_in(b, 2));
  tern__b_out(b, 0, tern__b_where(b, tern__b_in(b, 1), x, tern__c_const(b, x, 0)));
}

static void grad_dropout(const tern__grad *g, tern_tensor **din) {
  tern_tensor *const in[] = {g->dout[0], g->in[1]};
  din[0] = tern__run(g->op, in, 2, g->attr, 1);
}

static tern_tensor *sample_dropout(const tern__sample *s) {
  return tern_dropout(s->x, 0.5, &(tern_dropout_opts){.seed = 1});
}

const tern__op tern__op_dropout = {.name = "dropout",
                                   .family = "attention",
                                   .operands = "x, rate",
                                   .doc = "each element 0 with probability rate, else divided by 1 - rate",
                                   .number = TERN__N_dropout,
                                   .sample = sample_dropout,
                                   .dtypes = TERN_D_FLOAT,
                                   .infer = infer_dropout,
                                   .lower = lower_dropout,
                                   .grad = grad_dropout,
                                   .keeps = TERN__KEEP_B,
                                   .absolute = 0,
                                   .relative = 1.2e-7,
                                   .ulp = 1};

/* bool, true with probability p, on x's device. */
static tern_tensor *keep_mask(tern_tensor *x, double p, uint64_t seed) {
  tern__thread *t = tern__thread_get();
  if (!t) return NULL;
  struct tern__device *before = t->device;
  t->device = x->device;
  tern_tensor *mask = tern_random_bernoulli(tern_shape_of(x->rank, x->shape), p, &(tern_random_opts){.seed = seed});
  t->device = before;
  return mask;
}

tern_tensor *tern_dropout(tern_tensor *x, double rate, const tern_dropout_opts *opts) {
  if (!tern__usable(x, "dropout", 1) || !floats_only("dropout", "x", x)) return NULL;
  if (!(rate >= 0 && rate <= 1)) {
    tern__fail(TERN_E_ARG, "dropout: rate is %g; it lies in [0, 1]", rate);
    return NULL;
  }
  x = tern__solid(x, TERN_F32);
  if (!x || rate == 0 || (opts && opts->inference)) return x ? tern__itself(x) : NULL;
  tern_tensor *const in[] = {x, keep_mask(x, 1 - rate, opts ? opts->seed : 0)};
  const tern_word factor = {.f = rate < 1 ? 1 / (1 - rate) : 0};
  return tern__run(&tern__op_dropout, in, 2, &factor, 1);
}

/* ---- embedding ---- */

tern_tensor *tern_embedding(tern_tensor *table, tern_tensor *ids) {
  if (!tern__usable(table, "embedding", 1) || !tern__usable(ids, "embedding", 2)) return NULL;
  if (table->rank < 1 || !(tern__is_int((tern_dtype)ids->dtype))) {
    char text[200];
    tern__fail(TERN_E_ARG,
               "embedding: a table of shape %s [n, ..] and ids of %s were given; the table needs at least one axis, "
               "ids are integers: tern_cast them",
               tern__shape_text(text, table->rank, table->shape), tern_dtype_name((tern_dtype)ids->dtype));
    return NULL;
  }
  const tern__thread *t = tern__thread_get();
  const bool clean = t && t->error_state != TERN__ERROR_UNREAD;
  tern_tensor *rows = tern_take(table, ids, 0);
  if (rows || !clean || t->error_state != TERN__ERROR_UNREAD) return rows;
  char why[sizeof t->error_text];
  const tern_rc rc = t->error_code;
  snprintf(why, sizeof why, "%s", t->error_text);
  tern_error_clear();
  tern__fail(rc, "embedding of %lld rows: %.900s", (long long)table->shape[0], why);
  return NULL;
}
