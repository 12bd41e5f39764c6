//! The pins: where they are, and making them.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use aya::maps::{Array, Map, MapData};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use runtime_common::maps::Config;

use super::{DatapathError, PinLock, chain};

/// Maps that outlive the daemon. The ring buffer is among them so that old programs and new daemon share one.
pub const MAPS: &[&str] = &[
    "CONFIG",
    "RULES",
    "PORTS",
    "ADDRESS_BITS",
    "NEXT_HOPS",
    "ENDPOINTS",
    "ADDRESSES",
    "PREFIXES",
    "UPLINKS",
    "UNSERVED",
    "PUBLICATIONS",
    "FILTERS",
    "LIMITS",
    "LINKS",
    "FLOW_PORTS",
    "FLOWS",
    "PENDING",
    "HELD",
    "HELD_BY_RULE",
    "HELD_BY",
    "CLOSED",
    "CLOSED_ENDS",
    "FRAGMENTS",
    "HOST_NETNS",
    "HOST_SOCKETS",
    "HOST_PEERS",
    "RELAYED",
    "RELAY_SOCKETS",
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

    /// Their folder.
    pub(super) fn root(&self) -> &Path {
        &self.root
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

    /// Takes the lock of the folder; none where there is no folder.
    ///
    /// # Errors
    /// Where a daemon has it.
    pub fn lock(&self) -> Result<Option<PinLock>, DatapathError> {
        if self.root.exists() { PinLock::take(self).map(Some) } else { Ok(None) }
    }

    /// Refuses a root that is not on a bpffs.
    pub fn check_file_system(&self) -> Result<(), DatapathError> {
        if is_bpffs(&self.root) {
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
            &format!(
                "made by another version (layout {found}, this one has {layout}); what it serves goes on: \
                 \"runtime down\" and then \"runtime up\" hand its connections over by the engine's own rules"
            ),
        ))
    }

    /// The files in one of the folders; none where it is not there.
    pub(super) fn entries(&self, folder: &Path) -> Result<Vec<PathBuf>, DatapathError> {
        match fs::read_dir(folder) {
            Ok(entries) => Ok(entries.flatten().map(|e| e.path()).collect()),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(self.error(folder, &e.to_string())),
        }
    }

    pub(super) fn error(&self, path: &Path, reason: &str) -> DatapathError {
        DatapathError::Pin { path: path.display().to_string(), reason: reason.to_owned() }
    }
}

/// Whether a path, or the part of it that exists, is on a BPF file system.
pub(super) fn is_bpffs(path: &Path) -> bool {
    let existing = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    statfs(existing).is_ok_and(|s| s.filesystem_type() == BPF_FS_MAGIC)
}
