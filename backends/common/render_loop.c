/* One kernel of one nest as text. The forms: RK_MAP (an item, a run of elements), RK_ROWS (an item, some rows),
   RK_GROUP (a work-group, a row), RK_PASS and RK_FOLD (few long rows: each pass in parts over the machine, then a
   kernel that folds the parts and finishes the row-level work between two passes). Loops run over the reduced dims, or
   over all dims in a map. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "render_internal.h"

void render__put(render_text *t, const char *format, ...) {
  if (t->failed) return;
  for (;;) {
    va_list ap;
    va_start(ap, format);
    const int n = vsnprintf(t->s ? t->s + t->n : NULL, t->room - t->n, format, ap);
    va_end(ap);
    if (n < 0) break;
    if (t->n + (size_t)n < t->room) {
      t->n += (size_t)n;
      return;
    }
    const size_t room = 2 * t->room + (size_t)n + 1024;
    char *s = realloc(t->s, room);
    if (!s) break;
    t->s = s;
    t->room = room;
  }
  t->failed = true;
}

void render__param(render_kernel_text *k, uint32_t what, uint32_t id) {
  for (uint32_t i = 0; i < k->u->n_param; i++)
    if (k->u->param[i].what == what && k->u->param[i].id == id) return;
  render_param *p = realloc(k->u->param, (k->u->n_param + 1u) * sizeof *p);
  if (!p) {
    k->failed = true;
    return;
  }
  k->u->param = p;
  p[k->u->n_param++] = (render_param){(uint8_t)what, id};
}

const char *render__size(render_kernel_text *k, int64_t size, char buf[48]) {
  if (TERN_IS_SYM(size)) {
    render__param(k, RP_WORD, TERN_SYM_ID(size));
    snprintf(buf, 48, "w%u", TERN_SYM_ID(size));
  } else
    snprintf(buf, 48, "%lld", (long long)size);
  return buf;
}

uint32_t render__loop_dims(const render_kernel_text *k) { return k->t->red ? k->t->red : (1u << k->t->rank) - 1; }
static const char *idx(const render_kernel_text *k) { return k->u->wide ? "long" : "int"; }
static int last_dim(uint32_t mask) { return mask ? 31 - __builtin_clz(mask) : -1; }

/* ---- references to memory ---- */

typedef render_ref ref;

static const char *suffix(const ref *m) { return m->to == NEST_WS ? "w" : ""; }

/* Stride of dim d, "" when it is 0 */
static const char *stride_text(render_kernel_text *k, const ref *m, uint32_t d, char *buf, size_t room) {
  const tern_value *v = &k->r->values[m->value];
  char size[48];
  buf[0] = 0;
  if (v->shape[d] == 1) return buf;
  if (m->to != NEST_WS || v->kind == TERN_V_VIEW) {
    if (v->stride[d] == 0) return buf;
    snprintf(buf, room, TERN_IS_SYM(v->stride[d]) ? "%s" : "(%s)", render__size(k, v->stride[d], size));
    return buf;
  }
  snprintf(buf, room, "1");
  for (uint32_t e = d + 1; e < v->rank; e++)
    if (v->shape[e] != 1) {
      const size_t n = strlen(buf);
      snprintf(buf + n, room - n, " * %s", render__size(k, v->shape[e], size));
    }
  return buf;
}

static void put_terms(render_kernel_text *k, const ref *m, uint32_t dims, render_text *t) {
  char buf[256];
  for (uint32_t d = 0; d < k->r->values[m->value].rank; d++)
    if ((dims >> d & 1) && *stride_text(k, m, d, buf, sizeof buf)) render__put(t, " + i%u * %s", d, buf);
}

/* The element that the indices i... name now */
void render__element(render_kernel_text *k, const ref *m, bool full, render_text *t) {
  const int last = last_dim(render__loop_dims(k));
  render__put(t, "m%u%s[%c%u%s", m->value, suffix(m), full ? 'b' : 'r', m->value, suffix(m));
  if (full && last >= 0 && k->r->values[m->value].rank) put_terms(k, m, 1u << last, t);
  render__put(t, "]");
}

