//! Published ports: who may begin a flow with one. The same for clients outside and for containers.

use super::conntrack::{Rules, Target, prepare};
use super::{Next, Step, Tables};
use crate::Verdict;
use crate::maps::{
    Endpoint, FILTER_ALLOW, FILTER_DENY, FilterKey, FlowAction, FlowKey, PUBLICATION_CLOSED, PUBLICATION_DEFER,
    PUBLICATION_FILTERED, PUBLICATION_HOST_TRANSLATES, PUBLICATION_LIMITED, PUBLICATION_LISTED_ONLY, Publication,
    PublicationKey, Tuple,
};
use crate::packet::{Headers, Mac, Message, SCTP, TCP, UDP};

const DEFER_UNTRANSLATED: u16 = PUBLICATION_DEFER | PUBLICATION_HOST_TRANSLATES;

/// The publication of a host's address and port: exact address first, then the family's wildcard.
// For new conversations alone: with a stack frame of its own.
#[inline(never)]
pub(super) fn lookup<'t, T: Tables>(t: &'t T, arriving: &FlowKey) -> Option<&'t Publication> {
    let mut key = PublicationKey {
        addr: arriving.tuple.dst,
        port: arriving.tuple.dport,
        protocol: arriving.protocol,
        reserved: 0,
    };
    if let Some(p) = t.publication(&key) {
        return Some(p);
    }
    key.addr = arriving.tuple.dst.wildcard();
    t.publication(&key)
}

/// An answer to a SYN is to somebody who has sent one: a process of the host, or a machine behind it whose connections go out by
/// this port. What follows of that connection is no packet of a lost one with the published port.
// Once a connection: with a stack frame of its own.
#[inline(never)]
fn not_for_the_port<T: Tables>(t: &T, h: &Headers) -> Step {
    /// Generation and slot of no rule: beyond the end of `RULES`, where the generation is always 0.
    const NEVER_ENDS: Rules = Rules::one(0, u32::MAX);
    let stack = Target { action: FlowAction::Stack, ifindex: 0, mac: Mac::NONE };
    match prepare(t, NEVER_ENDS, &h.key.tuple, stack, stack) {
        Some(_) => Step::new(Next::Published, Verdict::Preexisting),
        None => Step::finish(Verdict::Preexisting),
    }
}

/// Why a source may not begin a conversation, if it may not.
#[inline(always)]
pub(super) fn refused<T: Tables>(t: &T, h: &Headers, p: &Publication) -> Option<Verdict> {
    if p.flags & (PUBLICATION_FILTERED | PUBLICATION_LIMITED) == 0 { None } else { refused_by_filter(t, h, p) }
}

// For filtered publications alone: with a stack frame of its own.
#[inline(never)]
fn refused_by_filter<T: Tables>(t: &T, h: &Headers, p: &Publication) -> Option<Verdict> {
    if p.flags & PUBLICATION_FILTERED != 0 {
        let found = t.filter(&FilterKey { list: p.list, addr: h.key.tuple.src });
        if found == FILTER_DENY || (found != FILTER_ALLOW && p.flags & PUBLICATION_LISTED_ONLY != 0) {
            return Some(Verdict::Filtered);
        }
    }
    if p.flags & PUBLICATION_LIMITED != 0
        && let Some(limit) = t.limit(p.generation)
    {
        // SAFETY: entries stay valid while the program runs; racing CPUs lose counts, and only that.
        if !unsafe { &mut *limit.as_ptr() }.take(t.now()) {
            return Some(Verdict::RateLimited);
        }
    }
    None
}

/// Admits a packet without a flow to one of the host's addresses, or not. `from` is the container that sent it, if any.
#[inline(always)]
pub(super) fn to_host<T: Tables>(t: &T, h: &Headers, from: Option<(&Endpoint, u32)>) -> Step {
    if !matches!(h.key.protocol, TCP | UDP | SCTP) {
        return Step::finish(Verdict::Host);
    }
    if !t.maybe_published(h.key.tuple.dport, h.key.protocol) {
        return Step::finish(Verdict::Host);
    }
    let Some(p) = lookup(t, &h.key) else {
        return Step::finish(Verdict::Host);
    };
    if p.flags & PUBLICATION_CLOSED != 0 {
        return Step::finish(Verdict::Unpublished);
    }
    // Of who is behind a container that is a router, answers would not find the way: the engine's rules serve them.
    let behind = from.is_some_and(|(ep, _)| h.key.tuple.src != *ep.own(h.v4));
    if behind && p.flags & (PUBLICATION_FILTERED | PUBLICATION_LIMITED) == 0 {
        return Step::finish(Verdict::Network);
    }
    let segment = matches!(h.message, Message::TcpSegment);
    if !h.message.opens() && !segment {
        return Step::finish(Verdict::Fragment);
    }
    if segment && h.rst() {
        return Step::finish(Verdict::Preexisting);
    }
    if segment && h.syn() {
        return if from.is_none() { not_for_the_port(t, h) } else { Step::finish(Verdict::Preexisting) };
    }
    if h.ttl <= 1 {
        return Step::finish(Verdict::TtlExceeded);
    }
    // A segment may belong to a connection that began before there was a filter: whether it begins one is not known yet.
    if !segment && let Some(refused) = refused(t, h, p) {
        return Step::finish(refused);
    }
    let mut src = h.key.tuple.src;
    let mut reply = Target { action: FlowAction::ReplyOut, ifindex: 0, mac: Mac::NONE };
    let mut action = match p.flags & (PUBLICATION_DEFER | PUBLICATION_HOST_TRANSLATES) {
        PUBLICATION_DEFER => FlowAction::Defer,
        // The host's rules may be for those outside alone.
        DEFER_UNTRANSLATED if from.is_some() => FlowAction::Defer,
        DEFER_UNTRANSLATED => FlowAction::DeferUntranslated,
        _ => FlowAction::Publish,
    };
    let mut rules = Rules::one(p.generation, p.rule);
    if let Some((ep, ifindex)) = from {
        // Whoever has its address next is somebody else.
        rules = rules.and(ep);
        reply = Target { action: FlowAction::ReplyLocal, ifindex, mac: Mac::read(&ep.mac) };
        // A container that reaches itself: its own address as source would be refused by its own stack.
        if p.ifindex == ifindex {
            src = if h.v4 { ep.gateway4 } else { ep.gateway6 };
            // And the host's stack would refuse that: one's own container is no firewall's matter.
            action = FlowAction::Publish;
        }
    }
    let to = Tuple { src, dst: p.addr, sport: h.key.tuple.sport, dport: p.port };
    let forward = Target { action, ifindex: p.ifindex, mac: Mac::read(&p.mac) };
    match prepare(t, rules, &to, forward, reply) {
        Some(_) if segment => Step::new(Next::Resume, Verdict::Published),
        Some(_) => Step::new(Next::Published, Verdict::Published),
        None => Step::finish(Verdict::FlowTableFull),
    }
}
