// SPDX-License-Identifier: BSD-3-Clause
//! The border to C: errors, panics, buffers.

use std::cell::RefCell;
use std::ffi::CStr;
use std::io;
use std::os::raw::{c_char, c_int, c_void};
use std::panic::{catch_unwind, set_hook, AssertUnwindSafe};
use std::sync::Once;

/// A negative errno and one line.
#[derive(Debug)]
pub struct Fail {
    pub code: c_int,
    pub text: String,
}

pub type Res<T> = Result<T, Fail>;

pub fn fail<T>(code: c_int, text: impl Into<String>) -> Res<T> {
    Err(Fail {
        code: -code,
        text: text.into(),
    })
}

/// Damage: -EIO.
pub fn damaged<T>(text: impl Into<String>) -> Res<T> {
    fail(libc::EIO, text)
}

impl From<io::Error> for Fail {
    fn from(e: io::Error) -> Fail {
        let code = match e.raw_os_error() {
            Some(n) => n,
            None if e.kind() == io::ErrorKind::PermissionDenied => libc::EACCES,
            None => libc::EIO,
        };
        let text = e.to_string();
        let words = text.split(" (os error").next().unwrap_or_default();
        Fail {
            code: -code,
            text: words.into(),
        }
    }
}

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}
static HOOK: Once = Once::new();

/// Where C wants a line of text.
#[repr(C)]
pub struct Text {
    bytes: *mut c_char,
    len: usize,
}

unsafe fn tell(text: *const Text, line: &str) {
    if text.is_null() || (*text).len == 0 {
        return;
    }
    let clean: Vec<u8> = line
        .bytes()
        .map(|b| if b < b' ' { b' ' } else { b })
        .collect();
    let n = clean.len().min((*text).len - 1);
    std::ptr::copy_nonoverlapping(clean.as_ptr(), (*text).bytes.cast(), n);
    *(*text).bytes.add(n) = 0;
}

/// What a library panicked with and where, without the folder that cargo keeps it in.
fn panic_line(what: &str, file: &str, line: u32) -> String {
    let mut parts: Vec<&str> = file.rsplit('/').take(3).collect();
    parts.reverse();
    format!("{} ({}:{})", what, parts.join("/"), line)
}

/// Run F for C; what it panics with is told like an error.
pub unsafe fn entry(text: *const Text, f: impl FnOnce() -> Res<c_int>) -> c_int {
    HOOK.call_once(|| {
        set_hook(Box::new(|info| {
            let payload = info.payload();
            let what = match payload.downcast_ref::<String>() {
                Some(s) => s,
                None => payload.downcast_ref::<&str>().copied().unwrap_or("panic"),
            };
            let line = info
                .location()
                .map_or_else(String::new, |l| panic_line(what, l.file(), l.line()));
            PANIC.with(|p| *p.borrow_mut() = line)
        }));
    });
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(n)) => n,
        Ok(Err(e)) => {
            tell(text, &e.text);
            e.code
        }
        Err(_) => {
            let line = PANIC.with(|p| std::mem::take(&mut *p.borrow_mut()));
            tell(text, &format!("the library gave up: {}", line));
            -libc::EIO
        }
    }
}

/// For what cannot fail: closing.
pub unsafe fn quiet(f: impl FnOnce()) {
    let _ = entry(std::ptr::null(), || {
        f();
        Ok(0)
    });
}

/// LEN bytes at P; nothing at all may have no address.
pub unsafe fn bytes<'a>(p: *const c_void, len: usize) -> &'a [u8] {
    if len == 0 {
        &[]
    } else {
        std::slice::from_raw_parts(p.cast(), len)
    }
}

pub unsafe fn path<'a>(p: *const c_char) -> &'a std::path::Path {
    use std::os::unix::ffi::OsStrExt;
    std::path::Path::new(std::ffi::OsStr::from_bytes(CStr::from_ptr(p).to_bytes()))
}

/// `int fn(void *arg, uint64_t done, uint64_t total)`; not 0: stop.
pub type Progress = Option<unsafe extern "C" fn(*mut c_void, u64, u64) -> c_int>;
/// `void fn(void *arg, const char *where, const char *what)`.
pub type Finding = Option<unsafe extern "C" fn(*mut c_void, *const c_char, *const c_char)>;

pub unsafe fn report(finding: Finding, arg: *mut c_void, place: &str, what: &str) {
    if let Some(f) = finding {
        let c = |s: &str| {
            let line: Vec<u8> = s.bytes().map(|b| if b < b' ' { b' ' } else { b }).collect();
            std::ffi::CString::new(line).unwrap_or_default()
        };
        f(arg, c(place).as_ptr(), c(what).as_ptr());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry__io_error_or_panic__one_line_of_words() {
        let said = |f: &dyn Fn() -> Res<c_int>| {
            let mut bytes = [0u8; 200];
            let text = Text {
                bytes: bytes.as_mut_ptr().cast(),
                len: bytes.len(),
            };
            assert!(unsafe { entry(&text, f) } < 0);
            let end = bytes.iter().position(|b| *b == 0).unwrap();
            String::from_utf8(bytes[..end].to_vec()).unwrap()
        };
        let missing = || Err(io::Error::from_raw_os_error(libc::ENOENT).into());
        assert_eq!(said(&missing), "No such file or directory");
        let line = said(&|| panic!("two\nlines {}", 1));
        assert!(
            line.starts_with("the library gave up: two lines 1 (src/glue.rs:"),
            "{}",
            line
        );
    }

    #[test]
    fn panic_line__crate_of_the_cache__short() {
        let file = "/root/.cargo/registry/src/index-1/sled-0.34.7/src/tree.rs";
        assert_eq!(panic_line("no", file, 7), "no (sled-0.34.7/src/tree.rs:7)");
    }
}
