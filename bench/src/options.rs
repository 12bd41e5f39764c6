//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Traffic,
    Kernel,
    Control,
    Crowd,
    Apps,
}

const PARTS: [(&str, Part); 5] = [
    ("traffic", Part::Traffic),
    ("kernel", Part::Kernel),
    ("control", Part::Control),
    ("crowd", Part::Crowd),
    ("apps", Part::Apps),
];

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// End within three minutes.
    pub quick: bool,
    only: Vec<Part>,
    /// Where the report goes.
    pub out: PathBuf,
}

impl Options {
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Options> {
        let mut options = Options { quick: false, only: Vec::new(), out: PathBuf::from("target/bench") };
        while let Some(word) = words.next() {
            match word.as_str() {
                "--quick" => options.quick = true,
                "--out" => options.out = words.next().context("--out: expected a folder after it")?.into(),
                "--only" => {
                    let list = words.next().context("--only: expected parts after it, such as traffic,kernel")?;
                    for name in list.split(',') {
                        let part = PARTS.iter().find(|(n, _)| *n == name);
                        let (_, part) = part.with_context(|| {
                            format!("--only {name:?}: none of traffic, kernel, control, crowd, apps")
                        })?;
                        options.only.push(*part);
                    }
                }
                _ => bail!("{word:?}: expected --quick, --only PART,... or --out DIR"),
            }
        }
        Ok(options)
    }

    /// Whether a part is to be measured: all are, unless some are named; a quick run leaves out what takes minutes.
    pub fn has(&self, part: Part) -> bool {
        if self.only.is_empty() {
            !(self.quick && matches!(part, Part::Apps | Part::Crowd))
        } else {
            self.only.contains(&part)
        }
    }

    /// How many rounds of traffic, and how long a load: many short ones, for the machine's speed changes meanwhile.
    pub fn traffic(&self) -> (usize, Duration) {
        if self.quick { (7, Duration::from_millis(15)) } else { (40, Duration::from_millis(50)) }
    }

    /// How many rounds of applications; each takes about half a minute.
    pub fn apps(&self) -> usize {
        if self.quick { 6 } else { 12 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Options> {
        Options::parse(words.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn parts_are_chosen() {
        let all = parse("").expect("fine");
        assert!(PARTS.iter().all(|(_, part)| all.has(*part)));
        let quick = parse("--quick").expect("fine");
        assert!(quick.has(Part::Control) && !quick.has(Part::Apps) && !quick.has(Part::Crowd));
        let some = parse("--quick --only apps,kernel --out x").expect("fine");
        assert!(some.has(Part::Apps) && some.has(Part::Kernel) && !some.has(Part::Traffic));
        assert_eq!(some.out, PathBuf::from("x"));
    }

    #[test]
    fn what_is_not_known_is_named() {
        for (words, named) in
            [("--only trafic", "trafic"), ("--fast", "--fast"), ("--out", "--out"), ("--only", "--only")]
        {
            assert!(parse(words).expect_err("refused").to_string().contains(named), "{words}");
        }
    }
}
