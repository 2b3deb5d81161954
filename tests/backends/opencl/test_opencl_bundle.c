/* Manifests of bundles: traits, hashes, refusals, what they say of kernels. No OpenCL is needed for that. With --drive
   it is the program that tests/tools/bundle.sh runs: ops on TERN_DEVICE compared with the CPU's. */
#include "manifest.h"
#include "support/test.h"

#include <common/render.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <tern/tern.h>
#include <unistd.h>

static char folder[] = "/tmp/tern-bundle-XXXXXX";

static const char *in_folder(const char *name) {
  static char path[2][200];
  static int turn;
  snprintf(path[turn ^= 1], sizeof path[0], "%s/%s", folder, name);
  return path[turn];
}

static void test_traits(void) {
  manifest_traits t, u;
  char name[32];
  CHECK(manifest_read_target("fpga", name, &t) && t.task && !t.cpu_like && !t.fp64, "fpga");
  CHECK(manifest_read_target("fpga,group=64,local_mem=65536", name, &u) && u.group == 64 && u.local_mem == 65536,
        "with traits");
  CHECK(!strcmp(name, "fpga") && !manifest_same_traits(&t, &u), "they differ");
  static const char *const wrong[] = {"",
                                      "dsp",
                                      "fpga,group=65",
                                      "fpga,group=",
                                      "fpga,group=8",
                                      "fpga,colour=1",
                                      "fpga,cpu_like=1",
                                      "fpga,fp64=2",
                                      "fpga,max_arg_bytes=-1"};
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
    CHECK(!manifest_read_target(wrong[i], name, &u), "accepted: %s", wrong[i]);
  CHECK(manifest_hint_valid("memory_bank=1") && manifest_hint_valid("DOT:num_compute_units=2"), "hints");
  static const char *const bad[] = {"", "=1", "bank", "bank=", "a b=1", "x=*/1", "x=1;y=2", "DOT:=1"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) CHECK(!manifest_hint_valid(bad[i]), "accepted: %s", bad[i]);
}

static cJSON *new_manifest(void) {
  manifest_traits t;
  manifest_target("fpga", &t);
  return manifest_new("fpga", &t, TERN_ABI, RENDER_VERSION);
}

static void test_file(void) {
  char why[MANIFEST_WHY] = "";
  const char *path = in_folder("m.json");
  cJSON *m = new_manifest();
  CHECK(m && manifest_write(m, path, why), "%s", why);
  cJSON_Delete(m);
  m = manifest_read(path, why);
  manifest_traits t, u;
  manifest_target("fpga", &t);
  CHECK(m && manifest_read_traits(m, &u) && manifest_same_traits(&t, &u), "%s", why);
  CHECK(m && manifest_fits(m, path, TERN_ABI, RENDER_VERSION, why), "%s", why);
  CHECK(m && !manifest_fits(m, path, TERN_ABI + 1, RENDER_VERSION, why) && strstr(why, "ABI") && strstr(why, path),
        "%s", why);
  CHECK(m && !manifest_fits(m, path, TERN_ABI, RENDER_VERSION + 1, why) && strstr(why, "renderer"), "%s", why);
  cJSON_AddNumberToObject(m, "of the future", 7); /* members that nobody knows stay, and count */
  CHECK(manifest_write(m, path, why), "%s", why);
  cJSON_Delete(m);
  m = manifest_read(path, why);
  CHECK(m && cJSON_HasObjectItem(m, "of the future"), "%s", why);
  cJSON_Delete(m);
}

/* Every byte but white space matters; a prefix is never enough. */
static void test_altered(void) {
  char why[MANIFEST_WHY];
  const char *path = in_folder("altered.json");
  cJSON *m = new_manifest();
  CHECK(manifest_write(m, path, why), "%s", why);
  cJSON_Delete(m);
  size_t size = 0;
  char *text = manifest_load(path, 1 << 20, &size, why);
  CHECK(text != NULL, "%s", why);
  for (size_t i = 0; text && i + 1 < size; i++) {
    const char was = text[i];
    if (strchr(" \n\t", was)) continue;
    text[i] = (char)(was == '1' ? '2' : was == 'a' ? 'b' : was ^ 1);
    manifest_store(path, text, size, why);
    m = manifest_read(path, why);
    CHECK(!m && strstr(why, path), "byte %zu (%c) changed: accepted", i, was);
    cJSON_Delete(m);
    text[i] = was;
  }
  for (size_t n = 0; text && n + 1 < size; n += 7) {
    manifest_store(path, text, n, why);
    m = manifest_read(path, why);
    CHECK(!m || n + 2 >= size, "cut at %zu: accepted", n);
    cJSON_Delete(m);
  }
  free(text);
  CHECK(!manifest_read(in_folder("none.json"), why) && strstr(why, "cannot be read"), "%s", why);
}

