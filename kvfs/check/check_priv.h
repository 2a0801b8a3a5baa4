/* SPDX-License-Identifier: BSD-3-Clause
 *
 * check_priv.h - what the files of the checker share.
 *
 *   check.c    runs the rounds and their passes
 *   report.c   hands out findings, counts, applies repairs
 *   open.c     opens the volume or what is left of it; the superblock
 *   probe.c    opens and verifies the store in a child process first
 *   table.c    inodes and forks in memory: about 100 bytes each
 *   scan.c     walks a keyspace, also past what cannot be read
 *   where.c    says where: paths of inodes, keys of records
 *   meta.c     pass 1: decode every META record, fill the tables
 *   names.c    pass 2: count names; pass 6: judge names, cookies, attributes, links
 *   blocks.c   pass 3: every DATA record
 *   rebuild.c  pass 4: inodes whose record is damaged or missing
 *   forks.c    pass 5: holes, forks over forks, forks that nobody owns
 *   tree.c     pass 7: inodes: reachable, link counts, orphans, contents
 *   rescue.c   writing inodes and names, /lost+found, the counters
 *
 * Invariants:
 *  1. All passes look at one engine snapshot.  Repairs go to the engine in small
 *     batches while it is open; the tables hold what will be true after them.
 *  2. Nothing is repaired unless the engine found its own structure sound and
 *     every META record could be read: a conclusion from half the records
 *     ("no inode owns this fork") must not delete anything.
 *  3. A finding is reported once, at the place that knows whether it is
 *     repaired.
 *  4. Memory grows with the number of inodes and forks, never with DATA.
 */
#ifndef KVFS_CHECK_PRIV_H
#define KVFS_CHECK_PRIV_H

#include <stdbool.h>
#include <stdint.h>

#include <kvfs/batch.h>
#include <kvfs/check.h>
#include <kvfs/dir.h>

#include "record.h"
#include "data/view.h"
#include "volume_file.h"

#define CHECK_PATH_MAX  4096                    /* bytes; a longer path is not resolved */
#define CHECK_WHERE_MAX (CHECK_PATH_MAX + 1200) /* a path and what is said beside it */

/* Inodes and forks are numbered below this: a larger number is damage, and would not fit
 * into an offset of the lock file (lease.c). */
#define CHECK_ID_MAX (UINT64_C(1) << 61)

/* As kvfs_key_parse(); -EIO also for impossible numbers. */
int kvfs_check_key(const struct kvfs_key *key, struct kvfs_key_parts *parts);

/* --- tables ------------------------------------------------------------------ */

struct check_table { /* items that begin with their key, a number that is not 0 */
    void *items;
    uint32_t *slots; /* index + 1 of an item; 0: free */
    size_t item_size, count, cap, slot_count;
};

void kvfs_check_table_init(struct check_table *t, size_t item_size);
void kvfs_check_table_free(struct check_table *t);
void *kvfs_check_table_find(const struct check_table *t, uint64_t key);
/* Find or add (zeroed).  NULL without memory.  Moves the items: no pointer to an
 * earlier one holds any more. */
void *kvfs_check_table_add(struct check_table *t, uint64_t key);
void *kvfs_check_table_at(const struct check_table *t, size_t index);

