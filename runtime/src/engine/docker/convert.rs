//! From the Engine's words to the model's.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bollard::models::{
    ContainerInspectResponse, ContainerSummary, ContainerSummaryStateEnum, EndpointSettings, EventMessage,
    EventMessageTypeEnum, HostConfig, Network as NetworkSummary, NetworkInspect, PortBinding, PortMap,
};

use super::names::{Names, own_name};
use crate::engine::{Change, Event};
use crate::model::{Container, Endpoint, Link, Network, Port, Publication};

/// What Docker writes for "never".
const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// A container from `inspect`; `None` when the answer names no id.
pub fn container(inspect: ContainerInspectResponse, names: &Names) -> Option<Container> {
    let id = inspect.id.filter(|id| !id.is_empty())?;
    let config = inspect.config.unwrap_or_default();
    let host = inspect.host_config.unwrap_or_default();
    let settings = inspect.network_settings.unwrap_or_default();
    let state = inspect.state.unwrap_or_default();
    let networks = settings.networks.unwrap_or_default();

    // Both are true while the Engine waits to restart it: no process then.
    let running = state.running == Some(true) && state.restarting != Some(true);
    let published = settings.ports.unwrap_or_default();
    let mut exposed: BTreeSet<Port> = config.exposed_ports.iter().flatten().filter_map(|p| p.parse().ok()).collect();
    exposed.extend(published.keys().filter_map(|p| p.parse::<Port>().ok()));
    exposed.extend(host.port_bindings.iter().flat_map(HashMap::keys).filter_map(|p| p.parse::<Port>().ok()));

    let mut links: BTreeSet<Link> = host.links.iter().flatten().filter_map(|l| default_bridge_link(l, names)).collect();
    for endpoint in networks.values() {
        links.extend(endpoint.links.iter().flatten().filter_map(|l| custom_network_link(l, names)));
    }
    let endpoints = endpoints(&networks, names);
    let mut publications = if running { publications(&published) } else { Vec::new() };
    let unserved = if running { unserved(&host, &publications, &endpoints) } else { BTreeSet::new() };
    publications.extend(unserved.iter().cloned());
    publications.sort();
    let mode = host.network_mode.unwrap_or_default();
    let own_sandbox = mode != "host" && !mode.starts_with("container:");
    Some(Container {
        id,
        name: inspect.name.unwrap_or_default().trim_start_matches('/').to_owned(),
        hostname: config.hostname.unwrap_or_default(),
        running,
        started_at: state.started_at.filter(|t| t != ZERO_TIME).unwrap_or_default(),
        pid: if running { state.pid.and_then(|p| u32::try_from(p).ok()).unwrap_or(0) } else { 0 },
        labels: config.labels.unwrap_or_default().into_iter().collect(),
        env: config.env.unwrap_or_default(),
        exposed: exposed.into_iter().collect(),
        publications,
        unserved,
        links: links.into_iter().collect(),
        endpoints,
        sandbox: settings.sandbox_key.filter(|k| running && own_sandbox && !k.is_empty()).map(Into::into),
        // Another container's file is no business of this one.
        hosts_path: inspect.hosts_path.filter(|p| !p.is_empty() && !mode.starts_with("container:")).map(Into::into),
    })
}

/// What the list says of a container: all that can be had of one that the Engine is busy starting. Its environment,
/// process id, sandbox and links on networks of the user's own are not in it.
pub fn container_from_summary(summary: &ContainerSummary, names: &Names) -> Option<Container> {
    let id = summary.id.clone().filter(|id| !id.is_empty())?;
    let name = own_name(summary)?.to_owned();
    let running = matches!(
        summary.state,
        Some(
            ContainerSummaryStateEnum::RUNNING
                | ContainerSummaryStateEnum::PAUSED
                | ContainerSummaryStateEnum::STOPPING
        )
    );
    let mut exposed = BTreeSet::new();
    let mut publications = BTreeSet::new();
    for p in summary.ports.iter().flatten() {
        let Some(protocol) = p.typ.and_then(|t| t.to_string().parse().ok()) else { continue };
        let container_port = Port::new(p.private_port, protocol);
        exposed.insert(container_port);
        let host_port = p.public_port.filter(|p| *p != 0 && running);
        if let (Some(host_addr), Some(host_port)) = (host_addr(p.ip.as_deref()), host_port) {
            publications.insert(Publication { host_addr, host_port, container_port });
        }
    }
    let networks = summary.network_settings.clone().and_then(|s| s.networks).unwrap_or_default();
    let links: BTreeSet<Link> = names.links_of(&name).collect();
    Some(Container {
        hostname: id.chars().take(12).collect(),
        id,
        name,
        running,
        started_at: String::new(),
        pid: 0,
        labels: summary.labels.clone().unwrap_or_default().into_iter().collect(),
        env: Vec::new(),
        exposed: exposed.into_iter().collect(),
        publications: publications.into_iter().collect(),
        unserved: BTreeSet::new(),
        links: links.into_iter().collect(),
        endpoints: endpoints(&networks, names),
        sandbox: None,
        hosts_path: None,
    })
}

