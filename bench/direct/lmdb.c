/* SPDX-License-Identifier: BSD-3-Clause
 *
 * lmdb.c - LMDB driven directly: records as engines/lmdb/layout.c lays them, one
 * transaction a batch, LMDB's own durability, nothing judged and nothing measured.
 */
#include <lmdb.h>
#include <stdio.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "direct.h"

#define DIRECT_HEAD 18                                  /* key and its check */
#define DIRECT_KEEP ((size_t)4096 - 16)                 /* fills one overflow page */
#define DIRECT_TAIL (BENCH_VALUE - DIRECT_KEEP)
#define DIRECT_MAP  ((size_t)64 << 30)

static MDB_env *direct_env;
static MDB_dbi direct_dbi;

static void
direct_must(int rc)
{
    if (rc != 0)
        bench_die("lmdb: %s", mdb_strerror(rc));
}

static void
direct_open(const char *folder, const char *variant)
{
    MDB_txn *txn;

    if (variant != NULL)
        bench_die("lmdb: has no variants");
    direct_must(mdb_env_create(&direct_env));
    direct_must(mdb_env_set_mapsize(direct_env, DIRECT_MAP));
    direct_must(mdb_env_set_maxdbs(direct_env, 2));
    direct_must(mdb_env_open(direct_env, folder, MDB_NORDAHEAD, 0600));
    direct_must(mdb_txn_begin(direct_env, NULL, 0, &txn));
    direct_must(mdb_dbi_open(txn, "data", MDB_CREATE, &direct_dbi));
    direct_must(mdb_txn_commit(txn));
}

static void
direct_put_block(MDB_cursor *cursor, const struct bench_block *block)
{
    uint8_t head[DIRECT_HEAD + DIRECT_TAIL];
    MDB_val key = {.mv_size = BENCH_KEY, .mv_data = head}, data;
    uint64_t hash = XXH3_64bits(block->key, BENCH_KEY);
    int rc;

    memcpy(head, block->key, BENCH_KEY);
    rc = mdb_cursor_get(cursor, &key, &data, MDB_SET_RANGE);
    if (rc == 0 && memcmp(key.mv_data, block->key, BENCH_KEY) == 0)
        direct_must(mdb_cursor_del(cursor, 0));
    else if (rc != MDB_NOTFOUND)
        direct_must(rc);
    head[BENCH_KEY] = (uint8_t)(hash >> 8);
    head[BENCH_KEY + 1] = (uint8_t)hash;
    memcpy(head + DIRECT_HEAD, block->value + DIRECT_KEEP, DIRECT_TAIL);
    key = (MDB_val){.mv_size = sizeof(head), .mv_data = head};
    data.mv_size = DIRECT_KEEP;
    direct_must(mdb_cursor_put(cursor, &key, &data, MDB_RESERVE));
    memcpy(data.mv_data, block->value, DIRECT_KEEP);
}

static void
direct_put(const struct bench_block *blocks, size_t count)
{
    MDB_cursor *cursor;
    MDB_txn *txn;

    direct_must(mdb_txn_begin(direct_env, NULL, 0, &txn));
    direct_must(mdb_cursor_open(txn, direct_dbi, &cursor));
    for (size_t i = 0; i < count; i++)
        direct_put_block(cursor, &blocks[i]);
    direct_must(mdb_txn_commit(txn));
}

static void
direct_close(void)
{
    mdb_env_close(direct_env);
}

const struct bench_direct bench_direct_lmdb = {
    .name = "lmdb",
    .open = direct_open,
    .put = direct_put,
    .close = direct_close,
};
