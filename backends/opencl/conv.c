/* CONV, CONV_DX, CONV_DW: from a region to kernels, and which of them serve a launch. Sizes are known at launch only.
   Where a group has few channels to make and to add up (depthwise convolution) a work-item makes one result or a vector
   of channels, else a register block. */
#include "conv.h"
#include "tune.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { X, W, Y };
enum { FEW_CHANNELS = 4, FEW_PRODUCTS = 8, INDEX_MOST = 1 << 20, DW_ITEMS = 64, DW_LONG = 4096, DW_SUMS = 32 << 20 };

/* The option `gemm`; ARGS_TRIED: more arguments a kernel that is measured does not have */
enum { GEMM_AUTO, GEMM_OWN, GEMM_CLBLAST, ARGS_TRIED = 16 };

typedef struct conv_kernel {
  tern_kernel head;
  conv_shape shape;
  tern_value array[3]; /* X, W, Y */
  uint32_t n_args;
  ocl_epilogue epilogue;
  int dims;
  int64_t groups, stride[2], dilation[2], pad[2];
  bool has_depth; /* the section has that kernel */
  uint8_t gemm;   /* GEMM_* */
  cl_kernel pack, block, plain, depth, sum;
} conv_kernel;

typedef struct conv_sizes { /* numbers of a launch, one spatial dim made two */
  int64_t size[3][4], stride[3][4];
  int64_t per_c, per_o; /* channels a group */
} conv_sizes;

/* Which array is input 0, input 1, the output */
static const uint8_t roles[][3] = {{X, W, Y}, {Y, W, X}, {X, Y, W}};

static bool read_attributes(const tern_region *r, const tern_node *n, conv_kernel *k) {
  const tern_word *a = r->attrs + n->attr;
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

/* The epilogue, if there is one, becomes the shape's: for the caller to free */
static tern_rc read_kernel(const tern_dev *dev, const tern_region *r, conv_kernel *k) {
  const tern_value *v[3];
  render_epilogue *e = NULL;
  const tern_rc rc = ocl_epilogue_read(dev, r, TERN_OP_CONV, TERN_OP_CONV_DW, 1, v, &e);
  if (rc) return rc;
  const tern_node *n = &r->nodes[e ? e->node : 0];
  bool ok = read_attributes(r, n, k) && ocl_is_float(v[0]->dtype) && (e || v[2]->alias < 0);
  for (int i = 0; i < 3 && ok; i++) {
    ok = v[i]->rank == k->dims + 2 && v[i]->dtype == v[0]->dtype;
    k->array[roles[n->op - TERN_OP_CONV][i]] = *v[i];
  }
  if (!ok) {
    render_epilogue_free(e);
    return TERN_E_UNSUPPORTED;
  }
  k->shape.op = n->op;
  k->shape.dtype = v[0]->dtype;
  k->shape.dims = (uint32_t)k->dims;
  k->shape.epilogue = e;
  k->shape.apart = e && e->in_place;
  k->n_args = r->n_args;
  return TERN_OK;
}

tern_rc ocl_conv_supports(tern_dev *dev, const tern_region *r) {
  conv_kernel k;
  const tern_rc rc = read_kernel(dev, r, &k);
  if (!rc) render_epilogue_free((render_epilogue *)(uintptr_t)k.shape.epilogue);
  return rc;
}

/* ---- a launch ---- */

static int result(const conv_kernel *k) { return roles[k->shape.op - TERN_OP_CONV][2]; }

/* With an epilogue the result is dense, if it is in memory at all */
static conv_sizes sizes_of(const conv_kernel *k, const tern_word *w) {
  conv_sizes s;
  for (int i = 0; i < 3; i++) {
    const bool dense = k->shape.epilogue && i == result(k);
    for (int d = 0; d < 4; d++) {
      const int at = d < 2 ? d : d - (2 - k->dims); /* a single spatial dim is the second */
      const bool absent = d >= 2 && at < 2;
      s.size[i][d] = absent ? 1 : TERN_LIT(k->array[i].shape[at], w);
      s.stride[i][d] = absent || dense ? 0 : TERN_LIT(k->array[i].stride[at], w);
    }
    int64_t step = 1;
    for (int d = 3; dense && d >= 0; step *= s.size[i][d--]) s.stride[i][d] = step;
  }
  s.per_c = s.size[X][1] / k->groups;
  s.per_o = s.size[Y][1] / k->groups;
  return s;
}

static int64_t lanes_of(const conv_kernel *k) { return (int64_t)k->shape.vecs * k->shape.width; }
static uint32_t acc_bytes(const conv_kernel *k) { return k->shape.dtype == TERN_F64 ? 8 : 4; }
static int64_t up(int64_t n, int64_t unit) { return (n + unit - 1) / unit; }
static size_t local_of(const conv_kernel *k) { return k->shape.cpu ? 1 : CONV_LOCAL; }

static void longs(ocl_call *c, const int64_t *words, size_t n) {
  for (size_t i = 0; i < n; i++) ocl_arg_long(c, words[i]);
}
#define LONGS(c, ...) \
  longs((c), (const int64_t[]){__VA_ARGS__}, sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t))

