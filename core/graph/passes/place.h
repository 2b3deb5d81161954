/* Placement: which device runs each node of a graph, so that the whole ends soonest. A pure algorithm on an abstract
   graph: nodes with a time on each device, values with a size, a link between each device and the host. What a
   placement takes is told by one deterministic list scheduler, tern__place_simulate; the search (place.c) and
   whoever wants to check it use the same. */
#ifndef TERN_GRAPH_PASSES_PLACE_H_
#define TERN_GRAPH_PASSES_PLACE_H_
#include "tern/backend.h"
#include <stdbool.h>

#define TERN__PLACE_NEVER UINT64_MAX /* a node's time on a device that cannot run it */
enum { TERN__PLACE_MAX_DEVICES = 64 };

/* How a device is reached from the host: one transfer of b bytes takes link_ns + b / link_bandwidth, and a link carries
   one transfer at a time. Both 0: the device works in host memory and has no link. A bandwidth of 0 has no limit. */
typedef struct tern__place_device {
  uint64_t link_bandwidth, link_ns; /* bytes a second; ns */
} tern__place_device;

/* A value: what a node makes (it is ready when the node ends), or an input of the graph. */
typedef struct tern__place_value {
  int32_t node; /* who makes it; -1: an input of the graph */
  int32_t home; /* input: the device where it lives at the start; -1: it is everywhere (a constant) */
  int32_t out;  /* the device where it has to be at the end; -1: anywhere, or nobody wants it */
  uint64_t bytes;
} tern__place_value;

/* All arrays are the caller's. Nodes are in topological order: a node reads values of lower nodes and inputs. Times
   above 2^40 ns (18 minutes) count as that. */
typedef struct tern__place_problem {
  uint32_t n_nodes, n_devices, n_values;
  const tern__place_device *devices;
  const uint64_t *time;     /* [n_nodes][n_devices], ns; TERN__PLACE_NEVER: cannot run there */
  const int32_t *pin;       /* [n_nodes] the device that the user asked for, -1: free; NULL: all are */
  const int32_t *group;     /* [n_nodes] nodes of one number >= 0 share a device, -1: alone; NULL: all are */
  const uint32_t *in_first; /* [n_nodes + 1]: node i reads in[in_first[i]] .. in[in_first[i + 1] - 1] */
  const uint32_t *in;       /* numbers of values */
  const tern__place_value *values;
} tern__place_problem;

/* Zero: the defaults. */
typedef struct tern__place_opts {
  double seconds; /* stop improving after this long; 0: `effort` alone bounds the work, so that answers repeat */
  int effort; /* 0: the default, 3. 1: first answers only; 2: and local search; 3: and branch and bound with a budget;
                 4, 5, .. double the budgets of 3 */
} tern__place_opts;

typedef struct tern__place_report {
  uint64_t makespan, lower_bound; /* ns; no placement can take less than lower_bound */
  int single;                     /* the best device that can run everything by itself, -1: none can */
  uint64_t single_makespan;       /* UINT64_MAX when single is -1 */
  uint32_t copies;                /* of values to devices */
  bool optimal;                   /* proven, under the scheduler */
  uint64_t work;                  /* nodes simulated in all */
} tern__place_report;

/* A device for each node, into assignment[n_nodes]; report may be NULL. The makespan is never above that of the best
   single device. UNSUPPORTED, with the node named: it (with its group and pin) can run nowhere. ARG: the problem is
   malformed. OOM. Errors are recorded. */
tern_rc tern__place_solve(const tern__place_problem *problem, const tern__place_opts *opts, int *assignment,
                          tern__place_report *report);

/* What an assignment takes. Nodes are taken in order of falling upward rank (HEFT; Topcuoglu, Hariri, Wu 2002); each
   goes into the first idle time of its device after its inputs are there. A value goes to a device once, from where it
   was made, when the first reader is taken: over the maker's link, then over the reader's, each in the first idle time.
   start and finish: [n_nodes] ns, copies: how many copies there are; each may be NULL. ARG (recorded): malformed, or a
   node's device cannot run it, is not its pin, or differs from its group's. */
tern_rc tern__place_simulate(const tern__place_problem *problem, const int *assignment, uint64_t *makespan,
                             uint64_t *start, uint64_t *finish, uint32_t *copies);

/* The same for many assignments of one problem, which must outlive the simulator: prepared once. run answers
   UINT64_MAX for an assignment that tern__place_simulate refuses (nothing is recorded). */
typedef struct place tern__place_simulator;
tern_rc tern__place_simulator_new(const tern__place_problem *problem, tern__place_simulator **out);
uint64_t tern__place_simulator_run(tern__place_simulator *simulator, const int *assignment);
void tern__place_simulator_free(tern__place_simulator *simulator); /* NULL is allowed */
#endif
