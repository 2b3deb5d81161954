/* tern-check: tests a plugin through the ABI alone, without libtern, against the reference evaluator of the plugin
   kit. */
#include "check.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "usage: tern-check [options] libtern-NAME.so\n"
    "Loads a plugin by itself and tests its ABI, memory, copies, queues, threads and every primitive, dtype and layout "
    "that it\n"
    "claims. Exit status: 0 all passed, 1 something failed, 2 wrong usage, 77 the plugin has no device here.\n"
    "  --device N         device N only (default: all but the hidden ones)\n"
    "  --filter TEXT      only what has TEXT in its name (\"ADD float32\", \"composite\", \"memory: fill\"): any\n"
    "                     part of a name after FAIL; a TEXT that is in none is wrong usage\n"
    "  --quick            fewer layouts and sizes\n"
    "  --slice N          one case in N, always the same ones (for devices that compile slowly)\n"
    "  --min-claimed N    fail when a device claims fewer than N cases\n"
    "  --option KEY=TEXT  a setting for the plugin, as TERN_<PLUGIN>_<KEY> would be\n"
    "  --show N           print N failures in full (default 20)\n"
    "  --json             the report as JSON\n"
    "  --verbose          name every case and check, and show the plugin's log\n";

static bool parse(int argc, char **argv, options *o) {
  *o = (options){.device = -1, .max_shown = 20, .progress = isatty(STDERR_FILENO)};
  for (int i = 1; i < argc; i++) {
    const char *a = argv[i], *next = i + 1 < argc ? argv[i + 1] : NULL;
    if (!strcmp(a, "--quick"))
      o->quick = true;
    else if (!strcmp(a, "--json"))
      o->json = true;
    else if (!strcmp(a, "--verbose"))
      o->verbose = true;
    else if (!strcmp(a, "--device") && next)
      o->device = atoi(argv[++i]);
    else if (!strcmp(a, "--slice") && next)
      o->slice = (unsigned)atoi(argv[++i]);
    else if (!strcmp(a, "--filter") && next)
      o->filter = argv[++i];
    else if (!strcmp(a, "--min-claimed") && next)
      o->min_claimed = atol(argv[++i]);
    else if (!strcmp(a, "--show") && next)
      o->max_shown = atoi(argv[++i]);
    else if (!strcmp(a, "--option") && next && strchr(next, '=') && o->n_settings < 32)
      o->settings[o->n_settings++] = argv[++i];
    else if (*a != '-' && !o->path)
      o->path = a;
    else
      return false;
  }
  return o->path != NULL;
}

/* GATHER or SCATTER with an index out of range: an error at once on a host-memory device, else at the next sync.
   Last, since a queue that failed stays failed. */
static operand outside_operand(uint8_t kind, uint32_t dtype, uint8_t rank, uint8_t middle) {
  operand o = {.kind = kind, .dtype = (uint8_t)dtype, .rank = rank, .stride = {1, 1, 1}, .alias = -1, .same_as = ONE};
  if (rank == 3) o.stride[0] = 4; /* [1, 4 or 3, 1] */
  o.dim[0] = rank == 3 ? 0 : middle;
  o.dim[1] = middle;
  o.dim[2] = 2;
  return o;
}

static void make_outside(problem *p, uint32_t op) {
  memset(p, 0, sizeof *p);
  for (int i = 0; i < MAX_OPERANDS; i++) p->arg[i] = (operand){.alias = -1, .same_as = ONE};
  const int64_t size[] = {1, 4, 1, 3};
  const bool scatter = op == TERN_OP_SCATTER;
  p->op = op;
  p->n_in = scatter ? 3 : 2;
  p->n_out = 1;
  p->n_sizes = 4;
  p->n_attrs = scatter;
  for (int d = 0; d < 4; d++) {
    p->size[d] = size[d];
    p->role[d] = ROLE_FIXED;
  }
  p->arg[0] = outside_operand(TERN_V_IN, TERN_F32, 3, 1);
  p->arg[1] = outside_operand(TERN_V_IN, TERN_I64, 1, 3);
  p->arg[2] = outside_operand(scatter ? TERN_V_IN : TERN_V_OUT, TERN_F32, 3, 3);
  if (scatter) p->arg[3] = outside_operand(TERN_V_OUT, TERN_F32, 3, 1);
  canonicalise(p);
}

