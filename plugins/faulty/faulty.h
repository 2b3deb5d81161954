/* What the two files of the faulty plugin share: the queue, a thread that runs commands in order. */
#ifndef TERN_FAULTY_H_
#define TERN_FAULTY_H_
#include <pthread.h>
#include <stdbool.h>
#include <tern/backend.h>

typedef struct command command;
struct command {
  command *next;
  tern_rc (*run)(command *, char *message, size_t size); /* NULL: the end of a ticket */
  uint64_t ticket;
  /* copy, fill */
  void *dst;
  const void *src;
  uint64_t size, pattern;
  /* launch */
  const tern_kernel *kernel;
  void **args;
  tern_word *words;
  /* wait */
  tern_queue *other;
  unsigned char data[]; /* what src, args and words point to when it is the command's own */
};

struct tern_queue {
  pthread_t thread;
  pthread_mutex_t lock;
  pthread_cond_t changed;
  command *first, *last;
  uint64_t tickets, done;
  tern_rc failed; /* stays */
  char message[240];
  bool closing;
};

tern_queue *faulty_queue_new(void);
void faulty_queue_free(tern_queue *); /* runs what is left first */
void faulty_push(tern_queue *, command *);
/* Waits until `ticket` is done: TIMEOUT after ns (0: at once, UINT64_MAX: never), or what failed before it */
tern_rc faulty_queue_until(tern_queue *, uint64_t ticket, uint64_t ns);
#endif
