//! Expectations are files as Docker writes them, and what a reader of hosts(5) would expect of a change.

use std::collections::BTreeMap;

use super::*;

/// A stopped container with nothing but its names.
pub(crate) fn container(name: &str, hostname: &str) -> Container {
    Container {
        id: "4c01db0b339c".repeat(6)[..64].to_owned(),
        name: name.to_owned(),
        hostname: hostname.to_owned(),
        running: false,
        started_at: String::new(),
        pid: 0,
        labels: BTreeMap::new(),
        env: Vec::new(),
        exposed: Vec::new(),
        publications: Vec::new(),
        links: Vec::new(),
        endpoints: Vec::new(),
        sandbox: None,
        unserved: Default::default(),
        hosts_path: None,
    }
}

fn entry(line: &str) -> HostsEntry {
    let mut words = line.split_whitespace();
    let address = words.next().unwrap().parse().unwrap();
    HostsEntry { address, names: words.map(str::to_owned).collect() }
}

fn update(contents: &str, wanted: &[&str], removed: &[&str]) -> Option<String> {
    let wanted: Vec<_> = wanted.iter().map(|w| entry(w)).collect();
    let removed: Vec<_> = removed.iter().map(|s| s.to_string()).collect();
    let updated = update_hosts(contents.as_bytes(), &wanted, &removed);
    updated.map(|bytes| String::from_utf8(bytes).expect("UTF-8"))
}

const DOCKER: &str = "127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff02::1\tip6-allnodes
172.17.0.2\twebdb 4c01db0b339c db
172.17.0.3\ta1b2c3d4e5f6
";

#[test]
fn lines_of_a_link() {
    let lines = |alias, source: &Container, v6: Option<&str>| {
        let v6 = v6.map(|a| a.parse().unwrap());
        let entries = link_entries(alias, source, Some([172, 17, 0, 2].into()), v6);
        entries.iter().map(HostsEntry::to_string).collect::<Vec<_>>()
    };
    let db = container("db", "4c01db0b339c");
    assert_eq!(lines("webdb", &db, None), ["172.17.0.2\twebdb 4c01db0b339c db"]);
    assert_eq!(lines("db", &db, None), ["172.17.0.2\tdb 4c01db0b339c"]);
    assert_eq!(
        lines("webdb", &db, Some("2001:db8::2")),
        ["172.17.0.2\twebdb 4c01db0b339c db", "2001:db8::2\twebdb 4c01db0b339c db"]
    );
    assert_eq!(lines("webdb", &container("db", "webdb"), None), ["172.17.0.2\twebdb db"]);
    assert_eq!(lines("webdb", &container("db", "db"), None), ["172.17.0.2\twebdb db"]);
    assert_eq!(lines("webdb", &container("db", ""), None), ["172.17.0.2\twebdb db"]);
    assert_eq!(link_entries("webdb", &db, None, None), []);
}

#[test]
fn right_already() {
    assert_eq!(update(DOCKER, &["172.17.0.2 webdb 4c01db0b339c db"], &[]), None);
    assert_eq!(update(DOCKER, &[], &["other"]), None);
    assert_eq!(update("", &[], &[]), None);
    // However it is spaced.
    assert_eq!(update("172.17.0.2  webdb\tdb # mine\n", &["172.17.0.2 webdb db"], &[]), None);
}

#[test]
fn a_new_address_takes_the_old_line() {
    let got = update(DOCKER, &["172.17.0.9 webdb 4c01db0b339c db"], &[]).unwrap();
    assert_eq!(got, DOCKER.replace("172.17.0.2\t", "172.17.0.9\t"));
    let got = update(DOCKER, &["172.17.0.2 webdb newhost renamed"], &[]).unwrap();
    assert_eq!(got, DOCKER.replace("4c01db0b339c db", "newhost renamed"));
}

#[test]
fn added_at_the_end() {
    let wanted = ["172.17.0.2 webdb 4c01db0b339c db", "172.17.0.7 cache h cache1"];
    assert_eq!(update(DOCKER, &wanted, &[]).unwrap(), format!("{DOCKER}172.17.0.7\tcache h cache1\n"));
    assert_eq!(update("", &["192.0.2.1 a"], &[]).unwrap(), "192.0.2.1\ta\n");
    assert_eq!(update("192.0.2.9\tx", &["192.0.2.1 a"], &[]).unwrap(), "192.0.2.9\tx\n192.0.2.1\ta\n");
}

