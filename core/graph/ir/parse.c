/* A graph from its text form (docs/formats.md): statements and blocks. Reading stops at the first error; the graph so
   far is freed. What the text says is checked as far as reading it needs; tern__graph_verify checks the graph. */
#include "graph/ir/parse.h"
#include "base/alloc.h"
#include "tensor/tensor.h"
#include <stdio.h>
#include <stdlib.h>

/* ---- labels of a block: a hash table with open addressing ---- */

typedef struct symbol {
  const char *text; /* in the source; NULL: free */
  uint32_t n, value;
} symbol;

typedef struct numbered { /* an input and the number that it was given */
  uint32_t value;
  uint64_t number;
  tern__token at;
} numbered;

typedef struct defined {   /* what stands left of '=' */
  tern__token label, name; /* name.kind 0: none given */
} defined;

typedef struct block {
  tern__parser *p;
  tern__graph *g;
  symbol *table;
  uint32_t capacity, used;
  tern__list inputs; /* numbered */
} block;

static symbol *place_of(const block *b, const char *text, size_t n) {
  uint64_t hash = UINT64_C(14695981039346656037); /* FNV-1a: Fowler, Noll, Vo */
  for (size_t i = 0; i < n; i++) hash = (hash ^ (unsigned char)text[i]) * UINT64_C(1099511628211);
  uint32_t at = (uint32_t)(hash ^ hash >> 32) & (b->capacity - 1);
  while (b->table[at].text && (b->table[at].n != n || memcmp(b->table[at].text, text, n)))
    at = (at + 1) & (b->capacity - 1);
  return &b->table[at];
}

static bool grow_table(block *b) {
  if (2 * (b->used + 1) <= b->capacity) return true;
  block larger = *b;
  larger.capacity = b->capacity ? 2 * b->capacity : 64;
  larger.table = tern__calloc(larger.capacity, sizeof *larger.table);
  if (!larger.table) {
    tern__fail(TERN_E_OOM, "graph: out of host memory");
    return false;
  }
  for (uint32_t i = 0; i < b->capacity; i++)
    if (b->table[i].text) *place_of(&larger, b->table[i].text, b->table[i].n) = b->table[i];
  free(b->table);
  *b = larger;
  return true;
}

static bool define(block *b, const tern__token *label, uint32_t value) {
  if (!grow_table(b)) return false;
  symbol *s = place_of(b, label->text, label->n);
  if (s->text)
    return tern__parse_fail(b->p, label, "%%%.*s is defined twice; every value has one definition", (int)label->n,
                            label->text);
  *s = (symbol){label->text, (uint32_t)label->n, value};
  b->used++;
  return true;
}

/* The line in which the rest of the block defines the label; 0: nowhere. */
static uint32_t defined_later(const tern__parser *p, const tern__token *label) {
  tern__parser q = *p; /* reads ahead; changes no list */
  uint32_t line = 0;
  const defined *own = p->labels.it;
  for (size_t i = 0; i < p->labels.n; i++) /* the very node that uses it */
    if (own[i].label.n == label->n && !memcmp(own[i].label.text, label->text, label->n)) return own[i].label.line;
  for (int depth = 0; q.tok.kind != TERN__TOK_END && depth >= 0; tern__lex(&q)) {
    if (tern__tok_is(&q, '{')) depth++;
    if (tern__tok_is(&q, '}')) depth--;
    if (depth) continue;
    if (q.tok.kind == TERN__TOK_LABEL) {
      if (q.tok.n == label->n && !memcmp(q.tok.text, label->text, label->n)) line = q.tok.line;
    } else if (tern__tok_is(&q, '=') && line) {
      return line;
    } else if (!tern__tok_is(&q, ',') && q.tok.kind != TERN__TOK_STRING) {
      line = 0;
    }
  }
  return 0;
}

/* The value of the label that is next, or none. */
static bool parse_use(block *b, uint32_t *value) {
  tern__parser *p = b->p;
  const tern__token label = p->tok;
  if (tern__take_word(p, "none")) {
    *value = TERN__IR_NONE;
    return true;
  }
  if (label.kind != TERN__TOK_LABEL) return tern__expected(p, "a value (%NAME) or none");
  const symbol *s = b->capacity ? place_of(b, label.text, label.n) : NULL;
  if (!s || !s->text) {
    const uint32_t line = defined_later(p, &label);
    if (line)
      return tern__parse_fail(p, &label,
                              "%%%.*s is defined only in line %u; nodes stand in order, and a graph has no cycles",
                              (int)label.n, label.text, line);
    return tern__parse_fail(p, &label, "%%%.*s is not defined", (int)label.n, label.text);
  }
  *value = s->value;
  tern__lex(p);
  return true;
}

