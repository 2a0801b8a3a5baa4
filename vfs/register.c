/* SPDX-License-Identifier: BSD-3-Clause
 *
 * register.c - the VFS `kvfs`: databases and their journals are ours; temporary files, time,
 * randomness and extensions are those of the VFS that was the default at registration.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "kvfs_sqlite.h"
#include "vfs_priv.h"

#ifdef KVFS_SQLITE_EXTENSION
SQLITE_EXTENSION_INIT1
#endif

static pthread_mutex_t tables = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t register_once = PTHREAD_ONCE_INIT;
static atomic_uint generation = 1;
static sqlite3_vfs *below;
static sqlite3_vfs kvfs_vfs;

sqlite3_vfs *
vfs_default(void)
{
    return below;
}

void
vfs_lock(void)
{
    (void)pthread_mutex_lock(&tables);
}

void
vfs_unlock(void)
{
    (void)pthread_mutex_unlock(&tables);
}

void
vfs_lock_wait(pthread_cond_t *cond, int64_t until_ns)
{
    struct timespec until = {.tv_sec = until_ns / 1000000000, .tv_nsec = until_ns % 1000000000};

    (void)pthread_cond_timedwait(cond, &tables, &until);
}

unsigned
vfs_generation(void)
{
    return atomic_load_explicit(&generation, memory_order_relaxed);
}

static void
register_fork_child(void)
{
    atomic_fetch_add(&generation, 1);
    vfs_unlock();
}

/* --- the VFS's methods --------------------------------------------------------- */

static bool
register_ends(const char *name, const char *tail)
{
    size_t n = strlen(name);
    size_t t = strlen(tail);

    return n > t && strcmp(name + n - t, tail) == 0;
}

/* <database>-mjXXXXXX9XX, or with short names */
static bool
register_is_super(const char *name)
{
    size_t n = strlen(name);

    return n > VFS_SUPER_TAIL && memcmp(name + n - VFS_SUPER_TAIL, "-mj", 3) == 0;
}

static bool
register_is_super_of_ours(const char *name)
{
    return vfs_journal_is_ours(name, strlen(name), name + strlen(name) - VFS_SUPER_TAIL);
}

static int
register_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out_flags)
{
    file->pMethods = NULL;
    if (name == NULL || (flags & (SQLITE_OPEN_TEMP_DB | SQLITE_OPEN_TRANSIENT_DB |
                                  SQLITE_OPEN_TEMP_JOURNAL | SQLITE_OPEN_SUBJOURNAL)) != 0)
        return below->xOpen(below, name, file, flags, out_flags);
    if ((flags & (SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_SUPER_JOURNAL)) != 0)
        return vfs_journal_open(name, file, flags, out_flags);
    if ((flags & SQLITE_OPEN_MAIN_DB) == 0)
        return vfs_refuse(SQLITE_CANTOPEN, "%s: there is no WAL in a volume", name);
    return vfs_file_open(vfs, name, (struct vfs_file *)file, flags, out_flags);
}

/* Remove a database. */
static int
register_delete_file(const char *name)
{
    struct kvfs_error err = {0};
    struct kvfs_volume *v;
    struct vfs_name n;
    char last[KVFS_NAME_MAX + 1];
    uint64_t dir;
    int rc;

    if (!vfs_name_split(name, &n))
        return SQLITE_IOERR_DELETE_NOENT;
    rc = kvfs_volume_open(n.volume, NULL, &v, &err);
    if (rc == 0) {
        rc = kvfs_path_parent(v, n.file, &dir, last, &err);
        if (rc == 0)
            rc = kvfs_unlink(v, dir, last, &err);
        (void)kvfs_volume_close(v, NULL);
    }
    if (rc == -ENOENT)
        return SQLITE_IOERR_DELETE_NOENT;
    return rc == 0 ? SQLITE_OK : vfs_error(rc, SQLITE_IOERR_DELETE, &err);
}

static int
register_delete(sqlite3_vfs *vfs, const char *name, int sync)
{
    (void)vfs;
    if (vfs_journal_exists(name)) {
        int rc = sync != 0 ? vfs_commit_super(name) : SQLITE_OK;

        if (rc == SQLITE_OK)
            (void)vfs_journal_delete(name, sync != 0);
        return rc;
    }
    if (register_is_super(name)) /* one that a crash left on the disk */
        return below->xDelete(below, name, sync);
    if (register_ends(name, "-journal") || register_ends(name, "-wal"))
        return SQLITE_OK;
    return register_delete_file(name);
}

