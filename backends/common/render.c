/* render_build: which kernels a region needs; render_bind: which of them this launch takes, over which range, with
   which arguments. The choice depends on sizes and the device only, never on the number of threads that happen to be
   free. */
#include "render.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nest_internal.h"
#include "render_internal.h"

enum { LONG_ROW = 32768, PART = 16384, MOST_PARTS = 256 };

typedef struct forms {                            /* units of one nest, NEST_NONE: there is none */
  uint32_t map, rows, columns, group, pass, fold; /* pass, fold: the first of n_pass each */
  uint32_t most, all;                             /* reductions in one pass at most; altogether */
} forms;

typedef struct program {
  render_program pub;
  render_device dev;
  nest_plan *plan;
  render_unit *units;
  uint32_t n_units;
  render_code *codes;
  render_kernel *kernels;
  forms *forms;
  render_text source;
} program;

static uint32_t reduces(const nest_plan *plan, const nest *t, uint32_t pass) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < t->pass[pass].n_step; i++) n += nest__is_reduce(plan->region, t->pass[pass].step[i]);
  return n;
}

static uint32_t param_size(const program *p, const render_unit *u, const render_param *q) {
  if (q->what == RP_WORD) return u->wide ? 8 : 4;
  if (q->what != RP_PARAM) return 8;
  const uint32_t dtype = p->plan->region->values[q->id].dtype;
  return dtype == TERN_F16 || dtype == TERN_BF16 ? 4 : (uint32_t)nest_item_size(dtype);
}

static tern_rc add_unit(program *p, uint32_t nest_number, uint32_t form, uint32_t pass, const char *name, char *message,
                        size_t size) {
  render_unit *u = &p->units[p->n_units];
  *u = (render_unit){.nest = nest_number, .form = form, .pass = pass, .wide = !(p->plan->region->flags & TERN_R_IDX32)};
  render_text signature = {0}, body = {0};
  const uint32_t codes = p->pub.n_kernels;
  const bool ok = render__kernel(p->plan, &p->dev, u, &signature, &body) &&
                  render__share(p->codes, &p->pub.n_kernels, &signature, &body, form, &u->code);
  free(signature.s);
  free(body.s);
  if (!ok) return nest__fail(message, size, TERN_E_OOM, "out of host memory while rendering");
  if (u->code == codes) {
    p->codes[codes].unit = p->n_units;
    snprintf(p->codes[codes].name, sizeof p->codes[codes].name, "%.60s_%u", name, codes);
  }
  p->n_units++;
  uint32_t bytes = 0;
  for (uint32_t i = 0; i < u->n_param; i++) bytes += param_size(p, u, &u->param[i]);
  if (bytes > p->dev.max_arg_bytes)
    return nest__fail(message, size, TERN_E_UNSUPPORTED,
                      "%u bytes of kernel arguments, the device takes %u; make the region smaller", bytes,
                      p->dev.max_arg_bytes);
  return TERN_OK;
}

static bool same_param(const program *p, const render_param *a, const render_param *b) {
  const tern_value *v = p->plan->region->values;
  if (a->what == RP_WS) return true;
  if (a->what == RP_CHUNK || a->what == RP_PARTS || a->what == RP_PARTIAL_OFFSET) return false;
  return a->what == RP_PARAM ? v[a->id].slot == v[b->id].slot : a->id == b->id;
}

/* All units are known: slots, and the text */
static tern_rc finish_code(program *p, render_code *c) {
  const render_unit *u = &p->units[c->unit];
  uint32_t each = 0, shared = 0, n_shared = 0;
  c->shared = calloc(u->n_param + 1u, 1);
  if (!c->shared) return TERN_E_OOM;
  for (uint32_t i = 0; i < u->n_param; i++) {
    c->shared[i] = 1;
    for (uint32_t j = 0; j < p->n_units; j++)
      if (&p->codes[p->units[j].code] == c) c->shared[i] &= same_param(p, &u->param[i], &p->units[j].param[i]);
    *(c->shared[i] ? &shared : &each) += param_size(p, u, &u->param[i]);
    n_shared += c->shared[i];
  }
  if (!p->dev.task) render__slots(c, each, shared, p->dev.max_arg_bytes);
  c->n_args = c->slots == 1 ? u->n_param : c->slots * (u->n_param - n_shared) + n_shared + c->slots - 1;
  render__emit(c, u, p->plan->region, &p->dev, &p->source);
  return p->source.failed ? TERN_E_OOM : TERN_OK;
}

