/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Several processes at one store with a log: whoever comes, goes, stops or dies, and wherever,
 * nobody reads a state older than the last commit that was acknowledged before.
 */
#include "log_world.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SMALL    "log-size=65536,log-piece=1" /* folds often and in many pieces */
#define EVENTS   100

/* --- coming and going ---------------------------------------------------------------------- */

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

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, world_setup, world_teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(processes__come_and_go__nothing_acknowledged_is_missing),
        TEST(open__holder_stopped__ebusy_and_its_pid),
        TEST(death__in_a_fold__nothing_missing),
        TEST(death__while_the_log_is_handed_over__nothing_missing),
        TEST(open__log_left_by_a_death__readonly_reads_it_and_writes_nothing),
        TEST(open__engine_ahead_of_the_log__all_there_and_goes_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