static int
register_access(sqlite3_vfs *vfs, const char *name, int flags, int *out)
{
    struct kvfs_volume_options options = {.readonly = true};
    struct kvfs_volume *v;
    struct kvfs_attr attr;
    struct vfs_name n;

    (void)vfs;
    *out = 0;
    if (vfs_journal_is_ours(name, strlen(name), "-journal") ||
        vfs_journal_is_ours(name, strlen(name), "-wal"))
        return SQLITE_OK;
    if (vfs_journal_exists(name)) {
        *out = 1;
        return SQLITE_OK;
    }
    if (register_is_super(name)) {
        /* Whoever commits looks for a name that is free.  And a member that rolls back asks for
         * the super-journal of an ordinary main database, which may have rolled back before it
         * and removed it; ours never outlive their process, so what is asked for was there. */
        *out = !register_is_super_of_ours(name);
        return SQLITE_OK;
    }
    /* The journal of an ordinary member of a super-journal lies outside, or seems not to. */
    if (!vfs_name_split(name, &n) || register_ends(name, "-journal") || register_ends(name, "-wal"))
        return below->xAccess(below, name, flags, out);
    if (kvfs_volume_open(n.volume, NULL, &v, NULL) < 0 &&
        kvfs_volume_open(n.volume, &options, &v, NULL) < 0)
        return SQLITE_OK;
    *out = kvfs_path_lookup(v, n.file, true, &attr, NULL) == 0;
    (void)kvfs_volume_close(v, NULL);
    return SQLITE_OK;
}

static int
register_full_pathname(sqlite3_vfs *vfs, const char *name, int cap, char *out)
{
    struct vfs_name n;
    int rc = vfs_name_resolve(name, true, &n);

    (void)vfs;
    if (rc != SQLITE_OK)
        return rc;
    if ((int)(strlen(n.volume) + 1 + strlen(n.file) + 1) > cap)
        return SQLITE_CANTOPEN;
    (void)sqlite3_snprintf(cap, out, "%s/%s", n.volume, n.file);
    return SQLITE_OK;
}

static void *
register_dl_open(sqlite3_vfs *vfs, const char *name)
{
    (void)vfs;
    return below->xDlOpen(below, name);
}

static void
register_dl_error(sqlite3_vfs *vfs, int n, char *out)
{
    (void)vfs;
    below->xDlError(below, n, out);
}

static void (*register_dl_sym(sqlite3_vfs *vfs, void *handle, const char *symbol))(void)
{
    (void)vfs;
    return below->xDlSym(below, handle, symbol);
}

static void
register_dl_close(sqlite3_vfs *vfs, void *handle)
{
    (void)vfs;
    below->xDlClose(below, handle);
}

static int
register_randomness(sqlite3_vfs *vfs, int n, char *out)
{
    (void)vfs;
    return below->xRandomness(below, n, out);
}

static int
register_sleep(sqlite3_vfs *vfs, int microseconds)
{
    (void)vfs;
    return vfs_wait_sleep(microseconds) ? microseconds : below->xSleep(below, microseconds);
}

static int
register_time(sqlite3_vfs *vfs, double *now)
{
    (void)vfs;
    return below->xCurrentTime(below, now);
}

static int
register_time_ms(sqlite3_vfs *vfs, sqlite3_int64 *now)
{
    (void)vfs;
    return below->xCurrentTimeInt64(below, now);
}

static int
register_last_error(sqlite3_vfs *vfs, int n, char *out)
{
    (void)vfs;
    if (n > 0)
        (void)sqlite3_snprintf(n, out, "%s", kvfs_sqlite_error());
    return 0;
}

static int
register_max(int a, int b)
{
    return a > b ? a : b;
}

static void
register_init(void)
{
    below = sqlite3_vfs_find(NULL);
    if (below == NULL)
        return;
    (void)pthread_atfork(vfs_lock, vfs_unlock, register_fork_child);
    kvfs_vfs = (sqlite3_vfs){
        .iVersion = below->iVersion >= 2 ? 2 : 1,
        .szOsFile = register_max(below->szOsFile, register_max(vfs_journal_size(),
                                                               (int)sizeof(struct vfs_file))),
        .mxPathname = VFS_PATH_MAX,
        .zName = VFS_NAME,
        .xOpen = register_open,
        .xDelete = register_delete,
        .xAccess = register_access,
        .xFullPathname = register_full_pathname,
        .xDlOpen = register_dl_open,
        .xDlError = register_dl_error,
        .xDlSym = register_dl_sym,
        .xDlClose = register_dl_close,
        .xRandomness = register_randomness,
        .xSleep = register_sleep,
        .xCurrentTime = register_time,
        .xGetLastError = register_last_error,
        .xCurrentTimeInt64 = register_time_ms,
    };
}

int
kvfs_sqlite_register(int make_default)
{
    (void)pthread_once(&register_once, register_init);
    return below == NULL ? SQLITE_ERROR : sqlite3_vfs_register(&kvfs_vfs, make_default);
}
