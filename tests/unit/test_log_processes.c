/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Several processes at one store with a log: whoever comes, goes, stops or dies, and wherever,
 * nobody reads a state older than the last commit that was acknowledged before.
 *
 * The parent opens nothing: it starts and ends children, which tell in shared memory how far
 * they are and by a byte in a pipe that something happened, so nothing waits for a time.
 * KVFS_SEED repeats what the parent does, though not when the children get there.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <kvfs/batch.h>
#include <kvfs/engine.h>

#define ENGINE      "log:lmdb"
#define SMALL       "log-size=65536,log-piece=1" /* folds often and in many pieces */
#define WRITERS     3
#define VALUE_LEN   3000u
#define VALUE_LARGE 40000u /* not for a ring of 64 KiB: it goes past the log */
#define EVENTS      100
#define TOLD_END    0x80u /* and the writer: it commits no more */

struct shared {
    atomic_ulong acked[WRITERS]; /* the number that each writer's last commit put */
    atomic_int stop;
    char wrong[512]; /* the first child's that found something */
    atomic_flag told;
};

static struct world {
    struct shared *shared;
    char folder[64];
    int pipe[2];
    int go[2][2]; /* pipes that two children wait at */
    size_t value_len;
    uint64_t random, seed;
    struct kvfs_db *db; /* in a child */
    const struct kvfs_engine *engine;
    struct kvfs_batch_builder *b;
} w;

static uint64_t
draw(uint64_t bound)
{
    uint64_t z = w.random += 0x9e3779b97f4a7c15u; /* splitmix64 */

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % bound;
}

/* --- in a child -------------------------------------------------------------------------- */

static void
child_tell(uint8_t what)
{
    /* A full pipe holds more than the parent ever waits for. */
    if (write(w.pipe[1], &what, 1) != 1 && errno != EAGAIN)
        _exit(1);
}

__attribute__((format(printf, 1, 2), noreturn)) static void
child_fail(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    if (!atomic_flag_test_and_set(&w.shared->told))
        (void)vsnprintf(w.shared->wrong, sizeof(w.shared->wrong), format, args);
    va_end(args);
    child_tell(TOLD_END);
    _exit(1);
}

static int
child_try_open(const char *params, bool readonly, struct kvfs_error *err)
{
    const struct kvfs_engine_options options = {
        .create = !readonly, .readonly = readonly, .params = params};

    if (kvfs_engine_find(ENGINE, &w.engine, err) != 0)
        child_fail("%s", err->msg);
    w.b = kvfs_batch_new();
    return w.engine->open(w.engine, w.folder, &options, &w.db, err);
}

static void
child_open(const char *params, bool readonly)
{
    struct kvfs_error err = {0};

    if (child_try_open(params, readonly, &err) != 0)
        child_fail("open: %s", err.msg);
}

static void
child_close(void)
{
    w.engine->close(w.db);
    kvfs_batch_free(w.b);
}

static uint64_t
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
static void
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
static void
child_commit(unsigned writer, uint64_t number, enum kvfs_durability durability)
{
    static uint8_t value[VALUE_LARGE];
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
static void
child_write(unsigned writer, const char *params, uint64_t count)
{
    uint64_t numbers[WRITERS];

    child_open(params, false);
    child_look("a writer that opened", numbers);
    for (uint64_t i = 1; count == 0 || i <= count; i++)
        child_commit(writer, numbers[writer] + i, (enum kvfs_durability)draw(3));
}

static void
child_read_until_told(void)
{
    while (atomic_load(&w.shared->stop) == 0) {
        child_open("", true);
        for (uint64_t looks = 1 + draw(50); looks > 0; looks--)
            child_look("the reader", NULL);
        child_close();
    }
}

/* --- in the parent --------------------------------------------------------------------------- */

/* A child, which returns from here too, with 0. */
static pid_t
start(void)
{
    uint64_t random = draw(UINT64_MAX);
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0)
        w.random = random;
    return pid;
}

static void
check_told(void)
{
    if (w.shared->wrong[0] != '\0')
        fail_msg("KVFS_SEED=%llu: %s", (unsigned long long)w.seed, w.shared->wrong);
}

static void
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

