//! A terminal or a pipe on this side, a container's process on the other.

use std::io::{IsTerminal, Write};

use rustix::termios::{self, OptionalActions, Termios};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use super::Failure;
use super::signals::{Signals, WINDOW_CHANGED};
use crate::engine::docker::{Connection, DockerEngine};

/// Docker's default keys to leave a container with a terminal alone: Ctrl-P, Ctrl-Q.
const DETACH_KEYS: [u8; 2] = [0x10, 0x11];
/// The stream of a frame's head that is not for stdout.
const STDERR: u8 = 2;

/// How a foreground run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The container closed its output.
    Closed,
    /// The user left it running.
    Detached,
}

/// A container's output, and its input where it has one.
pub(super) struct Attachment {
    output: ReadHalf<Connection>,
    input: Option<WriteHalf<Connection>>,
}

impl Attachment {
    /// Attaches to a container that has not started yet.
    pub(super) async fn open(engine: &DockerEngine, id: &str, stdin: bool) -> Result<Self, Failure> {
        let (output, input) = tokio::io::split(engine.attach(id, stdin).await?);
        Ok(Attachment { output, input: stdin.then_some(input) })
    }

    /// Copies both ways until the output ends, passing signals on, and the terminal's size.
    pub(super) async fn copy(
        self,
        engine: &DockerEngine,
        id: &str,
        tty: bool,
        mut signals: Signals,
    ) -> Result<Ended, Failure> {
        let raw = match &self.input {
            Some(_) if tty => RawTerminal::enter()?,
            _ => None,
        };
        let mut input = std::pin::pin!(async {
            match self.input {
                Some(input) => copy_input(input, tty).await,
                None => std::future::pending().await,
            }
        });
        let mut output = std::pin::pin!(copy_output(self.output, tty, std::io::stdout(), std::io::stderr()));
        if tty {
            resize(engine, id).await;
        }
        let ended = loop {
            tokio::select! {
                result = &mut output => break result.map(|()| Ended::Closed),
                () = &mut input => break Ok(Ended::Detached),
                signal = signals.next() => match signal {
                    WINDOW_CHANGED if tty => resize(engine, id).await,
                    WINDOW_CHANGED => {}
                    // The container may be gone by now.
                    signal => { let _ = engine.kill(id, signal.name).await; }
                },
            }
        };
        drop(raw);
        ended
    }
}

/// Copies this process's input; returns only when the user detaches.
async fn copy_input(mut input: WriteHalf<Connection>, tty: bool) {
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; 32 * 1024];
    let mut last = 0;
    loop {
        let read = match stdin.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(read) => buffer.get(..read).unwrap_or_default(),
        };
        if tty {
            for byte in read {
                if [last, *byte] == DETACH_KEYS {
                    return;
                }
                last = *byte;
            }
        }
        if input.write_all(read).await.is_err() || input.flush().await.is_err() {
            break;
        }
    }
    // The end of its input, for a process that reads to the end. A container that is gone needs none.
    let _ = input.shutdown().await;
    std::future::pending().await
}

/// Copies a container's output: as it is from a terminal, else by the frames that the Engine packs both streams into.
async fn copy_output(
    mut output: impl AsyncRead + Unpin,
    tty: bool,
    mut out: impl Write,
    mut err: impl Write,
) -> Result<(), Failure> {
    let lost = |e: std::io::Error| anyhow::Error::new(e).context("the container's output is cut off");
    let mut buffer = vec![0; 32 * 1024];
    if tty {
        loop {
            let read = output.read(&mut buffer).await.map_err(lost)?;
            if read == 0 {
                return Ok(());
            }
            write(&mut out, buffer.get(..read).unwrap_or_default())?;
        }
    }
    loop {
        let mut head = [0; 8];
        match output.read_exact(&mut head).await {
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(e) => return Err(lost(e).into()),
        }
        let [stream, _, _, _, length @ ..] = head;
        let mut frame = (&mut output).take(u32::from_be_bytes(length).into());
        loop {
            let read = frame.read(&mut buffer).await.map_err(lost)?;
            let bytes = buffer.get(..read).unwrap_or_default();
            match (read, stream) {
                (0, _) => break,
                (_, STDERR) => write(&mut err, bytes)?,
                _ => write(&mut out, bytes)?,
            }
        }
    }
}

/// A reader that has gone away does not end the container.
fn write(mut out: impl Write, bytes: &[u8]) -> Result<(), Failure> {
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(e).context("cannot write the container's output").into())
        }
        _ => Ok(()),
    }
}

async fn resize(engine: &DockerEngine, id: &str) {
    if let Ok(size) = termios::tcgetwinsize(std::io::stdout()) {
        // A container that has just exited has no terminal.
        let _ = engine.resize(id, size.ws_row, size.ws_col).await;
    }
}

/// The terminal handed through byte by byte, until this is dropped.
struct RawTerminal(Termios);

impl RawTerminal {
    /// Nothing where the input is no terminal.
    fn enter() -> Result<Option<Self>, Failure> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let fail = |e: rustix::io::Errno| anyhow::Error::new(e).context("cannot set the terminal");
        let before = termios::tcgetattr(&stdin).map_err(fail)?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(&stdin, OptionalActions::Flush, &raw).map_err(fail)?;
        Ok(Some(RawTerminal(before)))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Drain, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What reaches stdout and stderr of bytes that arrive in pieces of the given size.
    async fn copied(bytes: &[u8], piece: usize, tty: bool) -> (Vec<u8>, Vec<u8>) {
        let (mut engine, here) = tokio::io::duplex(piece);
        let bytes = bytes.to_vec();
        let sender = tokio::spawn(async move { engine.write_all(&bytes).await.unwrap() });
        let (mut out, mut err) = (Vec::new(), Vec::new());
        copy_output(here, tty, &mut out, &mut err).await.unwrap();
        sender.await.unwrap();
        (out, err)
    }

    #[tokio::test]
    async fn frames_are_taken_apart() {
        let frames = b"\x01\0\0\0\0\0\0\x03out\x02\0\0\0\0\0\0\x04err\n\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\x01!";
        for piece in [1, 3, 1024] {
            assert_eq!(copied(frames, piece, false).await, (b"out!".to_vec(), b"err\n".to_vec()));
        }
    }

    #[tokio::test]
    async fn a_terminal_is_passed_through() {
        let bytes = b"\x01\0\0\0\0\0\0\x03out";
        assert_eq!(copied(bytes, 4, true).await, (bytes.to_vec(), Vec::new()));
    }
}
