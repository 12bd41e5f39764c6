//! What the programs themselves take of real traffic, by the kernel's own statistics.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use aya::programs::loaded_programs;
use aya::sys::{Stats, enable_stats};
use serde_json::{Value, json};
use tests::HOST;

use crate::load::Load;
use crate::progress;
use crate::report::Table;
use crate::stats::Spread;
use crate::traffic::Labs;
use crate::units::value;

/// The programs that packets of an external client meet. Others that have these names have no traffic meanwhile.
const PROGRAMS: [&str; 3] = ["uplink_ingress", "from_endpoint", "to_endpoint"];
/// Loads whose first figure is a rate, and what that counts.
const LOADS: [(Load, &str); 5] = [
    (Load::Connections, "connection"),
    (Load::Echoed, "datagram and echo"),
    (Load::OneWay, "datagram"),
    (Load::Upload, "64 KiB to the server"),
    (Load::Download, "64 KiB from the server"),
];
const STREAM_UNIT: f64 = 65_536.0;

/// Nanoseconds and runs.
type Ran = BTreeMap<&'static str, (f64, f64)>;

/// Measures each load `rounds` times for `time`, over IPv4 from outside.
pub fn measure(labs: &Labs, rounds: usize, time: Duration) -> Result<Table> {
    // In force until it is closed, for all programs of the machine.
    let _statistics = enable_stats(Stats::RunTime).context("the kernel keeps no statistics of programs")?;
    let (mut rows, mut figures) = (Vec::new(), Vec::new());
    for (load, unit) in LOADS {
        progress(&format!("traffic: what the programs take of {load:?}"));
        let mut all = Vec::new();
        for _ in 0..rounds {
            all.push(once(labs, load, time)?);
        }
        let median = |of: &dyn Fn(&Round) -> f64| {
            Spread::of(&all.iter().map(of).collect::<Vec<_>>()).map_or(f64::NAN, |s| s.median)
        };
        let share = median(&|r| r.programs.values().map(|(ns, _)| ns).sum::<f64>() / 1e9 / r.unit);
        let own = median(&|r| r.unit);
        let cells = PROGRAMS.map(|name| {
            let (ns, runs) = (median(&|r| r.programs[name].0), median(&|r| r.programs[name].1));
            (name, ns, runs)
        });
        let shown = cells.map(|(_, ns, runs)| format!("{} ({runs:.2} runs)", value(ns / 1e9, "s")));
        rows.push(
            [vec![unit.to_owned(), value(own, "s")], shown.into(), vec![format!("{:.0} %", share * 100.0)]].concat(),
        );
        let programs: BTreeMap<_, Value> =
            cells.iter().map(|(name, ns, runs)| (*name, json!({"ns": ns, "runs": runs}))).collect();
        figures.push(json!({"unit": unit, "seconds": own, "programs": programs, "share": share}));
    }
    let mut head = vec!["of an external client's".to_owned(), "takes".to_owned()];
    head.extend(PROGRAMS.map(str::to_owned));
    head.push("all programs".to_owned());
    Ok(Table {
        title: "Traffic: what the programs take of it".to_owned(),
        note: format!(
            "By the kernel's run-time statistics, which themselves add some 30 ns to each run; medians of {rounds} rounds of {} ms.",
            time.as_millis()
        ),
        head,
        rows,
        lines: vec![],
        json: figures.into(),
    })
}

/// Of one load: seconds a unit, and what the programs took of each unit.
struct Round {
    unit: f64,
    programs: Ran,
}

fn once(labs: &Labs, load: Load, time: Duration) -> Result<Round> {
    let before = ran()?;
    let rate = labs.ours.lab.client().within(|| load.measure(HOST.into(), 0, time))?[0];
    let after = ran()?;
    let unit = match load {
        Load::Upload | Load::Download => STREAM_UNIT / rate,
        _ => 1.0 / rate,
    };
    let units = time.as_secs_f64() / unit;
    let programs = PROGRAMS.map(|name| {
        let ((ns0, runs0), (ns1, runs1)) = (before[name], after[name]);
        (name, ((ns1 - ns0) / units, (runs1 - runs0) / units))
    });
    Ok(Round { unit, programs: programs.into() })
}

fn ran() -> Result<Ran> {
    let mut sums: Ran = PROGRAMS.map(|name| (name, (0.0, 0.0))).into();
    for program in loaded_programs() {
        // One that goes meanwhile is none of these.
        let Ok(program) = program else { continue };
        let name = program.name_as_str().and_then(|name| PROGRAMS.into_iter().find(|p| *p == name));
        if let Some(name) = name {
            let (ns, runs) = sums[name];
            let sum = (ns + program.run_time().as_nanos() as f64, runs + program.run_count() as f64);
            sums.insert(name, sum);
        }
    }
    Ok(sums)
}
