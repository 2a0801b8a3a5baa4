/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The engine below has no place for another reader: who waits for one keeps nobody from giving
 * one back, and a batch that cannot be judged without one fails alone and clean.  It has no memory
 * for a scan: that has failed for good.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <ftw.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <lmdb.h>

#include <kvfs/engine.h>

static atomic_bool full; /* all places are taken */
static _Thread_local bool poor; /* no memory */
static sem_t refused;    /* somebody was told so */
static char folder[64];
static const struct kvfs_engine *engine;
static struct kvfs_db *db;

int __real_mdb_txn_renew(MDB_txn *txn);
int __wrap_mdb_txn_renew(MDB_txn *txn);
void __real_mdb_txn_reset(MDB_txn *txn);
void __wrap_mdb_txn_reset(MDB_txn *txn);
int __real_mdb_txn_begin(MDB_env *env, MDB_txn *parent, unsigned flags, MDB_txn **txn);
int __wrap_mdb_txn_begin(MDB_env *env, MDB_txn *parent, unsigned flags, MDB_txn **txn);

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);

static bool
taken(void)
{
    if (!atomic_load(&full))
        return false;
    (void)sem_post(&refused);
    return true;
}

int
__wrap_mdb_txn_renew(MDB_txn *txn)
{
    return taken() ? MDB_READERS_FULL : __real_mdb_txn_renew(txn);
}

int
__wrap_mdb_txn_begin(MDB_env *env, MDB_txn *parent, unsigned flags, MDB_txn **txn)
{
    if ((flags & MDB_RDONLY) != 0 && taken())
        return MDB_READERS_FULL;
    return __real_mdb_txn_begin(env, parent, flags, txn);
}

void *
__wrap_malloc(size_t size)
{
    return poor ? NULL : __real_malloc(size);
}

void
__wrap_mdb_txn_reset(MDB_txn *txn)
{
    __real_mdb_txn_reset(txn);
    atomic_store(&full, false); /* a place was given back */
}

static int
setup(void **state)
{
    const struct kvfs_engine_options options = {.create = true, .params = "log-size=65536"};
    struct kvfs_error err = {0};

    (void)state;
    (void)snprintf(folder, sizeof(folder), "/tmp/kvfs-log-busy-XXXXXX");
    assert_non_null(mkdtemp(folder));
    assert_int_equal(sem_init(&refused, 0, 0), 0);
    if (kvfs_engine_find("log:lmdb", &engine, &err) != 0 ||
        engine->open(engine, folder, &options, &db, &err) != 0)
        fail_msg("%s", err.msg);
    return 0;
}

static int
remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static int
teardown(void **state)
{
    (void)state;
    engine->close(db);
    (void)sem_destroy(&refused);
    // NOLINTNEXTLINE(concurrency-mt-unsafe): there is one thread
    (void)nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return 0;
}

static void *
begin_and_end(void *arg)
{
    struct kvfs_error *err = arg;
    struct kvfs_db_snap *snap;

    if (engine->begin(db, &snap, err) == 0)
        engine->end(snap);
    return NULL;
}

static void
begin__no_place__one_given_back_meanwhile_is_taken(void **state)
{
    struct kvfs_error err = {0}, waited = {0};
    struct kvfs_db_snap *snap;
    pthread_t thread;

    (void)state;
    if (engine->begin(db, &snap, &err) != 0)
        fail_msg("%s", err.msg);
    atomic_store(&full, true);
    assert_int_equal(pthread_create(&thread, NULL, begin_and_end, &waited), 0);
    assert_int_equal(sem_wait(&refused), 0);
    engine->end(snap);
    assert_int_equal(pthread_join(thread, NULL), 0);
    if (waited.code != 0)
        fail_msg("%s", waited.msg);
}

static int
put(bool expect, struct kvfs_error *err)
{
    struct kvfs_op ops[2] = {
        {.type = KVFS_OP_PUT, .keyspace = KVFS_META, .key = "k", .key_len = 1},
        {.type = KVFS_OP_EXPECT_ABSENT, .keyspace = KVFS_META, .key = "l", .key_len = 1},
    };
    const struct kvfs_batch batch = {.ops = ops, .ops_count = expect ? 2 : 1};

    return engine->apply(db, &batch, KVFS_DURABLE, err);
}

static void
apply__no_place_to_judge_it__clean_and_alone(void **state)
{
    struct kvfs_error err = {0};

    (void)state;
    assert_int_equal(put(false, &err), 0); /* asks how much room there is, which takes a place */
    atomic_store(&full, true);
    assert_int_equal(put(true, &err), -ENOMEM);
    assert_int_equal(err.code, -ENOMEM);
    assert_int_equal(put(false, &err), 0);
    atomic_store(&full, false);
    assert_int_equal(put(true, &err), 0);
}

static void
apply(const struct kvfs_op *ops, size_t count)
{
    const struct kvfs_batch batch = {.ops = ops, .ops_count = count};
    struct kvfs_error err = {0};

    if (engine->apply(db, &batch, KVFS_DURABLE, &err) != 0)
        fail_msg("%s", err.msg);
}

/* A deleted range in the log lets the scan below begin anew behind it, which fails. */
static void
cursor_next__scan_cannot_go_on__fails_again(void **state)
{
    const struct kvfs_engine_options options = {.create = false};
    const struct kvfs_op puts[3] = {
        {.type = KVFS_OP_PUT, .keyspace = KVFS_META, .key = "a", .key_len = 1},
        {.type = KVFS_OP_PUT, .keyspace = KVFS_META, .key = "b", .key_len = 1},
        {.type = KVFS_OP_PUT, .keyspace = KVFS_META, .key = "c", .key_len = 1},
    };
    const struct kvfs_op range = {.type = KVFS_OP_DEL_RANGE, .keyspace = KVFS_META, .key = "b",
                                  .key_len = 1, .key_end = "bb", .key_end_len = 2};
    struct kvfs_error err = {0};
    struct kvfs_db_cursor *c;
    struct kvfs_db_snap *snap;
    size_t key_len, value_len;
    const void *key;

    (void)state;
    apply(puts, 3);
    engine->close(db); /* now they are below */
    assert_int_equal(engine->open(engine, folder, &options, &db, &err), 0);
    apply(&range, 1);
    assert_int_equal(engine->begin(db, &snap, &err), 0);
    assert_int_equal(engine->cursor_open(snap, KVFS_META, NULL, 0, NULL, 0, 0, &c, &err), 0);
    assert_int_equal(engine->cursor_next(c, &key, &key_len, &value_len, &err), 1);
    poor = true;
    assert_int_equal(engine->cursor_next(c, &key, &key_len, &value_len, &err), -ENOMEM);
    poor = false;
    assert_int_equal(engine->cursor_next(c, &key, &key_len, &value_len, &err), -ENOMEM);
    engine->cursor_close(c);
    engine->end(snap);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(begin__no_place__one_given_back_meanwhile_is_taken),
        TEST(apply__no_place_to_judge_it__clean_and_alone),
        TEST(cursor_next__scan_cannot_go_on__fails_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