static void test_version(void) {
  char why[MANIFEST_WHY];
  const char *path = in_folder("new.json");
  cJSON *m = new_manifest();
  cJSON_SetNumberValue(cJSON_GetObjectItem(m, "version"), 2);
  manifest_write(m, path, why);
  cJSON_Delete(m);
  m = manifest_read(path, why);
  CHECK(!m && strstr(why, "version 2"), "%s", why);
  cJSON_Delete(m);
}

static void test_payload(void) {
  char why[MANIFEST_WHY];
  size_t size = 0;
  char path[200];
  snprintf(path, sizeof path, "%s", in_folder("m.json"));
  cJSON *entry = cJSON_CreateObject();
  CHECK(manifest_store(in_folder("image"), "an image", 8, why) && manifest_set_file(entry, path, "image", why), "%s",
        why);
  char *data = manifest_payload(entry, path, &size, why);
  CHECK(data && size == 8 && !memcmp(data, "an image", 8), "%s", why);
  free(data);
  manifest_store(in_folder("image"), "an imagE", 8, why);
  CHECK(!manifest_payload(entry, path, &size, why) && strstr(why, "altered") && strstr(why, "image"), "%s", why);
  manifest_store(in_folder("image"), "an imag", 7, why);
  CHECK(!manifest_payload(entry, path, &size, why) && strstr(why, "7 bytes"), "%s", why);
  unlink(in_folder("image"));
  CHECK(!manifest_payload(entry, path, &size, why) && strstr(why, "cannot be read"), "%s", why);
  cJSON_Delete(entry);
}

static void test_section(void) {
  static const char text[] =
      "#define SIDE 16\n#define TID get_global_id(0)\n"
      "typedef float I_T;\n"
      "static inline float twice(float x) { return x + x; }\n"
      "__kernel __attribute__((reqd_work_group_size(SIDE, SIDE, 1)))\n"
      "void tiled(__global const I_T *restrict A, long n, __local float *l) { A[TID]; }\n"
      "KERNEL __attribute__((reqd_work_group_size(1, 1, 1))) void one(GLOBAL uchar *RESTRICT A0, const long O0) "
      "{ for (;;) { if (n) { twice(1); } } }\n";
  const uint64_t key[2] = {0x1122334455667788u, 0x99aabbccddeeff00u};
  cJSON *s = manifest_section(text, key, "DOT", "DOT float32");
  const cJSON *kernels = cJSON_GetObjectItem(s, "kernels"), *tiled = cJSON_GetArrayItem(kernels, 0),
              *one = cJSON_GetArrayItem(kernels, 1);
  CHECK(!strcmp(manifest_string(s, "key"), "99aabbccddeeff001122334455667788"), "%s", manifest_string(s, "key"));
  CHECK(cJSON_GetArraySize(kernels) == 2, "%d kernels", cJSON_GetArraySize(kernels));
  CHECK(!strcmp(manifest_string(tiled, "name"), "tiled_1122334455667788"), "%s", manifest_string(tiled, "name"));
  CHECK(!strcmp(manifest_string(tiled, "range"), "ndrange") && !strcmp(manifest_string(one, "range"), "task"),
        "ranges");
  const cJSON *group = cJSON_GetObjectItem(tiled, "work_group"), *args = cJSON_GetObjectItem(tiled, "arguments");
  CHECK(cJSON_GetArrayItem(group, 1)->valuedouble == 16 && cJSON_GetArrayItem(group, 2)->valuedouble == 1,
        "the work-group");
  CHECK(cJSON_GetArraySize(args) == 3, "%d arguments", cJSON_GetArraySize(args));
  CHECK(!strcmp(manifest_string(cJSON_GetArrayItem(args, 0), "type"), "__global float *restrict"), "%s",
        manifest_string(cJSON_GetArrayItem(args, 0), "type"));
  args = cJSON_GetObjectItem(one, "arguments");
  CHECK(!strcmp(manifest_string(cJSON_GetArrayItem(args, 1), "name"), "O0"), "its name");
  cJSON_Delete(s);
  uint64_t back[2];
  CHECK(manifest_key_read("99aabbccddeeff001122334455667788", back) && back[0] == key[0] && back[1] == key[1],
        "the key");
  CHECK(!manifest_key_read("99aabbccddeeff00112233445566778", back) &&
            !manifest_key_read("99aabbccddeeff0011223344556677889", back) &&
            !manifest_key_read("99aabbccddeeff001122334455667g88", back),
        "not keys");
}

/* ---- the driver ---- */

enum { ROWS = 21, INNER = 37, COLUMNS = 19 };

typedef struct operands {
  tern_tensor *a, *b, *i8a, *i8b;
} operands;

