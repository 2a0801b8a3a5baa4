/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The parts of a load that can be judged by numbers known before: histogram, orders, Zipf, data.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "data.h"
#include "histogram.h"
#include "random.h"
#include "words.h"

static uint64_t test_seed;

static int
u64_cmp(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* --- histogram --- */

static void
histogram__every_power__upper_end_within_2_percent(void **state)
{
    (void)state;
    for (uint64_t ns = 1; ns < (uint64_t)1 << 40; ns = ns * 5 / 4 + 1) {
        struct histogram *h = calloc(1, sizeof(*h));
        unsigned at = 0;

        assert_non_null(h);
        histogram_add(h, ns, 3);
        while (h->buckets[at] == 0)
            at++;
        assert_int_equal(h->buckets[at], 3);
        assert_true(histogram_upper_ns(at) >= ns);
        assert_true((double)histogram_upper_ns(at) <= (double)ns * 1.02);
        if (at > 0)
            assert_true(histogram_upper_ns(at - 1) < ns);
        free(h);
    }
}

static void
histogram__known_values__percentiles_as_exact(void **state)
{
    enum { COUNT = 100000 };
    static const double shares[] = {0.001, 0.5, 0.9, 0.99, 0.999, 1};
    struct histogram *h = calloc(2, sizeof(*h));
    uint64_t *values = calloc(COUNT, sizeof(*values)), random = test_seed;

    (void)state;
    assert_true(h != NULL && values != NULL);
    for (size_t i = 0; i < COUNT; i++) {
        values[i] = (uint64_t)exp(4 + 16 * random_unit(&random)); /* 55 ns to 0.5 s */
        histogram_add(&h[i % 2], values[i], 1);
    }
    histogram_merge(&h[0], &h[1]);
    qsort(values, COUNT, sizeof(*values), u64_cmp);
    assert_int_equal(h->count, COUNT);
    assert_int_equal(h->max_ns, values[COUNT - 1]);
    for (size_t i = 0; i < sizeof(shares) / sizeof(shares[0]); i++) {
        uint64_t exact = values[(size_t)ceil(shares[i] * COUNT) - 1];
        uint64_t told = histogram_percentile_ns(h, shares[i]);

        assert_true(told >= exact && (double)told <= (double)exact * 1.02);
    }
    free(values);
    free(h);
}

static void
histogram__empty_and_huge__zero_and_longest(void **state)
{
    struct histogram *h = calloc(1, sizeof(*h));

    (void)state;
    assert_non_null(h);
    assert_int_equal(histogram_percentile_ns(h, 0.99), 0);
    histogram_add(h, 0, 1);
    assert_int_equal(histogram_percentile_ns(h, 0.5), 0);
    histogram_add(h, UINT64_MAX, 1);
    assert_true(histogram_percentile_ns(h, 1) == UINT64_MAX);
    free(h);
}

/* --- random --- */

static void
order__any_count__each_place_once(void **state)
{
    static const uint64_t counts[] = {1, 2, 3, 5, 64, 1000, 65537};

    (void)state;
    for (size_t c = 0; c < sizeof(counts) / sizeof(counts[0]); c++) {
        uint8_t *seen = calloc(counts[c], 1);
        struct random_order o;
        uint64_t stayed = 0;

        assert_non_null(seen);
        random_order_init(&o, counts[c], test_seed + c);
        for (uint64_t i = 0; i < counts[c]; i++) {
            uint64_t at = random_order_at(&o, i);

            assert_true(at < counts[c]);
            assert_int_equal(seen[at]++, 0);
            stayed += at == i;
        }
        assert_true(counts[c] < 64 || stayed < counts[c] / 4); /* not the identity */
        free(seen);
    }
}

static void
zipf__top_ranks__frequency_as_the_law(void **state)
{
    enum { COUNT = 100000, DRAWS = 2000000, TOP = 10 };
    uint64_t hits[TOP] = {0}, head = 0, random = test_seed;
    struct random_zipf z;
    double sum = 0, head_sum = 0;

    (void)state;
    random_zipf_init(&z, COUNT, 0.99);
    for (int i = 0; i < DRAWS; i++) {
        uint64_t rank = random_zipf_rank(&z, &random);

        assert_true(rank < COUNT);
        if (rank < TOP)
            hits[rank]++;
        head += rank < COUNT / 100;
    }
    for (int r = COUNT; r >= 1; r--) {
        sum += pow(r, -0.99);
        if (r == COUNT / 100)
            head_sum = -sum; /* of all behind the first hundredth, and it */
    }
    head_sum += sum + pow(COUNT / 100.0, -0.99);
    for (int r = 0; r < TOP; r++) {
        double expected = DRAWS * pow(r + 1, -0.99) / sum;

        assert_true(fabs((double)hits[r] - expected) < 6 * sqrt(expected));
    }
    assert_true(fabs((double)head - DRAWS * head_sum / sum) < 6 * sqrt((double)head));
}

static void
zipf__few_keys__all_in_range(void **state)
{
    uint64_t random = test_seed;
    struct random_zipf z;

    (void)state;
    for (uint64_t count = 1; count < 5; count++) {
        random_zipf_init(&z, count, 0.99);
        for (int i = 0; i < 1000; i++)
            assert_true(random_zipf_rank(&z, &random) < count);
    }
}

/* --- data --- */

static void
data__block__right_at_its_place_only(void **state)
{
    struct load_dataset d = {.blocks = 100, .block_bytes = 8192, .half = true, .seed = test_seed};
    uint8_t *bytes = calloc(2, d.block_bytes);
    uint64_t random = test_seed;

    (void)state;
    assert_non_null(bytes);
    assert_false(load_data_right(&d, 0, 1, bytes));
    d.sparse = true;
    assert_true(load_data_right(&d, 0, 2, bytes));
    load_data_make(&d, 7, 2, &random, bytes);
    assert_true(load_data_right(&d, 7, 2, bytes));
    assert_false(load_data_right(&d, 8, 1, bytes));
    assert_true(load_data_right(&d, 8, 1, bytes + d.block_bytes));
    for (uint32_t at = 0; at < 2 * d.block_bytes; at += 4096)
        for (uint32_t i = 2048; i < 4096; i++)
            assert_int_equal(bytes[at + i], 0);
    free(bytes);
}

/* --- words --- */

static void
words__bad__refused(void **state)
{
    static const char *const bad[] = {"", "-1", "+1", " 1", "1 ", "1X", "1KK", "0x1", "17", "1K",
                                      "99999999999999999999", "18446744073709551615K"};
    struct kvfs_error err = {.code = 0};
    uint64_t n = 99;
    double s = 99;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_true(word_number("x", bad[i], 1, 16, &n, &err) < 0);
    assert_int_equal(n, 99);
    assert_int_equal(word_number("x", "16M", 1, UINT64_MAX, &n, &err), 0);
    assert_int_equal(n, 16 << 20);
    assert_true(word_seconds("x", "-1", 10, &s, &err) < 0);
    assert_true(word_seconds("x", "nan", 10, &s, &err) < 0);
    assert_true(word_seconds("x", "11", 10, &s, &err) < 0);
    assert_int_equal(word_seconds("x", "0.25", 10, &s, &err), 0);
    assert_true(s > 0.24 && s < 0.26);
}

int
main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(histogram__every_power__upper_end_within_2_percent),
        cmocka_unit_test(histogram__known_values__percentiles_as_exact),
        cmocka_unit_test(histogram__empty_and_huge__zero_and_longest),
        cmocka_unit_test(order__any_count__each_place_once),
        cmocka_unit_test(zipf__top_ranks__frequency_as_the_law),
        cmocka_unit_test(zipf__few_keys__all_in_range),
        cmocka_unit_test(data__block__right_at_its_place_only),
        cmocka_unit_test(words__bad__refused),
    };
    const char *seed = getenv("KVFS_SEED"); // NOLINT(concurrency-mt-unsafe): alone

    test_seed = seed != NULL ? strtoull(seed, NULL, 10) : 1;
    (void)printf("KVFS_SEED=%llu\n", (unsigned long long)test_seed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
