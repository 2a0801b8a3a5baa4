/* SPDX-License-Identifier: BSD-3-Clause */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include <kvfs/dir.h>

#include "../../kvfs/bytes.h"
#include "samples.h"

struct sampler {
    void (*fn)(void *arg, const struct sample *s);
    void *arg;
    struct kvfs_key key;
    uint8_t value[KVFS_RECORD_MAX];
};

static void
sample_emit(struct sampler *s, const char *target, const char *name, size_t len)
{
    const struct sample one = {
        .target = target, .name = name, .key = s->key, .value = s->value, .len = len};

    s->fn(s->arg, &one);
}

static void
sample_super(struct sampler *s)
{
    struct kvfs_super r = {.format_version = 1,
                           .uuid = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
                           .engine = "log:hybrid:lmdb+rocksdb",
                           .block_size_bytes = 4096,
                           .features_compat = 0x0102030405060708};

    kvfs_key_super(&s->key);
    sample_emit(s, "super", "super", kvfs_super_encode(&r, &s->key, s->value));
}

static void
sample_inodes(struct sampler *s)
{
    struct kvfs_inode_record r = {.mode = S_IFREG | 0644,
                                  .uid = 1000,
                                  .gid = 100,
                                  .nlink = 2,
                                  .block_size_bytes = 4096,
                                  .fork = 77,
                                  .atime_ns = -1,
                                  .mtime_ns = 1700000000123456789,
                                  .ctime_ns = 1700000000123456790,
                                  .crtime_ns = 1600000000000000000};

    kvfs_key_inode(&s->key, 42);
    sample_emit(s, "inode", "inode-file", kvfs_inode_encode(&r, &s->key, s->value));
    r = (struct kvfs_inode_record){.mode = S_IFDIR | 01777, .nlink = 2, .parent = 1};
    kvfs_key_inode(&s->key, 1);
    sample_emit(s, "inode", "inode-root", kvfs_inode_encode(&r, &s->key, s->value));
    r = (struct kvfs_inode_record){.mode = S_IFLNK | 0777, .nlink = 1};
    kvfs_key_inode(&s->key, UINT64_MAX);
    sample_emit(s, "inode", "inode-link", kvfs_inode_encode(&r, &s->key, s->value));
    r = (struct kvfs_inode_record){.mode = S_IFBLK | 0600, .nlink = 1, .rdev = 0x0801};
    kvfs_key_inode(&s->key, 43);
    sample_emit(s, "inode", "inode-device", kvfs_inode_encode(&r, &s->key, s->value));
}

static void
sample_names(struct sampler *s)
{
    struct kvfs_dentry_record r = {.ino = 42, .cookie = 3, .type = S_IFREG};
    char name[KVFS_NAME_MAX];

    kvfs_key_dentry(&s->key, 1, "disk0", 5);
    sample_emit(s, "dentry", "dentry", kvfs_dentry_encode(&r, &s->key, s->value));
    r = (struct kvfs_dentry_record){.ino = 9, .cookie = UINT64_MAX, .type = S_IFDIR};
    for (size_t i = 0; i < sizeof(name); i++)
        name[i] = (char)(i + 1 == '/' ? '.' : i + 1);
    kvfs_key_dentry(&s->key, 7, name, sizeof(name));
    sample_emit(s, "dentry", "dentry-longest", kvfs_dentry_encode(&r, &s->key, s->value));
    kvfs_key_cookie(&s->key, 1, 3);
    sample_emit(s, "record", "cookie", kvfs_bytes_encode("disk0", 5, &s->key, s->value));
    kvfs_key_symlink(&s->key, 8);
    sample_emit(s, "record", "symlink", kvfs_bytes_encode("../disk0", 8, &s->key, s->value));
    kvfs_key_xattr(&s->key, 8, "user.note", 9);
    sample_emit(s, "record", "xattr", kvfs_bytes_encode("\0\xff", 2, &s->key, s->value));
    sample_emit(s, "record", "xattr-empty", kvfs_bytes_encode("", 0, &s->key, s->value));
}

