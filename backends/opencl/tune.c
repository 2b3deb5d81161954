/* See tune.h. An entry of the table is a class and a form in one word, so that reading it needs no lock. */
#include "tune.h"

#define XXH_INLINE_ALL
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

enum { SLOTS = 4096, PROBES = 64, ROUNDS = 6, MOST_RUNS = 64, TUNE_VERSION = 1, MAX_FILE = 1 << 20 };
static const double sample = 0.01; /* seconds of one, if a run is shorter */
#define CHANCE 0.95

typedef struct remembered {
  uint64_t class;
  uint32_t form;
  bool mine;       /* measured by this process */
  double seconds;  /* of one run; and */
  char label[160]; /* "DOT float32 128 x 128 x 128: block 6x64", for people who look at the file */
} remembered;

struct ocl_tune {
  pthread_mutex_t lock; /* measuring, and all but `slot` */
  _Atomic uint64_t slot[SLOTS];
  remembered *all; /* as on disk, and what was measured since */
  size_t n, cap;
  ocl_tune_mode mode;
  tern_queue *queue;
  uint64_t key[2]; /* of the device */
};

/* ---- the table ---- */

static uint64_t entry_of(uint64_t class, uint32_t form) { return class << 8 | (form + 1); }

static size_t first_slot(uint64_t class) { return (size_t)(class * UINT64_C(0x9E3779B97F4A7C15) >> 40); }

static bool look(const ocl_tune *t, uint64_t class, uint32_t *form) {
  for (size_t i = 0, at = first_slot(class); i < PROBES; i++) {
    const uint64_t e = atomic_load_explicit(&t->slot[(at + i) % SLOTS], memory_order_acquire);
    if (!e) return false;
    if (e >> 8 == class) {
      *form = (uint32_t)(e & 255) - 1;
      return true;
    }
  }
  return false;
}

/* The first entry of a class stays. False: no room, so the class has none for ever. */
static bool enter(ocl_tune *t, uint64_t class, uint32_t form) {
  for (size_t i = 0, at = first_slot(class); i < PROBES; i++) {
    uint64_t seen = 0;
    if (atomic_compare_exchange_strong(&t->slot[(at + i) % SLOTS], &seen, entry_of(class, form)) || seen >> 8 == class)
      return true;
  }
  return false;
}

uint64_t ocl_tune_class(uint32_t kind, const int64_t *sizes, uint32_t n) {
  uint64_t c = (uint64_t)(kind & 0xffffff) | 1u << 23;
  for (uint32_t i = 0; i < n && i < 6; i++) {
    const uint64_t bits = sizes[i] > 0 ? 64u - (uint64_t)__builtin_clzll((unsigned long long)sizes[i]) : 0;
    c |= (bits > 31 ? 31 : bits) << (24 + 5 * i);
  }
  return c;
}

/* ---- the file: lines of text, the last one is the hash of those before ---- */

static void device_key(const tern_dev *dev, uint64_t key[2]) {
  char numbers[64];
  snprintf(numbers, sizeof numbers, "%d %x %u", TUNE_VERSION, TERN_ABI, dev->id->units);
  const char *const parts[] = {numbers, dev->id->name, dev->id->versions,
                               ocl_is_cpu(dev->id) ? dev->drv->cpu_features : ""};
  ocl_hash_texts(NULL, 0, parts, sizeof parts / sizeof *parts, key);
}

static bool path_of(const tern_dev *dev, const ocl_tune *t, const char *suffix, char *out, size_t cap) {
  const int n = snprintf(out, cap, "%s/opencl-tune-%016" PRIx64 "%016" PRIx64 "%s", dev->drv->cache_dir, t->key[1],
                         t->key[0], suffix);
  return n > 0 && (size_t)n < cap;
}

