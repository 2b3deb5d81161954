/* A look at a shared object before dlopen sees it: a truncated one can kill the process with SIGBUS. */
#ifndef TERN_DEVICE_ELF_H_
#define TERN_DEVICE_ELF_H_
#include <stddef.h>
/* NULL when the file is an ELF shared object of this machine whose segments lie inside it, else why not (static
   text). */
const char *tern__elf_problem(const char *path);
#endif
