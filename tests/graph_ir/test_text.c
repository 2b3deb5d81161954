/* The text form: what is written reads back to the same graph, its numbers to the bit. */
#include "graph/ir/text.h"
#include "graph/sized.h"
#include "graph_ir/samples.h"
#include "support/values.h"
#include "tensor/tensor.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Whether two graphs are the same but for what a text does not hold (sources, memory). */
static bool same_tensors(const tern_tensor *a, const tern_tensor *b) {
  if (!a || !b) return a == b;
  if (a->dtype != b->dtype || a->rank != b->rank || a->numel != b->numel) return false;
  void *x = tern__elements_of(a), *y = tern__elements_of(b);
  const bool same = x && y && !memcmp(x, y, (size_t)a->numel * tern__dtype_size[a->dtype]);
  free(x);
  free(y);
  return same;
}

static bool same_graphs(const tern__graph *a, const tern__graph *b) {
  if (!a || !b) return a == b;
  bool same = !strcmp(a->name, b->name) && a->n_nodes == b->n_nodes && a->n_values == b->n_values &&
              a->n_inputs == b->n_inputs && a->n_outputs == b->n_outputs && a->n_variables == b->n_variables;
  for (uint32_t i = 0; i < a->n_nodes && same; i++) {
    const tern__ir_node *m = &a->node[i], *n = &b->node[i];
    same = m->kind == n->kind && m->op == n->op && m->pinned == n->pinned && m->n_in == n->n_in &&
           m->n_attr == n->n_attr && m->n_out == n->n_out && m->first_out == n->first_out &&
           (!m->n_in || !memcmp(m->in, n->in, m->n_in * sizeof *m->in)) &&
           (!m->n_attr || !memcmp(m->attr, n->attr, m->n_attr * sizeof *m->attr)) &&
           (m->kind == TERN__IR_SCALAR || m->kind == TERN__IR_SOURCE || m->device == n->device) &&
           same_tensors(m->tensor, n->tensor) && same_graphs(m->body[0], n->body[0]) &&
           same_graphs(m->body[1], n->body[1]);
    CHECK(same, "node %u differs", i);
  }
  for (uint32_t v = 0; v < a->n_values && same; v++) {
    const tern__ir_value *x = &a->value[v], *y = &b->value[v];
    same = x->node == y->node && x->out == y->out && x->dtype == y->dtype && x->rank == y->rank && x->weak == y->weak &&
           x->device == y->device && !memcmp(x->shape, y->shape, x->rank * sizeof *x->shape) &&
           !strcmp(x->name ? x->name : "", y->name ? y->name : "");
  }
  same = same && (!a->n_inputs || !memcmp(a->input, b->input, a->n_inputs * sizeof *a->input)) &&
         (!a->n_outputs || !memcmp(a->output, b->output, a->n_outputs * sizeof *a->output));
  for (uint32_t k = 0; k < a->n_variables && same; k++)
    same = a->variable[k].node == b->variable[k].node && a->variable[k].value == b->variable[k].value &&
           tern_trainable(a->variable[k].variable) == tern_trainable(b->variable[k].variable);
  return same;
}

static void round_trip(tern__graph *g, const char *what) {
  CHECK(tern__graph_verify(g, "building") == TERN_OK, "%s: %s", what, tern_error());
  tern_error_clear();
  char *text = text_of(g, 1);
  tern__graph *again = parse(text);
  CHECK(again, "%s: %s\n%s", what, tern_error(), text);
  tern_error_clear();
  if (again) {
    char *second = text_of(again, 1);
    CHECK(!strcmp(text, second), "%s: written again it is\n%s\nand was\n%s", what, second, text);
    CHECK(same_graphs(g, again), "%s: read back it differs:\n%s", what, text);
    CHECK(tern__graph_verify(again, "parsing") == TERN_OK, "%s: %s", what, tern_error());
    tern_error_clear();
    char *dot = tern__graph_dot(again);
    CHECK(dot && strstr(dot, "digraph") == dot, "%s: dot", what);
    free(dot);
    free(second);
  }
  tern__graph_free(again);
  tern__graph_free(g);
  free(text);
}

