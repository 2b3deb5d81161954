/* Reading the text form: what is written by hand, every error with its place, golden files, and texts cut and changed
   at random. */
#include "base/alloc.h"
#include "graph_ir/samples.h"
#include "support/values.h"
#include "tensor/tensor.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- errors ---- */

typedef struct wrong {
  const char *text, *error; /* part of it */
} wrong;

#define HEAD "tern.graph 1 {\n"
#define X HEAD "%x = input f32[2] #0\n"

static const wrong files[] = {
    {"", "line 1, column 1: expected \"tern.graph 1\", with which the text of a graph begins, found the end"},
    {"graph 1 {}", "line 1, column 1: expected \"tern.graph 1\""},
    {"tern.graph 2 {}", "line 1, column 12: expected version 1, the only one that this reader knows, found 2"},
    {"tern.graph {}", "column 12: expected version 1"},
    {"tern.graph 1", "column 13: expected '{' and the nodes of a graph, found the end"},
    {"tern.graph 1 \"a", "found what cannot be read: a"},
    {"tern.graph 1 \"a\\q\" {}", "column 14: expected \\\", \\\\ or \\x and two digits behind a backslash"},
    {"tern.graph 1 \"\\x00\" {}", "behind a backslash"},
    {"tern.graph 1 {} {", "line 1, column 17: expected the end of the text behind the graph, found {"},
    {HEAD, "line 2, column 1: expected a node, assign, return or '}', found the end of the text"},
    {HEAD "  $", "line 2, column 3: expected a node, assign, return or '}', found what cannot be read: $"},
    {HEAD "12", "found 12"},
    {HEAD "%1, = neg", "line 2, column 5: expected a value (%NAME), found ="},
    {HEAD "%1 neg", "line 2, column 4: expected '=' behind the values of a node, found neg"},
    {HEAD "%1 = 3", "expected a node"},
    {HEAD "%1 = nonsense", "line 2, column 6: there is no op \"nonsense\"; expected one of tern's ops"},
    {HEAD "% = neg", "found what cannot be read: "},
    {X "%x = neg %x : f32[2]", "line 3, column 1: %x is defined twice; every value has one definition"},
    {X "%y = neg %z : f32[2]\n}", "line 3, column 10: %z is not defined"},
    {X "%y = neg %z : f32[2]\n%z = neg %y : f32[2]\n}",
     "%z is defined only in line 4; nodes stand in order, and a graph "
     "has no cycles"},
    {X "%y = neg %y : f32[2]\n}", "%y is defined only in line 3"},
    {X "%y = neg %x, 3", "line 3, column 14: expected a value (%NAME) or none, found 3"},
    {X "%y = neg %x {",
     "expected an attribute (a whole number of 64 bits, a float, or 0x and 16 digits), found the end"},
    {X "%y = neg %x {0x}", "found 0x"},
    {X "%y = neg %x {99999999999999999999}", "expected an attribute"},
    {X "%y = neg %x {1 2}", "expected '}' or ',' behind an attribute, found 2"},
    {X "%y = neg %x\n}", "line 4, column 1: expected ':' and the types of the node's values, found }"},
    {X "%y = neg %x : f32[2], f32[2]\n}", "more types than values (1)"},
    {X "%y, %z = neg %x : f32[2]\n}", "1 types for 2 values"},
    {X "%y = neg %x : f33[2]", "expected a dtype (bool, i8 i16 i32 i64"},
    {X "%y = neg %x : f32\n}", "expected '[' and the sizes behind a dtype, found }"},
    {X "%y = neg %x : f32[-2]", "line 3, column 19: expected a size (a whole number from 0 to 9223372036854775807, or "
                                "s0 to s5 for one that varies), found -2"},
    {X "%y = neg %x : f32[s6]", "expected a size"},
    {X "%y = neg %x : f32[s0 s0 s0]", "line 3, column 19: too large a product of sizes that vary; it has at most two"},
    {X "%y = neg %x : f32[9223372036854775807 s0]", "too large a product"},
    {X "%y = neg %x : f32[s0 + s1 + s2]", "cannot be told apart in this sum"},
    {X "%y = neg %x : f32[s0 + 99999]", "cannot be told apart"},
    {X "%y = neg %x : f32[s0 + ]", "expected a number, a size that varies (s0 to s5), or products of them, found ]"},
    {X "%y = neg %x : f32[-1 s0]", "a negative size"},
    {X "%y = neg %x : f32[1/s0]", "expected ']' or ',' behind a size, found /"},
    {X "%y = neg %x {3/s0}", "expected 1/ or 2/ and a size that varies, found 3"},
    {X "%y = neg %x {1/0}", "a number divided by 0"},
    {HEAD "%s = scalar weak i64 1/s0", "a fraction where an integer is wanted"},
    {HEAD "%s = scalar weak i64 s9", "expected the scalar's value"},
    {X "%y = neg %x : f32[9223372036854775808]", "expected a size"},
    {X "%y = neg %x : f32[2.5]", "expected a size"},
    {X "%y = neg %x : f32[1, 1, 1, 1, 1, 1, 1, 1, 1]", "a shape of more than 8 dimensions"},
    {X "%y = neg %x : f32[1 1]", "expected ']' or ',' behind a size, found 1"},
    {X "%y = neg %x : f32[1]@nothere", "line 3, column 21: no such device: "},
    {X "%y = neg %x : f32[1]@aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
     "no device has so long a name"},
    {X "%y = neg %x : f32[2] on cpu", "expected @ and a device, found cpu"},
    {HEAD "input f32[2] #0", "line 2, column 1: input defines one value: %NAME = input ..."},
    {HEAD "%a, %b = const f32[2] {1, 2}", "const defines one value"},
    {HEAD "%x = input f32[2]\n}", "line 3, column 1: expected # and the number of the input, found }"},
    {HEAD "%x = input f32[2] #x", "expected # and the number of the input"},
    {HEAD "%x = input f32[2] #1\n}", "line 2, column 19: expected numbers from #0 to #0 for 1 inputs"},
    {HEAD "%x = input f32[2] #0\n%y = input f32[2] #0\n}", "line 3, column 19: two inputs have number 0"},
    {HEAD "%c = const f32[2]\n}", "expected '{' and the values of the constant, found }"},
    {HEAD "%c = const f32[2] hash 0x1", "was written without those of large constants"},
    {HEAD "%c = const f32[2] {1}", "line 2, column 19: 1 values for a shape of 2 elements"},
    {HEAD "%c = const f32[2] {1, 2, 3}", "more values than the shape's 2"},
    {HEAD "%c = const f32[2] {1, x}", "line 2, column 23: expected a number that f32 holds, found x"},
    {HEAD "%c = const u8[1] {256}", "expected a number that u8 holds, found 256"},
    {HEAD "%c = const i8[1] {-129}", "expected a number that i8 holds"},
    {HEAD "%c = const u64[1] {-1}", "expected a number that u64 holds"},
    {HEAD "%c = const i32[1] {1.0}", "expected a number that i32 holds"},
    {HEAD "%c = const bool[1] {2}", "expected a number that bool holds"},
    {HEAD "%c = const f32[2] {1,", "expected a number that f32 holds, found the end"},
    {HEAD "%c = const f32[1] {1", "expected '}' or ',' behind a value"},
    {HEAD "%c = const f32[9000000000, 9000000000] {1}", "has a shape that memory can hold"},
    {HEAD "%c = const weak f64 {1}", "is not weak"},
    {HEAD "%c = const f32[0]@none {}", "a device"},
    {HEAD "%v = variable f32[2]", "expected the variable's name, in quotes, found f32"},
    {HEAD "%v = variable \"w\" f32[100000, 100000]", "variables without values take more than 1024 MiB"},
    {HEAD "%s = scalar weak f64 x", "expected the scalar's value, a number that its dtype holds, found x"},
    {HEAD "%s = scalar weak i64 0.5", "expected the scalar's value"},
    {HEAD "%s = source : weak f64", "expected the source's name, in quotes, found :"},
    {X "%y = print %x : f32[2]", "print defines no value"},
    {X "%y = cond %x : f32[2]\n}", "expected 'then' and a body, found }"},
    {X "%y = cond %x : f32[2] then {} or", "expected 'else' and a body, found or"},
    {X "%y = while %x : f32[2] do", "expected 'condition' and a body, found do"},
    {X "%y = while %x : f32[2] condition {} end", "expected 'do' and a body"},
    {X "%y = cond %x : f32[2] then { %z = neg %x : f32[2] }", "%x is not defined"},
    {X "assign %x", "expected '=' behind the variable, found the end"},
    {X "assign %x = %x", "line 3, column 8: expected the value of a variable node behind assign"},
    {HEAD "%v = variable \"v\" f32[]\nassign %v = none", "expected a value (%NAME), found none"},
    {HEAD "%v = variable \"v\" f32[]\n%w = neg %v : f32[]\nassign %v = %w\nassign %v = %w", "assigned twice"},
    {X "return\n}", "expected a value (%NAME) or none, found }"},
    {X "return %x\n%y = neg %x : f32[2]\n}", "line 4, column 1: expected '}' (assignments come behind the nodes"},
};

