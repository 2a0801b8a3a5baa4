/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The core at its edges: the order in which writes become visible to others, a store
 * that is full, files as large as they get.
 */
#include <sys/mman.h>
#include <sys/wait.h>

#include "core_vol.h"

static const char *engine_name;

/* --- order ------------------------------------------------------------------
 *
 * One thread writes, and writes on only after it was answered.  Operation number i
 * follows from i alone.  Another process looks, through snapshots of what the engine
 * holds: each must be the state after some operation m, and m never less than the
 * last one that was flushed before the look. */

#define ORDER_CELL  512u
#define ORDER_CELLS 96u
#define ORDER_FILES 2u
#define ORDER_LOOKS 150u
#define ORDER_HIDDEN_MAX 64 /* operations that later zeros may hide from a look */

struct order_shared {
    uint64_t flushed; /* operation */
    uint64_t wrong;   /* the reader gave up */
    uint64_t looks;
    uint64_t stop;
};

struct order_op {
    unsigned file, first, count;
    bool zero;
};

static struct order_op
order_op(uint64_t i)
{
    uint64_t h = i * 7919;
    struct order_op op;

    op.file = (unsigned)(core_random(&h) % ORDER_FILES);
    op.first = (unsigned)(core_random(&h) % ORDER_CELLS);
    op.count = 1 + (unsigned)(core_random(&h) % 12);
    if (op.count > ORDER_CELLS - op.first)
        op.count = ORDER_CELLS - op.first;
    op.zero = core_random(&h) % 5 == 0;
    return op;
}

static void
order_apply(uint64_t model[ORDER_FILES][ORDER_CELLS], uint64_t i)
{
    struct order_op op = order_op(i);

    for (unsigned c = 0; c < op.count; c++)
        model[op.file][op.first + c] = op.zero ? 0 : i;
}

/* The cells as a snapshot shows them.  A cell is all of one number, or torn: UINT64_MAX. */
static uint64_t
order_look(struct kvfs_volume *v, const uint64_t ino[ORDER_FILES],
           uint64_t seen[ORDER_FILES][ORDER_CELLS])
{
    static uint64_t buf[ORDER_CELLS * ORDER_CELL / 8];
    struct kvfs_error err = {0};
    struct kvfs_snapshot *s;
    uint64_t newest = 0;

    CORE_OK(kvfs_snapshot_open(v, &s, &err));
    for (unsigned f = 0; f < ORDER_FILES; f++) {
        CORE_OK(kvfs_snapshot_pread(s, ino[f], buf, sizeof(buf), 0, &err));
        for (unsigned c = 0; c < ORDER_CELLS; c++) {
            seen[f][c] = buf[c * ORDER_CELL / 8];
            for (unsigned k = 1; k < ORDER_CELL / 8; k++)
                newest = buf[c * ORDER_CELL / 8 + k] == seen[f][c] ? newest : UINT64_MAX;
            if (seen[f][c] > newest)
                newest = seen[f][c];
        }
    }
    kvfs_snapshot_close(s);
    return newest;
}

static void
order_reader(const char *path, const uint64_t ino[ORDER_FILES], struct order_shared *sh)
{
    static uint64_t model[ORDER_FILES][ORDER_CELLS], seen[ORDER_FILES][ORDER_CELLS];
    struct kvfs_volume_options readonly = {.readonly = true};
    struct kvfs_volume *v = core_open(path, &readonly);
    struct timespec pause = {.tv_nsec = 2000000};
    struct kvfs_error err = {0};
    uint64_t at = 0;

    while (__atomic_load_n(&sh->stop, __ATOMIC_ACQUIRE) == 0) {
        uint64_t flushed = __atomic_load_n(&sh->flushed, __ATOMIC_ACQUIRE);
        uint64_t newest = order_look(v, ino, seen);

        if (newest == UINT64_MAX)
            __atomic_store_n(&sh->wrong, 1, __ATOMIC_RELEASE);
        CORE_MUST(newest != UINT64_MAX, "a torn block");
        while (at < newest || at < flushed)
            order_apply(model, ++at);
        /* Zeros leave no number, and may hide the whole of the operations before them. */
        for (unsigned hidden = 0; memcmp(model, seen, sizeof(model)) != 0; hidden++) {
            if (hidden == ORDER_HIDDEN_MAX)
                __atomic_store_n(&sh->wrong, 1, __ATOMIC_RELEASE);
            CORE_MUST(hidden < ORDER_HIDDEN_MAX,
                      "about operation %llu (flushed %llu): another state",
                      (unsigned long long)at, (unsigned long long)flushed);
            order_apply(model, ++at);
        }
        __atomic_add_fetch(&sh->looks, 1, __ATOMIC_RELEASE);
        (void)nanosleep(&pause, NULL);
    }
    CORE_OK(kvfs_volume_close(v, &err));
    _exit(0);
}

