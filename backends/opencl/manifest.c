/* See manifest.h. */
#include "manifest.h"

#define XXH_INLINE_ALL
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum { FILE_MOST = 64 << 20, IMAGE_MOST = 1 << 30 };

/* ---- traits ---- */

static const struct {
  const char *name;
  manifest_traits traits;
} targets[] = {
    {"fpga",
     {.task = true,
      .int64 = true,
      .group = 256,
      .units = 1,
      .float_width = 1,
      .max_arg_bytes = 1024,
      .local_mem = 16384}},
    {"fpga-ndrange",
     {.int64 = true, .group = 256, .units = 1, .float_width = 1, .max_arg_bytes = 1024, .local_mem = 16384}},
    {"gpu", {.int64 = true, .group = 256, .units = 16, .float_width = 1, .max_arg_bytes = 1024, .local_mem = 32768}},
    {"cpu",
     {.cpu_like = true,
      .fp64 = true,
      .int64 = true,
      .group = 256,
      .units = 4,
      .float_width = 8,
      .max_arg_bytes = 1024,
      .local_mem = 32768}}};

bool manifest_target(const char *name, manifest_traits *out) {
  for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++)
    if (!strcmp(targets[i].name, name)) {
      *out = targets[i].traits;
      return true;
    }
  return false;
}

const char *manifest_targets(void) { return "fpga, fpga-ndrange, gpu, cpu"; }

/* Every trait by its name: a number, or a truth as 0 or 1. */
typedef struct trait {
  const char *name;
  uint64_t low, high;
} trait;
static const trait traits[] = {{"task", 0, 1},
                               {"cpu_like", 0, 1},
                               {"fp64", 0, 1},
                               {"fp16", 0, 1},
                               {"int64", 0, 1},
                               {"group", 16, 4096},
                               {"units", 1, 65536},
                               {"float_width", 1, 64},
                               {"max_arg_bytes", 256, 65536},
                               {"local_mem", 4096, 1u << 30}};
enum { N_TRAITS = sizeof traits / sizeof traits[0] };

static uint64_t get_trait(const manifest_traits *t, int i) {
  const uint64_t all[N_TRAITS] = {t->task,  t->cpu_like, t->fp64,        t->fp16,          t->int64,
                                  t->group, t->units,    t->float_width, t->max_arg_bytes, t->local_mem};
  return all[i];
}

static bool set_trait(manifest_traits *t, int i, uint64_t v) {
  if (v < traits[i].low || v > traits[i].high) return false;
  switch (i) {
  case 0: t->task = v; break;
  case 1: t->cpu_like = v; break;
  case 2: t->fp64 = v; break;
  case 3: t->fp16 = v; break;
  case 4: t->int64 = v; break;
  case 5: t->group = (uint32_t)v; break;
  case 6: t->units = (uint32_t)v; break;
  case 7: t->float_width = (uint32_t)v; break;
  case 8: t->max_arg_bytes = (uint32_t)v; break;
  default: t->local_mem = v;
  }
  return i != 5 || !(v & (v - 1));
}

bool manifest_set_trait(manifest_traits *t, const char *text) {
  const char *equals = strchr(text, '=');
  char *end = NULL;
  if (!equals || equals[1] < '0' || equals[1] > '9') return false;
  const unsigned long long v = strtoull(equals + 1, &end, 10);
  for (int i = 0; i < N_TRAITS && !*end; i++)
    if (strlen(traits[i].name) == (size_t)(equals - text) && !strncmp(traits[i].name, text, (size_t)(equals - text)))
      return set_trait(t, i, v) && !(t->task && t->cpu_like);
  return false;
}

bool manifest_read_target(const char *text, char name[32], manifest_traits *t) {
  size_t n = strcspn(text, ",");
  snprintf(name, 32, "%.*s", (int)n, text);
  bool ok = manifest_target(name, t);
  for (text += n; ok && *text; text += n) {
    char one[64];
    n = strcspn(++text, ",");
    snprintf(one, sizeof one, "%.*s", (int)n, text);
    ok = manifest_set_trait(t, one);
  }
  return ok;
}

bool manifest_same_traits(const manifest_traits *a, const manifest_traits *b) {
  for (int i = 0; i < N_TRAITS; i++)
    if (get_trait(a, i) != get_trait(b, i)) return false;
  return true;
}

