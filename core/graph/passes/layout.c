/* Packed arrays. Each product (DOT, CONV and the maps behind it) is compiled for its literal sizes, and the device
   says which arguments it would like in a layout of its own. Constants are packed once, when the program is made;
   programs of the same constant share the packed copy. Results stay packed as far as those that read them ask for the
   same layout, or are maps, which run over packed elements as over any others; where the two sides disagree, a copy is
   put between, as long as it costs less than is gained. Otherwise, and on devices that ask for nothing, everything is
   as without. */
#include "graph/passes/layout.h"
#include "base/alloc.h"
#include "base/log.h"
#include "device/device.h"
#include "device/trace.h"
#include "tensor/dtype.h"
#include <stdlib.h>

/* ---- kernels that a program holds ---- */

struct tern__layout_hold {
  uint32_t n, capacity;
  tern__fixed_kernel **kernel;
};

/* Takes over a reference; false: released, with the error set. */
static bool hold(tern__unit *u, tern__fixed_kernel *k) {
  if (!u->hold) u->hold = tern__calloc(1, sizeof *u->hold);
  tern__layout_hold *h = u->hold;
  if (h && h->n == h->capacity) {
    tern__fixed_kernel **more = tern__realloc(h->kernel, (2 * h->capacity + 8) * sizeof(tern__fixed_kernel *));
    if (more) {
      h->kernel = more;
      h->capacity = 2 * h->capacity + 8;
    }
  }
  if (!h || h->n == h->capacity) {
    tern__fixed_kernel_release(k);
    tern__fail(TERN_E_OOM, "graph: out of host memory to keep a kernel");
    return false;
  }
  h->kernel[h->n++] = k;
  return true;
}

/* ---- packed constants ---- */

typedef struct constant {
  struct constant *next;
  tern_tensor *source, *packed; /* a reference each: while it is here, source's storage is nobody else's */
  int64_t offset, shape[TERN_MAX_RANK], stride[TERN_MAX_RANK];
  uint64_t token;
  uint16_t rank;
} constant;

static struct {
  pthread_mutex_t lock;
  constant *first;
} constants = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Those that only this list refers to go. */
static void sweep(void) {
  constant *gone = NULL;
  pthread_mutex_lock(&constants.lock);
  for (constant **at = &constants.first; *at;) {
    constant *c = *at;
    if (atomic_load_explicit(&c->packed->refs, memory_order_acquire) > 1) {
      at = &c->next;
      continue;
    }
    *at = c->next;
    c->next = gone;
    gone = c;
  }
  pthread_mutex_unlock(&constants.lock);
  while (gone) {
    constant *c = gone;
    gone = c->next;
    tern__unref(c->packed);
    tern__unref(c->source);
    free(c);
  }
}

void tern__layout_release(tern__layout_hold *h) {
  if (!h) return;
  for (uint32_t i = 0; i < h->n; i++) tern__fixed_kernel_release(h->kernel[i]);
  free(h->kernel);
  free(h);
  sweep();
}

/* ---- copies ---- */

static tern_value value_of(const tern__emitter *e, const tern__emit_arg *a, uint8_t kind, uint32_t slot) {
  tern_value v = {.kind = kind, .dtype = a->dtype, .rank = a->rank, .slot = slot, .alias = -1};
  for (int d = 0; d < a->rank; d++) {
    v.shape[d] = tern__emit_size(e, a, d);
    v.stride[d] = v.shape[d] == 1 ? 0 : a->stride[d];
  }
  return v;
}

/* Argument a's array into (or out of) the layout. NULL: the device does not do it (*rc 0), or an error. */
static tern__fixed_kernel *copy_kernel(tern__unit *u, const tern__emitter *e, const tern__emit_arg *a, uint64_t token,
                                       bool out_of, tern__device *d, tern_rc *rc) {
  tern_value from = value_of(e, a, TERN_V_IN, 0), to = value_of(e, a, TERN_V_OUT, 1);
  *(out_of ? &from.layout : &to.layout) = token;
  tern__region *r = tern__lower_node(TERN_OP_COPY, 1, (const tern_value[]){from, to});
  tern__fixed_kernel *k = r ? tern__fixed_kernel_of(d, r, out_of ? "unpack" : "pack") : NULL;
  *rc = k ? TERN_OK : tern__recorded();
  if (!k) return NULL;
  if (k->c.state == TERN__NATIVE) {
    if (hold(u, k)) return k;
    *rc = tern__recorded();
    return NULL;
  }
  tern__fixed_kernel_release(k);
  return NULL;
}

