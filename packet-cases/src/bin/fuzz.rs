//! Cases by chance, through the naive model, the host build and the kernel's programs: `cargo xtask fuzz`.
#![allow(clippy::unwrap_used, reason = "in a test, also in what helps it")]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, available_parallelism};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use packet_cases::compare::{by_host, host_like_model, kernel_like_host};
use packet_cases::generate::{CASES_OF_A_WORLD, case};
use packet_cases::host::IFINDEXES;
use packet_cases::kernel::{KernelWorld, keep_to_a_processor};
use packet_cases::shrink::shrink;
use packet_cases::world::{Case, Outcome};
use runtime_common::Verdict;

/// What a case is run through.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Leg {
    /// The naive model.
    Model,
    /// The host build of the decisions: the others are compared to it.
    Host,
    /// The kernel's verified programs, as root.
    Kernel,
}

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
    /// Through which of them, the kernel as root
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["model", "host", "kernel"])]
    legs: Vec<Leg>,
    /// How many cases at once; without, one on each processor
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Stop after so many seconds
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
    /// Stop after so many differences
    #[arg(long, value_name = "N", default_value_t = 1)]
    finds: usize,
}

/// Cases that one thread takes at a time.
const ROUND: u64 = 16 * CASES_OF_A_WORLD;

/// How often the sums are told of while it runs.
const TOLD_EVERY: Duration = Duration::from_secs(60);

struct Run {
    options: Options,
    begun: Instant,
    /// The first case that no thread has taken.
    next: AtomicU64,
    finds: AtomicUsize,
    sums: Mutex<(Sums, Instant)>,
}

/// What was run.
#[derive(Clone, Default)]
struct Sums {
    cases: u64,
    packets: usize,
    sure: usize,
    kernel_cases: u64,
    kernel_packets: usize,
    /// Packets by verdict, of all and of those that went through the kernel.
    verdicts: BTreeMap<&'static str, [u64; 2]>,
}

impl Sums {
    fn add(&mut self, other: &Sums) {
        self.cases += other.cases;
        self.packets += other.packets;
        self.sure += other.sure;
        self.kernel_cases += other.kernel_cases;
        self.kernel_packets += other.kernel_packets;
        for (verdict, [all, kernel]) in &other.verdicts {
            self.count(verdict, *all, *kernel);
        }
    }

    fn count(&mut self, verdict: &'static str, all: u64, kernel: u64) {
        let [a, k] = self.verdicts.entry(verdict).or_default();
        (*a, *k) = (*a + all, *k + kernel);
    }

    fn tell(&self, run: &Run) {
        println!(
            "{} cases with {} packets, {} of which the model is sure of; {} cases with {} packets through the kernel, in {:.0} s: {} differences",
            self.cases,
            self.packets,
            self.sure,
            self.kernel_cases,
            self.kernel_packets,
            run.begun.elapsed().as_secs_f64(),
            run.finds.load(Ordering::Relaxed)
        );
    }

