/* A group as one launch: its members' index spaces are merged where all agree, arguments are gathered, the members'
   lowerings make the region, and the device compiles it. A single op goes the way of an eager one: canonical request,
   class, kernel. What a device refuses as a whole is launched op by op; what it refuses even so runs as a request, with
   the fallbacks of eager ops. */
#include "base/alloc.h"
#include "device/device.h"
#include "device/trace.h"
#include "graph/passes/emit.h"
#include "graph/passes/fuse.h"
#include "graph/passes/layout.h"
#include "tensor/dtype.h"
#include <stdio.h>
#include <stdlib.h>

enum { NONE = TERN__EMIT_NONE, OWN = TERN__EMIT_OWN, MAX_ARGS = 512, MAX_SIZES = 500 };
typedef tern__emit_arg argument;
typedef tern__emit_component component;
typedef tern__emitter emitter;

bool tern__needs_memory(const tern__unit *u, uint32_t b, uint32_t group) {
  const tern__lbuffer *buffer = &u->buffer[b];
  (void)group;
  return buffer->wanted || buffer->written_part || buffer->n_readers > buffer->n_grouped || u->opts->no_fuse;
}

/* ---- arguments ---- */

static bool same_argument(const argument *a, const argument *b) {
  return a->buffer == b->buffer && a->offset == b->offset && a->dtype == b->dtype && a->rank == b->rank &&
         a->component == b->component && !memcmp(a->at, b->at, a->rank) &&
         !memcmp(a->stride, b->stride, a->rank * sizeof *a->stride);
}

/* Operand k of an op as an argument of its component. */
static argument argument_of(emitter *e, const tern__lop *op, int k, uint32_t comp, uint32_t own_base) {
  const tern__unit *u = e->u;
  const tern__lgroup *g = &u->group[e->component[comp].group];
  const tern__operand *o = &op->q->arg[k];
  argument a = {.buffer = tern__root(u, (uint32_t)(o->storage - u->ghost)),
                .component = comp,
                .kind = o->kind,
                .dtype = o->dtype,
                .offset = o->offset,
                .alias = -1};
  memset(a.at, NONE, sizeof a.at);
  if (op->kind == TERN__L_ANCHOR) {
    a.rank = o->rank;
    for (int d = 0; d < o->rank; d++) {
      if (o->dim[d] == TERN__ONE) continue;
      a.at[d] = op->position[o->dim[d]] != NONE ? op->position[o->dim[d]] : (uint8_t)(OWN + own_base + o->dim[d]);
      a.stride[d] = o->stride[d];
    }
    return a;
  }
  a.rank = g->rank;
  for (int d = 0; d < o->rank; d++) {
    if (o->dim[d] == TERN__ONE) continue;
    const uint8_t p = op->position[o->dim[d]];
    const bool summed = p != NONE && g->reduced >> p & 1; /* a reduction counts what is broadcast too */
    if (p == NONE || (o->kind == TERN_V_IN && o->stride[d] == 0 && !summed)) continue; /* size 1, or a broadcast */
    a.at[p] = p;
    a.stride[p] = o->stride[d];
  }
  return a;
}

static int32_t add_argument(emitter *e, argument a) {
  for (uint32_t i = 0; i < e->n_args && a.kind == TERN_V_IN; i++)
    if (e->arg[i].kind == TERN_V_IN && same_argument(&e->arg[i], &a)) return (int32_t)i;
  if (e->n_args == MAX_ARGS) return -1;
  for (uint32_t i = 0; i < e->n_args && a.kind == TERN_V_OUT; i++)
    if (e->arg[i].kind == TERN_V_IN && same_argument(&e->arg[i], &a)) a.alias = (int32_t)i;
  e->arg[e->n_args] = a;
  return (int32_t)e->n_args++;
}

/* ---- members ---- */

static bool source_of(const emitter *e, const tern__operand *o, uint32_t *value) {
  const tern__graph *g = e->u->g;
  if (!o->weak || o->weak == TERN_NONE) return false;
  *value = (uint32_t)(o->weak - e->u->fake);
  return *value < g->n_values && g->node[g->value[*value].node].kind == TERN__IR_SOURCE;
}

