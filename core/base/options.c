/* Reads the variables of options.def once, on first use, into memory that lives as long as the process. */
#include "base/options.h"
#include <ctype.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
  pthread_once_t once;
  tern__options options;
  char cache_dir[4096];
} state = {.once = PTHREAD_ONCE_INIT};

static tern__option_row rows[] = {
#define OPTION(field, variable, standard, meaning) {variable, standard, standard, meaning},
#include "base/options.def"
#undef OPTION
    {NULL, NULL, NULL, NULL}};

static const char *read_variable(const char *name, const char *otherwise) {
  const char *value = getenv(name);
  if (!value || !*value) return otherwise;
  const char *copy = strdup(value); /* the environment may change under us */
  return copy ? copy : otherwise;
}

static void find_cache_dir(void) {
  const char *base = state.options.cache_dir, *home = getenv("HOME"), *xdg = getenv("XDG_CACHE_HOME");
  const size_t size = sizeof state.cache_dir;
  int n = 0;
  if (*base)
    n = snprintf(state.cache_dir, size, "%s", base);
  else if (xdg && *xdg)
    n = snprintf(state.cache_dir, size, "%s/tern", xdg);
  else if (home && *home)
    n = snprintf(state.cache_dir, size, "%s/.cache/tern", home);
  if (n < 0 || (size_t)n >= size) state.cache_dir[0] = 0;
}

static void read_all(void) {
  int i = 0;
#define OPTION(field, variable, standard, meaning)         \
  state.options.field = read_variable(variable, standard); \
  rows[i++].value = state.options.field;
#include "base/options.def"
#undef OPTION
  find_cache_dir();
}

const tern__options *tern__opt(void) {
  pthread_once(&state.once, read_all);
  return &state.options;
}

const tern__option_row *tern__option_at(int i) {
  tern__opt();
  return i >= 0 && (size_t)i < sizeof rows / sizeof *rows - 1 ? &rows[i] : NULL;
}

void tern__plugin_variable(const char *plugin, const char *key, char *name, size_t size) {
  const char *const parts[] = {"TERN_", plugin, "_", key};
  size_t at = 0;
  for (int p = 0; p < 4; p++)
    for (const char *c = parts[p]; *c && at + 1 < size; c++)
      name[at++] = isalnum((unsigned char)*c) ? (char)toupper((unsigned char)*c) : '_';
  name[at] = 0;
}

const char *tern__plugin_option(const char *plugin, const char *key) {
  char name[160];
  tern__plugin_variable(plugin, key, name, sizeof name);
  const char *value = getenv(name);
  return value && *value ? value : NULL;
}

const char *tern__cache_dir(void) {
  tern__opt();
  return state.cache_dir[0] ? state.cache_dir : NULL;
}