bool manifest_read_traits(const cJSON *m, manifest_traits *out) {
  const cJSON *from = cJSON_GetObjectItemCaseSensitive(m, "traits");
  *out = (manifest_traits){0};
  for (int i = 0; i < N_TRAITS; i++) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(from, traits[i].name);
    const bool truth = traits[i].high == 1;
    if (truth ? !cJSON_IsBool(v) : !cJSON_IsNumber(v) || v->valuedouble < 0 || v->valuedouble > 1e15) return false;
    if (!set_trait(out, i, truth ? (uint64_t)cJSON_IsTrue(v) : (uint64_t)v->valuedouble)) return false;
  }
  return !(out->task && out->cpu_like);
}

/* ---- keys and files ---- */

void manifest_key_text(const uint64_t key[2], char out[33]) {
  snprintf(out, 33, "%016llx%016llx", (unsigned long long)key[1], (unsigned long long)key[0]);
}

bool manifest_key_read(const char *text, uint64_t key[2]) {
  key[0] = key[1] = 0;
  for (int i = 0; i < 32; i++) {
    const char c = text[i];
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0) return false;
    key[i < 16] = key[i < 16] << 4 | (uint64_t)digit;
  }
  return !text[32];
}

bool manifest_section_is(const cJSON *section, const char *name, size_t n) {
  const char *what = manifest_string(section, "what");
  return n && (!strncmp(manifest_string(section, "key"), name, n) || (!strncmp(what, name, n) && !what[n]));
}

void manifest_hash(const void *data, size_t size, char out[33]) {
  const XXH128_hash_t h = XXH3_128bits(data, size);
  manifest_key_text((const uint64_t[2]){h.low64, h.high64}, out);
}

char *manifest_load(const char *path, size_t most, size_t *size, char why[MANIFEST_WHY]) {
  FILE *f = fopen(path, "rbe");
  long n = -1;
  if (f && !fseek(f, 0, SEEK_END)) n = ftell(f);
  if (n < 0 || (unsigned long)n > most || fseek(f, 0, SEEK_SET)) {
    if (f && n >= 0)
      snprintf(why, MANIFEST_WHY, "%.300s has %ld bytes; more than %zu are not read", path, n, most);
    else
      snprintf(why, MANIFEST_WHY, "%.300s cannot be read: %s", path, strerror(errno));
    if (f) fclose(f);
    return NULL;
  }
  char *data = malloc((size_t)n + 1);
  const bool ok = data && fread(data, 1, (size_t)n, f) == (size_t)n;
  fclose(f);
  if (!ok) {
    snprintf(why, MANIFEST_WHY, "%.300s cannot be read: %s", path, data ? "it became shorter" : "no memory");
    free(data);
    return NULL;
  }
  data[n] = 0;
  *size = (size_t)n;
  return data;
}

bool manifest_store(const char *path, const void *data, size_t size, char why[MANIFEST_WHY]) {
  char temp[4096];
  const int n = snprintf(temp, sizeof temp, "%s.XXXXXX", path);
  const int fd = n > 0 && (size_t)n < sizeof temp ? mkstemp(temp) : -1;
  FILE *f = fd >= 0 ? fdopen(fd, "wb") : NULL;
  bool ok = f && fwrite(data, 1, size, f) == size;
  if (f)
    ok = !fchmod(fd, 0644) && ok && !fclose(f);
  else if (fd >= 0)
    close(fd);
  ok = ok && !rename(temp, path);
  if (!ok) {
    snprintf(why, MANIFEST_WHY, "%.300s cannot be written: %s", path, strerror(errno));
    if (fd >= 0) unlink(temp);
  }
  return ok;
}

char *manifest_beside(const char *manifest, const char *file) {
  const char *slash = strrchr(manifest, '/');
  const size_t folder = slash && file[0] != '/' ? (size_t)(slash + 1 - manifest) : 0, n = strlen(file);
  char *path = malloc(folder + n + 1);
  if (!path) return NULL;
  memcpy(path, manifest, folder);
  memcpy(path + folder, file, n + 1);
  return path;
}

/* ---- the object ---- */

const char *manifest_string(const cJSON *object, const char *name) {
  const cJSON *v = cJSON_GetObjectItemCaseSensitive(object, name);
  return cJSON_IsString(v) ? v->valuestring : "";
}

