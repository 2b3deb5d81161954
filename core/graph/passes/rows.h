/* Rows of a loop's body. Where trip i computes each row of its states and slices (index k of their first axis) from row
   k alone and from what is the same for all, as a recurrent layer does with the examples of a batch, the loop falls
   into parts that know nothing of each other. Several threads then run all trips of a part each, where else each of a
   trip's small kernels would wait for all threads. */
#ifndef TERN_GRAPH_PASSES_ROWS_H_
#define TERN_GRAPH_PASSES_ROWS_H_
#include "graph/ir/ir.h"

/* Makes the body of a loop over slices (sweep.h) one of rows / parts rows, marks those operands that have rows in the
   node's attributes, and sets its number of parts, where the device can run parts side by side and it pays. Else
   nothing changes. */
tern_rc tern__rows_split(tern__ir_node *loop);
#endif
