/* Gradients. A tape records what the ops of its thread compute from watched tensors and from variables;
   tern_tape_gradient then walks the record backwards (reverse-mode automatic differentiation). Tapes nest: the
   gradients of an inner one are ops that the outer one records, so second and higher derivatives come by themselves. A
   tape belongs to the thread and to the scope that began it. */
#ifndef TERN_TAPE_H_
#define TERN_TAPE_H_
#include <tern/tensor.h>
#ifdef __cplusplus
extern "C" {
#endif

typedef struct tern_tape tern_tape;

/* persistent: gives any number of gradients, and keeps its record until it ends; else the first gradient ends it and
   frees the record as it goes. watch_nothing: variables are not watched by themselves, only what tern_tape_watch
   names. */
typedef struct tern_tape_opts { int persistent, watch_nothing; } tern_tape_opts;
/* Begin to record on this thread. The tape ends with tern_tape_end, with its first gradient (unless persistent) or with
   the scope in which it was begun, whichever is first. NULL with the error set when memory is exhausted, or when 32 are
   open on the thread. Outside of any scope a tape that has ended must not be used any more. */
TERN_API tern_tape *tern_tape_begin(const tern_tape_opts *opts);
/* Stop recording and forget everything. Allowed on NULL and on a tape that has ended, as long as its scope is open. */
TERN_API void tern_tape_end(tern_tape *tape);
/* Record what is computed from x from now on. x: a float tensor; trainable variables are watched by themselves. */
TERN_API tern_rc tern_tape_watch(tern_tape *tape, tern_tensor *x);
/* Forget what was recorded and watched; go on recording. */
TERN_API tern_rc tern_tape_reset(tern_tape *tape);

/* gradients[i] = the sum over the elements of target of d target / d sources[i], with the shape and dtype of
   sources[i], borrowed from the scope. TERN_NONE where target does not depend on it. Not recorded by this tape, but by
   those around it. A source must be a trainable variable, a watched tensor, or computed from one; a target that nothing
   watched leads to is an error too (round, comparisons and the like lead nowhere). On failure gradients[] is all NULL;
   a wrong argument leaves the tape as it was, any other failure ends one that is not persistent. */
TERN_API tern_rc tern_tape_gradient(tern_tape *tape, tern_tensor *target, tern_tensor *const *sources, int n,
                                    tern_tensor **gradients);
/* unconnected_zeros: zeros instead of TERN_NONE (and instead of the errors for what the tape never saw). */
typedef struct tern_gradient_opts { int unconnected_zeros; } tern_gradient_opts;
/* The same for several targets, whose contributions are added. seeds: for each target the gradient that comes in, of
   its shape, or TERN_NONE for ones; NULL = all ones. */
TERN_API tern_rc tern_tape_gradients(tern_tape *tape, tern_tensor *const *targets, tern_tensor *const *seeds,
                                     int n_targets, tern_tensor *const *sources, int n, tern_tensor **gradients,
                                     const tern_gradient_opts *opts);
/* All derivatives: shape of target followed by shape of source. Ends a tape that is not persistent. TERN_NONE when
   unconnected. */
TERN_API tern_tensor *tern_tape_jacobian(tern_tape *tape, tern_tensor *target, tern_tensor *source);

/* x, as a constant: gradients do not flow through it. */
TERN_API tern_tensor *tern_stop_gradient(tern_tensor *x);
/* Opaque; made by tern_no_gradient_begin. */
typedef struct tern_no_gradient_mark { uint32_t paused; } tern_no_gradient_mark;
/* No tape of this thread records until the end. Prefer the declaration TERN_NO_GRADIENT. */
TERN_API tern_no_gradient_mark tern_no_gradient_begin(void);
/* See tern_no_gradient_begin. */
TERN_API void tern_no_gradient_end(tern_no_gradient_mark *mark);
/* Whether some tape of this thread records. */
TERN_API int tern_recording(void);

/* A function of tensors: fills out[] with tensors borrowed from the current scope. Returns 0 or an error code. The core
   opens a scope around each call and keeps what it returns. */
typedef tern_rc (*tern_function_body)(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out);
/* The rule of tern_custom_gradient: in and out of the call, the gradients of out (TERN_NONE: none came), and room for
   those of in (fill with tensors of in's shapes, or TERN_NONE). */
typedef tern_rc (*tern_gradient_body)(void *self, tern_tensor *const *in, int n_in, tern_tensor *const *out,
                                      tern_tensor *const *out_gradients, int n_out, tern_tensor **in_gradients);
/* out[] = body(in[]), whose gradient is given by `gradient` instead of by what body computes. self must outlive every
   tape that records; `release(self)`, if not NULL, is called once when none needs it any more. n_in and n_out at most
   16. */
TERN_API tern_rc tern_custom_gradient(tern_function_body body, tern_gradient_body gradient, void *self,
                                      void (*release)(void *self), tern_tensor *const *in, int n_in, tern_tensor **out,
                                      int n_out);
/* out[] = body(in[]), keeping only in[] for the backward pass, where body runs again (with the same random numbers) to
   recompute what its gradient needs: less memory for one more forward pass. Variables that body reads count as inputs;
   for the second pass they have the values of then. body must not assign to variables. self: as above. */
TERN_API tern_rc tern_checkpoint_call(tern_function_body body, void *self, void (*release)(void *self),
                                      tern_tensor *const *in, int n_in, tern_tensor **out, int n_out);

#ifdef __cplusplus
}
struct tern_no_gradient_guard {
  tern_no_gradient_mark mark = tern_no_gradient_begin();
  ~tern_no_gradient_guard() { tern_no_gradient_end(&mark); }
};
#define TERN_NO_GRADIENT tern_no_gradient_guard TERN_CAT(tern_no_gradient_, __LINE__)
#else
/* A declaration: nothing in the rest of this block is recorded. */
#define TERN_NO_GRADIENT                                             \
  __attribute__((cleanup(tern_no_gradient_end), unused)) tern_no_gradient_mark TERN_CAT(tern_no_gradient_, __LINE__) = \
      tern_no_gradient_begin()
#endif
#endif
