/* Variables: what an assignment changes and what keeps its value, in every combination of who holds the memory;
   conversions, scatter, wrong arguments; and checkpoints from and to the device. */
#include "support/values.h"
#include "tensor/tensor.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static tern_tensor *named(const char *name, tern_tensor *initial) {
  return tern_variable(initial, &(tern_variable_opts){.name = name});
}

static void test_making(void) {
  TERN_SCOPE;
  tern_tensor *base = tern_f32(TERN_SHAPE(2, 2), 1, 2, 3, 4);
  tern_tensor *v = tern_variable(base, &(tern_variable_opts){.name = "v", .frozen = 1}),
              *w = tern_variable(tern_transpose(base), NULL);
  tern_tensor *n = tern_variable(tern_i32(TERN_SHAPE(1), 1), NULL),
              *there = tern_variable(base, &(tern_variable_opts){.device = "cpu"});
  tern_tensor *number = tern_variable(tern_scalar(2), &(tern_variable_opts){.device = "cpu"});
  CHECK(tern_is_variable(v) && tern_is_variable(n) && !tern_is_variable(base) && !tern_is_variable(NULL) &&
            !tern_is_variable(TERN_NONE) && !tern_is_variable(tern_flatten(v)),
        "is_variable");
  CHECK(!tern_trainable(v) && tern_trainable(w) && !tern_trainable(n) && !tern_trainable(base) && !tern_trainable(NULL),
        "trainable");
  CHECK(tern_set_trainable(v, 1) == TERN_OK && tern_trainable(v) && tern_set_trainable(v, 0) == TERN_OK &&
            !tern_trainable(v),
        "set");
  CHECK(tern_set_trainable(n, 0) == TERN_OK, "an integer that is not trainable: %s", tern_error());
  CHECK(tern_set_trainable(n, 1) == TERN_E_ARG, "an integer that is");
  CHECK_ERROR(TERN_E_ARG, "int32");
  CHECK(tern_set_trainable(base, 1) == TERN_E_ARG, "no variable");
  CHECK_ERROR(TERN_E_ARG, "tern_variable");
  CHECK(tern_set_trainable(NULL, 1) == TERN_E_ARG, "NULL");
  CHECK_ERROR(TERN_E_ARG, "NULL");
  CHECK(!strcmp(tern_device_get(there), "cpu:0") && !strcmp(tern_device_get(number), "cpu:0"), "device: %s",
        tern_device_get(there));
  CHECK_LIST(w, TERN_SHAPE(2, 2), TERN_F32, 1, 3, 2, 4);
  CHECK_LIST(there, TERN_SHAPE(2, 2), TERN_F32, 1, 2, 3, 4);
  CHECK_LIST(number, TERN_SHAPE(), TERN_F32, 2);
  CHECK(!tern_variable(base, &(tern_variable_opts){.device = "nowhere"}), "no such device");
  CHECK_ERROR(TERN_E_ARG, "nowhere");
  CHECK(!tern_variable(NULL, NULL), "of NULL");
  CHECK_ERROR(TERN_E_ARG, "NULL");
  CHECK(tern_assign(v, tern_scalar(9)) == TERN_OK, "%s", tern_error());
  CHECK_LIST(base, TERN_SHAPE(2, 2), TERN_F32, 1, 2, 3, 4); /* the variable is a copy */
  tern_tensor *const owned[] = {v, w, n, there, number};
  for (int i = 0; i < 5; i++) tern_release(owned[i]);
  CHECK_NO_ERROR();
}

