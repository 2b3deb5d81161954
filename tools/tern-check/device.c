/* One device under test: every call in the block that the ABI promises, with a count of what is open. */
#include "check.h"
#include <stdlib.h>
#include <string.h>

#define BLOCK(type, name)        \
  union {                        \
    type it;                     \
    unsigned char bytes[1024];   \
  } name;                        \
  memset(&name, 0, sizeof name); \
  name.it.struct_size = sizeof(type)

static bool ends(const char *text, size_t size) { return memchr(text, 0, size) != NULL; }

bool device_describe(subject *s, report *r, uint32_t i, tern_device_info *info, bool *end) {
  union {
    tern_device_info it;
    unsigned char bytes[2048];
  } block;
  memset(&block, 0, sizeof block);
  block.it.struct_size = sizeof block.it;
  report_current("device_info");
  error_clear();
  const tern_rc rc = s->api.device_info(s->driver, i, &block.it);
  *end = rc == TERN_E_END;
  if (*end) return false;
  *info = block.it;
  if (!expect(r, !rc, "device_info", "device %u: %s: %s", i, rc_name(rc), said())) return false;
  bool clean = true;
  for (size_t k = 1024; k < sizeof block; k++) clean = clean && !block.bytes[k];
  expect(r, clean, "device_info", "device %u: it wrote past the 1 KiB block that the host promises", i);
  const bool text = ends(info->name, sizeof info->name) && ends(info->desc, sizeof info->desc) &&
                    ends(info->id, sizeof info->id) && ends(info->features, sizeof info->features);
  if (!expect(r, text, "device_info", "device %u: name, desc, id or features is not terminated", i)) return false;
  expect(r, *info->name && *info->desc, "device_info", "device %u: name or desc is empty", i);
  expect(r, info->kind && info->kind <= TERN_KIND_FPGA, "device_info",
         "device %u: kind %u does not exist; set one of TERN_KIND_*", i, info->kind);
  expect(r, !(info->mem_align & (info->mem_align - 1)), "device_info", "device %u: mem_align %u is no power of two", i,
         info->mem_align);
  if (!expect(r, !(info->flags & TERN_DEV_HOST_MEM) || s->api.mem_map, "device_info",
              "device %u: HOST_MEM without mem_map; the rest is tested as without HOST_MEM", i))
    info->flags &= ~(uint64_t)TERN_DEV_HOST_MEM;
  const tern_backend *a = &s->api;
  const bool queues = a->queue_open && a->queue_close && a->queue_signal && a->queue_wait && a->queue_sync;
  return expect(r, !(info->flags & TERN_DEV_ASYNC) || queues, "device_info",
                "device %u: ASYNC without all queue functions; it cannot be tested further", i);
}

tern_rc device_start(device *d, subject *s, uint32_t i, const tern_device_info *info) {
  *d = (device){.s = s, .api = &s->api, .index = i, .info = *info};
  report_current("device_open");
  error_clear();
  tern_rc rc = d->api->device_open(s->driver, i, &d->dev);
  if (rc) return rc;
  if (info->flags & TERN_DEV_ASYNC) rc = dev_queue(d, &d->queue);
  if (!rc) rc = dev_alloc(d, IMAGE_BYTES, &d->image);
  if (rc) device_stop(d);
  return rc;
}

void device_stop(device *d) {
  report_current("device_close");
  if (d->queue) dev_queue_close(d, d->queue); /* first: after a failure it may still hold work */
  if (d->image) dev_free(d, d->image);
  if (d->workspace) dev_free(d, d->workspace);
  d->image = d->workspace = NULL;
  d->queue = NULL;
  d->api->device_close(d->dev);
}

tern_rc dev_alloc(device *d, uint64_t size, tern_mem **mem) {
  BLOCK(tern_mem_desc, want);
  want.it.size = size;
  want.it.align = d->info.mem_align > 64 ? d->info.mem_align : 64;
  *mem = NULL;
  error_clear();
  const tern_rc rc = d->api->mem_alloc(d->dev, &want.it, mem);
  if (!rc) d->live++;
  return rc;
}

