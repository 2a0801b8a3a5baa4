/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Bad input to the chosen engine: somebody else's store, files cut short, flipped
 * bits, no rights, a full medium, files that go while they are in use.
 *
 * What is demanded of each: right bytes or an error with one line; never wrong bytes,
 * a signal or a hang.  Damaged stores are read in a child process with a time limit.
 * Seeded: KVFS_SEED.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <kvfs/batch.h>

#include "../aside.h"
#include "../chosen.h"
#include "../store_files.h"

#define BLOCKS     300u
#define BLOCK_LEN  4120u
#define CHILD_S    60u
#define SMALL_MEDIUM "size=48m"

static char folder[64], mounted[64];
static struct kvfs_error err;

/* --- a store with known contents --------------------------------------------------- */

static const struct kvfs_engine *
engine(void)
{
    const struct kvfs_engine *e;

    assert_int_equal(kvfs_engine_find(chosen_engine(), &e, NULL), 0);
    return e;
}

static uint64_t
bad_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static int
bad_remove_one(const char *name, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(name);
}

static void
bad_empty(void)
{
    if (folder[0] != '\0')
        (void)nftw(folder, bad_remove_one, 16, FTW_DEPTH | FTW_PHYS);
    if (mounted[0] != '\0') {
        (void)umount2(mounted, MNT_DETACH);
        (void)rmdir(mounted);
    }
    folder[0] = mounted[0] = '\0';
}

static void
bad_folder(void)
{
    bad_empty();
    (void)snprintf(folder, sizeof(folder), "/tmp/kvfs-bad-XXXXXX");
    assert_non_null(mkdtemp(folder));
}

static int
teardown(void **state)
{
    (void)state;
    bad_empty();
    return 0;
}

static void
block_key(uint8_t key[KVFS_DATA_KEY_LEN], uint64_t n)
{
    memset(key, 0, KVFS_DATA_KEY_LEN);
    for (int i = 0; i < 8; i++)
        key[15 - i] = (uint8_t)(n >> (8 * i));
}

static void
block_fill(uint8_t *value, uint64_t n)
{
    uint64_t rng = n;

    for (size_t i = 0; i < BLOCK_LEN; i += 8) {
        uint64_t r = bad_random(&rng);

        memcpy(value + i, &r, 8);
    }
}

/* Put COUNT blocks from FIRST on, as one batch. */
static int
put(struct kvfs_db *db, uint64_t first, uint64_t count, enum kvfs_durability durability)
{
    struct kvfs_batch_builder *b = kvfs_batch_new();
    uint8_t key[KVFS_DATA_KEY_LEN], *values = malloc(count * BLOCK_LEN);
    struct kvfs_batch batch;
    int rc;

    assert_non_null(b);
    assert_non_null(values);
    for (uint64_t i = 0; i < count; i++) {
        block_key(key, first + i);
        block_fill(values + i * BLOCK_LEN, first + i);
        kvfs_batch_put(b, KVFS_DATA, key, sizeof(key), values + i * BLOCK_LEN, BLOCK_LEN);
        kvfs_batch_put(b, KVFS_META, key, sizeof(key), values + i * BLOCK_LEN, 100);
    }
    assert_int_equal(kvfs_batch_end(b, &batch), 0);
    rc = engine()->apply(db, &batch, durability, &err);
    kvfs_batch_free(b);
    free(values);
    return rc;
}

static struct kvfs_db *
must_open(bool create)
{
    struct kvfs_engine_options options = {.create = create};
    struct kvfs_db *db = NULL;

    if (engine()->open(engine(), folder, &options, &db, &err) != 0)
        fail_msg("%s", err.msg);
    return db;
}

static void
fill_store(void *arg)
{
    struct kvfs_db *db = must_open(true);

    (void)arg;
    for (uint64_t i = 0; i < BLOCKS; i += 50)
        assert_int_equal(put(db, i, 50, KVFS_DURABLE), 0);
    engine()->close(db);
}

static void
make_store(void)
{
    bad_folder();
    aside(fill_store, NULL);
}