static uint64_t bytes_of(const conv_kernel *k, const conv_sizes *s);
static uint64_t product_at(const conv_kernel *k, const conv_sizes *s) { return (bytes_of(k, s) + 63) & ~(uint64_t)63; }

/* Everything that a launch needs in the workspace */
static uint64_t all_bytes(const conv_kernel *k, const conv_sizes *s) {
  const int64_t *n = s->size[result(k)];
  if (!k->shape.apart) return bytes_of(k, s);
  return product_at(k, s) + (uint64_t)(n[0] * n[1] * n[2] * n[3]) * ocl_item_size(k->shape.dtype);
}

/* The result: an argument; the workspace; or, when an epilogue takes it from registers, any buffer */
static void arg_result(ocl_call *c, const conv_kernel *k, const tern_launch *l, const conv_sizes *s) {
  tern_arg to = l->args[k->array[roles[k->shape.op - TERN_OP_CONV][0]].slot];
  to.offset = 0;
  if (!k->shape.epilogue)
    to = l->args[k->array[result(k)].slot];
  else if (k->shape.apart)
    to = (tern_arg){l->workspace.mem, l->workspace.offset + product_at(k, s)};
  ocl_arg_at(c, &to, ocl_item_size(k->shape.dtype));
}

static void epilogue_args(const conv_kernel *k, const tern_launch *l, ocl_call *c) {
  if (!k->shape.apart) ocl_epilogue_args(&k->epilogue, l, c);
}

static void arg_array(ocl_call *c, const conv_kernel *k, const tern_launch *l, int array) {
  ocl_arg_at(c, &l->args[k->array[array].slot], ocl_item_size(k->shape.dtype));
}

/* Steps through w: from group to group, along the channels that are made, along those that are added up, taps */
static void filter_steps(const conv_kernel *k, const conv_sizes *s, ocl_call *c) {
  const int64_t *w = s->stride[W];
  const bool back = k->shape.op == TERN_OP_CONV_DX;
  LONGS(c, s->per_o * w[0], w[back ? 1 : 0], w[back ? 0 : 1], w[2], w[3]);
}

/* The arguments after the buffers of conv_block and conv_plain */
static void gather_args(const conv_kernel *k, const conv_sizes *s, ocl_call *c) {
  const bool back = k->shape.op == TERN_OP_CONV_DX;
  const int from = back ? Y : X, to = back ? X : Y;
  const int64_t *fs = s->size[from], *ts = s->size[to], *f = s->stride[from], *t = s->stride[to];
  const int64_t phase[2] = {back ? k->stride[0] : 1, back ? k->stride[1] : 1};
  LONGS(c, ts[0], k->groups, back ? s->per_c : s->per_o, back ? s->per_o : s->per_c, s->size[W][2], s->size[W][3],
        fs[2], fs[3], ts[2], ts[3], up(ts[2], phase[0]), up(ts[3], phase[1]), phase[0], phase[1], k->stride[0],
        k->stride[1], k->dilation[0], k->dilation[1], k->pad[0], k->pad[1], f[0], f[1], f[2], f[3], t[0], t[1], t[2],
        t[3]);
}

static int64_t made(const conv_kernel *k, const conv_sizes *s) {
  return k->shape.op == TERN_OP_CONV_DX ? s->per_c : s->per_o;
}

static int64_t added(const conv_kernel *k, const conv_sizes *s) {
  return k->shape.op == TERN_OP_CONV_DX ? s->per_o : s->per_c;
}