/* An output of a row's level over an input's memory: a later kernel of the split form could read what an earlier one
   wrote */
static bool row_in_place(const nest_plan *plan, const nest *t) {
  for (uint32_t p = 0; p <= t->n_pass; p++)
    for (uint32_t i = 0; i < t->phase[p].n_store; i++)
      if (plan->region->values[t->phase[p].store[i].value].alias >= 0) return true;
  return false;
}

/* Could a row be long? Sizes that are words could be anything. */
static bool may_be_long(const nest *t) {
  double n = 1;
  for (uint32_t d = 0; d < t->rank; d++) {
    if (!(t->red >> d & 1)) continue;
    if (TERN_IS_SYM(t->size[d])) return true;
    n *= (double)t->size[d];
  }
  return n > LONG_ROW;
}

static tern_rc add_nest(program *p, uint32_t j, const char *name, char *message, size_t size) {
  const nest *t = &p->plan->nests[j];
  forms *f = &p->forms[j];
  *f = (forms){NEST_NONE, NEST_NONE, NEST_NONE, NEST_NONE, NEST_NONE, NEST_NONE, 0, 0};
  tern_rc rc;
  if (!t->red) {
    f->map = p->n_units;
    return add_unit(p, j, RK_MAP, 0, name, message, size);
  }
  const bool columns = render__has_columns(p->plan, &p->dev, j);
  *(columns ? &f->columns : &f->rows) = p->n_units;
  if ((rc = add_unit(p, j, columns ? RK_COLUMNS : RK_ROWS, 0, name, message, size))) return rc;
  if (p->dev.task) return TERN_OK; /* one item takes all rows, however long */
  if (!p->dev.cpu_like) {
    f->group = p->n_units;
    if ((rc = add_unit(p, j, RK_GROUP, 0, name, message, size))) return rc;
  }
  for (uint32_t k = 0; k < t->n_pass; k++) {
    const uint32_t n = reduces(p->plan, t, k);
    f->all += n;
    if (n > f->most) f->most = n;
  }
  if (!may_be_long(t) || row_in_place(p->plan, t)) return TERN_OK;
  f->pass = p->n_units;
  for (uint32_t k = 0; k < t->n_pass; k++)
    if ((rc = add_unit(p, j, RK_PASS, k, name, message, size))) return rc;
  f->fold = p->n_units;
  for (uint32_t k = 0; k < t->n_pass; k++)
    if ((rc = add_unit(p, j, RK_FOLD, k, name, message, size))) return rc;
  return TERN_OK;
}

static tern_rc check_dtypes(const program *p, char *message, size_t size) {
  const tern_region *r = p->plan->region;
  for (uint32_t v = 0; v < r->n_values && !p->dev.fp64; v++)
    if (r->values[v].dtype == TERN_F64)
      return nest__fail(message, size, TERN_E_UNSUPPORTED, "value %u is float64, which this device does not have", v);
  return TERN_OK;
}

static void note_limits(program *p) {
  for (uint32_t j = 0; j < p->plan->n_nests; j++)
    p->pub.max_calls += p->forms[j].pass == NEST_NONE ? 1 : 2 * p->plan->nests[j].n_pass;
  uint32_t widest = 0;
  for (uint32_t i = 0; i < p->pub.n_kernels; i++) {
    if (p->codes[i].n_args > widest) widest = p->codes[i].n_args;
    p->kernels[i] = (render_kernel){p->codes[i].name, p->codes[i].n_args};
  }
  p->pub.max_actuals = p->pub.max_calls * widest;
  p->pub.fixed_workspace = !p->plan->n_ws;
  for (uint32_t j = 0; j < p->plan->n_nests; j++)
    if (p->forms[j].pass != NEST_NONE) p->pub.fixed_workspace = false;
  p->pub.kernels = p->kernels;
  p->pub.source = p->source.s;
}