struct order_noise {
    struct kvfs_volume *v;
    uint64_t ino;
    bool stop;
};

static void *
order_noise_run(void *arg)
{
    struct order_noise *n = arg;
    struct kvfs_file *f = core_file(n->v, n->ino, KVFS_OPEN_WRITE);
    struct kvfs_error err = {0};
    uint8_t block[5000];

    for (uint64_t i = 0; !__atomic_load_n(&n->stop, __ATOMIC_ACQUIRE); i++) {
        memset(block, (int)i, sizeof(block));
        CORE_OK(kvfs_file_pwrite(f, block, sizeof(block), i * 4999 % 90000, 0, &err));
        if (i % 16 == 0)
            CORE_OK(kvfs_file_flush(f, &err));
    }
    kvfs_file_close(f);
    return NULL;
}

static void
order_writer(struct kvfs_volume *v, const uint64_t ino[ORDER_FILES], struct order_shared *sh,
             uint64_t seed)
{
    static uint64_t buf[ORDER_CELLS * ORDER_CELL / 8];
    struct kvfs_file *f[ORDER_FILES];
    struct kvfs_error err = {0};

    for (unsigned i = 0; i < ORDER_FILES; i++)
        f[i] = core_file(v, ino[i], KVFS_OPEN_WRITE);
    for (uint64_t i = 1; __atomic_load_n(&sh->looks, __ATOMIC_ACQUIRE) < ORDER_LOOKS &&
                         __atomic_load_n(&sh->wrong, __ATOMIC_ACQUIRE) == 0;
         i++) {
        struct order_op op = order_op(i);
        uint64_t offset = (uint64_t)op.first * ORDER_CELL;
        size_t len = (size_t)op.count * ORDER_CELL;
        uint64_t dice = core_random(&seed) % 40;
        unsigned flags = dice == 0 ? KVFS_FUA : 0;

        for (size_t k = 0; k < len / 8; k++)
            buf[k] = i;
        if (op.zero)
            CORE_OK(kvfs_file_zero(f[op.file], len, offset, flags, &err));
        else
            CORE_OK(kvfs_file_pwrite(f[op.file], buf, len, offset, flags, &err));
        if (dice == 1)
            CORE_OK(kvfs_file_flush(f[op.file], &err));
        if (dice <= 1) /* the newest of this file; so all before it too */
            __atomic_store_n(&sh->flushed, i, __ATOMIC_RELEASE);
    }
    for (unsigned i = 0; i < ORDER_FILES; i++)
        kvfs_file_close(f[i]);
}

static void
order__looked_at_by_another_process__is_a_prefix(void **state)
{
    struct kvfs_volume_options options = {
        .cache_bytes = KVFS_CACHE_BYTES_MIN, .batch_bytes = 20 << 10, .commit_interval_ms = 10};
    struct order_noise noise = {0};
    uint64_t ino[ORDER_FILES];
    uint64_t seed = core_seed();
    struct order_shared *sh;
    struct kvfs_error err = {0};
    struct kvfs_volume *v;
    pthread_t thread;
    char path[64];
    pid_t child;
    int status;

    (void)state;
    sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(sh != MAP_FAILED);
    core_format(path, engine_name, 0);
    v = core_open(path, NULL);
    for (unsigned i = 0; i < ORDER_FILES; i++)
        ino[i] = core_create(v, i == 0 ? "a" : "b", (uint64_t)ORDER_CELLS * ORDER_CELL,
                             i == 0 ? 512 : 1024);
    noise.ino = core_create(v, "noise", 100000, 0);
    CORE_OK(kvfs_volume_close(v, &err));
    child = fork();
    if (child == 0)
        order_reader(path, ino, sh);
    v = core_open(path, &options);
    noise.v = v;
    CORE_MUST(pthread_create(&thread, NULL, order_noise_run, &noise) == 0, "no thread");
    order_writer(v, ino, sh, seed);
    __atomic_store_n(&noise.stop, true, __ATOMIC_RELEASE);
    (void)pthread_join(thread, NULL);
    __atomic_store_n(&sh->stop, 1, __ATOMIC_RELEASE);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    CORE_OK(kvfs_volume_close(v, &err));
    core_check(path);
    core_remove(path);
    (void)munmap(sh, sizeof(*sh));
}

