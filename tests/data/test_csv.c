/* CSV files: quoting, columns, labels, missing fields, words, dtypes, and errors that name line and column. */
#include "data/collect.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static tern_dataset *table(const char *text, const tern_csv_opts *opts) {
  return tern_dataset_csv(test_text_file("t.csv", text, false), opts);
}

static void test_columns(void) {
  const char *text = "\xef\xbb\xbf"
                     "a,\"b \"\"x\"\"\",c\r\n1,2.5,3\r\n\r\n-4,\"5\",6e-1";
  CHECK_SEQUENCE(table(text, NULL), 1, 2.5, 3, -4, 5, 0.6f);
  CHECK_SEQUENCE(table(text, &(tern_csv_opts){.label = "c", .label_dtype = TERN_F64}), 1, 2.5, 3, -4, 5, 0.6);
  CHECK_SEQUENCE(table(text, &(tern_csv_opts){.label = "a"}), 2.5, 3, 1, 5, 0.6f, -4);
  CHECK_SEQUENCE(table(text, &(tern_csv_opts){.columns = (const char *const[]){"2", "b \"x\"", "c"}, .n_columns = 3}),
                 3, 2.5, 3, 0.6f, 5, 0.6f);
  collected c = collect_all(table(text, &(tern_csv_opts){.label = "a", .dtype = TERN_F16}));
  CHECK(c.elements == 2 && c.components == 2 && c.shapes[0] == 1 && c.shapes[1] == 2 && c.shapes[2] == 0, "shapes");
  collected_free(&c);
  const char *plain = "1;2\n3;4\n";
  CHECK_SEQUENCE(table(plain, &(tern_csv_opts){.no_header = 1, .separator = ';', .label = "0"}), 2, 1, 4, 3);
  CHECK_SEQUENCE(tern_dataset_batch(tern_dataset_csv(test_text_file("t.csv.gz", plain, true),
                                                     &(tern_csv_opts){.no_header = 1, .separator = ';'}),
                                    2, NULL),
                 1, 2, 3, 4);
  CHECK_SEQUENCE(table("", &(tern_csv_opts){.no_header = 1}), );
  CHECK_SEQUENCE(table("a,b\n", NULL), );
  /* numbers that have names of columns go by these */
  CHECK_SEQUENCE(table("1,0\n10,20\n", &(tern_csv_opts){.columns = (const char *const[]){"0"}, .n_columns = 1}), 20);
}

static void test_quotes(void) {
  static const char *const words[] = {"", "a,b", "line\nbreak", "\"q\"", "a,b", " x ", NULL};
  const char *text = "w,n\n\"a,b\",1\n\"line\nbreak\",2\n\"\"\"q\"\"\",\"3\"\r\n\"\",4\nq\"q,5\n";
  collected c = collect_all(table(text, &(tern_csv_opts){.words = words}));
  const double expected[] = {1, 1, 2, 2, 3, 3, 0, 4};
  CHECK(c.n_values == 8 && !memcmp(c.values, expected, sizeof expected), "%zu values, %s", c.n_values, c.error[0]);
  CHECK(c.errors == 1 && c.error_at[0] == 4 && strstr(c.error[0], "line 7, column 0 (\"w\"): \"q\"q\" is not a number"),
        "%d errors: %s", c.errors, c.error[0]);
  collected_free(&c);
  c = collect_all(table("a,b\n\"1\"x,2\n3,4\n\"5,6\n7,8\n", NULL));
  CHECK(c.n_values == 2 && c.values[0] == 3, "%zu values", c.n_values);
  CHECK(c.errors == 2 && strstr(c.error[0], "line 2, column 0: text behind the closing quote") &&
            strstr(c.error[1], "line 4, column 0: the file ends inside"),
        "%d errors: %s; %s", c.errors, c.error[0], c.error[1]);
  collected_free(&c);
}

