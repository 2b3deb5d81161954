/* DLPack. Out: a header over the tensor's memory is kept until the deleter runs, on whatever thread. In: a storage over
   the producer's memory, from its lowest element to its highest, whose release calls the producer's deleter. */
#include "base/alloc.h"
#include "device/device.h"
#include "io/dlpack_abi.h"
#include "io/draft.h"
#include <stdlib.h>

static const struct {
  tern_dtype dtype;
  uint8_t code, bits;
} types[] = {{TERN_BOOL, DL_BOOL, 8}, {TERN_I8, DL_INT, 8},     {TERN_I16, DL_INT, 16},     {TERN_I32, DL_INT, 32},
             {TERN_I64, DL_INT, 64},  {TERN_U8, DL_UINT, 8},    {TERN_U16, DL_UINT, 16},    {TERN_U32, DL_UINT, 32},
             {TERN_U64, DL_UINT, 64}, {TERN_F16, DL_FLOAT, 16}, {TERN_BF16, DL_BFLOAT, 16}, {TERN_F32, DL_FLOAT, 32},
             {TERN_F64, DL_FLOAT, 64}};
enum { N_TYPES = sizeof types / sizeof *types };

/* ---- out ---- */

typedef struct loan {
  union {
    DLManagedTensor old;
    DLManagedTensorVersioned versioned;
  } managed;           /* first: what the other library holds */
  tern_tensor *tensor; /* one reference */
  void *copy;          /* the elements where tern's memory is not the host's */
  int64_t shape[TERN_MAX_RANK], stride[TERN_MAX_RANK];
} loan;

static void give_back(loan *l) {
  tern_release(l->tensor);
  free(l->copy);
  free(l);
}
static void give_back_old(DLManagedTensor *self) { give_back((loan *)self); }
static void give_back_versioned(DLManagedTensorVersioned *self) { give_back((loan *)self); }

typedef struct filling {
  char *at;
} filling;
static tern_rc fill(void *self, const void *data, size_t size) {
  filling *f = self;
  memcpy(f->at, data, size);
  f->at += size;
  return TERN_OK;
}

/* The elements in host memory: where they are, or a row-major copy. */
static tern_rc find_elements(loan *l, tern_tensor *t, const char *op, char **data) {
  const size_t item = tern__dtype_size[t->dtype];
  int64_t dense = 1;
  memcpy(l->shape, t->shape, sizeof *l->shape * t->rank);
  memcpy(l->stride, t->stride, sizeof *l->stride * t->rank);
  if (t->storage->host) { /* a kernel may still be writing where the device has a queue */
    *data = t->storage->host + (uint64_t)t->offset * item;
    return t->device->queue ? tern__device_sync(t->device) : TERN_OK;
  }
  *data = l->copy = tern__calloc((size_t)t->numel + 1, item);
  if (!l->copy) return tern__fail(TERN_E_OOM, "%s: out of host memory for a copy from %s", op, t->device->name);
  for (int d = t->rank - 1; d >= 0; dense *= l->shape[d] ? l->shape[d] : 1, d--) l->stride[d] = dense;
  filling f = {l->copy};
  return tern__pieces_out(t, op, fill, &f);
}

/* A loan with one reference to the memory that t has now; NULL with the error set. */
static loan *lend(tern_tensor *t, const char *op, DLTensor *out) {
  if (!tern__usable(t, op, 1) || !tern__readable(t, op)) return NULL;
  TERN_SCOPE;
  tern_tensor *now = tern__snapshot(t);
  loan *l = now ? tern__calloc(1, sizeof *l) : NULL;
  if (!l) {
    if (now) tern__fail(TERN_E_OOM, "%s: out of host memory", op);
    return NULL;
  }
  char *data = NULL;
  if (find_elements(l, now, op, &data)) {
    free(l->copy);
    free(l);
    return NULL;
  }
  l->tensor = tern_keep(now);
  *out = (DLTensor){.data = data, .device = {.device_type = DL_CPU}, .ndim = now->rank};
  for (int i = 0; i < N_TYPES; i++)
    if (types[i].dtype == (tern_dtype)now->dtype)
      out->dtype = (DLDataType){.code = types[i].code, .bits = types[i].bits, .lanes = 1};
  out->shape = l->shape;
  out->strides = l->stride;
  return l;
}

