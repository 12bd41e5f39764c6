//! Publications whose ports follow one another: a range of 10,000 is one thing to keep, not 10,000.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Port, Publication};

/// Publications of one address and protocol whose ports rise together on both sides.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct PublicationRange {
    first: Publication,
    ports: u16,
}

/// As it is written; a single publication has no number of ports.
#[derive(Serialize, Deserialize)]
struct Written {
    #[serde(flatten)]
    first: Publication,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    ports: u16,
}

fn one() -> u16 {
    1
}

fn is_one(ports: &u16) -> bool {
    *ports == 1
}

/// A range that has no port, or goes beyond the last one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no range: {ports} ports from {host_port} -> {container_port} on")]
pub struct InvalidRange {
    ports: u16,
    host_port: u16,
    container_port: u16,
}

impl TryFrom<Written> for PublicationRange {
    type Error = InvalidRange;

    fn try_from(w: Written) -> Result<Self, InvalidRange> {
        let (host_port, container_port) = (w.first.host_port, w.first.container_port.number);
        let last = w.ports.checked_sub(1).and_then(|n| host_port.max(container_port).checked_add(n));
        match last {
            Some(_) => Ok(PublicationRange { first: w.first, ports: w.ports }),
            None => Err(InvalidRange { ports: w.ports, host_port, container_port }),
        }
    }
}

impl From<PublicationRange> for Written {
    fn from(r: PublicationRange) -> Self {
        Written { first: r.first, ports: r.ports }
    }
}

impl From<Publication> for PublicationRange {
    fn from(first: Publication) -> Self {
        PublicationRange { first, ports: 1 }
    }
}

impl PublicationRange {
    /// The fewest ranges that are these publications.
    pub fn of(mut publications: Vec<Publication>) -> Vec<PublicationRange> {
        publications.sort_unstable_by_key(|p| (p.host_addr, p.container_port.protocol, p.host_port, p.container_port));
        let mut ranges: Vec<PublicationRange> = Vec::new();
        for publication in publications {
            match ranges.last_mut() {
                Some(last) if last.is_before(&publication) => last.ports += 1,
                _ => ranges.push(publication.into()),
            }
        }
        ranges
    }

    fn is_before(&self, p: &Publication) -> bool {
        self.offset(p).is_none() && self.at_offset(self.ports).is_some_and(|next| next == *p)
    }

    fn at_offset(&self, n: u16) -> Option<Publication> {
        let Publication { host_addr, host_port, container_port } = self.first;
        Some(Publication {
            host_addr,
            host_port: host_port.checked_add(n)?,
            container_port: Port { number: container_port.number.checked_add(n)?, ..container_port },
        })
    }

    /// Which one of it this is.
    fn offset(&self, p: &Publication) -> Option<u16> {
        let n = p.host_port.checked_sub(self.first.host_port).filter(|n| *n < self.ports)?;
        (self.at_offset(n).as_ref() == Some(p)).then_some(n)
    }

    /// How many there are: one or more.
    pub fn ports(&self) -> u16 {
        self.ports
    }

    /// Whether this is one of them.
    pub fn contains(&self, publication: &Publication) -> bool {
        self.offset(publication).is_some()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Publication> + '_ {
        (0..self.ports).filter_map(|n| self.at_offset(n))
    }

    /// The one of this host address and container port.
    pub fn of_container_port(&self, host_addr: IpAddr, port: Port) -> Option<Publication> {
        let n = port.number.checked_sub(self.first.container_port.number).filter(|n| *n < self.ports)?;
        self.at_offset(n).filter(|p| p.host_addr == host_addr && p.container_port == port)
    }

    /// What is left of it without those that are gone too.
    pub fn without(&self, gone: &PublicationRange) -> Vec<PublicationRange> {
        let Some(start) = gone.first.host_port.max(self.first.host_port).checked_sub(self.first.host_port) else {
            return vec![self.clone()];
        };
        // The last host ports, counted so that they cannot overflow.
        let last = |r: &PublicationRange| r.first.host_port + (r.ports - 1);
        let meets = self.at_offset(start).is_some_and(|p| self.contains(&p) && gone.contains(&p));
        if !meets {
            return vec![self.clone()];
        }
        let end = last(self).min(last(gone)) - self.first.host_port + 1;
        let part = |from: u16, to: u16| -> Option<PublicationRange> {
            let ports = to.checked_sub(from).filter(|n| *n > 0)?;
            Some(PublicationRange { first: self.at_offset(from)?, ports })
        };
        [part(0, start), part(end, self.ports)].into_iter().flatten().collect()
    }
}

