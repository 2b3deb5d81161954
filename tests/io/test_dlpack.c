/* DLPack, both forms, between tern and tern or a producer made by hand: memory is shared, kept as long as needed and
   given back once, from any thread. tests/interop/dlpack.py does the same with numpy and torch. */
#include "base/alloc.h"
#include "io/dlpack_abi.h"
#include "support/values.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef DLManagedTensorVersioned versioned;

/* What a producer hands over, and how often its deleter was called. */
typedef struct producer {
  versioned managed;
  DLManagedTensor old;
  int64_t shape[10], strides[10];
  int deleted;
} producer;

static void deleted(versioned *m) { ((producer *)m->manager_ctx)->deleted++; }
static void deleted_old(DLManagedTensor *m) { ((producer *)m->manager_ctx)->deleted++; }

/* [2, 3] float32, row-major. */
static void produce(producer *p, void *data) {
  *p = (producer){.shape = {2, 3}, .strides = {3, 1}};
  p->managed = (versioned){.version = {1, 1}, .manager_ctx = p, .deleter = deleted};
  p->managed.dl_tensor = (DLTensor){.data = data,
                                    .device = {.device_type = DL_CPU},
                                    .ndim = 2,
                                    .dtype = {.code = DL_FLOAT, .bits = 32, .lanes = 1},
                                    .shape = p->shape,
                                    .strides = p->strides};
  p->old = (DLManagedTensor){.dl_tensor = p->managed.dl_tensor, .manager_ctx = p, .deleter = deleted_old};
}

/* ---- out ---- */

static void test_export(void) {
  TERN_SCOPE;
  static const struct {
    tern_dtype dtype;
    int code, bits;
  } types[] = {{TERN_BOOL, DL_BOOL, 8}, {TERN_I8, DL_INT, 8},     {TERN_I16, DL_INT, 16},     {TERN_I32, DL_INT, 32},
               {TERN_I64, DL_INT, 64},  {TERN_U8, DL_UINT, 8},    {TERN_U16, DL_UINT, 16},    {TERN_U32, DL_UINT, 32},
               {TERN_U64, DL_UINT, 64}, {TERN_F16, DL_FLOAT, 16}, {TERN_BF16, DL_BFLOAT, 16}, {TERN_F32, DL_FLOAT, 32},
               {TERN_F64, DL_FLOAT, 64}};
  for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
    tern_tensor *t = tern_ones(TERN_SHAPE(2, 3), types[i].dtype);
    versioned *m = tern_to_dlpack(t);
    const DLTensor *d = &m->dl_tensor;
    unsigned char bytes[48];
    CHECK(m->version.major == 1 && m->flags == DL_READ_ONLY && d->device.device_type == DL_CPU && d->ndim == 2,
          "%zu: versions, flags, device", i);
    CHECK(d->dtype.code == types[i].code && d->dtype.bits == types[i].bits && d->dtype.lanes == 1, "%zu: dtype", i);
    CHECK(d->shape[0] == 2 && d->shape[1] == 3 && d->strides[0] == 3 && d->strides[1] == 1 && !d->byte_offset,
          "%zu: shape", i);
    const size_t size = 6 * tern_dtype_size(types[i].dtype);
    CHECK(tern_to_host(t, bytes, size) == TERN_OK && !memcmp(bytes, d->data, size), "%zu: elements", i);
    m->deleter(m);
  }
  tern_tensor *a = tern_f32(TERN_SHAPE(2, 3), 1, 2, 3, 4, 5, 6);
  DLManagedTensor *m = tern_to_dlpack_legacy(tern_slice(tern_transpose(a), &TERN_RANGE(TERN_OPEN, TERN_OPEN, -1), 1));
  const float *x = m->dl_tensor.data;
  CHECK(m->dl_tensor.strides[0] == -1 && m->dl_tensor.strides[1] == 3 && x[0] == 3 && x[3] == 6 && x[-2] == 1,
        "a view's strides");
  m->deleter(m);
  versioned *s = tern_to_dlpack(tern_scalar(2.5));
  CHECK(s->dl_tensor.ndim == 0 && *(float *)s->dl_tensor.data == 2.5f, "a scalar");
  s->deleter(s);
  versioned *none = tern_to_dlpack(tern_zeros(TERN_SHAPE(0, 3), TERN_I8));
  CHECK(none && none->dl_tensor.shape[0] == 0, "no elements");
  none->deleter(none);
  CHECK(!tern_to_dlpack(NULL) && !tern_to_dlpack_legacy(NULL), "NULL");
  CHECK_ERROR(TERN_E_ARG, "to_dlpack: argument 1 is NULL");
}

