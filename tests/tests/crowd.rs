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

/// What the Engine is asked about a container that is linked to another, in a crowd of so many: when it leaves the network and comes
/// back, and when it is started again. How often, and the bytes of the answers; those about the network by themselves.
fn costs(size: usize) -> [(usize, usize, usize); 2] {
    let crowd = Crowd::make(size).expect("a crowd");
    let (_daemon, _) = crowd.up().expect("all are served");
    let cost = || {
        // An answer to the last event may be on its way.
        std::thread::sleep(Duration::from_millis(500));
        let asked = crowd.take_questions();
        let (networks, others): (Vec<_>, Vec<_>) = asked.iter().partition(|(path, _)| path.starts_with("/networks/"));
        (asked.len(), others.iter().map(|(_, bytes)| bytes).sum(), networks.len())
    };
    cost();
    crowd.set(1, true, false);
    crowd.tell("disconnect", 1).expect("an event");
    crowd.wait_served(size - 1).expect("it is gone");
    crowd.set(1, true, true);
    crowd.tell("connect", 1).expect("an event");
    crowd.wait_served(size).expect("it is back");
    let moved = cost();
    crowd.set(1, false, false);
    for event in ["die", "disconnect", "stop"] {
        crowd.tell(event, 1).expect("an event");
    }
    crowd.wait_served(size - 1).expect("it is gone");
    crowd.set(1, true, true);
    for event in ["connect", "start"] {
        crowd.tell(event, 1).expect("an event");
    }
    crowd.wait_served(size).expect("it is back");
    let started = cost();
    crowd.down().expect("down");
    [moved, started]
}

#[test]
fn what_the_engine_is_asked_about_one_container_does_not_grow_with_the_others() {
    let (few, many) = (costs(10), costs(100));
    println!("requests, bytes, requests about the network: {few:?} with 10 containers, {many:?} with 100");
    for (few, many) in few.into_iter().zip(many) {
        assert!(many.0 <= few.0 + 1 && 10 * many.1 <= 11 * few.1, "{few:?} {many:?}");
    }
    // Of a container that it is starting, the Engine tells by its network alone; of one that runs, itself tells.
    assert!(few[0].2 == 0 && many[0].2 == 0 && many[1].2 <= 2, "{few:?} {many:?}");
}
