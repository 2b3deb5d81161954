/* Recorded launches. While a queue records, the kernels' launch functions run as always, but get a shadow of the queue:
   ocl_call_of then hands out a cl_kernel made for that one command, which keeps its arguments, and ocl_run appends the
   command to the program in place of enqueueing it. A replay enqueues the list, or a command buffer made of it
   (buffer.c). An update runs one launch function again over the commands that it made. */
#include "replay.h"

#include <stdio.h>
#include <stdlib.h>

static tern_rc no_memory(const tern_dev *dev) {
  return ocl_error(dev->drv, dev->id, TERN_E_OOM, "no memory to record launches");
}

static void command_free(ocl_command *m) {
  if (!m) return;
  if (m->kernel && ocl_alive()) clReleaseKernel(m->kernel); /* the runtime keeps it while work in flight uses it */
  free(m->set);
  free(m);
}

static bool append(tern_program *p, ocl_command *m) {
  if (p->n == p->cap) {
    const uint32_t cap = p->cap ? p->cap * 2 : 16;
    ocl_command **grown = realloc(p->command, cap * sizeof *grown);
    if (!grown) return false;
    p->command = grown;
    p->cap = cap;
  }
  p->command[p->n++] = m;
  return true;
}

/* ---- what the launch functions reach while they are recorded or updated; q is the shadow ---- */

/* Another cl_kernel of the same function. */
static cl_int make_kernel(ocl_command *m, cl_kernel shared) {
  char name[256];
  cl_program program;
  cl_int err = clGetKernelInfo(shared, CL_KERNEL_PROGRAM, sizeof program, &program, NULL);
  if (err == CL_SUCCESS) err = clGetKernelInfo(shared, CL_KERNEL_FUNCTION_NAME, sizeof name, name, NULL);
  if (err == CL_SUCCESS) err = clGetKernelInfo(shared, CL_KERNEL_NUM_ARGS, sizeof m->n_args, &m->n_args, NULL);
  if (err != CL_SUCCESS) return err;
  m->set = calloc(m->n_args ? m->n_args : 1, sizeof *m->set);
  if (!m->set) return CL_OUT_OF_HOST_MEMORY;
  m->shared = shared;
  m->kernel = clCreateKernel(program, name, &err);
  return err;
}

/* An update: the next command of the launch, if it is of this kind. */
static ocl_command *next_command(tern_program *p, uint8_t kind) {
  return p->next < p->n && p->command[p->next]->kind == kind ? p->command[p->next] : NULL;
}

ocl_call ocl_record_call(tern_queue *q, cl_kernel kernel) {
  tern_program *p = q->recording;
  cl_int err = CL_SUCCESS;
  ocl_command *m;
  if (p->updating) {
    m = next_command(p, COMMAND_KERNEL);
    if (!m || m->shared != kernel) { /* the launch takes another way now */
      p->failed = TERN_E_UNSUPPORTED;
      err = CL_INVALID_KERNEL;
    }
  } else {
    command_free(p->open); /* of a call that was given up */
    p->open = m = calloc(1, sizeof *m);
    err = m ? make_kernel(m, kernel) : CL_OUT_OF_HOST_MEMORY;
    if (m) m->program = p;
  }
  if (err != CL_SUCCESS) return (ocl_call){.rc = err, .command = &p->broken};
  return (ocl_call){.kernel = m->kernel, .command = m};
}

void ocl_record_arg(ocl_call *c, size_t size, const void *value) {
  ocl_command *m = c->command;
  const cl_uint i = c->n++;
  if (!m->kernel || c->rc != CL_SUCCESS) return;
  const bool kept = size <= sizeof m->set->value && value && i < m->n_args;
  ocl_set now = {.size = (uint32_t)size, .freed = atomic_load_explicit(&m->program->dev->freed, memory_order_relaxed)};
  if (kept) {
    memcpy(&now.value, value, size);
    const ocl_set *set = &m->set[i];
    if (set->value == now.value && set->size == now.size && set->freed == now.freed) return;
  }
  c->rc = clSetKernelArg(m->kernel, i, size, value);
  if (kept) m->set[i] = c->rc == CL_SUCCESS ? now : (ocl_set){0};
}

