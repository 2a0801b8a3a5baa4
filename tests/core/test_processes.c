/* SPDX-License-Identifier: BSD-3-Clause
 *
 * One volume, several processes: leases, forks, sizes, transactions.
 *
 * The children are forked before anything is open and open the volume
 * themselves; pipes tell who goes next, so nothing waits for a time.
 */
#include "core_world.h"

#include "../aside.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define ACCOUNTS     64
#define ACCOUNT_LEN  512u /* so that several lie in one block, and several blocks are used */
#define BALANCE      1000

static void
format(void *arg)
{
    (void)arg;
    world_format(NULL, 0);
}

static int
setup(void **state)
{
    (void)state;
    world_folder();
    aside(format, NULL);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    world_remove();
    return 0;
}

/* --- processes that say when they are ready ---------------------------------- */

struct child {
    pid_t pid;
    int ready; /* reads a byte when the child got that far */
    int go;    /* closed to let it go on */
};

static void
child_start(struct child *c, void (*body)(int ready, int go))
{
    int ready[2];
    int go[2];

    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(go), 0);
    c->pid = fork();
    assert_true(c->pid >= 0);
    if (c->pid == 0) {
        (void)close(ready[0]);
        (void)close(go[1]);
        body(ready[1], go[0]);
        _exit(0);
    }
    (void)close(ready[1]);
    (void)close(go[0]);
    c->ready = ready[0];
    c->go = go[1];
}

static void
child_await(struct child *c)
{
    char byte;

    assert_int_equal(read(c->ready, &byte, 1), 1);
}

static int
child_end(struct child *c)
{
    int status;

    (void)close(c->go);
    assert_int_equal(waitpid(c->pid, &status, 0), c->pid);
    (void)close(c->ready);
    return status;
}

static void
say_ready(int ready)
{
    if (write(ready, "r", 1) != 1)
        _exit(99);
}

static void
wait_go(int go)
{
    char byte;

    if (read(go, &byte, 1) < 0)
        _exit(98);
}

/* --- leases -------------------------------------------------------------------- */

static void
holder(int ready, int go)
{
    struct kvfs_volume *v = world_open(NULL, 0);
    struct kvfs_file *f = world_file_open(v, "d", KVFS_OPEN_WRITE);

    world_fill(f, 0, 4096, 'h');
    MUST(kvfs_file_flush(f, &world_err));
    world_fill(f, 4096, 4096, 'u'); /* acknowledged, not flushed */
    say_ready(ready);
    wait_go(go);
    kvfs_file_close(f);
    MUST(kvfs_volume_close(v, &world_err));
}

static int
count_leases(void *arg, const struct kvfs_holder *h)
{
    int64_t *pid = arg;

    if (h->kind == KVFS_HOLDER_LEASE)
        *pid = h->pid;
    return 0;
}

static void
file_open__held_elsewhere__busy_names_the_process(void **state)
{
    struct kvfs_volume *v = world_open(NULL, 0);
    struct kvfs_file *f = NULL;
    struct kvfs_attr attr;
    struct child c;
    int64_t pid = 0;
    char text[32];

    (void)state;
    (void)world_file(v, "d", 1 << 20);
    MUST(kvfs_volume_close(v, &world_err));
    child_start(&c, holder);
    child_await(&c);
    v = world_open(NULL, 0);
    MUST(kvfs_lookup(v, KVFS_ROOT_INO, "d", &attr, &world_err));
    assert_int_equal(kvfs_file_open(v, attr.ino, KVFS_OPEN_WRITE, &f, &world_err), -EBUSY);
    (void)snprintf(text, sizeof(text), "process %d", (int)c.pid);
    assert_non_null(strstr(world_err.msg, text));
    MUST(kvfs_volume_holders(world_path, count_leases, &pid, &world_err));
    assert_int_equal(pid, c.pid);
    assert_int_equal(kvfs_unlink(v, KVFS_ROOT_INO, "d", &world_err), -EBUSY);

    f = world_file_open(v, "d", KVFS_OPEN_READ); /* reading is allowed meanwhile */
    assert_true(world_is(f, 0, 4096, 'h'));
    kvfs_file_close(f);

    assert_int_equal(kill(c.pid, SIGKILL), 0);
    (void)child_end(&c);
    f = world_file_open(v, "d", KVFS_OPEN_WRITE); /* a dead process frees its own */
    assert_true(world_is(f, 0, 4096, 'h'));
    pid = 0;
    MUST(kvfs_volume_holders(world_path, count_leases, &pid, &world_err));
    assert_int_equal(pid, getpid());
    kvfs_file_close(f);
    MUST(kvfs_volume_close(v, &world_err));
}

