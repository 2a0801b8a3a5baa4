/* SPDX-License-Identifier: BSD-3-Clause
 *
 * filter.c - nbdkit's side of the crash simulator: a disk whose power can be cut.
 *
 * docs/CRASHSIM.md has the model, disk.c the cache, power.c what a request and a cut do.  This
 * file only translates between nbdkit and power.h.
 *
 * 1. A process serves one export of its plugin, through one context that is opened when nbdkit has
 *    forked and closed when it ends.  Connections open none, so that whatever they do meets in
 *    one cache, and a cut needs no connection to write what survives.
 * 2. That context is used under power.c's lock only: it belongs to no connection, so nbdkit's
 *    locks do not protect it.
 * 3. No callback may fall through to the plugin's: there is no context of the connection that
 *    could answer.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <nbdkit-filter.h>

#include "control.h"
#include "params.h"
#include "power.h"

static struct {
    nbdkit_next *next;
    int64_t size_bytes;
    uint32_t minimum, preferred, maximum;
    int can_multi_conn, is_rotational;
    atomic_uint connections;
} shared;

struct connection {
    uint32_t number; /* from 1 */
    int readonly;
};

/* --- the process --- */

static int
filter_config(nbdkit_next_config *next, nbdkit_backend *nxdata, const char *key, const char *value)
{
    int r = params_set(key, value);

    return r == 1 ? next(nxdata, key, value) : r;
}

static int
filter_config_complete(nbdkit_next_config_complete *next, nbdkit_backend *nxdata)
{
    return params_check() < 0 ? -1 : next(nxdata);
}

/* What can be known to fail is said while nbdkit can still refuse to start: later it is in the
 * background, or --run has begun. */
static int
filter_get_ready(int thread_model)
{
    int r = params.record != NULL ? crashsim_record_probe(params.record) : 0;

    (void)thread_model;
    if (r < 0) {
        errno = -r;
        nbdkit_error("crashsim-record=%s: %m", params.record);
        return -1;
    }
    return params.control != NULL ? control_listen(params.control) : 0;
}

/* Ranges that are to rot must be there. */
static int
filter_check_rot(void)
{
    uint64_t size = (uint64_t)shared.size_bytes;

    for (unsigned i = 0; i < params.faults.rot_count; i++) {
        const struct fault_rot *rot = &params.faults.rot[i];

        if (rot->offset > size || rot->length > size - rot->offset) {
            nbdkit_error("crashsim-rot=%" PRIu64 ",%" PRIu64 ": the disk ends at %" PRIu64,
                         rot->offset, rot->length, size);
            return -1;
        }
    }
    return 0;
}

/* nbdkit wants to have been asked for each of these before it allows the request. */
static int
filter_ask(nbdkit_next *next)
{
    int can_write = next->can_write(next), can_flush = next->can_flush(next);
    int can_zero, can_fua = next->can_fua(next), can_multi_conn = next->can_multi_conn(next);
    int is_rotational = next->is_rotational(next);

    shared.size_bytes = next->get_size(next);
    if (shared.size_bytes < 0 || can_write < 0 || can_flush < 0 || can_fua < 0 || can_multi_conn < 0 ||
        is_rotational < 0 ||
        next->block_size(next, &shared.minimum, &shared.preferred, &shared.maximum) < 0)
        return -1;
    if (can_write == 0) {
        nbdkit_error("crashsim: the disk below cannot be written");
        return -1;
    }
    if (shared.minimum > 512) {
        nbdkit_error("crashsim: the disk below takes no requests of 512 bytes; put "
                     "--filter=blocksize behind --filter=crashsim");
        return -1;
    }
    can_zero = next->can_zero(next);
    if (can_zero < 0)
        return -1;
    if (filter_check_rot() < 0)
        return -1;
    shared.can_multi_conn = can_multi_conn;
    shared.is_rotational = is_rotational;
    return power_start(next, (uint64_t)shared.size_bytes, can_zero, can_flush, can_fua);
}

static int
filter_after_fork(nbdkit_backend *backend)
{
    nbdkit_next *next = nbdkit_next_context_open(backend, 0, "", 1);

    if (next == NULL)
        return -1;
    if (next->prepare(next) < 0) {
        nbdkit_next_context_close(next);
        return -1;
    }
    shared.next = next;
    return filter_ask(next) < 0 ? -1 : control_start();
}

static void
filter_cleanup(nbdkit_backend *backend)
{
    (void)backend;
    control_end();
    power_end();
    if (shared.next != NULL) {
        (void)shared.next->finalize(shared.next);
        nbdkit_next_context_close(shared.next);
        shared.next = NULL;
    }
}

static void
filter_unload(void)
{
    control_end(); /* where nbdkit ended before it began */
    params_free();
}

/* --- a connection --- */

static int
filter_list_exports(nbdkit_next_list_exports *next, nbdkit_backend *nxdata, int readonly,
                    int is_tls, struct nbdkit_exports *exports)
{
    (void)next;
    (void)nxdata;
    (void)readonly;
    (void)is_tls;
    return nbdkit_add_export(exports, "", NULL);
}

static const char *
filter_default_export(nbdkit_next_default_export *next, nbdkit_backend *nxdata, int readonly,
                      int is_tls)
{
    (void)next;
    (void)nxdata;
    (void)readonly;
    (void)is_tls;
    return "";
}

