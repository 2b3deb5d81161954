/* Runs one case: every instance is an image of memory with all operands in it; the reference evaluator and the device
   start from the same image, outputs are compared element by element and everything else must be untouched. Instances
   of one class share a kernel, so that sizes really travel as words. */
#include "check.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool runner_open(runner *run, device *d, report *r) {
  *run = (runner){.d = d, .r = r};
  run->inputs = malloc(IMAGE_BYTES);
  run->want = malloc(IMAGE_BYTES);
  run->got = malloc(IMAGE_BYTES);
  run->scales = malloc(IMAGE_BYTES);
  run->now = calloc(1, sizeof *run->now);
  run->before = calloc(1, sizeof *run->before);
  if (run->inputs && run->want && run->got && run->scales && run->now && run->before) return true;
  runner_close(run);
  return false;
}

static void drop_kernel(runner *run) {
  if (run->kernel) dev_kernel_free(run->d, run->kernel);
  run->kernel = NULL;
}

void runner_close(runner *run) {
  drop_kernel(run);
  free(run->inputs);
  free(run->want);
  free(run->got);
  free(run->scales);
  free(run->now);
  free(run->before);
}

/* ---- what went wrong, in words ---- */

typedef struct text {
  char s[2048];
  size_t n;
} text;

static void put(text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put(text *t, const char *format, ...) {
  va_list ap;
  va_start(ap, format);
  const int n = vsnprintf(t->s + t->n, sizeof t->s - t->n, format, ap);
  va_end(ap);
  if (n > 0) t->n = t->n + (size_t)n < sizeof t->s ? t->n + (size_t)n : sizeof t->s - 1;
}

static void put_element(text *t, uint32_t dtype, tern_word w) {
  if (dtype >= TERN_F16)
    put(t, "%.9g", w.f);
  else if (dtype >= TERN_I8 && dtype <= TERN_I64)
    put(t, "%lld", (long long)w.i);
  else
    put(t, "%llu", (unsigned long long)w.u);
}

static void put_operand(text *t, const problem *p, int i) {
  const operand *o = &p->arg[i];
  static const char *const kinds[] = {"?", "in", "out", "temp", "const", "param"};
  put(t, "  %s %d: %s", kinds[o->kind < 6 ? o->kind : 0], i < p->n_in ? i : i - p->n_in, nest_dtype_name(o->dtype));
  if (o->kind == TERN_V_PARAM || o->kind == TERN_V_CONST) {
    put(t, " = ");
    put_element(t, o->dtype, o->value);
  } else {
    put(t, " [");
    for (int d = 0; d < o->rank; d++)
      put(t, "%s%lld", d ? ", " : "", o->dim[d] == ONE ? 1LL : (long long)p->size[o->dim[d]]);
    put(t, "] stride [");
    for (int d = 0; d < o->rank; d++) put(t, "%s%lld", d ? ", " : "", (long long)o->stride[d]);
    put(t, "]");
    if (o->same_as != i) put(t, ", the same memory as in %d", o->same_as);
    if (o->alias >= 0) put(t, ", in place over in %d", o->alias);
  }
  put(t, "\n");
}

static void put_operands(text *t, const problem *p) {
  for (int i = 0; i < p->n_in + p->n_out; i++) put_operand(t, p, i);
  const nest_prim *prim = nest_prim_of(p->op);
  if (prim && prim->kind == TERN_K_REDUCE) {
    put(t, "  reduced dims:");
    for (int d = 0; d < p->n_space; d++)
      if (p->role[d] == ROLE_REDUCED) put(t, " %d", d);
    put(t, "\n");
  } else if (p->n_attrs) {
    put(t, "  attributes: %lld %lld\n", (long long)p->attr[0].i, p->n_attrs > 1 ? (long long)p->attr[1].i : 0LL);
  }
}

/* The inputs that a MAP's element was made of. */
static void put_inputs(text *t, const runner *run, const problem *p, const int64_t *index) {
  const nest_prim *prim = nest_prim_of(p->op);
  if (!prim || prim->kind != TERN_K_MAP || !p->n_in) return;
  put(t, "  from:");
  for (int i = 0; i < p->n_in; i++) {
    const operand *o = &p->arg[p->arg[i].same_as];
    put(t, i ? ", " : " ");
    if (o->kind != TERN_V_IN) {
      put_element(t, o->dtype, o->value);
      continue;
    }
    int64_t at = 0;
    for (int d = 0; d < o->rank; d++) at += o->dim[d] == ONE ? 0 : index[d] * o->stride[d];
    put_element(t, o->dtype, eval_load(run->inputs + o->at, at, o->dtype));
  }
  put(t, "\n");
}

/* ---- comparing ---- */

static bool compare_output(const runner *run, const problem *p, int i, bool scaled, text *t) {
  const operand *o = &p->arg[i];
  const uint64_t item = nest_item_size(o->dtype);
  int64_t count = 1, wrong = 0, first[TERN_MAX_RANK] = {0};
  for (int d = 0; d < o->rank; d++) count *= o->dim[d] == ONE ? 1 : p->size[o->dim[d]];
  for (int64_t k = 0; k < count; k++) {
    int64_t index[TERN_MAX_RANK] = {0}, at = 0, rest = k;
    for (int d = o->rank; d-- > 0;) {
      const int64_t size = o->dim[d] == ONE ? 1 : p->size[o->dim[d]];
      index[d] = rest % size;
      rest /= size;
      at += index[d] * o->stride[d];
    }
    const tern_word want = eval_load(run->want + o->at, at, o->dtype), got = eval_load(run->got + o->at, at, o->dtype);
    const double scale = scaled ? eval_load(run->scales + o->at, at, o->dtype).f : 0;
    const bool ok = close_enough(p, o->dtype, want, got, scale);
    if (!ok && wrong++ == 0) {
      memcpy(first, index, sizeof first);
      put(t, "  out %d, element [", i - p->n_in);
      for (int d = 0; d < o->rank; d++) put(t, "%s%lld", d ? ", " : "", (long long)index[d]);
      put(t, "]: expected ");
      put_element(t, o->dtype, want);
      put(t, ", got ");
      put_element(t, o->dtype, got);
      put(t, "\n");
      put_inputs(t, run, p, index);
    }
    const int64_t byte = (int64_t)o->at + at * (int64_t)item;
    memcpy(run->want + byte, run->got + byte, item); /* seen */
  }
  if (wrong) put(t, "  %lld of %lld elements differ\n", (long long)wrong, (long long)count);
  return wrong == 0;
}

static bool compare(const runner *run, const problem *p, uint64_t used, bool scaled, text *t) {
  for (int i = p->n_in; i < p->n_in + p->n_out; i++)
    if (!compare_output(run, p, i, scaled, t)) return false;
  for (uint64_t k = 0; k < used; k++) {
    if (run->want[k] == run->got[k]) continue;
    put(t, "  memory outside the outputs was changed: byte %lld relative to out 0's first element\n",
        (long long)k - (long long)p->arg[p->n_in].at);
    return false;
  }
  return true;
}

/* ---- running ---- */

/* What the sums take in, for their tolerance: the same op over magnitudes. */
static bool magnitudes(runner *run, const problem *p, const tern_word *words, void *const *args, uint64_t used) {
  if (!is_sum(p->op) || p->tight || p->arg[0].dtype < TERN_F16) return false;
  memcpy(run->scales, run->inputs, used);
  void *at[MAX_OPERANDS];
  for (uint32_t i = 0; i < run->now->region.n_args; i++) at[i] = run->scales + ((unsigned char *)args[i] - run->want);
  for (int i = 0; i < p->n_in; i++) {
    const operand *o = &p->arg[i];
    if (o->kind != TERN_V_IN) continue;
    for (int64_t k = 0; k < o->count; k++) {
      tern_word w = eval_load(run->scales + o->at, o->low + k, o->dtype);
      w.f = fabs(w.f);
      eval_store(run->scales + o->at, o->low + k, o->dtype, w);
    }
  }
  return tern_eval(&run->now->region, at, words, NULL, 0) == TERN_OK;
}

static tern_rc give_workspace(device *d, const tern_kernel *kernel, uint64_t bytes, const tern_word *words,
                              tern_arg *out) {
  tern_rc rc = TERN_OK;
  if (bytes == UINT64_MAX) rc = d->api->workspace ? d->api->workspace(d->dev, kernel, words, &bytes) : TERN_E_INTERNAL;
  if (rc || !bytes) return rc;
  if (bytes > d->workspace_bytes) {
    dev_wait(d, d->queue);
    if (d->workspace) dev_free(d, d->workspace);
    d->workspace = NULL;
    d->workspace_bytes = 0;
    if ((rc = dev_alloc(d, bytes, &d->workspace))) return rc;
    d->workspace_bytes = bytes;
  }
  out->mem = d->workspace;
  return TERN_OK;
}

tern_rc launch_image(device *d, tern_queue *queue, const tern_kernel *kernel, uint64_t workspace, const problem *p,
                     tern_mem *image) {
  tern_word words[MAX_WORDS];
  uint64_t at[MAX_OPERANDS];
  tern_arg args[MAX_OPERANDS];
  tern_launch l = {.args = args, .words = words, .n_args = args_of(p, at), .n_words = words_of(p, words)};
  for (uint32_t i = 0; i < l.n_args; i++) args[i] = (tern_arg){image, at[i]};
  tern_rc rc = give_workspace(d, kernel, workspace, words, &l.workspace);
  if (rc) return rc;
  error_clear();
  /* allowed at any time, or never: for every other kernel here */
  if (d->api->ready && (uintptr_t)kernel / 64 % 2 && (rc = d->api->ready(d->dev, kernel))) return rc;
  return d->api->launch(d->dev, queue, kernel, &l);
}

/* The region of p: asked about, compiled unless it is the one before. claimed: what supports said */
static bool prepare(runner *run, const problem *p, bool *claimed, text *t) {
  device *d = run->d;
  tern_word words[MAX_WORDS];
  if (!build(run->now, p)) {
    put(t, "  tern-check: the region has too many nodes\n");
    return false;
  }
  words_of(p, words);
  if (run->static_sizes || (d->info.flags & TERN_DEV_STATIC_ONLY)) make_static(run->now, words);
  if (run->kernel && same_region(run->now, run->before)) {
    *claimed = true;
    return true;
  }
  drop_kernel(run);
  uint32_t want_static = 0, again = 0;
  const tern_rc first = d->api->supports(d->dev, &run->now->region, &want_static),
                second = d->api->supports(d->dev, &run->now->region, &again);
  *claimed = !first;
  if (first != second || want_static != again) {
    put(t, "  supports answered %s, then %s for the same region: it must be pure\n", rc_name(first), rc_name(second));
    return false;
  }
  if (first && first != TERN_E_UNSUPPORTED) {
    put(t, "  supports answered %s; yes is 0, no is TERN_E_UNSUPPORTED\n", rc_name(first));
    return false;
  }
  if (first) return true;
  if (want_static && !run->static_sizes) {
    run->static_sizes = true;
    return prepare(run, p, claimed, t);
  }
  const tern_rc rc = dev_compile(d, &run->now->region, &run->kernel, &run->workspace);
  if (rc) {
    put(t, "  supports said yes, compile failed with %s: %s\n", rc_name(rc), said());
    run->kernel = NULL;
    return false;
  }
  builder *const other = run->before;
  run->before = run->now;
  run->now = other;
  memcpy(run->now, run->before, sizeof *run->now); /* `now` stays the region for the evaluator */
  run->now->region.values = run->now->value;
  run->now->region.nodes = run->now->node;
  run->now->region.edges = run->now->edge;
  run->now->region.attrs = run->now->attr;
  return true;
}

static bool run_instance(runner *run, problem *p, bool *claimed, text *t) {
  device *d = run->d;
  uint64_t used, at[MAX_OPERANDS];
  canonicalise(p);
  if (!place(p, &used)) {
    put(t, "  tern-check: the operands do not fit its image\n");
    return false;
  }
  if (!prepare(run, p, claimed, t)) return false;
  if (!*claimed) return true;
  memset(run->inputs, 0xa5, used);
  fill_inputs(p, run->inputs);
  memcpy(run->want, run->inputs, used);
  tern_word words[MAX_WORDS];
  void *args[MAX_OPERANDS];
  words_of(p, words);
  const uint32_t n_args = args_of(p, at);
  for (uint32_t i = 0; i < n_args; i++) args[i] = run->want + at[i];
  char message[256] = "";
  if (tern_eval(&run->now->region, args, words, message, sizeof message)) {
    put(t, "  the reference evaluator failed: %s\n", message);
    return false;
  }
  const bool scaled = magnitudes(run, p, words, args, used);
  tern_rc rc = dev_upload(d, d->queue, d->image, 0, run->inputs, used);
  if (!rc) rc = launch_image(d, d->queue, run->kernel, run->workspace, p, d->image);
  if (!rc) rc = dev_download(d, d->queue, run->got, d->image, 0, used);
  if (rc) {
    put(t, "  it failed with %s: %s\n", rc_name(rc), said());
    return false;
  }
  return compare(run, p, used, scaled, t);
}

/* FNV-1a (Fowler, Noll, Vo), 32 bits */
static bool in_slice(const options *o, const char *name) {
  uint32_t hash = 2166136261u;
  for (; *name; name++) hash = (hash ^ (unsigned char)*name) * 16777619u;
  return o->slice <= 1 || hash % o->slice == 0;
}

void run_case(runner *run, const char *name, make_problem make, const void *context) {
  report *r = run->r;
  if (!in_slice(r->opt, name) || !wanted(r, name)) return;
  problem p;
  report_current(name);
  report_progress(r, name);
  text t = {.n = 0};
  bool ok = true, any = false;
  run->static_sizes = false;
  for (int k = 0; ok; k++) {
    memset(&p, 0, sizeof p);
    for (int i = 0; i < MAX_OPERANDS; i++) p.arg[i] = (operand){.alias = -1, .same_as = ONE};
    p.seed = (uint64_t)k + 1;
    if (!make(context, k, &p)) break;
    bool claimed = false;
    ok = run_instance(run, &p, &claimed, &t);
    any = any || claimed || !ok;
    if (!ok) put_operands(&t, &p);
    if (ok && !claimed) break;
  }
  drop_kernel(run);
  r->total++;
  if (!any) {
    if (r->opt->verbose && !r->opt->json) printf("no   %s\n", name);
    return;
  }
  r->claimed++;
  report_case(r, ok, name, ok ? NULL : t.s);
}
