//! What somebody takes away by hand is found, and put back: pins, the folders of them, the BPF file system that they are on, and
//! entries of the maps (see [`super::entries`]).
//!
//! A pin is a program's only reference: with the pin of a link that link is gone, and with an unmounted file system all of
//! them. Maps stay as long as this process has them.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use super::pins::{MAPS, is_bpffs};
use super::{Datapath, DatapathError, PinLock, Pins, bpf_syscall};

/// A map, whatever becomes of its pin.
struct Kept {
    name: &'static str,
    fd: OwnedFd,
    id: u32,
}

/// Holds what pins are of.
pub(super) struct Keeper {
    maps: Vec<Kept>,
    /// Where the BPF file system with the pins is mounted.
    mount_point: Option<PathBuf>,
    lock: PinLock,
}

impl Keeper {
    /// Takes hold of every pinned map.
    pub fn of(pins: &Pins, lock: PinLock) -> Result<Self, DatapathError> {
        let open = |name: &'static str| {
            let path = pins.map(name);
            let kept =
                bpf_syscall::open_pin(&path).and_then(|fd| Ok(Kept { name, id: bpf_syscall::map_id(fd.as_fd())?, fd }));
            kept.map_err(|e| DatapathError::Pin { path: path.display().to_string(), reason: e.to_string() })
        };
        let maps = MAPS.iter().map(|name| open(name)).collect::<Result<_, _>>()?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Ok(Keeper { maps, mount_point: mount_point(&mounts, pins.root()), lock })
    }

    /// Makes good what the pins of maps lack. A line for each thing that was gone; an error where it cannot be put back.
    pub fn put_back(&mut self, pins: &Pins) -> Result<Vec<String>, DatapathError> {
        let (mut lines, mut gone) = (Vec::new(), Vec::new());
        if !is_bpffs(pins.root())
            && let Some(point) = &self.mount_point
        {
            mount(Some("bpf"), point, Some("bpf"), MsFlags::empty(), Some("mode=0700")).map_err(|e| {
                DatapathError::Pin {
                    path: point.display().to_string(),
                    reason: format!("the BPF file system with the pins is gone, and none can be mounted: {e}"),
                }
            })?;
            lines.push(format!("the BPF file system at {} was gone", point.display()));
        }
        pins.prepare()?;
        if !self.lock.is_of(pins.root()) {
            self.lock = PinLock::take(pins)?;
        }
        for map in &self.maps {
            let path = pins.map(map.name);
            let failed =
                |e: std::io::Error| DatapathError::Pin { path: path.display().to_string(), reason: e.to_string() };
            if !path.exists() {
                bpf_syscall::pin(&path, map.fd.as_fd()).map_err(failed)?;
                gone.push(path);
            } else if bpf_syscall::open_pin(&path).and_then(|fd| bpf_syscall::map_id(fd.as_fd())).ok() != Some(map.id) {
                fs::remove_file(&path).and_then(|()| bpf_syscall::pin(&path, map.fd.as_fd())).map_err(failed)?;
                lines.push(format!("{} was another map", path.display()));
            }
        }
        lines.extend(match &gone[..] {
            // With the file system go all of them.
            [first, others @ ..] if lines.is_empty() => Some(match others.len() {
                0 => format!("{} was gone", first.display()),
                more => format!("{} and the pins of {more} more maps were gone", first.display()),
            }),
            _ => None,
        });
        Ok(lines)
    }
}

/// The mount point of the BPF file system that a path is on.
fn mount_point(mountinfo: &str, path: &Path) -> Option<PathBuf> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (own, of_file_system) = line.split_once(" - ")?;
        let point = PathBuf::from(own.split(' ').nth(4)?.replace("\\040", " "));
        (of_file_system.split(' ').next()? == "bpf" && path.starts_with(&point)).then_some(point)
    });
    mounts.max_by_key(|point| point.as_os_str().len())
}

impl Datapath {
    /// Looks for what somebody has taken away, as far as it takes no time: a part of the hooks and of the maps' entries after
    /// the other, and all pins. Pins of maps and entries are put back at once, programs with the next [`Datapath::attach`].
    ///
    /// # Errors
    /// Where pins cannot be put back.
    pub fn find_lost(&mut self) -> Result<Vec<String>, DatapathError> {
        let mut lost = self.keeper.put_back(&self.pins)?;
        lost.extend(self.hooks.forget_lost(&self.pins));
        lost.extend(self.host.forget_lost(&self.pins));
        lost.extend(self.relay.put_back(&mut self.ebpf, &self.pins));
        lost.extend(self.state.put_back()?);
        lost.extend(self.relay.put_back_entries()?);
        Ok(lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_bpffs_is_where_the_pins_are() {
        let info = "29 1 0:26 / /sys rw shared:7 - sysfs sysfs rw\n\
                    33 29 0:29 / /sys/fs/bpf rw shared:9 - bpf bpf rw,mode=700\n\
                    90 1 0:60 / /tmp/a\\040b/bpf rw - bpf bpf rw\n";
        let at = |path: &str| mount_point(info, Path::new(path));
        assert_eq!(at("/sys/fs/bpf/runtime"), Some("/sys/fs/bpf".into()));
        assert_eq!(at("/tmp/a b/bpf/x/y"), Some("/tmp/a b/bpf".into()));
        assert_eq!(at("/sys/fs/cgroup"), None);
    }
}
