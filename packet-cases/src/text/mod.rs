//! Packets, worlds and what happens in them as text, to be read and written by people.
//!
//! ```text
//! tcp client:40000 > host:8080 syn ttl=1
//! udp [2001:db8::9]:53 > [fd00:17::2]:4000 data=1400
//! echo web > client id=7 · reply web > client id=7 · icmp web > db 5/1 · error db > web 3/1 about [ udp web:1 > db:2 ]
//! raw one > two protocol=50 · arp request web web > db · frame 88cc 0011…
//! ```
//! Addresses are written out or by [`crate::world::NAMES`], of the family that the text is read for.

mod write;

use std::net::{IpAddr, SocketAddr};

use crate::packet::{ACK, Body, Edit, FIN, Ip, L4, Mac, PSH, Packet, RST, SYN};
use crate::world::{At, CONTAINERS, Change, INTERFACES, Link, Name, Opens, Policy, Publication, World, named};

/// What could not be read, and why.
pub type Result<T> = std::result::Result<T, String>;

const FLAGS: [(&str, u8); 5] = [("syn", SYN), ("ack", ACK), ("fin", FIN), ("rst", RST), ("psh", PSH)];

fn unhex(s: &str) -> Result<Vec<u8>> {
    let s = s.replace(':', "");
    if !s.is_ascii() || !s.len().is_multiple_of(2) {
        return Err(format!("{s} is no run of bytes"));
    }
    (0..s.len()).step_by(2).map(|i| number_of(&s[i..i + 2], 16).map(|n| n as u8)).collect()
}

fn number_of(s: &str, radix: u32) -> Result<u32> {
    u32::from_str_radix(s, radix).map_err(|_| format!("{s} is no number"))
}

fn number<T: TryFrom<u32>>(s: &str) -> Result<T> {
    T::try_from(number_of(s, 10)?).map_err(|_| format!("{s} is too large"))
}

fn mac(s: &str) -> Result<Mac> {
    if let Some(c) = CONTAINERS.iter().find(|c| c.name == s) {
        return Ok(c.mac);
    }
    unhex(s)?.try_into().map_err(|_| format!("{s} is no MAC address"))
}

/// An address: a name or written out.
pub fn address(s: &str, v4: bool) -> Result<IpAddr> {
    named(s, v4).or_else(|| s.parse().ok()).ok_or_else(|| format!("{s} is no address"))
}

fn socket(s: &str, v4: bool) -> Result<(IpAddr, u16)> {
    if let Ok(a) = s.parse::<SocketAddr>() {
        return Ok((a.ip(), a.port()));
    }
    let (a, port) = s.rsplit_once(':').ok_or_else(|| format!("{s} is no address with a port"))?;
    Ok((address(a, v4)?, number(port)?))
}

/// A container by name.
pub fn container(s: &str) -> Result<Name> {
    CONTAINERS.iter().position(|c| c.name == s).ok_or_else(|| format!("{s} is no container"))
}

fn interface(s: &str) -> Result<usize> {
    INTERFACES.iter().position(|i| *i == s).ok_or_else(|| format!("{s} is no interface"))
}

fn protocol(s: &str) -> Result<u8> {
    [("tcp", 6), ("udp", 17), ("sctp", 132)]
        .iter()
        .find(|(name, _)| *name == s)
        .map(|(_, n)| *n)
        .ok_or_else(|| format!("{s} is no protocol with ports"))
}

/// Reads a packet.
///
/// # Errors
/// What is wrong with it.
pub fn packet(text: &str, v4: bool) -> Result<Packet> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (packet, rest) = packet_of(&words, v4)?;
    if rest.is_empty() { Ok(packet) } else { Err(format!("{} says nothing", rest.join(" "))) }
}

