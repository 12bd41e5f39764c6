//! Elements of maps by their bytes, many with one system call: aya's own maps have to be told the types of key and value, and take
//! a call for each element.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use aya::maps::MapData;
use nix::libc::{self, c_int, c_long};

const UPDATE: c_long = 2;
const DELETE: c_long = 3;
const NEXT_KEY: c_long = 4;
const LOOKUP_BATCH: c_long = 24;
const TAKE_BATCH: c_long = 25;

/// The part of `union bpf_attr` for elements of maps.
#[repr(C)]
struct Element {
    map: c_int,
    padding: u32,
    key: u64,
    value_or_next_key: u64,
    flags: u64,
}

/// That for many elements.
#[repr(C)]
struct Batch {
    begin: u64,
    end: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: c_int,
    element_flags: u64,
    flags: u64,
}

fn bpf<T>(command: c_long, attribute: &mut T) -> io::Result<()> {
    // SAFETY: the attribute is as long as said; what it points to lives until the call returns, and has the map's sizes.
    let code = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attribute, size_of::<T>()) };
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn element(command: c_long, map: &MapData, key: Option<&[u8]>, other: Option<&mut [u8]>) -> io::Result<()> {
    let mut element = Element {
        map: map.fd().as_fd().as_raw_fd(),
        padding: 0,
        key: key.map_or(0, |key| key.as_ptr() as u64),
        // What a command does not use has to be zero.
        value_or_next_key: other.map_or(0, |other| other.as_mut_ptr() as u64),
        flags: 0,
    };
    bpf(command, &mut element)
}

/// Sets an element. For a map of which every processor has its own, the value is of all of them.
pub fn put(map: &MapData, key: &[u8], value: &mut [u8]) -> io::Result<()> {
    element(UPDATE, map, Some(key), Some(value))
}

/// Removes an element. False where there is none.
pub fn remove(map: &MapData, key: &[u8]) -> io::Result<bool> {
    match element(DELETE, map, Some(key), None) {
        Ok(()) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Removes all elements, whatever the kind of the map.
pub fn remove_all(map: &MapData) -> io::Result<()> {
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
    keys.iter().try_for_each(|key| remove(map, key).map(drop))
}

/// Keys and values of all elements of a hash map, which is empty then.
pub fn take_all(map: &MapData, key: usize, value: usize) -> io::Result<(Vec<u8>, Vec<u8>)> {
    batches(TAKE_BATCH, map, key, value)
}

/// The values of all elements of an array.
pub fn values(map: &MapData, value: usize) -> io::Result<Vec<u8>> {
    batches(LOOKUP_BATCH, map, size_of::<u32>(), value).map(|(_, values)| values)
}

fn batches(command: c_long, map: &MapData, key: usize, value: usize) -> io::Result<(Vec<u8>, Vec<u8>)> {
    /// More than a case leaves, and as many as a bucket may have.
    const MANY: usize = 128;
    let (mut keys, mut values) = (vec![], vec![]);
    // Where the kernel is: the number of a bucket, or of an element.
    let mut from: Option<u32> = None;
    loop {
        let had = (keys.len(), values.len());
        keys.resize(had.0 + MANY * key, 0);
        values.resize(had.1 + MANY * value, 0);
        let mut to = 0u32;
        let mut batch = Batch {
            begin: from.as_ref().map_or(0, |from| &raw const *from as u64),
            end: &raw mut to as u64,
            keys: keys[had.0..].as_mut_ptr() as u64,
            values: values[had.1..].as_mut_ptr() as u64,
            count: MANY as u32,
            map: map.fd().as_fd().as_raw_fd(),
            element_flags: 0,
            flags: 0,
        };
        let done = bpf(command, &mut batch);
        keys.truncate(had.0 + batch.count as usize * key);
        values.truncate(had.1 + batch.count as usize * value);
        match done {
            Ok(()) => {}
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok((keys, values)),
            Err(e) => return Err(e),
        }
        from = Some(to);
    }
}
