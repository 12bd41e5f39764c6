//! What of a plan can be used again: a container's published ports, for as long as nothing that they rest on changes.

use std::collections::HashMap;
use std::sync::Arc;

use super::plan::{EndpointPlan, Netfilter, Options, Plan};
use super::relay::Group;
use crate::datapath::Published;
use crate::host::{Host, NatRules};
use crate::model::live::{EffectivePublication, Live};
use crate::model::{Container, Snapshot};

/// Published ports of the plan before, by container.
#[derive(Default)]
pub struct Cache {
    published: HashMap<String, (Basis, Made)>,
}

/// What is made of a container's published ports.
#[derive(Clone)]
pub(super) struct Made {
    /// What the maps are to say.
    pub published: Arc<Published>,
    /// What the daemon itself passes on.
    pub relays: Group,
    /// What is wrong.
    pub problems: Arc<[String]>,
}

impl Cache {
    /// What was planned on the very same basis.
    pub(super) fn take(&mut self, container: &str, basis: &Basis) -> Option<Made> {
        self.published.remove(container).filter(|(before, _)| before == basis).map(|(_, made)| made)
    }

    pub(super) fn keep(&mut self, id: &str, basis: Basis, made: Made) {
        self.published.insert(id.to_owned(), (basis, made));
    }
}

/// Everything that a container's published ports rest on. Whatever planning them looks at must be here.
#[derive(PartialEq)]
pub(super) struct Basis {
    /// The container: of what the engine says, only what matters here.
    pub container: Container,
    /// Its own live changes.
    live: Live,
    /// Its endpoints, in the order in which the engine publishes on them: by the names of their networks.
    pub endpoints: Vec<OwnEndpoint>,
    /// The host's rules, where its firewall is asked.
    pub asked: Option<Arc<NatRules>>,
}

/// One of a container's own endpoints.
#[derive(PartialEq)]
pub(super) struct OwnEndpoint {
    pub plan: EndpointPlan,
    /// Whether its bridge lets loopback addresses through.
    pub routes_loopback: bool,
}

impl Basis {
    /// Of a container, once all endpoints are known.
    pub fn of(
        p: &Plan,
        snapshot: &Snapshot,
        host: &Host,
        live: &Live,
        options: &Options,
        container: &Container,
    ) -> Self {
        let name = |e: &&EndpointPlan| snapshot.networks.get(&e.network).map(|n| n.name.clone());
        let mut endpoints: Vec<&EndpointPlan> = p.endpoints_of(&container.id).collect();
        endpoints.sort_by_key(name);
        let own =
            |e: &EndpointPlan| OwnEndpoint { plan: e.clone(), routes_loopback: host.localnet.contains(&e.bridge) };
        Basis {
            container: Container {
                id: container.id.clone(),
                name: container.name.clone(),
                labels: container.labels.clone(),
                publications: container.publications.clone(),
                unserved: container.unserved.clone(),
                ..Container::default()
            },
            live: Live {
                publications: live.made_on(container).cloned().collect(),
                unpublished: live.taken_from(container).map(|gone| (container.id.clone(), gone.clone())).collect(),
                ..Live::default()
            },
            endpoints: endpoints.into_iter().map(own).collect(),
            asked: (options.netfilter == Netfilter::Honor).then(|| host.nat.clone()),
        }
    }

    /// The publications that are planned.
    pub fn publications(&self) -> Vec<EffectivePublication> {
        self.live.publications_of(&self.container)
    }
}
