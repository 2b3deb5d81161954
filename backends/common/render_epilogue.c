/* The MAP nodes behind a DOT or CONV as two functions of one element of its result, or of sixteen (float32, CPU-like
   devices). Names are those of the kernels of nests (render_internal.h): x loaded, v computed, z constant; capitals are
   vectors. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nest_internal.h"
#include "render_internal.h"

typedef struct epilogue {
  render_epilogue pub;
  render_param *param;
  tern_value *values; /* those that parameters name: PARAMs */
  uint32_t n_values;
  bool wide;
} epilogue;

typedef struct writer {
  render_kernel_text k;
  render_unit unit;
  uint32_t anchor, product, lanes;
  uint8_t *loaded, *used; /* by value */
} writer;

/* ---- what is taken ---- */

static const tern_value *base_of(const tern_region *r, uint32_t v) {
  const tern_value *x = &r->values[v];
  if (x->kind != TERN_V_VIEW) return x;
  return x->slot < r->n_values ? &r->values[x->slot] : NULL;
}

static bool is_memory(const tern_value *v) {
  return v->kind == TERN_V_IN || v->kind == TERN_V_VIEW || v->kind == TERN_V_OUT;
}

static bool same_shape(const tern_value *a, const tern_value *b) {
  return a->rank == b->rank && !memcmp(a->shape, b->shape, a->rank * sizeof *a->shape);
}

static bool find_anchor(const tern_region *r, uint32_t *anchor) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < r->n_nodes; i++) {
    const nest_prim *p = nest_prim_of(r->nodes[i].op);
    if (!p || r->nodes[i].n_out != 1 || r->nodes[i].n_in != p->n_in || nest_out(r, i) >= r->n_values) return false;
    for (uint32_t k = 0; k < p->n_in; k++)
      if (nest_in(r, i, k) >= r->n_values) return false;
    if (p->kind == TERN_K_MAP) continue;
    if (p->kind == TERN_K_REDUCE || n++) return false;
    *anchor = i;
  }
  return n == 1 && r->n_nodes > 1;
}

/* Operand v of a MAP node: a number, computed, or memory of the result's rank whose sizes are the result's or 1 */
static bool operand_ok(const tern_region *r, uint32_t v, const tern_value *product, const uint8_t *made) {
  const tern_value *x = &r->values[v], *base = base_of(r, v);
  switch (x->kind) {
  case TERN_V_CONST:
  case TERN_V_PARAM: return true;
  case TERN_V_SIZE: return x->slot < r->n_values;
  case TERN_V_TEMP:
  case TERN_V_OUT: return made[v];
  case TERN_V_VIEW:
  case TERN_V_IN: break;
  default: return false;
  }
  if (!base || base->kind != TERN_V_IN || base->slot >= r->n_args || x->layout || base->layout) return false;
  if (x->rank != product->rank && x->rank) return false;
  for (uint32_t d = 0; d < x->rank; d++)
    if (x->shape[d] != 1 && x->shape[d] != product->shape[d]) return false;
  return true;
}

/* An OUT over an argument: whoever else reads that argument must read the same element */
static bool alias_ok(const tern_region *r, const writer *w, const tern_value *out, bool *in_place) {
  if (out->alias < 0) return true;
  for (uint32_t v = 0; v < r->n_values; v++) {
    const tern_value *x = &r->values[v], *base = base_of(r, v);
    if (x->kind != TERN_V_IN && x->kind != TERN_V_VIEW) continue;
    if (!base || base->kind != TERN_V_IN || base->slot != (uint32_t)out->alias) continue;
    bool product = false, other = false;
    for (uint32_t i = 0; i < r->n_nodes; i++)
      for (uint32_t k = 0; k < r->nodes[i].n_in; k++)
        if (nest_in(r, i, k) == v) *(i == w->anchor ? &product : &other) = true;
    *in_place |= product;
    if (other && (x->kind == TERN_V_VIEW || !nest__same_place(x, out))) return false;
  }
  return true;
}

