/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mix.c - in the manner of SQLite's speedtest1, and not that program: its figures are other ones.
 *
 * Numbers and their names in words are inserted in order and out of order, into tables with and
 * without indexes; read by range, by word, by index, in order and joined; changed and removed by
 * range and one by one; columns are added, indexes made, the file is vacuumed and checked.  Each
 * section is a transaction, where SQL allows one.
 */
#include "mix.h"

#include <stdio.h>
#include <string.h>

struct mix {
    sqlite3 *db;
    int n;
    sqlite3_int64 sum;
    void (*die)(const char *sql, const char *why);
};

/* Each number below 2^30 once, out of order. */
static int
mix_swizzle(int i)
{
    return (int)(((unsigned)i * 2654435761u >> 2) & 0x3fffffff);
}

/* I in English words; speedtest1 has its texts so. */
static size_t
mix_words(int i, char *out, size_t cap)
{
    static const char *const ones[] = {
        "zero", "one",    "two",    "three",    "four",     "five",    "six",
        "seven", "eight", "nine",   "ten",      "eleven",   "twelve",  "thirteen",
        "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"};
    static const char *const tens[] = {"",      "ten",   "twenty",  "thirty", "forty",
                                       "fifty", "sixty", "seventy", "eighty", "ninety"};
    static const struct {
        int unit;
        const char *name;
    } parts[] = {{1000000, "million"}, {1000, "thousand"}, {100, "hundred"}};
    size_t at = 0;

    for (size_t p = 0; p < 3 && at < cap; p++) {
        if (i < parts[p].unit)
            continue;
        at += mix_words(i / parts[p].unit, out + at, cap - at); // NOLINT(misc-no-recursion): each is smaller
        if (at < cap)
            at += (size_t)snprintf(out + at, cap - at, " %s ", parts[p].name);
        i %= parts[p].unit;
    }
    if (i >= 20 && at < cap) {
        at += (size_t)snprintf(out + at, cap - at, "%s ", tens[i / 10]);
        i %= 10;
    }
    if (at < cap && (i > 0 || at == 0))
        at += (size_t)snprintf(out + at, cap - at, "%s", ones[i]);
    return at < cap ? at : cap;
}

static void
mix_sql(struct mix *m, const char *sql)
{
    if (sqlite3_exec(m->db, sql, NULL, NULL, NULL) != SQLITE_OK)
        m->die(sql, sqlite3_errmsg(m->db));
}

/* Run SQL TIMES times with ?1 = the turn, ?2 = the turn out of order, below N, ?3 its words. */
static void
mix_many(struct mix *m, const char *sql, int times)
{
    sqlite3_stmt *stmt = NULL;
    char words[200];
    int rc;

    if (sqlite3_prepare_v2(m->db, sql, -1, &stmt, NULL) != SQLITE_OK)
        m->die(sql, sqlite3_errmsg(m->db));
    for (int i = 1; i <= times; i++) {
        int other = mix_swizzle(i);

        (void)mix_words(other, words, sizeof(words));
        (void)sqlite3_bind_int(stmt, 1, i);
        (void)sqlite3_bind_int(stmt, 2, 1 + other % m->n);
        (void)sqlite3_bind_text(stmt, 3, words, -1, SQLITE_TRANSIENT);
        while ((rc = sqlite3_step(stmt)) == SQLITE_ROW)
            for (int c = 0; c < sqlite3_column_count(stmt); c++)
                m->sum += sqlite3_column_type(stmt, c) == SQLITE_TEXT
                              ? sqlite3_column_bytes(stmt, c)
                              : sqlite3_column_int64(stmt, c);
        if (rc != SQLITE_DONE)
            m->die(sql, sqlite3_errmsg(m->db));
        (void)sqlite3_reset(stmt);
    }
    (void)sqlite3_finalize(stmt);
}

static void
mix_section(struct mix *m, const char *sql, int times)
{
    mix_sql(m, "BEGIN");
    mix_many(m, sql, times);
    mix_sql(m, "COMMIT");
}

static void
mix_fill(struct mix *m)
{
    mix_sql(m, "CREATE TABLE z1(a INTEGER, b INTEGER, c TEXT);"
               "CREATE TABLE z2(a INTEGER PRIMARY KEY, b INTEGER, c TEXT);"
               "CREATE TABLE z3(a INTEGER, b INTEGER, c TEXT);"
               "CREATE INDEX z3b ON z3(b); CREATE INDEX z3c ON z3(c)");
    mix_section(m, "INSERT INTO z1 VALUES(?1, ?2, ?3)", m->n);
    mix_section(m, "INSERT INTO z2 VALUES(?1, ?2, ?3)", m->n);
    mix_section(m, "INSERT INTO z3 VALUES(?2, ?1, ?3)", m->n);
    mix_many(m, "INSERT INTO z1 VALUES(-?1, ?2, ?3)", 1 + m->n / 50); /* a commit each */
}