static void test_fields(void) {
  const char *text = "a,b\n 1 ,\t2\n,3\n4,\n";
  CHECK_SEQUENCE(table(text, &(tern_csv_opts){.fill_missing = 1, .missing = -9}), 1, 2, -9, 3, 4, -9);
  collected c = collect_all(table(text, &(tern_csv_opts){.fill_missing = 1, .missing = NAN, .label = "b"}));
  CHECK(c.n_values == 4 && c.values[2] != c.values[2] && c.errors == 1 && c.error_at[0] == 2 &&
            strstr(c.error[0], "line 4, column 1 (\"b\"): the value for missing fields is not an integer (int64)"),
        "%zu values, %s", c.n_values, c.error[0]);
  collected_free(&c);
  c = collect_all(table(text, NULL));
  CHECK(c.errors == 2 && strstr(c.error[0], "line 3, column 0 (\"a\"): the field is empty"), "%s", c.error[0]);
  collected_free(&c);
  /* integers are exact, and stay in their range */
  const tern_csv_opts whole = {.dtype = TERN_I64, .no_header = 1}, small = {.dtype = TERN_U8, .no_header = 1},
                      large = {.dtype = TERN_U64, .no_header = 1}, real = {.dtype = TERN_F64, .no_header = 1};
  tern_dataset *d = table("9223372036854775807\n-9223372036854775808\n9223372036854775808\n1.0\n1.5\n"
                          "1e3\n-9223372036854775809\n",
                          &whole);
  tern_iterator *it = tern_dataset_begin(d);
  tern_dataset_release(d);
  const int64_t expected[] = {INT64_MAX, INT64_MIN, -1, 1, -1, 1000, -1};
  for (int i = 0; i < 7; i++) {
    TERN_SCOPE;
    tern_tensor *out[TERN_MAX_COMPONENTS];
    const int n = tern_iterator_next(it, out);
    int64_t value = 0;
    if (n == 1) tern_to_host(out[0], &value, sizeof value);
    CHECK(expected[i] == -1 ? n == TERN_E_IO : n == 1 && value == expected[i], "row %d: %d, %lld", i, n,
          (long long)value);
    tern_error_clear();
  }
  tern_iterator_end(it);
  c = collect_all(table("255\n256\n-1\n-0\nnan\n", &small));
  CHECK(c.n_values == 2 && c.values[0] == 255 && c.values[1] == 0 && c.errors == 3 &&
            strstr(c.error[0], "\"256\" is out of the dtype's range (uint8)") && strstr(c.error[2], "not an integer"),
        "%zu values; %s; %s", c.n_values, c.error[0], c.error[2]);
  collected_free(&c);
  c = collect_all(table("18446744073709551615\n18446744073709551616\n", &large));
  CHECK(c.n_values == 1 && c.errors == 1, "%zu values, %d errors", c.n_values, c.errors);
  collected_free(&c);
  CHECK_SEQUENCE(table("0.1\n1e400\n123456789012345678901234567890\n.5\n5.\n0x10\n-0.3333333333333333333333\n", &real),
                 0.1, INFINITY, 123456789012345678901234567890.0, .5, 5, 16, -0.3333333333333333333333);
}

/* Against the C library's own rounding, in float32 and float64. */
static void test_numbers(void) {
  uint64_t state = 7;
  char text[8192] = "";
  double expected[200], narrow[200];
  size_t at = 0;
  for (int i = 0; i < 200; i++) {
    char number[40];
    snprintf(number, sizeof number, "%.*f", (int)test_below(&state, 14), test_uniform(&state, -1e5, 1e5));
    if (i % 3 == 0)
      snprintf(number, sizeof number, "%.9ge%d", test_uniform(&state, -10, 10), (int)test_below(&state, 30));
    expected[i] = strtod(number, NULL);
    narrow[i] = strtof(number, NULL);
    at += (size_t)snprintf(text + at, sizeof text - at, "%s\n", number);
  }
  check_sequence(collect_all(table(text, &(tern_csv_opts){.no_header = 1, .dtype = TERN_F64})), expected, 200, __FILE__,
                 __LINE__);
  check_sequence(collect_all(table(text, &(tern_csv_opts){.no_header = 1})), narrow, 200, __FILE__, __LINE__);
}

