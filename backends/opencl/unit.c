/* Units: programs of many sections. The text of a unit is that of its sections, each between #defines that give its
   functions, types and variables names of their own, and the #undefs of those and of its macros: what a section names
   is found by a scan of its text outside of all braces. */
#include "build.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool ocl_section_name(const uint64_t key[2], const char *plain, char out[OCL_NAME]) {
  const int n = snprintf(out, OCL_NAME, "%s_%016llx", plain, (unsigned long long)key[0]);
  return n > 0 && n < OCL_NAME;
}

/* ---- the names of a section ---- */

typedef struct word { /* a name in a text */
  const char *s;
  uint32_t n;
} word;
typedef struct words {
  word *at;
  uint32_t n, cap;
  bool failed;
} words;

static void put_word(words *w, word x) {
  for (uint32_t i = 0; i < w->n; i++)
    if (w->at[i].n == x.n && !memcmp(w->at[i].s, x.s, x.n)) return;
  if (w->n == w->cap) {
    const uint32_t cap = w->cap * 2 + 32;
    word *grown = realloc(w->at, cap * sizeof *grown);
    if (!grown) {
      w->failed = true;
      return;
    }
    w->at = grown;
    w->cap = cap;
  }
  w->at[w->n++] = x;
}

static bool starts_name(char c) { return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
static bool in_name(char c) { return starts_name(c) || (c >= '0' && c <= '9'); }
static bool is(word w, const char *name) { return w.n == strlen(name) && !memcmp(w.s, name, w.n); }

static word word_at(const char *s) {
  word w = {s, 0};
  while (in_name(s[w.n])) w.n++;
  return w;
}

/* Past the end of a preprocessor line, with those that it continues on; a #define's name goes to macros. */
static const char *skip_directive(const char *s, words *macros) {
  s++;
  while (*s == ' ' || *s == '\t') s++;
  const word what = word_at(s);
  const char *name = s + what.n;
  while (*name == ' ' || *name == '\t') name++;
  if (is(what, "define") && starts_name(*name)) put_word(macros, word_at(name));
  while (*s && *s != '\n') s += s[0] == '\\' && s[1] ? 2 : 1;
  return s;
}

static const char *skip_comment(const char *s) {
  if (s[1] == '/') return s + strcspn(s, "\n");
  const char *end = strstr(s + 2, "*/");
  return end ? end + 2 : s + strlen(s);
}

static const char *skip_quoted(const char *s) {
  const char quote = *s++;
  while (*s && *s != quote) s += s[0] == '\\' && s[1] ? 2 : 1;
  return *s ? s + 1 : s;
}

typedef struct scan { /* of one declaration outside of all braces */
  words *names, *macros;
  word last, name; /* the last name outside of parentheses; what is declared, once that is clear */
  uint32_t parens, braces, brackets;
  bool type, tag, attribute; /* after typedef; after struct, union or enum; in __attribute__((..)) */
} scan;

static void end_declaration(scan *c) {
  if (c->type && c->last.n)
    put_word(c->names, c->last);
  else if (c->name.n)
    put_word(c->names, c->name);
  c->last = c->name = (word){0};
  c->type = c->tag = false;
}

static void take_name(scan *c, word w) {
  if (c->parens || c->brackets) return;
  if (c->tag && !is(w, "__attribute__")) {
    put_word(c->names, w);
    c->tag = false;
    c->last = w;
    return;
  }
  c->type |= is(w, "typedef");
  c->tag = is(w, "struct") || is(w, "union") || is(w, "enum");
  c->attribute = is(w, "__attribute__");
  if (!c->attribute) c->last = w;
}

static void take_sign(scan *c, char sign, bool *body) {
  switch (sign) {
  case '(':
    if (!c->parens && !c->brackets && !c->attribute && !c->name.n && !c->type) c->name = c->last;
    c->parens++;
    break;
  case ')':
    if (c->parens) c->parens--;
    if (!c->parens) c->attribute = false;
    break;
  case '[':
  case '=':
    if (!c->parens && !c->name.n && !c->type) c->name = c->last;
    c->brackets += sign == '[';
    break;
  case ']':
    if (c->brackets) c->brackets--;
    break;
  case '{':
    *body = c->name.n && !c->type; /* of a function or the value of a variable; else the members of a type */
    c->tag = false;
    c->braces = 1;
    break;
  case ';':
    if (c->parens) break;
    if (!c->type && !c->name.n) c->name = c->last; /* a variable without a value; or the tag of a type again */
    end_declaration(c);
    break;
  default: break;
  }
}

/* Fills names with what the text declares and macros with what it defines. */
static void scan_text(const char *s, words *names, words *macros) {
  scan c = {.names = names, .macros = macros};
  bool fresh = true, body = false; /* at the start of a line; the braces hold a function's body */
  while (*s) {
    if (*s == '#' && fresh) {
      s = skip_directive(s, macros);
      continue;
    }
    if (*s == '\n')
      fresh = true;
    else if (*s != ' ' && *s != '\t')
      fresh = false;
    if (*s == '/' && (s[1] == '/' || s[1] == '*')) {
      s = skip_comment(s);
    } else if (*s == '"' || *s == '\'') {
      s = skip_quoted(s);
    } else if (in_name(*s)) {
      const word w = word_at(s);
      if (!c.braces && starts_name(*s)) take_name(&c, w);
      s += w.n;
    } else if (c.braces) {
      c.braces += *s == '{';
      c.braces -= *s == '}';
      if (*s == '}' && !c.braces && body && s[1 + strspn(s + 1, " \t\n")] != ';') end_declaration(&c);
      s++;
    } else {
      take_sign(&c, *s++, &body);
    }
  }
}

/* ---- text ---- */

static void add_section(ocl_text *t, const uint64_t key[2], const char *text) {
  words names = {0}, macros = {0};
  scan_text(text, &names, &macros);
  t->failed |= names.failed || macros.failed;
  /* every section begins with the contraction that OpenCL C begins with */
  ocl_add(t, "#pragma OPENCL FP_CONTRACT ON\n");
  for (uint32_t i = 0; i < names.n; i++)
    ocl_add(t, "#define %.*s %.*s_%016llx\n", (int)names.at[i].n, names.at[i].s, (int)names.at[i].n, names.at[i].s,
            (unsigned long long)key[0]);
  ocl_add_bytes(t, text, strlen(text));
  ocl_add(t, "\n");
  for (uint32_t i = 0; i < names.n; i++) ocl_add(t, "#undef %.*s\n", (int)names.at[i].n, names.at[i].s);
  for (uint32_t i = 0; i < macros.n; i++) ocl_add(t, "#undef %.*s\n", (int)macros.at[i].n, macros.at[i].s);
  free(names.at);
  free(macros.at);
}

void ocl_unit_text(ocl_text *t, const uint64_t (*keys)[2], const char *const *texts, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) add_section(t, keys[i], texts[i]);
}

