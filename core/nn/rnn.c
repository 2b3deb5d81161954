/* Keras's recurrent layers over the recurrence of rnn_loop.c: the input's part of all steps is one product before it;
   masks, directions and kept states are dealt with around it. */
#include "nn/rnn.h"
#include "base/thread.h"
#include <string.h>
#include <tern/device.h>

enum { KERNEL, RECURRENT, BIAS };

typedef struct kept { /* of a stateful layer: variables, made with the first batch */
  tern_tensor *state[TERN__RNN_STATES];
} kept;

static const tern__cell *cell_of(const tern_layer *l) {
  const tern__rnn *r = l->params;
  if (!strcmp(l->kind->name, "SimpleRNN")) return &tern__cell_simple;
  if (!strcmp(l->kind->name, "LSTM")) return &tern__cell_lstm;
  return r->opts.reset_before ? &tern__cell_gru_before : &tern__cell_gru;
}

/* ---- parameters and weights ---- */

static tern_rc check(const void *params) {
  const tern__rnn *r = params;
  if (r->units < 1) return tern__fail(TERN_E_ARG, "units is %lld; it must be at least 1", (long long)r->units);
  const double rate[] = {r->opts.dropout, r->opts.recurrent_dropout};
  for (int i = 0; i < 2; i++)
    if (!(rate[i] >= 0 && rate[i] < 1))
      return tern__fail(TERN_E_ARG, "%s is %g; it must be at least 0 and less than 1",
                        i ? "recurrent_dropout" : "dropout", rate[i]);
  const tern_rc rc = tern__activation_check(r->opts.activation);
  return rc ? rc : tern__activation_check(r->opts.recurrent_activation);
}

/* The forget gate begins open (Jozefowicz, Zaremba, Sutskever, 2015). */
static tern_rc open_forget_gate(tern_tensor *bias, int64_t u) {
  tern_scope_mark scope = tern_scope_begin();
  tern_tensor *before = tern_slice(bias, (tern_range[]){TERN_RANGE(0, u, 1)}, 1);
  tern_tensor *behind = tern_slice(bias, (tern_range[]){TERN_RANGE(2 * u, 4 * u, 1)}, 1);
  tern_tensor *ones = before ? tern_ones_like(before) : NULL;
  tern_tensor *all = ones && behind ? tern_concat((tern_tensor *[]){before, ones, behind}, 3, 0) : NULL;
  const tern_rc rc = all ? tern_assign(bias, all) : tern__recorded();
  tern_scope_end(&scope);
  return rc;
}

static tern_rc build(tern_layer *l, tern_shape in, tern_dtype dtype) {
  const tern__rnn *r = l->params;
  const tern__cell *cell = cell_of(l);
  const int64_t u = r->units, gates = cell->gates * u;
  int64_t features = 0;
  if (in.rank != 3) return tern__fail(TERN_E_ARG, "its input has rank %d; it must be [batch, time, features]", in.rank);
  tern_rc rc = tern__layer_size(in, 2, &features);
  if (rc) return rc;
  if (!tern__layer_weight(l, "kernel", TERN_SHAPE(features, gates), dtype, r->opts.kernel_initializer, "glorot_uniform",
                          false) ||
      !tern__layer_weight(l, "recurrent_kernel", TERN_SHAPE(u, gates), dtype, r->opts.recurrent_initializer,
                          "orthogonal", false))
    return tern__recorded();
  if (r->opts.no_bias) return TERN_OK;
  const tern_shape two = TERN_SHAPE(2, gates), one = TERN_SHAPE(gates);
  tern_tensor *bias = tern__layer_weight(l, "bias", cell == &tern__cell_gru ? two : one, dtype,
                                         r->opts.bias_initializer, "zeros", false);
  if (!bias) return tern__recorded();
  return cell == &tern__cell_lstm && !r->opts.no_forget_bias ? open_forget_gate(bias, u) : TERN_OK;
}

/* ---- states that stay ---- */

