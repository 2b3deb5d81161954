/* .npy files: the header is read by a parser of just the dict that NumPy writes, then the elements in pieces, put into
   the host's byte order on the way. */
#include "io/npy.h"
#include "base/alloc.h"
#include "device/device.h"
#include "io/draft.h"
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "'<' is the host's order");
#define MAGIC "\x93NUMPY"
enum { MAGIC_SIZE = 6, ALIGN = 64 };

static const struct {
  const char *name;
  tern_dtype dtype;
} types[] = {{"b1", TERN_BOOL}, {"i1", TERN_I8},  {"i2", TERN_I16}, {"i4", TERN_I32},
             {"i8", TERN_I64},  {"u1", TERN_U8},  {"u2", TERN_U16}, {"u4", TERN_U32},
             {"u8", TERN_U64},  {"f2", TERN_F16}, {"f4", TERN_F32}, {"f8", TERN_F64}};
enum { N_TYPES = sizeof types / sizeof *types };

/* ---- the header ---- */

static tern_rc __attribute__((format(printf, 2, 3))) refuse(const char *label, const char *format, ...) {
  char text[600];
  va_list args;
  va_start(args, format);
  (void)vsnprintf(text, sizeof text, format, args);
  va_end(args);
  return tern__fail(TERN_E_IO, "npy: %.400s: %s", label, text);
}

static tern_rc bytes(tern__npy_source *s, void *dst, size_t size) {
  if (size > s->left)
    return refuse(s->label, "ends too early: %zu more bytes were expected, %llu follow", size,
                  (unsigned long long)s->left);
  s->left -= size;
  return s->read(s, dst, size);
}

static const char *why_not(const char *type) {
  switch (*type) {
  case 'c': return "complex numbers, which tern has not; save real and imaginary parts as two arrays";
  case 'U':
  case 'S':
  case 'a': return "text, which tern has not";
  case 'O': return "Python objects, which are pickled and cannot be read safely";
  case 'M':
  case 'm': return "times; save them as int64 with .astype(\"int64\")";
  case 'f': return "floats of a size that tern has not; save them as float64";
  case 'V':
    return "raw bytes; \"V2\" is what bfloat16 becomes in NumPy, which has no such dtype: save it as float32, or in a "
           "safetensors file";
  default: return "of a type that tern has not";
  }
}

/* '<f4': byte order, kind, bytes. */
static tern_rc read_descr(const char *label, const char *descr, tern__npy *a) {
  const char *type = descr;
  const char order = *descr && strchr("<>|=", *descr) ? *type++ : '=';
  for (int i = 0; i < N_TYPES; i++)
    if (!strcmp(types[i].name, type)) a->dtype = types[i].dtype;
  if (!strcmp(type, "?")) a->dtype = TERN_BOOL;
  if (a->dtype == TERN_NO_DTYPE) return refuse(label, "its dtype '%.40s' is %s", descr, why_not(type));
  a->swapped = order == '>' && tern__dtype_size[a->dtype] > 1;
  return TERN_OK;
}

/* Python's notation, as far as a header needs it. */
typedef struct reader {
  const char *text;
  size_t at, size;
  const char *label;
} reader;

static char peek(reader *r) {
  while (r->at < r->size && (r->text[r->at] == ' ' || r->text[r->at] == '\n' || r->text[r->at] == '\t')) r->at++;
  return r->at < r->size ? r->text[r->at] : '\0';
}
static bool accept(reader *r, char c) {
  if (peek(r) != c || c == '\0') return false;
  r->at++;
  return true;
}
static tern_rc expected(reader *r, const char *what) {
  (void)peek(r);
  return refuse(r->label, "its header is damaged: %s expected at byte %zu of the dict", what, r->at);
}

/* 'text' or "text" without escapes, into room for 64 bytes. */
static tern_rc read_string(reader *r, char *text) {
  const char quote = peek(r);
  if (quote != '\'' && quote != '"') return expected(r, "a string in quotes");
  size_t n = 0;
  for (r->at++; r->at < r->size && r->text[r->at] != quote; r->at++) {
    const char c = r->text[r->at];
    if (c < 32 || c > 126 || c == '\\' || n == 63) return expected(r, "a short string of plain characters");
    text[n++] = c;
  }
  if (!accept(r, quote)) return expected(r, "the end of the string");
  text[n] = '\0';
  return TERN_OK;
}