/* Alone, a variable keeps its memory; with a view beside it, it moves away from it, once. */
static void test_in_place(void) {
  TERN_SCOPE;
  tern_tensor *v = named("v", tern_f32(TERN_SHAPE(4), 1, 2, 3, 4));
  const tern__storage *home = v->storage;
  CHECK(tern_assign(v, tern_f32(TERN_SHAPE(4), 5, 6, 7, 8)) == TERN_OK && v->storage == home, "assign moved: %s",
        tern_error());
  CHECK(tern_assign_add(v, tern_scalar(1)) == TERN_OK && v->storage == home, "assign_add moved: %s", tern_error());
  CHECK(tern_assign_sub(v, tern_f32(TERN_SHAPE(1), 2)) == TERN_OK && v->storage == home, "assign_sub moved: %s",
        tern_error());
  CHECK(tern_assign_scatter(v, tern_scalar_int(0), tern_scalar(1), TERN_SCATTER_SET) == TERN_OK && v->storage == home,
        "assign_scatter moved: %s", tern_error());
  CHECK(tern_assign(v, v) == TERN_OK && v->storage == home, "assign of itself moved");
  CHECK_LIST(v, TERN_SHAPE(4), TERN_F32, 1, 5, 6, 7);
  {
    TERN_SCOPE;
    tern_tensor *view = tern_slice(v, &TERN_RANGE(TERN_OPEN, TERN_OPEN, -1), 1);
    CHECK(tern_assign_add(v, tern_scalar(10)) == TERN_OK && v->storage != home, "written under a view");
    home = v->storage;
    CHECK_LIST(view, TERN_SHAPE(4), TERN_F32, 7, 6, 5, 1);
    CHECK(tern_assign_add(v, tern_scalar(10)) == TERN_OK && v->storage == home, "moved a second time");
    CHECK_LIST(v, TERN_SHAPE(4), TERN_F32, 21, 25, 26, 27);
    CHECK_LIST(view, TERN_SHAPE(4), TERN_F32, 7, 6, 5, 1);
  }
  tern_release(v);
  CHECK_NO_ERROR();
}

/* Every kind of assignment under every kind of holder: the holder keeps what it saw. */
static void test_holders(void) {
  for (int holder = 0; holder < 5; holder++)
    for (int kind = 0; kind < 4; kind++) {
      TERN_SCOPE;
      tern_tensor *v = named("v", tern_f32(TERN_SHAPE(2, 2), 1, 2, 3, 4));
      tern_tensor *h = holder == 0   ? tern_transpose(tern_transpose(v))
                       : holder == 1 ? tern_add(v, tern_scalar(0))
                       : holder == 2 ? tern_contiguous(v)
                       : holder == 3 ? tern_cast(v, TERN_F32)
                                     : tern_to(v, tern_device_get(v));
      tern_rc rc = TERN_OK;
      for (int again = 0; again < 2 && !rc; again++) {
        if (kind == 0) rc = tern_assign(v, tern_f32(TERN_SHAPE(2, 2), 9, 9, 9, 9));
        if (kind == 1) rc = tern_assign_add(v, tern_f32(TERN_SHAPE(2), 1, 2));
        if (kind == 2) rc = tern_assign_sub(v, tern_f32(TERN_SHAPE(2, 1), 1, 2));
        if (kind == 3)
          rc = tern_assign_scatter(v, tern_i32(TERN_SHAPE(1), -1), tern_f32(TERN_SHAPE(1, 2), 8, 9), TERN_SCATTER_SET);
      }
      CHECK(rc == TERN_OK, "holder %d, kind %d: %s", holder, kind, tern_error());
      CHECK_LIST(h, TERN_SHAPE(2, 2), TERN_F32, 1, 2, 3, 4);
      static const double expected[4][4] = {{9, 9, 9, 9}, {3, 6, 5, 8}, {-1, 0, -1, 0}, {1, 2, 8, 9}};
      CHECK_VALUES(v, TERN_SHAPE(2, 2), TERN_F32, expected[kind], 0, 0, "the variable");
      tern_release(v);
    }
  CHECK_NO_ERROR();
}