static tern_rc make_states(tern_layer *l, tern_tensor *x, int64_t batch) {
  const tern__rnn *r = l->params;
  kept *k = l->state;
  tern__thread *t = tern__thread_get();
  if (!t) return TERN_E_OOM;
  TERN_NO_GRADIENT;
  const uint32_t before = tern__eager_begin(t);
  tern_scope_mark scope = tern_scope_begin();
  tern_device_mark device = tern_device_begin(tern_device_get(x));
  bool ok = true;
  for (int i = 0; i < cell_of(l)->states && ok; i++) {
    k->state[i] = tern_variable(tern_zeros(TERN_SHAPE(batch, r->units), tern_dtype_get(l->weight[KERNEL])),
                                &(tern_variable_opts){.name = "state", .frozen = 1});
    ok = k->state[i] != NULL;
  }
  tern_device_end(&device);
  tern_scope_end(&scope);
  tern__eager_end(t, before);
  for (int i = 0; i < TERN__RNN_STATES && !ok; i++) {
    tern_release(k->state[i]);
    k->state[i] = NULL;
  }
  return ok ? TERN_OK : tern__recorded();
}

static tern_rc own_states(tern_layer *l, tern_tensor *x, tern_tensor **state) {
  kept *k = l->state;
  const int64_t batch = tern_dim(x, 0);
  if (batch < 1)
    return tern__fail(TERN_E_ARG, "it is stateful, and the size of the batch is not known; give the placeholder one");
  if (!k->state[0]) {
    const tern_rc rc = make_states(l, x, batch);
    if (rc) return rc;
  }
  const int64_t had = tern_dim(k->state[0], 0);
  if (had != batch)
    return tern__fail(TERN_E_ARG,
                      "it is stateful and keeps the states of %lld examples, but this batch has %lld; batches must all "
                      "have one size",
                      (long long)had, (long long)batch);
  for (int i = 0; i < cell_of(l)->states; i++) state[i] = k->state[i];
  return TERN_OK;
}

static void reset(tern_layer *l) {
  kept *k = l->state;
  for (int i = 0; i < TERN__RNN_STATES; i++)
    if (k->state[i]) {
      tern_scope_mark scope = tern_scope_begin();
      tern_assign(k->state[i], tern_zeros_like(k->state[i]));
      tern_scope_end(&scope);
    }
}

static void end(tern_layer *l) {
  kept *k = l->state;
  for (int i = 0; i < TERN__RNN_STATES; i++) tern_release(k->state[i]);
}

/* ---- calling ---- */

/* What x [batch, .., sizes] is multiplied by: 0 or 1 / (1 - rate), the same in all steps. */
static tern_tensor *drop_mask(tern_tensor *x, tern_shape shape, double rate) {
  tern_device_mark device = tern_device_begin(tern_device_get(x));
  tern_tensor *mask = tern_dropout(tern_ones(shape, tern_dtype_get(x)), rate, NULL);
  tern_device_end(&device);
  return mask;
}

/* The input's part of the gates [time, batch, gates]. */
static tern_tensor *project(const tern_layer *l, const tern__cell *cell, tern_tensor *x) {
  const tern__rnn *r = l->params;
  const int64_t time = TERN_LIKE(x, 1), batch = TERN_LIKE(x, 0), gates = cell->gates * r->units;
  const int64_t features = tern_dim(l->weight[KERNEL], 0);
  tern_tensor *steps = tern_reshape(tern_permute(x, (int[]){1, 0, 2}, 3), TERN_SHAPE(-1, features));
  tern_tensor *z = tern_matmul(steps, l->weight[KERNEL]);
  if (!r->opts.no_bias) z = tern_add(z, cell == &tern__cell_gru ? tern_index(l->weight[BIAS], 0, 0) : l->weight[BIAS]);
  return tern_reshape(z, TERN_SHAPE(time, batch, gates));
}

/* What stands for outputs of masked steps: those of the step before, and zeros before the first that counts; between
   the two of a bidirectional layer zeros everywhere (Keras: zero_output_for_mask). mask [time, batch, 1]. */
