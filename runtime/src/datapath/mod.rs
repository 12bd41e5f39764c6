//! The kernel side as userspace sees it: loading, attaching, pinning, adopting, and typed views of the maps.
//!
//! The pins under the bpffs are the only references: a daemon that dies leaves the programs at work, and the next one
//! adopts what it finds and replaces programs in place.

mod bits;
mod bpf_syscall;
mod clsact;
mod collect;
mod ended_flows;
mod entries;
mod events;
mod expedited;
mod features;
mod filters;
mod flow_ports;
mod flows;
mod hook;
mod hooks;
mod host_hooks;
mod host_sockets;
mod keep;
mod load;
mod object;
mod pin_lock;
mod pins;
mod probe;
mod published;
mod relay_lookup;
mod remnants;
mod rtnl;
mod slots;
mod standing;
mod state;
mod table;

pub use collect::Collector;
pub use ended_flows::EndedPeer;
pub use events::Events;
pub use features::kernel_release;
pub use filters::Sources;
pub use flows::{Seed, SeedKind};
pub use hook::{Hook, HookStatus, Options as HookOptions, Role, XdpMode};
pub use host_sockets::EndedSockets;
pub use object::OBJECT;
pub use pin_lock::PinLock;
pub use pins::Pins;
pub use published::Published;
pub use relay_lookup::RelaySockets;
pub use remnants::remove_everything;
pub use standing::Standing;
pub use state::Desired;
pub use table::Operations;

use std::collections::BTreeMap;
use std::path::Path;

use aya::Ebpf;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, PerCpuArray};
use runtime_common::Verdict;
use runtime_common::maps::{Config, Flow, FlowKey, Holder, HostPeerKey, HostSocket, LAYOUT, PublicationKey};

use crate::failpoint;

/// Why the datapath could not do something.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The kernel or the rights lack something.
    #[error("{0}")]
    Unsupported(String),
    /// A pin could not be made, read or removed.
    #[error("{path}: {reason}")]
    Pin {
        /// The pin's path.
        path: String,
        /// What went wrong, and the remedy where there is one.
        reason: String,
    },
    /// The object could not be loaded.
    #[error("the kernel refused the datapath: {0}")]
    Load(String),
    /// A program could not be attached.
    #[error("{hook} on {interface}: {reason}")]
    Attach {
        /// Which hook.
        hook: Hook,
        /// Interface name.
        interface: String,
        /// What the kernel said.
        reason: String,
    },
    /// A map is full.
    #[error("map {map} is full: it holds {size} entries at most; remove publications, links or containers")]
    Full {
        /// Its name.
        map: &'static str,
        /// Its size in entries.
        size: usize,
    },
    /// A map could not be read or written.
    #[error("map {map}: {reason}")]
    Map {
        /// Its name.
        map: &'static str,
        /// What the kernel said.
        reason: String,
    },
}

/// The loaded datapath.
pub struct Datapath {
    ebpf: Ebpf,
    pins: Pins,
    keeper: keep::Keeper,
    hooks: hooks::Attached,
    host: host_hooks::HostHooks,
    relay: relay_lookup::RelayLookup,
    host_peers: HashMap<MapData, HostPeerKey, HostSocket>,
    ended_sockets: EndedSockets,
    state: state::State,
    config: Array<MapData, Config>,
    flows: HashMap<MapData, FlowKey, Flow>,
    pending: HashMap<MapData, FlowKey, Flow>,
    flow_ports: Map,
    held: Array<MapData, u64>,
    held_by: HashMap<MapData, Holder, u64>,
    counters: PerCpuArray<MapData, u64>,
}

impl Datapath {
    /// Makes sure that the kernel and the rights suffice, and that nobody else uses these pins.
    ///
    /// # Errors
    /// Where they do not, before anything is made; and where somebody does.
    pub fn prepare(pins: &Pins) -> Result<PinLock, DatapathError> {
        features::check(pins)?;
        pins.prepare()?;
        let lock = PinLock::take(pins)?;
        expedited::set_back();
        Ok(lock)
    }

