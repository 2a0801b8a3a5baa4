/* SPDX-License-Identifier: BSD-3-Clause
 *
 * keeper.c - old values for open snapshots (keeper.h).
 *
 * A skip list of entries ordered by keyspace, key and `until`: the number of the batch that
 * took the value away.  It is what a snapshot after `batches` sees if until > batches and no
 * smaller until > batches is kept for that key.  The same entries hang in a queue in the
 * order added, so of rising `until`; its front goes when no snapshot is that old any more.
 *
 *  1. `batches` changes, and entries come and go, under `lock` held exclusively.
 *  2. An entry with until <= the oldest snapshot's batches is of no use to anybody.
 *  3. Without snapshots there are no entries.
 */
#include "keeper.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define KEEPER_LEVELS 16

struct keeper_entry {
    struct keeper_entry *younger; /* queue */
    uint64_t until;
    size_t bytes; /* of memory */
    size_t value_len;
    uint16_t key_len;
    uint8_t keyspace;
    bool absent;
    uint8_t levels;
    uint8_t *text; /* key, then value; behind `next` */
    struct keeper_entry *next[];
};

struct kvfs_keeper {
    pthread_rwlock_t lock;
    size_t max_bytes, bytes;
    uint64_t batches;
    uint64_t random;
    uint64_t snaps; /* open ones, stale or not */
    struct kvfs_keeper_snap *oldest, *newest; /* those that are not stale */
    struct keeper_entry *first, *last; /* queue */
    atomic_size_t count;
    struct keeper_entry *heads[KEEPER_LEVELS];
};

struct kvfs_keeper *
kvfs_keeper_new(size_t max_bytes)
{
    struct kvfs_keeper *k = calloc(1, sizeof(*k));

    if (k == NULL)
        return NULL;
    if (pthread_rwlock_init(&k->lock, NULL) != 0) {
        free(k);
        return NULL;
    }
    k->max_bytes = max_bytes;
    k->random = 0x9e3779b97f4a7c15u;
    return k;
}

/* --- the list --------------------------------------------------------------------------- */

struct keeper_place {
    uint8_t keyspace;
    const void *key;
    size_t key_len;
    uint64_t until;
};

static int
keeper_compare_key(const struct keeper_entry *e, const struct keeper_place *p)
{
    size_t n = e->key_len < p->key_len ? e->key_len : p->key_len;
    int cmp = (e->keyspace > p->keyspace) - (e->keyspace < p->keyspace);

    if (cmp == 0 && n > 0)
        cmp = memcmp(e->text, p->key, n);
    return cmp != 0 ? cmp : (e->key_len > p->key_len) - (e->key_len < p->key_len);
}

static bool
keeper_before(const struct keeper_entry *e, const struct keeper_place *p)
{
    int cmp = keeper_compare_key(e, p);

    return cmp < 0 || (cmp == 0 && e->until < p->until);
}

/* The first entry not before P.  LINKS, if not NULL, become the pointers to change for an
 * entry there; *BEFOREP the entry before it. */
static struct keeper_entry *
keeper_search(struct kvfs_keeper *k, const struct keeper_place *p,
              struct keeper_entry **links[KEEPER_LEVELS], struct keeper_entry **beforep)
{
    struct keeper_entry *before = NULL, **row = k->heads;

    for (int level = KEEPER_LEVELS - 1; level >= 0; level--) {
        while (row[level] != NULL && keeper_before(row[level], p)) {
            before = row[level];
            row = before->next;
        }
        if (links != NULL)
            links[level] = &row[level];
    }
    if (beforep != NULL)
        *beforep = before;
    return row[0];
}

static struct keeper_place
keeper_place_of(const struct keeper_entry *e)
{
    return (struct keeper_place){e->keyspace, e->text, e->key_len, e->until};
}

/* Take the oldest entry away. */
static void
keeper_drop_first(struct kvfs_keeper *k)
{
    struct keeper_entry *e = k->first, **links[KEEPER_LEVELS];
    struct keeper_place p = keeper_place_of(e);

    (void)keeper_search(k, &p, links, NULL);
    for (int level = 0; level < e->levels; level++)
        *links[level] = e->next[level];
    k->first = e->younger;
    if (k->first == NULL)
        k->last = NULL;
    k->bytes -= e->bytes;
    (void)atomic_fetch_sub(&k->count, 1);
    free(e);
}

/* Drop what nobody needs. */
static void
keeper_clean(struct kvfs_keeper *k)
{
    while (k->first != NULL && (k->oldest == NULL || k->first->until <= k->oldest->batches))
        keeper_drop_first(k);
}

