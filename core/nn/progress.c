/* How training shows how far it is: a bar that is written over on a terminal, else a plain line an epoch. */
#include "nn/model.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { BAR = 20, OFTEN_MS = 80 };

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

tern_progress tern__progress_kind(tern_progress asked) {
  if (asked != TERN_PROGRESS_AUTO) return asked;
  return isatty(STDOUT_FILENO) ? TERN_PROGRESS_BAR : TERN_PROGRESS_LINE;
}

static int width(void) {
  struct winsize w;
  return ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) || w.ws_col < 20 ? 80 : w.ws_col;
}

/* "3s", "1:05", "2:10:09" of seconds; "4ms", "120us" of less. buffer: 24 bytes. Returns it. */
static const char *duration(double seconds, char *buffer) {
  const int64_t s = (int64_t)(seconds + 0.5);
  if (seconds < 1e-3)
    snprintf(buffer, 24, "%.0fus", seconds * 1e6);
  else if (seconds < 1)
    snprintf(buffer, 24, "%.0fms", seconds * 1e3);
  else if (s < 60)
    snprintf(buffer, 24, "%" PRId64 "s", s);
  else if (s < 3600)
    snprintf(buffer, 24, "%" PRId64 ":%02d", s / 60, (int)(s % 60));
  else
    snprintf(buffer, 24, "%" PRId64 ":%02d:%02d", s / 3600, (int)(s / 60 % 60), (int)(s % 60));
  return buffer;
}

void tern__bar_begin(tern__bar *b) {
  b->began = b->shown = now();
  if (b->kind == TERN_PROGRESS_BAR && b->epochs) printf("Epoch %d/%d\n", b->epoch + 1, b->epochs);
}

bool tern__bar_due(const tern__bar *b, int64_t step) {
  return b->kind == TERN_PROGRESS_BAR && step > 0 && now() - b->shown > 1e-3 * OFTEN_MS;
}

static void put(char *line, size_t size, size_t *n, const char *text) {
  const size_t more = strlen(text);
  if (*n + more >= size) return;
  memcpy(line + *n, text, more + 1);
  *n += more;
}

static void put_figures(char *line, size_t size, size_t *n, const char *before, const char *const *names,
                        const double *values, int n_values) {
  for (int i = 0; i < n_values; i++) {
    char text[120];
    const double v = values[i], a = v < 0 ? -v : v;
    snprintf(text, sizeof text, a != 0 && (a < 1e-3 || a >= 1e6) ? "%s%.60s: %.4e" : "%s%.60s: %.4f",
             i ? " - " : before, names[i], v);
    put(line, size, n, text);
  }
}

void tern__bar_show(tern__bar *b, int64_t step, const char *const *names, const double *values, int n, bool last) {
  if (b->kind == TERN_PROGRESS_NONE || (b->kind == TERN_PROGRESS_LINE && !last)) return;
  const double passed = now() - b->began, each = step ? passed / (double)step : 0;
  char line[1200] = "", text[80], a[24], c[24];
  size_t at = 0;
  b->shown = now();
  if (b->kind == TERN_PROGRESS_LINE) {
    if (b->epochs)
      snprintf(text, sizeof text, "Epoch %d/%d: ", b->epoch + 1, b->epochs);
    else
      snprintf(text, sizeof text, "%.40s: ", b->what);
    put(line, sizeof line, &at, text);
    snprintf(text, sizeof text, "%" PRId64 " step%s, %s, %s/step", step, step == 1 ? "" : "s", duration(passed, a),
             duration(each, c));
    put(line, sizeof line, &at, text);
    put_figures(line, sizeof line, &at, " - ", names, values, n);
    printf("%s\n", line);
    fflush(stdout);
    return;
  }
  if (b->steps > 0)
    snprintf(text, sizeof text, "%" PRId64 "/%" PRId64 " ", step, b->steps);
  else
    snprintf(text, sizeof text, "%" PRId64 " ", step);
  put(line, sizeof line, &at, text);
  if (b->steps > 0) {
    const int done = (int)(BAR * step / b->steps);
    for (int i = 0; i < BAR; i++) put(line, sizeof line, &at, i < done ? "=" : i == done ? ">" : ".");
    put(line, sizeof line, &at, " ");
  }
  if (last || b->steps <= 0)
    snprintf(text, sizeof text, "%s %s/step", duration(passed, a), duration(each, c));
  else
    snprintf(text, sizeof text, "%s left", duration(each * (double)(b->steps - step), a));
  put(line, sizeof line, &at, text);
  put_figures(line, sizeof line, &at, " - ", names, values, n);
  const int room = width() - 1;
  printf("\r\033[K%.*s%s", last ? (int)at : room, line, last ? "\n" : "");
  fflush(stdout);
}

void tern__bar_end(tern__bar *b) {
  if (b->kind == TERN_PROGRESS_BAR) printf("\n");
  fflush(stdout);
}
