/* SPDX-License-Identifier: BSD-3-Clause
 *
 * open.c - opening and closing a store, and RocksDB's settings.
 *
 *  1. Two column families, meta and data; both lie in one log, so that one write batch
 *     is atomic over them.  atomic_flush keeps them together where the log is not
 *     needed any more.
 *  2. Values of blocks go into blob files: compaction moves keys, not blocks.
 *  3. The log is read up to its first damaged record (kPointInTimeRecovery): a power
 *     cut leaves a prefix of the batches.
 *  4. Blocks do not compress twice: what kvfs stores is taken as it is.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "../holder.h"
#include "../params.h"
#include "rocksdb_priv.h"

#define OPEN_MEMTABLE_BYTES ((size_t)16 << 20)
#define OPEN_MEMTABLE_MIN   ((size_t)64 << 10)
#define OPEN_MEMTABLE_MAX   ((size_t)1 << 30)
#define OPEN_CACHE_BYTES    ((size_t)8 << 20)
#define OPEN_LOG_BYTES      ((uint64_t)64 << 20)
#define OPEN_BLOB_MIN_BYTES 1024
#define OPEN_FILES          256 /* descriptors */

static atomic_uint open_first; /* generation that used RocksDB first; ../fork.h */
static const char *const open_names[ROCKS_FAMILIES] = {"default", "meta", "data"};

int
kvfs_rocks_error(struct kvfs_error *err, char *text, const char *path, const char *what)
{
    static const struct {
        const char *words;
        int code;
    } table[] = {
        {"No space left", -ENOSPC},    {"Max allowed space", -ENOSPC},
        {"Disk quota", -ENOSPC},       {"lock hold by current process", -EBUSY},
        {"While lock file", -EBUSY},   {"Permission denied", -EACCES},
        {"Read-only file system", -EROFS}, {"Memory limit", -ENOMEM},
        {"does not exist", -ENOENT},   {"Corruption", -EIO},
    };
    int code = -EIO;

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        if (strstr(text, table[i].words) != NULL) {
            code = table[i].code;
            break;
        }
    }
    for (char *p = text; *p != '\0'; p++)
        if (*p == '\n')
            *p = ' ';
    code = kvfs_error_set(err, code, "%s: %s: %s", path, what, text);
    rocksdb_free(text);
    return code;
}

static int
open_params(struct kvfs_db *db, const char *params, struct kvfs_error *err)
{
    uint64_t nosync = 0;
    const struct kvfs_param known[] = {
        {"cache-bytes", KVFS_CACHE_PARAM_MIN, KVFS_CACHE_PARAM_MAX, &db->cache_bytes},
        {"memtable-bytes", OPEN_MEMTABLE_MIN, OPEN_MEMTABLE_MAX, &db->memtable_bytes},
        {"unsafe-nosync", 0, 1, &nosync},
    };
    int rc;

    db->memtable_bytes = OPEN_MEMTABLE_BYTES;
    rc = kvfs_params_parse("rocksdb", params, known, sizeof(known) / sizeof(known[0]), err);
    db->unsafe_nosync = nosync == 1;
    return rc;
}

static rocksdb_options_t *
open_family_options(struct kvfs_db *db, int which)
{
    rocksdb_options_t *o = rocksdb_options_create();
    rocksdb_block_based_table_options_t *t = rocksdb_block_based_options_create();

    rocksdb_options_set_write_buffer_size(o, db->memtable_bytes / (which == ROCKS_DATA ? 1 : 4));
    rocksdb_options_set_compression(o, rocksdb_no_compression);
    rocksdb_options_set_level_compaction_dynamic_level_bytes(o, 1);
    rocksdb_block_based_options_set_block_cache(t, db->cache);
    rocksdb_block_based_options_set_cache_index_and_filter_blocks(t, 1);
    rocksdb_options_set_block_based_table_factory(o, t);
    rocksdb_block_based_options_destroy(t);
    if (which == ROCKS_DATA) {
        rocksdb_options_set_enable_blob_files(o, 1);
        rocksdb_options_set_min_blob_size(o, OPEN_BLOB_MIN_BYTES);
        rocksdb_options_set_blob_file_size(o, KVFS_ROCKS_BLOB_FILE);
        rocksdb_options_set_blob_compression_type(o, rocksdb_no_compression);
        rocksdb_options_set_enable_blob_gc(o, 1);
        rocksdb_options_set_blob_gc_age_cutoff(o, KVFS_ROCKS_BLOB_CUTOFF);
        rocksdb_options_set_blob_gc_force_threshold(o, 0.5);
        if (db->cache_bytes > 0) /* else the kernel's cache has the blocks */
            rocksdb_options_set_blob_cache(o, db->cache);
    }
    return o;
}

