//! Writing what the readers read.

use std::fmt;
use std::net::IpAddr;

use super::FLAGS;
use crate::packet::{Body, Edit, Ip, L4, Packet};
use crate::world::{At, CONTAINERS, Change, Event, INTERFACES, NAMES, Opens, World, named};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn protocol_name(n: u8) -> &'static str {
    match n {
        6 => "tcp",
        17 => "udp",
        _ => "sctp",
    }
}

fn name_of(a: IpAddr) -> String {
    let found = NAMES.iter().find(|(name, ..)| named(name, a.is_ipv4()) == Some(a));
    found.map_or_else(|| a.to_string(), |(name, ..)| (*name).to_owned())
}

fn with_port(a: IpAddr, port: u16) -> String {
    match name_of(a) {
        name if name.contains(':') => format!("[{name}]:{port}"),
        name => format!("{name}:{port}"),
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.body {
            Body::Ip(ip) => write!(f, "{ip}")?,
            Body::Arp(operation, mac, sender, target) => {
                let operation = if *operation == 1 { "request" } else { "reply" };
                write!(f, "arp {operation} {} {} > {}", hex(mac), name_of(*sender), name_of(*target))?;
            }
            Body::Other(ethertype, payload) => write!(f, "frame {ethertype:04x} {}", hex(payload))?,
        }
        if let Some((src, dst)) = &self.macs {
            write!(f, " mac={}>{}", hex(src), hex(dst))?;
        }
        if let Some(id) = self.vlan {
            write!(f, " vlan={id}")?;
        }
        for edit in &self.edits {
            match edit {
                Edit::Patch(at, bytes) => write!(f, " patch={at}:{}", hex(bytes))?,
                Edit::Cut(len) => write!(f, " cut={len}")?,
                Edit::Pad(len) => write!(f, " pad={len}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Ip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (src, dst) = (name_of(self.src), name_of(self.dst));
        match self.l4 {
            L4::Tcp { sport, dport, flags, seq, ack } => {
                write!(f, "tcp {} > {}", with_port(self.src, sport), with_port(self.dst, dport))?;
                for (name, _) in FLAGS.iter().filter(|(_, flag)| flags & flag != 0) {
                    write!(f, " {name}")?;
                }
                write!(f, " seq={seq} acknowledges={ack}")?;
            }
            L4::Udp { sport, dport, checksum } => {
                write!(f, "udp {} > {}", with_port(self.src, sport), with_port(self.dst, dport))?;
                f.write_str(if checksum { "" } else { " nosum" })?;
            }
            L4::Sctp { sport, dport } => {
                write!(f, "sctp {} > {}", with_port(self.src, sport), with_port(self.dst, dport))?;
            }
            L4::Icmp { kind, code, rest } => write!(f, "icmp {src} > {dst} {kind}/{code} rest={}", hex(&rest))?,
            L4::Raw(protocol) => write!(f, "raw {src} > {dst} protocol={protocol}")?,
        }
        if self.ttl != 64 {
            write!(f, " ttl={}", self.ttl)?;
        }
        if self.id != 0x1234 {
            write!(f, " ipid={}", self.id)?;
        }
        if !self.options.is_empty() {
            write!(f, " options={}", hex(&self.options))?;
        }
        if !self.extensions.is_empty() {
            let numbers: Vec<String> = self.extensions.iter().map(u8::to_string).collect();
            write!(f, " extensions={}", numbers.join(","))?;
        }
        if let Some((first, len, more)) = self.fragment {
            write!(f, " fragment={first}/{len}{}", if more { "+" } else { "" })?;
        }
        if self.data != b"payload" {
            write!(f, " bytes={}", hex(&self.data))?;
        }
        Ok(())
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Uplink => f.write_str("uplink"),
            At::Xdp => f.write_str("xdp"),
            At::From(c) => write!(f, "from {}", CONTAINERS[*c].name),
            At::To(c, from) => {
                write!(f, "to {} by {}", CONTAINERS[*c].name, from.map_or("host", |i| INTERFACES[i]))
            }
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Packet(at, packet) => write!(f, "{at}: {packet}"),
            Event::Change(Change::Unpublish(n)) => write!(f, "unpublish {}", n + 1),
            Event::Change(Change::Unlink(n)) => write!(f, "unlink {}", n + 1),
            Event::Change(Change::Gone(c)) => write!(f, "gone {}", CONTAINERS[*c].name),
            Event::Change(Change::Another(c)) => write!(f, "another {}", CONTAINERS[*c].name),
        }
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, network) in self.networks.iter().enumerate() {
            let isolated = if network.isolated { "isolated" } else { "open" };
            writeln!(f, "network br{n} {isolated}{}", if network.masquerade { " masquerade" } else { "" })?;
        }
        for c in &self.unknown {
            writeln!(f, "unknown {}", CONTAINERS[*c].name)?;
        }
        for (set, word) in [(self.shared, "shared"), (self.learning, "learning"), (self.local_prefix, "local-prefix")] {
            if set {
                writeln!(f, "{word}")?;
            }
        }
        for port in &self.sockets {
            writeln!(f, "socket {port}")?;
        }
        for p in &self.publications {
            let to = CONTAINERS[p.to].name;
            let host = with_port(p.host, p.port);
            write!(f, "publish {host}/{} {to}:{}", protocol_name(p.protocol), p.container_port)?;
            for (set, word) in [(p.policy.closed, "closed"), (p.policy.ask, "ask"), (p.policy.translates, "translates")]
            {
                f.write_str(if set { " " } else { "" })?;
                f.write_str(if set { word } else { "" })?;
            }
            p.policy.only.iter().try_for_each(|a| write!(f, " only={}", name_of(*a)))?;
            p.policy.not.iter().try_for_each(|a| write!(f, " not={}", name_of(*a)))?;
            p.policy.limit.map_or(Ok(()), |n| write!(f, " limit={n}"))?;
            writeln!(f)?;
        }
        for link in &self.links {
            let (recipient, source) = (CONTAINERS[link.recipient].name, CONTAINERS[link.source].name);
            match link.opens {
                Opens::Port(port, p) => writeln!(f, "link {recipient} {source} {port}/{}", protocol_name(p))?,
                Opens::Ping => writeln!(f, "link {recipient} {source} ping")?,
                Opens::All => writeln!(f, "link {recipient} {source} all")?,
            }
        }
        Ok(())
    }
}
