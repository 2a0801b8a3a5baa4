/* SPDX-License-Identifier: BSD-3-Clause
 *
 * data.h - what the blocks of a load hold.
 *
 * A block begins with a word that tells its place, so that a read is known to be of the right
 * block whoever wrote it last; then come bytes that nothing can compress.  With `half`, the
 * second half of every 4 KiB is zeros: a compressor makes 2 of it 1, whatever unit it works in.
 */
#ifndef KVFS_LOAD_DATA_H
#define KVFS_LOAD_DATA_H

#include <stdbool.h>
#include <stdint.h>

struct load_dataset {
    uint64_t blocks;
    uint32_t block_bytes; /* a multiple of 4 KiB */
    bool half;
    bool sparse; /* not every block was written: what was not reads as zeros */
    uint64_t seed;
};

/* Bytes for COUNT blocks from INDEX on; STATE as random_next(). */
void load_data_make(const struct load_dataset *d, uint64_t index, uint32_t count, uint64_t *state,
                    uint8_t *bytes);

/* Are BYTES blocks of these places?  Zeros are, where SPARSE. */
bool load_data_right(const struct load_dataset *d, uint64_t index, uint32_t count,
                     const uint8_t *bytes);

#endif /* KVFS_LOAD_DATA_H */
