// SPDX-License-Identifier: BSD-3-Clause
//! The smallest program of sled: a record counts the commits.  See README.md.
//!
//!     sled write N     N commits in ./store, which is made; each is told when it is durable
//!     sled check DIR   is each commit of which was told there?

#[path = "../marks.rs"]
mod marks;

fn open(path: &str) -> sled::Result<sled::Db> {
    let config = sled::Config::new().path(path).flush_every_ms(None);
    config.segment_size(4096).open() // so that recordings are small
}

fn count(db: &sled::Db) -> sled::Result<u64> {
    let n = db.get("count")?;
    Ok(n.map_or(0, |n| {
        String::from_utf8_lossy(&n).parse().expect("a number")
    }))
}

fn write(commits: u64) -> sled::Result<()> {
    let db = open("store")?;
    let first = count(&db)?;
    for n in first + 1..=first + commits {
        db.insert("count", n.to_string().as_bytes())?;
        db.flush()?; // returns when it is durable
        marks::put(n);
    }
    std::process::exit(0) // closing would sync
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match (args.get(1).map(String::as_str), args.get(2)) {
        (Some("write"), Some(n)) => write(n.parse().expect("a number")).expect("write"),
        (Some("check"), Some(dir)) => {
            let db = open(&format!("{}/store", dir)).expect("open");
            marks::judge(count(&db).expect("read"));
        }
        _ => panic!("usage: write N | check DIR"),
    }
}
