/* SPDX-License-Identifier: BSD-3-Clause
 *
 * overlay.c - acknowledged data that the engine does not hold yet.
 *
 *   writers -> cur | seal | -> sealed ... sealed | commit | -> engine
 *
 * 1. Under the cut lock, shared, a request puts all its blocks into `cur`;
 *    sealing takes the lock exclusive.  So a request lies in one layer whole,
 *    and a layer holds everything acknowledged before it was sealed that no
 *    older layer holds.
 * 2. Layers reach the engine in their order (commit.c), each in one batch, or
 *    several joined in one.  So what the engine holds is always a prefix of what
 *    was acknowledged: the state of one cut.
 * 3. A layer leaves the list only after its batch was applied.  So who looks
 *    through the layers first and begins an engine snapshot afterwards misses
 *    nothing; who holds the cut lock while beginning one has an instant.
 * 4. `bytes` is bounded: a request waits until it fits (kvfs_overlay_admit), or
 *    until nothing at all is left, for one that is larger than the bound.  What was
 *    admitted is `reserved` until it lies in a layer.
 * 5. Nothing is acknowledged that the store cannot take: a request that would
 *    not fit into what the engine says it can still add is refused.
 *
 * The bound leaves room for the engine's copy of a batch, so that
 * kvfs_volume_options.cache_bytes bounds both.
 */
#include "overlay.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "node.h"
#include "work.h"

#define OVERLAY_SPARE_LAYERS 16
#define OVERLAY_SPARE_SLOTS  4096 /* a shard with more gives its table back */
#define OVERLAY_BATCH_MIN    ((size_t)1 << 20)
#define OVERLAY_BATCH_MAX    ((size_t)16 << 20)
#define OVERLAY_RESERVE_MIN  ((size_t)512 << 10)
#define OVERLAY_RESERVE_MAX  ((size_t)8 << 20)
#define OVERLAY_RESERVE_SHARE 32 /* of what the store holds */
#define OVERLAY_TUNE_BLOCKS  64
#define OVERLAY_TUNE_MS      50
#define OVERLAY_TUNE_AVAIL   ((uint64_t)64 << 20) /* with less room it is looked at each time */
#define OVERLAY_BATCH_SHARE  8 /* of the cache: what the engine may copy for one batch */

#define OVERLAY_CUT_TRIES    60
#define OVERLAY_CUT_PAUSES   4 /* between two */

/* --- the cut lock ------------------------------------------------------------ */

static void
cut_pause(void)
{
    for (unsigned i = 0; i < OVERLAY_CUT_PAUSES; i++) {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
        __asm__ __volatile__("yield");
#else
        atomic_signal_fence(memory_order_seq_cst);
#endif
    }
}

void
kvfs_cut_lock_shared(struct kvfs_overlay *o)
{
    for (unsigned i = 0; i < o->cut_tries; i++) {
        if (pthread_rwlock_tryrdlock(&o->cut) == 0)
            return;
        cut_pause();
    }
    (void)pthread_rwlock_rdlock(&o->cut);
}

void
kvfs_cut_lock(struct kvfs_overlay *o)
{
    for (unsigned i = 0; i < o->cut_tries; i++) {
        if (pthread_rwlock_trywrlock(&o->cut) == 0)
            return;
        cut_pause();
    }
    (void)pthread_rwlock_wrlock(&o->cut);
}

void
kvfs_cut_unlock(struct kvfs_overlay *o)
{
    (void)pthread_rwlock_unlock(&o->cut);
}

/* --- life ---------------------------------------------------------------------- */

