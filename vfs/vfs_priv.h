/* SPDX-License-Identifier: BSD-3-Clause
 *
 * vfs_priv.h - what the files of vfs/ know of each other.
 *
 * Locking order, outermost first: SQLite's own mutexes; a pin's; vfs_lock() (tables of files,
 * connections and named journals).  vfs_lock is never held while libkvfs is called, so that
 * its fork handler and ours cannot wait for each other.
 */
#ifndef KVFS_VFS_PRIV_H
#define KVFS_VFS_PRIV_H

#include <kvfs/kvfs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "sqlite_api.h"
#include "testbug.h"

#define VFS_NAME "kvfs"
#define VFS_PATH_MAX 512 /* bytes, the NUL among them: mxPathname */
#define VFS_SUPER_TAIL 12 /* -mjXXXXXX9XX behind the main database's name: a super-journal */

/* --- register.c ------------------------------------------------------------- */

sqlite3_vfs *vfs_default(void); /* the one that was the default at registration */
void vfs_lock(void);
void vfs_unlock(void);
/* Wait on a condition of CLOCK_MONOTONIC, with vfs_lock held. */
void vfs_lock_wait(pthread_cond_t *cond, int64_t until_ns);
unsigned vfs_generation(void); /* grows in a forked child: what was opened before is dead */

/* --- error.c ---------------------------------------------------------------- */

/* Remember ERR's line, tell SQLite's log, and answer the code for errno RC, IOERR where no
 * other fits. */
