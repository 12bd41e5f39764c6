//! Programs that make machines and run them, unpacked: whatever this machine has of them plays no part.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use xtask::debian::output;

use super::progress::Progress;
use super::store::Store;

/// The first is what the others are for.
const PACKAGES: [&str; 5] = ["qemu-system-x86", "busybox-static", "e2fsprogs", "kmod", "xz-utils"];

/// The folder that they are unpacked in.
pub struct Tools {
    root: PathBuf,
}

impl Tools {
    /// Downloads and unpacks them where they are not there yet.
    pub fn get(store: &Store, progress: &Progress) -> Result<Self> {
        if std::env::consts::ARCH != "x86_64" {
            bail!(
                "the kernels that are tried are for x86_64, and so must this machine be: it is {}",
                std::env::consts::ARCH
            );
        }
        let dir = store.path("tools");
        store
            .once(&dir, &format!("{}\n", PACKAGES.join(" ")), |dir| store.unpack_packages(dir, &PACKAGES, progress))?;
        Ok(Self { root: dir.join("root") })
    }

    /// One of their files.
    pub fn file(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The folder of their libraries.
    pub fn libraries(&self) -> PathBuf {
        self.file("usr/lib/x86_64-linux-gnu")
    }

    /// A busybox that needs no library.
    pub fn busybox(&self) -> PathBuf {
        self.file("usr/bin/busybox")
    }

    /// One of the programs, with the libraries that it came with, as words of a command.
    pub fn words(&self, program: &str) -> [PathBuf; 4] {
        let libraries = self.libraries();
        let folders = format!("{0}:{0}/pulseaudio", libraries.display());
        [self.file("usr/lib64/ld-linux-x86-64.so.2"), "--library-path".into(), folders.into(), self.file(program)]
    }

    /// As [`Tools::words`], to be run.
    pub fn command(&self, program: &str) -> Command {
        let [loader, arguments @ ..] = self.words(program);
        let mut command = Command::new(loader);
        command.args(arguments);
        command
    }

    /// Makes a file that is an ext4 file system with what is in a folder, and room for `free` MiB more.
    pub fn image(&self, folder: &Path, free: u64, image: &Path) -> Result<()> {
        let used = output(Command::new("du").args(["-sm", "--apparent-size"]).arg(folder))?;
        let used: u64 =
            used.split_whitespace().next().and_then(|word| word.parse().ok()).context("du tells no size")?;
        // Blocks that are not full and the file system's own take their share.
        let size = used + used / 3 + 32 + free;
        let part = image.with_extension("part");
        let _ = fs::remove_file(&part);
        let mut mkfs = self.command("usr/sbin/mke2fs");
        mkfs.args(["-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d"]).arg(folder).arg(&part);
        output(mkfs.arg(format!("{size}M")).env("MKE2FS_CONFIG", self.file("etc/mke2fs.conf")))?;
        fs::rename(&part, image).with_context(|| format!("cannot make {}", image.display()))
    }
}
