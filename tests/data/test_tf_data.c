/* Pipelines against what TensorFlow's tf.data makes of the same ones (fixtures/data.bin; make_data.py). */
#include "data/collect.h"
#include "fixtures/fixtures.h"
#include <stdlib.h>
#include <string.h>

enum { RANGE, BATCH, REPEAT, TAKE, SKIP, SHARD, ZIP, CONCAT, FILTER, MAP };

static int keep_even(void *self, tern_tensor *const *in, int n) {
  (void)self;
  CHECK(n > 0, "an empty element");
  return tern_item_int(tern_slice(tern_flatten(in[0]), (const tern_range[]){{0, 1, 1}}, 1)) % 2 == 0;
}

static int three_x_plus_one(void *self, tern_tensor *const *in, int n, tern_tensor **out) {
  (void)self;
  for (int i = 0; i < n; i++) out[i] = tern_add(tern_mul(in[i], tern_scalar_int(3)), tern_scalar_int(1));
  return n;
}

static tern_dataset *program(const int64_t *step, int64_t n, int threads) {
  tern_dataset *stack[8] = {NULL};
  int top = -1;
  for (int64_t i = 0; i < n; i++, step += 4) {
    switch ((int)step[0]) {
    case RANGE: stack[++top] = tern_dataset_range(step[1], step[2], step[3]); break;
    case BATCH:
      stack[top] = tern_dataset_batch(stack[top], step[1], &(tern_batch_opts){.drop_remainder = (int)step[2]});
      break;
    case REPEAT: stack[top] = tern_dataset_repeat(stack[top], step[1]); break;
    case TAKE: stack[top] = tern_dataset_take(stack[top], step[1]); break;
    case SKIP: stack[top] = tern_dataset_skip(stack[top], step[1]); break;
    case SHARD: stack[top] = tern_dataset_shard(stack[top], step[1], step[2]); break;
    case ZIP: top--, stack[top] = tern_dataset_zip(&stack[top], 2); break;
    case CONCAT: top--, stack[top] = tern_dataset_concat(&stack[top], 2); break;
    case FILTER: stack[top] = tern_dataset_filter(stack[top], keep_even, NULL); break;
    default: stack[top] = tern_dataset_map(stack[top], three_x_plus_one, NULL, &(tern_map_opts){threads});
    }
  }
  return stack[0];
}

/* Whether it gives what the record says; twice, since a dataset may be gone through again. */
static void check_dataset(tern_dataset *d, const fixture *f, int number) {
  if (!CHECK(d != NULL, "record %d: %s", number, tern_error())) return;
  const fixture_array *shapes = &f->out[0], *values = &f->out[1];
  const int64_t size = tern_dataset_size(d);
  for (int turn = 0; turn < 2; turn++) {
    collected c = collect(d);
    bool same = c.errors == 0 && c.n_shapes == shapes->count && c.n_values == values->count &&
                (!c.n_shapes || !memcmp(c.shapes, shapes->data, shapes->size));
    for (size_t i = 0; same && i < c.n_values; i++) same = c.values[i] == (double)((const int64_t *)values->data)[i];
    CHECK(same, "record %d (%s), turn %d: %zu sizes, %zu values, tf.data has %zu and %zu; %s", number, f->op, turn,
          c.n_shapes, c.n_values, shapes->count, values->count, c.error[0]);
    CHECK(size == -2 || size == c.elements, "record %d: a size of %lld, %d elements", number, (long long)size,
          c.elements);
    collected_free(&c);
  }
  tern_dataset_release(d);
}

/* Element i: 100 i + 1, 100 i + 2, .. in its shape. */
typedef struct ragged {
  const int64_t *shapes;
  int64_t n;
  int rank;
} ragged;

static tern_rc ragged_begin(void *self, void **state) {
  (void)self;
  *state = calloc(1, sizeof(int64_t));
  return *state ? TERN_OK : TERN_E_OOM;
}
static void ragged_end(void *self, void *state) {
  (void)self;
  free(state);
}
static int ragged_next(void *self, void *state, tern_tensor **out) {
  const ragged *r = self;
  const int64_t i = (*(int64_t *)state)++;
  if (i >= r->n) return 0;
  const tern_shape shape = tern_shape_of(r->rank, r->shapes + i * r->rank);
  const int64_t n = test_numel(shape);
  out[0] = tern_reshape(tern_arange((double)(100 * i + 1), (double)(100 * i + 1 + n), 1, TERN_I64), shape);
  return 1;
}

static const tern_generator ragged_generator = {.next = ragged_next, .begin = ragged_begin, .end = ragged_end};

static tern_dataset *padded(const fixture *f, ragged *r) {
  *r = (ragged){f->in[0].data, f->in[0].shape[0], (int)f->in[0].shape[1]};
  const int64_t wanted[] = {fixture_attr(f, "wanted0", -2), fixture_attr(f, "wanted1", -2)};
  const tern_shape shape = tern_shape_of(r->rank, wanted);
  const double value = (double)fixture_attr(f, "value", 0);
  const tern_padded_opts opts = {.shapes = wanted[0] == -2 ? NULL : &shape,
                                 .values = &value,
                                 .n = 1,
                                 .drop_remainder = (int)fixture_attr(f, "drop", 0),
                                 .lengths = (int)fixture_attr(f, "lengths", 0)};
  return tern_dataset_padded_batch(tern_dataset_generator(&ragged_generator, r), fixture_attr(f, "size", 1), &opts);
}

static tern_dataset *bucket(const fixture *f, ragged *r) {
  *r = (ragged){f->in[0].data, f->in[0].shape[0], 1};
  const double value = (double)fixture_attr(f, "value", 0);
  const tern_padded_opts opts = {.values = &value, .n = 1, .drop_remainder = (int)fixture_attr(f, "drop", 0)};
  return tern_dataset_bucket_by_length(tern_dataset_generator(&ragged_generator, r), f->in[1].data, f->in[2].data,
                                       (int)f->in[1].count, &opts);
}

static void test_records(void) {
  fixtures file;
  fixture f;
  int n = 0;
  const bool opened = fixtures_open(&file, TERN_FIXTURES "/data.bin");
  if (!CHECK(opened, "data.bin: %s", file.error)) return;
  while (fixtures_next(&file, &f)) {
    n++;
    ragged r;
    if (!strcmp(f.op, "flow")) {
      check_dataset(program(f.in[0].data, f.in[0].shape[0], 0), &f, n);
      if (n % 8 == 0) check_dataset(program(f.in[0].data, f.in[0].shape[0], 3), &f, n);
    } else if (!strcmp(f.op, "padded")) {
      check_dataset(padded(&f, &r), &f, n);
    } else {
      check_dataset(bucket(&f, &r), &f, n);
    }
  }
  CHECK(!file.error && n > 100, "data.bin: %d records, %s", n, file.error ? file.error : "no error");
  fixtures_close(&file);
  CHECK_NO_ERROR();
}

static const test_case cases[] = {{"records", test_records}};
TEST_MAIN("tf.data", cases)
