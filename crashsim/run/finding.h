/* SPDX-License-Identifier: BSD-3-Clause
 *
 * finding.h - a violation, kept so that it can be seen again.
 *
 * A folder SCENARIO-ENGINE-SEED-N with
 *   base.img                       what the disk held before
 *   recording, recording.side      docs/CRASHSIM.md
 *   trace                          instead of these: the system calls
 *   operations                     what the workload did, and when it was acknowledged
 *   sums                           of each of these its hash, bytes and name: one that was changed or cut
 *                                  short would be of another state, and is refused
 *   state                          the state's name, the time of the workload's cut, what was
 *                                  found, the command; then how it was shrunk
 */
#ifndef CRASHSIM_FINDING_H
#define CRASHSIM_FINDING_H

#include "journal.h"

#define FINDING_FOLDER_MAX  300  /* bytes of the folder of all */
#define FINDING_DIR_MAX     512  /* of one */
#define FINDING_COMMAND_MAX 2200 /* its name may be quoted */

struct finding {
    bool trace;                /* RECORD is one of system calls, and there is no base */
    const char *base, *record; /* to save */
    struct journal *journal;
    uint64_t t_ns_max;
    const char *state; /* its name */
    const char *promise;    /* NULL, or what --promise of the run was */
    const char *why, *more; /* more: NULL, or lines about it */
    char *loaded;           /* of finding_load: what `state` points into */
    char base_path[FINDING_DIR_MAX + 32], record_path[FINDING_DIR_MAX + 32]; /* loaded */
};

/* Can findings be kept in FOLDER?  Leaves nothing there. */
int finding_look(const char *folder, struct kvfs_error *err);
/* DIR: the folder of all findings; becomes that of this one.  After an error there is none. */
int finding_save(const struct finding *f, char *dir, size_t cap, struct kvfs_error *err);
/* The command that judges the finding in DIR again, for a shell. */
void finding_command(const struct finding *f, const char *dir, char *text, size_t cap);
/* Another name of its state, with all that follows it; F was loaded from DIR. */
int finding_rename(const struct finding *f, const char *dir, struct kvfs_error *err);
/* Ends with finding_unload(), also after an error. */
int finding_load(struct finding *f, const char *dir, struct kvfs_error *err);
/* Are the files in DIR those that were kept?  -EINVAL: no. */
int finding_verify(const char *dir, struct kvfs_error *err);
void finding_unload(struct finding *f);

#endif /* CRASHSIM_FINDING_H */
