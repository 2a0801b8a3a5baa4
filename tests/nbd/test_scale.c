/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Large disks and bounded memory.
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

#define MIB ((uint64_t)1 << 20)
#define GIB ((uint64_t)1 << 30)
#define TIB ((uint64_t)1 << 40)

static const char *const small_cache[] = {"file=disk", "cache=16M", NULL};

/* nbdkit and the engine are allowed this much beside the cache; engines other than the
 * default one may have caches of their own. */
static uint64_t
memory_max(uint64_t cache)
{
    /* Its 64 MiB of cache take 2.8 times that when they are read into, whatever the size of the
     * store (measured: 175 MiB after 256 MiB of data, 184 after 768): engines/rust/README.md. */
    if (strstr(chosen_engine(), "sled") != NULL)
        return 208 * MIB + cache;
    return (chosen_is(CHOSEN_DEFAULT) ? 32 : 96) * MIB + cache;
}

static void
check_memory(const struct harness *h, const char *when)
{
    const char *sanitize = getenv("KVFS_SANITIZE");
    uint64_t used = harness_memory(h);

    if (sanitize != NULL && *sanitize != '\0')
        return; /* its own memory is many times that */
    if (used > memory_max(16 * MIB))
        fail_msg("%s: %llu KiB of memory", when, (unsigned long long)used / 1024);
}

static void
fill_random(uint8_t *buf, size_t count, uint64_t *seed)
{
    for (size_t i = 0; i + 8 <= count; i += 8) {
        uint64_t word = harness_random(seed);

        memcpy(buf + i, &word, 8);
    }
}

static void
write__256_mib_at_random__memory_bounded(void **state)
{
    struct harness h;
    struct nbd_handle *nbd;
    uint64_t seed = harness_seed(), most = 0;
    uint8_t buf[65536], back[65536];

    (void)state;
    harness_begin(&h);
    harness_create(&h, "disk", 256 * MIB, 4096);
    harness_start(&h, small_cache, NULL);
    nbd = harness_connect(&h, "");
    for (unsigned i = 0; i < 4096; i++) {
        /* A permutation of the 4096 places of 64 KiB, plus small ones anywhere. */
        uint64_t place = (uint64_t)i * 2654435761u % 4096;

        fill_random(buf, sizeof(buf), &seed);
        memcpy(buf, &place, sizeof(place));
        assert_int_equal(nbd_pwrite(nbd, buf, sizeof(buf), place * sizeof(buf), 0), 0);
        if (i % 64 == 0) {
            check_memory(&h, "while writing");
            most = harness_memory(&h) > most ? harness_memory(&h) : most;
        }
    }
    assert_int_equal(nbd_flush(nbd, 0), 0);
    check_memory(&h, "after the flush");
    for (uint64_t place = 0; place < 4096; place++) {
        assert_int_equal(nbd_pread(nbd, back, sizeof(back), place * sizeof(back), 0), 0);
        assert_memory_equal(back, &place, sizeof(place));
    }
    check_memory(&h, "after reading");
    printf("most memory: %llu KiB\n", (unsigned long long)most / 1024);
    harness_disconnect(nbd);
    assert_int_equal(harness_stop(&h), 0);
    harness_end(&h);
}

/* Marks on a disk of 1 TiB: a block here and there. */
#define MARKS 64

static uint64_t
mark_place(unsigned i)
{
    return (TIB / MARKS) * i + (uint64_t)i * 12345;
}

static void
write_marks(struct nbd_handle *nbd)
{
    for (unsigned i = 0; i < MARKS; i++)
        assert_int_equal(nbd_pwrite(nbd, "mark", 4, mark_place(i), 0), 0);
}

static void
expect_marks(struct nbd_handle *nbd, const char *want)
{
    char buf[4];

    for (unsigned i = 0; i < MARKS; i++) {
        assert_int_equal(nbd_pread(nbd, buf, 4, mark_place(i), 0), 0);
        assert_memory_equal(buf, want, 4);
    }
}

/* Trim or zero all of a disk of 1 TiB in pieces of PIECE bytes. */
static void
clear_all(struct harness *h, struct nbd_handle *nbd, uint64_t piece, bool trim)
{
    for (uint64_t at = 0; at < TIB; at += piece) {
        uint64_t n = TIB - at < piece ? TIB - at : piece;

        if ((trim ? nbd_trim(nbd, n, at, 0) : nbd_zero(nbd, n, at, 0)) < 0)
            fail_msg("at %llu: %s", (unsigned long long)at, nbd_get_error());
    }
    check_memory(h, "after clearing");
}

static void
clear__1_tib__any_pieces_bounded_memory(void **state)
{
    static const struct {
        uint64_t piece;
        bool trim;
    } ways[] = {
        {4 * GIB - 4096, true},
        {4 * GIB - 512, false},
        {3 * GIB + 12345, true},
        {777 * MIB + 1, false},
    };
    struct harness h;
    struct nbd_handle *nbd;
    struct harness_extents e;

    (void)state;
    harness_begin(&h);
    harness_create(&h, "disk", TIB, 4096);
    harness_start(&h, small_cache, NULL);
    nbd = harness_connect(&h, "");
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        write_marks(nbd);
        expect_marks(nbd, "mark");
        if (i % 2 == 0)
            assert_int_equal(nbd_flush(nbd, 0), 0);
        clear_all(&h, nbd, ways[i].piece, ways[i].trim);
        expect_marks(nbd, "\0\0\0\0");
        assert_int_equal(nbd_flush(nbd, 0), 0);
        expect_marks(nbd, "\0\0\0\0");
    }
    harness_block_status(nbd, TIB, 0, &e);
    assert_int_equal(e.count, 1);
    assert_true(e.extent[0].hole);
    /* Visible at once, and no old byte comes back. */
    write_marks(nbd);
    assert_int_equal(nbd_flush(nbd, 0), 0);
    harness_kill(&h);
    nbd_close(nbd);
    harness_start(&h, small_cache, NULL);
    nbd = harness_connect(&h, "");
    expect_marks(nbd, "mark");
    harness_disconnect(nbd);
    assert_int_equal(harness_stop(&h), 0);
    harness_end(&h);
}

static void
open__largest_file__its_last_byte_works(void **state)
{
    struct harness h;
    struct nbd_handle *nbd;
    uint64_t size = INT64_MAX;
    char byte = 0;

    (void)state;
    harness_begin(&h);
    harness_create(&h, "disk", size, 4096);
    harness_start(&h, small_cache, NULL);
    nbd = harness_connect(&h, "");
    assert_int_equal(nbd_get_size(nbd), size);
    assert_int_equal(nbd_pwrite(nbd, "z", 1, size - 1, LIBNBD_CMD_FLAG_FUA), 0);
    assert_int_equal(nbd_pread(nbd, &byte, 1, size - 1, 0), 0);
    assert_int_equal(byte, 'z');
    assert_int_equal(nbd_trim(nbd, GIB, size - GIB, 0), 0);
    assert_int_equal(nbd_pread(nbd, &byte, 1, size - 1, 0), 0);
    assert_int_equal(byte, 0);
    harness_disconnect(nbd);
    assert_int_equal(harness_stop(&h), 0);
    harness_end(&h);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(write__256_mib_at_random__memory_bounded),
        cmocka_unit_test(clear__1_tib__any_pieces_bounded_memory),
        cmocka_unit_test(open__largest_file__its_last_byte_works),
    };

    harness_need_nbdkit();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
