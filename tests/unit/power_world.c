/* SPDX-License-Identifier: BSD-3-Clause
 *
 * power_world.c - random batches and power cuts (power_world.h).
 *
 * KVFS_SEED repeats a run.
 */
#include <dlfcn.h>
#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <kvfs/batch.h>

#include "power_world.h"

uint64_t
power_random(struct power *p, uint64_t bound)
{
    uint64_t z = p->random += 0x9e3779b97f4a7c15u; /* splitmix64 */

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % bound;
}

static size_t
power_key(unsigned ks, unsigned i, uint8_t key[KVFS_DATA_KEY_LEN])
{
    memset(key, 0, KVFS_DATA_KEY_LEN);
    if (ks == KVFS_DATA) {
        key[15] = (uint8_t)i;
        return KVFS_DATA_KEY_LEN;
    }
    key[0] = i % 2 == 0 ? 0 : 'k'; /* half of them are those of a wrapper above */
    key[1] = (uint8_t)(0x60 + i);  /* the hybrid's own ones lie in between */
    return 2;
}

/* --- batches ---------------------------------------------------------------------------- */

static void
power_range(struct power *p, struct power_state *s, unsigned ks)
{
    uint8_t lo[KVFS_DATA_KEY_LEN], hi[KVFS_DATA_KEY_LEN];
    unsigned from = (unsigned)power_random(p, POWER_KEYS), to = (unsigned)power_random(p, POWER_KEYS);
    size_t lo_len = power_key(ks, from, lo), hi_len = power_key(ks, to, hi);

    if (power_random(p, 4) == 0)
        lo_len = 0;
    if (power_random(p, 4) == 0)
        hi_len = 0;
    for (unsigned i = 0; i < POWER_KEYS; i++) {
        uint8_t key[KVFS_DATA_KEY_LEN];
        size_t len = power_key(ks, i, key);

        if ((lo_len == 0 || memcmp(key, lo, len) >= 0) &&
            (hi_len == 0 || memcmp(key, hi, len) < 0))
            s->value[ks][i] = 0;
    }
    kvfs_batch_del_range(p->b, (enum kvfs_keyspace)ks, lo, lo_len, hi, hi_len);
}

static void
power_op(struct power *p, struct power_state *s, unsigned ks)
{
    static uint8_t value[40000];
    uint8_t key[KVFS_DATA_KEY_LEN];
    unsigned i = (unsigned)power_random(p, POWER_KEYS);
    size_t len = power_key(ks, i, key);

    switch (power_random(p, 8)) {
    case 0:
        power_range(p, s, ks);
        break;
    case 1:
        kvfs_batch_del(p->b, (enum kvfs_keyspace)ks, key, len);
        s->value[ks][i] = 0;
        break;
    default:
        memcpy(value, &p->number, sizeof(p->number));
        kvfs_batch_put(p->b, (enum kvfs_keyspace)ks, key, len, value,
                       power_random(p, 16) == 0 ? sizeof(value) : sizeof(p->number));
        s->value[ks][i] = p->number;
    }
}

/* Where batches repeat, what one is follows from its number: one that is used again gives the
 * same. */
static enum kvfs_durability
power_build(struct power *p, struct kvfs_batch *batch)
{
    uint64_t random = p->random;
    enum kvfs_durability durability;
    unsigned sides;

    p->number++;
    if (p->repeats)
        p->random = p->seed ^ p->number * 0xd1342543de82ef95u;
    durability = (enum kvfs_durability)power_random(p, 3);
    sides = 1 + (unsigned)power_random(p, 3);
    kvfs_batch_reset(p->b);
    for (unsigned ks = 0; ks < 2; ks++)
        for (uint64_t n = (sides >> ks & 1) * (1 + power_random(p, 3)); n > 0; n--)
            power_op(p, &p->states[p->count + 1], ks);
    assert_int_equal(kvfs_batch_end(p->b, batch), 0);
    if (p->repeats)
        p->random = random;
    return durability;
}

/* One batch; false when the power is off. */
static bool
power_batch(struct power *p)
{
    enum kvfs_durability durability;
    struct kvfs_error err = {0};
    struct kvfs_batch batch;
    int rc;

    p->states[p->count + 1] = p->states[p->count];
    p->numbers[p->count] = p->number;
    durability = power_build(p, &batch);
    p->count++;
    rc = p->engine->apply(p->db, &batch, durability, &err);
    if (rc == 0) {
        p->acked = p->count;
        if (durability == KVFS_DURABLE || (durability == KVFS_ORDERED && p->ordered_is_durable))
            p->durable = p->count;
        if (power_random(p, 16) == 0 && (rc = p->engine->sync(p->db, &err)) == 0)
            p->durable = p->count;
    }
    if (rc != 0 && !p->control->dead)
        fail_msg("KVFS_SEED=%llu: %s", (unsigned long long)p->seed, err.msg);
    return rc == 0;
}

/* --- judging ------------------------------------------------------------------------------ */

static bool
power_read(struct power *p, struct power_state *s)
{
    struct kvfs_db_snap *snap;
    struct kvfs_error err = {0};

    if (p->engine->begin(p->db, &snap, &err) != 0)
        fail_msg("KVFS_SEED=%llu: %s", (unsigned long long)p->seed, err.msg);
    memset(s, 0, sizeof(*s));
    for (unsigned ks = 0; ks < 2; ks++)
        for (unsigned i = 0; i < POWER_KEYS; i++) {
            uint8_t key[KVFS_DATA_KEY_LEN];
            size_t len = power_key(ks, i, key);
            struct iovec iov = {&s->value[ks][i], sizeof(s->value[ks][i])};
            int rc = p->engine->get(snap, (enum kvfs_keyspace)ks, key, len, 0, &iov, 1, NULL, &err);

            if (rc != 0 && rc != -ENOENT)
                fail_msg("KVFS_SEED=%llu: %s", (unsigned long long)p->seed, err.msg);
        }
    p->engine->end(snap);
    return true;
}

