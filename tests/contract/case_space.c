/* SPDX-License-Identifier: BSD-3-Clause
 *
 * case_space.c - a full store, and deleting very much in bounded memory.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "contract.h"

/* --- a full store --------------------------------------------------------------- */

#define FULL_BYTES ((uint64_t)64 << 20) /* two engines may have to share it */
#define FULL_LEN   4120
#define FULL_BATCH 32

/* Engines that cannot fill half of a store with values, and why: an expected failure of that
 * one check.  An engine that can must not be here. */
static const struct {
    const char *engine, *why;
    uint64_t share; /* of the store: 1 / share */
} full_known[] = {
    {"sled", "its log takes 3.2 times the records in the long run (engines/rust/README.md)", 6},
    {"log:sled", "as sled itself", 6},
};

static uint64_t
full_share(const struct contract *c)
{
    for (size_t i = 0; i < sizeof(full_known) / sizeof(full_known[0]); i++)
        if (strcmp(full_known[i].engine, c->engine->name) == 0) {
            (void)printf("             expected failure: %s\n", full_known[i].why);
            return full_known[i].share;
        }
    return 2;
}

static struct kvfs_engine_stat
full_stat(struct contract *c)
{
    struct kvfs_engine_stat stat;
    struct kvfs_error err = {.code = 0};

    CHECK_CODE(c, c->engine->stat(c->db, &stat, &err), 0, &err, "stat");
    return stat;
}

/* Put blocks FIRST, FIRST + 1, ... until the store is full; answers how many. */
static uint64_t
full_fill(struct contract *c, uint64_t first, uint64_t most)
{
    uint8_t key[KVFS_DATA_KEY_LEN], value[FULL_LEN];
    uint64_t n = 0;

    while (n < most) {
        struct kvfs_engine_stat stat = full_stat(c);
        int r;

        c->step = first + n;
        for (uint64_t i = 0; i < FULL_BATCH; i++) {
            contract_data_key(key, 1, first + n + i);
            contract_number_fill(value, sizeof(value), first + n + i);
            kvfs_batch_put(c->builder, KVFS_DATA, key, sizeof(key), value, sizeof(value));
        }
        r = contract_apply(c, KVFS_ORDERED);
        if (r == -ENOSPC) {
            CHECK(c, stat.avail_bytes <= FULL_BYTES / 4,
                  "stat told %llu bytes were available, %u did not fit",
                  (unsigned long long)stat.avail_bytes, FULL_BATCH * FULL_LEN);
            return n;
        }
        CHECK(c, r == 0, "apply answered %d", r);
        n += FULL_BATCH;
        CHECK(c, n * FULL_LEN <= FULL_BYTES,
              "a store of at most %llu bytes took %llu bytes of values",
              (unsigned long long)FULL_BYTES, (unsigned long long)(n * FULL_LEN));
    }
    return n;
}

static void
full_check(struct contract *c, uint64_t first, uint64_t count)
{
    struct kvfs_db_snap *snap = contract_begin(c);
    uint8_t key[KVFS_DATA_KEY_LEN];
    uint64_t records = full_stat(c).data_records;

    CHECK(c, !contract_counts(c) || records == count, "%llu blocks are left, there should be %llu",
          (unsigned long long)records, (unsigned long long)count);
    for (uint64_t i = 0; i < count; i += 13) {
        contract_data_key(key, 1, first + i);
        CHECK(c, contract_number_read(c, snap, KVFS_DATA, key, 16, FULL_LEN) == first + i,
              "block %llu is wrong or missing", (unsigned long long)(first + i));
    }
    c->engine->end(snap);
}

/* Full of COUNT blocks from FIRST on: refusals change nothing, deleting works.
 * Ends with half of the blocks. */
