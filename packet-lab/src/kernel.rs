//! The kernel side, loaded for one test, or for an earlier one and emptied.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use crate::reuse::Loaded;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuValues};
use aya::programs::{Program, ProgramError, TestRun, TestRunOptions};
use aya::{EbpfLoader, Pod, VerifierLogLevel};
use runtime_common::maps::{Flow, FlowKey, FragmentKey, FragmentPorts, MAX_FRAGMENTS, Zone};
use runtime_common::{VERDICT_SLOTS, Verdict};

/// The program at XDP hooks.
pub const XDP: &str = "uplink_xdp";

/// Bytes of the kernel's `struct __sk_buff`, and where in it the interfaces are.
const SK_BUFF: usize = 192;
const INGRESS_IFINDEX: usize = 36;
const IFINDEX: usize = 40;

/// All programs and maps, attached and pinned nowhere.
pub struct Kernel {
    ebpf: Loaded,
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
fn load(program: &mut Program) -> Result<(), ProgramError> {
    loop {
        let outcome = match program {
            Program::SchedClassifier(program) => program.load(),
            Program::CgroupSockAddr(program) => program.load(),
            Program::Xdp(program) => program.load(),
            Program::SkLookup(program) => program.load(),
            _ => return Err(ProgramError::UnexpectedProgramType),
        };
        match outcome {
            Err(ProgramError::LoadError { io_error, .. }) if io_error.kind() == ErrorKind::WouldBlock => {}
            outcome => return outcome,
        }
    }
}

/// The kernel's `struct __sk_buff` of a packet that came in by an interface and is at another.
fn context(ifindex: u32, ingress: u32) -> [u8; SK_BUFF] {
    let mut context = [0; SK_BUFF];
    context[IFINDEX..IFINDEX + 4].copy_from_slice(&ifindex.to_ne_bytes());
    context[INGRESS_IFINDEX..INGRESS_IFINDEX + 4].copy_from_slice(&ingress.to_ne_bytes());
    context
}

impl Kernel {
    /// Builds the object where it is out of date, and makes its maps, which hold `flows` conversations or little more. A program
    /// is loaded when it is first run: on an emulated machine the verifier takes seconds for each.
    pub fn load(flows: u32) -> Self {
        Kernel::with_room(flows, 4096, MAX_FRAGMENTS as u32)
    }

    /// As [`Kernel::load`], with room for that many fragmented datagrams and conversations that have just begun. A map of little
    /// room is read and emptied sooner.
    pub fn with_room(flows: u32, pending: u32, fragments: u32) -> Self {
        // What is forgotten between tests stays counted.
        Kernel::sharing(flows, (pending, fragments), u32::MAX)
    }

    /// The same, with shares of a table for `shared` conversations.
    pub fn sharing(flows: u32, (pending, fragments): (u32, u32), shared: u32) -> Self {
        let open = || {
            EbpfLoader::new()
                .override_global("FLOW_ROOM", &shared, true)
                .map_max_entries("FLOWS", flows)
                .map_max_entries("PENDING", pending)
                .map_max_entries("FRAGMENTS", fragments)
                .map_max_entries("HOST_PEERS", 64)
                .verifier_log_level(VerifierLogLevel::STATS)
                .load(&std::fs::read(object()).unwrap())
                .unwrap()
        };
        Kernel { ebpf: Loaded::idle_or([flows, pending, fragments], open) }
    }

    /// Loads a program unless it is loaded.
    fn need(&mut self, name: &str) -> &mut Program {
        let program = self.ebpf.program_mut(name).unwrap_or_else(|| panic!("the object has no program {name}"));
        match load(program) {
            Ok(()) | Err(ProgramError::AlreadyLoaded) => program,
            Err(e) => panic!("{name}: {e:?}"),
        }
    }

    /// How many instructions the verifier went through, by program.
    pub fn verified(&mut self) -> Vec<(String, u32)> {
        let names: Vec<String> = self.ebpf.programs().map(|(name, _)| name.to_owned()).collect();
        let count = |p: &Program| p.info().unwrap().verified_instruction_count().unwrap();
        names.into_iter().map(|name| (name.clone(), count(self.need(&name)))).collect()
    }

    /// A hash map by name.
    pub fn map<K: Pod, V: Pod>(&mut self, name: &str) -> HashMap<&mut MapData, K, V> {
        HashMap::try_from(self.ebpf.map_mut(name).unwrap()).unwrap()
    }

    /// Forgets every conversation, and what is known of fragments.
    pub fn forget_conversations(&mut self) {
        self.take_conversations("FLOWS");
        self.take_conversations("PENDING");
        self.take_all::<FragmentKey, FragmentPorts>("FRAGMENTS");
    }

    /// All conversations of `FLOWS` or `PENDING`, which is empty then.
    pub fn take_conversations(&mut self, map: &str) -> Vec<(FlowKey, Flow)> {
        let all = self.take_all::<FlowKey, Flow>(map);
        // As for the daemon: a port without flows is not one of theirs any more.
        for (key, _) in all.iter().filter(|(key, _)| key.zone == Zone::Uplink as u8) {
            self.set("FLOW_PORTS", key.port_element(), 0u8);
        }
        all
    }

    /// All elements of a hash map, which is empty then.
    pub fn take_all<K: Pod, V: Pod>(&mut self, name: &str) -> Vec<(K, V)> {
        let (keys, values) = crate::elements::take_all(self.data(name), size_of::<K>(), size_of::<V>()).unwrap();
        // SAFETY: as many bytes as the type has, of which any are a value of it.
        let read = |(k, v): (&[u8], &[u8])| unsafe {
            (k.as_ptr().cast::<K>().read_unaligned(), v.as_ptr().cast::<V>().read_unaligned())
        };
        keys.chunks(size_of::<K>()).zip(values.chunks(size_of::<V>())).map(read).collect()
    }