enum {                         /* struct check_inode.flags */
    CI_RECORD = 1u << 0,       /* the inode record is sound */
    CI_DAMAGED = 1u << 1,      /* it is there, but not sound */
    CI_GUESS = 1u << 2,        /* damaged, but its fields look like an inode's */
    CI_CONTENTS = 1u << 3,     /* the contents record is sound */
    CI_CONTENTS_BAD = 1u << 4, /* it is there, but not sound */
    CI_SIZE_GUESS = 1u << 5,   /* not sound, but its fields look like one */
    CI_CHILDREN = 1u << 6,     /* names or cookies below it */
    CI_TARGET = 1u << 7,       /* a link's target, sound */
    CI_TARGET_BAD = 1u << 8,
    CI_PARTS = 1u << 9,       /* any record but the inode record itself */
    CI_ORPHAN = 1u << 10,     /* an orphan record */
    CI_REACHED = 1u << 11,    /* folder: below the root */
    CI_WALKING = 1u << 12,    /* folder: on the way that is being walked */
    CI_REBUILT = 1u << 13,    /* the record will be written anew */
    CI_REWRITE = 1u << 14,    /* the record will be corrected */
    CI_FORK_TAKEN = 1u << 15, /* another inode has its fork */
    CI_NEWER = 1u << 16,      /* a record of a newer version: left alone */
    CI_NAMED = 1u << 17,      /* folder: the one name it keeps was met */
    CI_LOST = 1u << 18,       /* given up: its records go, what is found of its data is rescued */
};

struct check_inode {
    uint64_t ino;
    uint64_t dir;    /* a folder that names it; 0: none seen */
    uint64_t parent; /* folder: the one its record names */
    uint64_t fork;   /* regular file */
    uint64_t size_bytes;
    uint64_t cut;
    uint32_t mode;    /* of the record, or only a type that a name told; 0: unknown */
    uint32_t nlink;   /* of the record */
    uint32_t names;   /* found, and kept */
    uint32_t subdirs; /* folder: folders it names */
    uint32_t rescued; /* of them: those that a repair puts there */
    uint32_t block_size_bytes;
    uint32_t flags;
};

enum {                    /* struct check_fork.flags */
    CF_FILE = 1u << 0,    /* an inode's */
    CF_TOP = 1u << 1,     /* over another */
    CF_PENDING = 1u << 2, /* being written by a transaction */
    CF_DEAD = 1u << 3,    /* to be deleted behind */
    CF_USED = 1u << 4,    /* blocks or holes were found under it */
    CF_BASE = 1u << 5,    /* others lie over it */
};

struct check_fork {
    uint64_t fork;
    uint64_t ino;        /* whose contents; 0: nobody's */
    uint64_t below;      /* the fork that a CF_TOP lies over */
    uint64_t over_cut;   /* as of which cut of it */
    uint64_t blocks;     /* found */
    uint64_t index_last; /* of the blocks found */
    uint64_t cut_max;    /* of blocks, holes and forks over it */
    uint32_t raw_len;    /* of the first sound block */
    uint32_t flags;
};

/* --- the run ------------------------------------------------------------------ */

struct check_holes { /* of one fork */
    uint64_t fork;
    struct kvfs_holes holes;
};

struct check {
    const struct kvfs_check_options *options;
    struct kvfs_check_result result;
    char *volume_path;
    struct kvfs_lease_table *leases;
    struct kvfs_volume *v; /* opened for reading, or NULL: the store was opened directly */
    const struct kvfs_engine *engine;
    struct kvfs_db *db;
    struct kvfs_db_snap *snap;
    struct kvfs_batch_builder *batch; /* repairs; NULL: report only */
    int batch_rc;                     /* why a batch could not be applied */
    unsigned round;                   /* 1, 2, ... */
    uint64_t round_repairs;           /* findings of this round that are repaired */
    bool unsound;                     /* the engine found its structure damaged */
    bool probed;                      /* a child process verified it already */
    bool survived;                    /* a child process at least came back from opening it */
    bool incomplete;                  /* not every META record could be read */
    bool extra_keys;                  /* a compatible feature may own unknown keys */
    bool strays_wanted;               /* a stray fork may hold data that a file lacks */
    unsigned unreadable;              /* places that scans had to step over */
    struct check_table inodes, forks;
    struct kvfs_volume_file file;
    struct kvfs_super super;
    bool file_ok, super_ok, super_newer;
    uint64_t counter[2];
    bool counter_ok[2];
    uint64_t rescued; /* inodes that a repair makes */
    uint64_t id_max;  /* largest inode, fork or cookie number met */
    uint64_t id_next; /* numbers for repairs: [id_next, id_end); 0: not set yet */
    uint64_t id_end;
    uint64_t lost_found;  /* inode of /lost+found; 0: not needed yet */
    uint64_t done, total;  /* records, for the progress */
    uint64_t engine_share; /* what verifying the store weighs beside them: as much as all of them */
    uint64_t steps;       /* records looked at in any pass */
    uint8_t *value;       /* KVFS_RECORD_MAX bytes: the record looked at */
    uint8_t *spare;       /* as much again: a second one */
    struct check_holes holes, holes_below, holes_above; /* of the forks last asked for */
    uint64_t path_ino;                                  /* whose path is in `path`; 0: nobody's */
    struct check_table said;                            /* hashes of the findings handed out */
    char path[CHECK_PATH_MAX];
    char where[CHECK_WHERE_MAX];
    uint64_t where_ino; /* whose path `where` begins with; 0: no path */
    size_t where_path_len;
};

