/* SPDX-License-Identifier: BSD-3-Clause
 *
 * A hybrid whose DATA is full, with batches that change both sides: refused whole, META as it
 * was, before a reader, after a restart and after a death; deleting works; room comes back.
 */
#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <kvfs/batch.h>

#define FULL_BYTES  ((uint64_t)32 << 20)
#define FULL_BLOCK  4120u
#define FULL_BLOCKS 16u /* of a batch */
#define FULL_CYCLES 3u

struct full {
    const struct kvfs_engine *engine;
    struct kvfs_db *db;
    struct kvfs_batch_builder *b;
    uint64_t from, to; /* batches [from, to) are there */
    char folder[64];
};

static void
full_open(struct full *f)
{
    const struct kvfs_engine_options options = {.create = true, .store_max_bytes = FULL_BYTES};
    struct kvfs_error err = {0};

    if (f->engine->open(f->engine, f->folder, &options, &f->db, &err) != 0)
        fail_msg("%s", err.msg);
}

static void
full_block(uint64_t batch, unsigned i, uint8_t key[KVFS_DATA_KEY_LEN])
{
    memset(key, 0, KVFS_DATA_KEY_LEN);
    for (int j = 0; j < 8; j++)
        key[j] = (uint8_t)(batch >> (56 - 8 * j));
    key[15] = (uint8_t)i;
}

/* Batch f->to: its number in META, of which a range goes and comes, and blocks. */
static int
full_put(struct full *f)
{
    static uint8_t value[FULL_BLOCK];
    uint8_t key[KVFS_DATA_KEY_LEN];
    struct kvfs_error err = {0};
    struct kvfs_batch batch;
    int rc;

    kvfs_batch_reset(f->b);
    kvfs_batch_del_range(f->b, KVFS_META, "r", 1, "s", 1);
    for (unsigned i = 0; i < 5; i++) {
        const char name[] = {'r', (char)(f->to % 7), (char)i};

        kvfs_batch_put(f->b, KVFS_META, name, sizeof(name), &f->to, sizeof(f->to));
    }
    kvfs_batch_put(f->b, KVFS_META, "n", 1, &f->to, sizeof(f->to));
    memcpy(value, &f->to, sizeof(f->to));
    for (unsigned i = 0; i < FULL_BLOCKS; i++) {
        full_block(f->to, i, key);
        kvfs_batch_put(f->b, KVFS_DATA, key, sizeof(key), value, sizeof(value));
    }
    assert_int_equal(kvfs_batch_end(f->b, &batch), 0);
    rc = f->engine->apply(f->db, &batch, (enum kvfs_durability)(f->to % 3), &err);
    if (rc != 0 && rc != -ENOSPC)
        fail_msg("%s: %s", f->engine->name, err.msg);
    if (rc == 0)
        f->to++;
    return rc;
}

static void
full_check_scan(struct full *f, struct kvfs_db_snap *snap)
{
    struct kvfs_error err = {0};
    struct kvfs_db_cursor *c;
    size_t key_len, value_len;
    const void *key;
    uint64_t n = 0;

    assert_int_equal(f->engine->cursor_open(snap, KVFS_META, "r", 1, "s", 1, 0, &c, &err), 0);
    while (f->engine->cursor_next(c, &key, &key_len, &value_len, &err) == 1) {
        assert_int_equal(key_len, 3);
        assert_int_equal(((const char *)key)[1], (f->to - 1) % 7);
        n++;
    }
    f->engine->cursor_close(c);
    assert_int_equal(n, 5);
    n = 0;
    assert_int_equal(f->engine->cursor_open(snap, KVFS_DATA, NULL, 0, NULL, 0, KVFS_SCAN_KEYS_ONLY,
                                            &c, &err), 0);
    while (f->engine->cursor_next(c, &key, &key_len, &value_len, &err) == 1)
        n++;
    f->engine->cursor_close(c);
    assert_int_equal(n, (f->to - f->from) * FULL_BLOCKS);
}

