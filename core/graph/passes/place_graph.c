/* From a graph to a placement problem and back. The problem's nodes are the groups that would be one launch on a single
   device; their times come from history, plugin or roofline (cost.h); constants are everywhere, operands and variables
   at home. */
#include "graph/passes/place_graph.h"
#include "base/alloc.h"
#include "base/options.h"
#include "base/string.h"
#include "device/device.h"
#include "graph/passes/cost.h"
#include "graph/passes/place.h"
#include "graph/passes/place_replay.h"
#include "graph/passes/simplify_parts.h"
#include "graph/run/watch.h"
#include <stdio.h>
#include <stdlib.h>
#include <tern/device.h>

typedef struct placing {
  tern__graph *g;
  tern__unit u; /* of a copy of the graph, all of it on device[0] */
  tern__device *device[TERN__MAX_DEVICES];
  tern__cost_model model[TERN__MAX_DEVICES];
  int n_devices;
  uint32_t *node_of; /* of each group: its node of the problem */
  int32_t *parent;   /* of each node: for those that must be together */
  uint64_t *time;
  int32_t *pin, *group;
  int *assignment;
  FILE *report;
} placing;

static tern_rc no_memory(void) { return tern__fail(TERN_E_OOM, "placement: out of host memory"); }

/* ---- devices ---- */

static int index_of(const placing *p, const tern__device *d) {
  for (int i = 0; i < p->n_devices; i++)
    if (p->device[i] == d) return i;
  return -1;
}

static tern_rc add_device(placing *p, tern__device *d) {
  if (!d || index_of(p, d) >= 0 || p->n_devices == TERN__PLACE_MAX_DEVICES) return TERN_OK;
  const tern_rc rc = tern__device_open(d);
  if (!rc) p->device[p->n_devices++] = d;
  return rc;
}

/* Those that the graph names, then the ones that TERN_PLACEMENT_DEVICES lists, or all that are not hidden. */
static tern_rc find_devices(placing *p) {
  const char *list = tern__opt()->placement_devices;
  tern_rc rc = add_device(p, tern__device_default());
  for (uint32_t v = 0; v < p->g->n_values && !rc; v++) rc = add_device(p, p->g->value[v].device);
  for (uint32_t i = 0; i < p->g->n_nodes && !rc; i++) rc = add_device(p, p->g->node[i].device);
  while (*list && !rc) {
    char name[80];
    const size_t n = strcspn(list, ",");
    snprintf(name, sizeof name, "%.*s", (int)n, list);
    tern__device *d = tern__device_named(name);
    rc = d ? add_device(p, d) : tern__recorded();
    list += n + (list[n] == ',');
  }
  if (rc || *tern__opt()->placement_devices) return rc;
  tern_device_desc desc;
  for (int i = 0; tern_device_at(i, &desc) == TERN_OK; i++) {
    tern__device *d = desc.hidden ? NULL : tern__device_named(desc.name);
    if (d && add_device(p, d)) tern_error_clear(); /* a device that does not open is not a candidate */
  }
  return TERN_OK;
}

/* ---- the copy on one device, grouped ---- */

static bool is_update(const tern__ir_node *n) {
  return n->kind == TERN__IR_OP && n->op->number >= 900 && n->op->number < 910;
}

/* Where the program wants the node; NULL: anywhere. */
static tern__device *pin_of(const tern__graph *g, const tern__ir_node *n) {
  if (n->kind != TERN__IR_OP) return n->kind == TERN__IR_PRINT ? g->value[n->in[0]].device : n->device;
  return n->pinned || n->op == &tern__op_to || is_update(n) ? n->device : NULL;
}

static tern_rc prepare(placing *p, const tern__compile_opts *opts) {
  tern__unit *u = &p->u;
  u->opts = opts;
  u->g = tern__graph_clone(p->g, NULL, NULL);
  if (!u->g) return tern__recorded();
  for (uint32_t i = 0; i < u->g->n_nodes; i++) u->g->node[i].device = p->device[0];
  for (uint32_t v = 0; v < u->g->n_values; v++)
    if (!u->g->value[v].weak) u->g->value[v].device = p->device[0];
  tern_rc rc = tern__unit_lower(u);
  for (uint32_t i = 0; i < u->n_ops && !rc; i++) {
    tern__lop *op = &u->op[i];
    const bool copy = op->q && op->q->op != p->g->node[op->node].op; /* made by lowering */
    op->pin = copy ? NULL : pin_of(p->g, &p->g->node[op->node]);
  }
  if (!rc) rc = tern__unit_fuse(u);
  if (!rc) rc = tern__unit_order(u);
  return rc;
}

