/* Who builds pending sections, and when: the first launch that needs one takes all of them, and a thread of the device
   does when nothing was registered for a while, so that kernels are built while the program does other things. One unit
   is made at a time; nothing here holds up launches of kernels that are ready. */
#include "build.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { QUIET_NS = 10000000, REASON = 1000 };

typedef struct batch {
  ocl_section *s[OCL_UNIT_SECTIONS];
  uint32_t n;
} batch;

/* ---- making units: without the lock, `busy` is set for us ---- */

static bool is_ours(const ocl_section *s) { return atomic_load(&s->state) == OCL_BUILDING; }

/* Hands a program over to its sections. */
static bool publish(tern_dev *dev, cl_program program, const uint64_t (*keys)[2], uint32_t n, const batch *mine) {
  ocl_build *b = dev->build;
  pthread_mutex_lock(&b->lock);
  ocl_unit *u = ocl_unit_add(dev, program, keys, n, mine->s, mine->n);
  if (u) {
    u->refs++;
    ocl_unit_drop(dev, u); /* nobody may want it */
  }
  pthread_cond_broadcast(&b->changed);
  pthread_mutex_unlock(&b->lock);
  return u != NULL;
}

static void fail(tern_dev *dev, ocl_section *s, tern_rc rc, const char *why) {
  ocl_build *b = dev->build;
  char *text = strdup(why);
  pthread_mutex_lock(&b->lock);
  free(s->why);
  s->why = text;
  s->rc = rc;
  atomic_store(&s->state, OCL_FAILED);
  pthread_cond_broadcast(&b->changed);
  pthread_mutex_unlock(&b->lock);
}

static void fail_build(tern_dev *dev, ocl_section *s, cl_int err, const char *log) {
  char why[REASON];
  const bool memory = err == CL_OUT_OF_HOST_MEMORY || err == CL_OUT_OF_RESOURCES;
  const tern_rc rc = memory                             ? TERN_E_OOM
                     : err == CL_DEVICE_NOT_AVAILABLE   ? TERN_E_LOST
                     : err == CL_COMPILER_NOT_AVAILABLE ? TERN_E_UNSUPPORTED
                                                        : TERN_E_INTERNAL;
  if (memory || err == CL_DEVICE_NOT_AVAILABLE)
    snprintf(why, sizeof why, "building %s failed: %s (%d)", s->what, ocl_cl_name(err), err);
  else
    snprintf(why, sizeof why, "the device's compiler refuses %s: %s: %.700s", s->what, ocl_cl_name(err),
             log ? log : "no log");
  fail(dev, s, rc, why);
}

static void keep(tern_dev *dev, cl_program program, const char *text, uint64_t (*keys)[2], uint32_t n) {
  if (!dev->build->cache) return;
  ocl_stored st = {.kind = dev->keep_text ? OCL_SOURCE : OCL_BINARY, .n = n, .keys = keys};
  if (dev->keep_text) {
    st.data = (unsigned char *)(uintptr_t)text;
    st.size = strlen(text);
    ocl_cache_store(dev->build->cache, &st);
  } else if (ocl_program_binary(program, &st.data, &st.size)) {
    ocl_cache_store(dev->build->cache, &st);
    free(st.data);
  }
}

/* One unit of these. If they do not build together, each half is tried by itself, down to the one that fails alone. */
static void compile(tern_dev *dev, ocl_section *const *s, uint32_t n, const batch *mine) {
  uint64_t keys[OCL_UNIT_SECTIONS][2];
  const char *texts[OCL_UNIT_SECTIONS] = {NULL};
  for (uint32_t i = 0; i < n; i++) {
    memcpy(keys[i], s[i]->key, sizeof keys[i]);
    texts[i] = s[i]->text;
  }
  ocl_text text = {0};
  ocl_unit_text(&text, (const uint64_t(*)[2])keys, texts, n);
  const int64_t start = ocl_now();
  cl_program program = NULL;
  char *log = NULL;
  atomic_fetch_add(&dev->build->built, 1);
  cl_int err = text.failed ? CL_OUT_OF_HOST_MEMORY : ocl_program_of_text(dev, text.s, &program, n == 1 ? &log : NULL);
  ocl_log(dev->drv, 3, "opencl:%s: %u kernels' text built as one in %.1f ms: %s", dev->id->alias, n,
          (double)(ocl_now() - start) * 1e-6, ocl_cl_name(err));
  if (err == CL_SUCCESS) {
    clRetainProgram(program);
    if (!publish(dev, program, (const uint64_t(*)[2])keys, n, mine))
      for (uint32_t i = 0; i < n; i++) fail_build(dev, s[i], CL_OUT_OF_HOST_MEMORY, NULL);
    keep(dev, program, text.s, keys, n);
    clReleaseProgram(program);
  }
  free(text.s);
  if (err != CL_SUCCESS && n > 1 && err != CL_DEVICE_NOT_AVAILABLE && err != CL_COMPILER_NOT_AVAILABLE) {
    compile(dev, s, n / 2, mine);
    compile(dev, s + n / 2, n - n / 2, mine);
  } else if (err != CL_SUCCESS) {
    for (uint32_t i = 0; i < n; i++) fail_build(dev, s[i], err, log);
  }
  free(log);
}

