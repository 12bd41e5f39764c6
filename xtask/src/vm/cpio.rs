//! The archive that a kernel unpacks as its first root file system ("newc": Documentation/driver-api/early-userspace/buffer-format.rst).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const DEVICE: u32 = 0o020_600;

/// An archive in the making.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    folders: std::collections::BTreeSet<String>,
}

impl Archive {
    /// Adds a folder with those above it.
    pub fn folder(&mut self, path: &str) {
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            if end > 0 && self.folders.insert(path[..end].to_owned()) {
                self.entry(&path[..end], FOLDER, &[], (0, 0));
            }
        }
    }

    /// Adds a file with these permissions.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.parent(path);
        self.entry(path, FILE | mode, content, (0, 0));
    }

    /// Adds a file of this machine, with its permissions.
    pub fn copy(&mut self, path: &str, from: &Path) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        let mode = fs::metadata(from).with_context(|| format!("cannot read {}", from.display()))?.permissions().mode();
        self.file(path, mode & 0o777, &content);
        Ok(())
    }

    /// Adds a character device.
    pub fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.parent(path);
        self.entry(path, DEVICE, &[], (major, minor));
    }

    /// The folder that a file is in.
    fn parent(&mut self, path: &str) {
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.folder(folder);
        }
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[], (0, 0));
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8], device: (u32, u32)) {
        self.entries += 1;
        // Inode, mode, owner, group, links, time, size, device of the file (2), device itself (2), length of the name, checksum.
        let fields =
            [self.entries, mode, 0, 0, 1, 0, content.len() as u32, 0, 0, device.0, device.1, path.len() as u32 + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_folders_before_files_and_is_aligned() {
        let mut archive = Archive::default();
        archive.file("usr/bin/true", 0o755, b"x");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        let at = |name: &str| text.find(name).expect("it is there");
        assert!(at("usr\0") < at("usr/bin\0") && at("usr/bin\0") < at("usr/bin/true\0"));
        assert!(at("usr/bin/true\0") < at("TRAILER!!!\0"));
        assert_eq!(text.matches("usr/bin\0").count(), 1);
    }
}
