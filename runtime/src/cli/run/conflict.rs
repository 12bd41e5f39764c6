//! Ports that somebody has already published.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bollard::models::ContainerSummary;
use runtime_api::LivePublication;
use runtime_common::Protocol;

use super::Failure;
use crate::engine::docker::own_name;
use crate::model::publish::PublishRequest;

/// A host port that a running container has.
#[derive(Clone, Debug)]
pub(super) struct Held {
    container: String,
    address: IpAddr,
    port: u16,
    protocol: Protocol,
    /// Taken away live: nobody serves it, but the engine holds it while its container runs.
    closed: bool,
}

/// What listed containers have published, at their start or since.
pub(super) fn held(listed: &[ContainerSummary], live: &[LivePublication]) -> Vec<Held> {
    let mut all = Vec::new();
    for container in listed {
        let name = own_name(container).unwrap_or_default();
        let own = || live.iter().filter(|l| Some(&l.container) == container.id.as_ref());
        let taken_away: Vec<_> = own()
            .filter(|l| l.closed)
            .map(|l| (l.publication.host_addr, l.publication.host_port, l.publication.container_port.protocol))
            .collect();
        for port in container.ports.iter().flatten() {
            let address = port.ip.as_deref().and_then(|ip| ip.parse().ok());
            let protocol = port.typ.and_then(|t| t.to_string().parse().ok());
            if let (Some(address), Some(port), Some(protocol)) = (address, port.public_port, protocol) {
                let closed = taken_away.contains(&(address, port, protocol));
                all.push(Held { container: name.to_owned(), address, port, protocol, closed });
            }
        }
        for publication in own().filter(|l| !l.closed).map(|l| &l.publication) {
            all.push(Held {
                container: name.to_owned(),
                address: publication.host_addr,
                port: publication.host_port,
                protocol: publication.container_port.protocol,
                closed: false,
            });
        }
    }
    all
}

/// Takes the first free port of each range, for an Engine that cannot. `is_free` is what the host itself says of an address and
/// port; a range without a free one stays, to be refused.
pub(super) fn choose(requests: &mut [PublishRequest], held: &[Held], is_free: &dyn Fn(IpAddr, u16, Protocol) -> bool) {
    let mut chosen: Vec<(u16, Protocol)> = Vec::new();
    for request in requests {
        let Some(ports) = request.host_ports.clone() else { continue };
        let protocol = request.container_port.protocol;
        let addresses = addresses(request);
        let free = |port: u16| {
            !chosen.contains(&(port, protocol))
                && holder(held, &addresses, port, protocol).is_none()
                && addresses.iter().all(|a| is_free(*a, port, protocol))
        };
        let found =
            if ports.start() == ports.end() { Some(*ports.start()) } else { ports.into_iter().find(|p| free(*p)) };
        if let Some(port) = found {
            chosen.push((port, protocol));
            request.host_ports = Some(port..=port);
        }
    }
}

/// Whether a program of the host could listen there. What cannot be tried is free.
pub(super) fn is_free(address: IpAddr, port: u16, protocol: Protocol) -> bool {
    let in_use = |e: std::io::Error| e.kind() == std::io::ErrorKind::AddrInUse;
    match protocol {
        Protocol::Tcp => !std::net::TcpListener::bind((address, port)).is_err_and(in_use),
        Protocol::Udp => !std::net::UdpSocket::bind((address, port)).is_err_and(in_use),
        Protocol::Sctp => true,
    }
}

fn addresses(request: &PublishRequest) -> Vec<IpAddr> {
    match request.host_addr {
        Some(address) => vec![address],
        None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
    }
}

fn holder<'h>(held: &'h [Held], addresses: &[IpAddr], port: u16, protocol: Protocol) -> Option<(IpAddr, &'h Held)> {
    addresses.iter().find_map(|address| {
        let holds = |h: &&Held| h.port == port && h.protocol == protocol && overlap(*address, h.address);
        held.iter().find(holds).map(|h| (*address, h))
    })
}

/// Refuses requests that cannot be met, naming who has the port. One of a range is enough; a random one is always there.
pub(super) fn check(requests: &[PublishRequest], held: &[Held]) -> Result<(), Failure> {
    for request in requests {
        let Some(ports) = request.host_ports.clone() else { continue };
        let addresses = addresses(request);
        let protocol = request.container_port.protocol;
        let holder = |port: u16| holder(held, &addresses, port, protocol);
        let (first, last) = (*ports.start(), *ports.end());
        // All of them are taken only if every single one is.
        let mut taken = None;
        for port in ports {
            match holder(port) {
                Some(found) => taken = taken.or(Some(found)),
                None => {
                    taken = None;
                    break;
                }
            }
        }
        let Some((address, holder)) = taken else { continue };
        if first == last && holder.closed {
            return Err(Failure::Failed(anyhow::anyhow!(
                "port {first}/{protocol} on {address} was unpublished from container \"{}\", and the engine holds it until that \
                 container stops: start without it, then \"runtime publish\" it",
                holder.container
            )));
        }
        return Err(Failure::Failed(if first == last {
            anyhow::anyhow!(
                "port {first}/{protocol} on {address} is already published by container \"{}\"",
                holder.container
            )
        } else {
            anyhow::anyhow!(
                "no port of {first}-{last}/{protocol} on {address} is free: {first} is already published by container \"{}\"",
                holder.container
            )
        }));
    }
    Ok(())
}

