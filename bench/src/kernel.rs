//! What a packet costs in each program, by the kernel's own test run, and what the verifier went through.

use anyhow::{Context, Result, bail};
use runtime_common::Verdict;
use runtime_common::maps::{Endpoint, FLOW_ANSWERED, Flow, FlowAction, FlowKey, Link, LinkKey, MAX_FLOWS, Tuple, Zone};
use runtime_common::packet::TCP;
use serde_json::{Value, json};

use crate::cpu::pin;
use crate::load::CLIENT_CORE;
use crate::progress;
use crate::report::Table;
use crate::stats::{Spread, shuffled};
use packet_builder::{ACK, PacketBuilder, SYN, tcp, udp};
use packet_lab::world::*;

/// A packet that is sent to and fro lives for no more hops.
const REPEAT: u32 = 250;

/// The scales to go through.
const PUBLICATIONS: [usize; 4] = [1, 100, 10_000, 65_535];
const LINKS: [usize; 4] = [1, 100, 10_000, 100_000];
/// Conversations: two entries of `FLOWS` each, of which a few are needed by the cases themselves.
const FLOWS: [usize; 4] = [1, 1_000, 30_000, MAX_FLOWS / 2 - 16];
/// More than the table holds as it is shipped: with a larger one.
const MANY_FLOWS: usize = 1_000_000;
/// Entries of `FLOWS` where their number does not matter.
const FEW: usize = 4096;

/// A packet, and what must become of it.
struct Case {
    name: &'static str,
    at: At,
    verdict: Verdict,
    packet: Packet,
}

enum Packet {
    /// The same one again and again.
    Same(Vec<u8>),
    /// A new conversation each time, by its source port: one run a call.
    New(fn(u16) -> PacketBuilder),
}

/// What was measured of a case at a scale, in nanoseconds.
struct Cost {
    best: f64,
    median: f64,
    /// Median of the differences to the shortest way through a program, measured next to it.
    added: f64,
    /// Median of the ratios to the first scale's, measured in turn with it.
    of_first: f64,
}