static void
file_resize__held_elsewhere__holder_sees_it_at_refresh(void **state)
{
    struct kvfs_volume *v = world_open(NULL, 0);
    struct kvfs_file *f;
    struct kvfs_file_info info;
    struct child c;

    (void)state;
    (void)world_file(v, "d", 1 << 20);
    MUST(kvfs_volume_close(v, &world_err));
    child_start(&c, holder);
    child_await(&c);
    v = world_open(NULL, 0);
    f = world_file_open(v, "d", KVFS_OPEN_READ);
    MUST(kvfs_file_resize(f, 2 << 20, &world_err));
    assert_int_equal(kvfs_file_resize(f, 4096, &world_err), -EBUSY); /* no shrinking under it */
    kvfs_file_info(f, &info);
    assert_int_equal(info.size_bytes, 2 << 20);
    /* The holder still has a write to commit, which expects the old record. */
    assert_int_equal(child_end(&c), 0);
    MUST(kvfs_file_refresh(f, &world_err));
    kvfs_file_info(f, &info);
    assert_int_equal(info.size_bytes, 2 << 20); /* not undone by that commit */
    assert_true(world_is(f, 4096, 4096, 'u'));
    kvfs_file_close(f);
    MUST(kvfs_volume_close(v, &world_err));
}

/* A handle does not cross fork; and a child that sleeps on does not keep the
 * lease of a parent that was killed. */
static void
forks(int ready, int go)
{
    struct kvfs_volume *v = world_open(NULL, 0);
    struct kvfs_file *f = world_file_open(v, "d", KVFS_OPEN_WRITE);
    char byte;
    pid_t pid = fork();

    if (pid == 0) {
        if (kvfs_file_pread(f, &byte, 1, 0, &world_err) != -EBADF ||
            kvfs_file_pwrite(f, "x", 1, 0, 0, &world_err) != -EBADF ||
            kvfs_file_flush(f, &world_err) != -EBADF || kvfs_volume_close(v, &world_err) != 0)
            _exit(97);
        say_ready(ready);
        wait_go(go); /* outlives the parent */
        _exit(0);
    }
    if (waitpid(pid, NULL, 0) < 0)
        _exit(96);
}

static void
fork__parent_killed_child_sleeps__lease_is_free(void **state)
{
    struct kvfs_volume *v = world_open(NULL, 0);
    struct kvfs_file *f;
    struct child c;

    (void)state;
    (void)world_file(v, "d", 1 << 20);
    MUST(kvfs_volume_close(v, &world_err));
    child_start(&c, forks);
    child_await(&c);
    assert_int_equal(kill(c.pid, SIGKILL), 0);
    assert_int_equal(waitpid(c.pid, NULL, 0), c.pid);
    v = world_open(NULL, 0);
    f = world_file_open(v, "d", KVFS_OPEN_WRITE); /* the grandchild sleeps on */
    kvfs_file_close(f);
    MUST(kvfs_volume_close(v, &world_err));
    (void)close(c.go);
    (void)close(c.ready);
}

/* --- transactions --------------------------------------------------------------- */

/* Account I lies in file I % 2. */
static uint64_t
account_offset(unsigned i)
{
    return (uint64_t)(i / 2) * ACCOUNT_LEN;
}