static tern_rc fill(program *p, const tern_region *region, const char *name, char *message, size_t size) {
  tern_rc rc = nest_build(region, NEST_NO_SCRATCH, &p->plan, message, size);
  if (!rc) rc = check_dtypes(p, message, size);
  if (rc) return rc;
  size_t most = 0;
  for (uint32_t j = 0; j < p->plan->n_nests; j++) most += 2 + 2 * (size_t)p->plan->nests[j].n_pass;
  p->units = calloc(most + 1, sizeof *p->units);
  p->kernels = calloc(most + 1, sizeof *p->kernels);
  p->forms = calloc(p->plan->n_nests + 1u, sizeof *p->forms);
  p->codes = calloc(most + 1, sizeof *p->codes);
  if (!p->units || !p->kernels || !p->forms || !p->codes)
    return nest__fail(message, size, TERN_E_OOM, "out of host memory while rendering");
  for (uint32_t j = 0; j < p->plan->n_nests && !rc; j++) rc = add_nest(p, j, name, message, size);
  render__put(&p->source, "%s", ""); /* a region without an OUT has no kernels */
  for (uint32_t i = 0; i < p->pub.n_kernels && !rc; i++)
    if ((rc = finish_code(p, &p->codes[i]))) nest__fail(message, size, rc, "out of host memory while rendering");
  if (!rc) note_limits(p);
  return rc;
}

tern_rc render_build(const tern_region *region, const render_device *device, const char *name, render_program **out,
                     char *message, size_t size) {
  *out = NULL;
  if (device->dialect != RENDER_OPENCL)
    return nest__fail(message, size, TERN_E_UNSUPPORTED, "dialect %u of the renderer does not exist", device->dialect);
  const uint32_t g = device->group;
  const bool groups = !device->cpu_like && !device->task;
  if (groups && (g < 2 || g & (g - 1)))
    return nest__fail(message, size, TERN_E_ARG, "a work-group of %u items: not a power of two", g);
  if (groups && 16ull * g > (device->local_mem ? device->local_mem : 16384))
    return nest__fail(message, size, TERN_E_ARG, "a work-group of %u items does not fit the local memory", g);
  program *p = calloc(1, sizeof *p);
  if (!p) return nest__fail(message, size, TERN_E_OOM, "out of host memory while rendering");
  p->dev = *device;
  if (!p->dev.units) p->dev.units = 1;
  if (!p->dev.max_arg_bytes) p->dev.max_arg_bytes = 1024;
  const tern_rc rc = fill(p, region, name, message, size);
  if (rc)
    render_free(&p->pub);
  else
    *out = &p->pub;
  return rc;
}

void render_free(render_program *pub) {
  if (!pub) return;
  program *p = (program *)pub;
  for (uint32_t i = 0; p->units && i < p->n_units + 1u; i++) free(p->units[i].param);
  for (uint32_t i = 0; p->codes && i < p->pub.n_kernels; i++) {
    free(p->codes[i].text);
    free(p->codes[i].canon);
    free(p->codes[i].shared);
  }
  free(p->codes);
  free(p->units);
  free(p->kernels);
  free(p->forms);
  free(p->source.s);
  nest_free(p->plan);
  free(p);
}

/* ---- launch ---- */

typedef struct extent {
  int64_t rows, loop, chunk, parts;
  uint32_t form;
} extent; /* form: RK_PASS means the split form */

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t clamp(int64_t x, int64_t lo, int64_t hi) { return x < lo ? lo : x > hi ? hi : x; }

static extent measure(const program *p, uint32_t j, const tern_word *words) {
  const nest *t = &p->plan->nests[j];
  const forms *f = &p->forms[j];
  const int64_t units = p->dev.units;
  extent e = {.rows = 1, .loop = 1, .parts = 1};
  for (uint32_t d = 0; d < t->rank; d++)
    *(!t->red || t->red >> d & 1 ? &e.loop : &e.rows) *= TERN_LIT(t->size[d], words);
  if (p->dev.task) {
    e.form = t->red ? RK_ROWS : RK_MAP;
    e.chunk = t->red ? e.rows : e.loop;
  } else if (!t->red) {
    e.form = RK_MAP;
    e.chunk = p->dev.cpu_like ? (clamp(ceil_div(e.loop, 4 * units), 2048, 65536) + 63) / 64 * 64 : 1;
  } else if (f->pass != NEST_NONE && e.loop > LONG_ROW && e.rows < 2 * units) {
    e.form = RK_PASS;
    e.parts = clamp(ceil_div(e.loop, PART), 1, MOST_PARTS);
    e.chunk = ceil_div(e.loop, e.parts);
    e.parts = ceil_div(e.loop, e.chunk);
  } else {
    const bool columns = t->rank && !(t->red >> (t->rank - 1) & 1);
    const bool group = f->group != NEST_NONE && e.loop > 16 && !(columns && e.rows >= 64);
    e.form = group ? RK_GROUP : f->columns != NEST_NONE ? RK_COLUMNS : RK_ROWS;
    if (e.form == RK_COLUMNS) {
      const int64_t inner = TERN_LIT(t->size[t->rank - 1], words);
      e.parts = e.rows / inner * ceil_div(inner, 16); /* work-items */
      return e;
    }
    e.chunk = p->dev.cpu_like ? clamp(4096 / e.loop, 1, ceil_div(e.rows, 4 * units)) : 1;
  }
  return e;
}

