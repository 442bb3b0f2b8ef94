//! Capabilities and file ownership of this (single-threaded) process.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::thread::LinkNameSpaceType;

/// One half of the kernel's `struct __user_cap_data_struct`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The kernel's `struct __user_cap_header_struct`, of version 3, for the caller.
#[repr(C)]
struct Head {
    version: u32,
    pid: i32,
}

const VERSION: u32 = 0x2008_0522;
const SYS_ADMIN: u32 = 1 << 21;

/// Put `CAP_SYS_ADMIN` to use if it is permitted.
pub(crate) fn raise_admin() -> io::Result<()> {
    let mut sets = read()?;
    sets[0].effective |= sets[0].permitted & SYS_ADMIN;
    write(&sets)
}

/// What a process is to become in a user namespace.
pub(crate) struct Identity<'a> {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: &'a [u32],
    /// Bits of capabilities.
    pub(crate) bounding: u64,
    pub(crate) permitted: u64,
}

/// Enter a user namespace with privileges over it, and become somebody there. Entering gives all
/// capabilities of the namespace, also back into the bounding set: what is too much is given up last.
pub(crate) fn enter(user_namespace: BorrowedFd<'_>, identity: &Identity<'_>) -> io::Result<()> {
    raise_admin()?;
    let kind = Some(LinkNameSpaceType::User);
    rustix::thread::move_into_link_name_space(user_namespace, kind)?;
    let ids = (identity.uid, identity.gid);
    // SAFETY: raw calls for this process's only thread; the groups are read while the call lasts.
    let failed = unsafe {
        libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0
            || libc::syscall(libc::SYS_setgroups, identity.groups.len(), identity.groups.as_ptr())
                < 0
            || libc::syscall(libc::SYS_setresgid, ids.1, ids.1, ids.1) < 0
            || libc::syscall(libc::SYS_setresuid, ids.0, ids.0, ids.0) < 0
            || libc::prctl(libc::PR_SET_KEEPCAPS, 0, 0, 0, 0) < 0
    };
    if failed {
        return Err(io::Error::last_os_error());
    }
    let now = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    if now != ids {
        return Err(io::Error::other(format!("became {now:?} instead of {ids:?}")));
    }
    let sets = |effective: u64, permitted: u64| {
        let half = |shift: u32| Half {
            effective: (effective >> shift) as u32,
            permitted: (permitted >> shift) as u32,
            inheritable: 0,
        };
        [half(0), half(32)]
    };
    let all = read()?;
    let most = u64::from(all[0].permitted) | u64::from(all[1].permitted) << 32;
    write(&sets(most, most))?;
    for capability in
        (0..64).filter(|bit| most >> bit & 1 == 1 && identity.bounding >> bit & 1 == 0)
    {
        // SAFETY: changes the bounding set alone.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    let permitted = identity.permitted & most;
    write(&sets(permitted, permitted))
}

/// Give up `CAP_SYS_ADMIN` for good, if it is there.
pub(crate) fn drop_admin() -> io::Result<()> {
    let mut sets = read()?;
    if sets[0].permitted & SYS_ADMIN == 0 {
        return Ok(());
    }
    sets[0].effective &= !SYS_ADMIN;
    sets[0].permitted &= !SYS_ADMIN;
    write(&sets)
}

/// Do something as the owner of files that belong to `id`, with all capabilities of this thread. Only
/// the calling thread changes; if the way back fails, it is the caller's to end it.
pub fn as_owner<T>(id: u32, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    own(id)?;
    let result = work();
    own(0)?;
    result
}

fn own(id: u32) -> io::Result<()> {
    // SAFETY: both calls change the calling thread alone; they have no other way to report failure than
    // that the id stays, which is asked for next.
    let now = unsafe {
        libc::setfsgid(id);
        libc::setfsuid(id);
        libc::setfsuid(u32::MAX)
    };
    if now as u32 != id {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    // The change took the capabilities over files away.
    let mut sets = read()?;
    for half in &mut sets {
        half.effective = half.permitted;
    }
    write(&sets)
}

fn read() -> io::Result<[Half; 2]> {
    let mut head = Head { version: VERSION, pid: 0 };
    let mut sets = [Half::default(); 2];
    // SAFETY: both structures are the kernel's, and large enough for version 3.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut head, sets.as_mut_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(sets) }
}

fn write(sets: &[Half; 2]) -> io::Result<()> {
    let mut head = Head { version: VERSION, pid: 0 };
    // SAFETY: as above.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut head, sets.as_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
