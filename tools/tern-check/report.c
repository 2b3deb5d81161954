/* The report: text for people, or JSON (docs/formats.md) on stdout; progress on a terminal only. */
#include "check.h"
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct { char text[160]; /* what is being done, for the crash handler */ } current;

void report_current(const char *name) { snprintf(current.text, sizeof current.text, "%s", name); }

static void say(const char *text) {
  if (write(STDERR_FILENO, text, strlen(text)) < 0) return;
}

static void on_crash(int number) {
  char digits[3] = {(char)('0' + number / 10 % 10), (char)('0' + number % 10), 0};
  say("\ntern-check: the plugin crashed (signal ");
  say(digits);
  say(") during: ");
  say(current.text);
  say("\n");
  _exit(1);
}

void report_begin(report *r, const options *opt) {
  *r = (report){.opt = opt, .first_json = true};
  const int numbers[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    struct sigaction act;
    memset(&act, 0, sizeof act);
    act.sa_handler = on_crash;
    sigaction(numbers[i], &act, NULL);
  }
  if (opt->json) printf("{\"version\": 1, \"tool\": \"tern-check\", \"devices\": [");
}

static void json_string(const char *s) {
  putchar('"');
  for (; *s; s++) {
    const unsigned char c = (unsigned char)*s;
    if (c == '"' || c == '\\')
      printf("\\%c", c);
    else if (c < 32)
      printf("\\u%04x", c);
    else
      putchar(c);
  }
  putchar('"');
}

static void clear_line(const report *r) {
  if (r->opt->progress) fputs("\r\033[K", stderr);
}

void report_progress(report *r, const char *name) {
  if (r->opt->progress && r->total % 64 == 0) fprintf(stderr, "\r\033[K%ld  %.60s", r->total, name);
}

static bool selects(const report *r, const char *name) { return !r->opt->filter || strstr(name, r->opt->filter); }

/* The checks since the last time, one line a name. */
static void list_checks(report *r) {
  for (int i = 0; i < r->n_named && r->opt->verbose && !r->opt->json; i++) {
    const check_count *c = &r->named[i];
    if (!selects(r, c->name)) continue;
    if (c->failed)
      printf("bad  %s (%ld of %ld checks failed)\n", c->name, c->failed, c->n);
    else
      printf("ok   %s (%ld check%s)\n", c->name, c->n, c->n == 1 ? "" : "s");
  }
  r->n_named = 0;
}

static void count_check(report *r, const char *name, bool ok) {
  int i = 0;
  while (i < r->n_named && strcmp(r->named[i].name, name)) i++;
  if (i == MAX_CHECKS) return;
  if (i == r->n_named) {
    r->named[r->n_named++] = (check_count){.name = name};
    r->selected += selects(r, name);
  }
  r->named[i].n++;
  r->named[i].failed += !ok;
}

void report_device(report *r, const char *name, const char *desc) {
  list_checks(r); /* of the table */
  r->device = name;
  r->claimed = r->total = r->passed = r->failed = r->checks = r->checks_failed = 0;
  r->first_json = true;
  if (r->opt->json) {
    printf("%s\n{\"device\": ", r->n_devices ? "," : "");
    json_string(name);
    printf(", \"description\": ");
    json_string(desc);
    printf(", \"failures\": [");
  } else {
    printf("%s: %s\n", name, desc);
  }
  r->n_devices++;
}

static void failure(report *r, const char *name, const char *what) {
  r->all_failed++;
  clear_line(r);
  if (r->opt->json && r->device) {
    printf("%s\n  {\"name\": ", r->first_json ? "" : ",");
    json_string(name);
    printf(", \"detail\": ");
    json_string(what);
    printf("}");
    r->first_json = false;
    return;
  }
  FILE *to = r->opt->json ? stderr : stdout;
  if (r->shown++ == r->opt->max_shown) fprintf(to, "  (more failures are counted, not shown; --show N shows N)\n");
  if (r->shown <= r->opt->max_shown) fprintf(to, "FAIL %s\n%s", name, what);
  if (r->shown <= r->opt->max_shown && *what && what[strlen(what) - 1] != '\n') fputc('\n', to);
}

bool expect(report *r, bool ok, const char *name, const char *format, ...) {
  r->checks++;
  count_check(r, name, ok);
  if (ok) return true;
  char text[1200] = "  ";
  va_list ap;
  va_start(ap, format);
  vsnprintf(text + 2, sizeof text - 2, format, ap);
  va_end(ap);
  r->checks_failed++;
  failure(r, name, text);
  return false;
}

void report_case(report *r, bool ok, const char *name, const char *what) {
  if (ok) {
    r->passed++;
    if (r->opt->verbose && !r->opt->json) printf("ok   %s\n", name);
    return;
  }
  r->failed++;
  failure(r, name, what);
}

void report_skip(report *r, const char *name, const char *why) {
  if (r->opt->json) return;
  clear_line(r);
  printf("skip %s: %s\n", name, why);
}

void report_device_end(report *r) {
  clear_line(r);
  list_checks(r);
  const bool few = r->claimed < r->opt->min_claimed;
  if (few) {
    char text[120];
    snprintf(text, sizeof text, "  claimed %ld cases; --min-claimed asks for %ld", r->claimed, r->opt->min_claimed);
    failure(r, "coverage", text);
    r->checks_failed++;
  }
  if (r->opt->json) {
    printf("],\n \"checks\": %ld, \"checks_failed\": %ld, \"claimed\": %ld, \"total\": %ld, \"passed\": %ld, "
           "\"failed\": %ld}",
           r->checks, r->checks_failed, r->claimed, r->total, r->passed, r->failed);
    r->device = NULL;
    return;
  }
  printf("%s: checks %ld, failed %ld\n", r->device, r->checks, r->checks_failed);
  printf("%s: claimed %ld / total %ld, passed %ld, failed %ld\n", r->device, r->claimed, r->total, r->passed,
         r->failed);
  r->device = NULL;
}

int report_end(report *r) {
  list_checks(r);
  const bool nothing = r->n_devices && !r->selected;
  if (r->opt->json)
    printf("],\n \"failed\": %ld, \"ok\": %s}\n", r->all_failed, r->all_failed || nothing ? "false" : "true");
  else if (r->all_failed || !nothing)
    printf("%s\n", r->all_failed ? "FAILED" : "ok");
  fflush(stdout);
  if (r->all_failed || !nothing) return r->all_failed ? 1 : 0;
  fprintf(stderr,
          "tern-check: nothing is named like --filter \"%s\"%s; it is part of a name, and --verbose prints all names\n",
          r->opt->filter, r->opt->quick ? " (with --quick)" : "");
  return 2;
}

bool wanted(report *r, const char *name) {
  const bool yes = selects(r, name);
  r->selected += yes;
  return yes;
}

bool report_begin_check(report *r, const char *name) {
  if (!wanted(r, name)) return false;
  report_current(name);
  return true;
}
