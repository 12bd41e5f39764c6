//! Traffic through published ports and links, from three places, against what else there is.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tests::{Background, Builder, Container, HOST, Image, Lab, Netns, Up, wait_until};

use crate::load::{ACCEPT, COUNT, ECHO, LOADS, MEASURES, SERVER_CORE, SINK, SOURCE};
use crate::progress;
use crate::suite::{Figures, Suite};

/// The host's IPv6 address on the LAN.
pub const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// How far the ports of servers outside of containers are from those inside.
const SHIFT: u16 = 100;
const SOON: Duration = Duration::from_secs(20);

/// The same containers on hosts that differ in who publishes their ports.
pub struct Labs {
    /// Docker with its rules, without proxy.
    pub docker: Host,
    /// Docker with its rules and docker-proxy.
    pub proxy: Host,
    /// Docker without rules, and an nft ruleset as netavark makes it.
    pub nft: Host,
    /// Docker without rules, and nothing in their place: connections are not even tracked.
    pub bare: Host,
    /// Docker without rules, and this datapath in their place.
    pub ours: Host,
    /// Docker with its rules, and this datapath as well: as it is where nothing of Docker's is configured.
    pub beside: Host,
    /// The same servers outside of a container, on ports that nobody publishes, in `bare`, `docker` and `ours`.
    _processes: [Background; 3],
    up: [Up; 2],
}

/// A lab with its containers.
pub struct Host {
    pub lab: Lab,
    pub server: Container,
    /// Another container of the same network.
    pub sibling: Netns,
}

impl Labs {
    pub fn make() -> Result<Labs> {
        // First the one whose Engine may load what the switches of those after it are to be told of.
        let docker = Host::make(ruled("Docker's iptables"));
        let proxy = Host::make(ruled("docker-proxy").engine_arg("--userland-proxy=true"));
        let nft = Host::make(unruled("nftables"));
        let bare = Host::make(unruled("no rules"));
        let ours = Host::make(unruled("this datapath"));
        let beside = Host::make(ruled("this datapath beside Docker's rules"));
        let up = [ours.lab.up(&[]), beside.lab.up(&[])];
        let ports: Vec<(u16, u16)> = (ECHO..=COUNT).map(|port| (port, port)).collect();
        netavark(&nft.lab, &nft.server, &ports)?;
        // Appended, so that the packets of published ports are accepted by Docker's own rules before it.
        let (v4, v6) = (docker.server.ip().to_string(), docker.server.ip6().to_string());
        for (program, address) in [("iptables", v4), ("ip6tables", v6)] {
            docker.lab.host().run([program, "-A", "FORWARD", "-d", &address, "-j", "ACCEPT"]).ok();
        }
        let peer = std::env::current_exe()?.with_file_name("peer");
        let words = ["taskset", "-c", SERVER_CORE, peer.to_str().context("the program's path is not UTF-8")?];
        let servers = servers(SHIFT);
        let processes = [&bare, &docker, &ours].map(|Host { lab, .. }| {
            lab.host().spawn(&lab.dir().join("peer.log"), words.into_iter().chain(servers.iter().map(String::as_str)))
        });
        Ok(Labs { docker, proxy, nft, bare, ours, beside, _processes: processes, up })
    }

    /// Ends the daemon and takes the datapath away.
    pub fn end(self) {
        let [ours, beside] = self.up;
        ours.stop();
        beside.stop();
        self.ours.lab.down();
        self.beside.lab.down();
    }
}

impl Host {
    fn make(builder: Builder) -> Host {
        let lab = builder.images(&[Image::Echo]).build();
        let ports = format!("{ECHO}-{ACCEPT}:{ECHO}-{ACCEPT}");
        let (udp, count) = (format!("{ECHO}:{ECHO}/udp"), format!("{COUNT}:{COUNT}/udp"));
        let servers = servers(0);
        let mut words = vec!["--cpuset-cpus", SERVER_CORE, "-p", &ports, "-p", &udp, "-p", &count];
        words.extend(["echo", "peer"]);
        words.extend(servers.iter().map(String::as_str));
        let server = lab.start("server", &words);
        let sibling = lab.start("sibling", &["--link", "server:peer", "busybox", "sleep", "1000000"]).ns();
        Host { lab, server, sibling }
    }
}

fn servers(shift: u16) -> Vec<String> {
    let all =
        [("tcp", ECHO), ("bounce", ECHO), ("sink", SINK), ("source", SOURCE), ("accept", ACCEPT), ("count", COUNT)];
    all.map(|(what, port)| format!("{what}:[::]:{}", port + shift)).into()
}

/// A lab of both families whose Engine makes its rules.
pub fn ruled(title: &str) -> Builder {
    both_families(title).engine_arg("--experimental").engine_arg("--ip6tables")
}

