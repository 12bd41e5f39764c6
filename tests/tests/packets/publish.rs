//! Published ports, from outside and from containers, and the answers.

use runtime_common::Verdict;
use runtime_common::maps::{FLOW_REPLY, FlowAction, PREFIX_HOST, PREFIX_ISOLATED, Uplink as UplinkEntry};
use runtime_common::packet::{SCTP, TCP, UDP};

use packet_builder::*;
use packet_lab::world::*;

const UPLINK_HOOKS: [At; 2] = [Uplink, Xdp];
const SOON: std::time::Duration = std::time::Duration::from_secs(10);

#[test]
fn published_ports_lead_to_their_container() {
    let mut w = World::new();
    for (protocol, port) in [(TCP, 8080), (UDP, 5353), (SCTP, 80)] {
        w.publish("0.0.0.0", port, protocol, &WEB, 80);
        w.publish("::", port, protocol, &WEB, 80);
    }
    let cases: &[(&str, PacketBuilder)] = &[
        ("TCP SYN", tcp(CLIENT, 40000, HOST, 8080, SYN).payload(b"")),
        ("TCP SYN with data of odd length", tcp(CLIENT, 40001, HOST, 8080, SYN)),
        ("TCP SYN over IPv6", tcp(CLIENT6, 40000, HOST6, 8080, SYN)),
        ("UDP", udp(CLIENT, 40000, HOST, 5353)),
        ("UDP without data", udp(CLIENT, 40000, HOST, 5353).payload(b"")),
        ("UDP without a checksum", udp_without_checksum(CLIENT, 40001, HOST, 5353)),
        ("UDP over IPv6", udp(CLIENT6, 40000, HOST6, 5353)),
        ("SCTP", sctp(CLIENT, 40000, HOST, 80)),
        ("SCTP over IPv6", sctp(CLIENT6, 40000, HOST6, 80)),
        ("TCP with IP options", tcp(CLIENT, 40002, HOST, 8080, SYN).options(&[7, 7, 4, 0, 0, 0, 0, 0])),
        ("TCP with as many IP options as fit", tcp(CLIENT, 40003, HOST, 8080, SYN).options(&[1; 40])),
        ("the last hop that is allowed", tcp(CLIENT, 40004, HOST, 8080, SYN).ttl(2)),
        ("a large packet", tcp(CLIENT, 40005, HOST, 8080, SYN).payload(&[0xa5; 1400])),
    ];
    for (what, packet) in cases {
        for at in UPLINK_HOOKS {
            w.forget();
            let packet = inbound(packet.clone());
            w.forwards(what, at, &packet, Verdict::Published, &published(&packet, at, &WEB, 80));
            // The second packet finds the flow.
            w.forwards(what, at, &packet, Verdict::Published, &published(&packet, at, &WEB, 80));
        }
    }
}

#[test]
fn a_udp_checksum_that_comes_out_as_zero_is_written_as_all_ones() {
    let mut w = World::new();
    w.publish("0.0.0.0", 53, UDP, &WEB, 53);
    // Two bytes of data that bring the sum to zero after translation.
    let translated = |data: &[u8]| inbound(udp(CLIENT, 4000, WEB.v4, 53)).ttl(63).payload(data);
    let sum = |p: &PacketBuilder| u16::from_be_bytes(p.build()[40..42].try_into().unwrap());
    let data = sum(&translated(&[0, 0])).to_be_bytes();
    assert_eq!(sum(&translated(&data)), 0xffff);
    let packet = inbound(udp(CLIENT, 4000, HOST, 53)).payload(&data);
    for at in UPLINK_HOOKS {
        w.forgets_and_forwards(at, &packet, &published(&packet, at, &WEB, 53));
    }
}