static tern__group_operand param(emitter *e, const tern__operand *o) {
  uint32_t value = 0;
  if (!source_of(e, o, &value)) {
    if (o->weak) return (tern__group_operand){.how = TERN__GROUP_CONST, .dtype = o->dtype, .value = o->value};
    e->param[e->n_params] = o->value;
    return (tern__group_operand){.how = TERN__GROUP_PARAM, .dtype = o->dtype, .index = e->n_params++};
  }
  for (uint32_t i = 0; i < e->n_dynamic; i++) /* siblings share what changes from run to run */
    if (e->dynamic[i].value == value && e->dynamic[i].dtype == o->dtype)
      return (tern__group_operand){.how = TERN__GROUP_PARAM, .dtype = o->dtype, .index = e->dynamic[i].word};
  e->dynamic[e->n_dynamic++] =
      (tern__lword){.word = e->n_params, .value = value, .dtype = o->dtype, .from = e->u->g->value[value].dtype};
  e->param[e->n_params] = (tern_word){.u = 0};
  return (tern__group_operand){.how = TERN__GROUP_PARAM, .dtype = o->dtype, .index = e->n_params++};
}

/* The member and output that makes a buffer inside of the component; false: it comes from memory. */
static bool made_inside(const emitter *e, uint32_t first_member, const tern__lgroup *g, uint32_t buffer,
                        tern__group_operand *o) {
  const tern__unit *u = e->u;
  for (uint32_t m = first_member; m < e->n_members && m - first_member < g->n_ops; m++) {
    const tern__lop *op = &u->op[g->op[m - first_member]];
    for (uint32_t k = 0; k < op->n_out; k++)
      if (op->out[k] == buffer && !u->buffer[buffer].written_part) {
        *o = (tern__group_operand){.how = TERN__GROUP_RESULT, .index = m, .out = (uint8_t)k};
        return true;
      }
  }
  return false;
}

/* Operand i as a view of what an earlier component keeps inside; false: it is not. */
static bool seen_through(emitter *e, uint32_t comp, const tern__lop *op, int i, tern__group_operand *o) {
  const tern__unit *u = e->u;
  const tern__lgroup *g = &u->group[e->component[comp].group], *head = &u->group[g->head];
  if (!g->windowed || !made_inside(e, 0, head, op->in[i], o)) return false;
  argument a = argument_of(e, op, i, comp, 0);
  const tern__operand *read = &op->q->arg[i];
  int64_t stride[TERN_MAX_RANK];
  if (!tern__window_of(u, head->op[o->index], op->in[i], op->q, read, stride, &a.offset)) return false;
  for (int d = 0; d < read->rank; d++)
    if (read->dim[d] != TERN__ONE && op->position[read->dim[d]] != NONE)
      a.stride[op->position[read->dim[d]]] = stride[d];
  o->how = TERN__GROUP_VIEW;
  o->view = (uint16_t)e->n_views;
  a.kind = TERN_V_VIEW;
  e->view[e->n_views++] = a;
  return true;
}

static bool add_member(emitter *e, uint32_t comp, uint32_t first_member, uint32_t index) {
  tern__unit *u = e->u;
  const component *c = &e->component[comp];
  const tern__lgroup *g = &u->group[c->group];
  const tern__lop *op = &u->op[index];
  const tern__request *q = op->q;
  tern__group_member *m = &e->member[e->n_members];
  const uint32_t own_base = e->n_own;
  if (op->kind == TERN__L_ANCHOR) {
    if (OWN + own_base + q->n_sizes >= NONE) return false;
    for (int d = 0; d < q->n_sizes; d++) e->own[e->n_own++] = q->size[d];
  }
  memset(m, 0, sizeof *m);
  m->q = q;
  for (int i = 0; i < q->n_in; i++) {
    if (q->arg[i].kind == TERN_V_PARAM) {
      m->in[i] = param(e, &q->arg[i]);
      continue;
    }
    if (made_inside(e, first_member, g, op->in[i], &m->in[i])) continue;
    if (seen_through(e, comp, op, i, &m->in[i])) continue;
    const int32_t a = add_argument(e, argument_of(e, op, i, comp, own_base));
    if (a < 0) return false;
    m->in[i] = (tern__group_operand){.how = TERN__GROUP_ARG, .index = (uint32_t)a};
  }
  for (int o = 0; o < q->n_out; o++) {
    m->out_arg[o] = -1;
    if (!tern__needs_memory(u, op->out[o], c->group)) continue;
    if ((m->out_arg[o] = add_argument(e, argument_of(e, op, q->n_in + o, comp, own_base))) < 0) return false;
  }
  e->n_members++;
  return true;
}

