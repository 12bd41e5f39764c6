//! What people, labels, containers and the socket's clients may write, changed by chance: no parser panics, and what parses prints
//! back to the same. `RUNTIME_PARSER_CASES` says how many of each are tried.
#![allow(clippy::unwrap_used, reason = "in a test, also in what helps it")]

use fastrand::Rng;

/// Calls `check` with texts that come of these by a few changes, always the same ones.
fn changed(corpus: &[&str], check: impl Fn(&[u8])) {
    let cases = std::env::var("RUNTIME_PARSER_CASES").map_or(20_000, |n| n.parse().unwrap());
    let mut rng = Rng::with_seed(1);
    for text in corpus {
        check(text.as_bytes());
    }
    for _ in 0..cases {
        let mut text = rng.choice(corpus.iter()).unwrap().as_bytes().to_vec();
        for _ in 0..rng.usize(1..5) {
            let at = rng.usize(0..=text.len());
            let other = rng.choice(corpus.iter()).unwrap().as_bytes();
            match rng.u8(0..6) {
                0 => text.insert(at, rng.u8(..)),
                1 => text.insert(at, rng.choice(*b"0159:-/[].,= \n\t#\"{}").unwrap()),
                2 if at < text.len() => drop(text.remove(at)),
                3 => text.truncate(at),
                4 => text.splice(at..at, other[..rng.usize(0..=other.len())].iter().copied()).for_each(drop),
                _ if at < text.len() => text[at] ^= 1 << rng.u8(0..8),
                _ => {}
            }
        }
        check(&text);
    }
}

#[test]
fn what_is_published() {
    let corpus = [
        "80",
        "8080:80",
        "127.0.0.1:8080:80/tcp",
        "[::1]:8080:80/udp",
        "[::1]::80",
        "::80",
        "8000-9000:80",
        "7000-7010:7000-7010/sctp",
        "65535:65535",
        "target=80,published=8080,protocol=udp,mode=host",
        "0.0.0.0::53/udp",
    ];
    changed(&corpus, parser_checks::published);
}

#[test]
fn links() {
    let corpus = ["db", "db:webdb", "/db:/web/webdb", "/db:webdb", "//db:webdb", "a:b:c", ":"];
    changed(&corpus, parser_checks::link);
}

#[test]
fn sources() {
    let corpus = [
        "192.0.2.0/24",
        "192.0.2.1",
        "2001:db8::/32",
        "::1",
        "10.0.0.0/8,172.16.0.0/12",
        "0.0.0.0/0",
        "::/0",
        "::ffff:192.0.2.1",
    ];
    changed(&corpus, parser_checks::sources);
}

#[test]
fn hosts_files() {
    let corpus = [
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n172.17.0.2\tweb\n",
        "172.17.0.9\tdb webdb\nfd00::9\tdb\n",
        "# a comment\n172.17.0.3 db # behind\n",
        "db\n",
        "",
    ];
    changed(&corpus, parser_checks::hosts_file);
}

#[test]
fn requests() {
    let corpus = [
        r#"{"command":"ping"}"#,
        r#"{"command":"status"}"#,
        r#"{"command":"publish","container":"web","spec":"8080:80","filter":{"allow":["192.0.2.0/24"],"deny":[],"max_rate":5}}"#,
        r#"{"command":"unpublish","container":"web","spec":"80"}"#,
        r#"{"command":"link","recipient":"web","source":"db","alias":"webdb","all_ports":true}"#,
        r#"{"command":"wait_served","container":"0123456789abcdef"}"#,
    ];
    changed(&corpus, parser_checks::request);
}
