/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Every request of one client against a plain model: any offset, any length.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harness.h"

#define MIB ((size_t)1 << 20)

static const char *const file_disk[] = {"file=disk", "cache=4M", NULL};

struct fixture {
    struct harness h;
    struct nbd_handle *nbd;
    uint8_t *model, *seen;
    size_t size;
};

static void
begin(struct fixture *f, size_t size, uint32_t block_size)
{
    harness_begin(&f->h);
    harness_create(&f->h, "disk", size, block_size);
    harness_start(&f->h, file_disk, NULL);
    f->nbd = harness_connect(&f->h, "");
    f->size = size;
    f->model = calloc(1, size);
    f->seen = malloc(size);
    assert_non_null(f->model);
    assert_non_null(f->seen);
}

static void
end(struct fixture *f)
{
    harness_disconnect(f->nbd);
    assert_int_equal(harness_stop(&f->h), 0);
    harness_end(&f->h);
    free(f->model);
    free(f->seen);
}

static void
compare(struct fixture *f)
{
    for (size_t at = 0; at < f->size; at += 8 * MIB) {
        size_t n = f->size - at < 8 * MIB ? f->size - at : 8 * MIB;

        assert_int_equal(nbd_pread(f->nbd, f->seen + at, n, at, 0), 0);
    }
    for (size_t at = 0; at < f->size; at++) {
        if (f->seen[at] != f->model[at])
            fail_msg("byte %zu is 0x%02x, not 0x%02x", at, f->seen[at], f->model[at]);
    }
}

static void
put(struct fixture *f, size_t offset, size_t count, uint8_t seed, uint32_t flags)
{
    for (size_t i = 0; i < count; i++)
        f->model[offset + i] = (uint8_t)(seed + i * 7 + i / 251) | 1;
    assert_int_equal(nbd_pwrite(f->nbd, f->model + offset, count, offset, flags), 0);
}

static void
clear(struct fixture *f, size_t offset, size_t count, bool trim, uint32_t flags)
{
    memset(f->model + offset, 0, count);
    if (trim)
        assert_int_equal(nbd_trim(f->nbd, count, offset, flags), 0);
    else
        assert_int_equal(nbd_zero(f->nbd, count, offset, flags), 0);
}

static void
random_requests(uint32_t block_size)
{
    struct fixture f;
    uint64_t seed = harness_seed();
    const size_t size = 3 * MIB + (size_t)777 * 512;

    begin(&f, size, block_size);
    for (unsigned i = 0; i < 1500; i++) {
        uint64_t r = harness_random(&seed);
        size_t count = 1 + harness_random(&seed) % ((size_t)1 << (harness_random(&seed) % 18));
        size_t offset = harness_random(&seed) % (size - count + 1);
        uint32_t fua = r % 50 == 0 ? LIBNBD_CMD_FLAG_FUA : 0;

        if (r % 10 < 5) {
            put(&f, offset, count, (uint8_t)r, fua);
        } else if (r % 10 < 8) {
            clear(&f, offset, count, r % 2 == 0, fua);
        } else {
            assert_int_equal(nbd_pread(f.nbd, f.seen, count, offset, 0), 0);
            assert_memory_equal(f.seen, f.model + offset, count);
        }
        if (r % 200 == 0)
            assert_int_equal(nbd_flush(f.nbd, 0), 0);
    }
    compare(&f);
    end(&f);
}

static void
requests__random__as_the_model(void **state)
{
    (void)state;
    random_requests(0);
}

static void
requests__random_512__as_the_model(void **state)
{
    (void)state;
    random_requests(512);
}

static void
requests__random_65536__as_the_model(void **state)
{
    (void)state;
    random_requests(65536);
}

/* Every edge next to, on and across the borders of blocks. */
static void
clear__edges_of_blocks__neighbours_stay(void **state)
{
    static const size_t edges[] = {0,    1,    511,  512,   4095,  4096,  4097,
                                   8191, 8192, 8193, 12287, 12288, 16383, 16384};
    const size_t n = sizeof(edges) / sizeof(edges[0]);
    struct fixture f;

    (void)state;
    begin(&f, 64 << 10, 4096);
    for (unsigned mode = 0; mode < 4; mode++) {
        for (size_t i = 0; i < n; i++) {
            for (size_t j = i + 1; j < n; j++) {
                put(&f, 0, 20000, (uint8_t)(i * n + j), 0);
                if (mode >= 2)
                    assert_int_equal(nbd_flush(f.nbd, 0), 0);
                clear(&f, edges[i], edges[j] - edges[i], mode % 2 == 0, 0);
                assert_int_equal(nbd_pread(f.nbd, f.seen, 20000, 0, 0), 0);
                assert_memory_equal(f.seen, f.model, 20000);
            }
            if (mode >= 2 && i % 4 != 0) /* durable ones are slow: a sample */
                i += 2;
        }
    }
    compare(&f);
    end(&f);
}

static void
requests__32_mib__served_and_more_refused(void **state)
{
    struct fixture f;
    uint8_t byte = 1;
    char *big = calloc(1, 64 * MIB);

    (void)state;
    assert_non_null(big);
    begin(&f, 96 * MIB, 0);
    put(&f, 0, 32 * MIB, 5, 0);
    put(&f, 40 * MIB + 123, 32 * MIB, 6, LIBNBD_CMD_FLAG_FUA);
    assert_int_equal(nbd_pread(f.nbd, f.seen, 32 * MIB, 3, 0), 0);
    assert_memory_equal(f.seen, f.model + 3, 32 * MIB);
    /* It could not be whole in one commit, so it is refused whole. */
    assert_int_equal(nbd_pwrite(f.nbd, big, 32 * MIB + 1, 0, 0), -1);
    assert_int_equal(nbd_get_errno(), EINVAL);
    clear(&f, 10 * MIB + 7, 50 * MIB, false, 0);
    compare(&f);
    /* Past the end. */
    assert_int_equal(nbd_pread(f.nbd, &byte, 1, 96 * MIB, 0), -1);
    assert_int_equal(nbd_get_errno(), EINVAL);
    assert_int_equal(nbd_pwrite(f.nbd, &byte, 1, 96 * MIB, 0), -1);
    assert_true(nbd_get_errno() == EINVAL || nbd_get_errno() == ENOSPC);
    compare(&f);
    end(&f);
    free(big);
}

