/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The log's ring: what is recovered is a prefix of what was appended, whatever a power cut
 * or a worn medium made of the file's end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../../engines/log/ring.h"

#define RING_BYTES ((uint64_t)256 << 10)
#define SECTOR     512u
#define RECORDS    2000

struct ring_world {
    char folder[64], file[96];
    int folder_fd;
    struct kvfs_ring *ring;
    uint64_t random;
    struct kvfs_ring_at at[RECORDS]; /* of each record; its payload follows from its number */
    size_t len[RECORDS];
    unsigned count, tail; /* records; the first that is needed */
    uint64_t epoch;
};

static const uint8_t ring_id[KVFS_RING_ID] = "a store's number";

static uint64_t
ring_random(struct ring_world *w)
{
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return w->random;
}

static struct kvfs_ring_file
ring_file(const struct ring_world *w)
{
    return (struct kvfs_ring_file){
        .folder = w->folder_fd, .path = w->file, .id = ring_id, .epoch = w->epoch};
}

static int
ring_setup(void **state)
{
    const char *text = getenv("KVFS_SEED"); // NOLINT(concurrency-mt-unsafe): one thread
    struct ring_world *w = calloc(1, sizeof(*w));
    struct kvfs_ring_file file;

    assert_non_null(w);
    w->random = text != NULL ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);
    print_message("KVFS_SEED=%llu\n", (unsigned long long)w->random);
    w->random = w->random * 2 + 88172645463325253u;
    (void)snprintf(w->folder, sizeof(w->folder), "%s/kvfs-ring-XXXXXX",
                   access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(w->folder));
    (void)snprintf(w->file, sizeof(w->file), "%s/log", w->folder);
    w->folder_fd = open(w->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(w->folder_fd >= 0);
    w->epoch = 7;
    file = ring_file(w);
    assert_int_equal(kvfs_ring_make(&file, RING_BYTES, NULL), 0);
    assert_int_equal(kvfs_ring_open(&file, false, &w->ring, NULL), 0);
    *state = w;
    return 0;
}

static int
ring_remove(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static int
ring_teardown(void **state)
{
    struct ring_world *w = *state;

    kvfs_ring_close(w->ring);
    (void)close(w->folder_fd);
    (void)nftw(w->folder, ring_remove, 8, FTW_DEPTH | FTW_PHYS);
    free(w);
    return 0;
}

static uint8_t
ring_byte(unsigned number, size_t at)
{
    return (uint8_t)((size_t)number * 131 + at * 7 + (at >> 8));
}

static bool
ring_append(struct ring_world *w, size_t len, bool flush)
{
    uint8_t *payload = kvfs_ring_payload(w->ring, len);
    int rc;

    assert_non_null(payload);
    for (size_t i = 0; i < len; i++)
        payload[i] = ring_byte(w->count, i);
    rc = kvfs_ring_append(w->ring, len, flush, &w->at[w->count], NULL);
    assert_true(rc == 0 || rc == -EAGAIN);
    if (rc == 0)
        w->len[w->count++] = len;
    return rc == 0;
}

/* Fill the ring some laps round, as folds release it. */
static void
ring_run(struct ring_world *w, unsigned records)
{
    while (w->count < records) {
        size_t len = ring_random(w) % 8 == 0 ? ring_random(w) % 40000 : ring_random(w) % 6000;

        if (ring_append(w, len, ring_random(w) % 2 == 0))
            continue;
        w->tail += 1 + (unsigned)(ring_random(w) % (w->count - w->tail));
        if (w->tail == w->count) {
            struct kvfs_ring_at head = kvfs_ring_head(w->ring);

            kvfs_ring_release(w->ring, &head);
        } else {
            kvfs_ring_release(w->ring, &w->at[w->tail]);
        }
    }
}

struct ring_recovered {
    const struct ring_world *w;
    unsigned next;
};

static int
ring_check(void *arg, const struct kvfs_ring_at *at, const void *payload, size_t len)
{
    struct ring_recovered *r = arg;

    assert_true(r->next < r->w->count);
    assert_int_equal(at->seq, r->w->at[r->next].seq);
    assert_int_equal(at->offset, r->w->at[r->next].offset);
    assert_int_equal(len, r->w->len[r->next]);
    for (size_t i = 0; i < len; i++)
        assert_int_equal(((const uint8_t *)payload)[i], ring_byte(r->next, i));
    r->next++;
    return 0;
}

/* Records found in PATH, from the tail on. */
static unsigned
ring_recover(struct ring_world *w, const char *path)
{
    struct kvfs_ring_file file = ring_file(w);
    struct ring_recovered r = {.w = w, .next = w->tail};
    struct kvfs_ring_at tail = w->tail < w->count ? w->at[w->tail] : kvfs_ring_head(w->ring);
    struct kvfs_ring *ring;

    file.path = path;
    assert_int_equal(kvfs_ring_open(&file, true, &ring, NULL), 0);
    assert_int_equal(kvfs_ring_recover(ring, &tail, ring_check, &r, NULL), 0);
    assert_int_equal(kvfs_ring_head(ring).seq, w->at[0].seq + r.next);
    kvfs_ring_close(ring);
    return r.next;
}

/* --- tests -------------------------------------------------------------------------------- */

static void
recover__laps__all_from_the_tail(void **state)
{
    struct ring_world *w = *state;

    for (unsigned n = 0; n < RECORDS; n += 50) {
        ring_run(w, n + 1);
        assert_int_equal(ring_recover(w, w->file), w->count);
    }
}

/* A power cut loses the second of four records; opened again, the very same is appended.  What
 * then follows it in the file was written behind another. */
static void
recover__a_lost_record_is_written_again__old_ones_do_not_follow(void **state)
{
    static const uint8_t zeros[KVFS_RING_ALIGN];
    struct ring_world *w = *state;
    struct kvfs_ring_file file = ring_file(w);
    struct ring_recovered r = {.w = w};
    struct kvfs_ring_at tail;
    int fd;

    assert_true(ring_append(w, 100, true));
    tail = w->at[0];
    for (unsigned i = 0; i < 3; i++)
        assert_true(ring_append(w, 200, false));
    kvfs_ring_close(w->ring);
    fd = open(w->file, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, zeros, sizeof(zeros), (off_t)w->at[1].offset), sizeof(zeros));
    (void)close(fd);
    w->count = 1;
    assert_int_equal(kvfs_ring_open(&file, false, &w->ring, NULL), 0);
    assert_int_equal(kvfs_ring_recover(w->ring, &tail, ring_check, &r, NULL), 0);
    assert_int_equal(r.next, 1);
    assert_true(ring_append(w, 200, true));
    assert_int_equal(ring_recover(w, w->file), 2);
}

