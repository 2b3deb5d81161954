/* Turning a unit into a program: arrays copied together, patch lists, frames. */
#include "base/alloc.h"
#include "device/device.h"
#include "graph/passes/layout.h"
#include "graph/run/branches.h"
#include "graph/run/program.h"
#include "tensor/dtype.h"
#include <stdlib.h>

static bool is_external(const tern__pbuffer *b) {
  return b->place != TERN__PLACE_ARENA && b->place != TERN__PLACE_CONST;
}

static uint32_t arena_of(const tern__unit *u, const tern__device *d) {
  for (uint32_t a = 0; a < u->n_arenas; a++)
    if (u->arena[a].device == d) return a;
  return 0;
}

static bool allocate(tern__program *p, const tern__unit *u) {
  const tern__graph *g = u->g;
  uint32_t n_dynamic = 0;
  for (uint32_t s = 0; s < u->n_steps; s++) {
    p->n_args += u->step[s].n_args;
    p->n_words += u->step[s].n_words;
    n_dynamic += u->step[s].n_dynamic;
  }
  p->n_steps = u->n_steps;
  p->n_buffers = u->n_buffers;
  p->n_results = g->n_outputs;
  p->n_variables = g->n_variables;
  p->n_arenas = u->n_arenas;
  p->n_inputs = g->n_inputs;
  for (uint32_t i = 0; i < g->n_nodes; i++) p->n_sources += g->node[i].kind == TERN__IR_SOURCE;
  p->step = tern__calloc(p->n_steps + 1, sizeof *p->step);
  p->buffer = tern__calloc(p->n_buffers + 1, sizeof *p->buffer);
  p->patch = tern__calloc(p->n_args + 1, sizeof *p->patch);
  p->result = tern__calloc(p->n_results + 1, sizeof *p->result);
  p->dynamic = tern__calloc(n_dynamic + 1, sizeof *p->dynamic);
  p->source = tern__calloc(p->n_sources + 1, sizeof *p->source);
  p->variable = tern__calloc(p->n_variables + 1, sizeof *p->variable);
  p->next = tern__calloc(p->n_variables + 1, sizeof *p->next);
  p->external = tern__calloc(p->n_buffers + 1, sizeof *p->external);
  p->arena = tern__calloc(p->n_arenas + 1, sizeof *p->arena);
  p->words = tern__calloc(p->n_words + 1, sizeof *p->words);
  p->args = tern__calloc(p->n_args + 1, sizeof *p->args);
  p->step_of = tern__calloc(p->n_args + 1, sizeof *p->step_of);
  return p->step && p->buffer && p->patch && p->result && p->dynamic && p->source && p->variable && p->next &&
         p->external && p->arena && p->words && p->args && p->step_of;
}

static void take_sources(tern__program *p, const tern__graph *g, uint32_t *number) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    const tern__ir_node *node = &g->node[i];
    if (node->kind != TERN__IR_SOURCE) continue;
    number[i] = n;
    p->source[n++] =
        (tern__psource){.source = *node->source, .elements = node->attr[0].i, .first = p->n_drawn, .n = node->n_out};
    p->n_drawn += node->n_out;
  }
}

static void take_buffers(tern__program *p, const tern__unit *u) {
  for (uint32_t b = 0; b < u->n_buffers; b++) {
    const tern__lbuffer *from = &u->buffer[b];
    p->buffer[b] = (tern__pbuffer){.place = from->place,
                                   .dtype = from->dtype,
                                   .index = from->index,
                                   .root = tern__root(u, b),
                                   .bytes = from->bytes,
                                   .offset = from->offset,
                                   .arena = arena_of(u, from->device),
                                   .device = from->device,
                                   .tensor = from->tensor ? tern__ref(from->tensor) : NULL};
    const bool used = p->buffer[b].root == b && (from->last >= 0 || from->wanted);
    if (used && is_external(&p->buffer[b])) p->external[p->n_external++] = b;
    if (used && (from->place == TERN__PLACE_RESULT || from->place == TERN__PLACE_NEXT)) p->n_fresh++;
  }
}

/* Arguments by buffer, so that a buffer's new memory reaches all of them. */
static void make_patches(tern__program *p) {
  for (uint32_t a = 0; a < p->n_args; a++) p->buffer[p->args[a].buffer].n_patches++;
  uint32_t at = 0;
  for (uint32_t b = 0; b < p->n_buffers; b++) {
    p->buffer[b].first_patch = at;
    at += p->buffer[b].n_patches;
    p->buffer[b].n_patches = 0;
  }
  for (uint32_t a = 0; a < p->n_args; a++) {
    tern__pbuffer *b = &p->buffer[p->args[a].buffer];
    p->patch[b->first_patch + b->n_patches++] = (tern__ppatch){a, p->args[a].offset};
  }
}

