//! Running programs: to their end with a limit, or in the background until dropped.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::wait_for;

/// How long a program may take before it is killed and the test fails.
const LIMIT: Duration = Duration::from_secs(60);

/// What a program did.
#[must_use = "nothing is asserted unless its status is looked at: `ok()`, `fails(status)`, `success()`"]
#[derive(Debug)]
pub struct Done {
    /// The command line, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Done {
    /// Whether it exited with status 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// Its standard output without white space around it.
    ///
    /// # Panics
    /// When it failed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.success(), "{self}");
        self.stdout.trim().to_owned()
    }

    /// Its standard error without white space around it.
    ///
    /// # Panics
    /// When it did not exit with `status`.
    #[track_caller]
    pub fn fails(self, status: i32) -> String {
        assert_eq!(self.status.code(), Some(status), "{self}");
        self.stderr.trim().to_owned()
    }

    fn into_result(self) -> Result<String> {
        if !self.success() {
            bail!("{self}");
        }
        Ok(self.stdout.trim().to_owned())
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.command, self.status)?;
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.trim().is_empty() {
                write!(f, "\n--- {name}\n{}", text.trim_end())?;
            }
        }
        Ok(())
    }
}

/// Runs a program to its end. Output goes to memory, so that a daemon which keeps it open delays nothing.
pub(crate) fn run(command: &mut Command) -> Result<Done> {
    let line = describe(command);
    let (mut out, mut err) = (memory(c"stdout")?, memory(c"stderr")?);
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(err.try_clone()?);
    let mut child = command.spawn().with_context(|| format!("cannot run {line}"))?;
    let Some(status) = wait_for(LIMIT, || child.try_wait().transpose()) else {
        child.kill()?;
        child.wait()?;
        bail!("{line}: killed, it did not end within {LIMIT:?}\n{}{}", text(&mut out)?, text(&mut err)?);
    };
    Ok(Done { command: line, status: status?, stdout: text(&mut out)?, stderr: text(&mut err)? })
}

/// Runs a program that must succeed; gives its trimmed standard output.
pub(crate) fn must(command: &mut Command) -> Result<String> {
    run(command)?.into_result()
}

/// A command from its words; the first is the program.
pub(crate) fn command(words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut words = words.into_iter();
    let mut command = match words.next() {
        Some(program) => Command::new(program),
        None => panic!("a command needs at least a program"),
    };
    command.args(words);
    command
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn memory(name: &CStr) -> Result<File> {
    let fd: OwnedFd = memfd_create(name, MFdFlags::MFD_CLOEXEC).context("memfd_create")?;
    Ok(fd.into())
}

fn text(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A program in the background; killed when dropped.
#[derive(Debug)]
pub struct Background {
    child: Child,
    log: PathBuf,
    line: String,
}

impl Background {
    /// Starts a program whose output goes to the file `log`, after what is already there.
    pub(crate) fn start(mut command: Command, log: &Path) -> Result<Self> {
        let line = describe(&command);
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot open {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot run {line}"))?;
        Ok(Background { child, log: log.to_owned(), line })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, once it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// What it has written so far.
    pub fn output(&self) -> String {
        std::fs::read(&self.log).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        // It may have ended by itself a moment ago.
        let _ = kill(Pid::from_raw(self.child.id() as i32), signal);
    }

    /// Sends SIGTERM and waits for the end; `None` when it takes longer than `limit`.
    pub fn terminate(&mut self, limit: Duration) -> Option<ExitStatus> {
        self.signal(Signal::SIGTERM);
        wait_for(limit, || self.ended())
    }

    /// Kills it without a chance to tidy up, as `kill -9` does.
    pub fn kill(&mut self) {
        // Both fail only where it has been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The command line, for messages.
    pub fn command(&self) -> &str {
        &self.line
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.kill();
    }
}
