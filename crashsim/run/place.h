/* SPDX-License-Identifier: BSD-3-Clause
 *
 * place.h - the folder of a run, and all that the run has opened in the kernel.
 *
 * 1. What outlives a killed process (a mount, a loop device, a server) is written down in the file
 *    `resources` before or as soon as it exists, one a line, "KIND WHAT": `mount PATH`, `loop DEVICE`, `pid NUMBER
 *    START` (START: field 22 of /proc/NUMBER/stat, so that a number used again is told apart);
 *    the first line is `crashsim 1 PID START` of the run itself.  `crashsim clean` reads it and
 *    undoes the lines from the last to the first.
 * 2. Mounts are made in a mount namespace of the run's own where the kernel allows it, loop
 *    devices clear themselves, servers die with the process that started them: so there
 *    is seldom anything to clean but the folder.
 */
#ifndef CRASHSIM_PLACE_H
#define CRASHSIM_PLACE_H

#include <stdbool.h>
#include <sys/types.h>

#include <kvfs/error.h>

#define PLACE_PATH_MAX 200 /* bytes: sockets below it must fit into sun_path */

struct place {
    char path[PLACE_PATH_MAX];
    int fd; /* of `resources`; -1: none */
};

/* Make a folder in PARENT (NULL: /dev/shm, or where there is none $TMPDIR or /tmp), and a mount namespace. */
int place_make(struct place *p, const char *parent, struct kvfs_error *err);
/* Remove it with all it holds. */
void place_remove(struct place *p);

void place_note(const struct place *p, const char *kind, const char *what);
void place_note_pid(const struct place *p, pid_t pid);

/* PATH/NAME; at most PLACE_PATH_MAX + 32 bytes. */
#define PLACE_NAME_MAX (PLACE_PATH_MAX + 32)
const char *place_name(const struct place *p, const char *name, char buf[PLACE_NAME_MAX]);

/* Remove a tree, on one file system. */
void place_remove_tree(const char *path);

#endif /* CRASHSIM_PLACE_H */
