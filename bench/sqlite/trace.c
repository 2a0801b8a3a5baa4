/* SPDX-License-Identifier: BSD-3-Clause
 *
 * trace.c - a VFS over the default one that notes the pages of the main database.
 */
#include "trace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sqlite3.h>

struct trace_file {
    sqlite3_file base;
    sqlite3_file *below; /* behind this struct */
};

static struct trace *trace_into; /* NULL: not now */
static struct trace_step *trace_step;
static sqlite3_vfs *trace_below;

static _Noreturn void
trace_die(const char *what)
{
    (void)fprintf(stderr, "pagecost: %s\n", what);
    exit(1); // NOLINT(concurrency-mt-unsafe)
}

static void
trace_note(sqlite3_int64 offset, int amount)
{
    struct trace *t = trace_into;
    uint32_t page = (uint32_t)(offset / TRACE_PAGE);

    if (t == NULL || amount != (int)TRACE_PAGE)
        return;
    if (t->pages_count == t->pages_cap) {
        t->pages_cap = t->pages_cap == 0 ? 4096 : 2 * t->pages_cap;
        t->pages = realloc(t->pages, t->pages_cap * sizeof(*t->pages));
        if (t->pages == NULL)
            trace_die("no memory");
    }
    t->pages[t->pages_count++] = page;
    trace_step->count++;
    t->pages_max = page + 1 > t->pages_max ? page + 1 : t->pages_max;
}

#define BELOW(file) (((struct trace_file *)(file))->below)

static int
trace_close(sqlite3_file *f)
{
    return BELOW(f)->pMethods->xClose(BELOW(f));
}

static int
trace_read(sqlite3_file *f, void *buf, int n, sqlite3_int64 offset)
{
    if (trace_into != NULL && trace_step >= trace_into->reads &&
        trace_step < trace_into->reads + trace_into->reads_count)
        trace_note(offset, n);
    return BELOW(f)->pMethods->xRead(BELOW(f), buf, n, offset);
}

static int
trace_write(sqlite3_file *f, const void *buf, int n, sqlite3_int64 offset)
{
    trace_note(offset, n);
    return BELOW(f)->pMethods->xWrite(BELOW(f), buf, n, offset);
}

static int
trace_truncate(sqlite3_file *f, sqlite3_int64 size)
{
    return BELOW(f)->pMethods->xTruncate(BELOW(f), size);
}

static int
trace_sync(sqlite3_file *f, int flags)
{
    (void)f;
    (void)flags;
    return SQLITE_OK; /* only what is written counts here */
}

static int
trace_size(sqlite3_file *f, sqlite3_int64 *size)
{
    return BELOW(f)->pMethods->xFileSize(BELOW(f), size);
}

static int
trace_lock(sqlite3_file *f, int level)
{
    return BELOW(f)->pMethods->xLock(BELOW(f), level);
}

static int
trace_unlock(sqlite3_file *f, int level)
{
    return BELOW(f)->pMethods->xUnlock(BELOW(f), level);
}

static int
trace_reserved(sqlite3_file *f, int *out)
{
    return BELOW(f)->pMethods->xCheckReservedLock(BELOW(f), out);
}

static int
trace_control(sqlite3_file *f, int op, void *arg)
{
    return BELOW(f)->pMethods->xFileControl(BELOW(f), op, arg);
}

static int
trace_sector(sqlite3_file *f)
{
    return BELOW(f)->pMethods->xSectorSize(BELOW(f));
}

static int
trace_traits(sqlite3_file *f)
{
    return BELOW(f)->pMethods->xDeviceCharacteristics(BELOW(f));
}

static const sqlite3_io_methods trace_methods = {
    .iVersion = 1,
    .xClose = trace_close,
    .xRead = trace_read,
    .xWrite = trace_write,
    .xTruncate = trace_truncate,
    .xSync = trace_sync,
    .xFileSize = trace_size,
    .xLock = trace_lock,
    .xUnlock = trace_unlock,
    .xCheckReservedLock = trace_reserved,
    .xFileControl = trace_control,
    .xSectorSize = trace_sector,
    .xDeviceCharacteristics = trace_traits,
};

