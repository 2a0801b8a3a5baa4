/* SPDX-License-Identifier: BSD-3-Clause
 *
 * file_cut.h - the log's file on a medium whose power can be cut.
 *
 * The program is linked with --wrap for the calls that write (tests/unit/CMakeLists.txt).
 * A power cut leaves of every sector that was not flushed the new content or the old one,
 * as chance has it, and of a rename that was not flushed the new name or the old one: what
 * file systems promise, and no more.  RWF_DSYNC flushes what it writes and nothing else.  What
 * a flush that fails should have written is written by no later one.
 */
#ifndef FILE_CUT_H
#define FILE_CUT_H

#include "engine_cut.h"

/* Count steps with STEP; CONTROL tells whether the power is off. */
void file_cut_use(cut_step_fn *step, struct cut_control *control);
void file_cut_error(int code); /* the errno of a step that fails; EIO if nothing is said */
void file_cut_new(const char *folder); /* the log in FOLDER from now on; there is none yet */
void file_cut_power(bool died);        /* as cut_power_fn */

#endif /* FILE_CUT_H */
