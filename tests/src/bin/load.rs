//! Loads every program of an object into the running kernel, attaches none, and tells what the verifier went through.
//!
//! `cargo xtask vm` runs it inside each kernel. One line a program: `program NAME INSTRUCTIONS`, or `refused NAME WHY`, after
//! which `| ` begins each line of what the verifier said last. Fails where a program was refused.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use aya::programs::{Program, ProgramError};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};

/// How many lines of the verifier's log tell why it refused.
const LAST_LINES: usize = 12;

fn main() -> ExitCode {
    match load_all() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("load: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether every program was taken.
fn load_all() -> Result<bool> {
    let Some(object) = std::env::args_os().nth(1).map(PathBuf::from) else { bail!("usage: load OBJECT") };
    let bytes = std::fs::read(&object).with_context(|| format!("cannot read {}", object.display()))?;
    let mut ebpf = open(&bytes, VerifierLogLevel::STATS)?;
    let mut names: Vec<String> = ebpf.programs().map(|(name, _)| name.to_owned()).collect();
    names.sort();
    let mut all_taken = true;
    for name in &names {
        match load(&mut ebpf, name) {
            Ok(()) => println!("program {name} {}", verified(&ebpf, name)?),
            Err(error) => {
                all_taken = false;
                // The instructions on the way to the fault are of use; kernels before 6.4 cannot drop the beginning of a log
                // that is too long, so there what little the first attempt said has to do.
                let told = load(&mut open(&bytes, VerifierLogLevel::DEBUG)?, name).err();
                let log = told.as_ref().map(log_of).filter(|log| !log.is_empty()).unwrap_or_else(|| log_of(&error));
                println!("refused {name} {}", describe(&error));
                let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
                for line in &lines[lines.len().saturating_sub(LAST_LINES)..] {
                    println!("| {line}");
                }
            }
        }
    }
    Ok(all_taken)
}

/// Reads the object and makes its maps, small: how large a hash table is makes no difference to the verifier.
fn open(bytes: &[u8], level: VerifierLogLevel) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    // Which every kernel here has (5.18), and which the programs do more with.
    loader.override_global("CAN_SET_RETVAL", &1u8, false);
    loader.map_max_entries("FLOWS", 1024).map_max_entries("PENDING", 1024).verifier_log_level(level);
    loader.load(bytes).context("cannot make the object's maps")
}

/// Loads a program, again where a signal interrupted the verifier.
fn load(ebpf: &mut Ebpf, name: &str) -> Result<(), ProgramError> {
    loop {
        let outcome = match ebpf.program_mut(name) {
            Some(Program::SchedClassifier(program)) => program.load(),
            Some(Program::CgroupSockAddr(program)) => program.load(),
            Some(Program::Xdp(program)) => program.load(),
            Some(Program::SkLookup(program)) => program.load(),
            _ => return Err(ProgramError::UnexpectedProgramType),
        };
        match outcome {
            Err(ProgramError::LoadError { io_error, .. }) if io_error.kind() == ErrorKind::WouldBlock => {}
            outcome => return outcome,
        }
    }
}

fn verified(ebpf: &Ebpf, name: &str) -> Result<u32> {
    let program = ebpf.program(name).context("a program that was loaded is gone")?;
    let info = program.info().with_context(|| format!("cannot ask about {name}"))?;
    info.verified_instruction_count().with_context(|| {
        format!("the kernel took {name}, but does not tell how many instructions it verified (Linux 5.16 does)")
    })
}

fn log_of(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { verifier_log, .. } => verifier_log.to_string(),
        _ => String::new(),
    }
}

fn describe(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, .. } => io_error.to_string(),
        other => other.to_string(),
    }
}
