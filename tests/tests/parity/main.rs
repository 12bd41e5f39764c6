//! The datapath refuses only what isolation refuses: every case with Docker alone, with `runtime up`, and after `down`.
//!
//! How a table is written: [`tests::parity`]. A group is a lab of its own, and a test.

mod addresses;
mod bridged;
mod differences;
mod docker28;
mod networks;
mod open;
mod ports;
mod swarm;

use std::collections::HashSet;

use differences::DIFFERENCES;
use tests::parity::{Group, run};

/// All of them.
const GROUPS: &[&Group] = &[
    &ports::PORTS,
    &open::OPEN,
    &open::BEHIND,
    &networks::INTERNAL_AND_ORDINARY,
    &networks::BOTH_FAMILIES,
    &addresses::LOCAL_ROUTES,
    &addresses::HOST_NETWORK,
    &bridged::BRIDGED,
    &docker28::MODES,
    &docker28::DIRECT,
    &swarm::SWARM,
];

macro_rules! groups {
    ($($name:ident => $group:expr;)+) => {
        $(#[test]
        fn $name() {
            run(&$group, DIFFERENCES);
        })+
    };
}

groups! {
    published_ports => ports::PORTS;
    containers_of_a_network_that_is_not_isolated => open::OPEN;
    what_is_behind_containers => open::BEHIND;
    an_internal_network_and_an_ordinary_one => networks::INTERNAL_AND_ORDINARY;
    a_network_of_one_family_and_one_of_both => networks::BOTH_FAMILIES;
    local_routes_without_an_address => addresses::LOCAL_ROUTES;
    sockets_of_the_host => addresses::HOST_NETWORK;
    the_hosts_address_on_a_bridge => bridged::BRIDGED;
    gateway_modes => docker28::MODES;
    direct_routing_and_a_wish_for_the_default_route => docker28::DIRECT;
    swarm_by_ports_of_the_host => swarm::SWARM;
}

#[test]
fn every_case_has_a_name_and_every_difference_a_case() {
    let mut names = HashSet::new();
    for group in GROUPS {
        for case in group.cases() {
            assert!(names.insert((group.name, case.name)), "two cases of {} are {:?}", group.name, case.name);
        }
    }
    assert!(names.len() >= 220, "{} cases", names.len());
    let mut seen = HashSet::new();
    for d in DIFFERENCES {
        for case in d.cases {
            assert!(names.contains(&(d.group, *case)), "a difference of no case: {case:?} of {}", d.group);
            assert!(seen.insert((d.group, *case, d.except.map(|e| e.name()))), "twice: {case:?} of {}", d.group);
        }
    }
}
