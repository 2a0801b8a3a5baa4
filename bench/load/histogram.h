/* SPDX-License-Identifier: BSD-3-Clause
 *
 * histogram.h - how long operations took, in log-linear buckets.
 *
 * Durations below 64 ns have a bucket each; above, every power of two is divided into 64,
 * so a bucket's upper end is at most 1/64 (1.6 %) above what fell into it.  As HdrHistogram.
 */
#ifndef KVFS_LOAD_HISTOGRAM_H
#define KVFS_LOAD_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_SUB_BITS 6u
#define HISTOGRAM_SUB      (1u << HISTOGRAM_SUB_BITS)
#define HISTOGRAM_POWERS   36u /* up to 2^41 ns, 36 minutes; longer ones count as that */
#define HISTOGRAM_BUCKETS  (HISTOGRAM_SUB * HISTOGRAM_POWERS)

/* All zeros: empty. */
struct histogram {
    uint64_t count, max_ns;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

/* TIMES operations took NS each. */
void histogram_add(struct histogram *h, uint64_t ns, uint64_t times);
void histogram_merge(struct histogram *to, const struct histogram *from);

/* The largest duration that falls into bucket INDEX. */
uint64_t histogram_upper_ns(unsigned index);

/* The duration that a share P (0 .. 1) of the operations did not exceed: the upper end
 * of its bucket, and never more than the longest.  0 when empty. */
uint64_t histogram_percentile_ns(const struct histogram *h, double p);

#endif /* KVFS_LOAD_HISTOGRAM_H */