static void
mix_read(struct mix *m)
{
    int few = 1 + m->n / 100;

    mix_section(m, "SELECT count(*), avg(b), sum(length(c)) FROM z1 WHERE b BETWEEN ?2 AND ?2 + 100", few);
    mix_section(m, "SELECT count(*), avg(b) FROM z1 WHERE c LIKE '%' || substr(?3, 1, 4) || '%'", few);
    mix_section(m, "SELECT a, c FROM z1 WHERE c LIKE '%e%' ORDER BY c, a LIMIT 10", few);
    mix_sql(m, "BEGIN; CREATE UNIQUE INDEX z1a ON z1(a, b, c); CREATE INDEX z1b ON z1(b);"
               "CREATE INDEX z2c ON z2(c); COMMIT");
    mix_section(m, "SELECT count(*), avg(b) FROM z1 WHERE b BETWEEN ?2 AND ?2 + 10", m->n / 2 + 1);
    mix_section(m, "SELECT count(*), max(c) FROM z2 WHERE a BETWEEN ?2 AND ?2 + 10", m->n / 2 + 1);
    mix_section(m, "SELECT count(*), max(b) FROM z3 WHERE c BETWEEN ?3 AND ?3 || '~'", m->n / 2 + 1);
    mix_section(m, "SELECT c FROM z2 WHERE a = ?2", m->n);
    mix_section(m, "SELECT z1.c FROM z1, z2, z3 WHERE z1.a = ?2 AND z2.a = z1.b AND z3.b = z2.b", few);
    mix_section(m, "SELECT count(*) FROM z2 WHERE b IN (SELECT b FROM z3 WHERE a < ?2)", 2);
    mix_section(m, "SELECT a, b, c FROM z3 ORDER BY a DESC, c", 2);
    mix_section(m, "SELECT b % 10, count(*), sum(a) FROM z1 GROUP BY 1 ORDER BY 1", 2);
}

static void
mix_change(struct mix *m)
{
    int few = 1 + m->n / 100;

    mix_section(m, "UPDATE z2 SET b = b + 1 WHERE a BETWEEN ?2 AND ?2 + 10", m->n / 5 + 1);
    mix_section(m, "UPDATE z2 SET c = ?3 WHERE a = ?2", m->n);
    mix_many(m, "UPDATE z2 SET b = b + ?1 WHERE a = ?2", few);
    mix_section(m, "UPDATE z3 SET b = b + 7", 1);
    mix_sql(m, "ALTER TABLE z2 ADD COLUMN d DEFAULT 123");
    mix_section(m, "SELECT sum(d) FROM z2", 1);
    mix_section(m, "REPLACE INTO z2(a, b, c) VALUES(?2, ?1, ?3)", m->n / 2 + 1);
    mix_section(m, "DELETE FROM z2 WHERE a BETWEEN ?2 AND ?2 + 2", m->n / 20 + 1);
    mix_section(m, "DELETE FROM z2 WHERE a = ?2", m->n / 5 + 1);
    mix_many(m, "DELETE FROM z3 WHERE b = ?1 + 7", few);
    mix_section(m, "INSERT INTO z3 SELECT b, a, c FROM z1", 1);
    mix_section(m, "DELETE FROM z1", 1);
    mix_section(m, "INSERT INTO z1 SELECT a, b, c FROM z3", 1);
}

sqlite3_int64
mix_pass(sqlite3 *db, int n, void (*die)(const char *sql, const char *why))
{
    struct mix m = {.db = db, .n = n, .die = die};

    mix_fill(&m);
    mix_read(&m);
    mix_change(&m);
    mix_sql(&m, "VACUUM; ANALYZE");
    mix_many(&m, "PRAGMA integrity_check", 1);
    mix_many(&m, "SELECT (SELECT count(*) FROM z1) + 3 * (SELECT sum(b) FROM z2) + (SELECT sum(a) FROM z3)", 1);
    mix_sql(&m, "DROP TABLE z1; DROP TABLE z2; DROP TABLE z3; DROP TABLE IF EXISTS sqlite_stat1");
    return m.sum;
}
