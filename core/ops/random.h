/* Whose random numbers a thread's ops draw. */
#ifndef TERN_CORE_OPS_RANDOM_H_
#define TERN_CORE_OPS_RANDOM_H_
#include "ops/op.h"

/* This thread draws from *own (and advances it) instead of the process's generator; NULL: from that again. Returns what
   was set before. tern_set_seed always means the process's. */
tern__random_state *tern__random_own(tern__random_state *own);
/* A number other than 0 to seed something with, drawn where the thread's ops draw. */
uint64_t tern__random_seed(void);
#endif
