/* SPDX-License-Identifier: BSD-3-Clause
 *
 * campaign.h - rounds of one scenario over one engine.
 *
 * A round: a fresh file system with a fresh volume, a workload, a cut; the disk is powered on, the
 * volume recovered and judged there (the whole of it is real); then crash states of many other
 * instants of the same workload are built from the recording and judged.
 */
#ifndef CRASHSIM_CAMPAIGN_H
#define CRASHSIM_CAMPAIGN_H

#include "finding.h"
#include "stack.h"
#include "state.h"

#define FINDINGS_KEPT 3 /* of one campaign */

enum campaign_kind {
    CAMPAIGN_DROP,
    CAMPAIGN_KEEP,
    CAMPAIGN_PREFIX,
    CAMPAIGN_LEAVE,
    CAMPAIGN_ONLY,
    CAMPAIGN_RANDOM,
    CAMPAIGN_KINDS
};
extern const char *const campaign_kind_names[CAMPAIGN_KINDS];

struct campaign_stats {
    uint64_t rounds, cuts, live; /* live: cuts of a running disk among the states */
    uint64_t states, duplicates, distinct, violations, troubles, undecided, repaired, late;
    /* Cuts while recovering: by what went on, and while something unlinked was being deleted, and
     * while the log was being folded. */
    uint64_t second[RECOVERY_PHASES], second_orphans, second_folds;
    uint64_t kinds[CAMPAIGN_KINDS];
    uint64_t operations, acknowledged, events;
    struct journal_seen seen; /* added up */
    uint64_t work_ns, states_ns; /* of the clock; states_ns: building and judging */
    uint64_t build_ns, mount_ns, open_ns, judge_ns, check_ns,
        umount_ns;     /* of the states, added up */
    char first[440];   /* what was first found */
    unsigned kept;     /* findings, and how to see each again; 0: none could be */
    char commands[FINDINGS_KEPT][FINDING_COMMAND_MAX];
    char trouble[440]; /* why the first state could not be judged */
    struct shrunk *shrunk; /* NULL, or the first that was kept, made smaller (again.h) */
};

struct campaign {
    const struct scenario *scenario;
    struct subject subject;
    const struct place *place;
    uint64_t seed, states_max, end_ns; /* end_ns: 0, or stop then */
    uint64_t disk_bytes;
    uint64_t shrink;      /* judgements to make the first violation smaller; 0: it stays */
    unsigned judge_ms;    /* for one judgement */
    const char *promise;  /* NULL, or what it is held to instead of what it declares */
    const char *findings; /* NULL, or folder for recordings */
    bool trace;           /* no disk: states of the engine's files, from a trace of system calls */
    bool twice;           /* cut again while recovering */
    bool first;           /* stop at the first violation */
    bool plain;           /* no filter, no cut: the workload, an end in order, the judge */
    unsigned slots;
    bool (*stop)(void);                                                     /* asked often */
    void (*tell)(const struct campaign *c, const struct campaign_stats *s); /* of progress */
};

/* Can it be done at all, before anything is?  -ENOENT: a program is missing. */
int campaign_check(const struct campaign *c, struct kvfs_error *err);

/* 0 whatever was found; a negative errno: it could not be done.  STATS->shrunk is for the caller
 * to free in either case. */
int campaign_run(struct campaign *c, struct campaign_stats *stats, struct kvfs_error *err);

#endif /* CRASHSIM_CAMPAIGN_H */
