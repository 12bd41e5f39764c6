//! The variables that a link adds to its recipient's environment.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::link::last_element;
use super::{Container, Port};

/// The variables that the link `recipient` -> `source` under `alias` adds, in Docker's order.
///
/// `recipient` is the recipient's name, `address` the source's address as the recipient sees it. The rules are Docker's for
/// its default bridge: ports by protocol (TCP, SCTP, UDP) and number, the first one as `ALIAS_PORT`, runs of consecutive
/// ports with their ends, then the name, then the source's own variables.
pub fn link_environment(recipient: &str, alias: &str, source: &Container, address: IpAddr) -> Vec<(String, String)> {
    let alias = last_element(alias);
    let prefix = alias.to_uppercase().replace('-', "_");
    let url = |p: Port| format!("{}://{}", p.protocol, SocketAddr::new(address, p.number));
    let name = |p: Port| format!("{prefix}_PORT_{}_{}", p.number, p.protocol.name().to_uppercase());
    let mut variables = Vec::new();

    let mut ports = source.exposed.clone();
    ports.sort_unstable();
    ports.dedup();
    if let Some(first) = ports.first() {
        variables.push((format!("{prefix}_PORT"), url(*first)));
    }
    for run in ports.chunk_by(|a, b| a.protocol == b.protocol && a.number.checked_add(1) == Some(b.number)) {
        for port in run {
            let name = name(*port);
            variables.push((name.clone(), url(*port)));
            variables.push((format!("{name}_ADDR"), address.to_string()));
            variables.push((format!("{name}_PORT"), port.number.to_string()));
            variables.push((format!("{name}_PROTO"), port.protocol.to_string()));
        }
        if let [start, .., end] = run {
            let name = name(*start);
            variables.push((format!("{name}_START"), url(*start)));
            variables.push((format!("{name}_PORT_START"), start.number.to_string()));
            variables.push((format!("{name}_END"), url(*end)));
            variables.push((format!("{name}_PORT_END"), end.number.to_string()));
        }
    }

    variables.push((format!("{prefix}_NAME"), format!("/{recipient}/{alias}")));
    let inherited = source.env.iter().filter_map(|line| line.split_once('='));
    // Every image sets these two, and they mean nothing in another container.
    let inherited = inherited.filter(|(key, _)| !["HOME", "PATH"].contains(key));
    variables.extend(inherited.map(|(key, value)| (format!("{prefix}_ENV_{key}"), value.to_owned())));
    variables
}

/// The environment of a recipient: what links add, then its own `K=V` lines, which win.
///
/// An own line without `=` removes the variable, as Docker has it. Of two links that set the same variable (aliases `db-1`
/// and `db_1`), the later wins.
pub fn merge_environment(own: &[String], links: Vec<(String, String)>) -> Vec<String> {
    let own_line = |line: &String| match line.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (line.clone(), None),
    };
    let all = links.into_iter().map(|(key, value)| (key, Some(value))).chain(own.iter().map(own_line));

    let mut merged: Vec<(String, Option<String>)> = Vec::new();
    let mut places = HashMap::new();
    for (key, value) in all {
        let place = *places.entry(key.clone()).or_insert(merged.len());
        match merged.get_mut(place) {
            Some(entry) => entry.1 = value,
            None => merged.push((key, value)),
        }
    }
    merged.into_iter().filter_map(|(key, value)| value.map(|value| format!("{key}={value}"))).collect()
}

#[cfg(test)]
mod tests {
    use runtime_common::Protocol::{Sctp, Tcp, Udp};

    use super::*;
    use crate::hosts::tests::container;

    fn lines(exposed: &[Port], env: &[&str], alias: &str) -> Vec<String> {
        let mut source = container("db", "4c01db0b339c");
        source.exposed = exposed.to_vec();
        source.env = env.iter().map(|s| s.to_string()).collect();
        let variables = link_environment("web", alias, &source, "172.17.0.5".parse().unwrap());
        variables.into_iter().map(|(k, v)| format!("{k}={v}")).collect()
    }