static void put_load(render_kernel_text *k, const ref *m, uint32_t as, bool full) {
  const uint32_t dtype = k->r->values[m->value].dtype;
  render__put(&k->body, "const %s x%u = %s(", render__ctype[dtype], as,
              dtype == TERN_F16    ? "t_from_h"
              : dtype == TERN_BF16 ? "t_from_b"
                                   : "");
  render__element(k, m, full, &k->body);
  render__put(&k->body, ");\n");
}

ref render__holder(const render_kernel_text *k, uint32_t holder) {
  for (uint32_t p = 0; p < k->t->n_pass; p++)
    for (uint32_t i = 0; i < k->t->pass[p].n_store; i++)
      if (k->t->pass[p].store[i].value == holder)
        return (ref){holder, k->t->pass[p].store[i].to, k->t->pass[p].store[i].mem};
  return (ref){holder, NEST_ARG, k->r->values[holder].slot};
}

static void declare_ref(render_kernel_text *k, const ref *m) {
  const int w = m->to == NEST_WS;
  if (k->used[w][m->value]) return;
  k->used[w][m->value] = 1;
  const char *type = render__storage[k->r->values[m->value].dtype];
  if (w) {
    render__param(k, RP_WS, 0);
    render__param(k, RP_SLOT_OFFSET, m->mem);
    render__put(&k->head, "GLOBAL %s *m%uw = (GLOBAL %s *)(W + S%u);\n", type, m->value, type, m->mem);
  } else { /* an OUT in place is its IN's memory: one parameter for both */
    const tern_value *v = &k->r->values[m->value];
    const uint32_t slot = v->kind == TERN_V_OUT && v->alias >= 0 ? (uint32_t)v->alias : m->mem;
    render__param(k, RP_ARG, slot);
    render__param(k, RP_ARG_OFFSET, slot);
    render__put(&k->head, "GLOBAL %s *m%u = (GLOBAL %s *)(A%u + O%u);\n", type, m->value, type, slot, slot);
  }
}

typedef void (*ref_fn)(render_kernel_text *, const ref *);

static void each_ref(render_kernel_text *k, ref_fn fn) {
  const nest *t = k->t;
  for (uint32_t i = 0; i < t->n_val; i++)
    if (t->val[i].src == NEST_ARG || t->val[i].src == NEST_WS)
      fn(k, &(ref){t->val[i].value, t->val[i].src, t->val[i].mem});
  for (uint32_t p = 0; p <= t->n_pass; p++)
    for (uint32_t i = 0; i < t->phase[p].n_store; i++)
      fn(k, &(ref){t->phase[p].store[i].value, t->phase[p].store[i].to, t->phase[p].store[i].mem});
  for (uint32_t p = 0; p < t->n_pass; p++)
    for (uint32_t i = 0; i < t->pass[p].n_store; i++)
      fn(k, &(ref){t->pass[p].store[i].value, t->pass[p].store[i].to, t->pass[p].store[i].mem});
}

/* r...: offset of the row's first element; once a reference, whichever table names it first */
static void put_row_offset(render_kernel_text *k, const ref *m) {
  const int w = m->to == NEST_WS;
  const tern_value *v = &k->r->values[m->value];
  char buf[48];
  if (k->used[w][m->value] == 2) return;
  k->used[w][m->value] = 2;
  render__put(&k->body, "const %s r%u%s = %s", idx(k), m->value, suffix(m),
              v->kind == TERN_V_VIEW ? render__size(k, v->offset, buf) : "0");
  put_terms(k, m, ~render__loop_dims(k), &k->body);
  render__put(&k->body, ";\n");
}

static void put_run_offset(render_kernel_text *k, const ref *m) {
  const int w = m->to == NEST_WS;
  const int last = last_dim(render__loop_dims(k));
  if (k->used[w][m->value] == 3) return;
  k->used[w][m->value] = 3;
  render__put(&k->body, "const %s b%u%s = r%u%s", idx(k), m->value, suffix(m), m->value, suffix(m));
  put_terms(k, m, render__loop_dims(k) & ~(last < 0 ? 0 : 1u << last), &k->body);
  render__put(&k->body, ";\n");
}

void render__forget_run(render_kernel_text *k) {
  for (uint32_t v = 0; v < k->r->n_values; v++)
    for (int w = 0; w < 2; w++)
      if (k->used[w][v] == 3) k->used[w][v] = 2;
}

/* ---- values ---- */

