/* Host memory of the core. One place, so that a test can make every allocation fail once. */
#ifndef TERN_BASE_ALLOC_H_
#define TERN_BASE_ALLOC_H_
#include <stddef.h>

/* Zeroed memory, 16-byte aligned, or NULL. */
void *tern__calloc(size_t count, size_t size);
/* Zeroed memory aligned to 64 bytes, or NULL; ended by free(). */
void *tern__calloc64(size_t size);
/* As realloc. */
void *tern__realloc(void *old, size_t size);
/* As strdup. */
char *tern__strdup(const char *text);
/* Tests: the n-th allocation from now fails (1 = the next; 0 = none). */
void tern__alloc_fail_at(long n);
/* Tests: how many allocations there were since tern__alloc_fail_at. */
long tern__alloc_count(void);
#endif
