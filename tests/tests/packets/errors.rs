//! What the datapath says itself, as a router would; and what is looked through on the way to a transport header.

use runtime_common::Verdict;
use runtime_common::packet::{TCP, UDP};

use packet_builder::*;
use packet_lab::world::*;

/// Time exceeded in transit; IPv4: fragmentation needed; IPv6: packet too big.
const TIME4: [u8; 2] = [11, 0];
const TIME6: [u8; 2] = [3, 0];
const BIG4: [u8; 2] = [3, 4];
const BIG6: [u8; 2] = [2, 0];

fn world() -> World {
    let mut w = World::new();
    for protocol in [TCP, UDP] {
        w.publish("0.0.0.0", 8080, protocol, &WEB, 80);
        w.publish("::", 8080, protocol, &WEB, 80);
    }
    w
}

#[test]
fn a_client_hears_that_its_hops_ran_out() {
    let mut w = world();
    for (client, host, kind) in [(CLIENT, HOST, TIME4), (CLIENT6, HOST6, TIME6)] {
        for ttl in [0, 1] {
            let cases = [
                tcp(client, 4000, host, 8080, SYN),
                tcp(client, 4000, host, 8080, SYN).payload(&[7; 1000]),
                udp(client, 4000, host, 8080),
                udp(client, 4000, host, 8080).payload(b""),
                udp(client, 4000, host, 8080).payload(&[7; 33]),
                tcp(client, 4000, host, 8080, SYN).options(if client == CLIENT { &[1; 40] } else { &[] }),
            ];
            for packet in cases {
                let packet = inbound(packet.ttl(ttl));
                w.answers_with_error("nothing of it yet", Uplink, &packet, Verdict::TtlExceeded, host, (kind, 0));
                w.expect("nothing of it yet", Xdp, &packet.build(), Verdict::TtlExceeded);
                assert_eq!(w.flows("PENDING"), []);
            }
        }
        // Of a conversation that stands as well; of a port that is not published, the host's stack decides.
        let packet = inbound(tcp(client, 4000, host, 8080, SYN));
        w.forwards("open", Uplink, &packet, Verdict::Published, &published(&packet, Uplink, &WEB, 80));
        let packet = inbound(tcp(client, 4000, host, 8080, ACK).ttl(1));
        w.answers_with_error("known", Uplink, &packet, Verdict::TtlExceeded, host, (kind, 0));
        w.expect("the host's own", Uplink, &inbound(tcp(client, 1, host, 22, SYN).ttl(1)).build(), Verdict::Host);
        w.forget();
    }
    // No single machine has sent that.
    for src in ["0.0.0.0", "224.0.0.1", "255.255.255.255"] {
        w.expect(src, Uplink, &inbound(udp(src, 1, HOST, 8080).ttl(1)).build(), Verdict::TtlExceeded);
    }
}

#[test]
fn icmp_errors_to_the_outside_are_limited() {
    let mut w = world();
    let packet = inbound(udp(CLIENT, 4000, HOST, 8080).ttl(1)).build();
    let start = std::time::Instant::now();
    let answered = (0..1000).filter(|_| w.run(Uplink, &packet, 1).code == 7).count();
    // A hundred in each tenth of a second that was touched, and on each CPU.
    let tenths = start.elapsed().as_millis() as usize / 100 + 2;
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get());
    let most = 100 * tenths * cpus;
    assert!(answered >= 100 && answered <= most, "{answered} of 1000 are answered, {most} at most");
}

#[test]
fn a_container_hears_that_its_hops_ran_out() {
    let mut w = world();
    for (client, host, web, db, gateway, kind) in
        [(CLIENT, HOST, WEB.v4, DB.v4, "172.17.0.1", TIME4), (CLIENT6, HOST6, WEB.v6, DB.v6, "fd00:17::1", TIME6)]
    {
        let packet = inbound(tcp(client, 4000, host, 8080, SYN));
        w.forwards("request", Uplink, &packet, Verdict::Published, &published(&packet, Uplink, &WEB, 80));
        let answer = sent(tcp(web, 80, client, 4000, SYN | ACK).ttl(1), &WEB);
        w.answers_with_error("answer", Leaving("web"), &answer, Verdict::TtlExceeded, gateway, (kind, 0));
        let request = sent(udp(db, 4000, host, 8080).ttl(1), &DB);
        w.answers_with_error("request of a sibling", Leaving("db"), &request, Verdict::TtlExceeded, gateway, (kind, 0));
        let request = sent(udp(db, 4000, host, 8080), &DB);
        let out = request.clone().between(db, web).ports(4000, 80).ttl(63);
        w.forwards("request of a sibling", Leaving("db"), &request, Verdict::Published, &out);
        let answer = sent(udp(web, 80, db, 4000).ttl(1), &WEB);
        w.answers_with_error("answer to a sibling", Leaving("web"), &answer, Verdict::TtlExceeded, gateway, (kind, 0));
        // An error is never about an error.
        let error = sent(unreachable(web, db, &udp(db, 4000, web, 80)).ttl(1), &WEB);
        w.expect("error", Leaving("web"), &error.build(), Verdict::TtlExceeded);
    }
}

