/* SPDX-License-Identifier: BSD-3-Clause
 *
 * writeback.h - the kernel's writeback, hastened.
 *
 * The kernel may write a dirty page to the disk at any time; left alone it waits for seconds,
 * longer than a workload here takes, and pages would reach the disk in the order of
 * the engine's syncs only.  A process of its own starts writing out random files of the
 * volume's folder, without waiting and without any flush.
 */
#ifndef CRASHSIM_WRITEBACK_H
#define CRASHSIM_WRITEBACK_H

#include <stdint.h>
#include <sys/types.h>

/* End it with tool_end(pid, SIGKILL), before the file system is unmounted. */
pid_t writeback_start(const char *folder, uint64_t seed);

#endif /* CRASHSIM_WRITEBACK_H */
