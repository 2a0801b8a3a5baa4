/* SPDX-License-Identifier: BSD-3-Clause
 *
 * control.h - the socket that crashsimctl talks to.
 *
 * A connection carries one command: a line, answered by "ok" or "error TEXT" and lines of
 * key=value, and closed.
 *
 *     cut [survive=MODE] [tear=SECTOR] [seed=N]
 *         [after-writes=N] [after-flushes=N] [within=N] [at-mark=NAME, to the line's end]
 *     power-on
 *     mark NAME
 *     stats
 *     wait    until the power is off; answers as `cut`, at once if it is off already
 */
#ifndef CRASHSIM_CONTROL_H
#define CRASHSIM_CONTROL_H

/* Listen at PATH: 0, or -1 and said why.  Before nbdkit forks. */
int control_listen(const char *path);
/* Answer commands in a thread of its own.  After it forked. */
int control_start(void);
/* End the thread and remove the socket. */
void control_end(void);

#endif /* CRASHSIM_CONTROL_H */
