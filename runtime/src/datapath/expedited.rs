//! Grace periods of RCU that do not take their time, while many programs are attached or detached.
//!
//! After each program that comes to or goes from a tcx hook the kernel waits until no processor runs what was there before,
//! with the lock of all interfaces held: 20 ms and more, one after the other, whoever asks. `/sys/kernel/rcu_expedited` has
//! it interrupt the processors instead of waiting for them. That is the whole machine's, so it is set for these moments
//! alone, and only where it is worth it; `rcu_normal`, for machines that must not be interrupted, has precedence in the kernel.
//!
//! Two see to it that it is set back: a guard, a process that outlives this one; and where somebody kills both at once, as with
//! the whole cgroup, a note that the next `up` or `down` finds.

use std::fs::{self, File};
use std::io::{Error, Result};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};
use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, pipe};

const SWITCH: &std::ffi::CStr = c"/sys/kernel/rcu_expedited";
/// There while the switch is on by this program, and locked by the process that has set it. For the whole machine, as the switch
/// is, whatever run directories there are; gone after a boot, as what the switch was set to is.
const NOTE: &str = "/run/runtime-rcu-expedited";
/// From how many programs on it is worth it.
const MANY: usize = 32;

/// Grace periods are short while this lives; afterwards as before, however this process ends.
pub(super) struct Expedited {
    /// Closed when this process ends: then its guard sets the switch back.
    lifeline: Option<OwnedFd>,
    guard: Pid,
    _note: Note,
}

/// The note, locked; removed when dropped.
struct Note {
    _lock: Flock<File>,
}

impl Note {
    /// Takes the note: one that is made now, or one that a process left which is gone. None while another one has it.
    fn take(path: &Path, make: bool) -> Option<Self> {
        let flags = libc::O_NOFOLLOW;
        let file = File::options().write(true).create(make).mode(0o600).custom_flags(flags).open(path).ok()?;
        let note = Flock::lock(file, FlockArg::LockExclusiveNonblock).ok()?;
        // Between opening and locking it, its last holder may have removed it.
        let is_there = fs::symlink_metadata(path)
            .is_ok_and(|there| note.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (there.dev(), there.ino())));
        is_there.then_some(Note { _lock: note })
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        let _ = fs::remove_file(NOTE);
    }
}

/// Sets the switch back where a process that had set it was killed together with its guard.
pub(super) fn set_back() {
    if let Some(_left) = Note::take(Path::new(NOTE), false)
        && fs::read_to_string(path()).is_ok_and(|now| now.trim() == "1")
    {
        let _ = fs::write(path(), "0");
    }
}

impl Expedited {
    /// For so many programs to be attached or detached. None where they are few, where grace periods are short already, and
    /// where they cannot be shortened: then all of it takes its time.
    pub fn for_programs(count: usize) -> Option<Self> {
        if count < MANY {
            return None;
        }
        set_back();
        if fs::read_to_string(path()).ok()?.trim() != "0" {
            return None;
        }
        // First who sets it back, then the switch.
        let note = Note::take(Path::new(NOTE), true)?;
        let expedited = Expedited::guarded(note).ok()?;
        fs::write(path(), "1").ok()?;
        Some(expedited)
    }

    fn guarded(note: Note) -> Result<Self> {
        let (read, write) = pipe()?;
        let mut before = SigSet::empty();
        // What ends this process group must not end the guard before its time.
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
        // SAFETY: the child calls nothing but what is async-signal-safe.
        let forked = unsafe { fork() };
        if let Ok(ForkResult::Child) = forked {
            guard(read.as_raw_fd());
        }
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
        match forked? {
            ForkResult::Parent { child } => Ok(Expedited { lifeline: Some(write), guard: child, _note: note }),
            ForkResult::Child => Err(Error::other("the guard goes on")),
        }
    }
}

impl Drop for Expedited {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        // It sets the switch back: when this returns, that is done.
        let _ = waitpid(self.guard, None);
    }
}

fn path() -> &'static str {
    SWITCH.to_str().unwrap_or_default()
}

