/* SPDX-License-Identifier: BSD-3-Clause
 *
 * record.c - encoding and decoding META records (docs/FORMAT.md, "META records").
 *
 *   kind (1)   version (1)   payload   checksum (8)
 *
 * Invariants:
 *  1. The checksum is XXH3-64 of the key followed by the XXH3-64 of all that is
 *     before the checksum: a record under another's key is found.
 *  2. A decoder accepts exactly what the encoder makes of a valid struct, so a
 *     decoded record encoded again is the same bytes.
 *  3. The checksum is judged first, then the kind, then the version: -ENOTSUP
 *     means a sound record of a newer format, never a flipped bit.  So every
 *     later version keeps kind and version in front and the checksum behind.
 */
#include <assert.h>
#include <errno.h>
#include <sys/stat.h>
#include <xxhash.h>

#include <kvfs/dir.h>

#include "bytes.h"
#include "record.h"

#define RECORD_VERSION  1
#define RECORD_OVERHEAD 10 /* kind, version, checksum */

static const uint8_t record_magic[8] = {'K', 'V', 'F', 'S', '\r', '\n', 0x1a, '\n'};

/* A cursor over a payload; the length was judged before it is used. */
struct record_cursor {
    uint8_t *out;
    const uint8_t *in;
};

static void
put32(struct record_cursor *c, uint32_t n)
{
    kvfs_be32_put(c->out, n);
    c->out += 4;
}

static void
put64(struct record_cursor *c, uint64_t n)
{
    kvfs_be64_put(c->out, n);
    c->out += 8;
}

static uint32_t
get32(struct record_cursor *c)
{
    uint32_t n = kvfs_be32_get(c->in);

    c->in += 4;
    return n;
}

static uint64_t
get64(struct record_cursor *c)
{
    uint64_t n = kvfs_be64_get(c->in);

    c->in += 8;
    return n;
}

static uint64_t
record_checksum(const struct kvfs_key *k, const uint8_t *value, size_t len)
{
    uint8_t all[KVFS_KEY_MAX + 8];

    memcpy(all, k->bytes, k->len);
    kvfs_be64_put(all + k->len, XXH3_64bits(value, len));
    return XXH3_64bits(all, k->len + 8);
}

/* The kind byte that belongs under a key: its letter, for `I` keys one of its own. */
static uint8_t
record_kind(enum kvfs_key_kind kind)
{
    static const char kinds[] = {
        [KVFS_KEY_SUPER] = 'S',   [KVFS_KEY_INODE] = 'i',  [KVFS_KEY_CONTENTS] = 'c',
        [KVFS_KEY_DENTRY] = 'd',  [KVFS_KEY_COOKIE] = 'n', [KVFS_KEY_XATTR] = 'x',
        [KVFS_KEY_SYMLINK] = 'l', [KVFS_KEY_ORPHAN] = 'O', [KVFS_KEY_DEAD] = 'G',
        [KVFS_KEY_HOLE] = 'H',    [KVFS_KEY_OVER] = 'V',   [KVFS_KEY_PENDING] = 'T',
        [KVFS_KEY_COUNTER] = 'C',
    };

    return (uint8_t)kinds[kind];
}

static struct record_cursor
record_begin(enum kvfs_key_kind kind, uint8_t *value)
{
    value[0] = record_kind(kind);
    value[1] = RECORD_VERSION;
    return (struct record_cursor){.out = value + 2};
}

/* END is one behind the payload.  Returns the record's length. */
static size_t
record_end(const struct kvfs_key *k, uint8_t *value, uint8_t *end)
{
    size_t len = (size_t)(end - value);

    kvfs_be64_put(end, record_checksum(k, value, len));
    return len + 8;
}

/* Judge what all records have in common.  *PARTS: K taken apart; *payload_len
 * bytes of payload follow the two bytes in front. */
