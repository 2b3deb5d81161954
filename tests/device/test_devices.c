/* Naming devices: the default, overrides, aliases, what is listed, what an unknown name says. Runs on cpu; where
   another device is there (a driver was found), moving between the two is tested as well. */
#include "support/values.h"
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void test_listing(void) {
  tern_plugin_info p;
  int plugins = 0, used = 0, devices = 0;
  for (; tern_plugin_at(plugins, &p) == TERN_OK; plugins++) {
    CHECK(p.path && *p.path, "plugin %d has a path", plugins);
    if (p.refused)
      CHECK(*p.refused, "a reason for %s", p.path);
    else
      CHECK(p.name && *p.name && p.version && p.score > 0, "plugin %s", p.path);
    used += !p.refused;
  }
  CHECK(used >= 1 && tern_plugin_at(plugins, &p) == TERN_E_END && tern_plugin_at(-1, &p) == TERN_E_END,
        "%d of %d plugins", used, plugins);
  tern_device_desc d, cpu = {0};
  for (; tern_device_at(devices, &d) == TERN_OK; devices++) {
    CHECK(*d.name && d.alias && *d.desc && d.id && d.features && d.kind >= TERN_KIND_CPU && d.kind <= TERN_KIND_FPGA,
          "device %d", devices);
    if (!strcmp(d.name, "cpu:0")) cpu = d;
    for (int i = 0; i < devices; i++) {
      tern_device_desc other;
      CHECK(tern_device_at(i, &other) == TERN_OK && strcmp(other.name, d.name), "two devices are named %s", d.name);
    }
  }
  CHECK(tern_device_at(devices, &d) == TERN_E_END && tern_device_at(-1, &d) == TERN_E_END, "past the ends");
  CHECK(cpu.name && cpu.kind == TERN_KIND_CPU && cpu.mem_total > 0 && !cpu.hidden && cpu.flags & TERN_DEV_HOST_MEM,
        "cpu:0");
  CHECK_NO_ERROR();
}

static void test_names(void) {
  TERN_SCOPE;
  CHECK(tern_set_device("cpu") == TERN_OK && !strcmp(tern_default_device(), "cpu:0"), "cpu is cpu:0");
  CHECK(tern_set_device("cpu:0") == TERN_OK && tern_set_device("auto") == TERN_OK && tern_default_device(), "auto: %s",
        tern_error());
  CHECK(tern_set_device("cpu") == TERN_OK, "%s", tern_error());
  CHECK(tern_set_device("cpu:99") == TERN_E_ARG, "cpu:99");
  CHECK_ERROR(TERN_E_ARG, "no device is named \"cpu:99\"; devices: cpu:0");
  CHECK(tern_set_device("quantum") == TERN_E_ARG, "quantum");
  CHECK_ERROR(TERN_E_ARG, "cpu:0");
  CHECK(tern_set_device("") == TERN_E_ARG, "an empty name");
  CHECK_ERROR(TERN_E_ARG, "empty");
  CHECK(tern_set_device(NULL) == TERN_E_ARG, "no name");
  CHECK_ERROR(TERN_E_ARG, "");
  static const char *const odd[] = {"cpu:", "cpu:-1", "cpu:0x", "cpu: 0",
                                    ":",    ":0",     "CPU",    "cpu:00000000000000000000000000000000000000000000001"};
  for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
    CHECK(tern_set_device(odd[i]) == TERN_E_ARG, "\"%s\" names something", odd[i]);
    tern_error_clear();
  }
  CHECK(!strcmp(tern_default_device(), "cpu:0"), "a failed tern_set_device leaves the default: %s",
        tern_default_device());
  tern_memory m;
  tern_counters c;
  CHECK(tern_memory_info("nowhere", &m) == TERN_E_ARG, "memory of nowhere");
  tern_error_clear();
  CHECK(tern_counters_get("nowhere", &c) == TERN_E_ARG && tern_sync("nowhere") == TERN_E_ARG, "counters of nowhere");
  tern_error_clear();
  CHECK(tern_memory_info("cpu:0", &m) == TERN_OK && tern_counters_get("cpu", &c) == TERN_OK &&
            tern_sync("cpu") == TERN_OK && tern_sync(NULL) == TERN_OK,
        "%s", tern_error());
  CHECK_NO_ERROR();
}