    /// Loads the programs, adopting the pinned maps and links of a predecessor where there are some.
    ///
    /// When the verifier refuses one, its log is written to the file `verifier_log`.
    ///
    /// # Errors
    /// Where the kernel refuses a program, before anything is attached; where pins are of another layout.
    pub fn load(
        pins: Pins,
        lock: PinLock,
        hook_options: HookOptions,
        verifier_log: &Path,
    ) -> Result<Self, DatapathError> {
        pins.check_layout(LAYOUT)?;
        let loader = load::Loader {
            object: OBJECT,
            pins: &pins,
            can_set_retval: features::can_set_retval(),
            log: verifier_log.into(),
        };
        let mut ebpf = loader.open()?;
        let hooks = hooks::Attached::load(&loader, &mut ebpf, hook_options)?;
        let host = host_hooks::HostHooks::load(&loader, &mut ebpf);
        let relay = relay_lookup::RelayLookup::load(&loader, &mut ebpf)?;
        let state = state::State::adopt(state::Maps {
            rules: array(&mut ebpf, "RULES")?,
            held_by_rule: array(&mut ebpf, "HELD_BY_RULE")?,
            endpoints: hash(&mut ebpf, "ENDPOINTS")?,
            addresses: hash(&mut ebpf, "ADDRESSES")?,
            uplinks: hash(&mut ebpf, "UPLINKS")?,
            unserved: hash(&mut ebpf, "UNSERVED")?,
            publications: hash(&mut ebpf, "PUBLICATIONS")?,
            ports: bits(&mut ebpf, "PORTS")?,
            address_bits: bits(&mut ebpf, "ADDRESS_BITS")?,
            prefixes: LpmTrie::try_from(take(&mut ebpf, "PREFIXES")?).map_err(|e| map_error("PREFIXES", &e))?,
            filters: LpmTrie::try_from(take(&mut ebpf, "FILTERS")?).map_err(|e| map_error("FILTERS", &e))?,
            limits: hash(&mut ebpf, "LIMITS")?,
            links: hash(&mut ebpf, "LINKS")?,
        })?;
        let mut config: Array<MapData, Config> =
            Array::try_from(take(&mut ebpf, "CONFIG")?).map_err(|e| map_error("CONFIG", &e))?;
        failpoint::step();
        let enforce = config.get(&0, 0).map_err(|e| map_error("CONFIG", &e))?.enforce;
        config.set(0, Config { layout: LAYOUT, enforce }, 0).map_err(|e| map_error("CONFIG", &e))?;
        Ok(Datapath {
            flows: hash(&mut ebpf, "FLOWS")?,
            host_peers: hash(&mut ebpf, "HOST_PEERS")?,
            ended_sockets: EndedSockets::of(&take(&mut ebpf, "HOST_SOCKETS")?)?,
            pending: hash(&mut ebpf, "PENDING")?,
            flow_ports: take(&mut ebpf, "FLOW_PORTS")?,
            held: array(&mut ebpf, "HELD")?,
            held_by: hash(&mut ebpf, "HELD_BY")?,
            counters: PerCpuArray::try_from(take(&mut ebpf, "COUNTERS")?).map_err(|e| map_error("COUNTERS", &e))?,
            keeper: keep::Keeper::of(&pins, lock)?,
            ebpf,
            pins,
            hooks,
            host,
            relay,
            state,
            config,
        })
    }

    /// Whether drops are carried out: true after a predecessor's start was complete.
    pub fn enforcing(&self) -> Result<bool, DatapathError> {
        Ok(self.config.get(&0, 0).map_err(|e| map_error("CONFIG", &e))?.enforce != 0)
    }

    /// Carries out drops from now on.
    pub fn enforce(&mut self) -> Result<(), DatapathError> {
        failpoint::step();
        self.config.set(0, Config { layout: LAYOUT, enforce: 1 }, 0).map_err(|e| map_error("CONFIG", &e))
    }

    /// Attaches what `wanted` names and is not attached, and detaches what it does not name.
    ///
    /// Interfaces that vanish meanwhile are passed over; other errors are collected, and the rest is done.
    pub fn attach(&mut self, wanted: &BTreeMap<u32, Role>) -> Vec<DatapathError> {
        self.host.attach(&mut self.ebpf, &self.pins);
        self.hooks.reconcile(&self.pins, wanted)
    }

    /// What the kernel says is attached where, and a line for each program that is not where it was attached.
    pub fn attached(&self) -> (Vec<HookStatus>, Vec<String>) {
        let (mut all, mut lost) = self.hooks.status();
        let (host, host_lost) = self.host.status();
        all.extend(host);
        lost.extend(host_lost);
        match self.relay.status() {
            Ok(row) => all.extend(row),
            Err(reason) => lost.push(reason),
        }
        (all, lost)
    }

    /// What the kernel has of what is published, where `hooks` are attached and `roles` were wanted.
    pub fn standing(&self, hooks: &[HookStatus], roles: &BTreeMap<u32, Role>) -> Standing {
        self.state.standing(hooks, roles)
    }

    /// A line for each pin of a map that somebody has removed: the next daemon would not find what this one's programs use.
    pub fn lost_pins(&self) -> Vec<String> {
        let lost = pins::MAPS.iter().map(|name| self.pins.map(name)).filter(|path| !path.exists());
        lost.map(|path| format!("{} is gone: the next daemon starts anew, without flows", path.display())).collect()
    }

    /// What this kernel or machine does not offer and `up` goes on without, in one line.
    pub fn problem(&self) -> Option<&str> {
        self.host.problem()
    }

    /// Why no ports are relayed by the daemon, where they cannot be.
    pub fn relay_problem(&self) -> Option<&str> {
        self.relay.problem()
    }

