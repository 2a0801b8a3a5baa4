/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_vfs_name.c - which database a name means, and what happens when the name goes.
 */
#include "vfs_world.h"

#include <errno.h>
#include <sys/stat.h>

#define FLAGS (SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI)

/* Open NAME with the VFS and nothing else said, ask and close. */
static const char *
ask(const char *name, const char *sql)
{
    sqlite3 *db = NULL;
    const char *text = "cannot be opened";

    if (sqlite3_open_v2(name, &db, FLAGS, "kvfs") == SQLITE_OK)
        text = world_text(db, sql);
    (void)sqlite3_close(db);
    return text;
}

/* A volume at DIR/NAME, with a database that says where it is. */
static void
volume_make(struct world *w, const char *name, const char *file, const char *mark, char path[200])
{
    struct kvfs_format_options options = {.engine = world_engine()};
    struct kvfs_error err = {0};
    char full[300], sql[300];
    sqlite3 *db = NULL;

    (void)snprintf(path, 200, "%s/%s", w->dir, name);
    if (kvfs_format(path, &options, &err) < 0 && err.code != -EEXIST)
        fail_msg("%s", err.msg);
    (void)snprintf(full, sizeof(full), "%s/%s", path, file);
    assert_int_equal(sqlite3_open_v2(full, &db, FLAGS, "kvfs"), SQLITE_OK);
    (void)snprintf(sql, sizeof(sql), "CREATE TABLE t(x); INSERT INTO t VALUES('%s')", mark);
    world_sql(db, sql);
    world_close(db);
}

static void
name__longest_prefix__wins(void **state)
{
    struct world *w = *state;
    struct kvfs_volume *v = NULL;
    char outer[200], inner[200], path[300];
    struct kvfs_create folder = {.mode = S_IFDIR | 0755};
    struct kvfs_attr attr;

    volume_make(w, "vol", "a.db", "outer", outer);
    assert_int_equal(kvfs_volume_open(w->volume, NULL, &v, NULL), 0);
    assert_int_equal(kvfs_create(v, KVFS_ROOT_INO, "in", &folder, &attr, NULL), 0);
    assert_int_equal(kvfs_volume_close(v, NULL), 0);
    (void)snprintf(path, sizeof(path), "%s/in/a.db", outer);
    assert_string_equal(ask(path, "CREATE TABLE outer(x)"), "error 101");
    volume_make(w, "vol/in", "a.db", "inner", inner); /* below the folder of another */
    assert_string_equal(ask(path, "SELECT x FROM t"), "inner");
    (void)snprintf(path, sizeof(path), "file:in/a.db?volume=%s", outer); /* unless it is named */
    assert_string_equal(ask(path, "SELECT name FROM sqlite_schema"), "outer");
    (void)snprintf(path, sizeof(path), "file:a.db?create=1&volume=%s/new", outer);
    assert_string_equal(ask(path, "SELECT 1"), "cannot be opened");
    assert_non_null(strstr(kvfs_sqlite_error(), "in the folder of the volume"));
}

static void
name__bare__is_in_the_environments_volume_or_the_only_one(void **state)
{
    struct world *w = *state;
    char a[200], b[200];
    sqlite3 *first, *second;

    volume_make(w, "a", "x.db", "in a", a);
    volume_make(w, "b", "x.db", "in b", b);
    assert_string_equal(ask("x.db", "SELECT x FROM t"), "cannot be opened");
    assert_non_null(strstr(kvfs_sqlite_error(), "KVFS_VOLUME"));
    assert_int_equal(sqlite3_open_v2(a, &first, FLAGS, "kvfs"), SQLITE_CANTOPEN); /* no file */
    assert_int_equal(sqlite3_close(first), SQLITE_OK);
    (void)snprintf(a + strlen(a), 20, "/x.db");
    (void)snprintf(b + strlen(b), 20, "/x.db");
    assert_int_equal(sqlite3_open_v2(a, &first, FLAGS, "kvfs"), SQLITE_OK);
    assert_string_equal(ask("x.db", "SELECT x FROM t"), "in a"); /* the only one that is open */
    world_sql(first, "ATTACH 'y.db' AS y; CREATE TABLE y.t(x)");
    assert_int_equal(sqlite3_open_v2(b, &second, FLAGS, "kvfs"), SQLITE_OK);
    assert_string_equal(ask("x.db", "SELECT x FROM t"), "cannot be opened"); /* two */
    assert_int_equal(world_run(second, "ATTACH 'y.db' AS y"), SQLITE_CANTOPEN);
    *strrchr(b, '/') = '\0';
    assert_int_equal(setenv("KVFS_VOLUME", b, 1), 0); // NOLINT(concurrency-mt-unsafe)
    assert_string_equal(ask("x.db", "SELECT x FROM t"), "in b");
    assert_string_equal(ask("/x.db", "SELECT x FROM t"), "cannot be opened"); /* absolute */
    assert_int_equal(setenv("KVFS_VOLUME", "/none", 1), 0); // NOLINT(concurrency-mt-unsafe)
    assert_string_equal(ask("x.db", "SELECT x FROM t"), "cannot be opened");
    assert_non_null(strstr(kvfs_sqlite_error(), "KVFS_VOLUME names /none"));
    assert_int_equal(unsetenv("KVFS_VOLUME"), 0); // NOLINT(concurrency-mt-unsafe)
    world_close(second);
    world_close(first);
}

