/* From an op on tensors to a region for a backend. A request holds one op with numbers: operands, sizes, attributes.
   Canonicalising it merges dimensions; what is left of it without the numbers is its class (the key of a compiled
   kernel); the numbers become launch words. The builder turns a class into a tern_region. */
#ifndef TERN_REGION_REGION_H_
#define TERN_REGION_REGION_H_
#include "device/memory.h"
#include <tern/tensor.h>

#define TERN__MAX_ARGS 12 /* operands of a request: inputs, then outputs */
#define TERN__MAX_SIZES 12
#define TERN__MAX_ATTRS 8
#define TERN__ONE 0xff /* an operand's dimension that is 1 and broadcasts */

enum {
  TERN__ROLE_MAP = 0,     /* merged with its neighbours, dropped when 1 */
  TERN__ROLE_REDUCED = 1, /* merged with other reduced ones; one stays */
  TERN__ROLE_BATCH = 2,   /* as MAP */
  TERN__ROLE_FIXED = 3    /* never touched */
};

struct tern__op;
struct tern__device;

typedef struct tern__operand {
  uint8_t kind; /* TERN_V_IN, TERN_V_OUT or TERN_V_PARAM */
  uint8_t dtype, rank;
  uint8_t same_as; /* number of an earlier operand that is the same memory in the same way; else its own number */
  uint8_t alias;   /* OUT: number of the IN operand that is the same memory in the same way, TERN__ONE if none */
  uint8_t dim[TERN_MAX_RANK];            /* index into size[], or TERN__ONE */
  int64_t stride[TERN_MAX_RANK], offset; /* elements from the storage's start */
  tern__storage *storage;
  tern_word value; /* PARAM */
  const tern_tensor
      *weak; /* PARAM: the host scalar that it came from; NULL: an attribute; TERN_NONE: read from memory */
} tern__operand;

typedef struct tern__request {
  const struct tern__op *op;
  struct tern__device *device;
  uint8_t n_in, n_out, n_sizes, n_attrs;
  uint8_t
      n_space;   /* size[0..n_space) are dims that every operand begins with (or has as ONE): those are canonicalised */
  uint8_t dtype; /* what the op computes in */
  uint8_t want[TERN__MAX_ARGS]; /* dtype into which an input is cast first; 0 = as it is */
  uint8_t role[TERN__MAX_SIZES];
  int64_t size[TERN__MAX_SIZES];
  tern_word attr[TERN__MAX_ATTRS]; /* compiled in */
  tern__operand arg[TERN__MAX_ARGS];
} tern__request;

/* A region that owns its arrays, in one allocation; ended by free(). */
typedef struct tern__region tern__region;
struct tern__region {
  tern_region r;
  /* arrays follow */
};

#define TERN__KEY_BYTES 320
/* Everything about a request that a kernel depends on, and nothing else. */
typedef struct tern__class_key {
  uint16_t bytes;
  uint8_t data[TERN__KEY_BYTES];
} tern__class_key;

/* canonical.c */
/* Merge and drop dimensions, mark duplicates, make rank at least 1. */
void tern__canonicalise(tern__request *q);
/* The key of a canonical request. */
void tern__class_of(const tern__request *q, tern__class_key *key);
/* The launch words, TERN__MAX_WORDS at most: sizes, then each operand's word strides or PARAM value. Returns how
   many. */
#define TERN__MAX_WORDS (TERN__MAX_SIZES + TERN__MAX_ARGS * TERN_MAX_RANK)
uint32_t tern__words(const tern__request *q, tern_word *words);
/* Arguments: one for each IN or OUT operand that is not a duplicate. Returns how many. */
uint32_t tern__args(const tern__request *q, tern_arg *args);
/* Whether stride d of operand a is compiled in (then it is 0 or 1 as it stands). */
bool tern__stride_is_literal(const tern__request *q, const tern__operand *a, int d);
/* Whether every offset of the request's operands fits int32. */
bool tern__fits_int32(const tern__request *q);

/* build.c */
typedef struct tern__builder tern__builder;
/* The region of a canonical request's class, by its op's lowering. NULL with the error set. Owned: free(). */
tern__region *tern__lower(const tern__request *q);

/* A region of several requests, not canonical: the ops of a fused group. Sizes are launch words 0 .. n_sizes - 1, then
   come the words that the arguments' strides and the PARAMs name. The values of one connected component have one rank;
   position p of them has size first_size + p. */
