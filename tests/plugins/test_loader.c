/* Bad plugins: files that are cut, damaged or no plugins, tables that are wrong, and drivers that fail at every entry
   point in turn (plugins/faulty). Each case runs in a process of its own (this program again, with a device to use);
   that process must live, say one clear thing, list the reason, and go on computing on the CPU. */
#include "support/values.h"
#include <CUnit/Basic.h>
#include <dirent.h>
#include <elf.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <tern/tern.h>
#include <unistd.h>

static struct {
  const char *self;
  char folder[64]; /* where bad files go; searched first */
  char output[1 << 18];
  int status;
} test;

/* ---- the child ---- */

static void list_plugins(void) {
  tern_plugin_info p;
  for (int i = 0; tern_plugin_at(i, &p) == TERN_OK; i++)
    printf("plugin %s: %s\n", strrchr(p.path, '/') + 1, p.refused ? p.refused : "in use");
}

static bool compute(void) {
  TERN_SCOPE;
  static float sum[3], soft[3]; /* static: when waiting fails, a copy that is on its way may still arrive */
  tern_tensor *x = tern_f32(TERN_SHAPE(3), 1, 2, 3), *y = tern_f32(TERN_SHAPE(3), 4, 5, 6), *z = tern_add(x, y);
  if (tern_to_host(z, sum, sizeof sum) || tern_to_host(tern_softmax(x, -1), soft, sizeof soft)) return false;
  const float total = soft[0] + soft[1] + soft[2];
  if (sum[0] == 5 && sum[1] == 7 && sum[2] == 9 && total > 0.999f && total < 1.001f) return true;
  printf("wrong values\n");
  return false;
}

/* Tensors of 8 MiB until one is refused. */
static void fill_memory(void) {
  TERN_SCOPE;
  for (int i = 0; i < 64 && tern_zeros(TERN_SHAPE(2 << 20), TERN_F32); i++) {}
}

static int child(const char *device, const char *what) {
  if (!strcmp(what, "before")) list_plugins();
  for (int round = 0; round < 2 && strcmp(device, "-") != 0;
       round++) { /* the second try must be as clear as the first */
    TERN_SCOPE;   /* outermost: errors are read before it ends */
    tern_with_device(device);
    if (!tern_error_code() && !strcmp(what, "fill"))
      fill_memory();
    else if (!tern_error_code() && compute())
      printf("device ok\n");
    if (tern_error_code()) printf("error %d %s\n", tern_error_code(), tern_error());
    tern_error_clear();
  }
  tern_counters c;
  if (strcmp(device, "-") != 0 && !tern_counters_get(device, &c))
    printf("counters %s %s\n", c.fallbacks ? "fallbacks" : "-", c.splits ? "splits" : "-");
  tern_error_clear();
  {
    TERN_SCOPE;
    tern_with_device("cpu");
    printf(compute() ? "cpu ok\n" : "cpu failed: %s\n", tern_error());
  }
  list_plugins();
  printf("finish %d\n", tern_finish());
  fflush(stdout);
  return 0;
}

/* ---- the parent ---- */

/* Run the child with `settings` ("NAME=value"..., NULL at the end) and keep what it says. True: it ended by itself. */
static bool run(const char *device, const char *what, const char *const *settings) {
  int ends[2];
  test.output[0] = 0;
  if (pipe(ends)) return false;
  fflush(stdout);
  const pid_t pid = fork();
  if (pid == 0) {
    char path[4096];
    snprintf(path, sizeof path, "%s:%s:%s", test.folder, TERN_PLUGINS, TERN_TEST_PLUGINS);
    setenv("TERN_PLUGIN_PATH", path, 1);
    setenv("TERN_FALLBACK", "silent", 1);
    unsetenv("TERN_DEVICE");
    for (; *settings; settings++) putenv((char *)(uintptr_t)*settings);
    dup2(ends[1], STDOUT_FILENO);
    dup2(ends[1], STDERR_FILENO);
    close(ends[0]);
    close(ends[1]);
    test_exec(test.self, device, what);
  }
  close(ends[1]);
  size_t n = 0;
  for (ssize_t got = 1; got > 0 && n + 1 < sizeof test.output;) {
    got = read(ends[0], test.output + n, sizeof test.output - 1 - n);
    if (got > 0) n += (size_t)got;
  }
  test.output[n] = 0;
  close(ends[0]);
  if (pid < 0 || waitpid(pid, &test.status, 0) != pid) return false;
  return WIFEXITED(test.status) && WEXITSTATUS(test.status) == 0;
}

static int lines_with(const char *start) {
  int n = 0;
  for (const char *at = test.output; (at = strstr(at, start)); at++) n += at == test.output || at[-1] == '\n';
  return n;
}

