/* SPDX-License-Identifier: BSD-3-Clause
 *
 * A file against an array of bytes.
 *
 * In one test several threads work on one file, each in a range of its own whose
 * edges lie inside blocks, so neighbours share blocks and must not be torn.  In
 * the other one thread changes also the size, while others flush, take
 * snapshots and let the background work.  Tiny caches and batches put most
 * of it into the middle of a commit.
 */
#include "core_vol.h"

#define THREADS    4
#define STRIPE     ((size_t)600 * 1000 + 77) /* > 512 blocks of 512 bytes: large holes too */
#define STRIPE_OPS 400
#define RESIZE_OPS 1200
#define RESIZE_MAX ((uint64_t)3 << 20)

static const char *engine_name;

struct stripe {
    pthread_t thread;
    struct kvfs_volume *v;
    struct kvfs_file *file;
    uint64_t start, rng;
    uint8_t *model, *buf;
};

/* --- threads in stripes --- */

struct stripe_extents {
    const struct stripe *s;
    uint64_t at, end;
};

static int
stripe_extent(void *arg, uint64_t offset, uint64_t count, bool hole)
{
    struct stripe_extents *x = arg;

    CORE_MUST(offset == x->at && count > 0 && offset + count <= x->end, "extents with gaps");
    x->at += count;
    for (uint64_t i = 0; hole && i < count; i++)
        CORE_MUST(x->s->model[offset + i - x->s->start] == 0, "data at %llu reported as a hole",
                  (unsigned long long)(offset + i));
    return 0;
}

static void
stripe_op(struct stripe *s)
{
    struct kvfs_error err = {0};
    size_t from = (size_t)(core_random(&s->rng) % STRIPE);
    size_t max = core_random(&s->rng) % 8 == 0 ? STRIPE : 20000;
    size_t len = 1 + (size_t)(core_random(&s->rng) % max);
    struct stripe_extents x = {.s = s};
    unsigned fua = core_random(&s->rng) % 16 == 0 ? KVFS_FUA : 0;

    if (len > STRIPE - from)
        len = STRIPE - from;
    switch (core_random(&s->rng) % 12) {
    case 0:
    case 1:
    case 2:
    case 3: {
        uint8_t byte = (uint8_t)core_random(&s->rng); /* zeros among them */

        if (len > 200000)
            len = 200000;
        memset(s->buf, byte % 16 == 0 ? 0 : byte, len);
        CORE_OK(kvfs_file_pwrite(s->file, s->buf, len, s->start + from, fua, &err));
        memcpy(s->model + from, s->buf, len);
        break;
    }
    case 4:
    case 5:
        CORE_OK(kvfs_file_zero(s->file, len, s->start + from, fua, &err));
        memset(s->model + from, 0, len);
        break;
    case 6:
        CORE_OK(kvfs_file_flush(s->file, &err));
        break;
    case 7:
        x.at = s->start + from;
        x.end = x.at + len;
        CORE_OK(kvfs_file_extents(s->file, len, x.at, 0, stripe_extent, &x, &err));
        CORE_MUST(x.at == x.end, "extents end early");
        break;
    case 8:
        CORE_OK(kvfs_volume_work(s->v, 1, &err));
        break;
    default:
        CORE_OK(kvfs_file_pread(s->file, s->buf, len, s->start + from, &err));
        CORE_MUST(memcmp(s->buf, s->model + from, len) == 0, "wrong bytes at %llu+%zu",
                  (unsigned long long)(s->start + from), len);
        break;
    }
}

static void *
stripe_run(void *arg)
{
    struct stripe *s = arg;

    for (unsigned i = 0; i < STRIPE_OPS; i++)
        stripe_op(s);
    return NULL;
}

static void
stripe_compare(struct stripe *s, struct kvfs_file *f)
{
    struct kvfs_error err = {0};

    CORE_OK(kvfs_file_pread(f, s->buf, STRIPE, s->start, &err));
    CORE_MUST(memcmp(s->buf, s->model, STRIPE) == 0, "wrong bytes in the stripe at %llu",
              (unsigned long long)s->start);
}

