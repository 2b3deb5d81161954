/* The driver: passes in order, verified and dumped where asked for. */
#include "graph/compile.h"
#include "base/alloc.h"
#include "base/log.h"
#include "base/options.h"
#include "device/trace.h"
#include "graph/passes/low.h"
#include "graph/passes/simplify.h"
#include "graph/run/program.h"
#include <stdio.h>
#include <stdlib.h>

/* One line a step, for tern_explain. */
static void explain(tern__unit *u) {
  for (uint32_t i = 0; i < u->n_steps; i++) {
    const tern__lstep *s = &u->step[i];
    tern__unit_note(u, "  %3u %-6s %s", i, s->device ? s->device->name : "", s->name ? s->name : "");
    if (s->kind <= TERN__L_OPAQUE) tern__unit_note(u, " (%u primitives%s)", s->n_nodes, s->slow ? ", not native" : "");
    if (s->workspace) tern__unit_note(u, ", workspace %llu bytes", (unsigned long long)s->workspace);
    tern__unit_note(u, "\n");
  }
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
  tern_rc rc = TERN_OK;
  if (!u.opts->no_simplify) rc = tern__simplify(g, &(tern__simplify_opts){.fast_math = u.opts->fast_math});
  u.stats.nodes = g->n_nodes;
  if (!rc) rc = tern__unit_lower(&u);
  if (!rc) rc = tern__unit_fuse(&u);
  if (!rc) rc = tern__unit_order(&u);
  if (!rc) rc = tern__unit_emit(&u);
  if (!rc) rc = tern__unit_memory(&u);
  if (!rc) explain(&u);
  tern__program *p = rc ? NULL : tern__program_record(&u);
  tern__unit_free(&u);
  t->hooks = hooks;
  t->trace = tracer;
  if (p) p->stats.compile_ms = (double)(tern__now_ns() - began) * 1e-6;
  return p;
}

char *tern__program_explain(const tern__program *p) { return tern__strdup(p->why ? p->why : ""); }
