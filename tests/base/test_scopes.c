/* Scopes: what ends when, however a block is left; keeping and escaping. What is alive is read from tern_memory_info:
   every tensor here takes UNIT bytes. */
#include "support/values.h"
#include <stdlib.h>
#include <string.h>

enum { UNIT = 1024 };
static tern_tensor *unit(void) { return tern_zeros(TERN_SHAPE(UNIT), TERN_U8); }

static int64_t base;
/* Tensors alive since mark(). */
static int64_t alive(void) {
  tern_memory info;
  return tern_memory_info(NULL, &info) ? -1000 : ((int64_t)info.live - base) / UNIT;
}
static void mark(void) {
  base = 0;
  tern_memory info;
  if (!tern_memory_info(NULL, &info)) base = (int64_t)info.live;
}
#define ALIVE(n) CHECK(alive() == (n), "%lld tensors are alive, expected %d", (long long)alive(), (n))

static void test_nesting(void) {
  mark();
  {
    TERN_SCOPE;
    unit();
    {
      TERN_SCOPE;
      unit();
      unit();
      ALIVE(3);
      {
        TERN_SCOPE;
        unit();
        ALIVE(4);
      }
      ALIVE(3);
    }
    ALIVE(1);
    unit();
    ALIVE(2);
  }
  ALIVE(0);
  {
    TERN_SCOPE;
    TERN_SCOPE; /* two in one block end in turn */
    unit();
  }
  ALIVE(0);
}

static int returns(int way) {
  TERN_SCOPE;
  unit();
  if (way == 0) return 1;
  for (int i = 0; i < 10; i++) {
    TERN_SCOPE;
    unit();
    if (way == 1 && i == 5) return 2;
    if (i == 3) continue;
    if (way == 2 && i == 7) break;
  }
  if (way == 3) goto out;
  unit();
out:
  return 3;
}

static void test_leaving(void) {
  mark();
  for (int way = 0; way < 5; way++) {
    returns(way);
    ALIVE(0);
  }
  for (int i = 0; i < 20; i++) {
    TERN_SCOPE;
    unit();
    if (i % 3 == 0) continue;
    if (i == 17) break;
    ALIVE(1);
  }
  ALIVE(0);
  int turns = 0;
again : {
  TERN_SCOPE;
  unit();
  if (++turns < 5) goto again; /* backwards out of the block: the scope ends and begins anew */
}
  CHECK(turns == 5, "%d turns", turns);
  ALIVE(0);
}

static tern_tensor *escapes(int depth) {
  TERN_SCOPE;
  unit();
  tern_tensor *t = depth ? escapes(depth - 1) : tern_full(TERN_SHAPE(UNIT), TERN_U8, 7);
  unit();
  return tern_escape(t);
}

static void test_escape(void) {
  mark();
  {
    TERN_SCOPE;
    tern_tensor *t = escapes(0);
    ALIVE(1);
    CHECK(tern_item(tern_max(t, NULL)) == 7, "the escaped one is whole");
  }
  ALIVE(0);
  {
    TERN_SCOPE;
    tern_tensor *t = escapes(6);
    ALIVE(1);
    CHECK(tern_item(tern_max(t, NULL)) == 7, "escaped through seven scopes");
  }
  ALIVE(0);
  { /* several at once, in any order, and one of them twice */
    TERN_SCOPE;
    tern_tensor *a, *b, *c;
    {
      TERN_SCOPE;
      unit();
      a = tern_full(TERN_SHAPE(UNIT), TERN_U8, 1);
      b = tern_full(TERN_SHAPE(UNIT), TERN_U8, 2);
      unit();
      c = tern_full(TERN_SHAPE(UNIT), TERN_U8, 3);
      CHECK(tern_escape(c) == c && tern_escape(a) == a && tern_escape(b) == b && tern_escape(a) == a,
            "escape returns its argument");
      ALIVE(5);
    }
    ALIVE(3);
    CHECK(tern_item(tern_min(a, NULL)) == 1 && tern_item(tern_min(b, NULL)) == 2 && tern_item(tern_min(c, NULL)) == 3,
          "all three are whole");
    CHECK(tern_escape(a) == a, "escape out of the outermost scope");
  }
  { /* a view escapes, its base does not need to */
    TERN_SCOPE;
    tern_tensor *v;
    {
      TERN_SCOPE;
      v = tern_escape(tern_reshape(tern_full(TERN_SHAPE(UNIT), TERN_U8, 9), TERN_SHAPE(2, UNIT / 2)));
    }
    CHECK(tern_item(tern_max(v, NULL)) == 9, "an escaped view");
  }
  { /* an outer scope's tensor stays where it is */
    TERN_SCOPE;
    tern_tensor *outer = unit();
    {
      TERN_SCOPE;
      CHECK(tern_escape(outer) == outer, "an outer scope's tensor");
    }
    ALIVE(2);
    CHECK(tern_rank(outer) == 1, "alive");
  }
  tern_finish(); /* what escaped from the outermost scope ends with the program */
  ALIVE(0);
}

