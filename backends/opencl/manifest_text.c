/* What a manifest says of a section's kernels, read off their text: names, work-group sizes, arguments, and whether a
   kernel is a task. The text is ours, so this knows the ways in which we write kernels, not all of OpenCL C. */
#include "manifest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool in_word(char c) {
  return c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static size_t word_at(const char *s) {
  size_t n = 0;
  while (in_word(s[n])) n++;
  return n;
}

static bool is_word(const char *s, size_t n, const char *word) { return n == strlen(word) && !strncmp(s, word, n); }

static const char *skip_space(const char *s) {
  while (*s == ' ' || *s == '\n' || *s == '\t' || *s == '\r') s++;
  return s;
}

/* Behind a line of the preprocessor, with its continuations. */
static const char *skip_line(const char *s) {
  while (*s && *s != '\n') s += *s == '\\' && s[1] ? 2 : 1;
  return s;
}

/* Behind the bracket that closes the one at s. */
static const char *skip_brackets(const char *s) {
  int depth = 0;
  do {
    if (*s == '(' || *s == '{') depth++;
    if (*s == ')' || *s == '}') depth--;
    if (*s) s++;
  } while (*s && depth);
  return s;
}

/* A number, or the last #define of that name before `end` that is one. */
static long number_at(const char *text, const char *end, const char *s) {
  const size_t n = word_at(s);
  if (!n) return 0;
  if (*s >= '0' && *s <= '9') return strtol(s, NULL, 10);
  long found = 0;
  for (const char *c = text; (c = strstr(c, "#define ")) && c < end; c += 8)
    if (word_at(c + 8) == n && !strncmp(c + 8, s, n) && c[8 + n] == ' ') found = strtol(c + 8 + n, NULL, 10);
  return found;
}

/* What a typedef of the text says that the word is; NULL: it is no such name. */
static const char *type_of(const char *text, const char *word, size_t n, char out[40]) {
  for (const char *c = text; (c = strstr(c, "typedef ")); c += 8) {
    const size_t from = word_at(c + 8);
    const char *name = skip_space(c + 8 + from);
    if (word_at(name) != n || strncmp(name, word, n) || name[n] != ';') continue;
    snprintf(out, 40, "%.*s", (int)from, c + 8);
    return out;
  }
  return NULL;
}

/* "GLOBAL uchar *RESTRICT A0" as {"name": "A0", "type": "__global uchar *restrict"}. */
static bool add_arg(cJSON *list, const char *text, const char *s, size_t n) {
  static const char *const words[][2] = {{"GLOBAL", "__global"},
                                         {"LOCAL", "__local"},
                                         {"RESTRICT", "restrict"},
                                         {"const", ""},
                                         {"__restrict", "restrict"}};
  while (n && (s[n - 1] == ' ' || s[n - 1] == '\n')) n--;
  size_t name = n;
  while (name && in_word(s[name - 1])) name--;
  char type[200] = "", label[100], known[40];
  size_t at = 0;
  for (size_t i = 0; i < name;) {
    const size_t w = word_at(s + i), step = w ? w : 1;
    const char *put = w ? type_of(text, s + i, w, known) : NULL;
    for (size_t k = 0; k < sizeof words / sizeof words[0]; k++)
      if (w && is_word(s + i, w, words[k][0])) put = words[k][1];
    const bool space = !w && (s[i] == ' ' || s[i] == '\n');
    if (!space && !(put && !*put))
      at += (size_t)snprintf(type + at, sizeof type - at, "%s%.*s", at && type[at - 1] != '*' ? " " : "",
                             put ? (int)strlen(put) : (int)step, put ? put : s + i);
    if (at >= sizeof type) at = sizeof type - 1;
    i += step;
  }
  snprintf(label, sizeof label, "%.*s", (int)(n - name), s + name);
  cJSON *arg = cJSON_CreateObject();
  if (!arg || !cJSON_AddStringToObject(arg, "name", label) || !cJSON_AddStringToObject(arg, "type", type) ||
      !cJSON_AddItemToArray(list, arg)) {
    cJSON_Delete(arg);
    return false;
  }
  return true;
}

/* s: behind the opening bracket; at a closing one the list ends. */
static bool add_args(cJSON *list, const char *text, const char *s) {
  const char *from = s = skip_space(s);
  for (int depth = 0; *s; s++) {
    if (*s == '(') depth++;
    if ((*s == ',' || *s == ')') && !depth) {
      if (s > from && !add_arg(list, text, from, (size_t)(s - from))) return false;
      if (*s == ')') return true;
      from = skip_space(s + 1);
    }
    if (*s == ')') depth--;
  }
  return true;
}

static bool asks_for_its_place(const char *body, const char *end) {
  static const char *const names[] = {"TID", "GRP", "LID", "get_global_id", "get_group_id", "get_local_id"};
  for (const char *s = body; s < end;) {
    const size_t n = word_at(s);
    for (size_t i = 0; n && i < sizeof names / sizeof names[0]; i++)
      if (is_word(s, n, names[i])) return true;
    s += n ? n : 1;
  }
  return false;
}

