/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_nbd.c - the filter in a real nbdkit, by libnbd: over the memory and the file plugin, and
 * with KVFS_CRASHSIM_OVER=kvfs over a disk in a volume.
 *
 * The property test keeps requests of several connections under way, cuts the power by
 * command or by itself, reads the disk when the power is back and judges each sector by what the
 * clients saw alone: every write stamps its sectors, so a sector tells who wrote it.  A sector may
 * hold write F unless F was never sent there, or some other write G to it is surely durable and
 * surely newer: G was answered, then (without FUA) a flush was sent and answered; and F had been
 * answered before G was sent.  Nothing is said of whether FUA or a flush does too much; that
 * is what the cases with drop-all are for.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "model.h"
#include "random.h"
#include "world.h"

#define MIB (1u << 20)

static void
nbd_must(int r)
{
    if (r < 0)
        world_die("%s", nbd_get_error());
}

static void
write_byte(struct nbd_handle *nbd, char byte, uint64_t offset, size_t count, uint32_t flags)
{
    static char buf[65536];

    memset(buf, byte, count);
    nbd_must(nbd_pwrite(nbd, buf, count, offset, flags));
}

static char
read_byte(struct nbd_handle *nbd, uint64_t offset)
{
    char c;

    nbd_must(nbd_pread(nbd, &c, 1, offset, 0));
    return c;
}

static void
start(struct world *w, const char *const *args)
{
    world_begin(w);
    world_start(w, args);
}

/* --- what flush and FUA do, exactly --- */

static void
cut__drop_all__flushed_and_fua_only(void **state)
{
    static const char *const args[] = {"memory", "1M", NULL};
    struct nbd_handle *a, *b;
    struct world w;
    char c;

    (void)state;
    start(&w, args);
    a = world_connect(&w);
    b = world_connect(&w);
    assert_true(nbd_can_fua(a) == 1 && nbd_can_flush(a) == 1 && nbd_can_multi_conn(a) == 1 &&
                nbd_can_zero(a) == 1 && nbd_can_trim(a) == 1);
    write_byte(a, 'a', 0, 8192, 0);
    nbd_must(nbd_flush(b, 0)); /* of another connection */
    write_byte(a, 'b', 0, 4096, 0);
    write_byte(b, 'c', 512, 512, LIBNBD_CMD_FLAG_FUA); /* its own range, and no barrier */
    nbd_must(nbd_zero(b, 4096, 4096, 0));
    write_byte(a, 'd', 65536, 512, 0);
    nbd_must(nbd_trim(b, 512, 65536, LIBNBD_CMD_FLAG_FUA));
    assert_true(read_byte(b, 0) == 'b' && read_byte(a, 512) == 'c' && read_byte(a, 4096) == 0 &&
                read_byte(a, 65536) == 0);
    assert_int_equal(world_stat(&w, "open"), 3);
    assert_int_equal(world_ctl(&w, "cut --survive=drop-all", NULL), 0);
    assert_int_equal(nbd_pread(a, &c, 1, 0, 0), -1);
    assert_int_equal(nbd_get_errno(), ESHUTDOWN);
    assert_int_equal(nbd_flush(b, 0), -1);
    assert_int_equal(world_ctl(&w, "cut", NULL), 1); /* terminal */
    assert_int_equal(world_ctl(&w, "power-on", NULL), 0);
    assert_int_equal(world_ctl(&w, "power-on", NULL), 1);
    assert_true(read_byte(a, 0) == 'a' && read_byte(b, 512) == 'c' && read_byte(a, 1024) == 'a' &&
                read_byte(a, 4096) == 'a' && read_byte(a, 65536) == 0);
    write_byte(a, 'e', 0, 512, 0); /* and once more */
    assert_int_equal(world_ctl(&w, "cut --survive=prefix:1 --tear=none", NULL), 0);
    assert_int_equal(world_ctl(&w, "power-on", NULL), 0);
    assert_true(read_byte(a, 0) == 'e' && read_byte(a, 512) == 'c');
    assert_int_equal(world_stat(&w, "cuts"), 2);
    nbd_close(a);
    nbd_close(b);
    world_stop(&w);
    world_end(&w);
}

