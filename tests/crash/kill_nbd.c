/* SPDX-License-Identifier: BSD-3-Clause
 *
 * kill_nbd.c - SIGKILL to a busy nbdkit, again and again.
 *
 *     kill_nbd [--kills=N] [--seed=S] [--connections=C] [--block-size=B] [--seconds=T]
 *              [--expect-violation]
 *
 * One disk of 32 MiB in a volume of the chosen engine (chosen.h).  Each round starts nbdkit, reads the
 * whole disk and lets the oracle judge it (oracle.h says what is demanded), then
 * keeps 16 requests under way on each connection (writes of 512 B to 4 MiB,
 * overlapping and mostly unaligned, zeros, trims, now and then of the whole disk,
 * flushes, FUA) and kills nbdkit at a random instant.  Answers that were on their
 * way are still read.  At the end nbdkit is ended in the ordinary way and the
 * volume is checked.
 *
 * The recorder is this process: one thread, one clock, so "A was answered before
 * B was issued" is exactly what this program saw.
 *
 * Over lmdb, how many kills fell inside a commit is read off the corpse: it takes a
 * robust mutex in lock.mdb for the whole of a write transaction, and the kernel
 * marks it (FUTEX_OWNER_DIED) if its owner dies with it.  Some rounds wait for
 * the mutex to be taken before they kill; the cache is small, so that commits
 * follow each other closely.
 *
 * --expect-violation turns the verdict round: it succeeds as soon as the oracle
 * finds fault.  It is for builds with planted bugs (KVFS_TEST_BUG).
 * Exit status: 0 good, 1 a violation or trouble, 77 skipped.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <getopt.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <kvfs/kvfs.h>

#include "../nbd/harness.h"
#include "oracle.h"

#define DISK_BYTES      ((size_t)32 << 20)
#define DEPTH           16
#define CONNECTIONS_MAX 16
#define REQUEST_MAX     ((size_t)4 << 20)
#define ROUND_MS_MAX    700
#define COMMIT_WAIT_MS  500

struct slot {
    struct run *run;
    size_t request; /* of the oracle */
    uint8_t *buf;   /* of a write, until it is answered */
    bool busy;
};

struct run {
    struct harness h;
    struct oracle *o;
    uint64_t seed;
    unsigned connections;
    struct nbd_handle *nbd[CONNECTIONS_MAX];
    struct slot slots[CONNECTIONS_MAX][DEPTH];
    bool killed;
    uint8_t *image;
    /* what happened */
    unsigned kills, in_commit, waited;
    size_t requests, acked, undecided, ambiguous, tried;
    uint64_t open_us_max;
};

static uint64_t
run_random(struct run *run, uint64_t n)
{
    return harness_random(&run->seed) % n;
}

