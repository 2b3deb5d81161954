/* Sixteen elements at a time with OpenCL's float16, for passes that compute in float32 only over memory that is dense
   or constant along the last loop dim. X<v> is a loaded vector, V<v> a computed one (an int16 mask for comparisons),
   B<out> a reduction's lanes; the lanes are folded into the scalar accumulator a<out> after each run. What is left of a
   run goes through the scalar loop. */
#include <stdio.h>
#include <string.h>

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
  render__put(&k->body, one ? "const float16 X%u = t_load_v(&" : "const float16 X%u = (float16)(", v);
  render__element(k, &m, n->level == NEST_FULL, &k->body);
  render__put(&k->body, ");\n");
  k->loaded[v] = 1;
}

static bool is_reduce(const render_kernel_text *k, uint32_t node) {
  return nest_prim_of(k->r->nodes[node].op)->kind == TERN_K_REDUCE;
}

/* b<out> = the larger or smaller of it and x, lane by lane; a NaN stays */
static void put_extreme(render_text *t, uint32_t op, char b, uint32_t out, const char *x) {
  render__put(t, "%c%u = select(%c%u, %s, (%s %c %c%u) | (%s != %s));\n", b, out, b, out, x, x,
              op == TERN_OP_AMAX ? '>' : '<', b, out, x, x);
}

static void vector_step(render_kernel_text *k, uint32_t node, uint32_t pass) {
  char name[3][48];
  const char *in[3] = {name[0], name[1], name[2]};
  const uint32_t op = k->r->nodes[node].op, out = nest_out(k->r, node);
  render_text *t = &k->body;
  for (uint32_t i = 0; i < k->r->nodes[node].n_in; i++) vector_operand(k, nest_in(k->r, node, i), pass, name[i]);
  if (op == TERN_OP_SUM)
    render__put(t,
                k->columns  ? "B%u += convert_double16(%s);\n"
                : k->second ? "G%u += %s;\n"
                            : "F%u += %s;\n",
                out, in[0]);
  else if (op == TERN_OP_DIV && k->dev->fma && !strncmp(in[1], "(float16)(", 10)) /* by one number */
    render__put(t, "const float16 V%u = t_div_by_v(%s, %s);\n", out, in[0], in[1] + strlen("(float16)"));
  else if (is_reduce(k, node))
    put_extreme(t, op, k->second ? 'G' : 'B', out, in[0]);
  else {
    render__put(t, "const %s V%u = ", op >= TERN_OP_EQ && op <= TERN_OP_GE ? "int16" : "float16", out);
    render__vector_expand(t, render__vector_form(op), in);
    render__put(t, ";\n");
  }
}

/* Results that are written once and not also read may bypass the cache, once there is much of them: it would first
   fetch what is overwritten. Elements; bytes of all operands; and the nodes of a pass that is worth being there
   twice */
enum { BYPASS_LEAST = 2 << 20, BYPASS_FROM = 32 << 20, BYPASS_STEPS = 32 };

static bool may_bypass(const render_kernel_text *k, const render_ref *m) {
  const tern_value *v = &k->r->values[m->value];
  if (m->to == NEST_WS || v->kind != TERN_V_OUT || render__is_aliased(k->r, v->slot)) return false;
  for (uint32_t p = 0; p < k->t->n_pass; p++) /* a row's values are not kept there for a later pass */
    for (uint32_t i = 0; i < k->t->pass[p].n_keep; i++)
      if (render__holder(k, nest_find(k->t, k->t->pass[p].keep[i])->holder).value == m->value) return false;
  return true;
}

static void vector_store(render_kernel_text *k, uint32_t v, const render_ref *m, uint32_t pass, bool full) {
  char x[48];
  vector_operand(k, v, pass, x);
  render__put(&k->body, k->bypass && may_bypass(k, m) ? "t_bypass_v(%s, &" : "t_store_v(%s, &", x);
  render__element(k, m, full, &k->body);
  render__put(&k->body, ");\n");
}

/* Begins an if with the condition under which a run's stores bypass the cache, for which they must be aligned. False:
   nothing of it can, and nothing was written */
