/* Several datasets in one: side by side or one after the other. */
#include "base/alloc.h"
#include "data/data.h"
#include <stdlib.h>

/* Ends each of the datasets once, however often it is named. */
static void release_all(tern_dataset *const *datasets, int n) {
  for (int i = 0; i < n; i++) {
    bool again = false;
    for (int j = 0; j < i; j++) again |= datasets[j] == datasets[i];
    if (!again) tern_dataset_release(datasets[i]);
  }
}

/* The new dataset of that type, or NULL with the error set and the datasets ended. */
static tern_dataset *join(const tern__dataset_type *type, tern_dataset *const *datasets, int n) {
  if (n < 1 || !datasets) {
    tern__fail(TERN_E_ARG, "%s: %d datasets%s; give at least one", type->name, n, datasets ? "" : " at NULL");
    return NULL;
  }
  for (int i = 0; i < n; i++) {
    bool bad = !datasets[i];
    if (bad && !*tern__pending()) tern__fail(TERN_E_ARG, "%s: dataset %d is NULL", type->name, i + 1);
    for (int j = 0; j < i && !bad; j++)
      if ((bad = datasets[j] == datasets[i]))
        tern__fail(TERN_E_ARG, "%s: datasets %d and %d are the same one, which can be taken over once only", type->name,
                   j + 1, i + 1);
    if (!bad) continue;
    release_all(datasets, n);
    return NULL;
  }
  return tern__dataset_join(type, sizeof(tern_dataset), datasets, n);
}

/* ---- zip ---- */

typedef struct zip_iter {
  tern__iter base;
  tern__iter **part; /* one a source */
} zip_iter;

static tern_rc zip_begin(tern__iter *base) {
  zip_iter *it = (zip_iter *)base;
  const tern_dataset *d = base->dataset;
  it->part = tern__calloc((size_t)d->n_sources, sizeof(tern__iter *));
  if (!it->part) return tern__fail(TERN_E_OOM, "dataset_zip: out of host memory for an iterator");
  for (int i = 0; i < d->n_sources; i++)
    if (!(it->part[i] = tern__begin(d->source[i], &base->run))) return tern__recorded();
  return TERN_OK;
}

static void zip_end(tern__iter *base) {
  zip_iter *it = (zip_iter *)base;
  for (int i = 0; it->part && i < base->dataset->n_sources; i++) tern__end(it->part[i]);
  free(it->part);
}

/* Moves part's tensors to the end of out. */
static tern_rc zip_add(tern__element *part, tern__element *out) {
  const tern_rc rc = tern__element_solid(part);
  if (rc) return rc;
  if (out->n + part->n > TERN_MAX_COMPONENTS)
    return tern__fail(TERN_E_ARG, "dataset_zip: the datasets' elements have more than %d components together",
                      TERN_MAX_COMPONENTS);
  for (int i = 0; i < part->n; i++) out->t[out->n++] = part->t[i];
  part->n = 0;
  return TERN_OK;
}

/* Where one fails the others go on as well, so that they stay side by side. */
static int zip_next(tern__iter *base, tern__element *out) {
  zip_iter *it = (zip_iter *)base;
  tern__outcome failed = {0}; /* the first of them */
  for (int i = 0; i < base->dataset->n_sources; i++) {
    tern__element part;
    int rc = tern__next(it->part[i], &part);
    if (rc == 0) {
      tern__element_drop(out);
      tern__outcome_drop(&failed); /* of an element that there is not */
      return 0;
    }
    if (rc > 0 && !failed.rc) {
      const tern_rc added = zip_add(&part, out);
      if (added) rc = added;
    }
    tern__element_drop(&part);
    if (rc > 0) continue;
    if (!failed.rc)
      tern__outcome_failed(&failed, rc);
    else
      tern_error_clear();
  }
  if (!failed.rc) return 1;
  tern__element_drop(out);
  return tern__outcome_take(&failed, out);
}

static int64_t zip_size(const tern_dataset *d) {
  int64_t least = TERN__ENDLESS;
  bool unknown = false;
  for (int i = 0; i < d->n_sources; i++) {
    const int64_t size = tern_dataset_size(d->source[i]);
    unknown |= size == TERN__UNKNOWN;
    if (size >= 0 && (least < 0 || size < least)) least = size;
  }
  return unknown && least != 0 ? TERN__UNKNOWN : least;
}

static const tern__dataset_type zip_type = {.name = "dataset_zip",
                                            .state_bytes = sizeof(zip_iter),
                                            .begins_sources = true,
                                            .begin = zip_begin,
                                            .next = zip_next,
                                            .end = zip_end,
                                            .size = zip_size};

tern_dataset *tern_dataset_zip(tern_dataset *const *datasets, int n) { return join(&zip_type, datasets, n); }

/* ---- concat ---- */

typedef struct concat_iter {
  tern__iter base;
  int at; /* base.source is of this one */
} concat_iter;

static tern_rc concat_begin(tern__iter *base) {
  base->source = tern__begin(base->dataset->source[0], &base->run);
  return base->source ? TERN_OK : tern__recorded();
}

static int concat_next(tern__iter *base, tern__element *out) {
  concat_iter *it = (concat_iter *)base;
  for (;;) {
    const int rc = base->source ? tern__next(base->source, out) : 0;
    if (rc) return rc;
    tern__end(base->source);
    base->source = NULL;
    if (it->at + 1 >= base->dataset->n_sources) return 0;
    base->source = tern__begin(base->dataset->source[++it->at], &base->run);
    if (!base->source) return tern__recorded(); /* the next call goes on with the dataset behind it */
  }
}

static int64_t concat_size(const tern_dataset *d) {
  int64_t all = 0;
  bool unknown = false;
  for (int i = 0; i < d->n_sources; i++) {
    const int64_t size = tern_dataset_size(d->source[i]);
    if (size == TERN__ENDLESS) return size;
    if (size == TERN__UNKNOWN)
      unknown = true;
    else if (__builtin_add_overflow(all, size, &all))
      all = INT64_MAX;
  }
  return unknown ? TERN__UNKNOWN : all;
}

static const tern__dataset_type concat_type = {.name = "dataset_concat",
                                               .state_bytes = sizeof(concat_iter),
                                               .begins_sources = true,
                                               .begin = concat_begin,
                                               .next = concat_next,
                                               .size = concat_size};

tern_dataset *tern_dataset_concat(tern_dataset *const *datasets, int n) { return join(&concat_type, datasets, n); }
