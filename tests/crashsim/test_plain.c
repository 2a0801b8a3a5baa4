/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_plain.c - nbdkit's memory disk without a filter never fails the oracle that judges crash states.
 *
 * Several connections write, zero, trim and flush at the same places; when all is answered the disk is
 * read and judged, round after round.  That the oracle looks: of the same disk with one sector
 * as it was a round ago it must not accept.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model.h"
#include "oracle.h"
#include "random.h"
#include "world.h"

#define SIZE    ((size_t)256 << 10)
#define SECTOR  ((size_t)512)
#define CLIENTS 4
#define STEPS   40
#define ROUNDS  25

struct plain {
    struct oracle *o;
    pthread_mutex_t lock; /* the oracle */
};

struct client {
    struct plain *p;
    struct nbd_handle *nbd;
    uint64_t seed;
    pthread_t thread;
};

static void
client_step(struct client *c)
{
    static _Thread_local uint8_t buf[32 * SECTOR];
    uint64_t dice = crashsim_random(&c->seed) % 100;
    enum oracle_kind kind = dice < 60 ? ORACLE_WRITE : dice < 85 ? ORACLE_ZERO : ORACLE_FLUSH;
    size_t count = kind == ORACLE_FLUSH ? 0 : SECTOR * (1 + crashsim_random(&c->seed) % 32);
    size_t offset =
        kind == ORACLE_FLUSH ? 0 : SECTOR * (crashsim_random(&c->seed) % ((SIZE - count) / SECTOR));
    bool fua = kind != ORACLE_FLUSH && crashsim_random(&c->seed) % 8 == 0;
    uint32_t flags = fua ? LIBNBD_CMD_FLAG_FUA : 0;
    size_t request;
    int r;

    (void)pthread_mutex_lock(&c->p->lock);
    request = oracle_issue(c->p->o, kind, offset, count, fua);
    if (kind == ORACLE_WRITE)
        oracle_fill(c->p->o, request, buf);
    (void)pthread_mutex_unlock(&c->p->lock);
    if (kind == ORACLE_WRITE)
        r = nbd_pwrite(c->nbd, buf, count, offset, flags);
    else if (kind == ORACLE_FLUSH)
        r = nbd_flush(c->nbd, 0);
    else if (dice < 72)
        r = nbd_zero(c->nbd, count, offset, flags);
    else
        r = nbd_trim(c->nbd, count, offset, flags);
    if (r < 0)
        world_die("%s", nbd_get_error());
    (void)pthread_mutex_lock(&c->p->lock);
    oracle_ack(c->p->o, request);
    (void)pthread_mutex_unlock(&c->p->lock);
}

static void *
client_run(void *arg)
{
    struct client *c = arg;

    for (int i = 0; i < STEPS; i++)
        client_step(c);
    return NULL;
}

/* All of it flushed, and read into IMAGE. */
static void
plain_round(struct client *clients, uint64_t seed, uint8_t *image)
{
    struct plain *p = clients[0].p;
    size_t request;

    for (unsigned i = 0; i < CLIENTS; i++) {
        clients[i].seed = crashsim_hash2(seed, i);
        if (pthread_create(&clients[i].thread, NULL, client_run, &clients[i]) != 0)
            world_die("no thread");
    }
    for (unsigned i = 0; i < CLIENTS; i++)
        (void)pthread_join(clients[i].thread, NULL);
    request = oracle_issue(p->o, ORACLE_FLUSH, 0, 0, false);
    if (nbd_flush(clients[0].nbd, 0) < 0 || nbd_pread(clients[1].nbd, image, SIZE, 0, 0) < 0)
        world_die("%s", nbd_get_error());
    oracle_ack(p->o, request);
}

static size_t
plain_changed(const uint8_t *before, const uint8_t *after)
{
    for (size_t at = 0; at < SIZE; at += SECTOR)
        if (memcmp(before + at, after + at, SECTOR) != 0)
            return at;
    fail_msg("a round changed nothing");
    return 0;
}

static void
memory__no_filter__never_fails_the_oracle(void **state)
{
    static const char *const args[] = {"memory", "262144", NULL};
    static uint8_t before[SIZE], after[SIZE];
    struct plain p = {.o = oracle_new(SIZE, SECTOR), .lock = PTHREAD_MUTEX_INITIALIZER};
    struct client clients[CLIENTS];
    uint64_t seed = model_seed();
    struct world w;

    (void)state;
    world_begin(&w);
    w.plain = true;
    world_start(&w, args);
    for (unsigned i = 0; i < CLIENTS; i++)
        clients[i] = (struct client){.p = &p, .nbd = world_connect(&w)};
    for (unsigned i = 0; i < ROUNDS * model_scale(); i++) {
        struct oracle_report report;
        size_t at;

        plain_round(clients, crashsim_hash2(seed, i), after);
        if (oracle_judge(p.o, after, &report) != ORACLE_GOOD)
            fail_msg("round %u: %s", i, report.text);
        at = plain_changed(before, after);
        for (size_t k = 0; k < SECTOR; k++) { /* there and back */
            uint8_t byte = before[at + k];

            before[at + k] = after[at + k];
            after[at + k] = byte;
        }
        if (oracle_judge(p.o, after, &report) != ORACLE_BAD)
            fail_msg("round %u: a lost sector at %zu was not seen", i, at);
        memcpy(after + at, before + at, SECTOR);
        oracle_rebase(p.o, after);
        memcpy(before, after, SIZE);
    }
    for (unsigned i = 0; i < CLIENTS; i++)
        nbd_close(clients[i].nbd);
    world_stop(&w);
    world_end(&w);
    oracle_free(p.o);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory__no_filter__never_fails_the_oracle),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
