/* Instances for the planner's tests and benchmark: hard ones with a known optimum, and look-alikes of real networks. */
#ifndef TERN_TESTS_PLANNER_INSTANCES_H_
#define TERN_TESTS_PLANNER_INSTANCES_H_
#include "graph/passes/plan.h"

typedef struct instance {
  tern__buffer *buffers; /* owned; NULL: no memory */
  size_t count, room;
  int64_t now; /* of a network being built: one op a tick */
} instance;

void instance_free(instance *i);

/* The next of a sequence of random numbers. */
uint64_t instance_random(uint64_t *state);

/* A rectangle of width x height cut into `pieces`: the optimum is `height`, with no byte to spare. Cuts go across the
   whole of a piece, or four of them make a pinwheel, which no straight cut takes apart. Of a thousand pieces `gone` are
   left out again, which leaves room. */
instance instance_cut(size_t pieces, int64_t width, uint64_t height, int gone, uint64_t seed);

/* What real programs look like; about `ops` buffers each. */
typedef enum instance_net {
  NET_RESIDUAL,    /* inference: layers in sequence, with skip connections over some of them */
  NET_TRANSFORMER, /* forward and backward: activations live until their layer's gradient */
  NET_BRANCHES,    /* cells of parallel branches that are joined, as in Inception and searched networks */
  NET_RECURRENT,   /* an unrolled LSTM, forward and backward: many small buffers, a few long ones */
  NET_COUNT
} instance_net;
instance instance_network(instance_net net, size_t ops, uint64_t seed);
const char *instance_net_name(instance_net net);

/* NULL when the plan is right: every buffer aligned, no two overlap, the height is the report's and not below its
   bound; else what is wrong (static). */
const char *instance_wrong(const tern__buffer *buffers, size_t count, const tern__plan_opts *opts,
                           const tern__plan_report *report);

#endif