/* Values that are read from the variable's own memory. */
static void test_aliases(void) {
  TERN_SCOPE;
  tern_tensor *v = named("v", tern_f32(TERN_SHAPE(2, 2), 1, 2, 3, 4));
  CHECK(tern_assign(v, tern_transpose(v)) == TERN_OK, "%s", tern_error());
  CHECK_LIST(v, TERN_SHAPE(2, 2), TERN_F32, 1, 3, 2, 4);
  CHECK(tern_assign_add(v, tern_transpose(v)) == TERN_OK, "%s", tern_error());
  CHECK_LIST(v, TERN_SHAPE(2, 2), TERN_F32, 2, 5, 5, 8);
  CHECK(tern_assign_add(v, v) == TERN_OK, "%s", tern_error());
  CHECK_LIST(v, TERN_SHAPE(2, 2), TERN_F32, 4, 10, 10, 16);
  CHECK(tern_assign_sub(v, tern_index(v, 0, 0)) == TERN_OK, "%s", tern_error());
  CHECK_LIST(v, TERN_SHAPE(2, 2), TERN_F32, 0, 0, 6, 6);
  CHECK(tern_assign_sub(v, v) == TERN_OK, "%s", tern_error());
  CHECK_LIST(v, TERN_SHAPE(2, 2), TERN_F32, 0, 0, 0, 0);
  CHECK(tern_assign(v, tern_f32(TERN_SHAPE(2, 2), 1, 2, 3, 4)) == TERN_OK, "%s", tern_error());
  CHECK(tern_assign(v, tern_expand(tern_index(v, 1, 1), TERN_SHAPE(2, 2))) == TERN_OK, "%s", tern_error());
  CHECK_LIST(v, TERN_SHAPE(2, 2), TERN_F32, 2, 4, 2, 4);
  CHECK(tern_assign(v, tern_f32(TERN_SHAPE(2, 2), 1, 2, 3, 4)) == TERN_OK, "%s", tern_error());
  CHECK(tern_assign_scatter(v, tern_i64(TERN_SHAPE(2), 1, 0), v, TERN_SCATTER_ADD) == TERN_OK, "%s", tern_error());
  CHECK_LIST(v, TERN_SHAPE(2, 2), TERN_F32, 4, 6, 4, 6);
  tern_tensor *i = named("i", tern_i64(TERN_SHAPE(3), 2, 0, 1));
  CHECK(tern_assign_scatter(i, i, i, TERN_SCATTER_SET) == TERN_OK, "%s", tern_error());
  CHECK_LIST(i, TERN_SHAPE(3), TERN_I64, 0, 1, 2);
  tern_tensor *w = named("w", v);
  CHECK(tern_assign_add(w, v) == TERN_OK && tern_assign(v, w) == TERN_OK && tern_assign(w, tern_scalar(0)) == TERN_OK,
        "%s", tern_error());
  CHECK_LIST(v, TERN_SHAPE(2, 2), TERN_F32, 8, 12, 8, 12);
  tern_release(v);
  tern_release(w);
  tern_release(i);
  CHECK_NO_ERROR();
}

static void test_dtypes(void) {
  TERN_SCOPE;
  tern_tensor *f = named("f", tern_f32(TERN_SHAPE(2), 1, 2)), *i = named("i", tern_i32(TERN_SHAPE(2), 10, 20));
  tern_tensor *h = named("h", tern_cast(tern_f32(TERN_SHAPE(2), 1, 2), TERN_BF16)),
              *b = named("b", tern_bool(TERN_SHAPE(2), 1, 0));
  CHECK(tern_assign(f, i) == TERN_OK, "%s", tern_error());
  CHECK_LIST(f, TERN_SHAPE(2), TERN_F32, 10, 20);
  CHECK(tern_assign(i, tern_f32(TERN_SHAPE(2), 2.75, -2.75)) == TERN_OK, "%s", tern_error());
  CHECK_LIST(i, TERN_SHAPE(2), TERN_I32, 2, -2);
  /* v += x is v = v + x: computed in the dtype in which the two meet, converted to the variable's */
  CHECK(tern_assign_add(i, tern_f32(TERN_SHAPE(1), 1.5)) == TERN_OK, "%s", tern_error());
  CHECK_LIST(i, TERN_SHAPE(2), TERN_I32, 3, 0);
  CHECK(tern_assign_sub(i, tern_scalar(0.5)) == TERN_OK, "%s", tern_error());
  CHECK_LIST(i, TERN_SHAPE(2), TERN_I32, 2, 0);
  CHECK(tern_assign_add(f, i) == TERN_OK, "%s", tern_error());
  CHECK_LIST(f, TERN_SHAPE(2), TERN_F32, 12, 20);
  CHECK(tern_assign_add(h, tern_f32(TERN_SHAPE(2), 1.00390625, 256)) == TERN_OK, "%s",
        tern_error()); /* rounded once, to 8 bits */
  CHECK_LIST(h, TERN_SHAPE(2), TERN_BF16, 2, 258);
  CHECK(tern_assign_add(b, tern_bool(TERN_SHAPE(2), 1, 0)) == TERN_OK, "%s", tern_error());
  CHECK_LIST(b, TERN_SHAPE(2), TERN_BOOL, 1, 0);
  CHECK(tern_assign_sub(b, b) == TERN_E_ARG, "bool - bool");
  CHECK_ERROR(TERN_E_ARG, "bool");
  CHECK_LIST(b, TERN_SHAPE(2), TERN_BOOL, 1, 0);
  tern_tensor *const owned[] = {f, i, h, b};
  for (int k = 0; k < 4; k++) tern_release(owned[k]);
  CHECK_NO_ERROR();
}