static bool parse_uses(block *b) {
  tern__parser *p = b->p;
  p->operands.n = 0;
  if (p->tok.kind != TERN__TOK_LABEL && !tern__tok_word(p, "none")) return true;
  do {
    uint32_t value, *place;
    if (!parse_use(b, &value) || !(place = tern__list_more(&p->operands, sizeof *place))) return false;
    *place = value;
  } while (tern__take_mark(p, ','));
  return true;
}

/* ---- statements ---- */

/* %3 "name", %4 = */
static bool parse_outputs(tern__parser *p) {
  p->labels.n = 0;
  if (p->tok.kind != TERN__TOK_LABEL) return true;
  do {
    defined *d = tern__list_more(&p->labels, sizeof *d);
    if (!d) return false;
    if (p->labels.n > UINT16_MAX) return tern__parse_fail(p, &p->tok, "more than %d outputs", UINT16_MAX);
    if (p->tok.kind != TERN__TOK_LABEL) return tern__expected(p, "a value (%NAME)");
    d->label = p->tok;
    tern__lex(p);
    if (p->tok.kind != TERN__TOK_STRING) continue;
    d->name = p->tok;
    tern__lex(p);
  } while (tern__take_mark(p, ','));
  return tern__expect(p, '=', "behind the values of a node");
}

/* The values of the node that was just added get their types and names, and may be used from now on. */
static bool define_outputs(block *b, tern__ir_node *n) {
  tern__parser *p = b->p;
  const tern__text_type *types = p->types.it;
  const defined *outs = p->labels.it;
  for (uint32_t o = 0; o < n->n_out; o++) {
    tern__ir_value *v = &b->g->value[n->first_out + o];
    v->dtype = types[o].dtype;
    v->rank = types[o].rank;
    v->weak = types[o].weak;
    v->device = types[o].device;
    memcpy(v->shape, types[o].shape, sizeof v->shape);
    if (!define(b, &outs[o].label, n->first_out + o)) return false;
    const tern__token *name = outs[o].name.kind ? &outs[o].name : &outs[o].label;
    if (name == &outs[o].label && name->text[0] >= '0' && name->text[0] <= '9') continue;
    if (!(v->name = tern__unquoted(p, name))) return false;
  }
  return true;
}

static bool one_output(tern__parser *p, const tern__token *word) {
  return p->labels.n == 1 || tern__parse_fail(p, word, "%.*s defines one value: %%NAME = %.*s ...", (int)word->n,
                                              word->text, (int)word->n, word->text);
}

static bool parse_index(block *b, uint32_t value) {
  tern__parser *p = b->p;
  numbered *in;
  tern_word w;
  if (p->tok.kind != TERN__TOK_INDEX || p->tok.n > 9 || !tern__word_of_text(p->tok.text, p->tok.n, &w))
    return tern__expected(p, "# and the number of the input");
  if (w.i < 0 || !(in = tern__list_more(&b->inputs, sizeof *in)))
    return tern__expected(p, "# and the number of the input");
  *in = (numbered){value, w.u, p->tok};
  tern__lex(p);
  return true;
}

static bool parse_scalar(tern__parser *p, const tern__text_type *type, tern_word *w) {
  bool taken;
  if (!tern__parse_varying_scalar(p, (tern_dtype)type->dtype, w, &taken)) return false;
  if (taken) return true;
  if ((p->tok.kind != TERN__TOK_NUMBER && p->tok.kind != TERN__TOK_WORD) ||
      !tern__scalar_of_text((tern_dtype)type->dtype, p->tok.text, p->tok.n, w))
    return tern__expected(p, "the scalar's value, a number that its dtype holds");
  tern__lex(p);
  return true;
}

static tern_tensor *parse_variable(tern__parser *p, const tern__text_type *type, const tern__token *word, char **name,
                                   bool frozen) {
  struct tern__variable *extra = tern__calloc(1, sizeof *extra);
  tern_tensor *t = extra ? tern__parse_tensor(p, type, word, true) : NULL;
  if (!t) {
    if (!extra) tern__fail(TERN_E_OOM, "graph: out of host memory");
    free(extra);
    return NULL;
  }
  *extra = (struct tern__variable){.name = *name, .frozen = frozen};
  *name = NULL;
  t->variable = extra;
  t->flags |= TERN__VARIABLE;
  return t;
}