enum damage { DAMAGE_CUT, DAMAGE_ZERO, DAMAGE_FLIP, DAMAGE_REPEAT, DAMAGES };

static void
ring_damage(struct ring_world *w, uint8_t *bytes, size_t at, enum damage damage)
{
    switch (damage) {
    case DAMAGE_CUT:
        memset(bytes + at, 0, RING_BYTES - at);
        break;
    case DAMAGE_ZERO:
        memset(bytes + at, 0, SECTOR);
        break;
    case DAMAGE_FLIP:
        bytes[at + ring_random(w) % SECTOR] ^= (uint8_t)(1u << ring_random(w) % 8);
        break;
    default: /* what another sector holds: a misdirected write */
        memcpy(bytes + at, bytes + KVFS_RING_ALIGN +
                               ring_random(w) % ((RING_BYTES - KVFS_RING_ALIGN) / SECTOR) * SECTOR,
               SECTOR);
        break;
    }
}

/* The first record that has a byte in [at, end); the count if none has. */
static unsigned
ring_first_hit(const struct ring_world *w, size_t at, size_t end)
{
    for (unsigned i = w->tail; i < w->count; i++)
        if (w->at[i].offset + KVFS_RING_HEAD + w->len[i] > at && w->at[i].offset < end)
            return i;
    return w->count;
}

static void
recover__damage_at_each_sector__a_prefix(void **state)
{
    struct ring_world *w = *state;
    uint8_t *sound = malloc(RING_BYTES), *bytes = malloc(RING_BYTES);
    unsigned shorter = 0;
    char copy[128];
    int fd;

    assert_non_null(sound);
    assert_non_null(bytes);
    ring_run(w, 300);
    (void)snprintf(copy, sizeof(copy), "%s/damaged", w->folder);
    fd = open(w->file, O_RDONLY | O_CLOEXEC);
    assert_int_equal(pread(fd, sound, RING_BYTES, 0), (ssize_t)RING_BYTES);
    (void)close(fd);
    fd = open(copy, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    for (size_t at = KVFS_RING_ALIGN; at < RING_BYTES; at += SECTOR) {
        for (int damage = 0; damage < DAMAGES; damage++) {
            size_t end = damage == DAMAGE_CUT ? RING_BYTES : at + SECTOR;
            unsigned hit = ring_first_hit(w, at, end), found;

            memcpy(bytes, sound, RING_BYTES);
            ring_damage(w, bytes, at, (enum damage)damage);
            assert_int_equal(pwrite(fd, bytes, RING_BYTES, 0), (ssize_t)RING_BYTES);
            found = ring_recover(w, copy); /* which checks that it is a prefix */
            assert_true(found >= hit);
            if (memcmp(bytes + at, sound + at, end - at) != 0 && hit < w->count)
                shorter += found < w->count;
        }
    }
    assert_true(shorter > 100);
    (void)close(fd);
    free(sound);
    free(bytes);
}

static void
open__other_files__einval(void **state)
{
    static const uint8_t other[KVFS_RING_ID] = "another's number";
    struct ring_world *w = *state;
    struct kvfs_ring_file file = ring_file(w);
    struct kvfs_ring *ring = NULL;
    uint8_t byte = 0x55;
    int fd;

    file.id = other;
    assert_int_equal(kvfs_ring_open(&file, false, &ring, NULL), -EINVAL);
    file = ring_file(w);
    file.epoch++;
    assert_int_equal(kvfs_ring_open(&file, false, &ring, NULL), -EINVAL);
    file = ring_file(w);
    file.path = "/nonexistent";
    assert_int_equal(kvfs_ring_open(&file, false, &ring, NULL), -ENOENT);
    file = ring_file(w);
    for (off_t at = 0; at < 56; at++) {
        uint8_t was;

        fd = open(w->file, O_RDWR | O_CLOEXEC);
        assert_int_equal(pread(fd, &was, 1, at), 1);
        byte = was ^ 0x10;
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
        assert_int_equal(kvfs_ring_open(&file, false, &ring, NULL), -EINVAL);
        assert_int_equal(pwrite(fd, &was, 1, at), 1);
        (void)close(fd);
    }
    assert_int_equal(truncate(w->file, (off_t)RING_BYTES - 1), 0);
    assert_int_equal(kvfs_ring_open(&file, false, &ring, NULL), -EINVAL);
}

static void
grow__between_appends__all_found(void **state)
{
    struct ring_world *w = *state;
    unsigned grown = 0;

    for (unsigned n = 50; n <= 500; n += 50) {
        uint64_t bytes = kvfs_ring_bytes(w->ring) + KVFS_RING_ALIGN + ((uint64_t)128 << 10);

        ring_run(w, n);
        if (kvfs_ring_may_grow(w->ring)) {
            assert_int_equal(kvfs_ring_grow_prepare(w->ring, bytes, NULL), 0);
            assert_int_equal(kvfs_ring_grow(w->ring, bytes, NULL), 0);
            grown++;
        }
        assert_int_equal(ring_recover(w, w->file), w->count);
    }
    assert_true(grown > 0);
}

static void
ring_read_file(const char *path, uint8_t *bytes, size_t len)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, bytes, len, 0), (ssize_t)len);
    (void)close(fd);
}

