/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_vfs_vfs.c - names, parameters, locks and controls of the VFS.
 */
#include "vfs_world.h"

static int
open_fails(const char *uri)
{
    sqlite3 *db = NULL;
    int rc = sqlite3_open_v2(uri, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI,
                             NULL);

    if (rc == SQLITE_OK) /* it may be found out with the first use */
        rc = world_run(db, "SELECT * FROM sqlite_schema");
    (void)sqlite3_close(db);
    return rc;
}

static void
name__plain_path__is_the_same_database(void **state)
{
    struct world *w = *state;
    sqlite3 *db = world_open(w, "a.db", "");
    sqlite3 *same = NULL;
    char path[128];

    world_sql(db, "CREATE TABLE t(x); INSERT INTO t VALUES(7)");
    (void)snprintf(path, sizeof(path), "%s/a.db", w->volume);
    assert_string_equal(sqlite3_db_filename(db, "main"), path);
    assert_int_equal(sqlite3_open_v2(path, &same, SQLITE_OPEN_READWRITE, "kvfs"), SQLITE_OK);
    assert_string_equal(world_text(same, "SELECT x FROM t"), "7");
    world_close(same);
    assert_int_equal(sqlite3_open_v2("a.db", &same, SQLITE_OPEN_READWRITE, "kvfs"), SQLITE_OK);
    assert_string_equal(world_text(same, "SELECT x FROM t"), "7"); /* the only volume open */
    world_close(same);
    world_close(db);
}

static void
name__nowhere__says_so(void **state)
{
    struct world *w = *state;
    char uri[200];

    assert_int_equal(open_fails("file:a.db?vfs=kvfs"), SQLITE_CANTOPEN);
    assert_non_null(strstr(kvfs_sqlite_error(), "KVFS_VOLUME"));
    (void)snprintf(uri, sizeof(uri), "file:a.db?vfs=kvfs&volume=%s/none", w->dir);
    assert_int_equal(open_fails(uri), SQLITE_CANTOPEN);
    assert_non_null(strstr(kvfs_sqlite_error(), "create=1"));
    (void)snprintf(uri, sizeof(uri), "file:a.db?vfs=kvfs&volume=%s&nolock=1", w->volume);
    assert_int_equal(open_fails(uri), SQLITE_CANTOPEN);
    (void)snprintf(uri, sizeof(uri), "file:a.db?vfs=kvfs&volume=%s&mode=rw", w->volume);
    assert_int_equal(open_fails(uri), SQLITE_CANTOPEN);
    (void)snprintf(uri, sizeof(uri), "file:a.db?vfs=kvfs&volume=%s&durability=some", w->volume);
    assert_int_equal(open_fails(uri), SQLITE_CANTOPEN);
}

static void
name__create__makes_the_volume(void **state)
{
    struct world *w = *state;
    char uri[200];
    sqlite3 *db = NULL;

    (void)snprintf(uri, sizeof(uri), "file:a.db?vfs=kvfs&volume=%s/new&create=1&engine=lmdb",
                   w->dir);
    assert_int_equal(sqlite3_open_v2(uri, &db,
                                     SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI,
                                     NULL),
                     SQLITE_OK);
    world_sql(db, "CREATE TABLE t(x)");
    world_close(db);
}

static void
name__shared_cache__two_volumes_stay_two(void **state)
{
    struct world *w = *state;
    struct world other = {0};
    sqlite3 *a;
    sqlite3 *b;

    (void)snprintf(other.volume, sizeof(other.volume), "%s/other", w->dir);
    a = world_open(w, "a.db", "&cache=shared");
    b = world_open(&other, "a.db", "&cache=shared&create=1");
    world_sql(a, "CREATE TABLE t(x)");
    assert_string_equal(world_text(b, "SELECT count(*) FROM sqlite_schema"), "0");
    world_close(b);
    world_close(a);
}

static void
lock__second_writer__is_busy_and_readers_go_on(void **state)
{
    struct world *w = *state;
    sqlite3 *a = world_open(w, "a.db", "");
    sqlite3 *b = world_open(w, "a.db", "");

    world_sql(a, "CREATE TABLE t(x); INSERT INTO t VALUES(1)");
    world_sql(a, "BEGIN EXCLUSIVE; INSERT INTO t VALUES(2)");
    assert_int_equal(world_run(b, "BEGIN IMMEDIATE"), SQLITE_BUSY);
    assert_string_equal(world_text(b, "SELECT count(*) FROM t"), "1");
    world_sql(a, "COMMIT");
    assert_string_equal(world_text(b, "SELECT count(*) FROM t"), "2");
    world_close(b);
    world_close(a);
}

