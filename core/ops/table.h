/* The ops by name: tern__op_add and so on, and their numbers. */
#ifndef TERN_OPS_TABLE_H_
#define TERN_OPS_TABLE_H_
#include "ops/op.h"

enum {
  TERN__N_none = 0,
#define OP(name) TERN__N_##name,
#include "ops/names.def"
#undef OP
  TERN__N_END
};
#define OP(name) extern const tern__op tern__op_##name;
#include "ops/names.def"
#undef OP
#endif
