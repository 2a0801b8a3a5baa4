/* SPDX-License-Identifier: BSD-3-Clause
 *
 * 16 connections at once write, zero and trim overlapping ranges of any
 * alignment.  Afterwards every byte must be that of a request which no other
 * happened after: the oracle of the crash tests (../crash/oracle.h) knows, as
 * with a flush at the end its cut is everything.  A neighbour that was torn, a
 * lost update or a block put together of two others has bytes of no possible
 * request.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "oracle.h"
#include "harness.h"

#define CONNECTIONS 16
#define DISK_BYTES  ((size_t)4 << 20)
#define REQUESTS    60 /* a connection and round */
#define ROUNDS      6
#define COUNT_MAX   ((size_t)256 << 10)

struct client {
    struct shared *shared;
    struct nbd_handle *nbd;
    uint64_t seed;
    char error[200];
};

struct shared {
    struct harness h;
    pthread_mutex_t lock; /* of the oracle */
    struct oracle *oracle;
    struct client clients[CONNECTIONS];
};

static int
client_request(struct client *c, uint8_t *buf)
{
    struct shared *s = c->shared;
    uint64_t dice = harness_random(&c->seed) % 100;
    size_t count = 1 + harness_random(&c->seed) % ((size_t)1 << harness_random(&c->seed) % 19);
    size_t offset, request;
    enum oracle_kind kind = dice < 70 ? ORACLE_WRITE : dice < 98 ? ORACLE_ZERO : ORACLE_FLUSH;
    bool fua = dice % 33 == 0;
    int r;

    if (count > COUNT_MAX)
        count = COUNT_MAX;
    offset = harness_random(&c->seed) % (DISK_BYTES - count);
    pthread_mutex_lock(&s->lock);
    request = oracle_issue(s->oracle, kind, offset, count, fua);
    if (kind == ORACLE_WRITE)
        oracle_fill(s->oracle, request, buf);
    pthread_mutex_unlock(&s->lock);
    if (kind == ORACLE_WRITE)
        r = nbd_pwrite(c->nbd, buf, count, offset, fua ? LIBNBD_CMD_FLAG_FUA : 0);
    else if (kind == ORACLE_FLUSH)
        r = nbd_flush(c->nbd, 0);
    else if (dice % 2 == 0)
        r = nbd_zero(c->nbd, count, offset, fua ? LIBNBD_CMD_FLAG_FUA : 0);
    else
        r = nbd_trim(c->nbd, count, offset, fua ? LIBNBD_CMD_FLAG_FUA : 0);
    if (r < 0) {
        (void)snprintf(c->error, sizeof(c->error), "%s", nbd_get_error());
        return -1;
    }
    pthread_mutex_lock(&s->lock);
    oracle_ack(s->oracle, request);
    pthread_mutex_unlock(&s->lock);
    return 0;
}

static void *
client_main(void *arg)
{
    struct client *c = arg;
    uint8_t *buf = malloc(COUNT_MAX);

    for (unsigned i = 0; buf != NULL && i < REQUESTS; i++) {
        if (client_request(c, buf) < 0)
            break;
    }
    free(buf);
    return NULL;
}

static void
run_round(struct shared *s)
{
    pthread_t threads[CONNECTIONS];

    for (unsigned i = 0; i < CONNECTIONS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, client_main, &s->clients[i]), 0);
    for (unsigned i = 0; i < CONNECTIONS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (unsigned i = 0; i < CONNECTIONS; i++) {
        if (s->clients[i].error[0] != '\0')
            fail_msg("connection %u: %s", i, s->clients[i].error);
    }
}

static void
judge(struct shared *s, struct nbd_handle *nbd, uint8_t *image)
{
    struct oracle_report report;

    assert_int_equal(nbd_pread(nbd, image, DISK_BYTES, 0, 0), 0);
    if (oracle_judge(s->oracle, image, &report) != ORACLE_GOOD)
        fail_msg("%s", report.text);
}

static void
run(uint32_t block_size)
{
    static const char *const args[] = {"file=disk", "cache=4M", "commit-interval=0.02", NULL};
    static struct shared s;
    uint64_t seed = harness_seed();
    uint8_t *image = malloc(DISK_BYTES), *again = malloc(DISK_BYTES);
    size_t flush;

    assert_non_null(image);
    assert_non_null(again);
    memset(&s, 0, sizeof(s));
    pthread_mutex_init(&s.lock, NULL);
    harness_begin(&s.h);
    harness_create(&s.h, "disk", DISK_BYTES, block_size);
    s.oracle = oracle_new(DISK_BYTES, block_size);
    harness_start(&s.h, args, NULL);
    for (unsigned i = 0; i < CONNECTIONS; i++) {
        s.clients[i].shared = &s;
        s.clients[i].nbd = harness_connect(&s.h, "");
        s.clients[i].seed = seed + i;
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        run_round(&s);
        flush = oracle_issue(s.oracle, ORACLE_FLUSH, 0, 0, false);
        assert_int_equal(nbd_flush(s.clients[round].nbd, 0), 0);
        oracle_ack(s.oracle, flush);
        judge(&s, s.clients[(round + 1) % CONNECTIONS].nbd, image);
        oracle_rebase(s.oracle, image);
    }
    harness_kill(&s.h); /* it was flushed: the same bytes must come back */
    for (unsigned i = 0; i < CONNECTIONS; i++)
        nbd_close(s.clients[i].nbd);
    harness_start(&s.h, args, NULL);
    s.clients[0].nbd = harness_connect(&s.h, "");
    assert_int_equal(nbd_pread(s.clients[0].nbd, again, DISK_BYTES, 0, 0), 0);
    assert_memory_equal(image, again, DISK_BYTES);
    harness_disconnect(s.clients[0].nbd);
    assert_int_equal(harness_stop(&s.h), 0);
    harness_end(&s.h);
    oracle_free(s.oracle);
    free(image);
    free(again);
}

static void
connections__16_overlapping_unaligned__every_byte_explained(void **state)
{
    (void)state;
    run(4096);
}

static void
connections__16_with_blocks_of_64k__every_byte_explained(void **state)
{
    (void)state;
    run(65536);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(connections__16_overlapping_unaligned__every_byte_explained),
        cmocka_unit_test(connections__16_with_blocks_of_64k__every_byte_explained),
    };

    harness_need_nbdkit();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
