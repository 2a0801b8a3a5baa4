/* SPDX-License-Identifier: BSD-3-Clause
 *
 * scenario.h - a workload, and the oracle that belongs to it.
 *
 * All calls are made in children that are forked for the one call, so an engine may hang or
 * crash there.  They answer 0 or a negative errno with ERR.
 */
#ifndef CRASHSIM_SCENARIO_H
#define CRASHSIM_SCENARIO_H

#include <kvfs/kvfs.h>

#include "journal.h"
#include "place.h"

/* What is known of the volume. */
struct subject {
    const char *engine, *engine_params; /* params: NULL, or for tests */
    uint32_t caps;
    const struct place *place;
    const char *name; /* of this process's things in the place: no other uses it now */
};

struct verdict {
    int status;                /* enum verdict_status */
    bool repaired;  /* the file system below needed e2fsck */
    bool late;      /* it was judged again, alone and with more time */
    bool duplicate, undecided; /* undecided: the oracle's search was too long */
    uint64_t hash;             /* of the engine's files, before anything was opened */
    char phase[48];            /* what is being done */
    char text[400];
    uint64_t lost; /* operations that were issued and are not there; acknowledged ones
                      * among them are no fault unless they were durable */
    uint64_t mount_ns, open_ns, judge_ns, check_ns, umount_ns, build_ns; /* time taken */
};

enum verdict_status {
    VERDICT_NONE, /* the judge died before it had one */
    VERDICT_GOOD,
    VERDICT_VIOLATION,
    VERDICT_TROUBLE, /* the simulator itself failed, or had no room: nothing was judged */
};

struct judge {
    const struct subject *s;
    const struct journal *j;
    uint64_t t_ns;       /* of the workload's cut */
    uint64_t instant_ns; /* of the last cut: later than that, if it fell while recovering */
    struct journal_recovery *note; /* NULL, or: what happens when is noted there */
    const char *volume; /* its folder, in the recovered file system */
    struct kvfs_volume *v;
    uint64_t digest; /* out: of all that was recovered */
    struct verdict *verdict;
};

struct scenario {
    const char *name, *summary;
    const char *const *tools; /* NULL, or the programs that it starts; NULL ends them */
    bool serves;              /* the volume, by nbdkit and the plugin */
    /* Fill a volume that was just formatted. */
    int (*prepare)(struct kvfs_volume *v, struct kvfs_error *err);
    /* The same, with a folder to work in. */
    int (*prepare_in)(struct kvfs_volume *v, const struct place *place, struct kvfs_error *err);
    /* Work until all is done or the disk is dead.  VOLUME: its folder. */
    int (*work)(const struct subject *s, const char *volume, struct journal *j,
                struct kvfs_error *err);
    /* Look at a volume after a cut.  0: J->verdict has it, if it is bad (judge_bad); a negative
     * errno: it could not be read, which is a violation as well. */
    int (*judge)(struct judge *j, struct kvfs_error *err);
    /* Names (below 2^32) what was acknowledged as durable at T_NS, which is all that the judge demands of the
     * operations that were acknowledged; NULL: it looks at each of them. */
    uint64_t (*durable)(const struct journal *j, uint64_t t_ns);
    /* Change something more, durably; the next judge() must find it the same: NULL: nothing of the
     * scenario's own. */
    int (*write_on)(struct judge *j, struct kvfs_error *err);
};

extern const struct scenario scenario_kvfs, scenario_guest;
#ifdef CRASHSIM_LIBNBD
extern const struct scenario scenario_nbd;
/* The same work on nbdkit's plain memory disk, and the same oracle.  TEXT: empty, or what is bad. */
int scenario_nbd_memory(const struct place *p, uint64_t seed, char *text, size_t cap,
                        struct kvfs_error *err);
#endif
#ifdef CRASHSIM_SQLITE
extern const struct scenario scenario_sqlite;
#endif

/* Say why; the first reason stays. */
void judge_bad(struct judge *j, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The judge itself failed (R, a negative errno, with ERR; 0: it did not): that is no violation.
 * Answers R. */
int judge_could_not(struct judge *j, int r, const struct kvfs_error *err);
/* A hash of what was read. */
uint64_t judge_digest(const void *bytes, size_t count);
/* What the engine promises of acknowledged operations. */
bool judge_expects_durable(const struct judge *j);
bool judge_expects_order(const struct judge *j);

/* The options that workloads open their volume with: many commits, of every other one behind
 * a log a small ring, which wraps and folds, and of every other one of RocksDB small memtables, so that
 * tables and blob files are written.  PARAMS is room for text. */
#define SUBJECT_PARAMS_MAX 300
void subject_options(const struct subject *s, uint64_t seed, char params[SUBJECT_PARAMS_MAX],
                     struct kvfs_volume_options *o);

/* All of it, of the volume in folder J->volume: open, look, write on, check, open, look again. */
void judge_all(const struct scenario *scenario, struct judge *j);

/* A file of the volume that shows the write after the recovery. */
#define JUDGE_AFTER "crashsim-after"

#endif /* CRASHSIM_SCENARIO_H */