/* ---- merging positions ---- */

static bool spans(const tern__lop *op, int p) {
  for (int d = 0; d < TERN__MAX_SIZES; d++)
    if (op->position[d] == p) return true;
  return false;
}

static int role_at(const tern__lop *op, int p) {
  for (int d = 0; d < op->q->n_sizes; d++)
    if (op->position[d] == p) return op->q->role[d];
  return -1;
}

/* Arguments, then views */
static argument *nth(const emitter *e, uint32_t i) { return i < e->n_args ? &e->arg[i] : &e->view[i - e->n_args]; }

static bool mergeable(const emitter *e, uint32_t comp, int p) {
  const tern__unit *u = e->u;
  const tern__lgroup *g = &u->group[e->component[comp].group];
  for (uint32_t i = 0; i < g->n_ops; i++) {
    const tern__lop *op = &u->op[g->op[i]];
    const int role = role_at(op, p), next = role_at(op, p + 1);
    if (spans(op, p) != spans(op, p + 1) || role != next || role == TERN__ROLE_FIXED) return false;
  }
  if (u->group[e->component[comp].group].windowed) return false; /* which dim of the view steps where must show */
  for (uint32_t i = 0; i < e->n_args; i++) {
    const argument *a = &e->arg[i];
    if (a->component != comp) continue;
    int d = -1, n = -1;
    for (int k = 0; k < a->rank; k++) {
      if (a->at[k] == p) d = k;
      if (a->at[k] == p + 1) n = k;
    }
    if ((d < 0) != (n < 0)) return false;
    if (d >= 0 && (n != d + 1 || a->stride[d] != a->stride[n] * g->size[p + 1])) return false;
  }
  return true;
}

/* Merged positions of a component; args of nests lose dims. */
static void merge(emitter *e, uint32_t comp) {
  component *c = &e->component[comp];
  const tern__lgroup *g = &e->u->group[c->group];
  bool joined[TERN_MAX_RANK] = {false}; /* p with p - 1 */
  for (int p = 0; p + 1 < g->rank; p++) joined[p + 1] = mergeable(e, comp, p);
  c->rank = 0;
  for (int p = 0; p < g->rank; p++) {
    if (joined[p]) {
      c->size[c->rank - 1] *= g->size[p];
    } else {
      c->size[c->rank++] = g->size[p];
    }
    c->merged[p] = (uint8_t)(c->rank - 1);
  }
  for (uint32_t i = 0; i < e->n_args + e->n_views; i++) {
    argument *a = nth(e, i);
    if (a->component != comp) continue;
    int kept = 0;
    for (int d = 0; d < a->rank; d++) {
      const uint8_t at = a->at[d] < OWN ? c->merged[a->at[d]] : a->at[d];
      const bool nest_gap = a->at[d] == NONE && joined[d];
      if ((a->at[d] < OWN && joined[a->at[d]]) || nest_gap) { /* its left neighbour stands for both */
        if (!nest_gap) a->stride[kept - 1] = a->stride[d];
        continue;
      }
      a->at[kept] = at;
      a->stride[kept++] = a->stride[d];
    }
    a->rank = (uint8_t)kept;
  }
  if (c->rank) return;
  c->rank = 1; /* all of it is one element */
  c->size[0] = 1;
  for (uint32_t i = 0; i < e->n_args + e->n_views; i++) {
    argument *a = nth(e, i);
    if (a->component != comp) continue;
    a->rank = 1;
    a->at[0] = 0;
    a->stride[0] = 1;
  }
}

/* ---- the region and its launch ---- */

static bool literal(const argument *a, int d, bool anchor) {
  if (a->at[d] == NONE) return true;
  if (d == a->rank - 1) return a->stride[d] == 0 || a->stride[d] == 1;
  return anchor && d == a->rank - 2 && a->stride[d] == 1 && a->at[d + 1] != NONE && a->stride[d + 1] != 1;
}