static void
await_stop(pid_t pid)
{
    int status;

    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    check_told();
    assert_true(WIFSTOPPED(status));
}

/* Wait for what a child tells: a commit of writer I, or with TOLD_END that it ends. */
static unsigned
await_byte(void)
{
    uint8_t byte;

    assert_int_equal(read(w.pipe[0], &byte, 1), 1);
    check_told();
    return byte;
}

/* In a process of its own: look, and see that nothing is missing. */
static void
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
static pid_t
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
static void
run_writer(unsigned writer, const char *params, uint64_t count)
{
    pid_t pid = start_writer(writer, params, count);

    for (uint64_t i = 0; i < count; i++)
        (void)await_byte();
    await_end(pid, 0);
}

static int
setup(void **state)
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

static int
teardown(void **state)
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

/* --- coming and going ---------------------------------------------------------------------- */

struct slot {
    pid_t pid;
    bool writes; /* it has more to tell */
};

static void
slot_start(struct slot *s, unsigned writer)
{
    uint64_t count = 1 + draw(40), end = draw(4);
    bool small = draw(2) == 0;

    s->writes = true;
    s->pid = start();
    if (s->pid != 0)
        return;
    child_write(writer, small ? SMALL : "", end == 0 ? 0 : count);
    if (end != 1) /* else it goes without a word */
        child_close();
    child_tell((uint8_t)(TOLD_END | writer));
    _exit(0);
}

/* One that came to its end by itself, or is killed. */
static void
slot_end(struct slot *s)
{
    int status;

    if (s->pid == 0)
        return;
    (void)kill(s->pid, SIGKILL);
    assert_int_equal(waitpid(s->pid, &status, 0), s->pid);
    check_told();
    *s = (struct slot){0};
}

static bool
slot_any_writes(const struct slot *s)
{
    for (unsigned i = 0; i < WRITERS; i++)
        if (s[i].writes)
            return true;
    return false;
}

static void
processes__come_and_go__nothing_acknowledged_is_missing(void **state)
{
    struct slot slots[WRITERS] = {{0}};
    pid_t reader = start();

    (void)state;
    if (reader == 0) {
        child_read_until_told();
        _exit(0);
    }
    for (unsigned event = 0; event < EVENTS; event++) {
        unsigned writer = (unsigned)draw(WRITERS);

        if (!slots[writer].writes || draw(2) == 0)
            slot_end(&slots[writer]);
        if (slots[writer].pid == 0)
            slot_start(&slots[writer], writer);
        for (uint64_t acks = draw(30); acks > 0 && slot_any_writes(slots); acks--) {
            unsigned byte = await_byte();

            if ((byte & TOLD_END) != 0) /* at worst of one before it: then less is awaited */
                slots[byte & ~TOLD_END].writes = false;
        }
    }
    for (unsigned i = 0; i < WRITERS; i++)
        slot_end(&slots[i]);
    atomic_store(&w.shared->stop, 1);
    await_end(reader, 0);
    look(false);
}

/* --- one that does not answer ------------------------------------------------------------------ */

static void
open__holder_stopped__ebusy_and_its_pid(void **state)
{
    pid_t holder = start_writer(0, "", 0), other;

    (void)state;
    (void)await_byte();
    (void)kill(holder, SIGSTOP);
    await_stop(holder);
    look(true);
    other = start();
    if (other == 0) {
        struct kvfs_error err = {0};
        char pid[32];

        if (child_try_open("log-wait-ms=50", false, &err) != -EBUSY)
            child_fail("opening beside a stopped process: %s", err.msg);
        (void)snprintf(pid, sizeof(pid), "process %d ", (int)holder);
        if (strstr(err.msg, pid) == NULL)
            child_fail("'%s' does not name %s", err.msg, pid);
        _exit(0);
    }
    await_end(other, 0);
    other = start_writer(1, "", 5);
    (void)kill(holder, SIGCONT); /* now it answers */
    await_end(other, 0);
    (void)kill(holder, SIGKILL);
    await_end(holder, SIGKILL);
    look(false);
}

/* --- death at a chosen place ------------------------------------------------------------------- */

/* Forget what was told. */
static void
drain(void)
{
    struct pollfd p = {.fd = w.pipe[0], .events = POLLIN};

    while (poll(&p, 1, 0) == 1)
        (void)await_byte();
}