static void test_scatter(void) {
  TERN_SCOPE;
  tern_tensor *v = named("v", tern_zeros(TERN_SHAPE(3, 2), TERN_F32));
  tern_tensor *at = tern_i32(TERN_SHAPE(3), 2, 0, 2), *rows = tern_f32(TERN_SHAPE(3, 2), 1, 2, 3, 4, 5, 1);
  CHECK(tern_assign_scatter(v, at, rows, TERN_SCATTER_ADD) == TERN_OK, "%s", tern_error());
  CHECK_LIST(v, TERN_SHAPE(3, 2), TERN_F32, 3, 4, 0, 0, 6, 3);
  CHECK(tern_assign_scatter(v, at, rows, TERN_SCATTER_SET) == TERN_OK, "%s", tern_error());
  CHECK_LIST(v, TERN_SHAPE(3, 2), TERN_F32, 3, 4, 0, 0, 5, 1);
  CHECK(tern_assign_scatter(v, at, rows, TERN_SCATTER_MAX) == TERN_OK, "%s", tern_error());
  CHECK_LIST(v, TERN_SHAPE(3, 2), TERN_F32, 3, 4, 0, 0, 5, 2);
  CHECK(tern_assign_scatter(v, at, rows, TERN_SCATTER_MIN) == TERN_OK, "%s", tern_error());
  CHECK_LIST(v, TERN_SHAPE(3, 2), TERN_F32, 3, 4, 0, 0, 1, 1);
  /* no indices, a matrix of them, updates that are views */
  CHECK(tern_assign_scatter(v, tern_zeros(TERN_SHAPE(0), TERN_I64), tern_zeros(TERN_SHAPE(0, 2), TERN_F32),
                            TERN_SCATTER_SET) == TERN_OK,
        "%s", tern_error());
  CHECK(tern_assign_scatter(v, tern_i64(TERN_SHAPE(1, 2), 0, -1),
                            tern_expand(tern_f32(TERN_SHAPE(2), 7, 8), TERN_SHAPE(1, 2, 2)),
                            TERN_SCATTER_SET) == TERN_OK,
        "%s", tern_error());
  CHECK_LIST(v, TERN_SHAPE(3, 2), TERN_F32, 7, 8, 0, 0, 7, 8);
  /* a wrong argument changes nothing */
  CHECK(tern_assign_scatter(v, rows, rows, TERN_SCATTER_ADD) == TERN_E_ARG, "float indices");
  CHECK_ERROR(TERN_E_ARG, "integers");
  CHECK(tern_assign_scatter(v, at, tern_ones(TERN_SHAPE(2, 2), TERN_F32), TERN_SCATTER_ADD) == TERN_E_ARG,
        "updates of another shape");
  CHECK_ERROR(TERN_E_ARG, "(3, 2)");
  CHECK(tern_assign_scatter(v, at, rows, (tern_scatter_mode)9) == TERN_E_ARG, "no such mode");
  CHECK_ERROR(TERN_E_ARG, "mode");
  CHECK(tern_assign_scatter(at, at, rows, TERN_SCATTER_ADD) == TERN_E_ARG, "no variable");
  CHECK_ERROR(TERN_E_ARG, "not a variable");
  CHECK(tern_assign_scatter(v, NULL, rows, TERN_SCATTER_ADD) == TERN_E_ARG, "no indices");
  CHECK_ERROR(TERN_E_ARG, "NULL");
  CHECK(tern_assign_scatter(v, at, NULL, TERN_SCATTER_ADD) == TERN_E_ARG, "no updates");
  CHECK_ERROR(TERN_E_ARG, "NULL");
  CHECK_LIST(v, TERN_SHAPE(3, 2), TERN_F32, 7, 8, 0, 0, 7, 8);
  tern_release(v);
  CHECK_NO_ERROR();
}