void *tern_to_dlpack(tern_tensor *t) {
  DLTensor tensor;
  loan *l = lend(t, "to_dlpack", &tensor);
  if (!l) return NULL;
  l->managed.versioned = (DLManagedTensorVersioned){.version = {DLPACK_MAJOR, DLPACK_MINOR},
                                                    .deleter = give_back_versioned,
                                                    .flags = DL_READ_ONLY | (l->copy ? DL_IS_COPIED : 0),
                                                    .dl_tensor = tensor};
  return &l->managed.versioned;
}

void *tern_to_dlpack_legacy(tern_tensor *t) {
  DLTensor tensor;
  loan *l = lend(t, "to_dlpack_legacy", &tensor);
  if (!l) return NULL;
  l->managed.old = (DLManagedTensor){.dl_tensor = tensor, .deleter = give_back_old};
  return &l->managed.old;
}

/* ---- in ---- */

/* What is to be handed back. Only armed, when the import has succeeded, does its release call the deleter. */
typedef struct guest {
  void *managed;
  bool versioned, armed;
} guest;

static void leave(const guest *g) {
  if (g->versioned) {
    DLManagedTensorVersioned *m = g->managed;
    if (m->deleter) m->deleter(m);
  } else {
    DLManagedTensor *m = g->managed;
    if (m->deleter) m->deleter(m);
  }
}

static void released(void *data, void *context) {
  guest *g = context;
  (void)data;
  if (g->armed) leave(g);
  free(g);
}

/* A DLTensor that was looked at. Offsets are in elements from `first`, element [0, 0, ..]. */
typedef struct found {
  tern_dtype dtype;
  tern_shape shape;
  int64_t stride[TERN_MAX_RANK], numel;
  int64_t low, high; /* of the elements */
  const char *first;
} found;

static const char *device_word(int32_t type) {
  switch (type) {
  case DL_CUDA: return "CUDA";
  case DL_OPENCL: return "OpenCL";
  case DL_VULKAN: return "Vulkan";
  case DL_METAL: return "Metal";
  case DL_ROCM: return "ROCm";
  case DL_CUDA_MANAGED: return "managed CUDA";
  case DL_ONEAPI: return "oneAPI";
  default: return "another";
  }
}

static tern_rc check_type(const DLTensor *t, const char *op, tern_dtype *dtype) {
  static const char *const kinds[] = {"int", "uint", "float", "handle", "bfloat", "complex", "bool"};
  *dtype = TERN_NO_DTYPE;
  for (int i = 0; i < N_TYPES; i++)
    if (types[i].code == t->dtype.code && types[i].bits == t->dtype.bits) *dtype = types[i].dtype;
  if (t->dtype.lanes != 1)
    return tern__fail(TERN_E_ARG,
                      "%s: its elements are vectors of %u lanes; give it as scalars with one dimension more", op,
                      t->dtype.lanes);
  if (*dtype != TERN_NO_DTYPE) return TERN_OK;
  return tern__fail(TERN_E_ARG,
                    "%s: its elements are %s of %u bits (DLPack's code %u), which tern has not; convert them", op,
                    t->dtype.code < 7 ? kinds[t->dtype.code] : "of a kind", t->dtype.bits, t->dtype.code);
}

