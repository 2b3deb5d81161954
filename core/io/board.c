/* The event file itself: its name, records (TFRecord: length, its checksum, data, its checksum), what has not been
   written yet. A record that cannot be written because the disk is full stays in memory, so that the file is never torn
   in the middle when there is room again. */
#include "io/board.h"
#include "base/alloc.h"
#include "io/safetensors.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { KEEP = 64 << 10, TRIES = 1000 };
#define RECORD_MAX (1u << 30) /* protobuf's readers take messages of less than 2 GiB */

struct tern_board {
  char *path;
  int fd;
  unsigned char *data; /* records that were not written yet */
  size_t size, room;
};

const char *tern__board_path(const tern_board *b) { return b->path; }

/* ---- checksums ---- */

uint32_t tern__crc32c(const void *data, size_t size) {
  /* what four bits become when they are divided by the polynomial, lowest bit first */
  static const uint32_t table[16] = {0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
                                     0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
                                     0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75};
  const unsigned char *p = data;
  uint32_t crc = 0xffffffffu;
  for (size_t i = 0; i < size; i++) {
    crc ^= p[i];
    crc = table[crc & 15] ^ crc >> 4;
    crc = table[crc & 15] ^ crc >> 4;
  }
  return ~crc;
}

uint32_t tern__crc32c_masked(const void *data, size_t size) {
  const uint32_t crc = tern__crc32c(data, size);
  return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

/* ---- records ---- */

static tern_rc no_memory(const tern_board *b, const char *op) {
  return tern__fail(TERN_E_OOM, "%s: %.400s: out of host memory", op, b->path);
}

/* Hands to the file what waits; what could not be written waits on. */
static tern_rc flush(tern_board *b, const char *op) {
  size_t at = 0;
  tern_rc rc = TERN_OK;
  while (at < b->size && !rc) {
    const ssize_t n = write(b->fd, b->data + at, b->size - at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0)
      rc = tern__fail(TERN_E_IO, "%s: %.400s: cannot be written: %s", op, b->path, strerror(errno));
    else
      at += (size_t)n;
  }
  memmove(b->data, b->data + at, b->size - at);
  b->size -= at;
  return rc;
}

/* Room for `size` more bytes behind what waits, which is written first if there is much of it. */
static tern_rc make_room(tern_board *b, const char *op, size_t size) {
  if (b->size > 0 && b->size + size > KEEP) {
    const tern_rc rc = flush(b, op);
    if (rc) return rc;
  }
  if (b->size + size <= b->room) return TERN_OK;
  const size_t room = b->size + size > KEEP ? b->size + size : KEEP;
  unsigned char *data = tern__realloc(b->data, room);
  if (!data) return no_memory(b, op);
  b->data = data;
  b->room = room;
  return TERN_OK;
}

static void put(unsigned char *p, uint64_t v, int n) {
  for (int i = 0; i < n; i++) p[i] = (unsigned char)(v >> 8 * i);
}

tern_rc tern__board_event(tern_board *b, const char *op, Tern__Board__Event *event) {
  struct timespec now;
  (void)clock_gettime(CLOCK_REALTIME, &now);
  event->has_wall_time = 1;
  event->wall_time = (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
  const size_t size = tern__board__event__get_packed_size(event);
  if (size > RECORD_MAX) return tern__fail(TERN_E_ARG, "%s: a record of %zu bytes; at most 2^30 are written", op, size);
  tern_rc rc = make_room(b, op, size + 16);
  if (rc) return rc;
  unsigned char *p = b->data + b->size;
  put(p, size, 8);
  put(p + 8, tern__crc32c_masked(p, 8), 4);
  (void)tern__board__event__pack(event, p + 12);
  put(p + 12 + size, tern__crc32c_masked(p + 12, size), 4);
  b->size += size + 16;
  if (b->size >= KEEP) rc = flush(b, op);
  if (rc && b->size >= size + 16) b->size -= size + 16; /* none of it was written: it was not added */
  if (b->size == 0 && b->room > 16 * KEEP) {            /* a large picture's */
    free(b->data);
    b->data = NULL;
    b->room = 0;
  }
  return rc;
}

/* ---- values ---- */

static tern_rc check_text(const char *op, const char *what, const char *text) {
  if (!text) return tern__fail(TERN_E_ARG, "%s: the %s is NULL", op, what);
  const size_t size = strlen(text);
  for (size_t i = 0; i < size;) {
    const int n = tern__utf8_length((const unsigned char *)text + i, size - i);
    if (n == 0) return tern__fail(TERN_E_ARG, "%s: the %s is not UTF-8 from byte %zu on", op, what, i);
    i += (size_t)n;
  }
  return TERN_OK;
}

static tern_rc check_board(const tern_board *b, const char *op) {
  return b ? TERN_OK : tern__fail(TERN_E_ARG, "%s: the writer is NULL", op);
}

tern_rc tern__board_tensor(const tern_board *b, const char *op, tern_tensor **t) {
  if (check_board(b, op) || !tern__usable(*t, op, 4)) return TERN_E_ARG;
  return tern__readable(*t, op) ? TERN_OK : tern__recorded();
}

tern_rc tern__board_value(tern_board *b, const char *op, const char *tag, int64_t step, Tern__Board__Value *value) {
  tern_rc rc = check_board(b, op);
  if (!rc) rc = check_text(op, "tag", tag);
  if (!rc && !*tag) rc = tern__fail(TERN_E_ARG, "%s: the tag is empty", op);
  if (rc) return rc;
  Tern__Board__Summary summary = TERN__BOARD__SUMMARY__INIT;
  Tern__Board__Event event = TERN__BOARD__EVENT__INIT;
  value->tag = (char *)(uintptr_t)tag; /* protobuf-c reads it only */
  summary.n_value = 1;
  summary.value = &value;
  event.has_step = 1;
  event.step = step;
  event.summary = &summary;
  return tern__board_event(b, op, &event);
}

tern_rc tern__board_strings(tern_board *b, const char *op, const char *tag, int64_t step, const char *plugin,
                            int data_class, ProtobufCBinaryData *strings, int n) {
  char name[16];
  snprintf(name, sizeof name, "%s", plugin);
  Tern__Board__PluginData data = TERN__BOARD__PLUGIN_DATA__INIT;
  Tern__Board__SummaryMetadata metadata = TERN__BOARD__SUMMARY_METADATA__INIT;
  Tern__Board__Dim dim = TERN__BOARD__DIM__INIT, *dims = &dim;
  Tern__Board__TensorShapeProto shape = TERN__BOARD__TENSOR_SHAPE_PROTO__INIT;
  Tern__Board__TensorProto tensor = TERN__BOARD__TENSOR_PROTO__INIT;
  Tern__Board__Value value = TERN__BOARD__VALUE__INIT;
  data.plugin_name = name;
  metadata.plugin_data = &data;
  metadata.has_data_class = 1;
  metadata.data_class = data_class;
  dim.has_size = 1;
  dim.size = n;
  shape.n_dim = 1;
  shape.dim = &dims;
  tensor.has_dtype = 1;
  tensor.dtype = TERN__BOARD_STRING;
  tensor.tensor_shape = &shape;
  tensor.n_string_val = (size_t)n;
  tensor.string_val = strings;
  value.tensor = &tensor;
  value.metadata = &metadata;
  return tern__board_value(b, op, tag, step, &value);
}

tern_rc tern_board_scalar(tern_board *b, const char *tag, int64_t step, double number) {
  Tern__Board__Value value = TERN__BOARD__VALUE__INIT;
  value.has_simple_value = 1;
  value.simple_value = (float)number;
  return tern__board_value(b, "board_scalar", tag, step, &value);
}

tern_rc tern_board_text(tern_board *b, const char *tag, int64_t step, const char *text) {
  tern_rc rc = check_board(b, "board_text");
  if (!rc) rc = check_text("board_text", "text", text);
  if (rc) return rc;
  ProtobufCBinaryData string = {.len = strlen(text), .data = (uint8_t *)(uintptr_t)text};
  return tern__board_strings(b, "board_text", tag, step, "text", 2, &string, 1);
}

/* ---- files ---- */

/* mkdir -p */
static tern_rc make_folders(const char *folder) {
  char *path = tern__strdup(folder);
  if (!path) return tern__fail(TERN_E_OOM, "board_open: %.300s: out of host memory", folder);
  tern_rc rc = TERN_OK;
  for (char *p = path + 1; !rc; p++) {
    const char was = *p;
    if (was != '/' && was != '\0') continue;
    *p = '\0';
    if (mkdir(path, 0777) && errno != EEXIST)
      rc = tern__fail(TERN_E_IO, "board_open: cannot make the folder %.300s: %s", path, strerror(errno));
    *p = was;
    if (was == '\0') break;
  }
  free(path);
  return rc;
}

/* events.out.tfevents.TIME.HOST.PROCESS.NUMBER; the number is the first that nobody has. */
static tern_rc make_file(tern_board *b, const char *folder) {
  char host[256] = "";
  const size_t size = strlen(folder) + sizeof host + 100;
  b->path = tern__calloc(size, 1);
  if (!b->path) return tern__fail(TERN_E_OOM, "board_open: %.300s: out of host memory", folder);
  if (gethostname(host, sizeof host - 1) || !*host) snprintf(host, sizeof host, "localhost");
  for (char *p = host; *p; p++)
    if (*p == '/') *p = '_';
  const long long now = (long long)time(NULL);
  for (int i = 0; i < TRIES; i++) {
    snprintf(b->path, size, "%s/events.out.tfevents.%010lld.%s.%ld.%d", folder, now, host, (long)getpid(), i);
    b->fd = open(b->path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
    if (b->fd >= 0) return TERN_OK;
    if (errno != EEXIST) break;
  }
  return tern__fail(TERN_E_IO, "board_open: cannot make %.400s: %s", b->path, strerror(errno));
}

static void end(tern_board *b) {
  if (b->fd >= 0) (void)close(b->fd);
  free(b->data);
  free(b->path);
  free(b);
}

tern_board *tern_board_open(const char *folder) {
  if (!folder || !*folder) {
    tern__fail(TERN_E_ARG, "board_open: the folder is %s", folder ? "empty; \".\" is the current one" : "NULL");
    return NULL;
  }
  tern_board *b = tern__calloc(1, sizeof *b);
  if (!b) {
    tern__fail(TERN_E_OOM, "board_open: %.300s: out of host memory", folder);
    return NULL;
  }
  b->fd = -1;
  char version[] = "brain.Event:2";
  Tern__Board__Event event = TERN__BOARD__EVENT__INIT;
  event.file_version = version;
  tern_rc rc = make_folders(folder);
  if (!rc) rc = make_file(b, folder);
  if (!rc) rc = tern__board_event(b, "board_open", &event);
  if (!rc) rc = flush(b, "board_open");
  if (!rc) return b;
  end(b);
  return NULL;
}

tern_rc tern_board_flush(tern_board *b) {
  const tern_rc rc = check_board(b, "board_flush");
  return rc ? rc : flush(b, "board_flush");
}

tern_rc tern_board_close(tern_board *b) {
  if (!b) return TERN_OK;
  tern_rc rc = flush(b, "board_close");
  const int closed = close(b->fd);
  b->fd = -1;
  if (closed && !rc) rc = tern__fail(TERN_E_IO, "board_close: %.400s: cannot be closed: %s", b->path, strerror(errno));
  end(b);
  return rc;
}