static tern_rc read_bool(reader *r, bool *value) {
  (void)peek(r);
  for (int i = 0; i < 2; i++) {
    const char *word = i ? "True" : "False";
    const size_t n = strlen(word);
    if (r->size - r->at < n || memcmp(r->text + r->at, word, n) != 0) continue;
    r->at += n;
    *value = i;
    return TERN_OK;
  }
  return expected(r, "True or False");
}

static tern_rc read_size(reader *r, int64_t *size) {
  char c = peek(r);
  if (c < '0' || c > '9') return expected(r, "a size");
  for (*size = 0; r->at < r->size && (c = r->text[r->at]) >= '0' && c <= '9'; r->at++)
    if (__builtin_mul_overflow(*size, 10, size) || __builtin_add_overflow(*size, c - '0', size))
      return expected(r, "a size of at most 2^63 - 1");
  if (r->at < r->size && r->text[r->at] == 'L') r->at++; /* Python 2 wrote 3L */
  return TERN_OK;
}

/* (), (3,), (3, 4) or (3, 4,); (3) is no tuple. */
static tern_rc read_shape(reader *r, tern__npy *a) {
  bool comma = true;
  if (!accept(r, '(')) return expected(r, "a shape in round brackets");
  for (a->rank = 0; peek(r) != ')';) {
    if (!comma) return expected(r, "a comma or the end of the shape");
    if (a->rank == TERN_MAX_RANK)
      return refuse(r->label, "has more than %d dimensions, the most that tern has", TERN_MAX_RANK);
    const tern_rc rc = read_size(r, &a->shape[a->rank]);
    if (rc) return rc;
    a->rank++;
    comma = accept(r, ',');
  }
  if (a->rank == 1 && !comma) return expected(r, "a comma, which makes one size a shape,");
  r->at++;
  return TERN_OK;
}

static tern_rc read_member(reader *r, int which, tern__npy *a) {
  char text[64];
  if (which == 1) return read_bool(r, &a->fortran);
  if (which == 2) return read_shape(r, a);
  if (peek(r) == '[')
    return refuse(r->label, "its elements are records of several fields; save each field as an array of its own");
  const tern_rc rc = read_string(r, text);
  return rc ? rc : read_descr(r->label, text, a);
}

tern_rc tern__npy_dict(const char *text, size_t size, const char *label, tern__npy *a) {
  static const char *const keys[] = {"descr", "fortran_order", "shape"};
  reader r = {.text = text, .size = size, .label = label};
  bool seen[3] = {false}, comma = true;
  *a = (tern__npy){.dtype = TERN_NO_DTYPE};
  if (!accept(&r, '{')) return expected(&r, "{");
  while (peek(&r) != '}') {
    char key[64];
    int which = 0;
    if (!comma) return expected(&r, "a comma or }");
    tern_rc rc = read_string(&r, key);
    if (rc) return rc;
    while (which < 3 && strcmp(keys[which], key) != 0) which++;
    if (which == 3) return refuse(label, "its header has a key '%s'; descr, fortran_order and shape are known", key);
    if (seen[which]) return refuse(label, "its header has two keys '%s'", key);
    seen[which] = true;
    if (!accept(&r, ':')) return expected(&r, "a colon");
    rc = read_member(&r, which, a);
    if (rc) return rc;
    comma = accept(&r, ',');
  }
  r.at++;
  for (int i = 0; i < 3; i++)
    if (!seen[i]) return refuse(label, "its header has no key '%s'", keys[i]);
  if (peek(&r) || r.at < r.size) return expected(&r, "nothing but spaces");
  return TERN_OK;
}

