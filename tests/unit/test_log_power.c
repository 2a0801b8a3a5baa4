/* SPDX-License-Identifier: BSD-3-Clause
 *
 * A log in front of an engine whose power can be cut (power_world.h), its own file on a medium
 * that loses what was not flushed (file_cut.h): at every step of either.  Then the same with
 * each rule of engines/log broken: found.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "file_cut.h"
#include "power_world.h"

#define LOG_STORES     300u
#define LOG_BUG_STORES 2000u /* it is found long before */

static void
power_cut__at_any_step__state_of_one_batch(void **state)
{
    static const char *const params[] = {
        "log-size=65536,log-piece=1", /* folds of many pieces, many of them */
        "log-size=262144,log-first=65536", /* a ring that grows */
    };
    struct power *p = *state;

    for (size_t i = 0; i < sizeof(params) / sizeof(params[0]); i++) {
        power_run(p, params[i], LOG_STORES);
        if (p->wrong[0] != '\0')
            fail_msg("%s: %s", params[i], p->wrong);
    }
}

static void
power_cut__a_rule_is_broken__found(void **state)
{
    static const char *const bugs[] = {"no-flush", "tail-early", "no-check", "old-lap",
                                       "lost-range"};
    struct power *p = *state;

    for (size_t i = 0; i < sizeof(bugs) / sizeof(bugs[0]); i++) {
        char params[96];

        (void)snprintf(params, sizeof(params), "log-size=65536,log-piece=1,unsafe-log-bug=%s",
                       bugs[i]);
        power_run(p, params, LOG_BUG_STORES);
        if (p->wrong[0] == '\0')
            fail_msg("KVFS_SEED=%llu: the bug %s was not found", (unsigned long long)p->seed,
                     bugs[i]);
    }
}

static int
log_setup(void **state)
{
    static struct power p = {.repeats = true, .files = file_cut_power, .files_new = file_cut_new};

    power_setup(&p, "log:cut");
    file_cut_use(p.step, p.control);
    *state = &p;
    return 0;
}

static int
log_teardown(void **state)
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
    };

    return cmocka_run_group_tests(tests, log_setup, log_teardown);
}
