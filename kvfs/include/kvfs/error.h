/* SPDX-License-Identifier: BSD-3-Clause
 *
 * error.h - the one error idiom: a negative errno plus one line of context.
 */
#ifndef KVFS_ERROR_H
#define KVFS_ERROR_H

#include <stdarg.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Error text for one call chain.  The caller owns it, usually on its stack;
 * nothing is allocated.  A NULL pointer means "only the code, please". */
struct kvfs_error {
    int code;      /* negative errno; 0 while no error is recorded */
    char msg[252]; /* NUL-terminated, no newline, outermost context first */
};

/* Record CODE (a negative errno) and a message, then return CODE, so that a
 * function can end in `return kvfs_error_set(err, -EIO, "...", ...)`.
 *
 * Overwrites what ERR held; ERR->msg may be among the arguments, to put context
 * before it.  Longer messages lose their middle; control characters become '?'.
 */
int kvfs_error_set(struct kvfs_error *err, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#ifdef __clang_analyzer__ /* it looks at one file at a time: CODE is what comes back */
#define kvfs_error_set(err, code, ...) ((void)(kvfs_error_set)(err, code, __VA_ARGS__), (code))
#endif

#ifdef __cplusplus
}
#endif

#endif /* KVFS_ERROR_H */