#[test]
fn checksums_hold_where_both_addresses_sum_up_to_the_same() {
    let mut w = World::new();
    // The container's addresses with their words in another order: their difference is zero.
    let hosts = ["0.2.172.17", "17:fd00::2"];
    assert_eq!((WEB.v4, WEB.v6), ("172.17.0.2", "fd00:17::2"));
    for (host, client) in hosts.into_iter().zip([CLIENT, CLIENT6]) {
        w.add_host_address(host);
        for protocol in [TCP, UDP] {
            w.publish(host, 8080, protocol, &WEB, 80);
        }
        for packet in [tcp(client, 4000, host, 8080, SYN), udp(client, 4000, host, 8080)] {
            let packet = inbound(packet);
            for at in UPLINK_HOOKS {
                w.forgets_and_forwards(at, &packet, &published(&packet, at, &WEB, 80));
            }
        }
    }
}

#[test]
fn conversations_share_their_way_out_for_a_while() {
    let mut w = World::new();
    for protocol in [TCP, UDP] {
        w.publish("0.0.0.0", 8080, protocol, &WEB, 80);
    }
    let neighbour = |mac: u8| sh(&format!("ip neigh replace {CLIENT} lladdr 02:00:00:00:09:{mac:02x} dev up0"));
    let mut port = 4000;
    // The last byte of the MAC address by which a new conversation's answer leaves.
    let mut leaves = |w: &mut World, protocol: u8| {
        port += 1;
        let (request, answer) = match protocol {
            TCP => (tcp(CLIENT, port, HOST, 8080, SYN), tcp(WEB.v4, 80, CLIENT, port, SYN | ACK)),
            _ => (udp(CLIENT, port, HOST, 8080), udp(WEB.v4, 80, CLIENT, port)),
        };
        assert_eq!(w.run(Uplink, &inbound(request).build(), 1).counted, [(Verdict::Published, 1)]);
        let outcome = w.run(Leaving("web"), &sent(answer, &WEB).build(), 1);
        assert_eq!(outcome.counted, [(Verdict::PublishedReply, 1)]);
        outcome.packet[5]
    };
    // The while may end between any two of them.
    tests::wait_until("a conversation goes the way of another", SOON, || {
        neighbour(1);
        if leaves(&mut w, TCP) != 1 {
            return false;
        }
        neighbour(2);
        leaves(&mut w, TCP) == 1
    });
    assert_eq!(leaves(&mut w, UDP), 2, "routes may differ by protocol");
    tests::wait_until("the way is asked for again", SOON, || leaves(&mut w, TCP) == 2);
}

#[test]
fn an_exact_address_goes_before_the_wildcard() {
    let mut w = World::new();
    w.publish("0.0.0.0", 80, TCP, &WEB, 8000);
    w.publish(HOST, 80, TCP, &DB, 9000);
    w.publish("::", 80, TCP, &WEB, 8000);
    for at in UPLINK_HOOKS {
        w.forget();
        let exact = inbound(tcp(CLIENT, 1000, HOST, 80, SYN));
        w.forwards("exact", at, &exact, Verdict::Published, &published(&exact, at, &DB, 9000));
        let other = inbound(tcp(CLIENT, 1000, "172.17.0.1", 80, SYN));
        w.forwards("wildcard", at, &other, Verdict::Published, &published(&other, at, &WEB, 8000));
        let v6 = inbound(tcp(CLIENT6, 1000, HOST6, 80, SYN));
        w.forwards("wildcard", at, &v6, Verdict::Published, &published(&v6, at, &WEB, 8000));
    }
}

