//! Removing what a lab made, whatever state it is in.
//!
//! All that belongs to a lab carries its name `rtlab-PID-N`: namespaces `rtlab-PID-N-*`, the folder of that name under the
//! temporary folder, and the one under the bpffs.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::{command, must};
use crate::wait::wait_for;

/// What the names of all labs start with.
const PREFIX: &str = "rtlab-";

/// The name of this process's lab number `n`.
pub(crate) fn name(n: usize) -> String {
    format!("{PREFIX}{}-{n}", std::process::id())
}

/// The folder of a lab. Short, because the paths of Unix sockets may have 107 bytes.
pub(crate) fn folder(name: &str) -> PathBuf {
    std::env::temp_dir().join(name)
}

/// Removes what labs of processes that are gone have left.
pub(crate) fn sweep() -> Result<()> {
    // One at a time: two would be in each other's way.
    let path = std::env::temp_dir().join("rtlab.lock");
    let lock = fs::File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    let mut names = HashSet::new();
    for place in [Path::new("/run/netns"), &std::env::temp_dir(), Path::new("/sys/fs/bpf")] {
        for entry in entries(place) {
            let file = entry.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let mut parts = file.strip_prefix(PREFIX).unwrap_or_default().split('-');
            let (Some(Ok(pid)), Some(n)) = (parts.next().map(str::parse::<u32>), parts.next()) else { continue };
            if !Path::new("/proc").join(pid.to_string()).exists() {
                names.insert(format!("{PREFIX}{pid}-{n}"));
            }
        }
    }
    names.iter().try_for_each(|name| remove(name).with_context(|| format!("cannot sweep {name}")))
}

/// Removes everything of one lab: processes, mounts, namespaces, folders. Goes on after a failure, and gives the first.
pub(crate) fn remove(name: &str) -> Result<()> {
    let dir = folder(name);
    let namespaces: Vec<PathBuf> = entries(Path::new("/run/netns")).into_iter().filter(|p| belongs(p, name)).collect();
    let pins = Path::new("/sys/fs/bpf").join(name);

    let mut first = Ok(());
    let mut note = |what: Result<()>| {
        if first.is_ok() {
            first = what;
        }
    };
    note(kill_all(&dir, &namespaces));
    note(unmount(&dir));
    for ns in &namespaces {
        let file = ns.file_name().unwrap_or_default();
        note(must(command(["ip", "netns", "del"]).arg(file)).map(drop));
    }
    for folder in [&pins, &dir] {
        match fs::remove_dir_all(folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                note(Err(e).with_context(|| format!("cannot remove {}", folder.display())));
            }
            _ => {}
        }
    }
    first
}

fn kill_all(dir: &Path, namespaces: &[PathBuf]) -> Result<()> {
    // Grows only: once the holder of the mounts is dead, what they stood for can no longer be asked.
    let mut ids = HashSet::new();
    let mut left = Vec::new();
    let gone = wait_for(Duration::from_secs(10), || {
        ids.extend(network_namespaces(dir, namespaces));
        left = find(&ids, dir);
        for pid in &left {
            // It may be gone already.
            let _ = kill(Pid::from_raw(*pid as i32), Signal::SIGKILL);
        }
        left.is_empty().then_some(())
    });
    gone.with_context(|| format!("processes of {} do not end: {left:?}", dir.display()))
}

/// A lab's network namespaces: its own and those of its containers.
fn network_namespaces(dir: &Path, namespaces: &[PathBuf]) -> HashSet<(u64, u64)> {
    let sandboxes = entries(&dir.join("exec/netns"));
    // Both kinds of file are mounts of nsfs; where the mount is gone, the file's own inode is of another device.
    let mut ids: HashSet<_> = namespaces.iter().chain(&sandboxes).filter_map(|p| identity(p)).collect();
    if let Some(root) = holders_root(dir, &ids) {
        // Docker's and Podman's: mounts that only the holder's namespace has.
        let inside = dir.strip_prefix("/").unwrap_or(dir).join("exec/netns");
        let sandboxes = [root.join(inside), root.join("run/netns")];
        ids.extend(sandboxes.iter().flat_map(|folder| entries(folder)).filter_map(|p| identity(&p)));
    }
    for process in ["self", "1"] {
        // What one's own processes and the machine's are in is no lab's, whatever a mount says.
        if let Some(id) = identity(&Path::new("/proc").join(process).join("ns/net")) {
            ids.remove(&id);
        }
    }
    ids
}

/// The root of a lab's holder as the holder sees it; `None` without one, and unless the process is in one of the lab's networks
/// and has mounts of its own.
fn holders_root(dir: &Path, ids: &HashSet<(u64, u64)>) -> Option<PathBuf> {
    let pid: u32 = fs::read_to_string(dir.join(crate::engine::PID_FILE)).ok()?.trim().parse().ok()?;
    let holder = Path::new("/proc").join(pid.to_string());
    let is_ours = ids.contains(&identity(&holder.join("ns/net"))?);
    let has_own_mounts = identity(&holder.join("ns/mnt"))? != identity(Path::new("/proc/self/ns/mnt"))?;
    (is_ours && has_own_mounts).then(|| holder.join("root"))
}

/// The processes in these network namespaces: dockerd, containerd and its shims too; and whatever is told of a file in the lab's
/// folder, as a container that was being made when its Engine was killed, whose namespace nobody knows any more. Zombies do not
/// count: they hold nothing, and are in no namespace.
fn find(ids: &HashSet<(u64, u64)>, dir: &Path) -> Vec<u32> {
    let folder = [dir.as_os_str().as_encoded_bytes(), b"/"].concat();
    let mut found = Vec::new();
    for process in entries(Path::new("/proc")) {
        let Some(pid) = process.file_name().and_then(|n| n.to_str()?.parse::<u32>().ok()) else { continue };
        if pid == std::process::id() || pid == 1 {
            continue;
        }
        let in_network = identity(&process.join("ns/net")).is_some_and(|id| ids.contains(&id));
        let names_folder = || {
            fs::read(process.join("cmdline")).is_ok_and(|words| words.windows(folder.len()).any(|part| part == folder))
        };
        if in_network || names_folder() {
            found.push(pid);
        }
    }
    found
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|m| (m.dev(), m.ino()))
}

/// The mounts under a lab's folder, innermost last.
fn mounts(dir: &Path) -> Result<Vec<PathBuf>> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
    let points = text.lines().filter_map(|l| l.split(' ').nth(4)).map(PathBuf::from);
    Ok(points.filter(|p| p.starts_with(dir)).collect())
}

fn unmount(dir: &Path) -> Result<()> {
    for point in mounts(dir)?.iter().rev() {
        umount2(point, MntFlags::MNT_DETACH).with_context(|| format!("cannot unmount {}", point.display()))?;
    }
    Ok(())
}

fn belongs(path: &Path, name: &str) -> bool {
    let file = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    file.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'))
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).map(|d| d.flatten().map(|e| e.path()).collect()).unwrap_or_default()
}