static void
full_delete(struct contract *c, uint64_t first, uint64_t count)
{
    uint8_t key[KVFS_DATA_KEY_LEN], value[FULL_LEN] = {0};

    for (uint64_t i = 0; i < 5; i++) { /* refused again and again; nothing changes */
        for (uint64_t j = 0; j < 4 * (uint64_t)FULL_BATCH; j++) {
            contract_data_key(key, 2, j);
            kvfs_batch_put(c->builder, KVFS_DATA, key, sizeof(key), value, sizeof(value));
        }
        contract_refused(c, -ENOSPC);
        full_check(c, first, count);
    }
    for (uint64_t i = 0; i < 10; i++) { /* one block goes, a little META comes */
        contract_data_key(key, 1, first + i);
        kvfs_batch_del(c->builder, KVFS_DATA, key, sizeof(key));
        kvfs_batch_put(c->builder, KVFS_META, (uint8_t[]){'m', (uint8_t)i}, 2, value, 100);
        contract_commit(c, i % 2 == 0 ? KVFS_DURABLE : KVFS_ORDERED);
        full_check(c, first + i + 1, count - i - 1);
    }
    contract_data_key(value, 1, first + count / 2);
    contract_data_key(key, 1, 0);
    kvfs_batch_del_range(c->builder, KVFS_DATA, key, sizeof(key), value, sizeof(key));
    contract_commit(c, KVFS_ORDERED);
    full_check(c, first + count / 2, count - count / 2);
}

static void
full__store_max_bytes_reached__enospc_and_deletes_work(struct contract *c)
{
    uint64_t first = 0, count = 0, first_fill = 0, share = full_share(c);
    unsigned long long stored;

    contract_open_options(
        c, &(struct kvfs_engine_options){.create = true, .store_max_bytes = FULL_BYTES});
    for (unsigned cycle = 0; cycle < (CONTRACT_TSAN ? 2 : 4); cycle++) {
        count += full_fill(c, first + count, UINT64_MAX);
        if (cycle == 0)
            first_fill = count;
        stored = count * FULL_LEN;
        (void)printf("             cycle %u: full with %llu of %llu bytes in values\n", cycle,
                     stored, (unsigned long long)FULL_BYTES);
        CHECK(c, share == 2 || stored < FULL_BYTES / 2,
              "half of it is values: the failure is no longer to be expected");
        CHECK(c, stored >= FULL_BYTES / share,
              "a store of %llu bytes is full with %llu bytes of values",
              (unsigned long long)FULL_BYTES, stored);
        CHECK(c, count >= first_fill * 3 / 4, "in cycle %u only %llu blocks fit, %llu did at first",
              cycle, (unsigned long long)count, (unsigned long long)first_fill);
        CHECK(c, full_stat(c).store_bytes <= FULL_BYTES, "the store grew past its limit");
        full_check(c, first, count);
        full_delete(c, first, count);
        first += count / 2;
        count -= count / 2;
    }
    contract_check_verify(c);
    if ((c->engine->caps & KVFS_CAP_PERSISTENT) != 0) {
        contract_close(c); /* without the limit there is room again */
        contract_open_options(c, &(struct kvfs_engine_options){.create = false});
        full_check(c, first, count);
        (void)full_fill(c, first + count, first_fill);
        full_check(c, first, count + (first_fill + FULL_BATCH - 1) / FULL_BATCH * FULL_BATCH);
    }
    contract_close(c);
}

/* --- deleting very much ------------------------------------------------------------- */

#define MANY_RECORDS (CONTRACT_SANITIZED ? 200000u : 1000000u)
#define MANY_BATCH   10000u
/* A tenth of what it would take to hold a million keys and values of a kvfs
 * block, and room for an engine's dirty index pages; twice that if sanitized. */
#define MANY_GROWTH_MAX (((uint64_t)128 << 20) * (1 + CONTRACT_SANITIZED))

/* Bytes of this process that are neither files nor shared. */
static uint64_t
many_memory(void)
{
    unsigned long long kib = 0;
    char line[128];
    FILE *fp = fopen("/proc/self/status", "re");

    while (fp != NULL && fgets(line, sizeof(line), fp) != NULL)
        if (strncmp(line, "RssAnon:", 8) == 0)
            kib = strtoull(line + 8, NULL, 10);
    if (fp != NULL)
        (void)fclose(fp);
    return kib << 10;
}

struct many_watch {
    atomic_bool stop;
    uint64_t most;
};

/* Samples memory: a peak is no event that could be waited for. */
static void *
many_watch(void *arg)
{
    struct many_watch *w = arg;
    const struct timespec pause = {.tv_nsec = 1000000};

    do {
        uint64_t now = many_memory();

        if (now > w->most)
            w->most = now;
        (void)nanosleep(&pause, NULL);
    } while (!atomic_load(&w->stop));
    return NULL;
}

