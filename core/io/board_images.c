/* Pictures: pixels to bytes, bytes to PNG, all of them in one value, as tf.summary.image writes them: width, height,
   the files. */
#include "io/board.h"
#include "base/alloc.h"
#include "io/draft.h"
#include "tensor/dtype.h"
#include <stdio.h>
#include <stdlib.h>

enum { MOST = 16 };
#define PIXELS_MAX (INT64_C(1) << 28) /* bytes of all pictures together: what a record holds */

typedef struct pixels {
  tern_dtype dtype;
  unsigned char *at;
} pixels;

static tern_rc take(void *self, const void *data, size_t size) {
  pixels *p = self;
  const size_t item = tern__dtype_size[p->dtype];
  if (p->dtype == TERN_U8) {
    memcpy(p->at, data, size);
    p->at += size;
    return TERN_OK;
  }
  for (size_t i = 0; i < size; i += item) {
    const double x = tern__word_double(tern__load(p->dtype, (const char *)data + i), p->dtype);
    *p->at++ = x > 0 ? (unsigned char)(x < 1 ? x * 255 + 0.5 : 255) : 0; /* NaN is black */
  }
  return TERN_OK;
}

static tern_rc check_pictures(const tern_tensor *t) {
  char text[200];
  if (t->dtype != TERN_U8 && !tern__is_float((tern_dtype)t->dtype))
    return tern__fail(TERN_E_ARG, "board_images: pictures are uint8, or floats in [0, 1]; these are %s: tern_cast them",
                      tern_dtype_name((tern_dtype)t->dtype));
  if (t->rank != 4 || t->shape[0] < 1 || t->shape[1] < 1 || t->shape[2] < 1 || t->shape[3] < 1 || t->shape[3] > 4)
    return tern__fail(TERN_E_ARG,
                      "board_images: shape %s; pictures are [n, height, width, channels] with 1 to 4 channels",
                      tern__shape_text(text, t->rank, t->shape));
  const int64_t n = t->shape[0] < MOST ? t->shape[0] : MOST;
  if (t->numel / t->shape[0] > PIXELS_MAX / n)
    return tern__fail(TERN_E_ARG, "board_images: shape %s; the pictures of one step have at most 2^28 bytes together",
                      tern__shape_text(text, t->rank, t->shape));
  return TERN_OK;
}

/* strings: width, height, then room for n files, which the caller frees. */
static tern_rc make_files(const tern_tensor *t, int n, const unsigned char *bytes, ProtobufCBinaryData *strings) {
  const int64_t each = t->numel / t->shape[0];
  for (int i = 0; i < n; i++) {
    ProtobufCBinaryData *s = &strings[2 + i];
    s->data = tern__png("board_images", bytes + each * i, t->shape[1], t->shape[2], (int)t->shape[3], &s->len);
    if (!s->data) return tern__recorded();
  }
  return TERN_OK;
}

static tern_rc write_pictures(tern_board *b, const char *tag, int64_t step, tern_tensor *t, int n) {
  ProtobufCBinaryData strings[2 + MOST] = {{0}};
  char width[24], height[24];
  unsigned char *bytes = tern__calloc((size_t)(t->numel / t->shape[0]) * (size_t)n, 1);
  if (!bytes) return tern__fail(TERN_E_OOM, "board_images: out of host memory for %d pictures", n);
  pixels p = {(tern_dtype)t->dtype, bytes};
  tern_rc rc = tern__pieces_out(t, "board_images", take, &p);
  if (!rc) rc = make_files(t, n, bytes, strings);
  free(bytes);
  strings[0] = (ProtobufCBinaryData){.data = (uint8_t *)width};
  strings[0].len = (size_t)snprintf(width, sizeof width, "%lld", (long long)t->shape[2]);
  strings[1] = (ProtobufCBinaryData){.data = (uint8_t *)height};
  strings[1].len = (size_t)snprintf(height, sizeof height, "%lld", (long long)t->shape[1]);
  if (!rc) rc = tern__board_strings(b, "board_images", tag, step, "images", 3, strings, 2 + n);
  for (int i = 0; i < n; i++) free(strings[2 + i].data);
  return rc;
}

tern_rc tern_board_images(tern_board *b, const char *tag, int64_t step, tern_tensor *t) {
  tern_rc rc = tern__board_tensor(b, "board_images", &t);
  if (rc) return rc;
  TERN_SCOPE;
  tern_tensor *now = tern__snapshot(t);
  if (!now) return tern__recorded();
  rc = check_pictures(now);
  if (rc) return rc;
  if (now->shape[0] > MOST) { /* the first: a view of fewer */
    now->shape[0] = MOST;
    now->numel = now->numel / t->shape[0] * MOST;
  }
  return write_pictures(b, tag, step, now, (int)now->shape[0]);
}
