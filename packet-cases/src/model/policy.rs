//! Who may do what, and what becomes of it.

use std::net::IpAddr;

use super::{Conversation, Expected, Model, Rule, Side, Tuple, is_answer_only};
use crate::packet::{Ip, L4};
use crate::world::{CONTAINERS, DB, Fate, GATEWAYS, HOST, Name, Opens, Publication, TWO, hosts, ip};

impl Model {
    /// The container with an address that the daemon has told of.
    fn owner(&self, a: IpAddr) -> Option<Name> {
        (0..CONTAINERS.len())
            .find(|c| self.world.knows(*c) && !self.gone.contains(c) && CONTAINERS[*c].addr(a.is_ipv4()) == a)
    }

    fn is_isolated(&self, c: Name) -> bool {
        self.world.network(c).isolated
    }

    fn is_hosts(&self, a: IpAddr) -> bool {
        let local = match a {
            IpAddr::V4(a) => a.octets()[..2] == [10, 99],
            IpAddr::V6(a) => a.segments()[..4] == [0xfd99, 0, 0, 0],
        };
        hosts().contains(&a) || self.world.local_prefix && local
    }

    /// Whether an address is one of an isolated network.
    fn is_in_isolated(&self, a: IpAddr) -> bool {
        (0..2).any(|n| self.world.networks[n].isolated && is_in_network(a, n))
    }

    fn published(&self, protocol: u8, dst: (IpAddr, u16)) -> Option<(usize, &Publication)> {
        let all = || {
            self.world
                .publications
                .iter()
                .enumerate()
                .filter(|(n, p)| !self.unpublished.contains(n) && (p.protocol, p.port) == (protocol, dst.1))
        };
        all()
            .find(|(_, p)| p.host == dst.0)
            .or_else(|| all().find(|(_, p)| p.host.is_unspecified() && p.host.is_ipv4() == dst.0.is_ipv4()))
    }

    /// The conversation that a packet belongs to, and whether it is one of the answers.
    fn conversation(&self, side: Side, protocol: u8, tuple: Tuple) -> Option<(&Conversation, bool)> {
        self.conversations.iter().rev().filter(|c| c.protocol == protocol).find_map(|c| {
            if c.asked_at == side && c.question == tuple {
                return Some((c, false));
            }
            (c.answered_at == side && c.translated.reversed() == tuple).then_some((c, true))
        })
    }

    fn follow(&self, side: Side, ip: &Ip, tuple: Tuple) -> Option<Option<Expected>> {
        let (c, is_answer) = self.conversation(side, ip.protocol(), tuple)?;
        // Who opens again, or back, or has been asked about: not for the model.
        if matches!(ip.l4, L4::Tcp { .. }) || c.there.0 == "deferred" {
            return Some(None);
        }
        let ((verdict, fate), after) =
            if is_answer { (c.back, c.question.reversed()) } else { (c.there, c.translated) };
        let translated =
            after != tuple || !matches!(verdict, "linked" | "linked_reply" | "outbound" | "outbound_reply");
        let is_routed = matches!(fate, Fate::Into(_) | Fate::Out) && !verdict.starts_with("linked");
        if is_routed && ip.ttl <= 1 {
            return Some(None);
        }
        if fate == Fate::Out && (ip.bytes().len() > 1500 || !leads_out(ip.dst)) {
            return Some(None);
        }
        Some(Some(Expected { verdict, fate, after: translated.then_some(after), opens: None }))
    }

