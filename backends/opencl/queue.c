/* In-order queues with tickets. A ticket gets an event only when something is enqueued after it, or somebody other
   than the plain "wait for everything" asks: op, signal, sync then costs one flush and one finish, as in the bare
   API. On a device that shares the host's memory a download is a copy by whoever waits for everything, and becomes a
   command only when something is enqueued first. */
#include "ocl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The queue is broken for good: remember the first reason. */
static tern_rc fail(tern_queue *q, tern_rc rc, const char *what, cl_int err) {
  if (!q->failed) {
    q->failed = rc;
    if (q->dev->direct) ocl_finish(q->dev, q->q); /* the host memory of buffers is freed without another wait */
    snprintf(q->why, sizeof q->why, "%s failed: %s (%d)", what, ocl_cl_name(err), err);
  }
  return ocl_error(q->dev->drv, q->dev->id, q->failed, "%s", q->why);
}

static tern_rc still_failed(const tern_queue *q) {
  return ocl_error(q->dev->drv, q->dev->id, q->failed, "this queue failed earlier: %s", q->why);
}

tern_rc ocl_queue_failed(tern_queue *q, const char *what, cl_int err) {
  const tern_rc rc = ocl_work_status(err);
  if (rc == TERN_E_LOST) return fail(q, rc, what, err);
  return ocl_error(q->dev->drv, q->dev->id, rc, "%s failed: %s (%d)", what, ocl_cl_name(err), err);
}

/* The flag of index errors, and staging. */
static tern_rc make_parts(tern_dev *dev, tern_queue *q) {
  const tern_mem_desc want = {.struct_size = sizeof want, .size = 4 * sizeof(cl_int)};
  const cl_int zero[4] = {0};
  tern_rc rc = ocl_mem_alloc(dev, &want, &q->flag_mem);
  if (rc) return rc;
  q->flag = q->flag_mem->buffer;
  q->flag_host = calloc(4, sizeof *q->flag_host);
  if (!q->flag_host) return ocl_error(dev->drv, dev->id, TERN_E_OOM, "no memory for a queue");
  rc = ocl_pinned_open(dev, 2 * (size_t)OCL_STAGE_HALF, &q->stage);
  if (rc) return rc;
  const cl_int err = clEnqueueWriteBuffer(q->q, q->flag, CL_TRUE, 0, sizeof zero, zero, 0, NULL, NULL);
  return err == CL_SUCCESS ? TERN_OK : ocl_failed(dev, "creating a queue", err);
}

static void free_parts(tern_dev *dev, tern_queue *q) {
  if (q->flag_mem) ocl_mem_free(dev, q->flag_mem);
  free(q->flag_host);
  ocl_pinned_close(dev, &q->stage);
}

tern_rc ocl_queue_open(tern_dev *dev, uint32_t flags, tern_queue **out) {
  if (!ocl_alive()) return ocl_forked(dev->drv);
  if (flags) return ocl_error(dev->drv, dev->id, TERN_E_UNSUPPORTED, "unknown queue flags %#x", flags);
  tern_queue *q = calloc(1, sizeof *q);
  if (!q) return ocl_error(dev->drv, dev->id, TERN_E_OOM, "no memory for a queue");
  q->dev = dev;
  cl_int err;
  q->q = clCreateCommandQueue(dev->context, dev->id->device, 0, &err);
  if (err != CL_SUCCESS) {
    free(q);
    return ocl_failed(dev, "creating a queue", err);
  }
  const tern_rc rc = make_parts(dev, q);
  if (rc) {
    free_parts(dev, q);
    clReleaseCommandQueue(q->q);
    free(q);
    return rc;
  }
  pthread_mutex_init(&q->lock, NULL);
  q->last = q->done = 1; /* a ticket that was given and has passed: the queue is idle */
  atomic_store(&q->open, true);
  *out = q;
  return TERN_OK;
}

/* Everything is complete: do the downloads that were left. Caller holds the lock, or is alone. */
static void take_downloads(tern_queue *q) {
  const uint32_t n = atomic_load_explicit(&q->n_downloads, memory_order_relaxed);
  for (uint32_t i = 0; i < n; i++) {
    const ocl_download *d = &q->download[i];
    memcpy(d->to, d->host + d->offset, d->size);
  }
  if (n) atomic_store_explicit(&q->n_downloads, 0, memory_order_relaxed);
}

