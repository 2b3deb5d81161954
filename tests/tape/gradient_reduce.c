/* Gradient cases of reductions, scans and products. Reductions are generated: each op with each set of axes. */
#include "tape/gradients.h"
#include <math.h>

/* ---- reductions ---- */

typedef struct reduction {
  const char *op;
  tern_tensor *(*f)(tern_tensor *x, const tern_reduce_opts *opts);
  double correction;
  bool spread; /* needs two elements */
} reduction;
static const reduction reductions[] = {{"sum", tern_sum, 0, false},   {"mean", tern_mean, 0, false},
                                       {"prod", tern_prod, 0, false}, {"max", tern_max, 0, false},
                                       {"min", tern_min, 0, false},   {"var", tern_var, 0, false},
                                       {"var", tern_var, 1, true},    {"std", tern_std, 0, true},
                                       {"std", tern_std, 1, true},    {"logsumexp", tern_logsumexp, 0, false}};
static const struct {
  const char *form;
  tern_shape shape;
  int n, keepdims, axes[3];
} reduced[] = {{"all of (2, 3, 4)", {3, {2, 3, 4}}, 0, 0, {0}},
               {"axis 1 of (2, 3, 4)", {3, {2, 3, 4}}, 1, 0, {1}},
               {"axes 2 and 0 of (2, 3, 4), kept", {3, {2, 3, 4}}, 2, 1, {2, 0}},
               {"axis -1 of (2, 3, 4), kept", {3, {2, 3, 4}}, 1, 1, {-1}},
               {"all of (5,), kept", {1, {5}}, 0, 1, {0}},
               {"axis 1 of (0, 3)", {2, {0, 3}}, 1, 0, {1}},
               {"()", {0, {0}}, 0, 0, {0}}};
enum { N_REDUCED = sizeof reduced / sizeof *reduced };

static tern_tensor *run_reduction(tern_tensor *const *x, int number) {
  const reduction *r = &reductions[number / N_REDUCED];
  const int k = number % N_REDUCED;
  const tern_reduce_opts opts = {
      .axes = reduced[k].axes, .n_axes = reduced[k].n, .keepdims = reduced[k].keepdims, .correction = r->correction};
  return r->f(x[0], &opts);
}

static void visit_reductions(gradient_visit visit, void *context) {
  for (int i = 0; i < (int)(sizeof reductions / sizeof *reductions); i++)
    for (int k = 0; k < N_REDUCED; k++) {
      if (reductions[i].spread && reduced[k].shape.rank == 0) continue;
      const gradient_case c = {.op = reductions[i].op,
                               .form = reduced[k].form,
                               .body = run_reduction,
                               .number = i * N_REDUCED + k,
                               .in = {{reduced[k].shape, -1.5, 1.5, 0.3, 0}},
                               .flags = k ? GRADIENT_MINOR : 0};
      visit(&c, context);
    }
}

static tern_tensor *prod(tern_tensor *const *x, int form) { return tern_prod(x[0], form ? TERN_AXES(1) : NULL); }
static tern_tensor *sum_as(tern_tensor *const *x, int form) {
  return tern_sum(x[0], &(tern_reduce_opts){.axes = &form, .n_axes = 1, .dtype = TERN_F64});
}

static tern_tensor *norm(tern_tensor *const *x, int form) {
  static const int first[] = {0}, two[] = {0, 2};
  static const tern_norm_opts opts[] = {{.order = 0},
                                        {.order = 1},
                                        {.order = INFINITY},
                                        {.order = -INFINITY},
                                        {.order = 3},
                                        {.order = 0.5},
                                        {.order = -2},
                                        {.order = 2, .axes = first, .n_axes = 1},
                                        {.order = 3, .axes = two, .n_axes = 2, .keepdims = 1},
                                        {.order = INFINITY, .axes = two, .n_axes = 2},
                                        {.count_nonzero = 1}};
  return tern_norm(x[0], &opts[form]);
}

/* ---- scans ---- */

typedef tern_tensor *(*scan)(tern_tensor *x, int axis, const tern_scan_opts *opts);
static const struct {
  const char *op;
  scan f;
  bool exclusive;
} scans[] = {{"cumsum", tern_cumsum, true},
             {"cumprod", tern_cumprod, true},
             {"cummax", tern_cummax, false},
             {"cummin", tern_cummin, false}};
static const struct {
  const char *form;
  tern_shape shape;
  int axis, zeros;
  tern_scan_opts opts;
} scanned[] = {{"axis 1", {2, {2, 5}}, 1, 0, {0, 0}},
               {"axis 0 of (5, 3)", {2, {5, 3}}, 0, 0, {0, 0}},
               {"reverse", {2, {2, 5}}, -1, 0, {0, 1}},
               {"exclusive", {2, {2, 5}}, 1, 0, {1, 0}},
               {"exclusive, reverse", {3, {2, 4, 2}}, 1, 0, {1, 1}},
               {"with zeros", {1, {7}}, 0, 3, {0, 0}},
               {"one element", {2, {3, 1}}, 1, 0, {0, 0}},
               {"nothing", {2, {0, 3}}, 1, 0, {0, 0}},
               {"along nothing", {2, {0, 3}}, 0, 0, {0, 0}}};
