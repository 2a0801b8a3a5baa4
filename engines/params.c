/* SPDX-License-Identifier: BSD-3-Clause
 *
 * params.c - params.h.
 */
#include "params.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int
params_refuse(const char *engine, const char *text, size_t len, const struct kvfs_param *params,
              size_t count, struct kvfs_error *err)
{
    char known[256] = "";
    size_t at = 0;

    for (size_t i = 0; i < count && at < sizeof(known); i++)
        at += (size_t)snprintf(known + at, sizeof(known) - at, "%s%s=%llu...%llu",
                               i > 0 ? ", " : "", params[i].name,
                               (unsigned long long)params[i].min, (unsigned long long)params[i].max);
    return kvfs_error_set(err, -EINVAL, "%s: unknown parameter '%.*s' (there %s %s)", engine,
                          len < 64 ? (int)len : 64, text, count > 1 ? "are" : "is", known);
}

static const struct kvfs_param *
params_find(const char *text, size_t len, const struct kvfs_param *params, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        size_t n = strlen(params[i].name);

        if (len > n && strncmp(text, params[i].name, n) == 0 && text[n] == '=')
            return &params[i];
    }
    return NULL;
}

int
kvfs_params_parse(const char *engine, const char *text, const struct kvfs_param *params,
                  size_t count, struct kvfs_error *err)
{
    while (text != NULL && *text != '\0') {
        size_t len = strcspn(text, ",");
        const struct kvfs_param *p = params_find(text, len, params, count);
        const char *digits = p != NULL ? text + strlen(p->name) + 1 : text;
        unsigned long long number = 0;
        char *end = NULL;

        errno = 0;
        if (*digits >= '0' && *digits <= '9')
            number = strtoull(digits, &end, 10);
        if (p == NULL || end != text + len || errno != 0 || number < p->min || number > p->max)
            return params_refuse(engine, text, len, params, count, err);
        *p->value = number;
        text += len + (text[len] == ',');
    }
    return 0;
}
