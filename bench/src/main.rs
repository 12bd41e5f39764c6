//! Measures published ports and links against what else there is:
//! `bench [--quick] [--only PART,...] [--out DIR]`, the parts being traffic, kernel, control, crowd and apps.

mod apps;
mod control;
mod cpu;
mod html;
mod kernel;
mod load;
mod options;
mod report;
mod share;
mod stats;
mod suite;
mod traffic;
mod units;

use std::fs;
use std::io::IsTerminal;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use options::{Options, Part};
use report::Report;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let options = Options::parse(std::env::args().skip(1))?;
    if std::thread::available_parallelism()?.get() < 2 {
        bail!("this machine has one core: client and server need one each");
    }
    let mut report = Report { about: about(&options)?, ..Report::default() };
    let mut broken = Vec::new();
    if options.has(Part::Traffic) {
        let measured = part("traffic", &mut broken, || {
            let labs = traffic::Labs::make()?;
            let (rounds, time) = options.traffic();
            let suites = traffic::measure_all(&labs, rounds, time)?;
            let share = share::measure(&labs, rounds.min(15), time)?;
            labs.end();
            Ok(vec![(suites, share)])
        });
        for (suites, share) in measured {
            report.suites.extend(suites);
            report.tables.push(share);
        }
    }
    if options.has(Part::Apps) {
        report.suites.extend(part("apps", &mut broken, || apps::measure_all(options.apps())));
    }
    if options.has(Part::Kernel) {
        report.tables.extend(part("kernel", &mut broken, || kernel::measure(options.quick)));
    }
    if options.has(Part::Control) {
        report.tables.extend(part("control", &mut broken, || control::measure(options.quick)));
    }
    if options.has(Part::Crowd) {
        report.tables.extend(part("crowd", &mut broken, || control::measure_crowd(options.quick)));
    }
    let missing = broken.len();
    report.broken = broken;
    write(&options.out, &report)?;
    print!("{}", report.text());
    if missing > 0 {
        bail!("{missing} of the parts could not be measured: see above");
    }
    Ok(())
}

/// Measures a part. Where that fails, the others' figures still count.
fn part<T>(name: &str, broken: &mut Vec<String>, measure: impl FnOnce() -> Result<Vec<T>>) -> Vec<T> {
    let failure = match catch_unwind(AssertUnwindSafe(measure)) {
        Ok(Ok(measured)) => return measured,
        Ok(Err(error)) => format!("{name}: {error:#}"),
        Err(_) => format!("{name}: the panic above"),
    };
    eprintln!("bench: {failure}");
    broken.push(failure);
    Vec::new()
}

/// Tells what is done at the moment, on a terminal.
fn progress(what: &str) {
    if std::io::stderr().is_terminal() {
        eprintln!("{what}");
    }
}

fn about(options: &Options) -> Result<String> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
    let (rounds, time) = options.traffic();
    Ok(format!(
        "Kernel {}, load before the start {}, {} cores. Traffic: {rounds} rounds, {} ms a load, clients on core {}, servers on core {}, \
         veth pairs and a bridge; the order of a round is shuffled by its number. CPU is the busy time of all cores during a load, \
         programs, system calls and softirqs together, over what was moved.",
        read("/proc/sys/kernel/osrelease")?.trim(),
        read("/proc/loadavg")?.split(' ').next().unwrap_or_default(),
        std::thread::available_parallelism()?,
        time.as_millis(),
        load::CLIENT_CORE,
        load::SERVER_CORE,
    ))
}

fn write(out: &Path, report: &Report) -> Result<()> {
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let json = serde_json::to_string_pretty(&report.json())?;
    for (name, text) in [("results.json", json), ("index.html", html::page(report)), ("summary.md", report.markdown())]
    {
        let file = out.join(name);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        eprintln!("wrote {}", file.display());
    }
    Ok(())
}
