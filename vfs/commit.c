/* SPDX-License-Identifier: BSD-3-Clause
 *
 * commit.c - one SQLite transaction, one commit of the volume.
 *
 * SQLite tells a VFS nothing of transactions; what it does is told from its calls:
 *
 *  event                 | what is done                                            | where
 *  ----------------------+---------------------------------------------------------+-----------------
 *  no lock               | each read has a snapshot of its own                     | file_read_unlocked
 *  NONE -> SHARED        | the connection's snapshot, or a new one                 | lock_shared
 *  -> RESERVED           | the file's lease, else BUSY; newer than the snapshot:   | lock_lease
 *                        | BUSY_SNAPSHOT                                           |
 *  -> EXCLUSIVE          | from RESERVED nothing; from SHARED as RESERVED          | vfs_lock_raise
 *  xWrite, xTruncate     | into the stage, also in mid-transaction (pagerStress,   | file_write
 *                        | without FCNTL_SYNC); a write clears "prepared"          |
 *  xRead, xFileSize      | stage, then snapshot                                    | file_read
 *  FCNTL_SYNC            | "prepared", alone or under a super-journal; also sent   | vfs_commit_prepare
 *                        | in a rollback after a spill, which ends in an unlock,   |
 *                        | or with locking_mode=EXCLUSIVE in the next write        | file_write
 *                        | (space is judged, but a rollback must go on)            | vfs_room_check
 *  xSync                 | the wish for durability                                 | file_sync
 *  COMMIT_PHASETWO,      | commit point: all prepared files of the connection in   | vfs_commit_phase_two
 *    no super-journal    | one batch                                               |
 *  xDelete(super, 1)     | commit point: all files prepared under that name in one | vfs_commit_super
 *                        | batch; its error is the answer                          |
 *  COMMIT_PHASETWO after | only a late xTruncate (VACUUM), as a second batch that  | vfs_commit_phase_two
 *    it                  | may fail harmlessly                                     |
 *  xDelete(super, 0)     | a rollback: nothing                                     | vfs_journal_delete
 *  COMMIT_PHASETWO, the  | commits, but its error is lost: then the file fails     | vfs_commit_phase_two
 *    super-journal not   | until it is opened again                                |
 *    ours (main is an    |                                                         |
 *    ordinary database)  |                                                         |
 *  failed commit         | the stage is dropped at once                            | commit_failed
 *  failed write          | too, and no commit follows                               | file_staged
 *  unlock below RESERVED | the stage is dropped; the whole group is un-prepared;   | vfs_commit_forget
 *                        | after a commit the new state is pinned; then the lease  | lock_lower_writer
 *                        | is free                                                 |
 *
 * 1. A batch holds every prepared file of its group that has something staged; each names the
 *    version that its stage lies over, and the batch counts it up.  A stage without a
 *    difference commits nothing.
 * 2. PHASETWO answers IOERR or FULL only: the pager takes no other error for one.
 * 3. A commit that is done is never answered with an error.
 * 4. Files of different volumes, and ordinary databases, are not in one batch: between them a
 *    crash may leave one committed and not the other.
 */
#include <errno.h>
#include <string.h>

#include "vfs_priv.h"

#define COMMIT_FILES_MAX 128 /* SQLite attaches at most 125 */

struct commit_group {
    struct vfs_file *files[COMMIT_FILES_MAX];
    size_t count;
};

static bool
commit_is_staged(const struct vfs_file *f)
{
    const struct vfs_stage *s = &f->stage;

    return s->active && (!vfs_stage_is_empty(s) || s->size != f->size || s->base_end != f->size);
}

/* Other threads look for the members of their groups among all files: these change under
 * vfs_lock.  SUPER is taken over; NULL: alone, or none. */
static void
commit_set_prepared(struct vfs_file *f, bool prepared, sqlite3 *by, char *super)
{
    char *before;

    vfs_lock();
    before = f->super;
    f->prepared = prepared;
    f->prepared_by = by;
    f->super = super;
    vfs_unlock();
    sqlite3_free(before);
}

static void
commit_unprepare(struct vfs_file *f)
{
    commit_set_prepared(f, false, NULL, NULL);
}

static void
commit_drop(struct vfs_file *f)
{
    vfs_stage_drop(&f->stage);
    f->doomed = false;
    f->synced = false;
}

