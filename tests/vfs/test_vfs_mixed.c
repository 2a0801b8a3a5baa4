/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_vfs_mixed.c - databases of a volume and ordinary ones in one transaction.  After a commit
 * that failed half way each of them, and each page cache, is as it was.
 */
#include "vfs_world.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

/* No file grows beyond BYTES; 0: as before. */
static void
bound_files(rlim_t bytes)
{
    static struct rlimit before;
    struct rlimit now;

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &now), 0);
    if (bytes > 0) {
        before = now;
        now.rlim_cur = bytes;
    } else {
        now = before;
    }
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &now), 0);
}

/* An ordinary main database, one of a volume, and a third whose commit fails: main rolls back
 * first and removes the super-journal, for which the second still asks. */
static void
mixed__third_member_fails__second_rolls_back_its_cache(void **state)
{
    struct world *w = *state;
    sqlite3 *other = world_open(w, "a.db", "");
    sqlite3 *db = NULL;
    char sql[300];
    struct stat st;

    world_sql(other, "CREATE TABLE t(x); INSERT INTO t VALUES('old')");
    (void)snprintf(sql, sizeof(sql), "file:%s/main.db?vfs=unix", w->dir);
    assert_int_equal(sqlite3_open_v2(sql, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE |
                                     SQLITE_OPEN_URI, NULL), SQLITE_OK);
    (void)snprintf(sql, sizeof(sql),
                   "ATTACH 'file:%s/a.db?vfs=kvfs' AS a; ATTACH 'file:%s/z.db?vfs=unix' AS z",
                   w->volume, w->dir);
    world_sql(db, sql);
    world_sql(db, "PRAGMA z.journal_mode=memory"); /* so that z's journal does not name the other */
    world_sql(db, "CREATE TABLE main.t(x); INSERT INTO main.t VALUES('old');"
                  "CREATE TABLE z.t(x); INSERT INTO z.t VALUES(zeroblob(3000000))");
    (void)snprintf(sql, sizeof(sql), "%s/z.db", w->dir);
    assert_int_equal(stat(sql, &st), 0);
    world_sql(db, "BEGIN; UPDATE main.t SET x = 'bad'; UPDATE a.t SET x = 'bad';"
                  "INSERT INTO z.t VALUES(zeroblob(500000))");
    (void)signal(SIGXFSZ, SIG_IGN);
    bound_files((rlim_t)st.st_size);
    assert_int_not_equal(world_run(db, "COMMIT"), SQLITE_OK);
    if (sqlite3_get_autocommit(db) == 0)
        (void)world_run(db, "ROLLBACK");
    bound_files(0);
    world_sql(other, "UPDATE t SET x = 'new'"); /* as many changes as the other had made */
    assert_string_equal(world_text(db, "SELECT x FROM a.t"), "new");
    assert_string_equal(world_text(db, "SELECT x FROM main.t"), "old");
    assert_string_equal(world_text(db, "SELECT count(*) FROM z.t"), "1");
    world_sql(db, "BEGIN; UPDATE main.t SET x = 'good'; UPDATE a.t SET x = 'good';"
                  "INSERT INTO z.t VALUES(1); COMMIT");
    assert_string_equal(world_text(other, "SELECT x FROM t"), "good");
    world_close(db);
    world_close(other);
}

/* What is said of the locking mode comes to the main database alone; the volume's has to learn
 * that its pager no longer unlocks. */
static void
exclusive__said_to_an_ordinary_main__every_commit_is_whole(void **state)
{
    struct world *w = *state;
    sqlite3 *other = world_open(w, "a.db", "");
    sqlite3 *db = NULL;
    char sql[300];

    world_sql(other, "CREATE TABLE t(x)");
    assert_int_equal(sqlite3_open_v2(":memory:", &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_URI, NULL),
                     SQLITE_OK);
    (void)snprintf(sql, sizeof(sql), "ATTACH 'file:%s/a.db?vfs=kvfs' AS a", w->volume);
    world_sql(db, sql);
    world_sql(db, "INSERT INTO a.t VALUES(1); INSERT INTO a.t VALUES(2)");
    world_sql(db, "PRAGMA locking_mode=EXCLUSIVE");
    for (int i = 3; i < 8; i++) {
        (void)snprintf(sql, sizeof(sql), "INSERT INTO a.t VALUES(%d)", i);
        world_sql(db, sql);
    }
    assert_int_equal(world_run(other, "INSERT INTO t VALUES(0)") & 0xff, SQLITE_BUSY);
    assert_string_equal(world_text(other, "SELECT group_concat(x, '') FROM t"), "1234567");
    world_sql(db, "PRAGMA locking_mode=NORMAL; SELECT * FROM a.t");
    world_close(db);
    world_sql(other, "INSERT INTO t VALUES(8)");
    assert_string_equal(world_text(other, "SELECT group_concat(x, '') FROM t"), "12345678");
    world_close(other);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(mixed__third_member_fails__second_rolls_back_its_cache,
                                        world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(exclusive__said_to_an_ordinary_main__every_commit_is_whole,
                                        world_setup, world_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
