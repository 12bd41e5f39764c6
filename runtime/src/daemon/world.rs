//! What the daemon knows, and making the kernel agree with it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use anyhow::bail;
use runtime_api::wire::Answer;
use runtime_api::{DropEvent, FlowCount, MasqueradedBy, Refusal, Served, WaitServed};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::api::reply;
use super::closing::Closing;
use super::hosts_files::HostsWriter;
use super::live_file::LiveFile;
use super::lost::Lost;
use super::ports::HeldPorts;
use super::questions::Questions;
use super::relay::Relays;
use super::{Refresh, conntrack_import, send_collected};
use crate::datapath::{Collector, Datapath, DatapathError, Events};
use crate::host::{Host, Listener, NatRules, Netlink, read_nat, set_gro};
use crate::model::live::Live;
use crate::model::{Container, Publication, Snapshot};
use crate::reconcile::{self, Cache, Netfilter, Plan, plan};

/// Drops that are kept for people to look at.
const KEPT_DROPS: usize = 256;
/// After how many rounds of collection the host's rules for sources are read again.
const NAT_ROUNDS: u32 = 6;

/// Everything that the daemon knows.
pub struct World {
    pub(super) datapath: Datapath,
    pub(super) netlink: Netlink,
    pub(super) live: LiveFile,
    pub(super) options: reconcile::Options,
    pub(super) snapshot: Snapshot,
    /// What the engine has been asked and has not answered.
    pub(super) questions: Questions,
    pub(super) host: Host,
    /// The containers' processes that it was read with.
    sandboxes: BTreeMap<String, u32>,
    pub(super) plan: Plan,
    cache: Cache,
    hosts: HostsWriter,
    pub(super) engine_version: String,
    pub(super) engine_connected: bool,
    pub(super) held_ports: HeldPorts,
    pub(super) relays: Relays,
    pub(super) drops: VecDeque<DropEvent>,
    pub(super) flows: FlowCount,
    /// Who collects conversations that are over; none where none is at hand, or at work.
    collector: Option<Box<Collector>>,
    /// Whether one is at work.
    pub(super) collecting: bool,
    /// Rules of the host's firewall that redirected packets pass by, a line each.
    pub(super) firewall: Vec<String>,
    /// The kernel cannot close connections: their peers are not told.
    pub(super) cannot_tell: bool,
    /// Connections that this round of changes has ended.
    pub(super) closing: Closing,
    /// Peers of earlier rounds that are being told; whether the kernel can.
    pub(super) telling: JoinSet<bool>,
    /// What the host's own rules do with sources, and how long ago they were read, in rounds of collection.
    nat: Arc<NatRules>,
    nat_age: u32,
    /// Whether they could be read in full, once.
    nat_known: bool,
    /// Why not all of them could be read now.
    pub(super) nat_trouble: Vec<String>,
    /// Processes whose interfaces were made to poll.
    polling: BTreeSet<u32>,
    /// What the last reconciliation could not do.
    pub(super) errors: Vec<String>,
    /// Whether anything has happened that the kernel side may have to follow.
    pub(super) dirty: bool,
    /// Whether anything may have changed on the host.
    pub(super) stale: bool,
    /// Why the kernel side is not as it should be; none while it is.
    pub(super) refused: Option<String>,
    /// The live changes before those of this round: what to go back to where the kernel cannot take them.
    pub(super) before: Option<Live>,
    /// Answers to be given when what they tell of is in force.
    pub(super) changes: Vec<(Value, oneshot::Sender<Answer>)>,
    pub(super) waiting: Vec<Waiting>,
    /// What somebody had taken away.
    pub(super) lost: Lost,
    /// What this process may do and need not.
    pub(super) unconfined: Vec<String>,
}

/// Somebody waits for a container to be served.
pub(super) struct Waiting {
    pub container: String,
    /// Whether the engine has answered since: before, "does not run" may be yesterday's news.
    pub refreshed: bool,
    pub answer: oneshot::Sender<Answer>,
    /// Whether to wait until it is served, or only until it is known.
    pub served: bool,
}

