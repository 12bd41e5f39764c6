//! The host build of the decisions, put together as the kernel's hooks put them together (`runtime-ebpf/src`: one function here
//! for each of its programs), with tables in memory and the world's routes.

use std::cell::UnsafeCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

use memory_tables::Memory;
use runtime_common::decide::{
    Budget, Decision, Next, Step, admit_from_container, admit_from_outside, arp, begin_masqueraded, begin_published,
    begin_untranslated, endpoint_known, gate, is_strangers, prepare_masqueraded, resume_published,
    track_from_container, uplink_known,
};
use runtime_common::icmp_error::{ErrorHeaders, IcmpError, error_headers_len, quoted_len, should_reply, sum_words};
use runtime_common::maps::{
    ChecksumDeltas, Endpoint, Flow, FlowAction, FlowKey, FragmentKey, FragmentPorts, Tuple, Zone,
};
use runtime_common::packet::{
    ETH_ARP, ETH_IPV4, ETH_IPV6, ETH_LEN, ETH_SERVICE_VLAN, ETH_VLAN, Headers, Mac, Packet, ethernet, headers,
    is_multicast,
};
use runtime_common::rewrite::{PacketMut, set_macs, translate, translate_segment};
use runtime_common::{Addr, Verdict};

use crate::entries::{Entries, Removed, addresses, interface};
use crate::world::{
    At, Change, Fate, HOST, INTERFACES, MAC_CLIENT, MAC_UPLINK, Outcome, World, hosts, ip, nth_address,
};

/// The MTU of every interface.
pub const MTU: usize = 1500;

/// A frame in memory of its own.
struct Frame(Vec<u8>);

impl Packet for Frame {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn at(&self, offset: usize, len: usize) -> Option<*const u8> {
        self.0.get(offset..offset + len).map(<[u8]>::as_ptr)
    }
}

impl PacketMut for Frame {
    fn at_mut(&mut self, offset: usize, len: usize) -> Option<*mut u8> {
        self.0.get_mut(offset..offset + len).map(<[u8]>::as_mut_ptr)
    }
}

/// Interface indexes where there is no kernel.
pub const IFINDEXES: [u32; 9] = [2, 3, 4, 5, 6, 7, 8, 9, 10];

/// The host build, with a world.
pub struct Host {
    world: World,
    ifindexes: [u32; 9],
    tables: Memory,
    budget: Budget,
    /// How many changes there were.
    changes: u64,
    /// As in the kernel's scratch room: what a packet does not have is left of the one before it.
    headers: Headers,
}

/// What packets leave in the tables: of `FLOWS`, `PENDING` and `FRAGMENTS`.
#[allow(missing_docs, reason = "named as the maps are")]
#[derive(Debug, Default)]
pub struct Remembered {
    pub flows: HashMap<FlowKey, Flow>,
    pub pending: HashMap<FlowKey, Flow>,
    pub fragments: HashMap<FragmentKey, FragmentPorts>,
}

/// What the host's routes say of a destination.
enum Route {
    /// The host's own, or nowhere.
    None,
    /// Out, to a neighbour whose MAC address is known.
    Known(Mac, Mac),
    /// Out or to a bridge; the kernel's neighbour code finds the MAC address.
    Unknown,
}

fn route(dst: &Addr) -> Route {
    let dst = dst.to_ip();
    if hosts().contains(&dst) {
        return Route::None;
    }
    match dst {
        _ if dst == nth_address(0, dst.is_ipv4()) => Route::Known(Mac::new(MAC_CLIENT), Mac::new(MAC_UPLINK)),
        // No unicast address; the lookup takes 0.0.0.0 for one, and so no packet gets farther than to the next router.
        IpAddr::V4(a) if a.is_loopback() || a.is_multicast() || a.is_broadcast() => Route::None,
        // To everybody on the network of `up0`, `br0` or `br1`.
        IpAddr::V4(a) if matches!(a.octets(), [192, 0, 2, 255] | [172, 17 | 18, 255, 255]) => Route::None,
        IpAddr::V4(_) => Route::Unknown,
        IpAddr::V6(a) => {
            let s = a.segments();
            match s[..4] {
                [0x2001, 0xdb8, 0, 0] | [0xfd00, 0x17 | 0x18, 0, 0] if s[4..] != [0; 4] => Route::Unknown,
                _ => Route::None,
            }
        }
    }
}

