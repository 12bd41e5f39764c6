//! Whether publications are served: asked of the maps and hooks as the kernel has them, whoever has changed them since.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use aya::maps::{Array, HashMap as KernelMap, MapData};
use runtime_common::maps::{Endpoint, PUBLICATION_CLOSED, Publication as Entry, PublicationKey};

use super::hook::{Hook, HookStatus, Role};
use super::table::read_entries;
use crate::model::Publication;

/// What the kernel has at one moment.
pub struct Standing {
    publications: HashMap<PublicationKey, Entry>,
    /// Generations of the rules by their slots, of those that publications name.
    rules: HashMap<u32, u64>,
    endpoints: HashSet<u32>,
    /// Interfaces of containers that the program for answers stands on.
    guarded: HashSet<u32>,
    /// Whether there is an uplink, and the program stands on all of them.
    uplinks: bool,
    /// Whether the programs for the host's own sockets stand.
    host: bool,
}

impl Standing {
    /// Reads the maps; `hooks` are those that the kernel says are there.
    pub(super) fn read(
        publications: &KernelMap<MapData, PublicationKey, Entry>,
        endpoints: &KernelMap<MapData, u32, Endpoint>,
        rules: &Array<MapData, u64>,
        hooks: &[HookStatus],
        roles: &BTreeMap<u32, Role>,
    ) -> Self {
        let publications: HashMap<_, _> = read_entries(publications).into_iter().collect();
        let named: HashSet<u32> = publications.values().map(|p| p.rule).collect();
        let rules = named.into_iter().filter_map(|slot| Some((slot, rules.get(&slot, 0).ok()?))).collect();
        let stand: BTreeSet<(u32, Hook)> = hooks.iter().map(|h| (h.ifindex, h.hook)).collect();
        let on = |ifindex: u32, hook: Hook| stand.contains(&(ifindex, hook));
        let mut uplinks = roles.iter().filter(|(_, role)| role.uplink).peekable();
        Standing {
            publications,
            rules,
            endpoints: read_entries(endpoints).into_iter().map(|(ifindex, _)| ifindex).collect(),
            guarded: stand.iter().map(|(i, _)| *i).filter(|i| on(*i, Hook::FromEndpoint)).collect(),
            uplinks: uplinks.peek().is_some() && uplinks.all(|(ifindex, role)| on(*ifindex, role.hooks()[0])),
            host: on(0, Hook::HostConnect4) && on(0, Hook::HostConnect6),
        }
    }

    /// Why a packet for a publication would not reach the container behind `ifindex`; none where it would.
    pub fn fault(&self, p: &Publication, ifindex: u32) -> Option<&'static str> {
        let key = PublicationKey {
            addr: p.host_addr.into(),
            port: p.host_port.to_be(),
            protocol: p.container_port.protocol.number(),
            reserved: 0,
        };
        let Some(entry) = self.publications.get(&key) else {
            return Some("the kernel has no entry for it");
        };
        if entry.flags & PUBLICATION_CLOSED != 0 || entry.ifindex != ifindex {
            return Some("its entry in the kernel is another's");
        }
        if self.rules.get(&entry.rule) != Some(&entry.generation) || entry.generation == 0 {
            return Some("its rule has ended in the kernel");
        }
        if !self.endpoints.contains(&ifindex) {
            return Some("the kernel does not know its container");
        }
        // Answers go out by this one.
        if !self.guarded.contains(&ifindex) {
            return Some("no program stands on its container's interface");
        }
        // One for this host alone is reached by the host's own sockets and by nobody else.
        match is_for_host(&p.host_addr) {
            true if !self.host => Some("no program stands at the host's own sockets"),
            false if !self.uplinks => Some("no program stands on an uplink"),
            _ => None,
        }
    }
}

fn is_for_host(address: &IpAddr) -> bool {
    address.to_canonical().is_loopback()
}
