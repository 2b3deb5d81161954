/* Reading safetensors. cJSON parses the header; it forgives much, so a scan before it refuses what is no strict JSON,
   and what follows checks every figure against the file. Data is read when asked for, with pread: a file that shrinks
   meanwhile gives an error. */
#include "base/alloc.h"
#include "device/device.h"
#include "io/draft.h"
#include "io/safetensors.h"
#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct tern_safetensors {
  char *path;
  int fd;
  uint64_t file_size, data_at;
  cJSON *json;
  const cJSON *metadata;
  tern__safetensors_entry *entries;        /* in the order of the data */
  const tern__safetensors_entry **by_name; /* sorted */
  int count;
};

static const struct {
  const char *name;
  tern_dtype dtype;
} dtypes[] = {{"BOOL", TERN_BOOL}, {"U8", TERN_U8},     {"I8", TERN_I8},   {"I16", TERN_I16}, {"U16", TERN_U16},
              {"F16", TERN_F16},   {"BF16", TERN_BF16}, {"I32", TERN_I32}, {"U32", TERN_U32}, {"F32", TERN_F32},
              {"F64", TERN_F64},   {"I64", TERN_I64},   {"U64", TERN_U64}};
enum { N_DTYPES = sizeof dtypes / sizeof *dtypes };

int tern__safetensors_order(tern_dtype dtype) {
  for (int i = 0; i < N_DTYPES; i++)
    if (dtypes[i].dtype == dtype) return i + 1;
  return 0;
}

const char *tern__safetensors_dtype(tern_dtype dtype) {
  const int order = tern__safetensors_order(dtype);
  return order ? dtypes[order - 1].name : NULL;
}

static tern_rc __attribute__((format(printf, 3, 4)))
refuse(const tern_safetensors *f, tern_rc rc, const char *format, ...) {
  char text[700];
  va_list args;
  va_start(args, format);
  (void)vsnprintf(text, sizeof text, format, args);
  va_end(args);
  return tern__fail(rc, "safetensors: %.300s: %s", f->path, text);
}

/* ---- bytes ---- */

static tern_rc read_at(const tern_safetensors *f, uint64_t at, void *dst, size_t size) {
  char *to = dst;
  while (size > 0) {
    const ssize_t got = pread(f->fd, to, size, (off_t)at);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return refuse(f, TERN_E_IO, "cannot be read: %s", strerror(errno));
    if (got == 0)
      return refuse(f, TERN_E_IO, "was %llu bytes long when it was opened and has become shorter",
                    (unsigned long long)f->file_size);
    to += got;
    at += (uint64_t)got;
    size -= (size_t)got;
  }
  return TERN_OK;
}

tern_rc tern__safetensors_bytes(const tern_safetensors *f, const tern__safetensors_entry *e, uint64_t at, void *dst,
                                size_t size) {
  return read_at(f, f->data_at + e->begin + at, dst, size);
}

/* Opens the file and reads the header into *text, NUL-terminated and owned by the caller, of *size bytes. */
static tern_rc read_header(tern_safetensors *f, char **text, size_t *size) {
  f->fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a fifo must not block */
  if (f->fd < 0) return refuse(f, TERN_E_IO, "cannot be opened: %s", strerror(errno));
  struct stat info;
  if (fstat(f->fd, &info)) return refuse(f, TERN_E_IO, "cannot be looked at: %s", strerror(errno));
  if (!S_ISREG(info.st_mode)) return refuse(f, TERN_E_IO, "is not a regular file");
  f->file_size = (uint64_t)info.st_size;
  if (f->file_size < 8)
    return refuse(f, TERN_E_IO, "holds %llu bytes, expected 8 of the header's length first: no safetensors file",
                  (unsigned long long)f->file_size);
  uint64_t length;
  tern_rc rc = read_at(f, 0, &length, sizeof length);
  if (rc) return rc;
  if (length > TERN__SAFETENSORS_HEADER_MAX)
    return refuse(f, TERN_E_IO, "claims a header of %llu bytes, at most %u are allowed: no safetensors file",
                  (unsigned long long)length, TERN__SAFETENSORS_HEADER_MAX);
  if (length > f->file_size - 8)
    return refuse(f, TERN_E_IO, "claims a header of %llu bytes, but only %llu follow: truncated",
                  (unsigned long long)length, (unsigned long long)(f->file_size - 8));
  f->data_at = 8 + length;
  *size = (size_t)length;
  *text = malloc(*size + 1);
  if (!*text) return refuse(f, TERN_E_OOM, "no memory for its header of %zu bytes", *size);
  (*text)[*size] = '\0';
  return read_at(f, 8, *text, *size);
}

/* ---- the header's text ---- */

