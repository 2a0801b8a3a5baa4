/* SPDX-License-Identifier: BSD-3-Clause
 *
 * memtree.c - a treap with shared, counted nodes.
 *
 * A search tree by key that is at the same time a heap by random priorities,
 * so its expected depth is logarithmic and it can be split at a key and merged
 * again in O(depth).  Every change is one motion: cut [lo, hi) out and lay at
 * most one fresh node in its place.
 *
 * Invariants:
 * 1. A node with more than one reference never changes; a change owns each node
 *    of its path first, by copying where it is not the only owner.
 * 2. A node with one reference is reached by one owner only, so nobody can take
 *    a second reference behind its back.
 * 3. count and bytes of a node are sums over the tree below it.
 */
#include <errno.h>
#include <pthread.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "memtree.h"

#define CHUNK_LEAST   ((size_t)16 << 10) /* and what lengths are rounded to */
#define CHUNK_CLASSES 8
#define CHUNK_SPARES  8 /* of each length */

struct kvfs_memchunk {
    atomic_uint refs; /* records, and a source */
    size_t bytes, used;
};

struct kvfs_memtree {
    atomic_uint refs;
    uint32_t priority;
    struct kvfs_memtree *left, *right;
    struct kvfs_memrecord *record;
    uint64_t count, bytes;
};

int
kvfs_memkey_compare(const void *a, size_t a_len, const void *b, size_t b_len)
{
    size_t len = a_len < b_len ? a_len : b_len;
    int c = len > 0 ? memcmp(a, b, len) : 0;

    if (c != 0)
        return c;
    return a_len < b_len ? -1 : a_len > b_len;
}

static int
record_compare(const struct kvfs_memrecord *r, const void *key, size_t key_len)
{
    return kvfs_memkey_compare(r->bytes, r->key_len, key, key_len);
}

/* --- memory of records ------------------------------------------------------------------ */

static size_t
record_bytes(size_t key_len, size_t value_len)
{
    size_t bytes = sizeof(struct kvfs_memrecord) + key_len + value_len;

    return (bytes + alignof(struct kvfs_memrecord) - 1) & ~(alignof(struct kvfs_memrecord) - 1);
}

/* Chunks are mapped, so that freed ones never lie between others; the short ones, of which each
 * commit takes one, are kept (4.5 MiB at most), since to map, touch and unmap one costs more than
 * to fill it.  The lock is only tried: in a child of fork() it may be held for ever. */
static struct {
    pthread_mutex_t lock;
    struct kvfs_memchunk *kept[CHUNK_CLASSES][CHUNK_SPARES];
    unsigned count[CHUNK_CLASSES];
} spares = {.lock = PTHREAD_MUTEX_INITIALIZER};

static size_t
chunk_class(size_t bytes)
{
    return bytes / CHUNK_LEAST - 1;
}

/* BYTES: a multiple of CHUNK_LEAST.  NULL: no memory. */
static struct kvfs_memchunk *
chunk_take(size_t bytes)
{
    size_t class = chunk_class(bytes);
    struct kvfs_memchunk *c = NULL;
    void *mapped;

    if (class < CHUNK_CLASSES && pthread_mutex_trylock(&spares.lock) == 0) {
        if (spares.count[class] > 0)
            c = spares.kept[class][--spares.count[class]];
        (void)pthread_mutex_unlock(&spares.lock);
    }
    if (c != NULL)
        return c;
    mapped = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return mapped != MAP_FAILED ? mapped : NULL;
}

