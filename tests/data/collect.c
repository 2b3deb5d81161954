/* See collect.h. */
#include "data/collect.h"
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

static void *grown(void *old, size_t count, size_t item) {
  void *p = realloc(old, (count ? count : 1) * item);
  if (!p) exit(99);
  return p;
}

collected collect_from(tern_iterator *it, const char *device) {
  collected c = {0};
  int n = 0;
  tern_tensor *out[TERN_MAX_COMPONENTS];
  for (;;) {
    TERN_SCOPE;
    n = tern_iterator_next(it, out);
    if (n == 0) break;
    if (n < 0) {
      const int at = c.errors++;
      if (at < 16) {
        c.error_at[at] = c.elements;
        snprintf(c.error[at], sizeof c.error[at], "%s", tern_error());
      }
      CHECK((int)tern_error_code() == n, "next gave %d, the error is %d: %s", n, (int)tern_error_code(), tern_error());
      tern_error_clear();
      if (at > 100000) break;
      continue;
    }
    if (c.elements++ == 0) c.components = n;
    for (int i = 0; i < n; i++) {
      CHECK(!strncmp(tern_device_get(out[i]), device, strlen(device)), "an element on %s", tern_device_get(out[i]));
      const tern_shape s = tern_shape_get(out[i]);
      const size_t size = (size_t)tern_size(out[i]);
      c.shapes = grown(c.shapes, c.n_shapes + 1 + (size_t)s.rank, sizeof *c.shapes);
      c.shapes[c.n_shapes++] = s.rank;
      for (int d = 0; d < s.rank; d++) c.shapes[c.n_shapes++] = s.dim[d];
      double *values = test_values(out[i]);
      c.values = grown(c.values, c.n_values + size, sizeof *c.values);
      if (values) memcpy(c.values + c.n_values, values, size * sizeof *values);
      c.n_values += size;
      free(values);
    }
  }
  TERN_SCOPE;
  CHECK(tern_iterator_next(it, out) == 0, "an element behind the end");
  return c;
}

collected collect(tern_dataset *d) {
  tern_iterator *it = tern_dataset_begin(d);
  if (!CHECK(it != NULL, "no iterator: %s", tern_error())) {
    tern_error_clear();
    return (collected){0};
  }
  collected c = collect_from(it, "cpu");
  tern_iterator_end(it);
  return c;
}

collected collect_all(tern_dataset *d) {
  collected c = collect(d);
  tern_dataset_release(d);
  return c;
}

void collected_free(collected *c) {
  free(c->shapes);
  free(c->values);
  *c = (collected){0};
}

bool collected_equal(const collected *a, const collected *b) {
  return a->n_shapes == b->n_shapes && a->n_values == b->n_values && a->errors == b->errors &&
         (!a->n_shapes || !memcmp(a->shapes, b->shapes, a->n_shapes * sizeof *a->shapes)) &&
         (!a->n_values || !memcmp(a->values, b->values, a->n_values * sizeof *a->values));
}

void check_sequence(collected got, const double *expected, size_t n, const char *file, int line) {
  bool same = got.errors == 0 && got.n_values == n;
  for (size_t i = 0; same && i < n; i++) same = got.values[i] == expected[i];
  if (!same) {
    char text[400] = "";
    size_t at = 0;
    for (size_t i = 0; i < got.n_values && at < 350; i++)
      at += (size_t)snprintf(text + at, sizeof text - at, " %g", got.values[i]);
    test_check(0, file, line, "%d errors (%s); %zu values:%s", got.errors, got.error[0], got.n_values, text);
  }
  collected_free(&got);
}

/* ---- files ---- */

static char folder[] = "/tmp/tern-data-XXXXXX";
static bool made;

static void remove_folder(void) {
  DIR *d = opendir(folder);
  for (const struct dirent *e; d && (e = readdir(d));) {
    char path[400];
    snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
    unlink(path);
  }
  if (d) closedir(d);
  rmdir(folder);
}

const char *test_file(const char *name, const void *bytes, size_t size) {
  static char path[8][128];
  static int turn;
  if (!made) {
    made = mkdtemp(folder) != NULL;
    CHECK(made, "no temporary folder");
    atexit(remove_folder);
  }
  char *p = path[turn++ % 8];
  snprintf(p, sizeof *path, "%s/%s", folder, name);
  if (!bytes) return p;
  FILE *f = fopen(p, "wb");
  CHECK(f && fwrite(bytes, 1, size, f) == size, "cannot write %s", p);
  if (f) fclose(f);
  return p;
}

const char *test_text_file(const char *name, const char *text, bool packed) {
  if (!packed) return test_file(name, text, strlen(text));
  const char *path = test_file(name, NULL, 0);
  gzFile f = gzopen(path, "wb");
  CHECK(f && gzputs(f, text) >= 0, "cannot write %s", path);
  if (f) gzclose(f);
  return path;
}
