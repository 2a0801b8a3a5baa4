/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_record.c - a recording is what happened: read here by the format's definition, with nothing
 * of recording.c, and replayed in order it gives the disk; the words of the command line.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../crashsim/filter/fault.h"
#include "model.h"
#include "random.h"
#include "recording.h"

#define SIZE 32768u

static uint8_t disk_bytes[SIZE]; /* the base */

static int
base_pread(void *opaque, void *buf, uint32_t count, uint64_t offset)
{
    (void)opaque;
    memcpy(buf, disk_bytes + offset, count);
    return 0;
}

static int
base_pwrite(void *opaque, const void *buf, uint32_t count, uint64_t offset)
{
    (void)opaque;
    memcpy(disk_bytes + offset, buf, count);
    return 0;
}

static int
base_zero(void *opaque, uint32_t count, uint64_t offset, bool trim)
{
    (void)opaque;
    (void)trim;
    memset(disk_bytes + offset, 0, count);
    return 0;
}

struct file {
    char dir[64], log[96], side[96];
    int fd;
    uint8_t *bytes;
    uint64_t len;
};

static void
file_begin(struct file *f)
{
    strcpy(f->dir, "/tmp/crashsim-record-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    (void)snprintf(f->log, sizeof(f->log), "%s/log", f->dir);
    (void)snprintf(f->side, sizeof(f->side), "%s/log.side", f->dir);
}

static void
file_load(struct file *f, const char *path)
{
    off_t len;

    f->fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(f->fd >= 0);
    len = lseek(f->fd, 0, SEEK_END);
    f->len = (uint64_t)len;
    f->bytes = calloc(1, f->len + 1);
    assert_non_null(f->bytes);
    assert_int_equal(pread(f->fd, f->bytes, f->len, 0), len);
    close(f->fd);
}

static void
file_end(struct file *f)
{
    assert_int_equal(unlink(f->log) + unlink(f->side) + rmdir(f->dir), 0);
}

/* Apply an 8-byte little-endian field list, as a stranger's tool does. */
static uint64_t
field(const uint8_t *p, unsigned i)
{
    uint64_t n;

    memcpy(&n, p + 8 * (size_t)i, 8);
    return le64toh(n);
}

/* Replay all entries over IMAGE; answers how many there were, and counts kinds. */
static uint64_t
file_replay(const struct file *f, uint8_t *image, uint64_t *kinds)
{
    uint64_t entries = field(f->bytes, 2), at = 512;

    assert_true(field(f->bytes, 0) == 0x6a736677736872 && field(f->bytes, 1) == 1);
    assert_int_equal((uint32_t)field(f->bytes, 3), 512);
    for (uint64_t i = 0; i < entries; i++) {
        uint64_t sector = field(f->bytes + at, 0), n = field(f->bytes + at, 1);
        uint64_t flags = field(f->bytes + at, 2), len = field(f->bytes + at, 3);

        assert_true(at + 512 <= f->len && (sector + n) * 512 <= SIZE && flags < 16);
        for (int bit = 0; bit < 4; bit++)
            kinds[bit] += (flags >> bit) & 1;
        if (flags & 8)
            assert_true(len > 0 && len <= 480 - 1);
        at += 512;
        if (flags & 4) {
            memset(image + sector * 512, 0, n * 512);
        } else {
            assert_true(at + n * 512 <= f->len);
            memcpy(image + sector * 512, f->bytes + at, n * 512);
            at += n * 512;
        }
    }
    assert_int_equal(at, f->len);
    return entries;
}

static void
change(struct crashsim_record *r, struct crashsim_disk *d, uint64_t *random, bool complete)
{
    static uint8_t data[8192];
    uint64_t n = crashsim_random(random);
    struct crashsim_write w = {.kind = (enum crashsim_kind)(n % 3), .fua = n % 7 == 0, .conn = 1};

    w.offset = (n >> 8) % SIZE;
    w.count = 1 + (uint32_t)((n >> 24) % 3000);
    if (n % 2) {
        w.offset = w.offset / 512 * 512;
        w.count = (w.count + 511) / 512 * 512;
    }
    if (w.count > SIZE - w.offset)
        w.count = SIZE - (uint32_t)w.offset;
    memset(data, (int)(n >> 40), w.count);
    w.data = w.kind == CRASHSIM_WRITE ? data : NULL;
    assert_int_equal(crashsim_disk_submit(d, &w, &w.id), 0);
    crashsim_record_submit(r, &w);
    if (!complete)
        return;
    assert_int_equal(crashsim_disk_complete(d, w.id, &w.seq), 0);
    crashsim_record_write(r, d, &w);
}

static void
record__random_changes__replayed_is_the_disk(void **state)
{
    struct crashsim_base base = {NULL, base_pread, base_pwrite, base_zero, NULL};
    struct crashsim_choice all = {.survive = CRASHSIM_PREFIX, .indexed = true, .index = 1u << 20};
    uint64_t seed = model_seed();

    (void)state;
    for (unsigned round = 0; round < 20; round++) {
        uint64_t random = seed + round, bound, kinds[4] = {0};
        uint8_t image[SIZE] = {0};
        struct crashsim_disk *d;
        struct crashsim_record *r;
        struct crashsim_cut cut;
        struct file f, side;

        memset(disk_bytes, 0, SIZE);
        file_begin(&f);
        side = f;
        assert_int_equal(crashsim_disk_new(&base, SIZE, 1 << 20, seed, &d), 0);
        assert_int_equal(crashsim_record_new(f.log, SIZE, seed, &r), 0);
        assert_int_equal(crashsim_record_new(f.log, SIZE, seed, &(struct crashsim_record *){NULL}),
                         -EEXIST);
        for (unsigned i = 0; i < 100; i++) {
            change(r, d, &random, true);
            if (i % 10 == 9) {
                assert_int_equal(crashsim_disk_flush_begin(d, &bound), 0);
                assert_int_equal(crashsim_disk_flush(d, bound), 0);
                crashsim_record_flush(r, 1, bound, false);
            }
        }
        crashsim_record_mark(r, "a mark");
        change(r, d, &random, false); /* in flight at the cut */
        crashsim_record_cut(r, d, &all);
        assert_int_equal(crashsim_disk_cut(d, &all, &cut), 0);
        assert_int_equal(crashsim_record_free(r), 0);
        file_load(&f, f.log);
        assert_int_equal(file_replay(&f, image, kinds), 100 + 10 + 2 + 1);
        assert_true(kinds[0] == 10 && kinds[1] > 0 && kinds[2] > 0 && kinds[3] == 2);
        assert_memory_equal(image, disk_bytes, SIZE);
        file_load(&side, f.side);
        assert_non_null(strstr((char *)side.bytes, "\nI id=101 "));
        assert_non_null(strstr((char *)side.bytes, " name=a mark\n"));
        assert_non_null(strstr((char *)side.bytes, "\nX open="));
        free(f.bytes);
        free(side.bytes);
        crashsim_disk_free(d);
        file_end(&f);
    }
}

/* --- the sidecar: with its lines alone another disk comes to the same state --- */

static void
record_destaged(void *opaque, const struct crashsim_write *w)
{
    crashsim_record_destage(*(struct crashsim_record **)opaque, w->id);
}

static uint64_t
side_field(const char *line, const char *key)
{
    const char *at = strstr(line, key);

    assert_non_null(at);
    return strtoull(at + strlen(key), NULL, 10);
}

static void
side_line(struct crashsim_disk *d, const char *line, const uint8_t *log, struct crashsim_write *ws)
{
    uint64_t id = strchr("SCID", line[0]) == NULL || line[0] == '\0' ? 0 : side_field(line, " id=");
    struct crashsim_write *w = &ws[id];
    uint64_t out;

    switch (line[0]) {
    case 'S':
        *w = (struct crashsim_write){.offset = side_field(line, " offset="),
                                     .count = (uint32_t)side_field(line, " count="),
                                     .fua = side_field(line, " fua=") == 1,
                                     .kind = strstr(line, " kind=w") != NULL   ? CRASHSIM_WRITE
                                             : strstr(line, " kind=z") != NULL ? CRASHSIM_ZERO
                                                                               : CRASHSIM_TRIM};
        break;
    case 'C': /* one request after the other: submitted now, when the data are known */
    case 'I':
        if (w->kind == CRASHSIM_WRITE)
            w->data = log + side_field(line, " at=") + 512 + w->offset % 512;
        assert_int_equal(crashsim_disk_submit(d, w, &out), 0);
        assert_int_equal(out, id);
        if (line[0] == 'C')
            assert_int_equal(crashsim_disk_complete(d, id, &out), 0);
        break;
    case 'D':
        assert_int_equal(crashsim_disk_destage(d, id), 0);
        break;
    case 'F':
        assert_int_equal(crashsim_disk_flush(d, side_field(line, " bound=")), 0);
        break;
    default:
        break;
    }
}

static void
sidecar__of_a_full_cache__replayed_and_cut_is_the_disk(void **state)
{
    static uint8_t first[SIZE];
    static struct crashsim_write ws[256];
    struct crashsim_record *r;
    struct crashsim_base base = {&r, base_pread, base_pwrite, base_zero, record_destaged};
    uint64_t seed = model_seed(), destaged = 0;

    (void)state;
    for (unsigned round = 0; round < 40; round++) {
        struct crashsim_choice choice = {.survive = CRASHSIM_RANDOM, .tear = CRASHSIM_TEAR_512,
                                         .seed = seed + round};
        uint64_t random = seed + round, bound;
        struct crashsim_disk_stats stats;
        struct crashsim_disk *d;
        struct crashsim_cut cut;
        struct file f, side;

        memset(disk_bytes, 0, SIZE);
        file_begin(&f);
        side = f;
        base.destaged = record_destaged;
        assert_int_equal(crashsim_disk_new(&base, SIZE, 12000, seed, &d), 0);
        assert_int_equal(crashsim_record_new(f.log, SIZE, seed, &r), 0);
        for (unsigned i = 0; i < 100; i++) {
            change(r, d, &random, true);
            if (i % 40 == 39) {
                assert_int_equal(crashsim_disk_flush_begin(d, &bound), 0);
                assert_int_equal(crashsim_disk_flush(d, bound), 0);
                crashsim_record_flush(r, 1, bound, false);
            }
        }
        change(r, d, &random, false);
        crashsim_disk_stats(d, &stats);
        destaged += stats.destaged;
        crashsim_record_cut(r, d, &choice);
        assert_int_equal(crashsim_disk_cut(d, &choice, &cut), 0);
        crashsim_disk_free(d);
        assert_int_equal(crashsim_record_free(r), 0);
        memcpy(first, disk_bytes, SIZE);

        memset(disk_bytes, 0, SIZE);
        base.destaged = NULL;
        assert_int_equal(crashsim_disk_new(&base, SIZE, 1 << 30, 0, &d), 0);
        file_load(&f, f.log);
        file_load(&side, f.side);
        for (char *rest = (char *)side.bytes, *line; (line = strsep(&rest, "\n")) != NULL;)
            side_line(d, line, f.bytes, ws);
        assert_int_equal(crashsim_disk_cut(d, &choice, &cut), 0);
        assert_memory_equal(first, disk_bytes, SIZE);
        crashsim_disk_free(d);
        free(f.bytes);
        free(side.bytes);
        file_end(&f);
    }
    assert_true(destaged > 100);
}

/* Readers take an entry's bytes with one read(), which gives less than 2 GiB. */
static void
record__zeros_of_gigabytes__no_entry_beyond_one(void **state)
{
    struct crashsim_base base = {NULL, base_pread, base_pwrite, base_zero, NULL};
    struct crashsim_write zero = {.kind = CRASHSIM_ZERO, .count = UINT32_MAX, .offset = 1 << 20};
    uint64_t at = 512, sector = zero.offset / 512, super[3], head[4];
    struct crashsim_record *r;
    struct crashsim_disk *d;
    struct file f;
    int fd;

    (void)state;
    file_begin(&f);
    assert_int_equal(crashsim_disk_new(&base, UINT64_C(1) << 40, 1 << 20, 1, &d), 0);
    zero.count -= 511; /* whole sectors: what lies beside is not asked for */
    assert_int_equal(crashsim_record_new(f.log, UINT64_C(1) << 40, 1, &r), 0);
    assert_int_equal(crashsim_disk_submit(d, &zero, &zero.id), 0);
    crashsim_record_submit(r, &zero);
    zero.seq = 1;
    crashsim_record_write(r, d, &zero);
    assert_int_equal(crashsim_record_free(r), 0);
    fd = open(f.log, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0 && pread(fd, super, sizeof(super), 0) == sizeof(super));
    for (uint64_t i = 0; i < le64toh(super[2]); i++) {
        assert_int_equal(pread(fd, head, sizeof(head), (off_t)at), sizeof(head));
        assert_true(le64toh(head[0]) == sector && le64toh(head[1]) <= 1 << 21 && head[2] == 0);
        sector += le64toh(head[1]);
        at += 512 + le64toh(head[1]) * 512;
    }
    assert_int_equal(sector * 512, zero.offset + zero.count);
    assert_int_equal(lseek(fd, 0, SEEK_END), at);
    close(fd);
    crashsim_disk_free(d);
    file_end(&f);
}

static void
words__of_choices_and_faults__as_documented(void **state)
{
    static const char *const bad_survive[] = {"", "all", "prefix:", "prefix:x", "random:1",
                                              "drop-all:0", "prefix:99999999999999999999"};
    static const char *const bad_rate[] = {"", "-1", "1.5", "101%", "x", "1%%", "nan", " 1"};
    struct crashsim_choice c = {0};
    struct faults f = {0};
    enum crashsim_tear tear;
    double rate;

    (void)state;
    assert_true(crashsim_choice_parse_survive("leave-one-out:7", &c) && c.indexed &&
                c.index == 7 && c.survive == CRASHSIM_LEAVE_ONE_OUT);
    assert_true(crashsim_choice_parse_survive("subset:0xff", &c) && c.index == 255);
    assert_true(crashsim_choice_parse_survive("drop-all", &c) && !c.indexed);
    for (size_t i = 0; i < sizeof(bad_survive) / sizeof(char *); i++)
        assert_false(crashsim_choice_parse_survive(bad_survive[i], &c));
    assert_true(crashsim_choice_parse_tear("4096", &tear) && tear == CRASHSIM_TEAR_4096);
    assert_false(crashsim_choice_parse_tear("1024", &tear));
    assert_true(fault_parse_rate("12.5%", &rate) && rate == 0.125);
    for (size_t i = 0; i < sizeof(bad_rate) / sizeof(char *); i++)
        assert_false(fault_parse_rate(bad_rate[i], &rate));
    assert_true(fault_parse_latency("sd", &f) && f.delay_us[FAULT_FLUSH] > 1000);
    assert_true(fault_parse_latency("1,2,3", &f) && f.delay_us[FAULT_WRITE] == 2);
    assert_false(fault_parse_latency("1,2", &f) || fault_parse_latency("hdd", &f));
    assert_true(fault_parse_rot("4096,512", &f) && f.rot[0].bits == 1);
    assert_false(fault_parse_rot("4096", &f) || fault_parse_rot("1,0,1", &f) ||
                 fault_parse_rot("1,2,3,4", &f));
    assert_true(crashsim_mark_is_good("a b") && !crashsim_mark_is_good("") &&
                !crashsim_mark_is_good("a\nb"));
}

static void
choice__all_subsets_and_indexes__each_state_once(void **state)
{
    struct crashsim_choice c = {.tear = CRASHSIM_TEAR_512, .indexed = true};

    (void)state;
    for (c.index = 0; c.index < 32; c.index++) {
        uint64_t mask = 0;

        c.survive = CRASHSIM_SUBSET;
        for (size_t i = 0; i < 5; i++)
            mask |= (uint64_t)(crashsim_choice_fate(&c, i, 5) == CRASHSIM_KEPT) << i;
        assert_int_equal(mask, c.index);
    }
    c.survive = CRASHSIM_PREFIX;
    c.index = 3;
    assert_true(crashsim_choice_fate(&c, 2, 5) == CRASHSIM_KEPT &&
                crashsim_choice_fate(&c, 3, 5) == CRASHSIM_TORN &&
                crashsim_choice_fate(&c, 4, 5) == CRASHSIM_DROPPED);
    for (c.seed = 0; c.seed < 64; c.seed++) {
        unsigned out = 0;

        c.survive = CRASHSIM_LEAVE_ONE_OUT;
        c.indexed = false;
        for (size_t i = 0; i < 9; i++)
            out += crashsim_choice_fate(&c, i, 9) != CRASHSIM_KEPT;
        assert_int_equal(out, 1);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(record__random_changes__replayed_is_the_disk),
        cmocka_unit_test(sidecar__of_a_full_cache__replayed_and_cut_is_the_disk),
        cmocka_unit_test(record__zeros_of_gigabytes__no_entry_beyond_one),
        cmocka_unit_test(words__of_choices_and_faults__as_documented),
        cmocka_unit_test(choice__all_subsets_and_indexes__each_state_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