static bool takes(const tern_region *r, writer *w, bool *in_place) {
  const tern_value *product = &r->values[w->product];
  uint8_t *made = calloc(r->n_values + 1u, 1);
  bool ok = made && (product->kind == TERN_V_TEMP || product->kind == TERN_V_OUT) && product->rank;
  if (ok) made[w->product] = 1;
  for (uint32_t i = 0; i < r->n_nodes && ok; i++) {
    if (i == w->anchor) continue;
    for (uint32_t k = 0; k < r->nodes[i].n_in && ok; k++) ok = operand_ok(r, nest_in(r, i, k), product, made);
    const tern_value *out = &r->values[nest_out(r, i)];
    ok = ok && (out->kind == TERN_V_TEMP || out->kind == TERN_V_OUT);
    made[nest_out(r, i)] = 1;
  }
  for (uint32_t v = 0; v < r->n_values && ok; v++) {
    const tern_value *x = &r->values[v];
    if (x->kind != TERN_V_OUT) continue;
    ok = made[v] && same_shape(x, product) && x->slot < r->n_args && !x->layout && alias_ok(r, w, x, in_place);
  }
  free(made);
  return ok;
}

/* ---- text ---- */

static void declare_pointer(writer *w, uint32_t v) {
  render_kernel_text *k = &w->k;
  const tern_value *x = &k->r->values[v], *base = base_of(k->r, v);
  const char *type = render__storage[x->dtype];
  render__param(k, RP_ARG, base->slot);
  render__param(k, RP_ARG_OFFSET, base->slot);
  render__put(&k->head, "GLOBAL %s *m%u = (GLOBAL %s *)(A%u + O%u);\n", type, v, type, base->slot, base->slot);
}

/* m<v>[the element of the indices] */
static void put_element(writer *w, uint32_t v) {
  render_kernel_text *k = &w->k;
  const tern_value *x = &k->r->values[v];
  const char *type = w->unit.wide ? "long" : "int";
  char buf[48];
  render__put(&k->body, "m%u[(%s)%s", v, type, x->kind == TERN_V_VIEW ? render__size(k, x->offset, buf) : "0");
  for (uint32_t d = 0; d < x->rank; d++)
    if (x->shape[d] != 1 && x->stride[d] != 0)
      render__put(&k->body, " + i%u * (%s)", d, render__size(k, x->stride[d], buf));
  render__put(&k->body, "]");
}

static void load(writer *w, uint32_t v) {
  render_kernel_text *k = &w->k;
  const uint32_t dtype = k->r->values[v].dtype;
  render__put(&k->body, "const %s x%u = %s(", render__ctype[dtype], v,
              dtype == TERN_F16    ? "t_from_h"
              : dtype == TERN_BF16 ? "t_from_b"
                                   : "");
  put_element(w, v);
  render__put(&k->body, ");\n");
}

/* Stride along the lanes: 0, 1, or whatever is said in buf */
static const char *lane_stride(writer *w, uint32_t v, char buf[48]) {
  const tern_value *x = &w->k.r->values[v];
  if (!x->rank || x->shape[w->lanes] == 1) return "0";
  return render__size(&w->k, x->stride[w->lanes], buf);
}

static void load_vector(writer *w, uint32_t v) {
  render_kernel_text *k = &w->k;
  char buf[48];
  const char *stride = lane_stride(w, v, buf);
  if (!strcmp(stride, "0") || !strcmp(stride, "1")) {
    render__put(&k->body, *stride == '1' ? "const float16 X%u = t_load_v(&" : "const float16 X%u = (float16)(", v);
    put_element(w, v);
    render__put(&k->body, ");\n");
    return;
  }
  render__put(&k->body, "GLOBAL float *l%u = &", v);
  put_element(w, v);
  render__put(&k->body, ";\nconst float16 X%u = (float16)(", v);
  for (int j = 0; j < 16; j++) render__put(&k->body, "%sl%u[%d * %s]", j ? ", " : "", v, j, stride);
  render__put(&k->body, ");\n");
}

/* A node of numbers: computed once, before the product */
static bool is_scalar(const tern_region *r, uint32_t node) { return !r->values[nest_out(r, node)].rank; }

static void operand(writer *w, uint32_t v, bool vector, char out[48]) {
  const tern_value *x = &w->k.r->values[v];
  const bool number = x->kind == TERN_V_CONST || x->kind == TERN_V_PARAM || x->kind == TERN_V_SIZE;
  if (number)
    snprintf(out, 48, vector ? "(float16)(z%u)" : "z%u", v);
  else if (!x->rank && x->kind == TERN_V_TEMP)
    snprintf(out, 48, vector ? "(float16)(v%u)" : "v%u", v);
  else if (x->kind == TERN_V_IN || x->kind == TERN_V_VIEW) {
    if (!w->loaded[v]) vector ? load_vector(w, v) : load(w, v);
    w->loaded[v] = 1;
    snprintf(out, 48, vector ? "X%u" : "x%u", v);
  } else
    snprintf(out, 48, vector ? "V%u" : "v%u", v);
}

