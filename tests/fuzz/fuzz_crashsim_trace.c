/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fuzz_crashsim_trace.c - a trace of any bytes is refused, or its events can be done one after the
 * other to a tree in memory.
 */
#include <stdlib.h>

#include "../../crashsim/cmd/trace_file.h"
#include "../../crashsim/cmd/tree.h"

#define FUZZ_FILE_MAX (UINT64_C(1) << 24)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char error[TRACE_ERROR];
    struct trace_file file;
    struct tree tree;
    int r = 0;

    if (trace_file_read(data, size, &file, error) < 0)
        return 0;
    if (tree_open(&tree, file.objects) == 0) {
        for (uint32_t i = 0; r == 0 && i < file.count; i++) {
            const struct trace_event *e = &file.events[i];

            if (e->offset < FUZZ_FILE_MAX && e->count < FUZZ_FILE_MAX)
                r = tree_apply(&tree, e);
        }
        (void)tree_hash(&tree, &tree, &tree);
        tree_close(&tree);
    }
    trace_file_close(&file);
    return 0;
}
