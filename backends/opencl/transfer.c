/* Large uploads to devices with memory of their own: pieces are copied into one of two halves of pinned memory while
   the other is on its way, on a queue beside the one that computes. The transfer waits for that queue only where work
   in flight uses the destination, and the queue's later work waits for the transfer, each by one event. */
#include "ocl.h"

#include <stdlib.h>

enum { HALF = 4 << 20 };
struct ocl_transfer {
  cl_command_queue q; /* NULL: there is none, and it was tried */
  ocl_pinned pinned;
  cl_event busy[2]; /* the last transfer out of each half */
  uint32_t half;
};

static struct ocl_transfer *transfer_of(tern_queue *q) {
  if (q->transfer) return q->transfer;
  tern_dev *dev = q->dev;
  struct ocl_transfer *t = q->transfer = calloc(1, sizeof *t);
  if (!t || ocl_pinned_open(dev, 2 * (size_t)HALF, &t->pinned)) return t;
  cl_int err;
  t->q = clCreateCommandQueue(dev->context, dev->id->device, 0, &err);
  if (err != CL_SUCCESS) {
    t->q = NULL;
    ocl_log(dev->drv, 2, "opencl:%s: no queue for transfers: %s", dev->id->alias, ocl_cl_name(err));
    ocl_pinned_close(dev, &t->pinned);
  }
  return t;
}

void ocl_transfer_close(tern_dev *dev, struct ocl_transfer *t) {
  if (!t) return;
  if (t->q) ocl_finish(dev, t->q);
  for (int i = 0; i < 2; i++)
    if (t->busy[i]) clReleaseEvent(t->busy[i]);
  ocl_pinned_close(dev, &t->pinned);
  if (t->q) clReleaseCommandQueue(t->q);
  free(t);
}

/* What the first piece has to wait for: an event after all work that may use the destination, or NULL. Another queue's
   work, too, where this one was told to wait for it. */
static cl_int work_before(tern_queue *q, const tern_mem *dst, cl_event *out) {
  *out = NULL;
  const tern_queue *user = atomic_load(&dst->user);
  if (!user || (user == q && atomic_load(&dst->used) <= q->done && q->waits <= q->done)) return CL_SUCCESS;
  const cl_int err = clEnqueueMarkerWithWaitList(q->q, 0, NULL, out);
  return err == CL_SUCCESS ? clFlush(q->q) : err;
}

static cl_int wait_half(struct ocl_transfer *t) {
  cl_event *busy = &t->busy[t->half];
  if (!*busy) return CL_SUCCESS;
  const cl_int err = clWaitForEvents(1, busy);
  clReleaseEvent(*busy);
  *busy = NULL;
  return err;
}

static cl_int send(struct ocl_transfer *t, const tern_copy *c, cl_event before) {
  for (uint64_t at = 0; at < c->size; at += HALF) {
    const size_t n = (size_t)(c->size - at < HALF ? c->size - at : HALF);
    char *p = t->pinned.at + (size_t)t->half * HALF;
    cl_int err = wait_half(t);
    if (err != CL_SUCCESS) return err;
    memcpy(p, (const char *)c->host_src + at, n);
    err = clEnqueueWriteBuffer(t->q, c->dst->buffer, CL_FALSE, (size_t)(c->dst_off + at), n, p, before ? 1 : 0,
                               before ? &before : NULL, &t->busy[t->half]);
    if (err == CL_SUCCESS) err = clFlush(t->q);
    if (err != CL_SUCCESS) return err;
    before = NULL; /* this queue is in order, too */
    t->half ^= 1;
  }
  return CL_SUCCESS;
}

cl_int ocl_transfer_upload(tern_queue *q, const tern_copy *c) {
  struct ocl_transfer *t = transfer_of(q);
  if (!t || !t->q) return CL_INVALID_OPERATION;
  cl_event before;
  cl_int err = work_before(q, c->dst, &before);
  if (err == CL_SUCCESS) err = send(t, c, before);
  if (before) clReleaseEvent(before);
  if (err != CL_SUCCESS) return err;
  return clEnqueueBarrierWithWaitList(q->q, 1, &t->busy[t->half ^ 1], NULL);
}
