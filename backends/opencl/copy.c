/* Copies and fills. A small upload is staged in host memory of the queue, so that the caller's bytes are free on
   return and nothing waits for the work before it; a large one goes by the transfer queue, or blocks. A download is
   filled by the next ticket. Where the device shares the host's memory, an upload to an idle queue and a download are
   copies by the host. */
#include "bundle.h"

#include <string.h>

static tern_rc check_range(const tern_dev *dev, const tern_mem *mem, uint64_t off, uint64_t size, const char *what) {
  if (off <= mem->size && size <= mem->size - off) return TERN_OK;
  return ocl_error(dev->drv, dev->id, TERN_E_ARG, "%s of %llu bytes at %llu of a buffer of %llu", what,
                   (unsigned long long)size, (unsigned long long)off, (unsigned long long)mem->size);
}

/* Room for `size` bytes in the staging memory; the half in use changes when it is full. */
static char *stage(tern_queue *q, uint32_t size, cl_int *err) {
  *err = CL_SUCCESS;
  if (q->stage_used + size > OCL_STAGE_HALF) {
    *err = clEnqueueMarkerWithWaitList(q->q, 0, NULL, &q->stage_busy[q->stage_half]);
    if (*err != CL_SUCCESS) return NULL;
    q->stage_half ^= 1;
    q->stage_used = 0;
    cl_event *busy = &q->stage_busy[q->stage_half];
    if (*busy) {
      *err = clWaitForEvents(1, busy);
      clReleaseEvent(*busy);
      *busy = NULL;
      if (*err != CL_SUCCESS) return NULL;
    }
  }
  char *p = q->stage.at + (size_t)q->stage_half * OCL_STAGE_HALF + q->stage_used;
  q->stage_used += (size + 63) & ~63u;
  if (q->stage_used > OCL_STAGE_HALF) q->stage_used = OCL_STAGE_HALF;
  return p;
}

static cl_int upload(tern_queue *q, const tern_copy *c) {
  cl_int err = CL_INVALID_OPERATION;
  if (q->dev->staged && c->size > OCL_STAGE_HALF) err = ocl_transfer_upload(q, c);
  if (err != CL_INVALID_OPERATION) return err;
  if (c->size > OCL_STAGE_HALF / 4)
    return clEnqueueWriteBuffer(q->q, c->dst->buffer, CL_TRUE, (size_t)c->dst_off, (size_t)c->size, c->host_src, 0,
                                NULL, NULL);
  char *p = stage(q, (uint32_t)c->size, &err);
  if (!p) return err;
  memcpy(p, c->host_src, (size_t)c->size);
  return clEnqueueWriteBuffer(q->q, c->dst->buffer, CL_FALSE, (size_t)c->dst_off, (size_t)c->size, p, 0, NULL, NULL);
}

tern_rc ocl_copy(tern_dev *dev, tern_queue *q, const tern_copy *c) {
  if (!ocl_alive()) return ocl_forked(dev->drv);
  if (c->flags) return ocl_error(dev->drv, dev->id, TERN_E_UNSUPPORTED, "unknown copy flags %#x", c->flags);
  if (!!c->src == !!c->host_src || !!c->dst == !!c->host_dst || (c->host_src && c->host_dst))
    return ocl_error(dev->drv, dev->id, TERN_E_ARG,
                     "a copy has one source and one destination, one of them on the device");
  if (c->src && c->src_dev && c->src_dev != dev) return TERN_E_UNSUPPORTED; /* the core goes through the host */
  if (!c->size) return TERN_OK;
  if (dev->collect) return ocl_collect_copy(dev, c);
  tern_rc rc = c->src ? check_range(dev, c->src, c->src_off, c->size, "copy from") : TERN_OK;
  if (!rc && c->dst) rc = check_range(dev, c->dst, c->dst_off, c->size, "copy to");
  if (!rc && c->src == c->dst && c->src_off < c->dst_off + c->size && c->dst_off < c->src_off + c->size) {
    if (c->src_off == c->dst_off) return TERN_OK;
    return ocl_error(dev->drv, dev->id, TERN_E_ARG, "source and destination of a copy overlap");
  }
  if (!rc && q->recording) return ocl_record_copy(dev, q, c);
  if (rc) return rc;
  if (c->host_dst && c->src->host) {
    const ocl_download d = {.buffer = c->src->buffer,
                            .host = c->src->host,
                            .to = c->host_dst,
                            .offset = (size_t)c->src_off,
                            .size = (size_t)c->size};
    return ocl_queue_download(q, &d);
  }
  if (c->host_src && c->dst->host && !q->failed && ocl_queue_idle(q)) {
    ocl_queue_copy_now(q, c->dst->host + c->dst_off, c->host_src, (size_t)c->size);
    return TERN_OK;
  }
  rc = ocl_queue_enter(q);
  if (rc) return rc;
  cl_int err;
  if (c->host_src) {
    err = upload(q, c);
  } else if (c->host_dst) {
    err = clEnqueueReadBuffer(q->q, c->src->buffer, CL_FALSE, (size_t)c->src_off, (size_t)c->size, c->host_dst, 0, NULL,
                              NULL);
  } else {
    err = clEnqueueCopyBuffer(q->q, c->src->buffer, c->dst->buffer, (size_t)c->src_off, (size_t)c->dst_off,
                              (size_t)c->size, 0, NULL, NULL);
  }
  ocl_use(q, c->src);
  ocl_use(q, c->dst);
  return err == CL_SUCCESS ? TERN_OK : ocl_queue_failed(q, "a copy", err);
}

tern_rc ocl_fill(tern_dev *dev, tern_queue *q, tern_mem *mem, uint64_t off, uint64_t size, const void *pat,
                 uint32_t pat_size) {
  if (!ocl_alive()) return ocl_forked(dev->drv);
  if (!pat_size || pat_size > 128 || (pat_size & (pat_size - 1)) || size % pat_size || off % pat_size)
    return ocl_error(
        dev->drv, dev->id, TERN_E_ARG,
        "a fill's pattern has 1, 2, 4 .. 128 bytes, and offset and size are multiples of it: pattern %u, offset %llu, "
        "size %llu",
        pat_size, (unsigned long long)off, (unsigned long long)size);
  if (!size) return TERN_OK;
  if (dev->collect) return ocl_collect_fill(mem, off, size, pat, pat_size);
  tern_rc rc = check_range(dev, mem, off, size, "fill");
  if (!rc && q->recording) return ocl_record_fill(dev, q, mem, off, size, pat, pat_size);
  if (!rc) rc = ocl_queue_enter(q);
  if (rc) return rc;
  const cl_int err = clEnqueueFillBuffer(q->q, mem->buffer, pat, pat_size, (size_t)off, (size_t)size, 0, NULL, NULL);
  ocl_use(q, mem);
  return err == CL_SUCCESS ? TERN_OK : ocl_queue_failed(q, "a fill", err);
}