void dev_free(device *d, tern_mem *mem) {
  d->api->mem_free(d->dev, mem);
  d->live--;
}

tern_rc dev_queue(device *d, tern_queue **queue) {
  *queue = NULL;
  error_clear();
  const tern_rc rc = d->api->queue_open(d->dev, 0, queue);
  if (!rc) d->live++;
  return rc;
}

void dev_queue_close(device *d, tern_queue *queue) {
  d->api->queue_close(d->dev, queue);
  d->live--;
}

/* After a failure, when no other queue could be opened. */
static bool lacks_queue(const device *d, const tern_queue *queue) { return (d->info.flags & TERN_DEV_ASYNC) && !queue; }

void dev_queue_renew(device *d) {
  if (!d->queue) return;
  dev_queue_close(d, d->queue);
  d->queue = NULL;
  if (!d->api->queue_open(d->dev, 0, &d->queue))
    d->live++; /* the message of the failure stays */
  else
    d->queue = NULL;
}

tern_rc dev_wait(device *d, tern_queue *queue) {
  if (!queue) return lacks_queue(d, queue) ? TERN_E_INTERNAL : TERN_OK;
  uint64_t ticket = 0;
  tern_rc rc = d->api->queue_signal(d->dev, queue, &ticket);
  if (!rc) rc = d->api->queue_sync(d->dev, queue, ticket, UINT64_MAX);
  if (rc && queue == d->queue) dev_queue_renew(d); /* what it still holds must not outlive the memory that it touches */
  return rc;
}

tern_rc dev_upload(device *d, tern_queue *queue, tern_mem *mem, uint64_t off, const void *from, uint64_t size) {
  BLOCK(tern_copy, c);
  c.it.dst = mem;
  c.it.dst_off = off;
  c.it.host_src = from;
  c.it.size = size;
  error_clear();
  return lacks_queue(d, queue) ? TERN_E_INTERNAL : d->api->copy(d->dev, queue, &c.it);
}

tern_rc dev_download(device *d, tern_queue *queue, void *to, tern_mem *mem, uint64_t off, uint64_t size) {
  BLOCK(tern_copy, c);
  c.it.src = mem;
  c.it.src_off = off;
  c.it.host_dst = to;
  c.it.size = size;
  error_clear();
  const tern_rc rc = lacks_queue(d, queue) ? TERN_E_INTERNAL : d->api->copy(d->dev, queue, &c.it);
  return rc ? rc : dev_wait(d, queue);
}

tern_rc dev_move(device *d, tern_queue *queue, tern_mem *to, uint64_t to_off, tern_mem *from, uint64_t from_off,
                 uint64_t size, tern_dev *from_dev) {
  BLOCK(tern_copy, c);
  c.it.src_dev = from_dev;
  c.it.dst = to;
  c.it.dst_off = to_off;
  c.it.src = from;
  c.it.src_off = from_off;
  c.it.size = size;
  error_clear();
  return lacks_queue(d, queue) ? TERN_E_INTERNAL : d->api->copy(d->dev, queue, &c.it);
}

tern_rc dev_compile(device *d, const tern_region *region, tern_kernel **kernel, uint64_t *workspace) {
  BLOCK(tern_kernel_info, info);
  uint64_t layout[2 * MAX_OPERANDS] = {0};
  info.it.layout = layout;
  info.it.layout_bytes = layout + MAX_OPERANDS;
  *kernel = NULL;
  error_clear();
  const tern_rc rc = d->api->compile(d->dev, region, kernel, &info.it);
  if (rc) return rc;
  d->live++;
  *workspace = info.it.workspace;
  return TERN_OK;
}

void dev_kernel_free(device *d, tern_kernel *kernel) {
  d->api->kernel_free(d->dev, kernel);
  d->live--;
}