/// Waits until nobody holds the other end of the pipe, and sets the switch back. A copy of a process with other threads may
/// not do more than call the kernel.
fn guard(lifeline: i32) -> ! {
    // SAFETY: system calls on this process's own descriptors and on memory of this frame.
    unsafe {
        // Its parent's locks, sockets and programs are not to live as long as this process.
        const FIRST: i32 = 0;
        libc::dup2(lifeline, FIRST);
        libc::syscall(libc::SYS_close_range, FIRST + 1, u32::MAX, 0);
        let mut byte = 0u8;
        while libc::read(FIRST, (&raw mut byte).cast(), 1) != 0 {
            if *libc::__errno_location() != libc::EINTR {
                break;
            }
        }
        let switch = libc::open(SWITCH.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        libc::write(switch, c"0".as_ptr().cast(), 1);
        libc::_exit(0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::{Duration, Instant};

    use nix::sys::signal::{Signal, kill};

    use super::*;

    /// The switch is the machine's.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    fn switch() -> String {
        fs::read_to_string(path()).unwrap_or_default().trim().to_owned()
    }

    /// Needs root; elsewhere nothing is shortened.
    #[test]
    fn the_switch_is_on_while_it_is_wanted_and_for_many_alone() {
        let _one = ONE_AT_A_TIME.lock().unwrap();
        assert!(Expedited::for_programs(MANY - 1).is_none());
        let Some(expedited) = Expedited::for_programs(MANY) else { return eprintln!("skipped: grace periods stay") };
        assert_eq!(switch(), "1");
        assert!(Expedited::for_programs(MANY).is_none(), "what somebody else has set is theirs to set back");
        drop(expedited);
        assert_eq!(switch(), "0");
        assert!(!Path::new(NOTE).exists(), "the note is left");
    }

    /// A process that has set the switch, and its guard; none where grace periods stay as they are. It waits to be killed.
    fn another() -> Option<(Pid, Pid)> {
        let (ready, told) = pipe().unwrap();
        // SAFETY: the C library keeps its allocator usable in the child, and no other lock is taken there.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let expedited = Expedited::for_programs(MANY).filter(|_| switch() == "1");
                let guard = expedited.as_ref().map_or(0, |e| e.guard.as_raw());
                let _ = nix::unistd::write(&told, &guard.to_ne_bytes());
                loop {
                    nix::unistd::pause();
                }
            }
            ForkResult::Parent { child } => {
                let mut guard = [0; 4];
                nix::unistd::read(&ready, &mut guard).unwrap();
                let guard = i32::from_ne_bytes(guard);
                if guard == 0 {
                    end(child);
                    eprintln!("skipped: grace periods stay");
                    return None;
                }
                Some((child, Pid::from_raw(guard)))
            }
        }
    }

    fn end(child: Pid) {
        kill(child, Signal::SIGKILL).unwrap();
        waitpid(child, None).unwrap();
    }

    #[test]
    fn the_switch_is_off_soon_after_a_kill() {
        let _one = ONE_AT_A_TIME.lock().unwrap();
        let Some((child, _)) = another() else { return };
        end(child);
        let began = Instant::now();
        while switch() != "0" {
            assert!(began.elapsed() < Duration::from_secs(5), "nobody sets it back");
            std::thread::sleep(Duration::from_millis(5));
        }
        set_back();
        assert!(!Path::new(NOTE).exists(), "the note is left");
    }

    #[test]
    fn the_next_one_sets_the_switch_back_where_the_guard_was_killed_as_well() {
        let _one = ONE_AT_A_TIME.lock().unwrap();
        let Some((child, guard)) = another() else { return };
        set_back();
        assert_eq!(switch(), "1", "whoever has set it is there");
        // As with the whole cgroup.
        kill(guard, Signal::SIGKILL).unwrap();
        end(child);
        assert_eq!(switch(), "1", "nobody is left who could have set it back");
        // A guard that is killed before it has closed what it inherited lets go of the note a moment later.
        let began = Instant::now();
        while switch() != "0" || Path::new(NOTE).exists() {
            assert!(began.elapsed() < Duration::from_secs(5), "nobody sets it back");
            set_back();
            std::thread::sleep(Duration::from_millis(5));
        }
        // What somebody else has set is theirs to set back.
        fs::write(path(), "1").unwrap();
        set_back();
        assert_eq!(switch(), "1");
        fs::write(path(), "0").unwrap();
    }
}
