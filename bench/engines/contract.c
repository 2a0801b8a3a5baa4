/* SPDX-License-Identifier: BSD-3-Clause
 *
 * contract.c - the store that is an engine behind kvfs/engine.h.
 */
#include <stdio.h>
#include <string.h>

#include <kvfs/batch.h>
#include <kvfs/engine.h>

#include "store.h"

static const struct kvfs_engine *contract_engine;
static struct kvfs_db *contract_db;

static void
contract_open(const char *folder, const char *variant)
{
    char name[128];
    size_t len = strcspn(variant, ",");
    struct kvfs_engine_options options = {
        .create = true, .params = variant[len] == ',' ? variant + len + 1 : NULL};
    struct kvfs_error err = {.code = 0};

    (void)snprintf(name, sizeof(name), "%.*s", (int)len, variant);
    if (kvfs_engine_find(name, &contract_engine, &err) != 0 ||
        contract_engine->open(contract_engine, folder, &options, &contract_db, &err) != 0)
        bench_die("%s", err.msg);
}

static void
contract_put(const struct bench_block *blocks, size_t count)
{
    struct kvfs_batch_builder *b = kvfs_batch_new();
    struct kvfs_error err = {.code = 0};
    struct kvfs_batch batch;

    for (size_t i = 0; i < count; i++)
        kvfs_batch_put_borrowed(b, KVFS_DATA, blocks[i].key, BENCH_KEY, blocks[i].value,
                                BENCH_BLOCK, blocks[i].value + BENCH_BLOCK, BENCH_TRAILER);
    if (kvfs_batch_end(b, &batch) != 0)
        bench_die("no memory");
    if (contract_engine->apply(contract_db, &batch, KVFS_DURABLE, &err) != 0)
        bench_die("%s", err.msg);
    kvfs_batch_free(b);
}

static void
contract_get(struct bench_block *block)
{
    struct iovec iov = {.iov_base = block->value, .iov_len = BENCH_VALUE};
    struct kvfs_error err = {.code = 0};
    struct kvfs_db_snap *snap;

    if (contract_engine->begin(contract_db, &snap, &err) != 0 ||
        contract_engine->get(snap, KVFS_DATA, block->key, BENCH_KEY, 0, &iov, 1, NULL, &err) != 0)
        bench_die("%s", err.msg);
    contract_engine->end(snap);
}

static void
contract_close(void)
{
    contract_engine->close(contract_db);
}

const struct bench_store bench_contract = {
    .name = "contract",
    .open = contract_open,
    .put = contract_put,
    .get = contract_get,
    .close = contract_close,
};
