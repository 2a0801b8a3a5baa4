/* SPDX-License-Identifier: BSD-3-Clause
 *
 * database.h - what `kvfs import` does with a source that is a SQLite database.
 */
#ifndef KVFS_CLI_DATABASE_H
#define KVFS_CLI_DATABASE_H

#include "cli.h"

struct cli_database {
    bool wal_header; /* says WAL mode: the copy should not */
    bool recovered;  /* *fd is a private copy by now */
};

/* If the regular file SOURCE, open for reading in *FD, is a SQLite database, keep writers off
 * while *FD is open, and where a journal or a WAL beside it belongs to it put a whole copy
 * without a name in place of *FD.  0, also for any other file; negative: c->err is set. */
int cli_database_prepare(struct cli *c, const char *source, int *fd, struct cli_database *d);
/* Tell what was done, if anything was. */
void cli_database_say(const struct cli *c, const char *source, const struct cli_database *d);

#endif /* KVFS_CLI_DATABASE_H */
