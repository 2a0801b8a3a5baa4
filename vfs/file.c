/* SPDX-License-Identifier: BSD-3-Clause
 *
 * file.c - a database: a file of a volume, as SQLite reads and writes it.
 *
 * 1. What is read comes from the stage, then from the pin; both stand still.  Without a lock
 *    each read has a snapshot of its own (sqlite3PagerReadFileheader does that).
 * 2. Nothing is written but into the stage; commit.c brings it to the volume.
 * 3. When the stage cannot take a write, there is only one way on: back to what lies below.  It
 *    is dropped then, and what the pager writes to restore that is taken for done, since it
 *    could need room again; with locking_mode=EXCLUSIVE no unlock would ever end it.
 * 4. Bytes 18 and 19 of page 1 read as 1, also in a file that came here in WAL mode: there is
 *    no shared memory, and none is needed.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "vfs_priv.h"

static struct vfs_file *files; /* open databases; under vfs_lock */

struct vfs_file *
vfs_file_first(void)
{
    return files;
}

int
vfs_file_check(struct vfs_file *f)
{
    if (f->generation != vfs_generation())
        return vfs_refuse(SQLITE_IOERR, "%s: the connection belongs to the parent process; "
                                        "a child opens its own", f->path);
    if (f->broken)
        return vfs_refuse(SQLITE_IOERR, "%s: a commit failed after SQLite had called it done; "
                                        "open the database again", f->path);
    return SQLITE_OK;
}

sqlite3 *
vfs_file_db(struct vfs_file *f)
{
    sqlite3 *db = f->dbp != NULL ? *f->dbp : NULL;

    if (db != f->db) {
        vfs_lock();
        f->db = db;
        vfs_unlock();
    }
    return db;
}

/* --- reading ---------------------------------------------------------------- */

/* The state below the stage; all N bytes lie inside it. */
static int
file_base(void *arg, void *buf, size_t n, uint64_t offset)
{
    struct vfs_file *f = arg;

    if (f->pin == NULL) {
        int rc;

        if (f->pin_lost || f->conn == NULL)
            return vfs_refuse(SQLITE_IOERR_READ, "%s: there was no place for a reader after the "
                                                 "commit", f->path);
        rc = vfs_conn_pin(f); /* committed, still under our lease: the same state */
        if (rc != SQLITE_OK)
            return rc == SQLITE_BUSY ? SQLITE_IOERR_READ : rc;
    }
    return vfs_pin_read(f->pin, f->ino, buf, n, offset);
}

static int
file_read_plain(struct vfs_file *f, void *buf, size_t n, uint64_t offset)
{
    size_t inside = offset >= f->size ? 0 : f->size - offset < n ? (size_t)(f->size - offset) : n;
    int rc = inside > 0 ? file_base(f, buf, inside, offset) : SQLITE_OK;

    if (rc != SQLITE_OK || inside == n)
        return rc;
    memset((uint8_t *)buf + inside, 0, n - inside);
    return SQLITE_IOERR_SHORT_READ;
}

/* Without a lock: a snapshot for this one call.  BUF may be NULL: only the size. */
static int
file_read_unlocked(struct vfs_file *f, void *buf, size_t n, uint64_t offset, uint64_t *size)
{
    struct kvfs_file_info info;
    struct vfs_pin *pin;
    size_t inside;
    int rc = vfs_pin_open(f->v, &pin);

    if (rc != SQLITE_OK)
        return rc;
    rc = vfs_pin_info(pin, f->ino, &info);
    if (rc == SQLITE_OK && size != NULL)
        *size = info.size_bytes;
    if (rc == SQLITE_OK && buf != NULL) {
        inside = offset >= info.size_bytes            ? 0
                 : info.size_bytes - offset < n ? (size_t)(info.size_bytes - offset)
                                                      : n;
        if (inside > 0)
            rc = vfs_pin_read(pin, f->ino, buf, inside, offset);
        memset((uint8_t *)buf + inside, 0, n - inside);
        if (rc == SQLITE_OK && inside < n)
            rc = SQLITE_IOERR_SHORT_READ;
    }
    vfs_pin_drop(pin);
    return rc;
}