/* Declares z<value>: a constant or a size; a PARAM becomes a parameter of that name */
void render__constant(render_kernel_text *k, uint32_t value, render_text *t) {
  const tern_value *v = &k->r->values[value];
  char buf[48];
  if (v->kind == TERN_V_PARAM) {
    render__param(k, RP_PARAM, value);
    return;
  }
  const char *type = render__ctype[v->dtype];
  render__put(t, "const %s z%u = ", type, value);
  if (v->kind == TERN_V_CONST)
    render__literal(t, v->dtype, v->imm);
  else {
    const char *round = v->dtype == TERN_F16 ? "t_round_h" : v->dtype == TERN_BF16 ? "t_round_b" : "";
    render__put(t, v->dtype == TERN_BOOL ? "%s0 != (1l" : "%s((%s)(1l", v->dtype == TERN_BOOL ? "" : round, type);
    const tern_value *of = &k->r->values[v->slot];
    for (uint32_t d = 0; d < of->rank; d++)
      if (v->imm.u >> d & 1) render__put(t, " * (long)%s", render__size(k, of->shape[d], buf));
    render__put(t, v->dtype == TERN_BOOL ? ")" : "))");
  }
  render__put(t, ";\n");
}

/* z...: constants, parameters and sizes, at the top of the kernel */
static void declare_constants(render_kernel_text *k) {
  for (uint32_t i = 0; i < k->t->n_val; i++)
    if (k->t->val[i].src == NEST_IMM) render__constant(k, k->t->val[i].value, &k->head);
}

/* Name of operand v in pass p; emits its load first if this scope has none */
static void operand(render_kernel_text *k, uint32_t v, uint32_t pass, char out[24]) {
  const nest_val *n = nest_find(k->t, v);
  const bool kept = n->src == NEST_NODE && n->level == NEST_FULL && n->keep != NEST_KEEP_NO && pass > n->kept_at;
  const bool memory = n->src == NEST_ARG || n->src == NEST_WS;
  if ((kept || (memory && n->level == NEST_FULL)) && !k->loaded[v]) {
    const ref m = kept ? render__holder(k, n->holder) : (ref){v, n->src, n->mem};
    put_load(k, &m, v, true);
    k->loaded[v] = 1;
  }
  snprintf(out, 24, "%c%u", n->src == NEST_IMM ? 'z' : memory || kept ? 'x' : 'v', v);
}

static void put_node(render_kernel_text *k, uint32_t node, uint32_t pass) {
  char name[3][24];
  const char *in[3] = {name[0], name[1], name[2]};
  for (uint32_t i = 0; i < k->r->nodes[node].n_in; i++) operand(k, nest_in(k->r, node, i), pass, name[i]);
  if (nest_prim_of(k->r->nodes[node].op)->kind == TERN_K_REDUCE) {
    render__acc_step(k, node, in[0]);
    return;
  }
  const uint32_t out = nest_out(k->r, node);
  render__put(&k->body, "const %s v%u = ", render__ctype[k->r->values[out].dtype], out);
  render__expr(k, node, in, &k->body);
  render__put(&k->body, ";\n");
}

static void put_store(render_kernel_text *k, const ref *m, const char *x, bool full) {
  const uint32_t dtype = k->r->values[m->value].dtype;
  render__element(k, m, full, &k->body);
  render__put(&k->body, " = %s(%s);\n", dtype == TERN_F16 ? "t_to_h" : dtype == TERN_BF16 ? "t_to_b" : "", x);
}

/* ---- rows ---- */

static void split_index(render_kernel_text *k, uint32_t dims, const char *linear) {
  char buf[48];
  bool first = true;
  if (!dims) return;
  render__put(&k->body, "%s q%s = %s;\n", idx(k), dims == render__loop_dims(k) ? "l" : "r", linear);
  for (uint32_t d = k->t->rank; d-- > 0;) {
    if (!(dims >> d & 1)) continue;
    const char *q = dims == render__loop_dims(k) ? "ql" : "qr";
    (void)first;
    if (dims & ((1u << d) - 1)) {
      const char *size = render__size(k, k->t->size[d], buf);
      render__put(&k->body, "const %s i%u = %s %% %s; %s /= %s;\n", idx(k), d, q, size, q, size);
    } else
      render__put(&k->body, "const %s i%u = %s;\n", idx(k), d, q);
  }
}