/* Takes a unit from disk; false: the runtime does not. */
static bool load(tern_dev *dev, const ocl_stored *st, const batch *mine) {
  cl_program program = NULL;
  const int64_t start = ocl_now();
  const cl_int err = st->kind == OCL_SOURCE ? ocl_program_of_text(dev, (const char *)st->data, &program, NULL)
                                            : ocl_program_of_binary(dev, st->data, st->size, &program);
  ocl_log(dev->drv, 3, "opencl:%s: %u kernels' text taken from disk in %.1f ms: %s", dev->id->alias, st->n,
          (double)(ocl_now() - start) * 1e-6, ocl_cl_name(err));
  if (err != CL_SUCCESS) return false;
  atomic_fetch_add(&dev->build->loaded, 1);
  return publish(dev, program, (const uint64_t(*)[2])st->keys, st->n, mine);
}

/* What units on disk have of a batch. Each round drops a unit that is refused, or makes its first section ready. */
static void load_stored(tern_dev *dev, const batch *mine) {
  ocl_cache *cache = dev->build->cache;
  for (uint32_t first = 0; cache && first < mine->n;) {
    uint64_t wanted[OCL_UNIT_SECTIONS][2];
    uint32_t n = 0;
    for (uint32_t i = first; i < mine->n; i++)
      if (is_ours(mine->s[i])) memcpy(wanted[n++], mine->s[i]->key, sizeof wanted[0]);
    ocl_stored st;
    if (!is_ours(mine->s[first]) || !ocl_cache_load(cache, (const uint64_t(*)[2])wanted, n, &st)) {
      first++;
      continue;
    }
    if (!load(dev, &st, mine)) ocl_cache_drop(cache, &st);
    ocl_stored_free(&st);
  }
}

static void make(tern_dev *dev, const batch *mine) {
  ocl_build *b = dev->build;
  ocl_section *rest[OCL_UNIT_SECTIONS];
  uint32_t n = 0;
  if (!b->opened && dev->keep) b->cache = ocl_cache_open(dev);
  b->opened = true;
  load_stored(dev, mine);
  for (uint32_t i = 0; i < mine->n; i++)
    if (is_ours(mine->s[i])) rest[n++] = mine->s[i];
  if (!n) return;
  if (dev->id->compiler) {
    compile(dev, rest, n, mine);
    return;
  }
  for (uint32_t i = 0; i < n; i++)
    fail(dev, rest[i], TERN_E_UNSUPPORTED, "the device has no compiler, and no kernel for this was made ahead of time");
}

/* ---- whose turn it is: under the lock ---- */

static void update_watch(ocl_build *b) {
  atomic_store(&b->watch, b->started && (b->compiling || (b->n_pending && !b->hushed)));
}

/* The pending sections, `need` (or NULL) before the others, up to a unit's size. */
static void take(ocl_build *b, ocl_section *need, batch *to) {
  size_t bytes = 0;
  for (ocl_section *s = need ? need : b->pending; s && to->n < OCL_UNIT_SECTIONS; s = b->pending) {
    bytes += strlen(s->text);
    if (to->n && bytes > OCL_UNIT_TEXT) return;
    ocl_section_take(b, s);
    to->s[to->n++] = s;
  }
}

static void make_next(tern_dev *dev, ocl_section *need, bool on_thread) {
  ocl_build *b = dev->build;
  batch mine = {.n = 0};
  take(b, need, &mine);
  b->busy = true;
  b->compiling = on_thread;
  update_watch(b);
  pthread_mutex_unlock(&b->lock);
  make(dev, &mine);
  pthread_mutex_lock(&b->lock);
  for (uint32_t i = 0; i < mine.n; i++) ocl_section_drop(dev, mine.s[i]);
  b->busy = b->compiling = false;
  update_watch(b);
  pthread_cond_broadcast(&b->changed);
}