int vfs_error(int rc, int ioerr, const struct kvfs_error *err);
/* The same for what is found wrong here. */
int vfs_refuse(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* --- name.c ----------------------------------------------------------------- */

struct vfs_name {
    char volume[VFS_PATH_MAX]; /* absolute, no symbolic links */
    char file[VFS_PATH_MAX];   /* inside it, no leading slash */
};

/* Find the volume and the file that NAME, with its URI parameters if URI, means. */
int vfs_name_resolve(const char *name, bool uri, struct vfs_name *n);
/* Split what vfs_name_resolve() made of a name; quiet where there is no volume. */
bool vfs_name_split(const char *path, struct vfs_name *n);

/* --- volume.c --------------------------------------------------------------- */

/* Open the volume that holds the database NAME, as its URI parameters say; make it only where
 * the database may be MADE, too. */
int vfs_volume_open(const char *name, const struct vfs_name *n, bool make, struct kvfs_volume **vp);
/* Find the file, or make it where FLAGS say so. */
int vfs_volume_file(struct kvfs_volume *v, const char *name, const struct vfs_name *n, int flags,
                    uint64_t *ino);

/* --- stage.c ---------------------------------------------------------------- */

extern size_t vfs_stage_memory_max_bytes; /* of all stages together; tests make it small */

/* Read N bytes at OFFSET of what a stage lies over; all of them lie inside it. */
typedef int vfs_base_fn(void *arg, void *buf, size_t n, uint64_t offset);

struct vfs_slot {
    uint64_t key; /* 0: empty; 1 + number of the unit */
    uint8_t *bytes;
};

struct vfs_stage_group; /* of units: which of them are in the temporary file */

struct vfs_stage {
    unsigned shift;     /* a unit is 1 << shift bytes */
    bool active;        /* something was written, or the size was set */
    uint64_t size;      /* of the file as the stage leaves it */
    uint64_t base_end;  /* of the base only what lies before is seen; behind it are zeros */
    vfs_base_fn *base;
    void *base_arg;
    struct vfs_slot *slots; /* units in memory */
    uint64_t slots_cap, slots_count;
    sqlite3_file *spill; /* a temporary file of the default VFS; NULL: none yet */
    struct vfs_stage_group **groups;
    uint64_t groups_count;
    uint64_t spilled; /* units in it */
};

void vfs_stage_init(struct vfs_stage *s, unsigned unit_bytes, vfs_base_fn *base, void *arg);
/* Begin over a base of SIZE bytes, unless begun. */
void vfs_stage_begin(struct vfs_stage *s, uint64_t size);
void vfs_stage_drop(struct vfs_stage *s);
bool vfs_stage_is_empty(const struct vfs_stage *s); /* nothing was written */
/* SQLite result codes.  A read past the end is zero-filled and SHORT_READ. */
int vfs_stage_read(struct vfs_stage *s, void *buf, size_t n, uint64_t offset);
int vfs_stage_write(struct vfs_stage *s, const void *buf, size_t n, uint64_t offset);
int vfs_stage_truncate(struct vfs_stage *s, uint64_t size);
/* Call FN for each piece that differs from the base, by rising offset. */
int vfs_stage_each(struct vfs_stage *s,
                   int (*fn)(void *arg, const void *buf, size_t n, uint64_t offset), void *arg);

/* --- conn.c ----------------------------------------------------------------- */

struct vfs_pin { /* one snapshot, read by several files of a connection */
    pthread_mutex_t lock;
    struct kvfs_snapshot *snap; /* NULL: not pinned yet */
    unsigned refs; /* under vfs_lock */
};

struct vfs_conn { /* a connection that has a file of a volume locked */
    struct vfs_conn *next;
    sqlite3 *db;
    struct kvfs_volume *v;
    struct vfs_pin *pin; /* for its next file; NULL: a new one */
    unsigned files;
};

struct vfs_file;

int vfs_pin_new(struct vfs_pin **pinp); /* with no snapshot yet */
int vfs_pin_open(struct kvfs_volume *v, struct vfs_pin **pinp);
void vfs_pin_drop(struct vfs_pin *pin); /* NULL allowed */
int vfs_pin_info(struct vfs_pin *pin, uint64_t ino, struct kvfs_file_info *info);
/* Was PIN made before the file, which is there by now? */
bool vfs_pin_precedes(struct vfs_pin *pin, struct kvfs_volume *v, uint64_t ino);
int vfs_pin_read(struct vfs_pin *pin, uint64_t ino, void *buf, size_t n, uint64_t offset);

/* F joins or leaves its connection. */
int vfs_conn_join(struct vfs_file *f);
void vfs_conn_leave(struct vfs_file *f);
/* Give F the connection's present snapshot, a new one if there is none. */
int vfs_conn_pin(struct vfs_file *f);
/* F was committed: it and the files that join later see what PIN shows, or, where that is
 * NULL, a snapshot that is opened when one is needed. */
void vfs_conn_repin(struct vfs_file *f, struct vfs_pin *pin);
/* The next file after O, NULL: the first, that F's connection reads with another pin than F's.
 * They change under the connection's own mutex, which is held. */
struct vfs_file *vfs_conn_other(const struct vfs_file *f, struct vfs_file *o);
/* All others of F's connection that are in F's pin as in their own take that as well. */
void vfs_conn_follow(const struct vfs_file *f);
/* F is about to be locked, and its connection's instant is too old for writing to it: begin a
 * newer one, if all that the connection has locked are in it as they see them. */
bool vfs_conn_renew(const struct vfs_file *f); /* false: they are not */
/* It was not, in the end: back to the pin that F had; or that one is no longer needed. */
void vfs_conn_repin_undo(struct vfs_file *f);
void vfs_conn_repin_keep(struct vfs_file *f);

/* --- file.c ----------------------------------------------------------------- */

struct vfs_super;

struct vfs_file {
    sqlite3_file base; /* first: SQLite's */
    struct vfs_file *next;
    unsigned generation;
    unsigned busy_ms;
    struct kvfs_volume *v; /* a counted opening */
    struct kvfs_file *f;
    uint64_t ino;
    char *path; /* as SQLite knows it */
    char *name; /* inside the volume */
    sqlite3 **dbp;     /* FCNTL_PDB; read inside calls only */
    sqlite3 *db;       /* what it said at the last call; under vfs_lock */
    struct vfs_conn *conn;
    struct vfs_pin *pin;
    struct vfs_pin *pin_before; /* of a commit under way */
    uint64_t version_before, size_before;
    uint64_t version, size;  /* of the state below the stage */
    uint64_t version_cached; /* that the page cache was left at; 0: none */

    int lock;          /* SQLITE_LOCK_* */
    bool readonly;
    bool ordered;      /* durability=ordered */
    bool immutable;
    bool shared;       /* perhaps by several connections, in several threads */
    bool moved_on;     /* the last try to write found a newer version */
    bool hopeless;     /* waiting would not make the snapshot newer */
    bool leased;       /* kvfs_file_lock() is held; not from when a commit passed it on */
    bool exclusive;    /* locking_mode=EXCLUSIVE */
    bool unlock_awaited; /* committed, and SQLite has said nothing since */
    bool unlock_follows; /* an unlock follows each commit: locking_mode is not EXCLUSIVE */
    bool pin_lost;     /* it could not be had anew: reads fail until unlocked */
    /* A commit failed after it could be seen, so what was read here may never have been: the
     * page cache is to be dropped. */
    atomic_bool suspect;

    bool cookie_burns; /* under vfs_lock: a schema cookie up to that one may be known here for */
    uint32_t cookie_burnt; /* a schema that never was (header.c) */

    struct vfs_stage stage;
    bool doomed; /* the stage could not take a write: the transaction can only be rolled back */
    sqlite3 *prepared_by;
    char *super;       /* under which name it is prepared; NULL: alone */
    bool prepared;     /* FCNTL_SYNC has come, no write since; under vfs_lock, as these two */
    bool committing;   /* it is in the batch that is under way */
    bool committed;    /* by another's commit point: PHASETWO has only a late truncate */
    bool synced;       /* xSync asked for durability */
    bool broken;       /* an error that SQLite did not hear: fail until reopened */
    char mode[12];     /* journal_mode */

    uint64_t id; /* never used again in this process */
    /* wait.c's */
    struct vfs_file *wait_next;
    pthread_cond_t wait_cond;
    int64_t wait_seen_ns;  /* when it last slept */
    bool wait_holds; /* the lease, as `leased`, but for all to see under vfs_lock */
    bool waiting, sleeping, wait_closing;
};

extern const sqlite3_io_methods vfs_file_methods;

int vfs_file_open(sqlite3_vfs *vfs, const char *name, struct vfs_file *f, int flags,
                  int *out_flags);
/* 0, or why F can no longer be used. */
int vfs_file_check(struct vfs_file *f);
/* The connection that F is being used by now. */
sqlite3 *vfs_file_db(struct vfs_file *f);
/* Each open database, under vfs_lock. */
struct vfs_file *vfs_file_first(void);

/* --- lock.c ----------------------------------------------------------------- */

int vfs_lock_raise(sqlite3_file *file, int level);
int vfs_lock_lower(sqlite3_file *file, int level);
int vfs_lock_reserved(sqlite3_file *file, int *out);
/* locking_mode changes for F, and with DB for all that this connection has open.  False: not
 * to exclusive, for a file that is being read is being written by somebody else. */
bool vfs_lock_mode(struct vfs_file *f, const sqlite3 *db, bool exclusive);

/* SQLite goes on writing where it did not unlock after a commit: locking_mode is EXCLUSIVE,
 * which was said to a main database that is none of ours.  Takes the lease, if it was passed on. */
int vfs_lock_again(struct vfs_file *f);
/* Give the lease of F, which is committed but not yet durable, to the next writer. */
void vfs_lock_pass(struct vfs_file *f);

/* --- wait.c ----------------------------------------------------------------- */

/* So long a place in the queue is kept for one that was woken; a test whose threads may stand
 * still for longer makes it long. */
extern int64_t vfs_wait_hold_ns;

bool vfs_wait_may(struct vfs_file *f);        /* nobody waits before F for its lease */
void vfs_wait_busy(const struct vfs_file *f); /* this thread could not have it */
void vfs_wait_clear(void);                    /* this thread tries anew */
void vfs_wait_got(struct vfs_file *f);
void vfs_wait_freed(struct vfs_file *f);
void vfs_wait_leave(struct vfs_file *f); /* it no longer wants it */
void vfs_wait_close(struct vfs_file *f); /* F goes; wakes who sleeps for it in another thread */
/* Sleep that long at most for what this thread could not have; false: there is no such. */
bool vfs_wait_sleep(int microseconds);

/* --- commit.c --------------------------------------------------------------- */

int vfs_commit_prepare(struct vfs_file *f, const char *super);
int vfs_commit_phase_two(struct vfs_file *f);
/* xDelete of a super-journal, synced: the commit point of those prepared under it. */
int vfs_commit_super(const char *super);
void vfs_commit_unprepare_group(struct vfs_file *f); /* F, and all under its super-journal */
void vfs_commit_forget(struct vfs_file *f); /* drop the stage and all that was prepared */

/* --- room.c ----------------------------------------------------------------- */

/* Is there room for a commit of all of FILES that lie in volume V?  SQLITE_FULL if not, and
 * if the first of them, which is being prepared, is not being rolled back instead. */
int vfs_room_check(struct vfs_file *const *files, size_t count, struct kvfs_volume *v);

/* --- header.c --------------------------------------------------------------- */

/* After a write that reached page 1: never WAL. */
int vfs_header_written(struct vfs_stage *s, uint64_t offset, size_t n);
/* Is this certainly a commit?  The change counter has grown, as no rollback leaves it. */
bool vfs_header_grew(struct vfs_file *f);
/* F's commit failed, and may have been seen: its schema cookie is not to be used again. */
void vfs_header_burn(struct vfs_file *f);
/* Before a commit: the change counter must grow. */
int vfs_header_count(struct vfs_file *f);

/* --- control.c -------------------------------------------------------------- */

int vfs_control(sqlite3_file *file, int op, void *arg);
/* Has F's name gone, or does it mean another file by now?  *MOVED, and a line that says so. */
int vfs_control_moved(const struct vfs_file *f, int *moved);

/* --- journal.c -------------------------------------------------------------- */

int vfs_journal_open(const char *name, sqlite3_file *file, int flags, int *out_flags);
/* Is NAME, LEN bytes, that of a database which is open here, with TAIL behind it? */
bool vfs_journal_is_ours(const char *name, size_t len, const char *tail);
/* Is there a super-journal of that name? */
bool vfs_journal_exists(const char *name);
/* True: NAME is a super-journal's.  It stays visible to its group. */
bool vfs_journal_delete(const char *name, bool committed);
/* F is prepared under NAME, perhaps a super-journal's here: it waits for F. */
void vfs_journal_join(const char *name, const struct vfs_file *f);
/* F has unlocked: super-journals that waited for it may go. */
void vfs_journal_leave(const struct vfs_file *f);
int vfs_journal_size(void); /* of sqlite3_file */

#endif /* KVFS_VFS_PRIV_H */