static void test_errors(void) {
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    tern__graph *g = parse(files[i].text);
    CHECK(!g, "this was read:\n%s", files[i].text);
    tern__graph_free(g);
    CHECK_ERROR(TERN_E_ARG, files[i].error);
  }
}

static void test_depth(void) {
  char *text = calloc(1, 1 << 20), *at = text;
  at += sprintf(at, "%s", HEAD);
  for (int i = 0; i < 10000; i++) at += sprintf(at, "cond none then {\n");
  CHECK(!parse(text), "read");
  CHECK_ERROR(TERN_E_ARG, "line 65, column 16: bodies are nested more than 64 deep");
  free(text);
}

static void test_attribute_count(void) {
  char *text = calloc(1, 1 << 20), *at = text;
  at += sprintf(at, "%s", HEAD "%y = neg {0");
  for (int i = 0; i < 70000; i++) at += sprintf(at, ", 0");
  CHECK(!parse(text), "read");
  CHECK_ERROR(TERN_E_ARG, "more than 65535 attributes");
  free(text);
}

/* ---- what may be written by hand ---- */

static void test_by_hand(void) {
  tern__graph *g = parse("tern.graph 1 { // no name, no device, comments\n"
                         "\t%a=input f32[2]#1 %b = input f32[]@\"cpu:0\" #0\r\n"
                         "  %w = variable \"w\" frozen f32[2] // zeros\n"
                         "  %c = const bf16[3] {0x3f80, nan, -1e3}\n"
                         "  %s, %t = source \"two\" : weak f64, weak u64\n"
                         "  %0 \"quo\\\"ted\" = add %a, %b : f32[2] pinned\n"
                         "  print %0\n assign %w = %0 return %0, none, %a}");
  CHECK(g, "%s", tern_error());
  if (!g) return;
  CHECK(tern__graph_verify(g, "reading") == TERN_OK, "%s", tern_error());
  CHECK(g->n_inputs == 2 && g->input[0] == 1 && g->input[1] == 0 && g->n_outputs == 3, "lists");
  CHECK(!strcmp(g->value[6].name, "quo\"ted") && g->node[5].pinned && !strcmp(g->value[0].name, "a"), "names");
  tern_tensor *w = g->variable[0].variable;
  CHECK(!tern_trainable(w) && !strcmp(tern_variable_name(w), "w") && g->variable[0].value == 6, "variable");
  CHECK_LIST(w, TERN_SHAPE(2), TERN_F32, 0, 0);
  CHECK_LIST(g->node[3].tensor, TERN_SHAPE(3), TERN_BF16, 1, NAN, -1000);
  tern_word out[2];
  const tern__ir_source *s = g->node[4].source;
  CHECK(s->next(s->self, 1, out, 2) == TERN_OK && out[0].f == 0.5 && out[1].u == 2, "a source that was read is fixed");
  tern__graph *copy = tern__graph_clone(g, NULL, NULL);
  CHECK(copy && tern__graph_verify(copy, "cloning") == TERN_OK, "%s", tern_error());
  tern__graph_free(copy);
  tern__graph_free(g);
}

