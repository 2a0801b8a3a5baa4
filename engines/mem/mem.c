/* SPDX-License-Identifier: BSD-3-Clause */
#include <kvfs/engine.h>

extern const struct kvfs_engine kvfs_engine_mem;
const struct kvfs_engine kvfs_engine_mem = {.abi = KVFS_ENGINE_ABI, .name = "mem"};