#[test]
fn what_is_not_published_is_left_to_the_host() {
    let mut w = World::new();
    w.publish("0.0.0.0", 80, TCP, &WEB, 80);
    w.publish("0.0.0.0", 81, TCP, &WEB, 80);
    w.close("0.0.0.0", 81, TCP);
    let cases: &[(&str, PacketBuilder, Verdict)] = &[
        ("another port", tcp(CLIENT, 1, HOST, 82, SYN), Verdict::Host),
        ("another protocol", udp(CLIENT, 1, HOST, 80), Verdict::Host),
        ("the other family", tcp(CLIENT6, 1, HOST6, 80, SYN), Verdict::Host),
        ("another address", tcp(CLIENT, 1, "203.0.113.5", 80, SYN), Verdict::Host),
        ("echo request", echo(CLIENT, HOST, true, 7), Verdict::Host),
        ("some protocol", raw(CLIENT, HOST, 50), Verdict::Host),
        ("RST", tcp(CLIENT, 1, HOST, 80, RST), Verdict::Preexisting),
        ("closed, SYN", tcp(CLIENT, 1, HOST, 81, SYN), Verdict::Unpublished),
        ("closed, ACK", tcp(CLIENT, 1, HOST, 81, ACK), Verdict::Unpublished),
        ("straight to a container", tcp(CLIENT, 1, WEB.v4, 80, SYN), Verdict::NotPublished),
        ("straight to a container", udp(CLIENT6, 1, WEB.v6, 80), Verdict::NotPublished),
        ("straight to a container", echo(CLIENT, WEB.v4, true, 7), Verdict::NotPublished),
        ("to a container that is not isolated", echo(CLIENT, ONE.v4, true, 7), Verdict::Network),
        ("with the source of one", udp(ONE.v4, 1, ONE.v4, 80), Verdict::Network),
        ("from a loopback address", tcp("127.0.0.1", 1, HOST, 80, SYN), Verdict::Loopback),
        ("to a loopback address", tcp(CLIENT, 1, "127.8.8.8", 80, SYN), Verdict::Loopback),
        ("to a loopback address", tcp(CLIENT6, 1, "::1", 80, SYN), Verdict::Loopback),
        ("with a container's source", tcp(WEB.v4, 1, HOST, 80, SYN), Verdict::SpoofedLocal),
        ("with a container's source", udp(WEB.v6, 1, DB.v6, 80), Verdict::SpoofedLocal),
        ("with the host's source", tcp(HOST, 1, HOST, 80, SYN), Verdict::SpoofedLocal),
    ];
    for (what, packet, verdict) in cases {
        for at in UPLINK_HOOKS {
            w.expect(what, at, &inbound(packet.clone()).build(), *verdict);
        }
    }
    assert_eq!(w.flows("PENDING"), []);
}

#[test]
fn a_segment_of_no_known_connection_goes_to_the_container() {
    let mut w = World::new();
    w.publish("0.0.0.0", 8080, TCP, &WEB, 80);
    let segment = inbound(tcp(CLIENT, 40000, HOST, 8080, ACK));
    // While the loader learns which connections other rules carry, they keep them.
    w.enforce(false);
    w.expect("while learning", Uplink, &segment.build(), Verdict::Preexisting);
    w.enforce(true);
    // What sockets the host has is asked where there is a packet to ask with.
    w.expect("a frame", Xdp, &segment.build(), Verdict::Preexisting);
    w.forwards("a packet", Uplink, &segment, Verdict::Published, &published(&segment, Uplink, &WEB, 80));
    let reset = sent(tcp(WEB.v4, 80, CLIENT, 40000, RST), &WEB);
    let out = reset.clone().between(HOST, CLIENT).ports(8080, 40000).ttl(63).macs(MAC_UPLINK, MAC_CLIENT);
    w.forwards("its reset", Leaving("web"), &reset, Verdict::PublishedReply, &out);
    assert_eq!(w.flows("FLOWS"), []);
}

#[test]
fn what_answers_the_connection_of_somebody_behind_the_host_is_left_to_the_host() {
    let mut w = World::new();
    w.publish("0.0.0.0", 80, TCP, &WEB, 80);
    let segment = |flags| inbound(tcp(CLIENT, 443, HOST, 80, flags));
    for flags in [SYN | ACK, ACK, FIN | ACK] {
        for at in [Xdp, Uplink] {
            w.expect("an answer", at, &segment(flags).build(), Verdict::Preexisting);
        }
    }
    // A connection from there is one with the published port.
    let syn = segment(SYN);
    w.forwards("a connection", Uplink, &syn, Verdict::Published, &published(&syn, Uplink, &WEB, 80));
}

