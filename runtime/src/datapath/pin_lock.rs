//! One daemon for a folder of pins, whatever else it was told.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use super::{DatapathError, Pins};

/// Held by who may change what is pinned in a folder; given back when dropped or when the process ends in whatever way.
pub struct PinLock {
    folder: Flock<File>,
}

impl PinLock {
    /// Takes the lock of a folder that exists.
    ///
    /// # Errors
    /// Where another process has it, and where the folder cannot be opened.
    pub(super) fn take(pins: &Pins) -> Result<Self, DatapathError> {
        let path = pins.root();
        let failed = |reason: String| DatapathError::Pin { path: path.display().to_string(), reason };
        // The folder itself: by another name it is the same one.
        let folder = File::open(path).map_err(|e| failed(e.to_string()))?;
        match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
            Ok(folder) => Ok(PinLock { folder }),
            Err((folder, _)) => {
                let holder = folder.metadata().ok().and_then(|m| holder(m.ino()));
                let holder = holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
                Err(failed(format!(
                    "{holder} serves by these pins already: end it with \"runtime down\" and the --run-dir that it was \
                     started with, or name another folder with --bpffs"
                )))
            }
        }
    }

    /// Whether it is the lock of the folder that is at this path now.
    pub(super) fn is_of(&self, path: &Path) -> bool {
        let same = |now: fs::Metadata, then: fs::Metadata| (now.dev(), now.ino()) == (then.dev(), then.ino());
        fs::metadata(path).and_then(|now| Ok(same(now, self.folder.metadata()?))).unwrap_or(false)
    }
}

/// The process that has locked the file with this number, as the kernel tells.
fn holder(inode: u64) -> Option<u32> {
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        // `1: FLOCK  ADVISORY  WRITE 4242 00:1d:17 0 EOF`
        let fields: Vec<&str> = line.split_whitespace().collect();
        let of_inode = fields.get(5)?.rsplit(':').next()?.parse() == Ok(inode);
        (fields.get(1) == Some(&"FLOCK") && of_inode).then(|| fields.get(4)?.parse().ok()).flatten()
    })
}