static void test_bad_input(void) {
  TERN_SCOPE;
  tern_tensor *v = named("weights", tern_f32(TERN_SHAPE(2, 3), 1)), *x = tern_f32(TERN_SHAPE(2, 3), 2);
  tern_tensor *const bad[] = {tern_zeros(TERN_SHAPE(3, 2), TERN_F32), tern_zeros(TERN_SHAPE(2, 2, 3), TERN_F32),
                              tern_zeros(TERN_SHAPE(0), TERN_F32), tern_zeros(TERN_SHAPE(1, 1, 1), TERN_F32)};
  for (int i = 0; i < 4; i++) {
    CHECK(tern_assign(v, bad[i]) == TERN_E_ARG, "assign of shape %d", i);
    CHECK_ERROR(TERN_E_ARG, "weights");
    CHECK(tern_assign_add(v, bad[i]) == TERN_E_ARG, "assign_add of shape %d", i);
    CHECK_ERROR(TERN_E_ARG, "weights");
    CHECK(tern_assign_sub(v, bad[i]) == TERN_E_ARG, "assign_sub of shape %d", i);
    CHECK_ERROR(TERN_E_ARG, "weights");
  }
  tern_rc (*const each[])(tern_tensor *, tern_tensor *) = {tern_assign, tern_assign_add, tern_assign_sub};
  for (int i = 0; i < 3; i++) {
    CHECK(each[i](x, v) == TERN_E_ARG, "%d: no variable", i);
    CHECK_ERROR(TERN_E_ARG, "not a variable");
    CHECK(each[i](v, NULL) == TERN_E_ARG, "%d: no value", i);
    CHECK_ERROR(TERN_E_ARG, "argument 2 is NULL");
    CHECK(each[i](NULL, x) == TERN_E_ARG, "%d: no variable", i);
    CHECK_ERROR(TERN_E_ARG, "argument 1 is NULL");
    CHECK(each[i](v, TERN_NONE) == TERN_E_ARG, "%d: TERN_NONE", i);
    CHECK_ERROR(TERN_E_ARG, "TERN_NONE");
  }
  CHECK_LIST(v, TERN_SHAPE(2, 3), TERN_F32, 1, 1, 1, 1, 1, 1);
  tern_release(v);
  tern_tensor *empty = named("empty", tern_zeros(TERN_SHAPE(0, 2), TERN_F32));
  CHECK(tern_assign(empty, tern_ones(TERN_SHAPE(0, 2), TERN_F32)) == TERN_OK &&
            tern_assign_add(empty, tern_scalar(1)) == TERN_OK,
        "of nothing: %s", tern_error());
  tern_release(empty);
  CHECK_NO_ERROR();
}

