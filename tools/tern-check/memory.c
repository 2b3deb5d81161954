/* Memory, copies, queues, and what a device must refuse. */
#include "check.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned char pattern(uint64_t i, unsigned seed) { return (unsigned char)((i * 2654435761u >> 7) + i + seed); }

/* A part of a block is at the block's address plus its offset. */
static void check_map_offset(device *d, report *r, tern_mem *mem, uint64_t size, const void *base) {
  const uint64_t offsets[] = {64, 3, size - 1};
  for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
    if (offsets[i] >= size) continue;
    void *at = NULL;
    error_clear();
    const tern_rc rc = d->api->mem_map(d->dev, mem, offsets[i], size - offsets[i], 1, &at);
    if (!expect(r, !rc, "memory: map", "mem_map at offset %llu: %s: %s", (unsigned long long)offsets[i], rc_name(rc),
                said()))
      return;
    expect(r, at == (const char *)base + offsets[i], "memory: map",
           "mem_map at offset %llu of a block at %p answers %p; it must be the sum", (unsigned long long)offsets[i],
           base, at);
    if (d->api->mem_unmap) d->api->mem_unmap(d->dev, mem, at);
  }
}

/* One block: written, read back, looked at through its address where there is one. */
static void check_block(device *d, report *r, uint64_t size) {
  tern_mem *mem;
  tern_rc rc = dev_alloc(d, size, &mem);
  if (!expect(r, !rc, "memory: alloc", "%llu bytes: %s: %s", (unsigned long long)size, rc_name(rc), said())) return;
  unsigned char *bytes = malloc(size), *back = malloc(size);
  if (bytes && back) {
    for (uint64_t i = 0; i < size; i++) bytes[i] = pattern(i, 1);
    rc = dev_upload(d, d->queue, mem, 0, bytes, size);
    memset(back, 0, size);
    if (!rc) rc = dev_download(d, d->queue, back, mem, 0, size);
    expect(r, !rc, "memory: copy", "%llu bytes to the device and back: %s: %s", (unsigned long long)size, rc_name(rc),
           said());
    if (!rc)
      expect(r, !memcmp(bytes, back, size), "memory: copy", "%llu bytes come back changed", (unsigned long long)size);
  }
  void *at = NULL;
  if (d->info.flags & TERN_DEV_HOST_MEM && bytes) {
    rc = d->api->mem_map(d->dev, mem, 0, size, 1, &at);
    const uint64_t align = d->info.mem_align > 64 ? d->info.mem_align : 64;
    if (expect(r, !rc && at, "memory: map", "mem_map of HOST_MEM memory: %s: %s", rc_name(rc), said())) {
      expect(r, (uintptr_t)at % align == 0, "memory: alignment", "%llu bytes at %p, which is no multiple of %llu",
             (unsigned long long)size, at, (unsigned long long)align);
      expect(r, !memcmp(at, bytes, size), "memory: map", "what mem_map shows is not what was copied");
      check_map_offset(d, r, mem, size, at);
      if (d->api->mem_unmap) d->api->mem_unmap(d->dev, mem, at);
    }
  }
  free(bytes);
  free(back);
  dev_free(d, mem);
}

/* An alignment of 0 means 64. */
static void check_default_alignment(device *d, report *r) {
  static const char *const name = "memory: alignment";
  union {
    tern_mem_desc it;
    unsigned char bytes[1024];
  } want;
  memset(&want, 0, sizeof want);
  want.it = (tern_mem_desc){.struct_size = sizeof want.it, .size = 100};
  tern_mem *mem = NULL;
  void *at = NULL;
  error_clear();
  tern_rc rc = d->api->mem_alloc(d->dev, &want.it, &mem);
  if (!expect(r, !rc, name, "100 bytes with align 0: %s: %s", rc_name(rc), said())) return;
  if (d->info.flags & TERN_DEV_HOST_MEM) {
    rc = d->api->mem_map(d->dev, mem, 0, want.it.size, 1, &at);
    expect(r, !rc && (uintptr_t)at % 64 == 0, name, "align 0 means 64: %s, at %p", rc_name(rc), at);
    if (!rc && d->api->mem_unmap) d->api->mem_unmap(d->dev, mem, at);
  }
  d->api->mem_free(d->dev, mem);
}

