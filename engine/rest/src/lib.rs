//! Gives memory back while a process waits.
//!
//! What runs on a device mostly waits. What it has read of its own program for the last thing it did, and
//! what its allocator keeps for the next, is then given back to the kernel, which has better use for it on
//! a small device. Both come again by themselves.

use std::os::raw::c_void;
use std::time::Duration;

use rustix::mm::{Advice, madvise};

/// How long a process should have had nothing to do.
pub const QUIET: Duration = Duration::from_secs(5);

/// How often [`now_and_then`] is: seldom enough that reading pages again costs nothing.
const BETWEEN: Duration = Duration::from_secs(120);
/// Enough for that.
const STACK: usize = 64 << 10;

/// Lets all threads allocate from one heap. Left to itself, the C library gives each thread that finds it busy a
/// heap of its own, and what lives long keeps pages of each: twice the memory after some builds, for threads that
/// seldom wait for one another. To be called before the first of them starts.
pub fn one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it only sets a number of the allocator.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives back what can be had again.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointers, and the allocator may be asked at any time.
    unsafe {
        libc::malloc_trim(0);
    }
    // The kernel reads the same bytes from the file when they are next run.
    if let Err(error) = advise_code(Advice::LinuxDontNeed) {
        tracing::debug!(%error, "the program's pages were not given back");
    }
}

/// Gives memory back from time to time, on a thread of its own, in a process that does not know itself
/// when it has nothing to do.
pub fn now_and_then() {
    let rest = || {
        let mut pause = QUIET;
        loop {
            std::thread::sleep(pause);
            give_memory_back();
            pause = BETWEEN;
        }
    };
    let thread = std::thread::Builder::new().name("rest".to_owned()).stack_size(STACK);
    if let Err(error) = thread.spawn(rest) {
        tracing::warn!(%error, "memory that is not needed is kept");
    }
}

/// Tells the kernel what to do with the program's code.
fn advise_code(advice: Advice) -> std::io::Result<()> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let here = advise_code as *const () as usize;
    if let Some((start, length)) = maps.lines().find_map(|line| code(line, here)) {
        // SAFETY: the range is a mapping of this process that nobody can write to, with a file behind it:
        // no advice changes what is read there.
        unsafe { madvise(start as *mut c_void, length, advice)? };
    }
    Ok(())
}

/// Start and length of a line of `/proc/self/maps`, if it is unwritable code with a file behind it, and the
/// function at `here` is in it. Data that is only read does not count: it may have been written before it
/// was protected. The file's name does not either: a program that was replaced has another one.
fn code(line: &str, here: usize) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let rights = words.next()?;
    let inode = words.nth(2)?;
    let (start, end) =
        (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    let holds = rights == "r-xp" && inode != "0" && (start..end).contains(&here);
    holds.then(|| (start, end - start))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many heaps the C library has made.
    #[cfg(target_env = "gnu")]
    fn heaps() -> usize {
        let path = std::env::temp_dir().join(format!("minke-heaps-{}", std::process::id()));
        let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: the names are strings that end with a zero, and the stream is closed once.
        unsafe {
            let stream = libc::fopen(name.as_ptr(), c"w".as_ptr());
            assert!(!stream.is_null());
            libc::malloc_info(0, stream);
            libc::fclose(stream);
        }
        let said = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        said.matches("<heap nr=").count()
    }

    #[test]
    #[cfg(target_env = "gnu")]
    fn threads_share_a_heap() {
        // This thread may have got one of its own before.
        let before = heaps();
        one_heap();
        let barrier = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    barrier.wait();
                    let kept: Vec<Box<[u8]>> = (1..500).map(|n| vec![1; n].into()).collect();
                    barrier.wait();
                    drop(kept);
                });
            }
        });
        assert_eq!(heaps(), before);
    }

    #[test]
    fn only_code_of_the_program_is_given_back() {
        let line = |rights: &str, inode: &str, file: &str| {
            format!(
                "00400000-00402000 {rights} 00001000 fe:00 {inode}                        {file}"
            )
        };
        let found = Some((0x0040_0000, 0x2000));
        for file in ["/bin/it", "/bin/it (deleted)", "/a b/it"] {
            assert_eq!(code(&line("r-xp", "123", file), 0x0040_1000), found, "{file}");
        }
        for other in
            [line("r--p", "123", "/bin/it"), line("rwxp", "123", "/bin/it"), line("r-xp", "0", "")]
        {
            assert_eq!(code(&other, 0x0040_1000), None, "{other}");
        }
        assert_eq!(code(&line("r-xp", "123", "/lib/other"), 0x0040_2000), None);
        assert_eq!(code("", 0), None);
    }

    #[test]
    fn the_programs_own_code_is_found() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let here = code as *const () as usize;
        let (start, length) = maps.lines().find_map(|line| code(line, here)).unwrap();
        assert!((start..start + length).contains(&here), "{start:x} {length:x} {here:x}");
    }

    #[test]
    fn what_was_allocated_is_given_back_and_the_program_runs_on() {
        let resident = || {
            let text = std::fs::read_to_string("/proc/self/statm").unwrap();
            text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
        };
        // The last keeps the allocator from giving the others back by itself.
        let mut blocks: Vec<Box<[u8; 512]>> = (0..40_000).map(|_| Box::new([1; 512])).collect();
        let last = blocks.pop();
        drop(blocks);
        let before = resident();
        give_memory_back();
        let after = resident();
        assert!(after + (16 << 20) < before, "{after} bytes, {before} before");
        assert_eq!(last.map(|block| block[511]), Some(1));
    }
}
