/* SPDX-License-Identifier: BSD-3-Clause
 *
 * state.h - crash states of a recording, built and judged, several at once.
 *
 * A state is an instant of a recording and a choice of the changes that were open then.  Each is
 * judged in a process of its own, forked off the replayed disk: it has a copy of that in memory,
 * cuts it, writes what survived into the image of a slot, mounts that, and forks the judge.  Of a
 * trace of system calls (cmd/source.h) it makes the files themselves, in the slot's folder.
 */
#ifndef CRASHSIM_STATE_H
#define CRASHSIM_STATE_H

#include "disks.h"
#include "scenario.h"
#include "trace.h"

struct state {
    size_t at; /* instant: so many events have happened */
    struct crashsim_choice choice;
    const char *pick; /* NULL, or instead of the choice: text of a pick (pick.h), borrowed */
};

#define STATE_TEXT 96
/* "AT,SURVIVE,TEAR,SEED", of a choice */
const char *state_text(const struct state *s, char buf[STATE_TEXT]);
/* That, or "AT,PICK", where PICK begins with keep: or drop: and S borrows it. */
bool state_parse(const char *text, struct state *s);

struct bench;  /* the slots */
struct source; /* cmd/source.h */

/* DISK_BYTES 0: for states of traces only, without images and loop devices. */
int bench_new(const struct place *p, unsigned slots, uint64_t disk_bytes, struct bench **b,
              struct kvfs_error *err);
void bench_free(struct bench *b);

/* Told of each state when it was judged. */
typedef void bench_judged(void *arg, const struct state *s, const struct verdict *v);

struct bench_job {
    const struct scenario *scenario;
    const struct subject *subject;
    const struct journal *journal;
    struct source *source; /* NULL, or: states are of this trace */
    uint64_t t_ns_max; /* the workload's own cut; later acknowledgements are another's */
    unsigned judge_ms; /* for one judgement; one that takes longer is made again, alone */
    struct journal_recovery *note; /* of a running disk: what happens when; NULL: nowhere */
    bool all;          /* judge those too whose bytes were judged already */
    bench_judged *judged;
    void *judged_arg;
};

/* Judge S of the replayed disk (NULL, if JOB has a source), which is at its instant; returns when a slot is free and the work
 * has begun. */
int bench_begin(struct bench *b, const struct bench_job *job, struct replay *r,
                const struct state *s, uint64_t t_ns, struct kvfs_error *err);
/* The bytes in the volume at MNT are judged apart from the bench, behind what was acknowledged at T_NS:
 * it counts them with the others. */
void bench_note(struct bench *b, const struct bench_job *job, const char *mnt, uint64_t t_ns,
                struct verdict *v);
/* Wait for all that were begun. */
void bench_wait(struct bench *b);

/* So many different bytes in the engines' files were judged since the bench was made. */
uint64_t bench_distinct(const struct bench *b);

/* The judge, in a child, of a file system that is mounted at MNT, alone on the machine. */
void state_judge(const struct bench_job *job, const char *mnt, uint64_t t_ns, struct verdict *v);

/* What a full folder does to a file system in it looks like damage: then V is no violation. */
void state_room(const struct place *p, struct verdict *v);

#define STATE_JUDGE_MS 60000 /* of time, unless said otherwise */
#define STATE_VOLUME "volume" /* its folder, below the mount point */

#endif /* CRASHSIM_STATE_H */