/// A lab of both families whose Engine makes no rules.
pub fn unruled(title: &str) -> Builder {
    both_families(title).without_iptables()
}

fn both_families(title: &str) -> Builder {
    Lab::builder(title).engine_arg("--ipv6").engine_arg("--fixed-cidr-v6=2001:db8:d::/64")
}

/// Publishes ports of a container (host's and container's) as Podman's netavark does, with the destinations in maps.
pub fn netavark(lab: &Lab, server: &Container, ports: &[(u16, u16)]) -> Result<()> {
    let (v4, v6) = (server.ip(), server.ip6());
    let elements = |address: IpAddr| {
        ports.iter().map(|(host, inside)| format!("{host} : {address} . {inside}")).collect::<Vec<_>>().join(", ")
    };
    let ruleset = format!(
        "table inet netavark {{
           map tcp4 {{ type inet_service : ipv4_addr . inet_service; elements = {{ {to4} }} }}
           map tcp6 {{ type inet_service : ipv6_addr . inet_service; elements = {{ {to6} }} }}
           map udp4 {{ type inet_service : ipv4_addr . inet_service; elements = {{ {to4} }} }}
           map udp6 {{ type inet_service : ipv6_addr . inet_service; elements = {{ {to6} }} }}
           chain hostports {{
             dnat ip to tcp dport map @tcp4
             dnat ip6 to tcp dport map @tcp6
             dnat ip to udp dport map @udp4
             dnat ip6 to udp dport map @udp6
           }}
           chain prerouting {{ type nat hook prerouting priority dstnat; fib daddr type local jump hostports; }}
           chain output {{ type nat hook output priority -100; fib daddr type local jump hostports; }}
           chain postrouting {{
             type nat hook postrouting priority srcnat;
             ip saddr 172.17.0.0/16 ip daddr != 172.17.0.0/16 masquerade
             ip6 saddr 2001:db8:d::/64 ip6 daddr != 2001:db8:d::/64 masquerade
           }}
           chain forward {{
             type filter hook forward priority filter;
             ct state invalid drop
             ct state established,related accept
             ip saddr 172.17.0.0/16 accept
             ip6 saddr 2001:db8:d::/64 accept
           }}
         }}",
        to4 = elements(v4.into()),
        to6 = elements(v6.into()),
    );
    let mut command = lab.host().command("nft");
    let mut child =
        command.args(["-f", "-"]).stdin(Stdio::piped()).spawn().context("cannot run nft: apt-get install nftables")?;
    child.stdin.take().context("nft's input")?.write_all(ruleset.as_bytes())?;
    if !child.wait()?.success() {
        bail!("nft refuses the ruleset that stands for netavark's");
    }
    Ok(())
}

/// Who asks whom, how.
struct Variant {
    name: &'static str,
    client: Netns,
    server: IpAddr,
    shift: u16,
}

/// Clients of one place and family.
struct Place {
    suite: Suite,
    variants: Vec<Variant>,
}

/// The family's addresses of a host with its containers.
#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn host(self) -> IpAddr {
        match self {
            Family::V4 => HOST.into(),
            Family::V6 => HOST6.into(),
        }
    }

    fn loopback(self) -> IpAddr {
        match self {
            Family::V4 => Ipv4Addr::LOCALHOST.into(),
            Family::V6 => Ipv6Addr::LOCALHOST.into(),
        }
    }

    fn container(self, container: &Container) -> IpAddr {
        match self {
            Family::V4 => container.ip().into(),
            Family::V6 => container.ip6().into(),
        }
    }
}

/// The datapath's variants, twice in a row, after the baseline's.
fn place(title: &'static str, list: Vec<(&'static str, &Netns, IpAddr, u16)>) -> Place {
    let variants: Vec<Variant> = list
        .into_iter()
        .map(|(name, client, server, shift)| Variant { name, client: Netns::at(client.path()), server, shift })
        .collect();
    Place { suite: Suite::new(title, MEASURES, variants.iter().map(|v| v.name).collect()), variants }
}

fn external(labs: &Labs, family: Family) -> Place {
    let (host, docker) = (family.host(), &labs.docker);
    let title = match family {
        Family::V4 => "External client, IPv4",
        Family::V6 => "External client, IPv6",
    };
    place(
        title,
        vec![
            ("Docker's iptables", docker.lab.client(), host, 0),
            ("Docker's iptables again", docker.lab.client(), host, 0),
            ("this datapath", labs.ours.lab.client(), host, 0),
            ("this datapath again", labs.ours.lab.client(), host, 0),
            ("this datapath, Docker's rules beside it", labs.beside.lab.client(), host, 0),
            ("nftables map (netavark)", labs.nft.lab.client(), host, 0),
            ("direct route, tracked", docker.lab.client(), family.container(&docker.server), 0),
            ("direct route, no rules", labs.bare.lab.client(), family.container(&labs.bare.server), 0),
            ("process on the host, Docker's rules", labs.docker.lab.client(), host, SHIFT),
            ("process on the host, no rules", labs.bare.lab.client(), host, SHIFT),
        ],
    )
}

