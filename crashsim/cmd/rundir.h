/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rundir.h - the folder of a run, so that `crashsim clean` finds what a killed one left behind.
 *
 * The convention: every run owns a folder crashsim-PID.XXXXXX below its temporary folder, mode
 * 0700.  In it lies the file `owner`, locked by flock() for as long as the run lives.  Its first
 * line is "run of crashsim PID START"; the others are "pid PID START", one a process that the run started
 * and that may outlive it (START: its start time, field 22 of /proc/PID/stat, so that a number used
 * again is not taken for it).  A folder that has not all of this is somebody else's.
 * Everything else needs no notes: what is mounted lies below the folder, or is a loop device over a
 * file there; what a check started has CRASHSIM_STATE, a name below the folder, in its environment.
 *
 * 1. Whoever holds the lock of `owner` may take the folder down; the run itself at its end, or
 *    `crashsim clean` once the kernel has dropped the lock with its process.  Children that it had
 *    forked hold the lock, too, and end a moment later: that moment is waited for.
 * 2. Taking down: the noted processes and those of checks are killed, what is mounted is unmounted
 *    (the last first), loop devices over files below it are detached, then the folder is
 *    removed; never across a mount that would not go.
 */
#ifndef CRASHSIM_RUNDIR_H
#define CRASHSIM_RUNDIR_H

#include <stdbool.h>
#include <sys/types.h>

struct rundir;

/* PARENT NULL: $TMPDIR, else /tmp.  0 or a negative errno. */
int rundir_open(const char *parent, struct rundir **dir);
/* Absolute, without symbolic links. */
const char *rundir_path(const struct rundir *d);
/* Into BUF, returned. */
const char *rundir_file(const struct rundir *d, const char *name, char *buf, size_t size);
/* PID is a child of this run: take it down with the folder.  0 or a negative errno. */
int rundir_note(struct rundir *d, pid_t pid);
/* End what a check that is over left behind on the state PATH, so that nothing uses it any more:
 * processes, mounts, loop devices.  0 or a negative errno. */
int rundir_release(const char *path);
/* Take it down; 0 or a negative errno, and what would not go stays. */
int rundir_close(struct rundir *d);

struct rundir_swept {
    unsigned folders, processes, mounts, loops;
};
/* Take down the folders below PARENT whose run is dead.  ONLY_LOOK: count the folders.  TELL, or
 * NULL, is told each.  0 or the first error; the others are tried nonetheless.  -ETIMEDOUT: its run is
 * dead, but something of it has the lock still. */
int rundir_sweep(const char *parent, bool only_look, void (*tell)(const char *path, int error),
                 struct rundir_swept *swept);

#endif /* CRASHSIM_RUNDIR_H */
