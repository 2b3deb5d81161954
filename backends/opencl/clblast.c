/* CLBlast as a provider of DOT. All its calls go through one process-wide lock: concurrent first calls crash it
   (CLBlast issues 486, 495). Its temporary memory is the queue's, because its own piles up while work is in flight
   (issue 185). */
#include "ocl.h"

#include <clblast_c.h>
#include <math.h>
#include <stdlib.h>

static struct { pthread_mutex_t lock; } library = {PTHREAD_MUTEX_INITIALIZER};
enum { OWN_TEMPORARY = 8 }; /* calls in a row whose temporary memory is CLBlast's own */

static cl_int temp_size(cl_command_queue *queue, uint32_t dtype, const ocl_gemm *g, size_t *size) {
  const CLBlastTranspose ta = g->a_t ? CLBlastTransposeYes : CLBlastTransposeNo,
                         tb = g->b_t ? CLBlastTransposeYes : CLBlastTransposeNo;
  const size_t m = (size_t)g->m, n = (size_t)g->n, k = (size_t)g->k, a_off = (size_t)g->a_off, b_off = (size_t)g->b_off,
               c_off = (size_t)g->c_off, lda = (size_t)g->lda, ldb = (size_t)g->ldb, ldc = (size_t)g->ldc;
  *size = 0;
  return (cl_int)(dtype == TERN_F32 ? CLBlastSGemmTempBufferSize(CLBlastLayoutRowMajor, ta, tb, m, n, k, a_off, lda,
                                                                 b_off, ldb, c_off, ldc, queue, size)
                                    : CLBlastDGemmTempBufferSize(CLBlastLayoutRowMajor, ta, tb, m, n, k, a_off, lda,
                                                                 b_off, ldb, c_off, ldc, queue, size));
}

/* The calls that take no temporary memory of ours. */
static cl_int batched(cl_command_queue *queue, uint32_t dtype, const ocl_gemm *g) {
  const CLBlastTranspose ta = g->a_t ? CLBlastTransposeYes : CLBlastTransposeNo,
                         tb = g->b_t ? CLBlastTransposeYes : CLBlastTransposeNo;
  const size_t m = (size_t)g->m, n = (size_t)g->n, k = (size_t)g->k, a_off = (size_t)g->a_off, b_off = (size_t)g->b_off,
               c_off = (size_t)g->c_off, lda = (size_t)g->lda, ldb = (size_t)g->ldb, ldc = (size_t)g->ldc,
               count = (size_t)g->batches, as = (size_t)g->a_step, bs = (size_t)g->b_step, cs = (size_t)g->c_step;
  return (cl_int)(dtype == TERN_F32
                      ? CLBlastSgemmStridedBatched(CLBlastLayoutRowMajor, ta, tb, m, n, k, 1.0f, g->a, a_off, lda, as,
                                                   g->b, b_off, ldb, bs, 0.0f, g->c, c_off, ldc, cs, count, queue, NULL)
                      : CLBlastDgemmStridedBatched(CLBlastLayoutRowMajor, ta, tb, m, n, k, 1.0, g->a, a_off, lda, as,
                                                   g->b, b_off, ldb, bs, 0.0, g->c, c_off, ldc, cs, count, queue,
                                                   NULL));
}

static cl_int convolution(cl_command_queue *queue, uint32_t dtype, const ocl_gemm *g) {
  const size_t batch = (size_t)g->conv.batch, channels = (size_t)g->conv.channels, kernels = (size_t)g->conv.kernels,
               h = (size_t)g->conv.size[0], w = (size_t)g->conv.size[1], th = (size_t)g->conv.taps[0],
               tw = (size_t)g->conv.taps[1], ph = (size_t)g->conv.pad[0], pw = (size_t)g->conv.pad[1],
               sh = (size_t)g->conv.stride[0], sw = (size_t)g->conv.stride[1], dh = (size_t)g->conv.dilation[0],
               dw = (size_t)g->conv.dilation[1], a = (size_t)g->a_off, b = (size_t)g->b_off, c = (size_t)g->c_off;
  const CLBlastKernelMode mode = CLBlastKernelModeCrossCorrelation;
  return (cl_int)(dtype == TERN_F32 ? CLBlastSconvgemm(mode, channels, h, w, th, tw, ph, pw, sh, sw, dh, dw, kernels,
                                                       batch, g->a, a, g->b, b, g->c, c, queue, NULL)
                                    : CLBlastDconvgemm(mode, channels, h, w, th, tw, ph, pw, sh, sw, dh, dw, kernels,
                                                       batch, g->a, a, g->b, b, g->c, c, queue, NULL));
}