/* input, const, scalar, variable: a type and what is special. */
static bool parse_leaf(block *b, tern__ir_kind kind, const tern__token *word) {
  tern__parser *p = b->p;
  char *name = NULL;
  bool frozen = false, ok = one_output(p, word);
  if (ok && kind == TERN__IR_VARIABLE) {
    if (p->tok.kind != TERN__TOK_STRING) return tern__expected(p, "the variable's name, in quotes");
    ok = (name = tern__unquoted(p, &p->tok)) != NULL;
    tern__lex(p);
    frozen = tern__take_word(p, "frozen");
  }
  p->types.n = 0;
  tern__text_type *type = ok ? tern__list_more(&p->types, sizeof *type) : NULL;
  ok = type && tern__parse_type(p, type);
  const uint32_t n_attr = kind == TERN__IR_INPUT || kind == TERN__IR_SCALAR;
  const uint32_t at = ok ? tern__graph_add(b->g, kind, NULL, NULL, 0, &(tern_word){0}, n_attr, 1) : TERN__IR_NONE;
  if (at == TERN__IR_NONE) {
    free(name);
    return false;
  }
  tern__ir_node *n = &b->g->node[at];
  n->device = type->device;
  ok = define_outputs(b, n);
  if (ok && kind == TERN__IR_INPUT) {
    ok = parse_index(b, n->first_out);
    if (ok) n->attr[0].u = ((numbered *)b->inputs.it)[b->inputs.n - 1].number;
  }
  if (ok && kind == TERN__IR_SCALAR) ok = parse_scalar(p, type, n->attr);
  if (ok && kind == TERN__IR_CONST) ok = (n->tensor = tern__parse_tensor(p, type, word, false)) != NULL;
  if (ok && kind == TERN__IR_VARIABLE) {
    n->tensor = parse_variable(p, type, word, &name, frozen);
    ok = n->tensor && !tern__graph_add_variable(b->g, n->tensor, at);
  }
  free(name);
  if (ok) n->pinned = tern__take_word(p, "pinned");
  return ok;
}

/* A source that was read from text gives the same values in every run: 0.5 where a float64 is wanted, else 1, 2, ... by
   output. */
typedef struct fixed_source {
  tern__ir_source source;
  int n;
  tern_word value[];
} fixed_source;

static tern_rc next_fixed(void *self, int64_t elements, tern_word *out, int n_out) {
  const fixed_source *s = self;
  (void)elements;
  for (int o = 0; o < n_out && o < s->n; o++) out[o] = s->value[o];
  return TERN_OK;
}

static bool make_source(block *b, tern__ir_node *n, const tern__token *name) {
  fixed_source *s = tern__graph_alloc(b->g, 1, sizeof *s + n->n_out * sizeof *s->value);
  char *text = s ? tern__unquoted(b->p, name) : NULL;
  char *kept = text ? tern__graph_alloc(b->g, 1, strlen(text) + 1) : NULL;
  if (kept) strcpy(kept, text);
  free(text);
  if (!kept) return false;
  s->n = (int)n->n_out;
  for (uint32_t o = 0; o < n->n_out; o++) {
    if (b->g->value[n->first_out + o].dtype == TERN_F64)
      s->value[o].f = 0.5;
    else
      s->value[o].i = o + 1;
  }
  s->source = (tern__ir_source){.next = next_fixed, .self = s, .name = kept};
  n->source = &s->source;
  return true;
}

static tern__graph *parse_block(tern__parser *p, const char *name);

static bool parse_body(block *b, uint32_t node, int which, const char *word) {
  tern__parser *p = b->p;
  char what[48];
  snprintf(what, sizeof what, "'%s' and a body", word);
  if (!tern__take_word(p, word)) return tern__expected(p, what);
  char *name = NULL;
  if (p->tok.kind == TERN__TOK_STRING) {
    if (!(name = tern__unquoted(p, &p->tok))) return false;
    tern__lex(p);
  }
  tern__graph *body = parse_block(p, name ? name : word);
  free(name);
  b->g->node[node].body[which] = body;
  return body != NULL;
}

