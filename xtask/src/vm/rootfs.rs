//! The root file system of machines: one image for all kernels, with a Docker Engine and what the lab calls.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use xtask::debian::{make_dir, output};

use super::boot::INIT;
use super::progress::Progress;
use super::qemu::STATUS;
use super::store::{Store, remove};
use super::tools::Tools;

/// Counts up with every change of what is done beside unpacking.
const RECIPE: u32 = 1;
const PACKAGES: [&str; 31] = [
    "docker.io",
    "containerd",
    "runc",
    "tini",
    "iptables",
    "nftables",
    "iproute2",
    "bridge-utils",
    // Nothing is there that everything may count on: those are named too.
    "bash",
    "dash",
    "coreutils",
    "debianutils",
    "gzip",
    "hostname",
    "util-linux",
    "mount",
    "findutils",
    "grep",
    "sed",
    "tar",
    "kmod",
    "procps",
    "ethtool",
    "iputils-ping",
    "bpftool",
    "busybox-static",
    "wireguard-tools",
    "ca-certificates",
    "libc-bin",
    "libgcc-s1",
    "netbase",
];
/// What the alternatives of an installed iptables would be.
const NFT: [&str; 6] =
    ["iptables", "ip6tables", "iptables-save", "ip6tables-save", "iptables-restore", "ip6tables-restore"];

/// The first program on it: mounts what an init system would, unpacks what was brought on the third disk, and runs its script.
const SCRIPT: &str = r#"#!/bin/bash
export PATH=/usr/sbin:/usr/bin HOME=/root TERM=dumb
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs -o size=90% tmp /tmp
mount -t tmpfs run /run
mkdir -p /run/netns /run/lock
ip link set lo up
hostname vm
exec </dev/null
mkdir -p /lab
mount -t tmpfs -o size=50% lab /lab
cd /lab && tar -xf /dev/vdc && bash ./script
echo "STATUS$?"
busybox poweroff -f
"#;

/// The image, made where it is not there yet.
pub fn image(store: &Store, tools: &Tools, progress: &Progress) -> Result<PathBuf> {
    let dir = store.path("root");
    let recipe = format!("{RECIPE} {}\n{SCRIPT}", PACKAGES.join(" "));
    let image = dir.join("root.img");
    store.once(&dir, &recipe, |dir| {
        store.unpack_packages(dir, &PACKAGES, progress)?;
        progress.tell("making the disk of the root file system");
        let root = dir.join("root");
        configure(&root)?;
        tools.image(&root, 256, &image)?;
        remove(&root)
    })?;
    Ok(image)
}

/// What maintainer scripts would have done.
fn configure(root: &Path) -> Result<()> {
    output(Command::new("ldconfig").arg("-r").arg(root))?;
    for name in NFT {
        let link = root.join("usr/sbin").join(name);
        symlink("xtables-nft-multi", &link).with_context(|| format!("cannot make {}", link.display()))?;
    }
    let sh = root.join("usr/bin/sh");
    if fs::symlink_metadata(&sh).is_err() {
        symlink("dash", &sh).with_context(|| format!("cannot make {}", sh.display()))?;
    }
    for folder in ["proc", "sys", "dev", "run", "tmp", "lab", "root", "var/tmp", "var/lib/docker", "etc"] {
        make_dir(&root.join(folder))?;
    }
    let script = SCRIPT.replace("STATUS", STATUS);
    let files = [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"),
        ("etc/group", "root:x:0:\ndocker:x:999:\nnogroup:x:65534:\n"),
        ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
        ("etc/hosts", "127.0.0.1 localhost vm\n::1 localhost\n"),
        ("etc/resolv.conf", "nameserver 192.0.2.53\n"),
        (INIT.trim_start_matches('/'), script.as_str()),
    ];
    for (name, text) in files {
        let path = root.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let init = root.join(INIT.trim_start_matches('/'));
    fs::set_permissions(&init, Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} a program", init.display()))
}
