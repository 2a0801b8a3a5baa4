/* SPDX-License-Identifier: BSD-3-Clause
 *
 * key.c - building keys, and taking them apart (docs/FORMAT.md, "META keys").
 *
 * Invariants:
 *  1. Numbers in keys are big-endian, so that the order of keys is the order of
 *     numbers: a folder's cookies are scanned in the order they were given.
 *  2. kvfs_key_parse() accepts exactly the keys that the builders make of valid
 *     arguments; a key taken apart and built again is the same bytes.
 */
#include <assert.h>
#include <errno.h>

#include <kvfs/volume.h>

#include "bytes.h"
#include "record.h"

void
kvfs_key_letter(struct kvfs_key *k, char letter)
{
    k->bytes[0] = (uint8_t)letter;
    k->len = 1;
}

static void
key_append(struct kvfs_key *k, uint64_t n)
{
    kvfs_be64_put(k->bytes + k->len, n);
    k->len += 8;
}

void
kvfs_key_inode_part(struct kvfs_key *k, uint64_t ino, uint8_t part)
{
    kvfs_key_letter(k, 'I');
    key_append(k, ino);
    k->bytes[k->len++] = part;
}

static void
key_named(struct kvfs_key *k, uint64_t ino, uint8_t part, const char *name, size_t len)
{
    assert(len <= KVFS_NAME_MAX);
    kvfs_key_inode_part(k, ino, part);
    memcpy(k->bytes + k->len, name, len);
    k->len += len;
}

void
kvfs_key_super(struct kvfs_key *k)
{
    kvfs_key_letter(k, 'S');
}

void
kvfs_key_inode(struct kvfs_key *k, uint64_t ino)
{
    kvfs_key_inode_part(k, ino, KVFS_PART_INODE);
}

void
kvfs_key_contents(struct kvfs_key *k, uint64_t ino)
{
    kvfs_key_inode_part(k, ino, KVFS_PART_CONTENTS);
}

void
kvfs_key_dentry(struct kvfs_key *k, uint64_t ino, const char *name, size_t len)
{
    key_named(k, ino, KVFS_PART_DENTRY, name, len);
}

void
kvfs_key_cookie(struct kvfs_key *k, uint64_t ino, uint64_t cookie)
{
    kvfs_key_inode_part(k, ino, KVFS_PART_COOKIE);
    key_append(k, cookie);
}

void
kvfs_key_xattr(struct kvfs_key *k, uint64_t ino, const char *name, size_t len)
{
    key_named(k, ino, KVFS_PART_XATTR, name, len);
}

void
kvfs_key_symlink(struct kvfs_key *k, uint64_t ino)
{
    kvfs_key_inode_part(k, ino, KVFS_PART_SYMLINK);
}

void
kvfs_key_orphan(struct kvfs_key *k, uint64_t ino)
{
    kvfs_key_letter(k, 'O');
    key_append(k, ino);
}

void
kvfs_key_dead(struct kvfs_key *k, uint64_t fork)
{
    kvfs_key_letter(k, 'G');
    key_append(k, fork);
}

void
kvfs_key_hole(struct kvfs_key *k, uint64_t fork, uint64_t start)
{
    kvfs_key_letter(k, 'H');
    key_append(k, fork);
    key_append(k, start);
}

void
kvfs_key_over(struct kvfs_key *k, uint64_t fork, uint64_t cut)
{
    kvfs_key_letter(k, 'V');
    key_append(k, fork);
    key_append(k, cut);
}

void
kvfs_key_pending(struct kvfs_key *k, uint64_t fork)
{
    kvfs_key_letter(k, 'T');
    key_append(k, fork);
}

void
kvfs_key_counter(struct kvfs_key *k, uint8_t which)
{
    kvfs_key_letter(k, 'C');
    k->bytes[k->len++] = which;
}

void
kvfs_key_block(uint8_t key[KVFS_DATA_KEY_LEN], uint64_t fork, uint64_t index)
{
    kvfs_be64_put(key, fork);
    kvfs_be64_put(key + 8, index);
}

