/* SPDX-License-Identifier: BSD-3-Clause
 *
 * harness.h - a volume in a temporary folder and a real nbdkit that serves it.
 *
 * Anything here that fails for a reason that is not under test prints why and
 * ends the program with status 1.  The volume is never open in the test while
 * nbdkit is started, so nothing is inherited.
 */
#ifndef KVFS_TESTS_NBD_HARNESS_H
#define KVFS_TESTS_NBD_HARNESS_H

#include <libnbd.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "../chosen.h"

struct harness {
    char dir[64];
    char volume[96], socket[96], log[96];
    pid_t pid;    /* nbdkit; 0: none runs */
    int status;   /* of the last that ended, as waitpid() */
    bool mounted; /* dir is a file system of its own */
};

#define HARNESS_KVFS_ARGS_MAX 24

void harness_die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Exit with 77 if nbdkit, the plugin or the chosen engine (chosen.h) is not there. */
void harness_need_nbdkit(void);

/* A fresh folder with a volume of the chosen engine in it; removed by _end(), which
 * also ends a server that still runs. */
void harness_begin(struct harness *h);
/* The same on a tmpfs of its own, mounted with OPTIONS; exit 77 without the right. */
void harness_begin_tmpfs(struct harness *h, const char *options);
void harness_end(struct harness *h);

/* A second server for the same volume: own socket and log, nothing to _end(). */
void harness_second(const struct harness *h, struct harness *second);

/* Read from a file of the volume, through the library in this process, as what
 * another process sees; -errno. */
int harness_peek(const struct harness *h, const char *path, void *buf, size_t count,
                 uint64_t offset);

/* Make a file in the volume (no server may run). */
void harness_create(struct harness *h, const char *path, uint64_t size_bytes,
                    uint32_t block_size_bytes);

/* Start nbdkit -f with the plugin, the volume and ARGS (NULL-terminated; those
 * that begin with '-' go to nbdkit).  Clients may connect at once: the socket
 * is made here and passed on.  ENV: NULL, or "NAME=VALUE" for nbdkit alone. */
void harness_start(struct harness *h, const char *const *args, const char *env);

/* Run nbdkit without -f and the rest as above, with VOLUME instead of the
 * harness's; wait until it exits or is in the background.  Answers its exit
 * status; what it said is in the log. */
int harness_daemon(struct harness *h, const char *volume, const char *const *args);

/* SIGTERM and wait: the exit status, or -1 for a signal.  SIGKILL and wait. */
int harness_stop(struct harness *h);
void harness_kill(struct harness *h);

/* What nbdkit wrote to stderr since the start; the caller frees it. */
char *harness_log(const struct harness *h);

/* Cut out of LOG what the plugin says of an engine that does not keep a flush over a power cut;
 * answers how often it was there.  A server that came up has said it
 * harness_warnings_expected() times. */
unsigned harness_cut_warnings(char *log);
unsigned harness_warnings_expected(void);

/* Connect to EXPORT.  libnbd's own checks of alignment and bounds are off.
 * NULL if refused (nbd_get_error() says why). */
struct nbd_handle *harness_try_connect(struct harness *h, const char *export);
struct nbd_handle *harness_connect(struct harness *h, const char *export);
void harness_disconnect(struct nbd_handle *nbd);

/* What block status says of a range: pairs of length and kind, merged. */
#define HARNESS_EXTENTS_MAX 64
struct harness_extents {
    unsigned count;
    uint64_t end; /* of the range asked for */
    struct {
        uint64_t count;
        bool hole;
    } extent[HARNESS_EXTENTS_MAX];
};
void harness_block_status(struct nbd_handle *nbd, uint64_t count, uint64_t offset,
                          struct harness_extents *extents);

/* A 64-bit random number from *seed (splitmix64). */
uint64_t harness_random(uint64_t *seed);
/* From the environment (KVFS_SEED) or the clock; printed. */
uint64_t harness_seed(void);

/* RssAnon + RssShmem of nbdkit, in bytes. */
uint64_t harness_memory(const struct harness *h);

#endif /* KVFS_TESTS_NBD_HARNESS_H */
