/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fault_engine.h - the hooks of fault_engine.c, found with dlsym().
 */
#ifndef FAULT_ENGINE_H
#define FAULT_ENGINE_H

#include <kvfs/engine.h>

/* Called before the engine's own; a negative answer is returned instead. */
struct fault_hooks {
    int (*apply)(const struct kvfs_batch *batch, enum kvfs_durability durability);
    int (*sync)(void);
    int (*begin)(void);
    int (*applied)(int rc); /* after it: what is answered instead of RC */
};

extern struct fault_hooks kvfs_fault_hooks;
extern struct kvfs_engine kvfs_engine_plugin;

#endif /* FAULT_ENGINE_H */
