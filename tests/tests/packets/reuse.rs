//! One test's programs serve the next: to load them takes an emulated machine a hundred times longer than to run them.

use std::collections::HashSet;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Mutex;

use aya::Ebpf;
use aya::maps::{Map, MapData};
use nix::libc::{self, c_long};

/// Those that no test has at the moment, with the number of their flows; their maps are empty.
static IDLE: Mutex<Vec<(u32, Ebpf)>> = Mutex::new(Vec::new());

/// The most flows that a table is kept for: the benchmark's large ones give their memory back.
const MOST_FLOWS: u32 = 4096;

/// A loaded object. When it is dropped, its maps are emptied, and the next test has it; not after a failure.
pub struct Loaded {
    ebpf: Option<Ebpf>,
    flows: u32,
    /// Elements of arrays that are not zero: map and index.
    written: HashSet<(String, u32)>,
}

impl Loaded {
    /// One that another test is done with, or else what `load` gives.
    pub fn idle_or(flows: u32, load: impl FnOnce() -> Ebpf) -> Self {
        let mut idle = IDLE.lock().unwrap();
        let at = idle.iter().position(|(of, _)| *of == flows);
        let found = at.map(|at| idle.swap_remove(at).1);
        drop(idle);
        Loaded { ebpf: Some(found.unwrap_or_else(load)), flows, written: HashSet::new() }
    }

    /// An element of an array was set.
    pub fn note(&mut self, map: &str, index: u32) {
        self.written.insert((map.to_owned(), index));
    }

    fn empty(&mut self) -> io::Result<()> {
        for (name, map) in self.ebpf.as_mut().unwrap().maps_mut() {
            match map {
                Map::HashMap(map) | Map::LruHashMap(map) | Map::LpmTrie(map) => remove_all(map)?,
                Map::Array(map) => {
                    let mut written = self.written.iter().filter(|(of, _)| of == name);
                    written.try_for_each(|(_, index)| set_to_zero(map, *index, 1))?;
                }
                // What the programs keep there of interfaces that are gone; of the others, tests look at differences.
                Map::PerCpuArray(map) if name == "WAYS" => {
                    let cpus = aya::util::nr_cpus().map_err(|(_, e)| e)?;
                    let mut all = 0..map.info().map_err(io::Error::other)?.max_entries();
                    all.try_for_each(|index| set_to_zero(map, index, cpus))?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        if std::thread::panicking() || self.flows > MOST_FLOWS {
            return;
        }
        match self.empty() {
            Ok(()) => IDLE.lock().unwrap().extend(self.ebpf.take().map(|ebpf| (self.flows, ebpf))),
            Err(e) => panic!("the maps cannot be emptied: {e}"),
        }
    }
}

impl Deref for Loaded {
    type Target = Ebpf;

    fn deref(&self) -> &Ebpf {
        self.ebpf.as_ref().unwrap()
    }
}

impl DerefMut for Loaded {
    fn deref_mut(&mut self) -> &mut Ebpf {
        self.ebpf.as_mut().unwrap()
    }
}

const UPDATE: c_long = 2;
const DELETE: c_long = 3;
const NEXT_KEY: c_long = 4;

/// The part of `union bpf_attr` for elements of maps.
#[repr(C)]
struct Element {
    map: i32,
    padding: u32,
    key: u64,
    value_or_next_key: u64,
    flags: u64,
}

/// aya's own maps have to be told the types of key and value.
fn element(command: c_long, map: &MapData, key: Option<&[u8]>, other: Option<&mut [u8]>) -> io::Result<()> {
    let element = Element {
        map: map.fd().as_fd().as_raw_fd(),
        padding: 0,
        key: key.map_or(0, |key| key.as_ptr() as u64),
        // What a command does not use has to be zero.
        value_or_next_key: other.map_or(0, |other| other.as_mut_ptr() as u64),
        flags: 0,
    };
    // SAFETY: the attribute is as long as said; key and value live until the call returns, and have the map's sizes.
    let code = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const element, size_of::<Element>()) };
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn remove_all(map: &MapData) -> io::Result<()> {
    let size = map.info().map_err(io::Error::other)?.key_size() as usize;
    let mut keys: Vec<Vec<u8>> = Vec::new();
    loop {
        let mut next = vec![0; size];
        match element(NEXT_KEY, map, keys.last().map(Vec::as_slice), Some(&mut next)) {
            Ok(()) => keys.push(next),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => break,
            Err(e) => return Err(e),
        }
    }
    keys.iter().try_for_each(|key| element(DELETE, map, Some(key), None))
}

fn set_to_zero(map: &MapData, index: u32, cpus: usize) -> io::Result<()> {
    let size = map.info().map_err(io::Error::other)?.value_size() as usize;
    let mut zero = vec![0; size.next_multiple_of(8) * cpus];
    element(UPDATE, map, Some(&index.to_ne_bytes()), Some(&mut zero))
}
