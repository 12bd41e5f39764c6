//! What a kernel boots from: an archive that mounts the disks, and a disk with the kernel's modules.

use std::fs;

use anyhow::{Context, Result};
use xtask::debian::output;

use super::cpio::Archive;
use super::tools::Tools;
use super::unpacked::Unpacked;

/// Without these a kernel sees no disk and no file system on it.
const MODULES: [&str; 3] = ["virtio_pci", "virtio_blk", "ext4"];

/// The program that is started on the root file system.
pub const INIT: &str = "/sbin/lab-init";

/// Makes the archive and the disk.
pub fn prepare(kernel: &Unpacked, tools: &Tools) -> Result<()> {
    depmod(kernel, tools)?;
    tools.image(&kernel.root.join("usr/lib/modules").join(&kernel.release), 0, &kernel.disk)?;
    let archive = archive(kernel, tools)?;
    fs::write(&kernel.initrd, archive).with_context(|| format!("cannot write {}", kernel.initrd.display()))
}

/// kmod is one program that does what its name says.
fn depmod(kernel: &Unpacked, tools: &Tools) -> Result<()> {
    let [loader, libraries, folders, kmod] = tools.words("usr/bin/kmod");
    let mut depmod = std::process::Command::new(loader);
    depmod.args(["--argv0", "depmod"]).arg(libraries).arg(folders).arg(kmod).arg("-b").arg(&kernel.root);
    Ok(output(depmod.arg(&kernel.release)).map(drop)?)
}

fn archive(kernel: &Unpacked, tools: &Tools) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in ["proc", "sys", "dev", "root", "modules"] {
        archive.folder(folder);
    }
    archive.device("dev/console", 5, 1);
    archive.copy("bin/busybox", &tools.busybox())?;
    let base = kernel.root.join("usr/lib/modules").join(&kernel.release);
    let path = base.join("modules.dep");
    let dependencies = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut insert = String::new();
    for (n, file) in in_order(&dependencies, &MODULES).iter().enumerate() {
        let name = format!("modules/{n}.ko");
        let module = base.join(file);
        if file.ends_with(".xz") {
            let plain = tools.command("usr/bin/xz").arg("-dc").arg(&module).output().context("cannot run xz")?;
            archive.file(&name, 0o644, &plain.stdout);
        } else {
            archive.copy(&name, &module)?;
        }
        insert += &format!("insmod /{name}\n");
    }
    let release = &kernel.release;
    let script = format!(
        "#!/bin/busybox sh\n/bin/busybox --install -s /bin\nmount -t proc proc /proc\nmount -t sysfs sysfs /sys\n\
         mount -t devtmpfs dev /dev\n{insert}until [ -b /dev/vdb ]; do sleep 0.1; done\nmount -t ext4 /dev/vda /root\n\
         mkdir -p /root/usr/lib/modules/{release}\nmount -t ext4 -o ro /dev/vdb /root/usr/lib/modules/{release}\n\
         umount /dev /sys /proc\nexec switch_root /root {INIT}\n"
    );
    archive.file("init", 0o755, script.as_bytes());
    Ok(archive.finish())
}

/// The files of these modules, each after those that it depends on; one that is built into the kernel has none.
fn in_order(dependencies: &str, modules: &[&str]) -> Vec<String> {
    let stem = |path: &str| {
        let file = path.rsplit('/').next().unwrap_or_default();
        file.split('.').next().unwrap_or_default().replace('-', "_")
    };
    let mut files: Vec<String> = Vec::new();
    for module in modules {
        let line = dependencies.lines().find_map(|line| {
            let (file, needs) = line.split_once(':')?;
            (stem(file) == *module).then_some((file, needs))
        });
        let Some((file, needs)) = line else { continue };
        // What has to be there first is named last.
        for needed in needs.split_whitespace().rev().chain([file]) {
            if !files.iter().any(|known| known == needed) {
                files.push(needed.to_owned());
            }
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_after_what_they_need() {
        let dependencies = "kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/fs/mbcache.ko\n\
                            kernel/fs/jbd2/jbd2.ko:\nkernel/drivers/virtio/virtio_pci.ko.xz:\n";
        let files = in_order(dependencies, &MODULES);
        assert_eq!(
            files,
            [
                "kernel/drivers/virtio/virtio_pci.ko.xz",
                "kernel/fs/mbcache.ko",
                "kernel/fs/jbd2/jbd2.ko",
                "kernel/fs/ext4/ext4.ko"
            ]
        );
    }
}
