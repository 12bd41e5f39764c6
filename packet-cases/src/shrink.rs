//! Making a case that fails smaller, as long as it still fails.

use crate::packet::Ip;
use crate::world::{Case, Change, Event, Network, Policy, World};

/// The smallest case that is found to fail as well.
pub fn shrink(mut case: Case, fails: &mut dyn FnMut(&Case) -> bool) -> Case {
    loop {
        let Some(smaller) = candidates(&case).into_iter().find(|c| *c != case && fails(c)) else {
            return case;
        };
        case = smaller;
    }
}

fn candidates(case: &Case) -> Vec<Case> {
    let mut all = vec![];
    let mut with = |change: &dyn Fn(&mut Case)| {
        let mut smaller = case.clone();
        change(&mut smaller);
        all.push(smaller);
    };
    for n in 0..case.events.len() {
        with(&|c| drop(c.events.remove(n)));
    }
    for n in 0..case.world.publications.len() {
        with(&|c| {
            c.world.publications.remove(n);
            renumber(c, |change| match change {
                Change::Unpublish(i) => Some(i).filter(|i| **i >= n),
                _ => None,
            });
        });
        with(&|c| c.world.publications[n].policy = Policy::default());
    }
    for n in 0..case.world.links.len() {
        with(&|c| {
            c.world.links.remove(n);
            renumber(c, |change| match change {
                Change::Unlink(i) => Some(i).filter(|i| **i >= n),
                _ => None,
            });
        });
    }
    let plain = World::default();
    with(&|c| c.world.networks = plain.networks);
    for n in 0..2 {
        with(&|c| c.world.networks[n] = Network { masquerade: false, ..c.world.networks[n] });
    }
    with(&|c| c.world.shared = false);
    with(&|c| c.world.unknown.clear());
    with(&|c| c.world.sockets.clear());
    with(&|c| c.world.local_prefix = false);
    with(&|c| c.world.learning = false);
    for n in 0..case.events.len() {
        let Event::Packet(_, packet) = &case.events[n] else { continue };
        let mut edit = |change: &dyn Fn(&mut crate::packet::Packet)| {
            with(&|c| {
                if let Event::Packet(_, packet) = &mut c.events[n] {
                    change(packet);
                }
            });
        };
        for i in 0..packet.edits.len() {
            edit(&|p| drop(p.edits.remove(i)));
        }
        edit(&|p| p.macs = None);
        edit(&|p| p.vlan = None);
        let changes: [fn(&mut Ip); 6] = [
            |ip| ip.data = b"payload".to_vec(),
            |ip| ip.options.clear(),
            |ip| ip.extensions.clear(),
            |ip| ip.extensions.truncate(ip.extensions.len().saturating_sub(1)),
            |ip| ip.fragment = None,
            |ip| ip.ttl = 64,
        ];
        for change in changes {
            edit(&|p| {
                if let Some(ip) = p.ip_mut() {
                    change(ip);
                }
            });
        }
    }
    all
}

/// Removes changes of what is gone, whose number is 0 then, and counts the others down.
fn renumber(case: &mut Case, number: impl Fn(&mut Change) -> Option<&mut usize>) {
    for event in &mut case.events {
        if let Event::Change(change) = event
            && let Some(i) = number(change)
        {
            *i = i.saturating_sub(1);
        }
    }
    let (publications, links) = (case.world.publications.len(), case.world.links.len());
    case.events.retain(|event| match event {
        Event::Change(Change::Unpublish(i)) => *i < publications,
        Event::Change(Change::Unlink(i)) => *i < links,
        _ => true,
    });
}
