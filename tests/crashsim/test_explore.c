/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_explore.c - what `crashsim replay` and `explore` stand on: a recording read again gives the
 * bytes that the recorded cut left; picks are what choices say, and their texts name them; an image
 * builds what it says; a plan names each state; shrinking finds the smallest.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../crashsim/cmd/image.h"
#include "../../crashsim/cmd/plan.h"
#include "../../crashsim/cmd/shrink.h"
#include "history.h"
#include "pick.h"
#include "random.h"
#include "recording.h"

#define SIZE 65536u

static uint64_t seed = 1, scale = 1;
static uint8_t real_bytes[SIZE];          /* below the disk that is recorded */
static struct crashsim_record *recording; /* of it */

static int
real_pread(void *opaque, void *buf, uint32_t count, uint64_t offset)
{
    memcpy(buf, (uint8_t *)opaque + offset, count);
    return 0;
}

static int
real_pwrite(void *opaque, const void *buf, uint32_t count, uint64_t offset)
{
    memcpy((uint8_t *)opaque + offset, buf, count);
    return 0;
}

static int
real_zero(void *opaque, uint32_t count, uint64_t offset, bool trim)
{
    (void)trim;
    memset((uint8_t *)opaque + offset, 0, count);
    return 0;
}

static void
real_destaged(void *opaque, const struct crashsim_write *w)
{
    (void)opaque;
    crashsim_record_destage(recording, w->id);
}

static struct crashsim_base
base_of(uint8_t *bytes)
{
    return (struct crashsim_base){bytes, real_pread, real_pwrite, real_zero, NULL};
}

struct folder {
    char dir[64], log[96], side[96], image[96], state[96];
};

