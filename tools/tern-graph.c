/* tern-graph: a graph from its text form (docs/formats.md), verified, written again, drawn, or run on inputs drawn at
   random: compiled, node by node, or both to compare. Built on the core itself, whose graphs are not public. */
#include "device/device.h"
#include "device/trace.h"
#include "dispatch/dispatch.h"
#include "graph/compile.h"
#include "graph/sized.h"
#include "ops/table.h"
#include "ops/write.h"
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tern/tern.h>
#include <unistd.h>

static const char help[] =
    "usage: tern-graph [options] FILE        (FILE - is the standard input)\n"
    "Reads a graph, verifies it, and without options says what it holds.\n"
    "  --verify         no more than that; the status tells\n"
    "  --print          the graph as text, all values in full\n"
    "  --dot            the graph for Graphviz\n"
    "  --eager          run it, one node after the other, and print its results\n"
    "  --time N         with --eager: N more runs; the median time of a run\n"
    "  --seed S         of the inputs, which are drawn at random (default 1)\n"
    "  --device D       where a graph that names no devices lies and runs\n"
    "  --size s0=32     how large a size is that varies, which runs and --explain must know; once for each\n"
    "  --json           what the graph holds, and the time, as JSON\n"
    "  --help           this\n"
    "The status is 0, 1 when the graph cannot be read, verified or run or differs, 2 for wrong usage.\n";

typedef struct request {
  bool verify, print, dot, run, eager, check, explain, json;
  int runs;
  uint64_t seed;
  const char *device, *file;
  uint32_t sizes_given; /* bits */
  tern__dims sizes;
} request;

static int failed(const char *what) {
  fprintf(stderr, "tern-graph: %s: %s\n", what, tern_error());
  return 1;
}

/* ---- running: values[] by number ---- */

static tern_rc run_graph(const tern__graph *g, tern_tensor *const *in, tern_tensor **out);

static tern_shape shape_of(const tern__ir_value *v) { return tern_shape_of(v->rank, v->shape); }

static tern_tensor *host_scalar(tern_dtype dtype, tern_word w) {
  return dtype == TERN_F64 ? tern_scalar(w.f) : tern_scalar_int(w.i);
}

static tern_tensor *run_slice(const tern__ir_node *n, tern_tensor *x, const tern__ir_value *v) {
  tern_range ranges[TERN_MAX_RANK];
  const int dropped = (int)n->attr[0].i;
  for (int d = 0, o = 0; d < x->rank; d++) {
    const int64_t size = d == dropped ? 1 : v->shape[o++], first = n->attr[1 + 2 * d].i, step = n->attr[2 + 2 * d].i;
    const int64_t stop = first + (size - 1) * step + (step > 0 ? 1 : -1);
    ranges[d] = size ? TERN_RANGE(first, stop < 0 ? TERN_OPEN : stop, step) : TERN_RANGE(0, 0, 1);
  }
  return tern_reshape(tern_slice(x, ranges, x->rank), shape_of(v));
}

static tern_tensor *run_view(const tern__ir_node *n, tern_tensor *x, const tern__ir_value *v) {
  int order[TERN_MAX_RANK];
  if (n->op == &tern__op_reshape) return tern_reshape(x, shape_of(v));
  if (n->op == &tern__op_expand) return tern_expand(x, shape_of(v));
  if (n->op == &tern__op_slice) return run_slice(n, x, v);
  for (int d = 0; d < n->n_attr; d++) order[d] = (int)n->attr[d].i;
  return tern_permute(x, order, n->n_attr);
}

/* A copy of the whole with the source written into its part. */
static tern_tensor *run_write(const tern__ir_node *n, tern_tensor *const *in) {
  tern_tensor *whole = tern_clone(in[0]);
  tern_tensor *part = whole ? tern__view_header(whole) : NULL;
  if (!part) return NULL;
  const int rank = (int)n->attr[1].i;
  part->rank = (uint8_t)rank;
  part->offset = whole->offset + n->attr[0].i;
  for (int d = 0; d < rank; d++) {
    part->shape[d] = n->attr[2 + d].i;
    part->stride[d] = n->attr[2 + rank + d].i;
  }
  part->numel = tern__numel(rank, part->shape);
  tern__set_contig_flag(part);
  const tern_rc rc = tern__write(part, in[1]);
  tern__unref(part);
  return rc ? NULL : whole;
}

