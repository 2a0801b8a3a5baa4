/* SPDX-License-Identifier: BSD-3-Clause
 *
 * A damaged file under the lmdb engine: reads answer -EIO and the process lives,
 * verify names the page, batches refuse, opening tells.
 */
#include "lmdb_world.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCKS    1200u /* enough for branch pages */
#define METAS     200u
#define BITS_MANY 1200u /* flips tried of one page, at most, by the seed */

/* Blocks, overwritten in part so that there is a free list, and META records. */
static void
damage_fill(struct world *w)
{
    char name[16], value[100] = "value";

    world_open(w);
    for (uint32_t i = 0; i < BLOCKS; i++) {
        world_put(w, i, 1);
        if (i % 128 == 127)
            world_commit(w, KVFS_NONE);
    }
    for (uint32_t i = 0; i < METAS; i++) {
        (void)snprintf(name, sizeof(name), "meta%04u", i);
        world_meta(w, name, value, sizeof(value));
    }
    world_commit(w, KVFS_NONE);
    for (uint32_t i = 0; i < BLOCKS; i += 50)
        world_put(w, i, 1);
    world_commit(w, KVFS_DURABLE);
}

/* Scan KS to its end, with a part of every value; *records are counted. */
static int
damage_scan(struct world *w, struct kvfs_db_snap *snap, enum kvfs_keyspace ks, unsigned flags,
            unsigned *records)
{
    struct kvfs_db_cursor *cursor;
    const void *key;
    size_t key_len, value_len;
    char byte;
    struct iovec iov = {&byte, 1};
    int rc = w->engine->cursor_open(snap, ks, NULL, 0, NULL, 0, flags, &cursor, &w->err);

    if (rc != 0)
        return rc;
    while ((rc = w->engine->cursor_next(cursor, &key, &key_len, &value_len, &w->err)) == 1) {
        (void)w->engine->cursor_value(cursor, value_len / 2, &iov, 1, &w->err);
        (*records)++;
    }
    w->engine->cursor_close(cursor);
    return rc;
}

/* Read every block from FIRST on, STEP apart, by gets, and everything by scans.
 * How many answers were not right; all others than 0, -EIO and -ESTALE fail, and so
 * does a scan that passes a record over. */
static unsigned
damage_read(struct world *w, uint32_t first, uint32_t step)
{
    struct kvfs_db_snap *snap;
    unsigned bad = 0;

    for (uint32_t i = first; i < BLOCKS; i += step) {
        int rc = world_check(w, i, 1);

        if (rc == -ENOENT)
            print_error("block %u is not found\n", i);
        assert_true(rc == 0 || rc == -EIO || rc == -ESTALE);
        bad += rc != 0;
    }
    assert_int_equal(w->engine->begin(w->db, &snap, &w->err), 0);
    for (unsigned flags = 0; flags < 2; flags++) {
        for (int ks = 0; ks < 2; ks++) {
            unsigned records = 0;
            int rc = damage_scan(w, snap, (enum kvfs_keyspace)ks, flags, &records);

            assert_true(rc == 0 || rc == -EIO || rc == -ESTALE);
            if (rc == 0)
                assert_int_equal(records, ks == KVFS_DATA ? BLOCKS : METAS);
            bad += rc != 0;
        }
    }
    w->engine->end(snap);
    return bad;
}

static unsigned
damage_read_all(struct world *w)
{
    return damage_read(w, 0, 1);
}

/* --- one page at a time -------------------------------------------------------------- */

struct damage {
    const char *name;
    int tree;
    unsigned type;
    size_t at;     /* byte of the page */
    uint8_t flip;  /* bits */
    bool reads_on; /* reading does not depend on it */
};

