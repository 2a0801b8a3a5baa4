/* SPDX-License-Identifier: BSD-3-Clause
 *
 * pick.c - see pick.h.
 */
#include "pick.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static int
pick_reset(struct crashsim_pick *p, size_t count)
{
    *p = (struct crashsim_pick){.count = count};
    p->fates = calloc(count > 0 ? count : 1, sizeof(*p->fates));
    return p->fates != NULL ? 0 : -ENOMEM;
}

void
crashsim_pick_free(struct crashsim_pick *p)
{
    for (size_t i = 0; p->fates != NULL && i < p->count; i++)
        free(p->fates[i].pieces);
    free(p->fates);
    *p = (struct crashsim_pick){.count = 0};
}

/* Are there as many changes as CHOICE names? */
static bool
pick_fits(const struct crashsim_choice *choice, size_t count)
{
    uint64_t end = choice->survive == CRASHSIM_PREFIX ? (uint64_t)count + 1 : count;
    bool one = choice->survive == CRASHSIM_PREFIX || choice->survive == CRASHSIM_LEAVE_ONE_OUT ||
               choice->survive == CRASHSIM_ONLY_ONE;

    if (choice->indexed && one && choice->index >= end && !(choice->index == 0 && count == 0))
        return false;
    return !(choice->indexed && choice->survive == CRASHSIM_SUBSET && count < 64 &&
             choice->index >> count != 0);
}

int
crashsim_pick_choose(struct crashsim_pick *p, const struct crashsim_choice *choice, size_t count)
{
    return pick_fits(choice, count) ? crashsim_pick_of_cut(p, choice, count) : -ERANGE;
}

int
crashsim_pick_of_cut(struct crashsim_pick *p, const struct crashsim_choice *choice, size_t count)
{
    int r = pick_reset(p, count);

    if (r < 0)
        return r;
    p->choice = *choice;
    p->rule = true;
    for (size_t i = 0; i < count; i++)
        p->fates[i].fate = crashsim_choice_fate(choice, i, count);
    return 0;
}

int
crashsim_pick_copy(struct crashsim_pick *p, const struct crashsim_pick *from)
{
    int r = pick_reset(p, from->count);

    if (r < 0)
        return r;
    p->choice = from->choice;
    p->rule = from->rule;
    for (size_t i = 0; i < from->count; i++) {
        const struct crashsim_pick_fate *f = &from->fates[i];

        p->fates[i] = (struct crashsim_pick_fate){.fate = f->fate};
        if (f->pieces == NULL)
            continue;
        p->fates[i].pieces = malloc(f->pieces_count);
        if (p->fates[i].pieces == NULL) {
            crashsim_pick_free(p);
            return -ENOMEM;
        }
        p->fates[i].pieces_count = f->pieces_count;
        memcpy(p->fates[i].pieces, f->pieces, f->pieces_count);
    }
    return 0;
}

/* --- pieces --- */

uint64_t
crashsim_pick_piece_end(const struct crashsim_pick *p, uint64_t offset, uint64_t count,
                        uint64_t at)
{
    uint64_t end;

    (void)crashsim_choice_piece(&p->choice, 0, offset, count, at, &end);
    return end;
}

bool
crashsim_pick_keeps(const struct crashsim_pick *p, size_t i, size_t piece)
{
    return piece < p->fates[i].pieces_count && p->fates[i].pieces[piece] != 0;
}

/* Room for the pieces of change I, none of them kept. */
static int
pick_pieces(struct crashsim_pick *p, size_t i, uint64_t offset, uint64_t count)
{
    struct crashsim_pick_fate *f = &p->fates[i];
    uint32_t n = 0;

    for (uint64_t at = offset; at < offset + count; n++)
        at = crashsim_pick_piece_end(p, offset, count, at);
    free(f->pieces);
    f->pieces = calloc(n > 0 ? n : 1, 1);
    f->pieces_count = n;
    f->fate = CRASHSIM_TORN;
    return f->pieces != NULL ? 0 : -ENOMEM;
}

