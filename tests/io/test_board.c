/* Event files, read back by a reader of our own: lengths, checksums, and the fields by protobuf-c's unpacking. What
   TensorBoard itself makes of them is in tests/interop/board.py. */
#include "base/alloc.h"
#include "io/board.h"
#include "support/values.h"
#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

static char folder[] = "/tmp/tern-board-XXXXXX";
static char path[600]; /* of the event file that was found last */

/* ---- reading ---- */

static uint64_t number(const unsigned char *p, int n) {
  uint64_t v = 0;
  for (int i = n - 1; i >= 0; i--) v = v << 8 | p[i];
  return v;
}

enum { MOST = 64 };
typedef struct events {
  Tern__Board__Event *event[MOST];
  int n;
  size_t torn; /* bytes behind the last whole record */
} events;

/* All records of a file's bytes. */
static events parse(const unsigned char *bytes, size_t size) {
  events e = {.n = 0};
  size_t at = 0;
  while (size - at >= 12 && e.n < MOST) {
    const uint64_t length = number(bytes + at, 8);
    CHECK(number(bytes + at + 8, 4) == tern__crc32c_masked(bytes + at, 8), "record %d: checksum of the length", e.n);
    if (length > size - at - 12 || size - at - 12 - length < 4) break;
    const unsigned char *data = bytes + at + 12;
    CHECK(number(data + length, 4) == tern__crc32c_masked(data, length), "record %d: checksum", e.n);
    e.event[e.n] = tern__board__event__unpack(NULL, length, data);
    CHECK(e.event[e.n] != NULL, "record %d is no event", e.n);
    if (!e.event[e.n]) break;
    CHECK(e.event[e.n]->has_wall_time && e.event[e.n]->wall_time > 1.5e9, "record %d: time", e.n);
    e.n++;
    at += 16 + length;
  }
  e.torn = size - at;
  return e;
}

/* The one event file in a folder, which is deleted. */
static events read_events(const char *where) {
  DIR *d = opendir(where);
  int found = 0;
  for (const struct dirent *e; d && (e = readdir(d));) {
    if (*e->d_name == '.') continue;
    found++;
    snprintf(path, sizeof path, "%s/%.300s", where, e->d_name);
    CHECK(!strncmp(e->d_name, "events.out.tfevents.", 20), "%s", e->d_name);
  }
  if (d) closedir(d);
  CHECK(found == 1, "%d files", found);
  FILE *file = fopen(path, "rb");
  unsigned char *bytes = malloc(1 << 22);
  const size_t size = file && bytes ? fread(bytes, 1, 1 << 22, file) : 0;
  const events e = parse(bytes, size);
  CHECK(e.torn == 0, "%zu bytes behind the records", e.torn);
  CHECK(e.n > 0 && e.event[0]->file_version && !strcmp(e.event[0]->file_version, "brain.Event:2"), "version");
  if (file) fclose(file);
  (void)unlink(path);
  free(bytes);
  return e;
}

static void free_events(events *e) {
  for (int i = 0; i < e->n; i++) tern__board__event__free_unpacked(e->event[i], NULL);
}

static const Tern__Board__Value *value_of(const events *e, int i, const char *tag, int64_t step) {
  static const Tern__Board__Value none = TERN__BOARD__VALUE__INIT;
  const Tern__Board__Event *event = i < e->n ? e->event[i] : NULL;
  const bool one = event && event->summary && event->summary->n_value == 1 && event->step == step;
  CHECK(one && !strcmp(event->summary->value[0]->tag, tag), "event %d is not %s at %lld", i, tag, (long long)step);
  return one ? event->summary->value[0] : &none;
}

/* ---- tests ---- */

