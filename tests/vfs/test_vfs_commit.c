/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_vfs_commit.c - one transaction is one commit: of one file, of several, rolled back,
 * spilled, vacuumed.
 */
#include "vfs_world.h"

#include <pthread.h>

/* Commits of the volume so far. */
static uint64_t
commits(struct world *w)
{
    struct kvfs_volume_stat st;
    struct kvfs_volume *v = NULL;

    assert_int_equal(kvfs_volume_open(w->volume, NULL, &v, NULL), 0);
    assert_int_equal(kvfs_volume_stat(v, &st, NULL), 0);
    assert_int_equal(kvfs_volume_close(v, NULL), 0);
    return st.commits;
}

static void
commit__one_row__is_one_commit(void **state)
{
    struct world *w = *state;
    sqlite3 *db = world_open(w, "a.db", "");
    uint64_t before;

    world_sql(db, "CREATE TABLE t(x)");
    before = commits(w);
    world_sql(db, "INSERT INTO t VALUES(1)");
    assert_int_equal(commits(w), before + 1);
    world_sql(db, "BEGIN IMMEDIATE; COMMIT"); /* nothing changed: nothing is committed */
    assert_int_equal(commits(w), before + 1);
    world_sql(db, "BEGIN; INSERT INTO t VALUES(2); ROLLBACK");
    assert_int_equal(commits(w), before + 1);
    assert_string_equal(world_text(db, "SELECT count(*) FROM t"), "1");
    world_close(db);
}

static void
commit__attached__is_one_commit(void **state)
{
    struct world *w = *state;
    sqlite3 *db = world_open(w, "a.db", "");
    uint64_t before;
    char sql[200];

    (void)snprintf(sql, sizeof(sql), "ATTACH '%s/b.db' AS b; ATTACH '%s/c.db' AS c", w->volume,
                   w->volume);
    world_sql(db, sql);
    world_sql(db, "CREATE TABLE t(x); CREATE TABLE b.t(x); CREATE TABLE c.t(x)");
    for (int mode = 0; mode < 3; mode++) { /* with a super-journal, and without */
        world_sql(db, mode == 0   ? "PRAGMA journal_mode=delete"
                      : mode == 1 ? "PRAGMA journal_mode=memory"
                                  : "PRAGMA journal_mode=persist");
        before = commits(w);
        world_sql(db, "BEGIN; INSERT INTO t VALUES(1); INSERT INTO b.t VALUES(1);"
                      "INSERT INTO c.t VALUES(1); COMMIT");
        assert_int_equal(commits(w), before + 1);
        world_sql(db, "BEGIN; INSERT INTO t VALUES(2); INSERT INTO b.t VALUES(2);"
                      "INSERT INTO c.t VALUES(2); ROLLBACK");
        assert_int_equal(commits(w), before + 1);
    }
    assert_string_equal(world_text(db, "SELECT (SELECT count(*) FROM t) || (SELECT count(*) FROM "
                                       "b.t) || (SELECT count(*) FROM c.t)"), "333");
    world_close(db);
}

static void
snapshot__attached__is_one_instant(void **state)
{
    struct world *w = *state;
    sqlite3 *writer = world_open(w, "a.db", "");
    sqlite3 *reader = world_open(w, "a.db", "");
    char sql[100];

    (void)snprintf(sql, sizeof(sql), "ATTACH '%s/b.db' AS b", w->volume);
    world_sql(writer, sql);
    world_sql(reader, sql);
    world_sql(writer, "CREATE TABLE t(x); CREATE TABLE b.t(x); INSERT INTO t VALUES(1);"
                      "INSERT INTO b.t VALUES(1)");
    world_sql(reader, "SELECT * FROM t; SELECT * FROM b.t"); /* both schemas are known */
    world_sql(reader, "BEGIN");
    assert_string_equal(world_text(reader, "SELECT sum(x) FROM t"), "1");
    world_sql(writer, "BEGIN; UPDATE t SET x=2; UPDATE b.t SET x=2; COMMIT");
    assert_string_equal(world_text(reader, "SELECT sum(x) FROM b.t"), "1");
    world_sql(reader, "COMMIT");
    assert_string_equal(world_text(reader, "SELECT sum(x) FROM b.t"), "2");
    world_close(reader);
    world_close(writer);
}

