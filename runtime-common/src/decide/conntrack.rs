//! Flows: finding, following, opening.

use core::ptr::NonNull;

use super::Tables;
use super::pair::pair_of;
use super::share::is_closed;
use super::tcp::{begin, track_segment};
use crate::maps::{
    ChecksumDeltas, Endpoint, FLOW_ANSWERED, FLOW_COUNTED, FLOW_FIN, FLOW_REPLY, FLOW_RST, FLOW_SYN, Flow, FlowAction,
    FlowKey, Tuple, Zone,
};
use crate::packet::{Headers, ICMP, ICMPV6, Mac, Message, TCP};

/// What the flow tables say of a packet.
pub(super) enum Found {
    /// It belongs to this flow.
    Live(NonNull<Flow>),
    /// It belonged to a flow whose publication, link or container is gone.
    Ended,
    /// Nothing.
    None,
}

/// Finds the flow of a packet and counts the packet in it.
///
/// What the client sends after an answer moves a flow from `PENDING` to `FLOWS`, where new conversations cannot push it out. Of
/// TCP, that is the end of its handshake: whoever has sent a SYN is somebody only when he has acknowledged the answer to it.
#[inline(always)]
pub(super) fn track<T: Tables>(t: &T, h: &Headers) -> Found {
    let key = &h.key;
    let mut ended = false;
    if let Some(found) = t.answered(key) {
        // SAFETY: the tables' entries stay valid while the program runs; counters may race and only that.
        let flow = unsafe { &mut *found.as_ptr() };
        if stands(t, flow) {
            if is_reverse_syn(flow, h) || matches!(h.message, Message::TcpOpen) && has_lost_pair(t, flow, key) {
                return Found::None;
            }
            account(t, flow, h);
            if is_closing(flow) {
                t.release_closed(key);
            }
            return Found::Live(found);
        }
        ended = true;
        if h.message.opens() {
            t.forget(key);
        }
    }
    let Some(found) = t.pending(key) else {
        return if ended { Found::Ended } else { Found::None };
    };
    // SAFETY: as above.
    let flow = unsafe { &mut *found.as_ptr() };
    if !stands(t, flow) {
        return Found::Ended;
    }
    if is_reverse_syn(flow, h) && !crosses_syn(t, flow, key) || h.message.opens() && is_half_open(t, flow, key) {
        return Found::None;
    }
    account(t, flow, h);
    // SAFETY: as above. `hold` has a reference of its own meanwhile.
    let entry = || unsafe { &mut *found.as_ptr() };
    // Each called from here, not one from another: the kernel adds the stack frames up.
    if is_answered(t, key, flow, h)
        && (flow.state & FLOW_COUNTED != 0 || t.hold(key))
        && (establish(t, key, entry()) || t.make_room() && establish(t, key, entry()))
    {
        return t.answered(key).map_or(Found::Live(found), Found::Live);
    }
    Found::Live(found)
}

/// Whether what allows a flow is still there: its publication, link or container, and whoever began it, where that is a container.
#[inline(always)]
pub(super) fn stands<T: Tables>(t: &T, flow: &Flow) -> bool {
    t.generation(flow.rule) == flow.generation
        && (flow.client_generation == 0 || t.generation(flow.client_rule) == flow.client_generation)
}

/// The answered flow of a packet from a container, where that is the very one that the flow says. The packet must not begin
/// a conversation, nor be a fragment, and is yet to be counted in it.
#[inline(always)]
pub(super) fn established<T: Tables>(t: &T, h: &Headers, ifindex: u32, mac: Mac) -> Option<NonNull<Flow>> {
    let found = t.answered(&h.key)?;
    // SAFETY: as in `track`.
    let flow = unsafe { found.as_ref() };
    let from_there = flow.from_ifindex == ifindex && Mac::read(&flow.from_mac) == mac;
    if !from_there || !stands(t, flow) {
        return None;
    }
    Some(found)
}

/// Whether an unanswered conversation has been silent for a while and the way of its answers has made room for others
/// meanwhile: it has to be opened anew.
#[inline(always)]
fn is_half_open<T: Tables>(t: &T, flow: &Flow, key: &FlowKey) -> bool {
    // What the gate expects is opened with the forward entry, whose answers have another one.
    let is_expected = key.zone == Zone::Gate as u8 && flow.action == FlowAction::Defer as u8;
    // Somebody who sends on and on without an answer pays nothing for it.
    flow.state & FLOW_REPLY == 0
        && !is_expected
        && t.now().wrapping_sub(flow.last_seen) > RETRY
        && has_lost_pair(t, flow, key)
}

