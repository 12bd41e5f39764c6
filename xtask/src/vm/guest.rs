//! Tests in a machine with a root file system and an Engine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};

use super::kernels::Kernel;
use super::payload::Built;
use super::progress::Progress;
use super::qemu::Machine;
use super::scenarios::{self, BEGIN, Set};
use super::store::Store;
use super::tools::Tools;
use super::unpacked::Unpacked;

/// Of all sets together: only what hangs takes so long, however busy the machine is.
const LIMIT: Duration = Duration::from_secs(60 * 60);

/// What tests said.
#[derive(Debug, Default)]
pub struct Tested {
    /// How many passed.
    pub passed: usize,
    /// The files and names of those that failed.
    pub failed: Vec<String>,
    /// Where all that they wrote is.
    pub log: PathBuf,
}

/// Boots the kernel on the root file system, and runs these tests there.
pub fn run(
    store: &Store,
    tools: &Tools,
    (kernel, unpacked): (Kernel, &Unpacked),
    root: &Path,
    built: &Built,
    sets: &[Set],
    progress: &Progress,
) -> Result<Tested> {
    let script = scenarios::script(sets);
    let payload = built.disk(store, &format!("tests-{kernel}"), &script)?;
    let mut tested = Tested { log: store.path(&format!("tests-{kernel}.log")), ..Tested::default() };
    let machine = Machine {
        kernel: &unpacked.image,
        initrd: &unpacked.initrd,
        memory: 3072,
        disks: &[root.to_owned(), unpacked.disk.clone(), payload],
        limit: LIMIT,
        log: &tested.log.clone(),
    };
    progress.tell(&format!("{kernel} boots"));
    let mut file = String::new();
    let status = machine.run(tools, |line| {
        if let Some(name) = line.strip_prefix(BEGIN) {
            name.clone_into(&mut file);
            progress.note(&format!("{kernel}: {file}"));
        }
        if let Some(step) = step(line) {
            progress.note(&format!("{kernel}: {file}: {step}"));
        }
        match verdict(line) {
            Some((name, true)) => {
                tested.passed += 1;
                progress.tell(&format!("{kernel}: {file}: {name}"));
            }
            Some((name, false)) => tested.failed.push(format!("{file}: {name}")),
            None => {}
        }
    })?;
    if status != 0 && tested.failed.is_empty() {
        bail!("the tests failed (status {status}), and none of them says so: see {}", tested.log.display());
    }
    if tested.passed == 0 && tested.failed.is_empty() {
        bail!("no test ran: see {}", tested.log.display());
    }
    Ok(tested)
}

/// What a line tells about a test: its name, and whether it passed.
fn verdict(line: &str) -> Option<(&str, bool)> {
    let (name, outcome) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    match outcome {
        "ok" => Some((name, true)),
        "FAILED" => Some((name, false)),
        _ => None,
    }
}

/// What a line tells of a test's way: `12 s: up`.
fn step(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let (seconds, _) = line.split_once(" s: ")?;
    seconds.parse::<u64>().is_ok().then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read() {
        assert_eq!(step(" 104 s: served from outside"), Some("104 s: served from outside"));
        assert_eq!(step("kernel is not it: tests s: up"), None);
    }

    #[test]
    fn verdicts_are_read() {
        assert_eq!(verdict("test link::a_link ... ok"), Some(("link::a_link", true)));
        assert_eq!(verdict("test link::a_link ... FAILED"), Some(("link::a_link", false)));
        assert_eq!(verdict("test result: ok. 3 passed"), None);
        assert_eq!(verdict("test slow has been running for over 60 seconds"), None);
    }
}
