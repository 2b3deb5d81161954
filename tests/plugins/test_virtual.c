/* Simulated devices (plugins/virtual): hidden, right, refusing what they lack, with clocks that follow the declared
   costs; and the text that describes them. */
#include "../../plugins/virtual/virtual_spec.c"
#include "device/device.h"
#include "graph/passes/cost.h"
#include "support/values.h"
#include <dlfcn.h>
#include <stdlib.h>
#include <tern/tern.h>

#define DEVICES                                                                           \
  "fast:kind=gpu,flops=1e12,bandwidth=1e11,launch=5us,link=1e10,latency=10us,memory=64M;" \
  "few:kind=fpga,ops=copy|add|mul|dot,dtypes=float32,launch=1ms,flops=1e9,link=1e9,latency=20us,args=3,nodes=1;plain:"

static virtual_clock clock_of(uint32_t device) {
  static const virtual_ext_clock *clock;
  virtual_clock c = {0};
  if (!clock) {
    void *plugin = dlopen(TERN_TEST_PLUGINS "/libtern-virtual.so", RTLD_NOW | RTLD_LOCAL);
    const tern_backend *(*query)(uint32_t) = NULL;
    void *symbol = plugin ? dlsym(plugin, "tern_plugin_query") : NULL;
    memcpy(&query, &symbol, sizeof query);
    for (const tern_ext *e = query ? query(TERN_ABI)->ext : NULL; e; e = e->next)
      if (e->type == VIRTUAL_EXT_CLOCK) clock = (const virtual_ext_clock *)(const void *)e;
  }
  CHECK(clock && clock->read(device, &c) == TERN_OK, "the clock of device %u", device);
  return c;
}

static void test_hidden(void) {
  tern_device_desc d;
  int found = 0;
  for (int i = 0; tern_device_at(i, &d) == TERN_OK; i++)
    if (!strncmp(d.name, "virtual:", 8)) {
      found++;
      CHECK(d.hidden, "%s is not hidden", d.name);
    }
  CHECK(found == 3, "%d devices", found);
  CHECK(tern_set_device("fpga") != TERN_OK, "fpga does not mean a simulation");
  tern_error_clear();
  CHECK(tern_set_device("virtual") != TERN_OK, "nor does the plugin's name");
  tern_error_clear();
  if (tern_set_device("auto") == TERN_OK)
    CHECK(strncmp(tern_default_device(), "virtual", 7) != 0, "auto is %s", tern_default_device());
  tern_error_clear();
  CHECK(tern_set_device("cpu") == TERN_OK, "%s", tern_error());
}

static void test_right(void) {
  static const char *const names[] = {"virtual:fast", "virtual:few", "virtual:plain"};
  for (int i = 0; i < 3; i++) {
    TERN_SCOPE;
    tern_with_device(names[i]);
    tern_tensor *a = tern_f32(TERN_SHAPE(2, 2), 1, 2, 3, 4), *b = tern_f32(TERN_SHAPE(2, 2), 5, 6, 7, 8);
    CHECK_LIST(tern_add(tern_matmul(a, b), a), TERN_SHAPE(2, 2), TERN_F32, 20, 24, 46, 54);
    CHECK_NO_ERROR();
  }
  TERN_SCOPE;
  tern_with_device("virtual:fast");
  tern_tensor *x = tern_softmax(tern_f32(TERN_SHAPE(3), 1, 2, 3), 0);
  const double expected[] = {0.09003057, 0.24472847, 0.66524096};
  CHECK_VALUES(x, TERN_SHAPE(3), TERN_F32, expected, 0, 1e-6, "softmax");
}

static void test_refusing(void) {
  CHECK(tern_op_support("add", "virtual:few", TERN_F32) == 1, "add is native");
  CHECK(tern_op_support("sin", "virtual:few", TERN_F32) != 1, "sin is not");
  CHECK(tern_op_support("add", "virtual:few", TERN_F64) != 1, "nor float64");
  CHECK(tern_op_support("sin", "virtual:fast", TERN_F32) == 1, "the other one has it");
  tern_error_clear();
  TERN_SCOPE;
  tern_with_device("virtual:fast");
  CHECK(!tern_zeros(TERN_SHAPE(32 << 20), TERN_F32), "128 MiB do not fit into 64");
  CHECK_ERROR(TERN_E_OOM, "fast");
}

static void test_clock(void) {
  enum { N = 1 << 20 };
  TERN_SCOPE;
  float *data = calloc(N, sizeof *data);
  if (!data) return;
  tern_tensor *host = tern_from_host(TERN_SHAPE(N), TERN_F32, data, NULL, NULL);
  const virtual_clock start = clock_of(0);
  tern_tensor *x = tern_to(host, "virtual:fast");
  const virtual_clock sent = clock_of(0);
  const uint64_t way = 10000 + (uint64_t)(4e9 * N / 1e10);
  CHECK(sent.copying - start.copying == way && sent.copies == start.copies + 1 && sent.bytes - start.bytes == 4 * N,
        "4 MiB took %llu ns", (unsigned long long)(sent.copying - start.copying));
  tern_add(x, x);
  const virtual_clock added = clock_of(0);
  const uint64_t moved = 5000 + (uint64_t)(8e9 * N / 1e11); /* x is one argument, read once */
  CHECK(added.launching - sent.launching == moved && added.launches == sent.launches + 1 &&
            added.device - sent.device == moved,
        "an add took %llu ns", (unsigned long long)(added.launching - sent.launching));
  CHECK(tern_sync("virtual:fast") == TERN_OK && clock_of(0).host == added.device, "waiting brings the program there");
  free(data);
}

