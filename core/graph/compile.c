/* The driver: passes in order, verified and dumped where asked for. */
#include "graph/compile.h"
#include "base/alloc.h"
#include "base/log.h"
#include "base/options.h"
#include "base/string.h"
#include "device/trace.h"
#include "graph/passes/again.h"
#include "graph/passes/layout.h"
#include "graph/passes/place_graph.h"
#include "graph/passes/remat.h"
#include "graph/passes/simplify.h"
#include "graph/passes/sweep.h"
#include "graph/run/program.h"
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BODIES = '\1' }; /* in the notes: where those of the bodies belong, which are compiled later */

/* One line a step, for tern_explain. */
static void explain(tern__unit *u) {
  for (uint32_t i = 0; i < u->n_steps; i++) {
    const tern__lstep *s = &u->step[i];
    tern__unit_note(u, "  %3u %-6s %s", i, s->device ? s->device->name : "", s->name ? s->name : "");
    if (s->kind <= TERN__L_OPAQUE) tern__unit_note(u, " (%u primitives%s)", s->n_nodes, s->slow ? ", not native" : "");
    for (uint32_t k = 0, n = 0; k < 64 && k < s->n_args; k++)
      if (s->packed >> k & 1)
        tern__unit_note(u, "%s argument %u%s", n++ ? "," : ", packed:", k, s->constants >> k & 1 ? " (once)" : "");
    const tern__ir_node *n = s->kind == TERN__L_WHILE ? &u->g->node[u->op[s->op].node] : NULL;
    if (n && tern__sweeps(n) && n->attr[TERN__SWEEP_PARTS].i > 1)
      tern__unit_note(u, " of slices, in %lld parts side by side", (long long)n->attr[TERN__SWEEP_PARTS].i);
    if (s->workspace) tern__unit_note(u, ", workspace %llu bytes", (unsigned long long)s->workspace);
    tern__unit_note(u, s->kind == TERN__L_COND || s->kind == TERN__L_WHILE ? "\n%c" : "\n", BODIES);
  }
}

/* ---- stages, written down where TERN_DUMP says ---- */

static void write_file(const char *path, const char *text) {
  FILE *f = text ? fopen(path, "we") : NULL;
  bool ok = f != NULL;
  if (f) {
    ok = fputs(text, f) >= 0;
    ok = !fclose(f) && ok;
  }
  if (!ok) tern__log(TERN__LOG_WARN, "graph", "TERN_DUMP: %s cannot be written", path);
}

