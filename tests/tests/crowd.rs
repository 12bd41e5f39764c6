//! A host with many containers: what concerns all of them at once takes no time for each.

use std::time::Duration;

use tests::crowd::Crowd;
use tests::wait_until;

const SOON: Duration = Duration::from_secs(10);

/// Whether the kernel shortens its grace periods: a switch of the whole machine's.
fn expedited() -> bool {
    std::fs::read_to_string("/sys/kernel/rcu_expedited").expect("the switch").trim() != "0"
}

#[test]
fn a_first_start_hurries_the_kernel_and_a_kill_in_the_middle_leaves_it_as_it_was() {
    let crowd = Crowd::make(100).expect("a crowd");
    let mut daemon = crowd.spawn().expect("a daemon");
    wait_until("programs are being attached", SOON, expedited);
    daemon.kill();
    wait_until("the kernel takes its time again", SOON, || !expedited());
    let links = || std::fs::read_dir(crowd.pins().join("links")).map_or(0, Iterator::count);
    assert!(links() < 200, "it was not killed in the middle");

    let (_daemon, _) = crowd.up().expect("all are served");
    assert!(!expedited() && links() > 200);
    crowd.down().expect("down");
    assert!(!expedited() && !crowd.pins().exists());
}
