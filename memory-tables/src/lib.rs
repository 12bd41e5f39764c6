//! The tables of packet decisions ([`Tables`]) as ordinary collections: what runs in the kernel with its maps is run with these by
//! tests on any machine.

use std::cell::{Cell, RefCell, UnsafeCell};
use std::collections::{HashMap, VecDeque};
use std::ptr::NonNull;
use std::rc::Rc;

use runtime_common::Addr;
use runtime_common::decide::{NewFlow, Tables, hold, make_room, release_closed};
use runtime_common::maps::{
    ADDRESS_ENDPOINT, Address, Endpoint, FilterKey, Flow, FlowKey, FragmentKey, FragmentPorts, Holder, Limit, Link,
    LinkKey, Publication, PublicationKey, address_bit, port_bit,
};
use runtime_common::packet::{Headers, UDP};

// Not boxes, which nobody may point into while they are moved.
type Flows = RefCell<HashMap<FlowKey, Rc<UnsafeCell<Flow>>>>;

/// Everything that userspace and the kernel side write.
#[derive(Default)]
pub struct Memory {
    /// The time, in nanoseconds.
    pub now: Cell<u64>,
    /// Conversations whose client has gone on after an answer.
    pub flows: Flows,
    /// All others.
    pub pending: Flows,
    /// How many entries `flows` and `pending` take; nothing for no end.
    pub room: Cell<Option<usize>>,
    /// How many conversations the shares are of; nothing for no end.
    pub shared: Cell<Option<u64>>,
    /// How many conversations are counted.
    pub held: Box<UnsafeCell<u64>>,
    /// The same by the slot of the rule.
    pub held_by_rule: HashMap<u32, Box<UnsafeCell<u64>>>,
    held_by: RefCell<Vec<(Holder, Box<UnsafeCell<u64>>)>>,
    /// Closed connections, the oldest first.
    pub closed: RefCell<VecDeque<FlowKey>>,
    /// Generations in force, by slot.
    pub rules: HashMap<u32, u64>,
    /// By host address, port and protocol.
    pub publications: HashMap<PublicationKey, Publication>,
    /// Exact sources only: prefixes are the kernel's trie's affair.
    pub filters: HashMap<FilterKey, u32>,
    /// By generation.
    pub limits: HashMap<u64, Rc<UnsafeCell<Limit>>>,
    /// By recipient, source and port.
    pub links: HashMap<LinkKey, Link>,
    /// What the kernel's map says of interfaces, of more than a test's world has.
    pub endpoints: HashMap<u32, Endpoint>,
    /// Whose is an address.
    pub addresses: HashMap<Addr, Address>,
    /// What the routes say of every way to the outside.
    pub source: Option<Addr>,
    /// The host's address by which its routes lead to another one, instead.
    pub route: Option<fn(&Addr) -> Option<Addr>>,
    /// Interfaces that lead outside and have a program.
    pub uplinks: Vec<u32>,
    /// Interfaces that lead outside and have no program.
    pub unserved: Vec<u32>,
    /// Whole bytes of addresses, and what they are.
    pub prefixes: HashMap<Vec<u8>, u32>,
    /// Ports (host byte order) that sockets of the host have.
    pub sockets: Vec<u16>,
    /// Those of UDP alone.
    pub udp_sockets: Vec<u16>,
    /// Ports (host byte order) of which connections of the host's sockets are.
    pub connections: Vec<u16>,
    /// Ports of datagrams in fragments.
    pub fragments: RefCell<HashMap<FragmentKey, FragmentPorts>>,
    scratch: Box<UnsafeCell<NewFlow>>,
    /// Entries that were taken away: who still holds a pointer may read them, as in the kernel.
    graveyard: RefCell<Vec<Rc<UnsafeCell<Flow>>>>,
}

impl Memory {
    fn find(flows: &Flows, key: &FlowKey) -> Option<NonNull<Flow>> {
        flows.borrow().get(key).and_then(|flow| NonNull::new(flow.get()))
    }

    fn insert(&self, flows: &Flows, key: &FlowKey, flow: &Flow) -> bool {
        let mut flows = flows.borrow_mut();
        if !flows.contains_key(key) && self.room.get().is_some_and(|room| flows.len() >= room) {
            return false;
        }
        self.graveyard.borrow_mut().extend(flows.insert(*key, Rc::new(UnsafeCell::new(*flow))));
        true
    }

    fn remove(&self, flows: &Flows, key: &FlowKey) {
        self.graveyard.borrow_mut().extend(flows.borrow_mut().remove(key));
    }

    /// How many conversations are counted.
    pub fn count(&self) -> u64 {
        // SAFETY: nothing runs beside this.
        unsafe { *self.held.get() }
    }

    /// A copy of an entry.
    pub fn flow(flows: &Flows, key: &FlowKey) -> Option<Flow> {
        // SAFETY: entries live as long as the memory, and nothing runs beside this.
        Memory::find(flows, key).map(|flow| unsafe { *flow.as_ptr() })
    }
}

