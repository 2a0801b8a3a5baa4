/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sqlload.c - one load on a SQLite database through any VFS; for bench/sqlite.sh.
 *
 *   sqlload [OPTION...] CELL URI      URI: sqlite3_open_v2()'s; %d in it is the database's number
 *     --setup=SQL     run on each connection (journal_mode, synchronous)
 *     --rows=N        rows that `fill` puts there (100000)
 *     --seconds=S     time of a cell (3);  --threads=N (8, for `writers`, `mixed`);  --dbs=N (1)
 *     --file=PATH     of `raw`
 *
 *   fill     make the table with its rows in databases 0 to N - 1
 *   commit   one row, one commit, by one connection
 *   batch    a hundred rows at random places, one commit
 *   bulk     200000 rows in one transaction, again and again
 *   point    one row by its key, SQLite's page cache dropped before each
 *   range    a hundred rows in a row, likewise
 *   writers  THREADS connections on DBS databases, BEGIN IMMEDIATE, one row, COMMIT
 *   mix      SQL of every kind in the manner of speedtest1 (mix.c); an operation is a pass over
 *            tables of a twenty-fifth of the rows
 *   mixed    THREADS connections, 95 point reads to 5 commits
 *   raw      pwrite of 4 KiB and fdatasync, one after the other, over 4 MiB
 *
 * It prints one line: operations a second; the 50th and 99th percentile and the longest, in
 * microseconds; and what the thread that got least did beside the mean, in percent.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <sqlite3.h>

#include "kvfs_sqlite.h"
#include "mix.h"

#define LOAD_SAMPLES_MAX (1u << 20) /* a thread */
#define LOAD_ROW_BYTES   100
#define LOAD_BULK_ROWS   200000
#define LOAD_MIX_PART    25

struct load_options {
    const char *setup, *uri, *cell, *file;
    double seconds;
    int threads, dbs;
    long rows;
};

static struct load_options options = {.setup = "", .cell = "", .seconds = 3, .threads = 8, .dbs = 1,
                                      .rows = 100000};

struct load_thread {
    pthread_t thread;
    int number;
    sqlite3 *db;
    sqlite3_stmt *begin, *commit, *insert, *update, *point, *range;
    uint64_t random;
    uint64_t ops;
    float *us; /* of each operation */
    size_t us_count;
};

static pthread_barrier_t load_start;
static double load_end; /* set before the start */

static double
load_now(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static _Noreturn void
load_die(const char *what, const char *why)
{
    const char *more = kvfs_sqlite_error(); /* what SQLite has no words for, as why a volume is full */

    (void)fprintf(stderr, "sqlload: %s: %s%s%s%s\n", what, why, more[0] != '\0' ? " (" : "", more,
                  more[0] != '\0' ? ")" : "");
    exit(1); // NOLINT(concurrency-mt-unsafe)
}

static uint64_t
load_random(struct load_thread *t, uint64_t below)
{
    t->random ^= t->random << 13;
    t->random ^= t->random >> 7;
    t->random ^= t->random << 17;
    return t->random % below;
}

static void
load_sql(sqlite3 *db, const char *sql)
{
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
        load_die(sql, sqlite3_errmsg(db));
}

static sqlite3 *
load_open(int number)
{
    char uri[1024];
    const char *mark = strstr(options.uri, "%d");
    sqlite3 *db = NULL;

    if (mark != NULL)
        (void)snprintf(uri, sizeof(uri), "%.*s%d%s", (int)(mark - options.uri), options.uri, number,
                       mark + 2);
    else
        (void)snprintf(uri, sizeof(uri), "%s", options.uri);
    if (sqlite3_open_v2(uri, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI,
                        NULL) != SQLITE_OK)
        load_die(uri, sqlite3_errmsg(db));
    (void)sqlite3_busy_timeout(db, 60000);
    load_sql(db, options.setup);
    return db;
}

static sqlite3_stmt *
load_prepare(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *stmt = NULL;

    if (sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, &stmt, NULL) != SQLITE_OK)
        load_die(sql, sqlite3_errmsg(db));
    return stmt;
}

static void
load_run(sqlite3_stmt *stmt)
{
    int rc;

    do
        rc = sqlite3_step(stmt);
    while (rc == SQLITE_ROW);
    if (rc != SQLITE_DONE)
        load_die(sqlite3_sql(stmt), sqlite3_errmsg(sqlite3_db_handle(stmt)));
    (void)sqlite3_reset(stmt);
}

/* Bytes that cannot be compressed. */
static void
load_row(struct load_thread *t, sqlite3_stmt *stmt, int column)
{
    uint64_t row[LOAD_ROW_BYTES / 8 + 1];

    for (size_t i = 0; i < sizeof(row) / 8; i++)
        row[i] = load_random(t, UINT64_MAX);
    (void)sqlite3_bind_blob(stmt, column, row, LOAD_ROW_BYTES, SQLITE_TRANSIENT);
}

