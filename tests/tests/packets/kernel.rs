//! The kernel side, loaded for one test and unloaded at its end.

use std::path::Path;

use aya::programs::{Program, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};

/// The programs at tc hooks.
pub const CLASSIFIERS: [&str; 3] = ["uplink_ingress", "from_endpoint", "to_endpoint"];
/// The program at XDP hooks.
pub const XDP: &str = "uplink_xdp";

/// All programs and maps, attached and pinned nowhere.
pub struct Kernel {
    ebpf: Ebpf,
}

impl Kernel {
    /// Builds the object where it is out of date, and loads it.
    pub fn load() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let object = match std::env::var_os("RUNTIME_EBPF_OBJECT").filter(|path| !path.is_empty()) {
            Some(path) => root.join(path),
            None => xtask::ebpf::build(root).unwrap(),
        };
        let mut ebpf = EbpfLoader::new()
            .verifier_log_level(VerifierLogLevel::STATS)
            .load(&std::fs::read(object).unwrap())
            .unwrap();
        for name in CLASSIFIERS {
            let program: &mut SchedClassifier = ebpf.program_mut(name).unwrap().try_into().unwrap();
            program.load().unwrap_or_else(|e| panic!("{name}: {e:?}"));
        }
        let program: &mut Xdp = ebpf.program_mut(XDP).unwrap().try_into().unwrap();
        program.load().unwrap_or_else(|e| panic!("{XDP}: {e:?}"));
        Kernel { ebpf }
    }

    /// How many instructions the verifier went through, by program.
    pub fn verified(&mut self) -> Vec<(String, u32)> {
        let count = |p: &Program| p.info().unwrap().verified_instruction_count().unwrap();
        self.ebpf.programs().map(|(name, program)| (name.to_owned(), count(program))).collect()
    }
}
