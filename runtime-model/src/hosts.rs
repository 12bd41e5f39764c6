//! The lines that links keep in a recipient's /etc/hosts.

use std::collections::BTreeSet;
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

/// Whether a name can stand in the file and be found there again: what has a blank or a `#` in it is another name or none,
/// and what has the end of a line in it would be a line of somebody else's.
pub fn is_writable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b > b' ' && b != 0x7f && b != b'#')
}

/// The lines of a link: one for each address that the source has; none for an alias that cannot be written.
pub fn link_entries(
    alias: &str,
    source: &Container,
    ipv4: Option<Ipv4Addr>,
    ipv6: Option<Ipv6Addr>,
) -> Vec<HostsEntry> {
    let mut names: Vec<String> = Vec::new();
    if !is_writable(alias) {
        return Vec::new();
    }
    for name in [alias, &source.hostname, &source.name] {
        if is_writable(name) && !names.iter().any(|n| n == name) {
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
///
/// The file is the container's to write: what is no text in it is kept byte for byte. An entry whose line would not be found
/// again, or that another stands for already, is not written: it would be written again each time.
pub fn update_hosts(contents: &[u8], wanted: &[HostsEntry], removed_aliases: &[String]) -> Option<Vec<u8>> {
    let mut of_alias = BTreeSet::new();
    let wanted: Vec<_> =
        wanted.iter().filter(|w| is_found(w) && of_alias.insert((w.alias(), w.address.is_ipv4()))).collect();
    let mut placed = vec![false; wanted.len()];
    let mut updated = Vec::with_capacity(contents.len());
    for line in contents.split_inclusive(|b| *b == b'\n') {
        let Some((address, names)) = parse_line(line) else {
            updated.extend(line);
            continue;
        };
        let ours = |w: &&HostsEntry| w.alias().as_bytes() == names[0];
        if !wanted.iter().any(ours) && !removed_aliases.iter().any(|a| a.as_bytes() == names[0]) {
            updated.extend(line);
            continue;
        }
        let place = wanted.iter().position(|w| ours(w) && w.address.is_ipv4() == address.is_ipv4());
        match place {
            Some(i) if !placed[i] => {
                placed[i] = true;
                if says(wanted[i], address, &names) {
                    updated.extend(line);
                } else {
                    updated.extend(wanted[i].to_string().as_bytes());
                    updated.extend(line.strip_suffix(b"\n").map(|_| b'\n'));
                }
            }
            // A second line for the same alias and family, or a family that the source no longer has.
            _ => {}
        }
    }
    for (entry, _) in wanted.iter().zip(&placed).filter(|(_, placed)| !**placed) {
        if !updated.is_empty() && !updated.ends_with(b"\n") {
            updated.push(b'\n');
        }
        updated.extend(format!("{entry}\n").as_bytes());
    }
    (updated != contents).then_some(updated)
}

fn says(entry: &HostsEntry, address: IpAddr, names: &[&[u8]]) -> bool {
    entry.address == address && entry.names.iter().map(String::as_bytes).eq(names.iter().copied())
}

/// Whether an entry's line is read as this very entry.
fn is_found(entry: &HostsEntry) -> bool {
    let line = entry.to_string();
    entry.names.iter().all(|name| is_writable(name))
        && parse_line(line.as_bytes()).is_some_and(|(address, names)| says(entry, address, &names))
}

/// Address and names of a line that could be a link's; comments, blank and malformed lines are nobody's.
fn parse_line(line: &[u8]) -> Option<(IpAddr, Vec<&[u8]>)> {
    let text = line.split(|b| *b == b'#').next()?;
    let mut words = text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let address: IpAddr = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
    let names: Vec<_> = words.collect();
    let foreign = names.is_empty() || address.is_loopback() || address.is_multicast() || address.is_unspecified();
    (!foreign).then_some((address, names))
}

#[cfg(test)]
pub(super) mod tests;
