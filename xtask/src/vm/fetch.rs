//! Getting a kernel into the store.

use std::path::Path;

use anyhow::{Context, Result, bail};
use xtask::debian::unpack;

use super::boot;
use super::kernels::{self, Kernel};
use super::progress::Progress;
use super::store::{Store, remove};
use super::tools::Tools;
use super::unpacked::Unpacked;

/// Counts up with every change of how a kernel is prepared.
const KERNEL_RECIPE: u32 = 2;

impl Store {
    /// A kernel of this series, with what machines boot it from.
    pub fn kernel(&self, kernel: Kernel, tools: &Tools, progress: &Progress) -> Result<Unpacked> {
        let dir = self.path("kernels").join(kernel.series);
        self.once(&dir, &format!("{KERNEL_RECIPE}\n"), |dir| {
            self.download_kernel(kernel, dir, progress)?;
            progress.tell("making its disk of modules");
            boot::prepare(&Unpacked::find(dir)?, tools)
        })?;
        Unpacked::find(&dir).with_context(|| format!("{}: remove it and run this again", dir.display()))
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
        remove(&self.path("kernels").join(kernel.series))
    }
}