static tern_rc parse_header(tern_safetensors *f, const char *text, size_t size) {
  size_t at = 0;
  if (size == 0 || text[0] != '{') return refuse(f, TERN_E_IO, "its header does not begin with {: no safetensors file");
  const char *problem = tern__safetensors_scan(text, size, &at);
  if (problem) return refuse(f, TERN_E_IO, "its header is damaged: byte %zu is %s", 8 + at, problem);
  const char *end = NULL;
  f->json = cJSON_ParseWithLengthOpts(text, size + 1, &end, 0);
  if (!f->json)
    return refuse(f, TERN_E_IO, "its header is no JSON: cannot be understood from byte %zu on",
                  8 + (end ? (size_t)(end - text) : 0));
  for (; end < text + size; end++)
    if (!strchr(" \n\r\t", *end))
      return refuse(f, TERN_E_IO, "its header is damaged: text follows the object at byte %zu",
                    8 + (size_t)(end - text));
  return TERN_OK;
}

/* ---- the header's meaning ---- */

/* A number of the header, below 2^53: cJSON holds doubles. */
static bool whole(const cJSON *item, uint64_t *value) {
  if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0 && item->valuedouble < 9007199254740992.0)) return false;
  *value = (uint64_t)item->valuedouble;
  return true;
}

static tern_rc read_dtype(const tern_safetensors *f, const cJSON *item, tern__safetensors_entry *e) {
  if (!cJSON_IsString(item)) return refuse(f, TERN_E_IO, "tensor \"%.100s\" has no dtype", e->name);
  for (int i = 0; i < N_DTYPES; i++)
    if (!strcmp(item->valuestring, dtypes[i].name)) e->dtype = dtypes[i].dtype;
  if (e->dtype != TERN_NO_DTYPE) return TERN_OK;
  return refuse(f, TERN_E_IO,
                "tensor \"%.100s\" has dtype %.40s; known are BOOL, U8, I8, U16, I16, F16, BF16, I32, U32, F32, F64, "
                "I64, U64",
                e->name, item->valuestring);
}

static tern_rc read_shape(const tern_safetensors *f, const cJSON *item, tern__safetensors_entry *e) {
  if (!cJSON_IsArray(item)) return refuse(f, TERN_E_IO, "tensor \"%.100s\" has no shape", e->name);
  const cJSON *size;
  cJSON_ArrayForEach(size, item) {
    uint64_t value;
    if (e->rank == TERN_MAX_RANK)
      return refuse(f, TERN_E_IO, "tensor \"%.100s\" has more than %d dimensions", e->name, TERN_MAX_RANK);
    if (!whole(size, &value))
      return refuse(f, TERN_E_IO, "tensor \"%.100s\" has a size that is no whole number below 2^53", e->name);
    e->shape[e->rank++] = (int64_t)value;
  }
  return TERN_OK;
}

static tern_rc read_offsets(const tern_safetensors *f, const cJSON *item, tern__safetensors_entry *e) {
  if (!cJSON_IsArray(item) || cJSON_GetArraySize(item) != 2 || !whole(item->child, &e->begin) ||
      !whole(item->child->next, &e->end))
    return refuse(f, TERN_E_IO, "tensor \"%.100s\" has no data_offsets of two whole numbers", e->name);
  return TERN_OK;
}

/* The figures of one tensor agree with each other and lie within the file. */
static tern_rc check_entry(const tern_safetensors *f, const tern__safetensors_entry *e) {
  char text[200];
  const uint64_t data = f->file_size - f->data_at;
  const int64_t n = tern__numel(e->rank, e->shape);
  if (n < 0)
    return refuse(f, TERN_E_IO, "tensor \"%.100s\" of shape %s has too many elements", e->name,
                  tern__shape_text(text, e->rank, e->shape));
  if (e->begin > e->end || e->end > data)
    return refuse(f, TERN_E_IO, "tensor \"%.100s\" claims bytes %llu to %llu of %llu: truncated or damaged", e->name,
                  (unsigned long long)e->begin, (unsigned long long)e->end, (unsigned long long)data);
  const uint64_t bytes = (uint64_t)n * tern__dtype_size[e->dtype];
  if (e->end - e->begin != bytes)
    return refuse(f, TERN_E_IO, "tensor \"%.100s\" of shape %s, %s, has %llu bytes, expected %llu", e->name,
                  tern__shape_text(text, e->rank, e->shape), tern_dtype_name(e->dtype),
                  (unsigned long long)(e->end - e->begin), (unsigned long long)bytes);
  return TERN_OK;
}

