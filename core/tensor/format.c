/* Array text: brackets, columns, wrapping and summaries as numpy's array2string. Elements are visited in three
   passes over the same positions (the corners, when summarised): see, measure, print; the first two settle the
   column width. */
#include "tensor/format.h"

#include <stdbool.h>
#include <string.h>

#include "tensor/format_float.h"

enum { LINE_WIDTH = 75, THRESHOLD = 1000, EDGE_ITEMS = 3 }; /* numpy's print options */

typedef struct printer {
  tern__string *out;
  const int64_t *shape, *stride;
  const char *data;
  tern_dtype dtype;
  int rank, item_size;
  int width;  /* integers and booleans: columns of an element */
  int indent; /* columns before the outermost bracket on a new line */
  bool summarise;
  tern__float_format floats;
} printer;

typedef struct dtype_traits {
  const char *name;
  int size;
} dtype_traits;

static const dtype_traits *traits_of(tern_dtype dtype) {
  static const dtype_traits table[TERN_DTYPE_END] = {
      [TERN_BOOL] = {"bool", 1},   [TERN_I8] = {"int8", 1},       [TERN_I16] = {"int16", 2},
      [TERN_I32] = {"int32", 4},   [TERN_I64] = {"int64", 8},     [TERN_U8] = {"uint8", 1},
      [TERN_U16] = {"uint16", 2},  [TERN_U32] = {"uint32", 4},    [TERN_U64] = {"uint64", 8},
      [TERN_F16] = {"float16", 2}, [TERN_BF16] = {"bfloat16", 2}, [TERN_F32] = {"float32", 4},
      [TERN_F64] = {"float64", 8},
  };
  return (int)dtype > TERN_NO_DTYPE && (int)dtype < TERN_DTYPE_END ? &table[dtype] : NULL;
}

const char *tern__format_dtype_name(tern_dtype dtype) {
  const dtype_traits *const traits = traits_of(dtype);
  return traits ? traits->name : NULL;
}

/* ---- integers and booleans ---- */

/* An integer of any dtype as sign and magnitude. */
static uint64_t read_integer(tern_dtype dtype, const char *p, bool *negative) {
  int8_t i8;
  int16_t i16;
  int32_t i32;
  int64_t value = 0;
  uint16_t u16;
  uint32_t u32;
  uint64_t u64;
  *negative = false;
  switch (dtype) {
  case TERN_U8:
  case TERN_BOOL: return (uint8_t)*p;
  case TERN_U16: return memcpy(&u16, p, sizeof u16), u16;
  case TERN_U32: return memcpy(&u32, p, sizeof u32), u32;
  case TERN_U64: return memcpy(&u64, p, sizeof u64), u64;
  case TERN_I8: value = (memcpy(&i8, p, sizeof i8), i8); break;
  case TERN_I16: value = (memcpy(&i16, p, sizeof i16), i16); break;
  case TERN_I32: value = (memcpy(&i32, p, sizeof i32), i32); break;
  default: memcpy(&value, p, sizeof value); break;
  }
  *negative = value < 0;
  return value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
}

/* Puts an element that is not a float into text, answers its length. */
static int put_discrete(tern_dtype dtype, const char *p, char *text) {
  bool negative;
  uint64_t rest = read_integer(dtype, p, &negative);
  if (dtype == TERN_BOOL) {
    memcpy(text, rest ? "True" : "False", 5);
    return rest ? 4 : 5;
  }
  char digits[20];
  int count = 0, at = 0;
  do {
    digits[count++] = (char)('0' + rest % 10);
    rest /= 10;
  } while (rest != 0);
  if (negative) {
    text[at++] = '-';
  }
  while (count > 0) {
    text[at++] = digits[--count];
  }
  return at;
}

/* ---- the passes ---- */

static void see(printer *p, const char *element) {
  if (tern__is_float(p->dtype)) {
    const tern__float x = tern__float_read(p->dtype, element);
    tern__float_format_see(&p->floats, &x);
    return;
  }
  char text[TERN__FLOAT_TEXT];
  const int size = put_discrete(p->dtype, element, text);
  p->width = size > p->width ? size : p->width;
}

static void measure(printer *p, const char *element) {
  const tern__float x = tern__float_read(p->dtype, element);
  tern__float_format_measure(&p->floats, &x);
}

static bool cut(const printer *p, int axis) { return p->summarise && p->shape[axis] > 2 * EDGE_ITEMS; }

/* The index that is printed after i: the next one, or past the gap. */
static int64_t next_index(const printer *p, int axis, int64_t i) {
  return cut(p, axis) && i == EDGE_ITEMS - 1 ? p->shape[axis] - EDGE_ITEMS : i + 1;
}

