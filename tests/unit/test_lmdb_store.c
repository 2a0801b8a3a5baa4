/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The lmdb engine beyond the contract: space, opening, readers, other processes.
 */
#include "lmdb_world.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- space ------------------------------------------------------------------------ */

#define SPACE_BLOCKS 8192u
#define SPACE_BATCH  32u

static void
space__random_fill__within_5_percent(void **state)
{
    struct world *w = *state;
    uint32_t *order = malloc(SPACE_BLOCKS * sizeof(*order));
    struct kvfs_engine_stat told;
    uint64_t payload;
    struct stat st;
    char first[256];

    assert_non_null(order);
    world_open(w);
    for (uint32_t i = 0; i < SPACE_BLOCKS; i++) {
        uint32_t j = (uint32_t)(world_random(w) % (i + 1));

        order[i] = order[j];
        order[j] = i;
    }
    for (uint32_t i = 0; i < SPACE_BLOCKS; i++) {
        world_put(w, order[i], 1);
        if (i % SPACE_BATCH == SPACE_BATCH - 1)
            world_commit(w, KVFS_NONE);
    }
    free(order);
    told = world_stat(w);
    payload = (uint64_t)SPACE_BLOCKS * w->block;
    assert_int_equal(told.data_records, SPACE_BLOCKS);
    assert_int_equal(stat(w->file, &st), 0);
    (void)printf("space: in use %.4f, file %.4f, blocks of the file system %.4f of the payload\n",
                 (double)told.used_bytes / (double)payload, (double)st.st_size / (double)payload,
                 (double)st.st_blocks * 512 / (double)payload);
    assert_int_equal(told.store_bytes, st.st_size);
    assert_true(told.used_bytes * 100 <= payload * 105);
    assert_true(told.store_bytes * 100 <= payload * 105);
    assert_int_equal(told.used_bytes + told.free_bytes, told.store_bytes);
    for (uint32_t i = 0; i < SPACE_BLOCKS; i += 97)
        assert_int_equal(world_check(w, i, 1), 0);
    assert_int_equal(world_verify(w, first), 0);
}

static void
space__sequential_fill__leaves_full(void **state)
{
    struct world *w = *state;
    uint64_t payload;

    world_open(w);
    for (uint32_t i = 0; i < SPACE_BLOCKS; i++) {
        world_put(w, i, 1);
        if (i % 256 == 255)
            world_commit(w, KVFS_NONE);
    }
    payload = (uint64_t)SPACE_BLOCKS * w->block;
    assert_true(world_stat(w).used_bytes * 1000 <= payload * 1022);
}

/* A DATA key in LMDB ends with bytes of its value: a new value can lie before the
 * separator that the old one left behind, and become a separator there itself. */
static void
overwrite__any_lengths__sound(void **state)
{
    struct world *w = *state;
    char first[256];

    world_open(w);
    for (uint32_t i = 0; i < 20000; i++) {
        uint8_t value[4500], key[KVFS_DATA_KEY_LEN];
        size_t len = world_random(w) % 2 == 0 ? 4080 + world_random(w) % 300
                                              : 1 + world_random(w) % 2000;

        for (size_t at = 0; at < len; at++)
            value[at] = (uint8_t)world_random(w);
        world_key(key, 1, world_random(w) % 100);
        if (world_random(w) % 3 == 0)
            kvfs_batch_del(w->batch, KVFS_DATA, key, sizeof(key));
        else
            kvfs_batch_put(w->batch, KVFS_DATA, key, sizeof(key), value, len);
        world_commit(w, KVFS_NONE);
        if (i % 100 == 0 && world_verify(w, first) != 0)
            fail_msg("after %u: %s", (unsigned)i, first);
    }
}

/* --- opening ---------------------------------------------------------------------------- */

static void
open__no_store__enoent_and_nothing_made(void **state)
{
    const struct kvfs_engine_options options = {.create = false};
    const struct kvfs_engine_options readonly = {.create = true, .readonly = true};
    struct world *w = *state;

    assert_int_equal(world_try(w, &options), -ENOENT);
    assert_int_equal(world_try(w, &readonly), -ENOENT);
    assert_int_equal(rmdir(w->store), 0); /* empty as it was */
    assert_int_equal(world_try(w, &options), -ENOENT);
    assert_int_equal(mkdir(w->store, 0777), 0);
}

