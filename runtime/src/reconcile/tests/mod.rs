//! The plan, from hand-made engines and hosts.

mod interfaces;
mod quota;
mod swarm;

use std::collections::BTreeMap;
use std::net::IpAddr;

use runtime_common::Addr;
use runtime_common::maps::{
    ADDRESS_ENDPOINT, ADDRESS_HOST, ENDPOINT_ISOLATED, PREFIX_BROADCAST, PREFIX_HOST, PREFIX_ISOLATED, PREFIX_NETWORK,
    PUBLICATION_CLOSED, PUBLICATION_FROM_LOOPBACK,
};
use runtime_common::packet::{ICMP, TCP, UDP};

use super::{Cache, Isolate, Options, Plan};
use crate::host::{Gateways, Host, Interface};
use crate::model::live::{Live, LiveLink, LivePublication};
use crate::model::range::PublicationRange;
use crate::model::{Container, Endpoint, Link, Network, Publication, Snapshot};

const BRIDGE: u32 = 10;
const UPLINK: u32 = 2;

fn interface(index: u32, name: &str) -> Interface {
    Interface {
        index,
        name: name.into(),
        master: None,
        peer: None,
        is_veth: false,
        is_bridge: false,
        is_ethernet: true,
        is_tunnel: false,
        mac: [2, 0, 0, 0, 0, 1],
        is_loopback: false,
    }
}

/// `db` (index 0) and `web` (index 1), more by need: container n has 172.17.0.(n+2), MAC ..:n and interface 100+n.
fn world(names: &[&str]) -> (Snapshot, Host) {
    let mut snapshot = Snapshot::default();
    let mut host = Host::default();
    let mut network = Network {
        id: "net".into(),
        name: "bridge".into(),
        driver: "bridge".into(),
        bridge: Some("docker0".into()),
        is_default_bridge: true,
        labels: BTreeMap::new(),
        subnets: vec!["172.17.0.0/16".into()],
        internal: false,
        masquerade: true,
        endpoints: BTreeMap::new(),
    };
    let loopback = Interface { is_loopback: true, is_ethernet: false, ..interface(1, "lo") };
    for i in [loopback, interface(UPLINK, "eth0"), Interface { is_bridge: true, ..interface(BRIDGE, "docker0") }] {
        host.interfaces.insert(i.index, i);
    }
    for (address, index) in [("127.0.0.1", 1), ("192.0.2.1", UPLINK), ("172.17.0.1", BRIDGE)] {
        host.addresses.push((address.parse().unwrap(), index));
    }
    for (n, name) in names.iter().enumerate() {
        let n32 = n as u32;
        let [high, low] = (n as u16 + 2).to_be_bytes();
        let endpoint = Endpoint {
            network: "net".into(),
            id: format!("endpoint of {name}"),
            mac: Some([2, 0, 0, 0, (n >> 8) as u8, n as u8]),
            ipv4: Some([172, 17, high, low].into()),
            ipv6: None,
            gateway_priority: 0,
        };
        network.endpoints.insert((*name).into(), endpoint.clone());
        let container = Container {
            id: (*name).into(),
            name: (*name).into(),
            hostname: format!("host-{name}"),
            running: true,
            started_at: "now".into(),
            pid: 1000 + n32,
            labels: BTreeMap::new(),
            env: vec![],
            exposed: vec![],
            publications: vec![],
            unserved: Default::default(),
            links: vec![],
            endpoints: vec![endpoint],
            sandbox: None,
            hosts_path: Some(format!("/hosts/{name}").into()),
        };
        snapshot.containers.insert((*name).into(), container);
        let veth = Interface {
            master: Some(BRIDGE),
            peer: Some((n as i32, 5)),
            is_veth: true,
            ..interface(100 + n32, &format!("veth{n}"))
        };
        host.interfaces.insert(veth.index, veth);
        host.namespaces.insert((*name).into(), n as i32);
    }
    snapshot.networks.insert("net".into(), network);
    (snapshot, host)
}

/// A plan without one before it.
fn plan(snapshot: &Snapshot, host: &Host, live: &Live, options: &Options) -> Plan {
    super::plan(snapshot, host, live, options, &mut Cache::default())
}