static void test_checksums(void) { /* RFC 3720, appendix B.4; and the check value of CRC-32C in Koopman's tables */
  unsigned char bytes[32] = {0};
  CHECK(tern__crc32c(bytes, 32) == 0x8a9136aau, "zeros");
  memset(bytes, 255, 32);
  CHECK(tern__crc32c(bytes, 32) == 0x62a8ab43u, "ones");
  for (int i = 0; i < 32; i++) bytes[i] = (unsigned char)i;
  CHECK(tern__crc32c(bytes, 32) == 0x46dd794eu, "ascending");
  for (int i = 0; i < 32; i++) bytes[i] = (unsigned char)(31 - i);
  CHECK(tern__crc32c(bytes, 32) == 0x113fdb5cu, "descending");
  CHECK(tern__crc32c("123456789", 9) == 0xe3069283u, "123456789");
  CHECK(tern__crc32c("", 0) == 0, "nothing");
  const uint32_t crc = tern__crc32c("foo", 3);
  const uint32_t back = tern__crc32c_masked("foo", 3) - 0xa282ead8u;
  CHECK((back >> 17 | back << 15) == crc, "masked");
}

static void test_scalars(void) {
  tern_board *b = tern_board_open(folder), *other = tern_board_open(folder);
  CHECK(b && other, "%s", tern_error());
  CHECK(tern_board_close(other) == TERN_OK, "%s", tern_error());
  events two = {.n = 0};
  CHECK(tern_board_scalar(b, "loss", 0, 0) == TERN_OK && tern_board_scalar(b, "a/\303\251", -5, 2.5) == TERN_OK &&
            tern_board_scalar(b, "loss", INT64_MAX, NAN) == TERN_OK &&
            tern_board_scalar(b, "loss", 3, 1e300) == TERN_OK,
        "%s", tern_error());
  /* the other's file has the next number */
  DIR *d = opendir(folder);
  for (const struct dirent *e; d && (e = readdir(d));)
    if (strlen(e->d_name) > 3 && !strcmp(e->d_name + strlen(e->d_name) - 2, ".1")) {
      snprintf(path, sizeof path, "%s/%.300s", folder, e->d_name);
      two.n += unlink(path) == 0;
    }
  if (d) closedir(d);
  CHECK(two.n == 1, "%d second files", two.n);
  CHECK(tern_board_flush(b) == TERN_OK && tern_board_close(b) == TERN_OK, "%s", tern_error());
  events e = read_events(folder);
  CHECK(e.n == 5, "%d events", e.n);
  CHECK(value_of(&e, 1, "loss", 0)->has_simple_value && value_of(&e, 1, "loss", 0)->simple_value == 0, "0");
  CHECK(value_of(&e, 2, "a/\303\251", -5)->simple_value == 2.5f, "2.5");
  CHECK(isnan(value_of(&e, 3, "loss", INT64_MAX)->simple_value), "NaN");
  CHECK(isinf(value_of(&e, 4, "loss", 3)->simple_value), "1e300 as a float");
  free_events(&e);
  CHECK_NO_ERROR();
}

static void check_histogram(const Tern__Board__HistogramProto *h, double min, double max, double num, double sum,
                            size_t buckets) {
  double total = 0;
  CHECK(h && h->n_bucket == buckets && h->n_bucket_limit == buckets, "%zu buckets", h ? h->n_bucket : 0);
  if (!h) return;
  for (size_t i = 0; i < h->n_bucket; i++) total += h->bucket[i];
  CHECK(h->min == min && h->max == max && h->num == num && fabs(h->sum - sum) <= 1e-9 * fabs(sum) && total == num,
        "%g to %g, %g elements of sum %g, %g in buckets", h->min, h->max, h->num, h->sum, total);
  CHECK(!h->n_bucket || h->bucket_limit[h->n_bucket - 1] == max, "the last bucket's end");
}

