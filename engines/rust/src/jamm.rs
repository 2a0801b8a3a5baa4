// SPDX-License-Identifier: BSD-3-Clause
//! A store of JammDB: three buckets, "meta", "data" and "info", in one file.
//!
//! 1. JammDB writes and keeps the pages of a reader from being used again; the pages are read
//!    by jamm_page.rs, which judges them.  What JammDB will follow in a batch (the paths to the
//!    keys, and siblings that it may merge) is judged first; of a leaf that is only put into,
//!    the places of its records: its values, which JammDB copies unread, are not read either.
//! 2. JammDB cannot grow its memory map while a reader is open: the writer would wait for it,
//!    for ever if both are one thread.  So the file is made as long as it may ever become
//!    (a hole, which costs nothing) before JammDB maps it, and cut back at close.
//! 3. A reader that JammDB begins reads the meta page first and is registered later (its issue
//!    35): in between a writer could give its pages away.  `gate` keeps the beginning of a
//!    writer out of the beginning of a reader; the meta pages, looked at before and after,
//!    tell which state it is and that no commit wrote them meanwhile.
//! 4. JammDB panics when a batch empties a branch page (that is not the root) of all records
//!    below it: its last, empty leaf has no first key.  So one of them stays as a *dead* record,
//!    which nobody sees; the next batch or close() deletes it.
//! 5. It panics, too, when a batch leaves the root one child that it has not touched: then a
//!    record of that child is put once more.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::os::raw::{c_char, c_int, c_void};
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, RwLock};

use crate::batch::{Net, Op, Range, EXPECT};
use crate::glue::*;
use crate::jamm_page::*;
use crate::jamm_tree::*;
use crate::jamm_verify::{verify, Verify};

pub const BUCKETS: [&str; 2] = ["meta", "data"];
pub const INFO: &str = "info";
const COUNTS: &[u8] = b"counts";
pub const KEYSPACE_INFO: u8 = 255;
/// Records of a deleted range between two looks at memory: none; JammDB holds them all.
const GIVE_UP: usize = 1000;

type Sentinels = [BTreeSet<Vec<u8>>; 2];

pub struct Store {
    db: Option<&'static jammdb::DB>, // None: readonly
    file: Arc<File>,
    gate: RwLock<()>,
    dead: std::sync::Mutex<Sentinels>, // left by the batch before
}

/// One state of the store.
#[derive(Clone)]
pub struct State {
    pub meta: Meta,
    pub roots: [u64; 2],
    pub counts: [u64; 3], // META records, DATA records, batches
}

pub struct Snap {
    // Ends the reader when it is dropped.  JammDB's Tx is !Send for its Rc and for std's lock
    // guard; it is only dropped here, by one thread at a time, and std's lock on Linux (a
    // futex, since Rust 1.62) does not ask which thread lets it go.
    _reader: Option<jammdb::Tx<'static>>,
    pub file: Arc<File>,
    pub state: State,
}

impl From<jammdb::Error> for Fail {
    fn from(e: jammdb::Error) -> Fail {
        match e {
            jammdb::Error::Io(e) => e.into(),
            e => Fail {
                code: -libc::EIO,
                text: e.to_string(),
            },
        }
    }
}

fn put_counts(counts: &[u64; 3]) -> Vec<u8> {
    let mut v = mark(KEYSPACE_INFO, COUNTS, Mark::Live).to_vec();
    counts
        .iter()
        .for_each(|n| v.extend_from_slice(&n.to_be_bytes()));
    v
}