static void
lock__snapshot_left_behind__is_busy_snapshot(void **state)
{
    struct world *w = *state;
    sqlite3 *a = world_open(w, "a.db", "");
    sqlite3 *b = world_open(w, "a.db", "");

    world_sql(a, "CREATE TABLE t(x); INSERT INTO t VALUES(1)");
    world_sql(b, "BEGIN");
    assert_string_equal(world_text(b, "SELECT count(*) FROM t"), "1");
    world_sql(a, "INSERT INTO t VALUES(2)");
    assert_string_equal(world_text(b, "SELECT count(*) FROM t"), "1");
    assert_int_equal(world_run(b, "INSERT INTO t VALUES(3)"), SQLITE_BUSY_SNAPSHOT);
    world_sql(b, "ROLLBACK");
    world_sql(b, "INSERT INTO t VALUES(3)");
    assert_string_equal(world_text(a, "SELECT group_concat(x) FROM t"), "1,2,3");
    world_close(b);
    world_close(a);
}

static void
lock__exclusive_mode__holds_writers_off_and_is_seen(void **state)
{
    struct world *w = *state;
    sqlite3 *a = world_open(w, "a.db", "");
    sqlite3 *b = world_open(w, "a.db", "");

    world_sql(a, "CREATE TABLE t(x)");
    assert_string_equal(world_text(b, "SELECT count(*) FROM t"), "0");
    world_sql(a, "PRAGMA locking_mode=EXCLUSIVE; SELECT * FROM t");
    assert_int_equal(world_run(b, "INSERT INTO t VALUES(9)"), SQLITE_BUSY);
    for (int i = 1; i <= 3; i++) { /* SQLite counts the changes only once */
        char expected[16];

        world_sql(a, "INSERT INTO t VALUES(1)");
        (void)snprintf(expected, sizeof(expected), "%d", i);
        assert_string_equal(world_text(b, "SELECT count(*) FROM t"), expected);
    }
    world_sql(a, "PRAGMA locking_mode=NORMAL; SELECT * FROM t");
    world_sql(b, "INSERT INTO t VALUES(9)");
    assert_string_equal(world_text(a, "SELECT count(*) FROM t"), "4");
    world_close(b);
    world_close(a);
}

static void
wal__exclusive_mode__is_never_stored(void **state)
{
    struct world *w = *state;
    sqlite3 *a = world_open(w, "a.db", "");

    world_sql(a, "CREATE TABLE t(x)");
    assert_string_equal(world_text(a, "PRAGMA journal_mode=wal"), "delete");
    world_sql(a, "PRAGMA locking_mode=EXCLUSIVE");
    assert_string_equal(world_text(a, "PRAGMA journal_mode=wal"), "delete");
    world_sql(a, "INSERT INTO t VALUES(1)");
    world_close(a);
    a = world_open(w, "a.db", "");
    assert_string_equal(world_text(a, "SELECT x FROM t"), "1");
    world_close(a);
}

static void
wal__backup_from_a_wal_database__opens(void **state)
{
    struct world *w = *state;
    sqlite3 *a = world_open(w, "a.db", "");
    sqlite3 *from = NULL;
    sqlite3_backup *backup;
    char path[128];

    (void)snprintf(path, sizeof(path), "%s/plain.db", w->dir);
    assert_int_equal(sqlite3_open(path, &from), SQLITE_OK);
    world_sql(from, "PRAGMA page_size=8192; PRAGMA journal_mode=wal; CREATE TABLE t(x);"
                    "INSERT INTO t VALUES(zeroblob(100000)), (5)");
    backup = sqlite3_backup_init(a, "main", from, "main");
    assert_non_null(backup);
    assert_int_equal(sqlite3_backup_step(backup, -1), SQLITE_DONE);
    assert_int_equal(sqlite3_backup_finish(backup), SQLITE_OK);
    assert_string_equal(world_text(a, "SELECT x FROM t WHERE rowid=2"), "5");
    world_close(from);
    world_close(a);
    a = world_open(w, "a.db", "");
    assert_string_equal(world_text(a, "PRAGMA integrity_check"), "ok");
    assert_string_equal(world_text(a, "PRAGMA page_size"), "8192");
    world_close(a);
}

