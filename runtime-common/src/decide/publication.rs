//! Opening flows to published ports: the same for clients outside and for containers.

use super::flow::{Target, expect_at_gate, is_asked, open, prepare};
use super::{Decision, Tables};
use crate::maps::{
    Endpoint, FILTER_ALLOW, FILTER_DENY, FilterKey, FlowAction, FlowKey, PUBLICATION_ASK, PUBLICATION_CLOSED,
    PUBLICATION_FILTERED, PUBLICATION_HOST_TRANSLATES, PUBLICATION_LIMITED, PUBLICATION_LISTED_ONLY, Publication,
    PublicationKey, Tuple, Zone,
};
use crate::packet::{Headers, Message, SCTP, TCP, UDP};
use crate::{Addr, Verdict};

const ASK_UNCHANGED: u16 = PUBLICATION_ASK | PUBLICATION_HOST_TRANSLATES;

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
    key.addr = if arriving.tuple.dst.is_v4() { Addr::ANY_V4 } else { Addr::ANY_V6 };
    t.publication(&key)
}

/// Why a source may not begin a conversation, if it may not.
// For filtered publications alone: with a stack frame of its own.
#[inline(never)]
fn refused_by_filter<T: Tables>(t: &T, h: &Headers, p: &Publication) -> Option<Verdict> {
    if p.flags & PUBLICATION_FILTERED != 0 {
        let found = t.filter(&FilterKey { generation: p.generation, addr: h.key.tuple.src });
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

/// Decides about a packet without a flow to one of the host's addresses. `from` is the container that sent it, if any.
#[inline(always)]
pub(super) fn to_host<T: Tables>(t: &T, h: &Headers, from: Option<(&Endpoint, u32)>) -> Decision {
    if !matches!(h.key.protocol, TCP | UDP | SCTP) {
        return Decision::Pass(Verdict::Host);
    }
    if !t.may_publish(h.key.tuple.dport, h.key.protocol) {
        return Decision::Pass(Verdict::Host);
    }
    let Some(p) = lookup(t, &h.key) else {
        return Decision::Pass(Verdict::Host);
    };
    if p.flags & PUBLICATION_CLOSED != 0 {
        return Decision::Drop(Verdict::Unpublished);
    }
    if !h.message.opens() {
        // Older than the datapath: rules or a proxy of the host carry it, or nobody does and the host says so.
        return if matches!(h.message, Message::LaterFragment) {
            Decision::Drop(Verdict::Fragment)
        } else {
            Decision::Pass(Verdict::Carried)
        };
    }
    if h.ttl <= 1 {
        return Decision::Drop(Verdict::TtlExceeded);
    }
    if p.flags & (PUBLICATION_FILTERED | PUBLICATION_LIMITED) != 0
        && let Some(refused) = refused_by_filter(t, h, p)
    {
        return Decision::Drop(refused);
    }
    let mut src = h.key.tuple.src;
    let mut reply = Target { action: FlowAction::ReplyOut, ifindex: 0, mac: [0; 6] };
    let mut action = match p.flags & (PUBLICATION_ASK | PUBLICATION_HOST_TRANSLATES) {
        PUBLICATION_ASK => FlowAction::Ask,
        // The host's rules may be for those outside alone.
        ASK_UNCHANGED if from.is_some() => FlowAction::Ask,
        ASK_UNCHANGED => FlowAction::AskUnchanged,
        _ => FlowAction::Publish,
    };
    if let Some((ep, ifindex)) = from {
        reply = Target { action: FlowAction::ReplyLocal, ifindex, mac: ep.mac };
        // A container that reaches itself: its own address as source would be refused by its own stack.
        if p.ifindex == ifindex {
            src = if h.v4 { ep.gateway4 } else { ep.gateway6 };
            // And the host's stack would refuse that: one's own container is no firewall's matter.
            action = FlowAction::Publish;
        }
    }
    let to = Tuple { src, dst: p.addr, sport: h.key.tuple.sport, dport: p.port };
    let forward = Target { action, ifindex: p.ifindex, mac: p.mac };
    let Some(opening) = prepare(t, (p.generation, p.rule), &to, forward, reply) else {
        return Decision::Drop(Verdict::FlowTableFull);
    };
    // A client's port may lead to several host ports of one container: it has to see them apart.
    if !t.settle::<false>(&h.key, opening) {
        return Decision::Drop(Verdict::PortsExhausted);
    }
    let Some(flow) = open(t, h, opening, Zone::Endpoint) else {
        return Decision::Drop(Verdict::FlowTableFull);
    };
    if !is_asked(action as u8) {
        return Decision::Forward(Verdict::Published, flow);
    }
    if !expect_at_gate(t, h, opening) {
        return Decision::Drop(Verdict::FlowTableFull);
    }
    if matches!(action, FlowAction::AskUnchanged) {
        Decision::Pass(Verdict::Asked)
    } else {
        Decision::Forward(Verdict::Asked, flow)
    }
}