#define TERN__GROUP_ONE UINT16_MAX
enum { TERN__GROUP_ARG = 1, TERN__GROUP_RESULT, TERN__GROUP_CONST, TERN__GROUP_PARAM, TERN__GROUP_VIEW };
typedef struct tern__group_arg {
  uint8_t kind, dtype, rank;
  uint8_t literal;              /* bit d: stride[d] is compiled in */
  int32_t alias;                /* OUT: the IN argument that is the same memory, or -1 */
  uint32_t first_word;          /* of the strides that are not literal */
  uint16_t size[TERN_MAX_RANK]; /* number of a size, or TERN__GROUP_ONE */
  int64_t stride[TERN_MAX_RANK];
  int64_t offset;  /* of a view, in elements */
  uint64_t layout; /* packed; only with `fixed` */
} tern__group_arg;
typedef struct tern__group_operand {
  uint8_t how, out, dtype;
  uint16_t view;   /* VIEW: number of the view of that member's result */
  uint32_t index;  /* ARG: argument; RESULT, VIEW: member (and its output `out`); PARAM: word */
  tern_word value; /* CONST */
} tern__group_operand;
typedef struct tern__group_member {
  const tern__request *q;
  uint16_t first_size;               /* of its component */
  uint8_t rank;                      /* of its component */
  uint8_t position[TERN__MAX_SIZES]; /* of each of q's dimensions; those of an anchor's own (K of a DOT) are not used */
  tern__group_operand in[TERN__MAX_ARGS];
  int32_t out_arg[TERN__MAX_ARGS]; /* argument of each output; -1: used inside only */
} tern__group_member;
typedef struct tern__group {
  tern__group_member *member;
  tern__group_arg *arg, *view; /* views: of results in another component, which lie dense there */
  uint32_t n_members, n_args, n_views, n_sizes, n_words, flags;
  const char *hint; /* of a single composite, else NULL */
  const tern_word *fixed; /* the launch words: sizes and strides are compiled in as those; NULL: they are words */
} tern__group;
/* Members in an order in which each comes after those whose results it reads. NULL with the error set. Owned:
   free(). */
tern__region *tern__lower_group(const tern__group *group);
/* One node without attributes, with literal sizes: values 0 .. n - 1 are its inputs, value n its output, all of them
   arguments. NULL with the error set. Owned: free(). */
tern__region *tern__lower_node(uint32_t prim, int n, const tern_value *value);

/* text.c: the region as lines of text, malloc'ed; NULL when memory is exhausted. */
char *tern__region_text(const tern_region *r);

/* What a lowering may do. Values are numbers; -1 (after a failure) goes in and comes out. A value is "full" or has
   literal 1 where it was reduced; maps broadcast. */
int tern__b_in(tern__builder *b, int i); /* input i, cast to what the request wants */
int tern__b_const(tern__builder *b, tern_dtype dtype, double value);
int tern__b_const_int(tern__builder *b, tern_dtype dtype, int64_t value);
int tern__b_map(tern__builder *b, uint32_t prim, tern_dtype out, int n, const int *in);
int tern__b_map1(tern__builder *b, uint32_t prim, int x); /* out: x's dtype, or BOOL for predicates */
int tern__b_map2(tern__builder *b, uint32_t prim, int x, int y);
int tern__b_where(tern__builder *b, int condition, int x, int y);
int tern__b_cast(tern__builder *b, int x, tern_dtype dtype);                /* x itself when it has it */
int tern__b_reduce(tern__builder *b, uint32_t prim, int x, tern_dtype out); /* over the request's reduced dims */
int tern__b_count(tern__builder *b, int x, tern_dtype dtype);  /* how many elements of x one reduction takes in */
int tern__b_iota(tern__builder *b, int dim, tern_dtype dtype); /* full along dim, 1 elsewhere */
int tern__b_rng(tern__builder *b, int key, int counter, uint32_t stream); /* U32, full */
int tern__b_node(tern__builder *b, uint32_t prim, int n, const int *in, int like_out, int n_attrs,
                 const tern_word *attrs);
/* any primitive, with output like_out's shape and dtype */
void tern__b_out(tern__builder *b, int o, int value); /* output o is that value (cast when dtypes differ) */
const tern__request *tern__b_request(const tern__builder *b);
tern_dtype tern__b_dtype(const tern__builder *b, int value);
#endif
