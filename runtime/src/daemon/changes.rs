//! Changes on running containers: publish, unpublish, link, unlink.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{SystemTime, UNIX_EPOCH};

use runtime_common::Protocol;
use serde_json::json;

use super::api::{Answer, Refusal};
use super::ports;
use super::world::World;
use crate::model::filter::Filter;
use crate::model::live::{EffectivePublication, Live, LiveLink, LivePublication};
use crate::model::publish::{PublishRequest, parse_publish};
use crate::model::{Container, Link, Port, Publication, Snapshot};

impl World {
    /// A container by name, full id, or the beginning of its id.
    pub(super) fn find(&self, name: &str) -> Result<&Container, Refusal> {
        let wanted = name.strip_prefix('/').unwrap_or(name);
        let all = &self.snapshot.containers;
        let exact = all.get(wanted).or_else(|| all.values().find(|c| c.name == wanted));
        if let Some(container) = exact {
            return Ok(container);
        }
        let mut by_prefix = all.values().filter(|c| !wanted.is_empty() && c.id.starts_with(wanted));
        match (by_prefix.next(), by_prefix.next()) {
            (Some(container), None) => Ok(container),
            (Some(_), Some(_)) => Err(Refusal::failed(format!("more than one container's id begins with {name}"))),
            _ => Err(Refusal::failed(format!("no such container: {name}"))),
        }
    }

    fn find_running(&self, name: &str) -> Result<&Container, Refusal> {
        let container = self.find(name)?;
        if container.running {
            return Ok(container);
        }
        Err(Refusal::failed(format!("container {:?} is not running: start it first", container.name)))
    }

    pub(super) fn publish(&mut self, container: &str, spec: &str, filter: &Filter) -> Answer {
        let requests = parse_publish(spec).map_err(Refusal::usage)?;
        let container = self.find_running(container)?.clone();
        if !container.endpoints.iter().any(|e| !e.id.is_empty()) {
            return Err(Refusal::failed(format!(
                "container {:?} has no network of its own to publish on",
                container.name
            )));
        }
        let mut live = self.live.get().clone();
        let mut taken = Taken::new(&self.snapshot, &live);
        // Publishing again what this container publishes changes who may use it.
        for p in live.publications_of(&container).iter().filter(|p| !p.closed) {
            if requests.iter().any(|r| asks_for(r, &p.publication)) {
                taken.remove(&p.publication);
            }
        }
        let mut made: Vec<Publication> = Vec::new();
        for request in &requests {
            let chosen = self.choose(&taken, request)?;
            for publication in &chosen {
                taken.add(publication, &container.name);
            }
            made.extend(chosen);
        }
        let given_back: HashSet<&Publication> = made.iter().collect();
        live.unpublished.retain(|(id, p)| !(*id == container.id && given_back.contains(p)));
        live.publications.retain(|l| !(l.container == container.id && given_back.contains(&l.publication)));
        live.publications.extend(made.iter().map(|publication| LivePublication {
            container: container.id.clone(),
            publication: publication.clone(),
            filter: filter.clone(),
            created: now(),
        }));
        self.set_live(live)?;
        Ok(json!({"changed": true, "publications": made}))
    }

    /// The addresses and the port of a request, all of them free.
    fn choose(&self, taken: &Taken, request: &PublishRequest) -> Result<Vec<Publication>, Refusal> {
        let addresses: Vec<IpAddr> = match request.host_addr {
            Some(address) => vec![address],
            None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
        };
        let on = |port: u16| -> Vec<Publication> {
            let publication =
                |a: &IpAddr| Publication { host_addr: *a, host_port: port, container_port: request.container_port };
            addresses.iter().map(publication).collect()
        };
        let Some(range) = request.host_ports.clone() else {
            let port = ports::random(request.container_port.protocol, &addresses).map_err(Refusal::failed)?;
            return Ok(on(port));
        };
        let mut first_refusal = None;
        for port in range {
            let publications = on(port);
            match publications.iter().try_for_each(|p| self.check_free(taken, p)) {
                Ok(()) => return Ok(publications),
                Err(e) => first_refusal = first_refusal.or(Some(e)),
            }
        }
        Err(first_refusal.unwrap_or_else(|| Refusal::failed("no port given")))
    }

