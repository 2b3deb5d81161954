/* Moving elements between strided memory and contiguous registers, by item size. */
#include "exec.h"
#include <string.h>
#if defined(__x86_64__)
#include <emmintrin.h>
#endif

/* Both directions step evenly: one of the two steps is the item size */
#define MOVE(type)                                                                                                   \
  static void move_##type(char *dst, int64_t to, const char *src, int64_t from, int64_t n) {                         \
    for (int64_t i = 0; i < n; i++) *(type *)(void *)(dst + i * to) = *(const type *)(const void *)(src + i * from); \
  }
MOVE(uint8_t)
MOVE(uint16_t)
MOVE(uint32_t)
MOVE(uint64_t)

static void move_items(char *dst, int64_t to, const char *src, int64_t from, size_t item, int64_t n) {
  switch (item) {
  case 1: move_uint8_t(dst, to, src, from, n); break;
  case 2: move_uint16_t(dst, to, src, from, n); break;
  case 4: move_uint32_t(dst, to, src, from, n); break;
  default: move_uint64_t(dst, to, src, from, n); break;
  }
}

void x_gather(char *dst, const char *src, int64_t stride, size_t item, int64_t n) {
  if (stride == (int64_t)item)
    memcpy(dst, src, (size_t)n * item);
  else
    move_items(dst, (int64_t)item, src, stride, item, n);
}

void x_scatter(char *dst, int64_t stride, const char *src, size_t item, int64_t n) {
  if (stride == (int64_t)item)
    memcpy(dst, src, (size_t)n * item);
  else
    move_items(dst, stride, src, (int64_t)item, item, n);
}

void x_fill(char *dst, int64_t stride, const char *src, size_t item, int64_t n) {
  char one[8]; /* src may lie inside dst */
  memcpy(one, src, item);
  if (item == 1 && stride == 1)
    memset(dst, one[0], (size_t)n);
  else
    move_items(dst, stride, one, 0, item, n);
}

void x_spread(char *dst, const char *src, size_t item, int64_t n) { x_fill(dst, (int64_t)item, src, item, n); }

/* ---- transposing: squares of 16 x 16 through a buffer in L1, each line of src and of dst touched once a square ----
   */

enum { SQUARE = 16 };

/* One line of a square to memory, past the cache: 64-byte pieces of an aligned dst */
static void stream_line(char *dst, const char *src, size_t bytes) {
#if defined(__x86_64__)
  for (size_t i = 0; i < bytes; i += 16)
    _mm_stream_si128((__m128i *)(void *)(dst + i), _mm_load_si128((const __m128i *)(const void *)(src + i)));
#else
  memcpy(dst, src, bytes);
#endif
}

typedef uint32_t quad __attribute__((vector_size(16), aligned(4), may_alias));

/* tile[x][y] = s[y][x]: 4 x 4 at a time with shuffles */
static void square_4(uint32_t tile[SQUARE][SQUARE], const uint32_t *s, int64_t ld) {
  for (int y = 0; y < SQUARE; y += 4)
    for (int x = 0; x < SQUARE; x += 4) {
      const uint32_t *const p = s + y * ld + x;
      const quad a = *(const quad *)p, b = *(const quad *)(p + ld), c = *(const quad *)(p + 2 * ld),
                 d = *(const quad *)(p + 3 * ld);
      const quad ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
      const quad AB = __builtin_shufflevector(a, b, 2, 6, 3, 7), CD = __builtin_shufflevector(c, d, 2, 6, 3, 7);
      *(quad *)&tile[x][y] = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
      *(quad *)&tile[x + 1][y] = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
      *(quad *)&tile[x + 2][y] = __builtin_shufflevector(AB, CD, 0, 1, 4, 5);
      *(quad *)&tile[x + 3][y] = __builtin_shufflevector(AB, CD, 2, 3, 6, 7);
    }
}

#define SQUARE_OF(type, size)                                                       \
  static void square_##size(type tile[SQUARE][SQUARE], const type *s, int64_t ld) { \
    for (int y = 0; y < SQUARE; y++)                                                \
      for (int x = 0; x < SQUARE; x++) tile[x][y] = s[y * ld + x];                  \
  }
SQUARE_OF(uint8_t, 1)
SQUARE_OF(uint16_t, 2)
SQUARE_OF(uint64_t, 8)

#define TRANSPOSE(type, size)                                                                                      \
  static void transpose_##size(type *d, int64_t dst_ld, const type *s, int64_t src_ld, int64_t rows, int64_t cols, \
                               bool stream) {                                                                      \
    _Alignas(64) type tile[SQUARE][SQUARE];                                                                        \
    for (int64_t j = 0; j < cols; j += SQUARE)                                                                     \
      for (int64_t i = 0; i < rows; i += SQUARE) {                                                                 \
        const int64_t h = rows - i < SQUARE ? rows - i : SQUARE, w = cols - j < SQUARE ? cols - j : SQUARE;        \
        const type *const from = s + i * src_ld + j;                                                               \
        if (h < SQUARE || w < SQUARE) {                                                                            \
          for (int64_t y = 0; y < h; y++)                                                                          \
            for (int64_t x = 0; x < w; x++) d[(j + x) * dst_ld + i + y] = from[y * src_ld + x];                    \
          continue;                                                                                                \
        }                                                                                                          \
        for (int64_t y = 0; y < SQUARE && i + SQUARE + y < rows; y++)                                              \
          __builtin_prefetch(from + (SQUARE + y) * src_ld);                                                        \
        square_##size(tile, from, src_ld);                                                                         \
        for (int x = 0; x < SQUARE; x++) {                                                                         \
          char *const to = (char *)(d + (j + x) * dst_ld + i);                                                     \
          if (stream)                                                                                              \
            stream_line(to, (const char *)tile[x], sizeof tile[x]);                                                \
          else                                                                                                     \
            memcpy(to, tile[x], sizeof tile[x]);                                                                   \
        }                                                                                                          \
      }                                                                                                            \
  }
TRANSPOSE(uint8_t, 1)
TRANSPOSE(uint16_t, 2)
TRANSPOSE(uint32_t, 4)
TRANSPOSE(uint64_t, 8)

void x_transpose(void *dst, int64_t dst_ld, const void *src, int64_t src_ld, int64_t rows, int64_t cols, size_t item,
                 bool stream) {
  const bool aligned = ((uintptr_t)dst | (uintptr_t)(dst_ld * (int64_t)item)) % 64 == 0;
  switch (item) {
  case 1: transpose_1(dst, dst_ld, src, src_ld, rows, cols, false); break;
  case 2: transpose_2(dst, dst_ld, src, src_ld, rows, cols, false); break;
  case 4: transpose_4(dst, dst_ld, src, src_ld, rows, cols, stream && aligned); break;
  default: transpose_8(dst, dst_ld, src, src_ld, rows, cols, stream && aligned); break;
  }
#if defined(__x86_64__)
  if (stream) _mm_sfence(); /* before another thread is told that it is done */
#endif
}