static void
snapshot__database_made_after_it__is_empty_and_can_be_written(void **state)
{
    struct world *w = *state;
    sqlite3 *db = world_open(w, "a.db", "");
    sqlite3 *other = world_open(w, "a.db", "");
    char sql[100];

    world_sql(db, "CREATE TABLE t(x); BEGIN");
    assert_string_equal(world_text(db, "SELECT count(*) FROM t"), "0");
    (void)snprintf(sql, sizeof(sql), "ATTACH '%s/b.db' AS b", w->volume);
    world_sql(db, sql); /* makes it, behind the snapshot */
    assert_string_equal(world_text(db, "SELECT count(*) FROM b.sqlite_schema"), "0");
    world_sql(db, "CREATE TABLE b.t(x); INSERT INTO b.t VALUES(1); INSERT INTO t VALUES(1); COMMIT");
    assert_string_equal(world_text(db, "SELECT (SELECT count(*) FROM t) || (SELECT count(*) FROM "
                                       "b.t)"), "11");
    world_sql(db, "DETACH b; BEGIN; SELECT * FROM t");
    (void)snprintf(sql, sizeof(sql), "ATTACH '%s/c.db' AS c", w->volume);
    world_sql(other, sql);
    world_sql(other, "CREATE TABLE c.t(x)"); /* by another, behind the snapshot */
    world_sql(db, sql);
    assert_string_equal(world_text(db, "SELECT count(*) FROM c.sqlite_schema"), "0");
    assert_int_equal(world_run(db, "CREATE TABLE c.u(x)"), SQLITE_BUSY_SNAPSHOT);
    world_sql(db, "COMMIT");
    assert_string_equal(world_text(db, "SELECT count(*) FROM c.t"), "0");
    world_close(other);
    world_close(db);
}

