/* Sixteen elements at a time with OpenCL's float16, for passes that compute in float32 only over memory that is dense
   or constant along the last loop dim. X<v> is a loaded vector, V<v> a computed one (an int16 mask for comparisons),
   B<out> a reduction's lanes; the lanes are folded into the scalar accumulator a<out> after each run. What is left of a
   run goes through the scalar loop. */
#include <stdio.h>

#include "render_internal.h"

/* The dim along which the lanes lie: in the column form the innermost (an outer dim, lanes are rows), else the last
   loop dim */
static int lane_dim(const render_kernel_text *k) {
  return k->columns ? (int)k->t->rank - 1 : 31 - __builtin_clz(render__loop_dims(k));
}

static bool is_kept(const nest_val *n, uint32_t pass) {
  return n->src == NEST_NODE && n->level == NEST_FULL && n->keep != NEST_KEEP_NO && pass > n->kept_at;
}

/* Stride 1 (true) or 0 along the last loop dim, known now */
static bool stride_known(const render_kernel_text *k, const render_ref *m, bool *one) {
  const tern_value *v = &k->r->values[m->value];
  const int d = lane_dim(k);
  *one =
      v->shape[d] != 1 && (m->to == NEST_WS && v->kind != TERN_V_VIEW ? (uint32_t)d + 1 == v->rank : v->stride[d] == 1);
  if (*one || v->shape[d] == 1) return true;
  return !(m->to == NEST_WS && v->kind != TERN_V_VIEW) && v->stride[d] == 0;
}

static bool source_ok(const render_kernel_text *k, uint32_t v, uint32_t pass) {
  const nest_val *n = nest_find(k->t, v);
  bool one;
  const bool vector = n->level == NEST_FULL || (k->columns && n->level == NEST_ROW);
  if (n->src == NEST_IMM || !vector) return k->r->values[v].dtype == TERN_F32;
  if (is_kept(n, pass)) {
    const render_ref m = render__holder(k, n->holder);
    return k->r->values[v].dtype == TERN_F32 && stride_known(k, &m, &one) && one;
  }
  if (n->src == NEST_NODE) return true; /* its own step is checked */
  return k->r->values[v].dtype == TERN_F32 && stride_known(k, &(render_ref){v, n->src, n->mem}, &one);
}

static bool step_ok(const render_kernel_text *k, uint32_t node, uint32_t pass) {
  const uint32_t op = k->r->nodes[node].op, out = k->r->values[nest_out(k->r, node)].dtype;
  const bool compares = op >= TERN_OP_EQ && op <= TERN_OP_GE;
  for (uint32_t i = 0; i < k->r->nodes[node].n_in; i++) {
    const uint32_t v = nest_in(k->r, node, i), dtype = k->r->values[v].dtype;
    const nest_val *n = nest_find(k->t, v);
    const bool mask = op == TERN_OP_WHERE && i == 0; /* a mask exists only as a comparison of this pass */
    const bool computed =
        n->src == NEST_NODE && (n->level == NEST_FULL || (k->columns && n->level == NEST_ROW)) && !is_kept(n, pass);
    if (mask ? !computed || k->r->nodes[n->node].op < TERN_OP_EQ || k->r->nodes[n->node].op > TERN_OP_GE
             : dtype != TERN_F32)
      return false;
    if (!source_ok(k, v, pass)) return false;
  }
  if (op == TERN_OP_SUM) return out == TERN_F32 && k->dev->fp64;
  if (op == TERN_OP_AMAX || op == TERN_OP_AMIN) return out == TERN_F32;
  if (nest_prim_of(op)->kind != TERN_K_MAP || !k->r->nodes[node].n_in) return false;
  return (compares || out == TERN_F32) && render__vector_form(op);
}

bool render__vector_ok(const render_kernel_text *k, uint32_t pass) {
  const nest_pass *ps = &k->t->pass[pass];
  bool one;
  if (!k->t->rank || !ps->n_step) return false;
  for (uint32_t i = 0; i < ps->n_step; i++)
    if (!step_ok(k, ps->step[i], pass)) return false;
  for (uint32_t i = 0; i < ps->n_keep; i++) {
    const render_ref m = render__holder(k, nest_find(k->t, ps->keep[i])->holder);
    if (k->r->values[ps->keep[i]].dtype != TERN_F32 || !stride_known(k, &m, &one) || !one) return false;
  }
  for (uint32_t i = 0; i < ps->n_store; i++) {
    const nest_store *s = &ps->store[i];
    if (k->r->values[s->value].dtype != TERN_F32 || !stride_known(k, &(render_ref){s->value, s->to, s->mem}, &one) ||
        !one)
      return false;
  }
  return true;
}

