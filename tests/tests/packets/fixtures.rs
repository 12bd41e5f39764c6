//! Every packet fixture (`tests/fixtures`), by the kernel's verified programs.

use packet_cases::compare::same;
use packet_cases::fixture::{Fixture, all};
use packet_cases::kernel::KernelWorld;
use packet_cases::world::{Event, Outcome};

#[test]
fn the_verified_programs_decide_what_fixtures_expect() {
    let mut kernel = KernelWorld::load();
    let fixtures = all().unwrap();
    let wrong: Vec<String> = fixtures
        .iter()
        .filter_map(|f| run(&mut kernel, f).err().map(|what| format!("{}\n  {what}", f.title)))
        .collect();
    assert!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), fixtures.len(), wrong.join("\n"));
}

fn run(kernel: &mut KernelWorld, fixture: &Fixture) -> Result<(), String> {
    kernel.become_world(&fixture.case.world);
    let result = packets(kernel, fixture);
    kernel.forget();
    result
}

fn packets(kernel: &mut KernelWorld, fixture: &Fixture) -> Result<(), String> {
    let mut expected = fixture.expected.iter();
    for (n, event) in fixture.case.events.iter().enumerate() {
        match event {
            Event::Change(change) => kernel.change(change),
            Event::Packet(at, packet) => {
                let expected: &Outcome = expected.next().unwrap();
                let found = kernel.run(*at, &packet.bytes(at.macs()), expected);
                same(&format!("event {}", n + 1), "expected", expected, "kernel", &found)?;
            }
        }
    }
    kernel.surplus().map_or(Ok(()), |v| Err(format!("{v} was counted once more than was seen")))
}
