/* The cost model and the measured times: buckets, means, the file in every state of damage, threads, probes. */
#include "graph/passes/cost.h"
#include "support/test.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <tern/tern.h>
#include <unistd.h>

enum { THREADS = 4, ROUNDS = 500, KEYS = 100 };

static struct { char folder[64], path[128]; } test;

static tern__cost_key key_number(uint64_t i) { return (tern__cost_key){{i, ~i}, i % 3, (uint32_t)(i % 5)}; }

static tern__history *filled(uint64_t from, uint64_t to) {
  tern__history *h = tern__history_new();
  for (uint64_t i = from; h && i < to; i++) {
    const tern__cost_key key = key_number(i);
    CHECK(tern__history_add(h, &key, 1000 + i), "room for key %llu", (unsigned long long)i);
  }
  return h;
}

static void test_buckets(void) {
  uint32_t last = 0;
  for (uint64_t n = 0; n < 100000; n++) {
    const uint32_t b = tern__cost_bucket(n);
    CHECK(b >= last && b <= last + 1, "bucket of %llu is %u after %u", (unsigned long long)n, b, last);
    last = b;
  }
  CHECK(tern__cost_bucket(1024) + 2 == tern__cost_bucket(2048), "two buckets an octave");
  CHECK(tern__cost_bucket(1024) == tern__cost_bucket(1535) && tern__cost_bucket(1536) == tern__cost_bucket(2047),
        "halves");
  CHECK(tern__cost_bucket(UINT64_MAX) == 127, "the largest");
  CHECK(tern__cost_device("a", "b") != tern__cost_device("b", "a") &&
            tern__cost_device("", "") == tern__cost_device("", ""),
        "device and driver are told apart");
}

static void test_mean(void) {
  tern__history *h = tern__history_new();
  const tern__cost_key a = key_number(1), b = key_number(2);
  uint64_t ns = 0;
  CHECK(!tern__history_find(h, &a, &ns), "nothing is known at first");
  for (uint64_t x = 100; x <= 300; x += 100) tern__history_add(h, &a, x);
  CHECK(tern__history_find(h, &a, &ns) && ns == 200, "the mean of 100, 200, 300 is %llu", (unsigned long long)ns);
  CHECK(!tern__history_find(h, &b, &ns), "another key");
  for (int i = 0; i < 1000; i++) tern__history_add(h, &a, 5000);
  CHECK(tern__history_find(h, &a, &ns) && ns > 4990, "old times fade: %llu", (unsigned long long)ns);
  tern__history_free(h);
}

static void test_file(void) {
  tern__history *h = filled(0, KEYS), *back = tern__history_new(), *other = filled(50, 2 * KEYS);
  uint64_t ns;
  unlink(test.path);
  CHECK(!tern__history_load(back, test.path) && tern__history_count(back) == 0, "no file yet");
  CHECK(tern__history_save(h, test.path) == TERN_OK && tern__history_load(back, test.path), "there and back");
  CHECK(tern__history_count(back) == KEYS, "%zu keys", tern__history_count(back));
  for (uint64_t i = 0; i < KEYS; i++) {
    const tern__cost_key key = key_number(i);
    CHECK(tern__history_find(back, &key, &ns) && ns == 1000 + i, "key %llu", (unsigned long long)i);
  }
  CHECK(tern__history_save(other, test.path) == TERN_OK, "another process saves");
  tern__history_free(back);
  back = tern__history_new();
  CHECK(tern__history_load(back, test.path) && tern__history_count(back) == 2 * KEYS, "both are in the file: %zu",
        tern__history_count(back));
  tern__history_free(h);
  tern__history_free(back);
  tern__history_free(other);
}

static void write_bytes(const void *bytes, size_t n) {
  FILE *f = fopen(test.path, "wb");
  CHECK(f && fwrite(bytes, 1, n, f) == n && !fclose(f), "write %zu bytes", n);
}

