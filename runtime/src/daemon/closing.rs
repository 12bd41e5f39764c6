//! Connections and sockets of what has ended, closed one at a time.

use std::collections::HashMap;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;

use tracing::{info, warn};

use crate::datapath::EndedSockets;
use crate::host::{End, close_connections, close_datagrams, close_stored};

/// Connections and sockets that are to be closed.
#[derive(Default)]
pub(super) struct Closing {
    /// In containers: their namespaces, and the ends there.
    pub connections: Vec<(File, HashMap<End, bool>)>,
    /// The host's own: a connected UDP socket would send to nobody.
    pub sockets: Vec<EndedSockets>,
    /// The daemon's own, which held the ports of what is gone: closing ten thousand takes its time as well.
    pub held_ports: Vec<OwnedFd>,
}

impl Closing {
    /// Closes all of it. Whether the kernel can.
    pub fn carry_out(self) -> bool {
        let mut able = true;
        let mut heed = |what: &str, result: std::io::Result<usize>| match result {
            Ok(0) => {}
            Ok(n) => info!("{n} {what} closed: their rules are gone"),
            Err(e) if e.kind() == ErrorKind::Unsupported => able = false,
            Err(e) => warn!("{what}: {e}"),
        };
        for (namespace, ends) in self.connections {
            heed("connections", close_connections(namespace, ends));
        }
        for sockets in self.sockets {
            heed("sockets of the host", close_stored(sockets.map(), |peer, value| sockets.has(peer, value)));
            if !sockets.datagrams().is_empty() {
                heed("UDP sockets of the host", close_datagrams(sockets.datagrams()));
            }
        }
        able
    }
}