/* A measurement replaces an earlier one of its class. */
static bool remember(ocl_tune *t, const remembered *r) {
  for (size_t i = 0; i < t->n; i++)
    if (t->all[i].class == r->class) {
      t->all[i] = *r;
      return true;
    }
  if (t->n == t->cap) {
    const size_t cap = t->cap ? t->cap * 2 : 32;
    remembered *grown = realloc(t->all, cap * sizeof *grown);
    if (!grown) return false;
    t->all = grown;
    t->cap = cap;
  }
  t->all[t->n++] = *r;
  return true;
}

static bool knows(const ocl_tune *t, uint64_t class) {
  for (size_t i = 0; i < t->n; i++)
    if (t->all[i].class == class) return true;
  return false;
}

static char *read_text(const char *path, size_t *size) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* not to hang on a pipe of that name */
  FILE *f = fd >= 0 ? fdopen(fd, "r") : NULL;
  char *text = f ? malloc(MAX_FILE + 1) : NULL;
  *size = text ? fread(text, 1, MAX_FILE, f) : 0;
  if (f)
    fclose(f);
  else if (fd >= 0)
    close(fd);
  if (text) text[*size] = 0;
  return text;
}

/* NULL: all lines are taken; else what is wrong, and none is. */
static const char *parse(ocl_tune *t, char *text, size_t size) {
  char head[64];
  const int n = snprintf(head, sizeof head, "tern-opencl-tune %d %016" PRIx64 "%016" PRIx64 "\n", TUNE_VERSION,
                         t->key[1], t->key[0]);
  if (strlen(text) != size || strncmp(text, head, (size_t)n)) return "it is not of this device and version";
  char *last = strstr(text, "\nhash ");
  uint64_t hash = 0;
  int end = 0;
  if (!last || sscanf(last, "\nhash %16" SCNx64 "%n", &hash, &end) != 1 || strcmp(last + end, "\n"))
    return "its last line is missing";
  if (XXH3_64bits(text, (size_t)(last + 1 - text)) != hash) return "it is damaged";
  for (char *at = text + n; at <= last;) {
    remembered r = {0};
    char *stop = strchr(at, '\n');
    *stop = 0; /* else sscanf would look for the end of all of it, each time */
    if (sscanf(at, "%16" SCNx64 " %" SCNu32 " %lf %159[^\n]%n", &r.class, &r.form, &r.seconds, r.label, &end) != 4 ||
        !r.class || r.class >> 56 || r.form >= OCL_TUNE_FORMS || at[end])
      return "it has a line that is none";
    if (!remember(t, &r)) return "no memory to read it";
    at = stop + 1;
  }
  return NULL;
}

static void load(tern_dev *dev, ocl_tune *t) {
  char path[4096];
  size_t size = 0;
  if (!dev->drv->cache_dir || !path_of(dev, t, ".txt", path, sizeof path)) return;
  char *text = read_text(path, &size);
  const char *why = text ? parse(t, text, size) : NULL;
  if (why) {
    ocl_log(dev->drv, 2, "opencl:%s: what was measured is not used, it will be measured again: %s: %s", dev->id->alias,
            path, why);
    t->n = 0;
  }
  free(text);
}

/* What another process has written meanwhile is kept, where this one has not measured it. */
static void merge(tern_dev *dev, ocl_tune *t) {
  ocl_tune other = {.key = {t->key[0], t->key[1]}};
  load(dev, &other);
  for (size_t i = 0; i < t->n; i++)
    if (t->all[i].mine || !knows(&other, t->all[i].class)) remember(&other, &t->all[i]);
  if (other.n >= t->n) {
    free(t->all);
    t->all = other.all, t->n = other.n, t->cap = other.cap;
  } else {
    free(other.all);
  }
}

