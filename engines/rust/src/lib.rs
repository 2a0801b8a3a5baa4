// SPDX-License-Identifier: BSD-3-Clause
//! The jammdb and sled engines: what their C files (../jammdb.c, ../sled.c) call.
//!
//! 1. Every function that C calls goes through [`glue::entry`] (or `glue::quiet`): a panic
//!    becomes -EIO with the panic's text and never crosses into C.
//! 2. C frees what C was given: every `_open` or `_begin` has its `_close` or `_end`.
//! 3. One thread at a time uses a snapshot or a cursor; one apply at a time (C sees to both).

#![cfg_attr(test, allow(non_snake_case))] // function__condition__result

mod batch;
mod glue;
mod jamm;
mod jamm_page;
mod jamm_tree;
mod jamm_verify;
mod sledge;
