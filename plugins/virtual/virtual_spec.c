/* The text that describes simulated devices; see virtual.h. Numbers are read here, since strtod follows the locale. */
#include "virtual.h"
#include "../../backends/common/nest.h"
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char virtual_default[] =
    "gpu:kind=gpu,flops=1e13,bandwidth=5e11,launch=5us,link=1.2e10,latency=10us,memory=16G;"
    "fpga:kind=fpga,flops=5e11,bandwidth=2e10,launch=1ms,link=3e9,latency=50us,memory=4G,dtypes=float32|bool,args=16,"
    "ops=copy|add|sub|mul|div|neg|maximum|minimum|gt|where|exp|tanh|sum|amax|dot|conv";

typedef struct span {
  const char *at;
  size_t n;
} span;

static bool is(span s, const char *word) {
  for (size_t i = 0; i < s.n; i++)
    if (!word[i] || tolower((unsigned char)s.at[i]) != tolower((unsigned char)word[i])) return false;
  return !word[s.n];
}

__attribute__((format(printf, 3, 4))) static bool fail(char *message, size_t size, const char *format, ...) {
  va_list list;
  va_start(list, format);
  vsnprintf(message, size, format, list);
  va_end(list);
  return false;
}

/* The part of *s before `end` (all of it when it is not there); *s goes on behind it. */
static span cut(span *s, char end) {
  const char *found = memchr(s->at, end, s->n);
  const span part = {s->at, found ? (size_t)(found - s->at) : s->n};
  const size_t used = part.n + (found != NULL);
  s->at += used;
  s->n -= used;
  return part;
}

static span trim(span s) {
  while (s.n && isspace((unsigned char)*s.at)) s.at++, s.n--;
  while (s.n && isspace((unsigned char)s.at[s.n - 1])) s.n--;
  return s;
}

/* Digits, a point, digits, an exponent; *rest: what follows */
static bool number(span s, double *out, span *rest) {
  double x = 0;
  int scale = 0, digits = 0, exponent = 0, sign = 1;
  size_t i = 0;
  for (bool point = false; i < s.n && (isdigit((unsigned char)s.at[i]) || (s.at[i] == '.' && !point)); i++) {
    if (s.at[i] == '.') {
      point = true;
      continue;
    }
    x = 10 * x + (s.at[i] - '0');
    scale -= point;
    digits++;
  }
  size_t e = i;
  if (e < s.n && (s.at[e] == 'e' || s.at[e] == 'E')) {
    e++;
    if (e < s.n && (s.at[e] == '-' || s.at[e] == '+')) sign = s.at[e++] == '-' ? -1 : 1;
    for (; e < s.n && isdigit((unsigned char)s.at[e]) && exponent < 1000; i = ++e)
      exponent = 10 * exponent + s.at[e] - '0';
  }
  for (scale += sign * exponent; scale > 0 && x < 1e18; scale--) x *= 10;
  for (; scale < 0 && x > 1e-18; scale++) x /= 10;
  *out = x;
  *rest = (span){s.at + i, s.n - i};
  return digits > 0 && digits < 40 && x < 1e18;
}

static bool scaled(span text, const char *const *suffix, const double *factor, int n, double *out) {
  span rest;
  if (!number(text, out, &rest)) return false;
  for (int i = 0; i < n; i++)
    if (is(rest, suffix[i])) {
      *out *= factor[i];
      return *out < 1e18;
    }
  return false;
}

static bool rate(span text, double *out) {
  return scaled(text, (const char *const[]){""}, (const double[]){1}, 1, out);
}

static bool duration(span text, uint64_t *out) {
  static const char *const suffix[] = {"ns", "us", "ms", "s"};
  double ns;
  if (!scaled(text, suffix, (const double[]){1, 1e3, 1e6, 1e9}, 4, &ns)) return false;
  *out = (uint64_t)ns;
  return true;
}

static bool bytes(span text, uint64_t *out) {
  static const char *const suffix[] = {"", "K", "M", "G"};
  double x;
  if (!scaled(text, suffix, (const double[]){1, 0x1p10, 0x1p20, 0x1p30}, 4, &x)) return false;
  *out = (uint64_t)x;
  return true;
}

static bool count(span text, uint32_t *out) {
  double x;
  if (!rate(text, &x) || x > 1e9) return false;
  *out = (uint32_t)x;
  return true;
}