static void test_histograms(void) {
  TERN_SCOPE;
  tern_board *b = tern_board_open(folder);
  tern_tensor *grid = tern_reshape(tern_arange(0, 5e6, 1, TERN_F32), TERN_SHAPE(1000, 5000));
  tern_tensor *t[] = {tern_f32(TERN_SHAPE(5), 0, 1, NAN, 30, INFINITY),
                      tern_transpose(grid),
                      tern_scalar(3),
                      tern_zeros(TERN_SHAPE(0), TERN_F32),
                      tern_f64(TERN_SHAPE(2), -1.7e308, 1.7e308),
                      tern_f64(TERN_SHAPE(2), 0, 5e-324),
                      tern_u8(TERN_SHAPE(3), 1, 2, 255),
                      tern_bool(TERN_SHAPE(3), 0, 1, 1)};
  for (int i = 0; i < 8; i++) CHECK(tern_board_histogram(b, "h", i, t[i]) == TERN_OK, "%d: %s", i, tern_error());
  CHECK(tern_board_close(b) == TERN_OK, "%s", tern_error());
  events e = read_events(folder);
  CHECK(e.n == 9, "%d events", e.n);
  const Tern__Board__HistogramProto *h = value_of(&e, 1, "h", 0)->histo;
  check_histogram(h, 0, 30, 3, 31, 30);
  CHECK(h->bucket[0] == 1 && h->bucket[1] == 1 && h->bucket[29] == 1 && h->bucket_limit[0] == 1 &&
            h->sum_squares == 901,
        "[0, 1), [1, 2), [29, 30]");
  h = value_of(&e, 2, "h", 1)->histo;
  check_histogram(h, 0, 4999999, 5e6, 4999999.0 * 2.5e6, 30);
  for (int i = 0; i < 30 && h; i++) CHECK(fabs(h->bucket[i] - 5e6 / 30) <= 1, "bucket %d has %g", i, h->bucket[i]);
  check_histogram(value_of(&e, 3, "h", 2)->histo, 3, 3, 1, 3, 1);
  check_histogram(value_of(&e, 4, "h", 3)->histo, 0, 0, 0, 0, 0);
  check_histogram(value_of(&e, 5, "h", 4)->histo, -1.7e308, 1.7e308, 2, 0, 30);
  check_histogram(value_of(&e, 6, "h", 5)->histo, 0, 5e-324, 2, 5e-324, 30);
  check_histogram(value_of(&e, 7, "h", 6)->histo, 1, 255, 3, 258, 30);
  check_histogram(value_of(&e, 8, "h", 7)->histo, 0, 1, 3, 2, 30);
  free_events(&e);
  CHECK_NO_ERROR();
}

/* The pixels of a PNG file of 8 bits a channel, unfiltered as the standard says; owned by the caller. */
static unsigned char *unpng(const ProtobufCBinaryData *file, size_t height, size_t row, size_t step, int colour) {
  static const unsigned char signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
  const unsigned char *p = file->data + 8, *end = file->data + file->len;
  uLongf size = (row + 1) * height;
  unsigned char *raw = malloc(size + 1), *out = calloc(height * row + 1, 1);
  int chunks = 0;
  CHECK(file->len > 8 && !memcmp(file->data, signature, 8), "no PNG");
  while (end - p >= 12) {
    const size_t n = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
    CHECK(n <= (size_t)(end - p) - 12, "a chunk of %zu bytes", n);
    const unsigned char *sum = p + 8 + n;
    CHECK(crc32(0, p + 4, (uInt)n + 4) == ((uLong)sum[0] << 24 | (uLong)sum[1] << 16 | (uLong)sum[2] << 8 | sum[3]),
          "chunk %d: checksum", chunks);
    if (!memcmp(p + 4, "IHDR", 4))
      CHECK(n == 13 && p[16] == 8 && p[17] == colour && p[15] == height && p[11] == row / step, "IHDR");
    if (!memcmp(p + 4, "IDAT", 4))
      CHECK(uncompress(raw, &size, p + 8, n) == Z_OK && size == (row + 1) * height, "IDAT");
    chunks++;
    p += n + 12;
  }
  CHECK(chunks == 3 && p == end && !memcmp(p - 8, "IEND", 4), "%d chunks", chunks);
  for (size_t y = 0; y < height; y++) {
    const unsigned char filter = raw[y * (row + 1)], *line = raw + y * (row + 1) + 1;
    for (size_t x = 0; x < row; x++) {
      const int a = x >= step ? out[y * row + x - step] : 0, b = y ? out[(y - 1) * row + x] : 0,
                c = y && x >= step ? out[(y - 1) * row + x - step] : 0;
      const int pa = abs(b - c), pb = abs(a - c), pc = abs(a + b - 2 * c);
      const int guess[5] = {0, a, b, (a + b) / 2, pa <= pb && pa <= pc ? a : pb <= pc ? b : c};
      CHECK(filter < 5, "filter %d", filter);
      out[y * row + x] = (unsigned char)(line[x] + guess[filter % 5]);
    }
  }
  free(raw);
  return out;
}