/* s: behind the word __kernel. The place behind the kernel; *done: false when memory ran out. */
static const char *add_kernel(cJSON *list, const char *text, const char *s, const char *suffix, bool *done) {
  long group[3] = {0, 0, 0};
  for (s = skip_space(s); *s && *s != ';';) {
    const size_t n = word_at(s);
    if (is_word(s, n, "reqd_work_group_size")) {
      const char *c = strchr(s, '(');
      for (int i = 0; c && i < 3; i++) {
        group[i] = number_at(text, s, skip_space(c + 1));
        c = strchr(c + 1, i < 2 ? ',' : ')');
      }
    } else if (is_word(s, n, "void"))
      break;
    s += n ? n : 1;
  }
  if (!*s || *s == ';') return s;
  s = skip_space(s + 4);
  const size_t n = word_at(s);
  char name[200], plain[160];
  snprintf(plain, sizeof plain, "%.*s", (int)n, s);
  snprintf(name, sizeof name, "%s_%s", plain, suffix);
  s = skip_space(s + n);
  if (*s != '(') return s;
  const char *args = s + 1, *body = skip_brackets(s);
  while (*body && *body != '{' && *body != ';') body++;
  const char *end = *body == '{' ? skip_brackets(body) : body;
  cJSON *k = cJSON_CreateObject(), *sizes = NULL, *layout = NULL;
  const bool task = group[0] == 1 && group[1] == 1 && group[2] == 1 && !asks_for_its_place(body, end);
  bool ok = k && cJSON_AddStringToObject(k, "name", name) && cJSON_AddStringToObject(k, "plain", plain) &&
            cJSON_AddStringToObject(k, "range", task ? "task" : "ndrange") &&
            (sizes = cJSON_AddArrayToObject(k, "work_group"));
  for (int i = 0; ok && i < 3; i++) ok = cJSON_AddItemToArray(sizes, cJSON_CreateNumber((double)group[i]));
  ok = ok && (layout = cJSON_AddArrayToObject(k, "arguments")) && add_args(layout, text, args);
  if (!ok || !cJSON_AddItemToArray(list, k)) {
    cJSON_Delete(k);
    *done = false;
  }
  return end;
}

cJSON *manifest_section(const char *text, const uint64_t key[2], const char *what, const char *signature) {
  char hex[33], suffix[17];
  manifest_key_text(key, hex);
  snprintf(suffix, sizeof suffix, "%s", hex + 16);
  cJSON *section = cJSON_CreateObject(), *kernels = NULL;
  bool ok = section && cJSON_AddStringToObject(section, "key", hex) && cJSON_AddStringToObject(section, "what", what) &&
            cJSON_AddStringToObject(section, "signature", signature) &&
            (kernels = cJSON_AddArrayToObject(section, "kernels"));
  for (const char *s = text; ok && *s;) {
    const size_t n = word_at(s);
    if (n && (is_word(s, n, "__kernel") || is_word(s, n, "KERNEL")))
      s = add_kernel(kernels, text, s + n, suffix, &ok);
    else if (*s == '#')
      s = skip_line(s);
    else if (*s == '{')
      s = skip_brackets(s);
    else
      s += n ? n : 1;
  }
  if (ok) return section;
  cJSON_Delete(section);
  return NULL;
}

/* ---- reports of vendors' compilers ---- */

static void put(char *out, size_t room, const char *format, const char *a, double x, double y) {
  const size_t n = strlen(out);
  if (n + 1 < room) snprintf(out + n, room - n, format, n ? ", " : "", a, x, y);
}

bool manifest_report_line(const cJSON *report, char *out, size_t room) {
  static const char *const figures[][2] = {{"logic", "logic"},
                                           {"aluts", "ALUTs"},
                                           {"registers", "registers"},
                                           {"dsp", "DSP blocks"},
                                           {"ram_blocks", "RAM blocks"}};
  const cJSON *of = cJSON_GetObjectItemCaseSensitive(report, "figures"), *i;
  *out = 0;
  const cJSON *fmax = cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(of, "fmax_mhz"), "used");
  if (cJSON_IsNumber(fmax)) put(out, room, "%s%s %.5g MHz", "kernel fmax", fmax->valuedouble, 0);
  for (size_t k = 0; k < sizeof figures / sizeof figures[0]; k++) {
    const cJSON *f = cJSON_GetObjectItemCaseSensitive(of, figures[k][0]),
                *total = cJSON_GetObjectItemCaseSensitive(f, "of");
    const cJSON *used = cJSON_GetObjectItemCaseSensitive(f, "used");
    if (!cJSON_IsNumber(used)) continue;
    const bool whole = cJSON_IsNumber(total) && total->valuedouble > 0;
    put(out, room, whole ? "%s%s %.0f of %.0f" : "%s%s %.0f", figures[k][1], used->valuedouble,
        whole ? total->valuedouble : 0);
  }
  cJSON_ArrayForEach(i, cJSON_GetObjectItemCaseSensitive(report, "clocks")) {
    const cJSON *mhz = cJSON_GetObjectItemCaseSensitive(i, "achieved_mhz");
    if (!cJSON_IsNumber(mhz)) mhz = cJSON_GetObjectItemCaseSensitive(i, "mhz");
    if (cJSON_IsNumber(mhz)) put(out, room, "%s%s %.5g MHz", manifest_string(i, "name"), mhz->valuedouble, 0);
  }
  const int kernels = cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(report, "kernels"));
  if (kernels) put(out, room, "%s%s%.0f kernels", "", kernels, 0);
  return *out != 0;
}
