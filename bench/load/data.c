/* SPDX-License-Identifier: BSD-3-Clause */
#include <string.h>

#include "data.h"
#include "random.h"

#define DATA_PIECE 4096u

static uint64_t
data_mark(const struct load_dataset *d, uint64_t index)
{
    uint64_t state = d->seed ^ (index << 8 | 0xb5);

    return random_next(&state);
}

static void
data_random(uint8_t *bytes, uint32_t count, uint64_t *state)
{
    uint64_t word;

    for (uint32_t at = 0; at < count; at += sizeof(word)) {
        word = random_next(state);
        memcpy(bytes + at, &word, sizeof(word));
    }
}

void
load_data_make(const struct load_dataset *d, uint64_t index, uint32_t count, uint64_t *state,
               uint8_t *bytes)
{
    const uint32_t random = d->half ? DATA_PIECE / 2 : DATA_PIECE;

    for (uint32_t i = 0; i < count; i++, bytes += d->block_bytes) {
        uint64_t mark = data_mark(d, index + i);

        for (uint32_t at = 0; at < d->block_bytes; at += DATA_PIECE) {
            data_random(bytes + at, random, state);
            memset(bytes + at + random, 0, DATA_PIECE - random);
        }
        memcpy(bytes, &mark, sizeof(mark));
    }
}

bool
load_data_right(const struct load_dataset *d, uint64_t index, uint32_t count,
                const uint8_t *bytes)
{
    for (uint32_t i = 0; i < count; i++, bytes += d->block_bytes) {
        uint64_t mark;

        memcpy(&mark, bytes, sizeof(mark));
        if (mark != data_mark(d, index + i) && !(d->sparse && mark == 0))
            return false;
    }
    return true;
}