static void test_images(void) {
  TERN_SCOPE;
  static const int colours[] = {0, 4, 2, 6};
  tern_board *b = tern_board_open(folder);
  unsigned char pixels[20 * 6 * 5 * 4];
  uint64_t state = 1;
  for (size_t i = 0; i < sizeof pixels; i++)
    pixels[i] = (unsigned char)(i % 240 < 120 ? i / 2 : (unsigned)test_below(&state, 256));
  for (int c = 1; c <= 4; c++) {
    tern_tensor *t = tern_constant(TERN_SHAPE(20, 6, 5, c), TERN_U8, pixels, (size_t)(600 * c));
    CHECK(tern_board_images(b, "p", c, t) == TERN_OK, "%s", tern_error());
  }
  tern_tensor *floats = tern_f32(TERN_SHAPE(1, 1, 7, 1), 0, 1, 0.5, -3, 7, NAN, 0.1);
  CHECK(tern_board_images(b, "f", 0, floats) == TERN_OK, "%s", tern_error());
  CHECK(tern_board_images(b, "f", 0, tern_cast(floats, TERN_BF16)) == TERN_OK, "%s", tern_error());
  CHECK(tern_board_close(b) == TERN_OK, "%s", tern_error());
  events e = read_events(folder);
  for (int c = 1; c <= 4; c++) {
    const Tern__Board__Value *v = value_of(&e, c, "p", c);
    CHECK(v->metadata && !strcmp(v->metadata->plugin_data->plugin_name, "images") && v->metadata->data_class == 3,
          "metadata");
    const Tern__Board__TensorProto *t = v->tensor;
    CHECK(t && t->dtype == TERN__BOARD_STRING && t->n_string_val == 18 && t->tensor_shape->dim[0]->size == 18 &&
              t->string_val[0].len == 1 && *t->string_val[0].data == '5' && *t->string_val[1].data == '6',
          "16 of 20 pictures of 5 x 6");
    for (size_t i = 0; t && i < 16; i++) {
      unsigned char *got = unpng(&t->string_val[2 + i], 6, (size_t)(5 * c), (size_t)c, colours[c - 1]);
      CHECK(!memcmp(got, pixels + i * (size_t)(30 * c), (size_t)(30 * c)), "picture %zu of %d channels", i, c);
      free(got);
    }
  }
  static const unsigned char expected[] = {0, 255, 128, 0, 255, 0, 26};
  for (int i = 5; i <= 6; i++) {
    unsigned char *got = unpng(&value_of(&e, i, "f", 0)->tensor->string_val[2], 1, 7, 1, 0);
    CHECK(!memcmp(got, expected, 7), "floats");
    free(got);
  }
  free_events(&e);
  CHECK_NO_ERROR();
}