impl State {
    fn read(file: &Arc<File>, meta: Meta) -> Res<State> {
        let tree = |root, keyspace| Tree {
            file: file.clone(),
            pages: meta.pages,
            root,
            keyspace,
            kept: None,
            light: false,
        };
        let bucket = |name: &str| -> Res<u64> {
            let (place, exact) = tree(meta.root, None).seek(name.as_bytes())?;
            match exact {
                true => place.leaf().0.bucket_root(place.leaf().1),
                false => damaged(format!("bucket {} is missing", name)),
            }
        };
        let roots = [bucket(BUCKETS[0])?, bucket(BUCKETS[1])?];
        let (place, exact) = tree(bucket(INFO)?, Some(KEYSPACE_INFO)).seek(COUNTS)?;
        let (leaf, i) = place.leaf();
        if !exact || leaf.value_len(i)? != MARK_LEN + 24 {
            return damaged("the counts are missing");
        }
        let (mut b, mut counts) = ([0; 8], [0; 3]);
        for (j, n) in counts.iter_mut().enumerate() {
            leaf.value(i, MARK_LEN + 8 * j, &mut b)?;
            *n = u64::from_be_bytes(b);
        }
        Ok(State {
            meta,
            roots,
            counts,
        })
    }

    pub fn tree(&self, file: &Arc<File>, keyspace: u8) -> Tree {
        let root = self.roots[keyspace as usize];
        Tree {
            file: file.clone(),
            pages: self.meta.pages,
            root,
            keyspace: Some(keyspace),
            kept: None,
            light: false,
        }
    }
}

/// The place of a live record.
fn find(tree: &Tree, keyspace: u8, key: &[u8]) -> Res<Option<Place>> {
    let (place, exact) = tree.seek(key)?;
    if !exact {
        return Ok(None);
    }
    let (leaf, i) = place.leaf();
    let live = leaf.mark(keyspace, i, key)? == Mark::Live;
    Ok(live.then_some(place))
}

// --- opening -------------------------------------------------------------------------

fn create(path: &Path) -> Res<c_int> {
    let db = jammdb::OpenOptions::new()
        .pagesize(PAGE as u64)
        .open(path)?;
    let tx = db.tx(true)?;
    for name in BUCKETS {
        tx.create_bucket(name)?;
    }
    tx.create_bucket(INFO)?.put(COUNTS, put_counts(&[0; 3]))?;
    tx.commit()?;
    Ok(0)
}

fn newest(file: &File) -> Res<Meta> {
    let found = metas(file)?;
    match found.newest {
        Some(m) => Ok(m),
        None if found.known => damaged("both meta pages are damaged"),
        None => fail(libc::EINVAL, "not a store of JammDB"),
    }
}

fn open(path: &Path, readonly: bool, map_bytes: u64) -> Res<Store> {
    let file = OpenOptions::new().read(true).write(!readonly).open(path)?;
    let meta = newest(&file)?;
    let bytes = file.metadata()?.len();
    if bytes < meta.pages.saturating_mul(PAGE as u64) {
        let text = format!(
            "{} bytes, should be {}: truncated",
            bytes,
            meta.pages * PAGE as u64
        );
        return damaged(text);
    }
    let file = Arc::new(file);
    freelist(&file, &meta)?; // JammDB reads it, too
    State::read(&file, meta)?;
    let mut store = Store {
        db: None,
        file,
        gate: RwLock::new(()),
        dead: Default::default(),
    };
    if !readonly {
        if bytes < map_bytes {
            store.file.set_len(map_bytes)?;
        }
        let db = jammdb::OpenOptions::new()
            .pagesize(PAGE as u64)
            .open(path)?;
        store.db = Some(Box::leak(Box::new(db)));
    }
    Ok(store)
}

impl Store {
    /// The newest state, as long as nobody commits.
    fn now(&self) -> Res<State> {
        State::read(&self.file, newest(&self.file)?)
    }

