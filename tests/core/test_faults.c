/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What becomes of acknowledged data when the engine refuses, or fails in a way
 * that leaves the outcome unknown.
 */
#include "core_world.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fault_engine.h"

static struct fault_hooks *hooks;
static int fault_code;        /* what the hooks answer */
static uint64_t fault_fork;   /* only batches with data of this fork; 0: all */
static unsigned fault_hits;

static bool
fault_concerns(const struct kvfs_batch *batch)
{
    for (size_t i = 0; i < batch->ops_count && fault_fork != 0; i++) {
        const unsigned char *key = batch->ops[i].key;
        uint64_t fork = 0;

        for (int n = 0; n < 8; n++)
            fork = fork << 8 | key[n];
        if (batch->ops[i].keyspace == KVFS_DATA && fork == fault_fork)
            return true;
    }
    return fault_fork == 0;
}

static int
fault_on_apply(const struct kvfs_batch *batch, enum kvfs_durability durability)
{
    (void)durability;
    if (fault_code == 0 || !fault_concerns(batch))
        return 0;
    fault_hits++;
    return fault_code;
}

static int
fault_on_sync(void)
{
    fault_hits++;
    return fault_code;
}

/* The fork of a file, from where the last batch with data put it. */
static uint64_t fault_seen_fork;

static int
fault_watch(const struct kvfs_batch *batch, enum kvfs_durability durability)
{
    (void)durability;
    for (size_t i = 0; i < batch->ops_count; i++) {
        const unsigned char *key = batch->ops[i].key;

        if (batch->ops[i].keyspace != KVFS_DATA)
            continue;
        fault_seen_fork = 0;
        for (int n = 0; n < 8; n++)
            fault_seen_fork = fault_seen_fork << 8 | key[n];
    }
    return 0;
}

static int
setup(void **state)
{
    (void)state;
    hooks->apply = fault_on_apply;
    hooks->sync = NULL;
    fault_code = 0;
    fault_fork = 0;
    fault_hits = 0;
    world_make(KVFS_FAULT_ENGINE, 0);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    hooks->apply = NULL;
    hooks->sync = NULL;
    world_remove();
    return 0;
}

static void
flush__unknown_outcome__poisons_until_reopened(void **state)
{
    struct kvfs_volume *v = world_open(KVFS_FAULT_ENGINE, 0);
    struct kvfs_file *f;
    struct kvfs_volume_info info;

    (void)state;
    (void)world_file(v, "d", 1 << 20);
    f = world_file_open(v, "d", KVFS_OPEN_WRITE);
    world_fill(f, 0, 65536, 'a');
    MUST(kvfs_file_flush(f, &world_err));
    world_fill(f, 4096, 8192, 'b');
    fault_code = -EIO;
    assert_int_equal(kvfs_file_flush(f, &world_err), -EIO);
    fault_code = 0; /* it stays poisoned all the same */
    assert_int_equal(kvfs_file_flush(f, &world_err), -EIO);
    assert_int_equal(kvfs_file_pwrite(f, "x", 1, 0, 0, &world_err), -EIO);
    assert_int_equal(kvfs_volume_sync(v, &world_err), -EIO);
    assert_non_null(strstr(world_err.msg, "opened again"));
    kvfs_volume_info(v, &info);
    assert_int_equal(info.poisoned, -EIO);
    assert_true(world_is(f, 0, 4096, 'a'));
    assert_true(world_is(f, 4096, 8192, 'b')); /* reads go on */
    kvfs_file_close(f);
    assert_int_equal(kvfs_volume_close(v, &world_err), -EIO);

    v = world_open(KVFS_FAULT_ENGINE, 0);
    f = world_file_open(v, "d", KVFS_OPEN_WRITE);
    assert_true(world_is(f, 0, 65536, 'a')); /* exactly the last commit */
    world_fill(f, 0, 512, 'c');
    MUST(kvfs_file_flush(f, &world_err));
    kvfs_file_close(f);
    MUST(kvfs_volume_close(v, &world_err));
}

static void
sync__engine_sync_fails__poisons(void **state)
{
    struct kvfs_volume *v = world_open(KVFS_FAULT_ENGINE, 0);

    (void)state;
    (void)world_file(v, "d", 4096); /* a name: ordered, not yet durable */
    hooks->sync = fault_on_sync;
    fault_code = -EIO;
    hooks->apply = NULL;
    assert_int_equal(kvfs_volume_sync(v, &world_err), -EIO);
    fault_code = 0;
    assert_int_equal(kvfs_volume_sync(v, &world_err), -EIO); /* never retried as if it were done */
    assert_int_equal(kvfs_volume_close(v, &world_err), -EIO);
}