/* Is a register block of results mostly empty? */
static bool is_plain(const conv_kernel *k, const conv_sizes *s) {
  return made(k, s) < FEW_CHANNELS && (k->shape.op == TERN_OP_CONV_DW || added(k, s) < FEW_PRODUCTS);
}

/* One channel a group, and whole vectors of channels side by side */
static bool is_depth(const conv_kernel *k, const conv_sizes *s) {
  const bool filters = s->stride[W][0] == 1 || k->shape.op == TERN_OP_CONV_DW;
  return k->has_depth && s->per_c == 1 && s->per_o == 1 && filters && s->stride[X][1] == 1 && s->stride[Y][1] == 1 &&
         k->groups % k->shape.width == 0;
}

/* Elements of the packed filters */
static int64_t packed(const conv_kernel *k, const conv_sizes *s) {
  return k->groups * up(made(k, s), lanes_of(k)) * s->size[W][2] * s->size[W][3] * added(k, s) * lanes_of(k);
}

static tern_rc run_gather(tern_dev *dev, tern_queue *q, const conv_kernel *k, const tern_launch *l,
                          const conv_sizes *s) {
  const bool back = k->shape.op == TERN_OP_CONV_DX;
  const int from = back ? Y : X, to = back ? X : Y;
  const int64_t *ts = s->size[to];
  if (is_plain(k, s)) {
    const bool depth = is_depth(k, s);
    ocl_call c = ocl_call_of(q, depth ? k->depth : k->plain);
    arg_array(&c, k, l, from);
    arg_array(&c, k, l, W);
    arg_result(&c, k, l, s);
    gather_args(k, s, &c);
    if (depth)
      LONGS(&c, s->stride[W][2], s->stride[W][3]);
    else
      filter_steps(k, s, &c);
    epilogue_args(k, l, &c);
    const int64_t each = depth ? k->shape.width : 1;
    return ocl_run1(dev, q, &c, "CONV", (uint64_t)(ts[0] * ts[1] * ts[2] * ts[3] / each), CONV_LOCAL);
  }
  ocl_call p = ocl_call_of(q, k->pack);
  arg_array(&p, k, l, W);
  ocl_arg_at(&p, &l->workspace, acc_bytes(k));
  LONGS(&p, k->groups, made(k, s), back ? s->per_o : s->per_c, s->size[W][2], s->size[W][3]);
  filter_steps(k, s, &p);
  const tern_rc rc = ocl_run1(dev, q, &p, "CONV (packing)", (uint64_t)(packed(k, s) / lanes_of(k)), CONV_LOCAL);
  if (rc) return rc;
  ocl_call c = ocl_call_of(q, k->block);
  arg_array(&c, k, l, from);
  ocl_arg_at(&c, &l->workspace, acc_bytes(k));
  arg_result(&c, k, l, s);
  gather_args(k, s, &c);
  epilogue_args(k, l, &c);
  const int64_t f0 = back ? k->stride[0] : 1, f1 = back ? k->stride[1] : 1,
                tiles = up(ts[0] * up(ts[2], f0) * up(ts[3], f1), k->shape.rows);
  return ocl_run1(dev, q, &c, "CONV", (uint64_t)(tiles * up(made(k, s), lanes_of(k)) * k->groups * f0 * f1),
                  local_of(k));
}

/* ---- CONV_DW ---- */

typedef struct dw_plan {
  bool plain, depth, pack; /* one sum a work-item; or a vector of them; y is packed first */
  int64_t wide;            /* channels of a group as they lie in the sums: B, or B rounded up */
  int64_t items;           /* work-items of one chunk */
  int64_t rows, chunks;
  uint64_t y_bytes, sum_bytes;
} dw_plan;