static void
load_connect(struct load_thread *t)
{
    t->db = load_open(t->number % options.dbs);
    t->random = 88172645463325252ULL + (uint64_t)t->number * 7919;
    t->us = malloc(LOAD_SAMPLES_MAX * sizeof(*t->us));
    if (t->us == NULL)
        load_die("malloc", "no memory");
    t->begin = load_prepare(t->db, "BEGIN IMMEDIATE");
    t->commit = load_prepare(t->db, "COMMIT");
    t->insert = load_prepare(t->db, "INSERT INTO log(v) VALUES(?1)");
    t->update = load_prepare(t->db, "UPDATE t SET v = ?2 WHERE k = ?1");
    t->point = load_prepare(t->db, "SELECT v FROM t WHERE k = ?1");
    t->range = load_prepare(t->db, "SELECT sum(length(v)) FROM t WHERE k >= ?1 AND k < ?1 + 100");
}

static void
load_disconnect(struct load_thread *t)
{
    sqlite3_stmt *all[] = {t->begin, t->commit, t->insert, t->update, t->point, t->range};

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        (void)sqlite3_finalize(all[i]);
    if (sqlite3_close(t->db) != SQLITE_OK)
        load_die("close", sqlite3_errmsg(t->db));
}

/* --- operations ------------------------------------------------------------------ */

static void
load_commit(struct load_thread *t)
{
    load_row(t, t->insert, 1);
    load_run(t->insert);
}

static void
load_batch(struct load_thread *t)
{
    load_run(t->begin);
    for (int i = 0; i < 100; i++) {
        (void)sqlite3_bind_int64(t->update, 1,
                                 1 + (sqlite3_int64)load_random(t, (uint64_t)options.rows));
        load_row(t, t->update, 2);
        load_run(t->update);
    }
    load_run(t->commit);
}

static void
load_bulk(struct load_thread *t)
{
    load_run(t->begin);
    for (int i = 0; i < LOAD_BULK_ROWS; i++)
        load_commit(t);
    load_run(t->commit);
}

static void
load_select(struct load_thread *t, sqlite3_stmt *stmt, long last)
{
    (void)sqlite3_db_release_memory(t->db);
    (void)sqlite3_bind_int64(stmt, 1, 1 + (sqlite3_int64)load_random(t, (uint64_t)last));
    load_run(stmt);
}

static void
load_point(struct load_thread *t)
{
    load_select(t, t->point, options.rows);
}

static void
load_range(struct load_thread *t)
{
    load_select(t, t->range, options.rows - 100);
}

static void
load_writers(struct load_thread *t)
{
    load_run(t->begin);
    load_commit(t);
    load_run(t->commit);
}

static void
load_mixed(struct load_thread *t)
{
    if (load_random(t, 100) < 95)
        load_point(t);
    else
        load_writers(t);
}

static sqlite3_int64 load_mix_sum;

static void
load_mix(struct load_thread *t)
{
    sqlite3_int64 sum = mix_pass(t->db, 1 + (int)(options.rows / LOAD_MIX_PART), load_die);

    if (load_mix_sum != 0 && sum != load_mix_sum)
        load_die("mix", "two passes read different values");
    load_mix_sum = sum;
}

static int load_fd = -1;

static void
load_raw(struct load_thread *t)
{
    uint64_t block[512];

    for (size_t i = 0; i < 512; i++)
        block[i] = load_random(t, UINT64_MAX);
    if (pwrite(load_fd, block, sizeof(block), (off_t)(t->ops % 1024) * 4096) != sizeof(block) ||
        fdatasync(load_fd) < 0)
        load_die(options.file, "cannot be written");
}

/* --- cells ------------------------------------------------------------------------- */

struct load_cell {
    const char *name;
    void (*op)(struct load_thread *t);
    bool many; /* of --threads */
};

static const struct load_cell load_cells[] = {
    {"commit", load_commit, false}, {"batch", load_batch, false},    {"bulk", load_bulk, false},
    {"point", load_point, false},   {"range", load_range, false},    {"writers", load_writers, true},
    {"mixed", load_mixed, true},    {"raw", load_raw, false},        {"mix", load_mix, false},
};

static const struct load_cell *load_cell;

static void *
load_thread_main(void *arg)
{
    struct load_thread *t = arg;
    double before;

    (void)pthread_barrier_wait(&load_start);
    before = load_now();
    do {
        double after;

        load_cell->op(t);
        after = load_now();
        if (t->us_count < LOAD_SAMPLES_MAX)
            t->us[t->us_count++] = (float)((after - before) * 1e6);
        t->ops++;
        before = after;
    } while (before < load_end);
    return NULL;
}

static int
load_compare(const void *a, const void *b)
{
    float x = *(const float *)a;
    float y = *(const float *)b;

    return x < y ? -1 : x > y;
}