static uint64_t
now_us(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

/* --- LMDB's write mutex ------------------------------------------------------------ */

static char lock_path[4096];

static int
lock_find(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    if (type != FTW_F || strcmp(path + ftw->base, "lock.mdb") != 0)
        return 0;
    (void)snprintf(lock_path, sizeof(lock_path), "%s", path);
    return 1;
}

/* The word of the mutex, in a map of lock.mdb; NULL: not found.  The file begins
 * with a header and the readers' mutex, padded to cache lines; the writers'
 * mutex follows.  A glibc mutex begins with its futex. */
static const volatile uint32_t *
lock_map(const struct harness *h)
{
    size_t head = 4 + 4 + sizeof(void *) + sizeof(void *) + sizeof(pthread_mutex_t);
    size_t offset = (head + 63) / 64 * 64;
    int fd;
    void *map;

    lock_path[0] = '\0';
    if (nftw(h->volume, lock_find, 8, FTW_PHYS) != 1)
        return NULL;
    fd = open(lock_path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (map == MAP_FAILED)
        return NULL;
    return (const volatile uint32_t *)((const char *)map + offset);
}

static void
lock_unmap(const volatile uint32_t *word)
{
    if (word != NULL)
        munmap((void *)((uintptr_t)word & ~(uintptr_t)4095), 4096);
}

/* --- load ----------------------------------------------------------------------------- */

static int
load_done(void *arg, int *error)
{
    struct slot *s = arg;

    if (*error == 0)
        oracle_ack(s->run->o, s->request);
    else if (!s->run->killed)
        harness_die("request %zu failed: %s", s->request, strerror(*error));
    free(s->buf);
    s->buf = NULL;
    s->busy = false;
    return 1;
}

/* 512 B to 4 MiB, as many small as large ones. */
static size_t
load_size(struct run *run)
{
    size_t size = (size_t)512 << run_random(run, 14);

    size += run_random(run, size);
    return size < REQUEST_MAX ? size : REQUEST_MAX;
}

static void
load_place(struct run *run, size_t *offset, size_t *count)
{
    size_t align = run_random(run, 3) == 0 ? 4096 : run_random(run, 3) == 0 ? 512 : 1;
    size_t window = run_random(run, 2) == 0 ? DISK_BYTES / 8 : DISK_BYTES;

    *count = load_size(run);
    if (align > 1)
        *count = (*count + align - 1) / align * align;
    if (window < *count)
        window = DISK_BYTES;
    *offset = run_random(run, window - *count + 1) / align * align;
}

static void
load_place_large(struct run *run, size_t *offset, size_t *count)
{
    bool all = run_random(run, 2) == 0;

    *offset = all ? 0 : run_random(run, DISK_BYTES / 2);
    *count = all ? DISK_BYTES : 1 + run_random(run, DISK_BYTES - *offset);
}

static void
load_issue(struct run *run, unsigned c, unsigned i)
{
    struct slot *s = &run->slots[c][i];
    struct nbd_handle *nbd = run->nbd[c];
    nbd_completion_callback done = {.callback = load_done, .user_data = s};
    uint64_t dice = run_random(run, 100);
    bool fua = run_random(run, 25) == 0;
    uint32_t flags = fua ? LIBNBD_CMD_FLAG_FUA : 0;
    size_t offset = 0, count = 0;
    int64_t r;

    s->busy = true;
    if (dice < 4) {
        s->request = oracle_issue(run->o, ORACLE_FLUSH, 0, 0, false);
        r = nbd_aio_flush(nbd, done, 0);
    } else {
        load_place(run, &offset, &count);
        if (dice >= 98) /* trim: much of the disk, or all of it */
            load_place_large(run, &offset, &count);
        s->request =
            oracle_issue(run->o, dice < 80 ? ORACLE_WRITE : ORACLE_ZERO, offset, count, fua);
        if (dice < 80) {
            s->buf = malloc(count);
            if (s->buf == NULL)
                harness_die("no memory");
            oracle_fill(run->o, s->request, s->buf);
            r = nbd_aio_pwrite(nbd, s->buf, count, offset, done, flags);
        } else if (dice < 90) {
            r = nbd_aio_zero(nbd, count, offset, done, flags);
        } else {
            r = nbd_aio_trim(nbd, count, offset, done, flags);
        }
    }
    if (r < 0)
        harness_die("cannot issue a request: %s", nbd_get_error());
}

/* Move what can be moved, waiting up to WAIT_MS.  False when all are dead. */
static bool
load_poll(struct run *run, int wait_ms)
{
    struct pollfd fds[CONNECTIONS_MAX];
    unsigned alive = 0;

    for (unsigned c = 0; c < run->connections; c++) {
        unsigned dir = nbd_aio_get_direction(run->nbd[c]);
        bool dead = nbd_aio_is_dead(run->nbd[c]) > 0 || nbd_aio_is_closed(run->nbd[c]) > 0;

        fds[c].fd = dead ? -1 : nbd_aio_get_fd(run->nbd[c]);
        fds[c].events = (short)(((dir & LIBNBD_AIO_DIRECTION_READ) != 0 ? POLLIN : 0) |
                                ((dir & LIBNBD_AIO_DIRECTION_WRITE) != 0 ? POLLOUT : 0));
        fds[c].revents = 0;
        alive += !dead;
    }
    if (alive == 0)
        return false;
    if (poll(fds, run->connections, wait_ms) < 0 && errno != EINTR)
        harness_die("poll: %s", strerror(errno));
    for (unsigned c = 0; c < run->connections; c++) {
        unsigned dir = fds[c].fd < 0 ? 0 : nbd_aio_get_direction(run->nbd[c]);

        if ((fds[c].revents & (POLLIN | POLLHUP | POLLERR)) != 0 &&
            (dir & LIBNBD_AIO_DIRECTION_READ) != 0)
            (void)nbd_aio_notify_read(run->nbd[c]);
        else if ((fds[c].revents & (POLLOUT | POLLHUP | POLLERR)) != 0 &&
                 (dir & LIBNBD_AIO_DIRECTION_WRITE) != 0)
            (void)nbd_aio_notify_write(run->nbd[c]);
        if (fds[c].fd >= 0 && !run->killed && nbd_aio_is_dead(run->nbd[c]) > 0)
            harness_die("nbdkit hung up: %s", harness_log(&run->h));
    }
    return true;
}

static void
load_fill(struct run *run)
{
    for (unsigned c = 0; c < run->connections; c++) {
        for (unsigned i = 0; i < DEPTH; i++) {
            if (!run->slots[c][i].busy)
                load_issue(run, c, i);
        }
    }
}

/* Keep nbdkit busy until a random instant, and kill it. */
static void
load_until_kill(struct run *run)
{
    const volatile uint32_t *lock = lock_map(&run->h);
    uint64_t start = now_us(), until;
    bool wait_for_commit = run_random(run, 2) == 0;

    until = start + 1000 * (2 + run_random(run, ROUND_MS_MAX));
    while (now_us() < until) {
        load_fill(run);
        (void)load_poll(run, 1);
    }
    if (wait_for_commit && lock != NULL) {
        run->waited++;
        until = now_us() + (uint64_t)1000 * COMMIT_WAIT_MS;
        while ((*lock & FUTEX_TID_MASK) == 0 && now_us() < until) {
            load_fill(run);
            (void)load_poll(run, 0);
        }
        until = now_us() + run_random(run, 3000);
        while (now_us() < until)
            (void)load_poll(run, 0);
    }
    run->killed = true;
    harness_kill(&run->h);
    run->kills++;
    if (lock != NULL && (*lock & FUTEX_OWNER_DIED) != 0)
        run->in_commit++;
    lock_unmap(lock);
    while (load_poll(run, 1000)) /* answers that were on their way */
        ;
    for (unsigned c = 0; c < run->connections; c++) {
        nbd_close(run->nbd[c]); /* completes what is left, with an error */
        run->nbd[c] = NULL;
    }
    run->killed = false;
}

/* --- rounds ------------------------------------------------------------------------------ */

static void
run_start(struct run *run)
{
    static const char *const intervals[] = {"commit-interval=0.01", "commit-interval=0.1",
                                            "commit-interval=5"};
    const char *args[] = {"file=disk", "cache=4M", intervals[run_random(run, 3)], NULL};
    uint64_t start = now_us(), took;

    harness_start(&run->h, args, NULL);
    for (unsigned c = 0; c < run->connections; c++)
        run->nbd[c] = harness_connect(&run->h, "");
    took = now_us() - start;
    if (took > run->open_us_max)
        run->open_us_max = took;
}

/* True: the disk is as it may be. */
static bool
run_judge(struct run *run)
{
    struct oracle_report report;
    enum oracle_verdict verdict;

    for (size_t at = 0; at < DISK_BYTES; at += REQUEST_MAX) {
        if (nbd_pread(run->nbd[0], run->image + at, REQUEST_MAX, at, 0) < 0)
            harness_die("reading after kill %u: %s; %s", run->kills, nbd_get_error(),
                        harness_log(&run->h));
    }
    verdict = oracle_judge(run->o, run->image, &report);
    run->requests += report.requests;
    run->acked += report.acked;
    run->ambiguous += report.ambiguous;
    run->tried += report.tried;
    run->undecided += verdict == ORACLE_UNDECIDED;
    if (verdict == ORACLE_BAD)
        printf("VIOLATION after kill %u (%zu requests, %zu answered): %s\n", run->kills,
               report.requests, report.acked, report.text);
    oracle_rebase(run->o, run->image);
    return verdict != ORACLE_BAD;
}

static void
run_finding(void *arg, const char *where, const char *what)
{
    (void)arg;
    printf("check: %s: %s\n", where, what);
}

/* End in the ordinary way; then the volume must be sound. */
static bool
run_finish(struct run *run)
{
    struct kvfs_check_options options = {.finding = run_finding};
    struct kvfs_check_result result = {0};
    struct kvfs_error err = {0};

    for (unsigned c = 0; c < run->connections; c++)
        harness_disconnect(run->nbd[c]);
    if (harness_stop(&run->h) != 0)
        harness_die("nbdkit ended with status 0x%x: %s", (unsigned)run->h.status,
                    harness_log(&run->h));
    if (kvfs_check(run->h.volume, &options, &result, &err) < 0)
        harness_die("check: %s", err.msg);
    return result.findings == 0;
}

static bool
run_all(struct run *run, unsigned kills, unsigned seconds)
{
    uint64_t end = now_us() + (uint64_t)seconds * 1000000u;
    bool good = true;

    for (;;) {
        run_start(run);
        good = run_judge(run);
        if (!good || run->kills >= kills || (seconds > 0 && now_us() > end))
            break;
        load_until_kill(run);
    }
    return run_finish(run) && good;
}

static unsigned
run_number(const char *text)
{
    char *end;
    unsigned long n = strtoul(text, &end, 0);

    if (*text == '\0' || *end != '\0' || n > UINT32_MAX)
        harness_die("'%s' is no number", text);
    return (unsigned)n;
}

int
main(int argc, char **argv)
{
    static const struct option options[] = {
        {"kills", required_argument, NULL, 'k'},
        {"seed", required_argument, NULL, 's'},
        {"connections", required_argument, NULL, 'c'},
        {"block-size", required_argument, NULL, 'b'},
        {"seconds", required_argument, NULL, 't'},
        {"expect-violation", no_argument, NULL, 'v'},
        {NULL, 0, NULL, 0},
    };
    static struct run run = {.connections = 1};
    const char *scale = getenv("KVFS_SCALE");
    unsigned kills = 100, seconds = 0, block_size = 4096;
    bool expect_violation = false, good;
    int c;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c == 'k')
            kills = run_number(optarg);
        else if (c == 's')
            setenv("KVFS_SEED", optarg, 1);
        else if (c == 'c')
            run.connections = run_number(optarg);
        else if (c == 'b')
            block_size = run_number(optarg);
        else if (c == 't')
            seconds = run_number(optarg);
        else if (c == 'v')
            expect_violation = true;
        else
            return 2;
    }
    if (run.connections < 1 || run.connections > CONNECTIONS_MAX)
        harness_die("--connections=1..%d", CONNECTIONS_MAX);
    if (block_size < 512 || block_size > 65536)
        harness_die("--block-size=512..65536");
    if (scale != NULL && *scale != '\0' && !expect_violation)
        kills *= run_number(scale);
    harness_need_nbdkit();
    run.seed = harness_seed();
    run.image = malloc(DISK_BYTES);
    run.o = oracle_new(DISK_BYTES, block_size);
    for (unsigned i = 0; i < CONNECTIONS_MAX * DEPTH; i++)
        run.slots[i / DEPTH][i % DEPTH].run = &run;
    harness_begin(&run.h);
    harness_create(&run.h, "disk", DISK_BYTES, block_size);
    good = run_all(&run, kills, seconds);
    printf("%u connections, %u kills, %u of them inside a write transaction (%u waited for one)\n"
           "%zu requests, %zu answered; %zu cells of several possible writers, %zu tries, "
           "%zu rounds undecided\nslowest start to first client: %.1f ms\n",
           run.connections, run.kills, run.in_commit, run.waited, run.requests, run.acked,
           run.ambiguous, run.tried, run.undecided, (double)run.open_us_max / 1000);
    harness_end(&run.h);
    oracle_free(run.o);
    free(run.image);
    if (expect_violation) {
        printf("a violation was expected and %s\n", good ? "NOT found" : "found");
        return good;
    }
    if (run.undecided > 0)
        printf("undecided rounds prove nothing: failed\n");
    return !good || run.undecided > 0;
}