static void test_all_kinds(void) { round_trip(sample_all_kinds(), "all kinds"); }

static void test_random(void) {
  for (uint64_t seed = 1; seed <= 300; seed++) {
    char what[40];
    snprintf(what, sizeof what, "seed %llu", (unsigned long long)seed);
    round_trip(sample_random(seed, 3 + (int)(seed % 60)), what);
  }
}

static void test_empty(void) {
  round_trip(tern__graph_new(""), "empty");
  round_trip(tern__graph_new("\x01 \\ \" %"), "odd name");
}

/* Dead nodes leave no trace; values are numbered anew. */
static void test_dead(void) {
  tern__graph *g = tern__graph_new("dead");
  const uint32_t x = add_input(g, TERN_F32, 1, (int64_t[]){3});
  const uint32_t lost = add_op(g, "exp", &x, 1, NULL, 0, TERN_F32, 1, (int64_t[]){3});
  tern__graph_add_output(g, add_op(g, "neg", &x, 1, NULL, 0, TERN_F32, 1, (int64_t[]){3}));
  g->node[g->value[lost].node].kind = TERN__IR_DEAD;
  char *before = text_of(g, 0);
  CHECK(strstr(before, "%1 = neg %0") && !strstr(before, "exp"), "%s", before);
  CHECK(tern__graph_verify(g, "a pass") == TERN_OK, "%s", tern_error());
  CHECK(tern__graph_compact(g) == TERN_OK, "%s", tern_error());
  char *after = text_of(g, 0);
  CHECK(!strcmp(before, after), "%s\n%s", before, after);
  free(before);
  free(after);
  tern__graph_free(g);
}

/* Values without those of large constants cannot be read. */
static void test_hash(void) {
  TERN_SCOPE;
  tern__graph *g = tern__graph_new("large");
  add_const(g, tern_permute(tern_reshape(tern_arange(0, 20, 1, TERN_F32), TERN_SHAPE(4, 5)), NULL, 2));
  char *text = text_of(g, 0), *full = text_of(g, 1);
  CHECK(strstr(text, "hash 0x"), "%s", text);
  CHECK(strstr(full, "{0.0, 5.0, 10.0, 15.0, 1.0,"), "%s", full);
  CHECK(!parse(text), "read");
  CHECK_ERROR(TERN_E_ARG, "line 2, column 30: expected '{' and the values (this text was written without");
  free(text);
  free(full);
  round_trip(g, "a view as constant");
}

/* ---- numbers ---- */

static void test_words(void) {
  static const struct {
    tern_word w;
    const char *text;
  } cases[] = {{{.i = 0}, "0"},
               {{.i = -1}, "-1"},
               {{.i = INT64_C(1) << 53}, "9007199254740992"},
               {{.i = INT64_C(1) << 58}, "288230376151711744"},
               {{.i = INT64_MAX}, "0x7fffffffffffffff"},
               {{.i = INT64_MIN}, "0x8000000000000000"},
               {{.f = 0.1}, "0.1"},
               {{.f = -1}, "-1.0"},
               {{.f = 1e-30}, "1e-30"},
               {{.f = 123456789012345678.0}, "1.2345678901234568e17"},
               {{.f = INFINITY}, "inf"},
               {{.f = -INFINITY}, "-inf"}};
  char text[TERN__TEXT_NUMBER];
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    tern__word_text(cases[i].w, text);
    CHECK(!strcmp(text, cases[i].text), "%s is written %s", cases[i].text, text);
  }
  uint64_t state = 7;
  for (int i = 0; i < 300000; i++) {
    tern_word w = {.u = test_next(&state)}, again;
    if (i % 3 == 1) w.i >>= test_below(&state, 64);
    if (i % 3 == 2) w.f = test_uniform(&state, -1, 1) * exp2((double)test_below(&state, 500) - 250);
    tern__word_text(w, text);
    const bool ok =
        strlen(text) < TERN__TEXT_NUMBER && tern__word_of_text(text, strlen(text), &again) && again.u == w.u;
    if (!CHECK(ok, "%llx is written %s", (unsigned long long)w.u, text)) return;
  }
}