static const struct damage damages[] = {
    {"a branch page's type", WORLD_DATA, PAGE_BRANCH, 10, 0x01, false},
    {"a branch page's number", WORLD_DATA, PAGE_BRANCH, 1, 0x40, true},
    {"a branch page's lower bound", WORLD_DATA, PAGE_BRANCH, 13, 0x20, false},
    {"a branch page's upper bound", WORLD_DATA, PAGE_BRANCH, 15, 0x80, true},
    {"a branch page's second offset", WORLD_DATA, PAGE_BRANCH, 19, 0x70, false},
    {"a leaf page's type", WORLD_DATA, PAGE_LEAF, 10, 0x02, false},
    {"a leaf page become an overflow page", WORLD_DATA, PAGE_LEAF, 10, 0x06, false},
    {"a leaf page's lower bound", WORLD_DATA, PAGE_LEAF, 12, 0x01, true},
    {"a leaf page's lower bound, far", WORLD_DATA, PAGE_LEAF, 13, 0x7f, false},
    {"a leaf page's first offset", WORLD_DATA, PAGE_LEAF, 17, 0xf0, false},
    {"an overflow page's type", WORLD_DATA, PAGE_OVERFLOW, 10, 0x10, true},
    {"an overflow page's number", WORLD_DATA, PAGE_OVERFLOW, 0, 0x01, true},
    {"an overflow page's count", WORLD_DATA, PAGE_OVERFLOW, 13, 0x01, true},
    {"a META leaf's type", WORLD_META, PAGE_LEAF, 10, 0xff, false},
    {"a META leaf's offsets", WORLD_META, PAGE_LEAF, 21, 0x88, false},
    {"the main tree's type", WORLD_MAIN, PAGE_LEAF, 10, 0x07, false},
    {"the main tree's offset", WORLD_MAIN, PAGE_LEAF, 17, 0xf0, false},
    {"a free list's type", WORLD_FREE, PAGE_LEAF, 10, 0x02, true},
    {"a free list's offset", WORLD_FREE, PAGE_LEAF, 17, 0xf0, true},
};

static void
damage_flip(struct world *w, const struct damage *d, uint64_t pgno, struct world_file *f)
{
    uint8_t *page = malloc(f->psize);

    assert_non_null(page);
    world_file_read(f, pgno, page);
    page[d->at] ^= d->flip;
    world_file_write(f, pgno, page);
    free(page);
    (void)w;
}

static void
flipped_bits__in_each_kind_of_page__eio_and_named(void **state)
{
    struct world *w = *state;

    damage_fill(w);
    for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
        const struct damage *d = &damages[i];
        struct world_file f;
        char first[256], where[40];
        uint64_t pgno;
        unsigned bad;

        world_file_open(w, &f);
        pgno = world_file_find(&f, d->tree, d->type);
        assert_int_not_equal(pgno, 0);
        damage_flip(w, d, pgno, &f);
        bad = damage_read_all(w);
        if (bad == 0 && !d->reads_on)
            print_error("%s: reading sees nothing\n", d->name);
        assert_true(bad > 0 || d->reads_on);
        (void)snprintf(where, sizeof(where), "page %" PRIu64 ": ", pgno);
        first[0] = '\0';
        if (world_verify(w, first) == 0 || strncmp(first, where, strlen(where)) != 0)
            print_error("%s: verify says of %s'%s'\n", d->name, where, first);
        assert_int_equal(strncmp(first, where, strlen(where)), 0);
        damage_flip(w, d, pgno, &f); /* back again: the same handle goes on */
        assert_int_equal(damage_read_all(w), 0);
        assert_int_equal(world_verify(w, first), 0);
        world_file_close(&f);
    }
}

/* Of a page that leads to records every bit that can make one vanish: header,
 * offsets, heads of nodes and keys.  What is there is found, or the answer is an
 * error; never "no such record". */
