/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What the lmdb engine hands to the kernel, and when it flushes: the system calls
 * that LMDB and the engine make on data.mdb go through this program, which records
 * them and can let them fail.
 *
 * A power cut at any instant leaves what was flushed before, and of the writes
 * since then any subset, page by page.  Each such file must open, verify and show
 * exactly the state after some batch, none older than the last durable one.
 */
#undef _FILE_OFFSET_BITS /* else the names below mean their 64-bit namesakes */
#include "lmdb_world.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* --- the record ------------------------------------------------------------------ */

enum event_type { EVENT_DATA = 'd', EVENT_META = 'M', EVENT_FLUSH = 'F', EVENT_DURABLE = 'A' };

struct event {
    enum event_type type;
    uint64_t at;
    size_t len;
    uint8_t *bytes;
    unsigned batch; /* EVENT_DURABLE: the batch; EVENT_META: the transaction */
};

#define EVENTS_MAX 20000u

static struct {
    bool on;
    dev_t dev;
    ino_t ino;
    size_t meta_end; /* bytes of the meta pages */
    struct event events[EVENTS_MAX];
    size_t count;
    /* Faults: the call after FAIL_SKIP others of that type fails. */
    enum event_type fail_type;
    long fail_skip; /* negative: none */
    int fail_errno; /* 0: a short write */
    int full_errno; /* what a reserve is refused with; 0: it is not */
} tape = {.fail_skip = -1};

static bool
tape_hears(int fd)
{
    struct stat st;

    return tape.on && fstat(fd, &st) == 0 && st.st_dev == tape.dev && st.st_ino == tape.ino;
}

static void
tape_add(enum event_type type, uint64_t at, const void *bytes, size_t len)
{
    struct event *e = &tape.events[tape.count];

    if (tape.count == EVENTS_MAX)
        abort();
    tape.count++;
    e->type = type;
    e->at = at;
    e->len = len;
    e->bytes = NULL;
    if (len > 0) {
        e->bytes = malloc(len);
        if (e->bytes == NULL)
            abort();
        memcpy(e->bytes, bytes, len);
    }
}

static bool
tape_fails(enum event_type type)
{
    return type == tape.fail_type && tape.fail_skip >= 0 && tape.fail_skip-- == 0;
}

static void
tape_start(struct world *w)
{
    struct stat st;
    struct world_file f;

    assert_int_equal(stat(w->file, &st), 0);
    world_file_open(w, &f);
    tape.meta_end = 2 * f.psize;
    world_file_close(&f);
    tape.dev = st.st_dev;
    tape.ino = st.st_ino;
    tape.on = true;
}

static void
tape_clear(void)
{
    for (size_t i = 0; i < tape.count; i++)
        free(tape.events[i].bytes);
    tape.count = 0;
}

static int
tape_stop(void **state)
{
    tape.on = false;
    tape.full_errno = 0;
    tape.fail_skip = -1;
    tape_clear();
    return world_teardown(state);
}

/* Each kind of event once in a row: "dFM". */
static void
tape_text(char *text, size_t len)
{
    size_t n = 0;

    for (size_t i = 0; i < tape.count && n + 1 < len; i++)
        if (n == 0 || text[n - 1] != (char)tape.events[i].type)
            text[n++] = (char)tape.events[i].type;
    text[n] = '\0';
    tape_clear();
}

/* --- the system calls -------------------------------------------------------------- */

static void *
tape_next(const char *name)
{
    void *fn = dlsym(RTLD_NEXT, name);

    if (fn == NULL)
        abort();
    return fn;
}

static ssize_t
tape_write(int fd, const void *buf, size_t len, off_t at)
{
    static ssize_t (*next)(int, const void *, size_t, off_t);
    enum event_type type = (size_t)at < tape.meta_end ? EVENT_META : EVENT_DATA;

    if (next == NULL)
        *(void **)&next = tape_next("pwrite");
    if (!tape_hears(fd))
        return next(fd, buf, len, at);
    if (tape_fails(type)) {
        if (tape.fail_errno == 0)
            return next(fd, buf, len / 2, at);
        errno = tape.fail_errno;
        return -1;
    }
    tape_add(type, (uint64_t)at, buf, len);
    return next(fd, buf, len, at);
}

ssize_t
pwrite(int fd, const void *buf, size_t len, off_t at)
{
    return tape_write(fd, buf, len, at);
}

ssize_t
pwrite64(int fd, const void *buf, size_t len, off_t at)
{
    return tape_write(fd, buf, len, at);
}

