/* SPDX-License-Identifier: BSD-3-Clause
 *
 * case_threads.c - readers and writers at the same time.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "contract.h"

#define BATCHES    (CONTRACT_SANITIZED ? 120 : 300)
#define READERS    4
#define WRITERS    3
#define INCREMENTS (CONTRACT_SANITIZED ? 40 : 100)

struct set_shared {
    const struct contract *c;
    atomic_ulong applied; /* newest number whose apply has returned */
    atomic_int writers;   /* still at work */
    atomic_ulong looks;   /* snapshots that readers checked */
};

struct set_thread {
    struct set_shared *shared;
    uint64_t number;
    pthread_t id;
};

static void *
set_reader(void *arg)
{
    struct set_thread *t = arg;
    struct set_shared *s = t->shared;
    uint64_t seen = 0;
    bool last;

    do {
        uint64_t at_least, n;
        struct kvfs_db_snap *snap;

        last = atomic_load(&s->writers) == 0;
        at_least = atomic_load(&s->applied);
        snap = contract_begin(s->c);
        n = contract_set_read(s->c, snap);
        CHECK(s->c, n >= at_least, "apply of batch %llu had returned, begin shows %llu",
              (unsigned long long)at_least, (unsigned long long)n);
        CHECK(s->c, n >= seen, "after batch %llu an older state shows: %llu",
              (unsigned long long)seen, (unsigned long long)n);
        CHECK(s->c, contract_set_read(s->c, snap) == n, "a snapshot changed under its reader");
        s->c->engine->end(snap);
        seen = n;
        (void)atomic_fetch_add(&s->looks, 1);
    } while (!last);
    return NULL;
}

static void
set_start(const struct contract *c, struct set_shared *s, struct set_thread *t, unsigned count,
          void *(*run)(void *))
{
    for (unsigned i = 0; i < count; i++) {
        t[i] = (struct set_thread){.shared = s, .number = i};
        CHECK(c, pthread_create(&t[i].id, NULL, run, &t[i]) == 0, "no thread");
    }
}

static void
set_join(struct set_thread *t, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        (void)pthread_join(t[i].id, NULL);
}

static void
threads__readers_during_commits__see_whole_batches(struct contract *c)
{
    struct contract reader;
    struct set_shared s;
    struct set_thread readers[READERS];

    contract_open(c);
    contract_thread(c, &reader, 1);
    s = (struct set_shared){.c = &reader, .writers = 1};
    contract_set_put(c, 1);
    contract_commit(c, KVFS_ORDERED);
    set_start(c, &s, readers, READERS, set_reader);
    for (uint64_t n = 2; n <= BATCHES; n++) {
        c->step = n;
        contract_set_put(c, n);
        contract_commit(c, n % 16 == 0 ? KVFS_DURABLE : n % 2 == 0 ? KVFS_NONE : KVFS_ORDERED);
        atomic_store(&s.applied, n);
    }
    atomic_store(&s.writers, 0);
    set_join(readers, READERS);
    CHECK(c, atomic_load(&s.looks) >= READERS, "no reader looked");
    contract_thread_end(&reader);
    contract_check_verify(c);
    contract_close(c);
}

/* Each thread adds one to a shared counter, as names are changed: read, expect,
 * put, and again after -EAGAIN. */
static void *
count_writer(void *arg)
{
    struct set_thread *t = arg;
    struct contract c;
    uint8_t value[40], old[40], key[KVFS_DATA_KEY_LEN];

    contract_thread(t->shared->c, &c, t->number);
    for (uint64_t done = 0; done < INCREMENTS;) {
        struct kvfs_db_snap *snap = contract_begin(&c);
        uint64_t n = contract_number_read(&c, snap, KVFS_META, "count", 5, 40);
        int r;

        c.engine->end(snap);
        contract_number_fill(old, sizeof(old), n);
        contract_number_fill(value, sizeof(value), n + 1);
        if (n == 0)
            kvfs_batch_expect_absent(c.builder, KVFS_META, "count", 5);
        else
            kvfs_batch_expect(c.builder, KVFS_META, "count", 5, old, sizeof(old));
        kvfs_batch_put(c.builder, KVFS_META, "count", 5, value, sizeof(value));
        contract_data_key(key, t->number, done); /* and something of its own */
        kvfs_batch_put(c.builder, KVFS_DATA, key, 16, value, sizeof(value));
        r = contract_apply(&c, KVFS_NONE);
        CHECK(&c, r == 0 || r == -EAGAIN, "apply answered %d", r);
        done += r == 0;
    }
    contract_thread_end(&c);
    return NULL;
}

