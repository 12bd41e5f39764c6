//! Changes on running containers: publish, unpublish, link, unlink.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

use runtime_api::{Changed, Published, Refusal};
use runtime_common::Protocol;

use super::ports::{self, HeldPorts};
use super::world::World;
use crate::model::filter::Filter;
use crate::model::link::is_alias;
use crate::model::live::{Live, LiveLink, LivePublication};
use crate::model::publish::{PublishRequest, parse_publish};
use crate::model::range::{PortSet, PublicationRange};
use crate::model::{Container, Link, Port, Publication, Snapshot};
use crate::reconcile::Netfilter;

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

    pub(super) fn publish(&mut self, container: &str, spec: &str, filter: &Filter) -> Result<Published, Refusal> {
        let requests = parse_publish(spec).map_err(Refusal::usage)?;
        let container = self.find_running(container)?;
        let (id, name) = (container.id.clone(), container.name.clone());
        if !container.endpoints.iter().any(|e| !e.id.is_empty()) {
            return Err(Refusal::failed(format!("container {name:?} has no network of its own to publish on")));
        }
        let mut live = self.live.get().clone();
        let taken = Taken::of(&requests, &self.snapshot, &live);
        let fixed = requests.iter().filter(|r| r.host_addr.is_none());
        let fixed = fixed.filter_map(|r| Some((r.container_port.protocol, r.fixed_host_port()?)));
        self.held_ports.bind_ahead(fixed);
        let mut choose = |request| choose(&mut self.held_ports, &taken, request, &id);
        let made: Result<Vec<Vec<Publication>>, Refusal> = requests.iter().map(&mut choose).collect();
        self.held_ports.drop_ahead();
        let made = match made {
            Ok(made) => made.into_iter().flatten().collect::<Vec<_>>(),
            Err(refusal) => {
                self.held_ports.give_back();
                return Err(refusal);
            }
        };
        if let Some(reason) = made.iter().find_map(|p| self.closed_to(&id, p)) {
            self.held_ports.give_back();
            return Err(Refusal::failed(reason));
        }
        let made = PublicationRange::of(made);
        live.give_back(&id, &made);
        // Publishing again what this container publishes changes who may use it.
        live.forget_publications(&id, &made);
        let created = now();
        live.publications.extend(made.iter().map(|publication| LivePublication {
            container: id.clone(),
            publication: publication.clone(),
            filter: filter.clone(),
            created,
        }));
        self.set_live(live);
        Ok(Published { changed: true, publications: made })
    }

    /// Why nobody outside would reach a port that is published on the running container, where the host's firewall is asked.
    fn closed_to(&self, container: &str, publication: &Publication) -> Option<String> {
        if self.options.netfilter != Netfilter::Honor || publication.host_addr.is_loopback() {
            return None;
        }
        let address = self.plan.endpoints_of(container).find_map(|e| e.address_like(&publication.host_addr))?;
        let port = publication.container_port;
        let to = SocketAddr::new(address, port.number);
        let nat = &self.host.nat;
        if nat.translates(port.protocol.name(), publication.host_port, to) {
            return None;
        }
        let rule = nat.closes(address)?;
        Some(format!(
            "port {}/{} cannot be published under \"--netfilter honor\": the host's rule \"{rule}\" refuses what comes for {address}; let \
             Docker publish it with \"docker run -p\", start dockerd with --allow-direct-routing, or runtime without \"--netfilter honor\"",
            publication.host_port, port.protocol
        ))
    }

    /// The same of what was published before, a line for each container.
    pub(super) fn closed_publications(&self) -> Vec<String> {
        let running = |id: &str| self.snapshot.containers.get(id).filter(|c| c.running);
        let live = self.live.get().publications.iter().filter_map(|p| Some((running(&p.container)?, p)));
        let mut found: BTreeMap<&str, String> = BTreeMap::new();
        for (container, live) in live {
            if let Some(reason) = live.publication.iter().next().and_then(|p| self.closed_to(&container.id, &p)) {
                found.entry(&container.name).or_insert_with(|| format!("{}: {reason}", container.name));
            }
        }
        found.into_values().collect()
    }

    pub(super) fn unpublish(&mut self, container: &str, spec: &str) -> Result<Published, Refusal> {
        let requests = parse_publish(spec).map_err(Refusal::usage)?;
        let container = self.find(container)?;
        let mut live = self.live.get().clone();
        let mut gone: Vec<Publication> = Vec::new();
        // By container port: a range asks for thousands.
        let ports: HashSet<Port> = requests.iter().map(|r| r.container_port).collect();
        let mut published: HashMap<Port, Vec<Publication>> = HashMap::new();
        for p in live.open_publications(container).filter(|p| ports.contains(&p.container_port)) {
            published.entry(p.container_port).or_default().push(p);
        }
        for request in &requests {
            let matches = |p: &Publication| {
                request.host_addr.is_none_or(|a| a == p.host_addr)
                    && request.host_ports.as_ref().is_none_or(|r| r.contains(&p.host_port))
            };
            let of_port = published.remove(&request.container_port).unwrap_or_default();
            let (found, others): (Vec<_>, Vec<_>) = of_port.into_iter().partition(matches);
            published.insert(request.container_port, others);
            if found.is_empty() {
                return Err(Refusal::failed(format!("container {:?} does not publish {request}", container.name)));
            }
            gone.extend(found);
        }
        let engines: HashSet<&Publication> = container.publications.iter().collect();
        let of_engine = gone.iter().filter(|p| engines.contains(p)).cloned().collect();
        let (gone, of_engine) = (PublicationRange::of(gone), PublicationRange::of(of_engine));
        let id = container.id.clone();
        live.forget_publications(&id, &gone);
        live.unpublished.extend(of_engine.into_iter().map(|p| (id.clone(), p)));
        self.set_live(live);
        Ok(Published { changed: true, publications: gone })
    }

    pub(super) fn link(&mut self, wanted: runtime_api::Link) -> Result<Changed, Refusal> {
        let runtime_api::Link { recipient, source, alias, all_ports } = wanted;
        // Whoever asks: the command has looked at it as well.
        if !is_alias(&alias) {
            return Err(Refusal::usage(format!(
                "invalid alias {alias:?}: it is empty, has a blank, a control character or one of \"#=:/\" in it, or more than 255 bytes"
            )));
        }
        let recipient = self.find(&recipient)?.clone();
        let source = self.find(&source)?.clone();
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
        self.set_live(live);
        Ok(Changed { changed: true })
    }

    pub(super) fn unlink(&mut self, recipient: &str, target: &str) -> Result<Changed, Refusal> {
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
        self.set_live(live);
        Ok(Changed { changed: true })
    }
}