    fn begin(&self) -> Res<Snap> {
        for tries in 0.. {
            let before = metas(&self.file)?;
            let reader = match self.db {
                Some(db) => {
                    let _gate = self.gate.read().map_err(|_| poisoned())?;
                    Some(db.tx(false)?)
                }
                None => None,
            };
            let after = metas(&self.file)?;
            let still = before.newest.is_some() && before.newest == after.newest;
            // A meta page that is being written is not whole; one that is damaged stays so.
            if still && ((before.both && after.both) || tries >= GIVE_UP) {
                let state = State::read(&self.file, before.newest.unwrap())?;
                return Ok(Snap {
                    _reader: reader,
                    file: self.file.clone(),
                    state,
                });
            }
            if tries >= GIVE_UP && before.newest.is_none() {
                break;
            }
            std::thread::yield_now();
        }
        damaged("both meta pages are damaged")
    }

    fn close(mut self) {
        for _ in 0..8 {
            let left = self.dead.lock().map_or(0, |d| d[0].len() + d[1].len());
            if self.db.is_none() || left == 0 || self.apply(&[]).is_err() {
                break;
            }
        }
        if let Some(db) = self.db.take() {
            // No reader is left: C sees to it.
            drop(unsafe { Box::from_raw(db as *const jammdb::DB as *mut jammdb::DB) });
            if let Ok(meta) = newest(&self.file) {
                let _ = self.file.set_len(meta.pages * PAGE as u64);
            }
        }
    }
}

fn poisoned() -> Fail {
    Fail {
        code: -libc::EIO,
        text: "an earlier batch failed, open the store again".into(),
    }
}

// --- applying ------------------------------------------------------------------------

/// Deletions in one bucket, so that no branch page loses all of its records.
struct Deleter<'a> {
    tree: Tree,
    keyspace: u8,
    net: &'a Net<'a>,
    old: &'a BTreeSet<Vec<u8>>, // dead records of the batch before
    spared: HashMap<u64, Option<Vec<u8>>>, // by branch page: the key that stays
    judged: HashSet<u64>,
    dead: BTreeSet<Vec<u8>>,
    live_gone: u64,
    deleted: u64,
}