/* A negative errno that makes sense for damage, with one line. */
static bool
refusal_is_sound(int rc, const struct kvfs_error *e)
{
    return rc < 0 && rc > -4096 && e->code == rc && e->msg[0] != '\0' &&
           strchr(e->msg, '\n') == NULL;
}

/* 0: all is right; 1: something was refused, or has wrong bytes, which kvfs's checksum of
 * each record finds; 2: gone, or of a wrong length; 3: an error without words. */
static int
read_all(struct kvfs_db *db, uint64_t count)
{
    uint8_t key[KVFS_DATA_KEY_LEN], want[BLOCK_LEN], got[BLOCK_LEN];
    struct kvfs_error e = {0};
    struct kvfs_db_snap *snap;
    int worst = 0, rc = engine()->begin(db, &snap, &e);

    if (rc != 0)
        return refusal_is_sound(rc, &e) ? 1 : 3;
    for (uint64_t i = 0; i < 2 * count && worst < 2; i++) {
        size_t want_len = i < count ? BLOCK_LEN : 100, len = 0;
        struct iovec iov = {.iov_base = got, .iov_len = want_len};

        block_key(key, i % count);
        block_fill(want, i % count);
        e = (struct kvfs_error){0};
        rc = engine()->get(snap, i < count ? KVFS_DATA : KVFS_META, key, sizeof(key), 0, &iov, 1,
                           &len, &e);
        if (rc == -ENOENT || (rc == 0 && len != want_len))
            worst = 2;
        else if (rc == 0 && memcmp(want, got, want_len) != 0)
            worst = 1;
        else if (rc != 0)
            worst = refusal_is_sound(rc, &e) ? 1 : 3;
    }
    engine()->end(snap);
    return worst;
}

static void
ignore_finding(void *arg, const char *where, const char *what)
{
    (void)where;
    (void)what;
    ++*(unsigned *)arg;
}

/* In a child: open, read, verify, close; for reading or (a recovery writes) for both. */
static int
child_looks(bool readonly)
{
    struct kvfs_engine_options options = {.readonly = readonly};
    struct kvfs_error e = {0};
    struct kvfs_db *db;
    unsigned findings = 0;
    int rc = engine()->open(engine(), folder, &options, &db, &e), seen;

    if (rc != 0)
        return refusal_is_sound(rc, &e) ? 1 : 3;
    seen = read_all(db, BLOCKS);
    e = (struct kvfs_error){0};
    rc = engine()->verify(db, ignore_finding, &findings, NULL, NULL, &e);
    if (rc != 0 && !refusal_is_sound(rc, &e))
        seen = 3;
    if (seen == 2 && (findings > 0 || rc != 0))
        seen = 1; /* verify says so */
    engine()->close(db);
    return seen;
}

/* As child_looks(), and no signal and no hang. */
static int
look(const char *what)
{
    int worst = 0;

    for (int readonly = 1; readonly >= 0; readonly--) {
        int status = 0;
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0) {
            (void)alarm(CHILD_S);
            _exit(child_looks(readonly != 0));
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (WIFSIGNALED(status))
            fail_msg("%s: %s", what,
                     WTERMSIG(status) == SIGALRM ? "hangs" : strsignal(WTERMSIG(status)));
        if (WEXITSTATUS(status) > worst)
            worst = WEXITSTATUS(status);
    }
    return worst;
}

/* --- damage -------------------------------------------------------------------------- */

static void
copy_to(const char *from, const char *to)
{
    char command[600];

    (void)snprintf(command, sizeof(command), "cp -a %s %s", from, to);
    assert_int_equal(system(command), 0);
}

/* What an engine cannot tell from the end of a file that a power cut left behind; its
 * README says so.  Said, not hidden: the loss is printed. */
static const struct {
    const char *engine, *file;
} known_cuts[] = {
    {"rocksdb", "MANIFEST-"}, /* github.com/facebook/rocksdb/wiki/MANIFEST */
    {"sled", "db"}, /* its log and its data: engines/rust/README.md, Damage */
};