static inline bool
kvfs_check_repairing(const struct check *c)
{
    return c->batch != NULL;
}

static inline struct check_inode *
kvfs_check_inode(struct check *c, uint64_t ino)
{
    return kvfs_check_table_find(&c->inodes, ino);
}

static inline struct check_fork *
kvfs_check_fork(struct check *c, uint64_t fork)
{
    return kvfs_check_table_find(&c->forks, fork);
}

/* A sound record, or one that a repair will write. */
static inline bool
kvfs_check_exists(const struct check_inode *i)
{
    return i != NULL && (i->flags & (CI_RECORD | CI_REBUILT)) != 0;
}

/* --- report.c: findings and repairs -------------------------------------------- */

/* Count and hand out one finding.  REPAIRED: what the repair does to it ("removed"), or
 * NULL when it stays; without --repair it always stays. */
void kvfs_check_found(struct check *c, const char *where, const char *repaired, const char *fmt,
                      ...) __attribute__((format(printf, 4, 5)));
/* Repairs; nothing happens without --repair.  Errors as apply. */
int kvfs_check_put(struct check *c, const struct kvfs_key *key, const void *value, size_t len,
                   struct kvfs_error *err);
int kvfs_check_del(struct check *c, const struct kvfs_key *key, struct kvfs_error *err);
int kvfs_check_del_block(struct check *c, const uint8_t key[KVFS_DATA_KEY_LEN],
                         struct kvfs_error *err);
/* All records of inode INO. */
int kvfs_check_del_inode(struct check *c, uint64_t ino, struct kvfs_error *err);
/* Hand FORK to the background. */
int kvfs_check_bury(struct check *c, uint64_t fork, struct kvfs_error *err);
/* Write what has gathered. */
int kvfs_check_apply(struct check *c, struct kvfs_error *err);
/* The memory of what was said in earlier rounds. */
void kvfs_check_said_init(struct check *c);
/* A number never used before. */
uint64_t kvfs_check_id_new(struct check *c);
/* One record more; -EINTR when the caller wants to stop. */
int kvfs_check_step(struct check *c, uint64_t records);
void kvfs_check_id_seen(struct check *c, uint64_t id);

/* --- scan.c --------------------------------------------------------------- */

struct check_record { /* one record of a scan */
    struct kvfs_db_cursor *cursor;
    struct kvfs_key key;
    size_t value_len;
};
typedef int check_record_fn(struct check *c, struct check_record *r, struct kvfs_error *err);

/* Call FN for each record of [lo, hi) (LO or HI NULL: the edge).  What cannot be read is a
 * finding (when LOUD) and stepped over; META then is incomplete. */
int kvfs_check_scan(struct check *c, enum kvfs_keyspace ks, const struct kvfs_key *lo,
                    const struct kvfs_key *hi, bool loud, check_record_fn *fn,
                    struct kvfs_error *err);
/* Read R's value into c->value.  -EIO: it cannot be read.  One longer than any record
 * counts as empty, which no decoder accepts. */
