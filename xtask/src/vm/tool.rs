//! Programs that are called for what they print, and what a person sees of the waiting.

use std::io::{IsTerminal, Write, stderr};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs a program to its end; gives its standard output. Its failure is one line with its last words.
pub fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let done = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {program}"))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        let mut last: Vec<&str> = said.lines().rev().take(3).collect();
        last.reverse();
        bail!("{program} failed ({}): {}", done.status, last.join("; "));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// What is being done: one line on a terminal, which the next replaces; nothing where the output goes elsewhere.
pub struct Progress {
    prefix: String,
    shown: bool,
}

impl Progress {
    /// Whose progress it is.
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), shown: stderr().is_terminal() }
    }

    /// Tells what is being done now.
    pub fn tell(&self, what: &str) {
        if self.shown {
            // What cannot be shown is no failure of the work.
            let _ = write!(stderr(), "\r\x1b[K{}: {what}", self.prefix);
        }
    }

    /// Takes the line away.
    pub fn clear(&self) {
        if self.shown {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
