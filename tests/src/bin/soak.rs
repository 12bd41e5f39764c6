//! Kills the daemon between any two of its effects, as often as one likes: `soak 10000`. With the path
//! of another build of `runtime` after it, both take turns.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use tests::soak::{Options, Report, run};

/// How often it is told how far it is.
const TOLD: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let Some(kills) = std::env::args().nth(1).and_then(|n| n.parse().ok()) else {
        eprintln!("usage: soak KILLS [RUNTIME]");
        return ExitCode::from(2);
    };
    let (began, mut told) = (Instant::now(), Instant::now());
    let progress = |report: &Report| {
        if told.elapsed() >= TOLD {
            told = Instant::now();
            eprintln!("{} kills in {} s", report.kills, began.elapsed().as_secs());
        }
    };
    let other = std::env::args_os().nth(2).map(Into::into);
    match run(Options { kills, time: Duration::MAX, other }, progress) {
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
