//! Cases with what is to become of every packet, as text files.
//!
//! ```text
//! case a published port leads to its container     # a title; everything up to the next one belongs to it
//! for family v4 v6                                 # once for each family; both where nothing is said
//! for p tcp udp                                    # once for each word, which stands for {p}
//! publish any:8080/{p} web:80                      # the world: see `text::world_line`
//! uplink: {p} client:40000 > host:8080 {open}      # a packet: see `text`
//! => published into web: {p} client:40000 > web:80 {open} ttl=63
//! unpublish 1                                      # a change
//! ```
//! After `=>` comes the verdict (`-` where none is counted), where the packet goes (`pass`, `drop`, `into CONTAINER`, `out`, `back`,
//! `loopback`; the verdict's own where it is left out), and what it has become: unchanged where nothing is said. `{open}`,
//! `{answer}` and `{go}` are what TCP's first three segments have and other protocols have not.

use std::net::IpAddr;

use runtime_common::{Kind, Verdict};

use crate::packet::{Ip, L4, Mac, Packet, checksum};
use crate::text::{self, Result};
use crate::world::{At, CONTAINERS, Case, Event, Fate, MAC_CLIENT, MAC_UPLINK, Outcome, World, ip};

/// Every file of fixtures, by subject.
pub const FILES: [(&str, &str); 9] = [
    ("changes", include_str!("../../tests/fixtures/changes.txt")),
    ("errors", include_str!("../../tests/fixtures/errors.txt")),
    ("fragments", include_str!("../../tests/fixtures/fragments.txt")),
    ("gate", include_str!("../../tests/fixtures/gate.txt")),
    ("isolation", include_str!("../../tests/fixtures/isolation.txt")),
    ("link", include_str!("../../tests/fixtures/link.txt")),
    ("malformed", include_str!("../../tests/fixtures/malformed.txt")),
    ("masquerade", include_str!("../../tests/fixtures/masquerade.txt")),
    ("publish", include_str!("../../tests/fixtures/publish.txt")),
];

