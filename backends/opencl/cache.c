/* Units on disk: a folder for each kind of device (its runtime, driver and options), in it a file for each unit. A file
   is believed only when its header (magic, version, length, kind, keys) and the hash of its payload agree: OpenCL
   runtimes abort the process on a truncated binary and run a damaged one. The headers are read once, when something is
   looked for first. */
#include "build.h"

#define XXH_INLINE_ALL
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

/* A file: this, the keys of the sections, the payload. The byte order is the machine's. */
typedef struct unit_head {
  char magic[8];
  uint32_t version, kind, n, reserved;
  uint64_t size, payload[2]; /* bytes of the payload and their hash */
  uint64_t keys;             /* hash of the keys */
  uint64_t self;             /* hash of the members above */
} unit_head;

static const char unit_magic[8] = "TERNUNI";
enum { UNIT_VERSION = 1, FILES_MOST = 1024, STALE_S = 3600, AGE_S = 86400 };
static const uint64_t unit_most = 128u << 20, folder_most = 512u << 20;

typedef struct unit_file {
  char name[33]; /* 32 hex digits; the file's ends in .unit */
  uint32_t n;
  bool gone;
  int64_t modified; /* s */
  uint64_t bytes;
  uint64_t (*keys)[2];
} unit_file;

struct ocl_cache {
  tern_drv *drv;
  char dir[4096];
  unit_file *files;
  uint32_t n, cap;
  uint64_t bytes;
  bool made; /* the folder is there */
};

/* ---- bytes and names ---- */

