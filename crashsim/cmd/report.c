/* SPDX-License-Identifier: BSD-3-Clause
 *
 * report.c - what `crashsim explore` found, in words and as JSON.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "explore.h"

#define REPORT_LINES 8 /* of a check's output */

static void
report_path(FILE *out, const char *path)
{
    char *real = realpath(path, NULL);

    cmd_quote(out, real != NULL ? real : path);
    free(real);
}

/* The command that shows the finding again; malloced or NULL. */
static char *
report_command(const struct source *s, const struct explore_options *o,
               const struct explore_finding *f)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    if (out == NULL)
        return NULL;
    (void)fputs("crashsim explore ", out);
    report_path(out, s->file);
    if (o->base != NULL) {
        (void)fputs(" --base=", out);
        report_path(out, o->base);
    }
    if (o->size != 0)
        (void)fprintf(out, " --size=%" PRIu64, o->size);
    if (o->check.timeout_s != CHECK_TIMEOUT_S)
        (void)fprintf(out, " --timeout=%" PRIu64, o->check.timeout_s);
    (void)fprintf(out, " --at=%u --choice=", f->at);
    cmd_quote(out, f->small != NULL ? f->small : "?");
    (void)fputs(" --", out);
    for (char **arg = o->check.argv; *arg != NULL; arg++) {
        (void)fputc(' ', out);
        cmd_quote(out, *arg);
    }
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}

static const char *
report_mark(const struct source *s, const struct explore_finding *f)
{
    return f->marks > 0 ? s->marks[f->marks - 1].name : "";
}

/* The last lines of OUTPUT; --json has more. */
static void
report_tail(const char *output)
{
    const char *from = output + strlen(output);
    unsigned lines = 0;

    while (from > output && !(from[-1] == '\n' && *from != '\0' && ++lines == REPORT_LINES))
        from--;
    while (*from != '\0') {
        size_t len = strcspn(from, "\n");

        (void)printf("    | %.*s\n", (int)len, from);
        from += len + (from[len] == '\n');
    }
}

void
report_finding(const struct source *s, const struct explore_options *o,
               const struct explore_finding *f, size_t number)
{
    char *command = report_command(s, o, f), what[64];

    check_describe(&f->result, what, sizeof(what));
    (void)printf("%s %zu: %s on the state behind line %u%s%s%s, %zu changes open, %s\n",
                 f->spoilt ? "failure on a spoilt state, which no disk may leave," : "violation",
                 number, what, f->at, f->marks > 0 ? " (mark '" : "", report_mark(s, f),
                 f->marks > 0 ? "')" : "", f->open, f->choice != NULL ? f->choice : "?");
    report_tail(f->result.tail);
    if (!f->repeated)
        (void)printf("  the same state did not fail again: the check does not answer alike\n");
    if (f->tests > 0)
        (void)printf("  shrunk with %" PRIu64 " checks to %s, %s:\n", f->tests,
                     f->small != NULL ? f->small : "?",
                     f->changes_kept ? "which keeps only" : "which drops only");
    for (size_t i = 0; f->tests > 0 && f->changes != NULL && f->changes[i] != NULL; i++)
        (void)printf("    %s\n", f->changes[i]);
    if (f->tests > 0 && f->changes_more)
        (void)printf("    ...\n");
    if (f->tests > 0 && (f->changes == NULL || f->changes[0] == NULL))
        (void)printf("    nothing\n");
    (void)printf("  again: %s\n", command != NULL ? command : "?");
    (void)fflush(stdout);
    free(command);
}

