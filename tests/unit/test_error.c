/* SPDX-License-Identifier: BSD-3-Clause
 *
 * kvfs_error_set: one code, one line.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <kvfs/error.h>

static void
error_set__code_and_text__both_kept_and_code_returned(void **state)
{
    struct kvfs_error err = {.code = 0};

    (void)state;
    assert_int_equal(kvfs_error_set(&err, -EIO, "%s: block %d", "disk0", 17), -EIO);
    assert_int_equal(err.code, -EIO);
    assert_string_equal(err.msg, "disk0: block 17");
}

static void
error_set__null__only_the_code(void **state)
{
    (void)state;
    assert_int_equal(kvfs_error_set(NULL, -ENOSPC, "%s", "nobody reads this"), -ENOSPC);
}

static void
error_set__own_message_as_argument__context_goes_before_it(void **state)
{
    struct kvfs_error err;

    (void)state;
    (void)kvfs_error_set(&err, -EIO, "page 3 is damaged");
    (void)kvfs_error_set(&err, err.code, "volume /v: %s", err.msg);
    assert_int_equal(err.code, -EIO);
    assert_string_equal(err.msg, "volume /v: page 3 is damaged");
}

static void
error_set__too_long__cut_and_terminated(void **state)
{
    char text[1000];
    struct kvfs_error err;

    (void)state;
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    memset(&err, 0xff, sizeof(err));
    (void)kvfs_error_set(&err, -E2BIG, "%s", text);
    assert_in_range(strlen(err.msg), sizeof(err.msg) - 4, sizeof(err.msg) - 1);
    assert_memory_equal(err.msg, text, 100);
    /* Both ends are there: a long path does not hide what is wrong with it. */
    (void)kvfs_error_set(&err, -E2BIG, "here: %s: a page is damaged", text);
    assert_in_range(strlen(err.msg), sizeof(err.msg) - 4, sizeof(err.msg) - 1);
    assert_memory_equal(err.msg, "here: xxx", 9);
    assert_non_null(strstr(err.msg, "x...x"));
    assert_string_equal(strrchr(err.msg, 'x'), "x: a page is damaged");
}

static void
error_set__control_characters__still_one_line(void **state)
{
    struct kvfs_error err;

    (void)state;
    (void)kvfs_error_set(&err, -EINVAL, "name '%s'", "a\nb\x1b[2Jc\x7f\xc3\xa4");
    assert_string_equal(err.msg, "name 'a?b?[2Jc?\xc3\xa4'");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(error_set__code_and_text__both_kept_and_code_returned),
        cmocka_unit_test(error_set__null__only_the_code),
        cmocka_unit_test(error_set__own_message_as_argument__context_goes_before_it),
        cmocka_unit_test(error_set__too_long__cut_and_terminated),
        cmocka_unit_test(error_set__control_characters__still_one_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