static void test_text(void) {
  TERN_SCOPE;
  tern_board *b = tern_board_open(folder);
  char *large = malloc(300001);
  CHECK(large != NULL, "no memory");
  memset(large, 'x', 300000);
  large[300000] = '\0';
  CHECK(tern_board_text(b, "t", 1, "*a*\n\302\265") == TERN_OK && tern_board_text(b, "t", 2, "") == TERN_OK &&
            tern_board_text(b, "t", 3, large) == TERN_OK,
        "%s", tern_error());
  CHECK(tern_board_close(b) == TERN_OK, "%s", tern_error());
  events e = read_events(folder);
  const Tern__Board__Value *v = value_of(&e, 1, "t", 1);
  CHECK(v->metadata && !strcmp(v->metadata->plugin_data->plugin_name, "text") && v->metadata->data_class == 2 &&
            v->tensor->n_string_val == 1 && v->tensor->string_val[0].len == 6,
        "text");
  CHECK(value_of(&e, 2, "t", 2)->tensor->string_val[0].len == 0, "no text");
  CHECK(value_of(&e, 3, "t", 3)->tensor->string_val[0].len == 300000, "much text");
  free(large);
  free_events(&e);
  CHECK_NO_ERROR();
}

/* ---- graphs ---- */

static tern_rc up(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  return (out[0] = tern_named(tern_add(in[0], tern_scalar(1)), "up/result")) ? TERN_OK : TERN_E_ARG;
}
static tern_rc down(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  return (out[0] = tern_neg(in[0])) ? TERN_OK : TERN_E_ARG;
}

static tern_rc body(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  tern_tensor *w = self;
  (void)n_in, (void)n_out;
  tern_tensor *y = tern_named(tern_mul(in[0], w), "layer/mul it: /");
  tern_tensor *positive = tern_greater(tern_sum(y, NULL), tern_scalar(0));
  if (tern_assign(w, tern_add(w, tern_scalar(1)))) return tern_error_code();
  if (tern_cond(positive, up, down, NULL, &y, 1, out, 1)) return tern_error_code();
  return out[0] ? TERN_OK : TERN_E_ARG;
}

static const Tern__Board__NodeDef *node_of(const Tern__Board__GraphDef *g, const char *name) {
  static const Tern__Board__NodeDef none = TERN__BOARD__NODE_DEF__INIT;
  const Tern__Board__NodeDef *found = NULL;
  int n = 0;
  for (size_t i = 0; g && i < g->n_node; i++)
    if (!strcmp(g->node[i]->name, name)) n++, found = g->node[i];
  CHECK(n == 1, "%d nodes \"%s\"", n, name);
  return found ? found : &none;
}

static bool has_input(const Tern__Board__NodeDef *n, const char *name) {
  for (size_t i = 0; i < n->n_input; i++)
    if (!strcmp(n->input[i], name)) return true;
  return false;
}

