/* Which bundle is for which device. See bundle.h. */
#include "bundle.h"

#include <common/render.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- reading ---- */

static void read_bundle(tern_drv *drv, ocl_bundle *b) {
  b->m = manifest_read(b->path, b->why);
  if (b->m &&
      (!manifest_fits(b->m, b->path, TERN_ABI, RENDER_VERSION, b->why) || !manifest_read_traits(b->m, &b->traits))) {
    cJSON_Delete(b->m);
    b->m = NULL;
  }
  if (!b->m) ocl_log(drv, 0, "opencl: the bundle is not used: %s", b->why);
}

tern_rc ocl_bundles_open(tern_drv *drv) {
  const char *list = ocl_option(drv, "bundle", "");
  drv->bundles = calloc(1, sizeof *drv->bundles);
  if (!drv->bundles) return ocl_error(drv, NULL, TERN_E_OOM, "no memory for the driver");
  for (const char *s = list; *s;) {
    const size_t n = strcspn(s, ":");
    ocl_bundle *grown = n ? realloc(drv->bundles->at, (drv->bundles->n + 1u) * sizeof *grown) : NULL;
    if (grown) {
      drv->bundles->at = grown;
      ocl_bundle *b = &grown[drv->bundles->n];
      *b = (ocl_bundle){.path = strndup(s, n)};
      if (!b->path) return ocl_error(drv, NULL, TERN_E_OOM, "no memory for the driver");
      drv->bundles->n++;
      read_bundle(drv, b);
    } else if (n)
      return ocl_error(drv, NULL, TERN_E_OOM, "no memory for the driver");
    s += n + (s[n] == ':');
  }
  return TERN_OK;
}

void ocl_bundles_close(tern_drv *drv) {
  for (uint32_t i = 0; drv->bundles && i < drv->bundles->n; i++) {
    cJSON_Delete(drv->bundles->at[i].m);
    free(drv->bundles->at[i].path);
  }
  if (drv->bundles) free(drv->bundles->at);
  free(drv->bundles);
  drv->bundles = NULL;
}

/* ---- for whom ---- */

bool ocl_image_matches(const cJSON *image, const ocl_id *id, char why[MANIFEST_WHY]) {
  const char *name = manifest_string(image, "device"), *versions = manifest_string(image, "versions");
  if (!*name) return id->fpga && !id->compiler; /* made by a vendor's compiler, for whatever board there is */
  if (strcmp(name, id->name)) return false;
  if (!*versions || !strcmp(versions, id->versions)) return true;
  snprintf(why, MANIFEST_WHY, "the image %.100s was made by %.160s, this is %.160s; make it again here",
           manifest_string(image, "file"), versions, id->versions);
  return false;
}

static const cJSON *images_of(const ocl_bundle *b) { return cJSON_GetObjectItemCaseSensitive(b->m, "images"); }

/* NULL, or what of the traits the device lacks. */
static const char *lacks(const manifest_traits *t, const ocl_id *id) {
  return t->fp64 && !id->fp64                                  ? "float64"
         : t->int64 && !id->int64                              ? "64-bit integers"
         : t->group > id->max_group                            ? "work-groups that large"
         : t->local_mem > id->local_mem                        ? "that much local memory"
         : id->param_size && t->max_arg_bytes > id->param_size ? "that many bytes of kernel arguments"
                                                               : NULL;
}

/* The bundle's traits in place of the device's: from here on all text is rendered for them. */
static void take_traits(ocl_id *id, const manifest_traits *t) {
  id->bundled = true;
  id->task = t->task;
  id->fp64 = t->fp64;
  id->fp16 = t->fp16;
  id->int64 = t->int64;
  id->max_group = t->group;
  id->units = t->units;
  id->float_width = t->float_width;
  id->param_size = t->max_arg_bytes;
  id->local_mem = t->local_mem;
  if (t->cpu_like)
    id->type = CL_DEVICE_TYPE_CPU;
  else if (ocl_is_cpu(id))
    id->type = CL_DEVICE_TYPE_ACCELERATOR;
}

static void keep_reason(ocl_id *id, const char *path, const char *why) {
  snprintf(id->refusal, sizeof id->refusal, "%.150s is not for this device: %.400s", path, why);
}