static bool read_all(int fd, void *to, size_t size) {
  for (size_t done = 0; done < size;) {
    const ssize_t n = read(fd, (char *)to + done, size - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    done += (size_t)n;
  }
  return true;
}

static bool write_all(int fd, const void *from, size_t size) {
  for (size_t done = 0; done < size;) {
    const ssize_t n = write(fd, (const char *)from + done, size - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    done += (size_t)n;
  }
  return true;
}

static uint64_t head_hash(const unit_head *h) { return XXH3_64bits(h, offsetof(unit_head, self)); }

static bool path_of(const ocl_cache *c, const char *name, const char *suffix, char out[4096]) {
  const int n = snprintf(out, 4096, "%s/%s%s", c->dir, name, suffix);
  return n > 0 && n < 4096;
}

static void hex(const XXH128_hash_t h, char out[33]) {
  snprintf(out, 33, "%016llx%016llx", (unsigned long long)h.high64, (unsigned long long)h.low64);
}

/* Everything that a compiled kernel depends on beside its text. */
static void device_key(const tern_dev *dev, char out[33]) {
  uint64_t key[2];
  const uint32_t numbers[] = {TERN_ABI, UNIT_VERSION, dev->lean, sizeof(void *)};
  const char *const parts[] = {dev->id->platform_name, dev->id->name, dev->id->versions, ocl_build_options(dev),
                               ocl_is_cpu(dev->id) ? dev->drv->cpu_features : ""};
  ocl_hash_texts(numbers, sizeof numbers, parts, sizeof parts / sizeof parts[0], key);
  hex((XXH128_hash_t){.low64 = key[0], .high64 = key[1]}, out);
}

/* A unit's name says which sections it holds. */
static void name_of(const uint64_t (*keys)[2], uint32_t n, char out[33]) {
  hex(XXH3_128bits(keys, n * sizeof *keys), out);
}

/* ---- reading ---- */

/* Header and keys of an open file; *why: what is wrong. Caller frees *keys. */
static bool read_head(int fd, const char *name, unit_head *h, uint64_t (**keys)[2], struct stat *st, const char **why) {
  char right[33];
  *keys = NULL;
  *why = "it is not a file, or shorter than its header";
  if (fstat(fd, st) || !S_ISREG(st->st_mode) || !read_all(fd, h, sizeof *h)) return false;
  *why = "its header is not ours or is damaged";
  if (memcmp(h->magic, unit_magic, sizeof h->magic) || h->self != head_hash(h)) return false;
  *why = "it has another format";
  if (h->version != UNIT_VERSION || (h->kind != OCL_BINARY && h->kind != OCL_SOURCE)) return false;
  *why = "its length is wrong";
  if (!h->n || h->n > OCL_UNIT_SECTIONS || !h->size || h->size > unit_most ||
      (uint64_t)st->st_size != sizeof *h + h->n * sizeof **keys + h->size)
    return false;
  *keys = malloc(h->n * sizeof **keys);
  *why = "no memory to read it, or it cannot be read";
  if (*keys && read_all(fd, *keys, h->n * sizeof **keys)) {
    *why = "its keys are damaged, or it has another's name";
    name_of((const uint64_t(*)[2]) * keys, h->n, right);
    if (XXH3_64bits(*keys, h->n * sizeof **keys) == h->keys && !strcmp(right, name)) return true;
  }
  free(*keys);
  *keys = NULL;
  return false;
}

static int open_unit(const ocl_cache *c, const char *name) {
  char path[4096];
  /* not to hang on a pipe of that name */
  return path_of(c, name, ".unit", path) ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
}

static void remove_unit(const ocl_cache *c, const char *name, const char *why) {
  char path[4096];
  ocl_log(c->drv, 3, "opencl: the kernels in %s/%s.unit are not used: %s", c->dir, name, why);
  if (path_of(c, name, ".unit", path)) unlink(path);
}

static unit_file *new_file(ocl_cache *c, const char *name) {
  if (c->n == c->cap) {
    const uint32_t cap = c->cap * 2 + 64;
    unit_file *grown = realloc(c->files, cap * sizeof *grown);
    if (!grown) return NULL;
    c->files = grown;
    c->cap = cap;
  }
  unit_file *f = &c->files[c->n++];
  *f = (unit_file){.n = 0};
  memcpy(f->name, name, 32);
  return f;
}

static void forget(ocl_cache *c, unit_file *f) {
  if (!f->gone) c->bytes -= f->bytes;
  f->gone = true;
}

static void read_file(ocl_cache *c, const char *name) {
  const int fd = open_unit(c, name);
  if (fd < 0) return;
  unit_head h;
  struct stat st;
  const char *why;
  uint64_t(*keys)[2];
  const bool good = read_head(fd, name, &h, &keys, &st, &why);
  close(fd);
  if (!good) {
    remove_unit(c, name, why);
    return;
  }
  unit_file *f = new_file(c, name);
  if (!f) {
    free(keys);
    return;
  }
  f->keys = keys;
  f->n = h.n;
  f->modified = (int64_t)st.st_mtime;
  f->bytes = (uint64_t)st.st_size;
  c->bytes += f->bytes;
}

/* What a process left that ended while it wrote. */
static void remove_stale(const ocl_cache *c, const char *entry) {
  char path[4096];
  struct stat st;
  if (path_of(c, entry, "", path) && !lstat(path, &st) && S_ISREG(st.st_mode) && st.st_mtime < time(NULL) - STALE_S)
    unlink(path);
}

static void read_index(ocl_cache *c) {
  DIR *dir = opendir(c->dir);
  if (!dir) return;
  for (struct dirent *e; (e = readdir(dir));) {
    char name[33] = "";
    if (strspn(e->d_name, "0123456789abcdef") != 32) continue;
    memcpy(name, e->d_name, 32);
    if (!strcmp(e->d_name + 32, ".unit"))
      read_file(c, name);
    else if (e->d_name[32] == '.')
      remove_stale(c, e->d_name);
  }
  closedir(dir);
}

ocl_cache *ocl_cache_open(tern_dev *dev) {
  ocl_cache *c = calloc(1, sizeof *c);
  if (!c) return NULL;
  char key[33];
  device_key(dev, key);
  c->drv = dev->drv;
  const int n = snprintf(c->dir, sizeof c->dir, "%s/opencl-%s", dev->drv->cache_dir, key);
  if (n <= 0 || (size_t)n >= sizeof c->dir - 64) {
    free(c);
    return NULL;
  }
  read_index(c);
  return c;
}

void ocl_cache_close(ocl_cache *c) {
  if (!c) return;
  for (uint32_t i = 0; i < c->n; i++) free(c->files[i].keys);
  free(c->files);
  free(c);
}

static bool has_key(const unit_file *f, const uint64_t key[2]) {
  for (uint32_t i = 0; i < f->n; i++)
    if (f->keys[i][0] == key[0] && f->keys[i][1] == key[1]) return true;
  return false;
}

/* The payload behind the header of an open file, with a 0 after it, or NULL. */
static unsigned char *read_payload(int fd, const unit_head *h, const char **why) {
  unsigned char *data = malloc((size_t)h->size + 1);
  *why = "no memory to read it, or it cannot be read";
  if (data && read_all(fd, data, (size_t)h->size)) {
    const XXH128_hash_t sum = XXH3_128bits(data, (size_t)h->size);
    data[h->size] = 0;
    *why = "its content is damaged";
    if (sum.low64 == h->payload[0] && sum.high64 == h->payload[1]) return data;
  }
  free(data);
  return NULL;
}

static bool load_file(ocl_cache *c, unit_file *f, ocl_stored *out) {
  const int fd = open_unit(c, f->name);
  if (fd < 0) { /* removed by somebody */
    forget(c, f);
    return false;
  }
  unit_head h;
  struct stat st;
  const char *why;
  uint64_t(*keys)[2];
  unsigned char *data = read_head(fd, f->name, &h, &keys, &st, &why) ? read_payload(fd, &h, &why) : NULL;
  if (data && st.st_mtime < time(NULL) - AGE_S) futimens(fd, NULL); /* the oldest go first */
  close(fd);
  if (!data) {
    free(keys);
    remove_unit(c, f->name, why);
    forget(c, f);
    return false;
  }
  *out = (ocl_stored){.kind = h.kind, .n = h.n, .keys = keys, .data = data, .size = (size_t)h.size};
  return true;
}

bool ocl_cache_load(ocl_cache *c, const uint64_t (*wanted)[2], uint32_t n, ocl_stored *out) {
  for (;;) {
    unit_file *best = NULL;
    uint32_t most = 0;
    for (uint32_t i = 0; i < c->n; i++) {
      unit_file *f = &c->files[i];
      if (f->gone || !has_key(f, wanted[0])) continue;
      uint32_t has = 0;
      for (uint32_t j = 0; j < n; j++) has += has_key(f, wanted[j]);
      if (has <= most) continue;
      best = f;
      most = has;
    }
    if (!best) return false;
    if (load_file(c, best, out)) {
      const unit_file now = {.n = out->n, .keys = out->keys};
      if (has_key(&now, wanted[0])) return true;
      ocl_stored_free(out); /* another unit is in its place by now */
      forget(c, best);
    }
  }
}

void ocl_stored_free(ocl_stored *s) {
  free(s->keys);
  free(s->data);
  *s = (ocl_stored){0};
}

/* ---- writing ---- */

void ocl_cache_drop(ocl_cache *c, const ocl_stored *s) {
  char name[33];
  name_of((const uint64_t(*)[2])s->keys, s->n, name);
  for (uint32_t i = 0; i < c->n; i++)
    if (!strcmp(c->files[i].name, name)) forget(c, &c->files[i]);
  remove_unit(c, name, "the OpenCL runtime does not accept it");
}

bool ocl_make_dirs(const char *dir) {
  char path[4096];
  const int n = snprintf(path, sizeof path, "%s", dir);
  if (n <= 0 || (size_t)n >= sizeof path) return false;
  for (char *s = path + 1; *s; s++)
    if (*s == '/') {
      *s = 0;
      if (mkdir(path, 0777) && errno != EEXIST) return false;
      *s = '/';
    }
  return !mkdir(path, 0777) || errno == EEXIST;
}

static int by_age(const void *a, const void *b) {
  const unit_file *x = a, *y = b;
  return x->modified < y->modified ? -1 : x->modified > y->modified;
}

/* Room for a unit more: a quarter of the folder goes when it is full, the oldest first. */
static void make_room(ocl_cache *c, uint64_t bytes) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < c->n; i++) n += !c->files[i].gone;
  if (n < FILES_MOST && c->bytes + bytes <= folder_most) return;
  qsort(c->files, c->n, sizeof *c->files, by_age);
  for (uint32_t i = 0; i < c->n && (n > FILES_MOST / 4 * 3 || c->bytes + bytes > folder_most / 4 * 3); i++) {
    if (c->files[i].gone) continue;
    char path[4096];
    if (path_of(c, c->files[i].name, ".unit", path)) unlink(path);
    forget(c, &c->files[i]);
    n--;
  }
}

