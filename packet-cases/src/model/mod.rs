//! The naive model: what is to become of a packet, from the words of the design alone. It reads descriptions, not bytes, knows no
//! tables, and keeps one plain list of conversations.
//!
//! It says what it is sure of. Of all else (odd headers, segments of TCP that open nothing, errors, neighbour discovery, and
//! whatever has to do with a packet that it was not sure of) it says nothing: how many packets that are, the fuzzer tells.

mod policy;

use std::collections::HashSet;
use std::net::IpAddr;

use crate::generate::owner;
use crate::packet::{ACK, Body, Edit, Ip, L4, Packet, SYN};
use crate::world::{self, At, BROADCAST, CONTAINERS, Change, DB, Fate, Name, Outcome, TWO, World};

/// What a packet is to become.
#[derive(Debug)]
pub struct Expected {
    verdict: &'static str,
    fate: Fate,
    /// Its addresses and ports afterwards, where they change. A source port is any that no other conversation has.
    after: Option<Tuple>,
    opens: Option<Conversation>,
}

/// Addresses and ports. Of an echo the identifier is the source port, of its answer the destination port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tuple {
    src: (IpAddr, u16),
    dst: (IpAddr, u16),
}

impl Tuple {
    fn reversed(self) -> Self {
        Tuple { src: self.dst, dst: self.src }
    }
}

/// Where a packet is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Outside,
    Container,
    Gate,
}

/// Whose end a conversation is the end of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    Publication(usize),
    Link(usize),
    Container(Name),
}