/* The same of a flipped bit.  A damaged entry of sled's log ends its recovery as a torn one
 * does (sled 0.34.7, src/pagecache/iterator.rs, LogRead::Corrupted): older entries, or none,
 * are believed.  The smallest reproducer: KVFS_SEED=1795398144 with this engine. */
static const char known_flips[] = "sled";

static bool
cut_is_known(const char *path)
{
    const char *name = strrchr(path, '/') + 1;

    for (size_t i = 0; i < sizeof(known_cuts) / sizeof(known_cuts[0]); i++)
        if (strstr(chosen_engine(), known_cuts[i].engine) != NULL &&
            strncmp(name, known_cuts[i].file, strlen(known_cuts[i].file)) == 0)
            return true;
    return false;
}

/* Every file of the store, cut to several lengths. */
static void
cut_short__any_file__refused_or_right(void **state)
{
    struct store_files files;
    char saved[300];
    int seen;

    (void)state;
    make_store();
    files = *store_files_find(folder);
    assert_true(files.count > 0);
    for (size_t i = 0; i < files.count; i++) {
        const uint64_t size = files.file[i].size_bytes;
        const uint64_t lengths[] = {0, 1, size / 2, size - 1, size - 1 - size / 20};

        for (size_t l = 0; l < sizeof(lengths) / sizeof(lengths[0]); l++) {
            (void)snprintf(saved, sizeof(saved), "%s.saved", folder);
            copy_to(folder, saved);
            assert_int_equal(truncate(files.file[i].path, (off_t)lengths[l]), 0);
            seen = look(files.file[i].path);
            if (seen == 2 && cut_is_known(files.file[i].path))
                print_message("expected: %s cut to %llu bytes loses records\n",
                              files.file[i].path, (unsigned long long)lengths[l]);
            else if (seen > 1)
                fail_msg("%s cut to %llu of %llu bytes: wrong without a word", files.file[i].path,
                         (unsigned long long)lengths[l], (unsigned long long)size);
            (void)nftw(folder, bad_remove_one, 16, FTW_DEPTH | FTW_PHYS);
            assert_int_equal(rename(saved, folder), 0);
        }
    }
}

static unsigned
rounds(unsigned n)
{
    const char *scale = getenv("KVFS_SCALE"); /* NOLINT(concurrency-mt-unsafe): one thread */

    return scale != NULL ? n * (unsigned)strtoul(scale, NULL, 10) : n;
}

static void
flip(uint64_t *rng, char *what, size_t what_len)
{
    const struct store_files *files = store_files_find(folder);
    const struct store_file *f = &files->file[bad_random(rng) % files->count];
    uint64_t at = bad_random(rng) % f->size_bytes;
    int fd = open(f->path, O_RDWR | O_CLOEXEC);
    uint8_t byte;

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
    byte ^= (uint8_t)(1u << bad_random(rng) % 8);
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
    (void)close(fd);
    (void)snprintf(what, what_len, "%s byte %llu", f->path, (unsigned long long)at);
}

static void
flipped_bits__anywhere__refused_or_right(void **state)
{
    const char *env = getenv("KVFS_SEED"); /* NOLINT(concurrency-mt-unsafe): one thread */
    uint64_t seed = env != NULL ? strtoull(env, NULL, 0) : (uint64_t)time(NULL);
    unsigned refused = 0, lost = 0, n = rounds(40);
    char saved[300], what[400];

    (void)state;
    print_message("KVFS_SEED=%llu\n", (unsigned long long)seed);
    make_store();
    (void)snprintf(saved, sizeof(saved), "%s.saved", folder);
    for (unsigned i = 0; i < n; i++) {
        uint64_t rng = seed + i;
        int seen;

        copy_to(folder, saved);
        for (uint64_t flips = 1 + bad_random(&rng) % 8; flips > 0; flips--)
            flip(&rng, what, sizeof(what));
        seen = look(what);
        refused += seen == 1;
        if (seen == 2 && strstr(chosen_engine(), known_flips) != NULL)
            lost++;
        else if (seen > 1)
            fail_msg("KVFS_SEED=%llu, %s: %s", (unsigned long long)(seed + i), what,
                     seen == 2 ? "wrong without a word" : "an error without words");
        (void)nftw(folder, bad_remove_one, 16, FTW_DEPTH | FTW_PHYS);
        assert_int_equal(rename(saved, folder), 0);
    }
    print_message("%u of %u were noticed\n", refused, n);
    if (lost > 0)
        print_message("expected: records were lost without a word in %u\n", lost);
    assert_true(refused > 0);
}

