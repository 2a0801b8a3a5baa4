/* SPDX-License-Identifier: BSD-3-Clause
 *
 * block.c - the trailer of a DATA record (docs/FORMAT.md, "DATA").
 *
 *   0  codec (1)   1  version (1)   2  trailer check (2)   4  raw_len (4)
 *   8  cut (8)    16  checksum (8)
 *
 * Invariants:
 *  1. `checksum` covers the DATA key, the stored bytes and all other fields, so
 *     a block that lies under another's key, or an older one's trailer, is found.
 *  2. `trailer check` covers the trailer alone: who reads trailers without their
 *     blocks (work on holes) must not trust a flipped bit in `cut`, or it would
 *     delete a live block.
 *  3. Sealing and checking hash the bytes once, with the one-shot XXH3, and fold
 *     the rest in with a second hash of 40 bytes: both lie on the hot path.
 */
#include <errno.h>
#include <xxhash.h>

#include <kvfs/volume.h>

#include "bytes.h"
#include "record.h"

enum {
    BLOCK_CODEC = 0,
    BLOCK_VERSION = 1,
    BLOCK_CHECK = 2,
    BLOCK_RAW_LEN = 4,
    BLOCK_CUT = 8,
    BLOCK_CHECKSUM = 16
};

#define BLOCK_TRAILER_VERSION 1

/* T's first 16 bytes with the check left 0. */
static uint64_t
block_checksum(const uint8_t *t, const uint8_t *key, const void *bytes, size_t len)
{
    uint8_t all[KVFS_DATA_KEY_LEN + BLOCK_CHECKSUM + 8];

    memcpy(all, key, KVFS_DATA_KEY_LEN);
    memcpy(all + KVFS_DATA_KEY_LEN, t, BLOCK_CHECKSUM);
    kvfs_be16_put(all + KVFS_DATA_KEY_LEN + BLOCK_CHECK, 0);
    kvfs_be64_put(all + KVFS_DATA_KEY_LEN + BLOCK_CHECKSUM, XXH3_64bits(bytes, len));
    return XXH3_64bits(all, sizeof(all));
}

static uint16_t
block_trailer_check(const uint8_t *trailer)
{
    uint8_t t[KVFS_TRAILER_LEN];

    memcpy(t, trailer, sizeof(t));
    kvfs_be16_put(t + BLOCK_CHECK, 0);
    return (uint16_t)XXH3_64bits(t, sizeof(t));
}

void
kvfs_block_seal(uint8_t trailer[KVFS_TRAILER_LEN], const uint8_t key[KVFS_DATA_KEY_LEN],
                const void *bytes, size_t len, uint64_t cut)
{
    trailer[BLOCK_CODEC] = KVFS_CODEC_RAW;
    trailer[BLOCK_VERSION] = BLOCK_TRAILER_VERSION;
    kvfs_be16_put(trailer + BLOCK_CHECK, 0);
    kvfs_be32_put(trailer + BLOCK_RAW_LEN, (uint32_t)len);
    kvfs_be64_put(trailer + BLOCK_CUT, cut);
    kvfs_be64_put(trailer + BLOCK_CHECKSUM, block_checksum(trailer, key, bytes, len));
    kvfs_be16_put(trailer + BLOCK_CHECK, block_trailer_check(trailer));
}

/* A block of zeros is stored as a trailer alone where absence means another. */
static bool
block_raw_len_valid(uint32_t raw_len)
{
    return raw_len == 0 || (raw_len >= KVFS_BLOCK_SIZE_MIN && raw_len <= KVFS_BLOCK_SIZE_MAX &&
                            (raw_len & (raw_len - 1)) == 0);
}

int
kvfs_trailer_decode(struct kvfs_trailer *t, const uint8_t trailer[KVFS_TRAILER_LEN])
{
    uint32_t raw_len = kvfs_be32_get(trailer + BLOCK_RAW_LEN);

    if (kvfs_be16_get(trailer + BLOCK_CHECK) != block_trailer_check(trailer))
        return -EIO;
    if (trailer[BLOCK_VERSION] > BLOCK_TRAILER_VERSION || trailer[BLOCK_CODEC] != KVFS_CODEC_RAW)
        return -ENOTSUP;
    if (trailer[BLOCK_VERSION] == 0 || !block_raw_len_valid(raw_len))
        return -EIO;
    t->codec = trailer[BLOCK_CODEC];
    t->raw_len = raw_len;
    t->cut = kvfs_be64_get(trailer + BLOCK_CUT);
    t->checksum = kvfs_be64_get(trailer + BLOCK_CHECKSUM);
    return 0;
}

int
kvfs_block_check(struct kvfs_trailer *t, const uint8_t trailer[KVFS_TRAILER_LEN],
                 const uint8_t key[KVFS_DATA_KEY_LEN], const void *bytes, size_t len)
{
    struct kvfs_trailer found;
    int rc = kvfs_trailer_decode(&found, trailer);

    if (rc != 0)
        return rc;
    if (found.raw_len != len || found.checksum != block_checksum(trailer, key, bytes, len))
        return -EIO;
    *t = found;
    return 0;
}