impl World {
    /// With nothing known yet.
    pub fn new(
        datapath: Datapath,
        netlink: Netlink,
        live: LiveFile,
        options: reconcile::Options,
        engine_version: String,
    ) -> anyhow::Result<Self> {
        Ok(World {
            datapath,
            netlink,
            live,
            options,
            snapshot: Snapshot::default(),
            questions: Questions::default(),
            host: Host::default(),
            sandboxes: BTreeMap::new(),
            plan: Plan::default(),
            cache: Cache::default(),
            hosts: HostsWriter::default(),
            engine_version,
            engine_connected: true,
            held_ports: HeldPorts::default(),
            relays: Relays::default(),
            drops: VecDeque::new(),
            flows: FlowCount::default(),
            collector: None,
            collecting: false,
            firewall: Vec::new(),
            cannot_tell: false,
            closing: Closing::default(),
            telling: JoinSet::new(),
            nat: Arc::default(),
            nat_age: 0,
            nat_known: false,
            nat_trouble: Vec::new(),
            polling: BTreeSet::new(),
            errors: Vec::new(),
            dirty: true,
            stale: true,
            refused: None,
            before: None,
            changes: Vec::new(),
            waiting: Vec::new(),
            lost: Lost::default(),
            unconfined: Vec::new(),
        })
    }

    /// Serves what is there. What runs already goes on: drops begin when the conversations of before are known.
    pub async fn take_over(&mut self, snapshot: Snapshot) -> anyhow::Result<()> {
        self.set_snapshot(snapshot);
        let (rules, failed) = read_nat().await;
        self.heed_nat(rules, &failed);
        self.make_plan().await?;
        // Maps first: programs that find them empty would know nobody.
        self.datapath.apply(&self.plan.desired)?;
        self.datapath.end_orphans();
        self.collect_peers(&[]);
        self.tell_peers(Vec::new());
        if let Some(e) = self.datapath.attach(&self.plan.roles).into_iter().next() {
            return Err(e.into());
        }
        if !self.datapath.enforcing()? {
            self.datapath.seed(&conntrack_import::seeds(&self.plan, &self.snapshot, self.live.get()))?;
            self.datapath.enforce()?;
        }
        self.let_poll();
        self.write_hosts().await;
        self.hold_ports();
        self.relay_ports();
        Ok(())
    }

    /// The drops that the kernel tells of, to be awaited beside everything else.
    pub fn drop_events(&mut self) -> anyhow::Result<Events> {
        Ok(self.datapath.events()?)
    }

    /// Keeps drops for people to look at.
    pub fn report_drops(&mut self, found: Vec<DropEvent>, log: bool) {
        for event in found {
            if log {
                let interface = self.host.interfaces.get(&event.ifindex).map_or("?", |i| i.name.as_str());
                info!("dropped on {interface}: {event}");
            }
            if self.drops.len() == KEPT_DROPS {
                self.drops.pop_front();
            }
            self.drops.push_back(event);
        }
    }

    /// Collects flows that are over.
    pub(super) fn collect(&mut self, refresh: &Refresh<'_>) {
        // Whom a daemon that is killed has not told, the next one finds by their flows.
        if self.telling.is_empty() && !self.collecting {
            let collector = match self.collector.take() {
                Some(collector) => Ok(collector),
                None => self.datapath.collector().map(Box::new).map_err(anyhow::Error::from),
            };
            let begun = collector.and_then(|c| Ok(send_collected(refresh.inputs.clone(), c)?));
            self.collecting = begun.is_ok();
            if let Err(e) = begun {
                warn!("cannot collect conversations that are over: {e:#}");
            }
        }
        // Nobody tells of a firewall that is loaded anew.
        self.nat_age += 1;
        if self.nat_age >= NAT_ROUNDS {
            self.nat_age = 0;
            refresh.nat();
        }
    }

    /// Takes in what was collected, and keeps who did it for the next time.
    pub(super) fn heed_collected(&mut self, collector: Box<Collector>, result: Result<FlowCount, DatapathError>) {
        self.collecting = false;
        self.collector = Some(collector);
        match result {
            Ok(count) => self.flows = count,
            Err(e) => warn!("{e}"),
        }
    }

    /// Whether the datapath masquerades any network.
    pub(super) fn masquerades(&self) -> bool {
        self.plan.masquerade.values().any(|by| *by == MasqueradedBy::Runtime)
    }

