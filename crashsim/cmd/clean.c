/* SPDX-License-Identifier: BSD-3-Clause
 *
 * clean.c - `crashsim clean`: what killed runs left behind.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cmd.h"
#include "rundir.h"

#define CLEAN_ENDING 1 /* an exit status */

static bool clean_json, clean_dry;
static const char *clean_tmp;
static struct json_object *clean_list;

static void
clean_tell(const char *path, int error)
{
    if (error == -ETIMEDOUT)
        cmd_say("%s: something of it is still ending", path);
    else if (error < 0)
        (void)cmd_error("%s: %s", path, strerrordesc_np(-error));
    else if (clean_json)
        (void)json_object_array_add(clean_list, json_object_new_string(path));
    else
        (void)printf("%s %s\n", clean_dry ? "would remove" : "removed", path);
}

static int
clean_run(int argc, char **argv)
{
    const char *tmpdir = getenv("TMPDIR"); /* NOLINT(concurrency-mt-unsafe): nobody sets it */
    const char *parents[] = {tmpdir, "/tmp", "/dev/shm", "/var/tmp"};
    struct rundir_swept swept = {0};
    struct stat seen[4] = {0}, st;
    bool failed = false, ending = false;
    size_t from = 0, to = 4;

    (void)argc;
    (void)argv;
    clean_list = json_object_new_array();
    if (clean_tmp != NULL) {
        parents[0] = clean_tmp;
        to = 1;
    } else if (tmpdir == NULL || tmpdir[0] == '\0') {
        from = 1;
    }
    for (size_t i = from; i < to; i++) {
        bool again = false;
        int r;

        if (stat(parents[i], &st) < 0) {
            if (i == 0)
                failed = cmd_error("%s: no such folder", parents[i]) != CMD_OK;
            continue;
        }
        for (size_t k = from; k < i; k++)
            again |= seen[k].st_ino == st.st_ino && seen[k].st_dev == st.st_dev;
        seen[i] = st;
        r = again ? 0 : rundir_sweep(parents[i], clean_dry, clean_tell, &swept);
        ending |= r == -ETIMEDOUT;
        failed |= r < 0 && r != -ETIMEDOUT;
    }
    if (clean_json) {
        struct json_object *obj = json_object_new_object();

        (void)json_object_object_add(obj, "folders", json_object_get(clean_list));
        cmd_json_u64(obj, "processes", swept.processes);
        cmd_json_u64(obj, "mounts", swept.mounts);
        cmd_json_u64(obj, "loops", swept.loops);
        cmd_json_print_take(obj);
    }
    (void)json_object_put(clean_list);
    return failed ? CMD_USAGE : ending ? CLEAN_ENDING : CMD_OK;
}

static const struct cmd_option clean_options[] = {
    {"dry-run", CMD_SWITCH, 'n', NULL, "only tell what would be removed", &clean_dry},
    {"tmp", CMD_TEXT, 0, "FOLDER", "look there only", &clean_tmp},
    {"json", CMD_SWITCH, 0, NULL, "print JSON", &clean_json},
    {NULL, CMD_SWITCH, 0, NULL, NULL, NULL},
};

const struct cmd cmd_clean = {
    .name = "clean",
    .synopsis = "",
    .summary = "Remove what killed runs left: processes, mounts, loop devices, folders",
    .details = "Looks below $TMPDIR, /tmp, /dev/shm and /var/tmp, and takes down only folders\n"
               "crashsim-PID.XXXXXX whose run is dead.\n",
    .options = clean_options,
    .run = clean_run,
};