#[test]
fn addresses_that_only_a_local_route_has_are_the_hosts() {
    let mut w = World::new();
    w.add_prefix("203.0.113.0", 96 + 24, PREFIX_HOST);
    w.add_prefix("2001:db8:113::", 64, PREFIX_HOST);
    for (wildcard, client, sibling, local, other, web) in [
        ("0.0.0.0", CLIENT, DB.v4, "203.0.113.20", "198.51.100.20", WEB.v4),
        ("::", CLIENT6, DB.v6, "2001:db8:113::20", "2001:db8:114::20", WEB.v6),
    ] {
        w.publish(wildcard, 8080, TCP, &WEB, 80);
        let syn = inbound(tcp(client, 40000, local, 8080, SYN));
        w.forwards("local", Uplink, &syn, Verdict::Published, &published(&syn, Uplink, &WEB, 80));
        let answer = sent(tcp(web, 80, client, 40000, SYN | ACK), &WEB);
        let out = answer.clone().between(local, client).ports(8080, 40000).ttl(63).macs(MAC_UPLINK, MAC_CLIENT);
        w.forwards("its answer", Leaving("web"), &answer, Verdict::PublishedReply, &out);
        w.expect("other", Uplink, &inbound(tcp(client, 40000, other, 8080, SYN)).build(), Verdict::Host);
        w.expect("another port", Uplink, &inbound(tcp(client, 40000, local, 8081, SYN)).build(), Verdict::Host);
        // Containers reach the port there as well.
        let syn = sent(tcp(sibling, 40000, local, 8080, SYN), &DB);
        let out = syn.clone().between(sibling, web).ports(40000, 80).ttl(63);
        w.forwards("a sibling", Leaving("db"), &syn, Verdict::Published, &out);
        w.expect(
            "outside",
            Leaving("db"),
            &sent(tcp(sibling, 40000, other, 8080, SYN), &DB).build(),
            Verdict::Outbound,
        );
    }
}

#[test]
fn who_is_not_known_on_an_isolated_network_is_reached_by_nobody() {
    let mut w = World::new();
    w.add_prefix("172.17.0.0", 96 + 16, PREFIX_ISOLATED);
    w.add_prefix("fd00:17::", 64, PREFIX_ISOLATED);
    for (db, one, client, gateway, unknown) in
        [(DB.v4, ONE.v4, CLIENT, "172.17.0.1", "172.17.0.99"), (DB.v6, ONE.v6, CLIENT6, "fd00:17::1", "fd00:17::99")]
    {
        let syn = |src| tcp(src, 40000, unknown, 80, SYN);
        w.expect("a sibling", Leaving("db"), &sent(syn(db), &DB).build(), Verdict::UnknownEndpoint);
        w.expect("another network", Leaving("one"), &sent(syn(one), &ONE).build(), Verdict::UnknownEndpoint);
        for at in UPLINK_HOOKS {
            w.expect("outside", at, &inbound(syn(client)).build(), Verdict::UnknownEndpoint);
        }
        w.expect("the gateway", Leaving("db"), &sent(tcp(db, 40000, gateway, 22, SYN), &DB).build(), Verdict::Host);
        w.expect(
            "from there",
            Entering("web", "new"),
            &tcp(unknown, 1, if db == DB.v4 { WEB.v4 } else { WEB.v6 }, 80, SYN).build(),
            Verdict::EndpointClosed,
        );
    }
}

#[test]
fn a_port_of_a_bridge_takes_what_is_for_the_bridge() {
    let mut w = World::new();
    w.publish("0.0.0.0", 8080, TCP, &WEB, 80);
    let port = ifindex(UNKNOWN);
    let for_bridge = tcp(CLIENT, 40000, HOST, 8080, SYN).macs(MAC_CLIENT, MAC_BRIDGE).build();
    let for_another = tcp(CLIENT, 40000, HOST, 8080, SYN).macs(MAC_CLIENT, [2, 0, 0, 0, 0, 9]).build();
    let run = |w: &mut World, packet: &[u8]| w.kernel.classify("uplink_ingress", packet, port, port, 1).counted;
    assert_eq!(run(&mut w, &for_bridge), []);
    let uplink = UplinkEntry { bridge_mac: MAC_BRIDGE, is_port: 1, ..UplinkEntry::default() };
    w.kernel.map("UPLINKS").insert(port, uplink, 0).unwrap();
    assert_eq!(run(&mut w, &for_another), []);
    assert_eq!(run(&mut w, &for_bridge), [(Verdict::Published, 1)]);
}

