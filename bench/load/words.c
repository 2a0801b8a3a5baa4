/* SPDX-License-Identifier: BSD-3-Clause */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "words.h"

bool
word_is(const char *word, const char *name, const char **value)
{
    size_t len = strlen(name);

    if (strncmp(word, name, len) != 0 || word[len] != '=')
        return false;
    *value = word + len + 1;
    return true;
}

int
word_number(const char *word, const char *value, uint64_t min, uint64_t max, uint64_t *number,
            struct kvfs_error *err)
{
    static const char suffixes[] = "KMGT";
    const char *suffix;
    unsigned long long n;
    unsigned shift = 0;
    char *end;

    errno = 0;
    n = strtoull(value, &end, 10);
    if (*end != '\0' && (suffix = strchr(suffixes, toupper((unsigned char)*end))) != NULL) {
        shift = 10 * (unsigned)(suffix - suffixes + 1);
        end++;
    }
    if (!isdigit((unsigned char)*value) || *end != '\0' || errno != 0 || n > UINT64_MAX >> shift ||
        n << shift < min || n << shift > max)
        return kvfs_error_set(err, -EINVAL, "%s: a number from %llu to %llu is wanted", word,
                              (unsigned long long)min, (unsigned long long)max);
    *number = n << shift;
    return 0;
}

int
word_seconds(const char *word, const char *value, double max, double *number,
             struct kvfs_error *err)
{
    char *end;
    double n = strtod(value, &end);

    if (!isdigit((unsigned char)*value) || *end != '\0' || !isfinite(n) || n > max)
        return kvfs_error_set(err, -EINVAL, "%s: a number from 0 to %.0f is wanted", word, max);
    *number = n;
    return 0;
}

int
word_choice(const char *word, const char *value, const char *const *choices, unsigned *index,
            struct kvfs_error *err)
{
    char list[128] = "";

    for (unsigned i = 0; choices[i] != NULL; i++) {
        size_t used = strlen(list);

        if (strcmp(choices[i], value) == 0) {
            *index = i;
            return 0;
        }
        (void)snprintf(list + used, sizeof(list) - used, "%s%s", i > 0 ? ", " : "", choices[i]);
    }
    return kvfs_error_set(err, -EINVAL, "%s: one of %s is wanted", word, list);
}

int
word_engine(const char *word, const char *value, char *buf, size_t cap, const char **params,
            struct kvfs_error *err)
{
    size_t len = strcspn(value, ",");

    if (len == 0 || len >= cap)
        return kvfs_error_set(err, -EINVAL, "%s: no name of an engine", word);
    (void)snprintf(buf, cap, "%.*s", (int)len, value);
    *params = value[len] == ',' ? value + len + 1 : NULL;
    return 0;
}