static bool fits_int32(const emitter *e) {
  for (uint32_t i = 0; i < e->n_args; i++)
    if (e->u->buffer[e->arg[i].buffer].numel > INT32_MAX) return false;
  for (uint32_t c = 0; c < e->n_components; c++) {
    int64_t n = 1;
    for (int p = 0; p < e->component[c].rank; p++)
      if (__builtin_mul_overflow(n, e->component[c].size[p], &n) || n > INT32_MAX) return false;
  }
  return true;
}

/* Of an optimiser's updates the first stands for all. */
static const char *name_of(tern__unit *u, uint32_t group) {
  char text[256];
  size_t at = 0;
  for (uint32_t k = group; k != TERN__NO && (k == group || u->group[k].windowed); k = u->group[k].sibling)
    for (uint32_t i = 0; i < u->group[k].n_ops && at < sizeof text - 48; i++)
      at += (size_t)snprintf(text + at, sizeof text - at, "%s%s", at ? "+" : "", u->op[u->group[k].op[i]].q->op->name);
  if (at >= sizeof text - 48) snprintf(text + at, sizeof text - at, "+...");
  char *name = tern__unit_alloc(u, strlen(text) + 1, 1);
  return name ? strcpy(name, text) : "fused";
}

static tern__lstep *next_step(tern__unit *u, uint32_t group, uint32_t op) {
  tern__lstep *s = &u->step[u->n_steps++];
  *s = (tern__lstep){
      .kind = u->op[op].kind, .group = group, .op = op, .device = u->op[op].device, .workspace_buffer = TERN__NO};
  return s;
}

static tern_rc finish_step(tern__unit *u, tern__lstep *s, const tern__kernel_class *k) {
  s->kernel = k;
  s->code = k->kernel;
  s->name = k->op;
  s->n_nodes = k->region->r.n_nodes;
  s->workspace = k->workspace;
  (void)u;
  if (s->workspace != UINT64_MAX) return TERN_OK;
  s->workspace = 0;
  return s->device->api->workspace ? s->device->api->workspace(s->device->dev, k->kernel, s->word, &s->workspace)
                                   : TERN_OK;
}

static tern__kernel_class *compiled(tern__unit *u, tern__device *d, tern__region *region, const char *name) {
  char *kept = tern__strdup(name); /* as long as the device: the kernel's table keeps it */
  const uint64_t began = tern__now_ns();
  tern__kernel_class *k = tern__kernel_of_region(d, region, kept ? kept : "fused");
  u->kernel_ms += (double)(tern__now_ns() - began) * 1e-6;
  if (!k || k->op != kept) free(kept);
  return k;
}

int64_t tern__emit_size(const emitter *e, const argument *a, int d) {
  return a->at[d] == NONE ? 1 : a->at[d] < OWN ? e->component[a->component].size[a->at[d]] : e->own[a->at[d] - OWN];
}

