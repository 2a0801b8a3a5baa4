/* SPDX-License-Identifier: BSD-3-Clause
 *
 * case_process.c - opening again, opening readonly, and several processes.
 *
 * Children are forked before the store is opened here, except where a handle
 * is to cross fork().  Processes wait for each other in pipes.
 */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "contract.h"

#define PROCESS_BATCHES    (CONTRACT_SANITIZED ? 60 : 200)
#define PROCESS_INCREMENTS 60
#define PROCESS_FORKS      40
#define PROCESS_AFTER      400 /* batches of about 80 KiB after the death of a reader */

static void
reopen__after_close__everything_there(struct contract *c)
{
    struct model *model = model_new();
    uint8_t key[KVFS_DATA_KEY_LEN], value[5000];

    contract_open(c);
    for (uint64_t i = 0; i < 300; i++) {
        contract_data_key(key, 1, i * 7919 % 1000);
        contract_random_bytes(c, value, sizeof(value));
        kvfs_batch_put(c->builder, KVFS_DATA, key, 16, value, contract_below(c, sizeof(value)));
        kvfs_batch_put(c->builder, KVFS_META, key + 14, 2, value, contract_below(c, 100));
        kvfs_batch_del(c->builder, KVFS_META, key + 15, 1);
        key[14] |= 0x80; /* META keys do not begin with 0 */
        if (i % 10 == 0)
            contract_commit_model(c, model, (enum kvfs_durability)(i / 10 % 3));
        if (i % 60 == 59) {
            contract_commit_model(c, model, KVFS_NONE);
            contract_reopen(c);
            contract_check_now(c, model);
        }
    }
    contract_commit_model(c, model, KVFS_NONE);
    contract_close(c);
    contract_open(c); /* `create` keeps what is there */
    contract_check_now(c, model);
    contract_check_verify(c);
    contract_close(c);
    model_free(model);
}

static void
open__two_stores_at_once__independent(struct contract *c)
{
    struct model *models[2] = {model_new(), model_new()};
    struct contract *stores[2], other = *c;

    stores[0] = c;
    stores[1] = &other;
    contract_open(c);
    (void)memcpy(other.store, c->folder, strlen(c->folder) + 1); /* the folder above */
    other.builders[0] = kvfs_batch_new();
    other.builders[1] = kvfs_batch_new();
    other.builder = other.builders[0];
    contract_open(&other);
    for (unsigned i = 0; i < 40; i++) {
        struct contract *at = stores[i % 2];
        uint8_t key[2] = {'k', (uint8_t)(i / 4)};

        kvfs_batch_put(at->builder, KVFS_META, key, 2, i % 2 == 0 ? "even" : "odd", 3);
        if (i % 3 == 0)
            kvfs_batch_del(at->builder, KVFS_META, key, 2);
        contract_commit_model(at, models[i % 2], KVFS_NONE);
    }
    for (unsigned i = 0; i < 2; i++) {
        contract_check_now(stores[i], models[i]);
        model_free(models[i]);
    }
    contract_thread_end(&other);
    contract_close(&other);
    contract_close(c);
}

static void
readonly__apply__erofs_and_readable(struct contract *c)
{
    struct model *model = model_new();
    struct kvfs_engine_options options = {.readonly = true};

    contract_open(c);
    kvfs_batch_put(c->builder, KVFS_META, "a", 1, "value", 5);
    kvfs_batch_put(c->builder, KVFS_DATA, "0123456789abcdef", 16, "block", 5);
    contract_commit_model(c, model, KVFS_DURABLE);
    contract_close(c);
    contract_open_options(c, &options);
    contract_check_now(c, model);
    kvfs_batch_put(c->builder, KVFS_META, "b", 1, "x", 1);
    contract_refused(c, -EROFS);
    kvfs_batch_del(c->builder, KVFS_META, "a", 1);
    contract_refused(c, -EROFS);
    contract_check_now(c, model);
    contract_check_verify(c);
    contract_reopen(c);
    contract_check_now(c, model);
    contract_close(c);
    model_free(model);
}

/* --- several processes ---------------------------------------------------------- */

static void
process_send(const struct contract *c, int fd, uint64_t n)
{
    CHECK(c, write(fd, &n, sizeof(n)) == (ssize_t)sizeof(n), "a pipe is broken");
}