static uint64_t partial_bytes(const program *p, uint32_t j, const extent *e) {
  if (e->form != RK_PASS) return 0;
  return 16ull * p->forms[j].most * (uint64_t)e->rows * (uint64_t)e->parts + 8ull * p->forms[j].all * (uint64_t)e->rows;
}

uint64_t render_workspace(const render_program *pub, const tern_word *words) {
  const program *p = (const program *)pub;
  if (pub->fixed_workspace) return 0;
  uint64_t partials = 0;
  for (uint32_t j = 0; j < p->plan->n_nests; j++) {
    const extent e = measure(p, j, words);
    const uint64_t bytes = partial_bytes(p, j, &e);
    if (bytes > partials) partials = bytes;
  }
  return nest_workspace(p->plan, words, NULL) + (partials + 63) / 64 * 64;
}

/* Byte offset of workspace slot s. Few slots: counted anew each time, which needs no memory */
static uint64_t slot_offset(const program *p, uint32_t s, const tern_word *words) {
  nest_plan before = *p->plan;
  before.n_ws = s;
  return nest_workspace(&before, words, NULL);
}

void render__bind_param(const tern_value *v, const tern_word *words, render_actual *a) {
  const tern_word w = words[v->slot];
  if (v->dtype == TERN_F64)
    a->value.f64 = w.f;
  else if (v->dtype >= TERN_F16)
    a->value.f32 = (float)w.f;
  else
    a->value.u64 = w.u; /* little-endian: the low bytes are the value */
}

static void set_actual(const program *p, const render_unit *u, const render_param *q, const tern_launch *l,
                       const extent *e, render_actual *a) {
  *a = (render_actual){.kind = RENDER_BYTES, .size = param_size(p, u, q)};
  switch (q->what) {
  case RP_ARG: *a = (render_actual){.kind = RENDER_ARG, .slot = q->id}; return;
  case RP_WS: *a = (render_actual){.kind = RENDER_WORKSPACE}; return;
  case RP_ARG_OFFSET: a->value.u64 = l->args[q->id].offset; return;
  case RP_SLOT_OFFSET: a->value.u64 = l->workspace.offset + slot_offset(p, q->id, l->words); return;
  case RP_PARTIAL_OFFSET: a->value.u64 = l->workspace.offset + nest_workspace(p->plan, l->words, NULL); return;
  case RP_PARAM: render__bind_param(&p->plan->region->values[q->id], l->words, a); return;
  case RP_CHUNK: a->value.i64 = e->chunk; return;
  case RP_PARTS: a->value.i64 = e->parts; return;
  default:
    if (u->wide)
      a->value.i64 = l->words[q->id].i;
    else
      a->value.i32 = (int32_t)l->words[q->id].i;
  }
}

typedef struct work { /* what a launch does of one unit */
  uint32_t unit, wave;
  bool done;
  extent e;
  int64_t items; /* work-items; work-groups of a group form */
} work;

/* One kernel over the ranges of n alike units, n <= its slots */
static void add_call(const program *p, const work *const *list, uint32_t n_list, uint32_t local, const tern_launch *l,
                     render_call *calls, uint32_t *n, render_actual *actuals) {
  const uint32_t kernel = p->units[list[0]->unit].code;
  const render_code *c = &p->codes[kernel];
  const uint32_t first = *n ? calls[*n - 1].first + calls[*n - 1].n_args : 0;
  const bool groups = c->form == RK_GROUP || (c->form == RK_PASS && !p->dev.cpu_like);
  int64_t items = 0, begin[16] = {0};
  render_actual *a = &actuals[first];
  for (uint32_t s = 0; s < c->slots; s++) {
    const work *w = list[s < n_list ? s : 0]; /* a slot that nobody needs lies behind the range */
    const render_unit *u = &p->units[w->unit];
    begin[s] = items;
    if (s < n_list) items += w->items;
    for (uint32_t i = 0; i < u->n_param; i++)
      if (!s || !c->shared[i]) set_actual(p, u, &u->param[i], l, &w->e, a++);
  }
  for (uint32_t s = 1; s < c->slots; s++) {
    *a = (render_actual){.kind = RENDER_BYTES, .size = 8};
    a++->value.i64 = s < n_list ? begin[s] : INT64_MAX;
  }
  calls[(*n)++] = (render_call){.kernel = kernel,
                                .n_args = c->n_args,
                                .first = first,
                                .global = groups ? (uint64_t)items * local : (uint64_t)ceil_div(items, local) * local,
                                .local = local};
}

