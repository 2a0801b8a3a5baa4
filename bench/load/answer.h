/* SPDX-License-Identifier: BSD-3-Clause
 *
 * answer.h - one line of JSON on stdout.
 */
#ifndef KVFS_LOAD_ANSWER_H
#define KVFS_LOAD_ANSWER_H

#include <stdbool.h>
#include <stdint.h>

#include "histogram.h"
#include "watch.h"

/* A line is answer_begin(), members, answer_end(), which flushes it.  KEY NULL: an element of a
 * list.  Numbers that are not finite become null. */
void answer_begin(const char *phase);
void answer_text(const char *key, const char *value); /* NULL: null */
void answer_u64(const char *key, uint64_t value);
void answer_double(const char *key, double value);
void answer_bool(const char *key, bool value);
void answer_null(const char *key);
void answer_object(const char *key);
void answer_object_end(void);
void answer_list(const char *key);
void answer_list_end(void);
/* {"p50","p99","p999","max","histogram":[[upper_ns,count],...]} */
void answer_latency(const char *key, const struct histogram *h);
/* The names of enum kvfs_cap in CAPS, as `kvfs engines --json` has them. */
void answer_caps(const char *key, uint32_t caps);
/* cpu_seconds, context_switches, own_bytes_max, file_bytes_max */
void answer_cost(const struct watch_counters *cost, struct watch *watch);
void answer_end(void);

#endif /* KVFS_LOAD_ANSWER_H */