/* A function of the sizes only: so are the chunks, and with them the bits of the result */
static dw_plan dw_plan_of(const conv_kernel *k, const conv_sizes *s) {
  const int64_t lanes = lanes_of(k), columns = s->size[W][2] * s->size[W][3] * s->per_c, *y = s->size[Y];
  dw_plan p = {.plain = is_plain(k, s), .depth = is_plain(k, s) && is_depth(k, s)};
  const int64_t blocks = up(s->per_o, lanes);
  p.wide = p.plain ? s->per_o : blocks * lanes;
  p.items = k->groups * (p.plain ? columns * s->per_o : up(columns, k->shape.rows) * blocks);
  if (p.depth) p.items /= k->shape.width;
  p.pack = !p.plain && (ocl_item_size(k->shape.dtype) < 4 || s->stride[Y][1] != 1 || s->per_o % lanes);
  p.y_bytes = p.pack ? (uint64_t)(y[0] * y[2] * y[3] * k->groups * p.wide) * acc_bytes(k) : 0;
  p.y_bytes = (p.y_bytes + 63) & ~(uint64_t)63;
  const int64_t all_rows = y[0] * y[2], one = k->groups * columns * p.wide * acc_bytes(k);
  const int64_t wanted = up(DW_ITEMS, p.items), precise = up(all_rows * y[3], DW_LONG), most = up(DW_SUMS, one);
  p.chunks = wanted > precise ? wanted : precise;
  if (p.chunks > most) p.chunks = most;
  if (p.chunks > all_rows) p.chunks = all_rows;
  p.rows = up(all_rows, p.chunks);
  p.chunks = up(all_rows, p.rows);
  p.sum_bytes = (uint64_t)(one * p.chunks);
  return p;
}

static tern_rc run_weights(tern_dev *dev, tern_queue *q, const conv_kernel *k, const tern_launch *l,
                           const conv_sizes *s) {
  const dw_plan p = dw_plan_of(k, s);
  const int64_t *y = s->size[Y], *x = s->size[X], *w = s->size[W];
  int64_t steps[4];
  memcpy(steps, s->stride[Y], sizeof steps);
  const tern_arg sums = {l->workspace.mem, l->workspace.offset + p.y_bytes};
  if (p.pack) {
    ocl_call c = ocl_call_of(q, k->pack);
    arg_array(&c, k, l, Y);
    ocl_arg_at(&c, &l->workspace, acc_bytes(k));
    LONGS(&c, y[0], k->groups, s->per_o, y[2], y[3], steps[0], steps[1], steps[2], steps[3]);
    const uint64_t items = (uint64_t)(y[0] * y[2] * y[3] * k->groups * (p.wide / lanes_of(k)));
    const tern_rc rc = ocl_run1(dev, q, &c, "CONV_DW (packing)", items, CONV_LOCAL);
    if (rc) return rc;
    steps[1] = 1;
    steps[3] = k->groups * p.wide;
    steps[2] = steps[3] * y[3];
    steps[0] = steps[2] * y[2];
  }
  ocl_call c = ocl_call_of(q, p.depth ? k->depth : p.plain ? k->plain : k->block);
  arg_array(&c, k, l, X);
  if (p.pack)
    ocl_arg_at(&c, &l->workspace, acc_bytes(k));
  else
    arg_array(&c, k, l, Y);
  ocl_arg_at(&c, &sums, acc_bytes(k));
  LONGS(&c, y[0], k->groups, s->per_o, s->per_c, w[2], w[3], x[2], x[3], y[2], y[3], k->stride[0], k->stride[1],
        k->dilation[0], k->dilation[1], k->pad[0], k->pad[1], s->stride[X][0], s->stride[X][1], s->stride[X][2],
        s->stride[X][3], steps[0], steps[1], steps[2], steps[3], p.rows, p.chunks);
  tern_rc rc = ocl_run1(dev, q, &c, "CONV_DW", (uint64_t)(p.items * p.chunks), p.plain ? CONV_LOCAL : local_of(k));
  if (rc) return rc;
  ocl_call e = ocl_call_of(q, k->sum);
  ocl_arg_at(&e, &sums, acc_bytes(k));
  arg_result(&e, k, l, s);
  LONGS(&e, k->groups, s->per_o, s->per_c, w[2], w[3], p.wide, p.chunks);
  filter_steps(k, s, &e);
  epilogue_args(k, l, &e);
  return ocl_run1(dev, q, &e, "CONV_DW (adding up)", (uint64_t)(w[0] * w[1] * w[2] * w[3]), CONV_LOCAL);
}

static uint64_t bytes_of(const conv_kernel *k, const conv_sizes *s) {
  if (k->shape.op != TERN_OP_CONV_DW) return is_plain(k, s) ? 0 : (uint64_t)packed(k, s) * acc_bytes(k);
  const dw_plan p = dw_plan_of(k, s);
  return p.y_bytes + p.sum_bytes;
}