/* The state is that of the newest batch, on both sides. */
static void
full_check(struct full *f)
{
    struct kvfs_db_snap *snap;
    struct kvfs_error err = {0};
    uint64_t n = 0;
    struct iovec iov = {&n, sizeof(n)};

    if (f->engine->begin(f->db, &snap, &err) != 0)
        fail_msg("%s: %s", f->engine->name, err.msg);
    assert_int_equal(f->engine->get(snap, KVFS_META, "n", 1, 0, &iov, 1, NULL, &err), 0);
    assert_int_equal(n, f->to - 1);
    full_check_scan(f, snap);
    f->engine->end(snap);
}

/* The older half goes, by a batch over both sides. */
static void
full_delete(struct full *f)
{
    uint64_t half = f->from + (f->to - f->from) / 2;
    uint8_t lo[KVFS_DATA_KEY_LEN], hi[KVFS_DATA_KEY_LEN];
    struct kvfs_error err = {0};
    struct kvfs_batch batch;

    full_block(f->from, 0, lo);
    full_block(half, 0, hi);
    kvfs_batch_reset(f->b);
    kvfs_batch_del_range(f->b, KVFS_DATA, lo, sizeof(lo), hi, sizeof(hi));
    kvfs_batch_put(f->b, KVFS_META, "d", 1, &half, sizeof(half));
    assert_int_equal(kvfs_batch_end(f->b, &batch), 0);
    if (f->engine->apply(f->db, &batch, KVFS_DURABLE, &err) != 0)
        fail_msg("%s: deleting: %s", f->engine->name, err.msg);
    f->from = half;
    full_check(f);
}

/* The process ends without closing, in the middle of being refused. */
static void
full_die(struct full *f)
{
    pid_t pid;
    int status = -1;

    f->engine->close(f->db);
    (void)fflush(NULL);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        full_open(f);
        _exit(full_put(f) == -ENOSPC ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (status != 0) /* it found room after all */
        f->to++;
    full_open(f);
    full_check(f);
}

static int
full_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void
full_pair(const char *name)
{
    struct full f = {.folder = "/tmp/kvfs-hybrid-XXXXXX"};
    uint64_t first = 0;

    if (kvfs_engine_find(name, &f.engine, NULL) != 0)
        return; /* not built */
    assert_non_null(mkdtemp(f.folder));
    f.b = kvfs_batch_new();
    assert_non_null(f.b);
    full_open(&f);
    for (unsigned cycle = 0; cycle < FULL_CYCLES; cycle++) {
        while (full_put(&f) == 0)
            assert_true((f.to - f.from) * FULL_BLOCKS * FULL_BLOCK < FULL_BYTES);
        if (cycle == 0)
            first = f.to;
        (void)printf("%s: full with %llu KiB\n", name,
                     (unsigned long long)(f.to - f.from) * FULL_BLOCKS * FULL_BLOCK >> 10);
        assert_true(f.to - f.from >= first / 2);
        full_check(&f);
        assert_int_equal(full_put(&f), -ENOSPC);
        full_check(&f);
        if (cycle == 0 && strstr(name, "rocksdb") == NULL) /* its threads do not cross fork() */
            full_die(&f);
        full_delete(&f);
        f.engine->close(f.db);
        full_open(&f);
        full_check(&f);
    }
    f.engine->close(f.db);
    kvfs_batch_free(f.b);
    // NOLINTNEXTLINE(concurrency-mt-unsafe): there is one thread
    (void)nftw(f.folder, full_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void
full__batches_over_both_sides__refused_whole(void **state)
{
    static const char *const pairs[] = {"hybrid:lmdb+lmdb",
                                        "hybrid:lmdb+sqlite", "hybrid:sqlite+lmdb",
                                        "hybrid:lmdb+rocksdb", "hybrid:rocksdb+lmdb"};

    (void)state;
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
        full_pair(pairs[i]);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full__batches_over_both_sides__refused_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
