/* SPDX-License-Identifier: BSD-3-Clause
 *
 * samples.h - one fixed record of every kind, for golden tests and fuzz corpora.
 *
 * A sample is stored in tests/fuzz/corpus/TARGET/NAME as
 *   mend (1)  key length (2)  key  value
 * which is also the input of the fuzz targets.  MEND 1 tells a target to put
 * right the checksum first, so that mutations reach the decoders.
 */
#ifndef KVFS_SAMPLES_H
#define KVFS_SAMPLES_H

#include <stddef.h>
#include <stdint.h>

#include "../../kvfs/record.h"

struct sample {
    const char *target; /* folder of the corpus */
    const char *name;
    struct kvfs_key key;
    const uint8_t *value; /* of a block: the bytes and then the trailer */
    size_t len;
};

/* Call FN for each sample; it may not keep the value. */
void sample_each(void (*fn)(void *arg, const struct sample *s), void *arg);

/* Decode VALUE as what KEY says and encode it again into OUT (KVFS_RECORD_MAX).
 * 0: *out_len is set; else what the decoder answered.  KEY parses. */
int sample_recode(const struct kvfs_key *key, const void *value, size_t len, uint8_t *out,
                  size_t *out_len);

/* Put right the checksum of a META record (LEN >= 10), by the text of
 * docs/FORMAT.md and not by the code under test. */
void sample_mend(const struct kvfs_key *key, uint8_t *value, size_t len);

/* The same for a DATA record: the block's bytes and a trailer. */
void sample_mend_block(const uint8_t key[KVFS_DATA_KEY_LEN], uint8_t *value, size_t len);

/* Build the key that PARTS describe. */
void sample_key(const struct kvfs_key_parts *parts, struct kvfs_key *key);

#endif /* KVFS_SAMPLES_H */