/* False at the end of what is sent. */
static bool
process_receive(const struct contract *c, int fd, uint64_t *n)
{
    ssize_t r = read(fd, n, sizeof(*n)); /* pipes keep such small writes whole */

    CHECK(c, r == 0 || r == (ssize_t)sizeof(*n), "a pipe is broken");
    return r != 0;
}

/* Fork a child that runs RUN; answers the writing end of a pipe to it. */
static int
process_start(struct contract *c, void (*run)(struct contract *c, int orders), pid_t *pid)
{
    int fds[2];

    CHECK(c, pipe(fds) == 0, "no pipe");
    *pid = contract_fork(c);
    if (*pid == 0) {
        (void)close(fds[1]);
        run(c, fds[0]);
        exit(0); // NOLINT(concurrency-mt-unsafe): its threads have ended
    }
    (void)close(fds[0]);
    return fds[1];
}

/* Look again and again; each number received is that of a batch applied. */
static void
process_read(struct contract *c, int orders, bool readonly)
{
    struct pollfd waiting = {.fd = orders, .events = POLLIN};
    uint64_t applied, seen = 0;

    if (!process_receive(c, orders, &applied))
        return;
    contract_open_options(c, &(struct kvfs_engine_options){.readonly = readonly});
    for (;;) {
        struct kvfs_db_snap *snap;
        uint64_t n;

        c->step = applied;
        snap = contract_begin(c);
        n = contract_set_read(c, snap);
        CHECK(c, n >= applied, "another process applied %llu, begin shows %llu",
              (unsigned long long)applied, (unsigned long long)n);
        CHECK(c, n >= seen, "after %llu an older state shows: %llu", (unsigned long long)seen,
              (unsigned long long)n);
        CHECK(c, contract_set_read(c, snap) == n, "a snapshot changed under its reader");
        c->engine->end(snap);
        seen = n;
        if (poll(&waiting, 1, 0) > 0 && !process_receive(c, orders, &applied))
            break;
    }
    contract_close(c);
}

static void
process_reader(struct contract *c, int orders)
{
    process_read(c, orders, true);
}

static void
process_reader_writable(struct contract *c, int orders)
{
    process_read(c, orders, false);
}

static void
processes__reading_while_one_writes__see_whole_batches(struct contract *c)
{
    pid_t pids[2];
    int fds[2];

    (void)signal(SIGPIPE, SIG_IGN);
    fds[0] = process_start(c, process_reader, &pids[0]);
    fds[1] = process_start(c, process_reader_writable, &pids[1]);
    contract_open(c);
    for (uint64_t n = 1; n <= PROCESS_BATCHES; n++) {
        c->step = n;
        contract_set_put(c, n);
        contract_commit(c, n % 2 == 0 ? KVFS_NONE : KVFS_ORDERED);
        process_send(c, fds[n % 2], n);
    }
    (void)close(fds[0]);
    (void)close(fds[1]);
    contract_join(c, pids[1]); /* first: it holds a copy of the other's pipe */
    contract_join(c, pids[0]);
    contract_check_verify(c);
    contract_close(c);
}

static void
process_increment(struct contract *c, int orders)
{
    uint64_t go;

    if (!process_receive(c, orders, &go))
        return;
    contract_open_options(c, &(struct kvfs_engine_options){.create = false});
    for (unsigned done = 0; done < PROCESS_INCREMENTS;) {
        struct kvfs_db_snap *snap = contract_begin(c);
        uint64_t n = contract_number_read(c, snap, KVFS_META, "count", 5, 40);
        uint8_t old[40], value[40];
        int r;

        c->engine->end(snap);
        contract_number_fill(old, sizeof(old), n);
        contract_number_fill(value, sizeof(value), n + 1);
        kvfs_batch_expect(c->builder, KVFS_META, "count", 5, old, sizeof(old));
        kvfs_batch_put(c->builder, KVFS_META, "count", 5, value, sizeof(value));
        r = contract_apply(c, KVFS_NONE);
        CHECK(c, r == 0 || r == -EAGAIN, "apply answered %d", r);
        done += r == 0;
    }
    contract_close(c);
}

