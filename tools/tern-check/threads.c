/* Four threads at once: on a device without queues they copy and launch together, with queues each has its own (as
   many as the device allows). A kernel is shared by all. */
#include "check.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 4, ROUNDS = 40 };

typedef struct worker {
  device *d;
  tern_queue *queue;
  const tern_kernel *kernel;
  uint64_t workspace;
  int number;
  char problem[200];
} worker;

static void sum_problem(problem *p, int64_t n) {
  memset(p, 0, sizeof *p);
  for (int i = 0; i < MAX_OPERANDS; i++) p->arg[i] = (operand){.alias = -1, .same_as = ONE};
  p->op = TERN_OP_ADD;
  p->n_in = 2;
  p->n_out = p->n_space = p->n_sizes = 1;
  p->size[0] = n;
  for (int i = 0; i < 3; i++) operand_dense(p, i, i < 2 ? TERN_V_IN : TERN_V_OUT, TERN_F32, FILL_SMALL);
  canonicalise(p);
}

static bool round_of(worker *w, tern_mem *mem, float *host, int round) {
  device *d = w->d;
  problem p;
  uint64_t used;
  const int64_t n = 500 + 37 * round + 1000 * w->number;
  sum_problem(&p, n);
  place(&p, &used);
  float *a = host + p.arg[0].at / 4, *b = host + p.arg[1].at / 4;
  const float *c = host + p.arg[2].at / 4;
  for (int64_t i = 0; i < n; i++) {
    a[i] = (float)(i + round);
    b[i] = (float)(1000 * w->number);
  }
  tern_rc rc = dev_upload(d, w->queue, mem, 0, host, used);
  if (!rc && w->kernel) rc = launch_image(d, w->queue, w->kernel, w->workspace, &p, mem);
  memset(host, 0, used);
  if (!rc) rc = dev_download(d, w->queue, host, mem, 0, used);
  if (rc) snprintf(w->problem, sizeof w->problem, "round %d: %s: %.120s", round, rc_name(rc), said());
  for (int64_t i = 0; i < n && !rc && !*w->problem; i++)
    if (w->kernel ? c[i] != (float)(i + round) + (float)(1000 * w->number) : a[i] != (float)(i + round))
      snprintf(w->problem, sizeof w->problem, "round %d: element %lld of %s is wrong: expected %g, got %g", round,
               (long long)i, w->kernel ? "a sum" : "a copy", (double)(i + round) + (w->kernel ? 1000 * w->number : 0),
               (double)(w->kernel ? c[i] : a[i]));
  return !*w->problem;
}

static void *work(void *context) {
  worker *w = context;
  enum { BYTES = 1 << 17 };
  tern_mem *mem = NULL;
  float *host = calloc(1, BYTES);
  const tern_rc rc = dev_alloc(w->d, BYTES, &mem);
  if (rc || !host) snprintf(w->problem, sizeof w->problem, "%s", host ? rc_name(rc) : "tern-check: out of memory");
  for (int round = 0; round < ROUNDS && !*w->problem; round++)
    if (!round_of(w, mem, host, round)) break;
  if (w->queue) dev_queue_close(w->d, w->queue);
  if (!rc) dev_free(w->d, mem);
  free(host);
  return NULL;
}

void check_threads(device *d, report *r) {
  if (!report_begin_check(r, "threads")) return;
  worker workers[THREADS] = {{0}};
  pthread_t threads[THREADS];
  problem p;
  builder *b = calloc(1, sizeof *b);
  tern_kernel *kernel = NULL;
  uint64_t workspace = 0;
  uint32_t fixed = 0;
  sum_problem(&p, 100);
  const bool claimed = b && build(b, &p) && !d->api->supports(d->dev, &b->region, &fixed) && !fixed &&
                       !(d->info.flags & TERN_DEV_STATIC_ONLY);
  tern_rc rc = claimed ? dev_compile(d, &b->region, &kernel, &workspace) : TERN_OK;
  expect(r, !rc, "threads", "compile: %s: %s", rc_name(rc), said());
  if (workspace) { /* one workspace cannot serve several threads */
    dev_kernel_free(d, kernel);
    kernel = NULL;
  }
  int n = THREADS, started = 0;
  if (d->queue && d->info.max_queues && (int)d->info.max_queues - 1 < n) n = (int)d->info.max_queues - 1;
  for (int i = 0; i < n && !rc; i++) {
    workers[i] = (worker){.d = d, .kernel = rc ? NULL : kernel, .number = i};
    if (d->queue) rc = dev_queue(d, &workers[i].queue);
    if (!rc && pthread_create(&threads[i], NULL, work, &workers[i])) rc = TERN_E_OOM;
    if (!rc)
      started++;
    else if (workers[i].queue)
      dev_queue_close(d, workers[i].queue);
  }
  expect(r, !rc, "threads", "queue or thread: %s: %s", rc_name(rc), said());
  for (int i = 0; i < started; i++) {
    pthread_join(threads[i], NULL);
    expect(r, !*workers[i].problem, "threads", "thread %d: %s", i, workers[i].problem);
  }
  if (kernel) dev_kernel_free(d, kernel);
  free(b);
}
