//! The lines that links keep in a recipient's /etc/hosts.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Container;

/// One line: an address and its names, of which the first is the link's alias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostsEntry {
    /// The address that the names stand for.
    pub address: IpAddr,
    /// The names, alias first; never empty.
    pub names: Vec<String>,
}

impl HostsEntry {
    fn alias(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }
}

/// The line as Docker writes it, without a newline: `IP<TAB>alias hostname name`.
impl fmt::Display for HostsEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\t{}", self.address, self.names.join(" "))
    }
}

/// The lines of a link: one for each address that the source has.
pub fn link_entries(
    alias: &str,
    source: &Container,
    ipv4: Option<Ipv4Addr>,
    ipv6: Option<Ipv6Addr>,
) -> Vec<HostsEntry> {
    let mut names: Vec<String> = Vec::new();
    for name in [alias, &source.hostname, &source.name] {
        if !name.is_empty() && !names.iter().any(|n| n == name) {
            names.push(name.to_owned());
        }
    }
    let addresses = ipv4.map(IpAddr::from).into_iter().chain(ipv6.map(IpAddr::from));
    addresses.map(|address| HostsEntry { address, names: names.clone() }).collect()
}

/// The text of /etc/hosts with the wanted lines in it and those of removed aliases gone; `None` where nothing changes.
///
/// A line belongs to a link when its *first* name is exactly the alias (`web` never touches `web.local`). For each alias and
/// address family one line stays; the rest of the file, its order and its comments are kept. Loopback and multicast lines
/// never belong to a link, so that an alias `localhost` takes nothing away.
pub fn update_hosts(contents: &str, wanted: &[HostsEntry], removed_aliases: &[String]) -> Option<String> {
    let mut placed = vec![false; wanted.len()];
    let mut updated = String::with_capacity(contents.len());
    for line in contents.split_inclusive('\n') {
        let Some((address, names)) = parse_line(line) else {
            updated.push_str(line);
            continue;
        };
        let ours = |w: &HostsEntry| w.alias() == names[0];
        if !wanted.iter().any(ours) && !removed_aliases.iter().any(|a| a == names[0]) {
            updated.push_str(line);
            continue;
        }
        let place = wanted.iter().position(|w| ours(w) && w.address.is_ipv4() == address.is_ipv4());
        match place {
            Some(i) if !placed[i] => {
                placed[i] = true;
                if wanted[i].address == address && wanted[i].names == names {
                    updated.push_str(line);
                } else {
                    updated.push_str(&wanted[i].to_string());
                    updated.push_str(if line.ends_with('\n') { "\n" } else { "" });
                }
            }
            // A second line for the same alias and family, or a family that the source no longer has.
            _ => {}
        }
    }
    for (entry, _) in wanted.iter().zip(&placed).filter(|(_, placed)| !**placed) {
        if !updated.is_empty() && !updated.ends_with('\n') {
            updated.push('\n');
        }
        updated.push_str(&format!("{entry}\n"));
    }
    (updated != contents).then_some(updated)
}

/// Address and names of a line that could be a link's; comments, blank and malformed lines are nobody's.
fn parse_line(line: &str) -> Option<(IpAddr, Vec<&str>)> {
    let text = line.split('#').next()?;
    let mut words = text.split_whitespace();
    let address: IpAddr = words.next()?.parse().ok()?;
    let names: Vec<_> = words.collect();
    let foreign = names.is_empty() || address.is_loopback() || address.is_multicast() || address.is_unspecified();
    (!foreign).then_some((address, names))
}

#[cfg(test)]
#[path = "hosts_tests.rs"]
pub(super) mod tests;
