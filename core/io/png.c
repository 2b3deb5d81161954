/* PNG files (ISO/IEC 15948): signature, IHDR, one IDAT, IEND. Each row is filtered in the way whose bytes, taken as
   signed, have the smallest sum of sizes, as the standard recommends (clause 12.8). */
#include "base/alloc.h"
#include "io/board.h"
#include <stdlib.h>
#include <zlib.h>

enum { FILTERS = 5, AROUND = 8 + 25 + 12 + 12 /* bytes around the compressed rows */ };

static unsigned char *put32(unsigned char *p, uint32_t v) {
  for (int i = 0; i < 4; i++) p[i] = (unsigned char)(v >> (24 - 8 * i));
  return p + 4;
}

/* Length and type before, checksum of type and data behind `size` bytes that stand at p + 8. Returns what follows. */
static unsigned char *chunk(unsigned char *p, const char *type, size_t size) {
  put32(p, (uint32_t)size);
  memcpy(p + 4, type, 4);
  return put32(p + 8 + size, (uint32_t)crc32_z(crc32_z(0, NULL, 0), p + 4, size + 4));
}

/* The neighbour (left, above, left above) that is nearest to left + above - corner (clause 9.4). */
static int paeth(int left, int above, int corner) {
  const int a = abs(above - corner), b = abs(left - corner), c = abs(left + above - 2 * corner);
  return a <= b && a <= c ? left : b <= c ? above : corner;
}

/* Row `now` filtered in way `filter` into out; the row above may be NULL. Returns the sum of sizes. */
static uint64_t filtered(int filter, const unsigned char *now, const unsigned char *above, size_t size, size_t step,
                         unsigned char *out) {
  uint64_t sum = 0;
  for (size_t i = 0; i < size; i++) {
    const int left = i >= step ? now[i - step] : 0, up = above ? above[i] : 0,
              corner = above && i >= step ? above[i - step] : 0;
    const int guess[FILTERS] = {0, left, up, (left + up) / 2, filter == 4 ? paeth(left, up, corner) : 0};
    out[i] = (unsigned char)(now[i] - guess[filter]);
    sum += out[i] < 128 ? out[i] : 256u - out[i];
  }
  return sum;
}

/* All rows, each behind the number of its filter. spare: a row. */
static void filter_rows(const unsigned char *pixels, size_t rows, size_t size, size_t step, unsigned char *out,
                        unsigned char *spare) {
  for (size_t y = 0; y < rows; y++, out += size + 1) {
    const unsigned char *now = pixels + y * size, *above = y ? now - size : NULL;
    uint64_t least = UINT64_MAX;
    for (int filter = 0; filter < FILTERS; filter++) {
      const uint64_t sum = filtered(filter, now, above, size, step, spare);
      if (sum >= least) continue;
      least = sum;
      out[0] = (unsigned char)filter;
      memcpy(out + 1, spare, size);
    }
  }
}

unsigned char *tern__png(const char *op, const unsigned char *pixels, int64_t height, int64_t width, int channels,
                         size_t *size) {
  static const unsigned char signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'}, colours[4] = {0, 4, 2, 6};
  const size_t step = (size_t)channels, row = (size_t)width * step, raw = (row + 1) * (size_t)height;
  const uLong bound = compressBound(raw);
  unsigned char *rows = tern__calloc(raw + row, 1), *file = tern__calloc(AROUND + bound, 1), *p = file;
  uLongf packed = bound;
  int rc = Z_MEM_ERROR;
  if (rows && file) {
    filter_rows(pixels, (size_t)height, row, step, rows, rows + raw);
    memcpy(p, signature, 8);
    put32(put32(p + 16, (uint32_t)width), (uint32_t)height);
    p[24] = 8; /* bits a channel */
    p[25] = colours[channels - 1];
    p = chunk(p + 8, "IHDR", 13);
    rc = compress2(p + 8, &packed, rows, raw, Z_DEFAULT_COMPRESSION);
  }
  free(rows);
  if (rc != Z_OK) {
    free(file);
    tern__fail(TERN_E_OOM, "%s: out of host memory for a picture of %lld x %lld", op, (long long)width,
               (long long)height);
    return NULL;
  }
  p = chunk(chunk(p, "IDAT", packed), "IEND", 0);
  *size = (size_t)(p - file);
  return file;
}
