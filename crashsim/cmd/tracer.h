/* SPDX-License-Identifier: BSD-3-Clause
 *
 * tracer.h - run a command and see its system calls.
 */
#ifndef CRASHSIM_TRACER_H
#define CRASHSIM_TRACER_H

#include "trace_calls.h"

/* Run ARGV until it and all its children have ended; *STATUS is as wait() says of the command itself.
 * 0 or a negative errno: it could not be run or traced. */
int tracer_run(struct calls *calls, char **argv, int *status);

/* The same of a function, called in a child; what it answers is the exit status. */
int tracer_call(struct calls *calls, int (*call)(void *arg), void *arg, int *status);

#endif /* CRASHSIM_TRACER_H */
