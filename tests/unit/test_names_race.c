/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Two processes that change the same names at the worst instant, made exact: a
 * second view of the volume stands for the other process, and it acts between
 * the moment when a change was worked out and the moment when it is applied.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <cmocka.h>

#include "../../kvfs/names/names.h"
#include "names_world.h"

static struct world world;      /* world.v: the other process */
static struct kvfs_volume mine; /* the same volume; its applies call `rival` first */
static struct kvfs_engine engine;
static int (*rival)(void);
static unsigned rival_times;
static int rival_rc;
static uint64_t a, b, dir, fifo; /* two folders, one more, and something without contents */

#define ROOT KVFS_ROOT_INO

static int
race_apply(struct kvfs_db *db, const struct kvfs_batch *batch, enum kvfs_durability durability,
           struct kvfs_error *err)
{
    if (rival_times > 0) {
        rival_times--;
        rival_rc = rival();
    }
    return world.v->engine->apply(db, batch, durability, err);
}

static uint64_t
make(uint64_t in, const char *name, uint32_t mode)
{
    struct kvfs_create create = {.mode = mode};
    struct kvfs_attr attr;

    assert_int_equal(kvfs_create(world.v, in, name, &create, &attr, NULL), 0);
    return attr.ino;
}

static int
setup(void **state)
{
    uint64_t id;

    (void)state;
    world_begin(&world, world_engine_at(0));
    a = make(ROOT, "a", S_IFDIR | 0755);
    b = make(ROOT, "b", S_IFDIR | 0755);
    dir = make(ROOT, "dir", S_IFDIR | 0755);
    fifo = make(dir, "fifo", S_IFIFO | 0644);
    mine = *world.v;
    engine = *world.v->engine;
    engine.apply = race_apply;
    mine.engine = &engine;
    mine.id_next = mine.id_end = 0;
    assert_int_equal(pthread_mutex_init(&mine.names, NULL), 0);
    assert_int_equal(kvfs_id_new(&mine, &id, NULL), 0); /* reserves a range: no apply later */
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
    (void)pthread_mutex_destroy(&mine.names);
    world_end(&world);
    return rc;
}

static void
race(int (*fn)(void), unsigned times)
{
    rival = fn;
    rival_times = times;
    rival_rc = 1;
}

/* The race took place, and what the rival did succeeded. */
static void
assert_raced(void)
{
    assert_int_equal(rival_times, 0);
    assert_int_equal(rival_rc, 0);
}

static int
mine_create(uint64_t in, const char *name, uint32_t mode)
{
    struct kvfs_create create = {.mode = mode};

    return kvfs_create(&mine, in, name, &create, NULL, NULL);
}

static uint64_t
ino_of(uint64_t in, const char *name)
{
    struct kvfs_attr attr;

    return kvfs_lookup(world.v, in, name, &attr, NULL) == 0 ? attr.ino : 0;
}

static int
rival_creates_x(void)
{
    struct kvfs_create create = {.mode = S_IFREG | 0644};

    return kvfs_create(world.v, a, "x", &create, NULL, NULL);
}

static int
rival_removes_a(void)
{
    return kvfs_rmdir(world.v, ROOT, "a", NULL);
}

static int
rival_removes_fifo(void)
{
    return kvfs_unlink(world.v, dir, "fifo", NULL);
}

static int
rival_moves_b_into_a(void)
{
    return kvfs_rename(world.v, ROOT, "b", a, "b", 0, NULL);
}

static int
rival_links_fifo(void)
{
    return kvfs_link(world.v, fifo, dir, "second", NULL);
}

static int
rival_sets_attribute(void)
{
    return kvfs_xattr_set(world.v, fifo, "user.a", "his", 3, 0, NULL);
}

static int
rival_touches_a(void)
{
    struct kvfs_attr attr = {.mode = 0700};

    return kvfs_setattr(world.v, a, KVFS_SET_MODE, &attr, NULL);
}

static void
create__name_was_just_taken__is_eexist(void **state)
{
    (void)state;
    race(rival_creates_x, 1);
    assert_int_equal(mine_create(a, "x", S_IFIFO), -EEXIST);
    assert_raced();
}

static void
create__folder_was_just_removed__is_enoent(void **state)
{
    (void)state;
    race(rival_removes_a, 1);
    assert_int_equal(mine_create(a, "y", S_IFREG), -ENOENT);
    assert_raced();
}

