//! What routes say: which addresses are the host's own, and where containers' own default routes lead.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use futures_util::TryStreamExt;
use rtnetlink::Handle;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

/// The table that the kernel asks first: what is here is for the host itself (`local` in /etc/iproute2/rt_tables).
const LOCAL_TABLE: u8 = 255;
/// Flags of routes in /proc/net/route and /proc/net/ipv6_route: it is in use, it has a gateway, it refuses (linux/route.h).
const RTF_UP: u32 = 0x1;
const RTF_GATEWAY: u32 = 0x2;
const RTF_REJECT: u32 = 0x200;

/// An address of the host's, or a prefix of them.
pub type LocalRoute = (IpAddr, u8);

/// The gateways of a container's own default routes: IPv4, IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gateways {
    /// Of IPv4.
    pub ipv4: Option<Ipv4Addr>,
    /// Of IPv6.
    pub ipv6: Option<Ipv6Addr>,
}

impl Gateways {
    /// Those of the network namespace of a process; none where it is gone.
    pub(super) fn of_process(pid: u32) -> Self {
        let read =
            |file: &str| std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("net").join(file));
        Gateways {
            ipv4: read("route").ok().and_then(|text| default_gateway_v4(&text)),
            ipv6: read("ipv6_route").ok().and_then(|text| default_gateway_v6(&text)),
        }
    }
}

/// The local routing table, without loopback and multicast: more than the addresses of interfaces, which may stand in it as
/// prefixes (`ip route add local 203.0.113.0/24 dev lo`).
pub(super) async fn local_routes(handle: &Handle) -> Result<BTreeSet<LocalRoute>, rtnetlink::Error> {
    let mut found = BTreeSet::new();
    for address_family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut question = RouteMessage::default();
        question.header = RouteHeader {
            address_family,
            table: LOCAL_TABLE,
            kind: RouteType::Local,
            protocol: RouteProtocol::Unspec,
            scope: RouteScope::Universe,
            ..RouteHeader::default()
        };
        let mut routes = handle.route().get(question).execute();
        loop {
            match routes.try_next().await {
                Ok(Some(route)) => found.extend(local_route(&route)),
                Ok(None) => break,
                // A kernel that is started without IPv6 has no such table.
                Err(rtnetlink::Error::NetlinkError(_)) if address_family == AddressFamily::Inet6 => break,
                Err(e) => return Err(e),
            }
        }
    }
    Ok(found)
}

/// Whether a message of the kernel's may change what is read here: others, of a router with many routes, are many.
pub(super) fn concerns_local(message: &RouteNetlinkMessage) -> bool {
    match message {
        RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => local_route(route).is_some(),
        _ => true,
    }
}

fn local_route(route: &RouteMessage) -> Option<LocalRoute> {
    if route.header.table != LOCAL_TABLE || route.header.kind != RouteType::Local {
        return None;
    }
    let address = route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Destination(RouteAddress::Inet(a)) => Some(IpAddr::from(*a)),
        RouteAttribute::Destination(RouteAddress::Inet6(a)) => Some(IpAddr::from(*a)),
        _ => None,
    })?;
    (!address.is_loopback()).then_some((address, route.header.destination_prefix_length))
}

/// `Iface Destination Gateway Flags RefCnt Use Metric Mask ...`; addresses as the kernel holds them, in hexadecimal digits of
/// the machine's byte order.
fn default_gateway_v4(text: &str) -> Option<Ipv4Addr> {
    let route = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let hex = |at: usize| u32::from_str_radix(words.get(at)?, 16).ok();
        let metric: u32 = words.get(6)?.parse().ok()?;
        let is_default = hex(1)? == 0 && hex(7)? == 0;
        leads_out(hex(3)?, is_default).then_some((metric, Ipv4Addr::from(hex(2)?.to_ne_bytes())))
    };
    text.lines().skip(1).filter_map(route).min_by_key(|(metric, _)| *metric).map(|(_, gateway)| gateway)
}

/// `destination length source length gateway metric refcount use flags interface`, all but the last in hexadecimal digits.
fn default_gateway_v6(text: &str) -> Option<Ipv6Addr> {
    let route = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let hex = |at: usize| u32::from_str_radix(words.get(at)?, 16).ok();
        let address = |at: usize| u128::from_str_radix(words.get(at)?, 16).ok();
        let is_default = address(0)? == 0 && hex(1)? == 0;
        leads_out(hex(8)?, is_default).then_some((hex(5)?, Ipv6Addr::from(address(4)?)))
    };
    text.lines().filter_map(route).min_by_key(|(metric, _)| *metric).map(|(_, gateway)| gateway)
}

const fn leads_out(flags: u32, is_default: bool) -> bool {
    is_default && flags & (RTF_UP | RTF_GATEWAY | RTF_REJECT) == RTF_UP | RTF_GATEWAY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_route_of_the_lowest_metric_counts() {
        let of = |address: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(address));
        let row = |destination, gateway, flags: &str, metric: u32, mask| {
            format!("eth0 {} {} {flags} 0 0 {metric} {} 0 0 0\n", of(destination), of(gateway), of(mask))
        };
        let any = [0; 4];
        let text = [
            "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n".to_owned(),
            row(any, [172, 30, 1, 1], "0003", 100, any),
            row(any, [172, 30, 2, 1], "0003", 0, any),
            row([10, 0, 0, 0], [172, 30, 3, 1], "0003", 0, [255, 0, 0, 0]),
            row([172, 30, 2, 0], any, "0001", 0, [255, 255, 255, 0]),
        ];
        assert_eq!(default_gateway_v4(&text.concat()), Some(Ipv4Addr::new(172, 30, 2, 1)));
        assert_eq!(default_gateway_v4(&[text[0].clone(), text[4].clone()].concat()), None);
    }

    #[test]
    fn a_default_route_of_ipv6_that_refuses_leads_nowhere() {
        let zeros = "0".repeat(32);
        let refusing = format!("{zeros} 00 {zeros} 00 {zeros} ffffffff 00000001 00000000 00200200 lo\n");
        let own = "fd300000000000000000000000000002";
        let text = format!(
            "fd300000000000000000000000000000 40 {zeros} 00 {zeros} 00000100 00000001 00000000 00000001 eth0\n\
             {zeros} 00 {zeros} 00 fd300000000000000000000000000001 00000400 00000001 00000000 00000003 eth0\n\
             {own} 80 {zeros} 00 {zeros} 00000000 00000002 00000000 80200001 eth0\n{refusing}"
        );
        assert_eq!(default_gateway_v6(&text), "fd30::1".parse().ok());
        assert_eq!(default_gateway_v6(&refusing), None);
    }
}