static tern_rc take_bodies(tern__pstep *s, tern__unit *u, uint32_t node) {
  for (int b = 0; b < 2; b++) {
    if (!u->g->node[node].body[b]) continue;
    tern__graph *copy = tern__graph_clone(u->g->node[node].body[b], NULL, NULL);
    tern__compile_opts opts = *u->opts;
    opts.n_states = b == 1 && u->g->node[node].kind == TERN__IR_WHILE ? u->g->node[node].n_out : 0;
    s->body[b] = copy ? tern__compile(copy, &opts) : NULL;
    if (!s->body[b]) return tern__recorded();
  }
  return TERN_OK;
}

static tern_rc take_steps(tern__program *p, tern__unit *u, const uint32_t *number) {
  uint32_t arg = 0, word = 0;
  p->plain = true;
  for (uint32_t i = 0; i < u->n_steps; i++) {
    const tern__lstep *from = &u->step[i];
    tern__pstep *s = &p->step[i];
    *s = (tern__pstep){.kind = from->kind,
                       .slow = from->slow,
                       .first_arg = arg,
                       .n_args = from->n_args,
                       .first_word = word,
                       .n_words = from->n_words,
                       .device = from->device,
                       .launch = from->device->launch,
                       .code = from->code,
                       .kernel = from->kernel,
                       .name = from->name,
                       .arena = arena_of(u, from->device),
                       .workspace = from->workspace,
                       .workspace_offset = from->workspace_offset,
                       .node = u->op[from->op].node};
    for (uint32_t k = 0; k < from->n_args; k++) p->step_of[arg + k] = i;
    if (from->n_args) memcpy(p->args + arg, from->arg, from->n_args * sizeof *from->arg);
    if (from->n_words) memcpy(p->words + word, from->word, from->n_words * sizeof *from->word);
    for (uint32_t k = 0; k < from->n_dynamic; k++) {
      const tern__lword *d = &from->dynamic[k];
      const uint32_t node = u->g->value[d->value].node;
      p->dynamic[p->n_dynamic++] = (tern__pdynamic){.word = from->slow ? d->word | i << 8 | 1u << 31 : word + d->word,
                                                    .source = number[node],
                                                    .out = u->g->value[d->value].out,
                                                    .dtype = d->dtype,
                                                    .step = i,
                                                    .from = d->from};
    }
    if (from->slow) {
      s->request = tern__calloc(1, sizeof *s->request);
      if (!s->request) return tern__fail(TERN_E_OOM, "graph: out of host memory for a program");
      *s->request = *u->op[from->op].q;
    }
    const bool launch = s->kind <= TERN__L_OPAQUE;
    if (!launch && s->kind != TERN__L_MOVE && s->kind != TERN__L_PRINT) {
      const tern_rc rc = take_bodies(s, u, s->node);
      if (rc) return rc;
    }
    if (!p->device) p->device = s->device;
    p->plain = p->plain && launch && !s->slow && s->device == p->device;
    p->stats.launches += launch;
    p->stats.copies += s->kind == TERN__L_MOVE;
    arg += from->n_args;
    word += from->n_words;
  }
  return TERN_OK;
}

/* Whether all of the program is one launch from operands and constants to one fresh result. */
static void find_direct(tern__program *p) {
  if (p->n_steps != 1 || !p->plain || p->n_sources || p->n_variables || p->n_results != 1 || !p->result[0].owner ||
      p->n_args > TERN__MAX_DIRECT || p->step[0].workspace)
    return;
  for (uint32_t a = 0; a < p->n_args; a++) {
    const tern__pbuffer *b = &p->buffer[p->args[a].buffer];
    const tern_tensor *t = b->tensor;
    tern__pdirect *d = &p->direct[a];
    if (b->place != TERN__PLACE_INPUT && b->place != TERN__PLACE_RESULT && b->place != TERN__PLACE_CONST) return;
    *d = (tern__pdirect){
        .place = b->place, .item = tern__dtype_size[b->dtype], .index = b->index, .offset = p->args[a].offset};
    if (b->place != TERN__PLACE_CONST) continue;
    d->mem = t->storage->mem;
    d->offset += t->storage->mem_offset + (uint64_t)t->offset * d->item;
  }
  p->n_direct = p->n_args;
}

static bool reads(const tern__program *p, const tern__pstep *s, uint32_t buffer) {
  for (uint32_t k = 0; k < s->n_args; k++)
    if (p->args[s->first_arg + k].buffer == buffer) return true;
  return false;
}

