/* SPDX-License-Identifier: BSD-3-Clause
 *
 * random.h - the choices of a load: numbers, orders, popular keys.
 *
 * None keeps a table, so that a load over many blocks takes no memory beside the store's.
 */
#ifndef KVFS_LOAD_RANDOM_H
#define KVFS_LOAD_RANDOM_H

#include <stdint.h>

/* SplitMix64: good enough that nothing compresses it, and quick. */
uint64_t random_next(uint64_t *state);

/* 0 .. 1, 1 excluded. */
double random_unit(uint64_t *state);

/* An order of 0 .. count-1: a Feistel network over the next power of four, walked until it
 * falls inside. */
struct random_order {
    uint64_t count, key;
    unsigned half_bits;
};
void random_order_init(struct random_order *o, uint64_t count, uint64_t seed);
/* The place of I (below count): each place once. */
uint64_t random_order_at(const struct random_order *o, uint64_t i);

/* Zipf's law with exponent THETA: rank r (0, 1, ...) of COUNT comes with a probability
 * proportional to 1/(r+1)^THETA.  By rejection-inversion, exact for all ranks, where YCSB's own
 * generator is exact for the first two.
 * Source: Hörmann, Derflinger, "Rejection-inversion to generate variates from monotone
 * discrete distributions", 1996. */
struct random_zipf {
    uint64_t count;
    double theta, h_first, h_last, cut;
};
void random_zipf_init(struct random_zipf *z, uint64_t count, double theta); /* theta not 1 */
uint64_t random_zipf_rank(const struct random_zipf *z, uint64_t *state);

#endif /* KVFS_LOAD_RANDOM_H */
