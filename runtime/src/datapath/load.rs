//! Loading programs into the kernel, and what a verifier that refuses one has to say.

use std::io::ErrorKind::WouldBlock;
use std::path::PathBuf;

use aya::programs::{Program, ProgramError};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};

use super::hook::Hook;
use super::pins::{MAPS, Pins};
use super::{DatapathError, chain};
use crate::failpoint;

/// How often a program is loaded before interruptions count as a refusal.
const ATTEMPTS: u32 = 32;

/// What an object is loaded with.
pub(super) struct Loader<'a> {
    /// The object.
    pub object: &'a [u8],
    /// Where its maps are pinned, or will be.
    pub pins: &'a Pins,
    /// Whether programs at cgroup hooks can choose the error of a call that they refuse.
    pub can_set_retval: bool,
    /// The file that the verifier's log is written to when it refuses a program.
    pub log: PathBuf,
}

impl Loader<'_> {
    /// Reads the object and makes its maps, or takes those that are pinned. No program is in the kernel yet.
    pub fn open(&self) -> Result<Ebpf, DatapathError> {
        // Of a refusal that is the reason alone, which has room everywhere; where it came to that is asked for afterwards.
        self.open_with(VerifierLogLevel::STATS).map_err(|e| DatapathError::Load(chain(&e)))
    }

    fn open_with(&self, level: VerifierLogLevel) -> Result<Ebpf, aya::EbpfError> {
        let mut loader = EbpfLoader::new();
        loader.verifier_log_level(level);
        for name in MAPS {
            loader.map_pin_path(name, self.pins.map(name));
        }
        let can_set_retval = u8::from(self.can_set_retval);
        loader.override_global("CAN_SET_RETVAL", &can_set_retval, true);
        loader.load(self.object)
    }

    /// Loads a program into the kernel.
    ///
    /// # Errors
    /// One line, with the hook, and with the verifier's reason where it has one.
    pub fn load(&self, ebpf: &mut Ebpf, hook: Hook) -> Result<(), String> {
        let reason = match attempt(ebpf, hook) {
            Ok(()) => return Ok(()),
            Err(ProgramError::LoadError { io_error, verifier_log }) => {
                let log = verifier_log.to_string();
                match reason(&log) {
                    Some(reason) => self.explain(hook, reason, &log),
                    // Not the verifier: a right or a kernel's option that is missing.
                    None => io_error.to_string(),
                }
            }
            Err(e) => chain(&e),
        };
        Err(format!("{hook}: {reason}"))
    }

    /// Loads a refused program once more, for the way that led to the refusal.
    fn explain(&self, hook: Hook, reason: &str, log: &str) -> String {
        let mut ebpf = self.open_with(VerifierLogLevel::DEBUG | VerifierLogLevel::STATS).ok();
        let way = match ebpf.as_mut().map(|ebpf| attempt(ebpf, hook)) {
            Some(Err(ProgramError::LoadError { verifier_log, .. })) => verifier_log.to_string(),
            _ => String::new(),
        };
        // Older verifiers keep the beginning of a log that has no room: the end is what matters.
        let (whole, place) = match way.contains(reason) {
            true => (way.as_str(), place(&way)),
            false => (log, None),
        };
        let at = place.map(|place| format!(", at {place}")).unwrap_or_default();
        let rest = match std::fs::write(&self.log, whole) {
            Ok(()) => format!("the verifier's whole log is in {}", self.log.display()),
            Err(e) => format!("the verifier's log could not be written to {}: {e}", self.log.display()),
        };
        format!("the verifier refuses it: {reason}{at}; {rest}")
    }
}

/// Loads a program. The verifier gives up with `EAGAIN` where a signal arrives meanwhile, and be it that the process was stopped
/// and goes on: that says nothing of the program.
fn attempt(ebpf: &mut Ebpf, hook: Hook) -> Result<(), ProgramError> {
    let mut again = ATTEMPTS;
    loop {
        again -= 1;
        failpoint::step();
        let outcome = match ebpf.program_mut(hook.program()) {
            Some(Program::SchedClassifier(p)) => p.load(),
            Some(Program::Xdp(p)) => p.load(),
            Some(Program::CgroupSockAddr(p)) => p.load(),
            Some(Program::SkLookup(p)) => p.load(),
            _ => Err(ProgramError::UnexpectedProgramType),
        };
        match outcome {
            Err(ProgramError::LoadError { io_error, .. }) if io_error.kind() == WouldBlock && again > 0 => {}
            outcome => return outcome,
        }
    }
}

