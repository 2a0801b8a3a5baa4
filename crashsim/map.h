/* SPDX-License-Identifier: BSD-3-Clause
 *
 * map.h - disjoint ranges of a disk, each with a number.
 *
 * What a range was given last is what it has; a range that was never given one, or was erased,
 * has none.  Every call costs O(log n) for each range that it touches, whatever their length.
 */
#ifndef CRASHSIM_MAP_H
#define CRASHSIM_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct crashsim_map_node;

struct crashsim_map {
    struct crashsim_map_node *root;
    size_t count;    /* of ranges */
    uint64_t random; /* shapes the tree, nothing else */
};

#define CRASHSIM_MAP_NODE_BYTES 64 /* about what a range costs, with the allocator's share */

struct crashsim_range {
    uint64_t start, end; /* [start, end) */
    uint64_t value;
};

/* Zeroed memory is an empty map. */
void crashsim_map_reset(struct crashsim_map *m);

/* 0, or -ENOMEM and nothing changed. */
int crashsim_map_set(struct crashsim_map *m, uint64_t start, uint64_t end, uint64_t value);
int crashsim_map_erase(struct crashsim_map *m, uint64_t start, uint64_t end);

/* The first range that ends behind AT. */
bool crashsim_map_next(const struct crashsim_map *m, uint64_t at, struct crashsim_range *range);

#endif /* CRASHSIM_MAP_H */