/* Strides and the places of the lowest and the highest element; false when they do not fit 63 bits. */
static bool find_extent(const DLTensor *t, found *f) {
  const int64_t item = (int64_t)tern__dtype_size[f->dtype];
  int64_t dense = 1, bytes;
  f->low = f->high = 0;
  for (int d = f->shape.rank - 1; d >= 0; d--) {
    int64_t reach;
    f->stride[d] = t->strides ? t->strides[d] : dense;
    dense *= f->shape.dim[d] ? f->shape.dim[d] : 1; /* fits: tern__numel said so, and no size is 0 here */
    if (f->shape.dim[d] == 1) f->stride[d] = 1;     /* means nothing; producers leave anything there */
    if (__builtin_mul_overflow(f->stride[d], f->shape.dim[d] - 1, &reach)) return false;
    if (__builtin_add_overflow(reach < 0 ? f->low : f->high, reach, reach < 0 ? &f->low : &f->high)) return false;
  }
  return !__builtin_sub_overflow(f->high, f->low, &bytes) && bytes < INT64_MAX / item - 1 && f->low > INT64_MIN / item;
}

static tern_rc look_at(const DLTensor *t, const char *op, found *f) {
  char text[200];
  if (t->device.device_type != DL_CPU && t->device.device_type != DL_CUDA_HOST && t->device.device_type != DL_ROCM_HOST)
    return tern__fail(TERN_E_ARG, "%s: it is in memory of %s device (DLPack's number %d); copy it to the host first",
                      op, device_word(t->device.device_type), (int)t->device.device_type);
  tern_rc rc = check_type(t, op, &f->dtype);
  if (rc) return rc;
  if (t->ndim < 0 || t->ndim > TERN_MAX_RANK || (t->ndim > 0 && !t->shape))
    return tern__fail(TERN_E_ARG, "%s: it has %d dimensions%s; tern has 0 to %d", op, (int)t->ndim,
                      t->ndim > 0 && !t->shape ? " and no shape" : "", TERN_MAX_RANK);
  f->shape = tern_shape_of(t->ndim, t->shape);
  if (!tern__shape_ok(op, f->shape, f->dtype)) return tern__recorded();
  f->numel = tern__numel(t->ndim, f->shape.dim);
  if (f->numel == 0) return TERN_OK;
  if (!t->data) return tern__fail(TERN_E_ARG, "%s: its data is NULL", op);
  if (!find_extent(t, f))
    return tern__fail(TERN_E_ARG, "%s: the strides of shape %s reach further than memory does", op,
                      tern__shape_text(text, f->shape.rank, f->shape.dim));
  f->first = (const char *)t->data + t->byte_offset;
  return TERN_OK;
}

/* All elements in row-major order; two loops: the last axis, and a counter over the others. */
static void gather(const found *f, char *to) {
  const size_t item = tern__dtype_size[f->dtype];
  const int last = f->shape.rank - 1;
  const int64_t n = last < 0 ? 1 : f->shape.dim[last], step = last < 0 ? 1 : f->stride[last];
  int64_t index[TERN_MAX_RANK] = {0}, at = 0;
  for (int64_t row = 0; row < f->numel / n; row++) {
    for (int64_t i = 0; i < n; i++, to += item) memcpy(to, f->first + (at + i * step) * (int64_t)item, item);
    for (int d = last - 1; d >= 0; d--) {
      at += f->stride[d];
      if (++index[d] < f->shape.dim[d]) break;
      at -= f->stride[d] * f->shape.dim[d];
      index[d] = 0;
    }
  }
}

static tern_tensor *copied(const found *f, const char *op, tern__device *device) {
  const size_t item = tern__dtype_size[f->dtype];
  char *dense = tern__calloc((size_t)f->numel + 1, item);
  if (!dense) {
    tern__fail(TERN_E_OOM, "%s: out of host memory for a copy", op);
    return NULL;
  }
  if (f->numel) gather(f, dense);
  tern_tensor *t = tern_constant(f->shape, f->dtype, dense, (size_t)f->numel);
  if (t && device->queue && tern__device_sync(device)) t = NULL;
  free(dense);
  return t;
}

