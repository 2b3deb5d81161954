/* Checkpoints: variables in a safetensors file under their names. Restoring reads everything into fresh memory first;
   then the variables take that over, which cannot fail. */
#include "base/alloc.h"
#include "device/device.h"
#include "io/safetensors.h"
#include "ops/variable.h"
#include <stdlib.h>

#define VERSION_KEY "tern_checkpoint" /* metadata; a file without it comes from elsewhere and is read all the same */
#define VERSION "1"

static int compare_names(const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Every one is a variable with a name, and no two have the same. names: room for n. */
static tern_rc check_variables(const char *op, const char *path, tern_tensor *const *variables, int n,
                               const char **names) {
  if (!path) return tern__fail(TERN_E_ARG, "%s: the path is NULL", op);
  for (int i = 0; i < n; i++) {
    if (!tern__usable(variables[i], op, i + 1)) return TERN_E_ARG;
    if (!tern_is_variable(variables[i]))
      return tern__fail(TERN_E_ARG, "%s: number %d is not a variable; make one with tern_variable", op, i);
    names[i] = tern_variable_name(variables[i]);
    if (!*names[i])
      return tern__fail(TERN_E_ARG, "%s: variable %d has no name; give it one in tern_variable_opts", op, i);
  }
  qsort(names, (size_t)n, sizeof *names, compare_names);
  for (int i = 1; i < n; i++)
    if (!strcmp(names[i - 1], names[i]))
      return tern__fail(TERN_E_ARG, "%s: two variables are called \"%.200s\"; names must differ", op, names[i]);
  for (int i = 0; i < n; i++) names[i] = tern_variable_name(variables[i]);
  return TERN_OK;
}

/* An array of n pointers, checked to be wanted. NULL with the error set. */
static void *array_of(const char *op, tern_tensor *const *variables, int n) {
  if (n < 0 || (n > 0 && !variables)) {
    tern__fail(TERN_E_ARG, "%s: %d variables were promised, the array is NULL", op, n);
    return NULL;
  }
  void *array = tern__calloc((size_t)n + 1, sizeof(void *));
  if (!array) tern__fail(TERN_E_OOM, "%s: out of host memory", op);
  return array;
}

tern_rc tern_checkpoint_save(const char *path, tern_tensor *const *variables, int n) {
  static const char *const metadata[][2] = {{VERSION_KEY, VERSION}};
  const char **names = array_of("checkpoint_save", variables, n);
  if (!names) return tern__recorded();
  tern_rc rc = check_variables("checkpoint_save", path, variables, n, names);
  if (!rc) rc = tern_safetensors_write(path, names, variables, n, metadata, 1);
  free(names);
  return rc;
}

static tern_rc check_fit(const tern_safetensors *file, const char *path, const tern_tensor *v) {
  char names[400], a[200], b[200];
  const char *name = tern_variable_name(v);
  const tern__safetensors_entry *e = tern__safetensors_find(file, name);
  if (!e)
    return tern__fail(TERN_E_ARG, "checkpoint_restore: %.200s has no tensor for variable \"%.100s\"; it has %s", path,
                      name, tern__safetensors_names(file, names, sizeof names));
  if (e->rank != v->rank || memcmp(e->shape, v->shape, v->rank * sizeof *v->shape))
    return tern__fail(TERN_E_ARG, "checkpoint_restore: variable \"%.100s\" has shape %s, in %.200s it has %s", name,
                      tern__shape_text(a, v->rank, v->shape), path, tern__shape_text(b, e->rank, e->shape));
  if (e->dtype != (tern_dtype)v->dtype)
    return tern__fail(TERN_E_ARG, "checkpoint_restore: variable \"%.100s\" is of dtype %s, in %.200s of %s", name,
                      tern_dtype_name((tern_dtype)v->dtype), path, tern_dtype_name(e->dtype));
  return TERN_OK;
}

static tern_rc restore(const tern_safetensors *file, const char *path, tern_tensor *const *variables, int n,
                       tern_tensor **values) {
  const char *version = tern_safetensors_metadata(file, VERSION_KEY);
  if (version && strcmp(version, VERSION))
    return tern__fail(TERN_E_IO, "checkpoint_restore: %.200s is a checkpoint of version %.20s, known is %s", path,
                      version, VERSION);
  for (int i = 0; i < n; i++) {
    const tern_rc rc = check_fit(file, path, variables[i]);
    if (rc) return rc;
  }
  for (int i = 0; i < n; i++) {
    values[i] = tern__safetensors_load(file, tern__safetensors_find(file, tern_variable_name(variables[i])),
                                       variables[i]->device);
    if (!values[i]) return tern__recorded();
  }
  for (int i = 0; i < n; i++) { /* a device that failed on the way is found before anything changes */
    const tern_rc rc = variables[i]->device->queue ? tern__device_sync(variables[i]->device) : TERN_OK;
    if (rc) return rc;
  }
  for (int i = 0; i < n; i++) tern__variable_take(variables[i], values[i]);
  return TERN_OK;
}

tern_rc tern_checkpoint_restore(const char *path, tern_tensor *const *variables, int n) {
  void *array = array_of("checkpoint_restore", variables, n);
  if (!array) return tern__recorded();
  tern_rc rc = check_variables("checkpoint_restore", path, variables, n, array);
  tern_safetensors *file = rc ? NULL : tern_safetensors_open(path);
  if (!rc && !file) rc = tern__recorded();
  if (!rc) {
    tern_scope_mark mark = tern_scope_begin();
    rc = restore(file, path, variables, n, array);
    tern_scope_end(&mark);
  }
  tern_safetensors_close(file);
  free(array);
  return rc;
}