/* --- snapshots ----------------------------------------------------------------------------- */

static void
keeper_unlink(struct kvfs_keeper *k, struct kvfs_keeper_snap *s)
{
    if (s->older != NULL)
        s->older->newer = s->newer;
    else
        k->oldest = s->newer;
    if (s->newer != NULL)
        s->newer->older = s->older;
    else
        k->newest = s->older;
}

static void
keeper_give_up_oldest(struct kvfs_keeper *k)
{
    struct kvfs_keeper_snap *s = k->oldest;

    keeper_unlink(k, s);
    s->stale = true;
    keeper_clean(k);
}

void
kvfs_keeper_begin(struct kvfs_keeper *k, struct kvfs_keeper_snap *s)
{
    (void)pthread_rwlock_wrlock(&k->lock);
    *s = (struct kvfs_keeper_snap){.batches = k->batches, .older = k->newest};
    if (k->newest != NULL)
        k->newest->newer = s;
    else
        k->oldest = s;
    k->newest = s;
    k->snaps++;
    (void)pthread_rwlock_unlock(&k->lock);
}

void
kvfs_keeper_end(struct kvfs_keeper *k, struct kvfs_keeper_snap *s)
{
    (void)pthread_rwlock_wrlock(&k->lock);
    if (!s->stale)
        keeper_unlink(k, s);
    k->snaps--;
    keeper_clean(k);
    (void)pthread_rwlock_unlock(&k->lock);
}

void
kvfs_keeper_free(struct kvfs_keeper *k)
{
    if (k == NULL)
        return;
    k->oldest = NULL;
    keeper_clean(k);
    (void)pthread_rwlock_destroy(&k->lock);
    free(k);
}

uint64_t
kvfs_keeper_readers(struct kvfs_keeper *k, uint64_t *lag)
{
    uint64_t n;

    (void)pthread_rwlock_rdlock(&k->lock);
    n = k->snaps;
    *lag = k->oldest != NULL ? k->batches - k->oldest->batches : 0;
    (void)pthread_rwlock_unlock(&k->lock);
    return n;
}

/* --- keeping --------------------------------------------------------------------------------- */

bool
kvfs_keeper_wanted(struct kvfs_keeper *k)
{
    bool wanted;

    (void)pthread_rwlock_rdlock(&k->lock);
    wanted = k->oldest != NULL;
    (void)pthread_rwlock_unlock(&k->lock);
    return wanted;
}

static int
keeper_random_levels(struct kvfs_keeper *k)
{
    int levels = 1;

    k->random ^= k->random << 13; /* xorshift64 */
    k->random ^= k->random >> 7;
    k->random ^= k->random << 17;
    for (uint64_t r = k->random >> 8; (r & 3) == 0 && levels < KEEPER_LEVELS; r >>= 2)
        levels++;
    return levels;
}

/* NULL: no memory. */
static struct keeper_entry *
keeper_entry_new(struct kvfs_keeper *k, const struct keeper_place *p, const void *value,
                 size_t value_len)
{
    int levels = keeper_random_levels(k);
    size_t head = sizeof(struct keeper_entry) + (size_t)levels * sizeof(struct keeper_entry *);
    struct keeper_entry *e = malloc(head + p->key_len + value_len);

    if (e == NULL)
        return NULL;
    *e = (struct keeper_entry){.until = p->until,
                               .bytes = head + p->key_len + value_len + 16, /* malloc's own */
                               .value_len = value_len,
                               .key_len = (uint16_t)p->key_len,
                               .keyspace = p->keyspace,
                               .absent = value == NULL,
                               .levels = (uint8_t)levels,
                               .text = (uint8_t *)e + head};
    if (p->key != NULL) /* an empty key may have no address */
        memcpy(e->text, p->key, p->key_len);
    if (value != NULL && value_len > 0)
        memcpy(e->text + p->key_len, value, value_len);
    return e;
}

static void
keeper_add(struct kvfs_keeper *k, struct keeper_entry *e, struct keeper_entry **links[KEEPER_LEVELS])
{
    for (int level = 0; level < e->levels; level++) {
        e->next[level] = *links[level];
        *links[level] = e;
    }
    if (k->last != NULL)
        k->last->younger = e;
    else
        k->first = e;
    k->last = e;
    k->bytes += e->bytes;
    (void)atomic_fetch_add(&k->count, 1);
    while (k->bytes > k->max_bytes && k->oldest != NULL)
        keeper_give_up_oldest(k);
}

