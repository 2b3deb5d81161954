/* Whether a graph holds together: run after every pass, and on graphs from files. The rules are those of ir.h; what ops
   give is asked of their infer functions, with headers on the stack over memory that holds zeros. */
#include "graph/ir/text.h"
#include "base/alloc.h"
#include "device/device.h"
#include "ops/table.h"
#include "tensor/tensor.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { WHY = 256, LONG_WHY = 1300 };

typedef struct checker {
  const tern__graph *g;
  const char *after;
  const tern__ir_node *n; /* the node being checked */
  tern__storage storage;  /* of all operands */
  tern_tensor header[TERN__MAX_ARGS];
  int depth;
} checker;

/* The error: after, graph, node, rule. Returns false. */
static bool broken(const checker *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool broken(const checker *c, const char *format, ...) {
  char rule[LONG_WHY], node[160] = "";
  va_list list;
  va_start(list, format);
  vsnprintf(rule, sizeof rule, format, list);
  va_end(list);
  if (c->n)
    snprintf(node, sizeof node, ", node %u (%s, value %u)", (unsigned)(c->n - c->g->node), tern__node_word(c->n),
             (unsigned)c->n->first_out);
  tern__fail(TERN_E_INTERNAL, "verify after %s: graph \"%.60s\"%s: %s", c->after ? c->after : "?", c->g->name, node,
             rule);
  return false;
}

static const tern__ir_value *value_of(const checker *c, uint32_t v) { return &c->g->value[v]; }
static const tern__ir_value *out_of(const checker *c, uint32_t o) { return &c->g->value[c->n->first_out + o]; }

static const char *type_text(char *text, const tern__ir_value *v) {
  char shape[512];
  snprintf(text, 560, "%s%s%s", v->weak ? "weak " : "", tern__short_dtype(v->dtype),
           tern__sizes_text(shape, v->rank <= TERN_MAX_RANK ? v->rank : 0, v->shape));
  return text;
}

static bool same_shape(int rank_a, const int64_t *a, int rank_b, const int64_t *b) {
  return rank_a == rank_b && !memcmp(a, b, (size_t)rank_a * sizeof *a);
}
static bool same_type(const tern__ir_value *a, const tern__ir_value *b) {
  return a->dtype == b->dtype && a->weak == b->weak && same_shape(a->rank, a->shape, b->rank, b->shape);
}

/* ---- structure ---- */

/* A use of value v before node `at` is in order. */
static bool use_is(const checker *c, uint32_t v, uint32_t at, const char *what, uint32_t number) {
  if (v >= c->g->n_values) return broken(c, "%s %u is value %u of %u", what, number, v, c->g->n_values);
  const tern__ir_value *x = value_of(c, v);
  if (x->node >= c->g->n_nodes || c->g->node[x->node].kind == TERN__IR_DEAD ||
      v - c->g->node[x->node].first_out >= c->g->node[x->node].n_out)
    return broken(c, "%s %u is value %u, which no node makes", what, number, v);
  return x->node < at ||
         broken(c, "%s %u is value %u of node %u, which does not come before", what, number, v, x->node);
}

static bool operands_are(const checker *c, uint32_t at) {
  for (uint32_t i = 0; i < c->n->n_in; i++) {
    if (c->n->in[i] != TERN__IR_NONE) {
      if (!use_is(c, c->n->in[i], at, "operand", i + 1)) return false;
    } else if (c->n->kind != TERN__IR_OP || i >= 8 || !c->n->op || !(c->n->op->optional >> i & 1)) {
      return broken(c, "operand %u is left out, which is not allowed", i + 1);
    }
  }
  return true;
}

static bool outputs_are(const checker *c, uint32_t at) {
  const tern__ir_node *n = c->n;
  if (n->first_out > c->g->n_values || n->n_out > c->g->n_values - n->first_out)
    return broken(c, "its values end at %llu of %u", (unsigned long long)n->first_out + n->n_out, c->g->n_values);
  for (uint32_t o = 0; o < n->n_out; o++) {
    const tern__ir_value *v = out_of(c, o);
    if (v->node != at || v->out != o)
      return broken(c, "output %u says that it is output %u of node %u: each value has one definition", o, v->out,
                    v->node);
    if (v->dtype <= TERN_NO_DTYPE || v->dtype >= TERN_DTYPE_END) return broken(c, "output %u has no dtype", o);
    if (v->rank > TERN_MAX_RANK) return broken(c, "output %u has rank %d", o, v->rank);
    for (int d = 0; d < v->rank; d++)
      if (v->shape[d] < 0) return broken(c, "output %u has the negative size %lld", o, (long long)v->shape[d]);
    if (v->weak) {
      const bool makes = n->kind == TERN__IR_SCALAR || n->kind == TERN__IR_SOURCE || n->kind == TERN__IR_INPUT ||
                         n->kind == TERN__IR_COND || n->kind == TERN__IR_WHILE;
      if (!makes) return broken(c, "output %u is weak; only scalars, sources and what control nodes hand on are", o);
      if (v->rank || v->device || (v->dtype != TERN_F64 && v->dtype != TERN_I64 && v->dtype != TERN_U64))
        return broken(c, "output %u is weak, and so of rank 0, f64, i64 or u64, without a device", o);
    } else if (!v->device) {
      return broken(c, "output %u has no device", o);
    }
  }
  return true;
}

static bool counts_are(const checker *c, uint32_t n_in, uint32_t n_attr, uint32_t n_out) {
  const tern__ir_node *n = c->n;
  if (n->n_in == n_in && n->n_attr == n_attr && n->n_out == n_out) return true;
  return broken(c, "it has %u operands, %u attributes, %u outputs; expected %u, %u, %u", n->n_in, n->n_attr, n->n_out,
                n_in, n_attr, n_out);
}

/* ---- leaves ---- */

static bool tensor_is(const checker *c) {
  const tern_tensor *t = c->n->tensor;
  const tern__ir_value *v = out_of(c, 0);
  char a[560], b[512];
  if (!t || t == TERN_NONE || t->live != TERN__LIVE || t->flags & TERN__WEAK)
    return broken(c, "its tensor is missing, dead or a host scalar");
  const bool variable = (t->flags & TERN__VARIABLE) != 0;
  if (variable != (c->n->kind == TERN__IR_VARIABLE))
    return broken(c, "its tensor is %s variable", variable ? "a" : "no");
  if (v->weak || t->dtype != v->dtype || !same_shape(t->rank, t->shape, v->rank, v->shape))
    return broken(c, "its tensor is %s%s, its value %s", tern__short_dtype(t->dtype),
                  tern__sizes_text(b, t->rank, t->shape), type_text(a, v));
  return t->device == v->device || broken(c, "its tensor is on %s, its value on %s", t->device->name, v->device->name);
}

static bool input_is(const checker *c) {
  if (!counts_are(c, 0, 1, 1)) return false;
  const uint64_t number = c->n->attr[0].u;
  return (number < c->g->n_inputs && c->g->input[number] == c->n->first_out) ||
         broken(c, "it says that it is input %llu, which it is not among the graph's %u", (unsigned long long)number,
                c->g->n_inputs);
}

static bool variable_is(const checker *c, uint32_t at) {
  if (!counts_are(c, 0, 0, 1) || !tensor_is(c)) return false;
  uint32_t entries = 0;
  for (uint32_t k = 0; k < c->g->n_variables; k++) {
    const tern__ir_variable *v = &c->g->variable[k];
    if (v->node == at && v->variable == c->n->tensor) entries++;
    if ((v->node == at) != (v->variable == c->n->tensor)) return broken(c, "its variable has another node too");
  }
  return entries == 1 || broken(c, "the graph's list of variables has it %u times", entries);
}

static bool leaf_is(const checker *c, uint32_t at) {
  const tern__ir_node *n = c->n;
  switch (n->kind) {
  case TERN__IR_INPUT: return input_is(c);
  case TERN__IR_CONST: return counts_are(c, 0, 0, 1) && tensor_is(c);
  case TERN__IR_VARIABLE: return variable_is(c, at);
  case TERN__IR_SCALAR:
    return counts_are(c, 0, 1, 1) && (out_of(c, 0)->weak || broken(c, "the value of a scalar is weak"));
  case TERN__IR_SOURCE:
    if (n->n_in || !n->n_out) return broken(c, "a source has no operands, and outputs");
    if (!n->source || !n->source->next) return broken(c, "it has no source");
    for (uint32_t o = 0; o < n->n_out; o++)
      if (!out_of(c, o)->weak) return broken(c, "the values of a source are weak");
    return true;
  default: return counts_are(c, 1, n->n_attr ? 1 : 0, 0); /* PRINT */
  }
}

/* ---- ops ---- */

/* The value as a tensor over memory of zeros. */
static tern_tensor *header_of(checker *c, uint32_t i) {
  if (c->n->in[i] == TERN__IR_NONE) return TERN_NONE;
  const tern__ir_value *v = value_of(c, c->n->in[i]);
  tern_tensor *t = &c->header[i];
  memset(t, 0, sizeof *t);
  t->refs = 1;
  t->live = TERN__LIVE;
  t->dtype = v->dtype;
  t->rank = v->rank;
  t->flags = v->weak ? TERN__WEAK : TERN__CONTIG;
  t->device = v->device;
  t->storage = v->weak ? NULL : &c->storage;
  uint64_t step = 1;
  for (int d = v->rank; d-- > 0;) {
    t->shape[d] = v->shape[d];
    t->stride[d] = (int64_t)step;
    step *= (uint64_t)v->shape[d]; /* sizes that vary are large: it may wrap */
  }
  t->numel = (int64_t)step;
  return t;
}

static bool places_are(const checker *c) {
  const tern__ir_node *n = c->n;
  if (!n->device) return broken(c, "an op has a device");
  for (uint32_t o = 0; o < n->n_out; o++)
    if (out_of(c, o)->device != n->device)
      return broken(c, "it runs on %s, output %u lies on %s", n->device->name, o, out_of(c, o)->device->name);
  for (uint32_t i = 0; i < n->n_in && n->op != &tern__op_to; i++) {
    const tern__ir_value *v = n->in[i] == TERN__IR_NONE ? NULL : value_of(c, n->in[i]);
    if (v && !v->weak && v->device != n->device && (v->rank || tern__ir_is_view(n)))
      return broken(c, "it runs on %s, operand %u lies on %s: a `to` is missing", n->device->name, i + 1,
                    v->device->name);
  }
  return true;
}

/* What infer says, its error taken off the thread into `why`. */
static bool infer_of(const tern__call *call, tern__request *q, tern__result *r, char *why) {
  tern__thread *t = tern__thread_get();
  if (!t) return false;
  const bool pending = *tern__pending() != 0;
  if (!call->op->infer(call, q, r)) return true;
  snprintf(why, LONG_WHY - 100, "%s", pending ? "its infer function refuses it" : tern__pending());
  if (!pending) t->error_state = TERN__ERROR_NONE;
  return false;
}

static bool results_are(checker *c, const tern__call *call) {
  tern__request q;
  memset(&q, 0, sizeof q);
  q.op = call->op;
  q.device = c->n->device;
  q.n_in = (uint8_t)call->n_in;
  q.n_out = 1;
  tern__result r[TERN__MAX_ARGS];
  memset(r, 0, sizeof r);
  char why[LONG_WHY] = "", text[560], shape[512];
  if (!infer_of(call, &q, r, why)) return broken(c, "%s", why);
  if (q.n_out != c->n->n_out) return broken(c, "it has %u outputs; inference gives %u", c->n->n_out, q.n_out);
  for (uint32_t o = 0; o < q.n_out; o++) {
    const tern__ir_value *v = out_of(c, o);
    if (r[o].dtype != (tern_dtype)v->dtype || !same_shape(r[o].rank, r[o].shape, v->rank, v->shape))
      return broken(c, "output %u is %s; inference gives %s%s", o, type_text(text, v),
                    tern__short_dtype((int)r[o].dtype), tern__sizes_text(shape, r[o].rank, r[o].shape));
  }
  return true;
}

static bool op_is(checker *c) {
  const tern__ir_node *n = c->n;
  const tern__op *op = n->op;
  char why[WHY] = "";
  if (!op) return broken(c, "it has no op");
  if (n->n_in > TERN__MAX_ARGS || n->n_out > TERN__MAX_ARGS)
    return broken(c, "it has %u operands and %u outputs; at most %d together", n->n_in, n->n_out, TERN__MAX_ARGS);
  if (!places_are(c)) return false;
  tern_tensor *in[TERN__MAX_ARGS];
  for (uint32_t i = 0; i < TERN__MAX_ARGS; i++) in[i] = i < n->n_in ? header_of(c, i) : TERN_NONE;
  const tern__call call = {.op = op, .in = in, .n_in = (int)n->n_in, .attr = n->attr, .n_attr = n->n_attr};
  const bool view = tern__ir_is_view(n), to = op == &tern__op_to;
  if (view || to) {
    if (n->n_in != 1 || n->n_out != 1)
      return broken(c, "it has %u operands and %u outputs; expected 1 and 1", n->n_in, n->n_out);
    const tern__ir_value *v = out_of(c, 0);
    if (in[0]->flags & TERN__WEAK || v->dtype != in[0]->dtype) return broken(c, "operand and result differ in dtype");
    if (to)
      return same_shape(in[0]->rank, in[0]->shape, v->rank, v->shape) ||
             broken(c, "operand and result differ in shape");
    return tern__view_is_sound(&call, v->rank, v->shape, why) || broken(c, "%s", why);
  }
  if (!op->infer) return broken(c, "%s consists of other ops and is no node", op->name);
  if (!tern__call_is_sound(&call, (int)n->n_out, why)) return broken(c, "%s", why);
  return results_are(c, &call);
}

/* ---- control nodes ---- */

static bool graph_is(checker *outer, const tern__graph *g);

/* Inputs of body b: operands [first, n_in). */
static bool body_inputs_are(const checker *c, int b, uint32_t first) {
  const tern__graph *body = c->n->body[b];
  char x[560], y[560];
  if (body->n_inputs != c->n->n_in - first)
    return broken(c, "body %d takes %u inputs and gets %u", b, body->n_inputs, c->n->n_in - first);
  for (uint32_t i = 0; i < body->n_inputs; i++) {
    const tern__ir_value *in = &body->value[body->input[i]], *given = value_of(c, c->n->in[first + i]);
    if (!same_type(in, given))
      return broken(c, "input %u of body %d is %s; it gets %s", i, b, type_text(x, in), type_text(y, given));
    if (in->device != given->device)
      return broken(c, "input %u of body %d lies on %s; it gets one on %s", i, b, in->device->name,
                    given->device->name);
  }
  return true;
}

/* Results of body b: what `like` says, n of them. */
static bool body_outputs_are(const checker *c, int b, const tern__ir_value *like, uint32_t n) {
  const tern__graph *body = c->n->body[b];
  char x[560], y[560];
  if (body->n_outputs != n) return broken(c, "body %d gives %u results; expected %u", b, body->n_outputs, n);
  for (uint32_t o = 0; o < n; o++) {
    if (body->output[o] == TERN__IR_NONE) return broken(c, "result %u of body %d is left out", o, b);
    const tern__ir_value *out = &body->value[body->output[o]];
    if (!same_type(out, &like[o]))
      return broken(c, "result %u of body %d is %s; expected %s", o, b, type_text(x, out), type_text(y, &like[o]));
  }
  return true;
}

static bool one_bool(const checker *c, const tern__ir_value *v, const char *what) {
  bool one = v->dtype == TERN_BOOL;
  for (int d = 0; d < v->rank; d++) one = one && v->shape[d] == 1;
  char text[560];
  return one || broken(c, "%s is %s; expected one BOOL", what, type_text(text, v));
}

static bool control_is(checker *c) {
  const tern__ir_node *n = c->n;
  const bool loop = n->kind == TERN__IR_WHILE;
  for (int b = 0; b < 2; b++)
    if (!n->body[b] || !graph_is(c, n->body[b])) return n->body[b] ? false : broken(c, "body %d is missing", b);
  if (!loop)
    return counts_are(c, n->n_in ? n->n_in : 1, 0, n->n_out) && one_bool(c, value_of(c, n->in[0]), "the predicate") &&
           body_inputs_are(c, 0, 1) && body_inputs_are(c, 1, 1) && body_outputs_are(c, 0, out_of(c, 0), n->n_out) &&
           body_outputs_are(c, 1, out_of(c, 0), n->n_out);
  if (!counts_are(c, n->n_in, 1, n->n_out)) return false;
  if (n->attr[0].i < 0) return broken(c, "the most trips are %lld", (long long)n->attr[0].i);
  if (n->n_in < n->n_out) return broken(c, "it has %u states and %u outputs", n->n_in, n->n_out);
  for (uint32_t o = 0; o < n->n_out; o++)
    if (!same_type(value_of(c, n->in[o]), out_of(c, o))) return broken(c, "state %u changes dtype or shape", o);
  const tern__graph *condition = n->body[0];
  if (!body_inputs_are(c, 0, 0) || !body_inputs_are(c, 1, 0) || !body_outputs_are(c, 1, out_of(c, 0), n->n_out))
    return false;
  if (condition->n_outputs != 1 || condition->output[0] == TERN__IR_NONE)
    return broken(c, "the condition gives %u results; expected one", condition->n_outputs);
  return one_bool(c, &condition->value[condition->output[0]], "the condition's result");
}

/* ---- graphs ---- */

static bool node_is(checker *c, uint32_t at) {
  const tern__ir_node *n = c->n = &c->g->node[at];
  if (n->kind == TERN__IR_DEAD) return true;
  if (n->kind > TERN__IR_WHILE) return broken(c, "%d is no kind of node", n->kind);
  if (!operands_are(c, at) || !outputs_are(c, at)) return false;
  if (n->pinned && !n->device) return broken(c, "it is pinned to no device");
  if (n->again && n->kind != TERN__IR_OP) return broken(c, "it computes nothing again; only ops do");
  const bool control = n->kind == TERN__IR_COND || n->kind == TERN__IR_WHILE;
  if (!control && (n->body[0] || n->body[1])) return broken(c, "it has a body");
  if (control) return control_is(c);
  return n->kind == TERN__IR_OP ? op_is(c) : leaf_is(c, at);
}

/* Inputs, outputs, variables. */
static bool lists_are(checker *c) {
  const tern__graph *g = c->g;
  c->n = NULL;
  for (uint32_t i = 0; i < g->n_inputs; i++) {
    if (!use_is(c, g->input[i], g->n_nodes, "input", i)) return false;
    const tern__ir_node *n = &g->node[value_of(c, g->input[i])->node];
    if (n->kind != TERN__IR_INPUT) return broken(c, "input %u is made by a node that is none", i);
    if (n->attr[0].u != i)
      return broken(c, "input %u says that it is number %llu", i, (unsigned long long)n->attr[0].u);
  }
  for (uint32_t i = 0; i < g->n_outputs; i++)
    if (g->output[i] != TERN__IR_NONE && !use_is(c, g->output[i], g->n_nodes, "result", i)) return false;
  for (uint32_t i = 0; i < g->n_variables; i++) {
    const tern__ir_variable *v = &g->variable[i];
    if (v->node >= g->n_nodes || g->node[v->node].kind != TERN__IR_VARIABLE || g->node[v->node].tensor != v->variable)
      return broken(c, "entry %u of the variables does not fit its node %u", i, v->node);
    if (!use_is(c, v->value, g->n_nodes, "the new value of variable", i)) return false;
    const tern__ir_value *before = value_of(c, g->node[v->node].first_out), *now = value_of(c, v->value);
    char a[560], b[560];
    if (!same_type(before, now))
      return broken(c, "variable %u (\"%.60s\") is %s and is assigned %s", i, v->variable->variable->name,
                    type_text(a, before), type_text(b, now));
    if (before->device != now->device)
      return broken(c, "variable %u (\"%.60s\") lies on %s and is assigned a value on %s", i,
                    v->variable->variable->name, before->device->name, now->device->name);
  }
  return true;
}

static bool graph_is(checker *outer, const tern__graph *g) {
  checker *c = tern__calloc64(sizeof *c);
  if (!c) {
    tern__fail(TERN_E_OOM, "verify: out of host memory");
    return false;
  }
  static char zeros[64];
  *c = (checker){.g = g, .after = outer->after, .depth = outer->depth + 1};
  c->storage = (tern__storage){.refs = 1, .host = zeros, .bytes = sizeof zeros};
  bool ok = c->depth <= TERN__TEXT_DEPTH || broken(c, "bodies are nested more than %d deep", TERN__TEXT_DEPTH);
  for (uint32_t i = 0; i < g->n_nodes && ok; i++) ok = node_is(c, i);
  ok = ok && lists_are(c);
  free(c);
  return ok;
}

tern_rc tern__graph_verify(const tern__graph *g, const char *after) {
  const checker outer = {.after = after};
  return graph_is((checker *)&outer, g) ? TERN_OK : tern__recorded();
}