static tern_tensor *mask_outputs(const tern_layer *l, tern_tensor *all, tern_tensor *mask) {
  const tern__rnn *r = l->params;
  if (l->parent && l->parent->kind == &tern__kind_bidirectional) return tern_where(mask, all, tern_scalar(0));
  if (!r->opts.stateful) return all; /* states began with zeros */
  tern_tensor *begun = tern_cummax(tern_cast(mask, TERN_I32), 0, NULL);
  return tern_where(tern_not_equal(begun, tern_scalar_int(0)), all, tern_scalar(0));
}

static tern_tensor *result(const tern_layer *l, tern_tensor *last, tern_tensor *all, tern_tensor *mask) {
  const tern__rnn *r = l->params;
  if (!all) {
    if (mask == TERN_NONE || !r->opts.stateful) return last;
    return tern_where(tern_any(mask, TERN_AXES(0)), last, tern_scalar(0));
  }
  if (mask != TERN_NONE) all = mask_outputs(l, all, mask);
  return tern_permute(all, (int[]){1, 0, 2}, 3);
}

static tern_tensor *back_to_front(tern_tensor *x) { return tern_flip(x, (int[]){1}, 1); }

static tern_rc fits(const tern_layer *l, const tern_tensor *x, const tern_tensor *mask) {
  const int64_t features = tern_dim(l->weight[KERNEL], 0);
  if (tern_rank(x) != 3)
    return tern__fail(TERN_E_ARG, "its input has rank %d; it must be [batch, time, features]", tern_rank(x));
  if (tern_dim(x, 2) != features)
    return tern__fail(TERN_E_ARG, "its input has %lld features; it was built for %lld", (long long)tern_dim(x, 2),
                      (long long)features);
  if (mask != TERN_NONE && tern_rank(mask) != 2)
    return tern__fail(TERN_E_ARG, "its mask has rank %d; it must be [batch, time]", tern_rank(mask));
  return TERN_OK;
}

static tern_rc begin_states(tern_layer *l, const tern__cell *cell, tern_tensor *x, tern_tensor **state) {
  const tern__rnn *r = l->params;
  if (r->opts.stateful) return own_states(l, x, state);
  tern_device_mark device = tern_device_begin(tern_device_get(x));
  tern_tensor *zeros = tern_zeros(TERN_SHAPE(TERN_LIKE(x, 0), r->units), tern_dtype_get(l->weight[KERNEL]));
  tern_device_end(&device);
  for (int k = 0; k < cell->states; k++) state[k] = zeros;
  return zeros ? TERN_OK : tern__recorded();
}

static tern_tensor *call(tern_layer *l, tern_tensor *x, tern__pass *p) {
  const tern__rnn *r = l->params;
  const tern__cell *cell = cell_of(l);
  tern_tensor *mask = p->mask, *last[TERN__RNN_STATES], *all;
  if (fits(l, x, mask)) return NULL;
  tern__recurrence c = {.cell = cell, .mask = TERN_NONE, .sequence = r->opts.return_sequences};
  tern__step *s = &c.step;
  *s = (tern__step){.units = r->units,
                    .activation = r->opts.activation ? r->opts.activation : "tanh",
                    .recurrent_activation = r->opts.recurrent_activation ? r->opts.recurrent_activation : "sigmoid",
                    .recurrent = l->weight[RECURRENT],
                    .bias = TERN_NONE,
                    .drop = TERN_NONE};
  s->usual = !strcmp(s->activation, "tanh") && (cell->gates == 1 || !strcmp(s->recurrent_activation, "sigmoid"));
  if (cell == &tern__cell_gru && !r->opts.no_bias) s->bias = tern_index(l->weight[BIAS], 0, 1);
  if (p->training && r->opts.dropout > 0)
    x = tern_mul(x, drop_mask(x, TERN_SHAPE(TERN_LIKE(x, 0), 1, tern_dim(x, 2)), r->opts.dropout));
  if (p->training && r->opts.recurrent_dropout > 0)
    s->drop = drop_mask(x, TERN_SHAPE(TERN_LIKE(x, 0), r->units), r->opts.recurrent_dropout);
  if (mask != TERN_NONE) {
    c.mask = tern_expand_dims(tern_transpose(r->opts.backwards ? back_to_front(mask) : mask), -1);
    c.mask = tern_contiguous(c.mask);
  }
  c.zx = project(l, cell, r->opts.backwards ? back_to_front(x) : x);
  if (!x || !c.zx || !s->bias || !s->drop || !c.mask) return NULL;
  if (begin_states(l, cell, x, c.state) || tern__recur(&c, last, &all)) return NULL;
  kept *k = l->state;
  for (int i = 0; i < cell->states && r->opts.stateful; i++)
    if (tern_assign(k->state[i], last[i])) return NULL;
  if (!r->opts.return_sequences) p->mask = TERN_NONE;
  return result(l, last[0], all, c.mask);
}

