/* SPDX-License-Identifier: BSD-3-Clause
 *
 * volume_stat.c - how full and how busy a volume is.
 */
#include <errno.h>
#include <string.h>

#include "data/overlay.h"
#include "volume_file.h"

#define STAT_COUNT_MAX 10000

/* How many keys begin with LETTER, up to STAT_COUNT_MAX. */
static int
stat_count(struct kvfs_volume *v, struct kvfs_db_snap *snap, char letter, uint64_t *count,
           struct kvfs_error *err)
{
    struct kvfs_db_cursor *cursor;
    struct kvfs_key lo;
    struct kvfs_key hi;
    const void *key;
    size_t key_len;
    size_t len;
    int rc;

    kvfs_key_letter(&lo, letter);
    kvfs_key_letter(&hi, (char)(letter + 1));
    rc = v->engine->cursor_open(snap, KVFS_META, lo.bytes, lo.len, hi.bytes, hi.len,
                                KVFS_SCAN_KEYS_ONLY, &cursor, err);
    if (rc < 0)
        return rc;
    *count = 0;
    while ((rc = v->engine->cursor_next(cursor, &key, &key_len, &len, err)) == 1 &&
           *count < STAT_COUNT_MAX)
        (*count)++;
    v->engine->cursor_close(cursor);
    return rc < 0 ? rc : 0;
}

int
kvfs_volume_stat(struct kvfs_volume *v, struct kvfs_volume_stat *stat, struct kvfs_error *err)
{
    struct kvfs_db_snap *snap = NULL;
    struct kvfs_key key;
    uint8_t value[KVFS_SMALL_RECORD_MAX];
    size_t len;
    int rc = kvfs_volume_usable(v, err);

    memset(stat, 0, sizeof(*stat));
    if (rc == 0)
        rc = v->engine->stat(v->db, &stat->engine, err);
    if (rc == 0)
        rc = v->engine->begin(v->db, &snap, err);
    if (rc < 0)
        return rc;
    kvfs_key_counter(&key, KVFS_COUNTER_INODES);
    rc = kvfs_meta_get(v, snap, &key, value, sizeof(value), &len, err);
    if (rc < 0 || kvfs_number_decode(&stat->inodes, &key, value, len) < 0)
        rc = kvfs_error_set(err, -EIO, "%s: the counter of inodes is damaged", v->path);
    if (rc == 0)
        rc = stat_count(v, snap, 'G', &stat->forks_deleting, err);
    if (rc == 0)
        rc = stat_count(v, snap, 'H', &stat->holes_pending, err);
    v->engine->end(snap);
    stat->dirty_bytes = atomic_load(&v->overlay->bytes);
    stat->cache_bytes = v->cache_bytes;
    stat->commits = atomic_load(&v->overlay->commits);
    stat->commits_durable = atomic_load(&v->overlay->commits_durable);
    return rc;
}
