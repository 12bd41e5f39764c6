//! What is downloaded and unpacked, under `target/vm`, and kept between runs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use xtask::debian::{Suite, make_dir, unpack};

use super::boot;
use super::kernels::{self, Kernel};
use super::progress::Progress;
use super::tools::Tools;

/// Of everything, inside the workspace.
const DIR: &str = "target/vm";
/// Counts up with every change of how a kernel is prepared.
const KERNEL_RECIPE: u32 = 2;
/// The suite of the emulator and of the root file system.
pub const BASE: &str = "bookworm";

/// A folder whose content is there or not, never half.
pub struct Store {
    dir: PathBuf,
}

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
    /// The archive that mounts the disks (see [`boot`]).
    pub initrd: PathBuf,
    /// A disk with its modules.
    pub disk: PathBuf,
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

    /// A kernel of this series, with what machines boot it from.
    pub fn kernel(&self, kernel: Kernel, tools: &Tools, progress: &Progress) -> Result<Unpacked> {
        let dir = self.dir.join("kernels").join(kernel.series);
        self.once(&dir, &format!("{KERNEL_RECIPE}\n"), |dir| {
            self.download_kernel(kernel, dir, progress)?;
            progress.tell("making its disk of modules");
            boot::prepare(&unpacked(dir)?, tools)
        })?;
        unpacked(&dir).with_context(|| format!("{}: remove it and run this again", dir.display()))
    }

    fn download_kernel(&self, kernel: Kernel, dir: &Path, progress: &Progress) -> Result<()> {
        let mut found = Vec::new();
        for name in kernel.suites {
            progress.tell(&format!("asking Debian's {name} for its kernels"));
            let suite = self.suite(name)?;
            let names = suite.names("linux-")?;
            let Some(packages) = kernels::packages(kernel.series, &names) else {
                found.push(format!("{name} has {}", kernels::series(&names).join(", ")));
                continue;
            };
            progress.tell(&format!("downloading {}", packages[0]));
            let names: Vec<&str> = packages.iter().map(String::as_str).collect();
            let debs = suite.download(&names, false, &dir.join("debs"))?;
            progress.tell(&format!("unpacking {}", packages[0]));
            return Ok(unpack(&debs, &dir.join("root"))?);
        }
        bail!(
            "Debian's suites have moved on from Linux {kernel} ({}): name the suite that has it in xtask/src/vm/kernels.rs, \
             or take another kernel",
            found.join("; ")
        )
    }

    /// Removes a kernel, so that the suite's newest is downloaded next.
    pub fn forget(&self, kernel: Kernel) -> Result<()> {
        remove(&self.dir.join("kernels").join(kernel.series))
    }

    fn suite(&self, name: &'static str) -> Result<Suite> {
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

fn unpacked(dir: &Path) -> Result<Unpacked> {
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

/// The version in a package's file name: NAME_VERSION_ARCHITECTURE.deb.
fn version(debs: &Path) -> Option<String> {
    let names = fs::read_dir(debs).ok()?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut versions: Vec<String> = names.filter_map(|name| Some(name.split('_').nth(1)?.to_owned())).collect();
    versions.sort();
    versions.pop()
}
