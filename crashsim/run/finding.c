/* SPDX-License-Identifier: BSD-3-Clause
 *
 * finding.c - see finding.h.
 */
#include "finding.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "cmd/cmd.h"
#include "disks.h"

static const char *const finding_files[] = {"base.img", "recording", "recording.side", "trace",
                                            "operations"};
#define FINDING_FILES (sizeof(finding_files) / sizeof(finding_files[0]))

static int
finding_fail(const char *path, struct kvfs_error *err)
{
    return kvfs_error_set(err, -errno, "%s: %s", path, strerrordesc_np(errno));
}

/* --- folders --- */

/* FOLDER with all above it; *MADE: bytes of the name of the first that was not there, or 0. */
static int
finding_parents(const char *folder, size_t *made, struct kvfs_error *err)
{
    char path[FINDING_FOLDER_MAX + 1];
    size_t len = strlen(folder);

    *made = 0;
    if (len == 0 || len > FINDING_FOLDER_MAX)
        return kvfs_error_set(err, len == 0 ? -ENOENT : -ENAMETOOLONG, "'%s': %s", folder,
                              strerrordesc_np(len == 0 ? ENOENT : ENAMETOOLONG));
    for (size_t i = 1; i <= len; i++) {
        if (folder[i] != '/' && folder[i] != '\0')
            continue;
        (void)snprintf(path, sizeof(path), "%.*s", (int)i, folder);
        if (mkdir(path, 0755) == 0)
            *made = *made == 0 ? i : *made;
        else if (errno != EEXIST)
            return finding_fail(path, err);
    }
    return 0;
}

static void
finding_unmake(const char *folder, size_t made)
{
    char path[FINDING_FOLDER_MAX + 1];

    for (size_t i = strlen(folder); made > 0 && i >= made; i--) {
        (void)snprintf(path, sizeof(path), "%.*s", (int)i, folder);
        if (folder[i] == '/' || folder[i] == '\0')
            (void)rmdir(path);
    }
}

int
finding_look(const char *folder, struct kvfs_error *err)
{
    static const char page[4096];
    char path[FINDING_DIR_MAX];
    size_t made;
    int r = finding_parents(folder, &made, err), fd = -1;

    (void)snprintf(path, sizeof(path), "%.*s/.crashsim-%ld", FINDING_FOLDER_MAX, folder, (long)getpid());
    if (r == 0) {
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd >= 0)
            errno = ENOSPC; /* what a write that is too short means */
        if (fd < 0 || write(fd, page, sizeof(page)) != (ssize_t)sizeof(page))
            r = finding_fail(folder, err);
    }
    if (fd >= 0 && close(fd) < 0 && r == 0)
        r = finding_fail(folder, err);
    if (fd >= 0)
        (void)unlink(path);
    finding_unmake(folder, made);
    return r;
}

static int
finding_folder(const struct finding *f, char *dir, size_t cap, struct kvfs_error *err)
{
    char parent[FINDING_FOLDER_MAX + 1], engine[96];
    size_t made;
    int r = finding_parents(dir, &made, err);

    if (r < 0)
        return r;
    (void)snprintf(parent, sizeof(parent), "%s", dir);
    (void)snprintf(engine, sizeof(engine), "%s", f->journal->engine);
    for (char *p = engine; *p != '\0'; p++) {
        if (*p == ':' || *p == '/' || *p == '+')
            *p = '-';
    }
    for (int n = 1; n < 10000; n++) {
        (void)snprintf(dir, cap, "%s/%s-%s-%" PRIu64 "-%d", parent, f->journal->scenario, engine,
                       f->journal->seed % 1000000, n);
        if (mkdir(dir, 0755) == 0)
            return 0;
        if (errno != EEXIST)
            break;
    }
    return finding_fail(dir, err);
}

static void
finding_remove(const char *dir)
{
    static const char *const more[] = {"sums", "state", "state.new"};
    char path[FINDING_DIR_MAX + 32];

    for (size_t i = 0; i < FINDING_FILES + sizeof(more) / sizeof(more[0]); i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", dir,
                       i < FINDING_FILES ? finding_files[i] : more[i - FINDING_FILES]);
        (void)unlink(path);
    }
    (void)rmdir(dir);
}

/* --- sums --- */

/* Hash and bytes of a file. */
static int
finding_sum(const char *path, uint64_t *hash, uint64_t *bytes, struct kvfs_error *err)
{
    static uint8_t buf[1 << 18];
    XXH3_state_t *state = XXH3_createState();
    int fd = open(path, O_RDONLY | O_CLOEXEC), r = 0;
    ssize_t n = -1;

    *hash = *bytes = 0;
    if (state != NULL)
        (void)XXH3_64bits_reset(state);
    while (state != NULL && fd >= 0 && (n = read(fd, buf, sizeof(buf))) > 0) {
        (void)XXH3_64bits_update(state, buf, (size_t)n);
        *bytes += (uint64_t)n;
    }
    if (n < 0)
        r = finding_fail(path, err);
    else
        *hash = XXH3_64bits_digest(state);
    if (fd >= 0)
        (void)close(fd);
    XXH3_freeState(state);
    return r;
}