/* One manifest and one device; `first` is the bundle whose traits the device has already, or NULL. */
static void match(ocl_bundle *b, ocl_id *id, const ocl_bundle **first) {
  char why[MANIFEST_WHY] = "", others[200] = "";
  const cJSON *image;
  bool any = false;
  cJSON_ArrayForEach(image, images_of(b)) {
    const size_t n = strlen(others);
    any |= ocl_image_matches(image, id, why);
    snprintf(others + n, sizeof others - n, "%s\"%.60s\"", n ? ", " : "", manifest_string(image, "device"));
  }
  if (!any) {
    if (!*why) {
      const int n =
          snprintf(why, sizeof why, *others ? "its images are for %s, the device is \"%s\"" : "it has no image%s%s",
                   others, *others ? id->name : "");
      snprintf(why + n, sizeof why - (size_t)n, "; make one with tern-bundle image or add-image");
    }
    keep_reason(id, b->path, why);
    return;
  }
  if (*first ? !manifest_same_traits(&(*first)->traits, &b->traits) : lacks(&b->traits, id) != NULL) {
    snprintf(why, sizeof why,
             *first ? "its kernels are rendered for other traits than those of %.300s; make both "
                      "bundles for one target"
                    : "its kernels want %s, which the device lacks; make it for these traits",
             *first ? (*first)->path : lacks(&b->traits, id));
    keep_reason(id, b->path, why);
    id->refused = true;
    return;
  }
  if (!*first) *first = b;
}

static void match_all(tern_drv *drv, ocl_id *id) {
  const ocl_bundle *first = NULL;
  for (uint32_t i = 0; i < drv->bundles->n; i++) {
    ocl_bundle *b = &drv->bundles->at[i];
    if (b->m)
      match(b, id, &first);
    else if (id->fpga || !id->compiler) {
      snprintf(id->refusal, sizeof id->refusal, "%.700s", b->why);
      id->refused = true;
    }
  }
  if (first) {
    take_traits(id, &first->traits);
    id->compiler = false; /* what the images hold, and no more */
  } else if (drv->bundles->n && (id->fpga || !id->compiler) && *id->refusal)
    id->refused = true;
}

tern_rc ocl_bundles_apply(tern_drv *drv) {
  const bool no_compile = !strcmp(ocl_option(drv, "no_compile", "0"), "1");
  const char *target = ocl_option(drv, "target", "");
  manifest_traits traits;
  char name[32];
  if (*target && !manifest_read_target(target, name, &traits))
    return ocl_error(drv, NULL, TERN_E_ARG, "target \"%s\" is none (%s), perhaps with traits behind it as ,group=64",
                     target, manifest_targets());
  for (uint32_t i = 0; i < drv->n_ids; i++) {
    match_all(drv, &drv->ids[i]);
    if (*target && !drv->ids[i].bundled && !lacks(&traits, &drv->ids[i])) take_traits(&drv->ids[i], &traits);
    if (no_compile) drv->ids[i].compiler = false;
  }
  if (!ocl_collect_wanted(drv)) return TERN_OK;
  ocl_id *grown = realloc(drv->ids, (drv->n_ids + 1u) * sizeof *grown);
  if (!grown) return ocl_error(drv, NULL, TERN_E_OOM, "no memory for the device list");
  drv->ids = grown;
  const tern_rc rc = ocl_collect_describe(drv, &grown[drv->n_ids]);
  if (!rc) drv->n_ids++;
  return rc;
}

void ocl_bundle_features(const tern_drv *drv, const ocl_id *id, char *out, size_t room) {
  char why[MANIFEST_WHY], line[200], rest[256];
  snprintf(rest, sizeof rest, "%s", out);
  *out = 0;
  for (uint32_t i = 0; i < drv->bundles->n; i++) {
    const cJSON *image;
    if (!drv->bundles->at[i].m) continue;
    cJSON_ArrayForEach(image, images_of(&drv->bundles->at[i])) {
      const size_t n = strlen(out);
      if (!ocl_image_matches(image, id, why)) continue;
      const bool told = manifest_report_line(cJSON_GetObjectItemCaseSensitive(image, "report"), line, sizeof line);
      snprintf(out + n, room - n, "image:%.40s%s%s%s ", manifest_string(image, "file"), told ? " (" : "",
               told ? line : "", told ? ")" : "");
    }
  }
  const size_t n = strlen(out);
  snprintf(out + n, room - n, "%.*s", (int)(room - n - 1), rest);
}
