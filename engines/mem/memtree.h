/* SPDX-License-Identifier: BSD-3-Clause
 *
 * memtree.h - an ordered map whose versions share what they have in common.
 *
 * A tree is a pointer to its root; NULL is the empty one.  Whoever holds the
 * pointer owns one reference.  Changes work on the caller's own reference:
 * nodes that somebody else refers to as well are copied first, so any tree that
 * another reference leads to never changes.
 *
 * Threads: reading, _ref and _drop from any; changes of one caller's root by
 * that caller only.
 */
#ifndef KVFS_MEMTREE_H
#define KVFS_MEMTREE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct kvfs_memtree; /* a node, so also a tree */
struct kvfs_memchunk; /* memory of many records, kept as long as one of them is */

struct kvfs_memrecord { /* never changes once it is in a tree */
    atomic_uint refs;
    uint32_t key_len;
    size_t value_len;
    struct kvfs_memchunk *chunk; /* it lies in; NULL: memory of its own */
    uint8_t bytes[]; /* key, then value */
};

/* Compare as memcmp(), a prefix before its extensions. */
int kvfs_memkey_compare(const void *a, size_t a_len, const void *b, size_t b_len);

static inline const uint8_t *
kvfs_memrecord_value(const struct kvfs_memrecord *r)
{
    return r->bytes + r->key_len;
}

struct kvfs_memtree *kvfs_memtree_ref(struct kvfs_memtree *t);
void kvfs_memtree_drop(struct kvfs_memtree *t);

/* Constant time: records, and the memory they take with their nodes. */
uint64_t kvfs_memtree_count(const struct kvfs_memtree *t);
uint64_t kvfs_memtree_bytes(const struct kvfs_memtree *t);

/* The record of a key or NULL; lives as long as the tree. */
const struct kvfs_memrecord *kvfs_memtree_get(const struct kvfs_memtree *t, const void *key,
                                              size_t key_len);

/* The record of the last key that is not behind KEY, or NULL; lives as long as the tree. */
const struct kvfs_memrecord *kvfs_memtree_floor(const struct kvfs_memtree *t, const void *key,
                                                size_t key_len);

/* What new records are made of: random numbers, which keep a tree balanced (RANDOM begins with
 * any but 0), and memory. */
struct kvfs_memsource {
    uint64_t random;
    struct kvfs_memchunk *chunk; /* begins NULL */
};
/* COUNT records with BYTES of keys and values are about to be put, and will be dropped at about
 * the same time: give them memory in one piece, if they are many enough.  It goes back to the
 * system as one, so records of many threads leave no holes.  _done() ends that. */
void kvfs_memsource_reserve(struct kvfs_memsource *s, size_t count, size_t bytes);
void kvfs_memsource_done(struct kvfs_memsource *s);

/* Change *ROOT.  A key has at least one byte.  The value is its PIECES in turn.  After -ENOMEM
 * *ROOT may have lost records and is only fit to be dropped. */
int kvfs_memtree_put(struct kvfs_memtree **root, struct kvfs_memsource *source, const void *key,
                     size_t key_len, const struct iovec *value, int pieces);
int kvfs_memtree_del(struct kvfs_memtree **root, const void *key, size_t key_len);
/* Remove [lo, hi); hi_len 0: to the end. */
int kvfs_memtree_del_range(struct kvfs_memtree **root, const void *lo, size_t lo_len,
                           const void *hi, size_t hi_len);

/* A walk in order of keys, or against it. */
struct kvfs_memwalk {
    const struct kvfs_memtree **path; /* nodes whose record and far side are yet to come */
    size_t depth, cap;
    bool reverse;
};
/* Start a forward walk at the first key >= BOUND, a reverse one at the last key
 * < BOUND; an empty BOUND is the walk's own end of the tree.  -ENOMEM. */
int kvfs_memwalk_start(struct kvfs_memwalk *w, const struct kvfs_memtree *t, const void *bound,
                       size_t bound_len, bool reverse);
/* *record is the next one, NULL at the end.  -ENOMEM. */
int kvfs_memwalk_next(struct kvfs_memwalk *w, const struct kvfs_memrecord **record);
void kvfs_memwalk_end(struct kvfs_memwalk *w);

/* Check order, priorities and sums below T; call BAD for each node that is
 * wrong.  Recursion is as deep as the tree. */
void kvfs_memtree_check(const struct kvfs_memtree *t,
                        void (*bad)(void *arg, const struct kvfs_memrecord *r, const char *what),
                        void *arg);

#endif /* KVFS_MEMTREE_H */
