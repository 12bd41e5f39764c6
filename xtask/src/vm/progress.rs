//! What a person sees of the waiting.

use std::io::{IsTerminal, Write, stderr};

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

    /// As [`Progress::tell`], of what takes long: also where the output goes elsewhere, a line each.
    pub fn note(&self, what: &str) {
        self.tell(what);
        if !self.shown {
            let _ = writeln!(stderr(), "{}: {what}", self.prefix);
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