static void
sample_contents(struct sampler *s)
{
    struct kvfs_contents_record c = {
        .size_bytes = INT64_MAX, .version = 5, .cut = 6, .mtime_ns = 1700000000123456789};
    struct kvfs_hole_record h = {.end = UINT64_MAX, .cut = 9};
    struct kvfs_over_record o = {.top = 78};
    struct kvfs_pending_record p = {.ino = 42};

    kvfs_key_contents(&s->key, 42);
    sample_emit(s, "record", "contents", kvfs_contents_encode(&c, &s->key, s->value));
    kvfs_key_hole(&s->key, 77, 16);
    sample_emit(s, "record", "hole", kvfs_hole_encode(&h, &s->key, s->value));
    kvfs_key_over(&s->key, 77, 9);
    sample_emit(s, "record", "over", kvfs_over_encode(&o, &s->key, s->value));
    kvfs_key_pending(&s->key, 78);
    sample_emit(s, "record", "pending", kvfs_pending_encode(&p, &s->key, s->value));
    kvfs_key_orphan(&s->key, 42);
    sample_emit(s, "record", "orphan", kvfs_number_encode(0, &s->key, s->value));
    kvfs_key_dead(&s->key, 77);
    sample_emit(s, "record", "dead", kvfs_number_encode(1, &s->key, s->value));
    kvfs_key_counter(&s->key, KVFS_COUNTER_ID);
    sample_emit(s, "record", "counter-id", kvfs_number_encode(1025, &s->key, s->value));
    kvfs_key_counter(&s->key, KVFS_COUNTER_INODES);
    sample_emit(s, "record", "counter-inodes", kvfs_number_encode(UINT64_MAX, &s->key, s->value));
}

static void
sample_blocks(struct sampler *s)
{
    kvfs_key_block(s->key.bytes, 77, 3);
    s->key.len = KVFS_DATA_KEY_LEN;
    for (size_t i = 0; i < 4096; i++)
        s->value[i] = (uint8_t)(i * 7 + i / 256);
    kvfs_block_seal(s->value + 4096, s->key.bytes, s->value, 4096, 6);
    sample_emit(s, "block", "block-4096", 4096 + KVFS_TRAILER_LEN);
    memset(s->value, 0, 512);
    kvfs_block_seal(s->value + 512, s->key.bytes, s->value, 512, UINT64_MAX);
    sample_emit(s, "block", "block-512", 512 + KVFS_TRAILER_LEN);
    kvfs_block_seal(s->value, s->key.bytes, NULL, 0, 6);
    sample_emit(s, "block", "block-zeros", KVFS_TRAILER_LEN);
}

void
sample_each(void (*fn)(void *arg, const struct sample *s), void *arg)
{
    static struct sampler s; /* static: the value is large */

    s.fn = fn;
    s.arg = arg;
    sample_super(&s);
    sample_inodes(&s);
    sample_names(&s);
    sample_contents(&s);
    sample_blocks(&s);
}

static int
recode_inode(const struct kvfs_key *k, const void *value, size_t len, uint8_t *out, size_t *out_len)
{
    struct kvfs_inode_record r;
    int rc = kvfs_inode_decode(&r, k, value, len);

    if (rc == 0)
        *out_len = kvfs_inode_encode(&r, k, out);
    return rc;
}

static int
recode_super(const struct kvfs_key *k, const void *value, size_t len, uint8_t *out, size_t *out_len)
{
    struct kvfs_super r;
    int rc = kvfs_super_decode(&r, k, value, len);

    if (rc == 0)
        *out_len = kvfs_super_encode(&r, k, out);
    return rc;
}

static int
recode_dentry(const struct kvfs_key *k, const void *value, size_t len, uint8_t *out,
              size_t *out_len)
{
    struct kvfs_dentry_record r;
    int rc = kvfs_dentry_decode(&r, k, value, len);

    if (rc == 0)
        *out_len = kvfs_dentry_encode(&r, k, out);
    return rc;
}

static int
recode_contents(const struct kvfs_key *k, const void *value, size_t len, uint8_t *out,
                size_t *out_len)
{
    struct kvfs_contents_record r;
    int rc = kvfs_contents_decode(&r, k, value, len);

    if (rc == 0)
        *out_len = kvfs_contents_encode(&r, k, out);
    return rc;
}

static int
recode_fork(enum kvfs_key_kind kind, const struct kvfs_key *k, const void *value, size_t len,
            uint8_t *out, size_t *out_len)
{
    struct kvfs_hole_record h;
    struct kvfs_over_record o;
    struct kvfs_pending_record p;
    int rc;

    if (kind == KVFS_KEY_HOLE) {
        rc = kvfs_hole_decode(&h, k, value, len);
        if (rc == 0)
            *out_len = kvfs_hole_encode(&h, k, out);
    } else if (kind == KVFS_KEY_OVER) {
        rc = kvfs_over_decode(&o, k, value, len);
        if (rc == 0)
            *out_len = kvfs_over_encode(&o, k, out);
    } else {
        rc = kvfs_pending_decode(&p, k, value, len);
        if (rc == 0)
            *out_len = kvfs_pending_encode(&p, k, out);
    }
    return rc;
}

