//! Rules of the host's firewall that were meant to filter forwarded packets: what the datapath redirects passes them by.
//!
//! Nothing is ever changed here; what the programs that list rules print is read, and no more.

mod iptables;
mod nft;

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// How long a program may take to list rules.
const PATIENCE: Duration = Duration::from_secs(5);

/// A line for each rule that redirected packets pass by: which it is, what that means, and what is there instead.
///
/// A program that is not installed, or fails, has no rules to tell of.
pub async fn passed_by() -> Vec<String> {
    let mut found = Vec::new();
    let mut by_iptables = false;
    for (program, family) in [("iptables-save", "iptables"), ("ip6tables-save", "ip6tables")] {
        if let Some(text) = output(program, &[]).await {
            by_iptables = true;
            found.extend(iptables::filters(&text).iter().map(|rule| describe(family, rule)));
        }
    }
    if let Some(text) = output("nft", &["-j", "list", "ruleset"]).await {
        found.extend(nft::filters(&text, by_iptables).iter().map(|rule| describe("nft", rule)));
    }
    found
}

fn describe(family: &str, rule: &str) -> String {
    let instead =
        counterpart(rule).unwrap_or_else(|| "\"--allow-from\", \"--deny-from\" and \"--max-rate\"".to_owned());
    format!(
        "{family} rule \"{rule}\" does not see packets to published ports, which are redirected past it: what \"runtime publish\" \
         and \"runtime run\" have instead is {instead}; \"runtime unpublish\" closes a port"
    )
}

/// The filter of a publication that says what a rule says of its source.
fn counterpart(rule: &str) -> Option<String> {
    // A comment may hold anything.
    if rule.contains('"') {
        return None;
    }
    let words: Vec<&str> = rule.split(' ').collect();
    let at = words.iter().position(|w| matches!(*w, "-s" | "saddr"))?;
    let mut source = *words.get(at + 1)?;
    let mut others = at > 0 && words[at - 1] == "!";
    if source == "!=" {
        others = true;
        source = words.get(at + 2)?;
    }
    let refuses = words.iter().any(|w| matches!(*w, "DROP" | "REJECT" | "drop" | "reject"));
    let lets_in = words.iter().any(|w| matches!(*w, "ACCEPT" | "RETURN"));
    let source = source.trim_matches(['{', '}']);
    match (refuses, lets_in, others) {
        (true, _, false) | (false, true, true) => Some(format!("\"--deny-from {source}\"")),
        (true, _, true) | (false, true, false) => Some(format!("\"--allow-from {source}\"")),
        _ => None,
    }
}

async fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.ok()?.ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_that_says_the_same() {
        for (rule, expected) in [
            ("-A DOCKER-USER -s 192.0.2.0/24 -i eth0 -j DROP", Some("\"--deny-from 192.0.2.0/24\"")),
            ("-A DOCKER-USER ! -s 192.0.2.0/24 -i eth0 -j DROP", Some("\"--allow-from 192.0.2.0/24\"")),
            ("-A DOCKER-USER -s 192.0.2.0/24 -j RETURN", Some("\"--allow-from 192.0.2.0/24\"")),
            ("inet mine fwd: ip saddr != {192.0.2.1,192.0.2.2} drop", Some("\"--allow-from 192.0.2.1,192.0.2.2\"")),
            ("inet mine fwd: ip6 saddr 2001:db8::/32 reject", Some("\"--deny-from 2001:db8::/32\"")),
            ("-A DOCKER-USER -s 192.0.2.0/24 -j LOG", None),
            ("-A DOCKER-USER -i eth0 -j DROP", None),
            ("-A DOCKER-USER -m comment --comment \"-s me\" -j DROP", None),
        ] {
            assert_eq!(counterpart(rule).as_deref(), expected, "{rule}");
            let line = describe("iptables", rule);
            assert!(line.contains(rule) && line.contains(expected.unwrap_or("--max-rate")), "{line}");
        }
    }
}
