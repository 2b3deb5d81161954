/* Tensors: making them, looking at them, views. All functions may be called from any thread; a tensor may be used by
   several threads at once. Results are borrowed from the scope unless the comment says "owned". NULL in gives NULL
   out. */
#ifndef TERN_TENSOR_H_
#define TERN_TENSOR_H_
#include <tern/base.h>
#ifdef __cplusplus
extern "C" {
#endif

/* ---- shapes ---- */

/* Up to 8 dimensions; rank 0 is a scalar. rank -1 marks an invalid shape (more than 8 dimensions were given). */
typedef struct tern_shape { int32_t rank; int64_t dim[TERN_MAX_RANK]; } tern_shape;
/* A shape from an array. */
TERN_API tern_shape tern_shape_of(int rank, const int64_t *dim);
#define TERN_COUNT(...) ((int)(sizeof((const int64_t[]){0, ##__VA_ARGS__}) / sizeof(int64_t)) - 1)
#ifdef __cplusplus
}
#include <initializer_list>
static inline tern_shape tern_shape_list(std::initializer_list<int64_t> d) { return tern_shape_of((int)d.size(), d.begin()); }
#define TERN_SHAPE(...) (tern_shape_list({__VA_ARGS__}))
extern "C" {
#else
/* TERN_SHAPE(2, 3), TERN_SHAPE() */
#define TERN_SHAPE(...) (__extension__(tern_shape){TERN_COUNT(__VA_ARGS__), {__VA_ARGS__}})
#endif

/* An optional tensor argument that is left out (NULL would mean that making it failed). */
TERN_API extern tern_tensor tern_none;
#define TERN_NONE (&tern_none)
/* An option that is meant to be exactly 0 where 0 means "default". */
#define TERN_ZERO (-0.0)

/* ---- making ---- */

/* A tensor of `count` host values of dtype, copied. count must be the shape's number of elements; 1 fills the shape. */
TERN_API tern_tensor *tern_constant(tern_shape shape, tern_dtype dtype, const void *data, size_t count);
#ifndef __cplusplus
#define TERN_LITERAL_(shape, dtype, type, ...) \
  tern_constant((shape), (dtype), (const type[]){__VA_ARGS__}, sizeof((const type[]){__VA_ARGS__}) / sizeof(type))
/* Literals: tern_f32(TERN_SHAPE(2, 2), 1, 2, 3, 4). The number of values must fit the shape, or be 1. */
#define tern_f32(shape, ...) TERN_LITERAL_(shape, TERN_F32, float, __VA_ARGS__)
#define tern_f64(shape, ...) TERN_LITERAL_(shape, TERN_F64, double, __VA_ARGS__)
#define tern_i32(shape, ...) TERN_LITERAL_(shape, TERN_I32, int32_t, __VA_ARGS__)
#define tern_i64(shape, ...) TERN_LITERAL_(shape, TERN_I64, int64_t, __VA_ARGS__)
#define tern_u8(shape, ...) TERN_LITERAL_(shape, TERN_U8, uint8_t, __VA_ARGS__)
#define tern_bool(shape, ...) TERN_LITERAL_(shape, TERN_BOOL, uint8_t, __VA_ARGS__)
#endif
/* A rank-0 host number, weakly typed: it takes the dtype of what it meets. Not tied to a device. */
TERN_API tern_tensor *tern_scalar(double value);
/* The same for an integer: beside a float tensor it becomes that float, beside an integer tensor that integer. */
TERN_API tern_tensor *tern_scalar_int(int64_t value);
/* Host memory used in place where the device can (else copied, and released at once). `release(data, context)` is
   called once, from any thread, when nothing uses the memory any more; NULL = the caller guarantees that it outlives
   the tensor. data must be aligned to its item size and not be written to meanwhile. */
TERN_API tern_tensor *tern_from_host(tern_shape shape, tern_dtype dtype, void *data, void (*release)(void *data,
                                     void *context), void *context);
/* All zeros. */
TERN_API tern_tensor *tern_zeros(tern_shape shape, tern_dtype dtype);
/* All ones. */
TERN_API tern_tensor *tern_ones(tern_shape shape, tern_dtype dtype);
/* All `value`, converted to dtype. */
TERN_API tern_tensor *tern_full(tern_shape shape, tern_dtype dtype, double value);
/* Uninitialised memory. */
TERN_API tern_tensor *tern_empty(tern_shape shape, tern_dtype dtype);
/* Zeros, ones, value of the shape, dtype and device of t. */
TERN_API tern_tensor *tern_zeros_like(tern_tensor *t);
/* See tern_zeros_like. */
TERN_API tern_tensor *tern_ones_like(tern_tensor *t);
/* See tern_zeros_like. */
TERN_API tern_tensor *tern_full_like(tern_tensor *t, double value);
/* start, start + step, ... below stop (above it when step is negative). */
TERN_API tern_tensor *tern_arange(double start, double stop, double step, tern_dtype dtype);
/* n values from start to stop, both included. Float dtypes. */
TERN_API tern_tensor *tern_linspace(double start, double stop, int64_t n, tern_dtype dtype);
/* rows x columns with ones on diagonal k (k > 0: above the main one). */
TERN_API tern_tensor *tern_eye(int64_t rows, int64_t columns, int k, tern_dtype dtype);

/* ---- looking ---- */

/* Number of dimensions; -1 for NULL. */
TERN_API int tern_rank(const tern_tensor *t);
/* Size of dimension axis (negative counts from the end); -1 with an error when there is none. */
TERN_API int64_t tern_dim(const tern_tensor *t, int axis);
/* The whole shape. */
TERN_API tern_shape tern_shape_get(const tern_tensor *t);
/* Number of elements; 0 for NULL. */
TERN_API int64_t tern_size(const tern_tensor *t);
/* Element type; TERN_NO_DTYPE for NULL. */
TERN_API tern_dtype tern_dtype_get(const tern_tensor *t);
/* "cpu:0"; "" for NULL. Valid for ever. */
TERN_API const char *tern_device_get(const tern_tensor *t);
/* "float32" */
TERN_API const char *tern_dtype_name(tern_dtype dtype);
/* Bytes of one element; 0 for an unknown dtype. */
TERN_API size_t tern_dtype_size(tern_dtype dtype);
/* The one element of t as a double (waits for the device). NaN with an error for another number of elements. */
TERN_API double tern_item(tern_tensor *t);
/* The same as an integer. */
TERN_API int64_t tern_item_int(tern_tensor *t);
/* Copy all elements in row-major order to dst of `size` bytes, which must be exactly the tensor's (waits for the
   device). */
TERN_API tern_rc tern_to_host(tern_tensor *t, void *dst, size_t size);
/* 1 when shapes are equal and all elements are (dtypes may differ; NaN differs from NaN), 0 when not, -1 on error. */
TERN_API int tern_equal_all(tern_tensor *a, tern_tensor *b);
/* 1 when all |a - b| <= absolute + relative * |b| after broadcasting, 0 when not, -1 on error. 0 options: 1e-8 and
   1e-5. */
TERN_API int tern_allclose(tern_tensor *a, tern_tensor *b, double relative, double absolute);
/* Notes the caller's place for messages of the call that follows: what cannot be read while a function is traced, and
   sizes that fix a trace (tern_explain). The functions that read sizes and values come with macros of their names that
   call it; TERN_NO_PLACES leaves these out, as (tern_dim)(t, 0) does once. */
TERN_API void tern_at(const char *file, int line);
#ifndef TERN_NO_PLACES
#define TERN_AT_(call) (tern_at(__FILE__, __LINE__), call)
#define tern_dim(...) TERN_AT_((tern_dim)(__VA_ARGS__))
#define tern_shape_get(...) TERN_AT_((tern_shape_get)(__VA_ARGS__))
#define tern_size(...) TERN_AT_((tern_size)(__VA_ARGS__))
#define tern_item(...) TERN_AT_((tern_item)(__VA_ARGS__))
#define tern_item_int(...) TERN_AT_((tern_item_int)(__VA_ARGS__))
#define tern_to_host(...) TERN_AT_((tern_to_host)(__VA_ARGS__))
#define tern_equal_all(...) TERN_AT_((tern_equal_all)(__VA_ARGS__))
#define tern_allclose(...) TERN_AT_((tern_allclose)(__VA_ARGS__))
#endif
/* Print to stdout: `tern.Tensor([5. 7. 9.], shape=(3,), dtype=float32)`; NULL prints the error. */
TERN_API void tern_print(tern_tensor *t);
/* Print the values alone, as numpy prints an array. */
TERN_API void tern_print_values(tern_tensor *t);
/* The text of tern_print in malloc'ed memory, owned by the caller (free it). NULL when memory is exhausted. */
TERN_API char *tern_to_string(tern_tensor *t);

/* ---- views: share memory with t, cost nothing ---- */

/* Another shape of the same elements in row-major order; one -1 is worked out. Copies when the strides do not allow a
   view. */
TERN_API tern_tensor *tern_reshape(tern_tensor *t, tern_shape shape);
/* Axes in the given order; order NULL reverses them. n must be the rank. */
TERN_API tern_tensor *tern_permute(tern_tensor *t, const int *order, int n);
/* The last two axes swapped. */
TERN_API tern_tensor *tern_transpose(tern_tensor *t);
/* What a slice keeps of one axis, as Python's start:stop:step. {0} is not "all": use TERN_ALL. */
typedef struct tern_range { int64_t start, stop, step; /* step 0 counts as 1 */ } tern_range;
#define TERN_OPEN INT64_MAX /* start or stop left out */
#ifdef __cplusplus
#define TERN_RANGE(start, stop, step) (tern_range{(start), (stop), (step)})
#else
#define TERN_RANGE(start, stop, step) ((tern_range){(start), (stop), (step)})
#endif
#define TERN_ALL TERN_RANGE(TERN_OPEN, TERN_OPEN, 1)
/* The first n axes sliced, the rest whole. Bounds are clamped as in Python. */
TERN_API tern_tensor *tern_slice(tern_tensor *t, const tern_range *ranges, int n);
/* t[.., i, ..]: axis dropped. Negative axis and i count from the end. */
TERN_API tern_tensor *tern_index(tern_tensor *t, int axis, int64_t i);
/* Broadcast to shape (NumPy's rules); -1 keeps a size. */
TERN_API tern_tensor *tern_expand(tern_tensor *t, tern_shape shape);
/* Drop axis, which must have size 1; TERN_ALL_AXES drops every such axis. */
TERN_API tern_tensor *tern_squeeze(tern_tensor *t, int axis);
#define TERN_ALL_AXES INT32_MAX
/* Insert an axis of size 1 before axis (rank or -1: at the end). */
TERN_API tern_tensor *tern_expand_dims(tern_tensor *t, int axis);
/* All elements as one axis. */
TERN_API tern_tensor *tern_flatten(tern_tensor *t);
/* t itself when it is row-major, else a copy that is. */
TERN_API tern_tensor *tern_contiguous(tern_tensor *t);
/* A copy with memory of its own. */
TERN_API tern_tensor *tern_clone(tern_tensor *t);

/* ---- variables ---- */

/* name: for messages and files; frozen: not trainable (tapes do not watch it); device: where it lives, NULL = where
   `initial` is. */
typedef struct tern_variable_opts { const char *name; int frozen; const char *device; } tern_variable_opts;
/* A tensor whose value can be replaced. Owned: end it with tern_release. Starts as a copy of `initial`. */
TERN_API tern_tensor *tern_variable(tern_tensor *initial, const tern_variable_opts *opts);
/* Replace the value; shape must be the same, dtype is converted. Tensors that were computed or viewed before keep
   theirs. In place when nobody else holds the memory. Tapes do not record assignments, and keep the values that they
   saw. */
TERN_API tern_rc tern_assign(tern_tensor *variable, tern_tensor *value);
/* variable += value, which broadcasts to it. Computed in the dtype where both meet, then converted to the variable's.
   */
TERN_API tern_rc tern_assign_add(tern_tensor *variable, tern_tensor *value);
/* variable -= value. */
TERN_API tern_rc tern_assign_sub(tern_tensor *variable, tern_tensor *value);
/* How a sparse update combines what is there with what comes. */
typedef enum tern_scatter_mode { TERN_SCATTER_ADD = 0, TERN_SCATTER_SET, TERN_SCATTER_MAX, TERN_SCATTER_MIN } tern_scatter_mode;
/* Slices of the variable along axis 0 at the integer indices combined with updates, whose shape is that of the indices
   followed by that of a slice; an index that occurs twice counts twice, in order. An index out of range: an error
   on a host-memory device, and nothing changes; elsewhere that row is left out, and the next wait reports it. */
TERN_API tern_rc tern_assign_scatter(tern_tensor *variable, tern_tensor *indices, tern_tensor *updates,
                                     tern_scatter_mode mode);
/* The variable's name; "" when it has none. */
TERN_API const char *tern_variable_name(const tern_tensor *variable);
/* Whether t is a variable. */
TERN_API int tern_is_variable(const tern_tensor *t);
/* Whether t is a variable that tapes watch. */
TERN_API int tern_trainable(const tern_tensor *variable);
/* Watch it or not, from now on. */
TERN_API tern_rc tern_set_trainable(tern_tensor *variable, int trainable);

#ifdef __cplusplus
}
#endif
#endif