/* ---- times ---- */

/* A region, and what it takes; NEVER where the device refuses it. */
static uint64_t time_of_region(tern__device *d, const tern_region *r, const tern_word *words) {
  uint32_t want_static = 0;
  if ((d->info.max_args && r->n_args > d->info.max_args) || (d->info.max_nodes && r->n_nodes > d->info.max_nodes) ||
      d->api->supports(d->dev, r, &want_static) || want_static)
    return TERN__PLACE_NEVER;
  const uint64_t ns = tern__cost_region(d, r, words);
  return ns == TERN__PLACE_NEVER ? ns - 1 : ns;
}

/* ns of each op of the group (with its siblings) by itself on a device; NEVER: it cannot be there. */
static tern_rc time_apart(placing *p, uint32_t head, tern__device *d, uint64_t *ns) {
  const tern__unit *u = &p->u;
  uint64_t sum = 0;
  *ns = TERN__PLACE_NEVER;
  for (uint32_t k = head; k != TERN__NO; k = u->group[k].sibling)
    for (uint32_t i = 0; i < u->group[k].n_ops; i++) {
      const tern__lop *op = &u->op[u->group[k].op[i]];
      if (op->pin && op->pin != d) return TERN_OK;
      if (!op->q) {
        *ns = 1;
        return TERN_OK;
      }
      tern__request q = *op->q;
      tern_word words[TERN__MAX_WORDS];
      q.device = d;
      tern__canonicalise(&q);
      tern__region *region = tern__lower(&q);
      if (!region) return tern__recorded();
      tern__words(&q, words);
      const uint64_t own = time_of_region(d, &region->r, words);
      free(region);
      if (own == TERN__PLACE_NEVER) return TERN_OK;
      sum += own;
    }
  *ns = sum;
  return TERN_OK;
}

/* ns of the group on each device: of its one launch, or of a launch for each op where the device refuses that. */
static tern_rc times_of(placing *p, uint32_t head, uint64_t *ns) {
  tern__unit *u = &p->u;
  const bool several = u->group[head].n_ops > 1 || u->group[head].sibling != TERN__NO;
  tern__region *region = NULL;
  const tern_word *words = NULL;
  tern_rc rc = several ? tern__unit_region(u, head, &region, &words) : TERN_OK;
  if (rc == TERN_E_UNSUPPORTED) rc = TERN_OK;
  for (int i = 0; i < p->n_devices && !rc; i++) {
    rc = time_apart(p, head, p->device[i], &ns[i]);
    if (rc || ns[i] == TERN__PLACE_NEVER || !region) continue;
    const uint64_t fused = time_of_region(p->device[i], &region->r, words);
    if (fused != TERN__PLACE_NEVER) ns[i] = fused;
  }
  free(region);
  return rc;
}

/* ---- the problem ---- */

static int32_t root_of(const placing *p, int32_t n) {
  while (p->parent[n] != n) n = p->parent[n];
  return n;
}

/* Groups that write parts of one buffer stay together. */
static tern_rc tie_writers(placing *p) {
  const tern__unit *u = &p->u;
  int32_t *writer = tern__calloc(u->n_buffers + 1, sizeof *writer);
  if (!writer) return no_memory();
  for (uint32_t i = 0; i < u->n_ops; i++)
    for (uint32_t o = 0; o < u->op[i].n_out; o++) {
      const uint32_t b = u->op[i].out[o];
      const int32_t node = (int32_t)p->node_of[u->op[i].group];
      if (!u->buffer[b].written_part) continue;
      if (writer[b]) p->parent[root_of(p, node)] = root_of(p, writer[b] - 1);
      writer[b] = node + 1;
    }
  free(writer);
  for (uint32_t n = 0; n < u->n_order; n++) p->group[n] = root_of(p, (int32_t)n);
  return TERN_OK;
}

