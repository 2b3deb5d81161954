/* Writing safetensors: everything is checked and laid out first, then written to a temporary file beside the place,
   synced and renamed. The layout is the reference implementation's: dtypes in its order from the widest, then names;
   the header is padded to 8 bytes. */
#include "base/alloc.h"
#include "device/device.h"
#include "dispatch/dispatch.h"
#include "io/safetensors.h"
#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE = 16 << 20, TRIES = 1000 };

typedef struct item {
  const char *name;
  tern_tensor *tensor; /* a snapshot, borrowed from the writer's scope */
  int order;
  uint64_t begin, end; /* bytes, from the start of the data */
} item;

/* A file on its way: written at `temporary`, wanted at `target`, both in `folder`. */
typedef struct draft {
  const char *path; /* as the caller gave it, for messages */
  char *target, *folder, *temporary;
  int fd;
  bool made; /* the temporary file exists */
} draft;

static tern_rc failed(const draft *f, const char *what, const char *where) {
  const int reason = errno;
  return tern__fail(TERN_E_IO, "safetensors_write: %.300s: %s %.300s: %s", f->path, what, where, strerror(reason));
}

static tern_rc no_memory(const char *path) {
  return tern__fail(TERN_E_OOM, "safetensors_write: %.300s: out of host memory", path);
}

/* ---- what is to be written ---- */

static bool is_text(const char *s) {
  const unsigned char *at = (const unsigned char *)s;
  for (size_t left = strlen(s); left > 0;) {
    const int n = tern__utf8_length(at, left);
    if (n == 0) return false;
    at += n;
    left -= (size_t)n;
  }
  return true;
}

