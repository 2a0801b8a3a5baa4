/* SPDX-License-Identifier: BSD-3-Clause
 *
 * layer.h - one generation of unwritten data (layer.c).
 *
 * A layer maps (inode, block) to the block's bytes or "zeros", and knows the
 * large holes made in it and what became of each file's size.  Writers add to
 * it under the overlay's cut lock, shared; once sealed it never changes.
 */
#ifndef KVFS_LAYER_H
#define KVFS_LAYER_H

#include <pthread.h>
#include <stdatomic.h>

#include "volume_priv.h"

#define KVFS_LAYER_SHARDS 64
#define KVFS_LAYER_HOLES_MAX 256 /* large holes in one layer, all files together */
#define KVFS_SLOT_COST 64        /* bytes accounted for an entry besides its block */

struct kvfs_node;

enum kvfs_slot_state { KVFS_SLOT_EMPTY = 0, KVFS_SLOT_DATA, KVFS_SLOT_ZEROS };

struct kvfs_slot {
    uint64_t ino, index;
    uint8_t *bytes;    /* in a chunk; kept when the block turns to zeros */
    uint32_t hole_seq; /* holes of the layer that were there before */
    uint8_t state;     /* enum kvfs_slot_state */
};

struct kvfs_shard {
    pthread_mutex_t lock;
    struct kvfs_slot *slots;
    uint32_t cap, used;
};

struct kvfs_layer_hole { /* covers what the layer got before its number SEQ, and below it */
    uint64_t start, end;
    uint32_t seq;
};

struct kvfs_layer_node { /* one file in one layer */
    struct kvfs_layer_node *next;
    struct kvfs_node *node; /* holds a reference */
    uint64_t ino;
    bool size_set;
    uint64_t size_bytes;
    bool version_set;
    uint64_t version;
    int64_t mtime_ns;
    struct kvfs_layer_hole *holes; /* by seq; changed under the cut lock, exclusive */
    size_t holes_count;
};

struct kvfs_chunk {
    struct kvfs_chunk *next;
    size_t used;
};

struct kvfs_layer {
    struct kvfs_layer *older, *newer; /* the overlay's list of sealed layers */
    uint64_t id;
    unsigned refs;       /* under the overlay's pool lock */
    bool is_txn;         /* fails alone; else it is kept and tried again */
    atomic_int result;   /* of a transaction: 0 or why it failed; set under commit_lock */
    atomic_size_t bytes; /* accounted */
    uint32_t hole_seq;
    uint32_t holes_total;
    atomic_bool entries_after_hole; /* touching holes can no longer be joined */
    struct kvfs_shard shards[KVFS_LAYER_SHARDS];
    pthread_mutex_t lock; /* nodes, chunks */
    struct kvfs_layer_node *nodes;
    struct kvfs_chunk *chunks;
};

/* Make an empty layer; destroy frees its tables (chunks go to the pool first). */
struct kvfs_layer *kvfs_layer_new(void);
void kvfs_layer_free(struct kvfs_layer *l);

/* Put a block's bytes, or zeros (BYTES NULL).  *added: bytes newly accounted.
 * -ENOMEM.  POOL is the overlay's (chunks). */
struct kvfs_overlay;
int kvfs_layer_put(struct kvfs_overlay *o, struct kvfs_layer *l, uint64_t ino, uint64_t index,
                   const void *bytes, size_t block_size, size_t *added);

/* The file's entry in the layer, made if missing; NULL without memory. */
struct kvfs_layer_node *kvfs_layer_node(struct kvfs_layer *l, struct kvfs_node *node);
/* The same, only if it is there. */
struct kvfs_layer_node *kvfs_layer_node_find(const struct kvfs_layer *l, uint64_t ino);

/* Make blocks [start, end) read as zeros; under the cut lock, exclusive.
 * -ENOSPC: the layer has KVFS_LAYER_HOLES_MAX; seal it and use the next. */
int kvfs_layer_hole(struct kvfs_layer *l, struct kvfs_layer_node *ln, uint64_t start,
                    uint64_t end);

/* Look a block up.  EMPTY: the layer says nothing.  DATA: LEN bytes from FROM
 * were copied into BUF, if that is not NULL. */
enum kvfs_slot_state kvfs_layer_get(struct kvfs_layer *l, uint64_t ino, uint64_t index, void *buf,
                                    size_t from, size_t len);

/* The number of the newest hole of LN over a block; 0: none. */
uint32_t kvfs_layer_hole_seq(const struct kvfs_layer_node *ln, uint64_t index);

#endif /* KVFS_LAYER_H */