/* Over the memory itself: a storage from the lowest element on. Takes g over. */
static tern_tensor *shared(const found *f, const char *op, tern__device *device, guest *g) {
  const size_t item = tern__dtype_size[f->dtype];
  const int64_t none[1] = {0};
  const uint32_t graph = tern__eager_begin(tern__tls);
  tern_tensor *t = tern__new(device, f->dtype, 1, none, op);
  tern__eager_end(tern__tls, graph);
  if (!t) {
    free(g);
    return NULL;
  }
  void *from = (void *)(uintptr_t)(f->first + f->low * (int64_t)item); /* tern does not write there */
  tern__storage *s = tern__storage_import(device, from, (uint64_t)(f->high - f->low + 1) * item, released, g);
  if (!s) {
    tern__unref(t);
    free(g);
    return NULL;
  }
  tern__storage_unref(t->storage);
  t->storage = s;
  t->rank = (uint8_t)f->shape.rank;
  t->numel = f->numel;
  t->offset = -f->low;
  memcpy(t->shape, f->shape.dim, sizeof *t->shape * t->rank);
  memcpy(t->stride, f->stride, sizeof *t->stride * t->rank);
  tern__set_contig_flag(t);
  return tern__push(t);
}

/* A BOOL is a byte 0 or 1; what computes with others is not defined. */
static tern_rc check_bools(const found *f, const char *op) {
  if (f->dtype != TERN_BOOL || !f->numel) return TERN_OK;
  char *dense = tern__calloc((size_t)f->numel, 1);
  if (!dense) return tern__fail(TERN_E_OOM, "%s: out of host memory to look at its bools", op);
  gather(f, dense);
  int bad = 0;
  for (int64_t i = 0; i < f->numel && !bad; i++) bad = dense[i] & ~1 ? (unsigned char)dense[i] : 0;
  free(dense);
  return bad ? tern__fail(TERN_E_ARG, "%s: it holds a bool of %d, expected 0 or 1", op, bad) : TERN_OK;
}

static tern_tensor *borrow(void *managed, const DLTensor *tensor, bool versioned, const char *op) {
  found f = {0};
  tern__thread *thread = tern__thread_get();
  tern__device *device = thread ? tern__device_here(thread) : NULL;
  if (!device || look_at(tensor, op, &f) || check_bools(&f, op)) return NULL;
  const bool in_place = f.numel && device->flags & TERN_DEV_IMPORT_HOST && device->flags & TERN_DEV_HOST_MEM &&
                        (uintptr_t)f.first % tern__dtype_size[f.dtype] == 0;
  guest *g = tern__calloc(1, sizeof *g);
  if (!g) {
    tern__fail(TERN_E_OOM, "%s: out of host memory", op);
    return NULL;
  }
  *g = (guest){.managed = managed, .versioned = versioned};
  tern_tensor *t = in_place ? shared(&f, op, device, g) : copied(&f, op, device);
  if (in_place && t) {
    g->armed = true;
  } else if (!in_place) {
    if (t) leave(g);
    free(g);
  }
  return t;
}

tern_tensor *tern_from_dlpack(void *managed) {
  const DLManagedTensorVersioned *m = managed;
  if (m && m->version.major == DLPACK_MAJOR) return borrow(managed, &m->dl_tensor, true, "from_dlpack");
  if (m)
    tern__fail(TERN_E_ARG,
               "from_dlpack: it is of DLPack %u.%u, and %d.x is known; ask for that version, or take the unversioned "
               "form with tern_from_dlpack_legacy",
               m->version.major, m->version.minor, DLPACK_MAJOR);
  else
    tern__fail(TERN_E_ARG, "from_dlpack: the tensor is NULL");
  return NULL;
}

tern_tensor *tern_from_dlpack_legacy(void *managed) {
  const DLManagedTensor *m = managed;
  if (m) return borrow(managed, &m->dl_tensor, false, "from_dlpack_legacy");
  tern__fail(TERN_E_ARG, "from_dlpack_legacy: the tensor is NULL");
  return NULL;
}