/* --- a full store --------------------------------------------------------------- */

#define FULL_STORE   ((uint64_t)24 << 20)
#define FULL_THREADS 3
#define FULL_REQUEST ((size_t)200 << 10)

struct filler {
    pthread_t thread;
    struct kvfs_volume *v;
    uint64_t ino, rng, written; /* requests that were acknowledged */
};

static void
filler_pattern(const struct filler *f, uint64_t n, uint8_t *buf)
{
    uint64_t rng = f->ino * 1000003 + n;

    for (size_t i = 0; i < FULL_REQUEST; i += 8) {
        uint64_t r = core_random(&rng) | 1;

        memcpy(buf + i, &r, 8);
    }
}

static void *
filler_run(void *arg)
{
    struct filler *f = arg;
    struct kvfs_file *file = core_file(f->v, f->ino, KVFS_OPEN_WRITE);
    struct kvfs_error err = {0};
    uint8_t *buf = malloc(FULL_REQUEST);
    int rc;

    CORE_MUST(buf != NULL, "no memory");
    for (;;) {
        filler_pattern(f, f->written, buf);
        rc =
            kvfs_file_pwrite(file, buf, FULL_REQUEST, f->written * FULL_REQUEST, KVFS_EXTEND, &err);
        if (rc < 0)
            break;
        f->written++;
    }
    CORE_MUST(rc == -ENOSPC, "%d: %s", rc, err.msg);
    /* What was acknowledged before has its place. */
    CORE_OK(kvfs_file_flush(file, &err));
    kvfs_file_close(file);
    free(buf);
    return NULL;
}

static void
filler_verify(const struct filler *f, struct kvfs_volume *v, uint64_t from)
{
    struct kvfs_file *file = core_file(v, f->ino, KVFS_OPEN_READ);
    struct kvfs_error err = {0};
    uint8_t *want = malloc(FULL_REQUEST);
    uint8_t *got = malloc(FULL_REQUEST);

    CORE_MUST(want != NULL && got != NULL, "no memory");
    for (uint64_t n = from; n < f->written; n++) {
        filler_pattern(f, n, want);
        CORE_OK(kvfs_file_pread(file, got, FULL_REQUEST, n * FULL_REQUEST, &err));
        CORE_MUST(memcmp(want, got, FULL_REQUEST) == 0, "request %llu was not kept",
                  (unsigned long long)n);
    }
    free(want);
    free(got);
    kvfs_file_close(file);
}

/* What part of a store must be filled.  sled's log takes 3.2 times the records in the long run,
 * and it is refused more before it runs full (engines/rust/README.md): an expected failure. */
static uint64_t
full_share(void)
{
    if (strstr(chosen_engine(), "sled") == NULL)
        return 4;
    print_message("expected failure: sled fills a sixth of a store, not a quarter\n");
    return 7;
}

static void
full__many_writers__nothing_acknowledged_is_lost(void **state)
{
    struct kvfs_volume_options options = {.cache_bytes = 4 << 20, .store_max_bytes = FULL_STORE};
    static const char *const names[FULL_THREADS] = {"a", "b", "c"};
    struct filler f[FULL_THREADS] = {{0}};
    struct kvfs_error err = {0};
    struct kvfs_volume *v;
    struct kvfs_file *file;
    uint64_t written = 0;
    uint64_t trimmed;
    char path[64];
    uint8_t block[4096];

    (void)state;
    core_format(path, engine_name, FULL_STORE);
    v = core_open(path, &options);
    for (unsigned i = 0; i < FULL_THREADS; i++) {
        f[i].v = v;
        f[i].ino = core_create(v, names[i], 0, 4096);
    }
    for (unsigned i = 0; i < FULL_THREADS; i++)
        CORE_MUST(pthread_create(&f[i].thread, NULL, filler_run, &f[i]) == 0, "no thread");
    for (unsigned i = 0; i < FULL_THREADS; i++) {
        (void)pthread_join(f[i].thread, NULL);
        written += f[i].written;
    }
    print_message("%llu requests of %zu bytes fitted into %llu\n", (unsigned long long)written,
                  FULL_REQUEST, (unsigned long long)FULL_STORE);
    assert_true(written * FULL_REQUEST > FULL_STORE / full_share());
    for (unsigned i = 1; i < FULL_THREADS; i++) { /* the one that got most comes first */
        struct filler most = f[i];

        if (most.written > f[0].written) {
            f[i] = f[0];
            f[0] = most;
        }
    }
    for (unsigned i = 0; i < FULL_THREADS; i++)
        filler_verify(&f[i], v, 0);

    /* Full, and yet a trim goes through and gives its space to others. */
    file = core_file(v, f[0].ino, KVFS_OPEN_WRITE);
    trimmed = f[0].written / 2;
    assert_true(trimmed > 2);
    CORE_OK(kvfs_file_zero(file, trimmed * FULL_REQUEST, 0, 0, &err));
    CORE_OK(kvfs_file_flush(file, &err));
    while (kvfs_volume_work(v, 100, &err) == 1)
        ;
    memset(block, 1, sizeof(block));
    CORE_OK(kvfs_file_pwrite(file, block, sizeof(block), 0, KVFS_FUA, &err));
    kvfs_file_close(file);
    filler_verify(&f[0], v, trimmed);
    CORE_OK(kvfs_volume_close(v, &err));
    core_check(path);
    v = core_open(path, &options);
    filler_verify(&f[0], v, trimmed);
    for (unsigned i = 1; i < FULL_THREADS; i++)
        filler_verify(&f[i], v, 0);
    CORE_OK(kvfs_volume_close(v, &err));
    core_remove(path);
}