static bool kind(span text, uint32_t *out) {
  static const char *const names[] = {"cpu", "gpu", "accelerator", "other", "fpga"};
  for (uint32_t i = 0; i < sizeof names / sizeof *names; i++)
    if (is(text, names[i])) {
      *out = TERN_KIND_CPU + i;
      return true;
    }
  return false;
}

static bool ops(span text, virtual_spec *s) {
  memset(s->ops, 0, sizeof s->ops);
  while (text.n) {
    const span one = trim(cut(&text, '|'));
    uint32_t op = 0;
    while (op < VIRTUAL_OPS && !(nest_prim_of(op) && is(one, nest_prim_of(op)->name))) op++;
    if (op == VIRTUAL_OPS) return false;
    s->ops[op / 64] |= UINT64_C(1) << op % 64;
  }
  return true;
}

static bool dtypes(span text, uint32_t *out) {
  *out = 0;
  while (text.n) {
    const span one = trim(cut(&text, '|'));
    uint32_t d = TERN_BOOL;
    while (d < TERN_DTYPE_END && !is(one, nest_dtype_name(d))) d++;
    if (d == TERN_DTYPE_END) return false;
    *out |= 1u << d;
  }
  return *out != 0;
}

static bool set(virtual_spec *s, span key, span value, char *message, size_t size) {
  bool ok;
  if (is(key, "kind"))
    ok = kind(value, &s->kind);
  else if (is(key, "flops"))
    ok = rate(value, &s->flops);
  else if (is(key, "bandwidth"))
    ok = rate(value, &s->bandwidth);
  else if (is(key, "link"))
    ok = rate(value, &s->link);
  else if (is(key, "launch"))
    ok = duration(value, &s->launch_ns);
  else if (is(key, "latency"))
    ok = duration(value, &s->latency_ns);
  else if (is(key, "memory"))
    ok = bytes(value, &s->memory);
  else if (is(key, "args"))
    ok = count(value, &s->max_args);
  else if (is(key, "nodes"))
    ok = count(value, &s->max_nodes);
  else if (is(key, "ops"))
    ok = ops(value, s);
  else if (is(key, "dtypes"))
    ok = dtypes(value, &s->dtypes);
  else
    return fail(message, size,
                "device %s: there is no key \"%.*s\"; there are kind, flops, bandwidth, launch, link, latency, memory, "
                "ops, dtypes, args, nodes",
                s->name, (int)key.n, key.at);
  return ok || fail(message, size, "device %s: %.*s=%.*s cannot be understood", s->name, (int)key.n, key.at,
                    (int)value.n, value.at);
}

static bool one_device(span text, virtual_spec *s, char *message, size_t size) {
  const span name = trim(cut(&text, ':'));
  *s = (virtual_spec){.kind = TERN_KIND_OTHER, .dtypes = TERN_D_ANY, .memory = UINT64_C(1) << 30};
  bool ok = name.n > 0 && name.n < sizeof s->name;
  for (size_t i = 0; i < name.n && ok; i++) ok = isalnum((unsigned char)name.at[i]) || strchr("_-.", name.at[i]);
  if (!ok) return fail(message, size, "\"%.*s\" is no name of a device", (int)name.n, name.at);
  memcpy(s->name, name.at, name.n);
  for (uint32_t op = 0; op < VIRTUAL_OPS; op++)
    if (nest_prim_of(op)) s->ops[op / 64] |= UINT64_C(1) << op % 64;
  while (text.n && ok) {
    span value = trim(cut(&text, ','));
    const span key = trim(cut(&value, '='));
    ok = set(s, key, trim(value), message, size);
  }
  return ok;
}

int virtual_parse(const char *text, virtual_spec *spec, char *message, size_t size) {
  if (!text || !*text || !strcmp(text, "default")) text = virtual_default;
  int n = 0;
  for (span all = {text, strlen(text)}; all.n;) {
    const span one = trim(cut(&all, ';'));
    if (!one.n) continue;
    if (n == VIRTUAL_MAX) {
      fail(message, size, "more than %d devices", VIRTUAL_MAX);
      return -1;
    }
    if (!one_device(one, &spec[n], message, size)) return -1;
    for (int i = 0; i < n; i++)
      if (!strcmp(spec[i].name, spec[n].name)) {
        fail(message, size, "two devices are named %s", spec[n].name);
        return -1;
      }
    n++;
  }
  return n;
}
