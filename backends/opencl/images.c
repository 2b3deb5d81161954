/* The images of an open device's bundles. An image is checked (size, hash) before the runtime sees it, because runtimes
   abort on a damaged one. One is on the device at a time: a kernel of another one makes the queue finish, what lies in
   device memory go to the host, the kernels of the old image go away, and all come back behind the new one. */
#include "bundle.h"
#include "build.h"

#include <common/render.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WINDOW = 64, THRASH = 8 }; /* more than 8 changes in 64 launches are worth a warning */

typedef struct image {
  const ocl_bundle *from;
  const cJSON *json;
  uint64_t (*keys)[2];
  uint32_t n;
} image;
typedef struct slot { /* a cl_kernel that a kernel holds */
  tern_kernel *owner;
  cl_kernel *at;
} slot;

struct ocl_images {
  pthread_mutex_t lock; /* held through a launch where there are several images */
  image *at;
  uint32_t n;
  int current; /* -1: none */
  tern_kernel *readying;
  slot *slots;
  uint32_t n_slots, slots_cap;
  pthread_mutex_t mem_lock;
  tern_mem **mems;
  uint32_t n_mems, mems_cap;
  bool mems_lost; /* one could not be noted: no change is possible */
  bool scrub;     /* forget device memory at a change, as a board does (tests) */
  uint64_t launches, switches, window_switches;
  int64_t spent; /* ns */
  bool warned;
};

static bool holds(const image *im, const uint64_t key[2]) {
  for (uint32_t i = 0; i < im->n; i++)
    if (im->keys[i][0] == key[0] && im->keys[i][1] == key[1]) return true;
  return false;
}

bool ocl_images_hold(const tern_dev *dev, const uint64_t key[2]) {
  for (uint32_t i = 0; i < dev->images->n; i++)
    if (holds(&dev->images->at[i], key)) return true;
  return false;
}

bool ocl_images_change(const tern_dev *dev) { return dev->images && dev->images->n > 1; }

/* ---- opening ---- */

static tern_rc add_image(tern_dev *dev, const ocl_bundle *b, const cJSON *json) {
  ocl_images *m = dev->images;
  const cJSON *sections = cJSON_GetObjectItemCaseSensitive(b->m, "sections"), *s;
  image *grown = realloc(m->at, (m->n + 1u) * sizeof *grown);
  if (grown) m->at = grown;
  image *im = grown ? &grown[m->n] : NULL;
  if (im) *im = (image){b, json, calloc((size_t)cJSON_GetArraySize(sections) + 1u, sizeof *im->keys), 0};
  if (!im || !im->keys) return ocl_error(dev->drv, dev->id, TERN_E_OOM, "no memory for a bundle");
  m->n++;
  cJSON_ArrayForEach(s, sections) {
    const char *key = manifest_string(s, "key");
    if (manifest_image_holds(json, key) && manifest_key_read(key, im->keys[im->n])) im->n++;
  }
  size_t size = 0;
  char why[MANIFEST_WHY];
  char *data = manifest_payload(json, b->path, &size, why);
  free(data);
  return data ? TERN_OK : ocl_error(dev->drv, dev->id, TERN_E_IO, "%s", why);
}

static tern_rc load(tern_dev *dev, uint32_t i) {
  ocl_images *m = dev->images;
  image *im = &m->at[i];
  char why[MANIFEST_WHY];
  size_t size = 0;
  const int64_t began = ocl_now();
  char *data = manifest_payload(im->json, im->from->path, &size, why);
  if (!data) return ocl_error(dev->drv, dev->id, TERN_E_IO, "%s", why);
  cl_program program = NULL;
  const cl_int err = ocl_program_of_binary(dev, (const unsigned char *)data, size, &program);
  free(data);
  if (err != CL_SUCCESS)
    return ocl_error(dev->drv, dev->id, TERN_E_IO,
                     "the runtime does not take the image %s of %s: %s; make it again for this device",
                     manifest_string(im->json, "file"), im->from->path, ocl_cl_name(err));
  const tern_rc rc = ocl_unit_give(dev, program, (const uint64_t(*)[2])im->keys, im->n);
  if (rc) return rc;
  m->current = (int)i;
  ocl_log(dev->drv, 2, "opencl:%s: image %s with %u sections is on the device, after %.3g ms", dev->id->alias,
          manifest_string(im->json, "file"), im->n, (double)(ocl_now() - began) * 1e-6);
  return TERN_OK;
}