/* Room is what the file system says is free: files take none before they are written. */
static void
open_no_fallocate(struct kvfs_db *db)
{
    rocksdb_options_t *o = rocksdb_options_create();
    char *text = NULL;

    rocksdb_get_options_from_string(db->options, "allow_fallocate=false", o, &text);
    if (text == NULL) {
        rocksdb_options_t *was = db->options;

        db->options = o;
        o = was;
    }
    rocksdb_free(text);
    rocksdb_options_destroy(o);
}

static void
open_options(struct kvfs_db *db, bool create)
{
    rocksdb_options_t *o = rocksdb_options_create();

    db->options = o;
    rocksdb_options_set_create_if_missing(o, create);
    rocksdb_options_set_create_missing_column_families(o, create);
    rocksdb_options_set_paranoid_checks(o, 1);
    rocksdb_options_set_atomic_flush(o, 1);
    rocksdb_options_set_max_open_files(o, OPEN_FILES);
    rocksdb_options_set_max_total_wal_size(o, OPEN_LOG_BYTES);
    rocksdb_options_set_db_write_buffer_size(o, 2 * db->memtable_bytes);
    rocksdb_options_set_wal_recovery_mode(o, rocksdb_point_in_time_recovery);
    rocksdb_options_set_keep_log_file_num(o, 2);
    rocksdb_options_set_stats_dump_period_sec(o, 0);
    rocksdb_options_set_stats_persist_period_sec(o, 0);
    rocksdb_options_set_max_background_jobs(o, 2);
    open_no_fallocate(db);
    db->cache = rocksdb_cache_create_lru(db->cache_bytes > 0 ? db->cache_bytes : OPEN_CACHE_BYTES);
    for (int i = 0; i < ROCKS_FAMILIES; i++)
        db->family_options[i] = open_family_options(db, i);
    db->write_plain = rocksdb_writeoptions_create();
    db->write_sync = rocksdb_writeoptions_create();
    rocksdb_writeoptions_set_sync(db->write_sync, !db->unsafe_nosync);
}

/* 1: a store is here; 0: none. */
static int
open_exists(const struct kvfs_db *db, struct kvfs_error *err)
{
    struct stat st;

    if (stat(db->current_path, &st) == 0)
        return 1;
    return errno == ENOENT ? 0
                           : kvfs_error_set(err, -errno, "%s: %s", db->current_path,
                                            strerrordesc_np(errno));
}

/* NULL, or RocksDB's words for what failed. */
static char *
open_families(struct kvfs_db *db)
{
    const rocksdb_options_t *family_options[ROCKS_FAMILIES];
    char *text = NULL;

    for (int i = 0; i < ROCKS_FAMILIES; i++)
        family_options[i] = db->family_options[i];
    if (db->readonly)
        db->db = rocksdb_open_for_read_only_column_families(db->options, db->folder,
                                                            ROCKS_FAMILIES, open_names,
                                                            family_options, db->family, 0, &text);
    else
        db->db = rocksdb_open_column_families(db->options, db->folder, ROCKS_FAMILIES, open_names,
                                              family_options, db->family, &text);
    return text;
}