static tern_rc run_op(const tern__graph *g, const tern__ir_node *n, tern_tensor *const *in, tern_tensor **out) {
  const tern__ir_value *v = &g->value[n->first_out];
  if (n->n_out == 1) {
    if (tern__ir_is_view(n))
      out[0] = run_view(n, in[0], v);
    else if (n->op == &tern__op_to)
      out[0] = tern_to(in[0], n->device->name);
    else if (n->op == &tern__op_write)
      out[0] = run_write(n, in);
    else if (n->op == &tern__op_empty)
      out[0] = tern__push(tern__new(n->device, (tern_dtype)v->dtype, v->rank, v->shape, "empty"));
    else
      out[0] = tern__run_on(n->device, n->op, in, (int)n->n_in, n->attr, n->n_attr);
    return out[0] ? TERN_OK : tern_error_code();
  }
  for (uint32_t o = 0; o < n->n_out; o++)
    if (!(out[o] = tern__push(tern__new(n->device, (tern_dtype)v[o].dtype, v[o].rank, v[o].shape, n->op->name))))
      return TERN_E_OOM;
  return tern__run_into(n->op, in, (int)n->n_in, n->attr, n->n_attr, out, (int)n->n_out);
}

static tern_rc run_cond(const tern__ir_node *n, tern_tensor *const *in, tern_tensor **out) {
  const double predicate = tern_item(in[0]);
  if (tern_error_code()) return tern_error_code();
  return run_graph(n->body[predicate == 0], in + 1, out);
}

static tern_rc run_while(const tern__ir_node *n, tern_tensor **in, tern_tensor **out) {
  tern_rc rc = TERN_OK;
  for (int64_t trip = 0; !rc; trip++) {
    tern_tensor *more = NULL;
    rc = run_graph(n->body[0], in, &more);
    if (rc || tern_item(more) == 0) break;
    if (n->attr[0].i && trip == n->attr[0].i)
      return tern__fail(TERN_E_ARG, "while: more than %" PRId64 " trips", n->attr[0].i);
    rc = run_graph(n->body[1], in, out);
    for (uint32_t o = 0; o < n->n_out && !rc; o++) in[o] = out[o];
  }
  for (uint32_t o = 0; o < n->n_out; o++) out[o] = in[o];
  return rc;
}

static tern_rc run_source(const tern__graph *g, const tern__ir_node *n, tern_tensor **out) {
  tern_word *words = calloc(n->n_out, sizeof *words);
  if (!words) return tern__fail(TERN_E_OOM, "out of memory");
  tern_rc rc = n->source->next(n->source->self, n->n_attr ? n->attr[0].i : 0, words, (int)n->n_out);
  for (uint32_t o = 0; o < n->n_out && !rc; o++) {
    out[o] = host_scalar((tern_dtype)g->value[n->first_out + o].dtype, words[o]);
    rc = out[o] ? TERN_OK : tern_error_code();
  }
  free(words);
  return rc;
}

static tern_rc run_node(const tern__graph *g, const tern__ir_node *n, tern_tensor *const *in, tern_tensor **value) {
  tern_tensor **out = value + n->first_out, **operand = calloc(n->n_in + 1u, sizeof *operand);
  tern_rc rc = operand ? TERN_OK : tern__fail(TERN_E_OOM, "out of memory");
  for (uint32_t i = 0; i < n->n_in && !rc; i++) operand[i] = n->in[i] == TERN__IR_NONE ? TERN_NONE : value[n->in[i]];
  if (!rc) switch (n->kind) {
    case TERN__IR_DEAD: break;
    case TERN__IR_INPUT: out[0] = in[n->attr[0].u]; break;
    case TERN__IR_CONST: out[0] = n->tensor; break;
    case TERN__IR_SCALAR: out[0] = host_scalar((tern_dtype)g->value[n->first_out].dtype, n->attr[0]); break;
    case TERN__IR_VARIABLE: out[0] = tern_clone(n->tensor); break;
    case TERN__IR_SOURCE: rc = run_source(g, n, out); break;
    case TERN__IR_PRINT: (n->n_attr && n->attr[0].u ? tern_print_values : tern_print)(operand[0]); break;
    case TERN__IR_COND: rc = run_cond(n, operand, out); break;
    case TERN__IR_WHILE: rc = run_while(n, operand, out); break;
    default: rc = run_op(g, n, operand, out);
    }
  free(operand);
  for (uint32_t o = 0; o < n->n_out && !rc && n->kind != TERN__IR_DEAD; o++)
    if (!out[o]) rc = tern_error_code();
  return rc;
}