void
vfs_commit_unprepare_group(struct vfs_file *f)
{
    vfs_lock();
    for (struct vfs_file *o = vfs_file_first(); o != NULL && f->super != NULL; o = o->next) {
        if (o != f && o->prepared && o->super != NULL && strcmp(o->super, f->super) == 0)
            o->prepared = false;
    }
    vfs_unlock();
    commit_unprepare(f);
}

void
vfs_commit_forget(struct vfs_file *f)
{
    if (f->prepared && !f->committed)
        vfs_commit_unprepare_group(f);
    commit_unprepare(f);
    commit_drop(f);
}

/* Are two files of one connection prepared for the same commit point? */
static bool
commit_together(const struct vfs_file *a, const struct vfs_file *b)
{
    if (kvfs_test_bug("batch-per-file"))
        return false;
    if (a->prepared_by == NULL || a->prepared_by != b->prepared_by)
        return false;
    if (a->super == NULL || b->super == NULL)
        return a->super == b->super;
    return strcmp(a->super, b->super) == 0;
}

/* F, and all that are prepared for the same commit point. */
static void
commit_gather(struct vfs_file *f, struct commit_group *g)
{
    g->files[g->count++] = f;
    vfs_lock();
    for (struct vfs_file *o = vfs_file_first(); o != NULL && f->prepared; o = o->next) {
        if (o != f && o->prepared && !o->doomed && o->generation == f->generation &&
            commit_together(o, f) && g->count < COMMIT_FILES_MAX)
            g->files[g->count++] = o;
    }
    vfs_unlock();
}

/* Room for what is prepared so far, F the last of it? */
static int
commit_room(struct vfs_file *f)
{
    struct commit_group g = {0};

    commit_gather(f, &g);
    return vfs_room_check(g.files, g.count, f->v);
}

int
vfs_commit_prepare(struct vfs_file *f, const char *super)
{
    char *name = NULL;
    int rc;

    if (f->lock < SQLITE_LOCK_RESERVED)
        return SQLITE_OK;
    if (super != NULL && super[0] != '\0') {
        name = sqlite3_mprintf("%s", super);
        if (name == NULL)
            return SQLITE_IOERR_NOMEM;
        vfs_journal_join(name, f);
    }
    f->committed = false;
    commit_set_prepared(f, true, vfs_file_db(f), name);
    rc = commit_room(f);
    if (rc != SQLITE_OK)
        commit_unprepare(f);
    return rc;
}

/* --- one batch ---------------------------------------------------------------- */

struct commit_put {
    struct kvfs_txn *txn;
    struct vfs_file *f;
    struct kvfs_error *err;
    int rc;
};

static int
commit_put(void *arg, const void *buf, size_t n, uint64_t offset)
{
    struct commit_put *p = arg;

    p->rc = kvfs_test_fault("write");
    if (p->rc == 0)
        p->rc = kvfs_txn_write(p->txn, p->f->f, p->f->version, buf, n, offset, p->err);
    return p->rc < 0 ? SQLITE_IOERR_WRITE : SQLITE_OK;
}

/* Put F's stage into the transaction. */
static int
commit_file(struct kvfs_txn *txn, struct vfs_file *f)
{
    struct kvfs_error err = {0};
    struct commit_put put = {.txn = txn, .f = f, .err = &err};
    int rc = kvfs_test_fault("header") < 0 ? SQLITE_IOERR_READ : vfs_header_count(f);

    if (rc != SQLITE_OK)
        return rc;
    if (f->stage.base_end < f->size)
        put.rc = kvfs_txn_truncate(txn, f->f, f->version, f->stage.base_end, &err);
    if (put.rc == 0)
        rc = vfs_stage_each(&f->stage, commit_put, &put);
    if (put.rc == 0 && rc == SQLITE_OK)
        put.rc = kvfs_txn_truncate(txn, f->f, f->version, f->stage.size, &err);
    return put.rc < 0 ? vfs_error(put.rc, SQLITE_IOERR_WRITE, &err) : rc;
}

/* The transaction is ordered and can be seen: F's state is the new one, shown by PIN. */
static void
commit_seen(struct vfs_file *f, struct vfs_pin *pin)
{
    struct kvfs_file_info info;

    f->version_before = f->version;
    f->size_before = f->size;
    kvfs_file_info(f->f, &info); /* ours: the lease is held */
    f->version = info.version;
    f->size = info.size_bytes;
    vfs_conn_repin(f, pin);
    vfs_conn_follow(f);
}

