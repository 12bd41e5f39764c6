//! What the verifier and a packet cost.

use runtime_common::maps::{Endpoint, FlowAction, Zone};
use runtime_common::packet::TCP;

use super::world::*;
use crate::forge::*;

#[test]
fn the_verifier_is_far_from_its_limit() {
    let w = World::new();
    for (name, instructions) in w.kernel.verified() {
        println!("{name}: {instructions} instructions verified");
        // `from_endpoint` takes most, just under 200,000, and compilers differ: it also masquerades and makes the errors of a
        // router. More than this is to be noticed, long before a kernel refuses it.
        assert!(instructions < 250_000, "{name}: {instructions} instructions; the kernel takes a million");
    }
}

#[test]
#[ignore = "figures to look at: no machine is the same twice"]
fn nanoseconds_a_packet() {
    const ROUNDS: usize = 2_000;
    /// A packet lives for fewer hops.
    const REPEAT: u32 = 250;
    let mut w = World::new();
    // A repeated run is given the packet as the run before has left it: two flows turn it to and fro.
    let uplink = [tuple(CLIENT, 40000, HOST, 80), tuple(CLIENT, 40000, WEB.v4, 8080)];
    w.translate_to_and_fro(uplink, TCP, Zone::Uplink, FlowAction::Publish);
    let reply = [tuple(WEB.v4, 80, CLIENT, 40000), tuple(WEB.v4, 8080, CLIENT, 40000)];
    w.translate_to_and_fro(reply, TCP, Zone::Endpoint, FlowAction::ReplyOut);
    let link = [tuple(WEB.v4, 5000, DB.v4, 5432); 2];
    w.translate_to_and_fro(link, TCP, Zone::Endpoint, FlowAction::Link);
    // The answer leaves with the uplink's MAC address.
    let mut endpoints = w.kernel.map::<u32, Endpoint>("ENDPOINTS");
    let web = Endpoint { mac: MAC_UPLINK, ..endpoints.get(&ifindex("web"), 0).unwrap() };
    endpoints.insert(ifindex("web"), web, 0).unwrap();
    let own = |p: Forge| p.macs(MAC_UPLINK, MAC_BRIDGE).ttl(255).build();
    let cases = [
        // Nothing but the run itself and a look at the Ethernet header.
        ("not IP", Uplink, arp(MAC_CLIENT, MAC_CLIENT, CLIENT, HOST, false)),
        ("none of ours, to the host", Uplink, inbound(tcp(CLIENT, 1, HOST, 22, ACK)).ttl(255).build()),
        ("published, established", Uplink, inbound(tcp(CLIENT, 40000, HOST, 80, ACK)).ttl(255).build()),
        ("none of ours, to the host", Xdp, inbound(tcp(CLIENT, 1, HOST, 22, ACK)).ttl(255).build()),
        ("published, established", Xdp, inbound(tcp(CLIENT, 40000, HOST, 80, ACK)).ttl(255).build()),
        ("its answer, port alone rewritten", Leaving("web"), own(tcp(WEB.v4, 80, CLIENT, 40000, ACK))),
        ("linked, established", Leaving("web"), own(tcp(WEB.v4, 5000, DB.v4, 5432, ACK))),
        ("from the host", Entering("web", ""), arriving(tcp(HOST, 1, WEB.v4, 80, ACK), &WEB).build()),
    ];
    let only = std::env::var("CASE").unwrap_or_default();
    for (what, at, packet) in cases.into_iter().filter(|c| c.0.contains(&only)) {
        let outcome = w.run(at, &packet, 1);
        println!("{:?}", outcome.counted);
        let mut times: Vec<_> = (0..ROUNDS).map(|_| w.run(at, &packet, REPEAT).duration.as_nanos()).collect();
        times.sort_unstable();
        println!("{at:?}, {what}: {} ns at best, {} ns as a rule", times[0], times[ROUNDS / 2]);
    }
}