/* Words: sizes of the components, own sizes, strides, parameters. */
static tern_rc number(emitter *e) {
  tern__unit *u = e->u;
  tern__group *g = &e->g;
  *g = (tern__group){.member = e->member, .n_members = e->n_members, .n_args = e->n_args};
  for (uint32_t c = 0; c < e->n_components; c++) {
    e->component[c].first_size = (uint16_t)g->n_sizes;
    g->n_sizes += e->component[c].rank;
  }
  const uint32_t first_own = g->n_sizes;
  g->n_sizes += e->n_own;
  const uint32_t n_strided = e->n_args + e->n_views;
  tern_word *word = tern__unit_alloc(u, g->n_sizes + n_strided * TERN_MAX_RANK + e->n_params + 1, sizeof *word);
  tern__group_arg *arg = tern__unit_alloc(u, n_strided + 1, sizeof *arg);
  if (!word || !arg) return TERN_E_OOM;
  for (uint32_t c = 0; c < e->n_components; c++)
    for (int p = 0; p < e->component[c].rank; p++) word[g->n_words++].i = e->component[c].size[p];
  for (uint32_t i = 0; i < e->n_own; i++) word[g->n_words++].i = e->own[i];
  for (uint32_t i = 0; i < n_strided; i++) {
    const argument *a = nth(e, i);
    const component *c = &e->component[a->component];
    const bool anchor = u->group[c->group].anchored;
    arg[i] = (tern__group_arg){
        .kind = a->kind, .dtype = a->dtype, .rank = a->rank, .alias = a->alias, .first_word = g->n_words};
    arg[i].offset = i < e->n_args ? 0 : a->offset;
    for (int d = 0; d < a->rank; d++) {
      arg[i].size[d] = a->at[d] == NONE ? TERN__GROUP_ONE
                       : a->at[d] < OWN ? (uint16_t)(c->first_size + a->at[d])
                                        : (uint16_t)(first_own + a->at[d] - OWN);
      arg[i].stride[d] = a->stride[d];
      if (literal(a, d, anchor))
        arg[i].literal |= (uint8_t)(1u << d);
      else
        word[g->n_words++].i = a->stride[d];
    }
  }
  e->first_param = g->n_words;
  for (uint32_t i = 0; i < e->n_params; i++) word[g->n_words++] = e->param[i];
  uint32_t m = 0;
  for (uint32_t c = 0; c < e->n_components; c++)
    for (uint32_t i = 0; i < u->group[e->component[c].group].n_ops; i++, m++) {
      const tern__lop *op = &u->op[u->group[e->component[c].group].op[i]];
      tern__group_member *member = &e->member[m];
      member->first_size = e->component[c].first_size;
      member->rank = e->component[c].rank;
      for (int d = 0; d < TERN__MAX_SIZES; d++)
        member->position[d] = op->position[d] == NONE ? NONE : e->component[c].merged[op->position[d]];
      for (int k = 0; k < member->q->n_in; k++)
        if (member->in[k].how == TERN__GROUP_PARAM) member->in[k].index += e->first_param;
    }
  g->arg = arg;
  g->view = arg + e->n_args;
  g->n_views = e->n_views;
  g->flags = TERN_R_DETERMINISTIC | (fits_int32(e) ? TERN_R_IDX32 : 0);
  e->word = word;
  return TERN_OK;
}

tern__region *tern__emit_region(emitter *e, bool fixed, const uint64_t *layout) {
  for (uint32_t i = 0; i < e->n_args; i++) e->g.arg[i].layout = layout ? layout[i] : 0;
  e->g.fixed = fixed ? e->word : NULL;
  tern__region *region = tern__lower_group(&e->g);
  e->g.fixed = NULL;
  return region;
}

/* What was gathered, launched. *step NULL: the device refuses it. */
static tern_rc build(emitter *e, uint32_t group, tern__lstep **step) {
  tern__unit *u = e->u;
  const tern__kernel_class *k = e->kernel ? &e->kernel->c : NULL;
  *step = NULL;
  if (!k) {
    for (uint32_t i = 0; i < e->n_args; i++) e->g.arg[i].alias = e->arg[i].alias; /* layouts may have ended it */
    tern__region *region = tern__emit_region(e, false, NULL);
    if (!region) return tern__recorded();
    k = compiled(u, u->group[group].device, region, e->name);
    if (!k) return tern__recorded();
    if (k->state != TERN__NATIVE) return TERN_OK;
  }
  tern__larg *larg = tern__unit_alloc(u, e->n_args + 1, sizeof *larg);
  if (!larg) return TERN_E_OOM;
  for (uint32_t i = 0; i < e->n_args; i++) {
    const argument *a = &e->arg[i];
    larg[i] = (tern__larg){a->buffer, (uint64_t)a->offset * tern__dtype_size[a->dtype], a->kind == TERN_V_OUT};
    if (e->twin && e->twin[i] != TERN__NO) larg[i] = (tern__larg){e->twin[i], 0, a->kind == TERN_V_OUT};
  }
  tern__lstep *s = next_step(u, group, u->group[group].op[0]);
  s->arg = larg;
  s->n_args = e->n_args;
  s->word = e->word;
  s->n_words = e->g.n_words;
  s->dynamic = tern__unit_alloc(u, e->n_dynamic + 1, sizeof *s->dynamic);
  if (!s->dynamic) return TERN_E_OOM;
  s->n_dynamic = e->n_dynamic;
  for (uint32_t i = 0; e->twin && i < e->n_args && i < 64; i++) {
    if (e->twin[i] == TERN__NO) continue;
    s->packed |= UINT64_C(1) << i;
    s->constants |= (uint64_t)(u->buffer[e->twin[i]].place == TERN__PLACE_CONST) << i;
  }
  for (uint32_t i = 0; i < e->n_dynamic; i++) {
    s->dynamic[i] = e->dynamic[i];
    s->dynamic[i].word += e->first_param;
  }
  *step = s;
  return finish_step(u, s, k);
}