static bool compares(uint32_t op) { return op >= TERN_OP_EQ && op <= TERN_OP_GE; }

static void put_node(writer *w, uint32_t node, bool vector) {
  render_kernel_text *k = &w->k;
  char name[3][48];
  const char *in[3] = {name[0], name[1], name[2]};
  const uint32_t op = k->r->nodes[node].op, out = nest_out(k->r, node);
  for (uint32_t i = 0; i < k->r->nodes[node].n_in; i++) operand(w, nest_in(k->r, node, i), vector, name[i]);
  if (vector) {
    render__put(&k->body, "const %s V%u = ", compares(op) ? "int16" : "float16", out);
    render__vector_expand(&k->body, render__vector_form(op), in);
  } else {
    render__put(&k->body, "const %s v%u = ", render__ctype[k->r->values[out].dtype], out);
    render__expr(k, node, in, &k->body);
  }
  render__put(&k->body, ";\n");
}

static void store(writer *w, uint32_t v, bool vector) {
  render_kernel_text *k = &w->k;
  const uint32_t dtype = k->r->values[v].dtype;
  char buf[48];
  if (!vector) {
    put_element(w, v);
    render__put(&k->body, " = %s(v%u);\n", dtype == TERN_F16 ? "t_to_h" : dtype == TERN_BF16 ? "t_to_b" : "", v);
    return;
  }
  const char *stride = lane_stride(w, v, buf);
  if (!strcmp(stride, "1")) {
    render__put(&k->body, "t_store_v(V%u, &", v);
    put_element(w, v);
    render__put(&k->body, ");\n");
    return;
  }
  render__put(&k->body, "{ GLOBAL float *l = &");
  put_element(w, v);
  render__put(&k->body,
              "; float lane[16]; vstore16(V%u, 0, lane);\nfor (int j = 0; j < 16; j++) l[j * %s] = lane[j]; }\n", v,
              stride);
}

/* Can sixteen elements be computed at once? */
static bool vector_ok(const writer *w) {
  const tern_region *r = w->k.r;
  if (!w->k.dev->cpu_like || r->values[w->product].dtype != TERN_F32) return false;
  for (uint32_t i = 0; i < r->n_nodes; i++) {
    const uint32_t op = r->nodes[i].op;
    if (i == w->anchor || is_scalar(r, i)) continue;
    if (!render__vector_form(op) || op == TERN_OP_CAST) return false;
    const tern_value *out = &r->values[nest_out(r, i)];
    if (compares(op) ? out->kind != TERN_V_TEMP : out->dtype != TERN_F32) return false;
    for (uint32_t k = 0; k < r->nodes[i].n_in; k++) {
      const uint32_t v = nest_in(r, i, k);
      const bool mask = op == TERN_OP_WHERE && k == 0;
      if (mask ? r->values[v].kind != TERN_V_TEMP || !r->values[v].rank : r->values[v].dtype != TERN_F32) return false;
    }
  }
  return true; /* a TEMP of BOOL is a comparison's: nothing else above makes one */
}

/* Appends "," separated items of all parameters: kind 0 formal of the function, 1 of a kernel, 2 actual */
static void put_params(writer *w, render_text *t, int kind) {
  for (uint32_t i = 0; i < w->unit.n_param; i++) {
    const render_param *p = &w->unit.param[i];
    const char *e = kind ? "e_" : "", *before = kind == 1 ? ", " : "", *after = kind == 1 ? "" : ", ";
    const char *type = p->what == RP_ARG          ? "GLOBAL uchar *"
                       : p->what == RP_ARG_OFFSET ? "const long "
                       : p->what == RP_WORD       ? (w->unit.wide ? "const long " : "const int ")
                                                  : "const ";
    const char letter = p->what == RP_ARG ? 'A' : p->what == RP_ARG_OFFSET ? 'O' : p->what == RP_WORD ? 'w' : 'z';
    render__put(t, "%s%s", before, kind == 2 ? "" : type);
    if (p->what == RP_PARAM && kind != 2) render__put(t, "%s ", render__ctype[w->k.r->values[p->id].dtype]);
    render__put(t, "%s%c%u%s", e, letter, p->id, after);
  }
}

