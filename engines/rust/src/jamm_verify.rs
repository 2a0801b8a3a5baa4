// SPDX-License-Identifier: BSD-3-Clause
//! Checking a store of JammDB: every page is in one tree, or in the list of free pages, once.

use std::os::raw::{c_int, c_void};
use std::os::unix::io::AsRawFd;

use crate::glue::*;
use crate::jamm::{Snap, BUCKETS, INFO, KEYSPACE_INFO};
use crate::jamm_page::*;
use crate::jamm_tree::*;

pub struct Verify {
    pub finding: Finding,
    pub finding_arg: *mut c_void,
    pub progress: Progress,
    pub progress_arg: *mut c_void,
    pub seen: Vec<bool>, // by page
    pub done: u64,
    pub stopped: bool,
}

impl Verify {
    pub unsafe fn find(&self, place: &str, what: &str) {
        report(self.finding, self.finding_arg, place, what);
    }

    unsafe fn claim(&mut self, first: u64, pages: u64, who: &str) {
        for id in first..first + pages {
            match self.seen.get_mut(id as usize) {
                Some(s) if !*s => *s = true,
                Some(_) => self.find(&format!("page {}", id), "is used twice"),
                None => self.find(who, "reaches beyond the store"),
            }
        }
    }

    /// The records below page ID; the keys are in [lo, hi).
    unsafe fn walk(
        &mut self,
        t: &Tree,
        id: u64,
        first: Option<&[u8]>,
        hi: Option<&[u8]>,
        depth: usize,
    ) -> u64 {
        let name = format!("page {}", id);
        if self.stopped || depth > 24 || self.seen.get(id as usize) == Some(&true) {
            if !self.stopped {
                self.find(&name, "is reached twice");
            }
            return 0;
        }
        self.done += 1;
        let total = self.seen.len() as u64;
        if let (Some(p), true) = (self.progress, self.done % 64 == 1) {
            self.stopped = p(self.progress_arg, self.done, total) != 0;
        }
        let node = match t.load(id, first) {
            Ok(n) => n,
            Err(e) => {
                self.find(&name, &e.text);
                return 0;
            }
        };
        self.claim(id, node.pages, &name);
        let last = node.count.checked_sub(1).and_then(|i| node.key(i).ok());
        if last.is_some() && hi.is_some() && last.as_deref() >= hi {
            self.find(&name, "a key behind those of the next page");
        }
        let mut records = 0;
        for i in 0..node.count {
            let key = node.key(i).unwrap_or_default();
            if node.leaf {
                if let (Some(ks), Ok(len)) = (t.keyspace, node.value_len(i)) {
                    let mut v = vec![0; len];
                    if let Err(e) = node.value(i, 0, &mut v) {
                        self.find(&name, &e.text);
                    }
                    records += u64::from(matches!(node.mark(ks, i, &key), Ok(Mark::Live)));
                }
                continue;
            }
            let next = node.key(i + 1).ok().filter(|_| i + 1 < node.count);
            if let Ok(child) = node.child(i) {
                let hi = next.as_deref().or(hi);
                records += self.walk(t, child, Some(&key), hi, depth + 1);
            }
        }
        records
    }
}

pub unsafe fn verify(snap: &Snap, v: &mut Verify) -> Res<c_int> {
    let s = &snap.state;
    let tree = |root, keyspace| Tree {
        file: snap.file.clone(),
        pages: s.meta.pages,
        root,
        keyspace,
        kept: None,
        light: false,
    };
    v.seen = vec![false; s.meta.pages as usize];
    v.claim(0, 2, "meta");
    // The kernel's copy goes where it may; what is read then comes from the medium.
    libc::posix_fadvise(snap.file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED);
    if !metas(&snap.file)?.both {
        v.find("meta", "one of the two meta pages is damaged");
    }
    v.walk(&tree(s.meta.root, None), s.meta.root, None, None, 0);
    let info = tree(s.meta.root, None).seek(INFO.as_bytes())?.0;
    let info = info.leaf().0.bucket_root(info.leaf().1)?;
    v.walk(&tree(info, Some(KEYSPACE_INFO)), info, None, None, 0);
    for ks in 0..2 {
        let records = v.walk(&s.tree(&snap.file, ks), s.roots[ks as usize], None, None, 0);
        if !v.stopped && records != s.counts[ks as usize] {
            let what = format!("{} records, {} are counted", records, s.counts[ks as usize]);
            v.find(BUCKETS[ks as usize], &what);
        }
    }
    let free = freelist(&snap.file, &s.meta)?;
    v.claim(s.meta.freelist, free.pages, "the list of free pages");
    for id in free.ids {
        v.claim(id, 1, "the list of free pages");
    }
    let lost = v.seen.iter().filter(|s| !**s).count();
    if lost > 0 && !v.stopped {
        v.find(
            "pages",
            &format!("{} pages are neither used nor free", lost),
        );
    }
    if let (Some(p), false) = (v.progress, v.stopped) {
        v.stopped = p(v.progress_arg, s.meta.pages, s.meta.pages) != 0;
    }
    Ok(if v.stopped { -libc::EINTR } else { 0 })
}