static tern_rc launch_copy(tern__thread *t, tern__device *d, const tern__fixed_kernel *k, tern_tensor *from,
                           uint64_t from_offset, tern_tensor *to) {
  const tern_arg args[] = {{from->storage->mem, from->storage->mem_offset + from_offset},
                           {to->storage->mem, to->storage->mem_offset}};
  tern_launch l = {.args = args, .n_args = 2};
  uint64_t bytes = k->c.workspace;
  tern_rc rc = TERN_OK;
  tern__storage *workspace = NULL;
  tern__plugin_error_clear();
  if (bytes == UINT64_MAX)
    rc = d->api->workspace ? d->api->workspace(d->dev, k->c.kernel, NULL, &bytes) : TERN_E_INTERNAL;
  if (!rc && bytes) {
    workspace = tern__storage_new(t, d, bytes);
    if (!workspace) return tern__recorded();
    l.workspace = (tern_arg){workspace->mem, workspace->mem_offset};
  }
  if (!rc) {
    tern__kernel_ready(d, &k->c);
    tern__queue_lock(d);
    rc = d->launch(d->dev, d->queue, k->c.kernel, &l);
    tern__queue_unlock(d);
    tern__count_launch(t, d);
  }
  if (workspace) tern__storage_unref(workspace); /* same queue: reusable at once */
  return rc ? tern__device_failed(d, rc, "packing a constant") : TERN_OK;
}

static bool same_constant(const constant *c, const tern_tensor *source, const tern_value *v, int64_t offset,
                          uint64_t token) {
  return c->source->storage == source->storage && c->source->device == source->device && c->offset == offset &&
         c->token == token && c->rank == v->rank && !memcmp(c->shape, v->shape, v->rank * sizeof *v->shape) &&
         !memcmp(c->stride, v->stride, v->rank * sizeof *v->stride);
}

/* One reference; NULL with *rc: 0 = the device does not pack it. */
static tern_tensor *packed_constant(tern__unit *u, const tern__emitter *e, const tern__emit_arg *a, uint64_t token,
                                    uint64_t bytes, tern_rc *rc) {
  tern_tensor *source = u->buffer[a->buffer].tensor;
  tern__device *d = source->device;
  const int64_t offset = source->offset + a->offset;
  const tern_value v = value_of(e, a, TERN_V_IN, 0);
  *rc = TERN_OK;
  pthread_mutex_lock(&constants.lock);
  for (constant *c = constants.first; c; c = c->next)
    if (same_constant(c, source, &v, offset, token)) {
      tern_tensor *packed = tern__ref(c->packed);
      pthread_mutex_unlock(&constants.lock);
      return packed;
    }
  pthread_mutex_unlock(&constants.lock);
  tern__fixed_kernel *k = copy_kernel(u, e, a, token, false, d, rc);
  if (!k) return NULL;
  tern__thread *t = tern__thread_get();
  const int64_t size = (int64_t)bytes;
  tern_tensor *packed = t ? tern__new(d, TERN_U8, 1, &size, "graph") : NULL;
  constant *c = packed ? tern__calloc(1, sizeof *c) : NULL;
  *rc = c ? launch_copy(t, d, k, source, (uint64_t)offset * tern__dtype_size[a->dtype], packed)
          : tern__fail(TERN_E_OOM, "graph: out of memory to pack a constant");
  if (*rc) {
    free(c);
    if (packed) tern__unref(packed);
    return NULL;
  }
  *c = (constant){
      .source = tern__ref(source), .packed = tern__ref(packed), .offset = offset, .token = token, .rank = v.rank};
  memcpy(c->shape, v.shape, sizeof c->shape);
  memcpy(c->stride, v.stride, sizeof c->stride);
  pthread_mutex_lock(&constants.lock);
  c->next = constants.first;
  constants.first = c;
  pthread_mutex_unlock(&constants.lock);
  return packed;
}