ssize_t
writev(int fd, const struct iovec *iov, int count)
{
    static ssize_t (*next)(int, const struct iovec *, int);
    ssize_t done = 0;
    off_t at;

    if (next == NULL)
        *(void **)&next = tape_next("writev");
    if (!tape_hears(fd))
        return next(fd, iov, count);
    at = lseek(fd, 0, SEEK_CUR);
    for (int i = 0; i < count; i++) {
        ssize_t n = tape_write(fd, iov[i].iov_base, iov[i].iov_len, at + done);

        if (n < 0)
            return done > 0 ? done : -1;
        done += n;
        if ((size_t)n < iov[i].iov_len)
            break;
    }
    return done;
}

static int
tape_flush(const char *name, int fd)
{
    int (*next)(int);

    *(void **)&next = tape_next(name);
    if (!tape_hears(fd))
        return next(fd);
    if (tape_fails(EVENT_FLUSH)) {
        errno = tape.fail_errno;
        return -1;
    }
    tape_add(EVENT_FLUSH, 0, NULL, 0);
    return next(fd);
}

int
fdatasync(int fd)
{
    return tape_flush("fdatasync", fd);
}

int
fsync(int fd)
{
    return tape_flush("fsync", fd);
}

static int
tape_fallocate(int fd, int mode, off_t at, off_t len)
{
    static int (*next)(int, int, off_t, off_t);

    if (next == NULL)
        *(void **)&next = tape_next("fallocate");
    if (tape.full_errno != 0 && tape_hears(fd)) {
        errno = tape.full_errno;
        return -1;
    }
    return next(fd, mode, at, len);
}

int
fallocate(int fd, int mode, off_t at, off_t len)
{
    return tape_fallocate(fd, mode, at, len);
}

int
fallocate64(int fd, int mode, off_t at, off_t len)
{
    return tape_fallocate(fd, mode, at, len);
}

/* --- flushes -------------------------------------------------------------------------- */

static void
flushes__by_durability__as_few_as_it_takes(void **state)
{
    struct world *w = *state;
    char text[64];

    world_open(w);
    tape_start(w);
    for (uint64_t i = 0; i < 5; i++) {
        world_put(w, i, i);
        world_commit(w, KVFS_ORDERED);
        tape_text(text, sizeof(text));
        assert_string_equal(text, "dFM");
        world_put(w, i, i);
        world_commit(w, KVFS_NONE); /* no weaker: it would endanger those before */
        tape_text(text, sizeof(text));
        assert_string_equal(text, "dFM");
        world_put(w, i, i);
        world_commit(w, KVFS_DURABLE);
        tape_text(text, sizeof(text));
        assert_string_equal(text, "dFMF");
    }
    world_put(w, 1, 1);
    world_commit(w, KVFS_ORDERED);
    tape_text(text, sizeof(text));
    assert_int_equal(w->engine->sync(w->db, &w->err), 0);
    tape_text(text, sizeof(text));
    assert_string_equal(text, "F");
    world_commit(w, KVFS_DURABLE); /* an empty batch makes those before durable */
    tape_text(text, sizeof(text));
    assert_string_equal(text, "F");
    world_commit(w, KVFS_NONE);
    tape_text(text, sizeof(text));
    assert_string_equal(text, "");
}

static void
create__new_store__flushed_before_open_returns(void **state)
{
    const struct kvfs_engine_options nosync = {.params = "unsafe-nosync=1"};
    struct world *w = *state;
    char text[64];

    world_open(w);
    tape_start(w);
    world_close(w);
    tape_text(text, sizeof(text));
    assert_string_equal(text, ""); /* nothing is left to close */
    assert_int_equal(world_try(w, &nosync), 0);
    world_put(w, 1, 1);
    world_commit(w, KVFS_DURABLE);
    assert_int_equal(w->engine->sync(w->db, &w->err), 0);
    tape_text(text, sizeof(text));
    assert_string_equal(text, "dM");
}

/* --- power cuts ------------------------------------------------------------------------- */

#define CUT_BATCHES 40u
#define CUT_BLOCKS  24u
#define CUT_TRIES   3u

struct cut {
    struct world *w;
    uint8_t *start; /* the file before the first event */
    size_t start_len;
    uint64_t first_txn;
    uint64_t model[CUT_BATCHES + 1][CUT_BLOCKS]; /* version of each block after a batch */
};

static void
cut_batches(struct cut *c, bool unsafe)
{
    struct world *w = c->w;

    for (unsigned n = 1; n <= CUT_BATCHES; n++) {
        enum kvfs_durability durability = (enum kvfs_durability)(world_random(w) % 3);
        uint64_t number = n;

        memcpy(c->model[n], c->model[n - 1], sizeof(c->model[n]));
        for (unsigned i = 0; i < 1 + n % 7; i++) {
            uint64_t block = world_random(w) % CUT_BLOCKS;

            world_put(w, block, n);
            c->model[n][block] = n;
        }
        world_meta(w, "batch", &number, sizeof(number));
        world_commit(w, durability);
        if (durability == KVFS_DURABLE && !unsafe) {
            tape_add(EVENT_DURABLE, 0, NULL, 0);
            tape.events[tape.count - 1].batch = n;
        }
        if (n % 10 == 0) {
            assert_int_equal(w->engine->sync(w->db, &w->err), 0);
            tape_add(EVENT_DURABLE, 0, NULL, 0);
            tape.events[tape.count - 1].batch = unsafe ? 0 : n;
        }
    }
}

