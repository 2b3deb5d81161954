/* The collecting device: a device on which everything compiles and nothing runs. There is no OpenCL behind it. Each
   section that a compilation registers goes into one .cl and one manifest, which are written anew each time, so that
   they are whole whenever the program ends. Memory is the host's, for the constants that a graph brings along. */
#include "bundle.h"

#include <common/render.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct collected {
  uint64_t key[2];
  char *text; /* as it stands in the .cl */
} collected;

struct ocl_collector {
  pthread_mutex_t lock; /* from begin to end of a compilation */
  char *path, *source;  /* of the manifest; the .cl's name beside it */
  cJSON *m;
  collected *at;
  uint32_t n;
  const tern_region *region;
  bool grown;
  tern_rc rc; /* of the sections of this compilation */
};

typedef struct collect_mem {
  tern_mem head;
  char *bytes;
} collect_mem;

bool ocl_collect_wanted(const tern_drv *drv) { return *ocl_option(drv, "bundle_out", "") != 0; }

static bool target_of(const tern_drv *drv, char name[32], manifest_traits *t) {
  return manifest_read_target(ocl_option(drv, "bundle_target", "fpga"), name, t);
}

tern_rc ocl_collect_describe(tern_drv *drv, ocl_id *id) {
  manifest_traits t;
  char name[32];
  if (!target_of(drv, name, &t))
    return ocl_error(drv, NULL, TERN_E_ARG,
                     "bundle_target \"%s\" is not a target (%s), perhaps with traits behind it as ,group=64",
                     ocl_option(drv, "bundle_target", "fpga"), manifest_targets());
  *id = (ocl_id){.type = t.cpu_like ? CL_DEVICE_TYPE_CPU : CL_DEVICE_TYPE_ACCELERATOR,
                 .order = 100,
                 .hidden = true,
                 .fpga = t.task || !strncmp(name, "fpga", 4),
                 .collects = true,
                 .task = t.task,
                 .bundled = true,
                 .fp64 = t.fp64,
                 .int64 = t.int64,
                 .fp16 = t.fp16,
                 .local_mem = t.local_mem,
                 .max_group = t.group,
                 .param_size = t.max_arg_bytes,
                 .align = 128,
                 .units = t.units,
                 .float_width = t.float_width};
  snprintf(id->alias, sizeof id->alias, "bundle");
  snprintf(id->platform_name, sizeof id->platform_name, "nothing runs on it");
  snprintf(id->name, sizeof id->name, "kernels for a bundle, target %s", name);
  return TERN_OK;
}

/* ---- opening ---- */

static tern_rc no_memory(tern_dev *dev) { return ocl_error(dev->drv, dev->id, TERN_E_OOM, "no memory for the bundle"); }

/* Every hint of the option, one string an element. */
static bool add_hints(cJSON *m, const char *hints) {
  cJSON *list = cJSON_GetObjectItemCaseSensitive(m, "hints");
  for (const char *s = hints; *s;) {
    const size_t n = strcspn(s, ";");
    char one[300];
    snprintf(one, sizeof one, "%.*s", (int)n, s);
    if (n && (!manifest_hint_valid(one) || !cJSON_AddItemToArray(list, cJSON_CreateString(one)))) return false;
    s += n + (s[n] == ';');
  }
  return true;
}

tern_rc ocl_collect_open(tern_dev *dev) {
  ocl_collector *c = dev->collect = calloc(1, sizeof *c);
  const char *out = ocl_option(dev->drv, "bundle_out", "");
  manifest_traits t;
  char name[32];
  if (!c) return no_memory(dev);
  pthread_mutex_init(&c->lock, NULL);
  const size_t n = strlen(out);
  if (n < 6 || strcmp(out + n - 5, ".json"))
    return ocl_error(dev->drv, dev->id, TERN_E_ARG, "bundle_out \"%s\" is not the name of a manifest, NAME.json", out);
  if (!target_of(dev->drv, name, &t)) return ocl_error(dev->drv, dev->id, TERN_E_ARG, "bundle_target is not a target");
  c->path = strdup(out);
  const char *slash = strrchr(out, '/');
  const char *base = slash ? slash + 1 : out;
  ocl_text file = {0};
  ocl_add(&file, "%.*s.cl", (int)(strlen(base) - 5), base);
  c->source = file.s;
  c->m = manifest_new(name, &t, TERN_ABI, RENDER_VERSION);
  if (!c->path || file.failed || !c->m || !cJSON_AddStringToObject(c->m, "options", "-cl-std=CL1.2"))
    return no_memory(dev);
  if (!add_hints(c->m, ocl_option(dev->drv, "bundle_hints", "")))
    return ocl_error(dev->drv, dev->id, TERN_E_ARG,
                     "bundle_hints \"%s\": hints are KEY=VALUE or WHAT:KEY=VALUE, with ; between them",
                     ocl_option(dev->drv, "bundle_hints", ""));
  return TERN_OK;
}