static unsigned
damage_each_bit(struct world *w, struct world_file *f, int tree, unsigned type)
{
    uint64_t pgno = world_file_find(f, tree, type);
    uint8_t good[16384], page[16384], heads[16384] = {0};
    unsigned flips = 0, told = 0, bits = 0;
    struct page_header h;

    assert_int_not_equal(pgno, 0);
    assert_true(f->psize <= sizeof(page));
    world_file_read(f, pgno, good);
    memcpy(&h, good, sizeof(h));
    memset(heads, 1, h.u.room.lower);
    for (size_t i = 0; i < page_keys(&h); i++) {
        struct page_node node;
        size_t len;

        assert_true(kvfs_page_node(good, f->psize, i, &node));
        len = node.key_len < KVFS_LMDB_DATA_HEAD ? node.key_len : KVFS_LMDB_DATA_HEAD;
        memset(heads + (node.key - good) - PAGE_NODE_LEN, 1, PAGE_NODE_LEN + len);
        if (tree == WORLD_MAIN) /* the trees' records */
            memset(heads + (node.data - good), 1, node.data_len);
    }
    for (size_t at = 0; at < f->psize; at++)
        bits += heads[at] ? 8 : 0;
    for (size_t bit = 0; bit < 8 * f->psize; bit++) {
        if (!heads[bit / 8] || world_random(w) % bits >= BITS_MANY)
            continue;
        memcpy(page, good, f->psize);
        page[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        world_file_write(f, pgno, page);
        told += damage_read(w, (uint32_t)(bit % 17), 17) > 0;
        flips++;
    }
    world_file_write(f, pgno, good);
    assert_int_equal(damage_read_all(w), 0);
    (void)printf("tree %d, page type %u: %u flips, %u told\n", tree, type, flips, told);
    return told;
}

static void
flipped_bits__each_that_leads_to_a_record__never_absent(void **state)
{
    struct world *w = *state;
    struct world_file f;

    damage_fill(w);
    world_file_open(w, &f);
    assert_true(damage_each_bit(w, &f, WORLD_DATA, PAGE_LEAF) > 500);
    assert_true(damage_each_bit(w, &f, WORLD_DATA, PAGE_BRANCH) > 100);
    assert_true(damage_each_bit(w, &f, WORLD_META, PAGE_LEAF) > 100);
    assert_true(damage_each_bit(w, &f, WORLD_META, PAGE_BRANCH) > 10);
    assert_true(damage_each_bit(w, &f, WORLD_MAIN, PAGE_LEAF) > 10);
    world_file_close(&f);
}

/* The same, met by a batch: refused before anything changes, and afterwards the
 * handle writes no more. */
static void
flipped_bits__met_by_a_batch__eio_and_poisoned(void **state)
{
    struct world *w = *state;

    damage_fill(w);
    for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
        const struct damage *d = &damages[i];
        struct world_file f;
        char first[256], where[40];
        uint64_t pgno;

        world_file_open(w, &f);
        pgno = world_file_find(&f, d->tree, d->type);
        damage_flip(w, d, pgno, &f);
        for (uint32_t n = 0; n < BLOCKS; n++)
            world_put(w, n, 1);
        world_meta(w, "meta0000", "x", 1);
        world_meta(w, "meta0100", "x", 1);
        world_meta(w, "meta0199", "x", 1);
        if (world_apply(w, KVFS_NONE) != -EIO)
            print_error("%s: applied\n", d->name);
        assert_int_equal(w->err.code, -EIO);
        (void)snprintf(where, sizeof(where), "page %" PRIu64 " ", pgno);
        if (d->tree != WORLD_MAIN && strstr(w->err.msg, where) == NULL)
            print_error("%s: %s, not %s\n", d->name, w->err.msg, where);
        assert_true(d->tree == WORLD_MAIN || strstr(w->err.msg, where) != NULL);
        world_meta(w, "k", "v", 1);
        assert_int_equal(world_apply(w, KVFS_NONE), -EIO);
        assert_int_equal(w->engine->sync(w->db, &w->err), -EIO);
        damage_flip(w, d, pgno, &f);
        assert_int_equal(damage_read_all(w), 0); /* nothing was changed */
        world_close(w);
        world_open(w);
        assert_int_equal(world_verify(w, first), 0);
        world_put(w, 0, 1);
        world_commit(w, KVFS_NONE); /* LMDB's writer mutex was released */
        world_file_close(&f);
    }
}

/* A free list that names a page in use would have it overwritten. */
static void
free_list__names_an_impossible_page__eio(void **state)
{
    struct world *w = *state;
    struct world_file f;
    struct page_node node;
    char first[256];
    uint8_t *page;
    uint64_t pgno, entry = UINT64_MAX - 7;

    damage_fill(w);
    world_file_open(w, &f);
    pgno = world_file_find(&f, WORLD_FREE, PAGE_LEAF);
    page = malloc(f.psize);
    assert_non_null(page);
    world_file_read(&f, pgno, page);
    for (size_t i = 0;; i++) { /* a record inside the leaf that is not empty */
        uint64_t count;

        assert_true(kvfs_page_node(page, f.psize, i, &node));
        if (node.data == NULL)
            continue;
        memcpy(&count, node.data, sizeof(count));
        if (count > 0)
            break;
    }
    memcpy(page + (node.data - page) + 8, &entry, sizeof(entry));
    world_file_write(&f, pgno, page);
    assert_true(world_verify(w, first) > 0);
    assert_non_null(strstr(first, "free list names page"));
    for (uint32_t n = 0; n < BLOCKS; n++)
        world_put(w, n, 1);
    assert_int_equal(world_apply(w, KVFS_NONE), -EIO);
    assert_non_null(strstr(w->err.msg, "free list"));
    free(page);
    world_file_close(&f);
}

