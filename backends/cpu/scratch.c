/* Scratch memory of threads: a pointer and a size for each user in thread-local storage, freed when the thread ends. */
#include "cpu.h"
#include <pthread.h>
#include <stdlib.h>

typedef struct scratch {
  void *p[CPU_SCRATCH_USERS];
  size_t size[CPU_SCRATCH_USERS];
} scratch;

static _Thread_local scratch *mine;
static struct {
  pthread_once_t once;
  pthread_key_t key;
  bool have_key;
} ends = {.once = PTHREAD_ONCE_INIT};

static void release(void *p) {
  scratch *const s = p;
  for (int i = 0; i < CPU_SCRATCH_USERS; i++) free(s->p[i]);
  free(s);
}

static void make_key(void) { ends.have_key = pthread_key_create(&ends.key, release) == 0; }

static void *grow(int user, size_t bytes) {
  pthread_once(&ends.once, make_key);
  if (!mine) {
    scratch *const s = calloc(1, sizeof *s);
    if (!s) return NULL;
    if (ends.have_key && pthread_setspecific(ends.key, s) != 0) {
      free(s);
      return NULL;
    }
    mine = s;
  }
  const size_t least = 1 << 16, want = (bytes < least ? least : bytes + bytes / 4 + 4095) & ~(size_t)4095;
  void *const p = aligned_alloc(4096, want);
  if (!p) return NULL;
  free(mine->p[user]);
  mine->p[user] = p;
  mine->size[user] = want;
  return p;
}

void *cpu_scratch(int user, size_t bytes) {
  if (mine && mine->size[user] >= bytes && mine->p[user]) return mine->p[user];
  return grow(user, bytes);
}

/* Called when the plugin is unloaded: the key's destructor must not run after that. Frees this thread's blocks */
void cpu_scratch_fini(void) {
  if (mine) {
    scratch *const s = mine;
    mine = NULL;
    if (ends.have_key) pthread_setspecific(ends.key, NULL);
    release(s);
  }
  if (ends.have_key) pthread_key_delete(ends.key);
  ends.have_key = false;
}
