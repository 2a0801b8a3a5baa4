/* SPDX-License-Identifier: BSD-3-Clause
 *
 * shrink.c - see shrink.h.
 *
 * First torn changes are made whole or dropped, where it fails all the same.  Then delta debugging
 * (Zeller's ddmin) twice: over what is kept, with all else dropped, and over what is dropped, with
 * all else kept; the smaller result is taken.  The elements are whole changes, and single pieces
 * of those that stayed torn.
 */
#include "shrink.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SHRINK_WHOLE UINT32_MAX

struct shrink_element {
    uint32_t change, piece; /* SHRINK_WHOLE: all of it */
};

struct shrink_set {
    struct shrink_element *elements;
    size_t count;
    bool keep; /* the elements are kept, the others dropped; else the other way round */
};

static int
shrink_test(struct shrink *s, const struct crashsim_pick *pick)
{
    if (s->tests >= s->tests_max)
        return 0;
    s->tests++;
    return s->test(s->opaque, pick);
}

/* --- tears --- */

static void
shrink_untear(struct crashsim_pick *p, size_t i, enum crashsim_fate fate)
{
    free(p->fates[i].pieces);
    p->fates[i] = (struct crashsim_pick_fate){.fate = fate};
}

/* Let change I, or all torn ones (I: the count), be whole or dropped, if it still fails. */
static int
shrink_untear_if(struct shrink *s, struct crashsim_pick *pick, size_t i, enum crashsim_fate fate)
{
    struct crashsim_pick trial;
    int r = crashsim_pick_copy(&trial, pick);

    if (r < 0)
        return r;
    for (size_t k = 0; k < trial.count; k++) {
        if (trial.fates[k].fate == CRASHSIM_TORN && (k == i || i == trial.count))
            shrink_untear(&trial, k, fate);
    }
    r = shrink_test(s, &trial);
    if (r > 0) {
        crashsim_pick_free(pick);
        *pick = trial;
    } else {
        crashsim_pick_free(&trial);
    }
    return r;
}

static int
shrink_tears(struct shrink *s, struct crashsim_pick *pick)
{
    size_t counts[3];
    int r = 0;

    crashsim_pick_counts(pick, counts);
    if (counts[CRASHSIM_TORN] == 0)
        return 0;
    for (size_t i = pick->count + 1; i-- > 0;) {
        if (i < pick->count && pick->fates[i].fate != CRASHSIM_TORN)
            continue;
        r = shrink_untear_if(s, pick, i, CRASHSIM_DROPPED);
        if (r == 0)
            r = shrink_untear_if(s, pick, i, CRASHSIM_KEPT);
        if (r < 0)
            return r;
        if (r > 0 && i == pick->count)
            break;
    }
    return 0;
}

/* --- sets --- */

/* What is kept (or dropped) in PICK, as a set. */
static int
shrink_collect(const struct crashsim_pick *pick, bool keep, struct shrink_set *set)
{
    enum crashsim_fate wanted = keep ? CRASHSIM_KEPT : CRASHSIM_DROPPED;
    size_t n = 0;

    for (size_t i = 0; i < pick->count; i++)
        n += pick->fates[i].fate == CRASHSIM_TORN ? pick->fates[i].pieces_count : 1;
    *set = (struct shrink_set){.keep = keep, .elements = calloc(n + 1, sizeof(*set->elements))};
    if (set->elements == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < pick->count; i++) {
        const struct crashsim_pick_fate *f = &pick->fates[i];

        if (f->fate == wanted)
            set->elements[set->count++] = (struct shrink_element){i, SHRINK_WHOLE};
        for (uint32_t k = 0; f->fate == CRASHSIM_TORN && k < f->pieces_count; k++) {
            if ((f->pieces[k] != 0) == keep)
                set->elements[set->count++] = (struct shrink_element){i, k};
        }
    }
    return 0;
}

/* The pick of SET; FROM tells how many pieces a change has. */
static int
shrink_make(const struct crashsim_pick *from, const struct shrink_set *set,
            struct crashsim_pick *pick)
{
    enum crashsim_fate in = set->keep ? CRASHSIM_KEPT : CRASHSIM_DROPPED;
    enum crashsim_fate out = set->keep ? CRASHSIM_DROPPED : CRASHSIM_KEPT;
    int r = crashsim_pick_copy(pick, from);