static void
flush__no_space__kept_in_memory_and_tried_again(void **state)
{
    struct kvfs_volume *v = world_open(KVFS_FAULT_ENGINE, 0);
    struct kvfs_file *f;

    (void)state;
    (void)world_file(v, "d", 1 << 20);
    f = world_file_open(v, "d", KVFS_OPEN_WRITE);
    world_fill(f, 0, 65536, 'a');
    fault_code = -ENOSPC;
    assert_int_equal(kvfs_file_flush(f, &world_err), -ENOSPC);
    assert_true(fault_hits > 0);
    assert_int_equal(kvfs_file_pwrite(f, "x", 1, 100000, 0, &world_err), -ENOSPC);
    assert_true(world_is(f, 0, 65536, 'a'));
    fault_code = 0;
    MUST(kvfs_file_flush(f, &world_err)); /* there is space again */
    world_fill(f, 65536, 4096, 'b');
    kvfs_file_close(f);
    MUST(kvfs_volume_close(v, &world_err));

    v = world_open(KVFS_FAULT_ENGINE, 0);
    f = world_file_open(v, "d", KVFS_OPEN_READ);
    assert_true(world_is(f, 0, 65536, 'a'));
    assert_true(world_is(f, 65536, 4096, 'b'));
    kvfs_file_close(f);
    MUST(kvfs_volume_close(v, &world_err));
}

/* Two transactions wait for one commit; the engine refuses data of the first's
 * file.  They were merged into one batch, and only the first may fail. */
static void
txn_wait__one_of_two_refused__fails_alone(void **state)
{
    struct kvfs_volume *v = world_open(KVFS_FAULT_ENGINE, 0);
    struct kvfs_ticket *ticket[2] = {NULL, NULL};
    struct kvfs_file *f[2];
    uint64_t version[2];
    struct kvfs_txn *t;

    (void)state;
    (void)world_file(v, "b", 8192);
    (void)world_file(v, "a", 8192);
    f[0] = world_file_open(v, "a", KVFS_OPEN_WRITE);
    f[1] = world_file_open(v, "b", KVFS_OPEN_WRITE);
    hooks->apply = fault_watch; /* learn the fork of "a" */
    world_fill(f[0], 0, 4096, '0');
    MUST(kvfs_file_flush(f[0], &world_err));
    fault_fork = fault_seen_fork;
    hooks->apply = fault_on_apply;
    fault_code = -ENOSPC;
    for (int i = 1; i >= 0; i--) { /* "b" first: what follows a failed one fails too */
        MUST(kvfs_txn_begin(v, &t, &world_err));
        version[i] = world_version(f[i]);
        MUST(kvfs_txn_write(t, f[i], version[i], "hello", 5, 10, &world_err));
        MUST(kvfs_txn_submit(t, &ticket[i], &world_err));
    }
    assert_int_equal(kvfs_txn_wait(ticket[0], KVFS_DURABLE, &world_err), -ENOSPC);
    MUST(kvfs_txn_wait(ticket[1], KVFS_DURABLE, &world_err));
    assert_int_equal(world_version(f[0]), version[0]);
    assert_true(world_is(f[0], 0, 4096, '0')); /* nothing was changed */
    assert_int_equal(world_version(f[1]), version[1] + 1);
    assert_true(world_is(f[1], 10, 1, 'h'));
    fault_code = 0;
    MUST(kvfs_txn_begin(v, &t, &world_err)); /* and the first may go on */
    MUST(kvfs_txn_write(t, f[0], version[0], "again", 5, 10, &world_err));
    MUST(kvfs_txn_commit(t, KVFS_DURABLE, &world_err));
    assert_true(world_is(f[0], 10, 1, 'a'));
    kvfs_file_close(f[0]);
    kvfs_file_close(f[1]);
    MUST(kvfs_volume_close(v, &world_err));
}

