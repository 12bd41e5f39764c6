//! What `nft -j list ruleset` prints: libnftables-json(5).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Hooks of netfilter that a forwarded packet comes by.
const HOOKS: [&str; 3] = ["prerouting", "forward", "postrouting"];
/// Tables that iptables keeps in nftables, and lists itself.
const BY_IPTABLES: [&str; 5] = ["filter", "raw", "mangle", "nat", "security"];

/// A chain's place: family, table, name.
type Place<'v> = (&'v str, &'v str, &'v str);

/// The rules that drop, reject, change or count forwarded packets, as `family table chain: matches statement`, and chains that
/// drop them by policy.
///
/// Docker's own tables and Podman's are left out, and with `by_iptables` those that `iptables-save` has shown. Of firewalld's, the rules of
/// zones and policies are told of, and not its frame around them, which is the same everywhere.
///
/// # Errors
/// Where the text is no JSON.
pub fn rules(text: &str, by_iptables: bool) -> serde_json::Result<Vec<String>> {
    // A kernel without nf_tables has none.
    let root: Value = if text.trim().is_empty() { Value::Null } else { serde_json::from_str(text)? };
    let objects = root.get("nftables").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let is_foreign = |place: &Place<'_>| {
        let (family, table, _) = *place;
        let shown = by_iptables && matches!(family, "ip" | "ip6") && BY_IPTABLES.contains(&table);
        !shown && !table.starts_with("docker-") && table != "netavark"
    };
    let mut rules: BTreeMap<Place<'_>, Vec<&Value>> = BTreeMap::new();
    let mut found = Vec::new();
    let mut hooked = Vec::new();
    for object in objects {
        if let Some(rule) = object.get("rule")
            && let Some(place) = place(rule, "chain").filter(is_foreign)
        {
            rules.entry(place).or_default().push(rule);
        }
        if let Some(chain) = object.get("chain")
            && let Some(place) = place(chain, "name").filter(is_foreign)
            && chain.get("hook").and_then(Value::as_str).is_some_and(|h| HOOKS.contains(&h))
        {
            hooked.push(place);
            if chain.get("policy").and_then(Value::as_str) == Some("drop") {
                found.push(format!("{} {} {}: policy drop", place.0, place.1, place.2));
            }
        }
    }
    let mut seen: BTreeSet<Place<'_>> = BTreeSet::new();
    while let Some(at) = hooked.pop() {
        if !seen.insert(at) {
            continue;
        }
        let frame = at.1 == "firewalld" && seen_as_frame(at.2);
        for rule in rules.get(&at).into_iter().flatten() {
            let expressions = rule.get("expr").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            for target in expressions.iter().filter_map(|e| e.get("jump").or_else(|| e.get("goto"))) {
                if let Some(name) = target.get("target").and_then(Value::as_str) {
                    hooked.push((at.0, at.1, name));
                }
            }
            let verdict = ["drop", "reject"].into_iter().find(|v| expressions.iter().any(|e| e.get(v).is_some()));
            let doing: Vec<String> = match verdict {
                Some(verdict) => vec![verdict.to_owned()],
                None => expressions.iter().filter_map(|e| effect(e, expressions)).collect(),
            };
            let matches: Vec<String> = expressions.iter().filter_map(|e| e.get("match")).map(matching).collect();
            let invalid = matches.len() == 1 && matches[0].contains("ct state") && matches[0].ends_with("invalid");
            if !doing.is_empty() && !frame && !invalid {
                let words: Vec<&str> = matches.iter().chain(&doing).map(String::as_str).collect();
                found.push(format!("{} {} {}: {}", at.0, at.1, at.2, words.join(" ")));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// What a statement does besides letting the packet go on: `meta mark set 7`, `counter web`. Counters without a name are in most
/// rules, and what a rule is for only where there is nothing else in it.
fn effect(statement: &Value, all: &[Value]) -> Option<String> {
    let (kind, what) = statement.as_object()?.iter().next()?;
    let alone = || all.iter().all(|e| e.get("match").is_some() || e.get(kind).is_some());
    match kind.as_str() {
        "mangle" => {
            let key = what.get("key").map(changed).unwrap_or_default();
            Some(format!("{key} set {}", what.get("value").map(expression).unwrap_or_default()))
        }
        "counter" | "quota" if what.is_string() => Some(format!("{kind} {}", expression(what))),
        "counter" | "quota" => alone().then(|| kind.clone()),
        _ => None,
    }
}

/// What a statement changes: `meta mark`, `tcp option maxseg size`.
fn changed(key: &Value) -> String {
    match key.as_object().and_then(|key| key.iter().next()) {
        Some((kind, of)) => {
            let word = |name: &str| of.get(name).and_then(Value::as_str);
            let kind = if kind == "payload" { "" } else { kind.as_str() };
            let words = [Some(kind), word("protocol"), word("name"), word("key"), word("field")];
            words.into_iter().flatten().filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" ")
        }
        None => expression(key),
    }
}

/// firewalld's base chains: `filter_FORWARD` and its kin.
fn seen_as_frame(chain: &str) -> bool {
    matches!(chain, "filter_FORWARD" | "filter_PREROUTING" | "mangle_PREROUTING" | "raw_PREROUTING")
}

fn place<'v>(object: &'v Value, name: &str) -> Option<Place<'v>> {
    let word = |key: &str| object.get(key).and_then(Value::as_str);
    Some((word("family")?, word("table")?, word(name)?))
}

