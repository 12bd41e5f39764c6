//! Running a case by several, and where they differ.

use std::collections::BTreeMap;
use std::fmt::Debug;

use runtime_common::maps::{Flow, FlowKey};

use crate::host::Host;
use crate::kernel::KernelWorld;
use crate::model::Model;
use crate::world::{Case, Event, Outcome};

/// What the host build makes of every packet of a case, and the conversations that are left.
pub fn by_host(case: &Case, ifindexes: [u32; 9]) -> (Vec<Outcome>, Host) {
    let mut host = Host::with(&case.world, ifindexes);
    let mut outcomes = vec![];
    for event in &case.events {
        match event {
            Event::Packet(at, packet) => outcomes.push(host.run(*at, &packet.bytes(at.macs()))),
            Event::Change(change) => host.change(change),
        }
    }
    (outcomes, host)
}

/// Where the host build differs from the model, of all packets that the model is sure of: how many those are.
///
/// # Errors
/// What differs.
pub fn host_like_model(case: &Case, outcomes: &[Outcome]) -> Result<usize, String> {
    let mut model = Model::new(&case.world);
    let (mut outcomes, mut sure) = (outcomes.iter(), 0);
    for (n, event) in case.events.iter().enumerate() {
        match event {
            Event::Change(change) => model.change(change),
            Event::Packet(at, packet) => {
                let found = outcomes.next().unwrap();
                let checked = model.check(*at, packet, found);
                let tell = |e| format!("event {}: {e}, host build: {:?} {:?}", n + 1, found.verdict, found.fate);
                sure += usize::from(checked.map_err(tell)?);
            }
        }
    }
    Ok(sure)
}

/// Where the kernel's programs, with the case's world in their maps already, differ from the host build.
///
/// # Errors
/// What differs.
pub fn kernel_like_host(kernel: &mut KernelWorld, case: &Case) -> Result<(), String> {
    let taken = case.events.iter().all(|event| match event {
        Event::Packet(at, packet) => KernelWorld::takes(*at, &packet.bytes(at.macs())),
        Event::Change(_) => true,
    });
    if !taken {
        return Ok(());
    }
    let (outcomes, host) = by_host(case, kernel.ifindexes);
    let result = events(kernel, case, &outcomes).and_then(|()| flows(kernel, &host));
    kernel.forget();
    let changed = case.events.iter().any(|e| matches!(e, Event::Change(_)));
    if changed || case.world.publications.iter().any(|p| p.policy.limit.is_some()) {
        kernel.restore();
    }
    result
}

fn events(kernel: &mut KernelWorld, case: &Case, outcomes: &[Outcome]) -> Result<(), String> {
    let mut outcomes = outcomes.iter();
    for (n, event) in case.events.iter().enumerate() {
        match event {
            Event::Change(change) => kernel.change(change),
            Event::Packet(at, packet) => {
                let expected = outcomes.next().unwrap();
                let bytes = packet.bytes(at.macs());
                let found = kernel.run(*at, &bytes, expected);
                same(&format!("event {}", n + 1), "host build", expected, "kernel", &found)?;
            }
        }
    }
    Ok(())
}

/// Whether two have decided the same.
///
/// # Errors
/// What differs.
pub fn same(what: &str, a: &str, expected: &Outcome, b: &str, found: &Outcome) -> Result<(), String> {
    if expected == found {
        return Ok(());
    }
    let tell = |o: &Outcome| format!("{} {:?}\n{}", o.verdict.unwrap_or("-"), o.fate, hex(&o.packet));
    Err(format!("{what}: {a}: {}{b}: {}", tell(expected), tell(found)))
}

fn hex(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(160)];
    bytes
        .chunks(16)
        .map(|line| format!("    {}\n", line.iter().map(|b| format!("{b:02x} ")).collect::<String>()))
        .collect()
}

/// Of a conversation, what does not depend on when it was and on what the routes said. Of what is TCP's alone, others have what was
/// left of the processor's packet before them.
fn lasting(key: &FlowKey, flow: &Flow) -> Flow {
    let mut flow = *flow;
    if key.protocol != 6 {
        (flow.ack, flow.end, flow.window, flow.window_scale) = (0, 0, 0, 0);
    }
    (flow.last_seen, flow.way_tick, flow.way_ifindex, flow.way_mtu) = (0, 0, 0, 0);
    (flow.way_mac, flow.mac) = ([0; 6], [0; 6]);
    flow
}

fn flows(kernel: &mut KernelWorld, host: &Host) -> Result<(), String> {
    for ((map, expected), found) in ["FLOWS", "PENDING"].iter().zip(host.flows()).zip(kernel.flows()) {
        let of = |flows: &[(FlowKey, Flow)]| -> BTreeMap<String, String> {
            flows.iter().map(|(k, f)| (debug(k), debug(&lasting(k, f)))).collect()
        };
        if expected.len() == found.len() && expected.is_empty() {
            continue;
        }
        let (expected, found) = (of(&expected), of(&found));
        if expected != found {
            return Err(format!("{map}: host build: {expected:#?}\nkernel: {found:#?}"));
        }
    }
    Ok(())
}

fn debug(what: &impl Debug) -> String {
    format!("{what:?}")
}
