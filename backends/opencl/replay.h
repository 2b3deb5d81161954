/* A recorded program, for replay.c (recording, update, run) and buffer.c (the same commands as one command buffer). */
#ifndef TERN_OCL_REPLAY_H_
#define TERN_OCL_REPLAY_H_
#include "ocl.h"

enum { COMMAND_KERNEL, COMMAND_COPY, COMMAND_FILL, COMMAND_GEMM };

/* Ready to be enqueued. A cl_kernel is the command's own: its arguments are set once and stay, and nobody else's launch
   changes them. */
struct ocl_command {
  uint8_t kind, pattern_size;
  char what[48];
  tern_program *program;
  cl_kernel kernel, shared; /* shared: the one that it was made from */
  cl_uint dims, n_args;
  size_t global[3], local[3];
  ocl_set *set; /* what the arguments are set to */
  union {
    struct {
      const tern_mem *src, *dst;
      size_t src_off, dst_off, size;
      unsigned char pattern[128];
    } move;
    struct {
      uint32_t dtype;
      ocl_gemm gemm;
    } product;
  };
};

typedef struct replay_launch {
  tern_kernel *kernel;
  tern_launch given; /* args and words are one block of the program's own */
  uint32_t first, n; /* commands */
} replay_launch;

struct tern_program {
  tern_dev *dev;
  tern_queue shadow; /* what the launches are given in place of a queue while they are recorded or updated */
  ocl_command **command;
  replay_launch *launch;
  uint32_t n, cap, n_launches, launch_cap;
  ocl_command *open;  /* arguments are being set; not in the list yet when recording */
  ocl_command broken; /* stands for one that could not be made */
  bool updating;
  uint32_t next;                /* updating: the command that comes next */
  tern_rc failed;               /* of recording */
  bool flagged;                 /* a command may write the queue's flag, which is retained: shadow.flag */
  pthread_mutex_t lock;         /* what follows: two queues may run one program */
  uint32_t freed;               /* dev->freed when the arguments were set */
  bool settled;                 /* every command has run once: see ocl_first_launch */
  bool refused;                 /* the device could not make a command buffer of it */
  uint32_t calm;                /* runs since the last update */
  cl_command_buffer_khr buffer; /* NULL: the commands one by one */
  cl_event running;             /* of the last run of the buffer, where two may not overlap */
};

/* ---- buffer.c ---- */

/* Makes p->buffer where the device and the commands allow it. Caller holds p->lock, or is the only one that has p. */
void ocl_buffer_make(tern_program *p, tern_queue *q);
/* CL_INVALID_OPERATION: its last run is not over, and two may not overlap. Caller holds p->lock. */
cl_int ocl_buffer_run(tern_program *p, tern_queue *q);
void ocl_buffer_drop(tern_program *p);
#endif