static int
file_read(sqlite3_file *file, void *buf, int amount, sqlite3_int64 offset)
{
    struct vfs_file *f = (struct vfs_file *)file;
    uint8_t *page = buf;
    size_t n = (size_t)amount;
    int rc = vfs_file_check(f);

    if (rc != SQLITE_OK)
        return rc;
    if (f->lock == SQLITE_LOCK_NONE && !f->immutable)
        rc = file_read_unlocked(f, buf, n, (uint64_t)offset, NULL);
    else if (f->stage.active)
        rc = vfs_stage_read(&f->stage, buf, n, (uint64_t)offset);
    else
        rc = file_read_plain(f, buf, n, (uint64_t)offset);
    if (offset == 0 && n >= 20 && (rc == SQLITE_OK || rc == SQLITE_IOERR_SHORT_READ) &&
        memcmp(page, "SQLite format 3", 16) == 0 && page[18] == 2 && page[19] == 2)
        page[18] = page[19] = 1;
    /* With this read, of the change counter, the pager asks whether its cache still holds. */
    if (offset == 24 && n == 16 && rc == SQLITE_OK && atomic_exchange(&f->suspect, false))
        page[0] ^= 0x80;
    return rc;
}

static int
file_size(sqlite3_file *file, sqlite3_int64 *out)
{
    struct vfs_file *f = (struct vfs_file *)file;
    uint64_t size = f->stage.active ? f->stage.size : f->size;
    int rc = vfs_file_check(f);

    if (rc == SQLITE_OK && f->lock == SQLITE_LOCK_NONE && !f->immutable)
        rc = file_read_unlocked(f, NULL, 0, 0, &size);
    if (rc == SQLITE_OK)
        *out = (sqlite3_int64)size;
    return rc;
}

/* --- writing ---------------------------------------------------------------- */

static int
file_write_begin(struct vfs_file *f, int ioerr)
{
    int rc = vfs_file_check(f);

    if (rc != SQLITE_OK)
        return rc;
    if (!f->leased || f->lock < SQLITE_LOCK_RESERVED)
        return vfs_refuse(ioerr, "%s: written to without a lock", f->path);
    vfs_stage_begin(&f->stage, f->size);
    return SQLITE_OK;
}

/* RC is what the stage said to a write. */
static int
file_staged(struct vfs_file *f, int rc)
{
    /* Only these make the pager roll back. */
    if (rc == SQLITE_FULL || (rc & 0xff) == SQLITE_IOERR) {
        vfs_stage_drop(&f->stage);
        f->doomed = !f->committed; /* else it is VACUUM's late truncate */
    }
    return rc;
}

static int
file_write(sqlite3_file *file, const void *buf, int amount, sqlite3_int64 offset)
{
    struct vfs_file *f = (struct vfs_file *)file;
    int rc = vfs_file_check(f);

    /* Prepared and not committed: a rollback, which left in the stage what lies below it. */
    if (rc == SQLITE_OK && f->prepared && f->exclusive)
        vfs_commit_forget(f);
    if (rc == SQLITE_OK && f->unlock_awaited && f->lock >= SQLITE_LOCK_RESERVED)
        rc = vfs_lock_again(f) == SQLITE_OK ? SQLITE_OK : SQLITE_IOERR_WRITE;
    if (rc == SQLITE_OK)
        rc = file_write_begin(f, SQLITE_IOERR_WRITE);
    if (rc != SQLITE_OK)
        return rc;
    if (f->prepared)
        vfs_commit_unprepare_group(f);
    f->committed = false;
    if (f->doomed)
        return SQLITE_OK;
    rc = vfs_stage_write(&f->stage, buf, (size_t)amount, (uint64_t)offset);
    if (rc == SQLITE_OK)
        rc = vfs_header_written(&f->stage, (uint64_t)offset, (size_t)amount);
    return file_staged(f, rc);
}

