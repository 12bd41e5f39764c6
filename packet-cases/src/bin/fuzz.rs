//! Cases by chance, through the naive model, the host build and the kernel's programs: `cargo xtask fuzz`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use packet_cases::compare::{by_host, host_like_model, kernel_like_host};
use packet_cases::generate::{CASES_OF_A_WORLD, case};
use packet_cases::host::IFINDEXES;
use packet_cases::kernel::KernelWorld;
use packet_cases::shrink::shrink;
use packet_cases::world::Case;

/// Packet cases by chance: any difference between the model, the host build and the kernel is made small and printed.
#[derive(Parser)]
struct Options {
    /// How many cases
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    cases: u64,
    /// Of which random numbers
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// The first case's number
    #[arg(long, value_name = "N", default_value_t = 0)]
    first: u64,
    /// How many of them go through the kernel too (as root); all where it is not said
    #[arg(long, value_name = "N")]
    kernel: Option<u64>,
    /// Stop after so many seconds
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
    /// Stop after so many differences
    #[arg(long, value_name = "N", default_value_t = 1)]
    finds: usize,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let begun = Instant::now();
    let in_kernel = options.kernel.unwrap_or(options.cases);
    let mut kernel = (in_kernel > 0).then(KernelWorld::load);
    let (mut sure, mut packets, mut ran, mut kernel_cases, mut kernel_packets, mut finds) = (0, 0, 0, 0, 0, 0);
    let mut world = None;
    for n in options.first..options.first + options.cases {
        if options.seconds.is_some_and(|s| begun.elapsed() > Duration::from_secs(s)) {
            break;
        }
        let (case, outcomes) = case(options.seed, n);
        ran += 1;
        packets += outcomes.len();
        match host_like_model(&case, &outcomes) {
            Ok(n) => sure += n,
            Err(what) => {
                report(n, &options, &what, case.clone(), &mut |case| {
                    host_like_model(case, &by_host(case, IFINDEXES).0).err()
                });
                finds += 1;
            }
        }
        if let Some(kernel) = kernel.as_mut().filter(|_| n < options.first + in_kernel) {
            if world != Some(n / CASES_OF_A_WORLD) {
                kernel.become_world(&case.world);
                world = Some(n / CASES_OF_A_WORLD);
            }
            kernel_cases += 1;
            kernel_packets += outcomes.len();
            if let Err(what) = kernel_like_host(kernel, &case) {
                report(n, &options, &what, case, &mut |case| {
                    kernel.become_world(&case.world);
                    kernel_like_host(kernel, case).err()
                });
                world = None;
                finds += 1;
            } else if let Some(v) = (n % 64 == 63).then(|| kernel.surplus()).flatten() {
                println!("cases up to {n}: the kernel has counted {v} once more than was seen");
                finds += 1;
            }
        }
        if finds >= options.finds {
            break;
        }
    }
    println!(
        "{ran} cases with {packets} packets, {sure} of which the model is sure of; {kernel_cases} cases with {kernel_packets} packets through the kernel, \
         in {:.0} s: {finds} differences",
        begun.elapsed().as_secs_f64()
    );
    if finds == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn report(n: u64, options: &Options, what: &str, case: Case, fails: &mut dyn FnMut(&Case) -> Option<String>) {
    println!("case {n} of seed {}: {what}", options.seed);
    let small = shrink(case, &mut |c| fails(c).is_some());
    println!("made smaller: {}", fails(&small).unwrap_or_else(|| "nothing: it depends on what was before".to_owned()));
    println!("case found\n{}", small.world);
    small.events.iter().for_each(|event| println!("{event}"));
}