static void
power_judge(struct power *p, bool died)
{
    unsigned least = died ? p->acked : p->durable;
    struct power_state now;

    (void)power_read(p, &now);
    for (unsigned i = least; i <= p->count; i++)
        if (memcmp(&now, &p->states[i], sizeof(now)) == 0) {
            if (p->repeats && i < p->count && power_random(p, 2) == 0)
                p->number = p->numbers[i]; /* what was lost is written again as it was */
            p->count = p->acked = i;
            if (!died) /* it lies on the medium; what a death left may still be lost */
                p->durable = i;
            return;
        }
    (void)snprintf(p->wrong, sizeof(p->wrong),
                   "KVFS_SEED=%llu: after %s the state is that of none of the batches %u to %u "
                   "(durable %u, acknowledged %u)",
                   (unsigned long long)p->seed, died ? "a death" : "a power cut", least, p->count,
                   p->durable, p->acked);
}

static int
power_open(struct power *p, bool readonly)
{
    const struct kvfs_engine_options options = {
        .create = !readonly, .readonly = readonly, .params = p->params};
    struct kvfs_error err = {0};
    int rc = p->engine->open(p->engine, p->folder, &options, &p->db, &err);

    if (rc != 0 && !p->control->dead)
        fail_msg("KVFS_SEED=%llu: open: %s", (unsigned long long)p->seed, err.msg);
    return rc;
}

/* The power goes and comes, and may go again while the store is opened. */
static void
power_again(struct power *p, bool died)
{
    bool readonly = power_random(p, 4) == 0;

    do {
        p->cut(died);
        if (p->files != NULL)
            p->files(died);
        p->control->steps = power_random(p, 2) == 0 ? power_random(p, 8) : UINT64_MAX;
    } while (power_open(p, readonly) != 0);
    p->control->steps = UINT64_MAX;
    power_judge(p, died);
    if (readonly) {
        p->engine->close(p->db);
        (void)power_open(p, false);
        power_judge(p, died);
    }
}

static int
power_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

/* One store through some power cuts. */
static void
power_store(struct power *p)
{
    (void)snprintf(p->folder, sizeof(p->folder), "/tmp/kvfs-power-XXXXXX");
    assert_non_null(mkdtemp(p->folder));
    p->forget();
    if (p->files_new != NULL)
        p->files_new(p->folder);
    memset(&p->states[0], 0, sizeof(p->states[0]));
    p->count = p->durable = p->acked = 0;
    p->control->steps = UINT64_MAX;
    p->control->dead = false;
    assert_int_equal(power_open(p, false), 0);
    for (unsigned life = 0; life < POWER_LIVES && p->wrong[0] == '\0'; life++) {
        unsigned most = POWER_BATCHES * (life + 1);

        p->control->steps = power_random(p, 40);
        while (p->count < most && power_batch(p))
            ;
        if (p->count == most && power_random(p, 2) == 0)
            p->control->steps = UINT64_MAX; /* a close in peace */
        else
            p->control->dead = true;
        p->engine->close(p->db);
        power_again(p, power_random(p, 3) == 0);
    }
    p->engine->close(p->db);
    // NOLINTNEXTLINE(concurrency-mt-unsafe): there is one thread
    (void)nftw(p->folder, power_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

void
power_run(struct power *p, const char *params, unsigned stores)
{
    unsigned i;

    p->params = params;
    p->wrong[0] = '\0';
    for (i = 0; i < stores && p->wrong[0] == '\0'; i++)
        power_store(p);
    (void)printf("             %s: %u stores\n", params, i);
}

/* --- the world ----------------------------------------------------------------------------- */

void
power_setup(struct power *p, const char *engine)
{
    const char *seed = getenv("KVFS_SEED"); // NOLINT(concurrency-mt-unsafe): there is one thread
    struct kvfs_error err = {0};
    void *module;

    p->seed = seed != NULL ? strtoull(seed, NULL, 10) : (uint64_t)time(NULL);
    p->random = p->seed;
    (void)printf("KVFS_SEED=%llu\n", (unsigned long long)p->seed);
    // NOLINTNEXTLINE(concurrency-mt-unsafe): there is one thread
    assert_int_equal(setenv("KVFS_ENGINE_DIR", KVFS_MODULES, 1), 0);
    if (kvfs_engine_find(engine, &p->engine, &err) != 0)
        fail_msg("%s", err.msg);
    module = dlopen(KVFS_MODULES "/libkvfs-engine-cut.so", RTLD_NOW | RTLD_NOLOAD);
    assert_non_null(module);
    p->control = dlsym(module, "cut_control");
    *(void **)&p->forget = dlsym(module, "cut_forget");
    *(void **)&p->cut = dlsym(module, "cut_power");
    *(void **)&p->step = dlsym(module, "cut_step");
    assert_true(p->control != NULL && p->forget != NULL && p->cut != NULL && p->step != NULL);
    p->control->random = p->seed;
    p->b = kvfs_batch_new();
    assert_non_null(p->b);
}

void
power_teardown(struct power *p)
{
    p->forget();
    kvfs_batch_free(p->b);
}