/* One run; results are borrowed from the scope. Variables take their new values in the end. */
static tern_rc run_graph(const tern__graph *g, tern_tensor *const *in, tern_tensor **out) {
  tern_tensor **value = calloc(g->n_values + 1u, sizeof *value);
  tern_rc rc = value ? TERN_OK : tern__fail(TERN_E_OOM, "out of memory");
  for (uint32_t i = 0; i < g->n_nodes && !rc; i++) rc = run_node(g, &g->node[i], in, value);
  for (uint32_t o = 0; o < g->n_outputs && !rc; o++)
    out[o] = g->output[o] == TERN__IR_NONE ? TERN_NONE : value[g->output[o]];
  for (uint32_t k = 0; k < g->n_variables && !rc; k++)
    if (g->variable[k].value != g->node[g->variable[k].node].first_out)
      rc = tern_assign(g->variable[k].variable, value[g->variable[k].value]);
  free(value);
  return rc;
}

/* Floats in [-1, 1), integers in [0, 10), booleans. */
static tern_tensor *random_input(const tern__ir_value *v, uint64_t seed) {
  const tern_random_opts opts = {.dtype = TERN_F32, .seed = seed};
  const tern_dtype dtype = (tern_dtype)v->dtype;
  if (v->weak) return host_scalar(dtype, (tern_word){.u = 0});
  tern_tensor *x;
  if (TERN_D_FLOAT >> dtype & 1) {
    tern_tensor *u = tern_random_uniform(shape_of(v), &opts);
    x = tern_sub(tern_mul(u, tern_scalar(2)), tern_scalar(1));
  } else {
    const tern_random_opts whole = {.dtype = TERN_I64, .seed = seed};
    x = tern_random_integers(shape_of(v), 0, dtype == TERN_BOOL ? 2 : 10, &whole);
  }
  return tern_to(tern_cast(x, dtype), v->device->name);
}

/* A graph and, when it was compiled, its program, which then owns it. */
typedef struct way {
  tern__graph *read; /* before its sizes were put in: its copy borrows from it; NULL: g is it */
  tern__graph *g;
  tern__program *p;
  tern_tensor **variable; /* a reference each */
  uint32_t n_in, n_out, n_variables;
  tern_tensor **out; /* of the newest run, borrowed from the scope */
} way;

static void way_end(way *w) {
  for (uint32_t k = 0; w->variable && k < w->n_variables; k++) tern__unref(w->variable[k]);
  free(w->variable);
  free(w->out);
  if (w->p)
    tern__program_free(w->p);
  else
    tern__graph_free(w->g);
  tern__graph_free(w->read);
}

static tern_rc run_way(way *w, tern_tensor *const *in) {
  if (!w->p) return run_graph(w->g, in, w->out);
  tern_rc rc = tern__program_run(w->p, in, w->out);
  for (uint32_t o = 0; o < w->n_out && !rc; o++)
    if (w->out[o] != TERN_NONE && !(w->out[o] = tern__push(w->out[o]))) rc = TERN_E_OOM;
  return rc;
}

static int compare_doubles(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* The median of n runs in milliseconds. */
static tern_rc time_way(way *w, tern_tensor *const *in, int n, double *median) {
  double *ms = calloc((size_t)n, sizeof *ms);
  tern_rc rc = ms ? TERN_OK : tern__fail(TERN_E_OOM, "out of memory");
  for (int r = 0; r < n && !rc; r++) {
    TERN_SCOPE;
    const uint64_t began = tern__now_ns();
    rc = run_way(w, in);
    if (!rc) rc = tern_sync(NULL);
    ms[r] = (double)(tern__now_ns() - began) * 1e-6;
  }
  if (!rc) qsort(ms, (size_t)n, sizeof *ms, compare_doubles);
  *median = rc ? 0 : ms[n / 2];
  free(ms);
  return rc;
}

/* ---- comparing ---- */

/* What all ops of the graph together allow between two float32 results. */
static void tolerance_of(const tern__graph *g, double *absolute, double *relative) {
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    const tern__op *op = g->node[i].kind == TERN__IR_OP ? g->node[i].op : NULL;
    *absolute += op ? op->absolute : 0;
    *relative += op ? op->relative + 1.2e-7 : 0;
    for (int b = 0; b < 2; b++)
      if (g->node[i].body[b]) tolerance_of(g->node[i].body[b], absolute, relative);
  }
}