static tern_rc read_entry(const tern_safetensors *f, const cJSON *item, tern__safetensors_entry *e) {
  static const char *const members[] = {"dtype", "shape", "data_offsets"};
  const cJSON *found[3] = {0}, *member;
  *e = (tern__safetensors_entry){.name = item->string, .dtype = TERN_NO_DTYPE};
  if (!cJSON_IsObject(item)) return refuse(f, TERN_E_IO, "tensor \"%.100s\" is not described by an object", e->name);
  cJSON_ArrayForEach(member, item) {
    for (int i = 0; i < 3; i++) {
      if (strcmp(member->string, members[i])) continue;
      if (found[i]) return refuse(f, TERN_E_IO, "tensor \"%.100s\" has two members %s", e->name, members[i]);
      found[i] = member;
    }
  }
  tern_rc rc = read_dtype(f, found[0], e);
  if (!rc) rc = read_shape(f, found[1], e);
  if (!rc) rc = read_offsets(f, found[2], e);
  return rc ? rc : check_entry(f, e);
}

static int compare_keys(const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Metadata is an object of strings without two keys that are equal. */
static tern_rc read_metadata(tern_safetensors *f, const cJSON *item) {
  if (f->metadata) return refuse(f, TERN_E_IO, "has two members %s", TERN__SAFETENSORS_METADATA);
  if (!cJSON_IsObject(item)) return refuse(f, TERN_E_IO, "its %s is no object", TERN__SAFETENSORS_METADATA);
  f->metadata = item;
  const size_t n = (size_t)cJSON_GetArraySize(item);
  const char **keys = tern__calloc(n + 1, sizeof *keys);
  if (!keys) return refuse(f, TERN_E_OOM, "no memory for %zu keys of metadata", n);
  tern_rc rc = TERN_OK;
  size_t at = 0;
  const cJSON *pair;
  cJSON_ArrayForEach(pair, item) {
    if (!cJSON_IsString(pair) && !rc)
      rc = refuse(f, TERN_E_IO, "the metadata of key \"%.100s\" is no string", pair->string);
    keys[at++] = pair->string;
  }
  qsort(keys, n, sizeof *keys, compare_keys);
  for (size_t i = 1; i < n && !rc; i++)
    if (!strcmp(keys[i - 1], keys[i])) rc = refuse(f, TERN_E_IO, "has two metadata of key \"%.100s\"", keys[i]);
  free(keys);
  return rc;
}

static int compare_names(const void *a, const void *b) {
  return strcmp((*(const tern__safetensors_entry *const *)a)->name, (*(const tern__safetensors_entry *const *)b)->name);
}

static int compare_places(const void *a, const void *b) {
  const tern__safetensors_entry *x = a, *y = b;
  if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
  if (x->end != y->end) return x->end < y->end ? -1 : 1;
  return x->number - y->number;
}

/* Sorts the entries; names differ, and the data is theirs without overlap, hole or rest. */
static tern_rc check_together(tern_safetensors *f) {
  uint64_t at = 0;
  qsort(f->entries, (size_t)f->count, sizeof *f->entries, compare_places);
  for (int i = 0; i < f->count; i++) f->by_name[i] = &f->entries[i];
  qsort(f->by_name, (size_t)f->count, sizeof *f->by_name, compare_names);
  for (int i = 1; i < f->count; i++)
    if (!strcmp(f->by_name[i - 1]->name, f->by_name[i]->name))
      return refuse(f, TERN_E_IO, "has two tensors \"%.100s\"", f->by_name[i]->name);
  for (int i = 0; i < f->count; i++) {
    const tern__safetensors_entry *e = &f->entries[i];
    if (e->begin != at)
      return refuse(f, TERN_E_IO, "tensor \"%.100s\" begins at byte %llu of the data, expected %llu: %s", e->name,
                    (unsigned long long)e->begin, (unsigned long long)at,
                    e->begin < at ? "it overlaps another" : "nothing owns the bytes between");
    at = e->end;
  }
  if (at != f->file_size - f->data_at)
    return refuse(f, TERN_E_IO, "holds %llu bytes of data, expected %llu from its header",
                  (unsigned long long)(f->file_size - f->data_at), (unsigned long long)at);
  return TERN_OK;
}

static tern_rc read_entries(tern_safetensors *f) {
  const size_t room = (size_t)cJSON_GetArraySize(f->json) + 1;
  f->entries = tern__calloc(room, sizeof *f->entries);
  f->by_name = tern__calloc(room, sizeof *f->by_name);
  if (!f->entries || !f->by_name) return refuse(f, TERN_E_OOM, "no memory for %zu tensors", room - 1);
  const cJSON *item;
  cJSON_ArrayForEach(item, f->json) {
    tern__safetensors_entry *e = &f->entries[f->count];
    const bool metadata = !strcmp(item->string, TERN__SAFETENSORS_METADATA);
    const tern_rc rc = metadata ? read_metadata(f, item) : read_entry(f, item, e);
    if (rc) return rc;
    e->number = f->count;
    if (!metadata) f->count++;
  }
  return check_together(f);
}

/* ---- the public functions ---- */

tern_safetensors *tern_safetensors_open(const char *path) {
  tern_safetensors *f = path ? tern__calloc(1, sizeof *f) : NULL;
  if (f) {
    f->fd = -1;
    f->path = tern__strdup(path);
  }
  if (!f || !f->path) {
    free(f);
    if (path)
      tern__fail(TERN_E_OOM, "safetensors: out of host memory");
    else
      tern__fail(TERN_E_ARG, "safetensors_open: the path is NULL");
    return NULL;
  }
  char *text = NULL;
  size_t size = 0;
  tern_rc rc = read_header(f, &text, &size);
  if (!rc) rc = parse_header(f, text, size);
  if (!rc) rc = read_entries(f);
  free(text);
  if (!rc) return f;
  tern_safetensors_close(f);
  return NULL;
}

void tern_safetensors_close(tern_safetensors *f) {
  if (!f) return;
  if (f->fd >= 0) (void)close(f->fd);
  cJSON_Delete(f->json);
  free(f->entries);
  free(f->by_name);
  free(f->path);
  free(f);
}

int tern_safetensors_count(const tern_safetensors *f) { return f ? f->count : 0; }

const char *tern_safetensors_name(const tern_safetensors *f, int i) {
  return f && i >= 0 && i < f->count ? f->entries[i].name : NULL;
}

const char *tern_safetensors_metadata(const tern_safetensors *f, const char *key) {
  if (!f || !f->metadata || !key) return NULL;
  const cJSON *item = cJSON_GetObjectItemCaseSensitive(f->metadata, key);
  return item ? item->valuestring : NULL;
}

const tern__safetensors_entry *tern__safetensors_find(const tern_safetensors *f, const char *name) {
  int low = 0, high = f->count;
  while (low < high) {
    const int middle = low + (high - low) / 2, order = strcmp(name, f->by_name[middle]->name);
    if (order == 0) return f->by_name[middle];
    if (order < 0)
      high = middle;
    else
      low = middle + 1;
  }
  return NULL;
}

const char *tern__safetensors_names(const tern_safetensors *f, char *text, size_t size) {
  size_t at = 0;
  snprintf(text, size, "no tensors");
  for (int i = 0; i < f->count; i++) {
    const char *name = f->entries[i].name, *comma = i ? ", " : "";
    if (at + strlen(name) + 10 > size) {
      snprintf(text + at, size - at, "%s...", comma);
      break;
    }
    at += (size_t)snprintf(text + at, size - at, "%s\"%s\"", comma, name);
  }
  return text;
}

/* A bool is a byte 0 or 1; code that computes with others is not defined. */
static tern_rc check_bools(const tern_safetensors *f, const tern__safetensors_entry *e, const char *data, size_t size) {
  for (size_t i = 0; i < size; i++)
    if (data[i] & ~1)
      return refuse(f, TERN_E_IO, "tensor \"%.100s\" of dtype BOOL holds a byte %u, expected 0 or 1", e->name,
                    (unsigned char)data[i]);
  return TERN_OK;
}

typedef struct loading {
  const tern_safetensors *file;
  const tern__safetensors_entry *entry;
  uint64_t at;
} loading;

static tern_rc give(void *self, void *data, size_t size) {
  loading *l = self;
  tern_rc rc = tern__safetensors_bytes(l->file, l->entry, l->at, data, size);
  if (!rc && l->entry->dtype == TERN_BOOL) rc = check_bools(l->file, l->entry, data, size);
  l->at += size;
  return rc;
}

tern_tensor *tern__safetensors_load(const tern_safetensors *f, const tern__safetensors_entry *e, tern__device *device) {
  loading l = {.file = f, .entry = e};
  const uint32_t graph = tern__eager_begin(tern__tls); /* a value, as a constant is, whatever is traced meanwhile */
  tern_tensor *t = tern__push(tern__new(device, e->dtype, e->rank, e->shape, "safetensors"));
  tern__eager_end(tern__tls, graph);
  return t && !tern__pieces_in(t, "safetensors", give, &l) ? t : NULL;
}

tern_tensor *tern_safetensors_get(tern_safetensors *f, const char *name) {
  tern__thread *thread = tern__thread_get();
  if (!thread) return NULL;
  if (!f || !name) {
    tern__fail(TERN_E_ARG, "safetensors_get: the %s is NULL", f ? "name" : "file");
    return NULL;
  }
  const tern__safetensors_entry *e = tern__safetensors_find(f, name);
  if (!e) {
    char names[500];
    (void)refuse(f, TERN_E_ARG, "has no tensor \"%.100s\"; it has %s", name,
                 tern__safetensors_names(f, names, sizeof names));
    return NULL;
  }
  tern__device *device = tern__device_here(thread);
  return device ? tern__safetensors_load(f, e, device) : NULL;
}