static void
fua__none__not_offered(void **state)
{
    static const char *const args[] = {"memory", "1M", "crashsim-fua=none", NULL};
    struct nbd_handle *a;
    struct world w;

    (void)state;
    start(&w, args);
    a = world_connect(&w);
    assert_int_equal(nbd_can_fua(a), 0);
    nbd_close(a);
    world_stop(&w);
    world_end(&w);
}

static void
cut__after_writes_or_flushes_or_a_mark__the_nth_is_answered(void **state)
{
    static const char *const args[] = {"memory", "1M", "crashsim-cut-after-writes=3",
                                       "crashsim-survive=prefix:2", "crashsim-tear=none", NULL};
    struct nbd_handle *a;
    struct world w;
    char c = 'x';

    (void)state;
    start(&w, args);
    a = world_connect(&w);
    for (int i = 0; i < 3; i++)
        write_byte(a, (char)('1' + i), (uint64_t)i * 512, 512, 0);
    assert_int_equal(nbd_pwrite(a, &c, 1, 0, 0), -1);
    assert_int_equal(world_ctl(&w, "power-on", NULL), 0);
    assert_true(read_byte(a, 0) == '1' && read_byte(a, 512) == '2' && read_byte(a, 1024) == 0);
    assert_int_equal(world_ctl(&w, "cut --after-flushes=2 --survive=drop-all", NULL), 0);
    for (int i = 0; i < 2; i++) {
        write_byte(a, (char)('5' + i), 0, 512, 0);
        nbd_must(nbd_flush(a, 0));
    }
    assert_int_equal(nbd_flush(a, 0), -1);
    assert_int_equal(world_ctl(&w, "power-on", NULL), 0);
    assert_int_equal(read_byte(a, 0), '6');
    assert_int_equal(world_ctl(&w, "cut --at-mark=here --survive=drop-all", NULL), 0);
    assert_int_equal(world_ctl(&w, "mark there", NULL), 0);
    write_byte(a, '7', 0, 512, 0);
    assert_int_equal(world_ctl(&w, "mark here", NULL), 0);
    assert_int_equal(nbd_pwrite(a, &c, 1, 0, 0), -1);
    assert_int_equal(world_ctl(&w, "power-on", NULL), 0);
    assert_int_equal(read_byte(a, 0), '6');
    nbd_close(a);
    world_stop(&w);
    world_end(&w);
}

/* What the process leaves in the file: nothing drains after a cut, everything without one, nothing
 * when it is killed. */
