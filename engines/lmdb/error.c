/* SPDX-License-Identifier: BSD-3-Clause
 *
 * error.c - LMDB's codes become the contract's.
 *
 * LMDB answers its own codes (negative) and errno values (positive).  Two errno
 * values mean something else in the contract and are never passed on: EAGAIN (a
 * failed expectation) and EINVAL (the caller's key).
 */
#include <errno.h>
#include <stdio.h>

#include "lmdb_priv.h"

struct error_row {
    int rc, code;
    const char *text;
};

static const struct error_row error_rows[] = {
    {KVFS_LMDB_FAULT, -EIO, NULL},
    {MDB_KEYEXIST, -EIO, "a key is there twice: the store is damaged"},
    {MDB_NOTFOUND, -ENOENT, "no such record"},
    {MDB_PAGE_NOTFOUND, -EIO, "a page refers to one outside of the store: damaged"},
    {MDB_CORRUPTED, -EIO, "a page is of the wrong type: damaged"},
    {MDB_PANIC, -EIO, "an earlier write failed, the store must be opened again"},
    {MDB_VERSION_MISMATCH, -EINVAL, "written by an LMDB of another format"},
    {MDB_INVALID, -EINVAL, "not an LMDB store"},
    {MDB_MAP_FULL, -ENOSPC, "the store has reached its largest size"},
    {MDB_DBS_FULL, -EIO, "LMDB's table of databases is full"},
    {MDB_READERS_FULL, -EBUSY, "all places for readers are taken"},
    {MDB_TLS_FULL, -EIO, "no thread-local storage left for LMDB"},
    {MDB_TXN_FULL, -E2BIG, "the batch changes more pages than LMDB takes at once"},
    {MDB_CURSOR_FULL, -EIO, "the tree is too deep or loops: damaged"},
    {MDB_PAGE_FULL, -EIO, "a page holds more than it can: damaged"},
    {MDB_MAP_RESIZED, -EBUSY, "another process has grown the store and open snapshots keep us "
                              "from following"},
    {MDB_INCOMPATIBLE, -EIO, "a database of the store has other flags than ours: damaged"},
    {MDB_BAD_RSLOT, -EIO, "the table of readers is damaged"},
    {MDB_BAD_TXN, -EIO, "the transaction met damage before"},
    {MDB_BAD_VALSIZE, -EINVAL, "a key or value has a length that LMDB does not take"},
    {MDB_BAD_DBI, -EIO, "a database of the store was changed"},
    {ENOSPC, -ENOSPC, "the file system is full"},
    {EDQUOT, -ENOSPC, "the quota on the file system is used up"},
    {EFBIG, -ENOSPC, "the file has reached the largest size allowed"},
};

/* Errno values that keep their meaning across the contract. */
static bool
error_passes(int rc)
{
    static const int pass[] = {ENOMEM, EACCES, EROFS, ENOENT, EBUSY, EMFILE,
                               ENFILE, EIO,    ENODEV, ENOTDIR, ELOOP, ENAMETOOLONG};

    for (size_t i = 0; i < sizeof(pass) / sizeof(pass[0]); i++)
        if (pass[i] == rc)
            return true;
    return false;
}

int
kvfs_lmdb_error(struct kvfs_error *err, int rc, const char *path, const char *what)
{
    char buf[80];

    for (size_t i = 0; i < sizeof(error_rows) / sizeof(error_rows[0]); i++) {
        const struct error_row *row = &error_rows[i];

        if (row->rc == rc)
            return kvfs_error_set(err, row->code, "%s: %s: %s", path, what,
                                  row->text != NULL ? row->text : kvfs_lmdb_guard_text());
    }
    if (rc < 0)
        return kvfs_error_set(err, -EIO, "%s: %s: LMDB answers %d (%s)", path, what, rc,
                              mdb_strerror(rc));
    if (rc == EPERM)
        rc = EACCES;
    return kvfs_error_set(err, error_passes(rc) ? -rc : -EIO, "%s: %s: %s", path, what,
                          strerror_r(rc, buf, sizeof(buf)));
}

int
kvfs_lmdb_error_io(struct kvfs_error *err, int rc, const char *path, const char *what)
{
    (void)kvfs_lmdb_error(err, rc, path, what);
    if (err != NULL)
        err->code = -EIO;
    return -EIO;
}
