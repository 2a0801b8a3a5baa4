/* SPDX-License-Identifier: BSD-3-Clause
 *
 * A library that is no engine.
 */
int kvfs_engine_pluginn(void); /* nearly the right name */

int
kvfs_engine_pluginn(void)
{
    return 0;
}
