//! Ten rounds of killing a process that changes keys. `--example kill_test` makes more of them.
#![cfg(all(unix, feature = "redb"))]

#[path = "common/kill.rs"]
mod kill;

use std::process::Command;
use std::time::Duration;

/// Where the child is told that it is one.
const CHILD: &str = "SPARK_AUTH_KILL_TEST_CHILD";

#[test]
fn a11_nothing_that_was_acknowledged_is_lost_to_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let command = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        (command.args(["--exact", "the_process_that_is_killed", "--nocapture"])).env(CHILD, "1");
        command
    };
    let limit = Duration::from_secs(120);
    let outcome = kill::rounds(10, 7, dir.path(), limit, command, |_| {});
    assert!(outcome.acknowledged > 0, "{outcome:?}");
    println!("{outcome:?}");
}

/// Does nothing unless the test above has started it.
#[test]
fn the_process_that_is_killed() {
    if std::env::var_os(CHILD).is_some() {
        kill::child();
    }
}
