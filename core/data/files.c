/* Rows of arrays in files: idx, .npy, .npz. The arrays are read when an iterator begins, and kept; the next iterator
   takes the same ones as long as the files' times, sizes and inodes have not changed. */
#include "base/alloc.h"
#include "data/data.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <tern/io.h>

typedef struct stamp {
  struct timespec time;
  off_t size;
  ino_t inode;
} stamp;

typedef enum { IDX, NPY, NPZ } kind;

typedef struct files {
  tern_dataset base;
  kind kind;
  int n;        /* components */
  int n_paths;  /* n, or 1 for NPZ */
  char **paths; /* owned, one block */
  char **names; /* NPZ: of the arrays; owned, one block */
  pthread_mutex_t lock;
  tern__rows *rows; /* what was read last; under the lock, as the stamps */
  stamp stamps[TERN_MAX_COMPONENTS];
} files;

typedef struct files_iter {
  tern__iter base;
  tern__rows *rows; /* one reference */
  int64_t at;
} files_iter;

static tern_rc stamp_all(const files *d, stamp *out) {
  for (int i = 0; i < d->n_paths; i++) {
    struct stat info;
    if (stat(d->paths[i], &info))
      return tern__fail(TERN_E_IO, "%s: %s cannot be read: %s", d->base.type->name, d->paths[i], strerror(errno));
    out[i] = (stamp){.time = info.st_mtim, .size = info.st_size, .inode = info.st_ino};
  }
  return TERN_OK;
}

static bool same(const stamp *a, const stamp *b, int n) {
  for (int i = 0; i < n; i++)
    if (a[i].time.tv_sec != b[i].time.tv_sec || a[i].time.tv_nsec != b[i].time.tv_nsec || a[i].size != b[i].size ||
        a[i].inode != b[i].inode)
      return false;
  return true;
}

/* The arrays, borrowed from the scope, on the host: it is the thread's device. */
static tern_rc read_arrays(const files *d, tern_tensor **out) {
  tern_npz *npz = NULL;
  if (d->kind == NPZ && !(npz = tern_npz_open(d->paths[0]))) return tern__recorded();
  for (int i = 0; i < d->n; i++) {
    out[i] = d->kind == IDX   ? tern_read_idx(d->paths[i])
             : d->kind == NPY ? tern_npy_read(d->paths[i])
                              : tern_npz_get(npz, d->names[i]);
    if (out[i]) continue;
    tern_npz_close(npz);
    return tern__recorded();
  }
  tern_npz_close(npz);
  return TERN_OK;
}

/* The files' rows as they are now, one reference. NULL with the error set. Caller holds the lock. */
static tern__rows *rows_now(files *d) {
  stamp stamps[TERN_MAX_COMPONENTS] = {0};
  if (stamp_all(d, stamps)) return NULL; /* before reading: what changes meanwhile is noticed next time */
  if (!d->rows || !same(stamps, d->stamps, d->n_paths)) {
    TERN_SCOPE;
    tern_tensor *array[TERN_MAX_COMPONENTS];
    const char *const *names = (const char *const *)(d->kind == NPZ ? d->names : d->paths);
    if (read_arrays(d, array)) return NULL;
    tern__rows *rows = tern__rows_new(d->base.type->name, array, d->n, names);
    if (!rows) return NULL;
    tern__rows_release(d->rows);
    d->rows = rows;
    memcpy(d->stamps, stamps, sizeof stamps);
  }
  tern__refs_up(&d->rows->refs);
  return d->rows;
}

static tern_rc files_begin(tern__iter *base) {
  files_iter *it = (files_iter *)base;
  files *d = (files *)(uintptr_t)base->dataset; /* what it keeps is all that changes */
  pthread_mutex_lock(&d->lock);
  it->rows = rows_now(d);
  pthread_mutex_unlock(&d->lock);
  return it->rows ? TERN_OK : tern__recorded();
}

static void files_end(tern__iter *base) { tern__rows_release(((files_iter *)base)->rows); }

static int files_next(tern__iter *base, tern__element *out) {
  files_iter *it = (files_iter *)base;
  if (it->at == it->rows->count) return 0;
  tern__refs_up(&it->rows->refs);
  *out = (tern__element){.n = it->rows->n, .rows = it->rows, .row = it->at++};
  return 1;
}

static int64_t files_size(const tern_dataset *base) {
  files *d = (files *)(uintptr_t)base;
  pthread_mutex_lock(&d->lock);
  const int64_t size = d->rows ? d->rows->count : TERN__UNKNOWN;
  pthread_mutex_unlock(&d->lock);
  return size;
}

static void files_release(tern_dataset *base) {
  files *d = (files *)base;
  tern__rows_release(d->rows);
  pthread_mutex_destroy(&d->lock);
  free(d->paths);
  free(d->names);
}

static const tern__dataset_type types[] = {
    [IDX] = {"dataset_idx", sizeof(files_iter), false, files_begin, files_next, files_end, files_size, files_release},
    [NPY] = {"dataset_npy", sizeof(files_iter), false, files_begin, files_next, files_end, files_size, files_release},
    [NPZ] = {"dataset_npz", sizeof(files_iter), false, files_begin, files_next, files_end, files_size, files_release}};

static tern_dataset *files_new(kind k, const char *const *paths, int n_paths, const char *const *names, int n) {
  const char *op = types[k].name;
  if (n < 1 || n > TERN_MAX_COMPONENTS || !paths || (k == NPZ && !names)) {
    tern__fail(TERN_E_ARG, "%s: %d %s%s; an element has 1 to %d components", op, n, k == NPZ ? "names" : "paths",
               paths && (k != NPZ || names) ? "" : " at NULL", TERN_MAX_COMPONENTS);
    return NULL;
  }
  char **own_paths = tern__copy_strings(op, paths, n_paths);
  char **own_names = own_paths && names ? tern__copy_strings(op, names, n) : NULL;
  files *d = own_paths && (!names || own_names) ? tern__dataset_new(&types[k], sizeof *d, NULL) : NULL;
  if (!d) {
    free(own_paths);
    free(own_names);
    return NULL;
  }
  d->kind = k;
  d->n = n;
  d->n_paths = n_paths;
  d->paths = own_paths;
  d->names = own_names;
  pthread_mutex_init(&d->lock, NULL);
  return &d->base;
}

tern_dataset *tern_dataset_idx(const char *const *paths, int n) { return files_new(IDX, paths, n, NULL, n); }
tern_dataset *tern_dataset_npy(const char *const *paths, int n) { return files_new(NPY, paths, n, NULL, n); }
tern_dataset *tern_dataset_npz(const char *path, const char *const *names, int n) {
  return files_new(NPZ, &path, 1, names, n);
}