tern_rc ocl_record_run(tern_dev *dev, ocl_call *c, const char *what, cl_uint dims, const size_t *global,
                       const size_t *local) {
  ocl_command *m = c->command;
  tern_program *p = m->program;
  if (p->updating)
    p->next++;
  else if (append(p, m))
    p->open = NULL;
  else
    return no_memory(dev);
  bool same = m->dims == dims;
  for (cl_uint d = 0; d < dims; d++) {
    same &= m->global[d] == global[d];
    m->global[d] = global[d];
    m->local[d] = local[d];
  }
  m->dims = dims;
  if (!same) {
    p->settled = false;
    snprintf(m->what, sizeof m->what, "%s", what);
  }
  return TERN_OK;
}

tern_rc ocl_record_gemm(tern_queue *q, uint32_t dtype, const ocl_gemm *g) {
  tern_program *p = q->recording;
  ocl_command *m;
  if (p->updating) {
    m = next_command(p, COMMAND_GEMM);
    p->next++;
    if (!m) return p->failed = TERN_E_UNSUPPORTED;
  } else {
    m = calloc(1, sizeof *m);
    if (!m || !append(p, m)) {
      free(m);
      return no_memory(p->dev);
    }
  }
  m->kind = COMMAND_GEMM;
  m->program = p;
  m->product.dtype = dtype;
  m->product.gemm = *g;
  return TERN_OK;
}

cl_mem ocl_record_flag(tern_queue *q) {
  q->recording->flagged = true;
  return q->flag;
}

/* ---- recording; q is the queue itself ---- */

/* A place for one more launch with a copy of what the core gives, which is valid during the call only. */
static replay_launch *add_launch(tern_program *p, tern_kernel *k, const tern_launch *l) {
  if (p->n_launches == p->launch_cap) {
    const uint32_t cap = p->launch_cap ? p->launch_cap * 2 : 16;
    replay_launch *grown = realloc(p->launch, cap * sizeof *grown);
    if (!grown) return NULL;
    p->launch = grown;
    p->launch_cap = cap;
  }
  const size_t args = l->n_args * sizeof *l->args, words = l->n_words * sizeof *l->words;
  char *block = malloc(args + words + 1);
  if (!block) return NULL;
  if (args) memcpy(block, l->args, args);
  if (words) memcpy(block + args, l->words, words);
  replay_launch *at = &p->launch[p->n_launches++];
  *at = (replay_launch){.kernel = k, .given = *l, .first = p->n};
  at->given.args = (const tern_arg *)(void *)block;
  at->given.words = (const tern_word *)(void *)(block + args);
  return at;
}

static tern_rc call_kernel(tern_program *p, const replay_launch *at) {
  pthread_mutex_lock(&at->kernel->lock);
  tern_rc rc = ocl_kernel_ready(p->dev, at->kernel);
  if (!rc) rc = at->kernel->launch(p->dev, &p->shadow, at->kernel, &at->given);
  pthread_mutex_unlock(&at->kernel->lock);
  return rc;
}

tern_rc ocl_record_launch(tern_dev *dev, tern_queue *q, tern_kernel *k, const tern_launch *l) {
  tern_program *p = q->recording;
  if (p->failed) return p->failed;
  replay_launch *at = add_launch(p, k, l);
  if (!at) return p->failed = no_memory(dev);
  const tern_rc rc = call_kernel(p, at);
  at->n = p->n - at->first;
  return p->failed = rc;
}

static tern_rc record_move(tern_dev *dev, tern_program *p, const ocl_command *what) {
  if (p->failed) return p->failed;
  ocl_command *m = malloc(sizeof *m);
  if (m) *m = *what;
  if (!m || !append(p, m)) {
    free(m);
    return p->failed = no_memory(dev);
  }
  m->program = p;
  return TERN_OK;
}

tern_rc ocl_record_copy(tern_dev *dev, tern_queue *q, const tern_copy *c) {
  if (c->host_src || c->host_dst)
    return q->recording->failed =
               ocl_error(dev->drv, dev->id, TERN_E_UNSUPPORTED, "copies from or to the host cannot be recorded");
  ocl_command m = {.kind = COMMAND_COPY, .what = "a copy"};
  m.move.src = c->src, m.move.dst = c->dst;
  m.move.src_off = (size_t)c->src_off, m.move.dst_off = (size_t)c->dst_off, m.move.size = (size_t)c->size;
  return record_move(dev, q->recording, &m);
}

