/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_disk.c - the disk against the plain one of model.c; its index; planted bugs.
 *
 * Built twice: with CRASHSIM_TEST_BUGS the same rounds have to find each planted bug.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "map.h"
#include "model.h"
#include "random.h"
#include "spans.h"

#ifdef CRASHSIM_TEST_BUGS

#define ROUNDS_MAX 50

static void
model__planted_bug__found(void **state)
{
    static const char *const names[] = {"", "FUA is a barrier", "an older write over a newer one",
                                        "a flush forgets", "the cache outlives the cut",
                                        "what was not answered never survives"};
    uint64_t seed = model_seed();

    (void)state;
    for (int bug = CRASHSIM_BUG_FUA_BARRIER; bug <= CRASHSIM_BUG_UNANSWERED; bug++) {
        struct model_counts counts = {0};
        unsigned rounds = 0;
        bool found = false;

        crashsim_disk_bug = (enum crashsim_bug)bug;
        while (!found && rounds < ROUNDS_MAX)
            found = !model_round(seed + rounds++, 400, true, &counts);
        printf("%s: %s after %u rounds, %llu cuts\n", names[bug], found ? "found" : "NOT FOUND",
               rounds, (unsigned long long)counts.cuts);
        assert_true(found);
    }
    crashsim_disk_bug = CRASHSIM_BUG_NONE;
    assert_true(model_round(seed, 400, false, &(struct model_counts){0}));
}

#else

static void
model__random_operations_and_cuts__as_the_plain_disk(void **state)
{
    struct model_counts c = {0};
    uint64_t seed = model_seed();
    const char *sanitize = getenv("KVFS_SANITIZE");
    unsigned rounds = (sanitize != NULL && *sanitize != '\0' ? 50 : 250) * model_scale();

    (void)state;
    for (unsigned i = 0; i < rounds; i++)
        assert_true(model_round(seed + i, 400, false, &c));
    printf("%llu cuts: %llu kept (%llu unanswered), %llu torn, %llu dropped; %llu destaged, "
           "%llu FUA, %llu flushes, %llu bytes kept from coming back\n",
           (unsigned long long)c.cuts, (unsigned long long)c.kept,
           (unsigned long long)c.in_flight_kept, (unsigned long long)c.torn,
           (unsigned long long)c.dropped, (unsigned long long)c.destaged,
           (unsigned long long)c.fua, (unsigned long long)c.flushes,
           (unsigned long long)c.kept_away);
    assert_true(c.kept > 100 && c.torn > 100 && c.dropped > 100 && c.in_flight_kept > 100);
    assert_true(c.destaged > 100 && c.fua > 100 && c.flushes > 100 && c.kept_away > 100);
}

static void
map__random_calls__as_an_array(void **state)
{
    uint64_t seed = model_seed(), plain[500] = {0};
    struct crashsim_map m = {0};
    struct crashsim_range range;

    (void)state;
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t start = crashsim_random(&seed) % 500;
        uint64_t end = start + crashsim_random(&seed) % (i % 2 ? 20 : 501 - start);
        uint64_t value = i % 5 == 0 ? 0 : i + 1, at = 0;

        end = end > 500 ? 500 : end;
        assert_int_equal(value == 0 ? crashsim_map_erase(&m, start, end)
                                    : crashsim_map_set(&m, start, end, value), 0);
        for (uint64_t k = start; k < end; k++)
            plain[k] = value;
        if (i % 16 != 0)
            continue;
        while (crashsim_map_next(&m, at, &range)) {
            assert_true(range.start < range.end && range.end <= 500 && range.start >= at);
            for (; at < range.start; at++)
                assert_int_equal(plain[at], 0);
            for (; at < range.end; at++)
                assert_int_equal(plain[at], range.value);
        }
        for (; at < 500; at++)
            assert_int_equal(plain[at], 0);
    }
    crashsim_map_reset(&m);
    assert_int_equal(m.count, 0);
    assert_false(crashsim_map_next(&m, 0, &range));
}

