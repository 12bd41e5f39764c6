//! From Podman's words to the model's.
//!
//! An inspected container is first put as Docker would put it, and then understood as Docker's.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::Path;

use bollard::models::{
    ContainerInspectResponse, EventMessage, EventMessageTypeEnum, NetworkSettings, PortBinding, PortMap,
};
use serde::Deserialize;

use super::links;
use crate::engine::{Change, Event};
use crate::model::Network;

/// A container of libpod's list: what the compatible API does not tell of it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Listed {
    /// Its full id.
    pub id: String,
    /// Its published ports as they were asked for.
    #[serde(default)]
    pub ports: Option<Vec<PortMapping>>,
}

/// Published ports, as asked for: the compatible API writes `0.0.0.0` for every address of both families.
#[derive(Debug, Deserialize)]
pub struct PortMapping {
    /// The host's address; empty for all of them, of both families.
    #[serde(default)]
    host_ip: String,
    container_port: u16,
    host_port: u16,
    /// How many ports from there on.
    #[serde(default)]
    range: u16,
    /// `tcp`, or some with commas between them.
    protocol: String,
}

/// A network as libpod tells of it.
#[derive(Debug, Deserialize)]
pub struct LibpodNetwork {
    name: String,
    /// Its full id.
    pub id: String,
    driver: String,
    /// The bridge.
    #[serde(default)]
    network_interface: Option<String>,
    #[serde(default)]
    subnets: Option<Vec<Subnet>>,
    #[serde(default)]
    internal: bool,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    options: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
struct Subnet {
    subnet: String,
}

/// A network; `default` is the id of the one that containers are on when none was given.
pub fn network(told: LibpodNetwork, default: &str) -> Network {
    let options = told.options.unwrap_or_default();
    // A bridge of the administrator's: Podman gives it no address and makes no rules for it.
    let unmanaged = options.get("mode").is_some_and(|m| m == "unmanaged");
    let is_bridge = told.driver == "bridge" && !unmanaged;
    Network {
        is_default_bridge: told.id == default,
        id: told.id,
        name: told.name,
        driver: if unmanaged { format!("{}, unmanaged", told.driver) } else { told.driver },
        bridge: told.network_interface.filter(|name| is_bridge && !name.is_empty()),
        labels: told.labels.unwrap_or_default(),
        subnets: told.subnets.unwrap_or_default().into_iter().map(|s| s.subnet).collect(),
        internal: told.internal,
        masquerade: true,
        // Podman tells of endpoints by their containers alone.
        endpoints: BTreeMap::new(),
    }
}

/// Puts an inspected container as Docker would.
pub fn as_docker(inspect: &mut ContainerInspectResponse, mappings: &[PortMapping]) {
    links::take_from_label(inspect);
    let state = inspect.state.get_or_insert_default();
    // Initialised, but not started: its network is made, and its process waits to begin.
    if state.pid.is_some_and(|pid| pid > 0) {
        state.running = Some(true);
    }
    let config = inspect.config.get_or_insert_default();
    if let Some(env) = &mut config.env {
        // Podman's own additions say nothing of what the image or the user set.
        let hostname = format!("HOSTNAME={}", config.hostname.as_deref().unwrap_or_default());
        env.retain(|line| *line != hostname && line != "container=podman");
    }
    let host = inspect.host_config.get_or_insert_default();
    let settings = inspect.network_settings.get_or_insert_default();
    let mode = host.network_mode.clone().unwrap_or_default();
    if mode == "host" || mode.starts_with("container:") {
        // What Podman shows here is the other's.
        *settings = NetworkSettings::default();
        host.port_bindings = None;
        return;
    }
    name_endpoints(settings);
    let has_ipv6 = settings
        .networks
        .iter()
        .flat_map(HashMap::values)
        .any(|e| e.global_ipv6_address.as_deref().is_some_and(|a| !a.is_empty()));
    let (asked, served) = ports(mappings, has_ipv6);
    // Those that are exposed and not published stand in the same map.
    let exposed = settings.ports.take().unwrap_or_default().into_keys().map(|port| (port, None));
    settings.ports = Some(exposed.chain(served).collect());
    host.port_bindings = Some(asked);
}

/// Podman gives endpoints no id. A start of the container makes another network namespace, and a connection another address of
/// the interface.
fn name_endpoints(settings: &mut NetworkSettings) {
    let sandbox = settings.sandbox_key.as_deref().map(Path::new).and_then(Path::file_name);
    let Some(sandbox) = sandbox.map(|name| name.to_string_lossy().into_owned()) else { return };
    for endpoint in settings.networks.iter_mut().flat_map(HashMap::values_mut) {
        if let Some(mac) = endpoint.mac_address.as_deref().filter(|m| !m.is_empty()) {
            endpoint.endpoint_id = Some(format!("{sandbox}/{mac}"));
        }
    }
}

/// The bindings that were asked for, and those that Podman serves for a container with or without an address of IPv6.
fn ports(mappings: &[PortMapping], has_ipv6: bool) -> (PortMap, PortMap) {
    let (mut asked, mut served) = (PortMap::new(), PortMap::new());
    for mapping in mappings {
        for (protocol, i) in mapping.protocol.split(',').flat_map(|p| (0..mapping.range.max(1)).map(move |i| (p, i))) {
            let (Some(container), Some(host)) =
                (mapping.container_port.checked_add(i), mapping.host_port.checked_add(i))
            else {
                continue;
            };
            let key = format!("{container}/{protocol}");
            let binding = |ip: &str| PortBinding { host_ip: Some(ip.to_owned()), host_port: Some(host.to_string()) };
            asked.entry(key.clone()).or_default().get_or_insert_default().push(binding(&mapping.host_ip));
            let served = served.entry(key).or_default().get_or_insert_default();
            match mapping.host_ip.parse() {
                Ok(IpAddr::V6(_)) if !has_ipv6 => {}
                Ok(_) => served.push(binding(&mapping.host_ip)),
                Err(_) => {
                    served.push(binding("0.0.0.0"));
                    if has_ipv6 {
                        served.push(binding("::"));
                    }
                }
            }
        }
    }
    (asked, served)
}

/// An event that may change what the datapath serves; `None` for the rest.
pub fn event(message: EventMessage) -> Option<Event> {
    let action = message.action?;
    let id = message.actor?.id.filter(|id| !id.is_empty())?;
    match (message.typ?, action.as_str()) {
        (EventMessageTypeEnum::CONTAINER, "remove" | "destroy") => {
            Some(Event::Container { id, change: Change::Removed })
        }
        // The end of a process is told of late, when the next may run already: it is looked at, not believed.
        (
            EventMessageTypeEnum::CONTAINER,
            "create" | "init" | "start" | "restart" | "die" | "died" | "stop" | "cleanup" | "rename" | "update" | "pause"
            | "unpause" | "checkpoint" | "restore",
        )
        // Here the actor is the container.
        | (EventMessageTypeEnum::NETWORK, "connect" | "disconnect") => {
            Some(Event::Container { id, change: Change::Updated })
        }
        (EventMessageTypeEnum::NETWORK, _) => Some(Event::Network { id }),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
