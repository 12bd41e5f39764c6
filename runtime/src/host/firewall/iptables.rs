//! What `iptables-save` prints.

use std::collections::{BTreeMap, BTreeSet};

/// The chain that Docker leaves to its users.
const USERS: &str = "DOCKER-USER";

/// Targets that change what is known of a packet, or the packet itself.
pub(super) const CHANGES: [&str; 10] =
    ["MARK", "CONNMARK", "TCPMSS", "CLASSIFY", "DSCP", "TOS", "TTL", "HL", "CT", "SET"];

/// Where a forwarded packet comes by, by table.
const HOOKS: [(&str, &[&str]); 3] =
    [("raw", &["PREROUTING"]), ("mangle", &["PREROUTING", "FORWARD", "POSTROUTING"]), ("filter", &["FORWARD"])];

/// Rules by chain, in order, each as it was printed.
type Chains<'t> = BTreeMap<&'t str, Vec<&'t str>>;

/// The rules that drop, reject, change or count packets on their way to a published port, and all that were put into
/// `DOCKER-USER`, each as `iptables-save` prints it, preceded by its table where that is not `filter`.
///
/// Docker's own rules and Podman's are none of them, nor those that its own come before: they never saw packets to published ports.
pub fn rules(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (table, hooks) in HOOKS {
        let Some(chains) = chains_of(text, table) else { continue };
        let mut walk = Walk { chains: &chains, seen: BTreeSet::new(), found: Vec::new() };
        for hook in hooks {
            walk.chain(hook, table, false);
        }
        let prefix = if table == "filter" { String::new() } else { format!("-t {table} ") };
        found.extend(walk.found.iter().map(|rule| format!("{prefix}{rule}")));
    }
    found
}

fn chains_of<'t>(text: &'t str, table: &str) -> Option<Chains<'t>> {
    let mut lines = text.lines().skip_while(|l| l.strip_prefix('*') != Some(table));
    lines.next()?;
    let mut chains = Chains::new();
    for line in lines.take_while(|l| *l != "COMMIT") {
        if let Some(chain) = line.strip_prefix(':') {
            chains.entry(chain.split(' ').next().unwrap_or(chain)).or_default();
        } else if let Some(chain) = line.strip_prefix("-A ").and_then(|rest| rest.split(' ').next()) {
            chains.entry(chain).or_default().push(line);
        }
    }
    Some(chains)
}

struct Walk<'c, 't> {
    chains: &'c Chains<'t>,
    seen: BTreeSet<&'t str>,
    found: Vec<&'t str>,
}

impl<'t> Walk<'_, 't> {
    /// `users`: whether the chain is reached from [`USERS`].
    fn chain(&mut self, name: &str, table: &str, users: bool) {
        let Some((name, rules)) = self.chains.get_key_value(name) else { return };
        if !self.seen.insert(name) {
            return;
        }
        let users = users || *name == USERS;
        for rule in rules {
            let words = words(rule);
            let target = after(&words, &["-j", "-g"]).unwrap_or_default();
            // Podman's keep its networks apart, and drop nothing that is published.
            if target.starts_with("NETAVARK") {
                continue;
            }
            if target != USERS && target.starts_with("DOCKER") {
                if *name == "FORWARD" && matches!(target, "DOCKER" | "DOCKER-FORWARD") {
                    // Docker lets packets to published ports in here: what follows never saw them.
                    return;
                }
                continue;
            }
            if self.chains.contains_key(target) {
                // ufw's chains for what none of its rules is about.
                if !matches!(target, "ufw-skip-to-policy-forward" | "ufw-reject-forward") {
                    self.chain(target, table, users);
                }
                continue;
            }
            let filters = matches!(target, "DROP" | "REJECT" | "TARPIT") && !is_dockers(&words, table);
            // Two words name the chain, two the target.
            let plain_return = target == "RETURN" && words.len() == 4;
            let invalid = after(&words, &["--ctstate", "--state"]) == Some("INVALID");
            let changes = CHANGES.contains(&target);
            // One that does nothing else, but has a condition or a comment, is there for its counters.
            let counts = target.is_empty() && words.len() > 2;
            if (filters || changes || counts || (users && !plain_return)) && !invalid {
                self.found.push(rule);
            }
        }
    }
}