fn packet_of<'a>(words: &[&'a str], v4: bool) -> Result<(Packet, Vec<&'a str>)> {
    let word = |i: usize| words.get(i).copied().ok_or_else(|| "it ends too early".to_owned());
    let pair = || -> Result<(IpAddr, IpAddr)> { Ok((address(word(1)?, v4)?, address(word(3)?, v4)?)) };
    let plain = |body| Packet { macs: None, vlan: None, body, edits: vec![] };
    let mut used = 4;
    let mut packet: Packet = match word(0)? {
        kind @ ("tcp" | "udp" | "sctp") => {
            let ((src, sport), (dst, dport)) = (socket(word(1)?, v4)?, socket(word(3)?, v4)?);
            let l4 = match kind {
                "tcp" => L4::Tcp { sport, dport, flags: 0, seq: 1000, ack: 0 },
                "udp" => L4::Udp { sport, dport, checksum: true },
                _ => L4::Sctp { sport, dport },
            };
            Ip::new(src, dst, l4).into()
        }
        kind @ ("echo" | "reply") => {
            let (src, dst) = pair()?;
            let kind = match (kind, src.is_ipv4()) {
                ("echo", true) => 8,
                ("echo", false) => 128,
                (_, true) => 0,
                (_, false) => 129,
            };
            Ip::new(src, dst, L4::Icmp { kind, code: 0, rest: [0, 1, 0, 1] }).into()
        }
        kind @ ("icmp" | "error") => {
            let (src, dst) = pair()?;
            let (t, code) = word(4)?.split_once('/').ok_or("type/code is missing")?;
            used = 5;
            let mut ip = Ip::new(src, dst, L4::Icmp { kind: number(t)?, code: number(code)?, rest: [0; 4] });
            if kind == "error" {
                let close = words.iter().rposition(|w| *w == "]").ok_or("] is missing")?;
                if word(5)? != "about" || word(6)? != "[" {
                    return Err("about [ … ] is missing".to_owned());
                }
                let (about, rest) = packet_of(&words[7..close], v4)?;
                if !rest.is_empty() {
                    return Err(format!("{} says nothing", rest.join(" ")));
                }
                ip.data = about.bytes(([0; 6], [0; 6])).split_off(14);
                ip.data.truncate(68);
                used = close + 1;
            }
            ip.into()
        }
        "raw" => {
            let (src, dst) = pair()?;
            Ip::new(src, dst, L4::Raw(59)).into()
        }
        "arp" => {
            let operation = if word(1)? == "request" { 1 } else { 2 };
            used = 6;
            plain(Body::Arp(operation, mac(word(2)?)?, address(word(3)?, true)?, address(word(5)?, true)?))
        }
        "frame" => {
            used = 3;
            plain(Body::Other(number_of(word(1)?, 16)? as u16, unhex(word(2)?)?))
        }
        other => return Err(format!("{other} is no kind of packet")),
    };
    let mut rest = vec![];
    for word in words.iter().skip(used) {
        if !attribute(&mut packet, word, v4)? {
            rest.push(*word);
        }
    }
    Ok((packet, rest))
}

/// Reads one of the words that follow. False where it is none.
fn attribute(packet: &mut Packet, word: &str, v4: bool) -> Result<bool> {
    let (key, value) = word.split_once('=').unwrap_or((word, ""));
    match key {
        "mac" => {
            let (src, dst) = value.split_once('>').ok_or("mac=SOURCE>DESTINATION")?;
            packet.macs = Some((mac(src)?, mac(dst)?));
            return Ok(true);
        }
        "vlan" => packet.vlan = Some(number(value)?),
        "cut" => packet.edits.push(Edit::Cut(number::<u16>(value)?.into())),
        "pad" => packet.edits.push(Edit::Pad(number::<u16>(value)?.into())),
        "patch" => {
            let (at, bytes) = value.split_once(':').ok_or("patch=OFFSET:BYTES")?;
            packet.edits.push(Edit::Patch(number::<u16>(at)?.into(), unhex(bytes)?));
        }
        _ => {
            let Some(ip) = packet.ip_mut() else { return Ok(false) };
            return of_ip(ip, key, value, v4);
        }
    }
    Ok(true)
}