static void check_outside(device *d, report *r, uint32_t op, const char *name) {
  if (!report_begin_check(r, name)) return;
  problem p;
  builder *b = calloc(1, sizeof *b);
  unsigned char *image = calloc(1, 4096);
  tern_kernel *kernel = NULL;
  uint64_t used, workspace = 0;
  uint32_t fixed = 0;
  make_outside(&p, op);
  if (b && image && build(b, &p) && place(&p, &used) && used <= 4096 && !d->api->supports(d->dev, &b->region, &fixed) &&
      !fixed) {
    const int64_t bad[] = {0, 4, -5};
    memcpy(image + p.arg[1].at, bad, sizeof bad);
    tern_rc rc = dev_compile(d, &b->region, &kernel, &workspace);
    if (expect(r, !rc, name, "compile: %s: %s", rc_name(rc), said())) {
      rc = dev_upload(d, d->queue, d->image, 0, image, used);
      if (!rc) rc = launch_image(d, d->queue, kernel, workspace, &p, d->image);
      if (!rc) rc = dev_wait(d, d->queue);
      expect(r, rc, name, "indices 4 and -5 into 4 elements were accepted: launch or the next sync must fail");
      expect(r, !rc || *last_error(), name, "it failed without a message (host->error)");
      dev_kernel_free(d, kernel);
    }
  }
  free(b);
  free(image);
}

/* Opened again, the device works as before. */
static void check_again(subject *s, report *r, uint32_t i, const tern_device_info *info) {
  device d;
  unsigned char bytes[100] = {3}, back[100] = {0};
  tern_rc rc = device_start(&d, s, i, info);
  if (!expect(r, !rc, "open again", "%s: %s", rc_name(rc), said())) return;
  rc = dev_upload(&d, d.queue, d.image, 1, bytes, sizeof bytes);
  if (!rc) rc = dev_download(&d, d.queue, back, d.image, 1, sizeof back);
  expect(r, !rc && !memcmp(bytes, back, sizeof back), "open again",
         "copies fail on a device that was closed and opened: %s", rc_name(rc));
  device_stop(&d);
}

static void check_device(subject *s, report *r, uint32_t i, const tern_device_info *info) {
  device d;
  char name[128];
  snprintf(name, sizeof name, "%.30s:%u", s->api.name, i);
  report_device(r, name, info->desc);
  const tern_rc rc = device_start(&d, s, i, info);
  if (expect(r, !rc, "device_open", "%s: %s", rc_name(rc), said())) {
    runner run;
    check_memory(&d, r);
    check_queues(&d, r);
    check_threads(&d, r);
    check_refusals(&d, r);
    if (runner_open(&run, &d, r)) {
      run_primitives(&run);
      run_long_sums(&run);
      run_indexed(&run);
      run_convolutions(&run);
      run_composites(&run);
      runner_close(&run);
    }
    check_outside(&d, r, TERN_OP_GATHER, "GATHER, index out of range");
    dev_queue_renew(&d);
    check_outside(&d, r, TERN_OP_SCATTER, "SCATTER, index out of range");
    device_stop(&d);
    expect(r, d.live == 0, "tern-check", "%ld blocks, queues or kernels were left open", (long)d.live);
    check_again(s, r, i, info);
  }
  report_device_end(r);
}

static int check_devices(subject *s, report *r) {
  int done = 0;
  bool end = false;
  for (uint32_t i = 0; i < 1024 && !end; i++) {
    tern_device_info info;
    if (!device_describe(s, r, i, &info, &end)) continue;
    if (r->opt->device >= 0 ? i != (uint32_t)r->opt->device : info.flags & TERN_DEV_HIDDEN) continue;
    check_device(s, r, i, &info);
    done++;
  }
  expect(r, end, "device_info", "1024 devices and no TERN_E_END");
  return done;
}

int main(int argc, char **argv) {
  options opt;
  setvbuf(stdout, NULL, _IOLBF, 0); /* a failure is seen when it happens */
  if (argc == 2 && !strcmp(argv[1], "--help")) {
    fputs(help, stdout);
    return 0;
  }
  if (!parse(argc, argv, &opt)) {
    fputs(help, stderr);
    return 2;
  }
  report r;
  subject s = {.opt = &opt};
  report_begin(&r, &opt);
  int devices = -1;
  if (subject_load(&s, &r) && subject_start(&s, &r)) {
    devices = check_devices(&s, &r);
    subject_stop(&s);
  }
  if (devices == 0 && !r.all_failed) report_skip(&r, opt.path, "no device here, so nothing was computed");
  const int status = report_end(&r);
  return status ? status : devices > 0 ? 0 : 77;
}