/* Work of two devices that nobody waits for in between goes on at the same time. */
static void test_together(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_f32(TERN_SHAPE(2), 1, 2), *a = tern_to(x, "virtual:fast"), *b = tern_to(x, "virtual:few");
  CHECK(tern_sync(NULL) == TERN_OK, "%s", tern_error());
  const virtual_clock start = clock_of(0);
  for (int i = 0; i < 100; i++) tern_add(a, a);
  for (int i = 0; i < 3; i++) tern_add(b, b);
  CHECK(tern_sync(NULL) == TERN_OK, "%s", tern_error());
  const uint64_t took = clock_of(0).host - start.host;
  CHECK(took >= 3000000 && took < 3010000, "3 x 1 ms beside 100 x 5 us took %llu ns", (unsigned long long)took);
}

static void test_cost(void) {
  tern__device *d = tern__device_named("virtual:fast");
  CHECK(d && d->api->cost, "a device that tells costs");
  if (!d) return;
  const tern__cost_model m = tern__cost_model_of(d);
  CHECK(m.flops == 1000000000000 && m.bandwidth == 100000000000 && m.launch_ns == 5000 &&
            m.link_bandwidth == 10000000000 && m.link_ns == 10000,
        "declared, so nothing is measured");
  const tern_value values[] = {
      {.dtype = TERN_F32, .rank = 2, .kind = TERN_V_IN, .slot = 0, .shape = {1024, 1024}},
      {.dtype = TERN_F32, .rank = 2, .kind = TERN_V_IN, .slot = 1, .shape = {1024, TERN_SYM(0)}},
      {.dtype = TERN_F32, .rank = 2, .kind = TERN_V_OUT, .slot = 2, .shape = {1024, TERN_SYM(0)}}};
  const tern_node node = {.op = TERN_OP_DOT, .n_in = 2, .n_out = 1, .in = 0, .out = 2};
  const uint32_t edges[] = {0, 1, 2};
  const tern_region r = {.struct_size = sizeof r,
                         .n_nodes = 1,
                         .n_values = 3,
                         .n_args = 3,
                         .n_words = 1,
                         .nodes = &node,
                         .values = values,
                         .edges = edges,
                         .key = {1, 2}};
  uint64_t ns = 0;
  CHECK(d->api->cost(d->dev, &r, &(tern_word){.i = 1024}, &ns) == TERN_OK, "cost");
  CHECK(ns == 5000 + 2147483, "2^31 operations take %llu ns", (unsigned long long)ns);
  CHECK(tern__cost_region(d, &r, &(tern_word){.i = 1024}) == ns, "the plugin's answer is used");
  CHECK(d->api->cost(d->dev, &r, &(tern_word){.i = 1}, &ns) == TERN_OK && ns == 5000 + 42024, "a vector is moved: %llu",
        (unsigned long long)ns);
}

static void test_text(void) {
  static const struct {
    const char *text, *message; /* NULL: right */
    int n;
  } texts[] = {{NULL, NULL, 2},
               {"", NULL, 2},
               {"default", NULL, 2},
               {"a:;b:;", NULL, 2},
               {"a", NULL, 1},
               {" a : launch = 2.5us , memory = 3K ; ", NULL, 1},
               {"a:flps=1", "no key \"flps\"", 0},
               {"a:flops=x", "flops=x", 0},
               {"a:flops=1e30", "flops=1e30", 0},
               {"a:launch=5", "launch=5", 0},
               {"a:launch=", "launch=", 0},
               {"a:ops=add|nosuch", "nosuch", 0},
               {"a:dtypes=float31", "float31", 0},
               {"a:kind=toaster", "toaster", 0},
               {"a;a", "two devices", 0},
               {"a b:", "no name", 0},
               {":flops=1", "no name", 0},
               {"a:memory=1T", "1T", 0},
               {"a;b;c;d;e;f;g;h;i;j;k;l;m;n;o;p;q", "more than 16", 0}};
  static virtual_spec spec[VIRTUAL_MAX];
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    char message[256] = "";
    const int n = virtual_parse(texts[i].text, spec, message, sizeof message);
    CHECK(n == (texts[i].message ? -1 : texts[i].n) && (!texts[i].message || strstr(message, texts[i].message)),
          "\"%s\": %d, %s", texts[i].text ? texts[i].text : "(null)", n, message);
  }
  char message[256];
  CHECK(virtual_parse("x:launch=2.5us,latency=1ms,memory=3K,flops=1.25e12,ops=ADD|where,kind=cpu", spec, message,
                      sizeof message) == 1,
        "%s", message);
  CHECK(spec->launch_ns == 2500 && spec->latency_ns == 1000000 && spec->memory == 3072 && spec->flops == 1.25e12 &&
            spec->kind == TERN_KIND_CPU && virtual_has(spec, TERN_OP_ADD) && virtual_has(spec, TERN_OP_WHERE) &&
            !virtual_has(spec, TERN_OP_SUB) && spec->dtypes == TERN_D_ANY,
        "what was written");
}

static const test_case cases[] = {{"hidden", test_hidden},
                                  {"results", test_right},
                                  {"what a device lacks", test_refusing},
                                  {"clocks", test_clock},
                                  {"two devices at once", test_together},
                                  {"costs", test_cost},
                                  {"descriptions", test_text}};

int main(int argc, char **argv) {
  setenv("TERN_PLUGIN_PATH", TERN_PLUGINS ":" TERN_TEST_PLUGINS, 1);
  setenv("TERN_VIRTUAL_DEVICES", DEVICES, 1);
  setenv("TERN_FALLBACK", "error", 1);
  return test_main(argc, argv, "plugins/virtual", cases, (int)(sizeof cases / sizeof *cases));
}
