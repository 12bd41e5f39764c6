//! Live changes on disk.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::failpoint;
use crate::model::live::Live;

/// Live changes, and the file that keeps them over restarts.
pub struct LiveFile {
    path: PathBuf,
    live: Live,
}

impl LiveFile {
    /// Reads the file of a state directory; a missing one has no changes.
    pub fn open(state_dir: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(state_dir).with_context(|| format!("cannot make {}", state_dir.display()))?;
        let path = state_dir.join("live.json");
        let live = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| {
                format!(
                    "{} cannot be understood: mend it, or move it away to start without live changes",
                    path.display()
                )
            })?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Live::default(),
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        };
        Ok(LiveFile { path, live })
    }

    /// The changes.
    pub fn get(&self) -> &Live {
        &self.live
    }

    /// Puts other changes in their place, on disk first.
    pub fn set(&mut self, live: Live) -> anyhow::Result<()> {
        self.write(&live)?;
        self.live = live;
        Ok(())
    }

    /// Puts other changes in their place, which the disk is told of by [`LiveFile::save`].
    pub fn set_unsaved(&mut self, live: Live) {
        self.live = live;
    }

    /// Tells the disk: when this returns, a restart finds the changes, whatever happens.
    pub fn save(&self) -> anyhow::Result<()> {
        self.write(&self.live)
    }

    fn write(&self, live: &Live) -> anyhow::Result<()> {
        let temporary = self.path.with_extension("json.new");
        let write = || -> std::io::Result<()> {
            failpoint::step();
            let mut file = File::create(&temporary)?;
            file.set_permissions(Permissions::from_mode(0o640))?;
            file.write_all(&serde_json::to_vec(live)?)?;
            file.sync_all()?;
            failpoint::step();
            fs::rename(&temporary, &self.path)?;
            failpoint::step();
            Ok(())
        };
        write().with_context(|| format!("cannot write {}", self.path.display()))
    }
}