    /// Has packets for relayed ports led to these sockets, as long as they are open.
    pub fn lead_relayed_to(&mut self, sockets: RelaySockets<'_>) -> Result<(), DatapathError> {
        self.relay.lead_to(sockets)
    }

    /// The ports that are relayed, in order.
    pub fn relayed(&self) -> impl Iterator<Item = &PublicationKey> {
        self.relay.relayed()
    }

    /// Relays those of the `changed` ports, given in order, that are to be, and the others no longer.
    pub fn relay(
        &mut self,
        changed: &[PublicationKey],
        is_relayed: impl Fn(&PublicationKey) -> bool,
    ) -> Result<(), DatapathError> {
        self.relay.relay(&mut self.ebpf, &self.pins, changed, is_relayed)
    }

    /// Whether a driver redirects frames into containers: then their interfaces must poll (see [`crate::host::set_gro`]).
    pub fn redirects_by_driver(&self) -> bool {
        self.hooks.has_native_xdp()
    }

    /// How tc programs are attached: `tcx` or `clsact`.
    pub fn attachment(&self) -> &'static str {
        self.hooks.kind()
    }

    /// Makes the maps say what `desired` says; returns what had to be changed.
    ///
    /// Flows of what goes or changes end first, before anything new is there.
    pub fn apply(&mut self, desired: &Desired) -> Result<Operations, DatapathError> {
        self.state.apply(desired)
    }

    /// Takes the rules of flows that a predecessor ended, and whose peers it may not have told, for such as end now.
    pub fn end_orphans(&mut self) {
        let flows = table::read_entries(&self.flows).into_iter().map(|(_, flow)| flow);
        let dead: Vec<u64> = flows.filter_map(|f| self.state.ended_rule(&f)).collect();
        self.state.add_ended(dead);
    }

    /// The containers' ends of the TCP connections whose rules ended since this was last asked.
    pub fn take_ended(&mut self) -> Vec<EndedPeer> {
        let generations = self.state.take_ended();
        self.ended_sockets.add(&generations, &self.host_peers);
        if generations.is_empty() { Vec::new() } else { ended_flows::ended(&self.flows, &generations) }
    }

    /// The host's own sockets whose publications [`Datapath::take_ended`] told of; none where it told of none.
    ///
    /// # Errors
    /// Where there are no more file descriptors.
    pub fn take_ended_sockets(&mut self) -> Result<Option<EndedSockets>, DatapathError> {
        self.ended_sockets.take()
    }

    /// Packets by verdict, over all CPUs.
    pub fn counters(&self) -> Result<Vec<(Verdict, u64)>, DatapathError> {
        Verdict::ALL
            .iter()
            .map(|v| {
                let values = self.counters.get(&(*v as u32), 0).map_err(|e| map_error("COUNTERS", &e))?;
                Ok((*v, values.iter().sum()))
            })
            .collect()
    }

    /// The drops that the kernel side tells of.
    pub fn events(&mut self) -> Result<Events, DatapathError> {
        Events::new(take(&mut self.ebpf, "EVENTS")?)
    }

    /// Who collects the conversations that are over, for a thread of its own.
    pub fn collector(&self) -> Result<Collector, DatapathError> {
        Collector::new(&collect::Maps {
            flows: &self.flows,
            pending: &self.pending,
            flow_ports: &self.flow_ports,
            rules: self.state.rules(),
            held: &self.held,
            held_by_rule: self.state.held_by_rule(),
            held_by: &self.held_by,
        })
    }

    /// Puts conversations that are older than the datapath into the flow table.
    pub fn seed(&mut self, seeds: &[Seed]) -> Result<(), DatapathError> {
        flows::seed(&mut self.flows, &self.state, seeds)
    }
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<aya::maps::Map, DatapathError> {
    ebpf.take_map(name).ok_or(DatapathError::Map { map: name, reason: "not in the object".into() })
}

fn hash<K: aya::Pod, V: aya::Pod>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<HashMap<MapData, K, V>, DatapathError> {
    HashMap::try_from(take(ebpf, name)?).map_err(|e| map_error(name, &e))
}

fn array(ebpf: &mut Ebpf, name: &'static str) -> Result<Array<MapData, u64>, DatapathError> {
    Array::try_from(take(ebpf, name)?).map_err(|e| map_error(name, &e))
}

fn bits(ebpf: &mut Ebpf, name: &'static str) -> Result<bits::Bits, DatapathError> {
    let array = Array::try_from(take(ebpf, name)?).map_err(|e| map_error(name, &e))?;
    bits::Bits::adopt(name, array)
}

fn map_error(map: &'static str, e: &dyn std::error::Error) -> DatapathError {
    DatapathError::Map { map, reason: chain(e) }
}

/// An error with its causes, in one line.
fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join(" ")
}