static bool said(const char *text) { return strstr(test.output, text) != NULL; }

/* A CHECK that shows what the child said. */
static void check(bool ok, const char *what) {
  if (!ok) printf("\n    %s; the process (status %#x) said:\n%.3000s\n", what, (unsigned)test.status, test.output);
  CU_ASSERT_TRUE(ok);
}

static const char *const no_settings[] = {NULL};

/* The line of a file must have this reason. */
static void check_refused(const char *file, const char *reason) {
  char line[200];
  snprintf(line, sizeof line, "plugin %s: ", file);
  const char *at = strstr(test.output, line), *end = at ? strchr(at, '\n') : NULL;
  const char *found = at ? strstr(at, reason) : NULL;
  snprintf(line, sizeof line, "%s should be refused with \"%s\"", file, reason);
  check(found && found < end, line);
}

static void path_of(char *out, size_t size, const char *file) { snprintf(out, size, "%s/%s", test.folder, file); }

static void empty_folder(void) {
  DIR *d = opendir(test.folder);
  for (struct dirent *e; d && (e = readdir(d));) {
    char path[512];
    if (*e->d_name == '.') continue;
    path_of(path, sizeof path, e->d_name);
    if (unlink(path)) rmdir(path);
  }
  if (d) closedir(d);
}

static void write_file(const char *file, const void *bytes, size_t n) {
  char path[512];
  path_of(path, sizeof path, file);
  FILE *f = fopen(path, "wb");
  CU_ASSERT_PTR_NOT_NULL_FATAL(f);
  CU_ASSERT_EQUAL(fwrite(bytes, 1, n, f), n);
  CU_ASSERT_EQUAL(fclose(f), 0);
}

static unsigned char *real_plugin(size_t *size) {
  FILE *f = fopen(TERN_PLUGINS "/libtern-cpu.so", "rb");
  CU_ASSERT_PTR_NOT_NULL_FATAL(f);
  fseek(f, 0, SEEK_END);
  *size = (size_t)ftell(f);
  rewind(f);
  unsigned char *bytes = malloc(*size);
  CU_ASSERT_PTR_NOT_NULL_FATAL(bytes);
  CU_ASSERT_EQUAL(fread(bytes, 1, *size, f), *size);
  fclose(f);
  return bytes;
}

/* ---- files ---- */

static void test_none(void) {
  empty_folder();
  check(run("-", "", no_settings), "an empty folder");
  check(said("cpu ok"), "an empty folder");
  check(run("nosuch:0", "", no_settings), "a device that does not exist");
  check(said("error -3") && said("nosuch"), "a device that does not exist");
}

/* Every file of the folder named libtern-cut... was refused, and the CPU works. */
static void check_cuts(int n) {
  check(run("-", "", no_settings), "cut plugins");
  check(said("cpu ok"), "cut plugins");
  int refused = 0;
  for (const char *at = test.output; (at = strstr(at, "plugin libtern-cut")); at++)
    refused += strncmp(strchr(at, ':'), ": in use", 8) != 0;
  check(refused == n, "a cut plugin was not refused");
}

static void test_cut(void) {
  size_t size;
  unsigned char *bytes = real_plugin(&size);
  const size_t pages = (size - 1) / 4096;
  int n = 0;
  empty_folder();
  for (size_t k = 0; k < 128 + pages; k++) { /* inside the headers, then at every page; 100 files a process */
    char file[64];
    const size_t length = k < 128 ? k * 7 : (k - 127) * 4096;
    snprintf(file, sizeof file, "libtern-cut%06zu.so", length);
    write_file(file, bytes, length);
    if (++n < 100 && k + 1 < 128 + pages) continue;
    check_cuts(n);
    empty_folder();
    n = 0;
  }
  free(bytes);
}

static void damage(unsigned char *bytes, size_t size, int how) {
  Elf64_Ehdr *h = (Elf64_Ehdr *)(void *)bytes;
  Elf64_Phdr *p = (Elf64_Phdr *)(void *)(bytes + h->e_phoff);
  switch (how) {
  case 0: memset(bytes, 0, size); break;
  case 1: memset(bytes, 'x', size); break;
  case 2: h->e_ident[0] = 0; break;
  case 3: h->e_ident[EI_CLASS] = ELFCLASS32; break;
  case 4: h->e_machine = EM_SPARC; break;
  case 5: h->e_type = ET_EXEC; break;
  case 6: h->e_phnum = 0; break;
  case 7: h->e_phoff = size * 2; break;
  case 8: h->e_phentsize = 1; break;
  case 9:
    for (int i = 0; i < h->e_phnum; i++)
      if (p[i].p_type == PT_LOAD) p[i].p_filesz = UINT64_MAX / 2;
    break;
  case 10:
    for (int i = 0; i < h->e_phnum; i++)
      if (p[i].p_type == PT_LOAD) p[i].p_offset = size + 4096;
    break;
  default:
    for (int i = 0; i < h->e_phnum; i++)
      if (p[i].p_type == PT_DYNAMIC) p[i].p_type = PT_NULL;
    break;
  }
}