void ocl_collect_close(tern_dev *dev) {
  ocl_collector *c = dev->collect;
  if (!c) return;
  for (uint32_t i = 0; i < c->n; i++) free(c->at[i].text);
  free(c->at);
  free(c->path);
  free(c->source);
  cJSON_Delete(c->m);
  pthread_mutex_destroy(&c->lock);
  free(c);
  dev->collect = NULL;
}

/* ---- what a region is, for people ---- */

static const char *prim_name(uint32_t op) {
  switch (op) {
#define TERN_X(name, num, n, kind, dtypes) \
  case num: return #name;
    TERN_PRIMS(TERN_X)
#undef TERN_X
  default: return "?";
  }
}

/* "softmax: AMAX float32 -> float32; SUB float32, float32 -> float32; .." */
static void add_signature(ocl_text *t, const tern_region *r) {
  if (!r) return;
  if (r->hint) ocl_add(t, "%s: ", r->hint);
  for (uint32_t i = 0; i < r->n_nodes && t->n < 600; i++) {
    const tern_node *n = &r->nodes[i];
    ocl_add(t, "%s%s", i ? "; " : "", prim_name(n->op));
    for (uint32_t k = 0; k < n->n_in; k++) {
      const tern_value *v = &r->values[r->edges[n->in + k]];
      ocl_add(t, "%s%s", k ? ", " : " ", ocl_dtype_name(v->dtype));
      if (v->rank) ocl_add(t, "/%u", v->rank);
    }
    const tern_value *out = n->n_out ? &r->values[r->edges[n->out]] : NULL;
    if (out) ocl_add(t, " -> %s", ocl_dtype_name(out->dtype));
    if (out && out->rank) ocl_add(t, "/%u", out->rank);
  }
  if (t->n >= 600) ocl_add(t, "; and more");
}

/* ---- sections ---- */

void ocl_collect_begin(tern_dev *dev, const tern_region *r) {
  pthread_mutex_lock(&dev->collect->lock);
  dev->collect->region = r;
  dev->collect->rc = TERN_OK;
}

/* A hint for this section? *pair: KEY=VALUE. */
static bool hint_for(const char *hint, const char *key, const char *what, const char **pair) {
  const char *equals = strchr(hint, '='), *colon = strchr(hint, ':');
  *pair = hint;
  if (!colon || colon > equals) return true;
  *pair = colon + 1;
  const size_t n = (size_t)(colon - hint);
  return n && (!strncmp(key, hint, n) || (!strncmp(what, hint, n) && !what[n]));
}

/* Hints as comments, those that Intel's compiler has attributes for as attributes of every kernel: then *redefined. */
static bool add_section_hints(ocl_collector *c, ocl_text *t, cJSON *section, const char *key, const char *what,
                              bool *redefined) {
  cJSON *mine = cJSON_AddObjectToObject(section, "hints");
  const cJSON *h;
  ocl_text attributes = {0};
  cJSON_ArrayForEach(h, cJSON_GetObjectItemCaseSensitive(c->m, "hints")) {
    const char *pair;
    char name[100];
    if (!mine || !hint_for(h->valuestring, key, what, &pair)) continue;
    const size_t n = strcspn(pair, "=");
    snprintf(name, sizeof name, "%.*s", (int)n, pair);
    cJSON_DeleteItemFromObjectCaseSensitive(mine, name);
    if (!cJSON_AddStringToObject(mine, name, pair + n + 1)) return false;
  }
  cJSON_ArrayForEach(h, mine) {
    ocl_add(t, "/* hint %s = %s */\n", h->string, h->valuestring);
    if (!strcmp(h->string, "num_compute_units") || !strcmp(h->string, "num_simd_work_items"))
      ocl_add(&attributes, " __attribute__((%s(%.40s)))", h->string, h->valuestring);
  }
  if (attributes.n) ocl_add(t, "#ifdef INTELFPGA_CL\n#define __kernel __kernel%s\n#endif\n", attributes.s);
  *redefined = attributes.n != 0;
  const bool ok = mine && !attributes.failed;
  free(attributes.s);
  return ok;
}

/* The section as it stands in the .cl; an entry in the manifest. */
static bool add_collected(ocl_collector *c, const uint64_t key[2], const char *text, const char *what) {
  collected *grown = realloc(c->at, (c->n + 1u) * sizeof *grown);
  if (!grown) return false;
  c->at = grown;
  ocl_text signature = {0}, t = {0};
  ocl_add(&signature, "%s", "");
  add_signature(&signature, c->region);
  cJSON *section = signature.failed ? NULL : manifest_section(text, key, what, signature.s);
  char hex[33];
  manifest_key_text(key, hex);
  ocl_add(&t, "\n#if !defined(TERN_ONLY) || defined(TERN_SECTION_%s)\n/* %s, section %s\n   %s */\n", hex + 16, what,
          hex, signature.s ? signature.s : "");
  bool redefined = false, ok = section && add_section_hints(c, &t, section, hex, what, &redefined);
  const uint64_t one[1][2] = {{key[0], key[1]}};
  ocl_unit_text(&t, one, &text, 1);
  ocl_add(&t, "%s#endif\n", redefined ? "#ifdef INTELFPGA_CL\n#undef __kernel\n#endif\n" : "");
  free(signature.s);
  ok = ok && !t.failed && cJSON_AddItemToArray(cJSON_GetObjectItemCaseSensitive(c->m, "sections"), section);
  if (!ok) {
    cJSON_Delete(section);
    free(t.s);
    return false;
  }
  c->at[c->n++] = (collected){.key = {key[0], key[1]}, .text = t.s};
  return true;
}

