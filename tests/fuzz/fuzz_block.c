/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Blocks and their trailers: what is taken seals to the same trailer again.  The
 * input is described in samples.h; the key has 16 bytes.
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

static void
fuzz_one(const uint8_t *key, const uint8_t *bytes, size_t len, const uint8_t *trailer)
{
    uint8_t again[KVFS_TRAILER_LEN];
    struct kvfs_trailer t, whole;
    int rc = kvfs_trailer_decode(&t, trailer);

    must(rc == 0 || rc == -EIO || rc == -ENOTSUP);
    if (rc != 0) {
        must(kvfs_block_check(&whole, trailer, key, bytes, len) == rc);
        return;
    }
    if (kvfs_block_check(&whole, trailer, key, bytes, len) != 0)
        return;
    must(whole.raw_len == len && whole.cut == t.cut && whole.checksum == t.checksum);
    kvfs_block_seal(again, key, bytes, len, whole.cut);
    must(memcmp(again, trailer, KVFS_TRAILER_LEN) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const size_t head = 3 + KVFS_DATA_KEY_LEN;
    uint8_t *bytes, trailer[KVFS_TRAILER_LEN];
    size_t len;

    if (size < head + KVFS_TRAILER_LEN)
        return 0;
    len = size - head - KVFS_TRAILER_LEN;
    bytes = malloc(size - head);
    must(bytes != NULL);
    memcpy(bytes, data + head, size - head);
    if ((data[0] & 1) != 0)
        sample_mend_block(data + 3, bytes, size - head);
    memcpy(trailer, bytes + len, sizeof(trailer));
    fuzz_one(data + 3, bytes, len, trailer);
    free(bytes);
    return 0;
}
