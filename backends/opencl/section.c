/* The sections and units of a device. A section is pending until a unit holds it; that unit is built, loaded from disk
   or given (build.c), and may hold sections that nobody has asked for yet. */
#include "build.h"
#include "bundle.h"

#define XXH_INLINE_ALL
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

void ocl_section_key(const char *text, uint64_t key[2]) {
  const XXH128_hash_t h = XXH3_128bits(text, strlen(text));
  key[0] = h.low64;
  key[1] = h.high64;
}

static bool same_key(const uint64_t a[2], const uint64_t b[2]) { return a[0] == b[0] && a[1] == b[1]; }

static ocl_section *find(const ocl_build *b, const uint64_t key[2]) {
  ocl_section *s = b->sections[key[0] % OCL_BUCKETS];
  while (s && !same_key(s->key, key)) s = s->next;
  return s;
}

/* ---- units ---- */

bool ocl_unit_holds(const ocl_unit *u, const uint64_t key[2]) {
  for (uint32_t i = 0; i < u->n; i++)
    if (same_key(u->keys[i], key)) return true;
  return false;
}

static ocl_unit *unit_with(const ocl_build *b, const uint64_t key[2]) {
  ocl_unit *u = b->units;
  while (u && !ocl_unit_holds(u, key)) u = u->next;
  return u;
}

static void be_ready(ocl_section *s, ocl_unit *u) {
  u->refs++;
  s->unit = u;
  free(s->text); /* there is no use for it any more */
  s->text = NULL;
  atomic_store_explicit(&s->state, OCL_READY, memory_order_release);
}

static void leave_pending(ocl_build *b, ocl_section *s) {
  ocl_section **at = &b->pending;
  while (*at && *at != s) at = &(*at)->next_pending;
  if (!*at) return;
  *at = s->next_pending;
  if (b->pending_end == &s->next_pending) b->pending_end = at;
  s->next_pending = NULL;
  b->n_pending--;
}

ocl_unit *ocl_unit_add(tern_dev *dev, cl_program program, const uint64_t (*keys)[2], uint32_t n,
                       ocl_section *const *mine, uint32_t n_mine) {
  ocl_build *b = dev->build;
  ocl_unit *u = malloc(sizeof *u + n * sizeof *u->keys);
  if (!u) {
    clReleaseProgram(program);
    return NULL;
  }
  *u = (ocl_unit){.next = b->units, .program = program, .n = n};
  memcpy(u->keys, keys, n * sizeof *u->keys);
  b->units = u;
  for (uint32_t i = 0; i < n; i++) {
    ocl_section *s = find(b, keys[i]);
    const unsigned state = s ? atomic_load(&s->state) : OCL_READY;
    bool take = state == OCL_PENDING || state == OCL_FAILED;
    for (uint32_t j = 0; j < n_mine && !take; j++) take = mine[j] == s && state == OCL_BUILDING;
    if (!take) continue;
    if (state == OCL_PENDING) leave_pending(b, s);
    be_ready(s, u);
  }
  return u;
}

void ocl_unit_drop(tern_dev *dev, ocl_unit *u) {
  if (--u->refs) return;
  ocl_unit **at = &dev->build->units;
  while (*at != u) at = &(*at)->next;
  *at = u->next;
  clReleaseProgram(u->program);
  free(u);
}

tern_rc ocl_unit_give(tern_dev *dev, cl_program program, const uint64_t (*keys)[2], uint32_t n) {
  ocl_build *b = dev->build;
  pthread_mutex_lock(&b->lock);
  ocl_unit *u = ocl_unit_add(dev, program, keys, n, NULL, 0);
  if (u) u->refs++; /* the device's own */
  pthread_cond_broadcast(&b->changed);
  pthread_mutex_unlock(&b->lock);
  return u ? TERN_OK : ocl_error(dev->drv, dev->id, TERN_E_OOM, "no memory for a unit of kernels");
}

