/* SPDX-License-Identifier: BSD-3-Clause
 *
 * lock.c - SQLite's locks: a snapshot to read, the file's lease to write.
 *
 * SHARED pins a snapshot and keeps nobody off.  RESERVED is the lease of the file, which one
 * connection of all processes has; PENDING and EXCLUSIVE add nothing, since readers never
 * stand in a writer's way.  The lease is had only while the snapshot is the file's newest
 * state: else SQLITE_BUSY_SNAPSHOT, as in WAL.
 *
 * With locking_mode=EXCLUSIVE, SHARED takes the lease as well: SQLite then never unlocks, so
 * its snapshot would be left behind by the first other writer.
 */
#include <errno.h>
#include <string.h>

#include "vfs_priv.h"

/* The lease, and the proof that nothing has changed since the snapshot. */
static int
lock_lease(struct vfs_file *f)
{
    struct kvfs_file_info info;
    struct kvfs_error err = {0};
    int rc;

    if (f->leased)
        return SQLITE_OK;
    if (f->readonly)
        return SQLITE_READONLY;
    if (!vfs_wait_may(f)) {
        vfs_wait_busy(f);
        return vfs_refuse(SQLITE_BUSY, "%s: others wait to write", f->path);
    }
    rc = kvfs_file_lock(f->f, &err);
    if (rc == -EBUSY)
        vfs_wait_busy(f);
    if (rc < 0)
        return vfs_error(rc, SQLITE_IOERR_RDLOCK, &err);
    kvfs_file_info(f->f, &info);
    if (kvfs_test_bug("no-recheck")) {
        f->version = info.version;
        f->size = info.size_bytes;
    }
    if (info.version != f->version || info.size_bytes != f->size ||
        (f->pin != NULL && kvfs_snapshot_failed(f->pin->snap))) {
        kvfs_file_unlock(f->f);
        vfs_wait_freed(f);
        if (f->hopeless)
            vfs_wait_leave(f); /* who keeps his place keeps others off */
        else
            vfs_wait_busy(f);
        f->moved_on = true;
        return vfs_refuse(SQLITE_BUSY_SNAPSHOT, "%s: has been changed since it was read", f->path);
    }
    f->leased = true;
    vfs_wait_got(f);
    return SQLITE_OK;
}

static void
lock_lease_drop(struct vfs_file *f)
{
    if (!f->leased)
        return;
    f->leased = false;
    kvfs_file_unlock(f->f);
    vfs_wait_freed(f);
}

int
vfs_lock_again(struct vfs_file *f)
{
    f->unlock_awaited = false;
    f->unlock_follows = false;
    f->exclusive = true;
    return lock_lease(f);
}

void
vfs_lock_pass(struct vfs_file *f)
{
    if (!f->exclusive && f->unlock_follows)
        lock_lease_drop(f);
}

/* Has F's connection locked other files, and all of them only because locking_mode=EXCLUSIVE
 * never unlocks?  Then nothing can have changed in them, and their instant may be a newer one. */
static bool
lock_is_idle(const struct vfs_file *f)
{
    struct vfs_file *o = NULL;
    bool others = false;

    while (!f->shared && (o = vfs_conn_other(f, o)) != NULL) {
        if (!o->exclusive || !o->leased)
            return false;
        others = true;
    }
    return others;
}

/* NONE -> SHARED */
static int
lock_shared(struct vfs_file *f)
{
    struct kvfs_file_info info;
    int moved;
    int rc;

    if (f->immutable)
        return SQLITE_OK;
    rc = vfs_conn_join(f);
    if (rc != SQLITE_OK)
        return rc;
    f->hopeless = f->moved_on && !vfs_conn_renew(f);
    if (!f->moved_on && lock_is_idle(f))
        (void)vfs_conn_renew(f);
    f->moved_on = false;
    rc = vfs_conn_pin(f);
    if (rc == SQLITE_OK && (rc = vfs_pin_info(f->pin, f->ino, &info)) != SQLITE_OK &&
        vfs_pin_precedes(f->pin, f->v, f->ino)) {
        /* Attached in a transaction, and made after its instant: then it was empty. */
        info = (struct kvfs_file_info){.ino = f->ino};
        rc = SQLITE_OK;
    }
    if (rc == SQLITE_OK) {
        if (f->version_cached != 0 && f->version_cached != info.version)
            atomic_store(&f->suspect, true); /* whatever the change counter says */
        f->version = info.version;
        f->size = info.size_bytes;
        if (f->exclusive && !f->readonly)
            rc = lock_lease(f);
        if (rc == SQLITE_BUSY_SNAPSHOT)
            rc = SQLITE_BUSY;
    }
    if (rc == SQLITE_IOERR_FSTAT)
        (void)vfs_control_moved(f, &moved); /* it has no state any more: say why */
    if (rc != SQLITE_OK) {
        vfs_pin_drop(f->pin);
        f->pin = NULL;
        vfs_conn_leave(f);
    }
    return rc;
}