/* Have the device do them: what comes next may overwrite their sources. Caller holds the lock. */
static cl_int enqueue_downloads(tern_queue *q) {
  const uint32_t n = atomic_load_explicit(&q->n_downloads, memory_order_relaxed);
  cl_int err = CL_SUCCESS;
  for (uint32_t i = 0; i < n && err == CL_SUCCESS; i++) {
    const ocl_download *d = &q->download[i];
    err = clEnqueueReadBuffer(q->q, d->buffer, CL_FALSE, d->offset, d->size, d->to, 0, NULL, NULL);
  }
  atomic_store_explicit(&q->n_downloads, 0, memory_order_relaxed);
  return err;
}

void ocl_queue_close(tern_dev *dev, tern_queue *q) {
  if (!q) return;
  if (q->recording) ocl_program_free(dev, q->recording);
  if (ocl_alive()) {
    ocl_finish(dev, q->q);
    if (!q->failed) take_downloads(q);
    for (uint32_t i = 0; i < q->n_ring; i++) clReleaseEvent(q->ring[i].event);
    for (int i = 0; i < 2; i++)
      if (q->stage_busy[i]) clReleaseEvent(q->stage_busy[i]);
    if (q->gemm_temp) clReleaseMemObject(q->gemm_temp);
    ocl_transfer_close(dev, q->transfer);
    clReleaseCommandQueue(q->q);
  }
  free_parts(dev, q);
  pthread_mutex_destroy(&q->lock);
  free(q);
}

/* Forget tickets up to `number`. Caller holds the lock. */
static void drop(tern_queue *q, uint64_t number) {
  uint32_t n = 0;
  while (n < q->n_ring && q->ring[n].number <= number) clReleaseEvent(q->ring[n++].event);
  if (!n) return;
  q->n_ring -= n;
  memmove(q->ring, q->ring + n, q->n_ring * sizeof *q->ring);
}

/* Give the last ticket its event. A full ring loses its oldest entry: whoever asks for that one waits for the next.
   Caller holds the lock. */
static cl_int pin(tern_queue *q) {
  cl_int err = enqueue_downloads(q);
  if (err != CL_SUCCESS || !atomic_load(&q->open)) return err;
  if (q->done >= q->last) { /* it has passed: nobody needs an event */
    atomic_store_explicit(&q->open, false, memory_order_release);
    return CL_SUCCESS;
  }
  cl_event event;
  err = clEnqueueMarkerWithWaitList(q->q, 0, NULL, &event);
  if (err != CL_SUCCESS) return err;
  if (q->n_ring == OCL_TICKETS) drop(q, q->ring[0].number);
  q->ring[q->n_ring++] = (ocl_ticket){q->last, event};
  atomic_store_explicit(&q->open, false, memory_order_release);
  return clFlush(q->q);
}

tern_rc ocl_queue_enter_slow(tern_queue *q) {
  if (q->failed) return still_failed(q);
  pthread_mutex_lock(&q->lock);
  const cl_int err = pin(q);
  pthread_mutex_unlock(&q->lock);
  return err == CL_SUCCESS ? TERN_OK : ocl_queue_failed(q, "marking a ticket", err);
}

void ocl_queue_copy_now(tern_queue *q, void *to, const void *from, size_t size) {
  memcpy(to, from, size);
  pthread_mutex_lock(&q->lock);
  q->done = ++q->last; /* work has a ticket of its own: one that has passed */
  pthread_mutex_unlock(&q->lock);
}

tern_rc ocl_queue_download(tern_queue *q, const ocl_download *d) {
  if (q->failed) return still_failed(q);
  if (ocl_queue_idle(q)) {
    ocl_queue_copy_now(q, d->to, d->host + d->offset, d->size);
    return TERN_OK;
  }
  cl_int err = CL_SUCCESS;
  pthread_mutex_lock(&q->lock);
  if (atomic_load(&q->open) || atomic_load(&q->n_downloads) == OCL_DOWNLOADS) err = pin(q);
  if (err == CL_SUCCESS) {
    q->download[atomic_load(&q->n_downloads)] = *d;
    atomic_fetch_add(&q->n_downloads, 1);
  }
  pthread_mutex_unlock(&q->lock);
  return err == CL_SUCCESS ? TERN_OK : ocl_queue_failed(q, "marking a ticket", err);
}

