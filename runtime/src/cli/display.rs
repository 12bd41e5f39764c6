//! Docker's ways of writing ports, times and commands, for what lists containers.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::model::Publication;

/// A port as the list of containers shows it: published, or exposed alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShownPort {
    /// The container's port.
    pub private: u16,
    /// The host's address and port.
    pub host: Option<(IpAddr, u16)>,
    /// `tcp`, `udp`, `sctp`.
    pub protocol: String,
}

impl From<&Publication> for ShownPort {
    fn from(p: &Publication) -> Self {
        ShownPort {
            private: p.container_port.number,
            host: Some((p.host_addr, p.host_port)),
            protocol: p.container_port.protocol.to_string(),
        }
    }
}

/// `443/tcp, 0.0.0.0:8000-8002->8000-8002/tcp, [::]:81->80/tcp`: runs of ports that are the same on both sides are ranges,
/// and other mappings come last, as in `docker ps`.
pub fn ports(mut ports: Vec<ShownPort>) -> String {
    ports.sort();
    ports.dedup();
    let mut open: BTreeMap<(Option<IpAddr>, String), (u16, u16)> = BTreeMap::new();
    let mut order = Vec::new();
    let (mut shown, mut mapped) = (Vec::new(), Vec::new());
    for port in ports {
        let address = match port.host {
            Some((address, public)) if public != port.private => {
                mapped.push(format!("{}->{}/{}", SocketAddr::new(address, public), port.private, port.protocol));
                continue;
            }
            host => host.map(|(address, _)| address),
        };
        let key = (address, port.protocol);
        match open.get_mut(&key) {
            Some((_, last)) if last.checked_add(1) == Some(port.private) => *last = port.private,
            Some(run) => {
                shown.push(range(&key, *run));
                *run = (port.private, port.private);
            }
            None => {
                order.push(key.clone());
                open.insert(key, (port.private, port.private));
            }
        }
    }
    shown.extend(order.iter().filter_map(|key| Some(range(key, *open.get(key)?))));
    shown.extend(mapped);
    shown.join(", ")
}

fn range((address, protocol): &(Option<IpAddr>, String), (first, last): (u16, u16)) -> String {
    let ports = if first == last { first.to_string() } else { format!("{first}-{last}") };
    match address {
        None => format!("{ports}/{protocol}"),
        Some(IpAddr::V4(a)) => format!("{a}:{ports}->{ports}/{protocol}"),
        Some(IpAddr::V6(a)) => format!("[{a}]:{ports}->{ports}/{protocol}"),
    }
}

/// `"/bin/sleep 100…"`: quoted, at most 20 characters unless `whole`.
pub fn command(text: &str, whole: bool) -> String {
    let short = if whole || text.chars().count() <= 20 {
        text.to_owned()
    } else {
        text.chars().take(19).chain(['…']).collect()
    };
    format!("{short:?}")
}

/// `About an hour`, in the words of Docker.
pub fn duration(seconds: u64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        s if s < 60 => format!("{s} seconds"),
        _ if minutes == 1 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// `2026-11-24 18:46:08 +0000 UTC`, of seconds since 1970.
pub fn timestamp(seconds: i64) -> String {
    // Days to a date of the Gregorian calendar, in years that begin in March (H. Hinnant, "chrono-compatible low-level
    // date algorithms", civil_from_days).
    let (days, second) = (seconds.div_euclid(86_400) + 719_468, seconds.rem_euclid(86_400));
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} +0000 UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(host: Option<(&str, u16)>, private: u16, protocol: &str) -> ShownPort {
        ShownPort { private, host: host.map(|(a, p)| (a.parse().unwrap(), p)), protocol: protocol.into() }
    }

    /// What `docker ps` printed for the same ports.
    #[test]
    fn ports_as_docker_writes_them() {
        let shown = ports(vec![
            port(None, 443, "tcp"),
            port(Some(("::", 81)), 80, "tcp"),
            port(Some(("0.0.0.0", 81)), 80, "tcp"),
        ]);
        assert_eq!(shown, "443/tcp, 0.0.0.0:81->80/tcp, [::]:81->80/tcp");
        let mut range: Vec<_> = (7000..=7002).map(|p| port(Some(("0.0.0.0", p)), p, "tcp")).collect();
        range.extend((7000..=7002).map(|p| port(Some(("::", p)), p, "tcp")));
        range.push(port(None, 9000, "tcp"));
        range.push(port(None, 9002, "tcp"));
        range.push(port(None, 9001, "udp"));
        assert_eq!(
            ports(range),
            "9000/tcp, 0.0.0.0:7000-7002->7000-7002/tcp, [::]:7000-7002->7000-7002/tcp, 9002/tcp, 9001/udp"
        );
        assert_eq!(ports(vec![port(None, 65535, "tcp"), port(None, 65535, "tcp")]), "65535/tcp");
    }

    #[test]
    fn commands() {
        assert_eq!(command("/bin/sleep 100000", false), "\"/bin/sleep 100000\"");
        assert_eq!(command("/bin/sleep 10000000000", false), "\"/bin/sleep 10000000…\"");
        assert_eq!(command("/bin/sleep 10000000000", true), "\"/bin/sleep 10000000000\"");
    }

    #[test]
    fn durations() {
        for (seconds, words) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (180, "3 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (3 * 86_400, "3 days"),
            (21 * 86_400, "3 weeks"),
        ] {
            assert_eq!(duration(seconds), words);
        }
    }

    #[test]
    fn timestamps() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 +0000 UTC"),
            (951_782_400, "2000-02-29 00:00:00 +0000 UTC"),
            (1_795_545_968, "2026-11-24 18:46:08 +0000 UTC"),
            (-1, "1969-12-31 23:59:59 +0000 UTC"),
        ] {
            assert_eq!(timestamp(seconds), text);
        }
    }
}