static struct json_object *
report_json_finding(const struct source *s, const struct explore_options *o,
                    const struct explore_finding *f)
{
    struct json_object *obj = json_object_new_object(), *changes = json_object_new_array();
    char *command = report_command(s, o, f), what[64];

    check_describe(&f->result, what, sizeof(what));
    cmd_json_u64(obj, "at", f->at);
    cmd_json_text(obj, "mark", report_mark(s, f));
    cmd_json_u64(obj, "open", f->open);
    cmd_json_text(obj, "kind", plan_kind_names[f->kind]);
    cmd_json_text(obj, "choice", f->choice != NULL ? f->choice : "");
    cmd_json_text(obj, "result", what);
    cmd_json_text(obj, "output", f->result.tail);
    (void)json_object_object_add(obj, "repeated", json_object_new_boolean(f->repeated));
    cmd_json_text(obj, "shrunk", f->small != NULL ? f->small : "");
    cmd_json_u64(obj, "shrink_checks", f->tests);
    for (size_t i = 0; f->changes != NULL && f->changes[i] != NULL; i++)
        (void)json_object_array_add(changes, json_object_new_string(f->changes[i]));
    (void)json_object_object_add(obj, f->changes_kept ? "kept" : "dropped", changes);
    cmd_json_text(obj, "command", command != NULL ? command : "");
    free(command);
    return obj;
}

static void
report_json(const struct source *s, const struct explore_options *o,
            const struct explore_report *r)
{
    struct json_object *obj = json_object_new_object(), *kinds = json_object_new_object();
    struct json_object *findings = json_object_new_array(), *spoilt = json_object_new_array();

    cmd_json_text(obj, "recording", s->file);
    cmd_json_text(obj, "ended", s->ended);
    cmd_json_u64(obj, "seed", o->plan.seed);
    cmd_json_text(obj, "tear", crashsim_choice_tear_name(o->plan.tear));
    cmd_json_u64(obj, "states", r->states);
    cmd_json_u64(obj, "distinct", r->distinct);
    cmd_json_u64(obj, "repeated", r->repeated);
    cmd_json_u64(obj, "spoilt", r->spoilt);
    cmd_json_u64(obj, "slow", r->slow);
    cmd_json_u64(obj, "cuts", r->cuts);
    cmd_json_u64(obj, "cuts_total", r->cuts_count);
    cmd_json_u64(obj, "open_max", r->open_max);
    for (int k = 0; k < PLAN_KINDS; k++)
        cmd_json_u64(kinds, plan_kind_names[k], r->kinds[k]);
    (void)json_object_object_add(obj, "kinds", kinds);
    (void)json_object_object_add(obj, "exhausted", json_object_new_boolean(r->exhausted));
    (void)json_object_object_add(obj, "seconds", json_object_new_double(r->seconds));
    (void)json_object_object_add(obj, "states_per_second",
                                 json_object_new_double((double)(r->states + r->spoilt) /
                                                        (r->seconds + 1e-9)));
    for (size_t i = 0; i < r->findings_count; i++)
        (void)json_object_array_add(r->findings[i].spoilt ? spoilt : findings,
                                    report_json_finding(s, o, &r->findings[i]));
    (void)json_object_object_add(obj, "violations", findings);
    (void)json_object_object_add(obj, "spoilt_failures", spoilt);
    cmd_json_print_take(obj);
}

void
report_end(const struct source *s, const struct explore_options *o, const struct explore_report *r)
{
    size_t violations = r->findings_count - r->spoilt_count;

    if (o->json) {
        report_json(s, o, r);
        return;
    }
    (void)printf("%" PRIu64 " states (%" PRIu64 " distinct) of %zu of %zu cuts in %.1f s, %.0f/s, "
                 "seed %" PRIu64 ": %zu violation%s%s\n", r->states, r->distinct, r->cuts,
                 r->cuts_count, r->seconds,
                 (double)(r->states + r->spoilt) / (r->seconds + 1e-9), o->plan.seed, violations,
                 violations == 1 ? "" : "s",
                 r->exhausted && r->findings_count == 0 && o->choice == NULL
                     ? " (there are no others, but random ones)" : "");
    if (r->spoilt > 0)
        (void)printf("apart from these, %" PRIu64 " spoilt states, which no disk may leave: %zu failed\n",
                     r->spoilt, r->spoilt_count);
    if (r->slow > 0)
        (void)printf("%" PRIu64 " checks took too long once, and were good alone\n", r->slow);
}