    fn check_free(&self, taken: &Taken, wanted: &Publication) -> Result<(), Refusal> {
        if let Some((address, container)) = taken.holder(wanted) {
            return Err(Refusal::failed(format!(
                "port {}/{} on {address} is already published by container {container:?}",
                wanted.host_port, wanted.container_port.protocol
            )));
        }
        // Taken away live, the engine itself still holds it; and what this daemon holds is its own.
        if taken.engine.contains(wanted) || self.held_ports.holds(wanted) || self.relays.holds(wanted) {
            return Ok(());
        }
        let port = wanted.container_port;
        ports::is_free(port.protocol, wanted.host_addr, wanted.host_port).map_err(Refusal::failed)
    }

    pub(super) fn unpublish(&mut self, container: &str, spec: &str) -> Answer {
        let requests = parse_publish(spec).map_err(Refusal::usage)?;
        let container = self.find(container)?.clone();
        let mut live = self.live.get().clone();
        let mut gone: Vec<Publication> = Vec::new();
        // By container port: a range asks for thousands.
        let mut published: HashMap<Port, Vec<EffectivePublication>> = HashMap::new();
        for p in live.publications_of(&container).into_iter().filter(|p| !p.closed) {
            published.entry(p.publication.container_port).or_default().push(p);
        }
        for request in &requests {
            let matches = |p: &Publication| {
                p.container_port == request.container_port
                    && request.host_addr.is_none_or(|a| a == p.host_addr)
                    && request.host_ports.as_ref().is_none_or(|r| r.contains(&p.host_port))
            };
            let of_port = published.remove(&request.container_port).unwrap_or_default();
            let (found, others): (Vec<_>, Vec<_>) = of_port.into_iter().partition(|p| matches(&p.publication));
            published.insert(request.container_port, others);
            if found.is_empty() {
                return Err(Refusal::failed(format!("container {:?} does not publish {request}", container.name)));
            }
            for p in found {
                if container.publications.contains(&p.publication) {
                    live.unpublished.push((container.id.clone(), p.publication.clone()));
                }
                gone.push(p.publication);
            }
        }
        let taken_away: HashSet<&Publication> = gone.iter().collect();
        live.publications.retain(|l| !(l.container == container.id && taken_away.contains(&l.publication)));
        self.set_live(live)?;
        Ok(json!({"changed": true, "publications": gone}))
    }

    pub(super) fn link(&mut self, recipient: &str, source: &str, alias: String, all_ports: bool) -> Answer {
        let recipient = self.find(recipient)?.clone();
        let source = self.find(source)?.clone();
        if !source.running {
            return Err(Refusal::failed(format!(
                "Cannot link to a non running container: /{} AS /{}/{alias}",
                source.name, recipient.name
            )));
        }
        self.find_running(&recipient.id)?;
        if recipient.id == source.id {
            return Err(Refusal::failed(format!("container {:?} cannot be linked to itself", source.name)));
        }
        let networks = |c: &Container| {
            let on_bridges = c
                .endpoints
                .iter()
                .filter(|e| self.snapshot.networks.get(&e.network).is_some_and(|n| n.driver == "bridge"));
            on_bridges.map(|e| e.network.clone()).collect::<Vec<_>>()
        };
        let shared = networks(&recipient).into_iter().any(|n| networks(&source).contains(&n));
        if !shared {
            return Err(Refusal::failed(format!(
                "containers {:?} and {:?} share no bridge network: connect them to one with \"docker network connect\"",
                recipient.name, source.name
            )));
        }
        let mut live = self.live.get().clone();
        if let Some(taken) = live.links_of(&recipient).into_iter().find(|l| l.link.alias == alias) {
            let holder = self.snapshot.containers.get(&taken.link.source).map_or("another", |c| c.name.as_str());
            return Err(Refusal::failed(format!(
                "container {:?} has a link with alias {alias:?} already, to {holder:?}: unlink it first",
                recipient.name
            )));
        }
        let link = Link { source: source.id.clone(), alias };
        live.unlinked.retain(|(id, l)| !(*id == recipient.id && *l == link));
        live.links.push(LiveLink { recipient: recipient.id.clone(), link, all_ports, created: now() });
        self.set_live(live)?;
        Ok(json!({"changed": true}))
    }