enum { N_SCANNED = sizeof scanned / sizeof *scanned };

static tern_tensor *run_scan(tern_tensor *const *x, int number) {
  const int k = number % N_SCANNED;
  return scans[number / N_SCANNED].f(x[0], scanned[k].axis, &scanned[k].opts);
}

static void visit_scans(gradient_visit visit, void *context) {
  for (int i = 0; i < (int)(sizeof scans / sizeof *scans); i++)
    for (int k = 0; k < N_SCANNED; k++) {
      if ((scanned[k].opts.exclusive || scanned[k].zeros) && !scans[i].exclusive) continue;
      const gradient_case c = {.op = scans[i].op,
                               .form = scanned[k].form,
                               .body = run_scan,
                               .number = i * N_SCANNED + k,
                               .in = {{scanned[k].shape, -1.5, 1.5, 0.3, scanned[k].zeros}},
                               .flags = k ? GRADIENT_MINOR : 0};
      visit(&c, context);
    }
}

/* ---- products ---- */

static tern_tensor *matmul(tern_tensor *const *x, int form) {
  if (form == 1) return tern_matmul(x[0], tern_transpose(x[1]));
  if (form == 2) return tern_matmul(tern_transpose(x[0]), x[0]);
  if (form == 3) return tern_matmul(x[0], x[0]);
  return tern_matmul(x[0], x[1]);
}
static tern_tensor *dot(tern_tensor *const *x, int form) {
  (void)form;
  return tern_dot(x[0], x[1]);
}
static tern_tensor *einsum(tern_tensor *const *x, int form) {
  static const struct {
    const char *subscripts;
    int n;
  } of[] = {{"ij,jk->ik", 2},      {"ii->i", 1},    {"ii", 1},          {"bij,bjk", 2},      {"i,j->ij", 2},
            {"...i,...i->...", 2}, {"ij->ji", 1},   {"ij->", 1},        {"ij,jk,kl->il", 3}, {"i,i", 2},
            {"ij,ij->ij", 2},      {"iij,j->i", 2}, {"ijk,jl->kil", 2}, {"...ij,jk", 2}};
  return tern_einsum(of[form].subscripts, x, of[form].n);
}