/* The first element that differs by more, or all is well. */
static bool agree(const char *what, uint32_t number, tern_tensor *a, tern_tensor *b, double absolute, double relative) {
  if (a == TERN_NONE || b == TERN_NONE) return a == b;
  const tern_dtype dtype = tern_dtype_get(a);
  const double unit = dtype == TERN_F64 ? 1e-8 : dtype == TERN_F16 ? 8192 : dtype == TERN_BF16 ? 65536 : 1;
  const bool exact = !(TERN_D_FLOAT >> dtype & 1);
  TERN_SCOPE;
  tern_tensor *x = tern_flatten(tern_to(tern_cast(a, exact ? TERN_I64 : TERN_F64), "cpu:0"));
  tern_tensor *y = tern_flatten(tern_to(tern_cast(b, exact ? TERN_I64 : TERN_F64), "cpu:0"));
  const int64_t n = tern_size(x);
  double *values = calloc(2 * (size_t)n + 1, 8);
  if (!x || !y || !values || tern_size(y) != n || tern_dtype_get(b) != dtype ||
      tern_to_host(x, values, 8 * (size_t)n) || tern_to_host(y, values + n, 8 * (size_t)n)) {
    fprintf(stderr, "tern-graph: %s %u: %s\n", what, number, tern_error_code() ? tern_error() : "another type");
    free(values);
    return false;
  }
  bool same = true;
  for (int64_t i = 0; i < n && same; i++) {
    const double p = values[i], q = values[n + i], size = q < 0 ? -q : q, gap = p > q ? p - q : q - p;
    same = exact ? !memcmp(values + i, values + n + i, 8)
                 : p == q || (p != p && q != q) || gap <= unit * (absolute + relative * size);
    if (!same && exact)
      fprintf(stderr, "tern-graph: %s %u, element %" PRId64 " differs\n", what, number, i);
    else if (!same)
      fprintf(stderr, "tern-graph: %s %u, element %" PRId64 ": compiled %.17g, eagerly %.17g\n", what, number, i, p, q);
  }
  free(values);
  return same;
}

static bool agree_ways(const way *compiled, const way *eager) {
  double absolute = 1e-30, relative = 0;
  tolerance_of(eager->g, &absolute, &relative);
  bool same = true;
  for (uint32_t o = 0; o < eager->n_out; o++)
    same = agree("result", o, compiled->out[o], eager->out[o], absolute, relative) && same;
  for (uint32_t k = 0; k < eager->n_variables; k++)
    same = agree("variable", k, compiled->variable[k], eager->variable[k], absolute, relative) && same;
  return same;
}

/* ---- what the graph holds ---- */

static uint32_t count_nodes(const tern__graph *g, uint32_t *ops) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    n += g->node[i].kind != TERN__IR_DEAD;
    *ops += g->node[i].kind == TERN__IR_OP;
    for (int b = 0; b < 2; b++)
      if (g->node[i].body[b]) n += count_nodes(g->node[i].body[b], ops);
  }
  return n;
}

static void describe(const request *q, const tern__graph *g, double ms) {
  uint32_t ops = 0;
  const uint32_t nodes = count_nodes(g, &ops);
  if (!q->json) {
    printf("%s: %u nodes, %u of them ops; %u inputs, %u results, %u variables\n", g->name, nodes, ops, g->n_inputs,
           g->n_outputs, g->n_variables);
    return;
  }
  printf("{\"version\": 1, \"graph\": \"");
  for (const char *c = g->name; *c; c++)
    printf((unsigned char)*c < 32 || *c == '"' || *c == '\\' ? "\\u%04x" : "%c", (unsigned char)*c);
  printf("\", \"nodes\": %u, \"ops\": %u, \"inputs\": %u, \"results\": %u, \"variables\": %u, \"verified\": true, "
         "\"runs\": %d, \"median_ms\": ",
         nodes, ops, g->n_inputs, g->n_outputs, g->n_variables, q->runs);
  if (q->runs)
    printf("%.6g}\n", ms);
  else
    printf("null}\n");
}

/* ---- main ---- */