static operands make(void) {
  float a[ROWS * INNER], b[INNER * COLUMNS];
  int8_t ia[ROWS * INNER], ib[INNER * COLUMNS];
  for (int i = 0; i < ROWS * INNER; i++) a[i] = sinf((float)i), ia[i] = (int8_t)(i * 31 % 7 - 3);
  for (int i = 0; i < INNER * COLUMNS; i++) b[i] = cosf((float)i), ib[i] = (int8_t)(i * 17 % 5 - 2);
  return (operands){tern_constant(TERN_SHAPE(ROWS, INNER), TERN_F32, a, ROWS * INNER),
                    tern_constant(TERN_SHAPE(INNER, COLUMNS), TERN_F32, b, INNER * COLUMNS),
                    tern_constant(TERN_SHAPE(ROWS, INNER), TERN_I8, ia, ROWS * INNER),
                    tern_constant(TERN_SHAPE(INNER, COLUMNS), TERN_I8, ib, INNER * COLUMNS)};
}

static int differs(const char *what, tern_tensor *got, tern_tensor *want) {
  double x[ROWS * INNER], y[ROWS * INNER];
  if (!got || !want) {
    fprintf(stderr, "%s: %s\n", what, tern_error());
    return 1;
  }
  TERN_SCOPE;
  tern_device_mark mark = tern_device_begin("cpu:0");
  const size_t n = (size_t)tern_size(want);
  const int failed = tern_size(got) != (int64_t)n || n > sizeof x / sizeof *x ||
                     tern_to_host(tern_cast(tern_to(got, "cpu:0"), TERN_F64), x, n * 8) ||
                     tern_to_host(tern_cast(want, TERN_F64), y, n * 8);
  tern_device_end(&mark);
  for (size_t i = 0; i < n && !failed; i++)
    if (!(fabs(x[i] - y[i]) <= 1e-4 + 1e-4 * fabs(y[i]))) {
      fprintf(stderr, "%s: element %zu is %g, not %g\n", what, i, x[i], y[i]);
      return 1;
    }
  if (failed) fprintf(stderr, "%s: %s\n", what, tern_error());
  return failed;
}

static int one_round(const operands *d, const operands *c) {
  TERN_SCOPE;
  int bad = 0;
  tern_tensor *mine[4] = {tern_matmul(d->a, d->b), tern_matmul(d->i8a, d->i8b), tern_softmax(d->a, 1),
                          tern_add(d->a, tern_exp(d->a))};
  tern_device_mark mark = tern_device_begin("cpu:0");
  tern_tensor *cpu[4] = {tern_matmul(c->a, c->b), tern_matmul(c->i8a, c->i8b), tern_softmax(c->a, 1),
                         tern_add(c->a, tern_exp(c->a))};
  tern_device_end(&mark);
  static const char *const names[] = {"matmul float32", "matmul int8", "softmax", "add"};
  for (int i = 0; i < 4; i++) bad += differs(names[i], mine[i], cpu[i]);
  return bad;
}

/* A composite that the bundle lacks goes to the CPU node by node, single numbers among the nodes. */
static int random_numbers(void) {
  TERN_SCOPE;
  const tern_random_opts opts = {.dtype = TERN_F32, .seed = 7};
  tern_tensor *mine = tern_random_uniform(TERN_SHAPE(5, 7), &opts);
  tern_device_mark mark = tern_device_begin("cpu:0");
  tern_tensor *cpu = tern_random_uniform(TERN_SHAPE(5, 7), &opts);
  tern_device_end(&mark);
  return differs("random_uniform", mine, cpu);
}

static int drive(int rounds) {
  TERN_SCOPE;
  const char *name = getenv("TERN_DEVICE");
  tern_device_mark mark = tern_device_begin("cpu:0");
  const operands c = make();
  tern_device_end(&mark);
  const operands d = {tern_to(c.a, name), tern_to(c.b, name), tern_to(c.i8a, name), tern_to(c.i8b, name)};
  if (!d.a || !d.b || !d.i8a || !d.i8b) {
    fprintf(stderr, "%s\n", tern_error());
    return 1;
  }
  int bad = 0;
  for (int i = 0; i < rounds && !bad; i++) bad = one_round(&d, &c);
  const char *fallback = getenv("TERN_FALLBACK");
  if (!bad && fallback && strcmp(fallback, "error") != 0) bad = random_numbers();
  if (!bad) puts("right");
  return tern_finish() || bad;
}

int main(int argc, char **argv) {
  if (argc > 1 && !strcmp(argv[1], "--drive")) return drive(argc > 2 ? atoi(argv[2]) : 1);
  static const test_case cases[] = {{"traits and hints", test_traits}, {"a file", test_file},
                                    {"altered", test_altered},         {"version", test_version},
                                    {"payload", test_payload},         {"sections", test_section}};
  if (!mkdtemp(folder)) return 1;
  const int status = test_main(argc, argv, "bundle", cases, sizeof cases / sizeof *cases);
  static const char *const files[] = {"m.json", "altered.json", "new.json", "image"};
  for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) unlink(in_folder(files[i]));
  rmdir(folder);
  return status;
}
