/* SPDX-License-Identifier: BSD-3-Clause
 *
 * params.c - see params.h.
 */
#include "params.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <nbdkit-filter.h>

struct params params = {
    .cache_bytes = (uint64_t)256 << 20,
    .seed = 1,
    .choice = {.survive = CRASHSIM_RANDOM, .tear = CRASHSIM_TEAR_512},
};

static int params_jitter = -1; /* may come before the latency */

static int
params_refuse(const char *key, const char *value, const char *wanted)
{
    nbdkit_error("%s=%s: %s is wanted", key, value, wanted);
    return -1;
}

static int
params_count(const char *key, const char *value, uint64_t *n)
{
    if (!crashsim_parse_number(value, n) || *n == 0 || *n > (uint64_t)1 << 48)
        return params_refuse(key, value, "a number from 1");
    return 0;
}

static int
params_path(const char *value, char **path)
{
    free(*path);
    *path = nbdkit_absolute_path(value);
    return *path != NULL ? 0 : -1;
}

static int
params_set_cut(const char *key, const char *value)
{
    const char *what = key + strlen("crashsim-cut-");

    if (strcmp(what, "after-writes") == 0)
        return params_count(key, value, &params.trigger.after_writes);
    if (strcmp(what, "after-flushes") == 0)
        return params_count(key, value, &params.trigger.after_flushes);
    if (strcmp(what, "within") == 0)
        return params_count(key, value, &params.trigger.within);
    if (strcmp(what, "mark") != 0)
        return 1;
    if (!crashsim_mark_is_good(value))
        return params_refuse(key, value, "a name of at most 255 printable bytes");
    (void)snprintf(params.trigger.mark, sizeof(params.trigger.mark), "%s", value);
    return 0;
}

static int
params_set_fault(const char *key, const char *value)
{
    static const char rate[] = "a rate from 0 to 1, or with a % sign";
    struct faults *f = &params.faults;
    uint64_t percent;

    if (strcmp(key, "crashsim-eio-read") == 0)
        return fault_parse_rate(value, &f->eio[FAULT_READ]) ? 0 : params_refuse(key, value, rate);
    if (strcmp(key, "crashsim-eio-write") == 0)
        return fault_parse_rate(value, &f->eio[FAULT_WRITE]) ? 0 : params_refuse(key, value, rate);
    if (strcmp(key, "crashsim-eio-flush") == 0)
        return fault_parse_rate(value, &f->eio[FAULT_FLUSH]) ? 0 : params_refuse(key, value, rate);
    if (strcmp(key, "crashsim-lying-flush") == 0)
        return fault_parse_rate(value, &f->lying_flush) ? 0 : params_refuse(key, value, rate);
    if (strcmp(key, "crashsim-rot") == 0)
        return fault_parse_rot(value, f)
                   ? 0
                   : params_refuse(key, value, "OFFSET,LENGTH[,BITS] in bytes, at most 16 times,");
    if (strcmp(key, "crashsim-latency") == 0)
        return fault_parse_latency(value, f)
                   ? 0
                   : params_refuse(key, value, "sd, usb-ssd, nvme, none or READ,WRITE,FLUSH in us");
    if (strcmp(key, "crashsim-jitter") == 0) {
        if (!crashsim_parse_number(value, &percent) || percent > 100)
            return params_refuse(key, value, "a number from 0 to 100");
        params_jitter = (int)percent;
        return 0;
    }
    return 1;
}

int
params_set(const char *key, const char *value)
{
    int64_t size;

    if (strncmp(key, "crashsim-", 9) != 0)
        return 1;
    if (strncmp(key, "crashsim-cut-", 13) == 0)
        return params_set_cut(key, value);
    if (strcmp(key, "crashsim-control") == 0)
        return params_path(value, &params.control);
    if (strcmp(key, "crashsim-record") == 0)
        return params_path(value, &params.record);
    if (strcmp(key, "crashsim-seed") == 0) {
        if (!crashsim_parse_number(value, &params.seed))
            return params_refuse(key, value, "a number from 0 to 18446744073709551615");
        return 0;
    }
    if (strcmp(key, "crashsim-cache") == 0) {
        size = nbdkit_parse_size(value);
        if (size < 0)
            return -1;
        params.cache_bytes = (uint64_t)size;
        return 0;
    }
    if (strcmp(key, "crashsim-fua") == 0) {
        params.fua_none = strcmp(value, "none") == 0;
        return params.fua_none || strcmp(value, "native") == 0
                   ? 0
                   : params_refuse(key, value, "native or none");
    }
    if (strcmp(key, "crashsim-survive") == 0)
        return crashsim_choice_parse_survive(value, &params.choice)
                   ? 0
                   : params_refuse(key, value, "drop-all, prefix, leave-one-out, only-one, random "
                                               "or subset (some with :N)");
    if (strcmp(key, "crashsim-tear") == 0)
        return crashsim_choice_parse_tear(value, &params.choice.tear)
                   ? 0
                   : params_refuse(key, value, "none, 512, 4096, byte or garbage");
    return params_set_fault(key, value);
}

int
params_check(void)
{
    params.choice.seed = params.seed;
    if (params_jitter >= 0)
        params.faults.jitter_percent = (uint32_t)params_jitter;
    if (params.record != NULL && params.control != NULL &&
        strcmp(params.record, params.control) == 0) {
        nbdkit_error("crashsim-record and crashsim-control name the same file");
        return -1;
    }
    return 0;
}

void
params_free(void)
{
    free(params.control);
    free(params.record);
    params.control = params.record = NULL;
}
