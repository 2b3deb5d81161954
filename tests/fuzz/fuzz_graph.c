/* libFuzzer harness of the graphs' text form: any input is read or refused with a reason; what was read can be
   verified, drawn and written, and what is written reads back to the same text. Plugins are looked for beside the
   program, in ../lib/tern, since a constant needs a device. */
#include <libgen.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/ir/ir.h"
#include <tern/base.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static void check(int holds) {
  if (!holds) {
    fprintf(stderr, "%s\n", tern_error());
    abort();
  }
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc;
  char program[4096], path[4200];
  snprintf(program, sizeof program, "%s", (*argv)[0]);
  snprintf(path, sizeof path, "%s/../lib/tern", dirname(program));
  setenv("TERN_PLUGIN_PATH", path, 0);
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char *exact = malloc(size ? size : 1); /* nothing may be read behind it */
  check(exact != NULL);
  memcpy(exact, data, size);
  tern__graph *g = tern__graph_parse(exact, size);
  free(exact);
  if (!g) {
    check(tern_error_code() == TERN_E_ARG || tern_error_code() == TERN_E_OOM);
    check(tern_error()[0] != 0);
    tern_error_clear();
    return 0;
  }
  check(tern_error_code() == TERN_OK);
  check(tern__graph_verify(g, "reading") == TERN_OK || tern_error()[0]);
  tern_error_clear();
  char *text = tern__graph_text(g, 1), *dot = tern__graph_dot(g);
  check(text && dot);
  tern__graph *again = tern__graph_parse(text, strlen(text));
  check(again != NULL);
  char *second = tern__graph_text(again, 1);
  check(second && !strcmp(text, second));
  free(text);
  free(dot);
  free(second);
  tern__graph_free(g);
  tern__graph_free(again);
  return 0;
}