static void
reread__own_commit_with_an_open_statement__sees_it(void **state)
{
    struct world *w = *state;
    sqlite3 *db = world_open(w, "a.db", "");
    sqlite3 *other = world_open(w, "a.db", "");
    sqlite3_stmt *stmt = NULL;
    unsigned rows = 0;

    world_sql(db, "PRAGMA cache_size=10; CREATE TABLE t(x); CREATE TABLE u(x);"
                  "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<2000)"
                  "INSERT INTO t SELECT printf('%0100d', i) FROM n");
    assert_int_equal(sqlite3_prepare_v2(db, "SELECT x FROM t", -1, &stmt, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    world_sql(db, "INSERT INTO u VALUES(1)"); /* down to SHARED, not to NONE */
    assert_string_equal(world_text(db, "SELECT count(*) FROM u"), "1");
    world_sql(other, "INSERT INTO u VALUES(2)"); /* the lease is free */
    for (rows = 1; rows < 1000 && sqlite3_step(stmt) == SQLITE_ROW;)
        rows++; /* u's page has left the cache */
    assert_string_equal(world_text(db, "SELECT count(*) FROM u"), "1");
    while (sqlite3_step(stmt) == SQLITE_ROW)
        rows++;
    assert_int_equal(rows, 2000);
    (void)sqlite3_finalize(stmt);
    assert_string_equal(world_text(db, "SELECT count(*) FROM u"), "2");
    world_close(other);
    world_close(db);
}

static void
rollback__after_a_spill__is_whole(void **state)
{
    struct world *w = *state;
    sqlite3 *db = world_open(w, "a.db", "");
    const char *sum = "SELECT count(*) || ' ' || sum(length(x)) FROM t";
    char before[64];

    world_sql(db, "PRAGMA cache_size=10; CREATE TABLE t(id INTEGER PRIMARY KEY, x);"
                  "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<500)"
                  "INSERT INTO t SELECT i, zeroblob(1000) FROM n");
    (void)snprintf(before, sizeof(before), "%s", world_text(db, sum));
    world_sql(db, "BEGIN; UPDATE t SET x=randomblob(1500); DELETE FROM t WHERE id%2; ROLLBACK");
    assert_string_equal(world_text(db, sum), before);
    world_sql(db, "BEGIN; SAVEPOINT s; UPDATE t SET x=randomblob(1500)");
    assert_int_equal(sqlite3_db_cacheflush(db), SQLITE_OK);
    world_sql(db, "ROLLBACK TO s; INSERT INTO t VALUES(1000, 'x'); COMMIT");
    assert_string_equal(world_text(db, "SELECT count(*) || ' ' || sum(length(x)) FROM t"),
                        "501 500001");
    assert_string_equal(world_text(db, "PRAGMA integrity_check"), "ok");
    world_close(db);
    db = world_open(w, "a.db", "");
    assert_string_equal(world_text(db, "PRAGMA integrity_check"), "ok");
    world_close(db);
}

static void
failed_statement__inside_begin__keeps_no_row(void **state)
{
    struct world *w = *state;
    sqlite3 *db = world_open(w, "a.db", "");

    world_sql(db, "CREATE TABLE t(x UNIQUE); INSERT INTO t VALUES(5)");
    world_sql(db, "BEGIN");
    assert_int_equal(world_run(db, "INSERT INTO t VALUES(1),(2),(5)") & 0xff, SQLITE_CONSTRAINT);
    world_sql(db, "COMMIT");
    assert_string_equal(world_text(db, "SELECT count(*) FROM t"), "1");
    world_close(db);
}

static void
large__beyond_the_stage_in_memory__commits_whole(void **state)
{
    struct world *w = *state;
    sqlite3 *db;

    if (strcmp(world_engine(), "sled") == 0)
        skip(); /* it gives a snapshot up when 64 MiB have changed since, as a VACUUM does */
    db = world_open(w, "a.db", "");
    world_sql(db, "CREATE TABLE t(x);"
                  "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<700)"
                  "INSERT INTO t SELECT randomblob(100000) FROM n");
    assert_string_equal(world_text(db, "PRAGMA integrity_check"), "ok");
    world_sql(db, "DELETE FROM t WHERE rowid > 10; VACUUM");
    world_close(db);
    db = world_open(w, "a.db", "");
    assert_string_equal(world_text(db, "PRAGMA integrity_check"), "ok");
    assert_string_equal(world_text(db, "SELECT sum(length(x)) FROM t"), "1000000");
    world_close(db);
}

static void
vacuum__every_page_size__keeps_everything(void **state)
{
    static const unsigned blocks[] = {512, 4096, 65536, 1024, 2048, 8192, 16384, 32768};
    size_t count = strcmp(world_engine(), "lmdb") == 0 ? 8 : 3;
    struct world *w = *state;

    for (size_t b = 0; b < count; b++) {
        char more[40];
        char file[16];
        sqlite3 *db;

        (void)snprintf(more, sizeof(more), "&block_size=%u", blocks[b]);
        (void)snprintf(file, sizeof(file), "%u.db", blocks[b]);
        db = world_open(w, file, more);
        world_sql(db, "CREATE TABLE t(x);"
                      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<300)"
                      "INSERT INTO t SELECT printf('%0700d', i) FROM n");
        for (unsigned size = 512; size <= 65536; size *= 2) {
            char sql[80];

            (void)snprintf(sql, sizeof(sql), "PRAGMA page_size=%u; VACUUM", size);
            world_sql(db, sql);
            (void)snprintf(sql, sizeof(sql), "%u", size);
            assert_string_equal(world_text(db, "PRAGMA page_size"), sql);
            assert_string_equal(world_text(db, "PRAGMA integrity_check"), "ok");
            assert_string_equal(world_text(db, "SELECT count(*) FROM t"), "300");
        }
        world_close(db);
        db = world_open(w, file, "");
        assert_string_equal(world_text(db, "PRAGMA integrity_check"), "ok");
        world_close(db);
    }
}

static void
super__ordinary_database_attached__commits_and_rolls_back(void **state)
{
    struct world *w = *state;
    sqlite3 *db = world_open(w, "a.db", "");
    char sql[200];

    (void)snprintf(sql, sizeof(sql), "ATTACH 'file:%s/plain.db?vfs=unix' AS p", w->dir);
    world_sql(db, sql);
    world_sql(db, "CREATE TABLE t(x); CREATE TABLE p.t(x)");
    world_sql(db, "BEGIN; INSERT INTO t VALUES(1); INSERT INTO p.t VALUES(1); COMMIT");
    world_sql(db, "BEGIN; INSERT INTO t VALUES(2); INSERT INTO p.t VALUES(2); ROLLBACK");
    assert_string_equal(world_text(db, "SELECT (SELECT count(*) FROM t) || "
                                       "(SELECT count(*) FROM p.t)"), "11");
    world_close(db);
    /* No super-journal stays behind. */
    (void)snprintf(sql, sizeof(sql), "test -z \"$(ls %s | grep mj)\"", w->volume);
    assert_int_equal(system(sql), 0); // NOLINT(cert-env33-c,concurrency-mt-unsafe)
}

static void
left_behind__writes__loses_nothing(void **state)
{
    struct world *w = *state;
    sqlite3 *a = world_open(w, "a.db", "");
    sqlite3 *b = world_open(w, "a.db", "");

    world_sql(a, "CREATE TABLE t(x); INSERT INTO t VALUES(1)");
    world_sql(b, "BEGIN");
    assert_string_equal(world_text(b, "SELECT count(*) FROM t"), "1");
    world_sql(a, "INSERT INTO t VALUES(2)");
    assert_int_equal(world_run(b, "INSERT INTO t VALUES(3)"), SQLITE_BUSY_SNAPSHOT);
    world_sql(b, "ROLLBACK");
    assert_string_equal(world_text(a, "SELECT group_concat(x) FROM t"), "1,2");
    world_close(b);
    world_close(a);
}

/* What a connection reads of one file does not keep it from writing to another that has moved
 * on, as long as the first is as it was. */
static void
left_behind__second_file_only__gets_a_newer_instant(void **state)
{
    struct world *w = *state;
    sqlite3 *a = world_open(w, "a.db", "&busy=5000");
    sqlite3 *b = world_open(w, "b.db", "");
    char sql[100];

    (void)snprintf(sql, sizeof(sql), "ATTACH '%s/b.db' AS b", w->volume);
    world_sql(a, sql);
    world_sql(a, "CREATE TABLE t(x); CREATE TABLE b.u(x)");
    world_sql(a, "BEGIN");
    assert_string_equal(world_text(a, "SELECT count(*) FROM t"), "0");
    world_sql(b, "INSERT INTO u VALUES(1)");
    world_sql(a, "INSERT INTO b.u VALUES(2)");
    assert_string_equal(world_text(a, "SELECT group_concat(x) FROM b.u"), "1,2");
    world_sql(a, "COMMIT");
    assert_string_equal(world_text(b, "SELECT group_concat(x) FROM u"), "1,2");

    (void)sqlite3_busy_timeout(a, 0); /* both have moved on: at no instant could it write */
    world_sql(a, "BEGIN");
    assert_string_equal(world_text(a, "SELECT count(*) FROM t"), "0");
    (void)snprintf(sql, sizeof(sql), "ATTACH '%s/a.db' AS a", w->volume);
    world_sql(b, sql);
    world_sql(b, "BEGIN; INSERT INTO a.t VALUES(1); INSERT INTO u VALUES(3); COMMIT");
    for (int tries = 0; tries < 2; tries++)
        assert_int_equal(world_run(a, "INSERT INTO b.u VALUES(4)") & 0xff, SQLITE_BUSY);
    assert_string_equal(world_text(a, "SELECT count(*) FROM t"), "0");
    world_sql(a, "ROLLBACK; INSERT INTO b.u VALUES(4)");
    assert_string_equal(world_text(a, "SELECT group_concat(x) FROM b.u"), "1,2,3,4");
    world_close(b);
    world_close(a);
}

struct pair {
    pthread_t thread;
    struct world *w;
    char name;
    int failed;
};

static void *
pair_run(void *arg)
{
    struct pair *p = arg;
    char sql[200];
    sqlite3 *db;

    (void)snprintf(sql, sizeof(sql), "%c1.db", p->name);
    db = world_open(p->w, sql, "&durability=ordered&busy=60000");
    (void)snprintf(sql, sizeof(sql), "ATTACH '%s/%c2.db' AS b", p->w->volume, p->name);
    world_sql(db, sql);
    world_sql(db, "CREATE TABLE t(x); CREATE TABLE b.t(x)");
    for (int i = 0; i < 40; i++) {
        p->failed |= world_run(db, "BEGIN; INSERT INTO t VALUES(1); INSERT INTO b.t VALUES(1)");
        p->failed |= world_run(db, i % 4 == 0 ? "ROLLBACK" : "COMMIT");
    }
    world_close(db);
    return NULL;
}

/* Groups that commit at the same time in two threads know nothing of each other. */
static void
super__two_threads__each_commits_its_own(void **state)
{
    struct world *w = *state;
    struct pair pairs[2] = {{.w = w, .name = 'x'}, {.w = w, .name = 'y'}};

    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&pairs[i].thread, NULL, pair_run, &pairs[i]), 0);
    for (int i = 0; i < 2; i++) {
        (void)pthread_join(pairs[i].thread, NULL);
        assert_int_equal(pairs[i].failed, 0);
    }
    for (int i = 0; i < 4; i++) {
        char name[16];
        sqlite3 *db;

        (void)snprintf(name, sizeof(name), "%c%d.db", "xy"[i / 2], i % 2 + 1);
        db = world_open(w, name, "");
        assert_string_equal(world_text(db, "SELECT count(*) FROM t"), "30");
        world_close(db);
    }
}

