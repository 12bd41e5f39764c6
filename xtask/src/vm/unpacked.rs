//! A kernel that was unpacked, and what machines boot it from.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A kernel, unpacked.
#[derive(Clone, Debug)]
pub struct Unpacked {
    /// As `uname -r` prints it.
    pub release: String,
    /// The version of its package, which says what was tried.
    pub version: String,
    /// The kernel itself.
    pub image: PathBuf,
    /// The folder that it was unpacked in, as the root of a file system.
    pub root: PathBuf,
    /// The archive that mounts the disks (see [`super::boot`]).
    pub initrd: PathBuf,
    /// A disk with its modules.
    pub disk: PathBuf,
}

impl Unpacked {
    /// What there is in a folder of the store.
    pub fn find(dir: &Path) -> Result<Unpacked> {
        let modules = dir.join("root/usr/lib/modules");
        let entries = fs::read_dir(&modules).with_context(|| format!("cannot read {}", modules.display()))?;
        let release = entries.flatten().next().context("the packages brought no modules")?;
        let release = release.file_name().to_string_lossy().into_owned();
        let images = [dir.join(format!("root/boot/vmlinuz-{release}")), modules.join(&release).join("vmlinuz")];
        let image = images.into_iter().find(|path| path.is_file()).context("the packages brought no kernel")?;
        let version = version(&dir.join("debs")).context("the packages are gone")?;
        let [initrd, disk] = ["boot.cpio", "modules.img"].map(|name| dir.join(name));
        Ok(Unpacked { root: dir.join("root"), release, version, image, initrd, disk })
    }
}

/// The version in a package's file name: NAME_VERSION_ARCHITECTURE.deb.
fn version(debs: &Path) -> Option<String> {
    let names = fs::read_dir(debs).ok()?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut versions: Vec<String> = names.filter_map(|name| Some(name.split('_').nth(1)?.to_owned())).collect();
    versions.sort();
    versions.pop()
}
