/* Measured times: an open-addressed table under a lock, and its file (docs/formats.md). */
#include "base/alloc.h"
#include "base/log.h"
#include "graph/passes/cost.h"
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

enum { MOST = 65536, MEMORY = 64 /* times in a mean */, FILE_VERSION = 1 };

/* As in the file; count 0: a free slot of the table. */
typedef struct entry {
  uint64_t region[2], device;
  uint32_t bucket, count;
  double mean;
} entry;

typedef struct file_head {
  char magic[8];
  uint32_t version, entry_bytes;
  uint64_t entries, payload; /* XXH3-64 of the entries */
  uint64_t self;             /* XXH3-64 of the members above */
} file_head;

static const char file_magic[8] = "TERNCST";

struct tern__history {
  pthread_mutex_t lock;
  entry *table;
  size_t capacity, count; /* capacity: a power of two, at most half full; 0 at first */
  bool warned;
};

uint32_t tern__cost_bucket(uint64_t bytes) {
  if (bytes < 2) return (uint32_t)bytes;
  const uint32_t top = 63 - (uint32_t)__builtin_clzll(bytes);
  return 2 * top + (uint32_t)(bytes >> (top - 1) & 1);
}

uint64_t tern__cost_device(const char *id, const char *driver) {
  return XXH3_64bits(id, strlen(id)) ^ XXH3_64bits_withSeed(driver, strlen(driver), 1);
}

tern__history *tern__history_new(void) {
  tern__history *h = tern__calloc(1, sizeof *h);
  if (h) pthread_mutex_init(&h->lock, NULL);
  return h;
}

void tern__history_free(tern__history *h) {
  if (!h) return;
  pthread_mutex_destroy(&h->lock);
  free(h->table);
  free(h);
}

/* The key's slot, or the free one where it belongs. The table has free slots. */
static entry *slot_of(entry *table, size_t capacity, const tern__cost_key *key) {
  const uint64_t parts[4] = {key->region[0], key->region[1], key->device, key->bucket};
  for (size_t i = XXH3_64bits(parts, sizeof parts);; i++) {
    entry *e = &table[i & (capacity - 1)];
    if (!e->count || (e->region[0] == key->region[0] && e->region[1] == key->region[1] && e->device == key->device &&
                      e->bucket == key->bucket))
      return e;
  }
}

static tern__cost_key key_of(const entry *e) {
  return (tern__cost_key){{e->region[0], e->region[1]}, e->device, e->bucket};
}

static bool grow(tern__history *h) {
  const size_t capacity = h->capacity ? 2 * h->capacity : 64;
  entry *table = tern__calloc(capacity, sizeof *table);
  if (!table) return false;
  for (size_t i = 0; i < h->capacity; i++) {
    if (!h->table[i].count) continue;
    const tern__cost_key key = key_of(&h->table[i]);
    *slot_of(table, capacity, &key) = h->table[i];
  }
  free(h->table);
  h->table = table;
  h->capacity = capacity;
  return true;
}

/* The key's entry, made (with count 0) when there is none; NULL: no room. Caller holds the lock and fills it. */
static entry *entry_for(tern__history *h, const tern__cost_key *key) {
  entry *e = h->capacity ? slot_of(h->table, h->capacity, key) : NULL;
  if (e && e->count) return e;
  if (h->count >= MOST) return NULL;
  if (2 * (h->count + 1) > h->capacity) {
    if (!grow(h)) return NULL;
    e = slot_of(h->table, h->capacity, key);
  }
  h->count++;
  *e = (entry){.region = {key->region[0], key->region[1]}, .device = key->device, .bucket = key->bucket};
  return e;
}

bool tern__history_add(tern__history *h, const tern__cost_key *key, uint64_t ns) {
  pthread_mutex_lock(&h->lock);
  entry *e = entry_for(h, key);
  if (e) {
    e->count += e->count < MEMORY;
    e->mean += ((double)ns - e->mean) / e->count;
  }
  pthread_mutex_unlock(&h->lock);
  return e != NULL;
}

bool tern__history_find(tern__history *h, const tern__cost_key *key, uint64_t *ns) {
  pthread_mutex_lock(&h->lock);
  const entry *e = h->capacity ? slot_of(h->table, h->capacity, key) : NULL;
  const bool found = e && e->count;
  if (found) *ns = (uint64_t)(e->mean + 0.5);
  pthread_mutex_unlock(&h->lock);
  return found;
}

size_t tern__history_count(tern__history *h) {
  pthread_mutex_lock(&h->lock);
  const size_t n = h->count;
  pthread_mutex_unlock(&h->lock);
  return n;
}

/* ---- the file ---- */

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

static uint64_t hash_of(const file_head *head) { return XXH3_64bits(head, offsetof(file_head, self)); }