/* ---- programs ---- */

const char *ocl_build_options(const tern_dev *dev) {
  cl_device_fp_config fp = 0;
  clGetDeviceInfo(dev->id->device, CL_DEVICE_SINGLE_FP_CONFIG, sizeof fp, &fp, NULL);
  return (fp & CL_FP_CORRECTLY_ROUNDED_DIVIDE_SQRT) ? "-cl-std=CL1.2 -w -cl-fp32-correctly-rounded-divide-sqrt"
                                                    : "-cl-std=CL1.2 -w";
}

cl_int ocl_program_of_binary(tern_dev *dev, const unsigned char *data, size_t size, cl_program *out) {
  cl_int err, status = CL_SUCCESS;
  cl_program p = clCreateProgramWithBinary(dev->context, 1, &dev->id->device, &size, &data, &status, &err);
  if (p && err == CL_SUCCESS) err = status;
  if (p && err == CL_SUCCESS) err = clBuildProgram(p, 1, &dev->id->device, ocl_build_options(dev), NULL, NULL);
  if (err == CL_SUCCESS) {
    *out = p;
    return CL_SUCCESS;
  }
  if (p) clReleaseProgram(p);
  return err;
}

/* What the compiler says, as far as an error has room for it; caller frees. */
static char *build_log(tern_dev *dev, cl_program p) {
  size_t n = 0;
  if (clGetProgramBuildInfo(p, dev->id->device, CL_PROGRAM_BUILD_LOG, 0, NULL, &n) != CL_SUCCESS || !n) return NULL;
  char *log = calloc(1, n + 1);
  if (log) clGetProgramBuildInfo(p, dev->id->device, CL_PROGRAM_BUILD_LOG, n, log, NULL);
  return log;
}

static cl_int build(tern_dev *dev, const char *text, const char *options, cl_program *out, char **log) {
  cl_int err;
  cl_program p = clCreateProgramWithSource(dev->context, 1, &text, NULL, &err);
  if (err != CL_SUCCESS) return err;
  err = clBuildProgram(p, 1, &dev->id->device, options, NULL, NULL);
  if (err == CL_SUCCESS) {
    *out = p;
    return CL_SUCCESS;
  }
  if (log) *log = build_log(dev, p);
  clReleaseProgram(p);
  return err;
}

cl_int ocl_program_of_text(tern_dev *dev, const char *source, cl_program *out, char **log) {
  if (!dev->id->compiler) return CL_COMPILER_NOT_AVAILABLE; /* or the program forbids it */
  const char *options = ocl_build_options(dev);
  if (dev->lean) { /* with declarations of our own in place of the runtime's header */
    ocl_text text = {0};
    char lean[200];
    snprintf(lean, sizeof lean, "%s -D_OPENCL_H_", options);
    ocl_add_builtins(&text, dev, source);
    ocl_add(&text, "#line 1\n");
    ocl_add_bytes(&text, source, strlen(source));
    const cl_int err = text.failed ? CL_OUT_OF_HOST_MEMORY : build(dev, text.s, lean, out, NULL);
    free(text.s);
    if (err == CL_SUCCESS) return err;
    ocl_log(dev->drv, 3, "opencl:%s: a unit does not build without the runtime's header: built with it",
            dev->id->alias);
  }
  return build(dev, source, options, out, log);
}

bool ocl_program_binary(cl_program p, unsigned char **data, size_t *size) {
  *size = 0;
  *data = NULL;
  if (clGetProgramInfo(p, CL_PROGRAM_BINARY_SIZES, sizeof *size, size, NULL) != CL_SUCCESS || !*size) return false;
  *data = malloc(*size);
  if (*data && clGetProgramInfo(p, CL_PROGRAM_BINARIES, sizeof *data, data, NULL) == CL_SUCCESS) return true;
  free(*data);
  *data = NULL;
  return false;
}