static void
spans__random_calls__as_an_array(void **state)
{
    uint64_t seed = model_seed();
    struct crashsim_spans spans = {0};
    struct crashsim_span all[64], *found;
    bool in[64] = {false};

    (void)state;
    for (unsigned i = 0; i < 50000; i++) {
        uint64_t k = crashsim_random(&seed) % 64, start = crashsim_random(&seed) % 40;
        uint64_t order = crashsim_random(&seed) % 80, end = crashsim_random(&seed) % 80;
        const struct crashsim_span *best = NULL;

        if (in[k]) {
            crashsim_spans_remove(&spans, &all[k]);
        } else {
            all[k] = (struct crashsim_span){.start = start, .end = start + 1 + end % 40, .order = k};
            crashsim_spans_add(&spans, &all[k]);
        }
        in[k] = !in[k];
        for (unsigned n = 0; n < 64; n++) {
            const struct crashsim_span *s = &all[n];

            if (in[n] && s->end > end &&
                (s->start < start || (s->start == start && s->order < order)) &&
                (best == NULL || s->start > best->start ||
                 (s->start == best->start && s->order > best->order)))
                best = s;
        }
        found = crashsim_spans_before(&spans, start, order, end);
        assert_ptr_equal(found, best);
    }
}

/* --- ranges, not bytes; a base that fails --- */

struct plain_base {
    uint64_t zeroed, written;
    int error;
    uint8_t bytes[8192];
};

static int
plain_pread(void *opaque, void *buf, uint32_t count, uint64_t offset)
{
    struct plain_base *b = opaque;

    for (uint32_t i = 0; i < count; i++)
        ((uint8_t *)buf)[i] = offset + i < sizeof(b->bytes) ? b->bytes[offset + i] : 0xee;
    return 0;
}

static int
plain_pwrite(void *opaque, const void *buf, uint32_t count, uint64_t offset)
{
    struct plain_base *b = opaque;

    if (b->error != 0)
        return b->error;
    b->written += count;
    for (uint32_t i = 0; i < count && offset + i < sizeof(b->bytes); i++)
        b->bytes[offset + i] = ((const uint8_t *)buf)[i];
    return 0;
}

static int
plain_zero(void *opaque, uint32_t count, uint64_t offset, bool trim)
{
    struct plain_base *b = opaque;

    (void)offset;
    (void)trim;
    b->zeroed += count;
    return b->error;
}

static struct crashsim_disk *
plain_disk(struct plain_base *b, uint64_t size, uint64_t cache)
{
    struct crashsim_base base = {b, plain_pread, plain_pwrite, plain_zero, NULL};
    struct crashsim_disk *d;

    memset(b, 0, sizeof(*b));
    assert_int_equal(crashsim_disk_new(&base, size, cache, 1, &d), 0);
    return d;
}

static void
plain_change(struct crashsim_disk *d, enum crashsim_kind kind, char byte, uint32_t count,
             uint64_t offset, bool fua)
{
    static uint8_t data[8192];
    struct crashsim_write w = {.kind = kind, .count = count, .offset = offset, .fua = fua};
    uint64_t id, seq;

    if (kind == CRASHSIM_WRITE) {
        memset(data, byte, count);
        w.data = data;
    }
    assert_int_equal(crashsim_disk_submit(d, &w, &id), 0);
    assert_int_equal(crashsim_disk_complete(d, id, &seq), 0);
}

