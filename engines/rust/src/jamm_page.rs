// SPDX-License-Identifier: BSD-3-Clause
//! Reading JammDB's pages, believing nothing.
//!
//! JammDB follows every pointer and length of its memory map unchecked, so a flipped bit would
//! be a crash.  Here pages are read from the file and judged before anything is believed; a
//! file that was cut short is an error, not a signal.
//!
//! A node is one or more pages in a row: a head of 32 bytes, its elements, then keys and
//! values.  JammDB has no checksums; so each value begins with 4 bytes, a hash of its key and
//! a mark ([`Mark`]), which are judged together with the order of the keys.

use std::borrow::Cow;
use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::glue::{damaged, Res};

pub const PAGE: usize = 4096;
pub const MARK_LEN: usize = 4;
const HEAD: usize = 32;
const LEAF_ELEMENT: usize = 32;
const BRANCH_ELEMENT: usize = 24;
/// Of a larger node no more than this is read at once: its values are large.
const HELD: usize = 64 << 10;

pub const KIND_BRANCH: u8 = 1;
pub const KIND_LEAF: u8 = 2;
const KIND_META: u8 = 3;
const KIND_FREELIST: u8 = 4;

fn u64_at(b: &[u8], at: usize) -> u64 {
    let mut n = [0; 8];
    n.copy_from_slice(&b[at..at + 8]);
    u64::from_ne_bytes(n)
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    let mut n = [0; 4];
    n.copy_from_slice(&b[at..at + 4]);
    u32::from_ne_bytes(n)
}

fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3)
    })
}
const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

// --- meta pages ----------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    pub root: u64,
    pub pages: u64,
    pub freelist: u64,
    pub tx: u64,
}

/// What the two meta pages say: the newest, and whether both are whole.
pub struct Metas {
    pub newest: Option<Meta>,
    pub both: bool,
    /// One of them has JammDB's magic number, whole or not.
    pub known: bool,
}

fn meta_of(b: &[u8]) -> Option<Meta> {
    let m = &b[HEAD..];
    if b[8] != KIND_META || u64_at(m, 16) != PAGE as u64 {
        return None;
    }
    let mut hash = FNV_START;
    for at in [0, 4, 8] {
        hash = fnv(hash, &u32_at(m, at).to_be_bytes());
    }
    for at in [16, 24, 32, 40, 48, 56] {
        hash = fnv(hash, &u64_at(m, at).to_be_bytes());
    }
    let meta = Meta {
        root: u64_at(m, 24),
        pages: u64_at(m, 40),
        freelist: u64_at(m, 48),
        tx: u64_at(m, 56),
    };
    (hash == u64_at(m, 64)).then_some(meta)
}

pub fn metas(file: &File) -> Res<Metas> {
    let mut found = Metas {
        newest: None,
        both: true,
        known: false,
    };
    for i in 0..2 {
        let mut b = [0; HEAD + 72];
        if file.read_exact_at(&mut b, (i * PAGE) as u64).is_err() {
            found.both = false;
            continue;
        }
        found.known |= u32_at(&b, HEAD + 4) == 0x00AB_CDEF;
        match meta_of(&b) {
            Some(m) if found.newest.map_or(true, |n| m.tx > n.tx) => found.newest = Some(m),
            Some(_) => (),
            None => found.both = false,
        }
    }
    Ok(found)
}

// --- nodes ---------------------------------------------------------------------------

/// What the first bytes of a value say of its record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    Live,
    /// Deleted, but still in the tree (jamm.rs says why).
    Dead,
}

pub fn mark(keyspace: u8, key: &[u8], mark: Mark) -> [u8; MARK_LEN] {
    let h = fnv(fnv(FNV_START, &[keyspace]), key);
    let live = ((h ^ h >> 32) as u32 & !1).to_be_bytes();
    match mark {
        Mark::Live => live,
        Mark::Dead => mark_dead(live),
    }
}

fn mark_dead(mut live: [u8; MARK_LEN]) -> [u8; MARK_LEN] {
    live[MARK_LEN - 1] |= 1;
    live
}

struct Element {
    bucket: bool,
    page: u64,
    at: usize,
    key_len: usize,
    value_len: usize,
}

pub struct Node {
    pub id: u64,
    pub leaf: bool,
    pub count: usize,
    pub pages: u64, // in a row
    held: Vec<u8>,
    file: std::sync::Arc<File>,
}

