/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Does the oracle itself judge right?  A simulated server takes random requests
 * at random times, is cut at a random instant, and the oracle must accept what
 * is left.  Then the same with a fault planted, which it must reject.
 *
 * With one request at a time there is an exact second opinion: the bytes must
 * be those after exactly 0, 1, 2, ... requests, not fewer than were flushed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../nbd/harness.h"
#include "oracle.h"

#define SIZE    4096
#define BLOCK   64
#define DEPTH   12
#define STEPS   400
#define APPLIED 1024

struct sim {
    struct oracle *o;
    uint64_t seed;
    size_t depth;
    uint8_t base[SIZE];
    struct sim_request {
        size_t number, offset, count;
        enum oracle_kind kind;
        bool fua, applied, acked;
    } requests[APPLIED];
    size_t count;
    size_t order[APPLIED]; /* in which they were applied */
    size_t applied, durable;
};

static uint64_t
sim_random(struct sim *s, uint64_t n)
{
    return harness_random(&s->seed) % n;
}

static void
sim_issue(struct sim *s)
{
    struct sim_request *r = &s->requests[s->count++];
    uint64_t dice = sim_random(s, 100);

    r->kind = dice < 65 ? ORACLE_WRITE : dice < 88 ? ORACLE_ZERO : ORACLE_FLUSH;
    r->fua = r->kind != ORACLE_FLUSH && sim_random(s, 20) == 0;
    r->offset = r->kind == ORACLE_FLUSH ? 0 : sim_random(s, SIZE - 1);
    r->count = r->kind == ORACLE_FLUSH ? 0 : 1 + sim_random(s, SIZE - r->offset) / 4;
    r->number = oracle_issue(s->o, r->kind, r->offset, r->count, r->fua);
}

/* Fill IMAGE with what is there after the first N that were applied. */
static void
sim_image(struct sim *s, size_t n, uint8_t *image)
{
    memcpy(image, s->base, SIZE);
    for (size_t i = 0; i < n; i++) {
        const struct sim_request *r = &s->requests[s->order[i]];

        if (r->kind == ORACLE_WRITE)
            oracle_fill(s->o, r->number, image + r->offset);
        else if (r->kind == ORACLE_ZERO)
            memset(image + r->offset, 0, r->count);
    }
}

static void
sim_run(struct sim *s)
{
    size_t flight[DEPTH], flying = 0;

    s->count = s->applied = s->durable = 0;
    for (size_t step = 0; step < STEPS; step++) {
        size_t pick = flying > 0 ? sim_random(s, flying) : 0;
        struct sim_request *r = flying > 0 ? &s->requests[flight[pick]] : NULL;

        if (r == NULL || (flying < s->depth && sim_random(s, 2) == 0)) {
            flight[flying++] = s->count;
            sim_issue(s);
        } else if (!r->applied) {
            r->applied = true;
            s->order[s->applied++] = flight[pick];
            if (r->kind == ORACLE_FLUSH || r->fua)
                s->durable = s->applied;
        } else {
            oracle_ack(s->o, r->number);
            r->acked = true;
            flight[pick] = flight[--flying];
        }
    }
}

static void
sim_begin(struct sim *s, uint64_t seed, size_t depth)
{
    memset(s, 0, sizeof(*s));
    s->o = oracle_new(SIZE, BLOCK);
    s->seed = seed;
    s->depth = depth;
}

static void
sim_next_epoch(struct sim *s, const uint8_t *image)
{
    memcpy(s->base, image, SIZE);
    memset(s->requests, 0, sizeof(s->requests));
    oracle_rebase(s->o, image);
}

static void
judge__honest_server__accepted(void **state)
{
    static struct sim s;
    struct oracle_report report;
    uint8_t image[SIZE];
    size_t ambiguous = 0, tried = 0;
    uint64_t seed = harness_seed();

    (void)state;
    for (size_t round = 0; round < 300; round++) {
        sim_begin(&s, seed + round, round % 3 == 0 ? 1 : DEPTH);
        for (size_t epoch = 0; epoch < 3; epoch++) {
            sim_run(&s);
            sim_image(&s, s.durable + sim_random(&s, s.applied - s.durable + 1), image);
            if (oracle_judge(s.o, image, &report) != ORACLE_GOOD)
                fail_msg("round %zu: %s", round, report.text);
            ambiguous += report.ambiguous;
            tried += report.tried;
            sim_next_epoch(&s, image);
        }
        oracle_free(s.o);
    }
    printf("%zu ambiguous cells, %zu tries\n", ambiguous, tried);
}