void ocl_collect_section(tern_dev *dev, const uint64_t key[2], const char *text, const char *what) {
  ocl_collector *c = dev->collect;
  for (uint32_t i = 0; i < c->n; i++)
    if (c->at[i].key[0] == key[0] && c->at[i].key[1] == key[1]) return;
  if (add_collected(c, key, text, what))
    c->grown = true;
  else
    c->rc = no_memory(dev);
}

/* The .cl, then the manifest that has its hash. */
static tern_rc write_bundle(tern_dev *dev) {
  ocl_collector *c = dev->collect;
  ocl_text t = {0};
  char why[MANIFEST_WHY] = "no memory for the bundle";
  ocl_add(
      &t,
      "/* Kernels of tern for target %s, made by tern-bundle: OpenCL C 1.2, options %s.\n   %s has its hash, so that a "
      "change is noticed.\n   Every section stands for itself; -DTERN_ONLY -DTERN_SECTION_... picks those that an "
      "image "
      "shall hold. */\n",
      manifest_string(c->m, "target"), manifest_string(c->m, "options"),
      strrchr(c->path, '/') ? strrchr(c->path, '/') + 1 : c->path);
  for (uint32_t i = 0; i < c->n; i++) ocl_add_bytes(&t, c->at[i].text, strlen(c->at[i].text));
  char *at = manifest_beside(c->path, c->source);
  const bool ok = at && !t.failed && manifest_store(at, t.s, t.n, why) &&
                  manifest_set_file(cJSON_GetObjectItemCaseSensitive(c->m, "source"), c->path, c->source, why) &&
                  manifest_write(c->m, c->path, why);
  free(at);
  free(t.s);
  return ok ? TERN_OK : ocl_error(dev->drv, dev->id, TERN_E_IO, "%s", why);
}

tern_rc ocl_collect_end(tern_dev *dev, tern_rc rc) {
  ocl_collector *c = dev->collect;
  if (!rc) rc = c->rc;
  if (!rc && c->grown) rc = write_bundle(dev);
  if (!rc) c->grown = false;
  c->region = NULL;
  pthread_mutex_unlock(&c->lock);
  return rc;
}

/* ---- memory ---- */

tern_rc ocl_collect_alloc(tern_dev *dev, const tern_mem_desc *want, tern_mem **out) {
  if (want->flags || want->handle || want->host_ptr)
    return ocl_error(dev->drv, dev->id, TERN_E_UNSUPPORTED, "this device imports no memory");
  collect_mem *m = calloc(1, sizeof *m);
  if (m) m->bytes = calloc(1, want->size ? (size_t)want->size : 1);
  if (!m || !m->bytes) {
    free(m);
    return ocl_error(dev->drv, dev->id, TERN_E_OOM, "no host memory for %llu bytes", (unsigned long long)want->size);
  }
  m->head.size = want->size;
  *out = &m->head;
  return TERN_OK;
}

void ocl_collect_free(tern_mem *mem) {
  if (mem) free(((collect_mem *)mem)->bytes);
  free(mem);
}

static char *bytes_of(tern_mem *mem) { return ((collect_mem *)mem)->bytes; }

tern_rc ocl_collect_copy(tern_dev *dev, const tern_copy *c) {
  if ((c->src && (c->src_off > c->src->size || c->size > c->src->size - c->src_off)) ||
      (c->dst && (c->dst_off > c->dst->size || c->size > c->dst->size - c->dst_off)))
    return ocl_error(dev->drv, dev->id, TERN_E_ARG, "a copy past the end of a buffer");
  if (c->src && c->src_dev && c->src_dev != dev) return TERN_E_UNSUPPORTED;
  const void *from = c->src ? bytes_of(c->src) + c->src_off : c->host_src;
  memmove(c->dst ? bytes_of(c->dst) + c->dst_off : c->host_dst, from, (size_t)c->size);
  return TERN_OK;
}

tern_rc ocl_collect_fill(tern_mem *mem, uint64_t off, uint64_t size, const void *pattern, uint32_t pattern_size) {
  if (!pattern_size || off > mem->size || size > mem->size - off) return TERN_E_ARG;
  for (uint64_t i = 0; i < size; i += pattern_size)
    memcpy(bytes_of(mem) + off + i, pattern, (size_t)(size - i < pattern_size ? size - i : pattern_size));
  return TERN_OK;
}
