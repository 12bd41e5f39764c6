//! One daemon per run directory.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

/// Why the lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon has it.
    #[error("runtime is already up (process {pid}, {path}): end it with \"runtime down\" first")]
    Held {
        /// Its process id, as it wrote it.
        pid: String,
        /// The pid file.
        path: String,
    },
    /// The file could not be made.
    #[error("{path}: {reason}")]
    File {
        /// The pid file.
        path: String,
        /// What went wrong.
        reason: String,
    },
}

/// The lock; given back when dropped or when the process ends in whatever way.
pub struct DaemonLock {
    _file: Flock<File>,
}

impl DaemonLock {
    /// Takes the lock in `run_dir` and writes this process's id into it.
    pub fn take(run_dir: &Path) -> Result<Self, LockError> {
        let path = run_dir.join("runtime.pid");
        let failed =
            |e: &dyn std::fmt::Display| LockError::File { path: path.display().to_string(), reason: e.to_string() };
        fs::create_dir_all(run_dir).map_err(|e| failed(&e))?;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o640).open(&path);
        let file = file.map_err(|e| failed(&e))?;
        // An earlier version's may be for everybody.
        file.set_permissions(Permissions::from_mode(0o640)).map_err(|e| failed(&e))?;
        let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((mut file, _)) => {
                let mut pid = String::new();
                let _ = file.read_to_string(&mut pid);
                return Err(LockError::Held { pid: pid.trim().to_owned(), path: path.display().to_string() });
            }
        };
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(|e| failed(&e))?;
        Ok(DaemonLock { _file: file })
    }
}