/* head and body of one function, whose parameters may grow until the last of them is written */
static void put_body(writer *w, bool vector) {
  render_kernel_text *k = &w->k;
  memset(w->loaded, 0, k->r->n_values + 1u);
  for (uint32_t i = 0; i < k->r->n_nodes; i++)
    if (i != w->anchor && !is_scalar(k->r, i)) put_node(w, i, vector);
  for (uint32_t v = 0; v < k->r->n_values; v++)
    if (k->r->values[v].kind == TERN_V_OUT) store(w, v, vector);
}

static void put_head(writer *w) {
  render_kernel_text *k = &w->k;
  for (uint32_t v = 0; v < k->r->n_values; v++) {
    bool used = k->r->values[v].kind == TERN_V_OUT;
    for (uint32_t i = 0; i < k->r->n_nodes && !used; i++)
      for (uint32_t j = 0; i != w->anchor && j < k->r->nodes[i].n_in; j++) used |= nest_in(k->r, i, j) == v;
    w->used[v] = used;
    if (!used) continue;
    if (is_memory(&k->r->values[v]))
      declare_pointer(w, v);
    else if (k->r->values[v].kind != TERN_V_TEMP)
      render__constant(k, v, &k->head);
  }
}

/* Is the result of scalar node i read by one that is not? */
static bool is_wanted(const tern_region *r, uint32_t i, uint32_t anchor) {
  for (uint32_t n = 0; n < r->n_nodes; n++)
    for (uint32_t k = 0; n != anchor && !is_scalar(r, n) && k < r->nodes[n].n_in; k++)
      if (nest_in(r, n, k) == nest_out(r, i)) return true;
  return false;
}

/* Each wanted scalar: a function, and a variable e_v<value> of the kernel that holds its result. Its name among
   parameters and arguments: put_scalars */
static void put_setup(writer *w, render_text *source, render_text *setup, const char *args, const char *body) {
  const tern_region *r = w->k.r;
  for (uint32_t i = 0; i < r->n_nodes; i++) {
    if (i == w->anchor || !is_scalar(r, i) || !is_wanted(r, i, w->anchor)) continue;
    const uint32_t v = nest_out(r, i);
    const char *type = render__ctype[r->values[v].dtype];
    render__put(source, "INLINE %s epilogue_%u(", type, v);
    put_params(w, source, 0);
    render__put(source, "int unused) {\n%s%sreturn v%u;\n}\n", w->k.head.s ? w->k.head.s : "", body, v);
    render__put(setup, "  const %s e_v%u = epilogue_%u(%s0);\n", type, v, v, args);
  }
}

static void put_scalars(const writer *w, render_text *t, bool formal) {
  const tern_region *r = w->k.r;
  for (uint32_t i = 0; i < r->n_nodes; i++) {
    if (i == w->anchor || !is_scalar(r, i) || !is_wanted(r, i, w->anchor)) continue;
    const uint32_t v = nest_out(r, i);
    if (formal)
      render__put(t, "const %s v%u, ", render__ctype[r->values[v].dtype], v);
    else
      render__put(t, "e_v%u, ", v);
  }
}

static void put_function(writer *w, render_text *t, const char *body, bool vector) {
  const tern_value *product = &w->k.r->values[w->product];
  render__put(t, "INLINE void epilogue%s(", vector ? "_v" : "");
  put_params(w, t, 0);
  put_scalars(w, t, true);
  for (uint32_t d = 0; d < product->rank; d++) render__put(t, "const %s i%u, ", w->unit.wide ? "long" : "int", d);
  render__put(t, "const %s %c%u) {\n%s%s}\n", vector ? "float16" : render__ctype[product->dtype], vector ? 'V' : 'v',
              w->product, w->k.head.s ? w->k.head.s : "", body ? body : "");
}

static uint32_t param_bytes(const epilogue *e, const render_param *p) {
  if (p->what == RP_WORD) return e->wide ? 8 : 4;
  if (p->what != RP_PARAM) return 8;
  const uint32_t dtype = e->values[p->id].dtype;
  return dtype == TERN_F16 || dtype == TERN_BF16 ? 4 : (uint32_t)nest_item_size(dtype);
}