/* Apply the batch, watching memory. */
static void
many_commit(struct contract *c, const char *what)
{
    struct many_watch w = {.most = 0};
    uint64_t before = many_memory();
    pthread_t thread;

    CHECK(c, before > 0, "/proc/self/status tells no RssAnon");
    CHECK(c, pthread_create(&thread, NULL, many_watch, &w) == 0, "no thread");
    contract_commit(c, KVFS_ORDERED);
    atomic_store(&w.stop, true);
    (void)pthread_join(thread, NULL);
    (void)printf("             %s took %lld KiB of memory\n", what,
                 w.most > before ? (long long)((w.most - before) >> 10) : 0);
    CHECK(c, w.most <= before + MANY_GROWTH_MAX, "%s took %llu KiB of memory", what,
          (unsigned long long)((w.most - before) >> 10));
}

static uint64_t
many_count(struct contract *c, uint64_t fork_id)
{
    uint8_t lo[KVFS_DATA_KEY_LEN], hi[KVFS_DATA_KEY_LEN];
    struct kvfs_db_snap *snap = contract_begin(c);
    struct kvfs_db_cursor *cursor;
    struct kvfs_error err = {.code = 0};
    size_t key_len, value_len;
    const void *key;
    uint64_t n = 0;
    int r;

    contract_data_key(lo, fork_id, 0);
    contract_data_key(hi, fork_id + 1, 0);
    CHECK_CODE(
        c,
        c->engine->cursor_open(snap, KVFS_DATA, lo, 16, hi, 16, KVFS_SCAN_KEYS_ONLY, &cursor, &err),
        0, &err, "cursor_open");
    while ((r = c->engine->cursor_next(cursor, &key, &key_len, &value_len, &err)) == 1)
        n++;
    CHECK_CODE(c, r, 0, &err, "cursor_next");
    c->engine->cursor_close(cursor);
    c->engine->end(snap);
    return n;
}

static void
many_del_range(struct contract *c, uint64_t from, uint64_t to)
{
    uint8_t lo[KVFS_DATA_KEY_LEN], hi[KVFS_DATA_KEY_LEN];

    contract_data_key(lo, 1, from);
    contract_data_key(hi, 1, to);
    kvfs_batch_del_range(c->builder, KVFS_DATA, lo, 16, hi, 16);
}

static void
del_range__a_million_records__bounded_memory(struct contract *c)
{
    uint8_t key[KVFS_DATA_KEY_LEN];
    const uint64_t n = MANY_RECORDS;

    contract_open(c);
    for (uint64_t i = 0; i < n; i++) {
        contract_data_key(key, 1, i);
        kvfs_batch_put(c->builder, KVFS_DATA, key, 16, key, 16);
        if (i % MANY_BATCH == MANY_BATCH - 1)
            contract_commit(c, KVFS_NONE);
    }
    contract_data_key(key, 0, UINT64_MAX); /* neighbours, outside of all ranges */
    kvfs_batch_put(c->builder, KVFS_DATA, key, 16, "before", 6);
    contract_data_key(key, 2, 0);
    kvfs_batch_put(c->builder, KVFS_DATA, key, 16, "behind", 6);
    contract_commit(c, KVFS_NONE);
    CHECK(c, many_count(c, 1) == n, "not all records are there");

    many_del_range(c, n / 4, n / 2);
    contract_data_key(key, 1, n / 3);
    kvfs_batch_put(c->builder, KVFS_DATA, key, 16, "again", 5); /* in the hole */
    many_commit(c, "deleting a quarter of the records");
    CHECK(c, many_count(c, 1) == n - n / 4 + 1, "another count than the range's");
    many_del_range(c, 0, UINT64_MAX);
    many_commit(c, "deleting the others");
    CHECK(c, many_count(c, 1) == 0, "records are left in a deleted range");
    CHECK(c, many_count(c, 0) == 1 && many_count(c, 2) == 1, "a neighbour of the range is gone");
    CHECK(c, !contract_counts(c) || full_stat(c).data_records == 2,
          "stat does not know that two records are left");
    contract_check_verify(c);
    contract_close(c);
}

const struct contract_case contract_cases_space[] = {
    {"full__store_max_bytes_reached__enospc_and_deletes_work",
     full__store_max_bytes_reached__enospc_and_deletes_work, 0},
    {"del_range__a_million_records__bounded_memory", del_range__a_million_records__bounded_memory,
     0},
    {NULL, NULL, 0},
};