    pub(super) fn arriving(&self, ip: &Ip, tuple: Tuple) -> Option<Expected> {
        let (src, dst) = (ip.src, ip.dst);
        if is_loopback(src) || is_loopback(dst) {
            return drop("loopback");
        }
        if let Some(known) = self.follow(Side::Outside, ip, tuple) {
            return known;
        }
        if self.is_hosts(src) && !is_in_local_prefix(src) || self.owner(src).is_some_and(|c| self.is_isolated(c)) {
            return drop("spoofed_local");
        }
        if self.is_hosts(dst) {
            let Some((n, p)) = self.published(ip.protocol(), tuple.dst).filter(|_| ip.ports().is_some()) else {
                return pass("host");
            };
            if p.policy.closed {
                return drop("unpublished");
            }
            if p.policy.limit.is_some() && self.began_others {
                return None;
            }
            if ip.ttl <= 1 || self.owner(src).is_some() {
                // Which of its faults is named is no matter of the design.
                return if self.owner(src).is_some() && ip.ttl > 1 && self.refused(n, p, src).is_none() {
                    drop("spoofed_local")
                } else {
                    None
                };
            }
            if let Some(refused) = self.refused(n, p, src) {
                return drop(refused);
            }
            if src.is_unspecified() || is_group(src) {
                return drop("martian");
            }
            // A container's, also one that no container has at the moment.
            if (0..2).any(|n| is_in_network(src, n)) {
                return drop("spoofed_local");
            }
            return self.publish(n, p, Side::Outside, tuple, tuple.src.0, ("published_reply", Fate::Out), ip);
        }
        match self.owner(dst) {
            Some(_) if self.conversation(Side::Gate, ip.protocol(), tuple).is_some() => None,
            Some(c) if self.is_isolated(c) => drop("not_published"),
            Some(_) => pass("network"),
            None if self.is_in_isolated(dst) => drop("unknown_endpoint"),
            None => pass("host"),
        }
    }

