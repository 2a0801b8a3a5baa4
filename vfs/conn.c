/* SPDX-License-Identifier: BSD-3-Clause
 *
 * conn.c - one instant for all files of a connection.
 *
 * 1. While a connection has a file of a volume locked, its other files there take the same
 *    pin when they are locked: so it sees all of them at one instant.
 * 2. Its own commit ends that: the committed files, and those that join later, have the
 *    snapshot that was made with the commit.
 * 3. A file that is only read goes with them if it is the same there, else it keeps the pin
 *    that it has, since its page cache is of that instant.
 *
 * With a shared cache several connections use one file; it goes with the one that locked it.
 */
#include <errno.h>
#include <string.h>

#include "vfs_priv.h"

static struct vfs_conn *conns; /* under vfs_lock */

int
vfs_pin_new(struct vfs_pin **pinp)
{
    struct vfs_pin *pin = sqlite3_malloc(sizeof(*pin));

    if (pin == NULL)
        return SQLITE_IOERR_NOMEM;
    memset(pin, 0, sizeof(*pin));
    (void)pthread_mutex_init(&pin->lock, NULL);
    pin->refs = 1;
    *pinp = pin;
    return SQLITE_OK;
}

int
vfs_pin_open(struct kvfs_volume *v, struct vfs_pin **pinp)
{
    struct vfs_pin *pin = NULL;
    struct kvfs_error err = {0};
    int rc = vfs_pin_new(&pin);

    if (rc != SQLITE_OK)
        return rc;
    rc = kvfs_snapshot_open(v, &pin->snap, &err);
    if (rc < 0) {
        vfs_pin_drop(pin);
        return vfs_error(rc, SQLITE_IOERR_LOCK, &err);
    }
    *pinp = pin;
    return SQLITE_OK;
}

void
vfs_pin_drop(struct vfs_pin *pin)
{
    unsigned left;

    if (pin == NULL)
        return;
    vfs_lock();
    left = --pin->refs;
    vfs_unlock();
    if (left > 0)
        return;
    kvfs_snapshot_close(pin->snap);
    (void)pthread_mutex_destroy(&pin->lock);
    sqlite3_free(pin);
}

int
vfs_pin_info(struct vfs_pin *pin, uint64_t ino, struct kvfs_file_info *info)
{
    struct kvfs_error err = {0};
    int rc;

    (void)pthread_mutex_lock(&pin->lock);
    rc = kvfs_snapshot_info(pin->snap, ino, info, &err);
    (void)pthread_mutex_unlock(&pin->lock);
    return rc == 0 ? SQLITE_OK : vfs_error(rc, SQLITE_IOERR_FSTAT, &err);
}

bool
vfs_pin_precedes(struct vfs_pin *pin, struct kvfs_volume *v, uint64_t ino)
{
    struct kvfs_file_info info;
    struct vfs_pin *now = NULL;
    int rc;

    (void)pthread_mutex_lock(&pin->lock);
    rc = kvfs_snapshot_info(pin->snap, ino, &info, NULL);
    (void)pthread_mutex_unlock(&pin->lock);
    if (rc == -ENOENT)
        (void)vfs_pin_open(v, &now);
    if (now == NULL)
        return false;
    rc = kvfs_snapshot_info(now->snap, ino, &info, NULL);
    vfs_pin_drop(now);
    return rc == 0;
}

int
vfs_pin_read(struct vfs_pin *pin, uint64_t ino, void *buf, size_t n, uint64_t offset)
{
    struct kvfs_error err = {0};
    int rc;

    (void)pthread_mutex_lock(&pin->lock);
    rc = kvfs_snapshot_pread(pin->snap, ino, buf, n, offset, &err);
    (void)pthread_mutex_unlock(&pin->lock);
    return rc == 0 ? SQLITE_OK : vfs_error(rc, SQLITE_IOERR_DATA, &err);
}

static struct vfs_conn *
conn_find_locked(const sqlite3 *db, const struct kvfs_volume *v)
{
    struct vfs_conn *c = conns;

    while (c != NULL && (db == NULL || c->db != db || c->v != v))
        c = c->next;
    return c;
}

int
vfs_conn_join(struct vfs_file *f)
{
    sqlite3 *db = vfs_file_db(f);
    struct vfs_conn *fresh = sqlite3_malloc(sizeof(*fresh));
    struct vfs_conn *c;

    if (fresh == NULL)
        return SQLITE_IOERR_NOMEM;
    vfs_lock();
    c = kvfs_test_bug("snapshot-per-file") ? NULL : conn_find_locked(db, f->v);
    if (c == NULL) {
        *fresh = (struct vfs_conn){.next = conns, .db = db, .v = f->v};
        conns = c = fresh;
        fresh = NULL;
    }
    c->files++;
    f->conn = c;
    vfs_unlock();
    sqlite3_free(fresh);
    return SQLITE_OK;
}

