/* SPDX-License-Identifier: BSD-3-Clause
 *
 * A medium that is full, and one that is read-only.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <time.h>

#include <cmocka.h>

#include "harness.h"

#define MIB ((size_t)1 << 20)

static const char *const small_cache[] = {"file=disk", "cache=4M", NULL};

/* What piece I of the disk is filled with; never the same twice. */
static void
fill(uint8_t *buf, uint64_t i)
{
    uint64_t seed = i;

    for (size_t at = 0; at < MIB; at += 8) {
        uint64_t word = harness_random(&seed);

        memcpy(buf + at, &word, 8);
    }
}

static void
expect_piece(struct nbd_handle *nbd, uint8_t *buf, uint8_t *want, uint64_t i)
{
    fill(want, i);
    assert_int_equal(nbd_pread(nbd, buf, MIB, i * MIB, 0), 0);
    assert_memory_equal(buf, want, MIB);
}

/* Write piece by piece until there is no room.  What was answered must be
 * flushable: nobody else takes space here.  The number of whole pieces. */
static uint64_t
fill_up(struct nbd_handle *nbd, uint8_t *buf)
{
    uint64_t i;

    for (i = 0; i < 200; i++) {
        fill(buf, i);
        if (nbd_pwrite(nbd, buf, MIB, i * MIB, 0) < 0)
            break;
        if (i % 4 == 0)
            assert_int_equal(nbd_flush(nbd, 0), 0);
    }
    assert_true(i < 200);
    assert_int_equal(nbd_get_errno(), ENOSPC);
    assert_int_equal(nbd_flush(nbd, 0), 0);
    return i;
}

/* The same in small pieces all over the rest of the disk. */
static void
fill_up_small(struct nbd_handle *nbd, uint8_t *buf, uint64_t *seed)
{
    unsigned i;

    for (i = 0; i < 100000; i++) {
        uint64_t count = 1 + harness_random(seed) % 20000;
        uint64_t offset = 200 * MIB + harness_random(seed) % (50 * MIB);

        if (nbd_pwrite(nbd, buf, count, offset, 0) < 0)
            break;
    }
    assert_true(i < 100000);
    assert_int_equal(nbd_get_errno(), ENOSPC);
    assert_int_equal(nbd_flush(nbd, 0), 0);
}

static void
run_full(const char *size, uint32_t block_size)
{
    const struct timespec pause = {.tv_nsec = 20000000};
    struct harness h;
    struct nbd_handle *nbd;
    uint8_t *buf = malloc(MIB), *want = malloc(MIB);
    uint64_t kept, seed = harness_seed();
    size_t last;
    unsigned tries = 0;

    assert_non_null(buf);
    assert_non_null(want);
    harness_begin_tmpfs(&h, size);
    harness_create(&h, "disk", 256 * MIB, block_size);
    harness_start(&h, small_cache, NULL);
    nbd = harness_connect(&h, "");
    kept = fill_up(nbd, buf);
    printf("%s, blocks of %u: full after %llu MiB\n", size, block_size, (unsigned long long)kept);
    assert_true(kept >= (chosen_is("lmdb") ? 20 : 2)); /* sled keeps much room for itself */
    fill_up_small(nbd, buf, &seed);
    /* Reads go on, and so do refusals: but what is rewritten from behind may have made room. */
    for (uint64_t i = 0; i < kept; i++)
        expect_piece(nbd, buf, want, i);
    fill(buf, 250);
    if (nbd_pwrite(nbd, buf, MIB, 250 * MIB, LIBNBD_CMD_FLAG_FUA) == 0)
        assert_false(chosen_is("lmdb"));
    else
        assert_int_equal(nbd_get_errno(), ENOSPC);
    /* A trim is always possible and gives room, which comes from behind. */
    assert_int_equal(nbd_trim(nbd, kept / 2 * MIB, 0, 0), 0);
    assert_int_equal(nbd_trim(nbd, 50 * MIB, 200 * MIB, 0), 0); /* the small pieces */
    fill(buf, 250);
    /* 2048 blocks of 512 bytes are much at once for an index that is copied on write. */
    last = chosen_is("lmdb") ? MIB : MIB / 16;
    while (nbd_pwrite(nbd, buf, last, 250 * MIB, LIBNBD_CMD_FLAG_FUA) < 0) {
        assert_int_equal(nbd_get_errno(), ENOSPC);
        assert_true(tries++ < 1000);
        nanosleep(&pause, NULL);
    }
    harness_kill(&h);
    nbd_close(nbd);
    harness_start(&h, small_cache, NULL);
    nbd = harness_connect(&h, "");
    for (uint64_t i = (kept + 1) / 2; i < kept; i++)
        expect_piece(nbd, buf, want, i);
    fill(want, 250);
    assert_int_equal(nbd_pread(nbd, buf, last, 250 * MIB, 0), 0);
    assert_memory_equal(buf, want, last);
    assert_int_equal(nbd_pread(nbd, buf, MIB, 0, 0), 0);
    memset(want, 0, MIB);
    assert_memory_equal(buf, want, MIB);
    harness_disconnect(nbd);
    assert_int_equal(harness_stop(&h), 0);
    harness_end(&h);
    free(buf);
    free(want);
}