/* It is as durable as was asked for. */
static void
commit_done(struct vfs_file *f)
{
    f->committed = true;
    commit_unprepare(f);
    commit_drop(f);
    vfs_conn_repin_keep(f);
}

/* It never was.  Whoever has seen it here, in this process, forgets what he read. */
static void
commit_undo(struct vfs_file *f)
{
    f->version = f->version_before;
    f->size = f->size_before;
    vfs_conn_repin_undo(f);
    vfs_header_burn(f);
    vfs_lock();
    for (struct vfs_file *o = vfs_file_first(); o != NULL; o = o->next) {
        if (o->v == f->v && o->ino == f->ino)
            atomic_store(&o->suspect, true);
    }
    vfs_unlock();
}

/* The end of a batch over volume V for F, one of its group.  SEEN: it was submitted. */
static void
commit_end(struct vfs_file *f, const struct kvfs_volume *v, int rc, bool seen)
{
    if (f->v != v)
        return;
    if (f->committing && rc == SQLITE_OK)
        commit_done(f);
    else if (f->committing && seen)
        commit_undo(f);
    else if (rc == SQLITE_OK) /* nothing of it was staged */
        commit_unprepare(f);
    f->committing = false;
}

/* F's transaction was made of all that its connection has read of the volume. */
static int
commit_bases(struct kvfs_txn *txn, struct vfs_file *f, struct kvfs_error *err)
{
    int rc = f->pin != NULL ? kvfs_txn_built_on(txn, f->pin->snap, err) : 0;

    for (struct vfs_file *o = NULL; rc == 0 && (o = vfs_conn_other(f, o)) != NULL;)
        rc = kvfs_txn_built_on(txn, o->pin->snap, err);
    return rc;
}

/* Stage the files of G that lie in volume V; *durability: the strongest wish.  The transaction
 * is NULL where nothing is staged. */
static int
commit_build(const struct commit_group *g, struct kvfs_volume *v, struct kvfs_txn **txnp,
             enum kvfs_durability *durability)
{
    struct kvfs_error err = {0};
    struct kvfs_txn *txn = NULL;
    int rc = SQLITE_OK;
    int code = 0;

    for (size_t i = 0; i < g->count && rc == SQLITE_OK; i++) {
        struct vfs_file *f = g->files[i];

        if (f->v != v || !commit_is_staged(f))
            continue;
        if (txn == NULL && (code = kvfs_test_fault("begin")) == 0)
            code = kvfs_txn_begin(v, &txn, &err);
        if (code == 0)
            code = commit_bases(txn, f, &err);
        f->committing = code == 0;
        rc = code == 0 ? commit_file(txn, f) : vfs_error(code, SQLITE_IOERR_COMMIT_ATOMIC, &err);
        if (f->synced && !f->ordered)
            *durability = KVFS_DURABLE;
    }
    if (rc == SQLITE_OK)
        *txnp = txn;
    else
        kvfs_txn_abort(txn);
    return rc;
}

/* Commit the files of G that lie in volume V.  PASS: the next writer need not wait until it is
 * durable.  Nothing that comes after the submission can fail but the disk. */
static int
commit_batch(struct commit_group *g, struct kvfs_volume *v, bool pass)
{
    enum kvfs_durability durability = KVFS_ORDERED;
    struct kvfs_error err = {0};
    struct kvfs_ticket *ticket = NULL;
    struct kvfs_txn *txn = NULL;
    struct vfs_pin *pin = NULL;
    int code = 0;
    int rc = commit_build(g, v, &txn, &durability);

    if (rc == SQLITE_OK && txn != NULL && (rc = vfs_pin_new(&pin)) != SQLITE_OK)
        kvfs_txn_abort(txn);
    if (rc == SQLITE_OK && txn != NULL)
        code = kvfs_txn_submit_pinned(txn, durability, &ticket, &pin->snap, &err);
    if (code < 0)
        rc = vfs_error(code, SQLITE_IOERR_COMMIT_ATOMIC, &err);
    if (pin != NULL && (pin->snap == NULL || kvfs_test_bug("free-before-repin"))) {
        vfs_pin_drop(pin); /* a large one: unlocking pins it */
        pin = NULL;
    }
    for (size_t i = 0; i < g->count && rc == SQLITE_OK && txn != NULL; i++) {
        struct vfs_file *f = g->files[i];

        if (!f->committing)
            continue;
        commit_seen(f, pin);
        if (pass && (pin != NULL || kvfs_test_bug("free-before-repin")))
            vfs_lock_pass(f);
    }
    if (rc == SQLITE_OK && (code = kvfs_txn_wait(ticket, durability, &err)) < 0)
        rc = vfs_error(code, SQLITE_IOERR_COMMIT_ATOMIC, &err);
    for (size_t i = 0; i < g->count; i++)
        commit_end(g->files[i], v, rc, ticket != NULL);
    vfs_pin_drop(pin);
    return rc;
}

