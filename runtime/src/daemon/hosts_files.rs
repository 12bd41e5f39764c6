//! Recipients' /etc/hosts: changed in place, for the file is mounted into the container and must stay the same one.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;

use crate::model::hosts::update_hosts;
use crate::reconcile::HostsPlan;

/// What is known of recipients' files: one that says what it should is read again when it has changed.
#[derive(Default)]
pub struct HostsFiles {
    known: HashMap<PathBuf, (HostsPlan, Stamp)>,
}

/// By what a file is known to be as it was.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    length: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// None where a further change could bear the same time.
    fn of(path: &Path) -> Option<Stamp> {
        let m = std::fs::metadata(path).ok()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs() as i64;
        let stamp = Stamp { file: (m.dev(), m.ino()), length: m.len(), changed: (m.ctime(), m.ctime_nsec()) };
        (m.ctime() + 1 < now).then_some(stamp)
    }
}

impl HostsFiles {
    /// Makes every recipient's file say what its links want; returns what could not be done.
    pub fn write(&mut self, plans: &[HostsPlan]) -> Vec<String> {
        let mut failures = Vec::new();
        let mut known = HashMap::new();
        for plan in plans {
            // Before it is read: a change from then on makes another stamp.
            let stamp = Stamp::of(&plan.path);
            if let Some(before) = self.known.remove(&plan.path).filter(|(p, s)| p == plan && Some(*s) == stamp) {
                known.insert(plan.path.clone(), before);
                continue;
            }
            match write(plan) {
                Ok(true) => {}
                Ok(false) => known.extend(stamp.map(|stamp| (plan.path.clone(), (plan.clone(), stamp)))),
                Err(e) => failures.push(format!("{e:#}")),
            }
        }
        self.known = known;
        failures
    }
}

/// Makes a recipient's file say what its links want. True where it had to be changed.
fn write(plan: &HostsPlan) -> anyhow::Result<bool> {
    let context = || format!("cannot update {}", plan.path.display());
    let mut file = OpenOptions::new().read(true).write(true).open(&plan.path).with_context(context)?;
    let mut text = String::new();
    file.read_to_string(&mut text).with_context(context)?;
    let Some(new) = update_hosts(&text, &plan.entries, &plan.removed) else {
        return Ok(false);
    };
    // Shorter text last loses its tail: readers see old or new lines, never half of one.
    file.rewind().with_context(context)?;
    file.write_all(new.as_bytes()).with_context(context)?;
    file.set_len(new.len() as u64).with_context(context)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;
    use crate::model::hosts::HostsEntry;

    #[test]
    fn a_file_that_somebody_else_writes_anew_is_put_right_again() {
        let path = std::env::temp_dir().join(format!("runtime-hosts-{}", std::process::id()));
        let entry = HostsEntry { address: "172.17.0.2".parse().unwrap(), names: vec!["webdb".into()] };
        let plan = HostsPlan { container: "web".into(), path: path.clone(), entries: vec![entry], removed: vec![] };
        let mut files = HostsFiles::default();
        fs::write(&path, "127.0.0.1\tlocalhost\n").unwrap();
        let right = |files: &mut HostsFiles| {
            assert_eq!(files.write(std::slice::from_ref(&plan)), Vec::<String>::new());
            fs::read_to_string(&path).unwrap().contains("172.17.0.2\twebdb")
        };
        assert!(right(&mut files));
        // Until it is known by a stamp that no later change can bear.
        while files.known.is_empty() {
            std::thread::sleep(Duration::from_millis(100));
            assert!(right(&mut files));
        }
        assert!(right(&mut files));
        // As the engine does at a start: the same length, for all that is known.
        let longer = fs::read_to_string(&path).unwrap().len();
        fs::write(&path, "#".repeat(longer - 1) + "\n").unwrap();
        assert!(right(&mut files));
        fs::remove_file(&path).unwrap();
        assert_eq!(files.write(std::slice::from_ref(&plan)).len(), 1);
    }
}
