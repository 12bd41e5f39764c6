//! Who may use a publication, and how often.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Label of a container: sources that may use its published ports, separated by commas; no others may.
pub const ALLOW_LABEL: &str = "runtime.allow-from";
/// Label of a container: sources that may not use its published ports, separated by commas.
pub const DENY_LABEL: &str = "runtime.deny-from";
/// Label of a container: how many conversations may begin in a second on each of its published ports.
pub const RATE_LABEL: &str = "runtime.max-rate";

/// Conditions of a publication. Of all prefixes that a source lies in, the longest decides; `deny` decides between equals.
/// Where something is allowed, everything else is not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// Sources that may.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<IpNet>,
    /// Sources that may not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<IpNet>,
    /// Conversations that may begin in a second, 1 or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rate: Option<u32>,
}

/// The text is no source or rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what} \"{text}\": expected {expected}")]
pub struct InvalidFilter {
    what: &'static str,
    text: String,
    expected: &'static str,
}

impl Filter {
    /// Of the words of a command line or of labels, each with one source or several with commas between them.
    ///
    /// # Errors
    /// What cannot be understood, quoted.
    pub fn new(allow: &[String], deny: &[String], max_rate: Option<&str>) -> Result<Self, InvalidFilter> {
        let rate = |text: &str| match text.parse::<u32>() {
            Ok(rate) if (1..=MAX_RATE).contains(&rate) => Ok(rate),
            _ => Err(InvalidFilter {
                what: "--max-rate",
                text: text.to_owned(),
                expected: "new conversations in a second, 1 to 1000000",
            }),
        };
        let words = || allow.iter().chain(deny).flat_map(|w| w.split(','));
        let count = words().count();
        if count > MAX_SOURCES {
            return Err(InvalidFilter {
                what: "--allow-from, --deny-from",
                text: format!("{}, ...", words().next().unwrap_or_default()),
                expected: "8192 sources at most, but there are more: name shorter prefixes",
            });
        }
        Ok(Filter {
            allow: sources("--allow-from", allow)?,
            deny: sources("--deny-from", deny)?,
            max_rate: max_rate.map(rate).transpose()?,
        })
    }

    /// Of a container's labels.
    ///
    /// # Errors
    /// As for [`Filter::new`]: such a container must not be served as if it had none.
    pub fn of_labels(labels: &BTreeMap<String, String>) -> Result<Self, InvalidFilter> {
        let list = |label| labels.get(label).cloned().into_iter().collect::<Vec<_>>();
        Filter::new(&list(ALLOW_LABEL), &list(DENY_LABEL), labels.get(RATE_LABEL).map(String::as_str))
    }

    /// The labels that say the same.
    pub fn to_labels(&self) -> impl Iterator<Item = (&'static str, String)> {
        let list = |nets: &[IpNet]| nets.iter().map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        let rate = self.max_rate.map(|r| r.to_string()).unwrap_or_default();
        [(ALLOW_LABEL, list(&self.allow)), (DENY_LABEL, list(&self.deny)), (RATE_LABEL, rate)]
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
    }

    /// Whether there is no condition.
    pub fn is_empty(&self) -> bool {
        *self == Filter::default()
    }

    /// Whether a source may begin a conversation, as far as it is its address that decides.
    pub fn permits(&self, source: IpAddr) -> bool {
        let longest = |nets: &[IpNet]| nets.iter().filter(|n| n.contains(&source)).map(IpNet::prefix_len).max();
        match (longest(&self.allow), longest(&self.deny)) {
            (Some(allowed), Some(denied)) => allowed > denied,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => self.allow.is_empty(),
        }
    }

    /// Whether any source is named.
    pub fn names_sources(&self) -> bool {
        !(self.allow.is_empty() && self.deny.is_empty())
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> =
            self.to_labels().map(|(l, v)| format!("{}={v}", l.trim_start_matches("runtime."))).collect();
        f.write_str(&words.join(" "))
    }
}

/// The most sources that a filter may name: labels of an image can say anything.
pub const MAX_SOURCES: usize = 8_192;

/// A bucket of a second's worth must fit the kernel side's arithmetic.
const MAX_RATE: u32 = 1_000_000;

fn sources(what: &'static str, words: &[String]) -> Result<Vec<IpNet>, InvalidFilter> {
    let invalid = |text: &str| InvalidFilter {
        what,
        text: text.to_owned(),
        expected: "an address or a prefix, such as 192.0.2.0/24 or 2001:db8::1",
    };
    words
        .iter()
        .flat_map(|w| w.split(','))
        .map(str::trim)
        .map(|text| {
            let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            net.map(|n| n.trunc()).map_err(|_| invalid(text))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn sources_are_addresses_and_prefixes() {
        let f = Filter::new(&words("192.0.2.7/24,2001:db8::1 10.0.0.0/8"), &[], Some("5")).unwrap();
        let allow: Vec<String> = f.allow.iter().map(|n| n.to_string()).collect();
        assert_eq!(allow, ["192.0.2.0/24", "2001:db8::1/128", "10.0.0.0/8"]);
        let labels: BTreeMap<String, String> = f.to_labels().map(|(k, v)| (k.to_owned(), v)).collect();
        assert_eq!(Filter::of_labels(&labels).unwrap(), f);
    }

    #[test]
    fn the_longest_prefix_decides_and_what_is_not_named_is_not_listed() {
        let f = Filter::new(&words("2001:db8::/32"), &words("2001:db8:1::/48 2001:db8::/32"), None).unwrap();
        assert!(!f.permits("2001:db8:2::1".parse().unwrap()), "of equals, the denial");
        let f = Filter::new(&words("2001:db8::/32 2001:db8:1::1"), &words("2001:db8:1::/48"), None).unwrap();
        let permitted = ["2001:db8::1", "2001:db8:1::1", "2001:db8:1::2", "2001:db9::1", "192.0.2.1"];
        assert_eq!(permitted.map(|a| f.permits(a.parse().unwrap())), [true, true, false, false, false]);
        let f = Filter::new(&[], &words("2001:db8::/32"), None).unwrap();
        assert!(f.permits("2001:db9::1".parse().unwrap()) && !f.permits("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn what_is_none_is_quoted() {
        for bad in ["192.0.2.0/33", "example.org", "", "10.0.0.0/8,,"] {
            let e = Filter::new(&[bad.to_owned()], &[], None).unwrap_err().to_string();
            assert!(e.starts_with("invalid --allow-from \""), "{e}");
        }
        for bad in ["0", "-1", "many", "1000001"] {
            let e = Filter::new(&[], &[], Some(bad)).unwrap_err().to_string();
            assert!(e.contains(&format!("\"{bad}\"")), "{e}");
        }
    }
}
