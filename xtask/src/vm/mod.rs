//! Other kernels, booted in QEMU: what the datapath does there.
//!
//! Kernels, emulator and root file system are Debian's packages, downloaded by an apt configuration of their own and unpacked
//! under `target/vm`, where they stay: nothing is installed. A machine gets what was built here and prints what it did.

mod boot;
mod counts;
mod cpio;
mod fetch;
mod guest;
mod kernels;
mod load;
mod payload;
mod progress;
mod qemu;
mod rootfs;
mod scenarios;
mod store;
mod tools;
mod unpacked;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use counts::{Counts, Record, grouped};
use kernels::Kernel;
use payload::Built;
use progress::Progress;
use scenarios::Set;
use store::Store;
use tools::Tools;
use unpacked::Unpacked;

/// The kernels that are tried with every change.
const CI: &str = "6.1,6.12,7.2";
/// The one that has to be refused.
const REFUSED: &str = "5.10";

/// Machines at once, of one processor each. Tests wait now and then, and no processor of this machine is to be idle meanwhile.
const JOBS: u8 = 3;

/// What `cargo xtask vm` takes.
#[derive(Args)]
pub struct Options {
    /// The kernels: 6.1, 6.12, 7.2, 7.3; 5.10 has to be refused
    #[arg(long, value_name = "SERIES", value_delimiter = ',', default_value = CI, value_parser = known)]
    kernel: Vec<Kernel>,
    /// This alone
    #[arg(long)]
    only: Option<Part>,
    /// This test alone, of a file under tests/tests: `elsewhere::from_up_to_down`; may be given again
    #[arg(long, value_name = "FILE[::NAME]", conflicts_with_all = ["only", "record"])]
    test: Vec<String>,
    /// Record the verified instructions in tests/verified-instructions.txt instead of comparing them
    #[arg(long)]
    record: bool,
    /// How many machines at once
    #[arg(long, value_name = "N", default_value_t = JOBS, value_parser = clap::value_parser!(u8).range(1..))]
    jobs: u8,
    /// Download the newest kernels of the series, instead of taking what earlier runs left
    #[arg(long)]
    fresh: bool,
}

/// What is done in machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Every program is loaded, and its verified instructions are compared with the recorded ones
    Load,
    /// The packet tests: what each program makes of a packet
    Packets,
    /// Scenarios against a real Engine
    Scenarios,
}

fn known(series: &str) -> Result<Kernel, String> {
    kernels::find(series)
}

/// Everything in every kernel of [`CI`], and the refusal of [`REFUSED`].
pub fn ci(root: &Path) -> Result<()> {
    let kernel =
        CI.split(',').chain([REFUSED]).map(kernels::find).collect::<Result<_, _>>().map_err(anyhow::Error::msg)?;
    vm(root, &Options { kernel, only: None, test: Vec::new(), record: false, jobs: JOBS, fresh: false })
}

/// Builds, boots each kernel, and does everything there. Goes on after a failure of one.
pub fn vm(root: &Path, options: &Options) -> Result<()> {
    let parts = match options.only {
        Some(part) => vec![part],
        None if !options.test.is_empty() => vec![Part::Scenarios],
        None => vec![Part::Load, Part::Packets, Part::Scenarios],
    };
    let sets: Vec<(Kernel, Vec<Set>)> = options
        .kernel
        .iter()
        .map(|kernel| {
            let named: Vec<Set> = options.test.iter().map(|name| Set::named(name)).collect();
            (*kernel, if named.is_empty() { scenarios::of(*kernel, &parts) } else { named })
        })
        .collect();
    let store = Store::open(root)?;
    crate::setup::install_linker(root)?;
    let mut files: Vec<&str> = sets.iter().flat_map(|(_, sets)| sets).map(|set| set.file.as_ref()).collect();
    files.sort_unstable();
    files.dedup();
    let built = Built::build(root, &files)?;
    let progress = Progress::new("kernels");
    let tools = Tools::get(&store, &progress)?;
    let mut kernels = Vec::new();
    for (kernel, sets) in &sets {
        if options.fresh {
            store.forget(*kernel)?;
        }
        kernels.push((*kernel, (store.kernel(*kernel, &tools, &progress)?, sets.as_slice())));
    }
    let image = if files.is_empty() { None } else { Some(rootfs::image(&store, &tools, &progress)?) };
    progress.clear();

    let run = Run { store, tools, image, built, parts, progress };
    let mut record = Record::read(root)?;
    let mut failures = Vec::new();
    for (kernel, outcome) in
        at_once(options.jobs.into(), kernels, |kernel, (unpacked, sets)| run.one(kernel, &unpacked, sets))
    {
        failures.extend(outcome.failures);
        let Some(counts) = outcome.counts else { continue };
        if options.record {
            record.set(kernel.series, counts);
            record.write(root)?;
        } else {
            failures.extend(record.compare(kernel.series, &counts));
        }
    }
    if !failures.is_empty() {
        bail!("{}", failures.join("\n  "));
    }
    Ok(())
}