int
kvfs_overlay_new(struct kvfs_volume *v, struct kvfs_overlay **overlayp)
{
    struct kvfs_overlay *o = calloc(1, sizeof(*o));
    pthread_rwlockattr_t attr;

    if (o == NULL)
        return -ENOMEM;
    o->v = v;
    (void)pthread_rwlockattr_init(&attr);
    /* A stream of readers must not keep a commit from sealing. */
    (void)pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    (void)pthread_rwlock_init(&o->cut, &attr);
    (void)pthread_rwlockattr_destroy(&attr);
    o->cut_tries = sysconf(_SC_NPROCESSORS_ONLN) > 1 ? OVERLAY_CUT_TRIES : 0;
    (void)pthread_mutex_init(&o->commit_lock, NULL);
    (void)pthread_mutex_init(&o->lead_lock, NULL);
    o->waiters_end = &o->waiters;
    (void)pthread_mutex_init(&o->space_lock, NULL);
    (void)pthread_cond_init(&o->space_cond, NULL);
    (void)pthread_mutex_init(&o->pool_lock, NULL);
    o->chunk_bytes = v->cache_bytes / 64;
    if (o->chunk_bytes > (1u << 20))
        o->chunk_bytes = 1u << 20;
    if (o->chunk_bytes < 2 * (size_t)KVFS_BLOCK_SIZE_MAX)
        o->chunk_bytes = 2 * (size_t)KVFS_BLOCK_SIZE_MAX;
    o->chunk_bytes &= ~(size_t)0xffff;
    atomic_store(&o->seal_bytes, v->batch_bytes != 0 ? v->batch_bytes : OVERLAY_BATCH_MIN);
    if (atomic_load(&o->seal_bytes) > v->cache_bytes / OVERLAY_BATCH_SHARE)
        atomic_store(&o->seal_bytes, v->cache_bytes / OVERLAY_BATCH_SHARE);
    atomic_store(&o->join_bytes, atomic_load(&o->seal_bytes));
    o->bound_bytes = v->cache_bytes / 16 * 9;
    atomic_store(&o->block_min, KVFS_BLOCK_SIZE_MAX);
    atomic_store(&o->spread, 16);
    o->cur = kvfs_layer_new();
    if (o->cur == NULL) {
        kvfs_overlay_free(o);
        return -ENOMEM;
    }
    o->cur->id = o->next_id = 1;
    if (!v->readonly) /* fails: nothing is admitted until it succeeds */
        (void)kvfs_overlay_refresh(o, NULL);
    *overlayp = o;
    return 0;
}

void
kvfs_overlay_free(struct kvfs_overlay *o)
{
    if (o == NULL)
        return;
    while (o->oldest != NULL) { /* only of a poisoned or full volume */
        struct kvfs_layer *l = o->oldest;

        o->oldest = l->newer;
        while (l->chunks != NULL) {
            struct kvfs_chunk *c = l->chunks;

            l->chunks = c->next;
            (void)munmap(c, o->chunk_bytes);
        }
        kvfs_layer_free(l);
    }
    if (o->cur != NULL) {
        while (o->cur->chunks != NULL) {
            struct kvfs_chunk *c = o->cur->chunks;

            o->cur->chunks = c->next;
            (void)munmap(c, o->chunk_bytes);
        }
        kvfs_layer_free(o->cur);
    }
    while (o->spare != NULL) {
        struct kvfs_layer *l = o->spare;

        o->spare = l->newer;
        kvfs_layer_free(l);
    }
    while (o->chunks != NULL) {
        struct kvfs_chunk *c = o->chunks;

        o->chunks = c->next;
        (void)munmap(c, o->chunk_bytes);
    }
    kvfs_commit_scratch_free(o->scratch);
    (void)pthread_rwlock_destroy(&o->cut);
    (void)pthread_mutex_destroy(&o->commit_lock);
    (void)pthread_mutex_destroy(&o->lead_lock);
    (void)pthread_mutex_destroy(&o->space_lock);
    (void)pthread_cond_destroy(&o->space_cond);
    (void)pthread_mutex_destroy(&o->pool_lock);
    free(o);
}

size_t
kvfs_chunk_bytes(const struct kvfs_overlay *o)
{
    return o->chunk_bytes;
}

