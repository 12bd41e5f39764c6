//! The pins: where they are, making them, and removing them all.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use aya::maps::{Array, Map, MapData};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use runtime_common::maps::Config;

use super::{DatapathError, chain, hooks};

/// Maps that outlive the daemon. The ring buffer is among them so that old programs and new daemon share one.
pub const MAPS: &[&str] = &[
    "CONFIG",
    "RULES",
    "ENDPOINTS",
    "ADDRESSES",
    "PUBLICATIONS",
    "LINKS",
    "FLOWS",
    "PENDING",
    "FRAGMENTS",
    "COUNTERS",
    "REPORTED",
    "EVENTS",
    "SCRATCH",
];

/// The folder of pins of one instance.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
}

impl Pins {
    /// Pins under `root`, a folder on a bpffs that need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Pins { root: root.into() }
    }

    /// Path of a map's pin.
    pub fn map(&self, name: &str) -> PathBuf {
        self.root.join("maps").join(name)
    }

    /// Folder of the links' pins.
    pub fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    /// Whether there is anything of a predecessor.
    pub fn exist(&self) -> bool {
        self.map("CONFIG").exists()
    }

    /// Refuses a root that is not on a bpffs.
    pub fn check_file_system(&self) -> Result<(), DatapathError> {
        let existing = self.root.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
        let on_bpffs = statfs(existing).is_ok_and(|s| s.filesystem_type() == BPF_FS_MAGIC);
        if on_bpffs {
            return Ok(());
        }
        Err(self.error(
            &self.root,
            "not on a BPF file system: mount one with \"mount -t bpf bpf /sys/fs/bpf\", or name another with --bpffs",
        ))
    }

    /// Makes the folders.
    pub fn prepare(&self) -> Result<(), DatapathError> {
        for folder in [self.root.join("maps"), self.links()] {
            fs::create_dir_all(&folder).map_err(|e| self.error(&folder, &e.to_string()))?;
        }
        Ok(())
    }

    /// Refuses maps of another layout.
    pub fn check_layout(&self, layout: u32) -> Result<(), DatapathError> {
        let path = self.map("CONFIG");
        if !path.exists() {
            return Ok(());
        }
        let found = MapData::from_pin(&path)
            .map(Map::Array)
            .and_then(Array::<_, Config>::try_from)
            .and_then(|config| config.get(&0, 0))
            .map_err(|e| self.error(&path, &chain(&e)))?
            .layout;
        // Zero: a predecessor that died between making the map and writing it.
        if found == layout || found == 0 {
            return Ok(());
        }
        Err(self.error(
            &path,
            &format!("made by another version (layout {found}, this one has {layout}): run \"runtime down\" first"),
        ))
    }

    fn error(&self, path: &Path, reason: &str) -> DatapathError {
        DatapathError::Pin { path: path.display().to_string(), reason: reason.to_owned() }
    }
}

/// Removes every pin, and with the last references to them the programs, links and maps. Returns how many there were.
///
/// Works without a daemon and whatever state a dead one left; goes on after errors and returns the first.
pub fn remove_everything(pins: &Pins) -> Result<usize, DatapathError> {
    let mut removed = 0;
    let mut first_error = None;
    // Links first: programs without maps would be a datapath that drops everything.
    for folder in [pins.links(), pins.root.join("maps")] {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            Err(e) => return Err(pins.error(&folder, &e.to_string())),
        };
        for path in entries.flatten().map(|e| e.path()) {
            let result = if folder == pins.links() { hooks::detach_by_pin(&path) } else { fs::remove_file(&path) };
            match result {
                Ok(()) => removed += 1,
                Err(e) => {
                    first_error.get_or_insert_with(|| pins.error(&path, &e.to_string()));
                }
            }
        }
        let _ = fs::remove_dir(&folder);
    }
    let _ = fs::remove_dir(&pins.root);
    first_error.map_or(Ok(removed), Err)
}