cJSON *manifest_new(const char *target, const manifest_traits *t, uint32_t abi, uint32_t render_version) {
  char text[24];
  snprintf(text, sizeof text, "%u.%u", abi >> 16, abi & 0xffff);
  cJSON *m = cJSON_CreateObject(), *list = cJSON_CreateObject();
  bool ok = m && list && cJSON_AddStringToObject(m, "format", "tern-bundle") &&
            cJSON_AddNumberToObject(m, "version", MANIFEST_VERSION) && cJSON_AddStringToObject(m, "abi", text) &&
            cJSON_AddNumberToObject(m, "render_version", render_version) &&
            cJSON_AddStringToObject(m, "target", target);
  for (int i = 0; ok && i < N_TRAITS; i++) {
    const uint64_t v = get_trait(t, i);
    ok = traits[i].high == 1 ? cJSON_AddBoolToObject(list, traits[i].name, v != 0) != NULL
                             : cJSON_AddNumberToObject(list, traits[i].name, (double)v) != NULL;
  }
  ok = ok && cJSON_AddItemToObject(m, "traits", list);
  if (ok) list = NULL;
  ok = ok && cJSON_AddStringToObject(m, "hash_function", "xxh3-128") && cJSON_AddObjectToObject(m, "source") &&
       cJSON_AddArrayToObject(m, "hints") && cJSON_AddArrayToObject(m, "sections") &&
       cJSON_AddArrayToObject(m, "images");
  if (ok) return m;
  cJSON_Delete(list);
  cJSON_Delete(m);
  return NULL;
}

/* The hash of all members but `hash`, whatever the file's white space. */
static bool own_hash(const cJSON *m, char out[33]) {
  cJSON *rest = cJSON_Duplicate(m, true);
  cJSON_DeleteItemFromObjectCaseSensitive(rest, "hash");
  char *text = rest ? cJSON_PrintUnformatted(rest) : NULL;
  cJSON_Delete(rest);
  if (!text) return false;
  manifest_hash(text, strlen(text), out);
  cJSON_free(text);
  return true;
}

cJSON *manifest_read(const char *path, char why[MANIFEST_WHY]) {
  size_t size = 0;
  char *text = manifest_load(path, FILE_MOST, &size, why), hash[33];
  if (!text) return NULL;
  const char *end = NULL;
  cJSON *m = memchr(text, 0, size) ? NULL : cJSON_ParseWithOpts(text, &end, true);
  free(text);
  const cJSON *version = cJSON_GetObjectItemCaseSensitive(m, "version");
  bool ok = false;
  if (!cJSON_IsObject(m) || strcmp(manifest_string(m, "format"), "tern-bundle"))
    snprintf(why, MANIFEST_WHY,
             "%.300s is not the manifest of a bundle, or is cut short; make it again with tern-bundle", path);
  else if (!cJSON_IsNumber(version) || version->valuedouble != MANIFEST_VERSION)
    snprintf(why, MANIFEST_WHY,
             "%.300s has version %.9g of the format, this tern reads version %d; make it again with "
             "this tern's tern-bundle",
             path, cJSON_IsNumber(version) ? version->valuedouble : 0.0, MANIFEST_VERSION);
  else if (!own_hash(m, hash))
    snprintf(why, MANIFEST_WHY, "%.300s: no memory to check it", path);
  else if (strcmp(hash, manifest_string(m, "hash")))
    snprintf(
        why, MANIFEST_WHY,
        "%.300s was altered: its members hash to %s, it says %.40s; change it with tern-bundle only, or make it again",
        path, hash, manifest_string(m, "hash"));
  else
    ok = true;
  if (ok) return m;
  cJSON_Delete(m);
  return NULL;
}

bool manifest_write(cJSON *m, const char *path, char why[MANIFEST_WHY]) {
  char hash[33];
  cJSON_DeleteItemFromObjectCaseSensitive(m, "hash");
  char *text = own_hash(m, hash) && cJSON_AddStringToObject(m, "hash", hash) ? cJSON_Print(m) : NULL;
  if (!text) {
    snprintf(why, MANIFEST_WHY, "%.300s: no memory to write it", path);
    return false;
  }
  const size_t n = strlen(text);
  char *lines = malloc(n + 1);
  if (lines) memcpy(lines, text, n), lines[n] = '\n';
  if (!lines) snprintf(why, MANIFEST_WHY, "%.300s: no memory to write it", path);
  const bool ok = lines && manifest_store(path, lines, n + 1, why);
  free(lines);
  cJSON_free(text);
  return ok;
}

