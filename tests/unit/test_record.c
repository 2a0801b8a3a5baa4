/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Keys, records and trailers: what is encoded comes back, whatever is flipped
 * is found, and the bytes are those of the committed samples for ever.
 *
 * With KVFS_SAMPLES_WRITE=1 the samples are written instead of compared: for
 * a new kind of record only.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include <kvfs/dir.h>

#include "../../kvfs/bytes.h"
#include "../fuzz/samples.h"

static uint8_t out[KVFS_RECORD_MAX];

static bool
sample_is_block(const struct sample *s)
{
    return strcmp(s->target, "block") == 0;
}

/* Decode, encode again; a block is checked and sealed again. */
static int
sample_judge(const struct sample *s, const struct kvfs_key *key, const uint8_t *value, size_t len)
{
    struct kvfs_trailer t;
    size_t out_len = 0;
    int rc;

    if (!sample_is_block(s)) {
        rc = sample_recode(key, value, len, out, &out_len);
    } else {
        size_t bytes = len - KVFS_TRAILER_LEN;

        rc = kvfs_block_check(&t, value + bytes, key->bytes, value, bytes);
        if (rc == 0) {
            memcpy(out, value, bytes);
            kvfs_block_seal(out + bytes, key->bytes, out, bytes, t.cut);
            out_len = len;
        }
    }
    if (rc == 0) {
        assert_int_equal(out_len, len);
        assert_memory_equal(out, value, len);
    }
    return rc;
}

static void
one_round_trip(void *arg, const struct sample *s)
{
    (void)arg;
    assert_int_equal(sample_judge(s, &s->key, s->value, s->len), 0);
}

static void
record__encoded__decodes_to_same_bytes(void **state)
{
    (void)state;
    sample_each(one_round_trip, NULL);
}

static void
golden_compare(const char *target, const char *name, const uint8_t *want, size_t n)
{
    static uint8_t have[3 + KVFS_KEY_MAX + KVFS_RECORD_MAX];
    bool write = getenv("KVFS_SAMPLES_WRITE") != NULL; /* NOLINT(concurrency-mt-unsafe) */
    char path[512];
    FILE *fp;

    (void)snprintf(path, sizeof(path), "%s/%s/%s", KVFS_CORPUS, target, name);
    fp = fopen(path, write ? "wb" : "rb");
    if (fp == NULL)
        fail_msg("%s cannot be opened", path);
    if (write) {
        assert_int_equal(fwrite(want, 1, n, fp), n);
    } else {
        assert_int_equal(fread(have, 1, sizeof(have), fp), n);
        assert_memory_equal(have, want, n);
    }
    assert_int_equal(fclose(fp), 0);
}

static void
one_golden(void *arg, const struct sample *s)
{
    static uint8_t want[3 + KVFS_KEY_MAX + KVFS_RECORD_MAX];

    (void)arg;
    want[0] = 1;
    kvfs_be16_put(want + 1, (uint16_t)s->key.len);
    memcpy(want + 3, s->key.bytes, s->key.len);
    memcpy(want + 3 + s->key.len, s->value, s->len);
    golden_compare(s->target, s->name, want, 3 + s->key.len + s->len);
    if (!sample_is_block(s))
        golden_compare("key", s->name, s->key.bytes, s->key.len);
}

static void
record__encoded__is_the_committed_sample(void **state)
{
    (void)state;
    sample_each(one_golden, NULL);
}

/* Worked out with xxhsum -H3, not with this library. */
static void
record__hole__has_these_bytes(void **state)
{
    static const uint8_t want[] = {
        0x48, 0x01, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x09, 0x77, 0xbd, 0x60, 0x4b, 0xe3, 0x92, 0x22, 0xcf,
    };
    struct kvfs_hole_record h = {.end = 0x0102030405060708, .cut = 9};
    struct kvfs_key k;

    (void)state;
    kvfs_key_hole(&k, 77, 16);
    assert_memory_equal(k.bytes, "H\0\0\0\0\0\0\0\x4d\0\0\0\0\0\0\0\x10", 17);
    assert_int_equal(kvfs_hole_encode(&h, &k, out), sizeof(want));
    assert_memory_equal(out, want, sizeof(want));
}