/* --- somebody else ---------------------------------------------------------------------- */

static void
open__store_of_another_engine__refused(void **state)
{
    struct kvfs_engine_options make = {.create = true}, options = {0};
    const struct kvfs_engine *other;
    struct kvfs_db *db;
    int rc;

    (void)state;
    for (size_t i = 0; (other = kvfs_engine_at(i)) != NULL; i++) {
        if ((other->caps & KVFS_CAP_PERSISTENT) == 0 || strstr(chosen_engine(), other->name) != NULL)
            continue;
        bad_folder();
        if (other->open(other, folder, &make, &db, &err) != 0)
            continue; /* one that needs more than a folder */
        other->close(db);
        rc = engine()->open(engine(), folder, &options, &db, &err);
        assert_true(rc == -ENOENT || rc == -EINVAL);
        assert_true(refusal_is_sound(rc, &err));
    }
}

static void
open__held_by_another_process__ebusy_names_it(void **state)
{
    struct kvfs_engine_options options = {0};
    int ready[2], go[2], status;
    struct kvfs_db *db;
    char byte, who[40];
    pid_t pid;

    (void)state;
    if (chosen_has(KVFS_CAP_MULTIPROCESS))
        skip();
    make_store();
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(go), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)close(go[1]);
        db = must_open(false);
        _exit(write(ready[1], "r", 1) != 1 || read(go[0], &byte, 1) != 0);
    }
    (void)close(go[0]);
    (void)close(ready[1]); /* a child that failed is an end of the file, not a wait for ever */
    assert_int_equal(read(ready[0], &byte, 1), 1);
    for (int readonly = 0; readonly < 2; readonly++) {
        options.readonly = readonly != 0;
        assert_int_equal(engine()->open(engine(), folder, &options, &db, &err), -EBUSY);
        (void)snprintf(who, sizeof(who), "process %d", (int)pid);
        assert_non_null(strstr(err.msg, who));
    }
    (void)close(go[1]);
    (void)close(ready[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    db = must_open(false); /* a dead process holds nothing */
    assert_int_equal(read_all(db, BLOCKS), 0);
    engine()->close(db);
}

/* --- rights ------------------------------------------------------------------------------ */

static int
open_as_nobody(void)
{
    struct kvfs_engine_options options = {0};
    struct kvfs_error e = {0};
    struct kvfs_db *db;
    int rc;

    if (setgid(65534) != 0 || setuid(65534) != 0)
        return 9;
    rc = engine()->open(engine(), folder, &options, &db, &e);
    if (rc != -EACCES)
        (void)fprintf(stderr, "%d: %s\n", rc, e.msg);
    return rc == -EACCES && refusal_is_sound(rc, &e) ? 0 : 1;
}

static void
open__without_rights__eacces(void **state)
{
    static const mode_t modes[] = {0700, 0755, 0777}; /* of the folder; files are root's */
    const struct store_files *files;
    int status;

    (void)state;
    if (getuid() != 0)
        skip();
    make_store();
    files = store_files_find(folder);
    for (size_t i = 0; i < files->count; i++)
        assert_int_equal(chmod(files->file[i].path, 0600), 0);
    for (size_t m = 0; m < sizeof(modes) / sizeof(modes[0]); m++) {
        pid_t pid;

        assert_int_equal(chmod(folder, modes[m]), 0);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0)
            _exit(open_as_nobody());
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (status != 0)
            fail_msg("folder of mode %o: status 0x%x", modes[m], (unsigned)status);
    }
}

/* --- a full medium -------------------------------------------------------------------------- */

/* How much of SMALL_MEDIUM an engine must be able to fill.  sled's log takes 3.2 times the
 * records in the long run, so it stops earlier (engines/rust/README.md): an expected failure. */
