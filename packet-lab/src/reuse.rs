//! One test's programs serve the next: to load them takes an emulated machine a hundred times longer than to run them.

use std::collections::HashSet;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Mutex;

use aya::Ebpf;
use aya::maps::{Map, MapData};

use crate::elements::{put, remove_all};

/// For how many conversations, for how many that have just begun, and for how many fragmented datagrams.
pub type Room = [u32; 3];

/// Those that no test has at the moment, with their room; their maps are empty.
static IDLE: Mutex<Vec<(Room, Ebpf)>> = Mutex::new(Vec::new());

/// The most flows that a table is kept for: the benchmark's large ones give their memory back.
const MOST_FLOWS: u32 = 4096;

/// A loaded object. When it is dropped, its maps are emptied, and the next test has it; not after a failure.
pub struct Loaded {
    ebpf: Option<Ebpf>,
    room: Room,
    /// Elements of arrays that are not zero: map and index.
    written: HashSet<(String, u32)>,
}

impl Loaded {
    /// One that another test is done with, or else what `load` gives.
    pub fn idle_or(room: Room, load: impl FnOnce() -> Ebpf) -> Self {
        let mut idle = IDLE.lock().unwrap();
        let at = idle.iter().position(|(of, _)| *of == room);
        let found = at.map(|at| idle.swap_remove(at).1);
        drop(idle);
        Loaded { ebpf: Some(found.unwrap_or_else(load)), room, written: HashSet::new() }
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
                Map::PerCpuArray(map) if name == "NEXT_HOPS" => {
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
        if std::thread::panicking() || self.room[0] > MOST_FLOWS {
            return;
        }
        match self.empty() {
            Ok(()) => IDLE.lock().unwrap().extend(self.ebpf.take().map(|ebpf| (self.room, ebpf))),
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

fn set_to_zero(map: &MapData, index: u32, cpus: usize) -> io::Result<()> {
    let size = map.info().map_err(io::Error::other)?.value_size() as usize;
    let mut zero = vec![0; size.next_multiple_of(8) * cpus];
    put(map, &index.to_ne_bytes(), &mut zero)
}
