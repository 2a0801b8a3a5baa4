/* SPDX-License-Identifier: BSD-3-Clause
 *
 * map.c - see map.h.  A treap: a search tree by start that is a heap by a random priority.
 *
 * 1. Ranges are never empty and never overlap, so that they are sorted by their ends too.
 * 2. What a call may need is allocated before it changes anything.
 */
#include "map.h"

#include <errno.h>
#include <stdlib.h>

#include "random.h"

struct crashsim_map_node {
    struct crashsim_range range;
    uint64_t priority;
    struct crashsim_map_node *left, *right;
};

typedef struct crashsim_map_node node;

/* All of T whose start is below AT into *L, the others into *R. */
static void
map_split(node *t, uint64_t at, node **l, node **r)
{
    while (t != NULL) {
        if (t->range.start < at) {
            *l = t;
            l = &t->right;
            t = t->right;
        } else {
            *r = t;
            r = &t->left;
            t = t->left;
        }
    }
    *l = *r = NULL;
}

/* L and R, all of L below all of R, as one tree. */
static node *
map_join(node *l, node *r)
{
    node *root, **at = &root;

    while (l != NULL && r != NULL) {
        if (l->priority > r->priority) {
            *at = l;
            at = &l->right;
            l = l->right;
        } else {
            *at = r;
            at = &r->left;
            r = r->left;
        }
    }
    *at = l != NULL ? l : r;
    return root;
}

static void
map_insert(struct crashsim_map *m, node *n, uint64_t start, uint64_t end, uint64_t value)
{
    node *l, *r;

    *n = (node){.range = {.start = start, .end = end, .value = value},
                .priority = crashsim_random(&m->random)};
    map_split(m->root, start, &l, &r);
    m->root = map_join(map_join(l, n), r);
    m->count++;
}

/* The node of the first range that ends behind AT. */
static node *
map_find(const struct crashsim_map *m, uint64_t at)
{
    node *found = NULL;

    for (node *n = m->root; n != NULL;) {
        if (n->range.end > at) {
            found = n;
            n = n->left;
        } else {
            n = n->right;
        }
    }
    return found;
}

static void
map_remove(struct crashsim_map *m, node *n)
{
    node *l, *mid, *r;

    map_split(m->root, n->range.start, &l, &mid);
    map_split(mid, n->range.end, &mid, &r); /* no other starts inside it */
    m->root = map_join(l, r);
    m->count--;
    free(mid);
}

/* SPARE is used, and *SPARE set to NULL, if a range is cut in two. */
static void
map_cut(struct crashsim_map *m, uint64_t start, uint64_t end, node **spare)
{
    node *n;

    while ((n = map_find(m, start)) != NULL && n->range.start < end) {
        struct crashsim_range old = n->range;

        if (old.start < start) {
            n->range.end = start;
            if (old.end > end && *spare != NULL) {
                map_insert(m, *spare, end, old.end, old.value);
                *spare = NULL;
            }
        } else if (old.end > end) {
            n->range.start = end; /* still in front of the next */
            break;
        } else {
            map_remove(m, n);
        }
    }
}

int
crashsim_map_set(struct crashsim_map *m, uint64_t start, uint64_t end, uint64_t value)
{
    node *fresh, *spare;

    if (start >= end)
        return 0;
    fresh = malloc(sizeof(*fresh));
    spare = malloc(sizeof(*spare));
    if (fresh == NULL || spare == NULL) {
        free(fresh);
        free(spare);
        return -ENOMEM;
    }
    map_cut(m, start, end, &spare);
    map_insert(m, fresh, start, end, value);
    free(spare);
    return 0;
}

int
crashsim_map_erase(struct crashsim_map *m, uint64_t start, uint64_t end)
{
    node *spare;

    if (start >= end || m->root == NULL)
        return 0;
    spare = malloc(sizeof(*spare));
    if (spare == NULL)
        return -ENOMEM;
    map_cut(m, start, end, &spare);
    free(spare);
    return 0;
}

bool
crashsim_map_next(const struct crashsim_map *m, uint64_t at, struct crashsim_range *range)
{
    const node *n = map_find(m, at);

    if (n == NULL)
        return false;
    *range = n->range;
    return true;
}

void
crashsim_map_reset(struct crashsim_map *m)
{
    node *n = m->root;

    while (n != NULL) { /* turn it into a list to the right */
        node *left = n->left, *next;

        if (left != NULL) {
            n->left = left->right;
            left->right = n;
            n = left;
            continue;
        }
        next = n->right;
        free(n);
        n = next;
    }
    m->root = NULL;
    m->count = 0;
}
