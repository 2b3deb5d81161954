/* Accumulators of REDUCE nodes: a<out> is the value so far, c<out> a float sum's compensation, k<out> the index of an
   ARGMAX. Merging two accumulators needs no order but, for ARGMAX, the indices. */
#include "render_internal.h"

typedef struct acc {
  uint32_t op, in, out; /* op; dtype of the input; number of the output value */
  bool sum, arg, min, kahan;
  const char *type;
} acc;

static acc acc_of(const render_kernel_text *k, uint32_t node) {
  const uint32_t op = k->r->nodes[node].op, in = k->r->values[nest_in(k->r, node, 0)].dtype;
  const bool sum = op == TERN_OP_SUM || op == TERN_OP_PROD, small = in == TERN_F16 || in == TERN_BF16 || in == TERN_F32;
  acc a = {.op = op,
           .in = in,
           .out = nest_out(k->r, node),
           .sum = sum,
           .arg = op == TERN_OP_ARGMAX || op == TERN_OP_ARGMIN,
           .min = op == TERN_OP_AMIN || op == TERN_OP_ARGMIN,
           .kahan = op == TERN_OP_SUM && small && !k->dev->fp64};
  a.type = sum && small && k->dev->fp64 ? "double"
           : sum && in < TERN_F16       ? (nest_item_size(in) == 8 ? "ulong" : "uint")
                                        : render__ctype[in];
  return a;
}

static void put_start(render_text *t, const acc *a) {
  if (a->op == TERN_OP_SUM || a->op == TERN_OP_ANY)
    render__put(t, "0");
  else if (a->op == TERN_OP_PROD || a->op == TERN_OP_ALL || a->in == TERN_BOOL)
    render__put(t, "%d", a->op == TERN_OP_AMAX ? 0 : 1);
  else if (a->in >= TERN_F16)
    render__put(t, a->min ? "INFINITY" : "-INFINITY");
  else {
    const size_t bits = 8 * nest_item_size(a->in);
    const bool is_signed = a->in >= TERN_I8 && a->in <= TERN_I64;
    const unsigned long long low = is_signed ? 1ull << (bits - 1) : 0,
                             high = is_signed ? low - 1 : ~0ull >> (64 - bits);
    render__put(t, "(%s)0x%llxul", a->type, a->min ? high : low);
  }
}

void render__acc_declare(render_kernel_text *k, uint32_t node) {
  const acc a = acc_of(k, node);
  render__put(&k->body, "%s a%u = ", a.type, a.out);
  put_start(&k->body, &a);
  render__put(&k->body, ";");
  if (a.kahan) render__put(&k->body, " float c%u = 0;", a.out);
  if (a.arg) render__put(&k->body, " long k%u = -1;", a.out);
  render__put(&k->body, "\n");
}

/* a[] (op)= x; index: that of x, for ARGMAX */
static void merge(render_kernel_text *k, const acc *a, const char *x, const char *index, bool ordered) {
  render_text *t = &k->body;
  const uint32_t o = a->out;
  const char *better = a->min ? "<" : ">";
  const bool real = a->in >= TERN_F16;
  if (a->op == TERN_OP_SUM) {
    if (a->kahan)
      render__put(t, "t_two_sum(&a%u, &c%u, %s);\n", o, o, x);
    else
      render__put(t, "a%u += (%s)%s;\n", o, a->type, x);
  } else if (a->op == TERN_OP_PROD)
    render__put(t, "a%u *= (%s)%s;\n", o, a->type, x);
  else if (a->op == TERN_OP_ANY)
    render__put(t, "a%u |= %s;\n", o, x);
  else if (a->op == TERN_OP_ALL)
    render__put(t, "a%u &= %s;\n", o, x);
  else if (!a->arg) {
    if (real)
      render__put(t, "a%u = %s %s a%u || %s != %s ? %s : a%u;\n", o, x, better, o, x, x, x, o);
    else
      render__put(t, "a%u = %s %s a%u ? %s : a%u;\n", o, x, better, o, x, o);
  } else if (ordered) {
    render__put(t, "if (k%u < 0 || ", o);
    if (real)
      render__put(t, "(a%u == a%u && (%s %s a%u || %s != %s))", o, o, x, better, o, x, x);
    else
      render__put(t, "%s %s a%u", x, better, o);
    render__put(t, ") { a%u = %s; k%u = %s; }\n", o, x, o, index);
  } else {
    render__put(t, "if (%s >= 0 && (k%u < 0 || ", index, o);
    if (real)
      render__put(t, "(%s != %s ? a%u == a%u || %s < k%u : a%u == a%u && (%s %s a%u || (%s == a%u && %s < k%u)))", x, x,
                  o, o, index, o, o, o, x, better, o, x, o, index, o);
    else
      render__put(t, "%s %s a%u || (%s == a%u && %s < k%u)", x, better, o, x, o, index, o);
    render__put(t, ")) { a%u = %s; k%u = %s; }\n", o, x, o, index);
  }
}

void render__acc_step(render_kernel_text *k, uint32_t node, const char *x) {
  const acc a = acc_of(k, node);
  merge(k, &a, x, "(long)at", true);
}

/* Lane 0 of each sub-group gets the sub-group's total: in step h lane i, which has i .. i + h - 1, takes what lane i +
   h has. Works for every width */