/* ---- what products ask for ---- */

enum { NOTHING, CONSTANTS, ALL };
typedef struct wish {
  tern__emitter *e;
  uint32_t group;
  uint8_t mode;
  uint64_t *token, *bytes;    /* by argument */
  tern__fixed_kernel *kernel; /* of the mode; held by the unit */
  double gain, cost;          /* seconds: saved with mode ALL; of the copies around it */
} wish;

typedef struct version {              /* what a buffer holds since some step, where that is packed */
  uint32_t buffer, turn, twin, blame; /* blame: the wish that made it so */
  uint64_t token, bytes;
  bool strided, needed; /* the buffer itself has it too; has to */
  tern__emitter *e;
  uint32_t arg; /* of e: how the buffer is seen */
} version;

typedef struct planner {
  tern__unit *u;
  wish *wish;
  uint32_t n_wishes;
  uint32_t *wish_of; /* of each group; TERN__NO: none */
  version *version;
  uint32_t n_versions, version_capacity;
  uint32_t *now, n_now; /* the version that each buffer holds; TERN__NO: nothing packed */
  tern__layout *out;
  uint32_t copy_capacity;
  bool real; /* carry it out */
  tern_rc rc;
} planner;

static bool is_constant(const tern__unit *u, const tern__emit_arg *a) {
  const tern__lbuffer *b = &u->buffer[a->buffer];
  return a->kind == TERN_V_IN && b->place == TERN__PLACE_CONST && b->tensor;
}

/* The wish's kernel with arguments in these layouts (NULL: none). NULL with *rc: 0 = refused. hold: the unit has the
   reference, not the caller. */
static tern__fixed_kernel *fixed_kernel(tern__unit *u, const wish *w, const uint64_t *layout, bool held, tern_rc *rc) {
  tern__region *r = tern__emit_region(w->e, true, layout);
  const uint64_t began = tern__now_ns();
  tern__fixed_kernel *k = r ? tern__fixed_kernel_of(u->group[w->group].device, r, w->e->name) : NULL;
  u->kernel_ms += (double)(tern__now_ns() - began) * 1e-6;
  *rc = k ? TERN_OK : tern__recorded();
  if (!k) return NULL;
  if (k->c.state != TERN__NATIVE) {
    tern__fixed_kernel_release(k);
    return NULL;
  }
  if (!held || hold(u, k)) return k;
  *rc = tern__recorded();
  return NULL;
}

/* Rates where the device declares none: of a core of a server, roughly. */
static double rate_of(uint64_t declared, double usual) { return declared ? (double)declared : usual; }

/* A packed product saves about a third of its time. */
static double gain_of(const tern__unit *u, const wish *w) {
  const tern__request *q = u->op[u->group[w->group].op[0]].q;
  double work = 2;
  const tern__operand *y = &q->arg[q->n_in], *f = &q->arg[1], *x = &q->arg[0];
  for (int d = 0; d < y->rank; d++) work *= y->dim[d] == TERN__ONE ? 1 : (double)q->size[y->dim[d]];
  if (q->op->prim == TERN_OP_DOT) work *= x->dim[x->rank - 1] == TERN__ONE ? 1 : (double)q->size[x->dim[x->rank - 1]];
  for (int d = 1; d < f->rank && q->op->prim != TERN_OP_DOT; d++)
    work *= f->dim[d] == TERN__ONE ? 1 : (double)q->size[f->dim[d]];
  return 0.35 * work / rate_of(u->group[w->group].device->info.flops, 8e10);
}

/* Residuals that are added to a packed result must have its layout. */
static void wish_residuals(wish *w, uint32_t out) {
  const tern__emit_arg *y = &w->e->arg[out];
  for (uint32_t i = 0; i < w->e->n_args; i++) {
    const tern__emit_arg *a = &w->e->arg[i];
    if (a->kind != TERN_V_IN || w->token[i] || a->rank != y->rank || a->dtype != y->dtype ||
        memcmp(a->at, y->at, a->rank))
      continue;
    w->token[i] = w->token[out];
    w->bytes[i] = w->bytes[out];
  }
}