/// The host's address by which its routes lead out to another one, through `up0`.
fn source(dst: &Addr) -> Option<Addr> {
    let inside = |n: usize| match dst.to_ip() {
        IpAddr::V4(a) => a.octets()[..2] == [172, 17 + n as u8],
        IpAddr::V6(a) => a.segments()[..4] == [0xfd00, 0x17 + n as u16, 0, 0],
    };
    match route(dst) {
        Route::None => None,
        _ if inside(0) || inside(1) => None,
        _ => Some(Addr::from(ip(HOST[usize::from(!dst.is_v4())]))),
    }
}

/// What came of delivery.
type Sent = Result<Fate, (Verdict, u16)>;

impl Host {
    /// With interfaces of a kernel.
    pub fn with(world: &World, ifindexes: [u32; 9]) -> Self {
        let entries = Entries::of(world, &ifindexes);
        let mut tables = Memory::default();
        tables.route = Some(source);
        // A host that has been up for a while.
        tables.now.set(1 << 40);
        tables.rules.extend(entries.rules.iter().copied());
        tables.addresses.extend(entries.addresses.iter().copied());
        for (addr, bits, kind) in &entries.prefixes {
            tables.prefixes.insert(addr.0[..usize::from(bits / 8)].to_vec(), *kind);
        }
        tables.publications.extend(entries.publications.iter().copied());
        tables.filters.extend(entries.filters.iter().copied());
        tables.limits.extend(entries.limits.iter().map(|(g, l)| (*g, Rc::new(UnsafeCell::new(*l)))));
        tables.links.extend(entries.links.iter().copied());
        tables.endpoints.extend(entries.endpoints.iter().copied());
        tables.uplinks.push(ifindexes[0]);
        tables.unserved.push(ifindexes[1]);
        tables.udp_sockets = world.sockets.clone();
        Host { world: world.clone(), ifindexes, tables, budget: Budget::default(), changes: 0, headers: room() }
    }

    /// With interfaces of no kernel.
    pub fn new(world: &World) -> Self {
        Host::with(world, IFINDEXES)
    }

    /// Carries out a change.
    pub fn change(&mut self, change: &Change) {
        self.changes += 1;
        let removed = Removed::by(change, self.changes, &self.world, &self.ifindexes);
        for rule in &removed.rules {
            self.tables.rules.insert(*rule, 0);
        }
        for key in &removed.publications {
            self.tables.publications.remove(key);
        }
        for key in &removed.links {
            self.tables.links.remove(key);
        }
        if let Some((ifindex, addrs)) = removed.endpoint {
            self.tables.endpoints.remove(&ifindex);
            for a in addrs {
                self.tables.addresses.remove(&a);
            }
        }
        if let Some((ifindex, endpoint)) = removed.another {
            self.tables.rules.insert(endpoint.rule, endpoint.generation);
            self.tables.addresses.extend(addresses(&endpoint, ifindex));
            self.tables.endpoints.insert(ifindex, endpoint);
        }
    }

    /// Decides about a packet.
    pub fn run(&mut self, at: At, packet: &[u8]) -> Outcome {
        let mut frame = Frame(packet.to_vec());
        let mut h = self.headers;
        let (verdict, fate) = match at {
            At::Uplink => self.uplink_ingress(&mut frame, &mut h),
            At::Xdp => self.uplink_xdp(&mut frame, &mut h),
            At::From(c) => self.leaving(&mut frame, &mut h, interface(c, &self.ifindexes)),
            At::To(c, from) => {
                let ingress = from.map_or(0, |i| self.ifindexes[i]);
                self.entering(&mut frame, &mut h, interface(c, &self.ifindexes), ingress)
            }
        };
        self.headers = h;
        Outcome { verdict: verdict.map(Verdict::name), fate, packet: frame.0 }
    }

    fn behind(&self, ifindex: u32) -> Option<Endpoint> {
        self.tables.endpoints.get(&ifindex).copied()
    }

    fn container(&self, ifindex: u32) -> Fate {
        let at = self.ifindexes.iter().position(|i| *i == ifindex);
        Fate::Into(at.unwrap_or_else(|| panic!("interface {ifindex}")) - 4)
    }

    fn refuse(&self, v: Verdict) -> (Option<Verdict>, Fate) {
        (Some(v), if self.world.learning { Fate::Pass } else { Fate::Drop })
    }

