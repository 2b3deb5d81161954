/* The op table and the primitive table. */
#include "device/device.h"
#include "ops/table.h"
#include "ops/update.h"
#include "ops/write.h"
#include <string.h>

static const tern__op *const ops[] = {
    NULL,
#define OP(name) &tern__op_##name,
#include "ops/names.def"
#undef OP
};

_Static_assert(TERN__N_END <= TERN__FAST_OPS, "the fast path has a row for each op");

static const tern__prim prims[] = {
#define PRIM(id, num, inputs, k, types) {#id, num, inputs, TERN_K_##k, TERN_D_##types},
    TERN_PRIMS(PRIM)
#undef PRIM
};
enum { N_PRIMS = sizeof prims / sizeof *prims };

const tern__op *tern__op_at(int i) { return i > 0 && i < TERN__N_END ? ops[i] : NULL; }

const tern__op *tern__op_named(const char *name) {
  for (int i = 1; i < TERN__N_END; i++)
    if (!strcmp(ops[i]->name, name)) return ops[i];
  return NULL;
}

const tern__op *tern__op_find(const char *name) {
  static const tern__op *const inner[] = {&tern__op_sgd_update,     &tern__op_adam_update, &tern__op_rmsprop_update,
                                          &tern__op_adagrad_update, &tern__op_lion_update, &tern__op_empty,
                                          &tern__op_write};
  const tern__op *op = tern__op_named(name);
  for (size_t i = 0; i < sizeof inner / sizeof *inner && !op; i++)
    if (!strcmp(inner[i]->name, name)) op = inner[i];
  return op;
}

const tern__prim *tern__prim_at(int i) { return i >= 0 && i < N_PRIMS ? &prims[i] : NULL; }

const tern__prim *tern__prim_of(uint32_t number) {
  for (int i = 0; i < N_PRIMS; i++)
    if (prims[i].number == number) return &prims[i];
  return NULL;
}

/* One entry a primitive, for single nodes. Numbers above the named ops' so that classes never meet. */
static const tern__op nodes[] = {
#define PRIM(id, num, inputs, k, types) \
  {.name = #id,                         \
   .family = "primitive",               \
   .prim = num,                         \
   .number = 1000 + num,                \
   .dtypes = TERN_D_##types,            \
   .lower = tern__lower_prim},
    TERN_PRIMS(PRIM)
#undef PRIM
};

const tern__op *tern__op_of_prim(uint32_t prim) {
  const tern__prim *p = tern__prim_of(prim);
  return p ? &nodes[p - prims] : NULL;
}
