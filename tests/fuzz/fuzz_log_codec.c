/* SPDX-License-Identifier: BSD-3-Clause
 *
 * A log record's operations: whatever the bytes are, decoding answers 0 or -EINVAL, and what was
 * taken is encoded to the same bytes again.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../../engines/log/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
must(bool holds)
{
    if (!holds)
        abort();
}

struct again {
    uint8_t *bytes;
    size_t len;
};

static int
again_op(void *arg, const struct kvfs_op *op)
{
    const struct kvfs_batch batch = {.ops = op, .ops_count = 1};
    struct again *a = arg;
    size_t len = kvfs_log_encoded(&batch);

    must(kvfs_log_encode(&batch, a->bytes + a->len) == a->bytes + a->len + len);
    a->len += len;
    return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct again a = {.bytes = malloc(size + 1)};
    int rc;

    must(a.bytes != NULL);
    rc = kvfs_log_decode(data, size, again_op, &a);
    must(rc == 0 || rc == -EINVAL);
    must(memcmp(a.bytes, data, a.len) == 0 && (rc != 0 || a.len == size));
    free(a.bytes);
    return 0;
}
