//! The maps. Names and layouts are an interface: `bpftool map dump` shows them, and a new daemon adopts them.

use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, SkStorage, SockMap};
use aya_ebpf::macros::btf_map;
use runtime_common::decide::Scratch;
use runtime_common::maps::{
    ADDRESS_WORDS, Address, Config, Endpoint, Event, FilterKey, Flow, FlowKey, FragmentKey, FragmentPorts, Holder,
    HostPeerKey, HostSocket, Limit, Link, LinkKey, MAX_ADDRESSES, MAX_CLOSED, MAX_ENDPOINTS, MAX_FILTERS,
    MAX_FLOW_PORTS, MAX_FLOWS, MAX_FRAGMENTS, MAX_HOLDERS, MAX_HOST_PEERS, MAX_LIMITS, MAX_LINKS, MAX_NEXT_HOPS,
    MAX_PENDING, MAX_PREFIXES, MAX_PUBLICATIONS, MAX_RULES, MAX_UNSERVED, MAX_UPLINKS, NextHop, PORT_WORDS,
    Publication, PublicationKey, RELAY_SLOTS, Uplink,
};
use runtime_common::{Addr, VERDICT_SLOTS};

/// One entry: how the programs behave.
#[btf_map]
pub static CONFIG: Array<Config, 1> = Array::new();

/// The generation of each publication, link and endpoint, by slot; 0 where there is none.
#[btf_map]
pub static RULES: Array<u64, MAX_RULES> = Array::new();

/// Containers by host-side interface.
#[btf_map]
pub static ENDPOINTS: HashMap<u32, Endpoint, MAX_ENDPOINTS> = HashMap::new();

/// What each address of this machine belongs to.
#[btf_map]
pub static ADDRESSES: HashMap<Addr, Address, MAX_ADDRESSES> = HashMap::new();

/// A bit for each address that an entry of `ADDRESSES` has, shared by others; then the same for containers alone.
#[btf_map]
pub static ADDRESS_BITS: Array<u64, ADDRESS_WORDS> = Array::new();

/// What addresses that no entry of `ADDRESSES` has belong to: `PREFIX_*` by prefix.
#[btf_map]
pub static PREFIXES: LpmTrie<Addr, u32, MAX_PREFIXES> = LpmTrie::new();

/// Interfaces that lead to the outside.
#[btf_map]
pub static UPLINKS: HashMap<u32, Uplink, MAX_UPLINKS> = HashMap::new();

/// Interfaces that lead to the outside and have no program: what comes in by them is the engine's own rules' affair. The value
/// says nothing. An interface that nobody has named yet is not among them, and refused.
#[btf_map]
pub static UNSERVED: HashMap<u32, u32, MAX_UNSERVED> = HashMap::new();

/// Published ports. Not preallocated: memory goes with what is published.
#[btf_map]
pub static PUBLICATIONS: HashMap<PublicationKey, Publication, MAX_PUBLICATIONS, NO_PREALLOC> = HashMap::new();

/// A bit for each port and protocol that an entry of `PUBLICATIONS` has.
#[btf_map]
pub static PORTS: Array<u64, PORT_WORDS> = Array::new();

/// Next hops to the outside as the FIB gave them lately, by a hash of the addresses: the next one with the same hash takes the
/// place.
#[btf_map]
pub static NEXT_HOPS: PerCpuArray<NextHop, MAX_NEXT_HOPS> = PerCpuArray::new();

/// Sources that filtered publications name.
#[btf_map]
pub static FILTERS: LpmTrie<FilterKey, u32, MAX_FILTERS> = LpmTrie::new();

/// How many conversations limited publications may begin, by generation.
#[btf_map]
pub static LIMITS: HashMap<u64, Limit, MAX_LIMITS, NO_PREALLOC> = HashMap::new();

/// Open ports of links.
#[btf_map]
pub static LINKS: HashMap<LinkKey, Link, MAX_LINKS, NO_PREALLOC> = HashMap::new();

