/* Paths of checkpoints: "model-{epoch:02d}-{val_loss:.3f}.tern". A place is {NAME} or {NAME:FORMAT}, FORMAT being
   [0][WIDTH]d for the epoch and [0][WIDTH][.DIGITS][f|e|g] for logs, as in Python; {{ and }} are braces. What the
   program gave never reaches printf as a format. */
#include "base/alloc.h"
#include "base/string.h"
#include "base/thread.h"
#include "nn/callback_parts.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_WIDTH = 40, MOST_DIGITS = 17, MOST_NAME = 100 };

typedef struct place {
  char name[MOST_NAME + 1];
  bool zeros;
  int width, digits; /* digits: -1 = not given */
  char letter;       /* 0: not given */
} place;

/* Digits at *p, at most `most`; *value stays when there are none. False: too large. */
static bool number(const char **p, int most, int *value) {
  if (!isdigit((unsigned char)**p)) return true;
  for (*value = 0; isdigit((unsigned char)**p); (*p)++) {
    *value = *value * 10 + (**p - '0');
    if (*value > most) return false;
  }
  return true;
}

/* Reads the place behind "{" at *p, up to and with its "}". */
static bool read_place(const char **p, place *q) {
  *q = (place){.digits = -1};
  const size_t n = strcspn(*p, "{}:");
  if (!n || n > MOST_NAME) return false;
  memcpy(q->name, *p, n);
  *p += n;
  if (**p == ':') {
    ++*p;
    q->zeros = **p == '0';
    if (!number(p, MOST_WIDTH, &q->width)) return false;
    if (**p == '.') {
      ++*p;
      if (!number(p, MOST_DIGITS, &q->digits) || q->digits < 0) return false;
    }
    if (**p && strchr("dfeg", **p)) q->letter = *(*p)++;
  }
  if (**p != '}') return false;
  ++*p;
  if (!strcmp(q->name, "epoch")) return q->digits < 0 && (!q->letter || q->letter == 'd');
  return q->letter != 'd';
}

static void place_text(const place *q, double value, char *text, size_t size) {
  const int digits = q->digits < 0 ? 6 : q->digits, width = q->width;
  char number_text[TERN__NUMBER_TEXT];
  if (!strcmp(q->name, "epoch")) {
    snprintf(text, size, q->zeros ? "%0*d" : "%*d", width, (int)value);
    return;
  }
  if (q->letter == 'f')
    snprintf(text, size, q->zeros ? "%0*.*f" : "%*.*f", width, digits, value);
  else if (q->letter == 'e')
    snprintf(text, size, q->zeros ? "%0*.*e" : "%*.*e", width, digits, value);
  else if (q->letter == 'g' || q->digits >= 0)
    snprintf(text, size, q->zeros ? "%0*.*g" : "%*.*g", width, digits, value);
  else
    snprintf(text, size, "%*s", width, tern__number_text(value, number_text));
  tern__point(text);
}

/* Walks over the path: appends to out, unless that is NULL, with the values of moment. */
static tern_rc walk(const char *what, const char *path, bool *has_places, const tern_moment *moment,
                    tern__string *out) {
  tern_rc rc = TERN_OK;
  for (const char *p = path; *p && !rc;) {
    const char *from = p;
    if ((p[0] == '{' && p[1] == '{') || (p[0] == '}' && p[1] == '}')) {
      p += 2;
      if (out) rc = tern__string_append(out, from, 1);
    } else if (*p != '{' && *p != '}') {
      p += strcspn(p, "{}");
      if (out) rc = tern__string_append(out, from, (size_t)(p - from));
    } else {
      place q;
      bool found = true;
      if (*p++ == '}' || !read_place(&p, &q))
        return tern__fail(TERN_E_ARG,
                          "%s: the path \"%s\" is wrong at \"%.20s\": places are {epoch}, {epoch:03d}, {val_loss}, "
                          "{val_loss:.2f} and the like, {{ and }} are braces",
                          what, path, from);
      if (has_places) *has_places = true;
      if (!out) continue;
      const double value = strcmp(q.name, "epoch") ? tern__log_of(moment, q.name, &found) : moment->epoch + 1;
      if (!found) return tern__no_log(what, q.name, moment);
      char text[512]; /* %f of the largest double with 17 digits has 327 characters */
      place_text(&q, value, text, sizeof text);
      rc = tern__string_append_text(out, text);
    }
  }
  return rc ? tern__fail(TERN_E_OOM, "%s: out of host memory", what) : TERN_OK;
}

tern_rc tern__path_check(const char *what, const char *path, bool *has_places) {
  *has_places = false;
  if (!path || !*path) return tern__fail(TERN_E_ARG, "%s: the path is %s", what, path ? "empty" : "NULL");
  return walk(what, path, has_places, NULL, NULL);
}

char *tern__path_fill(const char *what, const char *path, const tern_moment *moment) {
  tern__string out = {0};
  if (!walk(what, path, NULL, moment, &out)) return out.text;
  tern__string_free(&out);
  return NULL;
}
