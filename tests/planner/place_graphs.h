/* Graphs to place, for the test and the benchmark of placement: small random ones, and large ones of known shapes. */
#ifndef TERN_TESTS_PLACE_GRAPHS_H_
#define TERN_TESTS_PLACE_GRAPHS_H_
#include "graph/passes/place.h"

enum { PLACE_GRAPH_NODES = 1024, PLACE_GRAPH_VALUES = 2048, PLACE_GRAPH_INPUTS = 4096, PLACE_GRAPH_DEVICES = 3 };
typedef enum { PLACE_CHAIN, PLACE_WIDE, PLACE_LAYERED, PLACE_TRANSFORMER, PLACE_SHAPES } place_shape;

typedef struct place_graph {
  tern__place_problem problem; /* its arrays are these */
  tern__place_device device[PLACE_GRAPH_DEVICES];
  tern__place_value value[PLACE_GRAPH_VALUES];
  uint64_t time[PLACE_GRAPH_NODES * PLACE_GRAPH_DEVICES];
  int32_t pin[PLACE_GRAPH_NODES], group[PLACE_GRAPH_NODES];
  uint32_t in_first[PLACE_GRAPH_NODES + 1], in[PLACE_GRAPH_INPUTS];
} place_graph;

uint64_t place_random(uint64_t *state); /* splitmix64 */
/* 1 to 12 nodes, 1 to 3 devices: capabilities, pins, groups, launch costs, transfers from nearly free to ruinous. */
void place_graph_random(place_graph *g, uint64_t *state);
/* n nodes on 3 devices: a host, one fast for large nodes, one that can do half of them. */
void place_graph_shaped(place_graph *g, place_shape shape, uint32_t n, uint64_t *state);
/* The least makespan of all assignments; how many there are in *count (may be NULL). UINT64_MAX when memory is out. */
uint64_t place_graph_optimum(const place_graph *g, uint64_t *count);
#endif
