/* The memory planner: height of the plan over the lower bound, and the time until it. Instances: generated ones, and
   every NAME.CAPACITY.csv of the folder that the variable BENCH_DATA names (./dev bench planner --data DIR), planned
   twice: within its capacity, and as low as possible without being told. */
#include "bench.h"

#include <dirent.h>

#include "graph/passes/plan.h"
#include "planner/instances.h"

enum { MAX_FILES = 64, MAX_CASES = 2 * MAX_FILES + 32, NAME = 96 };

typedef struct planner_case {
  char name[NAME];
  char path[512];   /* "": generated */
  instance_net net; /* NET_COUNT: a cut rectangle */
  size_t size;      /* buffers; of a cut rectangle */
  uint64_t seed, capacity;
  double seconds, need_ms, need_height; /* limits of the plan, ms and height / bound; 0: none */
} planner_case;

static struct {
  planner_case cases[MAX_CASES];
  int n;
} all;

static planner_case *add_case(const char *format, const char *a, size_t b) {
  if (all.n == MAX_CASES) return NULL;
  planner_case *c = &all.cases[all.n++];
  snprintf(c->name, sizeof c->name, format, a, b);
  return c;
}

static void add_generated(void) {
  for (int net = 0; net < NET_COUNT; net++) {
    planner_case *c = add_case("planner/%s%zu", instance_net_name((instance_net)net), 18000);
    if (c) c->net = (instance_net)net, c->size = 18000, c->seed = 2, c->seconds = 10, c->need_height = 1.01;
    c = add_case("planner/%s%zu", instance_net_name((instance_net)net), 1000);
    if (c) c->net = (instance_net)net, c->size = 1000, c->seed = 2, c->seconds = 0.005, c->need_ms = 5.5;
  }
  for (size_t n = 100; n <= 300; n += 100) {
    planner_case *c = add_case("planner/%s%zu", "cut", n);
    if (c)
      c->net = NET_COUNT, c->size = n, c->seed = 1, c->capacity = 1 << 20, c->seconds = 2, c->need_ms = 2000,
      c->need_height = 1;
  }
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* NAME.CAPACITY.csv, both ways. */
static void add_file(const char *folder, const char *file) {
  const char *dot = strchr(file, '.');
  char *end = NULL;
  const uint64_t capacity = dot ? strtoull(dot + 1, &end, 10) : 0;
  if (!capacity || strcmp(end, ".csv") != 0) return;
  char name[40];
  snprintf(name, sizeof name, "%.*s", (int)(dot - file), file);
  for (int told = 0; told < 2; told++) {
    planner_case *c = add_case(told ? "planner/%s/told" : "planner/%s/least", name, 0);
    if (!c) return;
    snprintf(c->path, sizeof c->path, "%s/%s", folder, file);
    c->capacity = told ? capacity : 0;
    c->seconds = told ? 2 : 3;
    c->need_ms = told ? 2000 : 3300;
  }
}

static void add_files(const char *folder) {
  char *names[MAX_FILES];
  int n = 0;
  DIR *d = opendir(folder);
  if (!d) {
    fprintf(stderr, "%s: %s\n", folder, strerror(errno));
    return;
  }
  for (struct dirent *e; (e = readdir(d)) && n < MAX_FILES;)
    if ((names[n] = strdup(e->d_name))) n++;
  closedir(d);
  qsort(names, (size_t)n, sizeof *names, by_name);
  for (int i = 0; i < n; i++) {
    add_file(folder, names[i]);
    free(names[i]);
  }
}

/* A file's buffers. */
static bool load(const planner_case *c, tern__plan_rows *rows) {
  static char text[1 << 22];
  char message[200];
  FILE *f = fopen(c->path, "rb");
  const size_t n = f ? fread(text, 1, sizeof text, f) : 0;
  if (f) fclose(f);
  if (tern__plan_read(text, n, rows, message, sizeof message) == TERN_OK) return true;
  fprintf(stderr, "%s: %s\n", c->path, message);
  return false;
}

static int measure(const char *name) {
  const planner_case *c = all.cases;
  while (c < all.cases + all.n && strcmp(c->name, name) != 0) c++;
  if (c == all.cases + all.n) return bench_fail("%s: no such case", name);
  tern__plan_rows rows = {0};
  instance made = {0};
  if (*c->path) {
    if (!load(c, &rows)) return bench_fail("%s: not read", name);
  } else
    made = c->net == NET_COUNT ? instance_cut(c->size, 1000, c->capacity, 0, c->seed)
                               : instance_network(c->net, c->size, c->seed);
  tern__buffer *buffers = *c->path ? rows.buffers : made.buffers;
  const size_t count = *c->path ? rows.count : made.count;
  const tern__plan_opts opts = {.capacity = c->capacity, .seconds = c->seconds};
  tern__plan_report r;
  double ms[BENCH_PAIRS];
  int n = 0;
  const char *wrong = NULL;
  do { /* long ones once: the search takes the same decisions each time */
    if (tern__plan(buffers, count, &opts, &r)) return bench_fail("%s: %s", name, tern_error());
    wrong = instance_wrong(buffers, count, &opts, &r);
    ms[n++] = r.seconds * 1e3;
  } while (n < BENCH_PAIRS && ms[0] < 100 && !wrong);
  tern__plan_rows_free(&rows);
  instance_free(&made);
  if (wrong) return bench_fail("%s: %s", name, wrong);
  const double time = bench_median(ms, n), limit = (double)(c->capacity > r.lower_bound ? c->capacity : r.lower_bound);
  const double height = (double)r.height / (double)r.lower_bound;
  double need_height = c->need_height;
  if (!*c->path || c->capacity) need_height = c->capacity ? limit / (double)r.lower_bound : need_height;
  const bench_row rows_out[] = {{name, "cpu", "x bound", NULL, false, height, NAN,
                                 need_height > 0 ? need_height / height : NAN, need_height > 0 ? need_height : NAN},
                                {name, "cpu", "ms", NULL, false, time, NAN, c->need_ms > 0 ? c->need_ms / time : NAN,
                                 c->need_ms > 0 ? c->need_ms : NAN}};
  bench_print(&rows_out[0]);
  bench_print(&rows_out[1]);
  return 0;
}

int main(int argc, char **argv) {
  static bench_case cases[MAX_CASES];
  add_generated();
  const char *folder = getenv("BENCH_DATA");
  if (folder && *folder) add_files(folder);
  for (int i = 0; i < all.n; i++) cases[i] = (bench_case){.name = all.cases[i].name, .measure = measure};
  return bench_main(argc, argv, "The memory planner.", cases, (size_t)all.n);
}