void
kvfs_key_block_parse(const uint8_t key[KVFS_DATA_KEY_LEN], uint64_t *fork, uint64_t *index)
{
    *fork = kvfs_be64_get(key);
    *index = kvfs_be64_get(key + 8);
}

bool
kvfs_name_valid(const char *name, size_t len)
{
    return len >= 1 && len <= KVFS_NAME_MAX && memchr(name, '/', len) == NULL &&
           memchr(name, '\0', len) == NULL;
}

bool
kvfs_name_is_dots(const char *name, size_t len)
{
    return len >= 1 && len <= 2 && memcmp(name, "..", len) == 0;
}

static int
key_parse_named(const uint8_t *rest, size_t len, struct kvfs_key_parts *parts)
{
    const char *name = (const char *)rest;

    if (!kvfs_name_valid(name, len))
        return -EIO;
    if (parts->kind == KVFS_KEY_DENTRY && kvfs_name_is_dots(name, len))
        return -EIO;
    parts->name = name;
    parts->name_len = len;
    return 0;
}

/* Behind `I ino`: the part and what follows it. */
static int
key_parse_inode(const uint8_t *part, size_t len, struct kvfs_key_parts *parts)
{
    if (parts->id == 0 || len < 1)
        return -EIO;
    switch (part[0]) {
    case KVFS_PART_INODE:
        parts->kind = KVFS_KEY_INODE;
        return len == 1 ? 0 : -EIO;
    case KVFS_PART_CONTENTS:
        parts->kind = KVFS_KEY_CONTENTS;
        return len == 1 ? 0 : -EIO;
    case KVFS_PART_SYMLINK:
        parts->kind = KVFS_KEY_SYMLINK;
        return len == 1 ? 0 : -EIO;
    case KVFS_PART_COOKIE:
        if (len != 9)
            return -EIO;
        parts->kind = KVFS_KEY_COOKIE;
        parts->second = kvfs_be64_get(part + 1);
        return parts->second >= KVFS_COOKIE_MIN ? 0 : -EIO;
    case KVFS_PART_DENTRY:
        parts->kind = KVFS_KEY_DENTRY;
        return key_parse_named(part + 1, len - 1, parts);
    case KVFS_PART_XATTR:
        parts->kind = KVFS_KEY_XATTR;
        return key_parse_named(part + 1, len - 1, parts);
    default:
        return -EIO;
    }
}

/* Letters followed by a number that is never 0, or by that and a second one. */
static int
key_parse_numbers(uint8_t letter, size_t len, struct kvfs_key_parts *parts)
{
    size_t want = 9;

    switch (letter) {
    case 'O':
        parts->kind = KVFS_KEY_ORPHAN;
        break;
    case 'G':
        parts->kind = KVFS_KEY_DEAD;
        break;
    case 'T':
        parts->kind = KVFS_KEY_PENDING;
        break;
    case 'H':
        parts->kind = KVFS_KEY_HOLE;
        want = 17;
        break;
    case 'V':
        parts->kind = KVFS_KEY_OVER;
        want = 17;
        break;
    default:
        return -EIO;
    }
    return len == want && parts->id != 0 ? 0 : -EIO;
}

int
kvfs_key_parse(const void *key, size_t len, struct kvfs_key_parts *parts)
{
    const uint8_t *k = key;
    struct kvfs_key_parts p = {.kind = KVFS_KEY_SUPER};
    int rc;

    if (len < 1 || len > KVFS_KEY_MAX)
        return -EIO;
    if (len >= 9)
        p.id = kvfs_be64_get(k + 1);
    if (len == 17)
        p.second = kvfs_be64_get(k + 9);
    switch (k[0]) {
    case 'S':
        rc = len == 1 ? 0 : -EIO;
        break;
    case 'C':
        p.kind = KVFS_KEY_COUNTER;
        rc = len == 2 && k[1] <= KVFS_COUNTER_MOVES ? 0 : -EIO;
        p.second = len == 2 ? k[1] : 0;
        break;
    case 'I':
        p.second = 0;
        rc = len >= 10 ? key_parse_inode(k + 9, len - 9, &p) : -EIO;
        break;
    default:
        rc = key_parse_numbers(k[0], len, &p);
        break;
    }
    if (rc == 0)
        *parts = p;
    return rc;
}