/* ---- golden files: the text, and what is written when it was read ---- */

static char *contents(const char *name) {
  char path[512];
  snprintf(path, sizeof path, TERN_FIXTURES "/graphs/%s.txt", name);
  FILE *f = fopen(path, "rb");
  char *text = calloc(1, 1 << 16);
  if (!CHECK(f, "no %s", path)) return text;
  text[fread(text, 1, (1 << 16) - 1, f)] = 0;
  fclose(f);
  return text;
}

static void test_golden(void) {
  static const char *const names[] = {"kinds", "dense", "train", "loop", "symbolic"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char *text = contents(names[i]);
    tern__graph *g = parse(text);
    CHECK(g, "%s: %s", names[i], tern_error());
    CHECK(!g || tern__graph_verify(g, "reading") == TERN_OK, "%s: %s", names[i], tern_error());
    tern_error_clear();
    char *again = g ? text_of(g, 1) : strdup("");
    CHECK(!strcmp(text, again), "%s is written\n%s", names[i], again);
    free(again);
    free(text);
    tern__graph_free(g);
  }
  char *text = contents("kinds");
  tern__graph *g = sample_all_kinds();
  char *again = text_of(g, 1);
  CHECK(!strcmp(text, again), "the sample is written\n%s", again);
  free(again);
  free(text);
  tern__graph_free(g);
}

