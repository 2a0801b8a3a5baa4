/* SPDX-License-Identifier: BSD-3-Clause
 *
 * tool.h - other programs: started, waited for, ended.
 *
 * What they say on standard error goes to a file of the run's folder, and is shown when one
 * fails.  A server dies with the process that started it.
 */
#ifndef CRASHSIM_TOOL_H
#define CRASHSIM_TOOL_H

#include "place.h"

/* Is each of NAMES, which NULL ends, in $PATH?  -ENOENT: ERR names the first that is not. */
int tool_look(const char *const names[], struct kvfs_error *err);

/* Run to the end; 0, or a negative errno.  -EIO: it failed, ERR shows what it said; -ENOENT: there is no
 * such program; -EINTR: a signal ended it. */
int tool_run(const struct place *p, const char *const argv[], struct kvfs_error *err);
/* PRELOAD: NULL or what it needs preloaded. */
int tool_run_preloaded(const struct place *p, const char *const argv[], const char *preload,
                       struct kvfs_error *err);

/* Start a server that writes its pid to the pipe READY (a name in P) when it serves.
 * PRELOAD: as above. */
int tool_serve(const struct place *p, const char *const argv[], const char *ready,
               const char *preload, pid_t *pid, struct kvfs_error *err);

/* In a child of ours: what engines say when their disk dies goes where tools complain. */
void tool_quiet(const struct place *p);

/* Send SIGNAL (0: none) and wait for the end; its status as waitpid(2) tells. */
int tool_end(pid_t pid, int signal);

/* Wait for a child for so long, then kill it.  false: it had to be killed. */
bool tool_wait(pid_t pid, unsigned ms, int *status);

#endif /* CRASHSIM_TOOL_H */
