/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rocksdb.c - RocksDB driven directly: one family with blob files, with the sizes
 * of engines/rocksdb/open.c, one synced write batch a batch.
 */
#include <stdlib.h>
#include <string.h>

#include <rocksdb/c.h>

#include "direct.h"

static rocksdb_t *direct_db;
static rocksdb_options_t *direct_options;
static rocksdb_writeoptions_t *direct_sync;

static void
direct_must(const char *text)
{
    if (text != NULL)
        bench_die("rocksdb: %s", text);
}

static void
direct_open(const char *folder, const char *variant)
{
    rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
    rocksdb_options_t *o = rocksdb_options_create();
    char *text = NULL;

    size_t cache_bytes = (size_t)8 << 20;
    rocksdb_cache_t *cache;

    if (variant != NULL && strncmp(variant, "cache-bytes=", 12) != 0)
        bench_die("rocksdb: has no variants but cache-bytes=N");
    if (variant != NULL)
        cache_bytes = strtoul(variant + 12, NULL, 10);
    cache = rocksdb_cache_create_lru(cache_bytes);
    direct_options = o;
    rocksdb_options_set_create_if_missing(o, 1);
    rocksdb_options_set_paranoid_checks(o, 1);
    rocksdb_options_set_max_total_wal_size(o, (uint64_t)64 << 20);
    rocksdb_options_set_write_buffer_size(o, (size_t)16 << 20);
    rocksdb_options_set_db_write_buffer_size(o, (size_t)32 << 20);
    rocksdb_options_set_max_background_jobs(o, 2);
    rocksdb_options_set_compression(o, rocksdb_no_compression);
    rocksdb_options_set_level_compaction_dynamic_level_bytes(o, 1);
    rocksdb_options_set_stats_dump_period_sec(o, 0);
    rocksdb_options_set_enable_blob_files(o, 1);
    rocksdb_options_set_min_blob_size(o, 1024);
    rocksdb_options_set_blob_file_size(o, (uint64_t)64 << 20);
    rocksdb_options_set_blob_compression_type(o, rocksdb_no_compression);
    rocksdb_options_set_enable_blob_gc(o, 1);
    rocksdb_options_set_blob_gc_age_cutoff(o, 0.5);
    rocksdb_options_set_blob_gc_force_threshold(o, 0.5);
    if (variant != NULL) /* as the adapter does */
        rocksdb_options_set_blob_cache(o, cache);
    rocksdb_block_based_options_set_block_cache(table, cache);
    rocksdb_options_set_block_based_table_factory(o, table);
    rocksdb_block_based_options_destroy(table);
    direct_db = rocksdb_open(o, folder, &text);
    direct_must(text);
    direct_sync = rocksdb_writeoptions_create();
    rocksdb_writeoptions_set_sync(direct_sync, 1);
}

static void
direct_put(const struct bench_block *blocks, size_t count)
{
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    char *text = NULL;

    for (size_t i = 0; i < count; i++)
        rocksdb_writebatch_put(batch, (const char *)blocks[i].key, BENCH_KEY,
                               (const char *)blocks[i].value, BENCH_VALUE);
    rocksdb_write(direct_db, direct_sync, batch, &text);
    direct_must(text);
    rocksdb_writebatch_destroy(batch);
}

static void
direct_close(void)
{
    rocksdb_close(direct_db);
    rocksdb_writeoptions_destroy(direct_sync);
    rocksdb_options_destroy(direct_options);
}

const struct bench_direct bench_direct_rocksdb = {
    .name = "rocksdb",
    .open = direct_open,
    .put = direct_put,
    .close = direct_close,
};