static void put_product(render_kernel_text *k, const char *name, uint32_t dims) {
  char buf[48];
  render__put(&k->head, "const %s %s = 1", idx(k), name);
  for (uint32_t d = 0; d < k->t->rank; d++)
    if (dims >> d & 1) render__put(&k->head, " * %s", render__size(k, k->t->size[d], buf));
  render__put(&k->head, ";\n");
}

static void load_row_values(render_kernel_text *k) {
  for (uint32_t i = 0; i < k->t->n_val; i++) {
    const nest_val *n = &k->t->val[i];
    if ((n->src == NEST_ARG || n->src == NEST_WS) && n->level != NEST_FULL)
      put_load(k, &(ref){n->value, n->src, n->mem}, n->value, false);
  }
}

static void put_phase(render_kernel_text *k, uint32_t p, bool stores) {
  const nest_phase *ph = &k->t->phase[p];
  for (uint32_t i = 0; i < ph->n_node; i++) put_node(k, ph->node[i], p);
  if (!stores || !ph->n_store) return;
  if (k->group) render__put(&k->body, "BARRIER;\nif (LID == 0) {\n");
  for (uint32_t i = 0; i < ph->n_store; i++) {
    char x[24];
    snprintf(x, sizeof x, "v%u", ph->store[i].value);
    put_store(k, &(ref){ph->store[i].value, ph->store[i].to, ph->store[i].mem}, x, false);
  }
  if (k->group) render__put(&k->body, "}\n");
}

static void put_body(render_kernel_text *k, uint32_t p) {
  const nest_pass *ps = &k->t->pass[p];
  for (uint32_t v = 0; v < k->r->n_values; v++) k->loaded[v] = 0;
  for (uint32_t i = 0; i < ps->n_step; i++) put_node(k, ps->step[i], p);
  for (uint32_t i = 0; i < ps->n_keep; i++) {
    char x[24];
    const ref m = render__holder(k, nest_find(k->t, ps->keep[i])->holder);
    snprintf(x, sizeof x, "v%u", ps->keep[i]);
    put_store(k, &m, x, true);
  }
  for (uint32_t i = 0; i < ps->n_store; i++) {
    char x[24];
    operand(k, ps->store[i].value, p, x);
    put_store(k, &(ref){ps->store[i].value, ps->store[i].to, ps->store[i].mem}, x, true);
  }
}

/* The elements [lo, hi) of the loop: runs along the last loop dim; or, in a group, one element in GROUP by each lane */
static void put_loop(render_kernel_text *k, uint32_t p, const char *lo, const char *hi) {
  render_text *t = &k->body;
  const uint32_t dims = render__loop_dims(k);
  const int last = last_dim(dims);
  char buf[48];
  if (k->group || last < 0) {
    if (last < 0)
      render__put(t, "{\n");
    else
      render__put(t, "for (%s at = %s + (%s)LID; at < %s; at += %u) {\n", idx(k), lo, idx(k), hi, k->dev->group);
    split_index(k, dims, "at");
    each_ref(k, put_run_offset);
    put_body(k, p);
    render__put(t, "}\n");
    render__forget_run(k);
    return;
  }
  const char *size = render__size(k, k->t->size[last], buf);
  render__put(t, "ONCE for (%s l = %s; l < %s;) {\n", idx(k), lo, hi);
  const bool single = !(dims & ~(1u << last));
  if (single)
    render__put(t, "const %s first = l, run = %s - l;\n", idx(k), hi);
  else {
    render__put(t, "const %s first = l %% %s, left = %s - first, run = left < %s - l ? left : %s - l;\n", idx(k), size,
                size, hi, hi);
    char linear[80];
    snprintf(linear, sizeof linear, "l / %s", size);
    render__put(t, "%s ql = %s;\n", idx(k), linear);
    for (uint32_t d = (uint32_t)last; d-- > 0;) {
      if (!(dims >> d & 1)) continue;
      char other[48];
      const char *s = render__size(k, k->t->size[d], other);
      if (dims & ((1u << d) - 1))
        render__put(t, "const %s i%u = ql %% %s; ql /= %s;\n", idx(k), d, s, s);
      else
        render__put(t, "const %s i%u = ql;\n", idx(k), d);
    }
  }
  each_ref(k, put_run_offset);
  render__put(t, "%s e = 0;\n", idx(k));
  const bool vector = k->dev->cpu_like && render__vector_ok(k, p);
  if (vector) render__vector_loop(k, p);
  render__put(t, "%sfor (; e < run; e++) {\nconst %s i%d = first + e, at = l + e;\n(void)at;\n", vector ? "ONCE " : "",
              idx(k), last);
  put_body(k, p);
  render__put(t, "}\nl += run;\n}\n");
  render__forget_run(k);
}

