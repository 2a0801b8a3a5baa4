/* SPDX-License-Identifier: BSD-3-Clause
 *
 * check.h - the check command, run on a state in a process of its own.
 */
#ifndef CRASHSIM_CHECK_H
#define CRASHSIM_CHECK_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define CHECK_TAIL      2048 /* bytes of output that are kept */
#define CHECK_TIMEOUT_S 60   /* where nothing is said */

struct check { /* the command, and its limit */
    char **argv;
    uint64_t timeout_s; /* 0: none */
    bool loud;          /* its output goes to ours */
};

struct check_job {
    char state[PATH_MAX];  /* the file or folder */
    char marks[PATH_MAX];  /* a file with the marks in front of the cut */
    char output[PATH_MAX]; /* where its output goes */
    pid_t pid;             /* 0: not running */
    int pidfd;
    int64_t deadline_ns;
};

struct check_result {
    bool good, timed_out;
    int status;            /* as wait() says */
    char tail[CHECK_TAIL]; /* of the output */
};

/* Run it on JOB's state: each {} in an argument stands for the state's name, which else comes last.
 * 0 or a negative errno. */
int check_start(const struct check *c, struct check_job *job, uint32_t at);
/* Wait for the end of one of COUNT jobs of which one runs at least; *DONE is that job.
 * -EINTR: a signal asks to stop; the jobs run on. */
int check_wait(struct check_job *jobs, size_t count, struct check_job **done,
               struct check_result *result);
/* End all that run. */
void check_kill(struct check_job *jobs, size_t count);
/* "exit status 1", "signal 11", "time limit"; into TEXT. */
void check_describe(const struct check_result *r, char *text, size_t size);

#endif /* CRASHSIM_CHECK_H */
