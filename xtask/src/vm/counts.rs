//! How many instructions each kernel's verifier goes through, by program, as a file has it for comparison.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::kernels::KERNELS;

/// Where it is recorded, inside the workspace.
pub const FILE: &str = "tests/verified-instructions.txt";
/// How much a program may grow before that has to be meant, in percent.
const TOLERATED: u64 = 5;
const HEADER: &str = "\
# Instructions that the verifier goes through, by program and kernel. A program that grows by more than 5 % fails
# `cargo xtask vm`; where that is meant, `cargo xtask vm --only load --record` writes this file anew.
";
const NONE: &str = "-";

/// By program.
pub type Counts = BTreeMap<String, u64>;

/// By kernel series.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Record(BTreeMap<String, Counts>);

impl Record {
    /// Reads the file; an absent one is empty.
    pub fn read(root: &Path) -> Result<Self> {
        let path = root.join(FILE);
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text).with_context(|| format!("{FILE}: no such table: record it anew")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Writes the file.
    pub fn write(&self, root: &Path) -> Result<()> {
        let path = root.join(FILE);
        fs::write(&path, self.print()).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Puts these in the place of a kernel's.
    pub fn set(&mut self, kernel: &str, counts: Counts) {
        self.0.insert(kernel.to_owned(), counts);
    }

    /// What is wrong with these, a line each.
    pub fn compare(&self, kernel: &str, counts: &Counts) -> Vec<String> {
        let none = Counts::new();
        let recorded = self.0.get(kernel).unwrap_or(&none);
        let names: BTreeSet<&String> = counts.keys().chain(recorded.keys()).collect();
        let differ = |name: &String| match (recorded.get(name), counts.get(name)) {
            (Some(old), Some(new)) if new * 100 > old * (100 + TOLERATED) => {
                let percent = (new * 100).div_ceil(*old).saturating_sub(100);
                Some(format!(
                    "{name} on {kernel}: {} verified instructions, {} are recorded (+{percent} %): shorten it, or record it with \
                     `cargo xtask vm --kernel {kernel} --only load --record`",
                    grouped(*new),
                    grouped(*old)
                ))
            }
            (None, Some(new)) => Some(format!(
                "{name} on {kernel}: {} verified instructions, none are recorded: record it with \
                 `cargo xtask vm --kernel {kernel} --only load --record`",
                grouped(*new)
            )),
            (Some(_), None) => Some(format!(
                "{name} on {kernel} is recorded and no longer there: record its going with \
                 `cargo xtask vm --kernel {kernel} --only load --record`"
            )),
            _ => None,
        };
        names.into_iter().filter_map(differ).collect()
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
        let kernels: Vec<&str> = lines.next()?.split_whitespace().skip(1).collect();
        let mut record = Self::default();
        for line in lines {
            let mut words = line.split_whitespace();
            let program = words.next()?;
            for kernel in &kernels {
                let word = words.next()?;
                if word != NONE {
                    let count = word.replace(',', "").parse().ok()?;
                    record.0.entry((*kernel).to_owned()).or_default().insert(program.to_owned(), count);
                }
            }
        }
        Some(record)
    }

    fn print(&self) -> String {
        let programs: BTreeSet<&String> = self.0.values().flat_map(BTreeMap::keys).collect();
        let width = programs.iter().map(|name| name.len()).max().unwrap_or(0).max("program".len());
        let kernels: Vec<&str> =
            KERNELS.iter().map(|kernel| kernel.series).filter(|series| self.0.contains_key(*series)).collect();
        let row = |first: &str, cells: Vec<String>| {
            let cells: String = cells.iter().map(|cell| format!("{cell:>12}")).collect();
            format!("{first:<width$}{cells}\n")
        };
        let mut text = HEADER.to_owned();
        text += &row("program", kernels.iter().map(|kernel| (*kernel).to_owned()).collect());
        for program in programs {
            let cell =
                |kernel: &&str| self.0[*kernel].get(program).map_or_else(|| NONE.to_owned(), |count| grouped(*count));
            text += &row(program, kernels.iter().map(cell).collect());
        }
        text
    }
}

/// With a comma between thousands.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(all: &[(&str, u64)]) -> Counts {
        all.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let mut record = Record::default();
        record.set("7.2", counts(&[("from_endpoint", 212_709), ("to_endpoint", 900)]));
        record.set("6.1", counts(&[("from_endpoint", 97_085)]));
        let text = record.print();
        assert_eq!(Record::parse(&text), Some(record));
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["program", "6.1", "7.2"]);
        assert_eq!(lines[2].split_whitespace().collect::<Vec<_>>(), ["to_endpoint", "-", "900"]);
    }

    #[test]
    fn growth_is_told_with_both_numbers() {
        let mut record = Record::default();
        record.set("6.12", counts(&[("gone", 5), ("same", 1000), ("grown", 1000)]));
        let complaints = record.compare("6.12", &counts(&[("same", 1050), ("grown", 1051), ("new", 7)]));
        let starts = [
            "gone on 6.12 is recorded and no longer there",
            "grown on 6.12: 1,051 verified instructions, 1,000 are recorded (+6 %)",
            "new on 6.12: 7 verified instructions, none are recorded",
        ];
        assert_eq!(complaints.len(), starts.len(), "{complaints:?}");
        for (complaint, start) in complaints.iter().zip(starts) {
            assert!(complaint.starts_with(start), "{complaint}");
        }
    }

    #[test]
    fn thousands_are_told_apart() {
        assert_eq!([7, 900, 1000, 212_709, 1_000_000].map(grouped), ["7", "900", "1,000", "212,709", "1,000,000"]);
    }
}
