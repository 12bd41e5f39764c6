//! Asking every case of a group: Docker alone, with the datapath, and after it.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use super::Outcome;
use super::case::{Alone, Case, Difference, Group, is_proxys_doing};
use super::report::Report;
use super::script;
use super::world::World;
use crate::{Background, Image, Lab, wait_for};

/// How many are asked at once: most of their time is waiting.
const AT_ONCE: usize = 12;
/// How long an outcome may take to become what it is to be: caches of neighbours, the daemon that follows the Engine, a loaded
/// machine.
const SETTLES: Duration = Duration::from_secs(4);

/// Runs a group.
///
/// # Panics
/// With a table of what differs and is not known to, and of what is known to and does not.
#[track_caller]
pub fn run(group: &Group, known: &[Difference]) {
    let mut builder = Lab::builder(group.name).images(&[Image::Echo]);
    if group.second_uplink {
        builder = builder.second_uplink();
    }
    if let Some(engine) = group.engine {
        builder = builder.engine(engine);
    }
    // As Docker comes, unless the group has it otherwise.
    builder = builder.engine_arg("--userland-proxy=true");
    for arg in group.dockerd {
        builder = builder.engine_arg(arg);
    }
    let lab = builder.build();
    let known: Vec<&Difference> =
        known.iter().filter(|d| d.group == group.name && d.except != Some(lab.engine())).collect();
    let mut servers = Vec::new();
    let report = compare(&lab, group, &known, &mut servers);
    match report {
        Ok(report) if report.is_empty() => {}
        Ok(report) => panic!("{}\n{report}", group.name),
        Err(e) => panic!("{}: {e:#}", group.name),
    }
}

fn compare(lab: &Lab, group: &Group, known: &[&Difference], servers: &mut Vec<Background>) -> Result<Report> {
    let mut report = Report::default();
    script::run(lab, group.setup, servers)?;
    let as_alone = |case: &Case, asked: &Asked, _: usize| match case.alone {
        Alone::Reached => asked.outcome.is_reached(),
        Alone::Refused => !asked.outcome.is_reached(),
        Alone::Depends => true,
    };
    let alone = pass(lab, group, servers, &as_alone)?;
    for (case, asked) in group.cases().zip(&alone) {
        if !as_alone(case, asked, 0) {
            report.vacuous(case, &asked.outcome);
        }
    }
    let up = lab.up(group.up);
    let why = |case: &Case| known.iter().find(|d| d.cases.contains(&case.name)).map(|d| d.why);
    let as_known = |case: &Case, asked: &Asked, at: usize| {
        let (alone, served) = (&alone[at].outcome, &asked.outcome);
        match why(case) {
            None => alone == served || is_proxys_doing(alone, served, asked.dialled),
            Some(why) => alone != served && why.explains(alone, served),
        }
    };
    let served = pass(lab, group, servers, &as_known)?;
    for (at, (case, asked)) in group.cases().zip(&served).enumerate() {
        if !as_known(case, asked, at) {
            report.differs(case, &alone[at].outcome, &asked.outcome, why(case));
        }
    }
    if !report.is_empty() {
        report.counters(lab);
    }
    drop(up);
    lab.down();
    let as_before = |_: &Case, asked: &Asked, at: usize| asked.outcome == alone[at].outcome;
    let after = pass(lab, group, servers, &as_before)?;
    for (at, (case, asked)) in group.cases().zip(&after).enumerate() {
        if !as_before(case, asked, at) {
            report.remains(case, &alone[at].outcome, &asked.outcome);
        }
    }
    Ok(report)
}

/// What became of a case.
#[derive(Clone, Debug)]
struct Asked {
    dialled: SocketAddr,
    outcome: Outcome,
}

/// Asks all cases of all stages. `settled` says whether an outcome is what it is to be: it is asked for again until then.
fn pass(
    lab: &Lab,
    group: &Group,
    servers: &mut Vec<Background>,
    settled: &(dyn Fn(&Case, &Asked, usize) -> bool + Sync),
) -> Result<Vec<Asked>> {
    let mut all = Vec::new();
    for stage in group.stages {
        script::run(lab, stage.change, servers)?;
        let first = all.len();
        let world = World::look(lab)?;
        let questions = stage.cases.iter().map(|c| world.question(c.dial).with_context(|| c.name));
        let questions = questions.collect::<Result<Vec<_>>>()?;
        let answers: Mutex<Vec<Option<Asked>>> = Mutex::new(vec![None; questions.len()]);
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE.min(questions.len()) {
                scope.spawn(|| {
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let (Some(question), Some(case)) = (questions.get(at), stage.cases.get(at)) else { return };
                        let mut last = None;
                        let _ = wait_for(SETTLES, || {
                            let asked = Asked { dialled: question.to, outcome: question.ask() };
                            let done = settled(case, &asked, first + at);
                            last = Some(asked);
                            done.then_some(())
                        });
                        if let Ok(mut answers) = answers.lock() {
                            answers[at] = last;
                        }
                    }
                });
            }
        });
        let answers = answers.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        all.extend(answers.into_iter().flatten());
        anyhow::ensure!(all.len() == first + stage.cases.len(), "not all cases were asked");
    }
    script::run(lab, group.undo, servers)?;
    Ok(all)
}
