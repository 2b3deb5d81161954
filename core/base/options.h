/* The variables of options.def, read once. The only place that looks into the environment. */
#ifndef TERN_BASE_OPTIONS_H_
#define TERN_BASE_OPTIONS_H_
#include <stddef.h>

typedef struct tern__options {
#define OPTION(field, variable, standard, meaning) const char *field;
#include "base/options.def"
#undef OPTION
} tern__options;

typedef struct tern__option_row {
  const char *variable, *value, *fallback, *meaning;
} tern__option_row;

/* The process's options; the first call reads the environment. Never NULL. */
const tern__options *tern__opt(void);
/* Row i of the list with its current value; NULL past the last. */
const tern__option_row *tern__option_at(int i);
/* The variable TERN_<PLUGIN>_<KEY>, cut to size. */
void tern__plugin_variable(const char *plugin, const char *key, char *name, size_t size);
/* TERN_<PLUGIN>_<KEY> from the environment, in memory that lives as long as the process; NULL when unset. */
const char *tern__plugin_option(const char *plugin, const char *key);
/* The folder for compiled kernels: option, else XDG, else home; NULL when none can be told. Lives as long as the
   process. */
const char *tern__cache_dir(void);
#endif
