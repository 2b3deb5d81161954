/* Declarations of the OpenCL C functions that a program calls. PoCL parses a header of 900 kB with all of them for
   every program, four fifths of what a small program takes to build; its include guard (an option) leaves that out, and
   this table declares the functions that our sources name. A program that needs more does not compile so, and is built
   with the whole header. */
#include "ocl.h"

#include <string.h>

enum {
  ID,       /* size_t f(uint) */
  MATH1,    /* T f(T): float, double and float16 */
  MATH3,    /* T f(T, T, T) */
  MATH2,    /* T f(T, T) */
  TEST,     /* int f(T): float and double */
  INTEGERS, /* T f(T, T): int, uint, long, ulong */
  LOAD,     /* vloadN of 32 and 64 bits from every address space that sources use */
  STORE,
  PLAIN /* the text itself */
};
typedef struct builtin {
  const char *name;
  uint32_t kind;
  const char *text; /* with $ for the attributes of a declaration */
} builtin;

static const builtin builtins[] = {
    {"get_global_id", ID, NULL},
    {"get_global_size", ID, NULL},
    {"get_local_id", ID, NULL},
    {"get_group_id", ID, NULL},
    {"acos", MATH1, NULL},
    {"acosh", MATH1, NULL},
    {"asin", MATH1, NULL},
    {"asinh", MATH1, NULL},
    {"atan", MATH1, NULL},
    {"atanh", MATH1, NULL},
    {"cbrt", MATH1, NULL},
    {"ceil", MATH1, NULL},
    {"cos", MATH1, NULL},
    {"cosh", MATH1, NULL},
    {"erf", MATH1, NULL},
    {"erfc", MATH1, NULL},
    {"exp", MATH1, NULL},
    {"exp2", MATH1, NULL},
    {"expm1", MATH1, NULL},
    {"fabs", MATH1, NULL},
    {"floor", MATH1, NULL},
    {"log", MATH1, NULL},
    {"log10", MATH1, NULL},
    {"log1p", MATH1, NULL},
    {"log2", MATH1, NULL},
    {"rint", MATH1, NULL},
    {"sin", MATH1, NULL},
    {"sinh", MATH1, NULL},
    {"sqrt", MATH1, NULL},
    {"tan", MATH1, NULL},
    {"tanh", MATH1, NULL},
    {"trunc", MATH1, NULL},
    {"atan2", MATH2, NULL},
    {"copysign", MATH2, NULL},
    {"fmod", MATH2, NULL},
    {"hypot", MATH2, NULL},
    {"pow", MATH2, NULL},
    {"fma", MATH3, NULL},
    {"isnan", TEST, NULL},
    {"max", INTEGERS, NULL},
    {"min", INTEGERS, NULL},
    {"vload8", LOAD, "8"},
    {"vload16", LOAD, "16"},
    {"vstore8", STORE, "8"},
    {"vstore16", STORE, "16"},
    {"select", PLAIN, "float16 $ select(float16, float16, int16);\n"},
    {"convert_char16", PLAIN, "char16 $ convert_char16(int16);\n"},
    {"convert_double16", PLAIN, "double16 $ convert_double16(float16);\n"},
    {"convert_float16", PLAIN, "float16 $ convert_float16(double16);\n"},
    {"vload_half", PLAIN, "float __attribute__((overloadable, pure)) vload_half(size_t, const __global half *);\n"},
    {"vstore_half_rte", PLAIN, "void __attribute__((overloadable)) vstore_half_rte(float, size_t, __global half *);\n"},
    {"barrier", PLAIN, "void __attribute__((overloadable, convergent)) barrier(cl_mem_fence_flags);\n"},
    {"atomic_cmpxchg", PLAIN, "int __attribute__((overloadable)) atomic_cmpxchg(volatile __global int *, int, int);\n"},
};
enum { N_BUILTINS = sizeof builtins / sizeof builtins[0] };
static const char attributes[] = "__attribute__((overloadable, const))";

static void add_memory(ocl_text *t, const builtin *b, bool fp64) {
  static const char *const types[] = {"float", "int", "uint", "long", "ulong", "double"};
  static const char *const spaces[] = {"__global", "__private"};
  for (int i = 0; i < (fp64 ? 6 : 5); i++)
    for (int s = 0; s < 2; s++)
      if (b->kind == LOAD)
        ocl_add(t, "%s%s __attribute__((overloadable, pure)) %s(size_t, const %s %s *);\n", types[i], b->text, b->name,
                spaces[s], types[i]);
      else
        ocl_add(t, "void __attribute__((overloadable)) %s(%s%s, size_t, %s %s *);\n", b->name, types[i], b->text,
                spaces[s], types[i]);
}

static void add_builtin(ocl_text *t, const builtin *b, bool fp64) {
  static const char *const reals[] = {"float", "float16", "double"};
  static const char *const integers[] = {"int", "uint", "long", "ulong"};
  const int n_reals = fp64 ? 3 : 2;
  switch (b->kind) {
  case ID: ocl_add(t, "size_t %s %s(uint);\n", attributes, b->name); return;
  case MATH1:
    for (int i = 0; i < n_reals; i++) ocl_add(t, "%s %s %s(%s);\n", reals[i], attributes, b->name, reals[i]);
    return;
  case MATH2:
    for (int i = 0; i < n_reals; i++)
      ocl_add(t, "%s %s %s(%s, %s);\n", reals[i], attributes, b->name, reals[i], reals[i]);
    return;
  case MATH3:
    for (int i = 0; i < n_reals; i++)
      ocl_add(t, "%s %s %s(%s, %s, %s);\n", reals[i], attributes, b->name, reals[i], reals[i], reals[i]);
    return;
  case TEST:
    for (int i = 0; i < n_reals; i += 2) ocl_add(t, "int %s %s(%s);\n", attributes, b->name, reals[i]);
    return;
  case INTEGERS:
    for (int i = 0; i < 4; i++)
      ocl_add(t, "%s %s %s(%s, %s);\n", integers[i], attributes, b->name, integers[i], integers[i]);
    return;
  case LOAD:
  case STORE: add_memory(t, b, fp64); return;
  default:
    if (!fp64 && strstr(b->text, "double")) return;
    for (const char *c = b->text; *c; c++) ocl_add(t, *c == '$' ? "%s" : "%.1s", *c == '$' ? attributes : c);
  }
}

static bool in_name(char c) {
  return c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

void ocl_add_builtins(ocl_text *t, const tern_dev *dev, const char *source) {
  bool done[N_BUILTINS] = {false};
  if (dev->id->fp64) ocl_add(t, "#pragma OPENCL EXTENSION cl_khr_fp64 : enable\n");
  for (const char *c = source; *c;) {
    if (!in_name(*c)) {
      c++;
      continue;
    }
    size_t n = 1;
    while (in_name(c[n])) n++;
    for (size_t i = 0; i < N_BUILTINS; i++)
      if (!done[i] && !strncmp(builtins[i].name, c, n) && !builtins[i].name[n]) {
        add_builtin(t, &builtins[i], dev->id->fp64);
        done[i] = true;
      }
    c += n;
  }
}