static void test_damaged(void) {
  size_t size;
  empty_folder();
  for (int how = 0; how < 12; how++) {
    char file[64];
    unsigned char *bytes = real_plugin(&size);
    damage(bytes, size, how);
    snprintf(file, sizeof file, "libtern-cut%d.so", how);
    write_file(file, bytes, size);
    free(bytes);
  }
  check_cuts(12);
  char path[512];
  empty_folder();
  path_of(path, sizeof path, "libtern-folder.so");
  CU_ASSERT_EQUAL(mkdir(path, 0700), 0);
  path_of(path, sizeof path, "libtern-nowhere.so");
  CU_ASSERT_EQUAL(symlink("/nonexistent/file", path), 0);
  check(run("-", "", no_settings) && said("cpu ok"), "a folder and a dangling link");
  check_refused("libtern-folder.so", "not a regular file");
  check_refused("libtern-nowhere.so", "cannot be opened");
}

/* ---- tables ---- */

static bool compile(const char *source, const char *defines, const char *file) {
  char command[4096];
  snprintf(command, sizeof command,
           "'" TERN_TEST_CC "' -std=gnu17 -shared -fPIC %s -I'%s/../../include' -I'%s/../../plugins/template' "
           "'%s/../plugins/variants/%s' -o '%s/%s'",
           defines, TERN_FIXTURES, TERN_FIXTURES, TERN_FIXTURES, source, test.folder, file);
  return system(command) == 0;
}

static void test_tables(void) {
  static const struct {
    const char *variant, *reason;
  } variants[] = {{"WRONG_MAJOR", "major versions must be equal"},
                  {"NULL_TABLE", "does not serve"},
                  {"NO_NAME", "damaged"},
                  {"SMALL", "damaged"},
                  {"HUGE", "damaged"},
                  {"SCORE_0", "cannot run on this machine"},
                  {"NO_INIT", "lacks init"},
                  {"NO_DEVICE_INFO", "lacks device_info"},
                  {"NO_DEVICE_OPEN", "lacks device_open"},
                  {"NO_DEVICE_CLOSE", "lacks device_close"},
                  {"NO_MEM_ALLOC", "lacks mem_alloc"},
                  {"NO_MEM_FREE", "lacks mem_free"},
                  {"NO_COPY", "lacks copy"},
                  {"NO_SUPPORTS", "lacks supports"},
                  {"NO_COMPILE", "lacks compile"},
                  {"NO_LAUNCH", "lacks launch"},
                  {"NO_KERNEL_FREE", "lacks kernel_free"}};
  empty_folder();
  char define[64], file[64];
  for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
    snprintf(define, sizeof define, "-DVARIANT=%s", variants[i].variant);
    snprintf(file, sizeof file, "libtern-variant-%zu.so", i);
    CU_ASSERT_TRUE_FATAL(compile("variant.c", define, file));
  }
  CU_ASSERT_TRUE_FATAL(compile("no_query.c", "", "libtern-noquery.so"));
  check(run("-", "", no_settings) && said("cpu ok"), "wrong tables");
  for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
    snprintf(file, sizeof file, "libtern-variant-%zu.so", i);
    check_refused(file, variants[i].reason);
  }
  check_refused("libtern-noquery.so", "tern_plugin_query");
}

static void test_other_minors(void) {
  static const char *const variants[] = {"OLDER", "NEWER"};
  for (int i = 0; i < 2; i++) {
    char define[64];
    empty_folder();
    snprintf(define, sizeof define, "-DVARIANT=%s", variants[i]);
    CU_ASSERT_TRUE_FATAL(compile("variant.c", define, "libtern-variant.so"));
    check(run("variant", "", no_settings), variants[i]);
    check(lines_with("device ok") == 2 && said("cpu ok") && said("plugin libtern-variant.so: in use"), variants[i]);
  }
}

/* ---- drivers ---- */

typedef struct failure {
  const char *fail, *clue; /* what the error must say; NULL: nobody calls it, or a failure means "no": all works */
  int code;
  bool refused; /* the plugin itself is refused */
  bool broken;  /* the queue stays failed, so tern_finish reports it once more */
} failure;