    fn tell_verdicts(&self) {
        let of = |leg: usize| {
            Verdict::ALL.iter().map(move |v| (v.name(), self.verdicts.get(v.name()).map_or(0, |n| n[leg])))
        };
        for (leg, who) in
            ["host build", "kernel"].iter().enumerate().filter(|(leg, _)| *leg == 0 || self.kernel_cases > 0)
        {
            let reached: Vec<_> = of(leg).filter(|(_, n)| *n > 0).map(|(v, n)| format!("{v} {n}")).collect();
            let never: Vec<_> = of(leg).filter(|(_, n)| *n == 0).map(|(v, _)| v).collect();
            println!("{who}, packets by verdict: {}; none: {}", reached.join(", "), never.join(", "));
        }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let threads = options.threads.unwrap_or_else(|| available_parallelism().map_or(1, usize::from)).max(1);
    let begun = Instant::now();
    let run = Run {
        begun,
        next: AtomicU64::new(options.first),
        finds: AtomicUsize::new(0),
        sums: Mutex::new((Sums::default(), begun)),
        options,
    };
    thread::scope(|scope| {
        for n in 0..threads {
            scope.spawn({
                let run = &run;
                move || run.work(n)
            });
        }
    });
    let sums = &run.sums.lock().unwrap().0;
    sums.tell_verdicts();
    sums.tell(&run);
    if run.finds.load(Ordering::Relaxed) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Run {
    /// What one thread does.
    fn work(&self, thread: usize) {
        let o = &self.options;
        let mut kernel = o.legs.contains(&Leg::Kernel).then(|| {
            keep_to_a_processor(thread);
            KernelWorld::load()
        });
        let end = o.first.saturating_add(o.cases);
        loop {
            let late = o.seconds.is_some_and(|s| self.begun.elapsed() > Duration::from_secs(s));
            let first = self.next.fetch_add(ROUND, Ordering::Relaxed);
            if late || first >= end || self.finds.load(Ordering::Relaxed) >= o.finds {
                return;
            }
            let sums = self.round(first..end.min(first + ROUND), kernel.as_mut());
            let (all, told) = &mut *self.sums.lock().unwrap();
            all.add(&sums);
            if told.elapsed() > TOLD_EVERY {
                all.tell(self);
                *told = Instant::now();
            }
        }
    }

    fn round(&self, numbers: std::ops::Range<u64>, mut kernel: Option<&mut KernelWorld>) -> Sums {
        let mut sums = Sums::default();
        let mut world = None;
        let ifindexes = kernel.as_ref().map_or(IFINDEXES, |kernel| kernel.ifindexes);
        for n in numbers {
            if self.finds.load(Ordering::Relaxed) >= self.options.finds {
                break;
            }
            let (case, outcomes, host) = case(self.options.seed, n, ifindexes);
            sums.cases += 1;
            sums.packets += outcomes.len();
            if self.options.legs.contains(&Leg::Model) {
                match host_like_model(&case, &outcomes) {
                    Ok(n) => sums.sure += n,
                    Err(what) => self.report(n, &what, case.clone(), &mut |case| {
                        host_like_model(case, &by_host(case, ifindexes).0).err()
                    }),
                }
            }
            let mut in_kernel = false;
            if let Some(kernel) = &mut kernel {
                if world != Some(n / CASES_OF_A_WORLD) {
                    kernel.become_world(&case.world);
                    world = Some(n / CASES_OF_A_WORLD);
                }
                match kernel_like_host(kernel, &case, &outcomes, &host) {
                    Ok(ran) => in_kernel = ran,
                    Err(what) => {
                        self.report(n, &what, case, &mut |case| {
                            kernel.become_world(&case.world);
                            let (outcomes, host) = by_host(case, kernel.ifindexes);
                            kernel_like_host(kernel, case, &outcomes, &host).err()
                        });
                        world = None;
                    }
                }
            }
            sums.kernel_cases += u64::from(in_kernel);
            sums.kernel_packets += if in_kernel { outcomes.len() } else { 0 };
            for verdict in outcomes.iter().filter_map(|o: &Outcome| o.verdict) {
                sums.count(verdict, 1, in_kernel.into());
            }
        }
        if let Some(v) = kernel.and_then(|kernel| kernel.surplus()) {
            println!("some case before this: the kernel has counted {v} once more than was seen");
            self.finds.fetch_add(1, Ordering::Relaxed);
        }
        sums
    }

    fn report(&self, n: u64, what: &str, case: Case, fails: &mut dyn FnMut(&Case) -> Option<String>) {
        self.finds.fetch_add(1, Ordering::Relaxed);
        let small = shrink(case, &mut |c| fails(c).is_some());
        let why = fails(&small).unwrap_or_else(|| "nothing: it depends on what was before".to_owned());
        // One after another.
        let _one = self.sums.lock().unwrap();
        println!("case {n} of seed {}: {what}\nmade smaller: {why}\ncase found\n{}", self.options.seed, small.world);
        small.events.iter().for_each(|event| println!("{event}"));
    }
}