static int
open_db(struct kvfs_db *db, bool create, struct kvfs_error *err)
{
    char *text;
    int exists = open_exists(db, err), rc;

    if (exists < 0)
        return exists;
    if (exists == 0 && (!create || db->readonly))
        return kvfs_error_set(err, -ENOENT, "%s: no store here", db->folder);
    rc = kvfs_holder_take(db->folder, db->readonly, &db->holder_fd, err);
    if (rc != 0)
        return rc;
    open_options(db, create && exists == 0);
    text = open_families(db);
    if (text != NULL && strstr(text, "Corruption") != NULL && kvfs_rocks_cut_manifest(db)) {
        rocksdb_free(text);
        if (db->readonly)
            return kvfs_error_set(err, -EIO, "%s: a power cut tore the end of MANIFEST; "
                                  "opening for writing mends it", db->folder);
        text = open_families(db);
    }
    if (text != NULL)
        return kvfs_rocks_error(err, text, db->folder, "opening");
    if (!db->readonly) {
        struct kvfs_rocks_room r;

        kvfs_rocks_room(db, &r);
        kvfs_rocks_collect(db, &r);
    }
    return 0;
}

int
kvfs_rocks_open(const struct kvfs_engine *self, const char *path,
                const struct kvfs_engine_options *options, struct kvfs_db **dbp,
                struct kvfs_error *err)
{
    struct kvfs_db *db = calloc(1, sizeof(*db));
    pthread_rwlockattr_t attr;
    int rc;

    (void)self;
    if (db == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", path);
    db->readonly = options->readonly;
    db->holder_fd = -1;
    db->limit_bytes = options->store_max_bytes;
    db->generation = kvfs_fork_generation();
    db->collects = true;
    (void)pthread_mutex_init(&db->apply_lock, NULL);
    (void)pthread_rwlockattr_init(&attr); /* who expects waits for those before, not for ever */
    (void)pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    (void)pthread_rwlock_init(&db->write_lock, &attr);
    (void)pthread_rwlockattr_destroy(&attr);
    (void)pthread_mutex_init(&db->pool_lock, NULL);
    db->folder = strdup(path);
    if (asprintf(&db->current_path, "%s/CURRENT", path) < 0)
        db->current_path = NULL;
    rc = db->folder != NULL && db->current_path != NULL ? open_params(db, options->params, err)
                            : kvfs_error_set(err, -ENOMEM, "%s: no memory", path);
    if (rc == 0)
        rc = kvfs_fork_check_library(&open_first, "RocksDB", path, err);
    if (rc == 0)
        rc = open_db(db, options->create, err);
    if (rc == 0)
        *dbp = db;
    else
        kvfs_rocks_close(db);
    return rc;
}

void
kvfs_rocks_close(struct kvfs_db *db)
{
    /* In a forked child RocksDB's threads do not exist: nothing can be closed. */
    if (kvfs_fork_check(db->generation, db->folder, NULL) == 0) {
        /* Damage to a log's end looks as if the log had ended there.  So what it holds goes
         * into tables, whose checksums tell damage. */
        if (db->db != NULL && !db->readonly && !atomic_load(&db->poisoned))
            kvfs_rocks_flush(db);
        for (int i = 0; i < ROCKS_FAMILIES; i++)
            if (db->family[i] != NULL)
                rocksdb_column_family_handle_destroy(db->family[i]);
        if (db->db != NULL)
            rocksdb_close(db->db);
        for (int i = 0; i < ROCKS_FAMILIES; i++)
            if (db->family_options[i] != NULL)
                rocksdb_options_destroy(db->family_options[i]);
        if (db->options != NULL)
            rocksdb_options_destroy(db->options);
        if (db->cache != NULL)
            rocksdb_cache_destroy(db->cache);
        if (db->write_plain != NULL)
            rocksdb_writeoptions_destroy(db->write_plain);
        if (db->write_sync != NULL)
            rocksdb_writeoptions_destroy(db->write_sync);
    }
    kvfs_holder_drop(db->holder_fd); /* a child's copy keeps the lock with the parent */
    (void)pthread_mutex_destroy(&db->pool_lock);
    (void)pthread_rwlock_destroy(&db->write_lock);
    (void)pthread_mutex_destroy(&db->apply_lock);
    free(db->folder);
    free(db->current_path);
    free(db);
}