static cl_int gemm(cl_command_queue *queue, uint32_t dtype, const ocl_gemm *g, cl_mem temp) {
  const CLBlastTranspose ta = g->a_t ? CLBlastTransposeYes : CLBlastTransposeNo,
                         tb = g->b_t ? CLBlastTransposeYes : CLBlastTransposeNo;
  const size_t m = (size_t)g->m, n = (size_t)g->n, k = (size_t)g->k, a_off = (size_t)g->a_off, b_off = (size_t)g->b_off,
               c_off = (size_t)g->c_off, lda = (size_t)g->lda, ldb = (size_t)g->ldb, ldc = (size_t)g->ldc;
  return (cl_int)(dtype == TERN_F32
                      ? CLBlastSgemmWithTempBuffer(CLBlastLayoutRowMajor, ta, tb, m, n, k, 1.0f, g->a, a_off, lda, g->b,
                                                   b_off, ldb, 0.0f, g->c, c_off, ldc, queue, NULL, temp)
                      : CLBlastDgemmWithTempBuffer(CLBlastLayoutRowMajor, ta, tb, m, n, k, 1.0, g->a, a_off, lda, g->b,
                                                   b_off, ldb, 0.0, g->c, c_off, ldc, queue, NULL, temp));
}

/* Multiply small integers, whose products are exact, and compare. Compiles CLBlast's kernels for this device. */
enum { KNOWN = 24 };
static cl_int known_answer(tern_dev *dev, uint32_t dtype, bool *right) {
  const size_t item = ocl_item_size(dtype);
  double wide[3][KNOWN * KNOWN];
  float narrow[3][KNOWN * KNOWN];
  for (int i = 0; i < KNOWN * KNOWN; i++) {
    wide[0][i] = i * 7 % 11 - 5;
    wide[1][i] = i * 5 % 13 - 6;
    for (int j = 0; j < 2; j++) narrow[j][i] = (float)wide[j][i];
  }
  cl_mem m[3] = {0};
  cl_int err = CL_SUCCESS;
  for (int i = 0; i < 3 && err == CL_SUCCESS; i++) {
    void *from = dtype == TERN_F32 ? (void *)narrow[i] : (void *)wide[i];
    m[i] = clCreateBuffer(dev->context, i < 2 ? CL_MEM_READ_ONLY | CL_MEM_COPY_HOST_PTR : CL_MEM_READ_WRITE,
                          KNOWN * KNOWN * item, i < 2 ? from : NULL, &err);
  }
  const ocl_gemm g = {.m = KNOWN,
                      .n = KNOWN,
                      .k = KNOWN,
                      .lda = KNOWN,
                      .ldb = KNOWN,
                      .ldc = KNOWN,
                      .b_t = true,
                      .a = m[0],
                      .b = m[1],
                      .c = m[2]};
  cl_mem temp = NULL;
  size_t size = 0;
  if (err == CL_SUCCESS) err = temp_size(&dev->aux, dtype, &g, &size);
  if (err == CL_SUCCESS && size) temp = clCreateBuffer(dev->context, CL_MEM_READ_WRITE, size, NULL, &err);
  if (err == CL_SUCCESS) err = gemm(&dev->aux, dtype, &g, temp);
  void *to = dtype == TERN_F32 ? (void *)narrow[2] : (void *)wide[2];
  if (err == CL_SUCCESS) err = clEnqueueReadBuffer(dev->aux, m[2], CL_TRUE, 0, KNOWN * KNOWN * item, to, 0, NULL, NULL);
  *right = err == CL_SUCCESS;
  for (int i = 0; i < KNOWN && *right; i++)
    for (int j = 0; j < KNOWN; j++) {
      double sum = 0;
      for (int k = 0; k < KNOWN; k++) sum += wide[0][i * KNOWN + k] * wide[1][j * KNOWN + k];
      const double got = dtype == TERN_F32 ? (double)narrow[2][i * KNOWN + j] : wide[2][i * KNOWN + j];
      if (fabs(got - sum) > 0) *right = false;
    }
  for (int i = 0; i < 3; i++)
    if (m[i]) clReleaseMemObject(m[i]);
  if (temp) clReleaseMemObject(temp);
  return err;
}

