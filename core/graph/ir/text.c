/* A graph as text (docs/formats.md): one node a line, bodies in braces. Values are numbered in the order of the text;
   one with a name that is unique in its graph and looks like one goes by it. */
#include "graph/ir/text.h"
#include "base/alloc.h"
#include "device/device.h"
#include "graph/dims.h"
#include "tensor/tensor.h"
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

/* ---- what the files of the text form share ---- */

void tern__put(tern__writer *w, const char *text) {
  if (!w->bad) w->bad = tern__string_append_text(&w->s, text) != TERN_OK;
}

void tern__putf(tern__writer *w, const char *format, ...) {
  char text[256];
  va_list list;
  va_start(list, format);
  vsnprintf(text, sizeof text, format, list);
  va_end(list);
  tern__put(w, text);
}

void tern__put_quoted(tern__writer *w, const char *text) {
  tern__put(w, "\"");
  for (const char *p = text; *p; p++) {
    const unsigned char c = (unsigned char)*p;
    if (c == '"' || c == '\\')
      tern__putf(w, "\\%c", c);
    else if (c < 32 || c == 127)
      tern__putf(w, "\\x%02x", c);
    else
      tern__putf(w, "%c", c);
  }
  tern__put(w, "\"");
}

char *tern__writer_end(tern__writer *w) {
  if (!w->bad && w->s.text) return w->s.text;
  tern__string_free(&w->s);
  tern__fail(TERN_E_OOM, "graph: out of host memory for its text");
  return NULL;
}

static const char *const dtypes[TERN_DTYPE_END] = {"?",   "bool", "i8",  "i16", "i32",  "i64", "u8",
                                                   "u16", "u32",  "u64", "f16", "bf16", "f32", "f64"};

const char *tern__short_dtype(int dtype) { return dtype > 0 && dtype < TERN_DTYPE_END ? dtypes[dtype] : "?"; }

tern_dtype tern__short_dtype_named(const char *name, size_t length) {
  for (int d = 1; d < TERN_DTYPE_END; d++)
    if (strlen(dtypes[d]) == length && !memcmp(dtypes[d], name, length)) return (tern_dtype)d;
  return TERN_NO_DTYPE;
}

void tern__put_shape(tern__writer *w, tern_dtype dtype, int rank, const int64_t *shape) {
  tern__put(w, tern__short_dtype((int)dtype));
  tern__put(w, "[");
  for (int d = 0; d < rank && d < TERN_MAX_RANK; d++) {
    char size[TERN__DIMS_TEXT];
    tern__putf(w, "%s%s", d ? ", " : "", tern__dims_text(size, shape[d]));
  }
  tern__put(w, "]");
}

const char *tern__sizes_text(char *buffer, int rank, const int64_t *shape) {
  enum { ALL = 512 };
  char size[TERN__DIMS_TEXT];
  int at = snprintf(buffer, ALL, "(");
  for (int d = 0; d < rank && d < TERN_MAX_RANK && at < ALL; d++)
    at += snprintf(buffer + at, (size_t)(ALL - at), "%s%s", d ? ", " : "", tern__dims_text(size, shape[d]));
  if (at < ALL) snprintf(buffer + at, (size_t)(ALL - at), "%s)", rank == 1 ? "," : "");
  return buffer;
}

bool tern__is_label(const char *text) {
  bool ok = (text[0] >= 'a' && text[0] <= 'z') || (text[0] >= 'A' && text[0] <= 'Z') || text[0] == '_';
  for (const char *p = text; *p && ok; p++)
    ok = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') || *p == '_' || *p == '.';
  return ok;
}

const char *tern__node_word(const tern__ir_node *n) {
  static const char *const words[] = {"dead",   "op",       "input", "const", "scalar",
                                      "source", "variable", "print", "cond",  "while"};
  if (n->kind == TERN__IR_OP) return n->op ? n->op->name : "op";
  return n->kind <= TERN__IR_WHILE ? words[n->kind] : "?";
}