fn v4(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

fn publication(host: &str, port: u16, container: &str) -> Publication {
    Publication { host_addr: host.parse().unwrap(), host_port: port, container_port: container.parse().unwrap() }
}

fn link_to(source: &str, alias: &str) -> Link {
    Link { source: source.into(), alias: alias.into() }
}

fn open_links(p: &Plan) -> Vec<(Addr, Addr, u8, u16)> {
    p.desired.links.keys().map(|k| (k.recipient, k.source, k.protocol, u16::from_be(k.port))).collect()
}

#[test]
fn the_default_bridge_and_labelled_networks_are_isolated() {
    let (mut snapshot, host) = world(&["db"]);
    let isolated = |snapshot: &Snapshot, isolate| {
        let options = Options { isolate, ..Options::default() };
        plan(snapshot, &host, &Live::default(), &options).desired.endpoints[&100].flags & ENDPOINT_ISOLATED != 0
    };
    assert!(isolated(&snapshot, Isolate::Default));
    assert!(!isolated(&snapshot, Isolate::None));
    snapshot.networks.get_mut("net").unwrap().is_default_bridge = false;
    assert!(!isolated(&snapshot, Isolate::Default));
    assert!(isolated(&snapshot, Isolate::All));
    snapshot.networks.get_mut("net").unwrap().labels.insert("runtime.isolate".into(), "true".into());
    assert!(isolated(&snapshot, Isolate::Default));
}

#[test]
fn a_link_opens_exposed_and_published_ports_and_echo_one_way() {
    let (mut snapshot, host) = world(&["db", "web"]);
    let db = snapshot.containers.get_mut("db").unwrap();
    db.exposed = vec!["5432/tcp".parse().unwrap()];
    db.publications = vec![publication("0.0.0.0", 9000, "53/udp")];
    snapshot.containers.get_mut("web").unwrap().links = vec![link_to("db", "webdb")];
    let p = plan(&snapshot, &host, &Live::default(), &Options::default());
    let (web, db) = (v4("172.17.0.3"), v4("172.17.0.2"));
    let mut links = open_links(&p);
    links.sort();
    assert_eq!(links, [(web, db, ICMP, 0), (web, db, TCP, 5432), (web, db, UDP, 53)]);
    assert_eq!(p.hosts.len(), 1);
    assert_eq!(p.hosts[0].entries[0].to_string(), "172.17.0.2\twebdb host-db db");
}

#[test]
fn live_changes_take_precedence() {
    let (mut snapshot, host) = world(&["db", "web"]);
    snapshot.containers.get_mut("db").unwrap().publications = vec![publication("0.0.0.0", 9000, "53/udp")];
    snapshot.containers.get_mut("web").unwrap().links = vec![link_to("db", "webdb")];
    let live = Live {
        publications: vec![LivePublication {
            container: "web".into(),
            publication: publication("192.0.2.1", 8080, "80/tcp").into(),
            filter: Default::default(),
            created: 7,
        }],
        unpublished: vec![("db".into(), publication("0.0.0.0", 9000, "53/udp").into())],
        links: vec![LiveLink { recipient: "db".into(), link: link_to("web", "front"), all_ports: true, created: 8 }],
        unlinked: vec![("web".into(), link_to("db", "webdb"))],
    };
    let p = plan(&snapshot, &host, &live, &Options::default());
    let published: Vec<_> = p
        .desired
        .publications()
        .iter()
        .map(|(k, v)| (k.addr, u16::from_be(k.port), v.flags, v.addr, u16::from_be(v.port)))
        .collect();
    assert!(published.contains(&(v4("192.0.2.1"), 8080, 0, v4("172.17.0.3"), 80)), "{published:?}");
    assert!(published.contains(&(v4("0.0.0.0"), 9000, PUBLICATION_CLOSED, Addr::default(), 0)), "{published:?}");
    assert!(open_links(&p).iter().all(|l| l.0 == v4("172.17.0.2")), "only db may reach web now");
    assert!(open_links(&p).contains(&(v4("172.17.0.2"), v4("172.17.0.3"), 0, 0)), "all ports");
    let web_hosts = p.hosts.iter().find(|h| h.container == "web").unwrap();
    assert_eq!(web_hosts.removed, ["webdb"]);
}

#[test]
fn generations_outlive_the_daemon_and_end_with_the_endpoint() {
    let (mut snapshot, host) = world(&["db", "web"]);
    snapshot.containers.get_mut("web").unwrap().publications = vec![publication("0.0.0.0", 80, "80/tcp")];
    let of = |snapshot: &Snapshot| {
        let p = plan(snapshot, &host, &Live::default(), &Options::default());
        (p.desired.endpoints[&101].generation, p.desired.publications()[0].1.generation)
    };
    let before = of(&snapshot);
    assert_eq!(before, of(&snapshot));
    // The same address and interface, but started anew.
    let again = "another endpoint".to_owned();
    snapshot.networks.get_mut("net").unwrap().endpoints.get_mut("web").unwrap().id = again;
    let after = of(&snapshot);
    assert_ne!(before.0, after.0);
    assert_ne!(before.1, after.1);
}

#[test]
fn a_port_without_an_address_of_that_family_is_not_in_the_maps() {
    let (mut snapshot, host) = world(&["web"]);
    snapshot.containers.get_mut("web").unwrap().publications =
        vec![publication("0.0.0.0", 80, "80/tcp"), publication("::", 80, "80/tcp")];
    let p = plan(&snapshot, &host, &Live::default(), &Options::default());
    let keys: Vec<Addr> = p.desired.publications().iter().map(|(k, _)| k.addr).collect();
    assert_eq!(keys, [v4("0.0.0.0")]);
}

#[test]
fn ipv6_publications_of_a_container_that_has_ipv4_alone_are_relayed() {
    let (mut snapshot, host) = world(&["web"]);
    let web = snapshot.containers.get_mut("web").unwrap();
    web.publications = vec![
        publication("::", 80, "8080/tcp"),
        publication("::1", 53, "53/udp"),
        publication("::", 9, "9/sctp"),
        publication("::", 81, "81/tcp"),
    ];
    web.unserved.insert(publication("::1", 53, "53/udp"));
    let live = Live { unpublished: vec![("web".into(), publication("::", 81, "81/tcp").into())], ..Live::default() };
    let p = plan(&snapshot, &host, &live, &Options::default());
    let relays: Vec<_> =
        p.relays.iter().map(|(k, r)| (k.protocol.name(), k.address.to_string(), k.port, r.to.to_string())).collect();
    let expected = [
        ("tcp", "::".to_owned(), 80, "172.17.0.2:8080".to_owned()),
        ("udp", "::1".to_owned(), 53, "172.17.0.2:53".to_owned()),
    ];
    assert_eq!(relays, expected);
    // What was taken away is closed; nothing else is in the maps.
    let keys: Vec<u16> = p.desired.publications().iter().map(|(k, _)| u16::from_be(k.port)).collect();
    assert_eq!((keys, p.problems), (vec![81], vec![]));
    // Labels that cannot be understood close the port, relayed or not.
    snapshot.containers.get_mut("web").unwrap().labels.insert("runtime.max-rate".into(), "often".into());
    let p = plan(&snapshot, &host, &live, &Options::default());
    assert!(p.relays.iter().next().is_none() && p.desired.publications().len() == 3, "{:?}", p.desired.publications());

    // With an address of IPv6 it is the datapath's affair.
    let (mut snapshot, host) = world(&["web"]);
    snapshot.containers.get_mut("web").unwrap().publications = vec![publication("::", 80, "8080/tcp")];
    snapshot.networks.get_mut("net").unwrap().endpoints.get_mut("web").unwrap().ipv6 =
        Some("2001:db8::2".parse().unwrap());
    let p = plan(&snapshot, &host, &Live::default(), &Options::default());
    assert!(p.relays.iter().next().is_none() && p.desired.publications().len() == 1);
}

#[test]
fn loopback_sources_are_served_where_the_bridge_routes_them() {
    let (mut snapshot, mut host) = world(&["web"]);
    snapshot.containers.get_mut("web").unwrap().publications = vec![publication("0.0.0.0", 80, "80/tcp")];
    let flag = |host: &Host| {
        let p = plan(&snapshot, host, &Live::default(), &Options::default());
        p.desired.publications()[0].1.flags & PUBLICATION_FROM_LOOPBACK
    };
    assert_eq!(flag(&host), 0);
    host.localnet.insert(BRIDGE);
    assert_eq!(flag(&host), PUBLICATION_FROM_LOOPBACK);
}

#[test]
fn sctp_is_served_where_the_port_stays_and_named_where_it_does_not() {
    let (mut snapshot, host) = world(&["web"]);
    snapshot.containers.get_mut("web").unwrap().publications =
        vec![publication("0.0.0.0", 80, "80/sctp"), publication("0.0.0.0", 81, "80/sctp")];
    let p = plan(&snapshot, &host, &Live::default(), &Options::default());
    assert_eq!(p.desired.publications().len(), 1);
    assert!(p.problems[0].contains("0.0.0.0:81 -> 80/sctp"), "{:?}", p.problems);
}

#[test]
fn a_port_that_one_container_gave_up_is_served_for_the_next() {
    let (mut snapshot, host) = world(&["db", "web"]);
    snapshot.containers.get_mut("db").unwrap().publications = vec![publication("0.0.0.0", 9000, "53/udp")];
    let mut live =
        Live { unpublished: vec![("db".into(), publication("0.0.0.0", 9000, "53/udp").into())], ..Live::default() };
    let flags = |live: &Live| plan(&snapshot, &host, live, &Options::default()).desired.publications()[0].1.flags;
    assert_eq!(flags(&live), PUBLICATION_CLOSED);
    live.publications.push(LivePublication {
        container: "web".into(),
        publication: publication("0.0.0.0", 9000, "53/udp").into(),
        filter: Default::default(),
        created: 7,
    });
    assert_eq!(flags(&live), 0);
}

#[test]
fn what_is_planned_again_is_what_would_be_planned_anew() {
    let (mut snapshot, mut host) = world(&["db", "web"]);
    let mut live = Live::default();
    let mut cache = Cache::default();
    let mut before = Vec::new();
    let mut step = |what: &str, same: bool, snapshot: &Snapshot, host: &Host, live: &Live| {
        let options = Options::default();
        let again = super::plan(snapshot, host, live, &options, &mut cache);
        assert_eq!(again.desired, plan(snapshot, host, live, &options).desired, "{what}");
        let web = again.desired.published.last().cloned();
        let is_same = |(a, b): (&_, &_)| std::sync::Arc::ptr_eq(a, b);
        assert_eq!(web.iter().zip(before.last()).any(is_same), same, "{what}");
        before.extend(web);
    };
    snapshot.containers.get_mut("web").unwrap().publications = vec![publication("0.0.0.0", 80, "80/tcp")];
    step("at first", false, &snapshot, &host, &live);
    step("again", true, &snapshot, &host, &live);
    live.links.push(LiveLink { recipient: "db".into(), link: link_to("web", "front"), all_ports: true, created: 8 });
    step("a link", true, &snapshot, &host, &live);
    host.localnet.insert(BRIDGE);
    step("loopback addresses", false, &snapshot, &host, &live);
    live.unpublished.push(("web".into(), publication("0.0.0.0", 80, "80/tcp").into()));
    step("taken away", false, &snapshot, &host, &live);
    live.unpublished.clear();
    step("given back", false, &snapshot, &host, &live);
    snapshot.containers.get_mut("web").unwrap().labels.insert("runtime.max-rate".into(), "5".into());
    step("a limit", false, &snapshot, &host, &live);
    snapshot.networks.get_mut("net").unwrap().endpoints.get_mut("web").unwrap().id = "another endpoint".into();
    step("a restart", false, &snapshot, &host, &live);
    step("nothing", true, &snapshot, &host, &live);
}

#[test]
fn a_large_range_is_kept_while_other_ports_of_its_container_change() {
    let (mut snapshot, host) = world(&["web"]);
    let (mut live, mut cache, options) = (Live::default(), Cache::default(), Options::default());
    let range = |from: u16, to: u16| {
        let all = (from..=to).map(|port| publication("0.0.0.0", port, &format!("{port}/tcp"))).collect();
        PublicationRange::of(all).remove(0)
    };
    let made = |publication: PublicationRange, created| LivePublication {
        container: "web".into(),
        publication,
        filter: Default::default(),
        created,
    };
    // Where the range's ports are planned, and how many entries there are in all.
    let mut step = |snapshot: &Snapshot, live: &Live| {
        let again = super::plan(snapshot, &host, live, &options, &mut cache);
        let all = again.desired.publications();
        assert_eq!(all, plan(snapshot, &host, live, &options).desired.publications());
        let has = |p: &&std::sync::Arc<crate::datapath::Published>| {
            p.publications.iter().any(|(key, _)| u16::from_be(key.port) == 2099)
        };
        (again.desired.published.iter().find(has).cloned().unwrap(), all.len())
    };
    live.publications.push(made(range(2000, 2099), 1));
    let (first, entries) = step(&snapshot, &live);
    assert_eq!(entries, 100);
    live.publications.push(made(range(80, 80), 2));
    let (again, entries) = step(&snapshot, &live);
    assert!(std::sync::Arc::ptr_eq(&first, &again) && entries == 101);
    snapshot.containers.get_mut("web").unwrap().publications = vec![publication("0.0.0.0", 443, "443/tcp")];
    let (again, entries) = step(&snapshot, &live);
    assert!(std::sync::Arc::ptr_eq(&first, &again) && entries == 102);
    // Now it takes the place of one of the engine's, which would be closed without it.
    snapshot.containers.get_mut("web").unwrap().publications.push(publication("0.0.0.0", 2050, "2050/tcp"));
    live.unpublished.push(("web".into(), range(2050, 2050)));
    assert_eq!(step(&snapshot, &live).1, 102);
    live.forget_publications("web", &[range(2050, 2050)]);
    let p = plan(&snapshot, &host, &live, &options).desired.publications();
    let closed = p.iter().filter(|(_, p)| p.flags == PUBLICATION_CLOSED).map(|(key, _)| u16::from_be(key.port));
    assert_eq!(closed.collect::<Vec<_>>(), [2050]);
    assert_eq!(step(&snapshot, &live).1, 102);
}

#[test]
fn a_publication_leads_to_where_the_default_route_leaves() {
    let (mut snapshot, mut host) = world(&["web"]);
    let second = Network {
        id: "second".into(),
        name: "a-second".into(),
        bridge: Some("br-second".into()),
        subnets: vec!["172.30.0.0/16".into()],
        endpoints: BTreeMap::new(),
        ..snapshot.networks["net"].clone()
    };
    snapshot.networks.insert("second".into(), second);
    let web = snapshot.containers.get_mut("web").unwrap();
    web.publications = vec![publication("0.0.0.0", 80, "80/tcp")];
    let ipv4 = Some([172, 30, 0, 2].into());
    web.endpoints.push(Endpoint { network: "second".into(), id: "e".into(), ipv4, ..web.endpoints[0].clone() });
    let veth = Interface { master: Some(20), ..host.interfaces[&100].clone() };
    host.interfaces.insert(20, Interface { is_bridge: true, ..interface(20, "br-second") });
    host.interfaces.insert(120, Interface { index: 120, name: "veth-second".into(), ..veth });
    let target = |snapshot: &Snapshot, host: &Host| {
        plan(snapshot, host, &Live::default(), &Options::default()).desired.publications()[0].1.addr
    };
    assert_eq!(target(&snapshot, &host), v4("172.30.0.2"), "by name");
    snapshot.containers.get_mut("web").unwrap().endpoints[0].gateway_priority = 1;
    assert_eq!(target(&snapshot, &host), v4("172.17.0.2"), "by the user's wish");
    snapshot.containers.get_mut("web").unwrap().endpoints[1].gateway_priority = 2;
    snapshot.networks.get_mut("second").unwrap().internal = true;
    assert_eq!(target(&snapshot, &host), v4("172.17.0.2"), "an internal network leads nowhere");
    host.gateways.insert("web".into(), Gateways { ipv4: Some([172, 30, 0, 1].into()), ipv6: None });
    assert_eq!(target(&snapshot, &host), v4("172.30.0.2"), "by the container's own route");
}
