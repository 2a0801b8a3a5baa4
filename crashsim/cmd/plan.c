/* SPDX-License-Identifier: BSD-3-Clause
 *
 * plan.c - see plan.h.
 */
#include "plan.h"

#include "random.h"

const char *const plan_kind_names[PLAN_KINDS] = {
    "drop-all", "prefix", "leave-one-out", "only-one", "subset",
    "torn-prefix", "torn-leave-one-out", "torn-only-one", "random",
};

static const enum crashsim_survive plan_survive[PLAN_KINDS] = {
    CRASHSIM_DROP_ALL, CRASHSIM_PREFIX, CRASHSIM_LEAVE_ONE_OUT, CRASHSIM_ONLY_ONE, CRASHSIM_SUBSET,
    CRASHSIM_PREFIX, CRASHSIM_LEAVE_ONE_OUT, CRASHSIM_ONLY_ONE, CRASHSIM_RANDOM,
};

/* How many choices KIND has. */
static uint64_t
plan_size(const struct plan *plan, enum plan_kind kind, size_t open)
{
    bool torn = plan->tear != CRASHSIM_TEAR_NONE;

    switch (kind) {
    case PLAN_DROP_ALL:
        return 1;
    case PLAN_PREFIX:
        return open > 0 ? (uint64_t)open + 1 : 0;
    case PLAN_LEAVE_ONE_OUT:
    case PLAN_ONLY_ONE:
        return open;
    case PLAN_SUBSET:
        return open > 0 && open <= CRASHSIM_SUBSET_MAX ? UINT64_C(1) << open : 0;
    case PLAN_TORN_PREFIX:
    case PLAN_TORN_LEAVE_ONE_OUT:
    case PLAN_TORN_ONLY_ONE:
        return torn ? open : 0;
    default: /* small and whole: the subsets were all */
        return open > 0 && (torn || open > CRASHSIM_SUBSET_MAX) ? UINT64_MAX : 0;
    }
}

/* The K-th of N, spread: steps of about N times the golden ratio. */
static uint64_t
plan_spread(uint64_t k, uint64_t n)
{
    uint64_t step = (uint64_t)((double)n * 0.6180339887498949), a, b;

    for (;; step++) { /* one that has no divisor in common with N is near */
        for (a = n, b = step; b != 0;) {
            uint64_t rest = a % b;

            a = b;
            b = rest;
        }
        if (a == 1)
            break;
    }
    return k % n * (step % n) % n;
}

void
plan_visit(struct plan_visit *v, const struct plan *plan, struct plan_cut *c, uint32_t line,
           size_t open, uint64_t quota)
{
    unsigned kinds = 0;

    for (int k = 0; k < PLAN_KINDS; k++) {
        uint64_t size = plan_size(plan, (enum plan_kind)k, open);

        kinds += size > c->taken[k];
    }
    *v = (struct plan_visit){
        .plan = plan, .cut = c, .seed = crashsim_hash2(plan->seed, line), .open = open,
        .share = kinds > 0 && quota / kinds > 0 ? quota / kinds : 1,
    };
    v->left = v->share;
    c->seen = true;
}

bool
plan_next(struct plan_visit *v, struct crashsim_choice *choice, enum plan_kind *kind)
{
    uint64_t size, k, seed;

    for (;; v->kind++, v->left = v->share) {
        if (v->kind == PLAN_KINDS)
            return false;
        size = plan_size(v->plan, v->kind, v->open);
        if (v->left > 0 && v->cut->taken[v->kind] < size)
            break;
    }
    *kind = v->kind;
    v->left--;
    k = v->cut->taken[v->kind]++;
    seed = crashsim_hash2(v->seed, ((uint64_t)v->kind + 1) * (UINT64_C(1) << 56) + k);
    while (v->kind == PLAN_TORN_LEAVE_ONE_OUT || v->kind == PLAN_TORN_ONLY_ONE) {
        *choice = (struct crashsim_choice){.survive = plan_survive[v->kind],
                                           .tear = v->plan->tear, .indexed = true, .seed = seed};
        if (crashsim_choice_fate(choice, 0, 1) == CRASHSIM_TORN)
            break; /* a coin decides whether the odd one is torn */
        seed++;
    }
    *choice = (struct crashsim_choice){
        .survive = plan_survive[v->kind],
        .tear = v->kind >= PLAN_TORN_PREFIX ? v->plan->tear : CRASHSIM_TEAR_NONE,
        .indexed = v->kind != PLAN_DROP_ALL && v->kind != PLAN_RANDOM,
        .seed = seed,
    };
    if (choice->indexed)
        choice->index = size <= v->share ? k : plan_spread(k, size);
    return true;
}

bool
plan_is_exhausted(const struct plan *plan, const struct plan_cut *c, size_t open)
{
    for (int k = 0; k < PLAN_RANDOM; k++) {
        if (c->taken[k] < plan_size(plan, (enum plan_kind)k, open))
            return false;
    }
    return true;
}
