/* SPDX-License-Identifier: BSD-3-Clause
 *
 * quit.h - hearing at once that nbdkit is told to end.
 */
#ifndef KVFS_PLUGIN_QUIT_H
#define KVFS_PLUGIN_QUIT_H

/* From .after_fork on: listen to the signals that end nbdkit. */
void kquit_watch(void);

/* Wait for such a signal, or for kquit_wake().  One thread. */
void kquit_wait(void);
void kquit_wake(void);

/* Before the plugin is unloaded: the signals are nbdkit's alone again. */
void kquit_unwatch(void);

#endif /* KVFS_PLUGIN_QUIT_H */
