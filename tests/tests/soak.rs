//! The daemon killed between two of its effects. `cargo xtask soak --kills N` does it as often as one likes.

use std::time::Duration;

use tests::soak::{Options, run};

#[test]
fn a_daemon_that_is_killed_between_two_effects_leaves_nothing_half_done() {
    // As many as fit: each costs two thirds of a start, with all programs verified anew.
    let options = Options { kills: 500, time: Duration::from_secs(60), other: None };
    let report = run(options, |_| ()).unwrap_or_else(|e| panic!("{e:#}"));
    eprintln!("{report}");
    assert!(report.kills >= 8);
}
