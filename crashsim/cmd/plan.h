/* SPDX-License-Identifier: BSD-3-Clause
 *
 * plan.h - which states of a cut are looked at, and in which order.
 *
 * Drop all; each prefix; each one left out; each one alone; all subsets, where at most
 * CRASHSIM_SUBSET_MAX are open; with tears, each prefix, one left out and one alone whose odd one
 * is torn; then seeded random ones without end.  A visit takes some of each kind, spread over the
 * kind; the next visit goes on there, until all have been had.
 */
#ifndef CRASHSIM_PLAN_H
#define CRASHSIM_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "choice.h"

enum plan_kind {
    PLAN_DROP_ALL,
    PLAN_PREFIX,
    PLAN_LEAVE_ONE_OUT,
    PLAN_ONLY_ONE,
    PLAN_SUBSET,
    PLAN_TORN_PREFIX,
    PLAN_TORN_LEAVE_ONE_OUT,
    PLAN_TORN_ONLY_ONE,
    PLAN_RANDOM,
    PLAN_KINDS,
};
extern const char *const plan_kind_names[PLAN_KINDS];

struct plan {
    uint64_t seed;
    enum crashsim_tear tear;
};

/* Of one cut; zeroed memory is a fresh one. */
struct plan_cut {
    uint64_t taken[PLAN_KINDS]; /* so many choices of each kind */
    bool seen;                  /* it was visited */
};

struct plan_visit {
    const struct plan *plan;
    struct plan_cut *cut;
    uint64_t seed; /* of the plan and the cut */
    size_t open;
    uint64_t share, left; /* of each kind; of the present one */
    enum plan_kind kind;
};

/* Visit cut C, behind LINE, where OPEN changes are open, for about QUOTA states. */
void plan_visit(struct plan_visit *v, const struct plan *plan, struct plan_cut *c, uint32_t line,
                size_t open, uint64_t quota);
/* The next choice, of *KIND; false: the visit is over. */
bool plan_next(struct plan_visit *v, struct crashsim_choice *choice, enum plan_kind *kind);
/* Have all been had (but for random ones)? */
bool plan_is_exhausted(const struct plan *plan, const struct plan_cut *c, size_t open);

#endif /* CRASHSIM_PLAN_H */
