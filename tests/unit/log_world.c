/* SPDX-License-Identifier: BSD-3-Clause
 *
 * log_world.c - see log_world.h.
 */
#include "log_world.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ENGINE "log:lmdb"

struct world w;

uint64_t
draw(uint64_t bound)
{
    uint64_t z = w.random += 0x9e3779b97f4a7c15u; /* splitmix64 */

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % bound;
}

/* --- in a child -------------------------------------------------------------------------- */

void
child_tell(uint8_t what)
{
    /* A full pipe holds more than the parent ever waits for. */
    if (write(w.pipe[1], &what, 1) != 1 && errno != EAGAIN)
        _exit(1);
}

void
child_fail(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    if (!atomic_flag_test_and_set(&w.shared->told))
        // NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): va_start() is two lines above
        (void)vsnprintf(w.shared->wrong, sizeof(w.shared->wrong), format, args);
    va_end(args);
    child_tell(TOLD_END);
    _exit(1);
}

int
child_try_open(const char *params, bool readonly, struct kvfs_error *err)
{
    const struct kvfs_engine_options options = {
        .create = !readonly, .readonly = readonly, .params = params};

    if (kvfs_engine_find(ENGINE, &w.engine, err) != 0)
        child_fail("%s", err->msg);
    w.b = kvfs_batch_new();
    return w.engine->open(w.engine, w.folder, &options, &w.db, err);
}

void
child_open(const char *params, bool readonly)
{
    struct kvfs_error err = {0};

    if (child_try_open(params, readonly, &err) != 0)
        child_fail("open: %s", err.msg);
}

void
child_close(void)
{
    w.engine->close(w.db);
    kvfs_batch_free(w.b);
}

uint64_t
child_number(struct kvfs_db_snap *snap, enum kvfs_keyspace ks, unsigned writer)
{
    uint8_t key[KVFS_DATA_KEY_LEN] = {'w', (uint8_t)writer};
    uint64_t number = 0;
    struct iovec iov = {&number, sizeof(number)};
    struct kvfs_error err = {0};
    int rc = w.engine->get(snap, ks, key, sizeof(key), 0, &iov, 1, NULL, &err);

    if (rc != 0 && rc != -ENOENT)
        child_fail("get: %s", err.msg);
    return number;
}

/* Look at all writers' numbers; those in NUMBERS if not NULL. */
void
child_look(const char *who, uint64_t numbers[WRITERS])
{
    uint64_t acked[WRITERS];
    struct kvfs_db_snap *snap;
    struct kvfs_error err = {0};

    for (unsigned i = 0; i < WRITERS; i++)
        acked[i] = atomic_load(&w.shared->acked[i]);
    if (w.engine->begin(w.db, &snap, &err) != 0)
        child_fail("%s: begin: %s", who, err.msg);
    for (unsigned i = 0; i < WRITERS; i++) {
        uint64_t meta = child_number(snap, KVFS_META, i), data = child_number(snap, KVFS_DATA, i);

        if (meta != data)
            child_fail("%s: half a batch of writer %u: %llu and %llu", who, i,
                       (unsigned long long)meta, (unsigned long long)data);
        if (meta < acked[i])
            child_fail("%s: writer %u had committed %llu, %llu is seen", who, i,
                       (unsigned long long)acked[i], (unsigned long long)meta);
        if (numbers != NULL)
            numbers[i] = meta;
    }
    w.engine->end(snap);
}

/* Commit NUMBER of WRITER, whose last one was NUMBER - 1. */
void
child_commit(unsigned writer, uint64_t number, enum kvfs_durability durability)
{
    static uint8_t value[VALUE_LEN_MAX];
    uint8_t key[KVFS_DATA_KEY_LEN] = {'w', (uint8_t)writer};
    uint64_t before = number - 1;
    struct kvfs_error err = {0};
    struct kvfs_batch batch;

    kvfs_batch_reset(w.b);
    if (before == 0)
        kvfs_batch_expect_absent(w.b, KVFS_META, key, sizeof(key));
    else
        kvfs_batch_expect(w.b, KVFS_META, key, sizeof(key), &before, sizeof(before));
    kvfs_batch_put(w.b, KVFS_META, key, sizeof(key), &number, sizeof(number));
    memcpy(value, &number, sizeof(number));
    kvfs_batch_put(w.b, KVFS_DATA, key, sizeof(key), value, w.value_len);
    if (kvfs_batch_end(w.b, &batch) != 0 ||
        w.engine->apply(w.db, &batch, durability, &err) != 0)
        child_fail("writer %u, commit %llu: %s", writer, (unsigned long long)number, err.msg);
    atomic_store(&w.shared->acked[writer], number);
    child_tell((uint8_t)writer);
}

