// SPDX-License-Identifier: BSD-3-Clause
//! `struct kvfs_op` of <kvfs/engine.h>, and what a batch comes to in the end.

use std::collections::btree_map::BTreeMap;
use std::ops::Bound;
use std::os::raw::c_void;

use crate::glue::bytes;

pub const PUT: u8 = 0;
pub const DEL: u8 = 1;
pub const DEL_RANGE: u8 = 2;
pub const EXPECT: u8 = 3;

#[repr(C)]
pub struct Op {
    pub kind: u8,
    pub keyspace: u8,
    key_len: u16,
    key_end_len: u16,
    key: *const c_void,
    key_end: *const c_void,
    value: [libc::iovec; 2],
}

impl Op {
    pub fn key(&self) -> &[u8] {
        unsafe { bytes(self.key, self.key_len as usize) }
    }
    pub fn key_end(&self) -> &[u8] {
        unsafe { bytes(self.key_end, self.key_end_len as usize) }
    }
    fn piece(&self, i: usize) -> &[u8] {
        unsafe { bytes(self.value[i].iov_base, self.value[i].iov_len) }
    }
    pub fn value_len(&self) -> usize {
        self.value[0].iov_len + self.value[1].iov_len
    }
    /// HEAD, then the value.
    pub fn value(&self, head: &[u8]) -> Vec<u8> {
        let mut v = Vec::with_capacity(head.len() + self.value_len());
        v.extend_from_slice(head);
        v.extend_from_slice(self.piece(0));
        v.extend_from_slice(self.piece(1));
        v
    }
    pub fn equals(&self, value: &[u8]) -> bool {
        let n = self.value[0].iov_len;
        value.len() == self.value_len()
            && &value[..n] == self.piece(0)
            && &value[n..] == self.piece(1)
    }
}

/// Keys from `lo` on, before `hi`; an empty `hi` is no bound.
#[derive(Clone, Debug)]
pub struct Range {
    pub lo: Vec<u8>,
    pub hi: Vec<u8>,
}

impl Range {
    pub fn holds(&self, key: &[u8]) -> bool {
        key >= &self.lo[..] && (self.hi.is_empty() || key < &self.hi[..])
    }
    pub fn is_empty(&self) -> bool {
        !self.hi.is_empty() && self.hi <= self.lo
    }
}

/// The batch's end for one keyspace: single keys (None: deleted), and ranges that lose
/// every key which is not put among the single ones.
#[derive(Default)]
pub struct Net<'a> {
    pub keys: BTreeMap<Vec<u8>, Option<&'a Op>>,
    pub ranges: Vec<Range>,
}

impl<'a> Net<'a> {
    pub fn of(ops: &'a [Op], keyspace: u8) -> Net<'a> {
        let mut net = Net::default();
        for op in ops.iter().filter(|op| op.keyspace == keyspace) {
            match op.kind {
                PUT => drop(net.keys.insert(op.key().to_vec(), Some(op))),
                DEL => drop(net.keys.insert(op.key().to_vec(), None)),
                DEL_RANGE => net.delete(Range {
                    lo: op.key().to_vec(),
                    hi: op.key_end().to_vec(),
                }),
                _ => (),
            }
        }
        net
    }

    fn delete(&mut self, range: Range) {
        if range.is_empty() {
            return;
        }
        let hi = match range.hi.is_empty() {
            true => Bound::Unbounded,
            false => Bound::Excluded(range.hi.clone()),
        };
        for (_, v) in self.keys.range_mut((Bound::Included(range.lo.clone()), hi)) {
            *v = None;
        }
        self.ranges.push(range);
    }

    /// Will KEY, which the store holds, be gone?
    pub fn deletes(&self, key: &[u8]) -> bool {
        match self.keys.get(key) {
            Some(v) => v.is_none(),
            None => self.ranges.iter().any(|r| r.holds(key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(kind: u8, key: &'static [u8], end: &'static [u8]) -> Op {
        let none = libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        };
        Op {
            kind,
            keyspace: 0,
            key_len: key.len() as u16,
            key_end_len: end.len() as u16,
            key: key.as_ptr().cast(),
            key_end: end.as_ptr().cast(),
            value: [none, none],
        }
    }

    #[test]
    fn net_of__a_range_between_puts__takes_only_what_came_before() {
        let ops = [
            op(PUT, b"a", b""),
            op(DEL_RANGE, b"a", b"c"),
            op(PUT, b"b", b""),
        ];
        let net = Net::of(&ops, 0);
        assert!(net.deletes(b"a") && net.deletes(b"aa"));
        assert!(!net.deletes(b"b") && !net.deletes(b"c"));
        assert!(net.keys[&b"b"[..]].is_some());
        assert!(Net::of(&ops, 1).keys.is_empty());
    }

    #[test]
    fn net_of__an_empty_range__nothing() {
        assert!(Net::of(&[op(DEL_RANGE, b"c", b"a")], 0).ranges.is_empty());
        assert!(Net::of(&[op(DEL_RANGE, b"c", b"")], 0).deletes(b"zzz"));
    }
}