int
crashsim_pick_spell(struct crashsim_pick *p, crashsim_pick_shape_fn shape, const void *opaque)
{
    p->rule = false;
    for (size_t i = 0; i < p->count; i++) {
        uint64_t offset, count, end, at;
        size_t kept = 0;
        int r;

        if (p->fates[i].fate != CRASHSIM_TORN || p->fates[i].pieces != NULL)
            continue;
        shape(opaque, i, &offset, &count);
        r = pick_pieces(p, i, offset, count);
        if (r < 0)
            return r;
        at = offset;
        for (size_t k = 0; at < offset + count; k++, at = end) {
            p->fates[i].pieces[k] =
                crashsim_choice_piece(&p->choice, i, offset, count, at, &end);
            kept += p->fates[i].pieces[k];
        }
        if (kept == 0 || kept == p->fates[i].pieces_count) {
            free(p->fates[i].pieces);
            p->fates[i] = (struct crashsim_pick_fate){
                .fate = kept == 0 ? CRASHSIM_DROPPED : CRASHSIM_KEPT};
        }
    }
    return 0;
}

/* --- text to pick --- */

/* Digits at *TEXT. */
static bool
pick_number(const char **text, uint64_t *number)
{
    char *end;

    if (**text < '0' || **text > '9')
        return false;
    errno = 0;
    *number = strtoull(*text, &end, 10);
    *text = end;
    return errno == 0;
}

/* "P+Q-R]" */
static int
pick_parse_pieces(struct crashsim_pick_fate *f, const char **text)
{
    for (;;) {
        uint64_t first, last;

        if (!pick_number(text, &first))
            return -EINVAL;
        last = first;
        if (**text == '-' && ((*text)++, !pick_number(text, &last)))
            return -EINVAL;
        if (last < first || last >= f->pieces_count)
            return -ERANGE;
        memset(f->pieces + first, 1, (size_t)(last - first + 1));
        if (*(*text)++ != '+')
            return (*text)[-1] == ']' ? 0 : -EINVAL;
    }
}

static int
pick_parse_list(struct crashsim_pick *p, const char *text, enum crashsim_fate fate,
                crashsim_pick_shape_fn shape, const void *opaque)
{
    while (*text != '\0' && *text != '/') {
        uint64_t first, last, offset, count;
        int r = 0;

        if (!pick_number(&text, &first))
            return -EINVAL;
        last = first;
        if (*text == '-' && (text++, !pick_number(&text, &last)))
            return -EINVAL;
        if (last < first || last >= p->count)
            return -ERANGE;
        for (uint64_t i = first; i <= last; i++)
            p->fates[i].fate = fate;
        if (*text == '~' || *text == '[') {
            shape(opaque, (size_t)last, &offset, &count);
            if (last != first || count == 0)
                return -ERANGE;
            p->fates[last].fate = CRASHSIM_TORN;
        }
        if (*text == '~') {
            text++;
        } else if (*text == '[') {
            text++;
            r = pick_pieces(p, (size_t)last, offset, count);
            if (r == 0)
                r = pick_parse_pieces(&p->fates[last], &text);
        }
        if (r < 0)
            return r;
        if (*text == ',')
            text++;
        else if (*text != '\0' && *text != '/')
            return -EINVAL;
    }
    return 0;
}

/* "/tear=T/seed=N" */
static bool
pick_parse_rest(const char *text, struct crashsim_choice *choice)
{
    char item[64];

    while (*text == '/') {
        size_t len = strcspn(++text, "/");

        if (len >= sizeof(item))
            return false;
        memcpy(item, text, len);
        item[len] = '\0';
        text += len;
        if (strncmp(item, "tear=", 5) == 0) {
            if (!crashsim_choice_parse_tear(item + 5, &choice->tear))
                return false;
        } else if (strncmp(item, "seed=", 5) != 0 ||
                   !crashsim_parse_number(item + 5, &choice->seed)) {
            return false;
        }
    }
    return *text == '\0';
}