static char *read_all(const char *path, size_t *size) {
  FILE *f = strcmp(path, "-") ? fopen(path, "rb") : stdin;
  if (!f) return NULL;
  size_t capacity = 1 << 16, n = 0, got = 0;
  char *text = malloc(capacity);
  while (text && (got = fread(text + n, 1, capacity - n, f)) > 0) {
    n += got;
    if (n < capacity) continue;
    char *larger = realloc(text, capacity *= 2);
    if (!larger) free(text);
    text = larger;
  }
  if (f != stdin) fclose(f);
  *size = n;
  return text;
}

/* s0=32 */
static bool parse_size(const char *text, request *q) {
  char *end = "?";
  const int k = text[0] == 's' && text[1] ? text[1] - '0' : -1;
  if (k < 0 || k >= TERN__MAX_DIMS || text[2] != '=' || text[3] < '0' || text[3] > '9') return false;
  const unsigned long long n = strtoull(text + 3, &end, 10);
  if (*end || n < 1 || n >= 1u << 24) return false;
  q->sizes_given |= 1u << k;
  q->sizes.size[k] = (int64_t)n;
  return true;
}

static bool parse_arguments(int argc, char **argv, request *q) {
  for (int i = 1; i < argc; i++) {
    const char *a = argv[i], *next = i + 1 < argc ? argv[i + 1] : NULL;
    char *end = "?";
    if (!strcmp(a, "--verify"))
      q->verify = true;
    else if (!strcmp(a, "--print"))
      q->print = true;
    else if (!strcmp(a, "--dot"))
      q->dot = true;
    else if (!strcmp(a, "--run"))
      q->run = true;
    else if (!strcmp(a, "--check"))
      q->check = true;
    else if (!strcmp(a, "--explain"))
      q->explain = true;
    else if (!strcmp(a, "--eager"))
      q->eager = true;
    else if (!strcmp(a, "--json"))
      q->json = true;
    else if (!strcmp(a, "--device") && next)
      q->device = argv[++i];
    else if (!strcmp(a, "--size") && next) {
      if (parse_size(argv[++i], q)) continue;
      fprintf(stderr, "tern-graph: --size %s: expected s0 to s%d, '=' and a size from 1 to 16777215\n", argv[i],
              TERN__MAX_DIMS - 1);
      return false;
    } else if ((!strcmp(a, "--time") || !strcmp(a, "--seed")) && next) {
      const unsigned long long n = strtoull(argv[++i], &end, 10);
      if (*end || !*argv[i] || *argv[i] == '-' || (a[2] == 't' && (n < 1 || n > 1000000))) return false;
      if (a[2] == 't')
        q->runs = (int)n;
      else
        q->seed = n ? n : 1;
    } else if ((a[0] != '-' || !a[1]) && !q->file)
      q->file = a;
    else
      return false;
  }
  return q->file != NULL && (!q->runs || q->eager || q->run);
}

/* Plugins beside the program, as the shared library would find them. */
static void find_plugins(void) {
  char path[4096];
  const ssize_t n = readlink("/proc/self/exe", path, sizeof path - 32);
  if (n <= 0 || getenv("TERN_PLUGIN_PATH")) return;
  path[n] = 0;
  char *dir = dirname(path);
  memmove(path, dir, strlen(dir) + 1);
  strcat(path, "/../lib/tern");
  setenv("TERN_PLUGIN_PATH", path, 0);
}

/* Puts the sizes that were given into the graph. needed: all must be. */
static bool put_sizes(way *w, const request *q, bool needed) {
  const uint32_t varies = tern__graph_varies(w->g), missing = varies & ~q->sizes_given,
                 extra = q->sizes_given & ~varies;
  tern__dims dims = q->sizes;
  if (extra)
    return tern__fail(TERN_E_ARG, "--size s%d: no size of graph \"%s\" has that name", __builtin_ctz(extra),
                      w->g->name) == TERN_OK;
  if (missing && (needed || q->sizes_given))
    return tern__fail(TERN_E_ARG, "size s%d of graph \"%s\" varies and is not given: --size s%d=VALUE",
                      __builtin_ctz(missing), w->g->name, __builtin_ctz(missing)) == TERN_OK;
  if (!varies || missing) return true;
  dims.n = 32 - __builtin_clz(varies);
  w->read = w->g;
  w->g = tern__graph_sized(w->read, &dims);
  return w->g && !tern__graph_verify(w->g, "--size");
}