impl Deleter<'_> {
    fn goes(&self, key: &[u8]) -> bool {
        self.net.deletes(key) || (self.old.contains(key) && !self.net.keys.contains_key(key))
    }

    /// The key of the branch page at the end of PATH that must stay; decided once.
    fn spare(&mut self, path: &[(Rc<Node>, usize)]) -> Res<Option<Vec<u8>>> {
        let depth = path.len();
        if depth < 2 {
            return Ok(None); // a root may become empty
        }
        let (branch, _) = &path[depth - 1];
        if let Some(known) = self.spared.get(&branch.id) {
            return Ok(known.clone());
        }
        let (above, at) = &path[depth - 2];
        let mut first = None;
        let mut stays = false;
        'leaves: for i in 0..branch.count {
            let leaf = self.tree.child(branch, i)?;
            for j in 0..leaf.count {
                let key = leaf.key(j)?;
                if !self.goes(&key) {
                    stays = true;
                    break 'leaves;
                }
                first = first.or(Some(key));
            }
        }
        if !stays {
            // A key that is put into its range keeps it as well; at the page's edges of the
            // tree that is not judged, which is on the safe side.
            let lo = branch.key(0)?;
            if at + 1 < above.count {
                let hi = above.key(at + 1)?;
                stays = lo < hi && self.net.keys.range(lo..hi).any(|(_, v)| v.is_some());
            }
        }
        let spared = if stays { None } else { first };
        self.spared.insert(branch.id, spared.clone());
        Ok(spared)
    }

    /// JammDB merges nodes that became small with a neighbour.
    fn judge_siblings(&mut self, path: &[(Rc<Node>, usize)]) -> Res<()> {
        for (node, i) in &path[..path.len() - 1] {
            let beside = if *i > 0 { i - 1 } else { i + 1 };
            if beside < node.count && self.judged.insert(node.child(beside)?) {
                self.tree.child(node, beside)?;
            }
        }
        Ok(())
    }

    fn delete(&mut self, bucket: &jammdb::Bucket, place: &Place, key: &[u8]) -> Res<()> {
        let (leaf, i) = place.leaf();
        let live = leaf.mark(self.keyspace, i, key)? == Mark::Live;
        let above = &place.path[..place.path.len() - 1];
        self.judge_siblings(&place.path)?;
        if self.spare(above)?.as_deref() == Some(key) {
            bucket.put(key.to_vec(), mark(self.keyspace, key, Mark::Dead).to_vec())?;
            self.dead.insert(key.to_vec());
        } else {
            bucket.delete(key)?;
        }
        self.live_gone += u64::from(live);
        self.deleted += 1;
        Ok(())
    }

    fn run(&mut self, bucket: &jammdb::Bucket) -> Res<()> {
        let (net, old) = (self.net, self.old);
        for range in &net.ranges {
            self.delete_range(bucket, range)?;
        }
        let single = net.keys.iter().filter(|(_, v)| v.is_none()).map(|(k, _)| k);
        let old = old.iter().filter(|k| !net.keys.contains_key(*k));
        for key in single.chain(old) {
            if net.ranges.iter().any(|r| r.holds(key)) {
                continue; // gone already
            }
            let (place, exact) = self.tree.seek(key)?;
            if exact {
                self.delete(bucket, &place, key)?;
            }
        }
        if self.deleted > 0 {
            self.touch_last(bucket)?;
        }
        Ok(())
    }

    /// Should all leaves below the root but one become empty: put a record of that one again.
    fn touch_last(&mut self, bucket: &jammdb::Bucket) -> Res<()> {
        let root = self.tree.load(self.tree.root, None)?;
        let mut last = None;
        for i in 0..root.count * usize::from(!root.leaf) {
            let leaf = self.tree.child(&root, i)?;
            if !leaf.leaf {
                return Ok(()); // branches below are never empty: spare()
            }
            for j in 0..leaf.count {
                let key = leaf.key(j)?;
                if !self.goes(&key) {
                    if last.is_some() {
                        return Ok(());
                    }
                    last = Some((leaf.clone(), j, key));
                    break;
                }
            }
        }
        if let Some((leaf, j, key)) = last {
            let mut value = vec![0; leaf.value_len(j)?];
            leaf.value(j, 0, &mut value)?;
            bucket.put(key, value)?;
        }
        Ok(())
    }

    fn delete_range(&mut self, bucket: &jammdb::Bucket, range: &Range) -> Res<()> {
        let mut walk = Walk::new(self.tree.clone(), &range.lo, &range.hi, false, true);
        let me = range as *const Range;
        while walk.step()? {
            // Ranges may overlap: the first one has it.
            let first = self.net.ranges.iter().find(|r| r.holds(&walk.key));
            if self.goes(&walk.key) && first.map_or(false, |r| std::ptr::eq(r, me)) {
                self.delete(bucket, walk.place(), &walk.key)?;
            }
        }
        Ok(())
    }
}

impl Store {
    fn expect(&self, state: &State, ops: &[Op]) -> Res<()> {
        for (i, op) in ops.iter().enumerate().filter(|(_, op)| op.kind >= EXPECT) {
            let tree = state.tree(&self.file, op.keyspace);
            let place = find(&tree, op.keyspace, op.key())?;
            let right = match (op.kind == EXPECT, place) {
                (true, Some(p)) => {
                    let (leaf, i) = p.leaf();
                    let len = leaf.value_len(i)? - MARK_LEN;
                    let mut v = vec![0; if len == op.value_len() { len } else { 0 }];
                    leaf.value(i, MARK_LEN, &mut v)?;
                    len == op.value_len() && op.equals(&v)
                }
                (true, None) => false,
                (false, p) => p.is_none(),
            };
            if !right {
                return fail(libc::EAGAIN, format!("operation {} finds another value", i));
            }
        }
        Ok(())
    }

