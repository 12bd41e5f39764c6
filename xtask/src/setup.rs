//! Everything that the tests and the demo need on a fresh machine.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use xtask::{Error, TOOLS_DIR, engines::Engine, linker, toolchain};

use crate::{
    apt,
    packages::{self, Need, Sign},
    run,
};

const BPFFS: &str = "/sys/fs/bpf";

/// Looks at the machine, says what is missing, and installs that, the Engine included; calls nothing where nothing is missing.
pub fn setup(root: &Path, engine: Engine) -> Result<()> {
    install(root)?;
    // Asks apt alone where it is not unpacked yet.
    engine.root(&root.join("target"))?;
    Ok(())
}

fn install(root: &Path) -> Result<()> {
    let needs = packages::missing(&packages::NEEDS, is_there);
    let toolchain = toolchain::find();
    let linker = linker::find(root);
    let mount_bpffs = !is_bpffs_mounted()?;
    if needs.is_empty() && toolchain.is_ok() && linker.is_ok() && !mount_bpffs {
        eprintln!("setup: everything is in place");
        return Ok(());
    }

    eprintln!("setup: this is missing and will be set up:");
    for Need { packages, .. } in &needs {
        eprintln!("  package {}", packages.join(" or "));
    }
    if let Err(Error::NoToolchain { found }) = &toolchain {
        eprintln!(
            "  a toolchain for BPF: rustup's component rust-src, or else Debian's rustc-web, cargo-web, rust-web-src"
        );
        eprintln!("    ({found})");
    }
    if linker.is_err() {
        eprintln!("  bpf-linker {} from crates.io, into {TOOLS_DIR}", linker::VERSION);
    }
    if mount_bpffs {
        eprintln!("  the BPF file system, mounted on {BPFFS}");
    }
    if !needs.is_empty() || mount_bpffs {
        require_root()?;
    }

    let needs_debians = toolchain.is_err() && !add_rust_src();
    install_packages(&needs, needs_debians)?;
    // Asked again: it tells what is wrong with what was installed.
    toolchain::find()?;
    install_linker(root)?;
    if mount_bpffs {
        mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("cannot mount the BPF file system on {BPFFS}"))?;
        eprintln!("setup: mounted the BPF file system on {BPFFS}");
    }
    Ok(())
}

/// Installs the pinned bpf-linker into the workspace where no bpf-linker of that version is at hand.
pub fn install_linker(root: &Path) -> Result<()> {
    match linker::find(root) {
        Ok(_) => return Ok(()),
        Err(Error::NoLinker { found }) => {
            eprintln!("setup: installing bpf-linker {} into {TOOLS_DIR}{found}", linker::VERSION);
        }
        Err(error) => return Err(error.into()),
    }
    let version = format!("={}", linker::VERSION);
    let arguments = ["install", "--locked", "--force", "--version", &version, "bpf-linker", "--root"];
    run(run::cargo().args(arguments).arg(root.join(TOOLS_DIR)))?;
    linker::find(root)?;
    Ok(())
}

fn is_there(sign: Sign) -> bool {
    match sign {
        Sign::Program(file) => packages::is_program(file),
        Sign::File(path) => Path::new(path).exists(),
        Sign::Below(folder, file) => packages::is_below(folder, file),
        Sign::Package(package) => apt::is_installed(package),
    }
}

fn require_root() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("installing packages and mounting need root: run this command as root");
    }
    Ok(())
}

/// Asks rustup for the source of its compiler. False where there is no rustup, or it could not.
fn add_rust_src() -> bool {
    if !packages::is_program("rustup") {
        return false;
    }
    eprintln!("setup: rustup component add rust-src");
    let added = Command::new("rustup").args(["component", "add", "rust-src"]).status();
    if !added.is_ok_and(|status| status.success()) {
        eprintln!("setup: rustup could not add rust-src; trying the distribution's compiler");
        return false;
    }
    match toolchain::find() {
        Ok(_) => true,
        Err(error) => {
            eprintln!("setup: rust-src is there, but {error}; trying the distribution's compiler");
            false
        }
    }
}

fn install_packages(needs: &[Need], with_toolchain: bool) -> Result<()> {
    if needs.is_empty() && !with_toolchain {
        return Ok(());
    }
    require_root()?;
    apt::update()?;
    let mut chosen =
        packages::resolve(needs, |package| apt::candidate(package).is_some()).map_err(anyhow::Error::msg)?;
    if with_toolchain {
        let oldest = toolchain::OLDEST_MINOR;
        let Some(compiler) = packages::toolchain_packages(oldest, apt::candidate) else {
            bail!(
                "apt knows no rustc 1.{oldest} with its source (rustc-web, rust-web-src of Debian's security updates): \
                 install rustup, then run `rustup component add rust-src`"
            );
        };
        chosen.extend(compiler);
    }
    eprintln!("setup: apt-get install {} (no service is started)", chosen.join(" "));
    apt::install(&chosen)
}

/// Out of `/proc/mounts`, whose fields are device, folder, type, ...
fn is_bpffs_mounted() -> Result<bool> {
    let mounts = std::fs::read_to_string("/proc/mounts").context("cannot read /proc/mounts")?;
    Ok(has_bpffs(&mounts))
}

fn has_bpffs(mounts: &str) -> bool {
    mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some(BPFFS) && fields.next() == Some("bpf")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bpffs_is_found_among_the_mounts() {
        assert!(has_bpffs("proc /proc proc rw 0 0\nbpf /sys/fs/bpf bpf rw,relatime 0 0\n"));
        assert!(!has_bpffs("sysfs /sys sysfs rw 0 0\nbpf /mnt/bpf bpf rw 0 0\ntmpfs /sys/fs/bpf tmpfs rw 0 0\n"));
    }
}