/* Only what is constant is packed, or nothing. */
static tern_rc constants_only(planner *p, wish *w) {
  const uint32_t n = w->e->n_args;
  bool some = false;
  tern_rc rc = TERN_OK;
  for (uint32_t i = 0; i < n; i++) {
    if (!is_constant(p->u, &w->e->arg[i])) w->token[i] = 0;
    some |= w->token[i] != 0;
  }
  w->kernel = some ? fixed_kernel(p->u, w, w->token, true, &rc) : NULL;
  w->mode = w->kernel ? CONSTANTS : NOTHING;
  return rc;
}

static tern_rc ask(planner *p, wish *w) {
  tern__unit *u = p->u;
  const uint32_t n = w->e->n_args;
  tern_rc rc;
  w->token = tern__unit_alloc(u, 2 * n + 1, sizeof *w->token);
  if (!w->token) return TERN_E_OOM;
  w->bytes = w->token + n;
  tern__fixed_kernel *plain = fixed_kernel(u, w, NULL, false, &rc);
  if (!plain) return rc;
  memcpy(w->token, plain->layout, 2 * n * sizeof *w->token);
  tern__fixed_kernel_release(plain);
  bool others = false;
  for (uint32_t i = 0; i < n; i++) {
    if (!w->token[i]) continue;
    others |= !is_constant(u, &w->e->arg[i]) && u->buffer[w->e->arg[i].buffer].place != TERN__PLACE_VARIABLE;
    if (w->e->arg[i].kind == TERN_V_OUT) wish_residuals(w, i);
  }
  if (others) w->kernel = fixed_kernel(u, w, w->token, true, &rc);
  if (rc) return rc;
  w->mode = ALL;
  w->gain = gain_of(u, w);
  return w->kernel ? TERN_OK : constants_only(p, w);
}

/* A device that never asks is asked once, with a product that any such device has a wish for. */
static tern_rc device_asks(tern__device *d, bool *asks) {
  static _Atomic uint8_t known[TERN__MAX_DEVICES]; /* 1: it does not, 2: it does */
  const uint8_t before = atomic_load_explicit(&known[d->index], memory_order_relaxed);
  *asks = before == 2;
  if (before) return TERN_OK;
  tern_value v[3];
  for (int i = 0; i < 3; i++)
    v[i] = (tern_value){.kind = i < 2 ? TERN_V_IN : TERN_V_OUT,
                        .dtype = TERN_F32,
                        .rank = 2,
                        .slot = (uint32_t)i,
                        .alias = -1,
                        .shape = {i == 1 ? 256 : 64, 256},
                        .stride = {256, 1}};
  tern__region *r = tern__lower_node(TERN_OP_DOT, 2, v);
  tern__fixed_kernel *k = r ? tern__fixed_kernel_of(d, r, "matmul") : NULL;
  if (!k) return tern__recorded();
  for (int i = 0; i < 3; i++) *asks |= k->layout[i] != 0;
  tern__fixed_kernel_release(k);
  atomic_store_explicit(&known[d->index], *asks ? 2 : 1, memory_order_relaxed);
  return TERN_OK;
}

/* ---- who has what packed, step by step ---- */

static version *new_version(planner *p, uint32_t buffer, const version *like) {
  if (p->n_versions == p->version_capacity) {
    const uint32_t capacity = 2 * p->version_capacity + 64;
    version *more = tern__realloc(p->version, capacity * sizeof *more);
    if (!more) {
      p->rc = tern__fail(TERN_E_OOM, "graph: out of host memory to lay out arrays");
      return NULL;
    }
    p->version = more;
    p->version_capacity = capacity;
  }
  version *v = &p->version[p->n_versions];
  *v = *like;
  v->buffer = buffer;
  v->twin = TERN__NO;
  p->now[buffer] = p->n_versions++;
  return v;
}

