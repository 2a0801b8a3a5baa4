/* SPDX-License-Identifier: BSD-3-Clause */
#include <kvfs/engine.h>

extern const struct kvfs_engine kvfs_engine_lmdb;
const struct kvfs_engine kvfs_engine_lmdb = {.abi = KVFS_ENGINE_ABI, .name = "lmdb"};