static tern_rc conv_workspace(tern_dev *dev, const tern_kernel *head, const tern_word *words, uint64_t *bytes) {
  const conv_kernel *k = (const conv_kernel *)head;
  const conv_sizes s = sizes_of(k, words);
  (void)dev;
  *bytes = all_bytes(k, &s);
  return TERN_OK;
}

/* ---- CLBlast: dense, one group, the same padding on both sides ---- */

enum { CONV_OWN = 1, CONV_CLBLAST = 2 }; /* forms (tune.h) */

static bool dense(const int64_t size[4], const int64_t stride[4]) {
  int64_t step = 1;
  for (int d = 3; d >= 0; step *= size[d--])
    if (size[d] != 1 && stride[d] != step) return false;
  return true;
}

static bool clblast_fits(const conv_kernel *k, const conv_sizes *s) {
  if (k->shape.op != TERN_OP_CONV || k->groups != 1 || (k->shape.epilogue && !k->shape.apart)) return false;
  for (int d = 0; d < 2; d++) {
    const int64_t room = s->size[X][2 + d] + 2 * k->pad[d] - k->dilation[d] * (s->size[W][2 + d] - 1) - 1;
    if (room < 0 || room / k->stride[d] + 1 != s->size[Y][2 + d]) return false;
  }
  for (int i = 0; i < 3; i++)
    if (!dense(s->size[i], s->stride[i])) return false;
  return k->shape.dtype == TERN_F32 || k->shape.dtype == TERN_F64;
}

static tern_rc run_clblast(tern_dev *dev, tern_queue *q, const conv_kernel *k, const tern_launch *l,
                           const conv_sizes *s) {
  const uint32_t item = ocl_item_size(k->shape.dtype);
  const tern_arg *x = &l->args[k->array[X].slot], *w = &l->args[k->array[W].slot];
  const tern_arg in_workspace = {l->workspace.mem, l->workspace.offset + product_at(k, s)};
  const tern_arg *y = k->shape.apart ? &in_workspace : &l->args[k->array[Y].slot];
  ocl_gemm g = {.a = x->mem->buffer,
                .b = w->mem->buffer,
                .c = y->mem->buffer,
                .a_off = (int64_t)(x->offset / item),
                .b_off = (int64_t)(w->offset / item),
                .c_off = (int64_t)(y->offset / item)};
  g.conv.batch = s->size[X][0], g.conv.channels = s->size[X][1], g.conv.kernels = s->size[W][0];
  for (int d = 0; d < 2; d++) {
    g.conv.size[d] = s->size[X][2 + d], g.conv.taps[d] = s->size[W][2 + d];
    g.conv.pad[d] = k->pad[d], g.conv.stride[d] = k->stride[d], g.conv.dilation[d] = k->dilation[d];
  }
  return ocl_clblast_gemm(dev, q, k->shape.dtype, &g);
}

typedef struct conv_trial {
  tern_dev *dev;
  const conv_kernel *k;
  const conv_sizes *s;
  tern_launch l;
} conv_trial;

static double time_of(void *context, tern_queue *q, uint32_t form, int runs) {
  const conv_trial *t = context;
  if (form == CONV_CLBLAST && ocl_clblast_ready(t->dev, t->k->shape.dtype)) return -1;
  ocl_finish(t->dev, q->q);
  const int64_t start = ocl_now();
  for (int i = 0; i < runs; i++)
    if (form == CONV_CLBLAST ? run_clblast(t->dev, q, t->k, &t->l, t->s) : run_gather(t->dev, q, t->k, &t->l, t->s)) {
      ocl_finish(t->dev, q->q); /* the buffers are freed soon */
      return -1;
    }
  return ocl_finish(t->dev, q->q) == CL_SUCCESS ? 1e-9 * (double)(ocl_now() - start) / runs : -1;
}

static const char *name_of(void *context, uint32_t form) {
  (void)context;
  return form == CONV_CLBLAST ? "CLBlast" : "own";
}

