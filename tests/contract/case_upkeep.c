/* SPDX-License-Identifier: BSD-3-Clause
 *
 * case_upkeep.c - stat, sync, verify, backup, compact.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "contract.h"

static void
stat__snapshots_held__readers_and_lag_told(struct contract *c)
{
    struct kvfs_engine_stat stat;
    struct kvfs_error err = {.code = 0};
    struct kvfs_db_snap *first, *second;

    contract_open(c);
    contract_set_put(c, 1);
    contract_commit(c, KVFS_NONE);
    first = contract_begin(c);
    contract_set_put(c, 2);
    contract_commit(c, KVFS_NONE);
    second = contract_begin(c);
    contract_set_put(c, 3);
    contract_commit(c, KVFS_NONE);
    CHECK_CODE(c, c->engine->stat(c->db, &stat, &err), 0, &err, "stat");
    /* 0 means that the engine does not know. */
    CHECK(c, stat.readers == 0 || stat.readers == 2, "stat counts %llu readers, there are 2",
          (unsigned long long)stat.readers);
    CHECK(c, stat.readers == 0 || stat.readers_lag >= 2, "the oldest is told to be %llu behind",
          (unsigned long long)stat.readers_lag);
    CHECK(c, stat.commits == 0 || stat.commits >= 3, "stat counts %llu commits",
          (unsigned long long)stat.commits);
    CHECK(c, stat.used_bytes > 0 && stat.store_bytes >= stat.used_bytes,
          "a store of %llu bytes with %llu in use", (unsigned long long)stat.store_bytes,
          (unsigned long long)stat.used_bytes);
    c->engine->end(first);
    CHECK(c, contract_set_read(c, second) == 2, "ending one snapshot changed another");
    c->engine->end(second);
    CHECK_CODE(c, c->engine->stat(c->db, &stat, &err), 0, &err, "stat");
    CHECK(c, stat.readers == 0, "stat counts %llu readers, all have ended",
          (unsigned long long)stat.readers);
    contract_close(c);
}

static void
sync__after_weaker_batches__nothing_changes(struct contract *c)
{
    struct model *model = model_new();
    struct kvfs_error err = {.code = 0};

    contract_open(c);
    for (uint8_t i = 0; i < 10; i++) {
        kvfs_batch_put(c->builder, KVFS_META, (uint8_t[]){'k', i}, 2, "value", i % 6);
        contract_commit_model(c, model, KVFS_NONE);
        CHECK_CODE(c, c->engine->sync(c->db, &err), 0, &err, "sync");
    }
    contract_check_now(c, model);
    contract_close(c);
    model_free(model);
}

static int
upkeep_stop(void *arg, uint64_t done, uint64_t total)
{
    bool *called = arg;

    (void)done;
    (void)total;
    *called = true;
    return 1;
}

static int
upkeep_go_on(void *arg, uint64_t done, uint64_t total)
{
    (void)arg;
    (void)done;
    (void)total;
    return 0;
}

static struct model *
upkeep_filled(struct contract *c)
{
    struct model *model = model_new();
    uint8_t key[KVFS_DATA_KEY_LEN], value[6000];

    contract_open(c);
    for (uint64_t i = 0; i < 400; i++) {
        contract_data_key(key, 1 + i % 3, i);
        contract_random_bytes(c, value, sizeof(value));
        kvfs_batch_put(c->builder, KVFS_DATA, key, 16, value, contract_below(c, sizeof(value)));
        kvfs_batch_put(c->builder, KVFS_META, (uint8_t[]){'k', (uint8_t)(i / 2)}, 2, value,
                       contract_below(c, 300));
        if (i % 16 == 15)
            contract_commit_model(c, model, KVFS_NONE);
    }
    contract_data_key(key, 2, 0);
    kvfs_batch_del_range(c->builder, KVFS_DATA, NULL, 0, key, 16);
    contract_commit_model(c, model, KVFS_ORDERED);
    return model;
}

static void
verify__interrupted__eintr(struct contract *c)
{
    struct model *model = upkeep_filled(c);
    struct kvfs_error err = {.code = 0};
    bool called = false;
    int r;

    CHECK(c, c->engine->verify != NULL, "the engine has no verify");
    r = c->engine->verify(c->db, NULL, NULL, upkeep_stop, &called, &err);
    CHECK_CODE(c, r, called ? -EINTR : 0, &err, "verify");
    CHECK_CODE(c, c->engine->verify(c->db, NULL, NULL, upkeep_go_on, NULL, &err), 0, &err,
               "verify");
    contract_check_now(c, model);
    contract_close(c);
    model_free(model);
}

