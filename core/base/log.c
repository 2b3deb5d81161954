/* TERN_LOG is a list of LEVEL or PART:LEVEL, separated by commas; the last that matches counts. */
#include "base/log.h"
#include "base/options.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static int level_named(const char *name, size_t length) {
  static const char *const names[] = {"error", "warn", "info", "debug"};
  for (int i = 0; i < 4; i++)
    if (strlen(names[i]) == length && !strncmp(names[i], name, length)) return i;
  return -1;
}

static int level_of(const char *part) {
  int level = TERN__LOG_WARN;
  for (const char *at = tern__opt()->log; *at;) {
    const size_t item = strcspn(at, ",");
    const char *colon = memchr(at, ':', item);
    const char *name = colon ? colon + 1 : at;
    const int found = level_named(name, item - (size_t)(name - at));
    if (found >= 0 && (!colon || (strlen(part) == (size_t)(colon - at) && !strncmp(part, at, strlen(part)))))
      level = found;
    at += item + (at[item] == ',');
  }
  return level;
}

bool tern__log_on(int level, const char *part) { return level <= level_of(part); }

void tern__log(int level, const char *part, const char *format, ...) {
  if (!tern__log_on(level, part)) return;
  char line[2048];
  va_list list;
  va_start(list, format);
  vsnprintf(line, sizeof line, format, list);
  va_end(list);
  fprintf(stderr, "tern: %s: %s\n", part, line); /* one call: lines of several threads do not mix */
}