static int
trace_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out_flags)
{
    struct trace_file *f = (struct trace_file *)file;
    int rc;

    (void)vfs;
    if ((flags & SQLITE_OPEN_MAIN_DB) == 0)
        return trace_below->xOpen(trace_below, name, file, flags, out_flags);
    f->below = (sqlite3_file *)(f + 1);
    rc = trace_below->xOpen(trace_below, name, f->below, flags, out_flags);
    f->base.pMethods = rc == SQLITE_OK ? &trace_methods : NULL;
    return rc;
}

static void
trace_sql(sqlite3 *db, const char *sql)
{
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
        trace_die(sqlite3_errmsg(db));
}

sqlite3_int64
trace_key(size_t number, size_t rows)
{
    uint64_t x = (uint64_t)number + 1;

    x = (x ^ (x >> 31)) * UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 29)) * UINT64_C(0xbf58476d1ce4e5b9);
    return 1 + (sqlite3_int64)((x ^ (x >> 32)) % rows);
}

void
trace_run(sqlite3 *db, sqlite3_stmt *stmt, size_t number, size_t rows)
{
    int rc;

    (void)sqlite3_bind_int64(stmt, 1, trace_key(number, rows));
    do
        rc = sqlite3_step(stmt);
    while (rc == SQLITE_ROW);
    if (rc != SQLITE_DONE)
        trace_die(sqlite3_errmsg(db));
    (void)sqlite3_reset(stmt);
}

void
trace_fill(sqlite3 *db, size_t rows)
{
    char text[512];

    (void)snprintf(text, sizeof(text),
                   "CREATE TABLE t(k INTEGER PRIMARY KEY, v BLOB);"
                   "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<%zu)"
                   "INSERT INTO t SELECT i, randomblob(100) FROM n", rows);
    trace_sql(db, text);
}

static void
trace_steps(struct trace *t, sqlite3 *db, struct trace_step *steps, size_t count, size_t rows,
            const char *sql)
{
    sqlite3_stmt *stmt = NULL;

    if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK)
        trace_die(sqlite3_errmsg(db));
    trace_into = t;
    for (size_t i = 0; i < count; i++) {
        (void)sqlite3_db_release_memory(db);
        trace_step = &steps[i];
        trace_step->first = t->pages_count;
        trace_run(db, stmt, i, rows);
    }
    trace_into = NULL;
    (void)sqlite3_finalize(stmt);
}

void
trace_record(struct trace *t, const char *dir, size_t rows, size_t commits, size_t reads)
{
    static sqlite3_vfs vfs;
    char text[512];
    sqlite3 *db = NULL;

    memset(t, 0, sizeof(*t));
    t->commits = calloc(commits, sizeof(*t->commits));
    t->reads = calloc(reads, sizeof(*t->reads));
    if (t->commits == NULL || t->reads == NULL)
        trace_die("no memory");
    t->commits_count = commits;
    t->reads_count = reads;
    trace_below = sqlite3_vfs_find(NULL);
    vfs = *trace_below;
    vfs.zName = "trace";
    vfs.pNext = NULL;
    vfs.szOsFile += (int)sizeof(struct trace_file);
    vfs.xOpen = trace_open;
    (void)sqlite3_vfs_register(&vfs, 0);
    (void)snprintf(text, sizeof(text), "%s/trace.db", dir);
    if (sqlite3_open_v2(text, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "trace") != SQLITE_OK)
        trace_die(sqlite3_errmsg(db));
    (void)snprintf(text, sizeof(text),
                   "PRAGMA page_size=%u; PRAGMA journal_mode=MEMORY; PRAGMA synchronous=OFF", TRACE_PAGE);
    trace_sql(db, text);
    trace_fill(db, rows);
    trace_steps(t, db, t->commits, commits, rows, TRACE_UPDATE);
    trace_steps(t, db, t->reads, reads, rows, TRACE_SELECT);
    (void)sqlite3_close(db);
    (void)sqlite3_vfs_unregister(&vfs);
}

void
trace_free(struct trace *t)
{
    free(t->pages);
    free(t->commits);
    free(t->reads);
}