    /// `uplink_ingress.rs`
    fn uplink_ingress(&mut self, frame: &mut Frame, h: &mut Headers) -> (Option<Verdict>, Fate) {
        let Ok(e) = ethernet(frame) else {
            return (None, Fate::Pass);
        };
        if matches!(e.ethertype, ETH_VLAN | ETH_SERVICE_VLAN) {
            // The kernel's test run leaves every tag in the frame.
            let names_vlan = frame.window::<2>(ETH_LEN).is_some_and(|tci| u16::from_be(tci.u16(0)) & 0xfff != 0);
            return if names_vlan { (None, Fate::Pass) } else { self.refuse(Verdict::Malformed) };
        }
        let to_everybody = e.dst.is_group();
        if e.dst != Mac::new(MAC_UPLINK) && !to_everybody || !matches!(e.ethertype, ETH_IPV4 | ETH_IPV6) {
            return (None, Fate::Pass);
        }
        if let Err(v) = headers(frame, e.ethertype, Zone::Uplink, h) {
            return if to_everybody { (None, Fate::Pass) } else { self.refuse(v) };
        }
        if to_everybody && is_multicast(&h.key.tuple.dst) {
            return (None, Fate::Pass);
        }
        let decision = self.decide_from_outside(frame, h, true);
        let v = decision.verdict();
        if let Some(flow) = decision.flow() {
            // SAFETY: entries and the scratch room live as long as the tables, and nothing runs beside this.
            let flow = unsafe { *flow.as_ptr() };
            return match translate(frame, h, &flow.to, flow.sums) {
                Err(v) => (Some(v), Fate::Drop),
                Ok(()) if v == Verdict::Deferred => (Some(v), Fate::Pass),
                Ok(()) => (Some(v), self.container(flow.ifindex)),
            };
        }
        if !v.is_drop() {
            return (Some(v), Fate::Pass);
        }
        if v != Verdict::TtlExceeded || self.world.learning {
            return self.refuse(v);
        }
        let answered = !to_everybody
            && self.budget.take(self.tables.now.get())
            && send_icmp_error(frame, h, &h.key.tuple.dst.clone(), IcmpError::TimeExceeded);
        (Some(v), if answered { Fate::Back } else { Fate::Drop })
    }

    /// `new_from_outside` and `new_frame_from_outside` of `stages.rs`, after `uplink_known`.
    fn decide_from_outside(&self, frame: &Frame, h: &mut Headers, is_skb: bool) -> Decision {
        let t = &self.tables;
        if let Some(decision) = uplink_known(frame, t, h) {
            return decision;
        }
        let mut step = admit_from_outside(t, h);
        if step.is(Next::Resume) {
            step = if is_skb { self.resume(h) } else { Step::finish(Verdict::Preexisting) };
        }
        if step.is(Next::Published) {
            step = begin_published(t, h);
        }
        step.decision(t)
    }

    fn resume(&self, h: &Headers) -> Step {
        if self.world.learning { Step::finish(Verdict::Preexisting) } else { resume_published(&self.tables, h) }
    }

    /// `uplink_xdp.rs`
    fn uplink_xdp(&mut self, frame: &mut Frame, h: &mut Headers) -> (Option<Verdict>, Fate) {
        let (ethertype, own_mac) = match ethernet(frame) {
            Ok(e) if matches!(e.ethertype, ETH_IPV4 | ETH_IPV6) && !e.dst.is_group() => (e.ethertype, e.dst),
            _ => return (None, Fate::Pass),
        };
        if let Err(v) = headers(frame, ethertype, Zone::Uplink, h) {
            return self.refuse(v);
        }
        let decision = self.decide_from_outside(frame, h, false);
        let v = decision.verdict();
        if matches!(v, Verdict::TtlExceeded | Verdict::Deferred) {
            return (None, Fate::Pass);
        }
        let Some(flow) = decision.flow() else {
            return if v.is_drop() { self.refuse(v) } else { (None, Fate::Pass) };
        };
        // SAFETY: as above.
        let flow = unsafe { *flow.as_ptr() };
        if translate(frame, h, &flow.to, flow.sums).is_err() || set_macs(frame, Mac::read(&flow.mac), own_mac).is_none()
        {
            return (Some(Verdict::RewriteFailed), Fate::Drop);
        }
        (Some(v), self.container(flow.ifindex))
    }

