/* SPDX-License-Identifier: BSD-3-Clause
 *
 * spans.c - see spans.h.  A treap by start and order, in which each node knows where the last of its
 * subtree ends.
 */
#include "spans.h"

#include <stdbool.h>
#include <stddef.h>

#include "random.h"

typedef struct crashsim_span span;

static bool
span_is_before(const span *a, const span *b)
{
    return a->start != b->start ? a->start < b->start : a->order < b->order;
}

static void
span_pull(span *n)
{
    n->max_end = n->end;
    if (n->left != NULL && n->left->max_end > n->max_end)
        n->max_end = n->left->max_end;
    if (n->right != NULL && n->right->max_end > n->max_end)
        n->max_end = n->right->max_end;
}

/* All of T before AT into *L, the others into *R. */
static void
span_split(span *t, const span *at, span **l, span **r)
{
    if (t == NULL) {
        *l = *r = NULL;
        return;
    }
    if (span_is_before(t, at)) {
        *l = t;
        span_split(t->right, at, &t->right, r);
    } else {
        *r = t;
        span_split(t->left, at, l, &t->left);
    }
    span_pull(t);
}

/* L and R, all of L before all of R, as one tree. */
static span *
span_join(span *l, span *r)
{
    if (l == NULL || r == NULL)
        return l != NULL ? l : r;
    if (l->priority > r->priority) {
        l->right = span_join(l->right, r);
        span_pull(l);
        return l;
    }
    r->left = span_join(l, r->left);
    span_pull(r);
    return r;
}

void
crashsim_spans_add(struct crashsim_spans *s, struct crashsim_span *n)
{
    span *l, *r;

    n->left = n->right = NULL;
    n->priority = crashsim_random(&s->random);
    span_pull(n);
    span_split(s->root, n, &l, &r);
    s->root = span_join(span_join(l, n), r);
}

/* T without N, which is in it. */
static span *
span_without(span *t, const span *n)
{
    if (t == n)
        return span_join(t->left, t->right);
    if (span_is_before(n, t))
        t->left = span_without(t->left, n);
    else
        t->right = span_without(t->right, n);
    span_pull(t);
    return t;
}

void
crashsim_spans_remove(struct crashsim_spans *s, struct crashsim_span *n)
{
    s->root = span_without(s->root, n);
}

static span *
span_before(span *t, const span *at, uint64_t end)
{
    span *found = NULL;

    if (t == NULL || t->max_end <= end)
        return NULL;
    if (!span_is_before(t, at))
        return span_before(t->left, at, end);
    found = span_before(t->right, at, end);
    if (found == NULL)
        found = t->end > end ? t : span_before(t->left, at, end);
    return found;
}

struct crashsim_span *
crashsim_spans_before(const struct crashsim_spans *s, uint64_t start, uint64_t order, uint64_t end)
{
    const span at = {.start = start, .order = order};

    return span_before(s->root, &at, end);
}
