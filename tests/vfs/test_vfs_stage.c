/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_vfs_stage.c - the stage against an array of bytes: random writes, reads and truncates,
 * in memory, in the temporary file, and with the line between the two anywhere.
 */
#include "vfs_world.h"

#include <time.h>

#include "vfs_priv.h"

#define FILE_MAX 300000u

static uint64_t seed;

static uint32_t
rnd(uint32_t below)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((seed >> 33) % below);
}

struct model {
    uint8_t base[FILE_MAX];
    uint8_t now[FILE_MAX];
    uint8_t out[FILE_MAX];
    uint8_t buf[FILE_MAX];
    size_t size;
    uint64_t last; /* where the piece before ended */
};

static int
model_base(void *arg, void *buf, size_t n, uint64_t offset)
{
    const struct model *m = arg;

    memcpy(buf, m->base + offset, n);
    return SQLITE_OK;
}

static int
model_piece(void *arg, const void *buf, size_t n, uint64_t offset)
{
    struct model *m = arg;

    assert_true(offset >= m->last && offset + n <= m->size); /* rising, inside */
    memcpy(m->out + offset, buf, n);
    m->last = offset + n;
    return SQLITE_OK;
}

/* What a commit does with the stage gives the model. */
static void
model_compare(struct model *m, struct vfs_stage *s, size_t base_size)
{
    size_t base = (size_t)(s->base_end < base_size ? s->base_end : base_size);

    memset(m->out, 0, sizeof(m->out));
    memcpy(m->out, m->base, base);
    m->last = 0;
    assert_int_equal(s->size, m->size);
    assert_int_equal(vfs_stage_each(s, model_piece, m), SQLITE_OK);
    assert_memory_equal(m->out, m->now, m->size);
}

static void
model_step(struct model *m, struct vfs_stage *s)
{
    uint32_t what = rnd(20);
    size_t at = rnd(FILE_MAX);
    size_t n = 1 + rnd(rnd(3) == 0 ? 70000 : 5000);
    size_t inside;

    if (rnd(2) == 0) { /* as SQLite does: pages */
        at &= ~(size_t)4095;
        n = 4096;
    }
    if (n > FILE_MAX - at)
        n = FILE_MAX - at;
    if (what < 12) {
        uint8_t *bytes = m->buf;

        memset(bytes, (int)rnd(256), n);
        assert_int_equal(vfs_stage_write(s, bytes, n, at), SQLITE_OK);
        memcpy(m->now + at, bytes, n);
        m->size = m->size > at + n ? m->size : at + n;
    } else if (what == 12) {
        assert_int_equal(vfs_stage_truncate(s, at), SQLITE_OK);
        if (at < m->size)
            memset(m->now + at, 0, FILE_MAX - at);
        m->size = at;
    } else {
        inside = at >= m->size ? 0 : m->size - at < n ? m->size - at : n;
        memset(m->buf, 0xee, n);
        assert_int_equal(vfs_stage_read(s, m->buf, n, at),
                         inside < n ? SQLITE_IOERR_SHORT_READ : SQLITE_OK);
        assert_memory_equal(m->buf, m->now + at, inside);
        for (size_t i = inside; i < n; i++)
            assert_int_equal(m->buf[i], 0);
    }
}

static void
random__any_unit_and_memory__is_the_array(void **state)
{
    static const size_t memories[] = {0, 20000, 100000, 1000000};
    struct model *m = malloc(sizeof(*m));
    const char *scale = getenv("KVFS_SCALE"); // NOLINT(concurrency-mt-unsafe)

    (void)state;
    assert_non_null(m);
    assert_int_equal(kvfs_sqlite_register(0), SQLITE_OK);
    for (long round = 0; round < 40 * (scale != NULL ? strtol(scale, NULL, 10) : 1); round++) {
        struct vfs_stage s;
        size_t base_size = rnd(FILE_MAX);

        vfs_stage_memory_max_bytes = memories[rnd(4)];
        for (size_t i = 0; i < FILE_MAX; i++)
            m->base[i] = (uint8_t)(1 + rnd(255));
        memset(m->now, 0, sizeof(m->now));
        memcpy(m->now, m->base, base_size);
        m->size = base_size;
        vfs_stage_init(&s, 512u << rnd(8), model_base, m);
        vfs_stage_begin(&s, base_size);
        assert_true(vfs_stage_is_empty(&s));
        for (int step = 0; step < 100; step++)
            model_step(m, &s);
        model_compare(m, &s, base_size);
        assert_int_equal(vfs_stage_truncate(&s, 0), SQLITE_OK);
        assert_true(vfs_stage_is_empty(&s));
        vfs_stage_drop(&s);
    }
    free(m);
}

/* A stage of 1 TiB, a block here and there: little memory, and what lies between is the base. */
static void
sparse__far_apart__is_small(void **state)
{
    static uint8_t page[4096];
    struct model *m = calloc(1, sizeof(*m));
    struct vfs_stage s;
    sqlite3_int64 before = sqlite3_memory_used();

    (void)state;
    assert_non_null(m);
    assert_int_equal(kvfs_sqlite_register(0), SQLITE_OK);
    vfs_stage_memory_max_bytes = 0;
    vfs_stage_init(&s, 512, model_base, m);
    vfs_stage_begin(&s, 0);
    for (uint64_t i = 0; i < 16; i++) {
        memset(page, (int)i + 1, sizeof(page));
        assert_int_equal(vfs_stage_write(&s, page, sizeof(page), i << 36), SQLITE_OK);
    }
    assert_true(sqlite3_memory_used() - before < (sqlite3_int64)2 << 20);
    for (uint64_t i = 0; i < 16; i++) {
        assert_int_equal(vfs_stage_read(&s, page, sizeof(page), i << 36), SQLITE_OK);
        assert_int_equal(page[4095], (int)i + 1);
    }
    vfs_stage_drop(&s);
    assert_true(sqlite3_memory_used() <= before + 1024);
    free(m);
}

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random__any_unit_and_memory__is_the_array),
        cmocka_unit_test(sparse__far_apart__is_small),
    };
    const char *given = argc > 1 ? argv[1] : getenv("KVFS_SEED"); // NOLINT(concurrency-mt-unsafe)

    seed = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    (void)printf("KVFS_SEED=%llu\n", (unsigned long long)seed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