    /// `from_endpoint.rs`
    fn leaving(&mut self, frame: &mut Frame, h: &mut Headers, ifindex: u32) -> (Option<Verdict>, Fate) {
        let parsed = ethernet(frame).and_then(|e| {
            if !matches!(e.ethertype, ETH_IPV4 | ETH_IPV6) {
                return Err(Verdict::EtherType);
            }
            headers(frame, e.ethertype, Zone::Endpoint, h).map(|()| e.src)
        });
        let t = &self.tables;
        if let Ok(src) = parsed
            && let Some(decision) = endpoint_known(t, ifindex, src, h)
        {
            let v = decision.verdict();
            let Some(flow) = decision.flow() else {
                return self.finish(frame, h, ifindex, v);
            };
            // SAFETY: as above.
            let flow = unsafe { *flow.as_ptr() };
            let sent = self.deliver(frame, h, &flow, true);
            return self.conclude(frame, h, ifindex, v, sent);
        }
        let step = self.new_from_container(frame, h, ifindex, parsed.map(|_| ()));
        let v = step.verdict();
        if !step.is(Next::Forward) {
            return self.finish(frame, h, ifindex, v);
        }
        let decision = step.decision(&self.tables);
        // SAFETY: as above.
        let flow = unsafe { *decision.flow().unwrap().as_ptr() };
        let sent = self.deliver(frame, h, &flow, false);
        self.conclude(frame, h, ifindex, v, sent)
    }

    /// `new_from_container` and `track_container` of `stages.rs`.
    fn new_from_container(&self, frame: &Frame, h: &mut Headers, ifindex: u32, parsed: Result<(), Verdict>) -> Step {
        let t = &self.tables;
        let Some(ep) = &self.behind(ifindex) else {
            return Step::finish(Verdict::EndpointClosed);
        };
        let Ok(ether) = ethernet(frame) else {
            return Step::finish(Verdict::Malformed);
        };
        if ether.src != Mac::read(&ep.mac) && ep.is_isolated() {
            return Step::finish(Verdict::SpoofedMac);
        }
        if let Err(v) = parsed {
            return Step::finish(match ether.ethertype {
                ETH_ARP => arp(frame, t, ep).verdict(),
                _ if !ep.is_isolated() => Verdict::Network,
                _ => v,
            });
        }
        if let Some(decision) = track_from_container(frame, t, ep, h) {
            return Step::of(decision, t);
        }
        let mut step = admit_from_container(t, ep, ifindex, h);
        if step.is(Next::Resume) {
            step = self.resume(h);
        }
        if step.is(Next::Masqueraded) {
            step = prepare_masqueraded(t, ep, ifindex, h);
        }
        if step.is(Next::Untranslated) {
            step = begin_untranslated(t, ep, ifindex, h);
        }
        if step.is(Next::Masqueraded) {
            step = begin_masqueraded(t, h);
        }
        if step.is(Next::Published) {
            step = begin_published(t, h);
        }
        step
    }

    fn finish(&self, frame: &mut Frame, h: &Headers, ifindex: u32, v: Verdict) -> (Option<Verdict>, Fate) {
        if !v.is_drop() {
            return (Some(v), Fate::Pass);
        }
        if self.world.learning || v != Verdict::TtlExceeded {
            return self.refuse(v);
        }
        (Some(v), self.answer(frame, h, ifindex, IcmpError::TimeExceeded))
    }

    fn conclude(
        &self,
        frame: &mut Frame,
        h: &Headers,
        ifindex: u32,
        v: Verdict,
        sent: Sent,
    ) -> (Option<Verdict>, Fate) {
        match sent {
            Ok(fate) => (Some(v), fate),
            Err((v @ Verdict::TooBig, mtu)) => (Some(v), self.answer(frame, h, ifindex, IcmpError::TooBig(mtu))),
            Err((v, _)) => (Some(v), Fate::Drop),
        }
    }

    fn answer(&self, frame: &mut Frame, h: &Headers, ifindex: u32, error: IcmpError) -> Fate {
        let Some(ep) = self.behind(ifindex) else {
            return Fate::Drop;
        };
        let from = if h.v4 { ep.gateway4 } else { ep.gateway6 };
        if send_icmp_error(frame, h, &from, error) { Fate::Back } else { Fate::Drop }
    }

    fn deliver(&self, frame: &mut Frame, h: &Headers, flow: &Flow, is_segment: bool) -> Sent {
        let action = flow.action;
        let outgoing = action == FlowAction::ReplyOut as u8 || action == FlowAction::Masquerade as u8;
        if outgoing {
            outward(frame, h, &flow.to)?;
        }
        if outgoing || flow.sums != ChecksumDeltas::default() {
            let done = if is_segment {
                translate_segment(frame, h, &flow.to, flow.sums)
            } else {
                translate(frame, h, &flow.to, flow.sums)
            };
            done.map_err(|v| (v, 0))?;
        }
        if outgoing {
            return Ok(Fate::Out);
        }
        if action == FlowAction::Defer as u8 {
            return Ok(Fate::Pass);
        }
        if action == FlowAction::ToLoopback as u8 {
            if h.v4 {
                return Ok(Fate::Pass);
            }
            let none = Mac::new([0; 6]);
            set_macs(frame, none, none).ok_or((Verdict::RewriteFailed, 0))?;
            return Ok(Fate::Loopback);
        }
        Ok(self.container(flow.ifindex))
    }