/* The device on which the real graph has the value that lies in a buffer. */
static int home_of(const placing *p, const tern__lbuffer *b) {
  const tern__graph *g = p->g;
  if (b->place == TERN__PLACE_INPUT) return index_of(p, g->value[g->input[b->index]].device);
  if (b->place == TERN__PLACE_VARIABLE || b->place == TERN__PLACE_NEXT)
    return index_of(p, g->variable[b->index].variable->device);
  return -1;
}

static tern_rc solve(placing *p, tern__place_report *report) {
  tern__unit *u = &p->u;
  const uint32_t n = u->n_order;
  uint32_t n_in = 0;
  for (uint32_t i = 0; i < u->n_ops; i++) n_in += u->op[i].n_in;
  tern__place_value *value = tern__unit_alloc(u, u->n_buffers + 1, sizeof *value);
  tern__place_device *device = tern__unit_alloc(u, (size_t)p->n_devices, sizeof *device);
  uint32_t *first = tern__unit_alloc(u, n + 2, sizeof *first), *in = tern__unit_alloc(u, n_in + 1, sizeof *in), at = 0;
  p->node_of = tern__unit_alloc(u, u->n_groups + 1, sizeof *p->node_of);
  p->parent = tern__unit_alloc(u, n + 1, sizeof *p->parent);
  p->group = tern__unit_alloc(u, n + 1, sizeof *p->group);
  p->pin = tern__unit_alloc(u, n + 1, sizeof *p->pin);
  p->time = tern__unit_alloc(u, (size_t)(n + 1) * (size_t)p->n_devices, sizeof *p->time);
  p->assignment = tern__unit_alloc(u, n + 1, sizeof *p->assignment);
  if (!value || !device || !first || !in || !p->node_of || !p->parent || !p->group || !p->pin || !p->time ||
      !p->assignment)
    return tern__recorded();
  for (int d = 0; d < p->n_devices; d++) {
    p->model[d] = tern__cost_model_of(p->device[d]);
    device[d] = (tern__place_device){p->model[d].link_bandwidth, p->model[d].link_ns};
  }
  for (uint32_t k = 0; k < n; k++)
    for (uint32_t s = u->order[k]; s != TERN__NO; s = u->group[s].sibling) p->node_of[s] = k;
  for (uint32_t b = 0; b < u->n_buffers; b++)
    value[b] =
        (tern__place_value){.node = -1, .home = home_of(p, &u->buffer[b]), .out = -1, .bytes = u->buffer[b].bytes};
  for (uint32_t i = 0; i < u->n_ops; i++)
    for (uint32_t o = 0; o < u->op[i].n_out; o++) value[u->op[i].out[o]].node = (int32_t)p->node_of[u->op[i].group];
  for (uint32_t i = 0; i < p->g->n_outputs; i++) {
    const uint32_t v = p->g->output[i];
    if (v != TERN__IR_NONE && u->buffer_of[v] != TERN__NO)
      value[u->buffer_of[v]].out = index_of(p, p->g->value[v].device);
  }
  for (uint32_t i = 0; i < p->g->n_variables; i++)
    if (u->next[i] != TERN__NO) value[u->next[i]].out = index_of(p, p->g->variable[i].variable->device);
  tern_rc rc = TERN_OK;
  for (uint32_t k = 0; k < n && !rc; k++) {
    p->parent[k] = (int32_t)k;
    p->pin[k] = -1;
    first[k] = at;
    for (uint32_t s = u->order[k]; s != TERN__NO; s = u->group[s].sibling)
      for (uint32_t i = 0; i < u->group[s].n_ops; i++) {
        const tern__lop *op = &u->op[u->group[s].op[i]];
        if (op->pin) p->pin[k] = index_of(p, op->pin);
        for (uint32_t x = 0; x < op->n_in; x++)
          if (op->in[x] != TERN__NO && value[op->in[x]].node != (int32_t)k) in[at++] = op->in[x];
      }
    rc = times_of(p, u->order[k], &p->time[(size_t)k * (size_t)p->n_devices]);
  }
  first[n] = at;
  if (!rc) rc = tie_writers(p);
  const tern__place_problem problem = {.n_nodes = n,
                                       .n_devices = (uint32_t)p->n_devices,
                                       .n_values = u->n_buffers,
                                       .devices = device,
                                       .time = p->time,
                                       .pin = p->pin,
                                       .group = p->group,
                                       .in_first = first,
                                       .in = in,
                                       .values = value};
  if (!rc) rc = tern__place_solve(&problem, NULL, p->assignment, report);
  return rc ? rc : tern__place_replay(&problem, p->assignment, report);
}

