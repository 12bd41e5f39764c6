//! What the host's own firewall rules do with the addresses of packets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::programs::list;

/// A range of addresses, written `172.17.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    first: IpAddr,
    length: u8,
}

/// The text is no subnet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid subnet {0:?}: expected ADDRESS[/LENGTH]")]
pub struct InvalidSubnet(String);

impl FromStr for Subnet {
    type Err = InvalidSubnet;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidSubnet(s.to_owned());
        let (first, length) = s.split_once('/').map_or((s, None), |(a, l)| (a, Some(l)));
        let first: IpAddr = first.parse().map_err(|_| invalid())?;
        let most = if first.is_ipv4() { 32 } else { 128 };
        let length = length.map_or(Ok(most), str::parse).ok().filter(|l| *l <= most).ok_or_else(invalid)?;
        Ok(Subnet { first, length })
    }
}

impl Subnet {
    /// Whether it is one address.
    fn is_single(&self) -> bool {
        self.length == if self.first.is_ipv4() { 32 } else { 128 }
    }

    /// Whether all of `other` is in it.
    fn contains(&self, other: &Subnet) -> bool {
        let bits = |a: &IpAddr| match a {
            IpAddr::V4(a) => u128::from(u32::from(*a)) << 96,
            IpAddr::V6(a) => u128::from(*a),
        };
        let differ = bits(&self.first) ^ bits(&other.first);
        let same_start = self.length == 0 || differ >> (128 - u32::from(self.length)) == 0;
        self.first.is_ipv4() == other.first.is_ipv4() && self.length <= other.length && same_start
    }
}

/// Rules that give packets to the outside another source, by what they apply to, and those that publish ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NatRules {
    /// What each rule applies to; nothing for every source.
    sources: Vec<Option<Subnet>>,
    /// Whether the engine has made rules of its own for IPv4, whatever they say: told to make none, Docker 27 and later still
    /// make those for IPv6.
    pub engine: bool,
    /// Not all of the rules could be read: another one may do what none of these does.
    pub incomplete: bool,
    /// Where each rule sends what arrives for a port: `tcp` or the like, the port, and the container's address and port.
    published: BTreeSet<(String, u16, SocketAddr)>,
    /// Addresses that nobody outside may send to directly, each with the rule that says so.
    closed: BTreeMap<IpAddr, String>,
}

impl NatRules {
    /// Whether a rule gives everything from this IPv4 subnet another source, or may do so. IPv6 is nobody's by default, and not
    /// asked for.
    pub fn cover(&self, subnet: &Subnet) -> bool {
        let covers = || self.sources.iter().any(|s| s.is_none_or(|s| s.contains(subnet)));
        subnet.first.is_ipv4() && (self.incomplete || covers())
    }

    /// The rule by which the host refuses whatever comes from outside for this very address, before any rule that translates or
    /// forwards: Docker has one for each container from version 28 on.
    pub fn closes(&self, address: IpAddr) -> Option<&str> {
        self.closed.get(&address).map(String::as_str)
    }

    /// With what earlier ones did: where not all could be read now.
    pub fn and_earlier(mut self, earlier: &NatRules) -> Self {
        self.sources.extend(earlier.sources.iter().filter(|s| !self.sources.contains(s)).copied().collect::<Vec<_>>());
        self.published.extend(earlier.published.iter().cloned());
        self.closed.extend(earlier.closed.iter().map(|(address, rule)| (*address, rule.clone())));
        self.engine |= earlier.engine;
        self.incomplete = earlier.incomplete;
        self
    }

    /// Whether a rule sends what arrives for a host's port to that address.
    pub fn translates(&self, protocol: &str, host_port: u16, to: SocketAddr) -> bool {
        self.published.contains(&(protocol.to_owned(), host_port, to))
    }

    /// Reads what `iptables-save` or `nft list ruleset` prints; rules that apply only to some protocols, marks or
    /// destinations are passed over, as the container's other traffic would be nobody's.
    pub fn parse(text: &str) -> Self {
        NatRules {
            sources: text.lines().filter_map(rule).collect(),
            published: text.lines().filter_map(published).collect(),
            closed: closed(text),
            incomplete: false,
            engine: ipv4(text).any(|l| ENGINE.iter().any(|chain| l.starts_with(chain))),
        }
    }
}