static int
recode_number(const struct kvfs_key *k, const void *value, size_t len, uint8_t *out,
              size_t *out_len)
{
    uint64_t n;
    int rc = kvfs_number_decode(&n, k, value, len);

    if (rc == 0)
        *out_len = kvfs_number_encode(n, k, out);
    return rc;
}

static int
recode_bytes(const struct kvfs_key *k, const void *value, size_t len, uint8_t *out, size_t *out_len)
{
    const void *bytes;
    size_t bytes_len;
    int rc = kvfs_bytes_decode(&bytes, &bytes_len, k, value, len);

    if (rc == 0)
        *out_len = kvfs_bytes_encode(bytes, bytes_len, k, out);
    return rc;
}

int
sample_recode(const struct kvfs_key *key, const void *value, size_t len, uint8_t *out,
              size_t *out_len)
{
    struct kvfs_key_parts parts;
    int rc = kvfs_key_parse(key->bytes, key->len, &parts);

    if (rc != 0)
        return rc;
    switch (parts.kind) {
    case KVFS_KEY_SUPER:
        return recode_super(key, value, len, out, out_len);
    case KVFS_KEY_INODE:
        return recode_inode(key, value, len, out, out_len);
    case KVFS_KEY_DENTRY:
        return recode_dentry(key, value, len, out, out_len);
    case KVFS_KEY_CONTENTS:
        return recode_contents(key, value, len, out, out_len);
    case KVFS_KEY_HOLE:
    case KVFS_KEY_OVER:
    case KVFS_KEY_PENDING:
        return recode_fork(parts.kind, key, value, len, out, out_len);
    case KVFS_KEY_ORPHAN:
    case KVFS_KEY_DEAD:
    case KVFS_KEY_COUNTER:
        return recode_number(key, value, len, out, out_len);
    case KVFS_KEY_COOKIE:
    case KVFS_KEY_SYMLINK:
    case KVFS_KEY_XATTR:
        return recode_bytes(key, value, len, out, out_len);
    }
    return -EIO;
}

void
sample_mend(const struct kvfs_key *key, uint8_t *value, size_t len)
{
    uint8_t all[KVFS_KEY_MAX + 8];

    memcpy(all, key->bytes, key->len);
    kvfs_be64_put(all + key->len, XXH3_64bits(value, len - 8));
    kvfs_be64_put(value + len - 8, XXH3_64bits(all, key->len + 8));
}

void
sample_mend_block(const uint8_t key[KVFS_DATA_KEY_LEN], uint8_t *value, size_t len)
{
    uint8_t *trailer = value + len - KVFS_TRAILER_LEN;
    uint8_t all[40];

    kvfs_be16_put(trailer + 2, 0);
    memcpy(all, key, 16);
    memcpy(all + 16, trailer, 16);
    kvfs_be64_put(all + 32, XXH3_64bits(value, len - KVFS_TRAILER_LEN));
    kvfs_be64_put(trailer + 16, XXH3_64bits(all, sizeof(all)));
    kvfs_be16_put(trailer + 2, (uint16_t)XXH3_64bits(trailer, KVFS_TRAILER_LEN));
}

void
sample_key(const struct kvfs_key_parts *p, struct kvfs_key *key)
{
    switch (p->kind) {
    case KVFS_KEY_SUPER:
        kvfs_key_super(key);
        break;
    case KVFS_KEY_INODE:
        kvfs_key_inode(key, p->id);
        break;
    case KVFS_KEY_CONTENTS:
        kvfs_key_contents(key, p->id);
        break;
    case KVFS_KEY_DENTRY:
        kvfs_key_dentry(key, p->id, p->name, p->name_len);
        break;
    case KVFS_KEY_COOKIE:
        kvfs_key_cookie(key, p->id, p->second);
        break;
    case KVFS_KEY_XATTR:
        kvfs_key_xattr(key, p->id, p->name, p->name_len);
        break;
    case KVFS_KEY_SYMLINK:
        kvfs_key_symlink(key, p->id);
        break;
    case KVFS_KEY_ORPHAN:
        kvfs_key_orphan(key, p->id);
        break;
    case KVFS_KEY_DEAD:
        kvfs_key_dead(key, p->id);
        break;
    case KVFS_KEY_HOLE:
        kvfs_key_hole(key, p->id, p->second);
        break;
    case KVFS_KEY_OVER:
        kvfs_key_over(key, p->id, p->second);
        break;
    case KVFS_KEY_PENDING:
        kvfs_key_pending(key, p->id);
        break;
    case KVFS_KEY_COUNTER:
        kvfs_key_counter(key, (uint8_t)p->second);
        break;
    }
}