/* A file larger than the process may write is an error here and not the signal that ends it. */
static bool write_unit(int fd, const unit_head *h, const ocl_stored *s) {
  sigset_t size, before, waits;
  const struct timespec at_once = {0, 0};
  sigemptyset(&size);
  sigaddset(&size, SIGXFSZ);
  sigpending(&waits);
  pthread_sigmask(SIG_BLOCK, &size, &before);
  const bool ok =
      write_all(fd, h, sizeof *h) && write_all(fd, s->keys, s->n * sizeof *s->keys) && write_all(fd, s->data, s->size);
  const int why = errno;
  if (!ok && why == EFBIG && !sigismember(&waits, SIGXFSZ)) sigtimedwait(&size, NULL, &at_once);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  errno = why;
  return ok;
}

static bool write_file(ocl_cache *c, const char *name, const unit_head *h, const ocl_stored *s) {
  char path[4096], temp[4096];
  if (!path_of(c, name, ".unit", path) || !path_of(c, name, ".XXXXXX", temp)) return false;
  if (!c->made && !ocl_make_dirs(c->dir)) return false;
  const int fd = mkostemp(temp, O_CLOEXEC);
  if (fd < 0) return false;
  c->made = true;
  bool ok = write_unit(fd, h, s);
  int why = errno;
  if (close(fd) && ok) ok = false, why = errno;
  if (ok && rename(temp, path)) ok = false, why = errno;
  if (!ok) unlink(temp);
  errno = why;
  return ok;
}