    fn refused(&self, n: usize, p: &Publication, src: IpAddr) -> Option<&'static str> {
        if p.policy.not.contains(&src) || !p.policy.only.is_empty() && !p.policy.only.contains(&src) {
            return Some("filtered");
        }
        p.policy.limit.filter(|limit| self.began[n] >= *limit).map(|_| "rate_limited")
    }

    #[expect(clippy::too_many_arguments, reason = "what makes up a conversation")]
    fn publish(
        &self,
        n: usize,
        p: &Publication,
        asked_at: Side,
        question: Tuple,
        client: IpAddr,
        back: (&'static str, Fate),
        ip: &Ip,
    ) -> Option<Expected> {
        let to = CONTAINERS[p.to].addr(ip.is_v4());
        let after = Tuple { src: (client, question.src.1), dst: (to, p.container_port) };
        let itself = asked_at == Side::Container && question.src.0 == to;
        let there = if p.policy.ask && !itself { ("deferred", Fate::Pass) } else { ("published", Fate::Into(p.to)) };
        // Where rules of the host translate, they do for those outside.
        let unchanged = there.0 == "deferred" && p.policy.translates && asked_at == Side::Outside;
        if ip.protocol() == 132 && self.conversations.iter().any(|c| c.protocol == 132 && c.question != question) {
            // Two of them might need the same port.
            return None;
        }
        let opens = Conversation {
            protocol: ip.protocol(),
            asked_at,
            question,
            translated: after,
            answered_at: Side::Container,
            rule: Rule::Publication(n),
            there,
            back,
        };
        if there.0 == "deferred" {
            return None;
        }
        Some(Expected { verdict: there.0, fate: there.1, after: (!unchanged).then_some(after), opens: Some(opens) })
    }

    /// Whether an address is that container's, on any of its networks.
    fn is_own(&self, c: Name, a: IpAddr) -> bool {
        let shared = self.world.shared && [DB, TWO].contains(&c);
        self.owner(a).is_some_and(|o| o == c || shared && [DB, TWO].contains(&o))
    }

    pub(super) fn leaving(&self, c: Name, ip: &Ip, tuple: Tuple) -> Option<Expected> {
        if !self.world.knows(c) || self.gone.contains(&c) {
            return drop("endpoint_closed");
        }
        let (src, dst) = (ip.src, ip.dst);
        let isolated = self.is_isolated(c);
        let own = self.is_own(c, src);
        if isolated && !own {
            let unrouted = matches!(src, IpAddr::V6(a) if a.is_unspecified() || a.segments()[0] & 0xffc0 == 0xfe80);
            return if unrouted { None } else { drop("spoofed_address") };
        }
        if is_loopback(dst) {
            return drop("loopback");
        }
        if is_group(dst) {
            return pass("multicast");
        }
        let to = self.owner(dst);
        if !own {
            return match to {
                Some(d) if self.is_isolated(d) => drop("other_network"),
                _ if self.is_hosts(dst) => None,
                None if self.is_in_isolated(dst) => drop("unknown_endpoint"),
                _ => pass("network"),
            };
        }
        // An address of its other network: the answers take their own way.
        if src != CONTAINERS[c].addr(ip.is_v4()) {
            return None;
        }
        if let Some(known) = self.follow(Side::Container, ip, tuple) {
            return known;
        }
        if self.is_hosts(dst) {
            let Some((n, p)) = self.published(ip.protocol(), tuple.dst).filter(|_| ip.ports().is_some()) else {
                return pass("host");
            };
            if p.policy.closed {
                return drop("unpublished");
            }
            if p.policy.limit.is_some() && self.began_others {
                return None;
            }
            if ip.ttl <= 1 {
                return None;
            }
            if let Some(refused) = self.refused(n, p, src) {
                return drop(refused);
            }
            let gateway = ip_of_gateway(c, ip.is_v4());
            let client = if p.to == c { gateway } else { src };
            return self.publish(n, p, Side::Container, tuple, client, ("published_reply", Fate::Into(c)), ip);
        }
        match to {
            Some(d) if !isolated && !self.is_isolated(d) => pass("network"),
            Some(d) if CONTAINERS[d].network != CONTAINERS[c].network => drop("other_network"),
            Some(d) => self.link(c, d, ip, tuple),
            None if self.is_in_isolated(dst) => drop("unknown_endpoint"),
            None => self.outbound(c, ip, tuple),
        }
    }

    fn link(&self, c: Name, d: Name, ip: &Ip, tuple: Tuple) -> Option<Expected> {
        let opens = |o: Opens| match o {
            Opens::All => !is_answer_only(ip),
            Opens::Ping => ip.ports().is_none() && !is_answer_only(ip),
            Opens::Port(port, protocol) => {
                ip.ports().is_some_and(|(_, dport)| (dport, ip.protocol()) == (port, protocol))
            }
        };
        let mut links = self
            .world
            .links
            .iter()
            .enumerate()
            .filter(|(n, l)| !self.unlinked.contains(n) && (l.recipient, l.source) == (c, d) && opens(l.opens));
        // The one that opens this very port is asked first.
        let found = links.clone().find(|(_, l)| l.opens != Opens::All).or_else(|| links.next());
        let Some((n, _)) = found else {
            return drop("not_linked");
        };
        let opens = Conversation {
            protocol: ip.protocol(),
            asked_at: Side::Container,
            question: tuple,
            translated: tuple,
            answered_at: Side::Container,
            rule: Rule::Link(n),
            there: ("linked", Fate::Into(d)),
            back: ("linked_reply", Fate::Into(c)),
        };
        if ip.protocol() == 132 && !self.conversations.is_empty() {
            return None;
        }
        Some(Expected { verdict: "linked", fate: Fate::Into(d), after: None, opens: Some(opens) })
    }

    fn outbound(&self, c: Name, ip: &Ip, tuple: Tuple) -> Option<Expected> {
        let v4 = ip.is_v4();
        let leads_out = leads_out(ip.dst);
        if ip.dst.is_unspecified() || is_answer_only(ip) {
            return None;
        }
        let translates = matches!(ip.l4, L4::Tcp { .. } | L4::Udp { .. } | L4::Icmp { .. });
        let rule = Rule::Container(c);
        if !self.world.network(c).masquerade || !translates || !leads_out {
            // What is published at the host under this very port might be asked for the answers.
            if self.world.publications.iter().any(|p| p.port == tuple.src.1 && p.protocol == ip.protocol()) {
                return None;
            }
            let opens = Conversation {
                protocol: ip.protocol(),
                asked_at: Side::Container,
                question: tuple,
                translated: tuple,
                answered_at: Side::Gate,
                rule,
                there: ("outbound", Fate::Pass),
                back: ("outbound_reply", Fate::Pass),
            };
            return Some(Expected { verdict: "outbound", fate: Fate::Pass, after: None, opens: Some(opens) });
        }
        if ip.ttl <= 1 {
            return Some(Expected { verdict: "ttl_exceeded", fate: Fate::Back, after: None, opens: None })
                .filter(|_| !self.world.learning);
        }
        if ip.bytes().len() > 1500 {
            return None;
        }
        let after = Tuple { src: (ip_of_host(v4), tuple.src.1), dst: tuple.dst };
        let opens = Conversation {
            protocol: ip.protocol(),
            asked_at: Side::Container,
            question: tuple,
            translated: after,
            answered_at: Side::Outside,
            rule,
            there: ("masqueraded", Fate::Out),
            back: ("masqueraded_reply", Fate::Into(c)),
        };
        Some(Expected { verdict: "masqueraded", fate: Fate::Out, after: Some(after), opens: Some(opens) })
    }

    pub(super) fn entering(&self, c: Name, from: Option<usize>, ip: &Ip, tuple: Tuple) -> Option<Expected> {
        if !self.world.knows(c) || self.gone.contains(&c) {
            return drop("endpoint_closed");
        }
        let Some(from) = from else {
            return if is_loopback(ip.src) { None } else { pass("from_host") };
        };
        let isolated = self.is_isolated(c);
        // What is given to the gate here came over the bridge, as it is addressed: from outside, or by a container that is known.
        let told_of = |n: Name| self.world.knows(n) && !self.gone.contains(&n);
        let is_strangers = from > 1 && !from.checked_sub(4).is_some_and(told_of);
        if isolated && is_strangers {
            return drop("endpoint_closed");
        }
        if let Some(known) = self.follow(Side::Gate, ip, tuple) {
            return known;
        }
        match self.owner(ip.src) {
            Some(s) if !isolated && !self.is_isolated(s) => pass("network"),
            Some(s) if CONTAINERS[s].network != CONTAINERS[c].network => drop("other_network"),
            Some(_) => drop("not_linked"),
            None if !isolated => pass("network"),
            None if from == 1 => pass("unserved"),
            None => drop("not_published"),
        }
    }
}