static int
record_open(const struct kvfs_key *k, const uint8_t *value, size_t len,
            struct kvfs_key_parts *parts, size_t *payload_len)
{
    if (kvfs_key_parse(k->bytes, k->len, parts) != 0)
        return -EIO;
    if (len < RECORD_OVERHEAD || len > KVFS_RECORD_MAX)
        return -EIO;
    if (kvfs_be64_get(value + len - 8) != record_checksum(k, value, len - 8))
        return -EIO;
    if (value[0] != record_kind(parts->kind) || value[1] == 0)
        return -EIO;
    if (value[1] > RECORD_VERSION)
        return -ENOTSUP;
    *payload_len = len - RECORD_OVERHEAD;
    return 0;
}

/* As record_open() for a record of one kind and one length. */
static int
record_open_fixed(enum kvfs_key_kind kind, size_t payload_want, const struct kvfs_key *k,
                  const void *value, size_t len, struct kvfs_key_parts *parts,
                  struct record_cursor *c)
{
    size_t payload_len;
    int rc = record_open(k, value, len, parts, &payload_len);

    if (rc != 0)
        return rc;
    if (parts->kind != kind || payload_len != payload_want)
        return -EIO;
    c->in = (const uint8_t *)value + 2;
    return 0;
}

static bool
record_block_size_valid(uint32_t bytes)
{
    return bytes >= KVFS_BLOCK_SIZE_MIN && bytes <= KVFS_BLOCK_SIZE_MAX &&
           (bytes & (bytes - 1)) == 0;
}

static bool
record_type_valid(uint32_t type)
{
    return S_ISREG(type) || S_ISDIR(type) || S_ISLNK(type) || S_ISCHR(type) || S_ISBLK(type) ||
           S_ISFIFO(type) || S_ISSOCK(type);
}

void
kvfs_record_reseal(const struct kvfs_key *k, uint8_t *value, size_t len)
{
    struct kvfs_key_parts parts;

    if (len < RECORD_OVERHEAD || len > KVFS_RECORD_MAX ||
        kvfs_key_parse(k->bytes, k->len, &parts) != 0)
        return;
    value[0] = record_kind(parts.kind);
    value[1] = RECORD_VERSION;
    kvfs_be64_put(value + len - 8, record_checksum(k, value, len - 8));
}

/* --- superblock --- */

#define SUPER_PAYLOAD (8 + 4 + 16 + 64 + 4 + 3 * 8)

size_t
kvfs_super_encode(const struct kvfs_super *r, const struct kvfs_key *k, uint8_t *value)
{
    struct record_cursor c = record_begin(KVFS_KEY_SUPER, value);
    size_t engine_len = strnlen(r->engine, sizeof(r->engine) - 1);

    memcpy(c.out, record_magic, sizeof(record_magic));
    c.out += sizeof(record_magic);
    put32(&c, r->format_version);
    memcpy(c.out, r->uuid, sizeof(r->uuid));
    c.out += sizeof(r->uuid);
    memset(c.out, 0, sizeof(r->engine));
    memcpy(c.out, r->engine, engine_len);
    c.out += sizeof(r->engine);
    put32(&c, r->block_size_bytes);
    put64(&c, r->features_compat);
    put64(&c, r->features_ro_compat);
    put64(&c, r->features_incompat);
    return record_end(k, value, c.out);
}

/* An engine's name: printable, no path, not empty, padded with NULs. */
static bool
super_engine_valid(const uint8_t engine[64])
{
    size_t i = 0;

    while (i < 64 && engine[i] > ' ' && engine[i] < 0x7f && engine[i] != '/')
        i++;
    if (i == 0 || i == 64)
        return false;
    while (i < 64 && engine[i] == 0)
        i++;
    return i == 64;
}