/// What the verifier counts when it is through, whatever the outcome.
fn is_statistics(line: &str) -> bool {
    const BEGINNINGS: [&str; 4] = ["verification time ", "stack depth ", "processed ", "insns "];
    line.is_empty() || line == "." || BEGINNINGS.iter().any(|b| line.starts_with(b))
}

/// The last thing that the verifier said of the program itself.
fn reason(log: &str) -> Option<&str> {
    log.lines().map(str::trim).rfind(|line| !is_statistics(line))
}

/// The instruction that was looked at last, and the line of the source that it is of.
fn place(log: &str) -> Option<String> {
    let lines: Vec<&str> = log.lines().map(str::trim).collect();
    // `2999: (79) r0 = *(u64 *)(r1 +0)`, perhaps with registers after a semicolon.
    let instruction = lines.iter().rposition(|line| {
        let number = line.split_once(": (").map(|(number, _)| number);
        number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    })?;
    let text = lines[instruction].split(" ;").next().unwrap_or_default().trim_end();
    let source = lines[..instruction].iter().rev().find_map(|line| line.strip_prefix("; "));
    Some(match source {
        Some(source) => format!("instruction {text} of \"{source}\""),
        None => format!("instruction {text}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::OBJECT;

    /// The object with a fault in a program: just before it ends, it reads beyond its stack.
    fn broken(program: &str) -> Vec<u8> {
        const EXIT: u8 = 0x95;
        /// `r0 = *(u64 *)(r10 + 0)`: whatever the other registers hold.
        const READ: [u8; 8] = [0x79, 0xa0, 0, 0, 0, 0, 0, 0];
        let object = aya_obj::Object::parse(OBJECT).unwrap();
        let function = &object.functions[&object.programs[program].function_key()];
        let opcodes: Vec<u8> = function.instructions.iter().map(|i| i.code).collect();
        let bytes = opcodes.len() * 8;
        let start = (0..OBJECT.len() - bytes)
            .step_by(8)
            .find(|at| OBJECT[*at..at + bytes].chunks(8).map(|i| i[0]).eq(opcodes.iter().copied()))
            .expect("the program's instructions");
        let mut copy = OBJECT.to_vec();
        for n in (1..opcodes.len()).filter(|n| opcodes[*n] == EXIT) {
            copy[start + (n - 1) * 8..][..8].copy_from_slice(&READ);
        }
        copy
    }

    /// A folder for pins of one's own, removed with everything in it.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            Folder(format!("/sys/fs/bpf/runtime-test-{name}-{}", std::process::id()).into())
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// Needs root and a bpffs at /sys/fs/bpf; attaches nothing.
    #[test]
    fn a_refusal_names_the_verifiers_reason_and_where_it_came_to_it() {
        for hook in [Hook::FromEndpoint, Hook::UplinkXdp, Hook::HostConnect4] {
            let folder = Folder::new(hook.program());
            let pins = Pins::new(&folder.0);
            pins.prepare().unwrap();
            let log = std::env::temp_dir().join(format!("{hook}-{}.log", std::process::id()));
            let object = broken(hook.program());
            let loader = Loader { object: &object, pins: &pins, can_set_retval: true, log: log.clone() };
            let mut ebpf = loader.open().unwrap();
            let Err(refusal) = loader.load(&mut ebpf, hook) else { panic!("{hook} is not refused") };
            let whole = std::fs::read_to_string(&log);
            let _ = std::fs::remove_file(&log);
            assert_eq!(refusal.lines().count(), 1, "{refusal}");
            for part in [hook.program(), "R10 ", "(79) r0 = *(u64 *)(r10 +0)", ".rs", &log.display().to_string()] {
                assert!(refusal.contains(part), "no {part:?} in {refusal}");
            }
            assert!(!refusal.contains("stack depth") && !refusal.contains("processed"), "{refusal}");
            // With the way to the fault: instructions and what the registers held.
            let whole = whole.unwrap();
            assert!(whole.lines().count() > 20 && whole.contains("R10=fp0"), "{whole}");
        }
    }

    #[test]
    fn the_reason_is_what_precedes_the_statistics() {
        let log = "0: (b7) r0 = 0 ; R0_w=0\ncombined stack size of 6 calls is 544. Too large\nverification time 1918 usec\n\
                   stack depth 136+0\nprocessed 74 insns (limit 1000000) max_states_per_insn 0\n\n";
        assert_eq!(reason(log), Some("combined stack size of 6 calls is 544. Too large"));
        assert_eq!(place(log).as_deref(), Some("instruction 0: (b7) r0 = 0"));
        assert_eq!(reason(""), None);
    }
}