static void
name__relative_path_and_links__are_the_same_database(void **state)
{
    struct world *w = *state;
    char path[200], link[200], uri[300];
    sqlite3 *db = NULL, *same = NULL;
    char *here = getcwd(NULL, 0);

    volume_make(w, "vol", "a.db", "one", path);
    (void)snprintf(link, sizeof(link), "%s/link", w->dir);
    assert_int_equal(symlink("vol", link), 0);
    assert_int_equal(chdir(w->dir), 0);
    assert_string_equal(ask("vol/a.db", "SELECT x FROM t"), "one");
    assert_string_equal(ask("link//./a.db", "SELECT x FROM t"), "one");
    assert_string_equal(ask("file:a.db?volume=vol", "SELECT x FROM t"), "one");
    assert_string_equal(ask("file:vol/../vol/a.db?volume=link", "SELECT x FROM t"),
                        "cannot be opened");
    /* One cache for both ways. */
    (void)snprintf(uri, sizeof(uri), "file:%s/a.db?cache=shared", link);
    assert_int_equal(sqlite3_open_v2(uri, &db, FLAGS, "kvfs"), SQLITE_OK);
    assert_int_equal(sqlite3_open_v2("file:vol/a.db?cache=shared", &same, FLAGS, "kvfs"), SQLITE_OK);
    world_sql(same, "PRAGMA read_uncommitted=1");
    world_sql(db, "BEGIN; UPDATE t SET x='not committed'");
    assert_string_equal(world_text(same, "SELECT x FROM t"), "not committed");
    world_sql(db, "ROLLBACK");
    world_close(same);
    world_close(db);
    assert_int_equal(chdir(here), 0);
    free(here);
}

/* Folders of 250 letters below the volume. */
static void
folders_make(struct world *w, char *path, size_t cap)
{
    const struct kvfs_create folder = {.mode = S_IFDIR | 0755};
    struct kvfs_volume *v = NULL;
    struct kvfs_attr attr = {.ino = KVFS_ROOT_INO};
    char name[201];

    memset(name, 'd', 200);
    name[200] = '\0';
    assert_int_equal(kvfs_volume_open(w->volume, NULL, &v, NULL), 0);
    (void)snprintf(path, cap, "%s", w->volume);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(kvfs_create(v, attr.ino, name, &folder, &attr, NULL), 0);
        (void)snprintf(path + strlen(path), cap - strlen(path), "/%s", name);
    }
    (void)snprintf(path + strlen(path), cap - strlen(path), "/");
    assert_int_equal(kvfs_volume_close(v, NULL), 0);
}

static void
name__as_long_as_can_be__works_and_one_more_is_refused(void **state)
{
    struct world *w = *state;
    char a[600], b[600], sql[700];
    sqlite3 *db = NULL;
    size_t len;

    folders_make(w, a, sizeof(a));
    len = strlen(a);
    memset(a + len, 'a', sizeof(a) - len);
    memcpy(b, a, sizeof(b));
    a[504] = b[504] = '\0'; /* SQLite wants room for "-journal" */
    b[503] = 'b';
    assert_int_equal(sqlite3_open_v2(a, &db, FLAGS, "kvfs"), SQLITE_OK);
    (void)snprintf(sql, sizeof(sql), "ATTACH '%s' AS b", b);
    world_sql(db, sql);
    world_sql(db, "PRAGMA cache_size=5; CREATE TABLE t(x); CREATE TABLE b.t(x);"
                  "BEGIN; INSERT INTO t VALUES(1); INSERT INTO b.t VALUES(1); COMMIT;"
                  "BEGIN; INSERT INTO t VALUES(zeroblob(100000)); INSERT INTO b.t VALUES(2); ROLLBACK");
    assert_string_equal(world_text(db, "SELECT (SELECT count(*) FROM t) || (SELECT count(*) FROM "
                                       "b.t)"), "11");
    world_close(db);
    for (size_t n = 505; n < 515; n++) {
        memset(a + len, 'a', sizeof(a) - len);
        a[n] = '\0';
        assert_string_equal(ask(a, "SELECT 1"), "cannot be opened");
    }
    memset(a + len, 'a', sizeof(a) - len);
    a[504] = '\0';
    assert_string_equal(ask(a, "SELECT count(*) FROM t"), "1");
}

