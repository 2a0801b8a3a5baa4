/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Writers that wait for each other: first come first served, each in the end, nothing lost.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "vfs_world.h"

#include "vfs_priv.h"

#define WAIT_WRITERS 4

struct writer {
    pthread_t thread;
    sqlite3 *db;
    int number, rows;
    int rc;
};

/* One row a transaction; each takes the lease and passes it on. */
static void *
writer_main(void *arg)
{
    struct writer *w = arg;
    char sql[100];

    (void)snprintf(sql, sizeof(sql), "BEGIN IMMEDIATE; INSERT INTO t(who) VALUES(%d); COMMIT",
                   w->number);
    for (int i = 0; i < w->rows && w->rc == SQLITE_OK; i++)
        w->rc = world_run(w->db, sql);
    return NULL;
}

static void
writer_start(struct writer *w, struct world *world, int number, int rows)
{
    *w = (struct writer){.number = number, .rows = rows};
    w->db = world_open(world, "a.db", "");
    (void)sqlite3_busy_timeout(w->db, 60000);
    assert_int_equal(pthread_create(&w->thread, NULL, writer_main, w), 0);
}

static void
writer_end(struct writer *w)
{
    (void)pthread_join(w->thread, NULL);
    assert_int_equal(w->rc, SQLITE_OK);
    world_close(w->db);
}

static unsigned
sleepers(void)
{
    unsigned n = 0;

    vfs_lock();
    for (const struct vfs_file *f = vfs_file_first(); f != NULL; f = f->next)
        n += f->sleeping;
    vfs_unlock();
    return n;
}

static void
lease__is_freed__first_come_first_served(void **state)
{
    struct world *w = *state;
    sqlite3 *db = world_open(w, "a.db", "");
    sqlite3 *late = world_open(w, "a.db", "");
    struct writer writers[WAIT_WRITERS];
    int64_t hold_ns = vfs_wait_hold_ns;

    vfs_wait_hold_ns = INT64_C(60000000000);
    world_sql(db, "CREATE TABLE t(k INTEGER PRIMARY KEY, who); BEGIN IMMEDIATE");
    for (int i = 0; i < WAIT_WRITERS; i++) {
        writer_start(&writers[i], w, i, 1);
        while (sleepers() != (unsigned)i + 1) /* it stands in the queue */
            (void)sched_yield();
    }
    assert_int_equal(world_run(late, "BEGIN IMMEDIATE"), SQLITE_BUSY);
    world_sql(db, "COMMIT");
    for (int i = 0; i < WAIT_WRITERS; i++)
        writer_end(&writers[i]);
    assert_string_equal(world_text(db, "SELECT group_concat(who, ' ') FROM "
                                       "(SELECT who FROM t ORDER BY k)"), "0 1 2 3");
    vfs_wait_hold_ns = hold_ns;
    world_close(late);
    world_close(db);
}

static void
lease__head_has_given_up__the_next_has_it(void **state)
{
    struct world *w = *state;
    sqlite3 *db = world_open(w, "a.db", "");
    sqlite3 *impatient = world_open(w, "a.db", "");
    struct writer writer;

    world_sql(db, "CREATE TABLE t(k INTEGER PRIMARY KEY, who); BEGIN IMMEDIATE");
    (void)sqlite3_busy_timeout(impatient, 1);
    assert_int_equal(world_run(impatient, "BEGIN IMMEDIATE"), SQLITE_BUSY); /* slept, and left */
    writer_start(&writer, w, 7, 1);
    while (sleepers() != 1)
        (void)sched_yield();
    world_sql(db, "COMMIT");
    writer_end(&writer);
    assert_string_equal(world_text(db, "SELECT who FROM t"), "7");
    world_close(impatient);
    world_close(db);
}

static void
writers__of_one_database__none_is_lost_nor_starved(void **state)
{
    struct world *w = *state;
    sqlite3 *db = world_open(w, "a.db", "");
    struct writer writers[WAIT_WRITERS];

    world_sql(db, "CREATE TABLE t(k INTEGER PRIMARY KEY, who)");
    for (int i = 0; i < WAIT_WRITERS; i++)
        writer_start(&writers[i], w, i, 100);
    for (int i = 0; i < WAIT_WRITERS; i++)
        writer_end(&writers[i]);
    assert_string_equal(world_text(db, "SELECT group_concat(n) FROM "
                                       "(SELECT count(*) AS n FROM t GROUP BY who)"),
                        "100,100,100,100");
    assert_string_equal(world_text(db, "PRAGMA integrity_check"), "ok");
    assert_int_equal(sleepers(), 0);
    world_close(db);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(lease__is_freed__first_come_first_served, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(lease__head_has_given_up__the_next_has_it, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(writers__of_one_database__none_is_lost_nor_starved,
                                        world_setup, world_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