fn read(file: &File, at: u64, buf: &mut [u8]) -> Res<()> {
    file.read_exact_at(buf, at)
        .or_else(|e| match e.raw_os_error() {
            Some(_) => Err(e.into()),
            None => damaged(format!(
                "page {}: the file ends before it",
                at / PAGE as u64
            )),
        })
}

impl Node {
    /// Read node ID of a store of PAGES pages; of a leaf that is LIGHT only what tells where
    /// its records are.
    pub fn load(file: &std::sync::Arc<File>, id: u64, pages: u64, light: bool) -> Res<Node> {
        if id < 2 || id >= pages {
            return damaged(format!("a pointer to page {} of {}", id, pages));
        }
        let mut held = vec![0; PAGE];
        read(file, id * PAGE as u64, &mut held)?;
        let (kind, count, more) = (held[8], u64_at(&held, 16), u64_at(&held, 24));
        if u64_at(&held, 0) != id || (kind != KIND_BRANCH && kind != KIND_LEAF) {
            return damaged(format!("page {}: no page of a tree", id));
        }
        let element = if kind == KIND_LEAF {
            LEAF_ELEMENT
        } else {
            BRANCH_ELEMENT
        };
        if more >= pages - id || count > ((more + 1) * PAGE as u64) / element as u64 {
            return damaged(format!(
                "page {}: {} records, {} more pages",
                id, count, more
            ));
        }
        let whole = (more as usize + 1) * PAGE;
        let leaf = kind == KIND_LEAF;
        let wanted = if whole <= HELD && !(light && leaf) {
            whole
        } else {
            (HEAD + element * count as usize).max(PAGE)
        };
        if wanted > PAGE {
            held.resize(wanted, 0);
            read(file, (id + 1) * PAGE as u64, &mut held[PAGE..])?;
        }
        Ok(Node {
            id,
            leaf,
            count: count as usize,
            pages: more + 1,
            held,
            file: file.clone(),
        })
    }

    fn element(&self, i: usize) -> Res<Element> {
        let size = if self.leaf {
            LEAF_ELEMENT
        } else {
            BRANCH_ELEMENT
        };
        let start = HEAD + i * size;
        let b = &self.held[start..start + size];
        let (bucket, page, at, key_len, value_len) = if self.leaf {
            (b[0] == 1, 0, u64_at(b, 8), u64_at(b, 16), u64_at(b, 24))
        } else {
            (false, u64_at(b, 0), u64_at(b, 16), u64_at(b, 8), 0)
        };
        let whole = self.pages * PAGE as u64;
        let inside = [at, key_len, value_len].iter().all(|n| *n <= whole)
            && start as u64 + at + key_len + value_len <= whole
            && (!self.leaf || b[0] < 2);
        if !inside {
            return damaged(format!(
                "page {}: record {} is not inside of it",
                self.id, i
            ));
        }
        let at = start + at as usize;
        Ok(Element {
            bucket,
            page,
            at,
            key_len: key_len as usize,
            value_len: value_len as usize,
        })
    }

    /// LEN bytes from AT on, which element() judged.
    fn bytes(&self, at: usize, buf: &mut [u8]) -> Res<()> {
        if at + buf.len() <= self.held.len() {
            buf.copy_from_slice(&self.held[at..at + buf.len()]);
            return Ok(());
        }
        read(&self.file, self.id * PAGE as u64 + at as u64, buf)
    }