static uint64_t
medium_least_bytes(void)
{
    return (strstr(chosen_engine(), "sled") != NULL ? (uint64_t)6 : (uint64_t)10) << 20;
}

static void
apply__medium_full__enospc_and_all_is_there(void **state)
{
    struct kvfs_engine_options options = {0};
    struct kvfs_db *db;
    uint64_t n = 0;
    int rc;

    (void)state;
    bad_folder();
    if (mount("kvfs-test", folder, "tmpfs", 0, SMALL_MEDIUM) != 0)
        skip();
    (void)snprintf(mounted, sizeof(mounted), "%s", folder);
    (void)snprintf(folder, sizeof(folder), "%.50s/store", mounted);
    assert_int_equal(mkdir(folder, 0700), 0);
    db = must_open(true);
    while ((rc = put(db, n, 10, KVFS_ORDERED)) == 0)
        n += 10;
    assert_int_equal(rc, -ENOSPC);
    assert_true(refusal_is_sound(rc, &err));
    print_message("%llu blocks fitted\n", (unsigned long long)n);
    assert_true(n * BLOCK_LEN > medium_least_bytes());
    assert_int_equal(put(db, n, 10, KVFS_DURABLE), -ENOSPC); /* not poisoned */
    assert_int_equal(read_all(db, n), 0);
    engine()->close(db);
    assert_int_equal(engine()->open(engine(), folder, &options, &db, &err), 0);
    assert_int_equal(read_all(db, n), 0);
    engine()->close(db);
}

/* --- under an open store ---------------------------------------------------------------------- */

static void
removed_store(void *arg)
{
    const bool *sync_first = arg;
    const struct store_files *files;
    struct kvfs_db *db = must_open(false);

    assert_int_equal(put(db, 0, 1, KVFS_DURABLE), 0);
    files = store_files_find(folder);
    for (size_t i = 0; i < files->count; i++)
        assert_int_equal(unlink(files->file[i].path), 0);
    if (*sync_first)
        assert_int_equal(engine()->sync(db, &err), -EIO);
    assert_int_equal(put(db, 1, 1, KVFS_ORDERED), -EIO);
    assert_int_equal(engine()->sync(db, &err), -EIO);
    engine()->close(db);
}

static void
file__removed_under_an_open_store__eio(void **state)
{
    bool sync_first = false;

    (void)state;
    make_store();
    aside(removed_store, &sync_first);
    sync_first = true;
    make_store();
    aside(removed_store, &sync_first);
}

/* A snapshot may stay open for hours; writers do not wait for it. */
static void
snapshot__held_while_much_is_written__nobody_waits(void **state)
{
    struct kvfs_db_snap *snap;
    struct kvfs_db *db;

    (void)state;
    make_store();
    db = must_open(false);
    assert_int_equal(engine()->begin(db, &snap, &err), 0);
    (void)alarm(2 * CHILD_S);
    for (uint64_t i = 0; i < 40; i++)
        assert_int_equal(put(db, 1000 + i * 250, 250, KVFS_ORDERED), 0);
    (void)alarm(0);
    engine()->end(snap);
    assert_int_equal(read_all(db, BLOCKS), 0);
    engine()->close(db);
}

int
main(void)
{
#define CASE(f) cmocka_unit_test_teardown(f, teardown)
    const struct CMUnitTest tests[] = {
        CASE(cut_short__any_file__refused_or_right),
        CASE(flipped_bits__anywhere__refused_or_right),
        CASE(open__store_of_another_engine__refused),
        CASE(open__held_by_another_process__ebusy_names_it),
        CASE(open__without_rights__eacces),
        CASE(apply__medium_full__enospc_and_all_is_there),
        CASE(file__removed_under_an_open_store__eio),
        CASE(snapshot__held_while_much_is_written__nobody_waits),
    };

    if (!chosen_is_there()) {
        printf("skipped: no engine %s\n", chosen_engine());
        return 77;
    }
    return aside_run(tests, sizeof(tests) / sizeof(tests[0]));
}
