/* SPDX-License-Identifier: BSD-3-Clause
 *
 * cmdline.h - what nbdkit itself was told and does not tell its plugins in time.
 */
#ifndef KVFS_PLUGIN_CMDLINE_H
#define KVFS_PLUGIN_CMDLINE_H

#include <stdbool.h>
#include <stddef.h>

struct kcmdline {
    bool readonly;     /* -r */
    const char *user;  /* -u, as given; NULL: not given */
    const char *group; /* -g */
    char *args;        /* of kcmdline_read(): holds the strings above */
};

/* Find the above in ARGS, a command line of LEN bytes with a NUL behind each
 * argument.  Strings point into it. */
void kcmdline_parse(const char *args, size_t len, struct kcmdline *c);

/* The same for this process.  A command line that cannot be read counts as empty. */
void kcmdline_read(struct kcmdline *c);
void kcmdline_free(struct kcmdline *c);

#endif /* KVFS_PLUGIN_CMDLINE_H */