/* Another device than cpu:0, or NULL. */
static const char *another(void) {
  tern_device_desc d;
  for (int i = 0; tern_device_at(i, &d) == TERN_OK; i++)
    if (strcmp(d.name, "cpu:0") && !d.hidden) return d.name;
  printf("(skipped: cpu is the only device) ");
  return NULL;
}

static void test_overrides(void) {
  TERN_SCOPE;
  const char *other = another();
  if (!other) return;
  CHECK(!strcmp(tern_device_get(tern_ones(TERN_SHAPE(1), TERN_F32)), "cpu:0"), "the default");
  {
    tern_with_device(other);
    CHECK(!strcmp(tern_default_device(), other) && !strcmp(tern_device_get(tern_ones(TERN_SHAPE(1), TERN_F32)), other),
          "an override");
    {
      tern_with_device("cpu");
      CHECK(!strcmp(tern_default_device(), "cpu:0"), "nested");
      {
        tern_with_device("nowhere"); /* an error, and nothing changes */
        CHECK_ERROR(TERN_E_ARG, "nowhere");
        CHECK(!strcmp(tern_default_device(), "cpu:0"), "a failed override");
      }
    }
    CHECK(!strcmp(tern_default_device(), other), "restored to %s", tern_default_device());
    CHECK(tern_set_device("cpu") == TERN_OK && !strcmp(tern_default_device(), other),
          "the thread's override goes before the process's default");
  }
  CHECK(!strcmp(tern_default_device(), "cpu:0"), "restored to %s", tern_default_device());
  CHECK_NO_ERROR();
}

static void test_aliases(void) {
  tern_device_desc d;
  for (int i = 0; tern_device_at(i, &d) == TERN_OK; i++) {
    if (!*d.alias) continue;
    TERN_SCOPE;
    tern_with_device(d.alias);
    CHECK(tern_default_device() && (!strcmp(tern_default_device(), d.name) || strstr(tern_default_device(), ":")),
          "%s is %s", d.alias, tern_default_device());
    CHECK_NO_ERROR();
  }
}

static void test_moving(void) {
  TERN_SCOPE;
  const char *other = another();
  tern_tensor *t = tern_f32(TERN_SHAPE(2, 3), 1, 2, 3, 4, 5, 6);
  CHECK(tern_to(t, "cpu:0") == t, "a tensor that is there already is itself");
  CHECK(!strcmp(tern_device_get(tern_to(tern_scalar(3), "cpu")), "cpu:0"), "a host scalar moves");
  if (!other) return;
  for (int d = 1; d < TERN_DTYPE_END; d++) {
    TERN_SCOPE;
    tern_tensor *x = tern_cast(tern_remainder(t, tern_scalar(2)), (tern_dtype)d), *there = tern_to(x, other);
    CHECK(there && !strcmp(tern_device_get(there), other), "%s moves: %s", tern_dtype_name((tern_dtype)d),
          tern_error());
    CHECK_LIST(there, TERN_SHAPE(2, 3), (tern_dtype)d, 1, 0, 1, 0, 1, 0);
    CHECK_LIST(tern_to(tern_transpose(there), "cpu"), TERN_SHAPE(3, 2), (tern_dtype)d, 1, 0, 0, 1, 1, 0);
    CHECK_LIST(tern_to(tern_slice(x, &TERN_RANGE(TERN_OPEN, TERN_OPEN, -1), 1), other), TERN_SHAPE(2, 3), (tern_dtype)d,
               0, 1, 0, 1, 0, 1);
  }
  CHECK_LIST(tern_to(tern_zeros(TERN_SHAPE(0, 2), TERN_F32), other), TERN_SHAPE(0, 2), TERN_F32, 0);
  CHECK_LIST(tern_add(tern_to(t, other), tern_f32(TERN_SHAPE(), 1)), TERN_SHAPE(2, 3), TERN_F32, 2, 3, 4, 5, 6, 7);
  tern_tensor *large = tern_arange(0, 5000000, 1, TERN_F32),
              *back = tern_to(tern_to(large, other), "cpu"); /* more than one piece */
  CHECK(tern_equal_all(large, back) == 1, "20 MB there and back");
  CHECK_NO_ERROR();
}