/* ---- back into the graph ---- */

static void tell(placing *p, const tern__place_report *r) {
  const tern__unit *u = &p->u;
  fprintf(p->report, "placement: %.1f us expected, %u values copied; all on one device: ", (double)r->makespan * 1e-3,
          r->copies);
  if (r->single < 0)
    fprintf(p->report, "not possible\n");
  else
    fprintf(p->report, "%.1f us on %s\n", (double)r->single_makespan * 1e-3, p->device[r->single]->name);
  for (uint32_t k = 0; k < u->n_order; k++) {
    const tern__lop *op = &u->op[u->group[u->order[k]].op[0]];
    const int at = p->assignment[k];
    int able = 0, fastest = at;
    fprintf(p->report, "  %-10s %s", p->device[at]->name, op->q ? op->q->op->name : "a copy or control");
    if (u->group[u->order[k]].n_ops > 1) fprintf(p->report, " and %u more", u->group[u->order[k]].n_ops - 1);
    for (int d = 0; d < p->n_devices; d++) {
      const uint64_t ns = p->time[k * (uint32_t)p->n_devices + (uint32_t)d];
      if (ns == TERN__PLACE_NEVER) continue;
      able++;
      if (ns < p->time[k * (uint32_t)p->n_devices + (uint32_t)fastest]) fastest = d;
      fprintf(p->report, "%s%s %.1f us", able == 1 ? ": " : ", ", p->device[d]->name, (double)ns * 1e-3);
    }
    fprintf(p->report, "; %s\n",
            p->pin[k] >= 0  ? "pinned"
            : able == 1     ? "nothing else runs it"
            : fastest == at ? "fastest here"
                            : "slower here than elsewhere, but less copying or waiting");
  }
}

static void set_device(tern__graph *g, uint32_t node, tern__device *d) {
  tern__ir_node *n = &g->node[node];
  n->device = d;
  for (uint32_t o = 0; o < n->n_out; o++)
    if (!g->value[n->first_out + o].weak) g->value[n->first_out + o].device = d;
}

/* Nodes that no group computes follow their operands, or those who write into them. */
static void settle_others(tern__graph *g) {
  for (uint32_t i = g->n_nodes; i-- > 0;) {
    const tern__ir_node *n = &g->node[i];
    if (n->kind != TERN__IR_OP || n->op != &tern__op_write) continue;
    const uint32_t whole = g->value[n->in[0]].node;
    if (g->node[whole].kind == TERN__IR_OP && g->node[whole].op == &tern__op_empty) set_device(g, whole, n->device);
  }
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    const tern__ir_node *n = &g->node[i];
    if (tern__ir_is_view(n)) set_device(g, i, g->value[n->in[0]].device);
    if (n->kind == TERN__IR_PRINT) g->node[i].device = g->value[n->in[0]].device;
  }
}

typedef struct copies {
  tern__graph *g;
  uint32_t *of; /* value x device -> the copy, 0: none */
  uint32_t *before, n, capacity, n_values, first_new;
  int n_devices;
} copies;

/* The value on device d, copied in front of node `before`, or of an earlier one that needed it too. */
static uint32_t copy_on(placing *p, copies *c, uint32_t value, tern__device *d, uint32_t before) {
  tern__graph *g = c->g;
  const int at = index_of(p, d);
  uint32_t *known = &c->of[value * (uint32_t)c->n_devices + (uint32_t)at];
  if (*known) return *known;
  if (c->n == c->capacity) {
    uint32_t *more = tern__realloc(c->before, 2 * (c->capacity + 16) * sizeof *more);
    if (!more) return no_memory(), TERN__IR_NONE;
    c->before = more;
    c->capacity = 2 * (c->capacity + 16);
  }
  const tern__ir_node *maker = &g->node[g->value[value].node];
  tern_tensor *constant = maker->kind == TERN__IR_CONST ? maker->tensor : NULL; /* copied once, now */
  if (constant) {
    tern_scope_mark mark = tern_scope_begin();
    constant = tern_to(constant, d->name);
    if (constant) tern__ref(constant);
    tern_scope_end(&mark);
    if (!constant) return TERN__IR_NONE;
  }
  const uint32_t node = constant ? tern__graph_add(g, TERN__IR_CONST, NULL, NULL, 0, NULL, 0, 1)
                                 : tern__graph_add(g, TERN__IR_OP, &tern__op_to, &value, 1, NULL, 0, 1);
  if (node == TERN__IR_NONE) {
    if (constant) tern__unref(constant);
    return node;
  }
  g->node[node].tensor = constant;
  const uint32_t out = g->node[node].first_out;
  const tern__ir_value from = g->value[value];
  g->value[out].dtype = from.dtype;
  g->value[out].rank = from.rank;
  memcpy(g->value[out].shape, from.shape, sizeof from.shape);
  set_device(g, node, d);
  c->before[c->n++] = before;
  if (!constant)
    fprintf(p->report, "  copied: %%%u, %lld elements, %s to %s\n", value,
            (long long)tern__numel(from.rank, from.shape), from.device->name, d->name);
  return *known = out;
}

