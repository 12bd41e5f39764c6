//! The signals that concern a container that is being run.

use std::future::poll_fn;
use std::task::Poll;

use nix::libc;
use tokio::signal::unix::{self, SignalKind};

use super::Failure;

/// A signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signal {
    /// As the Engine is told.
    pub(super) name: &'static str,
    /// Its number here.
    pub(super) number: i32,
    /// Whether it is meant to end what it is sent to.
    fatal: bool,
}

const fn signal(name: &'static str, number: i32, fatal: bool) -> Signal {
    Signal { name, number, fatal }
}

/// The terminal has another size.
pub(super) const WINDOW_CHANGED: Signal = signal("SIGWINCH", libc::SIGWINCH, false);

const ALL: [Signal; 8] = [
    signal("SIGINT", libc::SIGINT, true),
    signal("SIGTERM", libc::SIGTERM, true),
    signal("SIGHUP", libc::SIGHUP, true),
    signal("SIGQUIT", libc::SIGQUIT, true),
    signal("SIGUSR1", libc::SIGUSR1, false),
    signal("SIGUSR2", libc::SIGUSR2, false),
    signal("SIGALRM", libc::SIGALRM, false),
    WINDOW_CHANGED,
];

/// They end this process no more, from when this exists.
pub(super) struct Signals(Vec<(Signal, unix::Signal)>);

impl Signals {
    /// Begins to listen.
    pub(super) fn listen() -> Result<Self, Failure> {
        let listen = |signal: Signal| Ok((signal, unix::signal(SignalKind::from_raw(signal.number))?));
        let all = ALL.into_iter().map(listen).collect::<std::io::Result<_>>();
        Ok(Signals(all.map_err(|e| anyhow::Error::new(e).context("cannot listen for signals"))?))
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            let received = self.0.iter_mut().find_map(|(signal, stream)| match stream.poll_recv(context) {
                Poll::Ready(Some(())) => Some(*signal),
                _ => None,
            });
            received.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// The next one that is meant to end this process.
    pub(super) async fn next_fatal(&mut self) -> Signal {
        loop {
            let signal = self.next().await;
            if signal.fatal {
                return signal;
            }
        }
    }
}
