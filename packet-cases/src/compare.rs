//! Running a case by several, and where they differ.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;

use runtime_common::maps::{Flow, FlowKey};

use crate::host::{Host, Remembered};
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

/// Where the kernel's programs, with the case's world in their maps already, differ from the host build with the kernel's
/// interfaces. False where the kernel's test run does not take all of the packets, and none was run.
///
/// # Errors
/// What differs.
pub fn kernel_like_host(
    kernel: &mut KernelWorld,
    case: &Case,
    outcomes: &[Outcome],
    host: &Host,
) -> Result<bool, String> {
    let taken = case.events.iter().all(|event| match event {
        Event::Packet(at, packet) => KernelWorld::takes(*at, &packet.bytes(at.macs())),
        Event::Change(_) => true,
    });
    if !taken {
        return Ok(false);
    }
    let result = events(kernel, case, outcomes);
    let remembered = kernel.take_remembered();
    kernel.restore();
    result.and_then(|()| same_remembered(&host.remembered(), &remembered)).map(|()| true)
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

fn same_remembered(host: &Remembered, kernel: &Remembered) -> Result<(), String> {
    same_flows("FLOWS", &host.flows, &kernel.flows)?;
    same_flows("PENDING", &host.pending, &kernel.pending)?;
    same_entries("FRAGMENTS", &host.fragments, &kernel.fragments)
}

fn same_flows(map: &str, host: &HashMap<FlowKey, Flow>, kernel: &HashMap<FlowKey, Flow>) -> Result<(), String> {
    if host.is_empty() && kernel.is_empty() {
        return Ok(());
    }
    let all_lasting = |flows: &HashMap<FlowKey, Flow>| flows.iter().map(|(k, f)| (*k, lasting(k, f))).collect();
    same_entries(map, &all_lasting(host), &all_lasting(kernel))
}

fn same_entries<K, V>(map: &str, host: &HashMap<K, V>, kernel: &HashMap<K, V>) -> Result<(), String>
where
    K: Eq + Hash + Debug,
    V: PartialEq + Debug,
{
    if host == kernel {
        return Ok(());
    }
    Err(format!("{map}: host build: {host:#?}\nkernel: {kernel:#?}"))
}