static void vector_operand(render_kernel_text *k, uint32_t v, uint32_t pass, char out[48]) {
  const nest_val *n = nest_find(k->t, v);
  const bool kept = is_kept(n, pass), memory = n->src == NEST_ARG || n->src == NEST_WS;
  bool one;
  if (n->src == NEST_IMM || !(n->level == NEST_FULL || (k->columns && n->level == NEST_ROW))) {
    snprintf(out, 48, "(float16)(%c%u)", n->src == NEST_IMM ? 'z' : memory ? 'x' : 'v', v);
    return;
  }
  snprintf(out, 48, "%c%u", kept || memory ? 'X' : 'V', v);
  if ((!kept && !memory) || k->loaded[v]) return;
  const render_ref m = kept ? render__holder(k, n->holder) : (render_ref){v, n->src, n->mem};
  stride_known(k, &m, &one);
  render__put(&k->body, one ? "const float16 X%u = vload16(0, &" : "const float16 X%u = (float16)(", v);
  render__element(k, &m, n->level == NEST_FULL, &k->body);
  render__put(&k->body, ");\n");
  k->loaded[v] = 1;
}

static bool is_reduce(const render_kernel_text *k, uint32_t node) {
  return nest_prim_of(k->r->nodes[node].op)->kind == TERN_K_REDUCE;
}

static void vector_step(render_kernel_text *k, uint32_t node, uint32_t pass) {
  char name[3][48];
  const char *in[3] = {name[0], name[1], name[2]};
  const uint32_t op = k->r->nodes[node].op, out = nest_out(k->r, node);
  render_text *t = &k->body;
  for (uint32_t i = 0; i < k->r->nodes[node].n_in; i++) vector_operand(k, nest_in(k->r, node, i), pass, name[i]);
  if (op == TERN_OP_SUM)
    render__put(t, "B%u += convert_double16(%s);\n", out, in[0]);
  else if (is_reduce(k, node))
    render__put(t, "B%u = select(B%u, %s, (%s %c B%u) | (%s != %s));\n", out, out, in[0], in[0],
                op == TERN_OP_AMAX ? '>' : '<', out, in[0], in[0]);
  else {
    render__put(t, "const %s V%u = ", op >= TERN_OP_EQ && op <= TERN_OP_GE ? "int16" : "float16", out);
    render__vector_expand(t, render__vector_form(op), in);
    render__put(t, ";\n");
  }
}

static void vector_store(render_kernel_text *k, uint32_t v, const render_ref *m, uint32_t pass, bool full) {
  char x[48];
  vector_operand(k, v, pass, x);
  render__put(&k->body, "vstore16(%s, 0, &", x);
  render__element(k, m, full, &k->body);
  render__put(&k->body, ");\n");
}

/* Lanes to a<out>: SUM in pairs; AMAX and AMIN one by one, as they propagate NaN */
static void fold_lanes(render_kernel_text *k, uint32_t node) {
  const uint32_t op = k->r->nodes[node].op, out = nest_out(k->r, node);
  render_text *t = &k->body;
  if (op == TERN_OP_SUM) {
    render__put(t,
                "{ const double8 h8 = B%u.lo + B%u.hi; const double4 h4 = h8.lo + h8.hi; const double2 h2 = h4.lo + "
                "h4.hi; a%u += h2.x + h2.y; }\n",
                out, out, out);
    return;
  }
  render__put(t,
              "{ float lane[16]; vstore16(B%u, 0, lane);\nfor (int j = 0; j < 16; j++) a%u = lane[j] %c a%u || lane[j] "
              "!= lane[j] ? lane[j] : a%u; }\n",
              out, out, op == TERN_OP_AMAX ? '>' : '<', out, out);
}

static void declare_lanes(render_kernel_text *k, uint32_t pass) {
  const nest_pass *ps = &k->t->pass[pass];
  render_text *t = &k->body;
  for (uint32_t i = 0; i < ps->n_step; i++) {
    if (!is_reduce(k, ps->step[i])) continue;
    const uint32_t op = k->r->nodes[ps->step[i]].op, out = nest_out(k->r, ps->step[i]);
    if (op == TERN_OP_SUM)
      render__put(t, "double16 B%u = (double16)(0.0);\n", out);
    else
      render__put(t, "float16 B%u = (float16)(%sINFINITY);\n", out, op == TERN_OP_AMAX ? "-" : "");
  }
}

