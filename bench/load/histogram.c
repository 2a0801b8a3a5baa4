/* SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>

#include "histogram.h"

static unsigned
histogram_index(uint64_t ns)
{
    unsigned power;

    if (ns < HISTOGRAM_SUB)
        return (unsigned)ns;
    power = 63u - (unsigned)__builtin_clzll(ns) - HISTOGRAM_SUB_BITS; /* bits beyond the first 7 */
    if (power + 1 >= HISTOGRAM_POWERS)
        return HISTOGRAM_BUCKETS - 1;
    return (power + 1) * HISTOGRAM_SUB + (unsigned)(ns >> power) - HISTOGRAM_SUB;
}

uint64_t
histogram_upper_ns(unsigned index)
{
    unsigned power = index / HISTOGRAM_SUB;

    if (power <= 1)
        return index;
    return ((uint64_t)(HISTOGRAM_SUB + index % HISTOGRAM_SUB + 1) << (power - 1)) - 1;
}

void
histogram_add(struct histogram *h, uint64_t ns, uint64_t times)
{
    h->buckets[histogram_index(ns)] += times;
    h->count += times;
    if (times > 0 && ns > h->max_ns)
        h->max_ns = ns;
}

void
histogram_merge(struct histogram *to, const struct histogram *from)
{
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        to->buckets[i] += from->buckets[i];
    to->count += from->count;
    if (from->max_ns > to->max_ns)
        to->max_ns = from->max_ns;
}

uint64_t
histogram_percentile_ns(const struct histogram *h, double p)
{
    uint64_t wanted = (uint64_t)ceil(p * (double)h->count), seen = 0, upper;

    if (h->count == 0)
        return 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS - 1; i++) {
        seen += h->buckets[i];
        if (seen >= wanted && seen > 0) {
            upper = histogram_upper_ns(i);
            return upper < h->max_ns ? upper : h->max_ns;
        }
    }
    return h->max_ns;
}
