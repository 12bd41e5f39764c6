//! Kills the daemon between any two of its effects, as often as one likes: `soak 10000`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(kills) = std::env::args().nth(1).and_then(|n| n.parse().ok()) else {
        eprintln!("usage: soak KILLS");
        return ExitCode::from(2);
    };
    let told = |n: usize| {
        if n.is_multiple_of(100) {
            eprintln!("{n} kills");
        }
    };
    match tests::soak::run(kills, told) {
        Ok(report) => {
            let effects: Vec<_> = report.effects.iter().map(|(change, n)| format!("{change} {n}")).collect();
            println!("{} kills, nothing lost; effects of each change: {}", report.kills, effects.join(", "));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}