impl Tables for Memory {
    fn filter(&self, key: &FilterKey) -> u32 {
        self.filters.get(key).copied().unwrap_or(0)
    }

    fn limit(&self, generation: u64) -> Option<NonNull<Limit>> {
        self.limits.get(&generation).and_then(|l| NonNull::new(l.get()))
    }

    fn now(&self) -> u64 {
        self.now.get()
    }

    fn answered(&self, key: &FlowKey) -> Option<NonNull<Flow>> {
        Memory::find(&self.flows, key)
    }

    fn pending(&self, key: &FlowKey) -> Option<NonNull<Flow>> {
        Memory::find(&self.pending, key)
    }

    fn insert_pending(&self, key: &FlowKey, flow: &Flow) -> bool {
        self.insert(&self.pending, key, flow)
    }

    fn promote(&self, key: &FlowKey, flow: &Flow) -> bool {
        if !self.insert(&self.flows, key, flow) {
            return false;
        }
        self.remove(&self.pending, key);
        true
    }

    fn forget(&self, key: &FlowKey) {
        self.remove(&self.flows, key);
    }

    fn room(&self) -> u64 {
        self.shared.get().unwrap_or(1 << 32)
    }

    fn held(&self) -> Option<NonNull<u64>> {
        NonNull::new(self.held.get())
    }

    fn held_by_rule(&self, slot: u32) -> Option<NonNull<u64>> {
        NonNull::new(self.held_by_rule.get(&slot)?.get())
    }

    fn held_by(&self, holder: &Holder) -> Option<NonNull<u64>> {
        let held_by = self.held_by.borrow();
        held_by.iter().find(|(h, _)| h == holder).and_then(|(_, count)| NonNull::new(count.get()))
    }

    fn begin_holding(&self, holder: &Holder) {
        self.held_by.borrow_mut().push((*holder, Box::new(UnsafeCell::new(1))));
    }

    fn note_closed(&self, key: &FlowKey) {
        self.closed.borrow_mut().push_back(*key);
    }

    fn next_closed(&self) -> Option<FlowKey> {
        self.closed.borrow_mut().pop_front()
    }

    fn hold(&self, key: &FlowKey) -> bool {
        hold(self, key)
    }

    fn release_closed(&self, key: &FlowKey) {
        release_closed(self, key);
    }

    fn make_room(&self) -> bool {
        make_room(self)
    }

    fn scratch(&self) -> Option<NonNull<NewFlow>> {
        NonNull::new(self.scratch.get())
    }

    fn generation(&self, slot: u32) -> u64 {
        self.rules.get(&slot).copied().unwrap_or(0)
    }

    fn maybe_published(&self, port: u16, protocol: u8) -> bool {
        let bit = port_bit(u16::from_be(port), protocol);
        self.publications.keys().any(|key| port_bit(u16::from_be(key.port), key.protocol) == bit)
    }

    fn publication(&self, key: &PublicationKey) -> Option<&Publication> {
        self.publications.get(key)
    }

    fn link(&self, key: &LinkKey) -> Option<&Link> {
        self.links.get(key)
    }

    fn endpoint(&self, ifindex: u32) -> Option<&Endpoint> {
        self.endpoints.get(&ifindex)
    }

    fn address(&self, addr: &Addr) -> Option<&Address> {
        self.addresses.get(addr)
    }

    fn maybe_host_address(&self, addr: &Addr) -> bool {
        let bit = address_bit(addr, false);
        self.addresses.keys().any(|a| address_bit(a, false) == bit)
    }

    fn maybe_endpoint(&self, addr: &Addr) -> bool {
        let bit = address_bit(addr, true);
        self.addresses.iter().any(|(a, value)| value.kind == ADDRESS_ENDPOINT && address_bit(a, true) == bit)
    }

    fn source(&self, h: &Headers, _: u32, found: &mut Addr) -> bool {
        let source = self.route.map_or(self.source, |route| route(&h.key.tuple.dst));
        source.map(|source| *found = source).is_some()
    }

    fn is_uplink(&self, ifindex: u32) -> bool {
        self.uplinks.contains(&ifindex)
    }

    fn is_unserved(&self, ifindex: u32) -> bool {
        self.unserved.contains(&ifindex)
    }

    fn prefix(&self, addr: &Addr) -> u32 {
        let matching = self.prefixes.iter().filter(|(prefix, _)| addr.0.starts_with(prefix));
        matching.max_by_key(|(prefix, _)| prefix.len()).map_or(0, |(_, kind)| *kind)
    }

    fn host_socket(&self, key: &FlowKey) -> bool {
        let port = u16::from_be(key.tuple.dport);
        self.sockets.contains(&port) || key.protocol == UDP && self.udp_sockets.contains(&port)
    }

    fn host_connection(&self, key: &FlowKey) -> bool {
        self.connections.contains(&u16::from_be(key.tuple.dport))
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts> {
        self.fragments.borrow().get(key).copied()
    }

    fn remember_fragment(&self, key: &FragmentKey, ports: FragmentPorts) {
        self.fragments.borrow_mut().insert(*key, ports);
    }
}
