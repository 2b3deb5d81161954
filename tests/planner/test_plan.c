/* The memory planner: against all plans of tiny instances, its promises on random ones, hard instances whose optimum is
   known, look-alikes of networks, deadlines, and lack of memory. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "planner/instances.h"
#include "support/test.h"
#include <tern/tern.h>

/* Runs the planner and checks the plan. */
static tern__plan_report plan(const instance *i, const tern__plan_opts *opts, const char *what) {
  tern__plan_report r = {0};
  CHECK(tern__plan(i->buffers, i->count, opts, &r) == TERN_OK, "%s: %s", what, tern_error());
  const char *wrong = instance_wrong(i->buffers, i->count, opts, &r);
  CHECK(!wrong, "%s: %s", what, wrong);
  return r;
}

/* ---- tiny instances ---- */

enum { TINY = 6 };

static bool live_together(const tern__buffer *a, const tern__buffer *b) {
  return a->lower < b->upper && b->lower < a->upper;
}

static uint64_t up(uint64_t x, uint64_t align) { return (x + align - 1) / align * align; }

/* The least height over all orders of putting buffers on top of those before, which includes an optimal plan: sort one
   by offset, and nothing is higher after doing the same again. */
static uint64_t least_height(const tern__buffer *b, size_t n) {
  size_t order[TINY];
  uint64_t best = UINT64_MAX;
  size_t orders = 1;
  for (size_t i = 2; i <= n; i++) orders *= i;
  for (size_t code = 0; code < orders; code++) {
    uint64_t offset[TINY] = {0}, height = 0;
    for (size_t i = 0; i < n; i++) order[i] = i;
    for (size_t i = n, rest = code; i > 1; rest /= i, i--) {
      const size_t k = rest % i, t = order[i - 1];
      order[i - 1] = order[k];
      order[k] = t;
    }
    for (size_t i = 0; i < n; i++) {
      const tern__buffer *v = &b[order[i]];
      if (!v->size) continue;
      for (size_t k = 0; k < i; k++)
        if (b[order[k]].size && live_together(v, &b[order[k]]) &&
            offset[order[k]] + b[order[k]].size > offset[order[i]])
          offset[order[i]] = offset[order[k]] + b[order[k]].size;
      offset[order[i]] = up(offset[order[i]], v->align);
      if (offset[order[i]] + v->size > height) height = offset[order[i]] + v->size;
    }
    if (height < best) best = height;
  }
  return best;
}

static void test_tiny(void) {
  uint64_t seed = 1;
  for (int round = 0; round < 3000; round++) {
    tern__buffer b[TINY];
    const size_t n = 1 + instance_random(&seed) % TINY;
    const instance i = {b, n, TINY, 0};
    for (size_t k = 0; k < n; k++) {
      const int64_t lower = (int64_t)(instance_random(&seed) % 7);
      b[k] = (tern__buffer){lower, lower + 1 + (int64_t)(instance_random(&seed) % 4), instance_random(&seed) % 9, 1, 0};
      if (round % 3 == 1) b[k].align = 4;
      if (round % 3 == 2) b[k].align = 1 + instance_random(&seed) % 6;
    }
    const uint64_t least = least_height(b, n);
    const tern__plan_report r = plan(&i, NULL, "tiny");
    CHECK(r.height == least, "round %d: height %llu, but %llu is possible", round, (unsigned long long)r.height,
          (unsigned long long)least);
    CHECK(r.proved, "round %d: an optimum is not known to be one", round);
    const tern__plan_opts low = {.capacity = least - 1};
    if (least > 1) CHECK(!plan(&i, &low, "tiny, too low").fits, "round %d: a plan below the optimum", round);
  }
}

/* ---- promises ---- */

static void test_random(void) {
  uint64_t seed = 7;
  for (int round = 0; round < 60; round++) {
    tern__buffer b[200];
    const instance i = {b, 1 + instance_random(&seed) % 200, 200, 0};
    for (size_t k = 0; k < i.count; k++) {
      const int64_t lower = (int64_t)(instance_random(&seed) % 300) - 150;
      const uint64_t span = round % 2 ? 10 : 200;
      b[k] = (tern__buffer){lower, lower + 1 + (int64_t)(instance_random(&seed) % span), instance_random(&seed) % 5000,
                            (uint64_t)1 << instance_random(&seed) % 8, 0};
    }
    const tern__plan_opts opts = {.align = round % 3 ? 1 : 48, .seconds = 0.02};
    const tern__plan_report r = plan(&i, &opts, "random");
    CHECK(r.seconds < 0.2, "round %d: %.3f s instead of 0.02", round, r.seconds);
  }
}

