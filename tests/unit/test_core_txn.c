/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Transactions against snapshots.  Tellers move amounts between the accounts of two
 * files, some in small transactions and some so large that they go fork over fork;
 * every snapshot, in this process and in another one, sees the same sum and, in the
 * large ones, one generation everywhere.  Other files are written meanwhile.
 */
#include <sys/wait.h>

#include "core_vol.h"

#define ACCOUNTS ((size_t)64)
#define FILES    2
#define ACCOUNT \
    ((size_t)1000) /* bytes from one to the next: several share a block, some lie in two */
#define MARKS     ((size_t)900 << 10) /* behind the accounts: larger than a stage */
#define FILE_SIZE (ACCOUNTS * ACCOUNT + MARKS)
#define START     1000
#define TRANSFERS 150

static const char *engine_name;

struct bank {
    char path[64];
    struct kvfs_volume *v;
    uint64_t ino[FILES], other;
    uint64_t seed;
    bool stop;
    pthread_mutex_t turn; /* kvfs_file_lock() never waits */
    unsigned committed, large;
};

static uint64_t
bank_offset(uint64_t account)
{
    return account * ACCOUNT;
}

static uint64_t
txn_number(struct kvfs_txn *t, struct kvfs_file *f, uint64_t account)
{
    struct kvfs_error err = {0};
    uint64_t n;

    CORE_OK(kvfs_txn_pread(t, f, &n, sizeof(n), bank_offset(account), &err));
    return n;
}

/* Take the locks, in order; false: somebody else has one. */
static bool
teller_lock(struct kvfs_file *f[FILES])
{
    struct kvfs_error err;

    for (int i = 0; i < FILES; i++) {
        if (kvfs_file_lock(f[i], &err) == 0)
            continue;
        while (i-- > 0)
            kvfs_file_unlock(f[i]);
        return false;
    }
    return true;
}

static void
teller_mark(struct kvfs_txn *t, struct kvfs_file *f[FILES], const uint64_t version[FILES],
            uint8_t *marks, uint8_t generation)
{
    struct kvfs_error err = {0};

    memset(marks, generation, MARKS);
    for (int i = 0; i < FILES; i++)
        CORE_OK(kvfs_txn_write(t, f[i], version[i], marks, MARKS, ACCOUNTS * ACCOUNT, &err));
}

static void
teller_transfer(struct bank *b, struct kvfs_file *f[FILES], uint64_t *rng, uint8_t *marks)
{
    struct kvfs_error err = {0};
    struct kvfs_file_info info;
    struct kvfs_txn *t;
    uint64_t version[FILES];
    uint64_t from = core_random(rng) % ACCOUNTS;
    uint64_t to = core_random(rng) % ACCOUNTS;
    uint64_t amount = core_random(rng) % 50;
    bool large = core_random(rng) % 10 == 0;
    enum kvfs_durability durability = core_random(rng) % 8 == 0 ? KVFS_DURABLE : KVFS_ORDERED;
    uint64_t a, c;
    int rc;

    CORE_OK(kvfs_txn_begin(b->v, &t, &err));
    for (int i = 0; i < FILES; i++) {
        kvfs_file_info(f[i], &info);
        version[i] = info.version;
    }
    if (large && core_random(rng) % 2 == 0)
        teller_mark(t, f, version, marks, (uint8_t)core_random(rng));
    a = txn_number(t, f[0], from) - amount;
    c = txn_number(t, f[1], to) + amount;
    CORE_OK(kvfs_txn_write(t, f[0], version[0], &a, sizeof(a), bank_offset(from), &err));
    CORE_OK(kvfs_txn_write(t, f[1], version[1], &c, sizeof(c), bank_offset(to), &err));
    if (large)
        teller_mark(t, f, version, marks, (uint8_t)core_random(rng)); /* zeros among them */
    if (core_random(rng) % 10 == 0) {
        kvfs_txn_abort(t);
        return;
    }
    rc = kvfs_txn_commit(t, durability, &err);
    CORE_MUST(rc == 0, "commit, %s: %d: %s", large ? "large" : "small", rc, err.msg);
    __atomic_fetch_add(&b->committed, 1, __ATOMIC_RELAXED);
    if (large)
        __atomic_fetch_add(&b->large, 1, __ATOMIC_RELAXED);
}

