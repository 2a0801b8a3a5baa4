// SPDX-License-Identifier: BSD-3-Clause
//! Looking up and walking a tree of JammDB's pages, both ways (JammDB itself walks forwards
//! only).  Depth and steps are bounded: damage cannot make a walk endless.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::rc::Rc;
use std::sync::Arc;

use crate::glue::{damaged, Res};
use crate::jamm_page::{Mark, Node};

const DEPTH_MAX: usize = 24;
const KEPT_MAX: usize = 1024; // nodes

/// Judged branches by page, for as long as nobody commits.
pub type Kept = Rc<RefCell<HashMap<u64, Rc<Node>>>>;

#[derive(Clone)]
pub struct Tree {
    pub file: Arc<File>,
    pub pages: u64, // of the store
    pub root: u64,
    pub keyspace: Option<u8>, // None: the tree of buckets
    pub kept: Option<Kept>,
    /// Of a leaf judge the places of all records, but only the keys that are looked at.
    pub light: bool,
}

/// A place in a tree: nodes from the root to a leaf, and the index in each.
#[derive(Clone)]
pub struct Place {
    pub path: Vec<(Rc<Node>, usize)>,
}

impl Place {
    pub fn leaf(&self) -> (&Node, usize) {
        let (node, i) = &self.path[self.path.len() - 1];
        (node, *i)
    }
}

impl Tree {
    pub fn load(&self, id: u64, first: Option<&[u8]>) -> Res<Rc<Node>> {
        let kept = self
            .kept
            .as_ref()
            .and_then(|k| k.borrow().get(&id).cloned());
        if let Some(node) = kept {
            return Ok(node);
        }
        let node = Rc::new(Node::load(&self.file, id, self.pages, self.light)?);
        match self.light && node.leaf {
            true => node.judge_places()?,
            false => node.judge(self.keyspace, first)?,
        }
        if let (Some(kept), false) = (&self.kept, node.leaf) {
            let mut kept = kept.borrow_mut();
            if kept.len() >= KEPT_MAX {
                kept.clear();
            }
            kept.insert(id, node.clone());
        }
        Ok(node)
    }

    /// Child I of NODE.
    pub fn child(&self, node: &Node, i: usize) -> Res<Rc<Node>> {
        self.load(node.child(i)?, Some(&node.key_at(i)?))
    }

    /// The first index whose key is >= KEY, and whether it is KEY.
    fn lower(node: &Node, key: &[u8]) -> Res<(usize, bool)> {
        let (mut lo, mut hi) = (0, node.count);
        while lo < hi {
            let mid = (lo + hi) / 2;
            match node.key_at(mid)?.as_ref().cmp(key) {
                std::cmp::Ordering::Less => lo = mid + 1,
                std::cmp::Ordering::Equal => return Ok((mid, true)),
                std::cmp::Ordering::Greater => hi = mid,
            }
        }
        Ok((lo, false))
    }

    /// Where KEY is, or would be: its leaf's index may be the leaf's count.
    pub fn seek(&self, key: &[u8]) -> Res<(Place, bool)> {
        let mut path = Vec::new();
        let mut node = self.load(self.root, None)?;
        loop {
            let (i, exact) = Self::lower(&node, key)?;
            if node.leaf {
                path.push((node, i));
                return Ok((Place { path }, exact));
            }
            let i = if exact { i } else { i.max(1) - 1 };
            let child = self.child(&node, i)?;
            path.push((node, i));
            if path.len() >= DEPTH_MAX {
                return damaged("a tree without an end");
            }
            node = child;
        }
    }

    /// Behind the last record.
    fn seek_end(&self) -> Res<Place> {
        let mut path = Vec::new();
        let mut node = self.load(self.root, None)?;
        while !node.leaf {
            let i = node.count - 1;
            let child = self.child(&node, i)?;
            path.push((node, i));
            if path.len() >= DEPTH_MAX {
                return damaged("a tree without an end");
            }
            node = child;
        }
        let end = node.count;
        path.push((node, end));
        Ok(Place { path })
    }

