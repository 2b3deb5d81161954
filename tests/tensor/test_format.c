/* The text of arrays, against numpy's: every record of tests/fixtures/print.txt (make_print.py describes the format),
   then the whole line that tern_print shows, argument errors, out of memory and foreign locales.
   With an argument the program checks that fixture file instead. */
#include <CUnit/Basic.h>
#include <CUnit/CUnit.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/format.h"

static const char *fixture_path = TERN_FIXTURES "/print.txt";

typedef struct record {
  tern_dtype dtype;
  int rank, prefix;
  int64_t shape[TERN_MAX_RANK], stride[TERN_MAX_RANK], offset;
  unsigned char *data; /* malloc'ed */
} record;

static tern_dtype dtype_named(const char *name) {
  for (int d = TERN_NO_DTYPE + 1; d < TERN_DTYPE_END; d++) {
    if (strcmp(tern__format_dtype_name((tern_dtype)d), name) == 0) {
      return (tern_dtype)d;
    }
  }
  return TERN_NO_DTYPE;
}

static int read_numbers(const char *text, int64_t *out) {
  int count = 0;
  char *end = NULL;
  for (long long n = strtoll(text, &end, 10); end != text && count < TERN_MAX_RANK; n = strtoll(text, &end, 10)) {
    out[count++] = n;
    text = end;
  }
  return count;
}

/* An exact malloc, so that a sanitizer sees any read outside the record's buffer. */
static unsigned char *read_hex(const char *text) {
  const size_t size = strlen(text) / 2;
  unsigned char *const data = malloc(size + 1);
  if (!data) {
    return NULL;
  }
  for (size_t i = 0; i < size; i++) {
    const char pair[3] = {text[2 * i], text[2 * i + 1], 0};
    data[i] = (unsigned char)strtoul(pair, NULL, 16);
  }
  unsigned char *const exact = realloc(data, size ? size : 1);
  return exact ? exact : data;
}

static void unescape(char *text) {
  char *to = text;
  for (const char *from = text; *from; from++) {
    if (from[0] == '\\' && from[1] == 'n') {
      *to++ = '\n';
      from++;
    } else {
      *to++ = *from;
    }
  }
  *to = '\0';
}

static int item_size(tern_dtype dtype) {
  static const int sizes[TERN_DTYPE_END] = {0, 1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 2, 4, 8};
  return sizes[dtype];
}

/* Formats the record and compares; answers whether it is equal, and prints both texts otherwise. */
static int check_record(const record *r, const char *expected, int number) {
  tern__string text = {0};
  const unsigned char *const origin = r->data + r->offset * item_size(r->dtype);
  const tern_rc rc = tern__format_array(&text, r->dtype, r->rank, r->shape, r->stride, origin, r->prefix);
  const int equal = rc == TERN_OK && strcmp(text.text, expected) == 0;
  if (!equal) {
    printf("\nrecord %d (%s): rc %d\n--- numpy\n%s\n--- tern\n%s\n", number, tern__format_dtype_name(r->dtype), rc,
           expected, text.text ? text.text : "");
  }
  tern__string_free(&text);
  return equal;
}

static void test_numpy_text(void) {
  FILE *const file = fopen(fixture_path, "r");
  CU_ASSERT_PTR_NOT_NULL_FATAL(file);
  char *line = NULL;
  size_t capacity = 0;
  record r = {0};
  int records = 0, equal = 0;
  for (ssize_t size = getline(&line, &capacity, file); size > 0; size = getline(&line, &capacity, file)) {
    line[size - 1] = '\0';
    if (strncmp(line, "dtype ", 6) == 0) {
      r = (record){.dtype = dtype_named(line + 6)};
    } else if (strncmp(line, "shape", 5) == 0) {
      r.rank = read_numbers(line + 5, r.shape);
    } else if (strncmp(line, "stride", 6) == 0) {
      CU_ASSERT_EQUAL(read_numbers(line + 6, r.stride), r.rank);
    } else if (strncmp(line, "offset ", 7) == 0) {
      r.offset = atoll(line + 7);
    } else if (strncmp(line, "prefix ", 7) == 0) {
      r.prefix = atoi(line + 7);
    } else if (strncmp(line, "data ", 5) == 0) {
      r.data = read_hex(line + 5);
      CU_ASSERT_PTR_NOT_NULL_FATAL(r.data);
    } else if (strncmp(line, "text ", 5) == 0) {
      unescape(line + 5);
      equal += check_record(&r, line + 5, ++records);
      free(r.data);
    }
  }
  free(line);
  fclose(file);
  printf("%d of %d as numpy prints them ", equal, records);
  CU_ASSERT_EQUAL(equal, records);
  CU_ASSERT_TRUE(records > 500);
}