static void
processes__writing_with_expect__none_lost(struct contract *c)
{
    uint8_t value[40];
    struct kvfs_db_snap *snap;
    pid_t pids[2];
    int fds[2];
    uint64_t n;

    fds[0] = process_start(c, process_increment, &pids[0]);
    fds[1] = process_start(c, process_increment, &pids[1]);
    contract_open(c);
    contract_number_fill(value, sizeof(value), 1);
    kvfs_batch_put(c->builder, KVFS_META, "count", 5, value, sizeof(value));
    contract_commit(c, KVFS_NONE);
    process_send(c, fds[0], 1);
    process_send(c, fds[1], 1);
    contract_join(c, pids[0]);
    contract_join(c, pids[1]);
    snap = contract_begin(c);
    n = contract_number_read(c, snap, KVFS_META, "count", 5, 40);
    c->engine->end(snap);
    CHECK(c, n == 1 + 2 * PROCESS_INCREMENTS, "1 and %u increments count %llu",
          2 * PROCESS_INCREMENTS, (unsigned long long)n);
    (void)close(fds[0]);
    (void)close(fds[1]);
    contract_check_verify(c);
    contract_close(c);
}

/* Opens, holds a snapshot, and tells its parent so by ending up in read(). */
static void
process_hold(struct contract *c, int orders)
{
    uint64_t fd;
    struct kvfs_db_snap *snap;

    if (!process_receive(c, orders, &fd))
        return;
    contract_open_options(c, &(struct kvfs_engine_options){.create = false});
    snap = contract_begin(c);
    (void)contract_set_read(c, snap);
    process_send(c, (int)fd, 1);
    (void)process_receive(c, orders, &fd); /* until killed */
}

/* Readers that died with snapshots must not hold back space or places for ever. */
static void
processes__reader_killed_with_a_snapshot__store_goes_on(struct contract *c)
{
    int back[2], fds[4], status;
    pid_t pids[4];
    uint64_t n = 0, answer;
    struct kvfs_engine_stat stat;
    struct kvfs_error err = {.code = 0};

    CHECK(c, pipe(back) == 0, "no pipe");
    for (int i = 0; i < 4; i++)
        fds[i] = process_start(c, process_hold, &pids[i]);
    contract_open(c);
    for (int i = 0; i < 4; i++) {
        contract_set_put(c, ++n);
        contract_commit(c, KVFS_NONE);
        process_send(c, fds[i], (uint64_t)back[1]);
        CHECK(c, process_receive(c, back[0], &answer), "the reader is gone");
        CHECK(c, kill(pids[i], SIGKILL) == 0 && waitpid(pids[i], &status, 0) == pids[i],
              "kill failed");
        (void)close(fds[i]);
    }
    for (unsigned i = 0; i < PROCESS_AFTER; i++) {
        struct kvfs_db_snap *snap;

        contract_set_put(c, ++n);
        contract_commit(c, KVFS_NONE);
        snap = contract_begin(c);
        CHECK(c, contract_set_read(c, snap) == n, "another state than the one applied");
        c->engine->end(snap);
    }
    CHECK_CODE(c, c->engine->stat(c->db, &stat, &err), 0, &err, "stat");
    CHECK(c, stat.readers == 0, "stat counts %llu readers, but they are dead",
          (unsigned long long)stat.readers);
    /* Were the space of old states never used again, it would be twice that.  (A log grows when
     * folds follow each other fast.) */
    CHECK(c, stat.store_bytes - stat.log_bytes <= (uint64_t)PROCESS_AFTER * 40 << 10,
          "the dead hold back space: the store grew to %llu bytes",
          (unsigned long long)stat.store_bytes);
    contract_close(c);
    (void)close(back[0]);
    (void)close(back[1]);
}

static void
process_refused(struct contract *c, int orders)
{
    struct kvfs_engine_options options = {.create = true, .params = c->params};
    struct kvfs_error err = {.code = 0};
    struct kvfs_db *db = NULL;
    uint64_t go;

    if (!process_receive(c, orders, &go))
        return;
    CHECK_CODE(c, c->engine->open(c->engine, c->store, &options, &db, &err), -EBUSY, &err,
               "open in a second process");
    (void)process_receive(c, orders, &go); /* until the first process has closed */
    contract_open(c);
    contract_close(c);
}

static void
processes__second_one_where_one_is_allowed__ebusy_until_closed(struct contract *c)
{
    pid_t pid;
    int fd;

    if ((c->engine->caps & KVFS_CAP_MULTIPROCESS) != 0)
        contract_skip(c, "several processes may open a store of this engine");
    fd = process_start(c, process_refused, &pid);
    contract_open(c);
    process_send(c, fd, 1);
    for (uint64_t n = 1; n <= 5; n++) {
        contract_set_put(c, n);
        contract_commit(c, KVFS_NONE);
    }
    contract_close(c);
    process_send(c, fd, 1);
    contract_join(c, pid);
    (void)close(fd);
}