/// All fixtures of all files.
///
/// # Errors
/// As [`read`].
pub fn all() -> Result<Vec<Fixture>> {
    let files = FILES.iter().map(|(file, text)| read(file, text));
    Ok(files.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// A case, and what is to become of each of its packets.
#[derive(Debug)]
pub struct Fixture {
    /// File and line, title, and the words that stand for variables.
    pub title: String,
    /// The world and what happens.
    pub case: Case,
    /// Of every packet.
    pub expected: Vec<Outcome>,
}

type Variables = Vec<(String, String)>;

/// Reads all fixtures of a file.
///
/// # Errors
/// Which line says nothing, or what is wrong with it.
pub fn read(file: &str, text: &str) -> Result<Vec<Fixture>> {
    let mut fixtures = vec![];
    let lines: Vec<(usize, &str)> = text
        .lines()
        .map(|line| line.split_once(" #").map_or(line, |(line, _)| line).trim())
        .enumerate()
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .collect();
    for block in lines.chunk_by(|_, (_, next)| !next.starts_with("case ")) {
        let (first, title) = block[0];
        let title = title.strip_prefix("case ").ok_or(format!("{file}:{}: no case yet", first + 1))?;
        let (loops, body): (Vec<_>, Vec<_>) =
            block[1..].iter().copied().partition(|(_, line)| line.starts_with("for "));
        let mut combinations: Vec<Variables> = vec![vec![]];
        for (_, line) in &loops {
            let mut words = line.split_whitespace().skip(1);
            let name = words.next().ok_or("for what?")?;
            combinations = words
                .flat_map(|value| {
                    combinations.iter().map(move |old| {
                        let mut new = old.clone();
                        new.push((name.to_owned(), value.to_owned()));
                        new
                    })
                })
                .collect();
        }
        let families = if loops.iter().any(|(_, l)| l.starts_with("for family ")) { vec![] } else { vec!["v4", "v6"] };
        for variables in combinations {
            let told = variables.iter().find(|(name, _)| name == "family").map(|(_, f)| f.clone());
            for family in families.iter().map(|f| (*f).to_owned()).chain(told) {
                fixtures.push(fixture(file, first, title, &body, &variables, family == "v4")?);
            }
        }
    }
    Ok(fixtures)
}

fn fixture(
    file: &str,
    first: usize,
    title: &str,
    body: &[(usize, &str)],
    variables: &Variables,
    v4: bool,
) -> Result<Fixture> {
    let mut case = Case { world: World::default(), events: vec![] };
    let mut expected = vec![];
    for (n, line) in body {
        let line = fill(line, variables);
        one_line(&line, v4, &mut case, &mut expected).map_err(|e| format!("{file}:{}: {line}: {e}", n + 1))?;
    }
    let packets = case.events.iter().filter(|e| matches!(e, Event::Packet(..))).count();
    if packets != expected.len() || packets == 0 {
        return Err(format!("{file}:{}: {title}: something is not expected of every packet", first + 1));
    }
    let words: Vec<&str> = variables.iter().map(|(_, v)| v.as_str()).filter(|v| !matches!(*v, "v4" | "v6")).collect();
    let family = if v4 { "IPv4" } else { "IPv6" };
    Ok(Fixture { title: format!("{file}:{}: {title} ({family} {})", first + 1, words.join(" ")), case, expected })
}

/// A line with the words that variables stand for.
fn fill(line: &str, variables: &Variables) -> String {
    let is_tcp = variables.iter().any(|(_, v)| v == "tcp");
    let mut line = line.to_owned();
    for (name, value) in variables {
        line = line.replace(&format!("{{{name}}}"), value);
    }
    for (name, value) in
        [("open", "syn"), ("answer", "syn ack seq=2000 acknowledges=1001"), ("go", "ack seq=1001 acknowledges=2001")]
    {
        line = line.replace(&format!("{{{name}}}"), if is_tcp { value } else { "" });
    }
    line
}

fn one_line(line: &str, v4: bool, case: &mut Case, expected: &mut Vec<Outcome>) -> Result<()> {
    if let Some(line) = line.strip_prefix("=> ") {
        let Some(Event::Packet(at, packet)) = case.events.last() else {
            return Err("of which packet?".to_owned());
        };
        expected.push(outcome(line, v4, *at, packet)?);
        return Ok(());
    }
    if let Some((at, packet)) = line.split_once(": ") {
        case.events.push(Event::Packet(text::place(at)?, text::packet(packet, v4)?));
        return Ok(());
    }
    if let Some(change) = text::change(line)? {
        case.events.push(Event::Change(change));
        return Ok(());
    }
    if text::world_line(&mut case.world, line, v4)? { Ok(()) } else { Err("it says nothing".to_owned()) }
}

fn outcome(line: &str, v4: bool, at: At, before: &Packet) -> Result<Outcome> {
    let (head, after) = line.split_once(": ").map_or((line, None), |(head, after)| (head, Some(after)));
    let mut words = head.split_whitespace();
    let name = words.next().ok_or("the verdict is missing")?;
    let verdict = match name {
        "-" => None,
        name => Some(Verdict::ALL.iter().find(|v| v.name() == name).ok_or(format!("{name} is no verdict"))?),
    };
    let fate = match (words.next(), verdict.map(|v| v.kind())) {
        (None, None | Some(Kind::Pass)) | (Some("pass"), _) => Fate::Pass,
        (None, Some(Kind::Drop)) | (Some("drop"), _) => Fate::Drop,
        (Some("into"), _) => Fate::Into(text::container(words.next().ok_or("into whom?")?)?),
        (Some("out"), _) => Fate::Out,
        (Some("back"), _) => Fate::Back,
        (Some("loopback"), _) => Fate::Loopback,
        _ => return Err("it goes nowhere".to_owned()),
    };
    let frame = before.bytes(at.macs());
    let packet = match after {
        None if fate == Fate::Back => return Err("with which error?".to_owned()),
        None => frame,
        Some(after) if fate == Fate::Back => error(after, v4, before, &frame)?,
        Some(after) => {
            let after = text::packet(after, v4)?;
            after.bytes(macs(at, fate, before, &after))
        }
    };
    Ok(Outcome { verdict: verdict.map(|v| v.name()), fate, packet })
}

/// The MAC addresses that a packet has where it goes.
fn macs(at: At, fate: Fate, before: &Packet, after: &Packet) -> (Mac, Mac) {
    let (src, dst) = before.macs.unwrap_or(at.macs());
    match fate {
        Fate::Into(c) if at == At::Xdp => (dst, CONTAINERS[c].mac),
        Fate::Out if after.ip().is_some_and(|after| [ip("192.0.2.9"), ip("2001:db8::9")].contains(&after.dst)) => {
            (MAC_UPLINK, MAC_CLIENT)
        }
        Fate::Loopback => ([0; 6], [0; 6]),
        _ => (src, dst),
    }
}

/// The ICMP error about a packet, back to its sender: `time-exceeded from ADDRESS`, `too-big MTU from ADDRESS` (RFC 792, RFC 1191,
/// RFC 4443): from what is asked for as much as fits 128 bytes, with the precedence that routers use, never to be cut.
fn error(text: &str, v4: bool, before: &Packet, frame: &[u8]) -> Result<Vec<u8>> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (mtu, from) = match words[..] {
        ["time-exceeded", "from", from] => (0, from),
        ["too-big", mtu, "from", from] => (mtu.parse::<u16>().map_err(|e| e.to_string())?, from),
        _ => return Err(format!("{text} is no error of a router")),
    };
    let to: IpAddr = before.ip().ok_or("only IP packets are answered")?.src;
    let (kind, code) = match (v4, mtu) {
        (true, 0) => (11, 0),
        (true, _) => (3, 4),
        (false, 0) => (3, 0),
        (false, _) => (2, 0),
    };
    let [high, low] = mtu.to_be_bytes();
    let mut error = Ip::new(text::address(from, v4)?, to, L4::Icmp { kind, code, rest: [0, 0, high, low] });
    (error.id, error.data) = (0, frame[14..].to_vec());
    error.data.truncate(error.data.len().min(128) & !3);
    let mut bytes = error.bytes();
    if v4 {
        (bytes[1], bytes[6], bytes[10], bytes[11]) = (0xc0, 0x40, 0, 0);
        let sum = checksum(&[&bytes[..20]]).to_be_bytes();
        bytes[10..12].copy_from_slice(&sum);
    }
    Ok([&frame[6..12], &frame[..6], &frame[12..14], &bytes].concat())
}