tern_rc tern__emit_gather(tern__unit *u, uint32_t group, emitter **out) {
  uint32_t n_ops = 0, n_components = 0, n_operands = 0;
  for (uint32_t k = group; k != TERN__NO; k = u->group[k].sibling, n_components++) {
    n_ops += u->group[k].n_ops;
    for (uint32_t i = 0; i < u->group[k].n_ops; i++)
      n_operands += u->op[u->group[k].op[i]].n_in + u->op[u->group[k].op[i]].n_out;
  }
  *out = NULL;
  emitter *e = tern__unit_alloc(u, 1, sizeof *e);
  if (!e) return TERN_E_OOM;
  e->u = u;
  e->component = tern__unit_alloc(u, n_components, sizeof *e->component);
  e->arg = tern__unit_alloc(u, n_operands < MAX_ARGS ? n_operands + 1 : MAX_ARGS, sizeof *e->arg);
  e->view = tern__unit_alloc(u, n_operands + 1, sizeof *e->view);
  e->own = tern__unit_alloc(u, OWN * 2, sizeof *e->own);
  e->member = tern__unit_alloc(u, n_ops, sizeof *e->member);
  e->dynamic = tern__unit_alloc(u, n_operands + 1, sizeof *e->dynamic);
  e->param = tern__unit_alloc(u, n_operands + 1, sizeof *e->param);
  if (!e->component || !e->arg || !e->view || !e->own || !e->member || !e->dynamic || !e->param) return TERN_E_OOM;
  for (uint32_t k = group; k != TERN__NO; k = u->group[k].sibling) {
    e->component[e->n_components++].group = k;
    const uint32_t first = e->n_members;
    for (uint32_t i = 0; i < u->group[k].n_ops; i++)
      if (!add_member(e, e->n_components - 1, first, u->group[k].op[i])) return TERN_OK; /* too large: op by op */
    merge(e, e->n_components - 1);
  }
  bool writes = false; /* dead code, where simplification is off: no region without results; op by op */
  for (uint32_t i = 0; i < e->n_args; i++) writes = writes || e->arg[i].kind == TERN_V_OUT;
  if (!writes) return TERN_OK;
  e->name = name_of(u, group);
  const tern_rc rc = number(e);
  if (!rc) *out = e;
  return rc;
}

static tern_rc emit_group(tern__unit *u, uint32_t group, tern__lstep **step) {
  emitter *e = u->layout ? u->layout->emitter[group] : NULL;
  *step = NULL;
  const tern_rc rc = e ? TERN_OK : tern__emit_gather(u, group, &e);
  return rc || !e ? rc : build(e, group, step);
}