struct scatterer {
    pthread_t thread;
    struct kvfs_volume *v;
    uint64_t ino, rng;
    size_t block;
};

static void *
scatterer_run(void *arg)
{
    struct scatterer *s = arg;
    struct kvfs_file *f = core_file(s->v, s->ino, KVFS_OPEN_WRITE);
    struct kvfs_error err = {0};
    uint8_t block[4096];
    int rc = 0;

    for (unsigned n = 0; rc == 0 && n < 200000; n++) {
        for (size_t i = 0; i < s->block; i += 8) {
            uint64_t r = core_random(&s->rng) | 1;

            memcpy(block + i, &r, 8);
        }
        rc = kvfs_file_pwrite(f, block, s->block,
                              core_random(&s->rng) % (((uint64_t)64 << 20) / s->block) * s->block,
                              0, &err);
    }
    CORE_MUST(rc == -ENOSPC, "%d: %s", rc, err.msg);
    CORE_OK(kvfs_file_flush(f, &err)); /* what was acknowledged has its place */
    kvfs_file_close(f);
    return NULL;
}

/* What an earlier handle wrote is in the engine after its close, but not durable yet. */
static void
flush__by_a_later_handle__covers_what_an_earlier_one_wrote(void **state)
{
    struct kvfs_volume_options options = {.commit_interval_ms = 3600000};
    struct kvfs_volume_stat before, after, again;
    struct kvfs_error err = {0};
    struct kvfs_volume *v;
    struct kvfs_file *f;
    uint64_t ino;
    char path[64];

    (void)state;
    core_format(path, engine_name, 0);
    v = core_open(path, &options);
    ino = core_create(v, "file", 4096, 4096);
    f = core_file(v, ino, KVFS_OPEN_WRITE);
    CORE_OK(kvfs_file_pwrite(f, "earlier", 7, 0, 0, &err));
    kvfs_file_close(f);
    CORE_OK(kvfs_volume_stat(v, &before, &err));
    f = core_file(v, ino, KVFS_OPEN_READ);
    CORE_OK(kvfs_file_flush(f, &err));
    CORE_OK(kvfs_volume_stat(v, &after, &err));
    assert_true(after.commits_durable > before.commits_durable);
    CORE_OK(kvfs_file_flush(f, &err));
    CORE_OK(kvfs_volume_stat(v, &again, &err));
    assert_int_equal(again.commits_durable, after.commits_durable);
    kvfs_file_close(f);
    CORE_OK(kvfs_volume_close(v, &err));
    core_remove(path);
}

