//! A client for programs that wait.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::{Call, Error, SOCKET_NAME, wire};

/// The way to the daemon. Each request is a connection of its own.
#[derive(Clone, Debug)]
pub struct BlockingClient {
    socket: PathBuf,
}

impl BlockingClient {
    /// The daemon that keeps its socket in this directory.
    pub fn new(run_dir: impl AsRef<Path>) -> Self {
        BlockingClient { socket: run_dir.as_ref().join(SOCKET_NAME) }
    }

    /// Sends a request and returns what the daemon answers to it.
    ///
    /// # Errors
    /// [`Error::NotUp`] where nothing listens, [`Error::Refused`] where the daemon says no.
    pub fn call<C: Call>(&self, call: C) -> Result<C::Reply, Error> {
        let name = || self.socket.display().to_string();
        let unreadable = |source| Error::Unreadable { socket: name(), source };
        let request = wire::request_line(&call.into()).map_err(unreadable)?;
        let mut answer = String::new();
        let read = self.exchange::<C>(&request, &mut answer).map_err(|e| Error::io(&self.socket, e, C::PATIENCE))?;
        if read == 0 {
            return Err(Error::Closed { socket: name() });
        }
        Ok(wire::read_answer::<C>(&answer).map_err(unreadable)??)
    }

    fn exchange<C: Call>(&self, request: &str, answer: &mut String) -> std::io::Result<usize> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(C::PATIENCE))?;
        stream.set_write_timeout(Some(C::PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        BufReader::new(stream).read_line(answer)
    }
}