static void
end__after_a_cut_or_without_or_killed__as_a_disk(void **state)
{
    char file[96], bytes[3];
    const char *args[] = {"file", file, NULL};
    struct world w;

    (void)state;
    world_begin(&w);
    (void)snprintf(file, sizeof(file), "%s/disk", w.dir);
    for (int i = 0; i < 3; i++) {
        int fd = open(file, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        struct nbd_handle *a;

        assert_true(fd >= 0 && ftruncate(fd, MIB) == 0);
        world_start(&w, args);
        a = world_connect(&w);
        write_byte(a, 'f', 0, 512, 0);
        nbd_must(nbd_flush(a, 0));
        write_byte(a, 'o', 0, 512, 0);
        write_byte(a, 'o', 8192, 512, 0);
        nbd_must(nbd_zero(a, 512, 16384, 0));
        assert_int_equal(pread(fd, bytes, 1, 0), 1);
        assert_int_equal(bytes[0], 'f');
        if (i == 0)
            assert_int_equal(world_ctl(&w, "cut --survive=only-one:1 --tear=none", NULL), 0);
        nbd_close(a);
        if (i == 2)
            world_kill(&w);
        else
            world_stop(&w);
        assert_int_equal(pread(fd, bytes, 1, 0) + pread(fd, bytes + 1, 1, 8192), 2);
        assert_int_equal(bytes[0], i == 1 ? 'o' : 'f');
        assert_int_equal(bytes[1], i == 2 ? 0 : 'o');
        close(fd);
    }
    world_end(&w);
}

static void
faults__asked_for__happen_and_are_counted(void **state)
{
    static const char *const args[] = {"memory", "1M", "crashsim-eio-write=50%",
                                       "crashsim-eio-read=0.5", "crashsim-eio-flush=1", NULL};
    static const char *const lying[] = {"memory", "1M", "crashsim-lying-flush=1",
                                        "crashsim-rot=4096,512,9", "crashsim-latency=100,100,200",
                                        "crashsim-jitter=50", NULL};
    struct nbd_handle *a;
    struct world w;
    unsigned failed[2] = {0, 0}, rotten = 0;
    static uint8_t disk[MIB];
    char c = 'x';

    (void)state;
    start(&w, args);
    a = world_connect(&w);
    for (int i = 0; i < 100; i++) {
        failed[0] += nbd_pwrite(a, &c, 1, 0, 0) < 0 && nbd_get_errno() == EIO;
        failed[1] += nbd_pread(a, &c, 1, 0, 0) < 0 && nbd_get_errno() == EIO;
    }
    assert_true(failed[0] > 20 && failed[0] < 80 && failed[1] > 20 && failed[1] < 80);
    assert_int_equal(nbd_flush(a, 0), -1);
    assert_true(world_stat(&w, "eio_writes") == failed[0] &&
                world_stat(&w, "eio_reads") == failed[1] && world_stat(&w, "eio_flushes") == 1);
    nbd_close(a);
    world_stop(&w);
    world_start(&w, lying);
    a = world_connect(&w);
    write_byte(a, 'l', 0, 512, 0);
    nbd_must(nbd_flush(a, 0));
    write_byte(a, 'l', 512, 512, LIBNBD_CMD_FLAG_FUA);
    assert_int_equal(world_ctl(&w, "cut --survive=drop-all", NULL), 0);
    assert_int_equal(world_ctl(&w, "power-on", NULL), 0);
    assert_true(read_byte(a, 0) == 0 && read_byte(a, 512) == 0);
    nbd_must(nbd_pread(a, disk, sizeof(disk), 0, 0));
    for (uint64_t at = 0; at < sizeof(disk); at++) {
        assert_true(disk[at] == 0 || (at >= 4096 && at < 4608));
        rotten += (unsigned)__builtin_popcount(disk[at]);
    }
    assert_true(rotten > 0 && rotten <= 9 && world_stat(&w, "rotten_bits") == 9 &&
                world_stat(&w, "lies") == 2);
    nbd_close(a);
    world_stop(&w);
    world_end(&w);
}

/* --- the property --- */

#define CONNECTIONS 3
#define DEPTH       4
#define SECTORS     128u
#define OPS_MAX     400

struct op {
    uint64_t sent, answered; /* moments; answered 0: never, or with an error */
    uint64_t flushed;        /* when a flush that covers it was answered; 0: never */
    uint32_t first, sectors;
    uint64_t offset, count; /* the same in bytes */
    bool flush, fua, zero, done;
    uint64_t *buf;
};

struct run {
    uint64_t random, clock;
    struct op ops[OPS_MAX + 1]; /* [0]: what was there when the power came */
    unsigned count;
    uint64_t stamp_base; /* of this power-on */
    uint64_t before[SECTORS];
    bool bad;
};

static int
run_answered(void *arg, int *error)
{
    struct op *op = arg;

    op->done = true;
    op->flushed = *error == 0; /* until run_poll() gives it a moment */
    return 1;
}

static bool
run_send(struct run *run, struct nbd_handle *nbd)
{
    struct op *op = &run->ops[++run->count];
    uint64_t r = crashsim_random(&run->random);
    nbd_completion_callback callback = {.callback = run_answered, .user_data = op};
    uint32_t flags;

    *op = (struct op){.sent = ++run->clock};
    op->flush = r % 10 == 0;
    op->fua = !op->flush && r % 7 == 0;
    op->zero = r % 5 == 0;
    op->first = (uint32_t)(r >> 8) % SECTORS;
    op->sectors = 1 + (uint32_t)(r >> 20) % 16;
    if (op->sectors > SECTORS - op->first)
        op->sectors = SECTORS - op->first;
    op->offset = (uint64_t)op->first * 512;
    op->count = (uint64_t)op->sectors * 512;
    flags = op->fua ? LIBNBD_CMD_FLAG_FUA : 0;
    if (op->flush)
        return nbd_aio_flush(nbd, callback, 0) >= 0;
    if (op->zero && r % 3 == 0)
        return nbd_aio_trim(nbd, op->count, op->offset, callback, flags) >= 0;
    if (op->zero)
        return nbd_aio_zero(nbd, op->count, op->offset, callback, flags) >= 0;
    op->buf = malloc(op->count);
    assert_non_null(op->buf);
    for (uint64_t i = 0; i < op->count / 8; i++)
        op->buf[i] = run->stamp_base + run->count;
    return nbd_aio_pwrite(nbd, op->buf, op->count, op->offset, callback, flags) >= 0;
}

/* Let one of the connections move, and give moments to what was answered. */
static void
run_poll(struct run *run, struct nbd_handle **nbd)
{
    for (int i = 0; i < CONNECTIONS; i++)
        nbd_must(nbd_poll(nbd[i], i == 0 ? 1 : 0));
    run->clock++;
    for (unsigned i = 1; i <= run->count; i++) {
        struct op *op = &run->ops[i];
        bool good = op->flushed == 1;

        if (!op->done || op->answered != 0)
            continue;
        op->answered = good ? run->clock : UINT64_MAX;
        op->flushed = good && op->fua ? run->clock : 0;
        if (!good || !op->flush)
            continue;
        for (unsigned k = 1; k <= run->count; k++) {
            struct op *old = &run->ops[k];

            if (old->answered != 0 && old->answered < op->sent && old->flushed == 0 && !old->flush)
                old->flushed = run->clock;
        }
    }
}

static unsigned
run_under_way(const struct run *run)
{
    unsigned n = 0;

    for (unsigned i = 1; i <= run->count; i++)
        n += !run->ops[i].done;
    return n;
}

/* F, or for 0 what was there before, lies in a sector; G was written there too. */
static bool
run_contradicts(const struct op *f, const struct op *g)
{
    if (g->flushed == 0 || g->flushed == UINT64_MAX)
        return false;
    return f == NULL || (f->answered != 0 && f->answered != UINT64_MAX && f->answered < g->sent);
}

static bool
run_covers(const struct op *op, uint32_t sector)
{
    return !op->flush && op->sent != 0 && sector - op->first < op->sectors && sector >= op->first;
}

static bool
run_may_hold(const struct run *run, const struct op *f, uint32_t sector)
{
    for (unsigned i = 1; i <= run->count; i++) {
        if (run_covers(&run->ops[i], sector) && run_contradicts(f, &run->ops[i]))
            return false;
    }
    return true;
}

static void
run_judge(struct run *run, struct nbd_handle *nbd)
{
    static uint64_t disk[SECTORS * 64];

    nbd_must(nbd_pread(nbd, disk, sizeof(disk), 0, 0));
    for (uint32_t s = 0; s < SECTORS; s++) {
        const uint64_t *sector = disk + (size_t)s * 64;
        uint64_t stamp = sector[0], id = stamp - run->stamp_base;
        bool good = false;

        for (unsigned i = 1; i < 64; i++)
            assert_int_equal(sector[i], stamp); /* no sector is torn */
        if (stamp == run->before[s])
            good = run_may_hold(run, NULL, s);
        if (stamp == 0) {
            for (unsigned i = 1; i <= run->count && !good; i++)
                good = run->ops[i].zero && run_covers(&run->ops[i], s) &&
                       run_may_hold(run, &run->ops[i], s);
        } else if (!good && id >= 1 && id <= run->count) {
            good = !run->ops[id].zero && run_covers(&run->ops[id], s) &&
                   run_may_hold(run, &run->ops[id], s);
        }
        if (!good)
            printf("sector %u holds %llx, request %llu\n", s, (unsigned long long)stamp,
                   (unsigned long long)id);
        run->bad = run->bad || !good;
        run->before[s] = stamp;
    }
}

/* The power is back, with the same process or with another; ARGS NULL: the same. */
static void
run_power_on(struct run *run, struct world *w, struct nbd_handle **nbd, const char *const *args)
{
    if (args == NULL) {
        assert_int_equal(world_ctl(w, "power-on", NULL), 0);
        return;
    }
    for (int i = 0; i < CONNECTIONS; i++)
        nbd_close(nbd[i]);
    if (crashsim_random(&run->random) % 2)
        world_kill(w);
    else
        world_stop(w);
    world_start(w, args);
    for (int i = 0; i < CONNECTIONS; i++)
        nbd[i] = world_connect(w);
}

static void
run_once(struct run *run, struct world *w, struct nbd_handle **nbd, const char *const *args)
{
    unsigned ops = 20 + (unsigned)(crashsim_random(&run->random) % (OPS_MAX - 20));
    uint64_t how = crashsim_random(&run->random);
    char command[64];
    bool cut = false;

    run->count = 0;
    run->clock = 0;
    run->stamp_base += 1000;
    if (how % 3 != 0) { /* by itself, while requests are under way */
        (void)snprintf(command, sizeof(command), "cut --within=%u", ops);
        assert_int_equal(world_ctl(w, command, NULL), 0);
    }
    while (run->count < ops && !cut) {
        if (run_under_way(run) >= CONNECTIONS * DEPTH) {
            run_poll(run, nbd);
            for (unsigned i = 1; i <= run->count; i++)
                cut = cut || run->ops[i].answered == UINT64_MAX;
            continue;
        }
        assert_true(run_send(run, nbd[crashsim_random(&run->random) % CONNECTIONS]));
    }
    if (world_ctl(w, "cut", NULL) != 0) /* it came by itself, or does now */
        assert_true(how % 3 != 0);
    while (run_under_way(run) > 0)
        run_poll(run, nbd);
    run_power_on(run, w, nbd, args);
    run_judge(run, nbd[0]);
    for (unsigned i = 1; i <= run->count; i++)
        free(run->ops[i].buf);
}

static void
cuts__under_several_connections__only_legal_states(void **state)
{
    uint64_t seed = model_seed();
    char seed_arg[64];
    const char *args[] = {"memory", "64K", seed_arg, NULL, NULL};
    struct nbd_handle *nbd[CONNECTIONS];
    struct run *run = calloc(1, sizeof(*run));
    struct world w;

    (void)state;
    assert_non_null(run);
    world_begin(&w);
    run->random = seed;
    (void)snprintf(seed_arg, sizeof(seed_arg), "crashsim-seed=%llu", (unsigned long long)seed);
    for (int latency = 0; latency < 2; latency++) {
        args[3] = latency ? "crashsim-latency=50,300,800" : NULL;
        world_start(&w, args);
        memset(run->before, 0, sizeof(run->before));
        for (int i = 0; i < CONNECTIONS; i++)
            nbd[i] = world_connect(&w);
        for (unsigned i = 0; i < 20 * model_scale() && !run->bad; i++)
            run_once(run, &w, nbd, NULL);
        printf("latency %d: %llu cuts, %llu writes, %llu flushes, %llu FUA\n", latency,
               (unsigned long long)world_stat(&w, "cuts"),
               (unsigned long long)world_stat(&w, "writes"),
               (unsigned long long)world_stat(&w, "flushes"),
               (unsigned long long)world_stat(&w, "fua"));
        for (int i = 0; i < CONNECTIONS; i++)
            nbd_close(nbd[i]);
        world_stop(&w);
    }
    if (getenv("CRASHSIM_BUG") != NULL) /* the filter has one planted */
        assert_true(run->bad);
    else
        assert_false(run->bad);
    free(run);
    world_end(&w);
}

/* --- over a volume of KVFS --- */

static char kvfs_volume[96], kvfs_seed[64];
static const char *kvfs_args[] = {NULL, kvfs_volume, "file=disk", "create=64K", kvfs_seed, NULL};

static void
kvfs_begin(struct world *w, uint64_t seed)
{
    char command[256];

    world_begin(w);
    (void)snprintf(kvfs_volume, sizeof(kvfs_volume), "%s/volume", w->dir);
    (void)snprintf(kvfs_seed, sizeof(kvfs_seed), "crashsim-seed=%llu", (unsigned long long)seed);
    kvfs_args[0] = getenv("KVFS_PLUGIN");
    (void)snprintf(command, sizeof(command), "'%s' format '%s'", getenv("KVFS_BIN"), kvfs_volume);
    if (system(command) != 0) // NOLINT(cert-env33-c): the command of the same build
        world_die("%s failed", command);
    world_start(w, kvfs_args);
}

static void
kvfs__killed__has_what_was_durable_and_no_more(void **state)
{
    struct nbd_handle *a;
    struct world w;

    (void)state;
    kvfs_begin(&w, 1);
    a = world_connect(&w);
    write_byte(a, 'f', 0, 512, 0);
    nbd_must(nbd_flush(a, 0));
    write_byte(a, 'u', 8192, 512, LIBNBD_CMD_FLAG_FUA);
    nbd_must(nbd_zero(a, 512, 0, LIBNBD_CMD_FLAG_FUA));
    write_byte(a, 'o', 16384, 512, 0);
    nbd_close(a);
    world_kill(&w);
    world_start(&w, kvfs_args);
    a = world_connect(&w);
    assert_true(read_byte(a, 0) == 0 && read_byte(a, 8192) == 'u' && read_byte(a, 16384) == 0);
    nbd_close(a);
    world_stop(&w);
    world_end(&w);
}

static void
kvfs__cut_and_started_again__only_legal_states(void **state)
{
    uint64_t seed = model_seed();
    struct nbd_handle *nbd[CONNECTIONS];
    struct run *run = calloc(1, sizeof(*run));
    struct world w;

    (void)state;
    assert_non_null(run);
    run->random = seed;
    kvfs_begin(&w, seed);
    for (int i = 0; i < CONNECTIONS; i++)
        nbd[i] = world_connect(&w);
    for (unsigned i = 0; i < 12 * model_scale() && !run->bad; i++)
        run_once(run, &w, nbd, i % 3 == 0 ? NULL : kvfs_args);
    assert_false(run->bad);
    for (int i = 0; i < CONNECTIONS; i++)
        nbd_close(nbd[i]);
    world_stop(&w);
    world_end(&w);
    free(run);
}

int
main(void)
{
    const struct CMUnitTest kvfs[] = {
        cmocka_unit_test(kvfs__killed__has_what_was_durable_and_no_more),
        cmocka_unit_test(kvfs__cut_and_started_again__only_legal_states),
    };
    const struct CMUnitTest property[] = {
        cmocka_unit_test(cuts__under_several_connections__only_legal_states),
    };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cut__drop_all__flushed_and_fua_only),
        cmocka_unit_test(fua__none__not_offered),
        cmocka_unit_test(cut__after_writes_or_flushes_or_a_mark__the_nth_is_answered),
        cmocka_unit_test(end__after_a_cut_or_without_or_killed__as_a_disk),
        cmocka_unit_test(faults__asked_for__happen_and_are_counted),
        cmocka_unit_test(cuts__under_several_connections__only_legal_states),
    };

    if (getenv("KVFS_CRASHSIM_OVER") != NULL)
        return cmocka_run_group_tests(kvfs, NULL, NULL);
    if (getenv("CRASHSIM_BUG") != NULL)
        return cmocka_run_group_tests(property, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
