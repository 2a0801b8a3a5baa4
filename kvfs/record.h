/* SPDX-License-Identifier: BSD-3-Clause
 *
 * record.h - keys and records of the volume format (docs/FORMAT.md).
 *
 * Private to kvfs/ (and to the tests that fuzz it).  All integers big-endian.
 *
 * A META record is: kind (1 byte, equal to the key's letter or, for `I` keys, a
 * letter of its own), version (1), payload, XXH3-64 over key and all before (8).
 * A DATA record is the block's bytes and a trailer of KVFS_TRAILER_LEN bytes.
 * The trailer comes last so that an engine that splits values keeps it with
 * the key: work on holes reads trailers only.
 *
 * Decoders take any bytes.  They answer -EIO for a record that is damaged, not
 * of the kind asked for or out of range, and -ENOTSUP for a newer version.
 */
#ifndef KVFS_RECORD_H
#define KVFS_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <kvfs/engine.h>

#define KVFS_FORMAT_VERSION 1u

/* Features.  An unknown bit in incompat refuses the volume, in ro_compat
 * refuses writing it, in compat is ignored. */
#define KVFS_FEATURES_INCOMPAT 0u
#define KVFS_FEATURES_RO_COMPAT 0u

#define KVFS_KEY_MAX KVFS_META_KEY_MAX
#define KVFS_RECORD_MAX (KVFS_KEY_MAX + 66000) /* longest META value: an xattr */

struct kvfs_key { /* a META or DATA key under construction */
    uint8_t bytes[KVFS_KEY_MAX];
    size_t len;
};

/* --- keys --------------------------------------------------------------- */
enum { /* the byte behind `I ino` */
    KVFS_PART_INODE = 0x00,
    KVFS_PART_CONTENTS = 0x01,
    KVFS_PART_DENTRY = 0x10,
    KVFS_PART_COOKIE = 0x11,
    KVFS_PART_XATTR = 0x20,
    KVFS_PART_SYMLINK = 0x30,
};
/* META */
void kvfs_key_super(struct kvfs_key *k);                          /* S */
void kvfs_key_inode(struct kvfs_key *k, uint64_t ino);            /* I ino 00 */
void kvfs_key_contents(struct kvfs_key *k, uint64_t ino);         /* I ino 01 */
void kvfs_key_dentry(struct kvfs_key *k, uint64_t ino, const char *name, size_t len); /* I ino 10 name */
void kvfs_key_cookie(struct kvfs_key *k, uint64_t ino, uint64_t cookie); /* I ino 11 cookie */
void kvfs_key_xattr(struct kvfs_key *k, uint64_t ino, const char *name, size_t len); /* I ino 20 name */
void kvfs_key_symlink(struct kvfs_key *k, uint64_t ino);          /* I ino 30 */
void kvfs_key_inode_part(struct kvfs_key *k, uint64_t ino, uint8_t part); /* I ino part: a scan's edge */
void kvfs_key_orphan(struct kvfs_key *k, uint64_t ino);           /* O ino */
void kvfs_key_dead(struct kvfs_key *k, uint64_t fork);            /* G fork: delete behind */
void kvfs_key_hole(struct kvfs_key *k, uint64_t fork, uint64_t start); /* H fork start */
void kvfs_key_over(struct kvfs_key *k, uint64_t fork, uint64_t cut);   /* V fork cut: T over it */
void kvfs_key_pending(struct kvfs_key *k, uint64_t fork);         /* T fork: being written, not visible */
void kvfs_key_counter(struct kvfs_key *k, uint8_t which);         /* C which */
void kvfs_key_letter(struct kvfs_key *k, char letter);            /* one byte: a scan's edge */
/* DATA */
void kvfs_key_block(uint8_t key[KVFS_DATA_KEY_LEN], uint64_t fork, uint64_t index);
void kvfs_key_block_parse(const uint8_t key[KVFS_DATA_KEY_LEN], uint64_t *fork, uint64_t *index);

enum {
    KVFS_COUNTER_ID = 0,     /* next free number, for inodes, forks and cookies */
    KVFS_COUNTER_INODES = 1, /* inodes that have a name, the root too; so not orphans */
    KVFS_COUNTER_MOVES = 2,  /* folders that got another parent; may be missing: 0 */
};

/* A META key taken apart; -EIO for one that no version of the format has. */
enum kvfs_key_kind {
    KVFS_KEY_SUPER, KVFS_KEY_INODE, KVFS_KEY_CONTENTS, KVFS_KEY_DENTRY, KVFS_KEY_COOKIE,
    KVFS_KEY_XATTR, KVFS_KEY_SYMLINK, KVFS_KEY_ORPHAN, KVFS_KEY_DEAD, KVFS_KEY_HOLE,
    KVFS_KEY_OVER, KVFS_KEY_PENDING, KVFS_KEY_COUNTER
};
struct kvfs_key_parts {
    enum kvfs_key_kind kind;
    uint64_t id;      /* inode or fork */
    uint64_t second;  /* cookie, start, cut, counter */
    const char *name; /* dentry, xattr: points into the key; not NUL-terminated */
    size_t name_len;
};
int kvfs_key_parse(const void *key, size_t len, struct kvfs_key_parts *parts);

#define KVFS_COOKIE_MIN 3 /* smaller ones stand for the start of a folder, "." and ".." */

/* A name's bytes are allowed: 1..KVFS_NAME_MAX, no '/', no NUL. */
bool kvfs_name_valid(const char *name, size_t len);
/* It is "." or "..". */
bool kvfs_name_is_dots(const char *name, size_t len);

