/* SPDX-License-Identifier: BSD-3-Clause
 *
 * bytes.h - big-endian integers in byte strings of any alignment.
 */
#ifndef KVFS_BYTES_H
#define KVFS_BYTES_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

static inline void
kvfs_be16_put(uint8_t *p, uint16_t n)
{
    n = htobe16(n);
    memcpy(p, &n, sizeof(n));
}

static inline void
kvfs_be32_put(uint8_t *p, uint32_t n)
{
    n = htobe32(n);
    memcpy(p, &n, sizeof(n));
}

static inline void
kvfs_be64_put(uint8_t *p, uint64_t n)
{
    n = htobe64(n);
    memcpy(p, &n, sizeof(n));
}

static inline uint16_t
kvfs_be16_get(const uint8_t *p)
{
    uint16_t n;

    memcpy(&n, p, sizeof(n));
    return be16toh(n);
}

static inline uint32_t
kvfs_be32_get(const uint8_t *p)
{
    uint32_t n;

    memcpy(&n, p, sizeof(n));
    return be32toh(n);
}

static inline uint64_t
kvfs_be64_get(const uint8_t *p)
{
    uint64_t n;

    memcpy(&n, p, sizeof(n));
    return be64toh(n);
}

#endif /* KVFS_BYTES_H */