static void check_blocks(device *d, report *r) {
  static const uint64_t sizes[] = {1, 2, 3, 63, 64, 65, 4095, 4096, 4097, (1 << 20) + 1, 64 << 20};
  static const char *const names[] = {"memory: alloc", "memory: copy", "memory: map", "memory: alignment"};
  bool any = false;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) any = wanted(r, names[i]) || any;
  if (!any) return;
  report_current("memory: alloc, copy, map, alignment");
  check_default_alignment(d, r);
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    if (!d->info.max_alloc || sizes[i] <= d->info.max_alloc)
      check_block(d, r, r->opt->quick && sizes[i] > 8 << 20 ? 8 << 20 : sizes[i]);
}

static void check_huge(device *d, report *r) {
  if (!report_begin_check(r, "memory: too much")) return;
  tern_mem *mem = NULL;
  const uint64_t size = UINT64_C(1) << 60;
  const tern_rc rc = dev_alloc(d, size, &mem);
  if (!rc) dev_free(d, mem);
  expect(r, rc == TERN_E_OOM, "memory: too much", "2^60 bytes: %s; it must be TERN_E_OOM", rc_name(rc));
  if (rc) expect(r, *last_error(), "memory: too much", "2^60 bytes: it failed without a message (host->error)");
}

/* Copies of odd sizes at odd offsets, in both directions and within the device, against a mirror in host memory. */
static void check_copies(device *d, report *r) {
  enum { SIZE = 8192 };
  static const char *const name = "memory: odd copies";
  if (!report_begin_check(r, name)) return;
  unsigned char *mirror = calloc(2, SIZE), *part = malloc(SIZE);
  tern_mem *mem[2] = {NULL, NULL};
  tern_rc rc = dev_alloc(d, SIZE, &mem[0]);
  if (!rc) rc = dev_alloc(d, SIZE, &mem[1]);
  for (int i = 0; i < 2 && !rc; i++) rc = mirror ? dev_upload(d, d->queue, mem[i], 0, mirror, SIZE) : TERN_E_OOM;
  for (unsigned k = 0; k < 60 && !rc && mirror && part; k++) {
    const uint64_t size = 1 + (k * 337u + 11) % 2001, from = (k * 911u + 3) % (SIZE - size),
                   to = (k * 577u + 1) % (SIZE - size);
    unsigned char *const a = mirror + (k & 1 ? SIZE : 0), *const b = mirror + (k & 1 ? 0 : SIZE);
    if (k % 3 == 0) {
      for (uint64_t i = 0; i < size; i++) part[i] = pattern(i, k);
      memcpy(a + to, part, size);
      rc = dev_upload(d, d->queue, mem[k & 1], to, part, size);
      memset(part, 0xee, size); /* consumed on return */
    } else if (k % 3 == 1) {
      memcpy(b + to, a + from, size);
      rc = dev_move(d, d->queue, mem[!(k & 1)], to, mem[k & 1], from, size, k & 2 ? d->dev : NULL);
    } else {
      rc = dev_download(d, d->queue, part, mem[k & 1], from, size);
      if (!rc && !expect(r, !memcmp(part, a + from, size), name, "step %u: %llu bytes at %llu differ", k,
                         (unsigned long long)size, (unsigned long long)from))
        break;
    }
  }
  for (int i = 0; i < 2 && !rc && part; i++) {
    rc = dev_download(d, d->queue, part, mem[i], 0, SIZE);
    if (!rc) expect(r, !memcmp(part, mirror + (i ? SIZE : 0), SIZE), name, "block %d differs at the end", i);
  }
  expect(r, !rc, name, "%s: %s", rc_name(rc), said());
  for (int i = 0; i < 2; i++)
    if (mem[i]) dev_free(d, mem[i]);
  free(mirror);
  free(part);
}