/* Scattered small blocks cost an engine several times their size in its index. */
static void
full__scattered_blocks__nothing_acknowledged_is_lost(void **state)
{
    static const size_t blocks[] = {512, 4096};
    uint64_t seed = core_seed();

    (void)state;
    for (unsigned b = 0; b < 2; b++) {
        struct kvfs_volume_options options = {.store_max_bytes = FULL_STORE};
        struct scatterer s[FULL_THREADS];
        struct kvfs_error err = {0};
        struct kvfs_volume *v;
        char path[64];

        core_format(path, engine_name, FULL_STORE);
        v = core_open(path, &options);
        for (unsigned i = 0; i < FULL_THREADS; i++) {
            char name[2] = {(char)('a' + i), '\0'};

            s[i] = (struct scatterer){.v = v, .rng = core_random(&seed), .block = blocks[b]};
            s[i].ino = core_create(v, name, (uint64_t)64 << 20, (uint32_t)blocks[b]);
        }
        for (unsigned i = 0; i < FULL_THREADS; i++)
            CORE_MUST(pthread_create(&s[i].thread, NULL, scatterer_run, &s[i]) == 0, "no thread");
        for (unsigned i = 0; i < FULL_THREADS; i++)
            (void)pthread_join(s[i].thread, NULL);
        CORE_OK(kvfs_volume_close(v, &err));
        core_check(path);
        core_remove(path);
    }
}

/* --- as large as it gets ---------------------------------------------------------- */

struct large_extents {
    uint64_t at, data;
};

static int
large_extent(void *arg, uint64_t offset, uint64_t count, bool hole)
{
    struct large_extents *x = arg;

    CORE_MUST(offset == x->at, "a gap");
    x->at += count;
    if (!hole)
        x->data += count;
    return 0;
}

static void
large_ends(struct kvfs_volume *v, struct kvfs_file *f, uint32_t bs)
{
    struct kvfs_error err = {0};
    struct large_extents x = {0};
    uint8_t got[10] = {0}, want[10] = "the end..";
    uint64_t end = KVFS_FILE_SIZE_MAX - sizeof(want);

    CORE_OK(kvfs_file_pwrite(f, want, sizeof(want), end, 0, &err));
    for (unsigned bit = 2; bit < 32; bit++)
        assert_int_equal(kvfs_file_pwrite(f, got, sizeof(got), end, 1U << bit, &err), -EINVAL);
    for (unsigned bit = 3; bit < 32; bit++)
        assert_int_equal(kvfs_file_zero(f, sizeof(got), end, 1U << bit, &err), -EINVAL);
    assert_int_equal(kvfs_file_pwrite(f, want, sizeof(want), end + 1, 0, &err), -EFBIG);
    assert_int_equal(kvfs_file_pwrite(f, want, sizeof(want), UINT64_MAX - 3, KVFS_EXTEND, &err),
                     -EFBIG);
    assert_int_equal(kvfs_file_zero(f, UINT64_MAX, 1, 0, &err), -EFBIG);
    assert_int_equal(kvfs_file_pread(f, got, sizeof(got), end + 1, &err), -EINVAL);
    assert_int_equal(kvfs_file_pread(f, got, sizeof(got), UINT64_MAX, &err), -EINVAL);
    for (int round = 0; round < 2; round++) { /* in memory, then in the engine */
        CORE_OK(kvfs_file_pread(f, got, sizeof(got), end, &err));
        assert_memory_equal(got, want, sizeof(want));
        x = (struct large_extents){0};
        CORE_OK(kvfs_file_extents(f, KVFS_FILE_SIZE_MAX, 0, 0, large_extent, &x, &err));
        assert_int_equal(x.at, KVFS_FILE_SIZE_MAX);
        assert_true(x.data > 0 && x.data <= bs);
        CORE_OK(kvfs_file_flush(f, &err));
    }
    /* All but the last byte become a hole, then all of it. */
    CORE_OK(kvfs_file_zero(f, KVFS_FILE_SIZE_MAX - 1, 0, 0, &err));
    CORE_OK(kvfs_file_flush(f, &err));
    while (kvfs_volume_work(v, 10, &err) == 1)
        ;
    CORE_OK(kvfs_file_pread(f, got, sizeof(got), end, &err));
    memset(want, 0, sizeof(want) - 1);
    assert_memory_equal(got, want, sizeof(want));
    CORE_OK(kvfs_file_zero(f, KVFS_FILE_SIZE_MAX, 0, KVFS_FUA, &err));
    CORE_OK(kvfs_file_pread(f, got, 1, KVFS_FILE_SIZE_MAX - 1, &err));
    assert_int_equal(got[0], 0);
}