static void test_edges(void) {
  tern__plan_report r;
  CHECK(tern__plan(NULL, 0, NULL, &r) == TERN_OK && r.height == 0 && r.proved && r.fits, "no buffers");
  tern__buffer b[3] = {{0, 1, 0, 1, 9}, {0, 1, 0, 64, 9}, {5, 6, 0, 0, 9}};
  CHECK(tern__plan(b, 3, NULL, &r) == TERN_OK && r.height == 0 && b[0].offset == 0, "buffers of no size");
  tern__buffer same[3] = {{0, 9, 5, 1, 0}, {0, 9, 5, 1, 0}, {0, 9, 5, 1, 0}};
  CHECK(tern__plan(same, 3, NULL, &r) == TERN_OK && r.height == 15 && r.proved, "equal lifetimes");
  tern__buffer apart[2] = {{0, 5, 7, 1, 0}, {5, 6, 7, 1, 0}};
  CHECK(tern__plan(apart, 2, NULL, &r) == TERN_OK && r.height == 7, "a lifetime ends where the next begins");
  tern__buffer huge[2] = {{INT64_MIN, INT64_MAX, (uint64_t)1 << 61, 1, 0}, {0, 1, (uint64_t)1 << 62, 1, 0}};
  CHECK(tern__plan(huge, 2, NULL, &r) == TERN_OK && r.height == (uint64_t)3 << 61, "huge sizes");
  huge[0].size = (uint64_t)1 << 62;
  CHECK(tern__plan(huge, 2, NULL, &r) == TERN_E_ARG, "sizes that add up to 2^63");
  CHECK_ERROR(TERN_E_ARG, "2^63");
  huge[0].size = UINT64_MAX;
  CHECK(tern__plan(huge, 2, NULL, &r) == TERN_E_ARG, "a size above 2^63");
  tern_error_clear();
  apart[1].upper = 5;
  CHECK(tern__plan(apart, 2, NULL, &r) == TERN_E_ARG, "an empty lifetime");
  CHECK_ERROR(TERN_E_ARG, "buffer 1");
}

/* ---- hard and large instances ---- */

static void test_hard(void) {
  static const struct {
    size_t pieces;
    int64_t width;
    uint64_t height;
  } kinds[] = {{60, 1000, 1 << 20}, {120, 1000, 1 << 20}, {200, 1000, 1 << 20}, {150, 2000, 1 << 20}};
  for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
    for (uint64_t seed = 1; seed <= 4; seed++) {
      instance i = instance_cut(kinds[k].pieces, kinds[k].width, kinds[k].height, 0, seed);
      const tern__plan_opts opts = {.seconds = 60};
      const tern__plan_report r = plan(&i, &opts, "cut");
      CHECK(r.lower_bound == kinds[k].height && r.height == kinds[k].height, "%zu pieces, seed %d: height %llu",
            i.count, (int)seed, (unsigned long long)r.height);
      instance_free(&i);
    }
}

static void test_networks(void) {
  for (int net = 0; net < NET_COUNT; net++) {
    instance i = instance_network((instance_net)net, 2000, 2);
    const tern__plan_opts opts = {.seconds = 20};
    const tern__plan_report r = plan(&i, &opts, instance_net_name((instance_net)net));
    CHECK((double)r.height <= 1.01 * (double)r.lower_bound, "%s: %.4f x the bound",
          instance_net_name((instance_net)net), (double)r.height / (double)r.lower_bound);
    instance_free(&i);
  }
}

static void test_deadline(void) {
  instance i = instance_cut(1000, 100, 1 << 20, 0, 3), big = instance_network(NET_TRANSFORMER, 18000, 1);
  for (double seconds = 0.05; seconds < 0.5; seconds *= 3) {
    const tern__plan_opts opts = {.seconds = seconds};
    double over = 1e9; /* the machine may be busy: the best of some */
    for (int k = 0; k < 4; k++) {
      const double took = plan(&i, &opts, "deadline").seconds;
      if (took - seconds < over) over = took - seconds;
    }
    CHECK(over < 0.1 * seconds + 0.05, "%.3f s over a deadline of %.3f", over, seconds);
  }
  const tern__plan_opts none = {.seconds = 1e-9};
  CHECK(plan(&big, &none, "no time").seconds < 2, "18000 buffers take too long without time");
  instance_free(&i);
  instance_free(&big);
}

static void test_same_again(void) {
  instance i = instance_cut(150, 1000, 1 << 20, 0, 9), j = instance_cut(150, 1000, 1 << 20, 0, 9);
  const tern__plan_opts opts = {.seconds = 60};
  plan(&i, &opts, "first");
  plan(&j, &opts, "second");
  CHECK(!memcmp(i.buffers, j.buffers, i.count * sizeof *i.buffers), "two runs gave two plans");
  instance_free(&i);
  instance_free(&j);
}

static void test_no_memory(void) {
  for (long n = 1; n < 60; n++) {
    instance i = instance_cut(80, 50, 1 << 20, 0, 2);
    tern__plan_report r;
    const tern__plan_opts opts = {.seconds = 0.02};
    tern__alloc_fail_at(n);
    const tern_rc rc = tern__plan(i.buffers, i.count, &opts, &r);
    tern__alloc_fail_at(0);
    CHECK(rc == TERN_E_OOM || (rc == TERN_OK && !instance_wrong(i.buffers, i.count, &opts, &r)), "allocation %ld: %d",
          n, rc);
    tern_error_clear();
    instance_free(&i);
  }
}

