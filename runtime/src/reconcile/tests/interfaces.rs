//! Which interfaces are what, and whose addresses are whose.

use super::*;

#[test]
fn interfaces_get_their_roles_and_addresses_their_owners() {
    let (snapshot, host) = world(&["db", "web"]);
    let p = plan(&snapshot, &host, &Live::default(), &Options::default());
    let roles: Vec<(&str, bool)> = p.roles.values().map(|r| (r.name.as_str(), r.uplink)).collect();
    assert_eq!(roles, [("eth0", true), ("veth0", false), ("veth1", false)]);
    assert_eq!(p.desired.addresses[&v4("192.0.2.1")].kind, ADDRESS_HOST);
    let web = p.desired.addresses[&v4("172.17.0.3")];
    assert_eq!((web.kind, web.ifindex, web.bridge, web.mac), (ADDRESS_ENDPOINT, 101, BRIDGE, [2, 0, 0, 0, 0, 1]));
    assert!(!p.desired.addresses.contains_key(&v4("127.0.0.1")));
    let endpoint = p.desired.endpoints[&101];
    assert_eq!((endpoint.ipv4, endpoint.gateway4), (v4("172.17.0.3"), v4("172.17.0.1")));
}

#[test]
fn an_interface_whose_container_is_not_known_yet_is_closed() {
    let (snapshot, mut host) = world(&["db"]);
    let stranger = Interface { master: Some(BRIDGE), peer: Some((77, 5)), is_veth: true, ..interface(200, "veth9") };
    host.interfaces.insert(200, stranger);
    let p = plan(&snapshot, &host, &Live::default(), &Options::default());
    assert!(!p.roles[&200].uplink, "programs stand there");
    assert!(!p.desired.endpoints.contains_key(&200), "and know nobody");
}

#[test]
fn a_starting_container_is_found_by_its_mac_before_the_engine_tells_of_its_process() {
    let (mut snapshot, mut host) = world(&["db"]);
    let db = snapshot.containers.get_mut("db").unwrap();
    (db.running, db.pid) = (false, 0);
    db.endpoints.clear();
    host.namespaces.clear();
    let p = plan(&snapshot, &host, &Live::default(), &Options::default());
    assert!(p.desired.endpoints.is_empty());
    host.peer_macs.insert(100, [2, 0, 0, 0, 0, 0]);
    let p = plan(&snapshot, &host, &Live::default(), &Options::default());
    assert_eq!(p.desired.endpoints[&100].ipv4, v4("172.17.0.2"));
}

#[test]
fn what_the_local_table_says_is_the_hosts() {
    let (snapshot, mut host) = world(&[]);
    host.local.insert(("203.0.113.20".parse().unwrap(), 32));
    let p = plan(&snapshot, &host, &Live::default(), &Options::default());
    assert_eq!(p.desired.addresses[&v4("203.0.113.20")].kind, ADDRESS_HOST);
}

/// Of what has an address and no program, the engine's own rules decide; a bridge with nothing but veths may be the engine's.
#[test]
fn interfaces_that_are_left_out_are_the_engines_affair() {
    let (snapshot, mut host) = world(&["db"]);
    let more = [
        interface(50, "eth1"),
        Interface { is_ethernet: false, ..interface(51, "wg0") },
        Interface { is_bridge: true, ..interface(52, "br-new") },
        Interface { is_veth: true, master: Some(52), ..interface(53, "veth-new") },
        Interface { is_bridge: true, ..interface(54, "vmbr0") },
        Interface { master: Some(54), ..interface(55, "eth2") },
        interface(56, "eth3"),
    ];
    for i in more {
        host.interfaces.insert(i.index, i);
    }
    for (address, index) in [("198.51.100.1", 50), ("10.9.0.1", 51), ("172.30.0.1", 52), ("203.0.113.1", 54)] {
        host.addresses.push((address.parse().unwrap(), index));
    }
    let unserved = |uplinks: &[&str]| {
        let options = Options { uplinks: uplinks.iter().map(|u| (*u).to_owned()).collect(), ..Options::default() };
        let plan = plan(&snapshot, &host, &Live::default(), &options);
        plan.desired.unserved.into_keys().collect::<Vec<_>>()
    };
    assert_eq!(unserved(&["eth0"]), [50, 51, 54]);
    assert_eq!(unserved(&["eth0", "vmbr0"]), [50, 51]);
    assert_eq!(unserved(&[]), [51]);
}