    /// Changes of one keyspace; answers how its count of records changes, and what stays dead.
    fn change(
        &self,
        state: &State,
        tx: &jammdb::Tx,
        net: &Net,
        old: &BTreeSet<Vec<u8>>,
        keyspace: u8,
    ) -> Res<(i64, BTreeSet<Vec<u8>>)> {
        let bucket = tx.get_bucket(BUCKETS[keyspace as usize])?;
        let mut come = 0;
        let mut tree = state.tree(&self.file, keyspace);
        tree.kept = Some(Kept::default());
        let mut d = Deleter {
            tree: tree.clone(),
            keyspace,
            net,
            old,
            spared: HashMap::new(),
            judged: HashSet::new(),
            dead: BTreeSet::new(),
            live_gone: 0,
            deleted: 0,
        };
        d.run(&bucket)?;
        tree.light = true;
        for (key, op) in net.keys.iter().filter_map(|(k, v)| v.map(|op| (k, op))) {
            come += i64::from(find(&tree, keyspace, key)?.is_none());
            bucket.put(key.clone(), op.value(&mark(keyspace, key, Mark::Live)))?;
        }
        Ok((come - d.live_gone as i64, d.dead))
    }

    fn apply(&self, ops: &[Op]) -> Res<c_int> {
        let state = self.now()?;
        self.expect(&state, ops)?;
        let mut left = self.dead.lock().map_err(|_| poisoned())?;
        let tx = {
            let _gate = self.gate.write().map_err(|_| poisoned())?;
            self.db.ok_or_else(poisoned)?.tx(true)?
        };
        let mut counts = state.counts;
        let mut dead = Sentinels::default();
        for ks in 0..2 {
            let net = Net::of(ops, ks as u8);
            if net.keys.is_empty() && net.ranges.is_empty() && left[ks].is_empty() {
                continue;
            }
            let (more, still) = self.change(&state, &tx, &net, &left[ks], ks as u8)?;
            counts[ks] = counts[ks].wrapping_add(more as u64);
            dead[ks] = still;
        }
        counts[2] += u64::from(!ops.is_empty());
        tx.get_bucket(INFO)?.put(COUNTS, put_counts(&counts))?;
        let done = tx.commit();
        if let Err(e) = done {
            let mut e = Fail::from(e);
            if newest(&self.file)?.tx != state.meta.tx || e.code != -libc::ENOSPC {
                e.code = -libc::EIO; // it may be there or not
            }
            return Err(e);
        }
        *left = dead;
        Ok(0)
    }
}

// --- for C ---------------------------------------------------------------------------

#[repr(C)]
pub struct Stat {
    counts: [u64; 3],
    pages: u64,
    free_pages: u64,
}

/// Make the store file PATH, which does not exist.
#[no_mangle]
pub unsafe extern "C" fn kvfs_jamm_create(path_: *const c_char, text: *const Text) -> c_int {
    entry(text, || create(path(path_)))
}

#[no_mangle]
pub unsafe extern "C" fn kvfs_jamm_open(
    path_: *const c_char,
    readonly: c_int,
    map_bytes: u64,
    out: *mut *mut Store,
    text: *const Text,
) -> c_int {
    entry(text, || {
        *out = Box::into_raw(Box::new(open(path(path_), readonly != 0, map_bytes)?));
        Ok(0)
    })
}

#[no_mangle]
pub unsafe extern "C" fn kvfs_jamm_close(store: *mut Store) {
    quiet(|| Box::from_raw(store).close());
}

#[no_mangle]
pub unsafe extern "C" fn kvfs_jamm_stat(store: &Store, out: *mut Stat, text: *const Text) -> c_int {
    entry(text, || {
        // A commit meanwhile may have used the pages again that were read: look once more.
        for tries in 0.. {
            let meta = newest(&store.file)?;
            let got = State::read(&store.file, meta)
                .and_then(|s| Ok((s, freelist_count(&store.file, &meta)?)));
            if newest(&store.file)? == meta || tries >= GIVE_UP {
                let (s, free_pages) = got?;
                *out = Stat {
                    counts: s.counts,
                    pages: s.meta.pages,
                    free_pages,
                };
                break;
            }
        }
        Ok(0)
    })
}

