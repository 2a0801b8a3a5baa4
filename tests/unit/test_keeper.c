/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_keeper.c - old values for snapshots (engines/keeper.h), against plain copies.
 *
 * A store of a few keys, some of them prefixes of others, changes in random batches; each
 * open snapshot has a whole copy of what it must show.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "../../engines/keeper.h"

#define KEYS  24 /* the second half is the first one in the other keyspace */
#define SNAPS 6

struct state {
    int value[KEYS]; /* 0: absent */
};

struct world {
    struct kvfs_keeper *k;
    struct state live;
    struct kvfs_keeper_snap snap[SNAPS];
    struct state copy[SNAPS];
    bool open[SNAPS];
    uint64_t random;
};

static uint64_t
below(struct world *w, uint64_t bound)
{
    w->random = w->random * 6364136223846793005u + 1442695040888963407u;
    return (w->random >> 33) % bound;
}

/* Rising in the order of memcmp: "a", "aa", "b", "ba", ... */
static size_t
key_of(int i, char key[3])
{
    i %= KEYS / 2;
    key[0] = (char)('a' + i / 2);
    key[1] = i % 2 != 0 ? 'a' : '\0';
    key[2] = '\0';
    return strlen(key);
}

static enum kvfs_keyspace
space_of(int i)
{
    return i < KEYS / 2 ? KVFS_META : KVFS_DATA;
}

static void
change(struct world *w, int i, int value)
{
    char key[3];
    size_t len = key_of(i, key);

    if (kvfs_keeper_wanted(w->k))
        kvfs_keeper_keep(w->k, space_of(i), key, len, w->live.value[i] != 0 ? &w->live.value[i] : NULL,
                         w->live.value[i] != 0 ? sizeof(int) : 0);
    w->live.value[i] = value;
}

static int
seen(struct world *w, int s, int i)
{
    char key[3];
    size_t len = key_of(i, key), value_len = 0;
    int value = 0, rc;
    struct iovec iov = {.iov_base = &value, .iov_len = sizeof(value)};

    rc = kvfs_keeper_get(w->k, &w->snap[s], space_of(i), key, len, 0, &iov, 1, &value_len);
    if (rc == KVFS_KEEPER_LIVE)
        return w->live.value[i];
    if (rc == KVFS_KEEPER_VALUE)
        assert_int_equal(value_len, sizeof(value));
    return rc < 0 ? rc : rc == KVFS_KEEPER_ABSENT ? 0 : value;
}

static int
index_of(enum kvfs_keyspace keyspace, const char *key, size_t len)
{
    char mine[3];

    for (int i = 0; i < KEYS; i++)
        if (space_of(i) == keyspace && key_of(i, mine) == len && memcmp(mine, key, len) == 0)
            return i;
    fail_msg("a key that was never kept");
    return -1;
}

/* Keys that a search passes by must be as the live store has them; so must all that differ be
 * found. */
static void
check_near(struct world *w, int s, enum kvfs_keyspace keyspace, bool reverse)
{
    char at[KVFS_META_KEY_MAX] = "";
    struct kvfs_keeper_bound b = {.key = at, .reverse = reverse};
    bool found[KEYS] = {false};
    size_t len = 0;
    int last = reverse ? KEYS : -1;

    for (;;) {
        int rc = kvfs_keeper_near(w->k, &w->snap[s], keyspace, &b, at, &len), i;

        assert_true(rc >= 0);
        if (rc == 0)
            break;
        i = index_of(keyspace, at, len);
        assert_true(reverse ? i < last : i > last);
        last = i;
        found[i] = true;
        b.key_len = len;
        b.behind = !reverse;
    }
    for (int i = 0; i < KEYS; i++)
        if (space_of(i) == keyspace && w->copy[s].value[i] != w->live.value[i])
            assert_true(found[i]);
}

