/* SPDX-License-Identifier: BSD-3-Clause
 *
 * pace.h - how fast batches may be logged, and how fast a fold goes down (pace.c).
 */
#ifndef KVFS_LOG_PACE_H
#define KVFS_LOG_PACE_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

struct log_pace {
    pthread_mutex_t lock;
    uint64_t limit_bytes; /* of the ring that may be unfolded */
    /* Writers: bytes of the ring a second, the window that is being counted, and when the
     * next group may go, and when one was slowed last. */
    double in_rate;
    uint64_t window_ns, window_bytes, next_ns, slowed_ns;
    /* The fold that goes on: bytes still to bring down (0: none), and what lately went down
     * in how many nanoseconds. */
    uint64_t left_bytes;
    double out_bytes, out_ns;
};

void kvfs_log_pace_init(struct log_pace *p, uint64_t limit_bytes);

/* A clock that only goes forwards, nanoseconds. */
uint64_t kvfs_log_pace_now(void);

/* Of a ring of RING bytes, what may be used before batches wait for a whole fold. */
uint64_t kvfs_log_pace_room(struct log_pace *p, uint64_t ring);

/* A group takes BYTES of the ring, SPACE are left at NOW: the nanoseconds that it has to wait
 * first. */
uint64_t kvfs_log_pace_group(struct log_pace *p, uint64_t bytes, uint64_t space, uint64_t now);

/* A fold of BYTES begins, 0: is over; a piece of BYTES went down in TOOK nanoseconds.  The
 * answer: for how many nanoseconds the device may be left to others, SPACE being left. */
void kvfs_log_pace_fold(struct log_pace *p, uint64_t bytes);
uint64_t kvfs_log_pace_piece(struct log_pace *p, uint64_t bytes, uint64_t took, uint64_t space);

/* The pieces that a fold should make now: of PIECE bytes, larger while writers are slowed. */
size_t kvfs_log_pace_size(struct log_pace *p, size_t piece);

/* Take the limit from what the device below file PATH reads in 100 ms.  Takes up to 50 ms. */
void kvfs_log_pace_measure(struct log_pace *p, const char *path);

#endif /* KVFS_LOG_PACE_H */