static void
cut_write_at(int fd, const uint8_t *bytes, size_t len, uint64_t at)
{
    assert_int_equal(pwrite(fd, bytes, len, (off_t)at), len);
}

static void
cut_write(struct cut *c, int fd, const struct event *e, bool all)
{
    size_t page = tape.meta_end / 2;

    for (size_t at = 0; at < e->len; at += page) {
        size_t n = e->len - at < page ? e->len - at : page;

        if (all || world_random(c->w) % 2 == 0)
            cut_write_at(fd, e->bytes + at, n, e->at + at);
    }
}

/* Make the file that a cut before event END may leave.  *least, *most: the batches
 * that it may show. */
static void
cut_make(struct cut *c, size_t end, unsigned *least, unsigned *most)
{
    int fd = open(c->w->file, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    size_t flushed = 0;
    unsigned metas = 0;

    assert_true(fd >= 0);
    cut_write_at(fd, c->start, c->start_len, 0);
    *least = 0;
    for (size_t i = 0; i < end; i++)
        if (tape.events[i].type == EVENT_FLUSH)
            flushed = i;
    for (size_t i = 0; i < end; i++) {
        const struct event *e = &tape.events[i];

        if (e->type == EVENT_DURABLE && e->batch > *least)
            *least = e->batch;
        if (e->type == EVENT_META)
            metas++;
        if (e->type == EVENT_META && i < flushed && metas > *least)
            *least = metas;
        if (e->type == EVENT_META || e->type == EVENT_DATA)
            cut_write(c, fd, e, i < flushed);
    }
    *most = metas;
    assert_int_equal(close(fd), 0);
}

/* Does the store open, verify and show one batch's state within the bounds? */
static bool
cut_sound(struct cut *c, unsigned least, unsigned most)
{
    const struct kvfs_engine_options options = {.create = false};
    struct world *w = c->w;
    uint64_t number = 0;
    struct iovec iov = {&number, sizeof(number)};
    struct kvfs_db_snap *snap;
    char first[256];
    bool ok;
    int rc;

    if (world_try(w, &options) != 0)
        return false;
    ok = world_verify(w, first) == 0 && w->engine->begin(w->db, &snap, &w->err) == 0;
    if (ok) {
        rc = w->engine->get(snap, KVFS_META, "batch", 5, 0, &iov, 1, NULL, &w->err);
        ok = (rc == 0 || rc == -ENOENT) && number >= least && number <= most;
        w->engine->end(snap);
    }
    for (uint64_t i = 0; ok && i < CUT_BLOCKS; i++) {
        uint64_t version = c->model[number][i];

        rc = world_check(w, i, version);
        ok = version == 0 ? rc == -ENOENT : rc == 0;
    }
    world_close(w);
    return ok;
}

/* How many of all the files that cuts may leave are not sound. */
static unsigned
cut_everywhere(struct world *w, const char *params)
{
    const struct kvfs_engine_options options = {.create = true, .params = params};
    struct cut *c = calloc(1, sizeof(*c));
    unsigned bad = 0, least, most;
    struct stat st;
    int fd;

    assert_non_null(c);
    c->w = w;
    world_open(w); /* made, flushed and closed: the cut's start */
    world_close(w);
    assert_int_equal(world_try(w, &options), 0);
    assert_int_equal(stat(w->file, &st), 0);
    c->start_len = (size_t)st.st_size;
    c->start = malloc(c->start_len);
    assert_non_null(c->start);
    fd = open(w->file, O_RDONLY | O_CLOEXEC);
    assert_int_equal(pread(fd, c->start, c->start_len, 0), c->start_len);
    (void)close(fd);
    tape_start(w);
    cut_batches(c, params != NULL);
    tape.on = false;
    world_close(w);
    for (size_t end = 0; end <= tape.count; end++) {
        for (unsigned i = 0; i < CUT_TRIES; i++) {
            cut_make(c, end, &least, &most);
            if (!cut_sound(c, least, most)) {
                bad++;
                if (params == NULL)
                    print_error("cut before event %zu (%c) of %zu: not batch %u to %u\n", end,
                                end < tape.count ? tape.events[end].type : ' ', tape.count, least,
                                most);
            }
        }
    }
    (void)printf("%zu instants, %u files each, %u unsound\n", tape.count + 1, CUT_TRIES, bad);
    free(c->start);
    free(c);
    return bad;
}

static void
power_cut__anywhere__a_prefix_of_the_batches(void **state)
{
    assert_int_equal(cut_everywhere(*state, NULL), 0);
}

/* The same without flushes: the cuts are no straw men. */
static void
power_cut__unsafe_nosync__found(void **state)
{
    assert_true(cut_everywhere(*state, "unsafe-nosync=1") > 10);
}

/* --- calls that fail ------------------------------------------------------------------------ */

static void
fail_prepare(struct world *w)
{
    world_open(w);
    for (uint64_t i = 0; i < 10; i++)
        world_put(w, i, 1);
    world_commit(w, KVFS_DURABLE);
    tape_start(w);
}

static int
fail_apply(struct world *w, enum event_type type, long skip, int error)
{
    tape.fail_type = type;
    tape.fail_skip = skip;
    tape.fail_errno = error;
    for (uint64_t i = 0; i < 10; i += 2)
        world_put(w, i, 2);
    world_meta(w, "m", "x", 1);
    return world_apply(w, KVFS_DURABLE);
}

static void
fail_check(struct world *w, uint64_t version)
{
    char first[256];

    for (uint64_t i = 0; i < 10; i++)
        assert_int_equal(world_check(w, i, i % 2 == 0 ? version : 1), 0);
    assert_int_equal(world_verify(w, first), 0);
}

/* The file system fills up in the middle of a commit: clean, and tried again. */
static void
disk_full__at_any_data_write__enospc_nothing_changed(void **state)
{
    struct world *w = *state;
    long n = 0;

    fail_prepare(w);
    for (int how = 0; how < 3; how++) {
        int error = how == 0 ? ENOSPC : how == 1 ? EDQUOT : 0;

        tape.full_errno = how == 1 ? EDQUOT : ENOSPC; /* LMDB calls a short write EIO */
        for (n = 0;; n++) {
            int rc = fail_apply(w, EVENT_DATA, n, error);

            if (tape.fail_skip >= 0)
                break; /* there were fewer writes */
            assert_int_equal(rc, -ENOSPC);
            fail_check(w, 1);
        }
        tape.fail_skip = -1;
        assert_true(n >= 3);
        fail_check(w, 2);
        for (uint64_t i = 0; i < 10; i++)
            world_put(w, i, 1);
        world_commit(w, KVFS_DURABLE);
    }
}

static void
fail_poisons(struct world *w, enum event_type type, long skip, int error, uint64_t version)
{
    char first[256];

    fail_prepare(w);
    assert_int_equal(fail_apply(w, type, skip, error), -EIO);
    assert_int_equal(world_apply(w, KVFS_NONE), -EIO);
    assert_int_equal(w->engine->sync(w->db, &w->err), -EIO);
    (void)world_check(w, 0, 1); /* reading goes on */
    assert_int_equal(world_check(w, 1, 1), 0);
    tape.on = false;
    world_close(w);
    world_open(w);
    assert_int_equal(world_verify(w, first), 0);
    if (version != 0)
        fail_check(w, version);
    world_put(w, 0, 3);
    world_commit(w, KVFS_DURABLE);
    world_close(w);
    assert_int_equal(unlink(w->file), 0);
    tape_clear();
}

static void
io_error__anywhere_in_a_commit__eio_and_poisoned(void **state)
{
    struct world *w = *state;

    fail_poisons(w, EVENT_DATA, 0, EIO, 1);
    fail_poisons(w, EVENT_DATA, 0, 0, 1); /* a short write, and the disk is not full */
    fail_poisons(w, EVENT_FLUSH, 0, EIO, 1);
    fail_poisons(w, EVENT_META, 0, EIO, 1);
    fail_poisons(w, EVENT_META, 0, ENOSPC, 1);
    fail_poisons(w, EVENT_FLUSH, 1, EIO, 0); /* behind the meta page: either */
}

int
main(void)
{
#define TEST_TAPE(fn) cmocka_unit_test_setup_teardown(fn, world_setup_in_memory, tape_stop)
    const struct CMUnitTest tests[] = {
        TEST_TAPE(flushes__by_durability__as_few_as_it_takes),
        TEST_TAPE(create__new_store__flushed_before_open_returns),
        TEST_TAPE(power_cut__anywhere__a_prefix_of_the_batches),
        TEST_TAPE(power_cut__unsafe_nosync__found),
        TEST_TAPE(disk_full__at_any_data_write__enospc_nothing_changed),
        TEST_TAPE(io_error__anywhere_in_a_commit__eio_and_poisoned),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
