/* SPDX-License-Identifier: BSD-3-Clause
 *
 * read.c - snapshots, gets and scans of the sum.
 *
 *  1. A snapshot is one of the engine below and copies of both views, taken under `lock`: in
 *     between no view can have been folded and dropped.
 *  2. A key is what the newest part says that knows of it: `active`, `folding`, below.
 *  3. A scan walks all three side by side.  Where a deleted range hides what is below, the
 *     scan below begins anew at the range's other end.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "log_priv.h"

int
kvfs_log_begin(struct kvfs_db *db, struct kvfs_db_snap **snapp, struct kvfs_error *err)
{
    struct kvfs_db_snap *snap;
    int rc = kvfs_fork_check(db->generation, db->path, err);

    if (rc != 0)
        return rc;
    snap = calloc(1, sizeof(*snap));
    if (snap == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory for a snapshot", db->path);
    snap->db = db;
    (void)pthread_mutex_lock(&db->lock);
    rc = db->readonly ? kvfs_log_follow(db, &snap->below, err)
                      : db->engine->begin(db->below, &snap->below, err);
    if (rc == 0) {
        snap->views[0] = kvfs_log_view_ref(&db->active);
        if (db->bug != LOG_BUG_STALE)
            snap->views[1] = kvfs_log_view_ref(&db->folding);
        snap->number = db->commits;
        snap->older = db->newest;
        *(db->newest != NULL ? &db->newest->newer : &db->oldest) = snap;
        db->newest = snap;
    }
    (void)pthread_mutex_unlock(&db->lock);
    if (rc == 0)
        *snapp = snap;
    else
        free(snap);
    return rc;
}

void
kvfs_log_end(struct kvfs_db_snap *snap)
{
    struct kvfs_db *db = snap->db;

    db->engine->end(snap->below); /* first: who holds the lock may wait for just that */
    if (kvfs_fork_check(db->generation, db->path, NULL) == 0) { /* else the lock is its parent's */
        (void)pthread_mutex_lock(&db->lock);
        *(snap->older != NULL ? &snap->older->newer : &db->oldest) = snap->newer;
        *(snap->newer != NULL ? &snap->newer->older : &db->newest) = snap->older;
        (void)pthread_mutex_unlock(&db->lock);
    }
    kvfs_log_view_drop(&snap->views[0]);
    kvfs_log_view_drop(&snap->views[1]);
    free(snap);
}

/* Copy the record's value from OFFSET on into IOV. */
static void
read_copy(const struct kvfs_memrecord *r, size_t offset, const struct iovec *iov, int iov_count)
{
    const uint8_t *value = kvfs_memrecord_value(r) + 1;
    size_t len = r->value_len - 1;

    for (int i = 0; i < iov_count && offset < len; i++) {
        size_t n = len - offset < iov[i].iov_len ? len - offset : iov[i].iov_len;

        if (n > 0)
            memcpy(iov[i].iov_base, value + offset, n);
        offset += n;
    }
}

int
kvfs_log_get(struct kvfs_db_snap *snap, enum kvfs_keyspace ks, const void *key, size_t key_len,
             size_t offset, const struct iovec *iov, int iov_count, size_t *value_len,
             struct kvfs_error *err)
{
    const struct kvfs_db *db = snap->db;
    const struct kvfs_memrecord *r = NULL;
    uint8_t out[KVFS_META_KEY_MAX];
    enum log_found found = LOG_UNKNOWN;
    int rc = kvfs_fork_check(db->generation, db->path, err);

    if (rc != 0)
        return rc;
    for (int i = 0; i < 2 && found == LOG_UNKNOWN; i++)
        found = kvfs_log_view_get(&snap->views[i], ks, key, key_len, &r);
    if (found == LOG_UNKNOWN && kvfs_log_key_refused(ks, key, key_len))
        found = LOG_ABSENT;
    if (found == LOG_UNKNOWN) {
        key = kvfs_log_key(ks, key, &key_len, out);
        return db->engine->get(snap->below, ks, key, key_len, offset, iov, iov_count, value_len,
                               err);
    }
    if (found == LOG_ABSENT)
        return kvfs_error_set(err, -ENOENT, "%s: no such key", db->path);
    read_copy(r, offset, iov, iov_count);
    if (value_len != NULL)
        *value_len = r->value_len - 1;
    return 0;
}

/* --- scans -------------------------------------------------------------------------------- */

#define CURSOR_BELOW 2

struct cursor_source {
    const uint8_t *key; /* as the level above knows it; NULL: at its end */
    size_t key_len, value_len;
    const struct kvfs_memrecord *record; /* of a view */
    bool used;                           /* step before looking again */
};

