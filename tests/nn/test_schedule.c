/* Learning-rate schedules against Keras 3 (fixtures/optimizers.bin), alone and in an optimiser; norms and clipping by
   hand. */
#include "fixtures/fixtures.h"
#include "support/values.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <tern/train.h>

static double number(const fixture *f, const char *name) {
  const int64_t bits = fixture_attr(f, name, 0);
  double value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static void test_keras(void) {
  fixtures file;
  fixture f;
  int n = 0;
  const bool opened = fixtures_open(&file, TERN_FIXTURES "/optimizers.bin");
  if (!CHECK(opened, "optimizers.bin: %s", file.error)) return;
  while (fixtures_next(&file, &f)) {
    if (strcmp(f.op, "schedule")) continue;
    n++;
    const tern_schedule s = {.kind = (int)fixture_attr(&f, "kind", 0),
                             .rate = number(&f, "rate"),
                             .factor = number(&f, "factor"),
                             .floor_factor = number(&f, "floor_factor"),
                             .steps = fixture_attr(&f, "steps", 0),
                             .warmup = fixture_attr(&f, "warmup", 0),
                             .warmup_start = number(&f, "warmup_start"),
                             .staircase = (int)fixture_attr(&f, "staircase", 0),
                             .n_boundaries = f.n_in > 1 ? (int)f.in[1].count : 0,
                             .boundaries = f.n_in > 1 ? f.in[1].data : NULL,
                             .values = f.n_in > 2 ? f.in[2].data : NULL};
    for (size_t i = 0; i < f.in[0].count; i++) {
      const int64_t step = ((const int64_t *)f.in[0].data)[i];
      const double expected = ((const double *)f.out[0].data)[i], got = tern_schedule_at(&s, step);
      CHECK(fabs(got - expected) <= 1e-14 * fabs(expected) + 1e-17, "schedule %d at %lld: %.17g, Keras %.17g", n,
            (long long)step, got, expected);
    }
  }
  CHECK(!file.error && n == 6, "optimizers.bin: %d schedules, %s", n, file.error ? file.error : "");
  fixtures_close(&file);
  CHECK_NO_ERROR();
}

static void test_others(void) {
  const int64_t boundaries[] = {2, 4};
  const tern_schedule factor = {
      .kind = TERN_SCHEDULE_STEP, .rate = 0.8, .factor = 0.5, .n_boundaries = 2, .boundaries = boundaries, .warmup = 2};
  const double expected[] = {0, 0.4, 0.8, 0.8, 0.8, 0.4, 0.4, 0.2}; /* boundaries count from the end of the warm-up */
  for (int i = 0; i < 8; i++)
    CHECK(fabs(tern_schedule_at(&factor, i) - expected[i]) < 1e-15, "step %d: %g", i, tern_schedule_at(&factor, i));
  const tern_schedule constant = {.rate = 0.3};
  CHECK(tern_schedule_at(&constant, 0) == 0.3 && tern_schedule_at(&constant, INT64_MAX) == 0.3, "constant");
  CHECK(tern_schedule_at(&constant, -5) == 0.3, "a step before the first");
  CHECK_NO_ERROR();
  const int64_t falling[] = {4, 4};
  const tern_schedule bad[] = {{.kind = 4},
                               {.kind = -1},
                               {.rate = NAN},
                               {.warmup = -1},
                               {.kind = TERN_SCHEDULE_COSINE},
                               {.kind = TERN_SCHEDULE_EXPONENTIAL, .steps = -3},
                               {.kind = TERN_SCHEDULE_STEP, .n_boundaries = -1},
                               {.kind = TERN_SCHEDULE_STEP, .n_boundaries = 1},
                               {.kind = TERN_SCHEDULE_STEP, .n_boundaries = 2, .boundaries = falling},
                               {.kind = TERN_SCHEDULE_STEP, .values = (const double[]){INFINITY}}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    CHECK(isnan(tern_schedule_at(&bad[i], 0)), "schedule %zu accepted", i);
    CHECK_ERROR(TERN_E_ARG, "schedule_at: ");
  }
  CHECK(isnan(tern_schedule_at(NULL, 0)), "NULL accepted");
  CHECK_ERROR(TERN_E_ARG, "NULL");
}

/* The rate of each step is the schedule's, and changing it compiles nothing. */
static void test_in_optimizer(void) {
  TERN_SCOPE;
  tern_schedule s = {.kind = TERN_SCHEDULE_EXPONENTIAL, .rate = 0.5, .factor = 0.5, .steps = 1};
  tern_optimizer *o = tern_sgd(&(tern_sgd_opts){.learning_rate = 9, .schedule = &s});
  s.rate = 100; /* it was copied */
  tern_tensor *v = tern_variable(tern_f32(TERN_SHAPE(2), 1, 2), NULL), *g = tern_f32(TERN_SHAPE(2), 1, 2);
  tern_counters before = {0}, after = {0};
  for (int i = 0; i < 3; i++) {
    CHECK(tern_optimizer_learning_rate(o) == ldexp(0.5, -i), "%g", tern_optimizer_learning_rate(o));
    CHECK(tern_optimizer_apply(o, &g, &v, 1) == TERN_OK, "%s", tern_error());
    if (i == 0) tern_counters_get(NULL, &before);
  }
  tern_counters_get(NULL, &after);
  CHECK_LIST(v, TERN_SHAPE(2), TERN_F32, 0.125, 0.25);
  CHECK(after.compiles == before.compiles, "compiled %d", (int)(after.compiles - before.compiles));
  CHECK(tern_optimizer_set_learning_rate(o, 0.125) == TERN_OK && tern_optimizer_learning_rate(o) == 0.125, "%s",
        tern_error());
  CHECK(tern_optimizer_apply(o, &g, &v, 1) == TERN_OK, "%s", tern_error());
  CHECK_LIST(v, TERN_SHAPE(2), TERN_F32, 0, 0);
  tern_release(v);
  tern_optimizer_release(o);
  CHECK_NO_ERROR();
}

/* ---- clipping by hand ---- */

static void test_clip(void) {
  TERN_SCOPE;
  tern_tensor *g[] = {tern_f32(TERN_SHAPE(2, 1), 3, 4), TERN_NONE, tern_f32(TERN_SHAPE(), 12),
                      tern_zeros(TERN_SHAPE(0), TERN_F32)};
  tern_tensor *clipped[4], *norm;
  CHECK_LIST(tern_global_norm(g, 4), TERN_SHAPE(), TERN_F32, 13);
  CHECK_LIST(tern_global_norm(g, 0), TERN_SHAPE(), TERN_F32, 0);
  CHECK(tern_clip_by_global_norm(g, 4, 6.5, clipped, &norm) == TERN_OK, "%s", tern_error());
  CHECK_LIST(norm, TERN_SHAPE(), TERN_F32, 13);
  CHECK_LIST(clipped[0], TERN_SHAPE(2, 1), TERN_F32, 1.5, 2);
  CHECK(clipped[1] == TERN_NONE && tern_size(clipped[3]) == 0, "none and empty");
  CHECK_LIST(clipped[2], TERN_SHAPE(), TERN_F32, 6);
  CHECK(tern_clip_by_global_norm(g, 4, 20, clipped, NULL) == TERN_OK, "%s", tern_error());
  CHECK_LIST(clipped[0], TERN_SHAPE(2, 1), TERN_F32, 3, 4);
  CHECK_LIST(tern_clip_by_norm(g[0], 1), TERN_SHAPE(2, 1), TERN_F32, 0.6f, 0.8f);
  CHECK_LIST(tern_clip_by_norm(tern_zeros(TERN_SHAPE(2), TERN_F64), 1), TERN_SHAPE(2), TERN_F64, 0, 0);
  tern_tensor *half =
      test_tensor(TERN_SHAPE(2), TERN_F16, (double[]){300, 400}); /* squares overflow float16, not the sum */
  CHECK_LIST(tern_clip_by_norm(half, 250), TERN_SHAPE(2), TERN_F16, 150, 200);
  tern_tensor *mixed[] = {half, tern_f64(TERN_SHAPE(1), 1200)};
  CHECK_LIST(tern_global_norm(mixed, 2), TERN_SHAPE(), TERN_F64, 1300);
  CHECK(tern_clip_by_global_norm(mixed, 2, 650, clipped, NULL) == TERN_OK, "%s", tern_error());
  CHECK_LIST(clipped[0], TERN_SHAPE(2), TERN_F16, 150, 200);
  CHECK_LIST(clipped[1], TERN_SHAPE(1), TERN_F64, 600);
  CHECK_LIST(tern_global_norm(
                 (tern_tensor *[]){tern_transpose(tern_expand(tern_f32(TERN_SHAPE(2, 1), 3, 4), TERN_SHAPE(2, 4)))}, 1),
             TERN_SHAPE(), TERN_F32, 10);
  CHECK_NO_ERROR();
}

static void test_bad_clip(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_f32(TERN_SHAPE(2), 1, 2), *whole = tern_i32(TERN_SHAPE(1), 1), *clipped[2] = {x, x};
  CHECK(!tern_clip_by_norm(x, 0), "0");
  CHECK_ERROR(TERN_E_ARG, "above 0");
  CHECK(!tern_clip_by_norm(x, NAN), "NaN");
  CHECK_ERROR(TERN_E_ARG, "above 0");
  CHECK(!tern_clip_by_norm(NULL, 1) && !tern_clip_by_norm(TERN_NONE, 1), "NULL");
  CHECK_ERROR(TERN_E_ARG, "clip_by_norm");
  CHECK(!tern_global_norm(NULL, 1), "NULL");
  CHECK_ERROR(TERN_E_ARG, "global_norm");
  CHECK(!tern_global_norm(&whole, 1), "integers");
  CHECK_ERROR(TERN_E_ARG, "gradient 1 is of dtype int32");
  CHECK(tern_clip_by_global_norm((tern_tensor *[]){x, whole}, 2, 1, clipped, NULL) == TERN_E_ARG && !clipped[0] &&
            !clipped[1],
        "integers");
  CHECK_ERROR(TERN_E_ARG, "gradient 2 is of dtype int32");
  CHECK(tern_clip_by_global_norm(&x, 1, -1, clipped, NULL) == TERN_E_ARG && !clipped[0], "a negative limit");
  CHECK_ERROR(TERN_E_ARG, "above 0");
  CHECK(tern_clip_by_global_norm(&x, 1, 1, NULL, NULL) == TERN_E_ARG, "nowhere to go");
  CHECK_ERROR(TERN_E_ARG, "clip_by_global_norm");
}

static const test_case cases[] = {{"as Keras 3", test_keras},
                                  {"step factor, constant, bad ones", test_others},
                                  {"in an optimiser", test_in_optimizer},
                                  {"clipping by norms", test_clip},
                                  {"bad input of clipping", test_bad_clip}};
TEST_MAIN("schedules and clipping", cases)
