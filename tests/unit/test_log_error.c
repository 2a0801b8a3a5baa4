/* SPDX-License-Identifier: BSD-3-Clause
 *
 * One write or flush of the log fails, and the process goes on: from then on nothing is
 * acknowledged, reads go on, and after a power cut the next open finds every batch that was
 * acknowledged as durable.  At every step that the log's file takes, and whatever the file
 * system says to it: the engine never promises that nothing was changed.  Then the same with the
 * store opened again and used before the power cut.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <kvfs/batch.h>
#include <kvfs/engine.h>

#include "../../engines/log/log_priv.h"
#include "file_cut.h"

#define BATCHES   40u
#define VALUE_LEN 2000u

static struct cut_control control;
static uint64_t steps, fails_at = UINT64_MAX; /* the step that fails */
static atomic_bool all_fail;

static bool
error_step(void)
{
    return ++steps == fails_at || atomic_load(&all_fail);
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
put(const struct kvfs_engine *e, struct kvfs_db *db, uint32_t number, struct kvfs_error *err)
{
    static uint8_t value[VALUE_LEN];
    struct kvfs_op op = {.type = KVFS_OP_PUT, .keyspace = KVFS_META, .key = "k", .key_len = 1,
                         .value = {{.iov_base = value, .iov_len = sizeof(value)}}};
    const struct kvfs_batch batch = {.ops = &op, .ops_count = 1};

    memset(value, 1, sizeof(value));
    memcpy(value, &number, sizeof(number));
    /* The others are only ordered: a flush makes good for them, or nobody does. */
    return e->apply(db, &batch, number % 3 == 2 ? KVFS_ORDERED : KVFS_DURABLE, err);
}

/* The number of the newest batch. */
static uint32_t
newest(const struct kvfs_engine *e, struct kvfs_db *db)
{
    struct kvfs_error err = {.code = 0};
    struct kvfs_db_snap *snap;
    uint32_t number = 0;
    struct iovec iov = {.iov_base = &number, .iov_len = sizeof(number)};
    int rc;

    if (e->begin(db, &snap, &err) != 0)
        fail_msg("a snapshot: %s", err.msg);
    rc = e->get(snap, KVFS_META, "k", 1, 0, &iov, 1, NULL, &err);
    if (rc != 0 && rc != -ENOENT)
        fail_msg("a read: %s", err.msg);
    e->end(snap);
    return number;
}

/* Batch I, and where it is only ordered a sync behind some of them. */
static int
put_sync(const struct kvfs_engine *e, struct kvfs_db *db, uint32_t i, bool *synced,
         struct kvfs_error *err)
{
    int rc = put(e, db, i, err);

    *synced = rc == 0 && i % 6 == 5 && (rc = e->sync(db, err)) == 0;
    return rc;
}

/* Batches until one fails, and some more, which must fail as well; the newest that was
 * acknowledged as durable. */
static uint32_t
run(const struct kvfs_engine *e, struct kvfs_db *db)
{
    struct kvfs_error err = {.code = 0};
    uint32_t durable = 0, seen = 0;
    bool failed = false, synced;

    for (uint32_t i = 1; i <= BATCHES; i++) {
        int rc = put_sync(e, db, i, &synced, &err);

        if (rc != 0 && rc != -EIO)
            fail_msg("step %llu: batch %u: %d: %s", (unsigned long long)fails_at, i, rc, err.msg);
        if (rc == 0 && failed)
            fail_msg("step %llu: batch %u is taken after one failed", (unsigned long long)fails_at,
                     i);
        failed = rc != 0;
        if (rc == 0) {
            seen = i;
            durable = i % 3 == 2 && !synced ? durable : i;
        }
    }
    if (failed && e->sync(db, &err) == 0)
        fail_msg("step %llu: a sync succeeds after a failure", (unsigned long long)fails_at);
    if (newest(e, db) < seen)
        fail_msg("step %llu: batch %u is not to be seen", (unsigned long long)fails_at, seen);
    return durable;
}

static struct kvfs_engine_options options = {.create = true,
                                             .params = "log-size=65536,log-piece=1"};

/* Opened again while the kernel still holds what was not flushed, and one more batch that is
 * acknowledged: its number.  The one behind it fails, so closing brings nothing down. */
static uint32_t
run_again(const struct kvfs_engine *e, const char *folder, uint32_t durable)
{
    const uint32_t more = 3 * BATCHES; /* DURABLE */
    struct kvfs_error err = {.code = 0};
    uint64_t at = fails_at;
    struct kvfs_db *db;

    fails_at = UINT64_MAX;
    if (e->open(e, folder, &options, &db, &err) != 0)
        fail_msg("step %llu: opening at once: %s", (unsigned long long)at, err.msg);
    if (newest(e, db) < durable)
        fail_msg("step %llu: batch %u is missing at once", (unsigned long long)at, durable);
    if (put(e, db, more, &err) != 0)
        fail_msg("step %llu: one more batch: %s", (unsigned long long)at, err.msg);
    atomic_store(&all_fail, true);
    if (put(e, db, more + 1, &err) == 0)
        fail_msg("step %llu: two more batches", (unsigned long long)at);
    e->close(db);
    atomic_store(&all_fail, false);
    fails_at = at;
    return more;
}

static void
error_at_any_step(int code, bool again)
{
    const struct kvfs_engine *e;
    struct kvfs_error err = {.code = 0};
    struct kvfs_db *db;
    uint32_t durable, found;
    uint64_t last = 1;

    if (kvfs_engine_find("log:lmdb", &e, &err) != 0)
        fail_msg("%s", err.msg);
    file_cut_error(code);
    for (fails_at = 1; fails_at <= last; fails_at++) {
        char folder[] = "/tmp/kvfs-log-error-XXXXXX";
        int rc;

        assert_non_null(mkdtemp(folder));
        file_cut_new(folder);
        steps = 0;
        durable = 0;
        rc = e->open(e, folder, &options, &db, &err);
        if (rc == 0) {
            durable = run(e, db);
            e->close(db);
        }
        if (steps >= fails_at) /* it has failed: there may be more to come */
            last = fails_at + 1;
        if (again)
            durable = run_again(e, folder, durable);
        file_cut_power(false);
        steps = UINT64_MAX / 2;
        if (e->open(e, folder, &options, &db, &err) != 0)
            fail_msg("step %llu: opening again: %s", (unsigned long long)fails_at, err.msg);
        found = newest(e, db);
        e->close(db);
        if (found < durable)
            fail_msg("step %llu: batch %u is found, %u was durable", (unsigned long long)fails_at,
                     found, durable);
        // NOLINTNEXTLINE(concurrency-mt-unsafe): one thread runs
        (void)nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    }
    print_message("%llu steps failed\n", (unsigned long long)last - 1);
    assert_true(last > 40);
}

static void
io_error__at_any_step__nothing_acknowledged_is_lost(void **state)
{
    (void)state;
    error_at_any_step(EIO, false);
}

static void
io_error__at_any_step_and_used_again__nothing_acknowledged_is_lost(void **state)
{
    (void)state;
    error_at_any_step(EIO, true);
}

static void
io_error__at_any_step_of_a_ring_that_grows__nothing_acknowledged_is_lost(void **state)
{
    const char *params = options.params;

    (void)state;
    options.params = "log-size=262144,log-first=65536,log-piece=1";
    error_at_any_step(EIO, false);
    error_at_any_step(EIO, true);
    options.params = params;
}

/* A ring is made anew, an empty one, as an idle store does; its step AT fails. */
static void
anew(const struct kvfs_engine *e, const char *folder, uint64_t at)
{
    struct kvfs_db *db;

    if (e->open(e, folder, &options, &db, NULL) != 0)
        return;
    if (kvfs_log_fold(db, true, NULL) == 0) {
        (void)pthread_mutex_lock(&db->writer);
        steps = 0;
        fails_at = at;
        if (kvfs_log_ring_anew(db, KVFS_RING_MIN, NULL) != 0)
            (void)kvfs_log_poison(db, -EIO);
        (void)pthread_mutex_unlock(&db->writer);
    }
    e->close(db);
}

static void
io_error__at_any_step_of_a_new_ring__nothing_acknowledged_is_lost(void **state)
{
    const struct kvfs_engine *e;
    struct kvfs_db *db;
    uint64_t last = 1;

    (void)state;
    assert_int_equal(kvfs_engine_find("log:lmdb", &e, NULL), 0);
    file_cut_error(EIO);
    for (uint64_t at = 1; at <= last; at++) {
        char folder[] = "/tmp/kvfs-log-error-XXXXXX";
        uint32_t durable;

        assert_non_null(mkdtemp(folder));
        file_cut_new(folder);
        fails_at = UINT64_MAX;
        assert_int_equal(e->open(e, folder, &options, &db, NULL), 0);
        assert_int_equal(put(e, db, 1, NULL), 0);
        e->close(db);
        anew(e, folder, at);
        if (steps >= at)
            last = at + 1;
        durable = run_again(e, folder, 1);
        file_cut_power(false);
        steps = UINT64_MAX / 2;
        fails_at = UINT64_MAX;
        assert_int_equal(e->open(e, folder, &options, &db, NULL), 0);
        if (newest(e, db) < durable)
            fail_msg("step %llu: batch %u is lost", (unsigned long long)at, durable);
        e->close(db);
        // NOLINTNEXTLINE(concurrency-mt-unsafe): one thread runs
        (void)nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    }
    print_message("%llu steps failed\n", (unsigned long long)last - 1);
    assert_true(last > 6);
}

/* --- the ring alone ----------------------------------------------------------------------- */

static int
ring_seen(void *arg, const struct kvfs_ring_at *at, const void *payload, size_t len)
{
    (void)at;
    (void)payload;
    (void)len;
    ++*(unsigned *)arg;
    return 0;
}

static bool
ring_put(struct kvfs_ring *r)
{
    uint8_t *payload = kvfs_ring_payload(r, VALUE_LEN);

    assert_non_null(payload);
    memset(payload, 7, VALUE_LEN);
    return kvfs_ring_append(r, VALUE_LEN, true, NULL, NULL) == 0;
}

static struct kvfs_ring *
ring_again(const struct kvfs_ring_file *file, unsigned *found)
{
    struct kvfs_ring_at first = kvfs_ring_first();
    struct kvfs_ring *r;

    *found = 0;
    assert_int_equal(kvfs_ring_open(file, false, &r, NULL), 0);
    assert_int_equal(kvfs_ring_recover(r, &first, ring_seen, found, NULL), 0);
    return r;
}

/* The flush of a longer ring's head fails, and the next writer puts a record behind the old end. */
static void
ring_of_failed_growth(const struct kvfs_ring_file *file)
{
    unsigned count = 0, found;
    struct kvfs_ring *r;

    assert_int_equal(kvfs_ring_make(file, KVFS_RING_MIN, NULL), 0);
    assert_int_equal(kvfs_ring_open(file, false, &r, NULL), 0);
    while (ring_put(r))
        count++;
    assert_int_equal(kvfs_ring_grow_prepare(r, 2 * KVFS_RING_MIN, NULL), 0);
    steps = 0;
    fails_at = 3; /* that of a write are two */
    assert_int_equal(kvfs_ring_grow(r, 2 * KVFS_RING_MIN, NULL), -EIO);
    fails_at = UINT64_MAX;
    kvfs_ring_close(r);
    r = ring_again(file, &found);
    assert_int_equal(found, count);
    assert_true(ring_put(r));
    kvfs_ring_close(r);
    file_cut_power(false);
    r = ring_again(file, &found);
    assert_int_equal(found, count + 1);
    kvfs_ring_close(r);
}

static void
io_error__of_a_growth_and_used_again__nothing_acknowledged_is_lost(void **state)
{
    static const uint8_t id[KVFS_RING_ID] = "a store's number";

    (void)state;
    file_cut_error(EIO);
    for (unsigned i = 0; i < 20; i++) { /* what a cut leaves is chance */
        char folder[] = "/tmp/kvfs-log-error-XXXXXX", path[64];
        struct kvfs_ring_file file = {.path = path, .id = id, .epoch = 1};

        assert_non_null(mkdtemp(folder));
        (void)snprintf(path, sizeof(path), "%s/log", folder);
        file_cut_new(folder);
        file.folder = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        ring_of_failed_growth(&file);
        (void)close(file.folder);
        // NOLINTNEXTLINE(concurrency-mt-unsafe): one thread runs
        (void)nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    }
}

/* --- other errors ----------------------------------------------------------------------------- */

/* File systems that copy on write, and thin devices: also for bytes that were written before. */
static void
no_room__at_any_step__an_io_error(void **state)
{
    (void)state;
    error_at_any_step(ENOSPC, false);
    error_at_any_step(EDQUOT, false);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(io_error__at_any_step__nothing_acknowledged_is_lost),
        cmocka_unit_test(io_error__at_any_step_and_used_again__nothing_acknowledged_is_lost),
        cmocka_unit_test(io_error__at_any_step_of_a_ring_that_grows__nothing_acknowledged_is_lost),
        cmocka_unit_test(io_error__at_any_step_of_a_new_ring__nothing_acknowledged_is_lost),
        cmocka_unit_test(io_error__of_a_growth_and_used_again__nothing_acknowledged_is_lost),
        cmocka_unit_test(no_room__at_any_step__an_io_error),
    };

    file_cut_use(error_step, &control);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