int
kvfs_super_decode(struct kvfs_super *r, const struct kvfs_key *k, const void *value, size_t len)
{
    struct kvfs_key_parts parts;
    struct kvfs_super s;
    struct record_cursor c;
    int rc = record_open_fixed(KVFS_KEY_SUPER, SUPER_PAYLOAD, k, value, len, &parts, &c);

    if (rc != 0)
        return rc;
    if (memcmp(c.in, record_magic, sizeof(record_magic)) != 0)
        return -EIO;
    c.in += sizeof(record_magic);
    s.format_version = get32(&c);
    memcpy(s.uuid, c.in, sizeof(s.uuid));
    c.in += sizeof(s.uuid);
    if (!super_engine_valid(c.in))
        return -EIO;
    memcpy(s.engine, c.in, sizeof(s.engine));
    c.in += sizeof(s.engine);
    s.block_size_bytes = get32(&c);
    s.features_compat = get64(&c);
    s.features_ro_compat = get64(&c);
    s.features_incompat = get64(&c);
    if (s.format_version > KVFS_FORMAT_VERSION)
        return -ENOTSUP;
    if (s.format_version == 0 || !record_block_size_valid(s.block_size_bytes))
        return -EIO;
    *r = s;
    return 0;
}

/* --- inode --- */

#define INODE_PAYLOAD (5 * 4 + 8 + 4 + 8 + 8 + 4 * 8)

size_t
kvfs_inode_encode(const struct kvfs_inode_record *r, const struct kvfs_key *k, uint8_t *value)
{
    struct record_cursor c = record_begin(KVFS_KEY_INODE, value);

    put32(&c, r->mode);
    put32(&c, r->uid);
    put32(&c, r->gid);
    put32(&c, r->nlink);
    put32(&c, r->flags);
    put64(&c, r->rdev);
    put32(&c, r->block_size_bytes);
    put64(&c, r->fork);
    put64(&c, r->parent);
    put64(&c, (uint64_t)r->atime_ns);
    put64(&c, (uint64_t)r->mtime_ns);
    put64(&c, (uint64_t)r->ctime_ns);
    put64(&c, (uint64_t)r->crtime_ns);
    return record_end(k, value, c.out);
}

static bool
inode_valid(const struct kvfs_inode_record *r)
{
    if ((r->mode & ~(uint32_t)(S_IFMT | 07777)) != 0 || !record_type_valid(r->mode & S_IFMT))
        return false;
    if (r->flags != 0)
        return false;
    if (r->rdev != 0 && !S_ISCHR(r->mode) && !S_ISBLK(r->mode))
        return false;
    if (S_ISREG(r->mode) ? !record_block_size_valid(r->block_size_bytes) || r->fork == 0
                         : r->block_size_bytes != 0 || r->fork != 0)
        return false;
    return S_ISDIR(r->mode) ? r->parent != 0 : r->parent == 0;
}

int
kvfs_inode_decode(struct kvfs_inode_record *r, const struct kvfs_key *k, const void *value,
                  size_t len)
{
    struct kvfs_key_parts parts;
    struct kvfs_inode_record i;
    struct record_cursor c;
    int rc = record_open_fixed(KVFS_KEY_INODE, INODE_PAYLOAD, k, value, len, &parts, &c);

    if (rc != 0)
        return rc;
    i.mode = get32(&c);
    i.uid = get32(&c);
    i.gid = get32(&c);
    i.nlink = get32(&c);
    i.flags = get32(&c);
    i.rdev = get64(&c);
    i.block_size_bytes = get32(&c);
    i.fork = get64(&c);
    i.parent = get64(&c);
    i.atime_ns = (int64_t)get64(&c);
    i.mtime_ns = (int64_t)get64(&c);
    i.ctime_ns = (int64_t)get64(&c);
    i.crtime_ns = (int64_t)get64(&c);
    if (!inode_valid(&i))
        return -EIO;
    *r = i;
    return 0;
}

/* --- contents --- */

#define CONTENTS_PAYLOAD (8 + 8 + 8 + 8)

