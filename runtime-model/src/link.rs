//! `--link` in every form that Docker's command line takes.

use std::fmt;

/// What `--link` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkRequest {
    /// The source's name or id as typed, without a leading slash.
    pub source: String,
    /// The alias: the last element of its path.
    pub alias: String,
}

impl fmt::Display for LinkRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source, self.alias)
    }
}

/// A `--link` that cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The source, or the alias after the colon, is missing.
    #[error("invalid --link {spec:?}: the {part} is empty; write SOURCE or SOURCE:ALIAS, as in db:webdb")]
    Empty {
        /// As typed.
        spec: String,
        /// `source` or `alias`.
        part: &'static str,
    },
    /// More than one colon.
    #[error(
        "invalid --link {0:?}: bad format for links, more than one colon; write SOURCE or SOURCE:ALIAS, as in db:webdb"
    )]
    Colons(String),
    /// The alias could not stand in /etc/hosts and in a variable's name.
    #[error(
        "invalid --link {spec:?}: alias {alias:?} has a blank, a control character, '#' or '=' in it, or more than 255 bytes; write a plain name, as in db:webdb"
    )]
    Alias {
        /// As typed.
        spec: String,
        /// The alias of it.
        alias: String,
    },
}

/// What `db`, `db:webdb` or, as Docker itself writes it in `HostConfig.Links`, `/db:/web/webdb` asks for.
///
/// # Errors
/// Empty parts, more than one colon, and an alias that would break the recipient's /etc/hosts.
pub fn parse_link(spec: &str) -> Result<LinkRequest, LinkError> {
    let (source, alias) = spec.split_once(':').unwrap_or((spec, spec));
    if alias.contains(':') {
        return Err(LinkError::Colons(spec.to_owned()));
    }
    let source = source.trim_start_matches('/');
    let alias = last_element(alias);
    for (part, text) in [("source", source), ("alias", alias)] {
        if text.is_empty() {
            return Err(LinkError::Empty { spec: spec.to_owned(), part });
        }
    }
    if !is_alias(alias) {
        return Err(LinkError::Alias { spec: spec.to_owned(), alias: alias.to_owned() });
    }
    Ok(LinkRequest { source: source.to_owned(), alias: alias.to_owned() })
}

/// Whether a link can have this alias: one that stands in the recipient's /etc/hosts and in the names of its variables.
pub fn is_alias(alias: &str) -> bool {
    /// What a line of the file and a name of the DNS have room for.
    const LONGEST: usize = 255;
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || "#=:/".contains(c);
    !alias.is_empty() && alias.len() <= LONGEST && !alias.contains(forbidden)
}

/// The last element of an alias' path: `webdb` of `/web/webdb`.
pub(super) fn last_element(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (spec, source, alias) in [
            ("db", "db", "db"),
            ("/db", "db", "db"),
            ("db:webdb", "db", "webdb"),
            ("/db:/web/webdb", "db", "webdb"),
            ("db:/web/webdb", "db", "webdb"),
            ("4c01db0b339c:my.db-1_x", "4c01db0b339c", "my.db-1_x"),
        ] {
            let link = parse_link(spec).unwrap();
            assert_eq!((link.source.as_str(), link.alias.as_str()), (source, alias), "{spec}");
            assert_eq!(link.to_string(), format!("{source}:{alias}"));
        }
    }

    #[test]
    fn refusals_quote_the_text() {
        for (spec, what) in [
            ("", "the source is empty"),
            (":", "the source is empty"),
            ("/", "the source is empty"),
            (":webdb", "the source is empty"),
            ("/:webdb", "the source is empty"),
            ("db:", "the alias is empty"),
            ("db:/", "the alias is empty"),
            ("db:/web/", "the alias is empty"),
            ("a:b:c", "bad format for links, more than one colon"),
            ("a:b:", "bad format for links, more than one colon"),
            ("db:web db", r#"alias "web db" has a blank"#),
            ("db:x\n192.0.2.1 y", r#"alias "x\n192.0.2.1 y" has a blank"#),
            ("db:a\u{7}b", r#"alias "a\u{7}b" has a blank"#),
            ("db:a#b", r##"alias "a#b" has a blank"##),
            ("db:a=b", r#"alias "a=b" has a blank"#),
        ] {
            let line = parse_link(spec).unwrap_err().to_string();
            assert!(line.starts_with(&format!("invalid --link {spec:?}: {what}")), "{line}");
            assert_eq!(line.lines().count(), 1);
        }
    }
}