/* Opens a loop over every index of the loop dims, one at a time */
void render__each_index(render_kernel_text *k) {
  render__put(&k->body, "for (%s at = 0; at < n_red; at++) {\n", idx(k));
  split_index(k, render__loop_dims(k), "at");
  each_ref(k, put_run_offset);
}

static uint32_t reduces_in(const render_kernel_text *k, uint32_t p, uint32_t *nodes) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < k->t->pass[p].n_step; i++)
    if (nest_prim_of(k->r->nodes[k->t->pass[p].step[i]].op)->kind == TERN_K_REDUCE) {
      if (nodes) nodes[n] = k->t->pass[p].step[i];
      n++;
    }
  return n;
}

static void put_row_start(render_kernel_text *k) {
  split_index(k, ((1u << k->t->rank) - 1) & ~render__loop_dims(k), "row");
  each_ref(k, put_row_offset);
  load_row_values(k);
  for (uint32_t i = 0; i < k->t->n_scalar; i++) put_node(k, k->t->scalar[i], 0);
}

/* A whole row by one item or group */
static void put_row(render_kernel_text *k, uint32_t *nodes) {
  put_row_start(k);
  for (uint32_t p = 0; p < k->t->n_pass; p++) {
    put_phase(k, p, true);
    const uint32_t n = reduces_in(k, p, nodes);
    for (uint32_t i = 0; i < n; i++) render__acc_declare(k, nodes[i]);
    put_loop(k, p, "0", "n_red");
    for (uint32_t i = 0; i < n; i++) {
      if (k->group) render__acc_group(k, nodes[i]);
      render__acc_finish(k, nodes[i]);
    }
  }
  put_phase(k, k->t->n_pass, true);
}

static void forget_rows(render_kernel_text *k) {
  for (uint32_t v = 0; v < k->r->n_values; v++)
    for (int w = 0; w < 2; w++)
      if (k->used[w][v]) k->used[w][v] = 1;
}

/* An item takes sixteen neighbouring rows as vector lanes; the last, incomplete sixteen go one by one */
static void put_columns(render_kernel_text *k, uint32_t *nodes) {
  char buf[48];
  render_text *t = &k->body;
  render__put(t,
              "const long inner = %s, blocks = (inner + 15) / 16;\nif (ITEM >= rows / inner * blocks) return;\n",
              render__size(k, k->t->size[k->t->rank - 1], buf));
  render__put(t, "const long start = ITEM %% blocks * 16, left = inner - start, row_ = ITEM / blocks * inner "
                 "+ start;\n");
  render__put(t, "if (left >= 16) {\nconst %s row = (%s)row_;\n", idx(k), idx(k));
  split_index(k, ((1u << k->t->rank) - 1) & ~render__loop_dims(k), "row");
  each_ref(k, put_row_offset);
  for (uint32_t i = 0; i < k->t->n_val; i++) {
    const nest_val *n = &k->t->val[i];
    if ((n->src == NEST_ARG || n->src == NEST_WS) && n->level == NEST_SCALAR)
      put_load(k, &(ref){n->value, n->src, n->mem}, n->value, false);
  }
  for (uint32_t i = 0; i < k->t->n_scalar; i++) put_node(k, k->t->scalar[i], 0);
  render__columns(k);
  forget_rows(k);
  render__put(t, "return;\n}\nONCE for (long one = row_; one < row_ + left; one++) {\nconst %s row = (%s)one;\n",
              idx(k), idx(k));
  put_row(k, nodes);
  render__put(t, "}\n");
}

/* Partials: part q of row `row` at W + T + 16 * most * (row * parts + q); finished reductions, 8 bytes each, behind
   them */
static uint32_t most_reduces(const render_kernel_text *k, uint32_t *all) {
  uint32_t most = 0;
  *all = 0;
  for (uint32_t p = 0; p < k->t->n_pass; p++) {
    const uint32_t n = reduces_in(k, p, NULL);
    *all += n;
    if (n > most) most = n;
  }
  return most;
}

