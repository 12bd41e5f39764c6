//! The bridge by which containers on overlay networks are joined to the host.

use super::super::swarm::GATEWAY;
use super::*;

/// `db` and `web` on it, and the Engine's own load balancer, behind interface 102.
fn on_the_gateway() -> (Snapshot, Host) {
    let (mut snapshot, mut host) = world(&["db", "web"]);
    let network = snapshot.networks.get_mut("net").unwrap();
    (network.name, network.is_default_bridge) = (GATEWAY.into(), false);
    let mut balancer = network.endpoints["web"].clone();
    (balancer.mac, balancer.ipv4) = (Some([2, 0, 0, 0, 0, 9]), Some([172, 17, 0, 9].into()));
    network.endpoints.insert("ingress-sbox".into(), balancer);
    for container in snapshot.containers.values_mut() {
        // No container lists it as its own.
        container.endpoints.clear();
    }
    let veth =
        Interface { master: Some(BRIDGE), peer: Some((77, 5)), is_veth: true, ..interface(102, "veth-of-balancer") };
    host.interfaces.insert(veth.index, veth);
    host.peer_macs.insert(102, [2, 0, 0, 0, 0, 9]);
    (snapshot, host)
}

#[test]
fn containers_on_it_are_served_and_the_engines_own_balancers_left_alone() {
    let (mut snapshot, host) = on_the_gateway();
    snapshot.containers.get_mut("db").unwrap().publications = vec![publication("0.0.0.0", 80, "7/tcp")];
    for isolate in [Isolate::Default, Isolate::All] {
        let options = Options { isolate, ..Options::default() };
        let p = plan(&snapshot, &host, &Live::default(), &options);
        assert_eq!(p.roles.keys().copied().collect::<Vec<_>>(), [UPLINK, 100, 101]);
        let isolated = p.desired.endpoints[&100].flags & ENDPOINT_ISOLATED != 0;
        assert_eq!(isolated, isolate == Isolate::All);
        let published: Vec<_> = p.desired.published.iter().flat_map(|p| p.publications.clone()).collect();
        assert_eq!(published.iter().map(|(_, to)| to.ifindex).collect::<Vec<_>>(), [100]);
        assert_eq!(p.problems, [""; 0]);
    }
}

/// They name addresses of overlay networks.
#[test]
fn links_do_not_lead_over_it() {
    let (mut snapshot, host) = on_the_gateway();
    snapshot.containers.get_mut("web").unwrap().links = vec![link_to("db", "db")];
    let options = Options { isolate: Isolate::All, ..Options::default() };
    let p = plan(&snapshot, &host, &Live::default(), &options);
    assert_eq!((open_links(&p).len(), p.hosts.len()), (0, 0));
}