/* ---- the kinds ---- */

#define OPTION(type, member, key) TERN__FIELD(type, tern__rnn, member, key)
static const tern__field fields[] = {
    OPTION(TERN__LONG, units, "units"),
    OPTION(TERN__TEXT, opts.activation, "activation"),
    OPTION(TERN__TEXT, opts.recurrent_activation, "recurrent_activation"),
    OPTION(TERN__TEXT, opts.kernel_initializer, "kernel_initializer"),
    OPTION(TERN__TEXT, opts.recurrent_initializer, "recurrent_initializer"),
    OPTION(TERN__TEXT, opts.bias_initializer, "bias_initializer"),
    OPTION(TERN__INT, opts.no_bias, "no_bias"),
    OPTION(TERN__INT, opts.return_sequences, "return_sequences"),
    OPTION(TERN__INT, opts.backwards, "go_backwards"),
    OPTION(TERN__INT, opts.stateful, "stateful"),
    OPTION(TERN__INT, opts.reset_before, "reset_before"),
    OPTION(TERN__INT, opts.no_forget_bias, "no_forget_bias"),
    OPTION(TERN__DOUBLE, opts.dropout, "dropout"),
    OPTION(TERN__DOUBLE, opts.recurrent_dropout, "recurrent_dropout"),
};

#define RECURRENT_KIND(id, text)                                                               \
  extern const tern__layer_kind tern__kind_##id;                                               \
  const tern__layer_kind tern__kind_##id = {.name = text,                                      \
                                            .stem = #id,                                       \
                                            .params = sizeof(tern__rnn),                       \
                                            .opts = offsetof(tern__rnn, opts),                 \
                                            .state = sizeof(kept),                             \
                                            .field = fields,                                   \
                                            .n_fields = (int)(sizeof fields / sizeof *fields), \
                                            .check = check,                                    \
                                            .build = build,                                    \
                                            .call = call,                                      \
                                            .reset = reset,                                    \
                                            .end = end};
RECURRENT_KIND(simple_rnn, "SimpleRNN")
RECURRENT_KIND(lstm, "LSTM")
RECURRENT_KIND(gru, "GRU")

tern__rnn *tern__rnn_of(const tern_layer *l) { return l->kind->call == call ? l->params : NULL; }

static tern_layer *new_layer(const tern__layer_kind *kind, int64_t units, const tern_rnn_opts *opts) {
  tern__rnn r = {.units = units};
  if (opts) r.opts = *opts;
  return tern__layer_new(kind, &r, NULL, 0);
}

tern_layer *tern_simple_rnn(int64_t units, const tern_rnn_opts *opts) {
  return new_layer(&tern__kind_simple_rnn, units, opts);
}
tern_layer *tern_lstm(int64_t units, const tern_rnn_opts *opts) { return new_layer(&tern__kind_lstm, units, opts); }
tern_layer *tern_gru(int64_t units, const tern_rnn_opts *opts) { return new_layer(&tern__kind_gru, units, opts); }
