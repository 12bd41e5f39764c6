//! The `runtime` command under test.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result};
use aya::maps::{Map, MapData, PerCpuArray};
use runtime_common::Verdict;

use crate::process::Background;

/// A program that cargo built beside this one; `remedy` is the command that builds it.
pub(crate) fn beside(program: &str, remedy: &str) -> Result<PathBuf> {
    let me = std::env::current_exe().context("cannot tell where this program is")?;
    let dirs = me.ancestors().skip(1).take(2);
    let mut candidates = dirs.map(|d| d.join(program));
    candidates.find(|p| p.is_file()).with_context(|| {
        let dir = me.parent().unwrap_or(Path::new("/"));
        format!("{program} is neither in {} nor in the folder above: build it with `{remedy}`", dir.display())
    })
}

/// `runtime up` in the foreground; killed when dropped, as with `kill -9`.
#[derive(Debug)]
pub struct Up {
    pub(crate) process: Background,
}

impl Up {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Ends it without a chance to tidy up, as `kill -9` does.
    pub fn kill(mut self) {
        self.process.kill();
    }

    /// Ends it as an init system does.
    ///
    /// # Panics
    /// When it takes longer than ten seconds.
    #[track_caller]
    pub fn stop(mut self) -> ExitStatus {
        let limit = Duration::from_secs(10);
        match self.process.terminate(limit) {
            Some(status) => status,
            None => panic!("runtime up does not end within {limit:?} of SIGTERM; it wrote:\n{}", self.process.output()),
        }
    }

    /// How it ended, once it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.ended()
    }

    /// What it has written so far.
    pub fn output(&self) -> String {
        self.process.output()
    }
}

/// Packets by verdict, as `runtime status` reports them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    all: BTreeMap<String, (String, u64)>,
}

impl Counters {
    /// Out of the pinned map whose sums `runtime status` reports: without a process for each look.
    pub(crate) fn pinned(map: &Path) -> Result<Self> {
        let data = MapData::from_pin(map).with_context(|| format!("cannot open {}", map.display()))?;
        let counters = PerCpuArray::<_, u64>::try_from(Map::PerCpuArray(data))?;
        let read = |verdict: &Verdict| -> Result<_> {
            let packets = counters.get(&(*verdict as u32), 0)?.iter().sum();
            Ok((verdict.name().to_owned(), (verdict.kind().name().to_owned(), packets)))
        };
        Ok(Counters { all: Verdict::ALL.iter().map(read).collect::<Result<_>>()? })
    }

    /// From the JSON of `runtime status --format json`.
    pub(crate) fn parse(status: &str) -> Result<Self> {
        let status: serde_json::Value = serde_json::from_str(status).context("runtime status: no JSON")?;
        let list = status["counters"].as_array().context("runtime status: no list `counters`")?;
        let mut all = BTreeMap::new();
        for entry in list {
            let verdict = entry["verdict"].as_str().context("runtime status: a counter without `verdict`")?;
            let kind = entry["kind"].as_str().context("runtime status: a counter without `kind`")?;
            let packets = entry["packets"].as_u64().context("runtime status: a counter without `packets`")?;
            all.insert(verdict.to_owned(), (kind.to_owned(), packets));
        }
        Ok(Counters { all })
    }

    /// Packets with this verdict.
    pub fn packets(&self, verdict: &str) -> u64 {
        self.all.get(verdict).map_or(0, |(_, packets)| *packets)
    }

    /// Packets with verdicts of this kind: `drop`, `forward` or `pass`.
    pub fn of_kind(&self, kind: &str) -> u64 {
        self.all.values().filter(|(k, _)| k == kind).map(|(_, packets)| packets).sum()
    }

    /// Packets by drop reason.
    pub fn drops(&self) -> BTreeMap<String, u64> {
        let drops = self.all.iter().filter(|(_, (kind, _))| kind == "drop");
        drops.map(|(verdict, (_, packets))| (verdict.clone(), *packets)).collect()
    }

    /// Without the packets that the datapath left alone.
    pub fn decided(&self) -> Counters {
        let kept = self.all.iter().filter(|(_, (kind, _))| kind != "pass");
        Counters { all: kept.map(|(verdict, counter)| (verdict.clone(), counter.clone())).collect() }
    }

    /// What was added since `before`.
    pub fn since(&self, before: &Counters) -> Counters {
        let delta = |(verdict, (kind, packets)): (&String, &(String, u64))| {
            let added = packets.saturating_sub(before.packets(verdict));
            (added > 0).then(|| (verdict.clone(), (kind.clone(), added)))
        };
        Counters { all: self.all.iter().filter_map(delta).collect() }
    }
}

impl std::fmt::Display for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, (verdict, (_, packets))) in self.all.iter().enumerate() {
            write!(f, "{}{verdict} +{packets}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