/* : f32[2], weak i64: as many types as values. */
static bool parse_types(tern__parser *p) {
  p->types.n = 0;
  if (!p->labels.n) return true;
  if (!tern__expect(p, ':', "and the types of the node's values")) return false;
  do {
    tern__text_type *type = tern__list_more(&p->types, sizeof *type);
    if (!type) return false;
    if (p->types.n > p->labels.n) return tern__parse_fail(p, &p->tok, "more types than values (%zu)", p->labels.n);
    if (!tern__parse_type(p, type)) return false;
  } while (tern__take_mark(p, ','));
  return p->types.n == p->labels.n ||
         tern__parse_fail(p, &p->tok, "%zu types for %zu values: expected one for each", p->types.n, p->labels.n);
}

/* again NUMBER, of which the word is taken */
static bool parse_again(tern__parser *p, tern__ir_node *n) {
  tern_word w;
  if (p->tok.kind != TERN__TOK_NUMBER || p->tok.n > 5 || !tern__word_of_text(p->tok.text, p->tok.n, &w) || w.i < 1 ||
      w.i > UINT16_MAX)
    return tern__expected(p, "a number from 1 to 65535: which replay the node belongs to");
  n->again = (uint16_t)w.u;
  tern__lex(p);
  return true;
}

/* Ops, sources, prints and control nodes. */
static bool parse_general(block *b, tern__ir_kind kind, const tern__op *op) {
  tern__parser *p = b->p;
  const tern__token name = p->tok;
  if (kind == TERN__IR_SOURCE) {
    if (name.kind != TERN__TOK_STRING) return tern__expected(p, "the source's name, in quotes");
    tern__lex(p);
  }
  if (kind == TERN__IR_PRINT && p->labels.n) return tern__parse_fail(p, &name, "print defines no value");
  if (!parse_uses(b) || !tern__parse_words(p) || !parse_types(p)) return false;
  const uint32_t at = tern__graph_add(b->g, kind, op, p->operands.it, (uint32_t)p->operands.n, p->words.it,
                                      (uint32_t)p->words.n, (uint32_t)p->labels.n);
  if (at == TERN__IR_NONE) return false;
  tern__ir_node *n = &b->g->node[at];
  if (!define_outputs(b, n)) return false;
  n->device = tern__usual_place(b->g, n);
  if (tern__take_word(p, "on")) {
    if (p->tok.kind != TERN__TOK_DEVICE) return tern__expected(p, "@ and a device");
    if (!tern__parse_device(p, &n->device)) return false;
  }
  n->pinned = tern__take_word(p, "pinned");
  if (tern__take_word(p, "again") && !parse_again(p, n)) return false;
  if (kind == TERN__IR_SOURCE) return make_source(b, n, &name);
  if (kind == TERN__IR_COND) return parse_body(b, at, 0, "then") && parse_body(b, at, 1, "else");
  if (kind == TERN__IR_WHILE) return parse_body(b, at, 0, "condition") && parse_body(b, at, 1, "do");
  return true;
}

static bool parse_node(block *b) {
  static const struct {
    const char *word;
    tern__ir_kind kind;
  } kinds[] = {{"input", TERN__IR_INPUT},       {"const", TERN__IR_CONST},   {"scalar", TERN__IR_SCALAR},
               {"variable", TERN__IR_VARIABLE}, {"source", TERN__IR_SOURCE}, {"print", TERN__IR_PRINT},
               {"cond", TERN__IR_COND},         {"while", TERN__IR_WHILE}};
  tern__parser *p = b->p;
  char name[64];
  if (!parse_outputs(p)) return false;
  const tern__token word = p->tok;
  if (word.kind != TERN__TOK_WORD) return tern__expected(p, "a node, assign, return or '}'");
  tern__lex(p);
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    if (word.n != strlen(kinds[i].word) || memcmp(word.text, kinds[i].word, word.n)) continue;
    return i < 4 ? parse_leaf(b, kinds[i].kind, &word) : parse_general(b, kinds[i].kind, NULL);
  }
  const tern__op *op = NULL;
  if (word.n < sizeof name) {
    memcpy(name, word.text, word.n);
    name[word.n] = 0;
    op = tern__op_find(name);
  }
  if (!op)
    return tern__parse_fail(p, &word,
                            "there is no op \"%.*s\"; expected one of tern's ops, or one of input, const, "
                            "scalar, variable, source, print, cond, while",
                            (int)(word.n < 64 ? word.n : 64), word.text);
  return parse_general(b, TERN__IR_OP, op);
}

