//! Where outside traffic comes in, and where of that programs belong.

use runtime_common::Addr;
use runtime_common::maps::Uplink;

use super::options::Options;
use super::plan::Plan;
use crate::datapath::Role;
use crate::host::{Host, Interface, is_global};
use crate::model::Snapshot;

/// Adds the interfaces by which outside traffic comes in: what has an address that outsiders know and is none of the engine's
/// own. Those that are not to have programs are told to the kernel side: what comes in by them is the engine's own rules'
/// affair.
pub(super) fn add(p: &mut Plan, snapshot: &Snapshot, host: &Host, options: &Options) {
    let bridges: Vec<&str> = snapshot.networks.values().filter_map(|n| n.bridge.as_deref()).collect();
    for i in host.interfaces.values() {
        let known_outside = host.addresses_of(i.index).any(|a| is_global(&a));
        let engine_made = bridges.contains(&i.name.as_str());
        if !known_outside || i.is_loopback || engine_made || p.roles.contains_key(&i.index) {
            continue;
        }
        let wanted = options.uplinks.is_empty() || options.uplinks.contains(&i.name);
        if wanted && (i.is_ethernet || i.is_tunnel) {
            p.roles.insert(i.index, uplink(i));
        } else if leads_outside(i, host) {
            p.desired.unserved.insert(i.index, 1);
            let remedy = if wanted { "" } else { "; name it with --uplink as well to have it served" };
            p.problems.push(format!(
                "interface {}: not served: what comes in there is the engine's own rules' affair, which know nothing of filters, nor of \
                 what was published or unpublished live{remedy}",
                i.name
            ));
        }
    }
    for name in &options.uplinks {
        match host.by_name(name) {
            Some(i) if bridges.contains(&i.name.as_str()) || p.roles.get(&i.index).is_some_and(|role| !role.uplink) => {
                p.problems.push(format!("uplink {name}: it leads to containers, not outside: name another"));
            }
            Some(i) if i.is_ethernet || i.is_tunnel => {
                p.roles.insert(i.index, uplink(i));
            }
            Some(_) => p.problems.push(format!(
                "uplink {name}: its packets begin neither with Ethernet nor with IP: the engine's own rules serve it"
            )),
            None => p.problems.push(format!("uplink {name}: no such interface; it is taken up when it appears")),
        }
    }
    for index in p.roles.iter().filter(|(_, role)| role.uplink).map(|(index, _)| *index) {
        let address = |v4| host.addresses_of(index).find(|a| a.is_ipv4() == v4 && is_global(a)).map(Addr::from);
        let entry = Uplink {
            ipv4: address(true).unwrap_or_default(),
            ipv6: address(false).unwrap_or_default(),
            ..Uplink::default()
        };
        p.desired.uplinks.insert(index, entry);
    }
    if host.bridges_filter {
        add_bridge_ports(p, host);
    }
}

fn uplink(i: &Interface) -> Role {
    Role { name: i.name.clone(), uplink: true, tunnel: i.is_tunnel, bridge_port: false }
}

/// Where the host's rules of IP see what crosses its bridges, the engine's DNAT comes before the program of an uplink that is a
/// bridge: what is for the bridge is taken at its ports.
fn add_bridge_ports(p: &mut Plan, host: &Host) {
    let uplinks: Vec<u32> = p.desired.uplinks.keys().copied().collect();
    for bridge in uplinks.iter().filter_map(|index| host.interfaces.get(index)).filter(|i| i.is_bridge) {
        for port in host.interfaces.values().filter(|i| i.master == Some(bridge.index) && i.is_ethernet) {
            if p.roles.contains_key(&port.index) {
                continue;
            }
            p.roles.insert(port.index, Role { bridge_port: true, ..uplink(port) });
            let of_bridge = p.desired.uplinks.get(&bridge.index).copied().unwrap_or_default();
            p.desired.uplinks.insert(port.index, Uplink { bridge_mac: bridge.mac, is_port: 1, ..of_bridge });
        }
    }
}

/// Whether an interface with an address that outsiders know leads to them, and to no containers: a bridge that has nothing but
/// veths may be one that the engine has just made, and has not told of yet.
fn leads_outside(i: &Interface, host: &Host) -> bool {
    !i.is_bridge || host.interfaces.values().any(|port| port.master == Some(i.index) && !port.is_veth)
}
