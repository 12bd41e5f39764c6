//! Rules of the host's firewall that were meant to filter forwarded packets: what the datapath redirects passes them by.
//!
//! Nothing is ever changed here; what the programs that list rules print is read, and no more.

mod iptables;
mod nft;

use super::programs::list;

/// A line for each rule that redirected packets pass by: which it is, what that means, and what is there instead; and one for
/// each program that could not list its rules.
pub async fn passed_by() -> Vec<String> {
    let listing = list(&[&["iptables-save"], &["ip6tables-save"], &["nft", "-j", "list", "ruleset"]]).await;
    let mut found: Vec<String> = listing.failed.iter().map(|reason| unknown(reason)).collect();
    let mut by_iptables = false;
    for (program, family) in [("iptables-save", "iptables"), ("ip6tables-save", "ip6tables")] {
        if let Some(text) = listing.of(program) {
            // Of a table that it cannot print, nft tells.
            by_iptables |= !text.contains(" is incompatible, use 'nft' tool");
            found.extend(iptables::rules(text).iter().map(|rule| describe(family, rule)));
        }
    }
    if let Some(text) = listing.of("nft") {
        match nft::rules(text, by_iptables) {
            Ok(rules) => found.extend(rules.iter().map(|rule| describe("nft", rule))),
            Err(e) => found.push(unknown(&format!("what nft -j list ruleset prints cannot be read: {e}"))),
        }
    }
    found
}

fn unknown(reason: &str) -> String {
    format!("{reason}. Which rules of the host's firewall packets to published ports pass by is not known in full")
}

fn describe(family: &str, rule: &str) -> String {
    if let Some(instead) = effect(rule) {
        return format!(
            "{family} rule \"{rule}\" has no effect on published traffic, which is redirected past it{instead}"
        );
    }
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

/// What stands in for a rule that changes or counts packets; `None` for one that lets packets through or does not.
fn effect(rule: &str) -> Option<&'static str> {
    const MSS: &str = ": path MTU discovery is in its place, by an ICMP error for each packet that is too large; or make the \
                       network with \"-o com.docker.network.driver.mtu=\"";
    const COUNT: &str = ": \"runtime status\" counts it";
    // Outside of comments, which may hold anything.
    let bare: String = rule.split('"').step_by(2).collect();
    let words: Vec<&str> = bare.split_whitespace().collect();
    let has = |word: &str| words.contains(&word);
    if ["drop", "reject", "policy"].iter().any(|w| has(w)) {
        return None;
    }
    if has("maxseg") {
        return Some(MSS);
    }
    if words.first().is_some_and(|w| *w != "-A" && *w != "-t") {
        // nft's, none of which would be here if it did neither.
        return Some(if has("set") { "" } else { COUNT });
    }
    match words.iter().position(|w| matches!(*w, "-j" | "-g")).and_then(|i| words.get(i + 1)) {
        Some(&"TCPMSS") => Some(MSS),
        Some(target) => iptables::CHANGES.contains(target).then_some(""),
        None => Some(COUNT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_for_rules_that_change_or_count() {
        for (rule, expected) in [
            ("-t mangle -A PREROUTING -p tcp -m tcp --dport 80 -j MARK --set-xmark 0x1/0xffffffff", "past it"),
            ("-t mangle -A FORWARD -p tcp -m comment --comment \"-j DROP\" -j TCPMSS --clamp-mss-to-pmtu", "path MTU"),
            ("-A FORWARD -s 10.0.0.1/32", "\"runtime status\" counts it"),
            ("inet mine fwd: tcp dport 80 meta mark set 7", "past it"),
            ("inet mine fwd: tcp option maxseg size set rt mtu", "path MTU"),
            ("inet mine fwd: tcp dport 80 counter web", "\"runtime status\" counts it"),
        ] {
            let line = describe("iptables", rule);
            let (head, tail) =
                line.split_once(" has no effect on published traffic, ").unwrap_or_else(|| panic!("{line}"));
            assert!(head.contains(rule) && tail.contains(expected), "{line}");
        }
    }

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
            assert_eq!(effect(rule), None, "{rule}");
            assert_eq!(counterpart(rule).as_deref(), expected, "{rule}");
            let line = describe("iptables", rule);
            assert!(line.contains(rule) && line.contains(expected.unwrap_or("--max-rate")), "{line}");
        }
    }
}
