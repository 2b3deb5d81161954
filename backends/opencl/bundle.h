/* Bundles: kernels that were compiled ahead of time (docs/fpga.md). bundle.c reads the manifests that the program names
   and gives a device the traits that its text was rendered for; images.c loads their images, one at a time; collect.c
   is the device for which nothing is ever run, only collected. */
#ifndef TERN_OCL_BUNDLE_H_
#define TERN_OCL_BUNDLE_H_
#include "manifest.h"
#include "ocl.h"

typedef struct ocl_bundle { /* lives as long as the driver */
  char *path;
  cJSON *m; /* NULL: refused */
  manifest_traits traits;
  char why[MANIFEST_WHY];
} ocl_bundle;

struct ocl_bundles {
  uint32_t n;
  ocl_bundle *at;
};

/* The manifests of the option "bundle". Those that cannot be used are said so in the log, and by the devices that they
   might have been for when these are opened. */
tern_rc ocl_bundles_open(tern_drv *drv);
void ocl_bundles_close(tern_drv *drv);
/* Behind the enumeration: devices get their bundles, and the collecting device its place in the list. */
tern_rc ocl_bundles_apply(tern_drv *drv);
/* Does this image run on that device? why: where it is for that kind of device, but not for this one. */
bool ocl_image_matches(const cJSON *image, const ocl_id *id, char why[MANIFEST_WHY]);

/* Puts the device's images, and what their compilers' reports say, before a text for people. */
void ocl_bundle_features(const tern_drv *drv, const ocl_id *id, char *out, size_t room);

/* ---- images.c: of an open device, dev->images ---- */

/* Checks every image of the device's bundles and loads the first. Nothing for a device without a bundle. */
tern_rc ocl_images_open(tern_dev *dev);
void ocl_images_close(tern_dev *dev);
bool ocl_images_hold(const tern_dev *dev, const uint64_t key[2]);
/* Around a launch: the image that holds the kernel's section is on the device, and stays. */
tern_rc ocl_images_enter(tern_dev *dev, tern_queue *q, tern_kernel *k);
void ocl_images_leave(tern_dev *dev);
/* Several images, so that a kernel may go away: launches cannot be recorded. */
bool ocl_images_change(const tern_dev *dev);
/* What a change must save, and what it takes away. */
void ocl_images_add_mem(tern_dev *dev, tern_mem *mem);
void ocl_images_drop_mem(tern_dev *dev, tern_mem *mem);
void ocl_images_note(tern_dev *dev, cl_kernel *slot);
void ocl_images_forget(tern_dev *dev, const tern_kernel *k);
/* For tern-bundle: compiles the .cl of the manifest that the option "bundle_image" names and records the image. */
tern_rc ocl_image_make(tern_dev *dev, const char *manifest);

/* ---- collect.c ---- */

bool ocl_collect_wanted(const tern_drv *drv);
tern_rc ocl_collect_describe(tern_drv *drv, ocl_id *id);
tern_rc ocl_collect_open(tern_dev *dev); /* dev->collect */
void ocl_collect_close(tern_dev *dev);
/* Around the compilation of a region: its sections are its own. */
void ocl_collect_begin(tern_dev *dev, const tern_region *r);
tern_rc ocl_collect_end(tern_dev *dev, tern_rc rc);
void ocl_collect_section(tern_dev *dev, const uint64_t key[2], const char *text, const char *what);
tern_rc ocl_collect_alloc(tern_dev *dev, const tern_mem_desc *want, tern_mem **out);
void ocl_collect_free(tern_mem *mem);
tern_rc ocl_collect_copy(tern_dev *dev, const tern_copy *c);
tern_rc ocl_collect_fill(tern_mem *mem, uint64_t off, uint64_t size, const void *pattern, uint32_t pattern_size);
#endif
