//! What the daemon tells people: status, links, live publications.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;

use runtime_api::{CounterRow, EndpointRow, HookRow, LinkRow, LivePublication, PublicationRow, Refusal, StatusReport};

use super::world::World;
use crate::datapath::{Standing, kernel_release};
use crate::host::listening_proxies;
use crate::model::environment::link_environment;
use crate::model::{Port, Publication};
use crate::reconcile::{EndpointPlan, open_ports, swarm};

impl World {
    pub(super) fn status(&self) -> Result<StatusReport, Refusal> {
        let counters = self.datapath.counters().map_err(Refusal::failed)?;
        let (hooks, lost) = self.datapath.attached();
        let mut problems = self.plan.problems.clone();
        problems.extend(lost);
        problems.extend(self.datapath.lost_pins());
        problems.extend(self.lost.problems());
        problems.extend(self.unconfined.iter().cloned());
        let publications = self.publication_rows(&self.datapath.standing(&hooks, &self.plan.roles), &mut problems);
        problems.extend(self.datapath.problem().map(str::to_owned));
        problems.extend(self.relays.problems(self.datapath.relay_problem()));
        problems.extend(self.errors.iter().cloned());
        problems.extend(self.firewall.iter().cloned());
        problems.extend(self.nat_trouble.iter().cloned());
        problems.extend(self.closed_publications());
        if self.cannot_tell {
            problems.push(super::socket_closer::UNSUPPORTED.to_owned());
        }
        if !self.engine_connected {
            problems.insert(0, "the engine is away: its last known state is served".to_owned());
        }
        Ok(StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            engine: self.engine_version.clone(),
            engine_connected: self.engine_connected,
            kernel: kernel_release(),
            attachment: self.datapath.attachment().to_owned(),
            isolate: format!("{:?}", self.options.isolate).to_lowercase(),
            enforcing: self.datapath.enforcing().map_err(Refusal::failed)?,
            hooks: hooks.into_iter().map(HookRow::from).collect(),
            endpoints: self.endpoint_rows(),
            publications,
            links: self.link_rows(),
            masquerade: self.plan.masquerade.clone(),
            netfilter: self.options.netfilter.into(),
            flows: self.flows,
            collecting: self.collecting,
            counters: counters
                .into_iter()
                .map(|(v, packets)| CounterRow {
                    verdict: v.name().to_owned(),
                    kind: v.kind().name().to_owned(),
                    packets: packets + self.relays.refused(v),
                    text: v.text().to_owned(),
                })
                .collect(),
            drops: self.drops.iter().cloned().collect(),
            problems,
        })
    }

    /// What the engine does not tell: what was published live or is relayed, and what was taken away.
    pub(super) fn live_publications(&self) -> Vec<LivePublication> {
        let live = self.live.get();
        let row = |container: &str, publication, closed| LivePublication {
            container: container.to_owned(),
            publication,
            closed,
        };
        let made = live.publications.iter().flat_map(|p| p.publication.iter().map(|one| row(&p.container, one, false)));
        let gone = self.snapshot.containers.values().filter(|c| live.taken_from(c).next().is_some()).flat_map(|c| {
            let closed = live.publications_of(c).into_iter().filter(|p| p.closed);
            closed.map(|p| row(&c.id, p.publication, true))
        });
        let relayed = self.plan.relays.iter().filter_map(|(key, relay)| {
            let container_port = Port::new(relay.to.port(), key.protocol);
            let publication = Publication { host_addr: key.address.into(), host_port: key.port, container_port };
            let container = self.snapshot.containers.get(&relay.container)?;
            // Another container's counts.
            self.plan.relays.get(key).filter(|first| *first == relay)?;
            let told = !container.unserved.contains(&publication) || relay.live;
            (!told).then(|| row(&relay.container, publication, false))
        });
        made.chain(relayed).chain(gone).collect()
    }

    fn name(&self, container: &str) -> String {
        self.snapshot.containers.get(container).map_or_else(|| container.to_owned(), |c| c.name.clone())
    }

    fn endpoint_rows(&self) -> Vec<EndpointRow> {
        self.plan
            .endpoints
            .iter()
            .map(|e| EndpointRow {
                container: self.name(&e.container),
                network: self.snapshot.networks.get(&e.network).map_or_else(|| e.network.clone(), |n| n.name.clone()),
                interface: self.host.interfaces.get(&e.ifindex).map(|i| i.name.clone()).unwrap_or_default(),
                addresses: e.addresses().map(|a| a.to_string()).collect(),
                isolated: e.isolated,
            })
            .collect()
    }

    /// A line is added to `problems` for each container of which the kernel lost something.
    fn publication_rows(&self, standing: &Standing, problems: &mut Vec<String>) -> Vec<PublicationRow> {
        let mut rows = Vec::new();
        // Looked for once, and only where something is not served otherwise.
        let mut proxies: Option<HashSet<(SocketAddr, String)>> = None;
        for container in self.snapshot.containers.values().filter(|c| c.running) {
            let mut faults = BTreeMap::new();
            for p in self.live.get().publications_of(container) {
                // Where it is published on several endpoints, one that is served is enough.
                let family = |e: &&EndpointPlan| e.address_like(&p.publication.host_addr).is_some();
                let ways = self.plan.endpoints_of(&container.id).filter(family);
                let mut by_proxy = || {
                    let at = SocketAddr::new(p.publication.host_addr, p.publication.host_port);
                    let key = (at, p.publication.container_port.protocol.name().to_owned());
                    p.created == 0 && proxies.get_or_insert_with(listening_proxies).contains(&key)
                };
                let ways: Vec<_> = ways.map(|e| standing.fault(&p.publication, e.ifindex)).collect();
                let state = match p.closed || p.filter.is_err() {
                    true => "closed",
                    false if ways.contains(&None) => "served",
                    false if self.relays.serves(&p.publication) => "relayed",
                    false if by_proxy() => "by the engine",
                    false => "not served",
                };
                if state == "not served"
                    && let Some(Some(fault)) = ways.first()
                {
                    let (first, more) = faults.entry(*fault).or_insert_with(|| (p.publication.clone(), 0));
                    *more += usize::from(*first != p.publication);
                }
                rows.push(PublicationRow {
                    container: container.name.clone(),
                    publication: p.publication,
                    filter: p.filter.map_or_else(|e| e, |f| f.to_string()),
                    origin: if p.created == 0 { "engine" } else { "live" }.to_owned(),
                    state: state.to_owned(),
                });
            }
            for (fault, (first, more)) in faults {
                let host = SocketAddr::new(first.host_addr, first.host_port);
                let more = if more == 0 { String::new() } else { format!(" and {more} more") };
                problems.push(format!("{}: {host}{more} not served: {fault}", container.name));
            }
        }
        rows
    }

    pub(super) fn link_rows(&self) -> Vec<LinkRow> {
        let live = self.live.get();
        let mut rows = Vec::new();
        for recipient in self.snapshot.containers.values() {
            for link in live.links_of(recipient) {
                let Some(source) = self.snapshot.containers.get(&link.link.source) else { continue };
                let gateway = |id: &str| self.snapshot.networks.get(id).is_some_and(swarm::is_gateway);
                let address = self.plan.endpoints_of(&recipient.id).filter(|r| !gateway(&r.network)).find_map(|r| {
                    let s = self.plan.endpoints_of(&source.id).find(|s| s.network == r.network)?;
                    s.addresses().next()
                });
                let ports = match link.all_ports {
                    true => vec!["all".to_owned()],
                    false => open_ports(source, live).iter().map(|p| p.to_string()).collect(),
                };
                let environment = address.map(|a| link_environment(&recipient.name, &link.link.alias, source, a));
                rows.push(LinkRow {
                    recipient: recipient.name.clone(),
                    source: source.name.clone(),
                    alias: link.link.alias.clone(),
                    ports,
                    address: address.map(|a| a.to_string()),
                    origin: if link.created == 0 { "engine" } else { "live" }.to_owned(),
                    active: address.is_some(),
                    environment: environment.unwrap_or_default().into_iter().map(|(k, v)| format!("{k}={v}")).collect(),
                });
            }
        }
        rows.sort_by(|a, b| (&a.recipient, &a.alias).cmp(&(&b.recipient, &b.alias)));
        rows
    }
}