static bool write_all(writer *w, epilogue *e, bool vector) {
  render_text source = {0}, params = {0}, args = {0}, setup = {0}, scalar, element;
  put_head(w);
  for (uint32_t i = 0; i < w->k.r->n_nodes; i++)
    if (i != w->anchor && is_scalar(w->k.r, i)) put_node(w, i, false);
  scalar = w->k.body;
  w->k.body = (render_text){0};
  put_body(w, false);
  element = w->k.body;
  w->k.body = (render_text){0};
  if (vector) put_body(w, true);
  render__put(&params, "%s", "");
  render__put(&args, "%s", "");
  render__put(&setup, "%s", "");
  put_params(w, &params, 1);
  put_params(w, &args, 2);
  if (!args.failed && !scalar.failed) put_setup(w, &source, &setup, args.s, scalar.s ? scalar.s : "");
  put_scalars(w, &args, false);
  put_function(w, &source, element.s, false);
  if (vector) put_function(w, &source, w->k.body.s, true);
  const bool ok = !w->k.failed && !w->k.head.failed && !w->k.body.failed && !scalar.failed && !element.failed &&
                  !source.failed && !params.failed && !args.failed && !setup.failed;
  free(w->k.head.s);
  free(w->k.body.s);
  free(scalar.s);
  free(element.s);
  e->pub.source = source.s;
  e->pub.params = params.s;
  e->pub.args = args.s;
  e->pub.setup = setup.s;
  return ok;
}

tern_rc render_epilogue_build(const tern_region *r, const render_device *dev, uint32_t lanes, render_epilogue **out) {
  writer w = {.k = {.r = r, .dev = dev}, .unit = {.wide = !(r->flags & TERN_R_IDX32)}, .lanes = lanes};
  bool in_place = false;
  if (!find_anchor(r, &w.anchor)) return TERN_E_UNSUPPORTED;
  w.product = nest_out(r, w.anchor);
  for (uint32_t v = 0; v < r->n_values; v++)
    if (!dev->fp64 && r->values[v].dtype == TERN_F64) return TERN_E_UNSUPPORTED;
  for (uint32_t i = 0; i < r->n_nodes; i++)
    if (i != w.anchor && nest_check_node(r, i, NULL, 0)) return TERN_E_UNSUPPORTED;
  if (!takes(r, &w, &in_place)) return TERN_E_UNSUPPORTED;
  w.k.u = &w.unit;
  epilogue *e = calloc(1, sizeof *e);
  w.loaded = calloc(r->n_values + 1u, 1);
  w.used = calloc(r->n_values + 1u, 1);
  if (e) e->values = malloc((r->n_values + 1u) * sizeof *e->values);
  bool ok = e && w.loaded && w.used && e->values;
  if (ok) {
    memcpy(e->values, r->values, r->n_values * sizeof *e->values);
    e->wide = w.unit.wide;
    e->pub.node = w.anchor;
    e->pub.vector = vector_ok(&w);
    ok = write_all(&w, e, e->pub.vector);
    e->pub.in_place = in_place;
    for (uint32_t v = 0; v < r->n_values; v++)
      e->pub.n_full += w.used[v] && is_memory(&r->values[v]) && same_shape(&r->values[v], &r->values[w.product]);
    e->param = w.unit.param;
    w.unit.param = NULL;
    e->pub.n_params = w.unit.n_param;
    for (uint32_t i = 0; i < e->pub.n_params; i++) e->pub.n_bytes += param_bytes(e, &e->param[i]);
  }
  free(w.loaded);
  free(w.used);
  if (!ok) {
    if (e) render_epilogue_free(&e->pub);
    return TERN_E_OOM;
  }
  *out = &e->pub;
  return TERN_OK;
}

void render_epilogue_free(render_epilogue *pub) {
  epilogue *e = (epilogue *)pub;
  if (!e) return;
  free((void *)(uintptr_t)e->pub.source);
  free((void *)(uintptr_t)e->pub.params);
  free((void *)(uintptr_t)e->pub.args);
  free((void *)(uintptr_t)e->pub.setup);
  free(e->param);
  free(e->values);
  free(e);
}

void render_epilogue_bind(const render_epilogue *pub, const tern_launch *l, render_actual *a) {
  const epilogue *e = (const epilogue *)pub;
  for (uint32_t i = 0; i < pub->n_params; i++) {
    const render_param *p = &e->param[i];
    a[i] = (render_actual){.kind = RENDER_BYTES, .slot = p->id, .size = param_bytes(e, p)};
    if (p->what == RP_ARG)
      a[i].kind = RENDER_ARG;
    else if (p->what == RP_ARG_OFFSET)
      a[i].value.u64 = l->args[p->id].offset;
    else if (p->what == RP_PARAM)
      render__bind_param(&e->values[p->id], l->words, &a[i]);
    else if (e->wide)
      a[i].value.i64 = l->words[p->id].i;
    else
      a[i].value.i32 = (int32_t)l->words[p->id].i;
  }
}