/// A set of port numbers.
pub struct PortSet(Vec<u64>);

impl Default for PortSet {
    fn default() -> Self {
        PortSet(vec![0; 1024])
    }
}

impl PortSet {
    /// Adds one.
    pub fn insert(&mut self, port: u16) {
        self.0[usize::from(port >> 6)] |= 1 << (port & 63);
    }

    /// Whether it is there.
    pub fn contains(&self, port: u16) -> bool {
        self.0[usize::from(port >> 6)] & 1 << (port & 63) != 0
    }
}

impl FromIterator<u16> for PortSet {
    fn from_iter<I: IntoIterator<Item = u16>>(ports: I) -> Self {
        let mut set = PortSet::default();
        ports.into_iter().for_each(|p| set.insert(p));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(host_port: u16, container_port: &str) -> Publication {
        let host_addr = "0.0.0.0".parse().unwrap();
        Publication { host_addr, host_port, container_port: container_port.parse().unwrap() }
    }

    fn range(host_port: u16, container_port: &str, ports: u16) -> PublicationRange {
        PublicationRange { first: publication(host_port, container_port), ports }
    }

    #[test]
    fn publications_that_follow_one_another_are_one_range() {
        let all = [(8001, "81/tcp"), (8000, "80/tcp"), (8002, "90/tcp"), (8003, "91/tcp"), (8004, "92/udp")];
        let all = all.map(|(host, container)| publication(host, container)).to_vec();
        let ranges = [range(8000, "80/tcp", 2), range(8002, "90/tcp", 2), range(8004, "92/udp", 1)];
        assert_eq!(PublicationRange::of(all.clone()), ranges);
        let mut again: Vec<Publication> = ranges.iter().flat_map(|r| r.iter()).collect();
        again.sort();
        let mut all = all;
        all.sort();
        assert_eq!(again, all);
        // Several host ports of one container port are no range.
        assert_eq!(PublicationRange::of(vec![publication(1, "80/tcp"), publication(2, "80/tcp")]).len(), 2);
    }

    #[test]
    fn what_is_taken_out_of_a_range_leaves_its_ends() {
        let whole = range(8000, "80/tcp", 10);
        assert_eq!(whole.without(&range(8000, "80/tcp", 10)), []);
        assert_eq!(whole.without(&range(7990, "70/tcp", 100)), []);
        assert_eq!(whole.without(&range(8003, "83/tcp", 2)), [range(8000, "80/tcp", 3), range(8005, "85/tcp", 5)]);
        assert_eq!(whole.without(&range(8008, "88/tcp", 50)), [range(8000, "80/tcp", 8)]);
        for other in [range(8003, "84/tcp", 2), range(8003, "83/udp", 2), range(8010, "90/tcp", 1), range(7, "7", 1)] {
            assert_eq!(whole.without(&other), std::slice::from_ref(&whole));
        }
        let last = range(65535, "65535/tcp", 1);
        assert_eq!(range(65000, "65000/tcp", 536).without(&last), [range(65000, "65000/tcp", 535)]);
    }

    #[test]
    fn a_single_one_is_written_as_a_publication_and_nonsense_is_not_read() {
        let single = serde_json::to_value(range(8000, "80/tcp", 1)).unwrap();
        assert_eq!(single, serde_json::to_value(publication(8000, "80/tcp")).unwrap());
        for r in [range(8000, "80/tcp", 1), range(8000, "80/tcp", 1000)] {
            let text = serde_json::to_string(&r).unwrap();
            assert_eq!(serde_json::from_str::<PublicationRange>(&text).unwrap(), r, "{text}");
        }
        for r in [range(65535, "80/tcp", 2), range(80, "65000/tcp", 1000), range(1, "1/tcp", 0)] {
            let text = serde_json::to_string(&r).unwrap();
            assert!(serde_json::from_str::<PublicationRange>(&text).is_err(), "{text}");
        }
    }
}