static void expect_tensor(tern_dtype dtype, int rank, const int64_t *shape, const void *data, const char *expected) {
  int64_t stride[TERN_MAX_RANK];
  int64_t step = 1;
  for (int d = rank - 1; d >= 0; d--) {
    stride[d] = step;
    step *= shape[d];
  }
  tern__string text = {0};
  CU_ASSERT_EQUAL_FATAL(tern__format_tensor(&text, dtype, rank, shape, stride, data), TERN_OK);
  CU_ASSERT_STRING_EQUAL(text.text, expected);
  CU_ASSERT_EQUAL(text.size, strlen(expected));
  tern__string_free(&text);
}

static void test_tensor_line(void) {
  const float floats[] = {5, 7, 9, 0.5f};
  const int64_t three[] = {3}, square[] = {2, 2}, none[] = {0}, flat[] = {0, 3};
  expect_tensor(TERN_F32, 1, three, floats, "tern.Tensor([5. 7. 9.], shape=(3,), dtype=float32)");
  expect_tensor(TERN_F32, 2, square, floats, "tern.Tensor(\n[[5.  7. ]\n [9.  0.5]], shape=(2, 2), dtype=float32)");
  expect_tensor(TERN_F32, 0, NULL, floats, "tern.Tensor(5.0, shape=(), dtype=float32)");
  expect_tensor(TERN_I64, 1, none, NULL, "tern.Tensor([], shape=(0,), dtype=int64)");
  expect_tensor(TERN_BOOL, 2, flat, NULL, "tern.Tensor(\n[], shape=(0, 3), dtype=bool)");
  const uint16_t half = 0x3f80; /* bfloat16 1.0 */
  expect_tensor(TERN_BF16, 0, NULL, &half, "tern.Tensor(1.0, shape=(), dtype=bfloat16)");
  int8_t bytes[30];
  memset(bytes, -100, sizeof bytes);
  const int64_t thirty[] = {30};
  expect_tensor(TERN_I8, 1, thirty, bytes,
                "tern.Tensor([-100 -100 -100 -100 -100 -100 -100 -100 -100 -100 -100 -100\n"
                "             -100 -100 -100 -100 -100 -100 -100 -100 -100 -100 -100 -100\n"
                "             -100 -100 -100 -100 -100 -100], shape=(30,), dtype=int8)");
}

static void test_appends_after_text(void) {
  tern__string text = {0};
  const int64_t shape[] = {2}, stride[] = {-1};
  const int32_t data[] = {1, 22};
  CU_ASSERT_EQUAL(tern__string_append_text(&text, "x = "), TERN_OK);
  CU_ASSERT_EQUAL(tern__format_array(&text, TERN_I32, 1, shape, stride, data + 1, 4), TERN_OK);
  CU_ASSERT_STRING_EQUAL(text.text, "x = [22  1]");
  tern__string_free(&text);
}