/* What a page says is possible, but pages contradict each other. */
static void
damage_swap(uint8_t *page, size_t a, size_t b)
{
    uint8_t x[2];

    memcpy(x, page + a, 2);
    memcpy(page + a, page + b, 2);
    memcpy(page + b, x, 2);
}

static void
contradiction__between_pages__found(void **state)
{
    struct world *w = *state;
    struct world_file f;
    uint8_t page[16384], good[16384];
    char first[256];

    damage_fill(w);
    world_file_open(w, &f);
    assert_true(f.psize <= sizeof(page));
    for (int i = 0; i < 4; i++) {
        static const char *const want[] = {"keys out of order (DATA)", "keys out of order (DATA)",
                                           "keys out of order (META)", "records, there are"};
        static const int tree[] = {WORLD_DATA, WORLD_DATA, WORLD_META, WORLD_MAIN};
        static const unsigned type[] = {PAGE_LEAF, PAGE_BRANCH, PAGE_LEAF, PAGE_LEAF};
        uint64_t pgno = world_file_find(&f, tree[i], type[i]);
        struct page_node node;

        world_file_read(&f, pgno, good);
        memcpy(page, good, f.psize);
        if (i < 3) {
            damage_swap(page, 16 + 2 * 3, 16 + 2 * 4);
        } else { /* the record of a tree counts one entry less */
            assert_true(kvfs_page_node(page, f.psize, 0, &node));
            page[(size_t)(node.data - page) + offsetof(struct page_db, entries)] ^= 1;
        }
        world_file_write(&f, pgno, page);
        assert_true(world_verify(w, first) > 0);
        if (strstr(first, want[i]) == NULL)
            print_error("verify says: %s\n", first);
        assert_non_null(strstr(first, want[i]));
        world_file_write(&f, pgno, good);
        assert_int_equal(world_verify(w, first), 0);
    }
    world_file_close(&f);
}

/* LMDB gives a read transaction up that met an impossible page number.  Other
 * records of the snapshot stay readable while it can be had again. */
static void
snapshot__met_damage__other_records_readable(void **state)
{
    struct world *w = *state;
    struct world_file f;
    struct page_node node;
    struct kvfs_db_snap *snap;
    uint8_t *page, key[16];
    uint64_t pgno, bad = 0x00ffffffffff, index = 0;
    uint8_t byte;
    struct iovec iov = {&byte, 1};

    damage_fill(w);
    world_file_open(w, &f);
    page = malloc(f.psize);
    assert_non_null(page);
    pgno = world_file_find(&f, WORLD_DATA, PAGE_BRANCH);
    world_file_read(&f, pgno, page);
    assert_true(kvfs_page_node(page, f.psize, 2, &node));
    for (int i = 8; i < 16; i++) /* the first block below the node */
        index = index << 8 | node.key[i];
    memcpy(page + (node.key - page) - PAGE_NODE_LEN, &bad, 6);
    assert_int_equal(w->engine->begin(w->db, &snap, &w->err), 0);
    world_file_write(&f, pgno, page);
    for (int i = 0; i < 3; i++) {
        world_key(key, 1, index + 1);
        assert_int_equal(
            w->engine->get(snap, KVFS_DATA, key, 16, 0, &iov, 1, NULL, &w->err), -EIO);
        world_key(key, 1, 0);
        assert_int_equal(w->engine->get(snap, KVFS_DATA, key, 16, 0, &iov, 1, NULL, &w->err), 0);
        assert_int_equal(
            w->engine->get(snap, KVFS_META, "meta0007", 8, 0, &iov, 1, NULL, &w->err), 0);
    }
    world_meta(w, "meta0007", "x", 1); /* the state has gone on: it cannot be had again */
    world_commit(w, KVFS_NONE);
    world_key(key, 1, index + 1);
    assert_int_equal(w->engine->get(snap, KVFS_DATA, key, 16, 0, &iov, 1, NULL, &w->err), -EIO);
    assert_int_equal(w->engine->get(snap, KVFS_META, "meta0007", 8, 0, &iov, 1, NULL, &w->err),
                     -ESTALE);
    w->engine->end(snap);
    assert_int_equal(world_check(w, 0, 1), 0);
    free(page);
    world_file_close(&f);
}

/* --- anywhere -------------------------------------------------------------------------- */

#define RANDOM_ROUNDS 60u