static void test_graph(void) {
  TERN_SCOPE;
  tern_board *b = tern_board_open(folder);
  tern_tensor *w = tern_variable(tern_f32(TERN_SHAPE(2), 1, 2), &(tern_variable_opts){.name = "dense/kernel"});
  tern_function *f = tern_function_new(body, w, 1, 1, &(tern_function_opts){.name = "step"});
  CHECK(tern_board_graph(b, f) == TERN_E_ARG, "a function that was not called");
  CHECK_ERROR(TERN_E_ARG, "\"step\" has no graph yet; call it once");
  CHECK(tern_board_graph(b, NULL) == TERN_E_ARG, "NULL");
  CHECK_ERROR(TERN_E_ARG, "NULL");
  CHECK(tern_call(f, tern_f32(TERN_SHAPE(3, 2), 1)) != NULL, "%s", tern_error());
  CHECK(tern_board_graph(b, f) == TERN_OK, "%s", tern_error());
  CHECK(tern_call(f, tern_f32(TERN_SHAPE(5, 2), 1)) != NULL, "%s", tern_error());
  CHECK(tern_board_graph(b, f) == TERN_OK, "%s", tern_error());
  CHECK(tern_board_close(b) == TERN_OK, "%s", tern_error());
  tern_function_release(f);
  tern_release(w);
  events e = read_events(folder);
  CHECK(e.n == 3 && e.event[1]->has_graph_def && e.event[2]->has_graph_def, "%d events", e.n);
  for (int i = 1; i < e.n; i++) {
    Tern__Board__GraphDef *g =
        tern__board__graph_def__unpack(NULL, e.event[i]->graph_def.len, e.event[i]->graph_def.data);
    CHECK(g != NULL, "no GraphDef");
    const Tern__Board__NodeDef *mul = node_of(g, "layer/mul_it___"), *cond = node_of(g, "cond");
    CHECK(mul->op && !strcmp(mul->op, "mul") && has_input(mul, "input") && has_input(mul, "dense/kernel"), "mul");
    CHECK(mul->device && !strncmp(mul->device, "/device:cpu", 11), "device %s", mul->device);
    CHECK(mul->n_attr == 2 && !strcmp(mul->attr[0]->key, "dtype") && mul->attr[0]->value->type == 1 &&
              !strcmp(mul->attr[1]->key, "_output_shapes"),
          "attributes");
    const Tern__Board__TensorShapeProto *shape = mul->n_attr == 2 ? mul->attr[1]->value->list->shape[0] : NULL;
    CHECK(shape && shape->n_dim == 2 && shape->dim[0]->size == (i == 1 ? 3 : -1) && shape->dim[1]->size == 2,
          "shape of trace %d: %lld", i, shape ? (long long)shape->dim[0]->size : 0);
    CHECK(has_input(node_of(g, "cond/then/up/result"), "cond/then/input") &&
              has_input(node_of(g, "cond/else/input"), "layer/mul_it___"),
          "bodies");
    CHECK(has_input(cond, "cond/then/up/result") && has_input(cond, "cond/else/neg"), "results of bodies");
    CHECK(has_input(node_of(g, "result"), "cond"), "result");
    CHECK(has_input(node_of(g, "dense/kernel/assign"), "dense/kernel"), "assign");
    for (size_t k = 0; g && k < g->n_node; k++) /* every edge comes from somewhere */
      for (size_t j = 0; j < g->node[k]->n_input; j++) {
        char from[200];
        snprintf(from, sizeof from, "%.*s", (int)strcspn(g->node[k]->input[j], ":"), g->node[k]->input[j]);
        (void)node_of(g, from);
      }
    tern__board__graph_def__free_unpacked(g, NULL);
  }
  free_events(&e);
  CHECK_NO_ERROR();
}

/* ---- what goes wrong ---- */