#[derive(Clone, Debug)]
struct Conversation {
    protocol: u8,
    /// How its first packet came.
    asked_at: Side,
    question: Tuple,
    /// What that became, and where the answers come.
    translated: Tuple,
    answered_at: Side,
    rule: Rule,
    /// Verdict and fate of questions and of answers.
    there: (&'static str, Fate),
    back: (&'static str, Fate),
}

/// The model, with a world.
#[derive(Debug)]
pub struct Model {
    world: World,
    unpublished: Vec<usize>,
    unlinked: Vec<usize>,
    gone: Vec<Name>,
    /// Conversations that began in this second, by publication; and whether there may have been others.
    began: Vec<u32>,
    began_others: bool,
    conversations: Vec<Conversation>,
    /// Protocol, remote address and port, and the other port, of what it is not sure of.
    doubts: HashSet<(u8, IpAddr, u16, u16)>,
    /// Whether a conversation may have begun of which it does not know the ends.
    lost: bool,
}

/// The tuple of a packet that may open a conversation, or is one of no connection: UDP, SCTP, an opening TCP segment, an echo.
fn plain_tuple(ip: &Ip) -> Option<Tuple> {
    let (sport, dport) = match ip.l4 {
        L4::Tcp { sport, dport, flags, .. } if flags & (SYN | ACK) == SYN && flags == SYN => (sport, dport),
        L4::Udp { sport, dport, .. } | L4::Sctp { sport, dport } => (sport, dport),
        L4::Icmp { kind, rest, .. } => {
            let id = u16::from_be_bytes([rest[0], rest[1]]);
            match (ip.is_v4(), kind) {
                (true, 8) | (false, 128) => (id, 0),
                (true, 0) | (false, 129) => (0, id),
                _ => return None,
            }
        }
        _ => return None,
    };
    Some(Tuple { src: (ip.src, sport), dst: (ip.dst, dport) })
}

fn is_answer_only(ip: &Ip) -> bool {
    matches!((ip.is_v4(), &ip.l4), (true, L4::Icmp { kind: 0, .. }) | (false, L4::Icmp { kind: 129, .. }))
}

/// All pairs of ends of a packet, for doubts.
fn ends(protocol: u8, t: Tuple) -> [(u8, IpAddr, u16, u16); 2] {
    [(protocol, t.src.0, t.src.1, t.dst.1), (protocol, t.dst.0, t.dst.1, t.src.1)]
}

impl Model {
    /// With a world.
    pub fn new(world: &World) -> Self {
        Model {
            world: world.clone(),
            unpublished: vec![],
            unlinked: vec![],
            gone: vec![],
            began: vec![0; world.publications.len()],
            began_others: false,
            conversations: vec![],
            doubts: HashSet::new(),
            lost: false,
        }
    }

    /// The user or the daemon changes something: what was there ends, and what may still be under way is not certain.
    pub fn change(&mut self, change: &Change) {
        let mut ended = vec![];
        match change {
            Change::Unpublish(n) => {
                self.unpublished.push(*n);
                ended.push(Rule::Publication(*n));
            }
            Change::Unlink(n) => {
                self.unlinked.push(*n);
                ended.push(Rule::Link(*n));
            }
            Change::Gone(c) | Change::Another(c) => {
                if matches!(change, Change::Gone(_)) {
                    self.gone.push(*c);
                } else {
                    self.gone.retain(|gone| gone != c);
                    // It has nothing to do with who the other network still has.
                    self.world.shared &= ![DB, TWO].contains(c);
                }
                ended.push(Rule::Container(*c));
                let publications = (0..self.world.publications.len()).filter(|n| self.world.publications[*n].to == *c);
                let links = (0..self.world.links.len())
                    .filter(|n| self.world.links[*n].recipient == *c || self.world.links[*n].source == *c);
                let (publications, links): (Vec<_>, Vec<_>) = (publications.collect(), links.collect());
                ended.extend(publications.iter().map(|n| Rule::Publication(*n)));
                ended.extend(links.iter().map(|n| Rule::Link(*n)));
                self.unpublished.extend(publications);
                self.unlinked.extend(links);
            }
        }
        // Whoever takes the address of who began a conversation is not the one who did.
        let began = |c: &Conversation| match change {
            Change::Gone(who) | Change::Another(who) => {
                c.asked_at == Side::Container && owner(c.question.src.0) == Some(*who)
            }
            _ => false,
        };
        let (over, on): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.conversations).into_iter().partition(|c| ended.contains(&c.rule) || began(c));
        self.conversations = on;
        for c in over {
            self.doubts.extend(ends(c.protocol, c.question));
            self.doubts.extend(ends(c.protocol, c.translated));
        }
    }

    /// What is to become of a packet, where it is certain.
    pub fn expect(&self, at: At, packet: &Packet) -> Option<Expected> {
        let Body::Ip(ip) = &packet.body else { return None };
        if self.lost {
            return None;
        }
        let odd = packet.macs.is_some() || packet.vlan.is_some() || !packet.edits.is_empty();
        let by_routes = [ip.src, ip.dst].contains(&world::ip(BROADCAST));
        if odd || by_routes || !ip.extensions.is_empty() || ip.fragment.is_some() {
            return None;
        }
        let tuple = plain_tuple(ip)?;
        if ends(ip.protocol(), tuple).iter().any(|end| self.doubts.contains(end)) {
            return None;
        }
        let mut e = match at {
            At::Uplink | At::Xdp => self.arriving(ip, tuple)?,
            At::From(c) => self.leaving(c, ip, tuple)?,
            At::To(c, from) => self.entering(c, from, ip, tuple)?,
        };
        let is_drop = matches!(e.fate, Fate::Drop);
        if is_drop && self.world.learning {
            e.fate = Fate::Pass;
        }
        Some(e)
    }

    /// Whether what became of a packet is what was to become of it; the model's own list follows what happened.
    ///
    /// # Errors
    /// What is different.
    pub fn check(&mut self, at: At, packet: &Packet, found: &Outcome) -> Result<bool, String> {
        let expected = self.expect(at, packet);
        let after = after(packet, found);
        let Some(e) = expected else {
            self.began_others = true;
            if let Body::Ip(ip) = &packet.body {
                let published = rough_tuple(ip).into_iter().flat_map(|t| self.published_ends(ip, t));
                let all: Vec<_> = [rough_tuple(ip), after].into_iter().flatten().chain(published).collect();
                self.doubts.extend(all.into_iter().flat_map(|t| ends(ip.protocol(), t)));
                // Whatever the bytes say now.
                let patched = packet.edits.iter().any(|edit| matches!(edit, Edit::Patch(..)));
                self.lost |= patched && found.verdict.is_some_and(may_begin);
                if !packet.edits.is_empty() || ip.data.len() > 20 {
                    // Or what the packet says that an error quotes.
                    self.doubt_all();
                }
            }
            return Ok(false);
        };
        let quiet = at == At::Xdp && matches!(e.fate, Fate::Pass | Fate::Back);
        let (verdict, fate) = match (at, e.verdict) {
            (At::Xdp, "ttl_exceeded" | "deferred") => (None, Fate::Pass),
            // While learning, drops pass and are counted all the same.
            (At::Xdp, v) if quiet && !is_drop(v) => (None, e.fate),
            (_, v) => (Some(v), e.fate),
        };
        if matches!(verdict, Some("martian" | "spoofed_local")) {
            // Who forges a source may forge any: it has taken from a publication's limit all the same.
            self.began_others = true;
        }
        if found.verdict != verdict || found.fate != fate {
            return Err(format!("model: {e:?}"));
        }
        let Body::Ip(ip) = &packet.body else { return Ok(true) };
        if verdict.is_none() {
            return Ok(true);
        }
        let now = after.ok_or("no tuple afterwards")?;
        let want = e.after.unwrap_or(rough_tuple(ip).ok_or("no tuple before")?);
        let may_differ = e.opens.is_some() && want != rough_tuple(ip).unwrap_or(want);
        let same =
            now == want || (may_differ || e.opens.is_some()) && Tuple { src: (now.src.0, want.src.1), ..now } == want;
        if fate != Fate::Back && !same {
            return Err(format!("model: {e:?}, found {now:?}"));
        }
        if let Some(mut conversation) = e.opens {
            conversation.translated = now;
            let answer = (conversation.answered_at, now.reversed());
            if let Some(other) = self.conversations.iter().find(|o| {
                o.protocol == conversation.protocol
                    && (o.answered_at, o.translated.reversed()) == answer
                    && o.question != conversation.question
            }) {
                return Err(format!("model: its answers are those of {other:?}"));
            }
            if let Rule::Publication(n) = conversation.rule {
                self.began[n] += 1;
            }
            self.conversations.push(conversation);
        }
        Ok(true)
    }

    /// What a packet for a published port may become, here or by the host's own rules.
    fn published_ends(&self, ip: &Ip, t: Tuple) -> impl Iterator<Item = Tuple> {
        let (v4, protocol) = (ip.is_v4(), ip.protocol());
        let published = self.world.publications.iter().filter(move |p| (p.protocol, p.port) == (protocol, t.dst.1));
        published.map(move |p| Tuple { src: t.src, dst: (CONTAINERS[p.to].addr(v4), p.container_port) })
    }

    fn doubt_all(&mut self) {
        let all: Vec<_> =
            self.conversations.iter().flat_map(|c| [(c.protocol, c.question), (c.protocol, c.translated)]).collect();
        self.doubts.extend(all.into_iter().flat_map(|(p, t)| ends(p, t)));
    }
}

fn may_begin(verdict: &str) -> bool {
    matches!(verdict, "published" | "linked" | "masqueraded" | "outbound" | "deferred" | "preexisting")
}

fn is_drop(verdict: &str) -> bool {
    !matches!(verdict, "host" | "from_host" | "outbound" | "outbound_reply" | "network" | "multicast" | "unserved")
}

/// Ends of any packet, for doubts.
fn rough_tuple(ip: &Ip) -> Option<Tuple> {
    let (sport, dport) = ip.ports().or_else(|| plain_tuple(ip).map(|t| (t.src.1, t.dst.1))).unwrap_or((0, 0));
    Some(Tuple { src: (ip.src, sport), dst: (ip.dst, dport) })
}

/// The ends that a packet has afterwards, where its headers are the usual ones.
fn after(packet: &Packet, found: &Outcome) -> Option<Tuple> {
    let ip = packet.ip()?;
    if !packet.edits.is_empty() {
        return None;
    }
    rough_tuple(&crate::generate::observed(ip, found))
}
