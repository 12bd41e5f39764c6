//! What holds of everything that people, labels, containers and the socket's clients may write: no parser panics, and what parses
//! prints back to the same. Called with texts by chance by this crate's test, and by the coverage-guided targets in `fuzz`.
#![allow(clippy::unwrap_used, reason = "for tests alone")]

use std::collections::BTreeMap;

use runtime_api::wire::{read_request, request_line};
use runtime_model::filter::Filter;
use runtime_model::hosts::{HostsEntry, update_hosts};
use runtime_model::link::parse_link;
use runtime_model::publish::{parse_expose, parse_publish};

/// What follows `-p` and `--expose`.
pub fn published(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for request in parse_publish(text).into_iter().flatten() {
        assert_eq!(parse_publish(&request.to_string()), Ok(vec![request.clone()]), "{text:?}: {request}");
    }
    for port in parse_expose(text).into_iter().flatten() {
        assert_eq!(parse_expose(&port.to_string()), Ok(vec![port]), "{text:?}");
    }
}

/// What follows `--link`.
pub fn link(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(link) = parse_link(text) {
        assert_eq!(parse_link(&link.to_string()), Ok(link.clone()), "{text:?}: {link}");
    }
}

/// Lists of sources, in CIDR notation.
pub fn sources(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let words = [text.to_owned()];
    for filter in [Filter::new(&words, &[], None), Filter::new(&[], &words, Some(text))].into_iter().flatten() {
        let labels: BTreeMap<_, _> = filter.to_labels().map(|(label, value)| (label.to_owned(), value)).collect();
        assert_eq!(Filter::of_labels(&labels), Ok(filter), "{text:?}");
    }
}

/// A hosts file of a container.
pub fn hosts_file(bytes: &[u8]) {
    let entry = |address: &str, name: &str| HostsEntry {
        address: address.parse().unwrap(),
        names: vec![name.to_owned(), "5d1c".to_owned()],
    };
    let wanted = [entry("172.17.0.3", "db"), entry("fd00::3", "db"), entry("172.17.0.4", "cache")];
    let removed = ["webdb".to_owned()];
    let updated = update_hosts(bytes, &wanted, &removed).unwrap_or(bytes.to_vec());
    let again = update_hosts(&updated, &wanted, &removed);
    assert_eq!(again, None, "{:?}", String::from_utf8_lossy(bytes));
}

/// A line of a client of the daemon's socket.
pub fn request(bytes: &[u8]) {
    if let Ok(request) = read_request(bytes) {
        let text = request_line(&request).unwrap();
        assert_eq!(read_request(text.as_bytes()).unwrap(), request, "{text}");
    }
}