static void test_arguments(void) {
  TERN_SCOPE;
  char deep[sizeof folder + 32], under[sizeof path + 8];
  tern_tensor *t = tern_f32(TERN_SHAPE(2), 1, 2), *ints = tern_zeros(TERN_SHAPE(1, 2, 2, 1), TERN_I32);
  CHECK(!tern_board_open(NULL) && !tern_board_open(""), "no folder");
  CHECK_ERROR(TERN_E_ARG, "folder is NULL");
  CHECK(!tern_board_open("/proc/nothing/here"), "a folder that cannot be");
  CHECK_ERROR(TERN_E_IO, "/proc/nothing");
  CHECK(!tern_board_open("/dev/null"), "no folder");
  CHECK_ERROR(TERN_E_IO, "/dev/null/events.out.tfevents.");
  snprintf(deep, sizeof deep, "%s/a//b/", folder);
  tern_board *b = tern_board_open(deep);
  CHECK(b != NULL, "%s", tern_error());
  CHECK(tern_board_scalar(NULL, "a", 0, 0) == TERN_E_ARG, "NULL");
  CHECK_ERROR(TERN_E_ARG, "board_scalar: the writer is NULL");
  CHECK(tern_board_scalar(b, NULL, 0, 0) == TERN_E_ARG, "NULL");
  CHECK_ERROR(TERN_E_ARG, "board_scalar: the tag is NULL");
  CHECK(tern_board_scalar(b, "", 0, 0) == TERN_E_ARG, "empty");
  CHECK_ERROR(TERN_E_ARG, "the tag is empty");
  CHECK(tern_board_scalar(b, "a\377", 0, 0) == TERN_E_ARG, "not UTF-8");
  CHECK_ERROR(TERN_E_ARG, "not UTF-8 from byte 1 on");
  CHECK(tern_board_text(b, "a", 0, NULL) == TERN_E_ARG, "NULL");
  CHECK_ERROR(TERN_E_ARG, "the text is NULL");
  CHECK(tern_board_text(b, "a", 0, "\200") == TERN_E_ARG, "not UTF-8");
  CHECK_ERROR(TERN_E_ARG, "the text is not UTF-8");
  CHECK(tern_board_histogram(b, "a", 0, NULL) == TERN_E_ARG, "NULL");
  CHECK_ERROR(TERN_E_ARG, "board_histogram: argument 4 is NULL");
  CHECK(tern_board_histogram(NULL, "a", 0, t) == TERN_E_ARG, "NULL");
  CHECK_ERROR(TERN_E_ARG, "NULL");
  CHECK(tern_board_images(b, "a", 0, t) == TERN_E_ARG, "a vector");
  CHECK_ERROR(TERN_E_ARG, "shape (2,); pictures are [n, height, width, channels]");
  CHECK(tern_board_images(b, "a", 0, tern_zeros(TERN_SHAPE(1, 2, 2, 5), TERN_U8)) == TERN_E_ARG, "5 channels");
  CHECK_ERROR(TERN_E_ARG, "1 to 4 channels");
  CHECK(tern_board_images(b, "a", 0, tern_zeros(TERN_SHAPE(0, 2, 2, 3), TERN_U8)) == TERN_E_ARG, "no pictures");
  CHECK_ERROR(TERN_E_ARG, "shape (0, 2, 2, 3)");
  CHECK(tern_board_images(b, "a", 0, ints) == TERN_E_ARG, "int32");
  CHECK_ERROR(TERN_E_ARG, "these are int32: tern_cast them");
  tern_tensor *huge = tern_expand(tern_zeros(TERN_SHAPE(1, 1, 1, 1), TERN_U8), TERN_SHAPE(1, 1 << 20, 1 << 20, 1));
  CHECK(tern_board_images(b, "a", 0, huge) == TERN_E_ARG, "2^40 pixels");
  CHECK_ERROR(TERN_E_ARG, "at most 2^28 bytes");
  CHECK(tern_board_flush(NULL) == TERN_E_ARG, "NULL");
  CHECK_ERROR(TERN_E_ARG, "NULL");
  CHECK(tern_board_close(NULL) == TERN_OK && tern_board_close(b) == TERN_OK, "%s", tern_error());
  events e = read_events(deep);
  CHECK(e.n == 1, "%d events", e.n);
  free_events(&e);
  snprintf(under, sizeof under, "%s/a/b", folder);
  CHECK(rmdir(under) == 0, "%s", under);
  snprintf(under, sizeof under, "%s/a", folder);
  CHECK(rmdir(under) == 0, "%s", under);
  CHECK_NO_ERROR();
}

/* The number of the descriptor on the folder's event file. */
static int descriptor(void) {
  char name[64], target[600];
  for (int fd = 3; fd < 256; fd++) {
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    const ssize_t n = readlink(name, target, sizeof target - 1);
    if (n < 0) continue;
    target[n] = '\0';
    if (!strncmp(target, folder, strlen(folder))) return fd;
  }
  return -1;
}

