/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_vfs_space.c - a full volume: what does not fit is refused and rolled back, deletes get
 * through, and what they free is of use.
 */
#include "vfs_world.h"

#define STORE_BYTES ((uint64_t)24 << 20)

struct full {
    struct kvfs_volume *v; /* keeps the limit, and the volume open */
    sqlite3 *db;
    int rows; /* committed ones of t */
};

static void
full_open(struct world *w, struct full *full, const char *pragmas)
{
    struct kvfs_volume_options options = {.store_max_bytes = STORE_BYTES};

    memset(full, 0, sizeof(*full));
    if (kvfs_volume_open(w->volume, &options, &full->v, NULL) < 0)
        skip(); /* an engine that is larger from the start */
    full->db = world_open(w, "a.db", "");
    world_sql(full->db, "PRAGMA synchronous=OFF"); /* thousands of commits */
    world_sql(full->db, pragmas);
    world_sql(full->db, "CREATE TABLE t(id INTEGER PRIMARY KEY, x); CREATE TABLE u(x)");
}

static void
full_close(struct full *full)
{
    world_close(full->db);
    assert_int_equal(kvfs_volume_close(full->v, NULL), 0);
}

/* Rows of SIZE until one is refused; those of before are as many as were accepted. */
static void
full_fill(struct full *full, int size)
{
    char sql[100];
    char expected[32];
    int rc = SQLITE_OK;
    int rows = 0;

    (void)snprintf(sql, sizeof(sql), "INSERT INTO t(x) VALUES(randomblob(%d))", size);
    while ((rc = world_run(full->db, sql)) == SQLITE_OK) {
        if (++rows * (uint64_t)size > 4 * STORE_BYTES) { /* an engine that knows no such bound */
            full_close(full);
            skip();
        }
    }
    assert_int_equal(rc, SQLITE_FULL);
    full->rows += rows;
    (void)snprintf(expected, sizeof(expected), "%d", full->rows);
    assert_string_equal(world_text(full->db, "SELECT count(*) FROM t"), expected);
}

static void
full_work(const struct full *full)
{
    int rc;

    while ((rc = kvfs_volume_work(full->v, 100, NULL)) == 1) { /* space comes back */
    }
    assert_int_equal(rc, 0);
}

/* SQL that LMDB has kept room for.  Other engines find room again only later: SQLite's log
 * is not begun anew while somebody reads, RocksDB and the others first compact.  They may refuse. */
static void
full_sql(struct full *full, const char *sql)
{
    int rc = world_run(full->db, sql);

    if (rc == SQLITE_FULL && strstr(world_engine(), "lmdb") != world_engine() &&
        strcmp(world_engine(), "log:lmdb") != 0)
        return;
    if (rc != SQLITE_OK)
        fail_msg("%s: %d %s: %s", sql, rc, sqlite3_errmsg(full->db), kvfs_sqlite_error());
}

static void
full_empty_and_fill(struct full *full)
{
    full_sql(full, "DROP TABLE u");
    full_sql(full, "DELETE FROM t");
    assert_string_equal(world_text(full->db, "PRAGMA integrity_check"), "ok");
    full_work(full);
    full_sql(full, "VACUUM");
    full_work(full);
    full->rows = (int)strtol(world_text(full->db, "SELECT count(*) FROM t"), NULL, 10);
    full_fill(full, 500000); /* and so again */
    full_sql(full, "DROP TABLE t");
    assert_string_equal(world_text(full->db, "PRAGMA integrity_check"), "ok");
    full_close(full);
}

static void
deletes_get_through(struct world *w, const char *pragmas)
{
    struct full full;

    full_open(w, &full, pragmas);
    world_sql(full.db, "INSERT INTO u SELECT randomblob(100000)");
    full_fill(&full, 500000);
    full_fill(&full, 20000);
    full_fill(&full, 2000);
    full_sql(&full, "DELETE FROM t WHERE id % 2 = 0 AND id < 20");
    full_sql(&full, "DELETE FROM t WHERE id < 30");
    full_empty_and_fill(&full);
}

static void
full__deletes__get_through(void **state)
{
    deletes_get_through(*state, "PRAGMA secure_delete=ON");
}

static void
full__deletes_that_leave_bytes__get_through(void **state)
{
    deletes_get_through(*state, "PRAGMA secure_delete=OFF");
}

/* Here a delete moves pages, so only what lies at the end, or all of it, goes for little. */
static void
full__deletes_with_auto_vacuum__get_through(void **state)
{
    struct full full;

    full_open(*state, &full, "PRAGMA auto_vacuum=FULL");
    world_sql(full.db, "INSERT INTO u SELECT randomblob(100000)");
    full_fill(&full, 500000);
    full_fill(&full, 2000);
    full_empty_and_fill(&full);
}

