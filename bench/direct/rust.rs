// SPDX-License-Identifier: BSD-3-Clause
//! jammdb and sled driven directly: each block once in random order and once
//! more, as kvload does with the others, with the keys and values that the adapters store, one
//! transaction or batch a batch.
//!
//!     direct-rust --store=direct:jammdb --dir=EMPTY-FOLDER [--blocks=N] [--batch=N]
//!                 [--threads=N] [--seed=N]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;
use std::time::Instant;

const VALUE: usize = 4096 + 24;

/// SplitMix64.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e3779b97f4a7c15);
    let mut z = *state;
    z = (z ^ z >> 30).wrapping_mul(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d049bb133111eb);
    z ^ z >> 31
}

fn shuffle(blocks: u32, mut state: u64) -> Vec<u32> {
    let mut order: Vec<u32> = vec![0; blocks as usize];
    for i in 0..blocks as usize {
        let j = (random(&mut state) % (i as u64 + 1)) as usize;
        order[i] = order[j];
        order[j] = i as u32;
    }
    order
}

fn key(index: u32) -> [u8; 16] {
    let mut key = [0; 16];
    key[7] = 1;
    key[12..].copy_from_slice(&index.to_be_bytes());
    key
}

/// A value with HEAD bytes of the adapter's before it.
fn value(index: u32, version: u64, head: usize) -> Vec<u8> {
    let mut state = version << 32 | u64::from(index);
    let mut bytes = vec![0; head];
    while bytes.len() < head + VALUE {
        bytes.extend_from_slice(&random(&mut state).to_ne_bytes());
    }
    bytes
}

trait Store: Sync {
    /// Put the blocks, sorted, durably as far as the library goes.
    fn put(&self, indexes: &[u32], version: u64);
}

struct Jamm(Mutex<jammdb::DB>);

impl Store for Jamm {
    fn put(&self, indexes: &[u32], version: u64) {
        let db = self.0.lock().unwrap();
        let tx = db.tx(true).unwrap();
        let bucket = tx.get_or_create_bucket("data").unwrap();
        for i in indexes {
            bucket.put(key(*i), value(*i, version, 4)).unwrap();
        }
        drop(bucket);
        tx.commit().unwrap();
    }
}

/// The file is sled's log: the adapter syncs it, too.
struct Sled(sled::Db, std::fs::File);

impl Store for Sled {
    fn put(&self, indexes: &[u32], version: u64) {
        let mut batch = sled::Batch::default();
        for i in indexes {
            let mut k = vec![2];
            for b in key(*i) {
                match b {
                    0xfe | 0xff => k.extend_from_slice(&[0xfe, b - 0xfe]),
                    b => k.push(b),
                }
            }
            batch.insert(k, value(*i, version, 0));
        }
        self.0.apply_batch(batch).unwrap();
        self.0.flush().unwrap();
        self.1.sync_data().unwrap();
    }
}

fn phase(name: &str, store: &dyn Store, order: &[u32], batch: usize, threads: usize, version: u64) {
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| loop {
                let first = next.fetch_add(batch, Ordering::Relaxed);
                if first >= order.len() {
                    break;
                }
                let mut indexes = order[first..(first + batch).min(order.len())].to_vec();
                indexes.sort_unstable();
                store.put(&indexes, version);
            });
        }
    });
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "phase={name} blocks={} seconds={seconds:.3} rate={:.0}",
        order.len(),
        order.len() as f64 / seconds
    );
}

fn main() {
    let (mut kind, mut folder) = (String::new(), String::new());
    let (mut blocks, mut batch, mut threads, mut seed) = (65536u32, 64usize, 1usize, 1u64);
    for arg in std::env::args().skip(1) {
        let (name, text) = arg.split_once('=').expect("--NAME=VALUE");
        match name {
            "--store" => kind = text.to_string(),
            "--dir" => folder = text.to_string(),
            "--blocks" => blocks = text.parse().unwrap(),
            "--batch" => batch = text.parse().unwrap(),
            "--threads" => threads = text.parse().unwrap(),
            "--seed" => seed = text.parse().unwrap(),
            _ => panic!("{name}: unknown"),
        }
    }
    let store: Box<dyn Store> = match kind.as_str() {
        "direct:jammdb" => Box::new(Jamm(Mutex::new(
            jammdb::OpenOptions::new()
                .pagesize(4096)
                .open(format!("{folder}/store.jammdb"))
                .unwrap(),
        ))),
        "direct:sled" => {
            let db = sled::open(format!("{folder}/sled")).unwrap();
            let log = std::fs::File::options()
                .write(true)
                .open(format!("{folder}/sled/db"))
                .unwrap();
            Box::new(Sled(db, log))
        }
        _ => panic!("--store={kind}: not built in"),
    };
    for (version, name) in [(1, "fill"), (2, "overwrite")] {
        let order = shuffle(blocks, seed * 3 + version);
        phase(name, &*store, &order, batch, threads, version);
    }
}