static void
check(struct world *w)
{
    for (int s = 0; s < SNAPS; s++) {
        if (!w->open[s])
            continue;
        for (int i = 0; i < KEYS; i++)
            if (seen(w, s, i) != w->copy[s].value[i])
                fail_msg("snapshot %d, key %d: %d, not %d", s, i, seen(w, s, i),
                         w->copy[s].value[i]);
        for (int ks = KVFS_META; ks <= KVFS_DATA; ks++) {
            check_near(w, s, (enum kvfs_keyspace)ks, false);
            check_near(w, s, (enum kvfs_keyspace)ks, true);
        }
    }
}

static void
keeper__random_batches__snapshots_as_their_copies(void **state)
{
    const char *seed = getenv("KVFS_SEED"); // NOLINT(concurrency-mt-unsafe): there is one thread
    struct world w = {.k = kvfs_keeper_new((size_t)1 << 30)};
    uint64_t lag;

    (void)state;
    w.random = seed != NULL ? strtoull(seed, NULL, 10) : (uint64_t)time(NULL);
    (void)printf("KVFS_SEED=%llu\n", (unsigned long long)w.random);
    assert_non_null(w.k);
    for (int round = 1; round < 4000; round++) {
        int s = (int)below(&w, SNAPS);

        if (!w.open[s] && below(&w, 2) == 0) {
            kvfs_keeper_begin(w.k, &w.snap[s]);
            w.copy[s] = w.live;
            w.open[s] = true;
        } else if (w.open[s] && below(&w, 4) == 0) {
            kvfs_keeper_end(w.k, &w.snap[s]);
            w.open[s] = false;
        }
        for (uint64_t n = below(&w, 6); n > 0; n--)
            change(&w, (int)below(&w, KEYS), below(&w, 3) == 0 ? 0 : round);
        kvfs_keeper_done(w.k);
        check(&w);
    }
    for (int s = 0; s < SNAPS; s++)
        if (w.open[s])
            kvfs_keeper_end(w.k, &w.snap[s]);
    assert_int_equal(kvfs_keeper_readers(w.k, &lag), 0);
    assert_int_equal(lag, 0);
    assert_false(kvfs_keeper_wanted(w.k));
    kvfs_keeper_free(w.k);
}

static void
keeper__more_than_the_bound__the_oldest_is_stale_the_youngest_exact(void **state)
{
    struct world w = {.k = kvfs_keeper_new(4096)};
    char key[3], value[256];
    struct kvfs_keeper_bound b = {.reverse = false};
    size_t len;

    (void)state;
    memset(value, 'x', sizeof(value));
    for (int i = 0; i < 2; i++) {
        kvfs_keeper_begin(w.k, &w.snap[i]);
        for (int n = 0; n < 10; n++) { /* both kept: under the bound, then over it */
            len = key_of(n, key);
            kvfs_keeper_keep(w.k, KVFS_META, key, len, value, sizeof(value));
        }
        kvfs_keeper_done(w.k);
    }
    len = key_of(0, key);
    assert_int_equal(kvfs_keeper_get(w.k, &w.snap[0], KVFS_META, key, len, 0, NULL, 0, NULL),
                     -ESTALE);
    assert_int_equal(kvfs_keeper_near(w.k, &w.snap[0], KVFS_META, &b, value, &len), -ESTALE);
    assert_int_equal(kvfs_keeper_get(w.k, &w.snap[1], KVFS_META, key, key_of(0, key), 0, NULL, 0,
                                     &len),
                     KVFS_KEEPER_VALUE);
    assert_int_equal(len, sizeof(value));
    kvfs_keeper_end(w.k, &w.snap[1]);
    kvfs_keeper_end(w.k, &w.snap[0]);
    kvfs_keeper_free(w.k);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeper__random_batches__snapshots_as_their_copies),
        cmocka_unit_test(keeper__more_than_the_bound__the_oldest_is_stale_the_youngest_exact),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
