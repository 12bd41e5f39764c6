//! Other kernels, booted in QEMU: what the datapath does there.
//!
//! Kernels, emulator and root file system are Debian's packages, downloaded by an apt configuration of their own and unpacked
//! under `target/vm`, where they stay: nothing is installed. A machine gets what was built here and prints what it did.

mod counts;
mod cpio;
mod kernels;
mod load;
mod qemu;
mod store;
mod suite;
mod tool;

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use counts::{Record, grouped};
use kernels::Kernel;
use qemu::Emulator;
use store::Store;
use tool::Progress;

use crate::run::{cargo, run};

/// What `cargo xtask vm` takes.
#[derive(Args)]
pub struct Options {
    /// The kernels: 6.1, 6.12, 7.2, 7.3; 5.10 has to be refused
    #[arg(long, value_name = "SERIES", value_delimiter = ',', default_value = "6.1,6.12,7.2", value_parser = known)]
    kernel: Vec<Kernel>,
    /// This alone
    #[arg(long)]
    only: Option<Part>,
    /// Record the verified instructions in tests/verified-instructions.txt instead of comparing them
    #[arg(long)]
    record: bool,
    /// Download the newest kernels of the series, instead of taking what earlier runs left
    #[arg(long)]
    fresh: bool,
}

/// What is done in a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Every program is loaded, and its verified instructions are compared with the recorded ones
    Load,
}

fn known(series: &str) -> Result<Kernel, String> {
    kernels::find(series)
}

/// Builds, boots each kernel, and does everything there. Goes on after a failure of one.
pub fn vm(root: &Path, options: &Options) -> Result<()> {
    let store = Store::open(root)?;
    crate::setup::install_linker(root)?;
    let object = xtask::ebpf::build(root)?;
    run(cargo().args(["build", "--quiet", "--package", "tests", "--bin", "load"]))?;
    let loader = root.join("target/debug/load");
    let mut record = Record::read(root)?;
    let mut failures = Vec::new();
    for kernel in &options.kernel {
        let progress = Progress::new(&format!("kernel {kernel}"));
        if options.fresh {
            store.forget(*kernel)?;
        }
        let begun = Instant::now();
        let emulator = Emulator::get(&store, &progress)?;
        let unpacked = store.kernel(*kernel, &progress)?;
        let loaded = load::run(&store, &emulator, &unpacked, &object, &loader, &progress)
            .with_context(|| format!("kernel {kernel}"));
        progress.clear();
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                failures.push(format!("{error:#}"));
                continue;
            }
        };
        println!("Linux {} (Debian {}), {:.0} s", unpacked.release, unpacked.version, begun.elapsed().as_secs_f32());
        for (name, count) in &loaded.taken {
            println!("  {name:<20} {:>10} verified instructions", grouped(*count));
        }
        for (name, (why, lines)) in &loaded.refused {
            println!("  {name:<20} refused: {why}");
            for line in lines {
                println!("    | {line}");
            }
            failures.push(format!("kernel {kernel} refuses {name}: {why}"));
        }
        if options.record {
            record.set(kernel.series, loaded.taken);
            record.write(root)?;
        } else if loaded.refused.is_empty() {
            failures.extend(record.compare(kernel.series, &loaded.taken));
        }
    }
    if !failures.is_empty() {
        bail!("{}", failures.join("\n  "));
    }
    Ok(())
}