/* The finished reductions of passes before p, and the row nodes of phases up to `phase` */
static void put_earlier(render_kernel_text *k, uint32_t p, uint32_t phase, uint32_t *nodes) {
  uint32_t number = 0, all;
  const uint32_t most = most_reduces(k, &all);
  render__put(&k->body, "GLOBAL uchar *R = W + T + %uul * (ulong)rows * (ulong)parts + (ulong)row * %uul;\n(void)R;\n",
              16 * most, 8 * all);
  for (uint32_t q = 0; q < p; q++) {
    put_phase(k, q, false);
    const uint32_t n = reduces_in(k, q, nodes);
    for (uint32_t i = 0; i < n; i++) {
      const uint32_t out = nest_out(k->r, nodes[i]);
      const char *type = render__ctype[k->r->values[out].dtype];
      render__put(&k->body, "const %s v%u = *(GLOBAL const %s *)(R + %u);\n", type, out, type, 8 * number++);
    }
  }
  if (phase >= p) put_phase(k, p, k->u->form == RK_FOLD && p == 0);
}

static void put_pass_kernel(render_kernel_text *k, uint32_t *nodes) {
  uint32_t all;
  const uint32_t p = k->u->pass, most = most_reduces(k, &all), n = reduces_in(k, p, nodes);
  render__put(&k->body, "const long unit = ITEM;\n");
  if (!k->group) render__put(&k->body, "if (unit >= (long)rows * parts) return;\n");
  render__put(&k->body, "const %s row = (%s)(unit / parts), part = (%s)(unit %% parts);\n", idx(k), idx(k), idx(k));
  render__put(&k->body,
              "const long end = ((long)part + 1) * chunk;\nconst %s lo = (%s)(part * chunk), hi = end < n_red ? "
              "(%s)end : n_red;\n",
              idx(k), idx(k), idx(k));
  put_row_start(k);
  put_earlier(k, p, p, nodes);
  reduces_in(k, p, nodes);
  for (uint32_t i = 0; i < n; i++) render__acc_declare(k, nodes[i]);
  put_loop(k, p, "lo", "hi");
  if (!n) return;
  for (uint32_t i = 0; i < n && k->group; i++) render__acc_group(k, nodes[i]);
  if (k->group) render__put(&k->body, "if (LID != 0) return;\n");
  render__put(&k->body, "GLOBAL uchar *P = W + T + %uul * (ulong)unit;\n", 16 * most);
  for (uint32_t i = 0; i < n; i++) render__acc_save(k, nodes[i], i);
}

static void put_fold_kernel(render_kernel_text *k, uint32_t *nodes) {
  uint32_t all, number = 0;
  const uint32_t p = k->u->pass, most = most_reduces(k, &all), n = reduces_in(k, p, nodes);
  render__put(&k->body, "if (ITEM >= rows) return;\nconst %s row = (%s)ITEM;\n", idx(k), idx(k));
  put_row_start(k);
  for (uint32_t q = 0; q < p; q++) number += reduces_in(k, q, NULL);
  put_earlier(k, p, p, nodes);
  reduces_in(k, p, nodes);
  for (uint32_t i = 0; i < n; i++) render__acc_declare(k, nodes[i]);
  render__put(&k->body,
              "ONCE for (long part = 0; part < parts; part++) {\nGLOBAL uchar *P = W + T + %uul * ((ulong)row * "
              "(ulong)parts + (ulong)part);\n(void)P;\n",
              16 * most);
  for (uint32_t i = 0; i < n; i++) render__acc_load(k, nodes[i], i);
  render__put(&k->body, "}\n");
  for (uint32_t i = 0; i < n; i++) {
    const uint32_t out = nest_out(k->r, nodes[i]);
    render__acc_finish(k, nodes[i]);
    render__put(&k->body, "*(GLOBAL %s *)(R + %u) = v%u;\n", render__ctype[k->r->values[out].dtype], 8 * (number + i),
                out);
  }
  put_phase(k, p + 1, true);
}

