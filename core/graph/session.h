/* What a session's runs are made of: session.c reads the call and keeps programs, session_cut.c takes the part of the
   graph that a run needs. */
#ifndef TERN_GRAPH_SESSION_H_
#define TERN_GRAPH_SESSION_H_
#include "graph/compile.h"
#include "graph/mode.h"

typedef struct tern__session_form { /* a fed value */
  uint32_t value;
  uint8_t dtype, rank;
  struct tern__device *device;
  int64_t shape[TERN_MAX_RANK];
} tern__session_form;

typedef struct tern__session_program {
  struct tern__session_program *next;
  uint32_t n_feeds, n_fetches, n_inputs;
  tern__session_form *feed;
  uint32_t *fetch; /* values; TERN__IR_NONE: one that needs no run */
  uint32_t *input; /* which feed is input i */
  tern__program *run;
} tern__session_program;

/* One run while it is prepared. */
typedef struct tern__session_request {
  tern_session *session;
  tern__tracer *trace;
  const tern__graph *g;
  const tern_feed *feeds;
  uint32_t n_feeds, n_fetches;
  tern__session_form *feed;
  uint32_t *fetch;
  tern_tensor **given; /* what is fed, plain */
} tern__session_request;

/* Fills in program->run and its inputs. */
tern_rc tern__session_build(const tern__session_request *r, tern__session_program *program);
#endif