/* The second transaction was built on the first, which fails. */
static void
txn_wait__built_on_a_failed_one__fails_too(void **state)
{
    struct kvfs_volume *v = world_open(KVFS_FAULT_ENGINE, 0);
    struct kvfs_ticket *ticket[2] = {NULL, NULL};
    struct kvfs_file_info info;
    struct kvfs_file *f;
    struct kvfs_txn *t;

    (void)state;
    (void)world_file(v, "a", 8192);
    f = world_file_open(v, "a", KVFS_OPEN_WRITE);
    fault_code = -ENOSPC;
    for (unsigned i = 0; i < 2; i++) {
        MUST(kvfs_txn_begin(v, &t, &world_err));
        MUST(kvfs_txn_write(t, f, i, "hello", 5, 4096 * (uint64_t)i, &world_err));
        MUST(kvfs_txn_submit(t, &ticket[i], &world_err));
    }
    kvfs_file_info(f, &info);
    assert_int_equal(info.version, 2); /* visible here, before either is in */
    assert_int_equal(kvfs_txn_wait(ticket[1], KVFS_DURABLE, &world_err), -ENOSPC);
    assert_int_equal(kvfs_txn_wait(ticket[0], KVFS_DURABLE, &world_err), -ENOSPC);
    kvfs_file_info(f, &info);
    assert_int_equal(info.version, 0);
    assert_true(world_is(f, 0, 8192, 0));
    fault_code = 0;
    kvfs_file_close(f);
    MUST(kvfs_volume_close(v, &world_err));
}

/* A transaction that was made of what a failed one had shown fails, also where it writes
 * another file; and no other gets the version of one that failed. */
static void
txn_built_on__what_has_failed__fails_too(void **state)
{
    struct kvfs_volume *v = world_open(KVFS_FAULT_ENGINE, 0);
    struct kvfs_ticket *ticket = NULL;
    struct kvfs_snapshot *seen = NULL;
    struct kvfs_file_info info;
    struct kvfs_file *f[2];
    struct kvfs_txn *t;
    uint64_t ino = world_file(v, "a", 8192);

    (void)state;
    (void)world_file(v, "b", 8192);
    f[0] = world_file_open(v, "a", KVFS_OPEN_WRITE);
    f[1] = world_file_open(v, "b", KVFS_OPEN_WRITE);
    fault_code = -ENOSPC;
    MUST(kvfs_txn_begin(v, &t, &world_err));
    MUST(kvfs_txn_write(t, f[0], world_version(f[0]), "hello", 5, 0, &world_err));
    MUST(kvfs_txn_submit(t, &ticket, &world_err));
    MUST(kvfs_snapshot_open(v, &seen, &world_err));
    MUST(kvfs_snapshot_info(seen, ino, &info, &world_err));
    assert_false(kvfs_snapshot_failed(seen));
    assert_int_equal(kvfs_txn_wait(ticket, KVFS_DURABLE, &world_err), -ENOSPC);
    fault_code = 0;
    assert_true(kvfs_snapshot_failed(seen));
    MUST(kvfs_txn_begin(v, &t, &world_err));
    MUST(kvfs_txn_built_on(t, seen, &world_err));
    MUST(kvfs_txn_write(t, f[1], world_version(f[1]), "hello", 5, 0, &world_err));
    assert_int_equal(kvfs_txn_commit(t, KVFS_DURABLE, &world_err), -ENOSPC);
    assert_true(world_is(f[1], 0, 8192, 0));
    kvfs_snapshot_close(seen);
    MUST(kvfs_txn_begin(v, &t, &world_err));
    MUST(kvfs_txn_write(t, f[0], world_version(f[0]), "other", 5, 0, &world_err));
    MUST(kvfs_txn_commit(t, KVFS_DURABLE, &world_err));
    assert_true(world_version(f[0]) > info.version);
    kvfs_file_close(f[0]);
    kvfs_file_close(f[1]);
    MUST(kvfs_volume_close(v, &world_err));
}

/* The folder is removed while the volume is open: nothing may be acknowledged as
 * durable that nobody will ever find again. */
static void
flush__folder_removed__eio(void **state)
{
    struct kvfs_volume *v = world_open(KVFS_FAULT_ENGINE, 0);
    struct kvfs_file *f;

    (void)state;
    (void)world_file(v, "d", 1 << 20);
    f = world_file_open(v, "d", KVFS_OPEN_WRITE);
    world_fill(f, 0, 4096, 'a');
    MUST(kvfs_file_flush(f, &world_err));
    world_fill(f, 4096, 4096, 'b');
    world_remove();
    assert_int_equal(kvfs_file_flush(f, &world_err), -EIO);
    assert_non_null(strstr(world_err.msg, "removed"));
    assert_true(world_is(f, 4096, 4096, 'b')); /* reads go on */
    kvfs_file_close(f);
    assert_int_equal(kvfs_volume_close(v, &world_err), -EIO);
}