    /// Sets an element by its bytes.
    pub fn put(&mut self, name: &str, key: &[u8], value: &[u8]) {
        if let (Map::Array(_), Ok(index)) = (self.ebpf.map(name).unwrap(), key.try_into()) {
            self.ebpf.note(name, u32::from_ne_bytes(index));
        }
        crate::elements::put(self.data(name), key, &mut value.to_vec()).unwrap();
    }

    /// Removes an element by its key's bytes, if it is there; one of an array becomes zero.
    pub fn remove(&mut self, name: &str, key: &[u8], value: usize) {
        match self.ebpf.map(name).unwrap() {
            Map::Array(_) => self.put(name, key, &vec![0; value]),
            _ => drop(crate::elements::remove(self.data(name), key).unwrap()),
        }
    }

    fn data(&self, name: &str) -> &MapData {
        match self.ebpf.map(name) {
            Some(
                Map::Array(map) | Map::HashMap(map) | Map::LpmTrie(map) | Map::LruHashMap(map) | Map::PerCpuArray(map),
            ) => map,
            _ => panic!("the object has no such map {name}"),
        }
    }

    /// Sets an entry of a trie of prefixes.
    pub fn set_prefix<K: Pod, V: Pod>(&mut self, name: &str, key: &Key<K>, value: V) {
        LpmTrie::try_from(self.ebpf.map_mut(name).unwrap()).unwrap().insert(key, value, 0).unwrap();
    }

    /// An element of an array.
    pub fn element(&self, name: &str, index: u32) -> u64 {
        Array::<_, u64>::try_from(self.ebpf.map(name).unwrap()).unwrap().get(&index, 0).unwrap()
    }

    /// Sets an element of an array.
    pub fn set<V: Pod>(&mut self, name: &str, index: u32, value: V) {
        self.ebpf.note(name, index);
        Array::try_from(self.ebpf.map_mut(name).unwrap()).unwrap().set(index, value, 0).unwrap();
    }

    /// Runs a program at a tc hook.
    pub fn classify(&mut self, name: &str, packet: &[u8], ifindex: u32, ingress: u32, repeat: u32) -> Outcome {
        self.run(name, packet, Some(&context(ifindex, ingress)), repeat)
    }

    /// Runs the program at the XDP hook.
    pub fn xdp(&mut self, packet: &[u8], repeat: u32) -> Outcome {
        self.run(XDP, packet, None, repeat)
    }

    fn run(&mut self, name: &str, packet: &[u8], context: Option<&[u8]>, repeat: u32) -> Outcome {
        // The counters of every CPU take longer to read than many runs take.
        let silent = repeat > 1;
        let before = if silent { vec![0; VERDICT_SLOTS] } else { self.counters() };
        let (code, packet, duration) = self.test_run(name, packet, context, repeat);
        let after = if silent { before.clone() } else { self.counters() };
        let counted = Verdict::ALL
            .iter()
            .map(|v| (*v, after[*v as usize] - before[*v as usize]))
            .filter(|(_, n)| *n != 0)
            .collect();
        Outcome { code, packet, counted, duration }
    }

    /// Runs a program at a tc hook, or at XDP where no interfaces are said: what it returned and the packet afterwards. Nothing is
    /// said of what was counted.
    pub fn run_once(&mut self, name: &str, packet: &[u8], interfaces: Option<(u32, u32)>) -> (i32, Vec<u8>) {
        let context = interfaces.map(|(ifindex, ingress)| context(ifindex, ingress));
        let (code, packet, _) = self.test_run(name, packet, context.as_ref().map(|c| &c[..]), 1);
        (code, packet)
    }

    fn test_run(&mut self, name: &str, packet: &[u8], context: Option<&[u8]>, repeat: u32) -> (i32, Vec<u8>, Duration) {
        let mut out = vec![0; packet.len() + 256];
        let result = loop {
            let mut options = TestRunOptions::new();
            options.data_in = Some(packet);
            options.data_out = Some(&mut out);
            options.ctx_in = context;
            options.repeat = repeat;
            let outcome = match self.need(name) {
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
        (result.return_value as i32, out, result.duration)
    }

    /// How often a verdict was counted.
    pub fn counter(&self, v: Verdict) -> u64 {
        let counters = PerCpuArray::<_, u64>::try_from(self.ebpf.map("COUNTERS").unwrap()).unwrap();
        counters.get(&(v as u32), 0).unwrap().iter().sum()
    }

    /// Sets the element of an array of which every CPU has its own to zeros.
    pub fn clear<V: Pod>(&mut self, name: &str, zero: V) {
        let cpus = aya::util::nr_cpus().unwrap();
        let values = PerCpuValues::try_from(vec![zero; cpus]).unwrap();
        PerCpuArray::try_from(self.ebpf.map_mut(name).unwrap()).unwrap().set(0, values, 0).unwrap();
    }

    /// How often each verdict was counted, by number.
    pub fn counters(&self) -> Vec<u64> {
        let cpus = aya::util::nr_cpus().unwrap();
        let values = crate::elements::values(self.data("COUNTERS"), cpus * size_of::<u64>()).unwrap();
        let of_cpus = |all: &[u8]| all.chunks(8).map(|n| u64::from_ne_bytes(n.try_into().unwrap())).sum();
        values.chunks(cpus * size_of::<u64>()).map(of_cpus).collect()
    }
}
