/* SPDX-License-Identifier: BSD-3-Clause
 *
 * META keys: what parses is built again to the same bytes.  The input is a key.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "samples.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kvfs_key_parts parts;
    struct kvfs_key again;
    int rc = kvfs_key_parse(data, size, &parts);

    if (rc != 0) {
        if (rc != -EIO)
            abort();
        return 0;
    }
    sample_key(&parts, &again);
    if (again.len != size || memcmp(again.bytes, data, size) != 0)
        abort();
    return 0;
}