static uint32_t measure(tern_dev *dev, const conv_kernel *k, const conv_sizes *s, uint64_t class) {
  static const uint8_t small[4] = {0x3d, 0x3d, 0x3d, 0x3d}; /* a plain number in every dtype */
  tern_mem *mem[4] = {NULL};
  tern_arg args[ARGS_TRIED];
  bool ok = k->n_args <= ARGS_TRIED;
  for (int i = 0; i < 4 && ok; i++) {
    const int64_t *n = s->size[i < 3 ? i : 0];
    const uint64_t bytes =
        i < 3 ? (uint64_t)(n[0] * n[1] * n[2] * n[3]) * ocl_item_size(k->shape.dtype) : all_bytes(k, s);
    const tern_mem_desc want = {.size = (bytes + 64) & ~(uint64_t)63};
    ok = !ocl_mem_alloc(dev, &want, &mem[i]) &&
         !clEnqueueFillBuffer(dev->aux, mem[i]->buffer, small, sizeof small, 0, (size_t)want.size, 0, NULL, NULL);
  }
  ok = ocl_finish(dev, dev->aux) == CL_SUCCESS && ok;
  uint32_t form = OCL_TUNE_GUESS;
  if (ok) {
    char what[120];
    for (uint32_t i = 0; i < k->n_args; i++) args[i] = (tern_arg){mem[0], 0};
    for (int i = 0; i < 3; i++)
      if (i != Y || !k->shape.apart) args[k->array[i].slot] = (tern_arg){mem[i], 0};
    conv_trial t = {dev, k, s, {.args = args, .n_args = k->n_args, .workspace = {mem[3], 0}}};
    const int64_t *x = s->size[X], *w = s->size[W];
    snprintf(what, sizeof what, "CONV %s %lld x %lld x %lld x %lld, %lld x %lld x %lld", ocl_dtype_name(k->shape.dtype),
             (long long)x[0], (long long)x[1], (long long)x[2], (long long)x[3], (long long)w[0], (long long)w[2],
             (long long)w[3]);
    const ocl_tune_how how = {.mask = 1u << CONV_OWN | 1u << CONV_CLBLAST,
                              .guess = CONV_OWN,
                              .time = time_of,
                              .name = name_of,
                              .context = &t,
                              .what = what};
    form = ocl_tune_measure(dev, class, &how);
  } else {
    form = ocl_tune_pin(dev, class);
  }
  for (int i = 0; i < 4; i++)
    if (mem[i]) ocl_mem_free(dev, mem[i]);
  return form;
}

/* By the option, or as it was measured: CLBlast is never tried unasked. */
static bool by_clblast(tern_dev *dev, const conv_kernel *k, const conv_sizes *s) {
  if (k->gemm == GEMM_OWN || !clblast_fits(k, s)) return false;
  if (k->gemm == GEMM_CLBLAST) return ocl_clblast_ready(dev, k->shape.dtype) == TERN_OK;
  const uint32_t steps = (k->stride[0] > 1) + 2u * (k->dilation[0] > 1);
  const uint32_t kind = TERN_OP_CONV << 16 | k->shape.dtype << 11 | steps;
  const int64_t sizes[] = {s->size[X][0], s->size[X][1], s->size[W][0], s->size[Y][2] * s->size[Y][3],
                           s->size[W][2] * s->size[W][3]};
  const uint64_t class = ocl_tune_class(kind, sizes, 5);
  bool known;
  uint32_t form = ocl_tune_find(dev, class, &known);
  if (!known) form = ocl_tune_mode_of(dev) < OCL_TUNE_ALL ? ocl_tune_pin(dev, class) : measure(dev, k, s, class);
  return form == CONV_CLBLAST && ocl_clblast_ready(dev, k->shape.dtype) == TERN_OK;
}

static tern_rc conv_launch(tern_dev *dev, tern_queue *q, tern_kernel *head, const tern_launch *l) {
  const conv_kernel *k = (const conv_kernel *)head;
  const conv_sizes s = sizes_of(k, l->words);
  tern_rc rc = ocl_check_launch(dev, l, k->n_args, all_bytes(k, &s));
  if (rc) return rc;
  rc = k->shape.op == TERN_OP_CONV_DW ? run_weights(dev, q, k, l, &s)
       : by_clblast(dev, k, &s)       ? run_clblast(dev, q, k, l, &s)
                                      : run_gather(dev, q, k, l, &s);
  if (rc || !k->shape.apart) return rc;
  const int64_t *n = s.size[result(k)], line[3] = {n[0], n[1], n[3]};
  const tern_arg product = {l->workspace.mem, l->workspace.offset + product_at(k, &s)};
  return ocl_epilogue_finish(dev, q, &k->epilogue, l, &product, k->shape.dtype, k->shape.dims + 2,
                             k->dims == 2 ? n : line);
}

