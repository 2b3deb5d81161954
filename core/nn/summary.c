/* A model as a table: layers, the shapes of their results, numbers of parameters. */
#include "base/string.h"
#include "base/thread.h"
#include "nn/model.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME = 34, SHAPE = 24, COUNT = 14 };

const char *tern__model_shape(tern_shape s, char *buffer) {
  int n = snprintf(buffer, 200, "(");
  for (int d = 0; d < s.rank; d++) {
    if (s.dim[d] < 0)
      n += snprintf(buffer + n, 200 - (size_t)n, "%sNone", d ? ", " : "");
    else
      n += snprintf(buffer + n, 200 - (size_t)n, "%s%" PRId64, d ? ", " : "", s.dim[d]);
  }
  snprintf(buffer + n, 200 - (size_t)n, s.rank == 1 ? ",)" : ")");
  return buffer;
}

/* "1,234,567"; buffer of 32 bytes. Returns it. */
static const char *grouped(int64_t n, char *buffer) {
  char digits[24];
  const int size = snprintf(digits, sizeof digits, "%" PRId64, n);
  int at = 0;
  for (int i = 0; i < size; i++) {
    buffer[at++] = digits[i];
    if ((size - 1 - i) % 3 == 0 && i + 1 < size) buffer[at++] = ',';
  }
  buffer[at] = 0;
  return buffer;
}

static void count(const tern_layer *l, int64_t *all, int64_t *trained) {
  for (int i = 0; i < l->n_weights; i++) {
    *all += tern_size(l->weight[i]);
    if (tern_trainable(l->weight[i])) *trained += tern_size(l->weight[i]);
  }
  for (int i = 0; i < l->n_inner; i++) count(l->inner[i], all, trained);
}

static tern_rc rule(tern__string *s, const char *c) {
  tern_rc rc = TERN_OK;
  for (int i = 0; i < NAME + SHAPE + COUNT + 4 && !rc; i++) rc = tern__string_append_text(s, c);
  return rc ? rc : tern__string_append_text(s, "\n");
}

static tern_rc row(tern__string *s, const char *name, const char *shape, const char *n) {
  return tern__string_append_format(s, "%-*.*s  %-*.*s  %*s\n", NAME, NAME, name, SHAPE, SHAPE, shape, COUNT, n);
}

char *tern_summary_text(tern_model *m) {
  if (tern__model_need(m, "tern_summary", false)) return NULL;
  tern__string s = {0};
  int64_t all = 0, trained = 0;
  char n[32], shape[200], name[160];
  tern_rc rc = row(&s, "Layer (kind)", "Output shape", "Parameters");
  if (!rc) rc = rule(&s, "=");
  for (int i = 0; i < m->root->n_inner && !rc; i++) {
    const tern_layer *l = m->root->inner[i];
    int64_t mine = 0;
    count(l, &mine, &trained);
    all += mine;
    snprintf(name, sizeof name, "%.80s (%.60s)", tern_layer_name(l), l->kind->name);
    rc = row(&s, name, m->shaped ? tern__model_shape(m->output[i], shape) : "?",
             m->shaped ? grouped(mine, n) : "not built");
  }
  if (!rc) rc = rule(&s, "=");
  if (!rc) rc = tern__string_append_format(&s, "Parameters: %s", grouped(all, n));
  if (!rc) rc = tern__string_append_format(&s, ", trained: %s", grouped(trained, n));
  if (!rc) rc = tern__string_append_format(&s, ", not trained: %s\n", grouped(all - trained, n));
  if (!rc) return s.text;
  tern__string_free(&s);
  tern__fail(TERN_E_OOM, "tern_summary: out of host memory");
  return NULL;
}

void tern_summary(tern_model *m) {
  char *text = tern_summary_text(m);
  if (text) fputs(text, stdout);
  free(text);
}
