/* A measurement in a process of its own: this program again with other arguments, which prints a number. */
#ifndef TERN_BENCH_CHILD_H_
#define TERN_BENCH_CHILD_H_
#include <math.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* The number that the child printed; NAN when it could not be run or failed. argv: NULL at the end. */
static inline double bench_child(char *const *argv) {
  extern char **environ;
  int ends[2];
  char text[64] = "";
  pid_t child;
  posix_spawn_file_actions_t actions;
  if (pipe(ends)) return NAN;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
  posix_spawn_file_actions_addclose(&actions, ends[0]);
  const int failed = posix_spawn(&child, "/proc/self/exe", &actions, NULL, argv, environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  size_t at = 0;
  for (ssize_t n; !failed && at < sizeof text - 1 && (n = read(ends[0], text + at, sizeof text - 1 - at)) > 0;)
    at += (size_t)n;
  close(ends[0]);
  int status = 1;
  if (!failed) waitpid(child, &status, 0);
  return status ? NAN : strtod(text, NULL);
}
#endif