static uint32_t twin_buffer(planner *p, uint64_t bytes, tern__device *d, tern_tensor *packed) {
  tern__unit *u = p->u;
  if (u->n_buffers == u->buffer_capacity) {
    const uint32_t capacity = 2 * u->buffer_capacity;
    tern__lbuffer *more = tern__realloc(u->buffer, capacity * sizeof *more);
    if (!more) {
      p->rc = tern__fail(TERN_E_OOM, "graph: out of host memory to lay out arrays");
      return TERN__NO;
    }
    u->buffer = more;
    u->buffer_capacity = capacity;
  }
  u->buffer[u->n_buffers] = (tern__lbuffer){.place = packed ? TERN__PLACE_CONST : TERN__PLACE_ARENA,
                                            .dtype = TERN_U8,
                                            .same = TERN__NO,
                                            .maker = TERN__NO,
                                            .numel = (int64_t)bytes,
                                            .bytes = bytes,
                                            .device = d,
                                            .tensor = packed};
  return u->n_buffers++;
}

/* The buffer itself is read, in its own layout. */
static void read_strided(planner *p, uint32_t buffer) {
  const uint32_t v = p->now[tern__root(p->u, buffer)];
  if (v != TERN__NO) p->version[v].needed = true;
}

static void written(planner *p, uint32_t buffer) { p->now[tern__root(p->u, buffer)] = TERN__NO; }

/* Both see the buffer in the same way. */
static bool same_view(const tern__emitter *e, const tern__emit_arg *a, const version *v) {
  const tern__emit_arg *b = &v->e->arg[v->arg];
  if (a->rank != b->rank || a->offset != b->offset || a->dtype != b->dtype) return false;
  for (int d = 0; d < a->rank; d++) {
    const int64_t n = tern__emit_size(e, a, d);
    if (n != tern__emit_size(v->e, b, d) || (n > 1 && a->stride[d] != b->stride[d])) return false;
  }
  return true;
}

static void add_copy(planner *p, tern__layout_copy c) {
  tern__layout *l = p->out;
  if (l->n_copies == p->copy_capacity) {
    const uint32_t capacity = 2 * p->copy_capacity + 16;
    tern__layout_copy *more = tern__unit_alloc(p->u, capacity, sizeof *more);
    if (!more) {
      p->rc = TERN_E_OOM;
      return;
    }
    if (l->n_copies) memcpy(more, l->copy, l->n_copies * sizeof *more);
    l->copy = more;
    p->copy_capacity = capacity;
  }
  l->copy[l->n_copies++] = c;
}

static double copy_seconds(const planner *p, const wish *w, uint64_t bytes) {
  const tern__device *d = p->u->group[w->group].device;
  return 2.0 * (double)bytes / rate_of(d->info.bandwidth, 1e10) + 1e-9 * (double)d->info.launch_ns + 1e-6;
}

/* Argument i of a product, wanted packed. */
static void read_packed(planner *p, uint32_t wish_number, uint32_t i, uint32_t turn) {
  wish *w = &p->wish[wish_number];
  tern__emit_arg *a = &w->e->arg[i];
  const uint32_t b = a->buffer, at = p->now[b];
  if (at == TERN__NO || p->version[at].token != w->token[i] || !same_view(w->e, a, &p->version[at])) {
    read_strided(p, b);
    w->cost += copy_seconds(p, w, w->bytes[i]);
    version *v = new_version(p, b,
                             &(version){.turn = turn,
                                        .blame = wish_number,
                                        .token = w->token[i],
                                        .bytes = w->bytes[i],
                                        .strided = true,
                                        .e = w->e,
                                        .arg = i});
    if (!v || !p->real) return;
    v->twin = twin_buffer(p, w->bytes[i], p->u->group[w->group].device, NULL);
    tern__layout_copy c = {.turn = turn,
                           .from = b,
                           .to = v->twin,
                           .from_offset = (uint64_t)a->offset * tern__dtype_size[a->dtype],
                           .before = true};
    tern_rc rc = TERN_OK;
    c.kernel = copy_kernel(p->u, w->e, a, w->token[i], false, p->u->group[w->group].device, &rc);
    if (!c.kernel) p->rc = rc ? rc : tern__fail(TERN_E_INTERNAL, "graph: a layout that was asked for cannot be made");
    if (!p->rc) add_copy(p, c);
  }
  if (p->real && !p->rc) w->e->twin[i] = p->version[p->now[b]].twin;
}

