/* Reads the ELF header and program headers (System V ABI, chapters 4 and 5) and compares every segment's extent with
   the file. */
#include "device/elf.h"
#include <elf.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#if defined(__x86_64__)
#define MACHINE EM_X86_64
#elif defined(__aarch64__)
#define MACHINE EM_AARCH64
#else
#define MACHINE EM_NONE
#endif

static const char *check(FILE *f, uint64_t size) {
  Elf64_Ehdr h;
  if (fread(&h, sizeof h, 1, f) != 1) return "the file is too short to be a shared object";
  if (memcmp(h.e_ident, ELFMAG, SELFMAG)) return "not a shared object (no ELF header)";
  if (h.e_ident[EI_CLASS] != ELFCLASS64 || h.e_ident[EI_DATA] != ELFDATA2LSB)
    return "not a 64-bit little-endian shared object";
  if (MACHINE != EM_NONE && h.e_machine != MACHINE) return "a shared object for another kind of processor";
  if (h.e_type != ET_DYN) return "not a shared object (wrong ELF type)";
  if (h.e_phentsize != sizeof(Elf64_Phdr) || h.e_phnum == 0) return "a damaged shared object (program headers)";
  if (h.e_phoff > size || h.e_phnum * sizeof(Elf64_Phdr) > size - h.e_phoff)
    return "truncated: its program headers lie past its end";
  if (fseek(f, (long)h.e_phoff, SEEK_SET)) return "cannot be read";
  bool dynamic = false;
  for (int i = 0; i < h.e_phnum; i++) {
    Elf64_Phdr p;
    if (fread(&p, sizeof p, 1, f) != 1) return "cannot be read";
    dynamic |= p.p_type == PT_DYNAMIC;
    if (p.p_type != PT_LOAD && p.p_type != PT_DYNAMIC) continue;
    if (p.p_offset > size || p.p_filesz > size - p.p_offset) return "truncated: a segment lies past its end";
    if (p.p_type == PT_LOAD && p.p_filesz > p.p_memsz) return "a damaged shared object (segment sizes)";
  }
  if (!dynamic) return "a damaged shared object (no dynamic section)";
  /* a cut in the section headers only does not hurt loading, but says that the copy is incomplete */
  if (h.e_shoff && (h.e_shoff > size || (uint64_t)h.e_shnum * h.e_shentsize > size - h.e_shoff))
    return "truncated: the file is incomplete";
  return NULL;
}

const char *tern__elf_problem(const char *path) {
  struct stat st;
  if (stat(path, &st)) return "cannot be opened";
  if (!S_ISREG(st.st_mode)) return "not a regular file"; /* opening a FIFO would wait for ever */
  FILE *f = fopen(path, "rb");
  if (!f) return "cannot be opened";
  const char *problem = check(f, (uint64_t)st.st_size);
  fclose(f);
  return problem;
}
