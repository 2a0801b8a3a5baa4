/* SPDX-License-Identifier: BSD-3-Clause
 *
 * store_contract.c - an engine through kvfs/engine.h: a record a block, of the length that kvfs
 * gives one (the block and 24 bytes), a snapshot a read, a batch a write.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store.h"

#define CONTRACT_TRAILER 24

struct load_store {
    const struct kvfs_engine *engine;
    struct kvfs_db *db;
    struct load_dataset data;
};

static void
contract_key(uint64_t index, uint8_t *key)
{
    memset(key, 0, KVFS_DATA_KEY_LEN);
    key[7] = 1; /* fork, then index: as kvfs's, which sort by place */
    for (int i = 0; i < 8; i++)
        key[KVFS_DATA_KEY_LEN - 1 - i] = (uint8_t)(index >> 8 * i);
}

static int
contract_open(const struct load_target *t, bool create, struct load_store **storep,
              struct kvfs_error *err)
{
    struct kvfs_engine_options options = {.create = create, .params = t->params};
    struct load_store *s = calloc(1, sizeof(*s));
    int rc = s == NULL ? kvfs_error_set(err, -ENOMEM, "no memory")
                       : kvfs_engine_find(t->engine, &s->engine, err);

    if (rc == 0) {
        s->data = t->data;
        rc = s->engine->open(s->engine, t->folder, &options, &s->db, err);
    }
    if (rc == 0)
        *storep = s;
    else
        free(s);
    return rc;
}

static int
contract_close(struct load_store *s, struct kvfs_error *err)
{
    (void)err;
    s->engine->close(s->db);
    free(s);
    return 0;
}

static int
contract_write(struct load_store *s, const struct load_piece *pieces, uint32_t count, bool durable,
               struct kvfs_error *err)
{
    struct kvfs_batch_builder *b = kvfs_batch_new();
    uint8_t key[KVFS_DATA_KEY_LEN];
    struct kvfs_batch batch;
    int rc = -ENOMEM;

    for (uint32_t i = 0; b != NULL && i < count; i++)
        for (uint32_t k = 0; k < pieces[i].count; k++) {
            const uint8_t *block = pieces[i].bytes + (size_t)k * s->data.block_bytes;

            contract_key(pieces[i].index + k, key);
            kvfs_batch_put_borrowed(b, KVFS_DATA, key, sizeof(key), block, s->data.block_bytes,
                                    block, CONTRACT_TRAILER);
        }
    if (b != NULL)
        rc = kvfs_batch_end(b, &batch);
    if (rc < 0)
        rc = kvfs_error_set(err, rc, "no memory");
    else
        rc = s->engine->apply(s->db, &batch, durable ? KVFS_DURABLE : KVFS_ORDERED, err);
    kvfs_batch_free(b);
    return rc;
}

static int
contract_read(struct load_store *s, const struct load_piece *piece, struct kvfs_error *err)
{
    uint8_t key[KVFS_DATA_KEY_LEN], trailer[CONTRACT_TRAILER];
    struct kvfs_db_snap *snap;
    int rc = s->engine->begin(s->db, &snap, err);

    if (rc != 0)
        return rc;
    for (uint32_t k = 0; rc == 0 && k < piece->count; k++) {
        struct iovec iov[2] = {{.iov_base = piece->bytes + (size_t)k * s->data.block_bytes,
                                .iov_len = s->data.block_bytes},
                               {.iov_base = trailer, .iov_len = sizeof(trailer)}};

        contract_key(piece->index + k, key);
        rc = s->engine->get(snap, KVFS_DATA, key, sizeof(key), 0, iov, 2, NULL, err);
    }
    s->engine->end(snap);
    return rc;
}

static int
contract_settle(struct load_store *s, struct kvfs_error *err)
{
    return s->engine->sync(s->db, err);
}

static int
contract_info(struct load_store *s, struct load_info *info, struct kvfs_error *err)
{
    struct kvfs_engine_stat stat;
    int rc = s->engine->stat(s->db, &stat, err);

    if (rc == 0)
        *info = (struct load_info){.version = s->engine->version(s->engine),
                                   .caps = s->engine->caps,
                                   .used_bytes = stat.used_bytes,
                                   .behind = stat.log_used_bytes};
    return rc;
}

static int
contract_remove(struct load_store *s, struct kvfs_error *err)
{
    struct kvfs_op op = {.type = KVFS_OP_DEL_RANGE, .keyspace = KVFS_DATA};
    struct kvfs_batch batch = {.ops = &op, .ops_count = 1};

    return s->engine->apply(s->db, &batch, KVFS_DURABLE, err);
}

static int
contract_compact(const struct load_target *t, struct kvfs_error *err)
{
    const struct kvfs_engine *engine;
    int rc = kvfs_engine_find(t->engine, &engine, err);

    if (rc == 0 && engine->compact == NULL)
        rc = kvfs_error_set(err, -ENOTSUP, "engine %s cannot compact", engine->name);
    return rc == 0 ? engine->compact(engine, t->folder, NULL, NULL, err) : rc;
}

const struct load_layer load_layer_contract = {
    .name = "contract",
    .batches = true,
    .open = contract_open,
    .close = contract_close,
    .write = contract_write,
    .read = contract_read,
    .settle = contract_settle,
    .info = contract_info,
    .remove = contract_remove,
    .compact = contract_compact,
};
