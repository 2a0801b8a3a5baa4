/* SPDX-License-Identifier: BSD-3-Clause
 *
 * words.h - NAME=VALUE, on a command line or in a line of stdin.
 */
#ifndef KVFS_LOAD_WORDS_H
#define KVFS_LOAD_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <kvfs/error.h>

/* Is WORD "NAME=..."?  *VALUE is what follows. */
bool word_is(const char *word, const char *name, const char **value);

/* The functions below answer 0, or -EINVAL and a line in ERR that names the word. */

/* A whole number MIN .. MAX; a suffix K, M, G or T multiplies. */
int word_number(const char *word, const char *value, uint64_t min, uint64_t max, uint64_t *number,
                struct kvfs_error *err);
/* A decimal fraction 0 .. MAX. */
int word_seconds(const char *word, const char *value, double max, double *number,
                 struct kvfs_error *err);
/* One of CHOICES, which NULL ends; *index is its place. */
int word_choice(const char *word, const char *value, const char *const *choices, unsigned *index,
                struct kvfs_error *err);
/* NAME[,PARAMS]: the name into BUF, *PARAMS behind the comma or NULL. */
int word_engine(const char *word, const char *value, char *buf, size_t cap, const char **params,
                struct kvfs_error *err);

#endif /* KVFS_LOAD_WORDS_H */
