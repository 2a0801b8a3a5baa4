/* SPDX-License-Identifier: BSD-3-Clause
 *
 * finding.h - a violation, kept so that it can be seen again.
 *
 * A folder SCENARIO-ENGINE-SEED-N with
 *   base.img                       what the disk held before
 *   recording, recording.side      docs/CRASHSIM.md
 *   trace                          instead of these: the system calls
 *   operations                     what the workload did, and when it was acknowledged
 *   state                          the state's name; then what was found, and the command
 */
#ifndef CRASHSIM_FINDING_H
#define CRASHSIM_FINDING_H

#include "journal.h"

struct finding {
    bool trace;                /* RECORD is one of system calls, and there is no base */
    const char *base, *record; /* to save */
    struct journal *journal;
    uint64_t t_ns_max;
    char state[96];
    const char *why;
    char base_path[512], record_path[512]; /* loaded */
};

/* DIR: the folder of all findings; becomes that of this one. */
int finding_save(const struct finding *f, char *dir, size_t cap, struct kvfs_error *err);
int finding_load(struct finding *f, const char *dir, struct kvfs_error *err);

#endif /* CRASHSIM_FINDING_H */
