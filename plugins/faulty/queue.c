/* An in-order queue: one thread takes commands from a list. After a failure later commands are dropped and tickets
   still pass. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include "faulty.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static void run_one(tern_queue *q, command *c) {
  char message[sizeof q->message] = "";
  const tern_rc rc = c->run && !q->failed ? c->run(c, message, sizeof message) : TERN_OK;
  pthread_mutex_lock(&q->lock);
  if (rc && !q->failed) {
    q->failed = rc;
    snprintf(q->message, sizeof q->message, "%s", message);
  }
  if (!c->run) q->done = c->ticket;
  pthread_cond_broadcast(&q->changed);
  pthread_mutex_unlock(&q->lock);
  free(c);
}

static void *work(void *context) {
  tern_queue *q = context;
  for (;;) {
    pthread_mutex_lock(&q->lock);
    while (!q->first && !q->closing) pthread_cond_wait(&q->changed, &q->lock);
    command *c = q->first;
    if (c && !(q->first = c->next)) q->last = NULL;
    pthread_mutex_unlock(&q->lock);
    if (!c) return NULL;
    run_one(q, c);
  }
}

tern_queue *faulty_queue_new(void) {
  tern_queue *q = calloc(1, sizeof *q);
  pthread_condattr_t clock;
  if (!q) return NULL;
  pthread_condattr_init(&clock);
  pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
  pthread_mutex_init(&q->lock, NULL);
  pthread_cond_init(&q->changed, &clock);
  pthread_condattr_destroy(&clock);
  if (!pthread_create(&q->thread, NULL, work, q)) return q;
  pthread_cond_destroy(&q->changed);
  pthread_mutex_destroy(&q->lock);
  free(q);
  return NULL;
}

void faulty_queue_free(tern_queue *q) {
  pthread_mutex_lock(&q->lock);
  q->closing = true;
  pthread_cond_broadcast(&q->changed);
  pthread_mutex_unlock(&q->lock);
  pthread_join(q->thread, NULL);
  pthread_cond_destroy(&q->changed);
  pthread_mutex_destroy(&q->lock);
  free(q);
}

void faulty_push(tern_queue *q, command *c) {
  c->next = NULL;
  pthread_mutex_lock(&q->lock);
  if (q->last)
    q->last->next = c;
  else
    q->first = c;
  q->last = c;
  pthread_cond_broadcast(&q->changed);
  pthread_mutex_unlock(&q->lock);
}

tern_rc faulty_queue_until(tern_queue *q, uint64_t ticket, uint64_t ns) {
  struct timespec limit = {0};
  if (ns && ns != UINT64_MAX) {
    clock_gettime(CLOCK_MONOTONIC, &limit);
    limit.tv_sec += (time_t)(ns / 1000000000u);
    limit.tv_nsec += (long)(ns % 1000000000u);
    if (limit.tv_nsec >= 1000000000) {
      limit.tv_nsec -= 1000000000;
      limit.tv_sec++;
    }
  }
  pthread_mutex_lock(&q->lock);
  int late = 0;
  while (q->done < ticket && ns && !late)
    late = ns == UINT64_MAX ? pthread_cond_wait(&q->changed, &q->lock)
                            : pthread_cond_timedwait(&q->changed, &q->lock, &limit);
  const tern_rc rc = q->failed ? q->failed : q->done < ticket ? TERN_E_TIMEOUT : TERN_OK;
  pthread_mutex_unlock(&q->lock);
  return rc;
}
