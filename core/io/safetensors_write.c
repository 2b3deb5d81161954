/* Writing safetensors: everything is checked and laid out first, then written to a temporary file beside the place,
   synced and renamed. The layout is the reference implementation's: dtypes in its order from the widest, then names;
   the header is padded to 8 bytes. */
#include "base/alloc.h"
#include "io/draft.h"
#include "io/safetensors.h"
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct item {
  const char *name;
  tern_tensor *tensor; /* a snapshot, borrowed from the writer's scope */
  int order;
  uint64_t begin, end; /* bytes, from the start of the data */
} item;

static tern_rc no_memory(const char *path) { return tern__draft_no_memory("safetensors_write", path); }

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
    items[i].tensor = tern__snapshot(tensors[i]);
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

static tern_rc write_header(tern__draft *f, const char *json) {
  const size_t length = strlen(json), padded = (length + 7) / 8 * 8;
  if (padded > TERN__SAFETENSORS_HEADER_MAX)
    return tern__fail(TERN_E_ARG,
                      "safetensors_write: %.300s: names and metadata make a header of %zu bytes, at most %u "
                      "are allowed",
                      f->path, padded, TERN__SAFETENSORS_HEADER_MAX);
  const uint64_t number = padded;
  tern_rc rc = tern__draft_write(f, &number, sizeof number);
  if (!rc) rc = tern__draft_write(f, json, length);
  return rc ? rc : tern__draft_write(f, "        ", padded - length);
}

static tern_rc take(void *draft, const void *data, size_t size) { return tern__draft_write(draft, data, size); }

static tern_rc write_file(const char *path, const char *json, const item *items, int n) {
  tern__draft f;
  tern_rc rc = tern__draft_begin(&f, "safetensors_write", path);
  if (!rc) rc = write_header(&f, json);
  for (int i = 0; i < n && !rc; i++) rc = tern__pieces_out(items[i].tensor, "safetensors_write", take, &f);
  return tern__draft_end(&f, rc);
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
