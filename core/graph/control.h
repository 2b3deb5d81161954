/* What the parts of control flow share: calling bodies (control.c), tracing them and making the nodes
   (control_trace.c), branches and loops (control_loop.c, control_scan.c), gradients (control_grad.c), random draws
   (control_draw.c), variables (control_assign.c). */
#ifndef TERN_GRAPH_CONTROL_H_
#define TERN_GRAPH_CONTROL_H_
#include "graph/trace.h"
#include <tern/graph.h>

enum { TERN__CONTROL_MOST = 256 }; /* operands, states or results of one call, what the core adds included */

/* ---- control.c: calling bodies ---- */

/* A body as messages name it: what is the op, part the body: "while", "condition". */
typedef struct tern__callee {
  const char *what, *part;
  tern_function_body body;
  void *self;
} tern__callee;

/* Runs the body in a scope of its own. out[]: one reference each; host scalars become tensors, like like[o] where
   that is given. On failure all NULL and the error set. */
tern_rc tern__callee_run(const tern__callee *c, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out,
                         tern_tensor *const *like);
/* The same, out[] borrowed from the scope. */
tern_rc tern__callee_call(const tern__callee *c, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out,
                          tern_tensor *const *like);
/* A host scalar as a tensor: beside like and of its dtype where the scalar's kind allows that; like may be NULL. Other
   tensors as they are. NULL with the error set. */
tern_tensor *tern__control_solid(tern_tensor *x, const tern_tensor *like);
/* Drops n references; NULLs are allowed. */
void tern__control_drop(tern_tensor **list, int n);
/* Whether x has the dtype, shape and device of like; else an error in which `what` is called `which`. */
bool tern__control_same(const char *what, const char *which, int i, const tern_tensor *x, const tern_tensor *like);

/* ---- control_draw.c: random draws in bodies ---- */

/* What becomes of the draws while a body is traced. Without one (NULL) each is a source of new numbers. Loops and
   branches in the body have lists of their own, which begin from this one. */
typedef struct tern__draws {
  bool record;               /* what is drawn is noted: the body gives it as further results */
  bool replay;               /* nothing is drawn: it is what another run of the body gave, in the same order */
  bool refuse;               /* an error: nothing could say later what was drawn */
  bool in_turn;              /* see tern__tracer */
  tern_tensor *trip;         /* replay, of a loop: which slice it is */
  tern_tensor *const *saved; /* replay: what was drawn (outer NULL) */
  int n_saved, at;
  struct tern__draws *outer; /* that of the body around, whose trace is `around` */
  tern__tracer *around;
  uint32_t value[TERN__CONTROL_MOST]; /* record: of the body's graph */
  int n;
} tern__draws;

/* For a body of a call in this thread's trace. */
void tern__draws_begin(tern__draws *d, const tern__thread *t, bool record);
/* Whether the body around notes or repeats draws. */
bool tern__draws_matter(const tern__thread *t);
/* Where a repeated body is in what it repeats: to trace a body of a call again it goes back there. */
int tern__draws_place(const tern__thread *t);
void tern__draws_go(const tern__thread *t, int place);
/* The error: a checkpoint cannot have these again. */
tern_rc tern__draws_repeated(void);
/* x was drawn by a call in this thread's trace. */
tern_rc tern__draws_note(tern__thread *t, tern_tensor *x);
/* The listener's `draw`. */
tern_tensor *tern__draw(tern__thread *t, tern_tensor *(*make)(void *self), void *self);

/* ---- control_trace.c: bodies as graphs ---- */

typedef struct tern__body {
  tern__tracer *tracer; /* open; then NULL */
  tern__tracer_mark before;
  tern_scope_mark scope;
  uint32_t input[2 * TERN__CONTROL_MOST], n_inputs; /* in the order in which they were declared */
  tern__graph *g;                                   /* closed: inputs are the declared ones, then outer[] */
  tern_tensor **outer;                              /* values from outside that it reads: one reference each */
  uint32_t n_outer;
  struct tern__body_assigned {      /* variables that it assigns */
    tern_tensor *variable, *before; /* before: the value outside; one reference to each */
    uint32_t value;                 /* of g: the new value */
  } * assigned;
  uint32_t n_assigned;
  bool drew, fresh; /* as in tern__tracer */
} tern__body;

/* Ops of the thread go into a graph of their own from now on; tapes do not see them. draws: may be NULL. */
tern_rc tern__body_open(tern__thread *t, tern__body *b, tern__draws *draws);
/* A new input in the form of like, borrowed from the scope that ends with the body. */
tern_tensor *tern__body_input(tern__body *b, const tern_tensor *like);
tern_rc tern__body_output(tern__body *b, tern_tensor *x);
/* Back to the trace around. rc: what happened inside; returned, unless closing itself fails. After a failure the body
   is empty. */
tern_rc tern__body_close(tern__thread *t, tern__body *b, tern_rc rc);
void tern__body_free(tern__body *b);
/* open, inputs like in[], the call, outputs, close. */
tern_rc tern__body_trace(tern__thread *t, tern__body *b, const tern__callee *c, tern__draws *draws,
                         tern_tensor *const *in, int n_in, int n_out, tern_tensor *const *like);
/* What a value of a closed body looks like: a header without data. */
void tern__value_form(const tern__body *b, uint32_t value, tern_tensor *form);
/* What a result of a closed body looks like: a header without data. */
void tern__body_form(const tern__body *b, int o, tern_tensor *form);
/* Makes both read the same outer values in the same order. */
tern_rc tern__body_unite(tern__body *a, tern__body *b);
/* The value of the body that stands for an outer one; made an input where it is none. TERN__IR_NONE with the error
   set. */