static void test_keep(void) {
  mark();
  tern_tensor *kept;
  {
    TERN_SCOPE;
    kept = tern_keep(unit());
    unit();
    ALIVE(2);
  }
  ALIVE(1);
  CHECK(tern_keep(kept) == kept, "keep returns its argument");
  tern_release(kept);
  ALIVE(1);
  tern_release(kept);
  ALIVE(0);
  { /* escape of a kept one: the scope's reference goes out, the kept one is apart */
    TERN_SCOPE;
    tern_tensor *t;
    {
      TERN_SCOPE;
      t = unit();
      tern_keep(t);
      tern_escape(t);
    }
    ALIVE(1);
    tern_release(t);
    ALIVE(1);
    CHECK(tern_rank(t) == 1, "the scope still holds it");
  }
  ALIVE(0);
  { /* kept, its scope gone: escape has nothing to hand out */
    tern_tensor *t;
    {
      TERN_SCOPE;
      t = tern_keep(unit());
    }
    {
      TERN_SCOPE;
      unit();
      unit();
      CHECK(tern_escape(t) == t, "escape of a kept one");
    }
    ALIVE(1);
    tern_release(t);
  }
  ALIVE(0);
  { /* one tensor held by two handles of one scope (tern_to and tern_cast return it again) */
    TERN_SCOPE;
    tern_tensor *t;
    {
      TERN_SCOPE;
      t = unit();
      tern_tensor *same = tern_cast(t, TERN_U8);
      unit();
      CHECK(same == t && tern_escape(same) == t, "a cast to its own dtype is the tensor itself");
    }
    ALIVE(1);
    CHECK(tern_rank(t) == 1, "alive");
  }
  ALIVE(0);
}

static void test_marks(void) {
  mark();
  tern_scope_mark a = tern_scope_begin();
  unit();
  tern_scope_mark b = tern_scope_begin();
  unit();
  tern_scope_end(&a); /* closes the inner one too (its tensors live on to the next outer scope, or end here) */
  tern_scope_end(&b);
  tern_scope_end(&a);
  tern_finish();
  ALIVE(0);
  a = tern_scope_begin();
  for (int i = 0; i < 5000; i++) tern_index(unit(), 0, 0); /* the handle stack grows */
  ALIVE(5000);
  tern_scope_end(&a);
  ALIVE(0);
  tern_scope_end(NULL);
  CHECK_NO_ERROR();
}

static void test_variables(void) {
  mark();
  tern_tensor *v;
  {
    TERN_SCOPE;
    v = tern_variable(unit(), NULL);
  }
  ALIVE(1); /* owned: no scope ends it */
  {
    TERN_SCOPE;
    for (int i = 0; i < 50; i++)
      CHECK(tern_assign(v, tern_add(v, tern_scalar_int(1))) == TERN_OK, "assign: %s", tern_error());
    CHECK(tern_item(tern_max(v, NULL)) == 50, "fifty steps");
  }
  ALIVE(1);
  tern_release(v);
  ALIVE(0);
}

static int child(const char *name) {
  if (strcmp(name, "many")) return 99;
  TERN_SCOPE;
  tern_tensor *t = tern_ones(TERN_SHAPE(1), TERN_F32);
  for (int i = 0; i < 40000; i++) tern_reshape(t, TERN_SHAPE());
  return tern_finish();
}

static void test_many(void) {
  static char text[16384];
  CHECK(test_child("many", NULL, text, sizeof text) == 0, "many: %s", text);
  const char *first = strstr(text, "more than 10,000 tensors");
  CHECK(first && !strstr(first + 20, "10,000"), "warned once, and what to do: %s", text);
  CHECK(test_child("many", (const char *const[]){"TERN_LOG=error", NULL}, text, sizeof text) == 0 && !*text,
        "TERN_LOG=error: %s", text);
}

static const test_case cases[] = {{"nesting", test_nesting},    {"leaving", test_leaving},
                                  {"escape", test_escape},      {"keep and release", test_keep},
                                  {"marks", test_marks},        {"variables", test_variables},
                                  {"10,000 handles", test_many}};
TEST_MAIN_CHILD("scopes", cases, child)
