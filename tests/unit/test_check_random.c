/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Random damage.  Whatever is done to a volume, check and repair end, a second
 * repair finds nothing more to repair, the volume can be used, and files
 * whose own records were left alone read as they were written.
 *
 * Raw flips in the engine's files: what check does not find has hurt nobody.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../store_files.h"
#include "check_vol.h"

#define ROUNDS 60

static uint8_t value[KVFS_RECORD_MAX], other[KVFS_RECORD_MAX];

/* The files whose bytes or facts a record holds can no longer be relied on. */
static void
random_mark(struct vol *t, enum kvfs_keyspace ks, const struct kvfs_key *k)
{
    struct kvfs_key_parts parts;
    uint64_t fork = 0, index, ino = 0;

    if (ks == KVFS_DATA && k->len == KVFS_DATA_KEY_LEN)
        kvfs_key_block_parse(k->bytes, &fork, &index);
    else if (kvfs_key_parse(k->bytes, k->len, &parts) == 0 &&
             (parts.kind == KVFS_KEY_INODE || parts.kind == KVFS_KEY_CONTENTS))
        ino = parts.id;
    for (int i = 0; i < VOL_FILES; i++) {
        if (t->files[i].ino == ino || t->files[i].fork == fork)
            t->files[i].damaged = true;
    }
}

static void
random_damage(struct vol *t, uint64_t *rng)
{
    enum kvfs_keyspace ks = vol_random(rng) % 4 == 0 ? KVFS_DATA : KVFS_META;
    size_t count, len, other_len;
    struct kvfs_key *keys = vol_keys(t, ks, &count);
    const struct kvfs_key *k, *k2;

    if (count == 0) {
        free(keys);
        return;
    }
    k = &keys[vol_random(rng) % count];
    k2 = &keys[vol_random(rng) % count];
    len = vol_get(t, ks, k, value);
    other_len = vol_get(t, ks, k2, other);
    random_mark(t, ks, k);
    switch (len == 0 ? 2 : vol_random(rng) % 6) { /* an empty value has no bit to flip */
    case 0:
    case 1:
        vol_flip(t, ks, k, (size_t)vol_random(rng), (unsigned)vol_random(rng));
        break;
    case 2:
        vol_del(t, ks, k);
        break;
    case 3: /* swap */
        random_mark(t, ks, k2);
        vol_put(t, ks, k, other, other_len);
        vol_put(t, ks, k2, value, len);
        break;
    case 4: /* shorter or longer */
        value[len] = 0;
        vol_put(t, ks, k, value, vol_random(rng) % 2 == 0 ? len + 1 : vol_random(rng) % len);
        break;
    default: { /* the same under a key nearby */
        struct kvfs_key odd = *k;

        odd.bytes[vol_random(rng) % odd.len] ^= (uint8_t)(1u << vol_random(rng) % 8);
        if (odd.bytes[0] == 0 && ks == KVFS_META)
            odd.bytes[0] = 1; /* 0 is for wrappers */
        random_mark(t, ks, &odd);
        vol_put(t, ks, &odd, value, len);
        break;
    }
    }
    free(keys);
}

static void
random_use(struct vol *t)
{
    struct kvfs_create create = {.mode = S_IFREG | 0600, .size_bytes = 10};
    struct kvfs_error err = {0};
    struct kvfs_volume *v;
    struct kvfs_attr attr;
    struct kvfs_file *file = NULL;
    char got[5];
    int rc;

    if (kvfs_volume_open(t->path, NULL, &v, &err) < 0)
        fail_msg("after the repair: %s", err.msg);
    if (kvfs_create(v, KVFS_ROOT_INO, "new", &create, &attr, &err) < 0 ||
        kvfs_file_open(v, attr.ino, KVFS_OPEN_WRITE, &file, &err) < 0)
        fail_msg("after the repair: %s", err.msg);
    assert_int_equal(kvfs_file_pwrite(file, "hello", 5, 0, 0, &err), 0);
    assert_int_equal(kvfs_file_flush(file, &err), 0);
    assert_int_equal(kvfs_file_pread(file, got, 5, 0, &err), 0);
    assert_memory_equal(got, "hello", 5);
    kvfs_file_close(file);
    assert_int_equal(kvfs_unlink(v, KVFS_ROOT_INO, "new", &err), 0);
    while ((rc = kvfs_volume_work(v, 1000, &err)) == 1)
        ;
    if (rc < 0)
        fail_msg("background work after the repair: %s", err.msg);
    assert_int_equal(kvfs_volume_close(v, &err), 0);
}