static bool put_bypass_condition(render_kernel_text *k, uint32_t pass) {
  const nest_pass *ps = &k->t->pass[pass];
  uint32_t n = ps->n_store, some = 0;
  if ((k->u->form != RK_MAP && k->u->form != RK_ROWS) || ps->n_step > BYPASS_STEPS) return false;
  for (uint32_t i = 0; i < ps->n_step; i++)
    if (is_reduce(k, ps->step[i])) return false;
  for (uint32_t i = 0; i < k->t->n_val; i++) n += k->t->val[i].src == NEST_ARG && k->t->val[i].level == NEST_FULL;
  const int64_t from = BYPASS_FROM / 4 / (n ? n : 1);
  for (uint32_t i = 0; i < ps->n_store; i++) {
    const render_ref m = {ps->store[i].value, ps->store[i].to, ps->store[i].mem};
    if (!may_bypass(k, &m)) continue;
    if (!some++)
      render__put(&k->body, "if (%s >= %lld", k->t->red ? "(long)rows * n_red" : "n",
                  (long long)(from > BYPASS_LEAST ? from : BYPASS_LEAST));
    render__put(&k->body, " && t_aligned_v(m%u + b%u + first)", m.value, m.value);
  }
  if (some) render__put(&k->body, ") {\n");
  return some > 0;
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

/* Sums of float32: blocks of SUM_BLOCK vectors in float32 (F), the blocks' in float64 (B). A row lies in the cache when
   it is reduced, so that every step would wait for the one before: a second accumulator (G) then takes every other
   vector. A long pass waits for memory */
enum { SUM_BLOCK = 16 };

static bool has_sum(const render_kernel_text *k, uint32_t pass, bool *any) {
  const nest_pass *ps = &k->t->pass[pass];
  bool sum = false;
  *any = false;
  for (uint32_t i = 0; i < ps->n_step; i++) {
    *any |= is_reduce(k, ps->step[i]);
    sum |= k->r->nodes[ps->step[i]].op == TERN_OP_SUM;
  }
  return sum;
}

/* For each sum (or each extreme) of the pass, its number for each %u */
static void put_each(render_kernel_text *k, uint32_t pass, bool sums, const char *format) {
  const nest_pass *ps = &k->t->pass[pass];
  for (uint32_t i = 0; i < ps->n_step; i++)
    if (is_reduce(k, ps->step[i]) && (k->r->nodes[ps->step[i]].op == TERN_OP_SUM) == sums)
      render__put(&k->body, format, nest_out(k->r, ps->step[i]));
}

/* One vector of the run, `at` elements after e */
static void put_vector(render_kernel_text *k, uint32_t pass, uint32_t at) {
  render__put(&k->body, "{\nconst %s i%d = first + e + %u;\n", k->u->wide ? "long" : "int", lane_dim(k), at);
  vector_body(k, pass);
  render__put(&k->body, "}\n");
}

static void put_vector_run(render_kernel_text *k, uint32_t pass) {
  render_text *t = &k->body;
  bool any;
  const bool sums = has_sum(k, pass, &any), two = any && k->u->form == RK_ROWS;
  const char *type = k->u->wide ? "long" : "int";
  const int block = 16 * SUM_BLOCK * (two ? 2 : 1);
  if (two) put_each(k, pass, false, "float16 G%1$u = B%1$u;\n");
  if (sums) {
    render__put(t, "while (e <= run - 16) {\nconst %s stop = run - e < %d ? run : e + %d;\n", type, block, block);
    put_each(k, pass, true, "float16 F%u = (float16)(0.0f);\n");
    if (two) put_each(k, pass, true, "float16 G%u = (float16)(0.0f);\n");
  } else {
    render__put(t, "const %s stop = run;\n", type);
  }
  if (two) {
    render__put(t, "for (; e <= stop - 32; e += 32) {\n");
    put_vector(k, pass, 0);
    k->second = true;
    put_vector(k, pass, 16);
    k->second = false;
    render__put(t, "}\n");
  }
  render__put(t, "for (; e <= stop - 16; e += 16)\n");
  put_vector(k, pass, 0);
  if (sums) {
    put_each(k, pass, true, "B%1$u += convert_double16(F%1$u);\n");
    if (two) put_each(k, pass, true, "B%1$u += convert_double16(G%1$u);\n");
    render__put(t, "}\n");
  }
  for (uint32_t i = 0; two && i < k->t->pass[pass].n_step; i++) {
    const uint32_t op = k->r->nodes[k->t->pass[pass].step[i]].op, out = nest_out(k->r, k->t->pass[pass].step[i]);
    char second[16];
    snprintf(second, sizeof second, "G%u", out);
    if (op == TERN_OP_AMAX || op == TERN_OP_AMIN) put_extreme(t, op, 'B', out, second);
  }
}

void render__vector_loop(render_kernel_text *k, uint32_t pass) {
  const nest_pass *ps = &k->t->pass[pass];
  render_text *t = &k->body;
  render__put(t, "if (run >= 16) {\n");
  declare_lanes(k, pass);
  if ((k->bypass = put_bypass_condition(k, pass))) {
    put_vector_run(k, pass);
    k->bypass = false;
    render__put(t, "}\n");
  }
  put_vector_run(k, pass); /* its index is where the first left it */
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