static void
create__another_name_was_just_made__succeeds(void **state)
{
    (void)state;
    race(rival_creates_x, 1);
    assert_int_equal(mine_create(a, "y", S_IFDIR), 0);
    assert_raced();
    assert_true(ino_of(a, "x") != 0 && ino_of(a, "y") != 0);
}

static void
rmdir__entry_was_just_made__is_enotempty(void **state)
{
    (void)state;
    race(rival_creates_x, 1);
    assert_int_equal(kvfs_rmdir(&mine, ROOT, "a", NULL), -ENOTEMPTY);
    assert_raced();
}

static void
rmdir__folder_just_moved_in__is_enotempty(void **state)
{
    (void)state;
    race(rival_moves_b_into_a, 1);
    assert_int_equal(kvfs_rmdir(&mine, ROOT, "a", NULL), -ENOTEMPTY);
    assert_raced();
}

static void
unlink__just_unlinked__is_enoent(void **state)
{
    (void)state;
    race(rival_removes_fifo, 1);
    assert_int_equal(kvfs_unlink(&mine, dir, "fifo", NULL), -ENOENT);
    assert_raced();
}

static void
unlink__second_name_was_just_made__keeps_the_inode(void **state)
{
    (void)state;
    race(rival_links_fifo, 1);
    assert_int_equal(kvfs_unlink(&mine, dir, "fifo", NULL), 0);
    assert_raced();
    assert_int_equal(ino_of(dir, "second"), fifo);
}

static void
link__last_name_just_went__is_enoent(void **state)
{
    (void)state;
    race(rival_removes_fifo, 1);
    assert_int_equal(kvfs_link(&mine, fifo, a, "x", NULL), -ENOENT);
    assert_raced();
}

static void
rename__target_just_appeared__is_replaced_or_refused(void **state)
{
    (void)state;
    race(rival_creates_x, 1);
    assert_int_equal(kvfs_rename(&mine, dir, "fifo", a, "x", KVFS_RENAME_NOREPLACE, NULL), -EEXIST);
    assert_raced();
    assert_int_equal(kvfs_unlink(world.v, a, "x", NULL), 0);
    race(rival_creates_x, 1);
    assert_int_equal(kvfs_rename(&mine, dir, "fifo", a, "x", 0, NULL), 0);
    assert_raced();
    assert_int_equal(ino_of(a, "x"), fifo);
}

static void
rename__folders_into_each_other__only_one_passes(void **state)
{
    (void)state;
    race(rival_moves_b_into_a, 1);
    assert_int_equal(kvfs_rename(&mine, ROOT, "a", b, "a", 0, NULL), -EINVAL);
    assert_raced();
}

/* a/p and b/q: a goes below q while b goes below p.  No record of the one change
 * is a record of the other: only the counter of moves lets them meet. */
static uint64_t p, q;

static int
rival_exchanges_b(void)
{
    return kvfs_rename(world.v, dir, "b", p, "x", KVFS_RENAME_EXCHANGE, NULL);
}

static void
rename__loop_of_distant_moves__only_one_passes(void **state)
{
    uint64_t e = make(ROOT, "e", S_IFDIR | 0755);

    (void)state;
    p = make(a, "p", S_IFDIR | 0755);
    q = make(b, "q", S_IFDIR | 0755);
    /* From folders of their own, so that not even the root's inode is shared. */
    assert_int_equal(kvfs_rename(world.v, ROOT, "a", e, "a", 0, NULL), 0);
    assert_int_equal(kvfs_rename(world.v, ROOT, "b", dir, "b", 0, NULL), 0);
    make(p, "x", S_IFIFO);
    race(rival_exchanges_b, 1);
    assert_int_equal(kvfs_rename(&mine, e, "a", q, "a", 0, NULL), -EINVAL);
    assert_raced();
}

static void
rename__target_folder_was_just_removed__is_enoent(void **state)
{
    (void)state;
    race(rival_removes_a, 1);
    assert_int_equal(kvfs_rename(&mine, dir, "fifo", a, "x", 0, NULL), -ENOENT);
    assert_raced();
    assert_int_equal(ino_of(dir, "fifo"), fifo);
}