/// The lines that are not of a table for IPv6 alone. What prints tables of one family says so in its first line.
fn ipv4(text: &str) -> impl Iterator<Item = &str> {
    let mut is_ipv6 = false;
    text.lines().map(str::trim).filter(move |line| {
        if let Some(table) = line.strip_prefix("table ") {
            is_ipv6 = table.starts_with("ip6 ");
        } else if let Some(program) = line.strip_prefix("# Generated by ") {
            is_ipv6 = program.starts_with("ip6tables");
        }
        !is_ipv6
    })
}

/// How the engine's own chain and table are declared: Docker's, and Podman's by netavark.
const ENGINE: [&str; 5] =
    [":DOCKER ", "chain DOCKER ", "table ip docker-bridges ", "table inet netavark ", ":NETAVARK_FORWARD "];
/// How the names of the chains begin that netavark has for each network: everything from its subnet that leaves is given the
/// host's address there.
const NETAVARK: [&str; 2] = ["nv_", "NETAVARK-"];

/// What a rule's line applies to, where it rewrites sources on the way to the outside.
fn rule(line: &str) -> Option<Option<Subnet>> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let has = |word: &str| words.contains(&word);
    let after = |word: &str| words.iter().position(|w| *w == word).and_then(|i| words.get(i + 1)).copied();
    let negated = |word: &str| words.windows(2).any(|w| w == ["!", word]);
    // The subnet stands with the jump alone.
    let own_chain = |name: &str| NETAVARK.iter().any(|begin| name.starts_with(begin));
    if words.get(..2) == Some(&["ip", "saddr"]) && words.len() == 5 && words[3] == "jump" && own_chain(words[4]) {
        return words[2].parse().ok().map(Some);
    }
    if words.get(..3) == Some(&["-A", "POSTROUTING", "-s"]) && after("-j").is_some_and(own_chain) {
        return words.get(3)?.parse().ok().map(Some);
    }
    if words.first() == Some(&"-A") {
        if !matches!(after("-j"), Some("MASQUERADE" | "SNAT")) || has("-p") || has("-m") || has("-d") || negated("-s") {
            return None;
        }
        return match after("-s") {
            Some(source) => source.parse().ok().map(Some),
            // Without any condition it is a chain's end, and the condition is with the jump there.
            None => has("-o").then_some(None),
        };
    }
    let rewrites = has("masquerade") || has("snat");
    if !rewrites || has("daddr") || has("mark") || has("dport") || has("l4proto") || has("protocol") || has("ip6") {
        return None;
    }
    match words.windows(3).find(|w| w[..2] == ["ip", "saddr"]) {
        Some(w) => w[2].parse().ok().map(Some),
        None => has("oifname").then_some(None),
    }
}

/// Where a rule's line sends what arrives for a single port.
fn published(line: &str) -> Option<(String, u16, SocketAddr)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let after = |word: &str| words.iter().position(|w| *w == word).and_then(|i| words.get(i + 1)).copied();
    let (protocol, port, to) = if words.first() == Some(&"-A") {
        (after("-p")?, after("--dport")?, after("--to-destination")?)
    } else {
        let at = words.iter().position(|w| *w == "dnat")?;
        let to = words.get(at + 1..)?.iter().find(|w| !matches!(**w, "to" | "ip" | "ip6"))?;
        let protocol = words.iter().find(|w| matches!(**w, "tcp" | "udp" | "sctp"))?;
        (*protocol, after("dport")?, *to)
    };
    Some((protocol.to_owned(), port.parse().ok()?, to.parse().ok()?))
}

/// The addresses that rules close to the outside where packets first come by: of iptables' table `raw`, and of Docker's own tables
/// of nftables. What a rule before lets through is open.
fn closed(text: &str) -> BTreeMap<IpAddr, String> {
    let mut found = BTreeMap::new();
    let (mut raw, mut dockers) = (false, false);
    let mut open: Vec<Option<Subnet>> = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(table) = line.strip_prefix('*') {
            (raw, dockers) = (table == "raw", false);
            open.clear();
        } else if let Some(table) = line.strip_prefix("table ") {
            let name = table.split(' ').nth(1).unwrap_or_default();
            (raw, dockers) = (false, name == "docker-bridges");
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let after = |word: &str| words.iter().position(|w| *w == word).and_then(|i| words.get(i + 1)).copied();
        let address = if raw && words.starts_with(&["-A", "PREROUTING"]) {
            let to = after("-d").and_then(|a| a.parse::<Subnet>().ok());
            if after("-j") == Some("ACCEPT") {
                open.push(to);
                continue;
            }
            // Nothing but an address, and a bridge that it does not come from.
            let bare = words.len() == 9 && words.windows(2).any(|w| w == ["!", "-i"]) && after("-j") == Some("DROP");
            to.filter(|to| bare && !open.iter().any(|o| o.is_none_or(|o| o.contains(to))))
        } else if dockers && words.contains(&"drop") && words.windows(2).any(|w| w == ["iifname", "!="]) {
            after("daddr").filter(|_| !words.contains(&"dport")).and_then(|a| a.parse().ok())
        } else {
            None
        };
        // Of the host's own loopback addresses Docker refuses single ports.
        if let Some(address) = address.filter(Subnet::is_single).map(|s| s.first) {
            found.entry(address).or_insert_with(|| line.to_owned());
        }
    }
    found
}