static void
zero__fast__done(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, 16 * MIB, 0);
    put(&f, 0, 8 * MIB, 9, 0);
    clear(&f, 4096, 4 * MIB, false, LIBNBD_CMD_FLAG_FAST_ZERO);
    clear(&f, 6 * MIB, MIB, false, LIBNBD_CMD_FLAG_FAST_ZERO | LIBNBD_CMD_FLAG_NO_HOLE);
    compare(&f);
    end(&f);
}

static void
cache__any_range__accepted(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, 8 * MIB, 0);
    put(&f, 1, 3 * MIB, 1, 0);
    assert_int_equal(nbd_cache(f.nbd, 8 * MIB, 0, 0), 0);
    assert_int_equal(nbd_flush(f.nbd, 0), 0);
    assert_int_equal(nbd_cache(f.nbd, 1, 17, 0), 0);
    compare(&f);
    end(&f);
}

/* --- block status ---------------------------------------------------------------- */

static void
expect(struct fixture *f, size_t count, size_t offset, const size_t *want, size_t n)
{
    struct harness_extents e;

    /* WANT: lengths, beginning with a hole (0: there is none). */
    harness_block_status(f->nbd, count, offset, &e);
    if (n > 0 && want[0] == 0) {
        want++;
        n--;
        assert_false(e.extent[0].hole);
    } else {
        assert_true(e.extent[0].hole);
    }
    assert_int_equal(e.count, n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(e.extent[i].count, want[i]);
}

static void
status__before_and_after_flush__the_same(void **state)
{
    const size_t one[] = {MIB, 4096, 7 * MIB - 4096};
    const size_t two[] = {MIB, 4096, MIB - 4096, 8192, 6 * MIB - 8192};
    const size_t part[] = {0, 8192, MIB};
    const size_t none[] = {8 * MIB};
    struct fixture f;

    (void)state;
    begin(&f, 8 * MIB, 4096);
    expect(&f, 8 * MIB, 0, none, 1);
    put(&f, MIB + 5, 100, 1, 0); /* one block, in memory */
    expect(&f, 8 * MIB, 0, one, 3);
    assert_int_equal(nbd_flush(f.nbd, 0), 0);
    expect(&f, 8 * MIB, 0, one, 3);
    put(&f, 2 * MIB, 8192, 2, 0); /* one in the store, two in memory */
    expect(&f, 8 * MIB, 0, two, 5);
    expect(&f, MIB + 8192, 2 * MIB, part, 3);
    assert_int_equal(nbd_flush(f.nbd, 0), 0);
    expect(&f, 8 * MIB, 0, two, 5);
    clear(&f, 2 * MIB, MIB, true, 0);
    expect(&f, 8 * MIB, 0, one, 3);
    clear(&f, 0, 8 * MIB, false, 0);
    expect(&f, 8 * MIB, 0, none, 1);
    assert_int_equal(nbd_flush(f.nbd, 0), 0);
    expect(&f, 8 * MIB, 0, none, 1);
    put(&f, 0, 8 * MIB, 3, 0);
    expect(&f, 8 * MIB, 0, (const size_t[]){0, 8 * MIB}, 2);
    compare(&f);
    end(&f);
}

/* Whatever is called a hole reads as zeros, and what was never written is one. */
static void
status__random__holes_are_zeros(void **state)
{
    struct fixture f;
    struct harness_extents e;
    uint64_t seed = harness_seed();

    (void)state;
    begin(&f, 2 * MIB, 4096);
    for (unsigned round = 0; round < 60; round++) {
        size_t at = 0, count = 1 + harness_random(&seed) % 60000;
        size_t offset = harness_random(&seed) % (2 * MIB - count);

        if (round % 3 != 0)
            put(&f, offset, count, (uint8_t)round, 0);
        else
            clear(&f, offset, count * 8 < 2 * MIB - offset ? count * 8 : count, false, 0);
        if (round % 7 == 0)
            assert_int_equal(nbd_flush(f.nbd, 0), 0);
        harness_block_status(f.nbd, 2 * MIB, 0, &e);
        for (unsigned i = 0; i < e.count; i++) {
            for (size_t k = 0; e.extent[i].hole && k < e.extent[i].count; k++)
                assert_int_equal(f.model[at + k], 0);
            at += e.extent[i].count;
        }
        assert_int_equal(at, 2 * MIB);
    }
    compare(&f);
    end(&f);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests__random__as_the_model),
        cmocka_unit_test(requests__random_512__as_the_model),
        cmocka_unit_test(requests__random_65536__as_the_model),
        cmocka_unit_test(clear__edges_of_blocks__neighbours_stay),
        cmocka_unit_test(requests__32_mib__served_and_more_refused),
        cmocka_unit_test(zero__fast__done),
        cmocka_unit_test(cache__any_range__accepted),
        cmocka_unit_test(status__before_and_after_flush__the_same),
        cmocka_unit_test(status__random__holes_are_zeros),
    };

    harness_need_nbdkit();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
