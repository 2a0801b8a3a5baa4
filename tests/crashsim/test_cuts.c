/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_cuts.c - the instants at which a recording is cut.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "cuts.h"

/* Changes between FLUSHES flushes, of which every other one has nothing before it; a cut ends it. */
static struct trace
recording(size_t flushes)
{
    struct trace t = {.events = calloc(flushes * 3 + 1, sizeof(struct trace_event))};

    for (size_t i = 0; i < flushes; i++) {
        if (i % 2 == 0) {
            t.events[t.count++] = (struct trace_event){.type = 'S', .open = 1};
            t.events[t.count++] = (struct trace_event){.type = 'C', .open = 1};
        }
        t.events[t.count++] = (struct trace_event){.type = 'F', .bound = 1};
    }
    t.events[t.count++] = (struct trace_event){.type = 'X'};
    return t;
}

static void
cuts_at_flushes__few__each_that_has_changes_and_the_end(void **state)
{
    struct trace t = recording(60);
    size_t cuts[CUTS_MAX];

    (void)state;
    for (uint64_t seed = 1; seed < 20; seed++) {
        assert_int_equal(cuts_at_flushes(&t, 0, seed, cuts), 31);
        for (size_t i = 0; i < 30; i++)
            assert_int_equal(cuts[i], 4 * i + 2);
        assert_int_equal(cuts[30], t.count - 1); /* a cut later than that never was */
    }
    assert_int_equal(cuts_at_flushes(&t, 7, 1, cuts), 29);
    assert_int_equal(cuts[0], 10);
    free(t.events);
}

static void
cuts_at_flushes__many__as_many_as_fit_each_once(void **state)
{
    struct trace t = recording(2000);
    size_t cuts[CUTS_MAX], late = 0;

    (void)state;
    for (uint64_t seed = 1; seed < 20; seed++) {
        assert_int_equal(cuts_at_flushes(&t, 0, seed, cuts), CUTS_MAX);
        for (size_t i = 0; i + 1 < CUTS_MAX; i++) {
            assert_true(cuts[i] < cuts[i + 1]);
            assert_int_equal(cuts[i] % 4, 2);
            late += cuts[i] > t.count / 2;
        }
    }
    assert_in_range(late, 900, 1500); /* of 2413: from all of it */
    free(t.events);
}

static void
cuts_at_random__any__within_the_recording(void **state)
{
    struct trace t = recording(60);
    size_t cuts[CUTS_MAX];

    (void)state;
    for (uint64_t seed = 1; seed < 20; seed++) {
        size_t count = cuts_at_random(&t, 5, 20, seed, cuts), before = 0;

        assert_in_range(count, 1, CUTS_A_ROUND);
        for (size_t i = 0; i < count; i++) {
            assert_in_range(cuts[i], i == 0 ? 5 : cuts[i - 1], t.count - 1);
            before += cuts[i] < 20;
        }
        assert_true(before >= count / 2);
    }
    free(t.events);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cuts_at_flushes__few__each_that_has_changes_and_the_end),
        cmocka_unit_test(cuts_at_flushes__many__as_many_as_fit_each_once),
        cmocka_unit_test(cuts_at_random__any__within_the_recording),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