/// Does something for each kernel, `jobs` of them at once; gives the outcomes in the order of the kernels.
fn at_once<K: Send, T: Send>(
    jobs: usize,
    kernels: Vec<(Kernel, K)>,
    work: impl Fn(Kernel, K) -> T + Sync,
) -> Vec<(Kernel, T)> {
    let queue = Mutex::new(kernels.into_iter().enumerate());
    let done = Mutex::new(Vec::new());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some((n, (kernel, own))) = next() {
                    let outcome = work(kernel, own);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((n, (kernel, outcome)));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(n, _)| *n);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}

/// What machines are made of in one call of the command.
struct Run {
    store: Store,
    tools: Tools,
    image: Option<PathBuf>,
    built: Built,
    parts: Vec<Part>,
    progress: Progress,
}

/// What came of one kernel.
#[derive(Default)]
struct Outcome {
    /// Verified instructions, where every program was taken.
    counts: Option<Counts>,
    failures: Vec<String>,
}

impl Run {
    /// Everything for one kernel; what is to be read is printed at once, so that others do not write between its lines.
    fn one(&self, kernel: Kernel, unpacked: &Unpacked, sets: &[Set]) -> Outcome {
        let mut outcome = Outcome::default();
        let mut text = format!("Linux {} (Debian {})\n", unpacked.release, unpacked.version);
        let mut done = Ok(());
        // What is to be refused as a whole is not tried program by program.
        if kernel.works && self.parts.contains(&Part::Load) {
            done = self.load(kernel, unpacked, &mut text, &mut outcome);
        }
        if let (Ok(()), Some(image), false) = (&done, &self.image, sets.is_empty()) {
            done = self.test((kernel, unpacked), image, sets, &mut text, &mut outcome);
        }
        if let Err(error) = done {
            outcome.failures.push(format!("kernel {kernel}: {error:#}"));
        }
        self.progress.clear();
        print!("{text}");
        outcome
    }

    fn load(&self, kernel: Kernel, unpacked: &Unpacked, text: &mut String, outcome: &mut Outcome) -> Result<()> {
        let begun = Instant::now();
        let progress = &self.progress;
        let loaded =
            load::run(&self.store, &self.tools, unpacked, self.built.object(), &self.built.loader(), progress)?;
        writeln!(text, "  load, {:.0} s", begun.elapsed().as_secs_f32())?;
        for (name, count) in &loaded.taken {
            writeln!(text, "    {name:<20} {:>10} verified instructions", grouped(*count))?;
        }
        for (name, (why, lines)) in &loaded.refused {
            writeln!(text, "    {name:<20} refused: {why}")?;
            for line in lines {
                writeln!(text, "      | {line}")?;
            }
            outcome.failures.push(format!("kernel {kernel} refuses {name}: {why}"));
        }
        if loaded.refused.is_empty() {
            outcome.counts = Some(loaded.taken);
        }
        Ok(())
    }

    fn test(
        &self,
        (kernel, unpacked): (Kernel, &Unpacked),
        image: &Path,
        sets: &[Set],
        text: &mut String,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let begun = Instant::now();
        let tested =
            guest::run(&self.store, &self.tools, (kernel, unpacked), image, &self.built, sets, &self.progress)?;
        let seconds = begun.elapsed().as_secs_f32();
        writeln!(text, "  tests, {seconds:.0} s: {} passed, {} failed", tested.passed, tested.failed.len())?;
        let told = |name: &String| format!("kernel {kernel}: {name} failed: see {}", tested.log.display());
        outcome.failures.extend(tested.failed.iter().map(told));
        Ok(())
    }
}
