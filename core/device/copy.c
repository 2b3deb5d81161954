/* Raw bytes between the host and devices, and between devices (through the host when their plugins differ). */
#include "device/device.h"
#include "device/trace.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STAGE_BYTES (16u << 20)

typedef union {
  tern_copy copy;
  char block[1024];
} copy_block;

static tern_rc run(tern__device *d, copy_block *c, bool wait, const char *what) {
  c->copy.struct_size = sizeof c->copy;
  const uint64_t began = tern__tracing() ? tern__now_ns() : 0;
  tern__plugin_error_clear();
  tern__queue_lock(d);
  tern_rc rc = d->api->copy(d->dev, d->queue, &c->copy);
  if (!rc && wait && d->queue) rc = tern__queue_wait_held(d);
  tern__queue_unlock(d);
  if (began) {
    char args[64];
    snprintf(args, sizeof args, "\"bytes\":%llu", (unsigned long long)c->copy.size);
    tern__trace("transfer", what, d, 0, began, args);
  }
  return rc ? tern__device_failed(d, rc, what) : TERN_OK;
}

/* A ghost has no memory: whoever gets here with one did not ask first. */
static tern_rc ghost(const tern__storage *s) {
  if (TERN__LIKELY(!(s->flags & TERN__STORAGE_GHOST))) return TERN_OK;
  return tern__fail(TERN_E_ARG, "a symbolic tensor has no value to copy; run its graph first");
}

tern_rc tern__upload(tern__storage *dst, uint64_t offset, const void *src, uint64_t size) {
  if (!size) return TERN_OK;
  if (ghost(dst)) return TERN_E_ARG;
  tern__device *d = dst->device;
  if (dst->host && !d->queue) {
    memcpy(dst->host + offset, src, size);
    return TERN_OK;
  }
  copy_block c;
  memset(&c, 0, sizeof c);
  c.copy.dst = dst->mem;
  c.copy.dst_off = dst->mem_offset + offset;
  c.copy.host_src = src;
  c.copy.size = size;
  return run(d, &c, false, "copying to the device");
}

tern_rc tern__download(void *dst, tern__storage *src, uint64_t offset, uint64_t size) {
  if (!size) return TERN_OK;
  if (ghost(src)) return TERN_E_ARG;
  tern__device *d = src->device;
  if (src->host && !d->queue) {
    memcpy(dst, src->host + offset, size);
    return TERN_OK;
  }
  copy_block c;
  memset(&c, 0, sizeof c);
  c.copy.src = src->mem;
  c.copy.src_off = src->mem_offset + offset;
  c.copy.host_dst = dst;
  c.copy.size = size;
  return run(d, &c, true, "copying from the device");
}

tern_rc tern__download_begin(void *dst, tern__storage *src, uint64_t offset, uint64_t size, uint64_t *ticket) {
  tern__device *d = src->device;
  copy_block c;
  memset(&c, 0, sizeof c);
  c.copy.struct_size = sizeof c.copy;
  c.copy.src = src->mem;
  c.copy.src_off = src->mem_offset + offset;
  c.copy.host_dst = dst;
  c.copy.size = size;
  tern__plugin_error_clear();
  tern__queue_lock(d);
  tern_rc rc = d->api->copy(d->dev, d->queue, &c.copy);
  if (!rc) rc = d->api->queue_signal(d->dev, d->queue, ticket);
  tern__queue_unlock(d);
  return rc ? tern__device_failed(d, rc, "copying from the device") : TERN_OK;
}

static tern_rc through_host(tern__storage *dst, uint64_t dst_offset, tern__storage *src, uint64_t src_offset,
                            uint64_t size) {
  if (src->host && !src->device->queue) return tern__upload(dst, dst_offset, src->host + src_offset, size);
  if (dst->host && !dst->device->queue) return tern__download(dst->host + dst_offset, src, src_offset, size);
  const uint64_t piece = size < STAGE_BYTES ? size : STAGE_BYTES;
  void *stage = malloc(piece);
  if (!stage) return tern__fail(TERN_E_OOM, "out of host memory for a copy between devices");
  tern_rc rc = TERN_OK;
  for (uint64_t at = 0; at < size && !rc; at += piece) {
    const uint64_t n = size - at < piece ? size - at : piece;
    rc = tern__download(stage, src, src_offset + at, n);
    if (!rc) rc = tern__upload(dst, dst_offset + at, stage, n);
  }
  free(stage);
  return rc;
}

tern_rc tern__copy_bytes(tern__storage *dst, uint64_t dst_offset, tern__storage *src, uint64_t src_offset,
                         uint64_t size) {
  if (!size) return TERN_OK;
  if (ghost(src) || ghost(dst)) return TERN_E_ARG;
  tern__device *d = dst->device;
  if (src->device != d) return through_host(dst, dst_offset, src, src_offset, size);
  copy_block c;
  memset(&c, 0, sizeof c);
  c.copy.dst = dst->mem;
  c.copy.dst_off = dst->mem_offset + dst_offset;
  c.copy.src = src->mem;
  c.copy.src_off = src->mem_offset + src_offset;
  c.copy.size = size;
  return run(d, &c, false, "copying on the device");
}
