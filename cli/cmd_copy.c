/* SPDX-License-Identifier: BSD-3-Clause
 *
 * cmd_copy.c - kvfs copy: files, folders or all of a volume into another one.
 *
 * Steps, and what an error or a signal leaves behind each:
 *
 *   1 open, or format a new volume under a temporary name   nothing
 *   2 copy into a staging folder of the target              nothing
 *   3 make it durable, read it back, compare checksums      nothing
 *   4 move the top names out of the staging folder          those moved so far,
 *                                                           each of them whole
 *   5 give a new volume its name                            nothing
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "copy.h"

struct copy_end { /* VOLUME[:PATH] */
    char *volume;
    const char *path; /* "/" if none was given */
};

struct copy_job {
    struct copy_end src, dst;
    struct copy_volume made; /* if the target was not there */
    struct kvfs_attr attr; /* of what is copied */
    struct cli_place place;
    bool children; /* copy what is in a folder, not the folder */
};

/* --- arguments ----------------------------------------------------------------- */

static bool
copy_is_folder(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* A colon may belong to the folder's name: the longest folder that exists wins,
 * else the first colon divides. */
static int
copy_split(struct cli *c, const char *arg, struct copy_end *end)
{
    char *colon;

    end->volume = strdup(arg);
    end->path = "/";
    if (end->volume == NULL)
        return kvfs_error_set(&c->err, -ENOMEM, "no memory");
    if (arg[0] == ':')
        return kvfs_error_set(&c->err, -EINVAL, "%.128s: no volume before the colon", arg);
    if (copy_is_folder(end->volume))
        return 0;
    for (size_t i = strlen(arg); i-- > 1;) {
        if (arg[i] != ':')
            continue;
        end->volume[i] = '\0';
        if (copy_is_folder(end->volume)) {
            end->path = arg[i + 1] != '\0' ? arg + i + 1 : "/";
            return 0;
        }
        end->volume[i] = ':';
    }
    colon = strchr(end->volume, ':');
    if (colon != NULL) {
        *colon = '\0';
        colon = strchr(arg, ':');
        end->path = colon[1] != '\0' ? colon + 1 : "/";
    }
    return 0;
}

/* --- a new volume ---------------------------------------------------------------- */

static int
copy_format(struct copy *cp, struct copy_job *job)
{
    struct kvfs_format_options options = {.engine = cp->c->o.engine, .force = cp->c->o.force};
    struct kvfs_volume_info info;
    int rc = cli_volume_judge(cp->c, job->dst.volume, cp->c->o.engine);

    if (rc < 0)
        return rc;
    kvfs_volume_info(cp->src, &info);
    options.block_size_bytes = info.block_size_bytes;
    return copy_volume_make(cp, job->dst.volume, &options, &job->made);
}

/* --- opening ----------------------------------------------------------------------- */

/* The target first: both may be one volume, and one handle can write or not. */
static int
copy_open(struct copy *cp, struct copy_job *job)
{
    struct kvfs_volume_options options = {.force = cp->c->o.force, .engine = cp->c->o.engine};
    struct kvfs_error *err = &cp->c->err;
    struct stat st;
    bool missing = stat(job->dst.volume, &st) < 0 && errno == ENOENT;
    int rc = 0;

    if (!missing)
        rc = kvfs_volume_open(job->dst.volume, &options, &cp->dst, err);
    if (rc == 0)
        rc = cli_volume_open(cp->c, job->src.volume, true, &cp->src);
    if (rc == 0)
        rc = kvfs_snapshot_open(cp->src, &cp->snapshot, err);
    if (rc == 0) {
        cp->src_path = job->src.path;
        rc = kvfs_path_lookup(cp->src, job->src.path, false, &job->attr, err); /* a link itself */
        if (rc < 0)
            (void)cli_about(err, rc, cp->c->args[0]);
    }
    if (rc == 0 && missing) {
        rc = copy_format(cp, job);
        if (rc == 0)
            rc = kvfs_volume_open(job->made.temp, &options, &cp->dst, err);
    }
    return rc;
}

/* --- placing ------------------------------------------------------------------------- */

static int
copy_exists(struct copy *cp, const struct copy_job *job, const char *name)
{
    return kvfs_error_set(&cp->c->err, -EEXIST, "%s: '%s' exists in the target", job->dst.volume,
                          name);
}

/* Decide where things go, and refuse what is there already before any work. */
static int
copy_place(struct copy *cp, struct copy_job *job)
{
    struct kvfs_error *err = &cp->c->err;
    struct cli_entries e = {NULL, 0, 0};
    struct kvfs_attr attr;
    int rc = kvfs_path_lookup(cp->dst, job->dst.path, true, &attr, err);

    job->children = job->attr.ino == KVFS_ROOT_INO && rc == 0 && S_ISDIR(attr.mode);
    if (!job->children) {
        rc = cli_place_find(cp->dst, job->dst.path, job->src.path, false, &job->place, err);
        if (rc == 0 && !S_ISDIR(job->attr.mode))
            rc = cli_place_file(&job->place, job->dst.path, err);
        return rc == 0 && job->place.exists ? copy_exists(cp, job, job->place.name) : rc;
    }
    job->place.dir = attr.ino;
    do {
        uint64_t cookie = e.count > 0 ? e.list[e.count - 1].cookie : 0;

        cli_entries_free(&e);
        rc = cli_entries_read(&e, cp->src, job->attr.ino, cookie, CLI_ENTRIES_MAX, err);
        for (size_t i = 0; i < e.count && rc == 0; i++) {
            rc = kvfs_lookup(cp->dst, job->place.dir, e.list[i].name, &attr, err);
            rc = rc == 0 ? copy_exists(cp, job, e.list[i].name) : rc == -ENOENT ? 0 : rc;
        }
    } while (rc == 0 && e.count == CLI_ENTRIES_MAX);
    cli_entries_free(&e);
    return rc;
}

/* Move the top names to where they belong. */
static int
copy_publish(struct copy *cp, const struct copy_job *job)
{
    struct cli_entries e = {NULL, 0, 0};
    int rc;

    do {
        cli_entries_free(&e);
        rc = cli_entries_read(&e, cp->dst, cp->stage, 0, CLI_ENTRIES_MAX, &cp->c->err);
        for (size_t i = 0; i < e.count && rc == 0; i++)
            rc = kvfs_rename(cp->dst, cp->stage, e.list[i].name, job->place.dir, e.list[i].name,
                             KVFS_RENAME_NOREPLACE, &cp->c->err);
    } while (rc == 0 && e.count > 0);
    cli_entries_free(&e);
    return rc;
}

/* --- the work ---------------------------------------------------------------------- */

static uint64_t
copy_estimate(struct copy *cp, const struct copy_job *job)
{
    struct kvfs_volume_info info;
    struct kvfs_volume_stat st;

    cp->single = S_ISREG(job->attr.mode);
    if (cp->single)
        return job->attr.size_bytes;
    if (job->attr.ino != KVFS_ROOT_INO || kvfs_volume_stat(cp->src, &st, NULL) < 0)
        return 0;
    kvfs_volume_info(cp->src, &info);
    return st.engine.data_records * info.block_size_bytes;
}

static int
copy_stage(struct copy *cp, const struct copy_job *job)
{
    struct kvfs_error *err = &cp->c->err;
    uint64_t total = copy_estimate(cp, job);
    int rc;

    cli_progress_start(&cp->progress, cp->c, "copy", total, true);
    if (job->children)
        rc = copy_children(cp, job->attr.ino, cp->stage);
    else
        rc = copy_tree(cp, job->attr.ino, cp->stage, job->place.name);
    if (rc == 0)
        rc = kvfs_volume_sync(cp->dst, err);
    cli_progress_end(&cp->progress);
    if (rc < 0)
        return rc;
    cli_progress_start(&cp->progress, cp->c, "verify", total, true);
    rc = copy_proof_verify(cp);
    cli_progress_end(&cp->progress);
    return rc;
}

static int
copy_work(struct copy *cp, struct copy_job *job)
{
    const struct kvfs_create create = {.mode = S_IFDIR | 0700, .uid = geteuid(), .gid = getegid()};
    struct kvfs_error *err = &cp->c->err;
    char stage[KVFS_NAME_MAX + 1];
    struct kvfs_attr attr;
    int rc = copy_place(cp, job);

    if (rc < 0)
        return rc;
    cli_temp_collect(cp->dst, job->place.dir);
    cli_temp_name("copy", stage);
    rc = kvfs_create(cp->dst, job->place.dir, stage, &create, &attr, err);
    if (rc < 0)
        return rc;
    cp->stage = attr.ino;
    rc = copy_stage(cp, job);
    if (rc == 0)
        rc = copy_publish(cp, job);
    if (rc == 0)
        rc = kvfs_rmdir(cp->dst, job->place.dir, stage, err);
    if (rc == 0 && job->children && job->made.target != NULL)
        rc = copy_attributes(cp, KVFS_ROOT_INO, KVFS_ROOT_INO);
    if (rc == 0)
        return kvfs_volume_sync(cp->dst, err);
    (void)cli_tree_remove(cp->dst, job->place.dir, stage, false, NULL);
    return rc;
}

static void
copy_report(const struct copy *cp)
{
    char text[CLI_SIZE_TEXT];

    if (cp->c->o.json) {
        struct json_object *obj = json_object_new_object();

        cli_json_u64(obj, "names", cp->names);
        cli_json_u64(obj, "files", cp->files);
        cli_json_u64(obj, "folders", cp->folders);
        cli_json_u64(obj, "others", cp->others);
        cli_json_u64(obj, "data_bytes", cp->bytes);
        (void)json_object_object_add(obj, "verified", json_object_new_boolean(true));
        cli_json_print_take(obj);
        return;
    }
    (void)printf("copied and verified: %" PRIu64 " names, %" PRIu64 " files, %" PRIu64
                 " folders, %" PRIu64 " others, %s of data\n",
                 cp->names, cp->files, cp->folders, cp->others, cli_size_text(cp->bytes, text));
}

static int
copy_run(struct cli *c)
{
    struct copy cp = {.c = c, .proofs = tmpfile(), .hash = XXH3_createState()};
    struct copy_job job = {.made = {.dir = -1, .fd = -1}};
    int rc = 0, status;

    cli_signals_catch();
    if (cp.proofs == NULL)
        rc = kvfs_error_set(&c->err, -errno, "temporary file: %s", strerrordesc_np(errno));
    else if (cp.hash == NULL)
        rc = kvfs_error_set(&c->err, -ENOMEM, "no memory");
    if (rc == 0)
        rc = copy_split(c, c->args[0], &job.src);
    if (rc == 0)
        rc = copy_split(c, c->args[1], &job.dst);
    if (rc == 0)
        rc = copy_open(&cp, &job);
    if (rc == 0)
        rc = copy_work(&cp, &job);
    status = rc < 0 ? cli_fail(c, rc) : CLI_OK;

    if (cp.snapshot != NULL)
        kvfs_snapshot_close(cp.snapshot);
    if (cp.src != NULL)
        (void)kvfs_volume_close(cp.src, NULL); /* the target, if it is the same, stays open */
    if (cp.dst != NULL)
        status = cli_volume_close(c, cp.dst, status);
    if (status == CLI_OK && job.made.target != NULL && (rc = copy_volume_name(&cp, &job.made)) < 0)
        status = cli_fail(c, rc);
    if (status == CLI_OK)
        copy_report(&cp);
    copy_volume_end(&job.made);
    copy_tree_free(&cp);
    (void)XXH3_freeState(cp.hash);
    if (cp.proofs != NULL)
        (void)fclose(cp.proofs);
    free(job.src.volume);
    free(job.dst.volume);
    return status;
}

static const struct cli_option copy_options[] = {
    CLI_VALUE(0, "engine", "NAME", engine, "engine of a target that is made, or must be"),
    CLI_NETWORK,
    CLI_JSON,
    CLI_QUIET,
    CLI_LAST,
};

const struct cli_command cli_copy = {
    "copy", "SRC-VOLUME[:PATH] DST-VOLUME[:PATH]", "copy files or a whole volume",
    "Without a PATH all of the volume is meant; a PATH that is a symbolic link means the link\n"
    "itself.  A target volume whose folder is missing is made, with the source's block size.\n"
    "What is copied keeps names, hard and symbolic links, attributes, times and holes; it is\n"
    "read back and compared before it appears.  Nothing that is in the target is replaced.\n",
    copy_options, 2, 2, copy_run,
};