/* A handle that may be used after fork(): the child works on what it inherits,
 * and its parent goes on undisturbed. */
static void
fork__handle_used_in_the_child__works(struct contract *c)
{
    struct kvfs_db_snap *snap;
    pid_t pid;

    contract_open(c);
    contract_set_put(c, 1);
    contract_commit(c, KVFS_NONE);
    pid = contract_fork(c);
    for (uint64_t n = 2; n <= 20; n++) {
        /* A store in files is one store for both; leave it to the child. */
        if (pid != 0 && (c->engine->caps & KVFS_CAP_PERSISTENT) != 0)
            break;
        contract_set_put(c, n);
        contract_commit(c, KVFS_NONE);
        snap = contract_begin(c);
        CHECK(c, contract_set_read(c, snap) == n, "another state than the one applied");
        c->engine->end(snap);
    }
    if (pid == 0)
        _exit(0);
    contract_join(c, pid);
    contract_check_verify(c);
    contract_close(c);
}

struct fork_writer {
    struct contract *c;
    atomic_bool stop;
};

static void *
fork_writer(void *arg)
{
    struct fork_writer *w = arg;

    for (uint64_t n = 2; !atomic_load(&w->stop); n++) {
        contract_set_put(w->c, n);
        contract_commit(w->c, KVFS_NONE);
    }
    return NULL;
}

/* fork() while another thread is inside apply: the child finds a whole state and
 * no lock that nobody will release. */
static void
fork__during_commits__whole_and_usable_in_the_child(struct contract *c)
{
    struct contract mine;
    struct fork_writer w = {.c = c};
    pthread_t thread;

    if ((c->engine->caps & KVFS_CAP_PERSISTENT) != 0)
        contract_skip(c, "parent and child would write to one store");
    contract_open(c);
    contract_set_put(c, 1);
    contract_commit(c, KVFS_NONE);
    contract_thread(c, &mine, 1);
    CHECK(c, pthread_create(&thread, NULL, fork_writer, &w) == 0, "no thread");
    for (mine.step = 0; mine.step < PROCESS_FORKS; mine.step++) {
        pid_t pid = contract_fork(&mine);

        if (pid == 0) {
            struct kvfs_db_snap *snap = contract_begin(&mine);
            uint64_t n = contract_set_read(&mine, snap);

            mine.engine->end(snap);
            CHECK(&mine, n > 0, "nothing is there");
            contract_set_put(&mine, n + 1);
            contract_commit(&mine, KVFS_NONE);
            _exit(0);
        }
        contract_join(&mine, pid);
    }
    atomic_store(&w.stop, true);
    (void)pthread_join(thread, NULL);
    contract_thread_end(&mine);
    contract_check_verify(c);
    contract_close(c);
}

const struct contract_case contract_cases_process[] = {
    {"reopen__after_close__everything_there", reopen__after_close__everything_there,
     KVFS_CAP_PERSISTENT},
    {"open__two_stores_at_once__independent", open__two_stores_at_once__independent, 0},
    {"readonly__apply__erofs_and_readable", readonly__apply__erofs_and_readable,
     KVFS_CAP_PERSISTENT},
    {"processes__reading_while_one_writes__see_whole_batches",
     processes__reading_while_one_writes__see_whole_batches,
     KVFS_CAP_PERSISTENT | KVFS_CAP_MULTIPROCESS},
    {"processes__writing_with_expect__none_lost", processes__writing_with_expect__none_lost,
     KVFS_CAP_PERSISTENT | KVFS_CAP_MULTIPROCESS},
    {"processes__reader_killed_with_a_snapshot__store_goes_on",
     processes__reader_killed_with_a_snapshot__store_goes_on,
     KVFS_CAP_PERSISTENT | KVFS_CAP_MULTIPROCESS},
    {"processes__second_one_where_one_is_allowed__ebusy_until_closed",
     processes__second_one_where_one_is_allowed__ebusy_until_closed, KVFS_CAP_PERSISTENT},
    {"fork__handle_used_in_the_child__works", fork__handle_used_in_the_child__works, KVFS_CAP_FORK},
    {"fork__during_commits__whole_and_usable_in_the_child",
     fork__during_commits__whole_and_usable_in_the_child, KVFS_CAP_FORK},
    {NULL, NULL, 0},
};
