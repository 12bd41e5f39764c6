//! How long the machine's cores were busy, with everything that ran on them: programs, system calls, softirqs.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::{Pid, SysconfVar, sysconf};

/// Keeps the calling thread on one core.
pub fn pin(core: usize) -> io::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &cores)?)
}

/// Counts busy time of all cores from its start, on a machine that does nothing else.
pub struct Busy {
    start: Idle,
    cores: usize,
    home: usize,
}

/// How long cores had been idle at a moment.
struct Idle {
    at: Instant,
    time: Duration,
}

impl Busy {
    /// For a thread that stays on core `home`.
    pub fn start(home: usize) -> io::Result<Busy> {
        // Of the machine: `available_parallelism` would count those that the thread may use.
        let online = sysconf(SysconfVar::_NPROCESSORS_ONLN)?.ok_or_else(|| io::Error::other("no number of cores"))?;
        let cores = usize::try_from(online).map_err(io::Error::other)?;
        Ok(Busy { start: idle(cores, home)?, cores, home })
    }

    /// Seconds that cores were busy, summed over all of them.
    pub fn seconds(&self) -> io::Result<f64> {
        let end = idle(self.cores, self.home)?;
        let wall = (end.at - self.start.at) * self.cores as u32;
        Ok(wall.saturating_sub(end.time.saturating_sub(self.start.time)).as_secs_f64())
    }
}

/// Idle time of all cores: nanoseconds where the kernel shows them to root, else hundredths of a second.
fn idle(cores: usize, home: usize) -> io::Result<Idle> {
    let now = |time| Idle { at: Instant::now(), time };
    let Ok(_) = fs::metadata(TIMERS) else { return Ok(now(parse_stat(&fs::read_to_string("/proc/stat")?)?)) };
    // A core that sleeps adds its time when it wakes: each has this thread as a visitor.
    for core in (0..cores).filter(|core| *core != home) {
        pin(core)?;
    }
    pin(home)?;
    // To go there and back takes its time, in which they may sleep on: the moment is that of the reading.
    let text = fs::read_to_string(TIMERS)?;
    Ok(now(parse_timers(&text)?))
}

const TIMERS: &str = "/proc/timer_list";

fn parse_timers(text: &str) -> io::Result<Duration> {
    let times = text.lines().filter_map(|line| {
        let (name, rest) = line.trim().split_once(':')?;
        let is_idle = matches!(name.trim(), ".idle_sleeptime" | ".iowait_sleeptime");
        is_idle.then(|| rest.split_whitespace().next()?.parse::<u64>().ok()).flatten()
    });
    times
        .map(Duration::from_nanos)
        .reduce(|a, b| a + b)
        .ok_or_else(|| io::Error::other("no idle time in /proc/timer_list"))
}

/// `cpu user nice system idle iowait ...`, in hundredths of a second.
fn parse_stat(text: &str) -> io::Result<Duration> {
    let line = text.lines().next().unwrap_or_default();
    let idle: Vec<u64> = line.split_whitespace().skip(4).take(2).filter_map(|n| n.parse().ok()).collect();
    match idle[..] {
        [idle, iowait] => Ok(Duration::from_millis(10 * (idle + iowait))),
        _ => Err(io::Error::other("no idle time in /proc/stat")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_summed_over_cores() {
        let timers = "cpu: 0\n  .idle_sleeps    : 7\n  .idle_sleeptime : 5000 nsecs\n  .iowait_sleeptime: 20 nsecs\n\
                      cpu: 1\n  .idle_sleeptime : 3000 nsecs\n  .iowait_sleeptime: 1 nsecs\n";
        assert_eq!(parse_timers(timers).expect("times"), Duration::from_nanos(8021));
        assert!(parse_timers("nothing").is_err());
        pin(0).expect("a core");
        let busy = Busy::start(0).expect("idle times");
        assert!(busy.cores == 1 || busy.cores > std::thread::available_parallelism().expect("a number").get());
        assert_eq!(parse_stat("cpu  1 2 3 40 5 6 7 0 0 0\ncpu0 1\n").expect("times"), Duration::from_millis(450));
        assert!(parse_stat("cpu 1 2").is_err());
    }
}