fn is_loopback(a: IpAddr) -> bool {
    a.is_loopback()
}

fn is_group(a: IpAddr) -> bool {
    match a {
        IpAddr::V4(a) => a.is_multicast() || a.is_broadcast(),
        IpAddr::V6(a) => a.is_multicast(),
    }
}

/// Whether the host's routes lead out to an address: to next door, or by IPv4 to anywhere outside.
fn leads_out(a: IpAddr) -> bool {
    match a {
        IpAddr::V4(v4) => !v4.is_unspecified() && !(0..2).any(|n| is_in_network(a, n)),
        IpAddr::V6(a) => a.segments()[..4] == [0x2001, 0xdb8, 0, 0],
    }
}

fn ip_of_host(v4: bool) -> IpAddr {
    ip(HOST[usize::from(!v4)])
}

fn ip_of_gateway(c: Name, v4: bool) -> IpAddr {
    ip(GATEWAYS[CONTAINERS[c].network][usize::from(!v4)])
}

fn is_in_network(a: IpAddr, n: usize) -> bool {
    match (a, ip_of_network(n, a.is_ipv4())) {
        (IpAddr::V4(a), IpAddr::V4(prefix)) => a.octets()[..2] == prefix.octets()[..2],
        (IpAddr::V6(a), IpAddr::V6(prefix)) => a.segments()[..4] == prefix.segments()[..4],
        _ => false,
    }
}

fn ip_of_network(n: usize, v4: bool) -> IpAddr {
    // Any address of it: both have a container.
    CONTAINERS[2 * n].addr(v4)
}

fn is_in_local_prefix(a: IpAddr) -> bool {
    match a {
        IpAddr::V4(a) => a.octets()[..2] == [10, 99],
        IpAddr::V6(a) => a.segments()[..4] == [0xfd99, 0, 0, 0],
    }
}

#[expect(clippy::unnecessary_wraps, reason = "what the hooks return")]
fn drop(verdict: &'static str) -> Option<Expected> {
    Some(Expected { verdict, fate: Fate::Drop, after: None, opens: None })
}

#[expect(clippy::unnecessary_wraps, reason = "what the hooks return")]
fn pass(verdict: &'static str) -> Option<Expected> {
    Some(Expected { verdict, fate: Fate::Pass, after: None, opens: None })
}
