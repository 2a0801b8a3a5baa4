/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The file system fills up behind the log's back: batches that were logged find no room below.
 * Nothing acknowledged is lost, what is refused is refused as a full medium is, deleting is
 * always possible and makes room, and when there is room again all goes on.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <ftw.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <kvfs/engine.h>

#define PARAMS    "log-size=1048576,log-unfolded=1048576"
#define VALUE_LEN 4096u
#define KEYS      4096u

static atomic_bool full; /* the file system is */

int __real_fallocate64(int fd, int mode, off_t offset, off_t len);
int __wrap_fallocate64(int fd, int mode, off_t offset, off_t len);
int __real_fstatvfs64(int fd, struct statvfs *vfs);
int __wrap_fstatvfs64(int fd, struct statvfs *vfs);

int
__wrap_fallocate64(int fd, int mode, off_t offset, off_t len)
{
    struct stat st;

    if (!atomic_load(&full) ||
        (fstat(fd, &st) == 0 && offset + len <= (off_t)st.st_blocks * 512)) /* the file's already */
        return __real_fallocate64(fd, mode, offset, len);
    errno = ENOSPC;
    return -1;
}

int
__wrap_fstatvfs64(int fd, struct statvfs *vfs)
{
    int rc = __real_fstatvfs64(fd, vfs);

    if (rc == 0 && atomic_load(&full))
        vfs->f_bavail = vfs->f_bfree = 0;
    return rc;
}

struct world {
    const struct kvfs_engine *engine;
    struct kvfs_db *db;
    char folder[64];
    uint8_t there[KEYS]; /* what was acknowledged: 0 absent, else the byte its value is made of */
};

static void
world_open(struct world *w, bool create)
{
    const struct kvfs_engine_options options = {.create = create, .params = PARAMS};
    struct kvfs_error err = {.code = 0};

    if (w->engine->open(w->engine, w->folder, &options, &w->db, &err) != 0)
        fail_msg("opening: %s", err.msg);
}

static int
world_apply(struct world *w, struct kvfs_op *op, uint16_t key)
{
    const struct kvfs_batch batch = {.ops = op, .ops_count = 1};
    struct kvfs_error err = {.code = 0};
    uint8_t bytes[2] = {(uint8_t)(key >> 8), (uint8_t)key};
    int rc;

    op->keyspace = KVFS_META;
    op->key = bytes;
    op->key_len = sizeof(bytes);
    rc = w->engine->apply(w->db, &batch, KVFS_DURABLE, &err);
    if (rc != 0 && rc != -ENOSPC)
        fail_msg("key %u: %d: %s", key, rc, err.msg);
    return rc;
}

static int
world_put(struct world *w, uint16_t key, uint8_t byte)
{
    static uint8_t value[VALUE_LEN];
    struct kvfs_op op = {.type = KVFS_OP_PUT,
                         .value = {{.iov_base = value, .iov_len = sizeof(value)}}};
    int rc;

    memset(value, byte, sizeof(value));
    rc = world_apply(w, &op, key);
    if (rc == 0)
        w->there[key] = byte;
    return rc;
}

/* Delete the keys from FIRST to END. */
static void
world_del(struct world *w, uint16_t first, uint16_t end)
{
    uint8_t bytes[2] = {(uint8_t)(end >> 8), (uint8_t)end};
    struct kvfs_op op = {.type = KVFS_OP_DEL_RANGE, .key_end = bytes, .key_end_len = 2};

    assert_int_equal(world_apply(w, &op, first), 0);
    memset(w->there + first, 0, (size_t)(end - first));
}

/* The store holds what was acknowledged and nothing else. */
static void
world_compare(struct world *w)
{
    static uint8_t value[VALUE_LEN];
    struct iovec iov = {.iov_base = value, .iov_len = sizeof(value)};
    struct kvfs_error err = {.code = 0};
    struct kvfs_db_snap *snap;

    if (w->engine->begin(w->db, &snap, &err) != 0)
        fail_msg("a snapshot: %s", err.msg);
    for (unsigned i = 0; i < KEYS; i++) {
        uint8_t key[2] = {(uint8_t)(i >> 8), (uint8_t)i};
        int rc = w->engine->get(snap, KVFS_META, key, 2, 0, &iov, 1, NULL, &err);

        if (rc != (w->there[i] == 0 ? -ENOENT : 0) ||
            (rc == 0 && (value[0] != w->there[i] || value[VALUE_LEN - 1] != w->there[i])))
            fail_msg("key %u: %d, value %u where %u is right", i, rc, value[0], w->there[i]);
    }
    w->engine->end(snap);
}

/* New keys from KEY on until one is refused; the first that was. */
static uint16_t
world_fill(struct world *w, uint16_t key)
{
    while (key < KEYS && world_put(w, key, 2) == 0)
        key++;
    assert_true(key < KEYS);
    return key;
}

