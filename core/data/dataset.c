/* Datasets and iterators of any type: life, walking, and the public calls that are the same for all. */
#include "data/data.h"
#include "base/alloc.h"
#include <stdlib.h>

/* ---- datasets ---- */

void *tern__dataset_join(const tern__dataset_type *type, size_t bytes, tern_dataset *const *sources, int n) {
  tern_dataset *d = tern__calloc(1, bytes);
  tern_dataset **list = d && n > 1 ? tern__calloc((size_t)n, sizeof(tern_dataset *)) : NULL;
  if (!d || (n > 1 && !list)) {
    for (int i = 0; i < n; i++) tern_dataset_release(sources[i]);
    free(d);
    tern__fail(TERN_E_OOM, "%s: out of host memory", type->name);
    return NULL;
  }
  atomic_init(&d->refs, 1);
  d->type = type;
  d->n_sources = n;
  d->source = n > 1 ? list : &d->only;
  for (int i = 0; i < n; i++) d->source[i] = sources[i];
  return d;
}

void *tern__dataset_new(const tern__dataset_type *type, size_t bytes, tern_dataset *source) {
  return tern__dataset_join(type, bytes, &source, source ? 1 : 0);
}

void tern_dataset_release(tern_dataset *d) {
  while (d && tern__refs_down(&d->refs)) { /* long chains end in a loop, not in a deep recursion */
    if (d->type->release) d->type->release(d);
    for (int i = 1; i < d->n_sources; i++) tern_dataset_release(d->source[i]);
    tern_dataset *first = d->n_sources ? d->source[0] : NULL;
    if (d->source != &d->only) free(d->source);
    free(d);
    d = first;
  }
}

int64_t tern_dataset_size(const tern_dataset *d) {
  if (d) return d->type->size(d);
  tern__fail(TERN_E_ARG, "dataset_size: the dataset is NULL");
  return TERN__UNKNOWN;
}

int64_t tern__size_of_source(const tern_dataset *d) { return tern_dataset_size(d->source[0]); }

int64_t tern__size_at_most_source(const tern_dataset *d) {
  return tern_dataset_size(d->source[0]) == 0 ? 0 : TERN__UNKNOWN;
}

uint64_t tern__mix(uint64_t a, uint64_t b) {
  uint64_t z = a * UINT64_C(0x9e3779b97f4a7c15) + b * UINT64_C(0xd1342543de82ef95) + UINT64_C(0x2545f4914f6cdd1d);
  z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
  return z ^ z >> 31;
}

/* ---- iterators ---- */

tern__iter *tern__begin(const tern_dataset *d, const tern__run *run) {
  tern__iter *it = tern__calloc(1, d->type->state_bytes);
  if (!it) {
    tern__fail(TERN_E_OOM, "%s: out of host memory for an iterator", d->type->name);
    return NULL;
  }
  it->dataset = d;
  it->run = *run;
  if (d->n_sources && !d->type->begins_sources && !(it->source = tern__begin(d->source[0], run))) {
    free(it); /* begin was not called, so neither is end */
    return NULL;
  }
  if (!d->type->begin || !d->type->begin(it)) return it;
  tern__end(it);
  return NULL;
}

int tern__next(tern__iter *it, tern__element *out) {
  *out = (tern__element){0};
  if (it->ended) return 0;
  if (tern__stopped(&it->run)) return tern__fail(TERN_E_END, "%s: the iterator is ending", it->dataset->type->name);
  const int rc = it->dataset->type->next(it, out);
  if (rc == 0) it->ended = true;
  return rc;
}

void tern__end(tern__iter *it) {
  if (!it) return;
  if (it->dataset->type->end) it->dataset->type->end(it);
  tern__end(it->source);
  free(it);
}

/* ---- the program's iterators ---- */

struct tern_iterator {
  tern_dataset *dataset; /* one reference */
  tern__iter *root;
  tern__stop stop;
  _Atomic int64_t skipped;
};

tern_iterator *tern_dataset_begin(tern_dataset *d) {
  if (!d) {
    if (!*tern__pending()) tern__fail(TERN_E_ARG, "dataset_begin: the dataset is NULL");
    return NULL;
  }
  tern__guard g;
  if (tern__enter(&g)) return NULL;
  tern_iterator *it = tern__calloc(1, sizeof *it);
  if (!it) tern__fail(TERN_E_OOM, "dataset_begin: out of host memory");
  if (it) {
    const uint64_t number = atomic_fetch_add(&d->begun, 1);
    const tern__run run = {number ? tern__mix(number, 1) : 0, &it->stop, &it->skipped};
    tern__refs_up(&d->refs);
    it->dataset = d;
    it->root = tern__begin(d, &run);
  }
  if (it && it->root) {
    tern__leave(&g, TERN_OK);
    return it;
  }
  if (it) tern_dataset_release(d);
  free(it);
  tern__leave(&g, tern__recorded());
  return NULL;
}

int tern_iterator_next(tern_iterator *it, tern_tensor **out) {
  if (!it || !out) {
    if (!*tern__pending())
      tern__fail(TERN_E_ARG, "iterator_next: the %s is NULL", it ? "room for tensors" : "iterator");
    return TERN_E_ARG;
  }
  for (int i = 0; i < TERN_MAX_COMPONENTS; i++) out[i] = NULL;
  if (tern__tracing_ops())
    return tern__fail(TERN_E_ARG, "iterator_next: a traced function would read this element once, while it is traced; "
                                  "call it outside and hand the tensors to the function as arguments");
  tern__guard g;
  if (tern__enter(&g)) return tern__recorded();
  tern__element e;
  int rc = tern__next(it->root, &e);
  if (rc > 0) {
    const tern_rc solid = tern__element_solid(&e);
    if (solid) {
      tern__element_drop(&e);
      rc = solid;
    }
  }
  rc = tern__leave(&g, rc);
  if (rc <= 0) return rc;
  bool pushed = true;
  for (int i = 0; i < e.n; i++) {
    out[i] = tern__push(e.t[i]); /* its reference is the scope's now, or gone */
    pushed &= out[i] != NULL;
  }
  return pushed ? e.n : TERN_E_OOM;
}

int64_t tern_iterator_skipped(const tern_iterator *it) { return it ? atomic_load(&it->skipped) : 0; }

void tern_iterator_end(tern_iterator *it) {
  if (!it) return;
  tern__guard g;
  const bool entered = !tern__enter(&g);
  atomic_store(&it->stop.set, true);
  tern__end(it->root);
  if (entered) tern__leave(&g, TERN_OK);
  tern_dataset_release(it->dataset);
  free(it);
}