static int
finding_save_sums(const char *dir, struct kvfs_error *err)
{
    char path[FINDING_DIR_MAX + 32], to[FINDING_DIR_MAX + 32];
    FILE *f = fopen((snprintf(to, sizeof(to), "%s/sums", dir), to), "we");
    int r = f == NULL ? finding_fail(to, err) : 0;

    for (size_t i = 0; r == 0 && i < FINDING_FILES; i++) {
        uint64_t hash, bytes;

        (void)snprintf(path, sizeof(path), "%s/%s", dir, finding_files[i]);
        if (access(path, F_OK) < 0)
            continue;
        r = finding_sum(path, &hash, &bytes, err);
        if (r == 0)
            (void)fprintf(f, "%016" PRIx64 " %" PRIu64 " %s\n", hash, bytes, finding_files[i]);
    }
    if (f != NULL && fclose(f) != 0 && r == 0)
        r = finding_fail(to, err);
    return r;
}

/* LINE is of `sums`. */
static int
finding_verify_one(const char *dir, const char *line, struct kvfs_error *err)
{
    char path[FINDING_DIR_MAX + 32], name[32];
    uint64_t hash, bytes, hash_now, bytes_now;
    int r;

    /* NOLINTNEXTLINE(cert-err34-c): another number is another sum */
    if (sscanf(line, "%" SCNx64 " %" SCNu64 " %31s", &hash, &bytes, name) != 3 || strchr(name, '/') != NULL)
        return kvfs_error_set(err, -EINVAL, "%s/sums: no list of sums", dir);
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    r = finding_sum(path, &hash_now, &bytes_now, err);
    if (r == 0 && bytes_now != bytes)
        r = kvfs_error_set(err, -EINVAL, "%s has %" PRIu64 " bytes, and had %" PRIu64 " when it was kept",
                           path, bytes_now, bytes);
    if (r == 0 && hash_now != hash)
        r = kvfs_error_set(err, -EINVAL, "%s is not as it was kept", path);
    return r;
}

int
finding_verify(const char *dir, struct kvfs_error *err)
{
    char path[FINDING_DIR_MAX + 32], line[128];
    FILE *f = fopen((snprintf(path, sizeof(path), "%s/sums", dir), path), "re");
    int r = f == NULL ? finding_fail(path, err) : 0, files = 0;

    for (; r == 0 && fgets(line, sizeof(line), f) != NULL; files++)
        r = finding_verify_one(dir, line, err);
    if (f != NULL)
        (void)fclose(f);
    if (r == 0 && files < 2) /* a recording and its operations */
        r = kvfs_error_set(err, -EINVAL, "%s: cut short", path);
    return r;
}

/* --- saving --- */

static int
finding_save_record(const struct finding *f, const char *dir, struct kvfs_error *err)
{
    char from[FINDING_DIR_MAX + 32], to[FINDING_DIR_MAX + 32];
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
    FILE *out = fmemopen(text, cap, "w");

    *text = '\0';
    if (out == NULL)
        return;
    (void)fputs("crashsim run --replay=", out);
    cmd_quote(out, dir);
    if (f->promise != NULL)
        (void)fprintf(out, " --promise=%s", f->promise);
    (void)fclose(out);
    text[cap - 1] = '\0';
}

/* Whole or not at all: what replays it may run meanwhile. */
int
finding_rename(const struct finding *f, const char *dir, struct kvfs_error *err)
{
    char to[FINDING_DIR_MAX + 32], now[FINDING_DIR_MAX + 32], command[FINDING_COMMAND_MAX];
    FILE *text;
    int r = 0;

    finding_command(f, dir, command, sizeof(command));
    (void)snprintf(now, sizeof(now), "%s/state.new", dir);
    (void)snprintf(to, sizeof(to), "%s/state", dir);
    text = fopen(now, "we");
    if (text == NULL ||
        fprintf(text, "%s\n%" PRIu64 "\n%s\n%s\n%s", f->state, f->t_ns_max, f->why,
                command, f->more != NULL ? f->more : "") < 0)
        r = finding_fail(now, err);
    if (text != NULL && fclose(text) != 0 && r == 0)
        r = finding_fail(now, err);
    if (r == 0 && rename(now, to) < 0)
        r = finding_fail(to, err);
    if (r < 0)
        (void)unlink(now);
    return r;
}

int
finding_save(const struct finding *f, char *dir, size_t cap, struct kvfs_error *err)
{
    char to[FINDING_DIR_MAX + 32];
    int r = finding_folder(f, dir, cap, err);

    if (r < 0)
        return r;
    r = finding_save_record(f, dir, err);
    (void)snprintf(to, sizeof(to), "%s/operations", dir);
    if (r == 0)
        r = journal_save(f->journal, to, err);
    if (r == 0)
        r = finding_save_sums(dir, err);
    if (r == 0)
        r = finding_rename(f, dir, err);
    if (r < 0)
        finding_remove(dir);
    return r;
}

int
finding_load(struct finding *f, const char *dir, struct kvfs_error *err)
{
    char path[FINDING_DIR_MAX + 32], number[32] = "";
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