static void
zeros__of_a_terabyte__kept_as_ranges(void **state)
{
    struct plain_base b;
    struct crashsim_disk *d = plain_disk(&b, (uint64_t)1 << 40, 1 << 20);
    struct crashsim_choice choice = {.survive = CRASHSIM_PREFIX, .indexed = true, .index = 100,
                                     .tear = CRASHSIM_TEAR_512};
    struct crashsim_disk_stats stats;
    struct crashsim_cut cut;
    uint8_t byte = 1;

    (void)state;
    for (uint64_t i = 0; i < 256; i++)
        plain_change(d, i % 2 ? CRASHSIM_TRIM : CRASHSIM_ZERO, 0, UINT32_MAX, i << 32, false);
    crashsim_disk_stats(d, &stats);
    assert_true(stats.open == 256 && stats.cache_bytes < 100000 && stats.destaged == 0);
    assert_int_equal(crashsim_disk_read(d, &byte, 1, (uint64_t)77 << 32), 0);
    assert_int_equal(byte, 0);
    assert_int_equal(crashsim_disk_cut(d, &choice, &cut), 0);
    assert_true(cut.kept == 100 && cut.torn == 1 && cut.dropped == 155);
    assert_true(b.written == 0 && b.zeroed >= (uint64_t)100 * UINT32_MAX &&
                b.zeroed < (uint64_t)101 * UINT32_MAX);
    crashsim_disk_free(d);
}

static void
fua__over_an_open_write__never_undone_and_no_barrier(void **state)
{
    struct plain_base b;
    struct crashsim_disk *d = plain_disk(&b, sizeof(b.bytes), 1 << 20);
    struct crashsim_choice keep = {.survive = CRASHSIM_PREFIX, .indexed = true, .index = 9};
    struct crashsim_choice drop = {.survive = CRASHSIM_DROP_ALL};
    struct crashsim_cut cut;

    (void)state;
    plain_change(d, CRASHSIM_WRITE, 'o', 4096, 0, false);
    plain_change(d, CRASHSIM_WRITE, 'n', 512, 1024, true);
    assert_true(b.bytes[1024] == 'n' && b.bytes[0] == 0);
    assert_int_equal(crashsim_disk_cut(d, &keep, &cut), 0);
    assert_true(b.bytes[0] == 'o' && b.bytes[1023] == 'o' && b.bytes[1024] == 'n' &&
                b.bytes[1535] == 'n' && b.bytes[1536] == 'o' && cut.kept == 1);
    assert_int_equal(crashsim_disk_power_on(d), 0);
    plain_change(d, CRASHSIM_WRITE, 'x', 4096, 0, false);
    plain_change(d, CRASHSIM_WRITE, 'y', 512, 4096, true);
    assert_int_equal(crashsim_disk_cut(d, &drop, &cut), 0);
    assert_true(b.bytes[0] == 'o' && b.bytes[4096] == 'y' && cut.dropped == 1);
    crashsim_disk_free(d);
}

/* A disk writes sectors: one that has the second of two small writes has the first too. */
static void
sectors__of_small_writes__never_half_old(void **state)
{
    struct crashsim_choice last = {.survive = CRASHSIM_ONLY_ONE, .indexed = true, .index = 1};
    struct crashsim_choice drop = {.survive = CRASHSIM_DROP_ALL};
    struct plain_base b;
    struct crashsim_disk *d = plain_disk(&b, sizeof(b.bytes), 1 << 20);
    struct crashsim_cut cut;

    (void)state;
    plain_change(d, CRASHSIM_WRITE, 'a', 200, 100, false); /* of one sector, and of two */
    plain_change(d, CRASHSIM_WRITE, 'b', 1000, 250, false);
    assert_int_equal(crashsim_disk_cut(d, &last, &cut), 0);
    assert_true(b.bytes[99] == 0 && b.bytes[100] == 'a' && b.bytes[249] == 'a' &&
                b.bytes[250] == 'b' && b.bytes[1249] == 'b' && b.bytes[1250] == 0);
    assert_int_equal(crashsim_disk_power_on(d), 0);
    plain_change(d, CRASHSIM_WRITE, 'c', 1024, 3584, false);
    plain_change(d, CRASHSIM_WRITE, 'f', 100, 4196, true); /* FUA: its sector, not the one before */
    assert_true(b.bytes[3584] == 0 && b.bytes[4096] == 'c' && b.bytes[4196] == 'f' &&
                b.bytes[4296] == 'c' && b.bytes[4608] == 0);
    assert_int_equal(crashsim_disk_cut(d, &drop, &cut), 0);
    crashsim_disk_free(d);
}