/* src_off and dst_off belong to src and dst: beside a host pointer they mean nothing. */
static void check_host_offsets(device *d, report *r) {
  static const char *const name = "memory: host copies";
  if (!report_begin_check(r, name)) return;
  union {
    tern_copy it;
    unsigned char bytes[1024];
  } c;
  unsigned char from[128], to[128] = {0};
  for (unsigned i = 0; i < sizeof from; i++) from[i] = (unsigned char)(i + 1);
  memset(&c, 0, sizeof c);
  c.it = (tern_copy){.struct_size = sizeof c.it, .dst = d->image, .host_src = from, .src_off = 64, .size = 64};
  error_clear();
  tern_rc rc = d->api->copy(d->dev, d->queue, &c.it);
  c.it = (tern_copy){.struct_size = sizeof c.it, .src = d->image, .host_dst = to, .dst_off = 64, .size = 64};
  if (!rc) rc = d->api->copy(d->dev, d->queue, &c.it);
  if (!rc) rc = dev_wait(d, d->queue);
  if (!expect(r, !rc, name, "src_off beside host_src, dst_off beside host_dst: %s: %s", rc_name(rc), said())) return;
  expect(r, !memcmp(to, from, 64), name,
         "64 bytes come back changed or elsewhere: src_off beside host_src and dst_off beside host_dst mean nothing");
}

/* One fill of n bytes at off; odd: off or n is no multiple of the pattern, which a device may refuse. */
static bool fill_once(device *d, report *r, uint64_t off, uint64_t n, uint32_t size, bool odd) {
  static const char *const name = "memory: fill";
  unsigned char bytes[16], want[4096], got[4096];
  for (uint32_t i = 0; i < 16; i++) bytes[i] = (unsigned char)(17 * i + size);
  memset(want, 0x5a, sizeof want);
  tern_rc rc = dev_upload(d, d->queue, d->image, 0, want, sizeof want);
  for (uint64_t i = 0; i < n; i++) want[off + i] = bytes[i % size];
  error_clear();
  if (!rc) {
    rc = d->api->fill(d->dev, d->queue, d->image, off, n, bytes, size);
    if (odd && (rc == TERN_E_UNSUPPORTED || rc == TERN_E_ARG)) return true;
  }
  if (!rc) rc = dev_download(d, d->queue, got, d->image, 0, sizeof got);
  if (!expect(r, !rc, name, "%llu bytes at %llu with a pattern of %u: %s: %s", (unsigned long long)n,
              (unsigned long long)off, size, rc_name(rc), said()))
    return false;
  uint64_t k = 0;
  while (k < sizeof got && want[k] == got[k]) k++;
  return expect(r, k == sizeof got, name,
                "%llu bytes at %llu with a pattern of %u: byte %llu is %#x, not %#x; the pattern begins at the offset",
                (unsigned long long)n, (unsigned long long)off, size, (unsigned long long)k,
                k < sizeof got ? got[k] : 0u, k < sizeof got ? want[k] : 0u);
}

static void check_fill(device *d, report *r) {
  if (!report_begin_check(r, "memory: fill")) return;
  if (!d->api->fill) {
    report_skip(r, "memory: fill", "the table has no fill");
    return;
  }
  for (uint32_t size = 1; size <= 16; size++) {
    const bool power = !(size & (size - 1));
    const uint64_t bytes = 101 * size;
    if (!fill_once(d, r, 3 * size, bytes, size, !power)) return;
    if (!fill_once(d, r, 3 * size + size / 2 + 1, bytes, size, size > 1)) return;
    if (!fill_once(d, r, 64 + 7, bytes + size / 2, size, size > 1)) return;
  }
}

static void check_import(device *d, report *r) {
  if (!report_begin_check(r, "memory: import")) return;
  union {
    tern_mem_desc it;
    unsigned char bytes[1024];
  } want;
  memset(&want, 0, sizeof want);
  enum { BYTES = 4096 };
  unsigned char *host = aligned_alloc(BYTES, BYTES), back[BYTES] = {0};
  if (!host) return;
  memset(host, 7, BYTES);
  want.it = (tern_mem_desc){.struct_size = sizeof want.it, .size = BYTES, .align = 64, .host_ptr = host};
  tern_mem *mem = NULL;
  const tern_rc rc = d->api->mem_alloc(d->dev, &want.it, &mem);
  if (!(d->info.flags & TERN_DEV_IMPORT_HOST)) {
    expect(r, rc == TERN_E_UNSUPPORTED, "memory: import",
           "host_ptr without the flag IMPORT_HOST: %s; it must be TERN_E_UNSUPPORTED", rc_name(rc));
  } else if (expect(r, !rc, "memory: import", "host_ptr: %s: %s", rc_name(rc), said())) {
    const tern_rc copied = dev_download(d, d->queue, back, mem, 0, BYTES);
    expect(r, !copied && !memcmp(back, host, BYTES), "memory: import", "imported bytes read back wrong");
  }
  if (!rc) d->api->mem_free(d->dev, mem);
  free(host);
}