static void read_constant(planner *p, const wish *w, uint32_t i) {
  tern_rc rc;
  tern_tensor *packed = packed_constant(p->u, w->e, &w->e->arg[i], w->token[i], w->bytes[i], &rc);
  if (!packed) {
    p->rc = rc ? rc : tern__fail(TERN_E_INTERNAL, "graph: a layout that was asked for cannot be made");
    return;
  }
  w->e->twin[i] = twin_buffer(p, w->bytes[i], packed->device, packed);
  if (w->e->twin[i] == TERN__NO) tern__unref(packed);
}

static bool open_twins(planner *p, tern__emitter *e) {
  if (!p->real) return true;
  e->twin = tern__unit_alloc(p->u, e->n_args + 1, sizeof *e->twin);
  if (!e->twin) p->rc = TERN_E_OOM;
  for (uint32_t i = 0; e->twin && i < e->n_args; i++) e->twin[i] = TERN__NO;
  return e->twin != NULL;
}

/* A product: what it reads comes first, as it was before it wrote. */
static void walk_product(planner *p, uint32_t number, uint32_t turn) {
  wish *w = &p->wish[number];
  tern__emitter *e = w->e;
  if (!open_twins(p, e)) return;
  for (uint32_t i = 0; i < e->n_args && !p->rc; i++) {
    const tern__emit_arg *a = &e->arg[i];
    if (a->kind != TERN_V_IN) continue;
    if (!w->token[i])
      read_strided(p, a->buffer);
    else if (!is_constant(p->u, a))
      read_packed(p, number, i, turn);
    else if (p->real)
      read_constant(p, w, i);
  }
  for (uint32_t i = 0; i < e->n_args && !p->rc; i++) {
    const tern__emit_arg *a = &e->arg[i];
    if (a->kind != TERN_V_OUT) continue;
    written(p, a->buffer);
    if (!w->token[i]) continue;
    version *v = new_version(
        p, a->buffer,
        &(version){.turn = turn, .blame = number, .token = w->token[i], .bytes = w->bytes[i], .e = e, .arg = i});
    if (!v) return;
    const tern__lbuffer *b = &p->u->buffer[a->buffer];
    v->needed = b->wanted || b->written_part || b->place != TERN__PLACE_ARENA;
    if (p->real) e->twin[i] = v->twin = twin_buffer(p, w->bytes[i], b->device, NULL);
  }
  if (p->real) e->kernel = w->kernel;
}

/* ---- maps ---- */

/* The whole buffer, element after element. */
static bool covers(const planner *p, const tern__emitter *e, const tern__emit_arg *a) {
  return a->rank == 1 && a->offset == 0 && a->dtype == TERN_F32 && a->at[0] < TERN__EMIT_OWN && a->stride[0] == 1 &&
         (uint64_t)tern__emit_size(e, a, 0) * sizeof(float) == p->u->buffer[a->buffer].bytes;
}

/* The packed version that all arrays of the group have in common; TERN__NO: it must work on them as they are. */
static uint32_t common_version(const planner *p, const tern__emitter *e) {
  uint32_t common = TERN__NO;
  for (uint32_t i = 0; i < e->n_args; i++) {
    const tern__emit_arg *a = &e->arg[i];
    if (a->kind == TERN_V_IN && a->rank == 1 && (a->at[0] == TERN__EMIT_NONE || a->stride[0] == 0)) continue;
    if (!covers(p, e, a)) return TERN__NO;
    if (a->kind != TERN_V_IN) continue;
    const uint32_t now = p->now[a->buffer];
    if (now == TERN__NO) return TERN__NO;
    const version *v = &p->version[now], *c = common == TERN__NO ? v : &p->version[common];
    const tern__emit_arg *seen = &v->e->arg[v->arg];
    if (v->bytes != p->u->buffer[a->buffer].bytes || seen->offset || v->token != c->token || !same_view(v->e, seen, c))
      return TERN__NO;
    common = now;
  }
  return common;
}

