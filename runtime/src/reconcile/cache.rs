//! What of a plan can be used again: a container's published ports, for as long as nothing that they rest on changes. Large
//! ranges that were published live are kept each by itself: a port more takes none of them to be planned anew.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::endpoint::{EndpointPlan, OwnEndpoint};
use super::options::{Netfilter, Options};
use super::plan::Plan;
use super::relay::Group;
use crate::datapath::{Published, Sources};
use crate::host::{Host, NatRules};
use crate::model::live::{EffectivePublication, Live, LivePublication};
use crate::model::range::PublicationRange;
use crate::model::{Container, Snapshot};

/// From how many ports on a range is kept by itself.
const LARGE: u16 = 64;

/// A container's published ports: those of a large range, or all the others.
type Part = (String, Option<PublicationRange>);

/// Published ports of the plan before.
#[derive(Default)]
pub struct Cache {
    published: HashMap<Part, (Basis, Made)>,
    /// Lists of sources by their numbers: one that many publications name is there once.
    pub(super) lists: HashMap<u64, Arc<Sources>>,
}

/// What is made of published ports of a container.
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
    pub(super) fn take(&mut self, basis: &Basis) -> Option<Made> {
        self.published.remove(&basis.part()).filter(|(before, _)| before == basis).map(|(_, made)| made)
    }

    /// For the next plan: with the lists of this one alone.
    pub(super) fn next(&mut self) -> Cache {
        Cache { lists: std::mem::take(&mut self.lists), ..Cache::default() }
    }

    /// Forgets lists that nobody names any more.
    pub(super) fn forget_lists(&mut self) {
        self.lists.retain(|_, list| Arc::strong_count(list) > 1);
    }

    pub(super) fn keep(&mut self, basis: Basis, made: Made) {
        self.published.insert(basis.part(), (basis, made));
    }
}

/// Everything that published ports of a container rest on. Whatever planning them looks at must be here.
#[derive(PartialEq)]
pub(super) struct Basis {
    /// The container: of what the engine says, only what matters here.
    pub container: Container,
    /// The large range, where this is of one.
    large: Option<PublicationRange>,
    /// Its own live changes.
    live: Live,
    /// Its endpoints, in the order in which the engine lets default routes leave on them.
    pub endpoints: Arc<[OwnEndpoint]>,
    /// The host's rules, where its firewall is asked.
    pub asked: Option<Arc<NatRules>>,
}

impl Basis {
    /// All of a container that has any, once all endpoints are known.
    pub fn all_of(
        p: &Plan,
        snapshot: &Snapshot,
        host: &Host,
        live: &Live,
        options: &Options,
        container: &Container,
    ) -> Vec<Self> {
        let rank = |e: &&EndpointPlan| {
            let network = snapshot.networks.get(&e.network);
            let wish =
                container.endpoints.iter().find(|own| own.network == e.network).map_or(0, |e| e.gateway_priority);
            (network.is_some_and(|n| n.internal), Reverse(wish), network.map(|n| n.name.clone()))
        };
        let mut endpoints: Vec<&EndpointPlan> = p.endpoints_of(&container.id).collect();
        endpoints.sort_by_key(rank);
        let gateways = host.gateways.get(&container.id).copied().unwrap_or_default();
        let own = |e: &EndpointPlan| {
            let leads = |gateway: Option<IpAddr>| {
                gateway.is_some_and(|g| snapshot.networks.get(&e.network).is_some_and(|n| n.contains(&g)))
            };
            OwnEndpoint {
                plan: e.clone(),
                routes_loopback: host.localnet.contains(&e.bridge),
                leads_out: (leads(gateways.ipv4.map(IpAddr::from)), leads(gateways.ipv6.map(IpAddr::from))),
            }
        };
        let endpoints: Arc<[OwnEndpoint]> = endpoints.into_iter().map(own).collect();
        let asked = (options.netfilter == Netfilter::Honor).then(|| host.nat.clone());
        let basis = |container: Container, large: Option<PublicationRange>, live: Live| Basis {
            container,
            large,
            live,
            endpoints: endpoints.clone(),
            asked: asked.clone(),
        };
        let own = || Container { id: container.id.clone(), name: container.name.clone(), ..Container::default() };
        // What takes the place of something of the engine's matters to what is left of that.
        let is_large = |made: &&LivePublication| {
            let range = &made.publication;
            range.ports() >= LARGE && !container.publications.iter().any(|p| range.contains(p))
        };
        let (large, others): (Vec<_>, Vec<_>) = live.made_on(container).partition(is_large);
        let mut all: Vec<Basis> = large
            .into_iter()
            .map(|made| {
                let live = Live { publications: vec![made.clone()], ..Live::default() };
                basis(own(), Some(made.publication.clone()), live)
            })
            .collect();
        if !container.publications.is_empty() || !others.is_empty() {
            let container = Container {
                labels: container.labels.clone(),
                publications: container.publications.clone(),
                unserved: container.unserved.clone(),
                ..own()
            };
            let unpublished = live.taken_from(&container).map(|gone| (container.id.clone(), gone.clone())).collect();
            let live = Live { publications: others.into_iter().cloned().collect(), unpublished, ..Live::default() };
            all.push(basis(container, None, live));
        }
        all
    }

    /// The publications that are planned.
    pub fn publications(&self) -> Vec<EffectivePublication> {
        self.live.publications_of(&self.container)
    }

    fn part(&self) -> Part {
        (self.container.id.clone(), self.large.clone())
    }
}
