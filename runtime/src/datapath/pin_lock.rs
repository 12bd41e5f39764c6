//! One daemon for a folder of pins, whatever else it was told.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;

use super::{DatapathError, Pins};

/// Held by who may change what is pinned in a folder; given back when dropped or when the process ends in whatever way.
pub struct PinLock {
    folder: Flock<File>,
}

impl PinLock {
    /// Takes the lock of a folder that exists.
    ///
    /// # Errors
    /// Where another process has it, where the folder cannot be opened, and where it holds what others have put there.
    pub(super) fn take(pins: &Pins) -> Result<Self, DatapathError> {
        let path = pins.root();
        let failed = |reason: String| DatapathError::Pin { path: path.display().to_string(), reason };
        // The folder itself: by another name it is the same one.
        let folder = File::open(path).map_err(|e| failed(e.to_string()))?;
        keep_others_out(&folder, path).map_err(failed)?;
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

/// Has nobody but its owner write in a folder: who else could take the lock first, and put other maps in the place of these. A BPF file
/// system that was mounted without a mode is anybody's to write in.
fn keep_others_out(folder: &File, path: &Path) -> Result<(), String> {
    let owner = geteuid().as_raw();
    let told = folder.metadata().map_err(|e| e.to_string())?;
    let others = || "it holds what others have put there: remove it, or name another folder with --bpffs".to_owned();
    if told.uid() != owner {
        return Err(others());
    }
    if told.mode() & 0o022 == 0 {
        return Ok(());
    }
    folder.set_permissions(Permissions::from_mode(told.mode() & 0o7755)).map_err(|e| e.to_string())?;
    for entry in fs::read_dir(path).map_err(|e| e.to_string())? {
        let entry = entry.and_then(|e| e.metadata()).map_err(|e| e.to_string())?;
        if entry.uid() != owner {
            return Err(others());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::chown;

    use super::*;

    #[test]
    fn others_cannot_write_in_the_folder_and_what_they_put_there_is_refused() {
        let path = std::env::temp_dir().join(format!("runtime-pin-lock-{}", std::process::id()));
        fs::create_dir_all(path.join("maps")).unwrap();
        let mode = || fs::metadata(&path).unwrap().mode() & 0o7777;
        let take = |mode: u32| {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            PinLock::take(&Pins::new(&path)).map(drop)
        };
        for (before, after) in [(0o777, 0o755), (0o1777, 0o1755), (0o770, 0o750), (0o700, 0o700), (0o755, 0o755)] {
            take(before).unwrap();
            assert_eq!(mode(), after, "{before:o}");
        }
        chown(path.join("maps"), Some(65534), None).unwrap();
        let refusal = take(0o1777).unwrap_err().to_string();
        assert!(refusal.contains("it holds what others have put there"), "{refusal}");
        fs::remove_dir_all(path.join("maps")).unwrap();
        chown(&path, Some(65534), None).unwrap();
        let refusal = take(0o700).unwrap_err().to_string();
        assert!(refusal.contains("it holds what others have put there"), "{refusal}");
        fs::remove_dir(&path).unwrap();
    }
}
