/* SPDX-License-Identifier: BSD-3-Clause
 *
 * range.h - one writer of a block at a time (range.c).
 *
 * A write of part of a block reads the rest of it first; any other write of
 * that block in between would be lost.  So every writer holds the range of
 * blocks that it touches.  Readers do not.
 */
#ifndef KVFS_RANGE_H
#define KVFS_RANGE_H

#include <pthread.h>
#include <stdint.h>

struct kvfs_range { /* on the holder's stack */
    struct kvfs_range *next;
    uint64_t first, last; /* blocks, both included */
};

struct kvfs_ranges {
    pthread_mutex_t lock;
    pthread_cond_t freed;
    struct kvfs_range *held;
    unsigned waiting;
};

void kvfs_ranges_init(struct kvfs_ranges *r);
void kvfs_ranges_destroy(struct kvfs_ranges *r);

/* Wait until no other holds a block of [first, last], then hold them. */
void kvfs_range_lock(struct kvfs_ranges *r, struct kvfs_range *range, uint64_t first,
                     uint64_t last);
void kvfs_range_unlock(struct kvfs_ranges *r, struct kvfs_range *range);

#endif /* KVFS_RANGE_H */