/// The host's present rules, of both kinds, and a line for each program that could not list its own. One that is not installed
/// has made none.
pub async fn read() -> (NatRules, Vec<String>) {
    // Neither makes a table or loads a module that is not there: no table is named.
    let listing = list(&[
        &["iptables-save"],
        &["iptables-legacy-save"],
        &["ip6tables-save", "-t", "nat"],
        &["nft", "list", "ruleset"],
    ])
    .await;
    let text: Vec<&str> = listing.printed.iter().map(|(_, text)| text.as_str()).collect();
    let incomplete = !listing.failed.is_empty();
    (NatRules { incomplete, ..NatRules::parse(&text.join("\n")) }, listing.failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_closed_to_the_outside() {
        let docker = "*raw\n-A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP\n\
                      -A PREROUTING -d 127.0.0.1/32 ! -i lo -p tcp -m tcp --dport 8000 -j DROP\n\
                      -A PREROUTING -d 10.0.0.0/8 ! -i docker0 -j DROP\nCOMMIT\n";
        let (two, localhost) = ("172.17.0.2".parse().unwrap(), "127.0.0.1".parse().unwrap());
        let rules = NatRules::parse(docker);
        assert_eq!(rules.closes(two), Some("-A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP"));
        assert_eq!((rules.closes(localhost), rules.closes("10.0.0.0".parse().unwrap())), (None, None));
        // In another table the rule means something else, and a rule before it counts.
        for text in
            [docker.replace("*raw", "*filter"), docker.replace("*raw\n", "*raw\n-A PREROUTING -i eth1 -j ACCEPT\n")]
        {
            assert_eq!(NatRules::parse(&text).closes(two), None, "{text}");
        }
        let nft = "table ip6 docker-bridges {\n\tchain raw-PREROUTING {\n\
                   \t\tip6 daddr fd00::2 iifname != \"docker0\" counter packets 0 bytes 0 drop comment \"DROP DIRECT ACCESS\"\n\t}\n}\n";
        assert!(NatRules::parse(nft).closes("fd00::2".parse().unwrap()).is_some());
        assert_eq!(NatRules::parse(&nft.replace("docker-bridges", "mine")).closes("fd00::2".parse().unwrap()), None);
    }

    #[test]
    fn of_rules_that_cannot_be_read_the_worst_is_assumed() {
        let docker: Subnet = "172.17.0.0/16".parse().unwrap();
        let unread = NatRules { incomplete: true, ..NatRules::default() };
        assert!(unread.cover(&docker) && !unread.cover(&"fd00:17::/64".parse().unwrap()));
        // What was known before still is.
        let none = NatRules::default();
        assert!(!unread.clone().and_earlier(&none).cover(&docker));
        let some = NatRules::parse(":DOCKER - [0:0]\n-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE\n");
        assert!(unread.clone().and_earlier(&some).engine);
        assert!(unread.clone().and_earlier(&some).cover(&docker));
        assert!(!unread.and_earlier(&some).cover(&"172.18.0.0/16".parse().unwrap()));
    }

    #[test]
    fn the_engines_rules_for_ipv6_alone_do_not_masquerade_ipv4() {
        let v6 = "# Generated by ip6tables-save v1.8.13 (nf_tables)\n*nat\n:DOCKER - [0:0]\nCOMMIT\n";
        let v4 = "# Generated by iptables-save v1.8.13 (nf_tables)\n*nat\n:DOCKER - [0:0]\nCOMMIT\n";
        assert!(!NatRules::parse(v6).engine);
        assert!(NatRules::parse(v4).engine);
        assert!(NatRules::parse(&format!("{v6}{v4}")).engine);
        assert!(!NatRules::parse(&format!("{v4}{v6}").replace(":DOCKER", ":OTHER")).engine);
        let nft = "table ip6 nat {\n\tchain DOCKER {\n\t}\n}\ntable ip filter {\n\tchain INPUT {\n\t}\n}\n";
        assert!(!NatRules::parse(nft).engine);
        assert!(NatRules::parse(&nft.replace("INPUT", "DOCKER")).engine);
        assert!(NatRules::parse("table ip6 docker-bridges {\n}\ntable ip docker-bridges {\n}\n").engine);
    }

    #[test]
    fn rules_of_every_make_are_read() {
        let docker: Subnet = "172.17.0.0/16".parse().unwrap();
        let rows = [
            ("-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE", true),
            ("-A POSTROUTING -s 172.16.0.0/12 -o eth0 -j SNAT --to-source 192.0.2.1", true),
            ("-A POSTROUTING -o eth0 -j MASQUERADE", true),
            ("-A POSTROUTING -s 172.18.0.0/16 ! -o br-1 -j MASQUERADE", false),
            ("-A POSTROUTING -s 172.17.0.2/32 -d 172.17.0.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE", false),
            ("-A KUBE-POSTROUTING -j MASQUERADE --random-fully", false),
            ("-A POSTROUTING ! -s 172.17.0.0/16 -o eth0 -j MASQUERADE", false),
            ("-A DOCKER -i docker0 -j RETURN", false),
            ("  oifname != \"docker0\" ip saddr 172.17.0.0/16 counter packets 0 bytes 0 masquerade", true),
            ("  ip saddr != 172.17.0.0/16 oifname \"eth0\" masquerade", false),
            ("  oifname \"eth0\" masquerade", true),
            ("  meta l4proto tcp ip saddr 172.17.0.0/16 masquerade", false),
            ("  type nat hook postrouting priority srcnat; policy accept;", false),
            ("\t\tip saddr 172.17.0.0/16 jump nv_2f259bab_172_17_0_0_nm16", true),
            ("\t\tip saddr 172.17.0.0/16 tcp dport 8080 jump NETAVARK-HOSTPORT-SETMARK", false),
            ("\t\tip saddr 172.18.0.0/16 jump nv_1a085c3d_172_18_0_0_nm16", false),
            ("\t\tip daddr != 224.0.0.0/4 masquerade", false),
            ("\t\tmeta mark & 0x00002000 == 0x00002000 masquerade", false),
            ("-A POSTROUTING -s 172.17.0.0/16 -j NETAVARK-1D8721804F16F", true),
        ];
        for (line, covers) in rows {
            assert_eq!(NatRules::parse(line).cover(&docker), covers, "{line}");
        }
        let rows = [
            ("-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80", true),
            (
                "-A DOCKER -d 192.0.2.1/32 ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80",
                true,
            ),
            ("-A DOCKER ! -i docker0 -p udp -m udp --dport 8080 -j DNAT --to-destination 172.17.0.2:80", false),
            ("-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.3:80", false),
            ("-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT", false),
            ("  iifname != \"docker0\" tcp dport 8080 counter packets 0 bytes 0 dnat to 172.17.0.2:80", true),
            ("  iifname != \"docker0\" tcp dport 8080 dnat ip to 172.17.0.2:80", true),
            ("  tcp dport 8080 counter", false),
            ("\t\ttcp dport 8080 dnat ip to 172.17.0.2:80", true),
            ("\t\ttcp dport 8080 jump nv_2f259bab_172_17_0_0_nm16_dnat", false),
        ];
        let to = "172.17.0.2:80".parse().unwrap();
        for (line, translates) in rows {
            assert_eq!(NatRules::parse(line).translates("tcp", 8080, to), translates, "{line}");
        }
        let six = "-A DOCKER ! -i docker0 -p tcp -m tcp --dport 80 -j DNAT --to-destination [fd00::2]:80";
        assert!(NatRules::parse(six).translates("tcp", 80, "[fd00::2]:80".parse().unwrap()));
        for (line, engine) in [
            (":DOCKER - [0:0]", true),
            ("\tchain DOCKER {", true),
            ("table inet netavark {", true),
            (":NETAVARK_FORWARD - [0:0]", true),
            (":DOCKER-USER - [0:0]", false),
        ] {
            assert_eq!(NatRules::parse(line).engine, engine, "{line}");
        }
        assert!(!NatRules::parse(rows[2].0).cover(&"fd00:17::/64".parse().unwrap()));
    }
}
