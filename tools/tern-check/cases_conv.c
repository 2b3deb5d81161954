/* CONV, CONV_DX, CONV_DW: every float dtype, one and two spatial dims, strides, dilations, padding, groups, and the
   layouts that operands come in. */
#include "check.h"
#include <stdio.h>

typedef struct conv_case {
  const char *name;
  int dims;
  int64_t groups, stride[2], dilation[2], pad[2];
  char
      form; /* how the arrays lie: c as the dims are, l channels last, s every second element of padded rows, n backwards,
                b (inputs) the same for the whole batch */
  bool depth; /* one channel a group, in and out */
  bool wide;
  uint32_t op, dtype;
  bool quick;
} conv_case;

enum { X, W, Y, N_SIZES = 4 };

static void array(problem *p, int i, int role, const conv_case *c, uint8_t kind) {
  static const uint8_t own[][2] = {{0, 1}, {2, 3}, {0, 2}}; /* of the sizes N, C, O, C/G */
  operand *o = &p->arg[i];
  const int rank = c->dims + 2, space = N_SIZES + (role == X ? 0 : role == Y ? 1 : 2) * c->dims;
  o->kind = kind;
  o->dtype = (uint8_t)c->dtype;
  o->fill = FILL_SMALL;
  o->rank = (uint8_t)rank;
  o->dim[0] = own[role][0];
  o->dim[1] = own[role][1];
  for (int d = 0; d < c->dims; d++) o->dim[2 + d] = (uint8_t)(space + d);
  int order[TERN_MAX_RANK]; /* dims from the slowest; channels last: filters are [taps.., C/G, O] */
  for (int d = 0; d < rank; d++) order[d] = d;
  if (c->form == 'l')
    for (int d = 0; d < rank; d++)
      order[d] = role == W ? (d < c->dims ? 2 + d : rank - 1 - d) : d == 0 ? 0 : d == rank - 1 ? 1 : d + 1;
  int64_t next = c->form == 's' ? 2 : 1;
  for (int k = rank; k-- > 0;) {
    o->stride[order[k]] = c->form == 'n' ? -next : next;
    next = next * p->size[o->dim[order[k]]] + (c->form == 's' && k == rank - 1 ? 3 : 0);
  }
  if (c->form == 'b' && kind == TERN_V_IN && role != W) o->stride[0] = 0;
}

static bool make(const void *context, int k, problem *p) {
  static const int64_t shapes[][7] = {/* N, C/G, O/G, in.., taps.. */
                                      {2, 3, 4, 7, 9, 3, 2},
                                      {1, 1, 2, 5, 6, 1, 3},
                                      {3, 17, 1, 4, 11, 2, 1},
                                      {2, 5, 34, 6, 6, 3, 3}};
  static const uint8_t roles[][3] = {{X, W, Y}, {Y, W, X}, {X, Y, W}};
  const conv_case *c = context;
  if (k >= (c->quick ? 2 : 4)) return false;
  const int64_t *s = shapes[k], per_c = c->depth ? 1 : s[1], per_o = c->depth ? 1 : s[2];
  const int n = c->dims;
  p->op = c->op;
  p->n_in = 2;
  p->n_out = 1;
  p->n_sizes = (uint8_t)(N_SIZES + 3 * n);
  p->n_attrs = (uint8_t)(2 + 3 * n);
  p->wide = c->wide;
  p->attr[0].i = n;
  p->attr[1].i = c->groups;
  p->size[0] = s[0], p->size[1] = per_c * c->groups, p->size[2] = per_o * c->groups, p->size[3] = per_c;
  for (int d = 0; d < n; d++) {
    const int at = d + 2 - n; /* a single dim is the second of the table's */
    const int64_t in = s[3 + at], taps = s[5 + at], far = (taps - 1) * c->dilation[at] + 1;
    p->attr[2 + 3 * d].i = c->stride[at];
    p->attr[3 + 3 * d].i = c->dilation[at];
    p->attr[4 + 3 * d].i = c->pad[at];
    p->size[N_SIZES + d] = in;
    p->size[N_SIZES + n + d] = (in + 2 * c->pad[at] - far) / c->stride[at] + 1;
    p->size[N_SIZES + 2 * n + d] = taps;
  }
  for (int i = 0; i < p->n_sizes; i++) p->role[i] = ROLE_FIXED;
  for (int i = 0; i < 3; i++) array(p, i, roles[c->op - TERN_OP_CONV][i], c, i == 2 ? TERN_V_OUT : TERN_V_IN);
  return true;
}

