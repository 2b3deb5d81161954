/* See simulated.h. */
#include "placement/simulated.h"
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

virtual_clock simulated_clock(uint32_t device) {
  static const virtual_ext_clock *clock;
  virtual_clock c = {0};
  if (!clock) {
    void *plugin = dlopen(TERN_TEST_PLUGINS "/libtern-virtual.so", RTLD_NOW | RTLD_LOCAL);
    const tern_backend *(*query)(uint32_t) = NULL;
    void *symbol = plugin ? dlsym(plugin, "tern_plugin_query") : NULL;
    memcpy(&query, &symbol, sizeof query);
    for (const tern_ext *e = query ? query(TERN_ABI)->ext : NULL; e; e = e->next)
      if (e->type == VIRTUAL_EXT_CLOCK) clock = (const virtual_ext_clock *)(const void *)e;
  }
  CHECK(clock && clock->read(device, &c) == TERN_OK, "the clock of device %u", device);
  return c;
}

tern_rc simulated_one(tern_tensor *y, tern_tensor **out) {
  *out = y;
  return y ? TERN_OK : tern_error_code();
}

tern_tensor *simulated_numbers(tern_shape shape, uint64_t seed) {
  const int64_t n = test_numel(shape);
  double *x = malloc((size_t)(n + 1) * sizeof *x);
  for (int64_t i = 0; x && i < n; i++) x[i] = test_uniform(&seed, -1, 1);
  tern_tensor *t = x ? test_tensor(shape, TERN_F32, x) : NULL;
  free(x);
  return t;
}

void simulated_work_make(simulated_work *w) {
  TERN_SCOPE;
  *w = (simulated_work){.n_variables = 4};
  const tern_shape shapes[] = {TERN_SHAPE(16, 32), TERN_SHAPE(32), TERN_SHAPE(32, 4), TERN_SHAPE(4)};
  for (int i = 0; i < 4; i++) {
    tern_tensor *x = simulated_numbers(shapes[i], 100 + (uint64_t)i);
    w->w[i] = tern_keep(x);
    w->variable[i] = tern_variable(x, NULL);
  }
  w->optimizer = tern_adam(&(tern_adam_opts){.learning_rate = 0.05});
}

void simulated_work_end(simulated_work *w) {
  for (int i = 0; i < 4; i++) {
    tern_release(w->w[i]);
    tern_release(w->variable[i]);
  }
  tern_optimizer_release(w->optimizer);
}

static tern_tensor *mlp(tern_tensor *const *w, tern_tensor *x) {
  tern_tensor *hidden = tern_relu(tern_add(tern_matmul(x, w[0]), w[1]));
  return tern_add(tern_matmul(hidden, w[2]), w[3]);
}

tern_rc simulated_mlp(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const simulated_work *w = self;
  (void)n_in, (void)n_out;
  return simulated_one(tern_softmax(mlp(w->w, in[0]), -1), out);
}

tern_rc simulated_train(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  simulated_work *w = self;
  (void)n_in, (void)n_out;
  tern_tensor *gradient[8];
  tern_tape *tape = tern_tape_begin(NULL);
  if (!tape) return tern_error_code();
  tern_tensor *loss = tern_mean(tern_square(tern_sub(mlp(w->variable, in[0]), in[1])), NULL);
  tern_rc rc = loss ? tern_tape_gradient(tape, loss, w->variable, 4, gradient) : tern_error_code();
  if (!rc) rc = tern_optimizer_apply(w->optimizer, gradient, w->variable, 4);
  return rc ? rc : simulated_one(loss, out);
}

bool simulated_child(const char *child, const char *const *environment) {
  enum { SIZE = 1 << 16 };
  char *text = calloc(1, SIZE);
  if (!text) return false;
  const int status = test_child(child, environment, text, SIZE);
  const bool ok = CHECK(status == 0, "%s ended with %d:\n%s", child, status, text);
  const char *said = strstr(text, "(seeds");
  if (ok && said) printf("%.*s ", (int)strcspn(said, "\n"), said);
  free(text);
  return ok;
}