static const char *step(const printer *p, int axis, const char *from, int64_t i) {
  return from + i * p->stride[axis] * p->item_size;
}

static void visit(printer *p, int axis, const char *from, void (*element)(printer *, const char *)) {
  if (axis == p->rank) {
    element(p, from);
    return;
  }
  for (int64_t i = 0; i < p->shape[axis]; i = next_index(p, axis, i)) {
    visit(p, axis + 1, step(p, axis, from, i), element);
  }
}

static int element_text(const printer *p, const char *element, char *text) {
  if (tern__is_float(p->dtype)) {
    const tern__float x = tern__float_read(p->dtype, element);
    return tern__float_format_text(&p->floats, &x, text);
  }
  char bare[TERN__FLOAT_TEXT];
  const int size = put_discrete(p->dtype, element, bare);
  const int pad = p->width > size ? p->width - size : 0;
  memset(text, ' ', (size_t)pad);
  memcpy(text + pad, bare, (size_t)size);
  return pad + size;
}

/* ---- the text ---- */

/* Adds a word to a row whose current line began at *line (a position in out), wrapping first if it does not fit. */
static tern_rc put_word(printer *p, size_t *line, const char *word, size_t size, size_t indent, size_t width) {
  tern__string *const out = p->out;
  const size_t used = indent + (out->size - *line);
  if (used > indent && used + size > width) {
    size_t end = out->size;
    while (end > *line && out->text[end - 1] == ' ') {
      end--;
    }
    tern__string_truncate(out, end);
    tern_rc rc = tern__string_append(out, "\n", 1);
    rc = rc == TERN_OK ? tern__string_append_fill(out, ' ', indent) : rc;
    if (rc != TERN_OK) {
      return rc;
    }
    *line = out->size;
  }
  return tern__string_append(out, word, size);
}

/* The innermost axis: words and blanks, wrapped. The opening bracket stands in the last column of the indent. */
static tern_rc put_row(printer *p, const char *from) {
  const int axis = p->rank - 1;
  const size_t indent = (size_t)p->indent + (size_t)p->rank;
  const size_t width = LINE_WIDTH - (size_t)p->rank; /* a closing bracket for every axis still fits behind it */
  size_t line = p->out->size;
  tern_rc rc = TERN_OK;
  for (int64_t i = 0; rc == TERN_OK && i < p->shape[axis]; i = next_index(p, axis, i)) {
    char word[2 * TERN__FLOAT_TEXT];
    const int size = element_text(p, step(p, axis, from, i), word);
    rc = put_word(p, &line, word, (size_t)size, indent, width);
    if (rc == TERN_OK && i + 1 < p->shape[axis]) {
      rc = tern__string_append(p->out, " ", 1);
    }
    if (rc == TERN_OK && cut(p, axis) && i == EDGE_ITEMS - 1) {
      rc = put_word(p, &line, "...", 3, indent, width);
      rc = rc == TERN_OK ? tern__string_append(p->out, " ", 1) : rc;
    }
  }
  return rc;
}

/* What separates two rows, planes, ...: one newline more for every axis further in, then the indent. */
static tern_rc put_separator(printer *p, int axis) {
  const tern_rc rc = tern__string_append_fill(p->out, '\n', (size_t)(p->rank - 1 - axis));
  return rc == TERN_OK ? tern__string_append_fill(p->out, ' ', (size_t)p->indent + (size_t)axis + 1) : rc;
}

static tern_rc put_axis(printer *p, int axis, const char *from) {
  tern_rc rc = tern__string_append(p->out, "[", 1);
  if (rc == TERN_OK && axis == p->rank - 1) {
    rc = put_row(p, from);
    return rc == TERN_OK ? tern__string_append(p->out, "]", 1) : rc;
  }
  for (int64_t i = 0; rc == TERN_OK && i < p->shape[axis]; i = next_index(p, axis, i)) {
    rc = put_axis(p, axis + 1, step(p, axis, from, i));
    if (rc == TERN_OK && i + 1 < p->shape[axis]) {
      rc = put_separator(p, axis);
    }
    if (rc == TERN_OK && cut(p, axis) && i == EDGE_ITEMS - 1) {
      rc = tern__string_append(p->out, "...", 3);
      rc = rc == TERN_OK ? put_separator(p, axis) : rc;
    }
  }
  return rc == TERN_OK ? tern__string_append(p->out, "]", 1) : rc;
}