static void conv_destroy(tern_dev *dev, tern_kernel *head) {
  conv_kernel *k = (conv_kernel *)head;
  (void)dev;
  if (k->pack) clReleaseKernel(k->pack);
  if (k->block) clReleaseKernel(k->block);
  if (k->plain) clReleaseKernel(k->plain);
  if (k->depth) clReleaseKernel(k->depth);
  if (k->sum) clReleaseKernel(k->sum);
  ocl_epilogue_end(&k->epilogue);
}

/* As many vectors as the registers of a CPU hold beside the pointers to the rows; small ones elsewhere */
static void shape_for(const tern_dev *dev, const tern_region *r, conv_kernel *k) {
  conv_shape *s = &k->shape;
  s->idx32 = r->flags & TERN_R_IDX32;
  for (int d = 0; d < 2; d++) /* indices pass through the padding */
    if (k->stride[d] > INDEX_MOST || k->dilation[d] > INDEX_MOST || k->pad[d] > INDEX_MOST) s->idx32 = false;
  s->cpu = ocl_is_cpu(dev->id);
  s->rows = s->cpu ? 6 : 4;
  s->vecs = s->cpu && dev->id->float_width >= 16 ? 2 : 1;
  s->width = !s->cpu ? 4 : s->dtype == TERN_F64 ? 8 : 16;
}

static tern_rc conv_ready(tern_dev *dev, tern_kernel *head) {
  conv_kernel *k = (conv_kernel *)head;
  const ocl_section *s = head->section;
  const bool weights = k->shape.op == TERN_OP_CONV_DW;
  tern_rc rc = ocl_kernel_new(dev, s, weights ? "dw_pack" : "conv_pack", &k->pack);
  if (!rc && k->shape.apart) rc = ocl_kernel_new(dev, s, "finish", &k->epilogue.finish);
  if (!rc) rc = ocl_kernel_new(dev, s, weights ? "dw_block" : "conv_block", &k->block);
  if (!rc) rc = ocl_kernel_new(dev, s, weights ? "dw_plain" : "conv_plain", &k->plain);
  if (!rc && k->has_depth) rc = ocl_kernel_new(dev, s, weights ? "dw_depth" : "conv_depth", &k->depth);
  if (!rc && weights) rc = ocl_kernel_new(dev, s, "dw_sum", &k->sum);
  return rc;
}

tern_rc ocl_conv_compile(tern_dev *dev, const tern_region *r, tern_kernel **out, tern_kernel_info *info) {
  conv_kernel read;
  memset(&read, 0, sizeof read);
  tern_rc rc = read_kernel(dev, r, &read);
  if (rc) return rc;
  render_epilogue *e = (render_epilogue *)(uintptr_t)read.shape.epilogue;
  shape_for(dev, r, &read);
  ocl_text text = {0};
  conv_text(&text, dev, &read.shape);
  tern_kernel *head = NULL;
  rc = text.failed ? ocl_error(dev->drv, dev->id, TERN_E_OOM, "no memory for the text of a convolution")
                   : ocl_kernel_alloc(dev, sizeof(conv_kernel), text.s, "CONV", &head);
  free(text.s);
  if (rc) {
    render_epilogue_free(e);
    return rc;
  }
  conv_kernel *k = (conv_kernel *)head;
  read.head = k->head;
  *k = read;
  k->head.ready = conv_ready;
  k->head.launch = conv_launch;
  k->head.workspace = conv_workspace;
  k->head.destroy = conv_destroy;
  const char *gemm = ocl_option(dev->drv, "gemm", "auto");
  k->gemm = !strcmp(gemm, "clblast") ? GEMM_CLBLAST : strcmp(gemm, "auto") || dev->id->bundled ? GEMM_OWN : GEMM_AUTO;
  k->has_depth = k->shape.dtype == TERN_F32 || k->shape.dtype == TERN_F64;
  rc = ocl_epilogue_init(dev, &k->epilogue, e);
  if (rc) {
    ocl_kernel_free(dev, head);
    return rc;
  }
  if (info) info->workspace = UINT64_MAX;
  *out = head;
  return TERN_OK;
}