/// Rules by which Docker keeps outsiders from addresses that only the host is to use, and containers from each other.
fn is_dockers(words: &[&str], table: &str) -> bool {
    let (to, from) = (after(words, &["-d"]), after(words, &["-i"]));
    let not_from = words.windows(2).any(|w| w == ["!", "-i"]);
    let same_bridge = from.is_some() && from == after(words, &["-o"]) && !words.contains(&"!");
    match table {
        "raw" => not_from && to.is_some_and(|a| a.ends_with("/32") || a.ends_with("/128")),
        "filter" => same_bridge && words.len() == 8,
        _ => false,
    }
}

fn after<'w>(words: &[&'w str], options: &[&str]) -> Option<&'w str> {
    words.windows(2).find(|w| options.contains(&w[0])).map(|w| w[1])
}

/// Splits at blanks, outside of quotes: a comment can hold anything.
fn words(rule: &str) -> Vec<&str> {
    let (mut words, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, c) in rule.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            ' ' if !quoted => {
                words.extend(rule.get(start..at).filter(|w| !w.is_empty()));
                start = at + 1;
            }
            _ => {}
        }
    }
    words.extend(rule.get(start..).filter(|w| !w.is_empty()));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from iptables 1.8.9; Docker's own rules in the form of versions 20.10 and 28.
    const SAMPLE: &str = include_str!("iptables_sample.txt");

    #[test]
    fn the_users_filters_and_none_of_dockers() {
        assert_eq!(
            rules(SAMPLE),
            [
                "-t raw -A PREROUTING -s 203.0.113.0/24 -j DROP",
                "-t mangle -A PREROUTING -m mark --mark 0x7 -j DROP",
                "-t mangle -A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu",
                "-A DOCKER-USER -s 10.0.0.0/8 -i eth0 -j RETURN",
                "-A office -s 198.51.100.0/24 -j ACCEPT",
                "-A office -j REJECT --reject-with icmp-port-unreachable",
                "-A DOCKER-USER -i eth0 -m comment --comment \"not from \\\"out there\\\"\" -j DROP",
                "-A FORWARD -p tcp -m tcp --dport 25 -j REJECT --reject-with icmp-port-unreachable",
                "-A ufw-user-forward -s 203.0.113.9/32 -p tcp -m tcp --dport 80 -j DROP",
            ]
        );
    }

    #[test]
    fn without_dockers_rules_every_forward_rule_counts() {
        let text = "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -i eth0 -o eth1 -j ACCEPT\n\
                    -A FORWARD -j REJECT --reject-with icmp-host-prohibited\nCOMMIT\n";
        assert_eq!(rules(text), ["-A FORWARD -j REJECT --reject-with icmp-host-prohibited"]);
        assert_eq!(rules("").len(), 0);
        assert_eq!(rules("*filter\n:FORWARD ACCEPT [0:0]\n-A INPUT -j DROP\nCOMMIT\n").len(), 0);
    }

    #[test]
    fn what_changes_or_counts_packets() {
        let text = "*mangle\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n\
                    -A PREROUTING -p tcp -m tcp --dport 80 -j MARK --set-xmark 0x1/0xffffffff\n\
                    -A PREROUTING -s 10.0.0.1/32\n-A POSTROUTING -o virbr0 -p udp -j CHECKSUM --checksum-fill\nCOMMIT\n";
        let expected = [
            "-t mangle -A PREROUTING -p tcp -m tcp --dport 80 -j MARK --set-xmark 0x1/0xffffffff",
            "-t mangle -A PREROUTING -s 10.0.0.1/32",
        ];
        assert_eq!(rules(text), expected);
    }

    #[test]
    fn chains_that_call_each_other_end() {
        let text = "*filter\n:FORWARD ACCEPT [0:0]\n:a - [0:0]\n:b - [0:0]\n-A FORWARD -g a\n-A a -j b\n-A b -j a\n\
                    -A b -m comment --comment \"-j ACCEPT\" -j DROP\nCOMMIT\n";
        assert_eq!(rules(text), ["-A b -m comment --comment \"-j ACCEPT\" -j DROP"]);
    }
}