tern_rc tern__npy_header(tern__npy_source *s, tern__npy *a) {
  unsigned char head[12] = {0};
  char text[200];
  if (s->left < 10) return refuse(s->label, "holds %llu bytes: no .npy file", (unsigned long long)s->left);
  tern_rc rc = bytes(s, head, 8);
  if (!rc && memcmp(head, MAGIC, MAGIC_SIZE) != 0) rc = refuse(s->label, "does not begin like a .npy file");
  if (!rc && (head[6] < 1 || head[6] > 3 || head[7] != 0))
    rc = refuse(s->label, "is of version %u.%u of the format; 1.0, 2.0 and 3.0 are known", head[6], head[7]);
  if (!rc) rc = bytes(s, head + 8, head[6] == 1 ? 2 : 4);
  if (rc) return rc;
  const uint32_t size = head[8] | (uint32_t)head[9] << 8 | (uint32_t)head[10] << 16 | (uint32_t)head[11] << 24;
  if (size > s->left)
    return refuse(s->label, "claims a header of %u bytes, but only %llu follow: truncated", size,
                  (unsigned long long)s->left);
  if (size > TERN__NPY_HEADER_MAX)
    return refuse(s->label, "claims a header of %u bytes, at most %d are read", size, TERN__NPY_HEADER_MAX);
  char *dict = tern__calloc((size_t)size + 1, 1);
  if (!dict) return tern__draft_no_memory("npy", s->label);
  rc = bytes(s, dict, size);
  if (!rc) rc = tern__npy_dict(dict, size, s->label, a);
  free(dict);
  if (rc) return rc;
  const int64_t n = tern__numel(a->rank, a->shape);
  if (n < 0) return refuse(s->label, "its shape %s has too many elements", tern__shape_text(text, a->rank, a->shape));
  const uint64_t wanted = (uint64_t)n * tern__dtype_size[a->dtype];
  if (wanted != s->left)
    return refuse(s->label, "has %llu bytes of elements, but %s of shape %s takes %llu: %s",
                  (unsigned long long)s->left, tern_dtype_name(a->dtype), tern__shape_text(text, a->rank, a->shape),
                  (unsigned long long)wanted, s->left < wanted ? "truncated" : "something follows");
  return TERN_OK;
}

/* ---- the elements ---- */

typedef struct elements {
  tern__npy_source *source;
  const tern__npy *array;
} elements;

static void swap_bytes(unsigned char *data, size_t size, size_t width) {
  for (size_t i = 0; i < size; i += width)
    for (size_t k = 0; k < width / 2; k++) {
      const unsigned char low = data[i + k];
      data[i + k] = data[i + width - 1 - k];
      data[i + width - 1 - k] = low;
    }
}

static tern_rc give(void *self, void *data, size_t size) {
  const elements *e = self;
  const tern_rc rc = bytes(e->source, data, size);
  if (rc) return rc;
  if (e->array->swapped) swap_bytes(data, size, tern__dtype_size[e->array->dtype]);
  const unsigned char *b = data;
  for (size_t i = 0; i < size && e->array->dtype == TERN_BOOL; i++)
    if (b[i] > 1) return refuse(e->source->label, "holds a bool of %u, expected 0 or 1", b[i]);
  return TERN_OK;
}

tern_tensor *tern__npy_elements(tern__npy_source *s, const tern__npy *a, tern__device *device) {
  elements e = {s, a};
  int64_t shape[TERN_MAX_RANK] = {0};
  const bool turned = a->fortran && a->rank > 1; /* column-major is row-major with the axes in reverse */
  for (int d = 0; d < a->rank; d++) shape[d] = a->shape[turned ? a->rank - 1 - d : d];
  const uint32_t graph = tern__eager_begin(tern__tls); /* a value, as a constant is, whatever is traced meanwhile */
  tern_tensor *t = tern__push(tern__new(device, a->dtype, a->rank, shape, "npy_read"));
  if (t && tern__pieces_in(t, "npy_read", give, &e)) t = NULL;
  if (t && turned) t = tern_contiguous(tern_permute(t, NULL, a->rank));
  tern__eager_end(tern__tls, graph);
  return t;
}

/* ---- files ---- */

typedef struct file {
  tern__npy_source source; /* first: read() is given this */
  int fd;
} file;

