/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Fuzzes the plugin's parameters.  The input is a list of lines "key=value", as
 * on a command line.  What was accepted must lie in the range that the manual
 * states, and what was refused must have left one line.
 */
#include <stdlib.h>
#include <string.h>

#include "../../plugin/cmdline.h"
#include "../../plugin/params.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
must(int condition)
{
    if (!condition)
        abort();
}

static void
check_line(int r, const struct kvfs_error *err)
{
    if (r == 0)
        return;
    must(r == err->code && r < 0 && err->msg[0] != '\0');
    must(strpbrk(err->msg, "\r\n") == NULL);
}

static void
check_params(const struct kparams *p)
{
    struct kvfs_error err = {0};

    must(p->create_bytes % 512 == 0 && p->create_bytes <= KVFS_FILE_SIZE_MAX);
    must((p->block_size_bytes & (p->block_size_bytes - 1)) == 0);
    must(p->block_size_bytes == 0 || (p->block_size_bytes >= KVFS_BLOCK_SIZE_MIN &&
                                      p->block_size_bytes <= KVFS_BLOCK_SIZE_MAX));
    must(p->cache_bytes == 0 || p->cache_bytes >= KVFS_CACHE_BYTES_MIN);
    must(p->commit_interval_ms <= 3600000);
    must(p->file == NULL || (strlen(p->file) <= KPARAMS_NAME_MAX && p->file[0] != '\0'));
    check_line(kparams_complete(p, &err), &err);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kparams params = {0};
    struct kcmdline nbdkit;
    char *text = malloc(size + 1), *line = text, *end;

    must(text != NULL);
    memcpy(text, data, size);
    text[size] = '\0';
    while (line < text + size) {
        struct kvfs_error err = {0};
        char *value;

        end = line + strcspn(line, "\n");
        *end = '\0';
        value = strchr(line, '=');
        if (value != NULL) {
            *value = '\0';
            check_line(kparams_set(&params, line, value + 1, &err), &err);
        }
        line = end + 1;
    }
    check_params(&params);
    kcmdline_parse(text, size, &nbdkit);
    must(nbdkit.user == NULL || (nbdkit.user > text && nbdkit.user < text + size));
    free(text);
    return 0;
}