int
vfs_lock_raise(sqlite3_file *file, int level)
{
    struct vfs_file *f = (struct vfs_file *)file;
    int rc = vfs_file_check(f);

    vfs_wait_clear();
    if (rc != SQLITE_OK || level <= f->lock)
        return rc;
    if (f->lock == SQLITE_LOCK_NONE)
        rc = lock_shared(f);
    if (rc == SQLITE_OK && f->lock == SQLITE_LOCK_NONE)
        f->lock = SQLITE_LOCK_SHARED;
    if (rc == SQLITE_OK && level >= SQLITE_LOCK_RESERVED && !f->immutable)
        rc = lock_lease(f);
    if (rc == SQLITE_OK)
        f->lock = level;
    return rc;
}

/* A writer becomes a reader again. */
static void
lock_lower_writer(struct vfs_file *f, int level)
{
    if (f->unlock_awaited)
        f->unlock_follows = true;
    f->unlock_awaited = false;
    vfs_commit_forget(f);
    f->committed = false;
    if (level == SQLITE_LOCK_SHARED && f->pin == NULL && f->leased) {
        /* A large commit.  The new state is pinned before another may change it. */
        f->pin_lost = vfs_conn_pin(f) != SQLITE_OK;
        vfs_conn_follow(f);
    }
    if (!f->exclusive || level == SQLITE_LOCK_NONE)
        lock_lease_drop(f);
    vfs_journal_leave(f);
}

int
vfs_lock_lower(sqlite3_file *file, int level)
{
    struct vfs_file *f = (struct vfs_file *)file;

    if (level >= f->lock)
        return SQLITE_OK;
    if (f->generation != vfs_generation()) { /* in a forked child: only forget */
        f->lock = level;
        return SQLITE_OK;
    }
    if (f->lock >= SQLITE_LOCK_RESERVED)
        lock_lower_writer(f, level);
    if (level == SQLITE_LOCK_NONE && !f->immutable) {
        f->version_cached = f->version;
        vfs_pin_drop(f->pin);
        f->pin = NULL;
        f->pin_lost = false;
        vfs_conn_leave(f);
        lock_lease_drop(f);
    }
    f->lock = level;
    return SQLITE_OK;
}

int
vfs_lock_reserved(sqlite3_file *file, int *out)
{
    struct vfs_file *f = (struct vfs_file *)file;
    int rc = vfs_file_check(f);

    if (rc != SQLITE_OK)
        return rc;
    *out = f->leased;
    if (!f->leased && !f->readonly) {
        *out = kvfs_file_lock(f->f, NULL) == -EBUSY;
        if (*out == 0)
            kvfs_file_unlock(f->f);
    }
    return SQLITE_OK;
}

bool
vfs_lock_mode(struct vfs_file *f, const sqlite3 *db, bool exclusive)
{
    bool ok = true;

    /* A snapshot that is held already is kept from going stale, if that is still possible. */
    if (exclusive && f->lock == SQLITE_LOCK_SHARED && !f->readonly && !f->immutable)
        ok = lock_lease(f) == SQLITE_OK;
    if (!ok)
        return false;
    vfs_lock();
    for (struct vfs_file *o = vfs_file_first(); o != NULL; o = o->next) {
        if (o == f || (db != NULL && o->db == db))
            o->exclusive = exclusive;
    }
    vfs_unlock();
    return true;
}