static void
open__unknown_params__einval(void **state)
{
    struct world *w = *state;
    static const char *const bad[] = {"fast=1", "readahead", "readahead=2", "unsafe-nosync=",
                                      "=1", "readahead=0,", "readahead=1,x=1"};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const struct kvfs_engine_options options = {.create = true, .params = bad[i]};
        int rc = world_try(w, &options);

        if (strcmp(bad[i], "readahead=0,") == 0) { /* a comma at the end is no name */
            assert_int_equal(rc, 0);
            world_close(w);
        } else {
            assert_int_equal(rc, -EINVAL);
        }
    }
}

static void
open_write(const char *path, const void *bytes, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, len), len);
    assert_int_equal(close(fd), 0);
}

static void
open__other_files__einval(void **state)
{
    const struct kvfs_engine_options options = {.create = true};
    struct world *w = *state;
    uint8_t bytes[8192] = {0};
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    struct stat st;

    open_write(w->file, "hello", 5);
    assert_int_equal(world_try(w, &options), -EINVAL);
    open_write(w->file, bytes, sizeof(bytes));
    assert_int_equal(world_try(w, &options), -EINVAL);
    assert_int_equal(stat(w->file, &st), 0);
    assert_int_equal(st.st_size, sizeof(bytes)); /* left as it was */
    assert_int_equal(unlink(w->file), 0);
    assert_int_equal(mkdir(w->file, 0777), 0);
    assert_int_equal(world_try(w, &options), -EINVAL);
    assert_int_equal(rmdir(w->file), 0);

    assert_int_equal(mdb_env_create(&env), 0); /* somebody else's LMDB store */
    assert_int_equal(mdb_env_open(env, w->store, 0, 0666), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, NULL, 0, &dbi), 0);
    assert_int_equal(mdb_put(txn, dbi, &(MDB_val){1, bytes}, &(MDB_val){1, bytes}, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
    assert_int_equal(world_try(w, &options), -EINVAL);
}

static void
open__readonly_medium__readable(void **state)
{
    const struct kvfs_engine_options readonly = {.readonly = true};
    struct world *w = *state;
    char lock[120];

    world_open(w);
    world_put(w, 3, 1);
    world_commit(w, KVFS_DURABLE);
    world_close(w);
    (void)snprintf(lock, sizeof(lock), "%s/lock.mdb", w->store);
    assert_int_equal(unlink(lock), 0);
    assert_int_equal(mkdir(lock, 0777), 0); /* a lock file cannot be had, for root either */
    assert_int_not_equal(world_try(w, &readonly), 0);
    assert_int_equal(rmdir(lock), 0);
    if (geteuid() == 0) { /* without root's powers: in a child */
        int pid = world_fork();

        if (pid == 0) {
            int rc;

            if (chmod(w->folder, 0755) != 0 || chmod(w->store, 0555) != 0 || chmod(w->file, 0444) != 0 ||
                setuid(65534) != 0)
                _exit(2);
            rc = world_try(w, &readonly);
            _exit(rc != 0 || world_check(w, 3, 1) != 0 || world_stat(w).avail_bytes != 0);
        }
        world_join(pid);
        assert_int_equal(access(lock, F_OK), -1);
    }
}

/* --- readers -------------------------------------------------------------------------------- */

static void
begin__all_places_taken__ebusy_until_one_ends(void **state)
{
    struct world *w = *state;
    struct kvfs_engine_limits limits;
    struct kvfs_db_snap **snaps;
    struct kvfs_db_snap *more;
    uint32_t n;

    world_open(w);
    w->engine->limits(w->db, &limits);
    snaps = calloc(limits.snapshots_max + 1, sizeof(struct kvfs_db_snap *)); // NOLINT(bugprone-sizeof-expression)
    assert_non_null(snaps);
    for (n = 0; w->engine->begin(w->db, &snaps[n], &w->err) == 0; n++)
        assert_true(n < limits.snapshots_max);
    assert_int_equal(w->err.code, -EBUSY);
    assert_int_equal(n, limits.snapshots_max);
    w->engine->end(snaps[--n]);
    assert_int_equal(w->engine->begin(w->db, &more, &w->err), 0);
    w->engine->end(more);
    while (n > 0)
        w->engine->end(snaps[--n]);
    free(snaps);
    assert_int_equal(world_stat(w).readers, 0);
}

/* Overwrite one block again and again; how much the store grows. */
static uint64_t
readers_growth(struct world *w, unsigned rounds)
{
    uint64_t before = world_stat(w).store_bytes;

    for (unsigned i = 0; i < rounds; i++) {
        world_put(w, i % 7, i);
        world_commit(w, KVFS_NONE);
    }
    return world_stat(w).store_bytes - before;
}

static void
reader__killed_with_a_snapshot__pages_come_free(void **state)
{
    struct world *w = *state;
    int ready[2];
    char byte;
    int pid, status;

    assert_int_equal(pipe(ready), 0);
    world_open(w);
    world_put(w, 0, 0);
    world_commit(w, KVFS_DURABLE);
    world_close(w);
    pid = world_fork();
    if (pid == 0) {
        struct kvfs_db_snap *snap;

        world_open(w);
        if (w->engine->begin(w->db, &snap, &w->err) != 0 || write(ready[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            (void)pause();
    }
    assert_int_equal(close(ready[1]), 0);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    world_open(w);
    assert_true(readers_growth(w, 100) >= 90 * (uint64_t)w->block); /* it holds all back */
    assert_int_equal(world_stat(w).readers, 1);
    assert_int_equal(world_stat(w).readers_pid, pid);
    assert_int_equal(world_stat(w).readers_lag, 100);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(readers_growth(w, 200) <= 20 * (uint64_t)w->block);
    assert_int_equal(world_stat(w).readers, 0);
    assert_int_equal(close(ready[0]), 0);
}

static void
snapshot__ended__holds_nothing_back(void **state)
{
    struct world *w = *state;
    struct kvfs_db_snap *snaps[10];

    world_open(w);
    for (int i = 0; i < 10; i++)
        assert_int_equal(w->engine->begin(w->db, &snaps[i], &w->err), 0);
    for (int i = 0; i < 10; i++)
        w->engine->end(snaps[i]); /* they keep their places */
    assert_true(readers_growth(w, 300) <= 60 * (uint64_t)w->block);
}

/* --- other processes ----------------------------------------------------------------------- */

static void
fork__child__ebadf(void **state)
{
    struct world *w = *state;
    struct kvfs_engine_stat stat;
    struct kvfs_db_snap *snap, *other;
    struct kvfs_db_cursor *cursor;
    const struct kvfs_batch none = {.ops_count = 0};
    char first[256];
    int pid;

    world_open(w);
    world_put(w, 1, 1);
    world_commit(w, KVFS_NONE);
    assert_int_equal(w->engine->begin(w->db, &snap, &w->err), 0);
    pid = world_fork();
    if (pid == 0) {
        bool ok = w->engine->begin(w->db, &other, &w->err) == -EBADF &&
                  w->engine->stat(w->db, &stat, &w->err) == -EBADF &&
                  w->engine->apply(w->db, &none, KVFS_NONE, &w->err) == -EBADF &&
                  w->engine->sync(w->db, &w->err) == -EBADF &&
                  w->engine->get(snap, KVFS_META, "x", 1, 0, NULL, 0, NULL, &w->err) == -EBADF &&
                  w->engine->cursor_open(snap, KVFS_META, NULL, 0, NULL, 0, 0, &cursor, &w->err) ==
                      -EBADF &&
                  w->engine->verify(w->db, NULL, NULL, NULL, NULL, &w->err) == -EBADF;

        w->engine->end(snap);
        w->engine->close(w->db);
        _exit(ok ? 0 : 1);
    }
    world_join(pid);
    w->engine->end(snap);
    assert_int_equal(world_check(w, 1, 1), 0); /* the parent goes on */
    world_put(w, 1, 2);
    world_commit(w, KVFS_DURABLE);
    assert_int_equal(world_check(w, 1, 2), 0);
    assert_int_equal(world_verify(w, first), 0);
}

/* A child that opens the store without a limit and fills BLOCKS blocks when told. */
static int
grow_child(struct world *w, int go[2], int done[2], uint64_t blocks)
{
    int pid;

    assert_int_equal(pipe(go), 0);
    assert_int_equal(pipe(done), 0);
    pid = world_fork();
    if (pid == 0) {
        char byte;

        if (read(go[0], &byte, 1) != 1)
            _exit(1);
        world_open(w);
        for (uint64_t i = 0; i < blocks; i++) {
            world_put(w, i, 9);
            if (i % 64 == 63)
                world_commit(w, KVFS_NONE);
        }
        world_commit(w, KVFS_NONE);
        world_close(w);
        _exit(write(done[1], "x", 1) != 1);
    }
    return pid;
}

static void
map__grown_by_another_process__followed(void **state)
{
    struct world *w = *state;
    uint64_t blocks = ((uint64_t)12 << 20) / w->block;
    struct kvfs_db_snap *snap, *more;
    int go[2], done[2], pid;
    char byte, first[256];

    pid = grow_child(w, go, done, blocks);
    world_open_limit(w, (uint64_t)4 << 20);
    world_put(w, 5, 1);
    world_commit(w, KVFS_DURABLE);
    assert_int_equal(w->engine->begin(w->db, &snap, &w->err), 0);
    assert_int_equal(write(go[1], "x", 1), 1);
    assert_int_equal(read(done[0], &byte, 1), 1);
    world_join(pid);
    /* The open snapshot stays what it is, and keeps us from following. */
    assert_int_equal(w->engine->begin(w->db, &more, &w->err), -EBUSY);
    world_put(w, 6, 1);
    assert_int_equal(world_apply(w, KVFS_NONE), -EBUSY);
    w->engine->end(snap);
    for (uint64_t i = 0; i < blocks; i += 11)
        assert_int_equal(world_check(w, i, 9), 0);
    assert_int_equal(world_verify(w, first), 0);
    for (int i = 0; i < 2; i++) {
        (void)close(go[i]);
        (void)close(done[i]);
    }
}

/* Removed, or another file put in its place: nothing is acknowledged any more. */
static void
file__removed_or_replaced__eio(void **state)
{
    struct world *w = *state;
    char copy[120];

    for (int replaced = 0; replaced < 2; replaced++) {
        world_open(w);
        world_put(w, 1, 1);
        world_commit(w, KVFS_DURABLE);
        (void)snprintf(copy, sizeof(copy), "%s/copy", w->folder);
        if (replaced) {
            int fd = open(copy, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

            assert_true(fd >= 0);
            (void)close(fd);
            assert_int_equal(rename(copy, w->file), 0);
        } else {
            assert_int_equal(unlink(w->file), 0);
        }
        assert_int_equal(w->engine->sync(w->db, &w->err), -EIO);
        world_put(w, 2, 1);
        assert_int_equal(world_apply(w, KVFS_ORDERED), -EIO);
        assert_int_equal(world_check(w, 1, 1), 0);
        world_close(w);
        (void)unlink(w->file);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(space__random_fill__within_5_percent),
        TEST(space__sequential_fill__leaves_full),
        TEST_IN_MEMORY(overwrite__any_lengths__sound),
        TEST(open__no_store__enoent_and_nothing_made),
        TEST(open__unknown_params__einval),
        TEST(open__other_files__einval),
        TEST(open__readonly_medium__readable),
        TEST(begin__all_places_taken__ebusy_until_one_ends),
        TEST(reader__killed_with_a_snapshot__pages_come_free),
        TEST(snapshot__ended__holds_nothing_back),
        TEST(fork__child__ebadf),
        TEST(map__grown_by_another_process__followed),
        TEST(file__removed_or_replaced__eio),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
