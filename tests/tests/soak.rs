//! The daemon killed between two of its effects. `cargo xtask soak --kills N` does it as often as one likes.

use std::time::Duration;

use tests::soak::{Enough, run};

#[test]
fn a_daemon_that_is_killed_between_two_effects_leaves_nothing_half_done() {
    // As many as fit: each costs a start of the daemon's, with its programs verified anew.
    let enough = Enough { kills: 500, time: Duration::from_secs(60) };
    let report = run(enough, |_| ()).unwrap_or_else(|e| panic!("{e:#}"));
    eprintln!("{report}");
    assert!(report.kills >= 8);
}
