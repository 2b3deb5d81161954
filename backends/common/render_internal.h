/* What the render_*.c files share: growing text, a kernel under construction, the table of parameters that bind fills
   in. */
#ifndef TERN_RENDER_INTERNAL_H_
#define TERN_RENDER_INTERNAL_H_
#include "nest.h"
#include "render.h"

typedef struct render_text {
  char *s;
  size_t n, room;
  bool failed;
} render_text;
void render__put(render_text *, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* What a kernel parameter is; id: argument slot, word, value or workspace slot */
enum { RP_ARG, RP_ARG_OFFSET, RP_WS, RP_SLOT_OFFSET, RP_PARTIAL_OFFSET, RP_WORD, RP_PARAM, RP_CHUNK, RP_PARTS };
typedef struct render_param {
  uint8_t what;
  uint32_t id;
} render_param;

enum { RK_MAP, RK_ROWS, RK_GROUP, RK_PASS, RK_FOLD, RK_COLUMNS }; /* the forms of a kernel */
typedef struct render_unit {                                      /* one form of one nest */
  uint32_t nest, form, pass, code;
  bool wide; /* index type: long instead of int */
  render_param *param;
  uint32_t n_param;
} render_unit;
typedef struct render_code { /* one kernel: of one unit, or of several alike ones (render_share.c) */
  char *text, *canon;
  uint8_t *shared; /* by parameter: all units have the same */
  uint32_t form, unit /* whose names the text has */, n_units, slots, n_args;
  char name[80];
} render_code;

/* A kernel being written. Names in the text: A arguments, O their byte offsets, W workspace, S slot offsets, T the
   partials' offset, w words, p PARAMs, i indices, m / n pointers to a value in an argument / in the workspace, r its
   row's first element, b the same for one run, x a loaded value, v a computed one, a / c / k accumulators (value,
   compensation, index). */
typedef struct render_kernel_text {
  const nest_plan *plan;
  const tern_region *r;
  const nest *t;
  const render_device *dev;
  render_unit *u;
  render_text head, body;
  uint8_t *used[2]; /* by value: its pointer (argument, workspace) is declared */
  uint8_t *loaded;  /* by value: x... exists in the present scope; 2: at row scope */
  bool group, failed, columns /* lanes are rows at present */;
  bool bypass; /* a vector loop whose stores bypass the cache is being written */
  bool second; /* a vector that adds to the second of two sums is being written */
  bool only_reduced; /* loops run over the reduced dims (a row's), else over all (a map) */
} render_kernel_text;

extern const char *const render__ctype[TERN_DTYPE_END];
extern const char *const render__storage[TERN_DTYPE_END];

void render__param(render_kernel_text *, uint32_t what, uint32_t id);
/* Text of a size, stride or word; static ring of buffers is avoided: the caller gives one of 48 bytes */
const char *render__size(render_kernel_text *, int64_t size, char buf[48]);

void render__constant(render_kernel_text *, uint32_t value, render_text *);

/* The value of a PARAM among the words, as a kernel argument */
void render__bind_param(const tern_value *, const tern_word *words, render_actual *);

/* render_expr.c: the expression of MAP node n, operands in in[]; appended to the body */
void render__expr(render_kernel_text *, uint32_t node, const char *const *in, render_text *);
void render__literal(render_text *, uint32_t dtype, tern_word);
/* render_reduce.c: accumulators */
void render__acc_declare(render_kernel_text *, uint32_t node);
void render__acc_step(render_kernel_text *, uint32_t node, const char *x);
void render__acc_group(render_kernel_text *, uint32_t node);            /* all lanes get the group's total */
void render__acc_save(render_kernel_text *, uint32_t node, uint32_t k); /* to partial number k of this part */
void render__acc_load(render_kernel_text *, uint32_t node, uint32_t k); /* fold partial k of part q in */
void render__acc_finish(render_kernel_text *, uint32_t node);           /* declare v<out> */
/* The vector form (float16) of a float32 MAP primitive; NULL: there is none */
const char *render__vector_form(uint32_t op);
void render__vector_expand(render_text *, const char *form, const char *const *in);
/* render_vector.c: sixteen elements at a time along the last loop dim, for CPU-like devices */
bool render__vector_ok(const render_kernel_text *, uint32_t pass);
void render__vector_loop(render_kernel_text *, uint32_t pass);
bool render__columns_ok(render_kernel_text *);
void render__columns(render_kernel_text *);
/* render_loop.c: references to memory, and a whole kernel */
typedef struct render_ref {
  uint32_t value, to, mem;
} render_ref;
uint32_t render__loop_dims(const render_kernel_text *);
render_ref render__holder(const render_kernel_text *, uint32_t holder);
void render__element(render_kernel_text *, const render_ref *, bool full, render_text *);
/* The body, which begins where ITEM (the work-item, the group in the group forms) is known; and the types of its
   parameters, for comparing */
bool render__kernel(const nest_plan *, const render_device *, render_unit *, render_text *signature, render_text *body);
bool render__is_aliased(const tern_region *, uint32_t slot); /* another parameter may name the same memory */
bool render__has_columns(const nest_plan *, const render_device *, uint32_t nest_number);
/* render_share.c */
/* *which: the code of this text, made (then it takes the text) when there is none like it. codes has room */
bool render__share(render_code *codes, uint32_t *n_codes, const render_text *signature, render_text *text, uint32_t form,
                   uint32_t *which);
void render__slots(render_code *, uint32_t bytes_each, uint32_t bytes_shared, uint32_t max_bytes);
/* The kernel, by the unit whose names it has. Its arguments: of each slot those that are not shared, the shared ones
   among those of slot 0, then where the range of each slot but the first begins */
void render__emit(const render_code *, const render_unit *, const tern_region *, const render_device *, render_text *);
void render__each_index(render_kernel_text *);
void render__forget_run(render_kernel_text *);
#endif
