/* SPDX-License-Identifier: BSD-3-Clause
 *
 * cuts.c - see cuts.h.
 */
#include "cuts.h"

#include <stdlib.h>

#include "random.h"

static int
cuts_compare(const void *a, const void *b)
{
    size_t x = *(const size_t *)a, y = *(const size_t *)b;

    return x < y ? -1 : x > y;
}

/* Of four instants below END the one with most changes open. */
static size_t
cuts_pick(const struct trace *t, size_t first, size_t end, uint64_t *seed)
{
    size_t n = end > first ? end - first : 1;
    size_t best = first + (size_t)(crashsim_random(seed) % n);

    for (int i = 1; i < 4; i++) {
        size_t at = first + (size_t)(crashsim_random(seed) % n);

        best = trace_open_count(t, at) > trace_open_count(t, best) ? at : best;
    }
    return best;
}

size_t
cuts_at_random(const struct trace *t, size_t first, size_t before, uint64_t seed,
               size_t cuts[CUTS_MAX])
{
    size_t count = CUTS_A_ROUND;

    if (t->count - first < count * 8) /* a short one has few that differ */
        count = 2 + (t->count - first) / 8;
    for (size_t i = 0; i < count; i++)
        cuts[i] = cuts_pick(t, first, i % 2 == 0 ? before : t->count, &seed);
    qsort(cuts, count, sizeof(cuts[0]), cuts_compare);
    return count;
}

/* A flush behind changes. */
static bool
cuts_is_flush(const struct trace *t, size_t at)
{
    return t->events[at].type == 'F' && trace_open_count(t, at) > 0;
}

size_t
cuts_at_flushes(const struct trace *t, size_t first, uint64_t seed, size_t cuts[CUTS_MAX])
{
    size_t left = 0, count = 0;

    for (size_t i = first; i < t->count; i++)
        left += cuts_is_flush(t, i);
    for (size_t i = first; i + 1 < t->count && left > 0 && count < CUTS_MAX - 1; i++) {
        bool flush = cuts_is_flush(t, i);

        if (flush && crashsim_random(&seed) % left < CUTS_MAX - 1 - count)
            cuts[count++] = i;
        left -= flush;
    }
    cuts[count++] = t->count - 1; /* behind the last; there is no later time in the recording */
    return count;
}