static void *
teller_run(void *arg)
{
    struct bank *b = arg;
    struct kvfs_file *f[FILES];
    uint8_t *marks = malloc(MARKS);
    uint64_t rng = __atomic_add_fetch(&b->seed, 77, __ATOMIC_RELAXED);

    CORE_MUST(marks != NULL, "no memory");
    for (int i = 0; i < FILES; i++)
        f[i] = core_file(b->v, b->ino[i], KVFS_OPEN_READ);
    for (unsigned n = 0; n < TRANSFERS;) {
        (void)pthread_mutex_lock(&b->turn);
        if (teller_lock(f)) {
            teller_transfer(b, f, &rng, marks);
            for (int i = 0; i < FILES; i++)
                kvfs_file_unlock(f[i]);
            n++;
        }
        (void)pthread_mutex_unlock(&b->turn);
    }
    for (int i = 0; i < FILES; i++)
        kvfs_file_close(f[i]);
    free(marks);
    return NULL;
}

static void
auditor_look(struct kvfs_volume *v, const uint64_t ino[FILES], uint8_t *buf)
{
    struct kvfs_error err = {0};
    struct kvfs_snapshot *s;
    uint64_t sum = 0;
    uint8_t generation = 0;

    CORE_OK(kvfs_snapshot_open(v, &s, &err));
    for (int i = 0; i < FILES; i++) {
        CORE_OK(kvfs_snapshot_pread(s, ino[i], buf, FILE_SIZE, 0, &err));
        for (uint64_t a = 0; a < ACCOUNTS; a++) {
            uint64_t n;

            memcpy(&n, buf + bank_offset(a), sizeof(n));
            sum += n;
        }
        if (i == 0)
            generation = buf[ACCOUNTS * ACCOUNT];
        for (size_t k = 0; k < MARKS; k++)
            CORE_MUST(buf[ACCOUNTS * ACCOUNT + k] == generation,
                      "file %d, mark %zu is of generation %u, not %u", i, k,
                      buf[ACCOUNTS * ACCOUNT + k], generation);
    }
    kvfs_snapshot_close(s);
    CORE_MUST(sum == (uint64_t)START * ACCOUNTS * FILES, "the sum is %llu",
              (unsigned long long)sum);
}

static void *
auditor_run(void *arg)
{
    struct bank *b = arg;
    uint8_t *buf = malloc(FILE_SIZE);

    CORE_MUST(buf != NULL, "no memory");
    while (!__atomic_load_n(&b->stop, __ATOMIC_ACQUIRE))
        auditor_look(b->v, b->ino, buf);
    free(buf);
    return NULL;
}

/* Plain writes to another file of the volume, as fast as they go. */
static void *
scribe_run(void *arg)
{
    struct bank *b = arg;
    struct kvfs_file *f = core_file(b->v, b->other, KVFS_OPEN_WRITE);
    struct kvfs_error err = {0};
    uint8_t block[3000];

    for (uint64_t n = 0; !__atomic_load_n(&b->stop, __ATOMIC_ACQUIRE); n++) {
        memset(block, (int)n, sizeof(block));
        CORE_OK(kvfs_file_pwrite(f, block, sizeof(block), n * 2999 % 900000, 0, &err));
        if (n % 64 == 0)
            CORE_OK(kvfs_volume_work(b->v, 1, &err));
    }
    kvfs_file_close(f);
    return NULL;
}

static void
bank_make(struct bank *b)
{
    struct kvfs_error err = {0};

    core_format(b->path, engine_name, 0);
    b->v = core_open(b->path, NULL);
    for (int i = 0; i < FILES; i++) {
        struct kvfs_file *f;

        b->ino[i] = core_create(b->v, i == 0 ? "left" : "right", FILE_SIZE, 0);
        f = core_file(b->v, b->ino[i], KVFS_OPEN_WRITE);
        for (uint64_t a = 0; a < ACCOUNTS; a++) {
            uint64_t n = START;

            CORE_OK(kvfs_file_pwrite(f, &n, sizeof(n), bank_offset(a), 0, &err));
        }
        kvfs_file_close(f);
    }
    b->other = core_create(b->v, "other", 1000000, 512);
    CORE_OK(kvfs_volume_close(b->v, &err));
}

static void
bank_open(struct bank *b)
{
    struct kvfs_volume_options options = {
        .cache_bytes = KVFS_CACHE_BYTES_MIN, .batch_bytes = 100 << 10, .commit_interval_ms = 20};

    b->v = core_open(b->path, &options);
}

static void
bank_close(struct bank *b)
{
    struct kvfs_error err = {0};
    uint8_t *buf = malloc(FILE_SIZE);

    CORE_MUST(buf != NULL, "no memory");
    CORE_OK(kvfs_volume_close(b->v, &err));
    core_check(b->path);
    bank_open(b);
    while (kvfs_volume_work(b->v, 100, &err) == 1)
        ;
    auditor_look(b->v, b->ino, buf);
    CORE_OK(kvfs_volume_close(b->v, &err));
    core_check(b->path);
    core_remove(b->path);
    free(buf);
}

