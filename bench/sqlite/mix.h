/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mix.h - SQL of every kind on one connection (mix.c).
 */
#ifndef BENCH_SQLITE_MIX_H
#define BENCH_SQLITE_MIX_H

#include <sqlite3.h>

/* One pass over tables of N rows (at least 1), which it makes and drops; the same statements with the same
 * values each time.  Returns a sum over all that was read, the same for every VFS and N.  Calls DIE
 * with the statement and SQLite's words when one fails, which must not return. */
sqlite3_int64 mix_pass(sqlite3 *db, int n, void (*die)(const char *sql, const char *why));

#endif /* BENCH_SQLITE_MIX_H */