/// After which time conntrack as well takes a UDP flow with answers for more than a question.
const STREAM: u64 = 2_000_000_000;

/// How long conntrack waits for an answer to a SYN.
const SYN_SENT: u64 = 120_000_000_000;

/// The first retransmissions of everything that matters come after a second or more.
const RETRY: u64 = 500_000_000;

// Rare: with a stack frame of its own.
#[inline(never)]
fn has_lost_pair<T: Tables>(t: &T, flow: &Flow, key: &FlowKey) -> bool {
    let Some(pair) = pair_of(t, flow, key.protocol) else {
        return true;
    };
    // SAFETY: entries stay valid while the program runs.
    let pair = unsafe { pair.as_ref() };
    // What its answers made meanwhile, as if they were the container's own words, is no pair of it.
    pair.pair(key.protocol) != *key || key.protocol == TCP && is_closed(flow, pair)
}

/// Whether a packet would open a connection from where this one's answers come: it is no part of it.
#[inline(always)]
fn is_reverse_syn(flow: &Flow, h: &Headers) -> bool {
    matches!(h.message, Message::TcpOpen) && flow.state & FLOW_REPLY != 0
}

/// Whether a SYN from where the answers of a container's own conversation come meets one that has not been answered: a simultaneous
/// open (RFC 9293 §3.5), by which two peers behind NAT reach each other. Whoever sends it is whom the container has asked, by address
/// and by port; conntrack lets it in as well.
// Rare: with a stack frame of its own.
#[inline(never)]
fn crosses_syn<T: Tables>(t: &T, flow: &Flow, key: &FlowKey) -> bool {
    if flow.action != FlowAction::MasqueradeReply as u8 && flow.action != FlowAction::Stack as u8 {
        return false;
    }
    let Some(pair) = pair_of(t, flow, key.protocol) else {
        return false;
    };
    // SAFETY: entries stay valid while the program runs.
    let pair = unsafe { pair.as_ref() };
    if t.now().wrapping_sub(pair.last_seen) > SYN_SENT {
        return false;
    }
    // Neither has said more than that.
    let asked = pair.state & (FLOW_SYN | FLOW_FIN | FLOW_RST) == FLOW_SYN && pair.window == 0;
    asked && flow.state & FLOW_RST == 0 && flow.window == 0 && pair.pair(key.protocol) == *key
}

/// Whether a packet shows that both sides of an unanswered conversation speak to each other: the client goes on after an answer.
/// One question with its answer is no conversation yet, for anybody can ask in anybody's name.
#[inline(always)]
fn is_answered<T: Tables>(t: &T, key: &FlowKey, flow: &Flow, h: &Headers) -> bool {
    if key.protocol != TCP {
        // Echoes are never more than questions and answers.
        let is_echo = matches!(key.protocol, ICMP | ICMPV6);
        if flow.state & FLOW_REPLY == 0 {
            return flow.state & FLOW_ANSWERED != 0 && !is_echo;
        }
        return is_streamed(t, key, flow) && !is_echo;
    }
    // A port that answers every SYN, or refuses it, has said nothing about its sender yet.
    if h.rst() || h.syn() {
        return false;
    }
    flow.state & FLOW_REPLY != 0 || acknowledges(t, flow, h)
}

/// Notes an answer where the client's next packet finds it. Whether answers still come so long after the question that more is
/// going on than one exchange: a stream that its client is silent about.
// Until then alone: with a stack frame of its own.
#[inline(never)]
fn is_streamed<T: Tables>(t: &T, key: &FlowKey, reply: &Flow) -> bool {
    let Some(forward) = pair_of(t, reply, key.protocol) else {
        return false;
    };
    // SAFETY: entries stay valid while the program runs; bits may race and only that.
    let forward = unsafe { &mut *forward.as_ptr() };
    forward.state |= FLOW_ANSWERED;
    t.now().wrapping_sub(forward.last_seen) > STREAM
}