/* What the base took only in part, or not at all, is not told to be durable. */
static unsigned destaged_told;

static void
told_destaged(void *opaque, const struct crashsim_write *w)
{
    (void)opaque;
    (void)w;
    destaged_told++;
}

/* With the square of their number this would not end in the time of the test. */
static void
sectors__of_many_small_writes__cost_about_as_much_as_they_are(void **state)
{
    struct plain_base b;
    struct crashsim_disk *d = plain_disk(&b, (uint64_t)1 << 30, (uint64_t)1 << 40);
    struct crashsim_base sink = {&b, plain_pread, plain_pwrite, plain_zero, NULL};
    struct crashsim_choice choice = {.survive = CRASHSIM_RANDOM};
    struct crashsim_pick pick;
    const size_t n = 60000;

    (void)state;
    for (size_t i = 0; i < n; i++) /* a log, and a counter in front of it that is written in place */
        plain_change(d, CRASHSIM_WRITE, 'a', 100, i % 2 != 0 ? 8 : 1000 + i * 100, false);
    for (choice.seed = 0; choice.seed < 8; choice.seed++) {
        assert_int_equal(crashsim_pick_choose(&pick, &choice, n), 0);
        assert_int_equal(crashsim_disk_peek(d, &pick, &sink), 0);
        crashsim_pick_free(&pick);
    }
    assert_int_equal(crashsim_disk_destage(d, n / 2), 0);
    assert_int_equal(crashsim_disk_destage(d, n / 2), -ENOENT);
    assert_int_equal(crashsim_disk_open_count(d), n - 1);
    crashsim_disk_free(d);
}

static void
base__full__a_full_cache_refuses_and_forgets_nothing(void **state)
{
    struct plain_base b = {0};
    struct crashsim_base base = {&b, plain_pread, plain_pwrite, plain_zero, told_destaged};
    uint8_t data[2048], byte;
    struct crashsim_write w = {.kind = CRASHSIM_WRITE, .count = sizeof(data), .data = data};
    struct crashsim_disk_stats stats;
    struct crashsim_disk *d;
    uint64_t id, seq;

    (void)state;
    assert_int_equal(crashsim_disk_new(&base, sizeof(b.bytes), 4096, 1, &d), 0);
    plain_change(d, CRASHSIM_WRITE, 'a', 2048, 0, false);
    b.error = -ENOSPC;
    memset(data, 'b', sizeof(data));
    assert_int_equal(crashsim_disk_submit(d, &w, &id), 0);
    assert_int_equal(crashsim_disk_complete(d, id, &seq), -ENOSPC);
    assert_true(seq == 0 && destaged_told == 0 && crashsim_disk_open_count(d) == 1);
    assert_int_equal(crashsim_disk_read(d, &byte, 1, 0), 0);
    assert_int_equal(byte, 'a');
    crashsim_disk_stats(d, &stats);
    assert_true(stats.cache_bytes < 4096 && stats.destaged == 0);
    w.count = 512;
    w.fua = true; /* it stays, as one that is open */
    assert_int_equal(crashsim_disk_submit(d, &w, &id), 0);
    assert_int_equal(crashsim_disk_complete(d, id, &seq), -ENOSPC);
    assert_true(seq == 2 && crashsim_disk_open_count(d) == 2);
    b.error = 0;
    plain_change(d, CRASHSIM_WRITE, 'c', 2048, 4096, false);
    assert_true(destaged_told > 0);
    crashsim_disk_free(d);
}

