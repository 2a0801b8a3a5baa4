/* SPDX-License-Identifier: BSD-3-Clause
 *
 * trace.h - which pages SQLite reads and writes in a transaction (trace.c).
 */
#ifndef BENCH_SQLITE_TRACE_H
#define BENCH_SQLITE_TRACE_H

#include <stddef.h>
#include <stdint.h>

#include <sqlite3.h>

#define TRACE_PAGE 4096u

struct trace_step { /* one transaction */
    size_t first, count; /* its pages, in `pages` */
};

struct trace {
    uint32_t *pages; /* numbers from 0 */
    size_t pages_count, pages_cap;
    struct trace_step *commits, *reads;
    size_t commits_count, reads_count;
    uint32_t pages_max; /* behind the last page */
};

/* Record COMMITS commits of one row and READS reads of one row out of ROWS, in a database of
 * the default VFS in folder DIR.  Ends the program when something fails. */
void trace_record(struct trace *t, const char *dir, size_t rows, size_t commits, size_t reads);
/* The same rows in DB, and its statements: each takes its row's key as ?1, TRACE_KEY of its number. */
void trace_fill(sqlite3 *db, size_t rows);
#define TRACE_UPDATE "UPDATE t SET v = randomblob(100) WHERE k = ?1"
#define TRACE_SELECT "SELECT v FROM t WHERE k = ?1"
sqlite3_int64 trace_key(size_t number, size_t rows);
/* Run STMT for transaction NUMBER. */
void trace_run(sqlite3 *db, sqlite3_stmt *stmt, size_t number, size_t rows);
void trace_free(struct trace *t);

#endif /* BENCH_SQLITE_TRACE_H */