/* ---- CSV ---- */

static void refused(const char *text, const char *message) {
  tern__plan_rows rows;
  char said[200];
  CHECK(tern__plan_read(text, strlen(text), &rows, said, sizeof said) == TERN_E_IO, "not refused: %s", text);
  CHECK(strstr(said, message) && !rows.buffers, "said \"%s\", expected \"%s\"", said, message);
}

static void test_csv(void) {
  static const char good[] = "lower,id,size,upper,offset\r\n3,a b,10,5,x\r\n\n0,7,9223372036854775797,1,\n";
  tern__plan_rows rows;
  tern__string out = {0};
  char said[200];
  CHECK(tern__plan_read(good, strlen(good), &rows, said, sizeof said) == TERN_OK && !*said, "%s", said);
  CHECK(rows.count == 2 && rows.buffers[0].lower == 3 && rows.buffers[0].upper == 5 && rows.buffers[0].size == 10,
        "rows");
  CHECK(tern__plan_write(&rows, &out) == TERN_OK, "write");
  CHECK(!strcmp(out.text, "id,lower,upper,size,offset\na b,3,5,10,0\n7,0,1,9223372036854775797,0\n"), "%s", out.text);
  tern__string_free(&out);
  tern__plan_rows_free(&rows);
  refused("", "line 1: the file is empty");
  refused("1,2,3,4\n", "line 1: there is no column \"1\"");
  refused("id,lower,upper\n", "line 1: the first line must name");
  refused("id,lower,upper,size,id\n", "line 1: the column id is there twice");
  refused("id,lower,upper,size\n1,2,3\n", "line 2: 3 columns; expected 4");
  refused("id,lower,upper,size\n1,2,3,4,5\n", "line 2: 5 columns; expected 4");
  refused("id,lower,upper,size\n1,2,3,4,5,6,7\n", "line 2: more than 5 columns");
  refused("id,lower,upper,size\n\n1,2,x,4\n", "line 3: upper is \"x\"");
  refused("id,lower,upper,size\n1,-2,3,4\n", "line 2: lower is negative");
  refused("id,lower,upper,size\n1,3,3,4\n", "line 2: lower is 3 and upper 3");
  refused("id,lower,upper,size\n1,2,3,\n", "line 2: size is empty");
  refused("id,lower,upper,size\n1,2,3, 4\n", "line 2: size is \" 4\"");
  refused("id,lower,upper,size\n,2,3,4\n", "line 2: id is empty");
  refused("id,lower,upper,size\n1,2,3,4\n1,2,3,4\n", "line 3: id 1 is in row 1 already");
  refused("id,lower,upper,size\n1,2,9223372036854775808,4\n", "line 2: upper is 9223372036854775808, above");
  refused("id,lower,upper,size\n1,2,3,9223372036854775807\n2,2,3,1\n", "line 3: the sizes up to here");
}

/* Damaged texts: refused with a line, or read and written back to the same buffers. */
static void test_damaged(void) {
  static const char alphabet[] = "0123456789,,,\n\n-x \r\"";
  uint64_t seed = 3;
  for (int round = 0; round < 20000; round++) {
    char text[120] = "id,lower,upper,size\n0,1,5,7\n1,2,9,3\n2,0,3,18\n", said[100];
    size_t n = strlen(text);
    for (size_t k = instance_random(&seed) % 6; k--;) {
      const size_t at = instance_random(&seed) % n;
      if (instance_random(&seed) % 8 == 0) n = at + 1;
      text[at] = instance_random(&seed) % 4 ? alphabet[instance_random(&seed) % (sizeof alphabet - 1)]
                                            : (char)instance_random(&seed);
    }
    char *exact = malloc(n); /* so that the sanitizer sees a step beyond its end */
    if (!exact) return;
    memcpy(exact, text, n);
    tern__plan_rows rows;
    const tern_rc rc = tern__plan_read(exact, n, &rows, said, sizeof said);
    CHECK(rc == TERN_OK ? !*said : rc == TERN_E_IO && !strncmp(said, "line ", 5), "round %d: %d, \"%s\"", round, rc,
          said);
    tern__plan_rows_free(&rows);
    free(exact);
  }
}

int main(int argc, char **argv) {
  static const test_case cases[] = {{"tiny instances against all plans", test_tiny},
                                    {"promises on random instances", test_random},
                                    {"edges", test_edges},
                                    {"hard instances", test_hard},
                                    {"networks", test_networks},
                                    {"deadlines", test_deadline},
                                    {"the same plan again", test_same_again},
                                    {"no memory", test_no_memory},
                                    {"CSV", test_csv},
                                    {"damaged CSV", test_damaged}};
  return test_main(argc, argv, "planner/plan", cases, (int)(sizeof cases / sizeof *cases));
}