#[test]
fn what_is_for_other_machines_or_protocols_is_not_looked_at() {
    let mut w = World::new();
    w.publish("0.0.0.0", 80, TCP, &WEB, 80);
    let syn = tcp(CLIENT, 1, HOST, 80, SYN);
    let frames = [
        ("another machine's", Uplink, syn.clone().macs(MAC_CLIENT, [2, 9, 9, 9, 9, 9]).build()),
        ("broadcast", Xdp, syn.clone().macs(MAC_CLIENT, [0xff; 6]).build()),
        ("tagged", Uplink, inbound(syn.clone()).vlan(5).build()),
        ("tagged", Xdp, inbound(syn).vlan(5).build()),
        ("ARP", Uplink, arp(MAC_CLIENT, MAC_CLIENT, CLIENT, HOST, false)),
        ("ARP", Xdp, arp(MAC_CLIENT, MAC_CLIENT, CLIENT, HOST, false)),
    ];
    for (what, at, frame) in frames {
        let outcome = w.run(at, &frame, 1);
        let pass = if matches!(at, Xdp) { 2 } else { -1 };
        assert_eq!((outcome.code, outcome.counted), (pass, vec![]), "{what} at {at:?}");
        assert_eq!(outcome.packet, frame, "{what} at {at:?}");
    }
}

#[test]
fn answers_go_out_as_the_hosts_own() {
    let mut w = World::new();
    for (protocol, port) in [(TCP, 8080), (UDP, 5353), (SCTP, 80)] {
        w.publish("0.0.0.0", port, protocol, &WEB, 80);
        w.publish("::", port, protocol, &WEB, 80);
    }
    // The request, and the answer at the container.
    let cases: &[(PacketBuilder, PacketBuilder)] = &[
        (tcp(CLIENT, 40000, HOST, 8080, SYN), tcp(WEB.v4, 80, CLIENT, 40000, SYN | ACK)),
        (tcp(CLIENT6, 40000, HOST6, 8080, SYN), tcp(WEB.v6, 80, CLIENT6, 40000, SYN | ACK)),
        (udp(CLIENT, 40000, HOST, 5353), udp(WEB.v4, 80, CLIENT, 40000)),
        (udp(CLIENT, 40001, HOST, 5353), udp_without_checksum(WEB.v4, 80, CLIENT, 40001)),
        (udp(CLIENT6, 40000, HOST6, 5353), udp(WEB.v6, 80, CLIENT6, 40000)),
        (sctp(CLIENT, 40000, HOST, 80), sctp(WEB.v4, 80, CLIENT, 40000)),
        // Whose next hop must be asked for: the MAC addresses come later.
        (tcp(FAR, 40000, HOST, 8080, SYN), tcp(WEB.v4, 80, FAR, 40000, SYN | ACK)),
    ];
    for (request, answer) in cases {
        let (host, client) = (request.dst.to_string(), request.src.to_string());
        let port = match request.l4 {
            L4::Tcp { dport, .. } | L4::Udp { dport, .. } | L4::Sctp { dport, .. } => dport,
            _ => unreachable!(),
        };
        let what = format!("{answer:?}");
        let request = inbound(request.clone());
        w.forwards(&what, Uplink, &request, Verdict::Published, &published(&request, Uplink, &WEB, 80));
        let answer = sent(answer.clone(), &WEB);
        let sport = if let L4::Tcp { dport, .. } | L4::Udp { dport, .. } | L4::Sctp { dport, .. } = answer.l4 {
            dport
        } else {
            0
        };
        let mut out = answer.clone().between(&host, &client).ports(port, sport).ttl(63);
        if client != FAR {
            out = out.macs(MAC_UPLINK, MAC_CLIENT);
        }
        w.forwards(&what, Leaving("web"), &answer, Verdict::PublishedReply, &out);
    }
}