#[no_mangle]
pub unsafe extern "C" fn kvfs_jamm_begin(
    store: &Store,
    out: *mut *mut Snap,
    batches: *mut u64,
    text: *const Text,
) -> c_int {
    entry(text, || {
        let snap = store.begin()?;
        *batches = snap.state.counts[2];
        *out = Box::into_raw(Box::new(snap));
        Ok(0)
    })
}

#[no_mangle]
pub unsafe extern "C" fn kvfs_jamm_end(snap: *mut Snap) {
    quiet(|| drop(Box::from_raw(snap)));
}

unsafe fn copy_out(leaf: &Node, i: usize, offset: usize, iov: &[libc::iovec]) -> Res<usize> {
    let len = leaf.value_len(i)? - MARK_LEN;
    let mut at = offset;
    for v in iov {
        let n = v.iov_len.min(len.saturating_sub(at));
        if n > 0 {
            let buf = std::slice::from_raw_parts_mut(v.iov_base.cast::<u8>(), n);
            leaf.value(i, MARK_LEN + at, buf)?;
        }
        at += n;
    }
    Ok(len)
}

unsafe fn iovs<'a>(iov: *const libc::iovec, count: c_int) -> &'a [libc::iovec] {
    if count <= 0 {
        &[]
    } else {
        std::slice::from_raw_parts(iov, count as usize)
    }
}

#[no_mangle]
pub unsafe extern "C" fn kvfs_jamm_get(
    snap: &Snap,
    keyspace: c_int,
    key: *const c_void,
    key_len: usize,
    offset: usize,
    iov: *const libc::iovec,
    iov_count: c_int,
    value_len: *mut usize,
    text: *const Text,
) -> c_int {
    entry(text, || {
        let tree = snap.state.tree(&snap.file, keyspace as u8);
        match find(&tree, keyspace as u8, bytes(key, key_len))? {
            None => fail(libc::ENOENT, "no such record"),
            Some(place) => {
                let (leaf, i) = place.leaf();
                *value_len = copy_out(leaf, i, offset, iovs(iov, iov_count))?;
                Ok(0)
            }
        }
    })
}

#[no_mangle]
pub unsafe extern "C" fn kvfs_jamm_walk(
    snap: &Snap,
    keyspace: c_int,
    lo: *const c_void,
    lo_len: usize,
    hi: *const c_void,
    hi_len: usize,
    reverse: c_int,
    out: *mut *mut Walk,
    text: *const Text,
) -> c_int {
    entry(text, || {
        let tree = snap.state.tree(&snap.file, keyspace as u8);
        let walk = Walk::new(
            tree,
            bytes(lo, lo_len),
            bytes(hi, hi_len),
            reverse != 0,
            false,
        );
        *out = Box::into_raw(Box::new(walk));
        Ok(0)
    })
}

/// 1: a record, its key is the walk's own; 0: the end.
#[no_mangle]
pub unsafe extern "C" fn kvfs_jamm_step(
    walk: &mut Walk,
    key: *mut *const c_void,
    key_len: *mut usize,
    value_len: *mut usize,
    text: *const Text,
) -> c_int {
    entry(text, || {
        if !walk.step()? {
            return Ok(0);
        }
        let (leaf, i) = walk.place().leaf();
        *value_len = leaf.value_len(i)? - MARK_LEN;
        *key = walk.key.as_ptr().cast();
        *key_len = walk.key.len();
        Ok(1)
    })
}