static void
stop_at(const char *where, bool asked, bool dies)
{
    char params[96];
    pid_t holder, other = 0;

    drain();
    (void)printf("             %s, %s\n", where, dies ? "dies" : "goes on");
    (void)fflush(stdout);
    (void)snprintf(params, sizeof(params), SMALL ",unsafe-log-stop=%s", where);
    holder = start_writer(0, params, 0);
    if (asked) {
        (void)await_byte();
        other = start_writer(1, "", 20);
    }
    await_stop(holder); /* by itself */
    look(true);
    if (dies) {
        (void)kill(holder, SIGKILL);
        await_end(holder, SIGKILL);
    } else {
        (void)kill(holder, SIGCONT);
    }
    if (asked)
        await_end(other, 0);
    if (!dies) {
        (void)kill(holder, SIGKILL);
        await_end(holder, SIGKILL);
    }
    look(true);
    run_writer(2, SMALL, 20);
    look(false);
}

static void
death__in_a_fold__nothing_missing(void **state)
{
    (void)state;
    stop_at("fold", false, true);
    stop_at("folded", false, true);
    stop_at("fold", false, false);
}

static void
death__while_the_log_is_handed_over__nothing_missing(void **state)
{
    static const char *const places[] = {"yield", "yielded", "granted"};

    (void)state;
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        stop_at(places[i], true, true);
        stop_at(places[i], true, false);
    }
}

/* --- what goes past the log ---------------------------------------------------------------------- */

/* Wait for the parent's word. */
static void
child_await(int i)
{
    uint8_t byte;

    if (read(w.go[i][0], &byte, 1) != 1)
        _exit(1);
}

static void
let_go(int i)
{
    assert_int_equal(write(w.go[i][1], "", 1), 1);
}

/* Writer 1 commits, until it is logged; then nothing moves any more. */
static void
child_log_one(void)
{
    struct kvfs_engine_stat stat = {.log_used_bytes = 0};

    for (uint64_t i = 1; stat.log_used_bytes == 0; i++) {
        child_commit(1, i, KVFS_DURABLE);
        if (w.engine->stat(w.db, &stat, NULL) != 0)
            child_fail("stat");
    }
    child_tell(TOLD_END);
    (void)raise(SIGSTOP);
}

/* A reader that has its snapshot of the engine below and not yet the ring. */
static pid_t
start_slow_reader(void)
{
    pid_t pid = start();
    struct kvfs_db_snap *snap;
    struct kvfs_error err = {0};

    if (pid != 0) {
        await_stop(pid);
        return pid;
    }
    child_open("unsafe-log-stop=read", true);
    if (w.engine->begin(w.db, &snap, &err) != 0)
        child_fail("the slow reader: %s", err.msg);
    if (child_number(snap, KVFS_META, 1) > 0 && child_number(snap, KVFS_META, 0) < 2)
        child_fail("a commit is seen without one from before it");
    w.engine->end(snap);
    child_close();
    _exit(0);
}