#define MINOR GRADIENT_MINOR
static const gradient_case others[] = {
    ROW("prod", "one zero", prod, 0, 0, IN_ZEROS(-1.5, 1.5, 1, 2, 3)),
    ROW("prod", "two zeros", prod, 0, MINOR, IN_ZEROS(-1.5, 1.5, 2, 2, 3)),
    ROW("prod", "zeros along an axis", prod, 1, MINOR, IN_ZEROS(-1.5, 1.5, 5, 3, 4)),
    ROW("sum", "as float64", sum_as, 1, MINOR | GRADIENT_WIDE_ONLY, IN(-1, 1, 2, 3)),
    ROW("norm", "of order 2", norm, 0, 0, IN_AWAY(-1, 1, 0.2, 2, 3, 2)),
    ROW("norm", "of order 1", norm, 1, MINOR, IN_AWAY(-1, 1, 0.2, 2, 3, 2)),
    ROW("norm", "of order infinity", norm, 2, MINOR, IN_AWAY(-1, 1, 0.2, 2, 3, 2)),
    ROW("norm", "of order -infinity", norm, 3, MINOR, IN_AWAY(-1, 1, 0.2, 2, 3, 2)),
    ROW("norm", "of order 3", norm, 4, MINOR, IN_AWAY(-1, 1, 0.2, 2, 3, 2)),
    ROW("norm", "of order 1/2", norm, 5, MINOR, IN_AWAY(-1, 1, 0.2, 2, 3)),
    ROW("norm", "of order -2", norm, 6, MINOR, IN_AWAY(-1, 1, 0.2, 2, 3)),
    ROW("norm", "over axis 0", norm, 7, MINOR, IN_AWAY(-1, 1, 0.2, 2, 3, 2)),
    ROW("norm", "of order 3 over axes 0 and 2, kept", norm, 8, MINOR, IN_AWAY(-1, 1, 0.2, 2, 3, 2)),
    ROW("norm", "of order infinity over axes 0 and 2", norm, 9, MINOR, IN_AWAY(-1, 1, 0.2, 2, 3, 2)),
    ROW("norm", "number of nonzeros", norm, 10, MINOR, IN_AWAY(-1, 1, 0.2, 2, 3, 2)),
    ROW("norm", "a scalar", norm, 0, MINOR, IN_AWAY(-1, 1, 0.2, )),
    ROW("matmul", "(3,) and (3,)", matmul, 0, 0, IN(-1, 1, 3), IN(-1, 1, 3)),
    ROW("matmul", "(3,) and (3, 2)", matmul, 0, MINOR, IN(-1, 1, 3), IN(-1, 1, 3, 2)),
    ROW("matmul", "(2, 3) and (3,)", matmul, 0, MINOR, IN(-1, 1, 2, 3), IN(-1, 1, 3)),
    ROW("matmul", "(2, 3) and (3, 4)", matmul, 0, 0, IN(-1, 1, 2, 3), IN(-1, 1, 3, 4)),
    ROW("matmul", "(17, 9) and (9, 11)", matmul, 0, MINOR, IN(-1, 1, 17, 9), IN(-1, 1, 9, 11)),
    ROW("matmul", "b transposed", matmul, 1, 0, IN(-1, 1, 2, 3), IN(-1, 1, 4, 3)),
    ROW("matmul", "a transposed and a", matmul, 2, MINOR, IN(-1, 1, 4, 3)),
    ROW("matmul", "a twice", matmul, 3, MINOR, IN(-1, 1, 3, 3)),
    ROW("matmul", "(5, 2, 3) and (5, 3, 4)", matmul, 0, 0, IN(-1, 1, 5, 2, 3), IN(-1, 1, 5, 3, 4)),
    ROW("matmul", "(2, 1, 2, 3) and (3, 3, 2)", matmul, 0, MINOR, IN(-1, 1, 2, 1, 2, 3), IN(-1, 1, 3, 3, 2)),
    ROW("matmul", "(4, 2, 3) and (3,)", matmul, 0, MINOR, IN(-1, 1, 4, 2, 3), IN(-1, 1, 3)),
    ROW("matmul", "(3,) and (4, 3, 2)", matmul, 0, MINOR, IN(-1, 1, 3), IN(-1, 1, 4, 3, 2)),
    ROW("matmul", "(4, 2, 3) and (3, 2)", matmul, 0, MINOR, IN(-1, 1, 4, 2, 3), IN(-1, 1, 3, 2)),
    ROW("matmul", "no rows", matmul, 0, MINOR, IN(-1, 1, 0, 3), IN(-1, 1, 3, 2)),
    ROW("matmul", "sums of nothing", matmul, 0, MINOR, IN(-1, 1, 2, 0), IN(-1, 1, 0, 3)),
    ROW("dot", "(2, 3) and (4, 3, 2)", dot, 0, MINOR, IN(-1, 1, 2, 3), IN(-1, 1, 4, 3, 2)),
    ROW("dot", "() and (2, 3)", dot, 0, MINOR, IN(-1, 1, ), IN(-1, 1, 2, 3)),
    ROW("einsum", "ij,jk->ik", einsum, 0, 0, IN(-1, 1, 2, 3), IN(-1, 1, 3, 4)),
    ROW("einsum", "ii->i", einsum, 1, 0, IN(-1, 1, 3, 3)),
    ROW("einsum", "ii", einsum, 2, MINOR, IN(-1, 1, 3, 3)),
    ROW("einsum", "bij,bjk", einsum, 3, MINOR, IN(-1, 1, 2, 2, 3), IN(-1, 1, 2, 3, 2)),
    ROW("einsum", "i,j->ij", einsum, 4, MINOR, IN(-1, 1, 2), IN(-1, 1, 3)),
    ROW("einsum", "...i,...i->...", einsum, 5, MINOR, IN(-1, 1, 2, 1, 3), IN(-1, 1, 4, 3)),
    ROW("einsum", "ij->ji", einsum, 6, MINOR, IN(-1, 1, 2, 3)),
    ROW("einsum", "ij->", einsum, 7, MINOR, IN(-1, 1, 2, 3)),
    ROW("einsum", "ij,jk,kl->il", einsum, 8, MINOR, IN(-1, 1, 2, 3), IN(-1, 1, 3, 2), IN(-1, 1, 2, 2)),
    ROW("einsum", "i,i", einsum, 9, MINOR, IN(-1, 1, 3), IN(-1, 1, 3)),
    ROW("einsum", "ij,ij->ij", einsum, 10, MINOR, IN(-1, 1, 2, 3), IN(-1, 1, 2, 3)),
    ROW("einsum", "iij,j->i", einsum, 11, MINOR, IN(-1, 1, 2, 2, 3), IN(-1, 1, 3)),
    ROW("einsum", "ijk,jl->kil", einsum, 12, MINOR, IN(-1, 1, 2, 3, 2), IN(-1, 1, 3, 2)),
    ROW("einsum", "...ij,jk", einsum, 13, MINOR, IN(-1, 1, 2, 2, 3), IN(-1, 1, 3, 2)),
};

void gradient_reduce_cases(gradient_visit visit, void *context) {
  visit_reductions(visit, context);
  visit_scans(visit, context);
  GRADIENT_ROWS(others, visit, context);
}