static void *delete_there(void *m) {
  versioned *v = m;
  v->deleter(v);
  return NULL;
}

/* The memory outlives the tensor; an assignment to a variable takes other memory; the deleter runs on a thread that
   knows nothing of tern. */
static void test_lifetime(void) {
  TERN_SCOPE;
  tern_tensor *v = tern_variable(tern_f32(TERN_SHAPE(3), 1, 2, 3), NULL);
  versioned *m = tern_to_dlpack(v);
  CHECK(tern_assign(v, tern_f32(TERN_SHAPE(3), 4, 5, 6)) == TERN_OK, "%s", tern_error());
  tern_release(v);
  for (int i = 0; i < 10; i++) tern_f32(TERN_SHAPE(3), 7, 8, 9);
  const float *x = m->dl_tensor.data;
  CHECK(x[0] == 1 && x[1] == 2 && x[2] == 3, "%g %g %g", (double)x[0], (double)x[1], (double)x[2]);
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, delete_there, m) == 0, "no thread");
  pthread_join(thread, NULL);
  CHECK_NO_ERROR();
}

/* ---- in ---- */

static void test_import(void) {
  float data[8] = {0, 1, 2, 3, 4, 5, 6, 7};
  producer p;
  for (int form = 0; form < 2; form++) {
    TERN_SCOPE;
    produce(&p, data);
    tern_tensor *kept = NULL;
    {
      TERN_SCOPE;
      tern_tensor *t = form ? tern_from_dlpack(&p.managed) : tern_from_dlpack_legacy(&p.old);
      CHECK_LIST(t, TERN_SHAPE(2, 3), TERN_F32, 0, 1, 2, 3, 4, 5);
      CHECK_LIST(tern_add(t, t), TERN_SHAPE(2, 3), TERN_F32, 0, 2, 4, 6, 8, 10);
      versioned *again = tern_to_dlpack(t);
      CHECK(again->dl_tensor.data == (void *)data, "copied");
      again->deleter(again);
      kept = tern_keep(tern_transpose(t));
    }
    CHECK(p.deleted == 0, "deleted too early");
    CHECK_LIST(kept, TERN_SHAPE(3, 2), TERN_F32, 0, 3, 1, 4, 2, 5);
    tern_release(kept);
    CHECK(p.deleted == 1, "deleted %d times", p.deleted);
  }
  CHECK_NO_ERROR();
}

/* Strides of any sign, none, an offset, one without meaning. */
static void test_strides(void) {
  float data[12];
  for (int i = 0; i < 12; i++) data[i] = (float)i;
  producer p;
  {
    TERN_SCOPE;
    produce(&p, data + 11);
    p.strides[0] = -6;
    p.strides[1] = -2;
    CHECK_LIST(tern_from_dlpack(&p.managed), TERN_SHAPE(2, 3), TERN_F32, 11, 9, 7, 5, 3, 1);
  }
  CHECK(p.deleted == 1, "deleted %d times", p.deleted);
  {
    TERN_SCOPE;
    produce(&p, data);
    p.strides[0] = 0;
    p.strides[1] = 5;
    p.managed.dl_tensor.byte_offset = 4;
    tern_tensor *t = tern_from_dlpack(&p.managed);
    CHECK_LIST(t, TERN_SHAPE(2, 3), TERN_F32, 1, 6, 11, 1, 6, 11);
    CHECK_LIST(tern_neg(t), TERN_SHAPE(2, 3), TERN_F32, -1, -6, -11, -1, -6, -11);
  }
  CHECK(p.deleted == 1, "deleted %d times", p.deleted);
  {
    TERN_SCOPE;
    produce(&p, data);
    p.managed.dl_tensor.strides = NULL;
    p.shape[0] = 1;
    p.managed.deleter = NULL; /* allowed: nothing to do */
    CHECK_LIST(tern_from_dlpack(&p.managed), TERN_SHAPE(1, 3), TERN_F32, 0, 1, 2);
    p.managed.dl_tensor.strides = p.strides;
    p.strides[0] = INT64_MIN; /* of a size of 1 */
    CHECK_LIST(tern_from_dlpack(&p.managed), TERN_SHAPE(1, 3), TERN_F32, 0, 1, 2);
    p.managed.dl_tensor.ndim = 0;
    p.managed.dl_tensor.shape = p.managed.dl_tensor.strides = NULL;
    CHECK_LIST(tern_from_dlpack(&p.managed), TERN_SHAPE(), TERN_F32, 0);
  }
  CHECK_NO_ERROR();
}