/// `/db:/web/webdb`, in `HostConfig.Links`: the Engine writes the source's present name.
fn default_bridge_link(link: &str, names: &Names) -> Option<Link> {
    let (source, path) = link.split_once(':')?;
    let source = names.container(source.trim_start_matches('/'))?.to_owned();
    Some(Link { source, alias: path.rsplit('/').next()?.to_owned() })
}

/// `db:webdb` or `db` alone, in the settings of an endpoint on a network of the user's own.
fn custom_network_link(link: &str, names: &Names) -> Option<Link> {
    let (source, alias) = link.split_once(':').unwrap_or((link, link));
    let source = names.container(source.trim_start_matches('/'))?.to_owned();
    Some(Link { source, alias: alias.rsplit('/').next()?.to_owned() })
}

/// The publications of `NetworkSettings.Ports`, in order, each once.
pub fn publications(ports: &PortMap) -> Vec<Publication> {
    let mut all = BTreeSet::new();
    for (port, bindings) in ports {
        let Ok(container_port) = port.parse::<Port>() else { continue };
        for binding in bindings.iter().flatten() {
            let host_port = binding.host_port.as_deref().and_then(|p| p.parse().ok()).filter(|p: &u16| *p != 0);
            if let (Some(host_addr), Some(host_port)) = (host_addr(binding.host_ip.as_deref()), host_port) {
                all.insert(Publication { host_addr, host_port, container_port });
            }
        }
    }
    all.into_iter().collect()
}

/// What was asked for on IPv6 addresses and is not among the `listed` publications: without docker-proxy, the Engine forgets
/// about it where the container has no address of IPv6. Where it chose the port, that of IPv4 is the one.
fn unserved(host: &HostConfig, listed: &[Publication], endpoints: &[Endpoint]) -> BTreeSet<Publication> {
    if endpoints.iter().any(|e| e.ipv6.is_some()) {
        return BTreeSet::new();
    }
    let bindings = host.port_bindings.iter().flatten();
    let bindings = bindings.filter_map(|(port, list)| Some((port.parse().ok()?, list.as_deref().unwrap_or_default())));
    let bindings: HashMap<Port, &[PortBinding]> = bindings.collect();
    let mut asked = BTreeSet::new();
    for p in listed.iter().filter(|p| p.host_addr == IpAddr::from(Ipv4Addr::UNSPECIFIED)) {
        let everywhere = match bindings.get(&p.container_port) {
            None | Some([]) => host.publish_all_ports == Some(true),
            Some(list) => list.iter().any(|b| {
                b.host_ip.as_deref().unwrap_or_default().is_empty()
                    && covers(b.host_port.as_deref().unwrap_or_default(), p.host_port)
            }),
        };
        if everywhere {
            asked.insert(Publication { host_addr: Ipv6Addr::UNSPECIFIED.into(), ..p.clone() });
        }
    }
    for (container_port, binding) in bindings.iter().flat_map(|(port, list)| list.iter().map(move |b| (*port, b))) {
        let host_port = binding.host_port.as_deref().and_then(|p| p.parse().ok()).filter(|p| *p != 0);
        if let (Some(host_addr @ IpAddr::V6(_)), Some(host_port)) = (host_addr(binding.host_ip.as_deref()), host_port) {
            asked.insert(Publication { host_addr, host_port, container_port });
        }
    }
    for p in listed {
        asked.remove(p);
    }
    asked
}

/// Whether a binding's port is this one, or left to the Engine (altogether, or within a range).
fn covers(asked: &str, port: u16) -> bool {
    if asked.is_empty() || asked == "0" {
        return true;
    }
    let (start, end) = asked.split_once('-').unwrap_or((asked, asked));
    start.parse().is_ok_and(|s: u16| s <= port) && end.parse().is_ok_and(|e: u16| port <= e)
}

/// No address is every IPv4 address.
fn host_addr(text: Option<&str>) -> Option<IpAddr> {
    match text {
        None | Some("") => Some(Ipv4Addr::UNSPECIFIED.into()),
        Some(text) => text.trim_start_matches('[').trim_end_matches(']').parse().ok(),
    }
}

fn endpoints(networks: &HashMap<String, EndpointSettings>, names: &Names) -> Vec<Endpoint> {
    let mut all: Vec<Endpoint> = networks
        .iter()
        .filter_map(|(name, e)| {
            let known = e.network_id.clone().filter(|id| !id.is_empty());
            // The id of a network is that of the last start, if any: the Engine makes its default one anew with every restart
            // of its own.
            let current = || names.network(name).map(str::to_owned);
            let connected = e.endpoint_id.as_deref().is_some_and(|id| !id.is_empty());
            let network = if connected { known.or_else(current) } else { current().or(known) };
            Some(Endpoint {
                network: network?,
                id: e.endpoint_id.clone().unwrap_or_default(),
                mac: e.mac_address.as_deref().and_then(mac),
                ipv4: e.ip_address.as_deref().and_then(address),
                ipv6: e.global_ipv6_address.as_deref().and_then(address),
                gateway_priority: e.gw_priority.unwrap_or_default(),
            })
        })
        .collect();
    all.sort_by(|a, b| a.network.cmp(&b.network));
    all
}

