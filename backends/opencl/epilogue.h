/* The MAP nodes behind a DOT or CONV: text from the renderer (common/render.h), called where the product's kernels
   would store. Where that cannot be (CLBlast; an OUT over an operand of the product) the product goes to the workspace
   and the kernel `finish` applies them in a second enqueue of the same launch. */
#ifndef TERN_OCL_EPILOGUE_H_
#define TERN_OCL_EPILOGUE_H_
#include "ocl.h"

#include <common/render.h>

typedef struct ocl_epilogue { /* part of a kernel; all NULL: there is none */
  render_epilogue *text;
  render_actual *actuals; /* used under the kernel's lock */
  cl_kernel finish;
} ocl_epilogue;

render_device ocl_render_device(const ocl_id *id); /* region.c */

/* v: operands and result of the region's only node of op [low, high]; *out: NULL when it is alone. lanes: the dim along
   which sixteen elements are one vector, -1 the last. UNSUPPORTED: not such a region. */
tern_rc ocl_epilogue_read(const tern_dev *dev, const tern_region *r, uint32_t low, uint32_t high, int lanes,
                          const tern_value *v[3], render_epilogue **out);
/* Functions, and E_X(acc): the product's element as the functions take it. p: prefix of its dtype's macros. */
void ocl_add_epilogue(ocl_text *t, const tern_dev *dev, const render_epilogue *e, uint32_t dtype, const char *p);
void ocl_add_finish(ocl_text *t, const tern_dev *dev, const render_epilogue *e, uint32_t rank, bool vector,
                    const char *p);
/* Takes `text` in any case. Where the section has `finish`, the kernel's ready step makes that. */
tern_rc ocl_epilogue_init(tern_dev *dev, ocl_epilogue *e, render_epilogue *text);
void ocl_epilogue_end(ocl_epilogue *e);
/* Appends the arguments of the epilogue */
void ocl_epilogue_args(const ocl_epilogue *e, const tern_launch *l, ocl_call *c);
/* product: dense, of these sizes */
tern_rc ocl_epilogue_finish(tern_dev *dev, tern_queue *q, const ocl_epilogue *e, const tern_launch *l,
                            const tern_arg *product, uint32_t dtype, uint32_t rank, const int64_t *size);
#endif
