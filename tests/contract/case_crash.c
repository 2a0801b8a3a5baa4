/* SPDX-License-Identifier: BSD-3-Clause
 *
 * case_crash.c - a process that writes is killed; what was acknowledged stays.
 *
 * The writer has threads; each has a series of its own, whose batch number n
 * puts n under several keys, appends a record n and deletes the record n - KEPT.
 * How far each is, it tells in shared memory, before and after every apply; an
 * acknowledgement is also a byte in a pipe, so the killer can count.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "contract.h"

#define CRASH_ROUNDS    (CONTRACT_SANITIZED ? 8 : 24)
#define CRASH_THREADS   3
#define CRASH_KEYS      6
#define CRASH_LEN       4120
#define CRASH_KEPT      50
#define CRASH_MOMENT_NS 5000000u

struct crash_series { /* in shared memory */
    atomic_ulong started, acked;
};

struct crash_writer {
    const struct contract *c;
    struct crash_series *series;
    uint64_t number;
    int acks; /* pipe */
};

static void
crash_put(struct contract *c, uint64_t series, uint64_t n)
{
    uint8_t key[KVFS_DATA_KEY_LEN], value[CRASH_LEN];

    contract_number_fill(value, sizeof(value), n);
    for (uint8_t i = 0; i < CRASH_KEYS; i++) {
        uint8_t meta[] = {'k', (uint8_t)series, i};

        contract_data_key(key, 100 + series, i);
        kvfs_batch_put(c->builder, KVFS_META, meta, sizeof(meta), value, 24);
        kvfs_batch_put(c->builder, KVFS_DATA, key, sizeof(key), value, sizeof(value));
    }
    contract_data_key(key, series, n);
    kvfs_batch_put(c->builder, KVFS_DATA, key, sizeof(key), value, 100 + n % 5000);
    if (n > CRASH_KEPT) {
        uint8_t end[KVFS_DATA_KEY_LEN];

        contract_data_key(key, series, 0);
        contract_data_key(end, series, n - CRASH_KEPT + 1);
        kvfs_batch_del_range(c->builder, KVFS_DATA, key, sizeof(key), end, sizeof(end));
    }
}

static void *
crash_writer(void *arg)
{
    struct crash_writer *w = arg;
    struct contract c;
    uint64_t n = atomic_load(&w->series->acked);

    contract_thread(w->c, &c, w->number);
    for (;;) {
        n++;
        crash_put(&c, w->number, n);
        atomic_store(&w->series->started, n);
        contract_commit(&c, n % 8 == 0 ? KVFS_DURABLE : n % 2 == 0 ? KVFS_NONE : KVFS_ORDERED);
        atomic_store(&w->series->acked, n);
        if (write(w->acks, "", 1) != 1)
            _exit(1);
    }
    return NULL;
}

static void
crash_child(struct contract *c, struct crash_series *series, int acks)
{
    struct crash_writer writers[CRASH_THREADS];
    pthread_t ids[CRASH_THREADS];

    contract_open(c);
    for (uint64_t i = 0; i < CRASH_THREADS; i++) {
        writers[i] = (struct crash_writer){.c = c, .series = &series[i], .number = i, .acks = acks};
        CHECK(c, pthread_create(&ids[i], NULL, crash_writer, &writers[i]) == 0, "no thread");
    }
    (void)pthread_join(ids[0], NULL); /* never: the killer comes */
}

/* Records of one series: exactly KEPT up to N, or all from 1. */
static void
crash_check_records(struct contract *c, struct kvfs_db_snap *snap, uint64_t series, uint64_t n)
{
    uint8_t lo[KVFS_DATA_KEY_LEN], hi[KVFS_DATA_KEY_LEN];
    uint64_t at = n > CRASH_KEPT ? n - CRASH_KEPT + 1 : 1;
    struct kvfs_error err = {.code = 0};
    struct kvfs_db_cursor *cursor;
    size_t key_len, value_len;
    const void *key;
    int r;

    contract_data_key(lo, series, 0);
    contract_data_key(hi, series + 1, 0);
    CHECK_CODE(c, c->engine->cursor_open(snap, KVFS_DATA, lo, 16, hi, 16, 0, &cursor, &err), 0,
               &err, "cursor_open");
    while ((r = c->engine->cursor_next(cursor, &key, &key_len, &value_len, &err)) == 1) {
        contract_data_key(lo, series, at);
        CHECK(c, key_len == 16 && memcmp(key, lo, 16) == 0,
              "series %llu is at %llu, but record %llu is missing (or a deleted one is back)",
              (unsigned long long)series, (unsigned long long)n, (unsigned long long)at);
        CHECK(c, contract_number_read(c, snap, KVFS_DATA, lo, 16, 100 + at % 5000) == at,
              "record %llu of series %llu is of another batch", (unsigned long long)at,
              (unsigned long long)series);
        at++;
    }
    CHECK_CODE(c, r, 0, &err, "cursor_next");
    CHECK(c, at == n + 1, "series %llu is at %llu, but its newest record is %llu",
          (unsigned long long)series, (unsigned long long)n, (unsigned long long)at - 1);
    c->engine->cursor_close(cursor);
}