#[test]
fn a_container_hears_what_the_way_out_takes() {
    let mut w = world();
    sh("ip link set up0 mtu 1400");
    for (client, host, web, gateway, kind, header) in
        [(CLIENT, HOST, WEB.v4, "172.17.0.1", BIG4, 20), (CLIENT6, HOST6, WEB.v6, "fd00:17::1", BIG6, 40)]
    {
        for request in [tcp(client, 4000, host, 8080, SYN), udp(client, 4000, host, 8080)] {
            let request = inbound(request);
            w.forwards("request", Uplink, &request, Verdict::Published, &published(&request, Uplink, &WEB, 80));
        }
        let fits = sent(udp(web, 80, client, 4000).payload(&vec![5; 1400 - header - 8]), &WEB);
        let out = fits.clone().between(host, client).ports(8080, 4000).ttl(63).macs(MAC_UPLINK, MAC_CLIENT);
        w.forwards("fits", Leaving("web"), &fits, Verdict::PublishedReply, &out);
        let big = sent(udp(web, 80, client, 4000).payload(&vec![5; 1400 - header - 7]), &WEB);
        w.answers_with_error("one byte more", Leaving("web"), &big, Verdict::TooBig, gateway, (kind, 1400));
        let big = sent(tcp(web, 80, client, 4000, ACK).payload(&[5; 1440]), &WEB);
        w.answers_with_error("TCP", Leaving("web"), &big, Verdict::TooBig, gateway, (kind, 1400));
        // A route with an MTU of its own.
        let route = if client == CLIENT { "192.0.2.9/32" } else { "-6 2001:db8::9/128" };
        let (family, to) = route.split_once(' ').unwrap_or(("", route));
        sh(&format!("ip {family} route add {to} dev up0 mtu lock 1300"));
        let big = sent(udp(web, 80, client, 4000).payload(&vec![5; 1300 - header - 7]), &WEB);
        // A conversation asks for its way once in a while.
        let packet = big.build();
        tests::wait_until("the routes are asked again", std::time::Duration::from_secs(10), || {
            w.run(Leaving("web"), &packet, 1).counted == [(Verdict::TooBig, 1)]
        });
        w.answers_with_error("more than the route takes", Leaving("web"), &big, Verdict::TooBig, gateway, (kind, 1300));
    }
}

#[test]
fn extension_headers_are_looked_through() {
    let mut w = world();
    // Hop-by-hop and destination options, padded, and a UDP header whose checksum another has computed.
    let extended = |src: &str, sport, dst: &str, dport, ttl| {
        let whole = udp(src, sport, dst, dport).build();
        let options = [60, 0, 1, 4, 0, 0, 0, 0, 17, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        raw(src, dst, 0).payload(&[&options[..], &whole[54..]].concat()).ttl(ttl)
    };
    let request = inbound(extended(CLIENT6, 4000, HOST6, 8080, 64));
    for at in [Uplink, Xdp] {
        w.forget();
        let out = extended(CLIENT6, 4000, WEB.v6, 80, 63).macs(MAC_CLIENT, MAC_UPLINK);
        let out = if matches!(at, Xdp) { out.macs(MAC_UPLINK, WEB.mac) } else { out };
        w.forwards("request", at, &request, Verdict::Published, &out);
    }
    let answer = sent(extended(WEB.v6, 80, CLIENT6, 4000, 64), &WEB);
    w.forwards(
        "request again",
        Uplink,
        &request,
        Verdict::Published,
        &extended(CLIENT6, 4000, WEB.v6, 80, 63).macs(MAC_CLIENT, MAC_UPLINK),
    );
    let out = extended(HOST6, 8080, CLIENT6, 4000, 63).macs(MAC_UPLINK, MAC_CLIENT);
    w.forwards("answer", Leaving("web"), &answer, Verdict::PublishedReply, &out);
    // To a sibling that no link leads to; and neighbour discovery behind options is judged like any other.
    w.expect("sibling", Leaving("web"), &sent(extended(WEB.v6, 1, DB.v6, 80, 64), &WEB).build(), Verdict::NotLinked);
    let advertisement = |target: &str| {
        let std::net::IpAddr::V6(target) = ip(target) else { panic!("neighbour discovery is for IPv6") };
        let message = [&[58, 0, 1, 4, 0, 0, 0, 0, 136, 0, 0, 0, 0x60, 0, 0, 0][..], &target.octets()].concat();
        sent(raw(WEB_LINK_LOCAL, "ff02::1", 60).payload(&message).ttl(255), &WEB).build()
    };
    w.expect("its own", Leaving("web"), &advertisement(WEB.v6), Verdict::Neighbour);
    w.expect("a sibling's", Leaving("web"), &advertisement(DB.v6), Verdict::SpoofedAddress);
}

#[test]
fn fragments_before_their_first_one_are_dropped_by_reason() {
    let mut w = world();
    for (web, client, host) in [(WEB.v4, CLIENT, HOST), (WEB.v6, CLIENT6, HOST6)] {
        let whole = udp(client, 4000, host, 8080).payload(&[9; 64]).id(77);
        let first = inbound(whole.clone().fragment(0, 48));
        w.forwards("first", Uplink, &first, Verdict::Published, &published(&first, Uplink, &WEB, 80));
        let answer = sent(udp(web, 80, client, 4000).payload(&[9; 64]).id(78), &WEB);
        w.expect("later", Leaving("web"), &answer.clone().fragment(48, 24).build(), Verdict::Fragment);
        let first = answer.clone().fragment(0, 48);
        let out = |p: PacketBuilder| p.between(host, client).ports(8080, 4000).ttl(63).macs(MAC_UPLINK, MAC_CLIENT);
        w.forwards("first", Leaving("web"), &first, Verdict::PublishedReply, &out(first.clone()));
        let later = answer.fragment(48, 24);
        w.forwards("later", Leaving("web"), &later, Verdict::PublishedReply, &out(later.clone()));
        // Straight to a container.
        let stray = inbound(udp(client, 4000, web, 80).payload(&[9; 64]).id(79).fragment(48, 24));
        w.expect("stray", Uplink, &stray.build(), Verdict::Fragment);
        w.forget();
    }
}