/* Reads and verifies the graph anew (each way has variables of its own) and compiles it if asked. */
static bool way_of(way *w, const request *q, const char *text, size_t size, bool compile) {
  *w = (way){.g = tern__graph_parse(text, size)};
  if (!w->g || tern__graph_verify(w->g, "reading") || !put_sizes(w, q, compile || q->run || q->eager || q->check))
    return false;
  w->n_in = w->g->n_inputs;
  w->n_out = w->g->n_outputs;
  w->n_variables = w->g->n_variables;
  w->variable = calloc(w->n_variables + 1u, sizeof *w->variable);
  w->out = calloc(w->n_out + 1u, sizeof *w->out);
  if (!w->variable || !w->out) return tern__fail(TERN_E_OOM, "out of memory") == TERN_OK;
  for (uint32_t k = 0; k < w->n_variables; k++) w->variable[k] = tern__ref(w->g->variable[k].variable);
  if (!compile) return true;
  const tern__compile_opts opts = {.name = q->file};
  tern__graph *g = w->g;
  w->g = NULL; /* taken over, whatever becomes of it */
  w->p = tern__compile(g, &opts);
  return w->p != NULL;
}

/* One run each way that was asked for, what they gave, and the time of one. */
static int run_ways(const request *q, way *eager, way *compiled, double *ms) {
  TERN_SCOPE;
  const bool compile = compiled->p != NULL;
  way *shown = q->run || !q->eager ? compiled : eager;
  tern_tensor **in = calloc(eager->n_in + 1u, sizeof *in);
  tern_rc rc = in ? TERN_OK : tern__fail(TERN_E_OOM, "out of memory");
  for (uint32_t i = 0; i < eager->n_in && !rc; i++)
    if (!(in[i] = random_input(&eager->g->value[eager->g->input[i]], q->seed + i))) rc = tern_error_code();
  if (!rc && (q->eager || q->check)) rc = run_way(eager, in);
  if (!rc && compile && (q->run || q->check)) rc = run_way(compiled, in);
  bool same = true;
  if (!rc && q->check) same = agree_ways(compiled, eager);
  if (!rc && q->check && same && !q->json) puts("compiled and eager results agree");
  for (uint32_t o = 0; o < shown->n_out && !rc && (q->run || q->eager) && !q->json; o++)
    if (shown->out[o] != TERN_NONE) tern_print(shown->out[o]);
  if (!rc && q->runs) rc = time_way(shown, in, q->runs, ms);
  free(in);
  return rc ? failed(q->file) : !same;
}

static int show(const request *q, const tern__graph *g) {
  char *text = q->print ? tern__graph_text(g, 1) : tern__graph_dot(g);
  if (!text) return failed("no memory");
  fputs(text, stdout);
  free(text);
  return 0;
}

static int explain(const way *compiled) {
  char *text = tern__program_explain(compiled->p);
  if (!text) return failed("no memory");
  fputs(text, stdout);
  free(text);
  return 0;
}

static int work(const request *q) {
  size_t size = 0;
  char *source = read_all(q->file, &size);
  if (!source) {
    fprintf(stderr, "tern-graph: %s cannot be read\n", q->file);
    return 1;
  }
  way eager = {.g = NULL}, compiled = {.g = NULL};
  double ms = 0;
  int status = way_of(&eager, q, source, size, false) ? 0 : failed(q->file);
  const bool runs = q->run || q->eager || q->check;
  if (!status && (q->run || q->check || q->explain) && !way_of(&compiled, q, source, size, true))
    status = failed(q->file);
  free(source);
  if (!status && runs) status = run_ways(q, &eager, &compiled, &ms);
  if (!status && q->explain) status = explain(&compiled);
  if (!status && (q->print || q->dot)) status = show(q, eager.g);
  if (!status && (q->json || (!q->print && !q->dot && !runs && !q->verify && !q->explain))) describe(q, eager.g, ms);
  if (!status && q->runs && !q->json) printf("%.6g ms a run (median of %d)\n", ms, q->runs);
  way_end(&compiled);
  way_end(&eager);
  return status;
}

int main(int argc, char **argv) {
  request q = {.seed = 1};
  for (int i = 1; i < argc; i++)
    if (!strcmp(argv[i], "--help")) {
      fputs(help, stdout);
      return 0;
    }
  if (!parse_arguments(argc, argv, &q)) {
    fputs(help, stderr);
    return 2;
  }
  find_plugins();
  tern_device_mark mark = {NULL};
  if (q.device) {
    mark = tern_device_begin(q.device);
    if (tern_error_code()) return failed("--device");
  }
  const int status = work(&q);
  if (q.device) tern_device_end(&mark);
  return status;
}
