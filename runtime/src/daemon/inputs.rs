//! What the daemon hears: of the engine, of the host, and from the command line.

use runtime_api::wire::Answer;
use runtime_api::{Call, Pong, Prepare, Publish, Refusal, Request, Unlink, Unpublish, WaitServed};
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::api::reply;
use super::link_tracking::keep_links;
use super::world::{Waiting, World};
use super::{Input, Refresh};
use crate::engine::{Change, EngineError, Event};
use crate::model::{Container, Network, Snapshot};
use crate::reconcile::swarm;

impl World {
    /// Takes in what happened; `reconcile` is to follow. Returns the answer to be given when the daemon is to end.
    pub(super) fn handle(&mut self, input: Input, refresh: &mut Refresh<'_>) -> Option<oneshot::Sender<Answer>> {
        // An event of the engine matters by what it has asked anew, and by what it ends.
        self.dirty |= !matches!(
            input,
            Input::Engine(_) | Input::Firewall(_) | Input::Nat(..) | Input::Listeners(_) | Input::Collected(..)
        );
        self.stale |= match &input {
            Input::Request(request, _) => !request.is_change(),
            Input::Firewall(_) | Input::Nat(..) | Input::Listeners(_) | Input::Collected(..) => false,
            _ => true,
        };
        match input {
            Input::Engine(event) => self.on_event(event, refresh),
            Input::EngineGone => {
                self.engine_connected = false;
                warn!("the engine is away: what it last said stays in force");
            }
            Input::EngineBack(snapshot, version) => {
                info!("the engine is back");
                self.engine_connected = true;
                self.engine_version = version;
                self.set_snapshot(*snapshot);
            }
            Input::Container(id, result) => self.on_container(&id, result, refresh),
            Input::Network(id, result) => {
                let outdated = self.questions.answered(&id);
                match result {
                    Ok(network) => self.on_network(*network, refresh),
                    Err(EngineError::NotFound { .. }) => {
                        self.snapshot.networks.remove(&id);
                    }
                    Err(e) => warn!("network {id}: {e}"),
                }
                if outdated {
                    self.ask_network(&id, refresh);
                }
            }
            Input::Host => {}
            Input::Firewall(lines) => self.heed_firewall(lines),
            Input::Nat(rules, failed) => self.heed_nat(rules, &failed),
            Input::Collected(collector, result) => self.heed_collected(collector, result),
            Input::Listeners(found) => self.heed_listeners(found),
            Input::Request(request, answer) => return self.on_request(request, answer, refresh),
        }
        None
    }

    pub(super) fn set_snapshot(&mut self, mut snapshot: Snapshot) {
        for known in self.snapshot.containers.values() {
            if let Some(mut container) = snapshot.containers.remove(&known.id) {
                keep_links(known, &mut container, &snapshot);
                snapshot.containers.insert(container.id.clone(), container);
            }
        }
        self.snapshot = snapshot;
        self.forget_removed();
    }

    /// Live changes go with their containers.
    fn forget_removed(&mut self) {
        let mut live = self.live.get().clone();
        if live.forget_unless(|id| self.snapshot.containers.contains_key(id))
            && let Err(e) = self.live.set(live)
        {
            warn!("{e:#}");
        }
    }

    fn on_event(&mut self, event: Event, refresh: &mut Refresh<'_>) {
        match event {
            Event::Container { id, change } => match change {
                Change::Removed => {
                    self.snapshot.containers.remove(&id);
                    self.forget_removed();
                    self.dirty = true;
                }
                // Its end must not wait for an answer of the engine.
                Change::Ended => {
                    if let Some(container) = self.snapshot.containers.get_mut(&id) {
                        container.running = false;
                        container.publications.clear();
                    }
                    swarm::leave_gateway(&mut self.snapshot, &id);
                    self.dirty = true;
                    refresh.container(&id);
                }
                Change::Updated => refresh.container(&id),
            },
            Event::Endpoint { network, container, connected } => {
                self.on_endpoint(&network, &container, connected, refresh);
            }
            Event::Network { id } => self.ask_network(&id, refresh),
        }
    }

    /// A container was connected to a network, or disconnected. A network with many containers is asked only about what nobody else
    /// tells: the engine answers nothing about a container that it is starting.
    fn on_endpoint(&mut self, network: &str, container: &str, connected: bool, refresh: &mut Refresh<'_>) {
        let known = self.snapshot.containers.get_mut(container);
        let runs = known.as_ref().map(|c| c.running);
        if runs == Some(true) || !connected {
            self.questions.outdate(network);
        }
        if !connected {
            // What it had there is over.
            if let Some(known) = known {
                known.endpoints.retain(|e| e.network != network);
            }
            if let Some(network) = self.snapshot.networks.get_mut(network) {
                network.endpoints.remove(container);
            }
            self.dirty = true;
        }
        let by_network = connected && runs != Some(true);
        if by_network || self.snapshot.networks.get(network).is_none_or(swarm::needs_gateway) {
            self.ask_network(network, refresh);
        }
        // One that runs tells of itself; one that does not run has nothing to tell before it is started.
        if runs == Some(true) || (connected && runs.is_none()) {
            refresh.container(container);
        }
    }

