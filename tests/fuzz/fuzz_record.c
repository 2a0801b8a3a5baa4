/* SPDX-License-Identifier: BSD-3-Clause
 *
 * META records: whatever the bytes, a decoder answers 0, -EIO or -ENOTSUP, reads
 * nothing beside them, and what it took encodes to the same bytes again.
 *
 * FUZZ_KIND (enum kvfs_key_kind) keeps a target to one kind; without it, all.
 * The input is described in samples.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../../kvfs/bytes.h"
#include "samples.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
must(bool holds)
{
    if (!holds)
        abort();
}

static bool
answer_allowed(int rc)
{
    return rc == -EIO || rc == -ENOTSUP;
}

/* All decoders but the one that belongs to the key refuse. */
static void
decode_as_all(const struct kvfs_key *key, const uint8_t *value, size_t len)
{
    struct kvfs_super super;
    struct kvfs_inode_record inode;
    struct kvfs_contents_record contents;
    struct kvfs_dentry_record dentry;
    struct kvfs_hole_record hole;
    struct kvfs_over_record over;
    struct kvfs_pending_record pending;
    const void *bytes;
    size_t bytes_len;
    uint64_t n;
    int taken = 0;

    taken += kvfs_super_decode(&super, key, value, len) == 0;
    taken += kvfs_inode_decode(&inode, key, value, len) == 0;
    taken += kvfs_contents_decode(&contents, key, value, len) == 0;
    taken += kvfs_dentry_decode(&dentry, key, value, len) == 0;
    taken += kvfs_hole_decode(&hole, key, value, len) == 0;
    taken += kvfs_over_decode(&over, key, value, len) == 0;
    taken += kvfs_pending_decode(&pending, key, value, len) == 0;
    taken += kvfs_number_decode(&n, key, value, len) == 0;
    taken += kvfs_bytes_decode(&bytes, &bytes_len, key, value, len) == 0;
    must(taken <= 1);
}

static void
fuzz_one(const struct kvfs_key *key, const uint8_t *value, size_t len)
{
    static uint8_t out[KVFS_RECORD_MAX];
    size_t out_len = 0;
    int rc = sample_recode(key, value, len, out, &out_len);

    if (rc == 0)
        must(out_len == len && memcmp(out, value, len) == 0);
    else
        must(answer_allowed(rc));
    decode_as_all(key, value, len);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kvfs_key_parts parts;
    struct kvfs_key key;
    uint8_t *value;
    size_t len;

    if (size < 3)
        return 0;
    key.len = kvfs_be16_get(data + 1);
    if (key.len > KVFS_KEY_MAX || key.len > size - 3)
        return 0;
    memcpy(key.bytes, data + 3, key.len);
    if (kvfs_key_parse(key.bytes, key.len, &parts) != 0)
        return 0;
#ifdef FUZZ_KIND
    if (parts.kind != FUZZ_KIND)
        return 0;
#endif
    len = size - 3 - key.len;
    value = malloc(len > 0 ? len : 1); /* of its own, so that a sanitizer sees its end */
    must(value != NULL);
    memcpy(value, data + 3 + key.len, len);
    if ((data[0] & 1) != 0 && len >= 10)
        sample_mend(&key, value, len);
    fuzz_one(&key, value, len);
    free(value);
    return 0;
}
