//! Names of containers: which are valid, and one for those that get none.

/// A name that Docker would refuse; in its words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid container name ({0:?}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed: two or more characters, the first a letter \
     or digit"
)]
pub struct InvalidName(pub String);

/// The name without the one leading slash that Docker lets it have.
///
/// # Errors
/// Names that do not match `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
pub fn container_name(name: &str) -> Result<&str, InvalidName> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    let mut bytes = bare.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if first && rest && bare.len() > 1 { Ok(bare) } else { Err(InvalidName(name.to_owned())) }
}

/// A name for a container that was given none: an adjective and a surname, chosen by `random`.
pub fn generate_name(random: u64) -> String {
    // Remainders of a usize's width: the lists are far smaller.
    let pick = |list: &[&'static str], n: u64| list[(n % list.len() as u64) as usize];
    format!("{}_{}", pick(&ADJECTIVES, random), pick(&SURNAMES, random / ADJECTIVES.len() as u64))
}

/// What a container may be like.
#[rustfmt::skip]
const ADJECTIVES: [&str; 77] = [
    "able", "agile", "alert", "amber", "azure", "bold", "brave", "breezy", "bright", "brisk", "calm",
    "candid", "cheerful", "clear", "clever", "cosmic", "crisp", "curious", "daring", "deft", "eager",
    "earnest", "fair", "fearless", "fluent", "fond", "frank", "fresh", "gentle", "glad", "golden", "grand",
    "happy", "hardy", "honest", "humble", "jolly", "keen", "kind", "lively", "loyal", "lucid", "mellow",
    "merry", "mighty", "modest", "neat", "nimble", "noble", "patient", "placid", "polite", "proud", "quick",
    "quiet", "rapid", "ready", "serene", "sharp", "silver", "smart", "snug", "solid", "spry", "steady",
    "sturdy", "sunny", "swift", "tidy", "tranquil", "trusty", "upbeat", "vivid", "warm", "wise", "witty",
    "zesty",
];

/// People of science and of networks.
#[rustfmt::skip]
const SURNAMES: [&str; 94] = [
    "abramson", "agnesi", "ampere", "archimedes", "avogadro", "baran", "bell", "berners", "boole", "bose",
    "boyle", "braun", "cantor", "cerf", "chandra", "clarke", "codd", "conway", "cray", "curie", "dalton",
    "darwin", "davies", "dijkstra", "dirac", "edison", "engelbart", "erdos", "euclid", "euler", "faraday",
    "fermat", "fermi", "feynman", "floyd", "fourier", "franklin", "galileo", "galois", "gauss", "gibbs",
    "goodall", "gray", "hamilton", "hamming", "hertz", "hilbert", "hoare", "hopper", "hubble", "huffman",
    "huygens", "jacobson", "joule", "karn", "kelvin", "kepler", "kilby", "kleene", "knuth", "lamarr",
    "laplace", "leibniz", "lovelace", "lynch", "maxwell", "mccarthy", "meitner", "mendel", "metcalfe", "naur",
    "newton", "noether", "nyquist", "ohm", "pascal", "pauli", "perlman", "planck", "postel", "ramanujan",
    "ritchie", "roberts", "shannon", "sinclair", "tesla", "thompson", "torvalds", "turing", "volta", "wilkes",
    "wirth", "wozniak", "zuse",
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn valid_names() {
        for name in ["db", "web-1", "A0", "0a", "my_app.v2", "a-", "x..", "/web"] {
            assert_eq!(container_name(name).unwrap(), name.trim_start_matches('/'));
        }
    }

    #[test]
    fn invalid_names() {
        for name in ["", "/", "a", "_a", "-a", ".a", "a b", "a/b", "//ab", "\u{e4}b", "a\nb", "a:b"] {
            let line = container_name(name).unwrap_err().to_string();
            let start = format!("invalid container name ({name:?}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed");
            assert!(line.starts_with(&start), "{line}");
            assert_eq!(line.lines().count(), 1);
        }
    }

    #[test]
    fn generated_names_are_valid_and_many() {
        let names: HashSet<_> = (0..3600).map(generate_name).collect();
        assert_eq!(names.len(), 3600);
        for name in names.iter().chain([&generate_name(u64::MAX)]) {
            assert!(container_name(name).is_ok(), "{name}");
            assert_eq!(name.split('_').count(), 2, "{name}");
        }
    }
}