    pub(super) fn unlink(&mut self, recipient: &str, target: &str) -> Answer {
        let recipient = self.find(recipient)?.clone();
        let target = target.strip_prefix('/').unwrap_or(target);
        let (source, alias) = match target.split_once(':') {
            Some((source, alias)) => (Some(source), Some(alias)),
            None => (None, None),
        };
        // `/web/webdb` and `webdb` name the alias, as `docker rm --link` does; a source's name stands for all its links.
        let last = target.rsplit('/').next().unwrap_or(target);
        let by_source = |l: &Link, name: &str| self.find(name).is_ok_and(|c| c.id == l.source);
        let mut live = self.live.get().clone();
        let matching: Vec<Link> = live
            .links_of(&recipient)
            .into_iter()
            .map(|l| l.link)
            .filter(|l| match (source, alias) {
                (Some(source), Some(alias)) => l.alias == alias && by_source(l, source),
                _ => l.alias == last || by_source(l, target),
            })
            .collect();
        if matching.is_empty() {
            return Err(Refusal::failed(format!("container {:?} has no link {target:?}", recipient.name)));
        }
        for link in matching {
            live.links.retain(|l| !(l.recipient == recipient.id && l.link == link));
            // Also of a live link, so that its line leaves /etc/hosts.
            live.unlinked.push((recipient.id.clone(), link));
        }
        live.unlinked.dedup();
        self.set_live(live)?;
        Ok(json!({"changed": true}))
    }
}

/// Whether a request names exactly this publication.
fn asks_for(request: &PublishRequest, p: &Publication) -> bool {
    let address = request.host_addr.map_or(p.host_addr.is_unspecified(), |a| a == p.host_addr);
    address && p.container_port == request.container_port && request.fixed_host_port() == Some(p.host_port)
}

/// Which host ports containers have.
struct Taken {
    by_port: HashMap<(Protocol, u16), Vec<(IpAddr, String)>>,
    /// What the engine has bound, served or not.
    engine: HashSet<Publication>,
}

impl Taken {
    fn new(snapshot: &Snapshot, live: &Live) -> Self {
        let mut taken = Taken { by_port: HashMap::new(), engine: HashSet::new() };
        for container in snapshot.containers.values() {
            taken.engine.extend(container.publications.iter().cloned());
            for p in live.publications_of(container).iter().filter(|p| !p.closed) {
                taken.add(&p.publication, &container.name);
            }
        }
        taken
    }

    fn remove(&mut self, p: &Publication) {
        if let Some(holders) = self.by_port.get_mut(&(p.container_port.protocol, p.host_port)) {
            holders.retain(|(address, _)| *address != p.host_addr);
        }
    }

    fn add(&mut self, p: &Publication, container: &str) {
        let holders = self.by_port.entry((p.container_port.protocol, p.host_port)).or_default();
        holders.push((p.host_addr, container.to_owned()));
    }

    /// Who has the port on this address, or on every address of its family.
    fn holder(&self, wanted: &Publication) -> Option<&(IpAddr, String)> {
        let holders = self.by_port.get(&(wanted.container_port.protocol, wanted.host_port))?;
        let meets = |a: &IpAddr| *a == wanted.host_addr || a.is_unspecified() || wanted.host_addr.is_unspecified();
        holders.iter().find(|(a, _)| a.is_ipv4() == wanted.host_addr.is_ipv4() && meets(a))
    }
}

/// Nanoseconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|d| d.as_nanos() as u64).unwrap_or_default()
}
