//! The bpf(2) calls that aya does not offer.

use std::ffi::CString;
use std::io::{Error, Result};
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya::Pod;
use nix::libc;

use crate::failpoint;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;
const BPF_MAP_DELETE_BATCH: libc::c_long = 27;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_LINK_DETACH: libc::c_long = 34;

/// The parts of `union bpf_attr` that are used here.
#[repr(C)]
union Attributes {
    program: Program,
    object: Object,
    information: Information,
    query: Query,
    link: Link,
    link_fd: u32,
    update: Update,
    batch: Batch,
    whole: [u64; 16],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Object {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Program {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    attach_type: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Information {
    fd: u32,
    length: u32,
    to: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Query {
    target: u32,
    attach_type: u32,
    flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Link {
    program_fd: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Update {
    link_fd: u32,
    new_program_fd: u32,
    flags: u32,
    old_program_fd: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Batch {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    entry_flags: u64,
    flags: u64,
}

/// Writes entries of a map in one call. On an error, those before the one that the kernel refused are written: how many is
/// told with it.
pub fn update_batch<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    entries: &[(K, V)],
) -> std::result::Result<(), (usize, Error)> {
    let (keys, values): (Vec<K>, Vec<V>) = entries.iter().copied().unzip();
    batch(BPF_MAP_UPDATE_BATCH, map, keys.as_ptr() as u64, values.as_ptr() as u64, entries.len())
}

/// Removes entries of a map in one call; errors as for [`update_batch`].
pub fn delete_batch<K: Pod>(map: BorrowedFd<'_>, keys: &[K]) -> std::result::Result<(), (usize, Error)> {
    batch(BPF_MAP_DELETE_BATCH, map, keys.as_ptr() as u64, 0, keys.len())
}

fn batch(
    command: libc::c_long,
    map: BorrowedFd<'_>,
    keys: u64,
    values: u64,
    count: usize,
) -> std::result::Result<(), (usize, Error)> {
    let all = u32::try_from(count).map_err(|_| (0, Error::from_raw_os_error(libc::E2BIG)))?;
    let mut attributes = Attributes { whole: [0; 16] };
    let map_fd = map.as_raw_fd() as u32;
    attributes.batch = Batch { from: 0, to: 0, keys, values, count: all, map_fd, entry_flags: 0, flags: 0 };
    bpf(command, &mut attributes).map(drop).map_err(|e| {
        // SAFETY: every bit pattern is a number.
        let done = unsafe { attributes.batch.count };
        // Where the call is refused as a whole, the number is left as it was.
        (if done < all { done as usize } else { 0 }, e)
    })
}

/// Reads all entries of a hash map, thousands in a call. Those that come or go meanwhile may be there or not.
pub fn read_all<K: Pod, V: Pod>(map: BorrowedFd<'_>) -> Result<Vec<(K, V)>> {
    let mut room = 4096;
    let (mut all, mut from) = (Vec::new(), None::<u32>);
    loop {
        // SAFETY: plain data, for which zero is a value.
        let (mut keys, mut values): (Vec<K>, Vec<V>) = unsafe { (vec![zeroed(); room], vec![zeroed(); room]) };
        let mut next = 0u32;
        let mut attributes = Attributes { whole: [0; 16] };
        attributes.batch = Batch {
            from: from.as_ref().map_or(0, |from| &raw const *from as u64),
            to: &raw mut next as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: room as u32,
            map_fd: map.as_raw_fd() as u32,
            entry_flags: 0,
            flags: 0,
        };
        let result = bpf(BPF_MAP_LOOKUP_BATCH, &mut attributes);
        // SAFETY: every bit pattern is a number.
        let found = unsafe { attributes.batch.count } as usize;
        match result.as_ref().map_err(Error::raw_os_error) {
            // A bucket that has more entries than there is room for.
            Err(Some(libc::ENOSPC)) => {
                room *= 2;
                continue;
            }
            // The last of them.
            Ok(_) | Err(Some(libc::ENOENT)) => all.extend(keys.into_iter().zip(values).take(found)),
            Err(_) => return result.map(|_| Vec::new()),
        }
        if result.is_err() {
            return Ok(all);
        }
        from = Some(next);
    }
}

/// Whether the kernel says that it has no such call for this kind of map.
pub fn is_unsupported(e: &Error) -> bool {
    /// `ENOTSUPP` of the kernel's own: no user space name.
    const ENOTSUPP: i32 = 524;
    matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | ENOTSUPP))
}

/// Calls that change nothing.
const LOOKS: [libc::c_long; 5] =
    [BPF_PROG_LOAD, BPF_OBJ_GET, BPF_OBJ_GET_INFO_BY_FD, BPF_PROG_QUERY, BPF_MAP_LOOKUP_BATCH];

fn bpf(command: libc::c_long, attributes: &mut Attributes) -> Result<libc::c_long> {
    if !LOOKS.contains(&command) {
        failpoint::step();
    }
    // SAFETY: the attributes are as large as said and zero where not set; pointers in them outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<Attributes>()) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result) }
}

/// Loads a program of a type, and for an attach type where its type has several. What the verifier says is written to `log`,
/// if that has room, and ends with a zero.
pub fn load_program(kind: (u32, u32), instructions: &[[u8; 8]], log: &mut [u8]) -> Result<OwnedFd> {
    let (kind, attach_type) = kind;
    let mut attributes = Attributes { whole: [0; 16] };
    attributes.program = Program {
        kind,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: log.len() as u32,
        log: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
        kernel_version: 0,
        flags: 0,
        name: [0; 16],
        ifindex: 0,
        attach_type,
    };
    let fd = bpf(BPF_PROG_LOAD, &mut attributes)?;
    // SAFETY: the kernel has just given this descriptor to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Pins a program or a link.
pub fn pin(path: &Path, object: BorrowedFd<'_>) -> Result<()> {
    let text = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = Attributes { whole: [0; 16] };
    attributes.object = Object { path: text.as_ptr() as u64, fd: object.as_raw_fd() as u32, flags: 0 };
    bpf(BPF_OBJ_PIN, &mut attributes).map(drop)
}

/// The kernel's number of a program.
pub fn program_id(program: BorrowedFd<'_>) -> Result<u32> {
    // `struct bpf_prog_info` begins with the type and the number.
    information::<2>(program).map(|[_, id]| id)
}

/// The kernel's number of a map.
pub fn map_id(map: BorrowedFd<'_>) -> Result<u32> {
    // `struct bpf_map_info` begins with the type and the number as well.
    information::<2>(map).map(|[_, id]| id)
}

/// Where a link is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkedAt {
    /// The number of the program in it.
    pub program: u32,
    /// The interface; zero where it is gone, or where the link is on none.
    pub ifindex: u32,
}

/// Where the link that is pinned at `path` is attached; none where the pin is no link.
pub fn pinned_link(path: &Path) -> Result<Option<LinkedAt>> {
    let fd = open_pin(path)?;
    // `bpf_link` or `bpf-link`, by the kernel's age.
    let kind = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    if !kind.to_string_lossy().ends_with("link") {
        return Ok(None);
    }
    // `struct bpf_link_info`: type, number, program, padding, and for tcx and XDP the interface.
    let [_, _, program, _, ifindex] = information::<5>(fd.as_fd())?;
    Ok(Some(LinkedAt { program, ifindex }))
}

/// The beginning of what the kernel tells of an object.
fn information<const WORDS: usize>(object: BorrowedFd<'_>) -> Result<[u32; WORDS]> {
    // Larger than what is there of any kind: the kernel writes as much as it knows.
    let mut words = [0u32; 64];
    let mut attributes = Attributes { whole: [0; 16] };
    attributes.information = Information {
        fd: object.as_raw_fd() as u32,
        length: (WORDS * size_of::<u32>()) as u32,
        to: words.as_mut_ptr() as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(std::array::from_fn(|i| words[i]))
}

/// A place of programs as bpf(2) names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Attach {
    /// `BPF_XDP`.
    Xdp = 37,
    /// `BPF_TCX_INGRESS`.
    TcxIngress = 46,
    /// `BPF_TCX_EGRESS`.
    TcxEgress = 47,
}

/// Attaches a program to an interface as a link, which lasts as long as there is a descriptor or a pin of it.
pub fn create_link(program: BorrowedFd<'_>, ifindex: u32, at: Attach, flags: u32) -> Result<OwnedFd> {
    let mut attributes = Attributes { whole: [0; 16] };
    attributes.link = Link { program_fd: program.as_raw_fd() as u32, ifindex, attach_type: at as u32, flags };
    let fd = bpf(BPF_LINK_CREATE, &mut attributes)?;
    // SAFETY: the kernel has just given this descriptor to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The numbers of the programs at a place: of an interface by its index, of a cgroup by its descriptor.
pub fn programs_at(target: u32, attach_type: u32) -> Result<Vec<u32>> {
    let mut programs = vec![0u32; 64];
    loop {
        let mut attributes = Attributes { whole: [0; 16] };
        attributes.query = Query {
            target,
            attach_type,
            flags: 0,
            attach_flags: 0,
            programs: programs.as_mut_ptr() as u64,
            count: programs.len() as u32,
            reserved: 0,
        };
        let asked = bpf(BPF_PROG_QUERY, &mut attributes);
        // SAFETY: every bit pattern is a number.
        let count = unsafe { attributes.query.count } as usize;
        match asked {
            Err(e) if e.raw_os_error() == Some(libc::ENOSPC) && count > programs.len() => programs.resize(count, 0),
            Err(e) => return Err(e),
            Ok(_) => {
                programs.truncate(count);
                return Ok(programs);
            }
        }
    }
}

/// Opens what is pinned at a path.
pub fn open_pin(path: &Path) -> Result<OwnedFd> {
    let text = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = Attributes { whole: [0; 16] };
    attributes.object = Object { path: text.as_ptr() as u64, fd: 0, flags: 0 };
    let fd = bpf(BPF_OBJ_GET, &mut attributes)?;
    // SAFETY: the kernel has just given this descriptor to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Puts a program into the link that is pinned at `path`, in place of the one that is there: without a moment between.
pub fn update_pinned_link(path: &Path, program: BorrowedFd<'_>) -> Result<()> {
    let fd = open_pin(path)?;
    let mut attributes = Attributes { whole: [0; 16] };
    attributes.update = Update {
        link_fd: fd.as_raw_fd() as u32,
        new_program_fd: program.as_raw_fd() as u32,
        flags: 0,
        old_program_fd: 0,
    };
    bpf(BPF_LINK_UPDATE, &mut attributes).map(drop)
}

/// Detaches the link that is pinned at `path`. When it returns, its program no longer runs there.
///
/// False where the pin is no link.
pub fn detach_pinned_link(path: &Path) -> Result<bool> {
    let fd = open_pin(path)?;
    let mut attributes = Attributes { whole: [0; 16] };
    attributes.link_fd = fd.as_raw_fd() as u32;
    match bpf(BPF_LINK_DETACH, &mut attributes) {
        Ok(_) => Ok(true),
        // No link, but a program.
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        // A link whose interface is gone.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOLINK | libc::ENODEV | libc::ENOENT)) => Ok(true),
        Err(e) => Err(e),
    }
}