    if (r < 0)
        return r;
    pick->rule = false;
    for (size_t i = 0; i < pick->count; i++) {
        if (pick->fates[i].fate == CRASHSIM_TORN)
            memset(pick->fates[i].pieces, out == CRASHSIM_KEPT, pick->fates[i].pieces_count);
        else
            pick->fates[i].fate = out;
    }
    for (size_t k = 0; k < set->count; k++) {
        const struct shrink_element *e = &set->elements[k];

        if (e->piece == SHRINK_WHOLE)
            pick->fates[e->change].fate = in;
        else
            pick->fates[e->change].pieces[e->piece] = in == CRASHSIM_KEPT;
    }
    for (size_t i = 0; i < pick->count; i++) { /* torn in name only */
        struct crashsim_pick_fate *f = &pick->fates[i];

        if (f->fate == CRASHSIM_TORN && memchr(f->pieces, out == CRASHSIM_KEPT ? 0 : 1,
                                               f->pieces_count) == NULL)
            shrink_untear(pick, i, out);
    }
    return 0;
}

static int
shrink_test_set(struct shrink *s, const struct crashsim_pick *from, const struct shrink_set *set)
{
    struct crashsim_pick pick;
    int r = shrink_make(from, set, &pick);

    if (r < 0)
        return r;
    r = shrink_test(s, &pick);
    crashsim_pick_free(&pick);
    return r;
}

/* SET without [FROM, TO), or that part alone. */
static int
shrink_part(const struct shrink_set *set, size_t from, size_t to, bool without,
            struct shrink_set *part)
{
    *part = (struct shrink_set){.keep = set->keep,
                                .elements = calloc(set->count + 1, sizeof(*set->elements))};
    if (part->elements == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < set->count; i++) {
        if ((i >= from && i < to) != without)
            part->elements[part->count++] = set->elements[i];
    }
    return 0;
}

/* One step of ddmin: try SET in N parts.  1: SET is smaller now. */
static int
shrink_step(struct shrink *s, const struct crashsim_pick *from, struct shrink_set *set, size_t n,
            bool without)
{
    for (size_t k = 0; k < n; k++) {
        struct shrink_set part;
        int r = shrink_part(set, k * set->count / n, (k + 1) * set->count / n, without, &part);

        if (r == 0)
            r = shrink_test_set(s, from, &part);
        if (r > 0) {
            free(set->elements);
            *set = part;
            return 1;
        }
        free(part.elements);
        if (r < 0)
            return r;
    }
    return 0;
}

static int
shrink_ddmin(struct shrink *s, const struct crashsim_pick *from, struct shrink_set *set)
{
    size_t n = 2;

    while (set->count >= 2) {
        int r = shrink_step(s, from, set, n, false);

        if (r > 0) {
            n = 2;
            continue;
        }
        if (r == 0 && n > 2) {
            r = shrink_step(s, from, set, n, true);
            if (r > 0) {
                n = n > 2 ? n - 1 : 2;
                continue;
            }
        }
        if (r < 0)
            return r;
        if (n >= set->count)
            return 0;
        n = n * 2 < set->count ? n * 2 : set->count;
    }
    return 0;
}

/* SET: the smallest of its kind.  1 if it fails at all (what else was torn may have mattered). */
static int
shrink_side(struct shrink *s, const struct crashsim_pick *pick, bool keep, struct shrink_set *set)
{
    struct shrink_set none = {.keep = keep};
    int r = shrink_collect(pick, keep, set);

    if (r < 0)
        return r;
    r = shrink_test_set(s, pick, &none);
    if (r > 0)
        set->count = 0;
    if (r == 0)
        r = shrink_ddmin(s, pick, set);
    return r < 0 ? r : 0;
}

int
shrink_pick(struct shrink *s, struct crashsim_pick *pick)
{
    struct shrink_set kept = {0}, dropped = {0}, *best;
    struct crashsim_pick small;
    size_t counts[3];
    int r = 0;

    crashsim_pick_counts(pick, counts);
    if (pick->choice.tear >= CRASHSIM_TEAR_BYTE && counts[CRASHSIM_TORN] > 0)
        return 0; /* what is spoilt has no pieces */
    r = crashsim_pick_spell(pick, s->shape, s->source);
    if (r == 0)
        r = shrink_tears(s, pick);
    if (r == 0)
        r = shrink_side(s, pick, true, &kept);
    if (r == 0 && kept.count > 0)
        r = shrink_side(s, pick, false, &dropped);
    if (kept.elements != NULL && (r == 0 || dropped.elements == NULL)) {
        best = dropped.elements != NULL && dropped.count < kept.count ? &dropped : &kept;
        if (shrink_make(pick, best, &small) == 0) {
            crashsim_pick_free(pick);
            *pick = small;
        }
    }
    free(kept.elements);
    free(dropped.elements);
    return r;
}
