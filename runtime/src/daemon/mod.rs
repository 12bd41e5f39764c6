//! The daemon: follows the engine and the host, keeps the kernel side true, and answers the command line.

mod api;
mod closing;
mod commands;
mod confine;
mod conntrack_import;
mod hosts_files;
mod inputs;
mod link_tracking;
mod live_file;
mod lock;
mod lost;
mod ports;
mod questions;
mod relay;
mod socket_closer;
mod status;
mod waiting;
mod watch;
mod world;

pub use confine::confine;
pub use lock::{DaemonLock, LockError};

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::{Mode, umask};
use runtime_api::wire::Answer;
use runtime_api::{FlowCount, Refusal, Request};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::datapath::{Collector, Datapath, DatapathError, HookOptions, Pins, remove_everything};
use crate::engine::{Engine, EngineError, Event};
use crate::host::{Listener, NatRules, Netlink, listeners, passed_by, read_nat};
use crate::model::{Container, Network, Snapshot};
use crate::reconcile;
pub use waiting::waiting;
use world::World;

/// How the daemon is to run.
pub struct Options {
    /// Folder of its socket, lock and log.
    pub run_dir: PathBuf,
    /// Folder of what must survive it.
    pub state_dir: PathBuf,
    /// Folder of the pins.
    pub bpffs: PathBuf,
    /// How programs are attached.
    pub hooks: HookOptions,
    /// Whether drops are written to the log.
    pub log_drops: bool,
    /// What is isolated, and which interfaces are uplinks.
    pub reconcile: reconcile::Options,
    /// Of what it does not need, what could not be given up: a line each.
    pub unconfined: Vec<String>,
}

/// In the run directory: what the verifier said when it refused a program.
pub const VERIFIER_LOG: &str = "verifier.log";

/// What the loop hears of.
enum Input {
    Engine(Event),
    EngineGone,
    EngineBack(Box<Snapshot>, String),
    Container(String, Result<Box<Container>, EngineError>),
    Network(String, Result<Box<Network>, EngineError>),
    Host,
    /// Lines about the host's firewall, read anew.
    Firewall(Vec<String>),
    /// What the host's own rules do with sources, read anew, and why not all of them could be.
    Nat(NatRules, Vec<String>),
    /// What is left of the conversations, and who has collected the others.
    Collected(Box<Collector>, Result<FlowCount, DatapathError>),
    /// Who listens on the host's ports, asked anew.
    Listeners(BTreeSet<Listener>),
    Request(Request, oneshot::Sender<Answer>),
}

/// Room for events while one is being dealt with.
const QUEUE: usize = 1024;
/// How often flows that are over are collected.
const COLLECT: Duration = Duration::from_secs(5);
/// How often it is looked whether somebody has taken hooks or pins away.
const WATCH: Duration = Duration::from_secs(1);
/// How often it is asked who listens on ports that are relayed.
const LISTENERS: Duration = Duration::from_secs(1);
/// How often an engine that is away is looked for.
const RETRY: Duration = Duration::from_secs(1);

/// Runs until a signal or a `down` request ends it. `ready` is called once everything is served.
///
/// # Errors
/// Where it cannot start; nothing is left half made then.
pub async fn run(options: Options, engine: Arc<dyn Engine>, ready: impl FnOnce()) -> anyhow::Result<()> {
    // What it writes is for nobody but root and its group.
    umask(Mode::S_IWGRP | Mode::S_IRWXO);
    let _lock = DaemonLock::take(&options.run_dir)?;
    make_room_for_descriptors();
    let version = waiting("the engine to tell its version", engine.version()).await?;
    let (inputs, mut queue) = mpsc::channel(QUEUE);

    // Subscribed before the state is read: what happens in between is heard of.
    let mut changes = Netlink::changes()?;
    let netlink = Netlink::connect()?;
    let events = waiting("the engine to tell of events", engine.events()).await?;
    let snapshot = waiting("the engine to tell of its containers and networks", engine.snapshot()).await?;

    let pins = Pins::new(&options.bpffs);
    let pin_lock = Datapath::prepare(&pins)?;
    let adopted = pins.exist();
    let started = async {
        let datapath = Datapath::load(pins, pin_lock, options.hooks, &options.run_dir.join(VERIFIER_LOG))?;
        let live = live_file::LiveFile::open(&options.state_dir)?;
        let mut world = World::new(datapath, netlink, live, options.reconcile.clone(), version)?;
        world.unconfined.clone_from(&options.unconfined);
        world.take_over(snapshot).await?;
        anyhow::Ok(world)
    };
    let mut world = match started.await {
        Ok(world) => world,
        Err(e) => {
            if !adopted {
                let _ = remove_everything(&Pins::new(&options.bpffs));
            }
            return Err(e);
        }
    };
    world.heed_firewall(waiting("the firewall's programs", passed_by()).await);
    let mut drops = world.drop_events()?;
    let socket = api::listen(&options.run_dir, inputs.clone())?;
    follow_engine(engine.clone(), events, inputs.clone());
    let host_inputs = inputs.clone();
    tokio::spawn(async move {
        while changes.next().await.is_some() {
            if host_inputs.send(Input::Host).await.is_err() {
                return;
            }
        }
    });
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut collect = tokio::time::interval(COLLECT);
    collect.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut look = tokio::time::interval(LISTENERS);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut watch = tokio::time::interval(WATCH);
    watch.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ready();

    let honors = options.reconcile.netfilter == reconcile::Netfilter::Honor;

    let down = loop {
        tokio::select! {
            Some(input) = queue.recv() => {
                // What the datapath masquerades, rules of the engine's may do after this container's start.
                let with_rules = honors || (engine.makes_rules_with_containers() && world.masquerades());
                let mut refresh = Refresh { with_rules, engine: &engine, inputs: &inputs };
                let mut end = world.handle(input, &mut refresh);
                // Everything that is there already is one change.
                while let Ok(input) = queue.try_recv() {
                    end = world.handle(input, &mut refresh).or(end);
                }
                world.reconcile().await;
                if let Some(answer) = end {
                    break Some(answer);
                }
            }
            found = drops.next() => world.report_drops(found, options.log_drops),
            _ = collect.tick() => world.collect(&Refresh { with_rules: false, engine: &engine, inputs: &inputs }),
            _ = watch.tick() => world.watch().await,
            _ = look.tick(), if world.relays.is_needed() => send_listeners(inputs.clone()),
            () = world.peers_told() => {}
            _ = terminate.recv() => break None,
            _ = interrupt.recv() => break None,
        }
    };
    drop(socket);
    // Nobody else would tell them.
    world.all_peers_told().await;
    let Some(answer) = down else {
        let_answers_go().await;
        // The pins keep the datapath at work; the next daemon adopts it.
        return Ok(());
    };
    world.leave();
    drop(world);
    let result = remove_everything(&Pins::new(&options.bpffs));
    let _ = answer.send(match &result {
        Ok(_) => Ok(serde_json::Value::Null),
        Err(e) => Err(Refusal::failed(e)),
    });
    let_answers_go().await;
    result?;
    Ok(())
}