/* Moves from a device with a queue into host memory need not be waited for until somebody reads what arrives. */
static void find_async(tern__program *p) {
  for (uint32_t i = 0; i < p->n_steps; i++) {
    tern__pstep *move = &p->step[i];
    if (move->kind != TERN__L_MOVE) continue;
    const uint32_t to = p->args[move->first_arg + 1].buffer;
    const tern__device *from = p->buffer[p->args[move->first_arg].buffer].device, *host = p->buffer[to].device;
    if (!from->queue || host->queue || !(host->flags & TERN_DEV_HOST_MEM)) continue;
    uint32_t reader = i + 1;
    while (reader < p->n_steps && !reads(p, &p->step[reader], to)) reader++;
    uint32_t *list = reader < p->n_steps ? &p->step[reader].wait : &p->last_wait;
    move->async = true;
    move->next_wait = *list;
    *list = i + 1;
  }
}

tern__program *tern__program_record(tern__unit *u) {
  tern__program *p = tern__calloc(1, sizeof *p);
  uint32_t *number = p ? tern__unit_alloc(u, u->g->n_nodes + 1, sizeof *number) : NULL;
  if (p) pthread_mutex_init(&p->lock, NULL);
  if (!p || !number || !allocate(p, u) || !(p->name = tern__strdup(u->g->name))) {
    tern__fail(TERN_E_OOM, "graph: out of host memory for a program");
    tern__program_free(p);
    return NULL;
  }
  take_sources(p, u->g, number);
  take_buffers(p, u);
  if (take_steps(p, u, number)) {
    tern__program_free(p);
    return NULL;
  }
  make_patches(p);
  const tern_backend *api = p->device ? p->device->api : NULL;
  const bool records =
      p->plain && p->n_steps > 1 && api->program_begin && api->program_end && api->program_run && api->program_free;
  atomic_store_explicit(&p->replays, records && (p->device->queue || tern__branches_any(u)), memory_order_relaxed);
  find_async(p);
  for (uint32_t i = 0; i < p->n_variables; i++) {
    p->variable[i] = tern__ref(u->g->variable[i].variable);
    p->next[i] = u->next[i];
  }
  for (uint32_t i = 0; i < p->n_results; i++) {
    const uint32_t v = u->g->output[i];
    p->result[i].buffer = v == TERN__IR_NONE ? TERN__NO : u->buffer_of[v];
    if (v != TERN__IR_NONE) p->result[i].form = u->fake[v];
    const uint32_t b = p->result[i].buffer;
    p->result[i].owner = b != TERN__NO && p->buffer[b].root == b && p->buffer[b].place == TERN__PLACE_RESULT;
    for (uint32_t k = 0; k < i && p->result[i].owner; k++)
      if (p->result[k].buffer == b) p->result[k].owner = p->result[i].owner = false;
  }
  find_direct(p);
  p->watch = tern__watch_new(u);
  memcpy(p->arena, u->arena, p->n_arenas * sizeof *p->arena);
  const tern__program_stats counted = p->stats;
  p->stats = u->stats;
  p->stats.launches = counted.launches;
  p->stats.copies = counted.copies;
  p->stats.kernel_ms = u->kernel_ms;
  p->why = u->why;
  p->graph = u->g;
  p->hold = u->hold;
  u->hold = NULL;
  u->why = NULL;
  u->g = NULL;
  return p;
}

/* ---- frames ---- */

static void frame_free(const tern__program *p, tern__frame *f) {
  if (f->replay) {
    pthread_mutex_lock(&p->device->lock);
    p->device->api->program_free(p->device->dev, f->replay);
    pthread_mutex_unlock(&p->device->lock);
  }
  for (uint32_t a = 0; f->arena && a < p->n_arenas; a++)
    if (f->arena[a]) tern__storage_unref(f->arena[a]);
  free(f->arg);
  free(f->word);
  free(f->drawn);
  free(f->launch);
  free(f->ticket);
  free(f->stale);
  free(f->storage);
  free(f->arena);
  free(f->fresh);
  free(f);
}