static void store(tern_dev *dev, ocl_tune *t) {
  char path[4096], temp[4096];
  ocl_text text = {0};
  if (!dev->drv->cache_dir) return;
  merge(dev, t);
  ocl_add(&text, "tern-opencl-tune %d %016" PRIx64 "%016" PRIx64 "\n", TUNE_VERSION, t->key[1], t->key[0]);
  for (size_t i = 0; i < t->n; i++)
    ocl_add(&text, "%014" PRIx64 " %" PRIu32 " %.3e %s\n", t->all[i].class, t->all[i].form, t->all[i].seconds,
            t->all[i].label);
  if (!text.failed) ocl_add(&text, "hash %016" PRIx64 "\n", (uint64_t)XXH3_64bits(text.s, text.n));
  bool ok = !text.failed && ocl_make_dirs(dev->drv->cache_dir) && path_of(dev, t, ".txt", path, sizeof path) &&
            path_of(dev, t, ".XXXXXX", temp, sizeof temp);
  const int fd = ok ? mkstemp(temp) : -1;
  FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;
  if (fd >= 0 && !f) close(fd);
  if (f) {
    ok = fwrite(text.s, 1, text.n, f) == text.n;
    ok = !fclose(f) && ok && !rename(temp, path);
  }
  if (fd >= 0 && !(f && ok)) unlink(temp);
  if (!f || !ok)
    ocl_log(dev->drv, 1, "opencl:%s: what was measured cannot be kept in %s: %s", dev->id->alias, dev->drv->cache_dir,
            strerror(errno));
  free(text.s);
}

/* ---- the device's ---- */

static ocl_tune_mode mode_of(const tern_dev *dev) {
  static const char *const names[] = {"off", "auto", "1", "all", "redo"};
  const char *o = ocl_option(dev->drv, "tune", "auto");
  for (int i = 0; i < (int)(sizeof names / sizeof *names); i++)
    if (!strcmp(o, names[i])) return (ocl_tune_mode)i;
  return !strcmp(o, "0") ? OCL_TUNE_OFF : OCL_TUNE_KNOWN;
}

/* A line for whoever asked for a report (tern-tune): what happened, the label, seconds, whether it is the fastest. */
static void report(const tern_dev *dev, const char *event, const char *label, double seconds, bool fastest) {
  const char *path = ocl_option(dev->drv, "tune_report", NULL);
  FILE *f = path ? fopen(path, "ae") : NULL;
  if (!f) return;
  fprintf(f, "%s\t%s\t%.4e\t%d\n", event, label, seconds, fastest);
  fclose(f);
}

static ocl_tune *make(tern_dev *dev) {
  ocl_tune *t = calloc(1, sizeof *t);
  if (!t) return NULL;
  pthread_mutex_init(&t->lock, NULL);
  t->mode = mode_of(dev);
  device_key(dev, t->key);
  if (t->mode != OCL_TUNE_OFF) load(dev, t);
  for (size_t i = 0; i < t->n && t->mode != OCL_TUNE_REDO; i++) {
    enter(t, t->all[i].class, t->all[i].form);
    report(dev, "remembered", t->all[i].label, t->all[i].seconds, true);
  }
  return t;
}

static void destroy(ocl_tune *t) {
  if (!t) return;
  pthread_mutex_destroy(&t->lock);
  free(t->all);
  free(t);
}

/* Made when it is first asked for; NULL: no memory. */
static ocl_tune *tune_of(tern_dev *dev) {
  ocl_tune *t = atomic_load_explicit(&dev->tune, memory_order_acquire);
  if (t) return t;
  ocl_tune *fresh = make(dev);
  if (!fresh) return NULL;
  if (atomic_compare_exchange_strong(&dev->tune, &t, fresh)) return fresh;
  destroy(fresh);
  return t;
}

void ocl_tune_close(tern_dev *dev) {
  ocl_tune *t = atomic_exchange(&dev->tune, NULL);
  if (t && t->queue) ocl_queue_close(dev, t->queue);
  destroy(t);
}

ocl_tune_mode ocl_tune_mode_of(tern_dev *dev) {
  const ocl_tune *t = tune_of(dev);
  return t ? t->mode : OCL_TUNE_OFF;
}

