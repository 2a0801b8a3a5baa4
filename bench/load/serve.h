/* SPDX-License-Identifier: BSD-3-Clause
 *
 * serve.h - a program that reads a phase a line from stdin, until told or asked by a signal to end.
 */
#ifndef KVFS_LOAD_SERVE_H
#define KVFS_LOAD_SERVE_H

#include <stdbool.h>

#include <kvfs/error.h>

#define SERVE_DAY_S 86400.0 /* longest phase */

/* SIGINT and SIGTERM from now on only set a flag. */
void serve_signals_catch(void);
bool serve_interrupted(void);
/* Die of the signal that came, if one did. */
void serve_signals_follow(void);

/* Call LINE (split into the first WORD and the REST) for each line, until the end of the input, a
 * signal, an error, or a 1 of LINE.  0, -EINVAL (a line too long), or what LINE answered. */
int serve_lines(int (*line)(void *arg, const char *word, char *rest, struct kvfs_error *err),
                void *arg, struct kvfs_error *err);

/* The exit status for RC, after one line on stderr: 2 for -EINVAL, 1 for other errors. */
int serve_status(const char *program, int rc, const struct kvfs_error *err);

double serve_now_s(void);

#endif /* KVFS_LOAD_SERVE_H */