static void
accounts_make(void)
{
    struct kvfs_volume *v = world_open(NULL, 0);
    struct kvfs_file *f[2];
    struct kvfs_txn *t;
    int32_t balance = BALANCE;

    (void)world_file(v, "a0", 0);
    (void)world_file(v, "a1", 0);
    f[0] = world_file_open(v, "a0", KVFS_OPEN_WRITE);
    f[1] = world_file_open(v, "a1", KVFS_OPEN_WRITE);
    MUST(kvfs_txn_begin(v, &t, &world_err));
    for (unsigned i = 0; i < ACCOUNTS; i++)
        MUST(kvfs_txn_write(t, f[i % 2], 0, &balance, sizeof(balance), account_offset(i),
                            &world_err));
    MUST(kvfs_txn_commit(t, KVFS_DURABLE, &world_err));
    kvfs_file_close(f[0]);
    kvfs_file_close(f[1]);
    MUST(kvfs_volume_close(v, &world_err));
}

/* The sum over both files at one instant. */
static long
accounts_sum(struct kvfs_volume *v, const uint64_t ino[2])
{
    struct kvfs_snapshot *s;
    long sum = 0;

    MUST(kvfs_snapshot_open(v, &s, &world_err));
    for (unsigned i = 0; i < ACCOUNTS; i++) {
        int32_t balance;

        MUST(kvfs_snapshot_pread(s, ino[i % 2], &balance, sizeof(balance), account_offset(i),
                                 &world_err));
        sum += balance;
    }
    kvfs_snapshot_close(s);
    return sum;
}

/* Move money in one transaction; both files are locked. */
static void
transfer_locked(struct kvfs_volume *v, struct kvfs_file *f[2], unsigned *seed)
{
    unsigned account[2] = {(unsigned)rand_r(seed) % ACCOUNTS, (unsigned)rand_r(seed) % ACCOUNTS};
    int32_t amount = rand_r(seed) % 10;
    struct kvfs_file_info info[2];
    struct kvfs_txn *t;
    int32_t balance;

    kvfs_file_info(f[0], &info[0]);
    kvfs_file_info(f[1], &info[1]);
    MUST(kvfs_txn_begin(v, &t, &world_err));
    for (int leg = 0; leg < 2; leg++) {
        unsigned side = account[leg] % 2;
        uint64_t offset = account_offset(account[leg]);

        MUST(kvfs_txn_pread(t, f[side], &balance, sizeof(balance), offset, &world_err));
        balance += leg == 0 ? -amount : amount;
        MUST(kvfs_txn_write(t, f[side], info[side].version, &balance, sizeof(balance), offset,
                            &world_err));
    }
    MUST(kvfs_txn_commit(t, rand_r(seed) % 4 == 0 ? KVFS_DURABLE : KVFS_ORDERED, &world_err));
}

/* One transfer, the files locked in order.  False: somebody else has one. */
static bool
transfer(struct kvfs_volume *v, struct kvfs_file *f[2], unsigned *seed)
{
    bool done = false;

    if (kvfs_file_lock(f[0], NULL) < 0)
        return false;
    if (kvfs_file_lock(f[1], NULL) == 0) {
        transfer_locked(v, f, seed);
        done = true;
        kvfs_file_unlock(f[1]);
    }
    kvfs_file_unlock(f[0]);
    return done;
}

static void
teller(int ready, int go)
{
    struct kvfs_volume *v = world_open(NULL, 0);
    struct kvfs_file *f[2];
    unsigned seed = (unsigned)getpid();

    (void)go;
    f[0] = world_file_open(v, "a0", KVFS_OPEN_READ);
    f[1] = world_file_open(v, "a1", KVFS_OPEN_READ);
    for (unsigned done = 0;;) {
        if (!transfer(v, f, &seed))
            continue;
        if (++done % 5 == 0)
            say_ready(ready); /* fails, and ends us, when nobody listens any more */
    }
}