/* A child that writes, closes the file and stays. */
static pid_t
writer_start(int done[2], int stay[2])
{
    pid_t pid;

    assert_int_equal(pipe(done), 0);
    assert_int_equal(pipe(stay), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct kvfs_volume *v = world_open(KVFS_FAULT_ENGINE, 0);
        struct kvfs_file *f = world_file_open(v, "a", KVFS_OPEN_WRITE);
        char byte = 0;

        (void)close(stay[1]);
        world_fill(f, 0, 8192, 7);
        kvfs_file_close(f);
        if (write(done[1], &byte, 1) != 1 || read(stay[0], &byte, 1) != 0)
            _exit(1);
        _exit(0); /* as if killed: the volume is not closed */
    }
    (void)close(done[1]);
    (void)close(stay[0]);
    return pid;
}

/* What was read and flushed here stays, whoever had written it. */
static void
flush__another_process_wrote__the_engine_syncs(void **state)
{
    struct kvfs_volume *v = world_open(KVFS_FAULT_ENGINE, 0);
    struct kvfs_volume_info info;
    struct kvfs_file *f;
    int done[2], stay[2], status;
    char byte;
    pid_t pid;

    (void)state;
    (void)world_file(v, "a", 8192);
    kvfs_volume_info(v, &info);
    MUST(kvfs_volume_close(v, &world_err));
    if ((info.engine_caps & KVFS_CAP_MULTIPROCESS) == 0)
        return; /* nobody else can write */
    pid = writer_start(done, stay);
    assert_int_equal(read(done[0], &byte, 1), 1);
    hooks->sync = fault_on_sync;
    for (unsigned flags = 0; flags <= KVFS_OPEN_WRITE; flags += KVFS_OPEN_WRITE) {
        v = world_open(KVFS_FAULT_ENGINE, 0);
        f = world_file_open(v, "a", flags);
        assert_true(world_is(f, 0, 8192, 7));
        fault_hits = 0;
        MUST(kvfs_file_flush(f, &world_err));
        assert_int_equal(fault_hits, 1);
        kvfs_file_close(f);
        MUST(kvfs_volume_close(v, &world_err));
    }
    (void)close(stay[1]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    (void)close(done[0]);
}

/* Nor does it matter through which handle. */
static void
flush__through_a_new_handle__the_engine_syncs(void **state)
{
    struct kvfs_volume *v = world_open(KVFS_FAULT_ENGINE, 0);
    struct kvfs_file *f;

    (void)state;
    (void)world_file(v, "a", 8192);
    f = world_file_open(v, "a", KVFS_OPEN_WRITE);
    world_fill(f, 0, 8192, 7);
    kvfs_file_close(f);
    hooks->sync = fault_on_sync;
    f = world_file_open(v, "a", KVFS_OPEN_WRITE);
    MUST(kvfs_file_flush(f, &world_err));
    assert_true(fault_hits > 0);
    kvfs_file_close(f);
    MUST(kvfs_volume_close(v, &world_err));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(flush__unknown_outcome__poisons_until_reopened, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(sync__engine_sync_fails__poisons, setup, teardown),
        cmocka_unit_test_setup_teardown(flush__no_space__kept_in_memory_and_tried_again, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(flush__folder_removed__eio, setup, teardown),
        cmocka_unit_test_setup_teardown(txn_wait__one_of_two_refused__fails_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(txn_wait__built_on_a_failed_one__fails_too, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(flush__another_process_wrote__the_engine_syncs, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(flush__through_a_new_handle__the_engine_syncs, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(txn_built_on__what_has_failed__fails_too, setup,
                                        teardown),
    };
    void *dl = dlopen(KVFS_FAULT_ENGINE, RTLD_NOW | RTLD_LOCAL);

    if (dl == NULL || (hooks = dlsym(dl, "kvfs_fault_hooks")) == NULL) {
        print_error("%s: %s\n", KVFS_FAULT_ENGINE, dlerror()); // NOLINT(concurrency-mt-unsafe)
        return 1;
    }
    return cmocka_run_group_tests_name("faults", tests, NULL, NULL);
}