static tern_rc read_file(tern__npy_source *source, void *dst, size_t size) {
  char *to = dst;
  while (size > 0) {
    const ssize_t got = read(((file *)source)->fd, to, size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return refuse(source->label, "cannot be read: %s", strerror(errno));
    if (got == 0) return refuse(source->label, "has become shorter while it was read");
    to += got;
    size -= (size_t)got;
  }
  return TERN_OK;
}

static tern_tensor *read_array(file *f, tern__device *device) {
  struct stat info;
  tern__npy array;
  if (fstat(f->fd, &info)) {
    (void)refuse(f->source.label, "cannot be looked at: %s", strerror(errno));
    return NULL;
  }
  if (!S_ISREG(info.st_mode)) {
    (void)refuse(f->source.label, "is not a regular file");
    return NULL;
  }
  f->source.left = (uint64_t)info.st_size;
  return tern__npy_header(&f->source, &array) ? NULL : tern__npy_elements(&f->source, &array, device);
}

tern_tensor *tern_npy_read(const char *path) {
  tern__thread *thread = tern__thread_get();
  tern__device *device = thread && path ? tern__device_here(thread) : NULL;
  if (!path) tern__fail(TERN_E_ARG, "npy_read: the path is NULL");
  if (!device) return NULL;
  file f = {.source = {.read = read_file, .label = path}};
  f.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a fifo must not block */
  tern_tensor *t = NULL;
  if (f.fd < 0)
    (void)refuse(path, "cannot be opened: %s", strerror(errno));
  else
    t = read_array(&f, device);
  if (f.fd >= 0) (void)close(f.fd);
  return t;
}

size_t tern__npy_header_text(const tern_tensor *t, const char *op, const char *what, char *header) {
  enum { GROWTH = 21 }; /* NumPy leaves room for the first size to grow to that many digits */
  const char *type = NULL;
  char shape[TERN_MAX_RANK * 22 + 3] = "(", first[24] = "";
  int at = 1;
  for (int i = 0; i < N_TYPES; i++)
    if (types[i].dtype == (tern_dtype)t->dtype) type = types[i].name;
  if (!type) {
    tern__fail(TERN_E_ARG, "%s: %.300s: NumPy has no %s; tern_cast it to float32, or write a safetensors file", op,
               what, tern_dtype_name((tern_dtype)t->dtype));
    return 0;
  }
  if (t->rank) snprintf(first, sizeof first, "%lld", (long long)t->shape[0]);
  for (int d = 0; d < t->rank; d++)
    at += snprintf(shape + at, sizeof shape - (size_t)at, d ? ", %lld" : "%lld", (long long)t->shape[d]);
  snprintf(shape + at, sizeof shape - (size_t)at, t->rank == 1 ? ",)" : ")");
  const char order = tern__dtype_size[t->dtype] > 1 ? '<' : '|';
  memset(header, ' ', TERN__NPY_ROOM);
  const int room = TERN__NPY_ROOM - 10;
  int n = snprintf(header + 10, (size_t)room, "{'descr': '%c%s', 'fortran_order': False, 'shape': %s, }", order, type,
                   shape);
  header[10 + n] = ' ';
  if (t->rank) n += GROWTH - (int)strlen(first);
  const size_t size = ((size_t)(10 + n + 1) / ALIGN + 1) * ALIGN;
  memcpy(header, MAGIC "\1\0", 8);
  header[8] = (char)((size - 10) & 0xff);
  header[9] = (char)((size - 10) >> 8);
  header[size - 1] = '\n';
  return size;
}

static tern_rc take(void *draft, const void *data, size_t size) { return tern__draft_write(draft, data, size); }

tern_rc tern_npy_write(const char *path, tern_tensor *t) {
  if (!path) return tern__fail(TERN_E_ARG, "npy_write: the path is NULL");
  if (!tern__usable(t, "npy_write", 2)) return TERN_E_ARG;
  if (!tern__readable(t, "npy_write")) return tern__recorded();
  TERN_SCOPE;
  char header[TERN__NPY_ROOM];
  tern_tensor *now = tern__snapshot(t);
  if (!now) return tern__recorded();
  const size_t size = tern__npy_header_text(now, "npy_write", path, header);
  if (!size) return TERN_E_ARG;
  tern__draft f;
  tern_rc rc = tern__draft_begin(&f, "npy_write", path);
  if (!rc) rc = tern__draft_write(&f, header, size);
  if (!rc) rc = tern__pieces_out(now, "npy_write", take, &f);
  return tern__draft_end(&f, rc);
}