tern_rc ocl_images_open(tern_dev *dev) {
  const tern_drv *drv = dev->drv;
  if (dev->id->refused) return ocl_error(drv, dev->id, TERN_E_IO, "%s", dev->id->refusal);
  if (!dev->id->bundled || dev->id->compiler) return TERN_OK; /* no bundle, or a target for text that it compiles */
  ocl_images *m = dev->images = calloc(1, sizeof *m);
  if (!m) return ocl_error(drv, dev->id, TERN_E_OOM, "no memory for a bundle");
  m->current = -1;
  m->scrub = !strcmp(ocl_option(drv, "bundle_scrub", "0"), "1");
  pthread_mutex_init(&m->lock, NULL);
  pthread_mutex_init(&m->mem_lock, NULL);
  tern_rc rc = TERN_OK;
  char why[MANIFEST_WHY];
  for (uint32_t i = 0; i < drv->bundles->n && !rc; i++) {
    const ocl_bundle *b = &drv->bundles->at[i];
    const cJSON *json;
    if (!b->m) continue;
    cJSON_ArrayForEach(json, cJSON_GetObjectItemCaseSensitive(b->m, "images")) {
      if (!rc && ocl_image_matches(json, dev->id, why)) rc = add_image(dev, b, json);
    }
  }
  if (m->n > 1) dev->replays.list = false; /* a kernel may go away */
  if (!rc && m->n) rc = load(dev, 0);
  return rc;
}

/* The sections of the unit that holds the current image wait again, for another one; its program goes. */
static void unload(tern_dev *dev) {
  ocl_images *m = dev->images;
  for (uint32_t i = 0; i < m->n_slots; i++) {
    if (*m->slots[i].at) clReleaseKernel(*m->slots[i].at);
    *m->slots[i].at = NULL;
    m->slots[i].owner->is_ready = false;
  }
  m->n_slots = 0;
  ocl_build *b = dev->build;
  pthread_mutex_lock(&b->lock);
  for (uint32_t h = 0; h < OCL_BUCKETS; h++)
    for (ocl_section *s = b->sections[h]; s; s = s->next) {
      if (!s->unit) continue;
      ocl_unit *u = s->unit;
      s->unit = NULL;
      atomic_store(&s->state, OCL_PENDING);
      ocl_unit_drop(dev, u);
    }
  while (b->units) ocl_unit_drop(dev, b->units); /* the device's own reference */
  pthread_mutex_unlock(&b->lock);
  m->current = -1;
}

void ocl_images_close(tern_dev *dev) {
  ocl_images *m = dev->images;
  if (!m) return;
  if (m->switches)
    ocl_log(dev->drv, 2, "opencl:%s: the image was changed %llu times in %llu launches, which took %.3g s",
            dev->id->alias, (unsigned long long)m->switches, (unsigned long long)m->launches, (double)m->spent * 1e-9);
  for (uint32_t i = 0; i < m->n; i++) free(m->at[i].keys);
  pthread_mutex_destroy(&m->lock);
  pthread_mutex_destroy(&m->mem_lock);
  free(m->at);
  free(m->slots);
  free(m->mems);
  free(m);
  dev->images = NULL;
}

/* ---- what is to be saved, and taken away ---- */

void ocl_images_add_mem(tern_dev *dev, tern_mem *mem) {
  ocl_images *m = dev->images;
  if (!m || mem->imported) return;
  pthread_mutex_lock(&m->mem_lock);
  if (m->n_mems == m->mems_cap) {
    tern_mem **grown = realloc(m->mems, (m->mems_cap * 2u + 64) * sizeof(tern_mem *));
    if (grown) {
      m->mems = grown;
      m->mems_cap = m->mems_cap * 2 + 64;
    }
  }
  if (m->n_mems < m->mems_cap)
    m->mems[m->n_mems++] = mem;
  else
    m->mems_lost = true;
  pthread_mutex_unlock(&m->mem_lock);
}