size_t
kvfs_contents_encode(const struct kvfs_contents_record *r, const struct kvfs_key *k, uint8_t *value)
{
    struct record_cursor c = record_begin(KVFS_KEY_CONTENTS, value);

    put64(&c, r->size_bytes);
    put64(&c, r->version);
    put64(&c, r->cut);
    put64(&c, (uint64_t)r->mtime_ns);
    return record_end(k, value, c.out);
}

int
kvfs_contents_decode(struct kvfs_contents_record *r, const struct kvfs_key *k, const void *value,
                     size_t len)
{
    struct kvfs_key_parts parts;
    struct kvfs_contents_record s;
    struct record_cursor c;
    int rc = record_open_fixed(KVFS_KEY_CONTENTS, CONTENTS_PAYLOAD, k, value, len, &parts, &c);

    if (rc != 0)
        return rc;
    s.size_bytes = get64(&c);
    s.version = get64(&c);
    s.cut = get64(&c);
    s.mtime_ns = (int64_t)get64(&c);
    if (s.size_bytes > KVFS_FILE_SIZE_MAX)
        return -EIO;
    *r = s;
    return 0;
}

/* --- directory entry --- */

size_t
kvfs_dentry_encode(const struct kvfs_dentry_record *r, const struct kvfs_key *k, uint8_t *value)
{
    struct record_cursor c = record_begin(KVFS_KEY_DENTRY, value);

    put64(&c, r->ino);
    put64(&c, r->cookie);
    put32(&c, r->type);
    return record_end(k, value, c.out);
}

int
kvfs_dentry_decode(struct kvfs_dentry_record *r, const struct kvfs_key *k, const void *value,
                   size_t len)
{
    struct kvfs_key_parts parts;
    struct kvfs_dentry_record d;
    struct record_cursor c;
    int rc = record_open_fixed(KVFS_KEY_DENTRY, 8 + 8 + 4, k, value, len, &parts, &c);

    if (rc != 0)
        return rc;
    d.ino = get64(&c);
    d.cookie = get64(&c);
    d.type = get32(&c);
    if (d.ino == 0 || d.cookie < KVFS_COOKIE_MIN || (d.type & ~(uint32_t)S_IFMT) != 0 ||
        !record_type_valid(d.type))
        return -EIO;
    *r = d;
    return 0;
}

/* --- holes and forks --- */

size_t
kvfs_hole_encode(const struct kvfs_hole_record *r, const struct kvfs_key *k, uint8_t *value)
{
    struct record_cursor c = record_begin(KVFS_KEY_HOLE, value);

    put64(&c, r->end);
    put64(&c, r->cut);
    return record_end(k, value, c.out);
}

int
kvfs_hole_decode(struct kvfs_hole_record *r, const struct kvfs_key *k, const void *value,
                 size_t len)
{
    struct kvfs_key_parts parts;
    struct kvfs_hole_record h;
    struct record_cursor c;
    int rc = record_open_fixed(KVFS_KEY_HOLE, 8 + 8, k, value, len, &parts, &c);

    if (rc != 0)
        return rc;
    h.end = get64(&c);
    h.cut = get64(&c);
    if (h.end <= parts.second)
        return -EIO;
    *r = h;
    return 0;
}

size_t
kvfs_over_encode(const struct kvfs_over_record *r, const struct kvfs_key *k, uint8_t *value)
{
    struct record_cursor c = record_begin(KVFS_KEY_OVER, value);

    put64(&c, r->top);
    return record_end(k, value, c.out);
}

int
kvfs_over_decode(struct kvfs_over_record *r, const struct kvfs_key *k, const void *value,
                 size_t len)
{
    struct kvfs_key_parts parts;
    struct record_cursor c;
    uint64_t top;
    int rc = record_open_fixed(KVFS_KEY_OVER, 8, k, value, len, &parts, &c);

    if (rc != 0)
        return rc;
    top = get64(&c);
    if (top == 0 || top == parts.id)
        return -EIO;
    r->top = top;
    return 0;
}