/// All tables; `rounds` runs of each case.
pub fn measure(quick: bool) -> Result<Vec<Table>> {
    // A thread of its own: it stays in the world's network namespace.
    let measured =
        std::thread::scope(|scope| scope.spawn(|| measure_here(if quick { 100 } else { 600 }, quick)).join());
    measured.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn measure_here(rounds: usize, quick: bool) -> Result<Vec<Table>> {
    pin(CLIENT_CORE)?;
    let mut w = World::with_flows(u32::try_from(FEW)?);
    let verified = verified(&mut w);
    let publications = [hit(Uplink), miss(Uplink), new_flow(Uplink), hit(Xdp), miss(Xdp), new_flow(Xdp)];
    let publications = scaled("publications", &PUBLICATIONS, |_| FEW, rounds, fill_publications, &publications)?;
    let links = [linked(), new_link(), denied()];
    let links = scaled("entries of links", &LINKS, |_| FEW, rounds, fill_links, &links)?;
    let scales = if quick { FLOWS.to_vec() } else { FLOWS.into_iter().chain([MANY_FLOWS]).collect() };
    let room = |conversations: usize| MAX_FLOWS.max(2 * conversations + 64);
    let cases = [hit(Uplink), reply(), linked(), from_host(), new_flow(Uplink)];
    let mut flows = scaled("conversations", &scales, room, rounds, fill_flows, &cases)?;
    flows.note += &format!(" The table as shipped holds {} conversations; for more it was made larger.", MAX_FLOWS / 2);
    Ok(vec![verified, publications, links, flows])
}

fn verified(w: &mut World) -> Table {
    let mut all = w.kernel.verified();
    all.sort();
    Table {
        title: "Kernel: verified instructions".to_owned(),
        note: "How many instructions the verifier went through; it refuses more than a million.".to_owned(),
        head: vec!["program".to_owned(), "instructions".to_owned()],
        rows: all.iter().map(|(name, n)| vec![name.clone(), n.to_string()]).collect(),
        lines: vec![],
        json: all.iter().map(|(name, n)| (name.clone(), json!(n))).collect::<serde_json::Map<_, _>>().into(),
    }
}

/// A world in which two flows turn a repeated packet to and fro: each run is given the packet as the run before has left it.
fn prepared(flows: usize) -> Result<World> {
    let mut w = World::again(u32::try_from(flows)?);
    // The answer leaves with the uplink's MAC address, and is sent again as it is then.
    let mut endpoints = w.kernel.map::<u32, Endpoint>("ENDPOINTS");
    let web = endpoints.get(&ifindex("web"), 0).context("the endpoint `web`")?;
    endpoints.insert(ifindex("web"), Endpoint { mac: MAC_UPLINK, ..web }, 0)?;
    let uplink = [tuple(CLIENT, 40000, HOST, 80), tuple(CLIENT, 40000, WEB.v4, 8080)];
    w.translate_to_and_fro(uplink, TCP, Zone::Uplink, FlowAction::Publish);
    let reply = [tuple(WEB.v4, 80, CLIENT, 40000), tuple(WEB.v4, 8080, CLIENT, 40000)];
    w.translate_to_and_fro(reply, TCP, Zone::Endpoint, FlowAction::ReplyOut);
    w.translate_to_and_fro([tuple(WEB.v4, 5000, DB.v4, 5432); 2], TCP, Zone::Endpoint, FlowAction::Link);
    w.publish(HOST, 80, TCP, &WEB, 80);
    w.link(&WEB, &DB, 5432, TCP);
    Ok(w)
}

fn own(p: PacketBuilder) -> PacketBuilder {
    p.macs(MAC_UPLINK, MAC_BRIDGE).ttl(255)
}

fn same(name: &'static str, at: At, verdict: Verdict, packet: PacketBuilder) -> Case {
    Case { name, at, verdict, packet: Packet::Same(packet.ttl(255).build()) }
}

fn hit(at: At) -> Case {
    same("published, established", at, Verdict::Published, inbound(tcp(CLIENT, 40000, HOST, 80, ACK)))
}

fn miss(at: At) -> Case {
    same("not published, to the host", at, Verdict::Host, inbound(udp(CLIENT, 1, HOST, 22)))
}

fn new_flow(at: At) -> Case {
    let packet = Packet::New(|port| inbound(tcp(CLIENT, port, HOST, 80, SYN)));
    Case { name: "published, new flow", at, verdict: Verdict::Published, packet }
}

fn reply() -> Case {
    same(
        "answer of a published flow",
        Leaving("web"),
        Verdict::PublishedReply,
        own(tcp(WEB.v4, 80, CLIENT, 40000, ACK)),
    )
}

fn linked() -> Case {
    same("linked, established", Leaving("web"), Verdict::Linked, own(tcp(WEB.v4, 5000, DB.v4, 5432, ACK)))
}

fn new_link() -> Case {
    let packet = Packet::New(|port| own(tcp(WEB.v4, port, DB.v4, 5432, SYN)));
    Case { name: "linked, new flow", at: Leaving("web"), verdict: Verdict::Linked, packet }
}

fn denied() -> Case {
    same("not linked, dropped", Leaving("web"), Verdict::NotLinked, own(tcp(WEB.v4, 5000, DB.v4, 1, SYN)))
}

fn from_host() -> Case {
    let packet = arriving(tcp(HOST, 1, WEB.v4, 80, ACK), &WEB);
    same("from the host, at the gate", Entering("web", ""), Verdict::FromHost, packet)
}

/// The earliest end of a program: a frame that is neither IPv4 nor IPv6.
fn arp() -> Vec<u8> {
    let mut frame = [MAC_UPLINK, MAC_CLIENT].concat();
    frame.extend([0x08, 0x06]);
    frame.resize(60, 0);
    frame
}

/// As many publications.
fn fill_publications(w: &mut World, all: usize) -> Result<()> {
    // The first is port 80, which the cases use.
    for n in 1..all {
        let port = if n < 80 { n } else { n + 1 };
        w.publish(HOST, u16::try_from(port)?, TCP, &WEB, 80);
    }
    Ok(())
}

fn fill_links(w: &mut World, all: usize) -> Result<()> {
    let mut links = w.kernel.map::<LinkKey, Link>("LINKS");
    for n in 1..all {
        let recipient = numbered(n).parse::<std::net::Ipv4Addr>()?.into();
        let key = LinkKey { recipient, source: addr(DB.v4), port: 5432u16.to_be(), protocol: TCP, reserved: 0 };
        links.insert(key, Link { generation: 1, rule: 1, reserved: 0 }, 0)?;
    }
    Ok(())
}

fn fill_flows(w: &mut World, all: usize) -> Result<()> {
    let mut flows = w.kernel.map::<FlowKey, Flow>("FLOWS");
    for n in 1..all {
        let client = numbered(n);
        let there = tuple(&client, 1024, HOST, 80);
        let inside = tuple(&client, 1024, WEB.v4, 80);
        for (key, to, zone) in
            [(there, inside, Zone::Uplink), (inside.reversed(), Tuple::reversed(&there), Zone::Endpoint)]
        {
            let flow = Flow { generation: 1, rule: 1, to, state: FLOW_ANSWERED, ..Flow::default() };
            flows.insert(FlowKey::new(key, TCP, zone), flow, 0)?;
        }
    }
    Ok(())
}

/// An address of its own for every number below 2^24.
fn numbered(n: usize) -> String {
    format!("10.{}.{}.{}", n >> 16 & 255, n >> 8 & 255, n & 255)
}

/// Measures cases at every scale, in turn: `fill` makes what there is to be of it in a world with `room` for so many flows.
fn scaled(
    what: &str,
    scales: &[usize],
    room: impl Fn(usize) -> usize,
    rounds: usize,
    fill: fn(&mut World, usize) -> Result<()>,
    cases: &[Case],
) -> Result<Table> {
    let mut worlds = Vec::new();
    for scale in scales {
        progress(&format!("kernel: {scale} {what}"));
        let mut w = prepared(room(*scale))?;
        fill(&mut w, *scale)?;
        worlds.push(w);
    }
    let mut costs = Vec::new();
    for case in cases {
        progress(&format!("kernel: {}, by {what}", case.name));
        costs.push(cost(&mut worlds, case, rounds).with_context(|| format!("{} by {what}", case.name))?);
    }
    Ok(table(what, scales, cases, &costs))
}

/// What a case costs in each world.
fn cost(worlds: &mut [World], case: &Case, rounds: usize) -> Result<Vec<Cost>> {
    // Around each run at XDP the kernel waits for all of its cores, some 15 ms.
    let rounds = if matches!(case.at, Xdp) { rounds.div_ceil(12) } else { rounds };
    let (mut own, mut added) = (vec![vec![0.0; rounds]; worlds.len()], vec![vec![0.0; rounds]; worlds.len()]);
    let codes = worlds.iter_mut().map(|w| code(w, case)).collect::<Result<Vec<_>>>()?;
    for round in 0..rounds {
        for i in shuffled(worlds.len(), round as u64) {
            let (base, ns) = run(&mut worlds[i], case, codes[i], round)?;
            own[i][round] = ns;
            added[i][round] = ns - base;
        }
    }
    if matches!(case.packet, Packet::New(_)) {
        worlds.iter_mut().try_for_each(forget_new)?;
    }
    let median = |v: &[f64]| Spread::of(v).map_or(f64::NAN, |s| s.median);
    let ratios = |i: usize| own[i].iter().zip(&own[0]).map(|(own, first)| own / first).collect::<Vec<_>>();
    let cost = |i: usize| Cost {
        best: own[i].iter().copied().fold(f64::INFINITY, f64::min),
        median: median(&own[i]),
        added: median(&added[i]),
        of_first: median(&ratios(i)),
    };
    Ok((0..worlds.len()).map(cost).collect())
}

/// A repeated run counts nothing: that it goes the same way as one that does, its code tells.
fn code(w: &mut World, case: &Case) -> Result<Option<i32>> {
    match &case.packet {
        Packet::Same(packet) => {
            let outcome = w.run(case.at, packet, 1);
            check(case, &outcome.counted)?;
            Ok(Some(outcome.code))
        }
        Packet::New(_) => Ok(None),
    }
}

/// Nanoseconds of the shortest way through a program, and of the case.
fn run(w: &mut World, case: &Case, code: Option<i32>, round: usize) -> Result<(f64, f64)> {
    let arp_at = if matches!(case.at, Xdp) { Xdp } else { Uplink };
    let (packet, repeat) = match &case.packet {
        Packet::Same(packet) => (packet.clone(), REPEAT),
        Packet::New(make) => (make(1024 + u16::try_from(round)?).build(), 1),
    };
    let base = w.run(arp_at, &arp(), repeat).duration.as_nanos() as f64;
    let outcome = w.run(case.at, &packet, repeat);
    match code {
        Some(code) if outcome.code != code => bail!("repeated, the program returned {}, not {code}", outcome.code),
        Some(_) => {}
        None => check(case, &outcome.counted)?,
    }
    Ok((base, outcome.duration.as_nanos() as f64))
}

/// A figure counts only where the packet went the way that it names.
fn check(case: &Case, counted: &[(Verdict, u64)]) -> Result<()> {
    // What XDP passes is counted by the hook that sees it next.
    let expected = match case {
        Case { at: Xdp, verdict: Verdict::Host, .. } => vec![],
        case => vec![(case.verdict, 1)],
    };
    if counted != expected {
        bail!("expected {expected:?}, the program counted {counted:?}");
    }
    Ok(())
}

/// Ends the conversations that a case began.
fn forget_new(w: &mut World) -> Result<()> {
    let mut pending = w.kernel.map::<FlowKey, Flow>("PENDING");
    let keys: Vec<FlowKey> = pending.keys().collect::<Result<_, _>>()?;
    keys.iter().try_for_each(|k| pending.remove(k)).context("PENDING")
}

fn table(what: &str, scales: &[usize], cases: &[Case], costs: &[Vec<Cost>]) -> Table {
    let mut head = vec!["case".to_owned(), "program".to_owned()];
    head.extend(scales.iter().map(|s| format!("{s} {what}")));
    let full = |case: &Case| format!("{}: {}", program(case.at), case.name);
    let rows = cases.iter().zip(costs).map(|(case, costs)| {
        let cells = costs.iter().enumerate().map(|(i, c)| {
            let ratio = if i == 0 { String::new() } else { format!(" x{:.2}", c.of_first) };
            format!("+{:.0} ({:.0}, best {:.0}){ratio}", c.added, c.median, c.best)
        });
        [case.name.to_owned(), program(case.at).to_owned()].into_iter().chain(cells).collect()
    });
    let points = |costs: &[Cost]| scales.iter().zip(costs).map(|(s, c)| (*s as f64, c.added)).collect();
    let json: Vec<Value> = cases
        .iter()
        .zip(costs)
        .flat_map(|(case, costs)| {
            scales.iter().zip(costs).map(|(s, c)| {
                json!({"case": case.name, "program": program(case.at), "scale": s, "of": what, "repeat": repeat(case), "added_ns": c.added,
                    "median_ns": c.median, "best_ns": c.best, "of_first": c.of_first})
            })
        })
        .collect();
    Table {
        title: format!("Kernel: ns a packet by {what}"),
        note: format!(
            "BPF_PROG_TEST_RUN on one core: what is added to the shortest way through a program (an ARP frame, run in turn with it), as a \
             median; in brackets median and best of all; after x the median of the ratios to the first column. All columns are measured in \
             turn. {REPEAT} repeats a run, but one for a new flow, where caches are colder."
        ),
        head,
        rows: rows.collect(),
        lines: cases.iter().zip(costs).map(|(case, costs)| (full(case), points(costs))).collect(),
        json: json.into(),
    }
}

fn repeat(case: &Case) -> u32 {
    if matches!(case.packet, Packet::New(_)) { 1 } else { REPEAT }
}

fn program(at: At) -> &'static str {
    match at {
        Uplink => "uplink_ingress",
        Xdp => "uplink_xdp",
        Leaving(_) => "from_endpoint",
        Entering(..) => "to_endpoint",
    }
}