struct upkeep_backup {
    struct contract *c;
    const char *path;
    atomic_bool done;
};

static void *
upkeep_backup(void *arg)
{
    struct upkeep_backup *b = arg;
    struct kvfs_error err = {.code = 0};

    CHECK_CODE(b->c, b->c->engine->backup(b->c->db, b->path, upkeep_go_on, NULL, &err), 0, &err,
               "backup");
    atomic_store(&b->done, true);
    return NULL;
}

/* A copy made while batches go on is one state, whole, and a store. */
static void
backup__while_batches_go_on__one_whole_state(struct contract *c)
{
    struct contract of_thread;
    struct upkeep_backup b = {.c = &of_thread};
    struct kvfs_db_snap *snap;
    char path[256];
    uint64_t n = 1, begun, copied;
    pthread_t thread;

    if (c->engine->backup == NULL)
        contract_skip(c, "this engine makes no backups");
    model_free(upkeep_filled(c)); /* something that takes a while to copy */
    contract_set_put(c, 1);
    contract_commit(c, KVFS_NONE);
    begun = n;
    (void)snprintf(path, sizeof(path), "%s/copy", c->folder);
    CHECK(c, mkdir(path, 0777) == 0, "no folder");
    contract_thread(c, &of_thread, 1);
    b.path = path;
    CHECK(c, pthread_create(&thread, NULL, upkeep_backup, &b) == 0, "no thread");
    do {
        contract_set_put(c, ++n);
        contract_commit(c, KVFS_NONE);
    } while (!atomic_load(&b.done));
    (void)pthread_join(thread, NULL);
    contract_thread_end(&of_thread);
    contract_close(c);
    (void)memcpy(c->store, path, sizeof(path));
    contract_open_options(c, &(struct kvfs_engine_options){.create = false});
    snap = contract_begin(c);
    copied = contract_set_read(c, snap);
    CHECK(c, copied >= begun && copied <= n, "the copy is of batch %llu, not %llu to %llu",
          (unsigned long long)copied, (unsigned long long)begun, (unsigned long long)n);
    c->engine->end(snap);
    contract_check_verify(c);
    contract_set_put(c, copied + 1); /* a copy can be written to */
    contract_commit(c, KVFS_ORDERED);
    contract_close(c);
}

static void
compact__after_deletes__same_records(struct contract *c)
{
    struct model *model;
    struct kvfs_error err = {.code = 0};
    uint64_t need = UINT64_MAX;
    bool called = false;
    int r;

    if (c->engine->compact == NULL)
        contract_skip(c, "this engine does not compact");
    model = upkeep_filled(c);
    contract_close(c);
    CHECK_CODE(c, c->engine->compact_need_bytes(c->engine, c->store, &need, &err), 0, &err,
               "compact_need_bytes");
    CHECK(c, need != UINT64_MAX, "compact_need_bytes set nothing");
    r = c->engine->compact(c->engine, c->store, upkeep_stop, &called, &err);
    CHECK_CODE(c, r, called ? -EINTR : 0, &err, "compact");
    contract_open_options(c, &(struct kvfs_engine_options){.create = false});
    contract_check_now(c, model); /* interrupted: nothing has changed */
    contract_close(c);
    CHECK_CODE(c, c->engine->compact(c->engine, c->store, upkeep_go_on, NULL, &err), 0, &err,
               "compact");
    contract_open_options(c, &(struct kvfs_engine_options){.create = false});
    contract_check_now(c, model);
    contract_check_verify(c);
    kvfs_batch_put(c->builder, KVFS_META, "goes on", 7, "x", 1);
    contract_commit_model(c, model, KVFS_DURABLE);
    contract_check_now(c, model);
    contract_close(c);
    model_free(model);
}

const struct contract_case contract_cases_upkeep[] = {
    {"stat__snapshots_held__readers_and_lag_told", stat__snapshots_held__readers_and_lag_told, 0},
    {"sync__after_weaker_batches__nothing_changes", sync__after_weaker_batches__nothing_changes, 0},
    {"verify__interrupted__eintr", verify__interrupted__eintr, 0},
    {"backup__while_batches_go_on__one_whole_state", backup__while_batches_go_on__one_whole_state,
     0},
    {"compact__after_deletes__same_records", compact__after_deletes__same_records, 0},
    {NULL, NULL, 0},
};