/* ---- damage ---- */

/* Any text is read or refused, and what was read can be verified and written. */
static int survive(const char *text, size_t length) {
  tern__graph *g = tern__graph_parse(text, length);
  if (!g) {
    CHECK(*tern_error(), "refused without a reason");
    tern_error_clear();
    return 0;
  }
  tern__graph_verify(g, "damage");
  tern_error_clear();
  char *again = text_of(g, 1), *dot = tern__graph_dot(g);
  CHECK(dot, "%s", tern_error());
  tern__graph *second = parse(again);
  CHECK(second, "%s:\n%s", tern_error(), again);
  tern_error_clear();
  char *third = second ? text_of(second, 1) : strdup("");
  CHECK(!strcmp(again, third), "%s\n%s", again, third);
  tern__graph_free(g);
  tern__graph_free(second);
  free(again);
  free(third);
  free(dot);
  return 1;
}

static void test_damage(void) {
  static const char bits[] = "%0123456789,:={}[]@#\" \n-.exfnone";
  int read = 0;
  uint64_t state = 3;
  for (int i = 0; i < 3000; i++) {
    tern__graph *g = i % 4 ? sample_random((uint64_t)i, 12) : sample_all_kinds();
    char *text = text_of(g, 1);
    tern__graph_free(g);
    size_t n = strlen(text);
    for (int64_t k = test_below(&state, 4); k >= 0; k--) {
      const size_t at = (size_t)test_below(&state, (int64_t)n);
      const int64_t what = test_below(&state, 3);
      if (what == 0) text[at] = bits[test_below(&state, sizeof bits - 1)];
      if (what == 1) memmove(text + at, text + at + 1, n-- - at);
      if (what == 2 && k == 0) n = at;
    }
    char *exact = malloc(n + 1); /* nothing behind the end */
    memcpy(exact, text, n);
    exact = realloc(exact, n ? n : 1);
    read += survive(exact, n);
    free(exact);
    free(text);
  }
  CHECK(read > 100, "only %d damaged texts could be read", read);
}

/* Every allocation fails once. */
static void test_memory(void) {
  tern__graph *g = sample_all_kinds();
  char *text = text_of(g, 1);
  tern__graph_free(g);
  long n = 1;
  for (; n < 5000; n++) {
    tern__alloc_fail_at(n);
    tern__graph *again = parse(text);
    char *back = again ? tern__graph_text(again, 1) : NULL;
    const bool fine = back && tern__graph_verify(again, "reading") == TERN_OK;
    const long used = tern__alloc_count();
    tern__alloc_fail_at(0);
    CHECK(fine || tern_error_code() == TERN_E_OOM, "%ld: %s", n, tern_error());
    CHECK(fine == (tern_error_code() == TERN_OK), "%ld: %s", n, tern_error());
    tern_error_clear();
    tern__graph_free(again);
    free(back);
    if (used < n) break;
  }
  CHECK(n > 20 && n < 5000, "%ld allocations", n);
  free(text);
}

static const test_case cases[] = {
    {"errors", test_errors},       {"depth", test_depth},         {"number of attributes", test_attribute_count},
    {"by hand", test_by_hand},     {"golden files", test_golden}, {"damage", test_damage},
    {"out of memory", test_memory}};
TEST_MAIN("graph parser", cases)