static void test_bad_arguments(void) {
  tern__string text = {0};
  const int64_t shape[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1}, stride[9] = {0}, negative[] = {-1};
  const double x = 1;
  CU_ASSERT_EQUAL(tern__string_append_text(&text, "kept"), TERN_OK);
  CU_ASSERT_EQUAL(tern__format_array(&text, TERN_NO_DTYPE, 1, shape, stride, &x, 0), TERN_E_ARG);
  CU_ASSERT_EQUAL(tern__format_array(&text, TERN_DTYPE_END, 1, shape, stride, &x, 0), TERN_E_ARG);
  CU_ASSERT_EQUAL(tern__format_array(&text, TERN_F64, 9, shape, stride, &x, 0), TERN_E_ARG);
  CU_ASSERT_EQUAL(tern__format_array(&text, TERN_F64, -1, shape, stride, &x, 0), TERN_E_ARG);
  CU_ASSERT_EQUAL(tern__format_array(&text, TERN_F64, 1, negative, stride, &x, 0), TERN_E_ARG);
  CU_ASSERT_EQUAL(tern__format_array(&text, TERN_F64, 1, shape, stride, &x, -1), TERN_E_ARG);
  CU_ASSERT_EQUAL(tern__format_tensor(&text, TERN_NO_DTYPE, 1, shape, stride, &x), TERN_E_ARG);
  CU_ASSERT_STRING_EQUAL(text.text, "kept");
  tern__string_free(&text);
}

static void test_huge_broadcast(void) {
  const int64_t shape[] = {INT64_C(1) << 40, INT64_C(1) << 40}, stride[] = {0, 0};
  const uint8_t seven = 7;
  tern__string text = {0};
  CU_ASSERT_EQUAL(tern__format_array(&text, TERN_U8, 2, shape, stride, &seven, 0), TERN_OK);
  CU_ASSERT_STRING_EQUAL(text.text, "[[7 7 7 ... 7 7 7]\n [7 7 7 ... 7 7 7]\n [7 7 7 ... 7 7 7]\n ...\n"
                                    " [7 7 7 ... 7 7 7]\n [7 7 7 ... 7 7 7]\n [7 7 7 ... 7 7 7]]");
  tern__string_free(&text);
}

static void test_locale(void) {
  const float x = 1.5f;
  for (size_t i = 0; i < 3; i++) {
    static const char *const names[] = {"de_DE.UTF-8", "fr_FR.UTF-8", "C.UTF-8"};
    if (setlocale(LC_ALL, names[i])) {
      expect_tensor(TERN_F32, 0, NULL, &x, "tern.Tensor(1.5, shape=(), dtype=float32)");
    }
  }
  setlocale(LC_ALL, "C");
}

static void test_string(void) {
  tern__string s = {0};
  CU_ASSERT_EQUAL(tern__string_append_i64(&s, INT64_MIN), TERN_OK);
  CU_ASSERT_EQUAL(tern__string_append_fill(&s, ' ', 2), TERN_OK);
  CU_ASSERT_EQUAL(tern__string_append_u64(&s, UINT64_MAX), TERN_OK);
  CU_ASSERT_EQUAL(tern__string_append_format(&s, " %s=%d", "n", 3), TERN_OK);
  CU_ASSERT_STRING_EQUAL(s.text, "-9223372036854775808  18446744073709551615 n=3");
  CU_ASSERT_EQUAL(tern__string_append_fill(&s, 'x', SIZE_MAX - 4), TERN_E_OOM);
  CU_ASSERT_EQUAL(s.size, strlen(s.text));
  tern__string_truncate(&s, 3);
  CU_ASSERT_STRING_EQUAL(s.text, "-92");
  tern__string_free(&s);
  CU_ASSERT_PTR_NULL(s.text);
}

int main(int argc, char **argv) {
  if (argc > 1) {
    fixture_path = argv[1];
  }
  if (CU_initialize_registry() != CUE_SUCCESS) {
    return 2;
  }
  CU_pSuite suite = CU_add_suite("tensor/format", NULL, NULL);
  CU_add_test(suite, "every record as numpy prints it", test_numpy_text);
  CU_add_test(suite, "tern.Tensor(...)", test_tensor_line);
  CU_add_test(suite, "appends after text", test_appends_after_text);
  CU_add_test(suite, "bad arguments leave the text", test_bad_arguments);
  CU_add_test(suite, "2^80 elements", test_huge_broadcast);
  CU_add_test(suite, "locale", test_locale);
  CU_add_test(suite, "string", test_string);
  CU_basic_set_mode(CU_BRM_VERBOSE);
  CU_basic_run_tests();
  const unsigned failures = CU_get_number_of_failures();
  CU_cleanup_registry();
  return failures ? 1 : 0;
}