static int
commit_failed(struct commit_group *g, int rc)
{
    for (size_t i = 0; i < g->count && !kvfs_test_bug("keep-stage"); i++) {
        commit_unprepare(g->files[i]);
        commit_drop(g->files[i]);
    }
    if (rc == SQLITE_FULL || (rc & 0xff) == SQLITE_IOERR)
        return rc;
    return SQLITE_IOERR_COMMIT_ATOMIC;
}

static int
commit_run(struct commit_group *g, bool pass)
{
    int rc = SQLITE_OK;

    for (size_t i = 0; i < g->count && rc == SQLITE_OK; i++) {
        if (g->files[i]->doomed)
            rc = vfs_refuse(SQLITE_IOERR_WRITE, "%s: a write failed, and there was no rollback",
                            g->files[i]->path);
    }
    for (size_t i = 0; i < g->count && rc == SQLITE_OK; i++) {
        if (g->files[i]->prepared) /* not yet gone with one before */
            rc = commit_batch(g, g->files[i]->v, pass);
    }
    for (size_t i = 0; i < g->count && rc != SQLITE_OK; i++) {
        if (g->files[i]->committed) /* on another volume, while SQLite rolls back */
            g->files[i]->broken = true;
    }
    return rc == SQLITE_OK ? rc : commit_failed(g, rc);
}

/* --- commit points --------------------------------------------------------------- */

/* What is left of it: VACUUM gives space back after the commit point. */
static void
commit_late(struct vfs_file *f)
{
    struct commit_group g = {.files = {f}, .count = 1};

    f->committed = false;
    if (commit_is_staged(f)) {
        commit_set_prepared(f, true, NULL, NULL);
        f->synced = true;
        (void)commit_run(&g, false);
    }
    f->committed = false;
    commit_unprepare(f);
    vfs_stage_drop(&f->stage);
}

int
vfs_commit_phase_two(struct vfs_file *f)
{
    struct commit_group g = {0};
    bool swallowed = f->super != NULL; /* SQLite ignores the answer then */
    int rc = vfs_file_check(f);

    if (rc != SQLITE_OK)
        return rc;
    if (f->committed) {
        commit_late(f);
        return SQLITE_OK;
    }
    if (!f->prepared && !commit_is_staged(f) && !f->doomed)
        return SQLITE_OK;
    commit_gather(f, &g);
    if (!f->prepared)
        commit_set_prepared(f, true, NULL, NULL);
    /* With a super-journal more may come before the unlock, and of several each has its turn. */
    rc = commit_run(&g, g.count == 1 && !swallowed);
    f->committed = false;
    f->unlock_awaited = rc == SQLITE_OK;
    if (rc != SQLITE_OK && swallowed) {
        for (size_t i = 0; i < g.count; i++)
            g.files[i]->broken = true;
    }
    return rc;
}

int
vfs_commit_super(const char *super)
{
    struct commit_group g = {0};

    vfs_lock();
    for (struct vfs_file *f = vfs_file_first(); f != NULL; f = f->next) {
        if (f->prepared && f->generation == vfs_generation() && f->super != NULL &&
            strcmp(f->super, super) == 0 && g.count < COMMIT_FILES_MAX)
            g.files[g.count++] = f;
    }
    vfs_unlock();
    if (kvfs_test_bug("batch-per-file"))
        return SQLITE_OK; /* PHASETWO does it */
    return commit_run(&g, false);
}
