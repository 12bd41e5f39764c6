//! Installs packages without starting what they bring.

use std::{
    fs::{self, Permissions},
    io::ErrorKind,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use crate::packages::parse_candidate;

/// Asked by invoke-rc.d and deb-systemd-invoke before they start a service; 101 forbids it (Debian Policy 9.3.3).
const POLICY: &str = "/usr/sbin/policy-rc.d";
const FORBID: &str = "#!/bin/sh\n# Made by `cargo xtask setup`, which removes it when apt is done.\nexit 101\n";

/// The version of a package that apt would install, if there is one.
pub fn candidate(package: &str) -> Option<String> {
    let output = Command::new("apt-cache").args(["policy", package]).env("LC_ALL", "C").output().ok()?;
    parse_candidate(&String::from_utf8_lossy(&output.stdout))
}

/// Whether a package is installed.
pub fn is_installed(package: &str) -> bool {
    let query = ["-W", "-f", "${db:Status-Status}", package];
    Command::new("dpkg-query").args(query).output().is_ok_and(|output| output.stdout == b"installed")
}

/// Fetches the lists of packages. A failure is told and left for the installation to judge: an unrelated source may
/// be out of reach.
pub fn update() -> Result<()> {
    if !run(&["update", "-q"])? {
        eprintln!("setup: warning: `apt-get update` failed; going on with the lists that are there");
    }
    Ok(())
}

/// Installs these, starting no service, also where it fails or is interrupted.
pub fn install(packages: &[&str]) -> Result<()> {
    survive_interrupts().context("cannot handle signals")?;
    let _quiet = NoServices::new().with_context(|| format!("cannot write {POLICY}"))?;
    let mut arguments = vec!["install", "-q", "-y", "--no-install-recommends"];
    arguments.extend(packages);
    if !run(&arguments)? {
        bail!("`apt-get install {}` failed: see its messages above", packages.join(" "));
    }
    Ok(())
}

fn run(arguments: &[&str]) -> Result<bool> {
    let status = Command::new("apt-get")
        .args(["-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .status()
        .context("cannot run apt-get: this set-up is for Debian and Ubuntu")?;
    Ok(status.success())
}

/// Forbids the start of services while it lives.
struct NoServices {
    is_ours: bool,
}

impl NoServices {
    fn new() -> std::io::Result<Self> {
        match fs::read_to_string(POLICY) {
            // One of ours may be left from a run that was killed; anybody else's stays as it is.
            Ok(text) => Ok(Self { is_ours: text == FORBID }),
            Err(error) if error.kind() == ErrorKind::NotFound && fs::symlink_metadata(POLICY).is_err() => {
                let policy = Self { is_ours: true };
                fs::write(POLICY, FORBID)?;
                fs::set_permissions(POLICY, Permissions::from_mode(0o755))?;
                Ok(policy)
            }
            Err(error) => Err(error),
        }
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.is_ours
            && Path::new(POLICY).exists()
            && let Err(error) = fs::remove_file(POLICY)
        {
            eprintln!("setup: {POLICY} forbids the start of services and could not be removed: {error}");
        }
    }
}

/// Leaves ^C to apt, whose failure is then cleaned up after. A handler, unlike ignoring, is not inherited by apt.
fn survive_interrupts() -> nix::Result<()> {
    extern "C" fn nothing(_: std::ffi::c_int) {}
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler does nothing, which is safe in a signal handler.
        unsafe { sigaction(signal, &action)? };
    }
    Ok(())
}
