// SPDX-License-Identifier: BSD-3-Clause
//! The smallest program of JammDB: a record counts the commits.  See README.md.
//!
//!     jammdb write N     N commits in ./store.db, which is made; each is told when it is durable
//!     jammdb check DIR   is each commit of which was told there?

use jammdb::{Data, Error, OpenOptions, DB};

#[path = "../marks.rs"]
mod marks;

fn open(path: &str) -> Result<DB, Error> {
    OpenOptions::new().num_pages(8).open(path) // so that recordings are small
}

fn count(db: &DB) -> Result<u64, Error> {
    let tx = db.tx(false)?;
    let bucket = match tx.get_bucket("bucket") {
        Err(Error::BucketMissing) => return Ok(0),
        bucket => bucket?,
    };
    let n = match bucket.get("count") {
        Some(Data::KeyValue(kv)) => String::from_utf8_lossy(kv.value()).parse(),
        _ => return Ok(0),
    };
    Ok(n.expect("the count is a number"))
}

fn write(commits: u64) -> Result<(), Error> {
    let db = open("store.db")?;
    let first = count(&db)?;
    for n in first + 1..=first + commits {
        let tx = db.tx(true)?;
        let bucket = tx.get_or_create_bucket("bucket")?;
        bucket.put("count", n.to_string())?;
        drop(bucket);
        tx.commit()?; // returns when it is durable
        marks::put(n);
    }
    Ok(())
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match (args.get(1).map(String::as_str), args.get(2)) {
        (Some("write"), Some(n)) => write(n.parse().expect("a number")).expect("write"),
        (Some("check"), Some(dir)) => {
            let db = open(&format!("{}/store.db", dir)).expect("open");
            marks::judge(count(&db).expect("read"));
        }
        _ => panic!("usage: write N | check DIR"),
    }
}
