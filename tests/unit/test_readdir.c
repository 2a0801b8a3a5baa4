/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Walking folders while they change: what exists during the whole walk is seen
 * exactly once, however often the walk is left and taken up again.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "names_world.h"

#define ENTRIES 10000

static const char *engine;
static struct world world;

static int
setup(void **state)
{
    (void)state;
    world_begin(&world, engine);
    return 0;
}

static int
teardown(void **state)
{
    char why[256] = "";
    int rc = world_judge(world.v, why, sizeof(why));

    (void)state;
    if (rc != 0)
        print_error("the names do not agree: %s\n", why);
    world_end(&world);
    return rc;
}

static uint64_t
make(uint64_t dir, const char *name, uint32_t mode)
{
    struct kvfs_create create = {.mode = mode};
    struct kvfs_error err = {0};
    struct kvfs_attr attr;

    if (kvfs_create(world.v, dir, name, &create, &attr, &err) != 0)
        fail_msg("create %s: %s", name, err.msg);
    return attr.ino;
}

struct walk {
    unsigned seen[ENTRIES]; /* of the names "sN" */
    unsigned others;
    uint64_t cookie;
    unsigned stop_after; /* calls; 0: never */
};

static int
walk_one(void *arg, const struct kvfs_dirent *e)
{
    struct walk *w = arg;

    if (e->cookie <= w->cookie || e->cookie <= 2 || strlen(e->name) != e->name_len)
        return -1;
    w->cookie = e->cookie;
    if (e->name[0] == 's')
        w->seen[strtoul(e->name + 1, NULL, 10)]++; /* NOLINT(cert-err34-c) */
    else
        w->others++;
    return w->stop_after > 0 && --w->stop_after == 0 ? 1 : 0;
}

static void
readdir__empty_folder__calls_nothing(void **state)
{
    struct walk *w = calloc(1, sizeof(*w));
    uint64_t file = make(KVFS_ROOT_INO, "f", S_IFREG), dir = make(KVFS_ROOT_INO, "d", S_IFDIR);

    (void)state;
    assert_non_null(w);
    assert_int_equal(kvfs_readdir(world.v, dir, 0, walk_one, w, NULL), 0);
    assert_int_equal(w->others, 0);
    assert_int_equal(kvfs_readdir(world.v, KVFS_ROOT_INO, UINT64_MAX, walk_one, w, NULL), 0);
    assert_int_equal(w->others, 0);
    assert_int_equal(kvfs_readdir(world.v, file, 0, walk_one, w, NULL), -ENOTDIR);
    assert_int_equal(kvfs_readdir(world.v, 99999, 0, walk_one, w, NULL), -ENOENT);
    free(w);
}

static int
types_one(void *arg, const struct kvfs_dirent *e)
{
    uint32_t *types = arg;

    types[e->name[0] - 'a'] = e->type;
    return 0;
}

static void
readdir__types__are_told(void **state)
{
    static const uint32_t want[] = {S_IFREG, S_IFDIR, S_IFIFO, S_IFSOCK};
    uint32_t types[4] = {0};
    char name[2] = "a";

    (void)state;
    for (int i = 0; i < 4; i++, name[0]++)
        make(KVFS_ROOT_INO, name, want[i] | 0600);
    assert_int_equal(kvfs_readdir(world.v, KVFS_ROOT_INO, 0, types_one, types, NULL), 0);
    assert_memory_equal(types, want, sizeof(want));
}

static int
remove_one(void *arg, const struct kvfs_dirent *e)
{
    ++*(unsigned *)arg;
    return kvfs_unlink(world.v, KVFS_ROOT_INO, e->name, NULL);
}

static void
readdir__callback_that_removes__meets_all(void **state)
{
    unsigned removed = 0;
    char name[16];

    (void)state;
    for (int i = 0; i < 200; i++) {
        (void)snprintf(name, sizeof(name), "s%d", i);
        make(KVFS_ROOT_INO, name, S_IFREG | 0644);
    }
    assert_int_equal(kvfs_readdir(world.v, KVFS_ROOT_INO, 0, remove_one, &removed, NULL), 0);
    assert_int_equal(removed, 200);
}

