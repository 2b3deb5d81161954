/* Graphs: the same ops, recorded instead of run. A tern_function traces a C function once for each signature, compiles
   the trace (placed, fused, its memory planned) and replays it. In graph mode (tern_disable_eager_execution) every op
   of the thread goes into its default graph, which a session runs, as in TensorFlow 1. tern_cond, tern_while and
   tern_scan are control flow that works in both ways. */
#ifndef TERN_GRAPH_H_
#define TERN_GRAPH_H_
#include <tern/tape.h>
#ifdef __cplusplus
extern "C" {
#endif

/* ---- functions ---- */

typedef struct tern_function tern_function;
/* name: for messages, dumps and traces. fixed_sizes: a trace for every shape, no sizes that vary. no_simplify, no_fuse:
   leave those passes out (to measure, or to find an error). fast_math: allow rewrites that may change rounding, NaN and
   infinities. memory_budget: bytes that intermediate values may take; above it some are computed again instead of kept
   (0 = no limit). */
typedef struct tern_function_opts {
  const char *name;
  int fixed_sizes, no_simplify, no_fuse, fast_math;
  uint64_t memory_budget;
} tern_function_opts;
/* A function that is traced at its first call, and again for operands of other dtypes, ranks or devices; the second
   call with other sizes traces it once with those sizes as variables. body is run to trace it only: what it does beside
   tensor ops (printing, counting) happens then. Tensors that it reads but does not take are constants; variables are
   read and assigned at each run. Reading a value inside (tern_item, tern_to_host) is an error. self must outlive the
   function. n_in, n_out: at most 256. Owned: tern_function_release. */
TERN_API tern_function *tern_function_new(tern_function_body body, void *self, int n_in, int n_out,
                                          const tern_function_opts *opts);
/* NULL is allowed. Not while another thread is inside a call. */
TERN_API void tern_function_release(tern_function *function);
/* Run it: fills out[0, n_out) with tensors borrowed from the scope. Recorded by tapes; inside another traced function
   its body becomes part of that. Any thread may call. */
TERN_API tern_rc tern_function_run(tern_function *function, tern_tensor *const *in, int n_in, tern_tensor **out,
                                   int n_out);
/* The same for the first result; NULL on failure. */
TERN_API tern_tensor *tern_call_n(tern_function *function, tern_tensor *const *in, int n);
#define tern_call(function, ...) \
  tern_call_n((function), (tern_tensor *const[]){__VA_ARGS__}, \
              (int)(sizeof((tern_tensor *const[]){__VA_ARGS__}) / sizeof(tern_tensor *)))
/* What became of it, for people: traces and why each was made, sizes that vary and what pinned the others (file and
   line), kernels and what was fused into each, placement, memory. Owned by the caller: free(). NULL on failure. */
TERN_API char *tern_explain(tern_function *function);

/* How often a function was traced and compiled, and what its newest program is made of. */
typedef struct tern_function_info {
  int traces, programs;
  int64_t calls;
  uint32_t nodes, launches, copies;                    /* graph nodes after simplification; of one run */
  uint64_t arena_bytes, arena_bound, naive_bytes;      /* planned memory, its lower bound, the sum without planning */
  double trace_ms, compile_ms, kernel_ms;              /* of the newest; kernel_ms: in the backends' compilers */
} tern_function_info;
/* Fills *info. */
TERN_API tern_rc tern_function_get_info(tern_function *function, tern_function_info *info);

/* The size of an axis for use in a shape, inside a traced function: stays a variable size where tern_dim would fix it
   to the number of this call. */
TERN_API int64_t tern_like(const tern_tensor *t, int axis);
#define TERN_LIKE(t, axis) tern_like((t), (axis))
/* Whether t has no value yet: it stands for one in a graph. */
TERN_API int tern_is_symbolic(const tern_tensor *t);

/* ---- graph mode ---- */

/* Whether ops of this thread run at once. */
TERN_API int tern_executing_eagerly(void);
/* From now on ops of this thread go into its default graph (inside of tern_with_graph: into that graph again). May be
   switched at any time, but not inside a traced function. Eager tensors that ops take become constants of the graph.
   Variables, literals (tern_f32, ..) and tern_constant are made at once in both modes; tern_full, tern_random_normal
   and the like are ops. Sizes that are not known yet are -1 (tern_dim); TERN_LIKE stands for one in a shape. */
TERN_API void tern_disable_eager_execution(void);
/* Ops run at once again. The default graph stays. */
TERN_API void tern_enable_eager_execution(void);

typedef struct tern_graph tern_graph;
/* An empty graph. Owned: tern_graph_release. */
TERN_API tern_graph *tern_graph_new(const char *name);
/* NULL is allowed. Refused while ops still go into it. Tensors and sessions of the graph give errors from then on;
   release those as ever. */
TERN_API void tern_graph_release(tern_graph *graph);
/* The graph that this thread's ops go to in graph mode; made when first needed, ends with the thread. */
TERN_API tern_graph *tern_default_graph(void);
/* Opaque; see tern_with_graph. */
typedef struct tern_graph_mark { tern_graph *outer; int eager; } tern_graph_mark;
/* Ops of this thread go into graph until tern_graph_end, as in graph mode. */
TERN_API tern_graph_mark tern_graph_begin(tern_graph *graph);
/* Restore what tern_graph_begin replaced. */
TERN_API void tern_graph_end(tern_graph_mark *mark);
typedef enum tern_graph_format { TERN_GRAPH_TEXT = 0, TERN_GRAPH_DOT } tern_graph_format;
/* The graph as text (docs/formats.md): TERN_GRAPH_TEXT, or TERN_GRAPH_DOT for Graphviz. free(). */
TERN_API char *tern_graph_to_string(tern_graph *graph, tern_graph_format format);
/* A graph from its text form; its placeholders and results by name, in order: tern_graph_tensor. NULL with an error
   that names line and column. Owned. */
TERN_API tern_graph *tern_graph_from_string(const char *text, size_t length);
/* A value of the graph by name, borrowed from the graph; NULL with the error set. "x": what was named so; or a
   variable, which is returned itself. What nobody named goes by its op, as tern_print shows it: "add", "add_1", ..;
   ":1" behind a name is the second output. "return:0" is the first result of a graph that was read from text. */
TERN_API tern_tensor *tern_graph_tensor(tern_graph *graph, const char *name);
/* Give a symbolic tensor a name: this one, or NAME_1, NAME_2, .. when another value of the graph has it. Returns t; an
   eager tensor is returned as it is. */
TERN_API tern_tensor *tern_named(tern_tensor *t, const char *name);

/* A value that is fed in each run (graph mode only). A size of -1 is any, and the same in one run for all placeholders
   that have -1 at that axis (the batch); -2, -3, .. are any, the same wherever the number stands. At most 6 different
   ones in a graph, and two in a shape that has other large sizes. name may be NULL. */
TERN_API tern_tensor *tern_placeholder(tern_shape shape, tern_dtype dtype, const char *name);
typedef struct tern_feed { tern_tensor *placeholder, *value; } tern_feed;
typedef struct tern_session tern_session;
/* A session on a graph (NULL: the thread's default graph). Owned. One thread at a time. */
TERN_API tern_session *tern_session_new(tern_graph *graph);
/* NULL is allowed. */
TERN_API void tern_session_release(tern_session *session);
/* out[i] = the value of fetches[i], an eager tensor borrowed from the scope. Only what they need is computed. Any
   value of the graph may be fed instead of computed, with a tensor of its dtype, shape and device. A placeholder that
   is needed but not fed is an error that names it. Eager tensors may be fetched, and TERN_NONE. Works in both modes;
   tapes do not record it. A set of fetches and forms of feeds is compiled when it first comes.
   Assignments (tern_assign and its like, steps of optimisers) are parts of the graph. What reads a variable behind one
   sees the value assigned, what reads it before sees what the variable held when the run began. A run performs the
   assignments on which a fetch depends, and no others; each variable then keeps the last one performed. A variable as
   fetch means its value behind all of the graph's assignments to it; to look at a variable without performing any, read
   it eagerly. An optimiser's step is whole: a run that needs one of the variables of a
   tern_optimizer_apply after it updates them all, once. */
TERN_API tern_rc tern_session_run(tern_session *session, const tern_feed *feeds, int n_feeds,
                                  tern_tensor *const *fetches, int n_fetches, tern_tensor **out);

/* ---- control flow: bodies are functions as for tern_custom_gradient ---- */

/* out[] = then(in[]) or otherwise(in[]), as predicate (one element, bool) says. Eagerly one of the two runs; in a graph
   both are traced and must give the same dtypes and shapes. */
TERN_API tern_rc tern_cond(tern_tensor *predicate, tern_function_body then, tern_function_body otherwise, void *self,
                           tern_tensor *const *in, int n_in, tern_tensor **out, int n_out);
/* max_trips: an error when the loop would run more often (0 = no limit; needed for gradients in a graph). */
typedef struct tern_while_opts { int64_t max_trips; } tern_while_opts;
/* state[] = body(state[]) while condition(state[]), which gives one bool. out[n]: the last states. Shapes and dtypes of
   states stay. n at most 16. */
TERN_API tern_rc tern_while(tern_function_body condition, tern_function_body body, void *self, tern_tensor *const *state,
                            int n, tern_tensor **out, const tern_while_opts *opts);
typedef struct tern_scan_loop_opts { int reverse; int64_t length; /* when there are no xs */ } tern_scan_loop_opts;
/* A loop over axis 0 of xs[]: body takes the n_carry states, then a slice of each of xs, and gives the next states,
   then a slice of each of ys. out[]: the last states, then ys stacked along axis 0. reverse: from the last slice to the
   first. */
TERN_API tern_rc tern_scan(tern_function_body body, void *self, tern_tensor *const *carry, int n_carry,
                           tern_tensor *const *xs, int n_xs, tern_tensor **out, int n_ys,
                           const tern_scan_loop_opts *opts);

#ifdef __cplusplus
}
struct tern_graph_guard {
  tern_graph_mark mark;
  explicit tern_graph_guard(tern_graph *graph) : mark(tern_graph_begin(graph)) {}
  ~tern_graph_guard() { tern_graph_end(&mark); }
};
#define tern_with_graph(graph) tern_graph_guard TERN_CAT(tern_graph_, __LINE__)(graph)
#else
/* A declaration: this thread's ops go into graph in the rest of this block. */
#define tern_with_graph(graph) \
  __attribute__((cleanup(tern_graph_end), unused)) tern_graph_mark TERN_CAT(tern_graph_, __LINE__) = \
      tern_graph_begin(graph)
#endif
#endif