#[test]
fn an_answer_without_a_way_out_is_dropped() {
    let mut w = World::new();
    w.publish("::", 80, TCP, &WEB, 80);
    // IPv6 has no default route here.
    let request = inbound(tcp("2001:db8:1::1", 1, HOST6, 80, SYN));
    w.forwards("request", Uplink, &request, Verdict::Published, &published(&request, Uplink, &WEB, 80));
    let answer = sent(tcp(WEB.v6, 80, "2001:db8:1::1", 1, SYN | ACK), &WEB);
    w.expect("answer", Leaving("web"), &answer.build(), Verdict::NoRoute);
}

#[test]
fn containers_reach_published_ports_through_the_host() {
    let mut w = World::new();
    w.publish("0.0.0.0", 8080, TCP, &WEB, 80);
    w.publish("::", 8080, TCP, &WEB, 80);
    for (db, web, host, gateway) in [(DB.v4, WEB.v4, HOST, "172.17.0.1"), (DB.v6, WEB.v6, HOST6, "fd00:17::1")] {
        // A sibling keeps its address.
        let request = sent(tcp(db, 5000, host, 8080, SYN), &DB);
        let out = request.clone().between(db, web).ports(5000, 80).ttl(63);
        w.forwards("sibling", Leaving("db"), &request, Verdict::Published, &out);
        let answer = sent(tcp(web, 80, db, 5000, SYN | ACK), &WEB);
        let out = answer.clone().between(host, db).ports(8080, 5000).ttl(63);
        w.forwards("answer to a sibling", Leaving("web"), &answer, Verdict::PublishedReply, &out);
        // The other one gets the host's: its own stack would refuse its own address.
        let request = sent(tcp(web, 6000, host, 8080, SYN), &WEB);
        let out = request.clone().between(gateway, web).ports(6000, 80).ttl(63);
        w.forwards("itself", Leaving("web"), &request, Verdict::Published, &out);
        let answer = sent(tcp(web, 80, gateway, 6000, SYN | ACK), &WEB);
        let out = answer.clone().between(host, web).ports(8080, 6000).ttl(63);
        w.forwards("answer to itself", Leaving("web"), &answer, Verdict::PublishedReply, &out);
    }
    // From another network as well.
    let request = sent(tcp(ONE.v4, 5000, "172.18.0.1", 8080, SYN), &ONE);
    let out = request.clone().between(ONE.v4, WEB.v4).ports(5000, 80).ttl(63);
    w.forwards("another network", Leaving("one"), &request, Verdict::Published, &out);
    let cases = [
        ("another port of the host", sent(tcp(DB.v4, 1, HOST, 22, SYN), &DB), Verdict::Host),
        ("the host itself", sent(echo(DB.v4, "172.17.0.1", true, 1), &DB), Verdict::Host),
        ("an unknown conversation's reset", sent(tcp(DB.v4, 1, HOST, 8080, RST), &DB), Verdict::Preexisting),
        ("loopback", sent(tcp(DB.v4, 1, "127.0.0.1", 8080, SYN), &DB), Verdict::Loopback),
        ("loopback", sent(tcp(DB.v6, 1, "::1", 8080, SYN), &DB), Verdict::Loopback),
    ];
    for (what, packet, verdict) in cases {
        w.expect(what, Leaving("db"), &packet.build(), verdict);
    }
}

