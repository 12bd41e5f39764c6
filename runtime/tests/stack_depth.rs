//! The deepest chain of calls of each program, in bytes of stack. Kernels before 6.9 refuse more than 512 of them, only when the
//! program is loaded there; this is told from the object, on any machine.

use std::collections::{BTreeMap, BTreeSet};

use aya_obj::Object;
use aya_obj::generated::bpf_insn;

/// What is to be enough, in bytes: the rest is for what a verifier counts otherwise.
const ENOUGH: i64 = 384;
/// A frame takes a multiple of this in the verifier's sum.
const ROUNDED_TO: i64 = 32;

const FRAME_POINTER: u8 = 10;
const MOVE: u8 = 0xbf;
const ADD_CONSTANT: u8 = 0x07;
const CALL: u8 = 0x85;
const LOAD_CONSTANT: u8 = 0x18;
/// What `src_reg` of a call and of a loaded constant says of a function of the program's own.
const TO_OWN_FUNCTION: u8 = 1;
const OF_OWN_FUNCTION: u8 = 4;

/// Where the instruction leads to, if it calls a function of the program's own or takes its address.
fn target(at: usize, instruction: &bpf_insn) -> Option<usize> {
    let is_call = instruction.code == CALL && instruction.src_reg() == TO_OWN_FUNCTION;
    let is_address = instruction.code == LOAD_CONSTANT && instruction.src_reg() == OF_OWN_FUNCTION;
    (is_call || is_address).then(|| (at as i64 + 1 + i64::from(instruction.imm)) as usize)
}

/// How far below the frame pointer a function's instructions reach, in bytes.
fn frame(instructions: &[bpf_insn]) -> i64 {
    let mut points_to_frame = [false; 16];
    points_to_frame[usize::from(FRAME_POINTER)] = true;
    let mut deepest = 0;
    for instruction in instructions {
        let (to, from) = (usize::from(instruction.dst_reg()), usize::from(instruction.src_reg()));
        let reaches = match instruction.code & 7 {
            1 if points_to_frame[from] => i64::from(instruction.off),
            2 | 3 if points_to_frame[to] => i64::from(instruction.off),
            7 if instruction.code == ADD_CONSTANT && points_to_frame[to] => i64::from(instruction.imm),
            _ => 0,
        };
        deepest = deepest.min(reaches);
        if instruction.code == MOVE {
            points_to_frame[to] = from == usize::from(FRAME_POINTER);
        } else if matches!(instruction.code & 7, 0 | 1 | 4 | 7) && to != usize::from(FRAME_POINTER) {
            // Also after the addition: what follows goes on from an address that has been counted.
            points_to_frame[to] = false;
        }
    }
    -deepest
}

/// The deepest chain that begins with the function at `start`, by the functions on it.
fn deepest(start: usize, functions: &BTreeMap<usize, (i64, BTreeSet<usize>)>) -> (i64, Vec<usize>) {
    let (own, calls) = &functions[&start];
    let below = calls.iter().map(|callee| deepest(*callee, functions)).max().unwrap_or_default();
    let rounded = (own.max(&1) + ROUNDED_TO - 1) / ROUNDED_TO * ROUNDED_TO;
    (rounded + below.0, [vec![start], below.1].concat())
}

#[test]
fn no_chain_of_calls_needs_more_stack_than_old_kernels_have() {
    let mut object = Object::parse(runtime::datapath::OBJECT).expect("the object");
    let text = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_calls(&text).expect("calls");
    let mut seen = 0;
    for (name, program) in &object.programs {
        let instructions = &object.functions[&program.function_key()].instructions;
        let calls: Vec<_> = instructions.iter().enumerate().filter_map(|(at, i)| Some((at, target(at, i)?))).collect();
        let starts: BTreeSet<usize> = calls.iter().map(|(_, to)| *to).chain([0]).collect();
        let ends = starts.iter().copied().skip(1).chain([instructions.len()]);
        let functions: BTreeMap<_, _> = starts
            .iter()
            .zip(ends)
            .map(|(&start, end)| {
                let own = calls.iter().filter(|(at, _)| (start..end).contains(at)).map(|(_, to)| *to);
                (start, (frame(&instructions[start..end]), own.collect()))
            })
            .collect();
        let (bytes, chain) = deepest(0, &functions);
        let frames: Vec<_> = chain.iter().map(|start| functions[start].0).collect();
        println!("{name}: {bytes} bytes, {frames:?}");
        assert!(
            bytes <= ENOUGH,
            "{name}: {bytes} bytes of stack over frames of {frames:?}, {ENOUGH} have to be enough"
        );
        seen += functions.len();
    }
    assert!(seen > 2 * object.programs.len(), "programs without functions of their own: {seen}");
}
