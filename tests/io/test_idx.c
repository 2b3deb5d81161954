/* The IDX reader: good files of every element type, plain and gzipped, and every way in which a file can be wrong.
   Files are made in a temporary folder; a wrong one must be refused with TERN_E_IO and a message that names it. */
#include <CUnit/Basic.h>
#include <CUnit/CUnit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "io/idx.h"

static char folder[] = "/tmp/tern-idx-XXXXXX";
static char path[sizeof folder + 16];
static char message[512];

static void write_file(const void *bytes, size_t size) {
  FILE *const file = fopen(path, "wb");
  CU_ASSERT_PTR_NOT_NULL_FATAL(file);
  CU_ASSERT_EQUAL(fwrite(bytes, 1, size, file), size);
  CU_ASSERT_EQUAL(fclose(file), 0);
}

/* Gzips bytes into packed, answers the packed size. */
static size_t pack(const void *bytes, size_t size, unsigned char *packed, size_t room) {
  z_stream z = {0};
  CU_ASSERT_EQUAL_FATAL(deflateInit2(&z, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
  z.next_in = (Bytef *)(uintptr_t)bytes;
  z.avail_in = (uInt)size;
  z.next_out = packed;
  z.avail_out = (uInt)room;
  CU_ASSERT_EQUAL(deflate(&z, Z_FINISH), Z_STREAM_END);
  (void)deflateEnd(&z);
  return room - z.avail_out;
}

static void expect_refused(const char *part) {
  tern__idx idx = {.rank = 5};
  memset(message, 'x', sizeof message);
  CU_ASSERT_EQUAL(tern__idx_read(path, &idx, message, sizeof message), TERN_E_IO);
  CU_ASSERT_PTR_NULL(idx.data);
  CU_ASSERT_EQUAL(idx.rank, 0);
  CU_ASSERT_PTR_NOT_NULL(memchr(message, 0, sizeof message));
  CU_ASSERT_PTR_NOT_NULL(strstr(message, path));
  const int says = strstr(message, part) != NULL;
  if (!says) {
    printf("\nexpected \"%s\" in: %s\n", part, message);
  }
  CU_ASSERT_TRUE(says);
}

static void refuse(const void *bytes, size_t size, const char *part) {
  write_file(bytes, size);
  expect_refused(part);
}

static void expect_read(tern_dtype dtype, int rank, const int64_t *shape, const void *data, size_t size) {
  tern__idx idx;
  const tern_rc rc = tern__idx_read(path, &idx, message, sizeof message);
  if (rc != TERN_OK) {
    printf("\n%s\n", message);
  }
  CU_ASSERT_EQUAL_FATAL(rc, TERN_OK);
  CU_ASSERT_STRING_EQUAL(message, "");
  CU_ASSERT_EQUAL(idx.dtype, dtype);
  CU_ASSERT_EQUAL_FATAL(idx.rank, rank);
  CU_ASSERT_EQUAL(memcmp(idx.shape, shape, (size_t)rank * sizeof *shape), 0);
  CU_ASSERT_EQUAL_FATAL(idx.size, size);
  CU_ASSERT_PTR_NOT_NULL_FATAL(idx.data);
  CU_ASSERT_EQUAL(memcmp(idx.data, data, size), 0);
  tern__idx_free(&idx);
  CU_ASSERT_PTR_NULL(idx.data);
  tern__idx_free(&idx);
}

/* Checks the same bytes plain, gzipped and as two gzip members. */
static void accept(const unsigned char *bytes, size_t size, tern_dtype dtype, int rank, const int64_t *shape,
                   const void *data, size_t data_size) {
  unsigned char packed[512];
  write_file(bytes, size);
  expect_read(dtype, rank, shape, data, data_size);
  write_file(packed, pack(bytes, size, packed, sizeof packed));
  expect_read(dtype, rank, shape, data, data_size);
  const size_t first = pack(bytes, 5, packed, sizeof packed);
  write_file(packed, first + pack(bytes + 5, size - 5, packed + first, sizeof packed - first));
  expect_read(dtype, rank, shape, data, data_size);
}

static void test_every_type(void) {
  const int64_t two[] = {2}, square[] = {2, 1};
  const unsigned char u8[] = {0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 1, 7, 255};
  accept(u8, sizeof u8, TERN_U8, 2, square, (const uint8_t[]){7, 255}, 2);
  const unsigned char i8[] = {0, 0, 9, 1, 0, 0, 0, 2, 7, 255};
  accept(i8, sizeof i8, TERN_I8, 1, two, (const int8_t[]){7, -1}, 2);
  const unsigned char i16[] = {0, 0, 11, 1, 0, 0, 0, 2, 1, 2, 255, 254};
  accept(i16, sizeof i16, TERN_I16, 1, two, (const int16_t[]){258, -2}, 4);
  const unsigned char i32[] = {0, 0, 12, 1, 0, 0, 0, 2, 0, 1, 2, 3, 255, 255, 255, 253};
  accept(i32, sizeof i32, TERN_I32, 1, two, (const int32_t[]){66051, -3}, 8);
  const unsigned char f32[] = {0, 0, 13, 1, 0, 0, 0, 2, 0x3f, 0xc0, 0, 0, 0xc0, 0x20, 0, 0};
  accept(f32, sizeof f32, TERN_F32, 1, two, (const float[]){1.5f, -2.5f}, 8);
  const unsigned char f64[] = {0, 0, 14, 1, 0, 0, 0, 2, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0, 0xc0, 4, 0, 0, 0, 0, 0, 0};
  accept(f64, sizeof f64, TERN_F64, 1, two, (const double[]){1.5, -2.5}, 16);
}

static void test_empty_array(void) {
  const unsigned char bytes[] = {0, 0, 14, 2, 0, 0, 0, 0, 0, 0, 0, 3};
  const int64_t shape[] = {0, 3};
  accept(bytes, sizeof bytes, TERN_F64, 2, shape, "", 0);
}

static void test_large(void) { /* several pieces and buffers, hard to pack */
  enum { N = 700001 };
  unsigned char *const bytes = malloc(8 + N), *const packed = malloc(N + 4096);
  CU_ASSERT_PTR_NOT_NULL_FATAL(bytes);
  CU_ASSERT_PTR_NOT_NULL_FATAL(packed);
  memcpy(bytes, (const unsigned char[]){0, 0, 8, 1, N >> 24, N >> 16 & 255, N >> 8 & 255, N & 255}, 8);
  uint32_t state = 1;
  for (int i = 0; i < N; i++) {
    state = state * 1664525u + 1013904223u;
    bytes[8 + i] = (unsigned char)(state >> 24);
  }
  const int64_t shape[] = {N};
  write_file(bytes, 8 + N);
  expect_read(TERN_U8, 1, shape, bytes + 8, N);
  const size_t size = pack(bytes, 8 + N, packed, N + 4096);
  write_file(packed, size);
  expect_read(TERN_U8, 1, shape, bytes + 8, N);
  refuse(packed, size - 100, "cut off");
  refuse(bytes, N, "truncated");
  free(bytes);
  free(packed);
}

static const unsigned char sound[] = {0, 0, 11, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};

static void test_truncated_anywhere(void) {
  unsigned char packed[256];
  for (size_t size = 0; size < sizeof sound; size++) {
    refuse(sound, size, size < 4 ? "magic" : size < 12 ? "header" : "truncated");
    const size_t inner = pack(sound, size, packed, sizeof packed); /* a sound gzip of a truncated file */
    refuse(packed, inner, size < 4 ? "magic" : size < 12 ? "header" : "truncated");
  }
  const size_t whole = pack(sound, sizeof sound, packed, sizeof packed);
  for (size_t size = 0; size < whole; size++) {
    refuse(packed, size, size < 2 ? "magic" : "cut off");
  }
}

static void test_trailing_bytes(void) {
  unsigned char longer[sizeof sound + 1], packed[256];
  memcpy(longer, sound, sizeof sound);
  longer[sizeof sound] = 0;
  refuse(longer, sizeof longer, "more data");
  refuse(packed, pack(longer, sizeof longer, packed, sizeof packed), "more data");
  size_t size = pack(sound, sizeof sound, packed, sizeof packed);
  memcpy(packed + size, "garbage behind gzip", 19);
  refuse(packed, size + 19, "corrupt");
  refuse(packed, size + 1, "cut off");
  size += pack(sound, 1, packed + size, sizeof packed - size);
  refuse(packed, size, "more data");
}

static void test_corrupt_gzip(void) { /* every bit of a gzip file flipped */
  unsigned char packed[256];
  const size_t size = pack(sound, sizeof sound, packed, sizeof packed);
  for (size_t bit = 0; bit < size * 8; bit++) {
    const size_t byte = bit / 8;
    packed[byte] ^= (unsigned char)(1 << bit % 8);
    write_file(packed, size);
    tern__idx idx;
    const tern_rc rc = tern__idx_read(path, &idx, message, sizeof message);
    packed[byte] ^= (unsigned char)(1 << bit % 8);
    /* RFC 1952: time, extra flags, system and the text flag carry no data; nor do the last block's spare bits (1951) */
    const int spare = (byte >= 4 && byte <= 9) || bit == 3 * 8 || byte == size - 9;
    CU_ASSERT_TRUE(rc == TERN_E_IO || (rc == TERN_OK && spare));
    if (rc == TERN_OK) {
      CU_ASSERT_EQUAL(idx.size, 12);
      CU_ASSERT_EQUAL(((const int16_t *)idx.data)[5], 0x0b0c);
    }
    tern__idx_free(&idx);
  }
}

static void refuse_header(unsigned b0, unsigned b1, unsigned type, unsigned rank, const char *part) {
  unsigned char bytes[4 + 255 * 4];
  memset(bytes, 0, sizeof bytes);
  for (size_t i = 7; i < sizeof bytes; i += 4) {
    bytes[i] = 1;
  }
  bytes[0] = (unsigned char)b0;
  bytes[1] = (unsigned char)b1;
  bytes[2] = (unsigned char)type;
  bytes[3] = (unsigned char)rank;
  refuse(bytes, sizeof bytes, part);
}

static void test_wrong_headers(void) {
  refuse_header(1, 0, 8, 1, "begins with bytes 01 00 08 01");
  refuse_header(0, 1, 8, 1, "not an IDX file");
  refuse_header(0x1f, 0x8a, 8, 1, "not an IDX file");
  refuse_header(0x1f, 0x8b, 0, 1, "corrupt");
  refuse_header(0, 0, 8, 0, "rank is 0, expected 1 to 8");
  refuse_header(0, 0, 8, 9, "rank is 9, expected 1 to 8");
  refuse_header(0, 0, 8, 255, "rank is 255");
  for (unsigned type = 0; type < 256; type++) {
    if (type < 8 || type == 10 || type > 14) {
      char part[32];
      snprintf(part, sizeof part, "element type 0x%02x", type);
      refuse_header(0, 0, type, 1, part);
    }
  }
}

static void test_implausible_sizes(void) {
  unsigned char bytes[4 + 8 * 4 + 16], packed[256];
  memset(bytes, 0xff, sizeof bytes);
  memcpy(bytes, (const unsigned char[]){0, 0, 14, 8}, 4);
  refuse(bytes, sizeof bytes, "multiply");
  memset(bytes + 4, 0, 4); /* an empty array whose other sizes overflow */
  refuse(bytes, sizeof bytes, "multiply");
  const unsigned char claim[] = {0, 0, 8, 2, 0xff, 0xff, 0xff, 0xff, 0x40, 0, 0, 0, 1, 2, 3}; /* 2^62 bytes, holds 3 */
  const char *const says = "holds 3 bytes of data, expected 4611686017353646080";
  refuse(claim, sizeof claim, says);
  refuse(packed, pack(claim, sizeof claim, packed, sizeof packed), says);
}

static void test_no_file(void) {
  char kept[sizeof path];
  memcpy(kept, path, sizeof path);
  snprintf(path, sizeof path, "%s/absent", folder);
  expect_refused("No such file");
  snprintf(path, sizeof path, "%s", folder);
  expect_refused("cannot be");
  memcpy(path, kept, sizeof path);
}

static void test_message_size(void) {
  write_file("abcd", 4);
  tern__idx idx;
  for (size_t size = 1; size < 120; size++) {
    char *const exact = malloc(size);
    CU_ASSERT_PTR_NOT_NULL_FATAL(exact);
    CU_ASSERT_EQUAL(tern__idx_read(path, &idx, exact, size), TERN_E_IO);
    CU_ASSERT_TRUE(strlen(exact) < size);
    free(exact);
  }
  CU_ASSERT_EQUAL(tern__idx_read(path, &idx, NULL, 0), TERN_E_IO);
}

int main(void) {
  if (!mkdtemp(folder) || CU_initialize_registry() != CUE_SUCCESS) {
    return 2;
  }
  snprintf(path, sizeof path, "%s/file", folder);
  CU_pSuite suite = CU_add_suite("io/idx", NULL, NULL);
  CU_add_test(suite, "every element type, plain and gzipped", test_every_type);
  CU_add_test(suite, "no elements", test_empty_array);
  CU_add_test(suite, "700,001 elements", test_large);
  CU_add_test(suite, "truncated at every byte", test_truncated_anywhere);
  CU_add_test(suite, "trailing bytes", test_trailing_bytes);
  CU_add_test(suite, "every bit of a gzip flipped", test_corrupt_gzip);
  CU_add_test(suite, "wrong headers", test_wrong_headers);
  CU_add_test(suite, "implausible sizes", test_implausible_sizes);
  CU_add_test(suite, "no such file, a folder", test_no_file);
  CU_add_test(suite, "message buffers of every size", test_message_size);
  CU_basic_set_mode(CU_BRM_VERBOSE);
  CU_basic_run_tests();
  const unsigned failures = CU_get_number_of_failures();
  CU_cleanup_registry();
  (void)unlink(path);
  (void)rmdir(folder);
  return failures ? 1 : 0;
}