cl_mem ocl_queue_flag(tern_queue *q) {
  if (q->recording) return ocl_record_flag(q);
  q->flagged = true;
  return q->flag;
}

/* Before a ticket: have its wait bring the index flag to the host. Caller holds the lock. */
static cl_int read_flag(tern_queue *q) {
  const size_t size = 4 * sizeof(cl_int);
  const uint32_t n = atomic_load(&q->n_downloads);
  const bool left = q->flag_mem->host && n < OCL_DOWNLOADS;
  if (!left || atomic_load(&q->open)) {
    const cl_int err = pin(q);
    if (err != CL_SUCCESS) return err;
  }
  if (!left) return clEnqueueReadBuffer(q->q, q->flag, CL_FALSE, 0, size, q->flag_host, 0, NULL, NULL);
  q->download[atomic_load(&q->n_downloads)] =
      (ocl_download){.buffer = q->flag, .host = q->flag_mem->host, .to = q->flag_host, .size = size};
  atomic_fetch_add(&q->n_downloads, 1);
  return CL_SUCCESS;
}

tern_rc ocl_queue_signal(tern_dev *dev, tern_queue *q, uint64_t *ticket) {
  if (!ocl_alive()) return ocl_forked(dev->drv);
  if (q->failed) {
    ocl_build_settle(dev); /* nobody syncs a queue that failed, and this may be the end of the process */
    return still_failed(q);
  }
  cl_int err = CL_SUCCESS;
  pthread_mutex_lock(&q->lock);
  if (!atomic_load(&q->open) || q->flagged) {
    if (q->flagged) err = read_flag(q);
    q->flagged = false;
    q->last++;
    atomic_store(&q->open, true);
  } /* else nothing was enqueued since the last ticket: it covers everything still */
  *ticket = q->last;
  if (err == CL_SUCCESS && q->done < q->last) err = clFlush(q->q);
  pthread_mutex_unlock(&q->lock);
  return err == CL_SUCCESS ? TERN_OK : ocl_queue_failed(q, "flushing the queue", err);
}

/* The event of a ticket or of a later one, retained; NULL when it is known to be complete. Caller holds the lock. */
static cl_int event_of(tern_queue *q, uint64_t ticket, cl_event *event) {
  *event = NULL;
  if (ticket <= q->done) return CL_SUCCESS;
  const cl_int err = ticket == q->last ? pin(q) : CL_SUCCESS;
  if (err != CL_SUCCESS) return err;
  for (uint32_t i = 0; i < q->n_ring; i++)
    if (q->ring[i].number >= ticket) {
      *event = q->ring[i].event;
      return clRetainEvent(*event);
    }
  return CL_SUCCESS;
}

tern_rc ocl_queue_wait(tern_dev *dev, tern_queue *q, tern_queue *other, uint64_t ticket) {
  if (!ocl_alive()) return ocl_forked(dev->drv);
  if (!other || other->dev != q->dev) return TERN_E_UNSUPPORTED; /* another context: the core waits on the host */
  if (other == q) return TERN_OK;                                /* in order anyway */
  tern_rc rc = ocl_queue_enter(q);
  if (rc) return rc;
  cl_event event;
  pthread_mutex_lock(&other->lock);
  const bool given = ticket <= other->last;
  cl_int err = event_of(other, ticket, &event);
  pthread_mutex_unlock(&other->lock);
  if (!given)
    return ocl_error(dev->drv, dev->id, TERN_E_ARG, "wait for ticket %llu, which was never given",
                     (unsigned long long)ticket);
  if (err != CL_SUCCESS) return ocl_failed(dev, "marking a ticket of another queue", err);
  if (!event) return TERN_OK;
  err = clEnqueueBarrierWithWaitList(q->q, 1, &event, NULL);
  clReleaseEvent(event);
  q->waits = q->last + 1;
  return err == CL_SUCCESS ? TERN_OK : ocl_queue_failed(q, "waiting for another queue", err);
}

