//! What a plan says.

use std::collections::BTreeMap;
use std::path::PathBuf;

use runtime_api::MasqueradedBy;

use super::endpoint::EndpointPlan;
use super::relay::Relays;
use crate::datapath::{Desired, Role};
use crate::model::hosts::HostsEntry;
use crate::model::{Container, Snapshot};

/// What links want of a recipient's /etc/hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostsPlan {
    /// The recipient's full id.
    pub container: String,
    /// The file on the host.
    pub path: PathBuf,
    /// Lines of its links.
    pub entries: Vec<HostsEntry>,
    /// Aliases that are gone.
    pub removed: Vec<String>,
}

/// Everything that is to be so.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Interfaces that programs belong on.
    pub roles: BTreeMap<u32, Role>,
    /// What the maps are to say.
    pub desired: Desired,
    /// Publications that the daemon itself passes on.
    pub relays: Relays,
    /// Recipients' hosts files.
    pub hosts: Vec<HostsPlan>,
    /// Endpoints that are served, in the order of their containers' ids.
    pub endpoints: Vec<EndpointPlan>,
    /// Who masquerades which network, by its name.
    pub masquerade: BTreeMap<String, MasqueradedBy>,
    /// What cannot be served, and why: a line each.
    pub problems: Vec<String>,
    /// Containers that there is no room for in the kernel's tables, and why: nothing of theirs is served.
    pub refused: BTreeMap<String, String>,
    /// Recipients whose links there is no room for, and why: they open nothing.
    pub closed_links: BTreeMap<String, String>,
}

impl Plan {
    /// Endpoints of a container.
    pub fn endpoints_of<'p>(&'p self, container: &'p str) -> impl Iterator<Item = &'p EndpointPlan> {
        let first = self.endpoints.partition_point(|e| e.container.as_str() < container);
        self.endpoints[first..].iter().take_while(move |e| e.container == container)
    }

    /// Whether something of a container's is closed because there is no room for it.
    pub fn refuses(&self, container: &str) -> bool {
        self.refused.contains_key(container) || self.closed_links.contains_key(container)
    }

    /// Whether every endpoint of a container on a bridge network is open.
    pub fn serves(&self, container: &Container, snapshot: &Snapshot) -> bool {
        let on_bridges = container
            .endpoints
            .iter()
            .filter(|e| !e.id.is_empty() && snapshot.networks.get(&e.network).is_some_and(|n| n.driver == "bridge"));
        container.running
            && on_bridges.into_iter().all(|e| self.endpoints_of(&container.id).any(|p| p.network == e.network))
    }
}