static int compare_strings(const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* n strings given at intervals of `step` pointers are UTF-8 and all different. */
static tern_rc check_strings(const char *path, const char *what, const char *const *strings, int n, int step) {
  const char **sorted = tern__calloc((size_t)n + 1, sizeof *sorted);
  if (!sorted) return no_memory(path);
  tern_rc rc = TERN_OK;
  for (int i = 0; i < n && !rc; i++) {
    sorted[i] = strings[i * step];
    if (!sorted[i])
      rc = tern__fail(TERN_E_ARG, "safetensors_write: %s %d is NULL", what, i);
    else if (!is_text(sorted[i]))
      rc = tern__fail(TERN_E_ARG, "safetensors_write: %s %d is not UTF-8", what, i);
  }
  if (!rc) qsort(sorted, (size_t)n, sizeof *sorted, compare_strings);
  for (int i = 1; i < n && !rc; i++)
    if (!strcmp(sorted[i - 1], sorted[i]))
      rc =
          tern__fail(TERN_E_ARG, "safetensors_write: two of the %ss are \"%.200s\"; they must differ", what, sorted[i]);
  free(sorted);
  return rc;
}

static tern_rc check_metadata(const char *path, const char *const (*metadata)[2], int n) {
  if (n < 0 || (n > 0 && !metadata))
    return tern__fail(TERN_E_ARG, "safetensors_write: %d pairs of metadata were promised, none is given", n);
  if (n == 0) return TERN_OK;
  for (int i = 0; i < n; i++)
    if (!metadata[i][1] || !is_text(metadata[i][1]))
      return tern__fail(TERN_E_ARG, "safetensors_write: the value of metadata key %d is %s", i,
                        metadata[i][1] ? "not UTF-8" : "NULL");
  return check_strings(path, "metadata key", metadata[0], n, 2);
}

/* Another header over t's memory, so that nobody changes it meanwhile: an assignment would then take fresh memory. */
static tern_tensor *snapshot(tern_tensor *t) {
  if (t->flags & TERN__WEAK) return tern__solid(t, t->dtype == TERN_F64 ? TERN_F32 : (tern_dtype)t->dtype);
  tern_tensor *v = tern__view_header(t);
  if (!v) return NULL;
  v->rank = t->rank;
  memcpy(v->shape, t->shape, sizeof v->shape);
  memcpy(v->stride, t->stride, sizeof v->stride);
  tern__set_contig_flag(v);
  return tern__push(v);
}

static int compare_items(const void *a, const void *b) {
  const item *x = a, *y = b;
  return x->order != y->order ? y->order - x->order : strcmp(x->name, y->name);
}

static tern_rc lay_out(item *items, const char *const *names, tern_tensor *const *tensors, int n) {
  for (int i = 0; i < n; i++) {
    items[i].name = names[i];
    if (!strcmp(names[i], TERN__SAFETENSORS_METADATA))
      return tern__fail(TERN_E_ARG, "safetensors_write: no tensor can be called %s", TERN__SAFETENSORS_METADATA);
    if (!tern__usable(tensors[i], "safetensors_write", i + 1)) return TERN_E_ARG;
    items[i].tensor = snapshot(tensors[i]);
    if (!items[i].tensor) return tern__recorded();
    items[i].order = tern__safetensors_order((tern_dtype)items[i].tensor->dtype);
  }
  qsort(items, (size_t)n, sizeof *items, compare_items);
  uint64_t at = 0;
  for (int i = 0; i < n; i++) {
    items[i].begin = at;
    at += (uint64_t)items[i].tensor->numel * tern__dtype_size[items[i].tensor->dtype];
    items[i].end = at;
    if (at > INT64_MAX / 2) return tern__fail(TERN_E_ARG, "safetensors_write: the tensors together are too large");
  }
  return TERN_OK;
}

/* ---- the header ---- */

static bool add_tensor(cJSON *root, const item *it) {
  char shape[TERN_MAX_RANK * 21 + 3] = "[", offsets[48];
  size_t at = 1;
  for (int d = 0; d < it->tensor->rank; d++)
    at += (size_t)snprintf(shape + at, sizeof shape - at, "%s%lld", d ? "," : "", (long long)it->tensor->shape[d]);
  snprintf(shape + at, sizeof shape - at, "]");
  snprintf(offsets, sizeof offsets, "[%llu,%llu]", (unsigned long long)it->begin, (unsigned long long)it->end);
  cJSON *entry = cJSON_AddObjectToObject(root, it->name);
  return entry && cJSON_AddStringToObject(entry, "dtype", tern__safetensors_dtype((tern_dtype)it->tensor->dtype)) &&
         cJSON_AddRawToObject(entry, "shape", shape) && cJSON_AddRawToObject(entry, "data_offsets", offsets);
}

/* The JSON text, owned by the caller (free); NULL when memory is exhausted. */
static char *header_text(const item *items, int n, const char *const (*metadata)[2], int n_metadata) {
  cJSON *root = cJSON_CreateObject();
  bool good = root != NULL;
  cJSON *pairs = good && n_metadata > 0 ? cJSON_AddObjectToObject(root, TERN__SAFETENSORS_METADATA) : NULL;
  if (n_metadata > 0) good = good && pairs;
  for (int i = 0; i < n_metadata && good; i++) good = cJSON_AddStringToObject(pairs, metadata[i][0], metadata[i][1]);
  for (int i = 0; i < n && good; i++) good = add_tensor(root, &items[i]);
  char *text = good ? cJSON_PrintUnformatted(root) : NULL;
  cJSON_Delete(root);
  return text;
}

/* ---- the file ---- */

static tern_rc write_all(const draft *f, const void *data, size_t size) {
  const char *from = data;
  while (size > 0) {
    const ssize_t n = write(f->fd, from, size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return failed(f, "cannot write", f->temporary);
    from += n;
    size -= (size_t)n;
  }
  return TERN_OK;
}

/* Where the file goes: through symbolic links, and never over what is no regular file. mode: of the file that is
   there, or -1. */
static tern_rc find_place(draft *f, int *mode) {
  struct stat info;
  *mode = -1;
  if (stat(f->path, &info) == 0) {
    if (!S_ISREG(info.st_mode))
      return tern__fail(TERN_E_IO, "safetensors_write: %.300s is there and not a regular file", f->path);
    *mode = info.st_mode & 0777;
    f->target = realpath(f->path, NULL);
    if (!f->target) return failed(f, "cannot find", f->path);
  } else {
    f->target = tern__strdup(f->path);
    if (!f->target) return no_memory(f->path);
  }
  const char *slash = strrchr(f->target, '/');
  f->folder = tern__strdup(slash ? f->target : ".");
  if (!f->folder) return no_memory(f->path);
  if (slash) f->folder[slash == f->target ? 1 : slash - f->target] = '\0';
  return TERN_OK;
}

/* Makes the temporary file: ".tern-PROCESS-NUMBER.tmp" in the folder, of a name that nobody has. */
static tern_rc make_temporary(draft *f, int mode) {
  const size_t size = strlen(f->folder) + 64;
  f->temporary = tern__calloc(size, 1);
  if (!f->temporary) return no_memory(f->path);
  for (int i = 0; i < TRIES; i++) {
    snprintf(f->temporary, size, "%s/.tern-%ld-%d.tmp", f->folder, (long)getpid(), i);
    f->fd = open(f->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    f->made = f->fd >= 0;
    if (f->made || errno != EEXIST) break;
  }
  if (!f->made) return failed(f, "cannot make", f->temporary);
  if (mode >= 0 && fchmod(f->fd, (mode_t)mode)) return failed(f, "cannot keep the permissions of", f->path);
  return TERN_OK;
}

static tern_rc write_header(const draft *f, const char *json) {
  const size_t length = strlen(json), padded = (length + 7) / 8 * 8;
  if (padded > TERN__SAFETENSORS_HEADER_MAX)
    return tern__fail(TERN_E_ARG,
                      "safetensors_write: %.300s: names and metadata make a header of %zu bytes, at most %u "
                      "are allowed",
                      f->path, padded, TERN__SAFETENSORS_HEADER_MAX);
  const uint64_t number = padded;
  tern_rc rc = write_all(f, &number, sizeof number);
  if (!rc) rc = write_all(f, json, length);
  return rc ? rc : write_all(f, "        ", padded - length);
}

static tern_rc write_tensor(const draft *f, tern_tensor *t, char *piece) {
  tern_tensor *dense = t;
  if (!(t->flags & TERN__CONTIG)) {
    dense = tern__push(tern__new(t->device, (tern_dtype)t->dtype, t->rank, t->shape, "safetensors_write"));
    if (!dense || tern__write(dense, t)) return tern__recorded();
  }
  const uint64_t width = tern__dtype_size[t->dtype], bytes = (uint64_t)t->numel * width;
  const uint64_t from = (uint64_t)dense->offset * width;
  if (dense->storage->host && !t->device->queue) return write_all(f, dense->storage->host + from, (size_t)bytes);
  tern_rc rc = TERN_OK;
  for (uint64_t at = 0; at < bytes && !rc; at += PIECE) {
    const size_t n = bytes - at < PIECE ? (size_t)(bytes - at) : PIECE;
    rc = tern__download(piece, dense->storage, from + at, n);
    if (!rc) rc = write_all(f, piece, n);
  }
  return rc;
}

static tern_rc write_tensors(const draft *f, const item *items, int n) {
  bool staged = false;
  for (int i = 0; i < n; i++) staged |= !items[i].tensor->storage->host || items[i].tensor->device->queue;
  char *piece = staged ? malloc(PIECE) : NULL;
  tern_rc rc = staged && !piece ? no_memory(f->path) : TERN_OK;
  for (int i = 0; i < n && !rc; i++) {
    tern_scope_mark mark = tern_scope_begin();
    rc = write_tensor(f, items[i].tensor, piece);
    tern_scope_end(&mark);
  }
  free(piece);
  return rc;
}

/* The rename itself must reach the disk. Some file systems cannot sync a folder and say EINVAL. */
static tern_rc sync_folder(const draft *f) {
  const int folder = open(f->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return failed(f, "was written, but cannot open to sync its folder", f->folder);
  const tern_rc rc =
      fsync(folder) && errno != EINVAL ? failed(f, "was written, but cannot sync its folder", f->folder) : TERN_OK;
  (void)close(folder);
  return rc;
}

static tern_rc publish(draft *f) {
  if (fsync(f->fd)) return failed(f, "cannot sync", f->temporary);
  const int closed = close(f->fd);
  f->fd = -1;
  if (closed) return failed(f, "cannot close", f->temporary);
  if (rename(f->temporary, f->target)) return failed(f, "cannot be put in place from", f->temporary);
  f->made = false;
  return sync_folder(f);
}

static tern_rc write_file(const char *path, const char *json, const item *items, int n) {
  draft f = {.path = path, .fd = -1};
  int mode;
  tern_rc rc = find_place(&f, &mode);
  if (!rc) rc = make_temporary(&f, mode);
  if (!rc) rc = write_header(&f, json);
  if (!rc) rc = write_tensors(&f, items, n);
  if (!rc) rc = publish(&f);
  if (f.fd >= 0) (void)close(f.fd);
  if (f.made) (void)unlink(f.temporary);
  free(f.target);
  free(f.folder);
  free(f.temporary);
  return rc;
}

tern_rc tern_safetensors_write(const char *path, const char *const *names, tern_tensor *const *tensors, int n,
                               const char *const (*metadata)[2], int n_metadata) {
  if (!path) return tern__fail(TERN_E_ARG, "safetensors_write: the path is NULL");
  if (n < 0 || (n > 0 && (!names || !tensors)))
    return tern__fail(TERN_E_ARG, "safetensors_write: %d tensors were promised, names or tensors are NULL", n);
  tern_rc rc = check_strings(path, "name", names, n, 1);
  if (!rc) rc = check_metadata(path, metadata, n_metadata);
  if (rc) return rc;
  item *items = tern__calloc((size_t)n + 1, sizeof *items);
  if (!items) return no_memory(path);
  tern_scope_mark mark = tern_scope_begin();
  rc = lay_out(items, names, tensors, n);
  char *json = rc ? NULL : header_text(items, n, metadata, n_metadata);
  if (!rc && !json) rc = no_memory(path);
  if (!rc) rc = write_file(path, json, items, n);
  cJSON_free(json);
  tern_scope_end(&mark);
  free(items);
  return rc;
}
