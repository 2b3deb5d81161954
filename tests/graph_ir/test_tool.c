/* tern-graph: each option on the golden graphs. */
#include "support/test.h"
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#define TOOL TERN_PLUGINS "/../../bin/tern-graph"
#define GRAPHS TERN_FIXTURES "/graphs/"

static struct { char output[1 << 16]; } test;

/* The tool's exit status; what it wrote goes to test.output. */
static int run(const char *before, const char *arguments) {
  char command[4096];
  snprintf(command, sizeof command, "%s $TERN_TEST_EMULATOR " TOOL " %s 2>&1", before, arguments);
  fflush(stdout);
  test.output[0] = 0;
  FILE *f = popen(command, "r");
  if (!f) return -1;
  test.output[fread(test.output, 1, sizeof test.output - 1, f)] = 0;
  const int status = pclose(f);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#define SAYS(status, before, arguments, part)                                                                      \
  do {                                                                                                             \
    const int got_ = run(before, arguments);                                                                       \
    CHECK(got_ == (status) && strstr(test.output, part), "%s: status %d, no \"%s\" in\n%s", arguments, got_, part, \
          test.output);                                                                                            \
  } while (0)

static void test_options(void) {
  SAYS(0, "", GRAPHS "dense.txt", "dense: 8 nodes, 5 of them ops; 1 inputs, 2 results, 2 variables");
  SAYS(0, "", "--verify " GRAPHS "train.txt", "");
  CHECK(!test.output[0], "%s", test.output);
  SAYS(0, "", "--print " GRAPHS "loop.txt", "do \"fibonacci\" {\n    %i = input i64[]@cpu:0 #0");
  SAYS(0, "", "--dot " GRAPHS "loop.txt", "subgraph cluster_");
  SAYS(0, "", "--json " GRAPHS "loop.txt",
       "{\"version\": 1, \"graph\": \"loop\", \"nodes\": 22, \"ops\": 8, \"inputs\": 1, \"results\": 3, \"variables\": "
       "0, "
       "\"verified\": true, \"runs\": 0, \"median_ms\": null}");
  SAYS(0, "", "--help", "usage: tern-graph");
  SAYS(2, "", "", "usage: tern-graph");
  SAYS(2, "", "--time 3 " GRAPHS "dense.txt", "usage");
  SAYS(2, "", "--nonsense x", "usage");
  SAYS(1, "", "/nowhere", "/nowhere cannot be read");
  SAYS(1, "", "--device nothere " GRAPHS "dense.txt", "--device: ");
}

static void test_wrong(void) {
  SAYS(1, "echo 'tern.graph 1 { %x = inpt }' |", "-", "-: graph text, line 1, column 21: there is no op \"inpt\"");
  SAYS(1, "echo 'tern.graph 1 { %x = input f32[2] #0 %y = neg %x : f32[3] }' |", "-",
       "node 1 (neg, value 1): output 0 is f32(3,); inference gives f32(2,)");
}

/* Against numbers worked out by hand: the rows of a softmax sum to 1; a step of SGD; Fibonacci numbers. */
static void test_eager(void) {
  SAYS(0, "", "--eager --seed 5 " GRAPHS "dense.txt", "tern.Tensor(2.0, shape=(), dtype=float32)");
  SAYS(0, "", "--eager --time 3 " GRAPHS "train.txt", "ms a run (median of 3)");
  SAYS(0,
       "echo 'tern.graph 1 { %n = const i64[] {30} %1 = full {0, 5, 0} : i64[] %2 = full {0, 5, 1} : i64[] "
       "%3, %4, %5 = while %1, %1, %2, %n {30} : i64[], i64[], i64[] "
       "condition { %i = input i64[] #0 %a = input i64[] #1 %b = input i64[] #2 %n = input i64[] #3 "
       "%4 = less %i, %n : bool[] return %4 } "
       "do { %i = input i64[] #0 %a = input i64[] #1 %b = input i64[] #2 %n = input i64[] #3 "
       "%one = scalar weak i64 1 %5 = add %i, %one : i64[] %6 = add %a, %b : i64[] return %5, %b, %6 } "
       "%7 = const f32[2, 3] {1, 2, 3, 4, 5, 6} %8 = slice %7 {0, 1, 1, 2, -2} : f32[2] "
       "%9 = write %7, %8 {1, 1, 2, 3} : f32[2, 3] return %4, %8, %9}' |",
       "--eager -",
       "tern.Tensor(832040, shape=(), dtype=int64)\ntern.Tensor([6. 4.], shape=(2,), dtype=float32)\n"
       "tern.Tensor(\n[[1. 6. 3.]\n [4. 4. 6.]], shape=(2, 3), dtype=float32)");
}

/* Compiled and node by node, on inputs by chance. */
static void test_both_ways(void) {
  static const char *const names[] = {"dense", "train", "loop", "kinds"};
  char arguments[600];
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    for (int seed = 1; seed <= 3; seed++) {
      snprintf(arguments, sizeof arguments, "--check --seed %d " GRAPHS "%s.txt", seed, names[i]);
      SAYS(0, "", arguments, "compiled and eager results agree");
    }
  SAYS(0, "", "--run --time 3 --json " GRAPHS "dense.txt", "\"runs\": 3, \"median_ms\": ");
  SAYS(0, "", "--explain " GRAPHS "dense.txt", "matmul");
}

/* Sizes that vary are given by name. */
static void test_sizes(void) {
#define VARYING                                                                                               \
  "echo 'tern.graph 1 \"vary\" { %x = input f32[s0, 3] #0 %y = input f32[s1, 3] #1 %z = permute %y {1, 0} : " \
  "f32[3, s1] %p = matmul %x, %z : f32[s0, s1] %r = reshape %p : f32[s1 s0] return %r }' |"
  SAYS(0, VARYING, "--print -", "%r = reshape %p : f32[s1 s0]");
  SAYS(0, VARYING, "--print --size s0=4 --size s1=5 -", ": f32[20]");
  SAYS(0, VARYING, "--check --size s0=4 --size s1=5 -", "compiled and eager results agree");
  SAYS(0, VARYING, "--run --time 3 --size s1=2 --size s0=2 -", "ms a run (median of 3)");
  SAYS(0, VARYING, "--explain --size s1=2 --size s0=2 -", "matmul");
  SAYS(1, VARYING, "--run -", "size s0 of graph \"vary\" varies and is not given: --size s0=VALUE");
  SAYS(1, VARYING, "--eager --size s0=4 -", "size s1 of graph \"vary\" varies and is not given: --size s1=VALUE");
  SAYS(1, VARYING, "--eager --size s0=4 --size s1=1 --size s2=3 -",
       "--size s2: no size of graph \"vary\" has that name");
  SAYS(2, VARYING, "--size s9=4 -", "--size s9=4: expected s0 to s5, '=' and a size");
  SAYS(2, VARYING, "--size s0=0 -", "expected s0 to s5");
}

static const test_case cases[] = {{"check", test_both_ways},
                                  {"options", test_options},
                                  {"wrong files", test_wrong},
                                  {"eager runs", test_eager},
                                  {"sizes", test_sizes}};
TEST_MAIN("tern-graph", cases)