    fn on_container(&mut self, id: &str, result: Result<Box<Container>, EngineError>, refresh: &mut Refresh<'_>) {
        match result {
            Ok(mut container) => {
                if let Some(known) = self.snapshot.containers.get(&container.id) {
                    keep_links(known, &mut container, &self.snapshot);
                }
                // Not every engine tells of a network before its first container.
                for e in &container.endpoints {
                    if !self.snapshot.networks.contains_key(&e.network) {
                        self.ask_network(&e.network, refresh);
                    }
                }
                // Nobody tells of who is connected to that one.
                if swarm::may_use_gateway(&container, &self.snapshot) {
                    refresh.network(swarm::GATEWAY, false);
                }
                self.snapshot.containers.insert(container.id.clone(), *container);
            }
            Err(EngineError::NotFound { .. }) => {
                self.snapshot.containers.remove(id);
            }
            Err(e) => warn!("container {id}: {e}"),
        }
        for waiting in self.waiting.iter_mut().filter(|w| w.container == id) {
            waiting.refreshed = true;
        }
    }

    fn ask_network(&mut self, id: &str, refresh: &mut Refresh<'_>) {
        if !self.questions.ask(id) {
            return;
        }
        // With a network come its rules; one that is there has them.
        refresh.network(id, !self.snapshot.networks.contains_key(id));
    }

    fn on_network(&mut self, network: Network, refresh: &mut Refresh<'_>) {
        if swarm::needs_gateway(&network) {
            refresh.network(swarm::GATEWAY, false);
        }
        self.snapshot.networks.insert(network.id.clone(), network);
    }

    fn on_request(
        &mut self,
        request: Request,
        answer: oneshot::Sender<Answer>,
        refresh: &mut Refresh<'_>,
    ) -> Option<oneshot::Sender<Answer>> {
        match request {
            Request::Down => return Some(answer),
            Request::Prepare(Prepare { container }) => self.wait_for(container, false, answer, refresh),
            Request::WaitServed(WaitServed { container }) => self.wait_for(container, true, answer, refresh),
            Request::Ping => drop(answer.send(reply::<runtime_api::Ping>(Ok(Pong { pid: std::process::id() })))),
            Request::Status => match self.status() {
                Ok(status) => answer_beside::<runtime_api::Status>(status, answer),
                Err(refusal) => drop(answer.send(Err(refusal))),
            },
            Request::Links => answer_beside::<runtime_api::Links>(self.link_rows(), answer),
            Request::LivePublications => {
                answer_beside::<runtime_api::LivePublications>(self.live_publications(), answer);
            }
            Request::Publish(Publish { container, spec, filter }) => {
                let made = self.publish(&container, &spec, &filter);
                self.changed(reply::<Publish>(made), answer);
            }
            Request::Unpublish(Unpublish { container, spec }) => {
                let made = self.unpublish(&container, &spec);
                self.changed(reply::<Unpublish>(made), answer);
            }
            Request::Link(wanted) => {
                let made = self.link(wanted);
                self.changed(reply::<runtime_api::Link>(made), answer);
            }
            Request::Unlink(Unlink { recipient, target }) => {
                let made = self.unlink(&recipient, &target);
                self.changed(reply::<Unlink>(made), answer);
            }
        }
        None
    }

    /// A change is answered when it is in force.
    fn changed(&mut self, made: Answer, answer: oneshot::Sender<Answer>) {
        match made {
            Ok(value) => self.changes.push((value, answer)),
            Err(refusal) => drop(answer.send(Err(refusal))),
        }
    }

    /// Answers when a container is known, or served.
    fn wait_for(
        &mut self,
        container: String,
        served: bool,
        answer: oneshot::Sender<Answer>,
        refresh: &mut Refresh<'_>,
    ) {
        if container.is_empty() {
            drop(answer.send(Err(Refusal::usage("no container given"))));
            return;
        }
        refresh.container(&container);
        self.waiting.push(Waiting { container, refreshed: false, answer, served });
    }
}

/// Puts into words what can be long, beside the loop.
fn answer_beside<C: Call<Reply: Send + 'static>>(told: C::Reply, answer: oneshot::Sender<Answer>) {
    tokio::task::spawn_blocking(move || {
        let _ = answer.send(reply::<C>(Ok(told)));
    });
}