static int
file_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    struct vfs_file *f = (struct vfs_file *)file;
    int rc = file_write_begin(f, SQLITE_IOERR_TRUNCATE);

    if (rc != SQLITE_OK || f->doomed)
        return rc;
    return file_staged(f, vfs_stage_truncate(&f->stage, (uint64_t)size));
}

static int
file_sync(sqlite3_file *file, int flags)
{
    struct vfs_file *f = (struct vfs_file *)file;

    (void)flags;
    f->synced = true;
    if (kvfs_test_bug("commit-at-sync"))
        return vfs_commit_phase_two(f);
    return vfs_file_check(f);
}

/* --- what it is -------------------------------------------------------------- */

static int
file_sector_size(sqlite3_file *file)
{
    (void)file;
    return 4096; /* 64 KiB would make SQLite choose large pages */
}

static int
file_characteristics(sqlite3_file *file)
{
    (void)file;
    return SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

/* --- open and close ----------------------------------------------------------- */

static int
file_close(sqlite3_file *file)
{
    struct vfs_file *f = (struct vfs_file *)file;
    struct vfs_file **place = &files;
    struct kvfs_error err = {0};
    int rc = SQLITE_OK;

    (void)vfs_lock_lower(file, SQLITE_LOCK_NONE);
    vfs_wait_close(f);
    vfs_journal_leave(f);
    vfs_stage_drop(&f->stage);
    vfs_pin_drop(f->pin); /* of an immutable database */
    vfs_lock();
    while (*place != NULL && *place != f)
        place = &(*place)->next;
    if (*place != NULL)
        *place = f->next;
    vfs_unlock();
    if (f->generation == vfs_generation()) /* of the parent's sleepers a child hears no more */
        (void)pthread_cond_destroy(&f->wait_cond);
    kvfs_file_close(f->f);
    if (f->v != NULL && kvfs_volume_close(f->v, &err) < 0)
        rc = vfs_error(err.code, SQLITE_IOERR_CLOSE, &err);
    sqlite3_free(f->super);
    sqlite3_free(f->path);
    sqlite3_free(f->name);
    f->base.pMethods = NULL;
    return rc;
}

const sqlite3_io_methods vfs_file_methods = {
    .iVersion = 1, /* no shared memory: SQLite then leaves WAL alone */
    .xClose = file_close,
    .xRead = file_read,
    .xWrite = file_write,
    .xTruncate = file_truncate,
    .xSync = file_sync,
    .xFileSize = file_size,
    .xLock = vfs_lock_raise,
    .xUnlock = vfs_lock_lower,
    .xCheckReservedLock = vfs_lock_reserved,
    .xFileControl = vfs_control,
    .xSectorSize = file_sector_size,
    .xDeviceCharacteristics = file_characteristics,
};

static bool
file_number_is_right(const char *name, const char *parameter, sqlite3_int64 min, sqlite3_int64 max)
{
    const char *text = sqlite3_uri_parameter(name, parameter);
    sqlite3_int64 n = sqlite3_uri_int64(name, parameter, min - 1);

    if (text == NULL || (n >= min && n <= max))
        return true;
    (void)vfs_refuse(SQLITE_CANTOPEN, "%s: %s=%s: a number from %lld to %lld is wanted", name, parameter,
                     text, (long long)min, (long long)max);
    return false;
}

/* What the URI says of the way the database is used. */
static int
file_parameters(struct vfs_file *f, const char *name)
{
    const char *durability = sqlite3_uri_parameter(name, "durability");

    if (!file_number_is_right(name, "busy", 0, INT_MAX) ||
        !file_number_is_right(name, "block_size", KVFS_BLOCK_SIZE_MIN, KVFS_BLOCK_SIZE_MAX))
        return SQLITE_CANTOPEN;
    f->immutable = sqlite3_uri_boolean(name, "immutable", 0) != 0;
    f->busy_ms = (unsigned)sqlite3_uri_int64(name, "busy", 0);
    if (sqlite3_uri_boolean(name, "nolock", 0) && !f->immutable)
        return vfs_refuse(SQLITE_CANTOPEN, "%s: nolock=1 is not possible: each read would see "
                                           "another state (immutable=1 is)", name);
    if (durability == NULL || strcmp(durability, "durable") == 0)
        f->ordered = false;
    else if (strcmp(durability, "ordered") == 0)
        f->ordered = true;
    else
        return vfs_refuse(SQLITE_CANTOPEN, "%s: durability=%s is neither durable nor ordered",
                          name, durability);
    return SQLITE_OK;
}

static int
file_open_volume(struct vfs_file *f, const char *name, int flags)
{
    struct kvfs_volume_info info;
    struct kvfs_file_info file;
    struct kvfs_error err = {0};
    struct vfs_name n;
    int rc = vfs_name_resolve(name, true, &n);

    if (rc == SQLITE_OK && (f->name = sqlite3_mprintf("%s", n.file)) == NULL)
        rc = SQLITE_NOMEM;
    if (rc == SQLITE_OK)
        rc = vfs_volume_open(name, &n, (flags & SQLITE_OPEN_CREATE) != 0, &f->v);
    if (rc != SQLITE_OK)
        return rc;
    kvfs_volume_info(f->v, &info);
    f->readonly = info.readonly || (flags & SQLITE_OPEN_READONLY) != 0 || f->immutable;
    rc = vfs_volume_file(f->v, name, &n, info.readonly ? flags & ~SQLITE_OPEN_CREATE : flags,
                         &f->ino);
    if (rc == SQLITE_OK && kvfs_file_open(f->v, f->ino, KVFS_OPEN_READ, &f->f, &err) < 0)
        rc = vfs_error(err.code, SQLITE_CANTOPEN, &err);
    if (rc != SQLITE_OK)
        return rc;
    kvfs_file_info(f->f, &file);
    vfs_stage_init(&f->stage, file.block_size_bytes, file_base, f);
    if (f->immutable) {
        rc = vfs_pin_open(f->v, &f->pin);
        if (rc == SQLITE_OK)
            rc = vfs_pin_info(f->pin, f->ino, &file);
        f->size = file.size_bytes;
        f->version = file.version;
    }
    return rc;
}

static void
file_init_wait(struct vfs_file *f)
{
    static atomic_uint_fast64_t ids = 1;
    pthread_condattr_t attr;

    f->id = atomic_fetch_add(&ids, 1);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&f->wait_cond, &attr);
    (void)pthread_condattr_destroy(&attr);
}