static void
txn_commit__processes_killed__sum_stays(void **state)
{
    unsigned rounds = world_rounds(12);
    unsigned seed = world_seed();
    struct kvfs_check_result result = {0};
    struct kvfs_check_options co = {0};
    struct kvfs_volume *v;
    uint64_t ino[2];

    (void)state;
    (void)signal(SIGPIPE, SIG_IGN);
    accounts_make();
    for (unsigned round = 0; round < rounds; round++) {
        struct child c[4];
        unsigned beats = 1 + (unsigned)rand_r(&seed) % 8;

        for (int i = 0; i < 4; i++)
            child_start(&c[i], teller);
        v = world_open(NULL, 0);
        ino[0] = world_file(v, "a0", 0);
        ino[1] = world_file(v, "a1", 0);
        for (unsigned b = 0; b < beats; b++) {
            assert_int_equal(accounts_sum(v, ino), ACCOUNTS * BALANCE);
            child_await(&c[rand_r(&seed) % 4]); /* five transfers later */
        }
        for (int i = 0; i < 4; i++)
            assert_int_equal(kill(c[i].pid, SIGKILL), 0);
        for (int i = 0; i < 4; i++)
            (void)child_end(&c[i]);
        assert_int_equal(accounts_sum(v, ino), ACCOUNTS * BALANCE);
        MUST(kvfs_volume_close(v, &world_err));
        MUST(kvfs_check(world_path, &co, &result, &world_err));
        assert_int_equal(result.findings, 0);
    }
}

/* A large transaction whose process dies leaves nothing behind, and one that
 * committed is there whole. */
static void
large(int ready, int go)
{
    struct kvfs_volume *v = world_open(NULL, 1 << 20);
    struct kvfs_file *f = world_file_open(v, "big", KVFS_OPEN_WRITE);
    struct kvfs_txn *t;
    char block[4096];

    (void)go;
    for (int round = 0; round < 2; round++) {
        uint64_t version = world_version(f);

        memset(block, round == 0 ? 'A' : 'B', sizeof(block));
        MUST(kvfs_txn_begin(v, &t, &world_err));
        for (uint64_t i = 0; i < 1024; i++)
            MUST(kvfs_txn_write(t, f, version, block, sizeof(block), i * 4096, &world_err));
        if (round == 1) {
            say_ready(ready);
            wait_go(go); /* killed here, most of it spilled */
        }
        MUST(kvfs_txn_commit(t, KVFS_DURABLE, &world_err));
    }
}

static void
large_make(void *arg)
{
    struct kvfs_volume *v = world_open(NULL, 0);
    struct kvfs_file *f;

    (void)arg;
    (void)world_file(v, "big", 4 << 20);
    f = world_file_open(v, "big", KVFS_OPEN_WRITE);
    world_fill(f, 0, 4 << 20, '-');
    kvfs_file_close(f);
    MUST(kvfs_volume_close(v, &world_err));
}

static void
txn_commit__large_and_killed__all_or_nothing(void **state)
{
    struct kvfs_volume *v;
    struct kvfs_volume_stat stat;
    struct kvfs_check_result result = {0};
    struct kvfs_check_options co = {0};
    struct kvfs_file *f;
    struct child c;

    (void)state;
    aside(large_make, NULL);
    child_start(&c, large);
    child_await(&c);
    assert_int_equal(kill(c.pid, SIGKILL), 0);
    (void)child_end(&c);
    v = world_open(NULL, 0);
    f = world_file_open(v, "big", KVFS_OPEN_WRITE);
    assert_true(world_is(f, 0, 4 << 20, 'A'));
    while (kvfs_volume_work(v, 16, &world_err) == 1) {
    }
    assert_true(world_is(f, 0, 4 << 20, 'A'));
    do {
        MUST(kvfs_volume_stat(v, &stat, &world_err));
    } while (stat.forks_deleting > 0 && kvfs_volume_work(v, 16, &world_err) >= 0);
    kvfs_file_close(f);
    MUST(kvfs_volume_close(v, &world_err));
    MUST(kvfs_check(world_path, &co, &result, &world_err));
    assert_int_equal(result.findings, 0);
}

int
main(void)
{
    const struct CMUnitTest alone[] = {
        /* engines for one process at a time too */
        cmocka_unit_test_setup_teardown(txn_commit__large_and_killed__all_or_nothing, setup,
                                        teardown),
    };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(file_open__held_elsewhere__busy_names_the_process, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(file_resize__held_elsewhere__holder_sees_it_at_refresh,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(fork__parent_killed_child_sleeps__lease_is_free, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(txn_commit__processes_killed__sum_stays, setup, teardown),
    };
    int failed = cmocka_run_group_tests_name("one process", alone, NULL, NULL);

    if (chosen_has(KVFS_CAP_MULTIPROCESS))
        failed += cmocka_run_group_tests_name("processes", tests, NULL, NULL);
    return failed;
}
