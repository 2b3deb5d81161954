/* Errors, scopes and the ends of a program. Every other public header includes this one. */
#ifndef TERN_BASE_H_
#define TERN_BASE_H_
#include <tern/backend.h>
#ifdef __cplusplus
extern "C" {
#endif
#define TERN_API __attribute__((visibility("default")))
#define TERN_VERSION_MAJOR 0
#define TERN_VERSION_MINOR 1
#define TERN_VERSION_PATCH 0

/* A tensor: a reference-counted handle. Ops return handles that the calling thread's innermost scope owns; tern_keep
   makes one that outlives the scope. Variables are tensors too. */
typedef struct tern_tensor tern_tensor;

/* "0.1.0" */
TERN_API const char *tern_version(void);

/* ---- errors: each thread has one, the first that happened. Ops return NULL after a failure, and NULL in gives NULL
   out ---- */

/* The thread's error, 0 when there is none. Reading it counts as handling it: tern_finish no longer fails for it. */
TERN_API tern_rc tern_error_code(void);
/* Its text: the op, shapes, dtypes, device and what to do. "" when there is none. Valid until the thread's next
   error. */
TERN_API const char *tern_error(void);
/* Forget the thread's error. */
TERN_API void tern_error_clear(void);
/* A status code as text: "TERN_E_ARG". */
TERN_API const char *tern_rc_name(tern_rc rc);
/* The end of a program: closes the thread's scopes, waits for every device, writes the trace. Returns 0, or 1 after
   printing the process's first error that nobody read. The library may be used again afterwards. */
TERN_API int tern_finish(void);

/* ---- scopes ---- */

/* Opaque; made by tern_scope_begin. */
typedef struct tern_scope_mark { uint32_t outer, depth; } tern_scope_mark;
/* Open a scope on this thread: handles made from now on end with it. Prefer the declaration TERN_SCOPE. */
TERN_API tern_scope_mark tern_scope_begin(void);
/* Close the scope, and any that were opened inside it and left open. */
TERN_API void tern_scope_end(tern_scope_mark *mark);
#define TERN_CAT_(a, b) a##b
#define TERN_CAT(a, b) TERN_CAT_(a, b)

/* Add a reference that the caller owns: the tensor lives until tern_release. Returns t. Thread-safe. */
TERN_API tern_tensor *tern_keep(tern_tensor *t);
/* End a reference made by tern_keep or by a constructor that says "owned". NULL is allowed. Thread-safe. */
TERN_API void tern_release(tern_tensor *t);
/* Hand t, made in this scope, to the enclosing scope; the way to return a tensor from a function that opened a scope.
   O(1). */
TERN_API tern_tensor *tern_escape(tern_tensor *t);

#ifdef __cplusplus
}
struct tern_scope_guard {
  tern_scope_mark mark = tern_scope_begin();
  ~tern_scope_guard() { tern_scope_end(&mark); }
};
#define TERN_SCOPE tern_scope_guard TERN_CAT(tern_scope_, __LINE__)
#else
/* A declaration: tensors made in the rest of this block end with it, however it is left. */
#define TERN_SCOPE \
  __attribute__((cleanup(tern_scope_end), unused)) tern_scope_mark TERN_CAT(tern_scope_, __LINE__) = tern_scope_begin()
#endif
#endif
