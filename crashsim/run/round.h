/* SPDX-License-Identifier: BSD-3-Clause
 *
 * round.h - what the two ways of a round (campaign.h) share.
 */
#ifndef CRASHSIM_ROUND_H
#define CRASHSIM_ROUND_H

#include "campaign.h"
#include "cuts.h"

#define STATES_A_CUT 10
#define WORK_MS      60000

struct round {
    struct campaign *c;
    struct campaign_stats *stats;
    struct bench *bench;
    struct journal *journal;
    struct verdict *live; /* shared */
    struct stack stack;
    char base[PLACE_NAME_MAX]; /* what the disk held before the recording */
    char record[PLACE_NAME_MAX + 8];
    char finding[FINDING_DIR_MAX]; /* folder of the first that was kept */
    uint64_t seed, t_ns_max;
    bool sparse;    /* a cut has few states that differ: many cuts, and of each a few */
    unsigned stale; /* states of this cut that were judged before, in a row */
};

#define STALE_MAX 4u /* then the next cut promises more */

/* campaign.c */
bool round_enough(const struct round *rd);
/* A bench_judged; ARG is a round. */
void round_judged(void *arg, const struct state *s, const struct verdict *v);
void round_count_second(struct round *rd, uint64_t t_ns);
/* Make the choice with number R, of OPEN changes. */
void round_choice(uint64_t r, size_t open, struct crashsim_choice *c);
/* The next choice of a cut, which keeps other changes than those before; false: none was found.
 * SEEN: how many there were, and what each kept. */
struct round_seen {
    uint64_t seed, tried;
    unsigned count;
    uint64_t kept[STATES_A_CUT];
};
bool round_next(struct round_seen *seen, size_t open, struct crashsim_choice *c);
/* A worker that failed with nothing wrong below it is a violation; -ENOSPC: it had no room, which is none. */
int round_failed(struct round *rd, int status, struct kvfs_error *err);
/* What the workload did until T_NS. */
void round_count(struct round *rd, uint64_t events, uint64_t t_ns);
/* Forks: a new volume in MNT/volume. */
int round_template(struct campaign *c, const char *mnt, struct kvfs_error *err);

/* round_trace.c: the same workload and oracle, without a disk: the volume's files are rebuilt from a
 * trace of the system calls.  Times of the journal are lines of the trace. */
int round_trace_template(struct campaign *c, const char *folder, struct kvfs_error *err);
int round_trace(struct round *rd, const char *template, struct kvfs_error *err);

#endif /* CRASHSIM_ROUND_H */
