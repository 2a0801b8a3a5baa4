/* SPDX-License-Identifier: BSD-3-Clause
 *
 * journal.h - what a workload did, told outside the disk.
 *
 * The worker, a process of its own, writes each operation into shared memory before it begins,
 * and its answer when it has it, with times of the clock that the recording has, too.  So it is
 * known for every instant of the recording what had been acknowledged, and what not even begun.
 *
 * 1. Operations stand in the order of their issue.
 * 2. A time is taken before the operation begins and after its answer came: what counts as
 *    acknowledged at T was, and what counts as not issued at T was not.
 */
#ifndef CRASHSIM_JOURNAL_H
#define CRASHSIM_JOURNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <kvfs/error.h>

#define JOURNAL_MAX ((uint32_t)1 << 16) /* operations */

struct journal_op {
    uint64_t issued_ns;
    _Atomic uint64_t acked_ns; /* 0: no good answer was seen */
    uint32_t kind, a, b, c;    /* the scenario's */
    uint64_t offset, count;
};

/* What a workload has passed through, as far as it can be told from outside. */
struct journal_seen {
    uint64_t commits, commits_durable;
    uint64_t full;     /* looks that met more than half of the cache unwritten */
    uint64_t pressure; /* of these: the next look met fewer, after commits that nobody asked for */
    uint64_t deleting; /* looks that met a fork being deleted in the background */
    uint64_t holes;    /* ... a hole being worked off */
    uint64_t growth;   /* bytes that the store grew by */
    uint64_t folds;    /* times that the log had become shorter */
    uint64_t wraps;    /* times that as much was appended to it as it has room for */
};

/* What the recovery of the running disk did, and when: the second cut falls into it. */
enum journal_phase {
    RECOVERY_MOUNT, /* until the engine is opened: ext4's journal */
    RECOVERY_ENGINE,
    RECOVERY_KVFS, /* the rest of opening the volume */
    RECOVERY_READ, /* meanwhile what was left behind is deleted */
    RECOVERY_WRITE,
    RECOVERY_CLOSE,
    RECOVERY_CHECK,
    RECOVERY_AGAIN, /* opened once more */
    RECOVERY_PHASES
};
extern const char *const journal_phase_names[RECOVERY_PHASES];

struct journal_recovery {
    uint64_t begin_ns[RECOVERY_PHASES]; /* 0: never came to it */
    uint64_t orphans_ns; /* until then something unlinked was being deleted; 0: nothing was */
    uint64_t folded_ns;  /* until then the log was being folded; 0: nothing was */
    uint64_t acked_ns;   /* a durable change was acknowledged; 0: none */
    uint64_t digest;     /* of what had been recovered, so all of it is durable from then on */
};

struct journal {
    uint64_t seed;
    char scenario[32], engine[96];
    char params[300]; /* of the engine */
    struct journal_seen seen;
    struct journal_recovery recovery;
    uint64_t trace_begin; /* of a trace: the time in front of its first line */
    char ended[256]; /* why the worker stopped; empty: it was done */
    int ended_error; /* 0, or the negative errno of that */
    _Atomic uint32_t count;
    struct journal_op ops[JOURNAL_MAX];
};

/* Shared with the children that are forked later.  NULL: no memory. */
struct journal *journal_new(void);
void journal_free(struct journal *j);

/* The number of the operation; -ENOSPC: full. */
int journal_issue(struct journal *j, const struct journal_op *op);
void journal_ack(struct journal *j, int number);

/* The worker answered R, with ERR if that is negative. */
void journal_end(struct journal *j, int r, const struct kvfs_error *err);

/* As they stood at T_NS. */
uint32_t journal_issued_at(const struct journal *j, uint64_t t_ns);
bool journal_acked_at(const struct journal *j, uint32_t op, uint64_t t_ns);

/* A moment of a recovery is now. */
void journal_note(struct journal_recovery *r, uint64_t *moment);

/* In a process that is traced: each of these moments is a line of FILE besides, so that it has a
 * place among the traced calls. */
int journal_mark_to(const char *file);
/* Let MARK, a line of that file, have happened at T_NS: false: it is none of ours. */
bool journal_marked(struct journal *j, const char *mark, uint64_t t_ns);

int journal_save(const struct journal *j, const char *path, struct kvfs_error *err);
int journal_load(struct journal *j, const char *path, struct kvfs_error *err);

uint64_t journal_now(void); /* CLOCK_MONOTONIC, nanoseconds */

#endif /* CRASHSIM_JOURNAL_H */
