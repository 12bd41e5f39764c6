//! What a host shows of the datapath, to tell whether anything of it is left.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::Lab;

/// What the host's namespace shows to anybody who looks: links with their programs, addresses, routes, rules, filters.
/// Each line carries the command that printed it.
pub fn look(lab: &Lab) -> BTreeSet<String> {
    let looks: &[&[&str]] = &[
        &["ip", "-details", "link", "show"],
        &["ip", "address", "show"],
        &["ip", "route", "show", "table", "all"],
        &["ip", "rule", "show"],
        &["ip", "neigh", "show", "nud", "permanent"],
        &["iptables-save"],
        &["ip6tables-save"],
        &["bpftool", "net", "show"],
        &["sysctl", "-a", "-r", "^net\\.(ipv4|ipv6|bridge)\\..*(forward|rp_filter|localnet|proxy_arp|nf-call)"],
    ];
    // Counters, timers, comments with the date, and link-local addresses that are being checked are no state.
    let passing = |l: &str| l.starts_with('#') || ["valid_lft", "fe80:", "ff00:"].iter().any(|part| l.contains(part));
    let settle = |l: &str| {
        let words: Vec<_> = l.split(" [").next().unwrap_or(l).split_whitespace().collect();
        let timer = |i: usize| i > 0 && words[i - 1].ends_with("_timer");
        (0..words.len()).filter(|i| !timer(*i)).map(|i| words[i]).collect::<Vec<_>>().join(" ")
    };
    let mut all = BTreeSet::new();
    for words in looks {
        let text = lab.host().run(*words).ok();
        all.extend(text.lines().filter(|l| !passing(l)).map(|l| format!("{}: {}", words.join(" "), settle(l))));
    }
    all
}

/// The files under a folder.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
    entries.flat_map(|p| if p.is_dir() { files(&p) } else { vec![p] }).collect()
}

/// The kernel's objects behind a lab's pins, as `KIND ID`.
pub fn objects(lab: &Lab) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for pin in files(lab.pins()) {
        for kind in ["prog", "map", "link"] {
            let done = lab.host().run(["bpftool", "-j", kind, "show", "pinned", &pin.display().to_string()]);
            let object: serde_json::Value = serde_json::from_str(&done.stdout).unwrap_or_default();
            if let Some(id) = object["id"].as_u64().filter(|_| done.success()) {
                found.insert((kind.to_owned(), id.to_string()));
            }
            for program in [&object["prog_id"]].into_iter().filter_map(serde_json::Value::as_u64) {
                found.insert(("prog".to_owned(), program.to_string()));
            }
        }
    }
    found
}
