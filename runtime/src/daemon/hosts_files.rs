//! Recipients' /etc/hosts: changed in place, for the file is mounted into the container and must stay the same one.
//!
//! The container can write to it, and make it as large as it likes: no more than so much is ever read.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use nix::libc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use crate::failpoint;
use crate::model::hosts::update_hosts;
use crate::reconcile::HostsPlan;

/// The longest file that is looked into, in bytes: a container may write to its own as it likes.
const LONGEST: u64 = 1 << 20;
/// How long changes wait for the files.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is known of recipients' files: one that says what it should is read again when it has changed.
#[derive(Default)]
struct HostsFiles {
    known: HashMap<PathBuf, (HostsPlan, Stamp)>,
}

/// By what a file is known to be as it was.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    length: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// None where a further change could bear the same time.
    fn of(path: &Path) -> Option<Stamp> {
        let m = std::fs::symlink_metadata(path).ok()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs() as i64;
        let stamp = Stamp { file: (m.dev(), m.ino()), length: m.len(), changed: (m.ctime(), m.ctime_nsec()) };
        (m.ctime() + 1 < now).then_some(stamp)
    }
}

impl HostsFiles {
    /// Makes every recipient's file say what its links want; returns what could not be done.
    fn write(&mut self, plans: &[HostsPlan]) -> Vec<String> {
        let mut failures = Vec::new();
        let mut known = HashMap::new();
        for plan in plans {
            // Before it is read: a change from then on makes another stamp.
            let stamp = Stamp::of(&plan.path);
            if let Some(before) = self.known.remove(&plan.path).filter(|(p, s)| p == plan && Some(*s) == stamp) {
                known.insert(plan.path.clone(), before);
                continue;
            }
            match write(plan) {
                Ok(true) => {}
                Ok(false) => known.extend(stamp.map(|stamp| (plan.path.clone(), (plan.clone(), stamp)))),
                Err(e) => failures.push(format!("{e:#}")),
            }
        }
        self.known = known;
        failures
    }
}

/// Writes recipients' files beside the loop: what a container does with its own is not to hold anybody else up.
#[derive(Default)]
pub struct HostsWriter {
    files: Arc<Mutex<HostsFiles>>,
    /// An earlier round that has not come to its end.
    pending: Option<JoinHandle<Vec<String>>>,
}

impl HostsWriter {
    /// Makes every recipient's file say what its links want; returns what could not be done. Waits for that a moment; where
    /// it takes longer, it goes on by itself, and nothing more is written before it is done.
    pub async fn write(&mut self, plans: &[HostsPlan]) -> Vec<String> {
        let slow = || vec![format!("files of /etc/hosts are not written within {} s", PATIENCE.as_secs())];
        if let Some(pending) = self.pending.as_mut().filter(|pending| !pending.is_finished())
            && timeout(PATIENCE, pending).await.is_err()
        {
            return slow();
        }
        let (files, plans) = (Arc::clone(&self.files), plans.to_vec());
        let round = move || files.lock().map_or_else(|e| e.into_inner().write(&plans), |mut files| files.write(&plans));
        let mut round = spawn_blocking(round);
        match timeout(PATIENCE, &mut round).await {
            Ok(written) => {
                self.pending = None;
                written.unwrap_or_else(|e| vec![format!("files of /etc/hosts: {e}")])
            }
            Err(_) => {
                self.pending = Some(round);
                slow()
            }
        }
    }
}