/// For each port and protocol (`FlowKey::port_element`) whether `FLOWS` or `PENDING` may have a key of what comes from outside for
/// it: not where it is 0. Both bits are set before such a key is there. The daemon takes out what has none any more, one bit after
/// the other: while it does so with one, the other is complete.
#[btf_map]
pub static FLOW_PORTS: Array<u8, MAX_FLOW_PORTS, MMAPABLE> = Array::new();

/// Conversations: their client has gone on after an answer.
#[btf_map]
pub static FLOWS: HashMap<FlowKey, Flow, MAX_FLOWS> = HashMap::new();

/// Conversations whose client has not gone on after an answer: under pressure the oldest make room, and others never do.
#[btf_map]
pub static PENDING: LruHashMap<FlowKey, Flow, MAX_PENDING> = LruHashMap::new();

/// One entry: how many open conversations `FLOWS` holds.
#[btf_map]
pub static HELD: Array<u64, 1> = Array::new();

/// How many of them under each rule, by slot.
#[btf_map]
pub static HELD_BY_RULE: Array<u64, MAX_RULES> = Array::new();

/// How many of them lead to each container, and come from each source.
#[btf_map]
pub static HELD_BY: LruHashMap<Holder, u64, MAX_HOLDERS> = LruHashMap::new();

/// Closed connections, which make room first: a ring.
#[btf_map]
pub static CLOSED: Array<FlowKey, MAX_CLOSED> = Array::new();

/// How many connections were ever noted in `CLOSED`, and how many of them were read again.
#[btf_map]
pub static CLOSED_ENDS: Array<u64, 2> = Array::new();

/// Ports of fragmented datagrams.
#[btf_map]
pub static FRAGMENTS: LruHashMap<FragmentKey, FragmentPorts, MAX_FRAGMENTS> = LruHashMap::new();

/// One entry: the cookie of the network namespace whose sockets reach published ports; 0 for none.
#[btf_map]
pub static HOST_NETNS: Array<u64, 1> = Array::new();

/// The original destination of each socket of the host: with the socket itself, and gone with it.
#[btf_map]
pub static HOST_SOCKETS: SkStorage<HostSocket> = SkStorage::new();

/// The same of further peers, where a socket sends datagrams to several, and of connected sockets of UDP, which the daemon cannot ask
/// for theirs. Under pressure the oldest are forgotten: answers of such further peers show the container's address.
#[btf_map]
pub static HOST_PEERS: LruHashMap<HostPeerKey, HostSocket, MAX_HOST_PEERS> = LruHashMap::new();

/// Ports that the daemon relays, for packets that the host itself takes in: those of IPv6 publications of containers that have IPv4
/// alone.
#[btf_map]
pub static RELAYED: HashMap<PublicationKey, u32, MAX_PUBLICATIONS, NO_PREALLOC> = HashMap::new();

/// The daemon's sockets that such packets are for, by `RELAY_*`. They go with the daemon, and nothing is steered without them.
#[btf_map]
pub static RELAY_SOCKETS: SockMap<RELAY_SLOTS> = SockMap::new();

/// Packets by verdict number.
#[btf_map]
pub static COUNTERS: PerCpuArray<u64, VERDICT_SLOTS> = PerCpuArray::new();

/// When each drop reason was last told of, by verdict number: nanoseconds.
#[btf_map]
pub static REPORTED: PerCpuArray<u64, VERDICT_SLOTS> = PerCpuArray::new();

/// Drops: one per reason, processor and 10 ms at most; `COUNTERS` counts all.
#[btf_map]
pub static EVENTS: RingBuf<Event, 262_144> = RingBuf::new();

/// Room for a packet's headers and a new flow: too large for the stack.
#[btf_map]
pub static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

const MMAPABLE: usize = aya_ebpf::bindings::BPF_F_MMAPABLE as usize;
const NO_PREALLOC: usize = aya_ebpf::bindings::BPF_F_NO_PREALLOC as usize;
