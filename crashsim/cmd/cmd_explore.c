/* SPDX-License-Identifier: BSD-3-Clause
 *
 * cmd_explore.c - `crashsim explore`: a check on many states of a recording.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "explore.h"

#define COMMAND_JOBS_MAX     256
#define COMMAND_FINDINGS_MAX 1000
#define COMMAND_SHM          "/dev/shm"

static struct explore_options command = {
    .states = 1000, .findings = 1, .shrink = 500,
    .check = {.timeout_s = CHECK_TIMEOUT_S},
};
static const char *command_tear = "512", *command_tmp;
#define COMMAND_UNSET UINT64_MAX
static uint64_t command_jobs = COMMAND_UNSET, command_seconds = COMMAND_UNSET;

static int
command_check_options(int argc, char **argv)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);

    if (!crashsim_choice_parse_tear(command_tear, &command.plan.tear))
        return cmd_error("--tear takes none, 512, 4096, byte or garbage, not '%s'", command_tear);
    if (command_jobs == 0 || (command_jobs != COMMAND_UNSET && command_jobs > COMMAND_JOBS_MAX))
        return cmd_error("--jobs takes a number from 1 to %d", COMMAND_JOBS_MAX);
    if (command.findings == 0 || command.findings > COMMAND_FINDINGS_MAX)
        return cmd_error("--findings takes a number from 1 to %d", COMMAND_FINDINGS_MAX);
    if (command.states == 0)
        return cmd_error("--states takes a number from 1");
    if (command_seconds == 0)
        return cmd_error("--seconds takes a number from 1");
    if (command.choice != NULL && command.at == NULL)
        return cmd_error("--choice is of a cut: --at=CUT is missing");
    command.seconds = command_seconds == COMMAND_UNSET ? 0 : command_seconds;
    command.jobs = command_jobs != COMMAND_UNSET ? command_jobs : cpus < 1 ? 1 : cpus > 64 ? 64 : (uint64_t)cpus;
    if (command.choice != NULL) { /* shown again, not looked for */
        command.jobs = 1;
        command.shrink = 0;
    }
    command.check.argv = argv + 1;
    return argc > 1 ? CMD_OK : cmd_error("a check command is missing behind '--'");
}

/* States are many and short-lived: in memory, if there is room for them. */
static const char *
command_folder(const char *file)
{
    const char *tmpdir = getenv("TMPDIR"); /* NOLINT(concurrency-mt-unsafe): nobody sets it */
    struct statvfs fs;
    struct stat st;
    uint64_t need = UINT64_C(64) << 20;

    if (command_tmp != NULL)
        return command_tmp;
    if (tmpdir != NULL && tmpdir[0] != '\0')
        return tmpdir;
    if (stat(file, &st) == 0)
        need += (uint64_t)st.st_blocks * 512 * (command.jobs + 1);
    if (command.base != NULL && stat(command.base, &st) == 0)
        need += (uint64_t)st.st_blocks * 512 * (command.jobs + 1);
    if (statvfs(COMMAND_SHM, &fs) == 0 && (uint64_t)fs.f_bavail * fs.f_frsize / 2 > need &&
        access(COMMAND_SHM, W_OK | X_OK) == 0)
        return COMMAND_SHM;
    return NULL;
}

static int
command_run(int argc, char **argv)
{
    struct explore_report report = {0};
    struct rundir *dir;
    struct source *s;
    int status = command_check_options(argc, argv), r;

    if (status != CMD_OK)
        return status;
    cmd_signals_catch();
    r = rundir_open(command_folder(argv[0]), &dir);
    if (r < 0)
        return cmd_error("a folder for states: %s", strerrordesc_np(-r));
    status = source_open(argv[0], command.base, command.size, rundir_path(dir), &s);
    if (status == CMD_OK) {
        if (s->ended[0] != '\0')
            cmd_say("%s: the command %s; it has what was done until then", s->file, s->ended);
        if (!s->spoils && command.plan.tear >= CRASHSIM_TEAR_BYTE)
            status = cmd_error("%s: the tears byte and garbage are for disks", s->file);
        else
            status = explore_all(s, &command, dir, &report);
        if (status != CMD_USAGE || report.findings_count > 0)
            report_end(s, &command, &report);
        explore_report_free(&report);
        source_close(s);
    }
    r = rundir_close(dir);
    if (r < 0 && status == CMD_OK)
        status = cmd_error("temporary files: %s", strerrordesc_np(-r));
    return status;
}

static const struct cmd_option command_options[] = {
    {"base", CMD_TEXT, 0, "DISK", "what was there before; default: nothing", &command.base},
    {"size", CMD_SIZE, 0, "SIZE", "of the disk, where the recording does not say it",
     &command.size},
    {"states", CMD_NUMBER, 0, "N", "look at so many states; default 1000", &command.states},
    {"seconds", CMD_NUMBER, 0, "S", "for so long; default: no limit", &command_seconds},
    {"seed", CMD_NUMBER, 0, "N", "of everything random; default 0", &command.plan.seed},
    {"tear", CMD_TEXT, 0, "TEAR", "none, 512 (default), 4096, byte or garbage", &command_tear},
    {"jobs", CMD_NUMBER, 'j', "N", "checks at once; default: one a processor", &command_jobs},
    {"timeout", CMD_NUMBER, 0, "S", "of a check; default 60, 0: none",
     &command.check.timeout_s},
    {"findings", CMD_NUMBER, 0, "N", "stop behind so many violations; default 1",
     &command.findings},
    {"shrink", CMD_NUMBER, 0, "N", "shrink with at most N checks; default 500, 0: not at all",
     &command.shrink},
    {"at", CMD_TEXT, 0, "CUT", "only there: LINE, mark:NAME, cut or end", &command.at},
    {"choice", CMD_TEXT, 0, "CHOICE", "only this state", &command.choice},
    {"tmp", CMD_TEXT, 0, "FOLDER", "for states; default: $TMPDIR, or in memory", &command_tmp},
    {"quiet", CMD_SWITCH, 'q', NULL, "no line of progress", &command.quiet},
    {"json", CMD_SWITCH, 0, NULL, "print JSON", &command.json},
    {NULL, CMD_SWITCH, 0, NULL, NULL, NULL},
};

const struct cmd cmd_explore = {
    .name = "explore",
    .synopsis = "RECORDING -- CHECK-COMMAND",
    .summary = "Run a check on the states that cuts may have left",
    .details = "The command gets the state's name in place of each {}, or as its last argument, and in\n"
               "CRASHSIM_MARKS the name of a file with the marks in front of the cut.  Exit status\n"
               "0 is good; another, a signal or the time limit is a violation.\n",
    .options = command_options,
    .args_min = 1,
    .args_max = -1,
    .run = command_run,
};
