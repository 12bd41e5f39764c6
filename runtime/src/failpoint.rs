//! Ends the daemon between two of its effects, for tests: what is half done then is to be made good by the next one.
//!
//! In debug builds alone. There, the environment's `RUNTIME_KILL_AT` names a file; while it exists, it says how many effects
//! may still be, and each counts it down. At zero the file is removed, and the process killed.

/// An effect follows: on maps, hooks, pins or files.
#[cfg(debug_assertions)]
pub(crate) fn step() {
    use std::fs;
    use std::path::PathBuf;
    use std::sync::LazyLock;

    use nix::sys::signal::{Signal, raise};

    static FILE: LazyLock<Option<PathBuf>> = LazyLock::new(|| std::env::var_os("RUNTIME_KILL_AT").map(PathBuf::from));
    let Some(path) = FILE.as_ref() else { return };
    let left = fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    match left {
        Some(0) => {
            let _ = fs::remove_file(path);
            let _ = raise(Signal::SIGKILL);
        }
        Some(left) => {
            let _ = fs::write(path, (left - 1).to_string());
        }
        None => {}
    }
}

/// An effect follows.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) fn step() {}
