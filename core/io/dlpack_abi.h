/* The binary interface of DLPack 1.x, restated from its specification (https://dmlc.github.io/dlpack): how a library
   hands a tensor to another one in the same process. Layouts and numbers are fixed; names are DLPack's, so that they
   can be looked up. */
#ifndef TERN_CORE_IO_DLPACK_ABI_H_
#define TERN_CORE_IO_DLPACK_ABI_H_
#include <stddef.h>
#include <stdint.h>

enum { DLPACK_MAJOR = 1, DLPACK_MINOR = 0 };

/* Kinds of memory. */
enum {
  DL_CPU = 1,
  DL_CUDA = 2,
  DL_CUDA_HOST = 3,
  DL_OPENCL = 4,
  DL_VULKAN = 7,
  DL_METAL = 8,
  DL_ROCM = 10,
  DL_ROCM_HOST = 11,
  DL_CUDA_MANAGED = 13,
  DL_ONEAPI = 14
};
typedef struct DLDevice {
  int32_t device_type, device_id;
} DLDevice;

/* Kinds of elements, `bits` wide and `lanes` to a vector. */
enum { DL_INT = 0, DL_UINT = 1, DL_FLOAT = 2, DL_HANDLE = 3, DL_BFLOAT = 4, DL_COMPLEX = 5, DL_BOOL = 6 };
typedef struct DLDataType {
  uint8_t code, bits;
  uint16_t lanes;
} DLDataType;

/* Element [i, j, ..] is at data + byte_offset + item * (i * strides[0] + j * strides[1] + ..). strides: in elements;
   NULL: row-major. */
typedef struct DLTensor {
  void *data;
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t *shape, *strides;
  uint64_t byte_offset;
} DLTensor;

/* Before 1.0. Whoever takes it calls deleter(self) when done; it may be NULL. */
typedef struct DLManagedTensor {
  DLTensor dl_tensor;
  void *manager_ctx;
  void (*deleter)(struct DLManagedTensor *self);
} DLManagedTensor;

/* From 1.0 on. Another major: only version, manager_ctx and deleter are where they are here. */
enum { DL_READ_ONLY = 1, DL_IS_COPIED = 2, DL_SUBBYTE_PADDED = 4 }; /* bits of flags */
typedef struct DLManagedTensorVersioned {
  struct {
    uint32_t major, minor;
  } version;
  void *manager_ctx;
  void (*deleter)(struct DLManagedTensorVersioned *self);
  uint64_t flags;
  DLTensor dl_tensor;
} DLManagedTensorVersioned;

_Static_assert(sizeof(void *) != 8 || (sizeof(DLTensor) == 48 && offsetof(DLTensor, shape) == 24), "DLTensor");
_Static_assert(sizeof(void *) != 8 || sizeof(DLManagedTensor) == 64, "DLManagedTensor");
_Static_assert(sizeof(void *) != 8 || (offsetof(DLManagedTensorVersioned, flags) == 24 &&
                                       offsetof(DLManagedTensorVersioned, dl_tensor) == 32),
               "DLManagedTensorVersioned");
#endif