int
crashsim_pick_parse(struct crashsim_pick *p, const char *text, size_t count,
                    crashsim_pick_shape_fn shape, const void *opaque)
{
    struct crashsim_choice choice = {.tear = CRASHSIM_TEAR_NONE};
    bool keep = strncmp(text, "keep:", 5) == 0, drop = strncmp(text, "drop:", 5) == 0;
    size_t len = strcspn(text, "/");
    char word[64];
    int r;

    if (!pick_parse_rest(text + len, &choice))
        return -EINVAL;
    if (!keep && !drop) {
        if (len >= sizeof(word))
            return -EINVAL;
        memcpy(word, text, len);
        word[len] = '\0';
        return crashsim_choice_parse_survive(word, &choice) ? crashsim_pick_choose(p, &choice, count)
                                                            : -EINVAL;
    }
    r = pick_reset(p, count);
    if (r < 0)
        return r;
    p->choice = choice;
    for (size_t i = 0; i < count; i++)
        p->fates[i].fate = keep ? CRASHSIM_DROPPED : CRASHSIM_KEPT;
    r = pick_parse_list(p, text + 5, keep ? CRASHSIM_KEPT : CRASHSIM_DROPPED, shape, opaque);
    if (r < 0)
        crashsim_pick_free(p);
    return r;
}

/* --- pick to text --- */

static void
pick_text_pieces(const struct crashsim_pick_fate *f, FILE *out)
{
    const char *plus = "";

    (void)fputc('[', out);
    for (uint32_t k = 0; k < f->pieces_count; k++) {
        uint32_t first = k;

        if (f->pieces[k] == 0)
            continue;
        while (k + 1 < f->pieces_count && f->pieces[k + 1] != 0)
            k++;
        (void)fprintf(out, "%s%u", plus, first);
        if (k > first)
            (void)fprintf(out, "-%u", k);
        plus = "+";
    }
    (void)fputc(']', out);
}

static void
pick_text_list(const struct crashsim_pick *p, enum crashsim_fate listed, FILE *out)
{
    const char *comma = "";

    for (size_t i = 0; i < p->count; i++) {
        size_t first = i;

        if (p->fates[i].fate == CRASHSIM_TORN) {
            (void)fprintf(out, "%s%zu", comma, i);
            if (p->fates[i].pieces != NULL)
                pick_text_pieces(&p->fates[i], out);
            else
                (void)fputc('~', out);
            comma = ",";
        } else if (p->fates[i].fate == listed) {
            while (i + 1 < p->count && p->fates[i + 1].fate == listed)
                i++;
            (void)fprintf(out, "%s%zu", comma, first);
            if (i > first)
                (void)fprintf(out, "-%zu", i);
            comma = ",";
        }
    }
}

char *
crashsim_pick_text(const struct crashsim_pick *p)
{
    size_t counts[3], size;
    char *text = NULL;
    FILE *out = open_memstream(&text, &size);
    bool bad;

    if (out == NULL)
        return NULL;
    crashsim_pick_counts(p, counts);
    if (p->rule) {
        (void)fputs(crashsim_choice_survive_name(p->choice.survive), out);
        if (p->choice.indexed)
            (void)fprintf(out, ":%" PRIu64, p->choice.index);
    } else {
        bool keep = counts[CRASHSIM_KEPT] <= counts[CRASHSIM_DROPPED];

        (void)fputs(keep ? "keep:" : "drop:", out);
        pick_text_list(p, keep ? CRASHSIM_KEPT : CRASHSIM_DROPPED, out);
    }
    if (p->choice.tear != CRASHSIM_TEAR_NONE && (p->rule || counts[CRASHSIM_TORN] > 0))
        (void)fprintf(out, "/tear=%s", crashsim_choice_tear_name(p->choice.tear));
    if (p->rule ? (p->choice.tear != CRASHSIM_TEAR_NONE || !p->choice.indexed) &&
                      p->choice.survive != CRASHSIM_DROP_ALL
                : p->choice.tear >= CRASHSIM_TEAR_BYTE && counts[CRASHSIM_TORN] > 0)
        (void)fprintf(out, "/seed=%" PRIu64, p->choice.seed);
    bad = ferror(out) != 0;
    if (fclose(out) != 0 || bad) {
        free(text);
        return NULL;
    }
    return text;
}

void
crashsim_pick_counts(const struct crashsim_pick *p, size_t counts[3])
{
    counts[0] = counts[1] = counts[2] = 0;
    for (size_t i = 0; i < p->count; i++)
        counts[p->fates[i].fate]++;
}

bool
crashsim_pick_is_spoilt(const struct crashsim_pick *p)
{
    if (p->choice.tear < CRASHSIM_TEAR_BYTE)
        return false;
    for (size_t i = 0; i < p->count; i++) { /* what has pieces is torn by them */
        if (p->fates[i].fate == CRASHSIM_TORN && p->fates[i].pieces == NULL)
            return true;
    }
    return false;
}
