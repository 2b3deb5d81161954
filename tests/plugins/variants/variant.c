/* The template plugin with something about its table changed: compiled by test_loader.c with -DVARIANT=what. */
#define tern_plugin_query template_query
#include "template.c"
#undef tern_plugin_query

enum {
  WRONG_MAJOR,
  NULL_TABLE,
  NO_NAME,
  SMALL,
  HUGE,
  OLDER,
  NEWER,
  SCORE_0,
  NO_INIT,
  NO_DEVICE_INFO,
  NO_DEVICE_OPEN,
  NO_DEVICE_CLOSE,
  NO_MEM_ALLOC,
  NO_MEM_FREE,
  NO_COPY,
  NO_SUPPORTS,
  NO_COMPILE,
  NO_LAUNCH,
  NO_KERNEL_FREE
};

TERN_EXPORT const tern_backend *tern_plugin_query(uint32_t host_abi);

static int never(void) { return 0; }

const tern_backend *tern_plugin_query(uint32_t host_abi) {
  static struct {
    tern_backend table;
    void *later[16];
  } own; /* what a newer minor would have behind our table */
  const tern_backend *original = template_query(host_abi);
  if (!original || VARIANT == NULL_TABLE) return NULL;
  tern_backend *t = &own.table;
  *t = *original;
  t->name = "variant";
  switch (VARIANT) {
  case WRONG_MAJOR: t->abi = (TERN_ABI_MAJOR + 1) << 16; break;
  case NO_NAME: t->name = NULL; break;
  case SMALL: t->struct_size = 16; break;
  case HUGE: t->struct_size = 1 << 20; break;
  case OLDER: t->struct_size = offsetof(tern_backend, cost); break;
  case NEWER:
    t->struct_size = sizeof own;
    t->abi = TERN_ABI + 3;
    break;
  case SCORE_0: t->score = never; break;
  case NO_INIT: t->init = NULL; break;
  case NO_DEVICE_INFO: t->device_info = NULL; break;
  case NO_DEVICE_OPEN: t->device_open = NULL; break;
  case NO_DEVICE_CLOSE: t->device_close = NULL; break;
  case NO_MEM_ALLOC: t->mem_alloc = NULL; break;
  case NO_MEM_FREE: t->mem_free = NULL; break;
  case NO_COPY: t->copy = NULL; break;
  case NO_SUPPORTS: t->supports = NULL; break;
  case NO_COMPILE: t->compile = NULL; break;
  case NO_LAUNCH: t->launch = NULL; break;
  case NO_KERNEL_FREE: t->kernel_free = NULL; break;
  default: break;
  }
  return t;
}