    fn key_of(&self, e: &Element) -> Res<Cow<'_, [u8]>> {
        if e.key_len > 1024 {
            return damaged(format!("page {}: a key of {} bytes", self.id, e.key_len));
        }
        if let Some(held) = self.held.get(e.at..e.at + e.key_len) {
            return Ok(Cow::Borrowed(held));
        }
        let mut key = vec![0; e.key_len];
        self.bytes(e.at, &mut key)?;
        Ok(Cow::Owned(key))
    }

    /// Borrowed from the node where it holds that byte.
    pub fn key_at(&self, i: usize) -> Res<Cow<'_, [u8]>> {
        self.key_of(&self.element(i)?)
    }

    pub fn key(&self, i: usize) -> Res<Vec<u8>> {
        Ok(self.key_at(i)?.into_owned())
    }

    pub fn child(&self, i: usize) -> Res<u64> {
        Ok(self.element(i)?.page)
    }

    /// Whole, with its mark; a bucket's is its root.
    pub fn value_len(&self, i: usize) -> Res<usize> {
        Ok(self.element(i)?.value_len)
    }

    /// As much of a value from byte OFFSET on as BUF takes, which is not more than there is.
    pub fn value(&self, i: usize, offset: usize, buf: &mut [u8]) -> Res<()> {
        let e = self.element(i)?;
        self.bytes(e.at + e.key_len + offset, buf)
    }

    pub fn bucket_root(&self, i: usize) -> Res<u64> {
        let e = self.element(i)?;
        if !e.bucket || e.value_len != 16 {
            return damaged(format!("page {}: record {} is no bucket", self.id, i));
        }
        let mut b = [0; 16];
        self.value(i, 0, &mut b)?;
        Ok(u64_at(&b, 0))
    }

    pub fn mark(&self, keyspace: u8, i: usize, key: &[u8]) -> Res<Mark> {
        self.mark_of(&self.element(i)?, keyspace, i, key)
    }

    fn mark_of(&self, e: &Element, keyspace: u8, i: usize, key: &[u8]) -> Res<Mark> {
        let mut b = [0; MARK_LEN];
        if e.bucket || e.value_len < MARK_LEN {
            return damaged(format!("page {}: record {} is none of kvfs", self.id, i));
        }
        self.bytes(e.at + e.key_len, &mut b)?;
        let live = mark(keyspace, key, Mark::Live);
        for (text, m) in [(live, Mark::Live), (mark_dead(live), Mark::Dead)] {
            if b == text {
                return Ok(m);
            }
        }
        damaged(format!("page {}: record {} is not of its key", self.id, i))
    }

    /// All records inside the node.
    pub fn judge_places(&self) -> Res<()> {
        (0..self.count).try_for_each(|i| self.element(i).map(drop))
    }

    /// All keys in order; FIRST is the branch's key that led here.  With a keyspace, marks too.
    pub fn judge(&self, keyspace: Option<u8>, first: Option<&[u8]>) -> Res<()> {
        let mut last: Option<Cow<[u8]>> = None;
        if self.count == 0 && !self.leaf {
            return damaged(format!("page {}: an empty branch", self.id));
        }
        for i in 0..self.count {
            let e = self.element(i)?;
            let key = self.key_of(&e)?;
            let sound = match &last {
                Some(l) => *l < key,
                None => first.map_or(true, |f| f == &key[..]),
            };
            if !sound {
                return damaged(format!("page {}: key {} is out of order", self.id, i));
            }
            if let (true, Some(ks)) = (self.leaf, keyspace) {
                self.mark_of(&e, ks, i, &key)?;
            }
            last = Some(key);
        }
        Ok(())
    }
}

// --- the list of free pages ----------------------------------------------------------

pub struct Freelist {
    pub ids: Vec<u64>,
    pub pages: u64, // that it takes itself
}

pub fn freelist_count(file: &File, meta: &Meta) -> Res<u64> {
    let mut head = [0; HEAD];
    read(file, meta.freelist * PAGE as u64, &mut head)?;
    Ok(u64_at(&head, 16))
}

pub fn freelist(file: &File, meta: &Meta) -> Res<Freelist> {
    let mut head = [0; HEAD];
    if meta.freelist < 2 || meta.freelist >= meta.pages {
        return damaged(format!(
            "the list of free pages is at page {}",
            meta.freelist
        ));
    }
    read(file, meta.freelist * PAGE as u64, &mut head)?;
    let (count, more) = (u64_at(&head, 16), u64_at(&head, 24));
    let fits = more < meta.pages && count <= (more + 1) * PAGE as u64 / 8;
    if u64_at(&head, 0) != meta.freelist || head[8] != KIND_FREELIST || !fits {
        return damaged(format!("page {}: no list of free pages", meta.freelist));
    }
    let mut b = vec![0; count as usize * 8];
    read(file, meta.freelist * PAGE as u64 + HEAD as u64, &mut b)?;
    let ids: Vec<u64> = b.chunks_exact(8).map(|c| u64_at(c, 0)).collect();
    let ordered = ids.windows(2).all(|w| w[0] < w[1]);
    if !ordered || ids.first().map_or(false, |i| *i < 2) || ids.last() >= Some(&meta.pages) {
        return damaged(format!(
            "page {}: the free pages are out of order",
            meta.freelist
        ));
    }
    Ok(Freelist {
        ids,
        pages: more + 1,
    })
}