void *tern__elements_of(const tern_tensor *t) {
  const size_t item = tern__dtype_size[t->dtype];
  int64_t low = 0, high = 0, index[TERN_MAX_RANK] = {0};
  for (int d = 0; d < t->rank && t->numel; d++) {
    const int64_t reach = (t->shape[d] - 1) * t->stride[d];
    if (reach < 0)
      low += reach;
    else
      high += reach;
  }
  const size_t span = t->numel ? (size_t)(high - low + 1) * item : 0;
  char *all = tern__calloc(1, span + 1),
       *out = all && !(t->flags & TERN__CONTIG) ? tern__calloc((size_t)t->numel + 1, item) : all;
  if (!out) {
    free(all);
    tern__fail(TERN_E_OOM, "graph: out of host memory for a constant");
    return NULL;
  }
  if (span && tern__download(all, t->storage, (uint64_t)(t->offset + low) * item, span)) {
    if (out != all) free(out);
    free(all);
    return NULL;
  }
  if (out == all) return out;
  for (int64_t i = 0, at = -low; i < t->numel; i++) {
    memcpy(out + (size_t)i * item, all + (size_t)at * item, item);
    for (int d = t->rank; d-- > 0;) {
      at += t->stride[d];
      if (++index[d] < t->shape[d]) break;
      at -= t->shape[d] * t->stride[d];
      index[d] = 0;
    }
  }
  free(all);
  return out;
}

/* ---- values ---- */

typedef struct printer {
  tern__writer *w;
  const tern__graph *g;
  uint32_t *number; /* of each value in the text */
  bool *by_name;    /* the value goes by its name */
  int constants, indent;
} printer;

typedef struct named {
  const char *name;
  uint32_t value;
} named;

static int compare_names(const void *a, const void *b) {
  return strcmp(((const named *)a)->name, ((const named *)b)->name);
}

static uint32_t values_of(const tern__graph *g, const tern__ir_node *n) {
  if (n->first_out > g->n_values) return 0;
  return n->n_out <= g->n_values - n->first_out ? n->n_out : g->n_values - n->first_out;
}

/* Number the values and find out which go by their names. */
static bool name_values(printer *p) {
  const tern__graph *g = p->g;
  named *list = tern__calloc(g->n_values + 1u, sizeof *list);
  p->number = tern__calloc(g->n_values + 1u, sizeof *p->number);
  p->by_name = tern__calloc(g->n_values + 1u, sizeof *p->by_name);
  if (!list || !p->number || !p->by_name) {
    free(list);
    return false;
  }
  uint32_t next = 0, n = 0;
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    if (g->node[i].kind == TERN__IR_DEAD) continue;
    for (uint32_t o = 0; o < values_of(g, &g->node[i]); o++) {
      const uint32_t v = g->node[i].first_out + o;
      p->number[v] = next++;
      if (g->value[v].name && tern__is_label(g->value[v].name)) list[n++] = (named){g->value[v].name, v};
    }
  }
  qsort(list, n, sizeof *list, compare_names);
  for (uint32_t i = 0; i < n; i++)
    p->by_name[list[i].value] =
        (i == 0 || strcmp(list[i - 1].name, list[i].name)) && (i + 1 == n || strcmp(list[i + 1].name, list[i].name));
  free(list);
  return true;
}

static void put_value(const printer *p, uint32_t v) {
  if (v == TERN__IR_NONE)
    tern__put(p->w, "none");
  else if (v >= p->g->n_values)
    tern__putf(p->w, "%%?%" PRIu32, v);
  else if (p->by_name[v])
    tern__put(p->w, "%"), tern__put(p->w, p->g->value[v].name);
  else
    tern__putf(p->w, "%%%" PRIu32, p->number[v]);
}

static void put_values(const printer *p, const uint32_t *v, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    tern__put(p->w, i ? ", " : " ");
    put_value(p, v[i]);
  }
}

