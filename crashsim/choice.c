/* SPDX-License-Identifier: BSD-3-Clause
 *
 * choice.c - see choice.h.
 */
#include "choice.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "random.h"

#define CHOICE_PIECES_MAX 1024

static const char *const choice_survive_names[] = {"drop-all", "prefix", "leave-one-out",
                                                   "only-one", "random", "subset"};
static const char *const choice_tear_names[] = {"none", "512", "4096", "byte", "garbage"};

static uint64_t
choice_index(const struct crashsim_choice *c, uint64_t below)
{
    return c->indexed ? c->index : crashsim_hash2(c->seed, 1) % below;
}

enum crashsim_fate
crashsim_choice_fate(const struct crashsim_choice *c, size_t i, size_t n)
{
    enum crashsim_fate torn = c->tear != CRASHSIM_TEAR_NONE ? CRASHSIM_TORN : CRASHSIM_DROPPED;
    bool coin = (crashsim_hash2(c->seed, 2) & 1) != 0;
    uint64_t r;

    switch (c->survive) {
    case CRASHSIM_DROP_ALL:
        return CRASHSIM_DROPPED;
    case CRASHSIM_PREFIX:
        r = choice_index(c, (uint64_t)n + 1);
        return i < r ? CRASHSIM_KEPT : i == r ? torn : CRASHSIM_DROPPED;
    case CRASHSIM_LEAVE_ONE_OUT:
        if (i != choice_index(c, n))
            return CRASHSIM_KEPT;
        return coin ? torn : CRASHSIM_DROPPED;
    case CRASHSIM_ONLY_ONE:
        if (i != choice_index(c, n))
            return CRASHSIM_DROPPED;
        return coin && torn == CRASHSIM_TORN ? CRASHSIM_TORN : CRASHSIM_KEPT;
    case CRASHSIM_RANDOM:
        r = crashsim_hash2(c->seed, 16 + (uint64_t)i);
        if ((r & 1) == 0)
            return CRASHSIM_DROPPED;
        return (r & 6) == 0 && torn == CRASHSIM_TORN ? CRASHSIM_TORN : CRASHSIM_KEPT;
    case CRASHSIM_SUBSET:
        r = c->indexed ? c->index : crashsim_hash2(c->seed, 1);
        return i < 64 && ((r >> i) & 1) != 0 ? CRASHSIM_KEPT : CRASHSIM_DROPPED;
    }
    return CRASHSIM_DROPPED;
}

bool
crashsim_choice_piece(const struct crashsim_choice *c, size_t i, uint64_t offset, uint64_t count,
                      uint64_t at, uint64_t *end)
{
    uint64_t unit = c->tear == CRASHSIM_TEAR_4096 ? 4096 : 512;

    while (count / unit > CHOICE_PIECES_MAX)
        unit *= 2;
    *end = (at / unit + 1) * unit;
    if (*end > offset + count)
        *end = offset + count;
    return (crashsim_hash2(crashsim_hash2(c->seed, 3 + ((uint64_t)i << 8)), at / unit) & 1) != 0;
}

uint64_t
crashsim_choice_spoilt(const struct crashsim_choice *c, size_t i, uint64_t offset, uint64_t count,
                       uint32_t *new_bytes)
{
    uint64_t r = crashsim_hash2(c->seed, 4 + ((uint64_t)i << 8));
    uint64_t first = offset / 512, sectors = (offset + count - 1) / 512 - first + 1;

    *new_bytes = 1 + (uint32_t)(crashsim_hash(r) % 511);
    return first + r % sectors;
}

bool
crashsim_parse_number(const char *text, uint64_t *number)
{
    unsigned long long n;
    char *end;

    if (text[0] < '0' || text[0] > '9') /* strtoull() takes spaces and signs */
        return false;
    errno = 0;
    n = strtoull(text, &end, strncmp(text, "0x", 2) == 0 ? 16 : 10);
    *number = n;
    return errno == 0 && *end == '\0' && end[-1] != 'x';
}

static bool
choice_find(const char *const *names, size_t count, const char *text, size_t len, size_t *found)
{
    for (*found = 0; *found < count; (*found)++) {
        if (strlen(names[*found]) == len && strncmp(names[*found], text, len) == 0)
            return true;
    }
    return false;
}

bool
crashsim_choice_parse_survive(const char *text, struct crashsim_choice *c)
{
    size_t len = strcspn(text, ":"), found;
    uint64_t index = 0;
    bool indexed = text[len] == ':';

    if (!choice_find(choice_survive_names, sizeof(choice_survive_names) / sizeof(char *), text,
                     len, &found))
        return false;
    if (indexed && (found == CRASHSIM_DROP_ALL || found == CRASHSIM_RANDOM ||
                    !crashsim_parse_number(text + len + 1, &index)))
        return false;
    c->survive = (enum crashsim_survive)found;
    c->indexed = indexed;
    c->index = index;
    return true;
}

bool
crashsim_choice_parse_tear(const char *text, enum crashsim_tear *tear)
{
    size_t found;

    if (!choice_find(choice_tear_names, sizeof(choice_tear_names) / sizeof(char *), text,
                     strlen(text), &found))
        return false;
    *tear = (enum crashsim_tear)found;
    return true;
}

const char *
crashsim_choice_survive_name(enum crashsim_survive survive)
{
    return choice_survive_names[survive];
}

const char *
crashsim_choice_tear_name(enum crashsim_tear tear)
{
    return choice_tear_names[tear];
}
