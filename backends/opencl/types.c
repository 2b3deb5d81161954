/* Element types in OpenCL C. float16 and bfloat16 are stored in 16 bits and computed in float32, so they need no
   extension. */
#include "ocl.h"

static const struct {
  const char *name, *storage, *compute;
  uint8_t size;
} types[TERN_DTYPE_END] = {
    [TERN_BOOL] = {"bool", "uchar", "uchar", 1},      [TERN_I8] = {"int8", "char", "char", 1},
    [TERN_I16] = {"int16", "short", "short", 2},      [TERN_I32] = {"int32", "int", "int", 4},
    [TERN_I64] = {"int64", "long", "long", 8},        [TERN_U8] = {"uint8", "uchar", "uchar", 1},
    [TERN_U16] = {"uint16", "ushort", "ushort", 2},   [TERN_U32] = {"uint32", "uint", "uint", 4},
    [TERN_U64] = {"uint64", "ulong", "ulong", 8},     [TERN_F16] = {"float16", "half", "float", 2},
    [TERN_BF16] = {"bfloat16", "ushort", "float", 2}, [TERN_F32] = {"float32", "float", "float", 4},
    [TERN_F64] = {"float64", "double", "double", 8}};

static bool known(uint32_t dtype) { return dtype < TERN_DTYPE_END && types[dtype].size; }
uint32_t ocl_item_size(uint32_t dtype) { return known(dtype) ? types[dtype].size : 0; }
const char *ocl_dtype_name(uint32_t dtype) { return known(dtype) ? types[dtype].name : "unknown"; }
const char *ocl_storage(uint32_t dtype) { return known(dtype) ? types[dtype].storage : "void"; }
const char *ocl_compute(uint32_t dtype) { return known(dtype) ? types[dtype].compute : "void"; }
bool ocl_is_float(uint32_t dtype) { return dtype >= TERN_F16 && dtype <= TERN_F64; }
bool ocl_has_dtype(const ocl_id *id, uint32_t dtype) {
  if (!known(dtype) || !ocl_can_run(id)) return false;
  if (dtype == TERN_F64) return id->fp64;
  return (dtype != TERN_I64 && dtype != TERN_U64) || id->int64;
}

void ocl_add_prelude(ocl_text *t, const tern_dev *dev, bool idx32) {
  if (dev->id->fp64) ocl_add(t, "#ifdef cl_khr_fp64\n#pragma OPENCL EXTENSION cl_khr_fp64 : enable\n#endif\n");
  /* sizes and strides come as long; ix is what indices are computed in */
  ocl_add(t, "typedef %s ix;\n", idx32 ? "int" : "long");
  ocl_add(t, "float bf16_load(ushort v) { return as_float((uint)v << 16); }\n"
             "ushort bf16_store(float f) {\n"
             "  const uint u = as_uint(f);\n"
             "  if ((u & 0x7fffffffu) > 0x7f800000u) return (ushort)(u >> 16 | 0x40u);\n"
             "  return (ushort)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);\n"
             "}\n");
}

void ocl_add_dtype(ocl_text *t, const char *p, uint32_t dtype) {
  ocl_add(t, "typedef %s %s_T;\ntypedef %s %s_C;\n", ocl_storage(dtype), p, ocl_compute(dtype), p);
  if (dtype == TERN_F16)
    ocl_add(
        t,
        "#define %s_LD(q, i) vload_half((size_t)(i), q)\n#define %s_ST(q, i, v) vstore_half_rte(v, (size_t)(i), q)\n",
        p, p);
  else if (dtype == TERN_BF16)
    ocl_add(t, "#define %s_LD(q, i) bf16_load((q)[i])\n#define %s_ST(q, i, v) ((q)[i] = bf16_store(v))\n", p, p);
  else
    ocl_add(t, "#define %s_LD(q, i) ((q)[i])\n#define %s_ST(q, i, v) ((q)[i] = (v))\n", p, p);
}