/* One op the eager way. */
static tern_rc emit_single(tern__unit *u, uint32_t group, uint32_t index) {
  const tern__lop *op = &u->op[index];
  tern__lstep *s = next_step(u, group, index);
  if (!op->q) { /* a move, a print, control */
    s->arg = tern__unit_alloc(u, op->n_in + op->n_out + 1, sizeof *s->arg);
    if (!s->arg) return TERN_E_OOM;
    s->name = u->g->node[op->node].kind == TERN__IR_OP ? u->g->node[op->node].op->name : "control";
    for (uint32_t i = 0; i < op->n_in; i++) s->arg[s->n_args++] = (tern__larg){.buffer = tern__root(u, op->in[i])};
    for (uint32_t o = 0; o < op->n_out; o++)
      s->arg[s->n_args++] = (tern__larg){.buffer = tern__root(u, op->out[o]), .written = true};
    return TERN_OK;
  }
  tern__request *q = tern__unit_alloc(u, 1, sizeof *q);
  if (!q) return TERN_E_OOM;
  *q = *op->q;
  for (int k = 0; k < q->n_in + q->n_out; k++)
    if (q->arg[k].kind != TERN_V_PARAM)
      q->arg[k].storage = &u->ghost[tern__root(u, (uint32_t)(q->arg[k].storage - u->ghost))];
  tern__canonicalise(q);
  const uint64_t began = tern__now_ns();
  tern__kernel_class *k = tern__kernel_of(q);
  u->kernel_ms += (double)(tern__now_ns() - began) * 1e-6;
  if (!k) return tern__recorded();
  s->word = tern__unit_alloc(u, TERN__MAX_WORDS, sizeof *s->word);
  s->arg = tern__unit_alloc(u, TERN__MAX_ARGS, sizeof *s->arg);
  s->dynamic = tern__unit_alloc(u, TERN__MAX_ARGS, sizeof *s->dynamic);
  if (!s->word || !s->arg || !s->dynamic) return TERN_E_OOM;
  s->n_words = tern__words(q, s->word);
  s->slow = k->state != TERN__NATIVE;
  uint32_t word = q->n_sizes;
  emitter e = {.u = u};
  for (int i = 0; i < q->n_in + q->n_out; i++) {
    const tern__operand *a = &q->arg[i];
    uint32_t value;
    if (a->kind == TERN_V_PARAM) {
      if (source_of(&e, a, &value))
        s->dynamic[s->n_dynamic++] = (tern__lword){
            .word = s->slow ? (uint32_t)i : word, .value = value, .dtype = a->dtype, .from = u->g->value[value].dtype};
      word++;
      continue;
    }
    if (a->same_as != i && !s->slow) continue;
    for (int d = 0; d < a->rank; d++) word += !tern__stride_is_literal(q, a, d);
    s->arg[s->n_args++] = (tern__larg){(uint32_t)(a->storage - u->ghost),
                                       (uint64_t)a->offset * tern__dtype_size[a->dtype], a->kind == TERN_V_OUT};
  }
  u->op[index].q = q; /* canonical now: what a slow step runs */
  return s->slow ? (s->kernel = k, s->name = k->op, TERN_OK) : finish_step(u, s, k);
}

static void part_ways(tern__unit *u, uint32_t group) {
  for (uint32_t k = group; k != TERN__NO; k = u->group[k].sibling)
    for (uint32_t i = 0; i < u->group[k].n_ops; i++)
      for (uint32_t o = 0; o < u->op[u->group[k].op[i]].n_out; o++)
        u->buffer[u->op[u->group[k].op[i]].out[o]].same = TERN__NO;
}

/* Op by op: then everything that the group would have kept inside is in memory. */
static tern_rc emit_apart(tern__unit *u, uint32_t group) {
  tern_rc rc = TERN_OK;
  for (uint32_t k = group; k != TERN__NO; k = u->group[k].sibling)
    for (uint32_t i = 0; i < u->group[k].n_ops && !rc; i++) rc = emit_single(u, group, u->group[k].op[i]);
  return rc;
}

static tern_rc emit_one(tern__unit *u, uint32_t group);

/* A refused anchor and the nest that reads it through windows: two launches, and what is between them is in memory. */
static tern_rc emit_two(tern__unit *u, uint32_t group) {
  const uint32_t nest = u->group[group].sibling;
  part_ways(u, group);
  u->group[group].sibling = TERN__NO;
  u->group[nest].windowed = u->group[nest].dead = false;
  u->group[nest].head = nest;
  for (uint32_t i = 0; i < u->group[nest].n_ops; i++) {
    const tern__lop *op = &u->op[u->group[nest].op[i]];
    for (uint32_t k = 0; k < op->n_in; k++) {
      tern__lbuffer *b = op->in[k] == TERN__NO ? NULL : &u->buffer[op->in[k]];
      if (b && b->maker != TERN__NO && u->op[b->maker].group == group) b->n_grouped--;
    }
  }
  const tern_rc rc = emit_one(u, group);
  return rc ? rc : emit_one(u, nest);
}

