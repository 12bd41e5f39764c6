//! What a lab needs of the machine, each with its remedy.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// A program, the Debian package that brings it.
const PROGRAMS: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("sysctl", "procps"),
    ("ethtool", "ethtool"),
    ("ping", "iputils-ping"),
    ("iptables", "iptables"),
    ("dockerd", "docker.io"),
    ("containerd", "containerd"),
    ("docker", "docker.io (from Debian 13 on: docker-cli)"),
    ("busybox", "busybox-static"),
    ("bpftool", "bpftool"),
    ("tar", "tar"),
];

/// Where programs are, beside PATH: root's folders are not in every user's.
const SBIN: &[&str] = &["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Fails with everything that is missing.
pub(crate) fn check() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the lab makes network namespaces and runs dockerd: run as root");
    }
    let missing: Vec<_> = PROGRAMS.iter().filter(|(program, _)| which(program).is_none()).collect();
    if !missing.is_empty() {
        let names: Vec<_> = missing.iter().map(|(program, package)| format!("{program} (package {package})")).collect();
        bail!("the lab needs {}: install with apt-get, or let `cargo xtask test` do it", names.join(", "));
    }
    Ok(())
}

/// Where a program is.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(SBIN.iter().map(PathBuf::from));
    dirs.map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// Mounts the bpffs where the machine has not (systemd does).
pub(crate) fn bpffs() -> Result<PathBuf> {
    let path = PathBuf::from("/sys/fs/bpf");
    let mounted = || -> Result<bool> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
        Ok(mounts.lines().any(|l| l.split(' ').nth(4) == path.to_str() && l.contains(" - bpf ")))
    };
    if !mounted()? {
        let flags = nix::mount::MsFlags::empty();
        if let Err(e) = nix::mount::mount(Some("bpf"), &path, Some("bpf"), flags, None::<&str>) {
            // Somebody else may have been faster.
            if !mounted()? {
                bail!("cannot mount a bpffs at {}: {e}; the kernel needs CONFIG_BPF_SYSCALL", path.display());
            }
        }
    }
    Ok(path)
}