static void
txn__transfers_and_snapshots__sum_stays(void **state)
{
    struct bank b = {.seed = core_seed()};
    pthread_t tellers[2], auditor, scribe;

    (void)state;
    (void)pthread_mutex_init(&b.turn, NULL);
    bank_make(&b);
    bank_open(&b);
    CORE_MUST(pthread_create(&auditor, NULL, auditor_run, &b) == 0, "no thread");
    CORE_MUST(pthread_create(&scribe, NULL, scribe_run, &b) == 0, "no thread");
    for (int i = 0; i < 2; i++)
        CORE_MUST(pthread_create(&tellers[i], NULL, teller_run, &b) == 0, "no thread");
    for (int i = 0; i < 2; i++)
        (void)pthread_join(tellers[i], NULL);
    __atomic_store_n(&b.stop, true, __ATOMIC_RELEASE);
    (void)pthread_join(auditor, NULL);
    (void)pthread_join(scribe, NULL);
    print_message("%u committed, %u of them large\n", b.committed, b.large);
    assert_true(b.large > 0);
    bank_close(&b);
}

static void
txn__another_process_looks__sum_stays(void **state)
{
    struct bank b = {.seed = core_seed()};
    uint8_t *buf = malloc(FILE_SIZE);
    int pipes[2];
    int status;
    pid_t child;

    (void)state;
    assert_non_null(buf);
    (void)pthread_mutex_init(&b.turn, NULL);
    bank_make(&b);
    assert_int_equal(pipe(pipes), 0);
    child = fork();
    if (child == 0) {
        struct kvfs_volume_options readonly = {.readonly = true};
        struct kvfs_volume *v = core_open(b.path, &readonly);
        struct timespec pause = {.tv_nsec = 1000000};
        struct kvfs_error err = {0};
        char end;

        (void)close(pipes[1]);
        CORE_MUST(fcntl(pipes[0], F_SETFL, O_NONBLOCK) == 0, "fcntl");
        do {
            auditor_look(v, b.ino, buf);
            (void)nanosleep(&pause, NULL);
        } while (read(pipes[0], &end, 1) < 0);
        CORE_OK(kvfs_volume_close(v, &err));
        _exit(0);
    }
    (void)close(pipes[0]);
    bank_open(&b);
    (void)teller_run(&b);
    (void)close(pipes[1]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    bank_close(&b);
    free(buf);
}

/* A file that was written without a transaction since somebody looked is another, too, also
 * where its size is the same and nothing has been flushed. */
static void
txn__written_to_plainly__version_moved_on(void **state)
{
    struct bank b = {.seed = core_seed()};
    struct kvfs_error err = {0};
    struct kvfs_file_info seen, now;
    struct kvfs_snapshot *s;
    struct kvfs_file *f;
    struct kvfs_txn *t;
    uint64_t n = 5;

    (void)state;
    bank_make(&b);
    bank_open(&b);
    f = core_file(b.v, b.ino[0], KVFS_OPEN_WRITE);
    CORE_OK(kvfs_file_pwrite(f, &n, sizeof(n), 0, 0, &err));
    for (int flushed = 0; flushed < 2; flushed++) {
        CORE_OK(kvfs_snapshot_open(b.v, &s, &err));
        CORE_OK(kvfs_snapshot_info(s, b.ino[0], &seen, &err));
        kvfs_file_info(f, &now);
        assert_int_equal(seen.version, now.version);
        n++;
        CORE_OK(kvfs_file_pwrite(f, &n, sizeof(n), 0, flushed ? KVFS_FUA : 0, &err));
        kvfs_snapshot_close(s);
        CORE_OK(kvfs_txn_begin(b.v, &t, &err));
        CORE_OK(kvfs_txn_write(t, f, seen.version, &n, sizeof(n), 0, &err));
        assert_int_equal(kvfs_txn_commit(t, KVFS_ORDERED, &err), -EAGAIN);
    }
    kvfs_file_info(f, &seen);
    kvfs_file_close(f);
    f = core_file(b.v, b.ino[0], KVFS_OPEN_READ); /* another opening sees the same */
    kvfs_file_info(f, &now);
    assert_int_equal(seen.version, now.version);
    kvfs_file_close(f);
    CORE_OK(kvfs_volume_close(b.v, &err));
    core_check(b.path);
    core_remove(b.path);
}

static void
txn__version_moved_on__nothing_changed(void **state)
{
    struct bank b = {.seed = core_seed()};
    struct kvfs_error err = {0};
    struct kvfs_file_info before, after;
    struct kvfs_file *f;
    struct kvfs_txn *t[2];
    uint64_t n = 5;

    (void)state;
    bank_make(&b);
    bank_open(&b);
    f = core_file(b.v, b.ino[0], KVFS_OPEN_WRITE);
    kvfs_file_info(f, &before);
    for (int i = 0; i < 2; i++) {
        CORE_OK(kvfs_txn_begin(b.v, &t[i], &err));
        CORE_OK(kvfs_txn_write(t[i], f, before.version, &n, sizeof(n), 0, &err));
        n = 6;
    }
    CORE_OK(kvfs_txn_commit(t[0], KVFS_ORDERED, &err));
    assert_int_equal(kvfs_txn_commit(t[1], KVFS_ORDERED, &err), -EAGAIN);
    kvfs_file_info(f, &after);
    assert_int_equal(after.version, before.version + 1);
    CORE_OK(kvfs_file_pread(f, &n, sizeof(n), 0, &err));
    assert_int_equal(n, 5);
    kvfs_file_close(f);
    CORE_OK(kvfs_volume_close(b.v, &err));
    core_check(b.path);
    core_remove(b.path);
}

/* Writers that never pause must not keep a large transaction from its commit. */
static void
txn__large_under_constant_writes__commits(void **state)
{
    struct kvfs_volume_options options = {.cache_bytes = 8 << 20};
    struct bank b = {.seed = core_seed()};
    struct kvfs_error err = {0};
    size_t size = 3 << 20; /* more than a stage: a quarter of the cache */
    uint8_t *big = malloc(size);
    pthread_t scribes[2];
    struct kvfs_file *f;
    uint64_t ino;

    (void)state;
    assert_non_null(big);
    bank_make(&b);
    b.v = core_open(b.path, &options);
    ino = core_create(b.v, "big", 0, 0);
    f = core_file(b.v, ino, KVFS_OPEN_WRITE);
    for (int i = 0; i < 2; i++)
        CORE_MUST(pthread_create(&scribes[i], NULL, scribe_run, &b) == 0, "no thread");
    for (int i = 1; i <= 5; i++) {
        struct kvfs_file_info info;
        struct kvfs_txn *t;

        memset(big, i, size);
        kvfs_file_info(f, &info);
        CORE_OK(kvfs_txn_begin(b.v, &t, &err));
        CORE_OK(kvfs_txn_write(t, f, info.version, big, size, 0, &err));
        CORE_OK(kvfs_txn_commit(t, KVFS_ORDERED, &err));
        memset(big, 0, size);
        CORE_OK(kvfs_file_pread(f, big, size, 0, &err));
        CORE_MUST(big[0] == i && memcmp(big, big + 1, size - 1) == 0, "not what was committed");
    }
    __atomic_store_n(&b.stop, true, __ATOMIC_RELEASE);
    for (int i = 0; i < 2; i++)
        (void)pthread_join(scribes[i], NULL);
    kvfs_file_close(f);
    bank_close(&b);
    free(big);
}

static void
snapshot__info_of_a_folder__eisdir(void **state)
{
    const struct kvfs_create link = {.mode = S_IFLNK | 0777, .target = "nowhere"};
    struct kvfs_error err = {0};
    struct kvfs_file_info info;
    struct kvfs_snapshot *s;
    struct kvfs_volume *v;
    struct kvfs_attr attr;
    char path[64];

    (void)state;
    core_format(path, engine_name, 0);
    v = core_open(path, NULL);
    CORE_OK(kvfs_create(v, KVFS_ROOT_INO, "link", &link, &attr, &err));
    CORE_OK(kvfs_snapshot_open(v, &s, &err));
    assert_int_equal(kvfs_snapshot_info(s, KVFS_ROOT_INO, &info, &err), -EISDIR);
    assert_int_equal(kvfs_snapshot_info(s, attr.ino, &info, &err), -EINVAL);
    assert_int_equal(kvfs_snapshot_info(s, attr.ino + 1, &info, &err), -ENOENT);
    kvfs_snapshot_close(s);
    CORE_OK(kvfs_volume_close(v, &err));
    core_remove(path);
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
        cmocka_unit_test(snapshot__info_of_a_folder__eisdir),
        cmocka_unit_test(txn__written_to_plainly__version_moved_on),
        cmocka_unit_test(txn__version_moved_on__nothing_changed),
        cmocka_unit_test(txn__transfers_and_snapshots__sum_stays),
        cmocka_unit_test(txn__large_under_constant_writes__commits),
    };
    const struct CMUnitTest shared[] = {
        /* engines for several processes */
        cmocka_unit_test(txn__another_process_looks__sum_stays),
    };
    int failed = 0;

    if (!chosen_by_name())
        failed += cmocka_run_group_tests_name("core txn, mem", tests, use_mem, NULL);
    if (chosen_is_there())
        failed += cmocka_run_group_tests_name("core txn", tests, use_chosen, NULL);
    if (chosen_has(KVFS_CAP_MULTIPROCESS))
        failed += cmocka_run_group_tests_name("core txn, processes", shared, use_chosen, NULL);
    return failed;
}
