/* SPDX-License-Identifier: BSD-3-Clause
 *
 * model.h - what a store must hold: two sorted arrays, searched in the plainest
 * way.  It shares nothing with any engine.  Out of memory ends the process.
 */
#ifndef KVFS_CONTRACT_MODEL_H
#define KVFS_CONTRACT_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <kvfs/engine.h>

struct model_value { /* shared by clones */
    unsigned refs;
    size_t len;
    uint8_t bytes[];
};

struct model_entry {
    size_t key_len;
    uint8_t key[KVFS_META_KEY_MAX];
    struct model_value *value;
};

struct model {
    struct model_entry *entries[2]; /* by keyspace, sorted */
    size_t count[2], cap[2];
};

struct model *model_new(void);
struct model *model_clone(const struct model *m);
void model_free(struct model *m);

/* Position of the first entry whose key is not before KEY. */
size_t model_lower(const struct model *m, int ks, const void *key, size_t key_len);
/* The entry of KEY or NULL. */
const struct model_entry *model_find(const struct model *m, int ks, const void *key,
                                     size_t key_len);

/* Apply a valid batch: 0, or -EAGAIN and nothing changed. */
int model_apply(struct model *m, const struct kvfs_batch *batch);

/* Negative, 0 or positive; a prefix before its extensions. */
int model_compare(const void *a, size_t a_len, const void *b, size_t b_len);

#endif /* KVFS_CONTRACT_MODEL_H */