uint32_t tern__body_value_of(tern__body *b, tern_tensor *outer);
/* Inputs declared are [0, n_inputs), then come outer[]: numbers them so. values: those of outer[]. */
void tern__body_number(tern__body *b, const uint32_t *values);
/* A node over two bodies that are united, which it takes over; predicate: NULL for a loop. out[]: borrowed. */
tern_rc tern__control_node(tern__thread *t, tern_tensor *predicate, tern_tensor *const *in, int n_in, tern__body *a,
                           tern__body *b, int64_t max_trips, tern_tensor **out, int n_out);
/* The nodes of g, prints left out, in the thread's graph, with in[] for its inputs. out[]: borrowed. */
tern_rc tern__graph_splice(tern__thread *t, const tern__graph *g, tern_tensor *const *in, tern_tensor **out);

/* ---- control_assign.c: variables that bodies assign become further results, and states of loops ---- */

typedef struct tern__assigned {
  tern_tensor *variable[TERN__CONTROL_MOST], *before[TERN__CONTROL_MOST]; /* references */
  int n;
} tern__assigned;
/* Before the bodies are united. predicate of a loop: a. The bodies have n more results each, and in loops n more
   declared inputs, which are before[]. */
tern_rc tern__assigned_begin(tern__assigned *v, tern__body *a, tern__body *b, bool loop);
/* out[]: the n further results of the node. Then v is empty. */
tern_rc tern__assigned_end(tern__thread *t, tern__assigned *v, tern_tensor *const *out, tern_rc rc);
void tern__assigned_drop(tern__assigned *v);
/* The variables alone. */
tern_rc tern__assigned_list(tern__assigned *v, const tern__body *b);
/* What a second derivative cannot go through. */
tern_rc tern__assigned_refuse(const tern__assigned *v, const char *what);

/* ---- what a traced call reads: its operands, then what its bodies read from outside ---- */

typedef struct tern__reads {
  tern_tensor **tensor; /* references: as a tape knows them (variables themselves) */
  bool *tracked;        /* by a tape that records now; of several with one place in the record only the first */
  int n;
  int order; /* tapes that record now: how many derivatives may be asked for; 0: none tracks any of it */
} tern__reads;
/* A value that a body captured, as tapes know it: what a variable holds now is the variable. */
tern_tensor *tern__as_recorded(const tern__tracer *trace, tern_tensor *x);
/* in[]: operands; then what b reads from outside, but for skip[]. */
tern_rc tern__reads_begin(tern__thread *t, tern__reads *r, tern_tensor *const *in, int n_in, const tern__body *b,
                          tern_tensor *const *skip, int n_skip);
void tern__reads_end(tern__reads *r);

/* ---- control_grad.c ---- */

/* A call that tapes record as one op. vjp takes the first n_given operands, the results, and the gradients of those
   results that have `seeded`; it gives the gradients of the tracked operands, in order. Operands behind n_given it
   reads by their handles. It is traced at once, self need not outlive the call. */
typedef struct tern__taped {
  const char *what;
  const tern__reads *reads;
  int n_given;
  tern_tensor *const *out;
  int n_out;
  const bool *seeded;
  tern_function_body vjp;
  void *self;
} tern__taped;
tern_rc tern__control_record(tern__thread *t, const tern__taped *c);

/* A body runs once more, as it ran: with the numbers that it drew, and the values that the variables it assigns had
   before (value[k]: of variable[k]). */
typedef struct tern__again {
  tern__draws *draws;
  const tern__assigned *assigned;
  tern_tensor *const *value;
} tern__again;

/* The gradients of sources[] through one call of a body: sum over o of seeds[o] * d out[o]. seeds[o] may be NULL: none.
   like: as tern__callee_run has it; again: NULL if the call is no repetition. Borrowed from the scope. */
tern_rc tern__vjp_through(const tern__callee *c, const tern__again *again, tern_tensor *const *in, int n_in, int n_out,
                          tern_tensor *const *like, tern_tensor *const *seeds, tern_tensor *const *sources,
                          int n_sources, tern_tensor **gradients);

/* ---- the calls while tracing: operands are tensors, no counts are checked ---- */

tern_rc tern__cond_traced(tern__thread *t, tern_tensor *predicate, const tern__callee bodies[2], tern_tensor *const *in,
                          int n_in, tern_tensor **out, int n_out);
tern_rc tern__while_traced(tern__thread *t, const tern__callee bodies[2], tern_tensor *const *state, int n,
                           tern_tensor **out, int64_t max_trips);
typedef struct tern__scan_form {
  int n_carry, n_xs, n_ys;
  int64_t length;
  bool reverse;
} tern__scan_form;
tern_rc tern__scan_traced(tern__thread *t, const tern__callee *body, const tern__scan_form *f,
                          tern_tensor *const *carry, tern_tensor *const *xs, tern_tensor **out);
/* The ys of a loop without trips: what they look like is found by tracing the body, for nothing. out[n_carry, ..): one
   reference each. */
tern_rc tern__scan_nothing(tern__thread *t, const tern__callee *body, const tern__scan_form *f,
                           tern_tensor *const *carry, tern_tensor *const *xs, tern_tensor **out);
/* A tensor of n times t's shape in front of it, zeros, where t lies. */
tern_tensor *tern__stack_of(const tern_tensor *t, int64_t n);
/* x as one BOOL element, in a graph; what: the error's beginning. NULL with the error set. */
tern_tensor *tern__as_predicate(const char *what, tern_tensor *x);
/* The form of n times t, stacked. */
void tern__stack_form(const tern_tensor *t, int64_t n, tern_tensor *form);
/* A rank-0 int64 tensor beside t. */
tern_tensor *tern__count_beside(const tern_tensor *t, int64_t value);

#endif