static void
moved__removed_or_replaced__is_never_written(void **state)
{
    struct world *w = *state;
    struct kvfs_volume *v = NULL;
    sqlite3 *db = world_open(w, "a.db", ""), *next;
    sqlite3 *other = world_open(w, "b.db", "");
    int moved = 0;

    world_sql(db, "CREATE TABLE t(x); INSERT INTO t VALUES('first')");
    world_sql(other, "CREATE TABLE t(x); INSERT INTO t VALUES('other')");
    assert_int_equal(kvfs_volume_open(w->volume, NULL, &v, NULL), 0);
    assert_int_equal(kvfs_unlink(v, KVFS_ROOT_INO, "a.db", NULL), 0); /* kvfs rm */
    assert_int_equal(sqlite3_file_control(db, "main", SQLITE_FCNTL_HAS_MOVED, &moved), SQLITE_OK);
    assert_int_equal(moved, 1);
    assert_int_equal(world_run(db, "INSERT INTO t VALUES(2)"), SQLITE_READONLY_DBMOVED);
    assert_string_equal(world_text(db, "SELECT x FROM t"), "first"); /* it is open still */
    next = world_open(w, "a.db", ""); /* another of the same name */
    world_sql(next, "CREATE TABLE t(x); INSERT INTO t VALUES('second')");
    assert_int_equal(world_run(db, "INSERT INTO t VALUES(2)"), SQLITE_READONLY_DBMOVED);
    assert_string_equal(world_text(next, "SELECT group_concat(x) FROM t"), "second");
    assert_int_equal(kvfs_rename(v, KVFS_ROOT_INO, "b.db", KVFS_ROOT_INO, "a.db", 0, NULL), 0);
    assert_int_equal(world_run(next, "INSERT INTO t VALUES(2)"), SQLITE_READONLY_DBMOVED);
    assert_int_equal(world_run(other, "INSERT INTO t VALUES(2)"), SQLITE_READONLY_DBMOVED);
    world_close(other);
    world_close(next);
    world_close(db);
    db = world_open(w, "a.db", "");
    assert_string_equal(world_text(db, "SELECT group_concat(x) FROM t"), "other");
    /* Away and back again: it has not moved. */
    assert_int_equal(kvfs_rename(v, KVFS_ROOT_INO, "a.db", KVFS_ROOT_INO, "c.db", 0, NULL), 0);
    assert_int_equal(world_run(db, "INSERT INTO t VALUES(2)"), SQLITE_READONLY_DBMOVED);
    assert_int_equal(kvfs_rename(v, KVFS_ROOT_INO, "c.db", KVFS_ROOT_INO, "a.db", 0, NULL), 0);
    world_sql(db, "INSERT INTO t VALUES('again')");
    assert_string_equal(world_text(db, "SELECT group_concat(x) FROM t"), "other,again");
    world_close(db);
    assert_int_equal(kvfs_volume_close(v, NULL), 0);
}

static void
name__folder_that_is_missing__says_so(void **state)
{
    struct world *w = *state;
    char path[200];

    (void)snprintf(path, sizeof(path), "%s/no/such/a.db", w->volume);
    assert_string_equal(ask(path, "SELECT 1"), "cannot be opened");
    assert_non_null(strstr(kvfs_sqlite_error(), "no"));
    (void)snprintf(path, sizeof(path), "%s/../vol/../x.db", w->volume);
    assert_string_equal(ask(path, "SELECT 1"), "cannot be opened");
    (void)snprintf(path, sizeof(path), "file:a.db?create=1&volume=%s/new/", w->dir);
    assert_string_equal(ask(path, "CREATE TABLE t(x)"), "error 101");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(name__longest_prefix__wins),
        TEST(name__bare__is_in_the_environments_volume_or_the_only_one),
        TEST(name__relative_path_and_links__are_the_same_database),
        TEST(name__as_long_as_can_be__works_and_one_more_is_refused),
        TEST(moved__removed_or_replaced__is_never_written),
        TEST(name__folder_that_is_missing__says_so),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
