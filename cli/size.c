/* SPDX-License-Identifier: BSD-3-Clause
 *
 * size.c - sizes as people write them.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

int
cli_size_parse(const char *text, uint64_t *bytes)
{
    static const char units[] = "KMGTPE";
    uint64_t n = 0;
    unsigned shift = 0;
    const char *p = text, *unit;

    if (*p < '0' || *p > '9')
        return -EINVAL;
    for (; *p >= '0' && *p <= '9'; p++) {
        if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, *p - '0', &n))
            return -ERANGE;
    }
    if (*p != '\0') {
        char upper = (char)(*p >= 'a' && *p <= 'z' ? *p - 'a' + 'A' : *p);

        unit = strchr(units, upper);
        if (unit == NULL)
            return -EINVAL;
        p++;
        if (*p != '\0' && strcmp(p, "iB") != 0)
            return -EINVAL;
        shift = 10 * ((unsigned)(unit - units) + 1);
    }
    if (n > KVFS_FILE_SIZE_MAX >> shift)
        return -ERANGE;
    *bytes = n << shift;
    return 0;
}

const char *
cli_size_text(uint64_t bytes, char *buf)
{
    static const char units[] = " KMGTPE";
    unsigned unit = 0;
    double n = (double)bytes;

    while (n >= 1024 && unit < sizeof(units) - 2) {
        n /= 1024;
        unit++;
    }
    if (unit == 0)
        (void)snprintf(buf, CLI_SIZE_TEXT, "%u B", (unsigned)bytes);
    else
        (void)snprintf(buf, CLI_SIZE_TEXT, "%.*f %ciB", n < 10 ? 1 : 0, n, units[unit]);
    return buf;
}

int
cli_size_any(const struct cli *c, const char *what, const char *text, uint64_t *bytes)
{
    int rc = cli_size_parse(text, bytes);

    if (rc == -ERANGE)
        (void)cli_error(c, "%s: %s is beyond the largest size, 8 EiB - 1", what, text);
    else if (rc < 0)
        (void)cli_error(c, "%s: '%s' is not a size (like 512, 4K, 10G, 1T)", what, text);
    return rc < 0 ? CLI_USAGE : CLI_OK;
}

int
cli_size_disk(const struct cli *c, const char *what, const char *text, uint64_t *bytes)
{
    uint64_t n = 0;

    if (cli_size_any(c, what, text, &n) != CLI_OK)
        return CLI_USAGE;
    if (n == 0)
        (void)cli_error(c, "%s: a disk cannot have size 0", what);
    else if (n % 512 != 0)
        (void)cli_error(c, "%s: %s is not a multiple of 512", what, text);
    else {
        *bytes = n;
        return CLI_OK;
    }
    return CLI_USAGE;
}

int
cli_size_block(const struct cli *c, uint32_t *bytes)
{
    const char *text = c->o.block_size;
    uint64_t n = 0;

    *bytes = 0;
    if (text == NULL)
        return CLI_OK;
    if (cli_size_parse(text, &n) < 0 || n < KVFS_BLOCK_SIZE_MIN || n > KVFS_BLOCK_SIZE_MAX ||
        (n & (n - 1)) != 0) {
        (void)cli_error(c, "--block-size: '%s' is not a power of two from %u to %u", text,
                        KVFS_BLOCK_SIZE_MIN, KVFS_BLOCK_SIZE_MAX);
        return CLI_USAGE;
    }
    *bytes = (uint32_t)n;
    return CLI_OK;
}
