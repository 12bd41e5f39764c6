//! Telling the peers of connections whose publication, link or container is gone.
//!
//! The kernel is asked to close one connection at a time, and there can be thousands: that is done beside the loop. What
//! has ended is over before it begins, for the rules are gone; the command that took them away is answered when it is done.

use std::collections::{BTreeMap, HashMap};
use std::io::ErrorKind;
use std::net::IpAddr;

use tokio::sync::oneshot;
use tracing::warn;

use super::world::World;
use crate::datapath::EndedPeer;
use crate::host::{End, namespace_of};
use crate::reconcile::EndpointPlan;
use runtime_api::wire::Answer;

/// What `status` says where the kernel lacks it.
pub(super) const UNSUPPORTED: &str = "this kernel cannot close connections of others (CONFIG_INET_DIAG_DESTROY is not set): \
     the peers of what is taken away are not told, and wait until they time out";

impl World {
    /// Collects what is to be closed, as the rules that have just ended say. `before` are the endpoints as they were while
    /// the rules stood.
    pub(super) fn collect_peers(&mut self, before: &[EndpointPlan]) {
        let ended = self.datapath.take_ended();
        match self.datapath.take_ended_sockets() {
            Ok(sockets) => self.closing.sockets.extend(sockets),
            Err(e) => warn!("sockets of the host: {e}"),
        }
        for (pid, ends) in self.by_process(before, ended) {
            match namespace_of(pid) {
                Ok(namespace) => self.closing.connections.push((namespace, ends)),
                // Gone meanwhile, and its connections with it.
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => warn!("namespace of process {pid}: {e}"),
            }
        }
    }

    /// The ends of these connections by the containers' processes that have them.
    fn by_process(&self, before: &[EndpointPlan], ended: Vec<EndedPeer>) -> BTreeMap<u32, HashMap<End, bool>> {
        let mut found: BTreeMap<u32, HashMap<End, bool>> = BTreeMap::new();
        if ended.is_empty() {
            return found;
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
        for peer in ended {
            // What ran there is gone, and the kernel ended its connections with it.
            let Some(pid) = whose.get(&peer.local.ip()) else { continue };
            found.entry(*pid).or_default().insert((peer.local, peer.remote), peer.both);
        }
        found
    }

    /// Closes beside the loop what was collected, then gives these answers.
    pub(super) fn tell_peers(&mut self, answers: Vec<(Answer, oneshot::Sender<Answer>)>) {
        let closing = std::mem::take(&mut self.closing);
        let answer_all = move || {
            for (answer, to) in answers {
                let _ = to.send(answer);
            }
        };
        if closing.connections.is_empty() && closing.sockets.is_empty() && closing.held_ports.is_empty() {
            return answer_all();
        }
        self.telling.spawn_blocking(move || {
            let able = closing.carry_out();
            answer_all();
            able
        });
    }

    /// Waits until the peers of one round of changes are told; for ever where none are being told.
    pub(super) async fn peers_told(&mut self) {
        let able = match self.telling.join_next().await {
            Some(Ok(able)) => able,
            Some(Err(e)) => return warn!("telling peers: {e}"),
            None => std::future::pending().await,
        };
        self.cannot_tell |= !able;
    }

    /// Waits until all peers are told.
    pub(super) async fn all_peers_told(&mut self) {
        while !self.telling.is_empty() {
            self.peers_told().await;
        }
    }
}