#[test]
fn families_do_not_overwrite_each_other() {
    let both = ["172.17.0.2 webdb 4c01db0b339c db", "2001:db8::2 webdb 4c01db0b339c db"];
    let got = update(DOCKER, &both, &[]).unwrap();
    assert_eq!(got, format!("{DOCKER}2001:db8::2\twebdb 4c01db0b339c db\n"));
    assert_eq!(update(&got, &both, &[]), None);
    let reversed = "2001:db8::1\ta\n192.0.2.9\tx\n192.0.2.1\ta\n";
    let wanted = ["192.0.2.2 a", "2001:db8::2 a"];
    assert_eq!(update(reversed, &wanted, &[]).unwrap(), "2001:db8::2\ta\n192.0.2.9\tx\n192.0.2.2\ta\n");
    // The source loses its IPv6 address.
    assert_eq!(update(&got, &both[..1], &[]).unwrap(), DOCKER);
    let moved = ["172.17.0.2 webdb 4c01db0b339c db", "2001:db8::9 webdb 4c01db0b339c db"];
    assert_eq!(update(&got, &moved, &[]).unwrap(), got.replace("db8::2", "db8::9"));
}

#[test]
fn only_the_exact_first_name() {
    let file = "192.0.2.1\tweb.local\n192.0.2.2\tmyweb\n192.0.2.3\tother web\n192.0.2.4\tWeb\n# 192.0.2.5\tweb\n";
    assert_eq!(update(file, &["192.0.2.8 web"], &[]).unwrap(), format!("{file}192.0.2.8\tweb\n"));
    assert_eq!(update(file, &[], &["web"]), None);
    assert_eq!(update("192.0.2.1\tw.b\n192.0.2.2\twxb\n", &[], &["w.b"]).unwrap(), "192.0.2.2\twxb\n");
}

#[test]
fn removed() {
    let got = update(DOCKER, &[], &["webdb"]).unwrap();
    assert_eq!(got, DOCKER.replace("172.17.0.2\twebdb 4c01db0b339c db\n", ""));
    assert_eq!(update("192.0.2.1\ta\n192.0.2.2\tb", &[], &["b"]).unwrap(), "192.0.2.1\ta\n");
    assert_eq!(update("192.0.2.1\ta\n2001:db8::1\ta\n", &[], &["a"]).unwrap(), "");
    // Removed and wanted at once: a link that was made anew.
    assert_eq!(update("192.0.2.1\ta\n", &["192.0.2.1 a"], &["a"]), None);
}

#[test]
fn doubled_lines_become_one() {
    let file = "192.0.2.1\ta x\n192.0.2.7\tb\n192.0.2.2\ta x\n";
    assert_eq!(update(file, &["192.0.2.3 a x"], &[]).unwrap(), "192.0.2.3\ta x\n192.0.2.7\tb\n");
}

#[test]
fn what_is_not_a_link_stays() {
    let file =
        "\n# comment\n127.0.0.1 localhost\n::1 localhost\nff02::1 localhost\nnonsense localhost\n192.0.2.1\n  \n";
    assert_eq!(update(file, &["192.0.2.5 localhost"], &[]).unwrap(), format!("{file}192.0.2.5\tlocalhost\n"));
    assert_eq!(update(file, &[], &["localhost"]), None);
}

#[test]
fn the_missing_last_newline_stays_missing() {
    assert_eq!(update("192.0.2.7\tb\n192.0.2.1\ta", &["192.0.2.2 a"], &[]).unwrap(), "192.0.2.7\tb\n192.0.2.2\ta");
}

#[test]
fn what_is_no_text_is_kept_byte_for_byte() {
    let contents = b"\xff\xfe\x00garbage\n172.17.0.9\twebdb \xe9\n\x80";
    let updated = update_hosts(contents, &[entry("172.17.0.2 webdb db")], &[]).expect("a change");
    assert_eq!(updated, b"\xff\xfe\x00garbage\n172.17.0.2\twebdb db\n\x80");
    assert_eq!(update_hosts(&updated, &[entry("172.17.0.2 webdb db")], &[]), None);
}

#[test]
fn a_line_that_would_not_be_found_again_is_not_written() {
    for names in [&["a b"][..], &["a\n192.0.2.66 bank"], &["#a"], &["a", "b\tc"], &["a", ""], &["\u{b}a"], &[]] {
        let names = names.iter().map(|n| (*n).to_owned()).collect();
        let entry = HostsEntry { address: "172.17.0.2".parse().unwrap(), names };
        assert_eq!(update_hosts(DOCKER.as_bytes(), std::slice::from_ref(&entry), &[]), None, "{entry:?}");
    }
    // What links are never made of.
    assert_eq!(update(DOCKER, &["127.0.0.1 db"], &[]), None);
    // The first of two that want the same: once it is there, nothing is left to do.
    let both = ["172.17.0.2 db", "172.17.0.3 db"];
    let updated = update("", &both, &[]).expect("a change");
    assert_eq!((updated.as_str(), update(&updated, &both, &[])), ("172.17.0.2\tdb\n", None));
    // A hostname that cannot be written is left out; an alias that cannot takes its line along.
    assert_eq!(
        link_entries("webdb", &container("db", "x\n192.0.2.66 bank"), Some([172, 17, 0, 2].into()), None)[0].names,
        ["webdb", "db"]
    );
    assert_eq!(link_entries("web\ndb", &container("db", "x"), Some([172, 17, 0, 2].into()), None), []);
}