    /// `to_endpoint.rs`
    fn entering(&mut self, frame: &mut Frame, h: &mut Headers, ifindex: u32, ingress: u32) -> (Option<Verdict>, Fate) {
        let Some(ep) = &self.behind(ifindex) else {
            return self.refuse(Verdict::EndpointClosed);
        };
        let pass = |v| (Some(v), Fate::Pass);
        // As frames that come over the bridge are addressed, all are addressed to the container.
        if is_strangers(&self.tables, ep, ingress, true) {
            return self.refuse(Verdict::EndpointClosed);
        }
        let ethertype = match ethernet(frame) {
            Ok(e) => e.ethertype,
            Err(v) => return self.refuse(v),
        };
        match ethertype {
            ETH_IPV4 | ETH_IPV6 => {}
            ETH_ARP => return pass(Verdict::Neighbour),
            _ if ingress == 0 => return pass(Verdict::FromHost),
            _ if !ep.is_isolated() => return pass(Verdict::Network),
            _ => return self.refuse(Verdict::EtherType),
        }
        if let Err(v) = headers(frame, ethertype, Zone::Gate, h) {
            return if ep.is_isolated() { self.refuse(v) } else { pass(Verdict::Network) };
        }
        let decision = gate(frame, &self.tables, ep, h, ingress);
        let v = decision.verdict();
        let Some(flow) = decision.flow() else {
            return if v.is_drop() { self.refuse(v) } else { pass(v) };
        };
        // SAFETY: as above.
        let flow = unsafe { *flow.as_ptr() };
        match translate_segment(frame, h, &flow.to, flow.sums) {
            Ok(()) => pass(v),
            Err(v) => self.refuse(v),
        }
    }

    /// All conversations, and what is known of fragments.
    pub fn remembered(&self) -> Remembered {
        let [flows, pending] = [&self.tables.flows, &self.tables.pending].map(|map| {
            let keys: Vec<FlowKey> = map.borrow().keys().copied().collect();
            keys.into_iter().map(|key| (key, Memory::flow(map, &key).unwrap())).collect()
        });
        Remembered { flows, pending, fragments: self.tables.fragments.borrow().clone() }
    }

    /// The name of an interface.
    pub fn name_of(&self, ifindex: u32) -> &'static str {
        self.ifindexes.iter().position(|i| *i == ifindex).map_or("none", |at| INTERFACES[at])
    }
}

/// `next_hop.rs`: by the routes, what was said not long ago being what they say now.
fn outward(frame: &mut Frame, h: &Headers, to: &Tuple) -> Result<(), (Verdict, u16)> {
    let route = route(&to.dst);
    if matches!(route, Route::None) {
        return Err((Verdict::NoRoute, 0));
    }
    if h.bytes as usize > MTU {
        return Err((Verdict::TooBig, MTU as u16));
    }
    if let Route::Known(dst, src) = route {
        set_macs(frame, dst, src).ok_or((Verdict::RewriteFailed, 0))?;
    }
    Ok(())
}

/// `icmp_error.rs`
fn send_icmp_error(frame: &mut Frame, h: &Headers, from: &Addr, error: IcmpError) -> bool {
    if !should_reply(h) {
        return false;
    }
    let quoted = quoted_len(h);
    let before = frame.0.clone();
    frame.0.truncate(ETH_LEN + quoted as usize);
    let Some(sum) = sum_words(frame, quoted) else {
        return false;
    };
    let mut envelope = ErrorHeaders([0; 12]);
    envelope.write(h, from, error, quoted, sum);
    let bytes = envelope.0.iter().flat_map(|w| w.to_ne_bytes()).take(error_headers_len(h.v4) as usize);
    let quote = frame.0.split_off(ETH_LEN);
    frame.0.clear();
    frame.0.extend([&before[6..12], &before[..6], &before[12..14]].concat());
    frame.0.extend(bytes);
    frame.0.extend(quote);
    true
}

/// Room to read headers into, as the kernel's maps have it at first.
fn room() -> Headers {
    // SAFETY: integers, booleans and an enum that has a variant of number 0.
    unsafe { std::mem::zeroed() }
}
