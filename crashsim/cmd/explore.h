/* SPDX-License-Identifier: BSD-3-Clause
 *
 * explore.h - states, one after the other, with a check on each.
 */
#ifndef CRASHSIM_EXPLORE_H
#define CRASHSIM_EXPLORE_H

#include "check.h"
#include "cmd.h"
#include "plan.h"
#include "rundir.h"
#include "source.h"

struct explore_options {
    struct plan plan;
    struct check check;
    uint64_t states, seconds, findings, shrink, jobs; /* limits; seconds 0: none */
    const char *at, *choice, *base; /* as given, or NULL */
    bool quiet, json;
    uint64_t size;
};

struct explore_finding {
    uint32_t at;
    size_t marks, open;
    enum plan_kind kind;
    bool repeated; /* it failed again with the same state */
    bool spoilt;   /* no disk may leave such a state */
    char *choice, *small; /* before and after shrinking */
    uint64_t tests;
    struct check_result result;
    char **changes; /* what the shrunk choice is about, a line each; NULL ends it */
    bool changes_kept, changes_more;
};

struct explore_report {
    uint64_t states, distinct, repeated, kinds[PLAN_KINDS]; /* legal ones */
    uint64_t spoilt; /* states apart from these, that no disk may leave */
    uint64_t slow;   /* checks that took too long once, and not when they were alone */
    size_t cuts, cuts_count; /* visited, of so many */
    uint64_t open_max;
    double seconds;
    bool exhausted; /* nothing but random ones is left */
    struct explore_finding *findings;
    size_t findings_count, spoilt_count; /* spoilt_count: of them on spoilt states */
};

/* CMD_OK, CMD_VIOLATIONS or CMD_USAGE (after one line); the report is filled in all cases. */
int explore_all(struct source *s, const struct explore_options *o, struct rundir *dir,
                struct explore_report *report);
void explore_report_free(struct explore_report *report);

/* --- report.c --- */
void report_finding(const struct source *s, const struct explore_options *o,
                    const struct explore_finding *f, size_t number);
void report_end(const struct source *s, const struct explore_options *o,
                const struct explore_report *report);

#endif /* CRASHSIM_EXPLORE_H */
