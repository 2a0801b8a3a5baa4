/* SPDX-License-Identifier: BSD-3-Clause
 *
 * A hybrid of two engines whose power can be cut (power_world.h), at every step of either.
 * Then the same with each rule of engines/hybrid/apply.c broken: found.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "power_world.h"

static void
power_cut__at_any_step__state_of_one_batch(void **state)
{
    struct power *p = *state;

    power_run(p, "intents-bytes=300", POWER_STORES);
    if (p->wrong[0] != '\0')
        fail_msg("%s", p->wrong);
    power_run(p, "", POWER_STORES);
    if (p->wrong[0] != '\0')
        fail_msg("%s", p->wrong);
}

/* A death while META takes intents, another while they are replayed, and a power cut. */
static void
power_cut__seeds_that_found_something__state_of_one_batch(void **state)
{
    static const uint64_t seeds[] = {776234874, 178617547};
    struct power *p = *state;

    for (size_t i = 0; i < sizeof(seeds) / sizeof(seeds[0]); i++) {
        p->number = 0;
        p->seed = p->random = p->control->random = seeds[i];
        power_run(p, "intents-bytes=300", POWER_STORES);
        if (p->wrong[0] == '\0')
            power_run(p, "", POWER_STORES);
        if (p->wrong[0] != '\0')
            fail_msg("%s", p->wrong);
    }
}

static void
power_cut__a_rule_is_broken__found(void **state)
{
    static const char *const bugs[] = {"no-intent", "data-first", "forget-early", "meta-unsynced",
                                       "data-unsynced"};
    struct power *p = *state;

    for (size_t i = 0; i < sizeof(bugs) / sizeof(bugs[0]); i++) {
        char params[64];

        (void)snprintf(params, sizeof(params), "intents-bytes=300,unsafe-bug=%s", bugs[i]);
        power_run(p, params, POWER_STORES);
        if (p->wrong[0] == '\0')
            fail_msg("KVFS_SEED=%llu: the bug %s was not found", (unsigned long long)p->seed,
                     bugs[i]);
    }
}

static int
hybrid_setup(void **state)
{
    static struct power p = {.ordered_is_durable = true};

    power_setup(&p, "hybrid:cut+cut");
    *state = &p;
    return 0;
}

static int
hybrid_teardown(void **state)
{
    power_teardown(*state);
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(power_cut__at_any_step__state_of_one_batch),
        cmocka_unit_test(power_cut__a_rule_is_broken__found),
        cmocka_unit_test(power_cut__seeds_that_found_something__state_of_one_batch),
    };

    return cmocka_run_group_tests(tests, hybrid_setup, hybrid_teardown);
}