/// Takes the port of a request on all its addresses, for the container with this id.
fn choose(
    held: &mut HeldPorts,
    taken: &Taken,
    request: &PublishRequest,
    id: &str,
) -> Result<Vec<Publication>, Refusal> {
    let addresses: Vec<IpAddr> = match request.host_addr {
        Some(address) => vec![address],
        None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
    };
    let mut take = |port: u16| -> Result<Vec<Publication>, Refusal> {
        let publication =
            |a: &IpAddr| Publication { host_addr: *a, host_port: port, container_port: request.container_port };
        let publications: Vec<_> = addresses.iter().map(publication).collect();
        let own = request.fixed_host_port().map(|_| id);
        if let Some((address, container)) = publications.iter().find_map(|p| taken.holder(p, own)) {
            return Err(Refusal::failed(format!(
                "port {port}/{} on {address} is already published by container {container:?}",
                request.container_port.protocol
            )));
        }
        // Taken away live, the engine itself still holds it.
        let missing = publications.iter().filter(|p| !taken.engine.contains(p));
        let missing: Vec<_> = missing.cloned().collect();
        held.take(&missing).map_err(Refusal::failed)?;
        Ok(publications)
    };
    let Some(range) = request.host_ports.clone() else {
        return take(ports::random(request.container_port.protocol, &addresses).map_err(Refusal::failed)?);
    };
    let mut first_refusal = None;
    for port in range {
        match take(port) {
            Ok(publications) => return Ok(publications),
            Err(e) => first_refusal = first_refusal.or(Some(e)),
        }
    }
    Err(first_refusal.unwrap_or_else(|| Refusal::failed("no port given")))
}

/// Who has the host ports that are asked for.
struct Taken<'a> {
    by_port: HashMap<(Protocol, u16), Vec<(Publication, &'a Container)>>,
    /// What the engine has bound, served or not.
    engine: HashSet<&'a Publication>,
}

impl<'a> Taken<'a> {
    fn of(requests: &[PublishRequest], snapshot: &'a Snapshot, live: &Live) -> Self {
        let wanted: PortSet = requests.iter().filter_map(|r| r.host_ports.clone()).flatten().collect();
        let mut taken = Taken { by_port: HashMap::new(), engine: HashSet::new() };
        for container in snapshot.containers.values() {
            taken.engine.extend(container.publications.iter().filter(|p| wanted.contains(p.host_port)));
            for p in live.open_publications(container).filter(|p| wanted.contains(p.host_port)) {
                let key = (p.container_port.protocol, p.host_port);
                taken.by_port.entry(key).or_default().push((p, container));
            }
        }
        taken
    }

    /// Who has the port on this address, or on every address of its family; not the container `own`, where it publishes
    /// the very same.
    fn holder(&self, wanted: &Publication, own: Option<&str>) -> Option<(IpAddr, &str)> {
        let holders = self.by_port.get(&(wanted.container_port.protocol, wanted.host_port))?;
        let meets = |a: IpAddr| a == wanted.host_addr || a.is_unspecified() || wanted.host_addr.is_unspecified();
        let is_again = |p: &Publication, c: &Container| p == wanted && own == Some(c.id.as_str());
        let found = holders.iter().find(|(p, c)| {
            p.host_addr.is_ipv4() == wanted.host_addr.is_ipv4() && meets(p.host_addr) && !is_again(p, c)
        });
        found.map(|(p, c)| (p.host_addr, c.name.as_str()))
    }
}

/// Nanoseconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|d| d.as_nanos() as u64).unwrap_or_default()
}