size_t
kvfs_pending_encode(const struct kvfs_pending_record *r, const struct kvfs_key *k, uint8_t *value)
{
    struct record_cursor c = record_begin(KVFS_KEY_PENDING, value);

    put64(&c, r->ino);
    return record_end(k, value, c.out);
}

int
kvfs_pending_decode(struct kvfs_pending_record *r, const struct kvfs_key *k, const void *value,
                    size_t len)
{
    struct kvfs_key_parts parts;
    struct record_cursor c;
    uint64_t ino;
    int rc = record_open_fixed(KVFS_KEY_PENDING, 8, k, value, len, &parts, &c);

    if (rc != 0)
        return rc;
    ino = get64(&c);
    if (ino == 0)
        return -EIO;
    r->ino = ino;
    return 0;
}

/* --- numbers and bytes: of several kinds, told by the key --- */

size_t
kvfs_number_encode(uint64_t n, const struct kvfs_key *k, uint8_t *value)
{
    struct kvfs_key_parts parts = {0};
    struct record_cursor c;
    int rc = kvfs_key_parse(k->bytes, k->len, &parts);

    assert(rc == 0 && (parts.kind == KVFS_KEY_ORPHAN || parts.kind == KVFS_KEY_DEAD ||
                       parts.kind == KVFS_KEY_COUNTER));
    (void)rc;
    c = record_begin(parts.kind, value);
    put64(&c, n);
    return record_end(k, value, c.out);
}

int
kvfs_number_decode(uint64_t *n, const struct kvfs_key *k, const void *value, size_t len)
{
    struct kvfs_key_parts parts;
    size_t payload_len;
    int rc = record_open(k, value, len, &parts, &payload_len);

    if (rc != 0)
        return rc;
    if (parts.kind != KVFS_KEY_ORPHAN && parts.kind != KVFS_KEY_DEAD &&
        parts.kind != KVFS_KEY_COUNTER)
        return -EIO;
    if (payload_len != 8)
        return -EIO;
    *n = kvfs_be64_get((const uint8_t *)value + 2);
    return 0;
}

static bool
bytes_valid(enum kvfs_key_kind kind, const void *bytes, size_t len)
{
    switch (kind) {
    case KVFS_KEY_COOKIE:
        return kvfs_name_valid(bytes, len) && !kvfs_name_is_dots(bytes, len);
    case KVFS_KEY_SYMLINK:
        return len >= 1 && len <= KVFS_SYMLINK_MAX && memchr(bytes, '\0', len) == NULL;
    case KVFS_KEY_XATTR:
        return len <= KVFS_XATTR_VALUE_MAX;
    default:
        return false;
    }
}

size_t
kvfs_bytes_encode(const void *bytes, size_t len, const struct kvfs_key *k, uint8_t *value)
{
    struct kvfs_key_parts parts = {0};
    struct record_cursor c;
    int rc = kvfs_key_parse(k->bytes, k->len, &parts);

    assert(rc == 0 && bytes_valid(parts.kind, bytes, len));
    (void)rc;
    c = record_begin(parts.kind, value);
    if (len > 0)
        memcpy(c.out, bytes, len);
    return record_end(k, value, c.out + len);
}

int
kvfs_bytes_decode(const void **bytes, size_t *bytes_len, const struct kvfs_key *k,
                  const void *value, size_t len)
{
    struct kvfs_key_parts parts;
    const uint8_t *payload;
    size_t payload_len;
    int rc = record_open(k, value, len, &parts, &payload_len);

    if (rc != 0)
        return rc;
    payload = (const uint8_t *)value + 2;
    if (!bytes_valid(parts.kind, payload, payload_len))
        return -EIO;
    *bytes = payload;
    *bytes_len = payload_len;
    return 0;
}