/* All 16-bit floats, and others by chance, NaNs included. */
static void test_elements(void) {
  char text[TERN__TEXT_NUMBER];
  uint64_t state = 9;
  for (int d = TERN_BOOL; d < TERN_DTYPE_END; d++) {
    const size_t item = tern__dtype_size[d];
    for (uint64_t i = 0; i < 70000; i++) {
      uint64_t bits = i < 65536 && item <= 2 ? i : test_next(&state), again = 0;
      if (d == TERN_BOOL) bits &= 1;
      if (item < 8) bits &= (UINT64_C(1) << 8 * item) - 1;
      tern__element_text((tern_dtype)d, &bits, text);
      const bool ok = tern__element_of_text((tern_dtype)d, text, strlen(text), &again) && again == bits;
      if (!CHECK(ok, "%s %llx is written %s", tern__short_dtype(d), (unsigned long long)bits, text)) break;
    }
  }
}

/* Sizes that vary go by name, there and back, in shapes, attributes, host scalars and bodies. */
static void test_sizes(void) {
  static const char text[] = "tern.graph 1 \"sizes\" {\n"
                             "  %x = input f32[s0, 3]@cpu:0 #0\n"
                             "  %y = input f32[s1, 3]@cpu:0 #1\n"
                             "  %2 = input bool[]@cpu:0 #2\n"
                             "  %3 = scalar weak f64 1/s0\n"
                             "  %4 = scalar weak f64 2/3 s1 + -1\n"
                             "  %5 = scalar weak i64 s1 s0\n"
                             "  %6 = reshape %x : f32[3 s0]@cpu:0\n"
                             "  %7 = empty {12, 2, s1 + s0, 3} : f32[s1 + s0, 3]@cpu:0\n"
                             "  %8 = write %7, %y {3 s0, 2, s1, 3, 3, 1} : f32[s1 + s0, 3]@cpu:0\n"
                             "  %9, %10 = source \"random\" {6 s0 + 1} : weak u64, weak u64\n"
                             "  %11 = cond %2, %x : f32[s0, 3]@cpu:0 then \"a\" {\n"
                             "    %0 = input f32[s0, 3]@cpu:0 #0\n"
                             "    return %0\n"
                             "  } else \"b\" {\n"
                             "    %0 = input f32[s0, 3]@cpu:0 #0\n"
                             "    %1 = neg %0 : f32[s0, 3]@cpu:0\n"
                             "    return %1\n"
                             "  }\n"
                             "  return %6, %8, %11\n"
                             "}\n";
  tern__graph *g = tern__graph_parse(text, strlen(text));
  if (!CHECK(g, "%s", tern_error())) return;
  CHECK(tern__graph_verify(g, "reading") == TERN_OK, "%s", tern_error());
  char *again = tern__graph_text(g, 1);
  CHECK(again && !strcmp(again, text), "%s", again);
  CHECK(tern__graph_varies(g) == 3, "%x vary", tern__graph_varies(g));
  const tern__dims dims = {.n = 2, .size = {4, 5}};
  tern__graph *sized = tern__graph_sized(g, &dims);
  CHECK(sized && tern__graph_verify(sized, "sizes") == TERN_OK && !tern__graph_varies(sized), "%s", tern_error());
  char *numbers = sized ? tern__graph_text(sized, 1) : NULL;
  static const char *const parts[] = {"f32[4, 3]",      "f64 0.25\n", "f64 0.14285714285714285\n",
                                      "i64 20\n",       "f32[12]",    "{12, 2, 9, 3} : f32[9, 3]",
                                      "\"random\" {25}"};
  for (size_t i = 0; i < sizeof parts / sizeof *parts && numbers; i++)
    CHECK(strstr(numbers, parts[i]), "no %s in\n%s", parts[i], numbers);
  free(again);
  free(numbers);
  tern__graph_free(sized);
  tern__graph_free(g);
}

static const test_case cases[] = {{"all kinds", test_all_kinds}, {"random graphs", test_random},
                                  {"empty", test_empty},         {"dead nodes", test_dead},
                                  {"hash", test_hash},           {"words", test_words},
                                  {"elements", test_elements},   {"sizes", test_sizes}};
TEST_MAIN("graph text", cases)
