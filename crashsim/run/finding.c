/* SPDX-License-Identifier: BSD-3-Clause
 *
 * finding.c - see finding.h.
 */
#include "finding.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disks.h"

static int
finding_folder(const struct finding *f, char *dir, size_t cap, struct kvfs_error *err)
{
    char parent[512], engine[96];

    (void)snprintf(parent, sizeof(parent), "%s", dir);
    (void)snprintf(engine, sizeof(engine), "%s", f->journal->engine);
    for (char *p = engine; *p != '\0'; p++) {
        if (*p == ':' || *p == '/' || *p == '+')
            *p = '-';
    }
    for (char *p = parent + 1; *parent != '\0'; p++) { /* with all above it */
        char c = *p;

        if (c != '/' && c != '\0')
            continue;
        *p = '\0';
        if (mkdir(parent, 0755) < 0 && errno != EEXIST)
            return kvfs_error_set(err, -errno, "%s: %s", parent, strerrordesc_np(errno));
        *p = c;
        if (c == '\0')
            break;
    }
    for (int n = 1; n < 10000; n++) {
        (void)snprintf(dir, cap, "%s/%s-%s-%" PRIu64 "-%d", parent, f->journal->scenario, engine,
                       f->journal->seed % 1000000, n);
        if (mkdir(dir, 0755) == 0)
            return 0;
        if (errno != EEXIST)
            break;
    }
    return kvfs_error_set(err, -errno, "%s: %s", dir, strerrordesc_np(errno));
}

static int
finding_save_record(const struct finding *f, const char *dir, struct kvfs_error *err)
{
    char from[512], to[512];
    int r;

    (void)snprintf(to, sizeof(to), "%s/%s", dir, f->trace ? "trace" : "recording");
    r = disks_copy(f->record, to, err);
    if (r < 0 || f->trace)
        return r;
    (void)snprintf(to, sizeof(to), "%s/base.img", dir);
    r = disks_copy(f->base, to, err);
    (void)snprintf(from, sizeof(from), "%s.side", f->record);
    (void)snprintf(to, sizeof(to), "%s/recording.side", dir);
    return r < 0 ? r : disks_copy(from, to, err);
}

void
finding_command(const struct finding *f, const char *dir, char *text, size_t cap)
{
    (void)snprintf(text, cap, "crashsim run --replay=%s%s%s", dir,
                   f->promise != NULL ? " --promise=" : "", f->promise != NULL ? f->promise : "");
}

/* Whole or not at all: what replays it may run meanwhile. */
int
finding_rename(const struct finding *f, const char *dir, struct kvfs_error *err)
{
    char to[512], now[512], command[440];
    FILE *text;
    int r = 0;

    finding_command(f, dir, command, sizeof(command));
    (void)snprintf(now, sizeof(now), "%s/state.new", dir);
    (void)snprintf(to, sizeof(to), "%s/state", dir);
    text = fopen(now, "we");
    if (text == NULL ||
        fprintf(text, "%s\n%" PRIu64 "\n%s\n%s\n%s", f->state, f->t_ns_max, f->why,
                command, f->more != NULL ? f->more : "") < 0)
        r = kvfs_error_set(err, -EIO, "%s cannot be written", now);
    if (text != NULL && fclose(text) != 0 && r == 0)
        r = kvfs_error_set(err, -EIO, "%s cannot be written", now);
    if (r == 0 && rename(now, to) < 0)
        r = kvfs_error_set(err, -errno, "%s: %s", to, strerrordesc_np(errno));
    return r;
}

int
finding_save(const struct finding *f, char *dir, size_t cap, struct kvfs_error *err)
{
    char to[512];
    int r = finding_folder(f, dir, cap, err);

    if (r == 0)
        r = finding_save_record(f, dir, err);
    (void)snprintf(to, sizeof(to), "%s/operations", dir);
    if (r == 0)
        r = journal_save(f->journal, to, err);
    return r < 0 ? r : finding_rename(f, dir, err);
}

int
finding_load(struct finding *f, const char *dir, struct kvfs_error *err)
{
    char path[512], number[32] = "";
    size_t cap = 0;
    FILE *text;
    bool good;

    (void)snprintf(f->base_path, sizeof(f->base_path), "%s/base.img", dir);
    (void)snprintf(f->record_path, sizeof(f->record_path), "%s/recording", dir);
    (void)snprintf(path, sizeof(path), "%s/trace", dir);
    f->trace = access(path, F_OK) == 0;
    if (f->trace)
        (void)snprintf(f->record_path, sizeof(f->record_path), "%s", path);
    (void)snprintf(path, sizeof(path), "%s/state", dir);
    text = fopen(path, "re");
    if (text == NULL)
        return kvfs_error_set(err, -errno, "%s: %s", path, strerrordesc_np(errno));
    good = getline(&f->loaded, &cap, text) > 0 && fgets(number, sizeof(number), text) != NULL;
    (void)fclose(text);
    if (!good)
        return kvfs_error_set(err, -EINVAL, "%s: no finding", path);
    f->loaded[strcspn(f->loaded, "\n")] = '\0';
    f->state = f->loaded;
    f->t_ns_max = strtoull(number, NULL, 10);
    (void)snprintf(path, sizeof(path), "%s/operations", dir);
    return journal_load(f->journal, path, err);
}

void
finding_unload(struct finding *f)
{
    free(f->loaded);
    f->loaded = NULL;
    f->state = NULL;
}
