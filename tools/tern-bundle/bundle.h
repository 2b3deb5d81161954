/* What the files of tern-bundle share. */
#ifndef TERN_TOOL_BUNDLE_H_
#define TERN_TOOL_BUNDLE_H_
#include <opencl/manifest.h>
#include <stdio.h>

enum { MOST_INPUTS = 64, MOST_HINTS = 64 };

typedef struct bundle_request {
  const char *command, *manifest, *out, *ops, *device, *file, *only, *board, *image;
  const char *graph[MOST_INPUTS], *size[MOST_INPUTS], *hint[MOST_HINTS], *trait[MOST_HINTS];
  int n_graphs, n_sizes, n_hints, n_traits;
  const char *target;
  bool json;
} bundle_request;

/* Each gives the exit status. */
int bundle_make(const bundle_request *q);  /* make.c */
int bundle_image(const bundle_request *q); /* image.c */
int bundle_add_image(const bundle_request *q);
int bundle_check(const bundle_request *q);  /* check.c */
int bundle_report(const bundle_request *q); /* report.c */
int bundle_failed(const char *what, const char *why);
/* Prints figures of an image's report, or nothing. */
void bundle_print_report(const cJSON *image, const char *indent);
#endif
