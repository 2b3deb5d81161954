/* The manifest of a bundle: a JSON file beside one .cl, which says for which device the text was rendered, which
   sections it holds and which images were made of it. Read by the plugin, written by it and by tern-bundle, which
   compiles this file too: nothing here knows OpenCL. docs/formats.md has the members. */
#ifndef TERN_OCL_MANIFEST_H_
#define TERN_OCL_MANIFEST_H_
#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MANIFEST_VERSION = 1, MANIFEST_WHY = 640 };

/* What decides the text of a kernel beside its region. */
typedef struct manifest_traits {
  bool task;     /* single work-items with pipelined loops where that form exists */
  bool cpu_like; /* few wide cores */
  bool fp64, fp16, int64;
  uint32_t group, units, float_width, max_arg_bytes; /* group: the largest work-group */
  uint64_t local_mem;
} manifest_traits;

/* Traits of a target by its name: fpga, fpga-ndrange, gpu, cpu. */
bool manifest_target(const char *name, manifest_traits *out);
const char *manifest_targets(void); /* their names */
/* "group=64": false: there is no such trait, or no such value. */
bool manifest_set_trait(manifest_traits *t, const char *text);
/* A target with traits behind it, "fpga" or "fpga,group=64". */
bool manifest_read_target(const char *text, char name[32], manifest_traits *t);
bool manifest_same_traits(const manifest_traits *a, const manifest_traits *b);

void manifest_key_text(const uint64_t key[2], char out[33]); /* high half first */
bool manifest_key_read(const char *text, uint64_t key[2]);   /* the whole text */
/* Whether a section of the manifest goes by these n characters: the beginning of its key, or what it is */
bool manifest_section_is(const cJSON *section, const char *name, size_t n);
void manifest_hash(const void *data, size_t size, char out[33]); /* XXH3-128 */

/* A whole file with a 0 behind it, malloc'ed; NULL, and why, when it cannot be read or is larger than `most` bytes. */
char *manifest_load(const char *path, size_t most, size_t *size, char why[MANIFEST_WHY]);
bool manifest_store(const char *path, const void *data, size_t size, char why[MANIFEST_WHY]); /* beside, then renamed */
/* The path of a file that a manifest names: relative to the manifest's folder. malloc'ed. */
char *manifest_beside(const char *manifest, const char *file);

cJSON *manifest_new(const char *target, const manifest_traits *t, uint32_t abi, uint32_t render_version);
/* The object of a file whose version is known and whose hash is right, else NULL and why. Free with cJSON_Delete. */
cJSON *manifest_read(const char *path, char why[MANIFEST_WHY]);
/* Sets the hash. */
bool manifest_write(cJSON *m, const char *path, char why[MANIFEST_WHY]);
/* Was it made for this ABI and renderer? */
bool manifest_fits(const cJSON *m, const char *path, uint32_t abi, uint32_t render_version, char why[MANIFEST_WHY]);
bool manifest_read_traits(const cJSON *m, manifest_traits *out);
/* The bytes of an image (or, with "source", of the .cl), after its size and hash were compared. */
char *manifest_payload(const cJSON *entry, const char *path, size_t *size, char why[MANIFEST_WHY]);
/* A file's name, size and hash go into an entry. */
bool manifest_set_file(cJSON *entry, const char *path, const char *file, char why[MANIFEST_WHY]);

const char *manifest_string(const cJSON *object, const char *name); /* "" when it is not there */
/* Whether an image holds a section: all of them, or those that it lists. */
bool manifest_image_holds(const cJSON *image, const char *key);

/* A section for the manifest, from its text: its kernels, their work-group sizes and arguments. NULL: no memory. */
cJSON *manifest_section(const char *text, const uint64_t key[2], const char *what, const char *signature);
/* What a vendor's compiler said of an image (its member "report"), in one line for people. False: nothing. */
bool manifest_report_line(const cJSON *report, char *out, size_t room);
bool manifest_hint_valid(const char *hint); /* KEY=VALUE, or WHAT:KEY=VALUE for the sections that WHAT names */
#endif