#[no_mangle]
pub unsafe extern "C" fn kvfs_jamm_value(
    walk: &Walk,
    offset: usize,
    iov: *const libc::iovec,
    iov_count: c_int,
    text: *const Text,
) -> c_int {
    entry(text, || {
        let (leaf, i) = walk.place().leaf();
        copy_out(leaf, i, offset, iovs(iov, iov_count))?;
        Ok(0)
    })
}

#[no_mangle]
pub unsafe extern "C" fn kvfs_jamm_walk_end(walk: *mut Walk) {
    quiet(|| drop(Box::from_raw(walk)));
}

#[no_mangle]
pub unsafe extern "C" fn kvfs_jamm_apply(
    store: &Store,
    ops: *const Op,
    count: usize,
    text: *const Text,
) -> c_int {
    entry(text, || {
        let ops = if count == 0 {
            &[]
        } else {
            std::slice::from_raw_parts(ops, count)
        };
        store.apply(ops)
    })
}

#[no_mangle]
pub unsafe extern "C" fn kvfs_jamm_verify(
    snap: &Snap,
    finding: Finding,
    finding_arg: *mut c_void,
    progress: Progress,
    progress_arg: *mut c_void,
    text: *const Text,
) -> c_int {
    entry(text, || {
        let mut v = Verify {
            finding,
            finding_arg,
            progress,
            progress_arg,
            seen: Vec::new(),
            done: 0,
            stopped: false,
        };
        match verify(snap, &mut v) {
            Err(e) => {
                v.find("store", &e.text);
                Ok(0)
            }
            r => r,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(i: u32) -> [u8; 4] {
        i.to_be_bytes()
    }

    /// JammDB's own bug, the reason for dead records: a batch that empties a branch page which
    /// is not the root.  If this fails JammDB is mended.
    #[test]
    fn jammdb_itself__a_branch_emptied__panics() {
        let path = std::env::temp_dir().join(format!("kvfs-jamm-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let db = jammdb::OpenOptions::new()
            .pagesize(1024)
            .open(&path)
            .unwrap();
        let tx = db.tx(true).unwrap();
        let bucket = tx.create_bucket("b").unwrap();
        for i in 0..4000 {
            bucket.put(key(i), vec![0; 64]).unwrap();
        }
        tx.commit().unwrap();
        let delete = || {
            let tx = db.tx(true).unwrap();
            let bucket = tx.get_bucket("b").unwrap();
            for i in 1000..3000 {
                bucket.delete(key(i)).unwrap();
            }
            tx.commit().unwrap();
        };
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(delete));
        std::fs::remove_file(&path).unwrap();
        assert!(done.is_err());
    }

    /// And the reason for touch_last(): the root keeps one child, which the batch did not load.
    #[test]
    fn jammdb_itself__one_leaf_left_untouched__panics() {
        let path = std::env::temp_dir().join(format!("kvfs-jamm-one-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let db = jammdb::OpenOptions::new()
            .pagesize(1024)
            .open(&path)
            .unwrap();
        let tx = db.tx(true).unwrap();
        let bucket = tx.create_bucket("b").unwrap();
        for i in 0..6 {
            bucket.put(key(i), vec![0; 400]).unwrap();
        }
        tx.commit().unwrap();
        let delete = |keys: std::ops::Range<u32>| {
            let tx = db.tx(true).unwrap();
            let bucket = tx.get_bucket("b").unwrap();
            keys.for_each(|i| drop(bucket.delete(key(i)).unwrap()));
            tx.commit().unwrap();
        };
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| delete(2..6)));
        std::fs::remove_file(&path).unwrap();
        assert!(done.is_err());
    }

    #[test]
    fn mark__of_another_key_or_keyspace__differs() {
        assert_ne!(mark(0, b"a", Mark::Live), mark(0, b"b", Mark::Live));
        assert_ne!(mark(0, b"a", Mark::Live), mark(1, b"a", Mark::Live));
        assert_ne!(mark(0, b"a", Mark::Live), mark(0, b"a", Mark::Dead));
    }
}