static void
load_report(struct load_thread *threads, int count, double seconds)
{
    uint64_t ops = 0;
    uint64_t least = UINT64_MAX;
    size_t samples = 0;
    float *us;

    for (int i = 0; i < count; i++)
        samples += threads[i].us_count;
    us = malloc((samples + 1) * sizeof(*us));
    if (us == NULL)
        load_die("malloc", "no memory");
    samples = 0;
    for (int i = 0; i < count; i++) {
        memcpy(us + samples, threads[i].us, threads[i].us_count * sizeof(*us));
        samples += threads[i].us_count;
        ops += threads[i].ops;
        least = threads[i].ops < least ? threads[i].ops : least;
    }
    qsort(us, samples, sizeof(*us), load_compare);
    (void)printf("{\"rate\": %.2f, \"p50_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f, "
                 "\"least_percent\": %.1f, \"sum\": %lld}\n",
                 (double)ops / seconds, us[samples / 2], us[samples * 99 / 100], us[samples - 1],
                 100.0 * (double)least * count / (double)ops, (long long)load_mix_sum);
    free(us);
}

static void
load_fill(void)
{
    for (int i = 0; i < options.dbs; i++) {
        struct load_thread t = {.number = i, .random = 1234567 + (uint64_t)i};
        sqlite3_stmt *stmt;

        t.db = load_open(i);
        load_sql(t.db, "CREATE TABLE t(k INTEGER PRIMARY KEY, v BLOB);"
                       "CREATE TABLE log(k INTEGER PRIMARY KEY, v BLOB); BEGIN");
        stmt = load_prepare(t.db, "INSERT INTO t(v) VALUES(?1)");
        for (long n = 0; n < options.rows; n++) {
            load_row(&t, stmt, 1);
            load_run(stmt);
        }
        load_sql(t.db, "COMMIT");
        (void)sqlite3_finalize(stmt);
        (void)sqlite3_close(t.db);
    }
}

static void
load_measure(void)
{
    bool raw = load_cell->op == load_raw;
    int count = load_cell->many ? options.threads : 1;
    struct load_thread *threads = calloc((size_t)count, sizeof(*threads));
    double begin;

    if (threads == NULL)
        load_die("calloc", "no memory");
    (void)pthread_barrier_init(&load_start, NULL, (unsigned)count + 1);
    for (int i = 0; i < count; i++) {
        threads[i].number = i;
        threads[i].random = 42;
        if (raw)
            threads[i].us = malloc(LOAD_SAMPLES_MAX * sizeof(float));
        else
            load_connect(&threads[i]);
    }
    load_end = load_now() + options.seconds;
    for (int i = 0; i < count; i++) {
        if (pthread_create(&threads[i].thread, NULL, load_thread_main, &threads[i]) != 0)
            load_die("pthread_create", "no thread");
    }
    begin = load_now();
    (void)pthread_barrier_wait(&load_start);
    for (int i = 0; i < count; i++)
        (void)pthread_join(threads[i].thread, NULL);
    load_report(threads, count, load_now() - begin);
    for (int i = 0; i < count; i++) {
        if (!raw)
            load_disconnect(&threads[i]);
        free(threads[i].us);
    }
    free(threads);
}

static void
load_options(int argc, char **argv)
{
    int words = 0;

    for (int i = 1; i < argc; i++) {
        const char *value = strchr(argv[i], '=');

        if (strncmp(argv[i], "--", 2) != 0) {
            if (words++ == 0)
                options.cell = argv[i];
            else
                options.uri = argv[i];
            continue;
        }
        value = value != NULL ? value + 1 : "";
        if (strncmp(argv[i], "--setup=", 8) == 0)
            options.setup = value;
        else if (strncmp(argv[i], "--rows=", 7) == 0)
            options.rows = strtol(value, NULL, 10);
        else if (strncmp(argv[i], "--seconds=", 10) == 0)
            options.seconds = strtod(value, NULL);
        else if (strncmp(argv[i], "--threads=", 10) == 0)
            options.threads = (int)strtol(value, NULL, 10);
        else if (strncmp(argv[i], "--dbs=", 6) == 0)
            options.dbs = (int)strtol(value, NULL, 10);
        else if (strncmp(argv[i], "--file=", 7) == 0)
            options.file = value;
        else
            load_die(argv[i], "unknown option");
    }
    if (options.cell[0] == '\0' || options.threads < 1 || options.dbs < 1 || options.rows < 200)
        load_die("usage", "sqlload [OPTION...] CELL URI");
}

int
main(int argc, char **argv)
{
    load_options(argc, argv);
    if (kvfs_sqlite_register(0) != SQLITE_OK)
        load_die("kvfs", "cannot be registered");
    if (strcmp(options.cell, "fill") == 0) {
        load_fill();
        return 0;
    }
    for (size_t i = 0; i < sizeof(load_cells) / sizeof(load_cells[0]); i++) {
        if (strcmp(options.cell, load_cells[i].name) == 0)
            load_cell = &load_cells[i];
    }
    if (load_cell == NULL)
        load_die(options.cell, "no such cell");
    if (load_cell->op == load_raw) {
        char zeros[4096] = {0};

        load_fd = open(options.file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        for (int i = 0; i < 1024; i++) {
            if (pwrite(load_fd, zeros, sizeof(zeros), (off_t)i * 4096) != sizeof(zeros))
                load_die(options.file, "cannot be written");
        }
        (void)fsync(load_fd);
    }
    load_measure();
    return 0;
}