fn of_ip(ip: &mut Ip, key: &str, value: &str, v4: bool) -> Result<bool> {
    if let (L4::Tcp { flags, ack, .. }, Some((_, flag))) =
        (&mut ip.l4, FLAGS.iter().find(|(name, _)| *name == key).filter(|_| value.is_empty()))
    {
        *flags |= flag;
        if *flag == ACK && *ack == 0 {
            *ack = 2001;
        }
        return Ok(true);
    }
    match (key, &mut ip.l4) {
        ("seq", L4::Tcp { seq, .. }) => *seq = number(value)?,
        ("acknowledges", L4::Tcp { ack, .. }) => *ack = number(value)?,
        ("nosum", L4::Udp { checksum, .. }) => *checksum = false,
        ("id", L4::Icmp { rest, .. }) => rest[..2].copy_from_slice(&number::<u16>(value)?.to_be_bytes()),
        ("mtu", L4::Icmp { rest, .. }) => rest[2..].copy_from_slice(&number::<u16>(value)?.to_be_bytes()),
        ("rest", L4::Icmp { rest, .. }) => {
            *rest = unhex(value)?.try_into().map_err(|_| format!("{value} is not four bytes"))?;
        }
        ("protocol", L4::Raw(protocol)) => *protocol = number(value)?,
        ("id", _) => ip.id = number(value)?,
        ("ipid", _) => ip.id = number(value)?,
        ("ttl", _) => ip.ttl = number(value)?,
        ("data", _) => ip.data = vec![0x55; number::<u16>(value)?.into()],
        ("bytes", _) => ip.data = unhex(value)?,
        ("target", _) => match address(value, v4)? {
            IpAddr::V6(a) => ip.data = a.octets().to_vec(),
            IpAddr::V4(_) => return Err(format!("{value} is no target of neighbour discovery")),
        },
        ("options", _) => ip.options = unhex(value)?,
        ("extensions", _) => ip.extensions = value.split(',').map(number).collect::<Result<_>>()?,
        ("fragment", _) => {
            let (range, more) = value.strip_suffix('+').map_or((value, false), |v| (v, true));
            let (first, len) = range.split_once('/').ok_or("fragment=FIRST/LENGTH, and + where more follow")?;
            ip.fragment = Some((number::<u16>(first)?.into(), number::<u16>(len)?.into(), more));
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Reads a place.
///
/// # Errors
/// What is wrong with it.
pub fn place(text: &str) -> Result<At> {
    match text.split_whitespace().collect::<Vec<_>>()[..] {
        ["uplink"] => Ok(At::Uplink),
        ["xdp"] => Ok(At::Xdp),
        ["from", c] => Ok(At::From(container(c)?)),
        ["to", c, "by", "host"] => Ok(At::To(container(c)?, None)),
        ["to", c, "by", i] => Ok(At::To(container(c)?, Some(interface(i)?))),
        _ => Err(format!("{text} is no place")),
    }
}

/// Reads a line that says something of the world. False where it is none.
///
/// # Errors
/// What is wrong with it.
pub fn world_line(world: &mut World, line: &str, v4: bool) -> Result<bool> {
    match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["network", bridge, ref words @ ..] => {
            let n = interface(bridge)?.checked_sub(2).filter(|n| *n < 2).ok_or("network br0 or br1")?;
            let network = &mut world.networks[n];
            for word in words {
                match *word {
                    "isolated" => network.isolated = true,
                    "open" => network.isolated = false,
                    "masquerade" => network.masquerade = true,
                    _ => return Err(format!("{word} says nothing of a network")),
                }
            }
        }
        ["unknown", c] => world.unknown.push(container(c)?),
        ["shared"] => world.shared = true,
        ["learning"] => world.learning = true,
        ["local-prefix"] => world.local_prefix = true,
        ["socket", port] => world.sockets.push(number(port)?),
        ["publish", from, to, ref words @ ..] => world.publications.push(publication(from, to, words, v4)?),
        ["link", recipient, source, opens] => {
            let opens = match opens.split_once('/') {
                Some((port, p)) => Opens::Port(number(port)?, protocol(p)?),
                None if opens == "ping" => Opens::Ping,
                None => Opens::All,
            };
            world.links.push(Link { recipient: container(recipient)?, source: container(source)?, opens });
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn publication(from: &str, to: &str, words: &[&str], v4: bool) -> Result<Publication> {
    let (host, p) = from.split_once('/').ok_or("publish ADDRESS:PORT/PROTOCOL CONTAINER:PORT")?;
    let (to, container_port) = to.split_once(':').ok_or("publish ADDRESS:PORT/PROTOCOL CONTAINER:PORT")?;
    let (host, port) = socket(host, v4)?;
    let mut policy = Policy::default();
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("closed", _) => policy.closed = true,
            ("ask", _) => policy.ask = true,
            ("translates", _) => policy.translates = true,
            ("only", a) => policy.only.push(address(a, v4)?),
            ("not", a) => policy.not.push(address(a, v4)?),
            ("limit", n) => policy.limit = Some(number(n)?),
            _ => return Err(format!("{word} says nothing of a publication")),
        }
    }
    let protocol = protocol(p)?;
    Ok(Publication { host, port, protocol, to: container(to)?, container_port: number(container_port)?, policy })
}

/// Reads a line that says that something changes: what it is about counts from 1. `None` where it is none.
///
/// # Errors
/// What is wrong with it.
pub fn change(line: &str) -> Result<Option<Change>> {
    let before = |n: &str| number::<u32>(n).and_then(|n| n.checked_sub(1).ok_or("they count from 1".to_owned()));
    Ok(Some(match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["unpublish", n] => Change::Unpublish(before(n)? as usize),
        ["unlink", n] => Change::Unlink(before(n)? as usize),
        ["gone", c] => Change::Gone(container(c)?),
        ["another", c] => Change::Another(container(c)?),
        _ => return Ok(None),
    }))
}