static void
chunk_drop(struct kvfs_memchunk *c)
{
    size_t class = chunk_class(c->bytes);
    bool kept = false;

    if (atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (class < CHUNK_CLASSES && pthread_mutex_trylock(&spares.lock) == 0) {
        kept = spares.count[class] < CHUNK_SPARES;
        if (kept)
            spares.kept[class][spares.count[class]++] = c;
        (void)pthread_mutex_unlock(&spares.lock);
    }
    if (!kept)
        (void)munmap(c, c->bytes);
}

void
kvfs_memsource_reserve(struct kvfs_memsource *s, size_t count, size_t bytes)
{
    struct kvfs_memchunk *c;

    kvfs_memsource_done(s);
    bytes += sizeof(*c) + count * record_bytes(0, 1); /* more than their heads and rounding */
    if (count < 2 || bytes < CHUNK_LEAST)
        return;
    bytes = (bytes + CHUNK_LEAST - 1) & ~(CHUNK_LEAST - 1);
    c = chunk_take(bytes);
    if (c == NULL)
        return;
    atomic_init(&c->refs, 1);
    c->bytes = bytes;
    c->used = record_bytes(0, sizeof(*c)) - sizeof(struct kvfs_memrecord);
    s->chunk = c;
}

void
kvfs_memsource_done(struct kvfs_memsource *s)
{
    if (s->chunk != NULL)
        chunk_drop(s->chunk);
    s->chunk = NULL;
}

static struct kvfs_memrecord *
record_alloc(struct kvfs_memsource *s, size_t bytes)
{
    struct kvfs_memchunk *c = s->chunk;
    struct kvfs_memrecord *r;

    if (c == NULL || bytes > c->bytes - c->used) {
        r = malloc(bytes);
        if (r != NULL)
            r->chunk = NULL;
        return r;
    }
    r = (struct kvfs_memrecord *)(void *)((uint8_t *)c + c->used);
    c->used += bytes;
    (void)atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    r->chunk = c;
    return r;
}

static struct kvfs_memrecord *
record_new(struct kvfs_memsource *s, const void *key, size_t key_len, const struct iovec *value,
           int pieces)
{
    struct kvfs_memrecord *r;
    size_t value_len = 0;
    uint8_t *at;

    for (int i = 0; i < pieces; i++)
        value_len += value[i].iov_len;
    r = record_alloc(s, record_bytes(key_len, value_len));
    if (r == NULL)
        return NULL;
    atomic_init(&r->refs, 1);
    r->key_len = (uint32_t)key_len;
    r->value_len = value_len;
    memcpy(r->bytes, key, key_len);
    at = r->bytes + key_len;
    for (int i = 0; i < pieces; i++) {
        if (value[i].iov_len > 0)
            memcpy(at, value[i].iov_base, value[i].iov_len);
        at += value[i].iov_len;
    }
    return r;
}

static void
record_drop(struct kvfs_memrecord *r)
{
    if (atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (r->chunk != NULL)
        chunk_drop(r->chunk);
    else
        free(r);
}

/* --- trees ------------------------------------------------------------------------------ */

uint64_t
kvfs_memtree_count(const struct kvfs_memtree *t)
{
    return t != NULL ? t->count : 0;
}

uint64_t
kvfs_memtree_bytes(const struct kvfs_memtree *t)
{
    return t != NULL ? t->bytes : 0;
}

struct kvfs_memtree *
kvfs_memtree_ref(struct kvfs_memtree *t)
{
    if (t != NULL)
        (void)atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    return t;
}

void
kvfs_memtree_drop(struct kvfs_memtree *t)
{
    while (t != NULL && atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) == 1) {
        struct kvfs_memtree *right = t->right;

        kvfs_memtree_drop(t->left);
        record_drop(t->record);
        free(t);
        t = right;
    }
}

static uint64_t
tree_own_bytes(const struct kvfs_memtree *t)
{
    return sizeof(*t) + sizeof(*t->record) + t->record->key_len + t->record->value_len;
}

static void
tree_sum(struct kvfs_memtree *t)
{
    t->count = 1 + kvfs_memtree_count(t->left) + kvfs_memtree_count(t->right);
    t->bytes = tree_own_bytes(t) + kvfs_memtree_bytes(t->left) + kvfs_memtree_bytes(t->right);
}

/* Takes T; answers a node of the same content with one reference, or NULL. */
static struct kvfs_memtree *
tree_own(struct kvfs_memtree *t)
{
    struct kvfs_memtree *copy;

    if (atomic_load_explicit(&t->refs, memory_order_acquire) == 1)
        return t;
    copy = malloc(sizeof(*copy));
    if (copy != NULL) {
        atomic_init(&copy->refs, 1);
        copy->priority = t->priority;
        copy->left = kvfs_memtree_ref(t->left);
        copy->right = kvfs_memtree_ref(t->right);
        copy->record = t->record;
        (void)atomic_fetch_add_explicit(&copy->record->refs, 1, memory_order_relaxed);
        copy->count = t->count;
        copy->bytes = t->bytes;
    }
    kvfs_memtree_drop(t);
    return copy;
}

/* Takes T.  Keys before KEY go to *left, the others to *right; KEY itself goes
 * to *left if AFTER.  Out of memory: both are sound, records are missing. */
static int
tree_split(struct kvfs_memtree *t, const void *key, size_t key_len, bool after,
           struct kvfs_memtree **left, struct kvfs_memtree **right)
{
    int c, r;

    *left = *right = NULL;
    if (t == NULL)
        return 0;
    t = tree_own(t);
    if (t == NULL)
        return -ENOMEM;
    c = record_compare(t->record, key, key_len);
    if (c < 0 || (after && c == 0)) {
        struct kvfs_memtree *child = t->right;

        r = tree_split(child, key, key_len, after, &t->right, right);
        *left = t;
    } else {
        struct kvfs_memtree *child = t->left;

        r = tree_split(child, key, key_len, after, left, &t->left);
        *right = t;
    }
    tree_sum(t);
    return r;
}

/* Takes both; all keys of LEFT are before those of RIGHT.  Out of memory: *out
 * is sound, records are missing. */
static int
tree_merge(struct kvfs_memtree *left, struct kvfs_memtree *right, struct kvfs_memtree **out)
{
    struct kvfs_memtree *child, *top;
    bool left_up;
    int r;

    if (left == NULL || right == NULL) {
        *out = left != NULL ? left : right;
        return 0;
    }
    left_up = left->priority > right->priority;
    top = tree_own(left_up ? left : right);
    if (top == NULL) {
        kvfs_memtree_drop(left_up ? right : left);
        *out = NULL;
        return -ENOMEM;
    }
    if (left_up) {
        child = top->right;
        r = tree_merge(child, right, &top->right);
    } else {
        child = top->left;
        r = tree_merge(left, child, &top->left);
    }
    tree_sum(top);
    *out = top;
    return r;
}

/* The one motion: cut [lo, hi) out of *root (hi itself too if WITH_HI; hi_len 0
 * without it: to the end) and lay FRESH, which may be NULL and is taken, there. */
static int
tree_replace(struct kvfs_memtree **root, const struct iovec *lo, const struct iovec *hi,
             bool with_hi, struct kvfs_memtree *fresh)
{
    struct kvfs_memtree *left, *middle, *right = NULL;
    int r, r2;

    r = tree_split(*root, lo->iov_base, lo->iov_len, false, &left, &middle);
    if (hi->iov_len > 0) {
        struct kvfs_memtree *rest = middle;

        r2 = tree_split(rest, hi->iov_base, hi->iov_len, with_hi, &middle, &right);
        r = r != 0 ? r : r2;
    }
    kvfs_memtree_drop(middle);
    r2 = tree_merge(left, fresh, &left);
    r = r != 0 ? r : r2;
    r2 = tree_merge(left, right, root);
    return r != 0 ? r : r2;
}

static struct iovec
tree_key(const void *key, size_t key_len)
{
    /* Only read; an iovec knows no const. */
    return (struct iovec){.iov_base = (void *)(uintptr_t)key, .iov_len = key_len};
}

static uint32_t
source_random(struct kvfs_memsource *s)
{
    s->random ^= s->random << 13; /* xorshift64 */
    s->random ^= s->random >> 7;
    s->random ^= s->random << 17;
    return (uint32_t)(s->random >> 32);
}

int
kvfs_memtree_put(struct kvfs_memtree **root, struct kvfs_memsource *source, const void *key,
                 size_t key_len, const struct iovec *value, int pieces)
{
    struct iovec at = tree_key(key, key_len);
    struct kvfs_memtree *fresh = malloc(sizeof(*fresh));

    if (fresh == NULL)
        return -ENOMEM;
    *fresh = (struct kvfs_memtree){.priority = source_random(source),
                                   .record = record_new(source, key, key_len, value, pieces)};
    if (fresh->record == NULL) {
        free(fresh);
        return -ENOMEM;
    }
    atomic_init(&fresh->refs, 1);
    tree_sum(fresh);
    return tree_replace(root, &at, &at, true, fresh);
}

int
kvfs_memtree_del(struct kvfs_memtree **root, const void *key, size_t key_len)
{
    struct iovec at = tree_key(key, key_len);

    if (kvfs_memtree_get(*root, key, key_len) == NULL)
        return 0;
    return tree_replace(root, &at, &at, true, NULL);
}

int
kvfs_memtree_del_range(struct kvfs_memtree **root, const void *lo, size_t lo_len, const void *hi,
                       size_t hi_len)
{
    struct iovec from = tree_key(lo, lo_len), to = tree_key(hi, hi_len);

    if (hi_len > 0 && kvfs_memkey_compare(lo, lo_len, hi, hi_len) >= 0)
        return 0;
    return tree_replace(root, &from, &to, false, NULL);
}

const struct kvfs_memrecord *
kvfs_memtree_get(const struct kvfs_memtree *t, const void *key, size_t key_len)
{
    while (t != NULL) {
        int c = record_compare(t->record, key, key_len);

        if (c == 0)
            return t->record;
        t = c > 0 ? t->left : t->right;
    }
    return NULL;
}

const struct kvfs_memrecord *
kvfs_memtree_floor(const struct kvfs_memtree *t, const void *key, size_t key_len)
{
    const struct kvfs_memrecord *last = NULL;

    while (t != NULL) {
        int c = record_compare(t->record, key, key_len);

        if (c <= 0)
            last = t->record;
        if (c == 0)
            break;
        t = c > 0 ? t->left : t->right;
    }
    return last;
}

static int
walk_push(struct kvfs_memwalk *w, const struct kvfs_memtree *t)
{
    if (w->depth == w->cap) {
        size_t cap = w->cap == 0 ? 64 : w->cap * 2;
        const struct kvfs_memtree **path =
            realloc(w->path, cap * sizeof(*path)); // NOLINT(bugprone-sizeof-expression): pointers

        if (path == NULL)
            return -ENOMEM;
        w->path = path;
        w->cap = cap;
    }
    w->path[w->depth++] = t;
    return 0;
}

int
kvfs_memwalk_start(struct kvfs_memwalk *w, const struct kvfs_memtree *t, const void *bound,
                   size_t bound_len, bool reverse)
{
    int r = 0;

    *w = (struct kvfs_memwalk){.reverse = reverse};
    while (t != NULL && r == 0) {
        int c = bound_len > 0 ? record_compare(t->record, bound, bound_len) : reverse ? -1 : 1;
        bool wanted = reverse ? c < 0 : c >= 0;

        if (wanted)
            r = walk_push(w, t);
        t = wanted == reverse ? t->right : t->left;
    }
    if (r != 0)
        kvfs_memwalk_end(w);
    return r;
}

int
kvfs_memwalk_next(struct kvfs_memwalk *w, const struct kvfs_memrecord **record)
{
    const struct kvfs_memtree *t, *at;

    if (w->depth == 0) {
        *record = NULL;
        return 0;
    }
    at = w->path[--w->depth];
    t = w->reverse ? at->left : at->right;
    while (t != NULL) {
        if (walk_push(w, t) != 0)
            return -ENOMEM;
        t = w->reverse ? t->right : t->left;
    }
    *record = at->record;
    return 0;
}

void
kvfs_memwalk_end(struct kvfs_memwalk *w)
{
    free(w->path);
    *w = (struct kvfs_memwalk){.path = NULL};
}

/* Keys below T must lie between the records FROM and TO (NULL: no bound). */
static void
tree_check(const struct kvfs_memtree *t, const struct kvfs_memrecord *from,
           const struct kvfs_memrecord *to,
           void (*bad)(void *arg, const struct kvfs_memrecord *r, const char *what), void *arg)
{
    const struct kvfs_memrecord *r = t->record;

    if ((from != NULL && record_compare(r, from->bytes, from->key_len) <= 0) ||
        (to != NULL && record_compare(r, to->bytes, to->key_len) >= 0))
        bad(arg, r, "key out of order");
    if ((t->left != NULL && t->left->priority > t->priority) ||
        (t->right != NULL && t->right->priority > t->priority))
        bad(arg, r, "child of a higher priority");
    if (t->count != 1 + kvfs_memtree_count(t->left) + kvfs_memtree_count(t->right) ||
        t->bytes != tree_own_bytes(t) + kvfs_memtree_bytes(t->left) + kvfs_memtree_bytes(t->right))
        bad(arg, r, "wrong sums");
    if (t->left != NULL)
        tree_check(t->left, from, r, bad, arg);
    if (t->right != NULL)
        tree_check(t->right, r, to, bad, arg);
}

void
kvfs_memtree_check(const struct kvfs_memtree *t,
                   void (*bad)(void *arg, const struct kvfs_memrecord *r, const char *what),
                   void *arg)
{
    if (t != NULL)
        tree_check(t, NULL, NULL, bad, arg);
}
