//! Packets from bytes that a fuzzer chooses: those of a fixture with some of their bytes changed, and frames of nothing else.

use std::sync::LazyLock;

use crate::fixture::{self, Fixture};
use crate::host::Host;
use crate::world::{At, CONTAINERS, Event, Fate, INTERFACES};

static FIXTURES: LazyLock<Vec<Fixture>> = LazyLock::new(|| fixture::all().expect("the tests read them"));

/// Runs packets through the host build: nothing panics, and no packet but an answer to its sender changes its length.
///
/// The first two bytes say which fixture. Each four after them change a byte of its packets (packet, offset, how, with what), until
/// one says that all the rest is a frame by itself.
pub fn run(input: &[u8]) {
    let Some((number, mut rest)) = input.split_first_chunk::<2>() else { return };
    let fixture = &FIXTURES[usize::from(u16::from_le_bytes(*number)) % FIXTURES.len()];
    let mut frames: Vec<(At, Vec<u8>)> = vec![];
    let mut changes = vec![];
    for event in &fixture.case.events {
        match event {
            Event::Packet(at, packet) => frames.push((*at, packet.bytes(at.macs()))),
            Event::Change(change) => changes.push((frames.len(), change)),
        }
    }
    while let Some((&[which, offset, how, value], after)) = rest.split_first_chunk::<4>() {
        rest = after;
        if how % 8 == 7 {
            frames.push((place(which, offset), rest.to_vec()));
            break;
        }
        if frames.is_empty() {
            break;
        }
        let n = usize::from(which) % frames.len();
        change(&mut frames[n].1, usize::from(offset), how, value);
    }
    let mut host = Host::new(&fixture.case.world);
    for (n, (at, frame)) in frames.iter().enumerate() {
        changes.iter().filter(|(before, _)| *before == n).for_each(|(_, change)| host.change(change));
        let outcome = host.run(*at, frame);
        assert!(
            outcome.fate == Fate::Back || outcome.packet.len() == frame.len(),
            "{at:?} {frame:02x?}: {outcome:02x?}"
        );
    }
}

fn place(which: u8, from: u8) -> At {
    let container = usize::from(which / 4) % CONTAINERS.len();
    match which % 4 {
        0 => At::Uplink,
        1 => At::Xdp,
        2 => At::From(container),
        _ => At::To(container, Some(usize::from(from)).filter(|n| *n < INTERFACES.len())),
    }
}

fn change(frame: &mut Vec<u8>, offset: usize, how: u8, value: u8) {
    match (how % 8, frame.get_mut(offset)) {
        (6, _) => frame.truncate(offset),
        (0..2, Some(byte)) => *byte ^= value,
        (2, Some(byte)) => *byte = byte.wrapping_add(value),
        (_, Some(byte)) => *byte = value,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn whatever_bytes_there_are_run() {
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..20_000 {
            let input: Vec<u8> = (0..rng.usize(0..40)).map(|_| rng.u8(..)).collect();
            super::run(&input);
        }
    }
}
