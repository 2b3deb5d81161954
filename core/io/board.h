/* TensorBoard's event files: records of a protobuf message (board.proto) each. What writing records and making the
   messages share. */
#ifndef TERN_CORE_IO_BOARD_H_
#define TERN_CORE_IO_BOARD_H_
#include "board.pb-c.h"
#include "tensor/tensor.h"
#include <tern/io.h>

/* TensorFlow's numbers of dtypes. */
enum { TERN__BOARD_STRING = 7 };

/* The event with its time as the next record. Records the error. */
tern_rc tern__board_event(tern_board *b, const char *op, Tern__Board__Event *event);
/* A summary of this one value under the tag, which is checked. */
tern_rc tern__board_value(tern_board *b, const char *op, const char *tag, int64_t step, Tern__Board__Value *value);
/* The same for a tensor of n strings that a plugin of TensorBoard shows. */
tern_rc tern__board_strings(tern_board *b, const char *op, const char *tag, int64_t step, const char *plugin,
                            int data_class, ProtobufCBinaryData *strings, int n);
/* The writer and the tensor can be used. t: a snapshot of *t on return. */
tern_rc tern__board_tensor(const tern_board *b, const char *op, tern_tensor **t);
/* Where the file is, for messages. */
const char *tern__board_path(const tern_board *b);

/* CRC-32C (polynomial 0x1edc6f41, RFC 3720 appendix B.4) and what a record holds of it: TFRecord rotates it and adds a
   constant, so that the checksum of data with checksums in it is not a special one. */
uint32_t tern__crc32c(const void *data, size_t size);
uint32_t tern__crc32c_masked(const void *data, size_t size);

/* A PNG file of 8-bit pixels [height, width, channels], channels 1 to 4: grey, grey and alpha, RGB, RGB and alpha.
   Owned by the caller (free). NULL with the error set; op is for its text. */
unsigned char *tern__png(const char *op, const unsigned char *pixels, int64_t height, int64_t width, int channels,
                         size_t *size);
#endif