static void
judge__one_at_a_time__as_brute_force(void **state)
{
    static struct sim s;
    struct oracle_report report;
    uint8_t image[SIZE], other[SIZE];
    size_t good = 0, bad = 0;
    uint64_t seed = harness_seed();

    (void)state;
    for (size_t round = 0; round < 400; round++) {
        bool possible = false;
        enum oracle_verdict verdict;

        sim_begin(&s, seed + round, 1);
        sim_run(&s);
        /* Any cut, also one before the last flush. */
        sim_image(&s, s.applied - sim_random(&s, s.applied < 8 ? s.applied : 8), image);
        for (size_t n = s.durable; n <= s.applied; n++) {
            sim_image(&s, n, other);
            possible |= memcmp(image, other, SIZE) == 0;
        }
        verdict = oracle_judge(s.o, image, &report);
        if (verdict != (possible ? ORACLE_GOOD : ORACLE_BAD))
            fail_msg("round %zu: the oracle says %d (%s)", round, (int)verdict, report.text);
        good += possible;
        bad += !possible;
        oracle_free(s.o);
    }
    printf("%zu possible, %zu impossible\n", good, bad);
    assert_true(good > 20 && bad > 20);
}

/* Put back into one block of IMAGE what was there before request N of the order. */
static bool
sim_drop_block(struct sim *s, uint8_t *image, size_t n)
{
    const struct sim_request *r = &s->requests[s->order[n]];
    uint8_t before[SIZE], after[SIZE];
    size_t blocks = 0, block, end = (r->offset + r->count) / BLOCK;
    size_t first = (r->offset + BLOCK - 1) / BLOCK;

    if (r->kind != ORACLE_WRITE || end < first + 2)
        return false;
    sim_image(s, n, before);
    sim_image(s, n + 1, after);
    for (block = first; block < end; block++) /* all of it must still show */
        blocks += memcmp(after + block * BLOCK, image + block * BLOCK, BLOCK) == 0;
    block = first + sim_random(s, end - first);
    if (blocks != end - first)
        return false;
    memcpy(image + block * BLOCK, before + block * BLOCK, BLOCK);
    return true;
}

static void
judge__block_dropped__rejected(void **state)
{
    static struct sim s;
    struct oracle_report report;
    uint8_t image[SIZE];
    size_t planted = 0, found = 0, planted_deep = 0, found_deep = 0;
    uint64_t seed = harness_seed();

    (void)state;
    for (size_t round = 0; round < 600; round++) {
        size_t depth = round % 2 == 0 ? 1 : 4, cut;
        bool rejected;

        sim_begin(&s, seed + round, depth);
        sim_run(&s);
        cut = s.applied;
        sim_image(&s, cut, image);
        if (sim_drop_block(&s, image, cut - 1 - sim_random(&s, 3))) {
            rejected = oracle_judge(s.o, image, &report) == ORACLE_BAD;
            planted += depth == 1;
            found += depth == 1 && rejected;
            planted_deep += depth != 1;
            found_deep += depth != 1 && rejected;
        }
        oracle_free(s.o);
    }
    printf("one at a time: %zu of %zu found; 4 at a time: %zu of %zu\n", found, planted, found_deep,
           planted_deep);
    /* One at a time, whatever was there before is older; several at a time, it
     * may be of a request that was under way together with it. */
    assert_true(planted > 50 && found == planted);
    assert_true(planted_deep > 50 && found_deep * 2 > planted_deep);
}

static void
judge__flipped_byte__rejected(void **state)
{
    static struct sim s;
    struct oracle_report report;
    uint8_t image[SIZE];
    uint64_t seed = harness_seed();

    (void)state;
    for (size_t round = 0; round < 100; round++) {
        size_t at;

        sim_begin(&s, seed + round, DEPTH);
        sim_run(&s);
        sim_image(&s, s.applied, image);
        at = sim_random(&s, SIZE);
        image[at] ^= 0x80;
        /* In a cell of a byte or two the new value may be another's by chance. */
        if (oracle_judge(s.o, image, &report) == ORACLE_GOOD)
            assert_true(report.ambiguous > 0 && image[at] != 0);
        oracle_free(s.o);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(judge__honest_server__accepted),
        cmocka_unit_test(judge__one_at_a_time__as_brute_force),
        cmocka_unit_test(judge__block_dropped__rejected),
        cmocka_unit_test(judge__flipped_byte__rejected),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
