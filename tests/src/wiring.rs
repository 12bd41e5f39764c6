//! The lab's namespaces and the cables between them.

use anyhow::Result;

use crate::lab::{HOST, HOST2};
use crate::netns::Netns;

/// What the network is to have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wiring {
    /// A second client.
    pub(crate) client2: bool,
    /// It is behind an uplink of its own.
    pub(crate) second_uplink: bool,
    /// Clients leave checksums and segmentation to their devices.
    pub(crate) offloads: bool,
    /// The MTU of the LAN, in bytes.
    pub(crate) mtu: Option<u32>,
}

/// The namespaces and their wiring: host, client, and a second client where wished.
pub(crate) fn network(name: &str, wish: Wiring) -> Result<(Netns, Netns, Option<Netns>)> {
    let host = Netns::create(&format!("{name}-host"))?;
    let client = Netns::create(&format!("{name}-client"))?;
    let client2 = wish.client2.then(|| Netns::create(&format!("{name}-client2"))).transpose()?;
    let switch = Netns::create(&format!("{name}-switch"))?;

    switch.must(["ip", "link", "add", "lan", "type", "bridge"])?;
    if let Some(mtu) = wish.mtu {
        switch.must(["ip", "link", "set", "lan", "mtu", &mtu.to_string()])?;
    }
    switch.must(["ip", "link", "set", "lan", "up"])?;
    switch.must(["ip", "address", "add", "192.0.2.254/24", "dev", "lan"])?;
    switch.must(["ip", "address", "add", "2001:db8::254/64", "dev", "lan", "nodad"])?;

    // A switch is no firewall, whatever the Engine switches on for the whole machine.
    let firewall = ["iptables", "ip6tables", "arptables"].map(|tables| format!("net.bridge.bridge-nf-call-{tables}=0"));
    switch.must(["sysctl", "-e", "-qw"].into_iter().chain(firewall.iter().map(String::as_str)))?;

    plug(&switch, "host", &host, "eth0", wish)?;
    switch.must(["ip", "link", "set", "host", "master", "lan"])?;
    address(&host, "eth0", "192.0.2.1/24", "2001:db8::1/64")?;
    host.must(["ip", "route", "add", "default", "via", "192.0.2.254"])?;
    // IPv4 forwarding is left to the Engine: when it switches it on, it also sets the FORWARD chain to DROP, as on most hosts.
    host.must(["sysctl", "-qw", "net.ipv6.conf.all.forwarding=1"])?;

    plug(&switch, "client", &client, "eth0", wish)?;
    switch.must(["ip", "link", "set", "client", "master", "lan"])?;
    address(&client, "eth0", "192.0.2.2/24", "2001:db8::2/64")?;
    client_end(&client, &HOST.to_string(), "2001:db8::1", wish)?;

    if let Some(client2) = &client2 {
        if wish.second_uplink {
            plug(&host, "eth1", client2, "eth0", wish)?;
            address(&host, "eth1", "198.51.100.1/24", "2001:db8:2::1/64")?;
            address(client2, "eth0", "198.51.100.2/24", "2001:db8:2::2/64")?;
            client_end(client2, &HOST2.to_string(), "2001:db8:2::1", wish)?;
        } else {
            plug(&switch, "client2", client2, "eth0", wish)?;
            switch.must(["ip", "link", "set", "client2", "master", "lan"])?;
            address(client2, "eth0", "192.0.2.3/24", "2001:db8::3/64")?;
            client_end(client2, &HOST.to_string(), "2001:db8::1", wish)?;
        }
    }
    Ok((host, client, client2))
}

/// A cable between two namespaces.
fn plug(a: &Netns, a_device: &str, b: &Netns, b_device: &str, wish: Wiring) -> Result<()> {
    a.must(["ip", "link", "add", a_device, "type", "veth", "peer", "name", b_device, "netns", b.name()])?;
    for (ns, device) in [(a, a_device), (b, b_device)] {
        if let Some(mtu) = wish.mtu {
            ns.must(["ip", "link", "set", device, "mtu", &mtu.to_string()])?;
        }
        ns.must(["ip", "link", "set", device, "up"])?;
    }
    Ok(())
}

fn address(ns: &Netns, device: &str, v4: &str, v6: &str) -> Result<()> {
    ns.must(["ip", "address", "add", v4, "dev", device])?;
    // Without duplicate address detection it is usable at once.
    ns.must(["ip", "address", "add", v6, "dev", device, "nodad"]).map(drop)
}

/// What is behind the host, containers included, a client reaches through it.
fn client_end(client: &Netns, v4: &str, v6: &str, wish: Wiring) -> Result<()> {
    client.must(["ip", "route", "add", "default", "via", v4])?;
    client.must(["ip", "-6", "route", "add", "default", "via", v6])?;
    if !wish.offloads {
        client.set_offloads("eth0", false);
    }
    Ok(())
}