void
vfs_conn_leave(struct vfs_file *f)
{
    struct vfs_conn *c = f->conn;
    struct vfs_conn **place = &conns;
    struct vfs_pin *pin = NULL;

    if (c == NULL)
        return;
    vfs_lock();
    f->conn = NULL;
    if (--c->files == 0) {
        while (*place != c)
            place = &(*place)->next;
        *place = c->next;
        pin = c->pin;
    } else {
        c = NULL;
    }
    vfs_unlock();
    vfs_pin_drop(pin);
    sqlite3_free(c);
}

int
vfs_conn_pin(struct vfs_file *f)
{
    struct vfs_pin *fresh = NULL;
    struct vfs_pin *pin;
    int rc;

    vfs_lock();
    pin = f->conn->pin;
    if (pin != NULL)
        pin->refs++;
    vfs_unlock();
    if (pin == NULL) {
        rc = vfs_pin_open(f->v, &fresh);
        if (fresh == NULL)
            return rc;
        pin = fresh;
        vfs_lock();
        if (f->conn->pin == NULL)
            f->conn->pin = fresh;
        else
            pin = f->conn->pin; /* with a shared cache another was faster */
        pin->refs++;
        vfs_unlock();
        if (pin != fresh)
            vfs_pin_drop(fresh);
    }
    f->pin = pin;
    return SQLITE_OK;
}

/* The pin for those that join F's connection later; its reference to the one before goes. */
static void
conn_pin_set(const struct vfs_file *f, struct vfs_pin *pin)
{
    struct vfs_pin *older = NULL;

    vfs_lock();
    if (f->conn != NULL && f->conn->pin != pin) {
        older = f->conn->pin;
        f->conn->pin = pin;
        if (pin != NULL)
            pin->refs++;
    }
    vfs_unlock();
    vfs_pin_drop(older);
}

void
vfs_conn_repin(struct vfs_file *f, struct vfs_pin *pin)
{
    f->pin_before = f->pin;
    f->pin = pin;
    if (pin != NULL) {
        vfs_lock();
        pin->refs++;
        vfs_unlock();
    }
    conn_pin_set(f, pin);
}

/* Is file O, which its connection reads, in PIN as it sees it? */
static bool
conn_is_same(struct vfs_file *o, struct vfs_pin *pin)
{
    struct kvfs_file_info info;

    return !o->shared && vfs_pin_info(pin, o->ino, &info) == SQLITE_OK &&
           info.version == o->version && info.size_bytes == o->size;
}

struct vfs_file *
vfs_conn_other(const struct vfs_file *f, struct vfs_file *o)
{
    vfs_lock();
    for (o = o == NULL ? vfs_file_first() : o->next; o != NULL; o = o->next) {
        if (o != f && o->conn == f->conn && o->pin != NULL && o->pin != f->pin && !o->committing)
            break;
    }
    vfs_unlock();
    return o;
}

static void
conn_move(struct vfs_file *o, struct vfs_pin *pin)
{
    struct vfs_pin *before = o->pin;

    vfs_lock();
    pin->refs++;
    vfs_unlock();
    o->pin = pin;
    vfs_pin_drop(before);
}

void
vfs_conn_follow(const struct vfs_file *f)
{
    if (f->pin == NULL || f->conn == NULL || f->shared)
        return;
    for (struct vfs_file *o = NULL; (o = vfs_conn_other(f, o)) != NULL;) {
        if (conn_is_same(o, f->pin))
            conn_move(o, f->pin);
    }
}

bool
vfs_conn_renew(const struct vfs_file *f)
{
    struct vfs_pin *pin = NULL;
    bool same = !f->shared;

    if (f->conn->pin == NULL)
        return true; /* it will have a new one */
    (void)vfs_pin_open(f->v, &pin);
    if (pin == NULL)
        return false;
    for (struct vfs_file *o = NULL; same && (o = vfs_conn_other(f, o)) != NULL;)
        same = conn_is_same(o, pin);
    for (struct vfs_file *o = NULL; same && (o = vfs_conn_other(f, o)) != NULL;)
        conn_move(o, pin);
    if (same)
        conn_pin_set(f, pin);
    vfs_pin_drop(pin);
    return same;
}

void
vfs_conn_repin_undo(struct vfs_file *f)
{
    vfs_pin_drop(f->pin);
    f->pin = f->pin_before;
    f->pin_before = NULL;
    conn_pin_set(f, f->pin);
}

void
vfs_conn_repin_keep(struct vfs_file *f)
{
    vfs_pin_drop(f->pin_before);
    f->pin_before = NULL;
}