/* ---- children ---- */

static int child(const char *name) {
  TERN_SCOPE;
  if (!strcmp(name, "name")) {
    const char *d = tern_default_device();
    printf("%s\n", d ? d : tern_error());
    return tern_finish();
  }
  if (!strcmp(name, "plugins")) {
    tern_plugin_info p;
    for (int i = 0; tern_plugin_at(i, &p) == TERN_OK; i++) printf("%s: %s\n", p.path, p.refused ? p.refused : "in use");
    tern_print(tern_ones(TERN_SHAPE(2), TERN_F32));
    return tern_finish();
  }
  return 99;
}

static char text[16384];

static void test_environment(void) {
  CHECK(test_child("name", (const char *const[]){"TERN_DEVICE=cpu:0", NULL}, text, sizeof text) == 0 &&
            strstr(text, "cpu:0\n"),
        "cpu:0: %s", text);
  CHECK(test_child("name", (const char *const[]){"TERN_DEVICE=auto", NULL}, text, sizeof text) == 0 &&
            strstr(text, ":"),
        "auto: %s", text);
  CHECK(test_child("name", (const char *const[]){"TERN_DEVICE=toaster", NULL}, text, sizeof text) == 0 &&
            strstr(text, "\"toaster\"") && strstr(text, "cpu:0"),
        "toaster: %s", text);
  CHECK(test_child("name", (const char *const[]){"TERN_PLUGIN_PATH=/no/such/folder", NULL}, text, sizeof text) == 0,
        "an empty plugin path: %s", text);
}

/* Files that are no plugins are named and skipped. */
static void test_bad_plugins(void) {
  char folder[] = "/tmp/tern-plugins-XXXXXX", path[400], setting[9000];
  if (!CHECK(mkdtemp(folder) != NULL, "no temporary folder")) return;
  static const struct {
    const char *file, *content;
    size_t size;
  } files[] = {{"libtern-empty.so", "", 0},
               {"libtern-text.so", "not an ELF file at all, but long enough to look at its header......", 60},
               {"libtern-cut.so", "\177ELF\2\1\1\0\0\0\0\0\0\0\0\0\3\0", 18}};
  for (int i = 0; i < 3; i++) {
    snprintf(path, sizeof path, "%s/%s", folder, files[i].file);
    FILE *f = fopen(path, "w");
    CHECK(f && fwrite(files[i].content, 1, files[i].size, f) == files[i].size && !fclose(f), "%s", path);
  }
  snprintf(path, sizeof path, "%s/libtern-folder.so", folder);
  CHECK(!mkdir(path, 0700), "%s", path);
  const char *own = getenv("TERN_PLUGIN_PATH");
  snprintf(setting, sizeof setting, "TERN_PLUGIN_PATH=%s%s%s", folder, own ? ":" : "", own ? own : "");
  CHECK(test_child("plugins", (const char *const[]){setting, NULL}, text, sizeof text) == 0 && strstr(text, "[1. 1.]"),
        "%s", text);
  for (int i = 0; i < 3; i++) {
    const char *line = strstr(text, files[i].file);
    CHECK(line && strncmp(line + strlen(files[i].file), ": in use", 8), "%s must be refused with a reason: %s",
          files[i].file, text);
    snprintf(path, sizeof path, "%s/%s", folder, files[i].file);
    unlink(path);
  }
  snprintf(path, sizeof path, "%s/libtern-folder.so", folder);
  rmdir(path);
  rmdir(folder);
}

static const test_case cases[] = {{"listing", test_listing},
                                  {"names", test_names},
                                  {"overrides", test_overrides},
                                  {"aliases", test_aliases},
                                  {"moving", test_moving},
                                  {"TERN_DEVICE", test_environment},
                                  {"files that are no plugins", test_bad_plugins}};
TEST_MAIN_CHILD("devices", cases, child)
