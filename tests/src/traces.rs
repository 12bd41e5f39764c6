//! What a host shows of the datapath, to tell whether anything of it is left.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

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
    let pins = lab.pins().to_string_lossy();
    let is_ours = |pin: &Value| pin.as_str().is_some_and(|pin| Path::new(pin).starts_with(&*pins));
    let mut found = BTreeSet::new();
    for kind in KINDS {
        for object in all(lab, &["-f"], kind) {
            if object["pinned"].as_array().is_some_and(|of| of.iter().any(is_ours)) {
                found.insert((kind.to_owned(), object["id"].to_string()));
                if let Some(program) = object["prog_id"].as_u64() {
                    found.insert(("prog".to_owned(), program.to_string()));
                }
            }
        }
    }
    found
}

/// Those of these objects that the kernel still has.
pub fn remaining(lab: &Lab, objects: &BTreeSet<(String, String)>) -> BTreeSet<(String, String)> {
    let of_kind = |kind: &&str| {
        let kind = (*kind).to_owned();
        all(lab, &[], &kind).into_iter().map(move |object| (kind.clone(), object["id"].to_string()))
    };
    KINDS.iter().flat_map(of_kind).filter(|object| objects.contains(object)).collect()
}

const KINDS: [&str; 3] = ["prog", "map", "link"];

/// What bpftool lists of a kind, of the whole machine; with its pins, where the options say so.
fn all(lab: &Lab, options: &[&str], kind: &str) -> Vec<Value> {
    let text = lab.host().run(["bpftool", "-j"].iter().chain(options).chain(&[kind, "show"])).ok();
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("bpftool {kind} show: {e}: {text}"))
}
