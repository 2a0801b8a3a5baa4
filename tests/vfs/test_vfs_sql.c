/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_vfs_sql.c - what applications do with a database: vacuum of several kinds, savepoints,
 * blobs, copies of all sorts, caches that are shared, modes that change nothing.
 */
#include "vfs_world.h"

#define ROWS(n) "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<" #n ") "

static void
attach(struct world *w, sqlite3 *db, const char *name)
{
    char sql[200];

    (void)snprintf(sql, sizeof(sql), "ATTACH '%s/%s.db' AS %s", w->volume, name, name);
    world_sql(db, sql);
}

/* SQL as printf() makes it, and its first column. */
static const char *text_of(sqlite3 *db, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static const char *
text_of(sqlite3 *db, const char *format, ...)
{
    char sql[400];
    va_list ap;

    va_start(ap, format);
    (void)vsnprintf(sql, sizeof(sql), format, ap);
    va_end(ap);
    return world_text(db, sql);
}

/* What is in the volume, not in somebody's cache. */
static void
check(struct world *w, const char *file, const char *sql, const char *expected)
{
    sqlite3 *db = world_open(w, file, "");

    assert_string_equal(world_text(db, "PRAGMA integrity_check"), "ok");
    assert_string_equal(world_text(db, sql), expected);
    world_close(db);
}

/* --- vacuum ----------------------------------------------------------------------- */

static void
auto_vacuum__in_a_transaction_of_three_files__shrinks_them_together(void **state)
{
    struct world *w = *state;

    for (int mode = 1; mode <= 2; mode++) { /* FULL, INCREMENTAL */
        static const char *const names[] = {"main", "b", "c"};
        sqlite3 *db = world_open(w, mode == 1 ? "full.db" : "incr.db", "");
        int pages[3];

        attach(w, db, "b");
        attach(w, db, "c");
        for (int i = 0; i < 3; i++) {
            char sql[400];

            (void)snprintf(sql, sizeof(sql), "PRAGMA %s.auto_vacuum=%d; VACUUM %s;"
                                             "CREATE TABLE %s.t%d(x);" ROWS(300)
                                             "INSERT INTO %s.t%d SELECT randomblob(3000) FROM n",
                           names[i], mode, names[i], names[i], mode, names[i], mode);
            world_sql(db, sql);
            (void)snprintf(sql, sizeof(sql), "PRAGMA %s.page_count", names[i]);
            pages[i] = atoi(world_text(db, sql)); // NOLINT(cert-err34-c)
        }
        world_sql(db, "PRAGMA cache_size=10; PRAGMA b.cache_size=10; BEGIN");
        for (int i = 0; i < 3; i++) {
            char sql[200];

            (void)snprintf(sql, sizeof(sql), "DELETE FROM %s.t%d WHERE rowid > 20;"
                                             "PRAGMA %s.incremental_vacuum",
                           names[i], mode, names[i]);
            world_sql(db, sql);
        }
        world_sql(db, mode == 1 ? "ROLLBACK" : "COMMIT");
        if (mode == 1)
            world_sql(db, "BEGIN; DELETE FROM t1 WHERE rowid > 20; DELETE FROM b.t1 WHERE rowid > 20;"
                          "DELETE FROM c.t1 WHERE rowid > 20; COMMIT");
        for (int i = 0; i < 3; i++) {
            char sql[64];

            (void)snprintf(sql, sizeof(sql), "PRAGMA %s.page_count", names[i]);
            assert_true(atoi(world_text(db, sql)) < pages[i] / 4); // NOLINT(cert-err34-c)
        }
        world_close(db);
        check(w, mode == 1 ? "full.db" : "incr.db", mode == 1 ? "SELECT count(*) FROM t1"
                                                               : "SELECT count(*) FROM t2", "20");
    }
    check(w, "b.db", "SELECT (SELECT count(*) FROM t1) || (SELECT count(*) FROM t2)", "2020");
    check(w, "c.db", "SELECT (SELECT count(*) FROM t1) || (SELECT count(*) FROM t2)", "2020");
}

static void
vacuum__reserved_bytes__are_kept(void **state)
{
    struct world *w = *state;
    sqlite3 *db = world_open(w, "a.db", "");
    int reserve = 32;

    assert_int_equal(sqlite3_file_control(db, "main", SQLITE_FCNTL_RESERVE_BYTES, &reserve),
                     SQLITE_OK);
    world_sql(db, "CREATE TABLE t(x);" ROWS(100) "INSERT INTO t SELECT randomblob(3000) FROM n;"
                  "PRAGMA page_size=1024; VACUUM");
    world_close(db);
    db = world_open(w, "a.db", "");
    reserve = -1;
    assert_string_equal(world_text(db, "SELECT sum(length(x)) FROM t"), "300000");
    assert_int_equal(sqlite3_file_control(db, "main", SQLITE_FCNTL_RESERVE_BYTES, &reserve),
                     SQLITE_OK);
    assert_int_equal(reserve, 32);
    world_close(db);
    check(w, "a.db", "PRAGMA page_size", "1024");
}

static void
vacuum__while_another_reads__leaves_it_its_state(void **state)
{
    struct world *w = *state;
    sqlite3 *db = world_open(w, "a.db", "");
    sqlite3 *reader = world_open(w, "a.db", "");
    const char *sum = "SELECT count(*) || ' ' || sum(length(x)) FROM t";

    world_sql(db, "CREATE TABLE t(x);" ROWS(500) "INSERT INTO t SELECT randomblob(2000) FROM n");
    world_sql(reader, "PRAGMA cache_size=5; BEGIN");
    assert_string_equal(world_text(reader, sum), "500 1000000");
    world_sql(db, "DELETE FROM t WHERE rowid > 5; PRAGMA page_size=8192; VACUUM");
    assert_string_equal(world_text(reader, "SELECT count(*) || ' ' || sum(length(x)) FROM t"),
                        "500 1000000"); /* a page cache of 5: from the snapshot */
    assert_string_equal(world_text(reader, "PRAGMA integrity_check"), "ok");
    world_sql(reader, "COMMIT");
    assert_string_equal(world_text(reader, sum), "5 10000");
    assert_string_equal(world_text(reader, "PRAGMA page_size"), "8192");
    world_close(reader);
    world_close(db);
}

static void
vacuum_into__other_page_size__is_another_database(void **state)
{
    struct world *w = *state;
    sqlite3 *db = world_open(w, "a.db", "");
    char sql[200];

    world_sql(db, "CREATE TABLE t(x); INSERT INTO t VALUES(randomblob(100000)); PRAGMA page_size=512");
    (void)snprintf(sql, sizeof(sql), "VACUUM INTO '%s/into.db'", w->volume);
    world_sql(db, sql);
    assert_int_not_equal(world_run(db, sql), SQLITE_OK); /* there is one by now */
    check(w, "into.db", "PRAGMA page_size", "512");
    check(w, "into.db", "SELECT sum(length(x)) FROM t", "100000");
    (void)snprintf(sql, sizeof(sql), "VACUUM INTO 'file:%s/plain.db?vfs=unix'", w->dir);
    world_sql(db, sql);
    world_close(db);
}

/* --- savepoints --------------------------------------------------------------------- */

static void
savepoint__nested_after_spills__each_goes_back_to_itself(void **state)
{
    struct world *w = *state;
    sqlite3 *db = world_open(w, "a.db", "");
    const char *sum = "SELECT count(*) || ' ' || sum(id) || ' ' || sum(length(x)) FROM t";
    char at[5][80];

    world_sql(db, "PRAGMA cache_size=10; CREATE TABLE t(id INTEGER PRIMARY KEY, x);" ROWS(200)
                  "INSERT INTO t SELECT i, zeroblob(900) FROM n; BEGIN");
    for (int i = 0; i < 5; i++) {
        (void)snprintf(at[i], sizeof(at[i]), "%s", world_text(db, sum));
        (void)text_of(db, "SAVEPOINT s%d", i);
        (void)text_of(db, "UPDATE t SET x = randomblob(1000 + 100 * %d)", i);
        (void)text_of(db, "DELETE FROM t WHERE id %% 7 = %d", i);
        if (i % 2 == 0)
            assert_int_equal(sqlite3_db_cacheflush(db), SQLITE_OK);
    }
    world_sql(db, "RELEASE s4");
    for (int i = 3; i >= 1; i--) {
        (void)text_of(db, "ROLLBACK TO s%d", i);
        assert_string_equal(world_text(db, sum), at[i]);
        assert_int_equal(sqlite3_db_cacheflush(db), SQLITE_OK);
        assert_string_equal(world_text(db, "PRAGMA integrity_check"), "ok");
    }
    world_sql(db, "COMMIT");
    world_close(db);
    check(w, "a.db", sum, at[1]);
}

/* --- incremental blobs ----------------------------------------------------------------- */

static void
blob__written_in_pieces__is_in_the_transaction(void **state)
{
    struct world *w = *state;
    sqlite3 *db = world_open(w, "a.db", "");
    sqlite3 *other = world_open(w, "a.db", "");
    sqlite3_blob *blob = NULL;
    char piece[10000], back[10000];

    attach(w, db, "b");
    world_sql(db, "CREATE TABLE t(x); INSERT INTO t VALUES(zeroblob(3000000));"
                  "CREATE TABLE b.u(x); INSERT INTO b.u VALUES(zeroblob(100000))");
    world_sql(db, "PRAGMA cache_size=10; BEGIN");
    assert_int_equal(sqlite3_blob_open(db, "main", "t", "x", 1, 1, &blob), SQLITE_OK);
    for (int i = 0; i < 300; i++) {
        memset(piece, i, sizeof(piece));
        assert_int_equal(sqlite3_blob_write(blob, piece, sizeof(piece), i * 10000), SQLITE_OK);
    }
    assert_int_equal(sqlite3_blob_read(blob, back, sizeof(back), 2000000), SQLITE_OK);
    assert_int_equal(back[5], (char)200);
    assert_int_equal(sqlite3_blob_close(blob), SQLITE_OK);
    assert_string_equal(world_text(other, "SELECT hex(substr(x, 2000001, 2)) FROM t"), "0000");
    world_sql(db, "COMMIT");
    assert_string_equal(world_text(other, "SELECT hex(substr(x, 2000001, 2)) FROM t"), "C8C8");

    /* A handle that outlives another's commit has to be opened again. */
    assert_int_equal(sqlite3_blob_open(db, "b", "u", "x", 1, 1, &blob), SQLITE_OK);
    assert_int_equal(sqlite3_blob_write(blob, "hello", 5, 70000), SQLITE_OK);
    world_sql(db, "UPDATE b.u SET x = zeroblob(5)");
    assert_int_equal(sqlite3_blob_write(blob, "hello", 5, 0), SQLITE_ABORT);
    assert_int_not_equal(sqlite3_blob_close(blob), SQLITE_BUSY);
    world_close(other);
    world_close(db);
    check(w, "b.db", "SELECT hex(x) FROM u", "0000000000");
}

/* --- copies ---------------------------------------------------------------------------- */

static void
backup(sqlite3 *to, sqlite3 *from, int step)
{
    sqlite3_backup *b = sqlite3_backup_init(to, "main", from, "main");
    int rc;

    assert_non_null(b);
    while ((rc = sqlite3_backup_step(b, step)) == SQLITE_OK) {
    }
    assert_int_equal(rc, SQLITE_DONE);
    assert_int_equal(sqlite3_backup_finish(b), SQLITE_OK);
}

static void
backup__as_destination__takes_any_page_size(void **state)
{
    static const int sizes[] = {512, 4096, 65536};
    struct world *w = *state;

    for (int to = 0; to < 3; to++) {
        for (int from = 0; from < 3; from++) {
            char name[40];
            sqlite3 *a;
            sqlite3 *b = NULL;

            (void)snprintf(name, sizeof(name), "to%d-%d.db", to, from);
            a = world_open(w, name, "");
            (void)text_of(a, "PRAGMA page_size=%d", sizes[to]);
            world_sql(a, "CREATE TABLE old(x); INSERT INTO old VALUES(zeroblob(300000))");
            assert_int_equal(sqlite3_open(":memory:", &b), SQLITE_OK);
            (void)text_of(b, "PRAGMA page_size=%d", sizes[from]);
            world_sql(b, "CREATE TABLE t(x);" ROWS(100) "INSERT INTO t SELECT randomblob(1000) FROM n");
            backup(a, b, 7);
            world_close(b);
            assert_string_equal(world_text(a, "SELECT count(*) FROM t"), "100");
            world_sql(a, "INSERT INTO t VALUES(1)");
            world_close(a);
            check(w, name, "SELECT count(*) || (SELECT count(*) FROM sqlite_schema) FROM t", "1011");
        }
    }
}

static void
backup__as_source__is_one_instant_though_writers_commit(void **state)
{
    struct world *w = *state;
    sqlite3 *db = world_open(w, "a.db", "");
    sqlite3 *writer = world_open(w, "a.db", "");
    sqlite3 *to = world_open(w, "copy.db", "");
    sqlite3_backup *b;
    int commits = 0;
    int rc;

    /* Each commit keeps the sums of both tables equal. */
    world_sql(db, "CREATE TABLE t(x, y); CREATE TABLE u(x, y);" ROWS(300)
                  "INSERT INTO t SELECT i, randomblob(2000) FROM n; INSERT INTO u SELECT * FROM t");
    b = sqlite3_backup_init(to, "main", db, "main");
    assert_non_null(b);
    while ((rc = sqlite3_backup_step(b, 20)) == SQLITE_OK) {
        if (commits < 6)
            world_sql(commits % 2 == 0 ? writer : db,
                      "BEGIN; UPDATE t SET x=x+1; UPDATE u SET x=x+1; COMMIT");
        commits++;
    }
    assert_int_equal(rc, SQLITE_DONE);
    assert_true(commits > 6);
    assert_int_equal(sqlite3_backup_finish(b), SQLITE_OK);
    assert_string_equal(world_text(to, "SELECT (SELECT sum(x) FROM t) = (SELECT sum(x) FROM u)"),
                        "1");
    world_close(to);
    world_close(writer);
    world_close(db);
    check(w, "copy.db", "SELECT count(*) FROM u", "300");
}

static void
serialize__and_back__is_the_same(void **state)
{
    struct world *w = *state;
    sqlite3 *db = world_open(w, "a.db", "");
    sqlite3 *memory = NULL;
    sqlite3_int64 size = 0;
    unsigned char *bytes;

    world_sql(db, "PRAGMA page_size=1024; CREATE TABLE t(x);" ROWS(200)
                  "INSERT INTO t SELECT printf('%0500d', i) FROM n");
    world_sql(db, "BEGIN; INSERT INTO t VALUES('not committed')"); /* it is in, too */
    bytes = sqlite3_serialize(db, "main", &size, 0);
    assert_non_null(bytes);
    world_sql(db, "ROLLBACK");
    assert_int_equal(sqlite3_open(":memory:", &memory), SQLITE_OK);
    assert_int_equal(sqlite3_deserialize(memory, "main", bytes, size, size,
                                         SQLITE_DESERIALIZE_FREEONCLOSE |
                                             SQLITE_DESERIALIZE_RESIZEABLE), SQLITE_OK);
    assert_string_equal(world_text(memory, "SELECT count(*) FROM t"), "201");
    world_sql(memory, "DELETE FROM t WHERE rowid % 2");
    backup(db, memory, -1);
    world_close(memory);
    world_close(db);
    check(w, "a.db", "SELECT count(*) FROM t", "100");

    /* A connection whose database came from the volume, then from memory: the volume's stays. */
    db = world_open(w, "a.db", "");
    bytes = sqlite3_serialize(db, "main", &size, 0);
    assert_non_null(bytes);
    assert_int_equal(sqlite3_deserialize(db, "main", bytes, size, size,
                                         SQLITE_DESERIALIZE_FREEONCLOSE), SQLITE_OK);
    world_sql(db, "DELETE FROM t");
    world_close(db);
    check(w, "a.db", "SELECT count(*) FROM t", "100");
}

/* --- modes ------------------------------------------------------------------------------- */

static void
modes__all_of_them__commit_and_roll_back(void **state)
{
    static const char *const journals[] = {"delete", "truncate", "persist", "memory", "wal"};
    struct world *w = *state;
    int rows = 0;

    for (unsigned mode = 0; mode < 5 * 4 * 2; mode++) {
        sqlite3 *db = world_open(w, "a.db", "");
        sqlite3 *other = world_open(w, "a.db", "");
        char sql[400], expected[16];

        attach(w, db, "b");
        (void)snprintf(sql, sizeof(sql),
                       "PRAGMA locking_mode=%s; PRAGMA journal_mode=%s; PRAGMA b.journal_mode=%s;"
                       "PRAGMA synchronous=%u; PRAGMA b.synchronous=%u; PRAGMA journal_size_limit=%d;"
                       "CREATE TABLE IF NOT EXISTS t(x); CREATE TABLE IF NOT EXISTS b.t(x)",
                       mode / 20 == 0 ? "normal" : "exclusive", journals[mode % 5],
                       journals[(mode + 1) % 5], mode / 5 % 4, mode / 5 % 4,
                       mode % 2 == 0 ? 0 : 4096);
        world_sql(db, sql);
        world_sql(db, "PRAGMA cache_size=5; BEGIN; INSERT INTO t VALUES(1); INSERT INTO b.t VALUES(1);"
                      "COMMIT; BEGIN; INSERT INTO t SELECT zeroblob(30000) FROM t, t LIMIT 50;"
                      "INSERT INTO b.t SELECT x FROM t; ROLLBACK; INSERT INTO t VALUES(2)");
        rows += 2;
        (void)snprintf(expected, sizeof(expected), "%d", rows);
        assert_string_equal(world_text(other, "SELECT count(*) FROM t"), expected);
        world_close(other);
        world_close(db);
    }
    check(w, "a.db", "SELECT count(*) || ' ' || sum(length(x)) FROM t", "80 80");
    check(w, "b.db", "SELECT count(*) FROM t", "40");
}

static void
journal_mode__off__commits(void **state)
{
    struct world *w = *state;
    sqlite3 *db = world_open(w, "a.db", "");

    world_sql(db, "PRAGMA journal_mode=off; CREATE TABLE t(x);" ROWS(500)
                  "INSERT INTO t SELECT randomblob(500) FROM n; UPDATE t SET x = 1");
    world_close(db);
    check(w, "a.db", "SELECT sum(x) FROM t", "500");
}

/* --- shared cache ------------------------------------------------------------------------ */

static void
shared_cache__read_uncommitted__sees_and_unsees(void **state)
{
    struct world *w = *state;
    sqlite3 *a = world_open(w, "a.db", "&cache=shared");
    sqlite3 *b = world_open(w, "a.db", "&cache=shared");
    sqlite3 *outside = world_open(w, "a.db", "");

    attach(w, a, "other");
    world_sql(a, "PRAGMA cache_size=10; CREATE TABLE t(x); CREATE TABLE other.t(x);"
                 "INSERT INTO t VALUES(1)");
    world_sql(b, "SELECT * FROM t; PRAGMA read_uncommitted=1");
    world_sql(a, "BEGIN; INSERT INTO other.t VALUES(1);" ROWS(300)
                 "INSERT INTO t SELECT randomblob(1000) FROM n");
    assert_string_equal(world_text(b, "SELECT count(*) FROM t"), "301");
    assert_string_equal(world_text(outside, "SELECT count(*) FROM t"), "1");
    assert_int_equal(world_run(b, "INSERT INTO t VALUES(2)") & 0xff, SQLITE_LOCKED);
    world_sql(a, "ROLLBACK");
    assert_string_equal(world_text(b, "SELECT count(*) FROM t"), "1");
    world_sql(b, "PRAGMA read_uncommitted=0; BEGIN; INSERT INTO t VALUES(2)");
    assert_int_equal(world_run(a, "SELECT * FROM t") & 0xff, SQLITE_LOCKED);
    world_sql(b, "COMMIT");
    world_sql(outside, "INSERT INTO t VALUES(3)");
    assert_string_equal(world_text(a, "SELECT count(*) FROM t"), "3");
    world_sql(a, "BEGIN; INSERT INTO t VALUES(4); INSERT INTO other.t VALUES(4); COMMIT");
    world_close(a); /* the cache lives on in b */
    world_sql(b, "INSERT INTO t VALUES(5)");
    assert_string_equal(world_text(outside, "SELECT count(*) FROM t"), "5");
    world_close(outside);
    world_close(b);
    check(w, "other.db", "SELECT count(*) FROM t", "1");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(auto_vacuum__in_a_transaction_of_three_files__shrinks_them_together),
        TEST(vacuum__reserved_bytes__are_kept),
        TEST(vacuum__while_another_reads__leaves_it_its_state),
        TEST(vacuum_into__other_page_size__is_another_database),
        TEST(savepoint__nested_after_spills__each_goes_back_to_itself),
        TEST(blob__written_in_pieces__is_in_the_transaction),
        TEST(backup__as_destination__takes_any_page_size),
        TEST(backup__as_source__is_one_instant_though_writers_commit),
        TEST(serialize__and_back__is_the_same),
        TEST(modes__all_of_them__commit_and_roll_back),
        TEST(journal_mode__off__commits),
        TEST(shared_cache__read_uncommitted__sees_and_unsees),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