/* A refused anchor goes alone and its maps become a nest, whose positions go by memory order. */
static void drop_anchor(tern__unit *u, uint32_t group) {
  tern__lgroup *g = &u->group[group];
  const tern__lop *anchor = &u->op[g->op[0]];
  const tern__operand *out = &anchor->q->arg[anchor->q->n_in];
  uint8_t place[TERN_MAX_RANK] = {0};
  int64_t size[TERN_MAX_RANK];
  for (int p = 0; p < g->rank; p++)
    for (int o = 0; o < g->rank; o++)
      place[p] += out->stride[o] > out->stride[p] || (out->stride[o] == out->stride[p] && o < p);
  for (int p = 0; p < g->rank; p++) size[place[p]] = g->size[p];
  memcpy(g->size, size, g->rank * sizeof *size);
  memmove(g->op, g->op + 1, --g->n_ops * sizeof *g->op);
  g->anchored = false;
  g->kind = TERN__L_MAP;
  for (uint32_t i = 0; i < g->n_ops; i++)
    for (int d = 0; d < TERN__MAX_SIZES; d++)
      if (u->op[g->op[i]].position[d] != NONE) u->op[g->op[i]].position[d] = place[u->op[g->op[i]].position[d]];
}

static tern_rc emit_one(tern__unit *u, uint32_t group) {
  const tern__lgroup *g = &u->group[group];
  const emitter *e = u->layout ? u->layout->emitter[group] : NULL;
  const bool laid = e && (e->kernel || e->twin);
  if (g->n_ops == 1 && g->sibling == TERN__NO && !laid) return emit_single(u, group, g->op[0]);
  tern__lstep *step;
  tern_rc rc = emit_group(u, group, &step);
  if (rc || step) return rc;
  if (laid) return tern__fail(TERN_E_INTERNAL, "graph: %s is refused with its arrays packed", e->name);
  if (g->sibling != TERN__NO && u->group[g->sibling].windowed) return emit_two(u, group);
  if (g->anchored && g->n_ops > 1 && !(rc = emit_single(u, group, g->op[0]))) {
    drop_anchor(u, group);
    if (u->layout) u->layout->emitter[group] = NULL;
    return emit_one(u, group);
  }
  if (rc) return rc;
  part_ways(u, group);
  return emit_apart(u, group);
}

/* A copy into or out of a packed layout. */
static tern_rc emit_copy(tern__unit *u, uint32_t group, const tern__layout_copy *c) {
  tern__lstep *s = next_step(u, group, u->group[group].op[0]);
  s->kind = TERN__L_OPAQUE;
  s->arg = tern__unit_alloc(u, 2, sizeof *s->arg);
  if (!s->arg) return TERN_E_OOM;
  s->arg[0] = (tern__larg){.buffer = c->from, .offset = c->from_offset};
  s->arg[1] = (tern__larg){.buffer = c->to, .offset = c->to_offset, .written = true};
  s->n_args = 2;
  return finish_step(u, s, &c->kernel->c);
}

/* Nothing that it makes is read or asked for (without the pass that drops such ops). */
static bool is_useless(const tern__unit *u, uint32_t group) {
  for (uint32_t k = group; k != TERN__NO; k = u->group[k].sibling)
    for (uint32_t i = 0; i < u->group[k].n_ops; i++) {
      const tern__lop *op = &u->op[u->group[k].op[i]];
      if (!op->q) return false;
      for (uint32_t o = 0; o < op->n_out; o++)
        if (tern__needs_memory(u, op->out[o], k)) return false;
    }
  return true;
}

tern_rc tern__unit_emit(tern__unit *u) {
  u->step = tern__unit_alloc(u, u->n_ops + (u->layout ? u->layout->n_copies : 0) + 1, sizeof *u->step);
  if (!u->step) return TERN_E_OOM;
  tern_rc rc = TERN_OK;
  uint32_t copy = 0;
  for (uint32_t i = 0; i < u->n_order && !rc; i++) {
    if (is_useless(u, u->order[i])) continue;
    const uint32_t n = u->layout ? u->layout->n_copies : 0;
    for (; copy < n && u->layout->copy[copy].turn == i && u->layout->copy[copy].before && !rc; copy++)
      rc = emit_copy(u, u->order[i], &u->layout->copy[copy]);
    if (!rc) rc = emit_one(u, u->order[i]);
    for (; copy < n && u->layout->copy[copy].turn == i && !rc; copy++)
      rc = emit_copy(u, u->order[i], &u->layout->copy[copy]);
  }
  return rc;
}
