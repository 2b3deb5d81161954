/* Embedding: rows of a table at integer ids, and the mask of what is no padding. */
#include "nn/check.h"
#include "tensor/dtype.h"

typedef struct {
  int64_t words, size;
  tern_embedding_opts opts;
} embedding;

static const tern__field fields[] = {
    TERN__FIELD(TERN__LONG, embedding, words, "input_dim"),
    TERN__FIELD(TERN__LONG, embedding, size, "output_dim"),
    TERN__FIELD(TERN__TEXT, embedding, opts.embeddings_initializer, "embeddings_initializer"),
    TERN__FIELD(TERN__INT, embedding, opts.mask_zero, "mask_zero"),
};

static tern_rc check(const void *params) {
  const embedding *e = params;
  tern_rc rc = tern__check_count("Embedding", "words", e->words, 1);
  if (!rc) rc = tern__check_count("Embedding", "size", e->size, 1);
  return rc ? rc : tern__check_initializer("Embedding", "embeddings_initializer", e->opts.embeddings_initializer);
}

/* float32, whatever the ids are. */
static tern_rc build(tern_layer *l, tern_shape in, tern_dtype dtype) {
  const embedding *e = l->params;
  (void)in;
  (void)dtype;
  return tern__layer_weight(l, "embeddings", TERN_SHAPE(e->words, e->size), TERN_F32, e->opts.embeddings_initializer,
                            "uniform", false)
             ? TERN_OK
             : TERN_E_ARG;
}

static tern_tensor *call(tern_layer *l, tern_tensor *x, tern__pass *p) {
  const embedding *e = l->params;
  if (!tern__is_int(tern_dtype_get(x))) x = tern_cast(x, TERN_I32);
  p->mask = e->opts.mask_zero ? tern_not_equal(x, tern_scalar_int(0)) : TERN_NONE;
  return p->mask ? tern_embedding(l->weight[0], x) : NULL;
}

const tern__layer_kind tern__kind_embedding = {.name = "Embedding",
                                               .stem = "embedding",
                                               .params = sizeof(embedding),
                                               .opts = offsetof(embedding, opts),
                                               .field = fields,
                                               .n_fields = sizeof fields / sizeof *fields,
                                               .check = check,
                                               .build = build,
                                               .call = call};

tern_layer *tern_embedding_layer(int64_t words, int64_t size, const tern_embedding_opts *opts) {
  const embedding e = {.words = words, .size = size, .opts = opts ? *opts : (tern_embedding_opts){0}};
  return tern__layer_new(&tern__kind_embedding, &e, NULL, 0);
}
