/* SPDX-License-Identifier: BSD-3-Clause
 *
 * error.c - from errno and one line to SQLite's result codes.
 *
 * SQLite has no place for a VFS's own words when an open fails, so the line goes to its log
 * (sqlite3_config(SQLITE_CONFIG_LOG), the shell's `.log stderr`), to xGetLastError and to
 * kvfs_sqlite_error(), the SQL function kvfs_error().
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "kvfs_sqlite.h"
#include "vfs_priv.h"

static _Thread_local char error_line[300];

const char *
kvfs_sqlite_error(void)
{
    return error_line;
}

static int
error_code(int rc, int ioerr)
{
    switch (rc) {
    case -ENOSPC:
    case -EFBIG:
    case -EDQUOT:
        return SQLITE_FULL;
    case -ENOMEM:
        return SQLITE_IOERR_NOMEM;
    case -EBUSY:
        return SQLITE_BUSY;
    case -EROFS:
        return SQLITE_READONLY;
    default:
        return ioerr;
    }
}

int
vfs_error(int rc, int ioerr, const struct kvfs_error *err)
{
    int code = error_code(rc, ioerr);

    (void)snprintf(error_line, sizeof(error_line), "%s", err->msg);
    if (code != SQLITE_BUSY) /* which happens all the time */
        sqlite3_log(code, "kvfs: %s", error_line);
    return code;
}

int
vfs_refuse(int code, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    // NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): version 14 does not know va_start here
    (void)vsnprintf(error_line, sizeof(error_line), fmt, ap);
    va_end(ap);
    if ((code & 0xff) != SQLITE_BUSY)
        sqlite3_log(code, "kvfs: %s", error_line);
    return code;
}
