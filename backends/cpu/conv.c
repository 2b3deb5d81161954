/* CONV, CONV_DX, CONV_DW: from a region to a kernel, and from a launch's words to one conv_job. float32 goes to oneDNN,
   16-bit floats too by way of float32 copies; what that does not take, and float64, goes our own way. */
#include "conv.h"
#include "dot.h"
#include "index.h"

#include <stdlib.h>
#include <string.h>

enum { X, W, Y };
struct conv_kernel {
  tern_kernel base;
  uint32_t op, dtype;
  int dims; /* spatial */
  int64_t groups, stride[2], dilation[2], pad[2];
  struct index_array array[3]; /* X, W, Y */
  struct conv_cache *cache;
};

/* Which array is input 0, input 1, the output */
static const uint8_t roles[][3] = {{X, W, Y}, {Y, W, X}, {X, Y, W}};

static bool is_half(int64_t dtype) { return dtype == TERN_F16 || dtype == TERN_BF16; }

/* ---- a launch's numbers ---- */

static void read_array(const struct conv_kernel *k, int role, const tern_word *words, const tern_launch *l,
                       int64_t *size, struct conv_array *to) {
  struct index_array a;
  to->p = index_array_resolve(&k->array[role], words, l, &a);
  for (int d = 0; d < 4; d++) {
    const int at = d < 2 ? d : d - (2 - k->dims); /* a single spatial dim is the second */
    const bool absent = d >= 2 && at < 2;
    size[d] = absent ? 1 : a.shape[at];
    to->stride[d] = absent ? 0 : a.stride[at];
  }
}

static void read_job(const struct conv_kernel *k, const tern_word *words, const tern_launch *l, struct conv_job *j) {
  int64_t x[4], w[4], y[4];
  memset(j, 0, sizeof *j);
  read_array(k, X, words, l, x, &j->x);
  read_array(k, W, words, l, w, &j->w);
  read_array(k, Y, words, l, y, &j->y);
  j->op = k->op, j->dtype = k->dtype, j->groups = k->groups;
  j->n = x[0], j->c = x[1], j->o = y[1];
  for (int d = 0; d < 2; d++) {
    j->in[d] = x[2 + d], j->taps[d] = w[2 + d], j->out[d] = y[2 + d];
    j->stride[d] = k->stride[d], j->dilation[d] = k->dilation[d], j->pad[d] = k->pad[d];
  }
}

/* ---- copies: dense, channels last, in float32 ---- */

/* Would oneDNN read or write it as it lies? No two elements in one place, nothing backwards */
static bool lies_well(const int64_t *size, const struct conv_array *a) {
  int order[4] = {0, 1, 2, 3};
  for (int i = 1; i < 4; i++)
    for (int k = i; k > 0 && a->stride[order[k]] < a->stride[order[k - 1]]; k--) {
      const int t = order[k];
      order[k] = order[k - 1], order[k - 1] = t;
    }
  int64_t next = 1;
  for (int i = 0; i < 4; i++) {
    if (size[order[i]] == 1) continue;
    if (a->stride[order[i]] < next) return false;
    next = a->stride[order[i]] * size[order[i]];
  }
  return true;
}

/* Strides of the copy (w: taps, then its second dim, its first innermost); returns its bytes rounded up */
static uint64_t dense(const int64_t *size, bool filters, struct conv_array *to) {
  to->stride[filters ? 0 : 1] = 1;
  to->stride[filters ? 1 : 3] = filters ? size[0] : size[1];
  if (filters) {
    to->stride[3] = size[0] * size[1];
    to->stride[2] = to->stride[3] * size[3];
    return ((uint64_t)(to->stride[2] * size[2]) * sizeof(float) + 63) & ~(uint64_t)63;
  }
  to->stride[2] = size[1] * size[3];
  to->stride[0] = to->stride[2] * size[2];
  return ((uint64_t)(to->stride[0] * size[0]) * sizeof(float) + 63) & ~(uint64_t)63;
}

static void copy(const int64_t *size, const struct conv_array *to, uint32_t to_dtype, const struct conv_array *from,
                 uint32_t from_dtype) {
  const struct dot_copy c = {
      .dst = {.p = to->p, .row = to->stride[3], .col = to->stride[1], .batch = {to->stride[0], to->stride[2]}},
      .src = {.p = from->p,
              .row = from->stride[3],
              .col = from->stride[1],
              .batch = {from->stride[0], from->stride[2]}},
      .dst_dtype = to_dtype,
      .src_dtype = from_dtype,
      .r = size[3],
      .c = size[1],
      .rank = 2,
      .size = {size[0], size[2]}};
  dot_copy(&c);
}

struct copies {
  bool copied[3];
  int64_t size[3][4];
  struct conv_array array[3]; /* as oneDNN gets them */
  uint64_t bytes[3], more;    /* more: for x and y in layouts of oneDNN's own */
};

/* Room for an array of x's kind in a layout that oneDNN may prefer: channels in blocks of 16 */
static uint64_t blocked_bytes(const int64_t *s) {
  return ((uint64_t)(s[0] * ((s[1] + 15) & ~(int64_t)15) * s[2] * s[3]) * sizeof(float) + 127) & ~(uint64_t)63;
}

static bool channels_last(const int64_t *size, const struct conv_array *a) {
  return (size[1] == 1 || a->stride[1] == 1) && (size[3] == 1 || a->stride[3] == size[1]);
}

