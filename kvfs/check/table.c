/* SPDX-License-Identifier: BSD-3-Clause
 *
 * table.c - a hash table of numbered things, for the checker.
 *
 * Items lie in one array in the order they were added; the slots hold indexes
 * into it, with linear probing, and are at most half full.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "check_priv.h"

void
kvfs_check_table_init(struct check_table *t, size_t item_size)
{
    *t = (struct check_table){.item_size = item_size};
}

void
kvfs_check_table_free(struct check_table *t)
{
    free(t->items);
    free(t->slots);
    t->items = NULL;
    t->slots = NULL;
}

void *
kvfs_check_table_at(const struct check_table *t, size_t index)
{
    assert(index < t->count);
    return (char *)t->items + index * t->item_size;
}

static uint64_t
table_key(const struct check_table *t, size_t index)
{
    uint64_t key;

    memcpy(&key, kvfs_check_table_at(t, index), sizeof(key));
    return key;
}

/* The slot of KEY, or the free one where it belongs. */
static size_t
table_slot(const struct check_table *t, uint64_t key)
{
    size_t mask = t->slot_count - 1;
    size_t s = (size_t)((key * UINT64_C(0x9e3779b97f4a7c15)) >> 20) & mask;

    while (t->slots[s] != 0 && table_key(t, t->slots[s] - 1) != key)
        s = (s + 1) & mask;
    return s;
}

void *
kvfs_check_table_find(const struct check_table *t, uint64_t key)
{
    size_t s;

    if (t->slot_count == 0)
        return NULL;
    s = table_slot(t, key);
    return t->slots[s] == 0 ? NULL : kvfs_check_table_at(t, t->slots[s] - 1);
}

static bool
table_grow(struct check_table *t)
{
    if (t->count == t->cap) {
        size_t cap = t->cap == 0 ? 64 : t->cap + t->cap / 2;
        void *items = cap < UINT32_MAX ? realloc(t->items, cap * t->item_size) : NULL;

        if (items == NULL)
            return false;
        t->items = items;
        t->cap = cap;
    }
    if ((t->count + 1) * 2 > t->slot_count) {
        size_t slot_count = t->slot_count == 0 ? 128 : t->slot_count * 2;
        uint32_t *slots = calloc(slot_count, sizeof(*slots));

        if (slots == NULL)
            return false;
        free(t->slots);
        t->slots = slots;
        t->slot_count = slot_count;
        for (size_t i = 0; i < t->count; i++)
            t->slots[table_slot(t, table_key(t, i))] = (uint32_t)(i + 1);
    }
    return true;
}

void *
kvfs_check_table_add(struct check_table *t, uint64_t key)
{
    void *item = kvfs_check_table_find(t, key);

    assert(key != 0);
    if (item != NULL)
        return item;
    if (!table_grow(t))
        return NULL;
    assert(t->items != NULL);
    item = (char *)t->items + t->count * t->item_size;
    memset(item, 0, t->item_size);
    memcpy(item, &key, sizeof(key));
    t->count++;
    t->slots[table_slot(t, key)] = (uint32_t)t->count;
    return item;
}
