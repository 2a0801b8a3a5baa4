/* SPDX-License-Identifier: BSD-3-Clause
 *
 * vfs_world.h - a volume in a temporary folder, and short ways to SQLite.
 */
#ifndef KVFS_TESTS_VFS_WORLD_H
#define KVFS_TESTS_VFS_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <kvfs/kvfs.h>
#include <sqlite3.h>

#include "kvfs_sqlite.h"

struct world {
    char dir[64];
    char volume[80];
};

static inline const char *
world_engine(void)
{
    const char *given = getenv("KVFS_TEST_ENGINE"); // NOLINT(concurrency-mt-unsafe)

    return given != NULL ? given : "lmdb";
}

static const char *world_engine_path; /* a plugin instead; NULL: none */

static inline int
world_setup(void **state)
{
    struct kvfs_format_options options = {.engine = world_engine_path != NULL ? world_engine_path
                                                                             : world_engine()};
    struct kvfs_error err = {0};
    struct world *w = calloc(1, sizeof(*w));

    assert_non_null(w);
    (void)snprintf(w->dir, sizeof(w->dir), "/tmp/kvfs-vfs-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    (void)snprintf(w->volume, sizeof(w->volume), "%s/vol", w->dir);
    if (kvfs_format(w->volume, &options, &err) < 0)
        fail_msg("%s", err.msg);
    assert_int_equal(kvfs_sqlite_register(0), SQLITE_OK);
    *state = w;
    return 0;
}

static inline int
world_teardown(void **state)
{
    struct world *w = *state;
    char command[128];

    (void)snprintf(command, sizeof(command), "rm -rf '%s'", w->dir);
    assert_int_equal(system(command), 0); // NOLINT(cert-env33-c,concurrency-mt-unsafe)
    free(w);
    return 0;
}

/* Open FILE of the volume with further URI parameters. */
static inline sqlite3 *
world_open(struct world *w, const char *file, const char *more)
{
    char uri[256];
    sqlite3 *db = NULL;

    (void)snprintf(uri, sizeof(uri), "file:%s?vfs=kvfs&volume=%s%s", file, w->volume, more);
    if (sqlite3_open_v2(uri, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI,
                        NULL) != SQLITE_OK)
        fail_msg("%s: %s: %s", uri, sqlite3_errmsg(db), kvfs_sqlite_error());
    (void)sqlite3_extended_result_codes(db, 1);
    return db;
}

/* Run SQL; what comes back is the result code. */
static inline int
world_run(sqlite3 *db, const char *sql)
{
    return sqlite3_exec(db, sql, NULL, NULL, NULL);
}

static inline void
world_sql(sqlite3 *db, const char *sql)
{
    int rc = world_run(db, sql);

    if (rc != SQLITE_OK)
        fail_msg("%s: %d %s: %s", sql, rc, sqlite3_errmsg(db), kvfs_sqlite_error());
}

/* The first column of the first row, as text; static storage. */
static inline const char *
world_text(sqlite3 *db, const char *sql)
{
    static char text[4][256];
    static unsigned turn;
    char *out = text[turn++ % 4];
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL);

    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW)
        (void)snprintf(out, sizeof(text[0]), "%s", sqlite3_column_text(stmt, 0) == NULL
                                                       ? "NULL"
                                                       : (const char *)sqlite3_column_text(stmt, 0));
    else
        (void)snprintf(out, sizeof(text[0]), "error %d", sqlite3_extended_errcode(db));
    (void)sqlite3_finalize(stmt);
    return out;
}

static inline void
world_close(sqlite3 *db)
{
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

#endif /* KVFS_TESTS_VFS_WORLD_H */
