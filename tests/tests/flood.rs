//! Floods of one published port: what stands goes on, and others are not kept from beginning.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use aya::maps::{Array, HashMap, Map, MapData};
use runtime_common::maps::{
    FLOW_ANSWERED, FLOW_COUNTED, FLOW_REPLY, Flow, FlowAction, FlowKey, MAX_FLOWS, Publication, PublicationKey, Tuple,
    Zone,
};
use runtime_common::packet::TCP;
use tests::frames::{Way, Wire, change_sender, make_first_fragment};
use tests::sockets::{Talk, ask, ask_once};
use tests::{CLIENT2, HOST, Image, Lab, wait_for, wait_until};

const SOON: Duration = Duration::from_secs(10);

/// What `bpftool` shows of a map, by its pin.
fn shown(lab: &Lab, what: &str, map: &str) -> serde_json::Value {
    let pin = lab.pins().join("maps").join(map).display().to_string();
    let text = lab.host().run(["bpftool", "-j", "map", what, "pinned", &pin]).ok();
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// A frame from the second client to the host, by which such a flood begins.
fn frame(lab: &Lab, make: impl Fn(&Way) -> Vec<u8>) -> Vec<u8> {
    let (from_mac, to_mac) = (lab.client2().mac("eth0"), lab.host().mac("eth0"));
    make(&Way { from_mac, to_mac, from: CLIENT2, to: HOST })
}

/// Sends such frames, each of another sender: the `first`th of all, and so many.
fn flood_by(lab: &Lab, frame: &[u8], first: u32, count: usize) {
    /// Ports that each address sends from.
    const PORTS: u32 = 60_000;
    let mut n = first;
    Wire::open(lab.client2(), "eth0").flood(frame, count, |frame| {
        // Without ports, each has an address of its own.
        let address = if frame[23] == 1 { n } else { n / PORTS };
        change_sender(frame, Ipv4Addr::from(0x0a40_0000 + address), 1025 + (n % PORTS) as u16);
        n += 1;
    });
}

/// Sends SYNs to port 7 of the host.
fn flood(lab: &Lab, first: u32, count: usize) {
    flood_by(lab, &frame(lab, |way| way.syn(1, 7)), first, count);
}

/// A map of the kernel side, by its pin.
fn map(lab: &Lab, name: &str) -> Map {
    let data = MapData::from_pin(lab.pins().join("maps").join(name)).expect("a pinned map");
    Map::from_map_data(data).expect("a map")
}

/// How many open conversations are counted.
fn held(lab: &Lab) -> usize {
    let held: Array<MapData, u64> = Array::try_from(map(lab, "HELD")).expect("an array");
    usize::try_from(held.get(&0, 0).expect("an element")).expect("a number of conversations")
}

/// Whether a connection to port 8 of the host is among the conversations that no new ones push out.
fn stands(lab: &Lab, ours: SocketAddr) -> bool {
    let flows: HashMap<MapData, FlowKey, Flow> = HashMap::try_from(map(lab, "FLOWS")).expect("a hash map");
    let (src, dst) = (ours.ip().into(), std::net::IpAddr::from(HOST).into());
    let tuple = Tuple { src, dst, sport: ours.port().to_be(), dport: 8u16.to_be() };
    flows.get(&FlowKey::new(tuple, TCP, Zone::Uplink), 0).is_ok()
}

/// How many entries a map has.
fn entries(lab: &Lab, map: &str) -> usize {
    shown(lab, "dump", map).as_array().expect("a list").len()
}

#[test]
fn cilium_3232_a_million_half_open_connections_push_no_established_one_out() {
    const FLOOD: u32 = 1_000_000;
    const AT_ONCE: u32 = 100_000;
    /// What docs/limits.md states of both flow tables, each rounded to megabytes, in bytes.
    const STATED: [u64; 2] = [65_500_000, 16_999_999];
    let lab = Lab::builder("SYN flood").client2().images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    lab.run("server", &["-p", "7:7", "-p", "7:7/udp", "echo"]);
    Talk::when_up(lab.client(), (HOST, 7));
    let mut talks: Vec<Talk> = (0..100).map(|_| Talk::open(lab.client(), (HOST, 7)).expect("a talk")).collect();
    let sockets: Vec<_> = (0..20).map(|_| lab.client().udp((HOST, 7)).expect("a socket")).collect();
    let seen: Vec<_> = sockets.iter().map(|s| ask(s, b"before").expect("an answer")).collect();
    let memory = || ["FLOWS", "PENDING"].map(|map| shown(&lab, "show", map)["bytes_memlock"].as_u64().expect("bytes"));
    let (before, memory_before) = (lab.counters(), memory());

    for first in (0..FLOOD).step_by(AT_ONCE as usize) {
        flood(&lab, first, AT_ONCE as usize);
        for talk in talks.iter_mut().step_by(10) {
            talk.say(b"still here").expect("an echo during the flood");
        }
    }
    for talk in &mut talks {
        talk.say(b"still here").expect("an echo after the flood");
    }
    talks[0].transfer(1_000_000, |_| ()).expect("a transfer after the flood");
    for (socket, seen) in sockets.iter().zip(seen) {
        assert_eq!(ask(socket, b"after").expect("an answer"), seen);
    }
    let added = lab.counters().since(&before);
    assert!(added.packets("published") >= u64::from(FLOOD), "{added}");
    assert_eq!(added.packets("flow_table_full"), 0, "{added}");
    wait_until("a new connection", SOON, || Talk::open(lab.client(), (HOST, 7)).is_ok());
    assert_eq!(memory(), memory_before, "the tables have grown");
    assert!(memory_before.iter().zip(STATED).all(|(bytes, stated)| *bytes <= stated), "{memory_before:?}");
}

#[test]
fn half_open_connections_are_no_answered_ones() {
    let lab = Lab::builder("half open").client2().images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    lab.run("server", &["-p", "7:7", "echo"]);
    let mut talk = Talk::when_up(lab.client(), (HOST, 7));
    let before = lab.counters();
    flood(&lab, 0, 1_000);
    wait_until("they are answered", SOON, || lab.counters().since(&before).packets("published_reply") >= 1_000);
    talk.say(b"established").expect("an echo");
    let answered = entries(&lab, "FLOWS");
    assert!(answered < 100, "{answered} entries");
}

#[test]
fn a_flood_of_one_port_costs_other_ports_nothing() {
    const TIMES: usize = 2;
    const AT_ONCE: usize = 20_000;
    let lab = Lab::builder("floods").client2().images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    lab.run("flooded", &["-p", "7:7", "-p", "7:7/udp", "echo"]);
    lab.run("other", &["-p", "8:7", "-p", "8:7/udp", "echo"]);
    Talk::when_up(lab.client(), (HOST, 7));
    Talk::when_up(lab.client(), (HOST, 8));
    let mut talks: Vec<Talk> = (0..20).map(|n| Talk::open(lab.client(), (HOST, 7 + n % 2)).expect("a talk")).collect();
    let sockets: Vec<_> = (0..20).map(|n| lab.client().udp((HOST, 7 + n % 2)).expect("a socket")).collect();
    let ask_all =
        |when: &str| sockets.iter().map(|s| insist(when, || ask(s, when.as_bytes()).ok())).collect::<Vec<_>>();
    let seen = ask_all("before");
    assert_eq!(ask_all("again"), seen);
    let before = entries(&lab, "FLOWS");
    let mut first_fragment = frame(&lab, |way| way.udp(1, 7, b"in parts"));
    make_first_fragment(&mut first_fragment);
    let floods = [
        ("SYNs", frame(&lab, |way| way.syn(1, 7))),
        ("datagrams", frame(&lab, |way| way.udp(1, 7, b"spray"))),
        ("fragments", first_fragment),
        ("echo requests", frame(&lab, |way| way.ping(1, b"spray"))),
    ];
    for (number, (what, frame)) in floods.into_iter().enumerate() {
        let counted = lab.counters();
        for time in 0..TIMES {
            // Nobody comes twice.
            flood_by(&lab, &frame, ((number * TIMES + time) * AT_ONCE) as u32, AT_ONCE);
            for talk in &mut talks {
                talk.say(what.as_bytes()).unwrap_or_else(|e| panic!("established, {what}: {e}"));
            }
            let mut talk = insist(what, || Talk::open(lab.client(), (HOST, 8)).ok());
            talk.say(b"new").unwrap_or_else(|e| panic!("new, {what}: {e}"));
            insist(what, || ask_once(lab.client(), (HOST, 8), &[b'f'; 4000]).ok());
        }
        assert_eq!(ask_all(what), seen, "{what}");
        let dropped = lab.counters().since(&counted);
        assert_eq!(dropped.packets("flow_table_full"), 0, "{what}: {dropped}");
    }
    // What nobody went on with takes no room of those who did.
    let added = entries(&lab, "FLOWS").saturating_sub(before);
    assert!(added < 1_000, "{added} entries more");
}

/// What comes of it in the end: under a flood, packets are lost before anything of ours sees them.
#[track_caller]
fn insist<T>(what: &str, attempt: impl FnMut() -> Option<T>) -> T {
    wait_for(SOON, attempt).unwrap_or_else(|| panic!("it never succeeds: {what}"))
}

/// Puts so many conversations into the table that the publication of port 9 has.
fn fill(lab: &Lab, conversations: u32) {
    let publications: HashMap<MapData, PublicationKey, Publication> =
        HashMap::try_from(map(lab, "PUBLICATIONS")).expect("a hash map");
    let of_9 = |entry: &(PublicationKey, Publication)| entry.0.port == 9u16.to_be();
    let (_, p) = publications.iter().flatten().find(of_9).expect("a publication of port 9");
    let mut flows: HashMap<MapData, FlowKey, Flow> = HashMap::try_from(map(lab, "FLOWS")).expect("a hash map");
    let now = flows.iter().flatten().map(|(_, flow)| flow.last_seen).max().expect("a flow");
    for n in 0..conversations {
        let (src, sport) = (Ipv4Addr::from(0x0a80_0000 + n / 1_000).into(), ((1025 + n % 1_000) as u16).to_be());
        let dialled = Tuple { src, dst: std::net::IpAddr::from(HOST).into(), sport, dport: 9u16.to_be() };
        let to = Tuple { dst: p.addr, dport: p.port, ..dialled };
        let (generation, rule, action) = (p.generation, p.rule, FlowAction::Publish as u8);
        let base = Flow { generation, rule, last_seen: now, action, ..Flow::default() };
        let state = FLOW_ANSWERED | FLOW_COUNTED;
        let forward = Flow { to, state, pair_zone: Zone::Endpoint as u8, ..base };
        let reply = Flow { to: dialled.reversed(), state: state | FLOW_REPLY, ..base };
        // As the kernel side does: a forward entry is never without its pair.
        flows.insert(FlowKey::new(to.reversed(), TCP, Zone::Endpoint), reply, 0).expect("room");
        flows.insert(FlowKey::new(dialled, TCP, Zone::Uplink), forward, 0).expect("room");
    }
}

#[test]
fn handshakes_without_end_leave_other_ports_room_and_the_daemon_answers_beside_a_full_table() {
    const ROOM: usize = MAX_FLOWS / 2;
    /// So few are free when the handshakes begin.
    const FREE: usize = 1_000;
    const ATTEMPTS: usize = 2_000;
    const SILENCE: Duration = Duration::from_millis(20);
    let lab = Lab::builder("handshakes").client2().images(&[Image::Echo]).build();
    let _up = lab.up(&[]);
    for (name, port) in [("flooded", "7:7"), ("other", "8:7"), ("third", "9:7")] {
        lab.run(name, &["-p", port, "echo"]);
    }
    let mut talks = [7, 8, 9].map(|port| Talk::when_up(lab.client(), (HOST, port)));
    // Answers to everybody come to this client.
    lab.host().run(["ip", "route", "add", "10.64.0.0/10", "via", &CLIENT2.to_string()]).ok();

    fill(&lab, (ROOM - FREE) as u32);
    // It may be slow, but not deaf; and it counts anew what others than the datapath have put there.
    let mut meanwhile = 0;
    wait_until("the table is read", Duration::from_secs(60), || {
        let status = lab.status();
        meanwhile += usize::from(status["collecting"] == true);
        status["flows"]["answered"].as_u64() >= Some((ROOM - FREE) as u64) && held(&lab) >= ROOM - FREE
    });
    assert!(meanwhile > 0, "no answer while the table was being read");

    let before = lab.counters();
    let (wire, ours) = (Wire::open(lab.client2(), "eth0"), lab.client2().mac("eth0"));
    wire.keep_much();
    flood(&lab, 0, ATTEMPTS);
    wire.answer(SILENCE, |seen| acknowledgement(seen, ours));
    // Whose SYN came while there was room, but not his end of the handshake.
    flood(&lab, ATTEMPTS as u32, ATTEMPTS);
    let added = lab.counters().since(&before);
    assert!(added.packets("share_spent") > 1_000, "{added}");
    assert_eq!(added.packets("flow_table_full"), 0, "{added}");
    // A port's share is four times what is left.
    let free = ROOM - held(&lab);
    assert!((FREE / 7..FREE / 4).contains(&free), "{free} are left");
    for talk in &mut talks {
        talk.say(b"still here").expect("an echo after the flood");
    }
    for _ in 0..20 {
        let mut talk = insist("a new connection", || Talk::open(lab.client(), (HOST, 8)).ok());
        talk.say(b"new").expect("an echo");
        assert!(stands(&lab, talk.ours()), "{added}");
    }
}

/// What ends the handshake, where a frame for this MAC address answers a SYN.
fn acknowledgement(seen: &[u8], ours: [u8; 6]) -> Option<Vec<u8>> {
    const SYN_ACK: u8 = 0x12;
    let (to_mac, from_mac) = (seen.get(6..12)?.try_into().ok()?, seen.get(..6)?.try_into().ok()?);
    if from_mac != ours || seen.get(23) != Some(&TCP) || seen.get(47) != Some(&SYN_ACK) {
        return None;
    }
    let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(seen.get(at..at + 4)?).ok()?));
    let port = |at: usize| Some(u16::from_be_bytes(seen.get(at..at + 2)?.try_into().ok()?));
    let way = Way { from_mac, to_mac, from: address(30)?, to: address(26)? };
    let number = u32::from_be_bytes(seen.get(38..42)?.try_into().ok()?);
    Some(way.handshake_end(port(36)?, port(34)?, number.wrapping_add(1)))
}