void tern__program_free(tern__program *p) {
  if (!p) return;
  tern__frame *f = atomic_exchange(&p->frame, NULL);
  if (f) frame_free(p, f);
  while ((f = p->frames)) {
    p->frames = f->next;
    frame_free(p, f);
  }
  for (uint32_t i = 0; p->step && i < p->n_steps; i++) {
    free(p->step[i].request);
    for (int b = 0; b < 2; b++) tern__program_free(p->step[i].body[b]);
  }
  for (uint32_t b = 0; p->buffer && b < p->n_buffers; b++)
    if (p->buffer[b].tensor) tern__unref(p->buffer[b].tensor);
  for (uint32_t i = 0; p->variable && i < p->n_variables; i++)
    if (p->variable[i]) tern__unref(p->variable[i]);
  void *const lists[] = {p->step,     p->buffer, p->patch, p->result, p->dynamic, p->source, p->variable, p->next,
                         p->external, p->arena,  p->words, p->args,   p->step_of, p->name,   p->why};
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) free(lists[i]);
  tern__watch_free(p->watch);
  tern__graph_free(p->graph);
  tern__layout_release(p->hold);
  pthread_mutex_destroy(&p->lock);
  free(p);
}

static tern__frame *frame_new(tern__program *p, tern__thread *t) {
  tern__frame *f = tern__calloc(1, sizeof *f);
  if (!f) return NULL;
  f->arg = tern__calloc(p->n_args + 1, sizeof *f->arg);
  f->word = tern__calloc(p->n_words + 1, sizeof *f->word);
  f->drawn = tern__calloc(p->n_drawn + 1, sizeof *f->drawn);
  f->launch = tern__calloc(p->n_steps + 1, sizeof *f->launch);
  f->ticket = tern__calloc(p->n_steps + 1, sizeof *f->ticket);
  f->stale = tern__calloc(p->n_steps + 1, sizeof *f->stale);
  f->storage = tern__calloc(p->n_buffers + 1, sizeof *f->storage);
  f->arena = tern__calloc(p->n_arenas + 1, sizeof *f->arena);
  f->fresh = tern__calloc(p->n_buffers + 1, sizeof *f->fresh);
  bool ok = f->arg && f->word && f->drawn && f->launch && f->ticket && f->stale && f->storage && f->arena && f->fresh;
  for (uint32_t a = 0; a < p->n_arenas && ok; a++)
    ok = (f->arena[a] = tern__storage_new(t, p->arena[a].device, p->arena[a].bytes)) != NULL;
  if (!ok) {
    frame_free(p, f);
    return NULL;
  }
  memcpy(f->word, p->words, p->n_words * sizeof *f->word);
  for (uint32_t b = 0; b < p->n_buffers; b++) {
    const tern__pbuffer *x = &p->buffer[b];
    if (x->root != b || is_external(x)) continue;
    const tern__storage *from = x->place == TERN__PLACE_CONST ? x->tensor->storage
                                : p->n_arenas                 ? f->arena[x->arena]
                                                              : NULL;
    if (!from) continue;
    const uint64_t offset =
        x->place == TERN__PLACE_CONST ? (uint64_t)x->tensor->offset * tern__dtype_size[x->dtype] : x->offset;
    tern__storage *s = &f->storage[b];
    s->device = x->device;
    s->mem = from->mem;
    s->mem_offset = from->mem_offset + offset;
    s->host = from->host ? from->host + offset : NULL;
    s->bytes = x->bytes;
    atomic_store_explicit(&s->refs, 1 << 30, memory_order_relaxed);
    for (uint32_t k = 0; k < x->n_patches; k++) {
      const tern__ppatch *patch = &p->patch[x->first_patch + k];
      f->arg[patch->arg] = (tern_arg){s->mem, s->mem_offset + patch->offset};
    }
  }
  for (uint32_t i = 0; i < p->n_steps; i++) {
    const tern__pstep *s = &p->step[i];
    f->launch[i] = (tern_launch){
        .args = f->arg + s->first_arg, .words = f->word + s->first_word, .n_args = s->n_args, .n_words = s->n_words};
    if (s->kernel && !s->slow) tern__kernel_ready(s->device, s->kernel);
    if (s->workspace)
      f->launch[i].workspace =
          (tern_arg){f->arena[s->arena]->mem, f->arena[s->arena]->mem_offset + s->workspace_offset};
  }
  return f;
}

tern__frame *tern__frame_slow(tern__program *p, tern__thread *t) {
  tern__frame *f;
  pthread_mutex_lock(&p->lock);
  f = p->frames;
  if (f) p->frames = f->next;
  pthread_mutex_unlock(&p->lock);
  if (f) return f;
  f = frame_new(p, t);
  if (!f) tern__fail(TERN_E_OOM, "%s: no memory for a run", p->name);
  return f;
}

void tern__frame_keep(tern__program *p, tern__frame *f) {
  pthread_mutex_lock(&p->lock);
  f->next = p->frames;
  p->frames = f;
  pthread_mutex_unlock(&p->lock);
}