static void
block__zeros__have_this_trailer(void **state)
{
    static const uint8_t want[KVFS_TRAILER_LEN] = {0x00, 0x01, 0x12, 0x76, 0x00, 0x00, 0x02, 0x00,
                                                   0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x05,
                                                   0xf8, 0x09, 0x3b, 0x8c, 0x6f, 0x9c, 0xa4, 0x67};
    uint8_t bytes[512] = {0}, key[KVFS_DATA_KEY_LEN], trailer[KVFS_TRAILER_LEN];

    (void)state;
    kvfs_key_block(key, 7, 9);
    kvfs_block_seal(trailer, key, bytes, sizeof(bytes), 5);
    assert_memory_equal(trailer, want, sizeof(want));
}

static void
one_flipped(void *arg, const struct sample *s)
{
    static uint8_t value[KVFS_RECORD_MAX];
    struct kvfs_key key = s->key;

    (void)arg;
    memcpy(value, s->value, s->len);
    for (size_t bit = 0; bit < s->len * 8; bit++) {
        value[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (sample_judge(s, &key, value, s->len) != -EIO)
            fail_msg("%s: bit %zu of the value", s->name, bit);
        value[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t bit = 0; bit < key.len * 8; bit++) {
        key.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (sample_judge(s, &key, value, s->len) != -EIO)
            fail_msg("%s: bit %zu of the key", s->name, bit);
        key.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

static void
record__any_bit_flipped__is_eio(void **state)
{
    (void)state;
    sample_each(one_flipped, NULL);
}

static void
one_cut_short(void *arg, const struct sample *s)
{
    static uint8_t value[KVFS_RECORD_MAX];

    (void)arg;
    memcpy(value, s->value, s->len);
    value[s->len] = 0;
    for (size_t len = sample_is_block(s) ? KVFS_TRAILER_LEN : 0; len <= s->len + 1; len++) {
        if (len != s->len && sample_judge(s, &s->key, value, len) != -EIO)
            fail_msg("%s: %zu bytes of %zu", s->name, len, s->len);
    }
}

static void
record__another_length__is_eio(void **state)
{
    (void)state;
    sample_each(one_cut_short, NULL);
}

static void
one_longer(void *arg, const struct sample *s)
{
    static uint8_t value[KVFS_RECORD_MAX];
    int *fixed = arg;
    int rc;

    if (sample_is_block(s))
        return;
    memset(value, 0, sizeof(value));
    memcpy(value, s->value, s->len - 8);
    sample_mend(&s->key, value, s->len + 1); /* sound, but one byte of payload too many */
    rc = sample_judge(s, &s->key, value, s->len + 1);
    if (strncmp(s->name, "xattr", 5) != 0) {
        assert_int_equal(rc, -EIO);
        (*fixed)++;
    }
}

static void
record__sound_but_too_long__is_eio(void **state)
{
    int fixed = 0;

    (void)state;
    sample_each(one_longer, &fixed);
    assert_true(fixed > 10);
}

static void
one_newer(void *arg, const struct sample *s)
{
    static uint8_t value[KVFS_RECORD_MAX];

    (void)arg;
    memcpy(value, s->value, s->len);
    if (sample_is_block(s)) {
        value[s->len - KVFS_TRAILER_LEN + 1] = 2;
        sample_mend_block(s->key.bytes, value, s->len);
        assert_int_equal(sample_judge(s, &s->key, value, s->len), -ENOTSUP);
        value[s->len - KVFS_TRAILER_LEN + 1] = 1;
        value[s->len - KVFS_TRAILER_LEN] = 1; /* a codec to come */
        sample_mend_block(s->key.bytes, value, s->len);
        assert_int_equal(sample_judge(s, &s->key, value, s->len), -ENOTSUP);
        return;
    }
    value[1] = 2;
    sample_mend(&s->key, value, s->len);
    assert_int_equal(sample_judge(s, &s->key, value, s->len), -ENOTSUP);
    value[1] = 0;
    sample_mend(&s->key, value, s->len);
    assert_int_equal(sample_judge(s, &s->key, value, s->len), -EIO);
    value[1] = 1;
    value[0] ^= 1;
    sample_mend(&s->key, value, s->len);
    assert_int_equal(sample_judge(s, &s->key, value, s->len), -EIO);
}

static void
record__newer_version__is_enotsup(void **state)
{
    (void)state;
    sample_each(one_newer, NULL);
}

static int
inode_judge(struct kvfs_inode_record r)
{
    struct kvfs_inode_record back;
    struct kvfs_key k;

    kvfs_key_inode(&k, 5);
    return kvfs_inode_decode(&back, &k, out, kvfs_inode_encode(&r, &k, out));
}

static void
inode__out_of_range__is_eio(void **state)
{
    const struct kvfs_inode_record file = {
        .mode = S_IFREG | 0600, .nlink = 1, .block_size_bytes = 512, .fork = 3};
    const struct kvfs_inode_record folder = {.mode = S_IFDIR, .nlink = 2, .parent = 1};
    struct kvfs_inode_record r;

    (void)state;
    assert_int_equal(inode_judge(file), 0);
    assert_int_equal(inode_judge(folder), 0);
#define REFUSED(base, change)                   \
    do {                                        \
        r = (base);                             \
        change;                                 \
        assert_int_equal(inode_judge(r), -EIO); \
    } while (0)
    REFUSED(file, r.block_size_bytes = 0);
    REFUSED(file, r.block_size_bytes = 256);
    REFUSED(file, r.block_size_bytes = 3000);
    REFUSED(file, r.block_size_bytes = 131072);
    REFUSED(file, r.fork = 0);
    REFUSED(file, r.flags = 1);
    REFUSED(file, r.parent = 1);
    REFUSED(file, r.rdev = 1);
    REFUSED(file, r.mode = 0644);
    REFUSED(file, r.mode = 0xf000);
    REFUSED(file, r.mode |= 0x10000);
    REFUSED(folder, r.parent = 0);
    REFUSED(folder, r.fork = 9);
    REFUSED(folder, r.block_size_bytes = 4096);
#undef REFUSED
}

static void
contents__size_beyond_8_eib__is_eio(void **state)
{
    struct kvfs_contents_record r = {.size_bytes = (uint64_t)INT64_MAX + 1}, back;
    struct kvfs_key k;

    (void)state;
    kvfs_key_contents(&k, 5);
    assert_int_equal(kvfs_contents_decode(&back, &k, out, kvfs_contents_encode(&r, &k, out)), -EIO);
    r.size_bytes--;
    assert_int_equal(kvfs_contents_decode(&back, &k, out, kvfs_contents_encode(&r, &k, out)), 0);
    assert_int_equal(back.size_bytes, INT64_MAX);
}

static void
dentry__out_of_range__is_eio(void **state)
{
    const struct kvfs_dentry_record bad[] = {
        {.ino = 0, .cookie = 3, .type = S_IFREG},
        {.ino = 1, .cookie = 2, .type = S_IFREG},
        {.ino = 1, .cookie = 3, .type = 0},
        {.ino = 1, .cookie = 3, .type = S_IFREG | 0644},
    };
    struct kvfs_dentry_record back;
    struct kvfs_key k;

    (void)state;
    kvfs_key_dentry(&k, 1, "a", 1);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(kvfs_dentry_decode(&back, &k, out, kvfs_dentry_encode(&bad[i], &k, out)),
                         -EIO);
}

static void
fork_records__out_of_range__are_eio(void **state)
{
    struct kvfs_hole_record h = {.end = 16, .cut = 1};
    struct kvfs_over_record o = {.top = 77};
    struct kvfs_pending_record p = {.ino = 0};
    struct kvfs_key k;

    (void)state;
    kvfs_key_hole(&k, 77, 16);
    assert_int_equal(kvfs_hole_decode(&h, &k, out, kvfs_hole_encode(&h, &k, out)), -EIO);
    h.end = 17;
    assert_int_equal(kvfs_hole_decode(&h, &k, out, kvfs_hole_encode(&h, &k, out)), 0);
    kvfs_key_over(&k, 77, 1);
    assert_int_equal(kvfs_over_decode(&o, &k, out, kvfs_over_encode(&o, &k, out)), -EIO);
    o.top = 0;
    assert_int_equal(kvfs_over_decode(&o, &k, out, kvfs_over_encode(&o, &k, out)), -EIO);
    kvfs_key_pending(&k, 77);
    assert_int_equal(kvfs_pending_decode(&p, &k, out, kvfs_pending_encode(&p, &k, out)), -EIO);
}

static int
super_judge(struct kvfs_super s)
{
    struct kvfs_super back;
    struct kvfs_key k;

    kvfs_key_super(&k);
    return kvfs_super_decode(&back, &k, out, kvfs_super_encode(&s, &k, out));
}

static void
super__out_of_range__is_refused(void **state)
{
    struct kvfs_super good = {.format_version = 1, .engine = "mem", .block_size_bytes = 4096};
    struct kvfs_super s;

    (void)state;
    assert_int_equal(super_judge(good), 0);
    s = good;
    s.features_incompat = UINT64_MAX; /* for the opener to judge: it names the bits */
    assert_int_equal(super_judge(s), 0);
    s = good;
    s.format_version = 2;
    assert_int_equal(super_judge(s), -ENOTSUP);
    s.format_version = 0;
    assert_int_equal(super_judge(s), -EIO);
    s = good;
    s.block_size_bytes = 3000;
    assert_int_equal(super_judge(s), -EIO);
    s = good;
    s.engine[0] = '\0';
    assert_int_equal(super_judge(s), -EIO);
    s.engine[0] = '\n';
    assert_int_equal(super_judge(s), -EIO);
}

static void
bytes__longest_and_one_more__are_told_apart(void **state)
{
    static uint8_t value[KVFS_RECORD_MAX + 16], bytes[KVFS_XATTR_VALUE_MAX + 1];
    const void *back;
    struct kvfs_key k;
    size_t len;

    (void)state;
    kvfs_key_xattr(&k, 1, "a", 1);
    assert_int_equal(kvfs_bytes_encode(bytes, KVFS_XATTR_VALUE_MAX, &k, value),
                     KVFS_XATTR_VALUE_MAX + 10);
    assert_int_equal(kvfs_bytes_decode(&back, &len, &k, value, KVFS_XATTR_VALUE_MAX + 10), 0);
    assert_int_equal(len, KVFS_XATTR_VALUE_MAX);
    sample_mend(&k, value, KVFS_XATTR_VALUE_MAX + 11);
    assert_int_equal(kvfs_bytes_decode(&back, &len, &k, value, KVFS_XATTR_VALUE_MAX + 11), -EIO);

    memset(bytes, 'a', sizeof(bytes));
    kvfs_key_symlink(&k, 1);
    len = kvfs_bytes_encode(bytes, KVFS_SYMLINK_MAX, &k, value);
    assert_int_equal(kvfs_bytes_decode(&back, &len, &k, value, len), 0);
    value[5] = 0;
    sample_mend(&k, value, KVFS_SYMLINK_MAX + 10);
    assert_int_equal(kvfs_bytes_decode(&back, &len, &k, value, KVFS_SYMLINK_MAX + 10), -EIO);
}

static void
block__every_size__comes_back(void **state)
{
    static uint8_t bytes[KVFS_BLOCK_SIZE_MAX];
    uint8_t key[KVFS_DATA_KEY_LEN], other[KVFS_DATA_KEY_LEN], trailer[KVFS_TRAILER_LEN];
    struct kvfs_trailer t;
    uint64_t fork, index;

    (void)state;
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 31 + i / 256);
    kvfs_key_block(key, 7, 9);
    kvfs_key_block(other, 9, 7);
    kvfs_key_block_parse(key, &fork, &index);
    assert_true(fork == 7 && index == 9);
    for (size_t len = KVFS_BLOCK_SIZE_MIN; len <= KVFS_BLOCK_SIZE_MAX; len *= 2) {
        kvfs_block_seal(trailer, key, bytes, len, len);
        assert_int_equal(kvfs_block_check(&t, trailer, key, bytes, len), 0);
        assert_true(t.codec == KVFS_CODEC_RAW && t.raw_len == len && t.cut == len);
        assert_int_equal(kvfs_block_check(&t, trailer, other, bytes, len), -EIO);
        assert_int_equal(kvfs_block_check(&t, trailer, key, bytes, len / 2), -EIO);
        assert_int_equal(kvfs_block_check(&t, trailer, key, bytes + 1, len), -EIO);
    }
}

static void
block__of_zeros__is_a_trailer_alone(void **state)
{
    uint8_t key[KVFS_DATA_KEY_LEN], other[KVFS_DATA_KEY_LEN], trailer[KVFS_TRAILER_LEN];
    uint8_t zeros[512] = {0};
    struct kvfs_trailer t;

    (void)state;
    kvfs_key_block(key, 7, 9);
    kvfs_key_block(other, 7, 8);
    kvfs_block_seal(trailer, key, NULL, 0, 5);
    assert_int_equal(kvfs_block_check(&t, trailer, key, NULL, 0), 0);
    assert_true(t.raw_len == 0 && t.cut == 5);
    assert_int_equal(kvfs_block_check(&t, trailer, other, NULL, 0), -EIO);
    assert_int_equal(kvfs_block_check(&t, trailer, key, zeros, sizeof(zeros)), -EIO);
}

static void
trailer__any_bit_flipped__is_eio_without_the_block(void **state)
{
    uint8_t bytes[512] = {0}, key[KVFS_DATA_KEY_LEN], trailer[KVFS_TRAILER_LEN];
    struct kvfs_trailer t;

    (void)state;
    kvfs_key_block(key, 7, 9);
    kvfs_block_seal(trailer, key, bytes, sizeof(bytes), 5);
    for (size_t bit = 0; bit < 8 * sizeof(trailer); bit++) {
        trailer[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(kvfs_trailer_decode(&t, trailer), -EIO);
        trailer[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_int_equal(kvfs_trailer_decode(&t, trailer), 0);
}

static void
trailer__raw_len_out_of_range__is_eio(void **state)
{
    static const uint32_t bad[] = {1, 256, 511, 513, 4097, 65537, 131072, UINT32_MAX};
    uint8_t key[KVFS_DATA_KEY_LEN], value[512 + KVFS_TRAILER_LEN] = {0};
    struct kvfs_trailer t;

    (void)state;
    kvfs_key_block(key, 7, 9);
    kvfs_block_seal(value + 512, key, value, 512, 5);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        kvfs_be32_put(value + 512 + 4, bad[i]);
        sample_mend_block(key, value, sizeof(value));
        assert_int_equal(kvfs_trailer_decode(&t, value + 512), -EIO);
    }
}

static void
key__bytes_of_no_key__are_eio(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
    } bad[] = {
        {"", 0},
        {"S\0", 2},
        {"s", 1},
        {"\0", 1},
        {"C", 1},
        {"C\3", 2},
        {"C\0\0", 3},
        {"I\0\0\0\0\0\0\0\1", 9},
        {"I\0\0\0\0\0\0\0\0\0", 10},
        {"I\0\0\0\0\0\0\0\1\2", 10},
        {"I\0\0\0\0\0\0\0\1\0a", 11},
        {"I\0\0\0\0\0\0\0\1\1a", 11},
        {"I\0\0\0\0\0\0\0\1\x10", 10},
        {"I\0\0\0\0\0\0\0\1\x10.", 11},
        {"I\0\0\0\0\0\0\0\1\x10..", 12},
        {"I\0\0\0\0\0\0\0\1\x10"
         "a/b",
         13},
        {"I\0\0\0\0\0\0\0\1\x10"
         "a\0b",
         13},
        {"I\0\0\0\0\0\0\0\1\x11\0\0\0\0\0\0\0\2", 18},
        {"I\0\0\0\0\0\0\0\1\x11\0\0\0\0\0\0\3", 17},
        {"I\0\0\0\0\0\0\0\1\x20", 10},
        {"I\0\0\0\0\0\0\0\1\x30.", 11},
        {"O\0\0\0\0\0\0\0\0", 9},
        {"G\0\0\0\0\0\0\1", 8},
        {"H\0\0\0\0\0\0\0\1", 9},
        {"T\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\1", 17},
    };
    struct kvfs_key_parts parts;
    struct kvfs_key k;
    char name[KVFS_NAME_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (kvfs_key_parse(bad[i].bytes, bad[i].len, &parts) != -EIO)
            fail_msg("key %zu was taken", i);
    }
    memset(name, 'a', sizeof(name));
    kvfs_key_dentry(&k, 1, name, sizeof(name));
    assert_int_equal(kvfs_key_parse(k.bytes, k.len, &parts), 0);
    assert_int_equal(parts.name_len, KVFS_NAME_MAX);
    k.bytes[k.len++] = 'a';
    assert_int_equal(kvfs_key_parse(k.bytes, k.len, &parts), -EIO);
}

static void
one_key(void *arg, const struct sample *s)
{
    struct kvfs_key_parts parts;
    struct kvfs_key again;

    (void)arg;
    if (sample_is_block(s))
        return;
    assert_int_equal(kvfs_key_parse(s->key.bytes, s->key.len, &parts), 0);
    sample_key(&parts, &again);
    assert_int_equal(again.len, s->key.len);
    assert_memory_equal(again.bytes, s->key.bytes, again.len);
}

static void
key__taken_apart__builds_the_same(void **state)
{
    (void)state;
    sample_each(one_key, NULL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(record__encoded__decodes_to_same_bytes),
        cmocka_unit_test(record__encoded__is_the_committed_sample),
        cmocka_unit_test(record__hole__has_these_bytes),
        cmocka_unit_test(block__zeros__have_this_trailer),
        cmocka_unit_test(record__any_bit_flipped__is_eio),
        cmocka_unit_test(record__another_length__is_eio),
        cmocka_unit_test(record__sound_but_too_long__is_eio),
        cmocka_unit_test(record__newer_version__is_enotsup),
        cmocka_unit_test(inode__out_of_range__is_eio),
        cmocka_unit_test(contents__size_beyond_8_eib__is_eio),
        cmocka_unit_test(dentry__out_of_range__is_eio),
        cmocka_unit_test(fork_records__out_of_range__are_eio),
        cmocka_unit_test(super__out_of_range__is_refused),
        cmocka_unit_test(bytes__longest_and_one_more__are_told_apart),
        cmocka_unit_test(block__every_size__comes_back),
        cmocka_unit_test(block__of_zeros__is_a_trailer_alone),
        cmocka_unit_test(trailer__any_bit_flipped__is_eio_without_the_block),
        cmocka_unit_test(trailer__raw_len_out_of_range__is_eio),
        cmocka_unit_test(key__bytes_of_no_key__are_eio),
        cmocka_unit_test(key__taken_apart__builds_the_same),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