void
kvfs_keeper_keep(struct kvfs_keeper *k, enum kvfs_keyspace keyspace, const void *key,
                 size_t key_len, const void *value, size_t value_len)
{
    struct keeper_entry *e, **links[KEEPER_LEVELS];
    struct keeper_place p = {(uint8_t)keyspace, key, key_len, 0};

    (void)pthread_rwlock_wrlock(&k->lock);
    p.until = k->batches + 1;
    e = keeper_search(k, &p, links, NULL);
    if (k->oldest != NULL &&
        (e == NULL || keeper_compare_key(e, &p) != 0 || e->until != p.until)) {
        e = keeper_entry_new(k, &p, value, value_len);
        if (e != NULL)
            keeper_add(k, e, links);
        while (e == NULL && k->oldest != NULL)
            keeper_give_up_oldest(k);
    }
    (void)pthread_rwlock_unlock(&k->lock);
}

void
kvfs_keeper_done(struct kvfs_keeper *k)
{
    (void)pthread_rwlock_wrlock(&k->lock);
    k->batches++;
    (void)pthread_rwlock_unlock(&k->lock);
}

/* --- asking ------------------------------------------------------------------------------------ */

static void
keeper_copy(const struct keeper_entry *e, size_t offset, const struct iovec *iov, int iov_count)
{
    for (int i = 0; i < iov_count && offset < e->value_len; i++) {
        size_t n = e->value_len - offset;

        n = n < iov[i].iov_len ? n : iov[i].iov_len;
        if (n > 0)
            memcpy(iov[i].iov_base, e->text + e->key_len + offset, n);
        offset += n;
    }
}

int
kvfs_keeper_get(struct kvfs_keeper *k, const struct kvfs_keeper_snap *s,
                enum kvfs_keyspace keyspace, const void *key, size_t key_len, size_t offset,
                const struct iovec *iov, int iov_count, size_t *value_len)
{
    struct keeper_place p = {(uint8_t)keyspace, key, key_len, s->batches + 1};
    struct keeper_entry *e;
    int rc = KVFS_KEEPER_LIVE;

    (void)pthread_rwlock_rdlock(&k->lock);
    if (s->stale) {
        rc = -ESTALE;
    } else if (atomic_load(&k->count) > 0) {
        e = keeper_search(k, &p, NULL, NULL);
        if (e != NULL && keeper_compare_key(e, &p) == 0) {
            rc = e->absent ? KVFS_KEEPER_ABSENT : KVFS_KEEPER_VALUE;
            keeper_copy(e, offset, iov, iov_count);
            if (value_len != NULL)
                *value_len = e->value_len;
        }
    }
    (void)pthread_rwlock_unlock(&k->lock);
    return rc;
}

static const struct keeper_entry *
keeper_near_forward(struct kvfs_keeper *k, uint64_t batches, struct keeper_place p)
{
    const struct keeper_entry *e = keeper_search(k, &p, NULL, NULL);

    while (e != NULL && e->keyspace == p.keyspace && e->until <= batches)
        e = e->next[0];
    return e != NULL && e->keyspace == p.keyspace ? e : NULL;
}

static const struct keeper_entry *
keeper_near_reverse(struct kvfs_keeper *k, uint64_t batches, struct keeper_place p)
{
    struct keeper_entry *e;

    for (;;) { /* the entry found is the youngest of its key */
        (void)keeper_search(k, &p, NULL, &e);
        if (e == NULL || e->until > batches)
            break;
        p = keeper_place_of(e);
        p.until = 0;
    }
    return e;
}

int
kvfs_keeper_near(struct kvfs_keeper *k, const struct kvfs_keeper_snap *s,
                 enum kvfs_keyspace keyspace, const struct kvfs_keeper_bound *b, void *key,
                 size_t *key_len)
{
    struct keeper_place p = {(uint8_t)keyspace, b->key, b->key_len, b->behind ? UINT64_MAX : 0};
    const struct keeper_entry *e = NULL;
    int rc;

    if (b->reverse && b->key_len == 0)
        p.keyspace++; /* before the first key of the next one */
    (void)pthread_rwlock_rdlock(&k->lock);
    rc = s->stale ? -ESTALE : 0;
    if (rc == 0 && atomic_load(&k->count) > 0)
        e = b->reverse ? keeper_near_reverse(k, s->batches, p)
                       : keeper_near_forward(k, s->batches, p);
    if (e != NULL && e->keyspace == (uint8_t)keyspace) {
        rc = 1;
        *key_len = e->key_len;
        memcpy(key, e->text, e->key_len);
    }
    (void)pthread_rwlock_unlock(&k->lock);
    return rc;
}