/// Whether a segment acknowledges the SYN of the other side.
// Once a conversation: with a stack frame of its own.
#[inline(never)]
fn acknowledges<T: Tables>(t: &T, flow: &Flow, h: &Headers) -> bool {
    let Some(pair) = pair_of(t, flow, h.key.protocol) else {
        return false;
    };
    // SAFETY: entries stay valid while the program runs.
    let pair = unsafe { pair.as_ref() };
    pair.state & FLOW_SYN != 0 && h.ack == pair.end
}

/// Moves both directions to `FLOWS`. False where there is no room, or the forward direction is gone.
// Once a conversation: with a stack frame of its own.
#[inline(never)]
fn establish<T: Tables>(t: &T, key: &FlowKey, flow: &mut Flow) -> bool {
    let Some(scratch) = t.scratch() else {
        return false;
    };
    // SAFETY: the scratch room belongs to this run of the program alone.
    let pair_key = unsafe { &mut (*scratch.as_ptr()).reply_key };
    *pair_key = flow.pair(key.protocol);
    // The packet's own entry goes last: while it is pending, the next one tries again.
    match t.pending(pair_key) {
        Some(pair) => {
            // SAFETY: as in `track`.
            let pair = unsafe { &mut *pair.as_ptr() };
            // Both are counted, but that was not noted through these references.
            flow.state |= FLOW_COUNTED;
            pair.state |= FLOW_ANSWERED | FLOW_COUNTED;
            if !t.promote(pair_key, pair) {
                return false;
            }
        }
        None if t.answered(pair_key).is_none() => return false,
        None => {}
    }
    flow.state |= FLOW_ANSWERED;
    t.promote(key, flow)
}

/// Whether a counted connection may have been closed by the packet that was just counted in it.
#[inline(always)]
pub(super) fn is_closing(flow: &Flow) -> bool {
    flow.state & (FLOW_FIN | FLOW_RST) != 0 && flow.state & FLOW_COUNTED != 0
}

/// Counts a packet in its flow.
#[inline(always)]
pub(super) fn account<T: Tables>(t: &T, flow: &mut Flow, h: &Headers) {
    flow.last_seen = t.now();
    flow.packets += 1;
    flow.bytes += h.bytes as u64;
    // A fragment other than the first has no header to follow.
    if matches!(h.message, Message::TcpOpen | Message::TcpSegment) {
        track_segment(t, flow, h);
    }
}

/// A flow that is about to be opened, both directions. Kept in the tables' scratch room: it is too large for the
/// kernel's stack.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct NewFlow {
    /// The forward direction, as `super::flow` is to store it.
    pub forward: Flow,
    /// The direction of the answers.
    pub reply: Flow,
    /// Key of the answers.
    pub reply_key: FlowKey,
}

/// Where the packets of one direction go.
#[derive(Clone, Copy)]
pub(super) struct Target {
    /// What is done.
    pub action: FlowAction,
    /// Host-side interface of the container; 0 for the outside.
    pub ifindex: u32,
    /// That container's MAC address.
    pub mac: Mac,
}

/// What allows a flow, see [`Flow`].
#[derive(Clone, Copy)]
pub(super) struct Rules {
    generation: u64,
    client_generation: u64,
    rule: u32,
    client_rule: u32,
}

impl Rules {
    /// One alone: whoever began the flow is outside, or the rule ends with it.
    #[inline(always)]
    pub const fn one(generation: u64, rule: u32) -> Self {
        Rules { generation, client_generation: 0, rule, client_rule: 0 }
    }

    /// And the container that began it.
    #[inline(always)]
    pub const fn and(mut self, client: &Endpoint) -> Self {
        self.client_generation = client.generation;
        self.client_rule = client.rule;
        self
    }
}

/// Begins a [`NewFlow`] under rules: `to` is the tuple after translation.
#[inline(always)]
pub(super) fn prepare<T: Tables>(
    t: &T,
    rules: Rules,
    to: &Tuple,
    forward: Target,
    reply: Target,
) -> Option<NonNull<NewFlow>> {
    let scratch = t.scratch()?;
    // SAFETY: the scratch room belongs to this run of the program alone.
    let o = unsafe { &mut *scratch.as_ptr() };
    o.forward.to = *to;
    fill(o, rules, forward, reply);
    Some(scratch)
}