static void
control__asked__answers(void **state)
{
    struct world *w = *state;
    sqlite3 *a = world_open(w, "a.db", "");
    struct kvfs_volume *v = NULL;
    char *name = NULL;
    int value = -1;

    world_sql(a, "CREATE TABLE t(x)");
    assert_int_equal(sqlite3_file_control(a, "main", SQLITE_FCNTL_VFSNAME, &name), SQLITE_OK);
    assert_string_equal(name, "kvfs");
    sqlite3_free(name);
    world_sql(a, "BEGIN IMMEDIATE");
    assert_int_equal(sqlite3_file_control(a, "main", SQLITE_FCNTL_LOCKSTATE, &value), SQLITE_OK);
    assert_int_equal(value, 2);
    world_sql(a, "COMMIT");
    assert_int_equal(sqlite3_file_control(a, "main", SQLITE_FCNTL_HAS_MOVED, &value), SQLITE_OK);
    assert_int_equal(value, 0);
    assert_int_equal(kvfs_volume_open(w->volume, NULL, &v, NULL), 0);
    assert_int_equal(kvfs_rename(v, KVFS_ROOT_INO, "a.db", KVFS_ROOT_INO, "b.db", 0, NULL), 0);
    assert_int_equal(sqlite3_file_control(a, "main", SQLITE_FCNTL_HAS_MOVED, &value), SQLITE_OK);
    assert_int_equal(value, 1);
    assert_int_equal(world_run(a, "INSERT INTO t VALUES(1)"), SQLITE_READONLY_DBMOVED);
    assert_int_equal(kvfs_volume_close(v, NULL), 0);
    world_close(a);
}

static void
lock__exclusive_mode_of_one__the_others_are_not_left_behind(void **state)
{
    struct world *w = *state;
    sqlite3 *a = world_open(w, "a.db", "");
    sqlite3 *b = world_open(w, "a.db", "");
    char sql[240];

    (void)snprintf(sql, sizeof(sql), "CREATE TABLE t(x); ATTACH '%s/x.db' AS x;"
                   "CREATE TABLE x.t(x);"
                   "PRAGMA x.locking_mode=exclusive; INSERT INTO x.t VALUES(1)", w->volume);
    world_sql(a, sql);
    world_sql(b, "INSERT INTO t VALUES(1)");
    assert_string_equal(world_text(a, "SELECT count(*) FROM main.t"), "1");
    world_sql(a, "BEGIN; INSERT INTO x.t VALUES(2)");
    world_sql(b, "INSERT INTO t VALUES(2)");
    assert_string_equal(world_text(a, "SELECT count(*) FROM main.t"), "2");
    world_sql(b, "INSERT INTO t VALUES(3)");
    assert_string_equal(world_text(a, "SELECT count(*) FROM main.t"), "2"); /* one transaction */
    assert_string_equal(world_text(a, "SELECT count(*) FROM x.t"), "2");
    world_sql(a, "COMMIT");
    assert_string_equal(world_text(a, "SELECT count(*) FROM main.t"), "3");
    world_sql(a, "INSERT INTO main.t SELECT x FROM x.t");
    assert_string_equal(world_text(b, "SELECT count(*) FROM t"), "5");
    world_close(b);
    world_close(a);
}

static void
immutable__others_commit__stays_at_its_instant(void **state)
{
    sqlite3 *writer = world_open(*state, "a.db", "");
    sqlite3 *db;

    world_sql(writer, "CREATE TABLE t(x); INSERT INTO t VALUES(1)");
    db = world_open(*state, "a.db", "&immutable=1");
    assert_string_equal(world_text(db, "SELECT count(*) FROM t"), "1");
    world_sql(writer, "INSERT INTO t VALUES(2); CREATE TABLE u(x)");
    assert_string_equal(world_text(db, "SELECT count(*) FROM t"), "1");
    assert_string_equal(world_text(db, "SELECT count(*) FROM sqlite_schema"), "1");
    world_sql(writer, "DELETE FROM t; DROP TABLE u; VACUUM");
    assert_string_equal(world_text(db, "SELECT count(*) FROM t"), "1");
    assert_string_equal(world_text(db, "PRAGMA integrity_check"), "ok");
    assert_int_equal(world_run(db, "INSERT INTO t VALUES(3)"), SQLITE_READONLY);
    world_close(db);
    world_close(writer);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(name__plain_path__is_the_same_database, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(name__nowhere__says_so, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(name__create__makes_the_volume, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(name__shared_cache__two_volumes_stay_two, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(lock__second_writer__is_busy_and_readers_go_on, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(lock__snapshot_left_behind__is_busy_snapshot, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(lock__exclusive_mode__holds_writers_off_and_is_seen,
                                        world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(wal__exclusive_mode__is_never_stored, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(wal__backup_from_a_wal_database__opens, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(lock__exclusive_mode_of_one__the_others_are_not_left_behind,
                                        world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(immutable__others_commit__stays_at_its_instant,
                                        world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(control__asked__answers, world_setup, world_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