/* Random bits of random pages that hold structure, not values. */
static unsigned
damage_random(struct world *w, struct world_file *f, uint64_t last)
{
    uint8_t *page = malloc(f->psize);
    unsigned flips = 1 + (unsigned)(world_random(w) % 4), n = 0;

    assert_non_null(page);
    while (n < flips) {
        uint64_t pgno = world_random(w) % (last + 1);
        struct page_header h;
        size_t at = (size_t)(world_random(w) % f->psize);

        world_file_read(f, pgno, page);
        memcpy(&h, page, sizeof(h));
        if (h.pgno != pgno && world_random(w) % 8 != 0)
            continue; /* inside a run */
        if ((h.flags & (PAGE_OVERFLOW | PAGE_META)) != 0)
            at %= 24;
        else if (world_random(w) % 2 == 0)
            at %= 160;
        page[at] ^= (uint8_t)(1u << (world_random(w) % 8));
        world_file_write(f, pgno, page);
        n++;
    }
    free(page);
    return flips;
}

static void
damage_copy(const char *from, const char *to)
{
    int in = open(from, O_RDONLY | O_CLOEXEC), out;
    static uint8_t buf[1 << 20];
    ssize_t n;

    assert_true(in >= 0);
    out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    assert_true(out >= 0);
    while ((n = read(in, buf, sizeof(buf))) > 0)
        assert_int_equal(write(out, buf, (size_t)n), n);
    assert_int_equal(n, 0);
    (void)close(in);
    (void)close(out);
}

/* In a child: open, read all, verify, write; alive and in time is all we ask, and
 * that what verify calls sound can be read. */
static void
damage_use(struct world *w)
{
    const struct kvfs_engine_options options = {.create = false};
    char first[256] = "";
    unsigned findings, bad;

    (void)alarm(120);
    if (world_try(w, &options) != 0)
        _exit(0);
    findings = world_verify(w, first);
    bad = damage_read_all(w);
    if (findings == 0 && bad > 1) /* a flip may have hit the tail of one value */
        print_error("%u records cannot be read, verify sees nothing\n", bad);
    for (uint32_t n = 0; n < BLOCKS; n += 1 + (uint32_t)(world_random(w) % 30))
        world_random(w) % 4 ? world_put(w, n, 2) : world_del(w, n);
    (void)world_apply(w, KVFS_NONE);
    world_del(w, 0);
    (void)world_apply(w, KVFS_NONE);
    world_close(w);
    _exit(findings == 0 && bad > 4 ? 1 : 0);
}

static void
flipped_bits__anywhere__the_process_lives(void **state)
{
    struct world *w = *state;
    const struct rlimit no_core = {0, 0};
    char good[120];

    damage_fill(w);
    world_close(w);
    (void)snprintf(good, sizeof(good), "%s/good", w->folder);
    damage_copy(w->file, good);
    (void)setrlimit(RLIMIT_CORE, &no_core);
    for (unsigned round = 0; round < RANDOM_ROUNDS; round++) {
        struct world_file f;
        int pid;

        damage_copy(good, w->file);
        world_file_open(w, &f);
        (void)damage_random(w, &f, f.meta.page.last_pgno);
        world_file_close(&f);
        pid = world_fork();
        if (pid == 0)
            damage_use(w);
        world_join(pid);
    }
}

/* --- truncated --------------------------------------------------------------------------- */

static void
truncated__while_open__eio_and_lives(void **state)
{
    struct world *w = *state;
    struct stat st;
    unsigned bad;
    int rc;

    damage_fill(w);
    assert_int_equal(stat(w->file, &st), 0);
    assert_int_equal(truncate(w->file, st.st_size / 2), 0);
    bad = damage_read_all(w);
    assert_true(bad > BLOCKS / 10);
    for (uint32_t n = 0; n < BLOCKS; n++)
        world_put(w, n, 2);
    assert_int_equal(world_apply(w, KVFS_DURABLE), -EIO);
    assert_int_equal(truncate(w->file, 0), 0);
    rc = world_check(w, 0, 1);
    assert_int_equal(rc, -EIO);
    world_meta(w, "k", "v", 1);
    rc = world_apply(w, KVFS_NONE);
    assert_int_equal(rc, -EIO);
    world_close(w);
}