void ocl_images_drop_mem(tern_dev *dev, tern_mem *mem) {
  ocl_images *m = dev->images;
  if (!m) return;
  pthread_mutex_lock(&m->mem_lock);
  for (uint32_t i = 0; i < m->n_mems; i++)
    if (m->mems[i] == mem) {
      m->mems[i] = m->mems[--m->n_mems];
      break;
    }
  pthread_mutex_unlock(&m->mem_lock);
}

void ocl_images_note(tern_dev *dev, cl_kernel *at) {
  ocl_images *m = dev->images;
  if (!ocl_images_change(dev) || !m->readying) return;
  if (m->n_slots == m->slots_cap) {
    slot *grown = realloc(m->slots, (m->slots_cap * 2u + 64) * sizeof *grown);
    if (!grown) {
      m->mems_lost = true;
      return;
    }
    m->slots = grown;
    m->slots_cap = m->slots_cap * 2 + 64;
  }
  m->slots[m->n_slots++] = (slot){m->readying, at};
}

void ocl_images_forget(tern_dev *dev, const tern_kernel *k) {
  ocl_images *m = dev->images;
  if (!ocl_images_change(dev)) return;
  pthread_mutex_lock(&m->lock);
  for (uint32_t i = 0; i < m->n_slots;)
    if (m->slots[i].owner == k)
      m->slots[i] = m->slots[--m->n_slots];
    else
      i++;
  pthread_mutex_unlock(&m->lock);
}

/* ---- changing ---- */

/* Every block of the device (queues' flags are among them) in one host block, in the order of the list; or back. */
static cl_int carry(tern_dev *dev, char *host, bool save) {
  ocl_images *m = dev->images;
  cl_int err = CL_SUCCESS;
  for (uint32_t i = 0; i < m->n_mems && err == CL_SUCCESS; i++) {
    tern_mem *mem = m->mems[i];
    err = save ? clEnqueueReadBuffer(dev->aux, mem->buffer, CL_TRUE, 0, (size_t)mem->size, host, 0, NULL, NULL)
               : clEnqueueWriteBuffer(dev->aux, mem->buffer, CL_TRUE, 0, (size_t)mem->size, host, 0, NULL, NULL);
    const cl_uint gone = 0xA5A5A5A5u; /* as if the board had lost it */
    if (err == CL_SUCCESS && save && m->scrub && mem->size >= 4)
      err = clEnqueueFillBuffer(dev->aux, mem->buffer, &gone, sizeof gone, 0, (size_t)mem->size & ~(size_t)3, 0, NULL,
                                NULL);
    host += mem->size;
  }
  return err == CL_SUCCESS ? ocl_finish(dev, dev->aux) : err;
}

static tern_rc change_held(tern_dev *dev, tern_queue *q, uint32_t to) {
  ocl_images *m = dev->images;
  uint64_t bytes = 1;
  for (uint32_t i = 0; i < m->n_mems; i++) bytes += m->mems[i]->size;
  char *host = m->mems_lost ? NULL : malloc((size_t)bytes);
  if (!host)
    return ocl_error(dev->drv, dev->id, TERN_E_OOM,
                     "no host memory for the %.3g MiB on the device while its image changes",
                     (double)bytes / (1 << 20));
  cl_int err = ocl_finish(dev, q->q);
  if (err == CL_SUCCESS) err = ocl_finish(dev, dev->aux);
  if (err == CL_SUCCESS) err = carry(dev, host, true);
  tern_rc rc = err == CL_SUCCESS ? TERN_OK : ocl_failed(dev, "saving device memory before another image", err);
  if (!rc) {
    unload(dev);
    rc = load(dev, to);
    err = carry(dev, host, false); /* also when the new image is refused: the program may go on elsewhere */
    if (!rc && err != CL_SUCCESS) rc = ocl_failed(dev, "restoring device memory behind another image", err);
  }
  free(host);
  return rc;
}