int
vfs_file_open(sqlite3_vfs *vfs, const char *name, struct vfs_file *f, int flags, int *out_flags)
{
    int rc;

    (void)vfs;
    memset(f, 0, sizeof(*f));
    file_init_wait(f);
    f->generation = vfs_generation();
    f->shared = (flags & SQLITE_OPEN_SHAREDCACHE) != 0;
    memcpy(f->mode, "delete", sizeof("delete"));
    vfs_stage_init(&f->stage, 4096, file_base, f);
    rc = file_parameters(f, name);
    if (rc == SQLITE_OK && (f->path = sqlite3_mprintf("%s", name)) == NULL)
        rc = SQLITE_NOMEM;
    if (rc == SQLITE_OK)
        rc = file_open_volume(f, name, flags);
    if (rc != SQLITE_OK) {
        (void)file_close(&f->base);
        return rc;
    }
    vfs_lock();
    for (const struct vfs_file *o = files; o != NULL; o = o->next) {
        if (o->v == f->v && o->ino == f->ino && o->cookie_burns) {
            f->cookie_burns = true;
            f->cookie_burnt = o->cookie_burnt;
        }
    }
    f->next = files;
    files = f;
    vfs_unlock();
    f->base.pMethods = &vfs_file_methods;
    if (out_flags != NULL) {
        *out_flags = flags;
        if (f->readonly)
            *out_flags = (flags & ~(SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE)) |
                         SQLITE_OPEN_READONLY;
    }
    return SQLITE_OK;
}
