/* SPDX-License-Identifier: BSD-3-Clause
 *
 * extension.c - how SQLite loads the VFS: `.load kvfs_sqlite`, load_extension().  The entry
 * point kvfs_default makes it the default VFS besides, for programs that know plain paths only.
 */
#include "kvfs_sqlite.h"
#include "vfs_priv.h"

int sqlite3_extension_init(sqlite3 *db, char **message, const sqlite3_api_routines *api)
    __attribute__((visibility("default")));
int kvfs_default(sqlite3 *db, char **message, const sqlite3_api_routines *api)
    __attribute__((visibility("default")));

/* kvfs_error(): the last thing that went wrong in this thread */
static void
extension_error(sqlite3_context *context, int argc, sqlite3_value **argv)
{
    (void)argc;
    (void)argv;
    sqlite3_result_text(context, kvfs_sqlite_error(), -1, SQLITE_TRANSIENT);
}

/* Each connection, this one and all that are opened later, can ask. */
static int
extension_connection(sqlite3 *db, char **message, const sqlite3_api_routines *api)
{
    int rc = sqlite3_create_function(db, "kvfs_error", 0, SQLITE_UTF8, NULL, extension_error, NULL,
                                     NULL);

    (void)message;
    (void)api;
    return rc == SQLITE_BUSY ? SQLITE_OK : rc; /* it is there, and load_extension() is running */
}

static int
extension_load(sqlite3 *db, char **message, const sqlite3_api_routines *api, int make_default)
{
    int rc;

    sqlite3_api = api;
    rc = kvfs_sqlite_register(make_default);
    if (rc == SQLITE_OK)
        rc = sqlite3_auto_extension((void (*)(void))extension_connection);
    if (rc == SQLITE_OK)
        rc = extension_connection(db, message, api);
    /* The VFS must outlive the connection that loaded it. */
    return rc == SQLITE_OK ? SQLITE_OK_LOAD_PERMANENTLY : rc;
}

int
sqlite3_extension_init(sqlite3 *db, char **message, const sqlite3_api_routines *api)
{
    return extension_load(db, message, api, 0);
}

int
kvfs_default(sqlite3 *db, char **message, const sqlite3_api_routines *api)
{
    return extension_load(db, message, api, 1);
}
