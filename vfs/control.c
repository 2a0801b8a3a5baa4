/* SPDX-License-Identifier: BSD-3-Clause
 *
 * control.c - sqlite3_file_control() on a database.
 */
#include <errno.h>
#include <string.h>

#include "vfs_priv.h"

int
vfs_control_moved(const struct vfs_file *f, int *moved)
{
    struct kvfs_error err = {0};
    struct kvfs_attr attr;
    int rc = kvfs_path_lookup(f->v, f->name, true, &attr, &err);

    if (rc < 0 && rc != -ENOENT && rc != -ENOTDIR && rc != -ELOOP)
        return vfs_error(rc, SQLITE_IOERR_FSTAT, &err); /* nobody knows */
    *moved = rc < 0 || attr.ino != f->ino;
    if (*moved) /* for kvfs_error() */
        (void)vfs_refuse(SQLITE_READONLY_DBMOVED, "%s: was renamed or removed since it was opened",
                         f->path);
    return SQLITE_OK;
}

static int
control_journal_mode(struct vfs_file *f, char **args)
{
    static const char *const modes[] = {"delete", "truncate", "persist", "memory", "off"};

    if (args[2] == NULL)
        return SQLITE_NOTFOUND;
    if (sqlite3_stricmp(args[2], "wal") == 0) { /* as a VFS without shared memory does */
        args[0] = sqlite3_mprintf("%s", f->mode);
        return SQLITE_OK;
    }
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        if (sqlite3_stricmp(args[2], modes[i]) == 0)
            memcpy(f->mode, modes[i], strlen(modes[i]) + 1);
    }
    return SQLITE_NOTFOUND;
}

static bool
control_is_main(const struct vfs_file *f, sqlite3 *db)
{
    const char *name = db != NULL ? sqlite3_db_filename(db, "main") : NULL;

    return name != NULL && strcmp(name, f->path) == 0;
}

/* Said without a schema it comes to main alone, and is meant for all and for what is attached
 * later; said of an attached database it is meant for that. */
static int
control_locking_mode(struct vfs_file *f, char **args)
{
    bool exclusive = sqlite3_stricmp(args[2], "exclusive") == 0;
    sqlite3 *db = vfs_file_db(f);

    if (!exclusive && sqlite3_stricmp(args[2], "normal") != 0)
        return SQLITE_NOTFOUND;
    if (vfs_lock_mode(f, control_is_main(f, db) ? db : NULL, exclusive))
        return SQLITE_NOTFOUND;
    args[0] = sqlite3_mprintf("the database is being written by somebody else");
    return SQLITE_BUSY;
}

static int
control_pragma(struct vfs_file *f, char **args)
{
    if (sqlite3_stricmp(args[1], "journal_mode") == 0)
        return control_journal_mode(f, args);
    if (sqlite3_stricmp(args[1], "locking_mode") == 0 && args[2] != NULL)
        return control_locking_mode(f, args);
    return SQLITE_NOTFOUND;
}

static void
control_pdb(struct vfs_file *f, sqlite3 **dbp)
{
    sqlite3 *db;

    /* With a shared cache the next connection says the same again, without the cache's mutex,
     * and whom *dbp names meanwhile may be at work in another thread, or closed. */
    if (f->dbp == dbp)
        return;
    f->dbp = dbp;
    db = vfs_file_db(f);
    /* Of what is attached later the timeout is the application's. */
    if (f->busy_ms > 0 && control_is_main(f, db))
        (void)sqlite3_busy_timeout(*dbp, (int)f->busy_ms);
    vfs_lock();
    for (const struct vfs_file *o = vfs_file_first(); o != NULL; o = o->next) {
        if (o != f && db != NULL && o->db == db && control_is_main(o, db))
            f->exclusive = f->exclusive || o->exclusive; /* what was said of all holds for it */
    }
    vfs_unlock();
}

int
vfs_control(sqlite3_file *file, int op, void *arg)
{
    struct vfs_file *f = (struct vfs_file *)file;
    int rc = vfs_file_check(f);

    if (rc != SQLITE_OK)
        return op == SQLITE_FCNTL_SYNC || op == SQLITE_FCNTL_COMMIT_PHASETWO ? rc
                                                                             : SQLITE_NOTFOUND;
    if (op != SQLITE_FCNTL_PDB)
        (void)vfs_file_db(f);
    switch (op) {
    case SQLITE_FCNTL_LOCKSTATE:
        *(int *)arg = f->lock;
        return SQLITE_OK;
    case SQLITE_FCNTL_VFSNAME:
        *(char **)arg = sqlite3_mprintf("%s", VFS_NAME);
        return SQLITE_OK;
    case SQLITE_FCNTL_HAS_MOVED:
        return vfs_control_moved(f, arg);
    case SQLITE_FCNTL_PDB:
        control_pdb(f, arg);
        return SQLITE_OK;
    case SQLITE_FCNTL_PRAGMA:
        return control_pragma(f, arg);
    case SQLITE_FCNTL_SYNC:
        return vfs_commit_prepare(f, arg);
    case SQLITE_FCNTL_COMMIT_PHASETWO:
        return vfs_commit_phase_two(f);
    default:
        return SQLITE_NOTFOUND;
    }
}