/* The folder is renamed while its log is in use, and another takes its place. */
static void
folder__renamed__the_other_is_untouched(void **state)
{
    static uint8_t other[2 * RING_BYTES], now[sizeof(other)];
    struct ring_world *w = *state;
    struct kvfs_ring_file file = ring_file(w);
    char moved[96], path[128];
    int fd;

    (void)snprintf(moved, sizeof(moved), "%s.old", w->folder);
    assert_int_equal(rename(w->folder, moved), 0);
    assert_int_equal(mkdir(w->folder, 0700), 0);
    memset(other, 0xa5, sizeof(other));
    fd = open(w->file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_int_equal(pwrite(fd, other, sizeof(other), 0), (ssize_t)sizeof(other));
    (void)close(fd);

    assert_true(ring_append(w, 100, true));
    assert_int_equal(kvfs_ring_grow_prepare(w->ring, sizeof(other), NULL), 0);
    assert_int_equal(kvfs_ring_grow(w->ring, sizeof(other), NULL), 0);
    assert_int_equal(ring_recover(w, w->file), 1);
    (void)snprintf(path, sizeof(path), "%s/log", moved);
    ring_read_file(path, now, sizeof(now)); /* as long as its head says */
    file.epoch++;
    assert_int_equal(kvfs_ring_make(&file, RING_BYTES, NULL), 0);
    ring_read_file(w->file, now, sizeof(now));
    assert_memory_equal(now, other, sizeof(now));

    assert_int_equal(remove(w->file), 0);
    assert_int_equal(remove(w->folder), 0);
    assert_int_equal(rename(moved, w->folder), 0);
}

/* New room is written in pieces, and none of them twice. */
static void
grow__prepared_in_pieces__each_once(void **state)
{
    const uint64_t bytes = (uint64_t)2 << 20;
    static uint8_t mark = 0xa5, is;
    struct ring_world *w = *state;
    unsigned pieces = 1;
    int fd = open(w->file, O_RDWR | O_CLOEXEC), rc;
    struct stat st;

    assert_int_equal(kvfs_ring_grow_prepare(w->ring, bytes, NULL), 1);
    assert_int_equal(fstat(fd, &st), 0);
    assert_true((uint64_t)st.st_size < bytes);
    assert_int_equal(pwrite(fd, &mark, 1, (off_t)RING_BYTES), 1);
    while ((rc = kvfs_ring_grow_prepare(w->ring, bytes, NULL)) == 1)
        pieces++;
    assert_int_equal(rc, 0);
    assert_true(pieces > 2);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, bytes);
    assert_int_equal(kvfs_ring_grow_prepare(w->ring, bytes, NULL), 0);
    assert_int_equal(pread(fd, &is, 1, (off_t)RING_BYTES), 1);
    assert_int_equal(is, mark);
    assert_int_equal(kvfs_ring_grow(w->ring, bytes, NULL), 0);
    assert_int_equal(kvfs_ring_bytes(w->ring), bytes - KVFS_RING_ALIGN);
    (void)close(fd);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, ring_setup, ring_teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(recover__laps__all_from_the_tail),
        TEST(recover__a_lost_record_is_written_again__old_ones_do_not_follow),
        TEST(recover__damage_at_each_sector__a_prefix),
        TEST(open__other_files__einval),
        TEST(grow__between_appends__all_found),
        TEST(grow__prepared_in_pieces__each_once),
        TEST(folder__renamed__the_other_is_untouched),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
