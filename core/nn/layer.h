/* Layers inside. A kind of layer is one table: its options, how it makes weights, what it computes. The options are a
   struct and a list of its fields, from which copying, saving and loading follow, so that no kind writes these
   itself. */
#ifndef TERN_NN_LAYER_H_
#define TERN_NN_LAYER_H_
#include <stdbool.h>
#include <tern/nn.h>

typedef struct cJSON cJSON;

/* What goes through the layers beside x. */
typedef struct tern__pass {
  bool training;
  tern_tensor *mask; /* bool [batch, time], or TERN_NONE; a layer leaves here what holds behind it */
} tern__pass;

/* ---- options ---- */

typedef enum tern__field_type {
  TERN__TEXT,
  TERN__INT,
  TERN__LONG,
  TERN__DOUBLE,
  TERN__SHAPE,
  TERN__SEED
} tern__field_type;
typedef struct tern__field { /* of the struct of a kind's parameters */
  const char *key;           /* in files: Keras's name of it where it has one */
  uint8_t type, count;       /* count: of an array; 0 = 1 */
  uint16_t offset;
} tern__field;
#define TERN__FIELD(type, params, member, key) \
  { (key), (type), 0, offsetof(params, member) }
#define TERN__FIELDS(type, params, member, n, key) \
  { (key), (type), (n), offsetof(params, member) }

/* ---- kinds ---- */

enum { TERN__ANY_LAYERS = -1 };
/* params: a struct of the kind's own that holds what its constructor takes: positional ones, and opts, which begin as
   tern_layer_opts does (at byte `opts`; their three fields are common to all kinds and not among `field`). */
typedef struct tern__layer_kind {
  const char *name; /* "Dense": in files and messages */
  const char *stem; /* "dense": of made-up names */
  int inner;        /* layers inside: how many; TERN__ANY_LAYERS */
  size_t params, opts, state;
  const tern__field *field;
  int n_fields;
  /* TERN_OK, or the error says what is wrong with the parameters. NULL: nothing can be. */
  tern_rc (*check)(const void *params);
  /* Makes the weights (tern__layer_weight). in: the shape of x, batch included, -1 where not known; dtype: of x. NULL:
     no weights. */
  tern_rc (*build)(tern_layer *l, tern_shape in, tern_dtype dtype);
  /* The result, borrowed from the scope; NULL with the error set. Sizes that may vary (the batch, the time) must not be
     read with tern_dim other than through tern_like. */
  tern_tensor *(*call)(tern_layer *l, tern_tensor *x, tern__pass *p);
  void (*reset)(tern_layer *l); /* states to zero; NULL: it has none */
  void (*end)(tern_layer *l);   /* what is in `state`; NULL: nothing to end */
} tern__layer_kind;

struct tern_layer {
  const tern__layer_kind *kind;
  void *params; /* a copy, texts included */
  void *state;  /* kind->state bytes, zeroed; NULL: none */
  char *name;   /* owned; NULL: not yet given */
  tern_layer *parent;
  tern_layer **inner; /* owned */
  int n_inner;
  tern_tensor **weight; /* owned, in Keras's order */
  bool *fixed;          /* of each: never trained */
  int n_weights;
  bool built, taken;
};

/* Owned; NULL with the error set. params are copied. inner: taken over, also when the call fails; one that is NULL
   makes it fail. */
tern_layer *tern__layer_new(const tern__layer_kind *kind, const void *params, tern_layer *const *inner, int n_inner);
/* An unbuilt layer like l, and of layers like those inside. */
tern_layer *tern__layer_copy(const tern_layer *l);
static inline const tern_layer_opts *tern__layer_common(const tern_layer *l) {
  return (const tern_layer_opts *)(const void *)((const char *)l->params + l->kind->opts);
}
/* A number that reads back as v to the last bit; "NaN", "Infinity" and "-Infinity" as texts. */
cJSON *tern__json_double(double v);
/* A layer by its kind and an object of its options, as files hold it (layer_json.c). */
cJSON *tern__layer_to_json(const tern_layer *l);
tern_layer *tern__layer_from_json(const cJSON *json, const tern_load_opts *opts);
/* All kinds (kinds.def). */
const tern__layer_kind *tern__layer_kind_named(const char *name);

/* A new weight, in build. otherwise: the initialiser where `initializer` is NULL. NULL with the error set. */
tern_tensor *tern__layer_weight(tern_layer *l, const char *name, tern_shape shape, tern_dtype dtype,
                                const char *initializer, const char *otherwise, bool frozen);
/* Makes the weights, if that was not done. Errors name the layer. */
tern_rc tern__layer_build(tern_layer *l, tern_shape in, tern_dtype dtype);
/* The layer's result: builds first, and names the layer in errors. All calls of layers go through here. */
tern_tensor *tern__layer_run(tern_layer *l, tern_tensor *x, tern__pass *p);
/* A size of x for weights: an error that names the axis when it is not known. axis: may be negative. */
tern_rc tern__layer_size(tern_shape in, int axis, int64_t *size);
void tern__layer_free(tern_layer *l);
/* Gives made-up names to the layers that have none, unique among those inside `l`. */
tern_rc tern__layer_name_inner(tern_layer *l);
void tern__layer_reset(tern_layer *l);
/* "padding": one of names[] (NULL at the end); text NULL is the first. -1 with an error that lists them. */
int tern__one_of(const char *what, const char *text, const char *const *names);

/* activation.c: TERN_OK, or an error that lists the names; NULL is linear. */
tern_rc tern__activation_check(const char *name);
/* initializer.c: the same; NULL is the weight's own. */
tern_rc tern__initializer_check(const char *name);

/* ---- layers made of layers (chain.c) ---- */

extern const tern__layer_kind tern__kind_chain;
#endif