struct kvfs_chunk *
kvfs_chunk_take(struct kvfs_overlay *o)
{
    struct kvfs_chunk *c;

    (void)pthread_mutex_lock(&o->pool_lock);
    c = o->chunks;
    if (c != NULL)
        o->chunks = c->next;
    (void)pthread_mutex_unlock(&o->pool_lock);
    if (c == NULL) {
        c = mmap(NULL, o->chunk_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (c == MAP_FAILED)
            return NULL;
    }
    c->used = (sizeof(*c) + 63) & ~(size_t)63;
    return c;
}

struct kvfs_layer *
kvfs_layer_take(struct kvfs_overlay *o)
{
    struct kvfs_layer *l;

    (void)pthread_mutex_lock(&o->pool_lock);
    l = o->spare;
    if (l != NULL)
        o->spare = l->newer;
    (void)pthread_mutex_unlock(&o->pool_lock);
    if (l == NULL)
        return kvfs_layer_new();
    l->newer = l->older = NULL;
    l->refs = 1;
    return l;
}

void
kvfs_layer_hold(struct kvfs_overlay *o, struct kvfs_layer *l)
{
    (void)pthread_mutex_lock(&o->pool_lock);
    l->refs++;
    (void)pthread_mutex_unlock(&o->pool_lock);
}

/* Empty a layer that nobody refers to, so that it can be used again. */
static void
layer_reset(struct kvfs_layer *l)
{
    for (int i = 0; i < KVFS_LAYER_SHARDS; i++) {
        struct kvfs_shard *s = &l->shards[i];

        if (s->cap > OVERLAY_SPARE_SLOTS) {
            free(s->slots);
            s->slots = NULL;
            s->cap = 0;
        } else if (s->used > 0) {
            memset(s->slots, 0, s->cap * sizeof(*s->slots));
        }
        s->used = 0;
    }
    atomic_store(&l->bytes, 0);
    atomic_store(&l->entries_after_hole, false);
    l->hole_seq = l->holes_total = 0;
    l->is_txn = false;
    atomic_store(&l->result, 0);
    l->id = 0;
}

void
kvfs_layer_drop(struct kvfs_overlay *o, struct kvfs_layer *l)
{
    struct kvfs_layer_node *nodes;
    struct kvfs_layer *s;
    unsigned spares = 0;
    bool last;

    (void)pthread_mutex_lock(&o->pool_lock);
    last = --l->refs == 0;
    (void)pthread_mutex_unlock(&o->pool_lock);
    if (!last)
        return;
    nodes = l->nodes;
    l->nodes = NULL;
    layer_reset(l);
    (void)pthread_mutex_lock(&o->pool_lock);
    while (l->chunks != NULL) {
        struct kvfs_chunk *c = l->chunks;

        l->chunks = c->next;
        c->next = o->chunks;
        o->chunks = c;
    }
    for (s = o->spare; s != NULL; s = s->newer)
        spares++;
    if (spares < OVERLAY_SPARE_LAYERS) {
        l->newer = o->spare;
        o->spare = l;
        l = NULL;
    }
    (void)pthread_mutex_unlock(&o->pool_lock);
    kvfs_layer_free(l);
    while (nodes != NULL) {
        struct kvfs_layer_node *ln = nodes;

        nodes = ln->next;
        kvfs_node_put(ln->node);
        free(ln->holes);
        free(ln);
    }
}

/* Ask the engine how much it can still take, and how much it holds. */
int
kvfs_overlay_refresh(struct kvfs_overlay *o, struct kvfs_error *err)
{
    struct kvfs_volume *v = o->v;
    struct kvfs_engine_stat stat;
    int rc = v->engine->stat(v->db, &stat, err);

    if (rc < 0)
        return rc;
    atomic_store(&o->avail_bytes, stat.avail_bytes);
    atomic_store(&o->used_bytes, stat.used_bytes);
    return 0;
}

static int64_t
overlay_now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static size_t
overlay_clamp(uint64_t bytes, size_t max)
{
    size_t n = bytes < OVERLAY_BATCH_MAX ? (size_t)bytes : OVERLAY_BATCH_MAX;

    if (n < OVERLAY_BATCH_MIN)
        n = OVERLAY_BATCH_MIN;
    return n < max ? n : max;
}

/* A larger batch copies fewer index pages for a block, but the store grows by what a
 * batch or two need before they free what they replace.  A store that fills up ends
 * with small batches, so that little is left over; one that is overwritten takes
 * larger ones.  (LMDB, 256 MiB, MiB a batch: after a random fill 1.042x with 2 and
 * 1.051x with 4; after a random overwrite 1.10x with 4, 1.13x with 8, 1.21x with 16.) */
void
kvfs_overlay_tune(struct kvfs_overlay *o, size_t blocks)
{
    struct kvfs_volume *v = o->v;
    struct kvfs_engine_stat stat;
    size_t max = v->cache_bytes / OVERLAY_BATCH_SHARE;
    bool filling;
    size_t seal;

    /* A look costs some system calls, and small commits are many.  What they take meanwhile is
     * taken off, at the worst: for each block a page of the index, and what is above it. */
    o->untuned += blocks;
    if (o->untuned < OVERLAY_TUNE_BLOCKS && overlay_now_ms() - o->tuned_ms < OVERLAY_TUNE_MS) {
        uint64_t avail = atomic_load(&o->avail_bytes);
        uint64_t taken = 4 * (uint64_t)blocks * (v->limits.value_best_bytes + KVFS_SLOT_COST);

        if (avail > OVERLAY_TUNE_AVAIL + taken) {
            atomic_store(&o->avail_bytes, avail - taken);
            return;
        }
    }
    blocks = o->untuned;
    o->untuned = 0;
    o->tuned_ms = overlay_now_ms();
    if (v->engine->stat(v->db, &stat, NULL) < 0)
        return;
    atomic_store(&o->avail_bytes, stat.avail_bytes);
    atomic_store(&o->used_bytes, stat.used_bytes);
    filling = stat.data_records > o->records + blocks / 4;
    o->records = stat.data_records;
    seal = overlay_clamp(stat.used_bytes / (filling ? 256 : 64), max);
    if (v->batch_bytes != 0)
        seal = v->batch_bytes < max ? v->batch_bytes : max;
    atomic_store(&o->seal_bytes, seal);
    atomic_store(&o->join_bytes,
                 filling ? seal : overlay_clamp(2 * (uint64_t)seal, max));
}

/* At the worst each block goes to a page of the index of its own, which the
 * engine writes anew: the engine refuses a batch that may not fit, and so what
 * was admitted must be less than that. */
void
kvfs_overlay_expect(struct kvfs_overlay *o, uint32_t block_size_bytes)
{
    unsigned page = 16 * o->v->limits.value_best_bytes;
    unsigned spread = 17 + (page + block_size_bytes - 1) / block_size_bytes;
    unsigned now = atomic_load(&o->spread);

    while (now < spread && !atomic_compare_exchange_weak(&o->spread, &now, spread))
        ;
}

/* Room in the store for all that is dirty and BYTES more?  An engine that copies on
 * write needs, besides the blocks, a new page for every page of its index that a
 * batch touches, before the old ones are free: one a block at worst, but not more than
 * there will be, and as much again for what lies above and for what is freed.  Small
 * blocks lie in pages that are half empty after they were split.  (Measured with LMDB:
 * a batch of 1 MiB takes 1.4 MiB with blocks of 4 KiB, 9.4 MiB with 512 bytes.) */
bool
kvfs_overlay_fits(const struct kvfs_overlay *o, size_t bytes, uint64_t rest)
{
    uint64_t all = (uint64_t)atomic_load(&o->bytes) + atomic_load(&o->reserved) + bytes;
    uint64_t page = o->v->limits.value_best_bytes + KVFS_SLOT_COST;
    uint64_t block = atomic_load(&o->block_min);
    bool small = 2 * block <= page;
    uint64_t stored = small ? 2 * all : all + all / 16;
    uint64_t pages = (atomic_load(&o->used_bytes) + stored) / page + 1;
    uint64_t touched = all / (block + KVFS_SLOT_COST) + 1;
    uint64_t before = small ? 2 * rest : rest + rest / 16;

    if (touched > pages)
        touched = pages;
    return before + stored + (256u << 10) + 2 * touched * page <= atomic_load(&o->avail_bytes);
}

static bool
overlay_fits(const struct kvfs_overlay *o, size_t bytes)
{
    return kvfs_overlay_fits(o, bytes, 0);
}

size_t
kvfs_overlay_reserve(const struct kvfs_overlay *o)
{
    uint64_t share = atomic_load(&o->used_bytes) / OVERLAY_RESERVE_SHARE;

    return share < OVERLAY_RESERVE_MIN   ? OVERLAY_RESERVE_MIN
           : share > OVERLAY_RESERVE_MAX ? OVERLAY_RESERVE_MAX
                                         : (size_t)share;
}

int
kvfs_overlay_room(struct kvfs_overlay *o, size_t bytes, uint64_t rest, struct kvfs_error *err)
{
    int rc = 0;

    if (kvfs_overlay_fits(o, bytes, rest))
        return 0;
    rc = kvfs_overlay_refresh(o, err);
    if (rc == 0 && !kvfs_overlay_fits(o, bytes, rest)) {
        rc = kvfs_commit_all(o->v, KVFS_ORDERED, err);
        if (rc == 0)
            rc = kvfs_overlay_refresh(o, err);
    }
    if (rc == -ENOSPC || (rc == 0 && !kvfs_overlay_fits(o, bytes, rest)))
        rc = kvfs_error_set(err, -ENOSPC, "%s: no space left in the store", o->v->path);
    return rc;
}

/* The store seems full: perhaps a commit frees what it replaces, or there is
 * space again since the last one was refused. */
static int
overlay_make_room(struct kvfs_overlay *o, size_t bytes, bool frees, struct kvfs_error *err)
{
    int rc = kvfs_overlay_refresh(o, err);

    if (rc == 0 && (!overlay_fits(o, bytes) || atomic_load(&o->full) != 0)) {
        rc = kvfs_commit_all(o->v, KVFS_ORDERED, err);
        if (rc == 0)
            rc = kvfs_overlay_refresh(o, err);
    }
    if (rc == -ENOSPC || (rc == 0 && !frees && !overlay_fits(o, bytes)))
        rc = kvfs_error_set(err, -ENOSPC, "%s: no space left in the store", o->v->path);
    return rc;
}

/* Room in memory?  A request larger than the bound has all of it for itself. */
static bool
overlay_open(const struct kvfs_overlay *o, size_t bytes)
{
    size_t all = atomic_load(&o->bytes) + atomic_load(&o->reserved);

    return !o->gate && (all == 0 || all + bytes <= o->bound_bytes);
}

/* Wait for room in memory; space_lock held. */
static int
overlay_wait(struct kvfs_overlay *o, size_t bytes, struct kvfs_error *err)
{
    struct kvfs_volume *v = o->v;
    int rc = 0;

    atomic_fetch_add(&o->space_waiters, 1); /* before looking: then no wake is missed */
    while (rc == 0 && !overlay_open(o, bytes)) {
        unsigned wakes = o->space_wakes;

        rc = kvfs_volume_writable(v, err);
        if (rc == 0 && atomic_load(&o->full) != 0)
            rc = kvfs_error_set(err, -ENOSPC, "%s: no space left in the store", v->path);
        if (rc < 0)
            break;
        (void)pthread_mutex_unlock(&o->space_lock);
        kvfs_worker_room(v);
        (void)pthread_mutex_lock(&o->space_lock);
        while (o->space_wakes == wakes)
            (void)pthread_cond_wait(&o->space_cond, &o->space_lock);
    }
    atomic_fetch_sub(&o->space_waiters, 1);
    return rc;
}

int
kvfs_overlay_admit(struct kvfs_overlay *o, size_t bytes, bool frees, struct kvfs_error *err)
{
    bool admitted = false;
    int rc = 0;

    while (rc == 0 && !admitted) {
        if ((!frees && !overlay_fits(o, bytes)) || atomic_load(&o->full) != 0)
            rc = overlay_make_room(o, bytes, frees, err);
        if (rc < 0)
            break;
        (void)pthread_mutex_lock(&o->space_lock);
        rc = overlay_wait(o, bytes, err);
        /* Judged and reserved in one: two requests must not take the same last space. */
        admitted = rc == 0 && (frees || overlay_fits(o, bytes));
        if (admitted)
            atomic_fetch_add(&o->reserved, bytes);
        (void)pthread_mutex_unlock(&o->space_lock);
    }
    return rc;
}

void
kvfs_overlay_admitted(struct kvfs_overlay *o, size_t bytes)
{
    atomic_fetch_sub(&o->reserved, bytes);
    if (atomic_load(&o->space_waiters) > 0)
        kvfs_overlay_wake(o);
}

void
kvfs_overlay_gate(struct kvfs_overlay *o, bool closed)
{
    (void)pthread_mutex_lock(&o->space_lock);
    o->gate = closed;
    if (!closed) {
        o->space_wakes++;
        (void)pthread_cond_broadcast(&o->space_cond);
    }
    (void)pthread_mutex_unlock(&o->space_lock);
}

void
kvfs_overlay_wake(struct kvfs_overlay *o)
{
    (void)pthread_mutex_lock(&o->space_lock);
    o->space_wakes++;
    if (atomic_load(&o->space_waiters) > 0)
        (void)pthread_cond_broadcast(&o->space_cond);
    (void)pthread_mutex_unlock(&o->space_lock);
}

void
kvfs_overlay_push_locked(struct kvfs_overlay *o, struct kvfs_layer *l)
{
    l->older = o->newest;
    l->newer = NULL;
    if (o->newest != NULL)
        o->newest->newer = l;
    else
        o->oldest = l;
    o->newest = l;
}

int
kvfs_overlay_seal_locked(struct kvfs_overlay *o)
{
    struct kvfs_layer *next;

    if (o->cur->nodes == NULL)
        return 0;
    next = kvfs_layer_take(o);
    if (next == NULL)
        return -ENOMEM;
    kvfs_overlay_push_locked(o, o->cur);
    next->id = ++o->next_id;
    o->cur = next;
    return 0;
}

bool
kvfs_overlay_is_sealed(struct kvfs_overlay *o)
{
    bool sealed;

    (void)pthread_mutex_lock(&o->cur->lock); /* writers go on adding files */
    sealed = o->cur->nodes == NULL;
    (void)pthread_mutex_unlock(&o->cur->lock);
    return sealed;
}

int
kvfs_overlay_seal(struct kvfs_overlay *o)
{
    int rc;

    kvfs_cut_lock(o);
    rc = kvfs_overlay_seal_locked(o);
    kvfs_cut_unlock(o);
    return rc;
}

enum kvfs_slot_state
kvfs_overlay_get(const struct kvfs_overlay *o, uint64_t ino, uint64_t index, void *buf, size_t from,
                 size_t len)
{
    enum kvfs_slot_state state = kvfs_layer_get(o->cur, ino, index, buf, from, len);

    for (struct kvfs_layer *l = o->newest; state == KVFS_SLOT_EMPTY && l != NULL; l = l->older)
        state = kvfs_layer_get(l, ino, index, buf, from, len);
    return state;
}
