//! The pins: where they are, making them, and removing them all.

use std::fs;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aya::maps::{Array, Map, MapData};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use runtime_common::maps::Config;

use super::expedited::{self, Expedited};
use super::hooks::{Remnant, Turn};
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

    fn error(&self, path: &Path, reason: &str) -> DatapathError {
        DatapathError::Pin { path: path.display().to_string(), reason: reason.to_owned() }
    }
}

/// Whether a path, or the part of it that exists, is on a BPF file system.
pub(super) fn is_bpffs(path: &Path) -> bool {
    let existing = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    statfs(existing).is_ok_and(|s| s.filesystem_type() == BPF_FS_MAGIC)
}

/// How long conversations have to be seen from the client's side, between letting go of the uplinks and of the containers.
const HANDOVER: Duration = Duration::from_millis(200);

/// Removes every pin, and with the last references to them the programs, links and maps. Returns how many there were.
///
/// Works without a daemon and whatever state a dead one left; goes on after errors and returns the first.
///
/// Conversations go back to the host's own rules, which pick up what they see from the client's side first: so nothing is
/// dropped any more, then the uplinks are let go, and after a moment the containers.
pub fn remove_everything(pins: &Pins) -> Result<usize, DatapathError> {
    expedited::set_back();
    let mut first_error = None;
    let mut remnants = Remnant::all(pins)?;
    remnants.sort_by_key(Remnant::turn);
    if !remnants.is_empty()
        && pins.exist()
        && let Err(e) = stop_enforcing(pins)
    {
        first_error = Some(e);
    }
    let mut removed = 0;
    let mut note = |result: std::io::Result<()>| match result {
        Ok(()) => removed += 1,
        Err(e) => {
            first_error.get_or_insert_with(|| DatapathError::Unsupported(e.to_string()));
        }
    };
    let expedited = Expedited::for_programs(remnants.len());
    let mut before = None;
    for remnant in &remnants {
        let turn = remnant.turn();
        if before == Some(Turn::Uplinks) && turn == Turn::Containers {
            std::thread::sleep(HANDOVER);
        }
        before = Some(turn);
        note(remnant.remove());
    }
    drop(expedited);
    // Maps last: programs without them would be a datapath that drops everything.
    for path in pins.entries(&pins.root.join("maps"))? {
        note(fs::remove_file(&path).map_err(|e| Error::new(e.kind(), format!("{}: {e}", path.display()))));
    }
    for folder in [pins.links(), pins.root.join("maps"), pins.root.clone()] {
        let _ = fs::remove_dir(folder);
    }
    first_error.map_or(Ok(removed), Err)
}

fn stop_enforcing(pins: &Pins) -> Result<(), DatapathError> {
    let path = pins.map("CONFIG");
    let set = || {
        let mut config: Array<_, Config> = Array::try_from(Map::Array(MapData::from_pin(&path)?))?;
        let now = config.get(&0, 0)?;
        config.set(0, Config { enforce: 0, ..now }, 0)
    };
    set().map_err(|e| pins.error(&path, &chain(&e)))
}