/// What a [`NewFlow`] says beside its tuples.
#[inline(always)]
pub(super) fn fill(o: &mut NewFlow, rules: Rules, forward: Target, reply: Target) {
    for (flow, target, from) in [(&mut o.forward, forward, reply), (&mut o.reply, reply, forward)] {
        flow.generation = rules.generation;
        flow.rule = rules.rule;
        flow.client_generation = rules.client_generation;
        flow.client_rule = rules.client_rule;
        flow.ifindex = target.ifindex;
        target.mac.write(&mut flow.mac);
        flow.action = target.action as u8;
        // Where the answers go to is where it comes from.
        flow.from_ifindex = from.ifindex;
        from.mac.write(&mut flow.from_mac);
    }
}

/// Whether the host's firewall has not let a conversation through yet.
#[inline(always)]
pub(super) const fn is_asked(action: u8) -> bool {
    action == FlowAction::Defer as u8 || action == FlowAction::DeferUntranslated as u8
}

/// Has the gate expect a conversation that was just opened and goes through the host's stack. False where there is no room.
// Once a conversation: with a stack frame of its own.
#[inline(never)]
pub(super) fn expect_at_gate<T: Tables>(t: &T, h: &Headers, new_flow: NonNull<NewFlow>) -> bool {
    // SAFETY: as in `prepare`.
    let o = unsafe { &mut *new_flow.as_ptr() };
    // Like the answers, it leads to the forward entry; but it is not one of them.
    o.reply_key = FlowKey::new(o.forward.to, h.key.protocol, Zone::Gate);
    o.reply.action = FlowAction::Defer as u8;
    o.reply.state = 0;
    t.insert_pending(&o.reply_key, &o.reply)
}

/// Notes that the host's firewall has let a conversation through, of which `flow` is what the gate expected: from now on
/// it passes the firewall by.
// Once a conversation: with a stack frame of its own.
#[inline(never)]
pub(super) fn netfilter_accepted<T: Tables>(t: &T, h: &Headers, flow: &Flow) {
    if let Some(forward) = pair_of(t, flow, h.key.protocol) {
        // SAFETY: entries stay valid while the program runs.
        let forward = unsafe { &mut *forward.as_ptr() };
        if is_asked(forward.action) {
            forward.action = FlowAction::Publish as u8;
        }
    }
}

/// Puts both directions into `PENDING`. Returns the forward one; `None` where there is no room.
// Once a conversation: with a stack frame of its own.
#[inline(never)]
pub(super) fn open<T: Tables>(
    t: &T,
    h: &Headers,
    new_flow: NonNull<NewFlow>,
    reply_zone: Zone,
) -> Option<NonNull<Flow>> {
    let key = &h.key;
    // SAFETY: as in `prepare`.
    let o = unsafe { &mut *new_flow.as_ptr() };
    let now = t.now();
    o.forward.last_seen = now;
    o.forward.packets = 1;
    o.forward.bytes = h.bytes as u64;
    o.forward.state = 0;
    o.forward.pair_zone = reply_zone as u8;
    o.reply.last_seen = now;
    o.reply.packets = 0;
    o.reply.to = key.tuple.reversed();
    // Apart from `packets`: of two zeros in a row the compiler for BPF makes a loop over bytes.
    o.reply.bytes = 0;
    o.reply.state = FLOW_REPLY;
    o.reply.pair_zone = key.zone;
    begin(&mut o.forward, &mut o.reply, h);
    o.reply_key = o.forward.pair(key.protocol);
    checksum_deltas(&key.tuple, o);
    o.forward.way_tick = 0;
    o.reply.way_tick = 0;
    // An answered conversation of the same ports is over, and would be found first.
    forget_answered(t, key);
    forget_answered(t, &o.reply_key);
    // The answers first: a forward entry is never without its pair.
    if t.insert_pending(&o.reply_key, &o.reply) && t.insert_pending(key, &o.forward) {
        return Some(NonNull::from(&mut o.forward));
    }
    None
}

/// What the translation does to the checksums of either direction.
// Once a conversation: with a stack frame of its own.
#[inline(never)]
fn checksum_deltas(tuple: &Tuple, o: &mut NewFlow) {
    o.forward.sums = ChecksumDeltas::between(tuple, &o.forward.to);
    o.reply.sums = ChecksumDeltas::between(&o.reply_key.tuple, &o.reply.to);
}

#[inline(always)]
fn forget_answered<T: Tables>(t: &T, key: &FlowKey) {
    // Hardly ever: removing nothing takes twice as long as finding nothing.
    if t.answered(key).is_some() {
        t.forget(key);
    }
}
