/* SPDX-License-Identifier: BSD-3-Clause */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include <kvfs/engine.h>

#include "answer.h"

static bool answer_first;

static void
answer_string(const char *text)
{
    (void)putchar('"');
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;

        if (c == '"' || c == '\\')
            (void)printf("\\%c", c);
        else if (c < 0x20 || c >= 0x7f)
            (void)printf("\\u%04x", c < 0x80 ? c : '?');
        else
            (void)putchar(c);
    }
    (void)putchar('"');
}

static void
answer_key(const char *key)
{
    if (!answer_first)
        (void)putchar(',');
    answer_first = false;
    if (key == NULL)
        return;
    answer_string(key);
    (void)putchar(':');
}

void
answer_begin(const char *phase)
{
    (void)putchar('{');
    answer_first = true;
    answer_text("phase", phase);
}

void
answer_text(const char *key, const char *value)
{
    answer_key(key);
    if (value != NULL)
        answer_string(value);
    else
        (void)fputs("null", stdout);
}

void
answer_u64(const char *key, uint64_t value)
{
    answer_key(key);
    (void)printf("%" PRIu64, value);
}

void
answer_double(const char *key, double value)
{
    answer_key(key);
    if (isfinite(value))
        (void)printf("%.6f", value);
    else
        (void)fputs("null", stdout);
}

void
answer_bool(const char *key, bool value)
{
    answer_key(key);
    (void)fputs(value ? "true" : "false", stdout);
}

void
answer_null(const char *key)
{
    answer_text(key, NULL);
}

void
answer_object(const char *key)
{
    answer_key(key);
    (void)putchar('{');
    answer_first = true;
}

void
answer_object_end(void)
{
    (void)putchar('}');
    answer_first = false;
}

void
answer_list(const char *key)
{
    answer_key(key);
    (void)putchar('[');
    answer_first = true;
}

void
answer_list_end(void)
{
    (void)putchar(']');
    answer_first = false;
}

void
answer_latency(const char *key, const struct histogram *h)
{
    answer_object(key);
    answer_u64("p50", histogram_percentile_ns(h, 0.5));
    answer_u64("p99", histogram_percentile_ns(h, 0.99));
    answer_u64("p999", histogram_percentile_ns(h, 0.999));
    answer_u64("max", h->max_ns);
    answer_list("histogram");
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        if (h->buckets[i] == 0)
            continue;
        answer_list(NULL);
        answer_u64(NULL, histogram_upper_ns(i));
        answer_u64(NULL, h->buckets[i]);
        answer_list_end();
    }
    answer_list_end();
    answer_object_end();
}

void
answer_caps(const char *key, uint32_t caps)
{
    static const struct {
        uint32_t cap;
        const char *name;
    } names[] = {
        {KVFS_CAP_PERSISTENT, "persistent"},     {KVFS_CAP_ORDERED, "ordered"},
        {KVFS_CAP_DURABLE, "durable"},           {KVFS_CAP_MULTIPROCESS, "multiprocess"},
        {KVFS_CAP_FORK, "fork"},                 {KVFS_CAP_COUNTS, "counts"},
    };

    answer_list(key);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (caps & names[i].cap)
            answer_text(NULL, names[i].name);
    answer_list_end();
}

void
answer_cost(const struct watch_counters *cost, struct watch *watch)
{
    answer_double("cpu_seconds", (double)cost->cpu_ns * 1e-9);
    answer_u64("context_switches", cost->switches);
    answer_u64("own_bytes_max", atomic_load(&watch->own_max));
    answer_u64("file_bytes_max", atomic_load(&watch->file_max));
}

void
answer_end(void)
{
    (void)puts("}");
    (void)fflush(stdout);
}