bool ocl_section_known(tern_dev *dev, const uint64_t key[2]) {
  pthread_mutex_lock(&dev->build->lock);
  const bool known = unit_with(dev->build, key) != NULL;
  pthread_mutex_unlock(&dev->build->lock);
  return known;
}

/* ---- sections ---- */

static ocl_section *make(const uint64_t key[2], const char *text, const char *what) {
  ocl_section *s = calloc(1, sizeof *s);
  if (!s) return NULL;
  *s = (ocl_section){.key = {key[0], key[1]}, .text = strdup(text)};
  snprintf(s->what, sizeof s->what, "%s", what);
  if (s->text) return s;
  free(s);
  return NULL;
}

void ocl_section_take(ocl_build *b, ocl_section *s) {
  leave_pending(b, s);
  s->refs++;
  atomic_store(&s->state, OCL_BUILDING);
}

void ocl_section_pend(ocl_build *b, ocl_section *s) {
  atomic_store(&s->state, OCL_PENDING);
  *b->pending_end = s;
  b->pending_end = &s->next_pending;
  b->n_pending++;
  b->registered = ocl_now();
  if (b->n_pending == 1) b->began = b->registered;
  b->hushed = false;
}

/* Under the lock: the section of this key, made when it is not there; *fresh: it waits to be built. */
static ocl_section *find_or_make(ocl_build *b, const uint64_t key[2], const char *text, const char *what, bool *fresh) {
  *fresh = false;
  ocl_section *s = find(b, key);
  if (s) {
    s->refs++;
    return s;
  }
  s = make(key, text, what);
  if (!s) return NULL;
  s->refs = 1;
  s->next = b->sections[key[0] % OCL_BUCKETS];
  b->sections[key[0] % OCL_BUCKETS] = s;
  ocl_unit *u = unit_with(b, key);
  *fresh = !u;
  if (u)
    be_ready(s, u);
  else
    ocl_section_pend(b, s);
  return s;
}

tern_rc ocl_section_get(tern_dev *dev, const char *text, const char *what, ocl_section **out) {
  ocl_build *b = dev->build;
  uint64_t key[2];
  bool fresh;
  ocl_section_key(text, key);
  if (dev->collect) ocl_collect_section(dev, key, text, what);
  pthread_mutex_lock(&b->lock);
  *out = find_or_make(b, key, text, what, &fresh);
  if (fresh && b->background) ocl_builder_wake(dev);
  pthread_mutex_unlock(&b->lock);
  return *out ? TERN_OK : ocl_error(dev->drv, dev->id, TERN_E_OOM, "no memory for the text of %s", what);
}

void ocl_section_drop(tern_dev *dev, ocl_section *s) {
  ocl_build *b = dev->build;
  if (--s->refs) return;
  ocl_section **at = &b->sections[s->key[0] % OCL_BUCKETS];
  while (*at != s) at = &(*at)->next;
  *at = s->next;
  leave_pending(b, s);
  if (s->unit) ocl_unit_drop(dev, s->unit);
  free(s->text);
  free(s->why);
  free(s);
}

void ocl_section_put(tern_dev *dev, ocl_section *s) {
  if (!s) return;
  pthread_mutex_lock(&dev->build->lock);
  ocl_section_drop(dev, s);
  pthread_mutex_unlock(&dev->build->lock);
}

tern_rc ocl_kernel_new(tern_dev *dev, const ocl_section *s, const char *plain, cl_kernel *out) {
  char name[OCL_NAME];
  if (*out) return TERN_OK;
  if (!ocl_section_name(s->key, plain, name))
    return ocl_error(dev->drv, dev->id, TERN_E_INTERNAL, "%s: the kernel's name %s is too long", s->what, plain);
  cl_int err;
  cl_kernel kernel = clCreateKernel(s->unit->program, name, &err);
  if (err != CL_SUCCESS) return ocl_failed(dev, name, err);
  *out = kernel;
  ocl_images_note(dev, out);
  return TERN_OK;
}