static void
random_round(const char *engine, uint64_t seed)
{
    struct vol_findings f, again;
    uint64_t rng = seed;
    struct vol t;

    vol_make(&t, engine, seed);
    vol_raw_open(&t);
    for (uint64_t n = 1 + vol_random(&rng) % 4; n > 0; n--)
        random_damage(&t, &rng);
    vol_raw_close(&t);
    vol_check(&t, false, &f);
    if (f.rc != 0)
        fail_msg("check: %s", f.err.msg);
    vol_findings_free(&f);
    vol_check(&t, true, &f);
    if (f.rc != 0)
        fail_msg("repair: %s", f.err.msg);
    vol_check(&t, true, &again);
    if (again.rc != 0 || again.result.repaired != 0 ||
        again.result.findings != f.result.findings - f.result.repaired)
        fail_msg("repaired %s\n%s\nand then\n%s", again.err.msg, f.text, again.text);
    vol_findings_free(&again);
    random_use(&t);
    vol_compare(&t);
    vol_check(&t, true, &again);
    if (again.rc != 0 || again.result.repaired != 0)
        fail_msg("repaired\n%s\nand after use\n%s", f.text, again.text);
    vol_findings_free(&again);
    vol_findings_free(&f);
    vol_remove(&t);
}

static void
random_rounds(const char *engine)
{
    uint64_t seed = vol_seed();

    for (unsigned i = 0; i < ROUNDS * vol_scale(); i++) {
        print_message("round %u: KVFS_SEED=%llu\n", i, (unsigned long long)seed);
        random_round(engine, seed);
        (void)vol_random(&seed);
    }
}

static void
check__random_damage_mem__repaired(void **state)
{
    (void)state;
    if (chosen_by_name())
        skip();
    random_rounds("mem");
}

static void
check__random_damage__repaired(void **state)
{
    (void)state;
    if (!chosen_is_there())
        skip();
    random_rounds(chosen_engine());
}

/* --- raw flips --- */

static void
raw_flip(const struct vol *t, uint64_t *rng)
{
    const struct store_files *files = store_files_find(t->path);
    const struct store_file *f;
    uint8_t byte;
    off_t at;
    int fd;

    assert_true(files->count > 0);
    f = &files->file[vol_random(rng) % files->count];
    fd = open(f->path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    at = (off_t)(vol_random(rng) % f->size_bytes);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= (uint8_t)(1u << vol_random(rng) % 8);
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    assert_int_equal(close(fd), 0);
}

static void
raw_round(uint64_t seed)
{
    uint64_t rng = seed;
    struct vol_findings f;
    struct vol t;

    vol_make(&t, chosen_engine(), seed);
    for (uint64_t n = 1 + vol_random(&rng) % 3; n > 0; n--)
        raw_flip(&t, &rng);
    vol_check(&t, false, &f);
    if (f.rc != 0)
        fail_msg("check: %s", f.err.msg);
    if (f.result.findings == 0)
        vol_compare(&t); /* nobody was hurt */
    vol_findings_free(&f);
    vol_check(&t, true, &f);
    if (f.rc != 0)
        fail_msg("repair: %s", f.err.msg);
    vol_findings_free(&f);
    vol_remove(&t);
}

static void
check__raw_flips__found_or_harmless(void **state)
{
    uint64_t seed = vol_seed();

    (void)state;
    if (!chosen_is_there())
        skip();
    for (unsigned i = 0; i < 2 * ROUNDS * vol_scale(); i++) {
        print_message("round %u: KVFS_SEED=%llu\n", i, (unsigned long long)seed);
        raw_round(seed);
        (void)vol_random(&seed);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check__random_damage_mem__repaired),
        cmocka_unit_test(check__random_damage__repaired),
        cmocka_unit_test(check__raw_flips__found_or_harmless),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