/// What is none of the datapath's: a process of the host that nothing publishes, with and without `runtime up`.
fn not_published(labs: &Labs, family: Family) -> Place {
    let host = family.host();
    let title = match family {
        Family::V4 => "Process of the host that is not published, external client, IPv4",
        Family::V6 => "Process of the host that is not published, external client, IPv6",
    };
    place(
        title,
        vec![
            ("without `up`", labs.bare.lab.client(), host, SHIFT),
            ("without `up` again", labs.bare.lab.client(), host, SHIFT),
            ("with `up`", labs.ours.lab.client(), host, SHIFT),
            ("with `up` again", labs.ours.lab.client(), host, SHIFT),
        ],
    )
}

fn local(labs: &Labs, family: Family) -> Place {
    let (own, host) = (family.loopback(), family.host());
    let title = match family {
        Family::V4 => "Process of the host, IPv4",
        Family::V6 => "Process of the host, IPv6",
    };
    place(
        title,
        vec![
            ("docker-proxy", labs.proxy.lab.host(), own, 0),
            ("docker-proxy again", labs.proxy.lab.host(), own, 0),
            ("this datapath", labs.ours.lab.host(), own, 0),
            ("this datapath again", labs.ours.lab.host(), own, 0),
            ("this datapath, Docker's rules beside it", labs.beside.lab.host(), own, 0),
            ("Docker's iptables, host's address", labs.docker.lab.host(), host, 0),
            ("nftables map, host's address", labs.nft.lab.host(), host, 0),
            ("the container itself, beside it", labs.ours.lab.host(), family.container(&labs.ours.server), 0),
            ("the container itself, no rules", labs.bare.lab.host(), family.container(&labs.bare.server), 0),
            ("process on the host, Docker's rules", labs.docker.lab.host(), own, SHIFT),
            ("process on the host, no rules", labs.bare.lab.host(), own, SHIFT),
        ],
    )
}

fn sibling(labs: &Labs, family: Family) -> Place {
    let host = family.host();
    let title = match family {
        Family::V4 => "Sibling container, IPv4",
        Family::V6 => "Sibling container, IPv6",
    };
    let (docker, ours) = (&labs.docker, &labs.ours);
    place(
        title,
        vec![
            ("Docker's bridge, not isolated", &docker.sibling, family.container(&docker.server), 0),
            ("Docker's bridge again", &docker.sibling, family.container(&docker.server), 0),
            ("this datapath, link", &ours.sibling, family.container(&ours.server), 0),
            ("this datapath, link again", &ours.sibling, family.container(&ours.server), 0),
            ("this datapath, published port", &ours.sibling, host, 0),
            ("Docker's iptables, published port", &docker.sibling, host, 0),
        ],
    )
}

impl Place {
    /// Waits until every server answers, and sees that the datapath carries its variants.
    fn check(&self, labs: &Labs) -> Result<()> {
        for v in &self.variants {
            let opens = |port: u16| v.client.tcp((v.server, port + v.shift)).is_ok();
            let what = format!("{}: {}", self.suite.title, v.name);
            wait_until(&what, SOON, || [ECHO, SINK, SOURCE, ACCEPT].into_iter().all(opens));
            // Figures count only where the datapath carries the packets.
            let lab = match v.name {
                "this datapath, Docker's rules beside it" => &labs.beside.lab,
                name if name.starts_with("this datapath") => &labs.ours.lab,
                _ => continue,
            };
            lab.assert_carried(|| v.client.tcp((v.server, ECHO)).map(drop)).with_context(|| what)?;
        }
        Ok(())
    }

    fn round(&mut self, time: Duration) {
        let variants = &self.variants;
        self.suite.round(LOADS, |i, load| -> Figures {
            let v = &variants[i];
            v.client.within(|| load.measure(v.server, v.shift, time)).map_err(|e| format!("{load:?}: {e}"))
        });
    }
}

/// Measures every place `rounds` times, each load for `time`.
pub fn measure_all(labs: &Labs, rounds: usize, time: Duration) -> Result<Vec<Suite>> {
    let mut places = Vec::new();
    for family in [Family::V4, Family::V6] {
        places.extend([
            external(labs, family),
            local(labs, family),
            sibling(labs, family),
            not_published(labs, family),
        ]);
    }
    places.iter().try_for_each(|p| p.check(labs))?;
    for round in 0..rounds {
        for place in &mut places {
            progress(&format!("traffic: round {} of {rounds}, {}", round + 1, place.suite.title));
            place.round(time);
        }
    }
    Ok(places.into_iter().map(|p| p.suite).collect())
}