/* assign %w = %8 */
static bool parse_assign(block *b) {
  tern__parser *p = b->p;
  const tern__token at = p->tok;
  uint32_t variable, value;
  if (!parse_use(b, &variable) || !tern__expect(p, '=', "behind the variable")) return false;
  const tern__token from = p->tok;
  if (!parse_use(b, &value)) return false;
  if (value == TERN__IR_NONE) return tern__parse_fail(p, &from, "expected a value (%%NAME), found none");
  for (uint32_t i = 0; i < b->g->n_variables; i++) {
    tern__ir_variable *v = &b->g->variable[i];
    const uint32_t own = b->g->node[v->node].first_out;
    if (own != variable) continue;
    if (v->value != own) return tern__parse_fail(p, &at, "the variable is assigned twice");
    v->value = value;
    return true;
  }
  return tern__parse_fail(p, &at, "expected the value of a variable node behind assign");
}

/* g->input from the numbers that the inputs gave themselves. */
static bool order_inputs(block *b) {
  const numbered *in = b->inputs.it;
  for (size_t i = 0; i < b->inputs.n; i++)
    if (tern__graph_add_input(b->g, TERN__IR_NONE)) return false;
  for (size_t i = 0; i < b->inputs.n; i++) {
    if (in[i].number >= b->inputs.n)
      return tern__parse_fail(b->p, &in[i].at, "expected numbers from #0 to #%zu for %zu inputs", b->inputs.n - 1,
                              b->inputs.n);
    if (b->g->input[in[i].number] != TERN__IR_NONE)
      return tern__parse_fail(b->p, &in[i].at, "two inputs have number %llu", (unsigned long long)in[i].number);
    b->g->input[in[i].number] = in[i].value;
  }
  return true;
}

static bool parse_statements(block *b) {
  tern__parser *p = b->p;
  bool ok = true;
  while (ok && !tern__tok_is(p, '}') && !tern__tok_word(p, "assign") && !tern__tok_word(p, "return"))
    ok = parse_node(b);
  while (ok && tern__take_word(p, "assign")) ok = parse_assign(b);
  if (ok && tern__take_word(p, "return")) {
    ok = parse_uses(b);
    if (ok && !p->operands.n) ok = tern__expected(p, "a value (%NAME) or none");
    const uint32_t *values = p->operands.it;
    for (size_t i = 0; i < p->operands.n && ok; i++) ok = !tern__graph_add_output(b->g, values[i]);
  }
  return ok && order_inputs(b);
}

/* '{' statements '}' */
static tern__graph *parse_block(tern__parser *p, const char *name) {
  if (!tern__tok_is(p, '{')) {
    tern__expected(p, "'{' and the nodes of a graph");
    return NULL;
  }
  if (p->depth == TERN__TEXT_DEPTH) {
    tern__parse_fail(p, &p->tok, "bodies are nested more than %d deep", TERN__TEXT_DEPTH);
    return NULL;
  }
  tern__lex(p);
  p->depth++;
  block b = {.p = p, .g = tern__graph_new(name)};
  bool ok = b.g && parse_statements(&b);
  if (ok && !tern__tok_is(p, '}')) ok = tern__expected(p, "'}' (assignments come behind the nodes, return at the end)");
  if (ok) tern__lex(p);
  p->depth--;
  free(b.table);
  free(b.inputs.it);
  if (ok) return b.g;
  tern__graph_free(b.g);
  return NULL;
}

static tern__graph *parse_file(tern__parser *p) {
  tern_word version;
  if (!tern__take_word(p, "tern.graph")) {
    tern__expected(p, "\"tern.graph 1\", with which the text of a graph begins");
    return NULL;
  }
  if (p->tok.kind != TERN__TOK_NUMBER || !tern__word_of_text(p->tok.text, p->tok.n, &version) ||
      version.i != TERN__TEXT_VERSION) {
    tern__expected(p, "version 1, the only one that this reader knows");
    return NULL;
  }
  tern__lex(p);
  char *name = NULL;
  if (p->tok.kind == TERN__TOK_STRING) {
    if (!(name = tern__unquoted(p, &p->tok))) return NULL;
    tern__lex(p);
  }
  tern__graph *g = parse_block(p, name);
  free(name);
  if (!g || p->tok.kind == TERN__TOK_END) return g;
  tern__expected(p, "the end of the text behind the graph");
  tern__graph_free(g);
  return NULL;
}

tern__graph *tern__graph_parse(const char *text, size_t length) {
  tern__parser p = {.at = text, .end = text + length, .line_begin = text, .line = 1, .pending = *tern__pending() != 0};
  tern__lex(&p);
  tern__graph *g = parse_file(&p);
  free(p.labels.it);
  free(p.operands.it);
  free(p.words.it);
  free(p.types.it);
  free(p.bytes.it);
  return g;
}