    /// The example of Docker's page on legacy links: a database with one port.
    #[test]
    fn one_port() {
        let env = ["PG_VERSION=9.3", "HOME=/root", "PATH=/bin", "WITHOUT_EQUALS", "EMPTY=", "URL=a=b"];
        assert_eq!(
            lines(&[Port::new(5432, Tcp)], &env, "webdb"),
            [
                "WEBDB_PORT=tcp://172.17.0.5:5432",
                "WEBDB_PORT_5432_TCP=tcp://172.17.0.5:5432",
                "WEBDB_PORT_5432_TCP_ADDR=172.17.0.5",
                "WEBDB_PORT_5432_TCP_PORT=5432",
                "WEBDB_PORT_5432_TCP_PROTO=tcp",
                "WEBDB_NAME=/web/webdb",
                "WEBDB_ENV_PG_VERSION=9.3",
                "WEBDB_ENV_EMPTY=",
                "WEBDB_ENV_URL=a=b",
            ]
        );
    }

    #[test]
    fn no_ports() {
        assert_eq!(lines(&[], &[], "my-db_1"), ["MY_DB_1_NAME=/web/my-db_1"]);
    }

    #[test]
    fn the_alias_is_the_last_element() {
        assert_eq!(lines(&[], &["A=1"], "/web/webdb"), ["WEBDB_NAME=/web/webdb", "WEBDB_ENV_A=1"]);
    }

    #[test]
    fn order_of_protocols_and_numbers() {
        let ports =
            [Port::new(53, Udp), Port::new(9, Sctp), Port::new(443, Tcp), Port::new(80, Tcp), Port::new(80, Tcp)];
        let got = lines(&ports, &[], "a");
        let urls: Vec<_> = got.iter().filter(|l| l.contains("://")).cloned().collect();
        assert_eq!(
            urls,
            [
                "A_PORT=tcp://172.17.0.5:80",
                "A_PORT_80_TCP=tcp://172.17.0.5:80",
                "A_PORT_443_TCP=tcp://172.17.0.5:443",
                "A_PORT_9_SCTP=sctp://172.17.0.5:9",
                "A_PORT_53_UDP=udp://172.17.0.5:53",
            ]
        );
        assert!(!got.iter().any(|l| l.contains("_START") || l.contains("_END")));
    }

    #[test]
    fn runs_of_ports() {
        let tcp = [8000, 8002, 8001, 9000, 65534, 65535].map(|n| Port::new(n, Tcp));
        let got = lines(&[&tcp[..], &[Port::new(1, Udp)]].concat(), &[], "a");
        let ends: Vec<_> = got.iter().filter(|l| l.contains("_START=") || l.contains("_END=")).cloned().collect();
        assert_eq!(
            ends,
            [
                "A_PORT_8000_TCP_START=tcp://172.17.0.5:8000",
                "A_PORT_8000_TCP_PORT_START=8000",
                "A_PORT_8000_TCP_END=tcp://172.17.0.5:8002",
                "A_PORT_8000_TCP_PORT_END=8002",
                "A_PORT_65534_TCP_START=tcp://172.17.0.5:65534",
                "A_PORT_65534_TCP_PORT_START=65534",
                "A_PORT_65534_TCP_END=tcp://172.17.0.5:65535",
                "A_PORT_65534_TCP_PORT_END=65535",
            ]
        );
        // Every port of a run has its own four as well.
        assert!(got.contains(&"A_PORT_8001_TCP_ADDR=172.17.0.5".to_owned()));
    }

    #[test]
    fn a_run_is_of_one_protocol() {
        let got = lines(&[Port::new(80, Tcp), Port::new(81, Udp)], &[], "a");
        assert!(!got.iter().any(|l| l.contains("_START") || l.contains("_END")), "{got:?}");
    }

    #[test]
    fn an_ipv6_address_stands_in_brackets_in_a_url() {
        let mut source = container("db", "h");
        source.exposed = vec![Port::new(80, Tcp)];
        let variables = link_environment("web", "db", &source, "2001:db8::2".parse().unwrap());
        assert!(variables.contains(&("DB_PORT".into(), "tcp://[2001:db8::2]:80".into())));
        assert!(variables.contains(&("DB_PORT_80_TCP_ADDR".into(), "2001:db8::2".into())));
    }

    #[test]
    fn own_variables_win() {
        let own = ["DB_NAME=mine", "A=1", "A=2", "DB_GONE"].map(str::to_owned);
        let links = [("DB_PORT", "p"), ("DB_NAME", "/web/db"), ("DB_GONE", "x"), ("DB_PORT", "later")];
        let links = links.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec();
        assert_eq!(merge_environment(&own, links), ["DB_PORT=later", "DB_NAME=mine", "A=2"]);
    }
}