/// Makes a recipient's file say what its links want. True where it had to be changed.
fn write(plan: &HostsPlan) -> anyhow::Result<bool> {
    let context = || format!("cannot update {}", plan.path.display());
    // Opened for both, a FIFO does not wait for its other end; what a symbolic link leads to is no business of a container's.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(&plan.path);
    let mut file = file.with_context(context)?;
    let told = file.metadata().with_context(context)?;
    if !told.is_file() {
        bail!("{}: it is no ordinary file: lines of links cannot be written", context());
    }
    let mut contents = Vec::new();
    (&mut file).take(LONGEST + 1).read_to_end(&mut contents).with_context(context)?;
    if contents.len() as u64 > LONGEST {
        bail!(
            "{}: it has {} bytes, of {LONGEST} at most: lines of links are not written before the container has made it smaller",
            context(),
            told.len()
        );
    }
    let Some(new) = update_hosts(&contents, &plan.entries, &plan.removed) else {
        return Ok(false);
    };
    // Shorter text last loses its tail: readers see old or new lines, never half of one.
    failpoint::step();
    file.rewind().with_context(context)?;
    file.write_all(&new).with_context(context)?;
    failpoint::step();
    file.set_len(new.len() as u64).with_context(context)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::mpsc::channel;
    use std::time::Instant;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;
    use crate::model::hosts::HostsEntry;

    #[test]
    fn a_file_that_somebody_else_writes_anew_is_put_right_again() {
        let path = std::env::temp_dir().join(format!("runtime-hosts-{}", std::process::id()));
        let entry = HostsEntry { address: "172.17.0.2".parse().unwrap(), names: vec!["webdb".into()] };
        let plan = HostsPlan { container: "web".into(), path: path.clone(), entries: vec![entry], removed: vec![] };
        let mut files = HostsFiles::default();
        fs::write(&path, "127.0.0.1\tlocalhost\n").unwrap();
        let right = |files: &mut HostsFiles| {
            assert_eq!(files.write(std::slice::from_ref(&plan)), Vec::<String>::new());
            fs::read_to_string(&path).unwrap().contains("172.17.0.2\twebdb")
        };
        assert!(right(&mut files));
        // Until it is known by a stamp that no later change can bear.
        while files.known.is_empty() {
            std::thread::sleep(Duration::from_millis(100));
            assert!(right(&mut files));
        }
        assert!(right(&mut files));
        // As the engine does at a start: the same length, for all that is known.
        let longer = fs::read_to_string(&path).unwrap().len();
        fs::write(&path, "#".repeat(longer - 1) + "\n").unwrap();
        assert!(right(&mut files));
        fs::remove_file(&path).unwrap();
        assert_eq!(files.write(std::slice::from_ref(&plan)).len(), 1);
    }

    fn plan_of(path: &Path) -> HostsPlan {
        let entry = HostsEntry { address: "172.17.0.2".parse().unwrap(), names: vec!["webdb".into()] };
        HostsPlan { container: "web".into(), path: path.to_owned(), entries: vec![entry], removed: vec![] }
    }

    #[test]
    fn what_is_no_file_of_a_sensible_size_is_refused_at_once() {
        let folder = std::env::temp_dir().join(format!("runtime-hostile-hosts-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let at = |name: &str| folder.join(name);
        fs::File::create(at("large")).unwrap().set_len(3 << 30).unwrap();
        fs::write(at("fits"), vec![b'#'; LONGEST as usize]).unwrap();
        fs::write(at("target"), "127.0.0.1\tlocalhost\n").unwrap();
        symlink(at("target"), at("link")).unwrap();
        mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
        fs::create_dir(at("folder")).unwrap();
        let mut files = HostsFiles::default();
        let began = Instant::now();
        for (name, reason) in [
            ("large", "3221225472 bytes"),
            ("fifo", "no ordinary file"),
            ("link", "cannot update"),
            ("folder", "cannot update"),
            ("gone", "cannot update"),
        ] {
            let failures = files.write(&[plan_of(&at(name))]);
            assert!(failures.len() == 1 && failures[0].contains(reason), "{name}: {failures:?}");
        }
        let failures = files.write(&[plan_of(Path::new("/dev/zero"))]);
        assert!(failures.len() == 1 && failures[0].contains("no ordinary file"), "{failures:?}");
        // A FIFO's other end is never opened: who waited for it would wait for ever.
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
        assert_eq!(files.write(&[plan_of(&at("fits"))]), Vec::<String>::new());
        assert_eq!(fs::read_to_string(at("target")).unwrap(), "127.0.0.1\tlocalhost\n");
        assert_eq!(fs::metadata(at("large")).unwrap().len(), 3 << 30);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn a_file_that_takes_long_holds_nobody_up() {
        let mut writer = HostsWriter::default();
        let files = Arc::clone(&writer.files);
        let ((locked, is_locked), (done, is_done)) = (channel(), channel::<()>());
        let holder = std::thread::spawn(move || {
            let _held = files.lock().unwrap();
            locked.send(()).unwrap();
            let _ = is_done.recv();
        });
        is_locked.recv().unwrap();
        let began = Instant::now();
        assert_eq!(writer.write(&[]).await.len(), 1);
        assert_eq!(writer.write(&[]).await.len(), 1, "no second one beside the first");
        // The lock is held until this is over: who waited for it would wait for ever.
        assert!(began.elapsed() < 30 * PATIENCE, "{:?}", began.elapsed());
        drop(done);
        holder.join().unwrap();
        assert_eq!(writer.write(&[]).await, Vec::<String>::new());
    }
}