/* A function of the job's numbers only */
static uint64_t plan(const struct conv_job *j, struct copies *c) {
  const struct conv_array *const given[3] = {&j->x, &j->w, &j->y};
  uint64_t all = 0;
  conv_sizes_x(j, c->size[X]);
  conv_sizes_w(j, c->size[W]);
  conv_sizes_y(j, c->size[Y]);
  c->more = 0;
  for (int i = 0; i < 3; i++) {
    c->array[i] = *given[i];
    c->copied[i] = is_half(j->dtype) || !lies_well(c->size[i], given[i]);
    c->bytes[i] = c->copied[i] ? dense(c->size[i], i == W, &c->array[i]) : 0;
    if (i != W && !channels_last(c->size[i], &c->array[i])) c->more += blocked_bytes(c->size[i]);
    all += c->bytes[i];
  }
  return all + c->more;
}

static uint64_t conv_workspace(const tern_kernel *kernel, const tern_word *words) {
  const struct conv_kernel *const k = (const struct conv_kernel *)(const void *)kernel;
  struct conv_job j;
  struct copies c;
  if (!k->cache) return 0;
  read_job(k, words, NULL, &j);
  return plan(&j, &c);
}

/* By oneDNN, with the copies that it needs; false: not done */
static bool by_library(const struct conv_kernel *k, const struct conv_job *j, const tern_launch *l) {
  struct copies c;
  const uint64_t bytes = plan(j, &c);
  if (bytes && !l->workspace.mem) return false;
  char *at = bytes ? (char *)l->workspace.mem + l->workspace.offset : NULL;
  const struct conv_array *const given[3] = {&j->x, &j->w, &j->y};
  const int out = roles[k->op - TERN_OP_CONV][2];
  for (int i = 0; i < 3; i++) {
    if (!c.copied[i]) continue;
    c.array[i].p = at;
    at += c.bytes[i];
    if (i != out) copy(c.size[i], &c.array[i], TERN_F32, given[i], k->dtype);
  }
  struct conv_job f = *j;
  f.dtype = TERN_F32;
  f.x = c.array[X], f.w = c.array[W], f.y = c.array[Y];
  if (!conv_dnnl(k->cache, &f, at, c.more)) return false;
  if (c.copied[out]) copy(c.size[out], given[out], k->dtype, &c.array[out], TERN_F32);
  return true;
}

static tern_rc conv_run(const tern_kernel *kernel, const tern_launch *l) {
  const struct conv_kernel *const k = (const struct conv_kernel *)(const void *)kernel;
  struct conv_job j;
  read_job(k, l->words, l, &j);
  if (conv_few(&j) || (k->cache && by_library(k, &j, l))) return TERN_OK;
  return conv_own(&j) ? TERN_OK : cpu_error(TERN_E_OOM, "conv: no memory for the rearranged filters of one launch");
}

/* ---- compiling ---- */

static void conv_destroy(tern_kernel *kernel) {
  struct conv_kernel *const k = (struct conv_kernel *)(void *)kernel;
  conv_cache_free(k->cache);
  free(k);
}

static bool read_attributes(const tern_region *r, struct conv_kernel *k) {
  const tern_node *const n = &r->nodes[0];
  const tern_word *const a = r->attrs + n->attr;
  if (n->n_attr < 5 || a[0].i < 1 || a[0].i > 2 || n->n_attr < 2 + 3 * (uint32_t)a[0].i || a[1].i < 1) return false;
  k->dims = (int)a[0].i;
  k->groups = a[1].i;
  for (int d = 0; d < 2; d++) {
    const int at = d - (2 - k->dims);
    k->stride[d] = at < 0 ? 1 : a[2 + 3 * at].i;
    k->dilation[d] = at < 0 ? 1 : a[3 + 3 * at].i;
    k->pad[d] = at < 0 ? 0 : a[4 + 3 * at].i;
    if (k->stride[d] < 1 || k->dilation[d] < 1 || k->pad[d] < 0) return false;
  }
  return true;
}

static bool read_kernel(const tern_region *r, struct conv_kernel *k) {
  if (r->n_nodes != 1 || r->nodes[0].op < TERN_OP_CONV || r->nodes[0].op > TERN_OP_CONV_DW) return false;
  const tern_node *const n = &r->nodes[0];
  if (n->n_in != 2 || n->n_out != 1 || !read_attributes(r, k)) return false;
  const uint8_t *const role = roles[n->op - TERN_OP_CONV];
  k->op = n->op;
  if (!index_array_read(r, r->edges[n->in], false, &k->array[role[0]]) ||
      !index_array_read(r, r->edges[n->in + 1], false, &k->array[role[1]]) ||
      !index_array_read(r, r->edges[n->out], true, &k->array[role[2]]))
    return false;
  k->dtype = k->array[X].dtype;
  for (int i = 0; i < 3; i++)
    if (k->array[i].dtype != k->dtype || k->array[i].rank != k->dims + 2) return false;
  return k->dtype == TERN_F32 || k->dtype == TERN_F64 || is_half(k->dtype);
}

tern_rc cpu_conv_supports(const tern_region *r) {
  struct conv_kernel k;
  return read_kernel(r, &k) ? TERN_OK : TERN_E_UNSUPPORTED;
}

tern_rc cpu_conv_compile(const tern_region *r, tern_kernel **kernel, tern_kernel_info *info) {
  struct conv_kernel read = {.op = 0};
  if (!read_kernel(r, &read)) return TERN_E_UNSUPPORTED;
  struct conv_kernel *const k = calloc(1, sizeof *k);
  if (!k) return cpu_error(TERN_E_OOM, "conv: no memory for a kernel of %zu bytes", sizeof *k);
  *k = read;
  k->base.run = conv_run;
  k->base.destroy = conv_destroy;
  k->base.workspace = conv_workspace;
  k->cache = k->dtype == TERN_F64 ? NULL : conv_cache_new();
  info->workspace = k->cache ? UINT64_MAX : 0;
  *kernel = &k->base;
  return TERN_OK;
}