/* What one series holds; answers its number. */
static uint64_t
crash_check_series(struct contract *c, struct kvfs_db_snap *snap, uint64_t series)
{
    uint8_t key[KVFS_DATA_KEY_LEN];
    uint64_t n = 0;

    for (uint8_t i = 0; i < CRASH_KEYS; i++) {
        uint8_t meta[] = {'k', (uint8_t)series, i};
        uint64_t m = contract_number_read(c, snap, KVFS_META, meta, sizeof(meta), 24), d;

        contract_data_key(key, 100 + series, i);
        d = contract_number_read(c, snap, KVFS_DATA, key, 16, CRASH_LEN);
        if (i == 0)
            n = m;
        CHECK(c, m == n && d == n,
              "half a batch: key %u of series %llu has %llu and %llu, not %llu", i,
              (unsigned long long)series, (unsigned long long)m, (unsigned long long)d,
              (unsigned long long)n);
    }
    crash_check_records(c, snap, series, n);
    return n;
}

static unsigned
crash_check(struct contract *c, struct crash_series *series)
{
    struct kvfs_db_snap *snap;
    unsigned inside = 0;

    contract_open_options(c, &(struct kvfs_engine_options){.create = false});
    snap = contract_begin(c);
    for (uint64_t i = 0; i < CRASH_THREADS; i++) {
        uint64_t acked = atomic_load(&series[i].acked), started = atomic_load(&series[i].started);
        uint64_t n = crash_check_series(c, snap, i);

        CHECK(c, n >= acked, "series %llu: batch %llu was acknowledged, the store has %llu",
              (unsigned long long)i, (unsigned long long)acked, (unsigned long long)n);
        CHECK(c, n <= started, "series %llu: batch %llu was begun, the store has %llu",
              (unsigned long long)i, (unsigned long long)started, (unsigned long long)n);
        inside += started > acked;
        atomic_store(&series[i].acked, n);
        atomic_store(&series[i].started, n);
    }
    c->engine->end(snap);
    contract_check_verify(c);
    contract_close(c);
    return inside;
}

/* In a process of its own: this one goes on forking, and some engines leave threads
 * behind that a child of it would miss. */
static unsigned
crash_check_apart(struct contract *c, struct crash_series *series)
{
    pid_t pid = contract_fork(c);
    int status = -1;

    if (pid == 0)
        _exit(100 + (int)crash_check(c, series));
    CHECK(c, waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) >= 100,
          "the checking process ended with status 0x%x", (unsigned)status);
    return (unsigned)WEXITSTATUS(status) - 100;
}

static void
crash__killed_during_commits__acknowledged_batches_whole(struct contract *c)
{
    struct crash_series *series = mmap(NULL, CRASH_THREADS * sizeof(*series),
                                       PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    unsigned inside = 0;

    CHECK(c, series != MAP_FAILED, "no shared memory");
    for (c->step = 0; c->step < CRASH_ROUNDS; c->step++) {
        uint64_t kill_at = 1 + contract_below(c, 60);
        struct timespec moment = {.tv_sec = 0};
        int pipefd[2], status;
        char byte;
        pid_t pid;

        CHECK(c, pipe(pipefd) == 0, "no pipe");
        pid = contract_fork(c);
        if (pid == 0) {
            (void)close(pipefd[0]);
            crash_child(c, series, pipefd[1]);
            _exit(1);
        }
        (void)close(pipefd[1]);
        while (kill_at-- > 0)
            CHECK(c, read(pipefd[0], &byte, 1) == 1, "the writing process ended by itself");
        /* Right behind an acknowledgement the next batch has only begun: let it go on. */
        moment.tv_nsec = (long)(contract_below(c, 2) * contract_below(c, CRASH_MOMENT_NS));
        (void)nanosleep(&moment, NULL);
        CHECK(c, kill(pid, SIGKILL) == 0, "kill failed");
        CHECK(c, waitpid(pid, &status, 0) == pid && WIFSIGNALED(status),
              "the writing process ended with status 0x%x", (unsigned)status);
        (void)close(pipefd[0]);
        inside += crash_check_apart(c, series);
    }
    (void)printf("             %u kills met %u batches that were not yet acknowledged\n",
                 CRASH_ROUNDS, inside);
    CHECK(c, inside > 0, "no kill fell inside a commit");
    (void)munmap(series, CRASH_THREADS * sizeof(*series));
}

const struct contract_case contract_cases_crash[] = {
    {"crash__killed_during_commits__acknowledged_batches_whole",
     crash__killed_during_commits__acknowledged_batches_whole, KVFS_CAP_PERSISTENT},
    {NULL, NULL, 0},
};