static void must_ignore(const char *what, size_t at) {
  tern__history *h = tern__history_new();
  CHECK(!tern__history_load(h, test.path) && tern__history_count(h) == 0, "%s at %zu is believed", what, at);
  tern__history_free(h);
}

static void test_damage(void) {
  tern__history *h = filled(0, 5);
  unsigned char bytes[1024];
  unlink(test.path);
  CHECK(tern__history_save(h, test.path) == TERN_OK, "saved");
  FILE *f = fopen(test.path, "rb");
  const size_t n = f ? fread(bytes, 1, sizeof bytes, f) : 0;
  if (f) fclose(f);
  CHECK(n == 40 + 5 * 40, "the file has %zu bytes", n);
  for (size_t i = 0; i < n; i++) {
    write_bytes(bytes, i);
    must_ignore("a cut", i);
    bytes[i] ^= 0x10;
    write_bytes(bytes, n);
    must_ignore("a wrong byte", i);
    bytes[i] ^= 0x10;
  }
  bytes[n] = 0;
  write_bytes(bytes, n + 1);
  must_ignore("a longer file", n);
  write_bytes("something else entirely, of another program, longer than the header of ours", 75);
  must_ignore("a foreign file", 0);
  CHECK(tern__history_save(h, test.path) == TERN_OK, "a damaged file is written anew");
  tern__history *back = tern__history_new();
  CHECK(tern__history_load(back, test.path) && tern__history_count(back) == 5, "and is right again");
  tern__history_free(back);
  unlink(test.path);
  CHECK(mkdir(test.path, 0700) == 0, "a folder in its place");
  must_ignore("a folder", 0);
  CHECK(tern__history_save(h, test.path) == TERN_E_IO, "which cannot be replaced");
  rmdir(test.path);
  tern__history_free(h);
}

static void *add_all(void *context) {
  for (uint64_t r = 0; r < ROUNDS; r++)
    for (uint64_t i = 0; i < 10; i++) {
      const tern__cost_key key = key_number(i);
      uint64_t ns;
      tern__history_add(context, &key, 1000 + i);
      CHECK(tern__history_find(context, &key, &ns) && ns == 1000 + i, "key %llu", (unsigned long long)i);
      if (r % 100 == 0 && i == 0) CHECK(tern__history_save(context, test.path) == TERN_OK, "saved");
    }
  return NULL;
}

static void test_threads(void) {
  tern__history *h = tern__history_new();
  pthread_t id[THREADS];
  int started = 0;
  while (started < THREADS && !pthread_create(&id[started], NULL, add_all, h)) started++;
  for (int i = 0; i < started; i++) pthread_join(id[i], NULL);
  CHECK(started == THREADS && tern__history_count(h) == 10, "%zu keys", tern__history_count(h));
  tern__history_free(h);
}

static void test_roofline(void) {
  const tern__cost_model m = {.flops = 1000000000000, .bandwidth = 100000000000, .launch_ns = 5000};
  CHECK(tern__cost_roofline(&m, 0, 0, 3) == 15000, "launches alone");
  CHECK(tern__cost_roofline(&m, 2000000, 8, 1) == 5000 + 2000, "computing");
  CHECK(tern__cost_roofline(&m, 2000, 1000000, 1) == 5000 + 10000, "moving");
  CHECK(tern__cost_roofline(&m, UINT64_MAX, UINT64_MAX, UINT32_MAX) < UINT64_MAX, "no overflow");
}

