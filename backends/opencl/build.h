/* What section.c, build.c, unit.c and cache.c share: a device's sections and units, and units on disk. */
#ifndef TERN_OCL_BUILD_H_
#define TERN_OCL_BUILD_H_
#include "ocl.h"

struct ocl_unit {
  ocl_unit *next;
  cl_program program;
  uint32_t refs, n; /* refs: its sections that are in use. n: sections that it holds */
  uint64_t keys[][2];
};

typedef struct ocl_cache ocl_cache;
enum { OCL_BUCKETS = 256 };
typedef struct ocl_build {
  pthread_mutex_t lock; /* all of this but `cache`, which belongs to whom `busy` was set for */
  pthread_cond_t changed;
  ocl_section *sections[OCL_BUCKETS]; /* by key */
  ocl_section *pending, **pending_end;
  ocl_unit *units;
  uint32_t n_pending;
  int64_t began, registered;      /* ns: when the first and the last of the pending sections came */
  bool busy;                      /* a unit is being made */
  bool background, started, stop; /* the builder thread is wanted; runs; shall end */
  bool hushed;                    /* it begins nothing before another section comes */
  bool compiling, idle;           /* it is at work; it sleeps until it is woken */
  bool opened;                    /* `cache` was tried */
  atomic_bool watch;              /* it is at work or may begin: a sync must look */
  pthread_t thread;
  ocl_cache *cache;
  atomic_uint built, loaded; /* times that text was compiled; units taken from disk */
} ocl_build;

/* Under the lock, all of them: */
bool ocl_unit_holds(const ocl_unit *u, const uint64_t key[2]);
/* A unit of the device with these sections; every pending section, and of those being built those in `mine`, becomes
   ready in it. Takes over the program. NULL: no memory. */
ocl_unit *ocl_unit_add(tern_dev *dev, cl_program program, const uint64_t (*keys)[2], uint32_t n,
                       ocl_section *const *mine, uint32_t n_mine);
void ocl_unit_drop(tern_dev *dev, ocl_unit *u); /* a reference less */
void ocl_section_drop(tern_dev *dev, ocl_section *s);
void ocl_section_take(ocl_build *b, ocl_section *s); /* from the pending ones to build it: a reference more */
void ocl_section_pend(ocl_build *b, ocl_section *s); /* to the pending ones */
void ocl_builder_wake(tern_dev *dev);                /* something is pending: starts the thread, if it is not there */

/* ---- unit.c: programs ---- */

cl_int ocl_program_of_binary(tern_dev *dev, const unsigned char *data, size_t size, cl_program *out);
/* *log, where it is not NULL: what the compiler said to a text that it refuses, or NULL; caller frees. */
cl_int ocl_program_of_text(tern_dev *dev, const char *text, cl_program *out, char **log);
bool ocl_program_binary(cl_program p, unsigned char **data, size_t *size);

/* ---- cache.c: units on disk ---- */

enum { OCL_BINARY = 1, OCL_SOURCE };
typedef struct ocl_stored { /* the content of a unit's file */
  uint32_t kind, n;         /* OCL_BINARY, or OCL_SOURCE: the text of the unit. Number of sections */
  uint64_t (*keys)[2];
  unsigned char *data; /* a 0 is behind it */
  size_t size;
} ocl_stored;
ocl_cache *ocl_cache_open(tern_dev *dev); /* NULL: nothing is kept on disk */
void ocl_cache_close(ocl_cache *c);
/* The unit on disk that holds wanted[0] and most of the others. False: there is none. Free with ocl_stored_free. */
bool ocl_cache_load(ocl_cache *c, const uint64_t (*wanted)[2], uint32_t n, ocl_stored *out);
void ocl_stored_free(ocl_stored *s);
void ocl_cache_drop(ocl_cache *c, const ocl_stored *s); /* the runtime refuses it: its file is removed */
void ocl_cache_store(ocl_cache *c, const ocl_stored *s);
#endif
