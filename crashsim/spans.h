/* SPDX-License-Identifier: BSD-3-Clause
 *
 * spans.h - ranges that may overlap, and which of them meet a range.
 *
 * The caller owns the spans, so that nothing here can fail.  Every call costs O(log n).
 */
#ifndef CRASHSIM_SPANS_H
#define CRASHSIM_SPANS_H

#include <stdint.h>

struct crashsim_span {
    uint64_t start, end; /* [start, end), not empty */
    uint64_t order;      /* no two with one start have the same */
    struct crashsim_span *left, *right;
    uint64_t priority, max_end;
};

/* Zeroed memory has none. */
struct crashsim_spans {
    struct crashsim_span *root;
    uint64_t random; /* shapes the tree, nothing else */
};

/* SPAN with its start, end and order. */
void crashsim_spans_add(struct crashsim_spans *s, struct crashsim_span *span);
/* SPAN is one of them. */
void crashsim_spans_remove(struct crashsim_spans *s, struct crashsim_span *span);

/* The last, by start and then by order, of those before (START, ORDER) that end behind END; or NULL. */
struct crashsim_span *crashsim_spans_before(const struct crashsim_spans *s, uint64_t start,
                                            uint64_t order, uint64_t end);

#endif /* CRASHSIM_SPANS_H */