static tern_rc insert_copies(placing *p, tern__device *const *result_device) {
  tern__graph *g = p->g;
  copies c = {.g = g, .n_values = g->n_values, .first_new = g->n_nodes, .n_devices = p->n_devices};
  c.of = tern__calloc((size_t)(g->n_values + 1) * (size_t)p->n_devices, sizeof *c.of);
  if (!c.of) return no_memory();
  bool ok = true;
  for (uint32_t i = 0; i < c.first_new && ok; i++) {
    for (uint32_t k = 0; k < g->node[i].n_in && ok; k++) {
      const tern__ir_node *n = &g->node[i];
      const uint32_t v = n->in[k];
      if (v == TERN__IR_NONE || g->value[v].weak || (n->kind == TERN__IR_OP && n->op == &tern__op_to)) continue;
      if (!n->device || g->value[v].device == n->device) continue;
      const uint32_t copy = copy_on(p, &c, v, n->device, i);
      ok = copy != TERN__IR_NONE;
      g->node[i].in[k] = copy;
    }
  }
  for (uint32_t i = 0; i < g->n_outputs && ok; i++) {
    const uint32_t v = g->output[i];
    if (v == TERN__IR_NONE || g->value[v].weak || g->value[v].device == result_device[i]) continue;
    ok = (g->output[i] = copy_on(p, &c, v, result_device[i], c.first_new)) != TERN__IR_NONE;
  }
  for (uint32_t i = 0; i < g->n_variables && ok; i++) {
    const uint32_t v = g->variable[i].value;
    tern__device *d = g->variable[i].variable->device;
    if (g->value[v].device != d) ok = (g->variable[i].value = copy_on(p, &c, v, d, c.first_new)) != TERN__IR_NONE;
  }
  tern_rc rc = ok ? TERN_OK : tern__recorded();
  if (ok && c.n) rc = tern__graph_settle(g, c.first_new, c.before);
  free(c.of);
  free(c.before);
  return rc;
}

static tern_rc apply(placing *p) {
  tern__graph *g = p->g;
  const tern__unit *u = &p->u;
  tern__device **result = tern__calloc(g->n_outputs + 1, sizeof *result);
  if (!result) return no_memory();
  for (uint32_t i = 0; i < g->n_outputs; i++)
    result[i] = g->output[i] == TERN__IR_NONE ? NULL : g->value[g->output[i]].device;
  for (uint32_t i = 0; i < u->n_ops; i++) {
    const tern__lop *op = &u->op[i];
    if (op->q && op->q->op == g->node[op->node].op)
      set_device(g, op->node, p->device[p->assignment[p->node_of[op->group]]]);
  }
  settle_others(g);
  const tern_rc rc = insert_copies(p, result);
  free(result);
  return rc;
}

tern_rc tern__graph_place(tern__graph *g, const tern__compile_opts *opts, char **report) {
  placing *p = tern__calloc(1, sizeof *p);
  size_t size = 0;
  *report = NULL;
  if (!p) return no_memory();
  p->g = g;
  p->report = open_memstream(report, &size);
  tern__place_report found = {0};
  tern_rc rc = p->report ? find_devices(p) : no_memory();
  if (!rc && p->n_devices > 1) {
    rc = prepare(p, opts);
    if (!rc) rc = solve(p, &found);
    if (!rc) tell(p, &found);
    if (!rc) rc = apply(p);
  }
  if (p->report) fclose(p->report);
  tern__unit_free(&p->u);
  free(p);
  return rc;
}