/* A disk that is full for a while: errors that name the file; what was accepted is written when there is room again. */
static void test_full(void) {
  TERN_SCOPE;
  tern_board *b = tern_board_open(folder);
  const int fd = descriptor(), file = dup(fd), full = open("/dev/full", O_WRONLY);
  CHECK(fd >= 0 && file >= 0 && full >= 0 && dup2(full, fd) == fd, "cannot put /dev/full in place");
  char *large = malloc(100001);
  CHECK(large != NULL, "no memory");
  memset(large, 'x', 100000);
  large[100000] = '\0';
  CHECK(tern_board_text(b, "t", 0, large) == TERN_E_IO, "a full disk");
  CHECK_ERROR(TERN_E_IO, "No space left on device");
  CHECK(tern_board_scalar(b, "a", 1, 1) == TERN_OK, "a small record waits: %s", tern_error());
  CHECK(tern_board_flush(b) == TERN_E_IO, "a full disk");
  CHECK_ERROR(TERN_E_IO, "events.out.tfevents.");
  CHECK(tern_board_text(b, "t", 1, large) == TERN_E_IO, "a full disk");
  CHECK_ERROR(TERN_E_IO, "No space left on device");
  CHECK(dup2(file, fd) == fd, "cannot put the file back");
  CHECK(tern_board_text(b, "t", 2, large) == TERN_OK, "%s", tern_error());
  free(large);
  CHECK(tern_board_close(b) == TERN_OK, "%s", tern_error());
  events e = read_events(folder);
  CHECK(e.n == 3 && value_of(&e, 1, "a", 1)->simple_value == 1 && value_of(&e, 2, "t", 2)->tensor, "%d events", e.n);
  free_events(&e);
  b = tern_board_open(folder);
  CHECK(dup2(full, descriptor()) >= 0 && tern_board_scalar(b, "a", 1, 1) == TERN_OK, "%s", tern_error());
  CHECK(tern_board_close(b) == TERN_E_IO, "a full disk when it ends");
  CHECK_ERROR(TERN_E_IO, "board_close");
  e = read_events(folder);
  free_events(&e);
  (void)close(file);
  (void)close(full);
}

/* Each allocation fails once: an error, no leak, no torn file. */
static void test_no_memory(void) {
  TERN_SCOPE;
  tern_tensor *t = tern_zeros(TERN_SHAPE(2, 3, 3, 3), TERN_F32);
  tern_tensor *w = tern_variable(tern_f32(TERN_SHAPE(2), 1, 2), NULL);
  tern_function *f = tern_function_new(body, w, 1, 1, NULL);
  CHECK(tern_call(f, tern_f32(TERN_SHAPE(3, 2), 1)) != NULL, "%s", tern_error());
  int good = 0;
  tern_board *b = NULL;
  for (int what = 0; what < 4; what++) {
    long n = 1;
    tern_rc rc = TERN_E_OOM;
    for (; rc && n < 400; n++) {
      TERN_SCOPE;
      tern__alloc_fail_at(n);
      if (what == 0) rc = (b = tern_board_open(folder)) ? TERN_OK : TERN_E_OOM;
      if (what == 1) rc = tern_board_histogram(b, "h", 1, tern_transpose(t));
      if (what == 2) rc = tern_board_images(b, "i", 1, t);
      if (what == 3) rc = tern_board_graph(b, f);
      tern__alloc_fail_at(0);
      if (rc) CHECK_ERROR(TERN_E_OOM, "memory");
      if (what == 0 && rc) { /* perhaps its file was made already */
        DIR *d = opendir(folder);
        for (const struct dirent *e; d && (e = readdir(d));) {
          snprintf(path, sizeof path, "%s/%.300s", folder, e->d_name);
          if (*e->d_name != '.') (void)unlink(path);
        }
        if (d) closedir(d);
      }
    }
    good += rc == TERN_OK;
    CHECK(n < 400, "%d: %ld allocations", what, n);
  }
  CHECK(good == 4 && tern_board_close(b) == TERN_OK, "%s", tern_error());
  events e = read_events(folder);
  CHECK(e.n == 4, "%d events", e.n);
  free_events(&e);
  tern_function_release(f);
  tern_release(w);
}

static const test_case cases[] = {
    {"checksums", test_checksums}, {"scalars", test_scalars}, {"histograms", test_histograms},
    {"images", test_images},       {"text", test_text},       {"graph", test_graph},
    {"arguments", test_arguments}, {"full", test_full},       {"no_memory", test_no_memory}};

int main(int argc, char **argv) {
  if (!mkdtemp(folder)) return 1;
  const int status = test_main(argc, argv, "io.board", cases, (int)(sizeof cases / sizeof *cases));
  if (rmdir(folder)) printf("%s is not empty\n", folder);
  return status;
}
