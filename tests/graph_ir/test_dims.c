/* Sizes that vary: what is made of marks reads back as what it was made of, in evaluation and in text. */
#include "graph/dims.h"
#include "support/test.h"
#include <string.h>

static const tern__dims dims = {.n = 6, .size = {7, 32, 5, 100, 3, 64}};

static int64_t mark(int i) { return tern__dims_mark(i); }

/* Evaluated among the first n sizes, which have those that are in it. */
static void evaluates(int64_t v, int64_t expected, uint32_t used, int n) {
  uint32_t got = 0;
  tern__dims d = dims;
  d.n = n;
  const int64_t size = tern__dims_eval(&d, v, &got);
  char text[TERN__DIMS_TEXT];
  CHECK(size == expected && got == used, "%s (%lld): %lld of sizes %x, expected %lld of %x", tern__dims_text(text, v),
        (long long)v, (long long)size, got, (long long)expected, used);
}

static void test_one(void) {
  static const int64_t factors[] = {1, 2, 3, 28, 64, 784, 4096, 25088}, rests[] = {0, 1, -1, 3, 17, -30};
  for (int a = 0; a < dims.n; a++)
    for (size_t f = 0; f < sizeof factors / sizeof *factors; f++)
      for (size_t r = 0; r < sizeof rests / sizeof *rests; r++)
        for (int b = -1; b <= a; b++) {
          if (b >= 0 && factors[f] > 64) continue;
          const int64_t v = factors[f] * mark(a) * (b < 0 ? 1 : mark(b)) + rests[r];
          const int64_t size = factors[f] * dims.size[a] * (b < 0 ? 1 : dims.size[b]) + rests[r];
          evaluates(v, size, 1u << a | (b < 0 ? 0 : 1u << b), 6);
          evaluates(v, size, 1u << a | (b < 0 ? 0 : 1u << b), a + 1);
        }
}

/* What concatenations and paddings make. */
static void test_two(void) {
  static const int64_t factors[] = {1, -1, 2, 3, 8}, rests[] = {0, 1, -1, 2, 5};
  for (int a = 0; a < dims.n; a++)
    for (int b = 0; b < a; b++)
      for (int f = 0; f < 25; f++)
        for (int r = 0; r < 5; r++) {
          const int64_t p = factors[f / 5], q = factors[f % 5], rest = rests[r];
          const int64_t v = p * mark(a) + q * mark(b) + rest;
          if (v < 1 << 24) continue; /* no size */
          evaluates(v, p * dims.size[a] + q * dims.size[b] + rest, 1u << a | 1u << b, a + 1);
          evaluates(v, p * dims.size[a] + q * dims.size[b] + rest, 1u << a | 1u << b, 6);
        }
}

static void test_text(void) {
  char text[TERN__DIMS_TEXT];
  CHECK(!strcmp(tern__dims_text(text, 784), "784"), "%s", text);
  CHECK(!strcmp(tern__dims_text(text, mark(0)), "s0"), "%s", text);
  CHECK(!strcmp(tern__dims_text(text, 28 * mark(1) + 1), "28 s1 + 1"), "%s", text);
  CHECK(!strcmp(tern__dims_text(text, mark(2) * mark(0)), "s2 s0"), "%s", text);
  CHECK(tern__dims_scalar_text(text, 1.0 / (double)mark(0)) && !strcmp(text, "1/s0"), "%s", text);
  CHECK(tern__dims_scalar_text(text, 2.0 / (double)(3 * mark(1) - 1)) && !strcmp(text, "2/3 s1 + -1"), "%s", text);
  CHECK(tern__dims_scalar_text(text, (double)mark(3)) && !strcmp(text, "s3"), "%s", text);
  CHECK(!tern__dims_scalar_text(text, 0.25) && !tern__dims_scalar_text(text, 1e-6), "a plain number");
  CHECK(tern__dims_used(16777216) == 0 && tern__dims_used(50000000) == 0, "plain numbers");
}

static const test_case cases[] = {{"one", test_one}, {"two", test_two}, {"text", test_text}};
TEST_MAIN("dims", cases)
