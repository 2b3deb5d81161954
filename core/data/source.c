/* Elements that are there already or that the program makes: rows of tensors, ranges of numbers, generators. */
#include "data/data.h"
#include "ops/random.h"

/* ---- tensors ---- */

typedef struct tensors {
  tern_dataset base;
  tern__rows *rows;
} tensors;

typedef struct tensors_iter {
  tern__iter base;
  int64_t at;
} tensors_iter;

static int tensors_next(tern__iter *base, tern__element *out) {
  tensors_iter *it = (tensors_iter *)base;
  tern__rows *rows = ((const tensors *)base->dataset)->rows;
  if (it->at == rows->count) return 0;
  tern__refs_up(&rows->refs);
  *out = (tern__element){.n = rows->n, .rows = rows, .row = it->at++};
  return 1;
}

static int64_t tensors_size(const tern_dataset *d) { return ((const tensors *)d)->rows->count; }
static void tensors_release(tern_dataset *d) { tern__rows_release(((tensors *)d)->rows); }

static const tern__dataset_type tensors_type = {.name = "dataset_tensors",
                                                .state_bytes = sizeof(tensors_iter),
                                                .next = tensors_next,
                                                .size = tensors_size,
                                                .release = tensors_release};

tern_dataset *tern_dataset_tensors(tern_tensor *const *list, int n) {
  if (n < 1 || n > TERN_MAX_COMPONENTS || !list) {
    tern__fail(TERN_E_ARG, "dataset_tensors: %d tensors%s; an element has 1 to %d", n, list ? "" : " at NULL",
               TERN_MAX_COMPONENTS);
    return NULL;
  }
  tern__guard g;
  if (tern__enter(&g)) return NULL;
  tern__rows *rows = tern__rows_new("dataset_tensors", list, n, NULL);
  tern__leave(&g, rows ? TERN_OK : tern__recorded());
  tensors *d = rows ? tern__dataset_new(&tensors_type, sizeof *d, NULL) : NULL;
  if (!d) {
    tern__rows_release(rows);
    return NULL;
  }
  d->rows = rows;
  return &d->base;
}

/* ---- ranges ---- */

typedef struct range {
  tern_dataset base;
  int64_t start, step, count;
} range;

typedef struct range_iter {
  tern__iter base;
  int64_t at;
} range_iter;

static int range_next(tern__iter *base, tern__element *out) {
  range_iter *it = (range_iter *)base;
  const range *d = (const range *)base->dataset;
  if (it->at == d->count) return 0;
  tern__device *host = tern__device_host();
  tern_tensor *t = host ? tern__new(host, TERN_I64, 0, NULL, "dataset_range") : NULL;
  if (!t) return tern__recorded();
  const int64_t value = (int64_t)((uint64_t)d->start + (uint64_t)it->at++ * (uint64_t)d->step);
  memcpy(tern__host_bytes(t), &value, sizeof value);
  out->n = 1;
  out->t[0] = t;
  return 1;
}

static int64_t range_size(const tern_dataset *d) { return ((const range *)d)->count; }

static const tern__dataset_type range_type = {
    .name = "dataset_range", .state_bytes = sizeof(range_iter), .next = range_next, .size = range_size};

tern_dataset *tern_dataset_range(int64_t start, int64_t stop, int64_t step) {
  if (step == 0) {
    tern__fail(TERN_E_ARG, "dataset_range: the step is 0; it must be positive or negative");
    return NULL;
  }
  const bool empty = step > 0 ? start >= stop : start <= stop;
  const uint64_t distance = step > 0 ? (uint64_t)stop - (uint64_t)start : (uint64_t)start - (uint64_t)stop;
  const uint64_t stride = step > 0 ? (uint64_t)step : -(uint64_t)step;
  const uint64_t count = empty ? 0 : (distance - 1) / stride + 1;
  if (count > INT64_MAX) {
    tern__fail(TERN_E_ARG, "dataset_range: %lld to %lld by %lld is more than 2^63 numbers", (long long)start,
               (long long)stop, (long long)step);
    return NULL;
  }
  range *d = tern__dataset_new(&range_type, sizeof *d, NULL);
  if (!d) return NULL;
  d->start = start;
  d->step = step;
  d->count = (int64_t)count;
  return &d->base;
}

/* ---- generators ---- */

typedef struct generator {
  tern_dataset base;
  tern_generator functions;
  void *self;
  uint64_t seed;
} generator;

typedef struct generator_iter {
  tern__iter base;
  void *state;
  bool begun;
  uint64_t key;
  int64_t at;
} generator_iter;

static tern_rc generator_begin(tern__iter *base) {
  generator_iter *it = (generator_iter *)base;
  const generator *d = (const generator *)base->dataset;
  it->key = tern__mix(d->seed, base->run.number);
  tern_rc rc = TERN_OK;
  if (d->functions.begin) {
    tern__random_state random = {tern__mix(it->key, UINT64_MAX), 0}, *before = tern__random_own(&random);
    rc = d->functions.begin(d->self, &it->state);
    tern__random_own(before);
  }
  it->begun = rc == TERN_OK;
  if (rc < 0 && *tern__pending()) return rc;
  return rc ? tern__fail(rc < 0 ? rc : TERN_E_ARG, "dataset_generator: the program's begin returned %d", rc) : TERN_OK;
}

static void generator_end(tern__iter *base) {
  generator_iter *it = (generator_iter *)base;
  const generator *d = (const generator *)base->dataset;
  if (it->begun && d->functions.end) d->functions.end(d->self, it->state);
}

static int generator_next(tern__iter *base, tern__element *out) {
  generator_iter *it = (generator_iter *)base;
  const generator *d = (const generator *)base->dataset;
  TERN_SCOPE;
  tern_tensor *made[TERN_MAX_COMPONENTS] = {NULL};
  tern__random_state random = {tern__mix(it->key, (uint64_t)it->at), 0}, *before = tern__random_own(&random);
  tern_error_clear(); /* whatever a function before it looked at */
  int n = d->functions.next(d->self, it->state, made);
  tern__random_own(before);
  if (n > 0 && *tern__pending()) n = tern__recorded();
  if (n > 0) {
    const tern_rc rc = tern__element_from("dataset_generator", made, n, out);
    if (rc) n = rc;
  }
  if (n != 0) it->at++;
  return n < 0 ? tern__fail_element(n, "dataset_generator", it->at - 1) : n > 0;
}

static int64_t generator_size(const tern_dataset *d) {
  (void)d;
  return TERN__UNKNOWN;
}

static void generator_release(tern_dataset *base) {
  const generator *d = (const generator *)base;
  if (d->functions.release) d->functions.release(d->self);
}

static const tern__dataset_type generator_type = {.name = "dataset_generator",
                                                  .state_bytes = sizeof(generator_iter),
                                                  .begin = generator_begin,
                                                  .next = generator_next,
                                                  .end = generator_end,
                                                  .size = generator_size,
                                                  .release = generator_release};

tern_dataset *tern_dataset_generator(const tern_generator *functions, void *self) {
  if (!functions || !functions->next) {
    tern__fail(TERN_E_ARG, "dataset_generator: %s NULL", functions ? "its `next` is" : "the generator is");
    return NULL;
  }
  generator *d = tern__dataset_new(&generator_type, sizeof *d, NULL);
  if (!d) return NULL;
  d->functions = *functions;
  d->self = self;
  d->seed = tern__random_seed();
  return &d->base;
}