static void
threads__writers_with_expect__none_lost(struct contract *c)
{
    struct set_shared s = {.c = c};
    struct set_thread writers[WRITERS];
    struct kvfs_engine_stat stat;
    struct kvfs_error err = {.code = 0};
    struct kvfs_db_snap *snap;
    uint64_t n;

    contract_open(c);
    set_start(c, &s, writers, WRITERS, count_writer);
    set_join(writers, WRITERS);
    snap = contract_begin(c);
    n = contract_number_read(c, snap, KVFS_META, "count", 5, 40);
    c->engine->end(snap);
    CHECK(c, n == (uint64_t)WRITERS * INCREMENTS, "%u increments count %llu", WRITERS * INCREMENTS,
          (unsigned long long)n);
    CHECK_CODE(c, c->engine->stat(c->db, &stat, &err), 0, &err, "stat");
    CHECK(c, !contract_counts(c) || stat.data_records == (uint64_t)WRITERS * INCREMENTS,
          "%llu DATA records",
          (unsigned long long)stat.data_records);
    contract_close(c);
}

static void *
set_read_once(void *arg)
{
    void **job = arg; /* contract, snapshot, number */
    const struct contract *c = job[0];

    CHECK(c, contract_set_read(c, job[1]) == *(uint64_t *)job[2],
          "a snapshot differs on another thread");
    return NULL;
}

static void *
set_end(void *arg)
{
    void **job = arg;
    const struct contract *c = job[0];

    c->engine->end(job[1]);
    return NULL;
}

/* Begun here, read there, ended elsewhere. */
static void
snapshot__moves_between_threads__stays_the_same(struct contract *c)
{
    uint64_t numbers[6];
    struct kvfs_db_snap *snaps[6];
    pthread_t thread;

    contract_open(c);
    for (uint64_t i = 0; i < 6; i++) {
        contract_set_put(c, i + 1);
        contract_commit(c, KVFS_NONE);
        numbers[i] = i + 1;
        snaps[i] = contract_begin(c);
    }
    for (unsigned i = 0; i < 6; i++) {
        void *job[3] = {c, snaps[i], &numbers[i]};

        CHECK(c, pthread_create(&thread, NULL, set_read_once, job) == 0, "no thread");
        (void)pthread_join(thread, NULL);
        contract_set_put(c, 7 + i);
        contract_commit(c, KVFS_NONE);
        CHECK(c, contract_set_read(c, snaps[i]) == numbers[i], "a snapshot changed");
        CHECK(c, pthread_create(&thread, NULL, set_end, job) == 0, "no thread");
        (void)pthread_join(thread, NULL);
    }
    contract_close(c);
}

static void *
upkeep_caller(void *arg)
{
    struct set_thread *t = arg;
    struct set_shared *s = t->shared;
    struct contract c;
    struct kvfs_error err = {.code = 0};
    bool last;

    contract_thread(s->c, &c, t->number);
    do {
        struct kvfs_engine_stat stat;
        struct kvfs_engine_limits limits;

        last = atomic_load(&s->writers) == 0;
        c.engine->limits(c.db, &limits);
        CHECK_CODE(&c, c.engine->stat(c.db, &stat, &err), 0, &err, "stat");
        CHECK(&c,
              !contract_counts(&c) || (stat.meta_records == CONTRACT_SET_META &&
                                       stat.data_records == CONTRACT_SET_DATA),
              "stat tells %llu and %llu records between two batches",
              (unsigned long long)stat.meta_records, (unsigned long long)stat.data_records);
        if (t->number == 0)
            CHECK_CODE(&c, c.engine->sync(c.db, &err), 0, &err, "sync");
        else
            contract_check_verify(&c);
    } while (!last);
    contract_thread_end(&c);
    return NULL;
}

static void
threads__sync_stat_verify_during_commits__no_harm(struct contract *c)
{
    struct contract caller;
    struct set_shared s;
    struct set_thread callers[2];

    contract_open(c);
    contract_set_put(c, 1);
    contract_commit(c, KVFS_ORDERED);
    contract_thread(c, &caller, 1);
    s = (struct set_shared){.c = &caller, .writers = 1};
    set_start(c, &s, callers, 2, upkeep_caller);
    for (uint64_t n = 2; n <= BATCHES / 4; n++) {
        contract_set_put(c, n);
        contract_commit(c, KVFS_NONE);
    }
    atomic_store(&s.writers, 0);
    set_join(callers, 2);
    contract_thread_end(&caller);
    contract_close(c);
}

const struct contract_case contract_cases_threads[] = {
    {"threads__readers_during_commits__see_whole_batches",
     threads__readers_during_commits__see_whole_batches, 0},
    {"threads__writers_with_expect__none_lost", threads__writers_with_expect__none_lost, 0},
    {"threads__sync_stat_verify_during_commits__no_harm",
     threads__sync_stat_verify_during_commits__no_harm, 0},
    {"snapshot__moves_between_threads__stays_the_same",
     snapshot__moves_between_threads__stays_the_same, 0},
    {NULL, NULL, 0},
};