static tern_rc change(tern_dev *dev, tern_queue *q, uint32_t to, const char *what) {
  ocl_images *m = dev->images;
  const int64_t began = ocl_now();
  pthread_mutex_lock(&m->mem_lock);
  const tern_rc rc = change_held(dev, q, to);
  pthread_mutex_unlock(&m->mem_lock);
  m->spent += ocl_now() - began;
  m->switches++;
  m->window_switches++;
  ocl_log(dev->drv, 2, "opencl:%s: change of image number %llu, for %s, took %.3g ms", dev->id->alias,
          (unsigned long long)m->switches, what, (double)(ocl_now() - began) * 1e-6);
  return rc;
}

tern_rc ocl_images_enter(tern_dev *dev, tern_queue *q, tern_kernel *k) {
  ocl_images *m = dev->images;
  if (m->n < 2) return TERN_OK;
  pthread_mutex_lock(&m->lock);
  m->readying = k;
  if (m->launches++ % WINDOW == 0) m->window_switches = 0;
  if (m->current >= 0 && holds(&m->at[m->current], k->section->key)) return TERN_OK;
  uint32_t to = 0;
  while (to < m->n && !holds(&m->at[to], k->section->key)) to++;
  tern_rc rc = to < m->n ? change(dev, q, to, k->section->what)
                         : ocl_error(dev->drv, dev->id, TERN_E_UNSUPPORTED, "no image holds %s", k->section->what);
  if (!rc && m->window_switches > THRASH && !m->warned) {
    m->warned = true;
    ocl_log(dev->drv, 1,
            "opencl:%s: the image changed %llu times within %d launches, each of which stops the device and copies its "
            "memory twice: put the kernels that run in turn into one image",
            dev->id->alias, (unsigned long long)m->window_switches, WINDOW);
  }
  if (rc) pthread_mutex_unlock(&m->lock);
  return rc;
}

void ocl_images_leave(tern_dev *dev) {
  if (dev->images->n < 2) return;
  dev->images->readying = NULL;
  pthread_mutex_unlock(&dev->images->lock);
}

/* ---- making one ---- */

/* -D for those of the manifest's sections that the option names; all: "". keys: their array for the manifest. */
static char *chosen(tern_dev *dev, const cJSON *m, const char *only, cJSON **keys, tern_rc *rc) {
  ocl_text t = {0};
  ocl_add(&t, "%s", manifest_string(m, "options"));
  if (*only) ocl_add(&t, " -DTERN_ONLY");
  *keys = *only ? cJSON_CreateArray() : NULL;
  for (const char *s = only; *s && !*rc;) {
    const size_t n = strcspn(s, ",");
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(m, "sections"), *i;
    uint32_t found = 0;
    cJSON_ArrayForEach(i, list) {
      const char *key = manifest_string(i, "key");
      uint64_t words[2];
      if (!manifest_key_read(key, words) || !manifest_section_is(i, s, n)) continue;
      ocl_add(&t, " -DTERN_SECTION_%s", key + 16);
      cJSON_AddItemToArray(*keys, cJSON_CreateString(key));
      found++;
    }
    if (!found)
      *rc = ocl_error(dev->drv, dev->id, TERN_E_ARG,
                      "no section is %.*s, by its key or what it is; tern-bundle check lists them", (int)n, s);
    s += n + (s[n] == ',');
  }
  if (!*rc && t.failed) *rc = ocl_error(dev->drv, dev->id, TERN_E_OOM, "no memory for an image");
  return t.s;
}

