/* SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>

#include "random.h"

static uint64_t
random_mix(uint64_t z)
{
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

uint64_t
random_next(uint64_t *state)
{
    return random_mix(*state += 0x9e3779b97f4a7c15u);
}

double
random_unit(uint64_t *state)
{
    return (double)(random_next(state) >> 11) * 0x1p-53;
}

void
random_order_init(struct random_order *o, uint64_t count, uint64_t seed)
{
    *o = (struct random_order){.count = count, .key = random_next(&seed), .half_bits = 1};
    while (o->half_bits < 32 && (uint64_t)1 << 2 * o->half_bits < count)
        o->half_bits++;
}

uint64_t
random_order_at(const struct random_order *o, uint64_t i)
{
    const uint64_t mask = ((uint64_t)1 << o->half_bits) - 1;

    do {
        uint64_t left = i >> o->half_bits, right = i & mask;

        for (uint64_t round = 0; round < 4; round++) {
            uint64_t next = left ^ (random_mix(o->key + (right << 2 | round)) & mask);

            left = right;
            right = next;
        }
        i = left << o->half_bits | right;
    } while (i >= o->count);
    return i;
}

/* The integral of x^-theta from 1, and its inverse. */
static double
zipf_integral(const struct random_zipf *z, double x)
{
    return (pow(x, 1 - z->theta) - 1) / (1 - z->theta);
}

static double
zipf_inverse(const struct random_zipf *z, double y)
{
    return pow(1 + y * (1 - z->theta), 1 / (1 - z->theta));
}

void
random_zipf_init(struct random_zipf *z, uint64_t count, double theta)
{
    *z = (struct random_zipf){.count = count, .theta = theta};
    z->h_first = zipf_integral(z, 1.5) - 1;
    z->h_last = zipf_integral(z, (double)count + 0.5);
    z->cut = 2 - zipf_inverse(z, zipf_integral(z, 2.5) - pow(2, -theta));
}

uint64_t
random_zipf_rank(const struct random_zipf *z, uint64_t *state)
{
    for (;;) {
        double u = z->h_last + random_unit(state) * (z->h_first - z->h_last);
        double x = zipf_inverse(z, u), k = floor(x + 0.5);

        if (k < 1)
            k = 1;
        else if (k > (double)z->count)
            k = (double)z->count;
        if (k - x <= z->cut || u >= zipf_integral(z, k + 0.5) - pow(k, -z->theta))
            return (uint64_t)k - 1;
    }
}