    /// Takes in who masquerades. `failed`: why not all rules could be read; then what was known of them stays.
    pub(super) fn heed_nat(&mut self, rules: NatRules, failed: &[String]) {
        let known = self.nat_known;
        self.nat_known |= failed.is_empty();
        let nat = if failed.is_empty() || !known { rules } else { rules.and_earlier(&self.nat) };
        let line = |reason: &String| match known {
            true => {
                format!("{reason}. Who masquerades is taken to be as it was when the host's rules could be read last")
            }
            false => format!("{reason}. The host's rules are taken to masquerade, for they cannot be read in full"),
        };
        let trouble: Vec<String> = failed.iter().map(line).collect();
        for line in trouble.iter().filter(|l| !self.nat_trouble.contains(l)) {
            warn!("{line}");
        }
        self.nat_trouble = trouble;
        if nat != *self.nat {
            self.nat = nat.into();
            self.dirty = true;
        }
    }

    /// Makes the kernel, the hosts files and the held ports agree with what is known, and answers who waits for it.
    pub async fn reconcile(&mut self) {
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        self.errors.clear();
        let mut made = self.make_true().await;
        if made.is_ok() && self.before.is_some() {
            // The disk can take longer than all the rest. Nobody has been told yet that the change is made: a daemon that is
            // killed in between has not made it, and its successor takes back what the kernel was told of it.
            made = self.live.save();
        }
        self.refused = made.err().map(|e| format!("{e:#}"));
        if let (Some(refused), Some(before)) = (self.refused.clone(), self.before.take()) {
            // Nothing half-applied: back to what stood, which the kernel and the disk had room for.
            self.note(refused);
            self.live.set_unsaved(before);
            if let Err(e) = self.live.save() {
                self.note(format!("{e:#}"));
            }
            if let Err(e) = self.make_true().await {
                self.note(format!("{e:#}"));
            }
        } else if let Some(refused) = self.refused.clone() {
            self.note(refused);
        }
        self.before = None;
        let began = Instant::now();
        self.let_poll();
        self.write_hosts().await;
        let hosts = began.elapsed();
        self.hold_ports();
        self.relay_ports();
        debug!(?hosts, held = ?began.elapsed(), "the rest");
        self.answer_waiting();
    }

    async fn make_true(&mut self) -> anyhow::Result<()> {
        let before = self.plan.endpoints.clone();
        let began = Instant::now();
        self.make_plan().await?;
        let planned = began.elapsed();
        if let Some(line) = self.unfit_change() {
            bail!(line);
        }
        // Programs before map entries: an interface is closed before anybody may use it.
        let errors = self.datapath.attach(&self.plan.roles);
        let attached = began.elapsed();
        let applied = self.datapath.apply(&self.plan.desired);
        debug!(?planned, ?attached, applied = ?began.elapsed(), "the kernel is made to agree");
        self.collect_peers(&before);
        let ops = applied?;
        if ops != Default::default() {
            info!("maps: {} written, {} removed, {} rules ended", ops.written, ops.removed, ops.ended);
        }
        errors.into_iter().next().map_or(Ok(()), |e| Err(e.into()))
    }

    /// Why a live change is not to be made: there is no room for what its container would have then.
    fn unfit_change(&self) -> Option<String> {
        let before = self.before.as_ref()?;
        if self.plan.refused.is_empty() && self.plan.closed_links.is_empty() {
            return None;
        }
        let plan = plan(&self.snapshot, &self.host, before, &self.options, &mut Cache::default());
        let refused = self.plan.refused.iter().find(|(id, _)| !plan.refused.contains_key(*id));
        let closed = self.plan.closed_links.iter().find(|(id, _)| !plan.closed_links.contains_key(*id));
        refused.or(closed).map(|(_, line)| line.clone())
    }

    /// Puts live changes in force with the next reconciliation, and on disk.
    pub(super) fn set_live(&mut self, live: Live) {
        let before = self.live.get().clone();
        self.live.set_unsaved(live);
        self.before.get_or_insert(before);
    }

    /// Takes in what there is of firewall rules, and warns of those that are new.
    pub fn heed_firewall(&mut self, lines: Vec<String>) {
        if self.options.netfilter == Netfilter::Honor {
            return;
        }
        for line in lines.iter().filter(|l| !self.firewall.contains(l)) {
            warn!("{line}");
        }
        self.firewall = lines;
    }

    fn note(&mut self, problem: String) {
        warn!("{problem}");
        self.errors.push(problem);
    }