struct kvfs_db_cursor {
    struct kvfs_db_snap *snap;
    enum kvfs_keyspace ks;
    unsigned flags;
    bool reverse;
    uint8_t lo[KVFS_META_KEY_MAX], hi[KVFS_META_KEY_MAX];
    size_t lo_len, hi_len;
    struct kvfs_memwalk walk[2];
    struct kvfs_db_cursor *below;
    struct cursor_source source[3];
    int at; /* source of the present record */
    int failed; /* once and for all: what is left of the sources is incomplete */
};

/* Open the scan below over [lo, hi) of the level above. */
static int
cursor_open_below(struct kvfs_db_cursor *c, const uint8_t *lo, size_t lo_len, const uint8_t *hi,
                  size_t hi_len, struct kvfs_error *err)
{
    static const uint8_t first[] = {0, 0}; /* behind it are the keys of the level above */
    uint8_t lo_out[KVFS_META_KEY_MAX], hi_out[KVFS_META_KEY_MAX];
    const struct kvfs_engine *engine = c->snap->db->engine;

    if (c->below != NULL)
        engine->cursor_close(c->below);
    c->below = NULL;
    if (c->ks == KVFS_META && lo_len == 0) {
        lo = first;
        lo_len = sizeof(first);
    } else {
        lo = kvfs_log_key(c->ks, lo, &lo_len, lo_out);
    }
    hi = kvfs_log_key(c->ks, hi, &hi_len, hi_out);
    return engine->cursor_open(c->snap->below, c->ks, lo, lo_len, hi, hi_len, c->flags, &c->below,
                               err);
}

int
kvfs_log_cursor_open(struct kvfs_db_snap *snap, enum kvfs_keyspace ks, const void *lo,
                     size_t lo_len, const void *hi, size_t hi_len, unsigned flags,
                     struct kvfs_db_cursor **cursorp, struct kvfs_error *err)
{
    struct kvfs_db_cursor *c;
    int rc = kvfs_fork_check(snap->db->generation, snap->db->path, err);

