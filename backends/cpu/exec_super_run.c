/* Superinstructions in a resolved nest: making one from its item, running it on a block. */
#include "exec.h"
#include <string.h>

/* The result goes straight to where it will be stored, if that is contiguous */
static bool aim(r_nest *r, r_list *l, const x_item *it) {
  if (it->direct == X_NONE) return false;
  const r_stream *const s = &r->stream[it->direct];
  const uint8_t item = r->x->stream[it->direct].item;
  if (s->walk || s->lane != item) return false;
  r_inst *const in = &l->inst[l->n++];
  r->n_inst++;
  *in = (r_inst){.kind = I_POINT,
                 .out = (int32_t)it->val,
                 .a = X_NONE,
                 .b = X_NONE,
                 .c = X_NONE,
                 .off = X_NONE,
                 .stream = it->direct,
                 .item = item,
                 .lane = s->lane};
  r->written[it->direct] = true;
  return true;
}

void x_super_emit(r_nest *r, r_list *l, const x_item *it) {
  uint32_t mask = 0;
  for (uint32_t i = 0; i < it->n_in; i++) mask |= (uint32_t)r->splat[it->in[i]] << i;
  const bool one = mask + 1 == 1u << it->n_in, direct = !one && aim(r, l, it);
  int32_t arg[X_LEAVES];
  for (uint32_t i = 0; i < X_LEAVES; i++) arg[i] = it->in[i < it->n_in ? i : 0];
  r_inst *const in = &l->inst[l->n++];
  r->n_inst++;
  *in = (r_inst){.kind = I_SUPER,
                 .out = (int32_t)it->val,
                 .a = arg[0],
                 .b = arg[1],
                 .c = arg[2],
                 .d = arg[3],
                 .e = arg[4],
                 .stream = X_NONE,
                 .super = it->super,
                 .splats = mask,
                 .one = one,
                 .off = direct ? X_NONE : (int64_t)(it->slot * r->reg_step)};
  r->splat[it->val] = one;
}

void x_super_run(const work *w, const r_inst *in, int64_t n) {
  const int32_t arg[X_LEAVES] = {in->a, in->b, in->c, in->d, in->e};
  const float *from[X_LEAVES];
  for (int k = 0; k < X_LEAVES; k++) from[k] = (const float *)(const void *)w->at[arg[k]];
  in->super((float *)(void *)w->at[in->out], from, in->splats, in->one ? 1 : n);
}
