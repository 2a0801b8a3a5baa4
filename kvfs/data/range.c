/* SPDX-License-Identifier: BSD-3-Clause
 *
 * range.c - see range.h.  A list: there are only as many holders as threads
 * that write one file.
 */
#include "range.h"

#include <stdbool.h>
#include <stddef.h>

void
kvfs_ranges_init(struct kvfs_ranges *r)
{
    (void)pthread_mutex_init(&r->lock, NULL);
    (void)pthread_cond_init(&r->freed, NULL);
    r->held = NULL;
    r->waiting = 0;
}

void
kvfs_ranges_destroy(struct kvfs_ranges *r)
{
    (void)pthread_cond_destroy(&r->freed);
    (void)pthread_mutex_destroy(&r->lock);
}

static bool
range_is_held(const struct kvfs_ranges *r, uint64_t first, uint64_t last)
{
    for (const struct kvfs_range *h = r->held; h != NULL; h = h->next) {
        if (h->first <= last && first <= h->last)
            return true;
    }
    return false;
}

void
kvfs_range_lock(struct kvfs_ranges *r, struct kvfs_range *range, uint64_t first, uint64_t last)
{
    range->first = first;
    range->last = last;
    (void)pthread_mutex_lock(&r->lock);
    while (range_is_held(r, first, last)) {
        r->waiting++;
        (void)pthread_cond_wait(&r->freed, &r->lock);
        r->waiting--;
    }
    range->next = r->held;
    r->held = range;
    (void)pthread_mutex_unlock(&r->lock);
}

void
kvfs_range_unlock(struct kvfs_ranges *r, struct kvfs_range *range)
{
    (void)pthread_mutex_lock(&r->lock);
    for (struct kvfs_range **p = &r->held; *p != NULL; p = &(*p)->next) {
        if (*p == range) {
            *p = range->next;
            break;
        }
    }
    if (r->waiting > 0)
        (void)pthread_cond_broadcast(&r->freed);
    (void)pthread_mutex_unlock(&r->lock);
}