static void add_one(const program *p, uint32_t unit, int64_t items, uint32_t local, const tern_launch *l,
                    const extent *e, render_call *calls, uint32_t *n, render_actual *actuals) {
  const work w = {.unit = unit, .e = *e, .items = items}, *list = &w;
  add_call(p, &list, 1, local, l, calls, n, actuals);
}

static void bind_split(const program *p, uint32_t j, const extent *e, const tern_launch *l, render_call *calls,
                       uint32_t *n, render_actual *actuals) {
  const nest *t = &p->plan->nests[j];
  const uint32_t local = p->dev.cpu_like ? 1 : p->dev.group;
  for (uint32_t k = 0; k < t->n_pass; k++) {
    const uint32_t reductions = reduces(p->plan, t, k);
    if (reductions || t->pass[k].n_step || t->pass[k].n_store)
      add_one(p, p->forms[j].pass + k, e->rows * e->parts, local, l, e, calls, n, actuals);
    if (reductions || t->phase[k + 1].n_store || (k == 0 && t->phase[0].n_store))
      add_one(p, p->forms[j].fold + k, e->rows, 1, l, e, calls, n, actuals);
  }
}

/* What nest j needs now; unit NEST_NONE: the split form, several calls */
static work work_of(const program *p, uint32_t j, const tern_word *words) {
  const forms *f = &p->forms[j];
  work w = {.unit = NEST_NONE, .wave = p->plan->nests[j].wave, .e = measure(p, j, words)};
  switch (w.e.form) {
  case RK_MAP: w.unit = f->map, w.items = ceil_div(w.e.loop, w.e.chunk); break;
  case RK_ROWS: w.unit = f->rows, w.items = ceil_div(w.e.rows, w.e.chunk); break;
  case RK_COLUMNS: w.unit = f->columns, w.items = w.e.parts; break;
  case RK_GROUP: w.unit = f->group, w.items = w.e.rows; break;
  default: break;
  }
  return w;
}

enum { WINDOW = 64 };

/* Nest i of the window and those behind it that may run with it */
static void bind_alike(const program *p, work *window, uint32_t i, uint32_t n_window, const tern_launch *l,
                       render_call *calls, uint32_t *n_calls, render_actual *actuals) {
  const uint32_t code = p->units[window[i].unit].code;
  const bool one = p->dev.cpu_like || p->dev.task || window[i].e.form == RK_COLUMNS;
  const work *list[16];
  uint32_t n = 0;
  for (uint32_t k = i; k < n_window && n < p->codes[code].slots; k++) {
    work *w = &window[k];
    if (w->done || w->wave != window[i].wave || w->unit == NEST_NONE || p->units[w->unit].code != code) continue;
    w->done = true;
    list[n++] = w;
  }
  add_call(p, list, n, one ? 1 : p->dev.group, l, calls, n_calls, actuals);
}

tern_rc render_bind(const render_program *pub, const tern_launch *l, render_call *calls, uint32_t *n_calls,
                    render_actual *actuals) {
  const program *p = (const program *)pub;
  work window[WINDOW];
  *n_calls = 0;
  for (uint32_t lo = 0; lo < p->plan->n_nests; lo += WINDOW) {
    const uint32_t n = p->plan->n_nests - lo < WINDOW ? p->plan->n_nests - lo : WINDOW;
    uint32_t last_wave = 0;
    for (uint32_t i = 0; i < n; i++) {
      const work w = window[i] = work_of(p, lo + i, l->words);
      if ((p->plan->region->flags & TERN_R_IDX32) && (w.e.loop > INT32_MAX - 65536 || w.e.rows > INT32_MAX - 65536))
        return TERN_E_UNSUPPORTED;
      if (w.wave > last_wave) last_wave = w.wave;
    }
    for (uint32_t wave = 0; wave <= last_wave; wave++)
      for (uint32_t i = 0; i < n; i++) {
        if (window[i].done || window[i].wave != wave) continue;
        if (window[i].unit != NEST_NONE)
          bind_alike(p, window, i, n, l, calls, n_calls, actuals);
        else
          bind_split(p, lo + i, &window[i].e, l, calls, n_calls, actuals);
      }
  }
  return TERN_OK;
}