/* All entries of an open file, malloc'ed; NULL with why. */
static entry *read_entries(int fd, size_t *n, const char **why) {
  file_head head;
  struct stat st;
  *why = "it is shorter than its header";
  if (fstat(fd, &st) || !S_ISREG(st.st_mode) || !read_all(fd, &head, sizeof head)) return NULL;
  *why = "its header is not ours or is damaged";
  if (memcmp(head.magic, file_magic, sizeof head.magic) || head.self != hash_of(&head)) return NULL;
  *why = "it has another version";
  if (head.version != FILE_VERSION || head.entry_bytes != sizeof(entry)) return NULL;
  *why = "its length is wrong";
  if (head.entries > MOST || (uint64_t)st.st_size != sizeof head + head.entries * sizeof(entry)) return NULL;
  *why = "it cannot be read";
  entry *all = tern__calloc(head.entries + 1, sizeof *all);
  const size_t size = head.entries * sizeof *all;
  bool ok = all && read_all(fd, all, size);
  if (ok && XXH3_64bits(all, size) != head.payload) *why = "its content is damaged", ok = false;
  for (size_t i = 0; ok && i < head.entries; i++)
    if (!all[i].count || all[i].count > MEMORY || !(all[i].mean >= 0 && all[i].mean < 1e18))
      *why = "its content is damaged", ok = false;
  if (!ok) free(all);
  *n = head.entries;
  return ok ? all : NULL;
}

bool tern__history_load(tern__history *h, const char *path) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    if (errno != ENOENT)
      tern__log(TERN__LOG_DEBUG, "place", "measured times in %s are not used: %s", path, strerror(errno));
    return false;
  }
  const char *why = "";
  size_t n = 0;
  entry *all = read_entries(fd, &n, &why);
  close(fd);
  if (!all) {
    tern__log(TERN__LOG_DEBUG, "place", "measured times in %s are not used: %s", path, why);
    return false;
  }
  pthread_mutex_lock(&h->lock);
  for (size_t i = 0; i < n; i++) {
    const tern__cost_key key = key_of(&all[i]);
    entry *e = entry_for(h, &key);
    if (!e) break;
    if (!e->count) *e = all[i];
  }
  pthread_mutex_unlock(&h->lock);
  free(all);
  return true;
}

static bool make_folder(const char *path) {
  char part[4096];
  const int n = snprintf(part, sizeof part, "%s", path);
  if (n <= 0 || (size_t)n >= sizeof part) return false;
  for (char *s = part + 1; *s; s++) {
    if (*s != '/') continue;
    *s = 0;
    if (mkdir(part, 0777) && errno != EEXIST) return false;
    *s = '/';
  }
  return true;
}

/* A copy of all entries, malloc'ed. */
static entry *all_entries(tern__history *h, size_t *n) {
  pthread_mutex_lock(&h->lock);
  entry *all = tern__calloc(h->count + 1, sizeof *all);
  *n = 0;
  for (size_t i = 0; all && i < h->capacity; i++)
    if (h->table[i].count) all[(*n)++] = h->table[i];
  pthread_mutex_unlock(&h->lock);
  return all;
}

static bool write_file(const char *path, const entry *all, size_t n) {
  char temporary[4096 + 8];
  file_head head = {.version = FILE_VERSION, .entry_bytes = sizeof *all, .entries = n};
  memcpy(head.magic, file_magic, sizeof head.magic);
  head.payload = XXH3_64bits(all, n * sizeof *all);
  head.self = hash_of(&head);
  const int length = snprintf(temporary, sizeof temporary, "%s.XXXXXX", path);
  if (length < 0 || (size_t)length >= sizeof temporary || !make_folder(path)) return false;
  const int fd = mkstemp(temporary);
  if (fd < 0) return false;
  bool ok = write_all(fd, &head, sizeof head) && write_all(fd, all, n * sizeof *all);
  ok = !close(fd) && ok && !rename(temporary, path);
  if (!ok) unlink(temporary);
  return ok;
}

tern_rc tern__history_save(tern__history *h, const char *path) {
  tern__history_load(h, path);
  size_t n;
  entry *all = all_entries(h, &n);
  if (!all) return TERN_E_OOM;
  errno = 0;
  const bool ok = write_file(path, all, n);
  const int reason = errno;
  free(all);
  pthread_mutex_lock(&h->lock);
  const bool warn = !ok && !h->warned;
  h->warned |= !ok;
  pthread_mutex_unlock(&h->lock);
  if (warn) tern__log(TERN__LOG_WARN, "place", "measured times cannot be kept in %s: %s", path, strerror(reason));
  return ok ? TERN_OK : TERN_E_IO;
}