bool manifest_fits(const cJSON *m, const char *path, uint32_t abi, uint32_t render_version, char why[MANIFEST_WHY]) {
  char mine[24];
  snprintf(mine, sizeof mine, "%u.%u", abi >> 16, abi & 0xffff);
  const cJSON *render = cJSON_GetObjectItemCaseSensitive(m, "render_version");
  const double theirs = cJSON_IsNumber(render) ? render->valuedouble : 0;
  manifest_traits t;
  if (strcmp(manifest_string(m, "abi"), mine))
    snprintf(why, MANIFEST_WHY,
             "%.300s is for plugin ABI %.20s, this is %s; make the bundle and its images again with "
             "this tern",
             path, manifest_string(m, "abi"), mine);
  else if (theirs != render_version)
    snprintf(why, MANIFEST_WHY,
             "%.300s has kernels of renderer %.9g, this is renderer %u; make the bundle and its images "
             "again with this tern",
             path, theirs, render_version);
  else if (!manifest_read_traits(m, &t))
    snprintf(why, MANIFEST_WHY, "%.300s: its traits are not those of a device; make it again with tern-bundle", path);
  else
    return true;
  return false;
}

char *manifest_payload(const cJSON *entry, const char *path, size_t *size, char why[MANIFEST_WHY]) {
  const char *name = manifest_string(entry, "file"), *hash = manifest_string(entry, "hash");
  const cJSON *bytes = cJSON_GetObjectItemCaseSensitive(entry, "bytes");
  char *at = *name ? manifest_beside(path, name) : NULL, found[33];
  if (!at) {
    snprintf(why, MANIFEST_WHY, "%.300s names no file where one should be", path);
    return NULL;
  }
  char *data = manifest_load(at, IMAGE_MOST, size, why);
  if (data && (!cJSON_IsNumber(bytes) || bytes->valuedouble != (double)*size)) {
    snprintf(why, MANIFEST_WHY,
             "%.200s has %zu bytes, %.200s says %.0f; put the right file there, or record it anew with "
             "tern-bundle",
             at, *size, path, cJSON_IsNumber(bytes) ? bytes->valuedouble : 0.0);
    free(data);
    data = NULL;
  }
  if (data) {
    manifest_hash(data, *size, found);
    if (strcmp(found, hash)) {
      snprintf(why, MANIFEST_WHY,
               "%.200s was altered: it hashes to %s, %.200s says %.40s; put the right file there, or "
               "record it anew with tern-bundle",
               at, found, path, hash);
      free(data);
      data = NULL;
    }
  }
  free(at);
  return data;
}

bool manifest_set_file(cJSON *entry, const char *path, const char *file, char why[MANIFEST_WHY]) {
  size_t size = 0;
  char *at = manifest_beside(path, file), hash[33];
  char *data = at ? manifest_load(at, IMAGE_MOST, &size, why) : NULL;
  if (!at) snprintf(why, MANIFEST_WHY, "no memory for a path");
  free(at);
  if (!data) return false;
  manifest_hash(data, size, hash);
  free(data);
  static const char *const members[] = {"file", "bytes", "hash"};
  for (int i = 0; i < 3; i++) cJSON_DeleteItemFromObjectCaseSensitive(entry, members[i]);
  const bool ok = cJSON_AddStringToObject(entry, "file", file) &&
                  cJSON_AddNumberToObject(entry, "bytes", (double)size) && cJSON_AddStringToObject(entry, "hash", hash);
  if (!ok) snprintf(why, MANIFEST_WHY, "no memory for the manifest");
  return ok;
}

bool manifest_image_holds(const cJSON *image, const char *key) {
  const cJSON *list = cJSON_GetObjectItemCaseSensitive(image, "sections"), *k;
  if (!cJSON_IsArray(list)) return true;
  cJSON_ArrayForEach(k, list) if (cJSON_IsString(k) && !strcmp(k->valuestring, key)) return true;
  return false;
}

bool manifest_hint_valid(const char *hint) {
  const char *equals = strchr(hint, '='), *colon = strchr(hint, ':');
  const char *key = colon && equals && colon < equals ? colon + 1 : hint;
  if (!equals || equals == key || !equals[1]) return false;
  for (const char *c = hint; *c; c++)
    if ((unsigned char)*c < 32 || *c == ';' || *c == '\\' || *c == '"' || (*c == '/' && c[1] == '*') ||
        (*c == '*' && c[1] == '/'))
      return false;
  for (const char *c = key; c < equals; c++)
    if (!((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') || *c == '_' || *c == '.'))
      return false;
  return true;
}
