/* Regions for the tests of the plugin kit: a small builder, the well-known composites written out in primitives, and
   random regions. A region owns its arguments' memory, so that any implementation can be run on a copy of it. */
#ifndef TERN_TEST_REGIONS_H_
#define TERN_TEST_REGIONS_H_
#include <stdbool.h>
#include <tern/backend.h>

enum { RB_MAX_VALUES = 160, RB_MAX_NODES = 120, RB_MAX_ARGS = 24, RB_MAX_WORDS = 120, RB_MAX_EDGES = 400 };
enum { RB_DENSE, RB_PADDED, RB_PERMUTED, RB_REVERSED, RB_BROADCAST, RB_LAYOUTS }; /* layouts of an input */

typedef struct rb_arg {
  uint32_t dtype;
  int64_t count, origin; /* elements of storage; element number that the argument points to */
  unsigned char *data;   /* malloc'ed */
} rb_arg;

typedef struct region_builder {
  tern_region region;
  tern_value values[RB_MAX_VALUES];
  tern_node nodes[RB_MAX_NODES];
  uint32_t edges[RB_MAX_EDGES], n_edges, n_attrs;
  tern_word attrs[RB_MAX_NODES], words[RB_MAX_WORDS];
  rb_arg args[RB_MAX_ARGS];
  uint64_t seed;
  bool exact;
  char name[64];
} region_builder;

void rb_init(region_builder *, const char *name, uint64_t seed); /* the arrays live inside: do not move it afterwards */
void rb_free(region_builder *);
uint64_t rb_random(region_builder *);
int64_t rb_sym(region_builder *, int64_t n); /* a size as a launch word */
uint32_t rb_in(region_builder *, uint32_t dtype, uint32_t rank, const int64_t *shape, int layout);
uint32_t rb_in_range(region_builder *, uint32_t dtype, uint32_t rank, const int64_t *shape, int layout, double lo,
                     double hi);
uint32_t rb_const(region_builder *, uint32_t dtype, double x);
uint32_t rb_param(region_builder *, uint32_t dtype, double x);
uint32_t rb_size(region_builder *, uint32_t dtype, uint32_t of, uint64_t dims);
uint32_t rb_view(region_builder *, uint32_t of, uint32_t rank, const int64_t *shape, const int64_t *stride,
                 int64_t offset);
/* Nodes: the result is a TEMP of the broadcast shape; NO_VALUE operands are left out */
enum { RB_NONE = 0xffffffff };
uint32_t rb_map(region_builder *, uint32_t op, uint32_t a, uint32_t b, uint32_t c);
uint32_t rb_cast(region_builder *, uint32_t a, uint32_t dtype);
uint32_t rb_reduce(region_builder *, uint32_t op, uint32_t a, uint64_t dims);
uint32_t rb_iota(region_builder *, uint32_t dtype, uint32_t rank, const int64_t *shape, uint32_t dim);
uint32_t rb_rng(region_builder *, uint32_t rank, const int64_t *shape, uint32_t stream);
/* Turn a computed TEMP into an OUT: of its own memory, or in place over an argument (with the strides of value `like`,
   RB_NONE: dense) */
void rb_out(region_builder *, uint32_t v);
void rb_out_alias(region_builder *, uint32_t v, uint32_t arg, uint32_t like);

/* Copies of all argument memories; args[] are the addresses to hand over */
bool rb_copy_args(const region_builder *, unsigned char **storage, void **args);
int64_t rb_count(const region_builder *, uint32_t v);
/* Fill *b with well-known region number i, of float dtype; false past the last */
bool rb_known(region_builder *, unsigned i, uint32_t dtype, bool in_place);
/* exact: whole numbers and exactly rounded primitives only, so that two implementations agree to the bit */
void rb_random_region(region_builder *, uint64_t seed, bool exact);
#endif