static void check_many(device *d, report *r) {
  if (!report_begin_check(r, "memory: many blocks")) return;
  tern_mem *mem[64] = {NULL};
  tern_rc rc = TERN_OK;
  int n = 0;
  while (n < 64 && !rc) {
    rc = dev_alloc(d, 1 + (uint64_t)n * 97 % 5000, &mem[n]);
    if (!rc) n++;
  }
  bool distinct = true;
  for (int i = 0; i < n; i++)
    for (int j = 0; j < i; j++) distinct = distinct && mem[i] != mem[j];
  expect(r, !rc && distinct, "memory: many blocks", "64 blocks at once: %s", rc ? rc_name(rc) : "two have one handle");
  for (int i = 0; i < n; i += 2) dev_free(d, mem[i]);
  for (int i = 1; i < n; i += 2) dev_free(d, mem[i]);
}

void check_memory(device *d, report *r) {
  check_blocks(d, r);
  check_huge(d, r);
  check_copies(d, r);
  check_host_offsets(d, r);
  check_fill(d, r);
  check_import(d, r);
  check_many(d, r);
}

/* ---- queues ---- */

static void check_tickets(device *d, report *r) {
  static const char *const name = "queue: tickets";
  if (!report_begin_check(r, name) || !d->queue) return; /* no ASYNC, or nothing left after failures */
  uint64_t ticket[3] = {0};
  unsigned char bytes[512] = {1};
  tern_rc rc = TERN_OK;
  for (int i = 0; i < 3 && !rc; i++) {
    rc = dev_upload(d, d->queue, d->image, 512 * (uint64_t)i, bytes, sizeof bytes);
    if (!rc) rc = d->api->queue_signal(d->dev, d->queue, &ticket[i]);
  }
  if (!expect(r, !rc, name, "%s: %s", rc_name(rc), said())) return;
  expect(r, ticket[0] < ticket[1] && ticket[1] < ticket[2], name, "tickets must increase: %llu, %llu, %llu",
         (unsigned long long)ticket[0], (unsigned long long)ticket[1], (unsigned long long)ticket[2]);
  rc = d->api->queue_sync(d->dev, d->queue, ticket[2], 0);
  expect(r, !rc || rc == TERN_E_TIMEOUT, name, "a poll answers TERN_OK or TERN_E_TIMEOUT, not %s", rc_name(rc));
  rc = d->api->queue_sync(d->dev, d->queue, ticket[2], UINT64_MAX);
  expect(r, !rc, name, "sync: %s: %s", rc_name(rc), said());
  for (int i = 0; i < 3; i++) {
    rc = d->api->queue_sync(d->dev, d->queue, ticket[i], 0);
    expect(r, !rc, name, "a poll for ticket %d, which has passed: %s", i, rc_name(rc));
  }
  rc = d->api->queue_sync(d->dev, d->queue, ticket[0], 1000000);
  expect(r, !rc, name, "a sync with a limit for a ticket that has passed: %s", rc_name(rc));
}

/* A second queue sees what the first did before a ticket. */
static void check_wait(device *d, report *r) {
  static const char *const name = "queue: wait";
  if (!report_begin_check(r, name) || !d->queue) return;
  enum { SIZE = 1 << 20 };
  tern_queue *other;
  if (d->info.max_queues == 1) return;
  tern_rc rc = dev_queue(d, &other);
  if (!expect(r, !rc, name, "a second queue (max_queues is %u): %s: %s", d->info.max_queues, rc_name(rc), said()))
    return;
  unsigned char *bytes = malloc(SIZE), *back = calloc(1, SIZE);
  for (int round = 0; round < 5 && bytes && back && !rc; round++) {
    uint64_t ticket = 0;
    for (uint64_t i = 0; i < SIZE; i++) bytes[i] = pattern(i, (unsigned)round);
    rc = dev_upload(d, d->queue, d->image, 0, bytes, SIZE);
    if (!rc) rc = d->api->queue_signal(d->dev, d->queue, &ticket);
    if (!rc) {
      const tern_rc waited = d->api->queue_wait(d->dev, other, d->queue, ticket);
      rc = waited == TERN_E_UNSUPPORTED ? d->api->queue_sync(d->dev, d->queue, ticket, UINT64_MAX) : waited;
    }
    if (!rc) rc = dev_move(d, other, d->image, 2 * SIZE, d->image, 0, SIZE, NULL);
    if (!rc) rc = dev_download(d, other, back, d->image, 2 * SIZE, SIZE);
    if (!rc && !expect(r, !memcmp(bytes, back, SIZE), name, "round %d: a queue that waited read old bytes", round))
      break;
  }
  expect(r, !rc, name, "%s: %s", rc_name(rc), said());
  dev_queue_close(d, other);
  free(bytes);
  free(back);
}