static void
stripes_round(uint64_t seed, uint32_t block_size)
{
    struct kvfs_volume_options options = {
        .cache_bytes = KVFS_CACHE_BYTES_MIN, .batch_bytes = 48 << 10, .commit_interval_ms = 7};
    struct stripe s[THREADS] = {{0}};
    struct kvfs_error err = {0};
    struct kvfs_volume *v;
    struct kvfs_file *f;
    char path[64];
    uint64_t ino;

    core_format(path, engine_name, 0);
    v = core_open(path, &options);
    ino = core_create(v, "f", 1000 + THREADS * STRIPE, block_size);
    for (unsigned i = 0; i < THREADS; i++) {
        s[i].v = v;
        s[i].file = core_file(v, ino, KVFS_OPEN_WRITE);
        s[i].start = 1000 + i * STRIPE;
        s[i].rng = seed + i;
        s[i].model = calloc(1, STRIPE);
        s[i].buf = malloc(STRIPE);
        CORE_MUST(s[i].model != NULL && s[i].buf != NULL, "no memory");
    }
    for (unsigned i = 0; i < THREADS; i++)
        CORE_MUST(pthread_create(&s[i].thread, NULL, stripe_run, &s[i]) == 0, "no thread");
    for (unsigned i = 0; i < THREADS; i++)
        CORE_MUST(pthread_join(s[i].thread, NULL) == 0, "no join");
    f = core_file(v, ino, KVFS_OPEN_READ);
    for (unsigned i = 0; i < THREADS; i++) {
        stripe_compare(&s[i], f);
        kvfs_file_close(s[i].file);
    }
    kvfs_file_close(f);
    CORE_OK(kvfs_volume_close(v, &err));
    core_check(path);
    v = core_open(path, NULL);
    f = core_file(v, ino, KVFS_OPEN_WRITE); /* holes are worked off by who may write */
    while (kvfs_volume_work(v, 100, &err) == 1)
        ;
    for (unsigned i = 0; i < THREADS; i++) {
        stripe_compare(&s[i], f);
        free(s[i].model);
        free(s[i].buf);
    }
    kvfs_file_close(f);
    CORE_OK(kvfs_volume_close(v, &err));
    core_check(path);
    core_remove(path);
}

static void
core__threads_in_stripes__neighbours_stay_whole(void **state)
{
    uint64_t seed = core_seed();

    (void)state;
    for (unsigned i = 0; i < 2 * core_scale(); i++) {
        stripes_round(seed, 512);
        stripes_round(seed + 100, 4096);
        (void)core_random(&seed);
    }
}

/* --- one writer that resizes, and disturbers --- */

struct disturb {
    pthread_t thread;
    struct kvfs_volume *v;
    struct kvfs_file *file;
    uint64_t ino, rng;
    bool stop;
};

static void *
disturb_run(void *arg)
{
    struct disturb *d = arg;
    struct kvfs_error err = {0};
    uint8_t byte;

    while (!__atomic_load_n(&d->stop, __ATOMIC_ACQUIRE)) {
        struct kvfs_snapshot *s;
        struct kvfs_file_info info;

        switch (core_random(&d->rng) % 4) {
        case 0:
            CORE_OK(kvfs_file_flush(d->file, &err));
            break;
        case 1:
            CORE_OK(kvfs_volume_work(d->v, 1, &err));
            break;
        case 2:
            CORE_OK(kvfs_snapshot_open(d->v, &s, &err));
            CORE_OK(kvfs_snapshot_info(s, d->ino, &info, &err));
            if (info.size_bytes > 0)
                CORE_OK(kvfs_snapshot_pread(s, d->ino, &byte, 1, info.size_bytes - 1, &err));
            kvfs_snapshot_close(s);
            break;
        default:
            kvfs_file_info(d->file, &info);
            if (info.size_bytes > 0) /* it may have shrunk since */
                (void)kvfs_file_pread(d->file, &byte, 1, info.size_bytes / 2, &err);
            break;
        }
    }
    return NULL;
}

struct resizer {
    struct kvfs_volume *v;
    struct kvfs_file *file;
    uint64_t ino, rng, size;
    uint8_t *model, *buf; /* RESIZE_MAX bytes; zeros beyond `size` */
};

static void
resizer_verify(struct resizer *r)
{
    struct kvfs_error err = {0};
    struct kvfs_file_info info;

    kvfs_file_info(r->file, &info);
    CORE_MUST(info.size_bytes == r->size, "size %llu, not %llu",
              (unsigned long long)info.size_bytes, (unsigned long long)r->size);
    if (r->size == 0)
        return;
    CORE_OK(kvfs_file_pread(r->file, r->buf, (size_t)r->size, 0, &err));
    for (uint64_t i = 0; i < r->size; i++)
        CORE_MUST(r->buf[i] == r->model[i], "byte %llu of %llu is %02x, not %02x",
                  (unsigned long long)i, (unsigned long long)r->size, r->buf[i], r->model[i]);
}

static void
resizer_resize(struct resizer *r, uint64_t size)
{
    struct kvfs_error err = {0};

    CORE_OK(kvfs_file_resize(r->file, size, &err));
    if (size < r->size)
        memset(r->model + size, 0, (size_t)(r->size - size));
    r->size = size;
}

static void
resizer_txn(struct resizer *r, uint64_t from, size_t len)
{
    struct kvfs_error err = {0};
    struct kvfs_file_info info;
    struct kvfs_txn *t;
    uint64_t keep = core_random(&r->rng) % RESIZE_MAX;

    kvfs_file_info(r->file, &info);
    CORE_OK(kvfs_txn_begin(r->v, &t, &err));
    CORE_OK(kvfs_txn_write(t, r->file, info.version, r->buf, len, from, &err));
    memcpy(r->model + from, r->buf, len);
    if (from + len > r->size)
        r->size = from + len;
    if (core_random(&r->rng) % 2 == 0) {
        CORE_OK(kvfs_txn_truncate(t, r->file, info.version, keep, &err));
        if (keep < r->size)
            memset(r->model + keep, 0, (size_t)(r->size - keep));
        r->size = keep;
    }
    if (core_random(&r->rng) % 2 == 0) {
        from = core_random(&r->rng) % (RESIZE_MAX - len);
        CORE_OK(kvfs_txn_write(t, r->file, info.version, r->buf, len, from, &err));
        memcpy(r->model + from, r->buf, len);
        if (from + len > r->size)
            r->size = from + len;
    }
    CORE_OK(kvfs_txn_commit(t, core_random(&r->rng) % 2 == 0 ? KVFS_ORDERED : KVFS_DURABLE, &err));
}

