/* How well this build of the CPU backend suits the machine. Compiled with baseline flags whatever the rest of the
   variant uses, so that asking never executes an instruction the machine lacks. The build says which variant:
   TERN_CPU_ISA. */
#include "cpu.h"
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#ifndef TERN_CPU_ISA
#define TERN_CPU_ISA 0 /* 0 baseline, 1 AVX2, 2 AVX-512 */
#endif

#if TERN_CPU_ISA > 0
/* CPUID leaf 1, ECX bit 29. clang's __builtin_cpu_supports has no name for it */
static bool has_f16c(void) {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx >> 29 & 1);
}
#endif

int cpu_score(void) {
#if TERN_CPU_ISA == 0
  return 10;
#else
  /* __builtin_cpu_supports also checks that the system saves the wide registers (XGETBV) */
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
#if TERN_CPU_ISA == 1
  return avx2 ? 20 : 0;
#else
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512cd");
  return avx2 && avx512 ? 30 : 0;
#endif
#endif
}
