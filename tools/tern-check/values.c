/* What the inputs hold: random numbers in the range that the op is interesting in, mixed with the numbers that break
   things. */
#include "check.h"
#include <math.h>
#include <string.h>

static uint64_t next(uint64_t *state) { /* splitmix64 (Steele, Lea, Flood, 2014) */
  uint64_t z = *state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

static double uniform(uint64_t *state) { return (double)(next(state) >> 11) * 0x1p-53; }
static bool is_float(uint32_t dtype) { return dtype >= TERN_F16; }
static bool is_signed(uint32_t dtype) { return dtype >= TERN_I8 && dtype <= TERN_I64; }
static uint32_t bits_of(uint32_t dtype) { return 8 * (uint32_t)nest_item_size(dtype); }

static tern_word special_float(uint64_t *state, uint32_t fill) {
  static const double any[] = {0, -0.0, 1, -1, 0.5, -0.5, 1.5, 2.5, -2.5, 3, 1e4, -1e4, INFINITY, -INFINITY, NAN};
  static const double unit[] = {0, -0.0, 1, -1, 0.5, -0.5, 0.25, 0.999, 1.5, NAN};
  if (fill == FILL_UNIT) return (tern_word){.f = unit[next(state) % (sizeof unit / sizeof *unit)]};
  return (tern_word){.f = any[next(state) % (sizeof any / sizeof *any)]};
}

static tern_word float_value(uint64_t *state, uint32_t fill) {
  const double u = uniform(state), s = 2 * u - 1;
  switch (fill) {
  case FILL_UNIT: return (tern_word){.f = s};
  case FILL_POSITIVE: return (tern_word){.f = 1e-3 + 30 * u * u};
  case FILL_SMALL: return (tern_word){.f = s};
  case FILL_TIES: return (tern_word){.f = floor(s * 6) / 2};
  case FILL_EXPONENT: return (tern_word){.f = 6 * s};
  case FILL_RANGE: return (tern_word){.f = ldexp(s, (int)(next(state) % 72))};
  case FILL_WIDE: return (tern_word){.f = s * 1000};
  default: return (tern_word){.f = next(state) % 4 ? s * 8 : s * 80};
  }
}

static tern_word int_value(uint64_t *state, uint32_t dtype, uint32_t fill, bool special) {
  const uint64_t random = next(state);
  const int64_t small = (int64_t)(random % 17) - 8;
  if (dtype == TERN_BOOL) return (tern_word){.u = random >> 20 & 1};
  if (fill == FILL_SHIFT)
    return (tern_word){.i = (int64_t)(random % (bits_of(dtype) + 5)) - (is_signed(dtype) ? 2 : 0)};
  if (fill == FILL_EXPONENT) return (tern_word){.i = is_signed(dtype) ? small / 2 : (int64_t)(random % 9)};
  if (fill == FILL_SMALL || fill == FILL_TIES)
    return (tern_word){.i = is_signed(dtype) ? small : (int64_t)(random % 9)};
  if (special && random >> 40 & 1) {
    const uint64_t top = UINT64_C(1) << (bits_of(dtype) - 1);
    const uint64_t edge[] = {0, 1, UINT64_MAX, top, top - 1, 2, 7};
    return (tern_word){.u = edge[random % 7]};
  }
  return (tern_word){.u = random >> (random % 3 * 16)};
}

static tern_word value(uint64_t *state, const operand *o, bool special, int64_t index_size) {
  if (o->fill == FILL_INDEX) return (tern_word){.i = (int64_t)(next(state) % (uint64_t)(2 * index_size)) - index_size};
  if (o->fill == FILL_TENTH) return (tern_word){.f = o->dtype == TERN_F16 ? 0.01 : 0.1};
  if (!is_float(o->dtype)) return int_value(state, o->dtype, o->fill, special);
  if (special && next(state) % 5 == 0) {
    const tern_word w = special_float(state, o->fill);
    if (!o->finite || isfinite(w.f)) return w;
  }
  return float_value(state, o->fill);
}

void fill_inputs(const problem *p, unsigned char *image) {
  uint64_t state = p->seed * 0x632be59bd9b4e019u + p->op;
  for (int i = 0; i < p->n_in; i++) {
    const operand *o = &p->arg[i];
    if (o->kind != TERN_V_IN || o->same_as != i) continue;
    for (int64_t k = 0; k < o->count; k++) {
      const bool indexed = p->op == TERN_OP_GATHER || p->op == TERN_OP_SCATTER;
      const tern_word w = value(&state, o, p->special, indexed ? p->size[1] : 1);
      eval_store(image + o->at, o->low + k, o->dtype, eval_fit(o->dtype, w));
    }
  }
}