static void
readdir__replaced_and_exchanged_names__are_seen_once(void **state)
{
    struct walk *w = calloc(1, sizeof(*w));
    char name[16];

    (void)state;
    assert_non_null(w);
    make(KVFS_ROOT_INO, "early", S_IFREG | 0644);
    for (int i = 0; i < 100; i++) {
        (void)snprintf(name, sizeof(name), "s%d", i);
        make(KVFS_ROOT_INO, name, S_IFREG | 0644);
    }
    make(KVFS_ROOT_INO, "late", S_IFREG | 0644);
    w->stop_after = 50;
    assert_int_equal(kvfs_readdir(world.v, KVFS_ROOT_INO, 0, walk_one, w, NULL), 1);
    /* s99 was not seen yet and is replaced by what was; s1 was seen and is
     * replaced by what was not; s2 and s98 swap. */
    assert_int_equal(kvfs_rename(world.v, KVFS_ROOT_INO, "early", KVFS_ROOT_INO, "s99", 0, NULL),
                     0);
    assert_int_equal(kvfs_rename(world.v, KVFS_ROOT_INO, "late", KVFS_ROOT_INO, "s1", 0, NULL), 0);
    assert_int_equal(
        kvfs_rename(world.v, KVFS_ROOT_INO, "s2", KVFS_ROOT_INO, "s98", KVFS_RENAME_EXCHANGE, NULL),
        0);
    assert_int_equal(kvfs_readdir(world.v, KVFS_ROOT_INO, w->cookie, walk_one, w, NULL), 0);
    for (int i = 0; i < 100; i++)
        assert_int_equal(w->seen[i], 1);
    free(w);
}

/* Half of the entries stay ("sN"); a thread makes, renames and removes others. */
struct churn {
    uint64_t dir;
    atomic_bool stop;
    atomic_uint changes;
    atomic_int rc;
};

static void *
churn_main(void *arg)
{
    struct churn *c = arg;
    struct kvfs_create create = {.mode = S_IFREG | 0644};
    char old[16], new[16];
    int rc = 0;

    for (unsigned i = 0; !atomic_load(&c->stop) && rc == 0; i++) {
        (void)snprintf(old, sizeof(old), "x%u", i % 97);
        (void)snprintf(new, sizeof(new), "y%u", i % 89);
        rc = kvfs_create(world.v, c->dir, old, &create, NULL, NULL);
        if (rc == 0)
            rc = kvfs_rename(world.v, c->dir, old, c->dir, new, 0, NULL);
        if (rc == 0 && i % 3 == 0)
            rc = kvfs_unlink(world.v, c->dir, new, NULL);
        atomic_fetch_add(&c->changes, 1);
    }
    atomic_store(&c->rc, rc);
    return NULL;
}

static void
readdir__while_another_thread_changes__sees_the_steady_once(void **state)
{
    unsigned entries = strcmp(engine, "mem") == 0 ? ENTRIES : ENTRIES / 20; /* each is a commit */
    struct churn churn = {.dir = make(KVFS_ROOT_INO, "d", S_IFDIR | 0755)};
    unsigned seed = world_seed();
    pthread_t thread;
    char name[16];

    (void)state;
    for (unsigned i = 0; i < entries; i++) {
        (void)snprintf(name, sizeof(name), "s%u", i);
        make(churn.dir, name, S_IFREG | 0644);
    }
    assert_int_equal(pthread_create(&thread, NULL, churn_main, &churn), 0);
    for (unsigned round = 0; round < 5 * world_scale(); round++) {
        struct walk *w = calloc(1, sizeof(*w));
        unsigned before = atomic_load(&churn.changes);
        int rc;

        assert_non_null(w);
        do { /* left at random, taken up again */
            w->stop_after = 1 + (unsigned)rand_r(&seed) % 1000;
            rc = kvfs_readdir(world.v, churn.dir, w->cookie, walk_one, w, NULL);
        } while (rc == 1);
        assert_int_equal(rc, 0);
        for (unsigned i = 0; i < entries; i++)
            assert_int_equal(w->seen[i], 1);
        free(w);
        while (atomic_load(&churn.changes) == before && atomic_load(&churn.rc) == 0)
            (void)sched_yield(); /* at least one change between two walks */
    }
    atomic_store(&churn.stop, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(atomic_load(&churn.rc), 0);
}

int
main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(readdir__empty_folder__calls_nothing),
        CASE(readdir__types__are_told),
        CASE(readdir__callback_that_removes__meets_all),
        CASE(readdir__replaced_and_exchanged_names__are_seen_once),
        CASE(readdir__while_another_thread_changes__sees_the_steady_once),
    };
    int failed = 0;

    for (unsigned n = 0; (engine = world_engine_at(n)) != NULL; n++) {
        print_message("engine %s\n", engine);
        failed += cmocka_run_group_tests(tests, NULL, NULL);
    }
    return failed;
}