/* loaded[v]: 2 = a vector of the row's level, which stays */
static void vector_body(render_kernel_text *k, uint32_t pass) {
  const nest_pass *ps = &k->t->pass[pass];
  for (uint32_t v = 0; v < k->r->n_values; v++)
    if (k->loaded[v] != 2) k->loaded[v] = 0;
  for (uint32_t i = 0; i < ps->n_step; i++) vector_step(k, ps->step[i], pass);
  for (uint32_t i = 0; i < ps->n_keep; i++) {
    const render_ref m = render__holder(k, nest_find(k->t, ps->keep[i])->holder);
    vector_store(k, ps->keep[i], &m, pass, true);
  }
  for (uint32_t i = 0; i < ps->n_store; i++)
    vector_store(k, ps->store[i].value, &(render_ref){ps->store[i].value, ps->store[i].to, ps->store[i].mem}, pass,
                 true);
}

void render__vector_loop(render_kernel_text *k, uint32_t pass) {
  const nest_pass *ps = &k->t->pass[pass];
  render_text *t = &k->body;
  render__put(t, "if (run >= 16) {\n");
  declare_lanes(k, pass);
  render__put(t, "for (; e <= run - 16; e += 16) {\nconst %s i%d = first + e;\n", k->u->wide ? "long" : "int",
              lane_dim(k));
  vector_body(k, pass);
  render__put(t, "}\n");
  for (uint32_t i = 0; i < ps->n_step; i++)
    if (is_reduce(k, ps->step[i])) fold_lanes(k, ps->step[i]);
  render__put(t, "}\n");
}

/* ---- the column form: sixteen neighbouring rows at a time, all passes ---- */

bool render__columns_ok(render_kernel_text *k) {
  const nest *t = k->t;
  bool ok = t->red && t->rank > 1 && !(t->red >> (t->rank - 1) & 1) && t->size[t->rank - 1] != 1, one;
  k->columns = true;
  for (uint32_t p = 0; p < t->n_pass && ok; p++) ok = render__vector_ok(k, p);
  for (uint32_t p = 0; p <= t->n_pass && ok; p++) {
    for (uint32_t i = 0; i < t->phase[p].n_node && ok; i++) ok = step_ok(k, t->phase[p].node[i], p);
    for (uint32_t i = 0; i < t->phase[p].n_store && ok; i++) {
      const nest_store *s = &t->phase[p].store[i];
      ok = k->r->values[s->value].dtype == TERN_F32 && stride_known(k, &(render_ref){s->value, s->to, s->mem}, &one) &&
           one;
    }
  }
  for (uint32_t i = 0; i < t->n_val && ok; i++)
    if ((t->val[i].src == NEST_ARG || t->val[i].src == NEST_WS) && t->val[i].level == NEST_ROW)
      ok = source_ok(k, t->val[i].value, 0);
  k->columns = false;
  return ok;
}

static void vector_phase(render_kernel_text *k, uint32_t p) {
  const nest_phase *ph = &k->t->phase[p];
  for (uint32_t i = 0; i < ph->n_node; i++) vector_step(k, ph->node[i], p);
  for (uint32_t i = 0; i < ph->n_store; i++)
    vector_store(k, ph->store[i].value, &(render_ref){ph->store[i].value, ph->store[i].to, ph->store[i].mem}, p, false);
}

static void finish_lanes(render_kernel_text *k, uint32_t pass) {
  for (uint32_t i = 0; i < k->t->pass[pass].n_step; i++) {
    const uint32_t node = k->t->pass[pass].step[i], out = nest_out(k->r, node);
    if (!is_reduce(k, node)) continue;
    render__put(&k->body,
                k->r->nodes[node].op == TERN_OP_SUM ? "const float16 V%u = convert_float16(B%u);\n"
                                                    : "const float16 V%u = B%u;\n",
                out, out);
  }
}

/* The indices i... name the first of the sixteen rows; r... are declared */
void render__columns(render_kernel_text *k) {
  const nest *t = k->t;
  char x[48];
  k->columns = true;
  for (uint32_t i = 0; i < t->n_val; i++) {
    const nest_val *n = &t->val[i];
    if ((n->src != NEST_ARG && n->src != NEST_WS) || n->level != NEST_ROW) continue;
    vector_operand(k, n->value, 0, x);
    k->loaded[n->value] = 2;
  }
  for (uint32_t p = 0; p < t->n_pass; p++) {
    vector_phase(k, p);
    declare_lanes(k, p);
    render__each_index(k);
    vector_body(k, p);
    render__put(&k->body, "}\n");
    render__forget_run(k);
    finish_lanes(k, p);
  }
  vector_phase(k, t->n_pass);
  for (uint32_t v = 0; v < k->r->n_values; v++) k->loaded[v] = 0;
  k->columns = false;
}