#[test]
fn fragments_follow_their_first_one() {
    let mut w = World::new();
    w.publish("0.0.0.0", 53, UDP, &WEB, 53);
    w.publish("::", 53, UDP, &WEB, 53);
    for at in UPLINK_HOOKS {
        for (client, host) in [(CLIENT, HOST), (CLIENT6, HOST6)] {
            w.forget();
            let whole = inbound(udp(client, 9000, host, 53).payload(&[7; 40]));
            let (first, last) = (whole.clone().fragment(0, 32), whole.clone().fragment(32, 16));
            w.expect("a later one alone, to the host", at, &last.build(), Verdict::Host);
            w.forwards("first", at, &first, Verdict::Published, &published(&first, at, &WEB, 53));
            w.forwards("last", at, &last, Verdict::Published, &published(&last, at, &WEB, 53));
            let other = last.clone().id(99);
            w.expect("another datagram's", at, &other.build(), Verdict::Host);
            let straight =
                inbound(udp(client, 9000, if client == CLIENT { WEB.v4 } else { WEB.v6 }, 53).payload(&[7; 40]));
            w.expect("a later one, to a container", at, &straight.fragment(32, 16).build(), Verdict::Fragment);
        }
    }
    w.forget();
    let request = inbound(udp(CLIENT, 9000, HOST, 53));
    w.forwards("request", Uplink, &request, Verdict::Published, &published(&request, Uplink, &WEB, 53));
    // Of a container: the answer in two parts, and one that nobody knows.
    let answer = sent(udp(WEB.v4, 53, CLIENT, 9000).payload(&[7; 40]), &WEB);
    for (part, what) in [(answer.clone().fragment(0, 24), "first"), (answer.clone().fragment(24, 24), "last")] {
        let out = part.clone().between(HOST, CLIENT).ttl(63).macs(MAC_UPLINK, MAC_CLIENT);
        w.forwards(what, Leaving("web"), &part, Verdict::PublishedReply, &out);
    }
    w.expect("unknown", Leaving("web"), &answer.id(5).fragment(24, 24).build(), Verdict::Fragment);
}

/// An error from `src` to `dst` about `about`, of which nothing but addresses and ports may have been rewritten: the
/// checksum behind the quoted IP header is still the one of `sums`.
fn error(src: &str, dst: &str, about: &PacketBuilder, sums: &PacketBuilder) -> PacketBuilder {
    let mut error = unreachable(src, dst, about);
    let at = if about.src.is_ipv4() { 20 } else { 40 } + if matches!(about.l4, L4::Tcp { .. }) { 16 } else { 6 };
    let other = unreachable(src, dst, sums);
    if let Some(sum) = other.payload.get(at..at + 2) {
        error.payload[at..at + 2].copy_from_slice(sum);
    }
    error
}

/// The same packet as an answer: of TCP, to a SYN.
fn answer(p: &PacketBuilder) -> PacketBuilder {
    let mut answer = p.clone();
    if let L4::Tcp { flags, .. } = &mut answer.l4 {
        *flags = SYN | ACK;
    }
    answer
}

