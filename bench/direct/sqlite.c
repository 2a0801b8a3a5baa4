/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sqlite.c - SQLite driven directly: engines/sqlite's table, WAL, FULL, one
 * transaction a batch on one connection; no checksums behind its pages.
 *
 * Variants, for the choices that the adapter made (words behind --engine=sqlite,): page=BYTES,
 * norowid (one tree, WITHOUT ROWID), mmap (1 GiB), cache-bytes=N (of the one that writes).
 */
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "direct.h"

#define DIRECT_MMAP "PRAGMA mmap_size = 1073741824;"

static char direct_path[4096];
static const char *direct_shape = "k BLOB NOT NULL UNIQUE, v BLOB NOT NULL)";
static const char *direct_mmap = "";
static int direct_page = 4096;
static long direct_cache_kib = 2048;
static sqlite3 *direct_db;
static sqlite3_stmt *direct_update, *direct_insert;
static pthread_mutex_t direct_lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local sqlite3 *direct_reader;
static _Thread_local sqlite3_stmt *direct_select;

static void
direct_must(sqlite3 *db, int rc)
{
    if (rc != SQLITE_OK)
        bench_die("sqlite: %s", sqlite3_errmsg(db));
}

static void
direct_exec(sqlite3 *db, const char *sql)
{
    direct_must(db, sqlite3_exec(db, sql, NULL, NULL, NULL));
}

static void
direct_variant(const char *words)
{
    const char *page = strstr(words, "page=");
    const char *cache = strstr(words, "cache-bytes=");

    if (page != NULL)
        direct_page = (int)strtol(page + 5, NULL, 10);
    if (cache != NULL)
        direct_cache_kib = strtol(cache + 12, NULL, 10) / 1024;
    if (strstr(words, "norowid") != NULL)
        direct_shape = "k BLOB NOT NULL PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID";
    if (strstr(words, "mmap") != NULL)
        direct_mmap = DIRECT_MMAP;
}

static void
direct_connect(sqlite3 **db)
{
    char cache[64];

    direct_must(*db, sqlite3_open_v2(direct_path, db,
                                     SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE |
                                         SQLITE_OPEN_NOMUTEX,
                                     NULL));
    (void)snprintf(cache, sizeof(cache), "PRAGMA cache_size = -%ld", direct_cache_kib);
    direct_exec(*db, cache);
    direct_exec(*db, direct_mmap);
}

static void
direct_prepare(sqlite3_stmt **stmt, const char *sql)
{
    direct_must(direct_db,
                sqlite3_prepare_v3(direct_db, sql, -1, SQLITE_PREPARE_PERSISTENT, stmt, NULL));
}

static void
direct_open(const char *folder, const char *variant)
{
    char sql[256];

    if (variant != NULL)
        direct_variant(variant);
    (void)snprintf(direct_path, sizeof(direct_path), "%s/store.sqlite", folder);
    direct_connect(&direct_db);
    (void)snprintf(sql, sizeof(sql),
                   "PRAGMA page_size = %d; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
                   "PRAGMA wal_autocheckpoint = %d; CREATE TABLE IF NOT EXISTS data (%s",
                   direct_page, 2000 * 4096 / direct_page, direct_shape);
    direct_exec(direct_db, sql);
    direct_prepare(&direct_update, "UPDATE data SET v = ?2 WHERE k = ?1");
    direct_prepare(&direct_insert, "INSERT INTO data (k, v) VALUES (?1, ?2)");
}

/* A connection a thread, which the end of the program closes. */
static void
direct_get(struct bench_block *block)
{
    if (direct_reader == NULL) {
        direct_connect(&direct_reader);
        direct_must(direct_reader,
                    sqlite3_prepare_v3(direct_reader, "SELECT v FROM data WHERE k = ?1", -1,
                                       SQLITE_PREPARE_PERSISTENT, &direct_select, NULL));
    }
    direct_must(direct_reader,
                sqlite3_bind_blob(direct_select, 1, block->key, BENCH_KEY, SQLITE_STATIC));
    if (sqlite3_step(direct_select) != SQLITE_ROW)
        bench_die("sqlite: a block is missing");
    memcpy(block->value, sqlite3_column_blob(direct_select, 0), BENCH_VALUE);
    (void)sqlite3_reset(direct_select);
}

static void
direct_run(sqlite3_stmt *stmt, const struct bench_block *block)
{
    direct_must(direct_db, sqlite3_bind_blob(stmt, 1, block->key, BENCH_KEY, SQLITE_STATIC));
    direct_must(direct_db, sqlite3_bind_blob(stmt, 2, block->value, BENCH_VALUE, SQLITE_STATIC));
    if (sqlite3_step(stmt) != SQLITE_DONE)
        direct_must(direct_db, sqlite3_errcode(direct_db));
    direct_must(direct_db, sqlite3_reset(stmt));
}

static void
direct_put(const struct bench_block *blocks, size_t count)
{
    (void)pthread_mutex_lock(&direct_lock);
    direct_exec(direct_db, "BEGIN IMMEDIATE");
    for (size_t i = 0; i < count; i++) {
        direct_run(direct_update, &blocks[i]);
        if (sqlite3_changes(direct_db) == 0)
            direct_run(direct_insert, &blocks[i]);
    }
    direct_exec(direct_db, "COMMIT");
    (void)pthread_mutex_unlock(&direct_lock);
}

static void
direct_close(void)
{
    (void)sqlite3_finalize(direct_update);
    (void)sqlite3_finalize(direct_insert);
    (void)sqlite3_close(direct_db);
}

const struct bench_direct bench_direct_sqlite = {
    .name = "sqlite",
    .open = direct_open,
    .put = direct_put,
    .get = direct_get,
    .close = direct_close,
};
