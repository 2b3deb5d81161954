/* Whether a bundle is whole: the manifest, the .cl, every image; and what it holds. */
#include "bundle.h"

#include <common/render.h>
#include <stdlib.h>
#include <string.h>

typedef struct finding {
  cJSON *list;
  int n;
} finding;

static void find(finding *f, const char *why) {
  f->n++;
  cJSON_AddItemToArray(f->list, cJSON_CreateString(why));
}

/* Every section is in the text under the names that the manifest gives its kernels. */
static void check_sections(const cJSON *m, const char *text, finding *f) {
  const cJSON *s, *k;
  char why[MANIFEST_WHY];
  cJSON_ArrayForEach(s, cJSON_GetObjectItemCaseSensitive(m, "sections")) {
    const char *key = manifest_string(s, "key");
    uint64_t words[2];
    char guard[64];
    if (!manifest_key_read(key, words)) {
      snprintf(why, sizeof why, "section \"%.60s\" has no key of 32 digits", key);
      find(f, why);
      continue;
    }
    snprintf(guard, sizeof guard, "TERN_SECTION_%s", key + 16);
    if (text && !strstr(text, guard)) {
      snprintf(why, sizeof why, "section %s (%.60s) is not in the .cl", key, manifest_string(s, "what"));
      find(f, why);
    }
    if (!cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(s, "kernels"))) {
      snprintf(why, sizeof why, "section %s (%.60s) has no kernels", key, manifest_string(s, "what"));
      find(f, why);
    }
    cJSON_ArrayForEach(k, cJSON_GetObjectItemCaseSensitive(s, "kernels")) {
      const cJSON *group = cJSON_GetObjectItemCaseSensitive(k, "work_group");
      if (cJSON_GetArraySize(group) == 3 && cJSON_GetArrayItem(group, 0)->valuedouble >= 1) continue;
      snprintf(why, sizeof why, "kernel %.100s has no work-group size", manifest_string(k, "name"));
      find(f, why);
    }
  }
}

static void check_images(const cJSON *m, const char *path, finding *f) {
  const cJSON *i, *s, *k;
  char why[MANIFEST_WHY];
  cJSON_ArrayForEach(i, cJSON_GetObjectItemCaseSensitive(m, "images")) {
    size_t size;
    char *data = manifest_payload(i, path, &size, why);
    if (!data) find(f, why);
    free(data);
    cJSON_ArrayForEach(k, cJSON_GetObjectItemCaseSensitive(i, "sections")) {
      bool any = false;
      cJSON_ArrayForEach(s, cJSON_GetObjectItemCaseSensitive(m, "sections")) any |=
          cJSON_IsString(k) && !strcmp(manifest_string(s, "key"), k->valuestring);
      if (any) continue;
      snprintf(why, sizeof why, "image %.100s lists a section that the bundle lacks", manifest_string(i, "file"));
      find(f, why);
    }
  }
  cJSON_ArrayForEach(s, cJSON_GetObjectItemCaseSensitive(m, "sections")) {
    bool any = !cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(m, "images"));
    cJSON_ArrayForEach(i, cJSON_GetObjectItemCaseSensitive(m, "images")) any |=
        manifest_image_holds(i, manifest_string(s, "key"));
    if (any) continue;
    snprintf(why, sizeof why, "section %s (%.60s) is in no image", manifest_string(s, "key"),
             manifest_string(s, "what"));
    find(f, why);
  }
}

static void print(const cJSON *m) {
  const cJSON *s, *k, *i;
  printf("target %s, plugin ABI %s\n%-10s %-28s %-34s %-8s %-12s %s\n", manifest_string(m, "target"),
         manifest_string(m, "abi"), "section", "what", "kernel", "range", "work-group", "arguments");
  cJSON_ArrayForEach(s, cJSON_GetObjectItemCaseSensitive(m, "sections")) {
    bool first = true;
    cJSON_ArrayForEach(k, cJSON_GetObjectItemCaseSensitive(s, "kernels")) {
      const cJSON *group = cJSON_GetObjectItemCaseSensitive(k, "work_group");
      char size[40];
      snprintf(size, sizeof size, "%.0fx%.0fx%.0f", cJSON_GetNumberValue(cJSON_GetArrayItem(group, 0)),
               cJSON_GetNumberValue(cJSON_GetArrayItem(group, 1)), cJSON_GetNumberValue(cJSON_GetArrayItem(group, 2)));
      printf("%-10.8s %-28.28s %-34s %-8s %-12s %d\n", first ? manifest_string(s, "key") : "",
             first ? manifest_string(s, "what") : "", manifest_string(k, "plain"), manifest_string(k, "range"), size,
             cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(k, "arguments")));
      first = false;
    }
  }
  cJSON_ArrayForEach(i, cJSON_GetObjectItemCaseSensitive(m, "images")) {
    const cJSON *only = cJSON_GetObjectItemCaseSensitive(i, "sections");
    printf("image %s: %.0f bytes, %s%d sections, for %s\n", manifest_string(i, "file"),
           cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(i, "bytes")), only ? "" : "all ",
           cJSON_GetArraySize(only ? only : cJSON_GetObjectItemCaseSensitive(m, "sections")),
           *manifest_string(i, "device") ? manifest_string(i, "device") : "any board without a compiler");
    bundle_print_report(i, "  ");
  }
}

int bundle_check(const bundle_request *q) {
  char why[MANIFEST_WHY];
  size_t size;
  cJSON *m = manifest_read(q->manifest, why), *out = cJSON_CreateObject();
  finding f = {.list = cJSON_CreateArray()};
  if (!m) find(&f, why);
  char *text = m ? manifest_payload(cJSON_GetObjectItemCaseSensitive(m, "source"), q->manifest, &size, why) : NULL;
  if (m && !text) find(&f, why);
  if (m && !manifest_fits(m, q->manifest, TERN_ABI, RENDER_VERSION, why)) find(&f, why);
  if (m) {
    check_sections(m, text, &f);
    check_images(m, q->manifest, &f);
  }
  free(text);
  if (q->json) {
    cJSON_AddNumberToObject(out, "version", 1);
    cJSON_AddBoolToObject(out, "ok", !f.n);
    cJSON_AddNumberToObject(out, "sections", cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(m, "sections")));
    cJSON_AddNumberToObject(out, "images", cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(m, "images")));
    cJSON_AddItemToObject(out, "findings", f.list);
    char *line = cJSON_PrintUnformatted(out);
    if (line) puts(line);
    cJSON_free(line);
  } else {
    const cJSON *i;
    if (m) print(m);
    cJSON_ArrayForEach(i, f.list) fprintf(stderr, "tern-bundle: %s\n", i->valuestring);
    if (!f.n) puts("the bundle is whole");
    cJSON_Delete(f.list);
  }
  cJSON_Delete(out);
  cJSON_Delete(m);
  return f.n ? 1 : 0;
}
