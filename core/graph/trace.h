/* Tracing: while thread->hooks has HOOK_GRAPH, the core's ops go through tern__graph_listener into the graph of
   thread->trace. A symbolic tensor is a header whose storage is a ghost: import -> the trace, mem_offset the newest
   value of that memory, bytes the first. */
#ifndef TERN_GRAPH_TRACE_H_
#define TERN_GRAPH_TRACE_H_
#include "graph/dims.h"
#include "graph/ir/ir.h"

enum { TERN__TRACE_FUNCTION, TERN__TRACE_MODE, TERN__TRACE_BODY };

/* A place where the program read a size as a number. */
typedef struct tern__pin {
  char *text; /* owned: what, where */
  uint32_t dims;
} tern__pin;

typedef struct tern__capture { /* BODY: a value from outside */
  tern_tensor *outer;          /* a reference */
  uint32_t value;              /* of this graph */
} tern__capture;

typedef struct tern__tracer {
  struct tern__tracer *outer; /* BODY: the trace around it */
  tern__graph *g;
  int kind;
  const char *name;       /* of the function; borrowed */
  const tern__dims *dims; /* NULL: all sizes are numbers */
  uint32_t pinned;        /* variable sizes that were read */
  tern__pin *pins;
  int n_pins;
  tern_tensor **current; /* for each of g's variables: a symbolic tensor, one reference */
  uint32_t n_current;
  tern__capture *captures;
  int n_captures;
  struct tern__constant { /* open addressing over eager tensors */
    const tern_tensor *tensor;
    uint32_t value;
  } * constant;
  uint32_t n_constants, constant_capacity;
  struct tern__bound {             /* variables that stand for operands here */
    tern_tensor *variable, *value; /* value: symbolic, one reference */
    bool local;                    /* BODY: nothing outside changes */
  } * bound;
  int n_bound;
  struct tern__draws *draws; /* BODY: what becomes of random draws (control.h); NULL: nothing */
  bool drew, fresh;          /* random numbers are drawn here; new ones, not those of another run */
  bool in_turn;              /* a control node draws new ones: draws from now on must wait for it */
  int inner;                 /* functions that are being called inside each other */
  tern__repeat repeat;       /* what is being made now */
  uint16_t n_repeats;        /* so far */
  bool quiet;                /* prints are left out */
  uint32_t refs;             /* its ghosts, whoever made it, sessions */
  struct tern__mode *mode;   /* MODE: what graph.c keeps beside (mode.h) */
} tern__tracer;

/* A trace of a new graph; NULL with the error set. It does not become the thread's. */
tern__tracer *tern__tracer_new(int kind, const char *name);
/* Ends the trace; the graph is returned, not freed. Symbolic tensors of it become unusable. */
tern__graph *tern__tracer_finish(tern__tracer *trace);
/* Keeps the tracer itself, not its graph. */
void tern__tracer_ref(tern__tracer *trace);
void tern__tracer_unref(tern__tracer *trace);
/* Make it the thread's, and what was before again. */
typedef struct tern__tracer_mark {
  tern__tracer *trace;
  uint32_t hook, tapes;
} tern__tracer_mark;
tern__tracer_mark tern__tracer_enter(tern__thread *t, tern__tracer *trace, bool hide_tapes);
void tern__tracer_leave(tern__thread *t, tern__tracer_mark before);

/* A new input of the graph as a symbolic tensor borrowed from the scope. */
tern_tensor *tern__tracer_input(tern__tracer *trace, tern_dtype dtype, int rank, const int64_t *shape,
                                struct tern__device *device);
/* The number of t's value in the trace's graph: leaves are made for eager tensors, captures for those of outer traces.
   TERN__IR_NONE with the error set; TERN_NONE gives TERN__IR_NONE without. */
uint32_t tern__tracer_value(tern__tracer *trace, tern_tensor *t);
/* A symbolic tensor for a value, borrowed from the scope. */
tern_tensor *tern__tracer_tensor(tern__tracer *trace, uint32_t value);
/* The variable's value here: a symbolic tensor, borrowed from the trace. */
tern_tensor *tern__tracer_variable(tern__tracer *trace, tern_tensor *variable);
/* From now on the variable is this symbolic tensor here; assigning to it changes nothing outside. */
tern_rc tern__tracer_bind(tern__tracer *trace, tern_tensor *variable, tern_tensor *value);
/* It is bound, and to this body alone. */
void tern__tracer_keep(tern__tracer *trace, const tern_tensor *variable);
/* What a graph's variables end with goes into g->variable[].value. */
void tern__tracer_close_variables(tern__tracer *trace);
/* Installs the listener (idempotent). */
void tern__tracer_install(void);
#endif
