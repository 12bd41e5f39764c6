//! What is downloaded and unpacked, under `target/vm`, and kept between runs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use xtask::debian::{Suite, make_dir, unpack};

use super::progress::Progress;

/// Of everything, inside the workspace.
const DIR: &str = "target/vm";
/// The suite of the emulator and of the root file system.
pub const BASE: &str = "bookworm";

/// A folder whose content is there or not, never half.
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// The store of this workspace.
    pub fn open(root: &Path) -> Result<Self> {
        let dir = root.join(DIR);
        make_dir(&dir)?;
        Ok(Self { dir })
    }

    /// A folder or a file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Unpacks these packages of [`BASE`], with all that they depend on, into `dir/root`.
    pub fn unpack_packages(&self, dir: &Path, packages: &[&str], progress: &Progress) -> Result<()> {
        progress.tell(&format!("downloading {} of Debian's {BASE}", packages[0]));
        let suite = self.suite(BASE)?;
        let debs = suite.download(packages, true, &dir.join("debs"))?;
        progress.tell(&format!("unpacking {} packages", debs.len()));
        unpack(&debs, &dir.join("root"))?;
        // They can be had again, and what they hold is there twice.
        remove(&dir.join("debs"))
    }

    /// One of Debian's suites, with its lists of packages.
    pub fn suite(&self, name: &'static str) -> Result<Suite> {
        Suite::fetch(name, self.dir.join("suites").join(name)).with_context(|| format!("Debian's {name}"))
    }

    /// Fills a folder, unless that was done by the same recipe. One run at a time; another waits for it.
    pub fn once(&self, dir: &Path, recipe: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let finished = dir.join("finished");
        let is_finished = || fs::read_to_string(&finished).is_ok_and(|text| text == recipe);
        if is_finished() {
            return Ok(());
        }
        let path = self.dir.join("lock");
        let lock = fs::File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
        lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        if is_finished() {
            return Ok(());
        }
        // What an earlier run left half-done, or another recipe made.
        remove(dir)?;
        make_dir(dir)?;
        fill(dir)?;
        fs::write(&finished, recipe).with_context(|| format!("cannot write {}", finished.display()))
    }
}

/// Removes a folder, where it is there.
pub fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}
