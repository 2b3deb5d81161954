/* The log: the only thing in the library that writes to stderr. Levels by part, from TERN_LOG. */
#ifndef TERN_BASE_LOG_H_
#define TERN_BASE_LOG_H_
#include <stdbool.h>

enum { TERN__LOG_ERROR, TERN__LOG_WARN, TERN__LOG_INFO, TERN__LOG_DEBUG };
/* Whether a message of that level and part ("dispatch", "device", a plugin's name) would be shown. */
bool tern__log_on(int level, const char *part);
/* One line: `tern: part: message`. */
void tern__log(int level, const char *part, const char *format, ...) __attribute__((format(printf, 3, 4)));
#endif
