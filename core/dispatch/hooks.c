/* What may watch every op: TERN_SYNC (wait, so that an error names its op), TERN_SHADOW (run it on a second device and
   compare) and TERN_TRACE (a Chrome trace: one lane a thread for ops, one a device). Off, all of it costs one test of a
   word. */
#include "base/log.h"
#include "base/options.h"
#include "device/trace.h"
#include "dispatch/dispatch.h"
#include "tensor/dtype.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static void trace_op(const tern__call *c, const tern_tensor *out, uint64_t began) {
  char shape[200], args[400];
  snprintf(args, sizeof args, "\"device\":\"%s\",\"dtype\":\"%s\",\"shape\":\"%s\"", out->device->name,
           tern_dtype_name((tern_dtype)out->dtype), tern__shape_text(shape, out->rank, out->shape));
  tern__trace("op", c->op->name, out->device, tern__trace_lane(), began, args);
}

/* ---- shadow ---- */

static double slack(const tern__op *op, tern_dtype d, double expected) {
  double absolute = op->absolute, relative = op->relative;
  if (d == TERN_F64) {
    absolute *= 1e-8;
    relative = relative * 1e-8 > 1e-13 ? relative * 1e-8 : 1e-13;
  } else if (d == TERN_F16 || d == TERN_BF16) {
    const double epsilon = d == TERN_F16 ? 0x1p-10 : 0x1p-7;
    relative = relative > 2 * epsilon ? relative : 2 * epsilon;
    absolute = absolute > epsilon * 1e-2 ? absolute : epsilon * 1e-2;
  }
  return absolute + relative * fabs(expected);
}

static tern_rc compare(const tern__call *c, tern_tensor *got, tern_tensor *expected) {
  const size_t item = tern__dtype_size[got->dtype], bytes = (size_t)got->numel * item;
  char *a = malloc(bytes ? bytes : 1), *b = malloc(bytes ? bytes : 1);
  tern_rc rc = a && b ? TERN_OK : tern__fail(TERN_E_OOM, "shadow: out of host memory");
  if (!rc) rc = tern_to_host(got, a, bytes);
  if (!rc) rc = tern_to_host(expected, b, bytes);
  const tern_dtype d = (tern_dtype)got->dtype;
  for (int64_t i = 0; i < got->numel && !rc; i++) {
    const double x = tern__word_double(tern__load(d, a + (size_t)i * item), d),
                 y = tern__word_double(tern__load(d, b + (size_t)i * item), d);
    const bool same = x == y || (isnan(x) && isnan(y)) || (tern__is_float(d) && fabs(x - y) <= slack(c->op, d, y));
    char shape[200];
    if (!same)
      rc = tern__fail(TERN_E_INTERNAL,
                      "shadow: %s gave %.9g on %s but %.9g on %s at element %lld of a result of shape %s, %s",
                      c->op->name, x, got->device->name, y, expected->device->name, (long long)i,
                      tern__shape_text(shape, got->rank, got->shape), tern_dtype_name(d));
  }
  free(a);
  free(b);
  return rc;
}

static tern_rc shadow(tern__thread *t, const tern__call *c, tern_tensor *out) {
  const uint32_t hooks = t->hooks;
  t->hooks = 0;
  tern__device *d = tern__device_named(tern__opt()->shadow);
  tern_rc rc = d ? TERN_OK : TERN_E_ARG;
  if (d && d != out->device) {
    tern_scope_mark mark = tern_scope_begin();
    tern_tensor *in[TERN__MAX_ARGS];
    for (int i = 0; i < c->n_in; i++)
      in[i] = c->in[i] == TERN_NONE || (c->in[i]->flags & TERN__WEAK) ? c->in[i] : tern_to(c->in[i], d->name);
    tern_tensor *expected = tern__run_on(d, c->op, in, c->n_in, c->attr, c->n_attr);
    rc = expected ? compare(c, out, expected) : TERN_E_INTERNAL;
    tern_scope_end(&mark);
  }
  t->hooks = hooks;
  return rc;
}

/* ---- numerics ---- */

static tern_rc check_numerics(tern__thread *t, const tern__call *c, tern_tensor *out) {
  const tern_dtype d = (tern_dtype)out->dtype;
  if (!tern__is_float(d) || out->numel == 0) return TERN_OK;
  const uint32_t hooks = t->hooks;
  t->hooks = 0;
  tern_scope_mark mark = tern_scope_begin();
  const size_t item = tern__dtype_size[d], bytes = (size_t)out->numel * item;
  char *data = malloc(bytes);
  tern_rc rc = data ? tern_to_host(out, data, bytes) : tern__fail(TERN_E_OOM, "check_numerics: out of host memory");
  for (int64_t i = 0; i < out->numel && !rc; i++) {
    const double x = tern__word_double(tern__load(d, data + (size_t)i * item), d);
    if (isfinite(x)) continue;
    char shape[200], operands[600] = "";
    for (int k = 0, at = 0; k < c->n_in && k < 4; k++) {
      char one[200];
      if (c->in[k] != TERN_NONE)
        at += snprintf(operands + at, sizeof operands - (size_t)at, "%s%s", k ? ", " : "",
                       tern__shape_text(one, c->in[k]->rank, c->in[k]->shape));
      if (at >= (int)sizeof operands) break;
    }
    rc = tern__fail(TERN_E_ARG,
                    "check_numerics: %s is the first op to give %s: element %lld of a result of shape %s, %s, on %s, "
                    "from operands of shape %s; "
                    "look at its operands with tern_print",
                    c->op->name, isnan(x) ? "NaN" : "infinity", (long long)i,
                    tern__shape_text(shape, out->rank, out->shape), tern_dtype_name(d), out->device->name, operands);
  }
  free(data);
  tern_scope_end(&mark);
  t->hooks = hooks;
  return rc;
}

tern_rc tern__after(tern__thread *t, const tern__call *c, tern_tensor *out, uint64_t began) {
  tern_rc rc = TERN_OK;
  if (t->hooks & TERN__HOOK_SYNC && out->device->queue) {
    rc = tern__device_sync(out->device);
    if (rc) {
      char reason[900];
      snprintf(reason, sizeof reason, "%s", tern__pending());
      if (t->error_state == TERN__ERROR_UNREAD) t->error_state = TERN__ERROR_NONE;
      tern__fail(rc, "%s: %s", c->op->name, reason);
    }
  }
  if (t->hooks & TERN__HOOK_TRACE) trace_op(c, out, began);
  if (!rc && t->hooks & TERN__HOOK_SHADOW && c->op->infer) rc = shadow(t, c, out);
  if (!rc && t->hooks & TERN__HOOK_NUMERICS) rc = check_numerics(t, c, out);
  if (!rc && t->hooks & TERN__HOOK_TAPE &&
      !tern__tape_listener.op(t, c->op, c->in, c->n_in, c->attr, c->n_attr, &out, 1))
    rc = tern__recorded();
  return rc;
}

int tern_finish(void) {
  tern__finish_scopes();
  tern_sync(NULL);
  tern__trace_finish();
  const int failed = tern__finish_errors();
  fflush(stdout);
  return failed;
}