static tern_rc put_scalar(tern__string *out, tern_dtype dtype, const void *data) {
  char text[TERN__FLOAT_TEXT];
  int size;
  if (tern__is_float(dtype)) {
    const tern__float x = tern__float_read(dtype, data);
    size = tern__float_scalar_text(dtype, &x, text);
  } else {
    size = put_discrete(dtype, data, text);
  }
  return tern__string_append(out, text, (size_t)size);
}

/* Elements of a shape, at most THRESHOLD + 1. */
static int64_t count_elements(int rank, const int64_t *shape) {
  int64_t count = 1;
  for (int d = 0; d < rank; d++) {
    if (shape[d] == 0) {
      return 0;
    }
    count = shape[d] > THRESHOLD ? THRESHOLD + 1 : count * shape[d];
    count = count > THRESHOLD ? THRESHOLD + 1 : count;
  }
  return count;
}

static bool acceptable(tern_dtype dtype, int rank, const int64_t *shape, int prefix_columns) {
  if (!traits_of(dtype) || rank < 0 || rank > TERN_MAX_RANK || prefix_columns < 0) {
    return false;
  }
  for (int d = 0; d < rank; d++) {
    if (shape[d] < 0) {
      return false;
    }
  }
  return true;
}

tern_rc tern__format_array(tern__string *out, tern_dtype dtype, int rank, const int64_t *shape, const int64_t *stride,
                           const void *data, int prefix_columns) {
  if (!acceptable(dtype, rank, shape, prefix_columns)) {
    return TERN_E_ARG;
  }
  const int64_t count = count_elements(rank, shape);
  if (count == 0) {
    return tern__string_append(out, "[]", 2);
  }
  if (rank == 0) {
    return put_scalar(out, dtype, data);
  }
  printer p = {.out = out,
               .shape = shape,
               .stride = stride,
               .data = data,
               .dtype = dtype,
               .rank = rank,
               .item_size = traits_of(dtype)->size,
               .width = dtype == TERN_BOOL ? 5 : 0, /* " True" keeps the width of "False" */
               .indent = prefix_columns,
               .summarise = count > THRESHOLD};
  if (tern__is_float(dtype)) {
    tern__float_format_begin(&p.floats, dtype);
    visit(&p, 0, p.data, see);
    tern__float_format_choose(&p.floats);
    visit(&p, 0, p.data, measure);
    tern__float_format_end(&p.floats);
  } else {
    visit(&p, 0, p.data, see);
  }
  const size_t before = out->size;
  const tern_rc rc = put_axis(&p, 0, p.data);
  if (rc != TERN_OK) {
    tern__string_truncate(out, before);
  }
  return rc;
}

tern_rc tern__format_shape(tern__string *out, int rank, const int64_t *shape) {
  const size_t before = out->size;
  tern_rc rc = tern__string_append(out, "(", 1);
  for (int d = 0; rc == TERN_OK && d < rank; d++) {
    rc = tern__string_append(out, ", ", d > 0 ? 2 : 0);
    rc = rc == TERN_OK ? tern__string_append_i64(out, shape[d]) : rc;
  }
  rc = rc == TERN_OK ? tern__string_append_text(out, rank == 1 ? ",)" : ")") : rc;
  if (rc != TERN_OK) {
    tern__string_truncate(out, before);
  }
  return rc;
}

tern_rc tern__format_tensor(tern__string *out, tern_dtype dtype, int rank, const int64_t *shape, const int64_t *stride,
                            const void *data) {
  static const char head[] = "tern.Tensor(";
  if (!acceptable(dtype, rank, shape, 0)) {
    return TERN_E_ARG;
  }
  const size_t before = out->size;
  const int prefix = rank <= 1 ? (int)sizeof head - 1 : 0;
  tern_rc rc = tern__string_append_text(out, head);
  rc = rc == TERN_OK && rank > 1 ? tern__string_append(out, "\n", 1) : rc;
  rc = rc == TERN_OK ? tern__format_array(out, dtype, rank, shape, stride, data, prefix) : rc;
  rc = rc == TERN_OK ? tern__string_append_text(out, ", shape=") : rc;
  rc = rc == TERN_OK ? tern__format_shape(out, rank, shape) : rc;
  rc = rc == TERN_OK ? tern__string_append_text(out, ", dtype=") : rc;
  rc = rc == TERN_OK ? tern__string_append_text(out, tern__format_dtype_name(dtype)) : rc;
  rc = rc == TERN_OK ? tern__string_append(out, ")", 1) : rc;
  if (rc != TERN_OK) {
    tern__string_truncate(out, before);
  }
  return rc;
}