static void put_form(render_kernel_text *k, uint32_t *nodes) {
  const uint32_t dims = render__loop_dims(k), all = (1u << k->t->rank) - 1;
  each_ref(k, declare_ref);
  declare_constants(k);
  put_product(k, k->u->form == RK_MAP ? "n" : "n_red", dims);
  if (k->u->form != RK_MAP) put_product(k, "rows", all & ~dims);
  switch (k->u->form) {
  case RK_MAP:
    render__param(k, RP_CHUNK, 0);
    render__put(&k->body, "const long from = ITEM * chunk;\nif (from >= n) return;\n");
    render__put(&k->body,
                "const %s lo = (%s)from, hi = from + chunk < n ? (%s)(from + chunk) : n;\n(void)lo; (void)hi;\n",
                idx(k), idx(k), idx(k));
    put_row_start(k);
    put_loop(k, 0, "lo", "hi");
    break;
  case RK_ROWS:
    render__param(k, RP_CHUNK, 0);
    render__put(&k->body, "const long from = ITEM * chunk;\nONCE for (long row_ = from; row_ < from + chunk && "
                          "row_ < rows; row_++) {\n");
    render__put(&k->body, "const %s row = (%s)row_;\n(void)row;\n", idx(k), idx(k));
    put_row(k, nodes);
    render__put(&k->body, "}\n");
    break;
  case RK_COLUMNS: put_columns(k, nodes); break;
  case RK_GROUP:
    render__put(&k->head, "LOCAL ulong L[%u];\n", 2 * k->dev->group);
    render__put(&k->body, "const %s row = (%s)ITEM;\n(void)rows;\n", idx(k), idx(k));
    put_row(k, nodes);
    break;
  default:
    render__param(k, RP_CHUNK, 0);
    render__param(k, RP_PARTS, 0);
    render__param(k, RP_WS, 0);
    render__param(k, RP_PARTIAL_OFFSET, 0);
    if (k->group) render__put(&k->head, "LOCAL ulong L[%u];\n", 2 * k->dev->group);
    if (k->u->form == RK_PASS)
      put_pass_kernel(k, nodes);
    else
      put_fold_kernel(k, nodes);
  }
}

/* May another parameter of the kernel name the same memory as argument slot? */
bool render__is_aliased(const tern_region *r, uint32_t slot) {
  for (uint32_t v = 0; v < r->n_values; v++)
    if (r->values[v].kind == TERN_V_OUT && r->values[v].alias >= 0 &&
        (r->values[v].slot == slot || (uint32_t)r->values[v].alias == slot))
      return true;
  return false;
}

static void put_signature(render_kernel_text *k, render_text *out) {
  for (uint32_t i = 0; i < k->u->n_param; i++) {
    const render_param *p = &k->u->param[i];
    if (p->what == RP_ARG)
      render__put(out, "%sA%u, ", render__is_aliased(k->r, p->id) ? "" : "RESTRICT ", p->id);
    else if (p->what == RP_PARAM)
      render__put(out, "%s z%u, ", render__ctype[k->r->values[p->id].dtype], p->id);
    else
      render__put(out, "%c%u, ", "aOWSTwzcp"[p->what], p->id);
  }
}

bool render__has_columns(const nest_plan *plan, const render_device *dev, uint32_t nest_number) {
  render_kernel_text k = {.plan = plan, .r = plan->region, .t = &plan->nests[nest_number], .dev = dev};
  return dev->cpu_like && render__columns_ok(&k);
}

bool render__kernel(const nest_plan *plan, const render_device *dev, render_unit *u, render_text *signature,
                    render_text *body) {
  render_kernel_text k = {.plan = plan, .r = plan->region, .t = &plan->nests[u->nest], .dev = dev, .u = u};
  k.group = u->form == RK_GROUP || (u->form == RK_PASS && !dev->cpu_like);
  const size_t n = k.r->n_values + 1u;
  uint32_t *nodes = calloc(k.r->n_nodes + 1u, sizeof *nodes);
  k.used[0] = calloc(n, 1);
  k.used[1] = calloc(n, 1);
  k.loaded = calloc(n, 1);
  bool ok = nodes && k.used[0] && k.used[1] && k.loaded;
  if (ok) {
    put_form(&k, nodes);
    put_signature(&k, signature);
    render__put(body, "%s%s", k.head.s ? k.head.s : "", k.body.s ? k.body.s : "");
    ok = !k.failed && !k.head.failed && !k.body.failed && !body->failed && !signature->failed;
  }
  free(k.head.s);
  free(k.body.s);
  free(k.used[0]);
  free(k.used[1]);
  free(k.loaded);
  free(nodes);
  return ok;
}