static bool is_wanted(const tern__unit *u, uint32_t group, uint32_t root) {
  const tern__lgroup *g = &u->group[group];
  for (uint32_t m = 0; m < g->n_ops; m++)
    for (uint32_t o = 0; o < u->op[g->op[m]].n_out; o++) {
      const uint32_t b = u->op[g->op[m]].out[o];
      const tern__lbuffer *x = &u->buffer[b];
      if (tern__root(u, b) == root && (x->wanted || x->written_part || x->place != TERN__PLACE_ARENA)) return true;
    }
  return false;
}

static bool reads_packed(const planner *p, uint32_t group) {
  const tern__unit *u = p->u;
  const tern__lgroup *g = &u->group[group];
  bool packed = false;
  if (g->sibling != TERN__NO || g->rank == 0 || g->anchored) return false;
  for (uint32_t m = 0; m < g->n_ops; m++) {
    const tern__lop *op = &u->op[g->op[m]];
    if (op->kind != TERN__L_MAP || !op->q) return false;
    for (uint32_t i = 0; i < op->n_in; i++)
      packed |= op->in[i] != TERN__NO && p->now[tern__root(u, op->in[i])] != TERN__NO;
  }
  return packed;
}

/* Maps over packed arrays; false: not these. */
static bool walk_maps(planner *p, uint32_t group, uint32_t turn) {
  tern__unit *u = p->u;
  if (!reads_packed(p, group)) return false;
  tern__emitter **e = &p->out->emitter[group];
  if (!*e && ((p->rc = tern__emit_gather(u, group, e)) || !*e)) return false;
  const uint32_t common = common_version(p, *e);
  if (common == TERN__NO || !open_twins(p, *e)) return false;
  for (uint32_t i = 0; i < (*e)->n_args && p->real; i++) {
    tern__emit_arg *a = &(*e)->arg[i];
    if (a->kind == TERN_V_IN && covers(p, *e, a)) (*e)->twin[i] = p->version[p->now[a->buffer]].twin;
    a->alias = -1;
  }
  for (uint32_t i = 0; i < (*e)->n_args && !p->rc; i++) {
    const tern__emit_arg *a = &(*e)->arg[i];
    if (a->kind != TERN_V_OUT) continue;
    version like = p->version[common];
    like.turn = turn;
    like.strided = false;
    like.needed = is_wanted(u, group, a->buffer);
    version *v = new_version(p, a->buffer, &like);
    if (v && p->real) (*e)->twin[i] = v->twin = twin_buffer(p, v->bytes, u->group[group].device, NULL);
  }
  return true;
}

/* ---- the walk ---- */

static void walk_others(planner *p, uint32_t head) {
  const tern__unit *u = p->u;
  for (int write = 0; write < 2; write++)
    for (uint32_t k = head; k != TERN__NO; k = u->group[k].sibling)
      for (uint32_t m = 0; m < u->group[k].n_ops; m++) {
        const tern__lop *op = &u->op[u->group[k].op[m]];
        for (uint32_t i = 0; i < op->n_in && !write; i++)
          if (op->in[i] != TERN__NO) read_strided(p, op->in[i]);
        for (uint32_t o = 0; o < op->n_out && write; o++) written(p, op->out[o]);
      }
}

static int by_turn(const void *a, const void *b) {
  const tern__layout_copy *x = a, *y = b;
  return x->turn != y->turn ? (x->turn > y->turn) - (x->turn < y->turn) : y->before - x->before;
}

static void unpack(planner *p, const version *v) {
  const tern__emit_arg *a = &v->e->arg[v->arg];
  const wish *w = &p->wish[v->blame];
  tern__layout_copy c = {
      .turn = v->turn, .from = v->twin, .to = v->buffer, .to_offset = (uint64_t)a->offset * tern__dtype_size[a->dtype]};
  c.kernel = copy_kernel(p->u, v->e, a, v->token, true, p->u->group[w->group].device, &p->rc);
  if (!c.kernel && !p->rc) p->rc = tern__fail(TERN_E_INTERNAL, "graph: a layout that was asked for cannot be left");
  if (!p->rc) add_copy(p, c);
}