/* Wait for an event until the deadline, looking more and more seldom. 0: one look. */
static tern_rc wait_event(tern_queue *q, cl_event event, uint64_t timeout_ns) {
  const int64_t start = ocl_now();
  for (long nap = 1000;; nap = nap < 200000 ? nap * 2 : nap) {
    cl_int state = CL_QUEUED;
    const cl_int err = clGetEventInfo(event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof state, &state, NULL);
    if (err != CL_SUCCESS) return ocl_queue_failed(q, "asking for an event", err);
    if (state < 0) return fail(q, ocl_work_status(state), "work on the device", state);
    if (state == CL_COMPLETE) return TERN_OK;
    const uint64_t passed = (uint64_t)(ocl_now() - start);
    if (passed >= timeout_ns) return TERN_E_TIMEOUT;
    const struct timespec t = {0, (long)(timeout_ns - passed < (uint64_t)nap ? timeout_ns - passed : (uint64_t)nap)};
    nanosleep(&t, NULL);
  }
}

static tern_rc wait_forever(tern_queue *q, cl_event event) {
  const cl_int err = event ? clWaitForEvents(1, &event) : ocl_finish(q->dev, q->q);
  if (err == CL_SUCCESS) return TERN_OK;
  cl_int state = err;
  if (event && err == CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST)
    clGetEventInfo(event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof state, &state, NULL);
  return fail(q, ocl_work_status(state), "work on the device", state);
}

/* Report an index out of range that a launch up to here has met, once. */
static tern_rc check_flag(tern_queue *q) {
  cl_int *f = q->flag_host;
  if (!f[0]) return TERN_OK;
  const long long index = (long long)((uint64_t)(uint32_t)f[2] << 32 | (uint32_t)f[1]);
  const cl_int size = f[3], zero[4] = {0};
  const bool scatter = f[0] == 2;
  memset(f, 0, 4 * sizeof *f);
  const cl_int err = clEnqueueWriteBuffer(q->q, q->flag, CL_TRUE, 0, sizeof zero, zero, 0, NULL, NULL);
  if (err != CL_SUCCESS) return ocl_queue_failed(q, "clearing the index flag", err);
  return ocl_error(q->dev->drv, q->dev->id, TERN_E_ARG, "%s: index %lld is out of range for an axis of size %d; %s",
                   scatter ? "scatter" : "gather", index, size,
                   scatter ? "its update was dropped" : "0 was read in its place");
}

tern_rc ocl_queue_sync(tern_dev *dev, tern_queue *q, uint64_t ticket, uint64_t timeout_ns) {
  if (!ocl_alive()) return ocl_forked(dev->drv);
  if (timeout_ns == UINT64_MAX) ocl_build_settle(dev); /* this may be the last sync of the process */
  if (q->failed) return still_failed(q);
  if (ticket > q->last)
    return ocl_error(dev->drv, dev->id, TERN_E_ARG, "sync with ticket %llu, which was never given",
                     (unsigned long long)ticket);
  if (ticket <= q->done) return check_flag(q);
  tern_rc rc;
  cl_event event = NULL;
  const bool all = ticket == q->last && atomic_load(&q->open) && timeout_ns == UINT64_MAX;
  if (!all) {
    pthread_mutex_lock(&q->lock);
    const cl_int err = event_of(q, ticket, &event);
    pthread_mutex_unlock(&q->lock);
    if (err != CL_SUCCESS) return ocl_queue_failed(q, "marking a ticket", err);
  }
  rc = timeout_ns == UINT64_MAX || !event ? wait_forever(q, event) : wait_event(q, event, timeout_ns);
  if (event) clReleaseEvent(event);
  if (rc) return rc;
  pthread_mutex_lock(&q->lock);
  if (all && !atomic_load(&q->open)) { /* another queue asked for an event meanwhile, and downloads were enqueued */
    const cl_int err = event_of(q, ticket, &event);
    pthread_mutex_unlock(&q->lock);
    rc = err == CL_SUCCESS ? wait_forever(q, event) : ocl_queue_failed(q, "marking a ticket", err);
    if (event) clReleaseEvent(event);
    if (rc) return rc;
    pthread_mutex_lock(&q->lock);
  } else if (all) {
    take_downloads(q);
  }
  if (ticket > q->done) q->done = ticket;
  drop(q, q->done);
  pthread_mutex_unlock(&q->lock);
  return check_flag(q);
}
