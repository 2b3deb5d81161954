/* Compiled programs on disk, one file each. A file is believed only when its header (magic, format, key, length) and
   the hash of its payload agree: OpenCL runtimes abort the process on a truncated binary and run a damaged one. */
#include "ocl.h"

#define XXH_INLINE_ALL
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

typedef struct cache_head {
  char magic[8];
  uint32_t version, reserved;
  uint64_t key[2], size, payload[2];
  uint64_t self; /* hash of the members above */
} cache_head;

static const char cache_magic[8] = "TERNOCL";
enum { CACHE_VERSION = 1 };
static const uint64_t cache_max = 256u << 20;

void ocl_cache_key(const tern_dev *dev, const char *source, const char *options, uint64_t key[2]) {
  XXH3_state_t state;
  XXH3_128bits_reset(&state);
  const uint32_t abi[2] = {TERN_ABI, CACHE_VERSION};
  const char *const parts[] = {source, options, dev->id->versions, ocl_is_cpu(dev->id) ? dev->drv->cpu_features : ""};
  XXH3_128bits_update(&state, abi, sizeof abi);
  for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
    XXH3_128bits_update(&state, parts[i], strlen(parts[i]) + 1);
  const XXH128_hash_t h = XXH3_128bits_digest(&state);
  key[0] = h.low64;
  key[1] = h.high64;
}

static bool cache_path(const tern_drv *drv, const uint64_t key[2], const char *suffix, char *out, size_t cap) {
  const int n = snprintf(out, cap, "%s/opencl-%016llx%016llx%s", drv->cache_dir, (unsigned long long)key[1],
                         (unsigned long long)key[0], suffix);
  return n > 0 && (size_t)n < cap;
}

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

static uint64_t head_hash(const cache_head *h) { return XXH3_64bits(h, offsetof(cache_head, self)); }

/* The payload behind a descriptor, or NULL with a reason. */
static unsigned char *read_payload(int fd, const uint64_t key[2], size_t *size, const char **why) {
  cache_head h;
  struct stat st;
  *why = "it is shorter than its header";
  if (fstat(fd, &st) || !S_ISREG(st.st_mode) || !read_all(fd, &h, sizeof h)) return NULL;
  *why = "its header is not ours or is damaged";
  if (memcmp(h.magic, cache_magic, sizeof h.magic) || h.self != head_hash(&h)) return NULL;
  *why = "it has another format or key";
  if (h.version != CACHE_VERSION || h.key[0] != key[0] || h.key[1] != key[1]) return NULL;
  *why = "its length is wrong";
  if (!h.size || h.size > cache_max || (uint64_t)st.st_size != sizeof h + h.size) return NULL;
  unsigned char *data = malloc((size_t)h.size);
  *why = "no memory to read it, or it cannot be read";
  if (!data || !read_all(fd, data, (size_t)h.size)) {
    free(data);
    return NULL;
  }
  const XXH128_hash_t sum = XXH3_128bits(data, (size_t)h.size);
  *why = "its content is damaged";
  if (sum.low64 != h.payload[0] || sum.high64 != h.payload[1]) {
    free(data);
    return NULL;
  }
  *size = (size_t)h.size;
  return data;
}

unsigned char *ocl_cache_read(const tern_drv *drv, const uint64_t key[2], size_t *size) {
  char path[4096];
  if (!drv->cache_dir || !cache_path(drv, key, ".bin", path, sizeof path)) return NULL;
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return NULL;
  const char *why = "";
  unsigned char *data = read_payload(fd, key, size, &why);
  close(fd);
  if (!data) ocl_log(drv, 3, "opencl: cached binary %s is not used: %s", path, why);
  return data;
}

static bool make_dirs(const char *dir) {
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

void ocl_cache_write(tern_drv *drv, const uint64_t key[2], const unsigned char *data, size_t size) {
  if (!drv->cache_dir || !size || size > cache_max) return;
  cache_head h = {.version = CACHE_VERSION, .key = {key[0], key[1]}, .size = size};
  memcpy(h.magic, cache_magic, sizeof h.magic);
  const XXH128_hash_t sum = XXH3_128bits(data, size);
  h.payload[0] = sum.low64;
  h.payload[1] = sum.high64;
  h.self = head_hash(&h);
  char path[4096], temp[4096];
  bool ok = cache_path(drv, key, ".bin", path, sizeof path) && cache_path(drv, key, ".XXXXXX", temp, sizeof temp) &&
            make_dirs(drv->cache_dir);
  if (ok) {
    const int fd = mkstemp(temp);
    ok = fd >= 0;
    if (ok) {
      ok = write_all(fd, &h, sizeof h) && write_all(fd, data, size);
      ok = !close(fd) && ok && !rename(temp, path);
      if (!ok) unlink(temp);
    }
  }
  if (!ok && !atomic_exchange(&drv->cache_warned, true))
    ocl_log(drv, 1, "opencl: compiled kernels cannot be kept in %s (%s); every start compiles again", drv->cache_dir,
            strerror(errno));
}
