/* Images: made by a device's own compiler (through the plugin), or by a vendor's and recorded here. */
#include "bundle.h"

#include <stdlib.h>
#include <string.h>
#include <tern/tern.h>

static int say(const bundle_request *q, const cJSON *entry) {
  if (q->json) {
    cJSON *out = cJSON_CreateObject();
    cJSON_AddNumberToObject(out, "version", 1);
    cJSON_AddItemToObject(out, "image", cJSON_Duplicate(entry, true));
    char *text = cJSON_PrintUnformatted(out);
    if (text) puts(text);
    cJSON_free(text);
    cJSON_Delete(out);
  } else
    printf("%s: image %s, %.0f bytes, for %s\n", q->manifest, manifest_string(entry, "file"),
           cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(entry, "bytes")),
           *manifest_string(entry, "device") ? manifest_string(entry, "device") : "any board without a compiler");
  return 0;
}

static cJSON *image_named(cJSON *m, const char *file) {
  cJSON *i;
  cJSON_ArrayForEach(
      i, cJSON_GetObjectItemCaseSensitive(m, "images")) if (!strcmp(manifest_string(i, "file"), file)) return i;
  return NULL;
}

int bundle_image(const bundle_request *q) {
  char file[300], why[MANIFEST_WHY];
  if (!q->device) return bundle_failed("image", "--device says which device compiles it, as --device opencl:fpga-emu");
  const char *slash = strrchr(q->manifest, '/'), *base = slash ? slash + 1 : q->manifest, *dot = strrchr(base, '.');
  const char *colon = strchr(q->device, ':');
  snprintf(file, sizeof file, "%.*s-%.60s.bin", (int)(dot ? (size_t)(dot - base) : strlen(base)), base,
           colon ? colon + 1 : q->device);
  for (char *c = file; *c; c++)
    if (*c == ':' || *c == '/') *c = '-';
  setenv("TERN_OPENCL_BUNDLE_IMAGE", q->manifest, 1);
  setenv("TERN_OPENCL_BUNDLE_IMAGE_FILE", q->file ? q->file : file, 1);
  setenv("TERN_OPENCL_BUNDLE_ONLY", q->only ? q->only : "", 1);
  unsetenv("TERN_OPENCL_BUNDLE");
  unsetenv("TERN_OPENCL_BUNDLE_OUT");
  tern_device_mark mark = tern_device_begin(q->device);
  tern_device_end(&mark);
  if (tern_error_code()) return bundle_failed("image", tern_error());
  cJSON *m = manifest_read(q->manifest, why), *entry = m ? image_named(m, q->file ? q->file : file) : NULL;
  const int status = !m       ? bundle_failed("", why)
                     : !entry ? bundle_failed(q->device, "is no OpenCL device, or it made no image")
                              : say(q, entry);
  cJSON_Delete(m);
  return status;
}

/* The keys of the sections that --only names. NULL: one names none, or no memory. */
static cJSON *chosen(const cJSON *m, const char *only) {
  cJSON *keys = cJSON_CreateArray();
  for (const char *s = only; *s && keys;) {
    const size_t n = strcspn(s, ",");
    const cJSON *i;
    bool any = false;
    cJSON_ArrayForEach(i, cJSON_GetObjectItemCaseSensitive(m, "sections")) {
      if (!manifest_section_is(i, s, n)) continue;
      any |= cJSON_AddItemToArray(keys, cJSON_CreateString(manifest_string(i, "key"))) != 0;
    }
    if (!any) {
      cJSON_Delete(keys);
      keys = NULL;
    }
    s += n + (s[n] == ',');
  }
  return keys;
}

/* The file's path as seen from the manifest's folder: files beside it go by their names, others by what was given. */
static const char *beside(const char *manifest, const char *file) {
  const char *slash = strrchr(manifest, '/');
  const size_t n = slash ? (size_t)(slash + 1 - manifest) : 0;
  return n && !strncmp(file, manifest, n) ? file + n : file;
}

int bundle_add_image(const bundle_request *q) {
  char why[MANIFEST_WHY] = "no memory for the manifest";
  if (!q->file) return bundle_failed("add-image", "which file? tern-bundle add-image NAME.json FILE");
  cJSON *m = manifest_read(q->manifest, why);
  if (!m) return bundle_failed("", why);
  const char *file = beside(q->manifest, q->file);
  char *absolute = *file != '/' && file == q->file && strchr(q->manifest, '/') ? realpath(file, NULL) : NULL;
  if (absolute) file = absolute;
  cJSON *entry = cJSON_CreateObject(), *images = cJSON_GetObjectItemCaseSensitive(m, "images");
  cJSON *keys = q->only ? chosen(m, q->only) : NULL, *old = image_named(m, file);
  bool ok = entry && images && manifest_set_file(entry, q->manifest, file, why) &&
            cJSON_AddStringToObject(entry, "device", q->board ? q->board : "") &&
            cJSON_AddStringToObject(entry, "made_by", "a vendor's compiler");
  if (ok && q->only && !keys) {
    snprintf(why, sizeof why, "--only %.200s names a section that the bundle lacks; tern-bundle check lists them",
             q->only);
    ok = false;
  }
  if (ok && keys) {
    ok = cJSON_AddItemToObject(entry, "sections", keys);
    keys = NULL;
  }
  if (ok && old) cJSON_Delete(cJSON_DetachItemViaPointer(images, old));
  ok = ok && cJSON_AddItemToArray(images, entry);
  if (!ok) cJSON_Delete(entry);
  ok = ok && manifest_write(m, q->manifest, why);
  const int status = ok ? say(q, entry) : bundle_failed("add-image", why);
  cJSON_Delete(keys);
  cJSON_Delete(m);
  free(absolute);
  return status;
}
