//! Why a request was not answered as wished.

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A refusal: one line, and the exit status for a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// One line.
    pub message: String,
    /// 1: it failed. 2: bad input.
    #[serde(default = "failed")]
    pub status: u8,
}

const fn failed() -> u8 {
    1
}

impl Refusal {
    /// The operation failed.
    pub fn failed(message: impl ToString) -> Self {
        Refusal { message: message.to_string(), status: failed() }
    }

    /// The input was bad.
    pub fn usage(message: impl ToString) -> Self {
        Refusal { message: message.to_string(), status: 2 }
    }
}

/// Why a client has no reply.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing listens on the socket.
    #[error("the datapath is not up: start it with \"sudo runtime up\"")]
    NotUp,
    /// It listens, and the connection failed.
    #[error("the daemon at {socket} does not answer: {source}")]
    Io {
        /// Its socket.
        socket: String,
        /// What went wrong.
        source: io::Error,
    },
    /// It closed the connection without a reply.
    #[error("the daemon at {socket} does not answer: it closed the connection")]
    Closed {
        /// Its socket.
        socket: String,
    },
    /// It took too long.
    #[error("the daemon at {socket} does not answer: nothing within {} s", .patience.as_secs())]
    TimedOut {
        /// Its socket.
        socket: String,
        /// For how long it was waited.
        patience: Duration,
    },
    /// What it answered is no reply to this request.
    #[error("the daemon at {socket} does not answer: its answer cannot be read: {source}")]
    Unreadable {
        /// Its socket.
        socket: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It refused; its own words.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Error {
    /// Of a connection that failed: a killed daemon leaves its socket behind.
    pub(crate) fn io(socket: &std::path::Path, source: io::Error, patience: Duration) -> Self {
        let socket = socket.display().to_string();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Error::NotUp,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::TimedOut { socket, patience },
            _ => Error::Io { socket, source },
        }
    }
}
