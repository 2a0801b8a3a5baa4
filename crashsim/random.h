/* SPDX-License-Identifier: BSD-3-Clause
 *
 * random.h - numbers that follow from a seed alone.
 */
#ifndef CRASHSIM_RANDOM_H
#define CRASHSIM_RANDOM_H

#include <stdint.h>

/* splitmix64: what follows from X, well mixed. */
static inline uint64_t
crashsim_hash(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* The same of two numbers, for a choice that must not depend on the order of asking. */
static inline uint64_t
crashsim_hash2(uint64_t a, uint64_t b)
{
    return crashsim_hash(crashsim_hash(a) ^ (b * 0xff51afd7ed558ccdu));
}

/* The next number of a sequence. */
static inline uint64_t
crashsim_random(uint64_t *state)
{
    uint64_t x = *state;

    *state += 0x9e3779b97f4a7c15u;
    return crashsim_hash(x);
}

#endif /* CRASHSIM_RANDOM_H */
