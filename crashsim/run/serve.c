/* SPDX-License-Identifier: BSD-3-Clause
 *
 * serve.c - see serve.h.
 */
#include "serve.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "random.h"
#include "stack.h"
#include "tool.h"

/* $KVFS_PLUGIN; as built, beside this program's folder; else nbdkit looks where plugins are. */
static const char *
serve_plugin(void)
{
    const char *said = getenv("KVFS_PLUGIN"); // NOLINT(concurrency-mt-unsafe)
    static char path[4096];

    if (said != NULL && *said != '\0')
        return said;
    return stack_beside_program("../plugin/nbdkit-kvfs-plugin.so", path, sizeof(path)) ? path
                                                                                       : "kvfs";
}

int
serve_look(const struct place *p, struct kvfs_error *err)
{
    const char *const argv[] = {"nbdkit", "--dump-plugin", serve_plugin(), NULL};

    return tool_run_preloaded(p, argv, getenv("KVFS_PRELOAD"), err); // NOLINT(concurrency-mt-unsafe)
}

int
serve_volume(const struct subject *s, const char *volume, const char *file, uint64_t seed,
             char socket[PLACE_NAME_MAX], pid_t *server, struct kvfs_error *err)
{
    static const char *const intervals[] = {"commit-interval=0.01", "commit-interval=0.1",
                                            "commit-interval=5"};
    char arg_volume[4096], arg_file[300], ready[PLACE_NAME_MAX], name[32];
    char arg_params[SUBJECT_PARAMS_MAX + 16];
    const char *argv[] = {"nbdkit",
                          "-f",
                          "-P",
                          ready,
                          "-U",
                          socket,
                          serve_plugin(),
                          arg_volume,
                          arg_file,
                          "cache=1M",
                          intervals[crashsim_hash(seed) % 3],
                          s->engine_params != NULL ? arg_params : NULL,
                          NULL};

    (void)snprintf(name, sizeof(name), "s%ld.sock", (long)getpid());
    (void)place_name(s->place, name, socket);
    (void)snprintf(name, sizeof(name), "s%ld.ready", (long)getpid());
    (void)place_name(s->place, name, ready);
    (void)snprintf(arg_volume, sizeof(arg_volume), "volume=%s", volume);
    (void)snprintf(arg_file, sizeof(arg_file), "file=%s", file);
    (void)snprintf(arg_params, sizeof(arg_params), "engine-params=%s",
                   s->engine_params != NULL ? s->engine_params : "");
    return tool_serve(s->place, argv, name, getenv("KVFS_PRELOAD"), // NOLINT(concurrency-mt-unsafe)
                      server, err);
}