static void
exchange__one_side_just_went__is_enoent(void **state)
{
    (void)state;
    make(a, "x", S_IFIFO);
    race(rival_removes_fifo, 1);
    assert_int_equal(kvfs_rename(&mine, a, "x", dir, "fifo", KVFS_RENAME_EXCHANGE, NULL), -ENOENT);
    assert_raced();
}

static void
xattr__just_set__is_eexist_to_a_creator(void **state)
{
    char value[3];
    size_t len;

    (void)state;
    race(rival_sets_attribute, 1);
    assert_int_equal(kvfs_xattr_set(&mine, fifo, "user.a", "mine", 4, XATTR_CREATE, NULL), -EEXIST);
    assert_raced();
    assert_int_equal(kvfs_xattr_get(world.v, fifo, "user.a", value, 3, &len, NULL), 0);
    assert_memory_equal(value, "his", 3);
}

static void
xattr__inode_just_went__leaves_nothing_behind(void **state)
{
    (void)state;
    race(rival_removes_fifo, 1);
    assert_int_equal(kvfs_xattr_set(&mine, fifo, "user.a", "mine", 4, 0, NULL), -ENOENT);
    assert_raced();
    race(rival_sets_attribute, 0);
    assert_int_equal(kvfs_setattr(&mine, fifo, KVFS_SET_UID, &(struct kvfs_attr){0}, NULL),
                     -ENOENT);
}

static void
change__others_are_always_faster__is_ebusy(void **state)
{
    struct kvfs_error err;
    struct kvfs_create create = {.mode = S_IFREG};

    (void)state;
    race(rival_touches_a, KVFS_CHANGE_TRIES - 1);
    assert_int_equal(mine_create(a, "x", S_IFREG), 0); /* the last try */
    assert_raced();
    race(rival_touches_a, KVFS_CHANGE_TRIES);
    assert_int_equal(kvfs_create(&mine, a, "y", &create, NULL, &err), -EBUSY);
    assert_raced();
    assert_true(err.code == -EBUSY && err.msg[0] != '\0');
}

static void
change__clock_went_back__ctime_still_moves_on(void **state)
{
    struct kvfs_batch_builder *batch = kvfs_batch_new();
    struct kvfs_inode_record rec;
    struct kvfs_db_snap *snap;
    struct kvfs_attr attr = {0};
    struct kvfs_key key;
    uint8_t value[KVFS_SMALL_RECORD_MAX];
    int64_t future = INT64_MAX / 2;

    (void)state;
    assert_non_null(batch);
    assert_int_equal(kvfs_names_begin(world.v, &snap, NULL), 0);
    assert_int_equal(kvfs_inode_read(world.v, snap, a, &rec, NULL), 0);
    world.v->engine->end(snap);
    rec.ctime_ns = future;
    kvfs_key_inode(&key, a);
    kvfs_batch_put(batch, KVFS_META, key.bytes, key.len, value,
                   kvfs_inode_encode(&rec, &key, value));
    assert_int_equal(kvfs_volume_apply(world.v, batch, KVFS_ORDERED, NULL), 0);
    kvfs_batch_free(batch);
    assert_int_equal(mine_create(a, "x", S_IFREG), 0);
    assert_int_equal(kvfs_getattr(world.v, a, &attr, NULL), 0);
    assert_int_equal(attr.ctime_ns, future + 1);
}

int
main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(create__name_was_just_taken__is_eexist),
        CASE(create__folder_was_just_removed__is_enoent),
        CASE(create__another_name_was_just_made__succeeds),
        CASE(rmdir__entry_was_just_made__is_enotempty),
        CASE(rmdir__folder_just_moved_in__is_enotempty),
        CASE(unlink__just_unlinked__is_enoent),
        CASE(unlink__second_name_was_just_made__keeps_the_inode),
        CASE(link__last_name_just_went__is_enoent),
        CASE(rename__target_just_appeared__is_replaced_or_refused),
        CASE(rename__folders_into_each_other__only_one_passes),
        CASE(rename__loop_of_distant_moves__only_one_passes),
        CASE(rename__target_folder_was_just_removed__is_enoent),
        CASE(exchange__one_side_just_went__is_enoent),
        CASE(xattr__just_set__is_eexist_to_a_creator),
        CASE(xattr__inode_just_went__leaves_nothing_behind),
        CASE(change__others_are_always_faster__is_ebusy),
        CASE(change__clock_went_back__ctime_still_moves_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