    /// To the leaf behind (or before) that of PLACE; false: there is none.
    fn turn(&self, place: &mut Place, reverse: bool) -> Res<bool> {
        let depth = place.path.len();
        loop {
            place.path.pop();
            let (node, i) = match place.path.last_mut() {
                None => return Ok(false),
                Some((node, i)) => (node.clone(), i),
            };
            if reverse && *i > 0 {
                *i -= 1;
            } else if !reverse && *i + 1 < node.count {
                *i += 1;
            } else {
                continue;
            }
            let mut child = self.child(&node, *i)?;
            while place.path.len() + 1 < depth {
                let i = if reverse { child.count - 1 } else { 0 };
                let next = self.child(&child, i)?;
                place.path.push((child, i));
                child = next;
            }
            if !child.leaf {
                return damaged(format!("page {}: a leaf was expected", child.id));
            }
            let i = if reverse { child.count } else { 0 };
            place.path.push((child, i));
            return Ok(true);
        }
    }
}

/// A scan over [lo, hi); dead records are passed over unless asked for.
pub struct Walk {
    pub tree: Tree,
    lo: Vec<u8>,
    hi: Vec<u8>,
    reverse: bool,
    dead_too: bool,
    place: Option<Place>,
    pub key: Vec<u8>,
    started: bool,
    ended: bool,
}

impl Walk {
    pub fn new(tree: Tree, lo: &[u8], hi: &[u8], reverse: bool, dead_too: bool) -> Walk {
        let ended = !hi.is_empty() && hi <= lo;
        Walk {
            tree,
            lo: lo.to_vec(),
            hi: hi.to_vec(),
            reverse,
            dead_too,
            place: None,
            key: Vec::new(),
            started: false,
            ended,
        }
    }

    pub fn place(&self) -> &Place {
        self.place.as_ref().unwrap()
    }

    fn start(&mut self) -> Res<Place> {
        if !self.reverse {
            return Ok(self.tree.seek(&self.lo)?.0);
        }
        match self.hi.is_empty() {
            true => self.tree.seek_end(),
            false => Ok(self.tree.seek(&self.hi)?.0),
        }
    }

    /// To the next record of any kind; the index of a forward place is the record to come.
    fn advance(&mut self, place: &mut Place) -> Res<bool> {
        loop {
            let at = place.path.len() - 1;
            let (node, i) = &mut place.path[at];
            if self.reverse && *i > 0 {
                *i -= 1;
                return Ok(true);
            }
            if !self.reverse && *i < node.count {
                return Ok(true);
            }
            if !self.tree.turn(place, self.reverse)? {
                return Ok(false);
            }
        }
    }

    /// True: `key` and `place` are those of the next record.
    pub fn step(&mut self) -> Res<bool> {
        while !self.ended {
            let mut place = match self.place.take() {
                Some(mut p) => {
                    if !self.reverse {
                        let at = p.path.len() - 1;
                        p.path[at].1 += 1;
                    }
                    p
                }
                None => self.start()?,
            };
            if !self.advance(&mut place)? {
                break;
            }
            let (node, i) = place.leaf();
            let key = node.key(i)?;
            let beyond = if self.reverse {
                key < self.lo
            } else {
                !self.hi.is_empty() && key >= self.hi
            };
            if beyond {
                break;
            }
            if self.started && (key > self.key) == self.reverse {
                return damaged(format!("page {}: keys out of order", node.id));
            }
            let dead = match self.tree.keyspace {
                Some(ks) => node.mark(ks, i, &key)? == Mark::Dead,
                None => false,
            };
            self.place = Some(place);
            self.key = key;
            self.started = true;
            if !dead || self.dead_too {
                return Ok(true);
            }
        }
        self.ended = true;
        Ok(false)
    }
}