static tern_rc compile_image(tern_dev *dev, const char *text, const char *options, unsigned char **data, size_t *size) {
  cl_int err;
  cl_program p = clCreateProgramWithSource(dev->context, 1, &text, NULL, &err);
  if (err != CL_SUCCESS) return ocl_failed(dev, "making an image", err);
  err = clBuildProgram(p, 1, &dev->id->device, options, NULL, NULL);
  tern_rc rc = TERN_OK;
  if (err != CL_SUCCESS) {
    char log[701] = "";
    clGetProgramBuildInfo(p, dev->id->device, CL_PROGRAM_BUILD_LOG, sizeof log - 1, log, NULL);
    rc = ocl_error(dev->drv, dev->id, TERN_E_UNSUPPORTED, "the device's compiler refuses the bundle: %s: %s",
                   ocl_cl_name(err), log);
  } else if (!ocl_program_binary(p, data, size))
    rc = ocl_error(dev->drv, dev->id, TERN_E_UNSUPPORTED, "the runtime gives no binary of the program");
  clReleaseProgram(p);
  return rc;
}

/* In place of an image of the same file, or as one more. */
static tern_rc record_image(tern_dev *dev, cJSON *m, const char *path, const char *file, cJSON *keys) {
  char why[MANIFEST_WHY] = "no memory for the manifest";
  cJSON *images = cJSON_GetObjectItemCaseSensitive(m, "images"), *entry = cJSON_CreateObject();
  for (int i = cJSON_GetArraySize(images); i-- > 0;)
    if (!strcmp(manifest_string(cJSON_GetArrayItem(images, i), "file"), file)) cJSON_DeleteItemFromArray(images, i);
  bool ok = entry && manifest_set_file(entry, path, file, why) &&
            cJSON_AddStringToObject(entry, "device", dev->id->name) &&
            cJSON_AddStringToObject(entry, "platform", dev->id->platform_name) &&
            cJSON_AddStringToObject(entry, "versions", dev->id->versions) &&
            cJSON_AddStringToObject(entry, "made_by", "tern-bundle image");
  if (ok && keys) ok = cJSON_AddItemToObject(entry, "sections", keys);
  if (!ok || !cJSON_AddItemToArray(images, entry)) {
    cJSON_Delete(entry);
    ok = false;
  }
  ok = ok && manifest_write(m, path, why);
  return ok ? TERN_OK : ocl_error(dev->drv, dev->id, TERN_E_IO, "%s", why);
}

tern_rc ocl_image_make(tern_dev *dev, const char *path) {
  char why[MANIFEST_WHY];
  if (!dev->id->compiler || dev->collect)
    return ocl_error(dev->drv, dev->id, TERN_E_UNSUPPORTED,
                     "this device has no compiler: make the image with its vendor's, and "
                     "record it with tern-bundle add-image");
  cJSON *m = manifest_read(path, why);
  if (!m || !manifest_fits(m, path, TERN_ABI, RENDER_VERSION, why)) {
    cJSON_Delete(m);
    return ocl_error(dev->drv, dev->id, TERN_E_IO, "%s", why);
  }
  const char *file = ocl_option(dev->drv, "bundle_image_file", "image.bin");
  size_t n = 0, size = 0;
  unsigned char *data = NULL;
  cJSON *keys = NULL;
  tern_rc rc = TERN_OK;
  char *text = manifest_payload(cJSON_GetObjectItemCaseSensitive(m, "source"), path, &n, why);
  if (!text) rc = ocl_error(dev->drv, dev->id, TERN_E_IO, "%s", why);
  char *options = rc ? NULL : chosen(dev, m, ocl_option(dev->drv, "bundle_only", ""), &keys, &rc);
  if (!rc) rc = compile_image(dev, text, options, &data, &size);
  char *at = rc ? NULL : manifest_beside(path, file);
  if (!rc && !at) rc = ocl_error(dev->drv, dev->id, TERN_E_OOM, "no memory for an image");
  if (!rc && !manifest_store(at, data, size, why)) rc = ocl_error(dev->drv, dev->id, TERN_E_IO, "%s", why);
  if (!rc) {
    rc = record_image(dev, m, path, file, keys);
    keys = NULL;
  }
  cJSON_Delete(keys);
  cJSON_Delete(m);
  free(at);
  free(data);
  free(options);
  free(text);
  return rc;
}