static tern_rc walk(planner *p) {
  const tern__unit *u = p->u;
  p->n_versions = 0;
  memset(p->now, 0xff, p->n_now * sizeof *p->now);
  for (uint32_t i = 0; i < p->n_wishes; i++) p->wish[i].cost = 0;
  for (uint32_t i = 0; i < u->n_order && !p->rc; i++) {
    const uint32_t group = u->order[i], w = p->wish_of[group];
    if (w != TERN__NO && p->wish[w].mode != NOTHING)
      walk_product(p, w, i);
    else if (!walk_maps(p, group, i) && !p->rc)
      walk_others(p, group);
  }
  for (uint32_t k = 0; k < p->n_versions && !p->rc; k++) {
    const version *v = &p->version[k];
    if (!v->needed || v->strided) continue;
    p->wish[v->blame].cost += copy_seconds(p, &p->wish[v->blame], v->bytes);
    if (p->real) unpack(p, v);
  }
  if (p->real && !p->rc && p->out->n_copies) qsort(p->out->copy, p->out->n_copies, sizeof *p->out->copy, by_turn);
  return p->rc;
}

/* Products whose copies cost more than they gain give up, the worst first. */
static tern_rc settle(planner *p) {
  for (;;) {
    const tern_rc rc = walk(p);
    wish *worst = NULL;
    for (uint32_t i = 0; i < p->n_wishes && !rc; i++) {
      wish *w = &p->wish[i];
      if (w->mode == ALL && w->cost > w->gain && (!worst || w->cost - w->gain > worst->cost - worst->gain)) worst = w;
    }
    if (rc || !worst) return rc;
    const tern_rc other = constants_only(p, worst);
    if (other) return other;
  }
}

/* ---- the pass ---- */

/* Something can be gained: an array that is packed once, or a result that another product may read. */
static bool worth_asking(const tern__unit *u, const tern__emitter *e, uint32_t group) {
  const tern__request *q = u->op[u->group[group].op[0]].q;
  bool some = false;
  if (q->dtype != TERN_F32 || !e) return false;
  for (uint32_t i = 0; i < e->n_args; i++) some |= is_constant(u, &e->arg[i]);
  return some || q->op->prim == TERN_OP_CONV;
}

static tern_rc make_wishes(planner *p) {
  tern__unit *u = p->u;
  for (uint32_t i = 0; i < u->n_order; i++) {
    const uint32_t group = u->order[i];
    const tern__lgroup *g = &u->group[group];
    tern__emitter *e = NULL;
    bool asks = false;
    p->wish_of[group] = TERN__NO;
    if (!g->anchored || g->sibling != TERN__NO) continue;
    tern_rc rc = tern__emit_gather(u, group, &e);
    if (!rc && worth_asking(u, e, group)) rc = device_asks(g->device, &asks);
    if (rc) return rc;
    p->out->emitter[group] = e;
    if (!asks) continue;
    wish *w = &p->wish[p->n_wishes];
    *w = (wish){.e = e, .group = group};
    if ((rc = ask(p, w))) return rc;
    if (w->mode != NOTHING) p->wish_of[group] = p->n_wishes++;
  }
  return TERN_OK;
}

tern_rc tern__unit_layout(tern__unit *u) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < u->n_order; i++) n += u->group[u->order[i]].anchored;
  if (!n) return TERN_OK;
  planner p = {.u = u, .n_now = u->n_buffers};
  p.out = tern__unit_alloc(u, 1, sizeof *p.out);
  p.wish = tern__unit_alloc(u, n, sizeof *p.wish);
  p.wish_of = tern__unit_alloc(u, u->n_groups + 1, sizeof *p.wish_of);
  p.now = tern__unit_alloc(u, u->n_buffers + 1, sizeof *p.now);
  if (!p.out || !p.wish || !p.wish_of || !p.now) return TERN_E_OOM;
  p.out->emitter = tern__unit_alloc(u, u->n_groups + 1, sizeof(tern__emitter *));
  if (!p.out->emitter) return TERN_E_OOM;
  u->layout = p.out;
  tern_rc rc = make_wishes(&p);
  if (!rc && p.n_wishes) rc = settle(&p);
  if (!rc && p.n_wishes) {
    p.real = true;
    rc = walk(&p);
  }
  free(p.version);
  return rc;
}
