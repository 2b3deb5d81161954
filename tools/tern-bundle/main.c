/* tern-bundle: kernels compiled ahead of time, for devices without a compiler (docs/fpga.md). It reads and changes
   manifests itself; kernels are collected and images made by the OpenCL plugin, which its options ask to. */
#include "bundle.h"

#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "usage: tern-bundle make -o NAME [GRAPH...] [options]   NAME.cl and NAME.json from graphs (docs/formats.md) and "
    "ops\n"
    "         --ops add:f32,matmul:f32:3   ops run one by one: NAME:DTYPE, perhaps :RANK (2 to 6)\n"
    "         --size s0=32    a size of the graphs that varies and must be known, once for each (also --shape)\n"
    "         --target T      fpga (tasks), fpga-ndrange, gpu, cpu: what device the text is rendered for\n"
    "         --trait K=V     another value of one of the target's traits; NAME.json lists them\n"
    "         --hint K=V      for the vendor's compiler, in all kernels; WHAT:K=V in the sections of that name or key\n"
    "       tern-bundle image NAME.json --device D [--file F]   compile it on a device with a compiler (an emulator)\n"
    "       tern-bundle add-image NAME.json FILE [--board B]    record what a vendor's compiler made (.aocx, "
    ".xclbin);\n"
    "                         B is the device's name as clinfo prints it; without: any board without a compiler\n"
    "         --only A,B      for both: the image holds these sections only, by name or the begin of their key\n"
    "       tern-bundle report NAME.json REPORT [--image F]     add a vendor's report of resources and clock\n"
    "       tern-bundle check NAME.json     whether all of it is whole, and what it holds\n"
    "  --json    image, add-image, report, check: the outcome as JSON\n"
    "  --help    this\n"
    "The status is 0, 1 when something is wrong (said on stderr), 2 for wrong usage.\n";

int bundle_failed(const char *what, const char *why) {
  fprintf(stderr, "tern-bundle: %s%s%s\n", what, *what ? ": " : "", why);
  return 1;
}

static bool push(const char **list, int *n, int most, const char *text) {
  if (!text || *n == most) return false;
  list[(*n)++] = text;
  return true;
}

static bool put(const char **to, const char *text) {
  if (!text || *to) return false;
  *to = text;
  return true;
}

static bool parse_option(bundle_request *q, const char *a, const char *next) {
  if (!strcmp(a, "-o")) return put(&q->out, next);
  if (!strcmp(a, "--ops")) return put(&q->ops, next);
  if (!strcmp(a, "--size") || !strcmp(a, "--shape")) return push(q->size, &q->n_sizes, MOST_INPUTS, next);
  if (!strcmp(a, "--target")) return put(&q->target, next);
  if (!strcmp(a, "--trait")) return push(q->trait, &q->n_traits, MOST_HINTS, next);
  if (!strcmp(a, "--hint")) return push(q->hint, &q->n_hints, MOST_HINTS, next);
  if (!strcmp(a, "--device")) return put(&q->device, next);
  if (!strcmp(a, "--file")) return put(&q->file, next);
  if (!strcmp(a, "--only")) return put(&q->only, next);
  if (!strcmp(a, "--board")) return put(&q->board, next);
  if (!strcmp(a, "--image")) return put(&q->image, next);
  return false;
}

static bool parse(int argc, char **argv, bundle_request *q) {
  if (argc < 2) return false;
  q->command = argv[1];
  const bool make = !strcmp(q->command, "make");
  for (int i = 2; i < argc; i++) {
    const char *a = argv[i];
    if (!strcmp(a, "--json"))
      q->json = true;
    else if (a[0] == '-' && a[1]) {
      if (!parse_option(q, a, i + 1 < argc ? argv[i + 1] : NULL)) return false;
      i++;
    } else if (make) {
      if (!push(q->graph, &q->n_graphs, MOST_INPUTS, a)) return false;
    } else if (!put(&q->manifest, a) && !put(&q->file, a))
      return false;
  }
  return make ? q->out && (q->n_graphs || q->ops) : q->manifest != NULL;
}

/* Plugins beside the program, as the shared library would find them. */
static void find_plugins(void) {
  char path[4096];
  const ssize_t n = readlink("/proc/self/exe", path, sizeof path - 32);
  if (n <= 0 || getenv("TERN_PLUGIN_PATH")) return;
  path[n] = 0;
  char *dir = dirname(path);
  memmove(path, dir, strlen(dir) + 1);
  strcat(path, "/../lib/tern");
  setenv("TERN_PLUGIN_PATH", path, 0);
}

int main(int argc, char **argv) {
  static const struct {
    const char *name;
    int (*run)(const bundle_request *);
  } commands[] = {{"make", bundle_make},
                  {"image", bundle_image},
                  {"add-image", bundle_add_image},
                  {"check", bundle_check},
                  {"report", bundle_report}};
  bundle_request q = {.command = ""};
  for (int i = 1; i < argc; i++)
    if (!strcmp(argv[i], "--help")) {
      fputs(help, stdout);
      return 0;
    }
  if (parse(argc, argv, &q)) {
    find_plugins();
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
      if (!strcmp(q.command, commands[i].name)) return commands[i].run(&q);
  }
  fputs(help, stderr);
  return 2;
}
