/* SPDX-License-Identifier: BSD-3-Clause
 *
 * scenario_sqlite.c - money goes from account to account, in transactions over several databases of
 * the volume, through the SQLite VFS.
 *
 * A transfer takes from an account of one database, adds to one of another, and writes its own
 * number into all of them.  After a cut each database passes integrity_check (which alone would
 * miss a commit that is there by half), all hold the same number K, what is in every account is
 * what K transfers make, and K is at least the last that was acknowledged, unless the round's
 * connection was durability=ordered.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sqlite3.h>

#include <kvfs_sqlite.h>

#include "random.h"
#include "scenario.h"

#define BANKS     3u
#define ACCOUNTS  64u /* of each: several pages */
#define BALANCE   1000
#define TRANSFERS 160u

/* op.kind: 0 committed, 1 rolled back; a, b: bank * ACCOUNTS + account; c: how much */

static const char *const bank_names[BANKS] = {"main", "b1", "b2"};

static bool
bank_ordered(const struct journal *j)
{
    return j->seed % 4 == 0;
}

static int
bank_fail(sqlite3 *db, const char *what, struct kvfs_error *err)
{
    int code = sqlite3_errcode(db);

    return kvfs_error_set(err, code == SQLITE_FULL ? -ENOSPC : -EIO, "%s: %s (%s)", what, sqlite3_errmsg(db),
                          code == SQLITE_ROW || code == SQLITE_DONE ? "" : kvfs_sqlite_error());
}

static int __attribute__((format(printf, 3, 4)))
bank_exec(sqlite3 *db, struct kvfs_error *err, const char *fmt, ...)
{
    char sql[1200];
    va_list ap;

    va_start(ap, fmt);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): it was started a line above */
    (void)vsnprintf(sql, sizeof(sql), fmt, ap);
    va_end(ap);
    return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : bank_fail(db, sql, err);
}

/* The only number that SQL answers. */
static int
bank_number(sqlite3 *db, const char *sql, int64_t *number, struct kvfs_error *err)
{
    sqlite3_stmt *st;
    int r = -1;

    if (sqlite3_prepare_v2(db, sql, -1, &st, NULL) != SQLITE_OK)
        return bank_fail(db, sql, err);
    if (sqlite3_step(st) == SQLITE_ROW) {
        *number = sqlite3_column_int64(st, 0);
        r = 0;
    }
    if (r < 0)
        r = bank_fail(db, sql, err);
    (void)sqlite3_finalize(st);
    return r;
}

static int
bank_open(const char *volume, bool ordered, sqlite3 **dbp, struct kvfs_error *err)
{
    const char *more = ordered ? "&durability=ordered" : "";
    char uri[600];
    int r = kvfs_sqlite_register(0);

    (void)snprintf(uri, sizeof(uri), "file:b0.db?vfs=kvfs&volume=%s%s", volume, more);
    if (r != SQLITE_OK ||
        sqlite3_open_v2(uri, dbp, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI,
                        NULL) != SQLITE_OK) {
        r = kvfs_error_set(err, -EIO, "no database: %s", kvfs_sqlite_error());
        (void)sqlite3_close(*dbp);
        return r;
    }
    for (unsigned i = 1; i < BANKS && r == 0; i++)
        r = bank_exec(*dbp, err, "ATTACH 'file:b%u.db?vfs=kvfs&volume=%s%s' AS b%u", i, volume,
                      more, i);
    if (r < 0)
        (void)sqlite3_close(*dbp);
    return r;
}

static int
sqlite_prepare(struct kvfs_volume *v, struct kvfs_error *err)
{
    struct kvfs_volume_info info;
    sqlite3 *db = NULL;
    int r;

    kvfs_volume_info(v, &info);
    r = bank_open(info.path, false, &db, err);
    if (r < 0)
        return r;
    for (unsigned i = 0; i < BANKS && r == 0; i++) {
        const char *n = bank_names[i];

        r = bank_exec(db, err,
                      "PRAGMA %s.page_size=1024; CREATE TABLE %s.account(id INTEGER PRIMARY "
                      "KEY, n, pad); CREATE TABLE %s.last(op); INSERT INTO %s.last VALUES(0)",
                      n, n, n, n);
        for (unsigned a = 0; a < ACCOUNTS && r == 0; a++)
            r = bank_exec(db, err, "INSERT INTO %s.account VALUES(%u, %d, hex(zeroblob(100)))", n,
                          a, BALANCE);
    }
    if (sqlite3_close(db) != SQLITE_OK && r == 0)
        r = kvfs_error_set(err, -EIO, "the databases do not close");
    return r;
}

static int
sqlite_work(const struct subject *s, const char *volume, struct journal *j, struct kvfs_error *err)
{
    uint64_t seed = j->seed;
    struct kvfs_volume_options options;
    char params[SUBJECT_PARAMS_MAX];
    struct kvfs_volume *v = NULL;
    sqlite3 *db = NULL;
    int r;

    /* The VFS shares what is open in its process, so the options are ours. */
    subject_options(s, j->seed, params, &options);
    r = kvfs_volume_open(volume, &options, &v, err);
    if (r == 0)
        r = bank_open(volume, bank_ordered(j), &db, err);
    for (unsigned i = 0; r == 0 && i < TRANSFERS; i++) {
        struct journal_op op = {.kind = crashsim_random(&seed) % 8 == 0};
        int number;

        op.a = (uint32_t)crashsim_random(&seed) % (BANKS * ACCOUNTS);
        op.b = (uint32_t)crashsim_random(&seed) % (BANKS * ACCOUNTS);
        op.c = (uint32_t)(crashsim_random(&seed) % 50);
        number = journal_issue(j, &op);
        r = bank_exec(
            db, err,
            "BEGIN IMMEDIATE; UPDATE %s.account SET n=n-%u WHERE id=%u;"
            "UPDATE %s.account SET n=n+%u WHERE id=%u;"
            "UPDATE main.last SET op=%d; UPDATE b1.last SET op=%d; UPDATE b2.last SET op=%d;"
            "%s",
            bank_names[op.a / ACCOUNTS], op.c, op.a % ACCOUNTS, bank_names[op.b / ACCOUNTS], op.c,
            op.b % ACCOUNTS, number + 1, number + 1, number + 1,
            op.kind == 0 ? "COMMIT" : "ROLLBACK");
        if (r == 0)
            journal_ack(j, number);
    }
    return r; /* and never closes */
}