static void *
filter_open(nbdkit_next_open *next, nbdkit_context *context, int readonly, const char *exportname,
            int is_tls)
{
    struct connection *c;

    (void)next;
    (void)context;
    (void)is_tls;
    if (exportname[0] != '\0') {
        nbdkit_error("crashsim serves the plugin's default export alone, not '%s'", exportname);
        return NULL;
    }
    c = malloc(sizeof(*c));
    if (c == NULL) {
        nbdkit_error("no memory");
        return NULL;
    }
    c->number = atomic_fetch_add(&shared.connections, 1) + 1;
    c->readonly = readonly;
    return c;
}

static void
filter_close(void *handle)
{
    free(handle);
}

static int64_t
filter_get_size(nbdkit_next *next, void *handle)
{
    (void)next;
    (void)handle;
    return shared.size_bytes;
}

static const char *
filter_export_description(nbdkit_next *next, void *handle)
{
    (void)next;
    (void)handle;
    return "a disk whose power can be cut";
}

static int
filter_block_size(nbdkit_next *next, void *handle, uint32_t *minimum, uint32_t *preferred,
                  uint32_t *maximum)
{
    (void)next;
    (void)handle;
    *minimum = shared.minimum;
    *preferred = shared.preferred;
    *maximum = shared.maximum;
    return 0;
}

static int
filter_can_write(nbdkit_next *next, void *handle)
{
    const struct connection *c = handle;

    (void)next;
    return !c->readonly;
}

static int
filter_yes(nbdkit_next *next, void *handle)
{
    (void)next;
    (void)handle;
    return 1;
}

static int
filter_no(nbdkit_next *next, void *handle)
{
    (void)next;
    (void)handle;
    return 0;
}

static int
filter_can_zero(nbdkit_next *next, void *handle)
{
    (void)next;
    (void)handle;
    return NBDKIT_ZERO_NATIVE;
}

static int
filter_can_fua(nbdkit_next *next, void *handle)
{
    (void)next;
    (void)handle;
    return params.fua_none ? NBDKIT_FUA_NONE : NBDKIT_FUA_NATIVE;
}

static int
filter_can_cache(nbdkit_next *next, void *handle)
{
    (void)next;
    (void)handle;
    return NBDKIT_CACHE_NONE;
}

static int
filter_can_multi_conn(nbdkit_next *next, void *handle)
{
    (void)next;
    (void)handle;
    return shared.can_multi_conn;
}

static int
filter_is_rotational(nbdkit_next *next, void *handle)
{
    (void)next;
    (void)handle;
    return shared.is_rotational;
}

/* --- requests --- */

static int
filter_pread(nbdkit_next *next, void *handle, void *buf, uint32_t count, uint64_t offset,
             uint32_t flags, int *err)
{
    (void)next;
    (void)handle;
    (void)flags;
    return power_read(buf, count, offset, err);
}

static int
filter_change(void *handle, enum crashsim_kind kind, const void *buf, uint32_t count,
              uint64_t offset, uint32_t flags, int *err)
{
    const struct connection *c = handle;
    struct crashsim_write w = {
        .kind = kind,
        .fua = (flags & NBDKIT_FLAG_FUA) != 0,
        .conn = c->number,
        .count = count,
        .offset = offset,
        .data = buf,
    };

    return power_change(&w, err);
}

static int
filter_pwrite(nbdkit_next *next, void *handle, const void *buf, uint32_t count, uint64_t offset,
              uint32_t flags, int *err)
{
    (void)next;
    return filter_change(handle, CRASHSIM_WRITE, buf, count, offset, flags, err);
}

static int
filter_zero(nbdkit_next *next, void *handle, uint32_t count, uint64_t offset, uint32_t flags,
            int *err)
{
    (void)next;
    return filter_change(handle, CRASHSIM_ZERO, NULL, count, offset, flags, err);
}

static int
filter_trim(nbdkit_next *next, void *handle, uint32_t count, uint64_t offset, uint32_t flags,
            int *err)
{
    (void)next;
    return filter_change(handle, CRASHSIM_TRIM, NULL, count, offset, flags, err);
}

static int
filter_flush(nbdkit_next *next, void *handle, uint32_t flags, int *err)
{
    const struct connection *c = handle;

    (void)next;
    (void)flags;
    return power_flush(c->number, err);
}

static struct nbdkit_filter filter = {
    .name = "crashsim",
    .longname = "nbdkit crash simulator",
    .description = "A volatile write cache, and a power cut whenever it is wanted.",
    .config = filter_config,
    .config_complete = filter_config_complete,
    .config_help = PARAMS_HELP,
    .get_ready = filter_get_ready,
    .after_fork = filter_after_fork,
    .cleanup = filter_cleanup,
    .unload = filter_unload,
    .list_exports = filter_list_exports,
    .default_export = filter_default_export,
    .open = filter_open,
    .close = filter_close,
    .get_size = filter_get_size,
    .export_description = filter_export_description,
    .block_size = filter_block_size,
    .can_write = filter_can_write,
    .can_flush = filter_yes,
    .is_rotational = filter_is_rotational,
    .can_trim = filter_yes,
    .can_zero = filter_can_zero,
    .can_fast_zero = filter_yes,
    .can_extents = filter_no,
    .can_fua = filter_can_fua,
    .can_multi_conn = filter_can_multi_conn,
    .can_cache = filter_can_cache,
    .pread = filter_pread,
    .pwrite = filter_pwrite,
    .flush = filter_flush,
    .trim = filter_trim,
    .zero = filter_zero,
};

#pragma GCC diagnostic ignored "-Wmissing-prototypes" /* filter_init() */
NBDKIT_REGISTER_FILTER(filter)