static void put_device(const printer *p, const tern__device *d) {
  const char *c = d ? d->name : "none";
  while ((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') || strchr("_:.-", *c)) {
    if (!*c) {
      tern__put(p->w, d ? d->name : "none");
      return;
    }
    c++;
  }
  tern__put_quoted(p->w, d->name);
}

/* weak f64, f32[2, 3]@cpu:0 */
static void put_type(const printer *p, const tern__ir_value *v) {
  if (v->weak) tern__put(p->w, "weak ");
  if (v->weak && !v->rank)
    tern__put(p->w, tern__short_dtype(v->dtype));
  else
    tern__put_shape(p->w, (tern_dtype)v->dtype, v->rank, v->shape);
  if (v->weak && !v->device) return;
  tern__put(p->w, "@");
  put_device(p, v->device);
}

/* ---- nodes ---- */

static void put_elements(const printer *p, const tern_tensor *t) {
  char *bytes = tern__elements_of(t), text[TERN__TEXT_NUMBER];
  if (!bytes) {
    p->w->bad = true;
    return;
  }
  tern__put(p->w, " {");
  for (int64_t i = 0; i < t->numel && !p->w->bad; i++) {
    tern__element_text((tern_dtype)t->dtype, bytes + (size_t)i * tern__dtype_size[t->dtype], text);
    if (i) tern__put(p->w, ", ");
    tern__put(p->w, text);
  }
  tern__put(p->w, "}");
  free(bytes);
}

static void put_hash(const printer *p, const tern_tensor *t) {
  char *bytes = tern__elements_of(t);
  if (!bytes) {
    p->w->bad = true;
    return;
  }
  tern__putf(p->w, " hash 0x%016" PRIx64, (uint64_t)XXH3_64bits(bytes, (size_t)t->numel * tern__dtype_size[t->dtype]));
  free(bytes);
}

static void put_words(const printer *p, const tern__ir_node *n) {
  char text[TERN__TEXT_NUMBER];
  if (!n->n_attr) return;
  tern__put(p->w, " {");
  for (uint32_t a = 0; a < n->n_attr; a++) {
    char size[TERN__DIMS_TEXT];
    const char *varies = tern__dims_used(n->attr[a].i) ? tern__dims_text(size, n->attr[a].i) : NULL;
    const double small = n->attr[a].f < 0 ? -n->attr[a].f : n->attr[a].f; /* as sized.c takes them */
    if (!varies && n->kind == TERN__IR_OP && small < 0x1p-20 && small > 0x1p-62)
      varies = tern__dims_scalar_text(size, n->attr[a].f);
    if (!varies) tern__word_text(n->attr[a], text);
    if (a) tern__put(p->w, ", ");
    tern__put(p->w, varies ? varies : text);
  }
  tern__put(p->w, "}");
}

/* input, const, scalar, variable: the type, then what is special. */
static void put_leaf(const printer *p, const tern__ir_node *n, const tern__ir_value *v) {
  char text[TERN__TEXT_NUMBER];
  const tern_tensor *t = n->tensor;
  if (n->kind == TERN__IR_VARIABLE && t && t->flags & TERN__VARIABLE) {
    tern__put(p->w, " ");
    tern__put_quoted(p->w, t->variable->name);
    if (t->variable->frozen) tern__put(p->w, " frozen");
  }
  tern__put(p->w, " ");
  put_type(p, v);
  if (n->kind == TERN__IR_INPUT && n->n_attr) tern__putf(p->w, " #%" PRIu64, n->attr[0].u);
  if (n->kind == TERN__IR_SCALAR && n->n_attr) {
    char size[TERN__DIMS_TEXT];
    const char *varies = v->dtype == TERN_F64            ? tern__dims_scalar_text(size, n->attr[0].f)
                         : tern__dims_used(n->attr[0].i) ? tern__dims_text(size, n->attr[0].i)
                                                         : NULL;
    tern__scalar_text((tern_dtype)v->dtype, n->attr[0], text);
    tern__putf(p->w, " %s", varies ? varies : text);
  }
  if (!t || t->flags & TERN__WEAK) return;
  const bool full = p->constants || (n->kind == TERN__IR_CONST && t->numel <= TERN__TEXT_SMALL);
  if (full)
    put_elements(p, t);
  else if (n->kind == TERN__IR_CONST)
    put_hash(p, t);
}

static void put_block(const tern__graph *g, tern__writer *w, int constants, int indent);

static void put_bodies(const printer *p, const tern__ir_node *n) {
  static const char *const words[][2] = {{"then", "else"}, {"condition", "do"}};
  for (int b = 0; b < 2; b++) {
    if (!n->body[b]) continue;
    tern__putf(p->w, " %s ", words[n->kind == TERN__IR_WHILE][b]);
    tern__put_quoted(p->w, n->body[b]->name);
    tern__put(p->w, " ");
    if (p->indent < 2 * (TERN__TEXT_DEPTH - 1))
      put_block(n->body[b], p->w, p->constants, p->indent + 2);
    else
      tern__put(p->w, "{ deeper than the text goes }");
  }
}

tern__device *tern__usual_place(const tern__graph *g, const tern__ir_node *n) {
  if (values_of(g, n)) return g->value[n->first_out].device;
  return n->n_in && n->in[0] < g->n_values ? g->value[n->in[0]].device : NULL;
}

static void put_node(const printer *p, const tern__ir_node *n) {
  const tern__graph *g = p->g;
  const uint32_t n_out = values_of(g, n);
  const tern__ir_value *out = n_out ? &g->value[n->first_out] : NULL;
  tern__putf(p->w, "%*s", p->indent + 2, "");
  for (uint32_t o = 0; o < n_out; o++) {
    if (o) tern__put(p->w, ", ");
    put_value(p, n->first_out + o);
    if (out[o].name && !p->by_name[n->first_out + o]) tern__put(p->w, " "), tern__put_quoted(p->w, out[o].name);
  }
  if (n_out) tern__put(p->w, " = ");
  tern__put(p->w, tern__node_word(n));
  const bool leaf = n->kind == TERN__IR_INPUT || n->kind == TERN__IR_CONST || n->kind == TERN__IR_SCALAR ||
                    n->kind == TERN__IR_VARIABLE;
  if (leaf && n_out == 1) {
    put_leaf(p, n, out);
  } else {
    if (n->kind == TERN__IR_SOURCE) {
      tern__put(p->w, " ");
      tern__put_quoted(p->w, n->source && n->source->name ? n->source->name : "");
    }
    put_values(p, n->in, n->n_in);
    put_words(p, n);
    for (uint32_t o = 0; o < n_out; o++) {
      tern__put(p->w, o ? ", " : " : ");
      put_type(p, &out[o]);
    }
    if (n->device != tern__usual_place(g, n)) {
      tern__put(p->w, " on @");
      put_device(p, n->device);
    }
  }
  if (n->pinned) tern__put(p->w, " pinned");
  if (n->again) tern__putf(p->w, " again %u", n->again);
  put_bodies(p, n);
  tern__put(p->w, "\n");
}

/* What variables hold in the end, in the order of their nodes. */
static void put_assignments(const printer *p) {
  const tern__graph *g = p->g;
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    if (g->node[i].kind != TERN__IR_VARIABLE) continue;
    for (uint32_t k = 0; k < g->n_variables; k++) {
      const tern__ir_variable *v = &g->variable[k];
      if (v->node != i || v->value == g->node[i].first_out) continue;
      tern__putf(p->w, "%*sassign ", p->indent + 2, "");
      put_value(p, g->node[i].first_out);
      tern__put(p->w, " = ");
      put_value(p, v->value);
      tern__put(p->w, "\n");
    }
  }
}

static void put_block(const tern__graph *g, tern__writer *w, int constants, int indent) {
  printer p = {.w = w, .g = g, .constants = constants, .indent = indent};
  tern__put(w, "{\n");
  if (name_values(&p)) {
    for (uint32_t i = 0; i < g->n_nodes && !w->bad; i++)
      if (g->node[i].kind != TERN__IR_DEAD) put_node(&p, &g->node[i]);
    put_assignments(&p);
    if (g->n_outputs) {
      tern__putf(w, "%*sreturn", indent + 2, "");
      put_values(&p, g->output, g->n_outputs);
      tern__put(w, "\n");
    }
  } else {
    w->bad = true;
  }
  free(p.number);
  free(p.by_name);
  tern__putf(w, "%*s}", indent, "");
}

char *tern__graph_text(const tern__graph *g, int constants) {
  tern__writer w = {.bad = false};
  tern__putf(&w, "tern.graph %d ", TERN__TEXT_VERSION);
  tern__put_quoted(&w, g->name);
  tern__put(&w, " ");
  put_block(g, &w, constants, 0);
  tern__put(&w, "\n");
  return tern__writer_end(&w);
}