static void
write__medium_full__enospc_and_nothing_lost(void **state)
{
    (void)state;
    run_full("size=64m", 4096);
    run_full("size=47m", 4096);
}

static void
write__medium_full_blocks_of_512__enospc_and_nothing_lost(void **state)
{
    (void)state;
    run_full("size=61m", 512);
}

static void
write__medium_full_blocks_of_64k__enospc_and_nothing_lost(void **state)
{
    (void)state;
    run_full("size=55m", 65536);
}

static void
start__read_only_medium__readonly_serves_it(void **state)
{
    static const char *const plain[] = {"file=disk", NULL};
    static const char *const readonly[] = {"file=disk", "readonly=true", NULL};
    struct harness h, elsewhere;
    struct nbd_handle *nbd;
    char buf[4], *log;

    (void)state;
    harness_begin_tmpfs(&h, "size=64m");
    harness_create(&h, "disk", MIB, 4096);
    harness_start(&h, plain, NULL);
    nbd = harness_connect(&h, "");
    assert_int_equal(nbd_pwrite(nbd, "data", 4, 0, 0), 0);
    harness_disconnect(nbd);
    assert_int_equal(harness_stop(&h), 0);

    /* Socket and log have to be somewhere else. */
    harness_begin(&elsewhere);
    (void)snprintf(elsewhere.volume, sizeof(elsewhere.volume), "%s", h.volume);
    assert_int_equal(mount(NULL, h.dir, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
    assert_int_equal(harness_daemon(&elsewhere, h.volume, plain), 1);
    log = harness_log(&elsewhere);
    assert_non_null(strstr(log, "readonly=true"));
    free(log);
    if (chosen_is("sled")) { /* it writes to open (engines/rust/README.md), and says so */
        assert_int_equal(harness_daemon(&elsewhere, h.volume, readonly), 1);
        log = harness_log(&elsewhere);
        assert_non_null(strstr(log, "/sled: Read-only file system\n"));
        free(log);
        harness_end(&elsewhere);
        harness_end(&h);
        return;
    }
    harness_start(&elsewhere, readonly, NULL);
    nbd = harness_connect(&elsewhere, "");
    assert_int_equal(nbd_is_read_only(nbd), 1);
    assert_int_equal(nbd_pread(nbd, buf, 4, 0, 0), 0);
    assert_memory_equal(buf, "data", 4);
    harness_disconnect(nbd);
    assert_int_equal(harness_stop(&elsewhere), 0);
    harness_end(&elsewhere);
    harness_end(&h);
}

/* Arguments are patterns of cases: those to run, those to leave out. */
int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(write__medium_full__enospc_and_nothing_lost),
        cmocka_unit_test(write__medium_full_blocks_of_512__enospc_and_nothing_lost),
        cmocka_unit_test(write__medium_full_blocks_of_64k__enospc_and_nothing_lost),
        cmocka_unit_test(start__read_only_medium__readonly_serves_it),
    };

    harness_need_nbdkit();
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    if (argc > 2)
        cmocka_set_skip_filter(argv[2]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
