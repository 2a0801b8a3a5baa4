// SPDX-License-Identifier: BSD-3-Clause
//! What a program tells the simulator: a mark for each commit that was acknowledged.

use std::fs::OpenOptions;
use std::io::Write;
use std::process::Command;

/// Commit N is durable, the store says.  `CRASHSIM_MARKS` names a file that takes the mark,
/// `CRASHSIM_MARK` a command, to which it is given.
pub fn put(n: u64) {
    if let Ok(name) = std::env::var("CRASHSIM_MARKS") {
        let mut file = OpenOptions::new().append(true).open(name).expect("marks");
        file.write_all(format!("{}\n", n).as_bytes())
            .expect("marks"); // one write, a line
    }
    if let Ok(command) = std::env::var("CRASHSIM_MARK") {
        let done = Command::new("sh")
            .args(["-c", &format!("{} {}", command, n)])
            .status();
        assert!(done.expect("sh").success(), "{} {}", command, n);
    }
}

/// The store counts COUNT commits: are those that were acknowledged among them?
pub fn judge(count: u64) {
    let marks = std::env::var("CRASHSIM_MARKS").map(std::fs::read_to_string);
    let marks = marks.expect("CRASHSIM_MARKS").unwrap_or_default();
    let told = marks.lines().last().map_or(0, |n| n.parse().expect("mark"));
    if count < told {
        eprintln!(
            "lost: the store counts {} commits, {} were acknowledged",
            count, told
        );
        std::process::exit(1);
    }
}