int kvfs_check_value(struct check *c, struct check_record *r, struct kvfs_error *err);
/* Read one META record into BUF (KVFS_RECORD_MAX bytes), as kvfs_check_value(); -ENOENT. */
int kvfs_check_get(struct check *c, const struct kvfs_key *key, uint8_t *buf, size_t *len,
                   struct kvfs_error *err);

/* --- where.c ---------------------------------------------------------------- */

/* Each of these writes c->where and returns it: something without a path, ... */
const char *kvfs_check_where(struct check *c, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* ... "file /a/b", "folder /a", "link /l"; "inode 12" when no path leads there. */
const char *kvfs_check_where_inode(struct check *c, uint64_t ino);
/* The same, and the block. */
const char *kvfs_check_where_block(struct check *c, uint64_t ino, uint64_t index,
                                   uint32_t block_size_bytes);
/* The name of INO in folder DIR (KVFS_NAME_MAX bytes); *len 0: it has none there. */
void kvfs_check_name_in(struct check *c, uint64_t dir, uint64_t ino, char *name, size_t *len);
/* The entry NAME of folder DIR, attribute NAME of INO. */
const char *kvfs_check_where_name(struct check *c, uint64_t dir, const char *name, size_t len);
const char *kvfs_check_where_xattr(struct check *c, uint64_t ino, const char *name, size_t len);
/* "META record 49 00 ..". */
const char *kvfs_check_where_key(struct check *c, const struct kvfs_key *key);

/* --- passes ------------------------------------------------------------------------- */

int kvfs_check_open(struct check *c, const char *path, struct kvfs_error *err);

/* Open (with the engine's PARAMS) and verify the store in a child, if that is allowed.  0: it may be opened here, and
 * its findings are out; 1: the engine crashed or hung, which is a finding now; negative: the
 * child could not open it, -EINTR, or no child could be made. */
int kvfs_check_probe(struct check *c, const char *path, const struct kvfs_engine *engine,
                     const char *params, struct kvfs_error *err);
void kvfs_check_close(struct check *c);
int kvfs_check_super(struct check *c, struct kvfs_error *err);
int kvfs_check_meta(struct check *c, struct kvfs_error *err);
int kvfs_check_names_count(struct check *c, struct kvfs_error *err);
int kvfs_check_blocks(struct check *c, struct kvfs_error *err);
int kvfs_check_rebuild(struct check *c, struct kvfs_error *err);
int kvfs_check_forks(struct check *c, struct kvfs_error *err);
int kvfs_check_names_judge(struct check *c, struct kvfs_error *err);
int kvfs_check_tree(struct check *c, struct kvfs_error *err);

/* A fork with records and no owner. */
static inline bool
kvfs_check_fork_stray(const struct check_fork *f)
{
    return (f->flags & CF_USED) != 0 && (f->flags & (CF_FILE | CF_TOP | CF_PENDING | CF_DEAD)) == 0;
}

/* --- rescue.c ------------------------------------------------------------------- */

/* Name inode INO in /lost+found, which is made when needed: "#12". */
int kvfs_check_rescue_inode(struct check *c, uint64_t ino, struct kvfs_error *err);
/* Make a file of a stray fork's blocks: "#fork-12". */
int kvfs_check_rescue_fork(struct check *c, uint64_t fork, struct kvfs_error *err);
/* Write the inode records that are to be rebuilt or corrected. */
int kvfs_check_rescue_write(struct check *c, struct kvfs_error *err);
int kvfs_check_contents_write(struct check *c, const struct check_inode *i, struct kvfs_error *err);
/* Remove the name of INO in folder DIR. */
int kvfs_check_rescue_unname(struct check *c, uint64_t dir, uint64_t ino, struct kvfs_error *err);
/* Judge the counters, once everything else is as it will be. */
int kvfs_check_counters(struct check *c, struct kvfs_error *err);
/* The link count that belongs to I. */
uint32_t kvfs_check_nlink(const struct check_inode *i);

#endif /* KVFS_CHECK_PRIV_H */