/// Whether one socket address hides the other: the same, or either is every address of the family.
fn overlap(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::publish::parse_publish;

    fn conflict(spec: &str) -> Option<String> {
        let listed: Vec<ContainerSummary> =
            serde_json::from_str(include_str!("../../engine/fixtures/containers.json")).unwrap();
        let stopped = listed.iter().find(|c| own_name(c) == Some("dbc")).and_then(|c| c.id.clone()).unwrap();
        let publication = crate::model::Publication {
            host_addr: "192.0.2.1".parse().unwrap(),
            host_port: 4000,
            container_port: "5432/tcp".parse().unwrap(),
        };
        let live = [LivePublication { container: stopped, publication, closed: false }];
        check(&parse_publish(spec).unwrap(), &held(&listed, &live)).err().and_then(|f| f.message())
    }

    #[test]
    fn a_taken_port_names_its_holder() {
        for (spec, address, port, container) in [
            ("81:80", "0.0.0.0", "81/tcp", "webc"),
            ("127.0.0.1:81:9", "127.0.0.1", "81/tcp", "webc"),
            ("[::1]:81:9", "::1", "81/tcp", "webc"),
            ("8080:80", "0.0.0.0", "8080/tcp", "web"),
            ("5353:53/udp", "0.0.0.0", "5353/udp", "web"),
            ("4000:1", "0.0.0.0", "4000/tcp", "dbc"),
            ("80-81:80-81", "0.0.0.0", "81/tcp", "webc"),
        ] {
            let expected = format!("port {port} on {address} is already published by container \"{container}\"");
            assert_eq!(conflict(spec), Some(expected), "{spec}");
        }
    }

    #[test]
    fn a_port_that_was_taken_away_is_still_the_engines() {
        let listed: Vec<ContainerSummary> =
            serde_json::from_str(include_str!("../../engine/fixtures/containers.json")).unwrap();
        let webc = listed.iter().find(|c| own_name(c) == Some("webc")).and_then(|c| c.id.clone()).unwrap();
        let publication = crate::model::Publication {
            host_addr: "0.0.0.0".parse().unwrap(),
            host_port: 81,
            container_port: "80/tcp".parse().unwrap(),
        };
        let live = [LivePublication { container: webc, publication, closed: true }];
        let refused = check(&parse_publish("0.0.0.0:81:80").unwrap(), &held(&listed, &live)).unwrap_err();
        let message = refused.message().unwrap();
        assert!(message.starts_with("port 81/tcp on 0.0.0.0 was unpublished from container \"webc\""), "{message}");
    }

    #[test]
    fn free_ports() {
        for spec in ["81:80/udp", "5353:53", "192.0.2.1:8080:80", "[::]:8080:80", "192.0.2.2:4000:1", "80", "80-82:80"]
        {
            assert_eq!(conflict(spec), None, "{spec}");
        }
    }

    #[test]
    fn the_first_free_port_of_a_range_is_taken() {
        let held = [Held {
            container: "web".into(),
            address: Ipv4Addr::UNSPECIFIED.into(),
            port: 81,
            protocol: Protocol::Tcp,
            closed: false,
        }];
        let of = |specs: &[&str]| {
            let mut requests: Vec<_> = specs.iter().flat_map(|s| parse_publish(s).unwrap()).collect();
            choose(&mut requests, &held, &|_, port, _| port != 82);
            requests.into_iter().map(|r| r.host_ports).collect::<Vec<_>>()
        };
        assert_eq!(of(&["81-85:80", "81-85:80", "7000:80"]), [Some(83..=83), Some(84..=84), Some(7000..=7000)]);
        assert_eq!(of(&["81-82:80/udp"]), [Some(81..=81)]);
        assert_eq!(of(&["80", "81-82:80"]), [None, Some(81..=82)], "none is free");
    }

    #[test]
    fn a_range_without_a_free_port() {
        let message = conflict("32768-32771:80").unwrap();
        assert!(message.contains("32768-32771/tcp") && message.contains("\"web\""), "{message}");
        assert_eq!(conflict("32768-32772:80"), None);
    }
}