/* --- records -------------------------------------------------------------- */
struct kvfs_super {
    uint32_t format_version;
    uint8_t uuid[16];
    char engine[64]; /* NUL-terminated */
    uint32_t block_size_bytes;
    uint64_t features_compat, features_ro_compat, features_incompat;
};

struct kvfs_inode_record { /* I ino 00: changed by names and attributes, with expect */
    uint32_t mode, uid, gid, nlink;
    uint32_t flags; /* 0 */
    uint64_t rdev;
    uint32_t block_size_bytes; /* regular files; else 0 */
    uint64_t fork;             /* regular files; else 0 */
    uint64_t parent;           /* folders: the folder above; else 0 */
    int64_t atime_ns, mtime_ns, ctime_ns, crtime_ns; /* contents newer than ctime: theirs holds */
};

struct kvfs_contents_record { /* I ino 01: regular files, changed by who holds the lease */
    uint64_t size_bytes;
    uint64_t version; /* committed transactions */
    uint64_t cut;     /* number of the newest cut that touched the file */
    int64_t mtime_ns;
};

struct kvfs_dentry_record { /* I dir 10 name */
    uint64_t ino;
    uint64_t cookie;
    uint32_t type; /* S_IFMT part */
};

struct kvfs_hole_record { /* H fork start: blocks [start, end) of cuts before CUT read as zeros */
    uint64_t end;
    uint64_t cut;
};

struct kvfs_over_record { /* V fork cut: as of CUT, the extents and holes of fork TOP lie over it */
    uint64_t top;
};

struct kvfs_pending_record { /* T fork */
    uint64_t ino; /* whose lease protects it */
};

/* Encoders write into VALUE (cap KVFS_SMALL_RECORD_MAX unless told) and return
 * the length.  The key is part of the checksum. */
#define KVFS_SMALL_RECORD_MAX 256
size_t kvfs_super_encode(const struct kvfs_super *r, const struct kvfs_key *k, uint8_t *value);
size_t kvfs_inode_encode(const struct kvfs_inode_record *r, const struct kvfs_key *k, uint8_t *value);
size_t kvfs_contents_encode(const struct kvfs_contents_record *r, const struct kvfs_key *k, uint8_t *value);
size_t kvfs_dentry_encode(const struct kvfs_dentry_record *r, const struct kvfs_key *k, uint8_t *value);
size_t kvfs_hole_encode(const struct kvfs_hole_record *r, const struct kvfs_key *k, uint8_t *value);
size_t kvfs_over_encode(const struct kvfs_over_record *r, const struct kvfs_key *k, uint8_t *value);
size_t kvfs_pending_encode(const struct kvfs_pending_record *r, const struct kvfs_key *k, uint8_t *value);
size_t kvfs_number_encode(uint64_t n, const struct kvfs_key *k, uint8_t *value); /* orphan, dead, counter */
/* cookie (the name), symlink (the target), xattr (the value): bytes; VALUE holds LEN + 16 */
size_t kvfs_bytes_encode(const void *bytes, size_t len, const struct kvfs_key *k, uint8_t *value);

int kvfs_super_decode(struct kvfs_super *r, const struct kvfs_key *k, const void *value, size_t len);
int kvfs_inode_decode(struct kvfs_inode_record *r, const struct kvfs_key *k, const void *value, size_t len);
int kvfs_contents_decode(struct kvfs_contents_record *r, const struct kvfs_key *k, const void *value, size_t len);
int kvfs_dentry_decode(struct kvfs_dentry_record *r, const struct kvfs_key *k, const void *value, size_t len);
int kvfs_hole_decode(struct kvfs_hole_record *r, const struct kvfs_key *k, const void *value, size_t len);
int kvfs_over_decode(struct kvfs_over_record *r, const struct kvfs_key *k, const void *value, size_t len);
int kvfs_pending_decode(struct kvfs_pending_record *r, const struct kvfs_key *k, const void *value, size_t len);
int kvfs_number_decode(uint64_t *n, const struct kvfs_key *k, const void *value, size_t len);
/* *bytes points into VALUE. */
int kvfs_bytes_decode(const void **bytes, size_t *bytes_len, const struct kvfs_key *k, const void *value, size_t len);

/* Write kind, version and checksum anew over a damaged record of LEN bytes, so that the
 * checker may decode what is left of it; nothing happens to one that is too short. */
void kvfs_record_reseal(const struct kvfs_key *k, uint8_t *value, size_t len);

/* --- blocks --------------------------------------------------------------- */
#define KVFS_TRAILER_LEN 24
enum { KVFS_CODEC_RAW = 0 };

struct kvfs_trailer {
    uint8_t codec;     /* KVFS_CODEC_* */
    uint32_t raw_len;  /* bytes of the block when decoded: the block size; 0: zeros, marked */
    uint64_t cut;      /* number of the cut that wrote it */
    uint64_t checksum; /* XXH3-64 over key, the stored bytes and the trailer's other fields */
};

/* Make the trailer of a block of LEN stored bytes; LEN 0 (BYTES may be NULL)
 * marks a block of zeros in a fork that lies over another. */
void kvfs_block_seal(uint8_t trailer[KVFS_TRAILER_LEN], const uint8_t key[KVFS_DATA_KEY_LEN],
                     const void *bytes, size_t len, uint64_t cut);
/* Decode without looking at the block: -EIO if the trailer cannot be one. */
int kvfs_trailer_decode(struct kvfs_trailer *t, const uint8_t trailer[KVFS_TRAILER_LEN]);
/* Decode and check against the block's bytes; -EIO on a mismatch. */
int kvfs_block_check(struct kvfs_trailer *t, const uint8_t trailer[KVFS_TRAILER_LEN],
                     const uint8_t key[KVFS_DATA_KEY_LEN], const void *bytes, size_t len);

#endif /* KVFS_RECORD_H */