tern_rc ocl_clblast_ready(tern_dev *dev, uint32_t dtype) {
  if ((dtype != TERN_F32 && dtype != TERN_F64) || !dev->id->compiler || dev->id->bundled) return TERN_E_UNSUPPORTED;
  atomic_int *state = &dev->clblast[dtype == TERN_F64];
  if (!atomic_load(state)) {
    pthread_mutex_lock(&library.lock);
    if (!atomic_load(state)) {
      /* the general kernel with padding beats the direct one at every size that was measured */
      const char *names[] = {"XGEMM_MIN_INDIRECT_SIZE"};
      const size_t values[] = {1};
      CLBlastOverrideParameters(dev->id->device, "GemmRoutine",
                                dtype == TERN_F32 ? CLBlastPrecisionSingle : CLBlastPrecisionDouble, 1, names, values);
      bool right = false;
      const cl_int err = known_answer(dev, dtype, &right);
      if (!right)
        ocl_log(dev->drv, 1, "opencl:%s: CLBlast is not used: %s (%d)", dev->id->alias,
                err ? ocl_cl_name(err) : "its answer is wrong on this device", err);
      atomic_store(state, right ? 1 : -1);
    }
    pthread_mutex_unlock(&library.lock);
  }
  return atomic_load(state) > 0 ? TERN_OK : TERN_E_UNSUPPORTED;
}

/* Under the lock. CLBlast's own temporary memory lives until the work is done, and it must not pile up. */
static cl_int with_own_memory(tern_queue *q, uint32_t dtype, const ocl_gemm *g) {
  if (q->gemm_own++ % OWN_TEMPORARY == OWN_TEMPORARY - 1) ocl_finish(q->dev, q->q);
  return g->conv.batch ? convolution(&q->q, dtype, g) : batched(&q->q, dtype, g);
}

static cl_int with_our_memory(tern_dev *dev, tern_queue *q, uint32_t dtype, const ocl_gemm *g) {
  size_t size = 0;
  cl_int err = temp_size(&q->q, dtype, g, &size);
  if (err == CL_SUCCESS && size > q->gemm_temp_size) {
    if (q->gemm_temp) clReleaseMemObject(q->gemm_temp); /* OpenCL keeps it until the work that uses it is done */
    q->gemm_temp_size = 0;
    q->gemm_temp = clCreateBuffer(dev->context, CL_MEM_READ_WRITE, size, NULL, &err);
    if (err == CL_SUCCESS)
      q->gemm_temp_size = size;
    else
      q->gemm_temp = NULL;
  }
  return err == CL_SUCCESS ? gemm(&q->q, dtype, g, q->gemm_temp) : err;
}

tern_rc ocl_clblast_gemm(tern_dev *dev, tern_queue *q, uint32_t dtype, const ocl_gemm *g) {
  if (q->recording) return ocl_record_gemm(q, dtype, g);
  pthread_mutex_lock(&library.lock);
  const cl_int err = g->conv.batch || g->batches > 1 ? with_own_memory(q, dtype, g) : with_our_memory(dev, q, dtype, g);
  pthread_mutex_unlock(&library.lock);
  return err == CL_SUCCESS ? TERN_OK : ocl_failed(dev, g->conv.batch ? "CONV (CLBlast)" : "DOT (CLBlast)", err);
}