static void
large__eight_exbibytes__works_at_both_ends(void **state)
{
    static const uint32_t sizes[] = {512, 4096, 65536};

    (void)state;
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct kvfs_error err = {0};
        struct kvfs_volume *v;
        struct kvfs_file *f;
        uint8_t byte;
        char path[64];

        core_format(path, engine_name, 0);
        v = core_open(path, NULL);
        f = core_file(v, core_create(v, "f", KVFS_FILE_SIZE_MAX, sizes[i]), KVFS_OPEN_WRITE);
        large_ends(v, f, sizes[i]);
        assert_int_equal(kvfs_file_resize(f, KVFS_FILE_SIZE_MAX + 1, &err), -EFBIG);
        CORE_OK(kvfs_file_pwrite(f, "x", 1, KVFS_FILE_SIZE_MAX - 1, 0, &err));
        CORE_OK(kvfs_file_resize(f, 1, &err));
        CORE_OK(kvfs_file_resize(f, KVFS_FILE_SIZE_MAX, &err));
        CORE_OK(kvfs_file_pread(f, &byte, 1, KVFS_FILE_SIZE_MAX - 1, &err));
        assert_int_equal(byte, 0);
        CORE_OK(kvfs_file_pwrite(f, "x", 1, KVFS_FILE_SIZE_MAX - 1, 0, &err));
        kvfs_file_close(f);
        CORE_OK(kvfs_volume_close(v, &err));
        core_check(path);
        core_remove(path);
    }
}

/* Extending and shrinking at the same time: whatever comes out, nothing old shows
 * behind the end. */
struct stretch {
    struct kvfs_volume *v;
    struct kvfs_file *f;
    uint64_t rng;
};

static void *
stretch_run(void *arg)
{
    struct stretch *s = arg;
    struct kvfs_error err = {0};
    uint8_t block[3000];

    memset(block, 0xee, sizeof(block));
    for (int i = 0; i < 300; i++) {
        uint64_t at = core_random(&s->rng) % 100000;

        if (i % 3 == 0)
            CORE_OK(kvfs_file_resize(s->f, at, &err));
        else
            CORE_OK(kvfs_file_pwrite(s->f, block, sizeof(block), at, KVFS_EXTEND, &err));
    }
    return NULL;
}

static void
resize__beside_extending_writes__nothing_stays_behind_the_end(void **state)
{
    uint64_t seed = core_seed();

    (void)state;
    for (int round = 0; round < 5; round++) {
        struct stretch s[3];
        struct kvfs_error err = {0};
        struct kvfs_file_info info;
        struct kvfs_volume *v;
        pthread_t threads[3];
        struct kvfs_file *f;
        static uint8_t got[300000];
        char path[64];

        core_format(path, engine_name, 0);
        v = core_open(path, NULL);
        f = core_file(v, core_create(v, "f", 0, 512), KVFS_OPEN_WRITE);
        for (unsigned i = 0; i < 3; i++) {
            s[i] = (struct stretch){.v = v, .f = f, .rng = core_random(&seed)};
            CORE_MUST(pthread_create(&threads[i], NULL, stretch_run, &s[i]) == 0, "no thread");
        }
        for (unsigned i = 0; i < 3; i++)
            (void)pthread_join(threads[i], NULL);
        kvfs_file_info(f, &info);
        CORE_OK(kvfs_file_resize(f, sizeof(got), &err));
        CORE_OK(kvfs_file_pread(f, got, sizeof(got), 0, &err));
        for (size_t i = (size_t)info.size_bytes; i < sizeof(got); i++)
            CORE_MUST(got[i] == 0, "byte %zu behind the end at %llu is %02x", i,
                      (unsigned long long)info.size_bytes, got[i]);
        kvfs_file_close(f);
        CORE_OK(kvfs_volume_close(v, &err));
        core_check(path);
        core_remove(path);
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
        cmocka_unit_test(large__eight_exbibytes__works_at_both_ends),
        cmocka_unit_test(resize__beside_extending_writes__nothing_stays_behind_the_end),
        cmocka_unit_test(full__many_writers__nothing_acknowledged_is_lost),
        cmocka_unit_test(full__scattered_blocks__nothing_acknowledged_is_lost),
        cmocka_unit_test(flush__by_a_later_handle__covers_what_an_earlier_one_wrote),
    };
    const struct CMUnitTest shared[] = {
        /* engines for several processes */
        cmocka_unit_test(order__looked_at_by_another_process__is_a_prefix),
    };
    int failed = 0;

    if (!chosen_by_name())
        failed += cmocka_run_group_tests_name("core edge, mem", tests, use_mem, NULL);
    if (chosen_is_there())
        failed += cmocka_run_group_tests_name("core edge", tests, use_chosen, NULL);
    if (chosen_has(KVFS_CAP_MULTIPROCESS))
        failed += cmocka_run_group_tests_name("core edge, processes", shared, use_chosen, NULL);
    return failed;
}