uint32_t ocl_tune_find(tern_dev *dev, uint64_t class, bool *known) {
  const ocl_tune *t = tune_of(dev);
  uint32_t form = OCL_TUNE_GUESS;
  *known = t && look(t, class, &form);
  return form;
}

uint32_t ocl_tune_pin(tern_dev *dev, uint64_t class) {
  ocl_tune *t = tune_of(dev);
  uint32_t form = OCL_TUNE_GUESS;
  if (t && enter(t, class, OCL_TUNE_GUESS)) look(t, class, &form);
  return form;
}

/* ---- measuring ---- */

/* The least of some runs in turn; forms that are slower by far drop out after their first. */
static uint32_t fastest(tern_queue *q, const ocl_tune_how *how, double best[OCL_TUNE_FORMS]) {
  uint32_t winner = OCL_TUNE_GUESS;
  uint64_t mask = how->mask;
  int runs[OCL_TUNE_FORMS];
  for (uint32_t f = 0; f < OCL_TUNE_FORMS; f++) best[f] = -1, runs[f] = 1;
  for (int round = 0; round <= ROUNDS; round++)
    for (uint32_t f = 1; f < OCL_TUNE_FORMS; f++) {
      if (!(mask >> f & 1)) continue;
      const double s = how->time(how->context, q, f, !round ? 1 : runs[f]);
      if (s < 0) mask &= ~(UINT64_C(1) << f);
      if (s < 0) continue;
      /* the first run compiles, the second tells how many make a sample */
      if (round) runs[f] = s * MOST_RUNS < sample ? MOST_RUNS : s < sample ? (int)(sample / s) : 1;
      if (round && (best[f] < 0 || s < best[f])) best[f] = s;
      if (best[f] >= 0 && (!winner || best[f] < best[winner])) winner = f;
      if (round > 1 && winner && best[f] > (round > 2 ? 1.5 : 3) * best[winner]) mask &= ~(UINT64_C(1) << f);
    }
  return winner && best[how->guess] >= 0 && best[winner] > CHANCE * best[how->guess] ? how->guess : winner;
}

/* Tells of the forms, slow ones as far as they were timed, and remembers the fastest. */
static void keep(tern_dev *dev, ocl_tune *t, uint64_t class, uint32_t form, const ocl_tune_how *how,
                 const double best[OCL_TUNE_FORMS]) {
  for (uint32_t f = 1; f < OCL_TUNE_FORMS; f++) {
    if (best[f] < 0) continue;
    remembered r = {.class = class, .form = f, .mine = true, .seconds = best[f]};
    snprintf(r.label, sizeof r.label, "%s: %s", how->what, how->name(how->context, f));
    ocl_log(dev->drv, 3, "opencl:%s: tuned %s %.4g us%s", dev->id->alias, r.label, 1e6 * best[f],
            f == form ? ", the fastest" : "");
    report(dev, "measured", r.label, best[f], f == form);
    if (f == form) remember(t, &r);
  }
  store(dev, t);
}

uint32_t ocl_tune_measure(tern_dev *dev, uint64_t class, const ocl_tune_how *how) {
  ocl_tune *t = tune_of(dev);
  uint32_t form = OCL_TUNE_GUESS;
  double best[OCL_TUNE_FORMS];
  if (!t) return form;
  pthread_mutex_lock(&t->lock);
  if (!look(t, class, &form)) {
    if (!t->queue) ocl_queue_open(dev, 0, &t->queue);
    if (t->queue) form = fastest(t->queue, how, best);
    const bool entered = enter(t, class, form);
    if (entered && form != OCL_TUNE_GUESS) keep(dev, t, class, form, how, best);
    if (!entered || !look(t, class, &form)) form = OCL_TUNE_GUESS;
  }
  pthread_mutex_unlock(&t->lock);
  return form;
}