    async fn make_plan(&mut self) -> anyhow::Result<()> {
        let sandboxes: BTreeMap<String, u32> = self
            .snapshot
            .containers
            .values()
            .filter(|c| c.running && c.pid != 0)
            .map(|c| (c.id.clone(), c.pid))
            .collect();
        // Reading anew what is the same takes longer than most changes.
        if self.stale || sandboxes != self.sandboxes {
            self.host = self.netlink.read(&sandboxes, &self.host).await?;
            self.sandboxes = sandboxes;
            self.stale = false;
        }
        self.host.nat = self.nat.clone();
        let next = plan(&self.snapshot, &self.host, self.live.get(), &self.options, &mut self.cache);
        let refused = next.refused.iter().chain(&next.closed_links);
        for (_, line) in refused.filter(|(id, _)| !self.plan.refuses(id)) {
            warn!("{line}");
        }
        self.plan = next;
        Ok(())
    }

    /// Makes containers' interfaces poll where a driver redirects into them.
    fn let_poll(&mut self) {
        if !self.datapath.redirects_by_driver() {
            return;
        }
        let served = |c: &&Container| c.running && c.pid != 0 && self.plan.endpoints_of(&c.id).next().is_some();
        let pids: BTreeSet<u32> = self.snapshot.containers.values().filter(served).map(|c| c.pid).collect();
        self.polling.retain(|pid| pids.contains(pid));
        for pid in pids {
            if self.polling.insert(pid)
                && let Err(e) = set_gro(pid, true)
            {
                self.note(format!("GRO of process {pid}: {e}; frames that XDP redirects to it are lost"));
            }
        }
    }

    /// Undoes what is not in the pins.
    pub fn leave(&mut self) {
        for pid in std::mem::take(&mut self.polling) {
            // A container that is gone has no interface to set back.
            let _ = set_gro(pid, false);
        }
    }

    async fn write_hosts(&mut self) {
        for failure in self.hosts.write(&self.plan.hosts).await {
            self.note(failure);
        }
    }

    /// Holds the ports of live publications whose containers run.
    fn hold_ports(&mut self) {
        let containers = &self.snapshot.containers;
        let running = |id: &str| containers.get(id).is_some_and(|c| c.running);
        let live = self.live.get().publications.iter().filter(|p| running(&p.container));
        let wanted = live.map(|p| p.publication.clone()).collect();
        let engine_has = |p: &Publication| containers.values().any(|c| c.publications.contains(p));
        let (released, trouble) = self.held_ports.hold(wanted, self.relays.descriptors(), engine_has);
        self.closing.held_ports.extend(released);
        if let Some(reason) = trouble {
            self.note(format!("{reason}: served all the same, but not held against programs of the host"));
        }
    }

    /// Relays what no packet can be rewritten for.
    fn relay_ports(&mut self) {
        let held = |protocol, port| self.held_ports.has(protocol, port);
        self.relays.want(&self.plan.relays, &mut self.datapath, held);
    }

    /// Takes in who listens on the host's ports.
    pub(super) fn heed_listeners(&mut self, found: BTreeSet<Listener>) {
        let held = |protocol, port| self.held_ports.has(protocol, port);
        self.relays.heed(found, &mut self.datapath, held);
    }

    fn answer_waiting(&mut self) {
        let mut of_changes = Vec::new();
        for (value, answer) in self.changes.drain(..) {
            if value["changed"] != true {
                let _ = answer.send(Ok(value));
                continue;
            }
            of_changes.push((self.refused.as_ref().map_or(Ok(value), |e| Err(Refusal::failed(e))), answer));
        }
        self.tell_peers(of_changes);
        let waiting = std::mem::take(&mut self.waiting);
        for w in waiting {
            match self.verdict_on(&w) {
                Some(verdict) => {
                    let _ = w.answer.send(reply::<WaitServed>(verdict));
                }
                None => self.waiting.push(w),
            }
        }
    }

    fn verdict_on(&self, w: &Waiting) -> Option<Result<Served, Refusal>> {
        if w.answer.is_closed() {
            return Some(Ok(Served { served: false }));
        }
        if !w.refreshed {
            return None;
        }
        let Some(container) = self.snapshot.containers.get(&w.container) else {
            return Some(Err(Refusal::failed(format!("no such container: {}", w.container))));
        };
        if !w.served || !container.running {
            return Some(Ok(Served { served: false }));
        }
        if let Some(e) = self.plan.refused.get(&container.id).or(self.refused.as_ref()) {
            return Some(Err(Refusal::failed(e)));
        }
        self.plan.serves(container, &self.snapshot).then_some(Ok(Served { served: true }))
    }
}