/* c[M, N] = a[M, K] b[K, N] with M, N, K the words 0, 1, 2, then exp of it */
static void test_region(void) {
  const tern_value values[] = {
      {.dtype = TERN_F32, .rank = 2, .kind = TERN_V_IN, .slot = 0, .shape = {TERN_SYM(0), TERN_SYM(2)}},
      {.dtype = TERN_F32, .rank = 2, .kind = TERN_V_IN, .slot = 1, .shape = {TERN_SYM(2), TERN_SYM(1)}},
      {.dtype = TERN_F32, .rank = 2, .kind = TERN_V_TEMP, .shape = {TERN_SYM(0), TERN_SYM(1)}},
      {.dtype = TERN_F32, .rank = 2, .kind = TERN_V_OUT, .slot = 2, .shape = {TERN_SYM(0), TERN_SYM(1)}}};
  const tern_node nodes[] = {{.op = TERN_OP_DOT, .n_in = 2, .n_out = 1, .in = 0, .out = 2},
                             {.op = TERN_OP_EXP, .n_in = 1, .n_out = 1, .in = 3, .out = 4}};
  const uint32_t edges[] = {0, 1, 2, 2, 3};
  const tern_region r = {.struct_size = sizeof r,
                         .n_nodes = 2,
                         .n_values = 4,
                         .n_args = 3,
                         .n_words = 3,
                         .nodes = nodes,
                         .values = values,
                         .edges = edges,
                         .key = {123, 456}};
  const tern_word words[] = {{.i = 10}, {.i = 20}, {.i = 30}};
  uint64_t flops, bytes;
  tern__cost_count(&r, words, &flops, &bytes);
  CHECK(flops == 2 * 10 * 20 * 30 + 8 * 200 && bytes == 4 * (300 + 600 + 200), "%llu operations, %llu bytes",
        (unsigned long long)flops, (unsigned long long)bytes);
  tern__device *d = tern__device_named("cpu");
  CHECK(d != NULL, "%s", tern_error());
  if (!d) return;
  const tern__cost_model m = tern__cost_model_of(d), again = tern__cost_model_of(d);
  CHECK(m.flops && m.bandwidth && m.launch_ns && !m.link_bandwidth && !m.link_ns, "the CPU has no link");
  CHECK(!memcmp(&m, &again, sizeof m), "measured once");
  CHECK(tern__cost_region(d, &r, words) < UINT64_MAX, "some time");
  tern__cost_measured(d, &r, words, 777);
  CHECK(tern__cost_region(d, &r, words) == 777, "what was measured counts");
  CHECK_NO_ERROR();
}

/* A probe leaves the thread's error and its device alone. */
static void test_model(void) {
  tern_device_desc desc;
  for (int i = 0; tern_device_at(i, &desc) == TERN_OK; i++) {
    if (desc.hidden) continue;
    tern__device *d = tern__device_named(desc.name);
    tern_error_clear();
    if (!d) continue;
    const tern__cost_model m = tern__cost_model_of(d);
    CHECK(m.flops && m.bandwidth && m.launch_ns, "%s", desc.name);
    CHECK(m.launch_ns < 1000000000 && m.flops < 1e17 && m.bandwidth < 1e16, "%s: %llu ns, %llu flop/s, %llu B/s",
          desc.name, (unsigned long long)m.launch_ns, (unsigned long long)m.flops, (unsigned long long)m.bandwidth);
  }
  tern_error_clear();
  tern__cost_save();
}

static const test_case cases[] = {{"size buckets", test_buckets},   {"means", test_mean},
                                  {"there and back", test_file},    {"damaged files", test_damage},
                                  {"four threads", test_threads},   {"the roofline", test_roofline},
                                  {"a region's cost", test_region}, {"devices' speeds", test_model}};

int main(int argc, char **argv) {
  snprintf(test.folder, sizeof test.folder, "/tmp/tern-cost-XXXXXX");
  if (!mkdtemp(test.folder)) return 2;
  snprintf(test.path, sizeof test.path, "%s/deep/costs.bin", test.folder);
  setenv("TERN_CACHE_DIR", test.folder, 1); /* before anything reads it */
  const int failed = test_main(argc, argv, "planner/cost", cases, (int)(sizeof cases / sizeof *cases));
  unlink(test.path);
  snprintf(test.path, sizeof test.path, "%s/costs.bin", test.folder);
  unlink(test.path);
  char deep[128];
  snprintf(deep, sizeof deep, "%s/deep", test.folder);
  rmdir(deep);
  rmdir(test.folder);
  return failed;
}
