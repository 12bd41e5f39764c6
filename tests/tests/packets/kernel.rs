//! The kernel side, loaded for one test and unloaded at its end.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use aya::maps::{Array, HashMap, MapData, PerCpuArray};
use aya::programs::{CgroupSockAddr, Program, ProgramError, SchedClassifier, SkLookup, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, Pod, VerifierLogLevel};
use runtime_common::{VERDICT_SLOTS, Verdict};

/// The programs at tc hooks.
pub const CLASSIFIERS: [&str; 3] = ["uplink_ingress", "from_endpoint", "to_endpoint"];
/// The programs at cgroup hooks: the kernel has no test run for them.
const HOST_SOCKETS: [&str; 8] = [
    "host_connect4",
    "host_connect6",
    "host_sendmsg4",
    "host_sendmsg6",
    "host_recvmsg4",
    "host_recvmsg6",
    "host_getpeername4",
    "host_getpeername6",
];
/// The program at the socket lookup of a network namespace.
const SK_LOOKUP: &str = "relay_lookup";
/// The program at XDP hooks.
pub const XDP: &str = "uplink_xdp";

/// Bytes of the kernel's `struct __sk_buff`, and where in it the interfaces are.
const SK_BUFF: usize = 192;
const INGRESS_IFINDEX: usize = 36;
const IFINDEX: usize = 40;

/// All programs and maps, attached and pinned nowhere.
pub struct Kernel {
    ebpf: Ebpf,
}

/// What a program did with a packet.
#[derive(Debug)]
pub struct Outcome {
    /// What the program returned.
    pub code: i32,
    /// The packet afterwards.
    pub packet: Vec<u8>,
    /// Every verdict that was counted, and how often; nothing of repeated runs.
    pub counted: Vec<(Verdict, u64)>,
    /// Mean time of a run.
    #[allow(dead_code, reason = "the benchmark reads it")]
    pub duration: Duration,
}

fn object() -> &'static Path {
    static OBJECT: OnceLock<PathBuf> = OnceLock::new();
    OBJECT.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        match std::env::var_os("RUNTIME_EBPF_OBJECT").filter(|path| !path.is_empty()) {
            Some(path) => root.join(path),
            None => xtask::ebpf::build(root).unwrap(),
        }
    })
}

/// Loads a program, again where a signal interrupted the verifier: a test that is stopped and goes on.
fn load(mut attempt: impl FnMut() -> Result<(), ProgramError>) -> Result<(), ProgramError> {
    loop {
        match attempt() {
            Err(ProgramError::LoadError { io_error, .. }) if io_error.kind() == ErrorKind::WouldBlock => {}
            outcome => return outcome,
        }
    }
}

impl Kernel {
    /// Builds the object where it is out of date, and loads it with maps that hold `flows` conversations or little more.
    pub fn load(flows: u32) -> Self {
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("FLOWS", flows)
            .map_max_entries("PENDING", 4096)
            .verifier_log_level(VerifierLogLevel::STATS)
            .load(&std::fs::read(object()).unwrap())
            .unwrap();
        for name in CLASSIFIERS {
            let program: &mut SchedClassifier = ebpf.program_mut(name).unwrap().try_into().unwrap();
            load(|| program.load()).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        }
        for name in HOST_SOCKETS {
            let program: &mut CgroupSockAddr = ebpf.program_mut(name).unwrap().try_into().unwrap();
            load(|| program.load()).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        }
        let program: &mut SkLookup = ebpf.program_mut(SK_LOOKUP).unwrap().try_into().unwrap();
        load(|| program.load()).unwrap_or_else(|e| panic!("{SK_LOOKUP}: {e:?}"));
        let program: &mut Xdp = ebpf.program_mut(XDP).unwrap().try_into().unwrap();
        load(|| program.load()).unwrap_or_else(|e| panic!("{XDP}: {e:?}"));
        Kernel { ebpf }
    }

    /// How many instructions the verifier went through, by program.
    pub fn verified(&self) -> Vec<(String, u32)> {
        let count = |p: &Program| p.info().unwrap().verified_instruction_count().unwrap();
        self.ebpf.programs().map(|(name, program)| (name.to_owned(), count(program))).collect()
    }

    /// A hash map by name.
    pub fn map<K: Pod, V: Pod>(&mut self, name: &str) -> HashMap<&mut MapData, K, V> {
        HashMap::try_from(self.ebpf.map_mut(name).unwrap()).unwrap()
    }

    /// An element of an array.
    pub fn element(&self, name: &str, index: u32) -> u64 {
        Array::<_, u64>::try_from(self.ebpf.map(name).unwrap()).unwrap().get(&index, 0).unwrap()
    }

    /// Sets an element of an array.
    pub fn set<V: Pod>(&mut self, name: &str, index: u32, value: V) {
        Array::try_from(self.ebpf.map_mut(name).unwrap()).unwrap().set(index, value, 0).unwrap();
    }

    /// Runs a program at a tc hook.
    pub fn classify(&mut self, name: &str, packet: &[u8], ifindex: u32, ingress: u32, repeat: u32) -> Outcome {
        let mut context = [0; SK_BUFF];
        context[IFINDEX..IFINDEX + 4].copy_from_slice(&ifindex.to_ne_bytes());
        context[INGRESS_IFINDEX..INGRESS_IFINDEX + 4].copy_from_slice(&ingress.to_ne_bytes());
        self.run(name, packet, Some(&context), repeat)
    }

    /// Runs the program at the XDP hook.
    pub fn xdp(&mut self, packet: &[u8], repeat: u32) -> Outcome {
        self.run(XDP, packet, None, repeat)
    }

    fn run(&mut self, name: &str, packet: &[u8], context: Option<&[u8]>, repeat: u32) -> Outcome {
        // The counters of every CPU take longer to read than many runs take.
        let silent = repeat > 1;
        let before = if silent { vec![0; VERDICT_SLOTS] } else { self.counters() };
        let mut out = vec![0; packet.len() + 256];
        let result = loop {
            let mut options = TestRunOptions::new();
            options.data_in = Some(packet);
            options.data_out = Some(&mut out);
            options.ctx_in = context;
            options.repeat = repeat;
            let outcome = match self.ebpf.program_mut(name).unwrap() {
                Program::SchedClassifier(program) => program.test_run(options),
                Program::Xdp(program) => program.test_run(options),
                other => panic!("{name}: {other:?}"),
            };
            match outcome {
                // Between two of many runs.
                Err(ProgramError::SyscallError(e)) if e.io_error.kind() == ErrorKind::Interrupted => {}
                outcome => break outcome.unwrap_or_else(|e| panic!("{name}: {} bytes: {e:?}", packet.len())),
            }
        };
        out.truncate(result.data_size_out as usize);
        let after = if silent { before.clone() } else { self.counters() };
        let counted = Verdict::ALL
            .iter()
            .map(|v| (*v, after[*v as usize] - before[*v as usize]))
            .filter(|(_, n)| *n != 0)
            .collect();
        Outcome { code: result.return_value as i32, packet: out, counted, duration: result.duration }
    }

    fn counters(&self) -> Vec<u64> {
        let counters = PerCpuArray::<_, u64>::try_from(self.ebpf.map("COUNTERS").unwrap()).unwrap();
        (0..counters.len()).map(|i| counters.get(&i, 0).unwrap().iter().sum()).collect()
    }
}
