/* What a launch reads and writes (touch.h). */
#include "touch.h"
#include "dot_static.h"
#include <stdlib.h>
#include <string.h>

/* The value whose argument v lies in; NULL: none */
static const tern_value *home_of(const tern_region *r, const tern_value *v) {
  if (v->kind == TERN_V_VIEW) v = &r->values[v->slot];
  return v->kind == TERN_V_IN || v->kind == TERN_V_OUT ? v : NULL;
}

cpu_touch *touch_new(const tern_region *r, uint64_t workspace) {
  cpu_touch *const t = calloc(1, sizeof *t + r->n_values * sizeof *t->view);
  if (!t) return NULL;
  t->n_args = r->n_args;
  t->workspace = workspace;
  for (uint32_t i = 0; i < r->n_nodes; i++) {
    const uint32_t op = r->nodes[i].op;
    t->library |= op == TERN_OP_DOT || (op >= TERN_OP_CONV && op <= TERN_OP_CONV_DW);
    t->sums_by_thread |= op == TERN_OP_CONV_DW;
  }
  for (uint32_t i = 0; i < r->n_values; i++) {
    const tern_value *const v = &r->values[i], *const home = home_of(r, v);
    if (!home) continue;
    touch_view *const w = &t->view[t->n_views++];
    *w = (touch_view){.slot = home->slot,
                      .rank = v->rank,
                      .item = (uint32_t)cpu_item_size(v->dtype),
                      .dtype = v->dtype,
                      .written = home->kind == TERN_V_OUT,
                      .offset = v->kind == TERN_V_VIEW ? v->offset : 0};
    if (home->layout) {
      const int64_t elements = cpu_static_elements(home->layout);
      w->bytes = elements ? elements * (int64_t)sizeof(float) : -1;
      continue;
    }
    memcpy(w->shape, v->shape, sizeof w->shape);
    memcpy(w->stride, v->stride, sizeof w->stride);
  }
  return t;
}

/* The span of a view whose argument is at 0 */
static touch_span span_of(const touch_view *v, const tern_word *words) {
  touch_span s = {.written = v->written};
  if (v->bytes) {
    s.hi = v->bytes > 0 ? (uintptr_t)v->bytes : UINTPTR_MAX / 4;
    return s;
  }
  int64_t lo = TERN_LIT(v->offset, words), hi = lo + 1, period = 0, rows = 0;
  for (uint32_t d = 0; d < v->rank; d++) {
    const int64_t stride = TERN_LIT(v->stride[d], words), reach = (TERN_LIT(v->shape[d], words) - 1) * stride;
    const int64_t step = reach ? (stride < 0 ? -stride : stride) : 0;
    if (reach < 0)
      lo += reach;
    else
      hi += reach;
    if (step > period) {
      period = step;
      rows = reach < 0 ? -reach : reach;
    }
  }
  s.lo = (uintptr_t)(lo * v->item);
  s.hi = (uintptr_t)(hi * v->item);
  if (hi - lo - rows < period) { /* rows with gaps between them */
    s.period = (uintptr_t)(period * v->item);
    s.width = (uintptr_t)((hi - lo - rows) * v->item);
  }
  return s;
}

void touch_spans(const tern_kernel *k, const tern_launch *l, touch_span *span) {
  const cpu_touch *const t = k->touch;
  memset(span, 0, (t->n_args + 1) * sizeof *span);
  for (uint32_t i = 0; i < t->n_views; i++) {
    const touch_view *const v = &t->view[i];
    if (v->slot >= l->n_args) continue;
    const uintptr_t base = (uintptr_t)cpu_arg(l, v->slot);
    touch_span one = span_of(v, l->words), *const s = &span[v->slot];
    one.lo += base;
    one.hi += base;
    if (s->lo == s->hi) {
      *s = one;
      continue;
    }
    const bool same = s->lo == one.lo && s->hi == one.hi && s->period == one.period && s->width == one.width;
    s->written |= one.written;
    if (same) continue;
    s->lo = one.lo < s->lo ? one.lo : s->lo;
    s->hi = one.hi > s->hi ? one.hi : s->hi;
    s->period = s->width = 0;
  }
  uint64_t bytes = t->workspace;
  if (bytes == UINT64_MAX) bytes = k->workspace ? k->workspace(k, l->words) : 0;
  if (!l->workspace.mem) bytes = 0;
  const uintptr_t at = (uintptr_t)l->workspace.mem + l->workspace.offset;
  span[t->n_args] = (touch_span){.lo = at, .hi = at + bytes, .written = true};
}

bool touch_meet(const touch_span *a, const touch_span *b) {
  if (a->lo >= b->hi || b->lo >= a->hi || a->lo == a->hi || b->lo == b->hi) return false;
  if (a->period != b->period || !a->period) return true;
  const uintptr_t p = a->period, gap = b->lo % p >= a->lo % p ? b->lo % p - a->lo % p : p - (a->lo % p - b->lo % p);
  return gap < a->width || gap + b->width > p; /* columns of b begin within those of a, or reach the next row's */
}