/// Has the kernel make the table of descriptors as large as a range of ports needs: to make it larger step by step, it waits
/// each time until no processor looks at the old one.
fn make_room_for_descriptors() {
    let most = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft.min(confine::DESCRIPTORS / 8));
    if let Some(last) = i32::try_from(most).ok().and_then(|most| most.checked_sub(1)) {
        // Closed at once; the table stays as it is. Where it cannot be made, it grows step by step.
        let _ =
            nix::fcntl::fcntl(std::io::stdin(), nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(last)).map(nix::unistd::close);
    }
}

/// An answer is written by its connection's own task.
async fn let_answers_go() {
    tokio::task::yield_now().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// Hears the engine's events; when it goes away, waits until it is back and takes everything anew.
fn follow_engine(
    engine: Arc<dyn Engine>,
    mut events: futures_util::stream::BoxStream<'static, Event>,
    inputs: mpsc::Sender<Input>,
) {
    tokio::spawn(async move {
        loop {
            while let Some(event) = events.next().await {
                if inputs.send(Input::Engine(event)).await.is_err() {
                    return;
                }
            }
            if inputs.send(Input::EngineGone).await.is_err() {
                return;
            }
            events = loop {
                tokio::time::sleep(RETRY).await;
                let Ok(events) = engine.events().await else { continue };
                let (Ok(snapshot), Ok(version)) = (engine.snapshot().await, engine.version().await) else { continue };
                // It has made its rules anew: known before what they are for.
                send_nat(&inputs).await;
                if inputs.send(Input::EngineBack(Box::new(snapshot), version)).await.is_err() {
                    return;
                }
                break events;
            };
        }
    });
}

/// Asks the engine anew, beside the loop: an answer about a container that is being started can take long.
struct Refresh<'a> {
    /// Whether the host's rules matter for each container.
    with_rules: bool,
    engine: &'a Arc<dyn Engine>,
    inputs: &'a mpsc::Sender<Input>,
}

impl Refresh<'_> {
    fn container(&mut self, id: &str) {
        let (engine, inputs, id, with_rules) =
            (self.engine.clone(), self.inputs.clone(), id.to_owned(), self.with_rules);
        tokio::spawn(async move {
            let result = engine.container(&id).await.map(Box::new);
            if with_rules {
                send_nat(&inputs).await;
            }
            let _ = inputs.send(Input::Container(id, result)).await;
        });
    }

    /// With the host's rules, where they may have changed with it.
    fn network(&mut self, id: &str, with_rules: bool) {
        let (engine, inputs, id) = (self.engine.clone(), self.inputs.clone(), id.to_owned());
        tokio::spawn(async move {
            let result = engine.network(&id).await.map(Box::new);
            if with_rules {
                send_nat(&inputs).await;
            }
            let _ = inputs.send(Input::Network(id, result)).await;
        });
    }

    /// Reads the host's rules: programs are asked, and there can be many rules.
    fn nat(&self) {
        let inputs = self.inputs.clone();
        tokio::spawn(async move { send_nat(&inputs).await });
    }
}

/// Collects conversations that are over, beside the loop: a full table takes a while to be read.
fn send_collected(inputs: mpsc::Sender<Input>, mut collector: Box<Collector>) -> std::io::Result<()> {
    let collect = move || {
        let result = collector.collect();
        let _ = inputs.blocking_send(Input::Collected(collector, result));
    };
    std::thread::Builder::new().name("collector".to_owned()).spawn(collect).map(drop)
}

/// Nobody tells of a program that begins to listen.
fn send_listeners(inputs: mpsc::Sender<Input>) {
    tokio::task::spawn_blocking(move || {
        if let Ok(found) = listeners() {
            let _ = inputs.blocking_send(Input::Listeners(found));
        }
    });
}

async fn send_nat(inputs: &mpsc::Sender<Input>) {
    let (rules, failed) = read_nat().await;
    let _ = inputs.send(Input::Nat(rules, failed)).await;
}