#[test]
fn what_leads_to_containers_is_no_uplink_whoever_names_it() {
    let (snapshot, host) = world(&["db"]);
    let options = Options { uplinks: vec!["docker0".into(), "veth0".into()], ..Options::default() };
    let p = plan(&snapshot, &host, &Live::default(), &options);
    assert!(p.roles.values().all(|role| !role.uplink), "{:?}", p.roles);
    for name in ["docker0", "veth0"] {
        assert!(p.problems.iter().any(|line| line.starts_with(&format!("uplink {name}: it leads to containers"))));
    }
    assert!(p.problems.iter().any(|line| line.starts_with("interface eth0: not served")), "{:?}", p.problems);
}

#[test]
fn a_bridges_ports_are_uplinks_where_rules_of_ip_see_its_frames() {
    let (snapshot, mut host) = world(&["db"]);
    let mac = [2, 0, 0, 0, 9, 9];
    for i in [
        Interface { is_bridge: true, mac, ..interface(54, "vmbr0") },
        Interface { master: Some(54), ..interface(55, "eth2") },
        Interface { master: Some(54), is_veth: true, ..interface(56, "tap0") },
    ] {
        host.interfaces.insert(i.index, i);
    }
    host.addresses.push(("203.0.113.1".parse().unwrap(), 54));
    let uplinks = |host: &Host| plan(&snapshot, host, &Live::default(), &Options::default()).desired.uplinks;
    assert_eq!(uplinks(&host).into_keys().collect::<Vec<_>>(), [UPLINK, 54]);
    host.bridges_filter = true;
    let p = plan(&snapshot, &host, &Live::default(), &Options::default());
    for port in [55, 56] {
        assert_eq!((p.desired.uplinks[&port].is_port, p.desired.uplinks[&port].bridge_mac), (1, mac));
        assert!(p.roles[&port].bridge_port && p.roles[&port].uplink);
    }
    assert_eq!((p.desired.uplinks[&54].is_port, p.desired.uplinks.len()), (0, 4));
    assert!(!p.roles[&100].uplink, "a container's interface stays one");
}

#[test]
fn prefixes_are_of_local_routes_and_of_networks() {
    let (snapshot, mut host) = world(&["db"]);
    // One of the host's own networks, and one of the containers'.
    host.broadcasts.extend([std::net::Ipv4Addr::new(192, 0, 2, 255), std::net::Ipv4Addr::new(172, 17, 255, 255)]);
    host.local.insert(("203.0.113.0".parse().unwrap(), 24));
    host.local.insert(("2001:db8:113::".parse().unwrap(), 64));
    let prefixes = |host: &Host, isolate| {
        let options = Options { isolate, ..Options::default() };
        plan(&snapshot, host, &Live::default(), &options).desired.prefixes
    };
    let hosts = [
        ((v4("203.0.113.0"), 120), PREFIX_HOST),
        ((v4("2001:db8:113::"), 64), PREFIX_HOST),
        ((v4("192.0.2.255"), 128), PREFIX_BROADCAST),
    ];
    let with = |kind| hosts.into_iter().chain([((v4("172.17.0.0"), 112), kind)]).collect::<BTreeMap<_, _>>();
    assert_eq!(prefixes(&host, Isolate::None), with(PREFIX_NETWORK));
    assert_eq!(prefixes(&host, Isolate::Default), with(PREFIX_ISOLATED));
    // A port of its bridge by which somebody outside may have such an address.
    host.interfaces.insert(77, Interface { master: Some(BRIDGE), ..interface(77, "eth7") });
    for isolate in [Isolate::None, Isolate::Default] {
        assert_eq!(prefixes(&host, isolate), hosts.into());
    }
    // He is no stranger among containers, and nothing is attached there.
    let p = plan(&snapshot, &host, &Live::default(), &Options::default());
    assert_eq!((p.desired.uplinks[&77].is_port, p.roles.contains_key(&77)), (1, false));
}