static void put_subgroup(render_kernel_text *k, const acc *a) {
  render_text *t = &k->body;
  const char *wide = a->in < TERN_F16 && nest_item_size(a->in) < 4 && !a->sum
                         ? "int"
                         : a->type; /* what can be handed from lane to lane */
  render__put(t, "const uint lane = get_sub_group_local_id(), width = get_sub_group_size();\n");
  render__put(t, "for (uint h = 1; h < width; h <<= 1) {\nconst %s q = (%s)t_down((%s)a%u, h);\n", a->type, a->type,
              wide, a->out);
  if (a->kahan) render__put(t, "const float qc = t_down(c%u, h);\n", a->out);
  if (a->arg) render__put(t, "const long qk = t_down(k%u, h);\n", a->out);
  render__put(t, "if (lane + h < width) {\n");
  merge(k, a, "q", "qk", false);
  if (a->kahan) render__put(t, "c%u += qc;\n", a->out);
  render__put(t, "}\n}\n");
}

/* All lanes get the group's total. Through local memory L, two 8-byte words a lane: a tree; with sub-groups, one entry
   for each of them, which every lane adds up in their order */
void render__acc_group(render_kernel_text *k, uint32_t node) {
  const acc a = acc_of(k, node);
  const bool sub = k->dev->subgroups;
  render_text *t = &k->body;
  render__put(t, "{ LOCAL %s *la = (LOCAL %s *)L; LOCAL %s *lk = (LOCAL %s *)(L + %u);\n", a.type, a.type,
              a.kahan ? "float" : "long", a.kahan ? "float" : "long", k->dev->group);
  if (sub) put_subgroup(k, &a);
  const char *at = sub ? "get_sub_group_id()" : "LID";
  render__put(t, "BARRIER;%s la[%s] = a%u;", sub ? " if (lane == 0) {" : "", at, a.out);
  if (a.kahan) render__put(t, " lk[%s] = c%u;", at, a.out);
  if (a.arg) render__put(t, " lk[%s] = k%u;", at, a.out);
  if (sub) {
    render__put(t, " } BARRIER;\na%u = la[0];", a.out);
    if (a.kahan) render__put(t, " c%u = lk[0];", a.out);
    if (a.arg) render__put(t, " k%u = lk[0];", a.out);
    render__put(t, "\nfor (uint h = 1; h < get_num_sub_groups(); h++) {\nconst %s q = la[h];\n", a.type);
    if (a.arg) render__put(t, "const long qk = lk[h];\n");
    merge(k, &a, "q", "qk", false);
    if (a.kahan) render__put(t, "c%u += lk[h];\n", a.out);
    render__put(t, "}\n}\n");
    return;
  }
  render__put(t, " BARRIER;\nfor (uint h = %uu; h > 0; h >>= 1) {\nif (LID < h) {\nconst %s q = la[LID + h];\n",
              k->dev->group / 2, a.type);
  if (a.arg) render__put(t, "const long qk = lk[LID + h];\n");
  merge(k, &a, "q", "qk", false);
  if (a.kahan) render__put(t, "c%u += lk[LID + h]; lk[LID] = c%u;\n", a.out, a.out);
  if (a.arg) render__put(t, "lk[LID] = k%u;\n", a.out);
  render__put(t, "la[LID] = a%u;\n}\nBARRIER;\n}\na%u = la[0];", a.out, a.out);
  if (a.kahan) render__put(t, " c%u = lk[0];", a.out);
  if (a.arg) render__put(t, " k%u = lk[0];", a.out);
  render__put(t, "\n}\n");
}

/* Partials: T bytes into W, [row][part][reduction] of two 8-byte words */
void render__acc_save(render_kernel_text *k, uint32_t node, uint32_t i) {
  const acc a = acc_of(k, node);
  render__put(&k->body, "*(GLOBAL %s *)(P + %uu) = a%u;", a.type, 16 * i, a.out);
  if (a.kahan) render__put(&k->body, " *(GLOBAL float *)(P + %uu) = c%u;", 16 * i + 8, a.out);
  if (a.arg) render__put(&k->body, " *(GLOBAL long *)(P + %uu) = k%u;", 16 * i + 8, a.out);
  render__put(&k->body, "\n");
}

void render__acc_load(render_kernel_text *k, uint32_t node, uint32_t i) {
  const acc a = acc_of(k, node);
  render__put(&k->body, "{ const %s q = *(GLOBAL const %s *)(P + %uu);", a.type, a.type, 16 * i);
  if (a.arg) render__put(&k->body, " const long qk = *(GLOBAL const long *)(P + %uu);", 16 * i + 8);
  if (a.kahan) render__put(&k->body, " c%u += *(GLOBAL const float *)(P + %uu);", a.out, 16 * i + 8);
  render__put(&k->body, "\n");
  merge(k, &a, "q", "qk", false);
  render__put(&k->body, "}\n");
}

void render__acc_finish(render_kernel_text *k, uint32_t node) {
  const acc a = acc_of(k, node);
  render_text *t = &k->body;
  const uint32_t to = k->r->values[a.out].dtype;
  const char *round = to == TERN_F16 ? "t_round_h" : to == TERN_BF16 ? "t_round_b" : "";
  render__put(t, "const %s v%u = ", render__ctype[to], a.out);
  if (a.arg)
    render__put(t, "k%u;\n", a.out);
  else if (a.kahan)
    render__put(t, "%s(t_sum_end(a%u, c%u));\n", round, a.out, a.out);
  else if (a.sum && to >= TERN_F16)
    render__put(t, "%s((%s)a%u);\n", round, render__ctype[to], a.out);
  else
    render__put(t, "(%s)a%u;\n", render__ctype[to], a.out);
}
