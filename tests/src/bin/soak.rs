//! Kills the daemon between any two of its effects, as often as one likes: `soak 10000`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use tests::soak::{Enough, Report, run};

/// How often it is told how far it is.
const TOLD: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let Some(kills) = std::env::args().nth(1).and_then(|n| n.parse().ok()) else {
        eprintln!("usage: soak KILLS");
        return ExitCode::from(2);
    };
    let (began, mut told) = (Instant::now(), Instant::now());
    let progress = |report: &Report| {
        if told.elapsed() >= TOLD {
            told = Instant::now();
            eprintln!("{} kills in {} s", report.kills, began.elapsed().as_secs());
        }
    };
    match run(Enough { kills, time: Duration::MAX }, progress) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}