/* Values that lie on the other device of this test. */
static void test_devices(void) {
  TERN_SCOPE;
  tern_tensor *v = named("v", tern_f32(TERN_SHAPE(2, 2), 1, 2, 3, 4));
  tern_tensor *x, *at;
  {
    tern_device_mark mark = tern_device_begin("cpu");
    x = tern_transpose(tern_f32(TERN_SHAPE(2, 2), 10, 20, 30, 40));
    at = tern_i32(TERN_SHAPE(1), 1);
    tern_device_end(&mark);
  }
  CHECK(tern_assign_add(v, x) == TERN_OK, "%s", tern_error());
  CHECK_LIST(v, TERN_SHAPE(2, 2), TERN_F32, 11, 32, 23, 44);
  CHECK(tern_assign_scatter(v, at, tern_slice(x, &TERN_RANGE(0, 1, 1), 1), TERN_SCATTER_SET) == TERN_OK, "%s",
        tern_error());
  CHECK_LIST(v, TERN_SHAPE(2, 2), TERN_F32, 11, 32, 10, 30);
  CHECK(tern_assign(v, x) == TERN_OK, "%s", tern_error());
  CHECK_LIST(v, TERN_SHAPE(2, 2), TERN_F32, 10, 30, 20, 40);
  tern_release(v);
  CHECK_NO_ERROR();
}

/* Many steps without a wait between them: in-place writes stay in order with what reads the variable. */
static void test_order(void) {
  TERN_SCOPE;
  enum { N = 1000, STEPS = 60 };
  tern_tensor *v = named("v", tern_zeros(TERN_SHAPE(N), TERN_F32)),
              *sum = named("sum", tern_zeros(TERN_SHAPE(N), TERN_F32));
  for (int i = 0; i < STEPS; i++) {
    TERN_SCOPE;
    CHECK(tern_assign_add(v, tern_scalar(1)) == TERN_OK && tern_assign_add(sum, tern_mul(v, v)) == TERN_OK,
          "step %d: %s", i, tern_error());
  }
  CHECK(tern_equal_all(v, tern_full(TERN_SHAPE(N), TERN_F32, STEPS)) == 1, "v is not %d", STEPS);
  CHECK(tern_equal_all(sum, tern_full(TERN_SHAPE(N), TERN_F32, STEPS * (STEPS + 1) * (2 * STEPS + 1) / 6)) == 1,
        "the sum of squares");
  tern_release(v);
  tern_release(sum);
  CHECK_NO_ERROR();
}

static void test_checkpoint(void) {
  TERN_SCOPE;
  char path[] = "/tmp/tern-variable-XXXXXX";
  const int fd = mkstemp(path);
  tern_tensor *v = named("v", tern_arange(0, 100000, 1, TERN_F32)), *s = named("s", tern_scalar_int(3));
  tern_tensor *const both[] = {v, s};
  tern_tensor *expected = tern_arange(0, 100000, 1, TERN_F32);
  CHECK(tern_assign_add(v, tern_scalar(1)) == TERN_OK && tern_checkpoint_save(path, both, 2) == TERN_OK, "save: %s",
        tern_error());
  CHECK(tern_assign(v, tern_scalar(0)) == TERN_OK && tern_assign(s, tern_scalar(0)) == TERN_OK, "%s", tern_error());
  CHECK(tern_checkpoint_restore(path, both, 2) == TERN_OK, "restore: %s", tern_error());
  CHECK(tern_equal_all(v, tern_add(expected, tern_scalar(1))) == 1, "v");
  CHECK_LIST(s, TERN_SHAPE(), TERN_I64, 3);
  CHECK(!strcmp(tern_device_get(v), tern_device_get(expected)), "restored to %s", tern_device_get(v));
  tern_release(v);
  tern_release(s);
  close(fd);
  unlink(path);
  CHECK_NO_ERROR();
}

static const test_case cases[] = {
    {"making", test_making}, {"in_place", test_in_place},    {"holders", test_holders},     {"aliases", test_aliases},
    {"dtypes", test_dtypes}, {"scatter", test_scatter},      {"bad_input", test_bad_input}, {"devices", test_devices},
    {"order", test_order},   {"checkpoint", test_checkpoint}};
TEST_MAIN("variables", cases)