static void
truncated__before_open__eio_names_both_lengths(void **state)
{
    const struct kvfs_engine_options options = {.create = true};
    struct world *w = *state;
    char text[40];
    struct stat st;

    damage_fill(w);
    world_close(w);
    assert_int_equal(stat(w->file, &st), 0);
    for (off_t len = st.st_size - 1; len > 100; len /= 2) {
        assert_int_equal(truncate(w->file, len), 0);
        assert_int_equal(world_try(w, &options), -EIO);
        (void)snprintf(text, sizeof(text), "%lld bytes", (long long)len);
        assert_non_null(strstr(w->err.msg, "truncated"));
        assert_non_null(strstr(w->err.msg, text));
    }
    assert_int_equal(truncate(w->file, 100), 0);
    assert_int_equal(world_try(w, &options), -EINVAL);
}

/* Pages that were taken from the end and given back need not be there. */
static void
truncated__only_free_pages_missing__opens(void **state)
{
    struct world *w = *state;
    struct kvfs_engine_stat told;
    struct world_file f;
    uint64_t last;
    char first[256];

    damage_fill(w);
    for (uint32_t n = 400; n < BLOCKS; n++)
        world_del(w, n);
    world_commit(w, KVFS_NONE);
    for (uint32_t n = 0; n < 800; n++) { /* what lies at the end moves to free pages before */
        world_put(w, n % 400, 1);
        if (n % 50 == 49)
            world_commit(w, KVFS_NONE);
    }
    told = world_stat(w);
    assert_true(told.free_bytes > told.store_bytes / 3);
    world_close(w);
    world_file_open(w, &f);
    last = f.meta.page.last_pgno;
    world_file_close(&f);
    assert_int_equal(truncate(w->file, (off_t)(last * f.psize)), 0);
    world_open(w);
    assert_int_equal(world_verify(w, first), 0);
    assert_int_equal(world_check(w, 399, 1), 0);
}

/* --- meta pages ------------------------------------------------------------------------------ */

static void
meta_page__each_bit_flipped__opens_sound_or_tells(void **state)
{
    const struct kvfs_engine_options options = {.create = true};
    struct world *w = *state;
    struct world_file f;
    uint8_t page[2 * 16384], other[2 * 16384];
    char first[256];
    unsigned told = 0, passed = 0;

    damage_fill(w);
    world_close(w);
    world_file_open(w, &f);
    assert_true(2 * f.psize <= sizeof(page));
    for (size_t bit = 0; bit < 16 * (PAGE_HEADER_LEN + sizeof(struct page_meta)); bit++) {
        size_t at = bit / 16 + (bit / 8 % 2) * f.psize;
        int rc;

        assert_int_equal(pread(f.fd, page, 2 * f.psize, 0), 2 * f.psize);
        memcpy(other, page, 2 * f.psize);
        other[at] ^= (uint8_t)(1u << (bit % 8));
        assert_int_equal(pwrite(f.fd, other, 2 * f.psize, 0), 2 * f.psize);
        rc = world_try(w, &options);
        if (rc == 0) {
            unsigned findings = world_verify(w, first);

            passed++;
            if (findings == 0)
                assert_int_equal(world_check(w, 77, 1), 0);
            world_close(w);
        } else {
            assert_true(rc == -EIO || rc == -EINVAL);
            assert_null(strchr(w->err.msg, '\n'));
            told++;
        }
        assert_int_equal(pwrite(f.fd, page, 2 * f.psize, 0), 2 * f.psize);
    }
    (void)printf("meta pages: %u flips refused, %u opened\n", told, passed);
    assert_true(told > 500);
    world_file_close(&f);
    world_open(w);
    assert_int_equal(world_verify(w, first), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_IN_MEMORY(flipped_bits__in_each_kind_of_page__eio_and_named),
        TEST_IN_MEMORY(flipped_bits__each_that_leads_to_a_record__never_absent),
        TEST_IN_MEMORY(flipped_bits__met_by_a_batch__eio_and_poisoned),
        TEST_IN_MEMORY(free_list__names_an_impossible_page__eio),
        TEST_IN_MEMORY(contradiction__between_pages__found),
        TEST_IN_MEMORY(snapshot__met_damage__other_records_readable),
        TEST_IN_MEMORY(flipped_bits__anywhere__the_process_lives),
        TEST_IN_MEMORY(truncated__while_open__eio_and_lives),
        TEST_IN_MEMORY(truncated__before_open__eio_names_both_lengths),
        TEST_IN_MEMORY(truncated__only_free_pages_missing__opens),
        TEST_IN_MEMORY(meta_page__each_bit_flipped__opens_sound_or_tells),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