/* Something that can be removed when the volume is full. */
static void
ballast_put(struct kvfs_volume *v)
{
    const struct kvfs_create create = {.mode = 0100644};
    struct kvfs_attr attr;
    struct kvfs_file *f = NULL;
    char *noise = malloc(2 << 20);

    assert_non_null(noise);
    sqlite3_randomness(2 << 20, noise);
    assert_int_equal(kvfs_create(v, KVFS_ROOT_INO, "ballast", &create, &attr, NULL), 0);
    assert_int_equal(kvfs_file_open(v, attr.ino, KVFS_OPEN_WRITE, &f, NULL), 0);
    assert_int_equal(kvfs_file_pwrite(f, noise, 2 << 20, 0, KVFS_EXTEND | KVFS_FUA, NULL), 0);
    kvfs_file_close(f);
    free(noise);
}

/* A volume of a few MiB fills; what was refused is gone, also where SQLite never unlocks. */
static void
full__exclusive_mode__keeps_no_refused_row(void **state)
{
    struct kvfs_volume_options options = {.store_max_bytes = (uint64_t)64 << 20};
    struct world *w = *state;
    struct kvfs_volume *v = NULL;
    sqlite3 *db;
    int rows = 0;
    int rc = SQLITE_OK;
    char expected[32];

    if (kvfs_volume_open(w->volume, &options, &v, NULL) < 0)
        skip(); /* an engine that is larger from the start */
    ballast_put(v);
    db = world_open(w, "a.db", "");
    world_sql(db, "PRAGMA locking_mode=EXCLUSIVE; CREATE TABLE t(x); CREATE TABLE u(x)");
    while (rc == SQLITE_OK && rows < 1000) {
        rc = world_run(db, "INSERT INTO t VALUES(randomblob(500000))");
        rows += rc == SQLITE_OK;
    }
    if (rc == SQLITE_OK) { /* an engine that knows no such bound */
        world_close(db);
        assert_int_equal(kvfs_volume_close(v, NULL), 0);
        skip();
    }
    assert_int_equal(rc, SQLITE_FULL);
    (void)snprintf(expected, sizeof(expected), "%d", rows);
    assert_string_equal(world_text(db, "SELECT count(*) FROM t"), expected);
    world_sql(db, "PRAGMA locking_mode=NORMAL; SELECT count(*) FROM t");
    assert_int_equal(kvfs_unlink(v, KVFS_ROOT_INO, "ballast", NULL), 0);
    while ((rc = kvfs_volume_work(v, 100, NULL)) == 1) { /* space comes back */
    }
    assert_int_equal(rc, 0);
    world_sql(db, "INSERT INTO u VALUES(1)");
    assert_string_equal(world_text(db, "SELECT count(*) FROM u"), "1");
    assert_string_equal(world_text(db, "SELECT count(*) FROM t"), expected);
    assert_string_equal(world_text(db, "PRAGMA integrity_check"), "ok");
    world_close(db);
    db = world_open(w, "a.db", "");
    assert_string_equal(world_text(db, "PRAGMA integrity_check"), "ok");
    world_close(db);
    assert_int_equal(kvfs_volume_close(v, NULL), 0);
}