static void check_failure(const failure *f, const char *what) {
  char setting[64], name[96];
  const char *const settings[] = {setting, NULL};
  snprintf(setting, sizeof setting, "TERN_FAULTY_FAIL=%s", f->fail);
  snprintf(name, sizeof name, "%s", setting);
  check(run("faulty", what, settings), name);
  check(said("cpu ok") && said(f->broken ? "finish 1" : "finish 0"), name);
  if (!f->clue) {
    check(lines_with("device ok") == 2 && lines_with("error ") == 0, name);
    return;
  }
  char code[16];
  snprintf(code, sizeof code, "error %d ", f->code);
  check(lines_with("error ") == 2 && !said("device ok"), name); /* one for each try */
  check(lines_with(code) >= 1 && said(f->clue) && said("faulty"), name);
  if (f->refused)
    check_refused("libtern-faulty.so", f->clue);
  else
    check(said("plugin libtern-faulty.so: in use"), name);
}

static void test_entry_points(void) {
  static const failure failures[] = {{"init", "init fails", TERN_E_ARG, true, false},
                                     {"device_info", "device_info fails", TERN_E_ARG, true, false},
                                     {"device_open", "device_open fails", TERN_E_INTERNAL, false, false},
                                     {"queue_open", "queue_open fails", TERN_E_INTERNAL, false, false},
                                     {"mem_alloc", "mem_alloc fails", TERN_E_OOM, false, false},
                                     {"mem_map", "mem_map fails", TERN_E_INTERNAL, false, false},
                                     {"copy", "copy fails", TERN_E_INTERNAL, false, false},
                                     {"compile", "compile fails", TERN_E_INTERNAL, false, false},
                                     {"workspace", "workspace fails", TERN_E_INTERNAL, false, false},
                                     {"launch", "launch fails", TERN_E_INTERNAL, false, false},
                                     {"mute", "TERN_E_INTERNAL", TERN_E_INTERNAL, false, false},
                                     {"queue_signal", "queue_signal fails", TERN_E_INTERNAL, false, true},
                                     {"queue_sync", "queue_sync fails", TERN_E_INTERNAL, false, true},
                                     {"async", "a launch fails when it runs", TERN_E_INTERNAL, false, true},
                                     {"lost", "fell off the bus", TERN_E_LOST, false, false},
                                     {"supports", NULL, 0, false, false},
                                     {"queue_wait", NULL, 0, false, false},
                                     {"fill", NULL, 0, false, false},
                                     {"slow", NULL, 0, false, false},
                                     {"", NULL, 0, false, false}};
  empty_folder();
  for (size_t i = 0; i < sizeof failures / sizeof *failures; i++) check_failure(&failures[i], "");
  check_failure(&(failure){"oom_after:5", "the device is full", TERN_E_OOM, false, false}, "fill");
}

static void test_refusing(void) {
  static const char *const single[] = {"TERN_FAULTY_SINGLE=1", NULL}, *const refuse[] = {"TERN_FAULTY_REFUSE=1", NULL},
                           *const strict[] = {"TERN_FAULTY_REFUSE=1", "TERN_FALLBACK=error", NULL};
  empty_folder();
  check(run("faulty", "", single) && lines_with("device ok") == 2 && said("counters - splits"),
        "SINGLE: composites are split");
  check(run("faulty", "", refuse) && lines_with("device ok") == 2 && said("counters fallbacks"),
        "REFUSE: the host computes");
  check(run("faulty", "", strict) && said("error -1") && said("add") && said("faulty:0") && said("cpu ok"),
        "REFUSE with TERN_FALLBACK=error");
}

int main(int argc, char **argv) {
  if (argc == 3) return child(argv[1], argv[2]);
  test.self = argv[0];
  snprintf(test.folder, sizeof test.folder, "/tmp/tern-loader-XXXXXX");
  if (!mkdtemp(test.folder) || CU_initialize_registry() != CUE_SUCCESS) return 2;
  CU_pSuite suite = CU_add_suite("plugins/loader", NULL, NULL);
  CU_add_test(suite, "nothing there, no such device", test_none);
  CU_add_test(suite, "a plugin cut in its headers and at every 4 KiB", test_cut);
  CU_add_test(suite, "damaged headers, folders, links", test_damaged);
  CU_add_test(suite, "wrong tables", test_tables);
  CU_add_test(suite, "older and newer minor versions", test_other_minors);
  CU_add_test(suite, "each entry point fails in turn", test_entry_points);
  CU_add_test(suite, "a driver that refuses regions", test_refusing);
  CU_basic_set_mode(CU_BRM_VERBOSE);
  CU_basic_run_tests();
  const unsigned failures = CU_get_number_of_failures();
  CU_cleanup_registry();
  empty_folder();
  rmdir(test.folder);
  return failures ? 1 : 0;
}
