//! The daemon killed between two of its effects. `cargo xtask soak --kills N` does it as often as one likes.

#[test]
fn a_daemon_that_is_killed_between_two_effects_leaves_nothing_half_done() {
    let report = tests::soak::run(8, |_| ()).unwrap_or_else(|e| panic!("{e:#}"));
    assert!(report.kills >= 8);
}