/// A match in words close to nft's own: `tcp dport != 80`.
fn matching(m: &Value) -> String {
    let operator = match m.get("op").and_then(Value::as_str) {
        Some("==" | "in") | None => String::new(),
        Some(op) => format!("{op} "),
    };
    let side = |key: &str| m.get(key).map(expression).unwrap_or_default();
    format!("{} {operator}{}", side("left"), side("right"))
}

fn expression(e: &Value) -> String {
    let word = |value: &Value, key: &str| value.get(key).map(expression).unwrap_or_default();
    match e {
        Value::String(text) => text.clone(),
        Value::Array(all) => all.iter().map(expression).collect::<Vec<_>>().join(","),
        Value::Object(object) => match object.iter().next() {
            Some((kind, v)) => match kind.as_str() {
                "payload" => format!("{} {}", word(v, "protocol"), word(v, "field")),
                "ct" | "rt" => format!("{kind} {}", word(v, "key")),
                "meta" => word(v, "key"),
                "prefix" => format!("{}/{}", word(v, "addr"), word(v, "len")),
                "range" => v.as_array().into_iter().flatten().map(expression).collect::<Vec<_>>().join("-"),
                "set" => format!("{{{}}}", expression(v)),
                // Rare ones, by name alone.
                other => other.to_owned(),
            },
            None => String::new(),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chain(family: &str, table: &str, name: &str, hook: Option<(&str, &str)>) -> Value {
        let mut chain = json!({"family": family, "table": table, "name": name, "handle": 1});
        if let Some((hook, policy)) = hook {
            chain["type"] = "filter".into();
            chain["prio"] = 0.into();
            chain["hook"] = hook.into();
            chain["policy"] = policy.into();
        }
        json!({"chain": chain})
    }

    fn rule(family: &str, table: &str, chain: &str, expr: Value) -> Value {
        json!({"rule": {"family": family, "table": table, "chain": chain, "handle": 2, "expr": expr}})
    }

    fn told(objects: Vec<Value>, by_iptables: bool) -> Vec<String> {
        let mut all = vec![json!({"metainfo": {"version": "1.0.6", "json_schema_version": 1}})];
        all.extend(objects);
        rules(&json!({"nftables": all}).to_string(), by_iptables).unwrap()
    }

    fn from(net: &str, len: u8) -> Value {
        json!({"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}},
            "right": {"prefix": {"addr": net, "len": len}}}})
    }

    #[test]
    fn filters_of_a_forward_chain_and_of_the_chains_it_calls() {
        let port = json!({"match": {"op": "!=", "left": {"payload": {"protocol": "tcp", "field": "dport"}},
            "right": {"set": [80, {"range": [8000, 8010]}]}}});
        let state = json!({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "invalid"}});
        let objects = vec![
            chain("inet", "mine", "fwd", Some(("forward", "drop"))),
            chain("inet", "mine", "office", None),
            chain("inet", "mine", "in", Some(("input", "drop"))),
            rule("inet", "mine", "fwd", json!([state, {"drop": null}])),
            rule("inet", "mine", "fwd", json!([from("10.0.0.0", 8), {"accept": null}])),
            rule("inet", "mine", "fwd", json!([{"jump": {"target": "office"}}])),
            rule("inet", "mine", "office", json!([port, {"counter": {"packets": 0, "bytes": 0}}, {"reject": null}])),
            rule("inet", "mine", "in", json!([{"drop": null}])),
        ];
        assert_eq!(
            told(objects, true),
            ["inet mine fwd: policy drop", "inet mine office: tcp dport != {80,8000-8010} reject"]
        );
    }

    /// As nft 1.0.6 prints them.
    #[test]
    fn what_changes_or_counts_packets() {
        let port =
            json!({"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 80}});
        let mangle = |key: Value, value: Value| json!({"mangle": {"key": key, "value": value}});
        let counter = json!({"counter": {"packets": 0, "bytes": 0}});
        let mss = json!({"tcp option": {"name": "maxseg", "field": "size"}});
        let objects = vec![
            chain("inet", "mine", "fwd", Some(("forward", "accept"))),
            rule("inet", "mine", "fwd", json!([port, mangle(json!({"meta": {"key": "mark"}}), json!(7))])),
            rule("inet", "mine", "fwd", json!([mangle(mss, json!({"rt": {"key": "mtu"}}))])),
            rule("inet", "mine", "fwd", json!([port, {"counter": "web"}, {"accept": null}])),
            rule("inet", "mine", "fwd", json!([{"quota": "little"}, {"accept": null}])),
            rule("inet", "mine", "fwd", json!([port, counter])),
            rule("inet", "mine", "fwd", json!([port, counter, {"accept": null}])),
        ];
        let expected = [
            "inet mine fwd: quota little",
            "inet mine fwd: tcp dport 80 counter",
            "inet mine fwd: tcp dport 80 counter web",
            "inet mine fwd: tcp dport 80 meta mark set 7",
            "inet mine fwd: tcp option maxseg size set rt mtu",
        ];
        assert_eq!(told(objects, true), expected);
    }

    #[test]
    fn tables_of_docker_and_of_iptables_are_not_told_of_twice() {
        let objects = || {
            ["filter", "docker-bridges", "netavark"].into_iter().flat_map(|table| {
                let hooked = chain("ip", table, "FORWARD", Some(("forward", "accept")));
                [hooked, rule("ip", table, "FORWARD", json!([from("203.0.113.0", 24), {"drop": null}]))]
            })
        };
        assert_eq!(told(objects().collect(), true).len(), 0);
        let alone = told(objects().collect(), false);
        assert_eq!(alone, ["ip filter FORWARD: ip saddr 203.0.113.0/24 drop"]);
    }

    #[test]
    fn of_firewalld_the_zones_rules() {
        let objects = vec![
            chain("inet", "firewalld", "filter_FORWARD", Some(("forward", "accept"))),
            chain("inet", "firewalld", "filter_FWD_public_deny", None),
            rule("inet", "firewalld", "filter_FORWARD", json!([{"jump": {"target": "filter_FWD_public_deny"}}])),
            rule("inet", "firewalld", "filter_FORWARD", json!([{"reject": {"type": "icmpx"}}])),
            rule("inet", "firewalld", "filter_FWD_public_deny", json!([from("203.0.113.0", 24), {"drop": null}])),
        ];
        let expected = ["inet firewalld filter_FWD_public_deny: ip saddr 203.0.113.0/24 drop"];
        assert_eq!(told(objects, true), expected);
        assert!(rules("no JSON", false).is_err());
        assert_eq!(rules("", false).unwrap().len(), 0);
    }
}
