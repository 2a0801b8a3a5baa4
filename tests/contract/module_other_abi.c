/* SPDX-License-Identifier: BSD-3-Clause
 *
 * An engine of a later interface: nothing but the version may be looked at, so
 * there is nothing else.
 */
#include <kvfs/engine.h>

extern const uint32_t kvfs_engine_plugin;
const uint32_t kvfs_engine_plugin = KVFS_ENGINE_ABI + 41;