static void
base__fails__told_and_never_served_after_a_cut(void **state)
{
    struct plain_base b;
    struct crashsim_disk *d = plain_disk(&b, sizeof(b.bytes), 1 << 20);
    struct crashsim_choice keep = {.survive = CRASHSIM_PREFIX, .indexed = true, .index = 9};
    struct crashsim_cut cut;
    uint64_t bound;
    uint8_t byte;

    (void)state;
    plain_change(d, CRASHSIM_WRITE, 'a', 4096, 0, false);
    b.error = -ENOSPC;
    assert_int_equal(crashsim_disk_flush_begin(d, &bound), 0);
    assert_int_equal(crashsim_disk_flush(d, bound), -ENOSPC);
    assert_int_equal(crashsim_disk_open_count(d), 1); /* still there to be flushed */
    assert_int_equal(crashsim_disk_read(d, &byte, 1, 0), 0);
    assert_int_equal(byte, 'a');
    b.error = 0;
    assert_int_equal(crashsim_disk_flush(d, bound), 0);
    assert_int_equal(b.bytes[4095], 'a');
    plain_change(d, CRASHSIM_WRITE, 'b', 4096, 0, false);
    b.error = -EIO;
    assert_int_equal(crashsim_disk_cut(d, &keep, &cut), -EIO);
    assert_true(crashsim_disk_is_off(d));
    assert_int_equal(crashsim_disk_power_on(d), -EIO);
    crashsim_disk_free(d);
}

static void
cache__full__stays_below_its_bound(void **state)
{
    struct plain_base b;
    struct crashsim_disk *d = plain_disk(&b, (uint64_t)1 << 30, 100000);
    struct crashsim_disk_stats stats;
    uint64_t seed = 5;

    (void)state;
    for (unsigned i = 0; i < 5000; i++) {
        plain_change(d, CRASHSIM_WRITE, 'a', 512, crashsim_random(&seed) % (1 << 20) * 512,
                     i % 3 == 0);
        crashsim_disk_stats(d, &stats);
        assert_true(stats.cache_bytes <= 100000 + 1024); /* one change is taken in beyond it */
    }
    assert_true(stats.destaged > 1000 && stats.open > 50);
    crashsim_disk_free(d);
}

static void
tear__byte_or_garbage__one_sector_spoilt_and_counted(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct plain_base b;
        struct crashsim_disk *d = plain_disk(&b, sizeof(b.bytes), 1 << 20);
        bool garbage = seed % 2 == 0;
        struct crashsim_choice choice = {
            .survive = CRASHSIM_PREFIX, .indexed = true, .index = 0, .seed = seed,
            .tear = garbage ? CRASHSIM_TEAR_GARBAGE : CRASHSIM_TEAR_BYTE};
        struct crashsim_cut cut;
        unsigned mixed = 0;

        plain_change(d, CRASHSIM_WRITE, 'n', 2048, 1024, false);
        assert_int_equal(crashsim_disk_cut(d, &choice, &cut), 0);
        assert_true(cut.spoilt == 1 && cut.torn == 1);
        for (unsigned s = 0; s < sizeof(b.bytes); s += 512) {
            bool same = memcmp(b.bytes + s, b.bytes + s + 1, 511) == 0;

            mixed += !same;
            if (s < 1024 || s >= 3072)
                assert_true(same && b.bytes[s] == 0);
        }
        assert_int_equal(mixed, 1);
        crashsim_disk_free(d);
    }
}

#endif

int
main(void)
{
    const struct CMUnitTest tests[] = {
#ifdef CRASHSIM_TEST_BUGS
        cmocka_unit_test(model__planted_bug__found),
#else
        cmocka_unit_test(model__random_operations_and_cuts__as_the_plain_disk),
        cmocka_unit_test(map__random_calls__as_an_array),
        cmocka_unit_test(spans__random_calls__as_an_array),
        cmocka_unit_test(zeros__of_a_terabyte__kept_as_ranges),
        cmocka_unit_test(fua__over_an_open_write__never_undone_and_no_barrier),
        cmocka_unit_test(sectors__of_small_writes__never_half_old),
        cmocka_unit_test(sectors__of_many_small_writes__cost_about_as_much_as_they_are),
        cmocka_unit_test(base__full__a_full_cache_refuses_and_forgets_nothing),
        cmocka_unit_test(base__fails__told_and_never_served_after_a_cut),
        cmocka_unit_test(cache__full__stays_below_its_bound),
        cmocka_unit_test(tear__byte_or_garbage__one_sector_spoilt_and_counted),
#endif
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