    if (rc != 0)
        return rc;
    if (lo_len > sizeof(c->lo) || hi_len > sizeof(c->hi))
        return kvfs_error_set(err, -EINVAL, "%s: a bound longer than any key", snap->db->path);
    c = calloc(1, sizeof(*c));
    if (c == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory for a scan", snap->db->path);
    c->snap = snap;
    c->ks = ks;
    c->flags = flags;
    c->reverse = (flags & KVFS_SCAN_REVERSE) != 0;
    c->lo_len = lo_len;
    c->hi_len = hi_len;
    if (lo_len > 0)
        memcpy(c->lo, lo, lo_len);
    if (hi_len > 0)
        memcpy(c->hi, hi, hi_len);
    for (int i = 0; i < 2 && rc == 0; i++)
        rc = kvfs_memwalk_start(&c->walk[i], snap->views[i].records[ks], c->reverse ? hi : lo,
                                c->reverse ? hi_len : lo_len, c->reverse);
    if (rc != 0)
        (void)kvfs_error_set(err, rc, "%s: no memory for a scan", snap->db->path);
    for (int i = 0; i < 3; i++)
        c->source[i].used = true;
    if (rc == 0)
        rc = cursor_open_below(c, c->lo, lo_len, c->hi, hi_len, err);
    if (rc == 0)
        *cursorp = c;
    else
        kvfs_log_cursor_close(c);
    return rc;
}

void
kvfs_log_cursor_close(struct kvfs_db_cursor *c)
{
    if (c->below != NULL)
        c->snap->db->engine->cursor_close(c->below);
    kvfs_memwalk_end(&c->walk[0]);
    kvfs_memwalk_end(&c->walk[1]);
    free(c);
}

static bool
cursor_inside(const struct kvfs_db_cursor *c, const struct kvfs_memrecord *r)
{
    if (c->reverse)
        return kvfs_memkey_compare(r->bytes, r->key_len, c->lo, c->lo_len) >= 0;
    return c->hi_len == 0 || kvfs_memkey_compare(r->bytes, r->key_len, c->hi, c->hi_len) < 0;
}

static int
cursor_step_view(struct kvfs_db_cursor *c, int i, struct kvfs_error *err)
{
    struct cursor_source *s = &c->source[i];
    int rc = kvfs_memwalk_next(&c->walk[i], &s->record);

    if (rc != 0)
        return kvfs_error_set(err, rc, "%s: no memory for a scan", c->snap->db->path);
    s->key = s->record != NULL && cursor_inside(c, s->record) ? s->record->bytes : NULL;
    if (s->key == NULL)
        return 0;
    s->key_len = s->record->key_len;
    s->value_len = s->record->value_len - 1;
    return 0;
}

static int
cursor_step_below(struct kvfs_db_cursor *c, struct kvfs_error *err)
{
    struct cursor_source *s = &c->source[CURSOR_BELOW];
    const void *key;
    int rc;

    s->key = NULL;
    do
        rc = c->snap->db->engine->cursor_next(c->below, &key, &s->key_len, &s->value_len, err);
    while (rc == 1 && kvfs_log_own(c->ks, key, s->key_len));
    if (rc != 1)
        return rc;
    s->key = key;
    if (c->ks == KVFS_META && s->key[0] == 0) {
        s->key++;
        s->key_len--;
    }
    return 0;
}

/* Step the sources that were used, and choose: the first in the order of the scan, of equal keys
 * the newest.  -1: the end. */
static int
cursor_choose(struct kvfs_db_cursor *c, int *chosen, struct kvfs_error *err)
{
    *chosen = -1;
    for (int i = 0; i < 3; i++) {
        struct cursor_source *s = &c->source[i], *best = *chosen >= 0 ? &c->source[*chosen] : NULL;
        int rc = 0, cmp;

        if (s->used)
            rc = i == CURSOR_BELOW ? cursor_step_below(c, err) : cursor_step_view(c, i, err);
        if (rc != 0)
            return rc;
        s->used = false;
        if (s->key == NULL)
            continue;
        cmp = best == NULL ? -1 : kvfs_memkey_compare(s->key, s->key_len, best->key, best->key_len);
        if (best != NULL && c->reverse)
            cmp = -cmp;
        if (cmp < 0)
            *chosen = i;
        else if (cmp == 0)
            s->used = true; /* hidden by a newer one */
    }
    return 0;
}

/* The scan below met RANGE, which hides it: go on behind it. */
static int
cursor_skip(struct kvfs_db_cursor *c, const struct kvfs_memrecord *range, struct kvfs_error *err)
{
    struct cursor_source *s = &c->source[CURSOR_BELOW];
    const uint8_t *end = kvfs_memrecord_value(range);
    int rc = 0;

    s->key = NULL;
    s->used = false;
    if (c->reverse && kvfs_memkey_compare(range->bytes, range->key_len, c->lo, c->lo_len) > 0)
        rc = cursor_open_below(c, c->lo, c->lo_len, range->bytes, range->key_len, err);
    else if (!c->reverse && range->value_len > 0 &&
             (c->hi_len == 0 ||
              kvfs_memkey_compare(end, range->value_len, c->hi, c->hi_len) < 0))
        rc = cursor_open_below(c, end, range->value_len, c->hi, c->hi_len, err);
    else
        return 0;
    s->used = true;
    return rc;
}

int
kvfs_log_cursor_next(struct kvfs_db_cursor *c, const void **key, size_t *key_len,
                     size_t *value_len, struct kvfs_error *err)
{
    int rc = kvfs_fork_check(c->snap->db->generation, c->snap->db->path, err), at;

    if (rc == 0 && c->failed != 0)
        return kvfs_error_set(err, c->failed, "%s: the scan has failed", c->snap->db->path);
    while (rc == 0 && (rc = cursor_choose(c, &at, err)) == 0 && at >= 0) {
        struct cursor_source *s = &c->source[at];
        const struct kvfs_memrecord *range = NULL;

        for (int i = 0; i < at && i < 2 && range == NULL; i++)
            range = kvfs_log_view_range(&c->snap->views[i], c->ks, s->key, s->key_len);
        s->used = true;
        if (range != NULL && at == CURSOR_BELOW)
            rc = cursor_skip(c, range, err);
        if (range != NULL || (at < CURSOR_BELOW && kvfs_memrecord_value(s->record)[0] == LOG_DEL))
            continue;
        c->at = at;
        *key = s->key;
        *key_len = s->key_len;
        if ((c->flags & KVFS_SCAN_KEYS_ONLY) == 0)
            *value_len = s->value_len;
        return 1;
    }
    c->failed = rc;
    return rc;
}

int
kvfs_log_cursor_value(struct kvfs_db_cursor *c, size_t offset, const struct iovec *iov,
                      int iov_count, struct kvfs_error *err)
{
    int rc = kvfs_fork_check(c->snap->db->generation, c->snap->db->path, err);

    if (rc != 0)
        return rc;
    if (c->at == CURSOR_BELOW)
        return c->snap->db->engine->cursor_value(c->below, offset, iov, iov_count, err);
    read_copy(c->source[c->at].record, offset, iov, iov_count);
    return 0;
}