static void
resizer_op(struct resizer *r)
{
    struct kvfs_error err = {0};
    uint64_t from = core_random(&r->rng) % RESIZE_MAX;
    size_t len =
        1 + (size_t)(core_random(&r->rng) % (core_random(&r->rng) % 6 == 0 ? 900000 : 9000));

    if (len > RESIZE_MAX - from)
        len = (size_t)(RESIZE_MAX - from);
    for (size_t i = 0; i < len; i++)
        r->buf[i] = (uint8_t)(r->rng >> (i % 53));
    switch (core_random(&r->rng) % 10) {
    case 0:
        resizer_resize(r, core_random(&r->rng) % 3 == 0 ? from : r->size / 2 + from / 4);
        break;
    case 1:
        CORE_OK(kvfs_file_zero(r->file, len, from, KVFS_EXTEND, &err));
        memset(r->model + from, 0, len);
        if (from + len > r->size)
            r->size = from + len;
        break;
    case 2:
        resizer_txn(r, from, len);
        break;
    case 3:
        resizer_verify(r);
        break;
    case 4:
        if (from + len > r->size) {
            CORE_MUST(kvfs_file_pwrite(r->file, r->buf, len, from, 0, &err) == -EINVAL,
                      "a write beyond the end");
            break;
        }
        CORE_OK(kvfs_file_zero(r->file, len, from, 0, &err));
        memset(r->model + from, 0, len);
        break;
    default:
        CORE_OK(kvfs_file_pwrite(r->file, r->buf, len, from, KVFS_EXTEND, &err));
        memcpy(r->model + from, r->buf, len);
        if (from + len > r->size)
            r->size = from + len;
        break;
    }
}

static void
resizer_open(struct resizer *r, struct disturb *d, const char *path)
{
    struct kvfs_volume_options options = {
        .cache_bytes = KVFS_CACHE_BYTES_MIN, .batch_bytes = 100 << 10, .commit_interval_ms = 5};

    r->v = core_open(path, &options);
    if (r->ino == 0)
        r->ino = core_create(r->v, "f", 0, 0);
    r->file = core_file(r->v, r->ino, KVFS_OPEN_WRITE);
    d->v = r->v;
    d->ino = r->ino;
    d->file = core_file(r->v, r->ino, KVFS_OPEN_READ);
    d->stop = false;
    CORE_MUST(pthread_create(&d->thread, NULL, disturb_run, d) == 0, "no thread");
}

static void
resizer_close(struct resizer *r, struct disturb *d)
{
    struct kvfs_error err = {0};

    __atomic_store_n(&d->stop, true, __ATOMIC_RELEASE);
    CORE_MUST(pthread_join(d->thread, NULL) == 0, "no join");
    kvfs_file_close(d->file);
    kvfs_file_close(r->file);
    CORE_OK(kvfs_volume_close(r->v, &err));
}

static void
core__sizes_and_transactions__as_the_model(void **state)
{
    uint64_t seed = core_seed();

    (void)state;
    for (unsigned round = 0; round < core_scale(); round++) {
        struct resizer r = {.rng = seed};
        struct disturb d = {.rng = seed + 1};
        char path[64];

        core_format(path, engine_name, 0);
        r.model = calloc(1, RESIZE_MAX);
        r.buf = malloc(RESIZE_MAX);
        CORE_MUST(r.model != NULL && r.buf != NULL, "no memory");
        resizer_open(&r, &d, path);
        for (unsigned i = 0; i < RESIZE_OPS; i++) {
            resizer_op(&r);
            if (core_random(&r.rng) % 200 != 0)
                continue;
            resizer_close(&r, &d);
            core_check(path);
            resizer_open(&r, &d, path);
            resizer_verify(&r);
        }
        resizer_verify(&r);
        resizer_close(&r, &d);
        core_check(path);
        core_remove(path);
        free(r.model);
        free(r.buf);
        (void)core_random(&seed);
    }
}

static int
use_mem(void **state)
{
    (void)state;
    engine_name = "mem";
    return 0;
}

static int
use_chosen(void **state)
{
    (void)state;
    engine_name = chosen_engine();
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(core__threads_in_stripes__neighbours_stay_whole),
        cmocka_unit_test(core__sizes_and_transactions__as_the_model),
    };
    int failed = 0;

    if (!chosen_by_name())
        failed += cmocka_run_group_tests_name("core model, mem", tests, use_mem, NULL);
    if (chosen_is_there())
        failed += cmocka_run_group_tests_name("core model", tests, use_chosen, NULL);
    return failed;
}