void ocl_cache_store(ocl_cache *c, const ocl_stored *s) {
  if (!s->size || s->size > unit_most || !s->n || s->n > OCL_UNIT_SECTIONS) return;
  const size_t keys = s->n * sizeof *s->keys;
  const XXH128_hash_t sum = XXH3_128bits(s->data, s->size);
  unit_head h = {.version = UNIT_VERSION,
                 .kind = s->kind,
                 .n = s->n,
                 .size = s->size,
                 .payload = {sum.low64, sum.high64},
                 .keys = XXH3_64bits(s->keys, keys)};
  memcpy(h.magic, unit_magic, sizeof h.magic);
  h.self = head_hash(&h);
  char name[33];
  name_of((const uint64_t(*)[2])s->keys, s->n, name);
  const uint64_t bytes = sizeof h + keys + s->size;
  make_room(c, bytes);
  if (!write_file(c, name, &h, s)) {
    if (!atomic_exchange(&c->drv->cache_warned, true))
      ocl_log(c->drv, 1, "opencl: compiled kernels cannot be kept in %s (%s); every start compiles again", c->dir,
              strerror(errno));
    return;
  }
  unit_file *f = new_file(c, name);
  uint64_t(*copy)[2] = malloc(keys);
  if (f && copy) {
    memcpy(copy, s->keys, keys);
    f->keys = copy;
    f->n = s->n;
    f->modified = (int64_t)time(NULL);
    f->bytes = bytes;
    c->bytes += bytes;
  } else {
    if (f) f->gone = true;
    free(copy);
  }
}