/* Refused before the commit point, SQLite rolls back in peace: a statement that is being read
 * goes on, also where pages had been spilled. */
static void
full__open_statement__reads_on(void **state)
{
    struct full full;
    sqlite3_stmt *stmt = NULL;
    int rows = 1;

    full_open(*state, &full, "PRAGMA cache_size=10");
    full_fill(&full, 100000);
    assert_int_equal(sqlite3_prepare_v2(full.db, "SELECT x FROM t", -1, &stmt, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(world_run(full.db, "INSERT INTO u VALUES(randomblob(3000000))"),
                         SQLITE_FULL);
        assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
        /* What is rolled back here has as many pages as the commit had. */
        assert_int_equal(world_run(full.db, "UPDATE t SET x=randomblob(100000)"), SQLITE_FULL);
        assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
        rows += 2;
    }
    while (sqlite3_step(stmt) == SQLITE_ROW)
        rows++;
    assert_int_equal(sqlite3_reset(stmt), SQLITE_OK);
    (void)sqlite3_finalize(stmt);
    assert_int_equal(rows, full.rows);
    assert_string_equal(world_text(full.db, "PRAGMA integrity_check"), "ok");
    full_close(&full);
}

/* Three files: all or none of it. */
static void
full__three_files__none_changes(void **state)
{
    struct world *w = *state;
    struct full full;
    char sql[200];
    int rc = SQLITE_OK;
    int done = 0;

    full_open(w, &full, "PRAGMA cache_size=10");
    (void)snprintf(sql, sizeof(sql), "ATTACH '%s/b.db' AS b; ATTACH '%s/c.db' AS c", w->volume,
                   w->volume);
    world_sql(full.db, sql);
    world_sql(full.db, "CREATE TABLE b.t(x); CREATE TABLE c.t(x)");
    while (rc == SQLITE_OK && done < 1000) {
        rc = world_run(full.db, "BEGIN; INSERT INTO t(x) VALUES(randomblob(300000));"
                                "INSERT INTO b.t VALUES(randomblob(300000));"
                                "INSERT INTO c.t VALUES(randomblob(300000)); COMMIT");
        done += rc == SQLITE_OK;
    }
    if (rc == SQLITE_OK) {
        full_close(&full);
        skip();
    }
    assert_int_equal(rc, SQLITE_FULL);
    (void)world_run(full.db, "ROLLBACK");
    (void)snprintf(sql, sizeof(sql), "%d|%d|%d", done, done, done);
    assert_string_equal(world_text(full.db, "SELECT (SELECT count(*) FROM main.t) || '|' || "
                                            "(SELECT count(*) FROM b.t) || '|' || "
                                            "(SELECT count(*) FROM c.t)"), sql);
    full_sql(&full, "DELETE FROM main.t; DELETE FROM b.t; DELETE FROM c.t");
    full_work(&full);
    full_sql(&full, "BEGIN; INSERT INTO t(x) VALUES(1); INSERT INTO b.t VALUES(1);"
                     "INSERT INTO c.t VALUES(1); COMMIT");
    (void)world_run(full.db, "ROLLBACK");
    full_close(&full);
}

/* One transaction that is larger than the store, in the core's fresh fork by the time it fails. */
static void
full__one_large_transaction__leaves_no_trace(void **state)
{
    struct full full;

    full_open(*state, &full, "PRAGMA cache_size=10");
    world_sql(full.db, "INSERT INTO t(x) VALUES(randomblob(300000))");
    full.rows = 1;
    for (int i = 0; i < 3; i++) {
        int rc = world_run(full.db,
                           "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE "
                           "i<60) INSERT INTO t(x) SELECT randomblob(500000) FROM n");

        if (rc == SQLITE_OK) { /* an engine that knows no such bound */
            full_close(&full);
            skip();
        }
        assert_int_equal(rc, SQLITE_FULL);
        assert_string_equal(world_text(full.db, "SELECT count(*) FROM t"), "1");
        full_work(&full);
    }
    full_sql(&full, "INSERT INTO t(x) VALUES(randomblob(5000000))");
    assert_string_equal(world_text(full.db, "PRAGMA integrity_check"), "ok");
    full_close(&full);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(full__deletes__get_through, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(full__deletes_that_leave_bytes__get_through, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(full__deletes_with_auto_vacuum__get_through, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(full__open_statement__reads_on, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(full__three_files__none_changes, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(full__one_large_transaction__leaves_no_trace, world_setup,
                                        world_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
