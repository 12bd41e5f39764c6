//! Every program's load, in a machine that has nothing but an archive in memory.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use xtask::debian::output;

use super::counts::Counts;
use super::cpio::Archive;
use super::progress::Progress;
use super::qemu::{Machine, STATUS};
use super::store::Store;
use super::tools::Tools;
use super::unpacked::Unpacked;

/// Only what hangs takes so long, however busy the machine is.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// What a kernel made of the programs.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Verified instructions of those that it took.
    pub taken: Counts,
    /// Those that it refused: why, and the last lines of the verifier's log.
    pub refused: BTreeMap<String, (String, Vec<String>)>,
}

impl Loaded {
    fn read(&mut self, line: &str) {
        let mut words = line.splitn(3, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some("program"), Some(name), Some(count)) => {
                if let Ok(count) = count.parse() {
                    self.taken.insert(name.to_owned(), count);
                }
            }
            (Some("refused"), Some(name), Some(why)) => {
                self.refused.insert(name.to_owned(), (why.to_owned(), Vec::new()));
            }
            _ => {}
        }
    }
}

/// Boots the kernel, and loads every program of the object there.
pub fn run(
    store: &Store,
    tools: &Tools,
    kernel: &Unpacked,
    object: &Path,
    loader: &Path,
    progress: &Progress,
) -> Result<Loaded> {
    let initrd = store.path(&format!("load-{}.cpio", kernel.release));
    fs::write(&initrd, archive(tools, object, loader)?)
        .with_context(|| format!("cannot write {}", initrd.display()))?;
    let log = store.path(&format!("load-{}.log", kernel.release));
    let machine = Machine { kernel: &kernel.image, initrd: &initrd, memory: 1024, disks: &[], limit: LIMIT, log: &log };
    progress.tell(&format!("{} boots", kernel.release));
    let mut loaded = Loaded::default();
    let mut last = None;
    let status = machine.run(tools, |line| {
        loaded.read(line);
        match line.strip_prefix("| ") {
            Some(told) => {
                if let Some((_, lines)) = last.as_ref().and_then(|name| loaded.refused.get_mut(name)) {
                    lines.push(told.to_owned());
                }
            }
            None => {
                last = line.strip_prefix("refused ").and_then(|rest| rest.split(' ').next()).map(str::to_owned);
                let name = line.strip_prefix("program ").and_then(|rest| rest.split(' ').next());
                if let Some(name) = name {
                    progress.tell(&format!("{} took {name}", kernel.release));
                }
            }
        }
    })?;
    // 1: it refused a program.
    if status > 1 || (loaded.taken.is_empty() && loaded.refused.is_empty()) {
        let said = fs::read_to_string(&log).unwrap_or_default();
        let line = said.lines().rfind(|line| line.starts_with("load: ")).unwrap_or("load: it said nothing");
        bail!("{line} (status {status}): see {}", log.display());
    }
    Ok(loaded)
}

fn archive(tools: &Tools, object: &Path, loader: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in ["proc", "sys", "dev", "tmp"] {
        archive.folder(folder);
    }
    archive.device("dev/console", 5, 1);
    archive.copy("bin/busybox", &tools.busybox())?;
    archive.copy("object", object)?;
    archive.copy("bin/load", loader)?;
    for library in libraries(loader)? {
        archive.copy(library.to_string_lossy().trim_start_matches('/'), &library)?;
    }
    let init = format!(
        "#!/bin/busybox sh\n/bin/busybox mount -t proc proc /proc\n/bin/busybox mount -t sysfs sysfs /sys\n\
         /bin/busybox mount -t bpf bpf /sys/fs/bpf\n/bin/load /object 2>&1\necho \"{STATUS}$?\"\n/bin/busybox poweroff -f\n"
    );
    archive.file("init", 0o755, init.as_bytes());
    Ok(archive.finish())
}

/// The libraries of a program, and its loader, at their own paths.
pub fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let list = output(Command::new("ldd").arg(program))?;
    Ok(list.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}