tern_rc ocl_record_fill(tern_dev *dev, tern_queue *q, tern_mem *mem, uint64_t off, uint64_t size, const void *pat,
                        uint32_t pat_size) {
  ocl_command m = {.kind = COMMAND_FILL, .what = "a fill", .pattern_size = (uint8_t)pat_size};
  m.move.dst = mem, m.move.dst_off = (size_t)off, m.move.size = (size_t)size;
  memcpy(m.move.pattern, pat, pat_size);
  return record_move(dev, q->recording, &m);
}

tern_rc ocl_program_begin(tern_dev *dev, tern_queue *q) {
  if (!ocl_alive()) return ocl_forked(dev->drv);
  if (!dev->replays.list) return TERN_E_UNSUPPORTED;
  if (q->recording) return ocl_error(dev->drv, dev->id, TERN_E_ARG, "this queue records launches already");
  const tern_rc rc = ocl_queue_enter(q);
  if (rc) return rc;
  tern_program *p = calloc(1, sizeof *p);
  if (!p) return no_memory(dev);
  p->dev = dev;
  p->broken.program = p;
  p->freed = atomic_load(&dev->freed);
  p->shadow = (tern_queue){.dev = dev, .flag = q->flag, .recording = p};
  clRetainMemObject(q->flag);
  pthread_mutex_init(&p->lock, NULL);
  q->recording = p;
  return TERN_OK;
}

tern_rc ocl_program_end(tern_dev *dev, tern_queue *q, tern_program **out) {
  *out = NULL;
  if (!ocl_alive()) return ocl_forked(dev->drv);
  tern_program *p = q->recording;
  if (!p) return ocl_error(dev->drv, dev->id, TERN_E_ARG, "this queue records no launches");
  q->recording = NULL;
  command_free(p->open);
  p->open = NULL;
  if (p->failed) {
    const tern_rc rc = p->failed;
    ocl_program_free(dev, p);
    return rc;
  }
  ocl_buffer_make(p, q);
  *out = p;
  return TERN_OK;
}

/* Runs a launch function over the commands that it made. Caller holds p->lock. */
static tern_rc resolve(tern_program *p, const replay_launch *at) {
  ocl_buffer_drop(p); /* it has the old arguments */
  p->calm = 0;
  p->refused = false;
  p->updating = true;
  p->next = at->first;
  const tern_rc rc = call_kernel(p, at);
  p->updating = false;
  if (!p->failed && rc) p->failed = rc; /* the launch may be half changed: the next run begins with refresh */
  if (!p->failed && p->next != at->first + at->n) p->failed = TERN_E_UNSUPPORTED; /* fewer than were recorded */
  return p->failed;
}

tern_rc ocl_program_update(tern_dev *dev, tern_program *p, uint32_t nth, const tern_launch *l) {
  if (!ocl_alive()) return ocl_forked(dev->drv);
  replay_launch *at = nth < p->n_launches ? &p->launch[nth] : NULL;
  if (!at || at->given.n_args != l->n_args || at->given.n_words != l->n_words)
    return ocl_error(dev->drv, dev->id, TERN_E_ARG,
                     "a program of %u launches has no launch %u of %u arguments and %u words", p->n_launches, nth,
                     l->n_args, l->n_words);
  pthread_mutex_lock(&p->lock);
  memcpy((void *)(uintptr_t)at->given.args, l->args, l->n_args * sizeof *l->args);
  memcpy((void *)(uintptr_t)at->given.words, l->words, l->n_words * sizeof *l->words);
  at->given.workspace = l->workspace;
  const tern_rc rc = p->failed ? TERN_OK : resolve(p, at);
  pthread_mutex_unlock(&p->lock);
  return rc;
}

/* All launches anew, where that may be needed: after an update that failed, and when a tern_mem was freed, which may
   have come back at its address with another buffer, and nobody updates a launch then. */