#[test]
fn errors_about_published_conversations_are_translated_both_ways() {
    let mut w = World::new();
    for (protocol, port) in [(TCP, 8080), (UDP, 5353)] {
        w.publish("0.0.0.0", port, protocol, &WEB, 80);
        w.publish("::", port, protocol, &WEB, 80);
    }
    let cases = [
        (CLIENT, HOST, WEB.v4, "203.0.113.9", tcp(CLIENT, 4000, HOST, 8080, SYN)),
        (CLIENT, HOST, WEB.v4, "203.0.113.9", udp(CLIENT, 4000, HOST, 5353)),
        (CLIENT6, HOST6, WEB.v6, "2001:db8:5::9", tcp(CLIENT6, 4000, HOST6, 8080, SYN)),
        (CLIENT6, HOST6, WEB.v6, "2001:db8:5::9", udp(CLIENT6, 4000, HOST6, 5353)),
    ];
    for (client, host, web, router, request) in cases {
        let port = if matches!(request.l4, L4::Tcp { .. }) { 8080 } else { 5353 };
        // The answer as the outside sees it, and as the container has sent it.
        let outside = request.clone().between(host, client).ports(port, 4000);
        let inside = request.clone().between(web, client).ports(80, 4000);
        for at in UPLINK_HOOKS {
            w.forget();
            let about = inbound(error(router, host, &outside, &outside));
            w.expect("about nothing", at, &about.build(), Verdict::Host);
            w.run(Uplink, &inbound(request.clone()).build(), 1);
            let early = inbound(error(router, host, &outside, &outside));
            w.expect("about an answer that there was not", at, &early.build(), Verdict::IcmpError);
            w.run(Leaving("web"), &sent(answer(&inside), &WEB).build(), 1);
            for src in [router, client] {
                let packet = inbound(error(src, host, &outside, &outside));
                let mut out = error(src, web, &inside, &outside).ttl(63).macs(MAC_CLIENT, MAC_UPLINK);
                if matches!(at, Xdp) {
                    out = out.macs(MAC_UPLINK, WEB.mac);
                }
                w.forwards("from outside", at, &packet, Verdict::Published, &out);
                w.expect("no hop left", at, &packet.ttl(1).build(), Verdict::TtlExceeded);
            }
            let spoofed = inbound(error(if client == CLIENT { DB.v4 } else { DB.v6 }, host, &outside, &outside));
            w.expect("a container's source", at, &spoofed.build(), Verdict::SpoofedLocal);
            let other = outside.clone().ports(port, 4001);
            w.expect("about another", at, &inbound(error(router, host, &other, &other)).build(), Verdict::Host);
            let container = inbound(error(router, web, &inside, &inside)).build();
            w.expect("straight to the container", at, &container, Verdict::IcmpError);
            let other = inside.clone().ports(80, 4001);
            w.expect("straight", at, &inbound(error(router, web, &other, &other)).build(), Verdict::IcmpError);
        }
        // What the container has acknowledged is on the way no more.
        let request = request.sequence(2);
        let received = request.clone().between(client, web).ports(4000, 80);
        let packet = sent(error(web, client, &received, &received), &WEB);
        let out = error(host, client, &request, &received).ttl(63).macs(MAC_UPLINK, MAC_CLIENT);
        w.forwards("from the container", Leaving("web"), &packet, Verdict::PublishedReply, &out);
        let other = received.ports(4001, 80);
        let packet = sent(error(web, client, &other, &other), &WEB);
        w.expect("about another", Leaving("web"), &packet.build(), Verdict::IcmpError);
        let gateway = if client == CLIENT { "172.17.0.1" } else { "fd00:17::1" };
        w.expect(
            "to the host",
            Leaving("web"),
            &sent(error(web, gateway, &other, &other), &WEB).build(),
            Verdict::Host,
        );
    }
}

#[test]
fn an_opened_flow_is_in_the_table_with_its_answer() {
    let mut w = World::new();
    let rule = w.publish("0.0.0.0", 8080, TCP, &WEB, 80);
    let request = inbound(tcp(CLIENT, 40000, HOST, 8080, SYN).payload(b""));
    w.run(Uplink, &request.build(), 1);
    let flows = w.flows("PENDING");
    assert_eq!(flows.len(), 2);
    let (forward, reply) = if flows[0].1.state & FLOW_REPLY == 0 { (flows[0], flows[1]) } else { (flows[1], flows[0]) };
    assert_eq!((forward.0.tuple.src, forward.0.tuple.dst), (addr(CLIENT), addr(HOST)));
    assert_eq!((forward.1.to.src, forward.1.to.dst), (addr(CLIENT), addr(WEB.v4)));
    assert_eq!((forward.1.to.sport, forward.1.to.dport), (40000u16.to_be(), 80u16.to_be()));
    assert_eq!((forward.1.action, reply.1.action), (FlowAction::Publish as u8, FlowAction::ReplyOut as u8));
    assert_eq!((forward.1.ifindex, forward.1.mac, reply.1.ifindex), (ifindex("web"), WEB.mac, 0));
    assert_eq!((forward.1.packets, forward.1.bytes, reply.1.packets, reply.1.bytes), (1, 40, 0, 0));
    assert_eq!((forward.1.rule, reply.1.rule), (rule, rule));
    assert_eq!((forward.1.pair(TCP), reply.1.pair(TCP)), (reply.0, forward.0));
}