/* Where it cannot be used in place it is copied, and handed back at once. */
static void test_copied(void) {
  TERN_SCOPE;
  float data[8] = {0, 1, 2, 3, 4, 5, 6, 7};
  char odd[sizeof data + 1];
  memcpy(odd + 1, data, sizeof data);
  producer p;
  produce(&p, odd);
  p.managed.dl_tensor.byte_offset = 1;
  p.strides[0] = 1;
  p.strides[1] = 2;
  tern_tensor *t = tern_from_dlpack(&p.managed);
  CHECK(p.deleted == 1, "deleted %d times", p.deleted);
  memset(odd, 0, sizeof odd);
  CHECK_LIST(t, TERN_SHAPE(2, 3), TERN_F32, 0, 2, 4, 1, 3, 5);
  produce(&p, NULL);
  p.shape[1] = 0;
  t = tern_from_dlpack(&p.managed);
  CHECK(t && tern_size(t) == 0 && p.deleted == 1, "no elements: %s", tern_error());
  CHECK_NO_ERROR();
}

static void refused(producer *p, const char *part) {
  CHECK(!tern_from_dlpack(&p->managed), "accepted: %s", part);
  CHECK_ERROR(TERN_E_ARG, part);
  CHECK(p->deleted == 0, "a refused tensor was deleted: %s", part);
}

static void test_refused(void) {
  TERN_SCOPE;
  float data[8] = {0};
  unsigned char bools[6] = {0, 1, 2};
  producer p;
  DLTensor *t = &p.managed.dl_tensor;
  produce(&p, data);
  p.managed.version.major = 2;
  refused(&p, "DLPack 2.1, and 1.x is known");
  produce(&p, data);
  t->device.device_type = DL_CUDA;
  refused(&p, "CUDA device (DLPack's number 2)");
  t->device.device_type = 77;
  refused(&p, "another device (DLPack's number 77)");
  produce(&p, data);
  t->dtype.lanes = 4;
  refused(&p, "vectors of 4 lanes");
  t->dtype = (DLDataType){DL_COMPLEX, 64, 1};
  refused(&p, "complex of 64 bits");
  t->dtype = (DLDataType){10, 8, 1}; /* a float8 */
  refused(&p, "code 10");
  t->dtype = (DLDataType){DL_INT, 4, 1};
  refused(&p, "int of 4 bits");
  produce(&p, data);
  t->ndim = 9;
  refused(&p, "9 dimensions");
  t->ndim = -1;
  refused(&p, "-1 dimensions");
  t->ndim = 1;
  t->shape = NULL;
  refused(&p, "no shape");
  produce(&p, data);
  p.shape[0] = -2;
  refused(&p, "negative");
  p.shape[0] = p.shape[1] = INT64_C(1) << 40;
  refused(&p, "too many elements");
  produce(&p, data);
  p.strides[0] = INT64_MAX;
  p.strides[1] = INT64_MAX;
  refused(&p, "reach further");
  p.strides[0] = INT64_MIN;
  p.strides[1] = 1;
  refused(&p, "reach further");
  produce(&p, NULL);
  refused(&p, "data is NULL");
  produce(&p, bools);
  t->dtype = (DLDataType){DL_BOOL, 8, 1};
  refused(&p, "a bool of 2");
  CHECK(!tern_from_dlpack(NULL) && !tern_from_dlpack_legacy(NULL), "NULL");
  CHECK_ERROR(TERN_E_ARG, "NULL");
}

/* Each allocation fails once: nothing leaks, and a tensor that was not taken over is not deleted. */
static void test_no_memory(void) {
  TERN_SCOPE;
  float data[8] = {0};
  tern_tensor *t = tern_f32(TERN_SHAPE(2), 1, 2);
  for (int what = 0; what < 3; what++) {
    long n = 1;
    for (bool failed = true; failed && n < 50; n++) {
      TERN_SCOPE;
      producer p;
      produce(&p, what == 2 ? (char *)data + 1 : (char *)data);
      tern__alloc_fail_at(n);
      versioned *m = what == 0 ? tern_to_dlpack(t) : NULL;
      failed = what == 0 ? !m : !tern_from_dlpack(&p.managed);
      tern__alloc_fail_at(0);
      if (m) m->deleter(m);
      if (failed) CHECK_ERROR(TERN_E_OOM, "memory");
      if (failed) CHECK(p.deleted == 0, "deleted");
    }
    CHECK(n > 2 && n < 50, "%d: %ld allocations", what, n);
  }
}

static const test_case cases[] = {{"export", test_export},      {"lifetime", test_lifetime}, {"import", test_import},
                                  {"strides", test_strides},    {"copied", test_copied},     {"refused", test_refused},
                                  {"no_memory", test_no_memory}};
TEST_MAIN("io.dlpack", cases)