static tern_rc refresh(tern_program *p) {
  const uint32_t freed = atomic_load_explicit(&p->dev->freed, memory_order_relaxed);
  if (p->freed == freed && !p->failed) return TERN_OK;
  tern_rc rc = p->failed = TERN_OK;
  for (uint32_t i = 0; i < p->n_launches && !rc; i++) rc = resolve(p, &p->launch[i]);
  if (!rc) p->freed = freed;
  return rc;
}

/* ---- running ---- */

static cl_int enqueue_move(tern_queue *q, const ocl_command *m) {
  ocl_use(q, m->move.src);
  ocl_use(q, m->move.dst);
  if (m->kind == COMMAND_COPY)
    return clEnqueueCopyBuffer(q->q, m->move.src->buffer, m->move.dst->buffer, m->move.src_off, m->move.dst_off,
                               m->move.size, 0, NULL, NULL);
  return clEnqueueFillBuffer(q->q, m->move.dst->buffer, m->move.pattern, m->pattern_size, m->move.dst_off, m->move.size,
                             0, NULL, NULL);
}

static tern_rc run_list(tern_program *p, tern_queue *q) {
  tern_dev *dev = p->dev;
  for (uint32_t i = 0; i < p->n; i++) {
    const ocl_command *m = p->command[i];
    cl_int err;
    if (m->kind == COMMAND_KERNEL) {
      err = clEnqueueNDRangeKernel(q->q, m->kernel, m->dims, NULL, m->global, m->local, 0, NULL, NULL);
      if ((!p->settled || dev->late_always) && err == CL_SUCCESS && dev->late &&
          ocl_first_launch(dev, m->shared, m->dims, m->global))
        err = ocl_finish(dev, q->q);
    } else if (m->kind == COMMAND_GEMM) {
      const tern_rc rc = ocl_clblast_gemm(dev, q, m->product.dtype, &m->product.gemm);
      if (rc) return rc;
      continue;
    } else {
      err = enqueue_move(q, m);
    }
    if (err != CL_SUCCESS) return ocl_queue_failed(q, m->what, err);
  }
  p->settled = true;
  return TERN_OK;
}

/* Its own list, unless the command buffer is ready, or worth making: nothing was updated between two runs. */
static tern_rc run(tern_program *p, tern_queue *q) {
  for (uint32_t i = 0; p->dev->staged && i < p->n_launches; i++) ocl_use_launch(q, &p->launch[i].given);
  if (p->dev->replays.buffer && p->settled) {
    if (!p->buffer && !p->refused && ++p->calm > 1) ocl_buffer_make(p, q);
    if (p->buffer) {
      const cl_int err = ocl_buffer_run(p, q);
      if (err == CL_SUCCESS) return TERN_OK;
      if (err != CL_INVALID_OPERATION) return ocl_queue_failed(q, "a command buffer", err);
    }
  }
  return run_list(p, q);
}

tern_rc ocl_program_run(tern_dev *dev, tern_queue *q, const tern_program *given) {
  tern_program *p = (tern_program *)(uintptr_t)given; /* what its lock guards may change */
  if (!ocl_alive()) return ocl_forked(dev->drv);
  if (q->recording) return ocl_error(dev->drv, dev->id, TERN_E_UNSUPPORTED, "a program cannot be part of another");
  if (p->flagged && q->flag != p->shadow.flag)
    return ocl_error(dev->drv, dev->id, TERN_E_UNSUPPORTED,
                     "this program reports indices out of range to the queue that it was recorded on; run it there");
  tern_rc rc = ocl_queue_enter(q);
  if (rc) return rc;
  pthread_mutex_lock(&p->lock);
  rc = refresh(p);
  if (!rc && p->flagged) q->flagged = true;
  if (!rc) rc = run(p, q);
  pthread_mutex_unlock(&p->lock);
  return rc;
}

void ocl_program_free(tern_dev *dev, tern_program *p) {
  (void)dev;
  if (!p) return;
  ocl_buffer_drop(p);
  command_free(p->open);
  for (uint32_t i = 0; i < p->n; i++) command_free(p->command[i]);
  if (ocl_alive()) clReleaseMemObject(p->shadow.flag);
  pthread_mutex_destroy(&p->lock);
  for (uint32_t i = 0; i < p->n_launches; i++) free((void *)(uintptr_t)p->launch[i].given.args);
  free(p->command);
  free(p->launch);
  free(p);
}