/* A stage's number in the process's sequence of graphs, its place and name make the file's. */
static void dump(const tern__graph *g, unsigned number, int place, const char *stage) {
  const char *folder = tern__opt()->dump;
  char path[1024], name[64];
  if (!*folder) return;
  snprintf(name, sizeof name, "%s", g->name);
  for (char *c = name; *c; c++)
    if (!((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9'))) *c = '_';
  char *text = tern__graph_text(g, 1), *dot = tern__graph_dot(g);
  snprintf(path, sizeof path, "%s/%04u-%s-%d-%s.txt", folder, number, name, place, stage);
  write_file(path, text);
  snprintf(path, sizeof path, "%s/%04u-%s-%d-%s.dot", folder, number, name, place, stage);
  write_file(path, dot);
  free(text);
  free(dot);
}

static void dump_steps(const tern__program *p, unsigned number) {
  char path[1024];
  if (!*tern__opt()->dump) return;
  snprintf(path, sizeof path, "%s/%04u-steps.txt", tern__opt()->dump, number);
  char *text = tern__program_explain(p);
  write_file(path, text);
  free(text);
}

/* After a pass: in debug builds and for dumps the graph must still be one. */
static tern_rc verified(const tern__graph *g, const char *pass) {
#ifdef NDEBUG
  if (!*tern__opt()->dump) return TERN_OK;
#endif
  return tern__graph_verify(g, pass);
}

tern__program *tern__compile(tern__graph *g, const tern__compile_opts *opts) {
  static const tern__compile_opts standard;
  const uint64_t began = tern__now_ns();
  tern__unit u = {.g = g, .opts = opts ? opts : &standard};
  tern__thread *t = tern__thread_get();
  if (!t) {
    tern__graph_free(g);
    return NULL;
  }
  const uint32_t hooks = t->hooks; /* folding runs ops; nobody is to see them */
  struct tern__tracer *tracer = t->trace;
  t->hooks = 0;
  static _Atomic unsigned numbers;
  const unsigned number = atomic_fetch_add_explicit(&numbers, 1, memory_order_relaxed);
  dump(g, number, 1, "traced");
  tern_rc rc = verified(g, "trace");
  if (!rc && !u.opts->no_simplify) {
    rc = tern__simplify(g, &(tern__simplify_opts){.fast_math = u.opts->fast_math});
    if (!rc) rc = tern__layout_pools(g);
    if (!rc) rc = verified(g, "simplify");
    if (!rc) dump(g, number, 2, "simplified");
  }
  char *placement = NULL;
  if (!rc && !strcmp(tern__opt()->placement, "auto")) {
    rc = tern__graph_place(g, u.opts, &placement);
    if (!rc) rc = verified(g, "place");
    if (!rc) dump(g, number, 3, "placed");
    if (!rc && placement) tern__unit_note_text(&u, placement);
  }
  free(placement);
  if (!rc && !u.opts->no_fuse) rc = tern__graph_again(g);
  if (!rc) rc = verified(g, "again");
  if (!rc && u.opts->memory_budget) {
    char *budget = NULL;
    rc = tern__graph_remat(g, u.opts, u.opts->memory_budget, &budget);
    if (!rc) rc = verified(g, "remat");
    if (!rc) dump(g, number, 4, "budget");
    if (!rc && budget) tern__unit_note_text(&u, budget);
    free(budget);
  }
  if (!rc && !u.opts->no_simplify) rc = tern__graph_sweep(g);
  u.stats.nodes = g->n_nodes;
  if (!rc) rc = tern__unit_lower(&u);
  if (!rc) rc = tern__unit_fuse(&u);
  if (!rc) rc = tern__unit_order(&u);
  if (!rc) rc = tern__unit_layout(&u);
  if (!rc) rc = tern__unit_emit(&u);
  if (!rc) rc = tern__unit_memory(&u);
  if (!rc) explain(&u);
  tern__program *p = rc ? NULL : tern__program_record(&u);
  if (p) dump_steps(p, number);
  tern__layout_hold *hold = u.hold; /* a program takes it over */
  tern__unit_free(&u);
  tern__layout_release(hold);
  t->hooks = hooks;
  t->trace = tracer;
  if (p) p->stats.compile_ms = (double)(tern__now_ns() - began) * 1e-6;
  return p;
}

/* ---- explaining ---- */

/* A line of a body's notes, or all of it, behind `indent` spaces. */
static bool put_indented(tern__string *s, const char *text, int indent) {
  bool ok = true;
  while (*text && ok) {
    const char *end = strchr(text, '\n');
    const size_t n = end ? (size_t)(end - text) + 1 : strlen(text);
    for (int i = 0; i < indent && ok; i++) ok = !tern__string_append_text(s, " ");
    ok = ok && !tern__string_append(s, text, n);
    text += n;
  }
  return ok;
}

static bool put_bodies(tern__string *s, const tern__pstep *step, bool loop) {
  static const char *const words[][2] = {{"then", "else"}, {"condition", "do"}};
  bool ok = true;
  for (int b = 0; b < 2 && ok; b++) {
    char head[200];
    const tern__program_stats *of = tern__program_statistics(step->body[b]);
    snprintf(head, sizeof head, "%s: %u nodes, %u launches, %u copies, arena %llu bytes\n", words[loop][b], of->nodes,
             of->launches, of->copies, (unsigned long long)of->arena_bytes);
    char *text = tern__program_explain(step->body[b]);
    ok = text && put_indented(s, head, 6) && put_indented(s, text, 6);
    free(text);
  }
  return ok;
}

const tern__graph *tern__program_graph(const tern__program *p) { return p->graph; }

char *tern__program_explain(const tern__program *p) {
  tern__string s = {0};
  bool ok = !tern__string_append_text(&s, "");
  const char *text = p->why ? p->why : "";
  for (uint32_t i = 0; ok; i++) { /* up to a control step, then its bodies */
    const char *end = strchr(text, BODIES);
    ok = !tern__string_append(&s, text, end ? (size_t)(end - text) : strlen(text));
    if (!end) break;
    text = end + 1;
    while (i < p->n_steps && p->step[i].kind != TERN__L_COND && p->step[i].kind != TERN__L_WHILE) i++;
    if (ok && i < p->n_steps) ok = put_bodies(&s, &p->step[i], p->step[i].kind == TERN__L_WHILE);
  }
  if (ok && s.text) return s.text;
  tern__string_free(&s);
  tern__fail(TERN_E_OOM, "graph: out of host memory to explain \"%s\"", p->name);
  return NULL;
}