void check_queues(device *d, report *r) {
  if (!(d->info.flags & TERN_DEV_ASYNC)) {
    if (wanted(r, "queue: tickets") || wanted(r, "queue: wait") || wanted(r, "queue: open and close"))
      report_skip(r, "queue", "the device has no queues (TERN_DEV_ASYNC)");
    return;
  }
  check_tickets(d, r);
  check_wait(d, r);
  if (!report_begin_check(r, "queue: open and close") || !d->queue) return;
  tern_rc rc = TERN_OK;
  for (int i = 0; i < 20 && !rc && d->info.max_queues != 1; i++) {
    tern_queue *q;
    rc = dev_queue(d, &q);
    if (!rc) dev_queue_close(d, q);
  }
  expect(r, !rc, "queue: open and close", "20 times: %s: %s", rc_name(rc), said());
}

/* ---- what must be refused ---- */

static bool make_add(const void *context, problem *p) {
  (void)context;
  memset(p, 0, sizeof *p);
  for (int i = 0; i < MAX_OPERANDS; i++) p->arg[i] = (operand){.alias = -1, .same_as = ONE};
  p->op = TERN_OP_ADD;
  p->n_in = 2;
  p->n_out = p->n_space = p->n_sizes = 1;
  p->size[0] = 8;
  for (int i = 0; i < 3; i++) operand_dense(p, i, i < 2 ? TERN_V_IN : TERN_V_OUT, TERN_F32, 0);
  canonicalise(p);
  return true;
}

void check_refusals(device *d, report *r) {
  static const char *const name = "refusals";
  if (!report_begin_check(r, name)) return;
  problem p;
  builder *b = calloc(1, sizeof *b);
  for (int k = 0; k < 4 && b; k++) {
    static const char *const what[] = {"an unknown primitive", "an unknown dtype",
                                       "a packed layout that nobody asked for", "an unknown kind of value"};
    make_add(NULL, &p);
    build(b, &p);
    if (k == 0) b->node[0].op = 30000;
    if (k == 1)
      for (uint32_t v = 0; v < b->region.n_values; v++) b->value[v].dtype = 99;
    if (k == 2)
      for (uint32_t v = 0; v < b->region.n_values; v++) b->value[v].layout = 0xabcdef;
    if (k == 3) b->value[0].kind = 77;
    uint32_t fixed = 0;
    error_clear();
    const tern_rc rc = d->api->supports(d->dev, &b->region, &fixed);
    expect(r, rc == TERN_E_UNSUPPORTED, name, "supports of a region with %s answers %s; it must be TERN_E_UNSUPPORTED",
           what[k], rc_name(rc));
  }
  free(b);
  union {
    tern_mem_desc it;
    unsigned char bytes[1024];
  } want;
  memset(&want, 0, sizeof want);
  want.it = (tern_mem_desc){.struct_size = sizeof want.it, .size = 64, .align = 64, .flags = 1u << 31};
  tern_mem *mem = NULL;
  tern_rc rc = d->api->mem_alloc(d->dev, &want.it, &mem);
  if (!rc) d->api->mem_free(d->dev, mem);
  expect(r, rc == TERN_E_UNSUPPORTED, name, "mem_alloc with an unknown flag: %s; it must be TERN_E_UNSUPPORTED",
         rc_name(rc));
  union {
    tern_copy it;
    unsigned char bytes[1024];
  } copy;
  memset(&copy, 0, sizeof copy);
  unsigned char bytes[64] = {0};
  copy.it = (tern_copy){
      .struct_size = sizeof copy.it, .flags = 1u << 31, .dst = d->image, .host_src = bytes, .size = sizeof bytes};
  rc = d->api->copy(d->dev, d->queue, &copy.it);
  expect(r, rc == TERN_E_UNSUPPORTED, name, "copy with an unknown flag: %s; it must be TERN_E_UNSUPPORTED",
         rc_name(rc));
}