static void test_errors(void) {
  collected c = collect_all(table("a,b\n1,2\n3\n4,5,6\n7,abc\n8,9\n", NULL));
  CHECK(c.n_values == 4 && c.values[3] == 9 && c.errors == 3, "%zu values, %d errors", c.n_values, c.errors);
  CHECK(strstr(c.error[0], "t.csv, line 3: 1 fields, but the header has 2") != NULL, "%s", c.error[0]);
  CHECK(strstr(c.error[1], "line 4: 3 fields") != NULL, "%s", c.error[1]);
  CHECK(strstr(c.error[2], "t.csv, line 5, column 1 (\"b\"): \"abc\" is not a number") != NULL, "%s", c.error[2]);
  collected_free(&c);

  tern_dataset *d = table("a,b\n1,2\n", &(tern_csv_opts){.label = "z"});
  CHECK(!tern_dataset_begin(d), "no such column");
  CHECK_ERROR(TERN_E_ARG, "no column \"z\"; it has a, b");
  tern_dataset_release(d);
  d = table("a,b\n1,2\n", &(tern_csv_opts){.columns = (const char *const[]){"2"}, .n_columns = 1});
  CHECK(!tern_dataset_begin(d), "no such column");
  CHECK_ERROR(TERN_E_ARG, "no column \"2\"");
  tern_dataset_release(d);
  c = collect_all(table("1,2\n3,4\n", &(tern_csv_opts){.no_header = 1, .label = "x"}));
  CHECK(c.errors == 1 && c.elements == 0 && strstr(c.error[0], "numbers from 0 to 1"), "%s", c.error[0]);
  collected_free(&c);
  d = table("", NULL);
  CHECK(!tern_dataset_begin(d), "an empty file");
  CHECK_ERROR(TERN_E_IO, "t.csv is empty");
  tern_dataset_release(d);
  d = table("a\n1\n", &(tern_csv_opts){.label = "a"});
  CHECK(!tern_dataset_begin(d), "a label alone");
  CHECK_ERROR(TERN_E_ARG, "besides the label");
  tern_dataset_release(d);
  d = tern_dataset_csv(test_file("none.csv", NULL, 0), NULL);
  CHECK(!tern_dataset_begin(d), "a missing file");
  CHECK_ERROR(TERN_E_IO, "none.csv cannot be opened");
  tern_dataset_release(d);
  d = tern_dataset_csv("/tmp", NULL);
  CHECK(!tern_dataset_begin(d), "a folder");
  CHECK_ERROR(TERN_E_IO, "/tmp cannot be read");
  tern_dataset_release(d);
  CHECK(!tern_dataset_csv(NULL, NULL), "accepted");
  CHECK_ERROR(TERN_E_ARG, "the path is NULL");
  CHECK(!table("a\n", &(tern_csv_opts){.separator = '"'}), "accepted");
  CHECK_ERROR(TERN_E_ARG, "separated");
  CHECK(!table("a\n", &(tern_csv_opts){.dtype = (tern_dtype)77}), "accepted");
  CHECK_ERROR(TERN_E_ARG, "not a dtype");
  CHECK(!table("a\n", &(tern_csv_opts){.n_columns = 2}), "accepted");
  CHECK_ERROR(TERN_E_ARG, "2 columns");
}

/* Bytes of any kind end in elements or errors, never in anything else. */
static void test_rubbish(void) {
  uint64_t state = 3;
  static const char alphabet[] = "1,\"\n\r a.-e\0;";
  for (int i = 0; i < 300; i++) {
    char bytes[64];
    const size_t size = (size_t)test_below(&state, sizeof bytes);
    for (size_t k = 0; k < size; k++) bytes[k] = alphabet[test_below(&state, sizeof alphabet - 1)];
    tern_dataset *d = tern_dataset_csv(test_file("r.csv", bytes, size), &(tern_csv_opts){.no_header = i % 2});
    tern_iterator *it = tern_dataset_begin(d);
    int n = 0;
    for (int k = 0; it && k < 200; k++) {
      TERN_SCOPE;
      tern_tensor *out[TERN_MAX_COMPONENTS];
      if ((n = tern_iterator_next(it, out)) == 0) break;
    }
    CHECK(n == 0, "no end");
    tern_iterator_end(it);
    tern_dataset_release(d);
    tern_error_clear();
  }
}

static const test_case cases[] = {{"columns", test_columns}, {"quotes", test_quotes}, {"values", test_fields},
                                  {"numbers", test_numbers}, {"errors", test_errors}, {"rubbish", test_rubbish}};

TEST_MAIN("data csv", cases)