static void
folder_begin(struct folder *f)
{
    strcpy(f->dir, "/tmp/crashsim-explore-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    (void)snprintf(f->log, sizeof(f->log), "%s/log", f->dir);
    (void)snprintf(f->side, sizeof(f->side), "%s/log.side", f->dir);
    (void)snprintf(f->image, sizeof(f->image), "%s/image", f->dir);
    (void)snprintf(f->state, sizeof(f->state), "%s/state", f->dir);
}

static void
folder_clear(struct folder *f)
{
    (void)unlink(f->log);
    (void)unlink(f->side);
    (void)unlink(f->image);
    (void)unlink(f->state);
}

static void
folder_end(struct folder *f)
{
    folder_clear(f);
    assert_int_equal(rmdir(f->dir), 0);
}

static struct crashsim_write
random_write(uint64_t *random, uint8_t *data)
{
    uint64_t n = crashsim_random(random);
    struct crashsim_write w = {.kind = (enum crashsim_kind)(n % 4 % 3), .fua = n % 9 == 0};

    w.offset = (n >> 8) % (SIZE - 6000);
    w.count = 1 + (uint32_t)((n >> 24) % 6000);
    if ((n >> 40) % 2) {
        w.offset = w.offset / 512 * 512;
        w.count = (w.count + 511) / 512 * 512;
    }
    if (w.count > SIZE - w.offset)
        w.count = (uint32_t)(SIZE - w.offset);
    memset(data, (int)(n >> 48), w.count);
    memcpy(data, &n, w.count < sizeof(n) ? w.count : sizeof(n));
    w.data = w.kind == CRASHSIM_WRITE ? data : NULL;
    return w;
}

/* Random changes, of which up to four are in flight at a time, through a cache that is too small,
 * recorded to F; then a cut by CHOICE.  LAND: with none in flight. */
static void
record_random(struct folder *f, uint64_t *random, unsigned steps, bool land,
              const struct crashsim_choice *choice)
{
    struct crashsim_base base = base_of(real_bytes);
    struct crashsim_write flight[4];
    uint8_t data[4][8192];
    unsigned flying = 0;
    struct crashsim_disk *d;
    struct crashsim_cut cut;
    uint64_t bound;
    char mark[32];

    base.destaged = real_destaged;
    memset(real_bytes, 0, SIZE);
    assert_int_equal(crashsim_disk_new(&base, SIZE, 60000, *random, &d), 0);
    assert_int_equal(crashsim_record_new(f->log, SIZE, 1, &recording), 0);
    for (unsigned i = 0; i < steps; i++) {
        uint64_t n = crashsim_random(random) % 16;

        if (n < 8 && flying < 4) {
            flight[flying] = random_write(random, data[flying]);
            assert_int_equal(crashsim_disk_submit(d, &flight[flying], &flight[flying].id), 0);
            crashsim_record_submit(recording, &flight[flying++]);
        } else if (n < 13 && flying > 0) {
            struct crashsim_write *w = &flight[flying - 1];

            assert_int_equal(crashsim_disk_complete(d, w->id, &w->seq), 0);
            crashsim_record_write(recording, d, w);
            flying--;
        } else if (n == 13 && flying > 0) {
            crashsim_disk_abandon(d, flight[--flying].id);
            crashsim_record_fail(recording, flight[flying].id, EIO);
        } else if (n == 14) {
            assert_int_equal(crashsim_disk_flush_begin(d, &bound), 0);
            assert_int_equal(crashsim_disk_flush(d, bound), 0);
            crashsim_record_flush(recording, 0, bound, false);
        } else if (n == 15) {
            (void)snprintf(mark, sizeof(mark), "step %u", i);
            crashsim_record_mark(recording, mark);
        }
    }
    for (unsigned i = 0; land && i < flying; i++) {
        assert_int_equal(crashsim_disk_complete(d, flight[i].id, &flight[i].seq), 0);
        crashsim_record_write(recording, d, &flight[i]);
    }
    crashsim_record_cut(recording, d, choice);
    assert_int_equal(crashsim_disk_cut(d, choice, &cut), 0);
    assert_int_equal(crashsim_record_free(recording), 0);
    crashsim_disk_free(d);
}

static struct crashsim_choice
random_choice(uint64_t *random)
{
    struct crashsim_choice c = {.seed = crashsim_random(random)};

    c.survive = (enum crashsim_survive)(crashsim_random(random) % 6);
    c.tear = (enum crashsim_tear)(crashsim_random(random) % 5);
    return c;
}

static void
shape(const void *opaque, size_t i, uint64_t *offset, uint64_t *count)
{
    const struct crashsim_write *w = crashsim_disk_open(opaque, i);

    *offset = w->offset;
    *count = w->count;
}

static struct crashsim_history *
history_of(const struct folder *f)
{
    char error[CRASHSIM_HISTORY_ERROR] = "";
    struct crashsim_history *h;

    if (crashsim_history_open(f->log, &h, error) < 0)
        fail_msg("seed %llu: %s", (unsigned long long)seed, error);
    return h;
}

static void
state_equals(const struct folder *f, const uint8_t *bytes)
{
    static uint8_t have[SIZE];
    int fd = open(f->state, O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(lseek(fd, 0, SEEK_END), SIZE);
    assert_int_equal(pread(fd, have, SIZE, 0), SIZE);
    close(fd);
    assert_memory_equal(have, bytes, SIZE);
}

/* The state of PICK into f->state; its hash. */
static uint64_t
state_build(const struct folder *f, struct image *im, struct crashsim_disk *d,
            const struct crashsim_pick *pick)
{
    struct crashsim_base sink = image_overlay(im);

    image_overlay_clear(im);
    assert_int_equal(crashsim_disk_peek(d, pick, &sink), 0);
    assert_int_equal(image_build(im, f->state), 0);
    return image_hash(im);
}

/* The text of PICK gives PICK's state. */
static void
text_names_state(const struct folder *f, struct image *im, struct crashsim_disk *d,
                 const struct crashsim_pick *pick, uint64_t hash)
{
    struct crashsim_pick again;
    char *text = crashsim_pick_text(pick);

    assert_non_null(text);
    if (crashsim_pick_parse(&again, text, crashsim_disk_open_count(d), shape, d) < 0)
        fail_msg("seed %llu: '%s' is not taken", (unsigned long long)seed, text);
    if (state_build(f, im, d, &again) != hash)
        fail_msg("seed %llu: '%s' is another state", (unsigned long long)seed, text);
    crashsim_pick_free(&again);
    free(text);
}

static void
history__a_cut_played_again__gives_the_same_bytes(void **state)
{
    uint64_t random = crashsim_hash(seed);
    struct folder f;

    (void)state;
    folder_begin(&f);
    for (unsigned round = 0; round < 60 * scale; round++) {
        struct crashsim_choice choice = random_choice(&random);
        struct crashsim_history *h;
        struct crashsim_pick pick;
        struct crashsim_base base;
        struct crashsim_disk *d;
        struct image *im;
        uint64_t hash;

        record_random(&f, &random, (unsigned)(crashsim_random(&random) % 120), false, &choice);
        h = history_of(&f);
        assert_true(h->has_cut && h->sidecar && h->size_bytes == SIZE);
        assert_int_equal(image_open(f.image, NULL, SIZE, &im), 0);
        base = image_base(im);
        assert_int_equal(crashsim_disk_new(&base, SIZE, UINT64_MAX, 0, &d), 0);
        for (size_t i = 0; i < h->events_count; i++)
            assert_int_equal(crashsim_history_apply(h, i, d), 0);
        assert_int_equal(crashsim_pick_choose(&pick, &h->cut, crashsim_disk_open_count(d)), 0);
        hash = state_build(&f, im, d, &pick);
        state_equals(&f, real_bytes);
        text_names_state(&f, im, d, &pick, hash);
        if (pick.choice.tear < CRASHSIM_TEAR_BYTE) {
            assert_int_equal(crashsim_pick_spell(&pick, shape, d), 0);
            assert_true(state_build(&f, im, d, &pick) == hash);
            text_names_state(&f, im, d, &pick, hash);
        }
        crashsim_pick_free(&pick);
        crashsim_disk_free(d);
        image_close(im);
        crashsim_history_close(h);
        folder_clear(&f);
    }
    folder_end(&f);
}

static void
history__no_sidecar__all_kept_is_what_reads_saw(void **state)
{
    struct crashsim_choice all = {.survive = CRASHSIM_PREFIX, .indexed = true, .index = 1000};
    uint64_t random = crashsim_hash(seed + 1);
    uint8_t bytes[SIZE] = {0};
    struct crashsim_base base = base_of(bytes);
    struct crashsim_history *h;
    struct crashsim_pick pick;
    struct crashsim_disk *d;
    struct folder f;

    (void)state;
    folder_begin(&f);
    record_random(&f, &random, 300, true, &all); /* in flight, two may share a sector */
    assert_int_equal(unlink(f.side), 0);
    h = history_of(&f);
    assert_true(!h->sidecar && h->size_bytes <= SIZE);
    assert_int_equal(crashsim_disk_new(&base, SIZE, UINT64_MAX, 0, &d), 0);
    for (size_t i = 0; i < h->events_count; i++)
        assert_int_equal(crashsim_history_apply(h, i, d), 0);
    all.index = crashsim_disk_open_count(d);
    assert_int_equal(crashsim_pick_choose(&pick, &all, crashsim_disk_open_count(d)), 0);
    assert_int_equal(crashsim_disk_peek(d, &pick, &base), 0);
    assert_memory_equal(bytes, real_bytes, SIZE);
    crashsim_pick_free(&pick);
    crashsim_disk_free(d);
    crashsim_history_close(h);
    folder_end(&f);
}

static void
history__cut_short_anywhere__is_refused_or_a_beginning(void **state)
{
    struct crashsim_choice choice = {.survive = CRASHSIM_DROP_ALL};
    uint64_t random = crashsim_hash(seed + 2);
    char error[CRASHSIM_HISTORY_ERROR];
    struct crashsim_history *h;
    struct folder f;
    struct stat log, side;
    unsigned refused = 0;

    (void)state;
    folder_begin(&f);
    record_random(&f, &random, 100, false, &choice);
    assert_int_equal(stat(f.log, &log) + stat(f.side, &side), 0);
    for (off_t at = side.st_size - 1; at > 0; at -= 97) {
        assert_int_equal(truncate(f.side, at), 0);
        if (crashsim_history_open(f.log, &h, error) == 0)
            crashsim_history_close(h);
        else
            assert_true(strlen(error) > 0);
    }
    assert_int_equal(unlink(f.side), 0);
    for (off_t at = log.st_size - 1; at >= 0; at -= 511) {
        assert_int_equal(truncate(f.log, at), 0);
        assert_int_equal(crashsim_history_open(f.log, &h, error), -EBADMSG);
        assert_true(strlen(error) > 0);
        refused++;
    }
    assert_true(refused > 10);
    folder_end(&f);
}

static void
image__scribbled_over__builds_the_state_again(void **state)
{
    uint64_t random = crashsim_hash(seed + 3);
    static uint8_t model[SIZE], junk[8192];
    struct crashsim_base base;
    struct folder f;
    struct image *im;

    (void)state;
    folder_begin(&f);
    memset(model, 0, SIZE);
    assert_int_equal(image_open(f.image, NULL, SIZE, &im), 0);
    base = image_base(im);
    for (unsigned round = 0; round < 100; round++) {
        struct crashsim_write w = random_write(&random, junk);
        uint64_t before = image_hash(im), n = crashsim_random(&random);
        int fd;

        if (w.data != NULL) {
            memcpy(model + w.offset, w.data, w.count);
            assert_int_equal(base.pwrite(im, w.data, w.count, w.offset), 0);
        } else {
            memset(model + w.offset, 0, w.count);
            assert_int_equal(base.zero(im, w.count, w.offset, true), 0);
        }
        if (w.data != NULL && memchr(w.data, 0, w.count) == NULL)
            assert_true(image_hash(im) != before);
        assert_int_equal(image_build(im, f.state), 0);
        state_equals(&f, model);
        memset(junk, 0x77, sizeof(junk));
        fd = open(f.state, O_WRONLY | O_CLOEXEC);
        assert_true(fd >= 0 && pwrite(fd, junk, sizeof(junk), (off_t)(n % SIZE)) > 0);
        assert_true(n % 5 != 0 || ftruncate(fd, (off_t)(n % SIZE)) == 0);
        close(fd);
        assert_true(n % 7 != 0 || unlink(f.state) == 0);
    }
    assert_int_equal(image_reset(im), 0);
    assert_true(image_hash(im) == 0);
    image_close(im);
    folder_end(&f);
}

static void
plan__few_open__names_every_subset_once(void **state)
{
    struct plan plan = {.seed = seed, .tear = CRASHSIM_TEAR_NONE};
    struct plan_cut cut = {0};
    bool masks[1 << 5] = {0};
    unsigned count = 0;

    (void)state;
    for (unsigned pass = 0; pass < 40; pass++) {
        struct crashsim_choice choice;
        struct plan_visit visit;
        enum plan_kind kind;

        plan_visit(&visit, &plan, &cut, 7, 5, 5);
        while (plan_next(&visit, &choice, &kind)) {
            if (kind != PLAN_SUBSET)
                continue;
            assert_true(choice.index < 32 && !masks[choice.index]);
            masks[choice.index] = true;
            count++;
        }
    }
    assert_int_equal(count, 32);
    assert_true(plan_is_exhausted(&plan, &cut, 5));
}

/* Fails if all of `need` are kept and none of `spare` is. */
struct rule {
    uint64_t need, spare;
    unsigned piece; /* of change 9, which must be kept; UINT_MAX: none */
};

static int
rule_fails(void *opaque, const struct crashsim_pick *p)
{
    const struct rule *rule = opaque;
    uint64_t kept = 0;

    for (size_t i = 0; i < p->count; i++)
        kept |= (uint64_t)(p->fates[i].fate == CRASHSIM_KEPT) << i;
    if (rule->piece != UINT32_MAX &&
        (p->fates[9].fate != CRASHSIM_TORN || p->fates[9].pieces == NULL ||
         p->fates[9].pieces[rule->piece] == 0))
        return 0;
    return (kept & rule->need) == rule->need && (kept & rule->spare) == 0;
}

static void
rule_shape(const void *opaque, size_t i, uint64_t *offset, uint64_t *count)
{
    (void)opaque;
    *offset = i * 8192;
    *count = 8192;
}

static void
shrink_gives(struct rule rule, const char *from, const char *wanted)
{
    struct shrink s = {.test = rule_fails, .opaque = &rule, .shape = rule_shape,
                       .tests_max = 2000};
    struct crashsim_pick pick;
    char *text;

    assert_int_equal(crashsim_pick_parse(&pick, from, 40, rule_shape, NULL), 0);
    assert_int_equal(rule_fails(&rule, &pick), 1);
    assert_int_equal(shrink_pick(&s, &pick), 0);
    assert_int_equal(rule_fails(&rule, &pick), 1);
    text = crashsim_pick_text(&pick);
    assert_string_equal(text, wanted);
    free(text);
    crashsim_pick_free(&pick);
}

static void
shrink__a_failing_pick__is_the_smallest(void **state)
{
    uint64_t all = (UINT64_C(1) << 40) - 1;

    (void)state;
    shrink_gives((struct rule){1u << 3 | 1u << 17, UINT64_C(15) << 30, UINT32_MAX}, "drop:5,30-33", "keep:3,17");
    shrink_gives((struct rule){0, 1u << 5, UINT32_MAX}, "keep:1-4,6-20", "keep:");
    shrink_gives((struct rule){all & ~(UINT64_C(0x21) << 30), 1u << 30, UINT32_MAX},
                 "drop:30,35", "drop:30");
    shrink_gives((struct rule){0x40, UINT64_C(1) << 30, 3}, "keep:0-8,9[1-5],11-20/tear=512",
                 "keep:6,9[3]/tear=512");
}

static void
pick__bad_text__is_refused(void **state)
{
    static const char *const bad[] = {
        "", "keep", "keep:x", "keep:1-", "keep:3,,4", "keep:4[", "keep:4[1", "keep:4[]", "keep:5~x",
        "all", "prefix:x", "prefix:1/seed", "random/tear=9", "keep:1/", "drop:1/seed=-1"};
    static const char *const beyond[] = {"keep:40", "drop:3-40", "keep:5-3", "prefix:41",
                                         "only-one:40", "keep:4[16]", "keep:1-2~", "keep:4[2-1]"};
    struct crashsim_pick pick;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(crashsim_pick_parse(&pick, bad[i], 40, rule_shape, NULL), -EINVAL);
    for (size_t i = 0; i < sizeof(beyond) / sizeof(beyond[0]); i++)
        assert_int_equal(crashsim_pick_parse(&pick, beyond[i], 40, rule_shape, NULL), -ERANGE);
}

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(history__a_cut_played_again__gives_the_same_bytes),
        cmocka_unit_test(history__no_sidecar__all_kept_is_what_reads_saw),
        cmocka_unit_test(history__cut_short_anywhere__is_refused_or_a_beginning),
        cmocka_unit_test(image__scribbled_over__builds_the_state_again),
        cmocka_unit_test(plan__few_open__names_every_subset_once),
        cmocka_unit_test(shrink__a_failing_pick__is_the_smallest),
        cmocka_unit_test(pick__bad_text__is_refused),
    };
    const char *text = argc > 1 ? argv[1] : getenv("KVFS_SEED");

    if (text != NULL)
        seed = strtoull(text, NULL, 0);
    if (getenv("KVFS_SCALE") != NULL)
        scale = strtoull(getenv("KVFS_SCALE"), NULL, 10);
    printf("seed %llu\n", (unsigned long long)seed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