double conv_terms(const problem *p) {
  const int n = (int)p->attr[0].i;
  double taps = 1, out = (double)p->size[0];
  for (int d = 0; d < n; d++) {
    out *= (double)p->size[N_SIZES + n + d];
    taps *= (double)p->size[N_SIZES + 2 * n + d];
  }
  if (p->op == TERN_OP_CONV_DW) return out;
  return taps * (double)(p->op == TERN_OP_CONV ? p->size[3] : p->size[2] / p->attr[1].i);
}

void run_convolutions(runner *run) {
#define PLAIN .groups = 1, .stride = {1, 1}, .dilation = { 1, 1 }
  static const conv_case forms[] = {
      {.name = "channels last", .dims = 2, PLAIN, .form = 'l'},
      {.name = "channels first, padded", .dims = 2, PLAIN, .pad = {1, 1}, .form = 'c'},
      {.name = "1-D, channels last, stride 2",
       .dims = 1,
       .groups = 1,
       .stride = {1, 2},
       .dilation = {1, 1},
       .form = 'l'},
      {.name = "groups", .dims = 2, .groups = 3, .stride = {1, 1}, .dilation = {1, 1}, .pad = {1, 0}, .form = 'l'},
      {.name = "1-D, groups, channels first",
       .dims = 1,
       .groups = 2,
       .stride = {1, 1},
       .dilation = {1, 2},
       .pad = {0, 2},
       .form = 'c'},
      {.name = "stride, dilation, padding",
       .dims = 2,
       .groups = 1,
       .stride = {2, 3},
       .dilation = {1, 2},
       .pad = {2, 3},
       .form = 'l'},
      {.name = "stride 3, channels first",
       .dims = 2,
       .groups = 2,
       .stride = {3, 2},
       .dilation = {1, 1},
       .pad = {1, 1},
       .form = 'c'},
      {.name = "padding beyond the taps", .dims = 2, PLAIN, .pad = {4, 5}, .form = 'c'},
      {.name = "strided operands", .dims = 2, PLAIN, .pad = {1, 1}, .form = 's'},
      {.name = "reversed operands", .dims = 2, PLAIN, .form = 'n'},
      {.name = "depthwise, channels last",
       .dims = 2,
       .groups = 32,
       .stride = {1, 2},
       .dilation = {1, 1},
       .pad = {1, 2},
       .form = 'l',
       .depth = true},
      {.name = "depthwise, channels first",
       .dims = 2,
       .groups = 5,
       .stride = {2, 1},
       .dilation = {1, 1},
       .pad = {1, 1},
       .form = 'c',
       .depth = true},
      {.name = "one image for the batch", .dims = 2, PLAIN, .pad = {1, 1}, .form = 'b'},
      {.name = "64-bit class", .dims = 2, PLAIN, .form = 'l', .wide = true}};
#undef PLAIN
  for (uint32_t op = TERN_OP_CONV; op <= TERN_OP_CONV_DW; op++)
    for (uint32_t d = TERN_F16; d < TERN_DTYPE_END; d++)
      for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        conv_case c = forms[i];
        char name[128];
        c.op = op;
        c.dtype = d;
        c.quick = run->r->opt->quick;
        if (c.quick && i > 3) continue;
        snprintf(name, sizeof name, "%s %s, %s", nest_prim_of(op)->name, nest_dtype_name(d), c.name);
        run_case(run, name, make, &c);
      }
}
