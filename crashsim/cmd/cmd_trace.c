/* SPDX-License-Identifier: BSD-3-Clause
 *
 * cmd_trace.c - `crashsim trace`: record what a command does to the files below a folder.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd.h"
#include "rundir.h"
#include "trace_file.h"
#include "tracer.h"

static const char *trace_out, *trace_folder = ".";

static int
trace_command(struct calls *calls, char **argv, bool *ran)
{
    char what[TRACE_END_MAX + 1];
    const char *unseen;
    int status = 0, r = tracer_run(calls, argv, &status);

    *ran = r == 0;
    trace_record_look(calls->record);
    unseen = trace_record_what_unseen(calls->record);
    if (r < 0)
        (void)snprintf(what, sizeof(what), "cannot be run or traced: %s", strerrordesc_np(-r));
    else if (unseen != NULL)
        (void)snprintf(what, sizeof(what), "did what a trace does not know: %s", unseen);
    else if (WIFSIGNALED(status))
        (void)snprintf(what, sizeof(what), "was ended by signal %d", WTERMSIG(status));
    else if (WEXITSTATUS(status) != 0)
        (void)snprintf(what, sizeof(what), "ended with exit status %d", WEXITSTATUS(status));
    else
        return CMD_OK;
    trace_record_end(calls->record, what, r < 0 || unseen != NULL);
    return r < 0 || unseen != NULL
               ? cmd_error("%s %s", argv[0], what)
               : cmd_error("%s %s; %s has what it did until then", argv[0], what, trace_out);
}

/* The file that takes marks, and its name where the command finds it. */
static int
trace_marks(struct rundir *dir, struct calls *calls)
{
    char marks[PATH_MAX];
    int fd = open(rundir_file(dir, "marks", marks, sizeof(marks)),
                  O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (fd < 0 || fstat(fd, &calls->marks) < 0)
        return -errno;
    (void)close(fd);
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): one thread runs */
    return setenv("CRASHSIM_MARKS", marks, 1) < 0 ? -errno : 0;
}

static int
trace_run(int argc, char **argv)
{
    struct calls calls = {.record = NULL};
    struct rundir *dir;
    int status, r;

    (void)argc;
    if (trace_out == NULL)
        return cmd_error("--out=TRACE is missing");
    cmd_signals_catch();
    r = rundir_open(NULL, &dir);
    if (r < 0)
        return cmd_error("a folder for temporary files: %s", strerrordesc_np(-r));
    r = trace_marks(dir, &calls);
    if (r == 0)
        r = trace_record_open(trace_out, trace_folder, &calls.record);
    if (r < 0) {
        status = cmd_error("%s, of %s: %s", trace_out, trace_folder, strerrordesc_np(-r));
    } else {
        bool ran = false;

        status = trace_command(&calls, argv, &ran);
        r = trace_record_close(calls.record);
        if (!ran)
            (void)unlink(trace_out);
        if (r < 0)
            status = cmd_error("%s: %s", trace_out, strerrordesc_np(-r));
    }
    r = rundir_close(dir);
    if (r < 0 && status == CMD_OK)
        status = cmd_error("temporary files: %s", strerrordesc_np(-r));
    return status;
}

static const struct cmd_option trace_options[] = {
    {"out", CMD_TEXT, 'o', "TRACE", "where the trace goes; nothing may be there", &trace_out},
    {"folder", CMD_TEXT, 'C', "FOLDER", "of the files; default: the present one", &trace_folder},
    {NULL, CMD_SWITCH, 0, NULL, NULL, NULL},
};

const struct cmd cmd_trace = {
    .name = "trace",
    .synopsis = "-- COMMAND",
    .summary = "Record what a command does to the files below a folder",
    .details = "Without root.  `crashsim explore TRACE` makes states of it.  The command appends marks,\n"
               "a line each, to the file that CRASHSIM_MARKS names.\n",
    .options = trace_options,
    .args_min = 1,
    .args_max = -1,
    .run = trace_run,
};
