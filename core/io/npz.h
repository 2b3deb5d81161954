/* .npz files: a zip file (PKWARE's APPNOTE.TXT, sections 4.3 to 4.5) whose members are .npy files. What reading the
   directory, reading members and writing share. */
#ifndef TERN_CORE_IO_NPZ_H_
#define TERN_CORE_IO_NPZ_H_
#include "io/npy.h"

enum { TERN__ZIP_STORED = 0, TERN__ZIP_DEFLATED = 8 };
#define TERN__ZIP_LOCAL 0x04034b50u
#define TERN__ZIP_CENTRAL 0x02014b50u
#define TERN__ZIP_END 0x06054b50u
#define TERN__ZIP_END64 0x06064b50u
#define TERN__ZIP_LOCATOR64 0x07064b50u

/* One member, checked against the file. */
typedef struct tern__npz_entry {
  char *name;            /* without ".npy"; owned */
  int method;            /* TERN__ZIP_* */
  uint32_t crc;          /* of the array file */
  uint64_t packed, size; /* bytes in the zip file; bytes of the array file */
  uint64_t begin, data;  /* where its local header and its bytes begin */
} tern__npz_entry;

struct tern_npz {
  char *path;
  int fd;
  uint64_t file_size;
  tern__npz_entry *entries;        /* in the order of the directory */
  const tern__npz_entry **by_name; /* sorted */
  int count;
};

tern_rc tern__npz_refuse(const tern_npz *f, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Bytes [at, at + size) of the zip file. Records the error. */
tern_rc tern__npz_bytes(const tern_npz *f, uint64_t at, void *dst, size_t size);
/* Fills in entries, by_name and count: the directory and all local headers are checked, not the members. */
tern_rc tern__npz_directory(tern_npz *f);
/* Why text[0, size) cannot be the name of an array ("is empty"); NULL: it can. Names that a program unpacking the file
   could take for a place outside of its folder are refused, when reading and when writing. */
const char *tern__npz_bad_name(const char *text, size_t size);

/* Little-endian numbers of 2, 4 and 8 bytes. */
static inline uint32_t tern__get16(const unsigned char *p) { return p[0] | (uint32_t)p[1] << 8; }
static inline uint32_t tern__get32(const unsigned char *p) { return tern__get16(p) | tern__get16(p + 2) << 16; }
static inline uint64_t tern__get64(const unsigned char *p) {
  return tern__get32(p) | (uint64_t)tern__get32(p + 4) << 32;
}
#endif