tern_rc ocl_section_ready(tern_dev *dev, ocl_section *s) {
  if (atomic_load_explicit(&s->state, memory_order_acquire) == OCL_READY) return TERN_OK;
  ocl_build *b = dev->build;
  bool tried = false;
  unsigned state;
  char why[REASON];
  pthread_mutex_lock(&b->lock);
  for (;;) {
    state = atomic_load(&s->state);
    if (state == OCL_READY || (state == OCL_FAILED && (tried || s->rc != TERN_E_OOM))) break;
    if (state == OCL_FAILED) ocl_section_pend(b, s); /* there may be memory now */
    if (state == OCL_BUILDING || b->busy) {
      pthread_cond_wait(&b->changed, &b->lock);
      continue;
    }
    tried = true;
    make_next(dev, s, false);
  }
  const tern_rc rc = state == OCL_READY ? TERN_OK : s->rc; /* another thread may try again, and fail anew */
  if (rc) snprintf(why, sizeof why, "%s", s->why ? s->why : "no memory to build a kernel");
  pthread_mutex_unlock(&b->lock);
  return rc ? ocl_error(dev->drv, dev->id, rc, "%s", why) : TERN_OK;
}

/* ---- the builder thread ---- */

/* When the builder thread may begin: no section came for a while, longer the longer they have been coming, so that the
   kernels of a graph are not cut in two by a program that was held up. */
static int64_t due(const ocl_build *b) { return b->registered + QUIET_NS + (b->registered - b->began); }

static void sleep_until(ocl_build *b, int64_t when) {
  const struct timespec t = {(time_t)(when / 1000000000), (long)(when % 1000000000)};
  pthread_cond_timedwait(&b->changed, &b->lock, &t);
}

static void *builder(void *arg) {
  tern_dev *dev = arg;
  ocl_build *b = dev->build;
  pthread_mutex_lock(&b->lock);
  while (!b->stop) {
    if (!b->n_pending || b->hushed || b->busy) {
      b->idle = true;
      pthread_cond_wait(&b->changed, &b->lock);
      b->idle = false;
    } else if (ocl_now() < due(b)) {
      sleep_until(b, due(b));
    } else {
      make_next(dev, NULL, true);
    }
  }
  pthread_mutex_unlock(&b->lock);
  return NULL;
}

void ocl_builder_wake(tern_dev *dev) {
  ocl_build *b = dev->build;
  if (!b->started) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the program's own threads */
    b->started = !pthread_create(&b->thread, NULL, builder, dev);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!b->started) b->background = false; /* launches build */
  } else if (b->idle) {
    pthread_cond_broadcast(&b->changed);
  }
  update_watch(b);
}

void ocl_build_settle(tern_dev *dev) {
  ocl_build *b = dev->build;
  if (!atomic_load_explicit(&b->watch, memory_order_relaxed)) return;
  pthread_mutex_lock(&b->lock);
  b->hushed = true;
  while (b->compiling) pthread_cond_wait(&b->changed, &b->lock);
  update_watch(b);
  pthread_mutex_unlock(&b->lock);
}

tern_rc ocl_build_open(tern_dev *dev) {
  ocl_build *b = calloc(1, sizeof *b);
  if (!b) return ocl_error(dev->drv, dev->id, TERN_E_OOM, "no memory to open the device");
  b->pending_end = &b->pending;
  b->background = !strcmp(ocl_option(dev->drv, "build", "background"), "background");
  pthread_condattr_t clock;
  pthread_condattr_init(&clock);
  pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
  pthread_cond_init(&b->changed, &clock);
  pthread_condattr_destroy(&clock);
  pthread_mutex_init(&b->lock, NULL);
  dev->build = b;
  return TERN_OK;
}

void ocl_build_close(tern_dev *dev) {
  ocl_build *b = dev->build;
  if (!b) return;
  pthread_mutex_lock(&b->lock);
  b->stop = true;
  pthread_cond_broadcast(&b->changed);
  pthread_mutex_unlock(&b->lock);
  if (b->started) pthread_join(b->thread, NULL);
  while (b->units) { /* of a bundle; every kernel was freed */
    b->units->refs = 1;
    ocl_unit_drop(dev, b->units);
  }
  ocl_cache_close(b->cache);
  pthread_cond_destroy(&b->changed);
  pthread_mutex_destroy(&b->lock);
  free(b);
}