/* Open, look, commit COUNT batches; 0: until killed. */
void
child_write(unsigned writer, const char *params, uint64_t count)
{
    uint64_t numbers[WRITERS];

    child_open(params, false);
    child_look("a writer that opened", numbers);
    for (uint64_t i = 1; count == 0 || i <= count; i++)
        child_commit(writer, numbers[writer] + i, (enum kvfs_durability)draw(3));
}

/* Wait for the parent's word. */
void
child_await(int i)
{
    uint8_t byte;

    if (read(w.go[i][0], &byte, 1) != 1)
        _exit(1);
}

/* --- in the parent --------------------------------------------------------------------------- */

/* A child, which returns from here too, with 0. */
pid_t
start(void)
{
    uint64_t random = draw(UINT64_MAX);
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0)
        w.random = random;
    return pid;
}

void
check_told(void)
{
    if (w.shared->wrong[0] != '\0')
        fail_msg("KVFS_SEED=%llu: %s", (unsigned long long)w.seed, w.shared->wrong);
}

void
await_end(pid_t pid, int signal)
{
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    check_told();
    if (signal != 0)
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == signal);
    else
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

void
await_stop(pid_t pid)
{
    int status;

    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    check_told();
    assert_true(WIFSTOPPED(status));
}

/* Wait for what a child tells: a commit of writer I, or with TOLD_END that it ends. */
unsigned
await_byte(void)
{
    uint8_t byte;

    assert_int_equal(read(w.pipe[0], &byte, 1), 1);
    check_told();
    return byte;
}

void
let_go(int i)
{
    assert_int_equal(write(w.go[i][1], "", 1), 1);
}

/* Forget what was told. */
void
drain(void)
{
    struct pollfd p = {.fd = w.pipe[0], .events = POLLIN};

    while (poll(&p, 1, 0) == 1)
        (void)await_byte();
}

/* In a process of its own: look, and see that nothing is missing. */
void
look(bool readonly)
{
    pid_t pid = start();

    if (pid == 0) {
        child_open("", readonly);
        child_look(readonly ? "a reader" : "a writer", NULL);
        child_close();
        _exit(0);
    }
    await_end(pid, 0);
}

/* Open as a writer, and go on with WRITER's commits. */
pid_t
start_writer(unsigned writer, const char *params, uint64_t count)
{
    pid_t pid = start();

    if (pid == 0) {
        child_write(writer, params, count);
        child_close();
        _exit(0);
    }
    return pid;
}

/* The same, from beginning to end. */
void
run_writer(unsigned writer, const char *params, uint64_t count)
{
    pid_t pid = start_writer(writer, params, count);

    for (uint64_t i = 0; i < count; i++)
        (void)await_byte();
    await_end(pid, 0);
}

int
world_setup(void **state)
{
    const char *seed = getenv("KVFS_SEED"); // NOLINT(concurrency-mt-unsafe): there is one thread

    (void)state;
    w.seed = seed != NULL ? strtoull(seed, NULL, 10) : (uint64_t)time(NULL);
    w.random = w.seed;
    (void)printf("KVFS_SEED=%llu\n", (unsigned long long)w.seed);
    (void)fflush(stdout);
    (void)snprintf(w.folder, sizeof(w.folder), "/tmp/kvfs-log-XXXXXX");
    assert_non_null(mkdtemp(w.folder));
    w.shared = mmap(NULL, sizeof(*w.shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                    -1, 0);
    assert_true(w.shared != MAP_FAILED);
    w.value_len = VALUE_LEN;
    assert_int_equal(pipe(w.pipe), 0);
    assert_int_equal(pipe(w.go[0]), 0);
    assert_int_equal(pipe(w.go[1]), 0);
    assert_int_equal(fcntl(w.pipe[1], F_SETFL, O_NONBLOCK), 0);
    run_writer(0, "log-size=65536", 1);
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

int
world_teardown(void **state)
{
    (void)state;
    (void)close(w.pipe[0]);
    (void)close(w.pipe[1]);
    for (int i = 0; i < 2; i++) {
        (void)close(w.go[i][0]);
        (void)close(w.go[i][1]);
    }
    (void)munmap(w.shared, sizeof(*w.shared));
    // NOLINTNEXTLINE(concurrency-mt-unsafe): there is one thread
    (void)nftw(w.folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return 0;
}