/* --- the oracle --- */

static int
judge_integrity(struct judge *j, sqlite3 *db, struct kvfs_error *err)
{
    for (unsigned i = 0; i < BANKS; i++) {
        char sql[64];
        sqlite3_stmt *st;
        const char *text = NULL;

        (void)snprintf(sql, sizeof(sql), "PRAGMA %s.integrity_check", bank_names[i]);
        if (sqlite3_prepare_v2(db, sql, -1, &st, NULL) != SQLITE_OK)
            return bank_fail(db, sql, err);
        if (sqlite3_step(st) == SQLITE_ROW)
            text = (const char *)sqlite3_column_text(st, 0);
        if (text == NULL || strcmp(text, "ok") != 0)
            judge_bad(j, "integrity_check of %s: %s", bank_names[i],
                      text != NULL ? text : "failed");
        (void)sqlite3_finalize(st);
    }
    return 0;
}

/* K: the number that all databases hold. */
static int
judge_last(struct judge *j, sqlite3 *db, int64_t *k, struct kvfs_error *err)
{
    for (unsigned i = 0; i < BANKS; i++) {
        char sql[64];
        int64_t n;
        int r;

        (void)snprintf(sql, sizeof(sql), "SELECT op FROM %s.last", bank_names[i]);
        r = bank_number(db, sql, &n, err);
        if (r < 0)
            return r;
        if (i > 0 && n != *k)
            judge_bad(j, "torn commit: %s holds transfer %lld, %s transfer %lld", bank_names[0],
                      (long long)*k, bank_names[i], (long long)n);
        *k = n;
    }
    return 0;
}

static int
judge_accounts(struct judge *j, sqlite3 *db, int64_t k, struct kvfs_error *err)
{
    int64_t want[BANKS * ACCOUNTS], n;
    int r = 0;

    for (unsigned i = 0; i < BANKS * ACCOUNTS; i++)
        want[i] = BALANCE;
    for (int64_t i = 0; i < k; i++) {
        const struct journal_op *op = &j->j->ops[i];

        if (op->kind == 0) {
            want[op->a] -= op->c;
            want[op->b] += op->c;
        }
    }
    for (unsigned i = 0; i < BANKS * ACCOUNTS && r == 0; i++) {
        char sql[96];

        (void)snprintf(sql, sizeof(sql), "SELECT n FROM %s.account WHERE id=%u",
                       bank_names[i / ACCOUNTS], i % ACCOUNTS);
        r = bank_number(db, sql, &n, err);
        if (r == 0 && n != want[i])
            judge_bad(j, "account %u of %s holds %lld, after %lld transfers it must hold %lld",
                      i % ACCOUNTS, bank_names[i / ACCOUNTS], (long long)n, (long long)k,
                      (long long)want[i]);
        j->digest = crashsim_hash2(j->digest, (uint64_t)n);
    }
    return r;
}

static int
sqlite_judge(struct judge *j, struct kvfs_error *err)
{
    uint32_t issued = journal_issued_at(j->j, j->t_ns);
    int64_t k = 0, durable = 0;
    sqlite3 *db = NULL;
    int r = bank_open(j->volume, false, &db, err);

    if (r < 0)
        return r;
    for (uint32_t i = 0; i < issued; i++) {
        if (j->j->ops[i].kind == 0 && journal_acked_at(j->j, i, j->t_ns))
            durable = (int64_t)i + 1;
    }
    if (!judge_expects_durable(j) || bank_ordered(j->j))
        durable = 0;
    r = judge_integrity(j, db, err);
    if (r == 0)
        r = judge_last(j, db, &k, err);
    if (r == 0 && k < durable)
        judge_bad(j, "transfer %lld is the last that is there, %lld was durable", (long long)k,
                  (long long)durable);
    if (r == 0 && k > (int64_t)issued)
        judge_bad(j, "transfer %lld was never begun", (long long)k);
    j->digest = (uint64_t)k;
    if (r == 0 && k <= (int64_t)issued)
        r = judge_accounts(j, db, k, err);
    j->verdict->lost = issued - (uint64_t)k;
    (void)sqlite3_close(db);
    return r;
}

static int
sqlite_write_on(struct judge *j, struct kvfs_error *err)
{
    sqlite3 *db = NULL;
    int r = bank_open(j->volume, false, &db, err);

    if (r < 0)
        return r;
    r = bank_exec(db, err,
                  "BEGIN; CREATE TABLE IF NOT EXISTS main.later(x); CREATE TABLE IF NOT "
                  "EXISTS b1.later(x); INSERT INTO main.later VALUES(1); INSERT INTO b1.later "
                  "VALUES(1); COMMIT");
    (void)sqlite3_close(db);
    return r;
}

const struct scenario scenario_sqlite = {
    .name = "sqlite",
    .summary = "account transfers over three attached databases through the SQLite VFS",
    .prepare = sqlite_prepare,
    .work = sqlite_work,
    .judge = sqlite_judge,
    .write_on = sqlite_write_on,
};