/* It stops at each of its tries. */
static void
await_slow_reader(pid_t pid)
{
    int status;

    do {
        (void)kill(pid, SIGCONT);
        assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    } while (WIFSTOPPED(status));
    check_told();
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void
end_stopped(pid_t writer)
{
    while (await_byte() != TOLD_END)
        continue;
    await_stop(writer);
}

/* Two writers, the first commits a batch beside the other. */
static void
start_two(pid_t pids[2])
{
    drain();
    for (int i = 0; i < 2; i++) {
        pids[i] = start();
        if (pids[i] == 0) {
            child_open("log-size=65536", false);
            child_tell(0);
            child_await(i);
            if (i == 1) {
                child_log_one();
            } else {
                child_commit(0, 2, KVFS_DURABLE);
                child_await(i);
                child_close();
            }
            _exit(0);
        }
        (void)await_byte();
    }
}

static void
read__batch_past_the_log_meanwhile__not_missing(void **state)
{
    pid_t writer, reader;

    (void)state;
    drain();
    writer = start();
    if (writer == 0) {
        child_open("log-size=65536", false);
        child_tell(0);
        child_await(0);
        w.value_len = VALUE_LARGE;
        child_commit(0, 2, KVFS_DURABLE);
        w.value_len = VALUE_LEN;
        child_log_one();
        _exit(0);
    }
    (void)await_byte();
    reader = start_slow_reader();
    let_go(0);
    end_stopped(writer);
    await_slow_reader(reader);
    (void)kill(writer, SIGKILL);
    await_end(writer, SIGKILL);
    look(false);
}

static void
read__others_wrote_meanwhile__not_missing(void **state)
{
    pid_t writers[2], reader;

    (void)state;
    start_two(writers);
    reader = start_slow_reader();
    let_go(0);
    (void)await_byte();
    let_go(0);
    await_end(writers[0], 0);
    let_go(1); /* it logs again */
    end_stopped(writers[1]);
    await_slow_reader(reader);
    (void)kill(writers[1], SIGKILL);
    await_end(writers[1], SIGKILL);
    look(false);
}

static void
read__others_wrote_and_went_meanwhile__not_missing(void **state)
{
    pid_t writers[2], writer, reader;

    (void)state;
    start_two(writers);
    reader = start_slow_reader();
    let_go(0);
    (void)await_byte();
    (void)kill(writers[1], SIGSTOP); /* it does not see that it is alone */
    await_stop(writers[1]);
    for (int i = 0; i < 2; i++) {
        (void)kill(writers[i], SIGKILL);
        await_end(writers[i], SIGKILL);
    }
    writer = start();
    if (writer == 0) {
        child_open("log-size=65536", false);
        child_log_one();
        _exit(0);
    }
    end_stopped(writer);
    await_slow_reader(reader);
    (void)kill(writer, SIGKILL);
    await_end(writer, SIGKILL);
    look(false);
}

/* --- what a death or a medium left ---------------------------------------------------------------- */

static size_t
log_bytes(void *bytes, size_t cap, bool put)
{
    char path[96];
    ssize_t n;
    int fd;

    (void)snprintf(path, sizeof(path), "%s/log", w.folder);
    fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    n = put ? pwrite(fd, bytes, cap, 0) : pread(fd, bytes, cap, 0);
    assert_true(n > 0);
    (void)close(fd);
    return (size_t)n;
}

static void
open__log_left_by_a_death__readonly_reads_it_and_writes_nothing(void **state)
{
    static uint8_t before[1 << 17], after[1 << 17];
    pid_t holder = start_writer(0, "", 0);
    size_t len;

    (void)state;
    for (unsigned i = 0; i < 5; i++)
        (void)await_byte();
    (void)kill(holder, SIGKILL);
    await_end(holder, SIGKILL);
    len = log_bytes(before, sizeof(before), false);
    look(true);
    look(true);
    assert_int_equal(log_bytes(after, sizeof(after), false), len);
    assert_memory_equal(before, after, len);
    look(false);
    look(true);
}

/* The engine below says that it has more than the log still holds: its end was not flushed,
 * what was folded from it was. */
static void
open__engine_ahead_of_the_log__all_there_and_goes_on(void **state)
{
    static uint8_t old[1 << 17];
    size_t len = log_bytes(old, sizeof(old), false);
    pid_t holder;

    (void)state;
    run_writer(0, "log-size=65536", 30);
    assert_int_equal(log_bytes(old, len, true), len);
    look(true);
    holder = start_writer(1, "log-size=65536", 0);
    for (unsigned i = 0; i < 40; i++)
        (void)await_byte();
    (void)kill(holder, SIGKILL);
    await_end(holder, SIGKILL);
    look(true);
    look(false);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(processes__come_and_go__nothing_acknowledged_is_missing),
        TEST(open__holder_stopped__ebusy_and_its_pid),
        TEST(death__in_a_fold__nothing_missing),
        TEST(death__while_the_log_is_handed_over__nothing_missing),
        TEST(read__batch_past_the_log_meanwhile__not_missing),
        TEST(read__others_wrote_meanwhile__not_missing),
        TEST(read__others_wrote_and_went_meanwhile__not_missing),
        TEST(open__log_left_by_a_death__readonly_reads_it_and_writes_nothing),
        TEST(open__engine_ahead_of_the_log__all_there_and_goes_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
