//! Telling the peers of connections whose publication, link or container is gone.

use std::collections::{BTreeMap, HashMap};
use std::io::ErrorKind;
use std::net::IpAddr;

use tracing::{info, warn};

use super::world::World;
use crate::host::{End, close_connections, close_sockets};
use crate::reconcile::EndpointPlan;

/// What `status` says where the kernel lacks it.
pub(super) const UNSUPPORTED: &str = "this kernel cannot close connections of others (CONFIG_INET_DIAG_DESTROY is not set): \
     the peers of what is taken away are not told, and wait until they time out";

impl World {
    /// Closes the host's own sockets whose publications are gone: a UDP socket that is connected would send to nobody.
    fn tell_host_sockets(&mut self) {
        let sockets = self.datapath.take_ended_sockets();
        if sockets.is_empty() {
            return;
        }
        match close_sockets(&sockets) {
            Ok(0) => {}
            Ok(n) => info!("{n} sockets of the host closed: their publications are gone"),
            Err(e) if e.kind() == ErrorKind::Unsupported => self.cannot_tell = true,
            Err(e) => warn!("sockets of the host: {e}"),
        }
    }

    /// Closes the containers' ends of the connections whose rules have ended: each program finds its connection aborted,
    /// and the kernel sends the other end a RST. `before` are the endpoints as they were while the rules stood.
    pub(super) fn tell_peers(&mut self, before: &[EndpointPlan]) {
        let ended = self.datapath.take_ended();
        self.tell_host_sockets();
        if ended.is_empty() {
            return;
        }
        let running = |e: &EndpointPlan| {
            self.snapshot.containers.get(&e.container).filter(|c| c.running && c.pid != 0).map(|c| c.pid)
        };
        let whose: HashMap<IpAddr, u32> = before
            .iter()
            .chain(&self.plan.endpoints)
            .filter_map(|e| Some((e, running(e)?)))
            .flat_map(|(e, pid)| e.addresses().map(move |a| (a, pid)))
            .collect();
        let mut by_process: BTreeMap<u32, HashMap<End, bool>> = BTreeMap::new();
        for peer in ended {
            // What ran there is gone, and the kernel ended its connections with it.
            let Some(pid) = whose.get(&peer.local.ip()) else { continue };
            by_process.entry(*pid).or_default().insert((peer.local, peer.remote), peer.both);
        }
        let mut closed = 0;
        for (pid, ends) in by_process {
            match close_connections(pid, ends) {
                Ok(n) => closed += n,
                Err(e) if e.kind() == ErrorKind::Unsupported => self.cannot_tell = true,
                // Gone meanwhile.
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => warn!("connections of process {pid}: {e}"),
            }
        }
        if closed > 0 {
            info!("{closed} connections closed: their rules are gone");
        }
    }
}
