/* SPDX-License-Identifier: BSD-3-Clause
 *
 * store_direct.c - the layer "direct": libraries driven by the minimal programs of bench/direct.
 * Blocks of 4 KiB; every batch is durable.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../direct/direct.h"
#include "store.h"

static const struct bench_direct *const direct_all[] = {
#ifdef BENCH_LMDB
    &bench_direct_lmdb,
#endif
#ifdef BENCH_SQLITE
    &bench_direct_sqlite,
#endif
#ifdef BENCH_ROCKSDB
    &bench_direct_rocksdb,
#endif
    NULL,
};

struct load_store {
    const struct bench_direct *direct;
};

static int
direct_open(const struct load_target *t, bool create, struct load_store **storep,
            struct kvfs_error *err)
{
    struct load_store *s = malloc(sizeof(*s));
    size_t i = 0;

    (void)create;
    if (s == NULL)
        return kvfs_error_set(err, -ENOMEM, "no memory");
    while (direct_all[i] != NULL && strcmp(direct_all[i]->name, t->engine) != 0)
        i++;
    s->direct = direct_all[i];
    if (s->direct == NULL || t->data.block_bytes != BENCH_BLOCK) {
        free(s);
        return kvfs_error_set(err, -EINVAL, direct_all[i] == NULL
                              ? "layer direct: %s is not built in"
                              : "layer direct: %s has blocks of 4096 bytes", t->engine);
    }
    s->direct->open(t->folder, t->params);
    *storep = s;
    return 0;
}

static int
direct_close(struct load_store *s, struct kvfs_error *err)
{
    (void)err;
    s->direct->close();
    free(s);
    return 0;
}

static void
direct_key(struct bench_block *b, uint64_t index)
{
    memset(b->key, 0, BENCH_KEY);
    b->key[7] = 1;
    for (int i = 0; i < 8; i++)
        b->key[BENCH_KEY - 1 - i] = (uint8_t)(index >> 8 * i);
}

static int
direct_write(struct load_store *s, const struct load_piece *pieces, uint32_t count, bool durable,
             struct kvfs_error *err)
{
    struct bench_block *blocks;
    size_t n = 0;

    if (!durable)
        return kvfs_error_set(err, -EINVAL, "layer direct: every batch is durable (flush=0)");
    for (uint32_t i = 0; i < count; i++)
        n += pieces[i].count;
    if (n == 0)
        return 0;
    blocks = malloc(n * sizeof(*blocks));
    if (blocks == NULL)
        return kvfs_error_set(err, -ENOMEM, "no memory");
    n = 0;
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t k = 0; k < pieces[i].count; k++, n++) {
            const uint8_t *bytes = pieces[i].bytes + (size_t)k * BENCH_BLOCK;

            direct_key(&blocks[n], pieces[i].index + k);
            memcpy(blocks[n].value, bytes, BENCH_BLOCK);
            memcpy(blocks[n].value + BENCH_BLOCK, bytes, BENCH_TRAILER);
        }
    s->direct->put(blocks, n);
    free(blocks);
    return 0;
}

static int
direct_read(struct load_store *s, const struct load_piece *piece, struct kvfs_error *err)
{
    struct bench_block b;

    if (s->direct->get == NULL)
        return kvfs_error_set(err, -EINVAL, "layer direct: %s has no reads", s->direct->name);
    for (uint32_t k = 0; k < piece->count; k++) {
        direct_key(&b, piece->index + k);
        s->direct->get(&b);
        memcpy(piece->bytes + (size_t)k * BENCH_BLOCK, b.value, BENCH_BLOCK);
    }
    return 0;
}

static int
direct_settle(struct load_store *s, struct kvfs_error *err)
{
    (void)s;
    (void)err;
    return 0;
}

static int
direct_info(struct load_store *s, struct load_info *info, struct kvfs_error *err)
{
    const struct kvfs_engine *engine;
    int rc = kvfs_engine_find(s->direct->name, &engine, err);

    if (rc == 0)
        *info = (struct load_info){.version = engine->version(engine), .caps = engine->caps};
    return rc;
}

static int
direct_remove(struct load_store *s, struct kvfs_error *err)
{
    (void)s;
    return kvfs_error_set(err, -EINVAL, "layer direct: no removing");
}

const struct load_layer load_layer_direct = {
    .name = "direct",
    .batches = true,
    .open = direct_open,
    .close = direct_close,
    .write = direct_write,
    .read = direct_read,
    .settle = direct_settle,
    .info = direct_info,
    .remove = direct_remove,
};