static void
ordered__commit__is_seen_at_once(void **state)
{
    struct world *w = *state;
    sqlite3 *db = world_open(w, "a.db", "&durability=ordered");
    sqlite3 *other = world_open(w, "a.db", "&mode=ro");

    world_sql(db, "CREATE TABLE t(x); INSERT INTO t VALUES(1)");
    assert_string_equal(world_text(other, "SELECT x FROM t"), "1");
    assert_int_equal(world_run(other, "INSERT INTO t VALUES(1)") & 0xff, SQLITE_READONLY);
    world_close(other);
    world_close(db);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(commit__one_row__is_one_commit, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(commit__attached__is_one_commit, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(snapshot__attached__is_one_instant, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(
            snapshot__database_made_after_it__is_empty_and_can_be_written, world_setup,
            world_teardown),
        cmocka_unit_test_setup_teardown(reread__own_commit_with_an_open_statement__sees_it,
                                        world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(rollback__after_a_spill__is_whole, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(failed_statement__inside_begin__keeps_no_row, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(large__beyond_the_stage_in_memory__commits_whole,
                                        world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(vacuum__every_page_size__keeps_everything, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(super__ordinary_database_attached__commits_and_rolls_back,
                                        world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(left_behind__writes__loses_nothing, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(left_behind__second_file_only__gets_a_newer_instant,
                                        world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(super__two_threads__each_commits_its_own, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(full__exclusive_mode__keeps_no_refused_row, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(ordered__commit__is_seen_at_once, world_setup,
                                        world_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