static int
remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static int
world_make(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    struct kvfs_error err = {.code = 0};

    assert_non_null(w);
    (void)snprintf(w->folder, sizeof(w->folder), "/tmp/kvfs-log-full-XXXXXX");
    assert_non_null(mkdtemp(w->folder));
    if (kvfs_engine_find("log:lmdb", &w->engine, &err) != 0)
        fail_msg("%s", err.msg);
    world_open(w, true);
    for (uint16_t i = 0; i < 64; i++)
        assert_int_equal(world_put(w, i, 1), 0);
    atomic_store(&full, true);
    *state = w;
    return 0;
}

static int
world_end(void **state)
{
    struct world *w = *state;

    atomic_store(&full, false);
    w->engine->close(w->db);
    // NOLINTNEXTLINE(concurrency-mt-unsafe): one thread runs
    (void)nftw(w->folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(w);
    return 0;
}

static void
full_medium__batches_were_logged__refused_and_nothing_lost(void **state)
{
    struct world *w = *state;
    uint16_t end = world_fill(w, 64);
    struct kvfs_error err = {.code = 0};

    world_compare(w);
    if (w->engine->sync(w->db, &err) != 0)
        fail_msg("a sync: %s", err.msg);
    assert_int_equal(world_put(w, end, 2), -ENOSPC);
    atomic_store(&full, false);
    assert_int_equal(world_put(w, end, 3), 0);
    world_compare(w);
    w->engine->close(w->db);
    world_open(w, false);
    world_compare(w);
}

static void
full_medium__keys_are_deleted__there_is_room_again(void **state)
{
    struct world *w = *state;
    uint16_t end = world_fill(w, 64);

    for (uint16_t i = 0; i < end; i = (uint16_t)(i + 16))
        world_del(w, i, i + 16 < end ? (uint16_t)(i + 16) : end);
    world_compare(w);
    for (uint16_t i = 0; i < 8; i++)
        assert_int_equal(world_put(w, i, 4), 0);
    world_compare(w);
}

/* Whoever asks for room after deleting must not have to wait for a fold that comes by itself. */
static void
full_medium__keys_are_deleted__their_room_is_told_at_once(void **state)
{
    struct world *w = *state;
    uint16_t end = world_fill(w, 64);
    struct kvfs_error err = {.code = 0};
    struct kvfs_engine_stat stat;

    world_del(w, 0, end);
    assert_int_equal(w->engine->stat(w->db, &stat, &err), 0);
    assert_true(stat.avail_bytes > (uint64_t)end * VALUE_LEN / 2);
}

static void
full_medium__store_is_opened_again__reads_and_deletes_go_on(void **state)
{
    struct world *w = *state;
    uint16_t end = world_fill(w, 64);

    w->engine->close(w->db);
    world_open(w, false);
    world_compare(w);
    world_del(w, 0, end);
    world_compare(w);
    assert_int_equal(world_put(w, 64, 5), 0);
    w->engine->close(w->db);
    world_open(w, false);
    world_compare(w);
}

/* Room that is asked for now and then must not be less than what a batch takes. */
static void
roomy_medium__large_batch__is_logged(void **state)
{
    const struct kvfs_engine_options options = {
        .create = true, .params = "log-first=16777216,log-unfolded=16777216"};
    char folder[] = "/tmp/kvfs-log-full-XXXXXX";
    static uint8_t value[VALUE_LEN];
    static uint8_t keys[512][2];
    static struct kvfs_op ops[512];
    const struct kvfs_batch batch = {.ops = ops, .ops_count = 512};
    struct kvfs_error err = {.code = 0};
    struct kvfs_engine_stat stat;
    const struct kvfs_engine *e;
    struct kvfs_db *db;

    (void)state;
    assert_non_null(mkdtemp(folder));
    assert_int_equal(kvfs_engine_find("log:lmdb", &e, &err), 0);
    if (e->open(e, folder, &options, &db, &err) != 0)
        fail_msg("opening: %s", err.msg);
    for (unsigned i = 0; i < 512; i++) {
        keys[i][0] = (uint8_t)(i >> 8);
        keys[i][1] = (uint8_t)(i | 1); /* some twice */
        ops[i] = (struct kvfs_op){.type = KVFS_OP_PUT, .keyspace = KVFS_META, .key = keys[i],
                                  .key_len = 2,
                                  .value = {{.iov_base = value, .iov_len = sizeof(value)}}};
    }
    if (e->apply(db, &batch, KVFS_DURABLE, &err) != 0)
        fail_msg("a batch: %s", err.msg);
    assert_int_equal(e->stat(db, &stat, &err), 0);
    assert_true(stat.log_used_bytes > (uint64_t)512 * VALUE_LEN);
    e->close(db);
    // NOLINTNEXTLINE(concurrency-mt-unsafe): one thread runs
    (void)nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(roomy_medium__large_batch__is_logged),
        cmocka_unit_test_setup_teardown(full_medium__batches_were_logged__refused_and_nothing_lost,
                                        world_make, world_end),
        cmocka_unit_test_setup_teardown(full_medium__keys_are_deleted__there_is_room_again,
                                        world_make, world_end),
        cmocka_unit_test_setup_teardown(full_medium__keys_are_deleted__their_room_is_told_at_once,
                                        world_make, world_end),
        cmocka_unit_test_setup_teardown(full_medium__store_is_opened_again__reads_and_deletes_go_on,
                                        world_make, world_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