/// A network from `inspect`; `None` when the answer names no id.
pub fn network(inspect: NetworkInspect) -> Option<Network> {
    let id = inspect.id.filter(|id| !id.is_empty())?;
    let driver = inspect.driver.unwrap_or_default();
    let options = inspect.options.unwrap_or_default();
    let is_default_bridge =
        options.get("com.docker.network.bridge.default_bridge").is_some_and(|v| v.eq_ignore_ascii_case("true"));
    // Absent is yes; the Engine reads it as Go reads a boolean, and refuses what is none.
    let masquerade = !options
        .get("com.docker.network.bridge.enable_ip_masquerade")
        .is_some_and(|v| matches!(v.as_str(), "0" | "f" | "F" | "false" | "False" | "FALSE"));
    // Routed, containers of IPv4 are seen outside under their own addresses.
    let is_routed = options.get("com.docker.network.bridge.gateway_mode_ipv4").is_some_and(|mode| mode == "routed");
    let bridge = (driver == "bridge").then(|| match options.get("com.docker.network.bridge.name") {
        Some(name) if !name.is_empty() => name.clone(),
        _ if is_default_bridge => "docker0".to_owned(),
        _ => format!("br-{}", id.chars().take(12).collect::<String>()),
    });
    let config = inspect.ipam.and_then(|i| i.config).unwrap_or_default();
    let endpoints: BTreeMap<String, Endpoint> = inspect
        .containers
        .unwrap_or_default()
        .into_iter()
        .map(|(container, e)| {
            let endpoint = Endpoint {
                network: id.clone(),
                id: e.endpoint_id.unwrap_or_default(),
                mac: e.mac_address.as_deref().and_then(mac),
                ipv4: e.ipv4_address.as_deref().and_then(address),
                ipv6: e.ipv6_address.as_deref().and_then(address),
                gateway_priority: 0,
            };
            (container, endpoint)
        })
        .collect();
    Some(Network {
        name: inspect.name.unwrap_or_default(),
        driver,
        bridge,
        is_default_bridge,
        internal: inspect.internal == Some(true),
        masquerade: masquerade && !is_routed,
        labels: inspect.labels.unwrap_or_default().into_iter().collect(),
        subnets: config.iter().filter_map(|c| c.subnet.clone()).filter(|s| !s.is_empty()).collect(),
        endpoints,
        id,
    })
}

/// What of an inspected container can be understood only by who goes by a name: the sources of its links as they are referred to, and
/// networks that it is not connected to, by their names.
pub fn names_needed(inspect: &ContainerInspectResponse) -> (BTreeSet<String>, BTreeSet<String>) {
    let networks = || inspect.network_settings.iter().filter_map(|s| s.networks.as_ref()).flatten();
    let of_host = inspect.host_config.iter().filter_map(|h| h.links.as_ref()).flatten();
    let links = of_host.chain(networks().filter_map(|(_, e)| e.links.as_ref()).flatten());
    let source = |link: &String| link.split(':').next().unwrap_or_default().trim_start_matches('/').to_owned();
    let unconnected = networks().filter(|(_, e)| e.endpoint_id.as_deref().unwrap_or_default().is_empty());
    (links.map(source).collect(), unconnected.map(|(name, _)| name.clone()).collect())
}

/// The ids and names of listed networks.
pub fn network_name(summary: &NetworkSummary) -> Option<(String, String)> {
    Some((summary.name.clone()?, summary.id.clone()?))
}

/// An event that may change what the datapath serves; `None` for the rest (exec, attach, health checks, images, ...).
pub fn event(message: EventMessage) -> Option<Event> {
    let action = message.action?;
    let actor = message.actor?;
    let id = actor.id.filter(|id| !id.is_empty())?;
    match message.typ? {
        EventMessageTypeEnum::CONTAINER => match action.as_str() {
            "die" => Some(Event::Container { id, change: Change::Ended }),
            "destroy" => Some(Event::Container { id, change: Change::Removed }),
            "create" | "start" | "restart" | "stop" | "oom" | "rename" | "update" | "pause" | "unpause" => {
                Some(Event::Container { id, change: Change::Updated })
            }
            _ => None,
        },
        EventMessageTypeEnum::NETWORK => match action.as_str() {
            "connect" | "disconnect" => {
                let container = actor.attributes?.remove("container").filter(|c| !c.is_empty())?;
                Some(Event::Endpoint { network: id, container, connected: action == "connect" })
            }
            _ => Some(Event::Network { id }),
        },
        _ => None,
    }
}

/// `02:42:ac:11:00:03`.
fn mac(text: &str) -> Option<[u8; 6]> {
    let mut bytes = text.split(':').map(|b| u8::from_str_radix(b, 16).ok());
    let mut mac = [0; 6];
    for byte in &mut mac {
        *byte = bytes.next()??;
    }
    bytes.next().is_none().then_some(mac)
}

/// An address, with or without a prefix length behind it.
fn address<A: std::str::FromStr>(text: &str) -> Option<A> {
    text.split('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests;
