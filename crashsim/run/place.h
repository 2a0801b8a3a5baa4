/* SPDX-License-Identifier: BSD-3-Clause
 *
 * place.h - the folder of a run (cmd/rundir.h), and its mounts.
 *
 * Mounts are made in a mount namespace of the run's own where the kernel allows it, loop devices
 * clear themselves, servers die with the process that started them: so a killed run leaves seldom
 * more than its folder, and `crashsim clean` takes that away.
 */
#ifndef CRASHSIM_PLACE_H
#define CRASHSIM_PLACE_H

#include <stdbool.h>
#include <sys/types.h>

#include <kvfs/error.h>

#define PLACE_PATH_MAX 64 /* bytes: sockets below it must fit into sun_path */
#define PLACE_NAME_MAX (PLACE_PATH_MAX + 32)

struct rundir;

struct place {
    char path[PLACE_PATH_MAX];
    struct rundir *dir;
};

/* Make a folder in PARENT (NULL: /dev/shm, or where there is none $TMPDIR or /tmp), and a mount
 * namespace. */
int place_make(struct place *p, const char *parent, struct kvfs_error *err);
/* Remove it with all it holds. */
void place_remove(struct place *p);

/* Is there hardly room for anything more? */
bool place_is_full(const struct place *p);
/* Is there so little that it may have been full a moment ago? */
bool place_is_tight(const struct place *p);

void place_note_pid(const struct place *p, pid_t pid);

/* PATH/NAME; into BUF, returned. */
const char *place_name(const struct place *p, const char *name, char buf[PLACE_NAME_MAX]);

#endif /* CRASHSIM_PLACE_H */
